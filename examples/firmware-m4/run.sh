#!/bin/sh
# Usage: run.sh FIRMWARE.elf    runs it in QEMU; the exit status is the firmware's
exec timeout "${TIMEOUT:-60}" ${QEMU:-qemu-system-arm} -M mps2-an386 -display none -monitor none \
  -serial none -semihosting-config enable=on,target=native -kernel "$1" 2>&1
