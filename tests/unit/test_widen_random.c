/* Random loop nests with marks, varying branches, breaks, gathers and variables: the buffers must
 * be bit-equal before and after widening. SEED=n in the environment runs one program and prints it
 * when it fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codegen/kir/kir.h"

enum { OUT = 1 << 16, IN = 2048, EXTENT = 20, POOL = 64, PROGRAMS = 400 };

typedef struct gen {
  zn_kb b;
  uint64_t rng;
  zn_kref p[4], n;
  zn_kref f[POOL], i[POOL], v[POOL]; /* floats, indexes below 64, variables */
  int v_marks[POOL];                 /* marked loops around the variable's declaration */
  unsigned nf, ni, nv;
  zn_kref loops[8];
  int num_loops, marks, budget, stores;
  bool in_serial; /* the innermost loop can be left by Break */
} gen;

static unsigned rnd(gen *g, unsigned n) {
  g->rng = g->rng * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)(g->rng >> 33) % n;
}

static void push_f(gen *g, zn_kref r) {
  if (g->nf < POOL) g->f[g->nf++] = r;
}
static void push_i(gen *g, zn_kref r) {
  zn_kref most = zn_kb_idx(&g->b, 63), least = zn_kb_idx(&g->b, 0);
  r = rnd(g, 3) ? r : zn_kb_bin(&g->b, ZN_K_Min, r, most);
  (void)least;
  if (g->ni < POOL) g->i[g->ni++] = r;
}
static zn_kref some_f(gen *g) { return g->f[rnd(g, g->nf)]; }
static zn_kref some_i(gen *g) { return g->i[rnd(g, g->ni)]; }

/* An index into an input: clamped, or a plain sum of loop variables, which stays small. */
static zn_kref address(gen *g) {
  zn_kb *b = &g->b;
  zn_kref at = zn_kb_idx(b, rnd(g, 9));
  if (rnd(g, 4) == 0) {
    zn_kref k = some_i(g), lo = zn_kb_idx(b, 0), hi = zn_kb_idx(b, IN - 1);
    k = zn_kb_bin(b, ZN_K_Max, k, lo);
    return zn_kb_bin(b, ZN_K_Min, k, hi);
  }
  for (int l = 0; l < g->num_loops; l++) {
    zn_kref c = zn_kb_idx(b, rnd(g, 3) ? rnd(g, 6) : 1), t = zn_kb_bin(b, ZN_K_Mul, g->loops[l], c);
    at = zn_kb_bin(b, ZN_K_Add, at, t);
  }
  if (g->num_loops && rnd(g, 8) == 0) { /* backwards */
    zn_kref top = zn_kb_idx(b, IN - 1);
    at = zn_kb_bin(b, ZN_K_Sub, top, at);
  }
  return at;
}

static zn_kref pointer(gen *g, zn_kref p) {
  if (rnd(g, 4) || !g->num_loops) return p;
  zn_kref k = zn_kb_idx(&g->b, 4 * (int64_t)rnd(g, 4)),
          d = zn_kb_bin(&g->b, ZN_K_Mul, g->loops[rnd(g, (unsigned)g->num_loops)], k);
  return zn_kb_ptradd(&g->b, p, d);
}

static void value(gen *g) {
  static const uint8_t ops[] = {ZN_K_Add, ZN_K_Sub, ZN_K_Mul, ZN_K_Min, ZN_K_Max},
                       idx_ops[] = {ZN_K_Add, ZN_K_Sub, ZN_K_Mul, ZN_K_Div, ZN_K_Rem, ZN_K_Min};
  zn_kb *b = &g->b;
  zn_kref x = some_f(g), y = some_f(g), z = some_f(g), r;
  switch (rnd(g, 8)) {
  case 0: push_f(g, zn_kb_bin(b, (zn_kop)ops[rnd(g, 5)], x, y)); break;
  case 1: push_f(g, zn_kb_fma(b, x, y, z)); break;
  case 2:
    r = zn_kb_cmp(b, ZN_K_Lt, x, y);
    push_f(g, zn_kb_select(b, r, x, z));
    break;
  case 3:
    x = pointer(g, g->p[2]);
    y = address(g);
    push_f(g, zn_kb_load(b, ZN_F32, 1, x, y));
    break;
  case 4:
    x = pointer(g, g->p[1]);
    y = address(g);
    push_f(g, zn_kb_load(b, ZN_F32, 1, x, y));
    break;
  case 5:
    y = address(g);
    r = zn_kb_load(b, ZN_I32, 1, g->p[3], y);
    push_i(g, zn_kb_cvt(b, r, ZN_IDX));
    break;
  case 6:
    r = some_i(g);
    y = rnd(g, 2) ? some_i(g) : zn_kb_idx(b, rnd(g, 7));
    push_i(g, zn_kb_bin(b, (zn_kop)idx_ops[rnd(g, 6)], r, y));
    break;
  default:
    r = some_i(g);
    r = zn_kb_cvt(b, r, rnd(g, 2) ? ZN_I32 : ZN_I8);
    push_f(g, zn_kb_cvt(b, r, ZN_F32));
  }
}

