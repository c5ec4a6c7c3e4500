/* Text of expressions. The printer orders terms and operands by content (degree, then names), not
 * by age, so that a text reads back and prints the same in any pool; the parser calls the ordinary
 * constructors. */
#include <assert.h>

#include "zenithc/base/expr_impl.h"

static zn_expr operand(const zn_exprs *p, zn_expr e, uint32_t i) {
  return p->ops[zn_ex_at(p, e)->first + i];
}

static int compare(const zn_exprs *p, zn_expr a, zn_expr b);

static uint32_t degree_of(const zn_exprs *p, zn_expr e) {
  zn_expr m = zn_ex_at(p, e)->mono;
  const zn_expr *f = NULL;
  return m ? zn_ex_factors(p, &m, &f) : 0;
}

enum { MAX_LIST = ZN_EX_MAX_TERMS };

/* Operands of e, those of nested min in min (max in max) included. */
static void gather(const zn_exprs *p, zn_expr e, zn_ex_op op, zn_expr *list, uint32_t *n,
                   uint32_t max) {
  const zn_ex_node *x = zn_ex_at(p, e);
  for (uint32_t i = 0; i < x->n && *n < max; i++) {
    zn_expr y = p->ops[x->first + i];
    if ((op == ZN_EX_MIN || op == ZN_EX_MAX) && zn_ex_at(p, y)->op == op && *n + 34 < max)
      gather(p, y, op, list, n, max);
    else
      list[(*n)++] = y;
  }
}

/* Operand ids of e in printing order. */
static uint32_t ordered(const zn_exprs *p, zn_expr e, zn_expr *list, uint32_t max) {
  uint32_t n = 0;
  gather(p, e, (zn_ex_op)zn_ex_at(p, e)->op, list, &n, max);
  for (uint32_t i = 0; i < n; i++) {
    zn_expr x = list[i];
    uint32_t at = i;
    for (; at > 0 && compare(p, x, list[at - 1]) < 0; at--) list[at] = list[at - 1];
    list[at] = x;
  }
  return n;
}

/* In printing order where the order is free. */
static uint32_t operands(const zn_exprs *p, zn_expr e, zn_expr *list, uint32_t max) {
  zn_ex_op op = (zn_ex_op)zn_ex_at(p, e)->op;
  uint32_t n = 0;
  if (op != ZN_EX_DIV && op != ZN_EX_MOD && op != ZN_EX_BCAST) return ordered(p, e, list, max);
  gather(p, e, op, list, &n, max);
  return n;
}

/* Order of terms: higher degree first, constants last; of factors: by kind, then name, then
 * operands. */
static int compare(const zn_exprs *p, zn_expr a, zn_expr b) {
  if (a == b) return 0;
  const zn_ex_node *x = zn_ex_at(p, a), *y = zn_ex_at(p, b);
  uint32_t da = degree_of(p, a), db = degree_of(p, b);
  if (da != db) return da > db ? -1 : 1;
  if (x->op == ZN_EX_SYM && y->op == ZN_EX_SYM) {
    int c = strcmp(x->name, y->name);
    return c ? c : a < b ? -1 : 1;
  }
  if (x->op == ZN_EX_MUL && x->coef != 1)
    return compare(p, x->mono, b) ? compare(p, x->mono, b) : 1;
  if (y->op == ZN_EX_MUL && y->coef != 1)
    return compare(p, a, y->mono) ? compare(p, a, y->mono) : -1;
  if (x->op != y->op) return x->op < y->op ? -1 : 1;
  if (x->op == ZN_EX_CONST) return x->coef < y->coef ? -1 : 1;
  zn_expr la[64] = {0}, lb[64] = {0};
  uint32_t n = operands(p, a, la, 64), nb = operands(p, b, lb, 64);
  if (n != nb) return n > nb ? -1 : 1;
  for (uint32_t i = 0; i < n; i++) {
    int c = compare(p, la[i], lb[i]);
    if (c) return c;
  }
  return a < b ? -1 : 1;
}

static void print(const zn_exprs *p, zn_expr e, zn_text *t);

static void print_int(int64_t v, zn_text *t) { zn_text_printf(t, "%lld", (long long)v); }

