/* Inference of the operators that make tensors from numbers: shapes, ranges, fills and constants.
 */
#include "zenithc/ops/axes.h"
#include "zenithc/ops/infer_util.h"

#include <inttypes.h>
#include <math.h>

ZN_INFER(shape) {
  const zn_type *in = zn_inf_in(f, 0);
  if (!zn_inf_known(f, 0)) {
    zn_inf_unknown(f, 0, 1);
    return ZN_OK;
  }
  const int64_t r = in->rank;
  int64_t a = zn_node_int(f->nd, "start"),
          b = zn_node_has(f->nd, "end") ? zn_node_int(f->nd, "end") : r;
  if (a < 0) a += r;
  if (b < 0) b += r;
  a = a < 0 ? 0 : a > r ? r : a;
  b = b < 0 ? 0 : b > r ? r : b;
  const uint32_t n = b > a ? (uint32_t)(b - a) : 0;
  const zn_expr dim = zn_inf_k(f, n);
  zn_inf_shape(f, 0, 1, &dim);
  zn_expr *e = zn_inf_set_elems(f, 0, n);
  for (uint32_t i = 0; e && i < n; i++) e[i] = in->dims[a + i];
  return ZN_OK;
}

ZN_INFER(size) {
  zn_inf_shape(f, 0, 0, NULL);
  if (!zn_inf_known(f, 0)) return ZN_OK;
  zn_expr *e = zn_inf_set_elems(f, 0, 1);
  if (e) e[0] = zn_type_count(f->ex, zn_inf_in(f, 0));
  return ZN_OK;
}

/* Float start, limit and delta that are constants. */
static bool range_floats(const zn_inf *f, double *v) {
  for (uint32_t i = 0; i < 3; i++) {
    if (!zn_value_f64(f->g, zn_node_in(f->nd, i), &v[i])) return false;
  }
  return true;
}

static zn_status range_int(const zn_inf *f) {
  uint32_t n;
  zn_expr v[3];
  int64_t step, len;
  for (uint32_t i = 0; i < 3; i++) {
    const zn_expr *e = zn_inf_need(f, i, &n);
    if (!e || n != 1) {
      zn_inf_unknown(f, 0, 1);
      return ZN_OK;
    }
    v[i] = e[0];
  }
  zn_expr dim;
  if (!zn_ex_is_const(f->ex, v[2], &step)) {
    /* ceil((limit - start) / delta) = -floor((start - limit) / delta); the run refuses a delta of 0 */
    const zn_expr by = zn_ex_add(f->ex, v[2], zn_axes_equal(f->ex, v[2], zn_inf_k(f, 0)));
    const zn_expr floors = zn_ex_div(f->ex, zn_ex_sub(f->ex, v[0], v[1]), by);
    dim = zn_ex_named(f->ex, zn_ex_max(f->ex, zn_inf_k(f, 0), zn_ex_muli(f->ex, floors, -1)), 0);
  } else if (step == 0) {
    return zn_inf_err(f, "delta is 0");
  } else {
    /* a run-time limit from 0 is a length: ranges that use it are easier with its sign known */
    const zn_expr span = step > 0 ? zn_ex_sub(f->ex, v[1], v[0]) : zn_ex_sub(f->ex, v[0], v[1]);
    const zn_expr by = zn_inf_k(f, step > 0 ? step : -step);
    if (zn_ex_kind(f->ex, span) == ZN_EX_SYM && !zn_inf_ge(f, span, 0)) {
      zn_ex_set_range(f->ex, span, 0, INT64_MAX);
    }
    dim = zn_ex_max(f->ex, zn_inf_k(f, 0), zn_ex_ceildiv(f->ex, span, by));
  }
  zn_inf_shape(f, 0, 1, &dim);
  if (!zn_ex_is_const(f->ex, dim, &len) || len > ZN_MAX_ELEMS) return ZN_OK;
  zn_expr *e = zn_inf_set_elems(f, 0, (uint32_t)len);
  for (int64_t i = 0; e && i < len; i++) {
    e[i] = zn_ex_add(f->ex, v[0], zn_ex_muli(f->ex, v[2], i));
  }
  return ZN_OK;
}

ZN_INFER(range) {
  double v[3];
  const zn_type *t = zn_inf_in(f, 0);
  if (!t || !zn_is_float((zn_dtype)t->dtype)) return range_int(f);
  zn_expr dim = zn_inf_fresh(f, 0, 0, 0, ZN_EX_NONE);
  if (range_floats(f, v)) {
    if (v[2] == 0) return zn_inf_err(f, "delta is 0");
    const double n = ceil((v[1] - v[0]) / v[2]);
    if (!(n < 9e15)) return zn_inf_err(f, "the range has no finite length");
    dim = zn_inf_k(f, n > 0 ? (int64_t)n : 0);
  }
  zn_inf_shape(f, 0, 1, &dim);
  return ZN_OK;
}

