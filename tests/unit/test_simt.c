/* The SIMT mapping: where barriers go, which loops become thread loops, and that the interpreter runs a team's iterations from
 * barrier to barrier. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codegen/cstyle/cstyle.h"
#include "codegen/kir/kir.h"

static const zn_caps gpu = {.target = "cuda", .idx_bytes = 8, .simt = true, .warp = 32, .shared_bytes = 1 << 16};

typedef void (*builder)(zn_kb *b, zn_kref out, zn_kref x);

static zn_kmod *make(zn_ctx *c, builder fn) {
  zn_kmod *m = zn_kmod_new(&c->graph, "t");
  zn_kb b;
  zn_kb_begin(&b, c, m, "k", false);
  zn_kref out = zn_kb_param(&b, "out", ZN_KP_INOUT, ZN_F32), x = zn_kb_param(&b, "x", ZN_KP_IN, ZN_F32);
  fn(&b, out, x);
  zn_kb_finish(&b);
  assert_int_equal(zn_kpass_threads(c, m), ZN_OK);
  assert_int_equal(zn_kpass_simt(c, m, &gpu), ZN_OK);
  return m;
}

static unsigned count(const zn_kmod *m, zn_kop op) {
  unsigned n = 0;
  for (uint32_t i = 1; i < m->funcs[0]->num_insts; i++) n += m->funcs[0]->insts[i].op == op;
  return n;
}

static unsigned thread_loops(const zn_kmod *m) {
  unsigned n = 0;
  for (uint32_t i = 1; i < m->funcs[0]->num_insts; i++) {
    const zn_kinst *in = &m->funcs[0]->insts[i];
    n += in->op == ZN_K_For && (in->c & 255) == ZN_FOR_THREAD;
  }
  return n;
}

static zn_kref loop(zn_kb *b, int64_t n, zn_for_kind kind, unsigned factor) {
  zn_kref lo = zn_kb_idx(b, 0), hi = zn_kb_idx(b, n);
  return zn_kb_for(b, lo, hi, 1, kind, factor);
}

/* partial[l] = x[l]; partial[l] += partial[l + 16] ...; out[0] = partial[0] */
static void tree(zn_kb *b, zn_kref out, zn_kref x) {
  zn_kref part = zn_kb_alloc(b, ZN_F32, 32);
  zn_kref l = loop(b, 32, ZN_FOR_VECTOR, 0);
  zn_kb_store(b, part, l, zn_kb_load(b, ZN_F32, 1, x, l));
  zn_kb_end(b);
  for (int64_t w = 16; w > 0; w /= 2) {
    zn_kref i = loop(b, w, ZN_FOR_VECTOR, 0);
    zn_kref far = zn_kb_bin(b, ZN_K_Add, i, zn_kb_idx(b, w));
    zn_kref here = zn_kb_load(b, ZN_F32, 1, part, i), there = zn_kb_load(b, ZN_F32, 1, part, far);
    zn_kb_store(b, part, i, zn_kb_bin(b, ZN_K_Add, here, there));
    zn_kb_end(b);
  }
  zn_kref zero = zn_kb_idx(b, 0);
  zn_kb_store(b, out, zero, zn_kb_load(b, ZN_F32, 1, part, zero));
}

/* out[i] = 2 x[i] in one phase, out[i + 64] = x[i] in the next: different places of one buffer, still a barrier; x only read */
static void two_phases(zn_kb *b, zn_kref out, zn_kref x) {
  for (int p = 0; p < 2; p++) {
    zn_kref i = loop(b, 64, ZN_FOR_VECTOR, 0), v = zn_kb_load(b, ZN_F32, 1, x, i);
    zn_kb_store(b, out, zn_kb_bin(b, ZN_K_Add, i, zn_kb_idx(b, 64 * p)), v);
    zn_kb_end(b);
  }
}

/* A marked loop that stores to one place stays serial. */
static void fixed_place(zn_kb *b, zn_kref out, zn_kref x) {
  zn_kref i = loop(b, 8, ZN_FOR_VECTOR, 0), v = zn_kb_load(b, ZN_F32, 1, x, i);
  zn_kb_store(b, out, zn_kb_idx(b, 3), v);
  zn_kb_end(b);
}

