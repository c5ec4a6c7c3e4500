# The same bytes from the same input: twice with this compiler, and with a zenithc built by the other C compiler.
. tests/suites/lib.sh

other=clang-19
case $CC in *clang*) other=gcc ;; esac
export BB=$B-$other OTHER=$other
build() { nice make -s -j"$JOBS" B="$BB" CC="$OTHER" OPT=-O1 all; }
bytes() { # MODEL NAME SUFFIX TARGET: three builds
  local f=$2.$3
  mkdir -p "$out/1" "$out/2" "$out/3"
  "$ZENITHC" "$1" --target="$4" -o "$out/1/$f" && "$ZENITHC" "$1" --target="$4" -o "$out/2/$f" &&
    cmp "$out/1/$f" "$out/2/$f" && "$BB/zenithc" "$1" --target="$4" -o "$out/3/$f" && cmp "$out/1/$f" "$out/3/$f"
}
one() { # MODEL NAME SUFFIX TARGET
  if [ -f "$1" ]; then try "$2.$3, same bytes" bytes "$@"; else echo "skip $2.$3: no $1"; fi
}
export -f bytes one
export out
models=("$digits" "$MODELS/cifar-cnn/model.onnx" "$MODELS/mlperf-tiny-vww-fp32/model.onnx" "$MODELS/tinybert/model.onnx")
{
  try "zenithc builds with $other" build
  for m in "${models[@]}"; do
    for kind in "so cpu" "o cpu" "c c" "zk cpu" "zg cpu"; do echo "$m $(basename "$(dirname "$m")") $kind"; done
  done > "$out/jobs"
  for m in tests/embed/values/{training-step,heads,strings,loop-grow,sequence-map,maps}.zg; do # rewrites, lists, the entry
    echo "$m $(basename "$m" .zg) zk cpu"
  done >> "$out/jobs"
  < "$out/jobs" xargs -P "$JOBS" -L 1 bash -c 'one "$@"' _
} | tally
