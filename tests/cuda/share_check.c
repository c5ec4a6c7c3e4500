/* The sessions of zenith_device.h where the host has a part in the run: host_parts.zg, with the fake driver beside it. Inputs and
 * outputs on either side give the same, twice; a run without an allocator of its own uses the session's memory. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "runtime/zenith_device.h"

enum { N = 4 };
static int bad;

static void expect(int ok, const char *what) {
  if (!ok) printf("FAIL share_check: %s\n", what), bad = 1;
}

typedef struct device { /* of the driver, to make memory on its side */
  int (*alloc)(uint64_t *out, size_t bytes);
  int (*in)(uint64_t to, const void *from, size_t bytes, void *stream);
  int (*out)(void *to, uint64_t from, size_t bytes, void *stream);
} device;

static zn_tensor tensor(void *p) {
  zn_tensor t = {.bytes = N * sizeof(float), .dtype = 1, .rank = 1, .shape = {N}};
  t.u.data = p;
  return t;
}

/* sides: bit i, where tensor i (x, y, z) lies on the device. */
static void run_on(const zn_device_api *api, zn_session *s, const device *d, unsigned sides) {
  float value[3][N] = {{1, 2, 3, 4}, {5, 6, 7, 8}, {0}}, got[N];
  zn_tensor t[3];
  uint64_t p[3];
  int stream;
  for (int i = 0; i < 3; i++) {
    t[i] = tensor(value[i]);
    if (!(sides >> i & 1)) continue;
    expect(!d->alloc(&p[i], sizeof value[i]) && !d->in(p[i], value[i], sizeof value[i], &stream), "memory of the device");
    t[i].u.data = (void *)(uintptr_t)p[i];
  }
  void *out = t[2].u.data;
  int32_t rc = api->run(s, t, t + 2, NULL);
  if (rc) printf("code %d: %s\n", rc, api->error(s));
  expect(rc == ZN_RUN_OK && t[2].u.data == out && t[2].shape[0] == N, "the run");
  memcpy(got, value[2], sizeof got);
  if (sides & 4) expect(!d->out(got, p[2], sizeof got, &stream), "the result");
  expect(!memcmp(got, value[1], sizeof got), "the list's second item");
}

int main(int argc, char **argv) {
  void *so = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL, *cu = dlopen("libcuda.so.1", RTLD_NOW);
  const zn_device_api *api = so ? dlsym(so, "zn_device_main") : NULL;
  zn_session *s = NULL;
  device d;
  if (!api || !cu) return printf("FAIL share_check: %s\n", dlerror()), 1;
  *(void **)&d.alloc = dlsym(cu, "cuMemAlloc_v2");
  *(void **)&d.in = dlsym(cu, "cuMemcpyHtoDAsync_v2");
  *(void **)&d.out = dlsym(cu, "cuMemcpyDtoHAsync_v2");
  expect(api->open(0, &s) == ZN_RUN_OK, api->error(NULL));
  expect(api->open(7, &(zn_session *){NULL}) == ZN_RUN_NO_DRIVER, "a device that is not there");
  for (unsigned twice = 0; twice < 2 && s; twice++)
    for (unsigned sides = 0; sides < 8; sides++) run_on(api, s, &d, sides);
  if (s) api->close(s);
  return bad;
}
