/* What the first device can do at most, measured: copies in its memory, multiply-adds in registers, and its matrix units. The
 * three kernels are PTX, which the driver compiles for the device at hand, so this needs no NVRTC. */
#include <dlfcn.h>

#include "targets/native.h"
#include "zenithc/base/text.h"

#define THREADS 256
#define CHAINS 16
#define ROUNDS 8000
#define MMA_CHAINS 8
#define WG_COLUMNS 256
enum { COPY_BYTES = 512 << 20, REPEATS = 6, WG_REGS = WG_COLUMNS / 2, WG_SHARED = 48 << 10 };

typedef struct driver {
#define CUDA_FN(name, symbol, params) int(*name) params;
#include "runtime/cuda.def"
#undef CUDA_FN
  int (*copy_on)(uint64_t to, uint64_t from, size_t bytes, void *stream);
  void *handle, *ctx, *stream, *from, *to;
  int device, sm, multiprocessors;
} driver;

typedef struct config { /* CUlaunchConfig */
  unsigned grid[3], block[3], shared;
  void *stream;
  const void *attributes;
  unsigned num_attributes;
} config;

static bool load_driver(driver *d) {
  d->handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!d->handle) return false;
#define CUDA_FN(name, symbol, params)               \
  *(void **)&d->name = dlsym(d->handle, #symbol);   \
  if (!d->name) return false;
#include "runtime/cuda.def"
#undef CUDA_FN
  *(void **)&d->copy_on = dlsym(d->handle, "cuMemcpyDtoDAsync_v2");
  return d->copy_on != NULL;
}

static bool open_device(driver *d) {
  int major = 0, minor = 0;
  if (d->init(0) || d->device_get(&d->device, 0) || d->device_attribute(&d->multiprocessors, 16, d->device)) return false;
  if (d->device_attribute(&major, 75, d->device) || d->device_attribute(&minor, 76, d->device)) return false;
  d->sm = 10 * major + minor;
  return !d->ctx_retain(&d->ctx, d->device) && !d->ctx_push(d->ctx) && !d->stream_create(&d->stream, 1) &&
         !d->event_create(&d->from, 0) && !d->event_create(&d->to, 0);
}

static void close_device(driver *d) {
  void *old;
  if (d->from) d->event_destroy(d->from);
  if (d->to) d->event_destroy(d->to);
  if (d->stream) d->stream_destroy(d->stream);
  if (!d->ctx) return;
  d->ctx_pop(&old);
  d->ctx_release(d->device);
}

/* ---- kernels ---- */

static void open_kernel(zn_text *t, const char *target, const char *version) {
  zn_text_printf(t, ".version %s\n.target %s\n.address_size 64\n", version, target);
  zn_text_puts(t, ".visible .entry peak(.param .u64 out) {\n .reg .u64 %p;\n .reg .u32 %i;\n .reg .pred %q;\n .reg .f32 %s;\n");
  zn_text_puts(t, " ld.param.u64 %p, [out];\n mov.u32 %i, 0;\n");
}

static void close_kernel(zn_text *t, const char *sum, unsigned n) {
  zn_text_printf(t, " add.u32 %%i, %%i, 1;\n setp.lt.u32 %%q, %%i, %d;\n @%%q bra again;\n mov.f32 %%s, 0f00000000;\n", ROUNDS);
  for (unsigned k = 0; k < n; k++) zn_text_printf(t, " add.f32 %%s, %%s, %s%u;\n", sum, k);
  zn_text_puts(t, " st.global.f32 [%p], %s;\n ret;\n}\n"); /* so that the work is not dropped */
}

