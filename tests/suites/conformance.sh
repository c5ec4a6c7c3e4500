# The ONNX backend node tests, written from the pinned onnx package by tests/conformance/make_data.py.
# tests/conformance/xfail-TARGET.txt: expected failures, `name reason`; the first line says how many cases must pass.
# REBASE=1 rewrites those files from what happens (`make conformance-rebase`; read the diff).
# TARGETS: which (cpu; `make conformance-full`: also c and interp).
. tests/suites/lib.sh
data=$B/onnx-data

if [ ! -e "$data/.done" ] || [ "$B/venv/requirements.txt" -nt "$data/.done" ]; then
  "$PYTHON" tests/conformance/make_data.py "$data" && touch "$data/.done"
fi

rewrite() { # TARGET LOG
  {
    echo "# at least $(grep -c '^ok ' "$2") cases pass. Expected failures of target $1, with what was said:"
    sed -nE 's/^FAIL ([^:]*): (model\.onnx: )?(.*)/\1 \3/p' "$2" | cut -c1-160
  } > "tests/conformance/xfail-$1.txt"
}

run() { # TARGET LEVEL
  local log=$out/$1-O$2.log xfail=tests/conformance/xfail-$1.txt floor passed
  if [ -n "$REBASE" ]; then
    "$ZENITHC" check "$data" "--target=$1" "-O$2" --fix-shapes --jobs "$JOBS" > "$log" 2>&1
    rewrite "$1" "$log"
    sed -E 's/^FAIL /xfail /' -i "$log"
  else
    "$ZENITHC" check "$data" "--target=$1" "-O$2" --fix-shapes --jobs "$JOBS" --xfail "$xfail" > "$log" 2>&1
  fi
  sed -E "s/^(ok|FAIL|xfail|skip) /\1 $1 -O$2 /; /^[0-9]+ passed/d" "$log"
  passed=$(grep -c '^ok ' "$log")
  floor=$(sed -n '1s/^# at least \([0-9]*\) .*/\1/p' "$xfail")
  echo "note conformance, $1 -O$2: $passed cases pass, $(grep -c '^xfail ' "$log") fail as expected; $floor must pass"
  if [ "$passed" -lt "${floor:-1}" ]; then echo "FAIL floor of $1 -O$2: $passed pass, $floor must"; fi
}
for t in ${TARGETS:-cpu}; do run "$t" 2; done | tally
