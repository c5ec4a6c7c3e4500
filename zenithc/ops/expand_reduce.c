/* Composite reductions, global pooling and normalisations in terms of ReduceSum, ReduceMean,
 * ReduceMax and maps. */
#include "zenithc/ops/expand_util.h"

static zn_dtype dtype_of(const zn_rw *w, zn_vid v) { return (zn_dtype)zn_rw_type(w, v)->dtype; }

/* A reduction with the node's own axes input and attributes. */
static zn_vid same_axes(zn_rw *w, zn_op op, zn_vid x, int64_t keep) {
  const zn_vid in[2] = {x, zn_rw_in(w, 1)};
  const zn_nid n = zn_rw_raw(w, op, in, in[1] ? 2 : 1, 1);
  if (!n) return 0;
  zn_node_set_int(w->g, n, "keepdims", keep);
  zn_node_set_int(w->g, n, "noop_with_empty_axes",
                  zn_node_int(zn_rw_node(w), "noop_with_empty_axes"));
  return zn_rw_infer(w, n);
}

static zn_vid same_reduce(zn_rw *w, zn_op op, zn_vid x) {
  return same_axes(w, op, x, zn_node_int(zn_rw_node(w), "keepdims"));
}

ZN_EXPAND(reducel1) {
  const zn_vid x = zn_rw_in(w, 0);
  zn_rw_output(w, 0, same_reduce(w, ZN_OP_ReduceSum, zn_rw1(w, ZN_OP_Abs, x)));
  return zn_rw_done(w);
}

ZN_EXPAND(reducel2) {
  zn_vid x = zn_rw_in(w, 0);
  const zn_dtype t = dtype_of(w, x);
  const bool whole = !zn_is_float(t);
  x = zn_rw_cast(w, x, whole ? ZN_U64 : zn_rw_wide(t)); /* squares are right modulo 2^64 whatever the sign */
  zn_vid s = same_reduce(w, ZN_OP_ReduceSum, zn_rw2(w, ZN_OP_Mul, x, x));
  if (whole) s = zn_rw_cast(w, s, ZN_F64);
  s = zn_rw1(w, ZN_OP_Sqrt, s);
  if (whole) s = zn_rw_cast(w, s, ZN_I64);
  zn_rw_output(w, 0, zn_rw_cast(w, s, t));
  return zn_rw_done(w);
}

ZN_EXPAND(reducesumsquare) {
  const zn_dtype t = dtype_of(w, zn_rw_in(w, 0));
  const zn_vid x = zn_rw_cast(w, zn_rw_in(w, 0), zn_rw_wide(t));
  zn_rw_output(w, 0, zn_rw_cast(w, same_reduce(w, ZN_OP_ReduceSum, zn_rw2(w, ZN_OP_Mul, x, x)), t));
  return zn_rw_done(w);
}

ZN_EXPAND(reducelogsum) {
  const zn_dtype t = dtype_of(w, zn_rw_in(w, 0));
  const zn_vid s = same_reduce(w, ZN_OP_ReduceSum, zn_rw_cast(w, zn_rw_in(w, 0), zn_rw_wide(t)));
  zn_rw_output(w, 0, zn_rw_cast(w, zn_rw1(w, ZN_OP_Log, s), t));
  return zn_rw_done(w);
}

/* max + log(sum(exp(x - max))), with an infinite max replaced by 0 so that inf - inf does not
 * arise. */
