/* The kernel IR interpreter: every class of operation with its edge cases, control flow, memory
 * checks, and entries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "codegen/kir/kfold.h"
#include "codegen/kir/kir.h"
#include "runtime/zenith.h"
#include "targets/target.h"

static void quiet(void *user, zn_severity sev, const char *line) {
  (void)sev;
  snprintf(user, 512, "%s", line);
  if (getenv("ZN_TEST_VERBOSE")) fprintf(stderr, "%s\n", line);
}

typedef struct fixture {
  zn_ctx c;
  zn_kmod *m;
  zn_kb b;
  zn_kref x, y, r; /* buffers: two inputs, one output */
  char msg[512];
} fixture;

static void open_kernel(fixture *t, zn_dtype elem) {
  memset(t, 0, sizeof *t);
  zn_ctx_init(&t->c);
  t->c.sink = quiet;
  t->c.sink_user = t->msg;
  t->m = zn_kmod_new(&t->c.graph, "m");
  zn_kb_begin(&t->b, &t->c, t->m, "k", false);
  t->x = zn_kb_param(&t->b, "x", ZN_KP_IN, elem);
  t->y = zn_kb_param(&t->b, "y", ZN_KP_IN, elem);
  t->r = zn_kb_param(&t->b, "r", ZN_KP_OUT, elem);
}

static int32_t run_kernel(fixture *t, void *x, uint64_t nx, void *y, uint64_t ny, void *r,
                          uint64_t nr) {
  zn_kb_finish(&t->b);
  void *bufs[] = {x, y, r};
  uint64_t bytes[] = {nx, ny, nr};
  zn_interp_opts o = {.check_bounds = true, .max_steps = 1000000};
  return zn_interp_kernel(&t->c, t->m, 0, bufs, bytes, NULL, &o);
}

static void close_kernel(fixture *t) { zn_ctx_fini(&t->c); }

#define LOAD(t, dt, n, p, i) zn_kb_load(&(t)->b, dt, n, p, zn_kb_idx(&(t)->b, i))
#define STORE(t, i, v) zn_kb_store(&(t)->b, (t)->r, zn_kb_idx(&(t)->b, i), v)

/* Every binary and unary integer operation on every integer type against the folding rules. */
static void test_integers(void **state) {
  (void)state;
  static const zn_kop ops[] = {ZN_K_Add, ZN_K_Sub, ZN_K_Mul, ZN_K_Div, ZN_K_Rem,
                               ZN_K_Min, ZN_K_Max, ZN_K_And, ZN_K_Or,  ZN_K_Xor,
                               ZN_K_Shl, ZN_K_Shr, ZN_K_Neg, ZN_K_Abs, ZN_K_Not};
  static const zn_dtype types[] = {ZN_U8,  ZN_I8,  ZN_U16, ZN_I16, ZN_U32,
                                   ZN_I32, ZN_U64, ZN_I64, ZN_IDX};
  static const int64_t vals[] = {0,  1,  2,         7,         -1,     -128,      127, 255,
                                 33, 64, INT64_MIN, INT64_MAX, -32768, INT32_MIN, 5,   -3};
  enum { N = 16, OPS = sizeof ops / sizeof *ops };
  for (size_t ti = 0; ti < sizeof types / sizeof *types; ti++) {
    zn_dtype t = types[ti], mem = t == ZN_IDX ? ZN_I64 : t;
    for (int shift = 0; shift < N; shift++) {
      char x[N * 8], y[N * 8], r[OPS * N * 8] = {0};
      for (int i = 0; i < N; i++) {
        zn_store_i64(mem, x, (uint64_t)i, vals[i]);
        zn_store_i64(mem, y, (uint64_t)i, vals[(i + shift) % N]);
      }
      fixture f;
      open_kernel(&f, t);
      zn_kref a = LOAD(&f, t, N, f.x, 0), b = LOAD(&f, t, N, f.y, 0);
      for (int k = 0; k < OPS; k++) {
        bool two = zn_kops[ops[k]].sig[1] == 'v';
        STORE(&f, k * N, two ? zn_kb_bin(&f.b, ops[k], a, b) : zn_kb_un(&f.b, ops[k], a));
      }
      assert_int_equal(run_kernel(&f, x, sizeof x, y, sizeof y, r, sizeof r), 0);
      for (int k = 0; k < OPS; k++) {
        for (int i = 0; i < N; i++) {
          int64_t want = 0;
          int64_t p = zn_load_i64(mem, x, (uint64_t)i), q = zn_load_i64(mem, y, (uint64_t)i);
          assert_true(zn_kfold_int(ops[k], t, p, q, &want));
          int64_t got = zn_load_i64(mem, r, (uint64_t)(k * N + i));
          if (got != want)
            fail_msg("%s.%s %lld %lld: %lld, expected %lld", zn_kops[ops[k]].text,
                     zn_dtypes[t].name, (long long)p, (long long)q, (long long)got,
                     (long long)want);
        }
      }
      close_kernel(&f);
    }
  }
}

