/* Derivatives of elementwise operators, from the formulas of scalar.def: the tree is walked back like a graph. A branch that was
 * not taken may have an infinite derivative, so the condition is applied to the finished product, not to the factor in front. */
#include <math.h>

#include "zenithc/ops/grad.h"

typedef struct formula {
  zn_grad *a;
  const zn_vid *in; /* operands, in the type that is computed in; 0 = absent */
  uint32_t num_in;
  const uint32_t *number; /* of the node's input behind each operand; UINT32_MAX: a result so far */
  zn_vid *so_far;         /* adjoint of the result so far (variadic operators) */
  zn_dtype t;
} formula;

static zn_vid num(formula *f, double v) { return zn_rw_num(&f->a->w, f->t, v); }
static zn_vid op1(formula *f, zn_op op, zn_vid x) { return zn_rw1(&f->a->w, op, x); }
static zn_vid op2(formula *f, zn_op op, zn_vid x, zn_vid y) { return zn_rw2(&f->a->w, op, x, y); }
static zn_vid mul(formula *f, zn_vid x, zn_vid y) { return op2(f, ZN_OP_Mul, x, y); }
static zn_vid div_by(formula *f, zn_vid x, zn_vid y) { return op2(f, ZN_OP_Div, x, y); }
static zn_vid add(formula *f, zn_vid x, zn_vid y) { return op2(f, ZN_OP_Add, x, y); }
static zn_vid sub(formula *f, zn_vid x, zn_vid y) { return op2(f, ZN_OP_Sub, x, y); }
static zn_vid where(formula *f, zn_vid c, zn_vid x, zn_vid y) { return zn_rw3(&f->a->w, ZN_OP_Where, c, x, y); }

static bool is_call(const zn_sc *s, const char *name) { return s->kind == ZN_SC_CALL && !strcmp(s->name, name); }

/* Conditions that attributes decide. */
static bool decided(const formula *f, const zn_sc *s, bool *out) {
  const zn_node *n = zn_grad_node(f->a);
  if (is_call(s, "streq")) {
    *out = !strcmp(zn_node_str(n, s->arg[0]->name), s->arg[1]->name);
    return true;
  }
  if (s->kind != ZN_SC_ATTR) return false;
  *out = zn_node_int(n, s->name) != 0;
  return true;
}

static double attribute(const formula *f, const char *name) {
  const zn_schema_attr *known = zn_schema_find_attr(zn_op_schema(zn_grad_node(f->a)->op), name);
  return known->kind == ZN_A_INT ? (double)zn_node_int(zn_grad_node(f->a), name) : zn_node_float(zn_grad_node(f->a), name);
}

static zn_vid value(formula *f, const zn_sc *s);

/* log(1 + x) where 1 + x rounds: the error of the sum is divided out (Kahan). */
static zn_vid log1p_of(formula *f, zn_vid x) {
  const zn_vid one = num(f, 1), u = add(f, one, x), d = sub(f, u, one);
  const zn_vid tiny = op2(f, ZN_OP_Equal, d, num(f, 0));
  const zn_vid by = where(f, tiny, one, d), r = div_by(f, mul(f, x, op1(f, ZN_OP_Log, u)), by);
  return where(f, tiny, x, r);
}

