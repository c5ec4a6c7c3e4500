/* If, Loop and Scan with drawn bodies. A body sees its own inputs and some captured values of the graph around it. */
#include "tests/fuzz/graphs/fuzz.h"

enum { MAX_CAP = 2 };

typedef struct body {
  fz in; /* drawing state of the body */
  zn_graph *g;
} body;

static void open_body(fz *f, body *b, const char *name) {
  b->g = zn_graph_new(f->a, f->g->ex, name);
  b->g->parent = f->g;
  b->in = *f;
  b->in.g = b->g;
  b->in.pool = NULL;
  b->in.n = b->in.cap = 0;
  b->in.nodes = 0;
  b->in.depth = f->depth + 1;
}

static void body_input(body *b, const char *name, const zn_type *t) {
  fz_add(&b->in, zn_graph_input(b->g, name, *t));
}

/* Goes on drawing random numbers where the body stopped. */
static void close_body(fz *f, body *b) {
  f->rng = b->in.rng;
  memcpy(f->tried, b->in.tried, sizeof f->tried);
  memcpy(f->made, b->in.made, sizeof f->made);
}

/* The newest value of the body with this element type, brought to shape [rank, dims] by adding it to `base`; base when
 * that fails. */
static zn_vid like(body *b, zn_vid base) {
  fz *f = &b->in;
  const zn_type t = *fz_type(f, base);
  for (uint32_t i = f->n; i-- > 0;) {
    zn_vid v = f->pool[i];
    const zn_type *y = fz_type(f, v);
    if (!b->g->vals[v].def || y->dtype != t.dtype || y->rank > t.rank) continue;
    if (y->rank == t.rank && !memcmp(y->dims, t.dims, (size_t)t.rank * sizeof t.dims[0])) return v;
    bool fine = true;
    for (int d = 0; d < y->rank; d++) {
      zn_expr e = t.dims[t.rank - y->rank + d];
      fine = fine && (y->dims[d] == e || zn_ex_is(b->g->ex, y->dims[d], 1));
    }
    if (fine && zn_is_float((zn_dtype)t.dtype)) {
      zn_vid s = fz_node1(f, ZN_OP_Add, base, v);
      if (s) return s;
    }
  }
  zn_vid s = zn_is_float((zn_dtype)t.dtype) ? fz_node1(f, ZN_OP_Tanh, base, 0) : 0;
  return s ? s : base;
}

static uint32_t captures(fz *f, zn_vid *out) {
  uint32_t n = fz_below(f, MAX_CAP + 1), k = 0;
  for (uint32_t i = 0; i < n; i++) {
    zn_vid v = fz_pick(f, ZN_NONE, -1);
    if (v) out[k++] = v;
  }
  return k;
}

static zn_vid control(fz *f, zn_op op, const zn_vid *in, uint32_t n, uint32_t caps, uint32_t outs,
                      const fz_attrs *at) {
  f->tried[op]++;
  zn_nid x = zn_graph_node(f->g, op, NULL, in, n, outs);
  f->g->nodes[x].num_captures = caps;
  for (uint32_t i = 0; i < at->n; i++) zn_node_set_attr(f->g, x, at->v[i]);
  if (zn_infer_node(f->c, f->g, x) != ZN_OK) {
    zn_graph_kill(f->g, x);
    zn_graph_compact(f->g);
    return 0;
  }
  for (uint32_t i = 0; i < outs; i++)
    if (fz_type(f, zn_node_out(f->g, x, i))->rank >= 0) fz_add(f, zn_node_out(f->g, x, i));
  f->made[op]++;
  f->nodes++;
  return zn_node_out(f->g, x, 0);
}

static zn_attr graph_attr(const char *name, zn_graph *g) {
  return (zn_attr){.name = name, .kind = ZN_A_GRAPH, .u.g = g};
}

static bool draw_if(fz *f) {
  zn_vid base = fz_some(f, f->main, -1), in[2 + MAX_CAP] = {0};
  if (!base) return false;
  in[0] = fz_chance(f, 60) ? fz_leaf(f, ZN_BOOL, 0, NULL) : fz_pick(f, ZN_BOOL, 0);
  if (!in[0]) return false;
  in[1] = base;
  uint32_t caps = 1 + captures(f, in + 2);
  bool same = fz_chance(f, 70);
  fz_attrs at = {.n = 0};
  for (int k = 0; k < 2; k++) {
    body b;
    open_body(f, &b, k ? "then" : "else");
    for (uint32_t i = 0; i < caps; i++) body_input(&b, "c", fz_type(f, in[1 + i]));
    fz_draw_nodes(&b.in, 1 + fz_below(f, 3));
    zn_vid o = like(&b, b.g->inputs[0]);
    if (!same && k && fz_type(&b.in, o)->rank > 0) { /* another shape: twice along axis 0 */
      fz_attrs ax = {.n = 0};
      fz_set_i(&ax, "axis", 0);
      zn_vid two[2] = {o, o};
      zn_vid cat = fz_node(&b.in, ZN_OP_Concat, two, 2, 1, &ax);
      if (cat) o = cat;
    }
    if (!b.g->vals[o].def) o = fz_node1(&b.in, ZN_OP_Identity, o, 0);
    close_body(f, &b);
    if (!o) return false;
    zn_graph_output(b.g, o);
    at.v[at.n++] = graph_attr(k ? "then_branch" : "else_branch", b.g);
  }
  return control(f, ZN_OP_If, in, 1 + caps, caps, 1, &at) != 0;
}

