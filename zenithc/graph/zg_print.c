/* Prints graphs as .zg text: symbols with bounds, constants, then the nodes in order, bodies of
 * control flow nested. All that a pass may rely on is printed, and the text reads back to a graph
 * that prints the same. */
#include <assert.h>

#include "zenithc/graph/text_impl.h"
#include "zenithc/ops/op.h"

typedef struct printer {
  const zn_graph *g;
  zn_text *t;
  unsigned indent;
} printer;

static void newline(const printer *p) { zn_text_printf(p->t, "\n%*s", (int)p->indent, ""); }

static void print_ident(zn_text *t, const char *sigil, const char *name) {
  size_t n = strlen(name);
  zn_text_puts(t, sigil);
  if (zn_text_is_sigil_ident(name, n))
    zn_text_put(t, name, n);
  else
    zn_text_quote(t, name, n);
}

static void print_ref(const printer *p, zn_vid v) {
  if (v == 0)
    zn_text_puts(p->t, "_");
  else
    print_ident(p->t, p->g->vals[v].cst ? "$" : "%", p->g->vals[v].name);
}

static void print_refs(const printer *p, const zn_vid *v, uint32_t n) {
  zn_text_puts(p->t, "(");
  for (uint32_t i = 0; i < n; i++) {
    if (i) zn_text_puts(p->t, ", ");
    print_ref(p, v[i]);
  }
  zn_text_puts(p->t, ")");
}

/* ---- types ---- */

static void print_tensor_type(const zn_exprs *ex, const zn_type *y, zn_text *t) {
  zn_text_puts(t, zn_dtypes[y->dtype].name);
  zn_text_puts(t, "[");
  if (y->rank < 0) zn_text_puts(t, "*");
  for (int d = 0; d < y->rank; d++) {
    if (d) zn_text_puts(t, ",");
    zn_ex_print(ex, y->dims[d], t);
  }
  zn_text_puts(t, "]");
}

static void print_map_type(const zn_exprs *ex, const zn_type *y, zn_text *t) {
  zn_text_printf(t, "map(%s, ", zn_dtypes[y->key].name);
  print_tensor_type(ex, y, t);
  zn_text_puts(t, ")");
}

void zn_zg_print_type(const zn_exprs *ex, const zn_type *y, zn_text *t) {
  switch ((zn_vkind)y->kind) {
    case ZN_V_TENSOR: print_tensor_type(ex, y, t); return;
    case ZN_V_MAP: print_map_type(ex, y, t); return;
    case ZN_V_SEQ:
      zn_text_puts(t, "seq(");
      if (y->of)
        print_map_type(ex, y, t);
      else
        print_tensor_type(ex, y, t);
      break;
    case ZN_V_OPT:
      zn_text_puts(t, y->of ? "opt(seq(" : "opt(");
      print_tensor_type(ex, y, t);
      if (y->of) zn_text_puts(t, ")");
      break;
  }
  zn_text_puts(t, ")");
}

static void print_u16s(zn_text *t, const uint16_t *v, int n) {
  zn_text_puts(t, " [");
  for (int i = 0; i < n; i++) zn_text_printf(t, i ? ",%u" : "%u", v[i]);
  zn_text_puts(t, "]");
}

static void print_exprs(const printer *p, const char *head, const zn_expr *e, uint32_t n) {
  zn_text_puts(p->t, head);
  for (uint32_t i = 0; i < n; i++) {
    if (i) zn_text_puts(p->t, ", ");
    zn_ex_print(p->g->ex, e[i], p->t);
  }
  zn_text_puts(p->t, "]");
}

/* ": type" and what else is known of the value. */
static void print_value(const printer *p, zn_vid v) {
  const zn_value *x = &p->g->vals[v];
  zn_text *t = p->t;
  zn_text_puts(t, x->cst ? " " : ": ");
  zn_zg_print_type(p->g->ex, &x->type, t);
  if (x->elems && !x->cst) print_exprs(p, " elems [", x->elems, x->num_elems);
  if (x->content) print_exprs(p, " content [", x->content, x->num_elems);
  if (x->alias) {
    zn_text_puts(t, " alias ");
    print_ref(p, x->alias);
  }
  if (x->inlined) zn_text_puts(t, " inlined");
  if (x->layout.block) zn_text_printf(t, " block %u axis %u", x->layout.block, x->layout.axis);
  if (x->layout.has_halo) {
    int rank = x->type.rank > 0 ? x->type.rank : 0;
    zn_text_puts(t, " halo");
    print_u16s(t, x->layout.lo, rank);
    print_u16s(t, x->layout.hi, rank);
  }
  if (x->layout.shares_halo) zn_text_puts(t, " shared");
  if (x->layout.gap) zn_text_printf(t, " gap %u", x->layout.gap);
  if (x->within) {
    zn_text_puts(t, " within ");
    print_ref(p, x->within);
    zn_text_printf(t, " row %u", x->row);
  }
}

