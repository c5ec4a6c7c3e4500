/* Runs the artifact and the evaluator on the same inputs and judges the distance. The noise floor (three plain float
 * evaluations of the unoptimised graph) is computed only when the strict threshold is missed. */
#include "zenithc/driver/verify.h"

#include <inttypes.h>
#include <math.h>
#include <unistd.h>

#include "zenithc/ops/op.h"

enum { MAX_TRIES = 4 };

const char *zn_verdict_name(zn_verdict v) {
  static const char *const names[] = {"unchecked", "pass", "fail", "infeasible", "unable"};
  return names[v];
}

double zn_verify_delta(zn_dtype t) {
  switch (t) {
    case ZN_F32:
    case ZN_C64: return 1e-6;
    case ZN_F64:
    case ZN_C128: return 1e-12;
    case ZN_F16: return 1e-3;
    case ZN_BF16: return 8e-3;
    case ZN_F8E4M3FN:
    case ZN_F8E4M3FNUZ: return 0.13;
    case ZN_F8E5M2:
    case ZN_F8E5M2FNUZ: return 0.25;
    default: return zn_is_float(t) ? 0.5 : 0;
  }
}

static void progress(const zn_verify *v, const char *what) {
  if (isatty(2) && !zn_opt_given(v->o, ZN_O_quiet)) fprintf(stderr, "\r\033[K%s", what);
}

static bool finite_all(const zn_eval_val *v, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (v[i].kind == ZN_V_TENSOR && zn_is_float((zn_dtype)v[i].dtype))
      for (uint64_t k = 0; k < v[i].count; k++)
        if (!isfinite(v[i].u.f[k])) return false;
  return true;
}

static zn_eval_val *to_eval(zn_arena *a, const zn_htensor *in, uint32_t n) {
  zn_eval_val *v = ZN_ARRAY(a, zn_eval_val, n);
  for (uint32_t i = 0; i < n; i++) v[i] = zn_eval_from_htensor(a, &in[i]);
  return v;
}

static void quiet_sink(void *user, zn_severity sev, const char *line) {
  (void)user;
  (void)sev;
  (void)line;
}

static zn_status evaluate(zn_verify *v, zn_eval_mode mode, zn_arena *a, const zn_eval_val *in, zn_eval_val *out,
                          bool quiet) {
  zn_sink sink = v->c->sink;
  unsigned errors = v->c->errors;
  if (quiet) v->c->sink = quiet_sink;
  zn_status st = zn_eval_graph(v->c, v->ref, mode, a, in, out, NULL);
  v->c->sink = sink;
  if (quiet) v->c->errors = errors;
  zn_arena_reset(&v->c->tmp);
  return st;
}

/* ONNX's convention: MODEL's folder may hold test_data_set_0/input_N.pb. False when it does not, or they do not fit. */
static bool stored_inputs(zn_verify *v, zn_htensor *in) {
  const char *base = v->model ? zn_base_name(v->model) : "";
  const int dir = v->model ? (int)(base - v->model) : 0;
  bool all = v->model != NULL && !v->o->val[ZN_O_input].n;
  zn_sink sink = v->c->sink;
  const unsigned errors = v->c->errors;
  v->c->sink = quiet_sink;
  for (uint32_t i = 0; i < v->s->num_in && all; i++) {
    const zn_kio *io = &v->s->in[i];
    const char *path = zn_arena_printf(&v->c->graph, "%.*stest_data_set_0/input_%u.pb", dir, v->model, i);
    all = zn_file_size(path) >= 0 &&
          zn_value_read(v->c, &v->c->graph, path, io->name, zn_kio_vkind(io), &in[i]) == ZN_OK;
    if (!all) break;
    zn_value_settle(&in[i], io->dtype, zn_kio_of(io));
    all = zn_value_fits(v->c, io, &in[i]) == ZN_OK;
    in[i].name = io->name;
  }
  v->c->sink = sink;
  v->c->errors = errors;
  return all;
}

/* Do the results have the ranks that the artifact promises? Branches may give others, which it refuses. */
static bool ranks_fit(const zn_verify *v, const zn_eval_val *out) {
  for (uint32_t i = 0; i < v->s->num_out; i++)
    if (out[i].kind == ZN_V_TENSOR && !v->s->out[i].kind && out[i].rank != v->s->out[i].rank) return false;
  return true;
}

