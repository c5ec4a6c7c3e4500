/* Inference of gathers, scatters, scans along an axis, sorting, and operators whose result size
 * depends on data: those get a symbol with an upper bound. */
#include "zenithc/ops/infer_util.h"

#include <inttypes.h>

static void gather_elems(const zn_inf *f, int axis) {
  uint32_t n, m, total;
  int64_t idx[ZN_MAX_ELEMS];
  uint32_t src[ZN_MAX_ELEMS];
  const zn_type *d = zn_inf_in(f, 0);
  if (!zn_inf_elems(f, 0, &n) || d->rank < 1 || axis != 0) return;
  if (!zn_inf_i64s(f, 1, idx, ZN_MAX_ELEMS, &m)) return;
  int64_t rows;
  if (!zn_ex_is_const(f->ex, d->dims[0], &rows) || rows == 0) return;
  const uint32_t row = n / (uint32_t)rows;
  total = m * row;
  if (total > ZN_MAX_ELEMS) return;
  for (uint32_t k = 0; k < total; k++) {
    int64_t i = idx[k / row];
    if (i < 0) i += rows;
    if (i < 0 || i >= rows) return;
    src[k] = (uint32_t)i * row + k % row;
  }
  zn_inf_take(f, 0, 0, src, total);
}

static zn_status index_range(const zn_inf *f, zn_expr extent) {
  int64_t v[ZN_MAX_ELEMS], d;
  uint32_t n;
  if (!zn_ex_is_const(f->ex, extent, &d) || !zn_inf_i64s(f, 1, v, ZN_MAX_ELEMS, &n)) return ZN_OK;
  for (uint32_t i = 0; i < n; i++) {
    if (v[i] < -d || v[i] >= d) {
      return zn_inf_err(f, "index %" PRId64 " is outside [%" PRId64 ", %" PRId64 ")", v[i], -d, d);
    }
  }
  return ZN_OK;
}

ZN_INFER(gather) {
  const zn_type *d = zn_inf_in(f, 0), *i = zn_inf_in(f, 1);
  zn_expr dims[2 * ZN_MAX_RANK];
  int axis, r = 0;
  if (!zn_inf_known(f, 0) || !zn_inf_known(f, 1)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 0, 1));
  ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), d->rank, &axis));
  ZN_TRY(index_range(f, d->dims[axis]));
  for (int k = 0; k < axis; k++) dims[r++] = d->dims[k];
  for (int k = 0; k < i->rank; k++) dims[r++] = i->dims[k];
  for (int k = axis + 1; k < d->rank; k++) dims[r++] = d->dims[k];
  if (r > ZN_MAX_RANK)
    return zn_inf_err(f, "rank %d is more than the supported %d", r, ZN_MAX_RANK);
  zn_inf_shape(f, 0, r, dims);
  gather_elems(f, axis);
  return ZN_OK;
}

ZN_INFER(gatherelements) {
  const zn_type *d = zn_inf_in(f, 0);
  int axis;
  if (zn_inf_known(f, 0)) {
    ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), d->rank, &axis));
    ZN_TRY(zn_inf_want_rank(f, 1, d->rank));
  }
  zn_inf_same(f, 0, 1);
  return ZN_OK;
}

ZN_INFER(gathernd) {
  const zn_type *d = zn_inf_in(f, 0), *i = zn_inf_in(f, 1);
  const int64_t b = zn_node_int(f->nd, "batch_dims");
  zn_expr dims[2 * ZN_MAX_RANK];
  int64_t k;
  int r = 0;
  if (!zn_inf_known(f, 0) || !zn_inf_known(f, 1)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 1, 1));
  if (!zn_ex_is_const(f->ex, i->dims[i->rank - 1], &k)) return ZN_OK;
  if (b < 0 || b >= i->rank || k < 0 || b + k > d->rank) {
    return zn_inf_err(
        f, "batch_dims %" PRId64 " and index depth %" PRId64 " do not fit data of rank %d", b, k,
        d->rank);
  }
  for (int a = 0; a < i->rank - 1; a++) dims[r++] = i->dims[a];
  for (int a = (int)(b + k); a < d->rank; a++) dims[r++] = d->dims[a];
  if (r > ZN_MAX_RANK)
    return zn_inf_err(f, "rank %d is more than the supported %d", r, ZN_MAX_RANK);
  zn_inf_shape(f, 0, r, dims);
  return ZN_OK;
}

