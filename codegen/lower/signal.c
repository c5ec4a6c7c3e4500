/* What depends on sizes that only the run knows: window functions, the mel filter bank, STFT by direct sums, grids of
 * AffineGrid, centred crops and pads. (Where sizes are constants, expansions replace most of these.) */
#include <assert.h>

#include "codegen/lower/lower.h"

static const double TAU = 6.283185307179586476925286766559;

static zn_kref f64(zn_lw *lw, double v) { return zn_kb_float(&lw->kb, ZN_F64, v); }
static zn_kref f64_of(zn_lw *lw, zn_expr e) { return zn_kb_cvt(&lw->kb, zn_lw_ix(lw, e), ZN_F64); }

static zn_kref to_out(zn_lw *lw, zn_kref k, zn_vid v) {
  const zn_dtype t = (zn_dtype)zn_lw_type(lw, v)->dtype, ct = zn_lw_ctype(t);
  return zn_lw_kdtype(lw, k) == ct ? k : zn_kb_cvt(&lw->kb, k, ct);
}

/* a + b cos(x) */
static zn_kref cosine(zn_lw *lw, double a, double c, zn_kref x) {
  zn_kb *b = &lw->kb;
  zn_kref by = f64(lw, c), p = zn_kb_bin(b, ZN_K_Mul, zn_kb_un(b, ZN_K_Cos, x), by);
  return zn_kb_bin(b, ZN_K_Add, p, f64(lw, a));
}

static zn_kref window_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  zn_kb *b = &lw->kb;
  const zn_node *node = zn_lw_node(lw, n);
  const zn_vid y = node->out[out];
  const zn_op op = node->op;
  const bool periodic = zn_node_int(node, "periodic") != 0;
  zn_expr size = zn_lw_dim(lw, y, 0);
  zn_kref len = f64_of(lw, periodic ? size : zn_ex_addi(lw->ex, size, -1));
  zn_kref turn = f64(lw, TAU), t = zn_kb_bin(b, ZN_K_Mul, f64_of(lw, idx[0]), turn);
  t = zn_kb_bin(b, ZN_K_Div, t, len);
  zn_kref w;
  if (op == ZN_OP_HannWindow) {
    w = cosine(lw, 0.5, -0.5, t);
  } else if (op == ZN_OP_HammingWindow) {
    w = cosine(lw, 25.0 / 46.0, -21.0 / 46.0, t);
  } else {
    zn_kref one = cosine(lw, 0, -0.5, t);
    zn_kref two = cosine(lw, 0.42, 0.08, zn_kb_bin(b, ZN_K_Mul, t, f64(lw, 2)));
    w = zn_kb_bin(b, ZN_K_Add, one, two);
  }
  zn_kref single = zn_kb_cmp(b, ZN_K_Eq, len, f64(lw, 0)), unit = f64(lw, 1);
  return to_out(lw, zn_kb_select(b, single, unit, w), y);
}
const zn_lower zn_lower_window = {window_point, NULL};

/* ---------------------------------------------------------------- mel filter bank */

static zn_kref scalar_f64(zn_lw *lw, zn_vid v) {
  zn_expr zero[ZN_MAX_RANK];
  for (int d = 0; d < ZN_MAX_RANK; d++) zero[d] = zn_ex_const(lw->ex, 0);
  zn_kref k = zn_lw_load(lw, v, zero);
  return zn_lw_kdtype(lw, k) == ZN_F64 ? k : zn_kb_cvt(&lw->kb, k, ZN_F64);
}

static zn_kref hz_to_mel(zn_lw *lw, zn_kref f) { /* 2595 log10(1 + f / 700) */
  zn_kb *b = &lw->kb;
  zn_kref r = zn_kb_bin(b, ZN_K_Div, f, f64(lw, 700));
  zn_kref l = zn_kb_un(b, ZN_K_Log, zn_kb_bin(b, ZN_K_Add, r, f64(lw, 1)));
  zn_kref l10 = zn_kb_bin(b, ZN_K_Div, l, f64(lw, 2.302585092994045684));
  return zn_kb_bin(b, ZN_K_Mul, l10, f64(lw, 2595));
}

