/* embed_check MODEL.so: what runtime/zenith.h promises about any model of float tensors, from the side of a caller.
 *   the heap is not touched (malloc and its kin abort while the model runs); eight threads share one descriptor and give
 *   the same bits; a dirty workspace changes nothing; nothing is written behind workspace, outputs or inputs; wrong
 *   pointers, ranks, shapes, types and sizes return their code. Symbolic dimensions are taken as 2.
 * Prints `ok NAME` or `FAIL NAME: why` for each; build with -ldl -lpthread. */
#include <dlfcn.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "caller.h"

enum { THREADS = 8, ROUNDS = 20, MAX_IO = 8, GUARD = 4096 };

/* ---- a heap that can be forbidden ---- */
static volatile int forbidden;
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
void *malloc(size_t n) {
  if (forbidden) abort();
  return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
  if (forbidden) abort();
  return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
  if (forbidden) abort();
  return __libc_realloc(p, n);
}

static const zn_model *model;
static int failures;

static void report(const char *name, int good, const char *why) {
  if (good) printf("ok %s\n", name);
  else printf("FAIL %s: %s\n", name, why);
  failures += !good;
}

/* ---- buffers ---- */
/* n bytes aligned to 64, all of them `fill`, then GUARD bytes of 0x5a. */
static void *guarded(size_t n, int fill) {
  void *p = NULL;
  if (posix_memalign(&p, 64, n + GUARD) != 0) exit(2);
  memset(p, fill, n);
  memset((char *)p + n, 0x5a, GUARD);
  return p;
}

static int intact(const void *p, size_t n) {
  const unsigned char *end = (const unsigned char *)p + n;
  for (int i = 0; i < GUARD; i++)
    if (end[i] != 0x5a) return 0;
  return 1;
}

typedef struct job {
  zn_tensor in[MAX_IO], out[MAX_IO];
  void *ws;
  uint64_t ws_bytes;
  int32_t rc;
  int same;
  const struct job *want;
} job;

static void *room(size_t bytes) { return guarded(bytes, 0); }

static int32_t prepare(job *j, int fill) {
  memset(j, 0, sizeof *j);
  caller_inputs(model, 2, room, j->in);
  int32_t rc = model->plan(j->in, j->out, &j->ws_bytes, 0, NULL);
  if (rc != ZN_RUN_OK) return rc;
  for (uint32_t i = 0; i < model->num_outputs; i++) j->out[i].u.data = guarded(j->out[i].bytes, fill);
  j->ws = guarded(j->ws_bytes, fill);
  return rc;
}

static int32_t run(job *j) { return model->run(j->in, j->out, j->ws, (size_t)j->ws_bytes, NULL); }

static int same_outputs(const job *a, const job *b) { return caller_same(a->out, b->out, model->num_outputs); }

static int all_intact(const job *j) {
  int good = intact(j->ws, j->ws_bytes);
  for (uint32_t i = 0; i < model->num_inputs; i++) good = good && intact(j->in[i].u.data, j->in[i].bytes);
  for (uint32_t i = 0; i < model->num_outputs; i++) good = good && intact(j->out[i].u.data, j->out[i].bytes);
  return good;
}

/* ---- the checks ---- */
static void *thread_main(void *arg) {
  job *j = arg;
  j->same = 1;
  for (int i = 0; i < ROUNDS && j->same; i++) {
    for (uint32_t k = 0; k < model->num_outputs; k++) memset(j->out[k].u.data, i, j->out[k].bytes);
    j->rc = run(j);
    j->same = j->rc == ZN_RUN_OK && same_outputs(j, j->want);
  }
  return NULL;
}

static void check_threads(const job *want) {
  static job jobs[THREADS];
  pthread_t t[THREADS];
  int good = 1;
  for (int i = 0; i < THREADS; i++) {
    prepare(&jobs[i], 0);
    jobs[i].want = want;
  }
  for (int i = 0; i < THREADS; i++)
    if (pthread_create(&t[i], NULL, thread_main, &jobs[i]) != 0) exit(2);
  for (int i = 0; i < THREADS; i++) {
    pthread_join(t[i], NULL);
    good = good && jobs[i].same;
  }
  report("eight threads, one descriptor, same bits", good, "a thread got another result");
}

