/* The C printer and the c target: printed kernels, compiled by gcc and clang with and without the
 * vector extension, against the interpreter bit for bit; no undefined symbol on any architecture;
 * entries, weights files, typed headers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <math.h>
#include <unistd.h>

#include "codegen/cstyle/cstyle.h"
#include "targets/native.h"

enum { N = 48, BYTES = 1 << 17 };
static char dir[] = "/tmp/zn-cstyle-XXXXXX";

typedef struct fixture {
  zn_ctx c;
  zn_caps caps;
  zn_kmod *m;
  zn_kb b;
  zn_kref x, y, z, i; /* i: the loop variable of row kernels */
  int slot;
  bool fma;
} fixture;

static void open_module(fixture *t, const char *arch) {
  memset(t, 0, sizeof *t);
  zn_ctx_init(&t->c);
  assert_int_equal(zn_target_c.caps(&t->c, arch, &t->caps), ZN_OK);
  t->m = zn_kmod_new(&t->c.graph, "net");
  t->fma = t->caps.fma;
}

static void close_module(fixture *t) { zn_ctx_fini(&t->c); }

static void write_c(fixture *t, const char *path) {
  zn_build_opts o = {.out = path, .opt_level = 2};
  assert_int_equal(zn_target_c.build(&t->c, t->m, &t->caps, &o), ZN_OK);
}

