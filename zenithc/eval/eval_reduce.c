/* Reductions, arg-reductions, running sums and the softmax family. */
#include "zenithc/eval/eval_impl.h"

/* Which axes go: input 1 or attribute-free default (all, or none with noop_with_empty_axes). */
static zn_status reduced_axes(zn_ev *e, const zn_eval_val *x, bool *red, bool *noop) {
  const int64_t *axes;
  uint32_t n;
  bool given = zn_ev_ints(e, 1, &axes, &n) && n > 0;
  *noop = !given && zn_node_int(e->n, "noop_with_empty_axes") != 0;
  for (uint32_t d = 0; d < x->rank; d++) red[d] = !given && !*noop;
  for (uint32_t i = 0; i < n; i++) {
    uint32_t a;
    ZN_TRY(zn_ev_axis(e, axes[i], x->rank, &a));
    red[a] = true;
  }
  return ZN_OK;
}

static double sum_of(const zn_ev *e, double *t, uint64_t n) { return zn_ev_sum(e, t, n, 1); }

static double reduce_f(const zn_ev *e, zn_op op, double *t, uint64_t n) {
  double m = op == ZN_OP_ReduceMin ? INFINITY : -INFINITY, p = 1;
  switch (op) {
  case ZN_OP_ReduceSum: return sum_of(e, t, n);
  case ZN_OP_ReduceMean: return n ? zn_ev_r(e, sum_of(e, t, n) / (double)n) : NAN;
  case ZN_OP_ReduceLogSum: return zn_ev_r(e, log(sum_of(e, t, n)));
  case ZN_OP_ReduceL1:
    for (uint64_t k = 0; k < n; k++) t[k] = fabs(t[k]);
    return sum_of(e, t, n);
  case ZN_OP_ReduceSumSquare:
  case ZN_OP_ReduceL2:
    for (uint64_t k = 0; k < n; k++) t[k] = zn_ev_r(e, t[k] * t[k]);
    p = sum_of(e, t, n);
    return op == ZN_OP_ReduceL2 ? zn_ev_r(e, sqrt(p)) : p;
  case ZN_OP_ReduceProd:
    for (uint64_t k = 0; k < n; k++)
      p = zn_ev_r(e, p * t[zn_ev_turn(e->mode, k, n)]);
    return p;
  case ZN_OP_ReduceMax:
  case ZN_OP_ReduceMin:
    for (uint64_t k = 0; k < n; k++) {
      if (isnan(t[k])) return t[k];
      if (op == ZN_OP_ReduceMax ? t[k] > m : t[k] < m) m = t[k];
    }
    return m;
  default: /* ReduceLogSumExp */
    for (uint64_t k = 0; k < n; k++) m = t[k] > m ? t[k] : m;
    if (n == 0 || isinf(m)) return m;
    for (uint64_t k = 0; k < n; k++) t[k] = zn_ev_r(e, exp(zn_ev_r(e, t[k] - m)));
    return zn_ev_r(e, m + zn_ev_r(e, log(sum_of(e, t, n))));
  }
}

static int64_t reduce_i(zn_op op, zn_dtype t, const int64_t *x, uint64_t n) {
  uint64_t s = 0, p = 1;
  int64_t lo = t == ZN_BOOL ? 1 : INT64_MAX, hi = t == ZN_BOOL || t == ZN_U64 ? 0 : INT64_MIN;
  bool u64 = t == ZN_U64;
  if (u64) lo = -1;                     /* all ones */
  if (n == 0 && !u64 && t != ZN_BOOL) { /* the type's extremes */
    unsigned bits = zn_int_bits(t);
    hi = zn_is_signed(t) ? (bits == 64 ? INT64_MIN : -(INT64_C(1) << (bits - 1))) : 0;
    lo = zn_is_signed(t) ? (bits == 64 ? INT64_MAX : (INT64_C(1) << (bits - 1)) - 1)
                         : (INT64_C(1) << bits) - 1;
  }
  for (uint64_t k = 0; k < n; k++) {
    bool neg = !u64 && x[k] < 0;
    uint64_t v = (uint64_t)x[k];
    s += op == ZN_OP_ReduceL1 && neg                           ? 0 - v
         : op == ZN_OP_ReduceSumSquare || op == ZN_OP_ReduceL2 ? v * v
                                                               : v;
    p *= v;
    if (u64 ? v < (uint64_t)lo : x[k] < lo) lo = x[k];
    if (u64 ? v > (uint64_t)hi : x[k] > hi) hi = x[k];
  }
  switch (op) {
  case ZN_OP_ReduceMax: return hi;
  case ZN_OP_ReduceMin: return lo;
  case ZN_OP_ReduceProd: return zn_int_wrap(t, (int64_t)p);
  case ZN_OP_ReduceMean: return n == 0 ? 0 : u64 ? (int64_t)(s / n) : (int64_t)s / (int64_t)n;
  case ZN_OP_ReduceL2: return zn_int_wrap(t, (int64_t)sqrt((double)s));
  default: return zn_int_wrap(t, (int64_t)s);
  }
}

