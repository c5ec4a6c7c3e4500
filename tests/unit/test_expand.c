/* Expanded functions in the interpreter: errors within the stated bounds on samples and special
 * values, the same bits from scalars and vectors, with and without fma, f64 and rounding
 * instructions; 16-bit conversions against the exact reference for every f16 and bf16 value and the
 * ties between them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codegen/kir/math.h"
#include "tests/sweep/math_ref.h"

enum { N = 1536 };

static const struct {
  zn_kop op;
  const char *name;
  double f32, f64;
} functions[] = {
#define X(n, a, b) {ZN_K_##n, #n, a, b},
    ZN_MATH_BOUNDS(X)
#undef X
};
enum { FUNCTIONS = sizeof functions / sizeof *functions };

static const zn_caps all_caps[] = {
    {.arch = "full",
     .idx_bytes = 8,
     .vector_bytes = 32,
     .fma = true,
     .f16_convert = true,
     .round_native = true,
     .f64_native = true},
    {.arch = "plain", .idx_bytes = 8, .vector_bytes = 32, .f64_native = true},
    {.arch = "small", .idx_bytes = 4, .fma = true},
};

/* out[i] = op(x[i], y[i]), or a conversion when op is Cvt */
static zn_kmod *kernel(zn_ctx *c, const zn_caps *caps, zn_kop op, zn_dtype from, zn_dtype to,
                       int64_t n) {
  zn_kmod *m = zn_kmod_new(&c->graph, "t");
  zn_kb b;
  zn_kb_begin(&b, c, m, "k", false);
  zn_kref out = zn_kb_param(&b, "out", ZN_KP_OUT, to), x = zn_kb_param(&b, "x", ZN_KP_IN, from);
  zn_kref y = zn_kb_param(&b, "y", ZN_KP_IN, from), lo = zn_kb_idx(&b, 0), hi = zn_kb_idx(&b, n);
  zn_kref i = zn_kb_for(&b, lo, hi, 1, ZN_FOR_VECTOR, 0), v = zn_kb_load(&b, from, 1, x, i), r;
  if (op == ZN_K_Cvt)
    r = zn_kb_cvt(&b, v, to);
  else {
    zn_kref w = math_takes_two(op) ? zn_kb_load(&b, from, 1, y, i) : 0;
    r = math_call(&b, op, from, v, w);
  }
  zn_kb_store(&b, out, i, r);
  zn_kb_end(&b);
  zn_kb_finish(&b);
  assert_int_equal(zn_kpass_widen(c, m, caps), ZN_OK);
  assert_int_equal(zn_kpass_expand(c, m, caps), ZN_OK);
  assert_int_equal(zn_kmod_verify(c, m), ZN_OK);
  for (uint32_t k = 1; k < m->funcs[0]->num_insts; k++) {
    const zn_kinst *in = &m->funcs[0]->insts[k];
    assert_true(zn_kops[in->op].cls != 'M');
    if (in->op == ZN_K_Fma) assert_true(caps->fma);
    if (in->op == ZN_K_Rem) assert_false(zn_is_float((zn_dtype)in->dtype));
  }
  return m;
}

static void run(zn_ctx *c, const zn_kmod *m, void *out, const void *x, const void *y,
                uint64_t bytes) {
  union {
    const void *in;
    void *p;
  } ux = {x}, uy = {y};
  void *bufs[] = {out, ux.p, uy.p};
  uint64_t sizes[] = {bytes, bytes, bytes};
  zn_interp_opts o = {.check_bounds = true};
  assert_int_equal(zn_interp_kernel(c, m, 0, bufs, sizes, NULL, &o), 0);
}