static void test_integer_edges(void **state) {
  (void)state;
  int64_t v;
  zn_kfold_int(ZN_K_Div, ZN_I32, 5, 0, &v);
  assert_int_equal(v, 0);
  zn_kfold_int(ZN_K_Rem, ZN_I32, 5, 0, &v);
  assert_int_equal(v, 5);
  zn_kfold_int(ZN_K_Div, ZN_I32, INT32_MIN, -1, &v);
  assert_int_equal(v, INT32_MIN);
  zn_kfold_int(ZN_K_Rem, ZN_I64, INT64_MIN, -1, &v);
  assert_int_equal(v, 0);
  zn_kfold_int(ZN_K_Shl, ZN_U8, 1, 8, &v);
  assert_int_equal(v, 0);
  zn_kfold_int(ZN_K_Shr, ZN_I8, -5, 100, &v);
  assert_int_equal(v, -1);
  zn_kfold_int(ZN_K_Add, ZN_U8, 250, 10, &v);
  assert_int_equal(v, 4);
  zn_kfold_int(ZN_K_Abs, ZN_I8, -128, 0, &v);
  assert_int_equal(v, -128);
  assert_int_equal(zn_kfold_float_to_int(ZN_I8, 1e9), 127);
  assert_int_equal(zn_kfold_float_to_int(ZN_I8, -1e9), -128);
  assert_int_equal(zn_kfold_float_to_int(ZN_U8, -1), 0);
  assert_int_equal(zn_kfold_float_to_int(ZN_I32, NAN), 0);
  assert_int_equal(zn_kfold_float_to_int(ZN_I64, 1e19), INT64_MAX);
  assert_true(zn_kfold_float_to_int(ZN_U64, 1.8e19) == (int64_t)UINT64_C(18000000000000000000));
}

static void test_floats(void **state) {
  (void)state;
  static const zn_kop ops[] = {
      ZN_K_Add,      ZN_K_Sub,   ZN_K_Mul,   ZN_K_Div,   ZN_K_Rem,   ZN_K_Min,    ZN_K_Max,
      ZN_K_CopySign, ZN_K_Pow,   ZN_K_ScaledExp, ZN_K_Neg,   ZN_K_Abs,   ZN_K_Sqrt,  ZN_K_Floor,  ZN_K_Ceil,
      ZN_K_Trunc,    ZN_K_Rint,  ZN_K_Exp,   ZN_K_Log,   ZN_K_Log1p, ZN_K_Expm1,  ZN_K_Sin,
      ZN_K_Cos,      ZN_K_Tan,   ZN_K_Asin,  ZN_K_Acos,  ZN_K_Atan,  ZN_K_Sinh,   ZN_K_Cosh,
      ZN_K_Tanh,     ZN_K_Asinh, ZN_K_Acosh, ZN_K_Atanh, ZN_K_Erf,   ZN_K_Sigmoid};
  static const double vals[] = {0,    -0.0,     1,         -1,  0.5, 2.5,  -2.5, 1e-40,
                                3e38, INFINITY, -INFINITY, NAN, 0.1, 7.75, -100, 42};
  enum { N = 16, OPS = sizeof ops / sizeof *ops };
  static const zn_dtype types[] = {ZN_F32, ZN_F64};
  for (int ti = 0; ti < 2; ti++) {
    zn_dtype t = types[ti];
    for (int shift = 0; shift < N; shift++) {
      char x[N * 8], y[N * 8];
      static char r[OPS * N * 8];
      for (uint64_t i = 0; i < N; i++) {
        zn_store_f64(t, x, i, vals[i]);
        zn_store_f64(t, y, i, vals[(i + (uint64_t)shift) % N]);
      }
      fixture f;
      open_kernel(&f, t);
      zn_kref a = LOAD(&f, t, N, f.x, 0), b = LOAD(&f, t, N, f.y, 0);
      for (int k = 0; k < OPS; k++) {
        bool two = zn_kops[ops[k]].sig[1] == 'v';
        STORE(&f, k * N, two ? zn_kb_bin(&f.b, ops[k], a, b) : zn_kb_un(&f.b, ops[k], a));
      }
      assert_int_equal(run_kernel(&f, x, sizeof x, y, sizeof y, r, sizeof r), 0);
      for (uint64_t k = 0; k < OPS; k++) {
        for (uint64_t i = 0; i < N; i++) {
          double want, p = zn_load_f64(t, x, i), q = zn_load_f64(t, y, i),
                       got = zn_load_f64(t, r, k * N + i);
          assert_true(zn_kfold_float(ops[k], t, p, q, &want));
          bool same =
              (got != got && want != want) || (got == want && signbit(got) == signbit(want));
          if (!same)
            fail_msg("%s.%s %g %g: %a, expected %a", zn_kops[ops[k]].text, zn_dtypes[t].name, p, q,
                     got, want);
        }
      }
      close_kernel(&f);
    }
  }
}