static bool is_word(const zn_exprs *p, zn_expr e) {
  const zn_ex_node *n = zn_ex_at(p, e);
  return n->op == ZN_EX_SYM || n->op >= ZN_EX_MIN || (n->op == ZN_EX_CONST && n->coef >= 0);
}

static void print_word(const zn_exprs *p, zn_expr e, zn_text *t) {
  if (!is_word(p, e)) zn_text_puts(t, "(");
  print(p, e, t);
  if (!is_word(p, e)) zn_text_puts(t, ")");
}

/* |k| * mono */
static void print_term(const zn_exprs *p, int64_t k, zn_expr mono, zn_text *t) {
  const zn_ex_node *m = zn_ex_at(p, mono);
  bool need_star = k != 1 && k != -1;
  if (k == INT64_MIN)
    print_int(k, t);
  else if (need_star)
    print_int(k < 0 ? -k : k, t);
  zn_expr f[64];
  uint32_t n = 1;
  f[0] = mono;
  if (m->op == ZN_EX_MUL) n = ordered(p, mono, f, 64);
  for (uint32_t i = 0; i < n; i++) {
    if (need_star) zn_text_puts(t, "*");
    if (n == 1 && k == 1)
      print(p, f[i], t);
    else
      print_word(p, f[i], t);
    need_star = true;
  }
}

static void print_sum(const zn_exprs *p, zn_expr e, zn_text *t) {
  zn_expr small[64], *list = small;
  uint32_t n = zn_ex_at(p, e)->n;
  if (n > 64) list = ZN_ARRAY(t->arena, zn_expr, n);
  ordered(p, e, list, n);
  for (uint32_t i = 0; i < n; i++) {
    zn_ex_term term = zn_ex_term_at(p, list[i], 0);
    bool minus = term.k < 0 && term.k != INT64_MIN;
    if (i)
      zn_text_puts(t, minus ? " - " : " + ");
    else if (minus)
      zn_text_puts(t, "-");
    if (term.m == ZN_EX_ONE)
      print_int(minus ? -term.k : term.k, t);
    else
      print_term(p, term.k, term.m, t);
  }
}

static void print_name(const char *name, zn_text *t) {
  if (zn_text_is_ident(name, strlen(name))) {
    zn_text_puts(t, name);
    return;
  }
  zn_text_puts(t, "!");
  zn_text_quote(t, name, strlen(name));
}

static void print_call(const zn_exprs *p, const char *f, zn_expr e, zn_text *t) {
  zn_expr a[64];
  uint32_t n = operands(p, e, a, 64);
  zn_text_printf(t, "%s(", f);
  for (uint32_t i = 0; i < n; i++) {
    if (i) zn_text_puts(t, ", ");
    print(p, a[i], t);
  }
  zn_text_puts(t, ")");
}

static void print(const zn_exprs *p, zn_expr e, zn_text *t) {
  if (zn_ex_bad(e)) {
    zn_text_puts(t, e == ZN_EX_NONE ? "?" : "overflow()");
    return;
  }
  const zn_ex_node *n = zn_ex_at(p, e);
  switch ((zn_ex_op)n->op) {
    case ZN_EX_CONST: print_int(n->coef, t); break;
    case ZN_EX_SYM: print_name(n->name, t); break;
    case ZN_EX_ADD: print_sum(p, e, t); break;
    case ZN_EX_MUL:
      if (n->coef < 0 && n->coef != INT64_MIN) zn_text_puts(t, "-");
      print_term(p, n->coef, n->mono, t);
      break;
    case ZN_EX_DIV:
    case ZN_EX_MOD:
      print_word(p, operand(p, e, 0), t);
      zn_text_puts(t, n->op == ZN_EX_DIV ? "//" : " % ");
      print_word(p, operand(p, e, 1), t);
      break;
    case ZN_EX_MIN: print_call(p, "min", e, t); break;
    case ZN_EX_MAX: print_call(p, "max", e, t); break;
    case ZN_EX_BCAST: print_call(p, "bcast", e, t); break;
  }
}

void zn_ex_print(const zn_exprs *p, zn_expr e, zn_text *t) { print(p, e, t); }

/* ---- parser ---- */

enum { MAX_PAREN = 200 };
typedef struct parser {
  zn_exprs *p;
  zn_lexer *l;
  unsigned depth;
} parser;

static zn_status parse_sum(parser *s, zn_expr *out);