/* Reads what the first thread stored, in every turn of a serial loop. */
static void carried(zn_kb *b, zn_kref out, zn_kref x) {
  zn_kref zero = zn_kb_idx(b, 0);
  loop(b, 4, ZN_FOR_SERIAL, 0);
  zn_kref v = zn_kb_load(b, ZN_F32, 1, out, zero);
  zn_kb_store(b, out, zero, zn_kb_bin(b, ZN_K_Add, v, zn_kb_load(b, ZN_F32, 1, x, zero)));
  zn_kref i = loop(b, 32, ZN_FOR_VECTOR, 0);
  zn_kb_store(b, out, zn_kb_bin(b, ZN_K_Add, i, zn_kb_idx(b, 8)), v);
  zn_kb_end(b);
  zn_kb_end(b);
}

/* Every thread gives its number to its neighbour through shared memory and keeps a sum in a variable across the barriers. */
static void neighbours(zn_kb *b, zn_kref out, zn_kref x) {
  zn_kref shared = zn_kb_alloc(b, ZN_F32, 64), t = loop(b, 64, ZN_FOR_THREAD, 64);
  zn_kref sum = zn_kb_var(b, zn_kb_float(b, ZN_F32, 0));
  zn_kref next = zn_kb_bin(b, ZN_K_Rem, zn_kb_bin(b, ZN_K_Add, t, zn_kb_idx(b, 1)), zn_kb_idx(b, 64));
  loop(b, 3, ZN_FOR_SERIAL, 0);
  zn_kb_store(b, shared, t, zn_kb_load(b, ZN_F32, 1, x, t));
  zn_kb_raw(b, (zn_kinst){.op = ZN_K_Barrier, .lanes = 1});
  zn_kref old = zn_kb_get(b, sum);
  zn_kb_set(b, sum, zn_kb_bin(b, ZN_K_Add, old, zn_kb_load(b, ZN_F32, 1, shared, next)));
  zn_kb_raw(b, (zn_kinst){.op = ZN_K_Barrier, .lanes = 1});
  zn_kb_end(b);
  zn_kb_store(b, out, t, zn_kb_get(b, sum));
  zn_kb_end(b);
}

/* One warp: A is the identity plus a far corner, B counts, C is ones; thread l stores its four results at 4 l. */
static void product_of(zn_kb *b, zn_kref out, zn_kref x, zn_mma_format format) {
  zn_kref t = loop(b, 32, ZN_FOR_THREAD, 32), words[2];
  for (int m = 0; m < 2; m++) { /* fragments lie in x as words: A at 0, B at 128 */
    unsigned lanes = m == 0 ? 4 : 2;
    zn_kref at = zn_kb_bin(b, ZN_K_Mul, t, zn_kb_idx(b, lanes));
    words[m] = zn_kb_load(b, ZN_U32, lanes, x, zn_kb_bin(b, ZN_K_Add, at, zn_kb_idx(b, m * 128)));
  }
  zn_dtype sum = zn_mma_sum(format);
  zn_kref one = zn_kb_splat(b, sum == ZN_I32 ? zn_kb_int(b, sum, 1) : zn_kb_float(b, sum, 1), 4);
  zn_kref d = zn_kb_raw(b, (zn_kinst){.op = ZN_K_Mma, .dtype = (uint8_t)sum, .lanes = 4, .a = words[0], .b = words[1],
                                      .c = one, .imm.i = format});
  zn_kb_store(b, out, zn_kb_bin(b, ZN_K_Mul, t, zn_kb_idx(b, 4)), d);
  zn_kb_end(b);
}

static void product(zn_kb *b, zn_kref y, zn_kref x) { product_of(b, y, x, ZN_MMA_F16); }
static void product_tf32(zn_kb *b, zn_kref y, zn_kref x) { product_of(b, y, x, ZN_MMA_TF32); }
static void product_s8(zn_kb *b, zn_kref y, zn_kref x) { product_of(b, y, x, ZN_MMA_S8); }
static void product_u8s8(zn_kb *b, zn_kref y, zn_kref x) { product_of(b, y, x, ZN_MMA_U8S8); }