static zn_status reduction(const zn_inf *f) {
  const char *red = zn_node_str(f->nd, "reduction");
  const int t = zn_inf_in(f, 0)->dtype;
  if (!red || !strcmp(red, "none")) return ZN_OK;
  if ((t == ZN_C64 || t == ZN_C128) && (!strcmp(red, "min") || !strcmp(red, "max")))
    return zn_inf_err(f, "reduction '%s': complex numbers have no order", red);
  return zn_inf_numbers(f, "a reduction");
}

ZN_INFER(scatterelements) {
  const zn_type *d = zn_inf_in(f, 0);
  int axis;
  ZN_TRY(reduction(f));
  zn_inf_same(f, 0, 0);
  if (!zn_inf_known(f, 0)) return ZN_OK;
  ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), d->rank, &axis));
  ZN_TRY(zn_inf_want_rank(f, 1, d->rank));
  return zn_inf_want_rank(f, 2, d->rank);
}

/* Rank-1 data with constant rows: exporters patch shapes this way. */
static void scatter_elems(const zn_inf *f) {
  uint32_t n, m, u;
  int64_t idx[ZN_MAX_ELEMS];
  const char *red = zn_node_str(f->nd, "reduction");
  if (red && strcmp(red, "none") != 0) return;
  const zn_expr *data = zn_inf_elems(f, 0, &n), *upd = zn_inf_elems(f, 2, &u);
  if (!data || !upd || zn_inf_in(f, 0)->rank != 1) return;
  if (!zn_inf_i64s(f, 1, idx, ZN_MAX_ELEMS, &m) || m != u) return;
  zn_inf_copy_elems(f, 0, 0);
  zn_expr *out = f->g->vals[f->nd->out[0]].elems;
  for (uint32_t k = 0; out && k < m; k++) {
    const int64_t i = idx[k] < 0 ? idx[k] + (int64_t)n : idx[k];
    if (i >= 0 && i < (int64_t)n) out[i] = upd[k];
  }
}

ZN_INFER(scatternd) {
  ZN_TRY(reduction(f));
  ZN_TRY(zn_inf_min_rank(f, 0, 1));
  ZN_TRY(zn_inf_min_rank(f, 1, 1));
  zn_inf_same(f, 0, 0);
  scatter_elems(f);
  return ZN_OK;
}

ZN_INFER(tensorscatter) {
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(cumsum) {
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(cumprod) {
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(topk) {
  const zn_type *in = zn_inf_in(f, 0);
  zn_expr dims[ZN_MAX_RANK];
  uint32_t n;
  int axis;
  int64_t k, d;
  if (!zn_inf_known(f, 0)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 0, 1));
  ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), in->rank, &axis));
  const zn_expr *e = zn_inf_need(f, 1, &n);
  for (int a = 0; a < in->rank; a++) dims[a] = in->dims[a];
  if (e && n == 1) {
    if (!zn_inf_ge(f, e[0], 0) && zn_ex_kind(f->ex, e[0]) == ZN_EX_SYM) {
      zn_ex_set_range(f->ex, e[0], 0, INT64_MAX);
    }
    zn_inf_limit(f->ex, e[0], dims[axis]);
    if (zn_ex_is_const(f->ex, e[0], &k) && zn_ex_is_const(f->ex, dims[axis], &d) && k > d) {
      return zn_inf_err(f, "K is %" PRId64 ", but axis %d has %" PRId64 " elements", k, axis, d);
    }
    dims[axis] = e[0];
  } else {
    dims[axis] = zn_inf_fresh(f, 0, (uint32_t)axis, 0, dims[axis]);
  }
  zn_inf_shape(f, 0, in->rank, dims);
  zn_inf_shape(f, 1, in->rank, dims);
  return ZN_OK;
}

static void nonzero_elems(const zn_inf *f) {
  const zn_type *in = zn_inf_in(f, 0);
  int64_t v[ZN_MAX_ELEMS];
  uint32_t n, cnt = 0;
  if (!zn_inf_i64s(f, 0, v, ZN_MAX_ELEMS, &n) || in->rank > 1) return;
  for (uint32_t k = 0; k < n; k++) cnt += v[k] != 0;
  const uint32_t rank = (uint32_t)in->rank;
  const zn_expr dims[2] = {zn_inf_k(f, rank), zn_inf_k(f, cnt)};
  zn_inf_shape(f, 0, 2, dims);
  zn_expr *e = zn_inf_set_elems(f, 0, rank * cnt);
  for (uint32_t k = 0, at = 0; e && rank && k < n; k++) {
    if (v[k]) e[at++] = zn_inf_k(f, k);
  }
}

