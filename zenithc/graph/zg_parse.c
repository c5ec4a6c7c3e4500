/* Parses .zg text into graphs. One scope of value names per graph (bodies see nothing from
 * outside); every value must be defined above its use, so what is read is in execution order.
 * Attributes take their kind from the operator's schema. */
#include <assert.h>

#include "zenithc/graph/text_impl.h"
#include "zenithc/ops/op.h"

typedef struct slot {
  const char *name;
  zn_vid v;
} slot;

typedef struct shares { /* names of values whose storage a value shares, or NULL */
  const char *alias, *within;
} shares;

typedef struct scope { /* value names of one graph */
  zn_graph *g;
  slot *slots;
  uint32_t size, used;
  slot *aliases; /* values and the names of those whose storage they share, which may be defined
                    further down */
  uint32_t num_aliases, cap_aliases;
  slot *bands; /* the same for those they lie within */
  uint32_t num_bands, cap_bands;
} scope;

typedef struct parser {
  zn_lexer l;
  zn_arena *a;
  zn_exprs *ex;
  const char *base_dir;
  unsigned depth;
} parser;
enum { MAX_BODIES = 64, MAX_OPERANDS = 1 << 16 };

/* ---- names ---- */

static uint32_t hash(const char *s) {
  uint64_t h = UINT64_C(1469598103934665603);
  for (; *s; s++) h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
  return (uint32_t)(h >> 20);
}

static slot *find(const scope *s, const char *name) {
  uint32_t i = hash(name);
  while (s->slots[i & (s->size - 1)].name && strcmp(s->slots[i & (s->size - 1)].name, name) != 0)
    i++;
  return &s->slots[i & (s->size - 1)];
}

static void define(parser *p, scope *s, const char *name, zn_vid v) {
  if (s->used * 2 >= s->size) {
    slot *old = s->slots;
    uint32_t n = s->size;
    s->size = n ? n * 2 : 64;
    s->slots = ZN_ARRAY(p->a, slot, s->size);
    for (uint32_t i = 0; i < n; i++)
      if (old[i].name) *find(s, old[i].name) = old[i];
  }
  *find(s, name) = (slot){name, v};
  s->used++;
}

/* %name, $name, @name, or the sigil before a quoted name. */
static bool parse_sigil(parser *p, char sigil, const char **out) {
  zn_lexer *l = &p->l;
  if (l->tok == ZN_TOK_IDENT && l->text[0] == sigil) {
    *out = l->text + 1;
    zn_lex_next(l);
    return true;
  }
  if (l->tok != sigil) return false;
  zn_lex_next(l);
  *out = l->text;
  if (l->tok != ZN_TOK_STRING || strlen(l->text) != l->text_len) {
    (void)zn_lex_error(l, "a name is missing behind '%c'", sigil);
    return false;
  }
  zn_lex_next(l);
  return true;
}

static zn_status parse_new_name(parser *p, scope *s, char sigil, const char **out) {
  if (!parse_sigil(p, sigil, out))
    return zn_lex_error(&p->l, "expected %cname, found '%s'", sigil, p->l.text);
  if (s->used && find(s, *out)->name)
    return zn_lex_error(&p->l, "value %c%s is defined twice", sigil, *out);
  return ZN_OK;
}

static zn_status parse_ref(parser *p, const scope *s, zn_vid *out) {
  const char *name;
  *out = 0;
  if (zn_lex_is(&p->l, "_")) {
    zn_lex_next(&p->l);
    return ZN_OK;
  }
  if (!parse_sigil(p, '%', &name) && !parse_sigil(p, '$', &name))
    return zn_lex_error(&p->l, "expected a value (%%name, $name or _), found '%s'", p->l.text);
  if (s->used) *out = find(s, name)->v;
  return *out ? ZN_OK : zn_lex_error(&p->l, "value '%s' is not defined above", name);
}

