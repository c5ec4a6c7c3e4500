/* One graph, every way of computing it, against the reference under the metric of docs/NUMERICS.md. The reference is the
 * graph as drawn, before any pass. Artifacts run with a workspace and outputs full of garbage, and once more with their
 * kernels cut into parts that run in another order: bits must be the same. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "codegen/llvm/llvm_emit.h"
#include "frontends/onnx/onnx.h"
#include "targets/exec_common.h"
#include "tests/fuzz/graphs/fuzz.h"
#include "zenithc/driver/compile.h"
#include "zenithc/driver/tools.h"
#include "zenithc/driver/verify.h"
#include "zenithc/passes/pass.h"

enum { FLOATS = 7, NOISE = 2 * FLOATS + 6 };

typedef struct sample {
  zn_htensor *in;
  zn_eval_val *ein, *ref;
  bool wild; /* something left the range of its type on the way: infinities are not compared */
  uint32_t tried;
  zn_eval_val *runs[NOISE];
  double *floor, *moved;
  const zn_graph *expanded; /* see written_out */
} sample;

typedef struct run {
  zn_ctx *c;
  const zn_graph *g; /* the reference */
  const char *zg;
  size_t n;
  uint64_t seed;
  const fz_opts *o;
  fz_result *out;
  sample s[2];
  uint32_t samples;
  char first[280]; /* first diagnostic of the current compilation */
} run;

static void collect(void *user, zn_severity sev, const char *line) {
  run *r = user;
  if (sev == ZN_DIAG_ERROR && !r->first[0]) snprintf(r->first, sizeof r->first, "%s", line);
}

