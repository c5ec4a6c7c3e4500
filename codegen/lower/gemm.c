/* Register tiles: `rows` accumulator rows (unrolled) by `panel` columns (vectors); widen.c turns the marked loops into
 * rows x vectors accumulators and one broadcast per row and step. On AVX2 that is 6 x 2 vectors of the 16 registers. */
#include "codegen/lower/gemm.h"

#include <assert.h>

enum { VECTORS = 2 };

zn_kref zn_mul_add(zn_lw *lw, zn_kref a, zn_kref b, zn_kref acc) {
  zn_kb *kb = &lw->kb;
  zn_dtype t = zn_lw_kdtype(lw, acc);
  if (zn_lw_kdtype(lw, a) != t) a = zn_kb_cvt(kb, a, t);
  if (zn_lw_kdtype(lw, b) != t) b = zn_kb_cvt(kb, b, t);
  if (zn_is_float(t)) return zn_kb_fma(kb, a, b, acc);
  zn_kref p = zn_kb_bin(kb, ZN_K_Mul, a, b);
  return zn_kb_bin(kb, ZN_K_Add, acc, p);
}

unsigned zn_gemm_panel(const zn_lw *lw, zn_dtype t) {
  unsigned lanes = zn_lw_lanes(lw, t);
  return lanes == 1 ? 4 : lanes * VECTORS;
}

unsigned zn_gemm_rows(zn_lw *lw, zn_expr m, unsigned most) {
  int64_t c;
  if (!zn_ex_is_const(lw->ex, m, &c)) return most;
  if (c <= (int64_t)most) return c < 1 ? 1 : (unsigned)c;
  unsigned best = most;
  int64_t waste = INT64_MAX;
  for (unsigned r = most; r * 2 > most; r--) {
    int64_t w = c % r; /* rows left for the slow tail */
    if (w < waste) best = r, waste = w;
  }
  return best;
}

void zn_gemm_pack(zn_lw *lw, zn_gemm *g, const char *name, uint64_t k, uint64_t n, zn_dtype dtype,
                  void (*copy)(void *user, uint64_t k, uint64_t n, void *dst), void *user) {
  uint64_t panel = zn_gemm_panel(lw, g->t), count = (n + panel - 1) / panel * panel * k;
  unsigned size = zn_dtype_bytes(dtype);
  char *data = zn_arena_array(&lw->ctx->graph, count, size);
  for (uint64_t p = 0; p < n; p += panel)
    for (uint64_t i = 0; i < k; i++)
      for (uint64_t j = 0; j < panel && p + j < n; j++)
        copy(user, i, p + j, data + (p * k + i * panel + j) * size);
  g->packed = true;
  g->panel_dtype = dtype;
  g->panels = zn_lw_const(lw, zn_arena_printf(lw->arena, "%s_panels", name), dtype, count, data);
}

typedef struct tile {
  const zn_gemm *g;
  zn_expr batch[ZN_MAX_RANK];
  zn_expr panel_no; /* column block */
  unsigned panel, rows;
} tile;

static zn_kref load_b(zn_lw *lw, const tile *t, zn_expr k, zn_expr col) {
  const zn_gemm *g = t->g;
  zn_exprs *ex = lw->ex;
  zn_expr first = zn_ex_muli(ex, t->panel_no, t->panel);
  if (!g->packed) return g->b(lw, g->user, t->batch, k, zn_ex_add(ex, first, col));
  zn_kref p = zn_lw_ptr_loc(lw, g->panels, ZN_KP_IN, g->panel_dtype);
  zn_expr off = zn_ex_add(ex, zn_ex_mul(ex, first, g->k), zn_ex_add(ex, zn_ex_muli(ex, k, t->panel), col));
  return zn_lw_load_at(lw, p, g->panel_dtype, off);
}

