/* Normalisations. */
#include "zenithc/eval/eval_impl.h"

/* Mean and variance of n numbers (two passes; of none: 0 / 0); t is overwritten with the squared deviations. */
static void moments(const zn_ev *e, double *t, uint64_t n, double *mean, double *var) {
  double m = zn_ev_r(e, zn_ev_sum(e, t, n, 1) / (double)n);
  for (uint64_t k = 0; k < n; k++) {
    double d = zn_ev_r(e, t[k] - m);
    t[k] = zn_ev_r(e, d * d);
  }
  *mean = m;
  *var = zn_ev_r(e, zn_ev_sum(e, t, n, 1) / (double)n);
}

static double inv_std(const zn_ev *e, double var, double eps) {
  return zn_ev_r(e, 1 / zn_ev_r(e, sqrt(zn_ev_r(e, var + eps))));
}

zn_status zn_eval_batchnormalization(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *sc = e->in[1], *b = e->in[2], *mu = e->in[3], *va = e->in[4];
  bool training = zn_node_int(e->n, "training_mode") != 0;
  double eps = zn_node_float(e->n, "epsilon"), mom = zn_node_float(e->n, "momentum");
  uint64_t outer = 1, C = 1, inner = x->count;
  if (x->rank > 1) zn_ev_split(x, 1, &outer, &C, &inner);
  if (sc->count != C || b->count != C || mu->count != C || va->count != C)
    return zn_ev_fail(e, "scale, B, mean and variance need %llu items", (unsigned long long)C);
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  if (training && zn_ev_wants(e, 1)) ZN_TRY(zn_ev_out(e, 1, (zn_dtype)mu->dtype, 1, mu->dims));
  if (training && zn_ev_wants(e, 2)) ZN_TRY(zn_ev_out(e, 2, (zn_dtype)va->dtype, 1, va->dims));
  double *t = ZN_ARRAY(e->tmp, double, outer *inner + 1);
  for (uint64_t c = 0; c < C; c++) {
    double m = mu->u.f[c], v = va->u.f[c];
    if (training) {
      for (uint64_t k = 0; k < outer * inner; k++)
        t[k] = x->u.f[(k / inner * C + c) * inner + k % inner];
      moments(e, t, outer * inner, &m, &v);
      if (zn_ev_wants(e, 1)) e->out[1].u.f[c] = zn_ev_r(e, mu->u.f[c] * mom + m * (1 - mom));
      if (zn_ev_wants(e, 2)) e->out[2].u.f[c] = zn_ev_r(e, va->u.f[c] * mom + v * (1 - mom));
    }
    double r = inv_std(e, v, eps);
    for (uint64_t k = 0; k < outer * inner; k++) {
      uint64_t i = (k / inner * C + c) * inner + k % inner;
      double d = zn_ev_r(e, zn_ev_r(e, x->u.f[i] - m) * r);
      e->out[0].u.f[i] = zn_ev_r(e, zn_ev_r(e, d * sc->u.f[c]) + b->u.f[c]);
    }
  }
  return ZN_OK;
}

/* InstanceNormalization (one group per channel) and GroupNormalization; scale and bias per channel.
 */
zn_status zn_eval_instancenorm(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *sc = e->in[1], *b = e->in[2];
  if (x->rank < 2) return zn_ev_fail(e, "input has rank %u, expected at least 2", x->rank);
  uint64_t N = (uint64_t)x->dims[0], C = (uint64_t)x->dims[1],
           S = zn_ev_count(x->rank - 2, x->dims + 2);
  uint64_t G = e->op == ZN_OP_GroupNormalization ? (uint64_t)zn_node_int(e->n, "num_groups") : C;
  if (G == 0 || C % G || sc->count != C || b->count != C)
    return zn_ev_fail(e, "groups, scale and bias do not fit %llu channels", (unsigned long long)C);
  double eps = zn_node_float(e->n, "epsilon");
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  uint64_t n = C / G * S;
  double *t = ZN_ARRAY(e->tmp, double, n + 1);
  for (uint64_t g = 0; g < N * G; g++) {
    double m, v;
    memcpy(t, x->u.f + g * n, n * sizeof *t);
    moments(e, t, n, &m, &v);
    double r = inv_std(e, v, eps);
    for (uint64_t k = 0; k < n; k++) {
      uint64_t c = g % G * (C / G) + k / S;
      double d = zn_ev_r(e, zn_ev_r(e, x->u.f[g * n + k] - m) * r);
      e->out[0].u.f[g * n + k] = zn_ev_r(e, zn_ev_r(e, d * sc->u.f[c]) + b->u.f[c]);
    }
  }
  return ZN_OK;
}

