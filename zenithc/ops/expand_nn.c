/* Composite operators of networks: losses, Dropout, gates, crops, grids, quantisation of
 * activations, block moves. */
#include "zenithc/ops/expand_util.h"

static zn_dtype dtype_of(const zn_rw *w, zn_vid v) { return (zn_dtype)zn_rw_type(w, v)->dtype; }

/* Inference form: the identity and a mask of ones. Training draws random numbers: left alone. */
ZN_EXPAND(dropout) {
  const zn_vid x = zn_rw_in(w, 0), ratio = zn_rw_in(w, 1), mode = zn_rw_in(w, 2);
  int64_t on = 0;
  uint32_t n;
  double p = 0.5;
  if (ratio && !zn_value_f64(w->g, ratio, &p)) p = 0.5;
  if (mode && p != 0 && (!zn_value_i64s(w->g, mode, &on, 1, &n) || on)) return ZN_OK;
  zn_rw_output(w, 0, zn_rw1(w, ZN_OP_Identity, x));
  if (zn_rw_wants(w, 1)) {
    const zn_vid shape = zn_rw1(w, ZN_OP_Shape, x);
    zn_rw_output(w, 1, zn_rw2(w, ZN_OP_Expand, zn_rw_num(w, ZN_BOOL, 1), shape));
  }
  return zn_rw_done(w);
}

ZN_EXPAND(swiglu) {
  const zn_vid a = zn_rw_in(w, 0), b = zn_rw_in(w, 1);
  const double alpha = zn_node_float(zn_rw_node(w), "alpha");
  const zn_nid s = zn_rw_raw(w, ZN_OP_Swish, &a, 1, 1);
  if (!s) return w->st;
  zn_node_set_float(w->g, s, "alpha", alpha);
  zn_rw_output(w, 0, zn_rw2(w, ZN_OP_Mul, zn_rw_infer(w, s), b));
  return zn_rw_done(w);
}

ZN_EXPAND(hardmax) {
  const zn_vid x = zn_rw_in(w, 0);
  const zn_type in = *zn_rw_type(w, x);
  const int64_t a = zn_node_int(zn_rw_node(w), "axis"), axis = a < 0 ? a + in.rank : a;
  if (in.rank < 1) return ZN_OK;
  const zn_nid am = zn_rw_raw(w, ZN_OP_ArgMax, &x, 1, 1);
  zn_node_set_int(w->g, am, "axis", axis);
  zn_node_set_int(w->g, am, "keepdims", 1);
  const zn_vid first = zn_rw_infer(w, am); /* the first of equal maxima */
  const zn_vid d = zn_rw_extent(w, x, (int)axis), one = zn_rw_num(w, ZN_I64, 1), zero = zn_rw_num(w, ZN_I64, 0);
  zn_vid pos = zn_rw3(w, ZN_OP_Range, zero, d, one);
  int64_t shape[ZN_MAX_RANK];
  uint32_t n = 0;
  shape[n++] = -1;
  for (int64_t k = axis + 1; k < in.rank; k++) shape[n++] = 1;
  if (n > 1) pos = zn_rw_reshape_to(w, pos, shape, n);
  zn_rw_output(w, 0, zn_rw_cast(w, zn_rw2(w, ZN_OP_Equal, pos, first), (zn_dtype)in.dtype));
  return zn_rw_done(w);
}

/* ---- losses ---- */

/* The loss of log probabilities `lp` at `target`, with the node's own reduction and ignore_index.
 */
static zn_vid nll(zn_rw *w, zn_vid lp, zn_vid target, zn_vid weight) {
  const zn_dtype t = dtype_of(w, lp), ti = dtype_of(w, target);
  const bool ignores = zn_node_has(zn_rw_node(w), "ignore_index");
  const char *red = zn_node_str(zn_rw_node(w), "reduction");
  const int64_t ignore = ignores ? zn_node_int(zn_rw_node(w), "ignore_index") : 0, one = 1;
  zn_vid valid = 0, safe = target, wt = 0;
  if (ignores) {
    const zn_vid key = zn_rw_cast(w, zn_rw_num(w, ZN_I64, (double)ignore), ti);
    valid = zn_rw1(w, ZN_OP_Not, zn_rw2(w, ZN_OP_Equal, target, key));
    safe = zn_rw3(w, ZN_OP_Where, valid, target, zn_rw_num(w, ti, 0));
  }
  const zn_vid in[2] = {lp, zn_rw_unsqueeze(w, safe, &one, 1)};
  const zn_vid picked = zn_rw_attr_int(w, ZN_OP_GatherElements, in, 2, "axis", 1);
  zn_vid loss = zn_rw1(w, ZN_OP_Neg, zn_rw_squeeze(w, picked, &one, 1));
  if (weight) wt = zn_rw2(w, ZN_OP_Gather, weight, safe);
  if (ignores) {
    const zn_vid none = zn_rw_num(w, t, 0);
    wt = zn_rw3(w, ZN_OP_Where, valid, wt ? wt : zn_rw_num(w, t, 1), none);
  }
  if (wt) loss = zn_rw2(w, ZN_OP_Mul, loss, wt);
  /* a weight of zero leaves nothing, whatever stood there */
  if (ignores) loss = zn_rw3(w, ZN_OP_Where, valid, loss, zn_rw_num(w, t, 0));
  if (strcmp(red, "none") == 0) return loss;
  const bool mean = strcmp(red, "mean") == 0;
  const zn_vid sum =
      zn_rw_attr_int(w, mean && !wt ? ZN_OP_ReduceMean : ZN_OP_ReduceSum, &loss, 1, "keepdims", 0);
  if (!mean || !wt) return sum;
  return zn_rw2(w, ZN_OP_Div, sum, zn_rw_attr_int(w, ZN_OP_ReduceSum, &wt, 1, "keepdims", 0));
}

