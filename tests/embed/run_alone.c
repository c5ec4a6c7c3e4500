/* run_alone [CODE]: calls run of a model with static shapes, never plan; succeeds when run returns CODE (0 without). */
#include <stdio.h>
#include <stdlib.h>

#include "zenith.h"

enum { BYTES = 1 << 20 };
extern const zn_model MODEL;

static void *buffer(void) {
  void *p = aligned_alloc(64, BYTES);
  for (int i = 0; p && i < BYTES; i++) ((char *)p)[i] = 0;
  return p;
}

static void fill(zn_tensor *t, const zn_io_desc *d, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    t[i].u.data = buffer();
    t[i].bytes = BYTES;
    t[i].dtype = d[i].dtype;
    t[i].rank = d[i].rank;
    for (uint32_t k = 0; k < d[i].rank; k++) t[i].shape[k] = d[i].shape[k] < 0 ? 1 : d[i].shape[k];
  }
}

int main(int argc, char **argv) {
  static zn_tensor in[8], out[8];
  if (MODEL.num_inputs > 8 || MODEL.num_outputs > 8) return 2;
  fill(in, MODEL.inputs, MODEL.num_inputs);
  fill(out, MODEL.outputs, MODEL.num_outputs);
  int rc = MODEL.run(in, out, buffer(), BYTES, NULL);
  if (rc == (argc > 1 ? atoi(argv[1]) : 0)) return 0;
  fprintf(stderr, "run returned %d\n", rc);
  return 1;
}
