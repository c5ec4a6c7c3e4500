/* overlay_check MODEL.so INPUT=OUTPUT...: outputs at the address of an input. Exactly the pairs given are allowed, by plan
 * and by run; the others return ZN_RUN_OVERLAP. An allowed pair gives the same bits as two buffers. Symbolic dimensions
 * are taken as 300, integers are 1. Prints `ok NAME` or `FAIL NAME: why`; build with -ldl. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "caller.h"

enum { MAX_IO = 16, WORKSPACE = 1 << 20 };

typedef struct job {
  zn_tensor in[MAX_IO], out[MAX_IO];
  uint64_t ws_bytes;
} job;

static const zn_model *model;
static _Alignas(64) char ws[WORKSPACE];
static int failures;

static void report(const char *what, const char *in, const char *out, int good) {
  printf("%s %s over %s: %s\n", good ? "ok" : "FAIL", out, in, what);
  failures += !good;
}

static void *room(size_t bytes) { return calloc(bytes + 4096, 1); }

static void describe(job *j) {
  memset(j, 0, sizeof *j);
  caller_inputs(model, 300, room, j->in);
}

static int32_t plan(job *j) { return model->plan(j->in, j->out, &j->ws_bytes, 0, NULL); }
static int32_t run(job *j) { return model->run(j->in, j->out, ws, sizeof ws, NULL); }

static void give_outputs(job *j) {
  for (uint32_t o = 0; o < model->num_outputs; o++)
    if (!j->out[o].u.data) j->out[o].u.data = calloc(j->out[o].bytes + 1, 1);
}

static void check_pair(const job *want, uint32_t i, uint32_t o, int allowed) {
  const char *in = model->inputs[i].name, *out = model->outputs[o].name;
  static job j;
  describe(&j);
  j.out[o].u.data = j.in[i].u.data;
  int32_t rc = plan(&j);
  report("plan", in, out, rc == (allowed ? ZN_RUN_OK : ZN_RUN_OVERLAP));
  if (rc != ZN_RUN_OK) { /* run says it too */
    j.out[o].u.data = NULL;
    plan(&j);
    j.out[o].u.data = j.in[i].u.data;
    j.in[i].bytes += 4096;
    j.out[o].bytes = j.in[i].bytes;
  }
  give_outputs(&j);
  if (j.out[o].bytes > j.in[i].bytes) j.in[i].bytes = j.out[o].bytes;
  rc = run(&j);
  report("run", in, out, rc == (allowed ? ZN_RUN_OK : ZN_RUN_OVERLAP));
  if (allowed) report("same bits", in, out, caller_same(want->out, j.out, model->num_outputs));
}

int main(int argc, char **argv) {
  void *so = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
  model = so ? dlsym(so, "zn_model_main") : NULL;
  if (!model) {
    fprintf(stderr, "usage: overlay_check MODEL.so INPUT=OUTPUT...\n");
    return 2;
  }
  static job want;
  describe(&want);
  if (plan(&want) != ZN_RUN_OK || want.ws_bytes > sizeof ws) return 2;
  give_outputs(&want);
  if (run(&want) != ZN_RUN_OK) return 2;
  for (uint32_t i = 0; i < model->num_inputs; i++)
    for (uint32_t o = 0; o < model->num_outputs; o++) {
      char pair[200];
      int allowed = 0;
      snprintf(pair, sizeof pair, "%s=%s", model->inputs[i].name, model->outputs[o].name);
      for (int k = 2; k < argc; k++) allowed |= !strcmp(argv[k], pair);
      check_pair(&want, i, o, allowed);
    }
  return failures != 0;
}
