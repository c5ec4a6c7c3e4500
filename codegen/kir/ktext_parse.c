/* Text (docs/zk.md) to kernel IR. Checks syntax and that names are defined; types and scopes are
 * kverify.c's. */
#include <errno.h>

#include "codegen/kir/ktext.h"

typedef struct parser {
  zn_lexer l;
  zn_ctx *c;
  zn_arena *a;
  zn_kmod *m;
  const char *base_dir;
  size_t size; /* of the text: bounds value numbers */
  uint32_t cap_in, cap_out;
  zn_kfunc *f;
  zn_kref *value; /* %number -> instruction */
  uint32_t num_values, cap_values;
  uint32_t *open; /* open regions' instructions */
  uint32_t depth, cap_open;
} parser;

/* ---- small pieces ---- */

/* "expected WHAT, found ..." */
static zn_status unexpected(parser *p, const char *what) { return zn_lex_expect(&p->l, -1, what); }

static zn_status name(parser *p, const char **out) {
  *out = p->l.text;
  if (p->l.tok == ZN_TOK_STRING) return zn_lex_expect(&p->l, ZN_TOK_STRING, "a name");
  return zn_lex_expect(&p->l, ZN_TOK_IDENT, "a name");
}

static zn_status string(parser *p, const char **out) {
  *out = p->l.text;
  return zn_lex_expect(&p->l, ZN_TOK_STRING, "a quoted string");
}

static zn_status integer(parser *p, int64_t lo, int64_t hi, const char *what, int64_t *out) {
  *out = p->l.i;
  ZN_TRY(zn_lex_expect(&p->l, ZN_TOK_INT, what));
  if (*out < lo || *out > hi)
    return zn_lex_error(&p->l, "%s is %lld, outside %lld..%lld", what, (long long)*out,
                        (long long)lo, (long long)hi);
  return ZN_OK;
}

static zn_status word(parser *p, const char *w) {
  if (!zn_lex_is(&p->l, w)) return unexpected(p, w);
  zn_lex_next(&p->l);
  return ZN_OK;
}

static bool accept_word(parser *p, const char *w) {
  if (!zn_lex_is(&p->l, w)) return false;
  zn_lex_next(&p->l);
  return true;
}

static zn_status dtype(parser *p, zn_dtype *out) {
  *out = p->l.tok == ZN_TOK_IDENT ? zn_dtype_from_name(p->l.text) : ZN_NONE;
  if (*out == ZN_NONE) return zn_lex_error(&p->l, "'%s' is not an element type", p->l.text);
  zn_lex_next(&p->l);
  return ZN_OK;
}

static bool number_of(const char *text, uint32_t *out) {
  uint64_t v = 0;
  if (text[0] != '%' || !text[1]) return false;
  for (const char *d = text + 1; *d; d++) {
    if (*d < '0' || *d > '9' || v > UINT32_MAX) return false;
    v = v * 10 + (uint64_t)(*d - '0');
  }
  *out = (uint32_t)v;
  return v <= UINT32_MAX / 2;
}

static zn_status ref(parser *p, zn_kref *out) {
  uint32_t n = 0;
  if (p->l.tok != ZN_TOK_IDENT || !number_of(p->l.text, &n))
    return unexpected(p, "a value such as %3");
  if (n >= p->num_values || !p->value[n])
    return zn_lex_error(&p->l, "%s is not defined above", p->l.text);
  *out = p->value[n];
  zn_lex_next(&p->l);
  return ZN_OK;
}

/* ---- head ---- */

