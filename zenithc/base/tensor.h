/* Host tensors: dense, row-major, little-endian. */
#ifndef ZN_TENSOR_H
#define ZN_TENSOR_H
#include "zenithc/base/diag.h"
#include "zenithc/base/dtype.h"

enum { ZN_MAX_RANK = 8 };

typedef struct zn_str {
  const char *ptr; /* not NUL-terminated */
  uint64_t len;
} zn_str; /* element of a ZN_STR tensor */

typedef enum zn_vkind { ZN_V_TENSOR, ZN_V_SEQ, ZN_V_OPT, ZN_V_MAP } zn_vkind;

/* A tensor; or (kind) a list: rank 1, data points to dims[0] zn_htensor. Sequences: their items; optionals: none or one;
 * maps: two tensors of rank 1, keys and values. dtype is that of the (innermost) tensors, NONE when unknown. */
typedef struct zn_htensor {
  zn_dtype dtype;
  uint32_t rank;
  int64_t dims[ZN_MAX_RANK];
  void *data;       /* borrowed; zn_htensor_new takes it from an arena */
  const char *name; /* may be NULL */
  uint8_t kind;     /* zn_vkind */
  bool of;          /* an optional sequence, a sequence of maps */
  const char *origin; /* how .zg text writes the contents, e.g. "rand(1)" or file "m.onnx"+1024; NULL: by value */
} zn_htensor;

/* Product of the dims; 1 for rank 0. Dims are non-negative. */
uint64_t zn_htensor_count(const zn_htensor *t);
uint64_t zn_htensor_bytes(const zn_htensor *t);
/* Zero-filled. */
zn_htensor zn_htensor_new(zn_arena *a, zn_dtype dtype, uint32_t rank, const int64_t *dims);
/* Checked product: false when the element or byte count exceeds 2^62 or a dim is negative. */
bool zn_dims_count(uint32_t rank, const int64_t *dims, unsigned elem_bytes, uint64_t *out_count);
#endif