static const struct {
  const char *name;
  zn_op op;
} same_op[] = {{"add", ZN_OP_Add},     {"sub", ZN_OP_Sub},     {"mul", ZN_OP_Mul},         {"div", ZN_OP_Div},
               {"pow", ZN_OP_Pow},     {"lt", ZN_OP_Less},     {"le", ZN_OP_LessOrEqual},  {"gt", ZN_OP_Greater},
               {"ge", ZN_OP_GreaterOrEqual}, {"eq", ZN_OP_Equal}, {"and", ZN_OP_And},      {"or", ZN_OP_Or},
               {"not", ZN_OP_Not},     {"neg", ZN_OP_Neg},     {"abs", ZN_OP_Abs},         {"sqrt", ZN_OP_Sqrt},
               {"floor", ZN_OP_Floor}, {"ceil", ZN_OP_Ceil},   {"rint", ZN_OP_Round},      {"exp", ZN_OP_Exp},
               {"log", ZN_OP_Log},     {"sin", ZN_OP_Sin},     {"cos", ZN_OP_Cos},         {"tan", ZN_OP_Tan},
               {"asin", ZN_OP_Asin},   {"acos", ZN_OP_Acos},   {"atan", ZN_OP_Atan},       {"sinh", ZN_OP_Sinh},
               {"cosh", ZN_OP_Cosh},   {"tanh", ZN_OP_Tanh},   {"asinh", ZN_OP_Asinh},     {"acosh", ZN_OP_Acosh},
               {"atanh", ZN_OP_Atanh}, {"erf", ZN_OP_Erf},     {"sigmoid", ZN_OP_Sigmoid}, {"isnan", ZN_OP_IsNaN},
               {"isinf", ZN_OP_IsInf}, {"sign", ZN_OP_Sign}};

static zn_vid truncated(formula *f, zn_vid x) {
  const zn_vid negative = op2(f, ZN_OP_Less, x, num(f, 0)), up = op1(f, ZN_OP_Ceil, x), down = op1(f, ZN_OP_Floor, x);
  return where(f, negative, up, down);
}

static zn_vid call_value(formula *f, const zn_sc *s) {
  bool yes;
  if (is_call(s, "select") && decided(f, s->arg[0], &yes)) return value(f, s->arg[yes ? 1 : 2]);
  zn_vid x[3] = {0};
  for (uint32_t k = 0; k < s->num_args; k++) x[k] = value(f, s->arg[k]);
  for (size_t k = 0; k < sizeof same_op / sizeof *same_op; k++)
    if (!strcmp(same_op[k].name, s->name)) return zn_rw_op(&f->a->w, same_op[k].op, x, s->num_args);
  if (is_call(s, "select")) return where(f, x[0], x[1], x[2]);
  if (is_call(s, "min")) return where(f, op2(f, ZN_OP_Less, x[0], x[1]), x[0], x[1]);
  if (is_call(s, "max")) return where(f, op2(f, ZN_OP_Greater, x[0], x[1]), x[0], x[1]);
  if (is_call(s, "ne")) return op1(f, ZN_OP_Not, op2(f, ZN_OP_Equal, x[0], x[1]));
  if (is_call(s, "log1p")) return log1p_of(f, x[0]);
  if (is_call(s, "expm1")) {
    const zn_vid one = num(f, 1);
    return sub(f, op1(f, ZN_OP_Exp, x[0]), one);
  }
  if (is_call(s, "trunc")) return truncated(f, x[0]);
  if (is_call(s, "fmod")) return sub(f, x[0], mul(f, x[1], truncated(f, div_by(f, x[0], x[1]))));
  zn_grad_refuse(f->a, "its formula uses %s, which has no derivative", s->name);
  return x[0];
}

static zn_vid value(formula *f, const zn_sc *s) {
  if (f->a->w.st != ZN_OK || f->a->failed) return 0;
  switch (s->kind) {
  case ZN_SC_NUM: return num(f, s->num);
  case ZN_SC_ATTR: return num(f, attribute(f, s->name));
  case ZN_SC_CALL: return call_value(f, s);
  default: break;
  }
  if (s->index < f->num_in && f->in[s->index]) return f->in[s->index];
  const double limit = HUGE_VAL; /* absent bounds of Clip: min is input 1 */
  return num(f, s->index == 1 ? -limit : limit);
}

static bool varies(const formula *f, const zn_sc *s) {
  if (s->kind == ZN_SC_CALL)
    for (uint32_t k = 0; k < s->num_args; k++)
      if (varies(f, s->arg[k])) return true;
  if (s->kind != ZN_SC_IN || s->index >= f->num_in || !f->in[s->index]) return false;
  return f->number[s->index] == UINT32_MAX || zn_grad_wants(f->a, f->number[s->index]);
}