/* The innermost part: one accumulator at (m, first + col), col already a loop variable. */
static void accumulate(zn_lw *lw, const tile *t, zn_expr m, zn_expr col) {
  const zn_gemm *g = t->g;
  zn_kb *b = &lw->kb;
  zn_expr n = zn_ex_add(lw->ex, zn_ex_muli(lw->ex, t->panel_no, t->panel), col);
  zn_kref init;
  if (g->init)
    init = g->init(lw, g->user, t->batch, m, n);
  else
    init = zn_is_float(g->t) ? zn_kb_float(b, g->t, 0) : zn_kb_int(b, g->t, 0);
  zn_kref acc = zn_kb_var(b, init);
  zn_expr k = zn_lw_for(lw, g->k, ZN_FOR_SERIAL, 0);
  zn_kref av = g->a(lw, g->user, t->batch, m, k);
  zn_kref bv = load_b(lw, t, k, col);
  zn_kref old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_mul_add(lw, av, bv, old));
  zn_lw_end(lw);
  g->emit(lw, g->user, t->batch, m, n, zn_kb_get(b, acc));
}

/* One kernel over column blocks [first_panel, first_panel + count) of `width` columns each. */
static void columns(zn_lw *lw, const zn_gemm *g, zn_expr first_panel, zn_expr count, zn_expr width,
                    bool full) {
  zn_exprs *ex = lw->ex;
  tile t = {.g = g, .panel = zn_gemm_panel(lw, g->t)};
  unsigned most = lw->caps->vector_regs >= 32 ? 12 : 6;
  t.rows = zn_gemm_rows(lw, g->m, zn_lw_lanes(lw, g->t) == 1 ? 2 : most);
  zn_expr rows = zn_ex_const(ex, t.rows), extents[ZN_MAX_RANK + 2], vars[ZN_MAX_RANK + 2];
  zn_lw_kernel(lw, g->node, g->hint);
  for (uint32_t i = 0; i < g->num_batch; i++) extents[i] = g->batch[i];
  extents[g->num_batch] = count;
  extents[g->num_batch + 1] = zn_ex_ceildiv(ex, g->m, rows);
  zn_lw_grid(lw, g->num_batch + 2, extents, vars);
  for (uint32_t i = 0; i < g->num_batch; i++) t.batch[i] = vars[i];
  t.panel_no = zn_ex_add(ex, first_panel, vars[g->num_batch]);
  zn_expr base = zn_ex_muli(ex, vars[g->num_batch + 1], t.rows), here = rows;
  int64_t m;
  if (!zn_ex_is_const(ex, g->m, &m) || m % t.rows)
    here = zn_ex_min(ex, rows, zn_ex_sub(ex, g->m, base));
  zn_expr r = zn_lw_for(lw, here, ZN_FOR_UNROLL, t.rows);
  zn_expr row = zn_ex_add(ex, base, r);
  unsigned lanes = zn_lw_lanes(lw, g->t);
  if (full) {
    zn_expr u = zn_lw_for(lw, zn_ex_const(ex, t.panel / lanes), ZN_FOR_UNROLL, t.panel / lanes);
    zn_expr v = zn_lw_for(lw, zn_ex_const(ex, lanes), ZN_FOR_VECTOR, lanes);
    accumulate(lw, &t, row, zn_ex_add(ex, zn_ex_muli(ex, u, lanes), v));
    zn_lw_end(lw);
    zn_lw_end(lw);
  } else {
    zn_expr v = zn_lw_for(lw, width, ZN_FOR_VECTOR, lanes);
    accumulate(lw, &t, row, v);
    zn_lw_end(lw);
  }
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

void zn_gemm_emit(zn_lw *lw, const zn_gemm *g) {
  zn_exprs *ex = lw->ex;
  zn_expr panel = zn_ex_const(ex, zn_gemm_panel(lw, g->t));
  zn_expr full = zn_ex_div(ex, g->n, panel), rest = zn_ex_mod(ex, g->n, panel);
  zn_expr zero = zn_ex_const(ex, 0), one = zn_ex_const(ex, 1);
  if (!zn_ex_is(ex, full, 0)) columns(lw, g, zero, full, panel, true);
  if (!zn_ex_is(ex, rest, 0)) columns(lw, g, full, one, rest, false);
}
