/* Inference of elementwise operators: numpy broadcasting of shapes, and integer arithmetic on known
 * contents, which is how the shape computations of exporters disappear. */
#include "zenithc/ops/infer_util.h"

static bool const2(const zn_inf *f, zn_expr a, zn_expr b, int64_t *x, int64_t *y) {
  return zn_ex_is_const(f->ex, a, x) && zn_ex_is_const(f->ex, b, y);
}

/* -1 unknown, else the truth of a < b. */
static int less(const zn_inf *f, zn_expr a, zn_expr b) {
  if (zn_ex_lt(f->ex, a, b)) return 1;
  return zn_ex_le(f->ex, b, a) ? 0 : -1;
}

static int equal(const zn_inf *f, zn_expr a, zn_expr b) {
  if (a == b) return 1;
  int64_t alo, ahi, blo, bhi;
  zn_ex_range(f->ex, a, &alo, &ahi);
  zn_ex_range(f->ex, b, &blo, &bhi);
  if (ahi < blo || bhi < alo || zn_ex_lt(f->ex, a, b) || zn_ex_lt(f->ex, b, a)) return 0;
  return -1;
}

static zn_expr truth(const zn_inf *f, int t) { return t < 0 ? ZN_EX_NONE : zn_inf_k(f, t); }
static zn_expr negate(const zn_inf *f, int t) { return t < 0 ? ZN_EX_NONE : zn_inf_k(f, !t); }

/* Truncating division: floor division of the positive and of the negative part. */
static zn_expr div_trunc(const zn_inf *f, zn_expr a, zn_expr b) {
  int64_t x, y;
  if (const2(f, a, b, &x, &y)) {
    if (y == 0 || (x == INT64_MIN && y == -1)) return ZN_EX_NONE;
    return zn_inf_k(f, x / y);
  }
  if (!zn_inf_ge(f, b, 1)) return ZN_EX_NONE;
  if (zn_inf_ge(f, a, 0)) return zn_ex_div(f->ex, a, b);
  const zn_expr zero = zn_inf_k(f, 0), up = zn_ex_max(f->ex, a, zero), down = zn_ex_max(f->ex, zn_ex_muli(f->ex, a, -1), zero);
  const zn_expr whole = zn_ex_div(f->ex, up, b);
  return zn_ex_sub(f->ex, whole, zn_ex_div(f->ex, down, b));
}

static zn_expr mod_op(const zn_inf *f, zn_expr a, zn_expr b) {
  int64_t x, y;
  const bool fmod_rule = zn_node_int(f->nd, "fmod") != 0;
  if (const2(f, a, b, &x, &y)) {
    if (y == 0 || y == -1) return y ? zn_inf_k(f, 0) : ZN_EX_NONE;
    const int64_t r = x % y;
    return zn_inf_k(f, !fmod_rule && r != 0 && (r < 0) != (y < 0) ? r + y : r);
  }
  if (!zn_inf_ge(f, b, 1) || (fmod_rule && !zn_inf_ge(f, a, 0))) return ZN_EX_NONE;
  return zn_ex_mod(f->ex, a, b);
}

static zn_expr pow_op(const zn_inf *f, zn_expr a, zn_expr b) {
  int64_t k;
  if (!zn_ex_is_const(f->ex, b, &k) || k < 0 || k > 8) return ZN_EX_NONE;
  zn_expr r = zn_inf_k(f, 1);
  for (int64_t i = 0; i < k; i++) r = zn_ex_mul(f->ex, r, a);
  return r;
}

static zn_expr logic(const zn_inf *f, zn_op op, zn_expr a, zn_expr b) {
  int64_t x, y;
  if (!const2(f, a, b, &x, &y)) return ZN_EX_NONE;
  const bool p = x != 0, q = y != 0;
  return zn_inf_k(f, op == ZN_OP_And ? p && q : op == ZN_OP_Or ? p || q : p != q);
}

static zn_expr binary(const zn_inf *f, zn_op op, zn_expr a, zn_expr b) {
  if (!a || !b) return ZN_EX_NONE;
  switch ((unsigned)op) {
    case ZN_OP_Add: return zn_ex_add(f->ex, a, b);
    case ZN_OP_Sub: return zn_ex_sub(f->ex, a, b);
    case ZN_OP_Mul: return zn_ex_mul(f->ex, a, b);
    case ZN_OP_Div: return div_trunc(f, a, b);
    case ZN_OP_Mod: return mod_op(f, a, b);
    case ZN_OP_Pow: return pow_op(f, a, b);
    case ZN_OP_Min: return zn_ex_min(f->ex, a, b);
    case ZN_OP_Max: return zn_ex_max(f->ex, a, b);
    case ZN_OP_And:
    case ZN_OP_Or:
    case ZN_OP_Xor: return logic(f, op, a, b);
    case ZN_OP_Equal: return truth(f, equal(f, a, b));
    case ZN_OP_Less: return truth(f, less(f, a, b));
    case ZN_OP_Greater: return truth(f, less(f, b, a));
    case ZN_OP_LessOrEqual: return negate(f, less(f, b, a));
    case ZN_OP_GreaterOrEqual: return negate(f, less(f, a, b));
    default: return ZN_EX_NONE;
  }
}

