/* libcuda.so.1 for machines without a GPU: device memory is memory of its own, copies copy, kernels do nothing but be counted. So
 * the runtime object can be tested with artifacts all of whose kernels run on the host, and its copies between the sides with it:
 * what lies on the device can only be right when it was copied. Memory of the device is filled with 0xd5 first.
 * Graphs are lists of what was recorded, conditions in them take their values from fake_script, and the kernels that count the
 * turns of a loop do count: what is recorded for If and Loop can be followed step by step. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))
enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, MOST = 4096 };

static struct block {
  char *p;
  size_t bytes;
} blocks[MOST];

static int inside(uint64_t p, size_t n) {
  for (int i = 0; i < MOST; i++) {
    uint64_t from = (uint64_t)(uintptr_t)blocks[i].p;
    if (blocks[i].p && p >= from && p - from + n <= blocks[i].bytes) return 1;
  }
  return 0;
}

#define STUB(name, ...) \
  API int name(__VA_ARGS__); \
  API int name(__VA_ARGS__)
STUB(cuInit, unsigned flags) { return flags ? INVALID : OK; }
STUB(cuGetErrorName, int code, const char **out) { return *out = code == INVALID ? "INVALID" : "FAKE", OK; }
STUB(cuGetErrorString, int code, const char **out) { return *out = code == INVALID ? "invalid argument" : "failed", OK; }
STUB(cuDeviceGetCount, int *out) { return *out = 1, OK; }
STUB(cuDeviceGet, int *out, int ordinal) { return *out = ordinal, OK; }
STUB(cuDeviceGetAttribute, int *out, int attribute, int device) {
  *out = device < 0 ? 0 : attribute == 75 ? 9 : attribute == 76 ? 0 : 132; /* compute capability 9.0 */
  return OK;
}
static int one; /* stands for every object but those below */
static int make(void **out) { return *out = &one, OK; }

/* ---- kernels and graphs ---- */

typedef struct graph graph;
typedef struct function {
  char name[120];
} function;
typedef struct node { /* a launch, or a conditional node */
  const function *f;
  uint64_t value[6]; /* its first parameters */
  uint64_t handle;
  int is_while;
  graph *body, *other; /* other: when the condition is false */
} node;
struct graph {
  node nodes[600];
  int num;
};
typedef struct stream { /* records into a graph, or runs */
  graph *into;
} stream;

static function functions[512];
static int num_functions, counts[512], handles[256], num_handles;
API const char *fake_script; /* values of conditions, '0' and '1', used up one by one; the last one stays */
API int fake_instantiated;   /* graphs made so far */
API int fake_branches;       /* of an If in one node, at most: 2 since CUDA 12.8 */
API int fake_count(const char *part);
const char *fake_script = "1";
int fake_instantiated, fake_branches = 2;

/* Runs of kernels whose names contain part, since it was asked last. */
int fake_count(const char *part) {
  int n = 0;
  for (int i = 0; i < num_functions; i++)
    if (strstr(functions[i].name, part)) n += counts[i], counts[i] = 0;
  return n;
}

static int condition(void) {
  const int c = *fake_script == '1';
  if (fake_script[1]) fake_script++;
  return c;
}

static void decide(const uint64_t *v) { /* zn_decide of runtime/cuda_flow.c */
  int go = 1;
  int64_t count = 0;
  if (v[5] & 1) go = condition();
  if (v[5] & 2) memcpy(&count, (const void *)(uintptr_t)v[3], sizeof count), go &= count < (int64_t)v[4];
  handles[v[0]] = go;
  if (v[5] & 4) handles[v[1]] = !go;
}

static void run_kernel(const function *f, const uint64_t *v) {
  const int64_t zero = 0;
  int64_t count;
  counts[f - functions]++;
  if (!strcmp(f->name, "zn_decide")) decide(v);
  for (int i = 0; i < 2 && strstr(f->name, "loop_begin"); i++) /* a condition and the count, or the count alone */
    if (inside(v[i], 8)) memcpy((void *)(uintptr_t)v[i], &zero, 8);
  if (!strstr(f->name, "loop_next")) return;
  memcpy(&count, (const void *)(uintptr_t)v[0], sizeof count);
  count++;
  memcpy((void *)(uintptr_t)v[0], &count, sizeof count);
}

static void run_graph(const graph *g) {
  for (int i = 0; i < g->num; i++) {
    const node *n = &g->nodes[i];
    if (n->f) run_kernel(n->f, n->value);
    else if (!n->is_while && handles[n->handle]) run_graph(n->body);
    else if (!n->is_while && n->other) run_graph(n->other);
    else while (n->is_while && handles[n->handle]) run_graph(n->body);
  }
}