typedef struct lanes { /* outer: kept axes; inner: reduced axes */
  uint32_t ko, ki;
  int64_t od[ZN_MAX_RANK], os[ZN_MAX_RANK], id[ZN_MAX_RANK], is[ZN_MAX_RANK];
  uint64_t outer, inner;
} lanes;

static void lanes_init(const zn_eval_val *x, const bool *red, lanes *l) {
  int64_t st[ZN_MAX_RANK];
  memset(l, 0, sizeof *l);
  zn_ev_strides(x->rank, x->dims, st);
  for (uint32_t d = 0; d < x->rank; d++) {
    if (red[d]) {
      l->id[l->ki] = x->dims[d];
      l->is[l->ki++] = st[d];
    } else {
      l->od[l->ko] = x->dims[d];
      l->os[l->ko++] = st[d];
    }
  }
  l->outer = zn_ev_count(l->ko, l->od);
  l->inner = zn_ev_count(l->ki, l->id);
}

static int64_t lane_base(const lanes *l, const int64_t *ix) {
  int64_t b = 0;
  for (uint32_t d = 0; d < l->ko; d++) b += ix[d] * l->os[d];
  return b;
}

zn_status zn_eval_reduce(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  bool red[ZN_MAX_RANK], noop, keep = zn_node_int(e->n, "keepdims") != 0;
  ZN_TRY(reduced_axes(e, x, red, &noop));
  lanes l;
  lanes_init(x, red, &l);
  int64_t dims[ZN_MAX_RANK], ix[ZN_MAX_RANK] = {0};
  uint32_t rank = 0;
  for (uint32_t d = 0; d < x->rank; d++)
    if (!red[d] || keep) dims[rank++] = red[d] ? 1 : x->dims[d];
  zn_dtype t = (zn_dtype)x->dtype;
  if (noop && (e->op == ZN_OP_ReduceSum || e->op == ZN_OP_ReduceMean || e->op == ZN_OP_ReduceMax ||
               e->op == ZN_OP_ReduceMin || e->op == ZN_OP_ReduceProd)) {
    e->out[0] = zn_ev_share(x);
    return ZN_OK;
  }
  ZN_TRY(zn_ev_out(e, 0, t, rank, dims));
  double *lane = ZN_ARRAY(e->tmp, double, l.inner + 1);
  int64_t *ilane = (int64_t *)(void *)lane;
  for (uint64_t k = 0; k < l.outer; k++, zn_ev_next(l.ko, l.od, ix)) {
    zn_ev_gather(lane, x->u.p, 8, l.ki, l.id, l.is, lane_base(&l, ix));
    if (zn_is_float(t)) e->out[0].u.f[k] = reduce_f(e, e->op, lane, l.inner);
    else e->out[0].u.i[k] = reduce_i(e->op, t, ilane, l.inner);
  }
  return ZN_OK;
}

zn_status zn_eval_argreduce(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  uint32_t a, rank = 0;
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &a));
  bool keep = zn_node_int(e->n, "keepdims") != 0,
       last = zn_node_int(e->n, "select_last_index") != 0;
  bool max = e->op == ZN_OP_ArgMax, f = zn_is_float((zn_dtype)x->dtype), u64 = x->dtype == ZN_U64;
  int64_t dims[ZN_MAX_RANK];
  for (uint32_t d = 0; d < x->rank; d++)
    if (d != a || keep) dims[rank++] = d == a ? 1 : x->dims[d];
  ZN_TRY(zn_ev_out(e, 0, ZN_I64, rank, dims));
  uint64_t outer, n, inner;
  zn_ev_split(x, a, &outer, &n, &inner);
  for (uint64_t o = 0; o < outer * inner; o++) {
    uint64_t base = o / inner * n * inner + o % inner, best = 0;
    for (uint64_t k = 1; k < n; k++) {
      uint64_t i = base + k * inner, b = base + best * inner;
      int c; /* new against best */
      if (f) {
        double p = zn_ev_key((zn_dtype)x->dtype, x->u.f[i]),
               q = zn_ev_key((zn_dtype)x->dtype, x->u.f[b]);
        c = isnan(q) ? -1 : isnan(p) ? (max ? 1 : -1) * (max ? 1 : -1) : (p > q) - (p < q);
        if (isnan(p) && !isnan(q)) c = max ? 1 : -1; /* NaN wins, as in numpy */
        if (isnan(q)) c = isnan(p) ? 0 : max ? -1 : 1;
      } else {
        c = u64 ? ((uint64_t)x->u.i[i] > (uint64_t)x->u.i[b]) -
                      ((uint64_t)x->u.i[i] < (uint64_t)x->u.i[b])
                : (x->u.i[i] > x->u.i[b]) - (x->u.i[i] < x->u.i[b]);
      }
      if (!max) c = -c;
      if (c > 0 || (c == 0 && last)) best = k;
    }
    e->out[0].u.i[o] = (int64_t)best;
  }
  return ZN_OK;
}