static zn_expr unary(const zn_inf *f, zn_op op, zn_expr a) {
  int64_t x;
  if (!a) return ZN_EX_NONE;
  const bool k = zn_ex_is_const(f->ex, a, &x);
  switch ((unsigned)op) {
    case ZN_OP_Neg: return zn_ex_muli(f->ex, a, -1);
    case ZN_OP_Abs:
      return k && x > INT64_MIN ? zn_inf_k(f, x < 0 ? -x : x) : zn_inf_ge(f, a, 0) ? a : ZN_EX_NONE;
    case ZN_OP_Relu: return zn_ex_max(f->ex, a, zn_inf_k(f, 0));
    case ZN_OP_Sign:
      return k ? zn_inf_k(f, (x > 0) - (x < 0)) : zn_inf_ge(f, a, 1) ? zn_inf_k(f, 1) : ZN_EX_NONE;
    case ZN_OP_Not: return k ? zn_inf_k(f, x == 0) : ZN_EX_NONE;
    default: return ZN_EX_NONE;
  }
}

static zn_expr apply(const zn_inf *f, const zn_expr *a, uint32_t n) {
  const zn_op op = f->nd->op;
  int64_t x;
  if (op == ZN_OP_Where) {
    if (a[1] && a[1] == a[2]) return a[1];
    return a[0] && zn_ex_is_const(f->ex, a[0], &x) ? a[x ? 1 : 2] : ZN_EX_NONE;
  }
  if (op == ZN_OP_Clip) {
    zn_expr r = a[0];
    if (r && zn_node_in(f->nd, 1)) r = a[1] ? zn_ex_max(f->ex, r, a[1]) : ZN_EX_NONE;
    if (r && n > 2 && zn_node_in(f->nd, 2)) r = a[2] ? zn_ex_min(f->ex, r, a[2]) : ZN_EX_NONE;
    return r;
  }
  if (n == 1) return op == ZN_OP_Max || op == ZN_OP_Min ? a[0] : unary(f, op, a[0]);
  zn_expr r = a[0];
  for (uint32_t i = 1; i < n; i++) r = binary(f, op, r, a[i]);
  return r;
}

/* Wraps constants to the result type; symbolic results are kept for the types that shapes use. */
static zn_expr to_type(const zn_inf *f, zn_dtype t, zn_expr e) {
  int64_t x;
  if (e <= ZN_EX_OVERFLOW) return ZN_EX_NONE;
  if (zn_ex_is_const(f->ex, e, &x)) return zn_inf_k(f, t == ZN_BOOL ? x != 0 : zn_int_wrap(t, x));
  return t == ZN_I64 || t == ZN_I32 || t == ZN_U64 ? e : ZN_EX_NONE;
}

/* Source index in a tensor of shape `dims` of the element at `at` of the broadcast result. */
static uint32_t bcast_index(const zn_inf *f, const zn_type *t, int rank, const uint32_t *at) {
  uint32_t idx = 0;
  for (int d = 0; d < t->rank; d++) {
    int64_t x = 1;
    zn_ex_is_const(f->ex, t->dims[d], &x);
    idx = idx * (uint32_t)x + (x == 1 ? 0 : at[rank - t->rank + d]);
  }
  return idx;
}

static void map_elems(const zn_inf *f) {
  const zn_type *ot = zn_inf_out(f, 0);
  const uint32_t num_in = f->nd->num_in;
  const zn_expr *in[16];
  uint32_t total, m, ext[ZN_MAX_RANK], at[ZN_MAX_RANK] = {0};
  bool any = false;
  if (!ot || num_in > 16 || num_in == 0 || !zn_inf_count(f, ot, ZN_MAX_ELEMS, &total)) return;
  for (uint32_t i = 0; i < num_in; i++) {
    in[i] = zn_inf_elems(f, i, &m);
    any |= in[i] != NULL;
  }
  if (!any) return;
  zn_expr *out = zn_inf_set_elems(f, 0, total);
  if (!out) return;
  for (int d = 0; d < ot->rank; d++) {
    int64_t x = 0;
    zn_ex_is_const(f->ex, ot->dims[d], &x);
    ext[d] = (uint32_t)x;
  }
  for (uint32_t k = 0; k < total; k++) {
    zn_expr a[16];
    for (uint32_t i = 0; i < num_in; i++) {
      a[i] = in[i] ? in[i][bcast_index(f, zn_inf_in(f, i), ot->rank, at)] : ZN_EX_NONE;
    }
    out[k] = to_type(f, (zn_dtype)ot->dtype, apply(f, a, num_in));
    for (int d = ot->rank - 1; d >= 0 && ++at[d] == ext[d]; d--) at[d] = 0;
  }
}

