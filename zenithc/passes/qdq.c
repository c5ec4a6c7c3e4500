/* Quantised models as exporters write them, DequantizeLinear -> operator -> QuantizeLinear, in integers:
 *   product   Conv, MatMul and Gemm of two dequantised 8-bit operands, the second one constant, become ConvInteger or
 *             MatMulInteger, whose sum is exact, and one multiplication and addition in double precision, rounded once;
 *   sink      DequantizeLinear moves behind what only moves elements or takes their maximum;
 *   cancel    QuantizeLinear of a DequantizeLinear with the same scale is nothing.
 * docs/NUMERICS.md says what equals what. Dequantised constants that no product took become constants. */
#include "zenithc/eval/eval.h"
#include "zenithc/passes/pass.h"

typedef struct dequant { /* x of a DequantizeLinear per tensor or per axis */
  zn_vid x, zero;
  const zn_htensor *scale;
  int64_t axis; /* -1: per tensor */
} dequant;

static const zn_htensor *constant(const zn_graph *g, zn_vid v) {
  return v && !g->vals[v].is_input && g->vals[v].cst && g->vals[v].cst->data ? g->vals[v].cst : NULL;
}

static bool is_byte(const zn_graph *g, zn_vid v) {
  return g->vals[v].type.kind == ZN_V_TENSOR && (g->vals[v].type.dtype == ZN_U8 || g->vals[v].type.dtype == ZN_I8);
}

/* A DequantizeLinear with constant scale and zero point, from v. */
static bool read_dequant(const zn_graph *g, zn_vid v, dequant *d) {
  if (!v || !g->vals[v].def || g->vals[v].type.dtype != ZN_F32) return false;
  const zn_node *n = &g->nodes[g->vals[v].def];
  if (n->op != ZN_OP_DequantizeLinear || zn_node_int(n, "block_size")) return false;
  d->x = n->in[0];
  d->zero = zn_node_in(n, 2);
  d->scale = constant(g, n->in[1]);
  d->axis = -1;
  if (!d->scale || d->scale->dtype != ZN_F32 || (d->zero && !constant(g, d->zero)) || g->vals[d->x].type.rank < 0)
    return false;
  if (zn_htensor_count(d->scale) == 1) return d->scale->rank <= 1;
  d->axis = zn_node_int(n, "axis");
  if (d->axis < 0) d->axis += g->vals[d->x].type.rank;
  return d->scale->rank == 1;
}

static bool normal_scales(const zn_htensor *s) {
  for (uint64_t i = 0; i < zn_htensor_count(s); i++) {
    double v = zn_load_f64(s->dtype, s->data, i);
    if (!(v > 1e-30 && v < 1e30)) return false;
  }
  return true;
}

static bool all_zero(const zn_graph *g, zn_vid z) {
  const zn_htensor *h = constant(g, z);
  for (uint64_t i = 0; h && i < zn_htensor_count(h); i++)
    if (zn_load_i64(h->dtype, h->data, i) != 0) return false;
  return true;
}

/* ---------------------------------------------------------------- products */

typedef struct product {
  zn_nid n;
  dequant x, w;
  int64_t channels, channel_axis; /* of w */
  int y_axis;                     /* of the result */
  bool transpose;                 /* w is [channel, k] and must be [k, channel] */
  double alpha, beta;
  const double *bias;             /* per channel, or NULL */
  bool wide;                      /* sums may exceed 2^24 */
} product;