static zn_status parse_refs(parser *p, const scope *s, zn_vid **out, uint32_t *out_n) {
  zn_vid *list = NULL, v;
  uint32_t n = 0, cap = 0;
  ZN_TRY(zn_lex_expect(&p->l, '(', "'('"));
  while (p->l.tok != ')') {
    if (n) ZN_TRY(zn_lex_expect(&p->l, ',', "',' or ')'"));
    ZN_TRY(parse_ref(p, s, &v));
    if (n == MAX_OPERANDS) return zn_lex_error(&p->l, "more than %d operands", MAX_OPERANDS);
    ZN_PUSH(p->a, list, n, cap, v);
  }
  *out = list;
  *out_n = n;
  return zn_lex_expect(&p->l, ')', "')'");
}

/* ---- types ---- */

static zn_status parse_dtype(zn_lexer *l, uint8_t *out) {
  if (zn_lex_accept(l, '?')) {
    *out = ZN_NONE;
    return ZN_OK;
  }
  zn_dtype t = l->tok == ZN_TOK_IDENT ? zn_dtype_from_name(l->text) : ZN_NONE;
  if (t == ZN_NONE || t == ZN_IDX || t == ZN_PTR)
    return zn_lex_error(l, "'%s' is no element type", l->text);
  *out = (uint8_t)t;
  zn_lex_next(l);
  return ZN_OK;
}

static zn_status parse_tensor_type(zn_exprs *ex, zn_lexer *l, zn_type *out) {
  ZN_TRY(parse_dtype(l, &out->dtype));
  ZN_TRY(zn_lex_expect(l, '[', "'['"));
  out->rank = 0;
  if (zn_lex_accept(l, '*'))
    out->rank = -1;
  else
    while (l->tok != ']') {
      if (out->rank) ZN_TRY(zn_lex_expect(l, ',', "',' or ']'"));
      if (out->rank == ZN_MAX_RANK) return zn_lex_error(l, "more than %d dimensions", ZN_MAX_RANK);
      ZN_TRY(zn_ex_parse(ex, l, &out->dims[out->rank]));
      out->rank++;
    }
  return zn_lex_expect(l, ']', "']'");
}

static zn_status parse_map_type(zn_exprs *ex, zn_lexer *l, zn_type *out) {
  zn_lex_next(l);
  ZN_TRY(zn_lex_expect(l, '(', "'('"));
  ZN_TRY(parse_dtype(l, &out->key));
  ZN_TRY(zn_lex_expect(l, ',', "','"));
  ZN_TRY(parse_tensor_type(ex, l, out));
  return zn_lex_expect(l, ')', "')'");
}

zn_status zn_zg_parse_type(zn_exprs *ex, zn_lexer *l, zn_type *out) {
  *out = (zn_type){.kind = ZN_V_TENSOR};
  if (zn_lex_is(l, "map")) {
    out->kind = ZN_V_MAP;
    return parse_map_type(ex, l, out);
  }
  if (zn_lex_is(l, "seq"))
    out->kind = ZN_V_SEQ;
  else if (zn_lex_is(l, "opt"))
    out->kind = ZN_V_OPT;
  else
    return parse_tensor_type(ex, l, out);
  zn_lex_next(l);
  ZN_TRY(zn_lex_expect(l, '(', "'('"));
  if (out->kind == ZN_V_SEQ && zn_lex_is(l, "map")) {
    out->of = 1;
    ZN_TRY(parse_map_type(ex, l, out));
  } else if (out->kind == ZN_V_OPT && zn_lex_is(l, "seq")) {
    out->of = 1;
    zn_lex_next(l);
    ZN_TRY(zn_lex_expect(l, '(', "'('"));
    ZN_TRY(parse_tensor_type(ex, l, out));
    ZN_TRY(zn_lex_expect(l, ')', "')'"));
  } else {
    ZN_TRY(parse_tensor_type(ex, l, out));
  }
  return zn_lex_expect(l, ')', "')'");
}

