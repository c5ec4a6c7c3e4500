/* Operators of ONNX Runtime's own domain (com.microsoft) on plain tensors: older forms of standard ones, sums of other types,
 * distances, windows. */
#include "frontends/onnx/upgrade_tools.h"

static zn_vid scalar(zn_unode *u, zn_vid v) { return zn_u_reshape(u, v, NULL, 0); } /* of one element */

/* ---- forms of standard operators ---- */

/* (start, limit, delta): scalars or vectors of one element; delta 1 when absent */
void zn_up_ms_range(zn_unode *u) {
  if (!zn_u_need(u, 2)) return;
  const zn_vid from = scalar(u, u->in[0]), to = scalar(u, u->in[1]);
  const zn_vid step = zn_u_in(u, 2) ? scalar(u, u->in[2]) : zn_u_scalar_like(u, 1, u->in[0]);
  zn_u_finish(u, zn_u_op3(u, ZN_OP_Range, from, to, step));
}

void zn_up_ms_expanddims(zn_unode *u) {
  const int64_t one[1] = {1};
  if (!zn_u_need(u, 2)) return;
  zn_u_finish(u, zn_u_op2(u, ZN_OP_Unsqueeze, u->in[0], zn_u_reshape(u, zn_u_cast(u, u->in[1], ZN_I64), one, 1)));
}

/* (data, pads [2 * rank] or [1, 2 * rank], value) */
void zn_up_ms_pad(zn_unode *u) {
  const int64_t flat[1] = {-1};
  if (!zn_u_need(u, 2)) return;
  zn_vid in[3] = {u->in[0], zn_u_reshape(u, u->in[1], flat, 1)};
  if (zn_u_in(u, 2)) in[2] = scalar(u, u->in[2]);
  zn_u_finish(u, zn_u_with_attrs(u, ZN_OP_Pad, in, in[2] ? 3 : 2));
}

void zn_up_ms_gathernd(zn_unode *u) {
  if (!zn_u_need(u, 2)) return;
  zn_u_finish(u, zn_u_op2(u, ZN_OP_GatherND, u->in[0], zn_u_cast(u, u->in[1], ZN_I64)));
}

void zn_up_ms_gridsample(zn_unode *u) {
  u->domain = "";
  zn_up_gridsample(u);
}

/* (x) -> (values in the order of their first appearance, where each element of x is among them, how often each is there) */
void zn_up_ms_unique(zn_unode *u) {
  static const uint32_t from[3] = {0, 2, 3};
  if (!zn_u_need(u, 1)) return;
  const zn_nid n = zn_u_nodes(u, ZN_OP_Unique, u->in, 1, 4);
  zn_node_set_int(u->s->g, n, "sorted", 0);
  for (uint32_t i = 0; i < 3; i++) zn_unode_bind(u, i, zn_node_out(u->s->g, n, from[i]));
  u->done = true;
}

void zn_up_ms_torchembedding(zn_unode *u) {
  if (zn_u_need(u, 2)) zn_u_finish(u, zn_u_op2(u, ZN_OP_Gather, u->in[0], u->in[1]));
}

/* (X, W, pads, bias) */
void zn_up_ms_convtransposewithdynamicpads(zn_unode *u) {
  if (!zn_u_need(u, 2)) return;
  const zn_vid pads = zn_u_in(u, 2);
  const zn_htensor *h = pads ? u->s->g->vals[pads].cst : NULL;
  if (pads && (!h || h->dtype != ZN_I64)) {
    zn_u_lacking(u, "pads that are no constant");
    return;
  }
  if (h) zn_u_set_ints(u, "pads", h->data, (uint32_t)zn_htensor_count(h));
  const zn_vid in[3] = {u->in[0], u->in[1], zn_u_in(u, 3)};
  zn_u_finish(u, zn_u_with_attrs(u, ZN_OP_ConvTranspose, in, in[2] ? 3 : 2));
}