/* A barrier that only some threads reach. */
static void divergent(zn_kb *b, zn_kref out, zn_kref x) {
  (void)x;
  zn_kref t = loop(b, 32, ZN_FOR_THREAD, 32);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, t, zn_kb_idx(b, 7)));
  zn_kb_raw(b, (zn_kinst){.op = ZN_K_Barrier, .lanes = 1});
  zn_kb_end(b);
  zn_kb_store(b, out, t, zn_kb_float(b, ZN_F32, 1));
  zn_kb_end(b);
}

/* A warp's first thread has runs of x copied into two slots in turn; the other warp adds them up. `steps` are awaited. */
static void relay(zn_kb *b, zn_kref y, zn_kref x, int64_t steps) {
  zn_kref slots = zn_kb_alloc(b, ZN_F32, 64), full = zn_kb_alloc(b, ZN_U64, 2), empty = zn_kb_alloc(b, ZN_U64, 2);
  zn_kref t = loop(b, 64, ZN_FOR_THREAD, 64), none = zn_kb_idx(b, 0), first = zn_kb_cmp(b, ZN_K_Eq, t, none);
  zn_kref two = zn_kb_idx(b, 2);
  zn_kb_if(b, first);
  for (int64_t s = 0; s < 2; s++) {
    zn_kb_signal_set(b, zn_kb_ptradd(b, full, zn_kb_idx(b, 8 * s)), 1);
    zn_kb_signal_set(b, zn_kb_ptradd(b, empty, zn_kb_idx(b, 8 * s)), 1);
  }
  zn_kb_end(b);
  zn_kb_statement(b, ZN_K_Barrier);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, t, zn_kb_idx(b, 32)));
  zn_kb_registers(b, -40);
  zn_kb_if(b, first);
  zn_kref s = loop(b, 4, ZN_FOR_SERIAL, 0), turn = zn_kb_bin(b, ZN_K_Div, s, two);
  zn_kref slot = zn_kb_bin(b, ZN_K_Rem, s, two), at = zn_kb_bin(b, ZN_K_Mul, slot, zn_kb_idx(b, 8));
  zn_kref filled = zn_kb_ptradd(b, full, at);
  zn_kb_signal_wait(b, zn_kb_ptradd(b, empty, at), zn_kb_bin(b, ZN_K_Sub, turn, zn_kb_idx(b, 1)));
  zn_kb_signal_arrive(b, filled, 128);
  zn_kref to = zn_kb_ptradd(b, slots, zn_kb_bin(b, ZN_K_Mul, slot, zn_kb_idx(b, 128)));
  zn_kb_bulk_copy(b, to, zn_kb_ptradd(b, x, zn_kb_bin(b, ZN_K_Mul, s, zn_kb_idx(b, 128))), 128, filled);
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_else(b);
  zn_kb_registers(b, 80);
  zn_kref sum = zn_kb_var(b, zn_kb_float(b, ZN_F32, 0)), lane = zn_kb_bin(b, ZN_K_Sub, t, zn_kb_idx(b, 32));
  s = loop(b, steps, ZN_FOR_SERIAL, 0);
  turn = zn_kb_bin(b, ZN_K_Div, s, two), slot = zn_kb_bin(b, ZN_K_Rem, s, two);
  at = zn_kb_bin(b, ZN_K_Mul, slot, zn_kb_idx(b, 8));
  zn_kb_signal_wait(b, zn_kb_ptradd(b, full, at), turn);
  zn_kref from = zn_kb_bin(b, ZN_K_Add, zn_kb_bin(b, ZN_K_Mul, slot, zn_kb_idx(b, 32)), lane), old = zn_kb_get(b, sum);
  zn_kb_set(b, sum, zn_kb_bin(b, ZN_K_Add, old, zn_kb_load(b, ZN_F32, 1, slots, from)));
  zn_kb_statement(b, ZN_K_Meet);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, lane, none));
  zn_kb_signal_arrive(b, zn_kb_ptradd(b, empty, at), 0);
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_store(b, y, lane, zn_kb_get(b, sum));
  zn_kb_end(b);
  zn_kb_end(b);
}

static void four_runs(zn_kb *b, zn_kref y, zn_kref x) { relay(b, y, x, 4); }
static void five_runs(zn_kb *b, zn_kref y, zn_kref x) { relay(b, y, x, 5); }

static float out[128], in[128];

