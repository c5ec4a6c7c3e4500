/* Derivatives of softmax, of normalisations and of Dropout. */
#include "zenithc/ops/grad.h"

static zn_vid mul(zn_grad *a, zn_vid x, zn_vid y) { return zn_rw2(&a->w, ZN_OP_Mul, x, y); }
static zn_vid sub(zn_grad *a, zn_vid x, zn_vid y) { return zn_rw2(&a->w, ZN_OP_Sub, x, y); }
static zn_dtype type_of(const zn_grad *a, zn_vid v) { return (zn_dtype)zn_grad_type(a, v)->dtype; }

void zn_grad_softmax(zn_grad *a) { /* y (dy - sum(y dy)) */
  const zn_vid y = zn_grad_out(a, 0), dy = zn_grad_of(a, 0);
  const int64_t axis = zn_node_int(zn_grad_node(a), "axis");
  const zn_vid sum = zn_rw_reduce(&a->w, ZN_OP_ReduceSum, mul(a, y, dy), &axis, 1, true);
  zn_grad_give(a, 0, mul(a, y, sub(a, dy, sum)));
}

void zn_grad_logsoftmax(zn_grad *a) { /* dy - e^y sum(dy) */
  const zn_vid y = zn_grad_out(a, 0), dy = zn_grad_of(a, 0);
  const int64_t axis = zn_node_int(zn_grad_node(a), "axis");
  const zn_vid sum = zn_rw_reduce(&a->w, ZN_OP_ReduceSum, dy, &axis, 1, true);
  zn_grad_give(a, 0, sub(a, dy, mul(a, zn_rw1(&a->w, ZN_OP_Exp, y), sum)));
}

typedef struct normal { /* y = (x - mean) / sqrt(variance + epsilon) over some axes, in a type wide enough */
  int64_t axes[ZN_MAX_RANK];
  uint32_t n;
  bool centred;
  zn_dtype t;
  zn_vid hat, inverse;
} normal;

static zn_vid mean(zn_grad *a, const normal *k, zn_vid v) {
  return zn_rw_reduce(&a->w, ZN_OP_ReduceMean, v, k->axes, k->n, true);
}

static void normalize(zn_grad *a, normal *k, zn_vid x) {
  zn_rw *w = &a->w;
  x = zn_rw_cast(w, x, k->t);
  if (k->centred) x = sub(a, x, mean(a, k, x));
  const zn_vid variance = mean(a, k, mul(a, x, x)), eps = zn_rw_num(w, k->t, zn_node_float(zn_grad_node(a), "epsilon"));
  k->inverse = zn_rw1(w, ZN_OP_Reciprocal, zn_rw1(w, ZN_OP_Sqrt, zn_rw2(w, ZN_OP_Add, variance, eps)));
  k->hat = mul(a, x, k->inverse);
}

/* From the adjoint of the normalised x to that of x. */
static zn_vid denormalize(zn_grad *a, const normal *k, zn_vid d) {
  zn_vid r = sub(a, d, mul(a, k->hat, mean(a, k, mul(a, d, k->hat))));
  if (k->centred) r = sub(a, r, mean(a, k, d));
  return mul(a, r, k->inverse);
}

void zn_grad_layernorm(zn_grad *a) {
  zn_rw *w = &a->w;
  const zn_node *n = zn_grad_node(a);
  const zn_vid x = zn_grad_in(a, 0);
  const int rank = zn_grad_type(a, x)->rank;
  const int64_t raw = zn_node_int(n, "axis"), axis = raw < 0 ? raw + rank : raw;
  if (zn_grad_of(a, 1) || zn_grad_of(a, 2) || !zn_grad_of(a, 0)) {
    zn_grad_refuse(a, "the statistics of LayerNormalization have no derivative here");
    return;
  }
  normal k = {.centred = n->op == ZN_OP_LayerNormalization, .t = zn_rw_wide(type_of(a, x))};
  for (int64_t d = axis; d < rank; d++) k.axes[k.n++] = d;
  normalize(a, &k, x);
  const zn_vid dy = zn_rw_cast(w, zn_grad_of(a, 0), k.t), scale = zn_rw_cast(w, zn_grad_in(a, 1), k.t);
  if (zn_grad_wants(a, 0)) zn_grad_give(a, 0, denormalize(a, &k, mul(a, dy, scale)));
  if (zn_grad_wants(a, 1)) zn_grad_give(a, 1, mul(a, dy, k.hat));
  if (zn_grad_wants(a, 2)) zn_grad_give(a, 2, dy);
}

void zn_grad_instancenorm(zn_grad *a) {
  zn_rw *w = &a->w;
  const zn_vid x = zn_grad_in(a, 0);
  const int rank = zn_grad_type(a, x)->rank;
  normal k = {.centred = true, .t = zn_rw_wide(type_of(a, x))};
  int64_t others[ZN_MAX_RANK] = {0};
  for (int d = 2; d < rank; d++) others[d - 1] = k.axes[k.n++] = d;
  int64_t channel[ZN_MAX_RANK];
  for (int d = 1; d < rank; d++) channel[d - 1] = d == 1 ? -1 : 1;
  normalize(a, &k, x);
  const zn_vid dy = zn_rw_cast(w, zn_grad_of(a, 0), k.t);
  const zn_vid scale = zn_rw_reshape_to(w, zn_rw_cast(w, zn_grad_in(a, 1), k.t), channel, (uint32_t)rank - 1);
  if (zn_grad_wants(a, 0)) zn_grad_give(a, 0, denormalize(a, &k, mul(a, dy, scale)));
  const uint32_t n = (uint32_t)rank - 1;
  if (zn_grad_wants(a, 1)) zn_grad_give(a, 1, zn_rw_reduce(w, ZN_OP_ReduceSum, mul(a, dy, k.hat), others, n, false));
  if (zn_grad_wants(a, 2)) zn_grad_give(a, 2, zn_rw_reduce(w, ZN_OP_ReduceSum, dy, others, n, false));
}

/* The mask that the node itself drew: asked of it when it does not tell yet. */
static zn_vid mask_of(zn_grad *a) {
  zn_graph *g = a->w.g;
  if (zn_grad_out(a, 1)) return zn_grad_out(a, 1);
  const zn_vid v = zn_graph_value(g, NULL);
  zn_node *n = &g->nodes[a->n];
  zn_vid *out = ZN_ARRAY(g->arena, zn_vid, 2);
  out[0] = n->out[0];
  out[1] = v;
  n->out = out;
  n->num_out = 2;
  g->vals[v].def = a->n;
  g->vals[v].def_out = 1;
  a->w.st = zn_infer_node(a->w.c, g, a->n);
  return v;
}

void zn_grad_dropout(zn_grad *a) {
  zn_rw *w = &a->w;
  const zn_vid x = zn_grad_in(a, 0), ratio = zn_grad_in(a, 1), training = zn_grad_in(a, 2), dy = zn_grad_of(a, 0);
  int64_t on = 1;
  uint32_t n;
  if (!training || (zn_value_i64s(w->g, training, &on, 1, &n) && !on)) {
    zn_grad_give(a, 0, dy);
    return;
  }
  const zn_dtype t = type_of(a, x);
  const zn_vid one = zn_rw_num(w, t, 1), mask = zn_rw_cast(w, mask_of(a), t);
  zn_vid keep = sub(a, one, ratio ? zn_rw_cast(w, ratio, t) : zn_rw_num(w, t, 0.5));
  keep = zn_rw3(w, ZN_OP_Where, training, keep, one);
  zn_grad_give(a, 0, zn_rw2(w, ZN_OP_Div, mul(a, dy, mask), keep));
}
