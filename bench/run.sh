#!/bin/sh
# Usage: run.sh ZENITHC OUTDIR [MODEL...]    times compiled models beside ONNX Runtime (bench/compare_ort.py).
# Models: names of ../shared/bench/make_models.py, folders of ../shared/models, or .onnx files. THREADS, ROUNDS, ARCH.
set -e
here=$(cd "$(dirname "$0")" && pwd)
root=$here/..
zenithc=$1 out=$2
shift 2
mkdir -p "$out"
python=$root/build/venv/bin/python
make_models=${MAKE_MODELS:-$root/../shared/bench/make_models.py}
models=${MODELS:-$root/../shared/models}
if [ $# = 0 ]; then
  set -- "$root/examples/digits/digits.onnx"
  if [ -d "$models" ]; then set -- "$@" mnist-8 cifar-cnn mlperf-tiny-vww-fp32 ultraface-rfb-320 tinybert super-resolution-10; fi
  if [ -f "$make_models" ]; then set -- "$@" kws_dscnn mlp_b1 mobilenet_v2 resnet50 bert_base_s128; fi
fi
files=
for m in "$@"; do
  f=$m
  if [ -f "$models/$m/model.onnx" ]; then
    f=$models/$m/model.onnx
  elif [ ! -f "$m" ]; then
    f=$out/$m.onnx
    [ -f "$f" ] || "$python" "$make_models" "$out" "$m" > /dev/null
  fi
  files="$files $f"
done
exec "$python" "$here/compare_ort.py" "$zenithc" "$out" \
  --threads "${THREADS:-1}" --rounds "${ROUNDS:-5}" --arch "${ARCH:-native}" \
  $files