ZN_EXPAND(reducelogsumexp) {
  const zn_vid axes_in = zn_rw_in(w, 1);
  zn_vid x = zn_rw_in(w, 0);
  const zn_dtype t = dtype_of(w, x), wide = zn_rw_wide(t);
  const int rank = zn_rw_type(w, x)->rank;
  const bool keep = zn_node_int(zn_rw_node(w), "keepdims") != 0;
  int64_t axes[ZN_MAX_RANK];
  uint32_t n = 0;
  if (rank < 0) return ZN_OK;
  const bool late = axes_in && !zn_value_i64s(w->g, axes_in, axes, ZN_MAX_RANK, &n);
  if (!late && n == 0 && zn_node_int(zn_rw_node(w), "noop_with_empty_axes")) {
    zn_rw_output(w, 0, zn_rw1(w, ZN_OP_Identity, x)); /* log(exp(x)) */
    return zn_rw_done(w);
  }
  x = zn_rw_cast(w, x, wide);
  const zn_vid m = same_axes(w, ZN_OP_ReduceMax, x, 1);
  const zn_vid none = zn_rw_num(w, wide, 0), shift = zn_rw3(w, ZN_OP_Where, zn_rw1(w, ZN_OP_IsInf, m), none, m);
  const zn_vid e = zn_rw1(w, ZN_OP_Exp, zn_rw2(w, ZN_OP_Sub, x, shift));
  const zn_vid l = zn_rw1(w, ZN_OP_Log, same_axes(w, ZN_OP_ReduceSum, e, 1));
  zn_vid y = zn_rw2(w, ZN_OP_Add, l, shift);
  if (!keep && !late && n == 0) { /* no list: all of them */
    for (int d = 0; d < rank; d++) axes[n++] = d;
  }
  if (!keep && late) y = zn_rw2(w, ZN_OP_Squeeze, y, axes_in);
  else if (!keep) y = zn_rw_squeeze(w, y, axes, n);
  zn_rw_output(w, 0, zn_rw_cast(w, y, t));
  return zn_rw_done(w);
}

static uint32_t spatial_axes(const zn_rw *w, zn_vid x, int64_t *axes) {
  uint32_t n = 0;
  for (int d = 2; d < zn_rw_type(w, x)->rank; d++) axes[n++] = d;
  return n;
}

ZN_EXPAND(globalpool) {
  const zn_vid x = zn_rw_in(w, 0);
  const zn_op op = zn_rw_node(w)->op;
  int64_t axes[ZN_MAX_RANK];
  zn_vid y;
  if (zn_rw_type(w, x)->rank < 0) return ZN_OK;
  const uint32_t n = spatial_axes(w, x, axes);
  if (n == 0) {
    y = zn_rw1(w, op == ZN_OP_GlobalLpPool ? ZN_OP_Abs : ZN_OP_Identity, x);
  } else if (op == ZN_OP_GlobalLpPool) {
    const int64_t p = zn_node_int(zn_rw_node(w), "p");
    const zn_dtype t = dtype_of(w, x), wide = zn_rw_wide(t);
    const zn_vid z = zn_rw_cast(w, x, wide);
    zn_vid a = p == 2 ? zn_rw2(w, ZN_OP_Mul, z, z) : zn_rw1(w, ZN_OP_Abs, z);
    if (p > 2) a = zn_rw2(w, ZN_OP_Pow, a, zn_rw_num(w, wide, (double)p));
    y = zn_rw_reduce(w, ZN_OP_ReduceSum, a, axes, n, true);
    if (p == 2) y = zn_rw1(w, ZN_OP_Sqrt, y);
    if (p > 2) y = zn_rw2(w, ZN_OP_Pow, y, zn_rw_num(w, wide, 1.0 / (double)p));
    y = zn_rw_cast(w, y, t);
  } else {
    y = zn_rw_reduce(w, op == ZN_OP_GlobalMaxPool ? ZN_OP_ReduceMax : ZN_OP_ReduceMean, x, axes, n,
                     true);
  }
  zn_rw_output(w, 0, y);
  return zn_rw_done(w);
}

/* x - mean over axes, and the mean of its square (kept dims). Two passes: E[x^2] - E[x]^2 cancels.
 */
static zn_vid centred(zn_rw *w, zn_vid x, const int64_t *axes, uint32_t n, zn_vid *mean,
                      zn_vid *var) {
  *mean = zn_rw_reduce(w, ZN_OP_ReduceMean, x, axes, n, true);
  const zn_vid d = zn_rw2(w, ZN_OP_Sub, x, *mean);
  *var = zn_rw_reduce(w, ZN_OP_ReduceMean, zn_rw2(w, ZN_OP_Mul, d, d), axes, n, true);
  return d;
}

