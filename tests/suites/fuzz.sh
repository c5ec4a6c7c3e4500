# Corrupted models must be refused, never crash or hang: a small number of them; `make fuzz-corrupt N=2000` does more.
. tests/suites/lib.sh
from=$MODELS
[ -d "$from" ] || { mkdir -p "$out/models/digits"; cp "$digits" "$out/models/digits/model.onnx"; from=$out/models; }
mkdir -p "$out/files"
{
  try "120 corrupted models, reader" "$B/fuzz/corrupt" -n 120 -s 7 -d "$out/files" "$from" -- "$B/fuzz/load_onnx"
} | tally
