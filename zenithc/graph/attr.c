/* Attributes of nodes. Nodes hold what the model gave; the getters fall back to the schema's
 * default. */
#include <assert.h>

#include "zenithc/ops/op.h"

void zn_node_set_attr(zn_graph *g, zn_nid n, zn_attr a) {
  zn_node *d = &g->nodes[n];
  a.name = zn_arena_strdup(g->arena, a.name);
  for (uint32_t i = 0; i < d->num_attrs; i++) {
    if (strcmp(d->attrs[i].name, a.name) != 0) continue;
    d->attrs[i] = a;
    return;
  }
  d->attrs =
      zn_arena_grow(g->arena, d->attrs, d->num_attrs * sizeof a, (d->num_attrs + 1) * sizeof a);
  d->attrs[d->num_attrs++] = a;
}

void zn_node_set_int(zn_graph *g, zn_nid n, const char *name, int64_t v) {
  zn_node_set_attr(g, n, (zn_attr){.name = name, .kind = ZN_A_INT, .n = 1, .u.i = v});
}

void zn_node_set_float(zn_graph *g, zn_nid n, const char *name, double v) {
  zn_node_set_attr(g, n, (zn_attr){.name = name, .kind = ZN_A_FLOAT, .n = 1, .u.f = v});
}

void zn_node_set_str(zn_graph *g, zn_nid n, const char *name, const char *v) {
  zn_str s = {zn_arena_strdup(g->arena, v), strlen(v)};
  zn_node_set_attr(g, n, (zn_attr){.name = name, .kind = ZN_A_STRING, .n = 1, .u.s = s});
}

void zn_node_set_ints(zn_graph *g, zn_nid n, const char *name, const int64_t *v, uint32_t count) {
  int64_t *copy = ZN_ARRAY(g->arena, int64_t, count);
  if (count) memcpy(copy, v, count * sizeof *v);
  zn_node_set_attr(g, n, (zn_attr){.name = name, .kind = ZN_A_INTS, .n = count, .u.is = copy});
}

const zn_attr *zn_node_attr(const zn_node *n, const char *name) {
  for (uint32_t i = 0; i < n->num_attrs; i++)
    if (!strcmp(n->attrs[i].name, name)) return &n->attrs[i];
  return NULL;
}

bool zn_node_has(const zn_node *n, const char *name) { return zn_node_attr(n, name) != NULL; }

/* The node's attribute or the default; NULL when neither. */
static const zn_attr *find(const zn_node *n, const char *name, zn_attr_kind kind) {
  const zn_schema_attr *s = zn_schema_find_attr(zn_op_schema(n->op), name);
  if (!s) ZN_BUG(NULL, "node '%s': %s has no attribute '%s'", n->name, zn_op_name(n->op), name);
  if (s->kind != kind)
    ZN_BUG(NULL, "node '%s': attribute '%s' of %s has another kind", n->name, name,
           zn_op_name(n->op));
  const zn_attr *a = zn_node_attr(n, name);
  if (a && (a->kind == kind || (kind == ZN_A_FLOAT && a->kind == ZN_A_INT))) return a;
  return s->has_default ? &s->def : NULL;
}

int64_t zn_node_int(const zn_node *n, const char *name) {
  const zn_attr *a = find(n, name, ZN_A_INT);
  return a ? a->u.i : 0;
}

double zn_node_float(const zn_node *n, const char *name) {
  const zn_attr *a = find(n, name, ZN_A_FLOAT);
  return !a ? 0 : a->kind == ZN_A_INT ? (double)a->u.i : a->u.f;
}

const char *zn_node_str(const zn_node *n, const char *name) {
  const zn_attr *a = find(n, name, ZN_A_STRING);
  return a ? a->u.s.ptr : "";
}

const int64_t *zn_node_ints(const zn_node *n, const char *name, uint32_t *count) {
  const zn_attr *a = find(n, name, ZN_A_INTS);
  *count = a ? a->n : 0;
  return a ? a->u.is : NULL;
}

const double *zn_node_floats(const zn_node *n, const char *name, uint32_t *count) {
  const zn_attr *a = find(n, name, ZN_A_FLOATS);
  *count = a ? a->n : 0;
  return a ? a->u.fs : NULL;
}

zn_graph *zn_node_graph(const zn_node *n, const char *name) {
  const zn_attr *a = find(n, name, ZN_A_GRAPH);
  return a ? a->u.g : NULL;
}
