# Artifacts seen from the programs that embed them: the example programs, zenith.h's promises, undefined symbols.
. tests/suites/lib.sh

# No undefined symbol, and for a shared object no library either.
closed() { [ -z "$(nm -u "$1")" ] || { nm -u "$1" | tr '\n' ' '; return 1; }; }
closed_so() {
  local need
  need=$(readelf -d "$1" | grep NEEDED; nm -D -u "$1")
  [ -z "$need" ] || { echo "$need"; return 1; }
}
same_answers() { "$1" examples/digits/digits.txt "$out/answers" > /dev/null && cmp "$out/answers" "$out/want"; }
same_output() { diff <("$1" 2> /dev/null) <("$2" 2> /dev/null); }
c_model() { # CC FILE.c FILE.o FLAGS...
  local cc=$1 from=$2 to=$3
  shift 3
  $cc -O2 "$@" -Wa,-I"${from%/*}" -c "$from" -o "$to"
}

one_model() { # MODEL.onnx
  local name s level cc
  name=$(basename "$(dirname "$1")")
  s=$out/${name//-/_}
  for level in 0 2; do
    try "$name -O$level .so" "$ZENITHC" "$1" -O$level -o "$s.so" &&
      "$out/embed_check" "$s.so" | sed "s/^\(ok\|FAIL\) /\1 $name -O$level .so: /"
    try "$name -O$level .so is closed" closed_so "$s.so"
    try "$name -O$level .o" "$ZENITHC" "$1" -O$level -o "$s.o"
    try "$name -O$level .o is closed" closed "$s.o"
  done
  try "$name .c" "$ZENITHC" "$1" --target=c -o "$s.c"
  for cc in gcc clang-19; do
    try "$name .c compiles with $cc -Wall" c_model $cc "$s.c" "$s.$cc.o" -std=c99 -Wall -Wextra -Werror -Wno-psabi
    try "$name .c is closed, $cc" closed "$s.$cc.o"
  done
}
# Strings, sequences, optionals, maps, sizes without bound: compiled, compared with the evaluator, and refused where due.
one_value() { # FILE.zg
  local name s level
  name=$(basename "$1" .zg)
  s=$out/${name//-/_}
  for level in 0 3; do try "$name -O$level" "$ZENITHC" "$1" -O$level --samples 4 -o "$s.so"; done
  try "$name is closed" closed_so "$s.so"
  try "$name interp" "$ZENITHC" "$1" --target=interp -o "$s.zk"
  try "$name c" "$ZENITHC" "$1" --target=c -o "$s.c"
  try "$name .c compiles with gcc -Wall" c_model gcc "$s.c" "$s.o" -std=c99 -Wall -Wextra -Werror -Wno-psabi
}
# Several instruction sets in one artifact: each run takes the best the processor has, with the bits of an artifact for it
# alone. qemu stands for older processors, where it is there.
answers() { # PROGRAM [EMULATOR...]
  local program=$1
  shift
  "$@" "$program" 2 2> "$program.err"
}
dispatch() { # SUFFIX
  local s=$out/isa a
  for a in x86-64-v2 x86-64-v3 x86-64-v2,x86-64-v4,x86-64-v3; do
    "$ZENITHC" "$digits" --arch=$a --name isa --quiet -o "$s-$a.$1" || return 1
    sh examples/embed-c/build.sh "$s-$a.$1" "$s-$a-$1" || return 1
    answers "$s-$a-$1" > "$s-$a-$1.out" || return 1
  done
  cmp "$s-x86-64-v3-$1.out" "$s-x86-64-v2,x86-64-v4,x86-64-v3-$1.out" || return 1
  ! cmp -s "$s-x86-64-v3-$1.out" "$s-x86-64-v2-$1.out" || { echo "the two cannot be told apart"; return 1; }
  command -v qemu-x86_64 > /dev/null || return 0
  answers "$s-x86-64-v2,x86-64-v4,x86-64-v3-$1" qemu-x86_64 -cpu Nehalem | cmp - "$s-x86-64-v2-$1.out" || return 1
  a=x86-64-v2,x86-64-v4,x86-64-v3
  ! answers "$s-$a-$1" qemu-x86_64 -cpu qemu64 > "$out/isa-none" || { echo "ran without SSE4.2"; return 1; }
  grep -q "plan returned 7" "$s-$a-$1.err" || { cat "$s-$a-$1.err"; return 1; }
}
# run checks the processor as plan does: nobody has to call plan.
run_alone() {
  local s=$out/isa-x86-64-v3
  gcc -std=c11 -O1 -Wall -Wextra -Iruntime -DMODEL=isa_model tests/embed/run_alone.c "$s.o" -o "$s-run" || return 1
  "$s-run" || return 1
  ! command -v qemu-x86_64 > /dev/null || qemu-x86_64 -cpu Nehalem "$s-run" 7
}
export -f closed closed_so c_model one_model one_value
export out

models=("$digits")
for m in mnist-8 cifar-cnn mlperf-tiny-vww-fp32; do
  if [ -f "$MODELS/$m/model.onnx" ]; then models+=("$MODELS/$m/model.onnx"); fi
done
{
  try "embed_check builds" gcc -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Iruntime tests/embed/embed_check.c \
    -o "$out/embed_check" -ldl -lpthread
  {
    for m in "${models[@]}"; do echo "one_model $m"; done
    for m in tests/embed/values/*.zg; do echo "one_value $m"; done
  } | xargs -P "$JOBS" -L 1 bash -c '"$@"' _

  s=$out/digits
  for kind in o c; do
    try "embed-c with a .$kind" sh examples/embed-c/build.sh "$s.$kind" "$out/embed_$kind" &&
      try "embed-c with a .$kind runs" "$out/embed_$kind" 2
    try "embed-cpp with a .$kind" sh examples/embed-cpp/build.sh "$s.$kind" "$out/embed_cpp_$kind" &&
      try "embed-cpp with a .$kind runs" "$out/embed_cpp_$kind"
  done
  for m in bounded optional; do
    try "$m needs no allocator" "$ZENITHC" "tests/embed/values/$m.zg" --no-alloc -o "$out/bounded.so"
    try "$m for firmware" "$ZENITHC" "tests/embed/values/$m.zg" --arch=cortex-m4 -o "$out/bounded.o"
  done
  for how in --no-alloc --arch=cortex-m4; do
    said=$("$ZENITHC" tests/embed/values/loop-grow.zg $how -o "$out/refused.o" 2>&1)
    case $said in
      *"SequenceInsert_17'"*allocator*) echo "ok $how names the node" ;;
      *) echo "FAIL $how names the node: $said" ;;
    esac
  done
  try "values_check builds" gcc -std=c11 -O2 -Wall -Wextra -fsanitize=address,undefined \
    -D_DEFAULT_SOURCE -Iruntime tests/embed/values_check.c runtime/zenith_image.c -o "$out/values_check" -ldl &&
    ASAN_OPTIONS=detect_leaks=0 "$out/values_check" "$out"/{strings,loop_grow,numbers,ranks,images}.so 2>&1

  if [ "$(uname -m)" = x86_64 ] && grep -qw avx2 /proc/cpuinfo; then
    for kind in o a; do try "several instruction sets, .$kind" dispatch $kind; done
    for level in 0 2; do
      try "several instruction sets, .so -O$level" \
        "$ZENITHC" "$digits" --arch=x86-64-v4,x86-64-v2,x86-64-v3 -O$level -o "$out/isa.so" &&
        "$out/embed_check" "$out/isa.so" | sed "s/^\(ok\|FAIL\) /\1 several instruction sets -O$level: /"
    done
    try "run asks the processor by itself" run_alone
  fi
  try "overlay_check builds" gcc -std=c11 -O2 -Wall -Wextra -Iruntime tests/embed/overlay_check.c -o "$out/overlay_check" -ldl
  for level in 0 2; do
    try "caches -O$level" "$ZENITHC" tests/embed/overlay/caches.zg -O$level -o "$out/caches.so" &&
      "$out/overlay_check" "$out/caches.so" past=present cache=cache2 flat=flat2 const=const
  done
  try "caches c" "$ZENITHC" tests/embed/overlay/caches.zg --target=c -o "$out/caches.c"
  try "caches interp" "$ZENITHC" tests/embed/overlay/caches.zg --target=interp -o "$out/caches.zk"

  try "demo" sh examples/digits/run.sh "$ZENITHC" "$out/demo"
} | tally
