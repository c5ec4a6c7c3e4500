/* Fused operators that ONNX Runtime's optimizer writes (domain com.microsoft), as standard ones. */
#include "frontends/onnx/upgrade.h"

static void lacking(zn_unode *u, const char *what) {
  zn_imp_problem(u->s->I, zn_unode_where(u), true, "export the model without ONNX Runtime's optimization",
                 "%s of com.microsoft with %s",
                 u->op, what);
  for (uint32_t i = 0; i < u->num_out; i++) zn_unode_bind(u, i, zn_graph_value(u->s->g, NULL));
  u->done = true;
}

static bool inputs_there(zn_unode *u, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (!zn_u_in(u, i)) {
      lacking(u, "too few inputs");
      return false;
    }
  return true;
}

static void finish(zn_unode *u, zn_vid v) {
  zn_unode_bind(u, 0, v);
  u->done = true;
}

/* A node of a standard operator with all attributes of u; checked against the schema as any other. */
static zn_vid with_attrs(zn_unode *u, zn_op op, const zn_vid *in, uint32_t n) {
  zn_nid id = zn_u_node(u, op, in, n);
  const zn_schema *sc = zn_op_schema(op);
  for (uint32_t i = 0; i < u->num_attrs; i++) {
    const zn_schema_attr *sa = zn_schema_find_attr(sc, u->attrs[i].name);
    if (sa && sa->kind == u->attrs[i].kind) zn_node_set_attr(u->s->g, id, u->attrs[i]);
  }
  return zn_node_out(u->s->g, id, 0);
}

static zn_vid cast(zn_unode *u, zn_vid v, zn_dtype t) {
  zn_nid n = zn_u_node(u, ZN_OP_Cast, &v, 1);
  zn_node_set_int(u->s->g, n, "to", zn_dtypes[t].onnx);
  return zn_node_out(u->s->g, n, 0);
}

static zn_vid concat(zn_unode *u, const zn_vid *in, uint32_t n, int64_t axis) {
  zn_nid id = zn_u_node(u, ZN_OP_Concat, in, n);
  zn_node_set_int(u->s->g, id, "axis", axis);
  return zn_node_out(u->s->g, id, 0);
}

static zn_vid unsqueeze(zn_unode *u, zn_vid v, int64_t axis) { return zn_u_op2(u, ZN_OP_Unsqueeze, v, zn_u_i64(u, axis)); }

/* Dimension `axis` of v: a scalar, or a vector of one element. */
static zn_vid dim(zn_unode *u, zn_vid v, int64_t axis, bool vector) {
  zn_vid i = vector ? zn_u_i64(u, axis) : zn_graph_const_scalar(u->s->g, ZN_I64, (double)axis);
  return zn_u_op2(u, ZN_OP_Gather, zn_u_op1(u, ZN_OP_Shape, v), i);
}

/* ---- activations, convolution ---- */

void zn_up_ms_gelu(zn_unode *u) { /* Gelu, BiasGelu (erf), FastGelu (tanh); the bias optional */
  if (!inputs_there(u, 1)) return;
  zn_vid x = zn_u_in(u, 1) ? zn_u_op2(u, ZN_OP_Add, u->in[0], u->in[1]) : u->in[0];
  zn_nid n = zn_u_node(u, ZN_OP_Gelu, &x, 1);
  if (!strcmp(u->op, "FastGelu")) zn_node_set_str(u->s->g, n, "approximate", "tanh");
  finish(u, zn_node_out(u->s->g, n, 0));
}

void zn_up_ms_quickgelu(zn_unode *u) { /* x * sigmoid(alpha*x) */
  double alpha = zn_u_float(u, "alpha", 1.702f);
  if (!inputs_there(u, 1)) return;
  zn_nid n = zn_u_node(u, ZN_OP_Swish, &u->in[0], 1);
  zn_node_set_float(u->s->g, n, "alpha", alpha);
  finish(u, zn_node_out(u->s->g, n, 0));
}

