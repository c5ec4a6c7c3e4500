/* Matrix products with constant weights by dot-product instructions: C[m, n] = sum_k (A[m, k] - za) * W[k, n], exact in i32, as
 * register tiles of Dot4 or Dot2 over packed weights; and of bf16 with sums in f32, as Dot2Bf16; both as TileDot. */
#ifndef ZN_GEMM_DOT_H
#define ZN_GEMM_DOT_H
#include "codegen/lower/dotpack.h"

typedef struct zn_gemm_dot {
  zn_nid node;
  const char *hint; /* kernel name */
  uint32_t num_batch;
  zn_expr batch[ZN_MAX_RANK]; /* extents of the batch axes: more rows of the same product */
  zn_expr m;
  int64_t k, n;
  zn_dtype a_type; /* U8, I8 or BF16 */
  zn_kref (*a)(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr k);
  /* A as a stored row-major matrix with plain rows, or 0; then a is not called where its rows hold whole words. */
  zn_vid a_stored;
  /* Zero point of row m as i32; NULL: zero. */
  zn_kref (*zero)(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m);
  void (*emit)(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n, zn_kref acc); /* i32; f32 */
  void *user;
  zn_dot_weight weight; /* centred; bits of bf16 */
  void *weights;
  int32_t lo, hi; /* their range; not of bf16 */
  const char *name; /* of the weights */
} zn_gemm_dot;

/* False when the target or the types do not suit, and nothing is emitted then. */
bool zn_gemm_dot_emit(zn_lw *lw, const zn_gemm_dot *g);
#endif
