/* Experimental operators of the first ONNX releases (Caffe2 and CoreML converters still write them), as standard ones. */
#include "frontends/onnx/upgrade.h"

static zn_vid scalar(zn_unode *u, double v) { return zn_u_scalar_like(u, v, u->in[0]); }

static bool has_input(zn_unode *u) {
  if (zn_u_in(u, 0)) return true;
  zn_imp_problem(u->s->I, zn_unode_where(u), false, NULL, "%s lacks its input", u->op);
  u->op = "Identity";
  return false;
}

static void finish(zn_unode *u, zn_vid v) {
  zn_unode_bind(u, 0, v);
  u->done = true;
}

void zn_up_affine(zn_unode *u) { /* alpha*x + beta */
  double alpha = zn_u_float(u, "alpha", 1), beta = zn_u_float(u, "beta", 0);
  if (!has_input(u)) return;
  const zn_vid offset = scalar(u, beta);
  finish(u, zn_u_op2(u, ZN_OP_Add, zn_u_op2(u, ZN_OP_Mul, u->in[0], scalar(u, alpha)), offset));
}

void zn_up_scale(zn_unode *u) {
  double s = zn_u_float(u, "scale", 1);
  if (has_input(u)) finish(u, zn_u_op2(u, ZN_OP_Mul, u->in[0], scalar(u, s)));
}

void zn_up_scaledtanh(zn_unode *u) { /* alpha * tanh(beta*x) */
  double alpha = zn_u_float(u, "alpha", 1), beta = zn_u_float(u, "beta", 1);
  if (!has_input(u)) return;
  zn_vid t = zn_u_op1(u, ZN_OP_Tanh, zn_u_op2(u, ZN_OP_Mul, u->in[0], scalar(u, beta)));
  finish(u, zn_u_op2(u, ZN_OP_Mul, t, scalar(u, alpha)));
}

void zn_up_parametricsoftplus(zn_unode *u) { /* alpha * log(exp(beta*x) + 1) */
  double alpha = zn_u_float(u, "alpha", 1), beta = zn_u_float(u, "beta", 1);
  if (!has_input(u)) return;
  zn_vid t = zn_u_op1(u, ZN_OP_Softplus, zn_u_op2(u, ZN_OP_Mul, u->in[0], scalar(u, beta)));
  finish(u, zn_u_op2(u, ZN_OP_Mul, t, scalar(u, alpha)));
}

void zn_up_imagescaler(zn_unode *u) { /* scale*x + bias[c] */
  const zn_attr *a = zn_u_attr(u, "bias");
  double s = zn_u_float(u, "scale", 1);
  if (!has_input(u)) return;
  zn_vid y = zn_u_op2(u, ZN_OP_Mul, u->in[0], scalar(u, s));
  a = zn_u_attr(u, "bias");
  if (a && a->kind == ZN_A_FLOATS && a->n) {
    int64_t dims[3] = {a->n, 1, 1};
    zn_htensor *t = ZN_NEW(u->s->I->ga, zn_htensor);
    *t = zn_htensor_new(u->s->I->ga, ZN_F32, 3, dims);
    for (uint32_t i = 0; i < a->n; i++) zn_store_f64(ZN_F32, t->data, i, a->u.fs[i]);
    zn_vid b = zn_graph_const(u->s->g, NULL, t);
    if (zn_u_type(u, u->in[0])->dtype != ZN_F32) b = zn_u_op2(u, ZN_OP_CastLike, b, u->in[0]);
    y = zn_u_op2(u, ZN_OP_Add, y, b);
  }
  finish(u, y);
}

/* border = left, top, right, bottom of the last two dimensions; scale = height, width instead of right and bottom. */
void zn_up_crop(zn_unode *u) {
  int64_t border[4] = {0, 0, 0, 0}, start[2], end[2], axes[2] = {2, 3};
  const zn_attr *b = zn_u_attr(u, "border"), *s = zn_u_attr(u, "scale");
  if (!has_input(u)) return;
  for (uint32_t i = 0; b && b->kind == ZN_A_INTS && i < 4 && i < b->n; i++)
    border[i] = b->u.is[i] < 0 || b->u.is[i] > INT32_MAX ? 0 : b->u.is[i];
  for (int d = 0; d < 2; d++) {
    start[d] = border[1 - d];
    end[d] = border[3 - d] ? -border[3 - d] : INT64_MAX;
    bool sized = s && s->kind == ZN_A_INTS && s->n == 2;
    if (sized && s->u.is[d] >= 0 && s->u.is[d] <= INT32_MAX) end[d] = start[d] + s->u.is[d];
  }
  zn_vid in[4] = {u->in[0], zn_u_i64s(u, start, 2), zn_u_i64s(u, end, 2), zn_u_i64s(u, axes, 2)};
  finish(u, zn_u_op(u, ZN_OP_Slice, in, 4));
}

