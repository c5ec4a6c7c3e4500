/* Gradient nodes: which nodes lie between the variables and y, copies of them where the variables take other values, and the walk
 * back that hands each node to its rule. */
#include "zenithc/ops/grad.h"

#include <stdarg.h>

static const zn_grad_rule rules[ZN_OP_COUNT] = {
#define GRAD(op, rule) [ZN_OP_##op] = zn_grad_##rule,
#include "zenithc/ops/grad.def"
#undef GRAD
};

/* ---------------------------------------------------------------- adjoints */

static void reserve(zn_grad *a) {
  uint32_t need = a->w.g->num_vals;
  if (need <= a->cap) return;
  uint32_t cap = need + need / 2 + 64;
  zn_vid *adj = ZN_ARRAY(&a->w.c->tmp, zn_vid, cap);
  bool *varies = ZN_ARRAY(&a->w.c->tmp, bool, cap);
  if (a->cap) memcpy(adj, a->adj, a->cap * sizeof *adj);
  if (a->cap) memcpy(varies, a->varies, a->cap * sizeof *varies);
  a->adj = adj;
  a->varies = varies;
  a->cap = cap;
}

zn_vid zn_grad_of(const zn_grad *a, uint32_t o) {
  zn_vid v = zn_grad_out(a, o);
  return v && v < a->cap ? a->adj[v] : 0;
}

bool zn_grad_wants(const zn_grad *a, uint32_t i) {
  zn_vid v = zn_grad_in(a, i);
  return v && v < a->cap && a->varies[v];
}

void zn_grad_give(zn_grad *a, uint32_t i, zn_vid v) {
  if (!v || !zn_grad_wants(a, i) || a->w.st != ZN_OK) return;
  zn_vid x = zn_grad_in(a, i);
  v = zn_grad_sum_to(a, v, x);
  v = zn_rw_cast(&a->w, v, (zn_dtype)zn_grad_type(a, x)->dtype);
  if (a->adj[x]) v = zn_rw2(&a->w, ZN_OP_Add, a->adj[x], v);
  reserve(a);
  a->adj[x] = v;
}

void zn_grad_refuse(zn_grad *a, const char *fmt, ...) {
  char text[256];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  const char *where = zn_node_where(a->w.c, zn_grad_node(a));
  zn_fail(a->w.c, ZN_ERR_UNSUPPORTED, where, "the gradient of '%s' passes here: %s", a->y, text);
  if (!a->failed)
    zn_help(a->w.c, "name what this node computes, not what it reads, in xs or zs of Gradient node '%s'",
            zn_rw_node(&a->w)->name);
  a->failed = true;
}

/* ---------------------------------------------------------------- shapes */

static zn_vid shape_of(zn_grad *a, zn_vid v) { return zn_rw1(&a->w, ZN_OP_Shape, v); }

/* Expand makes new symbols of sizes that may be negative for all that is known (7 - 2 N); broadcasting keeps them. */
zn_vid zn_grad_expand_to(zn_grad *a, zn_vid v, zn_vid like) {
  if (a->w.st != ZN_OK) return 0;
  const zn_type *t = zn_grad_type(a, like);
  bool sizes = true;
  for (int d = 0; d < t->rank; d++) {
    int64_t lo, hi;
    zn_ex_range(a->w.g->ex, t->dims[d], &lo, &hi);
    sizes &= lo >= 0;
  }
  if (sizes) return zn_rw2(&a->w, ZN_OP_Expand, v, shape_of(a, like));
  return zn_rw3(&a->w, ZN_OP_Where, zn_rw2(&a->w, ZN_OP_Equal, like, like), v, v);
}

zn_vid zn_grad_shaped(zn_grad *a, zn_vid v, zn_vid like) {
  if (a->w.st != ZN_OK) return 0;
  const zn_vid in[2] = {v, shape_of(a, like)};
  return zn_rw_attr_int(&a->w, ZN_OP_Reshape, in, 2, "allowzero", 1);
}

