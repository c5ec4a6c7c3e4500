/* Operators that make tensors from attributes and scalars, and casts. */
#include "zenithc/eval/eval_impl.h"

static zn_status from_tensor(zn_ev *e, const zn_htensor *t) {
  ZN_TRY(zn_ev_out(e, 0, t->dtype, t->rank, t->dims));
  zn_eval_val v = zn_eval_from_htensor(e->tmp, t);
  memcpy(e->out[0].u.p, v.u.p, v.count * zn_ev_esize(t->dtype));
  return ZN_OK;
}

zn_status zn_eval_constant(zn_ev *e) {
  const zn_attr *a = zn_node_attr(e->n, "value");
  if (a) return from_tensor(e, a->u.t);
  for (uint32_t i = 0; i < e->n->num_attrs; i++) {
    a = &e->n->attrs[i];
    int64_t n = a->n;
    switch (a->kind) {
    case ZN_A_INT:
      ZN_TRY(zn_ev_out(e, 0, ZN_I64, 0, NULL));
      e->out[0].u.i[0] = a->u.i;
      return ZN_OK;
    case ZN_A_FLOAT:
      ZN_TRY(zn_ev_out(e, 0, ZN_F32, 0, NULL));
      e->out[0].u.f[0] = a->u.f;
      return ZN_OK;
    case ZN_A_STRING:
      ZN_TRY(zn_ev_out(e, 0, ZN_STR, 0, NULL));
      e->out[0].u.s[0] = a->u.s;
      return ZN_OK;
    case ZN_A_INTS:
      ZN_TRY(zn_ev_out(e, 0, ZN_I64, 1, &n));
      for (uint32_t k = 0; k < a->n; k++) e->out[0].u.i[k] = a->u.is[k];
      return ZN_OK;
    case ZN_A_FLOATS:
      ZN_TRY(zn_ev_out(e, 0, ZN_F32, 1, &n));
      for (uint32_t k = 0; k < a->n; k++) e->out[0].u.f[k] = a->u.fs[k];
      return ZN_OK;
    case ZN_A_STRINGS:
      ZN_TRY(zn_ev_out(e, 0, ZN_STR, 1, &n));
      for (uint32_t k = 0; k < a->n; k++) e->out[0].u.s[k] = a->u.ss[k];
      return ZN_OK;
    case ZN_A_TENSOR: return from_tensor(e, a->u.t);
    default: break;
    }
  }
  return zn_ev_fail(e, "the constant has no value");
}

zn_status zn_eval_constantofshape(zn_ev *e) {
  const int64_t *dims;
  uint32_t n;
  if (!zn_ev_ints(e, 0, &dims, &n)) return zn_ev_fail(e, "shape is missing");
  const zn_attr *a = zn_node_attr(e->n, "value");
  ZN_TRY(zn_ev_out(e, 0, a ? a->u.t->dtype : ZN_F32, n, dims));
  if (!a) return ZN_OK;
  zn_eval_val v = zn_eval_from_htensor(e->tmp, a->u.t);
  for (uint64_t k = 0; k < e->out[0].count; k++)
    zn_ev_copy1(e->out[0].u.p, k, v.u.p, 0, zn_ev_esize(a->u.t->dtype));
  return ZN_OK;
}

zn_status zn_eval_eyelike(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  if (x->rank != 2) return zn_ev_fail(e, "input has rank %u, expected 2", x->rank);
  const zn_attr *d = zn_node_attr(e->n, "dtype");
  int64_t k = zn_node_int(e->n, "k");
  ZN_TRY(zn_ev_out(e, 0, d ? zn_dtype_from_onnx((int)d->u.i) : (zn_dtype)x->dtype, 2, x->dims));
  for (int64_t r = 0; r < x->dims[0]; r++)
    if (r + k >= 0 && r + k < x->dims[1])
      zn_ev_set(&e->out[0], (uint64_t)(r * x->dims[1] + r + k), 1);
  return ZN_OK;
}

