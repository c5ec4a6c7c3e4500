/* Evaluates what is known at compile time: values whose contents inference knows become constants,
 * and nodes whose inputs are constants run through the reference evaluator, in double precision and
 * rounded once. Each node is inferred again first, because a constant made a moment ago may decide
 * its shape. */
#include "zenithc/eval/eval.h"
#include "zenithc/passes/pass.h"

enum { MAX_GROWN_BYTES = 64 << 20 };

/* The contents are constants: a tensor of them. */
static bool fold_contents(zn_graph *g, zn_vid v) {
  zn_value *x = &g->vals[v];
  int64_t dims[ZN_MAX_RANK], k;
  if (!x->elems || x->cst || !zn_type_is_static(g->ex, &x->type, dims)) return false;
  for (uint32_t i = 0; i < x->num_elems; i++) {
    if (!x->elems[i] || !zn_ex_is_const(g->ex, x->elems[i], &k)) return false;
  }
  zn_htensor *t = ZN_NEW(g->arena, zn_htensor);
  *t = zn_htensor_new(g->arena, (zn_dtype)x->type.dtype, (uint32_t)x->type.rank, dims);
  if (zn_htensor_count(t) != x->num_elems) return false;
  for (uint32_t i = 0; i < x->num_elems; i++) {
    zn_ex_is_const(g->ex, x->elems[i], &k);
    zn_store_i64(t->dtype, t->data, i, k);
  }
  zn_graph_replace(g, v, zn_graph_const(g, NULL, t));
  return true;
}

static bool fits(const zn_graph *g, const zn_node *n) {
  uint64_t in = 0, out = 0;
  for (uint32_t i = 0; i < n->num_in; i++) {
    if (n->in[i]) in += zn_htensor_bytes(g->vals[n->in[i]].cst);
  }
  for (uint32_t o = 0; o < n->num_out; o++) {
    int64_t dims[ZN_MAX_RANK];
    uint64_t count;
    if (!n->out[o]) continue;
    const zn_type *t = &g->vals[n->out[o]].type;
    if (t->kind != ZN_V_TENSOR) return false;
    if (!zn_type_is_static(g->ex, t, dims))
      continue; /* as large as its data says: bounded by the input */
    if (!zn_dims_count((uint32_t)t->rank, dims, zn_dtype_bytes((zn_dtype)t->dtype), &count))
      return false;
    out += count * zn_dtype_bytes((zn_dtype)t->dtype);
  }
  return out <= in || out <= MAX_GROWN_BYTES;
}

static bool foldable(const zn_graph *g, const zn_node *n) {
  if (zn_ops[n->op].flags & (ZN_OPF_RANDOM | ZN_OPF_CONTROL | ZN_OPF_HOST)) return false;
  for (uint32_t i = 0; i < n->num_in; i++) {
    const zn_value *v = &g->vals[n->in[i]];
    if (n->in[i] && (!v->cst || (!v->cst->data && zn_htensor_count(v->cst)) || v->is_input))
      return false;
  }
  return fits(g, n);
}

static bool fold_node(zn_ctx *c, zn_graph *g, zn_nid n) {
  const uint32_t ni = g->nodes[n].num_in, no = g->nodes[n].num_out;
  const zn_htensor **in = ZN_ARRAY(&c->tmp, const zn_htensor *, ni + 1);
  zn_htensor *out = ZN_ARRAY(g->arena, zn_htensor, no);
  for (uint32_t i = 0; i < ni; i++)
    in[i] = g->nodes[n].in[i] ? g->vals[g->nodes[n].in[i]].cst : NULL;
  if (zn_eval_node(c, g, n, in, out) != ZN_OK) return false;
  for (uint32_t i = 0; i < no; i++) {
    const zn_vid v = g->nodes[n].out[i];
    if (!v || out[i].dtype == ZN_NONE) continue;
    zn_graph_replace(g, v, zn_graph_const(g, NULL, &out[i]));
  }
  return true;
}

/* The same constant through Identity is how a folded graph output is spelled: leave it. */
static bool is_result(const zn_graph *g, const zn_node *n) {
  return n->op == ZN_OP_Identity && g->vals[n->out[0]].is_output;
}

/* Constants that may stay integers: the qdq pass looks at them first. */
static bool is_dequantized(const zn_graph *g, const zn_node *n) {
  if (n->op != ZN_OP_DequantizeLinear || g->vals[n->out[0]].is_output) return false;
  zn_dtype t = (zn_dtype)g->vals[n->in[0]].type.dtype;
  return t == ZN_U8 || t == ZN_I8 || t == ZN_I32;
}

zn_status zn_fold_dequantized(zn_ctx *c, zn_graph *g) {
  for (uint32_t k = 0; k < g->num_order; k++) {
    const zn_nid n = g->order[k];
    if (!is_dequantized(g, &g->nodes[n]) || !foldable(g, &g->nodes[n])) continue;
    if (g->vals[g->nodes[n].out[0]].is_output) continue;
    if (fold_node(c, g, n)) zn_graph_kill(g, n);
  }
  zn_graph_compact(g);
  return ZN_OK;
}

zn_status zn_pass_fold(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  const uint32_t count = g->num_order;
  for (uint32_t k = 0; k < count; k++) {
    const zn_nid n = g->order[k];
    if (g->nodes[n].dead || is_result(g, &g->nodes[n])) continue;
    ZN_TRY(zn_infer_node(c, g, n));
    bool all = g->nodes[n].num_out > 0;
    for (uint32_t i = 0; i < g->nodes[n].num_out; i++) {
      const zn_vid v = g->nodes[n].out[i];
      if (zn_ops[g->nodes[n].op].flags & ZN_OPF_RANDOM) all = false;
      else if (v) all &= fold_contents(g, v);
    }
    if (o->opt_level >= 1 && is_dequantized(g, &g->nodes[n])) continue;
    if (!all && foldable(g, &g->nodes[n]) && zn_pass_may_rewrite(o)) all = fold_node(c, g, n);
    if (all) zn_graph_kill(g, n);
  }
  zn_graph_compact(g);
  return zn_pass_bodies(c, g, o, zn_pass_fold);
}