zn_vid zn_grad_zeros(zn_grad *a, zn_vid like) {
  return a->w.st == ZN_OK ? zn_grad_expand_to(a, zn_rw_num(&a->w, (zn_dtype)zn_grad_type(a, like)->dtype, 0), like) : 0;
}

/* Axis d of v added up to axis `from` of `like`, which is either as long or 1, as the run decides: elements go where min(their
 * position, the last one) says. */
static zn_vid fold_axis(zn_grad *a, zn_vid v, int d, zn_vid like, int from) {
  zn_rw *w = &a->w;
  const int64_t at = d, at_like = from, rank = zn_grad_type(a, v)->rank;
  const zn_vid zero = zn_rw_num(w, ZN_I64, 0), one = zn_rw_num(w, ZN_I64, 1), shape = shape_of(a, v);
  const zn_vid before = zn_rw_slice(w, shape, 0, 0, at), behind = zn_rw_slice(w, shape, 0, at + 1, rank);
  const zn_vid n = zn_rw2(w, ZN_OP_Gather, shape, zn_rw_num(w, ZN_I64, (double)at));
  const zn_vid m = zn_rw_slice(w, shape_of(a, like), 0, at_like, at_like + 1);
  const zn_vid last = zn_rw2(w, ZN_OP_Sub, m, one);
  zn_vid to = zn_rw2(w, ZN_OP_Min, zn_rw3(w, ZN_OP_Range, zero, n, one), last);
  int64_t dims[ZN_MAX_RANK];
  for (int k = 0; k < rank; k++) dims[k] = k == d ? -1 : 1;
  to = zn_rw2(w, ZN_OP_Expand, zn_rw_reshape_to(w, to, dims, (uint32_t)rank), shape);
  const zn_vid parts[3] = {before, m, behind};
  const zn_vid target = zn_rw_attr_int(w, ZN_OP_Concat, parts, 3, "axis", 0);
  const zn_vid zeros = zn_rw2(w, ZN_OP_Expand, zn_rw_num(w, (zn_dtype)zn_grad_type(a, v)->dtype, 0), target);
  const zn_vid in[3] = {zeros, to, v};
  const zn_nid s = zn_rw_raw(w, ZN_OP_ScatterElements, in, 3, 1);
  if (!s) return 0;
  zn_node_set_int(w->g, s, "axis", at);
  zn_node_set_str(w->g, s, "reduction", "add");
  return zn_rw_infer(w, s);
}

zn_vid zn_grad_sum_to(zn_grad *a, zn_vid v, zn_vid like) {
  zn_rw *w = &a->w;
  if (w->st != ZN_OK) return 0;
  const zn_type t = *zn_grad_type(a, v), want = *zn_grad_type(a, like);
  int64_t axes[ZN_MAX_RANK];
  uint32_t n = 0;
  const int lead = t.rank - want.rank;
  for (int d = 0; d < lead; d++) axes[n++] = d;
  if (n) v = zn_rw_reduce(w, ZN_OP_ReduceSum, v, axes, n, false);
  n = 0;
  for (int d = 0; d < want.rank; d++)
    if (zn_ex_is(w->g->ex, want.dims[d], 1) && !zn_ex_is(w->g->ex, t.dims[lead + d], 1)) axes[n++] = d;
  if (n) v = zn_rw_reduce(w, ZN_OP_ReduceSum, v, axes, n, true);
  for (int d = 0; d < want.rank && w->st == ZN_OK; d++) {
    int64_t lo, hi;
    zn_ex_range(w->g->ex, want.dims[d], &lo, &hi);
    if (want.dims[d] != t.dims[lead + d] && !zn_ex_is(w->g->ex, want.dims[d], 1) && lo <= 1) v = fold_axis(a, v, d, like, d);
  }
  return v;
}

/* ---------------------------------------------------------------- the walk back */

static void walk_back(zn_grad *a, const zn_nid *nodes, uint32_t n);

