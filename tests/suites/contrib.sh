# Operators outside the ONNX node tests against ONNX Runtime: com.microsoft, ai.onnx.ml (tests/contrib/make_cases.py). The family
# of attention is large and becomes standard operators alone: natively there is its selection with dynamic sizes. Old
# forms of standard operators need no second native target.
. tests/suites/lib.sh
data=$B/contrib-data

rm -rf "$data"
if ! "$PYTHON" tests/contrib/make_cases.py "$data" > "$out/make.log" 2>&1; then
  echo "FAIL cases: $(tail -1 "$out/make.log")" | tally
  exit 1
fi
for run in "interp -O2" "cpu -O2" "c -O2"; do
  read -r target level <<< "$run"
  [ "$target" = interp ] || rm -rf "$data/attention"
  [ "$target" = c ] && rm -rf "$data"/legacy* "$data/recurrent"
  "$ZENITHC" check "$data" "--target=$target" "$level" --rtol 1e-4 --atol 1e-5 --jobs "$JOBS" --timeout 120 2>&1 |
    sed -E "s/^(ok|FAIL|skip) /\1 $target /; /^[0-9]+ passed/d"
done | tally
