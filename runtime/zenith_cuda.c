/* The runtime object of CUDA artifacts: opens the driver by name (nothing to install beside it), keeps weights and workspace
 * on the device, runs the generated entry with hooks that launch kernels, and records the run as a CUDA graph once a caller
 * repeats it. One copy is linked into each artifact; its only writable data is the default session behind NAME_run. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_session.h"

/* what the artifact's own object provides */
HIDDEN int32_t zn_device_run(zn_tensor *in, zn_tensor *out, void *ws, size_t ws_bytes, const zn_host *host);
HIDDEN int32_t zn_device_plan(zn_tensor *in, zn_tensor *out, void *ws, size_t ws_bytes, const zn_host *host);
/* what it asks of us */
HIDDEN int32_t zn_device_call_run(zn_tensor *in, zn_tensor *out, void *ws, size_t ws_bytes, const zn_host *host);
HIDDEN int32_t zn_device_call_plan(zn_tensor *in, zn_tensor *out, void *ws, size_t ws_bytes, const zn_host *host);
extern const zn_device_api zn_device_main;

typedef struct caller { /* of NAME_run: hooks and workspace, or nothing */
  const zn_host *host;
  void *ws;
  size_t ws_bytes;
} caller;

static char open_error[256];

static const zn_cuda_blob *blob(void) { return (const zn_cuda_blob *)(const void *)zn_device_blob; }
static const void *at(uint64_t offset) { return zn_device_blob + offset; }

/* ---- errors ---- */

int32_t zn_cuda_fail(zn_session *s, int code, const char *what) {
  const char *name = NULL, *text = NULL;
  if (code == 0) return ZN_RUN_OK;
  if (s->cu.error_name) s->cu.error_name(code, &name);
  if (s->cu.error_text) s->cu.error_text(code, &text);
  snprintf(s->text, sizeof s->text, "%s: %s (%s, code %d)", what, text ? text : "unknown error", name ? name : "?", code);
  return code == OUT_OF_MEMORY ? ZN_RUN_DEVICE_MEMORY : code == NO_BINARY ? ZN_RUN_DEVICE_CODE : ZN_RUN_DEVICE;
}

void zn_cuda_keep(zn_session *s, int code, const char *what) {
  if (code && !s->status) s->status = zn_cuda_fail(s, code, what);
}

#define TRY(call, what)                     \
  do {                                      \
    int32_t rc_ = zn_cuda_fail(s, s->cu.call, what); \
    if (rc_) return rc_;                    \
  } while (0)

/* ---- opening ---- */

static int load_driver(driver *cu, char *text, size_t n) {
  cu->handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!cu->handle) {
    snprintf(text, n, "no CUDA driver: libcuda.so.1 cannot be loaded");
    return ZN_RUN_NO_DRIVER;
  }
