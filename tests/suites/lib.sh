# Sourced by the suites. A suite pipes lines `ok NAME`, `skip NAME: why`, `xfail NAME: why` (counts as skipped) and
# `FAIL NAME: why` into `tally`.
out=$1
cd "$ROOT" || exit 2

# Passes its input through and ends with the counts; fails when a line began with FAIL.
tally() {
  awk '{ print } /^ok / { p++ } /^FAIL / { f++ } /^(skip|xfail) / { s++ }
       END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 }'
}

# try NAME COMMAND...: ok when the command succeeds, else FAIL with the last line that it said.
try() {
  local name=$1 said
  shift
  if said=$("$@" 2>&1); then
    echo "ok $name"
  else
    echo "FAIL $name: $(tail -3 <<< "$said" | tr '\n' ' ')"
    return 1
  fi
}
export -f try

digits=$ROOT/examples/digits/digits.onnx
