# Random convolution networks (tests/layout/make_nets.py) through blocked layouts: self-checked on cpu (16- and 32-byte
# vectors), interp, c and, channels last, the kernels of cuda in the interpreter; the same bits from one thread and two.
# Wide ones also under --math=fast, on every level of x86-64; some of those must take the schedule of Winograd.
# Random attentions (make_attention.py) likewise, without cuda. Random networks of bf16 and byte products (make_products.py)
# also with the instructions of processors that have such, which the interpreter imitates.
. tests/suites/lib.sh

# With the least memory that --max-ram finds: bands of rows.
bands() { # FILE NAME FOLDER
  local f=$1 name=$2 d=$3 least
  grep -q '^sym N' "$f" && return # what it needs is not known
  least=$("$ZENITHC" "$f" --max-ram=1 -o "$d/b.so" 2>&1 | sed -n 's/.*--max-ram=\([0-9]*\) is the least.*/\1/p')
  try "$name bands" "$ZENITHC" "$f" --max-ram="$least" -o "$d/b.so" || return
  "$ZENITHC" run "$d/b.so" --random 3 --output-dir "$d/3" > /dev/null
  "$ZENITHC" run "$d/b.so" --random 3 --threads 2 --output-dir "$d/4" > /dev/null
  try "$name bands, threads" diff -r "$d/3" "$d/4"
  try "$name bands, interp" "$ZENITHC" "$f" --max-ram="$least" --target=interp -o "$d/b.zk"
}

one() { # FILE
  local f=$1 name d dims
  name=$(basename "$f" .zg)
  d=$out/$name
  mkdir -p "$d"
  try "$name cpu" "$ZENITHC" "$f" -o "$d/m.so" || return
  dims=$(sed -n 's/^sym \([A-Z]\) \([0-9]*\)\.\..*/--dim=\1=\2/p' "$f")
  "$ZENITHC" run "$d/m.so" $dims --random 3 --output-dir "$d/1" > /dev/null
  "$ZENITHC" run "$d/m.so" $dims --random 3 --threads 2 --output-dir "$d/2" > /dev/null
  try "$name, threads" diff -r "$d/1" "$d/2"
  try "$name x86-64-v2" "$ZENITHC" "$f" --arch=x86-64-v2 -o "$d/v2.so"
  try "$name interp" "$ZENITHC" "$f" --target=interp -o "$d/m.zk"
  case $name in
  net*[258]) try "$name cuda, channels last" "$ZENITHC" "$f" --target=cuda --arch=sm_90a -o "$d/last.zk" ;;
  net*[147]) try "$name cuda, channels last, fp16" "$ZENITHC" "$f" --target=cuda --arch=sm_90a --precision=fp16 -o "$d/last.zk" ;;
  esac
  case $name in net*[1369]) bands "$f" "$name" "$d" ;; esac
  case $name in *[05]) try "$name c" "$ZENITHC" "$f" --target=c -o "$d/m.c" ;; esac
}
fast() { # FILE
  local f=$1 name d level
  name="$(basename "$f" .zg), --math=fast"
  d=$out/$(basename "$f" .zg)/fast
  mkdir -p "$d"
  try "$name" "$ZENITHC" "$f" --math=fast -o "$d/m.so" || return
  "$ZENITHC" run "$d/m.so" --random 3 --output-dir "$d/1" > /dev/null
  "$ZENITHC" run "$d/m.so" --random 3 --threads 2 --output-dir "$d/2" > /dev/null
  try "$name, threads" diff -r "$d/1" "$d/2"
  try "$name x86-64-v2" "$ZENITHC" "$f" --math=fast --arch=x86-64-v2 -o "$d/v2.so"
  case $f in *[02].zg) try "$name x86-64-v4" "$ZENITHC" "$f" --math=fast --arch=x86-64-v4 -o "$d/v4.so" ;; esac
  try "$name c" "$ZENITHC" "$f" --math=fast --target=c -o "$d/m.c"
  "$ZENITHC" "$f" --math=fast --verify=off -o "$d/kernels.zk" 2> "$d/zk.log"
}
products() { # FILE
  local name arch
  name=$(basename "$1" .zg)
  mkdir -p "$out/$name"
  local archs="sapphirerapids znver4 x86-64-v3"
  case $name in byte*) archs="sapphirerapids armv8.6-a cortex-m55 x86-64-v3" ;; esac
  for arch in $archs; do try "$name $arch" "$ZENITHC" "$1" --arch=$arch -o "$out/$name/$arch.zk"; done
  case $name in out*) try "$name takes no bf16 products" absent 'tiledot\|dot2bf16' "$out/$name"/*.zk ;; esac
}
absent() { ! grep -l "$@"; }
export -f one bands fast products absent
export out
python3 tests/layout/make_nets.py "$out/nets" "${N:-30}" > /dev/null
python3 tests/layout/make_attention.py "$out/nets" "${N:-20}"
python3 tests/layout/make_products.py "$out/products" "${N:-20}"
finer() {
  "$ZENITHC" "$out/nets/wide000.zg" --math=fast --tolerance=2e-6 -o "$out/finer.so" 2>&1 |
    grep "built again with Winograd's tiles of 2 x 2"
}
export -f finer
{
  try "a tolerance that large tiles miss" finer
  printf '%s\n' "$out"/nets/*.zg | xargs -P "$JOBS" -I{} bash -c 'one {}'
  printf '%s\n' "$out"/nets/wide*.zg | xargs -P "$JOBS" -I{} bash -c 'fast {}'
  printf '%s\n' "$out"/products/*.zg | xargs -P "$JOBS" -I{} bash -c 'products {}'
  try "tiles of bf16 are taken" grep -lq tiledot "$out"/bf*/sapphirerapids.zk
  try "dot products of bf16 are taken" grep -lq dot2bf16 "$out"/bf*/znver4.zk
  try "Winograd is taken in a chunk at a time" grep -lq conv_winograd "$out"/wide*/fast/kernels.zk
  try "Winograd is taken stage by stage" grep -lq winograd_gather "$out"/wide*/fast/kernels.zk
} | tally