/* ---- attributes and nodes ---- */

static void print_float(zn_text *t, double x) { /* always recognisable as one */
  size_t at = t->len;
  zn_text_double(t, x);
  if (!strpbrk(t->s + at, ".en")) zn_text_puts(t, ".0");
}

static void print_tensor(const printer *p, const zn_htensor *h) {
  zn_text_printf(p->t, "const %s[", zn_dtypes[h->dtype].name);
  for (uint32_t d = 0; d < h->rank; d++)
    zn_text_printf(p->t, d ? ",%lld" : "%lld", (long long)h->dims[d]);
  zn_text_puts(p->t, "] ");
  zn_zg_print_data(h, p->t);
}

static void print_graph(const printer *outer, const zn_graph *g);

static void print_attr_list(const printer *p, const zn_attr *a) {
  zn_text_puts(p->t, "[");
  for (uint32_t i = 0; i < a->n; i++) {
    if (i) zn_text_puts(p->t, ", ");
    switch ((zn_attr_kind)a->kind) {
      case ZN_A_INTS: zn_text_printf(p->t, "%lld", (long long)a->u.is[i]); break;
      case ZN_A_FLOATS: print_float(p->t, a->u.fs[i]); break;
      case ZN_A_STRINGS: zn_text_quote(p->t, a->u.ss[i].ptr, a->u.ss[i].len); break;
      default: print_tensor(p, &a->u.t[i]); break;
    }
  }
  zn_text_puts(p->t, "]");
}

static void print_attr(const printer *p, const zn_attr *a) {
  if (zn_text_is_ident(a->name, strlen(a->name)))
    zn_text_puts(p->t, a->name);
  else
    zn_text_quote(p->t, a->name, strlen(a->name));
  zn_text_puts(p->t, "=");
  switch ((zn_attr_kind)a->kind) {
    case ZN_A_NONE: zn_text_puts(p->t, "_"); break;
    case ZN_A_INT: zn_text_printf(p->t, "%lld", (long long)a->u.i); break;
    case ZN_A_FLOAT: print_float(p->t, a->u.f); break;
    case ZN_A_STRING: zn_text_quote(p->t, a->u.s.ptr, a->u.s.len); break;
    case ZN_A_TENSOR: print_tensor(p, a->u.t); break;
    case ZN_A_GRAPH: print_graph(p, a->u.g); break;
    case ZN_A_TYPE: zn_zg_print_type(p->g->ex, a->u.type, p->t); break;
    default: print_attr_list(p, a); break;
  }
}

static void print_node(const printer *p, zn_nid id, uint32_t position) {
  const zn_node *n = &p->g->nodes[id];
  zn_text *t = p->t;
  newline(p);
  if (n->num_out == 0) zn_text_puts(t, "_");
  for (uint32_t i = 0; i < n->num_out; i++) {
    if (i) zn_text_puts(t, ", ");
    print_ref(p, n->out[i]);
    if (n->out[i]) print_value(p, n->out[i]);
  }
  zn_text_printf(t, " = %s", zn_op_name(n->op));
  print_refs(p, n->in, n->num_in);
  for (uint32_t i = 0; i < n->num_attrs; i++) {
    zn_text_puts(t, i ? ", " : " {");
    print_attr(p, &n->attrs[i]);
  }
  if (n->num_attrs) zn_text_puts(t, "}");
  if (n->num_captures) zn_text_printf(t, " captures %u", n->num_captures);
  if (n->group) zn_text_printf(t, " kernel %u", n->group);
  char plain[80]; /* the name it gets anyway when read back */
  snprintf(plain, sizeof plain, "%s_%u", zn_op_name(n->op), position + 1);
  if (strcmp(n->name, plain) != 0) {
    zn_text_puts(t, " ");
    print_ident(t, "@", n->name);
  }
  if (n->source) {
    zn_text_puts(t, " source ");
    zn_text_quote(t, n->source, strlen(n->source));
  }
}

/* ---- graphs ---- */

