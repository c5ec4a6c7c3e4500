/* Ranks that a branch decides. When the branches of an If give tensors of different ranks, whoever reads such a value cannot
 * be compiled: its loops have no number. So the readers move into both branches, one after the other, until what leaves
 * the If has one rank again. Inside a branch every rank is known. A reader may be impossible in one branch (a product of
 * matrices with three axes): a run that takes it fails, so the other branch replaces the If, and Require demands the
 * condition. Ifs whose condition is known go first. An output of the model has the rank that the model declares: the branch that
 * gives it replaces the If in the same way. Graphs without an If of an open rank are left alone. */
#include <string.h>

#include "zenithc/ops/expand_util.h"
#include "zenithc/passes/pass.h"

enum { MAX_STEPS = 4096 };

typedef struct ranks {
  zn_ctx *c;
  zn_pass_opts *o;
  uint32_t steps; /* changes made in all graphs */
} ranks;

static bool open_rank(const zn_graph *g, zn_vid v) {
  return v && g->vals[v].type.kind == ZN_V_TENSOR && g->vals[v].type.rank < 0;
}

static bool is_condition_known(const zn_graph *g, zn_nid n, int64_t *cond) {
  uint32_t m;
  return zn_value_i64s(g, g->nodes[n].in[0], cond, 1, &m) && m == 1;
}

/* The first node that reads an output of If n whose rank is open, 0: none. */
static zn_nid first_reader(const zn_graph *g, zn_nid n) {
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *r = &g->nodes[g->order[i]];
    for (uint32_t k = 0; !r->dead && k < r->num_in; k++)
      if (r->in[k] && g->vals[r->in[k]].def == n && open_rank(g, r->in[k])) return g->order[i];
  }
  return 0;
}

/* ---- an If with a known condition ---- */

static zn_status inline_branch(ranks *p, zn_graph *g, zn_nid n, bool then, bool demand) {
  zn_graph *body = zn_node_graph(&g->nodes[n], then ? "then_branch" : "else_branch");
  zn_vid *out = ZN_ARRAY(&p->c->tmp, zn_vid, body->num_outputs + 1);
  zn_rw w = {p->c, g, n, ZN_OK};
  zn_rw_inline(&w, body, g->nodes[n].in + 1, out);
  for (uint32_t i = 0; w.st == ZN_OK && i < g->nodes[n].num_out; i++) {
    if (!g->nodes[n].out[i]) continue;
    const zn_vid in[2] = {out[i], g->nodes[n].in[0]};
    if (demand) out[i] = zn_rw_attr_int(&w, ZN_OP_Require, in, 2, "value", then);
    zn_rw_output(&w, i, out[i]);
  }
  return zn_rw_done(&w);
}

/* ---- moving readers into the branches ---- */

/* Marks the readers of what n gives, direct and indirect, that node `last` needs, and `last`. */
static bool *region(ranks *p, const zn_graph *g, zn_nid n, zn_nid last) {
  bool *reads = ZN_ARRAY(&p->c->tmp, bool, g->num_nodes), *needed = ZN_ARRAY(&p->c->tmp, bool, g->num_nodes);
  reads[n] = needed[last] = true;
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *r = &g->nodes[g->order[i]];
    for (uint32_t k = 0; !r->dead && k < r->num_in; k++)
      if (r->in[k] && reads[g->vals[r->in[k]].def]) reads[g->order[i]] = true;
  }
  for (uint32_t i = g->num_order; i-- > 0;) {
    const zn_node *r = &g->nodes[g->order[i]];
    for (uint32_t k = 0; needed[g->order[i]] && k < r->num_in; k++)
      if (r->in[k] && g->vals[r->in[k]].def) needed[g->vals[r->in[k]].def] = true;
  }
  for (zn_nid r = 1; r < g->num_nodes; r++) needed[r] = needed[r] && reads[r] && r != n;
  return needed;
}

/* Outer value v as the bodies see it; a new capture where they did not see it. */
static void capture(zn_graph *g, zn_nid n, zn_vid v, zn_graph *const *body, zn_vid *out) {
  zn_node *nd = &g->nodes[n];
  const uint32_t own = nd->num_in - nd->num_captures;
  for (uint32_t k = own; k < nd->num_in; k++) {
    if (nd->in[k] != v) continue;
    for (int b = 0; b < 2; b++) out[b] = body[b]->inputs[k - own];
    return;
  }
  zn_vid *in = ZN_ARRAY(g->arena, zn_vid, nd->num_in + 1);
  memcpy(in, nd->in, nd->num_in * sizeof *in);
  in[nd->num_in++] = v;
  nd->in = in;
  nd->num_captures++;
  for (int b = 0; b < 2; b++) out[b] = zn_graph_input(body[b], g->vals[v].name, g->vals[v].type);
}

