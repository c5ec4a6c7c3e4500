/* Runs that cannot be one recorded graph, because the host has a part in them or must see data on the way: what they enqueue
 * between two such points is noted here first. A stretch that was seen before, with the same kernels and arguments, is a graph
 * and launched as one; comparing notes costs the host less than launching kernels does. Part of the runtime object of CUDA
 * artifacts. */
#include <stdlib.h>
#include <string.h>

#include "cuda_session.h"

enum { MAX_STRETCHES = 64, SHORT = 3, RELAXED = 2 };
enum { LAUNCH = 1, FLOW = 2 };

typedef struct stretch {
  uint64_t key;
  uint64_t *words; /* kept with exec */
  size_t num;
  void *exec;
} stretch;

struct zn_tape {
  uint64_t *words; /* notes: kind, number of words, the words */
  size_t num, cap;
  unsigned launches, flows, depth;
  stretch stretches[MAX_STRETCHES];
  unsigned num_stretches;
};

static int note(zn_session *s, uint64_t kind, const void *data, size_t bytes) {
  zn_tape *t = s->tape;
  const size_t n = (bytes + 7) / 8;
  if (t->num + n + 2 > t->cap) {
    const size_t cap = (t->num + n + 2) * 2;
    uint64_t *p = realloc(t->words, cap * sizeof *p);
    if (!p) {
      s->status = ZN_RUN_ALLOC;
      return 0;
    }
    t->words = p;
    t->cap = cap;
  }
  t->words[t->num] = kind;
  t->words[t->num + 1] = n;
  if (n) t->words[t->num + 1 + n] = 0; /* the last word may be partial */
  memcpy(&t->words[t->num + 2], data, bytes);
  t->num += n + 2;
  return 1;
}

void zn_tape_launch(zn_session *s, const zn_launch *l) {
  s->tape->launches += (unsigned)note(s, LAUNCH, l, ZN_LAUNCH_BYTES(l->num));
}

void zn_tape_flow(zn_session *s, const zn_flow *f) {
  s->tape->flows += (unsigned)note(s, FLOW, f, sizeof *f);
  s->after_kernel = 0;
}

static void play(zn_session *s, const uint64_t *words, size_t num) {
  for (size_t at = 0; at < num && !s->status; at += words[at + 1] + 2) {
    if (words[at] == LAUNCH) zn_cuda_launch(s, (const zn_launch *)(const void *)&words[at + 2]);
    else zn_flow_record(s, (const zn_flow *)(const void *)&words[at + 2]);
  }
}

static uint64_t hash(const uint64_t *words, size_t num) {
  uint64_t h = 1;
  for (size_t i = 0; i < num; i++) h = (h ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15) + (h >> 29);
  return h;
}

static void drop(zn_session *s, stretch *g) {
  if (g->exec) s->cu.graph_exec_destroy(g->exec);
  free(g->words);
  memset(g, 0, sizeof *g);
}

void zn_tape_forget(zn_session *s) {
  zn_tape *t = s->tape;
  for (unsigned i = 0; t && i < t->num_stretches; i++) drop(s, &t->stretches[i]);
  if (t) t->num_stretches = 0;
}

static stretch *find(zn_session *s, uint64_t key, int *out_new) {
  zn_tape *t = s->tape;
  *out_new = 0;
  for (unsigned i = 0; i < t->num_stretches; i++)
    if (t->stretches[i].key == key) return &t->stretches[i];
  if (t->num_stretches == MAX_STRETCHES) zn_tape_forget(s);
  *out_new = 1;
  t->stretches[t->num_stretches].key = key;
  return &t->stretches[t->num_stretches++];
}

static void record_stretch(zn_session *s, stretch *g) {
  zn_tape *t = s->tape;
  void *graph = NULL, *user = s->stream;
  s->stream = s->own_stream;
  zn_cuda_keep(s, s->cu.capture_begin(s->stream, RELAXED), "recording");
  if (!s->status) {
    play(s, t->words, t->num);
    zn_flow_unwind(s);
    zn_cuda_keep(s, s->cu.capture_end(s->stream, &graph), "recording");
  }
  s->stream = user;
  if (!s->status) zn_cuda_keep(s, s->cu.graph_instantiate(&g->exec, graph, 0), "making the graph");
  if (graph) s->cu.graph_destroy(graph);
  g->words = s->status ? NULL : malloc(t->num * sizeof *g->words + 1);
  if (g->words) memcpy(g->words, t->words, t->num * sizeof *g->words);
  g->num = t->num;
}

static int is_same(const zn_tape *t, const stretch *g) {
  return g->exec && g->words && g->num == t->num && !memcmp(g->words, t->words, t->num * sizeof *t->words);
}

static void run_stretch(zn_session *s) {
  zn_tape *t = s->tape;
  int is_new;
  stretch *g = find(s, hash(t->words, t->num), &is_new);
  if (g->exec && !is_same(t, g)) drop(s, g), is_new = 0; /* another one with this key */
  if (!g->exec && (!is_new || t->flows)) {
    g->key = hash(t->words, t->num);
    record_stretch(s, g);
  }
  if (s->status) return;
  if (g->exec) zn_cuda_keep(s, s->cu.graph_launch(g->exec, s->stream), "launching the graph");
  else play(s, t->words, t->num);
}

void zn_tape_flush(zn_session *s) {
  zn_tape *t = s->tape;
  if (!t || !t->num) return;
  if (!s->status && t->launches < SHORT && !t->flows) play(s, t->words, t->num);
  else if (!s->status) run_stretch(s);
  t->num = 0;
  t->launches = t->flows = 0;
  s->after_kernel = 0;
}

zn_tape *zn_tape_open(void) { return calloc(1, sizeof(zn_tape)); }

void zn_tape_close(zn_session *s) {
  if (!s->tape) return;
  zn_tape_forget(s);
  free(s->tape->words);
  free(s->tape);
  s->tape = NULL;
}
