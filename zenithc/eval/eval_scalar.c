/* Elementwise operators: walks scalar.def's expression trees over blocks of elements. Every tree
 * node has a class: numbers (double, rounded per step in the F32 modes) or integers of one dtype,
 * which wrap exactly. Operators that need more than the expression language (strings, complex,
 * attributes that select a formula) are written out here. */
#include "zenithc/eval/eval_impl.h"

enum { BLOCK = 256 };

typedef struct vec { /* one tree node's values over a block */
  bool is_int;
  zn_dtype t;
  double f[BLOCK];
  int64_t i[BLOCK];
} vec;

typedef struct walk {
  zn_ev *e;
  const zn_eval_val *const *in; /* operands by input number */
  uint32_t num_in;
  const int64_t (*off)[BLOCK]; /* element offsets of each operand in this block */
  uint32_t n;                  /* elements in this block */
  vec *pool;                   /* one for each tree node */
  uint32_t used;
  zn_dtype round; /* f16, bf16: decisions (floor, compare) are taken on values of this type */
} walk;

static double as_f(const vec *v, uint32_t k) {
  if (!v->is_int) return v->f[k];
  return v->t == ZN_U64 ? (double)(uint64_t)v->i[k] : (double)v->i[k];
}

static double round_half_even(double x) { return rint(x); }

static double sigmoid(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }

static double py_mod(double a, double b) {
  double r = fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r == 0 ? copysign(0.0, b) : r;
}

static double min_nan(double a, double b) { return isnan(a) || isnan(b) ? NAN : a < b ? a : b; }
static double max_nan(double a, double b) { return isnan(a) || isnan(b) ? NAN : a > b ? a : b; }
static double neg(double x) { return -x; }
static double identity(double x) { return x; }
static double sign(double x) { return isnan(x) ? x : (double)((x > 0) - (x < 0)); }
static double add(double a, double b) { return a + b; }
static double sub(double a, double b) { return a - b; }
static double mul(double a, double b) { return a * b; }
static double divide(double a, double b) { return a / b; }
static double rsqrt(double a) { return 1 / sqrt(a); }
static double recip(double a) { return 1 / a; }
static double to_f16(double x) { return zn_float_decode(ZN_F16, zn_float_encode(ZN_F16, x, false)); }
static double to_bf16(double x) { return zn_float_decode(ZN_BF16, zn_float_encode(ZN_BF16, x, false)); }
static double softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

/* ---- one step on numbers ---- */
static const struct {
  const char *name;
  double (*fn)(double);
  bool decides; /* discontinuous: acts on the operand rounded to its dtype */
} unary[] = {{"neg", neg, 0},
             {"abs", fabs, 0},
             {"exp", exp, 0},
             {"log", log, 0},
             {"sqrt", sqrt, 0},
             {"sin", sin, 0},
             {"cos", cos, 0},
             {"tan", tan, 0},
             {"asin", asin, 0},
             {"acos", acos, 0},
             {"atan", atan, 0},
             {"sinh", sinh, 0},
             {"cosh", cosh, 0},
             {"tanh", tanh, 0},
             {"asinh", asinh, 0},
             {"acosh", acosh, 0},
             {"atanh", atanh, 0},
             {"erf", erf, 0},
             {"sigmoid", sigmoid, 0},
             {"log1p", log1p, 0},
             {"expm1", expm1, 0},
             {"floor", floor, 1},
             {"ceil", ceil, 1},
             {"trunc", trunc, 1},
             {"rint", round_half_even, 1},
             {"round", round_half_even, 1},
             {"sign", sign, 0},
             {"rsqrt", rsqrt, 0},
             {"recip", recip, 0},
             {"softplus", softplus, 0},
             {"f16", to_f16, 0},
             {"bf16", to_bf16, 0},
             {"cvt", identity, 0}};
static const struct {
  const char *name;
  double (*fn)(double, double);
  bool decides;
} binary[] = {{"add", add, 0},    {"sub", sub, 0},     {"mul", mul, 0},
              {"div", divide, 0}, {"min", min_nan, 0}, {"max", max_nan, 0},
              {"pow", pow, 0},    {"mod", py_mod, 1},  {"fmod", fmod, 1},
              {"rem", fmod, 1},   {"atan2", atan2, 0}, {"copysign", copysign, 0}};
static const char *const compares[] = {"lt", "le", "gt", "ge", "eq", "ne"};

