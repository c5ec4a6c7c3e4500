/* Finding the upgrade rules of a node, and the small tools they are written with. */
#include <math.h>

#include "frontends/onnx/upgrade.h"

typedef struct row {
  const char *domain, *op;
  int below;
  void (*rule)(zn_unode *u);
} row;
static const row rows[] = {
#define UPGRADE(domain, op, below, rule) {domain, op, below, zn_up_##rule},
#include "frontends/onnx/upgrade.def"
#undef UPGRADE
};
enum { NUM_ROWS = sizeof rows / sizeof *rows };

void zn_upgrade_init(zn_imp *I) {
  for (uint32_t i = 0; i < NUM_ROWS; i++)
    (void)zn_nmap_put(&I->upgrades, zn_arena_printf(I->pa, "%s:%s", rows[i].domain, rows[i].op), i);
}

void zn_upgrade(zn_unode *u) {
  uint32_t i;
  char key[160];
  if (u->ver < 6 && !*u->domain) zn_u_del(u, "consumed_inputs");
  snprintf(key, sizeof key, "%s:%s", u->domain, u->op);
  if (!zn_nmap_get(&u->s->I->upgrades, key, &i)) return;
  const char *op = u->op, *domain = u->domain;
  for (; i < NUM_ROWS && !strcmp(rows[i].op, op) && !strcmp(rows[i].domain, domain) && !u->done; i++)
    if (u->ver < rows[i].below) rows[i].rule(u);
}

/* ---- attributes ---- */

zn_attr *zn_u_attr(zn_unode *u, const char *name) {
  for (uint32_t i = 0; i < u->num_attrs; i++)
    if (!strcmp(u->attrs[i].name, name)) return &u->attrs[i];
  return NULL;
}

void zn_u_del(zn_unode *u, const char *name) {
  zn_attr *a = zn_u_attr(u, name);
  if (!a) return;
  size_t i = (size_t)(a - u->attrs);
  memmove(a, a + 1, (u->num_attrs - i - 1) * sizeof *a);
  u->num_attrs--;
}

/* Some exporters write whole numbers as floats. */
static int64_t whole(zn_unode *u, const zn_attr *a, int64_t dflt) {
  if (fabs(a->u.f) < 0x1p62 && a->u.f == floor(a->u.f)) return (int64_t)a->u.f;
  zn_imp_problem(u->s->I, zn_unode_where(u), false, NULL, "attribute '%s' is %g, not a whole number", a->name, a->u.f);
  return dflt;
}

int64_t zn_u_int(zn_unode *u, const char *name, int64_t dflt) {
  const zn_attr *a = zn_u_attr(u, name);
  int64_t v = a && a->kind == ZN_A_INT ? a->u.i : a && a->kind == ZN_A_FLOAT ? whole(u, a, dflt) : dflt;
  zn_u_del(u, name);
  return v;
}

double zn_u_float(zn_unode *u, const char *name, double dflt) {
  const zn_attr *a = zn_u_attr(u, name);
  double v = a && a->kind == ZN_A_FLOAT ? a->u.f : a && a->kind == ZN_A_INT ? (double)a->u.i : dflt;
  zn_u_del(u, name);
  return v;
}

const char *zn_u_str(zn_unode *u, const char *name, const char *dflt) {
  const zn_attr *a = zn_u_attr(u, name);
  return a && a->kind == ZN_A_STRING ? a->u.s.ptr : dflt;
}

static void set(zn_unode *u, zn_attr v, const char *name) {
  v.name = name;
  zn_attr *a = zn_u_attr(u, name);
  if (a) *a = v;
  else ZN_PUSH(u->s->I->pa, u->attrs, u->num_attrs, u->cap_attrs, v);
}

void zn_u_set_int(zn_unode *u, const char *name, int64_t v) { set(u, (zn_attr){.kind = ZN_A_INT, .u.i = v}, name); }
void zn_u_set_float(zn_unode *u, const char *name, double v) { set(u, (zn_attr){.kind = ZN_A_FLOAT, .u.f = v}, name); }
void zn_u_set_str(zn_unode *u, const char *name, const char *v) {
  zn_str s = {zn_arena_strdup(u->s->I->ga, v), strlen(v)};
  set(u, (zn_attr){.kind = ZN_A_STRING, .u.s = s}, name);
}
void zn_u_set_ints(zn_unode *u, const char *name, const int64_t *v, uint32_t n) {
  int64_t *copy = ZN_ARRAY(u->s->I->ga, int64_t, n);
  if (n) memcpy(copy, v, n * sizeof *v);
  set(u, (zn_attr){.kind = ZN_A_INTS, .n = n, .u.is = copy}, name);
}

