/* Measures the expanded mathematical functions as compiled code: all f32 inputs (or every
 * STRIDE-th), f64 samples of several ranges, pairs for pow and fmod. usage: sweep_math [stride]
 * [arch] [function] [f32|f64]. Exit 1 when a bound of codegen/kir/math.h is exceeded. NOFMA, NOF64
 * and NOROUND in the environment take those from the target. */
#include <dlfcn.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "codegen/kir/math.h"
#include "math_ref.h"
#include "targets/cpu/cpu.h"

enum { BLOCK = 1 << 14 };

typedef void (*kernel)(void *const *bufs, const intptr_t *ints, intptr_t begin, intptr_t end);

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

static void add_kernel(zn_ctx *c, zn_kmod *m, zn_kop op, const char *name, zn_dtype t) {
  zn_kb b;
  uint32_t fn =
      zn_kb_begin(&b, c, m, zn_arena_printf(&c->graph, "k_%s_%s", name, zn_dtypes[t].name), false);
  m->funcs[fn]->exported = true;
  zn_kref out = zn_kb_param(&b, "out", ZN_KP_OUT, t), x = zn_kb_param(&b, "x", ZN_KP_IN, t);
  zn_kref y = zn_kb_param(&b, "y", ZN_KP_IN, t), lo = zn_kb_idx(&b, 0), hi = zn_kb_idx(&b, BLOCK);
  zn_kref i = zn_kb_for(&b, lo, hi, 1, ZN_FOR_VECTOR, 0), v = zn_kb_load(&b, t, 1, x, i),
          w = zn_kb_load(&b, t, 1, y, i);
  zn_kref r = math_call(&b, op, t, v, w);
  zn_kb_store(&b, out, i, r);
  zn_kb_end(&b);
  zn_kb_finish(&b);
}

/* An entry that a module needs to be built: does nothing. */
static void add_entry(zn_ctx *c, zn_kmod *m, const char *name) {
  zn_kb b;
  zn_kb_begin(&b, c, m, name, true);
  zn_kb_param(&b, "in", ZN_KP_IN, ZN_U8);
  zn_kb_param(&b, "out", ZN_KP_OUT, ZN_U8);
  zn_kb_param(&b, "ws", ZN_KP_INOUT, ZN_U8);
  zn_kb_param(&b, "n", ZN_KP_INT, ZN_IDX);
  zn_kb_param(&b, "host", ZN_KP_IN, ZN_U8);
  zn_kref zero = zn_kb_int(&b, ZN_I32, 0);
  zn_kb_ret(&b, zero);
  zn_kb_finish(&b);
}

static float fx[BLOCK], fy[BLOCK], fr[BLOCK];
static double dx[BLOCK], dy[BLOCK], dr[BLOCK];
static uint64_t seed = 88172645463325252u;

static uint64_t next(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}
static double unit(void) { return (double)(next() >> 11) * 0x1p-53; }

static double worst;
static double at_x, at_y;

static void note(double e, double x, double y) {
  if (e > worst) worst = e, at_x = x, at_y = y;
}

static void block_f32(kernel k, zn_kop op) {
  k((void *[]){fr, fx, fy}, NULL, 0, 1);
  for (int i = 0; i < BLOCK; i++) {
    double want = ref_double(op, (double)fx[i], (double)fy[i]), e = ulp_f32(fr[i], want);
    note(e, (double)fx[i], (double)fy[i]);
  }
}

static void block_f64(kernel k, zn_kop op) {
  k((void *[]){dr, dx, dy}, NULL, 0, 1);
  for (int i = 0; i < BLOCK; i++) {
    long double want = ref_long(op, (long double)dx[i], (long double)dy[i]);
    note(ulp_f64(dr[i], want), dx[i], dy[i]);
  }
}

static void sweep_f32(kernel k, zn_kop op, uint64_t stride) {
  int n = 0;
  for (uint64_t u = 0; u < 1ull << 32; u += stride) {
    uint32_t bits = (uint32_t)u;
    memcpy(&fx[n++], &bits, 4);
    if (n == BLOCK) block_f32(k, op), n = 0;
  }
  block_f32(k, op);
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
                                 -1.5,
                                 1e-40,
                                 -1e-40,
                                 1e-310,
                                 3e38,
                                 -3e38,
                                 1e308,
                                 -1e308,
                                 16777217,
                                 -16777215,
                                 4503599627370497.0,
                                 -9007199254740991.0,
                                 INFINITY,
                                 -INFINITY,
                                 NAN,
                                 1e-5,
                                 0.999999999,
                                 1.0000001};
enum { SPECIAL = sizeof special / sizeof *special };

static double wide(int range, bool small) {
  uint64_t r = next();
  double d;
  switch (range % 6) {
  case 0: return (unit() - 0.5) * 4;
  case 1: return (unit() - 0.5) * 40;
  case 2: return (unit() - 0.5) * (small ? 180 : 1500);
  case 3: return (unit() - 0.5) * 2e5;
  case 4: return (unit() - 0.5) * ldexp(1, -(int)(r % 60));
  default:
    if (small) {
      uint32_t u = (uint32_t)r;
      float f;
      memcpy(&f, &u, 4);
      return (double)f;
    }
    memcpy(&d, &r, 8);
    return d;
  }
}

