/* The profile of `zenithc bench`: a clock around every kernel, and the roofline model over the compiler's own counts
 * (Williams, Waterman, Patterson, CACM 52(4), 2009). */
#include "zenithc/driver/profile.h"

#include <inttypes.h>

#include "zenithc/driver/roofline.h"

typedef struct profile {
  zn_pool *pool;
  uint32_t n;
  uint64_t *ns, *calls, start, total;
  unsigned runs;
  zn_peaks peaks;
  const zn_kcost **costs; /* by kernel; NULL without counts */
  const bool *on_units;   /* by kernel: products of bytes, or on a device's matrix units? NULL: none */
  const zn_model *model;
} profile;

static uint64_t now_ns(void) { return (uint64_t)(zn_now() * 1e9); }

static void on_kernel(void *user, uint32_t k, int32_t begin) {
  profile *p = user;
  if (begin) {
    p->start = now_ns();
  } else if (k < p->n) {
    p->ns[k] += now_ns() - p->start;
    p->calls[k]++;
  }
}

static void pool_for(void *user, zn_kernel kernel, void *const *bufs, const intptr_t *ints, intptr_t n) {
  const profile *p = user;
  if (p->pool) zn_pool_parallel_for(p->pool, kernel, bufs, ints, n);
  else kernel(bufs, ints, 0, n);
}

static bool uses_units(const zn_kfunc *f) {
  for (uint32_t k = 1; k < f->num_insts; k++) {
    const zn_kop op = (zn_kop)f->insts[k].op;
    if (zn_kop_is_dot((uint8_t)op) || op == ZN_K_TileDot) return true;
    if (strstr(zn_kops[op].text, "mma")) return true;
  }
  return false;
}

/* Costs of kernels, and which of them use units. Kernels are the functions that are no entries, in the order of the modules and
 * inside them. */
static void read_costs(zn_arena *a, const zn_session *s, profile *p) {
  const zn_kcost **out = ZN_ARRAY(a, const zn_kcost *, p->n + 1);
  bool *units = ZN_ARRAY(a, bool, p->n + 1);
  uint32_t k = 0;
  for (uint32_t v = 0; v <= s->num_more; v++) {
    const zn_kmod *m = v ? s->more[v - 1].mod : s->mod;
    if (!m || !m->costs) return;
    for (uint32_t i = 0; i < m->num_funcs && k < p->n; i++)
      if (!m->funcs[i]->is_entry) {
        units[k] = uses_units(m->funcs[i]);
        out[k++] = &m->costs[i];
      }
  }
  if (k != p->n) return;
  p->costs = out;
  p->on_units = units;
}

/* The roof that a kernel is near to, or neither when it is far from both. What is above the memory's roof found its data
 * nearer by, where its producer left them. */
static const char *limit_of(double compute, double memory) {
  if (memory > 1.1) return compute < 0.25 ? "cache" : "compute";
  if (compute < 0.25 && memory < 0.25) return "latency";
  return compute >= memory ? "compute" : "memory";
}

static void print_row(const profile *p, uint32_t k) {
  double seconds = (double)p->ns[k] * 1e-9 / p->runs;
  printf("%8.4f %6" PRIu64 " %5.1f%%", seconds * 1e3, p->calls[k] / p->runs,
         p->total ? 100.0 * (double)p->ns[k] / (double)p->total : 0);
  if (p->costs && p->costs[k]->inexact) {
    printf(" %8s %6s %7s %6s  %-7s", "?", "", "?", "", "?");
  } else if (p->costs && seconds > 0) {
    double flops = p->costs[k]->flops / seconds, bytes = p->costs[k]->bytes / seconds;
    double roof = p->on_units && p->on_units[k] && p->peaks.units > 0 ? p->peaks.units : p->peaks.flops;
    double compute = flops / roof, memory = bytes / p->peaks.bytes;
    printf(" %8.2f %5.1f%% %7.2f %5.0f%%  %-7s", flops * 1e-9, 100 * compute, bytes * 1e-9, 100 * memory,
           limit_of(compute, memory));
  }
  printf("  %s\n", p->model->kernel_names[k]);
}

static uint32_t *by_time(zn_arena *a, const profile *p) {
  uint32_t *order = ZN_ARRAY(a, uint32_t, p->n + 1);
  for (uint32_t i = 0; i < p->n; i++) {
    uint32_t at = i;
    for (; at && p->ns[order[at - 1]] < p->ns[i]; at--) order[at] = order[at - 1];
    order[at] = i;
  }
  return order;
}

