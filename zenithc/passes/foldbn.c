/* Folds per-channel affine maps into the constant weights and bias of the contraction before them:
 * BatchNormalization, and Mul, Div, Add, Sub with a constant along the channel axis, after Conv,
 * ConvTranspose, Gemm and MatMul. New weights are computed in double precision from the originals
 * and rounded once per fold; a chain (BatchNormalization, then Mul) folds step by step. Only when
 * nothing else reads the contraction's result. */
#include <math.h>

#include "zenithc/passes/pass.h"

zn_status zn_expand_batchnormalization(zn_ctx *c, zn_graph *g, zn_nid n);

/* y = k[channel] * x + b[channel] */
typedef struct affine {
  uint32_t channels;
  double *k, *b;
  bool scales, shifts;
} affine;

typedef struct target {
  zn_nid n;
  zn_op op;
  uint32_t channels; /* of the result */
} target;

static bool usable(const zn_graph *g, zn_vid v) {
  return v && g->vals[v].cst && g->vals[v].cst->data && !g->vals[v].is_input &&
         zn_is_float(g->vals[v].cst->dtype);
}

/* Channel axis of the contraction's result. */
static int channel_axis(zn_op op, int rank) { return op == ZN_OP_MatMul ? rank - 1 : 1; }

static bool find_target(const zn_graph *g, zn_vid v, target *t) {
  if (!g->vals[v].def || g->vals[v].is_output) return false;
  const zn_node *n = &g->nodes[g->vals[v].def];
  const zn_type *y = &g->vals[v].type;
  int64_t c;
  t->n = g->vals[v].def;
  t->op = n->op;
  if (n->op != ZN_OP_Conv && n->op != ZN_OP_ConvTranspose && n->op != ZN_OP_Gemm &&
      n->op != ZN_OP_MatMul) {
    return false;
  }
  if (y->rank < 2 || !usable(g, n->in[1]) || (zn_node_in(n, 2) && !usable(g, n->in[2])))
    return false;
  if (n->op == ZN_OP_MatMul && g->vals[n->in[1]].type.rank != 2) return false;
  if (!zn_ex_is_const(g->ex, y->dims[channel_axis(n->op, y->rank)], &c) || c < 1) return false;
  t->channels = (uint32_t)c;
  return true;
}

/* A constant that varies along the channel axis only: its value per channel. */
static bool per_channel(const zn_graph *g, zn_vid v, const target *t, int rank, double *out) {
  if (!usable(g, v)) return false;
  const zn_htensor *h = g->vals[v].cst;
  const int axis = channel_axis(t->op, rank) - (rank - (int)h->rank);
  if ((int)h->rank > rank) return false;
  for (int d = 0; d < (int)h->rank; d++) {
    if (h->dims[d] != 1 && (d != axis || h->dims[d] != (int64_t)t->channels)) return false;
  }
  const bool one = zn_htensor_count(h) == 1;
  for (uint32_t c = 0; c < t->channels; c++) out[c] = zn_load_f64(h->dtype, h->data, one ? 0 : c);
  return true;
}

static bool read_bn(const zn_graph *g, const zn_node *n, const target *t, affine *a) {
  const double eps = zn_node_float(n, "epsilon");
  const zn_htensor *p[4];
  if (zn_node_int(n, "training_mode") ||
      (t->op == ZN_OP_MatMul && g->vals[n->in[0]].type.rank != 2))
    return false;
  for (uint32_t i = 1; i < n->num_out; i++) {
    if (n->out[i]) return false;
  }
  for (uint32_t i = 0; i < 4; i++) {
    if (!usable(g, n->in[1 + i]) || zn_htensor_count(g->vals[n->in[1 + i]].cst) != t->channels)
      return false;
    p[i] = g->vals[n->in[1 + i]].cst;
  }
  for (uint32_t c = 0; a && c < t->channels; c++) {
    a->k[c] = zn_load_f64(p[0]->dtype, p[0]->data, c) /
              sqrt(zn_load_f64(p[3]->dtype, p[3]->data, c) + eps);
    a->b[c] =
        zn_load_f64(p[1]->dtype, p[1]->data, c) - zn_load_f64(p[2]->dtype, p[2]->data, c) * a->k[c];
  }
  if (a) a->scales = a->shifts = true;
  return true;
}

