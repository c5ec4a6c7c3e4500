/* Inference of reductions, normalisations with several outputs, and losses. */
#include "zenithc/ops/axes.h"
#include "zenithc/ops/infer_util.h"

#include <inttypes.h>

/* The contents of a full reduction of known integers. */
static void reduce_elems(const zn_inf *f) {
  uint32_t n, total;
  const zn_expr *in = zn_inf_elems(f, 0, &n);
  const zn_op op = f->nd->op;
  if (!in || n == 0 || !zn_inf_count(f, zn_inf_out(f, 0), 1, &total) || total != 1) return;
  if (op != ZN_OP_ReduceProd && op != ZN_OP_ReduceSum && op != ZN_OP_ReduceMax &&
      op != ZN_OP_ReduceMin) {
    return;
  }
  zn_expr r = in[0];
  for (uint32_t k = 1; r && k < n; k++) {
    if (!in[k]) r = ZN_EX_NONE;
    else if (op == ZN_OP_ReduceProd) r = zn_ex_mul(f->ex, r, in[k]);
    else if (op == ZN_OP_ReduceSum) r = zn_ex_add(f->ex, r, in[k]);
    else if (op == ZN_OP_ReduceMax) r = zn_ex_max(f->ex, r, in[k]);
    else r = zn_ex_min(f->ex, r, in[k]);
  }
  zn_expr *out = r > ZN_EX_OVERFLOW ? zn_inf_set_elems(f, 0, 1) : NULL;
  if (out) out[0] = r;
}

static void reduced(const zn_inf *f, uint32_t o, const bool *mask, bool keep) {
  const zn_type *in = zn_inf_in(f, 0);
  zn_expr dims[ZN_MAX_RANK];
  int r = 0;
  for (int d = 0; d < in->rank; d++) {
    if (!mask[d]) dims[r++] = in->dims[d];
    else if (keep) dims[r++] = zn_inf_k(f, 1);
  }
  zn_inf_shape(f, o, r, dims);
}

/* Axes that the run gives: kept ones have the input's extent, listed ones 1. */
static void reduced_late(const zn_inf *f, const zn_axes *a, bool keep) {
  const zn_type *in = zn_inf_in(f, 0);
  zn_expr dims[ZN_MAX_RANK], ones[ZN_MAX_RANK];
  if (!keep) {
    zn_axes_drop(f->ex, a, in->rank, in->dims, dims);
    zn_inf_shape(f, 0, in->rank - (int)a->count, dims);
    return;
  }
  for (int d = 0; d < in->rank; d++) {
    ones[d] = zn_ex_sub(f->ex, zn_inf_k(f, 1), in->dims[d]);
    dims[d] = zn_ex_named(f->ex, zn_ex_add(f->ex, in->dims[d], zn_ex_mul(f->ex, a->mask[d], ones[d])), 0);
  }
  zn_inf_shape(f, 0, in->rank, dims);
}

ZN_INFER(reduce) {
  const zn_type *in = zn_inf_in(f, 0);
  const bool keep = zn_node_int(f->nd, "keepdims") != 0;
  int64_t axes[ZN_MAX_RANK];
  uint32_t n = 0;
  bool mask[ZN_MAX_RANK];
  zn_axes late;
  if (!zn_inf_known(f, 0)) return ZN_OK;
  zn_inf_need(f, 1, &n);
  if (zn_node_in(f->nd, 1) && !zn_inf_i64s(f, 1, axes, ZN_MAX_RANK, &n)) {
    if (zn_axes_resolve(f->g, f->nd->in[1], in->rank, &late)) {
      reduced_late(f, &late, keep);
    } else if (keep) {
      zn_inf_unknown(f, 0, in->rank);
    }
    return ZN_OK;
  }
  ZN_TRY(zn_inf_axes(f, axes, n, in->rank, mask));
  if (n == 0) {
    const bool all = zn_node_int(f->nd, "noop_with_empty_axes") == 0;
    for (int d = 0; d < in->rank; d++) mask[d] = all;
  }
  reduced(f, 0, mask, keep);
  reduce_elems(f);
  return ZN_OK;
}

