/* The operator registry: the rows of ops.def, and their schema strings parsed once into arity,
 * types and attributes with defaults. The strings are ours, so a mistake in one is a bug of ours
 * and is found by the first test that runs. */
#include "zenithc/ops/op.h"

#include <assert.h>
#include <pthread.h>

#define OP(name, domain, since, schema, infer, eval, expand, lower, flags)                         \
  zn_status zn_infer_##infer(zn_ctx *c, zn_graph *g, zn_nid n);                                    \
  zn_status zn_expand_##expand(zn_ctx *c, zn_graph *g, zn_nid n);
#include "zenithc/ops/ops.def"
#undef OP
#define zn_expand_none NULL

const zn_opdef zn_ops[ZN_OP_COUNT] = {
    {"?", "", 0, " -> | | ", NULL, NULL, 0},
#define OP(name, domain, since, schema, infer, eval, expand, lower, flags)                         \
  {#name, domain, since, schema, zn_infer_##infer, zn_expand_##expand, flags},
#include "zenithc/ops/ops.def"
#undef OP
};

typedef struct registry {
  zn_arena arena; /* never freed */
  zn_schema schemas[ZN_OP_COUNT];
  zn_op by_name[ZN_OP_COUNT]; /* sorted by name, then domain */
} registry;
static registry reg;
static pthread_once_t once = PTHREAD_ONCE_INIT;

typedef struct cursor {
  const char *p;
  zn_op op;
} cursor;

_Noreturn static void bad(const cursor *c, const char *what) {
  ZN_BUG(NULL, "schema of %s: %s at '%.20s'", zn_ops[c->op].name, what, c->p);
}

static void skip(cursor *c) {
  while (*c->p == ' ') c->p++;
}

static const char *word(cursor *c, const char *stops) {
  size_t n = strcspn(c->p, stops);
  if (n == 0) bad(c, "a word is missing");
  const char *w = zn_arena_strndup(&reg.arena, c->p, n);
  c->p += n;
  return w;
}

static bool take(cursor *c, char ch) {
  if (*c->p != ch) return false;
  c->p++;
  return true;
}

static zn_schema_io *parse_ios(cursor *c, uint32_t *out_n, uint32_t *out_min, uint32_t *out_max) {
  zn_schema_io list[24];
  uint32_t n = 0, min = 0;
  *out_max = 0;
  for (skip(c); *c->p && *c->p != '|' && *c->p != '-'; skip(c)) {
    if (n == sizeof list / sizeof *list) bad(c, "too many operands");
    zn_schema_io io = {.name = word(c, ": ")};
    if (!take(c, ':')) bad(c, "':' is missing");
    io.type = word(c, " ?*~|");
    io.optional = take(c, '?');
    io.hetero = take(c, '~');
    io.variadic = io.hetero || take(c, '*');
    list[n++] = io;
    if (!io.optional && !io.hetero) min = n;
    *out_max = io.variadic ? UINT32_MAX : n;
  }
  zn_schema_io *out = ZN_ARRAY(&reg.arena, zn_schema_io, n);
  memcpy(out, list, n * sizeof *list);
  *out_n = n;
  *out_min = min;
  return out;
}

static zn_attr_kind kind_of(const cursor *c, const char *s) {
  static const struct {
    const char *text;
    zn_attr_kind kind;
  } kinds[] = {{"i", ZN_A_INT},      {"f", ZN_A_FLOAT},    {"s", ZN_A_STRING}, {"is", ZN_A_INTS},
               {"fs", ZN_A_FLOATS},  {"ss", ZN_A_STRINGS}, {"t", ZN_A_TENSOR}, {"ts", ZN_A_TENSORS},
               {"g", ZN_A_GRAPH},    {"tp", ZN_A_TYPE}};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (!strcmp(kinds[i].text, s)) return kinds[i].kind;
  bad(c, "unknown attribute kind");
}

static zn_attr parse_default(cursor *c, const char *name, zn_attr_kind kind) {
  zn_attr a = {.name = name, .kind = (uint8_t)kind, .n = 1};
  const char *v = word(c, " |");
  for (const char *s = v; *s; s++) a.n += *s == ',';
  int64_t *is = ZN_ARRAY(&reg.arena, int64_t, a.n);
  double *fs = ZN_ARRAY(&reg.arena, double, a.n);
  zn_str *ss = ZN_ARRAY(&reg.arena, zn_str, a.n);
  bool list = kind == ZN_A_INTS || kind == ZN_A_FLOATS || kind == ZN_A_STRINGS;
  if (!list) a.n = 1;
  for (uint32_t i = 0; i < a.n; i++) {
    size_t len = list ? strcspn(v, ",") : strlen(v);
    const char *item = zn_arena_strndup(&reg.arena, v, len);
    char *end;
    is[i] = strtoll(item, &end, 10);
    if ((kind == ZN_A_INT || kind == ZN_A_INTS) && *end) bad(c, "integer default expected");
    fs[i] = (float)strtod(item, &end); /* ONNX attributes are binary32 */
    if ((kind == ZN_A_FLOAT || kind == ZN_A_FLOATS) && *end) bad(c, "number default expected");
    ss[i] = (zn_str){item, len};
    v += len + (v[len] == ',');
  }
  switch (kind) {
    case ZN_A_INT: a.u.i = is[0]; break;
    case ZN_A_FLOAT: a.u.f = fs[0]; break;
    case ZN_A_STRING: a.u.s = ss[0]; break;
    case ZN_A_INTS: a.u.is = is; break;
    case ZN_A_FLOATS: a.u.fs = fs; break;
    case ZN_A_STRINGS: a.u.ss = ss; break;
    default: bad(c, "this kind takes no default");
  }
  return a;
}

static void parse_attrs(cursor *c, zn_schema *s) {
  zn_schema_attr list[40];
  uint32_t n = 0;
  for (skip(c); *c->p && *c->p != '|'; skip(c)) {
    if (n == sizeof list / sizeof *list) bad(c, "too many attributes");
    zn_schema_attr a = {.name = word(c, ": ")};
    if (!take(c, ':')) bad(c, "':' is missing");
    zn_attr_kind kind = kind_of(c, word(c, " =!|"));
    a.kind = (uint8_t)kind;
    a.required = take(c, '!');
    a.has_default = take(c, '=');
    if (a.has_default) a.def = parse_default(c, a.name, kind);
    list[n++] = a;
  }
  s->attrs = ZN_ARRAY(&reg.arena, zn_schema_attr, n);
  memcpy(s->attrs, list, n * sizeof *list);
  s->num_attrs = n;
}

static void parse_schema(zn_op op) {
  zn_schema *s = &reg.schemas[op];
  cursor c = {zn_ops[op].schema, op};
  s->in = parse_ios(&c, &s->num_in, &s->min_in, &s->max_in);
  if (c.p[0] != '-' || c.p[1] != '>') bad(&c, "'->' is missing");
  c.p += 2;
  s->out = parse_ios(&c, &s->num_out, &s->min_out, &s->max_out);
  if (!take(&c, '|')) bad(&c, "'|' is missing");
  parse_attrs(&c, s);
  if (!take(&c, '|')) bad(&c, "second '|' is missing");
  skip(&c);
  s->types = c.p;
}

static int compare_names(const void *a, const void *b) {
  const zn_opdef *x = &zn_ops[*(const zn_op *)a], *y = &zn_ops[*(const zn_op *)b];
  int c = strcmp(x->name, y->name);
  return c ? c : strcmp(x->domain, y->domain);
}

static void init(void) {
  zn_arena_init(&reg.arena, "schemas");
  for (int op = 0; op < ZN_OP_COUNT; op++) {
    parse_schema((zn_op)op);
    reg.by_name[op] = (zn_op)op;
  }
  qsort(reg.by_name, ZN_OP_COUNT, sizeof *reg.by_name, compare_names);
}

const zn_schema *zn_op_schema(zn_op op) {
  assert(op < ZN_OP_COUNT);
  pthread_once(&once, init);
  return &reg.schemas[op];
}

const zn_schema_attr *zn_schema_find_attr(const zn_schema *s, const char *name) {
  for (uint32_t i = 0; i < s->num_attrs; i++)
    if (!strcmp(s->attrs[i].name, name)) return &s->attrs[i];
  return NULL;
}

zn_op zn_op_find(const char *domain, const char *name) {
  pthread_once(&once, init);
  if (!strcmp(domain, "ai.onnx")) domain = "";
  int lo = 0, hi = ZN_OP_COUNT;
  while (lo < hi) {
    int mid = (lo + hi) / 2;
    const zn_opdef *d = &zn_ops[reg.by_name[mid]];
    int c = strcmp(d->name, name);
    if (c == 0) c = strcmp(d->domain, domain);
    if (c == 0) return reg.by_name[mid];
    if (c < 0)
      lo = mid + 1;
    else
      hi = mid;
  }
  return ZN_OP_NONE;
}

static bool in_group(const char *w, size_t n, zn_dtype t) {
  bool flt = t == ZN_F16 || t == ZN_BF16 || t == ZN_F32 || t == ZN_F64;
  bool whole = zn_is_int(t) && zn_int_bits(t) >= 8 && t != ZN_IDX;
  if (n == strlen(zn_dtypes[t].name) && !memcmp(w, zn_dtypes[t].name, n)) return true;
  if (n == 3 && !memcmp(w, "all", 3)) return t != ZN_IDX && t != ZN_PTR;
  if (n == 5 && !memcmp(w, "float", 5)) return flt;
  if (n == 3 && !memcmp(w, "int", 3)) return whole;
  if (n == 3 && !memcmp(w, "num", 3)) return flt || whole;
  if (n == 4 && !memcmp(w, "numb", 4)) return flt || whole || t == ZN_BOOL;
  return n == 3 && (!memcmp(w, "seq", 3) || !memcmp(w, "opt", 3) || !memcmp(w, "map", 3));
}

bool zn_schema_allows(const zn_schema *s, const char *type, zn_dtype t) {
  size_t n = strlen(type);
  for (const char *p = s->types; *p;) {
    size_t name = strcspn(p, "= ");
    bool ours = name == n && !memcmp(p, type, n) && p[name] == '=';
    p += name + (p[name] == '=');
    while (*p && *p != ' ') {
      size_t len = strcspn(p, ", ");
      if (ours && in_group(p, len, t)) return true;
      p += len + (p[len] == ',');
    }
    while (*p == ' ') p++;
    if (ours) return false;
  }
  return in_group(type, n, t);
}
