/* Elementwise maps: the scalar.def expression of an operator evaluated on kernel values, and the schedule that computes a
 * whole tensor element by element (vector loop over the innermost axis, adjacent axes merged where every operand allows). */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "codegen/lower/strvalue.h"

enum { INTERLEAVE = 4 }; /* vectors in flight where an element is a long chain of operations */

/* ---------------------------------------------------------------- scalar expressions */

typedef struct scalar_env {
  zn_lw *lw;
  zn_nid n;
  const zn_kref *in;
  uint32_t num_in;
  zn_dtype num; /* the type arithmetic happens in */
} scalar_env;

static const struct { const char *name; uint8_t op; } calls[] = {
    {"add", ZN_K_Add}, {"sub", ZN_K_Sub}, {"mul", ZN_K_Mul}, {"div", ZN_K_Div}, {"fmod", ZN_K_Rem},
    {"rem", ZN_K_Rem}, {"min", ZN_K_Min}, {"max", ZN_K_Max}, {"and", ZN_K_And}, {"or", ZN_K_Or},
    {"xor", ZN_K_Xor}, {"shl", ZN_K_Shl}, {"shr", ZN_K_Shr}, {"neg", ZN_K_Neg}, {"abs", ZN_K_Abs},
    {"not", ZN_K_Not}, {"sqrt", ZN_K_Sqrt}, {"floor", ZN_K_Floor}, {"ceil", ZN_K_Ceil},
    {"trunc", ZN_K_Trunc}, {"rint", ZN_K_Rint}, {"exp", ZN_K_Exp}, {"log", ZN_K_Log},
    {"log1p", ZN_K_Log1p}, {"expm1", ZN_K_Expm1}, {"sin", ZN_K_Sin}, {"cos", ZN_K_Cos},
    {"tan", ZN_K_Tan}, {"asin", ZN_K_Asin}, {"acos", ZN_K_Acos}, {"atan", ZN_K_Atan},
    {"sinh", ZN_K_Sinh}, {"cosh", ZN_K_Cosh}, {"tanh", ZN_K_Tanh}, {"asinh", ZN_K_Asinh},
    {"acosh", ZN_K_Acosh}, {"atanh", ZN_K_Atanh}, {"erf", ZN_K_Erf}, {"sigmoid", ZN_K_Sigmoid},
    {"pow", ZN_K_Pow}, {"lt", ZN_K_Lt}, {"le", ZN_K_Le}, {"gt", ZN_K_Gt}, {"ge", ZN_K_Ge},
    {"eq", ZN_K_Eq}, {"ne", ZN_K_Ne}, {"copysign", ZN_K_CopySign},
};

static zn_kref number(scalar_env *e, double v) {
  if (zn_is_float(e->num)) return zn_kb_float(&e->lw->kb, e->num, v);
  if (e->num == ZN_BOOL) return zn_kb_int(&e->lw->kb, ZN_BOOL, v != 0);
  /* infinities stand for "no bound" in integer types */
  int64_t i = v >= 9.2e18 ? INT64_MAX : v <= -9.2e18 ? INT64_MIN : (int64_t)v;
  unsigned bits = zn_int_bits(e->num);
  if (v >= 9.2e18 && bits < 64) i = (int64_t)((1ull << (bits - (zn_is_signed(e->num) ? 1 : 0))) - 1);
  if (v >= 9.2e18 && bits == 64 && !zn_is_signed(e->num)) i = -1;
  if (v <= -9.2e18) i = !zn_is_signed(e->num) ? 0 : bits < 64 ? -(1ll << (bits - 1)) : INT64_MIN;
  return zn_kb_int(&e->lw->kb, e->num, i);
}

static zn_kref walk(scalar_env *e, const zn_sc *s);

static zn_kref to_bool(zn_lw *lw, zn_kref k) {
  return zn_lw_kdtype(lw, k) == ZN_BOOL ? k : zn_kb_cvt(&lw->kb, k, ZN_BOOL);
}

/* Brings two operands to one type: a bool beside a number becomes that number type. */
static void unify(zn_lw *lw, zn_kref *x, zn_kref *y) {
  zn_dtype tx = zn_lw_kdtype(lw, *x), ty = zn_lw_kdtype(lw, *y);
  if (tx == ty) return;
  if (tx == ZN_BOOL)
    *x = zn_kb_cvt(&lw->kb, *x, ty);
  else
    *y = zn_kb_cvt(&lw->kb, *y, tx);
}

