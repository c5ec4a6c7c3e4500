# Unit tests: every cmocka program tests/unit/test_*.c, several at a time.
. tests/suites/lib.sh

one() {
  local name=${1##*/} code
  CMOCKA_MESSAGE_OUTPUT=TAP "$1" > "$2/$name.log" 2>&1
  code=$?
  sed -nE -e "s/^(not )?ok [0-9]+ # SKIP (.*)/skip $name: \2/p; t; s/^ok [0-9]+ - (.*)/ok $name: \1/p" \
    -e "s/^not ok [0-9]+ - (.*)/FAIL $name: \1/p" \
    "$2/$name.log" | tee "$2/$name.lines"
  if [ $code != 0 ] && ! grep -q '^FAIL' "$2/$name.lines"; then echo "FAIL $name: exit code $code, see $2/$name.log"; fi
}
export -f one
long="test_cstyle test_llvm test_passes" # first, so that they do not end alone
for t in $long $(cd tests/unit && ls test_*.c | sed 's/\.c$//' | grep -vxF "${long// /$'\n'}"); do echo "$B/unit/$t"; done |
  xargs -P "$JOBS" -I{} bash -c 'one {} '"$out" | tally