/* Y = activation(Conv(X, W, B) + Z) */
void zn_up_ms_fusedconv(zn_unode *u) {
  static const struct {
    const char *name;
    zn_op op;
    const char *params[2];
  } acts[] = {{"", ZN_OP_Identity, {0}},
              {"Relu", ZN_OP_Relu, {0}},
              {"Sigmoid", ZN_OP_Sigmoid, {0}},
              {"Tanh", ZN_OP_Tanh, {0}},
              {"LeakyRelu", ZN_OP_LeakyRelu, {"alpha"}},
              {"HardSigmoid", ZN_OP_HardSigmoid, {"alpha", "beta"}},
              {"HardSwish", ZN_OP_HardSwish, {0}},
              {"Clip", ZN_OP_Clip, {0}}};
  if (!inputs_there(u, 2)) return;
  const char *name = zn_u_str(u, "activation", "");
  const zn_attr *p = zn_u_attr(u, "activation_params");
  zn_vid in[3] = {u->in[0], u->in[1], zn_u_in(u, 2)};
  size_t k = 0;
  while (k < sizeof acts / sizeof *acts && strcmp(acts[k].name, name)) k++;
  if (k == sizeof acts / sizeof *acts) {
    lacking(u, name);
    return;
  }
  uint32_t num_params = p && p->kind == ZN_A_FLOATS ? p->n : 0;
  zn_vid y = with_attrs(u, ZN_OP_Conv, in, in[2] ? 3 : 2);
  if (zn_u_in(u, 3)) y = zn_u_op2(u, ZN_OP_Add, y, u->in[3]);
  zn_vid clip[3] = {y, 0, 0};
  if (acts[k].op == ZN_OP_Clip && num_params == 2)
    for (uint32_t i = 0; i < 2; i++) clip[1 + i] = zn_u_scalar_like(u, p->u.fs[i], u->in[0]);
  zn_nid n = zn_u_node(u, acts[k].op, clip, clip[1] ? 3 : 1);
  for (uint32_t i = 0; i < 2 && i < num_params && acts[k].params[i]; i++)
    zn_node_set_float(u->s->g, n, acts[k].params[i], p->u.fs[i]);
  finish(u, zn_node_out(u->s->g, n, 0));
}

/* ---- quantized ---- */

/* Dequantizes input x, whose scale and zero point follow it. */
static zn_vid dequantize(zn_unode *u, uint32_t x) {
  zn_vid in[3] = {zn_u_in(u, x), zn_u_in(u, x + 1), zn_u_in(u, x + 2)};
  return zn_u_op(u, ZN_OP_DequantizeLinear, in, in[2] ? 3 : 2);
}
static void quantize(zn_unode *u, zn_vid v, zn_vid scale, zn_vid zero) {
  zn_vid in[3] = {v, scale, zero};
  finish(u, zn_u_op(u, ZN_OP_QuantizeLinear, in, zero ? 3 : 2));
}

/* QLinearX: (x, scale, zero)... then the output's scale and zero point. */
void zn_up_ms_qlinear(zn_unode *u) {
  static const struct {
    const char *name;
    zn_op op;
    uint32_t operands;
  } rows[] = {{"QLinearAdd", ZN_OP_Add, 2},
              {"QLinearMul", ZN_OP_Mul, 2},
              {"QLinearSigmoid", ZN_OP_Sigmoid, 1},
              {"QLinearLeakyRelu", ZN_OP_LeakyRelu, 1},
              {"QLinearSoftmax", ZN_OP_Softmax, 1},
              {"QLinearAveragePool", ZN_OP_AveragePool, 1},
              {"QLinearGlobalAveragePool", ZN_OP_GlobalAveragePool, 1}};
  size_t k = 0;
  while (strcmp(rows[k].name, u->op)) k++;
  uint32_t n = rows[k].operands, out = 3 * n;
  const zn_attr *last = zn_u_attr(u, "channels_last"), *set = zn_u_attr(u, "opset"), *axis = zn_u_attr(u, "axis");
  if (last && last->kind == ZN_A_INT && last->u.i) {
    lacking(u, "channels_last");
    return;
  }
  if (!zn_u_in(u, 0) || !zn_u_in(u, 1) || (n == 2 && (!zn_u_in(u, 3) || !zn_u_in(u, 4))) || !zn_u_in(u, out)) {
    lacking(u, "too few inputs");
    return;
  }
  zn_vid x[2] = {dequantize(u, 0), n == 2 ? dequantize(u, 3) : 0};
  bool flat = rows[k].op == ZN_OP_Softmax && set && set->kind == ZN_A_INT && set->u.i < 13;
  if (flat) { /* Softmax over all axes from `axis` on, as before opset 13 */
    zn_nid f = zn_u_node(u, ZN_OP_Flatten, x, 1);
    zn_node_set_int(u->s->g, f, "axis", axis && axis->kind == ZN_A_INT ? axis->u.i : 1);
    zn_vid y = zn_u_op1(u, ZN_OP_Softmax, zn_node_out(u->s->g, f, 0));
    y = zn_u_op2(u, ZN_OP_Reshape, y, zn_u_op1(u, ZN_OP_Shape, x[0]));
    quantize(u, y, u->in[out], zn_u_in(u, out + 1));
    return;
  }
  quantize(u, with_attrs(u, rows[k].op, x, n), u->in[out], zn_u_in(u, out + 1));
}

