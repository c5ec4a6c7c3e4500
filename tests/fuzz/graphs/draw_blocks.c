/* Pieces of networks, drawn as exporters write them, so that the patterns that fusion, folding and layout care about
 * occur: attention from single operators, a gated unit, a separable convolution, a residual, normalisation by hand. */
#include "tests/fuzz/graphs/fuzz.h"

static zn_vid unary(fz *f, zn_vid x) {
  static const zn_op ops[] = {ZN_OP_Relu, ZN_OP_Sigmoid,   ZN_OP_HardSwish,   ZN_OP_Gelu,
                              ZN_OP_Tanh, ZN_OP_LeakyRelu, ZN_OP_HardSigmoid, ZN_OP_Mish};
  return fz_node1(f, ops[fz_below(f, 8)], x, 0);
}

static zn_vid weight(fz *f, zn_dtype t, int rank, const int64_t *dims) {
  return fz_const(f, t, rank, dims, -1, 1);
}

static zn_vid transpose(fz *f, zn_vid x, const int64_t *perm, uint32_t n) {
  fz_attrs at = {.n = 0};
  fz_set_is(f, &at, "perm", perm, n);
  return x ? fz_node(f, ZN_OP_Transpose, &x, 1, 1, &at) : 0;
}

static zn_vid softmax(fz *f, zn_vid x) {
  fz_attrs at = {.n = 0};
  fz_set_i(&at, "axis", -1);
  return x ? fz_node(f, ZN_OP_Softmax, &x, 1, 1, &at) : 0;
}

/* softmax(q k^T / c [+ mask]) v over [b, s, d], with one or more heads */
static bool attention(fz *f) {
  zn_expr dims[3] = {fz_dim(f), fz_dim(f), zn_ex_const(f->g->ex, 0)};
  int64_t heads = fz_range(f, 1, 3), d = fz_range(f, 1, 5), w[2] = {heads * d, heads * d},
          shape[4] = {0, 0, heads, d};
  dims[2] = zn_ex_const(f->g->ex, w[0]);
  zn_vid x = fz_pick(f, ZN_F32, 3), qkv[3];
  int64_t have[ZN_MAX_RANK];
  if (x && zn_ex_is_const(f->g->ex, fz_type(f, x)->dims[2], &have[0]) && have[0] > 0) {
    w[0] = have[0];
  } else {
    x = fz_leaf(f, ZN_F32, 3, dims);
  }
  if (!x) return false;
  for (int i = 0; i < 3; i++) {
    zn_vid p = fz_node1(f, ZN_OP_MatMul, x, weight(f, ZN_F32, 2, w));
    if (fz_chance(f, 50)) p = fz_node1(f, ZN_OP_Add, p, weight(f, ZN_F32, 1, &w[1]));
    zn_vid in[2] = {p, fz_i64s(f, ZN_I64, shape, 4)};
    p = p ? fz_node(f, ZN_OP_Reshape, in, 2, 1, NULL) : 0;
    qkv[i] = transpose(f, p, i == 1 ? (int64_t[]){0, 2, 3, 1} : (int64_t[]){0, 2, 1, 3}, 4);
    if (!qkv[i]) return false;
  }
  zn_vid s = fz_node1(f, ZN_OP_MatMul, qkv[0], qkv[1]);
  if (fz_chance(f, 70))
    s = fz_node1(f, fz_chance(f, 50) ? ZN_OP_Mul : ZN_OP_Div, s, fz_scalar(f, ZN_F32, 1.5));
  if (s && fz_chance(f, 40))
    s = fz_node1(f, ZN_OP_Add, s, fz_exact(f, ZN_F32, 2, &fz_type(f, s)->dims[2]));
  zn_vid o = fz_node1(f, ZN_OP_MatMul, softmax(f, s), qkv[2]);
  o = transpose(f, o, (int64_t[]){0, 2, 1, 3}, 4);
  zn_vid in[2] = {o, fz_i64s(f, ZN_I64, (int64_t[]){0, 0, -1}, 3)};
  return o && fz_node(f, ZN_OP_Reshape, in, 2, 1, NULL);
}