/* (data, bias, residual, ratio, training) -> (data + bias + residual, mask of ones): inference only */
void zn_up_ms_biasdropout(zn_unode *u) {
  if (!zn_u_need(u, 2)) return;
  const zn_htensor *training = zn_u_in(u, 4) ? u->s->g->vals[u->in[4]].cst : NULL;
  if (zn_u_in(u, 4) && (!training || *(const uint8_t *)training->data)) {
    zn_u_lacking(u, "training_mode");
    return;
  }
  zn_vid y = zn_u_op2(u, ZN_OP_Add, u->in[0], u->in[1]);
  if (zn_u_in(u, 2)) y = zn_u_op2(u, ZN_OP_Add, y, u->in[2]);
  if (zn_u_wants(u, 1)) {
    const zn_vid one = zn_u_num(u, ZN_BOOL, 1), shape = zn_u_op1(u, ZN_OP_Shape, u->in[0]);
    zn_unode_bind(u, 1, zn_u_op2(u, ZN_OP_Expand, one, shape));
  }
  zn_u_finish(u, y);
}

/* ---- sums and products of integers ---- */

/* (A, zero point of A, B, zero point of B): (A - za)(B - zb) as i32 */
void zn_up_ms_mulinteger(zn_unode *u) {
  zn_vid x[2];
  if (!zn_u_need(u, 1) || !zn_u_in(u, 2)) {
    if (!u->done) zn_u_lacking(u, "too few inputs");
    return;
  }
  for (uint32_t i = 0; i < 2; i++) {
    x[i] = zn_u_cast(u, u->in[2 * i], ZN_I32);
    if (zn_u_in(u, 2 * i + 1)) x[i] = zn_u_op2(u, ZN_OP_Sub, x[i], zn_u_cast(u, u->in[2 * i + 1], ZN_I32));
  }
  zn_u_finish(u, zn_u_op2(u, ZN_OP_Mul, x[0], x[1]));
}

void zn_up_ms_matmulinteger16(zn_unode *u) {
  if (!zn_u_need(u, 2)) return;
  const bool plain = zn_u_type(u, u->in[0])->dtype == ZN_U16 && zn_u_type(u, u->in[1])->dtype == ZN_U16;
  const zn_dtype t = plain ? ZN_U32 : ZN_I32;
  const zn_vid a = zn_u_cast(u, u->in[0], t), b = zn_u_cast(u, u->in[1], t);
  zn_u_finish(u, zn_u_op2(u, ZN_OP_MatMul, a, b));
}

void zn_up_ms_reducesuminteger(zn_unode *u) {
  if (!zn_u_need(u, 1)) return;
  const bool plain = zn_u_type(u, u->in[0])->dtype == ZN_U8;
  zn_up_ints_to_input(u, "axes", 1);
  const zn_vid in[2] = {zn_u_cast(u, u->in[0], plain ? ZN_U32 : ZN_I32), zn_u_in(u, 1)};
  zn_u_finish(u, zn_u_with_attrs(u, ZN_OP_ReduceSum, in, in[1] ? 2 : 1));
}

/* ---- compositions ---- */

/* Euclidean distances between the rows of A and B, or their squares */
void zn_up_ms_cdist(zn_unode *u) {
  const char *metric = zn_u_str(u, "metric", "sqeuclidean");
  const bool root = !strcmp(metric, "euclidean");
  if (!zn_u_need(u, 2)) return;
  if (!root && strcmp(metric, "sqeuclidean") != 0) {
    zn_u_lacking(u, metric);
    return;
  }
  const zn_vid a = zn_u_unsqueeze(u, u->in[0], 1), b = zn_u_unsqueeze(u, u->in[1], 0), d = zn_u_op2(u, ZN_OP_Sub, a, b);
  const zn_nid sum = zn_u_node(u, ZN_OP_ReduceSumSquare, (zn_vid[]){d, zn_u_i64(u, 2)}, 2);
  zn_node_set_int(u->s->g, sum, "keepdims", 0);
  const zn_vid y = zn_node_out(u->s->g, sum, 0);
  zn_u_finish(u, root ? zn_u_op1(u, ZN_OP_Sqrt, y) : y);
}