/* ---- values ---- */

static zn_status parse_uint(zn_lexer *l, int64_t max, int64_t *out) {
  if (l->tok != ZN_TOK_INT || l->i < 0 || l->i > max)
    return zn_lex_error(l, "expected an integer in 0..%lld, found '%s'", (long long)max, l->text);
  *out = l->i;
  zn_lex_next(l);
  return ZN_OK;
}

static zn_status parse_u16s(zn_lexer *l, uint16_t *v, int n) {
  ZN_TRY(zn_lex_expect(l, '[', "'['"));
  for (int i = 0; i < n; i++) {
    int64_t x = 0;
    if (i) ZN_TRY(zn_lex_expect(l, ',', "','"));
    ZN_TRY(parse_uint(l, UINT16_MAX, &x));
    v[i] = (uint16_t)x;
  }
  return zn_lex_expect(l, ']', "']'");
}

static zn_status parse_elems(parser *p, zn_expr **out, uint32_t *out_n) {
  zn_expr list[ZN_MAX_ELEMS];
  uint32_t n = 0;
  ZN_TRY(zn_lex_expect(&p->l, '[', "'['"));
  while (p->l.tok != ']') {
    if (n) ZN_TRY(zn_lex_expect(&p->l, ',', "',' or ']'"));
    if (n == ZN_MAX_ELEMS) return zn_lex_error(&p->l, "more than %d elements", ZN_MAX_ELEMS);
    ZN_TRY(zn_ex_parse(p->ex, &p->l, &list[n]));
    n++;
  }
  *out = ZN_ARRAY(p->a, zn_expr, n);
  memcpy(*out, list, n * sizeof *list);
  *out_n = n;
  return zn_lex_expect(&p->l, ']', "']'");
}

static zn_status parse_contents(parser *p, zn_value *v, bool elems) {
  uint32_t n = 0;
  zn_lex_next(&p->l);
  ZN_TRY(parse_elems(p, elems ? &v->elems : &v->content, &n));
  if ((v->elems && v->content) && v->num_elems != n)
    return zn_lex_error(&p->l, "elems and content differ in length");
  v->num_elems = n;
  return ZN_OK;
}

/* The type of a value and the annotations behind it. */
static zn_status parse_band(parser *p, zn_value *v, shares *out) {
  zn_lexer *l = &p->l;
  int64_t x = 0;
  if (zn_lex_is(l, "within")) {
    zn_lex_next(l);
    if (!parse_sigil(p, '%', &out->within)) return zn_lex_error(l, "expected a value, found '%s'", l->text);
    if (!zn_lex_is(l, "row")) return zn_lex_error(l, "expected row, found '%s'", l->text);
    zn_lex_next(l);
    ZN_TRY(parse_uint(l, UINT32_MAX, &x));
    v->row = (uint32_t)x;
    return ZN_OK;
  }
  const bool gap = zn_lex_is(l, "gap");
  zn_lex_next(l);
  if (gap) ZN_TRY(parse_uint(l, UINT32_MAX, &x));
  if (gap) v->layout.gap = (uint32_t)x;
  else v->layout.shares_halo = true;
  return ZN_OK;
}