void zn_up_dynamicslice(zn_unode *u) { u->op = "Slice"; }

void zn_up_constantfill(zn_unode *u) {
  double value = zn_u_float(u, "value", 0);
  int64_t dtype = zn_u_int(u, "dtype", 1), as_shape = zn_u_int(u, "input_as_shape", 0);
  const zn_attr *shape = zn_u_attr(u, "shape"), *extra = zn_u_attr(u, "extra_shape");
  zn_dtype t = dtype > 0 && dtype < 100 ? zn_dtype_from_onnx((int)dtype) : ZN_NONE;
  bool ok = t != ZN_NONE && t != ZN_STR;
  zn_vid dims = zn_u_in(u, 0);
  if (!dims && shape && shape->kind == ZN_A_INTS) dims = zn_u_i64s(u, shape->u.is, shape->n);
  else if (dims && !as_shape) dims = zn_u_op1(u, ZN_OP_Shape, dims);
  if (dims && extra && extra->kind == ZN_A_INTS && extra->n) {
    const zn_vid both[2] = {dims, zn_u_i64s(u, extra->u.is, extra->n)};
    zn_nid join = zn_u_node(u, ZN_OP_Concat, both, 2);
    zn_node_set_int(u->s->g, join, "axis", 0);
    dims = zn_node_out(u->s->g, join, 0);
  }
  if (!ok || !dims) {
    zn_imp_problem(u->s->I, zn_unode_where(u), true, NULL, "ConstantFill in this form");
    return;
  }
  int64_t one[1] = {1};
  zn_htensor *v = ZN_NEW(u->s->I->ga, zn_htensor);
  *v = zn_htensor_new(u->s->I->ga, t, 1, one);
  zn_store_f64(t, v->data, 0, value);
  zn_nid n = zn_u_node(u, ZN_OP_ConstantOfShape, &dims, 1);
  zn_node_set_attr(u->s->g, n, (zn_attr){.name = "value", .kind = ZN_A_TENSOR, .n = 1, .u.t = v});
  finish(u, zn_node_out(u->s->g, n, 0));
}

void zn_up_giventensorfill(zn_unode *u) {
  const zn_attr *shape = zn_u_attr(u, "shape"), *vals = zn_u_attr(u, "values");
  uint64_t count;
  bool ok = shape && vals && shape->kind == ZN_A_INTS && vals->kind == ZN_A_FLOATS && shape->n <= ZN_MAX_RANK &&
            zn_dims_count(shape->n, shape->u.is, 4, &count) && count == vals->n && !zn_u_in(u, 0);
  if (!ok) {
    zn_imp_problem(u->s->I, zn_unode_where(u), true, NULL, "GivenTensorFill in this form");
    return;
  }
  zn_htensor *t = ZN_NEW(u->s->I->ga, zn_htensor);
  *t = zn_htensor_new(u->s->I->ga, ZN_F32, shape->n, shape->u.is);
  for (uint32_t i = 0; i < vals->n; i++) zn_store_f64(ZN_F32, t->data, i, vals->u.fs[i]);
  finish(u, zn_u_op1(u, ZN_OP_Identity, zn_graph_const(u->s->g, NULL, t)));
}

/* Version 1: over the image, or with across_channels also over the channels; the variance optional. */
void zn_up_mvn(zn_unode *u) {
  int64_t across = zn_u_int(u, "across_channels", 0), var = zn_u_int(u, "normalize_variance", 1);
  int64_t axes[3] = {1, 2, 3};
  if (!has_input(u)) return;
  zn_vid ax = zn_u_i64s(u, axes + !across, across ? 3 : 2);
  zn_vid centred = zn_u_op2(u, ZN_OP_Sub, u->in[0], zn_u_op2(u, ZN_OP_ReduceMean, u->in[0], ax));
  if (!var) {
    finish(u, centred);
    return;
  }
  zn_vid sq = zn_u_op2(u, ZN_OP_ReduceMean, zn_u_op2(u, ZN_OP_Mul, centred, centred), ax);
  zn_vid tiny = scalar(u, 1e-9), std = zn_u_op2(u, ZN_OP_Add, zn_u_op1(u, ZN_OP_Sqrt, sq), tiny);
  finish(u, zn_u_op2(u, ZN_OP_Div, centred, std));
}
