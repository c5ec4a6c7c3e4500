# Other processors, run in QEMU: the digit classifier on AArch64 (all held-out digits) and on a bare Cortex-M4.
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
} | tally