ZN_EXPAND(meanvariancenormalization) {
  const zn_dtype t = dtype_of(w, zn_rw_in(w, 0)), wide = zn_rw_wide(t); /* 1e-9 is no f16 number */
  const zn_vid x = zn_rw_cast(w, zn_rw_in(w, 0), wide);
  zn_vid mean, var;
  uint32_t n;
  const int64_t *axes = zn_node_ints(zn_rw_node(w), "axes", &n);
  const zn_vid d = centred(w, x, axes, n, &mean, &var);
  const zn_vid tiny = zn_rw_num(w, wide, 1e-9), s = zn_rw2(w, ZN_OP_Add, zn_rw1(w, ZN_OP_Sqrt, var), tiny);
  zn_rw_output(w, 0, zn_rw_cast(w, zn_rw2(w, ZN_OP_Div, d, s), t));
  return zn_rw_done(w);
}

ZN_EXPAND(lpnormalization) {
  const zn_dtype t = dtype_of(w, zn_rw_in(w, 0)), wide = zn_rw_wide(t);
  const zn_vid x = zn_rw_cast(w, zn_rw_in(w, 0), wide);
  const int64_t axis = zn_node_int(zn_rw_node(w), "axis"), p = zn_node_int(zn_rw_node(w), "p");
  zn_vid s;
  if (p == 1) {
    s = zn_rw_reduce(w, ZN_OP_ReduceSum, zn_rw1(w, ZN_OP_Abs, x), &axis, 1, true);
  } else {
    s = zn_rw1(w, ZN_OP_Sqrt,
               zn_rw_reduce(w, ZN_OP_ReduceSum, zn_rw2(w, ZN_OP_Mul, x, x), &axis, 1, true));
  }
  /* a zero norm means a zero vector: dividing it by 1 gives the zeros the specification asks for */
  const zn_vid zero = zn_rw2(w, ZN_OP_Equal, s, zn_rw_num(w, wide, 0));
  s = zn_rw3(w, ZN_OP_Where, zero, zn_rw_num(w, wide, 1), s);
  zn_rw_output(w, 0, zn_rw_cast(w, zn_rw2(w, ZN_OP_Div, x, s), t));
  return zn_rw_done(w);
}

/* x / (bias + alpha * mean of squares over `size` channels)^beta; the mean is an average pool along
 * the channel axis of [N, 1, C, rest] that counts its padding. */
ZN_EXPAND(lrn) {
  const zn_dtype t = dtype_of(w, zn_rw_in(w, 0)), wide = zn_rw_wide(t);
  const zn_type in = *zn_rw_type(w, zn_rw_in(w, 0));
  const zn_node *nd = zn_rw_node(w);
  const int64_t size = zn_node_int(nd, "size");
  const double alpha = zn_node_float(nd, "alpha"), beta = zn_node_float(nd, "beta");
  const double bias = zn_node_float(nd, "bias");
  if (in.rank < 2 || size < 1) return ZN_OK;
  const zn_vid x = zn_rw_cast(w, zn_rw_in(w, 0), wide);
  zn_exprs *ex = w->g->ex;
  zn_expr rest = zn_ex_const(ex, 1);
  for (int d = 2; d < in.rank; d++) rest = zn_ex_mul(ex, rest, in.dims[d]);
  const zn_expr flat[4] = {in.dims[0], zn_ex_const(ex, 1), in.dims[1], rest};
  const zn_vid sq = zn_rw_reshape(w, zn_rw2(w, ZN_OP_Mul, x, x), flat, 4, x);
  if (!sq) return w->st;
  const zn_nid pool = zn_rw_raw(w, ZN_OP_AveragePool, &sq, 1, 1);
  if (!pool) return w->st;
  const int64_t kernel[2] = {size, 1}, pads[4] = {(size - 1) / 2, 0, size / 2, 0};
  zn_node_set_ints(w->g, pool, "kernel_shape", kernel, 2);
  zn_node_set_ints(w->g, pool, "pads", pads, 4);
  zn_node_set_int(w->g, pool, "count_include_pad", 1);
  const zn_vid avg = zn_rw_reshape(w, zn_rw_infer(w, pool), in.dims, in.rank, x);
  zn_vid s = zn_rw2(w, ZN_OP_Mul, avg, zn_rw_num(w, wide, alpha));
  const zn_vid power = zn_rw_num(w, wide, beta);
  s = zn_rw2(w, ZN_OP_Pow, zn_rw2(w, ZN_OP_Add, s, zn_rw_num(w, wide, bias)), power);
  zn_rw_output(w, 0, zn_rw_cast(w, zn_rw2(w, ZN_OP_Div, x, s), t));
  return zn_rw_done(w);
}