static zn_status parse_value(parser *p, zn_value *v, shares *out) {
  zn_lexer *l = &p->l;
  int64_t x = 0;
  *v = (zn_value){0};
  *out = (shares){0};
  ZN_TRY(zn_zg_parse_type(p->ex, l, &v->type));
  for (;;) {
    if (zn_lex_is(l, "elems") || zn_lex_is(l, "content")) {
      ZN_TRY(parse_contents(p, v, zn_lex_is(l, "elems")));
    } else if (zn_lex_is(l, "alias")) {
      zn_lex_next(l);
      if (!parse_sigil(p, '%', &out->alias) && !parse_sigil(p, '$', &out->alias))
        return zn_lex_error(l, "expected a value, found '%s'", l->text);
    } else if (zn_lex_is(l, "inlined")) {
      zn_lex_next(l);
      v->inlined = true;
    } else if (zn_lex_is(l, "block")) {
      zn_lex_next(l);
      ZN_TRY(parse_uint(l, UINT16_MAX, &x));
      v->layout.block = (uint16_t)x;
      if (!zn_lex_is(l, "axis")) return zn_lex_error(l, "expected axis, found '%s'", l->text);
      zn_lex_next(l);
      ZN_TRY(parse_uint(l, v->type.rank > 0 ? v->type.rank - 1 : 0, &x));
      v->layout.axis = (uint8_t)x;
    } else if (zn_lex_is(l, "halo")) {
      zn_lex_next(l);
      v->layout.has_halo = true;
      ZN_TRY(parse_u16s(l, v->layout.lo, v->type.rank > 0 ? v->type.rank : 0));
      ZN_TRY(parse_u16s(l, v->layout.hi, v->type.rank > 0 ? v->type.rank : 0));
    } else if (zn_lex_is(l, "within") || zn_lex_is(l, "gap") || zn_lex_is(l, "shared")) {
      ZN_TRY(parse_band(p, v, out));
    } else {
      return ZN_OK;
    }
  }
}

static void apply_value(parser *p, scope *s, zn_vid id, const zn_value *from, const shares *with) {
  zn_value *to = &s->g->vals[id];
  if (with->alias) ZN_PUSH(p->a, s->aliases, s->num_aliases, s->cap_aliases, ((slot){with->alias, id}));
  if (with->within) ZN_PUSH(p->a, s->bands, s->num_bands, s->cap_bands, ((slot){with->within, id}));
  to->type = from->type;
  if (from->elems) {
    to->elems = from->elems;
    to->num_elems = from->num_elems;
  }
  if (from->content) {
    to->content = from->content;
    to->num_elems = from->num_elems;
  }
  to->inlined = from->inlined;
  to->layout = from->layout;
  to->row = from->row;
}

static zn_status parse_const_tensor(parser *p, const zn_type *y, zn_htensor *h) {
  *h = (zn_htensor){.dtype = (zn_dtype)y->dtype, .rank = (uint32_t)(y->rank < 0 ? 0 : y->rank)};
  if (y->kind != ZN_V_TENSOR || y->dtype == ZN_NONE || !zn_type_is_static(p->ex, y, h->dims))
    return zn_lex_error(&p->l, "a constant needs an element type and a static shape");
  return zn_zg_parse_data(&p->l, p->a, p->base_dir, h);
}

static zn_status parse_const(parser *p, scope *s) {
  const char *name;
  shares with;
  zn_value v;
  zn_htensor *h = ZN_NEW(p->a, zn_htensor);
  zn_lex_next(&p->l); /* const */
  ZN_TRY(parse_new_name(p, s, '$', &name));
  ZN_TRY(parse_value(p, &v, &with));
  ZN_TRY(zn_lex_expect(&p->l, '=', "'='"));
  ZN_TRY(parse_const_tensor(p, &v.type, h));
  h->name = name;
  zn_vid id = zn_graph_const(s->g, name, h);
  v.elems = v.content = NULL;
  apply_value(p, s, id, &v, &with);
  define(p, s, name, id);
  return ZN_OK;
}

/* ---- attributes ---- */

static zn_status parse_graph(parser *p, zn_graph *parent, scope *s, zn_graph **out);

static zn_status parse_attr_tensor(parser *p, zn_htensor *h) {
  zn_type y;
  if (!zn_lex_is(&p->l, "const"))
    return zn_lex_error(&p->l, "expected const, found '%s'", p->l.text);
  zn_lex_next(&p->l);
  ZN_TRY(zn_zg_parse_type(p->ex, &p->l, &y));
  return parse_const_tensor(p, &y, h);
}