static bool fail(run *r, fz_outcome o, const char *way, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static bool fail(run *r, fz_outcome o, const char *way, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  r->out->outcome = o;
  snprintf(r->out->way, sizeof r->out->way, "%s", way);
  vsnprintf(r->out->what, sizeof r->out->what, fmt, ap);
  va_end(ap);
  return false;
}

static bool has_tolerance(const zn_graph *g, zn_vid v) { /* floats and complex numbers */
  const zn_dtype t = (zn_dtype)g->vals[v].type.dtype;
  return zn_is_float(t) || zn_dtypes[t].cls == 'C';
}

/* The coarsest default tolerance of the float types that value v is computed from, its own included: a f64 result of f16
 * operands has no more digits than they. Statistics of normalisations are f32 unless told otherwise. */
static double delta_of(const zn_graph *g, zn_arena *a, zn_vid v) {
  bool *from = ZN_ARRAY(a, bool, g->num_vals);
  double worst = 0;
  from[v] = true;
  for (uint32_t k = g->num_order; k-- > 0;) {
    const zn_node *n = &g->nodes[g->order[k]];
    bool needed = false;
    for (uint32_t i = 0; i < n->num_out; i++) needed |= n->out[i] && from[n->out[i]];
    for (uint32_t i = 0; needed && i < n->num_in; i++)
      if (n->in[i]) from[n->in[i]] = true;
    if (needed && (zn_schema_find_attr(zn_op_schema(n->op), "stash_type") || zn_node_attr(n, "softmax_precision")))
      worst = fmax(worst, zn_verify_delta(ZN_F32));
  }
  for (zn_vid x = 1; x < g->num_vals; x++)
    if (from[x] && has_tolerance(g, x))
      worst = fmax(worst, zn_verify_delta((zn_dtype)g->vals[x].type.dtype));
  return has_tolerance(g, v) ? worst : 0;
}

/* ---- the reference ---- */

static void watch(void *user, const zn_graph *g, zn_nid n, const zn_eval_val *out, uint32_t num) {
  bool *wild = user;
  (void)g, (void)n;
  for (uint32_t i = 0; i < num && !*wild; i++) {
    if (!out[i].set || out[i].kind != ZN_V_TENSOR || !zn_is_float((zn_dtype)out[i].dtype)) continue;
    double max = out[i].dtype == ZN_F16                        ? 65504
                 : out[i].dtype == ZN_F64                      ? 1e300
                 : zn_dtype_bytes((zn_dtype)out[i].dtype) == 1 ? 200
                                                               : 1e37;
    for (uint64_t k = 0; k < out[i].count; k++)
      if (!(fabs(out[i].u.f[k]) < max)) *wild = true;
  }
}

static zn_eval_val *to_eval(zn_arena *a, const zn_htensor *t, uint32_t n) {
  zn_eval_val *v = ZN_ARRAY(a, zn_eval_val, n + 1);
  for (uint32_t i = 0; i < n; i++) v[i] = zn_eval_from_htensor(a, &t[i]);
  return v;
}

static zn_status evaluate(run *r, zn_eval_mode mode, const zn_eval_val *in, zn_eval_val **out,
                          bool *wild) {
  zn_eval_tap tap = {watch, wild, 0};
  *out = ZN_ARRAY(&r->c->graph, zn_eval_val, r->g->num_outputs);
  zn_status st = zn_eval_graph(r->c, r->g, mode, &r->c->graph, in, *out, wild ? &tap : NULL);
  zn_arena_reset(&r->c->tmp);
  return st;
}

static bool one_sample(run *r, uint32_t k) {
  static const int64_t sizes[2][3] = {{3, 5, 2}, {1, 9, 4}};
  static const zn_gen_kind kinds[] = {ZN_GEN_NORMAL, ZN_GEN_NORMAL, ZN_GEN_UNIFORM, ZN_GEN_SPARSE};
  sample *s = &r->s[k];
  zn_gen_dim dims[3] = {{"N", sizes[k][0]}, {"S", sizes[k][1]}, {"T", sizes[k][2]}};
  for (uint64_t t = 0; t < 3; t++) {
    s->in = ZN_ARRAY(&r->c->graph, zn_htensor, r->g->num_inputs + 1);
    s->wild = false;
    r->first[0] = 0;
    if (r->o->given) s->in = r->o->given->in;
    else if (zn_gen_inputs(r->c, r->g, &r->c->graph, kinds[(r->seed + t) % 4], r->seed + k + 1000 * t,
                           dims, 3, s->in) != ZN_OK)
      return false;
    s->ein = to_eval(&r->c->graph, s->in, r->g->num_inputs);
    if (evaluate(r, ZN_EVAL_F64, s->ein, &s->ref, &s->wild) == ZN_OK) return true;
  }
  return false;
}

/* ---- judging ---- */

static zn_eval_val *moved_inputs(run *r, const sample *s, uint64_t x) {
  uint32_t n = r->g->num_inputs;
  zn_eval_val *out = ZN_ARRAY(&r->c->graph, zn_eval_val, n + 1);
  for (uint32_t i = 0; i < n; i++) {
    out[i] = s->ein[i];
    zn_dtype t = (zn_dtype)out[i].dtype;
    if (!zn_is_float(t) || out[i].kind != ZN_V_TENSOR) continue;
    double u = t == ZN_F16 ? 1e-3 : t == ZN_BF16 ? 8e-3 : t == ZN_F64 ? 4e-16 : 2.4e-7;
    out[i].u.f = ZN_ARRAY(&r->c->graph, double, out[i].count);
    for (uint64_t k = 0; k < out[i].count; k++) {
      x = x * 6364136223846793005u + 1442695040888963407u;
      out[i].u.f[k] = s->ein[i].u.f[k] * (1 + ((x >> 40 & 1) ? u : -u));
    }
  }
  return out;
}

/* The graph with composite operators written out, as the specification defines them by function bodies: their inner
 * tensors have types of their own, whose roundings are part of the noise; constants too (Attention casts its scale to the
 * type of Q), hence some units of play. NULL where this means something else. */
static const zn_graph *written_out(run *r, sample *s) {
  zn_graph *g;
  zn_eval_val *out;
  zn_pass_opts po = {.rewrite_limit = -1};
  bool quiet = false;
  const zn_graph *drawn = r->g;
  if (zn_graph_parse(r->c, &r->c->graph, r->zg, r->n, NULL, &g) != ZN_OK || zn_infer_graph(r->c, g) != ZN_OK ||
      zn_passes_run_named(r->c, g, "expand", &po) != ZN_OK)
    return NULL;
  r->g = g;
  bool fine = evaluate(r, ZN_EVAL_F64, s->ein, &out, &quiet) == ZN_OK;
  for (uint32_t i = 0; fine && i < drawn->num_outputs; i++) {
    zn_metric q;
    zn_metric_compare(&r->c->graph, &s->ref[i], &out[i], &q);
    fine = q.same_type && !q.nonfinite_bad && !q.unequal &&
           q.eta_max <= 8 * delta_of(drawn, &r->c->graph, drawn->outputs[i]);
  }
  r->g = drawn;
  return fine ? g : NULL;
}

/* The next noise run: float evaluations of the graph, then of the graph written out, then on inputs moved by some ulp. */
static void noise(run *r, sample *s) {
  static const zn_eval_mode modes[FLOATS] = {ZN_EVAL_F32_BLOCK8,     ZN_EVAL_F32_SEQ,        ZN_EVAL_F32_REV,
                                             ZN_EVAL_F32_RANDOM,     ZN_EVAL_F32_RANDOM + 1, ZN_EVAL_F32_RANDOM + 2,
                                             ZN_EVAL_F32_RANDOM + 3};
  uint32_t k = s->tried++, m = r->g->num_outputs;
  const zn_graph *drawn = r->g;
  bool moved = k >= 2 * FLOATS, quiet = false;
  if (!s->floor)
    s->floor = ZN_ARRAY(&r->c->graph, double, m), s->moved = ZN_ARRAY(&r->c->graph, double, m);
  if (k == FLOATS) s->expanded = written_out(r, s);
  if (k >= FLOATS && !moved && !s->expanded) return;
  zn_eval_val *out, *in = moved ? moved_inputs(r, s, k) : s->ein;
  if (k >= FLOATS && !moved) r->g = s->expanded;
  zn_status st = evaluate(r, !moved ? modes[k % FLOATS] : k % 2 ? ZN_EVAL_F64 : ZN_EVAL_F32_SEQ, in, &out, &quiet);
  r->g = drawn;
  if (st != ZN_OK) return;
  s->runs[k] = out;
  for (uint32_t i = 0; i < m; i++) {
    zn_metric q;
    zn_metric_compare(&r->c->graph, &s->ref[i], &out[i], &q);
    if (!q.same_type || q.nonfinite_bad) continue;
    if (!moved) s->floor[i] = fmax(s->floor[i], q.eta_max);
    s->moved[i] = fmax(s->moved[i], q.eta_max);
  }
}

/* Differing integers that noise changes as well. Of a tensor whose shape noise changes, everything is a tie. */
static uint64_t ties(const sample *s, uint32_t o, const zn_eval_val *got) {
  const zn_eval_val *ref = &s->ref[o];
  uint64_t n = 0;
  if (ref->kind != ZN_V_TENSOR || zn_is_float((zn_dtype)ref->dtype) || zn_dtypes[ref->dtype].cls == 'C' || ref->dtype == ZN_STR)
    return 0;
  for (uint64_t k = 0; k < ref->count; k++) {
    bool moves = false;
    if (ref->u.i[k] == got->u.i[k]) continue;
    for (uint32_t x = 0; x < NOISE; x++)
      moves |=
          s->runs[x] && (s->runs[x][o].count != ref->count || s->runs[x][o].u.i[k] != ref->u.i[k]);
    n += moves;
  }
  return n;
}

/* Does rounding noise change the number of elements (NonZero of a value near 0) or make NaN of numbers? */
static bool unstable(const sample *s, uint32_t o) {
  for (uint32_t x = 0; x < NOISE; x++) {
    if (!s->runs[x]) continue;
    const zn_eval_val *v = &s->runs[x][o], *ref = &s->ref[o];
    if (v->count != ref->count) return true;
    if (ref->kind != ZN_V_TENSOR || !zn_is_float((zn_dtype)ref->dtype)) continue;
    for (uint64_t k = 0; k < ref->count; k++)
      if (isfinite(v->u.f[k]) != isfinite(ref->u.f[k])) return true;
  }
  return false;
}

static bool fine(const zn_metric *m, double tol, uint64_t tied) {
  return m->same_type && !m->nonfinite_bad && m->unequal <= tied && m->eta_max <= tol;
}

static bool judge(run *r, const char *way, sample *s, const zn_htensor *got) {
  zn_eval_val *g = to_eval(&r->c->graph, got, r->g->num_outputs);
  for (uint32_t i = 0; i < r->g->num_outputs; i++) {
    zn_metric m;
    double delta = delta_of(r->g, &r->c->graph, r->g->outputs[i]), tol = delta;
    uint64_t tied = 0;
    zn_metric_compare(&r->c->graph, &s->ref[i], &g[i], &m);
    while (!fine(&m, tol, tied) && s->tried < NOISE) {
      noise(r, s);
      tol = fmax(delta, 4 * s->floor[i]);
      if (s->moved[i] > 100 * delta) tol = fmax(tol, 4 * s->moved[i]);
      if (m.same_type) tied = ties(s, i, &g[i]);
    }
    if (s->floor)
      tol = fmax(tol, fmax(4 * s->floor[i], s->moved[i] > 100 * delta ? 4 * s->moved[i] : 0));
    if (s->tried && m.same_type) tied = ties(s, i, &g[i]);
    if (fine(&m, tol, tied)) continue;
    if (unstable(s, i) || (s->wild && m.same_type)) continue;
    if (s->ref[i].count == 0 && g[i].count == 0)
      continue; /* scans of no iterations: nothing says their other sizes */
    const char *name = r->g->vals[r->g->outputs[i]].name;
    if (!m.same_type) return fail(r, FZ_DIFFERENT, way, "output %s: another type or shape", name);
    if (m.nonfinite_bad)
      return fail(r, FZ_DIFFERENT, way, "output %s: %llu values not finite on one side", name,
                  (unsigned long long)m.nonfinite_bad);
    if (m.unequal > tied)
      return fail(r, FZ_DIFFERENT, way, "output %s: %llu of %llu integers differ", name,
                  (unsigned long long)m.unequal, (unsigned long long)m.n);
    return fail(r, FZ_DIFFERENT, way, "output %s: eta %.3g above %.3g (floor %.2g)", name,
                m.eta_max, tol, s->floor ? s->floor[i] : 0);
  }
  return true;
}

/* What others say of the result: a difference from the reference is noted, the check goes on. */
static void hear(run *r) {
  for (uint32_t k = 0; r->o->given && k < FZ_OPINIONS; k++) {
    if (!r->o->given->want[k]) continue;
    bool agrees = judge(r, "opinion", &r->s[0], r->o->given->want[k]);
    snprintf(r->out->opinion[k], sizeof r->out->opinion[k], "%.190s", agrees ? "agrees" : r->out->what);
    r->out->outcome = FZ_SAME;
    r->out->way[0] = r->out->what[0] = 0;
  }
}

/* The reference's results beside the inputs that somebody gave. */
static void keep(run *r) {
  for (uint32_t i = 0; r->o->given && i < r->g->num_outputs; i++) {
    zn_htensor t = zn_eval_to_htensor(&r->c->graph, &r->s[0].ref[i]);
    const zn_value *v = &r->g->vals[r->g->outputs[i]];
    zn_value_settle(&t, (zn_dtype)v->type.dtype, v->type.of != 0);
    t.name = v->name;
    if (zn_pb_write(r->c, zn_arena_printf(&r->c->graph, "%s/output_%u.pb", r->o->given->dir, i), &t) != ZN_OK)
      fprintf(stderr, "%s\n", r->first);
  }
}

/* ---- running ---- */

typedef struct native {
  const zn_model *m;
  int garbage;
} native;

static int32_t call(void *user, bool plan, zn_tensor *in, zn_tensor *out, void *ws, uint64_t bytes,
                    const zn_host *host) {
  const native *n = user;
  if (plan) return n->m->plan(in, out, ws, (size_t)bytes, host);
  memset(ws, n->garbage, (size_t)bytes);
  for (uint32_t i = 0; i < n->m->num_outputs; i++)
    memset(out[i].u.data, n->garbage, (size_t)out[i].bytes);
  return n->m->run(in, out, ws, (size_t)bytes, host);
}

/* Parts of uneven size, from the back to the front. */
static void backwards(void *user, zn_kernel k, void *const *bufs, const intptr_t *ints,
                      intptr_t n) {
  uint64_t *x = user;
  for (intptr_t end = n; end > 0;) {
    *x = *x * 6364136223846793005u + 1442695040888963407u;
    intptr_t part = 1 + (intptr_t)(*x >> 33) % 3;
    intptr_t begin = end > part ? end - part : 0;
    k(bufs, ints, begin, end);
    end = begin;
  }
}

/* Of n values; lists item by item. Texts are compared by judge() alone. */
static bool same_bits(const zn_htensor *a, const zn_htensor *b, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (a[i].kind != b[i].kind || a[i].rank != b[i].rank) return false;
    if (memcmp(a[i].dims, b[i].dims, a[i].rank * sizeof a[i].dims[0])) return false;
    if (a[i].kind != ZN_V_TENSOR) {
      if (!same_bits(a[i].data, b[i].data, (uint32_t)a[i].dims[0])) return false;
    } else if (a[i].dtype != ZN_STR) {
      uint64_t bytes = zn_htensor_bytes(&a[i]);
      if (bytes && memcmp(a[i].data, b[i].data, (size_t)bytes)) return false;
    }
  }
  return true;
}