static zn_kref call_special(scalar_env *e, const zn_sc *s, bool *handled) {
  zn_lw *lw = e->lw;
  zn_kb *b = &lw->kb;
  *handled = true;
  if (!strcmp(s->name, "select")) {
    zn_kref c = to_bool(lw, walk(e, s->arg[0]));
    zn_kref x = walk(e, s->arg[1]);
    zn_kref y = walk(e, s->arg[2]);
    unify(lw, &x, &y);
    return zn_kb_select(b, c, x, y);
  }
  if (!strcmp(s->name, "streq")) {
    const char *have = zn_node_str(zn_lw_node(lw, e->n), s->arg[0]->name);
    return zn_kb_int(b, ZN_BOOL, have && !strcmp(have, s->arg[1]->name));
  }
  if (!strcmp(s->name, "isnan")) {
    zn_kref x = walk(e, s->arg[0]);
    return zn_is_float(zn_lw_kdtype(lw, x)) ? zn_kb_cmp(b, ZN_K_Ne, x, x) : zn_kb_int(b, ZN_BOOL, 0);
  }
  if (!strcmp(s->name, "isinf")) {
    zn_kref x = walk(e, s->arg[0]);
    if (!zn_is_float(zn_lw_kdtype(lw, x))) return zn_kb_int(b, ZN_BOOL, 0);
    zn_kref a = zn_kb_un(b, ZN_K_Abs, x);
    zn_kref inf = zn_kb_float(b, zn_lw_kdtype(lw, x), (double)INFINITY);
    return zn_kb_cmp(b, ZN_K_Eq, a, inf);
  }
  if (!strcmp(s->name, "sign")) {
    zn_kref x = walk(e, s->arg[0]);
    zn_dtype t = zn_lw_kdtype(lw, x);
    zn_kref zero = zn_is_float(t) ? zn_kb_float(b, t, 0) : zn_kb_int(b, t, 0);
    zn_kref one = zn_is_float(t) ? zn_kb_float(b, t, 1) : zn_kb_int(b, t, 1);
    zn_kref pos = zn_kb_cmp(b, ZN_K_Gt, x, zero), neg = zn_kb_cmp(b, ZN_K_Lt, x, zero);
    zn_kref minus = zn_is_float(t) ? zn_kb_float(b, t, -1) : zn_kb_int(b, t, -1);
    zn_kref r = zn_kb_select(b, pos, one, zn_is_float(t) ? x : zero); /* keeps NaN and -0 */
    return zn_is_float(t) || zn_is_signed(t) ? zn_kb_select(b, neg, minus, r) : r;
  }
  if (!strcmp(s->name, "f16") || !strcmp(s->name, "bf16"))
    return zn_lw_round_to(lw, walk(e, s->arg[0]), strcmp(s->name, "f16") ? ZN_BF16 : ZN_F16);
  if (!strcmp(s->name, "mod")) { /* remainder with the divisor's sign */
    zn_kref x = walk(e, s->arg[0]);
    zn_kref y = walk(e, s->arg[1]);
    zn_dtype t = zn_lw_kdtype(lw, x);
    zn_kref r = zn_kb_bin(b, ZN_K_Rem, x, y);
    if (!zn_is_float(t) && !zn_is_signed(t)) return r;
    zn_kref zero = zn_is_float(t) ? zn_kb_float(b, t, 0) : zn_kb_int(b, t, 0);
    zn_kref nz = zn_kb_cmp(b, ZN_K_Ne, r, zero);
    zn_kref rn = zn_kb_cmp(b, ZN_K_Lt, r, zero), yn = zn_kb_cmp(b, ZN_K_Lt, y, zero);
    zn_kref differ = zn_kb_bin(b, ZN_K_Xor, rn, yn);
    zn_kref fix = zn_kb_bin(b, ZN_K_And, nz, differ);
    zn_kref sum = zn_kb_bin(b, ZN_K_Add, r, y);
    return zn_kb_select(b, fix, sum, r);
  }
  *handled = false;
  return 0;
}

static bool is_int_identity(const char *f) {
  return !strcmp(f, "floor") || !strcmp(f, "ceil") || !strcmp(f, "trunc") || !strcmp(f, "rint");
}

