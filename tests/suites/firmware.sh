# Other processors, run in QEMU: the digit classifier on AArch64 (all held-out digits) and on a bare Cortex-M4; models and a
# sample of the ONNX node tests on every kind of processor (tests/foreign). NODES=1: all node tests.
. tests/suites/lib.sh

a64=aarch64-linux-gnu-gcc
program() { # CC PROGRAM OBJECT: the demo program, linked with the model
  $1 -std=c11 -D_POSIX_C_SOURCE=200809L -O2 -Iruntime -I"$out" -DMODEL=digits_model -DMODEL_HEADER='"digits.h"' \
    examples/digits/main.c "$3" -static -o "$2"
}
answers() { # COMMAND...: the same labels as the host's
  "$@" examples/digits/digits.txt "$out/got.txt" && cmp "$out/got.txt" "$out/want.txt"
}
# Numbers of two runs of the embedding examples agree to 1e-4 of the largest.
close() {
  paste <(grep '^ *\[' "$1") <(grep '^ *\[' "$2") |
    awk '{ x = $3; y = $6; m = x * x > m ? x * x : m; d = (x - y)^2 > d ? (x - y)^2 : d } END { exit !(NR && d <= 1e-8 * m) }'
}
# foreign MACHINE CASE...: see tests/foreign/foreign.py
foreign() {
  local m=$1
  shift
  "$PYTHON" tests/foreign/foreign.py "$ZENITHC" "$out/foreign-${m//,/-}" "$m" "$@" 2>&1 |
    awk '/^(ok|skip|FAIL) / { print; n++; next } { rest = rest " " $0 }
         END { if (!n || rest ~ /Error/) print "FAIL foreign:" rest }'
}
# chosen ARCHS MACHINE CASE...: of an artifact for all of ARCHS, the machine takes its own, or refuses where there is none
chosen() {
  local archs=$1
  shift
  FOREIGN_ARCHS=$archs foreign "$@" | sed "s/^\(ok\|FAIL\) /&of $archs, /"
}
# Every n-th of the node tests, another part of them for each machine.
nodes() { find "$B/onnx-data/" -maxdepth 1 -name 'test_*' | LC_ALL=C sort | awk -v n="${NODES:-80}" -v k="$1" 'NR % n == k % n'; }
instruction() { # MODEL ARCH PATTERN: the code for ARCH has it
  "$ZENITHC" "$1" --arch="$2" --verify=off --quiet -o "$out/listing.s" && grep -qE "$3" "$out/listing.s"
}
m4_run() { sh examples/firmware-m4/run.sh "$1" > "$1.txt" && cat "$1.txt"; }
{
  try "host object" "$ZENITHC" "$digits" -o "$out/digits.o"
  try "host program" program gcc "$out/host" "$out/digits.o"
  "$out/host" examples/digits/digits.txt "$out/want.txt" > /dev/null || echo "FAIL host answers: cannot be made"
  sh examples/embed-c/build.sh "$out/digits.o" "$out/ramp" > /dev/null 2>&1 && "$out/ramp" 1 > "$out/ramp.txt" 2> /dev/null

  try "aarch64 object" "$ZENITHC" "$digits" --arch=aarch64 -o "$out/a64.o" --name digits
  try "aarch64 program" program $a64 "$out/a64" "$out/a64.o" && try "aarch64 answers" answers qemu-aarch64 "$out/a64"
  try "aarch64 C" "$ZENITHC" "$digits" --target=c --arch=aarch64 -o "$out/a64c.c" --name digits &&
    try "aarch64 C compiles" $a64 -O2 -c "$out/a64c.c" -o "$out/a64c.o" &&
    try "aarch64 C program" program $a64 "$out/a64c" "$out/a64c.o" && try "aarch64 C answers" answers qemu-aarch64 "$out/a64c"

  mkdir -p "$out/m4"
  for kind in o c; do
    target=cpu
    if [ $kind = c ]; then target=c; fi
    elf=$out/m4/firmware_$kind.elf
    try "cortex-m4 .$kind" "$ZENITHC" "$digits" --target=$target --arch=cortex-m4 --no-alloc -o "$out/m4/digits.$kind" &&
      try "cortex-m4 firmware from .$kind" sh examples/firmware-m4/build.sh "$out/m4/digits.$kind" "$elf" &&
      try "cortex-m4 firmware from .$kind runs" m4_run "$elf" &&
      try "cortex-m4 firmware from .$kind agrees with the host" close "$elf.txt" "$out/ramp.txt"
  done

  # The instructions that integer products are for.
  "$PYTHON" tests/foreign/make_qdq.py "$out/qdq.onnx"
  for row in "aarch64 sadalp" "armv8.2-a+dotprod [^u]sdot" "armv8.6-a usdot" "armv8.6-a [^u]smmla" \
    "armv8.6-a usmmla" "cortex-m55 vmlava.s8" "cortex-m4 smlad" "cortex-m33 smlad" \
    "rv64gcv vwmacc"; do
    read -r arch pattern <<< "$row"
    try "$row" instruction "$out/qdq.onnx" "$arch" "$pattern"
  done

  int8=$MODELS/mlperf-tiny-kws-int8/model.onnx
  [ -f "$int8" ] || int8=
  foreign aarch64 "$out/qdq.onnx" $int8 $(nodes 1)
  foreign aarch64,c "$out/qdq.onnx"
  for arch in armv8.2-a+dotprod armv8.6-a; do
    foreign $arch "$out/qdq.onnx" $int8
    foreign $arch,c "$out/qdq.onnx"
  done
  foreign cortex-m4 "$out/qdq.onnx" $int8
  foreign cortex-m7 "$out/qdq.onnx"
  foreign cortex-m4,c "$out/qdq.onnx"
  foreign cortex-m55,c "$digits" "$out/qdq.onnx"
  foreign cortex-m55 "$digits" "$out/qdq.onnx" $int8 $(nodes 2)
  foreign riscv64,c "$out/qdq.onnx"
  foreign riscv64 "$digits" "$out/qdq.onnx" $(nodes 3)
  # vector conversions with a rounding mode of their own abort QEMU 7
  if qemu-riscv64 --version | grep -qE 'version ([89]|[1-9][0-9])'; then foreign rv64gcv "$out/qdq.onnx" $int8 $(nodes 4); fi
  foreign rv64gcv "$digits"
  for arch in aarch64 armv8.2-a+dotprod armv8.6-a; do
    chosen armv8.2-a+dotprod,armv8.6-a,aarch64 $arch "$out/qdq.onnx"
  done
  chosen armv8.2-a+dotprod,armv8.6-a aarch64 "$digits"
  for arch in riscv64 rv64gcv; do chosen riscv64,rv64gcv $arch "$digits"; done
  chosen rv64gcv riscv64 "$digits"
} | tally