/* The factor d(function)/d(argument) of functions of one argument, x: the argument; s: the call. 0: it is zero everywhere. */
static zn_vid slope(formula *f, const zn_sc *s, zn_vid x) {
  const zn_vid one = num(f, 1);
  const char *n = s->name;
  if (!strcmp(n, "neg")) return num(f, -1);
  if (!strcmp(n, "abs")) return op1(f, ZN_OP_Sign, x);
  if (!strcmp(n, "exp") || !strcmp(n, "expm1")) return op1(f, ZN_OP_Exp, x);
  if (!strcmp(n, "log")) return op1(f, ZN_OP_Reciprocal, x);
  if (!strcmp(n, "log1p")) return op1(f, ZN_OP_Reciprocal, add(f, one, x));
  if (!strcmp(n, "sqrt")) {
    const zn_vid half = num(f, 0.5);
    return div_by(f, half, op1(f, ZN_OP_Sqrt, x));
  }
  if (!strcmp(n, "sin")) return op1(f, ZN_OP_Cos, x);
  if (!strcmp(n, "cos")) return op1(f, ZN_OP_Neg, op1(f, ZN_OP_Sin, x));
  if (!strcmp(n, "tan")) {
    const zn_vid c = op1(f, ZN_OP_Cos, x);
    return op1(f, ZN_OP_Reciprocal, mul(f, c, c));
  }
  if (!strcmp(n, "sinh")) return op1(f, ZN_OP_Cosh, x);
  if (!strcmp(n, "cosh")) return op1(f, ZN_OP_Sinh, x);
  if (!strcmp(n, "tanh")) { /* 1 / cosh(x)^2, without the cancellation of 1 - tanh(x)^2 */
    const zn_vid c = op1(f, ZN_OP_Reciprocal, op1(f, ZN_OP_Cosh, x));
    return mul(f, c, c);
  }
  if (!strcmp(n, "sigmoid")) {
    const zn_vid y = op1(f, ZN_OP_Sigmoid, x);
    return mul(f, y, op1(f, ZN_OP_Sigmoid, op1(f, ZN_OP_Neg, x)));
  }
  if (!strcmp(n, "erf")) {
    const zn_vid bell = op1(f, ZN_OP_Exp, op1(f, ZN_OP_Neg, mul(f, x, x)));
    return mul(f, bell, num(f, 1.12837916709551257390));
  }
  if (!strcmp(n, "atan")) return op1(f, ZN_OP_Reciprocal, add(f, one, mul(f, x, x)));
  if (!strcmp(n, "asinh")) return op1(f, ZN_OP_Reciprocal, op1(f, ZN_OP_Sqrt, add(f, one, mul(f, x, x))));
  const zn_vid below = sub(f, one, x), apart = mul(f, below, add(f, one, x)); /* 1 - x^2 */
  if (!strcmp(n, "atanh")) return op1(f, ZN_OP_Reciprocal, apart);
  if (!strcmp(n, "asin")) return op1(f, ZN_OP_Reciprocal, op1(f, ZN_OP_Sqrt, apart));
  if (!strcmp(n, "acos")) return op1(f, ZN_OP_Neg, op1(f, ZN_OP_Reciprocal, op1(f, ZN_OP_Sqrt, apart)));
  if (!strcmp(n, "acosh")) return op1(f, ZN_OP_Reciprocal, op1(f, ZN_OP_Sqrt, op1(f, ZN_OP_Neg, apart)));
  return 0; /* floor, ceil, rint, trunc, sign and predicates */
}

/* g: adjoint of s; mask: where it counts, 0 = everywhere. */
static void back(formula *f, const zn_sc *s, zn_vid g, zn_vid mask);

