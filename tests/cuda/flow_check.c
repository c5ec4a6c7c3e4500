/* Runs whose If and Loop the device decides, followed on the fake driver, which counts what is run: flow_check ROWS EITHER GROWS
 * STEPS, artifacts of tests/cuda/flow. A session's first run decides on the host, the second one records, the third repeats. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "runtime/zenith_device.h"

static int bad;

static void expect(int got, int want, const char *what) {
  if (got != want) printf("FAIL flow_check: %s: %d, not %d\n", what, got, want), bad = 1;
}

typedef struct fake { /* of the driver */
  const char **script;
  int *instantiated, *branches, (*count)(const char *part);
} fake;

static float memory[2][64 * 64], results[2][64 * 64];

/* Inputs x, or x and w, of the shape that the artifact was made for. */
static void run(const zn_device_api *api, zn_session *s, const fake *f, int rows, const char *script) {
  zn_tensor in[2], out[2];
  *f->script = script;
  for (int i = 0; i < 2; i++) {
    in[i] = (zn_tensor){.bytes = sizeof memory[i], .dtype = 1, .rank = rows ? 2 : 1};
    in[i].shape[0] = rows ? rows : 4;
    in[i].shape[1] = rows == 600 ? 4 : 64;
    out[i] = (zn_tensor){.bytes = sizeof results[i]};
    in[i].u.data = memory[i];
    out[i].u.data = results[i];
  }
  int32_t rc = api->run(s, in, out, NULL);
  if (rc) printf("code %d: %s\n", rc, api->error(s));
  expect(rc, ZN_RUN_OK, "the run");
}

static const zn_device_api *open_artifact(const char *path, zn_session **s) {
  void *so = dlopen(path, RTLD_NOW);
  const zn_device_api *api = so ? dlsym(so, "zn_device_main") : NULL;
  if (!api) printf("FAIL flow_check: %s\n", dlerror()), bad = 1;
  else expect(api->open(0, s), ZN_RUN_OK, api->error(NULL));
  return bad ? NULL : api;
}

static void either(const char *path, const fake *f) {
  zn_session *s;
  const zn_device_api *api = open_artifact(path, &s);
  if (!api) return;
  for (int i = 0; i < 2; i++) run(api, s, f, 64, "1");
  f->count("");
  const int graphs = *f->instantiated;
  run(api, s, f, 64, "1");
  expect(f->count("matmul"), 1, "the branch taken");
  expect(f->count("Sub"), 0, "the branch not taken");
  expect(f->count("Relu"), 1, "what comes behind");
  run(api, s, f, 64, "0");
  expect(f->count("matmul"), 0, "the first branch, not taken");
  expect(f->count("Sub"), 1, "the second branch");
  expect(*f->instantiated, graphs, "graphs made for repeated runs");
  api->close(s);
}

static void grows(const char *path, const fake *f) {
  zn_session *s;
  const zn_device_api *api = open_artifact(path, &s);
  if (!api) return;
  for (int i = 0; i < 2; i++) run(api, s, f, 0, "0");
  f->count("");
  const int graphs = *f->instantiated;
  run(api, s, f, 0, "1" "01" "11" "00"); /* three turns: the If, then whether to go on */
  expect(f->count("loop_next"), 3, "turns");
  expect(f->count("Mul"), 1, "turns that took the first branch");
  expect(f->count("Add"), 2, "turns that took the second one");
  run(api, s, f, 0, "1"); /* the count ends it */
  expect(f->count("loop_next"), 100, "turns at most");
  run(api, s, f, 0, "0");
  expect(f->count("loop_next"), 0, "no turn");
  expect(*f->instantiated, graphs, "graphs made for repeated runs");
  api->close(s);
}

static void steps(const char *path, const fake *f) { /* 600 turns, which only the count ends */
  zn_session *s;
  const zn_device_api *api = open_artifact(path, &s);
  if (!api) return;
  for (int i = 0; i < 2; i++) run(api, s, f, 600, "0");
  f->count("");
  run(api, s, f, 600, "0");
  expect(f->count("loop_next"), 600, "steps");
  expect(f->count("zn_decide"), 600 / 64 + 1, "decisions");
  api->close(s);
}

static void rows(const char *path, const fake *f) {
  zn_session *s;
  const zn_device_api *api = open_artifact(path, &s);
  if (!api) return;
  for (int i = 0; i < 2; i++) run(api, s, f, 0, "110"); /* the host asks for the number of turns: stretches, not one graph */
  f->count("");
  const int graphs = *f->instantiated;
  run(api, s, f, 0, "11110");
  expect(f->count("loop_next"), 4, "turns of a stretch");
  run(api, s, f, 0, "10");
  expect(f->count("loop_next"), 1, "turns of the same stretch");
  expect(*f->instantiated, graphs, "stretches made for repeated runs");
  api->close(s);
}

int main(int argc, char **argv) {
  void *cu = dlopen("libcuda.so.1", RTLD_NOW);
  fake f;
  if (argc != 5 || !cu) return printf("FAIL flow_check: %s\n", cu ? "arguments" : dlerror()), 1;
  f.script = dlsym(cu, "fake_script");
  f.instantiated = dlsym(cu, "fake_instantiated");
  f.branches = dlsym(cu, "fake_branches");
  *(void **)&f.count = dlsym(cu, "fake_count");
  rows(argv[1], &f);
  steps(argv[4], &f);
  for (*f.branches = 2; *f.branches > 0; --*f.branches) { /* newer and older drivers */
    either(argv[2], &f);
    grows(argv[3], &f);
  }
  return bad;
}