ZN_INFER(argreduce) {
  const zn_type *in = zn_inf_in(f, 0);
  bool mask[ZN_MAX_RANK] = {false};
  int axis;
  if (!zn_inf_known(f, 0)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 0, 1));
  ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), in->rank, &axis));
  if (zn_ex_is(f->ex, in->dims[axis], 0)) return zn_inf_err(f, "axis %d has no elements", axis);
  mask[axis] = true;
  reduced(f, 0, mask, zn_node_int(f->nd, "keepdims") != 0);
  return ZN_OK;
}

ZN_INFER(globalpool) {
  const zn_type *in = zn_inf_in(f, 0);
  bool mask[ZN_MAX_RANK];
  if (!zn_inf_known(f, 0)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 0, 2));
  for (int d = 0; d < in->rank; d++) mask[d] = d >= 2;
  reduced(f, 0, mask, true);
  return ZN_OK;
}

/* Input i broadcasts to the shape of x, which stays as it is. */
static zn_status spreads_over(const zn_inf *f, uint32_t i, const zn_type *x) {
  if (!zn_inf_known(f, i)) return ZN_OK;
  const zn_type *t = zn_inf_in(f, i);
  if (t->rank > x->rank) return zn_inf_err(f, "input %u has rank %d, more than the data's %d", i + 1, t->rank, x->rank);
  for (int d = 0; d < t->rank; d++) {
    if (zn_ex_is(f->ex, t->dims[d], 1)) continue;
    ZN_TRY(zn_inf_same_dim(f, x->dims[x->rank - t->rank + d], t->dims[d], "the data's and an operand's size"));
  }
  return ZN_OK;
}

ZN_INFER(layernorm) {
  const zn_type *in = zn_inf_in(f, 0);
  bool mask[ZN_MAX_RANK];
  int axis;
  zn_inf_same(f, 0, 0);
  const zn_dtype stat = (zn_dtype)(f->nd->num_out > 1 && zn_node_has(f->nd, "stash_type")
                                       ? zn_dtype_from_onnx((int)zn_node_int(f->nd, "stash_type"))
                                       : ZN_F32);
  zn_inf_dtype(f, 1, stat);
  zn_inf_dtype(f, 2, stat);
  if (!zn_inf_known(f, 0)) return ZN_OK;
  ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), in->rank, &axis));
  for (uint32_t i = 1; i < f->nd->num_in; i++) ZN_TRY(spreads_over(f, i, in));
  for (int d = 0; d < in->rank; d++) mask[d] = d >= axis;
  if (zn_inf_out(f, 1)) reduced(f, 1, mask, true);
  if (zn_inf_out(f, 2)) reduced(f, 2, mask, true);
  return ZN_OK;
}

ZN_INFER(batchnormalization) {
  const zn_type *x = zn_inf_in(f, 0);
  zn_inf_same(f, 0, 0);
  zn_inf_same(f, 1, 3);
  zn_inf_same(f, 2, 4);
  for (uint32_t i = 1; i < 5; i++) {
    ZN_TRY(zn_inf_want_rank(f, i, 1));
    if (x->rank >= 2 && zn_inf_known(f, i)) {
      ZN_TRY(zn_inf_same_dim(f, x->dims[1], zn_inf_in(f, i)->dims[0],
                             "channels of X and the length of a per-channel input"));
    }
  }
  return ZN_OK;
}

static zn_status loss(const zn_inf *f) {
  const char *red = zn_node_str(f->nd, "reduction");
  ZN_TRY(zn_inf_min_rank(f, 0, 2));
  if (red && strcmp(red, "none") == 0) {
    zn_inf_same(f, 0, 1);
  } else {
    zn_inf_shape(f, 0, 0, NULL);
  }
  return ZN_OK;
}

ZN_INFER(negativeloglikelihoodloss) { return loss(f); }

ZN_INFER(softmaxcrossentropyloss) {
  zn_inf_same(f, 1, 0);
  return loss(f);
}

ZN_INFER(det) {
  const zn_type *in = zn_inf_in(f, 0);
  if (!zn_inf_known(f, 0)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 0, 2));
  ZN_TRY(zn_inf_same_dim(f, in->dims[in->rank - 1], in->dims[in->rank - 2], "rows and columns"));
  zn_inf_shape(f, 0, in->rank - 2, in->dims);
  return ZN_OK;
}

ZN_INFER(inverse) {
  const zn_type *in = zn_inf_in(f, 0);
  if (!zn_inf_known(f, 0)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 0, 2));
  ZN_TRY(zn_inf_same_dim(f, in->dims[in->rank - 1], in->dims[in->rank - 2], "rows and columns"));
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}
