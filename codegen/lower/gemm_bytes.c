/* Integer products with constant weights for matrix units: the weights, minus their zero points, must fit i8. Activations stay
 * the bytes they are; their zero point z becomes a term of the sum, sum_k (a - z) w = sum_k a w - z sum_k w, exact in i32 as
 * the sum itself, because both wrap alike. */
#include "codegen/lower/gemm_bytes.h"

#include "codegen/lower/gemm_simt.h"

typedef struct source {
  zn_bytes_weight weight;
  void *user;
} source;

static void copy_byte(void *user, uint64_t k, uint64_t n, void *dst) {
  const source *s = user;
  int8_t w = (int8_t)s->weight(s->user, (int64_t)k, (int64_t)n);
  memcpy(dst, &w, 1);
}

/* Sums of the columns; false when a weight does not fit. */
static bool add_columns(const source *s, int64_t k, int64_t n, int32_t *sums) {
  for (int64_t i = 0; i < k; i++)
    for (int64_t j = 0; j < n; j++) {
      int32_t w = s->weight(s->user, i, j);
      if (w < INT8_MIN || w > INT8_MAX) return false;
      sums[j] = (int32_t)((uint32_t)sums[j] + (uint32_t)w);
    }
  return true;
}

bool zn_gemm_bytes(zn_lw *lw, zn_gemm *g, zn_dtype a, const char *name, int64_t k, int64_t n, zn_bytes_weight weight, void *user,
                   zn_loc *out_sums) {
  source s = {weight, user};
  if (!lw->caps->mma || (a != ZN_U8 && a != ZN_I8) || g->t != ZN_I32) return false;
  g->bytes = a;
  int32_t *sums = ZN_ARRAY(lw->arena, int32_t, n + 1);
  if (!zn_gs_units_fit(lw, g) || !add_columns(&s, k, n, sums)) {
    g->bytes = ZN_NONE;
    return false;
  }
  zn_gemm_pack_simt(lw, g, name, (uint64_t)k, (uint64_t)n, ZN_I8, copy_byte, &s);
  *out_sums = zn_lw_const(lw, zn_arena_printf(lw->arena, "%s_sums", name), ZN_I32, (uint64_t)n, sums);
  return true;
}

zn_kref zn_bytes_initial(zn_lw *lw, zn_loc sums, zn_kref zero, zn_expr n, zn_kref start) {
  zn_kb *b = &lw->kb;
  zn_kref p = zn_lw_ptr_loc(lw, sums, ZN_KP_IN, ZN_I32);
  zn_kref sum = zn_lw_load_at(lw, p, ZN_I32, n), part = zn_kb_bin(b, ZN_K_Mul, zn_kb_cvt(b, zero, ZN_I32), sum);
  return zn_kb_bin(b, ZN_K_Sub, start, part);
}
