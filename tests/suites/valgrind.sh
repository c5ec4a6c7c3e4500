# Valgrind: the compiler on the digit classifier, and artifacts run by embed_check.
. tests/suites/lib.sh
v="valgrind -q --error-exitcode=99"
{
  try "embed_check builds" gcc -std=c11 -D_GNU_SOURCE -g -Iruntime tests/embed/embed_check.c \
    -o "$out/embed_check" -ldl -lpthread
  try "zenithc, .so" $v "$ZENITHC" "$digits" -o "$out/digits.so"
  try "zenithc, .c" $v "$ZENITHC" "$digits" --target=c -o "$out/digits.c"
  try "the artifact" $v "$out/embed_check" "$out/digits.so"
  for m in mnist-8 cifar-cnn; do
    if [ -d "$MODELS/$m" ]; then try "check $m" $v "$ZENITHC" check "$MODELS/$m" --jobs 1 --timeout 600 --spread 1e-4; fi
  done
} | tally