static void begin(fixture *t, zn_dtype in, zn_dtype out, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void begin(fixture *t, zn_dtype in, zn_dtype out, const char *fmt, ...) {
  char name[96];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(name, sizeof name, fmt, ap);
  va_end(ap);
  uint32_t fn = zn_kb_begin(&t->b, &t->c, t->m, zn_arena_strdup(&t->c.graph, name), false);
  t->m->funcs[fn]->exported = true;
  t->x = zn_kb_param(&t->b, "x", ZN_KP_IN, in);
  t->y = zn_kb_param(&t->b, "y", ZN_KP_IN, in);
  t->z = zn_kb_param(&t->b, "out", ZN_KP_OUT, out);
  t->slot = 0;
}

static zn_kref idx(fixture *t, int64_t v) { return zn_kb_idx(&t->b, v); }

static zn_kref one_of(fixture *t, zn_dtype dt, double v, unsigned lanes) {
  zn_kref k = zn_is_float(dt) ? zn_kb_float(&t->b, dt, v) : zn_kb_int(&t->b, dt, (int64_t)v);
  return lanes == 1 ? k : zn_kb_splat(&t->b, k, lanes);
}

static void put(fixture *t, zn_kref v, unsigned lanes) {
  zn_kb_store(&t->b, t->z, idx(t, t->slot), v);
  t->slot += (int)lanes;
}

/* A loop over the operands; result row k goes to out[k * N ...]. */
static void open_rows(fixture *t, unsigned lanes) {
  t->i = zn_kb_for(&t->b, idx(t, 0), idx(t, N - (int)lanes + 1), lanes, ZN_FOR_SERIAL, 0);
}

static void row(fixture *t, zn_kref v) {
  zn_kb_store(&t->b, t->z, zn_kb_bin(&t->b, ZN_K_Add, t->i, idx(t, t->slot)), v);
  t->slot += N;
}

static const zn_dtype numbers[] = {ZN_U8,  ZN_I8,  ZN_U16, ZN_I16, ZN_U32, ZN_I32,
                                   ZN_U64, ZN_I64, ZN_IDX, ZN_F32, ZN_F64};
enum { NUMBERS = sizeof numbers / sizeof *numbers };

static bool printable(const fixture *t, zn_kop op, zn_dtype dt) {
  if (zn_kops[op].cls == 'M' || (op == ZN_K_Rem && zn_is_float(dt)) || op == ZN_K_Dot2Bf16) return false;
  if (op == ZN_K_Fma && !t->fma) return false;
  return zn_kop_accepts(op, dt);
}

/* Dot4 with all signs, one after another; bytes of z are at most 63, so no pair leaves 16 bits. */
static zn_kref dots(zn_kb *b, zn_kref x, zn_kref y, zn_kref v) {
  unsigned lanes = zn_kf_lanes(b->f, x);
  zn_kref z = zn_kb_bin(b, ZN_K_And, y, zn_kb_splat(b, zn_kb_int(b, ZN_I32, 0x3f3f3f3f), lanes));
  for (unsigned flags = 0; flags < 4; flags++) v = zn_kb_dot(b, ZN_K_Dot4, x, y, v, flags);
  zn_kref none = zn_kb_splat(b, zn_kb_int(b, ZN_I32, 0), lanes), w = zn_kb_splat(b, zn_kb_int(b, ZN_I32, 0x05fb0209), lanes);
  zn_kref halves = zn_kb_dot(b, ZN_K_Pair4, x, w, none, ZN_DOT_B_SIGNED | ZN_DOT_PAIRS);
  halves = zn_kb_dot(b, ZN_K_Pair4, x, w, halves, ZN_DOT_B_SIGNED | ZN_DOT_PAIRS);
  v = zn_kb_bin(b, ZN_K_Xor, v, halves);
  return zn_kb_dot(b, ZN_K_Dot4, x, z, v, ZN_DOT_B_SIGNED | ZN_DOT_PAIRS);
}

/* Every arithmetic operation and comparison of one type. */
static void ops_kernel(fixture *t, zn_dtype dt, unsigned lanes) {
  zn_kb *b = &t->b;
  begin(t, dt, dt, "ops_%s_%u", zn_dtypes[dt].name, lanes);
  open_rows(t, lanes);
  zn_kref x = zn_kb_load(b, dt, lanes, t->x, t->i), y = zn_kb_load(b, dt, lanes, t->y, t->i);
  zn_kref one = one_of(t, dt, 1, lanes), none = one_of(t, dt, 0, lanes);
  for (int op = 1; op < ZN_K_COUNT; op++) {
    char cls = zn_kops[op].cls;
    zn_kref v;
    if ((cls != 'A' && cls != 'P') || !printable(t, (zn_kop)op, dt)) continue;
    if (cls == 'P')
      v = zn_kb_select(b, zn_kb_cmp(b, (zn_kop)op, x, y), one, none);
    else if (op == ZN_K_Fma)
      v = zn_kb_fma(b, x, y, one);
    else if (op == ZN_K_Dot4)
      v = dots(b, x, y, one);
    else if (op == ZN_K_Pair4)
      continue;
    else if (op == ZN_K_Dot2)
      v = zn_kb_dot(b, ZN_K_Dot2, x, y, one, 0);
    else if (zn_kops[op].sig[1] == 'v')
      v = zn_kb_bin(b, (zn_kop)op, x, y);
    else
      v = zn_kb_un(b, (zn_kop)op, x);
    row(t, v);
  }
  /* nested, contractible, and by constants */
  zn_kref three = one_of(t, dt, 3, lanes), seven = one_of(t, dt, 7, lanes);
  row(t, zn_kb_bin(b, ZN_K_Add, zn_kb_bin(b, ZN_K_Mul, x, y), zn_kb_bin(b, ZN_K_Sub, x, three)));
  row(t, zn_kb_bin(b, ZN_K_Div, x, seven));
  if (!zn_is_float(dt)) {
    row(t, zn_kb_bin(b, ZN_K_Rem, x, seven));
    row(t, zn_kb_bin(b, ZN_K_Shl, x, three));
    row(t, zn_kb_bin(b, ZN_K_Shr, x, three));
  }
  zn_kb_end(b);
  zn_kb_finish(b);
}

static void cvt_kernel(fixture *t, zn_dtype from, zn_dtype to, unsigned lanes) {
  begin(t, from, to, "cvt_%s_%s_%u", zn_dtypes[from].name, zn_dtypes[to].name, lanes);
  open_rows(t, lanes);
  row(t, zn_kb_cvt(&t->b, zn_kb_load(&t->b, from, lanes, t->x, t->i), to));
  zn_kb_end(&t->b);
  zn_kb_finish(&t->b);
}

static void bitcast_kernel(fixture *t, zn_dtype from, zn_dtype to, unsigned lanes) {
  begin(t, from, to, "cast_%s_%s_%u", zn_dtypes[from].name, zn_dtypes[to].name, lanes);
  open_rows(t, lanes);
  row(t, zn_kb_bitcast(&t->b, zn_kb_load(&t->b, from, lanes, t->x, t->i), to));
  zn_kb_end(&t->b);
  zn_kb_finish(&t->b);
}

/* Lanes, shuffles, reductions, gathers, scatters, vector variables. */
static void vec_kernel(fixture *t, zn_dtype dt, unsigned n) {
  zn_kb *b = &t->b;
  begin(t, dt, dt, "vec_%s_%u", zn_dtypes[dt].name, n);
  zn_kref x = zn_kb_load(b, dt, n, t->x, idx(t, 1)), y = zn_kb_load(b, dt, n, t->y, idx(t, 3));
  uint32_t mask[64], low[2] = {1, n + 1};
  for (uint32_t i = 0; i < n; i++) mask[i] = (i * 7 + 3) % (2 * n);
  put(t, zn_kb_shuffle(b, x, y, n, mask), n);
  put(t, zn_kb_shuffle(b, x, y, 2, low), 2);
  put(t, zn_kb_extract(b, x, n - 1), 1);
  put(t, zn_kb_insert(b, x, zn_kb_extract(b, y, 1), n / 2), n);
  put(t, zn_kb_splat(b, zn_kb_extract(b, y, 0), n), n);
  zn_kref rev = zn_kb_bin(b, ZN_K_Sub, zn_kb_splat(b, idx(t, n - 1), n), zn_kb_iota(b, ZN_IDX, n));
  put(t, zn_kb_load(b, dt, n, t->x, rev), n);
  zn_kb_store(b, t->z, zn_kb_bin(b, ZN_K_Add, rev, zn_kb_splat(b, idx(t, t->slot), n)), x);
  t->slot += (int)n;
  zn_kref var = zn_kb_var(b, y);
  zn_kref i = zn_kb_for(b, idx(t, 0), idx(t, 5), 2, ZN_FOR_SERIAL, 0);
  zn_kref cond = zn_kb_cmp(b, ZN_K_Gt, i, idx(t, 1));
  zn_kb_set(b, var, zn_kb_select(b, cond, x, zn_kb_get(b, var)));
  zn_kb_end(b);
  put(t, zn_kb_get(b, var), n);
  if (zn_kdt_is_int(dt) || zn_kdt_is_float(dt)) {
    if ((n & (n - 1)) == 0)
      for (int op = ZN_K_ReduceAdd; op <= ZN_K_ReduceMax; op++)
        put(t, zn_kb_un(b, (zn_kop)op, x), 1);
    put(t, zn_kb_iota(b, dt, n), n);
  }
  zn_kb_finish(b);
}

/* Bool vectors: from comparisons of two widths, from memory, through variables, selects and logic.
 */
static void mask_kernel(fixture *t, zn_dtype dt, unsigned n) {
  zn_kb *b = &t->b;
  begin(t, dt, ZN_BOOL, "mask_%s_%u", zn_dtypes[dt].name, n);
  zn_kref x = zn_kb_load(b, dt, n, t->x, idx(t, 0)), y = zn_kb_load(b, dt, n, t->y, idx(t, 0));
  zn_kref m = zn_kb_cmp(b, ZN_K_Lt, x, y), e = zn_kb_cmp(b, ZN_K_Ne, x, y);
  zn_kref bytes =
      zn_kb_cmp(b, ZN_K_Ge, zn_kb_load(b, ZN_U8, n, t->x, idx(t, 2)), one_of(t, ZN_U8, 3, n));
  put(t, m, n);
  put(t, zn_kb_bin(b, ZN_K_And, m, bytes), n);
  put(t, zn_kb_bin(b, ZN_K_Or, bytes, m), n);
  put(t, zn_kb_bin(b, ZN_K_Xor, e, zn_kb_un(b, ZN_K_Not, bytes)), n);
  for (int op = ZN_K_Eq; op <= ZN_K_Ge; op++) put(t, zn_kb_cmp(b, (zn_kop)op, m, bytes), n);
  put(t, zn_kb_select(b, m, bytes, e), n);
  zn_kref loaded = zn_kb_load(b, ZN_BOOL, n, t->z, idx(t, n));
  put(t, zn_kb_select(b, loaded, m, bytes), n);
  zn_kref var = zn_kb_var(b, zn_kb_splat(b, zn_kb_int(b, ZN_BOOL, 1), n));
  zn_kb_if(b, zn_kb_extract(b, m, n - 1));
  zn_kb_set(b, var, m);
  zn_kb_else(b);
  zn_kb_set(b, var, zn_kb_insert(b, bytes, zn_kb_extract(b, m, 0), 1));
  zn_kb_end(b);
  put(t, zn_kb_get(b, var), n);
  uint32_t order[64];
  for (uint32_t i = 0; i < n; i++) order[i] = i * 5 % (2 * n);
  put(t, zn_kb_shuffle(b, m, bytes, n, order), n);
  zn_kref rev = zn_kb_bin(b, ZN_K_Sub, zn_kb_splat(b, idx(t, n - 1), n), zn_kb_iota(b, ZN_IDX, n));
  put(t, zn_kb_load(b, ZN_BOOL, n, t->z, rev), n);
  zn_kb_store(b, t->z, zn_kb_bin(b, ZN_K_Add, rev, zn_kb_splat(b, idx(t, t->slot), n)), m);
  t->slot += (int)n;
  put(t, zn_kb_cvt(b, zn_kb_select(b, m, x, y), ZN_BOOL), n);
  put(t, zn_kb_cvt(b, zn_kb_cvt(b, m, dt), ZN_BOOL), n);
  put(t, zn_kb_select(b, zn_kb_extract(b, bytes, 0), m, bytes), n);
  zn_kb_finish(b);
}

/* A grid, nested loops with break, pending loads against stores, stack memory, pointer arithmetic.
 */
static void control_kernel(fixture *t) {
  zn_kb *b = &t->b;
  begin(t, ZN_I32, ZN_I32, "control");
  zn_kref n = zn_kb_param(b, "n", ZN_KP_INT, ZN_IDX), tmp = zn_kb_alloc(b, ZN_I32, 8);
  zn_kref i = zn_kb_for(b, idx(t, 0), n, 1, ZN_FOR_GRID, 0);
  zn_kref old = zn_kb_load(b, ZN_I32, 1, t->x, i);
  zn_kb_store(b, tmp, idx(t, 0), zn_kb_bin(b, ZN_K_Add, old, zn_kb_load(b, ZN_I32, 1, t->y, i)));
  zn_kref before = zn_kb_load(b, ZN_I32, 1, tmp, idx(t, 0));
  zn_kb_store(b, tmp, idx(t, 0), zn_kb_int(b, ZN_I32, 77));
  zn_kb_store(b, tmp, idx(t, 1), before);
  zn_kref v =
      zn_kb_bin(b, ZN_K_And, zn_kb_load(b, ZN_I32, 1, tmp, idx(t, 1)), zn_kb_int(b, ZN_I32, 1023));
  zn_kref cur = zn_kb_var(b, v), len = zn_kb_var(b, zn_kb_int(b, ZN_I32, 0));
  zn_kref one = zn_kb_int(b, ZN_I32, 1);
  zn_kb_loop(b);
  zn_kref c = zn_kb_get(b, cur);
  zn_kref kept = zn_kb_bin(b, ZN_K_Mul, zn_kb_get(b, cur), zn_kb_int(b, ZN_I32, 3));
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Le, c, one));
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, zn_kb_bin(b, ZN_K_And, c, one), one));
  zn_kb_set(b, cur, zn_kb_bin(b, ZN_K_Add, kept, one));
  zn_kb_else(b);
  zn_kb_set(b, cur, zn_kb_bin(b, ZN_K_Div, c, zn_kb_int(b, ZN_I32, 2)));
  zn_kb_end(b);
  zn_kb_set(b, len, zn_kb_bin(b, ZN_K_Add, zn_kb_get(b, len), one));
  zn_kb_end(b);
  zn_kref j =
      zn_kb_for(b, idx(t, -3), zn_kb_cvt(b, zn_kb_get(b, len), ZN_IDX), 2, ZN_FOR_SERIAL, 0);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Gt, j, idx(t, 9)));
  zn_kref p = zn_kb_ptradd(b, t->z, zn_kb_bin(b, ZN_K_Mul, i, idx(t, 8)));
  zn_kb_prefetch(b, p, zn_kb_bin(b, ZN_K_Mul, j, idx(t, 1 << 20))); /* any address */
  zn_kb_store(b, p, idx(t, 0), zn_kb_bin(b, ZN_K_Xor, zn_kb_get(b, len), zn_kb_cvt(b, j, ZN_I32)));
  zn_kb_store(b, p, idx(t, 1), zn_kb_load(b, ZN_I32, 1, tmp, idx(t, 0)));
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_finish(b);
}