static zn_status io(parser *p, zn_kio **list, uint32_t *count, uint32_t *cap) {
  zn_kio k = {.name = NULL};
  ZN_TRY(name(p, &k.name));
  ZN_TRY(dtype(p, &k.dtype));
  int64_t kind = 0;
  if (accept_word(p, "kind")) ZN_TRY(integer(p, 0, UINT32_MAX, "a kind", &kind));
  k.kind = (uint32_t)kind;
  ZN_TRY(zn_lex_expect(&p->l, '[', "'['"));
  while (p->l.tok == ZN_TOK_INT) {
    if (k.rank == ZN_MAX_RANK) return zn_lex_error(&p->l, "more than %d dimensions", ZN_MAX_RANK);
    ZN_TRY(integer(p, -1, INT64_MAX, "a dimension", &k.dims[k.rank]));
    k.dim_text[k.rank] = "";
    if (p->l.tok == ZN_TOK_STRING) ZN_TRY(string(p, &k.dim_text[k.rank]));
    k.rank++;
    if (!zn_lex_accept(&p->l, ',')) break;
  }
  ZN_TRY(zn_lex_expect(&p->l, ']', "']'"));
  ZN_PUSH(p->a, *list, *count, *cap, k);
  return ZN_OK;
}

static char *alloc64(zn_arena *a, uint64_t bytes) {
  char *q = zn_arena_array(a, 1, (size_t)bytes + 64);
  return q + (-(uintptr_t)q & 63);
}

static zn_status bin_data(parser *p, zn_kconst *k) {
  const char *file;
  int64_t at;
  ZN_TRY(string(p, &file));
  ZN_TRY(integer(p, 0, INT64_MAX, "an offset", &at));
  if (!p->base_dir) return zn_lex_error(&p->l, "constants in files are not allowed here");
  if (strchr(file, '/') || !*file)
    return zn_lex_error(&p->l, "'%s' is not a plain file name", file);
  const char *path = zn_arena_printf(p->a, "%s/%s", p->base_dir, file);
  FILE *f = fopen(path, "rb");
  if (!f) return zn_lex_error(&p->l, "%s cannot be read: %s", path, strerror(errno));
  uint64_t bytes = k->count * zn_dtype_bytes(k->dtype);
  bool fine = fseek(f, 0, SEEK_END) == 0;
  int64_t size = fine ? (int64_t)ftell(f) : -1;
  fine = size >= 0 && at <= size && bytes <= (uint64_t)(size - at) &&
         fseek(f, (long)at, SEEK_SET) == 0;
  if (fine) {
    char *data = alloc64(p->a, bytes);
    fine = fread(data, 1, (size_t)bytes, f) == bytes;
    k->data = data;
  }
  fclose(f);
  return fine ? ZN_OK : zn_lex_error(&p->l, "%s is too short for constant '%s'", path, k->name);
}

static int hex_digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static zn_status hex_data(parser *p, zn_kconst *k) {
  const char *s;
  size_t n = p->l.text_len;
  ZN_TRY(string(p, &s));
  if (n != 2 * k->count * zn_dtype_bytes(k->dtype))
    return zn_lex_error(&p->l, "constant '%s' has another size", k->name);
  char *data = alloc64(p->a, n / 2);
  for (size_t i = 0; i < n / 2; i++) {
    int hi = hex_digit(s[2 * i]), lo = hex_digit(s[2 * i + 1]);
    if (hi < 0 || lo < 0)
      return zn_lex_error(&p->l, "constant '%s' has a character that is no hex digit", k->name);
    data[i] = (char)(hi * 16 + lo);
  }
  k->data = data;
  return ZN_OK;
}

static zn_status element(parser *p, const zn_kconst *k, char *data, uint64_t i) {
  if (k->dtype == ZN_STR) {
    zn_str s = {p->l.text, p->l.text_len};
    memcpy(data + i * sizeof s, &s, sizeof s);
    return zn_lex_expect(&p->l, ZN_TOK_STRING, "a quoted string");
  }
  if (zn_is_float(k->dtype) && (p->l.tok == ZN_TOK_FLOAT || p->l.tok == ZN_TOK_INT)) {
    bool minus_zero = p->l.tok == ZN_TOK_INT && p->l.i == 0 && *p->l.text == '-';
    zn_store_f64(k->dtype, data, i, minus_zero ? -0.0 : p->l.f);
    zn_lex_next(&p->l);
    return ZN_OK;
  }
  int64_t v;
  ZN_TRY(integer(p, INT64_MIN, INT64_MAX, "an element", &v));
  zn_store_i64(k->dtype, data, i, v);
  return ZN_OK;
}

