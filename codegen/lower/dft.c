/* DFT as its definition, for lengths and axes that only the run knows, and for lengths whose matrix would be too large: every
 * result sums all samples, in double. */
#include "codegen/lower/real.h"
#include "zenithc/ops/axes.h"

typedef struct dft {
  const zn_node *node;
  int rank;
  zn_expr mask[ZN_MAX_RANK]; /* 1 at the transformed axis */
  zn_expr have, len, bins;   /* samples given, transform length, samples used */
  bool inverse, half, pairs; /* pairs: the input has imaginary parts */
} dft;

/* The transformed axis' part of per-axis expressions. */
static zn_expr along(zn_exprs *ex, const dft *f, const zn_expr *per_axis) {
  zn_expr sum = zn_ex_const(ex, 0);
  for (int d = 0; d + 1 < f->rank; d++) sum = zn_ex_add(ex, sum, zn_ex_mul(ex, f->mask[d], per_axis[d]));
  return sum;
}

static zn_status read_dft(zn_lw *lw, zn_nid n, dft *f) {
  zn_exprs *ex = lw->ex;
  const zn_node *node = f->node = zn_lw_node(lw, n);
  const zn_type *t = zn_lw_type(lw, node->in[0]);
  zn_vid axis = zn_node_in(node, 2), length = zn_node_in(node, 1);
  zn_axes a;
  f->rank = t->rank;
  f->inverse = zn_node_int(node, "inverse") != 0;
  f->half = zn_node_int(node, "onesided") != 0;
  for (int d = 0; d < f->rank; d++) f->mask[d] = zn_ex_const(ex, d == f->rank - 2);
  if (axis && !zn_axes_resolve(lw->g, axis, f->rank, &a))
    return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, node), "the axis has no scalar shape");
  if (axis) memcpy(f->mask, a.mask, sizeof f->mask);
  int64_t parts, given;
  uint32_t count;
  if (!zn_ex_is_const(ex, t->dims[f->rank - 1], &parts))
    return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, node), "give the last extent (1 or 2) with --shape");
  f->pairs = parts == 2;
  f->have = zn_ex_named(ex, along(ex, f, t->dims), 0);
  f->len = f->inverse && f->half ? zn_ex_muli(ex, zn_ex_addi(ex, f->have, -1), 2) : f->have;
  if (length && zn_value_i64s(lw->g, length, &given, 1, &count)) f->len = zn_ex_const(ex, given);
  else if (length && lw->g->vals[length].elems) f->len = lw->g->vals[length].elems[0];
  zn_expr all = f->inverse && f->half ? zn_ex_addi(ex, zn_ex_divi(ex, f->len, 2), 1) : f->len;
  f->bins = zn_ex_named(ex, zn_ex_max(ex, zn_ex_min(ex, f->have, all), zn_ex_const(ex, 0)), 0);
  return ZN_OK;
}

/* Sample j, part 0 or 1, on the line through idx. */
static zn_kref part(zn_lw *lw, const dft *f, const zn_expr *idx, zn_expr j, int which) {
  zn_exprs *ex = lw->ex;
  zn_expr at[ZN_MAX_RANK];
  for (int d = 0; d + 1 < f->rank; d++) {
    zn_expr kept = zn_ex_mul(ex, zn_ex_sub(ex, zn_ex_const(ex, 1), f->mask[d]), idx[d]);
    at[d] = zn_ex_add(ex, kept, zn_ex_mul(ex, f->mask[d], j));
  }
  at[f->rank - 1] = zn_ex_const(ex, which);
  return zn_r_load(lw, f->node->in[0], at, ZN_F64);
}

/* A one-sided spectrum stands for both sides: all but the first and the middle bin count twice. */
static zn_kref mirrored(zn_lw *lw, const dft *f, zn_kref j, zn_kref x) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_idx(b, 0), two = zn_kb_idx(b, 2), len = zn_lw_ix(lw, f->len);
  zn_kref first = zn_kb_cmp(b, ZN_K_Eq, j, zero), twice = zn_kb_bin(b, ZN_K_Mul, j, two);
  zn_kref once = zn_r_or(b, first, zn_kb_cmp(b, ZN_K_Eq, twice, len));
  return zn_kb_select(b, once, x, zn_r_add(b, x, x));
}

static zn_status dft_kernel(zn_lw *lw, zn_nid n) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  dft f = {0};
  ZN_TRY(read_dft(lw, n, &f));
  zn_vid y = f.node->out[0];
  const zn_type ty = *zn_lw_type(lw, y);
  zn_expr idx[ZN_MAX_RANK];
  zn_lw_kernel(lw, n, "dft");
  zn_lw_grid(lw, (uint32_t)f.rank - 1, ty.dims, idx);
  zn_kref k = zn_lw_ix(lw, along(ex, &f, idx)), len = zn_lw_ix(lw, f.len), zero = zn_kb_float(b, ZN_F64, 0);
  zn_kref turn = zn_r_cop(b, ZN_K_Div, 6.283185307179586476925, zn_kb_cvt(b, len, ZN_F64));
  zn_kref re = zn_kb_var(b, zero), im = zn_kb_var(b, zero);
  zn_expr j = zn_lw_for(lw, f.bins, ZN_FOR_SERIAL, 0);
  zn_kref jk = zn_lw_ix(lw, j), steps = zn_kb_bin(b, ZN_K_Rem, zn_kb_bin(b, ZN_K_Mul, jk, k), len);
  zn_kref angle = zn_r_mul(b, zn_kb_cvt(b, steps, ZN_F64), turn);
  zn_kref c = zn_kb_un(b, ZN_K_Cos, angle), s = zn_kb_un(b, ZN_K_Sin, angle);
  if (!f.inverse) s = zn_kb_un(b, ZN_K_Neg, s);
  zn_kref x = part(lw, &f, idx, j, 0), z = f.pairs ? part(lw, &f, idx, j, 1) : 0;
  zn_kref yr = zn_r_mul(b, x, c), yi = zn_r_mul(b, x, s);
  if (z) { /* (x + iz)(c + is) */
    yr = zn_r_sub(b, yr, zn_r_mul(b, z, s));
    yi = zn_r_add(b, yi, zn_r_mul(b, z, c));
  }
  if (f.inverse && f.half) yr = mirrored(lw, &f, jk, yr);
  zn_kref sum = zn_kb_get(b, re);
  zn_kb_set(b, re, zn_r_add(b, sum, yr));
  sum = zn_kb_get(b, im);
  zn_kb_set(b, im, zn_r_add(b, sum, yi));
  zn_lw_end(lw);
  zn_dtype t = zn_lw_ctype((zn_dtype)ty.dtype);
  zn_kref out[2] = {zn_kb_get(b, re), 0}, scale = zn_kb_cvt(b, len, ZN_F64);
  out[1] = zn_kb_get(b, im);
  for (int p = 0; p < (f.inverse && f.half ? 1 : 2); p++) {
    if (f.inverse) out[p] = zn_r_div(b, out[p], scale);
    idx[f.rank - 1] = zn_ex_const(ex, p);
    zn_lw_emit(lw, y, idx, zn_kb_cvt(b, out[p], t));
  }
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_dft = {NULL, dft_kernel};