/* Outputs of float types vary when an input does. */
static void note_variation(zn_grad *a, const zn_nid *nodes, uint32_t n) {
  reserve(a);
  for (uint32_t k = 0; k < n; k++) {
    const zn_node *m = &a->w.g->nodes[nodes[k]];
    bool varies = false;
    for (uint32_t i = 0; i < m->num_in; i++) varies |= m->in[i] && a->varies[m->in[i]];
    for (uint32_t o = 0; o < m->num_out; o++)
      if (m->out[o] && !a->varies[m->out[o]]) a->varies[m->out[o]] = varies && zn_is_float(a->w.g->vals[m->out[o]].type.dtype);
  }
}

static zn_nid copy_node(zn_grad *a, zn_nid n, const zn_vid *map) {
  zn_graph *g = a->w.g;
  const zn_node m = g->nodes[n];
  zn_vid *in = ZN_ARRAY(&a->w.c->tmp, zn_vid, m.num_in + 1);
  for (uint32_t i = 0; i < m.num_in; i++) in[i] = map ? map[m.in[i]] : m.in[i];
  zn_nid copy = zn_graph_node_before(g, a->w.at, m.op, m.name, in, m.num_in, m.num_out);
  for (uint32_t k = 0; k < m.num_attrs; k++) {
    zn_attr attr = m.attrs[k];
    if (attr.kind == ZN_A_GRAPH) attr.u.g = zn_graph_clone(attr.u.g);
    zn_node_set_attr(g, copy, attr);
  }
  g->nodes[copy].num_captures = m.num_captures;
  for (uint32_t o = 0; o < m.num_out; o++)
    if (!m.out[o]) g->nodes[copy].out[o] = 0;
  zn_rw_infer(&a->w, copy);
  return copy;
}

/* Live nodes whose numbers are in [lo, hi), in order. */
static zn_nid *nodes_between(zn_grad *a, uint32_t lo, uint32_t hi, uint32_t *out_n) {
  const zn_graph *g = a->w.g;
  zn_nid *list = ZN_ARRAY(&a->w.c->tmp, zn_nid, hi - lo + 1);
  uint32_t n = 0;
  for (uint32_t i = 0; i < g->num_order; i++) {
    zn_nid id = g->order[i];
    if (id >= lo && id < hi && !g->nodes[id].dead) list[n++] = id;
  }
  *out_n = n;
  return list;
}

/* Expands a copy of the node, and walks back through that; what held the copy's results (Identity nodes) gets the adjoints. */
void zn_grad_through(zn_grad *a, zn_status (*expand)(zn_ctx *c, zn_graph *g, zn_nid n)) {
  zn_graph *g = a->w.g;
  const zn_nid n = a->n;
  const uint32_t first = g->num_nodes, outs = g->nodes[n].num_out;
  const zn_nid copy = copy_node(a, n, NULL);
  zn_vid *held = ZN_ARRAY(&a->w.c->tmp, zn_vid, outs + 1);
  for (uint32_t o = 0; o < outs && a->w.st == ZN_OK; o++)
    if (g->nodes[copy].out[o]) held[o] = zn_rw1(&a->w, ZN_OP_Identity, g->nodes[copy].out[o]);
  if (a->w.st == ZN_OK) a->w.st = expand(a->w.c, g, copy);
  if (a->w.st != ZN_OK) return;
  if (!g->nodes[copy].dead) {
    zn_graph_kill(g, copy);
    zn_grad_refuse(a, "%s of this form has no derivative here", zn_op_name(g->nodes[n].op));
    return;
  }
  uint32_t count;
  const zn_nid *nodes = nodes_between(a, first, g->num_nodes, &count);
  note_variation(a, nodes, count);
  for (uint32_t o = 0; o < outs; o++)
    if (held[o] && g->nodes[n].out[o]) a->adj[held[o]] = a->adj[g->nodes[n].out[o]];
  walk_back(a, nodes, count);
  a->n = n;
}