static zn_status elements(parser *p, zn_kconst *k) {
  /* each element takes at least two characters: bounds what a hostile count can allocate */
  if (k->count > (uint64_t)(p->l.end - p->l.p) + 2)
    return zn_lex_error(&p->l, "constant '%s' is cut short", k->name);
  char *data = alloc64(p->a, k->count * zn_dtype_bytes(k->dtype));
  ZN_TRY(zn_lex_expect(&p->l, '[', "'[', hex or bin"));
  for (uint64_t i = 0; i < k->count; i++) {
    if (i) ZN_TRY(zn_lex_expect(&p->l, ',', "','"));
    ZN_TRY(element(p, k, data, i));
  }
  k->data = data;
  return zn_lex_expect(&p->l, ']', "']'");
}

static zn_status constant(parser *p) {
  zn_kconst k = {.name = NULL};
  int64_t count;
  ZN_TRY(name(p, &k.name));
  ZN_TRY(dtype(p, &k.dtype));
  if (!zn_dtype_bytes(k.dtype))
    return zn_lex_error(&p->l, "constants cannot have type %s", zn_dtypes[k.dtype].name);
  ZN_TRY(integer(p, 0, INT64_MAX / 32, "a count", &count));
  k.count = (uint64_t)count;
  if (accept_word(p, "bin"))
    ZN_TRY(bin_data(p, &k));
  else if (accept_word(p, "hex"))
    ZN_TRY(hex_data(p, &k));
  else
    ZN_TRY(elements(p, &k));
  ZN_PUSH(p->a, p->m->consts, p->m->num_consts, p->m->cap_consts, k);
  return ZN_OK;
}

/* ---- instructions ---- */

static void define(parser *p, uint32_t number, zn_kref r) {
  while (p->num_values <= number) ZN_PUSH(p->a, p->value, p->num_values, p->cap_values, 0);
  p->value[number] = r;
}

static zn_kref append(parser *p, zn_kinst in) {
  ZN_PUSH(p->a, p->f->insts, p->f->num_insts, p->f->cap_insts, in);
  return p->f->num_insts - 1;
}

static void open_region(parser *p) {
  ZN_PUSH(p->a, p->open, p->depth, p->cap_open, p->f->num_insts);
}

static zn_status for_loop(parser *p, zn_kinst *in) {
  static const char *const kinds[] = {"serial", "grid", "vector", "unroll", "thread"};
  int64_t factor = 0;
  ZN_TRY(ref(p, &in->a));
  ZN_TRY(zn_lex_expect(&p->l, ',', "','"));
  ZN_TRY(ref(p, &in->b));
  ZN_TRY(zn_lex_expect(&p->l, ',', "','"));
  ZN_TRY(integer(p, 1, INT64_MAX, "a step", &in->imm.i));
  in->dtype = ZN_IDX;
  for (in->c = 0; in->c < 5 && !zn_lex_is(&p->l, kinds[in->c]);) in->c++;
  if (in->c == 5) return unexpected(p, "serial, grid, vector, unroll or thread");
  zn_lex_next(&p->l);
  if (p->l.tok == ZN_TOK_INT) ZN_TRY(integer(p, 0, (1 << 24) - 1, "a factor", &factor));
  in->c |= (uint32_t)factor << 8;
  open_region(p);
  return zn_lex_expect(&p->l, '{', "'{'");
}

