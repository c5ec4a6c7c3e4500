/* Runs device artifacts on packed test data (pack.py) where no zenithc is: run_packs PACK ARTIFACTS [NAME-PREFIX]
 * Every case runs three times on host memory (the third as a recorded graph) on every device of the machine and must give
 * the same bits each time and the stored outputs within rtol 1e-3, atol 1e-7. Works in child processes, since a fault on the
 * device ends a process's use of it. `run_packs --bench ARTIFACT RUNS` instead times graph replays on device memory with
 * events. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/zenith_device.h"

enum { MAX_IO = 64, MAX_DEVICES = 16, RTOL_INV = 1000 };

typedef struct packed {
  char name[64];
  uint32_t dtype, rank;
  uint64_t bytes;
  int64_t shape[8];
} packed;

typedef struct test {
  char name[128];
  uint32_t num_in, num_out;
  const packed *io[2 * MAX_IO];
} test;

static char *read_all(const char *path, size_t *n) {
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  fseek(f, 0, SEEK_END);
  *n = (size_t)ftell(f);
  fseek(f, 0, SEEK_SET);
  char *p = malloc(*n + 8);
  if (p && fread(p, 1, *n, f) != *n) p = NULL;
  fclose(f);
  return p;
}

static const void *data_of(const packed *t) { return t + 1; }

static size_t parse(const char *p, test *t) {
  const char *start = p;
  memcpy(t->name, p, 128);
  memcpy(&t->num_in, p + 128, 4);
  memcpy(&t->num_out, p + 132, 4);
  p += 136;
  for (uint32_t i = 0; i < t->num_in + t->num_out; i++) {
    const packed *k = (const packed *)(const void *)p;
    if (i < 2 * MAX_IO) t->io[i] = k;
    p += sizeof *k + (k->bytes + 7) / 8 * 8;
  }
  return (size_t)(p - start);
}

static double half(uint16_t h) {
  int e = h >> 10 & 31, m = h & 1023;
  double v = e == 31 ? (m ? (double)NAN : (double)INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
  return h >> 15 ? -v : v;
}

static double brain(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

/* Formats of a byte or less: exponent bits, mantissa bits, bias; whether the top exponent holds infinities, and what else no
 * number is. */
static double tiny(uint32_t dtype, uint8_t u) {
  static const struct { int e, m, bias, inf, uz; } f[] = {{4, 3, 7, 0, 0}, {4, 3, 8, 0, 1}, {5, 2, 15, 1, 0}, {5, 2, 16, 0, 1}};
  if (dtype == 24) return u == 255 ? (double)NAN : ldexp(1, u - 127); /* E8M0 */
  int is4 = dtype == 23, k = is4 ? 0 : (int)dtype - 17, eb = is4 ? 2 : f[k].e, mb = is4 ? 1 : f[k].m, bias = is4 ? 1 : f[k].bias;
  int e = u >> mb & ((1 << eb) - 1), m = u & ((1 << mb) - 1), neg = u >> (eb + mb) & 1;
  if (!is4 && f[k].uz && u == 0x80) return (double)NAN;
  if (!is4 && f[k].inf && e == 31) return m ? (double)NAN : neg ? -(double)INFINITY : (double)INFINITY;
  if (!is4 && !f[k].inf && !f[k].uz && (u & 0x7f) == 0x7f) return (double)NAN;
  double v = e ? ldexp((1 << mb) + m, e - bias - mb) : ldexp(m, 1 - bias - mb);
  return neg ? -v : v;
}

/* Element i as a number; *exact: the type must agree exactly. */
static double element(uint32_t dtype, const void *p, uint64_t i, int *exact) {
  *exact = 0;
  if ((dtype >= 17 && dtype <= 20) || dtype == 23 || dtype == 24) return tiny(dtype, ((const uint8_t *)p)[i]);
  if (dtype == 1) return ((const float *)p)[i];
  if (dtype == 11) return ((const double *)p)[i];
  if (dtype == 10) return half(((const uint16_t *)p)[i]);
  if (dtype == 16) return brain(((const uint16_t *)p)[i]);
  *exact = 1;
  return 0;
}

static uint64_t count_of(const packed *t) {
  uint64_t n = 1;
  for (uint32_t d = 0; d < t->rank; d++) n *= (uint64_t)t->shape[d];
  return n;
}

