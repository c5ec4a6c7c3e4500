# Real models against their stored outputs (tests/models/models.txt), on the targets and levels named there; TARGETS
# (TARGET:LEVEL ...; `make models-full`): on these instead.
. tests/suites/lib.sh

one() { # NAME SPREAD TARGET LEVEL [OPTION]
  local name="$1 $3 -O$4" line
  if [ ! -d "$MODELS/$1" ]; then
    echo "skip $name: no $MODELS/$1"
  else
    line=$("$ZENITHC" check "$MODELS/$1" "--target=$3" "-O$4" --spread "$2" ${5:+"$5"} --jobs 1 --timeout 200 2>&1 | head -1)
    case $line in
      "ok $1") echo "ok $name" ;;
      *) echo "FAIL $name: ${line#FAIL "$1":}" ;;
    esac
  fi
}
export -f one
grep -v '^#' tests/models/models.txt | while read -r name spread runs _; do
  opt=
  case $runs in *,*) opt=${runs#*,} runs=${runs%%,*} ;; esac
  case ${TARGETS:+given}$runs in
    given*) read -ra given <<< "$TARGETS" && set -- "${given[@]/:/ }" ;;
    all) set -- "cpu 0" "cpu 2" "c 0" "c 2" "interp 0" "interp 2" ;;
    all2) set -- "cpu 0" "cpu 2" "c 0" "c 2" "interp 2" ;;
    native) set -- "cpu 0" "cpu 2" "c 0" "c 2" ;;
    *) set -- "cpu 2" ;;
  esac
  for t; do echo "$name $spread $t${opt:+ $opt}"; done
done | xargs -P "$JOBS" -L 1 bash -c 'one "$@"' _ | tally