static zn_status access(parser *p, zn_kinst *in) {
  ZN_TRY(ref(p, &in->a));
  ZN_TRY(zn_lex_expect(&p->l, '[', "'['"));
  ZN_TRY(ref(p, &in->b));
  ZN_TRY(zn_lex_expect(&p->l, ']', "']'"));
  if (in->op == ZN_K_Store || in->op == ZN_K_Poke) {
    ZN_TRY(zn_lex_expect(&p->l, ',', "','"));
    ZN_TRY(ref(p, &in->c));
  }
  if (in->op == ZN_K_Fetch) {
    in->imm.i = accept_word(p, "last");
    return ZN_OK;
  }
  return accept_word(p, "align") ? integer(p, 1, 1 << 20, "an alignment", &in->imm.i) : ZN_OK;
}

static zn_status call(parser *p, zn_kinst *in) {
  ZN_TRY(integer(p, 0, UINT32_MAX, "a kernel's number", &in->imm.i));
  ZN_TRY(zn_lex_expect(&p->l, '(', "'('"));
  in->a = p->f->num_extra;
  while (p->l.tok != ')') {
    zn_kref r;
    if (in->b) ZN_TRY(zn_lex_expect(&p->l, ',', "',' or ')'"));
    ZN_TRY(ref(p, &r));
    ZN_PUSH(p->a, p->f->extra, p->f->num_extra, p->f->cap_extra, r);
    in->b++;
  }
  zn_lex_next(&p->l);
  ZN_TRY(word(p, "grid"));
  return ref(p, &in->c);
}

static zn_status shuffle_mask(parser *p, zn_kinst *in) {
  in->imm.i = p->f->num_extra;
  ZN_TRY(zn_lex_expect(&p->l, '[', "'['"));
  for (unsigned j = 0; j < in->lanes; j++) {
    int64_t lane;
    if (j) ZN_TRY(zn_lex_expect(&p->l, ',', "','"));
    ZN_TRY(integer(p, 0, 2 * UINT16_MAX, "a lane", &lane));
    ZN_PUSH(p->a, p->f->extra, p->f->num_extra, p->f->cap_extra, (uint32_t)lane);
  }
  return zn_lex_expect(&p->l, ']', "']'");
}

static zn_status immediate(parser *p, zn_kinst *in) {
  bool number = p->l.tok == ZN_TOK_INT || p->l.tok == ZN_TOK_FLOAT;
  if (in->op != ZN_K_Const || !zn_is_float((zn_dtype)in->dtype))
    return integer(p, INT64_MIN, INT64_MAX, "an integer", &in->imm.i);
  if (!number) return unexpected(p, "a number");
  bool minus_zero = p->l.tok == ZN_TOK_INT && p->l.i == 0 && *p->l.text == '-';
  in->imm.f = minus_zero ? -0.0 : p->l.f;
  zn_lex_next(&p->l);
  return ZN_OK;
}

static zn_status operands(parser *p, zn_kinst *in) {
  switch (in->op) {
    case ZN_K_For: return for_loop(p, in);
    case ZN_K_If:
      ZN_TRY(ref(p, &in->a));
      open_region(p);
      return zn_lex_expect(&p->l, '{', "'{'");
    case ZN_K_Loop: open_region(p); return zn_lex_expect(&p->l, '{', "'{'");
    case ZN_K_Load:
    case ZN_K_Store:
    case ZN_K_Fetch:
    case ZN_K_Poke: return access(p, in);
    case ZN_K_Call: return call(p, in);
    default: break;
  }
  const char *sig = zn_kops[in->op].sig;
  zn_kref *r[3] = {&in->a, &in->b, &in->c};
  bool first = true;
  for (int k = 0; k < 3; k++) {
    if (sig[k] == '-') continue;
    if (!first) ZN_TRY(zn_lex_expect(&p->l, ',', "','"));
    ZN_TRY(ref(p, r[k]));
    first = false;
  }
  if (in->op == ZN_K_Shuffle) return shuffle_mask(p, in);
  if (sig[4] == 'n') return ZN_OK;
  if (!first) ZN_TRY(zn_lex_expect(&p->l, ',', "','"));
  return immediate(p, in);
}

