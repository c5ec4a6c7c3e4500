/* Scan-8 has a batch axis before the sequence axis: today's Scan over the sequence, inside a Scan over the batch. */
#include "frontends/onnx/upgrade.h"

void zn_up_scan_8(zn_unode *u) {
  zn_imp *I = u->s->I;
  zn_attr *body = zn_u_attr(u, "body"), *scans = zn_u_attr(u, "num_scan_inputs"), *dirs = zn_u_attr(u, "directions");
  if (!body || body->kind != ZN_A_GRAPH || !scans || scans->kind != ZN_A_INT || u->num_in < 2) return;
  if (u->in[0]) {
    zn_imp_problem(I, zn_unode_where(u), true, "export with opset 9 or later", "Scan of opset 8 with sequence lengths");
    return;
  }
  zn_graph *b = body->u.g;
  uint32_t n = --u->num_in;
  memmove(u->in, u->in + 1, n * sizeof *u->in);
  if (n + u->num_caps != b->num_inputs || scans->u.i < 0 || scans->u.i > n) {
    zn_imp_problem(I, zn_unode_where(u), false, NULL, "Scan has %u inputs, its body %u", n, b->num_inputs);
    return;
  }
  zn_graph *w = zn_graph_new(I->ga, I->ex, zn_arena_printf(I->ga, "%s.batch", u->name));
  zn_vid *in = ZN_ARRAY(I->pa, zn_vid, n + u->num_caps);
  w->parent = u->s->g;
  for (uint32_t i = 0; i < n + u->num_caps; i++) {
    zn_type t = b->vals[b->inputs[i]].type;
    if (i + (uint64_t)scans->u.i >= n && i < n) t.rank = -1; /* the body sees one step of it */
    in[i] = zn_graph_input(w, b->vals[b->inputs[i]].name, t);
  }
  zn_nid inner = zn_graph_node(w, ZN_OP_Scan, u->name, in, n + u->num_caps, b->num_outputs);
  w->nodes[inner].num_captures = u->num_caps;
  w->nodes[inner].source = u->source;
  b->parent = w;
  zn_node_set_attr(w, inner, *body);
  zn_node_set_int(w, inner, "num_scan_inputs", scans->u.i);
  if (dirs && dirs->kind == ZN_A_INTS) zn_node_set_ints(w, inner, "scan_input_directions", dirs->u.is, dirs->n);
  for (uint32_t i = 0; i < b->num_outputs; i++) zn_graph_output(w, zn_node_out(w, inner, i));
  body->u.g = w;
  scans->u.i = n;
  zn_u_del(u, "directions");
}