/* 255 * the largest sum of |w - zero| over a channel fits an i32. */
static bool sum_fits(zn_ctx *c, const zn_graph *g, product *p) {
  const zn_htensor *w = constant(g, p->w.x), *z = constant(g, p->w.zero);
  uint64_t inner = 1, count = zn_htensor_count(w);
  int64_t *sums = ZN_ARRAY(&c->tmp, int64_t, (uint64_t)p->channels);
  for (uint32_t d = (uint32_t)p->channel_axis + 1; d < w->rank; d++) inner *= (uint64_t)w->dims[d];
  for (uint64_t i = 0; i < count; i++) {
    uint64_t ch = i / inner % (uint64_t)p->channels;
    int64_t v = zn_load_i64(w->dtype, w->data, i);
    if (z) v -= zn_load_i64(z->dtype, z->data, zn_htensor_count(z) == 1 ? 0 : ch);
    sums[ch] += v < 0 ? -v : v;
  }
  for (int64_t i = 0; i < p->channels; i++) {
    if (sums[i] > INT32_MAX / 255) return false;
    p->wide |= sums[i] > (1 << 24) / 255;
  }
  return true;
}

/* A bias that is constant along everything but the result's last axis (axis 1 of a Conv): its value per channel in
 * double precision, from the integers where it is dequantised. */
static bool read_bias(zn_ctx *c, const zn_graph *g, zn_vid v, product *p) {
  double *out = ZN_ARRAY(&c->tmp, double, (uint64_t)p->channels);
  const zn_htensor *h = constant(g, v), *z = NULL;
  dequant d = {0};
  if (!h) {
    if (!read_dequant(g, v, &d) || !(h = constant(g, d.x))) return false;
    z = constant(g, d.zero);
  }
  uint64_t count = zn_htensor_count(h);
  if (count != 1 && (count != (uint64_t)p->channels || h->dims[h->rank - 1] != p->channels)) return false;
  for (uint64_t i = 0; i < (uint64_t)p->channels; i++) {
    uint64_t k = count == 1 ? 0 : i;
    out[i] = zn_is_float(h->dtype) ? zn_load_f64(h->dtype, h->data, k) : (double)zn_load_i64(h->dtype, h->data, k);
    if (!d.scale) continue;
    if (z) out[i] -= (double)zn_load_i64(z->dtype, z->data, zn_htensor_count(z) == 1 ? 0 : k);
    out[i] *= zn_load_f64(d.scale->dtype, d.scale->data, d.axis < 0 ? 0 : k);
  }
  p->bias = out;
  return true;
}

static bool read_product(zn_ctx *c, const zn_graph *g, zn_nid n, product *p) {
  const zn_node *nd = &g->nodes[n];
  *p = (product){.n = n, .alpha = 1, .beta = 1};
  if (nd->op != ZN_OP_Conv && nd->op != ZN_OP_MatMul && nd->op != ZN_OP_Gemm) return false;
  if (!read_dequant(g, nd->in[0], &p->x) || !read_dequant(g, nd->in[1], &p->w)) return false;
  const zn_htensor *w = constant(g, p->w.x);
  if (!w || !is_byte(g, p->x.x) || !is_byte(g, p->w.x) || p->x.axis >= 0 || w->rank < 2) return false;
  if (!normal_scales(p->x.scale) || !normal_scales(p->w.scale) || g->vals[p->x.x].type.rank < 2) return false;
  if (p->x.zero && zn_htensor_count(constant(g, p->x.zero)) != 1) return false;
  int rank = g->vals[nd->out[0]].type.rank;
  p->y_axis = nd->op == ZN_OP_Conv ? 1 : rank - 1;
  if (nd->op == ZN_OP_Gemm) {
    if (zn_node_int(nd, "transA")) return false;
    p->transpose = zn_node_int(nd, "transB") != 0;
    p->alpha = zn_node_float(nd, "alpha");
    p->beta = zn_node_float(nd, "beta");
  }
  p->channel_axis = nd->op == ZN_OP_Conv || p->transpose ? 0 : 1;
  if (nd->op != ZN_OP_Conv && w->rank != 2) return false;
  p->channels = w->dims[p->channel_axis];
  if (p->channels < 1 || rank < 2 || (p->w.axis >= 0 && p->w.axis != p->channel_axis)) return false;
  if (zn_node_in(nd, 2) && p->beta != 0 && !read_bias(c, g, nd->in[2], p)) return false;
  return sum_fits(c, g, p);
}