/* "f32x16": type and lanes; false when malformed. */
static bool split_type(const char *s, zn_kinst *in) {
  char base[16];
  const char *x = strrchr(s, 'x');
  size_t n = strlen(s);
  in->lanes = 1;
  if (x && x[1] >= '1' && x[1] <= '9') {
    char *end;
    unsigned long lanes = strtoul(x + 1, &end, 10);
    if (*end || lanes > UINT16_MAX) return false;
    in->lanes = (uint16_t)lanes;
    n = (size_t)(x - s);
  }
  if (n >= sizeof base) return false;
  memcpy(base, s, n);
  base[n] = 0;
  in->dtype = (uint8_t)zn_dtype_from_name(base);
  return in->dtype != ZN_NONE;
}

static zn_status opcode(parser *p, zn_kinst *in) {
  if (p->l.tok != ZN_TOK_IDENT) return unexpected(p, "an operation");
  const char *dot = strchr(p->l.text, '.');
  size_t n = dot ? (size_t)(dot - p->l.text) : p->l.text_len;
  int op = 1;
  while (op < ZN_K_COUNT &&
         (strlen(zn_kops[op].text) != n || memcmp(zn_kops[op].text, p->l.text, n)))
    op++;
  if (op == ZN_K_COUNT || op == ZN_K_Else || op == ZN_K_End)
    return zn_lex_error(&p->l, "unknown operation '%s'", p->l.text);
  in->op = (uint8_t)op;
  in->lanes = 1;
  if (dot && !split_type(dot + 1, in)) return zn_lex_error(&p->l, "'%s' is not a type", dot + 1);
  zn_lex_next(&p->l);
  return ZN_OK;
}

static zn_status instruction(parser *p) {
  zn_kinst in = {.op = 0};
  uint32_t number = 0;
  bool named = p->l.tok == ZN_TOK_IDENT && *p->l.text == '%';
  if (named) {
    if (!number_of(p->l.text, &number) || number == 0 || number > p->size)
      return zn_lex_error(&p->l, "'%s' is not a value's number, or a needlessly large one",
                          p->l.text);
    zn_lex_next(&p->l);
    ZN_TRY(zn_lex_expect(&p->l, '=', "'='"));
  }
  ZN_TRY(opcode(p, &in));
  if (named != zn_kop_has_value((zn_kop)in.op))
    return zn_lex_error(&p->l, "%s %s", zn_kops[in.op].text,
                        named ? "has no value" : "needs a name: %N = ...");
  ZN_TRY(operands(p, &in));
  zn_kref r = append(p, in);
  if (named) define(p, number, r);
  return ZN_OK;
}

static zn_status close_brace(parser *p, bool *out_done) {
  zn_lex_next(&p->l);
  *out_done = p->depth == 0;
  if (*out_done) return ZN_OK;
  uint32_t region = p->open[--p->depth];
  if (p->f->insts[region].op == ZN_K_If && accept_word(p, "else")) {
    open_region(p);
    append(p, (zn_kinst){.op = ZN_K_Else, .lanes = 1});
    return zn_lex_expect(&p->l, '{', "'{'");
  }
  append(p, (zn_kinst){.op = ZN_K_End, .lanes = 1});
  return ZN_OK;
}

