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

typedef void scenario(const zn_device_api *api, zn_session *s, const fake *f);

/* A session of the artifact whose first runs (rows, script) are done: what follows in the scenario is recorded and counted. */
static void play(const char *path, const fake *f, int rows, const char *script, scenario *follow) {
  zn_session *s;
  void *so = dlopen(path, RTLD_NOW);
  const zn_device_api *api = so ? dlsym(so, "zn_device_main") : NULL;
  if (!api) printf("FAIL flow_check: %s\n", dlerror()), bad = 1;
  else expect(api->open(0, &s), ZN_RUN_OK, api->error(NULL));
  if (bad) return;
  for (int i = 0; i < 2; i++) run(api, s, f, rows, script);
  f->count("");
  follow(api, s, f);
  api->close(s);
}

static void either(const zn_device_api *api, zn_session *s, const fake *f) {
  const int graphs = *f->instantiated;
  run(api, s, f, 64, "1");
  expect(f->count("matmul"), 1, "the branch taken");
  expect(f->count("Sub"), 0, "the branch not taken");
  expect(f->count("Relu"), 1, "what comes behind");
  run(api, s, f, 64, "0");
  expect(f->count("matmul"), 0, "the first branch, not taken");
  expect(f->count("Sub"), 1, "the second branch");
  expect(*f->instantiated, graphs, "graphs made for repeated runs");
}

static void grows(const zn_device_api *api, zn_session *s, const fake *f) {
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
}

static void steps(const zn_device_api *api, zn_session *s, const fake *f) { /* 600 turns, which only the count ends */
  run(api, s, f, 600, "0");
  expect(f->count("loop_next"), 600, "steps");
  expect(f->count("zn_decide"), 600 / 64 + 1, "decisions");
}

/* The host asks for the number of turns: stretches, not one graph. */
static void rows(const zn_device_api *api, zn_session *s, const fake *f) {
  const int graphs = *f->instantiated;
  run(api, s, f, 0, "11110");
  expect(f->count("loop_next"), 4, "turns of a stretch");
  run(api, s, f, 0, "10");
  expect(f->count("loop_next"), 1, "turns of the same stretch");
  expect(*f->instantiated, graphs, "stretches made for repeated runs");
}

int main(int argc, char **argv) {
  void *cu = dlopen("libcuda.so.1", RTLD_NOW);
  fake f;
  if (argc != 5 || !cu) return printf("FAIL flow_check: %s\n", cu ? "arguments" : dlerror()), 1;
  f.script = dlsym(cu, "fake_script");
  f.instantiated = dlsym(cu, "fake_instantiated");
  f.branches = dlsym(cu, "fake_branches");
  *(void **)&f.count = dlsym(cu, "fake_count");
  play(argv[1], &f, 0, "110", rows);
  play(argv[4], &f, 600, "0", steps);
  for (*f.branches = 2; *f.branches > 0; --*f.branches) { /* newer and older drivers */
    play(argv[2], &f, 64, "1", either);
    play(argv[3], &f, 0, "0", grows);
  }
  return bad;
}
