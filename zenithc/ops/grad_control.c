/* Derivatives of If, Scan and Loop, whose bodies get a Gradient of their own. In a body, y is the sum of its results times
 * their adjoints, which come in as inputs.
 * If: an If of the same condition gives the adjoints of what its branches capture.
 * Scan, Loop: run once more, they also hand out what every step began with; a Scan then goes back over the steps, from the last
 * one, with the adjoints of the states as its state, and the sums of those of the captures. */
#include "zenithc/ops/grad.h"

enum { MAX_PARTS = 256 }; /* of one list of states, scanned values or captures */

/* ---------------------------------------------------------------- in a body */

/* y: the sum of ReduceSum(of[k] by[k]); 0 for none. */
static zn_vid weighed_sum(zn_graph *g, const zn_vid *of, const zn_vid *by, uint32_t n) {
  zn_vid y = 0;
  for (uint32_t k = 0; k < n; k++) {
    const zn_vid both[2] = {of[k], by[k]}, m = zn_node_out(g, zn_graph_node(g, ZN_OP_Mul, "weigh", both, 2, 1), 0);
    const zn_nid sum = zn_graph_node(g, ZN_OP_ReduceSum, "sum", &m, 1, 1);
    zn_node_set_int(g, sum, "keepdims", 0);
    const zn_vid part = zn_node_out(g, sum, 0), so_far[2] = {y, part};
    y = y ? zn_node_out(g, zn_graph_node(g, ZN_OP_Add, "all", so_far, 2, 1), 0) : part;
  }
  return y;
}

/* out[i] = dy / d xs[i] */
static void gradient_of(zn_graph *g, const char *name, zn_vid y, const zn_vid *xs, uint32_t n, zn_vid *out) {
  zn_str *names = ZN_ARRAY(g->arena, zn_str, n + 1);
  for (uint32_t i = 0; i < n; i++) {
    const char *x = g->vals[xs[i]].name;
    names[i] = (zn_str){x, strlen(x)};
  }
  const zn_nid d = zn_graph_node(g, ZN_OP_Gradient, name, xs, n, n);
  zn_node_set_attr(g, d, (zn_attr){.name = "xs", .kind = ZN_A_STRINGS, .n = n, .u.ss = names});
  zn_node_set_str(g, d, "y", g->vals[y].name);
  for (uint32_t i = 0; i < n; i++) out[i] = g->nodes[d].out[i];
}

static void set_outputs(zn_graph *g, const zn_vid *out, uint32_t n) {
  for (uint32_t o = 0; o < g->num_outputs; o++) g->vals[g->outputs[o]].is_output = false;
  g->num_outputs = 0;
  for (uint32_t i = 0; i < n; i++) zn_graph_output(g, out[i]);
}

static void set_body(zn_graph *g, zn_nid n, const char *name, zn_graph *body) {
  body->parent = g;
  zn_node_set_attr(g, n, (zn_attr){.name = name, .kind = ZN_A_GRAPH, .u.g = body});
}

static bool is_real(const zn_type *t) { return t->kind == ZN_V_TENSOR && zn_is_float((zn_dtype)t->dtype); }

/* ---------------------------------------------------------------- If */

/* The adjoints of the marked ones of the branch's `own` inputs; dy: adjoints of its results (0: none), which it captures. */
static zn_graph *backward_branch(zn_grad *a, const zn_graph *branch, const bool *marked, uint32_t own, const zn_vid *dy,
                                 uint32_t num_dy) {
  zn_graph *g = zn_graph_clone(branch);
  zn_vid *xs = ZN_ARRAY(g->arena, zn_vid, own + 1), *of = ZN_ARRAY(g->arena, zn_vid, num_dy + 1);
  zn_vid *by = ZN_ARRAY(g->arena, zn_vid, num_dy + 1), *out = ZN_ARRAY(g->arena, zn_vid, own + 1);
  uint32_t n = 0, m = 0;
  for (uint32_t i = 0; i < own; i++)
    if (marked[i]) xs[n++] = g->inputs[i];
  for (uint32_t o = 0; o < num_dy; o++) {
    if (!dy[o]) continue;
    of[m] = g->outputs[o];
    by[m++] = zn_graph_input(g, a->w.g->vals[dy[o]].name, *zn_grad_type(a, dy[o]));
  }
  gradient_of(g, zn_grad_node(a)->name, weighed_sum(g, of, by, m), xs, n, out);
  set_outputs(g, out, n);
  if (a->w.st == ZN_OK) a->w.st = zn_grad_resolve(a->w.c, g);
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
  set_body(g, id, "then_branch", then);
  set_body(g, id, "else_branch", other);
  g->nodes[id].num_captures = num_in - 1;
  zn_rw_infer(&a->w, id);
  for (uint32_t i = 0, k = 0; i < own && a->w.st == ZN_OK; i++)
    if (marked[i]) zn_grad_give(a, i + 1, g->nodes[id].out[k++]);
}