static bool compare_f(int op, double a, double b) {
  switch (op) {
  case 0: return a < b;
  case 1: return a <= b;
  case 2: return a > b;
  case 3: return a >= b;
  case 4: return a == b;
  default: return a != b;
  }
}

static bool compare_i(int op, zn_dtype t, int64_t a, int64_t b) {
  bool lt = t == ZN_U64 ? (uint64_t)a < (uint64_t)b : a < b;
  switch (op) {
  case 0: return lt;
  case 1: return lt || a == b;
  case 2: return !lt && a != b;
  case 3: return !lt;
  case 4: return a == b;
  default: return a != b;
  }
}

static int64_t int_pow(int64_t x, int64_t n) {
  uint64_t r = 1, b = (uint64_t)x;
  if (n < 0) return x == 1 ? 1 : x == -1 ? (n % 2 ? -1 : 1) : 0;
  for (; n; n >>= 1, b *= b)
    if (n & 1) r *= b;
  return (int64_t)r;
}

static int64_t int_div(zn_dtype t, int64_t a, int64_t b, bool rem) {
  if (b == 0) return rem ? a : 0;
  if (t == ZN_U64) return (int64_t)(rem ? (uint64_t)a % (uint64_t)b : (uint64_t)a / (uint64_t)b);
  if (b == -1) return rem ? 0 : (int64_t)(0 - (uint64_t)a);
  return rem ? a % b : a / b;
}

static int64_t int_shift(zn_dtype t, int64_t a, int64_t n, bool left) {
  unsigned bits = zn_int_bits(t);
  uint64_t count = (uint64_t)n;
  if (count >= bits) return left || !zn_is_signed(t) || a >= 0 ? 0 : -1;
  if (left) return (int64_t)((uint64_t)a << count);
  if (!zn_is_signed(t)) return (int64_t)((uint64_t)a >> count);
  return a < 0 ? ~(~a >> count) : a >> count;
}

/* Integer step; false when the call has no integer meaning. */
static bool int_step(const char *f, zn_dtype t, int64_t a, int64_t b, int64_t *out) {
  bool lt = t == ZN_U64 ? (uint64_t)a < (uint64_t)b : a < b;
  uint64_t x = (uint64_t)a, y = (uint64_t)b;
  if (strcmp(f, "add") == 0) *out = (int64_t)(x + y);
  else if (strcmp(f, "sub") == 0) *out = (int64_t)(x - y);
  else if (strcmp(f, "mul") == 0) *out = (int64_t)(x * y);
  else if (strcmp(f, "div") == 0) *out = int_div(t, a, b, false);
  else if (strcmp(f, "fmod") == 0 || strcmp(f, "rem") == 0) *out = int_div(t, a, b, true);
  else if (strcmp(f, "mod") == 0) {
    int64_t r = int_div(t, a, b, true);
    *out = r != 0 && t != ZN_U64 && b != 0 && (r < 0) != (b < 0) ? r + b : r;
  } else if (strcmp(f, "min") == 0) *out = lt ? a : b;
  else if (strcmp(f, "max") == 0) *out = lt ? b : a;
  else if (strcmp(f, "pow") == 0) *out = int_pow(a, b);
  else if (strcmp(f, "and") == 0) *out = a & b;
  else if (strcmp(f, "or") == 0) *out = a | b;
  else if (strcmp(f, "xor") == 0) *out = a ^ b;
  else if (strcmp(f, "shl") == 0) *out = int_shift(t, a, b, true);
  else if (strcmp(f, "shr") == 0) *out = int_shift(t, a, b, false);
  else if (strcmp(f, "neg") == 0) *out = (int64_t)(0 - x);
  else if (strcmp(f, "abs") == 0) *out = zn_is_signed(t) && a < 0 ? (int64_t)(0 - x) : a;
  else if (strcmp(f, "not") == 0) *out = t == ZN_BOOL ? !a : ~a;
  else if (strcmp(f, "sign") == 0) *out = t == ZN_U64 ? a != 0 : (a > 0) - (a < 0);
  else if (strcmp(f, "floor") == 0 || strcmp(f, "ceil") == 0 || strcmp(f, "rint") == 0 ||
           strcmp(f, "round") == 0 || strcmp(f, "trunc") == 0 || strcmp(f, "cvt") == 0)
    *out = a;
  else return false;
  *out = t == ZN_BOOL ? *out & 1 : zn_int_wrap(t, *out);
  return true;
}