/* Inputs on which the reference is defined, and preferably finite: other seeds are tried, then larger sizes, as a model may
 * need more samples than the generator's small ones, then sizes of one, then what is stored beside the model: some models take
 * one length only. What is wrong is said for small sizes. */
static zn_status reference(zn_verify *v, zn_arena *a, uint32_t sample, zn_eval_val **out_in, zn_eval_val **out_ref) {
  zn_status st = ZN_OK;
  *out_ref = ZN_ARRAY(a, zn_eval_val, v->s->num_out);
  enum { LARGER = MAX_TRIES, LARGEST, ONES, STORED, SMALL, ALL };
  for (uint32_t k = 0; k < ALL; k++) {
    uint64_t seed = v->seed + sample + 1000003u * (k % MAX_TRIES);
    if (k == STORED) {
      if (!stored_inputs(v, v->in)) continue;
    } else {
      const int64_t grow = k == LARGER ? -8 : k == LARGEST ? -64 : k == ONES ? 1 : 0;
      ZN_TRY(zn_inputs_make(v->c, v->o, &v->c->graph, v->s->in, v->s->num_in, v->ref, seed, grow, &v->in));
    }
    *out_in = to_eval(a, v->in, v->s->num_in);
    double t0 = zn_now();
    st = evaluate(v, ZN_EVAL_F64, a, *out_in, *out_ref, k + 1 < ALL);
    v->seconds_ref += zn_now() - t0;
    if (st != ZN_OK || !ranks_fit(v, *out_ref)) continue;
    if (finite_all(*out_ref, v->s->num_out) || k + 1 >= MAX_TRIES) return ZN_OK;
  }
  if (st != ZN_OK) return st;
  zn_fail(v->c, ZN_ERR_MODEL, NULL, "no generated input gives the outputs the ranks that the model declares");
  zn_help(v->c, "give an input that does with --input, or the size that decides with --dim");
  return ZN_ERR_MODEL;
}

/* ---- noise: what rounding alone does to the reference ---- */

enum { FLOAT_RUNS = 5, NOISE_RUNS = 7 };
typedef struct noise {
  /* three float orders, two with random rounding, two with inputs moved by a few ulp; NULL: failed */
  zn_eval_val *runs[NOISE_RUNS];
  uint32_t tried;
  double *floor;        /* per output, over the float runs so far */
  double *moved;        /* per output, over all runs so far */
} noise;

static zn_eval_val *moved_inputs(zn_arena *a, const zn_eval_val *in, uint32_t n, uint64_t s) {
  zn_eval_val *out = ZN_ARRAY(a, zn_eval_val, n);
  for (uint32_t i = 0; i < n; i++) {
    out[i] = in[i];
    if (in[i].kind != ZN_V_TENSOR || !zn_is_float((zn_dtype)in[i].dtype)) continue;
    out[i].u.f = ZN_ARRAY(a, double, in[i].count);
    for (uint64_t k = 0; k < in[i].count; k++) {
      s = s * 6364136223846793005u + 1442695040888963407u;
      out[i].u.f[k] = in[i].u.f[k] * (1 + ((s >> 40 & 1) ? 2.4e-7 : -2.4e-7));
    }
  }
  return out;
}

/* The next noise run: each one costs an evaluation of the model, so they are made one by one, as needed. */
static void noise_run(zn_verify *v, zn_arena *a, const zn_eval_val *in, const zn_eval_val *ref, noise *z) {
  static const zn_eval_mode modes[FLOAT_RUNS] = {ZN_EVAL_F32_BLOCK8, ZN_EVAL_F32_SEQ, ZN_EVAL_F32_REV,
                                                 ZN_EVAL_F32_RANDOM, ZN_EVAL_F32_RANDOM + 1};
  uint32_t m = v->s->num_out, r = z->tried++;
  progress(v, "measuring the model's noise floor");
  zn_eval_val *out = ZN_ARRAY(a, zn_eval_val, m);
  const zn_eval_val *x = r < FLOAT_RUNS ? in : moved_inputs(a, in, v->s->num_in, r);
  if (evaluate(v, r < FLOAT_RUNS ? modes[r] : ZN_EVAL_F64, a, x, out, true) != ZN_OK) return;
  z->runs[r] = out;
  for (uint32_t i = 0; i < m; i++) {
    zn_metric q;
    zn_metric_compare(a, &ref[i], &out[i], &q);
    if (!q.same_type || q.nonfinite_bad) continue;
    if (r < FLOAT_RUNS) z->floor[i] = fmax(z->floor[i], q.eta_max);
    z->moved[i] = fmax(z->moved[i], q.eta_max);
  }
}

