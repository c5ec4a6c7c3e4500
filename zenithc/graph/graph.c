/* Building and editing graphs: values, constants, nodes in execution order, replacement of values,
 * topological order. Names are kept unique by a small hash set beside the graph; everything else is
 * plain arrays. */
#include "zenithc/graph/graph.h"

#include <assert.h>

#include "zenithc/ops/op.h"

struct zn_names {
  const char **slot; /* open addressing; a name stays taken until its value is renamed away */
  uint32_t size, used;
};

/* ---- names ---- */

static uint32_t hash(const char *s) {
  uint64_t h = UINT64_C(1469598103934665603);
  for (; *s; s++) h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
  return (uint32_t)((h * UINT64_C(0xc4ceb9fe1a85ec53)) >> 32);
}

static bool name_taken(const zn_graph *g, const char *name) {
  const struct zn_names *t = g->names;
  for (uint32_t i = hash(name); t->size && t->slot[i & (t->size - 1)]; i++)
    if (!strcmp(t->slot[i & (t->size - 1)], name)) return true;
  return false;
}

static void insert(struct zn_names *t, const char *name) {
  uint32_t i = hash(name);
  while (t->slot[i & (t->size - 1)]) i++;
  t->slot[i & (t->size - 1)] = name;
  t->used++;
}

static void take_name(zn_graph *g, const char *name) {
  struct zn_names *t = g->names;
  if (t->used * 2 >= t->size) {
    const char **old = t->slot;
    uint32_t n = t->size;
    t->size = n ? n * 2 : 64;
    t->slot = ZN_ARRAY(g->arena, const char *, t->size);
    t->used = 0;
    for (uint32_t i = 0; i < n; i++)
      if (old[i]) insert(t, old[i]);
  }
  insert(t, name);
}

static const char *unique_name(zn_graph *g, const char *name) {
  if (!name_taken(g, name)) return zn_arena_strdup(g->arena, name);
  for (uint32_t k = 1;; k++) {
    char *s = zn_arena_printf(g->arena, "%s.%u", name, k);
    if (!name_taken(g, s)) return s;
  }
}

void zn_graph_rename(zn_graph *g, zn_vid v, const char *name) {
  if (!strcmp(g->vals[v].name, name)) return;
  g->vals[v].name = unique_name(g, name);
  take_name(g, g->vals[v].name);
}

/* Value `to` is a result instead of `from`, under its name; `from` has the other's until it gets one of its own. */
static void swap_result(zn_graph *g, zn_vid from, zn_vid to) {
  const char *name = g->vals[from].name;
  g->vals[from].name = g->vals[to].name;
  g->vals[to].name = name;
  g->vals[from].is_output = false;
  g->vals[to].is_output = true;
}

void zn_graph_take_output(zn_graph *g, uint32_t i, zn_vid copy, const char *suffix) {
  const zn_vid v = g->outputs[i];
  const char *name = g->vals[v].name;
  g->outputs[i] = copy;
  if (g->vals[copy].is_output) return; /* v is several results */
  swap_result(g, v, copy);
  zn_graph_rename(g, v, zn_arena_printf(g->arena, "%s_%s", name, suffix));
}

/* ---- construction ---- */

zn_graph *zn_graph_new(zn_arena *a, zn_exprs *ex, const char *name) {
  zn_graph *g = ZN_NEW(a, zn_graph);
  g->arena = a;
  g->ex = ex;
  g->name = zn_arena_strdup(a, name ? name : "main");
  g->names = ZN_NEW(a, struct zn_names);
  ZN_PUSH(a, g->vals, g->num_vals, g->cap_vals, (zn_value){0});
  ZN_PUSH(a, g->nodes, g->num_nodes, g->cap_nodes, (zn_node){0});
  return g;
}

zn_vid zn_graph_value(zn_graph *g, const char *name) {
  char id[16];
  snprintf(id, sizeof id, "%u", g->num_vals);
  zn_value v = {.name = unique_name(g, name && *name ? name : id), .type = {.rank = -1}};
  take_name(g, v.name);
  ZN_PUSH(g->arena, g->vals, g->num_vals, g->cap_vals, v);
  return g->num_vals - 1;
}

zn_vid zn_graph_input(zn_graph *g, const char *name, zn_type type) {
  zn_vid v = zn_graph_value(g, name);
  g->vals[v].type = type;
  g->vals[v].is_input = true;
  ZN_PUSH(g->arena, g->inputs, g->num_inputs, g->cap_inputs, v);
  return v;
}

