/* Which node is wrong? The model is compiled once more with every intermediate value as an output; each node is then
 * evaluated on the values that the artifact itself computed for its inputs, so that errors do not accumulate: the first
 * node whose own result is off is the culprit. When keeping the values makes the error vanish, fusion or a rewrite is
 * to blame, and the number of rewrites is halved until the first bad one is found. */
#include <inttypes.h>
#include <math.h>

#include "zenithc/driver/verify.h"

enum { MAX_KEPT = 4000 };

typedef struct kept {
  zn_vid *ids; /* values made outputs, in execution order */
  uint32_t n;
  uint64_t bytes;
} kept;

static bool is_output(const zn_graph *g, zn_vid v) {
  for (uint32_t i = 0; i < g->num_outputs; i++)
    if (g->outputs[i] == v) return true;
  return false;
}

/* Numeric tensors that main-graph nodes compute. */
static void keep_values(zn_graph *g, zn_arena *a, kept *k) {
  uint32_t *uses = zn_graph_uses(g, a);
  k->ids = ZN_ARRAY(a, zn_vid, g->num_vals);
  for (uint32_t i = 0; i < g->num_order && k->n < MAX_KEPT; i++) {
    const zn_node n = g->nodes[g->order[i]];
    for (uint32_t j = 0; j < n.num_out; j++) {
      zn_vid v = n.out[j];
      if (!v || !uses[v] || g->vals[v].cst || g->vals[v].type.kind != ZN_V_TENSOR) continue;
      if (g->vals[v].type.dtype == ZN_STR) continue;
      if (!is_output(g, v)) zn_graph_output(g, v);
      k->ids[k->n++] = v;
    }
  }
}

typedef struct values { /* by value id of the loaded graph */
  zn_htensor *t;
  bool *have;
} values;

/* The bytes of strings may lie in the artifact, which is closed before they are read. */
static void keep_bytes(zn_arena *a, zn_htensor *t) {
  const uint64_t n = zn_htensor_count(t);
  if (!t->data) return;
  for (uint64_t k = 0; k < n && t->kind != ZN_V_TENSOR; k++) keep_bytes(a, (zn_htensor *)t->data + k);
  for (uint64_t k = 0; k < n && t->kind == ZN_V_TENSOR && t->dtype == ZN_STR; k++) {
    zn_str *s = (zn_str *)t->data + k;
    s->ptr = zn_arena_strndup(a, s->len ? s->ptr : "", s->len);
  }
}

static zn_status run_kept(zn_verify *v, const zn_compile_opts *co, const zn_target *t, zn_graph *g, zn_arena *a,
                          values *out) {
  zn_ctx *c = v->c;
  zn_compiled k = {0};
  zn_session s = {0};
  const char *dir;
  zn_vid *ids = ZN_ARRAY(a, zn_vid, g->num_outputs);
  uint32_t n = g->num_outputs;
  memcpy(ids, g->outputs, n * sizeof *ids);
  ZN_TRY(zn_infer_graph(c, g));
  ZN_TRY(zn_compile_graph(c, g, co, &k));
  ZN_TRY(zn_tmp_make(c, NULL, &dir));
  zn_status st = zn_session_load(c, &k, t, co->opt_level, dir, &s);
  zn_htensor *res = ZN_ARRAY(a, zn_htensor, n);
  if (st == ZN_OK && s.num_out != n) st = ZN_ERR_MODEL;
  if (st == ZN_OK) st = t->run(c, s.exec, a, v->in, res);
  for (uint32_t i = 0; i < n && st == ZN_OK; i++) {
    keep_bytes(a, &res[i]);
    out->t[ids[i]] = res[i];
    out->have[ids[i]] = true;
  }
  if (s.exec && t->unload) t->unload(s.exec);
  zn_remove_tree(dir);
  return st;
}

/* Error eta of node n on the values the artifact computed, 0 when it is within what rounding explains; < 0: cannot be
 * told. */
static double local_error(zn_verify *v, zn_graph *ref, zn_nid id, const values *got, zn_arena *a) {
  const zn_node *n = &ref->nodes[id];
  const zn_htensor **in = ZN_ARRAY(a, const zn_htensor *, n->num_in);
  zn_htensor *want = ZN_ARRAY(a, zn_htensor, n->num_out);
  for (uint32_t i = 0; i < n->num_in; i++) {
    zn_vid x = n->in[i];
    if (!x) continue;
    in[i] = ref->vals[x].cst ? ref->vals[x].cst : got->have[x] ? &got->t[x] : NULL;
    if (!in[i]) return -1;
  }
  if (zn_eval_node(v->c, ref, id, in, want) != ZN_OK) return -1;
  double worst = 0;
  for (uint32_t i = 0; i < ref->nodes[id].num_out; i++) {
    zn_vid x = ref->nodes[id].out[i];
    zn_metric m;
    if (!x || !got->have[x] || want[i].dtype == ZN_NONE) continue;
    zn_eval_val r = zn_eval_from_htensor(a, &want[i]), q = zn_eval_from_htensor(a, &got->t[x]);
    zn_metric_compare(a, &r, &q, &m);
    double delta = zn_verify_delta(want[i].dtype), allowed = delta < 1e-4 ? 16 * delta : 2 * delta;
    if (!m.same_type || m.nonfinite_bad || m.unequal) worst = INFINITY;
    else if (m.eta_max > allowed) worst = fmax(worst, m.eta_max);
  }
  return worst;
}