static void pairs(kernel k, zn_kop op, zn_dtype t, uint64_t blocks) {
  bool small = t == ZN_F32;
  for (uint64_t b = 0; b <= blocks; b++) {
    for (int i = 0; i < BLOCK; i++) {
      double x = wide((int)b, small), y = wide((int)(b / 6), small);
      if (op == ZN_K_Pow && b % 3 == 1)
        x = fabs(x), y = (unit() - 0.5) * 2 * (small ? 104 : 745) / (log(x) == 0 ? 1 : log(x));
      if (op == ZN_K_Pow && b % 3 == 2) y = rint(y);
      if (b == 0) x = special[i % SPECIAL], y = special[i / SPECIAL % SPECIAL];
      fx[i] = (float)x, fy[i] = (float)y, dx[i] = x, dy[i] = y;
    }
    if (small)
      block_f32(k, op);
    else
      block_f64(k, op);
  }
}

static void samples_f64(kernel k, zn_kop op, uint64_t blocks) {
  for (uint64_t b = 0; b <= blocks; b++) {
    for (int i = 0; i < BLOCK; i++) dx[i] = b ? wide((int)b, false) : special[i % SPECIAL];
    block_f64(k, op);
  }
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int one(void *so, int f, zn_dtype t, uint64_t stride) {
  char name[64];
  zn_kop op = functions[f].op;
  snprintf(name, sizeof name, "k_%s_%s", functions[f].name, zn_dtypes[t].name);
  void *sym = dlsym(so, name);
  kernel k;
  memcpy(&k, &sym, sizeof k);
  if (!k) return printf("%s is missing\n", name), 1;
  for (int i = 0; i < BLOCK; i++)
    fx[i] = (float)(unit() * 4 - 2), dx[i] = unit() * 4 - 2, fy[i] = 1.25f, dy[i] = 1.25;
  double start = seconds();
  for (int i = 0; i < 20; i++)
    k(t == ZN_F32 ? (void *[]){fr, fx, fy} : (void *[]){dr, dx, dy}, NULL, 0, 1);
  double ns = (seconds() - start) / 20 / BLOCK * 1e9;
  worst = 0;
  if (math_takes_two(op))
    pairs(k, op, t, 400000 / stride + 60);
  else if (t == ZN_F32)
    sweep_f32(k, op, stride);
  else
    samples_f64(k, op, 4000 / stride + 60);
  double bound = t == ZN_F32 ? functions[f].f32 : functions[f].f64;
  printf("%-8s %s  %8.3f ulp (bound %g)  %.2f ns  at %a %a (%.9g %.9g)%s\n", functions[f].name,
         zn_dtypes[t].name, worst, bound, ns, at_x, at_y, at_x, at_y,
         worst > bound ? "  EXCEEDED" : "");
  fflush(stdout);
  return worst > bound;
}

int main(int argc, char **argv) {
  uint64_t stride = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
  zn_ctx c;
  zn_caps caps;
  zn_ctx_init(&c);
  if (zn_cpu_caps(&c, argc > 2 ? argv[2] : "native", &caps) != ZN_OK) return 2;
  zn_kmod *m = zn_kmod_new(&c.graph, "sweep");
  add_entry(&c, m, "sweep_run");
  add_entry(&c, m, "sweep_plan");
  m->run_fn = 0;
  m->plan_fn = 1;
  for (int f = 0; f < FUNCTIONS; f++)
    for (int t = 0; t < 2; t++)
      add_kernel(&c, m, functions[f].op, functions[f].name, t ? ZN_F64 : ZN_F32);
  if (getenv("NOFMA")) caps.fma = false;
  if (getenv("NOF64")) caps.f64_native = false;
  if (getenv("NOROUND")) caps.round_native = false;
  if (zn_kpass_widen(&c, m, &caps) != ZN_OK || zn_kpass_expand(&c, m, &caps) != ZN_OK ||
      zn_kmod_verify(&c, m) != ZN_OK)
    return 2;
  char path[] = "/tmp/zn-sweep-XXXXXX.so";
  int fd = mkstemps(path, 3), bad = 0;
  if (fd < 0) return 2;
  close(fd);
  zn_build_opts o = {.out = path, .opt_level = 2, .keep_names = true};
  if (zn_cpu_build(&c, m, &caps, &o) != ZN_OK) return 2;
  void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  unlink(path);
  if (!so) return fprintf(stderr, "%s\n", dlerror()), 2;
  for (int t = 0; t < 2; t++)
    for (int f = 0; f < FUNCTIONS; f++)
      if ((argc <= 3 || !strcmp(argv[3], functions[f].name)) &&
          (argc <= 4 || !strcmp(argv[4], t ? "f64" : "f32")))
        bad |= one(so, f, t ? ZN_F64 : ZN_F32, stride);
  dlclose(so);
  zn_ctx_fini(&c);
  return bad;
}