static bool run_native(run *r, const char *way, const zn_model *m) {
  for (uint32_t k = 0; k < r->samples; k++) {
    zn_htensor *a = ZN_ARRAY(&r->c->graph, zn_htensor, m->num_outputs + 1),
               *b = ZN_ARRAY(&r->c->graph, zn_htensor, m->num_outputs + 1);
    uint64_t x = r->seed;
    const zn_host host = {.user = &x, .parallel_for = backwards};
    native one = {m, 0xff}, two = {m, 0x5a};
    r->first[0] = 0;
    if (zn_exec_run_entries(r->c, &r->c->graph, "m", m->num_inputs, m->num_outputs, call, &one,
                            NULL, r->s[k].in, a) != ZN_OK)
      return fail(r, FZ_DIFFERENT, way, "run refused: %s", r->first);
    if (!judge(r, way, &r->s[k], a)) return false;
    if (zn_exec_run_entries(r->c, &r->c->graph, "m", m->num_inputs, m->num_outputs, call, &two,
                            &host, r->s[k].in, b) != ZN_OK ||
        !same_bits(a, b, m->num_outputs))
      return fail(r, FZ_DIFFERENT, way,
                  "other bits with another partition or workspace (sample %u)", k);
  }
  return true;
}

static bool compile(run *r, const char *way, const char *target, int level, zn_compiled *k,
                    const zn_target **t) {
  zn_graph *g;
  r->first[0] = 0;
  if (zn_graph_parse(r->c, &r->c->graph, r->zg, r->n, NULL, &g) != ZN_OK)
    return fail(r, FZ_DIFFERENT, "text", "does not parse: %s", r->first);
  *t = zn_target_find(target);
  zn_compile_opts co = {.model = "m",
                        .name = "m",
                        .target = *t,
                        .opt_level = level,
                        .pass = {.rewrite_limit = -1, .verify_each = true}};
  memset(k, 0, sizeof *k);
  if (zn_compile_graph(r->c, g, &co, k) == ZN_OK) return true;
  return fail(r, FZ_REFUSED, way, "%s", r->first);
}

