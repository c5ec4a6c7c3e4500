# Unit tests: every cmocka program tests/unit/test_*.c, several at a time.
. tests/suites/lib.sh

one() {
  local name=${1##*/} code
  CMOCKA_MESSAGE_OUTPUT=TAP "$1" > "$2/$name.log" 2>&1
  code=$?
  sed -nE "s/^(not )?ok [0-9]+ # SKIP (.*)/skip $name: \2/p; t; s/^ok [0-9]+ - (.*)/ok $name: \1/p; s/^not ok [0-9]+ - (.*)/FAIL $name: \1/p" \
    "$2/$name.log" | tee "$2/$name.lines"
  if [ $code != 0 ] && ! grep -q '^FAIL' "$2/$name.lines"; then echo "FAIL $name: exit code $code, see $2/$name.log"; fi
}
export -f one
for t in tests/unit/test_*.c; do t=${t##*/}; echo "$B/unit/${t%.c}"; done |
  xargs -P "$JOBS" -I{} bash -c 'one {} '"$out" | tally