/* Every iteration and every store instruction has an element of its own. */
static void store(gen *g) {
  zn_kb *b = &g->b;
  if (g->stores >= 6) return;
  zn_kref at = zn_kb_idx(b, g->stores++);
  int64_t stride = 6;
  bool outward = rnd(g, 2);
  for (int k = 0; k < g->num_loops; k++) {
    zn_kref s = zn_kb_idx(b, stride), l = g->loops[outward ? k : g->num_loops - 1 - k],
            t = zn_kb_bin(b, ZN_K_Mul, l, s);
    at = zn_kb_bin(b, ZN_K_Add, at, t);
    stride *= EXTENT;
  }
  zn_kref v = some_f(g), p = g->p[0];
  if (g->num_loops && g->num_loops < 3 &&
      rnd(g, 2)) { /* the outermost variable's part through the pointer */
    zn_kref far = zn_kb_idx(b, 4 * stride), d = zn_kb_bin(b, ZN_K_Mul, g->loops[0], far);
    p = zn_kb_ptradd(b, p, d);
  }
  zn_kb_store(b, p, at, v);
}

static void block(gen *g, int depth);

static void scoped(gen *g, int depth) {
  unsigned nf = g->nf, ni = g->ni, nv = g->nv;
  block(g, depth);
  g->nf = nf, g->ni = ni, g->nv = nv;
}

static zn_kref bound(gen *g) {
  zn_kb *b = &g->b;
  zn_kref k = zn_kb_idx(b, rnd(g, EXTENT + 1)), most = zn_kb_idx(b, EXTENT);
  switch (rnd(g, 6)) {
  case 0:
  case 1: return k;
  case 2: return zn_kb_bin(b, ZN_K_Min, g->n, most);
  case 3: return zn_kb_bin(b, ZN_K_Min, g->n, k);
  default: k = some_i(g); return rnd(g, 3) ? zn_kb_idx(b, 16) : zn_kb_bin(b, ZN_K_Min, k, most);
  }
}

static void loop(gen *g, int depth) {
  static const unsigned factors[] = {0, 2, 3, 4, 6, 8, 16, 24};
  zn_kb *b = &g->b;
  unsigned kind = rnd(g, 5);
  bool was_serial = g->in_serial, marked = kind < 4;
  zn_kref lo = zn_kb_idx(b, rnd(g, 3) ? 0 : rnd(g, 4)), hi = bound(g);
  zn_for_kind fk = kind < 2 ? ZN_FOR_VECTOR : kind < 4 ? ZN_FOR_UNROLL : ZN_FOR_SERIAL;
  zn_kref iv = zn_kb_for(b, lo, hi, rnd(g, 4) ? 1 : 2, fk, marked ? factors[rnd(g, 8)] : 0);
  g->loops[g->num_loops++] = iv;
  g->marks += marked;
  g->in_serial = !marked;
  unsigned ni = g->ni;
  push_i(g, iv);
  zn_kref wide = zn_kb_idx(b, 0),
          same = zn_kb_bin(b, ZN_K_Max, iv, wide); /* the variable, opaquely */
  if (rnd(g, 5) == 0) g->loops[g->num_loops - 1] = same;
  scoped(g, depth + 1);
  g->ni = ni;
  zn_kb_end(b);
  g->in_serial = was_serial;
  g->marks -= marked;
  g->num_loops--;
}

static void branch(gen *g, int depth) {
  zn_kb *b = &g->b;
  zn_kref x = some_f(g), y = some_f(g), c = zn_kb_cmp(b, ZN_K_Lt, x, y);
  zn_kb_if(b, c);
  scoped(g, depth + 1);
  if (rnd(g, 2)) {
    zn_kb_else(b);
    scoped(g, depth + 1);
  }
  zn_kb_end(b);
}

static void variable(gen *g) {
  zn_kb *b = &g->b;
  unsigned k = g->nv ? rnd(g, g->nv) : 0;
  if (g->nv == 0 || (g->nv < POOL && rnd(g, 3) == 0)) {
    zn_kref init = some_f(g);
    g->v_marks[g->nv] = g->marks;
    g->v[g->nv++] = zn_kb_var(b, init);
  } else if (rnd(g, 2) || g->v_marks[k] != g->marks)
    push_f(g, zn_kb_get(b, g->v[k]));
  else {
    zn_kref r = some_f(g);
    zn_kb_set(b, g->v[k], r);
  }
}

