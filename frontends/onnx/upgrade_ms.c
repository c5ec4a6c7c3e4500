/* Fused operators that ONNX Runtime's optimizer writes (domain com.microsoft), as standard ones: activations, convolutions,
 * normalizations, embeddings. */
#include "frontends/onnx/upgrade_tools.h"

/* ---- activations, convolution ---- */

void zn_up_ms_gelu(zn_unode *u) { /* Gelu, BiasGelu (erf), FastGelu (tanh); the bias optional */
  if (!zn_u_need(u, 1)) return;
  zn_vid x = zn_u_in(u, 1) ? zn_u_op2(u, ZN_OP_Add, u->in[0], u->in[1]) : u->in[0];
  zn_u_finish(u, zn_u_gelu(u, x, !strcmp(u->op, "FastGelu")));
}

void zn_up_ms_quickgelu(zn_unode *u) { /* x * sigmoid(alpha*x) */
  double alpha = zn_u_float(u, "alpha", 1.702f);
  if (zn_u_need(u, 1)) zn_u_finish(u, zn_u_swish(u, u->in[0], alpha));
}

/* Y = activation(Conv(X, W, B) + Z) */
void zn_up_ms_fusedconv(zn_unode *u) {
  const bool last = !strncmp(u->op, "Nhwc", 4);
  double params[2] = {0};
  if (!zn_u_need(u, 2)) return;
  const char *name = zn_u_str(u, "activation", "");
  const zn_attr *p = zn_u_attr(u, "activation_params");
  const uint32_t n = p && p->kind == ZN_A_FLOATS ? p->n < 2 ? p->n : 2 : 0;
  const zn_vid x = last ? zn_u_channels(u, u->in[0], false) : u->in[0];
  for (uint32_t i = 0; i < n; i++) params[i] = p->u.fs[i];
  if (!zn_u_activation_known(name) || !x) {
    zn_u_lacking(u, x ? name : "an image of unknown rank");
    return;
  }
  const zn_vid in[3] = {x, u->in[1], zn_u_in(u, 2)};
  zn_vid y = zn_u_with_attrs(u, ZN_OP_Conv, in, in[2] ? 3 : 2);
  if (last && !(y = zn_u_channels(u, y, true))) {
    zn_u_lacking(u, "an image of unknown rank");
    return;
  }
  if (zn_u_in(u, 3)) y = zn_u_op2(u, ZN_OP_Add, y, u->in[3]);
  zn_u_finish(u, zn_u_activation(u, name, params, n, y));
}

/* ---- transformers ---- */

static zn_nid layer_norm(zn_unode *u, zn_op op, zn_vid x, zn_vid gamma, zn_vid beta, double eps, uint32_t num_out) {
  zn_vid in[3] = {x, gamma, beta};
  zn_nid n = zn_graph_node(u->s->g, op, u->name, in, beta ? 3 : 2, num_out);
  u->s->g->nodes[n].source = u->source;
  zn_node_set_float(u->s->g, n, "epsilon", eps);
  return n;
}

/* 1 / sqrt(mean(x^2) + eps) over the axes from `axis` on. */
static zn_vid inverse_rms(zn_unode *u, zn_vid x, int64_t axis, double eps) {
  const int rank = zn_u_type(u, x)->rank;
  int64_t axes[ZN_MAX_RANK];
  uint32_t n = 0;
  if (axis < 0 && rank >= 0) axis += rank;
  for (int64_t d = axis; d < rank; d++) axes[n++] = d;
  const zn_vid f = zn_u_cast(u, x, ZN_F32), sq = zn_u_op2(u, ZN_OP_Mul, f, f), at = zn_u_i64s(u, axes, n);
  const zn_vid tiny = zn_u_num(u, ZN_F32, eps), mean = zn_u_op2(u, ZN_OP_Add, zn_u_op2(u, ZN_OP_ReduceMean, sq, at), tiny);
  return zn_u_op1(u, ZN_OP_Reciprocal, zn_u_op1(u, ZN_OP_Sqrt, mean));
}