/* NULL when an element exceeds int64. */
static zn_expr *const_elems(zn_graph *g, const zn_htensor *t, uint32_t n) {
  zn_expr *e = ZN_ARRAY(g->arena, zn_expr, n);
  for (uint32_t i = 0; i < n; i++) {
    int64_t v = zn_load_i64(t->dtype, t->data, i);
    if (t->dtype == ZN_U64 && v < 0) return NULL;
    e[i] = zn_ex_const(g->ex, v);
  }
  return e;
}

zn_vid zn_graph_const(zn_graph *g, const char *name, const zn_htensor *t) {
  zn_vid v = zn_graph_value(g, name);
  zn_value *x = &g->vals[v];
  x->type = zn_type_static(g, t->dtype, (int)t->rank, t->dims);
  x->cst = t;
  uint64_t n = zn_htensor_count(t);
  if ((zn_is_int(t->dtype) || t->dtype == ZN_BOOL) && n <= ZN_MAX_ELEMS && (t->data || n == 0)) {
    x->elems = const_elems(g, t, (uint32_t)n);
    x->num_elems = x->elems ? (uint32_t)n : 0;
  }
  return v;
}

static zn_htensor *new_tensor(zn_graph *g, zn_dtype t, uint32_t rank, int64_t dim) {
  zn_htensor *h = ZN_NEW(g->arena, zn_htensor);
  *h = zn_htensor_new(g->arena, t, rank, &dim);
  return h;
}

zn_vid zn_graph_const_i64s(zn_graph *g, const int64_t *v, uint32_t n) {
  zn_htensor *h = new_tensor(g, ZN_I64, 1, n);
  if (n) memcpy(h->data, v, n * sizeof *v);
  return zn_graph_const(g, NULL, h);
}

zn_vid zn_graph_const_scalar(zn_graph *g, zn_dtype t, double v) {
  zn_htensor *h = new_tensor(g, t, 0, 0);
  zn_store_f64(t, h->data, 0, v);
  return zn_graph_const(g, NULL, h);
}

void zn_graph_output(zn_graph *g, zn_vid v) {
  assert(v && v < g->num_vals);
  g->vals[v].is_output = true;
  ZN_PUSH(g->arena, g->outputs, g->num_outputs, g->cap_outputs, v);
}

static zn_nid add_node(zn_graph *g, zn_op op, const char *name, const zn_vid *in, uint32_t num_in,
                       uint32_t num_out) {
  zn_nid id = g->num_nodes;
  zn_node n = {.op = op, .num_in = num_in, .num_out = num_out};
  n.name = name && *name ? zn_arena_strdup(g->arena, name)
                         : zn_arena_printf(g->arena, "%s_%u", zn_op_name(op), id);
  n.in = ZN_ARRAY(g->arena, zn_vid, num_in);
  n.out = ZN_ARRAY(g->arena, zn_vid, num_out);
  if (num_in) memcpy(n.in, in, num_in * sizeof *in);
  for (uint32_t i = 0; i < num_out; i++) {
    n.out[i] = zn_graph_value(g, NULL);
    g->vals[n.out[i]].def = id;
    g->vals[n.out[i]].def_out = i;
  }
  ZN_PUSH(g->arena, g->nodes, g->num_nodes, g->cap_nodes, n);
  return id;
}

zn_nid zn_graph_node(zn_graph *g, zn_op op, const char *name, const zn_vid *in, uint32_t num_in,
                     uint32_t num_out) {
  zn_nid id = add_node(g, op, name, in, num_in, num_out);
  ZN_PUSH(g->arena, g->order, g->num_order, g->cap_order, id);
  return id;
}

zn_nid zn_graph_node_before(zn_graph *g, zn_nid before, zn_op op, const char *name,
                            const zn_vid *in, uint32_t num_in, uint32_t num_out) {
  zn_nid id = zn_graph_node(g, op, name, in, num_in, num_out);
  uint32_t at = g->num_order - 1;
  while (at > 0 && g->order[at] != before) at--;
  assert(g->order[at] == before);
  memmove(g->order + at + 1, g->order + at, (g->num_order - 1 - at) * sizeof *g->order);
  g->order[at] = id;
  g->nodes[id].source = g->nodes[before].source;
  return id;
}

/* ---- editing ---- */

