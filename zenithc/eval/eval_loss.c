/* Losses, optimisers, dropout and the random operators (zenithc/ops/random.h says which numbers they draw). */
#include "zenithc/eval/eval_impl.h"

/* loss[N, d...] = -weight[t] * logp[N, t, d...], then reduced. */
static zn_status nll(zn_ev *e, const zn_eval_val *x, const double *logp, const zn_eval_val *target,
                     const zn_eval_val *weight) {
  if (x->rank < 2 || target->rank + 1 != x->rank)
    return zn_ev_fail(e, "scores have rank %u, labels %u", x->rank, target->rank);
  uint64_t N, C, inner;
  zn_ev_split(x, 1, &N, &C, &inner);
  if (target->count != N * inner || (weight && weight->count != C))
    return zn_ev_fail(e, "labels or weights do not fit the scores");
  const zn_attr *ig = zn_node_attr(e->n, "ignore_index");
  const char *red = zn_node_str(e->n, "reduction");
  double *loss = ZN_ARRAY(e->tmp, double, N *inner + 1),
         *ws = ZN_ARRAY(e->tmp, double, N *inner + 1);
  for (uint64_t k = 0; k < N * inner; k++) {
    int64_t t = target->u.i[k];
    if (ig && t == ig->u.i) continue; /* loss and weight stay 0 */
    if (t < 0 || t >= (int64_t)C)
      return zn_ev_fail(e, "label %lld is outside %llu classes", (long long)t,
                        (unsigned long long)C);
    ws[k] = weight ? weight->u.f[t] : 1;
    loss[k] = zn_ev_r(e, -logp[(k / inner * C + (uint64_t)t) * inner + k % inner] * ws[k]);
  }
  if (red[0] == 'n') {
    ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, target->rank, target->dims));
    memcpy(e->out[0].u.f, loss, N * inner * sizeof *loss);
    return ZN_OK;
  }
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, 0, NULL));
  double s = zn_ev_sum(e, loss, N * inner, 1);
  e->out[0].u.f[0] = red[0] == 's' ? s : zn_ev_r(e, s / zn_ev_sum(e, ws, N * inner, 1));
  return ZN_OK;
}

zn_status zn_eval_negativeloglikelihoodloss(zn_ev *e) {
  return nll(e, e->in[0], e->in[0]->u.f, e->in[1], zn_ev_in(e, 2));
}

zn_status zn_eval_softmaxcrossentropyloss(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  if (x->rank < 2) return zn_ev_fail(e, "scores have rank %u", x->rank);
  uint64_t N, C, inner;
  zn_ev_split(x, 1, &N, &C, &inner);
  double *lp = ZN_ARRAY(e->tmp, double, x->count + 1), *t = ZN_ARRAY(e->tmp, double, C + 1);
  for (uint64_t o = 0; o < N * inner; o++) {
    uint64_t base = o / inner * C * inner + o % inner;
    for (uint64_t c = 0; c < C; c++) t[c] = x->u.f[base + c * inner];
    zn_ev_softmax(e, t, C, true);
    for (uint64_t c = 0; c < C; c++) lp[base + c * inner] = t[c];
  }
  if (zn_ev_wants(e, 1)) {
    ZN_TRY(zn_ev_out(e, 1, (zn_dtype)x->dtype, x->rank, x->dims));
    memcpy(e->out[1].u.f, lp, x->count * sizeof *lp);
  }
  return nll(e, x, lp, e->in[1], zn_ev_in(e, 2));
}

/* ---- optimisers: one parameter tensor ---- */
typedef struct opt {
  double r, t, norm, post, alpha, beta, eps, decay;
  bool nesterov;
} opt;

static void step_adagrad(const zn_ev *e, const opt *o, double x, double g, double *nx, double *h) {
  double r = o->r / (1 + o->t * o->decay), gr = zn_ev_r(e, o->norm * x + g);
  *h = zn_ev_r(e, *h + gr * gr);
  *nx = zn_ev_r(e, x - r * gr / (sqrt(*h) + o->eps));
}