static void copy_node(const zn_graph *g, const zn_node *r, zn_graph *body, zn_vid *map, bool clone) {
  zn_vid *in = ZN_ARRAY(g->arena, zn_vid, r->num_in + 1);
  for (uint32_t k = 0; k < r->num_in; k++) in[k] = r->in[k] ? map[r->in[k]] : 0;
  const zn_nid id = zn_graph_node(body, r->op, r->name, in, r->num_in, r->num_out);
  zn_node *m = &body->nodes[id];
  m->source = r->source;
  m->num_captures = r->num_captures;
  m->num_attrs = r->num_attrs;
  m->attrs = ZN_ARRAY(g->arena, zn_attr, r->num_attrs + 1);
  for (uint32_t a = 0; a < r->num_attrs; a++) {
    m->attrs[a] = r->attrs[a];
    if (m->attrs[a].kind != ZN_A_GRAPH) continue;
    if (clone) m->attrs[a].u.g = zn_graph_clone(r->attrs[a].u.g);
    m->attrs[a].u.g->parent = body;
  }
  for (uint32_t k = 0; k < r->num_out; k++) {
    if (r->out[k]) map[r->out[k]] = m->out[k];
    else m->out[k] = 0;
  }
}

static bool read_outside(const zn_graph *g, zn_vid v, const bool *moves) {
  if (!v) return false;
  for (uint32_t i = 0; i < g->num_outputs; i++)
    if (g->outputs[i] == v) return true;
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *r = &g->nodes[g->order[i]];
    for (uint32_t k = 0; !r->dead && !moves[g->order[i]] && k < r->num_in; k++)
      if (r->in[k] == v) return true;
  }
  return false;
}

/* The outputs of n and of its bodies become the given ones. */
static void set_outputs(zn_graph *g, zn_nid n, zn_graph *const *body, const zn_vid *out, uint32_t num, zn_vid *const *map) {
  g->nodes[n].out = ZN_ARRAY(g->arena, zn_vid, num + 1);
  g->nodes[n].num_out = num;
  for (int b = 0; b < 2; b++) {
    for (uint32_t i = 0; i < body[b]->num_outputs; i++) body[b]->vals[body[b]->outputs[i]].is_output = false;
    body[b]->num_outputs = 0;
  }
  for (uint32_t i = 0; i < num; i++) {
    g->nodes[n].out[i] = out[i];
    g->vals[out[i]].def = n;
    g->vals[out[i]].def_out = i;
    for (int b = 0; b < 2; b++) zn_graph_output(body[b], map[b][out[i]]);
  }
}

static void move_in(ranks *p, zn_graph *g, zn_nid n, const bool *moves) {
  zn_graph *body[2] = {zn_node_graph(&g->nodes[n], "else_branch"), zn_node_graph(&g->nodes[n], "then_branch")};
  zn_vid *map[2], both[2], *out = ZN_ARRAY(&p->c->tmp, zn_vid, g->num_vals);
  uint32_t num = 0;
  for (int b = 0; b < 2; b++) {
    map[b] = ZN_ARRAY(&p->c->tmp, zn_vid, g->num_vals);
    for (uint32_t i = 0; i < g->nodes[n].num_out; i++)
      if (g->nodes[n].out[i]) map[b][g->nodes[n].out[i]] = body[b]->outputs[i];
  }
  for (uint32_t i = 0; i < g->nodes[n].num_out; i++)
    if (read_outside(g, g->nodes[n].out[i], moves)) out[num++] = g->nodes[n].out[i];
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_nid r = g->order[i];
    if (g->nodes[r].dead || !moves[r]) continue;
    for (uint32_t k = 0; k < g->nodes[r].num_in; k++) {
      const zn_vid v = g->nodes[r].in[k];
      if (!v || map[0][v]) continue;
      if (g->vals[v].cst) for (int b = 0; b < 2; b++) both[b] = zn_graph_const(body[b], g->vals[v].name, g->vals[v].cst);
      else capture(g, n, v, body, both);
      for (int b = 0; b < 2; b++) map[b][v] = both[b];
    }
    for (int b = 0; b < 2; b++) copy_node(g, &g->nodes[r], body[b], map[b], b == 1);
    for (uint32_t k = 0; k < g->nodes[r].num_out; k++)
      if (read_outside(g, g->nodes[r].out[k], moves)) out[num++] = g->nodes[r].out[k];
  }
  for (zn_nid r = 1; r < g->num_nodes; r++)
    if (moves[r]) zn_graph_kill(g, r);
  set_outputs(g, n, body, out, num, map);
}

/* ---- one change ---- */

static void quiet_sink(void *user, zn_severity sev, const char *line) {
  (void)user;
  (void)sev;
  (void)line;
}

static zn_status try_branch(ranks *p, zn_graph *g, zn_nid n, bool then) {
  const zn_sink sink = p->c->sink;
  const unsigned errors = p->c->errors;
  p->c->sink = quiet_sink;
  const zn_status st = zn_infer_branch(p->c, g, n, then);
  p->c->sink = sink;
  p->c->errors = errors;
  return st;
}

