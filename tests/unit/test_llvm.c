/* The LLVM printer and the cpu target: generated code against the interpreter, bit for bit; entries with hooks; every
 * architecture's objects free of undefined symbols; the same bytes twice; large constants; compile time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <math.h>
#include <time.h>
#include <unistd.h>

#include "codegen/kir/kir.h"
#include "runtime/zenith.h"
#include "targets/cpu/cpu.h"

enum { N = 16 };
static char dir[] = "/tmp/zn-llvm-XXXXXX";

typedef struct fixture {
  zn_ctx c;
  zn_caps caps;
  zn_kmod *m;
  zn_kb b;
  zn_kref x, y, r;
  int slot;
} fixture;

static void open_module(fixture *t, const char *arch) {
  memset(t, 0, sizeof *t);
  zn_ctx_init(&t->c);
  assert_int_equal(zn_cpu_caps(&t->c, arch, &t->caps), ZN_OK);
  t->m = zn_kmod_new(&t->c.graph, "net");
}

static void close_module(fixture *t) { zn_ctx_fini(&t->c); }

static const char *path_of(fixture *t, const char *name) {
  return zn_arena_printf(&t->c.perm, "%s/%s", dir, name);
}

static void build(fixture *t, const char *path, int level) {
  zn_build_opts o = {.out = path, .opt_level = level, .keep_names = true};
  assert_int_equal(zn_cpu_build(&t->c, t->m, &t->caps, &o), ZN_OK);
}

static uint32_t open_kernel(fixture *t, const char *name, zn_dtype in, zn_dtype out) {
  uint32_t fn = zn_kb_begin(&t->b, &t->c, t->m, name, false);
  t->m->funcs[fn]->exported = true;
  t->x = zn_kb_param(&t->b, "x", ZN_KP_IN, in);
  t->y = zn_kb_param(&t->b, "y", ZN_KP_IN, in);
  t->r = zn_kb_param(&t->b, "r", ZN_KP_OUT, out);
  t->slot = 0;
  return fn;
}

static void put(fixture *t, zn_kref v, unsigned lanes) {
  zn_kb_store(&t->b, t->r, zn_kb_idx(&t->b, t->slot), v);
  t->slot += (int)lanes;
}

/* ---- kernels of all operations ---- */

static const zn_dtype numbers[] = {ZN_U8, ZN_I8, ZN_U16, ZN_I16, ZN_U32, ZN_I32, ZN_U64, ZN_I64, ZN_F32, ZN_F64};
enum { NUMBERS = sizeof numbers / sizeof *numbers };

static bool can_print(const zn_caps *caps, zn_kop op, zn_dtype t) {
  if (zn_kops[op].cls == 'M' || (op == ZN_K_Rem && zn_is_float(t))) return false;
  if (op == ZN_K_Fma && !caps->fma) return false;
  bool rounding = op == ZN_K_Floor || op == ZN_K_Ceil || op == ZN_K_Trunc || op == ZN_K_Rint;
  if (rounding && !caps->round_native) return false;
  return zn_kop_accepts(op, t) && (t != ZN_F64 || caps->f64_native);
}

/* The dot products that the target has, one after another; bytes of z are at most 63, so no pair leaves 16 bits. */
static zn_kref dots(fixture *t, zn_kref x, zn_kref y, zn_kref v, unsigned lanes) {
  zn_kb *b = &t->b;
  zn_kref z = zn_kb_bin(b, ZN_K_And, y, zn_kb_splat(b, zn_kb_int(b, ZN_I32, 0x3f3f3f3f), lanes));
  for (unsigned flags = 0; flags < 8; flags++)
    if (zn_dot4_native(&t->caps, lanes, flags))
      v = zn_kb_dot(b, ZN_K_Dot4, x, flags & ZN_DOT_PAIRS ? z : y, v, flags);
  if (zn_pair4_native(&t->caps, lanes, ZN_DOT_B_SIGNED | ZN_DOT_PAIRS)) {
    zn_kref none = zn_kb_splat(b, zn_kb_int(b, ZN_I32, 0), lanes), w = zn_kb_splat(b, zn_kb_int(b, ZN_I32, 0x05fb0209), lanes);
    zn_kref halves = zn_kb_dot(b, ZN_K_Pair4, x, w, none, ZN_DOT_B_SIGNED | ZN_DOT_PAIRS);
    halves = zn_kb_dot(b, ZN_K_Pair4, x, w, halves, ZN_DOT_B_SIGNED | ZN_DOT_PAIRS);
    v = zn_kb_bin(b, ZN_K_Xor, v, halves);
  }
  return zn_dot2_native(&t->caps, lanes) ? zn_kb_dot(b, ZN_K_Dot2, x, y, v, 0) : v;
}