/* `from` leaves the outputs: `to` takes its place and its name. */
static void replace_output(zn_graph *g, zn_vid from, zn_vid to) {
  if (g->vals[to].is_input || g->vals[to].cst || g->vals[to].is_output || !g->vals[to].def) {
    zn_nid id = zn_graph_node(g, ZN_OP_Identity, NULL, &to, 1, 1);
    zn_type type = g->vals[to].type;
    to = g->nodes[id].out[0];
    g->vals[to].type = type;
  }
  swap_result(g, from, to);
  for (uint32_t i = 0; i < g->num_outputs; i++)
    if (g->outputs[i] == from) g->outputs[i] = to;
}

void zn_graph_replace(zn_graph *g, zn_vid from, zn_vid to) {
  assert(from && to && from < g->num_vals && to < g->num_vals);
  if (from == to) return;
  for (zn_nid n = 1; n < g->num_nodes; n++) {
    zn_node *d = &g->nodes[n];
    for (uint32_t i = 0; i < d->num_in && !d->dead; i++)
      if (d->in[i] == from) d->in[i] = to;
  }
  if (g->vals[from].is_output) replace_output(g, from, to);
}

void zn_graph_kill(zn_graph *g, zn_nid n) { g->nodes[n].dead = true; }

void zn_graph_compact(zn_graph *g) {
  uint32_t k = 0;
  for (uint32_t i = 0; i < g->num_order; i++)
    if (!g->nodes[g->order[i]].dead) g->order[k++] = g->order[i];
  g->num_order = k;
}

uint32_t *zn_graph_uses(const zn_graph *g, zn_arena *a) {
  uint32_t *uses = ZN_ARRAY(a, uint32_t, g->num_vals);
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    for (uint32_t j = 0; j < n->num_in && !n->dead; j++)
      if (n->in[j]) uses[n->in[j]]++;
  }
  for (uint32_t i = 0; i < g->num_outputs; i++) uses[g->outputs[i]]++;
  return uses;
}

static void *copy_array(zn_arena *a, const void *from, size_t bytes) {
  void *to = zn_arena_alloc(a, bytes + 1);
  if (bytes) memcpy(to, from, bytes);
  return to;
}

static void clone_node(zn_graph *g, zn_node *n) {
  n->in = copy_array(g->arena, n->in, n->num_in * sizeof *n->in);
  n->out = copy_array(g->arena, n->out, n->num_out * sizeof *n->out);
  n->attrs = copy_array(g->arena, n->attrs, n->num_attrs * sizeof *n->attrs);
  for (uint32_t i = 0; i < n->num_attrs; i++) {
    if (n->attrs[i].kind != ZN_A_GRAPH) continue;
    n->attrs[i].u.g = zn_graph_clone(n->attrs[i].u.g);
    n->attrs[i].u.g->parent = g;
  }
}

/* The names stay one set for both: a name new in one is new in the other. */
zn_graph *zn_graph_clone(const zn_graph *from) {
  zn_graph *g = ZN_NEW(from->arena, zn_graph);
  *g = *from;
  g->vals = copy_array(g->arena, from->vals, from->num_vals * sizeof *g->vals);
  g->nodes = copy_array(g->arena, from->nodes, from->num_nodes * sizeof *g->nodes);
  g->order = copy_array(g->arena, from->order, from->num_order * sizeof *g->order);
  g->inputs = copy_array(g->arena, from->inputs, from->num_inputs * sizeof *g->inputs);
  g->outputs = copy_array(g->arena, from->outputs, from->num_outputs * sizeof *g->outputs);
  g->cap_vals = g->num_vals;
  g->cap_nodes = g->num_nodes;
  g->cap_order = g->num_order;
  g->cap_inputs = g->num_inputs;
  g->cap_outputs = g->num_outputs;
  for (zn_nid n = 1; n < g->num_nodes; n++) clone_node(g, &g->nodes[n]);
  return g;
}

/* Depth first from each node in its present order; a node is emitted after the producers of its
 * inputs. */
