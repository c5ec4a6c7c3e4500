/* The roofs, from kernels of our own making: twelve independent chains of fused multiply-adds in registers, ten of products
 * of bytes, and sums over an array of the model's size. They go through the same code generator as models do. */
#include "zenithc/driver/roofline.h"

#include <dlfcn.h>
#include <stdlib.h>

#include "targets/target.h"

enum { CHAINS = 12, PRODUCT_CHAINS = 10 };
enum { STREAMS = 8, ROUNDS = 20000, CHUNK = 1 << 12, LEAST = 4, MOST = 1 << 14, READ = 1 << 14 };

typedef struct maker {
  zn_kb b;
  unsigned lanes;
  zn_kref p, at, var[CHAINS];
} maker;

static void begin(maker *m, zn_ctx *c, zn_kmod *mod, const char *name) {
  zn_kb_begin(&m->b, c, mod, name, false);
  m->b.f->exported = true;
  m->p = zn_kb_param(&m->b, "x", ZN_KP_INOUT, ZN_F32);
  zn_kref n = zn_kb_param(&m->b, "n", ZN_KP_INT, ZN_IDX), zero = zn_kb_idx(&m->b, 0);
  zn_kref parts = zn_kb_param(&m->b, "parts", ZN_KP_INT, ZN_IDX);
  zn_kref g = zn_kb_for(&m->b, zero, n, 1, ZN_FOR_GRID, 0);
  zn_kref part = zn_kb_bin(&m->b, ZN_K_Rem, g, parts);
  m->at = zn_kb_bin(&m->b, ZN_K_Mul, part, zn_kb_idx(&m->b, CHUNK));
}

static zn_kref load_as(maker *m, zn_dtype t, zn_kref at, unsigned vector) {
  zn_kref off = zn_kb_idx(&m->b, (int64_t)vector * m->lanes);
  return zn_kb_load(&m->b, t, m->lanes, m->p, zn_kb_bin(&m->b, ZN_K_Add, at, off));
}

static zn_kref load(maker *m, zn_kref at, unsigned vector) { return load_as(m, ZN_F32, at, vector); }

static void finish(maker *m, unsigned vars) {
  zn_kref sum = zn_kb_get(&m->b, m->var[0]);
  for (unsigned i = 1; i < vars; i++) {
    zn_kref x = zn_kb_get(&m->b, m->var[i]);
    sum = zn_kb_bin(&m->b, ZN_K_Add, sum, x);
  }
  zn_kb_store(&m->b, m->p, m->at, sum);
  zn_kb_end(&m->b);
  zn_kb_finish(&m->b);
}

static void make_flops(zn_ctx *c, zn_kmod *mod, unsigned lanes) {
  maker m = {.lanes = lanes};
  begin(&m, c, mod, "peak_flops");
  zn_kref x = load(&m, m.at, 0), y = load(&m, m.at, 1);
  for (unsigned i = 0; i < CHAINS; i++) m.var[i] = zn_kb_var(&m.b, load(&m, m.at, 2 + i));
  zn_kref zero = zn_kb_idx(&m.b, 0), rounds = zn_kb_idx(&m.b, ROUNDS);
  zn_kb_for(&m.b, zero, rounds, 1, ZN_FOR_SERIAL, 0);
  for (unsigned i = 0; i < CHAINS; i++) {
    zn_kref old = zn_kb_get(&m.b, m.var[i]);
    zn_kb_set(&m.b, m.var[i], zn_kb_fma(&m.b, old, x, y));
  }
  zn_kb_end(&m.b);
  finish(&m, CHAINS);
}

/* A step of the chain whose sums are `acc`, with the bytes of `next` beside them: the words of two loop turns of a product of
 * bytes where sums of four are added in halves, else of one. */
static zn_kref product_step(maker *m, const zn_caps *caps, zn_kref acc, zn_kref next, const zn_kref *w) {
  static const unsigned flags[] = {ZN_DOT_B_SIGNED | ZN_DOT_PAIRS, ZN_DOT_A_SIGNED | ZN_DOT_B_SIGNED, 0};
  if (zn_pair4_native(caps, m->lanes, flags[0])) {
    zn_kref ones = zn_kb_splat(&m->b, zn_kb_int(&m->b, ZN_I32, 0x00010001), m->lanes);
    zn_kref none = zn_kb_splat(&m->b, zn_kb_int(&m->b, ZN_I32, 0), m->lanes);
    zn_kref halves = zn_kb_dot(&m->b, ZN_K_Pair4, acc, w[0], none, flags[0]);
    halves = zn_kb_dot(&m->b, ZN_K_Pair4, next, w[1], halves, flags[0]);
    return zn_kb_dot(&m->b, ZN_K_Dot2, halves, ones, acc, 0);
  }
  unsigned f = 0;
  while (f < 2 && !zn_dot4_native(caps, m->lanes, flags[f])) f++;
  acc = zn_kb_dot(&m->b, ZN_K_Dot4, next, w[0], acc, flags[f]);
  return zn_kb_dot(&m->b, ZN_K_Dot4, next, w[1], acc, flags[f]);
}