/* CHAINS independent multiply-adds a round. */
static const char *fma_kernel(zn_arena *a) {
  zn_text t;
  zn_text_init(&t, a);
  open_kernel(&t, "sm_75", "7.0");
  zn_text_printf(&t, " .reg .f32 %%x<%d>, %%m, %%b;\n .reg .u32 %%t;\n mov.u32 %%t, %%tid.x;\n", CHAINS);
  zn_text_puts(&t, " mov.f32 %m, 0f3F7FFFF0;\n mov.f32 %b, 0f3A83126F;\n");
  for (unsigned k = 0; k < CHAINS; k++) /* no two chains alike */
    zn_text_printf(&t, " mad.lo.u32 %%t, %%t, 3, %u;\n cvt.rn.f32.u32 %%x%u, %%t;\n", k + 1, k);
  zn_text_puts(&t, "again:\n");
  for (unsigned k = 0; k < CHAINS; k++) zn_text_printf(&t, " fma.rn.f32 %%x%u, %%x%u, %%m, %%b;\n", k, k);
  close_kernel(&t, "%x", CHAINS);
  return t.s;
}

/* Warps multiply 16 x 16 by 16 x 8. The numbers vary with the thread: units run faster on zeros. */
static const char *mma_kernel(zn_arena *a) {
  zn_text t;
  zn_text_init(&t, a);
  open_kernel(&t, "sm_80", "7.0");
  zn_text_printf(&t, " .reg .b32 %%a<4>, %%b<2>;\n .reg .u32 %%t;\n .reg .f32 %%x<%d>;\n mov.u32 %%t, %%tid.x;\n",
                 4 * MMA_CHAINS);
  for (unsigned k = 0; k < 6; k++) /* halves near 1 */
    zn_text_printf(&t, " mad.lo.u32 %%%c%u, %%t, %u, %u;\n", k < 4 ? 'a' : 'b', k % 4, 0x00130007u + k, 0x3c003a00u);
  for (unsigned k = 0; k < 4 * MMA_CHAINS; k++) zn_text_printf(&t, " mov.f32 %%x%u, 0f00000000;\n", k);
  zn_text_puts(&t, "again:\n");
  for (unsigned k = 0; k < 4 * MMA_CHAINS; k += 4)
    zn_text_printf(&t, " mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%%x%u,%%x%u,%%x%u,%%x%u}, {%%a0,%%a1,%%a2,%%a3}, "
                       "{%%b0,%%b1}, {%%x%u,%%x%u,%%x%u,%%x%u};\n", k, k + 1, k + 2, k + 3, k, k + 1, k + 2, k + 3);
  close_kernel(&t, "%x", 4 * MMA_CHAINS);
  return t.s;
}

/* Hopper: groups of four warps multiply 64 x 16 by 16 x 256 from shared memory. */
static const char *wgmma_kernel(zn_arena *a) {
  zn_text t;
  zn_text_init(&t, a);
  open_kernel(&t, "sm_90a", "8.0");
  zn_text_printf(&t, " .reg .f32 %%x<%d>;\n .reg .u64 %%da, %%db;\n .reg .u32 %%t, %%at, %%v;\n .reg .pred %%r;\n", WG_REGS);
  zn_text_printf(&t, " .shared .align 128 .b8 tiles[%d];\n mov.u32 %%t, %%tid.x;\n mov.u32 %%at, tiles;\n", WG_SHARED);
  zn_text_puts(&t, " shl.b32 %t, %t, 2;\nfill:\n mad.lo.u32 %v, %t, 1245193, 1006647808;\n");
  zn_text_puts(&t, " { .reg .u32 %w; add.u32 %w, %at, %t; st.shared.u32 [%w], %v; }\n");
  zn_text_printf(&t, " add.u32 %%t, %%t, %d;\n setp.lt.u32 %%r, %%t, %d;\n @%%r bra fill;\n bar.sync 0;\n", 4 * THREADS,
                 WG_SHARED);
  zn_text_puts(&t, " fence.proxy.async.shared::cta;\n bar.sync 0;\n shr.u32 %at, %at, 4;\n and.b32 %at, %at, 16383;\n");
  /* core matrices of 8 rows x 16 bytes: 128 bytes to the next along the depth, 256 to the next 8 rows */
  zn_text_puts(&t, " cvt.u64.u32 %da, %at;\n or.b64 %da, %da, 0x0000001000080000;\n add.u64 %db, %da, 256;\n");
  for (unsigned k = 0; k < WG_REGS; k++) zn_text_printf(&t, " mov.f32 %%x%u, 0f00000000;\n", k);
  zn_text_puts(&t, "again:\n wgmma.fence.sync.aligned;\n");
  for (int twice = 0; twice < 2; twice++) {
    zn_text_printf(&t, " wgmma.mma_async.sync.aligned.m64n%dk16.f32.f16.f16 {", WG_COLUMNS);
    for (unsigned k = 0; k < WG_REGS; k++) zn_text_printf(&t, "%s%%x%u", k ? "," : "", k);
    zn_text_puts(&t, "}, %da, %db, 1, 1, 1, 0, 0;\n");
  }
  zn_text_puts(&t, " wgmma.commit_group.sync.aligned;\n wgmma.wait_group.sync.aligned 0;\n");
  close_kernel(&t, "%x", WG_REGS);
  return t.s;
}

