/* Convolution on SIMT targets, and where memory is scarce: the implicit matrix product of conv.c, whose input elements are
 * read through a condition instead of from a zero-bordered copy. */
#include "codegen/lower/conv.h"
#include "codegen/lower/requant.h"

zn_kref zn_conv_guarded(zn_lw *lw, const zn_conv *v, zn_expr n, zn_expr c, const zn_expr *at) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  zn_kref inside = zn_kb_int(b, ZN_BOOL, 1);
  zn_expr idx[ZN_MAX_RANK], pos[ZN_MAX_RANK];
  idx[0] = n;
  idx[1] = c;
  for (int i = 0; i < v->win.rank; i++) {
    pos[i] = zn_ex_sub(ex, at[i], v->win.pad_lo[i]);
    zn_kref in = zn_lw_in_range(lw, pos[i], v->tx.dims[i + 2]);
    inside = zn_kb_bin(b, ZN_K_And, inside, in);
  }
  int64_t always;
  bool sure = zn_kf_const_int(b->f, inside, &always) && always;
  for (int i = 0; i < v->win.rank; i++) {
    idx[i + 2] = pos[i];
    if (sure) continue;
    zn_kref k = zn_lw_ix(lw, pos[i]), zero = zn_kb_idx(b, 0);
    idx[i + 2] = zn_lw_as_expr(lw, zn_kb_select(b, inside, k, zero), v->tx.dims[i + 2]);
  }
  zn_kref x = zn_lw_load(lw, v->x, idx);
  zn_expr first = zn_ex_const(ex, 0);
  if (!zn_is_float(v->xt) && v->zx && !v->raw) x = zn_centre(lw, x, zn_lw_load(lw, v->zx, &first), v->xt);
  if (sure) return x;
  zn_dtype t = zn_lw_kdtype(lw, x);
  zn_kref fill = zn_is_float(t) ? zn_kb_float(b, t, 0) : zn_kb_int(b, t, 0);
  if (v->raw && v->zx) fill = zn_lw_load(lw, v->zx, &first);
  return zn_kb_select(b, inside, x, fill);
}
