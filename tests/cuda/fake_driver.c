/* libcuda.so.1 for machines without a GPU: device memory is memory of its own, copies copy, kernels do nothing. So the runtime
 * object can be tested with artifacts all of whose kernels run on the host, and its copies between the sides with it: what lies
 * on the device can only be right when it was copied. Memory of the device is filled with 0xd5 first. */
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
static int one; /* stands for every object */
static int make(void **out) { return *out = &one, OK; }
STUB(cuDevicePrimaryCtxRetain, void **out, int device) { return device ? INVALID : make(out); }
STUB(cuDevicePrimaryCtxRelease_v2, int device) { return device ? INVALID : OK; }
STUB(cuCtxPushCurrent_v2, void *ctx) { return ctx ? OK : INVALID; }
STUB(cuCtxPopCurrent_v2, void **out) { return make(out); }
STUB(cuModuleLoadData, void **out, const void *image) { return image ? make(out) : INVALID; }
STUB(cuModuleUnload, void *module) { return module ? OK : INVALID; }
STUB(cuModuleGetFunction, void **out, void *module, const char *name) { return module && name ? make(out) : INVALID; }
STUB(cuFuncSetAttribute, void *f, int attribute, int value) { return f && attribute && value ? OK : INVALID; }
STUB(cuMemAlloc_v2, uint64_t *out, size_t bytes) {
  for (int i = 0; i < MOST; i++) {
    if (blocks[i].p) continue;
    blocks[i].p = bytes ? malloc(bytes) : NULL;
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
STUB(cuStreamCreate, void **out, unsigned flags) { return flags == 1 ? make(out) : INVALID; }
STUB(cuStreamDestroy_v2, void *stream) { return stream ? OK : INVALID; }
STUB(cuStreamSynchronize, void *stream) { return stream ? OK : INVALID; }
STUB(cuStreamBeginCapture_v2, void *stream, int mode) { return stream && mode == 2 ? OK : INVALID; }
STUB(cuStreamEndCapture, void *stream, void **out) { return stream ? make(out) : INVALID; }
STUB(cuGraphInstantiateWithFlags, void **out, void *graph, uint64_t flags) { return graph && !flags ? make(out) : INVALID; }
STUB(cuGraphLaunch, void *exec, void *stream) { return exec && stream ? OK : INVALID; }
STUB(cuGraphExecDestroy, void *exec) { return exec ? OK : INVALID; }
STUB(cuGraphDestroy, void *graph) { return graph ? OK : INVALID; }
STUB(cuEventCreate, void **out, unsigned flags) { return flags ? INVALID : make(out); }
STUB(cuEventRecord, void *event, void *stream) { return event && stream ? OK : INVALID; }
STUB(cuEventElapsedTime, float *out, void *from, void *to) { return *out = from && to ? 1.0f : 0.0f, OK; }
STUB(cuEventDestroy_v2, void *event) { return event ? OK : INVALID; }
STUB(cuLaunchKernelEx, const void *config, void *f, void **params, void **extra) {
  return config && f && params && !extra ? OK : INVALID;
}
