/* Parses the rows of scalar.def, once, into expression trees. Recursive descent over characters:
 * comparison, sum, product, sign, then numbers, 'strings', names and calls. A mistake in a row is
 * ours and shows in the first test that runs. */
#include <assert.h>
#include <ctype.h>
#include <pthread.h>

#include "zenithc/ops/op.h"

static struct {
  zn_arena arena; /* never freed */
  const zn_sc *tree[ZN_OP_COUNT];
} trees;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const struct {
  const char *name;
  uint32_t args;
} functions[] = {
    {"add", 2},   {"sub", 2},   {"mul", 2},   {"div", 2},   {"min", 2},     {"max", 2},
    {"mod", 2},   {"fmod", 2},  {"and", 2},   {"or", 2},    {"xor", 2},     {"shl", 2},
    {"shr", 2},   {"pow", 2},   {"lt", 2},    {"le", 2},    {"gt", 2},      {"ge", 2},
    {"eq", 2},    {"ne", 2},    {"streq", 2}, {"neg", 1},   {"abs", 1},     {"not", 1},
    {"sqrt", 1},  {"floor", 1}, {"ceil", 1},  {"trunc", 1}, {"rint", 1},    {"exp", 1},
    {"log", 1},   {"log1p", 1}, {"expm1", 1}, {"sin", 1},   {"cos", 1},     {"tan", 1},
    {"asin", 1},  {"acos", 1},  {"atan", 1},  {"sinh", 1},  {"cosh", 1},    {"tanh", 1},
    {"erf", 1},   {"asinh", 1}, {"acosh", 1}, {"atanh", 1}, {"sigmoid", 1}, {"isnan", 1},
    {"isinf", 1}, {"sign", 1},  {"f16", 1},   {"bf16", 1},  {"select", 3}};

typedef struct cursor {
  const char *p;
  zn_op op;
} cursor;

_Noreturn static void bad(const cursor *c, const char *what) {
  ZN_BUG(NULL, "scalar.def, row %s: %s at '%.20s'", zn_op_name(c->op), what, c->p);
}

static bool take(cursor *c, const char *s) {
  while (*c->p == ' ') c->p++;
  size_t n = strlen(s);
  if (strncmp(c->p, s, n) != 0) return false;
  c->p += n;
  return true;
}

static zn_sc *new_node(zn_sc n) {
  zn_sc *s = ZN_NEW(&trees.arena, zn_sc);
  *s = n;
  return s;
}

static zn_sc *call(const cursor *c, const char *name, uint32_t num_args, zn_sc *const *args) {
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    if (strcmp(functions[i].name, name) != 0 || functions[i].args != num_args) continue;
    zn_sc n = {.kind = ZN_SC_CALL, .name = functions[i].name, .num_args = num_args};
    for (uint32_t k = 0; k < num_args; k++) n.arg[k] = args[k];
    return new_node(n);
  }
  bad(c, zn_arena_printf(&trees.arena, "no function %s of %u operands", name, num_args));
}

static zn_sc *parse_compare(cursor *c);

/* An input by its name in lower case (a and b for the variadic ones), or an attribute. */
static zn_sc *name_node(const cursor *c, const char *name) {
  const zn_schema *s = zn_op_schema(c->op);
  bool variadic = s->num_in == 1 && s->in[0].variadic;
  for (uint32_t i = 0; i < (variadic ? 2 : s->num_in); i++) {
    char lower[64];
    size_t k = 0;
    const char *in = variadic ? (i ? "b" : "a") : s->in[i].name;
    for (; in[k] && k + 1 < sizeof lower; k++) lower[k] = (char)tolower((unsigned char)in[k]);
    lower[k] = 0;
    if (!strcmp(lower, name)) return new_node((zn_sc){.kind = ZN_SC_IN, .index = i});
  }
  const zn_schema_attr *a = zn_schema_find_attr(s, name);
  if (!a) bad(c, zn_arena_printf(&trees.arena, "'%s' is neither input nor attribute", name));
  return new_node((zn_sc){.kind = ZN_SC_ATTR, .name = a->name});
}

static zn_sc *parse_name(cursor *c) {
  size_t n = 0;
  while (isalnum((unsigned char)c->p[n]) || c->p[n] == '_') n++;
  const char *name = zn_arena_strndup(&trees.arena, c->p, n);
  c->p += n;
  if (!take(c, "(")) return name_node(c, name);
  zn_sc *args[3];
  uint32_t num = 0;
  do {
    if (num == 3) bad(c, "too many operands");
    args[num++] = parse_compare(c);
  } while (take(c, ","));
  if (!take(c, ")")) bad(c, "')' is missing");
  return call(c, name, num, args);
}

static zn_sc *parse_primary(cursor *c) {
  if (take(c, "(")) {
    zn_sc *e = parse_compare(c);
    if (!take(c, ")")) bad(c, "')' is missing");
    return e;
  }
  if (take(c, "'")) { /* text of streq: an ATTR node whose name is the text */
    size_t n = strcspn(c->p, "'");
    zn_sc *e =
        new_node((zn_sc){.kind = ZN_SC_ATTR, .name = zn_arena_strndup(&trees.arena, c->p, n)});
    c->p += n + 1;
    return e;
  }
  if (isdigit((unsigned char)*c->p)) {
    char *end;
    double v = strtod(c->p, &end);
    c->p = end;
    return new_node((zn_sc){.kind = ZN_SC_NUM, .num = v});
  }
  if (!isalpha((unsigned char)*c->p)) bad(c, "an operand is missing");
  return parse_name(c);
}

static zn_sc *parse_sign(cursor *c) {
  if (!take(c, "-")) return parse_primary(c);
  zn_sc *e = parse_sign(c);
  if (e->kind == ZN_SC_NUM) {
    e->num = -e->num;
    return e;
  }
  return call(c, "neg", 1, &e);
}

static zn_sc *parse_product(cursor *c) {
  zn_sc *e[2] = {parse_sign(c), NULL};
  for (;;) {
    const char *f = take(c, "*") ? "mul" : take(c, "/") ? "div" : NULL;
    if (!f) return e[0];
    e[1] = parse_sign(c);
    e[0] = call(c, f, 2, e);
  }
}

static zn_sc *parse_sum(cursor *c) {
  zn_sc *e[2] = {parse_product(c), NULL};
  for (;;) {
    const char *f = take(c, "+") ? "add" : take(c, "-") ? "sub" : NULL;
    if (!f) return e[0];
    e[1] = parse_product(c);
    e[0] = call(c, f, 2, e);
  }
}

static zn_sc *parse_compare(cursor *c) {
  static const char *const ops[][2] = {{"<=", "le"}, {">=", "ge"}, {"==", "eq"},
                                       {"!=", "ne"}, {"<", "lt"},  {">", "gt"}};
  zn_sc *e[2] = {parse_sum(c), NULL};
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    if (!take(c, ops[i][0])) continue;
    e[1] = parse_sum(c);
    return call(c, ops[i][1], 2, e);
  }
  return e[0];
}

static void parse_row(zn_op op, const char *text) {
  cursor c = {text, op};
  trees.tree[op] = parse_compare(&c);
  while (*c.p == ' ') c.p++;
  if (*c.p) bad(&c, "unexpected text");
}

static void init(void) {
  zn_arena_init(&trees.arena, "scalar rows");
#define SCALAR(op, text) parse_row(ZN_OP_##op, text);
#include "zenithc/ops/scalar.def"
#undef SCALAR
}

const zn_sc *zn_scalar_expr(zn_op op) {
  assert(op < ZN_OP_COUNT);
  pthread_once(&once, init);
  return trees.tree[op];
}
