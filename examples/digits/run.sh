#!/bin/sh
# Usage: run.sh ZENITHC OUTDIR    compiles digits.onnx to a shared object and to C, runs both, compares their answers.
set -e
here=$(cd "$(dirname "$0")" && pwd)
zenithc=$1 out=$2
runtime=$here/../../runtime
cc="${CC:-cc} -std=c11 -D_POSIX_C_SOURCE=200809L -O2 -Wall -Wextra -I$runtime"
mkdir -p "$out"
cd "$out"

echo "== digits.onnx -> digits.so"
"$zenithc" "$here/digits.onnx" --report digits.json -o digits.so
$cc "$here/main.c" -o digits_so -ldl
./digits_so ./digits.so "$here/digits.txt" so.txt
echo "artifact   $(wc -c < digits.so) bytes, one file, nothing to install beside it"
if [ -s digits.json ]; then
  sed -n 's/^[[:space:]]*"verdict":[[:space:]]*"\(.*\)",*$/self-check \1 (digits.json has the rest)/p' digits.json
fi

echo
echo "== digits.onnx -> digits.c (standalone C99)"
"$zenithc" "$here/digits.onnx" --target=c --name digits -o digits.c
$cc -Wno-psabi $(sed -n 's/^ \* Compile with -O2//p' digits.c | head -1) -c digits.c -o digits_c.o
$cc -DMODEL=digits_model -DMODEL_HEADER='"digits.h"' -I. "$here/main.c" digits_c.o -o digits_c
./digits_c "$here/digits.txt" c.txt | grep -v '[░▒▓█]' | sed '/read as/d;/^ *$/d'

echo
if cmp -s so.txt c.txt; then
  echo "the shared object and the C file give the same answer for every digit"
else
  echo "the shared object and the C file differ" >&2
  exit 1
fi
