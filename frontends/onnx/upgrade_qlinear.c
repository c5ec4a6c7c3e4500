/* Quantized operators of ONNX Runtime's own domain (com.microsoft): values between DequantizeLinear and QuantizeLinear, which
 * the compiler folds into integer kernels where it has them; and operators whose images have their channels last. */
#include "frontends/onnx/upgrade_tools.h"

/* Dequantizes input x, whose scale and zero point follow it. */
static zn_vid dequantize(zn_unode *u, uint32_t x) {
  const zn_vid in[3] = {zn_u_in(u, x), zn_u_in(u, x + 1), zn_u_in(u, x + 2)};
  return zn_u_op(u, ZN_OP_DequantizeLinear, in, in[2] ? 3 : 2);
}

/* v in the type of the zero point; without one, in that of `like`. */
static zn_vid quantize(zn_unode *u, zn_vid v, zn_vid scale, zn_vid zero, zn_vid like) {
  if (!zero) zero = zn_u_scalar_like(u, 0, like);
  return zn_u_op3(u, ZN_OP_QuantizeLinear, v, scale, zero);
}

typedef struct qlinear {
  const char *name;
  zn_op op;
  uint32_t operands;
} qlinear;
static const qlinear rows[] = {{"QLinearAdd", ZN_OP_Add, 2},
                               {"QLinearMul", ZN_OP_Mul, 2},
                               {"QLinearSigmoid", ZN_OP_Sigmoid, 1},
                               {"QLinearLeakyRelu", ZN_OP_LeakyRelu, 1},
                               {"QLinearSoftmax", ZN_OP_Softmax, 1},
                               {"QLinearAveragePool", ZN_OP_AveragePool, 1},
                               {"QLinearGlobalAveragePool", ZN_OP_GlobalAveragePool, 1}};

/* Softmax over all axes from `axis` on, as before opset 13. */
static zn_vid flat_softmax(zn_unode *u, zn_vid x) {
  const zn_nid f = zn_u_node(u, ZN_OP_Flatten, &x, 1);
  zn_node_set_int(u->s->g, f, "axis", zn_u_int(u, "axis", -1));
  const zn_vid y = zn_u_op1(u, ZN_OP_Softmax, zn_node_out(u->s->g, f, 0));
  return zn_u_reshape_as(u, y, x);
}

/* QLinearX: (x, scale, zero)... then the output's scale and zero point. */
void zn_up_ms_qlinear(zn_unode *u) {
  const qlinear *r = rows;
  while (strcmp(r->name, u->op) != 0) r++;
  const uint32_t n = r->operands, out = 3 * n;
  const bool last = zn_u_int(u, "channels_last", 0) != 0, flat = zn_u_int(u, "opset", 13) < 13;
  if (!zn_u_in(u, 0) || !zn_u_in(u, 1) || (n == 2 && (!zn_u_in(u, 3) || !zn_u_in(u, 4))) ||
      !zn_u_in(u, out)) {
    zn_u_lacking(u, "too few inputs");
    return;
  }
  zn_vid x[2] = {dequantize(u, 0), 0}, y;
  if (n == 2) x[1] = dequantize(u, 3);
  if (last) x[0] = zn_u_channels(u, x[0], false);
  if (!x[0]) {
    zn_u_lacking(u, "an image of unknown rank");
    return;
  }
  if (r->op == ZN_OP_Softmax && flat) y = flat_softmax(u, x[0]);
  else y = zn_u_with_attrs(u, r->op, x, n);
  if (last) y = zn_u_channels(u, y, true);
  if (y) zn_u_finish(u, quantize(u, y, u->in[out], zn_u_in(u, out + 1), u->in[0]));
  else zn_u_lacking(u, "an image of unknown rank");
}

/* (x, scale, zero, output's scale, zero): the mean over axes */
void zn_up_ms_qlinearreducemean(zn_unode *u) {
  if (!zn_u_need(u, 2) || !zn_u_in(u, 3)) {
    if (!u->done) zn_u_lacking(u, "too few inputs");
    return;
  }
  const zn_attr *axes = zn_u_attr(u, "axes");
  const zn_vid in[2] = {dequantize(u, 0), axes && axes->kind == ZN_A_INTS && axes->n ? zn_u_i64s(u, axes->u.is, axes->n) : 0};
  const zn_vid y = zn_u_with_attrs(u, ZN_OP_ReduceMean, in, in[1] ? 2 : 1);
  zn_u_finish(u, quantize(u, y, u->in[3], zn_u_in(u, 4), u->in[0]));
}