static zn_status parse_item(parser *p, zn_attr_kind kind, int64_t *i, double *f, zn_str *s) {
  zn_lexer *l = &p->l;
  bool number = l->tok == ZN_TOK_INT || l->tok == ZN_TOK_FLOAT;
  if (kind == ZN_A_INT || kind == ZN_A_INTS) {
    if (l->tok != ZN_TOK_INT) return zn_lex_error(l, "expected an integer, found '%s'", l->text);
    *i = l->i;
  } else if (kind == ZN_A_FLOAT || kind == ZN_A_FLOATS) {
    if (!number) return zn_lex_error(l, "expected a number, found '%s'", l->text);
    *f = l->f;
  } else {
    if (l->tok != ZN_TOK_STRING) return zn_lex_error(l, "expected a string, found '%s'", l->text);
    *s = (zn_str){l->text, l->text_len};
  }
  zn_lex_next(l);
  return ZN_OK;
}

static zn_status parse_list(parser *p, zn_attr *a) {
  int64_t *is = NULL, i = 0;
  double *fs = NULL, f = 0;
  zn_str *ss = NULL, s = {NULL, 0};
  zn_htensor *ts = NULL, t;
  uint32_t cap = 0;
  ZN_TRY(zn_lex_expect(&p->l, '[', "'['"));
  while (p->l.tok != ']') {
    if (a->n) ZN_TRY(zn_lex_expect(&p->l, ',', "',' or ']'"));
    if (a->kind == ZN_A_TENSORS)
      ZN_TRY(parse_attr_tensor(p, &t));
    else
      ZN_TRY(parse_item(p, (zn_attr_kind)a->kind, &i, &f, &s));
    switch ((zn_attr_kind)a->kind) {
      case ZN_A_INTS: ZN_PUSH(p->a, is, a->n, cap, i); break;
      case ZN_A_FLOATS: ZN_PUSH(p->a, fs, a->n, cap, f); break;
      case ZN_A_STRINGS: ZN_PUSH(p->a, ss, a->n, cap, s); break;
      default: ZN_PUSH(p->a, ts, a->n, cap, t); break;
    }
  }
  switch ((zn_attr_kind)a->kind) {
    case ZN_A_INTS: a->u.is = is; break;
    case ZN_A_FLOATS: a->u.fs = fs; break;
    case ZN_A_STRINGS: a->u.ss = ss; break;
    default: a->u.t = ts; break;
  }
  return zn_lex_expect(&p->l, ']', "']'");
}

static zn_status parse_attr_value(parser *p, zn_graph *g, zn_attr *a) {
  a->n = 1;
  switch ((zn_attr_kind)a->kind) {
    case ZN_A_INT:
    case ZN_A_FLOAT:
    case ZN_A_STRING: return parse_item(p, (zn_attr_kind)a->kind, &a->u.i, &a->u.f, &a->u.s);
    case ZN_A_TENSOR: {
      zn_htensor *h = ZN_NEW(p->a, zn_htensor);
      a->u.t = h;
      return parse_attr_tensor(p, h);
    }
    case ZN_A_GRAPH: {
      scope body = {0};
      return parse_graph(p, g, &body, &a->u.g);
    }
    case ZN_A_TYPE: {
      zn_type *y = ZN_NEW(p->a, zn_type);
      a->u.type = y;
      return zn_zg_parse_type(p->ex, &p->l, y);
    }
    default: a->n = 0; return parse_list(p, a);
  }
}

