# Drawn graphs give the same results every way (`make fuzz N=2000` draws more), and so do all that once did not. Corrupted
# models must be refused, never crash or hang (`make fuzz-corrupt N=2000`).
. tests/suites/lib.sh
from=$MODELS
[ -d "$from" ] || { mkdir -p "$out/models/digits"; cp "$digits" "$out/models/digits/model.onnx"; from=$out/models; }
mkdir -p "$out/files" "$out/graphs" "$out/cases"
kept() { "$B/fuzz/graphs/fuzz_graphs" -o "$out/cases" --check tests/fuzz/cases/*.zg || echo "FAIL kept cases: exit code $?"; }
{
  try "120 corrupted models, reader" "$B/fuzz/corrupt" -n 120 -s 7 -d "$out/files" "$from" -- "$B/fuzz/load_onnx"
  for kind in reader zg zk; do # what libFuzzer found worth keeping (make fuzz-reader fuzz-zg fuzz-zk goes on from there)
    try "corpus of $kind" "$B/fuzz/corpus_$kind" "tests/fuzz/corpus/$kind"
  done
  kept > "$out/cases.txt" 2>&1 &
  try "operators with other types" "$PYTHON" -W ignore tests/sweep/types/sweep_types.py "$B/fuzz/graphs/fuzz_graphs" \
    "$B/onnx-data" "$out/types" --small --ways 1 --jobs 2 \
    --only Where,CenterCropPad,TopK,Scan,SequenceInsert,LabelEncoder,QuantizeLinear,Optional
  try "100 drawn graphs" "$B/fuzz/graphs/fuzz_graphs" -n 100 -s 4000 --c 15 --no-shrink -o "$out/graphs"
  wait
  cat "$out/cases.txt"
} | tally
