/* Nodes from draw_rows.def. A row's operands are shapes over letters: the same letter is the same size. Lower-case letters
 * may be symbols of the graph, upper-case ones are constants. An operand takes a value that exists where its dims fit
 * (solving for the letters), else a new leaf is made.
 *   [n,C,h,w]  [G*C,K]  u8[C]    a tensor; the element type is the schema's unless written
 *   [C]=0:10   constant contents, uniform in [0, 10)          [C]=0.1:2   {1,C} (5)   literal list and scalar
 *   ..         as first dim: the same zero to two dims wherever it stands
 *   ?[..]      absent now and then      _  absent
 * Attributes: name=1  name=0.5  name=C  name=[1,K]  name=[0.5,1.0] (a point in it: floats)  name=[A_B,C] (an underline:
 * strings)  name=word|word  ?name=..  */
#include <ctype.h>
#include <stdio.h>

#include "tests/fuzz/graphs/fuzz.h"

static const struct row {
  zn_op op;
  uint32_t outs;
  const char *in, *attrs;
} rows[] = {
#define ROW(op, outs, in, attrs) {ZN_OP_##op, outs, in, attrs},
#include "tests/fuzz/graphs/draw_rows.def"
#undef ROW
};

typedef struct env {
  fz *f;
  const zn_schema *s;
  zn_expr of[128]; /* letters */
  int batch; /* dims behind ..; -1 not chosen */
  zn_expr lead[2];
  struct {
    const char *name;
    zn_dtype t;
  } var[8];
  uint32_t vars;
} env;

static zn_expr letter(env *e, char ch) {
  fz *f = e->f;
  if (e->of[(int)ch]) return e->of[(int)ch];
  zn_expr x;
  if (strchr("KL", ch)) x = zn_ex_const(f->g->ex, fz_range(f, 1, 3));
  else if (strchr("hw", ch) && !fz_chance(f, 25)) x = zn_ex_const(f->g->ex, fz_range(f, 3, 14));
  else if (ch == 'G') x = zn_ex_const(f->g->ex, fz_range(f, 1, 4));
  else if (islower((unsigned char)ch) && !f->g->parent) x = fz_dim(f);
  else x = zn_ex_const(f->g->ex, fz_size(f));
  return e->of[(int)ch] = x;
}

/* "C", "3", "G*C", "K+2": value, drawing letters that have none. */
static zn_expr value(env *e, const char **p) {
  zn_exprs *ex = e->f->g->ex;
  zn_expr x = ZN_EX_NONE;
  char op = 0;
  for (;;) {
    zn_expr y;
    if (isdigit((unsigned char)**p) || **p == '-') {
      char *end;
      y = zn_ex_const(ex, strtoll(*p, &end, 10));
      *p = end;
    } else {
      y = letter(e, *(*p)++);
    }
    x = op == '*' ? zn_ex_mul(ex, x, y) : op == '+' ? zn_ex_add(ex, x, y) : y;
    if (**p != '*' && **p != '+') return x;
    op = *(*p)++;
  }
}

/* Does the dim d of an existing value fit? Binds letters. */
static bool unify(env *e, const char **p, zn_expr d) {
  const char *start = *p;
  zn_exprs *ex = e->f->g->ex;
  int64_t n, g;
  bool plain = isalpha((unsigned char)start[0]) && (start[1] == ',' || start[1] == ']');
  if (plain && !e->of[(int)start[0]]) {
    (*p)++;
    if (!islower((unsigned char)start[0]) && !zn_ex_is_const(ex, d, NULL)) return false;
    e->of[(int)start[0]] = d;
    return true;
  }
  if (isalpha((unsigned char)start[0]) && start[1] == '*' && isalpha((unsigned char)start[2]) &&
      !e->of[(int)start[2]] && zn_ex_is_const(ex, d, &n) && n > 0) {
    zn_expr bound = e->of[(int)start[0]];
    if (!bound) {
      do g = fz_range(e->f, 1, n < 6 ? n : 6);
      while (n % g);
      bound = e->of[(int)start[0]] = zn_ex_const(ex, g);
    }
    if (!zn_ex_is_const(ex, bound, &g) || g == 0 || n % g) return false;
    e->of[(int)start[2]] = zn_ex_const(ex, n / g);
  }
  return value(e, p) == d;
}