static zn_status broadcast_inputs(const zn_inf *f) {
  zn_expr dims[ZN_MAX_RANK];
  int rank = 0;
  for (uint32_t i = 0; i < f->nd->num_in; i++) {
    const zn_type *t = zn_inf_in(f, i);
    if (!t) continue;
    if (t->rank < 0) return ZN_OK;
    /* Clip's bounds are scalars: they never shape the result. */
    if (f->nd->op == ZN_OP_Clip && i > 0) continue;
    ZN_TRY(zn_inf_bcast_shape(f, &rank, dims, t->rank, t->dims));
  }
  zn_inf_shape(f, 0, rank, dims);
  map_elems(f);
  return ZN_OK;
}

ZN_INFER(map) {
  if (f->nd->op == ZN_OP_PRelu && zn_inf_known(f, 0)) {
    zn_inf_same(f, 0, 0); /* slope broadcasts to X only */
    return ZN_OK;
  }
  return broadcast_inputs(f);
}

ZN_INFER(compare) {
  zn_inf_dtype(f, 0, ZN_BOOL);
  return broadcast_inputs(f);
}

ZN_INFER(rescale) {
  zn_inf_dtype(f, 0, ZN_F32);
  return broadcast_inputs(f);
}

ZN_INFER(same) {
  int axis;
  if (zn_inf_known(f, 0) && zn_schema_find_attr(zn_op_schema(f->nd->op), "axis"))
    ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), zn_inf_in(f, 0)->rank, &axis));
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(swiglu) {
  zn_inf_same(f, 0, zn_inf_known(f, 0) ? 0 : 1);
  return ZN_OK;
}

ZN_INFER(identity) {
  zn_type *o = zn_inf_out(f, 0);
  const zn_type *i = zn_inf_in(f, 0);
  if (o && i) *o = *i;
  if (o && o->kind == ZN_V_TENSOR) zn_inf_copy_elems(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(dropout) {
  zn_inf_same(f, 0, 0);
  zn_inf_same(f, 1, 0);
  zn_inf_dtype(f, 1, ZN_BOOL);
  return ZN_OK;
}

static bool convertible(zn_dtype t) { return zn_is_int(t) || t == ZN_BOOL; }

ZN_INFER(cast) {
  zn_dtype to = ZN_NONE;
  const zn_type *in = zn_inf_in(f, 0), *like = zn_inf_in(f, 1);
  uint32_t n;
  if (f->nd->op == ZN_OP_CastLike) {
    to = like ? (zn_dtype)like->dtype : ZN_NONE;
  } else {
    to = zn_dtype_from_onnx((int)zn_node_int(f->nd, "to"));
    if (to == ZN_NONE) {
      return zn_inf_err(f, "attribute 'to' is %lld, which is no tensor element type",
                        (long long)zn_node_int(f->nd, "to"));
    }
  }
  zn_inf_dtype(f, 0, to);
  zn_inf_same(f, 0, 0);
  const zn_expr *src = zn_inf_elems(f, 0, &n);
  if (!src || !convertible((zn_dtype)in->dtype) || !convertible(to)) return ZN_OK;
  zn_expr *dst = zn_inf_set_elems(f, 0, n);
  for (uint32_t k = 0; dst && k < n; k++) dst[k] = to_type(f, to, src[k]);
  return ZN_OK;
}

ZN_INFER(complexpart) {
  zn_inf_dtype(f, 0, zn_inf_in(f, 0)->dtype == ZN_C64 ? ZN_F32 : ZN_F64);
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(complexof) {
  const zn_type *re = zn_inf_in(f, 0), *im = zn_inf_in(f, 1);
  zn_inf_dtype(f, 0, re->dtype == ZN_F32 ? ZN_C64 : ZN_C128);
  if (re->rank >= 0 && im->rank >= 0) {
    ZN_TRY(zn_inf_want_rank(f, 1, re->rank));
    for (int d = 0; d < re->rank; d++) ZN_TRY(zn_inf_same_dim(f, re->dims[d], im->dims[d], "the parts' extents"));
  }
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(bitcast) {
  const zn_dtype to = zn_dtype_from_onnx((int)zn_node_int(f->nd, "to"));
  const zn_type *in = zn_inf_in(f, 0);
  if (to == ZN_NONE) return zn_inf_err(f, "attribute 'to' is no tensor element type");
  if (in->dtype && zn_dtype_bytes(to) != zn_dtype_bytes((zn_dtype)in->dtype)) {
    return zn_inf_err(f, "cannot reinterpret %s as %s: their widths differ",
                      zn_dtypes[in->dtype].name, zn_dtypes[to].name);
  }
  zn_inf_dtype(f, 0, to);
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}