static const double special[] = {0.0,
                                 -0.0,
                                 1,
                                 -1,
                                 2,
                                 -2,
                                 3,
                                 -3,
                                 0.5,
                                 -0.5,
                                 1.5,
                                 -2.5,
                                 1e-40,
                                 -1e-40,
                                 3e-310,
                                 3e38,
                                 -3e38,
                                 1e308,
                                 16777217,
                                 -16777215,
                                 4503599627370497.0,
                                 -9007199254740991.0,
                                 INFINITY,
                                 -INFINITY,
                                 NAN,
                                 1e-5,
                                 0.9999999,
                                 1.0000001,
                                 88.7,
                                 -103.5,
                                 1e5,
                                 1e22};
enum { SPECIAL = sizeof special / sizeof *special };

static double fx[N], fy[N];

static void fill(void) {
  uint64_t s = 88172645463325252u;
  for (int i = 0; i < N; i++) {
    for (int k = 0; k < 2; k++) {
      s ^= s << 13, s ^= s >> 7, s ^= s << 17;
      double u = (double)(s >> 11) * 0x1p-53 - 0.5;
      double v = i % 4 == 0   ? u * 4
                 : i % 4 == 1 ? u * 40
                 : i % 4 == 2 ? ldexp(u, (int)(s % 250) - 125)
                              : u * 180;
      if (k)
        fy[i] = v;
      else
        fx[i] = v;
    }
    if (i < SPECIAL * SPECIAL) fx[i] = special[i % SPECIAL], fy[i] = special[i / SPECIAL];
  }
}

static void check_f32(zn_ctx *c, int f, const zn_caps *caps) {
  static float x[N], y[N], r[N], one[N];
  zn_kmod *m = kernel(c, caps, functions[f].op, ZN_F32, ZN_F32, N);
  for (int i = 0; i < N; i++) x[i] = (float)fx[i], y[i] = (float)fy[i];
  run(c, m, r, x, y, sizeof x);
  for (int i = 0; i < N; i++) {
    double want = ref_double(functions[f].op, (double)x[i], (double)y[i]), e = ulp_f32(r[i], want);
    if (e > functions[f].f32)
      fail_msg("%s f32 (%s): f(%a, %a) = %a, not %a: %g ulp", functions[f].name, caps->arch,
               (double)x[i], (double)y[i], (double)r[i], want, e);
  }
  zn_caps scalar = *caps;
  scalar.vector_bytes = 0;
  m = kernel(c, &scalar, functions[f].op, ZN_F32, ZN_F32, N);
  run(c, m, one, x, y, sizeof x);
  for (int i = 0; i < N; i++)
    if (memcmp(&r[i], &one[i], 4) && !(isnan(r[i]) && isnan(one[i])))
      fail_msg("%s f32 (%s): vector and scalar differ at %a", functions[f].name, caps->arch,
               (double)x[i]);
}

/* The oracle of f64 needs more bits than f64 has: valgrind computes long double in double. */
static bool long_is_longer(void) {
  volatile long double one = 1, tiny = 0x1p-60L;
  return one + tiny != one;
}

static void check_f64(zn_ctx *c, int f, const zn_caps *caps) {
  static double r[N];
  zn_kmod *m = kernel(c, caps, functions[f].op, ZN_F64, ZN_F64, N);
  run(c, m, r, fx, fy, sizeof fx);
  for (int i = 0; i < N; i++) {
    long double want = ref_long(functions[f].op, (long double)fx[i], (long double)fy[i]);
    double e = ulp_f64(r[i], want);
    if (e > functions[f].f64 && long_is_longer())
      fail_msg("%s f64 (%s): f(%a, %a) = %a, not %La: %g ulp", functions[f].name, caps->arch, fx[i],
               fy[i], r[i], want, e);
  }
}

static void test_functions(void **state) {
  (void)state;
  fill();
  for (size_t k = 0; k < sizeof all_caps / sizeof *all_caps; k++)
    for (int f = 0; f < FUNCTIONS; f++) {
      zn_ctx c;
      zn_ctx_init(&c);
      check_f32(&c, f, &all_caps[k]);
      check_f64(&c, f, &all_caps[k]);
      zn_ctx_fini(&c);
    }
}

/* ---- conversions ---- */