/* [C] to [C, 1, ...] so that it broadcasts along axis 1 of a tensor of this rank. */
static zn_vid per_channel(zn_rw *w, zn_vid v, int rank, zn_dtype t) {
  int64_t dims[ZN_MAX_RANK] = {-1, 1, 1, 1, 1, 1, 1, 1};
  v = zn_rw_cast(w, v, t);
  return rank > 2 ? zn_rw_reshape_to(w, v, dims, (uint32_t)rank - 1) : v;
}

static zn_vid blend(zn_rw *w, zn_vid old, zn_vid now, double momentum, zn_dtype t) {
  const zn_vid a = zn_rw2(w, ZN_OP_Mul, old, zn_rw_num(w, t, momentum));
  const int64_t flat = -1;
  const zn_vid n = zn_rw_cast(w, zn_rw_reshape_to(w, now, &flat, 1), t);
  return zn_rw2(w, ZN_OP_Add, a, zn_rw2(w, ZN_OP_Mul, n, zn_rw_num(w, t, 1 - momentum)));
}

/* scale and shift of the inference form in double, when all four parameters are constants. */
static bool bn_constants(zn_rw *w, int rank, zn_dtype t, zn_vid *scale, zn_vid *shift) {
  const zn_node *nd = zn_rw_node(w);
  const double eps = zn_node_float(nd, "epsilon");
  const zn_htensor *p[4];
  for (uint32_t i = 0; i < 4; i++) {
    p[i] = w->g->vals[nd->in[1 + i]].cst;
    if (!p[i] || zn_htensor_count(p[i]) != zn_htensor_count(p[0])) return false;
  }
  const int64_t c = (int64_t)zn_htensor_count(p[0]);
  const int64_t dims[ZN_MAX_RANK] = {c, 1, 1, 1, 1, 1, 1, 1};
  zn_htensor *s = ZN_NEW(w->g->arena, zn_htensor), *b = ZN_NEW(w->g->arena, zn_htensor);
  *s = zn_htensor_new(w->g->arena, t, rank < 2 ? 1 : (uint32_t)rank - 1, dims);
  *b = zn_htensor_new(w->g->arena, t, rank < 2 ? 1 : (uint32_t)rank - 1, dims);
  for (uint64_t i = 0; i < (uint64_t)c; i++) {
    const double var = zn_load_f64(p[3]->dtype, p[3]->data, i) + eps;
    const double k = zn_load_f64(p[0]->dtype, p[0]->data, i) / __builtin_sqrt(var);
    zn_store_f64(t, s->data, i, k);
    zn_store_f64(t, b->data, i,
                 zn_load_f64(p[1]->dtype, p[1]->data, i) -
                     zn_load_f64(p[2]->dtype, p[2]->data, i) * k);
  }
  *scale = zn_graph_const(w->g, NULL, s);
  *shift = zn_graph_const(w->g, NULL, b);
  return true;
}

static zn_status bn_training(zn_rw *w, zn_vid x, int rank, zn_dtype t) {
  const zn_dtype tm = dtype_of(w, zn_rw_in(w, 3));
  const double eps = zn_node_float(zn_rw_node(w), "epsilon");
  const double momentum = zn_node_float(zn_rw_node(w), "momentum");
  int64_t axes[ZN_MAX_RANK];
  uint32_t n = 0;
  zn_vid mean, var;
  for (int d = 0; d < rank; d++) {
    if (d != 1) axes[n++] = d;
  }
  const zn_dtype wide = zn_rw_wide(t);
  const zn_vid d = centred(w, zn_rw_cast(w, x, wide), axes, n, &mean, &var);
  const zn_vid sd = zn_rw1(w, ZN_OP_Sqrt, zn_rw2(w, ZN_OP_Add, var, zn_rw_num(w, wide, eps)));
  const zn_vid scale = per_channel(w, zn_rw_in(w, 1), rank, wide);
  zn_vid y = zn_rw2(w, ZN_OP_Mul, zn_rw2(w, ZN_OP_Div, d, sd), scale);
  y = zn_rw2(w, ZN_OP_Add, y, per_channel(w, zn_rw_in(w, 2), rank, wide));
  zn_rw_output(w, 0, zn_rw_cast(w, y, t));
  if (zn_rw_wants(w, 1)) zn_rw_output(w, 1, blend(w, zn_rw_in(w, 3), mean, momentum, tm));
  if (zn_rw_wants(w, 2)) zn_rw_output(w, 2, blend(w, zn_rw_in(w, 4), var, momentum, tm));
  return zn_rw_done(w);
}


