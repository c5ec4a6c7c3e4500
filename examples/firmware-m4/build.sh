#!/bin/sh
# Usage: build.sh MODEL.c|MODEL.o FIRMWARE.elf    then: run.sh FIRMWARE.elf
# Firmware for the Arm MPS2 board (Cortex-M4, AN386), freestanding.
# MODEL.h must lie beside the model; make both with
#   zenithc MODEL.onnx --target=c --arch=cortex-m4 -o MODEL.c
set -e
here=$(cd "$(dirname "$0")" && pwd)
model=$1 elf=$2
stem=${model%.*}
header=$(cd "$(dirname "$stem")" && pwd)/$(basename "$stem").h
name=$(sed -n 's/^#define \(.*\)_MODEL_H$/\1/p' "$stem.h")
cc=${ARM_CC:-arm-none-eabi-gcc}
cpu="-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16"
object=$model
if [ "${model##*.}" = c ]; then
  object=$elf.model.o
  $cc $cpu -O2 -ffreestanding -Wa,-I"$(dirname "$model")" -c "$model" -o "$object"
fi
$cc $cpu -std=gnu11 -Os -ffreestanding -Wall -Wextra -nostdlib \
  -T "$here/mps2.ld" -Wl,--gc-sections -Wl,-z,noexecstack \
  -DMODEL_NAME="$name" -DMODEL_HEADER="\"$header\"" \
  "$here/startup.c" "$here/main.c" "$object" -lgcc -o "$elf"
