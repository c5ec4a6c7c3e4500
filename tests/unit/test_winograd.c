/* F(m, 3): the matrices give the correlation of a tile with a filter, and kernel code does what the matrices say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "codegen/lower/winograd.h"

enum { SIDE = ZN_WINO_SIDE, TAPS = ZN_WINO_TAPS };

static double next(uint32_t *s) {
  *s = *s * 1664525u + 1013904223u;
  return (double)(int32_t)*s / 2147483648.0;
}

/* out[rows][n] = c[rows][cols] * x[cols][n] */
static void times(const double c[][SIDE], int rows, int cols, double x[][SIDE], int n, double out[][SIDE]) {
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < n; j++) {
      out[i][j] = 0;
      for (int k = 0; k < cols; k++) out[i][j] += c[i][k] * x[k][j];
    }
}

static void turn(double x[][SIDE], int rows, int cols, double out[][SIDE]) {
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < cols; j++) out[j][i] = x[i][j];
}

/* c * x * c transposed */
static void nested(const double c[][SIDE], int rows, int cols, double x[][SIDE], double out[][SIDE]) {
  double p[SIDE][SIDE] = {{0}}, q[SIDE][SIDE] = {{0}};
  times(c, rows, cols, x, cols, p);
  turn(p, rows, cols, q);
  times(c, rows, cols, q, rows, p);
  turn(p, rows, rows, out);
}

static void test_correlation(void **state) {
  (void)state;
  uint32_t seed = 7;
  for (int m = ZN_WINO_MIN; m <= ZN_WINO_MAX; m++) {
    const zn_winograd f = zn_winograd_of(m);
    assert_int_equal(f.side, m + 2);
    double w[TAPS * TAPS], x[SIDE][SIDE] = {{0}}, u[SIDE][SIDE], v[SIDE][SIDE], y[SIDE][SIDE];
    for (int i = 0; i < 9; i++) w[i] = next(&seed);
    for (int i = 0; i < f.side * f.side; i++) x[i / f.side][i % f.side] = next(&seed);
    zn_winograd_filter(&f, w, u);
    nested(f.bt, f.side, f.side, x, v);
    for (int i = 0; i < f.side; i++)
      for (int j = 0; j < f.side; j++) v[i][j] *= u[i][j];
    nested(f.at, m, f.side, v, y);
    for (int i = 0; i < m; i++)
      for (int j = 0; j < m; j++) {
        double direct = 0;
        for (int t = 0; t < 9; t++) direct += w[t] * x[i + t / 3][j + t % 3];
        assert_true(fabs(y[i][j] - direct) < 1e-13);
      }
  }
}

/* What kernels multiply by must not be rounded. */
static void test_exact(void **state) {
  (void)state;
  for (int m = ZN_WINO_MIN; m <= ZN_WINO_MAX; m++) {
    const zn_winograd f = zn_winograd_of(m);
    for (int i = 0; i < f.side; i++)
      for (int j = 0; j < f.side; j++) {
        assert_true((double)(float)f.bt[i][j] == f.bt[i][j]);
        if (i < m) assert_true((double)(float)f.at[i][j] == f.at[i][j]);
      }
  }
}

static uint32_t arithmetic(const zn_kfunc *f) {
  uint32_t n = 0;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    uint8_t op = f->insts[i].op;
    n += op == ZN_K_Add || op == ZN_K_Sub || op == ZN_K_Mul || op == ZN_K_Fma;
  }
  return n;
}

/* Code for one matrix, run on numbers; returns how many operations it is. */
static uint32_t check_code(const double c[][SIDE], int rows, int cols) {
  zn_ctx ctx;
  zn_ctx_init(&ctx);
  zn_lw lw = {.ctx = &ctx, .mod = zn_kmod_new(&ctx.graph, "t")};
  zn_kref x[SIDE], y[SIDE];
  zn_kb_begin(&lw.kb, &ctx, lw.mod, "k", false);
  zn_kref in = zn_kb_param(&lw.kb, "x", ZN_KP_IN, ZN_F32), out = zn_kb_param(&lw.kb, "y", ZN_KP_OUT, ZN_F32);
  for (int i = 0; i < cols; i++) x[i] = zn_kb_load(&lw.kb, ZN_F32, 1, in, zn_kb_idx(&lw.kb, i));
  zn_winograd_apply(&lw, c, rows, cols, x, y);
  for (int i = 0; i < rows; i++) zn_kb_store(&lw.kb, out, zn_kb_idx(&lw.kb, i), y[i]);
  zn_kb_finish(&lw.kb);
  float given[SIDE], got[SIDE];
  uint32_t seed = 3;
  for (int i = 0; i < cols; i++) given[i] = (float)next(&seed);
  void *bufs[] = {given, got};
  uint64_t bytes[] = {sizeof given, sizeof got};
  zn_interp_opts o = {.check_bounds = true};
  assert_int_equal(zn_interp_kernel(&ctx, lw.mod, 0, bufs, bytes, NULL, &o), 0);
  for (int i = 0; i < rows; i++) {
    double want = 0;
    for (int k = 0; k < cols; k++) want += c[i][k] * (double)given[k];
    assert_true(fabs((double)got[i] - want) < 4e-6);
  }
  uint32_t n = arithmetic(lw.mod->funcs[0]);
  zn_ctx_fini(&ctx);
  return n;
}

static void test_code(void **state) {
  (void)state;
  static const uint32_t most_bt[] = {4, 12, 14}, most_at[] = {4, 8, 12};
  for (int m = ZN_WINO_MIN; m <= ZN_WINO_MAX; m++) {
    const zn_winograd f = zn_winograd_of(m);
    assert_in_range(check_code(f.bt, f.side, f.side), 1, most_bt[m - 2]);
    assert_in_range(check_code(f.at, m, f.side), 1, most_at[m - 2]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_correlation), cmocka_unit_test(test_exact),
                                     cmocka_unit_test(test_code)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