/* All arithmetic and comparisons of one type; results in slots of N elements. */
static uint32_t ops_kernel(fixture *t, zn_dtype dt, unsigned lanes) {
  zn_kb *b = &t->b;
  uint32_t fn = open_kernel(t, zn_arena_printf(&t->c.graph, "ops_%s_%u", zn_dtypes[dt].name, lanes), dt, dt);
  for (unsigned i = 0; i < N; i += lanes) {
    zn_kref x = zn_kb_load(b, dt, lanes, t->x, zn_kb_idx(b, i));
    zn_kref y = zn_kb_load(b, dt, lanes, t->y, zn_kb_idx(b, i));
    zn_kref one = zn_kb_splat(b, zn_is_float(dt) ? zn_kb_float(b, dt, 1) : zn_kb_int(b, dt, 1), lanes);
    zn_kref none = zn_kb_splat(b, zn_is_float(dt) ? zn_kb_float(b, dt, 0) : zn_kb_int(b, dt, 0), lanes);
    for (int op = 1; op < ZN_K_COUNT; op++) {
      char cls = zn_kops[op].cls;
      if ((cls != 'A' && cls != 'P') || !can_print(&t->caps, (zn_kop)op, dt)) continue;
      zn_kref v;
      if (cls == 'P') v = zn_kb_select(b, zn_kb_cmp(b, (zn_kop)op, x, y), one, none);
      else if (op == ZN_K_Fma) v = zn_kb_fma(b, x, y, one);
      else if (op == ZN_K_Dot4) v = dots(t, x, y, one, lanes);
      else if (op == ZN_K_Dot2 || op == ZN_K_Pair4 || op == ZN_K_Dot2Bf16) continue;
      else if (zn_kops[op].sig[1] == 'v') v = zn_kb_bin(b, (zn_kop)op, x, y);
      else v = zn_kb_un(b, (zn_kop)op, x);
      put(t, v, lanes);
    }
  }
  zn_kb_finish(b);
  return fn;
}

static bool can_convert(const zn_caps *caps, zn_dtype from, zn_dtype to) {
  if ((from == ZN_F16 || to == ZN_F16) && !caps->f16_convert) return false;
  if (caps->f64_native && caps->idx_bytes == 8) return true;
  bool wide = zn_dtype_bytes(from) == 8 || zn_dtype_bytes(to) == 8;
  return !(wide && (zn_is_float(from) || zn_is_float(to))) && !(to == ZN_BF16 && zn_dtype_bytes(from) >= 4);
}

static uint32_t cvt_kernel(fixture *t, zn_dtype from, zn_dtype to, unsigned lanes) {
  zn_kb *b = &t->b;
  const char *name = zn_arena_printf(&t->c.graph, "cvt_%s_%s_%u", zn_dtypes[from].name, zn_dtypes[to].name, lanes);
  uint32_t fn = open_kernel(t, name, from, to);
  for (unsigned i = 0; i < N; i += lanes)
    put(t, zn_kb_cvt(b, zn_kb_load(b, from, lanes, t->x, zn_kb_idx(b, i)), to), lanes);
  zn_kb_finish(b);
  return fn;
}

/* Vector operations: shuffles, lanes, reductions, gathers. */
static uint32_t vec_kernel(fixture *t, zn_dtype dt) {
  zn_kb *b = &t->b;
  uint32_t fn = open_kernel(t, zn_arena_printf(&t->c.graph, "vec_%s", zn_dtypes[dt].name), dt, dt);
  zn_kref x = zn_kb_load(b, dt, N, t->x, zn_kb_idx(b, 0)), y = zn_kb_load(b, dt, N, t->y, zn_kb_idx(b, 0));
  uint32_t mask[N], low[4] = {3, 2, 17, 0};
  for (uint32_t i = 0; i < N; i++) mask[i] = (i * 7 + 3) % (2 * N);
  put(t, zn_kb_shuffle(b, x, y, N, mask), N);
  put(t, zn_kb_shuffle(b, x, y, 4, low), 4);
  put(t, zn_kb_extract(b, x, 5), 1);
  put(t, zn_kb_insert(b, x, zn_kb_extract(b, y, 2), 7), N);
  put(t, zn_kb_splat(b, zn_kb_extract(b, y, 1), N), N);
  zn_kref iota = zn_kb_iota(b, ZN_IDX, N);
  zn_kref rev = zn_kb_bin(b, ZN_K_Sub, zn_kb_splat(b, zn_kb_idx(b, N - 1), N), iota);
  put(t, zn_kb_load(b, dt, N, t->x, rev), N);
  zn_kb_store(b, t->r, zn_kb_bin(b, ZN_K_Add, rev, zn_kb_splat(b, zn_kb_idx(b, t->slot), N)), x);
  t->slot += N;
  if (dt != ZN_F16 && dt != ZN_BF16) {
    for (int op = ZN_K_ReduceAdd; op <= ZN_K_ReduceMax; op++) put(t, zn_kb_un(b, (zn_kop)op, x), 1);
    put(t, zn_kb_iota(b, dt, N), N);
  }
  zn_kb_finish(b);
  return fn;
}

/* for i in grid: r[i] = x[i] + y[i], a 4-wide body with a scalar tail in a serial loop with a break */
static uint32_t add_kernel(fixture *t) {
  zn_kb *b = &t->b;
  uint32_t fn = open_kernel(t, "add", ZN_F32, ZN_F32);
  zn_kref n = zn_kb_param(b, "n", ZN_KP_INT, ZN_IDX);
  zn_kref i = zn_kb_for(b, zn_kb_idx(b, 0), n, 1, ZN_FOR_GRID, 0);
  zn_kref at = zn_kb_bin(b, ZN_K_Mul, i, zn_kb_idx(b, 10));
  zn_kref j = zn_kb_for(b, zn_kb_idx(b, 0), zn_kb_idx(b, 8), 4, ZN_FOR_SERIAL, 0);
  zn_kref p = zn_kb_bin(b, ZN_K_Add, at, j);
  zn_kref s = zn_kb_bin(b, ZN_K_Add, zn_kb_load(b, ZN_F32, 4, t->x, p), zn_kb_load(b, ZN_F32, 4, t->y, p));
  zn_kb_store(b, t->r, p, s);
  zn_kb_end(b);
  zn_kref k = zn_kb_for(b, zn_kb_idx(b, 8), zn_kb_idx(b, 99), 1, ZN_FOR_SERIAL, 0);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, k, zn_kb_idx(b, 10)));
  zn_kref q = zn_kb_bin(b, ZN_K_Add, at, k);
  zn_kb_store(b, t->r, q, zn_kb_bin(b, ZN_K_Add, zn_kb_load(b, ZN_F32, 1, t->x, q), zn_kb_load(b, ZN_F32, 1, t->y, q)));
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_finish(b);
  return fn;
}