static zn_status parse_attrs(parser *p, zn_graph *g, zn_nid n) {
  const zn_op op = g->nodes[n].op;
  for (bool first = true; !zn_lex_accept(&p->l, '}'); first = false) {
    if (!first) ZN_TRY(zn_lex_expect(&p->l, ',', "',' or '}'"));
    if (p->l.tok != ZN_TOK_IDENT)
      return zn_lex_error(&p->l, "expected an attribute, found '%s'", p->l.text);
    const zn_schema_attr *sa = zn_schema_find_attr(zn_op_schema(op), p->l.text);
    if (!sa) return zn_lex_error(&p->l, "%s has no attribute '%s'", zn_op_name(op), p->l.text);
    zn_attr a = {.name = sa->name, .kind = sa->kind};
    zn_lex_next(&p->l);
    ZN_TRY(zn_lex_expect(&p->l, '=', "'='"));
    ZN_TRY(parse_attr_value(p, g, &a));
    zn_node_set_attr(g, n, a);
  }
  return ZN_OK;
}

/* ---- nodes ---- */

static zn_op find_op(const char *name) { /* names are unique over all domains */
  for (int op = 1; op < ZN_OP_COUNT; op++)
    if (!strcmp(zn_ops[op].name, name)) return (zn_op)op;
  return ZN_OP_NONE;
}

static zn_status parse_trailer(parser *p, zn_graph *g, zn_nid n) {
  zn_lexer *l = &p->l;
  int64_t x = 0;
  const char *name;
  if (zn_lex_accept(l, '{')) ZN_TRY(parse_attrs(p, g, n));
  if (zn_lex_is(l, "captures")) {
    zn_lex_next(l);
    ZN_TRY(parse_uint(l, g->nodes[n].num_in, &x));
    g->nodes[n].num_captures = (uint32_t)x;
  }
  if (zn_lex_is(l, "kernel")) {
    zn_lex_next(l);
    ZN_TRY(parse_uint(l, INT32_MAX, &x));
    g->nodes[n].group = (uint32_t)x;
  }
  if (parse_sigil(p, '@', &name)) g->nodes[n].name = name;
  if (zn_lex_is(l, "source")) {
    zn_lex_next(l);
    g->nodes[n].source = l->text;
    ZN_TRY(zn_lex_expect(l, ZN_TOK_STRING, "a string"));
  }
  return ZN_OK;
}

typedef struct result {
  const char *name; /* NULL: absent */
  shares with;
  zn_value v;
} result;

static zn_status parse_results(parser *p, scope *s, result **out, uint32_t *out_n) {
  uint32_t cap = 0;
  do {
    result r = {0};
    if (zn_lex_is(&p->l, "_")) {
      zn_lex_next(&p->l);
    } else {
      ZN_TRY(parse_new_name(p, s, '%', &r.name));
      ZN_TRY(zn_lex_expect(&p->l, ':', "':'"));
      ZN_TRY(parse_value(p, &r.v, &r.with));
    }
    if (*out_n == MAX_OPERANDS) return zn_lex_error(&p->l, "more than %d results", MAX_OPERANDS);
    ZN_PUSH(p->a, *out, *out_n, cap, r);
  } while (zn_lex_accept(&p->l, ','));
  return zn_lex_expect(&p->l, '=', "'='");
}

static zn_status parse_node(parser *p, scope *s) {
  zn_lexer *l = &p->l;
  zn_graph *g = s->g;
  result *res = NULL;
  zn_vid *in = NULL;
  uint32_t num_out = 0, num_in = 0;
  ZN_TRY(parse_results(p, s, &res, &num_out));
  zn_op op = l->tok == ZN_TOK_IDENT ? find_op(l->text) : ZN_OP_NONE;
  if (op == ZN_OP_NONE) return zn_lex_error(l, "'%s' is no operator", l->text);
  zn_lex_next(l);
  ZN_TRY(parse_refs(p, s, &in, &num_in));
  zn_nid n = zn_graph_node(g, op, NULL, in, num_in, 0);
  ZN_TRY(parse_trailer(p, g, n));
  zn_vid *outs = ZN_ARRAY(p->a, zn_vid, num_out);
  for (uint32_t i = 0; i < num_out; i++) {
    if (!res[i].name) continue;
    if (s->used && find(s, res[i].name)->name)
      return zn_lex_error(l, "value %%%s is defined twice", res[i].name);
    outs[i] = zn_graph_value(g, res[i].name);
    apply_value(p, s, outs[i], &res[i].v, &res[i].with);
    g->vals[outs[i]].def = n;
    g->vals[outs[i]].def_out = i;
    define(p, s, res[i].name, outs[i]);
  }
  g->nodes[n].out = outs;
  g->nodes[n].num_out = num_out;
  return ZN_OK;
}