static bool run_cpu(run *r, const char *way, int level) {
  zn_compiled k;
  const zn_target *t;
  const zn_model *m;
  const char *why = NULL;
  if (!compile(r, way, "cpu", level, &k, &t)) return false;
  const char *obj = zn_arena_printf(&r->c->graph, "%s/%d.o", r->o->dir, (int)getpid());
  zn_llvm_opts e = {.out = obj, .opt_level = level};
  if (zn_llvm_emit(r->c, k.mod, &k.caps, &e) != ZN_OK)
    return fail(r, FZ_DIFFERENT, way, "no object: %s", r->first);
  fz_jit *j = fz_jit_load(obj, "m", &m, &why);
  unlink(obj);
  if (!j) return fail(r, FZ_DIFFERENT, way, "does not load: %s", why);
  bool ok = run_native(r, way, m);
  fz_jit_close(j);
  return ok;
}

static bool run_target(run *r, const char *way, const char *target, int level) {
  zn_compiled k;
  const zn_target *t;
  zn_exec *exec;
  if (!compile(r, way, target, level, &k, &t)) return false;
  const char *file =
      zn_arena_printf(&r->c->graph, "%s/%d%s", r->o->dir, (int)getpid(), t->suffixes[0]);
  bool built = strcmp(target, "interp") != 0;
  zn_build_opts b = {.out = file, .opt_level = level};
  zn_status st = built ? t->build(r->c, k.mod, &k.caps, &b) : ZN_OK;
  if (st == ZN_OK) st = t->load(r->c, k.mod, file, &exec);
  if (built)
    unlink(file), unlink(zn_arena_printf(&r->c->graph, "%s/%d.h", r->o->dir, (int)getpid()));
  if (st != ZN_OK) return fail(r, FZ_DIFFERENT, way, "does not build: %s", r->first);
  for (uint32_t s = 0; s < r->samples; s++) {
    zn_htensor *out = ZN_ARRAY(&r->c->graph, zn_htensor, r->g->num_outputs + 1);
    r->first[0] = 0;
    if (t->run(r->c, exec, &r->c->graph, r->s[s].in, out) != ZN_OK)
      return fail(r, FZ_DIFFERENT, way, "run refused: %s", r->first);
    if (!judge(r, way, &r->s[s], out)) return false;
  }
  return true;
}

