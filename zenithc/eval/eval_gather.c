/* Gathers and scatters. Negative indices count from the end; others outside the extent are errors.
 */
#include "zenithc/eval/eval_impl.h"

static zn_status index_at(zn_ev *e, const zn_eval_val *ind, uint64_t k, int64_t extent,
                          uint64_t *out) {
  int64_t i = zn_ev_geti(ind, k), j = i < 0 ? i + extent : i;
  if (j < 0 || j >= extent)
    return zn_ev_fail(e, "index %lld is outside an axis of %lld", (long long)i, (long long)extent);
  *out = (uint64_t)j;
  return ZN_OK;
}

zn_status zn_eval_gather(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *ind = e->in[1];
  uint32_t a, rank = x->rank + ind->rank - 1;
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &a));
  if (rank > ZN_MAX_RANK) return zn_ev_fail(e, "rank %u exceeds %d", rank, ZN_MAX_RANK);
  int64_t dims[ZN_MAX_RANK];
  for (uint32_t d = 0; d < rank; d++)
    dims[d] = d < a               ? x->dims[d]
              : d < a + ind->rank ? ind->dims[d - a]
                                  : x->dims[d - ind->rank + 1];
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, rank, dims));
  uint64_t outer, n, inner, at;
  zn_ev_split(x, a, &outer, &n, &inner);
  size_t es = zn_ev_esize((zn_dtype)x->dtype);
  for (uint64_t o = 0; o < outer; o++)
    for (uint64_t k = 0; k < ind->count; k++) {
      ZN_TRY(index_at(e, ind, k, (int64_t)n, &at));
      memcpy((char *)e->out[0].u.p + (o * ind->count + k) * inner * es,
             (const char *)x->u.p + (o * n + at) * inner * es, inner * es);
    }
  return ZN_OK;
}

zn_status zn_eval_gatherelements(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *ind = e->in[1];
  uint32_t a;
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &a));
  if (ind->rank != x->rank)
    return zn_ev_fail(e, "indices have rank %u, expected %u", ind->rank, x->rank);
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, ind->dims));
  int64_t st[ZN_MAX_RANK], ix[ZN_MAX_RANK] = {0};
  zn_ev_strides(x->rank, x->dims, st);
  for (uint64_t k = 0; k < ind->count; k++, zn_ev_next(x->rank, ind->dims, ix)) {
    uint64_t at, s = 0;
    ZN_TRY(index_at(e, ind, k, x->dims[a], &at));
    for (uint32_t d = 0; d < x->rank; d++) {
      uint64_t i = d == a ? at : (uint64_t)ix[d];
      if (i >= (uint64_t)x->dims[d])
        return zn_ev_fail(e, "indices are larger than data in dimension %u", d);
      s += i * (uint64_t)st[d];
    }
    zn_ev_copy1(e->out[0].u.p, k, x->u.p, s, zn_ev_esize((zn_dtype)x->dtype));
  }
  return ZN_OK;
}

/* Offset named by the m-tuple at ind[k*m], over axes [b, b+m). */
static zn_status tuple_at(zn_ev *e, const zn_eval_val *x, const zn_eval_val *ind, uint64_t k,
                          uint32_t b, uint32_t m, uint64_t *out) {
  uint64_t s = 0, at;
  for (uint32_t d = 0; d < m; d++) {
    ZN_TRY(index_at(e, ind, k * m + d, x->dims[b + d], &at));
    s = s * (uint64_t)x->dims[b + d] + at;
  }
  *out = s;
  return ZN_OK;
}

zn_status zn_eval_gathernd(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *ind = e->in[1];
  int64_t bd = zn_node_int(e->n, "batch_dims"), dims[ZN_MAX_RANK];
  if (ind->rank == 0 || x->rank == 0 || bd < 0 || bd >= (int64_t)ind->rank ||
      bd >= (int64_t)x->rank)
    return zn_ev_fail(e, "batch_dims does not fit the ranks");
  uint32_t b = (uint32_t)bd, m = (uint32_t)ind->dims[ind->rank - 1], rank = 0;
  if (ind->dims[ind->rank - 1] < 1 || b + m > x->rank)
    return zn_ev_fail(e, "indices are longer than the rank of data");
  if (ind->rank - 1 + x->rank - b - m > ZN_MAX_RANK)
    return zn_ev_fail(e, "rank exceeds %d", ZN_MAX_RANK);
  for (uint32_t d = 0; d + 1 < ind->rank; d++) dims[rank++] = ind->dims[d];
  for (uint32_t d = b + m; d < x->rank; d++) dims[rank++] = x->dims[d];
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, rank, dims));
  uint64_t batches = zn_ev_count(b, x->dims), mid = zn_ev_count(m, x->dims + b);
  uint64_t inner = zn_ev_count(x->rank - b - m, x->dims + b + m), tuples = ind->count / m;
  if (zn_ev_count(b, ind->dims) != batches) return zn_ev_fail(e, "batch dimensions differ");
  size_t es = zn_ev_esize((zn_dtype)x->dtype);
  for (uint64_t k = 0; k < tuples; k++) {
    uint64_t at, batch = k / (tuples / batches);
    ZN_TRY(tuple_at(e, x, ind, k, b, m, &at));
    memcpy((char *)e->out[0].u.p + k * inner * es,
           (const char *)x->u.p + (batch * mid + at) * inner * es, inner * es);
  }
  return ZN_OK;
}

