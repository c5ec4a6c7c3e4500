/* Inference of the operators that only re-arrange: reshapes, transposes, slices, concatenation,
 * padding and tiling. */
#include "zenithc/ops/axes.h"
#include "zenithc/ops/infer_util.h"
#include "zenithc/ops/slice.h"

#include <inttypes.h>

static zn_expr product(const zn_inf *f, const zn_expr *dims, int from, int to) {
  zn_expr p = zn_inf_k(f, 1);
  for (int d = from; d < to; d++) p = zn_ex_mul(f->ex, p, dims[d]);
  return p;
}

/* total / (product of dims except slot), first cancelling equal factors so that zero-size and
 * non-linear dims divide cleanly. ZN_EX_NONE when a constant quotient is not whole. */
static zn_expr solve_dim(const zn_inf *f, const zn_type *in, const zn_expr *dims, int rank,
                         int slot) {
  zn_expr a[ZN_MAX_RANK], num, den = zn_inf_k(f, 1);
  int64_t x, y;
  for (int d = 0; d < in->rank; d++) a[d] = in->dims[d];
  for (int d = 0; d < rank; d++) {
    int k = 0;
    if (d == slot) continue;
    while (k < in->rank && a[k] != dims[d]) k++;
    if (k < in->rank && !zn_ex_is(f->ex, dims[d], 0)) {
      a[k] = zn_inf_k(f, 1);
    } else {
      den = zn_ex_mul(f->ex, den, dims[d]);
    }
  }
  num = product(f, a, 0, in->rank);
  if (zn_ex_is(f->ex, den, 0)) return zn_inf_k(f, 0);
  if (zn_ex_is_const(f->ex, num, &x) && zn_ex_is_const(f->ex, den, &y) && x % y) return ZN_EX_NONE;
  return zn_ex_div(f->ex, num, den);
}

/* Does e mention the content of a tensor (a number of any sign), not only sizes? */
static bool mentions_content(const zn_inf *f, zn_expr e) {
  if (zn_ex_kind(f->ex, e) == ZN_EX_SYM) {
    int64_t lo, hi;
    zn_ex_range(f->ex, e, &lo, &hi);
    return lo < 0;
  }
  for (uint32_t i = 0; i < zn_ex_arity(f->ex, e); i++)
    if (mentions_content(f, zn_ex_operand(f->ex, e, i))) return true;
  return false;
}

static zn_expr is_negative(zn_exprs *ex, zn_expr v) { /* 1 or 0 */
  zn_expr m = zn_ex_muli(ex, v, -1);
  return zn_ex_max(ex, zn_ex_const(ex, 0), zn_ex_min(ex, zn_ex_const(ex, 1), m));
}

/* Target entries that only the run knows: each may be a size, 0 (copy the input's) or -1 (what is left). Conditions are
 * factors of 0 or 1, so that the dims are expressions like any other. */
static void run_time_dims(const zn_inf *f, const zn_expr *e, uint32_t n, bool allowzero, zn_expr *dims) {
  zn_exprs *ex = f->ex;
  const zn_type *in = zn_inf_in(f, 0);
  zn_expr base[ZN_MAX_RANK], neg[ZN_MAX_RANK], one = zn_inf_k(f, 1);
  for (uint32_t i = 0; i < n; i++) {
    neg[i] = mentions_content(f, e[i]) ? zn_ex_named(ex, is_negative(ex, e[i]), 0) : zn_inf_k(f, 0);
    base[i] = zn_ex_mul(ex, dims[i], zn_ex_sub(ex, one, neg[i]));
    if (allowzero || (int)i >= in->rank || !mentions_content(f, e[i])) continue;
    zn_expr size = zn_ex_max(ex, e[i], zn_ex_muli(ex, e[i], -1));
    zn_expr zero = zn_ex_sub(ex, one, zn_ex_min(ex, one, size));
    base[i] = zn_ex_add(ex, base[i], zn_ex_mul(ex, zero, in->dims[i]));
  }
  for (uint32_t i = 0; i < n; i++)
    if (mentions_content(f, e[i])) base[i] = zn_ex_named(ex, base[i], 0);
  zn_expr total = product(f, in->dims, 0, in->rank);
  for (uint32_t i = 0; i < n; i++) {
    dims[i] = base[i];
    if (zn_ex_is(ex, neg[i], 0)) continue;
    zn_expr others = one;
    for (uint32_t k = 0; k < n; k++)
      if (k != i) others = zn_ex_mul(ex, others, base[k]);
    zn_expr rest = zn_ex_div(ex, total, zn_ex_max(ex, others, one));
    dims[i] = zn_ex_named(ex, zn_ex_add(ex, dims[i], zn_ex_mul(ex, neg[i], rest)), 0);
  }
}