static void make_products(zn_ctx *c, zn_kmod *mod, unsigned lanes, const zn_caps *caps) {
  maker m = {.lanes = lanes};
  begin(&m, c, mod, "peak_products");
  const zn_kref w[2] = {load_as(&m, ZN_I32, m.at, 0), load_as(&m, ZN_I32, m.at, 1)};
  for (unsigned i = 0; i < PRODUCT_CHAINS; i++) m.var[i] = zn_kb_var(&m.b, load_as(&m, ZN_I32, m.at, 2 + i));
  zn_kref zero = zn_kb_idx(&m.b, 0), rounds = zn_kb_idx(&m.b, ROUNDS);
  zn_kb_for(&m.b, zero, rounds, 1, ZN_FOR_SERIAL, 0);
  for (unsigned i = 0; i < PRODUCT_CHAINS; i++) {
    zn_kref old = zn_kb_get(&m.b, m.var[i]), next = zn_kb_get(&m.b, m.var[(i + 1) % PRODUCT_CHAINS]);
    zn_kb_set(&m.b, m.var[i], product_step(&m, caps, old, next, w));
  }
  zn_kb_end(&m.b);
  finish(&m, PRODUCT_CHAINS);
}

static void make_bytes(zn_ctx *c, zn_kmod *mod, unsigned lanes) {
  maker m = {.lanes = lanes};
  begin(&m, c, mod, "peak_bytes");
  for (unsigned i = 0; i < STREAMS; i++) m.var[i] = zn_kb_var(&m.b, load(&m, m.at, i));
  zn_kref zero = zn_kb_idx(&m.b, 0), end = zn_kb_idx(&m.b, CHUNK);
  zn_kref j = zn_kb_for(&m.b, zero, end, (int64_t)STREAMS * lanes, ZN_FOR_SERIAL, 0);
  zn_kref at = zn_kb_bin(&m.b, ZN_K_Add, m.at, j);
  for (unsigned i = 0; i < STREAMS; i++) {
    zn_kref old = zn_kb_get(&m.b, m.var[i]), x = load(&m, at, i);
    zn_kb_set(&m.b, m.var[i], zn_kb_bin(&m.b, ZN_K_Add, old, x));
  }
  zn_kb_end(&m.b);
  finish(&m, STREAMS);
}

/* Best time of a kernel that visits the array's parts in turn, n visits in all. */
static double seconds_of(zn_pool *pool, zn_kernel k, float *x, intptr_t n, intptr_t parts) {
  void *bufs[1] = {x};
  intptr_t ints[2] = {n, parts};
  double best = 1e9, end = zn_now() + 0.1;
  for (unsigned i = 0; i < 3 || zn_now() < end; i++) {
    double t0 = zn_now();
    if (pool) zn_pool_parallel_for(pool, k, bufs, ints, n);
    else k(bufs, ints, 0, n);
    double t = zn_now() - t0;
    if (t < best) best = t;
  }
  return best;
}

static zn_status measure(zn_ctx *c, void *so, zn_pool *pool, unsigned lanes, uint64_t footprint, zn_peaks *out) {
  zn_kernel flops, bytes, products;
  *(void **)&products = dlsym(so, "peak_products");
  *(void **)&flops = dlsym(so, "peak_flops");
  *(void **)&bytes = dlsym(so, "peak_bytes");
  if (!flops || !bytes || !products) return zn_fail(c, ZN_ERR_IO, NULL, "the calibration kernels cannot be loaded");
  intptr_t threads = pool ? (intptr_t)zn_pool_threads(pool) : 1, least = threads > LEAST ? threads : LEAST;
  uint64_t parts = footprint / (CHUNK * sizeof(float));
  out->footprint = footprint;
  parts = parts < (uint64_t)least ? (uint64_t)least : parts > MOST ? MOST : parts;
  uint64_t size = parts * CHUNK * sizeof(float);
  zn_arena a;
  zn_arena_init(&a, "roofline");
  float *x = zn_arena_alloc(&a, size); /* zeros */
  memset(x, 0, size);
  double work = (double)((uint64_t)(2 * CHAINS * ROUNDS) * lanes * (uint64_t)threads);
  double read = (double)((uint64_t)READ * CHUNK * sizeof(float));
  out->flops = work / seconds_of(pool, flops, x, threads, threads);
  work = (double)((uint64_t)(16 * PRODUCT_CHAINS * ROUNDS) * lanes * (uint64_t)threads);
  out->units = work / seconds_of(pool, products, x, threads, threads);
  out->bytes = read / seconds_of(pool, bytes, x, READ, (intptr_t)parts);
  zn_arena_reset(&a);
  return ZN_OK;
}

zn_status zn_peaks_measure(zn_ctx *c, zn_pool *pool, uint64_t footprint, zn_peaks *out) {
  const zn_target *cpu = zn_target_find("cpu");
  zn_caps caps;
  const char *dir;
  ZN_TRY(cpu->caps(c, "native", &caps));
  unsigned lanes = caps.vector_bytes >= 4 ? caps.vector_bytes / 4 : 1;
  zn_kmod *mod = zn_kmod_new(&c->perm, "peak");
  mod->run_fn = mod->plan_fn = UINT32_MAX;
  make_flops(c, mod, lanes);
  make_products(c, mod, lanes, &caps);
  make_bytes(c, mod, lanes);
  ZN_TRY(zn_kmod_verify(c, mod));
  ZN_TRY(zn_kpass_expand(c, mod, &caps));
  ZN_TRY(zn_kpass_clean(c, mod));
  ZN_TRY(zn_tmp_make(c, NULL, &dir));
  zn_build_opts b = {.out = zn_arena_printf(&c->perm, "%s/peak.so", dir), .opt_level = 2};
  ZN_TRY(cpu->build(c, mod, &caps, &b));
  void *so = dlopen(b.out, RTLD_NOW | RTLD_LOCAL);
  if (!so) return zn_fail(c, ZN_ERR_IO, NULL, "the calibration kernels cannot be loaded: %s", dlerror());
  zn_status st = measure(c, so, pool, lanes, footprint, out);
  dlclose(so);
  return st;
}