/* A 4 x 16 register tile over k = 32: accumulators are variables. */
static uint32_t tile_kernel(fixture *t, const char *name) {
  zn_kb *b = &t->b;
  uint32_t fn = open_kernel(t, name, ZN_F32, ZN_F32);
  zn_kref acc[4][2];
  for (int m = 0; m < 4; m++)
    for (int v = 0; v < 2; v++) acc[m][v] = zn_kb_var(b, zn_kb_splat(b, zn_kb_float(b, ZN_F32, 0), 8));
  zn_kref k = zn_kb_for(b, zn_kb_idx(b, 0), zn_kb_idx(b, 32), 1, ZN_FOR_SERIAL, 0), col[2];
  for (int v = 0; v < 2; v++) {
    zn_kref at = zn_kb_bin(b, ZN_K_Add, zn_kb_bin(b, ZN_K_Mul, k, zn_kb_idx(b, 16)), zn_kb_idx(b, v * 8));
    col[v] = zn_kb_load(b, ZN_F32, 8, t->y, at);
  }
  for (int m = 0; m < 4; m++) {
    zn_kref at = zn_kb_bin(b, ZN_K_Add, zn_kb_idx(b, m * 32), k);
    zn_kref a = zn_kb_splat(b, zn_kb_load(b, ZN_F32, 1, t->x, at), 8);
    for (int v = 0; v < 2; v++) {
      zn_kref old = zn_kb_get(b, acc[m][v]);
      zn_kref sum = t->caps.fma ? zn_kb_fma(b, a, col[v], old)
                                : zn_kb_bin(b, ZN_K_Add, zn_kb_bin(b, ZN_K_Mul, a, col[v]), old);
      zn_kb_set(b, acc[m][v], sum);
    }
  }
  zn_kb_end(b);
  for (int m = 0; m < 4; m++)
    for (int v = 0; v < 2; v++) zn_kb_store(b, t->r, zn_kb_idx(b, m * 16 + v * 8), zn_kb_get(b, acc[m][v]));
  zn_kb_finish(b);
  return fn;
}

/* If/Else inside Loop with Break: the Collatz length of x[i], masked; and stack memory. */
static uint32_t control_kernel(fixture *t) {
  zn_kb *b = &t->b;
  uint32_t fn = open_kernel(t, "control", ZN_I32, ZN_I32);
  zn_kref tmp = zn_kb_alloc(b, ZN_I32, N);
  zn_kref one = zn_kb_int(b, ZN_I32, 1), two = zn_kb_int(b, ZN_I32, 2);
  zn_kref i = zn_kb_for(b, zn_kb_idx(b, 0), zn_kb_idx(b, N), 1, ZN_FOR_SERIAL, 0);
  zn_kref v = zn_kb_bin(b, ZN_K_And, zn_kb_load(b, ZN_I32, 1, t->x, i), zn_kb_int(b, ZN_I32, 1023));
  zn_kref cur = zn_kb_var(b, v), len = zn_kb_var(b, zn_kb_int(b, ZN_I32, 0));
  zn_kb_loop(b);
  zn_kref c = zn_kb_get(b, cur);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Le, c, one));
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, zn_kb_bin(b, ZN_K_And, c, one), one));
  zn_kb_set(b, cur, zn_kb_bin(b, ZN_K_Add, zn_kb_bin(b, ZN_K_Mul, c, zn_kb_int(b, ZN_I32, 3)), one));
  zn_kb_else(b);
  zn_kb_set(b, cur, zn_kb_bin(b, ZN_K_Div, c, two));
  zn_kb_end(b);
  zn_kb_set(b, len, zn_kb_bin(b, ZN_K_Add, zn_kb_get(b, len), one));
  zn_kb_end(b);
  zn_kb_store(b, tmp, i, zn_kb_get(b, len));
  zn_kb_end(b);
  zn_kb_store(b, t->r, zn_kb_idx(b, 0), zn_kb_load(b, ZN_I32, N, tmp, zn_kb_idx(b, 0)));
  zn_kb_finish(b);
  return fn;
}

static void all_kernels(fixture *t) {
  static const zn_dtype more[] = {ZN_BOOL, ZN_F16, ZN_BF16};
  static const unsigned widths[] = {1, 16};
  for (int w = 0; w < 2; w++) {
    for (int i = 0; i < NUMBERS; i++) ops_kernel(t, numbers[i], widths[w]);
    for (int i = 0; i < NUMBERS + 3; i++)
      for (int j = 0; j < NUMBERS + 3; j++) {
        zn_dtype from = i < NUMBERS ? numbers[i] : more[i - NUMBERS], to = j < NUMBERS ? numbers[j] : more[j - NUMBERS];
        if (from != to && can_convert(&t->caps, from, to)) cvt_kernel(t, from, to, widths[w]);
      }
  }
  for (int i = 0; i < NUMBERS; i++)
    if (numbers[i] != ZN_F64 || t->caps.f64_native) vec_kernel(t, numbers[i]);
  vec_kernel(t, ZN_BF16);
  vec_kernel(t, ZN_F16);
  add_kernel(t);
  tile_kernel(t, "tile");
  control_kernel(t);
}