/* Classifies the entries of a Reshape target into dims; *slot is the one to solve for, or -1. */
static zn_status reshape_dims(const zn_inf *f, const zn_expr *e, uint32_t n, zn_expr *dims,
                              int *slot) {
  const zn_type *in = zn_inf_in(f, 0);
  const bool allowzero = zn_node_int(f->nd, "allowzero") != 0;
  int open = 0, last_open = -1;
  *slot = -1;
  for (uint32_t i = 0; i < n; i++) {
    int64_t v;
    dims[i] = e[i];
    if (!zn_ex_is_const(f->ex, e[i], &v)) {
      if (!mentions_content(f, e[i])) continue; /* shape arithmetic is not negative */
      open++;
      last_open = (int)i;
    } else if (v == -1) {
      if (*slot >= 0) return zn_inf_err(f, "the target shape has more than one -1");
      *slot = (int)i;
    } else if (v < -1) {
      return zn_inf_err(f, "the target shape has the negative entry %" PRId64, v);
    } else if (v == 0 && !allowzero) {
      if (in->rank >= 0 && (int)i >= in->rank) {
        return zn_inf_err(f, "entry %u of the target shape is 0 (copy), but the input has rank %d",
                          i, in->rank);
      }
      dims[i] = in->rank >= 0 ? in->dims[i] : zn_inf_fresh(f, 0, i, 0, ZN_EX_NONE);
    }
  }
  if (*slot >= 0 || open == 0) return ZN_OK; /* beside a -1, an unknown entry is not negative */
  if (open == 1 && n == 1) {
    *slot = last_open;
    return ZN_OK;
  }
  if (in->rank >= 0) {
    run_time_dims(f, e, n, allowzero, dims);
    return ZN_OK;
  }
  for (uint32_t i = 0; i < n; i++)
    if (mentions_content(f, e[i])) dims[i] = zn_inf_fresh(f, 0, i, 0, ZN_EX_NONE);
  return ZN_OK;
}

