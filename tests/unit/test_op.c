/* Every schema row and every scalar row parses and is consistent; lookups, defaults, type sets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

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
      for (int t = 1; t < ZN_DTYPE_COUNT; t++) allowed += zn_schema_allows(s, s->in[k].type, (zn_dtype)t);
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

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_schema),
                                     cmocka_unit_test(test_scalar)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