/* ---- graphs ---- */

static zn_status parse_inputs(parser *p, scope *s) {
  ZN_TRY(zn_lex_expect(&p->l, '(', "'('"));
  for (bool first = true; !zn_lex_accept(&p->l, ')'); first = false) {
    const char *name;
    shares with;
    zn_value v;
    if (!first) ZN_TRY(zn_lex_expect(&p->l, ',', "',' or ')'"));
    ZN_TRY(parse_new_name(p, s, '%', &name));
    ZN_TRY(zn_lex_expect(&p->l, ':', "':'"));
    ZN_TRY(parse_value(p, &v, &with));
    zn_vid id = zn_graph_input(s->g, name, v.type);
    apply_value(p, s, id, &v, &with);
    define(p, s, name, id);
  }
  return ZN_OK;
}

/* The outputs stand before the body that defines them: their names are kept until its end. */
static zn_status parse_outputs(parser *p, const char ***out, uint32_t *out_n) {
  uint32_t cap = 0;
  *out = NULL;
  *out_n = 0;
  ZN_TRY(zn_lex_expect(&p->l, ZN_TOK_ARROW, "'->'"));
  ZN_TRY(zn_lex_expect(&p->l, '(', "'('"));
  while (!zn_lex_accept(&p->l, ')')) {
    const char *name;
    if (*out_n) ZN_TRY(zn_lex_expect(&p->l, ',', "',' or ')'"));
    if (!parse_sigil(p, '%', &name) && !parse_sigil(p, '$', &name))
      return zn_lex_error(&p->l, "expected a value (%%name or $name), found '%s'", p->l.text);
    ZN_PUSH(p->a, *out, *out_n, cap, name);
  }
  return ZN_OK;
}

static zn_status parse_graph(parser *p, zn_graph *parent, scope *s, zn_graph **out) {
  zn_lexer *l = &p->l;
  const char *name = NULL, **outputs;
  uint32_t num_outputs;
  if (++p->depth > MAX_BODIES)
    return zn_lex_error(l, "bodies nested more than %d deep", MAX_BODIES);
  if (!zn_lex_is(l, "graph")) return zn_lex_error(l, "expected graph, found '%s'", l->text);
  zn_lex_next(l);
  if (!parse_sigil(p, '@', &name)) return zn_lex_error(l, "expected @name, found '%s'", l->text);
  if (!s->g) s->g = zn_graph_new(p->a, p->ex, name);
  s->g->name = name;
  s->g->parent = parent;
  ZN_TRY(parse_inputs(p, s));
  ZN_TRY(parse_outputs(p, &outputs, &num_outputs));
  ZN_TRY(zn_lex_expect(l, '{', "'{'"));
  while (!zn_lex_accept(l, '}'))
    ZN_TRY(zn_lex_is(l, "const") ? parse_const(p, s) : parse_node(p, s));
  for (uint32_t i = 0; i < num_outputs; i++) {
    zn_vid v = s->used ? find(s, outputs[i])->v : 0;
    if (!v) return zn_lex_error(l, "output '%s' of graph @%s is not defined", outputs[i], name);
    zn_graph_output(s->g, v);
  }
  for (uint32_t i = 0; i < s->num_aliases; i++) {
    zn_vid v = find(s, s->aliases[i].name)->v;
    if (!v) return zn_lex_error(l, "value '%s' behind alias is not defined", s->aliases[i].name);
    s->g->vals[s->aliases[i].v].alias = v;
  }
  for (uint32_t i = 0; i < s->num_bands; i++) {
    zn_vid v = find(s, s->bands[i].name)->v;
    if (!v) return zn_lex_error(l, "value '%s' behind within is not defined", s->bands[i].name);
    s->g->vals[s->bands[i].v].within = v;
  }
  p->depth--;
  *out = s->g;
  return ZN_OK;
}

