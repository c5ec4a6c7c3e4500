# Real models with symbolic dimensions at three sizes that their stored data do not have: one artifact each, compiled without
# any --dim, against ONNX Runtime's results (tests/models/other_sizes.py). Longer jobs: make sizes.
. tests/suites/lib.sh
cases=$out/cases
rm -rf "$cases"
"$PYTHON" tests/models/other_sizes.py "$MODELS" "$cases" | sed 's/^note \([^:]*\): \(.*\)/\1 \2/' > "$out/notes"

spread_of() {
  case $1 in
    ppocr-cls) echo 3e-4 ;; # ONNX Runtime's own results change by 2.3e-4 with its optimisations off
    squeezenet-fp16) echo 5e-3 ;;
    *) echo 1e-4 ;;
  esac
}
one() {
  local name=$1 line
  case $name in
    mnist25-dynamic-quant)
      echo "skip $name: ONNX Runtime's 8-bit products saturate without VNNI; ours equal ONNX's own evaluator"
      return ;;
  esac
  if [ ! -d "$cases/$name/test_data_set_0" ]; then
    echo "skip $name: ONNX Runtime runs it at the stored sizes only"
    return
  fi
  line=$("$ZENITHC" check "$cases/$name" --target=cpu -O2 --spread "$(spread_of "$name")" --jobs 1 2>&1 | head -1)
  case $line in
    "ok $name") echo "ok $name $(ls -d "$cases/$name"/test_data_set_* | wc -l) sizes" ;;
    *) echo "FAIL $name: ${line#FAIL "$name":}" ;;
  esac
}
export -f one spread_of
export cases
ls "$cases" | xargs -P "$JOBS" -I{} bash -c 'one {}' | tally