ZN_EXPAND(negativeloglikelihoodloss) {
  zn_rw_output(w, 0, nll(w, zn_rw_in(w, 0), zn_rw_in(w, 1), zn_rw_in(w, 2)));
  return zn_rw_done(w);
}

ZN_EXPAND(softmaxcrossentropyloss) {
  const zn_vid x = zn_rw_in(w, 0);
  const zn_vid lp = zn_rw_attr_int(w, ZN_OP_LogSoftmax, &x, 1, "axis", 1);
  zn_rw_output(w, 0, nll(w, lp, zn_rw_in(w, 1), zn_rw_in(w, 2)));
  zn_rw_output(w, 1, lp);
  return zn_rw_done(w);
}

/* ---- quantisation ---- */

/* scale = (max(x, 0) - min(x, 0)) / 255; zero = saturate(round(-min / scale)). */
ZN_EXPAND(dynamicquantizelinear) {
  const zn_vid x = zn_rw_in(w, 0), zero = zn_rw_num(w, ZN_F32, 0), top = zn_rw_num(w, ZN_F32, 255);
  const zn_vid hi =
      zn_rw2(w, ZN_OP_Max, zn_rw_attr_int(w, ZN_OP_ReduceMax, &x, 1, "keepdims", 0), zero);
  const zn_vid lo =
      zn_rw2(w, ZN_OP_Min, zn_rw_attr_int(w, ZN_OP_ReduceMin, &x, 1, "keepdims", 0), zero);
  const zn_vid scale = zn_rw2(w, ZN_OP_Div, zn_rw2(w, ZN_OP_Sub, hi, lo), top);
  zn_vid zp = zn_rw2(w, ZN_OP_Div, zn_rw2(w, ZN_OP_Sub, zero, lo), scale);
  zp = zn_rw1(w, ZN_OP_Round, zn_rw3(w, ZN_OP_Clip, zp, zero, top));
  const zn_vid zp8 = zn_rw_cast(w, zp, ZN_U8);
  zn_rw_output(w, 0, zn_rw3(w, ZN_OP_QuantizeLinear, x, scale, zp8));
  zn_rw_output(w, 1, scale);
  zn_rw_output(w, 2, zp8);
  return zn_rw_done(w);
}

/* ---- blocks ---- */

ZN_EXPAND(depthtospace) {
  const zn_vid x = zn_rw_in(w, 0);
  const zn_type in = *zn_rw_type(w, x), out = *zn_rw_type(w, zn_rw_node(w)->out[0]);
  const int64_t b = zn_node_int(zn_rw_node(w), "blocksize");
  const bool dcr = strcmp(zn_node_str(zn_rw_node(w), "mode"), "CRD") != 0;
  zn_exprs *ex = w->g->ex;
  if (in.rank != 4) return ZN_OK;
  const zn_expr kb = zn_ex_const(ex, b), c = out.dims[1];
  const zn_expr split_dcr[6] = {in.dims[0], kb, kb, c, in.dims[2], in.dims[3]};
  const zn_expr split_crd[6] = {in.dims[0], c, kb, kb, in.dims[2], in.dims[3]};
  const int64_t perm_dcr[6] = {0, 3, 4, 1, 5, 2}, perm_crd[6] = {0, 1, 4, 2, 5, 3};
  const zn_vid split = zn_rw_reshape(w, x, dcr ? split_dcr : split_crd, 6, x);
  if (!split) return w->st;
  const zn_vid moved = zn_rw_transpose(w, split, dcr ? perm_dcr : perm_crd, 6);
  const zn_vid y = zn_rw_reshape(w, moved, out.dims, 4, x);
  if (!y) return w->st;
  zn_rw_output(w, 0, y);
  return zn_rw_done(w);
}

