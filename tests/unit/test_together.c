/* Calls that become one (codegen/lower/together.c): which, in which order, and that the values stay right when the interpreter
 * runs the kernels of a device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "targets/target.h"
#include "zenithc/driver/compile.h"

enum { ROW = 64, ROWS = 4 };

typedef struct fixture {
  zn_ctx c;
  zn_compiled k;
} fixture;

static void compile(fixture *t, const char *text, const char *target) {
  zn_graph *g;
  memset(t, 0, sizeof *t);
  zn_ctx_init(&t->c);
  assert_int_equal(zn_graph_parse(&t->c, &t->c.graph, text, strlen(text), NULL, &g), ZN_OK);
  zn_compile_opts o = {.model = "m.zg", .target = zn_target_find(target), .opt_level = 2};
  o.pass.rewrite_limit = -1;
  o.pass.verify_each = true;
  assert_int_equal(zn_compile_graph(&t->c, g, &o, &t->k), ZN_OK);
}

static unsigned calls(const fixture *t) {
  const zn_kfunc *f = t->k.mod->funcs[t->k.mod->run_fn];
  unsigned n = 0;
  for (uint32_t i = 0; i < f->num_insts; i++) n += f->insts[i].op == ZN_K_Call;
  return n;
}

/* Two outputs of one input, by both targets: the same but for rounding. */
static void same_values(const char *text, unsigned device_calls) {
  fixture t[2];
  float x[ROWS * ROW];
  zn_htensor y[2][2] = {0};
  for (int i = 0; i < ROWS * ROW; i++) x[i] = (float)(i * 37 % 101) * 0.03f - 1.5f;
  for (int k = 0; k < 2; k++) {
    zn_htensor in = {.dtype = ZN_F32, .rank = 2, .dims = {ROWS, ROW}, .data = x, .name = "x"};
    const zn_target *interp = zn_target_find("interp");
    zn_exec *e;
    compile(&t[k], text, k ? "cuda" : "interp");
    assert_int_equal(interp->load(&t[k].c, t[k].k.mod, "", &e), ZN_OK);
    assert_int_equal(interp->run(&t[k].c, e, &t[k].c.graph, &in, y[k]), ZN_OK);
  }
  for (int o = 0; o < 2; o++) {
    const float *want = y[0][o].data, *have = y[1][o].data;
    assert_int_equal(zn_htensor_count(&y[0][o]), zn_htensor_count(&y[1][o]));
    for (uint64_t i = 0; i < zn_htensor_count(&y[0][o]); i++)
      assert_true(fabsf(have[i] - want[i]) <= 1e-5f * (1 + fabsf(want[i])));
  }
  assert_int_equal(calls(&t[1]), device_calls);
  zn_ctx_fini(&t[0].c);
  zn_ctx_fini(&t[1].c);
}

static void branches_start_together(void **state) {
  (void)state;
  same_values("zg 1\nconst $axis i64[] = [1]\ngraph @main(%x: f32[4,64]) -> (%y, %z) {\n  %y: ?[*] = Softmax(%x)\n"
              "  %z: ?[*] = CumSum(%x, $axis)\n}\n", 1);
}

/* Each call has one team: what comes behind it follows in its kernel. */
static void short_calls_follow_each_other(void **state) {
  (void)state;
  same_values("zg 1\nconst $first i64[1] = [0]\nconst $axis i64[] = [1]\ngraph @main(%x: f32[4,64]) -> (%y, %z) {\n"
              "  %a: ?[*] = ReduceMax(%x, $first) {keepdims=1}\n  %y: ?[*] = CumSum(%a, $axis)\n"
              "  %z: ?[*] = Add(%y, %a)\n}\n", 1);
}

static void what_depends_stays_behind(void **state) {
  (void)state; /* two chains of three: a call for each step of both */
  same_values("zg 1\nconst $axis i64[] = [1]\ngraph @main(%x: f32[4,64]) -> (%y, %z) {\n  %a: ?[*] = CumSum(%x, $axis)\n"
              "  %b: ?[*] = Softmax(%a)\n  %y: ?[*] = CumSum(%b, $axis)\n  %c: ?[*] = CumSum(%x, $axis) {reverse=1}\n"
              "  %d: ?[*] = Softmax(%c)\n  %z: ?[*] = CumSum(%d, $axis) {reverse=1}\n}\n", 3);
}

/* Softmax %c stores over its operand, which CumSum %b reads as well: %b comes first, a call of its own. */
static void readers_come_before_who_stores_there(void **state) {
  (void)state;
  same_values("zg 1\nconst $axis i64[] = [1]\ngraph @main(%x: f32[4,64]) -> (%y, %z) {\n  %a: ?[*] = Softmax(%x)\n"
              "  %b: ?[*] = CumSum(%a, $axis)\n  %c: ?[*] = Softmax(%a)\n  %y: ?[*] = CumSum(%c, $axis)\n"
              "  %d: ?[*] = Softmax(%b)\n  %z: ?[*] = Add(%d, %b)\n}\n", 4);
}

/* A run of the host's own launches nothing: one call each. */
static void nothing_joins_where_launches_are_free(void **state) {
  (void)state;
  fixture t;
  compile(&t, "zg 1\nconst $axis i64[] = [1]\ngraph @main(%x: f32[4,64]) -> (%y, %z) {\n  %y: ?[*] = Softmax(%x)\n"
              "  %z: ?[*] = CumSum(%x, $axis)\n}\n", "interp");
  assert_int_equal(calls(&t), 2);
  zn_ctx_fini(&t.c);
}

/* Work that fills the machine alone has nothing to gain. */
static void large_calls_stay_alone(void **state) {
  (void)state;
  fixture t;
  compile(&t, "zg 1\nconst $axis i64[] = [1]\ngraph @main(%x: f32[40000,64]) -> (%y, %z) {\n  %y: ?[*] = Softmax(%x)\n"
              "  %z: ?[*] = CumSum(%x, $axis)\n}\n", "cuda");
  assert_int_equal(calls(&t), 2);
  zn_ctx_fini(&t.c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(branches_start_together),
      cmocka_unit_test(short_calls_follow_each_other),
      cmocka_unit_test(what_depends_stays_behind),
      cmocka_unit_test(readers_come_before_who_stores_there),
      cmocka_unit_test(nothing_joins_where_launches_are_free),
      cmocka_unit_test(large_calls_stay_alone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