static void test_min_max_nan(void **state) {
  (void)state;
  float x[2] = {NAN, 1}, y[2] = {1, NAN}, r[4];
  fixture f;
  open_kernel(&f, ZN_F32);
  zn_kref a = LOAD(&f, ZN_F32, 2, f.x, 0), b = LOAD(&f, ZN_F32, 2, f.y, 0);
  STORE(&f, 0, zn_kb_bin(&f.b, ZN_K_Min, a, b));
  STORE(&f, 2, zn_kb_bin(&f.b, ZN_K_Max, a, b));
  assert_int_equal(run_kernel(&f, x, 8, y, 8, r, 16), 0);
  assert_true(r[0] == 1 && isnan(r[1]) && r[2] == 1 && isnan(r[3])); /* the second operand wins */
  close_kernel(&f);
}

static void test_fma_one_rounding(void **state) {
  (void)state;
  float x[1] = {1 + 0x1p-12f}, y[1] = {-1 - 0x1p-11f}, r[1];
  fixture f;
  open_kernel(&f, ZN_F32);
  zn_kref a = LOAD(&f, ZN_F32, 1, f.x, 0), b = LOAD(&f, ZN_F32, 1, f.y, 0);
  STORE(&f, 0, zn_kb_fma(&f.b, a, a, b));
  assert_int_equal(run_kernel(&f, x, 4, y, 4, r, 4), 0);
  assert_true(r[0] == 0x1p-24f);
  close_kernel(&f);
}

static void test_compare_select(void **state) {
  (void)state;
  static const zn_kop ops[] = {ZN_K_Eq, ZN_K_Ne, ZN_K_Lt, ZN_K_Le, ZN_K_Gt, ZN_K_Ge};
  double x[4] = {1, 2, NAN, -0.0}, y[4] = {2, 2, 1, 0.0}, r[7 * 4];
  fixture f;
  open_kernel(&f, ZN_F64);
  zn_kref a = LOAD(&f, ZN_F64, 4, f.x, 0), b = LOAD(&f, ZN_F64, 4, f.y, 0);
  zn_kref one = zn_kb_float(&f.b, ZN_F64, 1), zero = zn_kb_float(&f.b, ZN_F64, 0);
  for (int k = 0; k < 6; k++)
    STORE(&f, k * 4, zn_kb_select(&f.b, zn_kb_cmp(&f.b, ops[k], a, b), one, zero));
  zn_kref scalar = zn_kb_cmp(&f.b, ZN_K_Lt, zn_kb_extract(&f.b, a, 0), zn_kb_extract(&f.b, b, 0));
  STORE(&f, 24, zn_kb_select(&f.b, scalar, a, b));
  assert_int_equal(run_kernel(&f, x, 32, y, 32, r, sizeof r), 0);
  static const int want[6][4] = {{0, 1, 0, 1}, {1, 0, 1, 0}, {1, 0, 0, 0},
                                 {1, 1, 0, 1}, {0, 0, 0, 0}, {0, 1, 0, 1}};
  for (int k = 0; k < 6; k++)
    for (int i = 0; i < 4; i++) assert_int_equal((int)r[k * 4 + i], want[k][i]);
  assert_true(r[24] == 1 && r[25] == 2 && isnan(r[26]));
  close_kernel(&f);
}

