# The ONNX backend tests as published, written from the pinned onnx package by tests/conformance/make_data.py.
# tests/conformance/xfail-TARGET.txt (cpu's where a target has none): expected failures, `name reason`; the first line says how
# many cases must pass. REBASE=1 rewrites cpu's from what happens (`make conformance-rebase`; read the diff).
# TARGETS: TARGET[:LEVEL[:CC]] (cpu; `make conformance-full`: more levels, and c by two compilers). CASES: a pattern of names.
. tests/suites/lib.sh
data=$B/onnx-data

if [ ! -e "$data/.done" ] || [ "$B/venv/requirements.txt" -nt "$data/.done" ] ||
  [ tests/conformance/make_data.py -nt "$data/.done" ]; then
  "$PYTHON" tests/conformance/make_data.py "$data" && touch "$data/.done"
fi

rewrite() { # TARGET LOG
  {
    echo "# at least $(grep -c '^ok ' "$2") cases pass. Expected failures of target $1, with what was said:"
    sed -nE 's/^FAIL ([^:]*): (model\.onnx: )?(.*)/\1 \3/p' "$2" | cut -c1-160
  } > "tests/conformance/xfail-$1.txt"
}

run() { # TARGET LEVEL [CC]
  local log=$out/$1-O$2${3:+-$3}.log xfail=tests/conformance/xfail-$1.txt what="$1 -O$2${3:+ $3}" passed floor
  local cases=("$data") cc=${3:-$CC}
  [ -e "$xfail" ] || xfail=tests/conformance/xfail-cpu.txt
  if [ -n "$CASES" ]; then cases=("$data"/$CASES); fi
  if [ -n "$REBASE" ]; then
    CC=$cc "$ZENITHC" check "${cases[@]}" "--target=$1" "-O$2" --jobs "$JOBS" > "$log" 2>&1
    rewrite "$1" "$log"
    sed -E 's/^FAIL /xfail /' -i "$log"
  else
    CC=$cc "$ZENITHC" check "${cases[@]}" "--target=$1" "-O$2" --jobs "$JOBS" --xfail "$xfail" > "$log" 2>&1
  fi
  sed -E "s/^(ok|FAIL|xfail|skip) /\1 $what /; /^[0-9]+ passed/d" "$log"
  passed=$(grep -c '^ok ' "$log")
  floor=$(sed -n '1s/^# at least \([0-9]*\) .*/\1/p' "$xfail")
  [ -z "$CASES" ] || floor=1
  echo "note conformance, $what: $passed cases pass, $(grep -c '^xfail ' "$log") fail as expected; $floor must pass"
  if [ "$passed" -lt "${floor:-1}" ]; then echo "FAIL floor of $what: $passed pass, $floor must"; fi
}
for t in ${TARGETS:-cpu}; do
  IFS=: read -r target level cc <<< "$t"
  run "$target" "${level:-2}" "$cc"
done | tally