/* a MLP, gated or not, with a residual */
static bool mlp(fz *f) {
  int64_t d = fz_range(f, 2, 9), h = fz_range(f, 2, 17);
  zn_expr dims[3] = {fz_dim(f), fz_dim(f), zn_ex_const(f->g->ex, d)};
  zn_vid x = fz_exact(f, ZN_F32, 3, dims);
  zn_vid up = fz_node1(f, ZN_OP_MatMul, x, weight(f, ZN_F32, 2, (int64_t[]){d, h}));
  zn_vid y = unary(f, up);
  if (fz_chance(f, 50))
    y = fz_node1(f, ZN_OP_Mul, y,
                 fz_node1(f, ZN_OP_MatMul, x, weight(f, ZN_F32, 2, (int64_t[]){d, h})));
  y = fz_node1(f, ZN_OP_MatMul, y, weight(f, ZN_F32, 2, (int64_t[]){h, d}));
  return y && fz_node1(f, ZN_OP_Add, fz_chance(f, 50) ? x : y, fz_chance(f, 50) ? y : x);
}

/* Padding, now and then of a side alone or of more than the kernel asks for; dilations; groups where the channels divide. */
static zn_vid conv(fz *f, zn_vid x, int64_t out, int64_t k, int64_t stride, bool depthwise) {
  int64_t in, w[4] = {out, 0, k, k}, p = k / 2, d = k > 1 && fz_chance(f, 15) ? 2 : 1, groups = 1;
  if (!x || !zn_ex_is_const(f->g->ex, fz_type(f, x)->dims[1], &in) || in < 1) return 0;
  if (depthwise) w[0] = in;
  else if (fz_chance(f, 15) && in % 2 == 0 && out % 2 == 0) groups = in % 4 || out % 4 ? 2 : 4;
  w[1] = depthwise ? 1 : in / groups;
  fz_attrs at = {.n = 0};
  if (depthwise || groups > 1) fz_set_i(&at, "group", depthwise ? in : groups);
  int64_t q = stride > 1 && fz_chance(f, 25) ? 0 : p * d; /* sizes stay where a residual may follow */
  int64_t left = fz_chance(f, 90) ? q : q + 1, right = p == 0 || fz_chance(f, 90) ? p * d : p * d - 1;
  fz_set_is(f, &at, "pads", (int64_t[]){q, left, p * d, right}, 4);
  if (d > 1) fz_set_is(f, &at, "dilations", (int64_t[]){d, d}, 2);
  fz_set_is(f, &at, "strides", (int64_t[]){stride, stride}, 2);
  zn_vid v[3] = {x, weight(f, ZN_F32, 4, w)};
  if (fz_chance(f, 60)) v[2] = weight(f, ZN_F32, 1, w);
  return fz_node(f, ZN_OP_Conv, v, v[2] ? 3 : 2, 1, &at);
}

static zn_vid norm(fz *f, zn_vid x) {
  int64_t c;
  if (!x || !zn_ex_is_const(f->g->ex, fz_type(f, x)->dims[1], &c)) return 0;
  zn_vid in[5] = {x, weight(f, ZN_F32, 1, &c), weight(f, ZN_F32, 1, &c), weight(f, ZN_F32, 1, &c),
                  fz_const(f, ZN_F32, 1, &c, 0.2, 2)};
  return fz_node(f, ZN_OP_BatchNormalization, in, 5, 1, NULL);
}