static int differs(const packed *want, const zn_tensor *got, char *why, size_t room) {
  int exact;
  double worst = 0, top = 0;
  if (got->dtype != want->dtype || got->rank != want->rank || memcmp(got->shape, want->shape, 8 * want->rank)) {
    snprintf(why, room, "output %s: type or shape differs", want->name);
    return 1;
  }
  element(want->dtype, data_of(want), 0, &exact);
  if (exact) {
    if (!memcmp(got->u.data, data_of(want), want->bytes)) return 0;
    snprintf(why, room, "output %s: values differ", want->name);
    return 1;
  }
  int bad = 0;
  for (uint64_t i = 0, n = count_of(want); i < n; i++) {
    double w = element(want->dtype, data_of(want), i, &exact), g = element(want->dtype, got->u.data, i, &exact);
    if ((isnan(w) && isnan(g)) || w == g) continue;
    double d = fabs(w - g);
    if (!(d <= 1e-7 + fabs(w) / RTOL_INV)) bad++;
    if (!(d <= worst)) worst = d;
    if (fabs(w) > top) top = fabs(w);
  }
  if (bad) snprintf(why, room, "output %s: %d elements, max abs %.3g of %.3g", want->name, bad, worst, top);
  return bad != 0;
}

static int find_input(const test *t, const char *name) {
  for (uint32_t i = 0; i < t->num_in; i++)
    if (!strncmp(t->io[i]->name, name, 63)) return (int)i;
  return -1;
}

/* Of the bits of all outputs: equal sums of two machines mean equal results. */
static uint64_t sum_bits(uint64_t h, const void *p, uint64_t n) {
  for (uint64_t i = 0; i < n; i++) h = (h ^ ((const unsigned char *)p)[i]) * UINT64_C(1099511628211);
  return h;
}

/* 0 passed, 1 failed, 2 failed on the device: the process is spoilt. */
static int run_on(const test *t, const zn_model *m, const zn_device_api *api, zn_session *s, uint64_t *bits, char *why,
                  size_t room) {
  zn_tensor in[MAX_IO] = {0}, out[MAX_IO] = {0};
  void *first[MAX_IO] = {0}, *given[MAX_IO] = {0};
  uint64_t room_of[MAX_IO] = {0};
  for (uint32_t i = 0; i < m->num_inputs; i++) {
    int k = find_input(t, m->inputs[i].name);
    if (k < 0) return snprintf(why, room, "no data for input %s", m->inputs[i].name) < 0 ? 0 : 1;
    in[i] = (zn_tensor){.bytes = t->io[k]->bytes, .dtype = t->io[k]->dtype, .rank = t->io[k]->rank};
    in[i].u.data = t->io[k]->bytes ? (void *)(uintptr_t)data_of(t->io[k]) : malloc(8);
    memcpy(in[i].shape, t->io[k]->shape, sizeof in[i].shape);
  }
  int32_t rc = api->plan(s, in, out);
  for (int run = 0; run < 3 && !rc; run++) {
    for (uint32_t i = 0; i < m->num_outputs; i++) {
      if (run == 0) room_of[i] = out[i].bytes, given[i] = malloc(out[i].bytes + 8);
      out[i].u.data = given[i]; /* a size without a bound: run says where it put the output */
      out[i].bytes = room_of[i];
      memset(out[i].u.data, 0xa5, out[i].bytes);
    }
    rc = api->run(s, in, out, NULL);
    for (uint32_t i = 0; i < m->num_outputs && !rc; i++) {
      if (i >= t->num_out) continue;
      if (run == 0) first[i] = calloc(1, out[i].bytes + 8), memcpy(first[i], out[i].u.data, out[i].bytes);
      if (run == 0) *bits = sum_bits(*bits, out[i].u.data, t->io[t->num_in + i]->bytes);
      if (run == 0 && differs(t->io[t->num_in + i], &out[i], why, room)) return 1;
      if (run > 0 && memcmp(first[i], out[i].u.data, t->io[t->num_in + i]->bytes))
        return snprintf(why, room, "output %u: run %d gives other bits", i, run + 1) < 0 ? 0 : 1;
    }
  }
  for (uint32_t i = 0; i < m->num_outputs; i++) free(given[i]), free(first[i]);
  if (rc) snprintf(why, room, "code %d: %s", rc, api->error(s));
  return rc == 0 ? 0 : rc >= 64 ? 2 : 1;
}

static int device_count(void) {
  int n = 0, (*init)(unsigned), (*count)(int *);
  void *cu = dlopen("libcuda.so.1", RTLD_NOW);
  if (!cu) return 1;
  *(void **)&init = dlsym(cu, "cuInit");
  *(void **)&count = dlsym(cu, "cuDeviceGetCount");
  return init(0) || count(&n) || n < 1 ? 1 : n < MAX_DEVICES ? n : MAX_DEVICES;
}