/* ---- timing ---- */

static double elapsed(driver *d) {
  float ms = 0;
  if (d->event_record(d->to, d->stream) || d->stream_wait(d->stream) || d->event_elapsed(&ms, d->from, d->to)) return 0;
  return (double)ms * 1e-3;
}

/* Operations per second of a kernel with `ops` of them in a thread; 0: it does not run here. */
static double rate_of(driver *d, const char *ptx, double ops, uint64_t out) {
  void *module = NULL, *f = NULL;
  double best = 0;
  config c = {.grid = {(unsigned)d->multiprocessors * 4, 1, 1}, .block = {THREADS, 1, 1}, .stream = d->stream};
  void *params[1] = {&out};
  if (d->module_load(&module, ptx)) return 0;
  bool ok = !d->module_function(&f, module, "peak");
  for (int i = 0; i < REPEATS && ok; i++) {
    ok = !d->event_record(d->from, d->stream) && !d->launch(&c, f, params, NULL);
    double s = ok ? elapsed(d) : 0;
    if (s > 0 && (best == 0 || s < best)) best = s;
  }
  d->module_unload(module);
  return ok && best > 0 ? ops * c.grid[0] * THREADS / best : 0;
}

static double copy_rate(driver *d, uint64_t a, uint64_t b) {
  double best = 0;
  for (int i = 0; i < REPEATS; i++) {
    if (d->event_record(d->from, d->stream) || d->copy_on(b, a, COPY_BYTES, d->stream)) return 0;
    double s = elapsed(d);
    if (s > 0 && (best == 0 || s < best)) best = s;
  }
  return best > 0 ? 2.0 * (double)COPY_BYTES / best : 0;
}

static void measure(zn_arena *a, driver *d, zn_device_peaks *out) {
  uint64_t x = 0, y = 0;
  bool room = !d->mem_alloc(&x, COPY_BYTES) && !d->mem_alloc(&y, COPY_BYTES);
  if (room && !d->set32(x, 0x3f9d70a4, COPY_BYTES / 4, d->stream)) {
    const double in_thread = 2.0 * ROUNDS;
    out->bytes = copy_rate(d, x, y);
    out->flops = rate_of(d, fma_kernel(a), in_thread * CHAINS, x);
    if (d->sm >= 80) out->units = rate_of(d, mma_kernel(a), in_thread * MMA_CHAINS * 16 * 8 * 16 / 32, x);
    double wide = d->sm == 90 ? rate_of(d, wgmma_kernel(a), in_thread * 2 * 64 * WG_COLUMNS * 16 / 128, x) : 0;
    if (wide > out->units) out->units = wide;
  }
  if (x) d->mem_free(x);
  if (y) d->mem_free(y);
}

bool zn_device_measure(zn_arena *a, zn_device_peaks *out) {
  driver d = {0};
  *out = (zn_device_peaks){0};
  if (load_driver(&d) && open_device(&d)) measure(a, &d, out);
  close_device(&d);
  return out->bytes > 0 && out->flops > 0;
}