static zn_kref call(scalar_env *e, const zn_sc *s) {
  zn_lw *lw = e->lw;
  zn_kb *b = &lw->kb;
  bool handled;
  zn_kref r = call_special(e, s, &handled);
  if (handled) return r;
  for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
    if (strcmp(calls[i].name, s->name)) continue;
    zn_kop op = (zn_kop)calls[i].op;
    zn_kref x = walk(e, s->arg[0]);
    if (s->num_args == 1) {
      if (!zn_is_float(zn_lw_kdtype(lw, x)) && is_int_identity(s->name)) return x;
      return zn_kb_un(b, op, x);
    }
    zn_kref y = walk(e, s->arg[1]);
    unify(lw, &x, &y);
    if (zn_kops[op].cls == 'P') return zn_kb_cmp(b, op, x, y);
    return zn_kb_bin(b, op, x, y);
  }
  ZN_BUG(lw->ctx, "scalar.def: function '%s' of %s is unknown to the lowering", s->name,
         zn_op_name(zn_lw_node(lw, e->n)->op));
}

static zn_kref walk(scalar_env *e, const zn_sc *s) {
  const zn_node *node = zn_lw_node(e->lw, e->n);
  switch (s->kind) {
  case ZN_SC_NUM: return number(e, s->num);
  case ZN_SC_IN: assert(s->index < e->num_in && e->in[s->index]); return e->in[s->index];
  case ZN_SC_ATTR: {
    const zn_schema_attr *a = zn_schema_find_attr(zn_op_schema(node->op), s->name);
    assert(a && "scalar.def names an attribute that the schema lacks");
    if (a->kind == ZN_A_INT) return number(e, (double)zn_node_int(node, s->name));
    return number(e, zn_node_float(node, s->name));
  }
  case ZN_SC_CALL: return call(e, s);
  }
  return 0;
}

/* The product of the squares x^(2^k) whose bit k of y is set: wraps as products of integers do. A negative y gives 0, but
 * for bases of 1 and -1. */
static zn_kref whole_pow(zn_lw *lw, zn_kref x, zn_kref y) {
  zn_kb *b = &lw->kb;
  const zn_dtype t = zn_lw_kdtype(lw, x), ty = zn_lw_kdtype(lw, y);
  zn_kref none = zn_kb_int(b, ty, 0), one = zn_kb_int(b, t, 1), r = one, square = x;
  for (int k = 0; k < (int)zn_int_bits(ty) - (zn_is_signed(ty) ? 1 : 0); k++) {
    zn_kref mask = zn_kb_int(b, ty, (int64_t)(UINT64_C(1) << k)), bit = zn_kb_bin(b, ZN_K_And, y, mask);
    zn_kref set = zn_kb_cmp(b, ZN_K_Ne, bit, none), more = zn_kb_bin(b, ZN_K_Mul, r, square);
    r = zn_kb_select(b, set, more, r);
    square = zn_kb_bin(b, ZN_K_Mul, square, square);
  }
  if (!zn_is_signed(ty)) return r;
  zn_kref odd = zn_kb_bin(b, ZN_K_And, y, zn_kb_int(b, ty, 1)), unit = zn_kb_cmp(b, ZN_K_Eq, x, one);
  zn_kref lost = zn_kb_int(b, t, 0);
  if (zn_is_signed(t)) {
    zn_kref minus = zn_kb_int(b, t, -1), sign = zn_kb_select(b, zn_kb_cmp(b, ZN_K_Ne, odd, none), minus, one);
    zn_kref is_minus = zn_kb_cmp(b, ZN_K_Eq, x, minus);
    lost = zn_kb_select(b, is_minus, sign, lost);
  }
  lost = zn_kb_select(b, unit, one, lost);
  zn_kref negative = zn_kb_cmp(b, ZN_K_Lt, y, none);
  return zn_kb_select(b, negative, lost, r);
}

