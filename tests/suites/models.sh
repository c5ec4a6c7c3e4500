# Real models against their stored outputs (tests/models/models.txt), on cpu and c at -O0 and -O2, and on interp.
. tests/suites/lib.sh

one() { # NAME SPREAD TARGET LEVEL
  local name="$1 $3 -O$4" line
  if [ ! -d "$MODELS/$1" ]; then
    echo "skip $name: no $MODELS/$1"
  else
    line=$("$ZENITHC" check "$MODELS/$1" "--target=$3" "-O$4" --spread "$2" --jobs 1 --timeout 200 2>&1 | head -1)
    case $line in
      "ok $1") echo "ok $name" ;;
      *) echo "FAIL $name: ${line#FAIL "$1":}" ;;
    esac
  fi
}
export -f one
grep -v '^#' tests/models/models.txt | while read -r name spread interp _; do
  for t in "cpu 0" "cpu 2" "c 0" "c 2"; do echo "$name $spread $t"; done
  if [ "$interp" = yes ]; then echo "$name $spread interp 2"; fi
done | xargs -P "$JOBS" -L 1 bash -c 'one "$@"' _ | tally