/* (scale, zero) of the output, then (x, scale, zero) of each part. */
void zn_up_ms_qlinearconcat(zn_unode *u) {
  if (u->num_in < 5 || (u->num_in - 2) % 3) {
    lacking(u, "this number of inputs");
    return;
  }
  if (!inputs_there(u, u->num_in)) return;
  uint32_t n = (u->num_in - 2) / 3;
  zn_vid *x = ZN_ARRAY(u->s->I->pa, zn_vid, n);
  for (uint32_t i = 0; i < n; i++) x[i] = dequantize(u, 2 + 3 * i);
  quantize(u, concat(u, x, n, zn_u_int(u, "axis", 0)), u->in[0], u->in[1]);
}

/* ---- transformers ---- */

static zn_nid layer_norm(zn_unode *u, zn_op op, zn_vid x, zn_vid gamma, zn_vid beta, double eps, uint32_t num_out) {
  zn_vid in[3] = {x, gamma, beta};
  zn_nid n = zn_graph_node(u->s->g, op, u->name, in, beta ? 3 : 2, num_out);
  u->s->g->nodes[n].source = u->source;
  zn_node_set_float(u->s->g, n, "epsilon", eps);
  return n;
}

/* (input, skip, gamma, beta, bias), or without beta for the simplified one -> (y, mean, inv_std, sum) */
void zn_up_ms_skiplayernorm(zn_unode *u) {
  bool simple = !strcmp(u->op, "SkipSimplifiedLayerNormalization");
  double eps = zn_u_float(u, "epsilon", 1e-12f);
  if (!inputs_there(u, 3)) return;
  zn_vid x = zn_u_op2(u, ZN_OP_Add, u->in[0], u->in[1]), bias = zn_u_in(u, simple ? 3 : 4);
  if (bias) x = zn_u_op2(u, ZN_OP_Add, x, bias);
  bool stats = !simple && ((u->num_out > 1 && *u->out[1]) || (u->num_out > 2 && *u->out[2]));
  zn_nid n = layer_norm(u, simple ? ZN_OP_RMSNormalization : ZN_OP_LayerNormalization, x, u->in[2],
                        simple ? 0 : zn_u_in(u, 3), eps, stats ? 3 : 1);
  for (uint32_t i = 0; i < (stats ? 3u : 1u); i++) zn_unode_bind(u, i, zn_node_out(u->s->g, n, i));
  zn_unode_bind(u, 3, x);
  u->done = true;
}