/* ---------------------------------------------------------------- Scan, Loop */

typedef struct steps { /* inputs of the body: lead, states, scanned, captures; results: lead / 2, states, stacked */
  zn_node m;
  zn_graph *body;
  uint32_t lead, states, scanned, captures, stacked;
  zn_nid again; /* the node that also hands out lead and states */
} steps;

static int64_t axis_or(const zn_node *m, const char *attr, uint32_t i) {
  uint32_t n;
  const int64_t *v = m->op == ZN_OP_Scan ? zn_node_ints(m, attr, &n) : NULL; /* a Loop has none */
  return v && i < n ? v[i] : 0;
}

/* The node with what every step begins with as more results, stacked along the first axis. */
static zn_nid run_again(zn_grad *a, const steps *s) {
  zn_graph *g = a->w.g, *body = zn_graph_clone(s->body);
  const uint32_t more = s->lead + s->states, outs = s->m.num_out;
  int64_t axes[MAX_PARTS] = {0}, turned[MAX_PARTS] = {0};
  const zn_nid n = zn_rw_raw(&a->w, s->m.op, s->m.in, s->m.num_in, outs + more);
  if (!n) return 0;
  for (uint32_t i = 0; i < more; i++)
    zn_graph_output(body, zn_node_out(body, zn_graph_node(body, ZN_OP_Identity, "begin", &body->inputs[i], 1, 1), 0));
  for (uint32_t k = 0; k < s->m.num_attrs; k++)
    if (s->m.attrs[k].kind != ZN_A_GRAPH) zn_node_set_attr(g, n, s->m.attrs[k]);
  set_body(g, n, "body", body);
  g->nodes[n].num_captures = s->captures;
  if (s->m.op == ZN_OP_Scan) {
    for (uint32_t p = 0; p < s->stacked; p++) {
      axes[p] = axis_or(&s->m, "scan_output_axes", p);
      turned[p] = axis_or(&s->m, "scan_output_directions", p);
    }
    zn_node_set_ints(g, n, "scan_output_axes", axes, s->stacked + more);
    zn_node_set_ints(g, n, "scan_output_directions", turned, s->stacked + more);
  }
  zn_rw_infer(&a->w, n);
  return n;
}

typedef struct back { /* the Scan that goes back */
  zn_graph *body;
  zn_vid state[MAX_PARTS], first[MAX_PARTS], next[MAX_PARTS]; /* in the body, before the first step, after each */
  zn_vid seen[MAX_PARTS], from[MAX_PARTS];                    /* scanned: in the body, outside */
  int64_t axis[MAX_PARTS], turned[MAX_PARTS];
  zn_vid xs[MAX_PARTS], dx[MAX_PARTS];
  uint32_t num_state, num_seen, num_xs;
  zn_vid of[MAX_PARTS], by[MAX_PARTS];
  uint32_t num_by;
} back;

static void scan_over(back *b, zn_vid inside, zn_vid outside, int64_t axis, bool turned) {
  b->seen[b->num_seen] = inside;
  b->from[b->num_seen] = outside;
  b->axis[b->num_seen] = axis;
  b->turned[b->num_seen++] = turned;
}

static void add_state(back *b, zn_vid inside, zn_vid first) {
  b->state[b->num_state] = inside;
  b->first[b->num_state++] = first;
}