/* One value per channel of the result, or a scalar when all are equal. */
static zn_vid per_channel(zn_graph *g, const product *p, zn_dtype t, const double *v) {
  bool same = true;
  for (int64_t i = 1; i < p->channels; i++) same &= v[i] == v[0];
  if (same) return zn_graph_const_scalar(g, t, v[0]);
  int rank = g->vals[g->nodes[p->n].out[0]].type.rank;
  int64_t dims[ZN_MAX_RANK];
  for (int d = p->y_axis; d < rank; d++) dims[d - p->y_axis] = d == p->y_axis ? p->channels : 1;
  zn_htensor *h = ZN_NEW(g->arena, zn_htensor);
  *h = zn_htensor_new(g->arena, t, (uint32_t)(rank - p->y_axis), dims);
  for (int64_t i = 0; i < p->channels; i++) zn_store_f64(t, h->data, (uint64_t)i, v[i]);
  return zn_graph_const(g, NULL, h);
}

static zn_vid transposed(zn_graph *g, const zn_htensor *w) {
  const int64_t dims[2] = {w->dims[1], w->dims[0]};
  zn_htensor *t = ZN_NEW(g->arena, zn_htensor);
  *t = zn_htensor_new(g->arena, w->dtype, 2, dims);
  const uint8_t *from = w->data;
  uint8_t *to = t->data;
  for (int64_t i = 0; i < dims[0]; i++)
    for (int64_t j = 0; j < dims[1]; j++) to[i * dims[1] + j] = from[j * dims[0] + i];
  return zn_graph_const(g, NULL, t);
}

static zn_status add(zn_ctx *c, zn_graph *g, const product *p, zn_op op, const zn_vid *in, uint32_t num_in, zn_vid *out) {
  const char *name = zn_arena_printf(g->arena, "%s/%s", g->nodes[p->n].name, zn_op_name(op));
  zn_nid n = zn_graph_node_before(g, p->n, op, name, in, num_in, 1);
  if (op == ZN_OP_ConvInteger)
    for (uint32_t i = 0; i < g->nodes[p->n].num_attrs; i++) zn_node_set_attr(g, n, g->nodes[p->n].attrs[i]);
  *out = g->nodes[n].out[0];
  return zn_infer_node(c, g, n);
}

static zn_status cast(zn_ctx *c, zn_graph *g, const product *p, zn_dtype t, zn_vid *v) {
  const char *name = zn_arena_printf(g->arena, "%s/Cast", g->nodes[p->n].name);
  zn_nid n = zn_graph_node_before(g, p->n, ZN_OP_Cast, name, v, 1, 1);
  zn_node_set_int(g, n, "to", zn_dtypes[t].onnx);
  *v = g->nodes[n].out[0];
  return zn_infer_node(c, g, n);
}

/* Per channel or for all: the floats nearest to v, and those nearest to what they lack. */
static void per_channel_pair(zn_ctx *c, zn_graph *g, const product *p, const double *v, zn_vid out[2]) {
  double *low = ZN_ARRAY(&c->tmp, double, (uint64_t)p->channels);
  for (int64_t i = 0; i < p->channels; i++) low[i] = v[i] - (double)(float)v[i];
  out[0] = per_channel(g, p, ZN_F32, v);
  out[1] = per_channel(g, p, ZN_F32, low);
}

/* y = acc * scale + shift, rounded once to f32: in pairs of floats where those are vectors and doubles are not, in doubles,
 * or, where there are none, in floats. */
