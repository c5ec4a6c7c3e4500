/* Canonical control flow: a branch whose condition is known replaces its If, and constants that
 * bodies capture become constants of the bodies, so that their operators see them. */
#include "zenithc/passes/canon.h"

/* ---- an If with a known condition ---- */

static bool inline_if(zn_canon *k, zn_nid n) {
  zn_graph *g = k->g;
  int64_t cond;
  uint32_t m;
  if (g->nodes[n].op != ZN_OP_If || !zn_value_i64s(g, g->nodes[n].in[0], &cond, 1, &m) || m != 1)
    return false;
  if (!zn_pass_may_rewrite(k->o)) return false;
  zn_graph *body = zn_node_graph(&g->nodes[n], cond ? "then_branch" : "else_branch");
  zn_vid *out = ZN_ARRAY(&k->c->tmp, zn_vid, body->num_outputs + 1);
  zn_rw w = {k->c, g, n, ZN_OK};
  zn_rw_inline(&w, body, g->nodes[n].in + 1, out);
  for (uint32_t i = 0; w.st == ZN_OK && i < g->nodes[n].num_out; i++) zn_rw_output(&w, i, out[i]);
  k->st = zn_rw_done(&w);
  return k->st == ZN_OK;
}

/* ---- captured constants ---- */

static void drop_input(zn_graph *b, uint32_t at) {
  memmove(b->inputs + at, b->inputs + at + 1, (b->num_inputs - 1 - at) * sizeof *b->inputs);
  b->num_inputs--;
}

/* Input `at` of the body becomes a constant of it. */
static void settle(zn_graph *body, uint32_t at, const zn_htensor *t) {
  const zn_vid v = body->inputs[at], kv = zn_graph_const(body, NULL, t);
  zn_graph_replace(body, v, kv);
  body->vals[v].is_input = false;
  drop_input(body, at);
}

static bool settle_captures(zn_canon *k, zn_nid n) {
  zn_graph *g = k->g;
  zn_node *nd = &g->nodes[n];
  bool changed = false;
  for (uint32_t c = nd->num_captures; c-- > 0;) {
    const uint32_t at = nd->num_in - nd->num_captures + c;
    const zn_value *v = &g->vals[nd->in[at]];
    if (!v->cst || v->is_input || !zn_pass_may_rewrite(k->o)) continue;
    for (uint32_t a = 0; a < nd->num_attrs; a++) {
      if (nd->attrs[a].kind != ZN_A_GRAPH) continue;
      zn_graph *body = nd->attrs[a].u.g;
      settle(body, body->num_inputs - nd->num_captures + c, v->cst);
    }
    memmove(nd->in + at, nd->in + at + 1, (nd->num_in - 1 - at) * sizeof *nd->in);
    nd->num_in--;
    nd->num_captures--;
    changed = true;
  }
  return changed;
}

bool zn_canon_control(zn_canon *k, zn_nid n) {
  if (!(zn_ops[k->g->nodes[n].op].flags & ZN_OPF_CONTROL)) return false;
  return inline_if(k, n) || (k->st == ZN_OK && settle_captures(k, n));
}