static zn_status parse_call(parser *s, const char *name, zn_expr *out) {
  zn_lex_next(s->l); /* ( */
  if (!strcmp(name, "overflow")) {
    *out = ZN_EX_OVERFLOW;
    return zn_lex_expect(s->l, ')', "')'");
  }
  zn_expr (*const f)(zn_exprs *, zn_expr, zn_expr) = !strcmp(name, "min")     ? zn_ex_min
                                                     : !strcmp(name, "max")   ? zn_ex_max
                                                     : !strcmp(name, "bcast") ? zn_ex_bcast
                                                                              : NULL;
  if (!f)
    return zn_lex_error(s->l, "'%s' is no function of dimensions; known: min, max, bcast", name);
  ZN_TRY(parse_sum(s, out));
  do {
    zn_expr b;
    ZN_TRY(zn_lex_expect(s->l, ',', "','"));
    ZN_TRY(parse_sum(s, &b));
    *out = f(s->p, *out, b);
  } while (s->l->tok == ',' && f != zn_ex_bcast);
  return zn_lex_expect(s->l, ')', "')'");
}

static zn_status parse_word(parser *s, zn_expr *out) {
  zn_lexer *l = s->l;
  if (l->tok == ZN_TOK_INT) {
    *out = zn_ex_const(s->p, l->i);
    zn_lex_next(l);
    return ZN_OK;
  }
  if (zn_lex_accept(l, '?')) {
    *out = ZN_EX_NONE;
    return ZN_OK;
  }
  if (zn_lex_accept(l, '(')) {
    ZN_TRY(parse_sum(s, out));
    return zn_lex_expect(l, ')', "')'");
  }
  bool quoted = zn_lex_accept(l, '!');
  if (quoted ? l->tok == ZN_TOK_STRING : l->tok == ZN_TOK_IDENT) {
    if (strlen(l->text) != l->text_len || (!quoted && !zn_text_is_ident(l->text, l->text_len)))
      return zn_lex_error(l, "'%s' is no name of a dimension", l->text);
    const char *name = l->text;
    zn_lex_next(l);
    if (!quoted && l->tok == '(') return parse_call(s, name, out);
    *out = zn_ex_sym(s->p, name, 0, INT64_MAX);
    return ZN_OK;
  }
  return zn_lex_error(l, "expected a dimension, found '%s'", l->text);
}

static zn_status parse_signed(parser *s, zn_expr *out) {
  bool minus = zn_lex_accept(s->l, '-');
  ZN_TRY(parse_word(s, out));
  if (minus) *out = zn_ex_muli(s->p, *out, -1);
  return ZN_OK;
}

static zn_status parse_product(parser *s, zn_expr *out) {
  ZN_TRY(parse_signed(s, out));
  for (;;) {
    zn_expr b;
    if (zn_lex_accept(s->l, '*')) {
      ZN_TRY(parse_signed(s, &b));
      *out = zn_ex_mul(s->p, *out, b);
    } else if (zn_lex_accept(s->l, '%')) {
      ZN_TRY(parse_signed(s, &b));
      *out = zn_ex_mod(s->p, *out, b);
    } else if (zn_lex_accept(s->l, '/')) {
      ZN_TRY(zn_lex_expect(s->l, '/', "'//' (floor division)"));
      ZN_TRY(parse_signed(s, &b));
      *out = zn_ex_div(s->p, *out, b);
    } else {
      return ZN_OK;
    }
  }
}

static zn_status parse_sum(parser *s, zn_expr *out) {
  if (++s->depth > MAX_PAREN)
    return zn_lex_error(s->l, "dimension nested more than %d deep", MAX_PAREN);
  ZN_TRY(parse_product(s, out));
  while (s->l->tok == '+' || s->l->tok == '-') {
    bool minus = s->l->tok == '-';
    zn_expr b;
    zn_lex_next(s->l);
    ZN_TRY(parse_product(s, &b));
    *out = minus ? zn_ex_sub(s->p, *out, b) : zn_ex_add(s->p, *out, b);
  }
  s->depth--;
  return ZN_OK;
}

zn_status zn_ex_parse(zn_exprs *p, zn_lexer *l, zn_expr *out) {
  parser s = {p, l, 0};
  return parse_sum(&s, out);
}