/* Pow of an integer base and a real exponent, in f64: a result next to an integer is that integer, others are truncated. */
static zn_kref int_pow(zn_lw *lw, zn_kref x, zn_kref y) {
  zn_kb *b = &lw->kb;
  const zn_dtype t = zn_lw_kdtype(lw, x);
  if (!zn_is_float(zn_lw_kdtype(lw, y))) return whole_pow(lw, x, y);
  zn_kref fx = zn_kb_cvt(b, x, ZN_F64), fy = zn_kb_cvt(b, y, ZN_F64);
  zn_kref p = zn_kb_bin(b, ZN_K_Pow, fx, fy);
  zn_kref r = zn_kb_un(b, ZN_K_Rint, p), down = zn_kb_un(b, ZN_K_Trunc, p);
  zn_kref diff = zn_kb_bin(b, ZN_K_Sub, p, r);
  zn_kref off = zn_kb_un(b, ZN_K_Abs, diff), mag = zn_kb_un(b, ZN_K_Abs, p);
  zn_kref tol = zn_kb_bin(b, ZN_K_Mul, mag, zn_kb_float(b, ZN_F64, 0x1p-45));
  zn_kref near = zn_kb_cmp(b, ZN_K_Le, off, tol);
  return zn_kb_cvt(b, zn_kb_select(b, near, r, down), t);
}

/* Does a float attribute hold a fraction? Integers are then computed in f64 and truncated (Shrink). */
static bool has_fraction(const zn_node *n) {
  const zn_schema *s = zn_op_schema(n->op);
  for (uint32_t i = 0; i < s->num_attrs; i++) {
    if (s->attrs[i].kind != ZN_A_FLOAT) continue;
    double x = zn_node_float(n, s->attrs[i].name);
    if (x != (double)(int64_t)x) return true;
  }
  return false;
}

zn_kref zn_lower_scalar(zn_lw *lw, zn_nid n, const zn_kref *in, uint32_t num_in) {
  if (zn_lw_node(lw, n)->op == ZN_OP_Equal && zn_lw_kdtype(lw, in[0]) == ZN_PTR)
    return zn_sv_equal(lw, in[0], in[1]);
  if (zn_lw_node(lw, n)->op == ZN_OP_Where && zn_lw_kdtype(lw, in[1]) == ZN_PTR)
    return zn_kb_select(&lw->kb, in[0], in[1], in[2]);
  if (zn_lw_node(lw, n)->op == ZN_OP_Pow && !zn_is_float(zn_lw_kdtype(lw, in[0])))
    return int_pow(lw, in[0], in[1]);
  const zn_sc *s = zn_scalar_expr(zn_lw_node(lw, n)->op);
  assert(s && "no scalar.def row");
  scalar_env e = {lw, n, in, num_in, ZN_BOOL};
  for (uint32_t i = 0; i < num_in && e.num == ZN_BOOL; i++)
    if (in[i]) e.num = zn_lw_kdtype(lw, in[i]);
  zn_dtype back = e.num;
  if (zn_is_int(e.num) && has_fraction(zn_lw_node(lw, n))) e.num = ZN_F64;
  zn_kref cast[8];
  assert(num_in <= 8);
  for (uint32_t i = 0; i < num_in; i++) { /* Pow(x: f32, y: i64) and the like compute in the first type */
    cast[i] = in[i];
    if (in[i] && zn_lw_kdtype(lw, in[i]) != ZN_BOOL && zn_lw_kdtype(lw, in[i]) != e.num)
      cast[i] = zn_kb_cvt(&lw->kb, in[i], e.num);
  }
  e.in = cast;
  zn_kref r = walk(&e, s);
  return e.num == back ? r : zn_kb_cvt(&lw->kb, r, back);
}

/* ---------------------------------------------------------------- the map family */

static bool is_variadic(const zn_node *n) {
  const zn_schema *s = zn_op_schema(n->op);
  return s->num_in == 1 && s->in[0].variadic;
}

/* Optional inputs that scalar.def sees as neutral bounds when absent (Clip). */
static zn_kref absent_input(zn_lw *lw, zn_nid n, uint32_t i, zn_dtype t) {
  (void)n;
  scalar_env e = {lw, n, NULL, 0, t};
  return number(&e, i == 1 ? -(double)INFINITY : (double)INFINITY);
}

static zn_kref map_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  const zn_type *t = zn_lw_type(lw, node->out[out]);
  zn_kref in[8] = {0};
  if (is_variadic(node)) {
    zn_kref acc = zn_lw_load_bcast(lw, node->in[0], t->rank, t->dims, idx);
    for (uint32_t i = 1; i < node->num_in; i++) {
      in[0] = acc;
      in[1] = zn_lw_load_bcast(lw, zn_lw_node(lw, n)->in[i], t->rank, t->dims, idx);
      acc = zn_lower_scalar(lw, n, in, 2);
    }
    if (node->op == ZN_OP_Mean && node->num_in > 1) {
      zn_kref d = zn_kb_float(&lw->kb, zn_lw_kdtype(lw, acc), (double)node->num_in);
      acc = zn_kb_bin(&lw->kb, ZN_K_Div, acc, d);
    }
    return acc;
  }
  uint32_t num = zn_op_schema(node->op)->num_in;
  for (uint32_t i = 0; i < num; i++) {
    zn_vid v = zn_node_in(node, i);
    in[i] = v ? zn_lw_load_bcast(lw, v, t->rank, t->dims, idx)
              : absent_input(lw, n, i, zn_lw_kdtype(lw, in[0]));
  }
  return zn_lower_scalar(lw, n, in, num);
}