ZN_EXPAND(batchnormalization) {
  const zn_vid x = zn_rw_in(w, 0);
  const int rank = zn_rw_type(w, x)->rank;
  const zn_dtype t = dtype_of(w, x);
  zn_vid k, b;
  if (rank < 1) return ZN_OK;
  if (zn_node_int(zn_rw_node(w), "training_mode")) return bn_training(w, x, rank, t);
  const bool f64 = t == ZN_F64 || dtype_of(w, zn_rw_in(w, 1)) == ZN_F64 || dtype_of(w, zn_rw_in(w, 4)) == ZN_F64;
  const zn_dtype wide = f64 ? ZN_F64 : ZN_F32; /* the widest of the types, at least f32 */
  if (!bn_constants(w, rank, wide, &k, &b)) {
    const double eps = zn_node_float(zn_rw_node(w), "epsilon");
    zn_vid p[4];
    for (uint32_t i = 0; i < 4; i++) p[i] = zn_rw_cast(w, zn_rw_in(w, 1 + i), wide);
    const zn_vid sd = zn_rw1(w, ZN_OP_Sqrt, zn_rw2(w, ZN_OP_Add, p[3], zn_rw_num(w, wide, eps)));
    const zn_vid s = zn_rw2(w, ZN_OP_Div, p[0], sd);
    k = per_channel(w, s, rank, wide);
    b = per_channel(w, zn_rw2(w, ZN_OP_Sub, p[1], zn_rw2(w, ZN_OP_Mul, p[2], s)), rank, wide);
  }
  const zn_vid scaled = zn_rw2(w, ZN_OP_Mul, zn_rw_cast(w, x, wide), k);
  zn_rw_output(w, 0, zn_rw_cast(w, zn_rw2(w, ZN_OP_Add, scaled, b), t));
  return zn_rw_done(w);
}

ZN_EXPAND(groupnormalization) {
  const zn_vid x = zn_rw_in(w, 0);
  const zn_type in = *zn_rw_type(w, x);
  const zn_node *nd = zn_rw_node(w);
  const zn_dtype t = dtype_of(w, x);
  zn_dtype st = zn_dtype_from_onnx((int)zn_node_int(nd, "stash_type"));
  const double eps = zn_node_float(nd, "epsilon");
  const int64_t groups = zn_node_int(nd, "num_groups"), dims[3] = {0, groups, -1}, last = 2;
  zn_vid mean, var;
  if (in.rank < 2 || groups < 1) return ZN_OK;
  if (st == ZN_NONE) st = t;
  const zn_vid flat = zn_rw_reshape_to(w, zn_rw_cast(w, x, st), dims, 3);
  const zn_vid d = centred(w, flat, &last, 1, &mean, &var);
  const zn_vid sd = zn_rw1(w, ZN_OP_Sqrt, zn_rw2(w, ZN_OP_Add, var, zn_rw_num(w, st, eps)));
  const zn_vid norm = zn_rw_cast(w, zn_rw2(w, ZN_OP_Div, d, sd), t);
  zn_vid y = zn_rw_reshape(w, norm, in.dims, in.rank, x);
  if (!y) return w->st;
  y = zn_rw2(w, ZN_OP_Mul, y, per_channel(w, zn_rw_in(w, 1), in.rank, t));
  y = zn_rw2(w, ZN_OP_Add, y, per_channel(w, zn_rw_in(w, 2), in.rank, t));
  zn_rw_output(w, 0, y);
  return zn_rw_done(w);
}