static graph *new_graph(void) { return calloc(1, sizeof(graph)); }

static int add(graph *g, node n) {
  if (g->num == 600) return OUT_OF_MEMORY;
  return g->nodes[g->num++] = n, OK;
}
STUB(cuDevicePrimaryCtxRetain, void **out, int device) { return device ? INVALID : make(out); }
STUB(cuDevicePrimaryCtxRelease_v2, int device) { return device ? INVALID : OK; }
STUB(cuCtxPushCurrent_v2, void *ctx) { return ctx ? OK : INVALID; }
STUB(cuCtxPopCurrent_v2, void **out) { return make(out); }
STUB(cuModuleLoadData, void **out, const void *image) { return image ? make(out) : INVALID; }
STUB(cuModuleUnload, void *module) { return module ? OK : INVALID; }
STUB(cuModuleGetFunction, void **out, void *module, const char *name) {
  if (!module || !name || num_functions == 512 || strlen(name) >= sizeof functions[0].name) return INVALID;
  strcpy(functions[num_functions].name, name);
  return *out = &functions[num_functions++], OK;
}
STUB(cuFuncSetAttribute, void *f, int attribute, int value) { return f && attribute && value ? OK : INVALID; }
STUB(cuMemAlloc_v2, uint64_t *out, size_t bytes) {
  for (int i = 0; i < MOST; i++) {
    if (blocks[i].p) continue;
    blocks[i].p = bytes ? aligned_alloc(256, (bytes + 255) & ~(size_t)255) : NULL;
    if (!blocks[i].p) return bytes ? OUT_OF_MEMORY : INVALID;
    blocks[i].bytes = bytes;
    memset(blocks[i].p, 0xd5, bytes);
    return *out = (uint64_t)(uintptr_t)blocks[i].p, OK;
  }
  return OUT_OF_MEMORY;
}
STUB(cuMemFree_v2, uint64_t p) {
  for (int i = 0; i < MOST; i++) {
    if (!blocks[i].p || (uint64_t)(uintptr_t)blocks[i].p != p) continue;
    free(blocks[i].p);
    blocks[i].p = NULL;
    return OK;
  }
  return INVALID;
}
STUB(cuMemHostAlloc, void **out, size_t bytes, unsigned flags) {
  return *out = flags ? NULL : malloc(bytes), *out ? OK : INVALID;
}
STUB(cuMemFreeHost, void *p) { return free(p), OK; }
STUB(cuMemcpyHtoDAsync_v2, uint64_t to, const void *from, size_t n, void *stream) {
  if (!inside(to, n) || inside((uint64_t)(uintptr_t)from, 1) || !stream) return INVALID;
  return memcpy((void *)(uintptr_t)to, from, n), OK;
}
STUB(cuMemcpyDtoHAsync_v2, void *to, uint64_t from, size_t n, void *stream) {
  if (!inside(from, n) || inside((uint64_t)(uintptr_t)to, 1) || !stream) return INVALID;
  return memcpy(to, (const void *)(uintptr_t)from, n), OK;
}
STUB(cuMemcpyAsync, uint64_t to, uint64_t from, size_t n, void *stream) { /* in, out or within */
  if ((!inside(to, n) && !inside(from, n)) || !stream) return INVALID;
  return memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, n), OK;
}
STUB(cuMemsetD8Async, uint64_t to, unsigned char v, size_t n, void *stream) {
  return inside(to, n) && stream ? memset((void *)(uintptr_t)to, v, n), OK : INVALID;
}
STUB(cuMemsetD32Async, uint64_t to, unsigned v, size_t n, void *stream) {
  if (!inside(to, 4 * n) || !stream) return INVALID;
  for (size_t i = 0; i < n; i++) memcpy((char *)(uintptr_t)to + 4 * i, &v, 4);
  return OK;
}
STUB(cuPointerGetAttributes, unsigned n, const int *attributes, void **out, uint64_t p) {
  unsigned type = inside(p, 1) ? 2 : 0; /* of the device, or unknown */
  if (n != 1 || attributes[0] != 2) return INVALID;
  return memcpy(out[0], &type, sizeof type), OK;
}
STUB(cuStreamCreate, void **out, unsigned flags) {
  return *out = flags == 1 ? calloc(1, sizeof(stream)) : NULL, *out ? OK : INVALID;
}
STUB(cuStreamDestroy_v2, void *s) { return s ? free(s), OK : INVALID; }
STUB(cuStreamSynchronize, void *s) { return s && !((stream *)s)->into ? OK : INVALID; }
STUB(cuStreamBeginCapture_v2, void *s, int mode) {
  if (!s || mode != 2 || ((stream *)s)->into) return INVALID;
  return ((stream *)s)->into = new_graph(), OK;
}
STUB(cuStreamEndCapture, void *s, void **out) {
  if (!s || !((stream *)s)->into) return INVALID;
  return *out = ((stream *)s)->into, ((stream *)s)->into = NULL, OK;
}
STUB(cuStreamBeginCaptureToGraph, void *s, void *g, void *const *nodes, const void *edges, size_t num, int mode) {
  if (!s || !g || nodes || edges || num || mode != 2 || ((stream *)s)->into) return INVALID;
  return ((stream *)s)->into = g, OK;
}
STUB(cuStreamGetCaptureInfo_v3, void *s, int *status, uint64_t *id, void **g, void *const **nodes, const void **edges,
     size_t *n) {
  static void *last;
  if (!s || !((stream *)s)->into) return INVALID;
  graph *into = ((stream *)s)->into;
  last = into->num ? &into->nodes[into->num - 1] : NULL;
  return *status = 1, *id = 1, *g = into, *nodes = &last, *edges = NULL, *n = into->num > 0, OK;
}
STUB(cuStreamUpdateCaptureDependencies_v2, void *s, void **nodes, const void *edges, size_t n, unsigned flags) {
  if (!s || !((stream *)s)->into || edges || n != 1 || flags != 1) return INVALID;
  graph *into = ((stream *)s)->into;
  return nodes[0] == &into->nodes[into->num - 1] ? OK : INVALID;
}
STUB(cuGraphConditionalHandleCreate, uint64_t *out, void *g, void *ctx, unsigned initial, unsigned flags) {
  if (!g || !ctx || initial || flags || num_handles == 256) return INVALID;
  return *out = (uint64_t)num_handles++, OK;
}
STUB(cuGraphAddNode_v2, void **out, void *g, void *const *nodes, const void *edges, size_t n, void *params) {
  struct { int type, reserved[3]; uint64_t handle; int kind; unsigned size; void **graphs; void *ctx; } p; /* CUgraphNodeParams */
  static void *bodies[256][2];
  memcpy(&p, params, sizeof p);
  if (!g || (n && !nodes) || edges || p.type != 13 || !p.ctx || p.handle >= 256 || p.kind > 1) return INVALID;
  if (p.size < 1 || p.size > (p.kind ? 1u : (unsigned)fake_branches)) return INVALID;
  graph *into = g;
  if (n && nodes[0] != &into->nodes[into->num - 1]) return INVALID; /* behind what decides */
  for (unsigned i = 0; i < 2; i++) bodies[p.handle][i] = i < p.size ? new_graph() : NULL;
  p.graphs = bodies[p.handle];
  memcpy(params, &p, sizeof p);
  int rc = add(into, (node){.handle = p.handle, .is_while = p.kind == 1, .body = bodies[p.handle][0],
                             .other = bodies[p.handle][1]});
  return *out = &into->nodes[into->num - 1], rc;
}
STUB(cuGraphInstantiateWithFlags, void **out, void *g, uint64_t flags) {
  if (!g || flags) return INVALID;
  fake_instantiated++;
  graph *exec = new_graph();
  memcpy(exec, g, sizeof *exec); /* bodies are not freed: both have them */
  return *out = exec, OK;
}
STUB(cuGraphLaunch, void *exec, void *s) { return exec && s && !((stream *)s)->into ? run_graph(exec), OK : INVALID; }
STUB(cuGraphExecDestroy, void *exec) { return exec ? free(exec), OK : INVALID; }
STUB(cuGraphDestroy, void *g) { return g ? free(g), OK : INVALID; }
STUB(cuEventCreate, void **out, unsigned flags) { return flags ? INVALID : make(out); }
STUB(cuEventRecord, void *event, void *stream) { return event && stream ? OK : INVALID; }
STUB(cuEventElapsedTime, float *out, void *from, void *to) { return *out = from && to ? 1.0f : 0.0f, OK; }
STUB(cuEventDestroy_v2, void *event) { return event ? OK : INVALID; }
STUB(cuLaunchKernelEx, const void *config, void *f, void **params, void **extra) {
  node n = {.f = f};
  stream *s;
  if (!config || !f || !params || extra) return INVALID;
  memcpy(&s, (const char *)config + 32, sizeof s); /* CUlaunchConfig.hStream */
  const int num = strcmp(n.f->name, "zn_decide") ? 2 : 6;
  for (int i = 0; i < num; i++) memcpy(&n.value[i], params[i], i < 5 ? 8 : 4); /* two at least: weights and grid */
  if (s->into) return add(s->into, n);
  return run_kernel(n.f, n.value), OK;
}