static zn_status params(parser *p) {
  static const char *const kinds[] = {"in", "out", "inout", "int"};
  ZN_TRY(zn_lex_expect(&p->l, '(', "'('"));
  while (p->l.tok != ')') {
    zn_kparam k = {.name = NULL};
    zn_dtype t;
    if (p->f->num_params) ZN_TRY(zn_lex_expect(&p->l, ',', "',' or ')'"));
    ZN_TRY(name(p, &k.name));
    while (k.kind < 4 && !zn_lex_is(&p->l, kinds[k.kind])) k.kind++;
    if (k.kind == 4) return unexpected(p, "in, out, inout or int");
    zn_lex_next(&p->l);
    ZN_TRY(dtype(p, &t));
    k.dtype = (uint8_t)t;
    int64_t align = 0;
    if (accept_word(p, "align")) ZN_TRY(integer(p, 1, 128, "an alignment", &align));
    if (align & (align - 1)) return unexpected(p, "a power of two");
    k.align = (uint8_t)align;
    ZN_PUSH(p->a, p->f->params, p->f->num_params, p->f->cap_params, k);
  }
  zn_lex_next(&p->l);
  return ZN_OK;
}

static zn_status function(parser *p, bool entry) {
  zn_kfunc *f = p->f = ZN_NEW(p->a, zn_kfunc);
  f->is_entry = entry;
  p->num_values = p->depth = 0;
  append(p, (zn_kinst){.op = ZN_K_Nop, .lanes = 1});
  ZN_TRY(name(p, &f->name));
  ZN_TRY(params(p));
  f->exported = accept_word(p, "exported");
  int64_t team = 0, blocks = 0;
  if (accept_word(p, "team")) ZN_TRY(integer(p, 1, 1024, "a number of threads", &team));
  f->team = (uint16_t)team;
  if (accept_word(p, "blocks")) ZN_TRY(integer(p, 1, 32, "a number of blocks", &blocks));
  f->blocks = (uint16_t)blocks;
  f->serial = accept_word(p, "serial");
  f->on_host = accept_word(p, "host");
  if (accept_word(p, "note")) ZN_TRY(string(p, &f->note));
  ZN_TRY(zn_lex_expect(&p->l, '{', "'{'"));
  for (bool done = false; !done;) {
    if (p->l.tok == '}')
      ZN_TRY(close_brace(p, &done));
    else
      ZN_TRY(instruction(p));
  }
  ZN_PUSH(p->a, p->m->funcs, p->m->num_funcs, p->m->cap_funcs, f);
  return ZN_OK;
}

static zn_status item(parser *p) {
  int64_t v;
  zn_kmod *m = p->m;
  if (accept_word(p, "provenance")) return string(p, &m->provenance);
  if (accept_word(p, "workspace")) {
    ZN_TRY(integer(p, 0, INT64_MAX, "a size", &v));
    m->workspace_bytes = (uint64_t)v;
    return ZN_OK;
  }
  bool run = zn_lex_is(&p->l, "run");
  if (run || zn_lex_is(&p->l, "plan")) {
    zn_lex_next(&p->l);
    ZN_TRY(integer(p, 0, UINT32_MAX, "a function's number", &v));
    *(run ? &m->run_fn : &m->plan_fn) = (uint32_t)v;
    return ZN_OK;
  }
  if (accept_word(p, "input")) return io(p, &m->inputs, &m->num_inputs, &p->cap_in);
  if (accept_word(p, "output")) return io(p, &m->outputs, &m->num_outputs, &p->cap_out);
  if (accept_word(p, "const")) return constant(p);
  if (accept_word(p, "kernel")) return function(p, false);
  if (accept_word(p, "entry")) return function(p, true);
  return unexpected(p, "input, output, const, kernel or entry");
}

zn_status zn_kmod_parse(zn_ctx *c, zn_arena *a, const char *src, size_t n, const char *base_dir,
                        zn_kmod **out) {
  parser p = {.c = c, .a = a, .base_dir = base_dir, .size = n};
  zn_lex_init(&p.l, c, a, src, n);
  const char *module;
  ZN_TRY(word(&p, "module"));
  ZN_TRY(name(&p, &module));
  p.m = zn_kmod_new(a, module);
  while (p.l.tok != ZN_TOK_EOF) ZN_TRY(item(&p));
  *out = p.m;
  return ZN_OK;
}