/* The parts of the Scan that goes back, but for its node. */
static void collect(zn_grad *a, const steps *s, back *b) {
  zn_graph *g = a->w.g, *body = b->body;
  const uint32_t saved = s->m.num_out, past_lead = s->lead / 2, first_capture = s->lead + s->states + s->scanned;
  for (uint32_t i = 0; i < s->lead + s->states; i++) scan_over(b, body->inputs[i], g->nodes[s->again].out[saved + i], 0, true);
  for (uint32_t k = 0; k < s->scanned; k++)
    scan_over(b, body->inputs[s->lead + s->states + k], s->m.in[s->states + k], axis_or(&s->m, "scan_input_axes", k),
              !axis_or(&s->m, "scan_input_directions", k));
  for (uint32_t i = 0; i < s->states; i++) { /* adjoints of states, of the real ones */
    const zn_vid x = body->inputs[s->lead + i], dy = zn_grad_of(a, i);
    if (!is_real(&body->vals[x].type)) continue;
    const zn_vid d = zn_graph_input(body, "d", body->vals[x].type);
    add_state(b, d, dy ? dy : zn_grad_zeros(a, s->m.out[i] ? s->m.out[i] : g->nodes[s->again].out[i]));
    b->of[b->num_by] = body->outputs[past_lead + i], b->by[b->num_by++] = d;
    b->xs[b->num_xs++] = x;
  }
  for (uint32_t p = 0; p < s->stacked; p++) {
    const zn_vid dy = zn_grad_of(a, s->states + p), o = body->outputs[past_lead + s->states + p];
    if (!dy) continue;
    const zn_vid d = zn_graph_input(body, "dy", body->vals[o].type);
    scan_over(b, d, dy, axis_or(&s->m, "scan_output_axes", p), !axis_or(&s->m, "scan_output_directions", p));
    b->of[b->num_by] = o, b->by[b->num_by++] = d;
  }
  for (uint32_t i = 0; i < s->captures; i++) { /* sums of their adjoints */
    if (!zn_grad_wants(a, first_capture + i)) continue;
    const zn_vid x = body->inputs[first_capture + i];
    add_state(b, zn_graph_input(body, "sum", body->vals[x].type), zn_grad_zeros(a, s->m.in[first_capture + i]));
    b->xs[b->num_xs++] = x;
  }
  for (uint32_t k = 0; k < s->scanned; k++)
    if (zn_grad_wants(a, s->states + k)) b->xs[b->num_xs++] = body->inputs[s->states + k];
}

/* Inputs of the body in the order of Scan: states, scanned values, captures. */
static void order_inputs(const steps *s, const back *b) {
  zn_graph *g = b->body;
  zn_vid *in = ZN_ARRAY(g->arena, zn_vid, b->num_state + b->num_seen + s->captures + 1);
  uint32_t n = 0;
  for (uint32_t i = 0; i < b->num_state; i++) in[n++] = b->state[i];
  for (uint32_t i = 0; i < b->num_seen; i++) in[n++] = b->seen[i];
  for (uint32_t i = 0; i < s->captures; i++) in[n++] = g->inputs[s->lead + s->states + s->scanned + i];
  g->inputs = in;
  g->num_inputs = g->cap_inputs = n;
}