static bool read_affine(const zn_graph *g, const zn_node *n, const target *t, affine *a) {
  if (n->op == ZN_OP_BatchNormalization) return read_bn(g, n, t, a);
  const bool add = n->op == ZN_OP_Add || n->op == ZN_OP_Sub,
             mul = n->op == ZN_OP_Mul || n->op == ZN_OP_Div;
  const int rank = g->vals[n->in[0]].type.rank;
  if ((!add && !mul) || (add && t->op == ZN_OP_MatMul)) return false;
  if (!per_channel(g, n->in[1], t, rank, mul ? a->k : a->b)) return false;
  for (uint32_t c = 0; c < t->channels; c++) {
    if (n->op == ZN_OP_Sub) a->b[c] = -a->b[c];
    if (n->op == ZN_OP_Div) {
      if (a->k[c] == 0) return false;
      a->k[c] = 1 / a->k[c];
    }
    if (add) a->k[c] = 1;
    else a->b[c] = 0;
  }
  a->scales = mul;
  a->shifts = add;
  return true;
}

/* Result channel of weight element i. */
static uint32_t channel_of(const zn_node *n, const zn_htensor *w, uint64_t i) {
  uint64_t inner = 1;
  for (uint32_t d = 2; d < w->rank; d++) inner *= (uint64_t)w->dims[d];
  switch ((unsigned)n->op) {
    case ZN_OP_Conv: return (uint32_t)(i / (inner * (uint64_t)w->dims[1]));
    case ZN_OP_ConvTranspose: {
      const uint64_t mg = (uint64_t)w->dims[1],
                     cg = (uint64_t)(w->dims[0] / zn_node_int(n, "group"));
      const uint64_t c = i / (inner * mg), j = i / inner % mg;
      return (uint32_t)(c / cg * mg + j);
    }
    case ZN_OP_Gemm:
      if (zn_node_int(n, "transB")) return (uint32_t)(i / (uint64_t)w->dims[1]);
      return (uint32_t)(i % (uint64_t)w->dims[1]);
    default: return (uint32_t)(i % (uint64_t)w->dims[1]);
  }
}

static zn_vid scaled_weights(zn_graph *g, const zn_node *n, const affine *a) {
  const zn_htensor *w = g->vals[n->in[1]].cst;
  zn_htensor *out = ZN_NEW(g->arena, zn_htensor);
  const uint64_t count = zn_htensor_count(w);
  *out = zn_htensor_new(g->arena, w->dtype, w->rank, w->dims);
  for (uint64_t i = 0; i < count; i++) {
    zn_store_f64(w->dtype, out->data, i,
                 zn_load_f64(w->dtype, w->data, i) * a->k[channel_of(n, w, i)]);
  }
  return zn_graph_const(g, NULL, out);
}

/* k * bias + b as a [channels] tensor. Gemm's C: only when it varies along channels alone. */
static bool folded_bias(zn_graph *g, const zn_node *n, const target *t, const affine *a,
                        zn_vid *out) {
  const zn_dtype dt = g->vals[n->in[1]].cst->dtype;
  const double beta = n->op == ZN_OP_Gemm ? zn_node_float(n, "beta") : 1;
  const zn_vid old = zn_node_in(n, 2);
  const int64_t dim = t->channels;
  zn_htensor *b = ZN_NEW(g->arena, zn_htensor);
  *b = zn_htensor_new(g->arena, dt, 1, &dim);
  if (old) {
    const zn_htensor *h = g->vals[old].cst;
    const uint64_t count = zn_htensor_count(h);
    if (count != 1 && (count != t->channels || h->dims[h->rank - 1] != dim)) return false;
    for (uint32_t c = 0; c < t->channels; c++) {
      zn_store_f64(dt, b->data, c,
                   beta * zn_load_f64(h->dtype, h->data, count == 1 ? 0 : c) * a->k[c] + a->b[c]);
    }
  } else {
    for (uint32_t c = 0; c < t->channels; c++) zn_store_f64(dt, b->data, c, a->b[c]);
  }
  *out = zn_graph_const(g, NULL, b);
  return true;
}

static void set_input(zn_graph *g, zn_nid n, uint32_t i, zn_vid v) {
  zn_node *nd = &g->nodes[n];
  if (i >= nd->num_in) {
    zn_vid *in = ZN_ARRAY(g->arena, zn_vid, i + 1);
    memcpy(in, nd->in, nd->num_in * sizeof *in);
    nd->in = in;
    nd->num_in = i + 1;
  }
  nd->in[i] = v;
}