static zn_status rescale(zn_ctx *c, zn_graph *g, const product *p, const zn_caps *caps, const double *scale,
                         const double *shift, zn_vid acc, zn_vid *y) {
  if (caps && caps->f64_alone && caps->fma) {
    zn_vid in[5] = {acc};
    per_channel_pair(c, g, p, scale, in + 1);
    per_channel_pair(c, g, p, shift, in + 3);
    ZN_TRY(add(c, g, p, ZN_OP_Rescale, in, 5, y));
    zn_node_set_int(g, g->vals[*y].def, "wide", p->wide);
    return ZN_OK;
  }
  const zn_dtype t = !caps || caps->f64_native ? ZN_F64 : ZN_F32;
  ZN_TRY(cast(c, g, p, t, &acc));
  zn_vid pair[2] = {acc, per_channel(g, p, t, scale)};
  ZN_TRY(add(c, g, p, ZN_OP_Mul, pair, 2, &pair[0]));
  if (p->bias) {
    pair[1] = per_channel(g, p, t, shift);
    ZN_TRY(add(c, g, p, ZN_OP_Add, pair, 2, &pair[0]));
  }
  if (t != ZN_F32) ZN_TRY(cast(c, g, p, ZN_F32, &pair[0]));
  *y = pair[0];
  return ZN_OK;
}

static zn_status rewrite_product(zn_ctx *c, zn_graph *g, const product *p, const zn_caps *caps) {
  zn_vid y = g->nodes[p->n].out[0], acc = 0, result = 0;
  zn_vid w = p->transpose ? transposed(g, constant(g, p->w.x)) : p->w.x;
  zn_vid in[4] = {p->x.x, w, all_zero(g, p->x.zero) ? 0 : p->x.zero, all_zero(g, p->w.zero) ? 0 : p->w.zero};
  uint32_t num_in = in[3] ? 4 : in[2] ? 3 : 2;
  zn_op op = g->nodes[p->n].op == ZN_OP_Conv ? ZN_OP_ConvInteger : ZN_OP_MatMulInteger;
  ZN_TRY(add(c, g, p, op, in, num_in, &acc));
  double *scale = ZN_ARRAY(&c->tmp, double, (uint64_t)p->channels), *shift = ZN_ARRAY(&c->tmp, double, (uint64_t)p->channels);
  double sx = zn_load_f64(ZN_F32, p->x.scale->data, 0);
  for (uint64_t i = 0; i < (uint64_t)p->channels; i++) {
    scale[i] = p->alpha * sx * zn_load_f64(ZN_F32, p->w.scale->data, p->w.axis < 0 ? 0 : i);
    if (p->bias) shift[i] = p->beta * p->bias[i];
  }
  ZN_TRY(rescale(c, g, p, caps, scale, shift, acc, &result));
  zn_graph_replace(g, y, result);
  zn_graph_kill(g, p->n);
  return ZN_OK;
}

/* ---------------------------------------------------------------- moving DequantizeLinear */

static bool same_constant(const zn_htensor *a, const zn_htensor *b) {
  if (!a || !b) return a == b;
  return a->dtype == b->dtype && zn_htensor_count(a) == zn_htensor_count(b) &&
         !memcmp(a->data, b->data, zn_htensor_bytes(a));
}

/* Is what stands behind the operator the same whether its inputs are dequantised before or after? */
static bool commutes(const zn_graph *g, const zn_node *n) {
  switch (n->op) {
  case ZN_OP_Reshape: case ZN_OP_Flatten: case ZN_OP_Squeeze: case ZN_OP_Unsqueeze: case ZN_OP_Transpose:
  case ZN_OP_Concat: return true;
  case ZN_OP_MaxPool: {
    const zn_attr *pads = zn_node_attr(n, "pads"), *kernel = zn_node_attr(n, "kernel_shape");
    if (n->num_out > 1 && n->out[1]) return false;
    for (uint32_t i = 0; pads && i < pads->n; i++) /* no window is all padding */
      if (!kernel || pads->u.is[i] >= kernel->u.is[i % kernel->n]) return false;
    return !pads || !zn_node_int(n, "ceil_mode");
  }
  default: return false;
  }
  (void)g;
}