/* ---- against the interpreter ---- */

static const double values[] = {0, 1, -1, 2.5, -0.0, 1e10, -1e10, 127.5, 255.5, 65519.99, -32768, 3e38, 1e-40, 0.3,
                                INFINITY, NAN};

static void fill(zn_dtype t, char *x, char *y, unsigned n) {
  static const int64_t ints[] = {0, 1, 2, 7, -1, -128, 127, 255, 33, 64, INT64_MIN, INT64_MAX, -32768, INT32_MIN, 5, -3};
  for (unsigned i = 0; i < n; i++) {
    if (t == ZN_BOOL) {
      x[i] = i & 1, y[i] = i & 2 ? 1 : 0;
    } else if (zn_is_float(t)) {
      double k = n > N ? (double)(i % 23) * 0.37 - 3 : values[i % 16];
      zn_store_f64(t, x, i, k);
      zn_store_f64(t, y, i, n > N ? (double)(i % 19) * 0.21 - 1 : values[(i * 5 + 3) % 16]);
    } else {
      zn_store_i64(t, x, i, ints[i % 16]);
      zn_store_i64(t, y, i, ints[(i * 5 + 3) % 16]);
    }
  }
}

static bool same(zn_dtype t, const char *a, const char *b, uint64_t i) {
  unsigned n = zn_dtype_bytes(t);
  if (!memcmp(a + i * n, b + i * n, n)) return true;
  if (!zn_is_float(t)) return false;
  return isnan(zn_load_f64(t, a, i)) && isnan(zn_load_f64(t, b, i));
}

enum { BUF = 8192 }; /* bytes of each buffer */
typedef struct buffers {
  _Alignas(64) char x[BUF];
  _Alignas(64) char y[BUF];
  _Alignas(64) char r[BUF];
} buffers;

/* Inputs of kernel fn, and in r what the interpreter makes of them. */
static void interpret(fixture *t, uint32_t fn, buffers *w) {
  const zn_kfunc *f = t->m->funcs[fn];
  memset(w, 0, sizeof *w);
  fill((zn_dtype)f->params[0].dtype, w->x, w->y, f->num_params > 3 || !strcmp(f->name, "tile") ? 1024 : N);
  memset(w->r, 0x5a, BUF);
  void *bufs[3] = {w->x, w->y, w->r};
  uint64_t bytes[3] = {BUF, BUF, BUF};
  int64_t ints[1] = {100};
  zn_interp_opts o = {.check_bounds = true};
  assert_int_equal(zn_interp_kernel(&t->c, t->m, fn, bufs, bytes, ints, &o), 0);
}

static void compare(fixture *t, uint32_t fn, const char *want, const char *got) {
  const zn_kfunc *f = t->m->funcs[fn];
  zn_dtype out = (zn_dtype)f->params[2].dtype;
  unsigned n = zn_dtype_bytes(out);
  for (uint64_t i = 0; i < BUF / n; i++) {
    if (same(out, want, got, i)) continue;
    uint64_t w = 0, g = 0;
    memcpy(&w, want + i * n, n), memcpy(&g, got + i * n, n);
    fail_msg("%s: %s: element %llu: want %llx got %llx", t->caps.arch, f->name, (unsigned long long)i,
             (unsigned long long)w, (unsigned long long)g);
  }
}

static void compare_kernel(fixture *t, void *so, uint32_t fn) {
  static buffers w;
  static _Alignas(64) char got[BUF];
  interpret(t, fn, &w);
  memset(got, 0x5a, sizeof got);
  zn_kernel k;
  *(void **)&k = dlsym(so, t->m->funcs[fn]->name);
  assert_non_null(k);
  void *bufs[3] = {w.x, w.y, got};
  intptr_t ints[1] = {100};
  if (t->m->funcs[fn]->num_params > 3) { /* in parts */
    k(bufs, ints, 0, 33);
    k(bufs, ints, 33, 34);
    k(bufs, ints, 34, 1000);
  } else {
    k(bufs, ints, 0, 1);
  }
  compare(t, fn, w.r, got);
}

/* ---- mathematical functions, expanded by the kernel passes ---- */

static void math_kernel(fixture *t, zn_kop op, zn_dtype dt, unsigned lanes) {
  zn_kb *b = &t->b;
  open_kernel(t, zn_arena_printf(&t->c.graph, "math_%s_%s_%u", zn_kops[op].text, zn_dtypes[dt].name, lanes), dt, dt);
  for (unsigned i = 0; i < N; i += lanes) {
    zn_kref x = zn_kb_load(b, dt, lanes, t->x, zn_kb_idx(b, i)), y = zn_kb_load(b, dt, lanes, t->y, zn_kb_idx(b, i));
    put(t, zn_kops[op].sig[1] == 'v' ? zn_kb_bin(b, op, x, y) : zn_kb_un(b, op, x), lanes);
  }
  zn_kb_finish(b);
}

static bool expanded(zn_kop op) {
  return zn_kops[op].cls == 'M' || op == ZN_K_Rem || (op >= ZN_K_Floor && op <= ZN_K_Rint);
}