enum { ALL = 65536 };

static bool small_nan(zn_dtype t, uint16_t v) { return isnan(zn_float_decode(t, v)) != 0; }

static void check_widening(zn_ctx *c, const zn_caps *caps, zn_dtype t) {
  static uint16_t x[ALL];
  static float r[ALL];
  for (int i = 0; i < ALL; i++) x[i] = (uint16_t)i;
  zn_kmod *m = kernel(c, caps, ZN_K_Cvt, t, ZN_F32, ALL);
  run(c, m, r, x, x, sizeof r);
  for (int i = 0; i < ALL; i++) {
    float want = (float)zn_float_decode(t, x[i]);
    if (isnan(want) ? !isnan(r[i]) : memcmp(&want, &r[i], 4) != 0)
      fail_msg("%s 0x%04x -> %a, not %a", zn_dtypes[t].name, (unsigned)i, (double)r[i],
               (double)want);
  }
}

/* Every value, the tie above it, and its neighbours, from f32 or f64. */
static void check_narrowing(zn_ctx *c, const zn_caps *caps, zn_dtype from, zn_dtype to) {
  static double x[ALL * 4];
  static float xf[ALL * 4];
  static uint16_t r[ALL * 4];
  int n = 0;
  for (int i = 0; i < ALL; i += 3) {
    double a = zn_float_decode(to, (uint32_t)i), b = zn_float_decode(to, (uint32_t)i + 1),
           mid = a / 2 + b / 2;
    if (((i & 0x7fff) == 0x7bff && to == ZN_F16)) mid = a < 0 ? -65520 : 65520;
    x[n++] = a;
    x[n++] = mid;
    x[n++] = from == ZN_F32 ? (double)nextafterf((float)mid, INFINITY) : nextafter(mid, INFINITY);
    x[n++] = from == ZN_F32 ? (double)nextafterf((float)mid, -INFINITY) : nextafter(mid, -INFINITY);
  }
  for (int i = 0; i < n; i++) xf[i] = (float)x[i];
  zn_kmod *m = kernel(c, caps, ZN_K_Cvt, from, to, n);
  run(c, m, r, from == ZN_F32 ? (const void *)xf : (const void *)x, x, sizeof x);
  for (int i = 0; i < n; i++) {
    double v = from == ZN_F32 ? (double)xf[i] : x[i];
    uint16_t want = (uint16_t)zn_float_encode(to, v, false);
    if (small_nan(to, want) ? !small_nan(to, r[i]) : want != r[i])
      fail_msg("%s -> %s (%s) of %a: 0x%04x, not 0x%04x", zn_dtypes[from].name, zn_dtypes[to].name,
               caps->arch, v, r[i], want);
  }
}

static void check_integers(zn_ctx *c, const zn_caps *caps) {
  static int32_t x[N], back[N];
  static uint16_t r[N];
  for (int i = 0; i < N; i++) x[i] = i < 64 ? (1 << (i / 2 % 31)) + i % 2 : (int32_t)fx[i] + i * 61;
  run(c, kernel(c, caps, ZN_K_Cvt, ZN_I32, ZN_F16, N), r, x, x, sizeof x);
  for (int i = 0; i < N; i++) assert_int_equal(r[i], zn_float_encode(ZN_F16, x[i], false));
  for (int i = 0; i < N; i++)
    r[i] = (uint16_t)zn_float_encode(ZN_F16, (double)(i - 700) / 4, false);
  run(c, kernel(c, caps, ZN_K_Cvt, ZN_F16, ZN_I32, N), back, r, r, sizeof back);
  for (int i = 0; i < N; i++) assert_int_equal(back[i], (int)zn_float_decode(ZN_F16, r[i]));
}

