# Valgrind: the unit programs, the golden tests, the compiler on real models, and artifacts run by embed_check.
# (make valgrind; half an hour.) Programs that a test starts (compilers, emulators) run outside valgrind.
. tests/suites/lib.sh
export v="valgrind -q --error-exitcode=99 --child-silent-after-fork=yes"

jobs_of() { # one line a test: NAME COMMAND...
  for u in tests/unit/test_*.c; do
    u=${u##*/}
    echo "${u%.c} $B/unit/${u%.c}"
  done
  echo "golden $B/golden/run_golden $(echo tests/golden/*/*.zg)"
  for m in mnist-8 cifar-cnn tinybert mlperf-tiny-vww-fp32 mlperf-tiny-kws-int8 ultraface-rfb-320 cntk-lstm-scan; do
    if [ -d "$MODELS/$m" ]; then echo "$m $ZENITHC check $MODELS/$m --jobs 1 --timeout 3000 --spread 2e-2"; fi
  done
}
one() { # NAME COMMAND...
  local name=$1
  shift
  try "$name" $v "$@"
}
export -f one
{
  try "embed_check builds" gcc -std=c11 -D_GNU_SOURCE -g -Iruntime tests/embed/embed_check.c \
    -o "$out/embed_check" -ldl -lpthread
  try "zenithc, .so" $v "$ZENITHC" "$digits" -o "$out/digits.so"
  try "zenithc, .c" $v "$ZENITHC" "$digits" --target=c -o "$out/digits.c"
  try "the artifact" $v "$out/embed_check" "$out/digits.so"
  jobs_of | xargs -P "$JOBS" -L 1 bash -c 'one "$@"' _
} | tally
