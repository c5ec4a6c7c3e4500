#!/bin/sh
# Usage: build.sh MODEL.c|MODEL.o PROGRAM
# Links a compiled model into main.c. MODEL.h must lie beside it, as zenithc writes it.
# CC and CFLAGS are honoured; processor flags that MODEL.c names in its first comment are used for it.
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
  case $flags in *-mcpu=*) flags= ;; esac # made for a microcontroller: still portable C
  ${CC:-cc} -O2 $flags -Wa,-I"$(dirname "$model")" -c "$model" -o "$object"
fi
${CC:-cc} -std=c99 -D_POSIX_C_SOURCE=200809L -O2 -Wall -Wextra $CFLAGS -I"$runtime" \
  -DMODEL_NAME="$name" -DMODEL_HEADER="\"$header\"" \
  "$here/main.c" "$runtime/zenith_pool.c" "$object" -o "$program" -lpthread