static zn_nid go_back(zn_grad *a, const steps *s, back *b) {
  zn_graph *g = a->w.g, *body = b->body;
  const uint32_t first_capture = s->m.num_in - s->captures;
  zn_vid *in = ZN_ARRAY(g->arena, zn_vid, b->num_state + b->num_seen + s->captures + 1), out[2 * MAX_PARTS];
  int64_t axes[MAX_PARTS], turned[MAX_PARTS];
  uint32_t n = 0, dxs = 0, real = 0;
  gradient_of(body, s->m.name, weighed_sum(body, b->of, b->by, b->num_by), b->xs, b->num_xs, b->dx);
  for (uint32_t i = 0; i < s->states; i++) real += is_real(&body->vals[body->inputs[s->lead + i]].type);
  for (uint32_t i = 0; i < b->num_state; i++) {
    const zn_vid sum[2] = {b->state[i], b->dx[i]};
    out[i] = i < real ? b->dx[i] : zn_node_out(body, zn_graph_node(body, ZN_OP_Add, "sum", sum, 2, 1), 0);
  }
  for (uint32_t k = 0; k < s->scanned; k++) {
    if (!zn_grad_wants(a, s->states + k)) continue;
    axes[dxs] = axis_or(&s->m, "scan_input_axes", k);
    turned[dxs] = !axis_or(&s->m, "scan_input_directions", k);
    out[b->num_state + dxs] = b->dx[b->num_state + dxs];
    dxs++;
  }
  order_inputs(s, b);
  set_outputs(body, out, b->num_state + dxs);
  if (a->w.st == ZN_OK) a->w.st = zn_grad_resolve(a->w.c, body);
  for (uint32_t i = 0; i < b->num_state; i++) in[n++] = b->first[i];
  for (uint32_t i = 0; i < b->num_seen; i++) in[n++] = b->from[i];
  for (uint32_t i = 0; i < s->captures; i++) in[n++] = s->m.in[first_capture + i];
  const zn_nid id = zn_rw_raw(&a->w, ZN_OP_Scan, in, n, b->num_state + dxs);
  if (!id) return 0;
  set_body(g, id, "body", body);
  g->nodes[id].num_captures = s->captures;
  zn_node_set_int(g, id, "num_scan_inputs", b->num_seen);
  zn_node_set_ints(g, id, "scan_input_axes", b->axis, b->num_seen);
  zn_node_set_ints(g, id, "scan_input_directions", b->turned, b->num_seen);
  zn_node_set_ints(g, id, "scan_output_axes", axes, dxs);
  zn_node_set_ints(g, id, "scan_output_directions", turned, dxs);
  zn_rw_infer(&a->w, id);
  return id;
}

static void differentiate_steps(zn_grad *a, steps *s) {
  zn_graph *g = a->w.g;
  if (s->m.num_in + s->m.num_out > MAX_PARTS / 4) {
    zn_grad_refuse(a, "%s with so many inputs and outputs has no derivative here", zn_op_name(s->m.op));
    return;
  }
  back *b = ZN_NEW(&a->w.c->tmp, back);
  s->again = run_again(a, s);
  if (a->w.st != ZN_OK) return;
  b->body = zn_graph_clone(s->body);
  collect(a, s, b);
  const zn_nid id = a->w.st == ZN_OK ? go_back(a, s, b) : 0;
  if (a->w.st != ZN_OK || !id) return;
  uint32_t k = 0;
  for (uint32_t i = 0; i < s->states; i++) {
    if (!is_real(&s->body->vals[s->body->inputs[s->lead + i]].type)) continue;
    zn_grad_give(a, s->lead + i, g->nodes[id].out[k++]);
  }
  for (uint32_t i = s->m.num_in - s->captures; i < s->m.num_in; i++)
    if (zn_grad_wants(a, i)) zn_grad_give(a, i, g->nodes[id].out[k++]);
  for (uint32_t i = 0; i < s->scanned; i++)
    if (zn_grad_wants(a, s->states + i)) zn_grad_give(a, s->states + i, g->nodes[id].out[k++]);
}

void zn_grad_scan(zn_grad *a) {
  steps s = {.m = *zn_grad_node(a), .body = zn_node_graph(zn_grad_node(a), "body")};
  s.captures = s.m.num_captures;
  s.scanned = (uint32_t)zn_node_int(&s.m, "num_scan_inputs");
  s.states = s.m.num_in - s.captures - s.scanned;
  s.stacked = s.m.num_out - s.states;
  differentiate_steps(a, &s);
}

void zn_grad_loop(zn_grad *a) {
  steps s = {.m = *zn_grad_node(a), .body = zn_node_graph(zn_grad_node(a), "body"), .lead = 2};
  s.captures = s.m.num_captures;
  s.states = s.m.num_in - s.captures - s.lead;
  s.stacked = s.m.num_out - s.states;
  differentiate_steps(a, &s);
}
