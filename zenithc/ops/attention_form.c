/* Finds softmax(f(Q K'))V behind its last product: upwards from the probabilities through elementwise maps of one shape to
 * the only product they depend on. */
#include "zenithc/ops/attention_form.h"

#include <math.h>

enum { MAX_CHAIN = 8, MAX_HEAD = 128, MAX_VECTOR_HEAD = 256 };

static bool same_dims(const zn_type *a, const zn_type *b) {
  return a->rank == b->rank && !memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims);
}

static bool read_by(const zn_graph *g, const uint32_t *uses, zn_vid v, uint32_t readers) {
  return uses[v] == readers && !g->vals[v].is_output && !g->vals[v].content && !g->vals[v].num_scaled;
}

static bool private(const zn_graph *g, const uint32_t *uses, zn_vid v) { return read_by(g, uses, v, 1); }

/* The product behind map v of its shape; 0 when there is none, or when a value on the way has other readers. */
static zn_vid behind(const zn_graph *g, const uint32_t *uses, zn_vid v, uint32_t readers, int left) {
  const zn_value *val = &g->vals[v];
  if (!left || !val->def || !read_by(g, uses, v, readers)) return 0;
  const zn_node *n = &g->nodes[val->def];
  if (n->op == ZN_OP_MatMul) return v;
  if (!(zn_ops[n->op].flags & ZN_OPF_EW) && n->op != ZN_OP_Cast) return 0;
  zn_vid found = 0;
  for (uint32_t i = 0; i < n->num_in; i++) {
    if (!n->in[i] || g->vals[n->in[i]].cst || !same_dims(&g->vals[n->in[i]].type, &val->type)) continue;
    zn_vid s = behind(g, uses, n->in[i], 1, left - 1);
    if (s && found) return 0;
    if (s) found = s;
  }
  return found;
}

static zn_expr dim(const zn_graph *g, zn_vid v, int from_end) {
  const zn_type *t = &g->vals[v].type;
  return t->dims[t->rank - from_end];
}

static bool is(const zn_graph *g, zn_vid v, zn_dtype t) { return g->vals[v].type.dtype == t; }

static bool is_number(const zn_graph *g, zn_vid v, double x) {
  const zn_htensor *h = g->vals[v].cst;
  return h && h->data && zn_is_float(h->dtype) && zn_htensor_count(h) == 1 && zn_load_f64(h->dtype, h->data, 0) == x;
}

/* The node of that operator behind v, which has no other reader; 0 when there is none. */
static zn_nid behind_op(const zn_graph *g, const uint32_t *uses, zn_vid v, zn_op op) {
  const zn_nid n = v ? g->vals[v].def : 0;
  return n && g->nodes[n].op == op && private(g, uses, v) ? n : 0;
}

static bool along_last(const zn_graph *g, const zn_node *n, int64_t axis) {
  return axis == -1 || axis == g->vals[n->in[0]].type.rank - 1;
}

/* Is a->p the probabilities a->softmax makes, or zeros in the rows where all of a->x is minus infinity? */
static bool find_softmax(const zn_graph *g, const uint32_t *uses, zn_attend *a) {
  zn_vid p = a->p;
  const zn_nid where = behind_op(g, uses, p, ZN_OP_Where);
  if (where) {
    if (!is_number(g, g->nodes[where].in[1], 0)) return false;
    p = g->nodes[where].in[2];
  }
  a->softmax = behind_op(g, uses, p, ZN_OP_Softmax);
  if (!a->softmax || !along_last(g, &g->nodes[a->softmax], zn_node_int(&g->nodes[a->softmax], "axis"))) return false;
  a->x = g->nodes[a->softmax].in[0];
  if (!where) return true;
  const zn_nid equal = behind_op(g, uses, g->nodes[where].in[0], ZN_OP_Equal);
  if (!equal || !is_number(g, g->nodes[equal].in[1], -(double)INFINITY)) return false;
  const zn_nid top = behind_op(g, uses, g->nodes[equal].in[0], ZN_OP_ReduceMax);
  int64_t axis;
  uint32_t n;
  if (!top || g->nodes[top].in[0] != a->x || !zn_node_int(&g->nodes[top], "keepdims")) return false;
  if (!zn_value_i64s(g, zn_node_in(&g->nodes[top], 1), &axis, 1, &n) || n != 1 || !along_last(g, &g->nodes[top], axis))
    return false;
  a->guard[0] = where, a->guard[1] = equal, a->guard[2] = top;
  return true;
}

