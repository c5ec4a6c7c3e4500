/* kclean: what moves, joins and disappears, as text; and that the result computes the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "codegen/kir/kir.h"

static zn_kmod *parse(zn_ctx *c, const char *src) {
  zn_kmod *m = NULL;
  assert_int_equal(zn_kmod_parse(c, &c->graph, src, strlen(src), NULL, &m), ZN_OK);
  assert_int_equal(zn_kmod_verify(c, m), ZN_OK);
  return m;
}

static void expect(const char *before, const char *after) {
  zn_ctx c;
  zn_ctx_init(&c);
  zn_kmod *m = parse(&c, before);
  assert_int_equal(zn_kpass_clean(&c, m), ZN_OK);
  zn_text t, want;
  zn_text_init(&t, &c.graph);
  zn_kfunc_print(m, m->funcs[0], &t);
  zn_text_init(&want, &c.graph);
  zn_kmod *w = parse(&c, after);
  zn_kfunc_print(w, w->funcs[0], &want);
  assert_string_equal(t.s, want.s);
  assert_int_equal(zn_kpass_clean(&c, m), ZN_OK); /* nothing is left to do */
  zn_text again;
  zn_text_init(&again, &c.graph);
  zn_kfunc_print(m, m->funcs[0], &again);
  assert_string_equal(again.s, want.s);
  zn_ctx_fini(&c);
}

#define HEAD "module m kernel k(x in f32, y out f32, n int idx) {\n"

static void test_hoist_and_join(void **state) {
  (void)state;
  expect(HEAD
         "%1 = param.ptr 0 %2 = param.ptr 1 %3 = param.idx 2 %4 = const.idx 0 %5 = const.idx 0\n"
         "%6 = for %4, %3, 1 grid {\n"
         "  %7 = for %5, %3, 1 serial {\n"
         "    %8 = const.idx 4 %9 = mul.idx %3, %8 %10 = mul.idx %8, %3\n" /* out of both */
         "    %11 = mul.idx %6, %9 %12 = add.idx %11, %7\n"    /* out of the inner one */
         "    %13 = load.f32 %1[%12] %14 = load.f32 %1[%12]\n" /* one load */
         "    %15 = add.f32 %13, %14 %16 = add.f32 %14, %13\n"
         "    store.f32 %2[%12], %15 %17 = load.f32 %1[%12] store.f32 %2[%12], %17\n" /* not past a
                                                                                         store */
         "    %18 = div.idx %10, %9 %19 = neg.idx %18\n"                              /* dead */
         "  } } }\n",
         HEAD
         "%1 = param.ptr 0 %2 = param.ptr 1 %3 = param.idx 2 %4 = const.idx 0\n"
         "%8 = const.idx 4 %9 = mul.idx %3, %8\n"
         "%6 = for %4, %3, 1 grid {\n"
         "  %11 = mul.idx %9, %6\n"
         "  %7 = for %4, %3, 1 serial {\n"
         "    %12 = add.idx %11, %7 %13 = load.f32 %1[%12] %15 = add.f32 %13, %13\n"
         "    store.f32 %2[%12], %15 %17 = load.f32 %1[%12] store.f32 %2[%12], %17\n"
         "  } } }\n");
}

static void test_dead_variables_and_regions(void **state) {
  (void)state;
  expect(HEAD
         "%1 = param.ptr 1 %2 = param.idx 2 %3 = const.idx 0 %4 = const.f32 1\n"
         "%5 = var.f32 %4 %6 = var.f32 %4\n"
         "%7 = for %3, %2, 1 serial { set.f32 %5, %4 %8 = get.f32 %6 %9 = add.f32 %8, %8 set.f32 "
         "%6, %9\n"
         "  %10 = lt.bool %7, %2 if %10 { set.f32 %5, %4 } else { set.f32 %6, %4 }\n"
         "  if %10 { %11 = get.f32 %5 } else { } }\n"
         "loop { %12 = const.bool 1 break %12 }\n"
         "%13 = get.f32 %6 store.f32 %1[%3], %13 }\n",
         HEAD
         "%1 = param.ptr 1 %2 = param.idx 2 %3 = const.idx 0 %4 = const.f32 1\n"
         "%6 = var.f32 %4\n"
         "%7 = for %3, %2, 1 serial { %8 = get.f32 %6 %9 = add.f32 %8, %8 set.f32 %6, %9\n"
         "  %10 = lt.bool %7, %2 if %10 { } else { set.f32 %6, %4 } }\n"
         "%13 = get.f32 %6 store.f32 %1[%3], %13 }\n");
}

static void test_scopes(void **state) {
  (void)state; /* a value of the then branch is not shared with the else branch; costly work does
                  not leave an if */
  expect(
      HEAD
      "%1 = param.ptr 1 %2 = param.idx 2 %3 = const.idx 0 %4 = lt.bool %3, %2\n"
      "loop { if %4 { %5 = div.idx %2, %2 store.idx %1[%3], %5 } else { %6 = div.idx %2, %2 "
      "store.idx %1[%2], %6 }\n"
      "  %7 = add.idx %2, %2 store.idx %1[%3], %7 break %4 } }\n",
      HEAD
      "%1 = param.ptr 1 %2 = param.idx 2 %3 = const.idx 0 %4 = lt.bool %3, %2 %7 = add.idx %2, %2\n"
      "loop { if %4 { %5 = div.idx %2, %2 store.idx %1[%3], %5 } else { %6 = div.idx %2, %2 "
      "store.idx %1[%2], %6 }\n"
      "  store.idx %1[%3], %7 break %4 } }\n");
}

static void test_same_result(void **state) {
  (void)state;
  zn_ctx c;
  zn_ctx_init(&c);
  zn_kmod *m = parse(
      &c, HEAD
      "%1 = param.ptr 0 %2 = param.ptr 1 %3 = param.idx 2 %4 = const.idx 0\n"
      "%5 = for %4, %3, 1 grid { %6 = const.f32 0 %7 = var.f32 %6\n"
      "  %8 = for %4, %3, 1 serial { %9 = const.idx 3 %10 = rem.idx %8, %9 %11 = eq.bool %10, %4\n"
      "    %12 = load.f32 %1[%8] %13 = get.f32 %7 %14 = add.f32 %13, %12\n"
      "    if %11 { set.f32 %7, %14 } else { %15 = sub.f32 %13, %12 set.f32 %7, %15 }\n"
      "    %16 = get.f32 %7 store.f32 %2[%5], %16 } } }");
  float x[7] = {1, 2, 3, 4, 5, 6, 7}, y[2][7];
  int64_t n = 7;
  for (int k = 0; k < 2; k++) {
    void *bufs[2] = {x, y[k]};
    uint64_t bytes[2] = {sizeof x, sizeof y[k]};
    zn_interp_opts o = {.check_bounds = true};
    assert_int_equal(zn_interp_kernel(&c, m, 0, bufs, bytes, &n, &o), 0);
    assert_int_equal(zn_kpass_clean(&c, m), ZN_OK);
  }
  assert_true(y[0][0] == 1 - 2 - 3 + 4 - 5 - 6 + 7);
  assert_memory_equal(y[0], y[1], sizeof y[0]);
  zn_ctx_fini(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_hoist_and_join),
      cmocka_unit_test(test_dead_variables_and_regions),
      cmocka_unit_test(test_scopes),
      cmocka_unit_test(test_same_result),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