/* May axes d and d+1 of v (rank and dims those of the output being computed) be walked as one? */
static bool can_merge(const zn_lw *lw, zn_vid v, int d) {
  const zn_value *val = &lw->g->vals[v];
  const zn_type *t = &val->type;
  if (val->cst || (!val->inlined && !zn_value_known(val)))
    return zn_layout_is_plain(&val->layout);
  if (zn_value_known(val)) return false;
  const zn_node *n = zn_lw_node(lw, val->def);
  const unsigned flags = zn_ops[n->op].flags;
  if (!(flags & ZN_OPF_EW) && n->op != ZN_OP_Cast && n->op != ZN_OP_Identity) return false;
  for (uint32_t i = 0; i < n->num_in; i++) {
    if (!n->in[i]) continue;
    const zn_type *ti = zn_lw_type(lw, n->in[i]);
    int e = d - (t->rank - ti->rank);
    zn_expr d0 = e >= 0 ? ti->dims[e] : zn_ex_const(lw->ex, 1);
    zn_expr d1 = e + 1 >= 0 ? ti->dims[e + 1] : zn_ex_const(lw->ex, 1);
    if (zn_ex_is(lw->ex, d0, 1) && zn_ex_is(lw->ex, d1, 1)) continue;
    if (d0 != t->dims[d] || d1 != t->dims[d + 1]) return false;
    if (!can_merge(lw, n->in[i], e)) return false;
  }
  return true;
}

static bool def_merges(const zn_lw *lw, zn_vid v, int d) {
  const zn_value *val = &lw->g->vals[v];
  if (!zn_layout_is_plain(&val->layout) || !val->def) return false;
  /* as can_merge on an inlined value: look at the producer's operands */
  zn_value as_inlined = *val;
  as_inlined.inlined = true;
  zn_value *slot = &lw->g->vals[v], saved = *slot;
  *slot = as_inlined;
  bool r = can_merge(lw, v, d);
  *slot = saved;
  return r;
}

/* Blocked results: in the order in which they are stored. */
static zn_status blocked_map(zn_lw *lw, zn_nid n, zn_vid v) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_expr idx[ZN_MAX_RANK];
  zn_lw_kernel(lw, n, zn_op_name(node->op));
  int loops = zn_lw_over(lw, v, 4, idx);
  zn_lw_store(lw, v, idx, zn_lower_of(node->op)->point(lw, n, lw->g->vals[v].def_out, idx));
  while (loops-- > 0) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

static bool calls_function(const zn_sc *s) {
  if (s->kind != ZN_SC_CALL) return false;
  for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++)
    if (!strcmp(calls[i].name, s->name) && zn_kops[calls[i].op].cls == 'M') return true;
  for (uint32_t i = 0; i < s->num_args; i++)
    if (calls_function(s->arg[i])) return true;
  return false;
}

/* Do elements of v, computed in place, need a mathematical function? Those are long chains of dependent operations. */
static bool is_long_chain(const zn_lw *lw, zn_vid v) {
  const zn_node *n = zn_lw_node(lw, lw->g->vals[v].def);
  const zn_sc *s = zn_ops[n->op].flags & ZN_OPF_EW ? zn_scalar_expr(n->op) : NULL;
  if (s && calls_function(s)) return true;
  for (uint32_t i = 0; i < n->num_in; i++)
    if (n->in[i] && lw->g->vals[n->in[i]].inlined && is_long_chain(lw, n->in[i])) return true;
  return false;
}

