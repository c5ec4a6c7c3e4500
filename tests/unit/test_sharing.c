/* The memory plan: results over dying operands, Concat and Split without copies, and that the values stay right when the
 * interpreter runs the kernels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "targets/target.h"
#include "zenithc/driver/compile.h"
#include "zenithc/eval/eval.h"

enum { ROW = 64 };

typedef struct fixture {
  zn_ctx c;
  zn_compiled k;
} fixture;

static void compile(fixture *t, const char *text) {
  zn_graph *g;
  memset(t, 0, sizeof *t);
  zn_ctx_init(&t->c);
  assert_int_equal(zn_graph_parse(&t->c, &t->c.graph, text, strlen(text), NULL, &g), ZN_OK);
  zn_compile_opts o = {.model = "m.zg", .target = zn_target_find("interp"), .opt_level = 2};
  o.pass.rewrite_limit = -1;
  o.pass.verify_each = true;
  assert_int_equal(zn_compile_graph(&t->c, g, &o, &t->k), ZN_OK);
}

static void done(fixture *t) { zn_ctx_fini(&t->c); }

static bool has_kernel(const fixture *t, const char *part) {
  for (uint32_t i = 0; i < t->k.mod->num_funcs; i++)
    if (strstr(t->k.mod->funcs[i]->name, part)) return true;
  return false;
}

/* Runs kernels on x[rows][ROW], one input and one output of `out` elements. */
static float *run(fixture *t, int64_t rows, uint32_t out) {
  float *x = zn_arena_array(&t->c.graph, (uint64_t)(rows * ROW), sizeof *x);
  for (int64_t i = 0; i < rows * ROW; i++) x[i] = (float)(i * 37 % 101) * 0.03f - 1.5f;
  zn_htensor in = {.dtype = ZN_F32, .rank = 2, .dims = {rows, ROW}, .data = x, .name = "x"}, y = {0};
  zn_exec *e;
  const zn_target *interp = zn_target_find("interp");
  assert_int_equal(interp->load(&t->c, t->k.mod, "", &e), ZN_OK);
  assert_int_equal(interp->run(&t->c, e, &t->c.graph, &in, &y), ZN_OK);
  assert_int_equal(zn_htensor_count(&y), out);
  return y.data;
}

static void softmax(float *row) {
  double sum = 0, top = row[0];
  for (int i = 1; i < ROW; i++) top = row[i] > top ? row[i] : top;
  for (int i = 0; i < ROW; i++) sum += exp(row[i] - top);
  for (int i = 0; i < ROW; i++) row[i] = (float)(exp(row[i] - top) / sum);
}

static void near(const float *have, const float *want, int n) {
  for (int i = 0; i < n; i++) assert_true(fabsf(have[i] - want[i]) <= 1e-6f);
}

static void dying_operand_gives_its_buffer(void **state) {
  (void)state;
  fixture t;
  compile(&t, "zg 1\ngraph @main(%x: f32[8,64]) -> (%y) {\n  %a: ?[*] = Softmax(%x)\n  %b: ?[*] = Softmax(%a)\n"
              "  %y: ?[*] = Softmax(%b)\n}\n");
  assert_int_equal(t.k.mod->workspace_bytes, 8 * ROW * 4);
  assert_int_equal(t.k.plan.lower_bound, 8 * ROW * 4);
  float *y = run(&t, 8, 8 * ROW), want[ROW];
  for (int i = 0; i < ROW; i++) want[i] = (float)(i * 37 % 101) * 0.03f - 1.5f;
  for (int k = 0; k < 3; k++) softmax(want);
  near(y, want, ROW);
  done(&t);
}

static void live_operand_keeps_its_buffer(void **state) {
  (void)state;
  fixture t;
  compile(&t, "zg 1\ngraph @main(%x: f32[8,64]) -> (%y) {\n  %a: ?[*] = Softmax(%x)\n  %b: ?[*] = Softmax(%a)\n"
              "  %c: ?[*] = Softmax(%b) {axis=0}\n  %y: ?[*] = Sub(%c, %a)\n}\n");
  assert_int_equal(t.k.mod->workspace_bytes, 2 * 8 * ROW * 4);
  done(&t);
}

static void other_elements_are_not_overwritten(void **state) {
  (void)state;
  fixture t; /* y[i, j] needs a[j, i] too */
  compile(&t, "zg 1\ngraph @main(%x: f32[64,64]) -> (%y) {\n  %a: ?[*] = Softmax(%x)\n"
              "  %t: ?[*] = Transpose(%a) {perm=[1,0]}\n  %b: ?[*] = Add(%a, %t)\n  %c: ?[*] = Softmax(%b)\n"
              "  %y: ?[*] = Softmax(%c)\n}\n");
  float *y = run(&t, 64, 64 * ROW), *a = zn_arena_array(&t.c.graph, 64 * ROW, sizeof *a), want[ROW];
  for (int i = 0; i < 64 * ROW; i++) a[i] = (float)(i * 37 % 101) * 0.03f - 1.5f;
  for (int i = 0; i < 64; i++) softmax(a + i * ROW);
  for (int j = 0; j < ROW; j++) want[j] = a[63 * ROW + j] + a[j * ROW + 63];
  softmax(want);
  softmax(want);
  near(y + 63 * ROW, want, ROW);
  done(&t);
}

static void concat_copies_nothing(void **state) {
  (void)state;
  fixture t;
  compile(&t, "zg 1\ngraph @main(%x: f32[8,64]) -> (%y) {\n  %a: ?[*] = Softmax(%x)\n  %b: ?[*] = Softmax(%x) {axis=0}\n"
              "  %r: ?[*] = Relu(%b)\n  %c: ?[*] = Concat(%a, %r) {axis=0}\n  %y: ?[*] = Softmax(%c)\n}\n");
  assert_false(has_kernel(&t, "concat"));
  float *y = run(&t, 8, 16 * ROW), want[ROW];
  for (int i = 0; i < ROW; i++) want[i] = (float)(i * 37 % 101) * 0.03f - 1.5f;
  softmax(want);
  softmax(want);
  near(y, want, ROW);
  done(&t);
}

static void concat_of_rows_is_copied(void **state) {
  (void)state;
  fixture t;
  compile(&t, "zg 1\ngraph @main(%x: f32[8,64]) -> (%y) {\n  %a: ?[*] = Softmax(%x)\n  %b: ?[*] = Softmax(%x) {axis=0}\n"
              "  %c: ?[*] = Concat(%a, %b) {axis=1}\n  %y: ?[*] = Softmax(%c)\n}\n");
  assert_true(has_kernel(&t, "concat"));
  done(&t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(dying_operand_gives_its_buffer), cmocka_unit_test(live_operand_keeps_its_buffer),
      cmocka_unit_test(other_elements_are_not_overwritten), cmocka_unit_test(concat_copies_nothing),
      cmocka_unit_test(concat_of_rows_is_copied)};
  return cmocka_run_group_tests_name("sharing", tests, NULL, NULL);
}