static void expect(const char *name, const job *base, int32_t want, void (*damage)(job *)) {
  job j = *base;
  damage(&j);
  int32_t rc = run(&j);
  char why[80];
  snprintf(why, sizeof why, "run returned %" PRId32 ", expected %" PRId32, rc, want);
  report(name, rc == want, why);
}

static void no_input(job *j) { j->in[0].u.data = NULL; }
static void no_output(job *j) { j->out[0].u.data = NULL; }
static void no_workspace(job *j) { j->ws = NULL; }
static void less_rank(job *j) { j->in[0].rank--; }
static void other_shape(job *j) { j->in[0].shape[j->in[0].rank - 1]++; }
static void negative_shape(job *j) { j->in[0].shape[j->in[0].rank - 1] = -1; }
static void other_dtype(job *j) { j->in[0].dtype = 7; }
static void short_input(job *j) { j->in[0].bytes--; }
static void short_output(job *j) { j->out[0].bytes--; }
static void short_workspace(job *j) { j->ws_bytes--; }
static void odd_workspace(job *j) { j->ws = (char *)j->ws + 4; }

static void check_errors(const job *base) {
  expect("input pointer null", base, ZN_RUN_NULL, no_input);
  expect("output pointer null", base, ZN_RUN_NULL, no_output);
  expect("input of another rank", base, ZN_RUN_RANK, less_rank);
  expect("input of another shape", base, ZN_RUN_SHAPE, other_shape);
  expect("input of negative shape", base, ZN_RUN_SHAPE, negative_shape);
  expect("input of another dtype", base, ZN_RUN_DTYPE, other_dtype);
  expect("input buffer too short", base, ZN_RUN_SHORT, short_input);
  expect("output buffer too short", base, ZN_RUN_SHORT, short_output);
  if (base->ws_bytes) {
    job j = *base;
    no_workspace(&j);
    int32_t rc = run(&j);
    report("workspace null", rc == ZN_RUN_WORKSPACE || rc == ZN_RUN_NULL, "accepted");
    expect("workspace too small", base, ZN_RUN_WORKSPACE, short_workspace);
    expect("workspace misaligned", base, ZN_RUN_WORKSPACE, odd_workspace);
  }
  report("null arrays of tensors", model->run(NULL, NULL, base->ws, (size_t)base->ws_bytes, NULL) == ZN_RUN_NULL,
         "accepted");
}

int main(int argc, char **argv) {
  void *so = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
  model = so ? dlsym(so, "zn_model_main") : NULL;
  if (!model) {
    fprintf(stderr, "usage: embed_check MODEL.so\n");
    return 2;
  }
  static job zeros, ones;
  report("magic and ABI version", model->magic == ZN_MODEL_MAGIC && model->abi == ZN_ABI_VERSION, "wrong");
  int32_t a = prepare(&zeros, 0), b = prepare(&ones, 0xff);
  report("plan", a == ZN_RUN_OK && b == ZN_RUN_OK, "refused");
  if (a != ZN_RUN_OK || b != ZN_RUN_OK) return 1;
  forbidden = 1;
  a = run(&zeros);
  b = run(&ones);
  forbidden = 0;
  report("run, with malloc forbidden", a == ZN_RUN_OK && b == ZN_RUN_OK, "an error code");
  report("a dirty workspace changes nothing", same_outputs(&zeros, &ones), "the outputs differ");
  report("nothing written out of bounds", all_intact(&zeros) && all_intact(&ones), "a guard was overwritten");
  check_threads(&zeros);
  check_errors(&zeros);
  report("nothing written out of bounds by refused runs", all_intact(&zeros), "a guard was overwritten");
  return failures != 0;
}