/* Without `full`: fewer widths and conversions, for slow compilations. */
static void all_kernels(fixture *t, bool full) {
  static const zn_dtype more[] = {ZN_BOOL, ZN_F16, ZN_BF16};
  static const unsigned widths[] = {1, 3, 4, 16};
  for (int i = 0; i < NUMBERS; i++) {
    for (int w = 0; w < 4; w += full ? 1 : 2) ops_kernel(t, numbers[i], widths[full ? w : w + 1]);
    vec_kernel(t, numbers[i], 16);
    mask_kernel(t, numbers[i], i & 1 ? 8 : 12);
  }
  for (int i = 0; i < 3; i++) vec_kernel(t, more[i], 8);
  vec_kernel(t, ZN_F32, 6);
  vec_kernel(t, ZN_F32, 32);
  control_kernel(t);
  for (unsigned n = 1; n <= 4; n += 3) {
    bitcast_kernel(t, ZN_F32, ZN_I32, n);
    bitcast_kernel(t, ZN_U64, ZN_F64, n);
    bitcast_kernel(t, ZN_F64, ZN_I64, n);
    bitcast_kernel(t, ZN_BF16, ZN_I16, n);
    bitcast_kernel(t, ZN_U32, ZN_F32, n);
  }
  for (int i = 0; i < NUMBERS + 3; i++)
    for (int j = 0; j < NUMBERS + 3; j++) {
      zn_dtype from = i < NUMBERS ? numbers[i] : more[i - NUMBERS];
      zn_dtype to = j < NUMBERS ? numbers[j] : more[j - NUMBERS];
      if (from == to || (!full && (i * 5 + j) % 3)) continue;
      cvt_kernel(t, from, to, 1);
      cvt_kernel(t, from, to, (i + j) % 3 ? 8 : 3);
    }
}