static int32_t run(zn_ctx *c, const zn_kmod *m) {
  void *bufs[2] = {out, in};
  const uint64_t bytes[2] = {sizeof out, sizeof in};
  zn_interp_opts o = {.check_bounds = true};
  memset(out, 0, sizeof out);
  for (int i = 0; i < 128; i++) in[i] = (float)(i * i % 17);
  return zn_interp_kernel(c, m, 0, bufs, bytes, NULL, &o);
}

static void teams_and_barriers(void **state) {
  (void)state;
  zn_ctx c;
  zn_ctx_init(&c);
  zn_kmod *m = make(&c, tree);
  assert_int_equal(m->funcs[0]->team, 32);
  assert_int_equal(thread_loops(m), 6);
  assert_int_equal(count(m, ZN_K_Barrier), 6); /* between the levels, and before the result is read */
  assert_int_equal(run(&c, m), 0);
  float sum = 0;
  for (int i = 0; i < 32; i++) sum += in[i];
  assert_true(out[0] == sum);
  m = make(&c, two_phases);
  assert_int_equal(m->funcs[0]->team, 64);
  assert_int_equal(count(m, ZN_K_Barrier), 1);
  m = make(&c, fixed_place);
  assert_int_equal(thread_loops(m), 0);
  assert_int_equal(m->funcs[0]->team, 1);
  m = make(&c, carried);
  assert_int_equal(count(m, ZN_K_Barrier), 3); /* before the load, before the first thread's store, before the threads' */
  zn_ctx_fini(&c);
}

static void side_by_side(void **state) {
  (void)state;
  zn_ctx c;
  zn_ctx_init(&c);
  zn_kmod *m = make(&c, neighbours);
  assert_int_equal(m->funcs[0]->team, 64);
  assert_int_equal(run(&c, m), 0);
  for (int i = 0; i < 64; i++) assert_true(out[i] == 3 * in[(i + 1) % 64]);
  m = make(&c, divergent);
  c.sink = NULL;
  c.verbosity = -1;
  assert_int_not_equal(run(&c, m), 0);
  zn_ctx_fini(&c);
}

/* Producers and consumers in different branches; who waits for what never comes is told so. */
static void signals(void **state) {
  (void)state;
  zn_ctx c;
  zn_text t;
  zn_ctx_init(&c);
  zn_kmod *m = make(&c, four_runs);
  assert_int_equal(zn_kpass_clean(&c, m), ZN_OK);
  assert_int_equal(run(&c, m), 0);
  for (int i = 0; i < 32; i++) assert_true(out[i] == in[i] + in[i + 32] + in[i + 64] + in[i + 96]);
  m->funcs[0]->blocks = 2;
  zn_text_init(&t, &c.graph);
  zn_cprint_cuda(&c, m, 0, 1, true, &t);
  static const char *const said[] = {"__launch_bounds__(128, 2)", "ZN_SIGNAL_SET(", ", 1);", "ZN_SIGNAL_ANNOUNCE(", ", 128);",
                                     "ZN_BULK_COPY(", "ZN_REGISTERS(dec, 40)", "ZN_REGISTERS(inc, 80)", "ZN_SIGNAL_WAIT("};
  for (size_t i = 0; i < sizeof said / sizeof *said; i++) assert_non_null(strstr(t.s, said[i]));
  m = make(&c, five_runs);
  c.sink = NULL;
  c.verbosity = -1;
  assert_int_not_equal(run(&c, m), 0);
  zn_ctx_fini(&c);
}