ZN_INFER(constantofshape) {
  const zn_attr *a = zn_node_attr(f->nd, "value");
  uint32_t n, total;
  zn_expr dims[ZN_MAX_RANK];
  zn_inf_dtype(f, 0, a ? a->u.t->dtype : ZN_F32);
  if (a && zn_htensor_count(a->u.t) != 1)
    return zn_inf_err(f, "attribute 'value' must have one element");
  ZN_TRY(zn_inf_want_rank(f, 0, 1));
  const zn_expr *e = zn_inf_need(f, 0, &n);
  if (!e) return ZN_OK;
  if (n > ZN_MAX_RANK)
    return zn_inf_err(f, "rank %u is more than the supported %d", n, ZN_MAX_RANK);
  for (uint32_t d = 0; d < n; d++) {
    dims[d] = e[d];
    if (zn_inf_ge(f, e[d], 0) || zn_ex_is_const(f->ex, e[d], NULL)) continue;
    if (zn_ex_kind(f->ex, e[d]) == ZN_EX_SYM) {
      zn_ex_set_range(f->ex, e[d], 0, INT64_MAX);
    } else {
      dims[d] = zn_inf_fresh(f, 0, d, 0, ZN_EX_NONE);
    }
  }
  zn_inf_shape(f, 0, (int)n, dims);
  if (!zn_inf_count(f, zn_inf_out(f, 0), ZN_MAX_ELEMS, &total)) return ZN_OK;
  zn_expr *out = zn_inf_set_elems(f, 0, total);
  const int64_t fill = a && out ? zn_load_i64(a->u.t->dtype, a->u.t->data, 0) : 0;
  for (uint32_t k = 0; out && k < total; k++) out[k] = zn_inf_k(f, fill);
  return ZN_OK;
}

/* Import turns Constant nodes into constants; what is left (sparse values) is inferred here. */
ZN_INFER(constant) {
  const zn_node *nd = f->nd;
  const zn_attr *a;
  zn_expr dims[ZN_MAX_RANK];
  if ((a = zn_node_attr(nd, "value")) || (a = zn_node_attr(nd, "sparse_value"))) {
    zn_inf_dtype(f, 0, a->u.t->dtype);
    for (uint32_t d = 0; d < a->u.t->rank; d++) dims[d] = zn_inf_k(f, a->u.t->dims[d]);
    zn_inf_shape(f, 0, (int)a->u.t->rank, dims);
    return ZN_OK;
  }
  static const struct {
    const char *name;
    zn_dtype t;
    bool list;
  } kinds[] = {{"value_float", ZN_F32, false},  {"value_floats", ZN_F32, true},
               {"value_int", ZN_I64, false},    {"value_ints", ZN_I64, true},
               {"value_string", ZN_STR, false}, {"value_strings", ZN_STR, true}};
  for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    if (!(a = zn_node_attr(nd, kinds[k].name))) continue;
    zn_inf_dtype(f, 0, kinds[k].t);
    dims[0] = zn_inf_k(f, a->n);
    zn_inf_shape(f, 0, kinds[k].list ? 1 : 0, dims);
    return ZN_OK;
  }
  return zn_inf_err(f, "no value attribute is given");
}

ZN_INFER(eyelike) {
  const zn_type *in = zn_inf_in(f, 0);
  const bool given = zn_node_has(f->nd, "dtype");
  const zn_dtype t =
      given ? zn_dtype_from_onnx((int)zn_node_int(f->nd, "dtype")) : (zn_dtype)in->dtype;
  ZN_TRY(zn_inf_want_rank(f, 0, 2));
  zn_inf_dtype(f, 0, t);
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(onehot) {
  const zn_type *in = zn_inf_in(f, 0);
  zn_expr dims[ZN_MAX_RANK], depth = ZN_EX_NONE;
  uint32_t n;
  int axis;
  double x;
  if (!zn_inf_known(f, 0)) return ZN_OK;
  if (in->rank + 1 > ZN_MAX_RANK) return zn_inf_err(f, "rank %d is too large", in->rank + 1);
  ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), in->rank + 1, &axis));
  const zn_expr *e = zn_inf_need(f, 1, &n);
  if (e && n == 1) {
    depth = e[0];
  } else if (zn_value_f64(f->g, zn_node_in(f->nd, 1), &x)) {
    depth = zn_inf_k(f, (int64_t)x);
  }
  const zn_type *td = zn_inf_in(f, 1);
  if (!depth && td && zn_is_float((zn_dtype)td->dtype)) depth = zn_inf_scaled(f, 0, (uint32_t)axis, 1, 0, ZN_EX_NONE);
  if (!depth) depth = zn_inf_fresh(f, 0, (uint32_t)axis, 0, ZN_EX_NONE);
  for (int d = 0, s = 0; d <= in->rank; d++) dims[d] = d == axis ? depth : in->dims[s++];
  zn_inf_shape(f, 0, in->rank + 1, dims);
  return ZN_OK;
}