/* Windows of `size` elements along an axis, `step` apart; an element's place in its window becomes the last axis. */
void zn_up_ms_unfoldtensor(zn_unode *u) {
  const int64_t size = zn_u_int(u, "size", 0), step = zn_u_int(u, "step", 1);
  int64_t axis = zn_u_int(u, "dim", -1), perm[ZN_MAX_RANK];
  if (!zn_u_need(u, 1)) return;
  const int rank = zn_u_type(u, u->in[0])->rank;
  if (axis < 0) axis += rank;
  if (rank < 1 || rank >= ZN_MAX_RANK || axis < 0 || axis >= rank || size < 1 || step < 1) {
    zn_u_lacking(u, "an axis, size or step that is out of range");
    return;
  }
  const zn_vid len = zn_u_dim(u, u->in[0], axis, false), width = zn_u_num(u, ZN_I64, (double)size);
  const zn_vid one = zn_u_num(u, ZN_I64, 1), zero = zn_u_num(u, ZN_I64, 0), by = zn_u_num(u, ZN_I64, (double)step);
  const zn_vid end = zn_u_op2(u, ZN_OP_Add, zn_u_op2(u, ZN_OP_Sub, len, width), one);
  const zn_vid start = zn_u_unsqueeze(u, zn_u_op3(u, ZN_OP_Range, zero, end, by), 1), within = zn_u_range(u, width);
  const zn_vid at = zn_u_op2(u, ZN_OP_Add, start, within);
  const zn_nid g = zn_u_node(u, ZN_OP_Gather, (zn_vid[]){u->in[0], at}, 2);
  zn_node_set_int(u->s->g, g, "axis", axis);
  for (int d = 0; d <= rank; d++) perm[d] = d <= axis ? d : d + 1;
  perm[rank] = axis + 1;
  zn_u_finish(u, zn_u_transpose(u, zn_node_out(u->s->g, g, 0), perm, (uint32_t)rank + 1));
}

/* Is every element of every input finite (or no NaN, or no infinity)? */
void zn_up_ms_isallfinite(zn_unode *u) {
  const bool nan = !zn_u_int(u, "isinf_only", 0), inf = !zn_u_int(u, "isnan_only", 0);
  zn_vid all = 0;
  if (!zn_u_need(u, u->num_in ? u->num_in : 1)) return;
  if (!nan && !inf) {
    zn_u_lacking(u, "both isnan_only and isinf_only");
    return;
  }
  for (uint32_t i = 0; i < u->num_in; i++) {
    zn_vid bad = nan ? zn_u_op1(u, ZN_OP_IsNaN, u->in[i]) : 0;
    if (inf) {
      const zn_vid infinite = zn_u_op1(u, ZN_OP_IsInf, u->in[i]);
      bad = bad ? zn_u_op2(u, ZN_OP_Or, bad, infinite) : infinite;
    }
    const zn_vid count = zn_u_cast(u, bad, ZN_I64);
    const zn_nid sum = zn_u_node(u, ZN_OP_ReduceSum, &count, 1);
    zn_node_set_int(u->s->g, sum, "keepdims", 0);
    const zn_vid none = zn_u_num(u, ZN_I64, 0), good = zn_u_op2(u, ZN_OP_Equal, zn_node_out(u->s->g, sum, 0), none);
    all = all ? zn_u_op2(u, ZN_OP_And, all, good) : good;
  }
  zn_u_finish(u, all);
}

/* FastGelu(X W + bias) */
void zn_up_ms_gemmfastgelu(zn_unode *u) {
  if (!zn_u_need(u, 2)) return;
  zn_vid y = zn_u_op2(u, ZN_OP_MatMul, u->in[0], u->in[1]);
  if (zn_u_in(u, 2)) y = zn_u_op2(u, ZN_OP_Add, y, u->in[2]);
  zn_u_finish(u, zn_u_gelu(u, y, true));
}

/* Real to complex (two numbers on a new last axis), half of a symmetric spectrum; over the last axis */
void zn_up_ms_rfft(zn_unode *u) {
  if (!zn_u_need(u, 1)) return;
  if (zn_u_int(u, "signal_ndim", 1) != 1 || zn_u_int(u, "normalized", 0) || !zn_u_int(u, "onesided", 1)) {
    zn_u_lacking(u, "more than one axis, a normalization, or both sides");
    return;
  }
  const zn_vid in[3] = {zn_u_unsqueeze(u, u->in[0], -1), 0, zn_u_num(u, ZN_I64, -2)};
  const zn_nid n = zn_u_node(u, ZN_OP_DFT, in, 3);
  zn_node_set_int(u->s->g, n, "onesided", 1);
  zn_u_finish(u, zn_node_out(u->s->g, n, 0));
}
