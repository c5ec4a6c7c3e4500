/* Kernel IR: folding and sticky errors of the builder, what the verifier rejects, and
 * print(parse(text)) == text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "codegen/kir/kir.h"
#include "codegen/kir/ktext.h"

static void quiet(void *user, zn_severity sev, const char *line) {
  (void)sev;
  snprintf(user, 512, "%s", line);
  if (getenv("ZN_TEST_VERBOSE")) fprintf(stderr, "%s\n", line);
}

typedef struct fixture {
  zn_ctx c;
  zn_kmod *m;
  zn_kb b;
  char msg[512];
} fixture;

static int setup(void **state) {
  fixture *f = calloc(1, sizeof *f);
  zn_ctx_init(&f->c);
  f->c.sink = quiet;
  f->c.sink_user = f->msg;
  f->m = zn_kmod_new(&f->c.graph, "m");
  zn_kb_begin(&f->b, &f->c, f->m, "k", false);
  *state = f;
  return 0;
}

static int teardown(void **state) {
  fixture *f = *state;
  zn_ctx_fini(&f->c);
  free(f);
  return 0;
}

static void test_folding(void **state) {
  fixture *f = *state;
  zn_kb *b = &f->b;
  int64_t i;
  double d;
  assert_true(zn_kf_const_int(b->f, zn_kb_bin(b, ZN_K_Mul, zn_kb_idx(b, 6), zn_kb_idx(b, 7)), &i) &&
              i == 42);
  zn_kref p = zn_kb_param(b, "p", ZN_KP_IN, ZN_F32), n = zn_kb_param(b, "n", ZN_KP_INT, ZN_IDX);
  assert_int_equal(zn_kb_bin(b, ZN_K_Add, n, zn_kb_idx(b, 0)), n);
  assert_int_equal(zn_kb_bin(b, ZN_K_Mul, zn_kb_idx(b, 1), n), n);
  assert_true(zn_kf_const_int(b->f, zn_kb_bin(b, ZN_K_Mul, n, zn_kb_idx(b, 0)), &i) && i == 0);
  zn_kref x = zn_kb_load(b, ZN_F32, 4, p, n);
  zn_kref zero = zn_kb_float(b, ZN_F32, 0), one = zn_kb_float(b, ZN_F32, 1);
  assert_int_not_equal(zn_kb_bin(b, ZN_K_Add, x, zero), x); /* -0 + 0 is 0 */
  assert_int_equal(zn_kb_bin(b, ZN_K_Sub, x, zero), x);
  assert_int_equal(zn_kb_bin(b, ZN_K_Mul, x, one), x);
  assert_int_equal(zn_kb_select(b, zn_kb_int(b, ZN_BOOL, 1), x, x), x);
  zn_kref two = zn_kb_bin(b, ZN_K_Add, zn_kb_splat(b, one, 4), zn_kb_splat(b, one, 4));
  assert_true(zn_kf_const_float(b->f, two, &d) && d == 2);
  assert_int_equal(zn_kf_lanes(b->f, two), 4);
  assert_true(zn_kf_const_float(b->f, zn_kb_float(b, ZN_F32, 0.1), &d) && d == (double)0.1f);
  assert_int_equal(zn_kb_ptradd(b, p, zn_kb_idx(b, 0)), p);
  assert_true(zn_kf_const_int(b->f, zn_kb_cvt(b, zn_kb_float(b, ZN_F64, -1e9), ZN_I8), &i) &&
              i == -128);
  assert_true(
      zn_kf_const_int(b->f,
                      zn_kb_cmp(b, ZN_K_Ne, zn_kb_float(b, ZN_F64, NAN), zn_kb_float(b, ZN_F64, 0)),
                      &i) &&
      i == 1);
  assert_null(b->error);
  zn_kb_finish(b);
}

static void test_sticky_error(void **state) {
  fixture *f = *state;
  zn_kb *b = &f->b;
  zn_kref x = zn_kb_int(b, ZN_I32, 1), y = zn_kb_int(b, ZN_I64, 1);
  assert_int_equal(zn_kb_bin(b, ZN_K_Add, x, y), 0);
  assert_non_null(strstr(b->error, "operands have different types"));
  const char *first = b->error;
  assert_int_equal(zn_kb_idx(b, 3), 0);
  zn_kb_end(b);
  assert_ptr_equal(b->error, first);
}

/* Runs the body built by `bad` through the verifier and expects the message. */
static void expect_bad(fixture *f, const char *message) {
  assert_int_equal(zn_kfunc_verify(&f->c, f->m, f->b.f), ZN_ERR_MODEL);
  if (!strstr(f->msg, message)) fail_msg("'%s' does not say '%s'", f->msg, message);
}

static void test_verify_scope(void **state) {
  fixture *f = *state;
  zn_kb *b = &f->b;
  zn_kb_loop(b);
  zn_kref inner = zn_kb_idx(b, 1);
  zn_kb_break(b, zn_kb_int(b, ZN_BOOL, 1));
  zn_kb_end(b);
  zn_kb_raw(b, (zn_kinst){.op = ZN_K_Neg, .dtype = ZN_IDX, .lanes = 1, .a = inner});
  expect_bad(f, "not a value in scope");
}