/* y[i] = y[i] op u[j] */
static void combine(zn_ev *e, zn_eval_val *y, uint64_t i, const zn_eval_val *u, uint64_t j,
                    const char *red) {
  zn_dtype t = (zn_dtype)y->dtype;
  if (red[0] == 'n' || t == ZN_STR) {
    zn_ev_copy1(y->u.p, i, u->u.p, j, zn_ev_esize(t));
  } else if (zn_ev_is_cplx(t)) { /* inference takes sums and products */
    double *a = y->u.f + 2 * i, re = a[0], im = a[1];
    const double *b = u->u.f + 2 * j;
    a[0] = zn_ev_r(e, red[0] == 'a' ? re + b[0] : zn_ev_r(e, re * b[0]) - zn_ev_r(e, im * b[1]));
    a[1] = zn_ev_r(e, red[0] == 'a' ? im + b[1] : zn_ev_r(e, re * b[1]) + zn_ev_r(e, im * b[0]));
  } else if (zn_is_float(t)) {
    double a = y->u.f[i], b = u->u.f[j];
    y->u.f[i] = red[0] == 'a'                    ? zn_ev_r(e, a + b)
                : red[0] == 'm' && red[1] == 'u' ? zn_ev_r(e, a * b)
                : isnan(a) || isnan(b)           ? NAN
                : red[1] == 'a'                  ? fmax(a, b)
                                                 : fmin(a, b);
  } else {
    int64_t a = y->u.i[i], b = u->u.i[j];
    bool less = t == ZN_U64 ? (uint64_t)a < (uint64_t)b : a < b;
    int64_t r = red[0] == 'a'   ? (int64_t)((uint64_t)a + (uint64_t)b)
                : red[1] == 'u' ? (int64_t)((uint64_t)a * (uint64_t)b)
                : red[1] == 'a' ? (less ? b : a)
                                : (less ? a : b);
    y->u.i[i] = t == ZN_BOOL ? r != 0 : zn_int_wrap(t, r);
  }
}

static zn_status copy_of(zn_ev *e, const zn_eval_val *x) {
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  memcpy(e->out[0].u.p, x->u.p, x->count * zn_ev_esize((zn_dtype)x->dtype));
  return ZN_OK;
}

zn_status zn_eval_scatterelements(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *ind = e->in[1], *u = e->in[2];
  uint32_t a;
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &a));
  if (ind->rank != x->rank || u->count != ind->count)
    return zn_ev_fail(e, "indices and updates do not match data");
  ZN_TRY(copy_of(e, x));
  int64_t st[ZN_MAX_RANK], ix[ZN_MAX_RANK] = {0};
  zn_ev_strides(x->rank, x->dims, st);
  const char *red = zn_node_str(e->n, "reduction");
  for (uint64_t k = 0; k < ind->count; k++, zn_ev_next(x->rank, ind->dims, ix)) {
    uint64_t at, s = 0;
    ZN_TRY(index_at(e, ind, k, x->dims[a], &at));
    for (uint32_t d = 0; d < x->rank; d++) {
      uint64_t i = d == a ? at : (uint64_t)ix[d];
      if (i >= (uint64_t)x->dims[d])
        return zn_ev_fail(e, "indices are larger than data in dimension %u", d);
      s += i * (uint64_t)st[d];
    }
    combine(e, &e->out[0], s, u, k, red);
  }
  return ZN_OK;
}

zn_status zn_eval_scatternd(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *ind = e->in[1], *u = e->in[2];
  if (ind->rank == 0) return zn_ev_fail(e, "indices are a scalar");
  uint32_t m = (uint32_t)ind->dims[ind->rank - 1];
  if (ind->dims[ind->rank - 1] > (int64_t)x->rank)
    return zn_ev_fail(e, "indices are longer than the rank of data");
  uint64_t inner = zn_ev_count(x->rank - m, x->dims + m),
           tuples = zn_ev_count(ind->rank - 1, ind->dims);
  if (u->count != tuples * inner) return zn_ev_fail(e, "updates do not match the indices");
  ZN_TRY(copy_of(e, x));
  const char *red = zn_node_str(e->n, "reduction");
  for (uint64_t k = 0; k < tuples; k++) {
    uint64_t at;
    ZN_TRY(tuple_at(e, x, ind, k, 0, m, &at));
    for (uint64_t i = 0; i < inner; i++)
      combine(e, &e->out[0], at * inner + i, u, k * inner + i, red);
  }
  return ZN_OK;
}

/* A key/value cache update: sequence axis `axis`, batch axis 0, one write position per batch item.
 */
zn_status zn_eval_tensorscatter(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *u = e->in[1], *w = zn_ev_in(e, 2);
  uint32_t a;
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &a));
  if (a == 0 || u->rank != x->rank || (w && w->count != (uint64_t)x->dims[0]))
    return zn_ev_fail(e, "axis, update and write_indices do not fit the cache");
  bool circular = strcmp(zn_node_str(e->n, "mode"), "circular") == 0;
  ZN_TRY(copy_of(e, x));
  uint64_t outer, n, inner, nu = (uint64_t)u->dims[a], per;
  zn_ev_split(x, a, &outer, &n, &inner);
  per = outer / (uint64_t)(x->dims[0] ? x->dims[0] : 1);
  size_t es = zn_ev_esize((zn_dtype)x->dtype);
  for (uint64_t o = 0; o < outer; o++)
    for (uint64_t k = 0; k < nu; k++) {
      int64_t pos = (w ? w->u.i[o / per] : 0) + (int64_t)k;
      if (circular && n) pos %= (int64_t)n;
      if (pos < 0 || pos >= (int64_t)n)
        return zn_ev_fail(e, "write position %lld is outside the cache", (long long)pos);
      memcpy((char *)e->out[0].u.p + (o * n + (uint64_t)pos) * inner * es,
             (const char *)u->u.p + (o * nu + k) * inner * es, inner * es);
    }
  return ZN_OK;
}