/* ---- against the interpreter ---- */

static unsigned size_of(zn_dtype t) { return t == ZN_IDX ? sizeof(intptr_t) : zn_dtype_bytes(t); }
static zn_dtype plain(zn_dtype t) {
  return t == ZN_IDX ? (sizeof(intptr_t) == 8 ? ZN_I64 : ZN_I32) : t;
}

static void fill(zn_dtype dt, char *x, char *y) {
  static const int64_t ints[] = {0,  1,  2,         7,         -1,     -128,      127, 255,
                                 33, 64, INT64_MIN, INT64_MAX, -32768, INT32_MIN, 5,   -3};
  static const double reals[] = {
      0,      1,        -1,     2.5,  -0.0,    1e10,         -1e10,         127.5,
      255.5,  65519.99, -32768, 3e38, 1e-40,   0.3,          INFINITY,      NAN,
      -0.5,   0.5,      1.5,    -2.5, 8388609, 2147483648.0, -2147483904.0, 4294967296.0,
      9.3e18, -9.3e18,  1.9e19, 6e-8, 7e-46,   1e300,        5e-324,        33554433};
  zn_dtype t = plain(dt);
  for (uint64_t i = 0; i < N + 8; i++) {
    if (t == ZN_BOOL) {
      x[i] = (char)(i % 3 == 0), y[i] = (char)(i % 2);
    } else if (zn_is_float(t)) {
      zn_store_f64(t, x, i, reals[i % 32]);
      zn_store_f64(t, y, i, reals[(i * 5 + 3) % 32]);
    } else {
      zn_store_i64(t, x, i, i < 32 ? ints[i % 16] : (int64_t)(i * 0x9e3779b97f4a7c15u));
      zn_store_i64(t, y, i, i < 32 ? ints[(i * 5 + i / 16) % 16] : (int64_t)(i % 11));
    }
  }
}

static bool same(zn_dtype dt, const char *a, const char *b, uint64_t i) {
  zn_dtype t = plain(dt);
  unsigned n = zn_dtype_bytes(t);
  if (!memcmp(a + i * n, b + i * n, n)) return true;
  return zn_is_float(t) && isnan(zn_load_f64(t, a, i)) && isnan(zn_load_f64(t, b, i));
}

static _Alignas(64) char x_buf[N * 16], y_buf[N * 16], want[BYTES], got[BYTES];

static void compare_kernel(fixture *t, void *so, uint32_t fn, const char *how) {
  const zn_kfunc *f = t->m->funcs[fn];
  zn_dtype in = (zn_dtype)f->params[0].dtype, out = (zn_dtype)f->params[2].dtype;
  fill(in, x_buf, y_buf);
  memset(want, 0, sizeof want);
  memset(got, 0, sizeof got);
  void *bufs[3] = {x_buf, y_buf, want};
  uint64_t bytes[3] = {sizeof x_buf, sizeof y_buf, sizeof want};
  int64_t ints[1] = {40};
  intptr_t nints[1] = {40};
  zn_interp_opts o = {.check_bounds = true};
  assert_int_equal(zn_interp_kernel(&t->c, t->m, fn, bufs, bytes, ints, &o), 0);
  zn_kernel k;
  *(void **)&k = dlsym(so, f->name);
  assert_non_null(k);
  bufs[2] = got;
  if (f->num_params > 3) { /* in parts, the last beyond the end */
    k(bufs, nints, 0, 13);
    k(bufs, nints, 13, 14);
    k(bufs, nints, 14, 1000);
  } else {
    k(bufs, nints, 0, 1);
  }
  unsigned n = size_of(out);
  for (uint64_t i = 0; i < BYTES / n; i++)
    if (!same(out, want, got, i)) {
      uint64_t w = 0, g = 0;
      memcpy(&w, want + i * n, n), memcpy(&g, got + i * n, n);
      fail_msg("%s (%s): element %llu: want %llx got %llx", f->name, how, (unsigned long long)i,
               (unsigned long long)w, (unsigned long long)g);
    }
}