typedef struct mel {
  zn_kref low, step, scale; /* mel of the lower edge, mels per point, (dft_length + 1) / sample_rate */
} mel;

/* Spectrogram bin of point k, as f64. */
static zn_kref mel_bin(zn_lw *lw, const mel *m, zn_expr k) {
  zn_kb *b = &lw->kb;
  zn_kref at = zn_kb_bin(b, ZN_K_Mul, f64_of(lw, k), m->step);
  at = zn_kb_bin(b, ZN_K_Add, at, m->low);
  at = zn_kb_bin(b, ZN_K_Div, at, f64(lw, 2595));
  zn_kref p = zn_kb_bin(b, ZN_K_Pow, f64(lw, 10), at);
  p = zn_kb_bin(b, ZN_K_Sub, p, f64(lw, 1));
  p = zn_kb_bin(b, ZN_K_Mul, p, f64(lw, 700));
  return zn_kb_un(b, ZN_K_Floor, zn_kb_bin(b, ZN_K_Mul, p, m->scale));
}

static zn_kref mel_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  zn_kb *b = &lw->kb;
  const zn_node *node = zn_lw_node(lw, n);
  const zn_vid y = node->out[out], len = node->in[1], rate = node->in[2], lo = node->in[3], hi = node->in[4];
  mel m;
  m.low = hz_to_mel(lw, scalar_f64(lw, lo));
  zn_kref top = hz_to_mel(lw, scalar_f64(lw, hi));
  zn_kref points = f64_of(lw, zn_ex_addi(lw->ex, zn_lw_dim(lw, y, 1), 2));
  m.step = zn_kb_bin(b, ZN_K_Div, zn_kb_bin(b, ZN_K_Sub, top, m.low), points);
  zn_kref unit = f64(lw, 1), l1 = zn_kb_bin(b, ZN_K_Add, scalar_f64(lw, len), unit);
  m.scale = zn_kb_bin(b, ZN_K_Div, l1, scalar_f64(lw, rate));
  zn_kref l = mel_bin(lw, &m, idx[1]), c = mel_bin(lw, &m, zn_ex_addi(lw->ex, idx[1], 1));
  zn_kref h = mel_bin(lw, &m, zn_ex_addi(lw->ex, idx[1], 2)), j = f64_of(lw, idx[0]);
  zn_kref zero = f64(lw, 0), one = f64(lw, 1);
  /* rising side l..c, then falling side c..h, which wins at c unless it is empty */
  zn_kref jl = zn_kb_bin(b, ZN_K_Sub, j, l), cl = zn_kb_bin(b, ZN_K_Sub, c, l);
  zn_kref up = zn_kb_bin(b, ZN_K_Div, jl, cl);
  zn_kref from = zn_kb_cmp(b, ZN_K_Ge, j, l), to = zn_kb_cmp(b, ZN_K_Le, j, c);
  zn_kref in_up = zn_kb_bin(b, ZN_K_And, from, to);
  zn_kref flat = zn_kb_cmp(b, ZN_K_Eq, c, l);
  up = zn_kb_select(b, flat, one, up);
  zn_kref w = zn_kb_select(b, in_up, up, zero);
  zn_kref hj = zn_kb_bin(b, ZN_K_Sub, h, j), hc = zn_kb_bin(b, ZN_K_Sub, h, c);
  zn_kref down = zn_kb_bin(b, ZN_K_Div, hj, hc);
  zn_kref after = zn_kb_cmp(b, ZN_K_Ge, j, c), before = zn_kb_cmp(b, ZN_K_Lt, j, h);
  zn_kref in_down = zn_kb_bin(b, ZN_K_And, after, before);
  return to_out(lw, zn_kb_select(b, in_down, down, w), y);
}
const zn_lower zn_lower_melweightmatrix = {mel_point, NULL};

/* ---------------------------------------------------------------- STFT */