ZN_INFER(reshape) {
  const zn_type *in = zn_inf_in(f, 0);
  uint32_t n;
  zn_expr dims[ZN_MAX_RANK];
  int slot;
  int64_t a, b;
  ZN_TRY(zn_inf_want_rank(f, 1, 1));
  const zn_expr *e = zn_inf_need(f, 1, &n);
  if (!e) return ZN_OK;
  if (n > ZN_MAX_RANK)
    return zn_inf_err(f, "rank %u is more than the supported %d", n, ZN_MAX_RANK);
  ZN_TRY(reshape_dims(f, e, n, dims, &slot));
  if (slot >= 0) {
    dims[slot] = in->rank < 0 ? zn_inf_fresh(f, 0, (uint32_t)slot, 0, ZN_EX_NONE)
                              : solve_dim(f, in, dims, (int)n, slot);
    if (dims[slot] == ZN_EX_NONE) {
      return zn_inf_err(f, "the elements of the input do not divide into the target shape");
    }
  } else if (in->rank >= 0 && zn_ex_is_const(f->ex, product(f, in->dims, 0, in->rank), &a) &&
             zn_ex_is_const(f->ex, product(f, dims, 0, (int)n), &b) && a != b) {
    return zn_inf_err(f, "the input has %" PRId64 " elements, the target shape %" PRId64, a, b);
  }
  zn_inf_shape(f, 0, (int)n, dims);
  zn_inf_copy_elems(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(flatten) {
  const zn_type *in = zn_inf_in(f, 0);
  zn_expr dims[2];
  int64_t axis = zn_node_int(f->nd, "axis");
  if (!zn_inf_known(f, 0)) {
    zn_inf_unknown(f, 0, 2);
    return ZN_OK;
  }
  if (axis < -in->rank || axis > in->rank) {
    return zn_inf_err(f, "axis %" PRId64 " is outside [%d, %d]", axis, -in->rank, in->rank);
  }
  if (axis < 0) axis += in->rank;
  dims[0] = product(f, in->dims, 0, (int)axis);
  dims[1] = product(f, in->dims, (int)axis, in->rank);
  zn_inf_shape(f, 0, 2, dims);
  zn_inf_copy_elems(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(squeeze) {
  const zn_type *in = zn_inf_in(f, 0);
  int64_t axes[ZN_MAX_RANK];
  uint32_t n = 0;
  bool drop[ZN_MAX_RANK];
  zn_expr dims[ZN_MAX_RANK];
  int r = 0;
  if (!zn_inf_known(f, 0)) return ZN_OK;
  const bool given = zn_node_in(f->nd, 1) != 0;
  zn_axes late;
  zn_inf_need(f, 1, &n);
  if (given && !zn_inf_i64s(f, 1, axes, ZN_MAX_RANK, &n)) {
    if (!zn_axes_resolve(f->g, f->nd->in[1], in->rank, &late)) return ZN_OK;
    zn_axes_drop(f->ex, &late, in->rank, in->dims, dims);
    zn_inf_shape(f, 0, in->rank - (int)late.count, dims);
    return ZN_OK;
  }
  ZN_TRY(zn_inf_axes(f, axes, n, in->rank, drop));
  for (int d = 0; d < in->rank; d++) {
    int64_t x;
    const bool k = zn_ex_is_const(f->ex, in->dims[d], &x);
    if (!given) drop[d] = k && x == 1;
    if (drop[d] && k && x != 1) {
      return zn_inf_err(f, "cannot squeeze axis %d: its extent is %" PRId64 ", not 1", d, x);
    }
    if (!drop[d]) dims[r++] = in->dims[d];
  }
  zn_inf_shape(f, 0, r, dims);
  zn_inf_copy_elems(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(unsqueeze) {
  const zn_type *in = zn_inf_in(f, 0);
  int64_t axes[ZN_MAX_RANK];
  uint32_t n;
  bool add[ZN_MAX_RANK];
  zn_expr dims[ZN_MAX_RANK];
  zn_axes late;
  if (!zn_inf_known(f, 0)) return ZN_OK;
  if (!zn_inf_need(f, 1, &n) && !zn_inf_i64s(f, 1, axes, ZN_MAX_RANK, &n)) return ZN_OK;
  const int rank = in->rank + (int)n;
  if (rank > ZN_MAX_RANK) {
    return zn_inf_err(f, "rank %d is more than the supported %d", rank, ZN_MAX_RANK);
  }
  if (!zn_inf_i64s(f, 1, axes, ZN_MAX_RANK, &n)) {
    if (!zn_axes_resolve(f->g, f->nd->in[1], rank, &late)) return ZN_OK;
    zn_axes_insert(f->ex, &late, rank, in->dims, dims);
    zn_inf_shape(f, 0, rank, dims);
    return ZN_OK;
  }
  ZN_TRY(zn_inf_axes(f, axes, n, rank, add));
  for (int d = 0, s = 0; d < rank; d++) dims[d] = add[d] ? zn_inf_k(f, 1) : in->dims[s++];
  zn_inf_shape(f, 0, rank, dims);
  zn_inf_copy_elems(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(transpose) {
  const zn_type *in = zn_inf_in(f, 0);
  uint32_t n, total, src[ZN_MAX_ELEMS], stride[ZN_MAX_RANK];
  zn_expr dims[ZN_MAX_RANK];
  int64_t rev[ZN_MAX_RANK], x;
  bool seen[ZN_MAX_RANK];
  if (!zn_inf_known(f, 0)) return ZN_OK;
  const int64_t *perm = zn_node_ints(f->nd, "perm", &n);
  for (int d = 0; d < in->rank; d++) rev[d] = in->rank - 1 - d;
  if (!perm || n == 0) perm = rev, n = (uint32_t)in->rank;
  if ((int)n != in->rank) {
    return zn_inf_err(f, "perm has %u entries, but the input has rank %d", n, in->rank);
  }
  for (uint32_t d = 0; d < n; d++) {
    if (perm[d] < 0) return zn_inf_err(f, "perm has the negative entry %" PRId64, perm[d]);
  }
  ZN_TRY(zn_inf_axes(f, perm, n, in->rank, seen));
  for (uint32_t d = 0; d < n; d++) dims[d] = in->dims[perm[d]];
  zn_inf_shape(f, 0, (int)n, dims);
  if (!zn_inf_count(f, in, ZN_MAX_ELEMS, &total)) return ZN_OK;
  uint32_t s = 1;
  for (int d = in->rank - 1; d >= 0; d--) {
    stride[d] = s;
    s *= zn_ex_is_const(f->ex, in->dims[d], &x) ? (uint32_t)x : 0;
  }
  for (uint32_t k = 0; k < total; k++) {
    uint32_t rest = k, idx = 0;
    for (int d = (int)n - 1; d >= 0; d--) {
      zn_ex_is_const(f->ex, dims[d], &x);
      idx += rest % (uint32_t)x * stride[perm[d]];
      rest /= (uint32_t)x;
    }
    src[k] = idx;
  }
  zn_inf_take(f, 0, 0, src, total);
  return ZN_OK;
}

ZN_INFER(expand) {
  const zn_type *in = zn_inf_in(f, 0);
  zn_expr dims[ZN_MAX_RANK], target[ZN_MAX_RANK];
  uint32_t n, total, m;
  ZN_TRY(zn_inf_want_rank(f, 1, 1));
  const zn_expr *e = zn_inf_need(f, 1, &n);
  if (!zn_inf_known(f, 0) || !e) return ZN_OK;
  if (n > ZN_MAX_RANK)
    return zn_inf_err(f, "rank %u is more than the supported %d", n, ZN_MAX_RANK);
  int rank = in->rank;
  for (int d = 0; d < rank; d++) dims[d] = in->dims[d];
  for (uint32_t d = 0; d < n; d++) {
    target[d] = e[d];
    if (zn_inf_ge(f, e[d], 0)) continue;
    /* an unknown content that serves as a dimension is not negative */
    if (zn_ex_kind(f->ex, e[d]) == ZN_EX_SYM) {
      zn_ex_set_range(f->ex, e[d], 0, INT64_MAX);
    } else if (!zn_ex_is_const(f->ex, e[d], NULL)) {
      target[d] = zn_inf_fresh(f, 0, d, 0, ZN_EX_NONE);
    }
  }
  ZN_TRY(zn_inf_bcast_shape(f, &rank, dims, (int)n, target));
  zn_inf_shape(f, 0, rank, dims);
  const zn_expr *src = zn_inf_elems(f, 0, &m);
  if (!src || m != 1 || !zn_inf_count(f, zn_inf_out(f, 0), ZN_MAX_ELEMS, &total)) return ZN_OK;
  zn_expr *dst = zn_inf_set_elems(f, 0, total);
  for (uint32_t k = 0; dst && k < total; k++) dst[k] = src[0];
  return ZN_OK;
}

/* ---- Slice ---- */

static void slice_elems(const zn_inf *f, const zn_expr *start, const zn_expr *step) {
  const zn_type *in = zn_inf_in(f, 0), *out = zn_inf_out(f, 0);
  uint32_t total, all, src[ZN_MAX_ELEMS];
  if (!zn_inf_count(f, out, ZN_MAX_ELEMS, &total) || !zn_inf_count(f, in, ZN_MAX_ELEMS, &all))
    return;
  for (uint32_t k = 0; k < total; k++) {
    uint32_t rest = k;
    int64_t idx = 0, stride = 1;
    for (int d = in->rank - 1; d >= 0; d--) {
      int64_t ext, s = 0, id, by;
      zn_ex_is_const(f->ex, out->dims[d], &ext);
      zn_ex_is_const(f->ex, in->dims[d], &id);
      if (!zn_ex_is_const(f->ex, start[d], &s) || !zn_ex_is_const(f->ex, step[d], &by)) return;
      idx += (s + (int64_t)(rest % (uint32_t)ext) * by) * stride;
      stride *= id;
      rest /= (uint32_t)ext;
    }
    src[k] = (uint32_t)idx;
  }
  zn_inf_take(f, 0, 0, src, total);
}

ZN_INFER(slice) {
  const zn_type *in = zn_inf_in(f, 0);
  int64_t axes[ZN_MAX_RANK], steps[ZN_MAX_RANK];
  zn_expr start[ZN_MAX_RANK], step[ZN_MAX_RANK], count[ZN_MAX_RANK];
  uint32_t ns, ne, na = 0, nk;
  bool mask[ZN_MAX_RANK];
  if (!zn_inf_known(f, 0)) return ZN_OK;
  const bool named = zn_inf_need(f, 1, &ns) && zn_inf_need(f, 2, &ne) &&
                     (!zn_node_in(f->nd, 3) || zn_inf_need(f, 3, &na)) &&
                     (!zn_node_in(f->nd, 4) || zn_inf_need(f, 4, &nk));
  if (!named) {
    zn_inf_unknown(f, 0, in->rank);
    return ZN_OK;
  }
  if (!zn_node_in(f->nd, 3)) na = ns;
  if (ns != ne || na != ns || ns > (uint32_t)in->rank) {
    return zn_inf_err(f, "starts, ends and axes have %u, %u and %u entries for rank %d", ns, ne, na,
                      in->rank);
  }
  if (zn_node_in(f->nd, 3) && zn_inf_i64s(f, 3, axes, ZN_MAX_RANK, &na)) {
    ZN_TRY(zn_inf_axes(f, axes, na, in->rank, mask));
  }
  if (zn_node_in(f->nd, 4)) {
    if (nk != ns) return zn_inf_err(f, "steps has %u entries, starts %u", nk, ns);
    if (zn_inf_i64s(f, 4, steps, ZN_MAX_RANK, &nk)) {
      for (uint32_t i = 0; i < nk; i++)
        if (steps[i] == 0) return zn_inf_err(f, "step %u is 0", i);
    }
  }
  if (!zn_slice_resolve(f->g, f->nd, start, step, count)) {
    zn_inf_unknown(f, 0, in->rank);
    return ZN_OK;
  }
  zn_inf_shape(f, 0, in->rank, count);
  slice_elems(f, start, step);
  return ZN_OK;
}

/* ---- Concat, Split ---- */

static void concat_elems(const zn_inf *f, int axis) {
  const zn_type *o = zn_inf_out(f, 0);
  uint32_t total, at = 0;
  bool any = false;
  for (int d = 0; d < axis; d++) {
    if (!zn_ex_is(f->ex, o->dims[d], 1)) return; /* not contiguous */
  }
  if (!zn_inf_count(f, o, ZN_MAX_ELEMS, &total)) return;
  for (uint32_t i = 0; i < f->nd->num_in; i++) {
    uint32_t m;
    any |= zn_inf_elems(f, i, &m) != NULL;
  }
  zn_expr *out = any ? zn_inf_set_elems(f, 0, total) : NULL;
  for (uint32_t i = 0; out && i < f->nd->num_in; i++) {
    uint32_t m, n;
    const zn_expr *e = zn_inf_elems(f, i, &n);
    if (!zn_inf_count(f, zn_inf_in(f, i), ZN_MAX_ELEMS, &m) || at + m > total) return;
    for (uint32_t k = 0; k < m; k++) out[at++] = e ? e[k] : ZN_EX_NONE;
  }
}

ZN_INFER(concat) {
  zn_expr dims[ZN_MAX_RANK];
  int rank = -1, axis = 0;
  for (uint32_t i = 0; i < f->nd->num_in; i++) {
    const zn_type *t = zn_inf_in(f, i);
    if (!t || t->rank < 0) return ZN_OK;
    if (rank < 0) {
      rank = t->rank;
      if (rank == 0) return zn_inf_err(f, "cannot concatenate scalars");
      ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), rank, &axis));
      for (int d = 0; d < rank; d++) dims[d] = t->dims[d];
      continue;
    }
    if (t->rank != rank) {
      return zn_inf_err(f, "input %u has rank %d, the first input %d", i + 1, t->rank, rank);
    }
    for (int d = 0; d < rank; d++) {
      if (d == axis) {
        dims[d] = zn_ex_add(f->ex, dims[d], t->dims[d]);
      } else {
        ZN_TRY(zn_inf_same_dim(f, dims[d], t->dims[d], "inputs differ off the axis"));
        if (zn_ex_is_const(f->ex, t->dims[d], NULL)) dims[d] = t->dims[d];
      }
    }
  }
  zn_inf_shape(f, 0, rank, dims);
  concat_elems(f, axis);
  return ZN_OK;
}

static void split_elems(const zn_inf *f, uint32_t o, int axis, zn_expr *offset) {
  const zn_type *in = zn_inf_in(f, 0), *t = zn_inf_out(f, o);
  uint32_t m, total, src[ZN_MAX_ELEMS];
  int64_t from, len;
  if (!t || in->rank != 1 || axis != 0 || !zn_inf_elems(f, 0, &m)) return;
  if (!zn_ex_is_const(f->ex, *offset, &from) || !zn_ex_is_const(f->ex, t->dims[0], &len)) return;
  if (!zn_inf_count(f, t, ZN_MAX_ELEMS, &total)) return;
  for (uint32_t k = 0; k < total; k++) src[k] = (uint32_t)from + k;
  zn_inf_take(f, o, 0, src, total);
}

ZN_INFER(split) {
  const zn_type *in = zn_inf_in(f, 0);
  const uint32_t parts = f->nd->num_out;
  uint32_t n;
  int axis;
  if (!zn_inf_known(f, 0)) return ZN_OK;
  ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), in->rank, &axis));
  if (zn_node_has(f->nd, "num_outputs") && zn_node_int(f->nd, "num_outputs") != (int64_t)parts) {
    return zn_inf_err(f, "num_outputs is %" PRId64 ", but the node has %u outputs",
                      zn_node_int(f->nd, "num_outputs"), parts);
  }
  const zn_expr *e = zn_inf_need(f, 1, &n);
  if (e && n != parts) return zn_inf_err(f, "split has %u entries for %u outputs", n, parts);
  zn_expr dims[ZN_MAX_RANK], at = zn_inf_k(f, 0);
  const zn_expr whole = in->dims[axis];
  const zn_expr chunk = zn_ex_ceildiv(f->ex, whole, zn_inf_k(f, parts));
  for (int d = 0; d < in->rank; d++) dims[d] = in->dims[d];
  for (uint32_t o = 0; o < parts; o++) {
    if (e) {
      dims[axis] = e[o];
    } else if (zn_node_in(f->nd, 1)) {
      dims[axis] = zn_inf_fresh(f, o, (uint32_t)axis, 0, whole);
    } else {
      dims[axis] = o + 1 < parts ? chunk : zn_ex_sub(f->ex, whole, at);
    }
    zn_inf_shape(f, o, in->rank, dims);
    split_elems(f, o, axis, &at);
    at = zn_ex_add(f->ex, at, dims[axis]);
  }
  return zn_inf_same_dim(f, at, whole, "the parts do not add up to the extent");
}

/* ---- Pad, Tile, blocks ---- */

/* Axes that the run gives: each may be any. */
static zn_status pad_late(const zn_inf *f, const zn_expr *p, uint32_t np) {
  const zn_type *in = zn_inf_in(f, 0);
  zn_axes a;
  zn_expr dims[ZN_MAX_RANK];
  if (!p || !zn_axes_resolve(f->g, f->nd->in[3], in->rank, &a)) {
    zn_inf_unknown(f, 0, in->rank);
    return ZN_OK;
  }
  if (np != 2 * a.count) return zn_inf_err(f, "pads has %u entries, expected %u", np, 2 * a.count);
  for (int d = 0; d < in->rank; d++) {
    dims[d] = in->dims[d];
    for (uint32_t i = 0; i < a.count; i++) {
      const zn_expr both = zn_ex_add(f->ex, p[i], p[a.count + i]);
      dims[d] = zn_ex_add(f->ex, dims[d], zn_ex_mul(f->ex, zn_axes_is(f->ex, a.entry[i], d, in->rank), both));
    }
  }
  zn_inf_shape(f, 0, in->rank, dims);
  return ZN_OK;
}

ZN_INFER(pad) {
  const zn_type *in = zn_inf_in(f, 0);
  int64_t axes[ZN_MAX_RANK];
  uint32_t np, na;
  bool mask[ZN_MAX_RANK];
  zn_expr dims[ZN_MAX_RANK];
  if (!zn_inf_known(f, 0)) return ZN_OK;
  const zn_expr *p = zn_inf_need(f, 1, &np);
  if (zn_node_in(f->nd, 3)) {
    zn_inf_need(f, 3, &na);
    if (!zn_inf_i64s(f, 3, axes, ZN_MAX_RANK, &na)) return pad_late(f, p, np);
  } else {
    na = (uint32_t)in->rank;
    for (uint32_t i = 0; i < na; i++) axes[i] = (int64_t)i;
  }
  if (!p) {
    zn_inf_unknown(f, 0, in->rank);
    return ZN_OK;
  }
  if (np != 2 * na) return zn_inf_err(f, "pads has %u entries, expected %u", np, 2 * na);
  ZN_TRY(zn_inf_axes(f, axes, na, in->rank, mask));
  for (int d = 0; d < in->rank; d++) dims[d] = in->dims[d];
  for (uint32_t i = 0; i < na; i++) {
    const int64_t ax = axes[i] < 0 ? axes[i] + in->rank : axes[i];
    dims[ax] = zn_ex_add(f->ex, dims[ax], zn_ex_add(f->ex, p[i], p[na + i]));
  }
  zn_inf_shape(f, 0, in->rank, dims);
  return ZN_OK;
}

ZN_INFER(tile) {
  const zn_type *in = zn_inf_in(f, 0);
  uint32_t n, m, total, src[ZN_MAX_ELEMS];
  zn_expr dims[ZN_MAX_RANK];
  if (!zn_inf_known(f, 0)) return ZN_OK;
  const zn_expr *r = zn_inf_need(f, 1, &n);
  if (!r) {
    zn_inf_unknown(f, 0, in->rank);
    return ZN_OK;
  }
  if ((int)n != in->rank) {
    return zn_inf_err(f, "repeats has %u entries, but the input has rank %d", n, in->rank);
  }
  for (uint32_t d = 0; d < n; d++) {
    if (!zn_inf_ge(f, r[d], 0) && zn_ex_kind(f->ex, r[d]) == ZN_EX_SYM) {
      zn_ex_set_range(f->ex, r[d], 0, INT64_MAX);
    }
    dims[d] = zn_ex_mul(f->ex, in->dims[d], r[d]);
  }
  zn_inf_shape(f, 0, in->rank, dims);
  if (in->rank != 1 || !zn_inf_elems(f, 0, &m) || m == 0) return ZN_OK;
  if (!zn_inf_count(f, zn_inf_out(f, 0), ZN_MAX_ELEMS, &total)) return ZN_OK;
  for (uint32_t k = 0; k < total; k++) src[k] = k % m;
  zn_inf_take(f, 0, 0, src, total);
  return ZN_OK;
}

static zn_status blocks(const zn_inf *f, bool to_space) {
  const zn_type *in = zn_inf_in(f, 0);
  const int64_t b = zn_node_int(f->nd, "blocksize");
  zn_expr dims[4];
  int64_t c;
  ZN_TRY(zn_inf_want_rank(f, 0, 4));
  if (!zn_inf_known(f, 0)) return ZN_OK;
  if (b <= 0 || b > 1 << 20) return zn_inf_err(f, "blocksize is %" PRId64, b);
  for (int d = 0; d < 4; d++) dims[d] = in->dims[d];
  for (int d = to_space ? 1 : 2; d < (to_space ? 2 : 4); d++) {
    const int64_t by = to_space ? b * b : b;
    if (zn_ex_is_const(f->ex, dims[d], &c) && c % by) {
      return zn_inf_err(f, "extent %" PRId64 " of axis %d is not a multiple of %" PRId64, c, d, by);
    }
    dims[d] = zn_ex_divi(f->ex, dims[d], by);
  }
  for (int d = to_space ? 2 : 1; d < (to_space ? 4 : 2); d++) {
    dims[d] = zn_ex_muli(f->ex, dims[d], to_space ? b : b * b);
  }
  zn_inf_shape(f, 0, 4, dims);
  return ZN_OK;
}

ZN_INFER(depthtospace) { return blocks(f, true); }
ZN_INFER(spacetodepth) { return blocks(f, false); }

ZN_INFER(centercroppad) {
  const zn_type *in = zn_inf_in(f, 0);
  uint32_t n, na;
  bool mask[ZN_MAX_RANK];
  int64_t all[ZN_MAX_RANK];
  zn_expr dims[ZN_MAX_RANK];
  if (!zn_inf_known(f, 0)) return ZN_OK;
  const int64_t *axes = zn_node_ints(f->nd, "axes", &na);
  if (!axes) {
    na = (uint32_t)in->rank;
    for (uint32_t d = 0; d < na; d++) all[d] = (int64_t)d;
    axes = all;
  }
  const zn_expr *e = zn_inf_need(f, 1, &n);
  if (e && n != na) return zn_inf_err(f, "shape has %u entries for %u axes", n, na);
  ZN_TRY(zn_inf_axes(f, axes, na, in->rank, mask));
  for (int d = 0; d < in->rank; d++) dims[d] = in->dims[d];
  for (uint32_t i = 0; i < na; i++) {
    const int64_t ax = axes[i] < 0 ? axes[i] + in->rank : axes[i];
    dims[ax] = e ? e[i] : zn_inf_fresh(f, 0, (uint32_t)ax, 0, ZN_EX_NONE);
  }
  zn_inf_shape(f, 0, in->rank, dims);
  return ZN_OK;
}

ZN_INFER(reversesequence) {
  ZN_TRY(zn_inf_min_rank(f, 0, 2));
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(trilu) {
  ZN_TRY(zn_inf_min_rank(f, 0, 2));
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}
