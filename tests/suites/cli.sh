#!/bin/sh
# Every example of docs/CLI.md, errors, exit codes, and that nothing is left behind.
set -u
cd "$(dirname "$0")/../.." || exit 2
b=${B:-build}
[ -x "$b/make_model" ] ||
  ${CC:-cc} -std=c11 -O1 -D_GNU_SOURCE -I. -o "$b/make_model" tests/cli/make_model.c -lm || exit 2
exec tests/cli/run_page.sh "$b/zenithc" "$b/make_model" docs/CLI.md docs/zenithc.1