zn_status zn_eval_range(zn_ev *e) {
  const zn_eval_val *a = e->in[0], *b = e->in[1], *s = e->in[2];
  zn_dtype t = (zn_dtype)a->dtype;
  int64_t n;
  if (!a->count || !b->count || !s->count)
    return zn_ev_fail(e, "start, limit and delta must be scalars");
  if (zn_is_float(t)) {
    if (s->u.f[0] == 0) return zn_ev_fail(e, "delta is 0");
    double count = ceil(zn_ev_key(t, zn_ev_key(t, b->u.f[0] - a->u.f[0]) / s->u.f[0]));
    if (!(count < 1e12)) return zn_ev_fail(e, "the range is not finite");
    n = count > 0 ? (int64_t)count : 0;
  } else {
    if (s->u.i[0] == 0) return zn_ev_fail(e, "delta is 0");
    int64_t d = b->u.i[0] - a->u.i[0], st = s->u.i[0];
    n = (d > 0) == (st > 0) && d != 0 ? (d > 0 ? (d - 1) / st + 1 : (d + 1) / st + 1) : 0;
  }
  ZN_TRY(zn_ev_out(e, 0, t, 1, &n));
  for (int64_t i = 0; i < n; i++) {
    if (zn_is_float(t))
      e->out[0].u.f[i] = zn_ev_r(e, a->u.f[0] + zn_ev_r(e, (double)i * s->u.f[0]));
    else e->out[0].u.i[i] = zn_int_wrap(t, a->u.i[0] + i * s->u.i[0]);
  }
  return ZN_OK;
}

zn_status zn_eval_cast(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  zn_dtype to = e->op == ZN_OP_Cast ? zn_dtype_from_onnx((int)zn_node_int(e->n, "to"))
                                    : (zn_dtype)e->in[1]->dtype;
  if (to == ZN_NONE) return zn_ev_fail(e, "the target type is unknown");
  if (to == x->dtype && (!zn_is_float(to) || zn_dtype_bytes(to) > 2)) {
    e->out[0] = zn_ev_share(x);
    return ZN_OK;
  }
  bool saturate = zn_node_int(e->n, "saturate") != 0;
  const char *mode = zn_node_str(e->n, "round_mode");
  ZN_TRY(zn_ev_out(e, 0, to, x->rank, x->dims));
  for (uint64_t k = 0; k < x->count; k++)
    ZN_TRY(zn_ev_cast1(e, &e->out[0], k, x, k, saturate, mode));
  return ZN_OK;
}

zn_status zn_eval_bitcast(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  zn_dtype to = zn_dtype_from_onnx((int)zn_node_int(e->n, "to"));
  if (to == ZN_NONE || to == ZN_STR || x->dtype == ZN_STR ||
      zn_dtype_bytes(to) != zn_dtype_bytes((zn_dtype)x->dtype))
    return zn_ev_fail(e, "the types differ in width");
  zn_htensor h = zn_eval_to_htensor(e->tmp, x);
  h.dtype = to;
  return from_tensor(e, &h);
}

zn_status zn_eval_onehot(zn_ev *e) {
  const zn_eval_val *ind = e->in[0], *dv = e->in[1], *vals = e->in[2];
  if (!dv->count || vals->count != 2)
    return zn_ev_fail(e, "depth must be a scalar and values a pair");
  int64_t depth = (int64_t)zn_ev_get(dv, 0), axis = zn_node_int(e->n, "axis"), dims[ZN_MAX_RANK];
  uint32_t a, rank = ind->rank + 1;
  if (rank > ZN_MAX_RANK) return zn_ev_fail(e, "rank exceeds %d", ZN_MAX_RANK);
  ZN_TRY(zn_ev_axis(e, axis, rank, &a));
  for (uint32_t d = 0; d < rank; d++) dims[d] = d == a ? depth : ind->dims[d < a ? d : d - 1];
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)vals->dtype, rank, dims));
  uint64_t outer, n, inner;
  size_t es = zn_ev_esize((zn_dtype)vals->dtype);
  zn_ev_split(&e->out[0], a, &outer, &n, &inner);
  for (uint64_t k = 0; k < e->out[0].count; k++) zn_ev_copy1(e->out[0].u.p, k, vals->u.p, 0, es);
  for (uint64_t o = 0; o < outer; o++)
    for (uint64_t j = 0; j < inner; j++) {
      int64_t i = zn_ev_geti(ind, o * inner + j);
      if (i < 0) i += depth;
      if (i >= 0 && i < depth)
        zn_ev_copy1(e->out[0].u.p, (o * n + (uint64_t)i) * inner + j, vals->u.p, 1, es);
    }
  return ZN_OK;
}
