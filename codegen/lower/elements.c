/* Walking a stored tensor in the order of its layout, and the zeros of its halo. */
#include "codegen/lower/lower.h"

/* Pixels that a step of the loop over the last axis takes: independent work for the machine, and no tail. */
static unsigned pixels_per_step(zn_lw *lw, zn_expr extent, unsigned most) {
  int64_t n;
  if (!zn_ex_is_const(lw->ex, extent, &n)) return 1;
  for (unsigned f = most; f > 1; f--)
    if (n % f == 0) return f;
  return 1;
}

int zn_lw_over(zn_lw *lw, zn_vid v, unsigned side, zn_expr *idx) {
  zn_exprs *ex = lw->ex;
  const zn_layout l = lw->g->vals[v].layout;
  const zn_type t = *zn_lw_type(lw, v);
  int last = t.rank - 1;
  if (!l.block || l.axis == last) {
    zn_lw_grid(lw, t.rank ? (uint32_t)last : 0, t.dims, idx);
    if (t.rank) idx[last] = zn_lw_for(lw, t.dims[last], ZN_FOR_VECTOR, 0);
    return t.rank ? 2 : 1;
  }
  zn_expr extents[ZN_MAX_RANK] = {0}, var[ZN_MAX_RANK] = {0};
  for (int d = 0; d <= last; d++)
    extents[d] = d == l.axis ? zn_ex_divi(ex, t.dims[d], l.block) : t.dims[d]; /* blocks are full */
  if (lw->caps->simt) { /* a thread per run of neighbours */
    unsigned run = l.block % 8 == 0 ? 8 : 1;
    zn_lw_grid(lw, (uint32_t)t.rank, extents, var);
    for (int d = 0; d <= last; d++) idx[d] = var[d];
    zn_expr at = zn_ex_muli(ex, zn_lw_for(lw, zn_ex_const(ex, l.block / run), ZN_FOR_VECTOR, 0), run);
    at = zn_ex_add(ex, at, zn_lw_for(lw, zn_ex_const(ex, run), ZN_FOR_VECTOR, run));
    idx[l.axis] = zn_ex_add(ex, zn_ex_muli(ex, var[l.axis], l.block), at);
    return 3;
  }
  zn_lw_grid(lw, (uint32_t)last, extents, var);
  for (int d = 0; d < last; d++) idx[d] = var[d];
  unsigned f = pixels_per_step(lw, t.dims[last], side);
  idx[last] = zn_lw_for(lw, t.dims[last], f > 1 ? ZN_FOR_UNROLL : ZN_FOR_SERIAL, f > 1 ? f : 0);
  zn_expr lane = zn_lw_for(lw, zn_ex_const(ex, l.block), ZN_FOR_VECTOR, l.block);
  idx[l.axis] = zn_ex_add(ex, zn_ex_muli(ex, var[l.axis], l.block), lane);
  return 3;
}

static void clear_run(zn_lw *lw, zn_kref p, zn_dtype t, zn_expr first, zn_expr count) {
  if (zn_ex_is(lw->ex, count, 0)) return;
  zn_expr i = zn_lw_for(lw, count, ZN_FOR_VECTOR, 0);
  zn_kref zero = zn_is_float(zn_lw_ctype(t)) ? zn_kb_float(&lw->kb, zn_lw_ctype(t), 0)
                                             : zn_kb_int(&lw->kb, zn_lw_ctype(t), 0);
  zn_lw_store_at(lw, p, t, zn_ex_add(lw->ex, first, i), zero);
  zn_lw_end(lw);
}

/* Halos lie on the last one or two axes: in every plane the border before the first row's first element, the gaps
 * between rows (end of one, start of the next: they touch) and the border behind the last element. */
void zn_lw_clear_halo(zn_lw *lw, zn_nid n, zn_vid v) {
  zn_exprs *ex = lw->ex;
  if (!v || !lw->g->vals[v].layout.has_halo || lw->g->vals[v].layout.shares_halo || lw->g->vals[v].inlined) return;
  const zn_layout l = lw->g->vals[v].layout;
  const zn_type t = *zn_lw_type(lw, v);
  int last = t.rank - 1, above = last - 1;
  bool rows = above >= 2 && (!l.block || l.axis != above);
  int outer = rows ? above : last;
  int64_t unit = l.block ? l.block : 1;
  zn_expr planes = zn_ex_const(ex, 1), at;
  for (int d = 0; d < outer; d++)
    planes = zn_ex_mul(ex, planes, l.block && l.axis == d ? zn_ex_divi(ex, t.dims[d], l.block) : t.dims[d]);
  zn_expr width = zn_ex_muli(ex, zn_ex_addi(ex, t.dims[last], l.lo[last] + l.hi[last]), unit);
  zn_expr height = rows ? t.dims[above] : zn_ex_const(ex, 1);
  int64_t top = rows ? l.lo[above] : 0, bottom = rows ? l.hi[above] : 0;
  zn_expr head = zn_ex_addi(ex, zn_ex_muli(ex, width, top), l.lo[last] * unit);
  zn_expr row = zn_ex_muli(ex, t.dims[last], unit), gap = zn_ex_const(ex, (l.lo[last] + l.hi[last]) * unit);
  zn_expr tail = zn_ex_addi(ex, zn_ex_muli(ex, width, bottom), l.hi[last] * unit);
  zn_expr plane = zn_ex_mul(ex, width, zn_ex_addi(ex, height, top + bottom + (int64_t)l.gap));
  zn_lw_kernel(lw, n, "halo");
  zn_kref p = zn_lw_ptr(lw, v, ZN_KP_OUT);
  zn_lw_grid(lw, 1, &planes, &at);
  zn_expr base = zn_ex_mul(ex, at, plane);
  clear_run(lw, p, (zn_dtype)t.dtype, base, head);
  if (!zn_ex_is(ex, gap, 0)) {
    zn_expr r = zn_lw_for(lw, zn_ex_addi(ex, height, -1), ZN_FOR_SERIAL, 0);
    zn_expr first = zn_ex_add(ex, zn_ex_add(ex, base, zn_ex_add(ex, head, row)), zn_ex_mul(ex, r, width));
    clear_run(lw, p, (zn_dtype)t.dtype, first, gap);
    zn_lw_end(lw);
  }
  zn_expr end = zn_ex_sub(ex, zn_ex_add(ex, base, plane), zn_ex_add(ex, zn_ex_muli(ex, width, l.gap), tail));
  clear_run(lw, p, (zn_dtype)t.dtype, end, tail);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

int64_t zn_lw_line_bytes(const zn_lw *lw) { return lw->caps->idx_bytes == 4 ? 512 : 16 << 10; }

zn_expr zn_lw_for_line(zn_lw *lw, zn_dtype t, int64_t n) {
  zn_exprs *ex = lw->ex;
  int64_t lanes = zn_lw_lanes(lw, t);
  while (lanes > n) lanes /= 2;
  zn_expr j = zn_lw_for(lw, zn_ex_const(ex, (n + lanes - 1) / lanes), ZN_FOR_SERIAL, 0), from = zn_ex_muli(ex, j, lanes);
  if (n % lanes) from = zn_lw_as_expr(lw, zn_lw_ix(lw, zn_ex_min(ex, from, zn_ex_const(ex, n - lanes))), zn_ex_const(ex, n));
  return zn_ex_add(ex, from, zn_lw_for(lw, zn_ex_const(ex, lanes), ZN_FOR_VECTOR, (unsigned)lanes));
}