static void block(gen *g, int depth) {
  unsigned count = 2 + rnd(g, 8);
  while (count-- && g->budget-- > 0) {
    switch (rnd(g, 12)) {
    case 0:
    case 1:
      if (g->num_loops < 3 && depth < 6) loop(g, depth);
      break;
    case 2:
      if (depth < 6) branch(g, depth);
      break;
    case 3:
    case 4:
    case 5: variable(g); break;
    case 6:
    case 7: store(g); break;
    case 8:
      if (g->in_serial && rnd(g, 2)) {
        zn_kref x = some_f(g), y = some_f(g), c = zn_kb_cmp(&g->b, ZN_K_Lt, x, y);
        zn_kb_break(&g->b, c);
      }
      break;
    default: value(g);
    }
  }
}

static zn_kmod *program(zn_ctx *c, uint64_t seed) {
  zn_kmod *m = zn_kmod_new(&c->graph, "t");
  gen g = {.rng = seed * 0x9e3779b97f4a7c15u + 1, .budget = 90};
  zn_kb_begin(&g.b, c, m, "k", false);
  g.p[0] = zn_kb_param(&g.b, "out", ZN_KP_INOUT, ZN_F32);
  g.p[1] = zn_kb_param(&g.b, "x", ZN_KP_IN, ZN_F32);
  g.p[2] = zn_kb_param(&g.b, "y", ZN_KP_IN, ZN_F32);
  g.p[3] = zn_kb_param(&g.b, "z", ZN_KP_IN, ZN_I32);
  g.n = zn_kb_param(&g.b, "n", ZN_KP_INT, ZN_IDX);
  push_f(&g, zn_kb_float(&g.b, ZN_F32, 0.25));
  zn_kref zero = zn_kb_idx(&g.b, 0);
  push_f(&g, zn_kb_load(&g.b, ZN_F32, 1, g.p[1], zero));
  push_i(&g, zn_kb_idx(&g.b, 3));
  for (int k = 0; k < 3; k++) loop(&g, 0);
  zn_kb_finish(&g.b);
  return m;
}

static void run(zn_ctx *c, const zn_kmod *m, float *out, int64_t n) {
  static float x[2 * IN], y[2 * IN];
  static int32_t z[2 * IN];
  uint32_t s = 99;
  for (int i = 0; i < 2 * IN; i++) {
    s = s * 1664525u + 1013904223u;
    x[i] = (float)(int32_t)s * 0x1p-31f;
    y[i] = (float)(int32_t)(s * 31u) * 0x1p-31f;
    z[i] = (int32_t)(s >> 26);
  }
  memset(out, 0, OUT * sizeof *out);
  void *bufs[] = {out, x, y, z};
  uint64_t bytes[] = {OUT * 4, sizeof x, sizeof y, sizeof z};
  zn_interp_opts o = {.check_bounds = true};
  assert_int_equal(zn_interp_kernel(c, m, 0, bufs, bytes, &n, &o), 0);
}

static unsigned vectors(const zn_kmod *m) {
  unsigned n = 0;
  for (uint32_t i = 1; i < m->funcs[0]->num_insts; i++)
    n += m->funcs[0]->insts[i].op == ZN_K_Store && m->funcs[0]->insts[i].lanes > 1;
  return n;
}

static void compare(uint64_t seed, unsigned *vector_stores) {
  static float before[OUT], after[OUT];
  zn_ctx c;
  zn_ctx_init(&c);
  zn_caps caps = {.arch = "test", .idx_bytes = 8, .vector_bytes = seed % 3 ? 32 : 16, .fma = true};
  zn_kmod *old = program(&c, seed), *m = program(&c, seed);
  assert_int_equal(zn_kpass_widen(&c, m, &caps), ZN_OK);
  assert_int_equal(zn_kmod_verify(&c, m), ZN_OK);
  if (getenv("SEED")) {
    zn_text t;
    zn_text_init(&t, &c.graph);
    zn_kmod_print(old, &t);
    zn_kmod_print(m, &t);
    puts(t.s);
  }
  *vector_stores += vectors(m);
  for (int64_t n = 0; n < 24; n += 1 + n / 3) {
    run(&c, old, before, n);
    run(&c, m, after, n);
    for (int i = 0; i < OUT; i++)
      if (memcmp(&before[i], &after[i], 4) && !(before[i] != before[i] && after[i] != after[i]))
        fail_msg("SEED=%u n=%d element %d: %g, not %g", (unsigned)seed, (int)n, i, (double)after[i],
                 (double)before[i]);
  }
  zn_ctx_fini(&c);
}

static void test_random(void **state) {
  (void)state;
  unsigned vector_stores = 0;
  const char *one = getenv("SEED"), *count = getenv("COUNT");
  uint64_t first = one ? strtoull(one, NULL, 0) : 1, last = one     ? first
                                                            : count ? strtoull(count, NULL, 0)
                                                                    : PROGRAMS;
  for (uint64_t s = first; s <= last; s++) compare(s, &vector_stores);
  if (!one) assert_true(vector_stores > 100);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
