/* Integer matrix products with constant weights: C[m, n] = sum_k (A[m, k] - za) * W[k, n], exact in i32, as register tiles
 * of Dot4 or Dot2 over packed weights. */
#ifndef ZN_GEMM_INT8_H
#define ZN_GEMM_INT8_H
#include "codegen/lower/dotpack.h"

typedef struct zn_gemm_int8 {
  zn_nid node;
  const char *hint; /* kernel name */
  uint32_t num_batch;
  zn_expr batch[ZN_MAX_RANK]; /* extents of the batch axes: more rows of the same product */
  zn_expr m;
  int64_t k, n;
  zn_dtype a_type; /* U8 or I8 */
  zn_kref (*a)(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr k);
  /* A as a stored row-major matrix with plain rows, or 0; then a is not called where its rows hold whole words. */
  zn_vid a_stored;
  /* Zero point of row m as i32; NULL: zero. */
  zn_kref (*zero)(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m);
  void (*emit)(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n, zn_kref acc);
  void *user;
  zn_dot_weight weight; /* centred */
  void *weights;
  int32_t lo, hi; /* their range */
  const char *name; /* of the weights */
} zn_gemm_int8;

/* False when the target or the types do not suit, and nothing is emitted then. */
bool zn_gemm_int8_emit(zn_lw *lw, const zn_gemm_int8 *g);
#endif