static bool have(const char *program) {
  char cmd[256];
  snprintf(cmd, sizeof cmd, "command -v %s >/dev/null 2>&1", program);
  return system(cmd) == 0;
}

static void shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *fmt, ...) {
  char cmd[2048];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(cmd, sizeof cmd, fmt, ap);
  va_end(ap);
  if (system(cmd) != 0) fail_msg("failed: %s", cmd);
}

/* Fails unless the object has no undefined symbols outside the list (a regular expression). */
static void no_undefined(const char *object, const char *allowed) {
  shell("test -z \"$(nm -u %s | grep -vE '%s' | tee /dev/stderr)\"", object, allowed);
}

static const char strict[] = "-Wall -Wextra -Wpedantic -Wno-unused -Werror";

static void compare_all(const char *arch, const char *cc, const char *flags, bool full) {
  fixture t;
  const char *why;
  open_module(&t, arch);
  if (!have(cc) || !zn_target_c.can_run(&t.caps, &why)) {
    printf("  %s for %s skipped\n", cc, arch);
    close_module(&t);
    return;
  }
  all_kernels(&t, full);
  char src[256], obj[256], so[256];
  snprintf(src, sizeof src, "%s/ops.c", dir);
  snprintf(obj, sizeof obj, "%s/ops.o", dir);
  snprintf(so, sizeof so, "%s/ops.so", dir);
  t.m->funcs[t.m->num_funcs - 1]->note = "the last one: */ a note that must not end its comment";
  shell("rm -f %s %s %s", src, obj, so);
  zn_text text;
  zn_text_init(&text, &t.c.graph);
  zn_cprint_opts po = {.caps = &t.caps, .kernels_only = true};
  zn_cprint_module(&t.c, t.m, &po, &text);
  FILE *f = fopen(src, "w");
  assert_non_null(f);
  fwrite(text.s, 1, text.len, f);
  fclose(f);
  shell("%s -fPIC %s %s -c %s -o %s", cc, strict, flags, src, obj);
  no_undefined(obj, "_GLOBAL_OFFSET_TABLE_");
  shell("%s -shared -nostdlib %s -o %s", cc, obj, so);
  void *h = dlopen(so, RTLD_NOW | RTLD_LOCAL);
  if (!h) fail_msg("%s", dlerror());
  for (uint32_t i = 0; i < t.m->num_funcs; i++) compare_kernel(&t, h, i, flags);
  printf("  %s %s: %u kernels bit-equal to the interpreter\n", cc, flags, t.m->num_funcs);
  dlclose(h);
  close_module(&t);
}

static void test_gcc(void **state) {
  (void)state;
  compare_all("generic", "gcc", "-O2", getenv("FULL") != NULL);
  compare_all("x86-64-v3", "gcc", "-O3 -march=native", getenv("FULL") != NULL);
}

static void test_clang(void **state) {
  (void)state;
  const char *cc = have("clang-19") ? "clang-19" : "clang";
  compare_all("generic", cc, "-O2", getenv("FULL") != NULL);
  compare_all("x86-64-v3", cc, "-O3 -march=native", getenv("FULL") != NULL);
}

static void test_no_vector_extension(void **state) {
  (void)state;
  compare_all(
      "generic", "gcc",
      "-std=c99 -O1 -DZN_NO_VECTOR_EXT -fsanitize=undefined -fsanitize-undefined-trap-on-error",
      getenv("FULL") != NULL);
}

/* ---- whole models ---- */

enum { ROWS = 8, IN = 40, OUT = 10 };

/* ws[i][k] = x[i][k] * 0.5 + 1, one row per grid step */
static uint32_t scale_kernel(fixture *t) {
  zn_kb *b = &t->b;
  begin(t, ZN_F32, ZN_F32, "scale");
  t->m->funcs[t->m->num_funcs - 1]->exported = false;
  unsigned lanes = t->caps.vector_bytes ? t->caps.vector_bytes / 4 : 1;
  zn_kref i = zn_kb_for(b, idx(t, 0), idx(t, ROWS), 1, ZN_FOR_GRID, 0);
  zn_kref k = zn_kb_for(b, idx(t, 0), idx(t, IN), lanes, ZN_FOR_SERIAL, 0);
  zn_kref at = zn_kb_bin(b, ZN_K_Add, zn_kb_bin(b, ZN_K_Mul, i, idx(t, IN)), k);
  zn_kref half =
      zn_kb_bin(b, ZN_K_Mul, zn_kb_load(b, ZN_F32, lanes, t->x, at), one_of(t, ZN_F32, 0.5, lanes));
  zn_kb_store(b, t->z, at, zn_kb_bin(b, ZN_K_Add, half, one_of(t, ZN_F32, 1, lanes)));
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_finish(b);
  return t->m->num_funcs - 1;
}

