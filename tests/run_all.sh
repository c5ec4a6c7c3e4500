#!/usr/bin/env bash
# Usage: run_all.sh SUITE...    runs tests/suites/SUITE.sh one after another and adds up their counts.
# Environment: B build folder, CC, JOBS, MODELS folder of real models. Full output of a suite: $B/test/SUITE.log.
# The last line is `N passed, N failed, N skipped`; the exit code is 0 when nothing failed.
cd "$(dirname "$0")/.."
export ROOT=$PWD B=${B:-$PWD/build} CC=${CC:-gcc} JOBS=${JOBS:-$(nproc)} MODELS=${MODELS:-$PWD/../shared/models}
export ZENITHC=$B/zenithc PYTHON=$B/venv/bin/python
passed=0 failed=0 skipped=0
mkdir -p "$B/test"
for suite in "$@"; do
  log=$B/test/$suite.log
  start=$SECONDS
  mkdir -p "$B/test/$suite"
  bash "tests/suites/$suite.sh" "$B/test/$suite" > "$log" 2>&1 < /dev/null
  code=$?
  counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -1)
  read -r p f s <<< "$(tr -dc '0-9 \n' <<< "$counts")"
  if [ -z "$counts" ] || { [ "$code" != 0 ] && [ "$f" = 0 ]; }; then
    echo "FAIL $suite: ended with exit code $code; its last lines:"
    tail -5 "$log" | sed 's/^/  /'
    f=$((${f:-0} + 1))
  fi
  grep -E '^(FAIL|note) ' "$log" | head -40
  printf '%-12s %5d passed %4d failed %4d skipped %5d s\n' "$suite" "${p:-0}" "${f:-0}" "${s:-0}" $((SECONDS - start))
  passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0})) skipped=$((skipped + ${s:-0}))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