zn_status zn_lower_value_map(zn_lw *lw, zn_nid n, zn_vid v) {
  const zn_node *node = zn_lw_node(lw, n);
  if (node->op == ZN_OP_Identity && zn_lower_reorder(lw, n)) return ZN_OK;
  if (lw->g->vals[v].layout.block) return blocked_map(lw, n, v);
  const zn_type t = *zn_lw_type(lw, v);
  zn_exprs *ex = lw->ex;
  if (t.kind != ZN_V_TENSOR) { /* Identity */
    zn_loc to = zn_lw_loc(lw, v);
    zn_lw_copy(lw, n, &t, zn_lw_loc(lw, node->in[0]), to);
    return ZN_OK;
  }
  zn_lw_kernel(lw, n, zn_op_name(node->op));
  /* other point operators (Transpose, Gather) read other elements than the one they write */
  bool own = zn_ops[node->op].flags & ZN_OPF_EW || node->op == ZN_OP_Cast || node->op == ZN_OP_Identity;
  if (own && node->num_out == 1 && v == node->out[0]) zn_lw_in_place(lw, UINT32_MAX);
  /* merge axes into loops: loop j covers axes first[j] .. first[j+1]-1 */
  int first[ZN_MAX_RANK + 1], loops = 0;
  for (int d = 0; d < t.rank; d++)
    if (d == 0 || !def_merges(lw, v, d - 1)) first[loops++] = d;
  first[loops] = t.rank;
  zn_expr extent[ZN_MAX_RANK], var[ZN_MAX_RANK], idx[ZN_MAX_RANK];
  for (int j = 0; j < loops; j++) {
    extent[j] = zn_ex_const(ex, 1);
    for (int d = first[j]; d < first[j + 1]; d++) extent[j] = zn_ex_mul(ex, extent[j], t.dims[d]);
  }
  int last = loops - 1;
  const zn_value *val = &lw->g->vals[v];
  unsigned lanes = zn_lw_lanes(lw, (zn_dtype)t.dtype);
  unsigned width = lanes > 1 && val->def && is_long_chain(lw, v) ? INTERLEAVE * lanes : 0;
  zn_expr chunk = ZN_EX_NONE;
  if (loops == 1) { /* one long loop: split it so that there is something to share out */
    int64_t lo, hi;
    zn_ex_range(ex, extent[0], &lo, &hi);
    const int64_t size = lw->caps->simt ? 512 : 4096; /* a team's or a CPU thread's share */
    if (hi > (lw->caps->simt ? size : 2 * size)) {
      zn_expr parts = zn_ex_ceildiv(ex, extent[0], zn_ex_const(ex, size));
      zn_expr p;
      zn_lw_grid(lw, 1, &parts, &p);
      zn_expr base = zn_ex_muli(ex, p, size);
      chunk = zn_ex_min(ex, zn_ex_const(ex, size), zn_ex_sub(ex, extent[0], base));
      if (zn_ex_is_const(ex, extent[0], &lo) && lo % size == 0) chunk = zn_ex_const(ex, size);
      zn_expr i = zn_lw_for(lw, chunk, ZN_FOR_VECTOR, width);
      zn_kref flat = zn_lw_ix(lw, zn_ex_add(ex, base, i)); /* one variable: axes taken apart and joined again are it */
      var[0] = zn_lw_as_expr(lw, flat, extent[0]);
    }
  }
  if (!chunk) {
    if (loops > 1) zn_lw_grid(lw, (uint32_t)last, extent, var);
    if (loops > 0) var[last] = zn_lw_for(lw, extent[last], ZN_FOR_VECTOR, width);
  }
  for (int j = 0; j < loops; j++) {
    zn_expr rest = var[j];
    for (int d = first[j + 1] - 1; d > first[j]; d--) {
      idx[d] = zn_ex_mod(ex, rest, t.dims[d]);
      rest = zn_ex_div(ex, rest, t.dims[d]);
    }
    idx[first[j]] = rest;
  }
  zn_kref k;
  if (!val->cst && zn_value_known(val)) {
    k = zn_lw_load(lw, v, idx);
  } else {
    k = zn_lower_of(node->op)->point(lw, n, val->def_out, idx);
  }
  zn_lw_store(lw, v, idx, k);
  if (loops > 0) zn_lw_end(lw);
  if (chunk || loops > 1) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

const zn_lower zn_lower_map = {map_point, NULL};

static zn_kref identity_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  return zn_lw_load(lw, zn_lw_node(lw, n)->in[0], idx);
}
const zn_lower zn_lower_identity = {identity_point, NULL};

const zn_lower zn_lower_none = {NULL, NULL};