/* y[i][j] = relu(sum_k ws[i][k] * w[k][j]) */
static uint32_t dense_kernel(fixture *t) {
  zn_kb *b = &t->b;
  begin(t, ZN_F32, ZN_F32, "dense");
  zn_kfunc *f = t->m->funcs[t->m->num_funcs - 1];
  f->exported = false;
  f->note = "MatMul fc1 + Relu";
  zn_kref i = zn_kb_for(b, idx(t, 0), idx(t, ROWS), 1, ZN_FOR_GRID, 0);
  zn_kref j = zn_kb_for(b, idx(t, 0), idx(t, OUT), 1, ZN_FOR_SERIAL, 0);
  zn_kref sum = zn_kb_var(b, zn_kb_float(b, ZN_F32, 0));
  zn_kref k = zn_kb_for(b, idx(t, 0), idx(t, IN), 1, ZN_FOR_SERIAL, 0);
  zn_kref x = zn_kb_load(b, ZN_F32, 1, t->x,
                         zn_kb_bin(b, ZN_K_Add, zn_kb_bin(b, ZN_K_Mul, i, idx(t, IN)), k));
  zn_kref w = zn_kb_load(b, ZN_F32, 1, t->y,
                         zn_kb_bin(b, ZN_K_Add, zn_kb_bin(b, ZN_K_Mul, k, idx(t, OUT)), j));
  zn_kb_set(b, sum, zn_kb_bin(b, ZN_K_Add, zn_kb_get(b, sum), zn_kb_bin(b, ZN_K_Mul, x, w)));
  zn_kb_end(b);
  zn_kref r = zn_kb_bin(b, ZN_K_Max, zn_kb_get(b, sum), zn_kb_float(b, ZN_F32, 0));
  zn_kb_store(b, t->z, zn_kb_bin(b, ZN_K_Add, zn_kb_bin(b, ZN_K_Mul, i, idx(t, OUT)), j), r);
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_finish(b);
  return t->m->num_funcs - 1;
}

static zn_kref begin_entry(fixture *t, const char *name, zn_kref *p) {
  zn_kb *b = &t->b;
  uint32_t fn = zn_kb_begin(b, &t->c, t->m, name, true);
  p[0] = zn_kb_param(b, "in", ZN_KP_IN, ZN_U8);
  p[1] = zn_kb_param(b, "out", ZN_KP_OUT, ZN_U8);
  p[2] = zn_kb_param(b, "ws", ZN_KP_INOUT, ZN_U8);
  p[3] = zn_kb_param(b, "ws_bytes", ZN_KP_INT, ZN_IDX);
  p[4] = zn_kb_param(b, "host", ZN_KP_IN, ZN_U8);
  return fn;
}

static void plan_entry(fixture *t) {
  zn_kb *b = &t->b;
  zn_kref p[5];
  t->m->plan_fn = begin_entry(t, "plan", p);
  zn_kb_store(b, p[2], idx(t, 0), zn_kb_int(b, ZN_U64, ROWS * IN * 4));
  zn_kb_store(b, p[1], idx(t, 1), zn_kb_int(b, ZN_I64, ROWS * OUT * 4)); /* bytes */
  zn_kb_store(b, p[1], idx(t, 4), zn_kb_int(b, ZN_I32, 1));              /* dtype, rank, shape */
  zn_kb_store(b, p[1], idx(t, 5), zn_kb_int(b, ZN_I32, 2));
  zn_kb_store(b, p[1], idx(t, 3), zn_kb_int(b, ZN_I64, ROWS));
  zn_kb_store(b, p[1], idx(t, 4), zn_kb_int(b, ZN_I64, OUT));
  zn_kb_ret(b, zn_kb_int(b, ZN_I32, ZN_RUN_OK));
  zn_kb_finish(b);
}

static void run_entry(fixture *t, uint32_t scale, uint32_t dense, uint32_t weights) {
  zn_kb *b = &t->b;
  zn_kref p[5];
  t->m->run_fn = begin_entry(t, "run", p);
  zn_kref need = zn_kb_int(b, ZN_U64, t->caps.feature_bits);
  zn_kref feat = zn_kb_raw(b, (zn_kinst){.op = ZN_K_Features, .dtype = ZN_U64, .lanes = 1});
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Ne, zn_kb_bin(b, ZN_K_And, feat, need), need));
  zn_kb_ret(b, zn_kb_int(b, ZN_I32, ZN_RUN_CPU));
  zn_kb_end(b);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, p[3], idx(t, ROWS * IN * 4)));
  zn_kb_ret(b, zn_kb_int(b, ZN_I32, ZN_RUN_WORKSPACE));
  zn_kb_end(b);
  zn_kref x = zn_kb_load(b, ZN_PTR, 1, p[0], idx(t, 0)),
          y = zn_kb_load(b, ZN_PTR, 1, p[1], idx(t, 0));
  zn_kref w = zn_kb_constaddr(b, weights);
  zn_kref first[3] = {x, w, p[2]}, second[3] = {p[2], w, y};
  zn_kb_call(b, scale, first, 3, idx(t, ROWS));
  zn_kb_call(b, dense, second, 3, idx(t, ROWS));
  zn_kb_ret(b, zn_kb_int(b, ZN_I32, ZN_RUN_OK));
  zn_kb_finish(b);
}