static const char *describe(zn_arena *a, const zn_graph *g, zn_nid id, double e) {
  const zn_node *n = &g->nodes[id];
  const char *where = zn_arena_printf(a, "node '%s' (%s)%s%s", n->name, zn_op_name(n->op),
                                      n->source ? ", exported from " : "", n->source ? n->source : "");
  if (isinf(e)) return zn_arena_printf(a, "first wrong layer: %s, given the inputs it had", where);
  return zn_arena_printf(a, "first layer that drifts: %s: local error %.2g on the inputs it had", where, e);
}

static bool final_output_off(const zn_verify *v, const values *got, zn_arena *a, const zn_eval_val *ref) {
  for (uint32_t i = 0; i < v->num_out; i++) {
    zn_metric m;
    zn_eval_val q = zn_eval_from_htensor(a, &got->t[v->ref->outputs[i]]);
    zn_metric_compare(a, &ref[i], &q, &m);
    if (!zn_metric_pass(&m, fmax(v->out[i].tolerance, zn_verify_delta(v->out[i].dtype)))) return true;
  }
  return false;
}

/* Compiles with at most `limit` rewrites; is the result still wrong? *total: rewrites that were made. */
static bool wrong_with(zn_verify *v, const zn_compile_opts *co, const zn_target *t, int64_t limit, zn_arena *a,
                       const zn_eval_val *ref) {
  zn_compile_opts o = *co;
  zn_graph *g;
  values got = {0};
  o.pass.rewrite_limit = limit;
  if (zn_load_graph(v->c, co->model, &co->onnx, &g) != ZN_OK) return true;
  got.t = ZN_ARRAY(a, zn_htensor, g->num_vals);
  got.have = ZN_ARRAY(a, bool, g->num_vals);
  if (run_kept(v, &o, t, g, a, &got) != ZN_OK) return true;
  return final_output_off(v, &got, a, ref);
}

static void bisect(zn_verify *v, const zn_compile_opts *co, const zn_target *t, zn_arena *a) {
  zn_eval_val *in = ZN_ARRAY(a, zn_eval_val, v->s->num_in), *ref = ZN_ARRAY(a, zn_eval_val, v->num_out);
  for (uint32_t i = 0; i < v->s->num_in; i++) in[i] = zn_eval_from_htensor(a, &v->in[i]);
  if (zn_eval_graph(v->c, v->ref, ZN_EVAL_F64, a, in, ref, NULL) != ZN_OK) return;
  if (wrong_with(v, co, t, 0, a, ref)) {
    v->drift = "the error is there without any optional rewrite: lowering or code generation";
    return;
  }
  int64_t good = 0, bad = 1;
  while (bad < 1 << 20 && !wrong_with(v, co, t, bad, a, ref)) good = bad, bad *= 2;
  if (bad >= 1 << 20) return;
  while (bad - good > 1) {
    int64_t mid = good + (bad - good) / 2;
    if (wrong_with(v, co, t, mid, a, ref)) bad = mid;
    else good = mid;
  }
  v->drift = zn_arena_printf(&v->c->graph, "rewrite %" PRId64 " breaks it: compare --rewrite-limit=%" PRId64
                             " and --rewrite-limit=%" PRId64, bad, good, bad);
}

static void mute(void *user, zn_severity sev, const char *line) {
  (void)user;
  (void)sev;
  (void)line;
}

static bool find_node(zn_verify *v, const zn_compile_opts *co, const zn_target *t, zn_arena *a) {
  zn_ctx *c = v->c;
  zn_graph *g, *ref;
  kept k = {0};
  if (zn_load_graph(c, co->model, &co->onnx, &g) != ZN_OK || zn_load_graph(c, co->model, &co->onnx, &ref) != ZN_OK)
    return false;
  keep_values(g, a, &k);
  values got = {ZN_ARRAY(a, zn_htensor, ref->num_vals), ZN_ARRAY(a, bool, ref->num_vals)};
  for (uint32_t i = 0; i < ref->num_inputs; i++) got.t[ref->inputs[i]] = v->in[i], got.have[ref->inputs[i]] = true;
  if (run_kept(v, co, t, g, a, &got) != ZN_OK) return false;
  zn_nid worst = 0;
  double most = 0;
  for (uint32_t i = 0; i < ref->num_order; i++) {
    zn_nid n = ref->order[i];
    double e = local_error(v, ref, n, &got, a);
    if (e <= most) continue;
    worst = n;
    most = e;
    break;
  }
  if (worst) v->drift = describe(&c->graph, ref, worst, most);
  return worst != 0;
}

void zn_verify_localise(zn_verify *v, const zn_compile_opts *co, const zn_target *t) {
  zn_ctx *c = v->c;
  zn_sink sink = c->sink;
  unsigned errors = c->errors, warnings = c->warnings;
  zn_arena a;
  zn_arena_init(&a, "localise");
  c->sink = mute;
  if (v->in && !find_node(v, co, t, &a)) bisect(v, co, t, &a);
  c->sink = sink;
  c->errors = errors;
  c->warnings = warnings;
  zn_arena_reset(&a);
}
