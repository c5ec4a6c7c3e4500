/* Resize of plain images by lines. A row of results has the same weights along its outer axes for all columns: the sum over these
 * axes is taken once for each column of the operand, side by side, into a line on the stack, and the sum along the row reads
 * that. A result of a bilinear image then takes two multiply-adds and its share of the line in place of four with four
 * positions. */
#include "codegen/lower/resize.h"

enum { MAX_TAPS = 8 };

typedef struct lines {
  int64_t n, out, taps; /* columns of the operand and of the result, taps along the row */
} lines;

static bool read_lines(zn_lw *lw, const zn_resizer *r, const zn_resize_axis *axes, lines *l) {
  const zn_exprs *ex = lw->ex;
  const zn_vid x = r->node->in[0], y = r->node->out[0];
  const zn_type *tx = zn_lw_type(lw, x), *ty = zn_lw_type(lw, y);
  const int last = tx->rank - 1;
  if (lw->caps->simt || lw->opts->frugal || r->crop || r->mode[0] == 'n') return false;
  if (zn_lw_ctype((zn_dtype)tx->dtype) != r->ct) return false;
  if (lw->g->vals[y].layout.block || lw->g->vals[x].layout.block || last < 1 || !axes[last].resized) return false;
  bool outer = false;
  for (int d = 0; d <= last; d++) {
    if (axes[d].resized && axes[d].index.kind == ZN_LOC_WS) return false; /* tables that the run fills */
    outer |= d < last && axes[d].resized;
  }
  if (!outer || !zn_ex_is_const(ex, tx->dims[last], &l->n) || !zn_ex_is_const(ex, ty->dims[last], &l->out)) return false;
  if (l->n < 1 || l->out < 1 || l->n * zn_dtype_bytes(r->ct) > zn_lw_line_bytes(lw)) return false;
  return zn_ex_is_const(ex, axes[last].taps, &l->taps) && l->taps <= MAX_TAPS && l->n <= 2 * l->out;
}

/* Sums over the outer axes, of every column. */
static void fill_line(zn_lw *lw, const zn_resizer *r, const zn_resize_axis *axes, const lines *l, const zn_expr *idx,
                      zn_kref line) {
  zn_kb *b = &lw->kb;
  const zn_type tx = *zn_lw_type(lw, r->node->in[0]);
  const int last = tx.rank - 1;
  zn_expr at[ZN_MAX_RANK];
  zn_kref weight = 0;
  int loops = 0;
  at[last] = zn_lw_for_line(lw, r->ct, l->n);
  zn_kref sum = zn_kb_var(b, zn_lw_zero(lw, r->ct));
  for (int d = 0; d < last; d++) {
    at[d] = idx[d];
    if (!axes[d].resized) continue;
    at[d] = zn_resize_open_taps(lw, &axes[d], r->ct, idx[d], tx.dims[d], &weight);
    loops++;
  }
  zn_kref v = zn_lw_load(lw, r->node->in[0], at);
  if (zn_lw_kdtype(lw, v) != r->ct) v = zn_kb_cvt(b, v, r->ct);
  zn_kb_set(b, sum, zn_kb_fma(b, v, weight, zn_kb_get(b, sum)));
  while (loops-- > 0) zn_lw_end(lw);
  zn_lw_store_at(lw, line, r->ct, at[last], zn_kb_get(b, sum));
  zn_lw_end(lw);
  zn_lw_end(lw);
}

bool zn_resize_by_lines(zn_lw *lw, const zn_resizer *r, const zn_resize_axis *axes) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  lines l;
  if (!read_lines(lw, r, axes, &l)) return false;
  const zn_vid y = r->node->out[0];
  const int last = zn_lw_type(lw, y)->rank - 1;
  const zn_resize_axis *row = &axes[last];
  zn_expr idx[ZN_MAX_RANK];
  zn_lw_kernel(lw, r->n, "resize");
  zn_kref line = zn_kb_alloc(b, r->ct, (uint64_t)l.n);
  zn_lw_grid(lw, (uint32_t)last, zn_lw_type(lw, y)->dims, idx);
  fill_line(lw, r, axes, &l, idx, line);
  idx[last] = zn_lw_for_line(lw, r->ct, l.out);
  zn_kref sum = 0;
  for (int64_t k = 0; k < l.taps; k++) {
    const zn_expr tap = zn_ex_const(ex, k);
    const zn_expr at = zn_resize_position(lw, row, idx[last], tap, zn_ex_const(ex, l.n));
    zn_kref v = zn_lw_load_at(lw, line, r->ct, at), w = zn_resize_weight(lw, row, r->ct, idx[last], tap);
    sum = sum ? zn_kb_fma(b, v, w, sum) : zn_kb_bin(b, ZN_K_Mul, v, w);
  }
  zn_lw_emit(lw, y, idx, sum);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return true;
}
