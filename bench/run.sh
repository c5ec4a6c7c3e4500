#!/bin/sh
# Usage: run.sh ZENITHC OUTDIR [NAME...]    times compiled models beside ONNX Runtime and OpenVINO (bench/compare.py).
# Makes build/bench-venv first. NAMEs: models of ../shared/bench/make_models.py, folders of ../shared/models, .onnx files;
# none: all that are worth timing. From the environment: THREADS (1,2), ROUNDS, SECONDS_EACH, ARCH, MATH, ONLY, LOCK.
set -e
here=$(cd "$(dirname "$0")" && pwd)
root=$here/..
zenithc=$1 out=$2
shift 2
venv=${BENCH_VENV:-$root/build/bench-venv}
if ! cmp -s "$root/tools/requirements-bench.txt" "$venv/requirements-bench.txt"; then
  echo "installing the packages of tools/requirements-bench.txt in $venv"
  [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
  "$venv/bin/pip" -qq install --disable-pip-version-check -r "$root/tools/requirements-bench.txt"
  cp "$root/tools/requirements-bench.txt" "$venv/requirements-bench.txt"
fi
exec "$venv/bin/python" "$here/compare.py" "$zenithc" "$out" \
  --make-models "${MAKE_MODELS:-$root/../shared/bench/make_models.py}" --models "${MODELS:-$root/../shared/models}" \
  --threads "${THREADS:-1,2}" --rounds "${ROUNDS:-5}" --seconds "${SECONDS_EACH:-0.5}" --arch "${ARCH:-native}" \
  --math "${MATH:-strict}" --only "${ONLY:-}" --lock "${LOCK:-}" "$@"