static const char *skip_dims(const char *p) { return p + strcspn(p, "]") + 1; }

static bool fits(env *e, const char *dims, const zn_type *t) {
  env save = *e;
  const char *p = dims + 1;
  int at = 0;
  bool ok = true;
  if (!strncmp(p, "..", 2)) {
    int fixed = 0;
    p += 2 + (p[2] == ',');
    for (const char *q = p; *p != ']' && *q != ']'; q++) fixed += *q == ',';
    fixed += *p != ']';
    int lead = t->rank - fixed;
    if (e->batch < 0 && lead >= 0 && lead <= 2) {
      e->batch = lead;
      memcpy(e->lead, t->dims, (size_t)lead * sizeof(zn_expr));
    }
    ok = lead == e->batch && !memcmp(e->lead, t->dims, (size_t)lead * sizeof(zn_expr));
    at = lead;
  }
  while (ok && *p != ']') {
    ok = at < t->rank && unify(e, &p, t->dims[at++]);
    if (*p == ',') p++;
  }
  ok = ok && at == t->rank;
  if (!ok) *e = save;
  return ok;
}

static int shape(env *e, const char *dims, zn_expr *out) {
  const char *p = dims + 1;
  int n = 0;
  if (!strncmp(p, "..", 2)) {
    p += 2 + (p[2] == ',');
    if (e->batch < 0) {
      e->batch = (int)fz_below(e->f, 3);
      for (int i = 0; i < e->batch; i++)
        e->lead[i] = e->f->g->parent ? zn_ex_const(e->f->g->ex, fz_size(e->f)) : fz_dim(e->f);
    }
    for (int i = 0; i < e->batch; i++) out[n++] = e->lead[i];
  }
  while (*p != ']') {
    out[n++] = value(e, &p);
    if (*p == ',') p++;
  }
  return n;
}

static zn_dtype elem_type(env *e, uint32_t input, const char *text, size_t len) {
  const zn_schema_io *io = &e->s->in[input < e->s->num_in ? input : e->s->num_in - 1];
  if (len) return zn_dtype_from_name(zn_arena_strndup(e->f->a, text, len));
  for (uint32_t k = 0; k < e->vars; k++)
    if (!strcmp(e->var[k].name, io->type)) return e->var[k].t;
  zn_dtype t = fz_dtype_of(e->f, e->s, io->type);
  if (e->vars < 8) e->var[e->vars].name = io->type, e->var[e->vars++].t = t;
  return t;
}

static double bound(env *e, const char **p) {
  int64_t v;
  if (isalpha((unsigned char)**p))
    return zn_ex_is_const(e->f->g->ex, letter(e, *(*p)++), &v) ? (double)v : 1;
  char *end;
  double x = strtod(*p, &end);
  *p = end;
  return x;
}

/* "[..]" at p: an operand; p moves behind it. */
static zn_vid tensor(env *e, const char **p, zn_dtype t) {
  fz *f = e->f;
  zn_expr dims[ZN_MAX_RANK];
  int64_t d[ZN_MAX_RANK];
  const char *text = *p;
  *p = skip_dims(text);
  if (**p == '=') {
    (*p)++;
    double lo = bound(e, p), hi;
    (*p)++;
    hi = bound(e, p);
    int n = shape(e, text, dims);
    zn_type y = zn_type_tensor(t, n, dims);
    return zn_type_is_static(f->g->ex, &y, d) ? fz_const(f, t, n, d, lo, hi) : 0;
  }
  for (uint32_t i = f->n; i-- > 0;) {
    const zn_type *y = fz_type(f, f->pool[i]);
    if (y->kind == ZN_V_TENSOR && y->dtype == t && fz_chance(f, 75) && fits(e, text, y))
      return f->pool[i];
  }
  return fz_leaf(f, t, shape(e, text, dims), dims);
}

static zn_vid literal(env *e, const char **p, zn_dtype t) {
  int64_t v[16];
  uint32_t n = 0;
  bool list = *(*p)++ == '{';
  while (**p != '}' && **p != ')' && n < 16) {
    if (!zn_ex_is_const(e->f->g->ex, value(e, p), &v[n++])) return 0;
    if (**p == ',') (*p)++;
  }
  (*p)++;
  return list ? fz_i64s(e->f, t, v, n) : fz_scalar(e->f, t, (double)v[0]);
}