static void make_model(fixture *t, const char *arch, bool large) {
  static const zn_kio in = {
      .name = "x", .dtype = ZN_F32, .rank = 2, .dims = {ROWS, IN}, .dim_text = {"", ""}};
  static const zn_kio out = {
      .name = "y:0", .dtype = ZN_F32, .rank = 2, .dims = {ROWS, OUT}, .dim_text = {"", ""}};
  open_module(t, arch);
  uint64_t count = large ? 300000 : IN * OUT;
  float *w = ZN_ARRAY(&t->c.graph, float, count);
  for (uint64_t i = 0; i < count; i++) w[i] = (float)((double)(i * 37 % 101) / 101.0 - 0.4);
  static const int64_t odd[] = {INT64_MIN, -1, 5};
  static const double special[] = {INFINITY, 0.1};
  zn_kmod_add_const(t->m, "odd numbers", ZN_I64, 3, odd);
  uint32_t weights = zn_kmod_add_const(t->m, "fc1.weight", ZN_F32, count, w);
  zn_kmod_add_const(t->m, "special", ZN_F64, 2, special);
  uint32_t scale = scale_kernel(t), dense = dense_kernel(t);
  plan_entry(t);
  run_entry(t, scale, dense, weights);
  t->m->inputs = ZN_NEW(&t->c.graph, zn_kio);
  t->m->outputs = ZN_NEW(&t->c.graph, zn_kio);
  *t->m->inputs = in;
  *t->m->outputs = out;
  t->m->num_inputs = t->m->num_outputs = 1;
  t->m->workspace_bytes = ROWS * IN * 4;
  t->m->provenance = "made by hand";
}

static void model_input(fixture *t, zn_htensor *x) {
  *x = zn_htensor_new(&t->c.graph, ZN_F32, 2, (const int64_t[]){ROWS, IN});
  for (int i = 0; i < ROWS * IN; i++) ((float *)x->data)[i] = (float)(i % 17) * 0.0625f - 0.5f;
}

static void run_on(fixture *t, const zn_target *target, const char *path, const zn_htensor *x,
                   zn_htensor *y) {
  zn_exec *e = NULL;
  memset(y, 0, sizeof *y);
  assert_int_equal(target->load(&t->c, t->m, path, &e), ZN_OK);
  assert_int_equal(target->run(&t->c, e, &t->c.graph, x, y), ZN_OK);
  if (target->unload) target->unload(e);
}

static void check_target(const char *arch, bool large) {
  fixture t;
  zn_htensor x, want_y, got_y;
  const char *why = "";
  char path[256];
  make_model(&t, arch, large);
  if (!zn_target_c.can_run(&t.caps, &why)) {
    printf("  %s skipped: %s\n", arch, why);
    close_module(&t);
    return;
  }
  snprintf(path, sizeof path, "%s/net%s.c", dir, large ? "-large" : "");
  write_c(&t, path);
  model_input(&t, &x);
  run_on(&t, &zn_target_interp, NULL, &x, &want_y);
  run_on(&t, &zn_target_c, path, &x, &got_y);
  assert_int_equal(got_y.rank, 2);
  assert_int_equal(got_y.dims[0], ROWS);
  assert_int_equal(got_y.dims[1], OUT);
  assert_memory_equal(want_y.data, got_y.data, ROWS * OUT * 4);
  if (large) {
    char bin[256];
    snprintf(bin, sizeof bin, "%s/net-large.bin", dir);
    FILE *f = fopen(bin, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    assert_int_equal((uint64_t)ftell(f), zn_cprint_weights_bytes(t.m));
    fclose(f);
  }
  close_module(&t);
}

static void test_target(void **state) {
  (void)state;
  check_target("generic", false);
  check_target("native", false);
  check_target("generic", true);
  fixture t;
  memset(&t, 0, sizeof t);
  zn_ctx_init(&t.c);
  assert_int_equal(zn_target_c.caps(&t.c, "z80", &t.caps), ZN_ERR_USAGE);
  zn_ctx_fini(&t.c);
}

/* The loader's own entry points: threads, preparation, timing, refusals. */
static void test_native(void **state) {
  (void)state;
  fixture t;
  zn_htensor x;
  zn_exec *e;
  zn_native_call call;
  uint64_t ns[5];
  char path[256];
  make_model(&t, "generic", false);
  snprintf(path, sizeof path, "%s/net.c", dir);
  write_c(&t, path);
  model_input(&t, &x);
  assert_int_equal(zn_target_c.load(&t.c, t.m, path, &e), ZN_OK);
  const zn_model *m = zn_native_model(e);
  assert_string_equal(m->name, "net");
  assert_int_equal(m->num_kernels, 2);
  assert_string_equal(m->kernel_names[1], "dense");
  assert_int_equal(m->weights_bytes, IN * OUT * 4 + 24 + 16);
  assert_string_equal(m->outputs[0].name, "y:0");
  for (unsigned threads = 1; threads <= 5; threads += 2) {
    assert_int_equal(zn_native_set_threads(&t.c, e, threads), ZN_OK);
    assert_int_equal(zn_native_prepare(&t.c, e, &t.c.graph, &x, &call), ZN_OK);
    assert_int_equal(zn_native_time(&call, 50, 5, ns), ZN_RUN_OK);
    if (threads == 1)
      memcpy(want, call.out[0].u.data, ROWS * OUT * 4);
    else
      assert_memory_equal(want, call.out[0].u.data, ROWS * OUT * 4);
  }
  call.ws_bytes = 8;
  assert_int_equal(zn_native_invoke(&call), ZN_RUN_WORKSPACE);
  zn_native_unload(e);
  assert_int_equal(zn_native_load(&t.c, t.m, path, &e), ZN_ERR_IO);
  assert_int_equal(zn_native_load(&t.c, t.m, "libm.so.6", &e), ZN_ERR_IO);
  close_module(&t);
}

/* Every architecture: nothing undefined but libgcc's 64-bit and double helpers on the Cortex-M4. */
static void test_architectures(void **state) {
  (void)state;
  static const struct {
    const char *arch, *cc, *flags, *allowed;
  } rows[] = {{"generic", "gcc", "-O2", "^$"},
              {"native", "gcc", "-O3 -march=native", "^$"},
              {"generic", "clang-19", "-O2", "^$"},
              {"native", "clang-19", "-O3 -march=native", "^$"},
              {"aarch64", "aarch64-linux-gnu-gcc", "-O2", "^$"},
              {"aarch64", "aarch64-linux-gnu-gcc", "-O3", "^$"},
              {"aarch64", "clang-19", "-O3 --target=aarch64-linux-gnu", "^$"},
              {"armv8.2-a+dotprod", "aarch64-linux-gnu-gcc", "-O2 -march=armv8.2-a+dotprod", "^$"},
              {"armv8.6-a", "aarch64-linux-gnu-gcc", "-O2 -march=armv8.6-a", "^$"},
              {"cortex-m55", "arm-none-eabi-gcc", "-O2 -mcpu=cortex-m55 -mthumb -mfloat-abi=hard", "__aeabi_"},
              {"cortex-m4", "arm-none-eabi-gcc",
               "-O2 -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16", "__aeabi_"},
              {"cortex-m4", "arm-none-eabi-gcc", "-O3 -mcpu=cortex-m4 -mthumb -mfloat-abi=soft",
               "__aeabi_"},
              {"scalar32", "gcc", "-O2", "^$"}};
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (!have(rows[i].cc)) {
      printf("  %s: not installed\n", rows[i].cc);
      continue;
    }
    fixture t;
    char path[256], object[256];
    make_model(&t, rows[i].arch, i % 2);
    for (int n = 0; n < NUMBERS; n++) {
      ops_kernel(&t, numbers[n], 1);
      if (t.caps.vector_bytes) ops_kernel(&t, numbers[n], 8);
    }
    for (int n = 0; n < NUMBERS; n++)
      cvt_kernel(&t, ZN_F32, numbers[n] == ZN_F32 ? ZN_F16 : numbers[n], 1);
    vec_kernel(&t, ZN_F32, 8);
    snprintf(path, sizeof path, "%s/arch%u.c", dir, (unsigned)i);
    snprintf(object, sizeof object, "%s/arch%u.o", dir, (unsigned)i);
    write_c(&t, path);
    shell("%s %s -Wa,-I%s -c %s -o %s", rows[i].cc, rows[i].flags, dir, path, object);
    no_undefined(object, rows[i].allowed);
    close_module(&t);
  }
}