static zn_status cumulate(zn_ev *e, bool prod) {
  const zn_eval_val *x = e->in[0], *av = e->in[1];
  uint32_t a;
  if (!av->count) return zn_ev_fail(e, "axis must be a scalar");
  ZN_TRY(zn_ev_axis(e, av->u.i[0], x->rank, &a));
  bool excl = zn_node_int(e->n, "exclusive") != 0, rev = zn_node_int(e->n, "reverse") != 0;
  zn_dtype t = (zn_dtype)x->dtype;
  ZN_TRY(zn_ev_out(e, 0, t, x->rank, x->dims));
  uint64_t outer, n, inner;
  zn_ev_split(x, a, &outer, &n, &inner);
  for (uint64_t o = 0; o < outer * inner; o++) {
    double f = prod ? 1 : 0;
    uint64_t i = prod ? 1 : 0;
    for (uint64_t k = 0; k < n; k++) {
      uint64_t at = o / inner * n * inner + o % inner + (rev ? n - 1 - k : k) * inner;
      bool fl = zn_is_float(t);
      if (excl) {
        if (fl) e->out[0].u.f[at] = f;
        else e->out[0].u.i[at] = zn_int_wrap(t, (int64_t)i);
      }
      if (fl) f = zn_ev_r(e, prod ? f * x->u.f[at] : f + x->u.f[at]);
      else i = prod ? i * (uint64_t)x->u.i[at] : i + (uint64_t)x->u.i[at];
      if (!excl) {
        if (fl) e->out[0].u.f[at] = f;
        else e->out[0].u.i[at] = zn_int_wrap(t, (int64_t)i);
      }
    }
  }
  return ZN_OK;
}

zn_status zn_eval_cumsum(zn_ev *e) { return cumulate(e, false); }
zn_status zn_eval_cumprod(zn_ev *e) { return cumulate(e, true); }

void zn_ev_softmax(const zn_ev *e, double *t, uint64_t n, bool logs) {
  double m = -INFINITY;
  for (uint64_t k = 0; k < n; k++) m = t[k] > m ? t[k] : m;
  if (logs) {
    double *x = calloc(n + 1, sizeof *x);
    if (!x) abort(); /* one lane */
    for (uint64_t k = 0; k < n; k++) x[k] = zn_ev_r(e, exp(zn_ev_r(e, t[k] - m)));
    double l = zn_ev_r(e, log(zn_ev_sum(e, x, n, 1)));
    for (uint64_t k = 0; k < n; k++) t[k] = zn_ev_r(e, zn_ev_r(e, t[k] - m) - l);
    free(x);
    return;
  }
  for (uint64_t k = 0; k < n; k++) t[k] = zn_ev_r(e, exp(zn_ev_r(e, t[k] - m)));
  double s = zn_ev_sum(e, t, n, 1);
  for (uint64_t k = 0; k < n; k++) t[k] = zn_ev_r(e, t[k] / s);
}

zn_status zn_eval_softmax(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  uint32_t a = 0;
  if (x->rank) ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &a));
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  uint64_t outer = 1, n = 1, inner = 1;
  if (x->rank) zn_ev_split(x, a, &outer, &n, &inner);
  double *t = ZN_ARRAY(e->tmp, double, n + 1);
  for (uint64_t o = 0; o < outer * inner; o++) {
    uint64_t base = o / inner * n * inner + o % inner, best = 0;
    for (uint64_t k = 0; k < n; k++) {
      t[k] = x->u.f[base + k * inner];
      if (zn_ev_key((zn_dtype)x->dtype, t[k]) > zn_ev_key((zn_dtype)x->dtype, t[best])) best = k;
    }
    if (e->op == ZN_OP_Hardmax)
      for (uint64_t k = 0; k < n; k++) t[k] = k == best;
    else zn_ev_softmax(e, t, n, e->op == ZN_OP_LogSoftmax);
    for (uint64_t k = 0; k < n; k++) e->out[0].u.f[base + k * inner] = t[k];
  }
  return ZN_OK;
}