static zn_status walk_node(walk *w, const zn_sc *s, vec *v);

static zn_status walk_compare(walk *w, int op, const vec *a, const vec *b, vec *v) {
  bool ints = a->is_int && b->is_int;
  v->is_int = true;
  v->t = ZN_BOOL;
  zn_dtype t = a->t == ZN_BOOL ? b->t : a->t;
  for (uint32_t k = 0; k < w->n; k++)
    v->i[k] = ints
                  ? compare_i(op, t, a->i[k], b->i[k])
                  : compare_f(op, zn_ev_key(w->round, as_f(a, k)), zn_ev_key(w->round, as_f(b, k)));
  return ZN_OK;
}

static zn_status walk_select(walk *w, const vec *c, const vec *a, const vec *b, vec *v) {
  v->is_int = a->is_int && b->is_int;
  v->t = a->is_int && a->t != ZN_I64 ? a->t : b->t; /* literals are i64 */
  if (!b->is_int || b->t != ZN_I64) v->t = b->is_int ? b->t : v->t;
  for (uint32_t k = 0; k < w->n; k++) {
    bool yes = as_f(c, k) != 0;
    if (v->is_int) v->i[k] = yes ? a->i[k] : b->i[k];
    else v->f[k] = yes ? as_f(a, k) : as_f(b, k);
  }
  return ZN_OK;
}

static zn_status walk_float(walk *w, const char *f, uint32_t nargs, const vec *a, const vec *b,
                            vec *v) {
  v->is_int = false;
  bool single = w->e->single;
  for (size_t j = 0; nargs == 1 && j < sizeof unary / sizeof *unary; j++) {
    if (strcmp(f, unary[j].name) != 0) continue;
    for (uint32_t k = 0; k < w->n; k++) {
      double x = as_f(a, k);
      x = unary[j].fn(unary[j].decides ? zn_ev_key(w->round, x) : x);
      v->f[k] = single ? (double)(float)x : x;
    }
    return ZN_OK;
  }
  for (size_t j = 0; nargs == 2 && j < sizeof binary / sizeof *binary; j++) {
    if (strcmp(f, binary[j].name) != 0) continue;
    for (uint32_t k = 0; k < w->n; k++) {
      double x = as_f(a, k), y = as_f(b, k);
      if (binary[j].decides) {
        x = zn_ev_key(w->round, x);
        y = zn_ev_key(w->round, y);
      }
      x = binary[j].fn(x, y);
      v->f[k] = single ? (double)(float)x : x;
    }
    return ZN_OK;
  }
  return zn_ev_fail(w->e, "scalar function '%s' of %u numbers is unknown to the evaluator", f,
                    nargs);
}

static zn_status walk_ints(walk *w, const char *f, uint32_t nargs, const vec *a, const vec *b,
                           vec *v, bool *done) {
  *done = true;
  v->is_int = true;
  v->t = nargs == 2 && a->t == ZN_I64 ? b->t : a->t;
  if (nargs == 2 && strcmp(f, "pow") == 0) v->t = a->t;
  for (uint32_t k = 0; k < w->n && *done; k++)
    *done = int_step(f, v->t, a->i[k], nargs == 2 ? b->i[k] : 0, &v->i[k]);
  return ZN_OK;
}

static zn_status walk_call(walk *w, const zn_sc *s, vec *v) {
  vec *a = w->pool + w->used;
  w->used += s->num_args;
  for (uint32_t i = 0; i < s->num_args; i++) ZN_TRY(walk_node(w, s->arg[i], &a[i]));
  if (strcmp(s->name, "select") == 0) return walk_select(w, &a[0], &a[1], &a[2], v);
  for (int op = 0; op < 6; op++)
    if (strcmp(s->name, compares[op]) == 0) return walk_compare(w, op, &a[0], &a[1], v);
  if (strcmp(s->name, "isnan") == 0 || strcmp(s->name, "isinf") == 0) {
    v->is_int = true;
    v->t = ZN_BOOL;
    for (uint32_t k = 0; k < w->n; k++) {
      double x = as_f(&a[0], k);
      v->i[k] = s->name[2] == 'n' ? isnan(x) : isinf(zn_ev_key(w->round, x));
    }
    return ZN_OK;
  }
  bool done = false;
  if (a[0].is_int && (s->num_args < 2 || a[1].is_int))
    ZN_TRY(walk_ints(w, s->name, s->num_args, &a[0], &a[1], v, &done));
  return done ? ZN_OK : walk_float(w, s->name, s->num_args, &a[0], &a[1], v);
}