static void step_adam(const zn_ev *e, const opt *o, double x, double g, double *nx, double *v,
                      double *h) {
  double gr = zn_ev_r(e, o->norm * x + g), r = o->r;
  *v = zn_ev_r(e, o->alpha * *v + (1 - o->alpha) * gr);
  *h = zn_ev_r(e, o->beta * *h + (1 - o->beta) * gr * gr);
  if (o->t > 0) r = r * sqrt(1 - pow(o->beta, o->t)) / (1 - pow(o->alpha, o->t));
  *nx = zn_ev_r(e, (1 - o->post) * (x - r * (*v / (sqrt(*h) + o->eps))));
}

static void step_momentum(const zn_ev *e, const opt *o, double x, double g, double *nx, double *v) {
  double gr = zn_ev_r(e, o->norm * x + g), b = o->t > 0 ? o->beta : 1;
  *v = zn_ev_r(e, o->alpha * *v + b * gr);
  *nx = zn_ev_r(e, x - o->r * (o->nesterov ? gr + o->alpha * *v : *v));
}

/* Inputs R, T, then n parameters, n gradients, n states (Adam: 2n); outputs: new parameters, new
 * states. */
zn_status zn_eval_train(zn_ev *e) {
  bool adam = e->op == ZN_OP_Adam, mom = e->op == ZN_OP_Momentum;
  uint32_t groups = adam ? 4 : 3, n = e->num_in < 2 ? 0 : (e->num_in - 2) / groups;
  if (n == 0 || e->num_in != 2 + groups * n || e->num_out != (groups - 1) * n)
    return zn_ev_fail(e, "inputs do not come in groups of %u", groups);
  opt o = {.r = zn_ev_get(e->in[0], 0),
           .t = zn_ev_get(e->in[1], 0),
           .norm = zn_node_float(e->n, "norm_coefficient")};
  if (adam || mom) {
    o.alpha = zn_node_float(e->n, "alpha");
    o.beta = zn_node_float(e->n, "beta");
  }
  if (adam) o.post = zn_node_float(e->n, "norm_coefficient_post");
  if (!mom) o.eps = zn_node_float(e->n, "epsilon");
  if (!adam && !mom) o.decay = zn_node_float(e->n, "decay_factor");
  if (mom) o.nesterov = strcmp(zn_node_str(e->n, "mode"), "nesterov") == 0;
  for (uint32_t i = 0; i < n; i++) {
    const zn_eval_val *x = e->in[2 + i], *g = e->in[2 + n + i], *s = e->in[2 + 2 * n + i],
                      *h = adam ? e->in[2 + 3 * n + i] : s;
    if (g->count != x->count || s->count != x->count || h->count != x->count)
      return zn_ev_fail(e, "parameter %u and its state differ in shape", i + 1);
    for (uint32_t k = 0; k < groups - 1; k++)
      ZN_TRY(zn_ev_out(e, k * n + i, (zn_dtype)x->dtype, x->rank, x->dims));
    for (uint64_t k = 0; k < x->count; k++) {
      double nx, a = s->u.f[k], b = h->u.f[k];
      if (adam) step_adam(e, &o, x->u.f[k], g->u.f[k], &nx, &a, &b);
      else if (mom) step_momentum(e, &o, x->u.f[k], g->u.f[k], &nx, &a);
      else step_adagrad(e, &o, x->u.f[k], g->u.f[k], &nx, &a);
      e->out[i].u.f[k] = nx;
      e->out[n + i].u.f[k] = a;
      if (adam) e->out[2 * n + i].u.f[k] = b;
    }
  }
  return ZN_OK;
}

/* Readers write Gradient out (ops/grad.h); a node that remains names tensors that may no longer exist. */
zn_status zn_eval_gradient(zn_ev *e) {
  if (e->run->quiet) return ZN_ERR_UNSUPPORTED;
  return zn_fail(
      e->c, ZN_ERR_UNSUPPORTED, zn_node_where(e->c, e->n),
      "Gradient refers to a graph by the names of its tensors and cannot be evaluated as a node");
}