static void apply_rule(zn_grad *a) {
  const zn_node *m = zn_grad_node(a);
  bool given = false, wanted = false;
  for (uint32_t o = 0; o < m->num_out; o++) given |= zn_grad_of(a, o) != 0;
  for (uint32_t i = 0; i < m->num_in; i++) wanted |= zn_grad_wants(a, i);
  if (!given || !wanted) return;
  for (uint32_t i = 0; i < m->num_in + m->num_out; i++) {
    const zn_vid v = i < m->num_in ? m->in[i] : m->out[i - m->num_in];
    if (!v || (zn_grad_type(a, v)->kind == ZN_V_TENSOR && zn_grad_type(a, v)->rank >= 0)) continue;
    zn_grad_refuse(a, "'%s' is no tensor of known rank", a->w.g->vals[v].name);
    return;
  }
  if (rules[m->op]) rules[m->op](a);
  else if (zn_scalar_expr(m->op)) zn_grad_scalar(a);
  else if (zn_ops[m->op].expand) zn_grad_through(a, zn_ops[m->op].expand);
  else zn_grad_refuse(a, "operator %s has no derivative here", zn_op_name(m->op));
}

static void walk_back(zn_grad *a, const zn_nid *nodes, uint32_t n) {
  for (uint32_t k = n; k-- > 0 && a->w.st == ZN_OK;) {
    a->n = nodes[k];
    apply_rule(a);
    reserve(a);
  }
}

/* ---------------------------------------------------------------- one Gradient node */

typedef struct gradient {
  zn_nid n;
  uint32_t num_xs, num_vars; /* variables: xs, then zs */
  zn_vid *var, y;
} gradient;

static bool is_variable(const gradient *d, zn_vid v) {
  for (uint32_t i = 0; i < d->num_vars; i++)
    if (d->var[i] == v) return true;
  return false;
}

/* Nodes that y needs, without those behind the variables, in order. */
static zn_nid *between(zn_grad *a, const gradient *d, uint32_t *out_n) {
  const zn_graph *g = a->w.g;
  bool *needed = ZN_ARRAY(&a->w.c->tmp, bool, g->num_vals);
  zn_nid *list = ZN_ARRAY(&a->w.c->tmp, zn_nid, g->num_order + 1);
  uint32_t n = 0;
  needed[d->y] = !is_variable(d, d->y);
  for (uint32_t k = g->num_order; k-- > 0;) {
    const zn_node *m = &g->nodes[g->order[k]];
    bool wanted = false;
    for (uint32_t o = 0; o < m->num_out; o++) wanted |= m->out[o] && needed[m->out[o]];
    if (m->dead || !wanted) continue;
    list[n++] = g->order[k];
    for (uint32_t i = 0; i < m->num_in; i++)
      if (m->in[i] && !is_variable(d, m->in[i])) needed[m->in[i]] = true;
  }
  for (uint32_t i = 0; i < n / 2; i++) {
    zn_nid t = list[i];
    list[i] = list[n - 1 - i];
    list[n - 1 - i] = t;
  }
  *out_n = n;
  return list;
}

/* The variables have other values than the tensors they are named after: the nodes that see them are computed again. */
static void substitute(zn_grad *a, gradient *d, zn_nid *nodes, uint32_t *num) {
  zn_graph *g = a->w.g;
  zn_vid *map = ZN_ARRAY(&a->w.c->tmp, zn_vid, g->num_vals);
  const uint32_t vals = g->num_vals;
  for (zn_vid v = 0; v < vals; v++) map[v] = v;
  for (uint32_t i = 0; i < d->num_vars; i++) map[d->var[i]] = zn_rw1(&a->w, ZN_OP_Identity, g->nodes[d->n].in[i]);
  uint32_t n = 0;
  for (uint32_t k = 0; k < *num && a->w.st == ZN_OK; k++) {
    const zn_nid id = nodes[k];
    bool changed = false;
    for (uint32_t i = 0; i < g->nodes[id].num_in; i++) changed |= map[g->nodes[id].in[i]] != g->nodes[id].in[i];
    if (!changed) continue;
    const zn_nid copy = copy_node(a, id, map);
    for (uint32_t o = 0; o < g->nodes[id].num_out; o++)
      if (g->nodes[id].out[o] && !is_variable(d, g->nodes[id].out[o])) map[g->nodes[id].out[o]] = g->nodes[copy].out[o];
    nodes[n++] = copy;
  }
  *num = n;
  for (uint32_t i = 0; i < d->num_vars; i++) d->var[i] = map[d->var[i]];
  d->y = map[d->y];
}