zn_status zn_eval_layernorm(zn_ev *e) {
  bool rms = e->op == ZN_OP_RMSNormalization;
  const zn_eval_val *x = e->in[0], *sc = e->in[1], *b = rms ? NULL : zn_ev_in(e, 2);
  uint32_t a;
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &a));
  double eps = zn_node_float(e->n, "epsilon");
  uint64_t outer = zn_ev_count(a, x->dims), n = zn_ev_count(x->rank - a, x->dims + a);
  int64_t dims[ZN_MAX_RANK], ss[ZN_MAX_RANK], bs[ZN_MAX_RANK], ix[ZN_MAX_RANK] = {0};
  if (sc->rank > x->rank || (b && b->rank > x->rank))
    return zn_ev_fail(e, "scale has a higher rank than X");
  zn_ev_bstrides(sc, x->rank, ss);
  if (b) zn_ev_bstrides(b, x->rank, bs);
  for (uint32_t d = 0; d < x->rank; d++) dims[d] = d < a ? x->dims[d] : 1;
  zn_dtype st = rms || zn_node_int(e->n, "stash_type") == 0
                    ? ZN_F32
                    : zn_dtype_from_onnx((int)zn_node_int(e->n, "stash_type"));
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)(rms ? sc->dtype : x->dtype), x->rank, x->dims));
  if (!rms && zn_ev_wants(e, 1)) ZN_TRY(zn_ev_out(e, 1, st, x->rank, dims));
  if (!rms && zn_ev_wants(e, 2)) ZN_TRY(zn_ev_out(e, 2, st, x->rank, dims));
  double *t = ZN_ARRAY(e->tmp, double, n + 1);
  for (uint64_t o = 0; o < outer; o++) {
    double m = 0, v;
    const double *row = x->u.f + o * n;
    if (rms) {
      for (uint64_t k = 0; k < n; k++) t[k] = zn_ev_r(e, row[k] * row[k]);
      v = zn_ev_r(e, zn_ev_sum(e, t, n, 1) / (double)n);
    } else {
      memcpy(t, row, n * sizeof *t);
      moments(e, t, n, &m, &v);
    }
    double r = inv_std(e, v, eps);
    if (e->num_out > 1 && e->out[1].set) e->out[1].u.f[o] = m;
    if (e->num_out > 2 && e->out[2].set) e->out[2].u.f[o] = r;
    for (uint64_t k = 0; k < n; k++, zn_ev_next(x->rank, x->dims, ix)) {
      int64_t si = 0, bi = 0;
      for (uint32_t d = 0; d < x->rank; d++) {
        si += ix[d] * ss[d];
        if (b) bi += ix[d] * bs[d];
      }
      double y = zn_ev_r(e, zn_ev_r(e, zn_ev_r(e, row[k] - m) * r) * sc->u.f[si]);
      e->out[0].u.f[o * n + k] = b ? zn_ev_r(e, y + b->u.f[bi]) : y;
    }
  }
  return ZN_OK;
}