static zn_status walk_node(walk *w, const zn_sc *s, vec *v) {
  if (s->kind == ZN_SC_CALL) return walk_call(w, s, v);
  if (s->kind == ZN_SC_IN) {
    if (s->index >= w->num_in || !w->in[s->index])
      return zn_ev_fail(w->e, "input %u is missing", s->index + 1);
    const zn_eval_val *x = w->in[s->index];
    v->t = (zn_dtype)x->dtype;
    v->is_int = !zn_is_float(v->t);
    const int64_t *off = w->off[s->index];
    for (uint32_t k = 0; k < w->n; k++) {
      if (v->is_int) v->i[k] = x->u.i[off[k]];
      else v->f[k] = x->u.f[off[k]];
    }
    return ZN_OK;
  }
  double x = s->num;
  bool whole = s->num == floor(s->num) && fabs(s->num) < 1e15;
  if (s->kind == ZN_SC_ATTR) {
    const zn_schema_attr *at = zn_schema_find_attr(zn_op_schema(w->e->op), s->name);
    whole = at && at->kind == ZN_A_INT;
    x = whole ? (double)zn_node_int(w->e->n, s->name) : zn_node_float(w->e->n, s->name);
  }
  v->is_int = whole;
  v->t = ZN_I64;
  for (uint32_t k = 0; k < w->n; k++) {
    v->f[k] = zn_ev_r(w->e, x);
    v->i[k] = whole ? (int64_t)x : 0;
  }
  return ZN_OK;
}

/* ---- applying a tree with broadcasting ---- */
typedef struct operands {
  const zn_eval_val *v[8];
  uint32_t n, rank;
  int64_t dims[ZN_MAX_RANK], st[8][ZN_MAX_RANK];
} operands;

static zn_status operands_init(zn_ev *e, const zn_eval_val *const *in, uint32_t n, operands *o) {
  memset(o, 0, sizeof *o);
  o->n = n;
  for (uint32_t i = 0; i < n; i++) {
    o->v[i] = in[i];
    if (in[i] && in[i]->kind != ZN_V_TENSOR)
      return zn_ev_fail(e, "input %u is not a tensor", i + 1);
  }
  ZN_TRY(zn_ev_bcast(e, o->v, n, &o->rank, o->dims));
  for (uint32_t i = 0; i < n; i++)
    if (in[i]) zn_ev_bstrides(in[i], o->rank, o->st[i]);
  return ZN_OK;
}

static void fill_offsets(const operands *o, int64_t *ix, uint32_t n, int64_t (*off)[BLOCK]) {
  for (uint32_t k = 0; k < n; k++) {
    for (uint32_t i = 0; i < o->n; i++) {
      int64_t s = 0;
      for (uint32_t d = 0; d < o->rank; d++) s += ix[d] * o->st[i][d];
      off[i][k] = s;
    }
    zn_ev_next(o->rank, o->dims, ix);
  }
}

static void store(zn_eval_val *out, uint64_t at, const vec *v, uint32_t n) {
  zn_dtype t = (zn_dtype)out->dtype;
  for (uint32_t k = 0; k < n; k++) {
    if (zn_is_float(t)) out->u.f[at + k] = as_f(v, k);
    else if (!v->is_int) zn_ev_set(out, at + k, v->f[k]);
    else out->u.i[at + k] = t == ZN_BOOL ? v->i[k] != 0 : zn_int_wrap(t, v->i[k]);
  }
}

static uint32_t tree_size(const zn_sc *s) {
  uint32_t n = 1;
  for (uint32_t i = 0; s->kind == ZN_SC_CALL && i < s->num_args; i++) n += tree_size(s->arg[i]);
  return n;
}