static void math_kernels(fixture *t) {
  for (int op = 1; op < ZN_K_COUNT; op++) {
    if (!expanded((zn_kop)op)) continue;
    math_kernel(t, (zn_kop)op, ZN_F32, 8);
    math_kernel(t, (zn_kop)op, ZN_F32, 1);
    if (t->caps.f64_native) math_kernel(t, (zn_kop)op, ZN_F64, 4);
  }
  for (int k = 0; k < 2; k++) {
    cvt_kernel(t, k ? ZN_F16 : ZN_F32, k ? ZN_F32 : ZN_F16, 8);
    cvt_kernel(t, k ? ZN_BF16 : ZN_F32, k ? ZN_F32 : ZN_BF16, 2);
  }
  assert_int_equal(zn_kpass_expand(&t->c, t->m, &t->caps), ZN_OK);
  assert_int_equal(zn_kpass_clean(&t->c, t->m), ZN_OK);
  assert_int_equal(zn_kmod_verify(&t->c, t->m), ZN_OK);
}

static void compare_all(const char *arch, int level, void (*make)(fixture *)) {
  fixture t;
  open_module(&t, arch);
  const char *why;
  if (!zn_cpu_can_run(&t.caps, &why)) {
    printf("  %s skipped: %s\n", arch, why);
    close_module(&t);
    return;
  }
  make(&t);
  const char *so = path_of(&t, zn_arena_printf(&t.c.perm, "ops-%s-%d.so", arch, level));
  build(&t, so, level);
  void *h = dlopen(so, RTLD_NOW | RTLD_LOCAL);
  if (!h) fail_msg("%s", dlerror());
  for (uint32_t i = 0; i < t.m->num_funcs; i++) compare_kernel(&t, h, i);
  printf("  %s -O%d: %u kernels bit-equal to the interpreter\n", arch, level, t.m->num_funcs);
  dlclose(h);
  close_module(&t);
}

static void test_operations(void **state) {
  (void)state;
  compare_all("x86-64-v3", 2, all_kernels);
  compare_all("x86-64", 1, all_kernels);
  compare_all("native", 3, all_kernels);
}

static void test_math(void **state) {
  (void)state;
  compare_all("x86-64-v3", 2, math_kernels);
  compare_all("x86-64-v2", 2, math_kernels);
  compare_all("x86-64", 1, math_kernels);
}

/* ---- entries ---- */

static void add_entries(fixture *t, uint32_t add, uint32_t constant) {
  zn_kb *b = &t->b;
  for (int run = 0; run < 2; run++) {
    uint32_t fn = zn_kb_begin(b, &t->c, t->m, run ? "entry_run" : "entry_plan", true);
    zn_kref in = zn_kb_param(b, "in", ZN_KP_IN, ZN_U8), out = zn_kb_param(b, "out", ZN_KP_OUT, ZN_U8);
    zn_kref ws = zn_kb_param(b, "ws", ZN_KP_INOUT, ZN_U8);
    zn_kb_param(b, "bytes", ZN_KP_INT, ZN_IDX);
    zn_kb_param(b, "host", ZN_KP_IN, ZN_U8);
    if (run) {
      zn_kref need = zn_kb_int(b, ZN_U64, t->caps.feature_bits);
      zn_kref feat = zn_kb_raw(b, (zn_kinst){.op = ZN_K_Features, .dtype = ZN_U64, .lanes = 1});
      zn_kb_if(b, zn_kb_cmp(b, ZN_K_Ne, zn_kb_bin(b, ZN_K_And, feat, need), need));
      zn_kb_ret(b, zn_kb_int(b, ZN_I32, ZN_RUN_CPU));
      zn_kb_end(b);
      zn_kref zero = zn_kb_idx(b, 0);
      zn_kref x = zn_kb_load(b, ZN_PTR, 1, in, zero), r = zn_kb_load(b, ZN_PTR, 1, out, zero);
      zn_kref n = zn_kb_cvt(b, zn_kb_load(b, ZN_I64, 1, in, zn_kb_idx(b, 3)), ZN_IDX);
      zn_kref first[4] = {x, zn_kb_constaddr(b, constant), ws, n};
      zn_kb_call(b, add, first, 4, n);
      zn_kref second[4] = {ws, x, r, n};
      zn_kb_call(b, add, second, 4, n);
    }
    zn_kb_ret(b, zn_kb_int(b, ZN_I32, run ? ZN_RUN_OK : ZN_RUN_RANK));
    zn_kb_finish(b);
    *(run ? &t->m->run_fn : &t->m->plan_fn) = fn;
  }
}

static void model(fixture *t, const char *arch, const float *weights, uint64_t count) {
  open_module(t, arch);
  uint32_t add = add_kernel(t);
  t->m->funcs[add]->note = "Add a + b";
  t->m->funcs[add]->exported = false;
  zn_kmod_add_const(t->m, "pad", ZN_U8, 3, "abc");
  uint32_t w = zn_kmod_add_const(t->m, "w", ZN_F32, count, weights);
  static zn_kio in = {.name = "x", .dtype = ZN_F32, .rank = 2, .dims = {-1, 10}, .dim_text = {"batch", ""}};
  t->m->inputs = &in, t->m->num_inputs = 1;
  t->m->outputs = &in, t->m->num_outputs = 1;
  t->m->workspace_bytes = 4000;
  t->m->provenance = "test";
  add_entries(t, add, w);
}

static int profile_calls, parallel_calls;
static void on_profile(void *user, uint32_t k, int32_t is_begin) {
  assert_int_equal(k, 0);
  assert_ptr_equal(user, &profile_calls);
  profile_calls += is_begin ? 1 : 100;
}
static void on_parallel(void *user, zn_kernel k, void *const *bufs, const intptr_t *ints, intptr_t n) {
  assert_ptr_equal(user, &profile_calls);
  parallel_calls++;
  for (intptr_t i = n; i-- > 0;) k(bufs, ints, i, i + 1);
}