#define CUDA_FN(name, symbol, params)                                       \
  *(void **)&cu->name = dlsym(cu->handle, #symbol);                         \
  if (!cu->name) {                                                          \
    snprintf(text, n, "the CUDA driver is too old: it lacks %s", #symbol); \
    return ZN_RUN_NO_DRIVER;                                                \
  }
#define CUDA_NEW(name, symbol, params) *(void **)&cu->name = dlsym(cu->handle, #symbol);
#include "cuda.def"
#undef CUDA_FN
  return ZN_RUN_OK;
}

static int32_t load_images(zn_session *s) {
  const zn_cuda_blob *b = blob();
  const zn_cuda_image *images = at(b->images);
  const zn_cuda_kernel *kernels = at(b->kernels);
  s->modules = calloc(b->num_images + 1, sizeof *s->modules);
  s->functions = calloc(b->num_kernels + 1, sizeof *s->functions);
  if (!s->modules || !s->functions) return zn_cuda_fail(s, OUT_OF_MEMORY, "opening");
  for (uint64_t i = 0; i < b->num_images; i++) {
    int rc = s->cu.module_load(&s->modules[i], at(images[i].cubin));
    if (rc && images[i].ptx_bytes) rc = s->cu.module_load(&s->modules[i], at(images[i].ptx));
    if (rc) return zn_cuda_fail(s, rc, "loading the kernels");
  }
  for (uint64_t i = 0; i < b->num_kernels; i++) {
    const char *name = at(kernels[i].name);
    if (kernels[i].image == ZN_CUDA_ON_HOST) continue;
    TRY(module_function(&s->functions[i], s->modules[kernels[i].image], name), name);
    if (kernels[i].shared > SHARED_FREE)
      TRY(function_set(s->functions[i], ATTR_SHARED, (int)kernels[i].shared), "shared memory");
  }
  return ZN_RUN_OK;
}

static int32_t load_weights(zn_session *s) {
  uint64_t n = blob()->weights_bytes;
  if (n == 0) return ZN_RUN_OK;
  TRY(mem_alloc(&s->weights, n), "memory for the weights");
  TRY(copy_in(s->weights, zn_device_weights, n, s->own_stream), "copying the weights");
  TRY(stream_wait(s->own_stream), "copying the weights");
  return ZN_RUN_OK;
}

static void hook_launch(zn_device_hooks *h, uint32_t k, void *const *bufs, const intptr_t *ints, intptr_t grid);
static void hook_fetch(zn_device_hooks *h, void *to, const void *from, uint32_t bytes, uint32_t last);
static void hook_poke(zn_device_hooks *h, void *to, const void *value, uint32_t bytes);

static int32_t open_device(zn_session *s, int device) {
  int dev, count = 0, n = 0;
  TRY(init(0), "starting the CUDA driver");
  TRY(device_count(&count), "counting devices");
  if (device < 0 || device >= count) {
    snprintf(s->text, sizeof s->text, "no CUDA device %d: there are %d", device, count);
    return ZN_RUN_NO_DRIVER;
  }
  TRY(device_get(&dev, device), "finding the device");
  TRY(device_attribute(&n, ATTR_MULTIPROCESSORS, dev), "asking the device");
  s->multiprocessors = (unsigned)n;
  TRY(ctx_retain(&s->ctx, dev), "opening the device");
  s->device = dev;
  TRY(ctx_push(s->ctx), "opening the device");
  TRY(stream_create(&s->own_stream, 1), "creating a stream");
  TRY(host_alloc((void **)&s->code, 64, 0), "memory for the result");
  *s->code = 0;
  s->in_stage = calloc(zn_model_main.num_inputs + 1u, sizeof *s->in_stage);
  s->out_stage = calloc(zn_model_main.num_outputs + 1u, sizeof *s->out_stage);
  if (!s->in_stage || !s->out_stage) return zn_cuda_fail(s, OUT_OF_MEMORY, "opening");
  int32_t rc = load_images(s);
  return rc ? rc : load_weights(s);
}

static void session_close(zn_session *s);

static int32_t session_open(int32_t device, zn_session **out) {
  zn_session *s = calloc(1, sizeof *s);
  *out = NULL;
  open_error[0] = 0;
  if (!s) return ZN_RUN_ALLOC;
  int32_t rc = load_driver(&s->cu, s->text, sizeof s->text);
  if (rc == ZN_RUN_OK) {
    void *old;
    s->hooks.launch = hook_launch;
    s->hooks.fetch = hook_fetch;
    s->hooks.poke = hook_poke;
    s->hooks.share = zn_share_hook;
    s->hooks.flow = zn_flow_hook;
    const int mixed = blob()->mixed != 0;
    if (mixed && (!(s->share = zn_share_open()) || !(s->tape = zn_tape_open()))) rc = zn_cuda_fail(s, OUT_OF_MEMORY, "opening");
    if (rc == ZN_RUN_OK) rc = open_device(s, device);
    if (s->ctx) s->cu.ctx_pop(&old);
  }
  if (rc == ZN_RUN_OK) {
    *out = s;
    return rc;
  }
  memcpy(open_error, s->text, sizeof open_error);
  session_close(s);
  return rc;
}

static void drop_record(zn_session *s, record *r) {
  if (r->exec) s->cu.graph_exec_destroy(r->exec);
  free(r->in);
  free(r->out);
  memset(r, 0, sizeof *r);
}

static void close_device(zn_session *s) {
  const zn_cuda_blob *b = blob();
  void *old;
  s->cu.ctx_push(s->ctx);
  if (s->own_stream) s->cu.stream_wait(s->own_stream);
  for (unsigned i = 0; i < s->num_graphs; i++) drop_record(s, &s->graphs[i]);
  for (uint64_t i = 0; s->modules && i < b->num_images; i++)
    if (s->modules[i]) s->cu.module_unload(s->modules[i]);
  for (uint32_t i = 0; s->in_stage && i < zn_model_main.num_inputs; i++)
    if (s->in_stage[i].p) s->cu.mem_free(s->in_stage[i].p);
  for (uint32_t i = 0; s->out_stage && i < zn_model_main.num_outputs; i++)
    if (s->out_stage[i].p) s->cu.mem_free(s->out_stage[i].p);
  zn_share_close(s);
  zn_tape_close(s);
  zn_flow_close(s);
  if (s->ws.p) s->cu.mem_free(s->ws.p);
  if (s->weights) s->cu.mem_free(s->weights);
  if (s->code) s->cu.host_free(s->code);
  if (s->own_stream) s->cu.stream_destroy(s->own_stream);
  s->cu.ctx_pop(&old);
  s->cu.ctx_release(s->device);
}

static void session_close(zn_session *s) {
  if (!s) return;
  if (s->ctx) close_device(s);
  free(s->modules);
  free(s->functions);
  free(s->in_stage);
  free(s->out_stage);
  free(s);
}

/* ---- hooks of the generated entry ---- */

/* Constants are named by their host address; where the host has a part in the run, all memory is. */
uint64_t zn_cuda_address(zn_session *s, const void *p) {
  uintptr_t a = (uintptr_t)p, w = (uintptr_t)zn_device_weights;
  if (s->weights && a - w < blob()->weights_bytes) return s->weights + (a - w);
  return s->share ? zn_share_device(s, p) : a;
}

/* Teams of a block: enough blocks for every multiprocessor first, then full blocks. */
static unsigned teams_per_block(const zn_session *s, const zn_cuda_kernel *k, intptr_t grid) {
  unsigned teams = k->team >= BLOCK ? 1 : BLOCK / k->team, least = k->team >= 32 ? 1 : 32 / k->team;
  while (teams > least && (uint64_t)grid < (uint64_t)teams * s->multiprocessors * 2) teams /= 2;
  while (teams > 1 && teams * k->shared > SHARED_FREE) teams /= 2;
  return teams;
}

static void mark_event(zn_session *s, uint32_t kernel) {
  if (!s->events || s->num_events == s->cap_events) return;
  zn_cuda_keep(s, s->cu.event_create(&s->events[s->num_events], 0), "timing");
  zn_cuda_keep(s, s->cu.event_record(s->events[s->num_events], s->stream), "timing");
  s->event_kernel[s->num_events++] = kernel;
}

void zn_cuda_launch(zn_session *s, const zn_launch *l) {
  const zn_cuda_blob *b = blob();
  const zn_cuda_kernel *k = (const zn_cuda_kernel *)at(b->kernels) + l->kernel;
  void *param[MAX_PARAMS];
  for (uint32_t i = 0; i < l->num; i++) param[i] = (void *)(uintptr_t)&l->value[i];
  const launch_attribute early = {.id = ATTR_EARLY_START, .value = {1}};
  launch_config c = {.grid = {l->blocks, 1, 1}, .block = {l->threads, 1, 1}, .shared = l->shared, .stream = s->stream,
                     .attributes = &early, .num_attributes = l->early};
  zn_cuda_keep(s, s->cu.launch(&c, s->functions[l->kernel], param, NULL), at(k->name));
}

static void hook_launch(zn_device_hooks *h, uint32_t number, void *const *bufs, const intptr_t *ints, intptr_t grid) {
  zn_session *s = (zn_session *)(void *)h;
  const zn_cuda_blob *b = blob();
  const zn_cuda_kernel *k = (const zn_cuda_kernel *)at(b->kernels) + number;
  zn_launch l;
  uint32_t n = 0;
  if (s->status || grid <= 0) return;
  if (k->num_bufs + k->num_ints + 2 > MAX_PARAMS) {
    zn_cuda_keep(s, 1, "too many parameters");
    return;
  }
  for (uint32_t i = 0; i < k->num_bufs; i++) l.value[n++] = zn_cuda_address(s, bufs[i]);
  for (uint32_t i = 0; i < k->num_ints; i++) l.value[n++] = (uint64_t)ints[i]; /* the low half serves 32-bit indexes */
  l.value[n++] = s->weights;
  l.value[n++] = (uint64_t)grid;
  unsigned teams = teams_per_block(s, k, grid);
  uint64_t blocks = ((uint64_t)grid + teams - 1) / teams;
  if (blocks > 0x7fffffff) {
    zn_cuda_keep(s, 1, "a kernel's grid is too large");
    return;
  }
  l.kernel = number;
  l.blocks = (uint32_t)blocks;
  l.threads = teams * k->team;
  l.shared = (uint32_t)(teams * k->shared);
  l.early = b->sm >= EARLY_SM && s->after_kernel && !s->events;
  l.num = n;
  s->after_kernel = 1;
  if (s->tape && !s->capturing && !s->events) {
    zn_tape_launch(s, &l);
    return;
  }
  mark_event(s, number);
  zn_cuda_launch(s, &l);
  mark_event(s, number);
}

int zn_cuda_is_host(zn_session *s, const void *p) {
  unsigned type = 0; /* stays so for memory that the driver does not know */
  const int which = ATTR_MEMORY_TYPE;
  void *out = &type;
  int rc = s->cu.pointer_attributes(1, &which, &out, (uint64_t)(uintptr_t)p);
  return rc != 0 || type <= MEMORY_HOST;
}

static void hook_fetch(zn_device_hooks *h, void *to, const void *from, uint32_t bytes, uint32_t last) {
  zn_session *s = (zn_session *)(void *)h;
  memset(to, 0, bytes);
  if (!s->capturing) zn_tape_flush(s);
  s->after_kernel = 0;
  if (s->status) return;
  uint64_t p = zn_cuda_address(s, from);
  if (last) { /* read when the run has finished */
    zn_cuda_keep(s, s->cu.copy_out(s->code, p, bytes, s->stream), "reading the result");
    return;
  }
  if (s->share ? zn_share_lies_here(s, from) : p == (uint64_t)(uintptr_t)from && zn_cuda_is_host(s, from)) {
    memcpy(to, from, bytes);
    return;
  }
  if (s->capturing) { /* a graph cannot wait for data */
    s->dynamic = 1;
    s->status = -1;
    return;
  }
  zn_cuda_keep(s, s->cu.copy_out(to, p, bytes, s->stream), "reading a size");
  zn_cuda_keep(s, s->cu.stream_wait(s->stream), "waiting for a size");
}

static void hook_poke(zn_device_hooks *h, void *to, const void *value, uint32_t bytes) {
  zn_session *s = (zn_session *)(void *)h;
  unsigned v = 0;
  if (!s->capturing) zn_tape_flush(s);
  s->after_kernel = 0;
  if (s->status) return;
  memcpy(&v, value, bytes < 4 ? bytes : 4);
  uint64_t p = zn_cuda_address(s, to);
  if (bytes == 4) zn_cuda_keep(s, s->cu.set32(p, v, 1, s->stream), "clearing");
  else zn_cuda_keep(s, s->cu.set8(p, (unsigned char)v, bytes, s->stream), "clearing");
}

/* ---- running ---- */

/* A buffer that recorded graphs know has moved: they are void. */
static void forget_graphs(zn_session *s) {
  for (unsigned i = 0; i < s->num_graphs; i++) drop_record(s, &s->graphs[i]);
  s->num_graphs = 0;
  zn_tape_forget(s);
}

int32_t zn_cuda_grow(zn_session *s, place *b, size_t bytes) {
  if (bytes <= b->bytes) return ZN_RUN_OK;
  if (b->p) {
    TRY(stream_wait(s->stream), "waiting");
    forget_graphs(s);
    TRY(mem_free(b->p), "freeing memory");
    *b = (place){0, 0};
  }
  TRY(mem_alloc(&b->p, bytes), "device memory");
  b->bytes = bytes;
  return ZN_RUN_OK;
}

static int32_t call_plan(zn_session *s, zn_tensor *in, zn_tensor *out, uint64_t *ws_bytes) {
  s->status = 0;
  int32_t rc = zn_device_plan(in, out, ws_bytes, 0, &s->hooks.base);
  return s->status ? s->status : rc;
}

static int32_t call_run_on(zn_session *s, zn_tensor *in, zn_tensor *out, void *ws) {
  s->status = 0;
  s->after_kernel = 0;
  s->open_flows = 0;
  int32_t rc = zn_device_run(in, out, ws, s->ws.bytes, &s->hooks.base);
  if (!s->capturing) zn_tape_flush(s);
  return s->status ? s->status : rc;
}

static int32_t call_run(zn_session *s, zn_tensor *in, zn_tensor *out) {
  return call_run_on(s, in, out, (void *)(uintptr_t)s->ws.p);
}

static uint64_t mix(uint64_t h, uint64_t v) { return (h ^ v) * UINT64_C(0x9e3779b97f4a7c15) + (h >> 29); }

static uint64_t key_of(const zn_tensor *t, uint32_t n, uint64_t h) {
  for (uint32_t i = 0; i < n; i++) {
    h = mix(mix(mix(h, t[i].u.data_bits), t[i].bytes), t[i].rank);
    for (uint32_t d = 0; d < t[i].rank && d < ZN_ABI_MAX_RANK; d++) h = mix(h, (uint64_t)t[i].shape[d]);
  }
  return h;
}

static zn_tensor *copy_of(const zn_tensor *t, uint32_t n) {
  zn_tensor *c = calloc(n + 1u, sizeof *c);
  if (c && n) memcpy(c, t, n * sizeof *c);
  return c;
}

static int same_call(const record *r, uint64_t key, const zn_tensor *in, const zn_tensor *out) {
  if (r->key != key) return 0;
  for (uint32_t i = 0; i < zn_model_main.num_inputs; i++)
    if (r->in[i].u.data_bits != in[i].u.data_bits || r->in[i].rank != in[i].rank || r->in[i].bytes != in[i].bytes ||
        r->in[i].dtype != in[i].dtype || memcmp(r->in[i].shape, in[i].shape, sizeof in[i].shape[0] * in[i].rank))
      return 0;
  for (uint32_t i = 0; i < zn_model_main.num_outputs; i++)
    if (r->out[i].u.data_bits != out[i].u.data_bits || r->out[i].bytes != out[i].bytes) return 0;
  return 1;
}

static void told_shapes(const record *r, zn_tensor *out) {
  for (uint32_t i = 0; i < zn_model_main.num_outputs; i++) {
    out[i].dtype = r->out[i].dtype;
    out[i].rank = r->out[i].rank;
    memcpy(out[i].shape, r->out[i].shape, sizeof out[i].shape);
  }
}

/* Records the run that entry makes with these arguments; r->exec stays NULL where it needs data on the way. */
static int32_t capture(zn_session *s, record *r, zn_tensor *in, zn_tensor *out) {
  void *graph = NULL, *user = s->stream;
  if (blob()->flows) zn_flow_open(s);
  s->stream = s->own_stream;
  int rc = s->cu.capture_begin(s->stream, 2 /* relaxed */);
  s->capturing = 1;
  int32_t st = rc ? zn_cuda_fail(s, rc, "recording the run") : call_run(s, in, out);
  zn_flow_unwind(s);
  s->capturing = 0;
  rc = s->cu.capture_end(s->stream, &graph);
  s->stream = user;
  if (st == ZN_RUN_OK && rc) st = zn_cuda_fail(s, rc, "recording the run");
  if (st == ZN_RUN_OK) st = zn_cuda_fail(s, s->cu.graph_instantiate(&r->exec, graph, 0), "making the graph");
  if (graph) s->cu.graph_destroy(graph);
  if (s->dynamic) {
    s->status = 0;
    s->tape = zn_tape_open(); /* NULL is right as well */
    return ZN_RUN_OK;
  }
  return st;
}

static record *find_record(zn_session *s, zn_tensor *in, zn_tensor *out) {
  uint64_t key = key_of(out, 0, key_of(in, zn_model_main.num_inputs, 1));
  for (unsigned i = 0; i < s->num_graphs; i++)
    if (same_call(&s->graphs[i], key, in, out)) return &s->graphs[i];
  if (s->num_graphs == MAX_GRAPHS) forget_graphs(s);
  record *r = &s->graphs[s->num_graphs];
  memset(r, 0, sizeof *r);
  r->key = key;
  r->in = copy_of(in, zn_model_main.num_inputs);
  r->out = copy_of(out, zn_model_main.num_outputs);
  if (!r->in || !r->out) {
    drop_record(s, r);
    return NULL;
  }
  s->num_graphs++;
  return r;
}

/* Enqueues one run on device pointers. */
static int32_t enqueue(zn_session *s, zn_tensor *in, zn_tensor *out) {
  record *r = s->dynamic || s->events ? NULL : find_record(s, in, out);
  if (!r) return call_run(s, in, out);
  if (!r->exec && r->seen++ == 0) {
    int32_t rc = call_run(s, in, out);
    memcpy(r->out, out, zn_model_main.num_outputs * sizeof *out);
    return rc;
  }
  if (!r->exec) {
    int32_t rc = capture(s, r, in, out);
    if (rc) return rc;
    if (!r->exec) return call_run(s, in, out);
    memcpy(r->out, out, zn_model_main.num_outputs * sizeof *out);
  }
  told_shapes(r, out);
  return zn_cuda_fail(s, s->cu.graph_launch(r->exec, s->stream), "launching the graph");
}

/* Kernels take device memory at multiples of 16 bytes. */
static int needs_copy(zn_session *s, const zn_tensor *t) { return t->u.data_bits % 16 || zn_cuda_is_host(s, t->u.data); }

static int32_t stage_inputs(zn_session *s, const zn_tensor *in, zn_tensor *dev) {
  for (uint32_t i = 0; i < zn_model_main.num_inputs; i++) {
    dev[i] = in[i];
    if (!in[i].u.data || !needs_copy(s, &in[i])) continue;
    int32_t rc = zn_cuda_grow(s, &s->in_stage[i], in[i].bytes ? in[i].bytes : 1);
    if (rc) return rc;
    dev[i].u.data_bits = s->in_stage[i].p;
    if (in[i].bytes) TRY(copy(s->in_stage[i].p, in[i].u.data_bits, in[i].bytes, s->stream), "copying an input");
  }
  return ZN_RUN_OK;
}

static int32_t stage_outputs(zn_session *s, const zn_tensor *out, zn_tensor *dev, int *any) {
  for (uint32_t i = 0; i < zn_model_main.num_outputs; i++) {
    dev[i] = out[i];
    if (!out[i].u.data || !needs_copy(s, &out[i])) continue;
    int32_t rc = zn_cuda_grow(s, &s->out_stage[i], out[i].bytes ? out[i].bytes : 1);
    if (rc) return rc;
    dev[i].u.data_bits = s->out_stage[i].p;
    *any = 1;
  }
  return ZN_RUN_OK;
}

static uint64_t told_bytes(const zn_tensor *plan, const zn_tensor *t) {
  uint64_t all = 1, now = 1; /* plan's bytes over plan's elements is the size of one */
  for (uint32_t d = 0; d < t->rank; d++) all *= (uint64_t)plan->shape[d], now *= (uint64_t)t->shape[d];
  uint64_t n = all ? plan->bytes / all * now : 0;
  return n < t->bytes ? n : t->bytes;
}

static int32_t collect(zn_session *s, zn_tensor *out, const zn_tensor *dev, const zn_tensor *plan) {
  for (uint32_t i = 0; i < zn_model_main.num_outputs; i++) {
    void *data = out[i].u.data;
    uint64_t room = out[i].bytes, n = told_bytes(&plan[i], &dev[i]);
    out[i] = dev[i];
    out[i].u.data = data;
    out[i].bytes = room;
    if (data && dev[i].u.data != data && n)
      TRY(copy((uint64_t)(uintptr_t)data, dev[i].u.data_bits, n, s->stream), "copying an output");
  }
  return ZN_RUN_OK;
}

static int32_t finish(zn_session *s) {
  TRY(stream_wait(s->stream), "running the kernels");
  return *s->code;
}

/* A run in which the host has a part: never a graph, and finished when it returns. */
static int32_t run_mixed(zn_session *s, const zn_tensor *in, zn_tensor *out, zn_tensor *dev_in, zn_tensor *dev_out,
                         zn_tensor *plan, const caller *by) {
  uint64_t ws_bytes = 0;
  void *ws = NULL;
  zn_share_begin(s, by->host);
  memcpy(dev_in, in, zn_model_main.num_inputs * sizeof *in);
  int32_t rc = call_plan(s, dev_in, plan, &ws_bytes);
  if (!rc && by->ws && by->ws_bytes < ws_bytes) rc = ZN_RUN_WORKSPACE;
  if (!rc) rc = zn_cuda_grow(s, &s->ws, ws_bytes ? ws_bytes : 64);
  if (!rc) rc = zn_share_stage(s, in, out, dev_in, dev_out, by->ws, ws_bytes, &ws);
  *s->code = 0;
  if (!rc) rc = call_run_on(s, dev_in, dev_out, ws);
  int32_t done = finish(s);
  if (!rc) zn_share_collect(out, dev_out, plan);
  return rc ? rc : done;
}

static int32_t run_with(zn_session *s, zn_tensor *in, zn_tensor *out, zn_tensor *dev_in, zn_tensor *dev_out,
                        zn_tensor *plan, int wait) {
  uint64_t ws_bytes = 0;
  int host_out = 0;
  int32_t rc = call_plan(s, in, plan, &ws_bytes);
  if (!rc) rc = zn_cuda_grow(s, &s->ws, ws_bytes ? ws_bytes : 64);
  if (!rc) rc = stage_inputs(s, in, dev_in);
  if (!rc) rc = stage_outputs(s, out, dev_out, &host_out);
  *s->code = 0;
  if (!rc) rc = enqueue(s, dev_in, dev_out);
  if (!rc) rc = collect(s, out, dev_out, plan);
  return rc || !(wait || host_out) ? rc : finish(s);
}

static int32_t run_for(zn_session *s, zn_tensor *in, zn_tensor *out, void *stream, const caller *by) {
  void *old;
  if ((!in && zn_model_main.num_inputs) || (!out && zn_model_main.num_outputs)) return ZN_RUN_NULL;
  zn_tensor *t = calloc(zn_model_main.num_inputs + 2u * zn_model_main.num_outputs + 1u, sizeof *t);
  if (!t) return ZN_RUN_ALLOC;
  TRY(ctx_push(s->ctx), "entering the device");
  s->text[0] = 0;
  s->stream = stream ? stream : s->own_stream;
  zn_tensor *dev_out = t + zn_model_main.num_inputs;
  zn_tensor *plan = dev_out + zn_model_main.num_outputs;
  int32_t rc = s->share ? run_mixed(s, in, out, t, dev_out, plan, by) : run_with(s, in, out, t, dev_out, plan, !stream);
  s->cu.ctx_pop(&old);
  free(t);
  return rc;
}

static int32_t session_run(zn_session *s, zn_tensor *in, zn_tensor *out, void *stream) {
  const caller none = {NULL, NULL, 0};
  return run_for(s, in, out, stream, &none);
}

static int32_t session_plan(zn_session *s, zn_tensor *in, zn_tensor *out) {
  void *old;
  uint64_t ws_bytes = 0;
  if ((!in && zn_model_main.num_inputs) || (!out && zn_model_main.num_outputs)) return ZN_RUN_NULL;
  TRY(ctx_push(s->ctx), "entering the device");
  s->stream = s->own_stream;
  int32_t rc = call_plan(s, in, out, &ws_bytes);
  s->cu.ctx_pop(&old);
  return rc;
}

static int32_t session_wait(zn_session *s) {
  void *old;
  TRY(ctx_push(s->ctx), "entering the device");
  if (!s->stream) s->stream = s->own_stream;
  int32_t rc = finish(s);
  s->cu.ctx_pop(&old);
  return rc;
}

static const char *session_error(const zn_session *s) { return s ? s->text : open_error; }

static int32_t session_profile(zn_session *s, zn_tensor *in, zn_tensor *out, float *out_ms) {
  enum { MOST = 1 << 16 };
  void *old;
  memset(out_ms, 0, blob()->num_kernels * sizeof *out_ms);
  TRY(ctx_push(s->ctx), "entering the device");
  s->events = calloc(MOST, sizeof *s->events);
  s->event_kernel = calloc(MOST, sizeof *s->event_kernel);
  s->num_events = 0;
  s->cap_events = s->events && s->event_kernel ? MOST : 0;
  int32_t rc = session_run(s, in, out, NULL);
  for (uint32_t i = 0; i < s->num_events; i++) {
    float ms = 0;
    if (i % 2 == 1 && !rc && !s->cu.event_elapsed(&ms, s->events[i - 1], s->events[i])) out_ms[s->event_kernel[i]] += ms;
    if (i % 2 == 1) s->cu.event_destroy(s->events[i - 1]), s->cu.event_destroy(s->events[i]);
  }
  free(s->events);
  free(s->event_kernel);
  s->events = NULL;
  s->event_kernel = NULL;
  s->cu.ctx_pop(&old);
  return rc;
}

const zn_device_api zn_device_main = {ZN_DEVICE_MAGIC, ZN_DEVICE_VERSION, session_open,  session_plan, session_run,
                                      session_wait,    session_error,     session_close, session_profile};

/* ---- NAME_run and NAME_plan: host memory, one session for all ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static zn_session *shared;

HIDDEN int32_t zn_device_call_run(zn_tensor *in, zn_tensor *out, void *ws, size_t ws_bytes, const zn_host *host) {
  const caller by = {host, ws, ws_bytes};
  pthread_mutex_lock(&lock);
  int32_t rc = shared ? ZN_RUN_OK : session_open(0, &shared);
  if (!rc) rc = run_for(shared, in, out, NULL, &by);
  pthread_mutex_unlock(&lock);
  return rc;
}

/* Plans on the host: sizes that are elements of inputs are read where the caller keeps them. */
static void host_fetch(zn_device_hooks *h, void *to, const void *from, uint32_t bytes, uint32_t last) {
  (void)h;
  (void)last;
  memcpy(to, from, bytes);
}

HIDDEN int32_t zn_device_call_plan(zn_tensor *in, zn_tensor *out, void *ws, size_t ws_bytes, const zn_host *host) {
  zn_device_hooks h = {.fetch = host_fetch};
  (void)host;
  int32_t rc = zn_device_plan(in, out, ws, ws_bytes, &h.base);
  if (!rc && !blob()->mixed) *(uint64_t *)ws = 0; /* the workspace is the session's; what the host has a part in needs both */
  return rc;
}

__attribute__((destructor)) static void unload(void) {
  session_close(shared); /* at exit the driver may be gone already: it then refuses every call */
  shared = NULL;
}