static zn_status apply(zn_ev *e, const zn_sc *tree, const zn_eval_val *const *in, uint32_t n,
                       zn_dtype t, zn_eval_val *out) {
  operands o;
  ZN_TRY(operands_init(e, in, n, &o));
  ZN_TRY(zn_ev_new(e, t, o.rank, o.dims, out));
  int64_t ix[ZN_MAX_RANK] = {0}, (*off)[BLOCK] = zn_arena_array(e->tmp, 8, sizeof *off);
  zn_dtype round = ZN_F64;
  for (uint32_t i = 0; i < n; i++)
    if (in[i] && zn_is_float((zn_dtype)in[i]->dtype)) round = (zn_dtype)in[i]->dtype;
  bool same = true; /* no broadcasting: offsets are the identity */
  for (uint32_t i = 0; i < n; i++)
    if (in[i] && in[i]->count != out->count) same = false;
  vec *pool = ZN_ARRAY(e->tmp, vec, tree_size(tree) + 1);
  for (uint64_t at = 0; at < out->count; at += BLOCK) {
    uint32_t len = out->count - at < BLOCK ? (uint32_t)(out->count - at) : BLOCK;
    if (!same) fill_offsets(&o, ix, len, off);
    for (uint32_t i = 0; same && i < n; i++)
      for (uint32_t k = 0; k < len; k++) off[i][k] = (int64_t)(at + k);
    walk w = {e, in, n, (const int64_t(*)[BLOCK])off, len, pool, 1, round};
    ZN_TRY(walk_node(&w, tree, &pool[0]));
    store(out, at, &pool[0], len);
  }
  return ZN_OK;
}

/* ---- operators beyond the expression language ---- */
static zn_status pick(zn_ev *e) { /* Where: any dtype */
  operands o;
  ZN_TRY(operands_init(e, e->in, 3, &o));
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)e->in[1]->dtype, o.rank, o.dims));
  int64_t ix[ZN_MAX_RANK] = {0};
  size_t es = zn_ev_esize((zn_dtype)e->in[1]->dtype);
  for (uint64_t k = 0; k < e->out[0].count; k++, zn_ev_next(o.rank, o.dims, ix)) {
    int64_t at[3] = {0};
    for (uint32_t i = 0; i < 3; i++)
      for (uint32_t d = 0; d < o.rank; d++) at[i] += ix[d] * o.st[i][d];
    int from = e->in[0]->u.i[at[0]] ? 1 : 2;
    zn_ev_copy1(e->out[0].u.p, k, e->in[from]->u.p, (uint64_t)at[from], es);
  }
  return ZN_OK;
}

static zn_status equal_strings(zn_ev *e) {
  operands o;
  ZN_TRY(operands_init(e, e->in, 2, &o));
  ZN_TRY(zn_ev_out(e, 0, ZN_BOOL, o.rank, o.dims));
  int64_t ix[ZN_MAX_RANK] = {0};
  for (uint64_t k = 0; k < e->out[0].count; k++, zn_ev_next(o.rank, o.dims, ix)) {
    int64_t a = 0, b = 0;
    for (uint32_t d = 0; d < o.rank; d++) {
      a += ix[d] * o.st[0][d];
      b += ix[d] * o.st[1][d];
    }
    e->out[0].u.i[k] = zn_ev_strcmp(&e->in[0]->u.s[a], &e->in[1]->u.s[b]) == 0;
  }
  return ZN_OK;
}

/* Clip: absent bounds do not clip; min first, then max (so max wins when they cross). */
static zn_status clip(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *lo = zn_ev_in(e, 1), *hi = zn_ev_in(e, 2);
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  zn_eval_val *y = &e->out[0];
  bool f = zn_is_float((zn_dtype)x->dtype), u64 = x->dtype == ZN_U64;
  for (uint64_t k = 0; k < x->count; k++) {
    if (f) {
      double v = x->u.f[k];
      if (lo && v < lo->u.f[0]) v = lo->u.f[0];
      if (hi && v > hi->u.f[0]) v = hi->u.f[0];
      y->u.f[k] = v;
    } else {
      int64_t v = x->u.i[k];
      if (lo && (u64 ? (uint64_t)v < (uint64_t)lo->u.i[0] : v < lo->u.i[0])) v = lo->u.i[0];
      if (hi && (u64 ? (uint64_t)v > (uint64_t)hi->u.i[0] : v > hi->u.i[0])) v = hi->u.i[0];
      y->u.i[k] = v;
    }
  }
  return ZN_OK;
}

static double gelu(const zn_ev *e, double x, bool tanh_form) {
  if (!tanh_form)
    return zn_ev_r(e, zn_ev_r(e, 0.5 * x) *
                          zn_ev_r(e, 1 + zn_ev_r(e, erf(zn_ev_r(e, x * 0.70710678118654752440)))));
  double cube = zn_ev_r(e, zn_ev_r(e, x * x) * x);
  double t = tanh(zn_ev_r(e, 0.79788456080286535588 * zn_ev_r(e, x + zn_ev_r(e, 0.044715 * cube))));
  return zn_ev_r(e, zn_ev_r(e, 0.5 * x) * zn_ev_r(e, 1 + t));
}