static void test_conversions(void **state) {
  (void)state;
  static const zn_dtype types[] = {ZN_BOOL, ZN_U8,  ZN_I8,  ZN_U16,  ZN_I16, ZN_U32, ZN_I32,
                                   ZN_U64,  ZN_I64, ZN_F16, ZN_BF16, ZN_F32, ZN_F64};
  enum { N = 8, T = sizeof types / sizeof *types };
  static const double vals[N] = {0, 1, -1, 200, -70000, 1.5, 3e9, 65504};
  for (int s = 0; s < T; s++) {
    for (int d = 0; d < T; d++) {
      char x[N * 8], r[N * 8];
      for (uint64_t i = 0; i < N; i++)
        zn_store_f64(types[s], x, i, types[s] == ZN_BOOL ? vals[i] != 0 : vals[i]);
      fixture f;
      open_kernel(&f, types[s]);
      STORE(&f, 0, zn_kb_cvt(&f.b, LOAD(&f, types[s], N, f.x, 0), types[d]));
      assert_int_equal(run_kernel(&f, x, sizeof x, x, sizeof x, r, sizeof r), 0);
      for (uint64_t i = 0; i < N; i++) {
        char want[8] = {0};
        if (zn_is_float(types[s]) && types[d] == ZN_BOOL)
          want[0] = zn_load_f64(types[s], x, i) != 0;
        else if (zn_is_float(types[s]))
          zn_store_f64(types[d], want, 0, zn_load_f64(types[s], x, i));
        else if (zn_is_float(types[d]))
          zn_store_f64(types[d], want, 0, zn_load_f64(types[s], x, i));
        else if (types[d] == ZN_BOOL)
          want[0] = zn_load_i64(types[s], x, i) != 0;
        else
          zn_store_i64(types[d], want, 0, zn_load_i64(types[s], x, i));
        unsigned e = zn_dtype_bytes(types[d]);
        if (memcmp(want, r + i * e, e))
          fail_msg("cvt %s -> %s of %g", zn_dtypes[types[s]].name, zn_dtypes[types[d]].name,
                   vals[i]);
      }
      close_kernel(&f);
    }
  }
}

static void test_vectors(void **state) {
  (void)state;
  int32_t x[8] = {0, 1, 2, 3, 4, 5, 6, 7}, y[8] = {10, 11, 12, 13, 14, 15, 16, 17}, r[40];
  fixture f;
  open_kernel(&f, ZN_I32);
  zn_kref a = LOAD(&f, ZN_I32, 8, f.x, 0), b = LOAD(&f, ZN_I32, 8, f.y, 0);
  const uint32_t mask[3] = {15, 0, 8};
  STORE(&f, 0, zn_kb_shuffle(&f.b, a, b, 3, mask));
  STORE(&f, 3, zn_kb_insert(&f.b, a, zn_kb_extract(&f.b, b, 5), 2));
  STORE(&f, 11, zn_kb_iota(&f.b, ZN_I32, 4));
  STORE(&f, 15, zn_kb_splat(&f.b, LOAD(&f, ZN_I32, 1, f.x, 3), 4));
  STORE(&f, 19, zn_kb_un(&f.b, ZN_K_ReduceAdd, a));
  STORE(&f, 20, zn_kb_un(&f.b, ZN_K_ReduceMax, b));
  STORE(&f, 21, zn_kb_un(&f.b, ZN_K_ReduceMin, b));
  STORE(&f, 22,
        zn_kb_un(&f.b, ZN_K_ReduceMul, zn_kb_bin(&f.b, ZN_K_Add, a, zn_kb_int(&f.b, ZN_I32, 1))));
  STORE(&f, 23, zn_kb_bitcast(&f.b, zn_kb_float(&f.b, ZN_F32, 1), ZN_I32));
  /* gather and scatter */
  zn_kref idx =
      zn_kb_cvt(&f.b, zn_kb_shuffle(&f.b, a, a, 4, (const uint32_t[]){6, 4, 2, 0}), ZN_IDX);
  zn_kref got = zn_kb_load(&f.b, ZN_I32, 4, f.y, idx);
  STORE(&f, 24, got);
  zn_kb_store(&f.b, f.r, zn_kb_bin(&f.b, ZN_K_Add, idx, zn_kb_idx(&f.b, 28)), got);
  memset(r, 0, sizeof r);
  assert_int_equal(run_kernel(&f, x, 32, y, 32, r, sizeof r), 0);
  const int32_t want[] = {17, 0,  10, 0,  1,  15, 3,  4,  5,  6,  7,     0,
                          1,  2,  3,  3,  3,  3,  3,  28, 17, 10, 40320, 0x3f800000,
                          16, 14, 12, 10, 10, 0,  12, 0,  14, 0,  16};
  for (size_t i = 0; i < sizeof want / 4; i++) assert_int_equal(r[i], want[i]);
  close_kernel(&f);
}