static zn_status sink(zn_ctx *c, zn_graph *g, zn_nid n, zn_pass_opts *o) {
  dequant first = {0}, d;
  if (!commutes(g, &g->nodes[n]) || g->nodes[n].num_captures) return ZN_OK;
  uint32_t data = g->nodes[n].op == ZN_OP_Concat ? g->nodes[n].num_in : 1;
  for (uint32_t i = 0; i < data; i++) {
    if (!read_dequant(g, g->nodes[n].in[i], &d) || !is_byte(g, d.x) || d.axis >= 0 || constant(g, d.x)) return ZN_OK;
    if (!normal_scales(d.scale)) return ZN_OK;
    if (i == 0) first = d;
    if (g->vals[d.x].type.dtype != g->vals[first.x].type.dtype || !same_constant(d.scale, first.scale) ||
        !same_constant(constant(g, d.zero), constant(g, first.zero)))
      return ZN_OK;
  }
  if (!zn_pass_may_rewrite(o)) return ZN_OK;
  zn_vid y = g->nodes[n].out[0], scale = g->nodes[g->vals[g->nodes[n].in[0]].def].in[1];
  zn_vid *in = ZN_ARRAY(&c->tmp, zn_vid, g->nodes[n].num_in);
  for (uint32_t i = 0; i < g->nodes[n].num_in; i++) {
    in[i] = g->nodes[n].in[i];
    if (i < data) in[i] = g->nodes[g->vals[in[i]].def].in[0];
  }
  zn_nid moved = zn_graph_node_before(g, n, g->nodes[n].op, g->nodes[n].name, in, g->nodes[n].num_in, 1);
  for (uint32_t i = 0; i < g->nodes[n].num_attrs; i++) zn_node_set_attr(g, moved, g->nodes[n].attrs[i]);
  ZN_TRY(zn_infer_node(c, g, moved));
  zn_vid args[3] = {g->nodes[moved].out[0], scale, first.zero};
  const char *name = zn_arena_printf(g->arena, "%s/DequantizeLinear", g->nodes[n].name);
  zn_nid dq = zn_graph_node_before(g, n, ZN_OP_DequantizeLinear, name, args, first.zero ? 3 : 2, 1);
  ZN_TRY(zn_infer_node(c, g, dq));
  zn_graph_replace(g, y, g->nodes[dq].out[0]);
  zn_graph_kill(g, n);
  return ZN_OK;
}

static void cancel(zn_graph *g, zn_nid n, zn_pass_opts *o) {
  const zn_node *q = &g->nodes[n];
  dequant d;
  if (q->op != ZN_OP_QuantizeLinear || !read_dequant(g, q->in[0], &d) || zn_node_int(q, "block_size")) return;
  if (d.axis >= 0 || !is_byte(g, d.x) || g->vals[q->out[0]].is_output) return;
  const zn_htensor *scale = constant(g, q->in[1]), *zq = constant(g, zn_node_in(q, 2)), *zd = constant(g, d.zero);
  if (g->vals[q->out[0]].type.dtype != g->vals[d.x].type.dtype || !same_constant(scale, d.scale)) return;
  if (!normal_scales(d.scale) || (zn_node_in(q, 2) && !zq)) return;
  if (!same_constant(zq, zd) && !(all_zero(g, zn_node_in(q, 2)) && all_zero(g, d.zero))) return;
  if (zn_node_int(q, "precision") || !zn_pass_may_rewrite(o)) return;
  zn_graph_replace(g, q->out[0], d.x);
  zn_graph_kill(g, n);
}

zn_status zn_pass_qdq(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  product p;
  for (uint32_t k = 0; k < g->num_order; k++) {
    const zn_nid n = g->order[k];
    const uint32_t before = g->num_order;
    if (g->nodes[n].dead) continue;
    if (read_product(c, g, n, &p) && zn_pass_may_rewrite(o))
      ZN_TRY(rewrite_product(c, g, &p, o->caps));
    else
      ZN_TRY(sink(c, g, n, o));
    if (!g->nodes[n].dead) cancel(g, n, o);
    k += g->num_order - before;
  }
  zn_graph_compact(g);
  ZN_TRY(zn_fold_dequantized(c, g));
  return zn_pass_bodies(c, g, o, zn_pass_qdq);
}