static zn_status gelu_all(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  bool t = strcmp(zn_node_str(e->n, "approximate"), "tanh") == 0;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  for (uint64_t k = 0; k < x->count; k++) e->out[0].u.f[k] = gelu(e, x->u.f[k], t);
  return ZN_OK;
}

static const zn_sc in_a = {.kind = ZN_SC_IN, .index = 0}, in_b = {.kind = ZN_SC_IN, .index = 1};

static zn_status call2(zn_ev *e, const char *name, zn_dtype t, const zn_eval_val *const *in,
                       zn_eval_val *out) {
  zn_sc call = {.kind = ZN_SC_CALL, .name = name, .num_args = 2};
  call.arg[0] = (zn_sc *)(uintptr_t)&in_a;
  call.arg[1] = (zn_sc *)(uintptr_t)&in_b;
  return apply(e, &call, in, 2, t, out);
}

/* Max, Min, Sum, Mean over any number of inputs: the binary step, left to right. */
static zn_status variadic(zn_ev *e, const char *step, bool mean) {
  zn_eval_val acc = zn_ev_share(e->in[0]);
  for (uint32_t i = 1; i < e->num_in; i++) {
    const zn_eval_val *two[2] = {&acc, e->in[i]};
    zn_eval_val next;
    ZN_TRY(call2(e, step, (zn_dtype)acc.dtype, two, &next));
    zn_ev_release(e->run, &acc);
    acc = next;
  }
  if (mean && e->num_in > 1)
    for (uint64_t k = 0; k < acc.count; k++) acc.u.f[k] = zn_ev_r(e, acc.u.f[k] / e->num_in);
  e->out[0] = acc;
  return ZN_OK;
}

static zn_status is_inf(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  bool neg_ok = zn_node_int(e->n, "detect_negative") != 0,
       pos_ok = zn_node_int(e->n, "detect_positive") != 0;
  ZN_TRY(zn_ev_out(e, 0, ZN_BOOL, x->rank, x->dims));
  for (uint64_t k = 0; k < x->count; k++) {
    double v = zn_ev_key((zn_dtype)x->dtype, x->u.f[k]);
    e->out[0].u.i[k] = isinf(v) && (v > 0 ? pos_ok : neg_ok);
  }
  return ZN_OK;
}

static zn_dtype result_type(const zn_ev *e) {
  const zn_schema *s = zn_op_schema(e->op);
  if (zn_ops[e->op].flags && s->num_out) {
    zn_dtype fixed = zn_dtype_from_name(s->out[0].type);
    if (fixed != ZN_NONE) return fixed;
    for (uint32_t i = 0; i < s->num_in && i < e->num_in; i++)
      if (strcmp(s->in[i].type, s->out[0].type) == 0 && e->in[i]) return (zn_dtype)e->in[i]->dtype;
  }
  return ZN_BOOL; /* comparisons: the output's own type set is {bool} */
}

zn_status zn_eval_scalar(zn_ev *e) {
  switch (e->op) {
  case ZN_OP_Where: return pick(e);
  case ZN_OP_Clip: return clip(e);
  case ZN_OP_Gelu: return gelu_all(e);
  case ZN_OP_IsInf: return is_inf(e);
  case ZN_OP_Max: return variadic(e, "max", false);
  case ZN_OP_Min: return variadic(e, "min", false);
  case ZN_OP_Sum: return variadic(e, "add", false);
  case ZN_OP_Mean: return variadic(e, "add", true);
  case ZN_OP_Equal:
    if (e->in[0]->dtype == ZN_STR) return equal_strings(e);
    break;
  case ZN_OP_BitShift:
    return call2(e, strcmp(zn_node_str(e->n, "direction"), "LEFT") == 0 ? "shl" : "shr",
                 (zn_dtype)e->in[0]->dtype, e->in, &e->out[0]);
  case ZN_OP_Mod:
    return call2(e, zn_node_int(e->n, "fmod") ? "fmod" : "mod", (zn_dtype)e->in[0]->dtype, e->in,
                 &e->out[0]);
  default: break;
  }
  const zn_sc *tree = zn_scalar_expr(e->op);
  if (!tree) return zn_ev_fail(e, "operator %s has no row in scalar.def", zn_op_name(e->op));
  return apply(e, tree, e->in, e->num_in, result_type(e), &e->out[0]);
}