/* MatMul has no bias: the shift stays behind as an Add. */
static zn_status leave_shift(zn_ctx *c, zn_graph *g, zn_nid n, const target *t, const affine *a,
                             zn_vid y) {
  const zn_dtype dt = g->vals[g->nodes[t->n].in[1]].cst->dtype;
  const int64_t dim = t->channels;
  zn_htensor *b = ZN_NEW(g->arena, zn_htensor);
  *b = zn_htensor_new(g->arena, dt, 1, &dim);
  for (uint32_t i = 0; i < t->channels; i++) zn_store_f64(dt, b->data, i, a->b[i]);
  const zn_vid in[2] = {y, zn_graph_const(g, NULL, b)};
  const zn_nid add = zn_graph_node_before(g, n, ZN_OP_Add, g->nodes[n].name, in, 2, 1);
  ZN_TRY(zn_infer_node(c, g, add));
  zn_graph_replace(g, g->nodes[n].out[0], g->nodes[add].out[0]);
  return ZN_OK;
}

static zn_status fold_into(zn_ctx *c, zn_graph *g, zn_nid n, const target *t, const affine *a,
                           bool *done) {
  const zn_vid y = g->nodes[n].in[0];
  zn_vid bias = 0;
  if (t->op != ZN_OP_MatMul && (a->shifts || zn_node_in(&g->nodes[t->n], 2)) &&
      !folded_bias(g, &g->nodes[t->n], t, a, &bias)) {
    return ZN_OK;
  }
  if (a->scales) set_input(g, t->n, 1, scaled_weights(g, &g->nodes[t->n], a));
  if (bias) {
    set_input(g, t->n, 2, bias);
    if (t->op == ZN_OP_Gemm) zn_node_set_float(g, t->n, "beta", 1);
  }
  if (t->op == ZN_OP_MatMul && a->shifts) {
    ZN_TRY(leave_shift(c, g, n, t, a, y));
  } else {
    zn_graph_replace(g, g->nodes[n].out[0], y);
  }
  zn_graph_kill(g, n);
  *done = true;
  return ZN_OK;
}

bool zn_foldbn_applies(zn_ctx *c, const zn_graph *g, zn_nid n) {
  target t;
  const zn_vid x = g->nodes[n].in[0];
  uint32_t uses = 0;
  (void)c;
  if (!find_target(g, x, &t) || !read_bn(g, &g->nodes[n], &t, NULL)) return false;
  for (uint32_t k = 0; k < g->num_order; k++) {
    const zn_node *m = &g->nodes[g->order[k]];
    for (uint32_t i = 0; i < m->num_in && !m->dead; i++) uses += m->in[i] == x;
  }
  return uses == 1;
}

static bool is_affine(zn_op op) {
  return op == ZN_OP_BatchNormalization || op == ZN_OP_Mul || op == ZN_OP_Div || op == ZN_OP_Add ||
         op == ZN_OP_Sub;
}

static zn_status try_fold(zn_ctx *c, zn_graph *g, zn_nid n, const uint32_t *uses, uint32_t num_uses,
                          zn_pass_opts *o, bool *done) {
  target t;
  const zn_node *nd = &g->nodes[n];
  const zn_vid x = nd->in[0];
  if (x >= num_uses || uses[x] != 1 || !find_target(g, x, &t)) return ZN_OK;
  const zn_type *xt = &g->vals[x].type, *yt = &g->vals[nd->out[0]].type;
  if (xt->rank != yt->rank || xt->dtype != yt->dtype ||
      memcmp(xt->dims, yt->dims, (size_t)xt->rank * sizeof *xt->dims)) {
    return ZN_OK;
  }
  affine a = {.channels = t.channels};
  a.k = ZN_ARRAY(&c->tmp, double, t.channels);
  a.b = ZN_ARRAY(&c->tmp, double, t.channels);
  if (!read_affine(g, nd, &t, &a) || !zn_pass_may_rewrite(o)) return ZN_OK;
  return fold_into(c, g, n, &t, &a, done);
}

zn_status zn_pass_foldbn(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  uint32_t num_uses = g->num_vals;
  uint32_t *uses = zn_graph_uses(g, &c->tmp);
  for (uint32_t k = 0; k < g->num_order; k++) {
    const zn_nid n = g->order[k];
    if (g->nodes[n].dead || !is_affine(g->nodes[n].op)) continue;
    const zn_vid x = g->nodes[n].in[0], y = g->nodes[n].out[0];
    const uint32_t before = g->num_order;
    bool done = false;
    ZN_TRY(try_fold(c, g, n, uses, num_uses, o, &done));
    if (done && x < num_uses && y < num_uses) uses[x] = uses[y]; /* x now stands for y */
    if (!done && g->nodes[n].op == ZN_OP_BatchNormalization)
      ZN_TRY(zn_expand_batchnormalization(c, g, n));
    k += g->num_order - before;
  }
  zn_graph_compact(g);
  return zn_pass_bodies(c, g, o, zn_pass_foldbn);
}
