/* Widening: every function gives bit-equal buffers before and after; a register tile has exactly
 * the expected ops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codegen/kir/kir.h"

enum { ELEMS = 4096, BUFS = 4 };

typedef void (*builder)(zn_kb *b, const zn_kref *p, zn_kref n);

static zn_kmod *make(zn_ctx *c, builder fn) {
  zn_kmod *m = zn_kmod_new(&c->graph, "t");
  zn_kb b;
  zn_kref p[BUFS], n;
  zn_kb_begin(&b, c, m, "k", false);
  p[0] = zn_kb_param(&b, "out", ZN_KP_INOUT, ZN_F32);
  p[1] = zn_kb_param(&b, "x", ZN_KP_IN, ZN_F32);
  p[2] = zn_kb_param(&b, "y", ZN_KP_IN, ZN_F32);
  p[3] = zn_kb_param(&b, "z", ZN_KP_IN, ZN_I32);
  n = zn_kb_param(&b, "n", ZN_KP_INT, ZN_IDX);
  fn(&b, p, n);
  zn_kb_finish(&b);
  return m;
}

static void fill(float *x, int32_t *z) {
  uint32_t s = 12345;
  for (int k = 0; k < BUFS - 1; k++)
    for (int i = 0; i < ELEMS; i++) {
      s = s * 1664525u + 1013904223u;
      x[k * ELEMS + i] = (float)(int32_t)(s >> 8) / 8388608.0f - 1.0f;
    }
  for (int i = 0; i < ELEMS; i++) {
    s = s * 1664525u + 1013904223u;
    z[i] = (int32_t)((s >> 20) % 512);
  }
}

static void run(zn_ctx *c, const zn_kmod *m, float *x, int32_t *z, int64_t n) {
  void *bufs[BUFS] = {x, x + ELEMS, x + 2 * ELEMS, z};
  uint64_t bytes[BUFS] = {ELEMS * 4, ELEMS * 4, ELEMS * 4, ELEMS * 4};
  zn_interp_opts o = {.check_bounds = true};
  fill(x, z);
  assert_int_equal(zn_interp_kernel(c, m, 0, bufs, bytes, &n, &o), 0);
}

static float before[ELEMS * (BUFS - 1)], after[ELEMS * (BUFS - 1)];
static int32_t ints[ELEMS];

static const zn_caps avx2 = {
    .arch = "test", .idx_bytes = 8, .vector_bytes = 32, .vector_regs = 16, .fma = true};
static const zn_caps scalar = {.arch = "test", .idx_bytes = 4};

static unsigned count(const zn_kmod *m, zn_kop op, unsigned lanes) {
  unsigned n = 0;
  for (uint32_t i = 1; i < m->funcs[0]->num_insts; i++)
    n += m->funcs[0]->insts[i].op == op && (lanes == 0 || m->funcs[0]->insts[i].lanes == lanes);
  return n;
}

static unsigned marks(const zn_kmod *m) {
  unsigned n = 0;
  for (uint32_t i = 1; i < m->funcs[0]->num_insts; i++) {
    const zn_kinst *in = &m->funcs[0]->insts[i];
    n += in->op == ZN_K_For && (in->c & 255) != ZN_FOR_SERIAL;
  }
  return n;
}

/* Widens, compares for n in [0, max_n], returns the widened module. */
static zn_kmod *check(zn_ctx *c, builder fn, const zn_caps *caps, int64_t max_n) {
  zn_kmod *old = make(c, fn), *m = make(c, fn);
  assert_int_equal(zn_kpass_widen(c, m, caps), ZN_OK);
  if (zn_kmod_verify(c, m) != ZN_OK || getenv("SHOW")) {
    zn_text t;
    zn_text_init(&t, &c->graph);
    zn_kmod_print(m, &t);
    puts(t.s);
  }
  assert_int_equal(zn_kmod_verify(c, m), ZN_OK);
  assert_int_equal(marks(m), 0);
  for (int64_t n = 0; n <= max_n; n++) {
    run(c, old, before, ints, n);
    run(c, m, after, ints, n);
    for (int i = 0; i < ELEMS; i++)
      if (memcmp(&before[i], &after[i], 4))
        fail_msg("n=%d element %d: %g, not %g", (int)n, i, (double)after[i], (double)before[i]);
  }
  return m;
}

/* ---- helpers for building ---- */