/* (input, skip, gamma, beta, bias), or without beta for the simplified one -> (y, mean, inv_std, sum) */
void zn_up_ms_skiplayernorm(zn_unode *u) {
  bool simple = !strcmp(u->op, "SkipSimplifiedLayerNormalization");
  double eps = zn_u_float(u, "epsilon", 1e-12f);
  if (!zn_u_need(u, 3)) return;
  zn_vid x = zn_u_op2(u, ZN_OP_Add, u->in[0], u->in[1]), bias = zn_u_in(u, simple ? 3 : 4);
  if (bias) x = zn_u_op2(u, ZN_OP_Add, x, bias);
  bool stats = !simple && (zn_u_wants(u, 1) || zn_u_wants(u, 2));
  if (simple && zn_u_wants(u, 1)) {
    zn_u_lacking(u, "a mean, which it does not compute");
    return;
  }
  if (simple && zn_u_wants(u, 2)) zn_unode_bind(u, 2, inverse_rms(u, x, -1, eps));
  zn_nid n = layer_norm(u, simple ? ZN_OP_RMSNormalization : ZN_OP_LayerNormalization, x, u->in[2],
                        simple ? 0 : zn_u_in(u, 3), eps, stats ? 3 : 1);
  for (uint32_t i = 0; i < (stats ? 3u : 1u); i++) zn_unode_bind(u, i, zn_node_out(u->s->g, n, i));
  zn_unode_bind(u, 3, x);
  u->done = true;
}

/* SimplifiedLayerNormalization, which ONNX Runtime keeps in the domain ai.onnx: (x, scale) -> (y, inv_std) */
void zn_up_simplifiedlayernorm(zn_unode *u) {
  const double eps = zn_u_float(u, "epsilon", 1e-5f);
  const int64_t axis = zn_u_int(u, "axis", -1);
  if (!zn_u_need(u, 2)) return;
  if (zn_u_wants(u, 1)) zn_unode_bind(u, 1, inverse_rms(u, u->in[0], axis, eps));
  const zn_nid n = layer_norm(u, ZN_OP_RMSNormalization, u->in[0], u->in[1], 0, eps, 1);
  zn_node_set_int(u->s->g, n, "axis", axis);
  zn_u_finish(u, zn_node_out(u->s->g, n, 0));
}

/* GroupNorm, SkipGroupNorm: (x, gamma, beta, skip, bias) -> (y, sum); channels last by default, SiLU when activation is 1. */
void zn_up_ms_groupnorm(zn_unode *u) {
  const bool last = zn_u_int(u, "channels_last", 1) != 0, skip = !strcmp(u->op, "SkipGroupNorm");
  const int64_t silu = zn_u_int(u, "activation", 0);
  const double eps = zn_u_float(u, "epsilon", 1e-5f);
  if (!zn_u_need(u, skip ? 4 : 3)) return;
  zn_vid x = u->in[0], add = skip ? u->in[3] : 0;
  if (last) x = zn_u_channels(u, x, false);
  const int64_t per_channel[4] = {-1, 0, 1, 1};
  if (!x) {
    zn_u_lacking(u, "an image of unknown rank");
    return;
  }
  if (add) {
    const int rank = zn_u_type(u, add)->rank;
    if (rank == 4) add = last ? zn_u_channels(u, add, false) : add;
    else if (rank == 2) add = zn_u_reshape(u, add, per_channel, 4);
    x = zn_u_op2(u, ZN_OP_Add, x, add);
    const int64_t row[4] = {1, -1, 1, 1};
    if (zn_u_in(u, 4)) x = zn_u_op2(u, ZN_OP_Add, x, zn_u_reshape(u, u->in[4], row, 4));
    if (zn_u_wants(u, 1)) zn_unode_bind(u, 1, last ? zn_u_channels(u, x, true) : x);
  }
  const zn_vid in[3] = {x, u->in[1], u->in[2]};
  const zn_nid n = zn_u_node(u, ZN_OP_GroupNormalization, in, 3);
  zn_node_set_int(u->s->g, n, "num_groups", zn_u_int(u, "groups", 1));
  zn_node_set_float(u->s->g, n, "epsilon", eps);
  zn_vid y = zn_node_out(u->s->g, n, 0);
  if (silu) y = zn_u_op1(u, ZN_OP_Swish, y);
  zn_u_finish(u, last ? zn_u_channels(u, y, true) : y);
}

