/* The derivative of If: an If of the same condition, whose branches are the given ones followed by their own Gradient. The
 * adjoints of its results are captured, and y in a branch is the sum of what they weigh. */
#include "zenithc/ops/grad.h"

/* A branch that gives the adjoints of those of its `own` inputs that are marked; dy: adjoints of its results (0: none),
 * which it captures. */
static zn_graph *backward_branch(zn_grad *a, const zn_graph *branch, const bool *marked, uint32_t own,
                                 const zn_vid *dy, uint32_t num_dy) {
  zn_ctx *c = a->w.c;
  zn_graph *g = zn_graph_clone(branch);
  zn_vid *xs = ZN_ARRAY(g->arena, zn_vid, own + 1), y = 0;
  zn_str *names = ZN_ARRAY(g->arena, zn_str, own + 1);
  uint32_t n = 0;
  for (uint32_t i = 0; i < own; i++) {
    if (!marked[i]) continue;
    xs[n] = g->inputs[i];
    const char *name = g->vals[xs[n]].name;
    names[n++] = (zn_str){name, strlen(name)};
  }
  for (uint32_t o = 0; o < num_dy; o++) {
    if (!dy[o]) continue;
    const zn_type *t = zn_grad_type(a, dy[o]);
    const zn_vid by = zn_graph_input(g, a->w.g->vals[dy[o]].name, *t), both[2] = {g->outputs[o], by};
    const zn_vid m = zn_node_out(g, zn_graph_node(g, ZN_OP_Mul, "weigh", both, 2, 1), 0);
    const zn_nid sum = zn_graph_node(g, ZN_OP_ReduceSum, "sum", &m, 1, 1);
    zn_node_set_int(g, sum, "keepdims", 0);
    const zn_vid part = zn_node_out(g, sum, 0), so_far[2] = {y, part};
    y = y ? zn_node_out(g, zn_graph_node(g, ZN_OP_Add, "all", so_far, 2, 1), 0) : part;
  }
  const zn_nid d = zn_graph_node(g, ZN_OP_Gradient, zn_grad_node(a)->name, xs, n, n);
  zn_node_set_attr(g, d, (zn_attr){.name = "xs", .kind = ZN_A_STRINGS, .n = n, .u.ss = names});
  zn_node_set_str(g, d, "y", g->vals[y].name);
  for (uint32_t o = 0; o < g->num_outputs; o++) g->vals[g->outputs[o]].is_output = false;
  g->num_outputs = 0;
  for (uint32_t i = 0; i < n; i++) zn_graph_output(g, g->nodes[d].out[i]);
  if (a->w.st == ZN_OK) a->w.st = zn_grad_resolve(c, g);
  return g;
}

void zn_grad_if(zn_grad *a) {
  zn_graph *g = a->w.g;
  const zn_node m = *zn_grad_node(a);
  const uint32_t own = m.num_in - 1;
  zn_vid *in = ZN_ARRAY(g->arena, zn_vid, m.num_in + m.num_out), *dy = ZN_ARRAY(g->arena, zn_vid, m.num_out + 1);
  bool *marked = ZN_ARRAY(g->arena, bool, own + 1);
  uint32_t num_in = m.num_in, n = 0;
  for (uint32_t i = 0; i < m.num_in; i++) in[i] = m.in[i];
  for (uint32_t i = 0; i < own; i++) n += marked[i] = zn_grad_wants(a, i + 1);
  for (uint32_t o = 0; o < m.num_out; o++)
    if ((dy[o] = zn_grad_of(a, o)) != 0) in[num_in++] = dy[o];
  zn_graph *then = backward_branch(a, zn_node_graph(&m, "then_branch"), marked, own, dy, m.num_out);
  zn_graph *other = backward_branch(a, zn_node_graph(&m, "else_branch"), marked, own, dy, m.num_out);
  const zn_nid id = zn_rw_raw(&a->w, ZN_OP_If, in, num_in, n);
  if (!id) return;
  then->parent = other->parent = g;
  zn_node_set_attr(g, id, (zn_attr){.name = "then_branch", .kind = ZN_A_GRAPH, .u.g = then});
  zn_node_set_attr(g, id, (zn_attr){.name = "else_branch", .kind = ZN_A_GRAPH, .u.g = other});
  g->nodes[id].num_captures = num_in - 1;
  zn_rw_infer(&a->w, id);
  for (uint32_t i = 0, k = 0; i < own && a->w.st == ZN_OK; i++)
    if (marked[i]) zn_grad_give(a, i + 1, g->nodes[id].out[k++]);
}