static zn_status stft_kernel(zn_lw *lw, zn_nid n) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  const zn_node *node = zn_lw_node(lw, n);
  const zn_vid x = node->in[0], step = node->in[1], win = zn_node_in(node, 2), length = zn_node_in(node, 3);
  const zn_vid y = node->out[0];
  const zn_type ty = *zn_lw_type(lw, y), tx = *zn_lw_type(lw, x);
  const zn_dtype ct = zn_lw_ctype((zn_dtype)ty.dtype);
  const bool complex_in = tx.rank == 3 && zn_ex_is(ex, tx.dims[2], 2);
  zn_lw_kernel(lw, n, "stft");
  zn_expr vars[3], zero = zn_ex_const(ex, 0), at[3] = {0};
  zn_kref len_k = length ? zn_kb_cvt(b, zn_lw_load(lw, length, &zero), ZN_IDX) : 0;
  zn_kref hop_k = zn_kb_cvt(b, zn_lw_load(lw, step, &zero), ZN_IDX);
  zn_expr len = length ? zn_lw_as_expr(lw, len_k, zn_ex_addi(ex, tx.dims[1], 1)) : zn_lw_dim(lw, win, 0);
  zn_expr hop = zn_lw_as_expr(lw, hop_k, zn_ex_addi(ex, tx.dims[1], 1));
  zn_lw_grid(lw, 3, ty.dims, vars);
  zn_kref re = zn_kb_var(b, zn_kb_float(b, ct, 0)), im = zn_kb_var(b, zn_kb_float(b, ct, 0));
  zn_expr t = zn_lw_for(lw, len, ZN_FOR_SERIAL, 0);
  zn_kref turn = zn_lw_ix(lw, zn_ex_mul(ex, vars[2], t)), nk = zn_lw_ix(lw, len);
  turn = zn_kb_cvt(b, zn_kb_bin(b, ZN_K_Rem, turn, nk), ZN_F64);
  zn_kref angle = zn_kb_bin(b, ZN_K_Mul, turn, f64(lw, TAU));
  angle = zn_kb_bin(b, ZN_K_Div, angle, zn_kb_cvt(b, nk, ZN_F64));
  zn_kref c = zn_kb_cvt(b, zn_kb_un(b, ZN_K_Cos, angle), ct);
  zn_kref s = zn_kb_cvt(b, zn_kb_un(b, ZN_K_Sin, angle), ct);
  at[0] = vars[0];
  at[1] = zn_ex_add(ex, zn_ex_mul(ex, vars[1], hop), t);
  at[2] = zero;
  zn_kref p = zn_lw_load(lw, x, at), q = 0;
  at[2] = zn_ex_const(ex, 1);
  if (complex_in) q = zn_lw_load(lw, x, at);
  if (win) {
    zn_kref w = zn_lw_load(lw, win, &t);
    p = zn_kb_bin(b, ZN_K_Mul, p, w);
    if (q) q = zn_kb_bin(b, ZN_K_Mul, q, w);
  }
  /* (p + iq)(c - is) */
  zn_kref r = zn_kb_fma(b, p, c, zn_kb_get(b, re));
  if (q) r = zn_kb_fma(b, q, s, r);
  zn_kb_set(b, re, r);
  zn_kref minus = zn_kb_un(b, ZN_K_Neg, s);
  zn_kref i = zn_kb_fma(b, p, minus, zn_kb_get(b, im));
  if (q) i = zn_kb_fma(b, q, c, i);
  zn_kb_set(b, im, i);
  zn_lw_end(lw);
  zn_expr to[4] = {vars[0], vars[1], vars[2], zero};
  zn_lw_emit(lw, y, to, zn_kb_get(b, re));
  to[3] = zn_ex_const(ex, 1);
  zn_lw_emit(lw, y, to, zn_kb_get(b, im));
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_stft = {NULL, stft_kernel};

/* ---------------------------------------------------------------- grids and crops */

