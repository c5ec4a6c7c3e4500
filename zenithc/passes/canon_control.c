/* Canonical control flow: a branch whose condition is known replaces its If, and constants that
 * bodies capture become constants of the bodies, so that their operators see them. */
#include "zenithc/passes/canon.h"

/* ---- an If with a known condition ---- */

/* Copies the nodes of `body` before node n; map[body value] = value of g. */
static void inline_nodes(zn_canon *k, zn_graph *body, zn_nid n, zn_vid *map) {
  zn_graph *g = k->g;
  for (uint32_t i = 0; i < body->num_order; i++) {
    const zn_node *b = &body->nodes[body->order[i]];
    zn_vid *in = ZN_ARRAY(&k->c->tmp, zn_vid, b->num_in + 1);
    for (uint32_t j = 0; j < b->num_in; j++) in[j] = b->in[j] ? map[b->in[j]] : 0;
    const zn_nid id = zn_graph_node_before(g, n, b->op, b->name, in, b->num_in, b->num_out);
    zn_node *m = &g->nodes[id];
    m->attrs = b->attrs;
    m->num_attrs = b->num_attrs;
    m->num_captures = b->num_captures;
    if (b->source) m->source = b->source;
    for (uint32_t a = 0; a < m->num_attrs; a++) {
      if (m->attrs[a].kind == ZN_A_GRAPH) m->attrs[a].u.g->parent = g;
    }
    for (uint32_t j = 0; j < b->num_out; j++) {
      if (!b->out[j]) {
        m->out[j] = 0;
        continue;
      }
      map[b->out[j]] = m->out[j];
      zn_value *to = &g->vals[m->out[j]];
      const zn_value *from = &body->vals[b->out[j]];
      to->type = from->type;
    }
  }
}

static zn_vid clone_const(zn_graph *g, const zn_graph *from, zn_vid v) {
  return zn_graph_const(g, NULL, from->vals[v].cst);
}

static bool inline_if(zn_canon *k, zn_nid n) {
  zn_graph *g = k->g;
  int64_t cond;
  uint32_t m;
  if (g->nodes[n].op != ZN_OP_If || !zn_value_i64s(g, g->nodes[n].in[0], &cond, 1, &m) || m != 1)
    return false;
  if (!zn_pass_may_rewrite(k->o)) return false;
  zn_graph *body = zn_node_graph(&g->nodes[n], cond ? "then_branch" : "else_branch");
  zn_vid *map = ZN_ARRAY(&k->c->tmp, zn_vid, body->num_vals);
  for (uint32_t i = 0; i < body->num_inputs; i++) map[body->inputs[i]] = g->nodes[n].in[1 + i];
  for (zn_vid v = 1; v < body->num_vals; v++) {
    if (body->vals[v].cst && !body->vals[v].is_input && !map[v]) map[v] = clone_const(g, body, v);
  }
  const uint32_t before = g->num_order;
  inline_nodes(k, body, n, map);
  for (uint32_t i = 0; i < g->nodes[n].num_out; i++) {
    if (g->nodes[n].out[i]) zn_graph_replace(g, g->nodes[n].out[i], map[body->outputs[i]]);
  }
  zn_graph_kill(g, n);
  for (uint32_t i = 0; i < g->num_order && g->num_order > before;
       i++) { /* contents and symbols of the new place */
    const zn_nid id = g->order[i];
    if (id < g->num_nodes - (g->num_order - before)) continue;
    k->st = zn_infer_node(k->c, g, id);
    if (k->st != ZN_OK) return false;
  }
  return true;
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