static void test_verify_grid(void **state) {
  fixture *f = *state;
  zn_kb *b = &f->b;
  zn_kref z = zn_kb_idx(b, 0), n = zn_kb_idx(b, 8);
  zn_kb_for(b, z, n, 1, ZN_FOR_GRID, 0);
  zn_kb_end(b);
  zn_kb_for(b, z, n, 1, ZN_FOR_GRID, 0);
  zn_kb_end(b);
  expect_bad(f, "second grid loop");
}

static void test_verify_break(void **state) {
  fixture *f = *state;
  zn_kb *b = &f->b;
  zn_kref z = zn_kb_idx(b, 0), n = zn_kb_idx(b, 8);
  zn_kb_for(b, z, n, 1, ZN_FOR_VECTOR, 0);
  zn_kb_break(b, zn_kb_int(b, ZN_BOOL, 1));
  zn_kb_end(b);
  expect_bad(f, "no loop to leave");
}

static void test_verify_types(void **state) {
  fixture *f = *state;
  zn_kb *b = &f->b;
  zn_kref x = zn_kb_float(b, ZN_F32, 1);
  zn_kb_raw(b, (zn_kinst){.op = ZN_K_Shl, .dtype = ZN_F32, .lanes = 1, .a = x, .b = x});
  expect_bad(f, "operand type does not fit");
}

static void test_verify_ret(void **state) {
  fixture *f = *state;
  zn_kb_ret(&f->b, zn_kb_int(&f->b, ZN_I32, 0));
  expect_bad(f, "only entry functions return");
}

static const char sample[] =
    "module sample\n"
    "provenance \"zenithc \\\"test\\\"\"\n"
    "workspace 128\n"
    "run 1\n"
    "plan 1\n"
    "input x f32 [-1 \"batch\", 3]\n"
    "output \"y 0\" f32 [-1 \"2*batch\"]\n"
    "const w f32 3 [1, 0.5, -0]\n"
    "const big i64 2 [-9223372036854775808, 7]\n"
    "const h f16 1 hex \"007e\"\n"
    "const s str 2 [\"a\\\"\", \"\"]\n"
    "\n"
    "kernel k(x in f32, y out f32, n int idx) note \"Relu \\x01\" {\n"
    "  %1 = param.ptr 0 # x\n"
    "  %2 = param.ptr 1 # y\n"
    "  %3 = param.idx 2 # n\n"
    "  %4 = const.f32 -1.5\n"
    "  %5 = splat.f32x16 %4\n"
    "  %6 = alloc.f32 64\n"
    "  %7 = const.idx 0\n"
    "  %8 = for %7, %3, 1 grid {\n"
    "    %9 = load.f32x16 %1[%8] align 64\n"
    "    %10 = var.f32x16 %9\n"
    "    %11 = for %7, %8, 16 vector 8 {\n"
    "      %12 = get.f32x16 %10\n"
    "      %13 = fma.f32x16 %12, %5, %9\n"
    "      set.f32x16 %10, %13\n"
    "    }\n"
    "    %14 = lt.bool %8, %3\n"
    "    if %14 {\n"
    "      loop {\n"
    "        break %14\n"
    "      }\n"
    "    } else {\n"
    "      %15 = shuffle.f32x4 %9, %9 [0, 31, 2, 3]\n"
    "      %16 = extract.f32 %15, 2\n"
    "      %17 = reduceadd.f32 %15\n"
    "      store.f32 %2[%8], %16\n"
    "      prefetch %2, %8\n"
    "      %18 = iota.idxx4\n"
    "      %19 = cvt.f64x4 %15\n"
    "      store.f64x4 %2[%18], %19\n"
    "    }\n"
    "  }\n"
    "}\n"
    "\n"
    "entry sample_run(in in u8, out inout u8, ws inout u8, ws_bytes int idx, host in u8) exported "
    "{\n"
    "  %1 = param.ptr 0 # in\n"
    "  %2 = const.idx 4\n"
    "  %3 = constaddr.ptr 0 # w\n"
    "  call 0(%1, %3, %2) grid %2 # k\n"
    "  %4 = const.i32 0\n"
    "  ret %4\n"
    "}\n";

static void test_round_trip(void **state) {
  fixture *f = *state;
  zn_kmod *m = NULL;
  assert_int_equal(zn_kmod_parse(&f->c, &f->c.graph, sample, strlen(sample), NULL, &m), ZN_OK);
  assert_int_equal(zn_kmod_verify(&f->c, m), ZN_OK);
  zn_text t;
  zn_text_init(&t, &f->c.graph);
  zn_kmod_print(m, &t);
  assert_string_equal(t.s, sample);
  assert_true(signbit(((const float *)m->consts[0].data)[2]));
  assert_int_equal(((const int64_t *)m->consts[1].data)[0], INT64_MIN);
}

