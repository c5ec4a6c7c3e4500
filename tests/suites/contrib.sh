# Operators outside the ONNX node tests against ONNX Runtime: com.microsoft, ai.onnx.ml (tests/contrib/make_cases.py).
. tests/suites/lib.sh
data=$B/contrib-data

rm -rf "$data"
if ! "$PYTHON" tests/contrib/make_cases.py "$data" > "$out/make.log" 2>&1; then
  echo "FAIL cases: $(tail -1 "$out/make.log")" | tally
  exit 1
fi
for target in cpu c; do
  "$ZENITHC" check "$data" "--target=$target" -O2 --rtol 1e-4 --atol 1e-5 --jobs "$JOBS" 2>&1 |
    sed -E "s/^(ok|FAIL|skip) /\1 $target /; /^[0-9]+ passed/d"
done | tally