static void test_reduce_order(void **state) {
  (void)state; /* halving tree: (x0 + x2) + (x1 + x3) */
  float x[4] = {1e8f, 1, -1e8f, 1}, r[1];
  fixture f;
  open_kernel(&f, ZN_F32);
  STORE(&f, 0, zn_kb_un(&f.b, ZN_K_ReduceAdd, LOAD(&f, ZN_F32, 4, f.x, 0)));
  assert_int_equal(run_kernel(&f, x, 16, x, 16, r, 4), 0);
  assert_true(r[0] == 2);
  close_kernel(&f);
}

static void test_control(void **state) {
  (void)state;
  int64_t r[4] = {0};
  fixture f;
  open_kernel(&f, ZN_I64);
  zn_kb *b = &f.b;
  zn_kref sum = zn_kb_var(b, zn_kb_idx(b, 0)), count = zn_kb_var(b, zn_kb_idx(b, 0));
  zn_kref i = zn_kb_for(b, zn_kb_idx(b, 0), zn_kb_idx(b, 10), 3, ZN_FOR_SERIAL, 0); /* 0 3 6 9 */
  zn_kref j = zn_kb_for(b, zn_kb_idx(b, 0), i, 1, ZN_FOR_SERIAL, 0);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, j, zn_kb_idx(b, 5)));
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, zn_kb_bin(b, ZN_K_Rem, j, zn_kb_idx(b, 2)), zn_kb_idx(b, 0)));
  zn_kb_set(b, sum, zn_kb_bin(b, ZN_K_Add, zn_kb_get(b, sum), j));
  zn_kb_else(b);
  zn_kb_set(b, sum, zn_kb_bin(b, ZN_K_Add, zn_kb_get(b, sum), zn_kb_idx(b, 100)));
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_loop(b);
  zn_kref c = zn_kb_get(b, count);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Gt, c, zn_kb_idx(b, 6)));
  zn_kb_break(b, zn_kb_int(b, ZN_BOOL, 1));
  zn_kb_end(b);
  zn_kb_set(b, count, zn_kb_bin(b, ZN_K_Add, c, zn_kb_idx(b, 1)));
  zn_kb_end(b);
  zn_kref g = zn_kb_for(b, zn_kb_idx(b, 5), zn_kb_idx(b, 5), 1, ZN_FOR_SERIAL, 0); /* never */
  zn_kb_set(b, count, g);
  zn_kb_end(b);
  STORE(&f, 0, zn_kb_get(b, sum));
  STORE(&f, 1, zn_kb_get(b, count));
  zn_kref tmp = zn_kb_alloc(b, ZN_I64, 4);
  zn_kb_store(b, tmp, zn_kb_idx(b, 3), zn_kb_get(b, sum));
  zn_kb_prefetch(b, tmp, zn_kb_idx(b, 1 << 30)); /* no access: no bounds */
  STORE(&f, 2, zn_kb_load(b, ZN_I64, 1, zn_kb_ptradd(b, tmp, zn_kb_idx(b, 24)), zn_kb_idx(b, 0)));
  assert_int_equal(run_kernel(&f, NULL, 0, NULL, 0, r, sizeof r), 0);
  /* i=3: j 0 1 2 -> 0+100+2; i=6 and 9: j 0..4 -> 6+200 each */
  assert_int_equal(r[0], 102 + 206 + 206);
  assert_int_equal(r[1], 7);
  assert_int_equal(r[2], r[0]);
  close_kernel(&f);
}