/* ---- inputs and helper nodes ---- */

void zn_u_set_in(zn_unode *u, uint32_t i, zn_vid v) {
  while (u->num_in <= i) ZN_PUSH(u->s->I->pa, u->in, u->num_in, u->cap_in, 0);
  u->in[i] = v;
}

zn_nid zn_u_node(zn_unode *u, zn_op op, const zn_vid *in, uint32_t num_in) {
  zn_nid n = zn_graph_node(u->s->g, op, u->name, in, num_in, 1);
  u->s->g->nodes[n].source = u->source;
  return n;
}

zn_vid zn_u_op(zn_unode *u, zn_op op, const zn_vid *in, uint32_t num_in) {
  return zn_node_out(u->s->g, zn_u_node(u, op, in, num_in), 0);
}
zn_vid zn_u_op1(zn_unode *u, zn_op op, zn_vid a) { return zn_u_op(u, op, &a, 1); }
zn_vid zn_u_op2(zn_unode *u, zn_op op, zn_vid a, zn_vid b) {
  zn_vid in[2] = {a, b};
  return zn_u_op(u, op, in, 2);
}

zn_vid zn_u_i64s(zn_unode *u, const int64_t *v, uint32_t n) { return zn_graph_const_i64s(u->s->g, v, n); }
zn_vid zn_u_i64(zn_unode *u, int64_t v) { return zn_u_i64s(u, &v, 1); }

static void quiet(void *user, zn_severity sev, const char *line) {
  (void)user;
  (void)sev;
  (void)line;
}

/* Types are inferred lazily: only models with old operators ever need them here. Bodies and sequences stay unknown. */
static void infer_so_far(zn_unode *u) {
  zn_scope *s = u->s;
  zn_ctx *c = s->I->c;
  zn_sink sink = c->sink;
  if (!s->I->o->infer_node) return;
  unsigned errors = c->errors, warnings = c->warnings;
  for (; *s->infer_at < s->g->num_order; ++*s->infer_at) {
    zn_nid n = s->g->order[*s->infer_at];
    const zn_opdef *def = &zn_ops[s->g->nodes[n].op];
    if (def->flags & (ZN_OPF_CONTROL | ZN_OPF_HOST)) continue;
    bool known = true;
    for (uint32_t i = 0; i < s->g->nodes[n].num_in; i++) {
      zn_vid v = s->g->nodes[n].in[i];
      known = known && (!v || (s->g->vals[v].type.dtype != ZN_NONE && s->g->vals[v].type.rank >= 0));
    }
    if (!known) continue;
    c->sink = quiet;
    (void)!s->I->o->infer_node(c, s->g, n);
    c->sink = sink;
  }
  c->errors = errors;
  c->warnings = warnings;
}

const zn_type *zn_u_type(zn_unode *u, zn_vid v) {
  const zn_type *t = &u->s->g->vals[v].type;
  if (t->dtype == ZN_NONE || t->rank < 0) infer_so_far(u);
  return &u->s->g->vals[v].type;
}

zn_vid zn_u_scalar_like(zn_unode *u, double v, zn_vid like) {
  zn_dtype t = (zn_dtype)zn_u_type(u, like)->dtype;
  if (t != ZN_NONE && t != ZN_STR) return zn_graph_const_scalar(u->s->g, t, v);
  return zn_u_op2(u, ZN_OP_CastLike, zn_graph_const_scalar(u->s->g, ZN_F32, v), like);
}

void zn_up_ints_to_input(zn_unode *u, const char *attr, uint32_t i) {
  const zn_attr *a = zn_u_attr(u, attr);
  if (!a) return;
  if (a->kind == ZN_A_INTS && a->n) zn_u_set_in(u, i, zn_u_i64s(u, a->u.is, a->n));
  zn_u_del(u, attr);
}