static void matrix_units(void **state) {
  (void)state;
  zn_ctx c;
  zn_ctx_init(&c);
  zn_kmod *m = make(&c, product);
  float got[128] = {0};
  uint16_t halves[2 * (128 + 64)] = {0};
  for (unsigned l = 0; l < 32; l++) {
    unsigned r, k;
    for (unsigned e = 0; e < 8; e++) {
      zn_mma_place('A', l, e, &r, &k);
      halves[l * 8 + e] = r == k ? 0x3c00 : r == 3 && k == 15 ? 0x4000 : 0; /* 1; 2 */
    }
    for (unsigned e = 0; e < 4; e++) {
      zn_mma_place('B', l, e, &r, &k);
      halves[256 + l * 4 + e] = (uint16_t)zn_float_encode(ZN_F16, (double)(8 * r + k), false);
    }
  }
  void *bufs[2] = {got, halves};
  const uint64_t bytes[2] = {sizeof got, sizeof halves};
  zn_interp_opts o = {.check_bounds = true};
  assert_int_equal(zn_interp_kernel(&c, m, 0, bufs, bytes, NULL, &o), 0);
  for (unsigned l = 0; l < 32; l++)
    for (unsigned e = 0; e < 4; e++) {
      unsigned r, k;
      zn_mma_place('C', l, e, &r, &k);
      float want = (float)(1 + 8 * r + k + (r == 3 ? 2 * (8 * 15 + k) : 0));
      assert_true(got[l * 4 + e] == want);
    }
  zn_ctx_fini(&c);
}

/* Element (r, k) of A and B for the formats of words; tf32 has bits that must not count. */
static double operand_of(zn_mma_format f, char m, unsigned r, unsigned k) {
  double v = (double)((r * 37 + k * 11) % 23) - 11;
  if (f == ZN_MMA_TF32) return v;
  if (f == ZN_MMA_U8S8 && m == 'A') return 255 - (double)((r * 5 + k) % 17);
  return v * 11;
}

static void put_element(zn_mma_format f, uint32_t *words, unsigned e, double v) {
  float x = (float)v;
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (f == ZN_MMA_TF32) words[e] = bits | 0x1abc;
  else words[e / 4] |= ((uint32_t)(int32_t)v & 255) << e % 4 * 8;
}

/* tf32 and bytes: every element counts once, at its place. */
static void words_of_units(void **state) {
  (void)state;
  static const builder fn[ZN_MMA_FORMATS] = {0, 0, product_tf32, product_s8, product_u8s8};
  for (zn_mma_format f = ZN_MMA_TF32; f < ZN_MMA_FORMATS; f++) {
    const unsigned per = zn_mma_per_word(f);
    uint32_t words[128 + 64] = {0}, got[128];
    unsigned r, k;
    zn_ctx c;
    zn_ctx_init(&c);
    zn_kmod *m = make(&c, fn[f]);
    for (unsigned l = 0; l < 32; l++) {
      for (unsigned e = 0; e < 4 * per; e++) {
        zn_mma_spot('A', per, l, e, &r, &k);
        put_element(f, words + 4 * l, e, operand_of(f, 'A', r, k));
      }
      for (unsigned e = 0; e < 2 * per; e++) {
        zn_mma_spot('B', per, l, e, &r, &k);
        put_element(f, words + 128 + 2 * l, e, operand_of(f, 'B', r, k));
      }
    }
    void *bufs[2] = {got, words};
    const uint64_t bytes[2] = {sizeof got, sizeof words};
    zn_interp_opts o = {.check_bounds = true};
    assert_int_equal(zn_interp_kernel(&c, m, 0, bufs, bytes, NULL, &o), 0);
    for (unsigned l = 0; l < 32; l++)
      for (unsigned e = 0; e < 4; e++) {
        double want = 1;
        float x;
        zn_mma_spot('C', per, l, e, &r, &k);
        for (unsigned q = 0; q < 8 * per; q++) want += operand_of(f, 'A', r, q) * operand_of(f, 'B', q, k);
        memcpy(&x, &got[4 * l + e], sizeof x);
        assert_true(want == (zn_mma_sum(f) == ZN_I32 ? (double)(int32_t)got[4 * l + e] : (double)x));
      }
    zn_ctx_fini(&c);
  }
}

/* The text form keeps thread loops, barriers and the team. */
static void text(void **state) {
  (void)state;
  zn_ctx c;
  zn_ctx_init(&c);
  zn_kmod *m = make(&c, four_runs), *again;
  zn_text a, b;
  m->funcs[0]->blocks = 3;
  zn_text_init(&a, &c.graph);
  zn_text_init(&b, &c.graph);
  zn_kmod_print(m, &a);
  assert_int_equal(zn_kmod_parse(&c, &c.graph, a.s, a.len, NULL, &again), ZN_OK);
  zn_kmod_print(again, &b);
  assert_string_equal(a.s, b.s);
  assert_int_equal(again->funcs[0]->team, 64);
  zn_ctx_fini(&c);
}