static void test_refusals(void **state) {
  (void)state;
  float x[4] = {0}, r[4];
  fixture f;
  open_kernel(&f, ZN_F32);
  STORE(&f, 0, LOAD(&f, ZN_F32, 2, f.x, 3));
  assert_true(run_kernel(&f, x, 16, NULL, 0, r, 16) < 0);
  assert_non_null(strstr(f.msg, "outside every known buffer"));
  close_kernel(&f);
  open_kernel(&f, ZN_F32);
  zn_kb_loop(&f.b);
  zn_kb_end(&f.b);
  assert_true(run_kernel(&f, x, 16, NULL, 0, r, 16) < 0);
  assert_non_null(strstr(f.msg, "stopped after 1000000 steps"));
  close_kernel(&f);
}

/* A model y = x + w over an entry that checks its pointer, reads the tensor's length, and launches
 * a grid kernel. */
static void test_entry(void **state) {
  (void)state;
  fixture f;
  open_kernel(&f, ZN_F32);
  zn_kb *b = &f.b;
  zn_kref n = zn_kb_param(b, "n", ZN_KP_INT, ZN_IDX);
  zn_kref i = zn_kb_for(b, zn_kb_idx(b, 0), n, 1, ZN_FOR_GRID, 0);
  zn_kb_store(
      b, f.r, i,
      zn_kb_bin(b, ZN_K_Add, zn_kb_load(b, ZN_F32, 1, f.x, i), zn_kb_load(b, ZN_F32, 1, f.y, i)));
  zn_kb_end(b);
  zn_kb_finish(b);
  static const float w[3] = {10, 20, 30};
  uint32_t k = zn_kmod_add_const(f.m, "w", ZN_F32, 3, w);
  f.m->run_fn = zn_kb_begin(b, &f.c, f.m, "m_run", true);
  zn_kref in = zn_kb_param(b, "in", ZN_KP_IN, ZN_U8),
          out = zn_kb_param(b, "out", ZN_KP_INOUT, ZN_U8);
  zn_kb_param(b, "ws", ZN_KP_INOUT, ZN_U8);
  zn_kb_param(b, "ws_bytes", ZN_KP_INT, ZN_IDX);
  zn_kb_param(b, "host", ZN_KP_IN, ZN_U8);
  zn_kref zero = zn_kb_idx(b, 0);
  zn_kref x = zn_kb_load(b, ZN_PTR, 1, in, zero), y = zn_kb_load(b, ZN_PTR, 1, out, zero);
  zn_kref dim = zn_kb_cvt(b, zn_kb_load(b, ZN_I64, 1, in, zn_kb_idx(b, 3)), ZN_IDX);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Gt, dim, zn_kb_idx(b, 3)));
  zn_kb_ret(b, zn_kb_int(b, ZN_I32, ZN_RUN_SHAPE));
  zn_kb_end(b);
  zn_kref args[4] = {x, zn_kb_constaddr(b, k), y, dim};
  zn_kb_call(b, 0, args, 4, dim);
  zn_kb_ret(b, zn_kb_int(b, ZN_I32, 0));
  zn_kb_finish(b);
  f.m->num_inputs = f.m->num_outputs = 1;
  float xs[3] = {1, 2, 3}, ys[3] = {0};
  zn_tensor ti = {.u.data = xs, .bytes = 12, .rank = 1, .shape = {3}},
            to = {.u.data = ys, .bytes = 12};
  zn_interp_opts o = {.check_bounds = true};
  assert_int_equal(zn_interp_entry(&f.c, f.m, f.m->run_fn, &ti, &to, NULL, 0, NULL, &o), 0);
  assert_true(ys[0] == 11 && ys[1] == 22 && ys[2] == 33);
  ti.shape[0] = 4;
  assert_int_equal(zn_interp_entry(&f.c, f.m, f.m->run_fn, &ti, &to, NULL, 0, NULL, &o),
                   ZN_RUN_SHAPE);
  ti.shape[0] = 3;
  to.bytes = 8; /* too short: the interpreter sees the bad store */
  assert_true(zn_interp_entry(&f.c, f.m, f.m->run_fn, &ti, &to, NULL, 0, NULL, &o) < 0);
  close_kernel(&f);
}