/* (ids, segments, words, positions, segment table, gamma, beta, mask, position ids) -> (y, mask index, sum) */
void zn_up_ms_embed(zn_unode *u) {
  double eps = zn_u_float(u, "epsilon", 1e-12f);
  zn_vid ids = zn_u_in(u, 0), words = zn_u_in(u, 2), table = zn_u_in(u, 3), at = zn_u_in(u, 8);
  if (!ids || !words || !table || !zn_u_in(u, 5) || !zn_u_in(u, 6)) {
    lacking(u, "too few inputs");
    return;
  }
  zn_vid sum = zn_u_op2(u, ZN_OP_Gather, words, ids), pos;
  if (at) {
    pos = zn_u_op2(u, ZN_OP_Gather, table, at);
  } else {
    zn_vid in[3] = {table, zn_u_i64(u, 0), dim(u, ids, 1, true)};
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

static zn_vid range(zn_unode *u, zn_vid end) {
  zn_vid in[3] = {zn_graph_const_scalar(u->s->g, ZN_I64, 0), end, zn_graph_const_scalar(u->s->g, ZN_I64, 1)};
  return zn_u_op(u, ZN_OP_Range, in, 3);
}

/* May query i of S see key j of T + S? bool [S, T+S], T past keys. */
static zn_vid causal(zn_unode *u, zn_vid x, zn_vid past) {
  zn_vid s = dim(u, x, 1, false), rows = range(u, s), total = s;
  if (past) {
    zn_vid t = dim(u, past, 3, false);
    total = zn_u_op2(u, ZN_OP_Add, s, t);
    rows = zn_u_op2(u, ZN_OP_Add, rows, t);
  }
  return zn_u_op2(u, ZN_OP_LessOrEqual, unsqueeze(u, range(u, total), 0), unsqueeze(u, rows, 1));
}

/* past[i]: keys (0) or values (1) of [2, batch, heads, T, size]. */
static zn_vid past_part(zn_unode *u, zn_vid past, int64_t i) {
  return zn_u_op2(u, ZN_OP_Gather, past, zn_graph_const_scalar(u->s->g, ZN_I64, (double)i));
}

/* (input, weights, bias, mask, past) -> (y, present): projections, then the standard Attention. */
void zn_up_ms_attention(zn_unode *u) {
  zn_graph *g = u->s->g;
  int64_t heads = zn_u_int(u, "num_heads", 0), uni = zn_u_int(u, "unidirectional", 0);
  bool odd = zn_u_attr(u, "qkv_hidden_sizes") || zn_u_int(u, "do_rotary", 0) || zn_u_int(u, "past_present_share_buffer", 0);
  const zn_attr *scale = zn_u_attr(u, "scale");
  zn_vid mask = zn_u_in(u, 3), past = zn_u_in(u, 4);
  if (!inputs_there(u, 2)) return;
  if (odd || heads < 1 || heads > 65536 || zn_u_in(u, 5)) {
    lacking(u, "rotary embedding, unequal sizes or an additive bias");
    return;
  }
  if (mask && zn_u_type(u, mask)->rank != 2) {
    lacking(u, "a mask that is not [batch, keys]");
    return;
  }
  zn_vid x = zn_u_op2(u, ZN_OP_MatMul, u->in[0], u->in[1]), keep = 0;
  if (zn_u_in(u, 2)) x = zn_u_op2(u, ZN_OP_Add, x, u->in[2]);
  zn_nid split = zn_graph_node(g, ZN_OP_Split, u->name, &x, 1, 3);
  zn_node_set_int(g, split, "axis", -1);
  zn_node_set_int(g, split, "num_outputs", 3);
  if (mask) keep = unsqueeze(u, unsqueeze(u, cast(u, mask, ZN_BOOL), 1), 1); /* [batch, 1, 1, keys] */
  if (uni) {
    zn_vid c = causal(u, u->in[0], past);
    keep = keep ? zn_u_op2(u, ZN_OP_And, keep, c) : c;
  }
  zn_vid in[6] = {zn_node_out(g, split, 0), zn_node_out(g, split, 1), zn_node_out(g, split, 2), keep, 0, 0};
  if (past) in[4] = past_part(u, past, 0), in[5] = past_part(u, past, 1);
  bool present = u->num_out > 1 && *u->out[1];
  zn_nid n = zn_graph_node(g, ZN_OP_Attention, u->name, in, past ? 6 : keep ? 4 : 3, present ? 3 : 1);
  g->nodes[n].source = u->source;
  zn_node_set_int(g, n, "q_num_heads", heads);
  zn_node_set_int(g, n, "kv_num_heads", heads);
  if (scale && scale->kind == ZN_A_FLOAT && scale->u.f != 0) zn_node_set_float(g, n, "scale", scale->u.f);
  zn_unode_bind(u, 0, zn_node_out(g, n, 0));
  if (present) {
    zn_vid kv[2] = {unsqueeze(u, zn_node_out(g, n, 1), 0), unsqueeze(u, zn_node_out(g, n, 2), 0)};
    zn_unode_bind(u, 1, concat(u, kv, 2, 0));
  }
  u->done = true;
}
