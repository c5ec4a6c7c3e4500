/* Every schema row and every scalar row parses and is consistent; lookups, defaults, type sets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "zenithc/ops/op.h"

static void test_rows(void **state) {
  (void)state;
  for (int i = 1; i < ZN_OP_COUNT; i++) {
    zn_op op = (zn_op)i;
    const zn_schema *s = zn_op_schema(op);
    assert_int_equal(zn_op_find(zn_ops[op].domain, zn_ops[op].name), op);
    assert_true(s->min_in <= s->max_in && s->min_out <= s->max_out && s->num_out > 0);
    for (uint32_t k = 0; k < s->num_in; k++) {
      assert_true(s->in[k].name[0] && s->in[k].type[0]);
      assert_true(!s->in[k].variadic || k + 1 == s->num_in);
      unsigned allowed = 0;
      for (int t = 1; t < ZN_DTYPE_COUNT; t++)
        allowed += zn_schema_allows(s, s->in[k].type, (zn_dtype)t);
      if (!allowed) print_message("%s: type '%s' allows nothing\n", zn_ops[op].name, s->in[k].type);
      assert_true(allowed > 0);
    }
    for (uint32_t k = 0; k < s->num_attrs; k++) {
      assert_ptr_equal(zn_schema_find_attr(s, s->attrs[k].name), &s->attrs[k]);
      assert_false(s->attrs[k].required && s->attrs[k].has_default);
    }
    bool elementwise = (zn_ops[op].flags & ZN_OPF_EW) != 0;
    if (elementwise != (zn_scalar_expr(op) != NULL)) print_message("%s\n", zn_ops[op].name);
    assert_int_equal(elementwise, zn_scalar_expr(op) != NULL);
  }
}

static void test_schema(void **state) {
  (void)state;
  const zn_schema *s = zn_op_schema(ZN_OP_Conv);
  assert_int_equal(s->num_in, 3);
  assert_int_equal(s->min_in, 2);
  assert_int_equal(s->max_in, 3);
  assert_true(s->in[2].optional);
  assert_int_equal(zn_schema_find_attr(s, "group")->def.u.i, 1);
  assert_string_equal(zn_schema_find_attr(s, "auto_pad")->def.u.s.ptr, "NOTSET");
  assert_false(zn_schema_find_attr(s, "pads")->has_default);
  assert_null(zn_schema_find_attr(s, "nothing"));
  assert_true(zn_schema_allows(s, "T", ZN_F16));
  assert_false(zn_schema_allows(s, "T", ZN_I32));
  s = zn_op_schema(ZN_OP_MeanVarianceNormalization);
  const zn_attr *d = &zn_schema_find_attr(s, "axes")->def;
  assert_true(d->n == 3 && d->u.is[0] == 0 && d->u.is[1] == 2 && d->u.is[2] == 3);
  s = zn_op_schema(ZN_OP_Max);
  assert_int_equal(s->min_in, 1);
  assert_int_equal(s->max_in, UINT32_MAX);
  assert_true(zn_schema_allows(zn_op_schema(ZN_OP_Cast), "T2", ZN_STR));
  assert_true(zn_schema_allows(zn_op_schema(ZN_OP_DynamicQuantizeLinear), "f32", ZN_F32));
  assert_false(zn_schema_allows(zn_op_schema(ZN_OP_DynamicQuantizeLinear), "f32", ZN_F64));
  assert_int_equal(zn_op_find("ai.onnx", "Conv"), ZN_OP_Conv);
  assert_int_equal(zn_op_find("", "Konv"), ZN_OP_NONE);
  assert_int_equal(zn_op_find("com.microsoft", "Conv"), ZN_OP_NONE);
}

static void render(const zn_sc *s, zn_text *t) {
  switch (s->kind) {
    case ZN_SC_NUM: zn_text_double(t, s->num); break;
    case ZN_SC_IN: zn_text_printf(t, "#%u", s->index); break;
    case ZN_SC_ATTR: zn_text_puts(t, s->name); break;
    case ZN_SC_CALL:
      zn_text_printf(t, "%s(", s->name);
      for (uint32_t i = 0; i < s->num_args; i++) {
        if (i) zn_text_puts(t, ",");
        render(s->arg[i], t);
      }
      zn_text_puts(t, ")");
  }
}

static void test_scalar(void **state) {
  (void)state;
  const struct {
    zn_op op;
    const char *tree;
  } rows[] = {{ZN_OP_Add, "add(#0,#1)"},
              {ZN_OP_Clip, "min(#2,max(#1,#0))"},
              {ZN_OP_Elu, "select(lt(#0,0),mul(alpha,expm1(#0)),#0)"},
              {ZN_OP_Mod, "select(fmod,fmod(#0,#1),mod(#0,#1))"},
              {ZN_OP_Max, "select(isnan(#0),#0,max(#0,#1))"},
              {ZN_OP_Shrink,
               "select(lt(#0,neg(lambd)),add(#0,bias),select(gt(#0,lambd),sub(#0,bias),0))"},
              {ZN_OP_BitShift, "select(streq(direction,LEFT),shl(#0,#1),shr(#0,#1))"},
              {ZN_OP_Softsign, "div(#0,add(1,abs(#0)))"}};
  zn_arena a;
  zn_arena_init(&a, "t");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    zn_text t;
    zn_text_init(&t, &a);
    render(zn_scalar_expr(rows[i].op), &t);
    assert_string_equal(t.s, rows[i].tree);
  }
  assert_null(zn_scalar_expr(ZN_OP_Conv));
  zn_arena_reset(&a);
}

/* The rows on doubles, with min, max and select as the kernel IR has them. */
static double value(zn_op op, const zn_sc *s, const double *in) {
  if (s->kind == ZN_SC_NUM) return s->num;
  if (s->kind == ZN_SC_IN) return in[s->index];
  if (s->kind == ZN_SC_ATTR) {
    const zn_schema_attr *a = zn_schema_find_attr(zn_op_schema(op), s->name);
    return a->kind == ZN_A_INT ? (double)a->def.u.i : a->def.u.f;
  }
  const char *f = s->name;
  if (!strcmp(f, "streq"))
    return !strcmp(zn_schema_find_attr(zn_op_schema(op), s->arg[0]->name)->def.u.s.ptr,
                   s->arg[1]->name);
  double a = value(op, s->arg[0], in), b = s->num_args > 1 ? value(op, s->arg[1], in) : 0;
  if (!strcmp(f, "select")) return a != 0 ? b : value(op, s->arg[2], in);
  static const struct {
    const char *name;
    double (*fn)(double);
  } unary[] = {{"abs", fabs},   {"exp", exp}, {"log1p", log1p}, {"expm1", expm1},
               {"tanh", tanh}, {"erf", erf}, {"rint", rint}};
  for (size_t i = 0; i < sizeof unary / sizeof *unary; i++)
    if (!strcmp(unary[i].name, f)) return unary[i].fn(a);
  if (!strcmp(f, "sigmoid")) return 1 / (1 + exp(-a));
  if (!strcmp(f, "neg")) return -a;
  if (!strcmp(f, "isnan")) return isnan(a);
  if (!strcmp(f, "isinf")) return isinf(a) != 0;
  if (!strcmp(f, "add")) return a + b;
  if (!strcmp(f, "sub")) return a - b;
  if (!strcmp(f, "mul")) return a * b;
  if (!strcmp(f, "div")) return a / b;
  if (!strcmp(f, "min")) return a < b ? a : b;
  if (!strcmp(f, "max")) return a > b ? a : b;
  if (!strcmp(f, "lt")) return a < b;
  if (!strcmp(f, "gt")) return a > b;
  if (!strcmp(f, "ne")) return a != b;
  if (!strcmp(f, "and")) return a != 0 && b != 0;
  if (!strcmp(f, "or")) return a != 0 || b != 0;
  fail_msg("function %s", f);
  return 0;
}

