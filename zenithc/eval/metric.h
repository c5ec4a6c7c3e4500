/* How far apart two outputs are: the error metric of docs/NUMERICS.md, and the model's own noise
 * floor. eta = max_i |y'_i - y_i| / (|y_i| + s),  s = RMS(y); when max|y| / RMS > 50, s per channel
 * and outlier_scaled set (channel: axis 1 from rank 3 on, else the last axis). Equal NaNs and equal
 * infinities agree; any other mismatch of non-finite values fails whatever the tolerance. Integers,
 * bool and strings must be equal. */
#ifndef ZN_METRIC_H
#define ZN_METRIC_H
#include "zenithc/eval/eval.h"

typedef struct zn_metric {
  bool same_type; /* kind, dtype class and shape agree; nothing else is set when not */
  bool outlier_scaled;
  uint64_t n;             /* elements compared */
  uint64_t nonfinite_bad; /* NaN or Inf on one side only, or infinities of different sign */
  uint64_t unequal;       /* integers, bool, strings that differ */
  double int_max;         /* largest difference of integers */
  double eta_max, eta_p50, eta_p999;
  double rms;     /* of the reference */
  double sqnr_db; /* inf when equal */
  double cosine;
  double rel_max; /* elementwise |y'-y| / |y|, over y != 0 */
  double abs_max;
  double rel_tensor;         /* max |y'-y| / max |y| */
  uint64_t rows, top1, top5; /* last axis of 2 or more: rows whose top entries agree (top5: top-1 of
                                y in top-5 of y') */
} zn_metric;

/* Tensors, or sequences and maps of them (then the worst over all items). Scratch from a. */
void zn_metric_compare(zn_arena *a, const zn_eval_val *ref, const zn_eval_val *got, zn_metric *out);
/* The verdict at tolerance tol. */
static inline bool zn_metric_pass(const zn_metric *m, double tol) {
  return m->same_type && !m->nonfinite_bad && !m->unequal && m->eta_max <= tol;
}
/* numpy.allclose with NaN equal: |got - ref| <= atol + rtol |ref|; integers and strings exactly. */
bool zn_metric_allclose(const zn_eval_val *ref, const zn_eval_val *got, double rtol, double atol);
/* Noise floor of each output: the largest eta of the three F32 orders against F64 on these inputs.
 * ref: optional, receives the F64 outputs (g->num_outputs, from a). */
zn_status zn_metric_floor(zn_ctx *c, const zn_graph *g, zn_arena *a, const zn_eval_val *in,
                          double *out_floor, zn_eval_val *ref);
#endif