/* y = x + w (100 elements, so w goes to the .bin) with a plan entry; through build, load from the
 * file, and run. */
static const char model[] =
    "module add100 run 1 plan 2 input x f32 [-1 \"n\"] output y f32 [-1 \"n\"]\n"
    "kernel k(x in f32, w in f32, y out f32, n int idx) {\n"
    "  %1 = param.ptr 0 %2 = param.ptr 1 %3 = param.ptr 2 %4 = param.idx 3 %5 = const.idx 0\n"
    "  %6 = for %5, %4, 1 grid { %7 = load.f32 %1[%6] %8 = load.f32 %2[%6] %9 = add.f32 %7, %8 "
    "store.f32 %3[%6], %9 } }\n"
    "entry r(in in u8, out inout u8, ws inout u8, ws_bytes int idx, host in u8) {\n"
    "  %1 = param.ptr 0 %2 = param.ptr 1 %3 = const.idx 0 %4 = const.idx 3\n"
    "  %5 = load.ptr %1[%3] %6 = load.ptr %2[%3] %7 = load.i64 %1[%4] %8 = cvt.idx %7\n"
    "  store.i64 %2[%4], %7 %9 = constaddr.ptr 0 call 0(%5, %9, %6, %8) grid %8 %10 = const.i32 0 "
    "ret %10 }\n"
    "entry p(in in u8, out inout u8, ws inout u8, ws_bytes int idx, host in u8) {\n"
    "  %1 = param.ptr 0 %2 = param.ptr 1 %3 = param.ptr 2 %4 = const.idx 3 %5 = load.i64 %1[%4]\n"
    "  %6 = const.i64 100 %7 = gt.bool %5, %6 if %7 { %8 = const.i32 3 ret %8 }\n"
    "  store.i64 %2[%4], %5 %9 = const.i64 4 %10 = mul.i64 %5, %9 %11 = const.idx 1 store.i64 "
    "%2[%11], %10\n"
    "  %12 = const.i64 4294967297 %13 = const.idx 2 store.i64 %2[%13], %12\n" /* dtype 1, rank 1 */
    "  %14 = const.idx 0 %15 = const.i64 64 store.i64 %3[%14], %15 %16 = const.i32 0 ret %16 }\n";

static void test_target(void **state) {
  (void)state;
  zn_ctx c;
  char msg[512] = "", path[] = "/tmp/zn_interp_XXXXXX", bin[64];
  zn_ctx_init(&c);
  c.sink = quiet;
  c.sink_user = msg;
  zn_kmod *m = NULL;
  assert_int_equal(zn_kmod_parse(&c, &c.graph, model, strlen(model), NULL, &m), ZN_OK);
  static float w[100], x[100];
  for (int i = 0; i < 100; i++) w[i] = (float)i, x[i] = 0.5f;
  zn_kmod_add_const(m, "w", ZN_F32, 100, w);
  assert_int_equal(zn_kmod_verify(&c, m), ZN_OK);
  assert_true(mkstemp(path) >= 0);
  zn_caps caps;
  zn_exec *e = NULL;
  assert_int_equal(zn_target_interp.caps(&c, NULL, &caps), ZN_OK);
  assert_int_equal(zn_target_interp.build(&c, m, &caps, &(zn_build_opts){.out = path}), ZN_OK);
  assert_int_equal(zn_target_interp.load(&c, NULL, path, &e), ZN_OK);
  zn_htensor in = {.dtype = ZN_F32, .rank = 1, .dims = {100}, .data = x, .name = "x"},
             out = {.dtype = ZN_NONE};
  assert_int_equal(zn_target_interp.run(&c, e, &c.graph, &in, &out), ZN_OK);
  assert_true(out.dtype == ZN_F32 && out.rank == 1 && out.dims[0] == 100);
  assert_true(((float *)out.data)[0] == 0.5f && ((float *)out.data)[99] == 99.5f);
  in.dims[0] = 101;
  assert_int_equal(zn_target_interp.run(&c, e, &c.graph, &in, &(zn_htensor){.dtype = ZN_NONE}),
                   ZN_ERR_MODEL);
  assert_int_equal(c.errors, 1);
  zn_target_interp.unload(e);
  snprintf(bin, sizeof bin, "%s.bin", path);
  remove(path);
  remove(bin);
  zn_ctx_fini(&c);
}