static void print_consts(const printer *p) {
  const zn_graph *g = p->g;
  uint32_t *uses = zn_graph_uses(g, p->t->arena);
  for (zn_vid v = 1; v < g->num_vals; v++) uses[g->vals[v].alias]++;
  for (zn_vid v = 1; v < g->num_vals; v++) {
    if (!g->vals[v].cst || !uses[v]) continue;
    if (p->indent) newline(p);
    zn_text_puts(p->t, "const ");
    print_ref(p, v);
    print_value(p, v);
    zn_text_puts(p->t, " = ");
    zn_zg_print_data(g->vals[v].cst, p->t);
    if (!p->indent) zn_text_puts(p->t, "\n");
  }
}

static void print_graph(const printer *outer, const zn_graph *g) {
  printer p = {g, outer->t, outer->indent + 2};
  zn_text_puts(p.t, "graph ");
  print_ident(p.t, "@", g->name);
  zn_text_puts(p.t, "(");
  for (uint32_t i = 0; i < g->num_inputs; i++) {
    if (i) zn_text_puts(p.t, ", ");
    print_ref(&p, g->inputs[i]);
    print_value(&p, g->inputs[i]);
  }
  zn_text_puts(p.t, ") -> ");
  print_refs(&p, g->outputs, g->num_outputs);
  zn_text_puts(p.t, " {");
  if (outer->indent || outer->g) print_consts(&p);
  uint32_t position = 0;
  for (uint32_t i = 0; i < g->num_order; i++)
    if (!g->nodes[g->order[i]].dead) print_node(&p, g->order[i], position++);
  newline(outer);
  zn_text_puts(p.t, "}");
}

/* Symbols in order of appearance, those in symbolic bounds first. */
typedef struct symbols {
  const zn_exprs *ex;
  zn_arena *a;
  zn_expr *sym;
  uint32_t n, cap;
} symbols;

static void collect(symbols *s, zn_expr e) {
  if (e <= ZN_EX_OVERFLOW) return;
  for (uint32_t i = 0; i < zn_ex_arity(s->ex, e); i++) collect(s, zn_ex_operand(s->ex, e, i));
  if (zn_ex_kind(s->ex, e) != ZN_EX_SYM) return;
  for (uint32_t i = 0; i < s->n; i++)
    if (s->sym[i] == e) return;
  zn_expr extent = zn_ex_extent(s->ex, e);
  if (extent != e) collect(s, extent);
  ZN_PUSH(s->a, s->sym, s->n, s->cap, e);
}

static void collect_graph(symbols *s, const zn_graph *g) {
  for (zn_vid v = 1; v < g->num_vals; v++) {
    const zn_value *x = &g->vals[v];
    if (x->def && g->nodes[x->def].dead) continue;
    for (int d = 0; d < x->type.rank; d++) collect(s, x->type.dims[d]);
    for (uint32_t i = 0; i < x->num_elems && x->elems; i++) collect(s, x->elems[i]);
    for (uint32_t i = 0; i < x->num_elems && x->content; i++) collect(s, x->content[i]);
  }
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    for (uint32_t k = 0; k < n->num_attrs && !n->dead; k++)
      if (n->attrs[k].kind == ZN_A_GRAPH) collect_graph(s, n->attrs[k].u.g);
  }
}

static void print_bound(zn_text *t, int64_t v) {
  if (v == INT64_MIN || v == INT64_MAX)
    zn_text_puts(t, v < 0 ? "-inf" : "inf");
  else
    zn_text_printf(t, "%lld", (long long)v);
}

static void print_symbols(const zn_graph *g, zn_text *t) {
  symbols s = {.ex = g->ex, .a = t->arena};
  collect_graph(&s, g);
  for (uint32_t i = 0; i < s.n; i++) {
    int64_t lo, hi;
    zn_ex_range(g->ex, s.sym[i], &lo, &hi);
    zn_expr extent = zn_ex_extent(g->ex, s.sym[i]);
    if (lo == 0 && hi == INT64_MAX && !extent) continue;
    zn_text_puts(t, "sym ");
    zn_ex_print(g->ex, s.sym[i], t);
    zn_text_puts(t, " ");
    print_bound(t, lo);
    zn_text_puts(t, "..");
    print_bound(t, hi);
    if (extent) {
      zn_text_puts(t, " below ");
      zn_ex_print(g->ex, extent, t);
    }
    zn_text_puts(t, "\n");
  }
}

void zn_graph_print(const zn_graph *g, zn_text *t) {
  printer p = {NULL, t, 0};
  zn_text_puts(t, "zg 1\n");
  if (g->producer) {
    zn_text_puts(t, "producer ");
    zn_text_quote(t, g->producer, strlen(g->producer));
    zn_text_puts(t, "\n");
  }
  print_symbols(g, t);
  print_consts(&(printer){g, t, 0});
  print_graph(&p, g);
  zn_text_puts(t, "\n");
}