static void test_parse_errors(void **state) {
  fixture *f = *state;
  static const char *const bad[][2] = {
      {"module", "expected a name"},
      {"module m const c f32 99999999999 [1]", "cut short"},
      {"module m const c f32 2 [1]", "expected ','"},
      {"module m const c f32 100 bin \"x\" 0", "not allowed here"},
      {"module m kernel k() { %1 = add.f32 %2, %3 }", "%2 is not defined above"},
      {"module m kernel k() { %99999 = const.f32 1 }", "needlessly large"},
      {"module m kernel k() { const.f32 1 }", "needs a name"},
      {"module m kernel k() { %1 = const.f99 1 }", "is not a type"},
      {"module m kernel k() { loop {", "end of the text"},
      {"module m kernel k() { frob }", "unknown operation 'frob'"},
      {"module m oops", "expected input, output"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    zn_kmod *m = NULL;
    assert_int_not_equal(zn_kmod_parse(&f->c, &f->c.graph, bad[i][0], strlen(bad[i][0]), NULL, &m),
                         ZN_OK);
    if (!strstr(f->msg, bad[i][1])) fail_msg("'%s' does not say '%s'", f->msg, bad[i][1]);
  }
}

/* Cutting the text anywhere gives an error or a module, never a crash. */
static void test_parse_truncated(void **state) {
  fixture *f = *state;
  for (size_t n = 0; n < strlen(sample); n++) {
    zn_kmod *m = NULL;
    if (zn_kmod_parse(&f->c, &f->c.graph, sample, n, NULL, &m) == ZN_OK)
      (void)!zn_kmod_verify(&f->c, m);
  }
}

static void fill_ramp(const void *user, void *dst) {
  for (int i = 0; i < 4; i++) ((float *)dst)[i] = (float)i + *(const float *)user;
}

static uint32_t const_of(const zn_kmod *m) {
  for (uint32_t i = 1; i < m->funcs[0]->num_insts; i++)
    if (m->funcs[0]->insts[i].op == ZN_K_ConstAddr) return (uint32_t)m->funcs[0]->insts[i].imm.i;
  return UINT32_MAX;
}

/* Two modules with one list: equal bytes are one constant, wherever they come from, and functions follow. */
static void test_unite(void **state) {
  fixture *f = *state;
  static const float ramp[4] = {1, 2, 3, 4}, other[4] = {1, 2, 3, 5}, one = 1;
  zn_kmod *mods[2];
  for (int i = 0; i < 2; i++) {
    mods[i] = zn_kmod_new(&f->c.graph, "u");
    zn_kb b = {0};
    if (i == 1) zn_kmod_add_const(mods[i], "other", ZN_F32, 4, other);
    uint32_t k = zn_kmod_add_const(mods[i], "ramp", ZN_F32, 4, i ? NULL : ramp);
    if (i == 1) mods[i]->consts[k].fill = fill_ramp, mods[i]->consts[k].user = &one;
    zn_kb_begin(&b, &f->c, mods[i], "k", false);
    zn_kb_load(&b, ZN_F32, 1, zn_kb_constaddr(&b, k), zn_kb_idx(&b, 0));
    mods[i]->workspace_bytes = i ? 64 : 128;
  }
  zn_kmod_unite(mods, 2, &f->c.graph);
  assert_int_equal(mods[0]->num_consts, 2);
  assert_ptr_equal(mods[0]->consts, mods[1]->consts);
  assert_int_equal(const_of(mods[0]), const_of(mods[1]));
  assert_string_equal(mods[1]->consts[const_of(mods[1])].name, "ramp");
  assert_int_equal(mods[1]->workspace_bytes, 128);
}

/* Constants that nothing names go, the others keep their contents under new numbers. */
static void test_drop_consts(void **state) {
  fixture *f = *state;
  static const float ramp[4] = {1, 2, 3, 4};
  zn_kmod *m = zn_kmod_new(&f->c.graph, "u");
  zn_kb b = {0};
  zn_kmod_add_const(m, "first", ZN_F32, 4, ramp);
  uint32_t used = zn_kmod_add_const(m, "used", ZN_F32, 4, ramp);
  zn_kmod_add_const(m, "last", ZN_F32, 4, ramp);
  zn_kb_begin(&b, &f->c, m, "k", false);
  zn_kb_load(&b, ZN_F32, 1, zn_kb_constaddr(&b, used), zn_kb_idx(&b, 0));
  zn_kmod_drop_consts(m);
  assert_int_equal(m->num_consts, 1);
  assert_int_equal(const_of(m), 0);
  assert_string_equal(m->consts[0].name, "used");
}

int main(void) {
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
  const struct CMUnitTest tests[] = {
      T(test_folding),      T(test_sticky_error),   T(test_verify_scope), T(test_verify_grid),
      T(test_verify_break), T(test_verify_types),   T(test_verify_ret),   T(test_round_trip),
      T(test_parse_errors), T(test_parse_truncated), T(test_unite),
      T(test_drop_consts)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