/* A TileDot of all signs, packed rows and rows in place, against plain sums; one that reads too far fails. */
static int32_t run_tile(const zn_tile *t, uint8_t *x, uint64_t nx, uint8_t *y, uint64_t ny, int32_t *r, uint64_t nr) {
  fixture f;
  open_kernel(&f, ZN_U8);
  zn_kb_tiledot(&f.b, f.r, f.x, f.y, t);
  int32_t code = run_kernel(&f, x, nx, y, ny, r, nr);
  close_kernel(&f);
  return code;
}

static int32_t signed_byte(uint8_t b, bool is_signed) { return is_signed ? (int8_t)b : b; }

static void test_tiledot(void **state) {
  (void)state;
  enum { ROWS = 10, COLS = 32, DEPTH = 128 };
  static uint8_t x[ROWS * DEPTH], y[DEPTH * 48];
  for (int i = 0; i < ROWS * DEPTH; i++) x[i] = (uint8_t)(i * 37 + i / 7);
  for (int i = 0; i < DEPTH * 48; i++) y[i] = (uint8_t)(i * 101 + i / 5);
  for (int form = 8; form < 32; form++) {
    const bool packed = form & 4;
    const unsigned kind = (unsigned)form / 8;
    const int group = (int)zn_tile_group(kind), unit = (int)zn_tile_unit(kind);
    zn_tile t = {.kind = kind, .rows = 5, .row_tiles = 2, .cols = 32, .col_step = 48, .groups = (unsigned)(DEPTH / group),
                 .row_bytes = packed ? 0 : DEPTH, .b_signed = form & 1, .c_signed = form & 2};
    zn_tile back;
    assert_true(zn_tile_read(zn_tile_code(&t), &back) && back.row_bytes == t.row_bytes && back.col_step == 48);
    int32_t r[ROWS * COLS];
    const uint64_t used = sizeof y - 16 * (uint64_t)unit; /* the last unit's columns beyond 32 are not read */
    assert_int_equal(run_tile(&t, x, sizeof x, y, used, r, sizeof r), ZN_RUN_OK);
    for (int i = 0; i < ROWS; i++)
      for (int j = 0; j < COLS; j++) {
        int32_t sum = 0;
        for (int k = 0; k < DEPTH; k++) {
          const uint8_t a = packed ? x[k / group * ROWS * group + i * group + k % group] : x[i * DEPTH + k];
          sum += signed_byte(a, t.b_signed) * signed_byte(y[(k / unit * 48 + j) * unit + k % unit], t.c_signed);
        }
        assert_int_equal(r[i * COLS + j], sum);
      }
    assert_int_not_equal(run_tile(&t, x, sizeof x - 1, y, used, r, sizeof r), ZN_RUN_OK);
    assert_int_not_equal(run_tile(&t, x, sizeof x, y, used - 1, r, sizeof r), ZN_RUN_OK);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_integers),
      cmocka_unit_test(test_tiledot),         cmocka_unit_test(test_integer_edges),
      cmocka_unit_test(test_floats),           cmocka_unit_test(test_min_max_nan),
      cmocka_unit_test(test_fma_one_rounding), cmocka_unit_test(test_compare_select),
      cmocka_unit_test(test_conversions),      cmocka_unit_test(test_vectors),
      cmocka_unit_test(test_reduce_order),     cmocka_unit_test(test_control),
      cmocka_unit_test(test_refusals),         cmocka_unit_test(test_entry),
      cmocka_unit_test(test_target),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