static zn_status differentiate(zn_ctx *c, zn_graph *g, gradient *d) {
  zn_grad a = {.w = {c, g, d->n, ZN_OK}, .y = g->vals[d->y].name};
  uint32_t n;
  zn_nid *nodes = between(&a, d, &n);
  bool same = true;
  for (uint32_t i = 0; i < d->num_vars; i++) same &= g->nodes[d->n].in[i] == d->var[i];
  if (!same) substitute(&a, d, nodes, &n);
  reserve(&a);
  for (uint32_t i = 0; i < d->num_xs; i++) a.varies[d->var[i]] = zn_is_float(g->vals[d->var[i]].type.dtype);
  bool *fixed = ZN_ARRAY(&c->tmp, bool, g->num_vals);
  for (uint32_t i = d->num_xs; i < d->num_vars; i++) fixed[d->var[i]] = true;
  note_variation(&a, nodes, n);
  for (zn_vid v = 1; v < g->num_vals; v++)
    if (fixed[v]) a.varies[v] = false;
  const zn_vid one = zn_rw_num(&a.w, (zn_dtype)g->vals[d->y].type.dtype, 1);
  zn_vid seed = zn_grad_expand_to(&a, one, d->y);
  reserve(&a);
  a.adj[d->y] = seed;
  walk_back(&a, nodes, n);
  if (a.failed) return ZN_ERR_UNSUPPORTED;
  for (uint32_t i = 0; i < d->num_xs && a.w.st == ZN_OK; i++) {
    if (!zn_rw_wants(&a.w, i)) continue;
    zn_vid v = a.adj[d->var[i]];
    zn_rw_output(&a.w, i, v ? v : zn_grad_zeros(&a, d->var[i]));
  }
  return zn_rw_done(&a.w);
}

/* ---------------------------------------------------------------- names */

static zn_status find(zn_ctx *c, const zn_graph *g, zn_nid n, const char *attr, const char *name, zn_vid *out) {
  for (zn_vid v = 1; v < g->num_vals; v++) {
    if (!g->vals[v].name || strcmp(g->vals[v].name, name)) continue;
    *out = v;
    return ZN_OK;
  }
  return zn_error(c, zn_node_where(c, &g->nodes[n]), "%s names '%s', which is no tensor of the same graph", attr, name);
}

static zn_status read_names(zn_ctx *c, const zn_graph *g, zn_nid n, gradient *d) {
  static const char *const lists[] = {"xs", "zs"};
  const zn_node *m = &g->nodes[n];
  *d = (gradient){.n = n, .var = ZN_ARRAY(&c->tmp, zn_vid, m->num_in + 1)};
  for (int l = 0; l < 2; l++) {
    const zn_attr *names = zn_node_attr(m, lists[l]);
    for (uint32_t i = 0; names && i < names->n; i++) {
      if (d->num_vars == m->num_in) return zn_error(c, zn_node_where(c, m), "xs and zs name more tensors than there are inputs");
      ZN_TRY(find(c, g, n, lists[l], names->u.ss[i].ptr, &d->var[d->num_vars++]));
    }
    if (l == 0) d->num_xs = d->num_vars;
  }
  if (m->num_out > d->num_xs) return zn_error(c, zn_node_where(c, m), "there are more outputs than names in xs");
  if (d->num_vars != m->num_in) return zn_error(c, zn_node_where(c, m), "there are more inputs than names in xs and zs");
  return find(c, g, n, "y", zn_node_str(m, "y"), &d->y);
}

