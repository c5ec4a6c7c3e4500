/* Matrix products on SIMT targets. */
#include "codegen/lower/gemm.h"

enum { TEAM = 128 };

void zn_gemm_pack_simt(zn_lw *lw, zn_gemm *g, const char *name, uint64_t k, uint64_t n, zn_dtype dtype,
                       void (*copy)(void *user, uint64_t k, uint64_t n, void *dst), void *user) {
  unsigned size = zn_dtype_bytes(dtype);
  char *data = zn_arena_array(&lw->ctx->graph, k * n, size);
  for (uint64_t i = 0; i < k; i++)
    for (uint64_t j = 0; j < n; j++) copy(user, i, j, data + (i * n + j) * size);
  g->packed = true;
  g->panel_dtype = dtype;
  g->panels = zn_lw_const(lw, zn_arena_printf(lw->arena, "%s_columns", name), dtype, k * n, data);
}

static zn_kref load_b(zn_lw *lw, const zn_gemm *g, const zn_expr *batch, zn_expr k, zn_expr n) {
  if (!g->packed) return g->b(lw, g->user, batch, k, n);
  zn_kref p = zn_lw_ptr_loc(lw, g->panels, ZN_KP_IN, g->panel_dtype);
  return zn_lw_load_at(lw, p, g->panel_dtype, zn_ex_add(lw->ex, zn_ex_mul(lw->ex, k, g->n), n));
}

static zn_kref initial(zn_lw *lw, const zn_gemm *g, const zn_expr *batch, zn_expr m, zn_expr n) {
  if (g->init) return g->init(lw, g->user, batch, m, n);
  return zn_is_float(g->t) ? zn_kb_float(&lw->kb, g->t, 0) : zn_kb_int(&lw->kb, g->t, 0);
}

/* One result a thread: small and odd shapes. */
static void points(zn_lw *lw, const zn_gemm *g) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_expr extents[ZN_MAX_RANK + 2], var[ZN_MAX_RANK + 2], size = zn_ex_const(ex, TEAM);
  zn_expr inner = g->rows_inner ? g->m : g->n, outer = g->rows_inner ? g->n : g->m;
  uint32_t nb = g->num_batch;
  zn_lw_kernel(lw, g->node, g->hint);
  for (uint32_t i = 0; i < nb; i++) extents[i] = g->batch[i];
  extents[nb] = outer;
  extents[nb + 1] = zn_ex_ceildiv(ex, inner, size);
  zn_lw_grid(lw, nb + 2, extents, var);
  zn_expr base = zn_ex_mul(ex, var[nb + 1], size);
  zn_expr here = zn_ex_min(ex, size, zn_ex_sub(ex, inner, base));
  zn_expr at = zn_ex_add(ex, base, zn_lw_for(lw, here, ZN_FOR_VECTOR, 0));
  zn_expr m = g->rows_inner ? at : var[nb], n = g->rows_inner ? var[nb] : at;
  zn_kref acc = zn_kb_var(b, initial(lw, g, var, m, n));
  zn_expr k = zn_lw_for(lw, g->k, ZN_FOR_SERIAL, 0);
  zn_kref x = g->a(lw, g->user, var, m, k), y = load_b(lw, g, var, k, n), old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_mul_add(lw, x, y, old));
  zn_lw_end(lw);
  g->emit(lw, g->user, var, m, n, zn_kb_get(b, acc));
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

void zn_gemm_simt(zn_lw *lw, const zn_gemm *g) { points(lw, g); }