/* (ids, segments, words, positions, segment table, gamma, beta, mask, position ids) -> (y, mask index, sum) */
void zn_up_ms_embed(zn_unode *u) {
  double eps = zn_u_float(u, "epsilon", 1e-12f);
  zn_vid ids = zn_u_in(u, 0), words = zn_u_in(u, 2), table = zn_u_in(u, 3), at = zn_u_in(u, 8);
  if (!ids || !words || !table || !zn_u_in(u, 5) || !zn_u_in(u, 6)) {
    zn_u_lacking(u, "too few inputs");
    return;
  }
  zn_vid sum = zn_u_op2(u, ZN_OP_Gather, words, ids), pos;
  if (at) {
    pos = zn_u_op2(u, ZN_OP_Gather, table, at);
  } else {
    zn_vid in[3] = {table, zn_u_i64(u, 0), zn_u_dim(u, ids, 1, true)};
    pos = zn_u_op(u, ZN_OP_Slice, in, 3);
  }
  sum = zn_u_op2(u, ZN_OP_Add, sum, pos);
  if (zn_u_in(u, 1) && zn_u_in(u, 4))
    sum = zn_u_op2(u, ZN_OP_Add, sum, zn_u_op2(u, ZN_OP_Gather, u->in[4], u->in[1]));
  zn_nid n = layer_norm(u, ZN_OP_LayerNormalization, sum, u->in[5], u->in[6], eps, 1);
  zn_unode_bind(u, 0, zn_node_out(u->s->g, n, 0));
  if (u->num_out > 1 && *u->out[1]) { /* number of unmasked tokens of each sequence; zero without a mask */
    zn_vid m = zn_u_in(u, 7) ? u->in[7] : zn_u_op2(u, ZN_OP_Sub, ids, ids);
    zn_nid r = zn_u_node(u, ZN_OP_ReduceSum, (zn_vid[]){m, zn_u_i64(u, 1)}, 2);
    zn_node_set_int(u->s->g, r, "keepdims", 0);
    zn_unode_bind(u, 1, zn_node_out(u->s->g, r, 0));
  }
  zn_unode_bind(u, 2, sum);
  u->done = true;
}

/* BiasSoftmax: softmax(x + bias) over the axes from `axis` on; an inner broadcast repeats the bias along the axes before. */
void zn_up_ms_biassoftmax(zn_unode *u) {
  if (!zn_u_need(u, 2)) return;
  const int rank = zn_u_type(u, u->in[0])->rank;
  int64_t axis = zn_u_int(u, "axis", 1);
  if (axis < 0) axis += rank;
  if (rank < 1 || axis < 0 || axis >= rank || !zn_u_int(u, "is_inner_broadcast", 0)) {
    zn_u_lacking(u, "an outer broadcast or an axis that is out of range");
    return;
  }
  const zn_vid x = zn_u_op2(u, ZN_OP_Add, u->in[0], u->in[1]);
  const zn_nid flat = zn_u_node(u, ZN_OP_Flatten, &x, 1);
  zn_node_set_int(u->s->g, flat, "axis", axis);
  const zn_vid y = zn_u_op1(u, ZN_OP_Softmax, zn_node_out(u->s->g, flat, 0));
  zn_u_finish(u, zn_u_reshape_as(u, y, x));
}

/* BiasAdd: x + bias + skip. */
void zn_up_ms_biasadd(zn_unode *u) {
  if (!zn_u_need(u, 3)) return;
  const zn_vid x = zn_u_op2(u, ZN_OP_Add, u->in[0], u->in[1]);
  zn_u_finish(u, zn_u_op2(u, ZN_OP_Add, x, u->in[2]));
}

/* BiasSplitGelu: x + bias in two halves along the last axis; the first times Gelu of the second. */
void zn_up_ms_biassplitgelu(zn_unode *u) {
  zn_vid half[2];
  if (!zn_u_need(u, 2)) return;
  zn_u_split(u, zn_u_op2(u, ZN_OP_Add, u->in[0], u->in[1]), -1, NULL, 2, half);
  zn_u_finish(u, zn_u_op2(u, ZN_OP_Mul, half[0], zn_u_op1(u, ZN_OP_Gelu, half[1])));
}