/* y[l] = x[l]; y[l] += y[31 - l] */
static void exchange(zn_kb *b, zn_kref y, zn_kref x) {
  zn_kref l = loop(b, 32, ZN_FOR_VECTOR, 0);
  zn_kb_store(b, y, l, zn_kb_load(b, ZN_F32, 1, x, l));
  zn_kb_end(b);
  zn_kref sum = loop(b, 16, ZN_FOR_VECTOR, 0);
  zn_kref far = zn_kb_bin(b, ZN_K_Sub, zn_kb_idx(b, 31), sum);
  zn_kref here = zn_kb_load(b, ZN_F32, 1, y, sum), there = zn_kb_load(b, ZN_F32, 1, y, far);
  zn_kb_store(b, y, sum, zn_kb_bin(b, ZN_K_Add, here, there));
  zn_kb_end(b);
}

/* Says itself where it waits for the kernels before it. */
static void patient(zn_kb *b, zn_kref y, zn_kref x) {
  zn_kref k = zn_kb_float(b, ZN_F32, 2), l = loop(b, 32, ZN_FOR_THREAD, 32);
  zn_kb_statement(b, ZN_K_Await);
  zn_kb_store(b, y, l, zn_kb_bin(b, ZN_K_Mul, k, zn_kb_load(b, ZN_F32, 1, x, l)));
  zn_kb_end(b);
}

/* Every kernel waits once: where it says, else before anything else. */
static void waits_once(void **state) {
  (void)state;
  static const builder fn[] = {exchange, patient};
  for (int i = 0; i < 2; i++) {
    zn_ctx c;
    zn_text t;
    zn_ctx_init(&c);
    zn_text_init(&t, &c.graph);
    zn_kmod *m = make(&c, fn[i]);
    assert_int_equal(count(m, ZN_K_Await), 1);
    assert_int_equal(m->funcs[0]->insts[1].op == ZN_K_Await, i == 0);
    zn_cprint_cuda(&c, m, 0, 1, true, &t); /* behind it, buffers go by names that depend on it */
    const char *wait = strstr(t.s, "ZN_AWAIT(zn_after);"), *load = strstr(t.s, "ZN_LD(f32, q");
    assert_non_null(wait);
    assert_non_null(load);
    assert_true(wait < load);
    assert_null(strstr(t.s, "ZN_LD(f32, p_"));
    zn_ctx_fini(&c);
  }
}

/* The CUDA text promises `restrict` only for what threads do not tell each other through: a compiler that was promised more
 * keeps values across barriers. */
static void promises(void **state) {
  (void)state;
  zn_ctx c;
  zn_text t;
  zn_ctx_init(&c);
  zn_kmod *m = make(&c, exchange);
  zn_text_init(&t, &c.graph);
  zn_cprint_cuda(&c, m, 0, 1, true, &t);
  assert_int_equal(count(m, ZN_K_Barrier), 1);
  assert_non_null(strstr(t.s, "*const p_out"));
  assert_non_null(strstr(t.s, "*const __restrict__ p_x"));
  zn_ctx_fini(&c);
}

/* Kernels of the host are neither mapped to threads nor printed for the device; Share and the mark survive as text. */
static void two_parts(void **state) {
  (void)state;
  static const char src[] =
      "module t\nworkspace 0\nrun 1\nplan 1\n\n"
      "kernel k(out out f32) host {\n  %1 = const.idx 0\n  %2 = const.idx 8\n  %3 = param.ptr 0 # out\n  %4 = const.f32 1\n"
      "  %5 = for %1, %2, 1 vector {\n    store.f32 %3[%5], %4\n  }\n}\n\n"
      "entry e(in in u8, out inout u8, ws inout u8, ws_bytes int idx, host in u8) {\n  %1 = param.ptr 2 # ws\n"
      "  %2 = const.idx 32\n  share %1, %2, 4\n  %3 = const.idx 1\n  call 0(%1) grid %3 # k\n  share %1, %2, 1\n"
      "  %4 = const.i32 0\n  ret %4\n}\n";
  zn_ctx c;
  zn_kmod *m;
  zn_text t;
  zn_ctx_init(&c);
  zn_text_init(&t, &c.graph);
  assert_int_equal(zn_kmod_parse(&c, &c.graph, src, strlen(src), NULL, &m), ZN_OK);
  assert_int_equal(zn_kmod_verify(&c, m), ZN_OK);
  zn_kmod_print(m, &t);
  assert_string_equal(t.s, src);
  assert_int_equal(zn_kpass_threads(&c, m), ZN_OK);
  assert_int_equal(zn_kpass_simt(&c, m, &gpu), ZN_OK);
  assert_int_equal(m->funcs[0]->team, 0);
  assert_int_equal(thread_loops(m), 0);
  assert_int_equal(zn_kpass_clean(&c, m), ZN_OK);
  unsigned shares = 0;
  for (uint32_t i = 1; i < m->funcs[1]->num_insts; i++) shares += m->funcs[1]->insts[i].op == ZN_K_Share;
  assert_int_equal(shares, 2);
  zn_text_init(&t, &c.graph);
  zn_cprint_cuda(&c, m, 0, UINT32_MAX, true, &t);
  assert_null(strstr(t.s, "__global__"));
  zn_ctx_fini(&c);
}