/* On every device, with the sessions of all of them open: the bits are those of the first. */
static int run_test(const test *t, const char *art, uint64_t *bits, char *why, size_t room) {
  char path[600];
  snprintf(path, sizeof path, "%s/%s.so", art, t->name);
  void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!h) return snprintf(why, room, "%s", dlerror()) < 0 ? 0 : 1;
  const zn_model *m = dlsym(h, "zn_model_main");
  const zn_device_api *api = dlsym(h, "zn_device_main");
  zn_session *s[MAX_DEVICES] = {0};
  const int devices = device_count();
  for (int d = 0; d < devices; d++) {
    int32_t rc = api->open(d, &s[d]);
    if (rc) return snprintf(why, room, "open %d: code %d: %s", d, rc, api->error(NULL)) < 0 ? 0 : 2;
  }
  int r = 0;
  const uint64_t start = *bits;
  for (int d = 0; d < devices && !r; d++) {
    uint64_t own = start;
    r = run_on(t, m, api, s[d], &own, why, room);
    if (d == 0) *bits = own;
    if (!r && own != *bits) r = snprintf(why, room, "device %d gives other bits", d) < 0 ? 0 : 1;
  }
  static int sessions; /* the first stay open, so that the devices' contexts do */
  if (sessions++ == 0 || r == 2) return r;
  for (int d = 0; d < devices; d++) api->close(s[d]);
  dlclose(h);
  return r;
}

static int all_tests(const char *pack, const char *art, const char *prefix) {
  size_t n;
  char *data = read_all(pack, &n);
  if (!data) return 2;
  unsigned passed = 0, failed = 0;
  uint64_t bits = 0;
  size_t at = 0;
  while (at < n) {
    int fd[2];
    if (pipe(fd)) return 2;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) { /* runs on until the device fails */
      close(fd[0]);
      for (size_t p = at; p < n;) {
        test t;
        char why[400] = "";
        size_t used = parse(data + p, &t);
        uint64_t own = UINT64_C(14695981039346656037);
        int r = strncmp(t.name, prefix, strlen(prefix)) ? 3 : run_test(&t, art, &own, why, sizeof why);
        p += used;
        if (r == 1 || r == 2) printf("FAIL %s: %s\n", t.name, why), fflush(stdout);
        uint64_t note[3] = {p, (uint64_t)r, own};
        if (write(fd[1], note, sizeof note) != sizeof note) _exit(3);
        if (r == 2) _exit(2);
      }
      _exit(0);
    }
    close(fd[1]);
    uint64_t note[3];
    size_t before = at;
    while (read(fd[0], note, sizeof note) == sizeof note) {
      at = note[0];
      if (note[1] == 0) bits ^= note[2] * (passed + 1), passed++;
      else if (note[1] < 3) failed++;
    }
    close(fd[0]);
    int status;
    waitpid(pid, &status, 0);
    if (at == before || (WIFSIGNALED(status) && at < n)) {
      test t;
      size_t used = parse(data + at, &t);
      printf("FAIL %s: the process ended (%d)\n", t.name, status);
      failed++;
      at += used;
    }
  }
  printf("%u passed, %u failed, bits %016llx\n", passed, failed, (unsigned long long)bits);
  return failed != 0;
}

/* ---- timing ---- */

typedef struct driver {
  int (*ctx_retain)(void **, int), (*ctx_set)(void *), (*alloc)(uint64_t *, size_t), (*set)(uint64_t, unsigned, size_t);
  int (*stream)(void **, unsigned), (*ev_new)(void **, unsigned), (*ev_rec)(void *, void *), (*ev_ms)(float *, void *, void *);
  int (*wait)(void *), (*to)(uint64_t, const void *, size_t);
} driver;

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return x < y ? -1 : x > y;
}

static void *fill(const zn_io_desc *d, uint64_t *bytes) {
  uint64_t n = 1, size = d->dtype == 7 || d->dtype == 11 ? 8 : d->dtype == 9 || d->dtype == 2 || d->dtype == 3 ? 1
                         : d->dtype == 10 || d->dtype == 16 ? 2 : 4;
  for (uint32_t i = 0; i < d->rank; i++) n *= d->shape[i] > 0 ? (uint64_t)d->shape[i] : 1;
  char *p = calloc(n + 8, size);
  uint32_t x = 12345;
  for (uint64_t i = 0; i < n; i++) {
    x = x * 1664525u + 1013904223u;
    float f = (float)(x >> 8) / (float)(1 << 23) - 1;
    if (d->dtype == 1) ((float *)(void *)p)[i] = f;
    if (d->dtype == 10) ((uint16_t *)(void *)p)[i] = (uint16_t)(0x3000 | (x >> 22 & 0x3ff) | (x & 0x8000));
    if (d->dtype == 16) memcpy(&((uint16_t *)(void *)p)[i], (char *)&f + 2, 2);
    if (d->dtype == 7) ((int64_t *)(void *)p)[i] = x >> 31;
  }
  *bytes = n * size;
  return p;
}