static zn_kref ik(zn_kb *b, int64_t k) { return zn_kb_idx(b, k); }
static zn_kref addk(zn_kb *b, zn_kref x, int64_t k) {
  zn_kref c = ik(b, k);
  return zn_kb_bin(b, ZN_K_Add, x, c);
}
static zn_kref mulk(zn_kb *b, zn_kref x, int64_t k) {
  zn_kref c = ik(b, k);
  return zn_kb_bin(b, ZN_K_Mul, x, c);
}
static zn_kref add(zn_kb *b, zn_kref x, zn_kref y) { return zn_kb_bin(b, ZN_K_Add, x, y); }
static zn_kref loop(zn_kb *b, int64_t lo, int64_t hi, zn_for_kind kind, unsigned f) {
  zn_kref l = ik(b, lo), h = ik(b, hi);
  return zn_kb_for(b, l, h, 1, kind, f);
}
static zn_kref loop_n(zn_kb *b, zn_kref n, zn_for_kind kind, unsigned f) {
  zn_kref l = ik(b, 0);
  return zn_kb_for(b, l, n, 1, kind, f);
}
static zn_kref ld(zn_kb *b, zn_kref p, zn_kref i) { return zn_kb_load(b, ZN_F32, 1, p, i); }

/* ---- cases ---- */

static void tile_loops(zn_kb *b, const zn_kref *p, int64_t rows, int64_t cols, unsigned mr,
                       unsigned nr) {
  zn_kref m = loop(b, 0, rows, ZN_FOR_UNROLL, mr);
  zn_kref n = loop(b, 0, cols, ZN_FOR_VECTOR, nr);
  zn_kref zero = zn_kb_float(b, ZN_F32, 0), acc = zn_kb_var(b, zero);
  zn_kref k = loop(b, 0, 24, ZN_FOR_SERIAL, 0);
  zn_kref arow = mulk(b, m, 24), ai = add(b, arow, k), a = ld(b, p[1], ai);
  zn_kref brow = mulk(b, k, cols), bi = add(b, brow, n), bv = ld(b, p[2], bi);
  zn_kref old = zn_kb_get(b, acc), next = zn_kb_fma(b, a, bv, old);
  zn_kb_set(b, acc, next);
  zn_kb_end(b);
  zn_kref crow = mulk(b, m, cols), ci = add(b, crow, n), v = zn_kb_get(b, acc);
  zn_kb_store(b, p[0], ci, v);
  zn_kb_end(b);
  zn_kb_end(b);
}

static void tile_6x16(zn_kb *b, const zn_kref *p, zn_kref n) {
  (void)n;
  tile_loops(b, p, 6, 16, 6, 16);
}

static void matmul_rests(zn_kb *b, const zn_kref *p, zn_kref n) {
  (void)n;
  tile_loops(b, p, 20, 23, 6, 8);
}

static void test_tile(void **state) {
  (void)state;
  zn_ctx c;
  zn_ctx_init(&c);
  zn_kmod *m = check(&c, tile_6x16, &avx2, 0);
  assert_int_equal(count(m, ZN_K_For, 0), 1);
  assert_int_equal(count(m, ZN_K_Var, 8), 12);
  assert_int_equal(count(m, ZN_K_Fma, 8), 12);
  assert_int_equal(count(m, ZN_K_Fma, 1), 0);
  assert_int_equal(count(m, ZN_K_Load, 8), 2);
  assert_int_equal(count(m, ZN_K_Load, 1), 6);
  assert_int_equal(count(m, ZN_K_Store, 8), 12);
  uint32_t *match = zn_kf_match(m->funcs[0], &c.graph), from = 0;
  for (uint32_t i = 1; i < m->funcs[0]->num_insts; i++)
    if (m->funcs[0]->insts[i].op == ZN_K_For) from = i;
  unsigned splats = 0;
  for (uint32_t i = from; i < match[from]; i++) splats += m->funcs[0]->insts[i].op == ZN_K_Splat;
  assert_int_equal(splats, 6);
  check(&c, matmul_rests, &avx2, 0);
  m = check(&c, tile_6x16, &scalar, 0);
  assert_int_equal(count(m, ZN_K_Fma, 1), 6);
  zn_ctx_fini(&c);
}

/* out[i*n + j] = x[j] + y[i], runtime n */
static void broadcast(zn_kb *b, const zn_kref *p, zn_kref n) {
  zn_kref i = loop(b, 0, 3, ZN_FOR_SERIAL, 0);
  zn_kref j = loop_n(b, n, ZN_FOR_VECTOR, 0);
  zn_kref x = ld(b, p[1], j), y = ld(b, p[2], i), s = add(b, x, y);
  zn_kref row = zn_kb_bin(b, ZN_K_Mul, i, n), at = add(b, row, j);
  zn_kb_store(b, p[0], at, s);
  zn_kb_end(b);
  zn_kb_end(b);
}