/* Regions for a device to decide: the text reads back, cleaning keeps begin and end, the entry's own way is what the interpreter
 * takes (it counts two turns), and kernels have none. */
static void flow_regions(void **state) {
  (void)state;
  static const char src[] =
      "module t\nworkspace 0\nrun 1\nplan 1\n\n"
      "kernel k(out inout i32) {\n  %1 = const.idx 0\n  %2 = param.ptr 0 # out\n  %3 = load.i32 %2[%1]\n  %4 = const.i32 1\n"
      "  %5 = add.i32 %3, %4\n  store.i32 %2[%1], %5\n}\n\n"
      "entry e(in in u8, out inout u8, ws inout u8, ws_bytes int idx, host in u8) {\n  %1 = param.ptr 2 # ws\n"
      "  %2 = const.idx 2\n  %3 = const.idx 1\n  %4 = const.idx 0\n  %5 = var.idx %4\n  %6 = flow.bool %1, %1, %2, 10\n"
      "  loop {\n    %7 = not.bool %6\n    if %7 {\n      %8 = get.idx %5\n      %9 = ge.bool %8, %2\n      break %9\n    }\n"
      "    call 0(%1) grid %3 # k\n    if %6 {\n      %10 = flow.bool %1, %1, %2, 11\n      %11 = not.bool %10\n"
      "      break %11\n    }\n    %12 = get.idx %5\n    %13 = add.idx %12, %3\n    set.idx %5, %13\n  }\n"
      "  %14 = const.i32 0\n  ret %14\n}\n";
  zn_ctx c;
  zn_kmod *m;
  zn_text t;
  _Alignas(64) int32_t ws[16] = {5};
  const zn_interp_opts o = {.check_bounds = false};
  zn_ctx_init(&c);
  zn_text_init(&t, &c.graph);
  assert_int_equal(zn_kmod_parse(&c, &c.graph, src, strlen(src), NULL, &m), ZN_OK);
  zn_kmod_print(m, &t);
  assert_string_equal(t.s, src);
  assert_int_equal(zn_kpass_clean(&c, m), ZN_OK);
  unsigned flows = 0;
  for (uint32_t i = 1; i < m->funcs[1]->num_insts; i++) flows += m->funcs[1]->insts[i].op == ZN_K_Flow;
  assert_int_equal(flows, 2);
  assert_int_equal(zn_interp_entry(&c, m, 1, ws, ws, ws, sizeof ws, NULL, &o), 0);
  assert_int_equal(ws[0], 7);
  m->funcs[1]->is_entry = false; /* such a kernel is malformed */
  assert_int_not_equal(zn_kfunc_verify(&c, m, m->funcs[1]), ZN_OK);
  zn_ctx_fini(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(teams_and_barriers), cmocka_unit_test(side_by_side),
                                     cmocka_unit_test(signals),
                                     cmocka_unit_test(matrix_units),       cmocka_unit_test(words_of_units),
                                     cmocka_unit_test(text),
                                     cmocka_unit_test(waits_once),         cmocka_unit_test(promises),
                                     cmocka_unit_test(two_parts),          cmocka_unit_test(flow_regions)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
