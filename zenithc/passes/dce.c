/* Removes nodes and optional outputs whose results are not used. Contents that are not fully known
 * are dropped: code generation takes a value with contents as known, and such a value has to be
 * computed. */
#include "zenithc/passes/pass.h"

static bool removable(const zn_graph *g, const zn_node *n, const bool *live) {
  for (uint32_t i = 0; i < n->num_out; i++) {
    if (n->out[i] && (live[n->out[i]] || g->vals[n->out[i]].is_output)) return false;
  }
  return true;
}

/* Optional outputs that nobody reads become absent, trailing first. */
static void trim_outputs(zn_graph *g, zn_node *n, const bool *live) {
  const zn_schema *s = zn_op_schema(n->op);
  for (uint32_t i = n->num_out; i-- > 1;) {
    const zn_vid v = n->out[i];
    if (i >= s->num_out || !s->out[i].optional || s->out[i].variadic) return;
    if (v && (live[v] || g->vals[v].is_output)) continue;
    n->out[i] = 0;
    if (i + 1 == n->num_out) n->num_out = i;
  }
}

zn_status zn_pass_dce(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  bool *live = ZN_ARRAY(&c->tmp, bool, g->num_vals);
  for (uint32_t k = g->num_order; k-- > 0;) {
    zn_node *n = &g->nodes[g->order[k]];
    if (n->dead) continue;
    if (removable(g, n, live)) {
      n->dead = true;
      o->rewrites++;
      continue;
    }
    trim_outputs(g, n, live);
    for (uint32_t i = 0; i < n->num_in; i++) live[n->in[i]] = true;
  }
  zn_graph_compact(g);
  return zn_pass_bodies(c, g, o, zn_pass_dce);
}