/* One of "a|b|c" at p. */
static const char *choice(fz *f, const char *p, size_t len) {
  uint32_t n = 1;
  for (size_t i = 0; i < len; i++) n += p[i] == '|';
  for (uint32_t skip = fz_below(f, n); skip;)
    if (*p++ == '|') skip--;
  return zn_arena_strndup(f->a, p, strcspn(p, "| "));
}

/* "[0.5,1.0]" or "[A_B,C]" */
static void word_list(fz *f, fz_attrs *at, const char *name, const char *w, bool floats) {
  zn_attr a = {.name = name, .kind = floats ? ZN_A_FLOATS : ZN_A_STRINGS};
  double *x = ZN_ARRAY(f->a, double, 32);
  zn_str *s = ZN_ARRAY(f->a, zn_str, 32);
  for (w++; *w && *w != ']' && a.n < 32; w += *w == ',') {
    size_t len = strcspn(w, ",]");
    x[a.n] = floats ? (double)strtof(w, NULL) : 0;
    s[a.n++] = (zn_str){w, len};
    w += len;
  }
  if (floats) a.u.fs = x;
  else a.u.ss = s;
  at->v[at->n++] = a;
}

static bool attributes(env *e, const char *p, fz_attrs *at) {
  while (*p) {
    bool maybe = *p == '?';
    p += maybe;
    size_t name_len = strcspn(p, "=");
    const char *name = zn_arena_strndup(e->f->a, p, name_len);
    p += name_len + 1;
    size_t len = strcspn(p, " ");
    const char *word = choice(e->f, p, len), *w = word;
    p += len + (p[len] == ' ');
    if (maybe && fz_chance(e->f, 50)) continue;
    int64_t v[16];
    uint32_t n = 0;
    if (*w == '[' && strpbrk(w, "._")) {
      word_list(e->f, at, name, w, !strchr(w, '_'));
    } else if (*w == '[') {
      for (w++; *w != ']' && n < 16; w += *w == ',')
        if (!zn_ex_is_const(e->f->g->ex, value(e, &w), &v[n++])) return false;
      fz_set_is(e->f, at, name, v, n);
    } else if (isdigit((unsigned char)*w) && strchr(w, (int)0x2e)) {
      fz_set_f(at, name, strtod(w, NULL));
    } else if (isdigit((unsigned char)*w) || *w == '-' || !w[1] || w[1] == '*') {
      if (!zn_ex_is_const(e->f->g->ex, value(e, &w), &v[0])) return false;
      fz_set_i(at, name, v[0]);
    } else {
      fz_set_s(e->f, at, name, word);
    }
  }
  return true;
}

static bool draw(fz *f, const struct row *r) {
  env e = {.f = f, .s = zn_op_schema(r->op), .batch = -1};
  zn_vid in[16] = {0};
  uint32_t n = 0;
  for (const char *p = r->in; *p && n < 16; p += *p == ' ') {
    bool maybe = *p == '?';
    p += maybe;
    if (*p == '_') {
      p++, n++;
      continue;
    }
    size_t len = strcspn(p, "[{(");
    zn_dtype t = elem_type(&e, n, p, len);
    if (t == ZN_NONE) return false;
    p += len;
    zn_vid v = *p == '[' ? tensor(&e, &p, t) : literal(&e, &p, t);
    if (!v) return false;
    in[n++] = maybe && fz_chance(f, 40) ? 0 : v;
  }
  while (n && !in[n - 1]) n--;
  fz_attrs at = {.n = 0};
  if (!attributes(&e, r->attrs, &at)) return false;
  return fz_node(f, r->op, in, n, r->outs, &at) != 0;
}

bool fz_draw_row(fz *f, zn_op op, bool *out_has) {
  uint32_t of[32], n = 0;
  for (uint32_t k = 0; k < sizeof rows / sizeof rows[0]; k++)
    if (rows[k].op == op && n < 32) of[n++] = k;
  *out_has = n > 0;
  return n && draw(f, &rows[of[fz_below(f, n)]]);
}
