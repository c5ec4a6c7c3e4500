/* Checks the structure of graphs: ids in range, definitions before uses and consistent with their
 * nodes, arity and attributes as the schema says, unique names, bodies closed. What it finds after
 * import is a bug of a pass. */
#include "zenithc/ops/op.h"

typedef struct checker {
  zn_ctx *c;
  const zn_graph *g;
  uint8_t *defined; /* per value */
} checker;

static zn_status fault(const checker *k, const zn_node *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static zn_status fault(const checker *k, const zn_node *n, const char *fmt, ...) {
  char msg[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(msg, sizeof msg, fmt, ap);
  va_end(ap);
  const char *where =
      n ? zn_node_where(k->c, n) : zn_arena_printf(&k->c->tmp, "graph '%s'", k->g->name);
  return zn_error(k->c, where, "malformed graph: %s", msg);
}

/* What lowering relies on: blocks are full, and halos surround known extents of the last one or two axes of an image. */
static zn_status check_layout(const checker *k, const zn_node *n, const zn_value *x) {
  const zn_layout *l = &x->layout;
  const int rank = x->type.rank;
  int64_t d;
  if (l->block && l->axis >= (rank > 0 ? rank : 1))
    return fault(k, n, "value '%s' is blocked along axis %u", x->name, l->axis);
  if (l->block && (!zn_ex_is_const(k->g->ex, x->type.dims[l->axis], &d) || d % l->block))
    return fault(k, n, "value '%s' has no full blocks of %u", x->name, l->block);
  for (int i = 0; i < rank; i++) {
    if (!l->lo[i] && !l->hi[i]) continue;
    if (i < 2 || i < rank - 2 || (l->block && l->axis == i))
      return fault(k, n, "value '%s' has a halo along axis %d", x->name, i);
  }
  return ZN_OK;
}

static zn_status check_type(const checker *k, const zn_node *n, zn_vid v) {
  const zn_value *x = &k->g->vals[v];
  if (!x->name) return fault(k, n, "value %u has no name", v);
  if (x->type.rank < -1 || x->type.rank > ZN_MAX_RANK || x->type.dtype >= ZN_DTYPE_COUNT ||
      x->type.kind > ZN_V_MAP)
    return fault(k, n, "value '%s' has no valid type", x->name);
  int64_t count;
  if (x->elems && (x->num_elems > ZN_MAX_ELEMS ||
                   (zn_ex_is_const(k->g->ex, zn_type_count(k->g->ex, &x->type), &count) &&
                    count != x->num_elems)))
    return fault(k, n, "value '%s' tracks %u elements, its type has another number", x->name,
                 x->num_elems);
  if (x->cst && (x->def || x->cst->dtype != x->type.dtype || (int)x->cst->rank != x->type.rank))
    return fault(k, n, "constant '%s' and its type differ", x->name);
  return check_layout(k, n, x);
}

static zn_status check_arity(const checker *k, const zn_node *n) {
  const zn_schema *s = zn_op_schema(n->op);
  uint32_t in = n->num_in - n->num_captures;
  if (n->num_captures > n->num_in)
    return fault(k, n, "%u captures of %u inputs", n->num_captures, n->num_in);
  if (in < s->min_in || in > s->max_in)
    return fault(k, n, "%u inputs, expected %u to %u", in, s->min_in, s->max_in);
  if (n->num_out < s->min_out || n->num_out > s->max_out)
    return fault(k, n, "%u outputs, expected %u to %u", n->num_out, s->min_out, s->max_out);
  for (uint32_t i = 0; i < in; i++) {
    const zn_schema_io *io = &s->in[i < s->num_in ? i : s->num_in - 1];
    if (!n->in[i] && !io->optional && !io->hetero)
      return fault(k, n, "required input %u '%s' is absent", i, io->name);
  }
  return ZN_OK;
}

static zn_status check_attrs(const checker *k, const zn_node *n) {
  const zn_schema *s = zn_op_schema(n->op);
  for (uint32_t i = 0; i < n->num_attrs; i++) {
    const zn_attr *a = &n->attrs[i];
    const zn_schema_attr *sa = zn_schema_find_attr(s, a->name);
    if (!sa) return fault(k, n, "unknown attribute '%s'", a->name);
    bool widened = sa->kind == ZN_A_FLOAT && a->kind == ZN_A_INT;
    if (a->kind != sa->kind && !widened)
      return fault(k, n, "attribute '%s' has another kind", a->name);
    if (a->kind != ZN_A_GRAPH) continue;
    if (!a->u.g || a->u.g->ex != k->g->ex)
      return fault(k, n, "body '%s' has another expression pool", a->name);
    ZN_TRY(zn_graph_verify(k->c, a->u.g));
  }
  for (uint32_t i = 0; i < s->num_attrs; i++)
    if (s->attrs[i].required && !zn_node_has(n, s->attrs[i].name))
      return fault(k, n, "required attribute '%s' is absent", s->attrs[i].name);
  return ZN_OK;
}

static zn_status check_use(const checker *k, const zn_node *n, zn_vid v) {
  if (v >= k->g->num_vals) return fault(k, n, "value id %u of %u", v, k->g->num_vals);
  const zn_value *x = &k->g->vals[v];
  if (x->cst) return check_type(k, n, v);
  if (!k->defined[v])
    return fault(k, n, "value '%s' is used before its definition", x->name ? x->name : "?");
  return ZN_OK;
}

static zn_status check_node(const checker *k, zn_nid id) {
  if (id == 0 || id >= k->g->num_nodes)
    return fault(k, NULL, "node id %u of %u", id, k->g->num_nodes);
  const zn_node *n = &k->g->nodes[id];
  if (n->dead) return ZN_OK;
  if (n->op == ZN_OP_NONE || n->op >= ZN_OP_COUNT)
    return fault(k, NULL, "node %u has no operator", id);
  if (!n->name) return fault(k, NULL, "node %u has no name", id);
  for (uint32_t i = 0; i < n->num_in; i++)
    if (n->in[i]) ZN_TRY(check_use(k, n, n->in[i]));
  ZN_TRY(check_arity(k, n));
  ZN_TRY(check_attrs(k, n));
  for (uint32_t i = 0; i < n->num_out; i++) {
    zn_vid v = n->out[i];
    if (v == 0) continue;
    if (v >= k->g->num_vals) return fault(k, n, "output id %u of %u", v, k->g->num_vals);
    const zn_value *x = &k->g->vals[v];
    if (x->def != id || x->def_out != i)
      return fault(k, n, "output '%s' names another definition", x->name);
    if (k->defined[v]) return fault(k, n, "value '%s' is defined twice", x->name);
    k->defined[v] = 1;
    ZN_TRY(check_type(k, n, v));
  }
  return ZN_OK;
}

static int compare_names(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Of the values that live nodes, inputs and outputs mention. */
static zn_status check_names(const checker *k) {
  const zn_graph *g = k->g;
  const char **names = ZN_ARRAY(&k->c->tmp, const char *, g->num_vals);
  uint32_t n = 0;
  uint32_t *uses = zn_graph_uses(g, &k->c->tmp);
  for (zn_vid v = 1; v < g->num_vals; v++)
    if (k->defined[v] || (g->vals[v].cst && uses[v])) names[n++] = g->vals[v].name;
  qsort(names, n, sizeof *names, compare_names);
  for (uint32_t i = 1; i < n; i++)
    if (!strcmp(names[i - 1], names[i]))
      return fault(k, NULL, "two values are named '%s'", names[i]);
  return ZN_OK;
}

zn_status zn_graph_verify(zn_ctx *c, const zn_graph *g) {
  checker k = {c, g, ZN_ARRAY(&c->tmp, uint8_t, g->num_vals)};
  for (uint32_t i = 0; i < g->num_inputs; i++) {
    zn_vid v = g->inputs[i];
    if (v == 0 || v >= g->num_vals || k.defined[v] || g->vals[v].def || !g->vals[v].is_input)
      return fault(&k, NULL, "input %u is not an input value", i);
    k.defined[v] = 1;
    ZN_TRY(check_type(&k, NULL, v));
  }
  for (uint32_t i = 0; i < g->num_order; i++) ZN_TRY(check_node(&k, g->order[i]));
  for (uint32_t i = 0; i < g->num_outputs; i++) {
    zn_vid v = g->outputs[i];
    if (v == 0) return fault(&k, NULL, "output %u is absent", i);
    ZN_TRY(check_use(&k, NULL, v));
    if (!g->vals[v].is_output)
      return fault(&k, NULL, "output '%s' is not marked as one", g->vals[v].name);
  }
  return check_names(&k);
}