/* How many differing integers are ties: elements that some noise run changes as well. */
static uint64_t count_ties(const noise *z, uint32_t o, const zn_eval_val *ref, const zn_eval_val *got) {
  uint64_t ties = 0;
  if (ref->kind != ZN_V_TENSOR || ref->dtype == ZN_STR || zn_is_float((zn_dtype)ref->dtype)) return 0;
  for (uint64_t k = 0; k < ref->count; k++) {
    bool moves = false;
    if (ref->u.i[k] == got->u.i[k]) continue;
    for (uint32_t r = 0; r < NOISE_RUNS; r++) {
      const zn_eval_val *x = z->runs[r] ? &z->runs[r][o] : NULL;
      moves = moves || (x && (x->count != ref->count || x->u.i[k] != ref->u.i[k]));
    }
    ties += moves;
  }
  return ties;
}

/* ---- judging ---- */

static bool fine(const zn_metric *m, double tol, uint64_t ties) {
  return m->same_type && !m->nonfinite_bad && m->unequal <= ties && m->eta_max <= tol;
}

static void keep_worst(zn_voutput *o, const zn_metric *m, bool pass, double tol) {
  bool worse = !o->m.same_type || (o->pass && !pass) || (o->pass == pass && m->eta_max > o->m.eta_max);
  if (o->tolerance == 0 && o->pass && !o->m.n) worse = true;
  if (worse) o->m = *m, o->tolerance = tol;
  o->pass = o->pass && pass;
}

/* Threshold of output i with the noise known so far. */
static double threshold(const zn_verify *v, const noise *z, uint32_t i, double eta) {
  double delta = zn_verify_delta(v->out[i].dtype), tol;
  if (v->user_tol >= 0) return v->user_tol;
  tol = fmax(delta, 4 * z->floor[i]);
  /* a discontinuous operator: rounding noise moves the reference itself by more than rounding */
  if (eta > tol && z->moved[i] > 100 * delta) tol = fmax(tol, 4 * z->moved[i]);
  return tol;
}

static void judge(zn_verify *v, zn_arena *a, const zn_eval_val *in, const zn_eval_val *ref, const zn_eval_val *got) {
  noise z = {.floor = ZN_ARRAY(a, double, v->num_out), .moved = ZN_ARRAY(a, double, v->num_out)};
  for (uint32_t i = 0; i < v->num_out; i++) {
    zn_voutput *o = &v->out[i];
    zn_metric m;
    zn_metric_compare(a, &ref[i], &got[i], &m);
    uint64_t ties = 0;
    double tol = threshold(v, &z, i, m.eta_max);
    bool hopeless = !m.same_type || m.nonfinite_bad;
    while (!fine(&m, tol, ties) && z.tried < NOISE_RUNS && !hopeless) {
      noise_run(v, a, in, ref, &z);
      tol = threshold(v, &z, i, m.eta_max);
      ties = count_ties(&z, i, &ref[i], &got[i]);
    }
    if (z.tried) o->floor = fmax(o->floor, z.floor[i]);
    o->ties += ties;
    keep_worst(o, &m, fine(&m, tol, ties), tol);
  }
}

static zn_status one_sample(zn_verify *v, uint32_t sample) {
  zn_arena a;
  zn_arena_init(&a, "verify");
  a.oom = v->c->graph.oom;
  a.oom_user = v->c->graph.oom_user;
  zn_eval_val *in, *ref;
  progress(v, "evaluating the reference");
  zn_status st = reference(v, &a, sample, &in, &ref);
  if (st != ZN_OK) {
    v->verdict = ZN_VERDICT_UNABLE;
    zn_arena_reset(&a);
    return st;
  }
  progress(v, "running the artifact");
  zn_htensor *out = ZN_ARRAY(&a, zn_htensor, v->num_out);
  double t0 = zn_now();
  st = v->s->target->run(v->c, v->s->exec, &a, v->in, out);
  v->seconds_run += zn_now() - t0;
  if (st == ZN_OK) judge(v, &a, in, ref, to_eval(&a, out, v->num_out));
  else v->verdict = ZN_VERDICT_FAIL;
  zn_arena_reset(&a);
  return st;
}