static void run_model(const zn_model *m, const float *x, const float *w, const zn_host *host) {
  static _Alignas(64) float ws[1000];
  float r[1000];
  zn_tensor in = {.u.data = (void *)(uintptr_t)x, .bytes = 4000, .dtype = 1, .rank = 2, .shape = {100, 10}};
  zn_tensor out = in;
  out.u.data = r;
  assert_int_equal(m->run(&in, &out, ws, sizeof ws, host), ZN_RUN_OK);
  for (int i = 0; i < 1000; i++) assert_true(r[i] == x[i] + w[i] + x[i]);
}

static void check_model(const char *path, const float *x, const float *w, uint64_t weights) {
  void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!h) fail_msg("%s", dlerror());
  const zn_model *m = dlsym(h, "zn_model_main");
  assert_non_null(m);
  assert_ptr_equal(m, dlsym(h, "net_model"));
  assert_int_equal(m->magic, ZN_MODEL_MAGIC);
  assert_int_equal(m->abi, ZN_ABI_VERSION);
  assert_string_equal(m->name, "net");
  assert_int_equal(m->num_inputs, 1);
  assert_string_equal(m->inputs[0].name, "x");
  assert_int_equal(m->inputs[0].shape[0], -1);
  assert_int_equal(m->inputs[0].shape[1], 10);
  assert_string_equal(m->inputs[0].dim_names[0], "batch");
  assert_string_equal(m->inputs[0].dim_names[7], "");
  assert_int_equal(m->inputs[0].dtype, 1);
  assert_int_equal(m->workspace_bytes, 4000);
  assert_int_equal(m->weights_bytes, weights);
  assert_int_equal(m->num_kernels, 1);
  assert_string_equal(m->kernel_names[0], "Add a + b");
  assert_string_equal(m->provenance, "test");
  assert_int_equal(m->plan(NULL, NULL, NULL, 0, NULL), ZN_RUN_RANK);
  assert_null(dlsym(h, "add"));
  profile_calls = parallel_calls = 0;
  run_model(m, x, w, NULL);
  zn_host host = {.user = &profile_calls, .parallel_for = on_parallel, .profile = on_profile};
  run_model(m, x, w, &host);
  assert_int_equal(profile_calls, 202);
  assert_int_equal(parallel_calls, 2);
  dlclose(h);
}

static char *read_file(const char *path, size_t *out_n) {
  FILE *f = fopen(path, "rb");
  assert_non_null(f);
  fseek(f, 0, SEEK_END);
  *out_n = (size_t)ftell(f);
  rewind(f);
  char *s = malloc(*out_n + 1);
  assert_int_equal(fread(s, 1, *out_n, f), *out_n);
  s[*out_n] = 0;
  fclose(f);
  return s;
}

static void assert_same_files(const char *a, const char *b) {
  size_t na, nb;
  char *x = read_file(a, &na), *y = read_file(b, &nb);
  assert_int_equal(na, nb);
  assert_memory_equal(x, y, na);
  assert_null(memmem(x, na, dir, strlen(dir))); /* no path inside */
  free(x), free(y);
}

/* Small constants are data of the module, large ones come from a file; both give the same model. */
static void test_model(void **state) {
  (void)state;
  static const uint64_t counts[] = {1000, 1000000};
  for (int k = 0; k < 2; k++) {
    float *w = malloc(counts[k] * 4), x[1000];
    for (uint64_t i = 0; i < counts[k]; i++) w[i] = (float)(i % 97) * 0.125f;
    for (int i = 0; i < 1000; i++) x[i] = (float)i * 0.25f - 100;
    fixture t;
    model(&t, "x86-64-v3", w, counts[k]);
    const char *so = path_of(&t, "net.so"), *again = path_of(&t, "sub/net.so");
    build(&t, so, 2);
    check_model(so, x, w, 64 + (counts[k] * 4 + 63) / 64 * 64);
    build(&t, again, 2);
    assert_same_files(so, again);
    const char *o = path_of(&t, "net.o"), *o2 = path_of(&t, "net2.o");
    build(&t, o, 2);
    build(&t, o2, 2);
    assert_same_files(o, o2);
    build(&t, path_of(&t, "net.a"), 2);
    build(&t, path_of(&t, "net.s"), 2);
    build(&t, path_of(&t, "net.ll"), 2);
    close_module(&t);
    free(w);
  }
}

/* The archive and the assembly text are whole: a C program links them. */
static void test_archive(void **state) {
  (void)state;
  const char *cc = "cd %s && printf '#include \"net.h\"\nint main(void){return net_model.magic != ZN_MODEL_MAGIC;}' > m.c"
                   " && gcc m.c net.a -o ma && ./ma && gcc m.c net.s -o ms && ./ms && ar t net.a > /dev/null";
  char cmd[600];
  snprintf(cmd, sizeof cmd, cc, dir);
  assert_int_equal(system(cmd), 0);
}

/* ---- every architecture ---- */

/* Symbols that an object of all kernels leaves open: none, but for f64 on machines that have no such unit. */
static void check_closed(fixture *t, const char *o) {
  FILE *p = popen(zn_arena_printf(&t->c.perm, "llvm-nm-19 -u %s", o), "r");
  char line[256];
  bool any = false;
  while (fgets(line, sizeof line, p)) {
    /* pow and the trigonometric functions compute in f64: soft where the machine has none */
    if (!t->caps.f64_native && strstr(line, "U __aeabi_")) continue;
    any = any || strstr(line, " U ");
    if (strstr(line, " U ")) printf("  %s needs %s", t->caps.arch, line);
  }
  pclose(p);
  assert_false(any);
}

