# Random convolution networks (tests/layout/make_nets.py) through blocked layouts: self-checked on cpu (16- and 32-byte
# vectors), interp, c and, channels last, the kernels of cuda in the interpreter; the same bits from one thread and two.
. tests/suites/lib.sh

one() { # FILE
  local f=$1 name d
  name=$(basename "$f" .zg)
  d=$out/$name
  mkdir -p "$d"
  try "$name cpu" "$ZENITHC" "$f" -o "$d/m.so" || return
  "$ZENITHC" run "$d/m.so" --random 3 --output-dir "$d/1" > /dev/null
  "$ZENITHC" run "$d/m.so" --random 3 --threads 2 --output-dir "$d/2" > /dev/null
  try "$name, threads" diff -r "$d/1" "$d/2"
  try "$name x86-64-v2" "$ZENITHC" "$f" --arch=x86-64-v2 -o "$d/v2.so"
  try "$name interp" "$ZENITHC" "$f" --target=interp -o "$d/m.zk"
  case $name in
  *[258]) try "$name cuda, channels last" "$ZENITHC" "$f" --target=cuda --arch=sm_90a -o "$d/last.zk" ;;
  *[147]) try "$name cuda, channels last, fp16" "$ZENITHC" "$f" --target=cuda --arch=sm_90a --precision=fp16 -o "$d/last.zk" ;;
  esac
  case $name in *[05]) try "$name c" "$ZENITHC" "$f" --target=c -o "$d/m.c" ;; esac
}
export -f one
export out
python3 tests/layout/make_nets.py "$out/nets" "${N:-30}" > /dev/null
printf '%s\n' "$out"/nets/*.zg | xargs -P "$JOBS" -I{} bash -c 'one {}' | tally