ZN_EXPAND(spacetodepth) {
  const zn_vid x = zn_rw_in(w, 0);
  const zn_type in = *zn_rw_type(w, x), out = *zn_rw_type(w, zn_rw_node(w)->out[0]);
  const int64_t b = zn_node_int(zn_rw_node(w), "blocksize");
  const bool dcr = strcmp(zn_node_str(zn_rw_node(w), "mode"), "CRD") != 0;
  zn_exprs *ex = w->g->ex;
  if (in.rank != 4) return ZN_OK;
  const zn_expr kb = zn_ex_const(ex, b);
  const zn_expr split[6] = {in.dims[0], in.dims[1], out.dims[2], kb, out.dims[3], kb};
  const int64_t perm_dcr[6] = {0, 3, 5, 1, 2, 4}, perm_crd[6] = {0, 1, 3, 5, 2, 4};
  const zn_vid s = zn_rw_reshape(w, x, split, 6, x);
  if (!s) return w->st;
  const zn_vid y =
      zn_rw_reshape(w, zn_rw_transpose(w, s, dcr ? perm_dcr : perm_crd, 6), out.dims, 4, x);
  if (!y) return w->st;
  zn_rw_output(w, 0, y);
  return zn_rw_done(w);
}

/* Crop (left side rounded down), then pad (right side rounded up), where all extents are known. */
ZN_EXPAND(centercroppad) {
  zn_vid x = zn_rw_in(w, 0);
  const zn_type in = *zn_rw_type(w, x), out = *zn_rw_type(w, zn_rw_node(w)->out[0]);
  int64_t pads[2 * ZN_MAX_RANK] = {0};
  bool padded = false;
  if (in.rank < 1 || out.rank != in.rank) return ZN_OK;
  for (int d = 0; d < in.rank; d++) {
    int64_t a, b;
    if (in.dims[d] == out.dims[d]) continue;
    if (!zn_ex_is_const(w->g->ex, in.dims[d], &a) || !zn_ex_is_const(w->g->ex, out.dims[d], &b))
      return ZN_OK;
  }
  for (int d = 0; d < in.rank; d++) {
    int64_t a = 0, b = 0;
    if (in.dims[d] == out.dims[d]) continue;
    zn_ex_is_const(w->g->ex, in.dims[d], &a);
    zn_ex_is_const(w->g->ex, out.dims[d], &b);
    if (a > b) {
      x = zn_rw_slice(w, x, d, (a - b) / 2, (a - b) / 2 + b);
    } else {
      pads[d] = (b - a) / 2;
      pads[in.rank + d] = b - a - pads[d];
      padded = true;
    }
  }
  if (padded) x = zn_rw2(w, ZN_OP_Pad, x, zn_rw_ints(w, pads, 2 * (uint32_t)in.rank));
  zn_rw_output(w, 0, zn_rw1(w, ZN_OP_Identity, x));
  return zn_rw_done(w);
}

/* theta (N, r, r + 1) applied to the homogeneous positions of a constant grid. */
static zn_vid base_grid(zn_rw *w, const int64_t *ext, int r, zn_dtype t, bool corners) {
  int64_t dims[2] = {1, r + 1};
  for (int d = 0; d < r; d++) dims[0] *= ext[d];
  zn_htensor *h = ZN_NEW(w->g->arena, zn_htensor);
  *h = zn_htensor_new(w->g->arena, t, 2, dims);
  for (int64_t p = 0; p < dims[0]; p++) {
    int64_t rest = p;
    for (int d = r - 1; d >= 0; d--) { /* the last axis is x, the first coordinate */
      const double n = (double)ext[d], i = (double)(rest % ext[d]);
      const double v = corners ? (n > 1 ? -1 + 2 * i / (n - 1) : 0) : -1 + (2 * i + 1) / n;
      zn_store_f64(t, h->data, (uint64_t)(p * (r + 1) + (r - 1 - d)), v);
      rest /= ext[d];
    }
    zn_store_f64(t, h->data, (uint64_t)(p * (r + 1) + r), 1);
  }
  return zn_graph_const(w->g, NULL, h);
}

ZN_EXPAND(affinegrid) {
  const zn_vid theta = zn_rw_in(w, 0);
  const zn_type out = *zn_rw_type(w, zn_rw_node(w)->out[0]);
  const bool corners = zn_node_int(zn_rw_node(w), "align_corners") != 0;
  const int64_t perm[3] = {0, 2, 1};
  int64_t ext[3], count = 1;
  const int r = out.rank - 2;
  if (r != 2 && r != 3) return ZN_OK;
  for (int d = 0; d < r; d++) {
    if (!zn_ex_is_const(w->g->ex, out.dims[1 + d], &ext[d]) || ext[d] < 1 || ext[d] > 1 << 20)
      return ZN_OK;
    count *= ext[d];
  }
  if (count > 1 << 24) return ZN_OK;
  const zn_vid base = base_grid(w, ext, r, dtype_of(w, theta), corners);
  const zn_vid y = zn_rw2(w, ZN_OP_MatMul, base, zn_rw_transpose(w, theta, perm, 3));
  const zn_vid grid = zn_rw_reshape(w, y, out.dims, out.rank, y);
  if (!grid) return w->st;
  zn_rw_output(w, 0, grid);
  return zn_rw_done(w);
}
