/* Comparing a runnable artifact with the reference evaluator on the unoptimised model: the metric, thresholds and
 * exit codes of docs/NUMERICS.md. */
#ifndef ZN_VERIFY_H
#define ZN_VERIFY_H
#include "zenithc/driver/tools.h"
#include "zenithc/eval/metric.h"

typedef enum zn_verdict {
  ZN_VERDICT_NONE,       /* not compared */
  ZN_VERDICT_PASS,
  ZN_VERDICT_FAIL,       /* a tolerance is exceeded */
  ZN_VERDICT_INFEASIBLE, /* the tolerance asked for is below the noise floor */
  ZN_VERDICT_UNABLE      /* the reference cannot run */
} zn_verdict;
const char *zn_verdict_name(zn_verdict v);

typedef struct zn_voutput {
  const char *name;
  zn_dtype dtype;
  zn_metric m;      /* of the worst sample */
  double tolerance; /* that was applied */
  double floor;     /* of this output; < 0: not needed */
  uint64_t ties;    /* differing integers that rounding noise flips in the reference as well */
  bool pass;
} zn_voutput;

typedef struct zn_verify {
  /* given */
  zn_ctx *c;
  const zn_opts *o;
  zn_session *s;        /* runs the artifact */
  const char *model;    /* its file: data sets beside it are used where generated inputs do not fit it */
  const zn_graph *ref;  /* unoptimised */
  double user_tol;      /* < 0: the default */
  uint32_t samples;
  uint64_t seed;
  /* found */
  zn_verdict verdict;
  zn_voutput *out;
  uint32_t num_out;
  uint32_t samples_done;
  zn_htensor *in;       /* inputs of the sample that failed, else of the last; in c->graph */
  double seconds_ref, seconds_run;
  const char *drift;    /* "node 'conv1' (Conv): local error ...", or NULL */
} zn_verify;

/* ZN_OK when a verdict was reached, FAIL and INFEASIBLE included. */
zn_status zn_verify_run(zn_verify *v);
/* After FAIL: names the first node whose result is wrong given its own inputs, from a compilation that keeps every
 * intermediate value; v->drift. The model is compiled anew with the options of o for target t. */
void zn_verify_localise(zn_verify *v, const zn_compile_opts *co, const zn_target *t);
/* Reports as diagnostics what failed. */
void zn_verify_explain(const zn_verify *v);
/* "eta 7.1e-07 (tolerance 1e-06)" */
const char *zn_verify_summary(zn_arena *a, const zn_verify *v);
/* Default tolerance of outputs of type t. */
double zn_verify_delta(zn_dtype t);
#endif