static void test_meaning(void **state) {
  (void)state;
  const double inf = INFINITY, none = NAN;
  const struct {
    zn_op op;
    double in[3], out;
  } rows[] = {{ZN_OP_Relu, {-1}, 0},
              {ZN_OP_Relu, {none}, none},
              {ZN_OP_Clip, {5, 0, 1}, 1},
              {ZN_OP_Clip, {5, 3, 1}, 1},
              {ZN_OP_Clip, {-7, -inf, inf}, -7},
              {ZN_OP_Clip, {none, 0, 1}, none},
              {ZN_OP_Max, {none, 1}, none},
              {ZN_OP_Max, {1, none}, none},
              {ZN_OP_Max, {1, 2}, 2},
              {ZN_OP_Min, {none, 1}, none},
              {ZN_OP_Min, {1, none}, none},
              {ZN_OP_Min, {1, 2}, 1},
              {ZN_OP_Softplus, {1000}, 1000},
              {ZN_OP_Softplus, {-1000}, 0},
              {ZN_OP_Softplus, {0}, 0.6931471805599453},
              {ZN_OP_Softplus, {none}, none},
              {ZN_OP_Mish, {1}, 0.8650983882673103},
              {ZN_OP_Mish, {50}, 50},
              {ZN_OP_Elu, {-inf}, -1},
              {ZN_OP_Elu, {2}, 2},
              {ZN_OP_Elu, {none}, none},
              {ZN_OP_Celu, {1000}, 1000},
              {ZN_OP_Celu, {-1}, -0.6321205588285577},
              {ZN_OP_Celu, {none}, none},
              {ZN_OP_Selu, {1}, 1.05070102},
              {ZN_OP_Selu, {-inf}, -1.7580993},
              {ZN_OP_Selu, {none}, none},
              {ZN_OP_Gelu, {1}, 0.8413447460685429},
              {ZN_OP_Gelu, {-40}, 0},
              {ZN_OP_HardSigmoid, {0}, 0.5},
              {ZN_OP_HardSigmoid, {none}, none},
              {ZN_OP_HardSwish, {-4}, 0},
              {ZN_OP_HardSwish, {1}, 2.0 / 3},
              {ZN_OP_HardSwish, {none}, none},
              {ZN_OP_LeakyRelu, {-1}, -0.00999999978},
              {ZN_OP_LeakyRelu, {none}, none},
              {ZN_OP_PRelu, {-2, 3}, -6},
              {ZN_OP_ThresholdedRelu, {1}, 0},
              {ZN_OP_ThresholdedRelu, {1.5}, 1.5},
              {ZN_OP_Shrink, {-0.6}, -0.6},
              {ZN_OP_Shrink, {0.4}, 0},
              {ZN_OP_Round, {2.5}, 2},
              {ZN_OP_Round, {-3.5}, -4},
              {ZN_OP_IsInf, {-inf}, 1},
              {ZN_OP_IsInf, {3}, 0},
              {ZN_OP_IsInf, {none}, 0},
              {ZN_OP_IsNaN, {none}, 1},
              {ZN_OP_Swish, {1}, 0.7310585786300049},
              {ZN_OP_Softsign, {-3}, -0.75},
              {ZN_OP_Where, {1, 2, 3}, 2},
              {ZN_OP_Where, {0, 2, 3}, 3},
              {ZN_OP_Reciprocal, {4}, 0.25}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    double got = value(rows[i].op, zn_scalar_expr(rows[i].op), rows[i].in), want = rows[i].out;
    bool same = isnan(want) ? isnan(got) : fabs(got - want) <= 1e-7 * fabs(want);
    if (!same)
      print_message("%s(%g) = %g, want %g\n", zn_op_name(rows[i].op), rows[i].in[0], got, want);
    assert_true(same);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_schema),
                                     cmocka_unit_test(test_scalar), cmocka_unit_test(test_meaning)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