/* conv, norm, activation; separable or not; a residual where shapes allow */
static bool convs(fz *f) {
  static const int64_t channels[] = {8, 8, 16, 16, 24, 32, 40, 12, 20, 7, 9, 17, 3, 1}; /* whole blocks and others */
  zn_expr dims[4] = {fz_dim(f), zn_ex_const(f->g->ex, channels[fz_below(f, 14)]),
                     zn_ex_const(f->g->ex, fz_range(f, 3, 12)),
                     f->dynamic ? fz_dim(f) : zn_ex_const(f->g->ex, fz_range(f, 3, 20))};
  zn_vid x = fz_pick(f, ZN_F32, 4);
  if (!x || fz_chance(f, 30)) x = fz_leaf(f, ZN_F32, 4, dims);
  if (!x) return false;
  int64_t c;
  if (!zn_ex_is_const(f->g->ex, fz_type(f, x)->dims[1], &c)) return false;
  int64_t out = fz_chance(f, 50) ? c : channels[fz_below(f, 14)];
  bool residual = out == c && fz_chance(f, 60);
  zn_vid y = conv(f, x, out, fz_chance(f, 50) ? 3 : 1, residual || fz_chance(f, 70) ? 1 : 2, false);
  if (fz_chance(f, 50)) y = norm(f, y);
  if (fz_chance(f, 70)) y = y ? unary(f, y) : 0;
  if (fz_chance(f, 50)) y = conv(f, y, 0, 3, 1, true);
  if (fz_chance(f, 40)) y = conv(f, y, out, 1, 1, false);
  if (residual) y = y ? fz_node1(f, ZN_OP_Add, y, x) : 0;
  if (y && fz_chance(f, 40)) { /* squeeze and excite */
    zn_vid s = conv(f, fz_node1(f, ZN_OP_GlobalAveragePool, y, 0), out, 1, 1, false);
    s = s ? fz_node1(f, ZN_OP_Sigmoid, s, 0) : 0;
    y = s ? fz_node1(f, ZN_OP_Mul, y, s) : 0;
  }
  return y && unary(f, y);
}

static zn_vid mean(fz *f, zn_vid x) {
  zn_vid in[2] = {x, fz_i64s(f, ZN_I64, (int64_t[]){-1}, 1)};
  return x ? fz_node(f, ZN_OP_ReduceMean, in, 2, 1, NULL) : 0;
}

/* layer normalisation from single operators */
static bool norm_by_hand(fz *f) {
  zn_vid x = fz_some(f, ZN_F32, (int)fz_range(f, 2, 3));
  if (!x) return false;
  zn_vid d = fz_node1(f, ZN_OP_Sub, x, mean(f, x));
  zn_vid v = mean(f, fz_chance(f, 50) ? fz_node1(f, ZN_OP_Mul, d, d)
                                      : fz_node1(f, ZN_OP_Pow, d, fz_scalar(f, ZN_F32, 2)));
  v = fz_node1(f, ZN_OP_Sqrt, v ? fz_node1(f, ZN_OP_Add, v, fz_scalar(f, ZN_F32, 1e-3)) : 0, 0);
  zn_vid y = v ? fz_node1(f, ZN_OP_Div, d, v) : 0;
  return y && fz_node1(f, ZN_OP_Mul, y, fz_scalar(f, ZN_F32, 1.25));
}

/* Shape arithmetic as exporters write it: Shape, Gather, Mul, Concat, Reshape */
static bool shape_chain(fz *f) {
  zn_vid x = fz_some(f, f->main, (int)fz_range(f, 2, 4));
  if (!x) return false;
  zn_vid s = fz_node1(f, ZN_OP_Shape, x, 0);
  zn_vid first = s ? fz_node1(f, ZN_OP_Gather, s, fz_i64s(f, ZN_I64, (int64_t[]){0}, 1)) : 0;
  zn_vid in[2] = {first, fz_i64s(f, ZN_I64, (int64_t[]){-1}, 1)};
  fz_attrs at = {.n = 0};
  fz_set_i(&at, "axis", 0);
  zn_vid to = first ? fz_node(f, ZN_OP_Concat, in, 2, 1, &at) : 0;
  return to && fz_node1(f, ZN_OP_Reshape, x, to);
}

/* ---- quantised networks ---- */