ZN_INFER(nonzero) {
  const zn_type *in = zn_inf_in(f, 0);
  if (!zn_inf_known(f, 0)) {
    zn_inf_unknown(f, 0, 2);
    return ZN_OK;
  }
  const zn_expr dims[2] = {zn_inf_k(f, in->rank),
                           zn_inf_fresh(f, 0, 1, 0, zn_type_count(f->ex, in))};
  zn_inf_shape(f, 0, 2, dims);
  nonzero_elems(f);
  return ZN_OK;
}

ZN_INFER(unique) {
  const zn_type *in = zn_inf_in(f, 0);
  const bool flat = !zn_node_has(f->nd, "axis");
  zn_expr dims[ZN_MAX_RANK], all;
  int axis = 0;
  if (!zn_inf_known(f, 0)) {
    if (flat) zn_inf_unknown(f, 0, 1);
    for (uint32_t o = 1; o < 4; o++) zn_inf_unknown(f, o, 1);
    return ZN_OK;
  }
  if (!flat) ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), in->rank, &axis));
  all = flat ? zn_type_count(f->ex, in) : in->dims[axis];
  for (int d = 0; d < in->rank; d++) dims[d] = in->dims[d];
  const zn_expr n = zn_inf_fresh(f, 0, (uint32_t)axis, 0, all);
  if (flat) {
    dims[0] = n;
  } else {
    dims[axis] = n;
  }
  zn_inf_shape(f, 0, flat ? 1 : in->rank, dims);
  zn_inf_shape(f, 1, 1, &n);
  zn_inf_shape(f, 2, 1, &all);
  zn_inf_shape(f, 3, 1, &n);
  return ZN_OK;
}

ZN_INFER(compress) {
  const zn_type *in = zn_inf_in(f, 0);
  const bool flat = !zn_node_has(f->nd, "axis");
  zn_expr dims[ZN_MAX_RANK];
  int64_t cond[ZN_MAX_ELEMS];
  uint32_t n, cnt = 0;
  int axis = 0;
  ZN_TRY(zn_inf_want_rank(f, 1, 1));
  if (!zn_inf_known(f, 0)) {
    if (flat) zn_inf_unknown(f, 0, 1);
    return ZN_OK;
  }
  if (!flat) ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), in->rank, &axis));
  for (int d = 0; d < in->rank; d++) dims[d] = in->dims[d];
  zn_expr len;
  if (zn_inf_i64s(f, 1, cond, ZN_MAX_ELEMS, &n)) {
    for (uint32_t k = 0; k < n; k++) cnt += cond[k] != 0;
    len = zn_inf_k(f, cnt);
  } else {
    zn_expr bound = flat ? zn_type_count(f->ex, in) : in->dims[axis];
    if (zn_inf_known(f, 1)) bound = zn_ex_min(f->ex, bound, zn_inf_in(f, 1)->dims[0]);
    len = zn_inf_fresh(f, 0, (uint32_t)axis, 0, bound);
  }
  dims[flat ? 0 : axis] = len;
  zn_inf_shape(f, 0, flat ? 1 : in->rank, dims);
  return ZN_OK;
}

ZN_INFER(nonmaxsuppression) {
  const zn_type *boxes = zn_inf_in(f, 0), *scores = zn_inf_in(f, 1);
  zn_expr dims[2] = {ZN_EX_NONE, zn_inf_k(f, 3)}, bound = ZN_EX_NONE;
  uint32_t n;
  ZN_TRY(zn_inf_want_rank(f, 0, 3));
  ZN_TRY(zn_inf_want_rank(f, 1, 3));
  if (zn_inf_known(f, 0) && zn_inf_known(f, 1)) {
    zn_expr per = boxes->dims[1]; /* at most every box, or the given number, per batch and class */
    const zn_expr *e = zn_inf_elems(f, 2, &n);
    if (e && n == 1 && e[0] && zn_inf_ge(f, e[0], 0)) per = zn_ex_min(f->ex, per, e[0]);
    if (!zn_node_in(f->nd, 2)) per = zn_inf_k(f, 0);
    bound = zn_ex_mul(f->ex, per, zn_ex_mul(f->ex, scores->dims[0], scores->dims[1]));
  }
  dims[0] = zn_inf_fresh(f, 0, 0, 0, bound);
  zn_inf_shape(f, 0, 2, dims);
  return ZN_OK;
}