/* out[2i] = x[n - 1 - i] + x[2i] + x[3i + 1] + y[7i] + float(i), i32 ramps too */
static void strides(zn_kb *b, const zn_kref *p, zn_kref n) {
  zn_kref i = loop_n(b, n, ZN_FOR_VECTOR, 8);
  zn_kref last = addk(b, n, -1), rev = zn_kb_bin(b, ZN_K_Sub, last, i), v = ld(b, p[1], rev);
  zn_kref i2 = mulk(b, i, 2), w = ld(b, p[1], i2);
  v = add(b, v, w);
  zn_kref i3 = mulk(b, i, 3), i31 = addk(b, i3, 1);
  w = ld(b, p[1], i31);
  v = add(b, v, w);
  zn_kref i7 = mulk(b, i, 7);
  w = ld(b, p[2], i7);
  v = add(b, v, w);
  zn_kref q = zn_kb_cvt(b, i, ZN_I32), three = zn_kb_int(b, ZN_I32, 3);
  q = zn_kb_bin(b, ZN_K_Mul, q, three);
  w = zn_kb_cvt(b, q, ZN_F32);
  v = add(b, v, w);
  zn_kb_store(b, p[0], i2, v);
  zn_kb_end(b);
}

/* depthwise-like: out[i] = sum_k x[i + k] * y[k], and a gather by integers */
static void depthwise(zn_kb *b, const zn_kref *p, zn_kref n) {
  zn_kref i = loop_n(b, n, ZN_FOR_VECTOR, 0);
  zn_kref zero = zn_kb_float(b, ZN_F32, 0), acc = zn_kb_var(b, zero);
  zn_kref k = loop(b, 0, 3, ZN_FOR_SERIAL, 0);
  zn_kref ik_ = add(b, i, k), x = ld(b, p[1], ik_), y = ld(b, p[2], k);
  zn_kref o = zn_kb_get(b, acc), s = zn_kb_fma(b, x, y, o);
  zn_kb_set(b, acc, s);
  zn_kb_end(b);
  zn_kref g = zn_kb_load(b, ZN_I32, 1, p[3], i), gi = zn_kb_cvt(b, g, ZN_IDX);
  zn_kref gv = ld(b, p[1], gi), t = zn_kb_get(b, acc), r = add(b, t, gv);
  zn_kb_store(b, p[0], i, r);
  zn_kb_end(b);
}

/* out[j*5 + i] = x[i*n + j]: gathers or scatters, PtrAdd with a stride, unrolled twice outside */
static void transpose(zn_kb *b, const zn_kref *p, zn_kref n) {
  zn_kref i = loop(b, 0, 5, ZN_FOR_UNROLL, 2);
  zn_kref j = loop_n(b, n, ZN_FOR_VECTOR, 0);
  zn_kref row = zn_kb_bin(b, ZN_K_Mul, i, n), from = add(b, row, j);
  zn_kref x = ld(b, p[1], from);
  zn_kref j5 = mulk(b, j, 20), q = zn_kb_ptradd(b, p[0], j5);
  zn_kb_prefetch(b, p[1], from);
  zn_kb_store(b, q, i, x);
  zn_kb_end(b);
  zn_kb_end(b);
}

/* a varying If that only sets variables; its else; nested */
static void varying_if(zn_kb *b, const zn_kref *p, zn_kref n) {
  zn_kref i = loop_n(b, n, ZN_FOR_VECTOR, 0);
  zn_kref x = ld(b, p[1], i), zero = zn_kb_float(b, ZN_F32, 0), half = zn_kb_float(b, ZN_F32, 0.5);
  zn_kref v = zn_kb_var(b, zero), pos = zn_kb_cmp(b, ZN_K_Gt, x, zero);
  zn_kb_if(b, pos);
  zn_kref big = zn_kb_cmp(b, ZN_K_Gt, x, half);
  zn_kb_if(b, big);
  zn_kb_set(b, v, half);
  zn_kb_else(b);
  zn_kref xx = zn_kb_bin(b, ZN_K_Mul, x, x);
  zn_kb_set(b, v, xx);
  zn_kb_end(b);
  zn_kb_else(b);
  zn_kref g = zn_kb_get(b, v), d = zn_kb_bin(b, ZN_K_Sub, g, x);
  zn_kb_set(b, v, d);
  zn_kb_end(b);
  zn_kref r = zn_kb_get(b, v);
  zn_kb_store(b, p[0], i, r);
  zn_kb_end(b);
}