bool zn_graph_toposort(zn_graph *g) {
  zn_graph_compact(g);
  enum { NEW, OPEN, DONE, ABSENT };
  uint8_t *state = ZN_ARRAY(g->arena, uint8_t, g->num_nodes);
  zn_nid *stack = ZN_ARRAY(g->arena, zn_nid, g->num_order),
         *order = ZN_ARRAY(g->arena, zn_nid, g->num_order);
  uint32_t *next = ZN_ARRAY(g->arena, uint32_t, g->num_nodes), count = 0;
  memset(state, ABSENT, g->num_nodes);
  for (uint32_t i = 0; i < g->num_order; i++) state[g->order[i]] = NEW;
  for (uint32_t i = 0; i < g->num_order; i++) {
    uint32_t top = 0;
    if (state[g->order[i]] == NEW) {
      stack[top++] = g->order[i];
      state[g->order[i]] = OPEN;
    }
    while (top) {
      zn_nid n = stack[top - 1];
      const zn_node *d = &g->nodes[n];
      if (next[n] == d->num_in) {
        state[n] = DONE;
        order[count++] = n;
        top--;
        continue;
      }
      zn_vid v = d->in[next[n]++];
      zn_nid def = v ? g->vals[v].def : 0;
      if (!def || state[def] == DONE || state[def] == ABSENT) continue;
      if (state[def] == OPEN) return false;
      state[def] = OPEN;
      stack[top++] = def;
    }
  }
  g->order = order;
  g->cap_order = g->num_order = count;
  return true;
}

/* ---- types and constant contents ---- */

zn_type zn_type_tensor(zn_dtype t, int rank, const zn_expr *dims) {
  assert(rank <= ZN_MAX_RANK);
  zn_type y = {.kind = ZN_V_TENSOR, .dtype = (uint8_t)t, .rank = (int8_t)rank};
  for (int d = 0; d < rank; d++) y.dims[d] = dims[d];
  return y;
}

zn_type zn_type_static(zn_graph *g, zn_dtype t, int rank, const int64_t *dims) {
  zn_expr e[ZN_MAX_RANK] = {0};
  assert(rank <= ZN_MAX_RANK);
  for (int d = 0; d < rank; d++) e[d] = zn_ex_const(g->ex, dims[d]);
  return zn_type_tensor(t, rank, e);
}

zn_expr zn_type_count(zn_exprs *ex, const zn_type *t) {
  if (t->rank < 0) return ZN_EX_NONE;
  zn_expr n = zn_ex_const(ex, 1);
  for (int d = 0; d < t->rank; d++) n = zn_ex_mul(ex, n, t->dims[d]);
  return n;
}

bool zn_type_is_static(const zn_exprs *ex, const zn_type *t, int64_t *out_dims) {
  if (t->rank < 0) return false;
  for (int d = 0; d < t->rank; d++) {
    int64_t v;
    if (!zn_ex_is_const(ex, t->dims[d], &v)) return false;
    if (out_dims) out_dims[d] = v;
  }
  return true;
}

bool zn_value_i64s(const zn_graph *g, zn_vid v, int64_t *out, uint32_t max, uint32_t *out_n) {
  const zn_value *x = &g->vals[v];
  if (v == 0) return false;
  if (x->elems) {
    if (x->num_elems > max) return false;
    for (uint32_t i = 0; i < x->num_elems; i++)
      if (!zn_ex_is_const(g->ex, x->elems[i], &out[i])) return false;
    *out_n = x->num_elems;
    return true;
  }
  const zn_htensor *t = x->cst;
  if (!t || t->dtype == ZN_STR || zn_htensor_count(t) > max) return false;
  *out_n = (uint32_t)zn_htensor_count(t);
  for (uint32_t i = 0; i < *out_n; i++) {
    out[i] = zn_load_i64(t->dtype, t->data, i);
    if (zn_is_float(t->dtype) && zn_load_f64(t->dtype, t->data, i) != (double)out[i]) return false;
  }
  return true;
}

bool zn_value_f64(const zn_graph *g, zn_vid v, double *out) {
  const zn_value *x = &g->vals[v];
  int64_t i;
  if (v == 0) return false;
  if (x->cst && x->cst->dtype != ZN_STR && zn_htensor_count(x->cst) == 1) {
    *out = zn_load_f64(x->cst->dtype, x->cst->data, 0);
    return true;
  }
  if (!x->elems || x->num_elems != 1 || !zn_ex_is_const(g->ex, x->elems[0], &i)) return false;
  *out = (double)i;
  return true;
}

const char *zn_node_where(zn_ctx *c, const zn_node *n) {
  return zn_arena_printf(&c->tmp, "node '%s' (%s)", n->name, zn_op_name(n->op));
}

bool zn_value_known(const zn_value *v) {
  if (v->cst) return true;
  if (!v->elems || !v->num_elems) return false;
  for (uint32_t k = 0; k < v->num_elems; k++)
    if (v->elems[k] <= ZN_EX_OVERFLOW || (v->content && v->content[k])) return false;
  return true;
}