/* Inputs of Gradient say nothing about y: it may stand before what computes y. */
static void move_to_end(zn_graph *g, zn_nid n) {
  uint32_t k = 0;
  while (g->order[k] != n) k++;
  memmove(&g->order[k], &g->order[k + 1], (g->num_order - k - 1) * sizeof *g->order);
  g->order[g->num_order - 1] = n;
}

static void rename_value(gradient *d, uint32_t n, zn_vid from, zn_vid to) {
  for (uint32_t k = 0; k < n; k++) {
    if (d[k].y == from) d[k].y = to;
    for (uint32_t i = 0; i < d[k].num_vars; i++)
      if (d[k].var[i] == from) d[k].var[i] = to;
  }
}

static zn_status resolve_here(zn_ctx *c, zn_graph *g, gradient *d, uint32_t n) {
  for (uint32_t k = 0; k < n; k++) ZN_TRY(read_names(c, g, d[k].n, &d[k]));
  for (uint32_t k = 0; k < n; k++) {
    const zn_node m = g->nodes[d[k].n];
    move_to_end(g, d[k].n);
    zn_vid *before = ZN_ARRAY(&c->tmp, zn_vid, m.num_out + 1);
    for (uint32_t o = 0; o < m.num_out; o++) before[o] = m.out[o];
    zn_vid *held = ZN_ARRAY(&c->tmp, zn_vid, m.num_out + 1); /* who takes an output's place */
    zn_nid *holder = ZN_ARRAY(&c->tmp, zn_nid, m.num_out + 1);
    for (uint32_t o = 0; o < m.num_out; o++)
      if (before[o]) holder[o] = zn_graph_node(g, ZN_OP_Identity, m.name, &before[o], 1, 1);
    ZN_TRY(differentiate(c, g, &d[k]));
    for (uint32_t o = 0; o < m.num_out; o++) {
      if (!before[o]) continue;
      held[o] = g->nodes[holder[o]].in[0];
      zn_graph_kill(g, holder[o]);
      rename_value(d + k + 1, n - k - 1, before[o], held[o]);
    }
    zn_graph_compact(g);
    if (!zn_graph_toposort(g)) return zn_error(c, m.name, "a gradient depends on itself");
  }
  return ZN_OK;
}

static uint32_t count_gradients(const zn_graph *g, bool deep) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *m = &g->nodes[g->order[i]];
    n += m->op == ZN_OP_Gradient;
    for (uint32_t k = 0; deep && k < m->num_attrs; k++)
      if (m->attrs[k].kind == ZN_A_GRAPH) n += count_gradients(m->attrs[k].u.g, true);
  }
  return n;
}

static zn_status resolve_all(zn_ctx *c, zn_graph *g) {
  uint32_t n = 0;
  gradient *d = ZN_ARRAY(&c->tmp, gradient, count_gradients(g, false) + 1);
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *m = &g->nodes[g->order[i]];
    if (m->op == ZN_OP_Gradient) d[n++].n = g->order[i];
    for (uint32_t k = 0; k < m->num_attrs; k++)
      if (m->attrs[k].kind == ZN_A_GRAPH) ZN_TRY(resolve_all(c, m->attrs[k].u.g));
  }
  return n ? resolve_here(c, g, d, n) : ZN_OK;
}

/* For graphs that no reader made. */
zn_status zn_expand_gradient(zn_ctx *c, zn_graph *g, zn_nid n);
zn_status zn_expand_gradient(zn_ctx *c, zn_graph *g, zn_nid n) {
  (void)n;
  return zn_grad_resolve(c, g);
}

zn_status zn_grad_resolve(zn_ctx *c, zn_graph *g) {
  if (!count_gradients(g, true)) return ZN_OK;
  ZN_TRY(zn_infer_graph(c, g));
  return resolve_all(c, g);
}
