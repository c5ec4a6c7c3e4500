/* Makes a failing graph smaller while it fails in the same way: one output, nodes cut off in front, nodes bypassed,
 * smaller sizes. Each try runs apart. */
#include <stdio.h>

#include "tests/fuzz/graphs/fuzz.h"
#include "zenithc/passes/pass.h"

enum { MAX_TRIES = 400 };

typedef struct work {
  zn_ctx c;
  zn_arena *a;
  uint64_t seed;
  const fz_opts *o;
  const fz_result *want;
  const char *best;
  size_t n;
  uint32_t tries;
} work;

static void quiet(void *user, zn_severity sev, const char *line) {
  (void)user, (void)sev, (void)line;
}

static zn_graph *reopen(work *w) {
  zn_graph *g;
  return zn_graph_parse(&w->c, &w->c.graph, w->best, w->n, NULL, &g) == ZN_OK ? g : NULL;
}

/* Removes what no output needs, inputs included; infers anew. */
static bool tidy(work *w, zn_graph *g) {
  zn_pass_opts po = {.rewrite_limit = -1};
  if (zn_infer_graph(&w->c, g) != ZN_OK || zn_passes_run_named(&w->c, g, "dce", &po) != ZN_OK)
    return false;
  uint32_t *uses = zn_graph_uses(g, &w->c.graph), n = 0;
  for (uint32_t i = 0; i < g->num_inputs; i++) {
    if (uses[g->inputs[i]]) g->inputs[n++] = g->inputs[i];
    else g->vals[g->inputs[i]].is_input = false;
  }
  g->num_inputs = n;
  return g->num_outputs > 0;
}

static bool try_graph(work *w, zn_graph *g) {
  fz_result r;
  size_t n;
  if (w->tries >= MAX_TRIES || !tidy(w, g)) return false;
  const char *text = fz_print(g, w->a, &n);
  if (n >= w->n && n >= 100000) return false;
  if (n == w->n && !memcmp(text, w->best, n)) return false;
  w->tries++;
  fz_check_apart(text, n, w->seed, w->o, &r);
  if (r.outcome != w->want->outcome || strcmp(r.way, w->want->way) ||
      strncmp(r.what, w->want->what, 7))
    return false;
  w->best = text;
  w->n = n;
  return true;
}

static bool one_output(work *w) {
  zn_graph *g = reopen(w);
  if (!g || g->num_outputs < 2) return false;
  for (uint32_t k = 0; k < g->num_outputs; k++) {
    zn_graph *h = reopen(w);
    zn_vid keep = h->outputs[k];
    for (uint32_t i = 0; i < h->num_outputs; i++)
      h->vals[h->outputs[i]].is_output = h->outputs[i] == keep;
    h->outputs[0] = keep;
    h->num_outputs = 1;
    if (try_graph(w, h)) return true;
  }
  return false;
}

/* The node's results become inputs of the graph. */
static bool cut(work *w, uint32_t k) {
  zn_graph *g = reopen(w);
  zn_nid n = g->order[k];
  for (uint32_t i = 0; i < g->nodes[n].num_out; i++) {
    zn_vid v = g->nodes[n].out[i];
    if (!v) continue;
    zn_type t = g->vals[v].type;
    if (t.kind != ZN_V_TENSOR || t.rank < 0 || g->vals[v].is_output) return false;
    for (int d = 0; d < t.rank; d++)
      if (!zn_ex_is_const(g->ex, t.dims[d], NULL) && zn_ex_kind(g->ex, t.dims[d]) != ZN_EX_SYM)
        return false;
    zn_graph_replace(g, v, zn_graph_input(g, "cut", t));
  }
  zn_graph_kill(g, n);
  zn_graph_compact(g);
  return try_graph(w, g);
}

/* The node's first result is replaced by one of its operands of the same type. */
static bool bypass(work *w, uint32_t k) {
  for (uint32_t i = 0; i < 3; i++) {
    zn_graph *g = reopen(w);
    const zn_node *n = &g->nodes[g->order[k]];
    if (i >= n->num_in || !n->in[i] || !n->num_out || !n->out[0]) continue;
    zn_type a = g->vals[n->in[i]].type, b = g->vals[n->out[0]].type;
    if (a.kind || b.kind || a.dtype != b.dtype || a.rank != b.rank ||
        (a.rank > 0 && memcmp(a.dims, b.dims, (size_t)a.rank * sizeof a.dims[0])))
      continue;
    if (g->vals[n->out[0]].is_output && !g->vals[n->in[i]].def) continue;
    zn_graph_replace(g, n->out[0], n->in[i]);
    if (try_graph(w, g)) return true;
  }
  return false;
}

/* An intermediate value becomes the only output. */
static bool stop_early(work *w, uint32_t k) {
  zn_graph *g = reopen(w);
  zn_vid v = g->nodes[g->order[k]].out[0];
  if (!v || g->vals[v].is_output || g->vals[v].type.kind != ZN_V_TENSOR) return false;
  for (uint32_t i = 0; i < g->num_outputs; i++) g->vals[g->outputs[i]].is_output = false;
  g->num_outputs = 0;
  zn_graph_output(g, v);
  return try_graph(w, g);
}

static bool smaller_dim(work *w, uint32_t i, int d, int64_t to) {
  zn_graph *g = reopen(w);
  if (i >= g->num_inputs || d >= g->vals[g->inputs[i]].type.rank) return false; /* a smaller graph has fewer */
  zn_type *t = &g->vals[g->inputs[i]].type;
  int64_t v;
  zn_expr was = t->dims[d];
  bool fixed = zn_ex_is_const(g->ex, was, &v);
  if (fixed && v <= to) return false;
  for (uint32_t k = 0; k < g->num_inputs; k++) { /* equal sizes stay equal */
    zn_type *y = &g->vals[g->inputs[k]].type;
    for (int e = 0; e < y->rank; e++)
      if (y->dims[e] == was) y->dims[e] = zn_ex_const(g->ex, fixed ? to : 3);
  }
  return try_graph(w, g);
}

static bool sizes(work *w) {
  zn_graph *g = reopen(w);
  bool any = false;
  for (uint32_t i = 0; g && i < g->num_inputs; i++)
    for (int d = 0; d < g->vals[g->inputs[i]].type.rank; d++)
      any |= smaller_dim(w, i, d, 1) || smaller_dim(w, i, d, 2) || smaller_dim(w, i, d, 4);
  return any;
}

const char *fz_shrink(zn_arena *a, const char *zg, uint64_t seed, const fz_opts *o,
                      const fz_result *same, size_t *out_n) {
  work w = {.a = a, .seed = seed, .o = o, .want = same, .best = zg, .n = strlen(zg)};
  zn_ctx_init(&w.c);
  w.c.sink = quiet;
  w.c.verbosity = -1;
  for (bool more = true; more && w.tries < MAX_TRIES;) {
    more = one_output(&w);
    zn_graph *g = reopen(&w);
    for (uint32_t k = 0; g && k < g->num_order; k++) {
      bool hit = stop_early(&w, k);
      for (g = reopen(&w); !hit && k < g->num_order && bypass(&w, k); g = reopen(&w)) hit = true;
      if (!hit && k < g->num_order) hit = cut(&w, g->num_order - 1 - k);
      more |= hit;
      g = reopen(&w);
    }
    if (!more) more = sizes(&w);
  }
  *out_n = w.n;
  zn_ctx_fini(&w.c);
  return w.best;
}