static bool text_holds(run *r) {
  zn_graph *g;
  size_t n;
  if (zn_graph_parse(r->c, &r->c->graph, r->zg, r->n, NULL, &g) != ZN_OK)
    return fail(r, FZ_DIFFERENT, "text", "does not parse: %s", r->first);
  const char *again = fz_print(g, &r->c->graph, &n);
  r->g = g;
  return (n == r->n && !memcmp(again, r->zg, n)) ||
         fail(r, FZ_DIFFERENT, "text", "prints differently once read");
}

static bool symbolic(const zn_graph *g) {
  int64_t d[ZN_MAX_RANK];
  for (uint32_t i = 0; i < g->num_inputs; i++)
    if (!zn_type_is_static(g->ex, &g->vals[g->inputs[i]].type, d)) return true;
  return false;
}

void fz_check(const char *zg, size_t n, uint64_t seed, const fz_opts *o, fz_result *out,
              void (*stage)(const char *way)) {
  static const struct way {
    const char *name, *target;
    int level;
  } ways[] = {{"interp-O2", "interp", 2}, {"cpu-O3", "cpu", 3},       {"cpu-O0", "cpu", 0},
              {"cpu-O2", "cpu", 2},       {"interp-O0", "interp", 0}, {"c-O2", "c", 2}};
  zn_ctx c;
  zn_ctx_init(&c);
  c.verbosity = -1;
  run r = {.c = &c, .zg = zg, .n = n, .seed = seed, .o = o, .out = out};
  c.sink = collect;
  c.sink_user = &r;
  memset(out, 0, sizeof *out);
  stage("reference");
  if (text_holds(&r)) {
    for (uint32_t want = symbolic(r.g) && !o->given ? 2 : 1; r.samples < want; r.samples++)
      if (!one_sample(&r, r.samples)) break;
    if (r.samples) hear(&r), keep(&r);
    if (!r.samples) fail(&r, FZ_UNDEFINED, "reference", "%s", r.first);
    for (size_t k = 0; r.samples && k < sizeof ways / sizeof ways[0]; k++) {
      const struct way *w = &ways[k];
      if ((o->only && !(o->only >> k & 1)) || (!o->use_c && !strcmp(w->target, "c"))) continue;
      if (!o->only && w->level == 2 && !strcmp(w->target, "cpu") && seed % 4)
        continue; /* O3 and O0 differ more */
      stage(w->name);
      if (!(strcmp(w->target, "cpu") ? run_target(&r, w->name, w->target, w->level)
                                     : run_cpu(&r, w->name, w->level)))
        break;
    }
  }
  zn_ctx_fini(&c);
}