static zn_vid both(formula *f, zn_vid mask, zn_vid c) { return mask ? op2(f, ZN_OP_And, mask, c) : c; }

static void back_extreme(formula *f, const zn_sc *s, zn_vid g, zn_vid mask, bool max) {
  const zn_vid x = value(f, s->arg[0]), y = value(f, s->arg[1]);
  const zn_vid equal = op2(f, ZN_OP_Equal, x, y), half = num(f, 0.5), one = num(f, 1);
  const zn_vid share = mul(f, g, where(f, equal, half, one));
  const zn_op order = max ? ZN_OP_GreaterOrEqual : ZN_OP_LessOrEqual;
  if (varies(f, s->arg[0])) back(f, s->arg[0], share, both(f, mask, op2(f, order, x, y)));
  if (varies(f, s->arg[1])) back(f, s->arg[1], share, both(f, mask, op2(f, order, y, x)));
}

/* x^y: y x^(y-1), 0 for y = 0; x^y log x, 0 for x = 0. */
static void back_pow(formula *f, const zn_sc *s, zn_vid g, zn_vid mask) {
  const zn_vid x = value(f, s->arg[0]), y = value(f, s->arg[1]), zero = num(f, 0);
  if (varies(f, s->arg[0])) {
    const zn_vid some = both(f, mask, op1(f, ZN_OP_Not, op2(f, ZN_OP_Equal, y, zero)));
    const zn_vid d = mul(f, y, op2(f, ZN_OP_Pow, x, sub(f, y, num(f, 1))));
    back(f, s->arg[0], mul(f, g, d), some);
  }
  if (!varies(f, s->arg[1])) return;
  const zn_vid some = both(f, mask, op1(f, ZN_OP_Not, op2(f, ZN_OP_Equal, x, zero)));
  const zn_vid power = op2(f, ZN_OP_Pow, x, y);
  back(f, s->arg[1], mul(f, g, mul(f, power, op1(f, ZN_OP_Log, x))), some);
}

static void back_select(formula *f, const zn_sc *s, zn_vid g, zn_vid mask) {
  bool yes;
  if (decided(f, s->arg[0], &yes)) {
    back(f, s->arg[yes ? 1 : 2], g, mask);
    return;
  }
  const zn_vid c = value(f, s->arg[0]);
  back(f, s->arg[1], g, both(f, mask, c));
  back(f, s->arg[2], g, both(f, mask, op1(f, ZN_OP_Not, c)));
}

static void back_call(formula *f, const zn_sc *s, zn_vid g, zn_vid mask) {
  const zn_sc *l = s->arg[0], *r = s->arg[1];
  if (is_call(s, "select")) back_select(f, s, g, mask);
  else if (is_call(s, "min") || is_call(s, "max")) back_extreme(f, s, g, mask, s->name[1] == 'a');
  else if (is_call(s, "pow")) back_pow(f, s, g, mask);
  else if (is_call(s, "add") || is_call(s, "sub")) {
    back(f, l, g, mask);
    if (varies(f, r)) back(f, r, s->name[0] == 's' ? op1(f, ZN_OP_Neg, g) : g, mask);
  } else if (is_call(s, "mul")) {
    if (varies(f, l)) back(f, l, mul(f, g, value(f, r)), mask);
    if (varies(f, r)) back(f, r, mul(f, g, value(f, l)), mask);
  } else if (is_call(s, "div")) {
    const zn_vid y = value(f, r);
    back(f, l, div_by(f, g, y), mask);
    if (!varies(f, r)) return;
    const zn_vid quotient = div_by(f, value(f, l), y);
    back(f, r, op1(f, ZN_OP_Neg, mul(f, div_by(f, g, y), quotient)), mask);
  } else if (is_call(s, "fmod") || is_call(s, "mod")) {
    back(f, l, g, mask);
    const zn_vid x = value(f, l), q = div_by(f, x, value(f, r));
    const zn_vid whole = s->name[0] == 'f' ? truncated(f, q) : op1(f, ZN_OP_Floor, q);
    if (varies(f, r)) back(f, r, op1(f, ZN_OP_Neg, mul(f, g, whole)), mask);
  } else if (s->num_args == 1) {
    const zn_vid d = slope(f, s, value(f, l));
    if (d) back(f, l, mul(f, g, d), mask);
  }
}