/* Coordinate of position i of n in [-1, 1]. */
static zn_kref grid_coord(zn_lw *lw, zn_expr i, zn_expr n, bool corners) {
  zn_kb *b = &lw->kb;
  zn_kref one = f64(lw, 1);
  if (corners) {
    zn_expr last = zn_ex_max(lw->ex, zn_ex_addi(lw->ex, n, -1), zn_ex_const(lw->ex, 1));
    zn_kref by = f64_of(lw, last), q = zn_kb_bin(b, ZN_K_Div, f64_of(lw, zn_ex_muli(lw->ex, i, 2)), by);
    zn_kref v = zn_kb_bin(b, ZN_K_Sub, q, one);
    zn_kref unit = zn_kb_idx(b, 1), single = zn_kb_cmp(b, ZN_K_Eq, zn_lw_ix(lw, n), unit), zero = f64(lw, 0);
    return zn_kb_select(b, single, zero, v);
  }
  zn_expr odd = zn_ex_addi(lw->ex, zn_ex_muli(lw->ex, i, 2), 1);
  zn_kref by = f64_of(lw, n), q = zn_kb_bin(b, ZN_K_Div, f64_of(lw, odd), by);
  return zn_kb_bin(b, ZN_K_Sub, q, one);
}

static zn_kref affinegrid_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  zn_kb *b = &lw->kb;
  const zn_node *node = zn_lw_node(lw, n);
  const zn_vid theta = node->in[0], y = node->out[out];
  const bool corners = zn_node_int(node, "align_corners") != 0;
  const zn_type ty = *zn_lw_type(lw, y);
  const int r = ty.rank - 2;
  zn_expr at[3] = {idx[0], idx[r + 1], zn_ex_const(lw->ex, r)};
  zn_kref sum = zn_lw_load(lw, theta, at);
  const zn_dtype t = zn_lw_kdtype(lw, sum);
  for (int j = 0; j < r; j++) { /* the last spatial axis is x, the first coordinate */
    const int d = r - j;
    at[2] = zn_ex_const(lw->ex, j);
    zn_kref c = zn_kb_cvt(b, grid_coord(lw, idx[d], ty.dims[d], corners), t);
    sum = zn_kb_fma(b, zn_lw_load(lw, theta, at), c, sum);
  }
  return sum;
}
const zn_lower zn_lower_affinegrid = {affinegrid_point, NULL};

static zn_kref centercroppad_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  const zn_node *node = zn_lw_node(lw, n);
  const zn_vid x = node->in[0];
  const zn_type tx = *zn_lw_type(lw, x), ty = *zn_lw_type(lw, node->out[out]);
  zn_expr at[ZN_MAX_RANK], zero = zn_ex_const(ex, 0);
  zn_kref inside = zn_kb_int(b, ZN_BOOL, 1);
  bool empty = false; /* may be: then there is no element to read in place of what lies outside */
  for (int d = 0; d < tx.rank; d++) {
    int64_t lo, hi;
    at[d] = idx[d];
    if (tx.dims[d] == ty.dims[d]) continue;
    zn_ex_range(ex, tx.dims[d], &lo, &hi);
    empty |= lo < 1;
    zn_expr crop = zn_ex_max(ex, zn_ex_sub(ex, tx.dims[d], ty.dims[d]), zero);
    zn_expr pad = zn_ex_max(ex, zn_ex_sub(ex, ty.dims[d], tx.dims[d]), zero);
    zn_expr before = zn_ex_divi(ex, pad, 2), i = zn_ex_sub(ex, zn_ex_add(ex, idx[d], zn_ex_divi(ex, crop, 2)), before);
    zn_kref in = zn_lw_in_range(lw, i, tx.dims[d]);
    inside = zn_kb_bin(b, ZN_K_And, inside, in);
    at[d] = zn_ex_max(ex, zn_ex_min(ex, i, zn_ex_addi(ex, tx.dims[d], -1)), zero);
  }
  const zn_dtype t = zn_lw_ctype((zn_dtype)tx.dtype);
  zn_kref none = zn_lw_zero(lw, t);
  zn_kref v = empty ? zn_kb_var(b, none) : 0, e;
  if (empty) zn_kb_if(b, inside);
  e = zn_lw_load(lw, x, at);
  if (!empty) return zn_kb_select(b, inside, e, none);
  zn_kb_set(b, v, e);
  zn_kb_end(b);
  return zn_kb_get(b, v);
}
const zn_lower zn_lower_centercroppad = {centercroppad_point, NULL};