zn_status zn_verify_run(zn_verify *v) {
  v->verdict = ZN_VERDICT_NONE;
  v->num_out = v->s->num_out;
  v->out = ZN_ARRAY(&v->c->graph, zn_voutput, v->num_out);
  for (uint32_t i = 0; i < v->num_out; i++)
    v->out[i] = (zn_voutput){.name = v->s->out[i].name, .dtype = v->s->out[i].dtype, .floor = -1, .pass = true};
  if (v->ref->num_inputs != v->s->num_in || v->ref->num_outputs != v->s->num_out) {
    v->verdict = ZN_VERDICT_UNABLE;
    return zn_error(v->c, NULL, "the reference model has %u inputs and %u outputs, the artifact %u and %u",
                    v->ref->num_inputs, v->ref->num_outputs, v->s->num_in, v->s->num_out);
  }
  zn_status st = ZN_OK;
  for (uint32_t k = 0; k < v->samples && st == ZN_OK; k++) {
    st = one_sample(v, k);
    bool all = st == ZN_OK;
    for (uint32_t i = 0; i < v->num_out; i++) all = all && v->out[i].pass;
    v->samples_done = k + 1;
    if (!all) break;
  }
  progress(v, "");
  if (st != ZN_OK) return st;
  v->verdict = ZN_VERDICT_PASS;
  for (uint32_t i = 0; i < v->num_out; i++) {
    const zn_voutput *o = &v->out[i];
    if (o->pass) continue;
    bool below = v->user_tol >= 0 && o->m.same_type && !o->m.nonfinite_bad && !o->m.unequal && v->user_tol < o->floor;
    if (!below) v->verdict = ZN_VERDICT_FAIL;
    else if (v->verdict == ZN_VERDICT_PASS) v->verdict = ZN_VERDICT_INFEASIBLE;
  }
  return ZN_OK;
}

/* ---- words ---- */

void zn_verify_explain(const zn_verify *v) {
  zn_ctx *c = v->c;
  for (uint32_t i = 0; i < v->num_out; i++) {
    const zn_voutput *o = &v->out[i];
    const char *where = zn_arena_printf(&c->graph, "output '%s'", o->name);
    if (o->pass) continue;
    if (!o->m.same_type) {
      zn_error(c, where, "its type or shape differs from the reference's");
    } else if (o->m.nonfinite_bad) {
      zn_error(c, where, "%" PRIu64 " values are infinite or NaN on one side only", o->m.nonfinite_bad);
    } else if (o->m.unequal > o->ties) {
      zn_error(c, where, "%" PRIu64 " of %" PRIu64 " values differ from the reference (largest difference %g)",
               o->m.unequal, o->m.n, o->m.int_max);
    } else if (v->user_tol >= 0 && v->user_tol < o->floor) {
      zn_error(c, where, "--tolerance=%g is infeasible: this model's own noise floor is %.2g", v->user_tol, o->floor);
      zn_help(c, "the smallest tolerance this artifact meets is %.2g", o->m.eta_max);
    } else {
      zn_error(c, where, "error eta %.3g exceeds the tolerance %.3g", o->m.eta_max, o->tolerance);
      if (o->floor >= 0) zn_note(c, "the model's noise floor is %.3g", o->floor);
    }
  }
  if (v->drift) zn_note(c, "%s", v->drift);
}

const char *zn_verify_summary(zn_arena *a, const zn_verify *v) {
  double worst = 0, tol = 0;
  for (uint32_t i = 0; i < v->num_out; i++)
    if (v->out[i].m.eta_max >= worst) worst = v->out[i].m.eta_max, tol = v->out[i].tolerance;
  return zn_arena_printf(a, "eta %.2g (tolerance %.2g)", worst, tol);
}