static void test_undefined(void **state) { /* for the emulated ones see below */
  (void)state;
  static const char *const archs[] = {"x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "cortex-m33"};
  for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
    fixture t;
    open_module(&t, archs[i]);
    math_kernels(&t);
    all_kernels(&t);
    const char *o = path_of(&t, zn_arena_printf(&t.c.perm, "all-%s.o", archs[i]));
    build(&t, o, 1);
    check_closed(&t, o);
    if (t.caps.idx_bytes == 8) build(&t, path_of(&t, "cross.so"), 1);
    close_module(&t);
  }
}

/* ---- emulated machines ---- */

/* A program that reads x and y of each kernel from `in` and writes r to `out`. */
static void write_harness(fixture *t) {
  FILE *f = fopen(path_of(t, "h.c"), "w");
  fprintf(f, "#include <stdint.h>\n#include <stdio.h>\n#include <string.h>\n"
             "typedef void K(void *const *, const intptr_t *, intptr_t, intptr_t);\n");
  for (uint32_t i = 0; i < t->m->num_funcs; i++) fprintf(f, "extern K %s;\n", t->m->funcs[i]->name);
  fprintf(f, "static K *const ks[] = {");
  for (uint32_t i = 0; i < t->m->num_funcs; i++) fprintf(f, "%s,\n", t->m->funcs[i]->name);
  fprintf(f, "};\nstatic _Alignas(64) char x[%d], y[%d], r[%d];\n", BUF, BUF, BUF);
  fprintf(f, "int main(void) {\n  FILE *i = fopen(\"%s/in\", \"rb\"), *o = fopen(\"%s/out\", \"wb\");\n", dir, dir);
  fprintf(f, "  void *bufs[] = {x, y, r};\n  intptr_t ints[] = {100};\n"
             "  for (unsigned k = 0; k < sizeof ks / sizeof *ks; k++) {\n"
             "    if (fread(x, 1, sizeof x, i) + fread(y, 1, sizeof y, i) == 0) return 2;\n"
             "    memset(r, 0x5a, sizeof r);\n    ks[k](bufs, ints, 0, 100);\n"
             "    fwrite(r, 1, sizeof r, o);\n  }\n  return fclose(o);\n}\n"
             "#ifdef __arm__ /* vectors; switch the floating-point unit on */\n"
             "extern void _start(void);\n"
             "__attribute__((naked)) void reset(void) { __asm__ volatile(\"ldr r0,=0xE000ED88\\n ldr r1,[r0]\\n"
             " orr r1,r1,#0xF00000\\n str r1,[r0]\\n dsb\\n isb\\n b _start\\n\"); }\n"
             "void *_sbrk(int n) { static char heap[1 << 16]; static int used; used += n;\n"
             "  return used <= (int)sizeof heap ? heap + used - n : (void *)-1; }\n" /* the library's ends at the stack */
             "#ifndef STACK\n#define STACK 0x20400000\n#endif\n"
             "__attribute__((section(\".vectors\"), used)) void *const vec[16] = {(void *)STACK, (void *)reset};\n"
             "#endif\n");
  fclose(f);
}

#define CORTEX "arm-none-eabi-gcc -O1 -mthumb -mfloat-abi=hard --specs=rdimon.specs -Wl,--section-start=.vectors=0" \
               ",-Ttext=0x20000,-Tdata=0x20000000 "
/* The secure mapping of the board's memories. */
#define HELIUM "arm-none-eabi-gcc -O1 -mthumb -mfloat-abi=hard --specs=rdimon.specs -Wl,--section-start=.vectors=0x10000000" \
               ",-Ttext=0x11000000,-Tdata=0x31000000 -DSTACK=0x31100000 "
/* Vector conversions with a rounding mode of their own abort QEMU 7. */
#define RISCV "command -v riscv64-linux-gnu-gcc"
#define NEW_QEMU "qemu-riscv64 --version | grep -qE 'version ([89]|[1-9][0-9])'"
#define A64 "aarch64-linux-gnu-gcc -static"
#define RV64 "riscv64-linux-gnu-gcc -static"
#define BOARD(name) "qemu-system-arm -M " name " -nographic -semihosting -kernel h"
static const struct {
  const char *arch, *have, *build, *run;
  bool ints_alone; /* nothing else is new, or floats are not bit-equal: Helium takes subnormals for zeros */
} machines[] = {
    {"aarch64", "command -v aarch64-linux-gnu-gcc", A64, "qemu-aarch64 -cpu cortex-a53 ./h", false},
    {"armv8.2-a+dotprod", "command -v aarch64-linux-gnu-gcc", A64, "qemu-aarch64 -cpu neoverse-n1 ./h", true},
    {"armv8.6-a", "command -v aarch64-linux-gnu-gcc", A64, "qemu-aarch64 -cpu max ./h", true},
    {"riscv64", RISCV, RV64, "qemu-riscv64 ./h", false},
    {"rv64gcv", RISCV " && " NEW_QEMU, RV64, "qemu-riscv64 -cpu rv64,v=true,vlen=128 ./h", false},
    {"cortex-m4", "command -v qemu-system-arm", CORTEX "-mcpu=cortex-m4 -mfpu=fpv4-sp-d16", BOARD("mps2-an386"), false},
    {"cortex-m7", "command -v qemu-system-arm", CORTEX "-mcpu=cortex-m7 -mfpu=fpv5-d16", BOARD("mps2-an500"), false},
    {"cortex-m55", "command -v qemu-system-arm", HELIUM "-mcpu=cortex-m55", BOARD("mps3-an547"), true},
};