static void test_conversions(void **state) {
  (void)state;
  static const zn_dtype smalls[] = {ZN_F16, ZN_BF16};
  fill();
  for (size_t k = 0; k < sizeof all_caps / sizeof *all_caps; k++) {
    zn_ctx c;
    zn_ctx_init(&c);
    for (int s = 0; s < 2; s++) {
      check_widening(&c, &all_caps[k], smalls[s]);
      check_narrowing(&c, &all_caps[k], ZN_F32, smalls[s]);
      check_narrowing(&c, &all_caps[k], ZN_F64, smalls[s]);
    }
    check_integers(&c, &all_caps[k]);
    zn_ctx_fini(&c);
  }
}

/* Forms with a shorter expansion: 1 + erf(x / c), 1 + tanh(x / c), exp(min(0, x)). */
static zn_kmod *form_kernel(zn_ctx *c, const zn_caps *caps, zn_kop op, double scale) {
  zn_kmod *m = zn_kmod_new(&c->graph, "t");
  zn_kb b;
  zn_kb_begin(&b, c, m, "k", false);
  zn_kref out = zn_kb_param(&b, "out", ZN_KP_OUT, ZN_F32), x = zn_kb_param(&b, "x", ZN_KP_IN, ZN_F32);
  zn_kb_param(&b, "y", ZN_KP_IN, ZN_F32);
  zn_kref lo = zn_kb_idx(&b, 0), hi = zn_kb_idx(&b, N), k = zn_kb_float(&b, ZN_F32, scale);
  zn_kref zero = zn_kb_float(&b, ZN_F32, 0), one = zn_kb_float(&b, ZN_F32, 1);
  zn_kref i = zn_kb_for(&b, lo, hi, 1, ZN_FOR_VECTOR, 0), v = zn_kb_load(&b, ZN_F32, 1, x, i);
  v = op == ZN_K_Exp ? zn_kb_bin(&b, ZN_K_Min, zero, v) : zn_kb_bin(&b, ZN_K_Div, v, k);
  v = zn_kb_un(&b, op, v);
  if (op != ZN_K_Exp) v = zn_kb_bin(&b, ZN_K_Add, one, v);
  zn_kb_store(&b, out, i, v);
  zn_kb_end(&b);
  zn_kb_finish(&b);
  assert_int_equal(zn_kpass_widen(c, m, caps), ZN_OK);
  assert_int_equal(zn_kpass_expand(c, m, caps), ZN_OK);
  assert_int_equal(zn_kmod_verify(c, m), ZN_OK);
  return m;
}

static void test_forms(void **state) {
  static const zn_kop ops[] = {ZN_K_Erf, ZN_K_Tanh, ZN_K_Exp};
  static float x[N], r[N];
  const double scale = (double)1.41421356f;
  (void)state;
  fill();
  for (int i = 0; i < N; i++) x[i] = (float)fx[i];
  for (size_t k = 0; k < sizeof all_caps / sizeof *all_caps; k++)
    for (int f = 0; f < 3; f++) {
      zn_ctx c;
      zn_ctx_init(&c);
      run(&c, form_kernel(&c, &all_caps[k], ops[f], scale), r, x, x, sizeof r);
      for (int i = 0; i < N; i++) {
        double v = (double)x[i], z = v / scale;
        double e = f == 0 ? 1 + erf(z) : f == 1 ? 1 + tanh(z) : exp(v < 0 ? v : v >= 0 ? 0 : v);
        double tol = f < 2 ? 7e-7 : 1.4e-7 * e + 0x1p-149;
        if (isnan(e))
          assert_true(isnan(r[i]));
        else if (!(fabs((double)r[i] - e) <= tol))
          fail_msg("%s, form %d: x %.9g gives %.9g, expected %.9g", all_caps[k].arch, f, v, (double)r[i], e);
        if (f < 2 && z > 10) assert_true(r[i] == 2);
        if (f < 2 && z < -10) assert_true(r[i] == 0);
      }
      zn_ctx_fini(&c);
    }
}

/* Six calls behind each other, of which groups are written side by side, give what each alone gives; call 1 is of the result
 * of call 0 and only has to stay behind it. */