static zn_status lrn(zn_ev *e, const zn_eval_val *x) {
  int64_t size = zn_node_int(e->n, "size");
  double alpha = zn_node_float(e->n, "alpha"), beta = zn_node_float(e->n, "beta"),
         bias = zn_node_float(e->n, "bias");
  if (x->rank < 2 || size < 1) return zn_ev_fail(e, "LRN needs channels and a positive size");
  uint64_t outer, C, inner;
  zn_ev_split(x, 1, &outer, &C, &inner);
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  int64_t before = (size - 1) / 2, after = size - 1 - before;
  for (uint64_t i = 0; i < x->count; i++) {
    int64_t c = (int64_t)(i / inner % C);
    double s = 0;
    for (int64_t k = c - before; k <= c + after; k++)
      if (k >= 0 && k < (int64_t)C) {
        double v = x->u.f[(int64_t)i + (k - c) * (int64_t)inner];
        s = zn_ev_r(e, s + zn_ev_r(e, v * v));
      }
    double d = zn_ev_r(e, bias + zn_ev_r(e, zn_ev_r(e, alpha / (double)size) * s));
    e->out[0].u.f[i] = zn_ev_r(e, x->u.f[i] / zn_ev_r(e, pow(d, beta)));
  }
  return ZN_OK;
}

static zn_status lp_normalization(zn_ev *e, const zn_eval_val *x) {
  uint32_t a;
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &a));
  int64_t p = zn_node_int(e->n, "p");
  uint64_t outer, n, inner;
  zn_ev_split(x, a, &outer, &n, &inner);
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  double *t = ZN_ARRAY(e->tmp, double, n + 1);
  for (uint64_t o = 0; o < outer * inner; o++) {
    uint64_t base = o / inner * n * inner + o % inner;
    for (uint64_t k = 0; k < n; k++) {
      double v = x->u.f[base + k * inner];
      t[k] = p == 1 ? fabs(v) : zn_ev_r(e, v * v);
    }
    double s = zn_ev_sum(e, t, n, 1);
    if (p != 1) s = zn_ev_r(e, sqrt(s));
    for (uint64_t k = 0; k < n; k++) {
      uint64_t i = base + k * inner;
      e->out[0].u.f[i] = s == 0 ? 0 : zn_ev_r(e, x->u.f[i] / s);
    }
  }
  return ZN_OK;
}

static zn_status mean_variance(zn_ev *e, const zn_eval_val *x) {
  uint32_t na;
  const int64_t *axes = zn_node_ints(e->n, "axes", &na);
  bool red[ZN_MAX_RANK] = {0};
  for (uint32_t i = 0; i < na; i++) {
    uint32_t a;
    ZN_TRY(zn_ev_axis(e, axes[i], x->rank, &a));
    red[a] = true;
  }
  int64_t st[ZN_MAX_RANK], od[ZN_MAX_RANK], os[ZN_MAX_RANK], id[ZN_MAX_RANK], is[ZN_MAX_RANK],
      ox[ZN_MAX_RANK] = {0};
  uint32_t ko = 0, ki = 0;
  zn_ev_strides(x->rank, x->dims, st);
  for (uint32_t d = 0; d < x->rank; d++) {
    if (red[d]) {
      id[ki] = x->dims[d];
      is[ki++] = st[d];
    } else {
      od[ko] = x->dims[d];
      os[ko++] = st[d];
    }
  }
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  uint64_t outer = zn_ev_count(ko, od), n = zn_ev_count(ki, id);
  double *t = ZN_ARRAY(e->tmp, double, n + 1);
  for (uint64_t o = 0; o < outer; o++, zn_ev_next(ko, od, ox)) {
    int64_t base = 0, ix[ZN_MAX_RANK] = {0};
    for (uint32_t d = 0; d < ko; d++) base += ox[d] * os[d];
    zn_ev_gather(t, x->u.f, 8, ki, id, is, base);
    double m, v;
    moments(e, t, n, &m, &v);
    double sd = zn_ev_r(e,
                        zn_ev_r(e, sqrt(v)) + 1e-9); /* epsilon of the operator's function body */
    for (uint64_t k = 0; k < n; k++, zn_ev_next(ki, id, ix)) {
      int64_t i = base;
      for (uint32_t d = 0; d < ki; d++) i += ix[d] * is[d];
      e->out[0].u.f[i] = zn_ev_r(e, zn_ev_r(e, x->u.f[i] - m) / sd);
    }
  }
  return ZN_OK;
}

zn_status zn_eval_norm(zn_ev *e) {
  if (e->op == ZN_OP_LRN) return lrn(e, e->in[0]);
  if (e->op == ZN_OP_LpNormalization) return lp_normalization(e, e->in[0]);
  return mean_variance(e, e->in[0]);
}
