/* Merges nodes that compute the same thing from the same values, and equal constants. Node order
 * decides which one stays. */
#include "zenithc/passes/pass.h"

enum { MAX_CONST_BYTES = 1 << 16 };

static uint64_t mix(uint64_t h, uint64_t x) {
  h ^= x + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
  return h * 0xff51afd7ed558ccdu;
}

static uint64_t hash_bytes(uint64_t h, const void *p, size_t n) {
  const uint8_t *b = p;
  for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 1099511628211u;
  return h;
}

static uint64_t hash_str(uint64_t h, const char *s) { return hash_bytes(h, s, strlen(s)); }

static bool same_tensor(const zn_htensor *a, const zn_htensor *b) {
  if (a == b) return true;
  if (a->dtype != b->dtype || a->rank != b->rank || a->dtype == ZN_STR) return false;
  for (uint32_t d = 0; d < a->rank; d++) {
    if (a->dims[d] != b->dims[d]) return false;
  }
  if (a->data == b->data) return true;
  return a->data && b->data && memcmp(a->data, b->data, zn_htensor_bytes(a)) == 0;
}

static bool same_attr(const zn_attr *a, const zn_attr *b) {
  if (a->kind != b->kind || a->n != b->n || strcmp(a->name, b->name) != 0) return false;
  switch (a->kind) {
    case ZN_A_INT: return a->u.i == b->u.i;
    case ZN_A_FLOAT: return memcmp(&a->u.f, &b->u.f, sizeof a->u.f) == 0;
    case ZN_A_STRING:
      return a->u.s.len == b->u.s.len && memcmp(a->u.s.ptr, b->u.s.ptr, a->u.s.len) == 0;
    case ZN_A_INTS: return a->n == 0 || memcmp(a->u.is, b->u.is, a->n * sizeof *a->u.is) == 0;
    case ZN_A_FLOATS: return a->n == 0 || memcmp(a->u.fs, b->u.fs, a->n * sizeof *a->u.fs) == 0;
    case ZN_A_TENSOR: return same_tensor(a->u.t, b->u.t);
    default: return false;
  }
}

static bool mergeable(const zn_graph *g, const zn_node *n) {
  (void)g;
  return !n->dead && !(zn_ops[n->op].flags & (ZN_OPF_RANDOM | ZN_OPF_CONTROL)) &&
         n->num_captures == 0;
}

static bool same_node(const zn_node *a, const zn_node *b) {
  if (a->op != b->op || a->num_in != b->num_in || a->num_out != b->num_out ||
      a->num_attrs != b->num_attrs) {
    return false;
  }
  for (uint32_t i = 0; i < a->num_in; i++) {
    if (a->in[i] != b->in[i]) return false;
  }
  for (uint32_t i = 0; i < a->num_out; i++) {
    if (!a->out[i] != !b->out[i]) return false;
  }
  for (uint32_t i = 0; i < a->num_attrs; i++) { /* attributes in the same order, or not merged */
    if (!same_attr(&a->attrs[i], &b->attrs[i])) return false;
  }
  return true;
}

static uint64_t hash_node(const zn_node *n) {
  uint64_t h = mix(n->op, n->num_in);
  for (uint32_t i = 0; i < n->num_in; i++) h = mix(h, n->in[i]);
  for (uint32_t i = 0; i < n->num_attrs; i++) {
    h = hash_str(h, n->attrs[i].name);
    if (n->attrs[i].kind == ZN_A_INT) h = mix(h, (uint64_t)n->attrs[i].u.i);
  }
  return h;
}

static uint32_t table_size(uint32_t n) {
  uint32_t s = 16;
  while (s < 2 * n) s *= 2;
  return s;
}

static bool const_candidate(const zn_value *v) {
  return v->cst && v->cst->data && v->cst->dtype != ZN_STR && !v->is_output && !v->is_input &&
         zn_htensor_bytes(v->cst) <= MAX_CONST_BYTES;
}

static void merge_constants(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  const uint32_t size = table_size(g->num_vals);
  zn_vid *slot = ZN_ARRAY(&c->tmp, zn_vid, size), *to = ZN_ARRAY(&c->tmp, zn_vid, g->num_vals);
  for (zn_vid v = 1; v < g->num_vals; v++) {
    to[v] = v;
    if (!const_candidate(&g->vals[v])) continue;
    const zn_htensor *t = g->vals[v].cst;
    uint64_t h = hash_bytes(mix(t->dtype, t->rank), t->dims, t->rank * sizeof *t->dims);
    h = hash_bytes(h, t->data, zn_htensor_bytes(t));
    uint32_t at = (uint32_t)(h >> 20) & (size - 1);
    while (slot[at] && !same_tensor(g->vals[slot[at]].cst, t)) at = (at + 1) & (size - 1);
    if (!slot[at]) {
      slot[at] = v;
    } else {
      to[v] = slot[at];
    }
  }
  for (uint32_t k = 0; k < g->num_order; k++) {
    zn_node *n = &g->nodes[g->order[k]];
    for (uint32_t i = 0; i < n->num_in && !n->dead; i++) {
      if (n->in[i] && to[n->in[i]] != n->in[i] && zn_pass_may_rewrite(o)) n->in[i] = to[n->in[i]];
    }
  }
}

/* Sizes found by the run have a symbol per node: what is behind it is known by that name. */
static bool same_sizes(const zn_graph *g, const zn_node *a, const zn_node *b) {
  for (uint32_t i = 0; i < a->num_out; i++) {
    const zn_type *x = &g->vals[a->out[i]].type, *y = &g->vals[b->out[i]].type;
    if (!a->out[i] || !b->out[i]) continue;
    if (x->rank != y->rank || g->vals[b->out[i]].content) return false;
    for (int d = 0; d < x->rank; d++)
      if (x->dims[d] != y->dims[d]) return false;
  }
  return true;
}

zn_status zn_pass_cse(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  merge_constants(c, g, o);
  const uint32_t size = table_size(g->num_order), first_new = g->num_order;
  zn_nid *slot = ZN_ARRAY(&c->tmp, zn_nid, size);
  for (uint32_t k = 0; k < first_new; k++) {
    const zn_nid n = g->order[k];
    if (!mergeable(g, &g->nodes[n])) continue;
    uint32_t at = (uint32_t)(hash_node(&g->nodes[n]) >> 20) & (size - 1);
    while (slot[at] && !same_node(&g->nodes[slot[at]], &g->nodes[n])) at = (at + 1) & (size - 1);
    if (!slot[at]) {
      slot[at] = n;
      continue;
    }
    bool outputs = false; /* two graph outputs stay two values */
    for (uint32_t i = 0; i < g->nodes[n].num_out; i++) {
      outputs |= g->nodes[n].out[i] && g->vals[g->nodes[n].out[i]].is_output;
    }
    if (outputs || !same_sizes(g, &g->nodes[slot[at]], &g->nodes[n]) || !zn_pass_may_rewrite(o)) continue;
    for (uint32_t i = 0; i < g->nodes[n].num_out; i++) {
      if (g->nodes[n].out[i]) zn_graph_replace(g, g->nodes[n].out[i], g->nodes[slot[at]].out[i]);
    }
    zn_graph_kill(g, n);
  }
  zn_graph_compact(g);
  return zn_pass_bodies(c, g, o, zn_pass_cse);
}