/* inner bounds that vary: serial as VECTOR, replicated blocks as UNROLL */
static void triangle(zn_kb *b, const zn_kref *p, zn_kref n, zn_for_kind kind) {
  zn_kref i = loop_n(b, n, kind, 3);
  zn_kref zero = zn_kb_float(b, ZN_F32, 0), acc = zn_kb_var(b, zero),
          lim = zn_kb_float(b, ZN_F32, 0.9);
  zn_kref lo = ik(b, 0), hi = addk(b, i, 2);
  zn_kref k = zn_kb_for(b, lo, hi, 1, ZN_FOR_SERIAL, 0);
  zn_kref x = ld(b, p[1], k), o = zn_kb_get(b, acc), s = add(b, o, x);
  zn_kb_set(b, acc, s);
  zn_kref stop = zn_kb_cmp(b, ZN_K_Gt, s, lim);
  zn_kb_break(b, stop);
  zn_kb_end(b);
  zn_kref r = zn_kb_get(b, acc);
  zn_kref odd = zn_kb_cmp(b, ZN_K_Lt, r, lim);
  zn_kb_if(b, odd);
  zn_kb_store(b, p[0], i, r);
  zn_kb_end(b);
  zn_kb_end(b);
}
static void triangle_vector(zn_kb *b, const zn_kref *p, zn_kref n) {
  triangle(b, p, n, ZN_FOR_VECTOR);
}
static void triangle_unroll(zn_kb *b, const zn_kref *p, zn_kref n) {
  triangle(b, p, n, ZN_FOR_UNROLL);
}

/* VECTOR outside UNROLL outside a serial loop, step 2 outside, bounds lo + 16 */
static void nests(zn_kb *b, const zn_kref *p, zn_kref n) {
  zn_kref lo0 = ik(b, 1);
  zn_kref t = zn_kb_for(b, lo0, n, 2, ZN_FOR_UNROLL, 2);
  zn_kref t32 = mulk(b, t, 32), hi = addk(b, t32, 24);
  zn_kref i = zn_kb_for(b, t32, hi, 1, ZN_FOR_VECTOR, 0);
  zn_kref m = loop(b, 0, 4, ZN_FOR_UNROLL, 4);
  zn_kref zero = zn_kb_float(b, ZN_F32, 0), acc = zn_kb_var(b, zero);
  zn_kref k = loop(b, 0, 3, ZN_FOR_SERIAL, 0);
  zn_kref mk = mulk(b, m, 3), mi = add(b, mk, k), y = ld(b, p[2], mi);
  zn_kref ki = add(b, i, k), x = ld(b, p[1], ki), o = zn_kb_get(b, acc), s = zn_kb_fma(b, x, y, o);
  zn_kb_set(b, acc, s);
  zn_kb_end(b);
  zn_kref i4 = mulk(b, i, 4), at = add(b, i4, m), r = zn_kb_get(b, acc);
  zn_kb_store(b, p[0], at, r);
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_end(b);
}

/* reduction through a variable from outside: must stay serial */
static void reduction(zn_kb *b, const zn_kref *p, zn_kref n) {
  zn_kref zero = zn_kb_float(b, ZN_F32, 0), acc = zn_kb_var(b, zero), at = ik(b, 0);
  zn_kref i = loop_n(b, n, ZN_FOR_VECTOR, 0);
  zn_kref x = ld(b, p[1], i), o = zn_kb_get(b, acc), s = add(b, o, x);
  zn_kb_set(b, acc, s);
  zn_kb_end(b);
  zn_kref r = zn_kb_get(b, acc);
  zn_kb_store(b, p[0], at, r);
}

/* f16 in, u8 out through bool and select, lanes by the widest type */
static void narrow(zn_kb *b, const zn_kref *p, zn_kref n) {
  zn_kref i = loop_n(b, n, ZN_FOR_VECTOR, 0);
  zn_kref h = zn_kb_load(b, ZN_F16, 1, p[1], i), x = zn_kb_cvt(b, h, ZN_F32);
  zn_kref zero = zn_kb_float(b, ZN_F32, 0), gt = zn_kb_cmp(b, ZN_K_Gt, x, zero);
  zn_kref q = zn_kb_cvt(b, gt, ZN_U8), two = zn_kb_int(b, ZN_U8, 2), r = add(b, q, two);
  zn_kb_store(b, p[0], i, r);
  zn_kb_end(b);
}

static void test_cases(void **state) {
  (void)state;
  zn_ctx c;
  zn_ctx_init(&c);
  static const struct {
    builder fn;
    unsigned vector_loads;
  } cases[] = {{broadcast, 1},  {strides, 2},         {depthwise, 1},       {transpose, 1},
               {varying_if, 1}, {triangle_vector, 0}, {triangle_unroll, 0}, {nests, 1},
               {reduction, 0},  {narrow, 1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    zn_kmod *m = check(&c, cases[i].fn, &avx2, 19);
    unsigned v = count(m, ZN_K_Load, 8);
    if ((v > 0) != (cases[i].vector_loads > 0)) fail_msg("case %d: %u vector loads", (int)i, v);
    check(&c, cases[i].fn, &scalar, 19);
  }
  zn_ctx_fini(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_tile), cmocka_unit_test(test_cases)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
