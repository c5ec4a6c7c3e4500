/* Host tensors: sizes with checked products, and allocation. */
#include "zenithc/base/tensor.h"

#include <assert.h>

bool zn_dims_count(uint32_t rank, const int64_t *dims, unsigned elem_bytes, uint64_t *out_count) {
  const uint64_t limit = (uint64_t)1 << 62;
  uint64_t n = 1;
  bool empty = false;
  for (uint32_t d = 0; d < rank; d++) {
    if (dims[d] < 0) return false;
    if (dims[d] == 0) empty = true;
  }
  for (uint32_t d = 0; d < rank && !empty; d++) {
    if ((uint64_t)dims[d] > limit / n) return false;
    n *= (uint64_t)dims[d];
  }
  if (empty) n = 0;
  if (elem_bytes && n > limit / elem_bytes) return false;
  *out_count = n;
  return true;
}

uint64_t zn_htensor_count(const zn_htensor *t) {
  uint64_t n = 1;
  for (uint32_t d = 0; d < t->rank; d++) n *= (uint64_t)t->dims[d];
  return n;
}

uint64_t zn_htensor_bytes(const zn_htensor *t) {
  return zn_htensor_count(t) * zn_dtype_bytes(t->dtype);
}

zn_htensor zn_htensor_new(zn_arena *a, zn_dtype dtype, uint32_t rank, const int64_t *dims) {
  assert(rank <= ZN_MAX_RANK);
  zn_htensor t = {.dtype = dtype, .rank = rank};
  for (uint32_t d = 0; d < rank; d++) t.dims[d] = dims[d];
  uint64_t n = 0;
  bool ok = zn_dims_count(rank, dims, zn_dtype_bytes(dtype), &n);
  t.data = zn_arena_array(a, ok ? (size_t)n : SIZE_MAX, zn_dtype_bytes(dtype));
  return t;
}