static void emulate(const char *arch, const char *cc, const char *run, bool ints_alone) {
  fixture t;
  static buffers w;
  open_module(&t, arch);
  if (ints_alone) {
    ops_kernel(&t, ZN_I32, 4);
    ops_kernel(&t, ZN_I32, 16);
    ops_kernel(&t, ZN_U8, 16);
    ops_kernel(&t, ZN_I16, 8);
  } else {
    math_kernels(&t);
    all_kernels(&t);
  }
  write_harness(&t);
  FILE *in = fopen(path_of(&t, "in"), "wb");
  for (uint32_t i = 0; i < t.m->num_funcs; i++) {
    interpret(&t, i, &w);
    fwrite(w.x, 1, 2 * BUF, in);
  }
  fclose(in);
  build(&t, path_of(&t, "k.o"), 2);
  check_closed(&t, path_of(&t, "k.o"));
  assert_int_equal(system(zn_arena_printf(&t.c.perm, "cd %s && %s h.c k.o -o h 2> cc.log && timeout 100 %s", dir, cc, run)), 0);
  FILE *out = fopen(path_of(&t, "out"), "rb");
  assert_non_null(out);
  static char got[BUF];
  for (uint32_t i = 0; i < t.m->num_funcs; i++) {
    interpret(&t, i, &w);
    assert_int_equal(fread(got, 1, BUF, out), BUF);
    compare(&t, i, w.r, got);
  }
  fclose(out);
  printf("  %s: %u kernels bit-equal to the interpreter, emulated\n", arch, t.m->num_funcs);
  close_module(&t);
}

static void test_emulated(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
    char cmd[200];
    snprintf(cmd, sizeof cmd, "(%s) > /dev/null 2>&1", machines[i].have);
    if (system(cmd) == 0) emulate(machines[i].arch, machines[i].build, machines[i].run, machines[i].ints_alone);
    else printf("  %s skipped: no %s\n", machines[i].arch, machines[i].have);
  }
}

static void note_line(void *user, zn_severity sev, const char *line) {
  (void)sev;
  strncat(user, line, 400);
}

static void test_unknown(void **state) {
  (void)state;
  fixture t;
  open_module(&t, NULL);
  char said[2000] = "";
  t.c.sink = note_line;
  t.c.sink_user = said;
  zn_caps caps;
  assert_int_equal(zn_cpu_caps(&t.c, "z80", &caps), ZN_ERR_USAGE);
  zn_build_opts o = {.out = "x.exe"};
  assert_int_equal(zn_cpu_build(&t.c, t.m, &t.caps, &o), ZN_ERR_USAGE);
  assert_non_null(strstr(said, "z80"));
  assert_non_null(strstr(said, "use one of: native, x86-64"));
  assert_non_null(strstr(said, ".so, .o, .a"));
  o.out = "/nonexistent/x.o";
  assert_int_equal(zn_cpu_build(&t.c, t.m, &t.caps, &o), ZN_ERR_IO);
  close_module(&t);
}

static double seconds(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void test_speed(void **state) {
  (void)state;
  static const int levels[] = {1, 2};
  for (int k = 0; k < 2; k++) {
    int level = levels[k];
    fixture t;
    open_module(&t, "x86-64-v3");
    for (int i = 0; i < 500; i++) tile_kernel(&t, zn_arena_printf(&t.c.graph, "tile%d", i));
    double t0 = seconds();
    build(&t, path_of(&t, "speed.so"), level);
    printf("  500 kernels at -O%d: %.2f s\n", level, seconds() - t0);
    close_module(&t);
  }
}

/* Weights pass through as a file: seconds, and memory near their size. ZN_TEST_MB sets another size. */
static void test_large(void **state) {
  (void)state;
  const char *mb = getenv("ZN_TEST_MB");
  uint64_t count = (mb ? (uint64_t)atoll(mb) : 32) << 18;
  float *w = malloc(count * 4), x[1000];
  for (uint64_t i = 0; i < count; i++) w[i] = (float)(i % 97) * 0.125f;
  for (int i = 0; i < 1000; i++) x[i] = (float)i;
  fixture t;
  model(&t, "x86-64-v3", w, count);
  double t0 = seconds();
  const char *so = path_of(&t, "large.so");
  build(&t, so, 2);
  printf("  %llu MiB of constants: %.2f s\n", (unsigned long long)(count >> 18), seconds() - t0);
  check_model(so, x, w, 64 + count * 4);
  close_module(&t);
  free(w);
}

static int setup(void **state) {
  (void)state;
  if (!mkdtemp(dir)) return -1;
  char cmd[100];
  snprintf(cmd, sizeof cmd, "mkdir %s/sub", dir);
  return system(cmd);
}

static int teardown(void **state) {
  (void)state;
  char cmd[100];
  snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
  return getenv("ZN_TEST_KEEP") ? 0 : system(cmd);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_operations), cmocka_unit_test(test_math), cmocka_unit_test(test_model),
      cmocka_unit_test(test_archive),
      cmocka_unit_test(test_undefined),  cmocka_unit_test(test_speed),
      cmocka_unit_test(test_unknown), cmocka_unit_test(test_emulated),
      cmocka_unit_test(test_large),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