enum { CALLS = 6 };

static zn_kmod *strands_kernel(zn_ctx *c, const zn_caps *caps) {
  zn_kmod *m = zn_kmod_new(&c->graph, "t");
  zn_kb b;
  zn_kb_begin(&b, c, m, "k", false);
  zn_kref out = zn_kb_param(&b, "out", ZN_KP_OUT, ZN_F32), x = zn_kb_param(&b, "x", ZN_KP_IN, ZN_F32), v[CALLS];
  zn_kb_param(&b, "y", ZN_KP_IN, ZN_F32);
  zn_kref lo = zn_kb_idx(&b, 0), hi = zn_kb_idx(&b, N / CALLS), of = zn_kb_idx(&b, CALLS), at[CALLS];
  zn_kref i = zn_kb_for(&b, lo, hi, 1, ZN_FOR_SERIAL, 0), first = zn_kb_bin(&b, ZN_K_Mul, i, of);
  zn_kref scale = zn_kb_float(&b, ZN_F32, zn_exp_scale(ZN_F32));
  for (int k = 0; k < CALLS; k++) {
    at[k] = zn_kb_bin(&b, ZN_K_Add, first, zn_kb_idx(&b, k));
    zn_kref a = zn_kb_un(&b, ZN_K_Abs, zn_kb_load(&b, ZN_F32, 1, x, at[k]));
    v[k] = zn_kb_un(&b, ZN_K_Neg, a);
  }
  for (int k = 0; k < CALLS; k++) v[k] = zn_kb_bin(&b, ZN_K_ScaledExp, v[k == 1 ? 0 : k], scale);
  for (int k = 0; k < CALLS; k++) zn_kb_store(&b, out, at[k], v[k]);
  zn_kb_end(&b);
  zn_kb_finish(&b);
  assert_int_equal(zn_kpass_expand(c, m, caps), ZN_OK);
  assert_int_equal(zn_kmod_verify(c, m), ZN_OK);
  return m;
}

static void test_strands(void **state) {
  static float x[N], r[N], e[N];
  (void)state;
  fill();
  for (int i = 0; i < N; i++) x[i] = (float)fx[i];
  for (size_t k = 0; k < sizeof all_caps / sizeof *all_caps; k++) {
    zn_ctx c;
    zn_ctx_init(&c);
    run(&c, kernel(&c, &all_caps[k], ZN_K_ScaledExp, ZN_F32, ZN_F32, N), e, x, x, sizeof x);
    run(&c, strands_kernel(&c, &all_caps[k]), r, x, x, sizeof x);
    for (int i = 0; i < N; i++)
      if (i % CALLS != 1 && memcmp(&r[i], &e[i], 4) && !(isnan(r[i]) && isnan(e[i])))
        fail_msg("%s: call %d of %a gives %a, not %a", all_caps[k].arch, i % CALLS, (double)x[i], (double)r[i], (double)e[i]);
    zn_ctx_fini(&c);
  }
}

/* Products of bf16: out = dot(x, y, dot(y, x, x)), as one operation or expanded. */
static zn_kmod *bf16_kernel(zn_ctx *c, const zn_caps *caps) {
  zn_kmod *m = zn_kmod_new(&c->graph, "t");
  zn_kb b;
  zn_kb_begin(&b, c, m, "k", false);
  zn_kref out = zn_kb_param(&b, "out", ZN_KP_OUT, ZN_I32), x = zn_kb_param(&b, "x", ZN_KP_IN, ZN_I32);
  zn_kref y = zn_kb_param(&b, "y", ZN_KP_IN, ZN_I32), lo = zn_kb_idx(&b, 0), hi = zn_kb_idx(&b, N);
  zn_kref i = zn_kb_for(&b, lo, hi, 1, ZN_FOR_VECTOR, 0), v = zn_kb_load(&b, ZN_I32, 1, x, i);
  zn_kref w = zn_kb_load(&b, ZN_I32, 1, y, i);
  zn_kref sum = zn_kb_dot(&b, ZN_K_Dot2Bf16, w, v, v, 0);
  zn_kb_store(&b, out, i, zn_kb_dot(&b, ZN_K_Dot2Bf16, v, w, sum, 0));
  zn_kb_end(&b);
  zn_kb_finish(&b);
  assert_int_equal(zn_kpass_widen(c, m, caps), ZN_OK);
  assert_int_equal(zn_kpass_expand(c, m, caps), ZN_OK);
  assert_int_equal(zn_kmod_verify(c, m), ZN_OK);
  bool found = false;
  for (uint32_t k = 1; k < m->funcs[0]->num_insts; k++) found |= m->funcs[0]->insts[k].op == ZN_K_Dot2Bf16;
  assert_true(found == caps->dot_bf16);
  return m;
}

