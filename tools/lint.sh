#!/usr/bin/env bash
# Usage: lint.sh    every rule that a broken commit should not pass; prints what broke it. See docs/STYLE.md.
cd "$(dirname "$0")/.."
B=${B:-build}
JOBS=${JOBS:-$(nproc)}
broken=0
step() { # NAME COMMAND...
  local start=$SECONDS said
  if said=$("${@:2}" 2>&1); then
    printf 'ok   %-14s %3d s\n' "$1" $((SECONDS - start))
  else
    printf 'FAIL %-14s\n' "$1"
    head -40 <<< "$said"
    broken=1
  fi
}

mapfile -t sources < <(git ls-files 'zenithc/*.c' 'frontends/*.c' 'codegen/*.c' 'targets/*.c' 'runtime/*.c')
mapfile -t headers < <(git ls-files 'zenithc/*.h' 'frontends/*.h' 'codegen/*.h' 'targets/*.h' 'runtime/*.h')
mapfile -t others < <(git ls-files 'tests/*.c' 'tests/*.h' 'examples/*.c')
format() { clang-format-19 --dry-run -Werror "${sources[@]}" "${headers[@]}" "${others[@]}"; }
flags=(-std=c11 -D_GNU_SOURCE -I. -I"$B/gen" -I"$(llvm-config-19 --includedir)" -Iruntime)
tidy() {
  printf '%s\n' "${sources[@]}" | xargs -P "$JOBS" -n 8 sh -c 'clang-tidy-19 --quiet "$@" -- '"${flags[*]}"' 2>/dev/null' _
}
check_c() {
  cppcheck -q -j "$JOBS" --std=c11 --error-exitcode=1 --inline-suppr --suppressions-list=tools/cppcheck.txt -I. \
    --enable=warning,performance,portability "${sources[@]}"
}
build() { make -s -j"$JOBS" B="$B-lint-$1" CC="$1" OPT=-O1 all; }

make -s B="$B" generated
step rules python3 tools/lint_rules.py
step shell bash -c 'for f in $(git ls-files "*.sh" .ci/run); do bash -n "$f" || exit 1; done'
if [ -n "$FORMAT" ]; then step clang-format format; fi
step cppcheck check_c
step clang-tidy tidy
step gcc build gcc
step clang-19 build clang-19
[ $broken = 0 ] && echo "lint: clean"
exit $broken