/* ---- dropout and random numbers ---- */
zn_status zn_eval_dropout(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *rv = zn_ev_in(e, 1), *tv = zn_ev_in(e, 2);
  double ratio = rv && rv->count ? rv->u.f[0] : 0.5;
  bool train = tv && tv->count && tv->u.i[0] && ratio > 0;
  if (zn_ev_wants(e, 1)) ZN_TRY(zn_ev_out(e, 1, ZN_BOOL, x->rank, x->dims));
  if (!train) {
    e->out[0] = zn_ev_share(x);
    for (uint64_t k = 0; zn_ev_wants(e, 1) && k < x->count; k++) e->out[1].u.i[k] = 1;
    return ZN_OK;
  }
  if (!(ratio < 1)) return zn_ev_fail(e, "ratio %g is not below 1", ratio);
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  uint64_t state = zn_ev_seed(e);
  for (uint64_t k = 0; k < x->count; k++) {
    bool keep = zn_ev_uniform(&state) >= ratio;
    e->out[0].u.f[k] = keep ? zn_ev_r(e, x->u.f[k] / (1 - ratio)) : 0;
    if (zn_ev_wants(e, 1)) e->out[1].u.i[k] = keep;
  }
  return ZN_OK;
}

zn_status zn_eval_random(zn_ev *e) {
  const zn_eval_val *x = zn_ev_in(e, 0);
  const zn_attr *dt = zn_node_attr(e->n, "dtype");
  bool like = e->num_in > 0;
  zn_dtype t = dt                                    ? zn_dtype_from_onnx((int)dt->u.i)
               : like && zn_op_schema(e->op)->num_in ? (zn_dtype)x->dtype
                                                     : ZN_F32;
  int64_t dims[ZN_MAX_RANK];
  uint32_t rank = 0;
  if (like) {
    rank = x->rank;
    memcpy(dims, x->dims, sizeof dims);
  } else {
    const int64_t *shape = zn_node_ints(e->n, "shape", &rank);
    if (rank > ZN_MAX_RANK) return zn_ev_fail(e, "rank %u exceeds %d", rank, ZN_MAX_RANK);
    for (uint32_t d = 0; d < rank; d++) dims[d] = shape[d];
  }
  ZN_TRY(zn_ev_out(e, 0, t, rank, dims));
  bool normal = e->op == ZN_OP_RandomNormal || e->op == ZN_OP_RandomNormalLike,
       bern = e->op == ZN_OP_Bernoulli;
  double a = bern ? 0 : zn_node_float(e->n, normal ? "mean" : "low"),
         b = bern ? 1 : zn_node_float(e->n, normal ? "scale" : "high");
  uint64_t state = zn_ev_seed(e);
  for (uint64_t k = 0; k < e->out[0].count; k++) {
    double v = bern     ? zn_ev_uniform(&state) < x->u.f[k]
               : normal ? a + b * zn_ev_normal(&state)
                        : a + (b - a) * zn_ev_uniform(&state);
    zn_ev_set(&e->out[0], k, v);
  }
  return ZN_OK;
}

/* Rows of unnormalised log probabilities. */
zn_status zn_eval_multinomial(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  int64_t n = zn_node_int(e->n, "sample_size");
  if (x->rank != 2 || n < 0) return zn_ev_fail(e, "input must have rank 2");
  int64_t dims[2] = {x->dims[0], n}, C = x->dims[1];
  ZN_TRY(zn_ev_out(e, 0, zn_dtype_from_onnx((int)zn_node_int(e->n, "dtype")), 2, dims));
  double *p = ZN_ARRAY(e->tmp, double, C + 1);
  uint64_t state = zn_ev_seed(e);
  for (int64_t r = 0; r < dims[0]; r++) {
    memcpy(p, x->u.f + r * C, (size_t)C * sizeof *p);
    zn_ev_softmax(e, p, (uint64_t)C, false);
    for (int64_t k = 0; k < n; k++) {
      double u = zn_ev_uniform(&state), s = 0;
      int64_t c = 0;
      for (; c + 1 < C; c++)
        if ((s += p[c]) > u) break;
      e->out[0].u.i[r * n + k] = c;
    }
  }
  return ZN_OK;
}