static zn_vid quantise(fz *f, zn_vid x, zn_dtype t, zn_vid scale, zn_vid zero, bool back) {
  zn_vid in[3] = {x, scale, zero};
  (void)t;
  zn_vid q = x && scale && zero ? fz_node(f, ZN_OP_QuantizeLinear, in, 3, 1, NULL) : 0;
  in[0] = q;
  return q && back ? fz_node(f, ZN_OP_DequantizeLinear, in, 3, 1, NULL) : q;
}

/* A weight of 8 bits behind DequantizeLinear, with a scale per output channel (axis) or one for all. */
static zn_vid int8_weight(fz *f, int rank, const int64_t *dims, int axis) {
  fz_attrs at = {.n = 0};
  bool each = fz_chance(f, 60);
  zn_vid in[3] = {fz_const(f, ZN_I8, rank, dims, -127, 128),
                  fz_const(f, ZN_F32, each, &dims[axis], 0.002, 0.02), fz_const(f, ZN_I8, each, &dims[axis], 0, 1)};
  if (each) fz_set_i(&at, "axis", axis);
  return fz_node(f, ZN_OP_DequantizeLinear, in, fz_chance(f, 50) ? 3 : 2, 1, &at);
}

/* Conv or MatMul between QuantizeLinear and DequantizeLinear, as exporters write it; Relu, a residual, twice. */
static bool qdq(fz *f) {
  zn_dtype t = fz_chance(f, 60) ? ZN_U8 : ZN_I8;
  bool image = fz_chance(f, 65);
  static const int64_t channels[] = {8, 16, 16, 32, 4, 12, 7, 3, 1};
  int64_t c = channels[fz_below(f, 9)], k = fz_chance(f, 50) ? 3 : 1;
  zn_expr dims[4] = {fz_dim(f), zn_ex_const(f->g->ex, c), zn_ex_const(f->g->ex, fz_range(f, 3, 9)),
                     zn_ex_const(f->g->ex, image ? fz_range(f, 3, 9) : c)};
  zn_vid x = fz_leaf(f, ZN_F32, image ? 4 : 2, image ? dims : &dims[2]), scale, zero, y;
  if (!x) return false;
  scale = fz_const(f, ZN_F32, 0, NULL, 0.01, 0.05);
  zero = fz_scalar(f, t, t == ZN_U8 ? (double)fz_range(f, 0, 200) : (double)fz_range(f, -20, 20));
  x = quantise(f, x, t, scale, zero, true);
  for (uint32_t layers = 1 + fz_below(f, 2); x && layers; layers--) {
    bool depthwise = image && fz_chance(f, 25);
    int64_t w[4] = {c, depthwise ? 1 : c, k, k}, p = k / 2;
    fz_attrs at = {.n = 0};
    if (depthwise) fz_set_i(&at, "group", c);
    if (image) fz_set_is(f, &at, "pads", (int64_t[]){p, p, p, p}, 4);
    zn_vid in[3] = {x, int8_weight(f, image ? 4 : 2, w, image ? 0 : 1), 0};
    if (image && fz_chance(f, 50)) in[2] = fz_const(f, ZN_F32, 1, &c, -1, 1);
    y = in[1] ? fz_node(f, image ? ZN_OP_Conv : ZN_OP_MatMul, in, in[2] ? 3 : 2, 1, &at) : 0;
    if (y && fz_chance(f, 60)) y = fz_node1(f, ZN_OP_Relu, y, 0);
    if (y && fz_chance(f, 35)) y = fz_node1(f, ZN_OP_Add, y, x);
    scale = fz_const(f, ZN_F32, 0, NULL, 0.02, 0.2);
    zero = fz_scalar(f, t, t == ZN_U8 ? (double)fz_range(f, 0, 200) : 0);
    x = quantise(f, y, t, scale, zero, layers > 1 || fz_chance(f, 40));
  }
  return x != 0;
}

bool fz_draw_block(fz *f) {
  if (f->g->parent) return false;
  switch (fz_below(f, 8)) {
    case 7: return qdq(f);
    case 0: return attention(f);
    case 1: return mlp(f);
    case 2:
    case 3: return convs(f);
    case 4: return norm_by_hand(f);
    default: return shape_chain(f);
  }
}
