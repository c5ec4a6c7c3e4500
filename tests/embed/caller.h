/* What every caller of an artifact does, shared by the programs of this folder. */
#ifndef CALLER_H
#define CALLER_H
#include <string.h>

#include "zenith.h"

static inline size_t caller_element_bytes(uint32_t dtype) {
  switch (dtype) { /* ONNX codes */
    case 7: case 11: case 13: return 8;
    case 1: case 6: case 12: return 4;
    case 4: case 5: case 10: case 16: return 2;
    default: return 1;
  }
}

/* Type, shape and bytes of an input, symbolic dimensions taken as `size`. The number of its elements. */
static inline size_t caller_describe(const zn_io_desc *d, int64_t size, zn_tensor *out) {
  size_t count = 1;
  out->dtype = d->dtype;
  out->rank = d->rank;
  for (uint32_t k = 0; k < d->rank; k++) count *= (size_t)(out->shape[k] = d->shape[k] < 0 ? size : d->shape[k]);
  out->bytes = count * caller_element_bytes(d->dtype);
  return count;
}

/* All inputs described, with memory from `room` (which gives zeros) and contents: floats of either sign, int64 1. */
static inline void caller_inputs(const zn_model *model, int64_t size, void *(*room)(size_t bytes), zn_tensor *in) {
  for (uint32_t i = 0; i < model->num_inputs; i++) {
    const size_t count = caller_describe(&model->inputs[i], size, &in[i]);
    in[i].u.data = room(in[i].bytes);
    for (size_t e = 0; e < count; e++) {
      if (in[i].dtype == 7) ((int64_t *)in[i].u.data)[e] = 1;
      if (in[i].dtype == 1) ((float *)in[i].u.data)[e] = (float)((e * 7 + i) % 17) * 0.0625f - 0.5f;
    }
  }
}

static inline int caller_same(const zn_tensor *a, const zn_tensor *b, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (a[i].bytes != b[i].bytes || memcmp(a[i].u.data, b[i].u.data, a[i].bytes)) return 0;
  return 1;
}
#endif