static void back(formula *f, const zn_sc *s, zn_vid g, zn_vid mask) {
  if (f->a->w.st != ZN_OK || f->a->failed || !varies(f, s)) return;
  if (s->kind == ZN_SC_CALL) {
    back_call(f, s, g, mask);
    return;
  }
  if (mask) g = where(f, mask, g, num(f, 0));
  if (f->number[s->index] != UINT32_MAX) zn_grad_give(f->a, f->number[s->index], g);
  else *f->so_far = *f->so_far ? add(f, *f->so_far, g) : g;
}

/* Max, Min, Sum, Mean: the steps over the inputs, from the last one back. */
static void back_variadic(formula *f, const zn_sc *s, zn_vid g) {
  zn_grad *a = f->a;
  const uint32_t n = zn_grad_node(a)->num_in;
  zn_vid *part = ZN_ARRAY(&a->w.c->tmp, zn_vid, n), *in = ZN_ARRAY(&a->w.c->tmp, zn_vid, n);
  for (uint32_t i = 0; i < n; i++) in[i] = zn_rw_cast(&a->w, zn_grad_in(a, i), f->t);
  if (zn_grad_node(a)->op == ZN_OP_Mean) g = div_by(f, g, num(f, n));
  zn_vid pair[2], so_far = 0;
  uint32_t number[2];
  formula step = {a, pair, 2, number, &so_far, f->t};
  part[0] = in[0];
  for (uint32_t i = 1; i + 1 < n; i++) {
    pair[0] = part[i - 1], pair[1] = in[i];
    part[i] = value(&step, s);
  }
  for (uint32_t i = n; i-- > 1 && a->w.st == ZN_OK; g = so_far) {
    pair[0] = part[i - 1], pair[1] = in[i];
    number[0] = i == 1 ? 0 : UINT32_MAX, number[1] = i;
    so_far = 0;
    back(&step, s, g, 0);
    if (i > 1 && so_far) so_far = zn_grad_sum_to(a, so_far, pair[0]);
    if (i > 1 && !so_far) return;
  }
  if (n == 1) zn_grad_give(a, 0, g);
}

void zn_grad_scalar(zn_grad *a) {
  const zn_node *n = zn_grad_node(a);
  const zn_sc *s = zn_scalar_expr(n->op);
  const zn_dtype t = zn_rw_wide((zn_dtype)zn_grad_type(a, n->out[0])->dtype);
  zn_vid in[4] = {0};
  static const uint32_t number[4] = {0, 1, 2, 3};
  formula f = {a, in, 4, number, NULL, t};
  const zn_vid g = zn_rw_cast(&a->w, zn_grad_of(a, 0), t);
  if (zn_op_schema(n->op)->in[0].variadic) {
    back_variadic(&f, s, g);
    return;
  }
  for (uint32_t i = 0; i < 4; i++) {
    const zn_vid v = zn_grad_in(a, i);
    if (v) in[i] = zn_grad_type(a, v)->dtype == ZN_BOOL ? v : zn_rw_cast(&a->w, v, t);
  }
  back(&f, s, g, 0);
}

/* 0 at 0, as every framework has it. */
void zn_grad_relu(zn_grad *a) {
  const zn_vid x = zn_grad_in(a, 0), zero = zn_rw_num(&a->w, (zn_dtype)zn_grad_type(a, x)->dtype, 0);
  zn_grad_give(a, 0, zn_rw3(&a->w, ZN_OP_Where, zn_rw2(&a->w, ZN_OP_Greater, x, zero), zn_grad_of(a, 0), zero));
}
