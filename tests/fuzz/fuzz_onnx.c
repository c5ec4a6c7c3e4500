/* The ONNX reader under libFuzzer (make fuzz-onnx), or over the files given as arguments. */
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "frontends/onnx/onnx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void quiet(void *user, zn_severity sev, const char *line) {
  (void)user;
  (void)sev;
  (void)line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  zn_ctx c;
  zn_graph *g;
  zn_ctx_init(&c);
  c.sink = quiet;
  zn_status st = zn_onnx_load_bytes(&c, data, n, NULL, NULL, NULL, &g);
  if ((st == ZN_OK) != (g != NULL) || (st != ZN_OK && c.errors == 0)) abort();
  zn_ctx_fini(&c);
  return 0;
}

#ifndef ZN_LIBFUZZER
int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    FILE *f = fopen(argv[i], "rb");
    if (!f) return 2;
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f);
    rewind(f);
    uint8_t *p = malloc(n + 1);
    if (fread(p, 1, n, f) == n) (void)LLVMFuzzerTestOneInput(p, n);
    free(p);
    fclose(f);
  }
  return 0;
}
#endif