/* The header alone and beside zenith.h, in C and C++, and what it declares. */
static void test_header(void **state) {
  (void)state;
  fixture t;
  char path[256];
  make_model(&t, "generic", false);
  snprintf(path, sizeof path, "%s/net.c", dir);
  write_c(&t, path);
  snprintf(path, sizeof path, "%s/use.c", dir);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  fprintf(
      f,
      "#ifdef BEFORE\n#include \"runtime/zenith.h\"\n#endif\n#include \"net.h\"\n#include "
      "\"runtime/zenith.h\"\n"
      "#ifdef __cplusplus\n#define ALIGN alignas(64)\n#else\n#define ALIGN _Alignas(64)\n#endif\n"
      "ALIGN static unsigned char ws[net_WORKSPACE_BYTES];\nstatic float x[8][40], y[8][10];\n"
      "int main(void) { return net_infer(x, y, ws) || y[0][0] < 1.0f || net_model.num_inputs != 1; "
      "}\n");
  fclose(f);
  shell("gcc -O2 -c %s/net.c -o %s/net.o", dir, dir);
  shell("gcc -std=c11 %s -Wno-pedantic -Wconversion -Wshadow -I. -I%s %s %s/net.o -o %s/use && "
        "%s/use",
        strict, dir, path, dir, dir, dir);
  shell("gcc -std=c11 -DBEFORE %s -Wno-pedantic -I. -I%s %s %s/net.o -o %s/use && %s/use", strict,
        dir, path, dir, dir, dir);
  shell("g++ -x c++ %s -I. -I%s %s -x none %s/net.o -o %s/use && %s/use", strict, dir, path, dir,
        dir, dir);
  close_module(&t);
}

/* The examples, on the model made by hand; the firmware's bits are the host's. */
static void test_examples(void **state) {
  (void)state;
  fixture t;
  char path[256];
  make_model(&t, "cortex-m4", false);
  snprintf(path, sizeof path, "%s/net.c", dir);
  write_c(&t, path);
  shell("examples/embed-c/build.sh %s %s/embed && %s/embed 3 > %s/host.txt 2>/dev/null", path, dir,
        dir, dir);
  shell("examples/embed-cpp/build.sh %s %s/embedpp && %s/embedpp > /dev/null", path, dir, dir);
  shell("gcc -O2 -fPIC -shared -DZN_MODEL_MAIN %s -o %s/net.so && %s/embedpp %s/net.so > /dev/null",
        path, dir, dir, dir);
  if (have("arm-none-eabi-gcc") && have("qemu-system-arm")) {
    shell("examples/firmware-m4/build.sh %s %s/fw.elf", path, dir);
    shell("examples/firmware-m4/run.sh %s/fw.elf > %s/fw.txt && diff %s/fw.txt %s/host.txt", dir,
          dir, dir, dir);
  }
  close_module(&t);
}

static int make_dir(void **state) {
  (void)state;
  return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state) {
  (void)state;
  char cmd[128];
  snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
  return getenv("KEEP") ? 0 : system(cmd);
}

int main(int argc, char **argv) {
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_target),        cmocka_unit_test(test_native),
      cmocka_unit_test(test_architectures), cmocka_unit_test(test_header),
      cmocka_unit_test(test_examples),      cmocka_unit_test(test_gcc),
      cmocka_unit_test(test_clang),         cmocka_unit_test(test_no_vector_extension),
  };
  return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