static int bench(const char *path, int runs, int profile) {
  void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL), *cu = dlopen("libcuda.so.1", RTLD_NOW), *ctx, *stream, *a, *b;
  driver d;
  zn_session *s;
  if (!h || !cu) return printf("%s\n", dlerror());
  *(void **)&d.ctx_retain = dlsym(cu, "cuDevicePrimaryCtxRetain");
  *(void **)&d.ctx_set = dlsym(cu, "cuCtxSetCurrent");
  *(void **)&d.alloc = dlsym(cu, "cuMemAlloc_v2");
  *(void **)&d.to = dlsym(cu, "cuMemcpyHtoD_v2");
  *(void **)&d.stream = dlsym(cu, "cuStreamCreate");
  *(void **)&d.ev_new = dlsym(cu, "cuEventCreate");
  *(void **)&d.ev_rec = dlsym(cu, "cuEventRecord");
  *(void **)&d.ev_ms = dlsym(cu, "cuEventElapsedTime");
  *(void **)&d.wait = dlsym(cu, "cuStreamSynchronize");
  const zn_model *m = dlsym(h, "zn_model_main");
  const zn_device_api *api = dlsym(h, "zn_device_main");
  if (api->open(0, &s)) return printf("%s: %s\n", path, api->error(NULL));
  zn_tensor in[MAX_IO] = {0}, out[MAX_IO] = {0};
  d.ctx_retain(&ctx, 0);
  d.ctx_set(ctx);
  d.stream(&stream, 1);
  d.ev_new(&a, 0);
  d.ev_new(&b, 0);
  for (uint32_t i = 0; i < m->num_inputs; i++) {
    void *host = fill(&m->inputs[i], &in[i].bytes);
    in[i].dtype = m->inputs[i].dtype;
    in[i].rank = m->inputs[i].rank;
    for (uint32_t k = 0; k < in[i].rank; k++) in[i].shape[k] = m->inputs[i].shape[k] > 0 ? m->inputs[i].shape[k] : 1;
    d.alloc(&in[i].u.data_bits, in[i].bytes + 64);
    d.to(in[i].u.data_bits, host, in[i].bytes);
  }
  int32_t rc = api->plan(s, in, out);
  for (uint32_t i = 0; i < m->num_outputs; i++) d.alloc(&out[i].u.data_bits, out[i].bytes + 64);
  for (int i = 0; i < 5 && !rc; i++) rc = api->run(s, in, out, stream);
  if (!rc) rc = api->wait(s);
  float *ms = calloc((size_t)runs, sizeof *ms);
  for (int i = 0; i < runs && !rc; i++) {
    d.ev_rec(a, stream);
    rc = api->run(s, in, out, stream);
    d.ev_rec(b, stream);
    d.wait(stream);
    d.ev_ms(&ms[i], a, b);
  }
  if (rc) return printf("%s: code %d: %s\n", path, rc, api->error(s));
  qsort(ms, (size_t)runs, sizeof *ms, ascending);
  printf("%-40s median %.4f ms  min %.4f  (%u kernels)\n", path, (double)ms[runs / 2], (double)ms[0], m->num_kernels);
  if (!profile) return 0;
  float *each = calloc(m->num_kernels + 1u, sizeof *each), sum = 0;
  api->profile(s, in, out, each);
  api->profile(s, in, out, each);
  for (uint32_t i = 0; i < m->num_kernels; i++) sum += each[i];
  for (int top = 0; top < profile; top++) {
    uint32_t best = 0;
    for (uint32_t i = 0; i < m->num_kernels; i++)
      if (each[i] > each[best]) best = i;
    double part = 100 * (double)each[best] / (double)sum;
    printf("  %7.4f ms %4.1f%%  k%u %s\n", (double)each[best], part, best, m->kernel_names[best]);
    each[best] = 0;
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc >= 4 && !strcmp(argv[1], "--bench")) return bench(argv[2], atoi(argv[3]), argc > 4 ? atoi(argv[4]) : 0);
  if (argc < 3) return 2;
  return all_tests(argv[1], argv[2], argc > 3 ? argv[3] : "");
}
