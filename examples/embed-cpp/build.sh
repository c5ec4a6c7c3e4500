#!/bin/sh
# Usage: build.sh MODEL.c|MODEL.o PROGRAM
# Links a compiled model into main.cpp. MODEL.h must lie beside it, as zenithc writes it.
# CC, CXX and CXXFLAGS are honoured.
set -e
here=$(cd "$(dirname "$0")" && pwd)
runtime=$here/../../runtime
model=$1 program=$2
stem=${model%.*}
header=$(cd "$(dirname "$stem")" && pwd)/$(basename "$stem").h
name=$(sed -n 's/^#define \(.*\)_MODEL_H$/\1/p' "$stem.h")
object=$model
if [ "${model##*.}" = c ]; then
  object=$program.model.o
  flags=$(sed -n 's/^ \* Compile with -O2//p' "$model" | head -1)
  case $flags in *-mcpu=*) flags= ;; esac
  ${CC:-cc} -O2 $flags -Wa,-I"$(dirname "$model")" -c "$model" -o "$object"
fi
${CC:-cc} -std=c99 -O2 -c "$runtime/zenith_open.c" -o "$program.open.o"
${CXX:-c++} -std=c++17 -O2 -Wall -Wextra $CXXFLAGS -I"$runtime" \
  -DMODEL_NAME="$name" -DMODEL_HEADER="\"$header\"" \
  "$here/main.cpp" "$program.open.o" "$object" -o "$program" -lpthread -ldl