/* One or two states, maybe a scan output; the trip count known or an input; sometimes a condition that data decides. */
static bool draw_loop(fz *f) {
  zn_vid in[6 + MAX_CAP] = {0};
  uint32_t states = 1 + fz_below(f, 2);
  in[0] = fz_chance(f, 60) ? fz_scalar(f, ZN_I64, (double)fz_range(f, 0, 4))
                           : fz_leaf(f, ZN_I64, 0, NULL);
  in[1] = fz_chance(f, 30) ? zn_graph_const_scalar(f->g, ZN_BOOL, 1) : 0;
  for (uint32_t i = 0; i < states; i++) in[2 + i] = fz_some(f, f->main, (int)fz_range(f, 0, 3));
  if (!in[0] || !in[2] || (states > 1 && !in[3])) return false;
  uint32_t caps = captures(f, in + 2 + states), scans = fz_below(f, 2);
  body b;
  open_body(f, &b, "body");
  zn_type iter = zn_type_tensor(ZN_I64, 0, NULL), cond = zn_type_tensor(ZN_BOOL, 0, NULL);
  body_input(&b, "i", &iter);
  body_input(&b, "keep", &cond);
  for (uint32_t i = 0; i < states + caps; i++)
    body_input(&b, i < states ? "s" : "c", fz_type(f, in[2 + i]));
  fz_draw_nodes(&b.in, 1 + fz_below(f, 4));
  zn_vid keep = fz_chance(f, 60) ? fz_node1(&b.in, ZN_OP_Identity, b.g->inputs[1], 0)
                                 : fz_node1(&b.in, ZN_OP_Less, b.g->inputs[0],
                                            fz_scalar(&b.in, ZN_I64, (double)fz_range(f, 0, 3)));
  zn_vid outs[3];
  for (uint32_t i = 0; i < states; i++) {
    outs[i] = like(&b, b.g->inputs[2 + i]);
    if (!b.g->vals[outs[i]].def || (i && outs[i] == outs[0]))
      outs[i] = fz_node1(&b.in, ZN_OP_Identity, outs[i], 0);
    if (!outs[i]) break;
  }
  zn_vid scan = scans ? fz_node1(&b.in, ZN_OP_Identity, b.in.pool[fz_below(&b.in, b.in.n)], 0) : 0;
  close_body(f, &b);
  if (!keep || !outs[0] || (states > 1 && !outs[1])) return false;
  zn_graph_output(b.g, keep);
  for (uint32_t i = 0; i < states; i++) zn_graph_output(b.g, outs[i]);
  if (scan) zn_graph_output(b.g, scan);
  fz_attrs at = {.n = 0};
  at.v[at.n++] = graph_attr("body", b.g);
  return control(f, ZN_OP_Loop, in, 2 + states + caps, caps, states + (scan != 0), &at) != 0;
}

static bool draw_scan(fz *f) {
  zn_vid in[2 + MAX_CAP] = {0};
  in[0] = fz_some(f, f->main, (int)fz_range(f, 0, 2));
  in[1] = fz_some(f, f->main, (int)fz_range(f, 1, 3));
  if (!in[0] || !in[1]) return false;
  const zn_type seq = *fz_type(f, in[1]);
  int axis = (int)fz_below(f, (uint32_t)seq.rank), n = 0;
  zn_expr dims[ZN_MAX_RANK];
  for (int d = 0; d < seq.rank; d++)
    if (d != axis) dims[n++] = seq.dims[d];
  zn_type item = zn_type_tensor((zn_dtype)seq.dtype, n, dims);
  uint32_t caps = captures(f, in + 2);
  body b;
  open_body(f, &b, "body");
  body_input(&b, "s", fz_type(f, in[0]));
  body_input(&b, "item", &item);
  for (uint32_t i = 0; i < caps; i++) body_input(&b, "c", fz_type(f, in[2 + i]));
  fz_draw_nodes(&b.in, 1 + fz_below(f, 4));
  zn_vid s = like(&b, b.g->inputs[0]);
  if (!b.g->vals[s].def) s = fz_node1(&b.in, ZN_OP_Identity, s, 0);
  zn_vid y = fz_node1(&b.in, ZN_OP_Identity, b.in.pool[fz_below(&b.in, b.in.n)], 0);
  close_body(f, &b);
  if (!s || !y) return false;
  zn_graph_output(b.g, s);
  zn_graph_output(b.g, y);
  fz_attrs at = {.n = 0};
  at.v[at.n++] = graph_attr("body", b.g);
  fz_set_i(&at, "num_scan_inputs", 1);
  int64_t v = axis, dir = fz_below(f, 2);
  fz_set_is(f, &at, "scan_input_axes", &v, 1);
  fz_set_is(f, &at, "scan_input_directions", &dir, 1);
  if (fz_chance(f, 40)) {
    int64_t back = 1;
    fz_set_is(f, &at, "scan_output_directions", &back, 1);
  }
  return control(f, ZN_OP_Scan, in, 2 + caps, caps, 2, &at) != 0;
}

bool fz_draw_control(fz *f, zn_op op) {
  switch (op) {
    case ZN_OP_If: return draw_if(f);
    case ZN_OP_Loop: return draw_loop(f);
    case ZN_OP_Scan: return draw_scan(f);
    default: return false;
  }
}