/* The rank of output i of the else-branch (0) or the then-branch (1) of n. */
static int branch_rank(const zn_graph *g, zn_nid n, int then, uint32_t i) {
  const zn_graph *body = zn_node_graph(&g->nodes[n], then ? "then_branch" : "else_branch");
  return body->vals[body->outputs[i]].type.rank;
}

/* An output that nobody reads and whose rank is declared: one branch has that rank. Results of a body are declared by those
 * of its node. */
static zn_status take_declared(ranks *p, zn_graph *g, zn_nid n, bool *out_changed) {
  for (uint32_t i = 0; i < g->nodes[n].num_out; i++) {
    const zn_vid v = g->nodes[n].out[i];
    if (!open_rank(g, v) || !g->vals[v].declared) continue;
    const int want = g->vals[v].declared->rank, no = branch_rank(g, n, 0, i), yes = branch_rank(g, n, 1, i);
    for (int b = 0; b < 2; b++) {
      zn_graph *body = zn_node_graph(&g->nodes[n], b ? "then_branch" : "else_branch");
      if (!body->vals[body->outputs[i]].declared) body->vals[body->outputs[i]].declared = g->vals[v].declared;
    }
    if (no < 0 || yes < 0 || (no == want) == (yes == want)) continue;
    *out_changed = true;
    return inline_branch(p, g, n, yes == want, true);
  }
  return ZN_OK;
}

static zn_status change(ranks *p, zn_graph *g, zn_nid n, bool *out_changed) {
  int64_t cond;
  const zn_nid reader = first_reader(g, n);
  if (is_condition_known(g, n, &cond)) { /* what its outputs hold may decide others */
    *out_changed = true;
    return inline_branch(p, g, n, cond != 0, false);
  }
  if (!reader) return take_declared(p, g, n, out_changed);
  *out_changed = true;
  move_in(p, g, n, region(p, g, n, reader));
  if (!zn_graph_toposort(g)) ZN_BUG(p->c, "moving nodes into a branch made a cycle");
  const zn_status bad[2] = {try_branch(p, g, n, false), try_branch(p, g, n, true)};
  if (bad[0] == ZN_OK && bad[1] == ZN_OK) return ZN_OK;
  if (bad[0] != ZN_OK && bad[1] != ZN_OK) return zn_infer_node(p->c, g, n);
  return inline_branch(p, g, n, bad[1] == ZN_OK, true);
}

static zn_status settle(ranks *p, zn_graph *g);

/* A branch that never runs has no types. */
static bool never_runs(const zn_graph *g, zn_nid n, const zn_graph *body) {
  int64_t cond;
  if (g->nodes[n].op != ZN_OP_If || !is_condition_known(g, n, &cond)) return false;
  return body != zn_node_graph(&g->nodes[n], cond ? "then_branch" : "else_branch");
}

static zn_status settle_bodies(ranks *p, zn_graph *g) {
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_nid n = g->order[i];
    for (uint32_t k = 0; k < g->nodes[n].num_attrs && !g->nodes[n].dead; k++) {
      const zn_attr *a = &g->nodes[n].attrs[k];
      if (a->kind == ZN_A_GRAPH && !never_runs(g, n, a->u.g)) ZN_TRY(settle(p, a->u.g));
    }
  }
  return ZN_OK;
}

/* Bodies first: what they settle decides the types of their node. */
static zn_status settle(ranks *p, zn_graph *g) {
  for (bool again = true; again && p->steps < MAX_STEPS;) {
    const uint32_t before = p->steps;
    ZN_TRY(settle_bodies(p, g));
    again = p->steps != before;
    if (again) ZN_TRY(zn_infer_graph(p->c, g));
    for (uint32_t i = 0; i < g->num_order; i++) {
      const zn_nid n = g->order[i];
      bool changed = false;
      if (g->nodes[n].op != ZN_OP_If || g->nodes[n].dead) continue;
      ZN_TRY(change(p, g, n, &changed));
      if (!changed) continue;
      p->steps++;
      zn_graph_compact(g);
      ZN_TRY(zn_infer_graph(p->c, g));
      again = true;
      break;
    }
  }
  return ZN_OK;
}

/* Is there an If whose result has an open rank, here or in a body that runs? */
static bool wanted(const zn_graph *g) {
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_nid n = g->order[i];
    const zn_node *nd = &g->nodes[n];
    for (uint32_t k = 0; nd->op == ZN_OP_If && k < nd->num_out; k++)
      if (open_rank(g, nd->out[k])) return true;
    for (uint32_t k = 0; k < nd->num_attrs; k++)
      if (nd->attrs[k].kind == ZN_A_GRAPH && !never_runs(g, n, nd->attrs[k].u.g) && wanted(nd->attrs[k].u.g)) return true;
  }
  return false;
}

zn_status zn_pass_ranks(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  ranks p = {c, o, 0};
  return wanted(g) ? settle(&p, g) : ZN_OK;
}
