/* What zenith.h promises about strings, sequences and the allocator, seen by a program that opens
 *     values_check strings.so loop_grow.so          (tests/embed/values)
 * Prints ok and FAIL lines. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zenith.h"

typedef struct pool { /* the caller's allocator: refuses number `fail`, or gives odd addresses */
  void *block[4096];
  int n, fail;
  int odd;
} pool;

static void *take(void *user, size_t bytes) {
  pool *p = user;
  if (p->n == p->fail || p->n == 4096) return NULL;
  char *q = aligned_alloc(64, (bytes + 127) / 64 * 64);
  memset(q, 0xa5, bytes);
  p->block[p->n++] = q;
  return p->odd ? q + 8 : q;
}

static void drop(pool *p) {
  while (p->n) free(p->block[--p->n]);
}

static void check(int fine, const char *what) { printf("%s %s\n", fine ? "ok" : "FAIL", what); }

static const zn_model *open_model(const char *path) {
  void *h = dlopen(path, RTLD_NOW);
  const zn_model *m = h ? dlsym(h, "zn_model_main") : NULL;
  if (!m || m->magic != ZN_MODEL_MAGIC || m->abi != ZN_ABI_VERSION) {
    printf("FAIL %s: no model of ABI %d\n", path, ZN_ABI_VERSION);
    exit(1);
  }
  return m;
}

enum { MAX_IO = 8 };
typedef struct job {
  const zn_model *m;
  zn_tensor in[MAX_IO], out[MAX_IO];
  void *ws;
  uint64_t ws_bytes;
  pool p;
} job;

static void prepare(job *j) {
  zn_host none = {0};
  int32_t rc = j->m->plan(j->in, j->out, &j->ws_bytes, 0, &none);
  check(rc == ZN_RUN_OK, "plan needs no allocator");
  j->ws = aligned_alloc(64, (j->ws_bytes + 127) / 64 * 64);
  for (uint32_t i = 0; i < j->m->num_outputs; i++)
    if (j->out[i].bytes) j->out[i].u.data = calloc(1, j->out[i].bytes);
}

static int32_t run(job *j, int fail, int odd) {
  zn_host host = {.alloc_user = &j->p, .alloc = take};
  drop(&j->p);
  j->p.fail = fail;
  j->p.odd = odd;
  return j->m->run(j->in, j->out, j->ws, j->ws_bytes, &host);
}

/* The rules that hold for every model that allocates. */
static void check_allocator(job *j) {
  check(j->m->run(j->in, j->out, j->ws, j->ws_bytes, NULL) == ZN_RUN_ALLOC, "no host: ZN_RUN_ALLOC");
  zn_host empty = {0};
  check(j->m->run(j->in, j->out, j->ws, j->ws_bytes, &empty) == ZN_RUN_ALLOC, "no allocator: ZN_RUN_ALLOC");
  check(run(j, -1, 1) == ZN_RUN_ALLOC, "unaligned memory: ZN_RUN_ALLOC");
  check(run(j, -1, 0) == ZN_RUN_OK, "with an allocator: ZN_RUN_OK");
  int n = j->p.n, good = n > 0;
  for (int k = 0; k < n; k++) good &= run(j, k, 0) == ZN_RUN_ALLOC;
  check(good, "every refusal ends the run with ZN_RUN_ALLOC");
}

static zn_string str(const char *s) {
  zn_string z = {{0}, strlen(s)};
  z.u.ptr = s;
  return z;
}

static int is(const zn_tensor *t, uint64_t i, const char *want) {
  const zn_string *s = (const zn_string *)t->u.data + i;
  return s->len == strlen(want) && memcmp(s->u.ptr, want, s->len) == 0;
}

static void strings(const char *path) {
  job j = {.m = open_model(path)};
  zn_string s[2] = {str("a"), str("\xc3\xa9")}, t[2] = {str("b"), str("\xc3\xa9")};
  unsigned char flag = 1;
  check(j.m->num_inputs == 3 && j.m->inputs[0].dtype == 8, "the descriptor names strings by ONNX's code");
  j.in[0] = (zn_tensor){.u.data = s, .bytes = sizeof s, .dtype = 8, .rank = 1, .shape = {2}};
  j.in[1] = (zn_tensor){.u.data = t, .bytes = sizeof t, .dtype = 8, .rank = 1, .shape = {2}};
  j.in[2] = (zn_tensor){.u.data = &flag, .bytes = 1, .dtype = 9};
  prepare(&j);
  check_allocator(&j);
  check(run(&j, -1, 0) == ZN_RUN_OK && is(&j.out[0], 0, "abaaa") && is(&j.out[0], 5, "\xc3\xa9"), "concatenation in a loop");
  check(is(&j.out[1], 0, "aba") && is(&j.out[1], 4, "abaaa"), "strings of earlier iterations stay");
  check(is(&j.out[2], 0, "abaaa") && is(&j.out[2], 1, "\xc3\xa9"), "comparison and choice");
  flag = 0;
  check(run(&j, -1, 0) == ZN_RUN_OK && is(&j.out[0], 0, "baaa"), "the other branch");
  j.in[0].dtype = 7;
  check(run(&j, -1, 0) == ZN_RUN_DTYPE, "numbers for strings: ZN_RUN_DTYPE");
}

static void sequence(const char *path) {
  job j = {.m = open_model(path)};
  float x[3] = {1, 2, 3}, d = 0.6f;
  j.in[0] = (zn_tensor){.u.data = x, .bytes = sizeof x, .dtype = 1, .rank = 1, .shape = {3}};
  j.in[1] = (zn_tensor){.u.data = &d, .bytes = sizeof d, .dtype = 1};
  prepare(&j);
  check(j.out[0].shape[0] == -1 && j.out[0].bytes == 0, "plan says -1 for a size without bound");
  check(ZN_KIND(j.out[2].dtype) == ZN_SEQUENCE && j.out[2].rank == 1, "plan says what is a sequence");
  check_allocator(&j);
  check(run(&j, -1, 0) == ZN_RUN_OK, "a sequence grows until the data ends the loop");
  const zn_tensor *items = j.out[2].u.data;
  check(j.out[2].shape[0] == 3 && ((int64_t *)j.out[1].u.data)[0] == 3, "its length");
  check(items[2].dtype == 1 && items[2].rank == 1 && items[2].shape[0] == 3 && items[2].bytes == 12, "its items");
  check(((float *)items[2].u.data)[2] == 9, "their elements");
  check(j.out[0].shape[0] == 6 && j.out[0].bytes == 24 && ((float *)j.out[0].u.data)[5] == 9, "an output without bound");
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  strings(argv[1]);
  sequence(argv[2]);
  return 0;
}