static zn_status parse_bound(zn_lexer *l, int64_t *out) {
  if (l->tok == ZN_TOK_FLOAT && l->f > 1e300)
    *out = INT64_MAX;
  else if (l->tok == ZN_TOK_FLOAT && l->f < -1e300)
    *out = INT64_MIN;
  else if (l->tok == ZN_TOK_INT)
    *out = l->i;
  else
    return zn_lex_error(l, "expected a bound, found '%s'", l->text);
  zn_lex_next(l);
  return ZN_OK;
}

static zn_status parse_symbol(parser *p) {
  zn_lexer *l = &p->l;
  zn_expr sym, extent;
  int64_t lo, hi;
  zn_lex_next(l); /* sym */
  bool quoted = zn_lex_accept(l, '!');
  if (l->tok != (quoted ? (int)ZN_TOK_STRING : (int)ZN_TOK_IDENT))
    return zn_lex_error(l, "expected the name of a symbol, found '%s'", l->text);
  sym = zn_ex_sym(p->ex, l->text, 0, INT64_MAX);
  zn_lex_next(l);
  ZN_TRY(parse_bound(l, &lo));
  ZN_TRY(zn_lex_expect(l, '.', "'..'"));
  ZN_TRY(zn_lex_expect(l, '.', "'..'"));
  ZN_TRY(parse_bound(l, &hi));
  bool never = hi < INT64_MAX && hi + 1 == lo; /* the counter of a loop that does not run */
  if ((hi < lo && !never) || lo == INT64_MAX || hi == INT64_MIN)
    return zn_lex_error(l, "the range of '%s' is empty", zn_ex_name(p->ex, sym));
  zn_ex_set_range(p->ex, sym, lo, hi);
  if (!zn_lex_is(l, "below")) return ZN_OK;
  zn_lex_next(l);
  ZN_TRY(zn_ex_parse(p->ex, l, &extent));
  zn_ex_set_extent(p->ex, sym, extent);
  zn_ex_set_range(p->ex, sym, lo, hi);
  return ZN_OK;
}

zn_status zn_graph_parse(zn_ctx *c, zn_arena *a, const char *src, size_t n, const char *base_dir,
                         zn_graph **out) {
  parser p = {.a = a, .ex = zn_exprs_new(a), .base_dir = base_dir};
  scope s = {.g = zn_graph_new(a, p.ex, "main")};
  zn_lexer *l = &p.l;
  zn_lex_init(l, c, a, src, n);
  if (!zn_lex_is(l, "zg"))
    return zn_lex_error(l, "this is no .zg text: it does not begin with 'zg 1'");
  zn_lex_next(l);
  if (l->tok != ZN_TOK_INT || l->i != 1)
    return zn_lex_error(l, "version %s of .zg is unknown, expected 1", l->text);
  zn_lex_next(l);
  for (;;) {
    if (zn_lex_is(l, "producer")) {
      zn_lex_next(l);
      s.g->producer = l->text;
      ZN_TRY(zn_lex_expect(l, ZN_TOK_STRING, "a string"));
    } else if (zn_lex_is(l, "sym")) {
      ZN_TRY(parse_symbol(&p));
    } else if (zn_lex_is(l, "const")) {
      ZN_TRY(parse_const(&p, &s));
    } else {
      break;
    }
  }
  ZN_TRY(parse_graph(&p, NULL, &s, out));
  return zn_lex_expect(l, ZN_TOK_EOF, "the end of the text");
}