static bool same_batches(const zn_graph *g, const zn_attend *a) {
  const zn_type *q = &g->vals[a->q].type, *k = &g->vals[a->kt].type, *v = &g->vals[a->v].type;
  if (q->rank < 3 || q->rank != k->rank || q->rank != v->rank || q->dtype != k->dtype || q->dtype != v->dtype) return false;
  for (int d = 0; d + 2 < q->rank; d++)
    if (q->dims[d] != k->dims[d] || q->dims[d] != v->dims[d]) return false;
  return dim(g, a->kt, 1) == dim(g, a->v, 2) && dim(g, a->q, 1) == dim(g, a->kt, 2);
}

/* Shared memory of attend_fma.c's block: rows of Q and their probabilities, keys, values. */
static uint64_t fma_bytes(const zn_attend *a) {
  uint64_t rows = ZN_AT_FMA_ROWS, keys = ZN_AT_FMA_KEYS, pad = 4, d = (uint64_t)a->d, dv = (uint64_t)a->dv;
  return 4 * (rows * (d + pad + keys + pad) + keys * (d + dv + 2 * pad));
}

/* On matrix units: halves and constant sizes. By threads, beside matrix units: the same for f32. With vectors: f32, whatever the
 * numbers of rows and keys, more than one row. */
static bool sizes_fit(const zn_graph *g, const zn_caps *caps, zn_attend *a) {
  if (!same_batches(g, a)) return false;
  if (!zn_ex_is_const(g->ex, dim(g, a->q, 1), &a->d) || !zn_ex_is_const(g->ex, dim(g, a->v, 1), &a->dv)) return false;
  if (!zn_ex_is_const(g->ex, dim(g, a->q, 2), &a->sq)) a->sq = -1;
  if (!zn_ex_is_const(g->ex, dim(g, a->kt, 1), &a->sk)) a->sk = -1;
  if (caps->mma && is(g, a->q, ZN_F32)) {
    if (!is(g, a->s, ZN_F32) || !is(g, a->x, ZN_F32)) return false;
    return a->sq >= 16 && a->sk >= 16 && a->d % 4 == 0 && a->dv % 4 == 0 && a->d > 0 && a->dv > 0 && a->d <= MAX_HEAD &&
           a->dv <= MAX_HEAD && fma_bytes(a) <= caps->shared_bytes;
  }
  if (caps->mma) {
    if (!(is(g, a->q, ZN_F16) || is(g, a->q, ZN_BF16)) || !is(g, a->s, (zn_dtype)g->vals[a->q].type.dtype)) return false;
    return a->sq >= 16 && a->sk >= 16 && a->d % 16 == 0 && a->dv % 16 == 0 && a->d > 0 && a->dv > 0 && a->d <= MAX_HEAD &&
           a->dv <= MAX_HEAD;
  }
  const int64_t lanes = caps->vector_bytes / 4;
  return is(g, a->q, ZN_F32) && is(g, a->s, ZN_F32) && is(g, a->x, ZN_F32) && a->d > 0 && a->d <= MAX_VECTOR_HEAD &&
         a->dv >= lanes && a->dv <= MAX_VECTOR_HEAD && a->sq != 0 && a->sq != 1 && a->sk != 0;
}

bool zn_attend_find(const zn_graph *g, const uint32_t *uses, const zn_caps *caps, zn_nid n, zn_attend *out) {
  const zn_node *pv = &g->nodes[n];
  if (!caps || pv->op != ZN_OP_MatMul) return false;
  if (!caps->mma && (caps->simt || caps->vector_bytes < 16 || caps->vector_bytes > 64)) return false;
  zn_attend a = {.p = pv->in[0], .v = pv->in[1]};
  if (!private(g, uses, a.p) || !find_softmax(g, uses, &a)) return false;
  a.s = behind(g, uses, a.x, a.guard[0] ? 2 : 1, MAX_CHAIN);
  if (!a.s || g->vals[a.p].type.dtype != g->vals[a.s].type.dtype) return false;
  a.scores = g->vals[a.s].def;
  a.q = g->nodes[a.scores].in[0];
  a.kt = g->nodes[a.scores].in[1];
  if (!sizes_fit(g, caps, &a) || g->vals[a.q].cst || g->vals[a.kt].cst || g->vals[a.v].cst) return false;
  *out = a;
  return true;
}