static void print_peaks(const profile *p, unsigned threads) {
  if (threads == 0)
    printf("peaks of the device: %.1f GFLOP/s (f32 fma), %.1f GFLOP/s (matrix units, f16), %.1f GB/s (copying in its memory)\n",
           p->peaks.flops * 1e-9, p->peaks.units * 1e-9, p->peaks.bytes * 1e-9);
  else
    printf("peaks on %u thread%s: %.1f GFLOP/s (f32 fma), %.1f Gop/s (products of bytes), %.1f GB/s (reading %.4g MB, the "
           "model's size)\n", threads, threads == 1 ? "" : "s", p->peaks.flops * 1e-9, p->peaks.units * 1e-9,
           p->peaks.bytes * 1e-9, (double)p->peaks.footprint * 1e-6);
}

/* threads: 0 on a device. */
static void print(zn_ctx *c, profile *p, unsigned threads) {
  for (uint32_t i = 0; i < p->n; i++) p->total += p->ns[i];
  const uint32_t *order = by_time(&c->perm, p);
  if (p->costs) {
    print_peaks(p, threads);
    puts("      ms  calls  share    Gop/s   peak    GB/s   peak  limit    kernel");
  } else {
    puts("      ms  calls  share  kernel");
  }
  for (uint32_t i = 0; i < p->n; i++)
    if (p->calls[order[i]]) print_row(p, order[i]);
  printf("%8.4f                total of %u runs' mean\n", (double)p->total * 1e-6 / p->runs, p->runs);
  if (!p->costs) puts("(operations and bytes are counted when the model is given instead of its artifact)");
}

/* ---- devices: their own clocks around every launch ---- */

/* How often the run entry calls each kernel. */
static void read_module(zn_arena *a, const zn_kmod *m, profile *p) {
  uint32_t *number = ZN_ARRAY(a, uint32_t, m->num_funcs + 1), n = 0;
  for (uint32_t i = 0; i < m->num_funcs && n < p->n; i++) {
    if (m->funcs[i]->is_entry) continue;
    number[i] = n;
    p->calls[n++] = 0;
  }
  const zn_kfunc *run = m->funcs[m->run_fn];
  for (uint32_t k = 1; k < run->num_insts; k++)
    if (run->insts[k].op == ZN_K_Call) p->calls[number[run->insts[k].imm.i]] += p->runs;
}

static zn_status on_device(zn_ctx *c, const zn_session *s, const zn_native_call *call, const void *api, profile *p) {
  zn_device_peaks peaks = {0};
  double *seconds = ZN_ARRAY(&c->perm, double, p->n + 1);
  if (p->costs && !zn_device_measure(&c->perm, &peaks)) return zn_error(c, NULL, "the device's peaks cannot be measured");
  p->peaks = (zn_peaks){.flops = peaks.flops, .bytes = peaks.bytes, .units = peaks.units};
  for (uint32_t i = 0; i < p->n; i++) p->calls[i] = p->runs;
  if (s->mod) read_module(&c->perm, s->mod, p);
  ZN_TRY(zn_device_profile(c, api, call, p->runs, seconds));
  for (uint32_t i = 0; i < p->n; i++) p->ns[i] = (uint64_t)(seconds[i] * 1e9 * p->runs);
  print(c, p, 0);
  return ZN_OK;
}

zn_status zn_profile_print(zn_ctx *c, const zn_session *s, const zn_native_call *call, unsigned threads, unsigned runs) {
  const zn_model *m = call->model;
  const void *api = zn_native_device(s->exec);
  profile p = {.n = m->num_kernels, .model = m, .runs = runs};
  read_costs(&c->perm, s, &p);
  p.ns = ZN_ARRAY(&c->perm, uint64_t, p.n + 1);
  p.calls = ZN_ARRAY(&c->perm, uint64_t, p.n + 1);
  if (api) return on_device(c, s, call, api, &p);
  if (threads > 1) p.pool = zn_pool_create(threads);
  zn_host host = {.user = &p, .parallel_for = pool_for, .profile = on_kernel};
  zn_native_call mine = *call;
  mine.host = &host;
  int32_t rc = 0;
  zn_status st = p.costs ? zn_peaks_measure(c, p.pool, call->ws_bytes + m->weights_bytes, &p.peaks) : ZN_OK;
  for (unsigned i = 0; i < runs && !rc && st == ZN_OK; i++) rc = zn_native_invoke(&mine);
  zn_pool_destroy(p.pool);
  if (rc) return zn_error(c, NULL, "the run failed: %s", zn_native_result_text(rc));
  if (st == ZN_OK) print(c, &p, threads);
  return st;
}
