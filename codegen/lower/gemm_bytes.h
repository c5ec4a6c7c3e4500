/* Integer products on matrix units (gemm_bytes.c). */
#ifndef ZN_GEMM_BYTES_H
#define ZN_GEMM_BYTES_H
#include "codegen/lower/gemm.h"

/* Weight (k, n) minus its zero point. */
typedef int32_t (*zn_bytes_weight)(void *user, int64_t k, int64_t n);
/* Packs the k x n weights for product g, whose sizes are set and whose elements of A are of type a, and sets g->bytes; out_sums:
 * a constant, the weights of each column added up. False: the target or the weights do not suit, g is as it was. */
bool zn_gemm_bytes(zn_lw *lw, zn_gemm *g, zn_dtype a, const char *name, int64_t k, int64_t n, zn_bytes_weight weight, void *user,
                   zn_loc *out_sums);
/* The initial sum of column n: start minus what zero point `zero` of the activations adds. */
zn_kref zn_bytes_initial(zn_lw *lw, zn_loc sums, zn_kref zero, zn_expr n, zn_kref start);
#endif