/* (scale, zero) of the output, then (x, scale, zero) of each part. */
void zn_up_ms_qlinearconcat(zn_unode *u) {
  if (u->num_in < 5 || (u->num_in - 2) % 3) {
    zn_u_lacking(u, "this number of inputs");
    return;
  }
  if (!zn_u_need(u, u->num_in)) return;
  const uint32_t n = (u->num_in - 2) / 3;
  zn_vid *x = ZN_ARRAY(u->s->I->pa, zn_vid, n);
  for (uint32_t i = 0; i < n; i++) x[i] = dequantize(u, 2 + 3 * i);
  zn_u_finish(u, quantize(u, zn_u_concat(u, x, n, zn_u_int(u, "axis", 0)), u->in[0], u->in[1], 0));
}

/* (condition, x, scale, zero, y, scale, zero, output's scale, zero) */
void zn_up_ms_qlinearwhere(zn_unode *u) {
  if (!zn_u_need(u, 9)) return;
  const zn_vid x = dequantize(u, 1), y = dequantize(u, 4);
  zn_u_finish(u, quantize(u, zn_u_op3(u, ZN_OP_Where, u->in[0], x, y), u->in[7], u->in[8], 0));
}

/* ---- channels last ---- */

/* The operator's own meaning, between two transpositions. Of QLinearConv only with channels_last, which exists here only. */
static void between(zn_unode *u, zn_op op, bool last) {
  zn_vid *in = ZN_ARRAY(u->s->I->pa, zn_vid, u->num_in);
  zn_vid y;
  memcpy(in, u->in, u->num_in * sizeof *in);
  if (last && !(in[0] = zn_u_channels(u, in[0], false))) {
    zn_u_lacking(u, "an image of unknown rank");
    return;
  }
  y = zn_u_with_attrs(u, op, in, u->num_in);
  if (last) y = zn_u_channels(u, y, true);
  if (y) zn_u_finish(u, y);
  else zn_u_lacking(u, "an image of unknown rank");
}

void zn_up_ms_nhwcmaxpool(zn_unode *u) {
  if (zn_u_need(u, 1)) between(u, ZN_OP_MaxPool, true);
}

void zn_up_ms_qlinearconv(zn_unode *u) {
  if (zn_u_need(u, 8)) between(u, ZN_OP_QLinearConv, zn_u_int(u, "channels_last", 0) != 0);
}

/* ---- QuantizeLinear, DequantizeLinear: as in ai.onnx, for more types ---- */

void zn_up_ms_same(zn_unode *u) { u->domain = ""; }

/* ---- DynamicQuantizeLSTM ---- */

/* Weights [directions, rows, 4 * hidden] with a scale and a zero point for each direction, or for each of its columns, as
 * numbers and as LSTM wants them: [directions, 4 * hidden, rows]. */
static zn_vid lstm_weights(zn_unode *u, zn_vid w, zn_vid scale, zn_vid zero) {
  const int64_t each[3] = {-1, 1, 1}, perm[3] = {0, 2, 1};
  zn_vid part[2] = {scale, zn_u_cast(u, zero, ZN_F32)};
  for (int i = 0; i < 2; i++)
    part[i] = zn_u_type(u, part[i])->rank == 2 ? zn_u_unsqueeze(u, part[i], 1) : zn_u_reshape(u, part[i], each, 3);
  const zn_vid x = zn_u_op2(u, ZN_OP_Sub, zn_u_cast(u, w, ZN_F32), part[1]);
  return zn_u_transpose(u, zn_u_op2(u, ZN_OP_Mul, x, part[0]), perm, 3);
}

/* (X, W, R, B, lengths, initial h and c, P, scale and zero point of W, of R): an LSTM with quantized weights. ONNX Runtime
 * also quantizes X and the hidden state, each of its threads the rows it has, to save time; that noise is no part of it. */
void zn_up_ms_dynamicquantizelstm(zn_unode *u) {
  if (!zn_u_need(u, 3)) return;
  for (uint32_t i = 8; i < 12; i++)
    if (!zn_u_in(u, i)) {
      zn_u_lacking(u, "too few inputs");
      return;
    }
  const zn_vid w = lstm_weights(u, u->in[1], u->in[8], u->in[9]), r = lstm_weights(u, u->in[2], u->in[10], u->in[11]);
  const zn_vid in[8] = {u->in[0], w, r, u->in[3], u->in[4], u->in[5], u->in[6], u->in[7]};
  const zn_nid n = zn_u_nodes_with_attrs(u, ZN_OP_LSTM, in, 8, 3);
  for (uint32_t i = 0; i < 3; i++) zn_unode_bind(u, i, zn_node_out(u->s->g, n, i));
  u->done = true;
}