static float bf16_part(uint32_t word, bool upper) {
  const uint32_t bits = upper ? word & 0xffff0000u : word << 16;
  float v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

static float bf16_dot(uint32_t x, uint32_t y, float sum) {
  sum = fmaf(bf16_part(x, true), bf16_part(y, true), sum);
  return fmaf(bf16_part(x, false), bf16_part(y, false), sum);
}

/* Both forms on numbers that are normal; the operation takes subnormal ones for zeros. */
static void test_bf16(void **state) {
  static const zn_caps caps[] = {
      {.arch = "dots", .idx_bytes = 8, .vector_bytes = 32, .fma = true, .f64_native = true, .dot_bf16 = true},
      {.arch = "fma", .idx_bytes = 8, .vector_bytes = 32, .fma = true, .f64_native = true}};
  static uint32_t x[N], y[N], r[N];
  (void)state;
  for (uint32_t i = 0; i < N; i++) { /* exponents from 2^-32 to 2^31, any signs and mantissas */
    const uint32_t a = i * 2654435761u, b = (i + 7) * 2246822519u;
    x[i] = (a & 0x807f807fu) | (0x2f802f80u + ((a >> 7 & 63) << 23) + ((a >> 20 & 63) << 7));
    y[i] = (b & 0x807f807fu) | (0x2f802f80u + ((b >> 9 & 63) << 23) + ((b >> 19 & 63) << 7));
  }
  for (size_t k = 0; k < 2; k++) {
    zn_ctx c;
    zn_ctx_init(&c);
    run(&c, bf16_kernel(&c, &caps[k]), r, x, y, sizeof r);
    for (int i = 0; i < N; i++) {
      float start, e, got;
      memcpy(&start, &x[i], sizeof start);
      e = bf16_dot(x[i], y[i], bf16_dot(y[i], x[i], start));
      memcpy(&got, &r[i], sizeof got);
      if (memcmp(&e, &got, sizeof e))
        fail_msg("%s: %08x . %08x gives %a, not %a", caps[k].arch, x[i], y[i], (double)got, (double)e);
    }
    for (int i = 0; i < N; i++) x[i] = 0x3f800001u + (uint32_t)i % 100, y[i] = 0x00013f80u; /* 1 * 2^-133, 2^-133 * 1 */
    run(&c, bf16_kernel(&c, &caps[k]), r, x, y, sizeof r);
    for (int i = 0; i < N; i++) {
      const uint32_t sum = x[i]; /* too small to change it */
      assert_int_equal(r[i], sum);
      x[i] = 0x7f000000u, y[i] = 0x00400000u; /* 2^127 * 2^-127: one, or nothing where that is zero */
    }
    run(&c, bf16_kernel(&c, &caps[k]), r, y, x, sizeof r);
    for (int i = 0; i < N; i++) assert_int_equal(r[i], caps[k].dot_bf16 ? 0 : 0x40000000u);
    zn_ctx_fini(&c);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_functions), cmocka_unit_test(test_forms), cmocka_unit_test(test_bf16),
                                     cmocka_unit_test(test_strands), cmocka_unit_test(test_conversions)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
