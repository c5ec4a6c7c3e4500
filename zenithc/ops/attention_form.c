/* Finds softmax(f(Q K'))V behind its last product: upwards from the probabilities through elementwise maps of one shape to
 * the only product they depend on. */
#include "zenithc/ops/attention_form.h"

enum { MAX_CHAIN = 8, MAX_HEAD = 128 };

static bool same_dims(const zn_type *a, const zn_type *b) {
  return a->rank == b->rank && !memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims);
}

static bool private(const zn_graph *g, const uint32_t *uses, zn_vid v) {
  return uses[v] == 1 && !g->vals[v].is_output && !g->vals[v].content && !g->vals[v].num_scaled;
}

/* The product behind map v of its shape; 0 when there is none, or when a value on the way has other readers. */
static zn_vid behind(const zn_graph *g, const uint32_t *uses, zn_vid v, int left) {
  const zn_value *val = &g->vals[v];
  if (!left || !val->def || !private(g, uses, v)) return 0;
  const zn_node *n = &g->nodes[val->def];
  if (n->op == ZN_OP_MatMul) return v;
  if (!(zn_ops[n->op].flags & ZN_OPF_EW) && n->op != ZN_OP_Cast) return 0;
  zn_vid found = 0;
  for (uint32_t i = 0; i < n->num_in; i++) {
    if (!n->in[i] || g->vals[n->in[i]].cst || !same_dims(&g->vals[n->in[i]].type, &val->type)) continue;
    zn_vid s = behind(g, uses, n->in[i], left - 1);
    if (s && found) return 0;
    if (s) found = s;
  }
  return found;
}

static bool const_dim(const zn_graph *g, zn_vid v, int from_end, int64_t *out) {
  const zn_type *t = &g->vals[v].type;
  return t->rank >= 3 && zn_ex_is_const(g->ex, t->dims[t->rank - from_end], out);
}

static bool is_half(const zn_graph *g, zn_vid v) {
  return g->vals[v].type.dtype == ZN_F16 || g->vals[v].type.dtype == ZN_BF16;
}

static bool sizes_fit(const zn_graph *g, zn_attend *a) {
  const zn_type *q = &g->vals[a->q].type, *k = &g->vals[a->kt].type, *v = &g->vals[a->v].type;
  if (!const_dim(g, a->q, 2, &a->sq) || !const_dim(g, a->q, 1, &a->d) || !const_dim(g, a->kt, 1, &a->sk) ||
      !const_dim(g, a->v, 1, &a->dv))
    return false;
  if (q->rank != k->rank || q->rank != v->rank || q->dtype != k->dtype || q->dtype != v->dtype || !is_half(g, a->q)) return false;
  for (int d = 0; d + 2 < q->rank; d++)
    if (q->dims[d] != k->dims[d] || q->dims[d] != v->dims[d]) return false;
  return a->sq >= 16 && a->sk >= 16 && a->d % 16 == 0 && a->dv % 16 == 0 && a->d > 0 && a->dv > 0 && a->d <= MAX_HEAD &&
         a->dv <= MAX_HEAD;
}

bool zn_attend_find(const zn_graph *g, const uint32_t *uses, const zn_caps *caps, zn_nid n, zn_attend *out) {
  const zn_node *pv = &g->nodes[n];
  if (!caps || !caps->mma || pv->op != ZN_OP_MatMul) return false;
  zn_attend a = {.p = pv->in[0], .v = pv->in[1]};
  zn_nid soft = g->vals[a.p].def;
  if (!soft || g->nodes[soft].op != ZN_OP_Softmax || !private(g, uses, a.p)) return false;
  int64_t axis = zn_node_int(&g->nodes[soft], "axis");
  if (axis != -1 && axis != g->vals[a.p].type.rank - 1) return false;
  a.softmax = soft;
  a.x = g->nodes[soft].in[0];
  a.s = behind(g, uses, a.x, MAX_CHAIN);
  if (!a.s || !is_half(g, a.s) || !is_half(g, a.p)) return false;
  a.scores = g->vals[a.s].def;
  a.q = g->nodes[a.scores].in[0];
  a.kt = g->nodes[a.scores].in[1];
  if (!sizes_fit(g, &a) || g->vals[a.q].cst || g->vals[a.kt].cst || g->vals[a.v].cst) return false;
  *out = a;
  return true;
}
