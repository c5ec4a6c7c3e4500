/* Operators of ONNX Runtime's own domain (com.microsoft) that exported language-model decoders carry: gates and their
 * normalizations, recurrent and linear attention, rotary positions of three streams, quantized embeddings, experts. */
#include <math.h>

#include "frontends/onnx/upgrade_tools.h"

static zn_vid times(zn_unode *u, zn_vid a, zn_vid b) { return zn_u_op2(u, ZN_OP_Mul, a, b); }
static zn_vid plus(zn_unode *u, zn_vid a, zn_vid b) { return zn_u_op2(u, ZN_OP_Add, a, b); }

/* ---- gates ---- */

typedef struct glu {
  double alpha, beta, limit; /* limit: infinite when there is none */
} glu;

/* G sigmoid(alpha G) (L + beta), G and L clamped to the limit (G from above only) */
static zn_vid gated(zn_unode *u, zn_vid gate, zn_vid up, const glu *p) {
  if (isfinite(p->limit)) {
    const zn_vid most = zn_u_scalar_like(u, p->limit, gate), least = zn_u_scalar_like(u, -p->limit, gate);
    gate = zn_u_op2(u, ZN_OP_Min, gate, most);
    up = zn_u_op3(u, ZN_OP_Clip, up, least, most);
  }
  if (p->beta != 0) up = plus(u, up, zn_u_scalar_like(u, p->beta, up));
  return times(u, zn_u_swish(u, gate, p->alpha), up);
}

/* (gate, up), or both as halves of the last axis */
void zn_up_ms_swiglu(zn_unode *u) {
  glu p = {zn_u_float(u, "activation_alpha", 1), zn_u_float(u, "activation_beta", 0), zn_u_float(u, "limit", 0)};
  zn_vid half[2];
  if (!zn_u_need(u, 1)) return;
  half[0] = u->in[0], half[1] = zn_u_in(u, 1);
  if (!half[1]) zn_u_split(u, u->in[0], -1, NULL, 2, half);
  if (p.limit <= 0) p.limit = (double)INFINITY;
  zn_u_finish(u, gated(u, half[0], half[1], &p));
}

/* SiLU of scale * X */
void zn_up_ms_scaledsilu(zn_unode *u) {
  const double alpha = zn_u_float(u, "alpha", 1);
  if (!zn_u_need(u, 1)) return;
  const zn_vid scale = zn_u_in(u, 1) ? zn_u_reshape(u, u->in[1], NULL, 0) : zn_u_scalar_like(u, alpha, u->in[0]);
  zn_u_finish(u, zn_u_swish(u, times(u, u->in[0], zn_u_op2(u, ZN_OP_CastLike, scale, u->in[0])), 1));
}

/* X + Y * gate */
void zn_up_ms_gatedadd(zn_unode *u) {
  if (!zn_u_need(u, 3)) return;
  if (zn_u_in(u, 3)) zn_u_lacking(u, "gate_weight, which projects in bfloat16");
  else zn_u_finish(u, plus(u, u->in[0], times(u, u->in[1], u->in[2])));
}

/* (a, bias, scale, b) -> (scale * softplus(a + bias), sigmoid(b)), the first one in f32 inside */
void zn_up_ms_linearattentiongate(zn_unode *u) {
  if (!zn_u_need(u, zn_u_wants(u, 1) ? 4 : 3)) return;
  zn_vid in[3];
  for (int i = 0; i < 3; i++) in[i] = zn_u_cast(u, u->in[i], ZN_F32);
  const zn_vid soft = zn_u_op1(u, ZN_OP_Softplus, plus(u, in[0], in[1])), decay = times(u, soft, in[2]);
  if (zn_u_wants(u, 1)) zn_unode_bind(u, 1, zn_u_op1(u, ZN_OP_Sigmoid, u->in[3]));
  zn_u_finish(u, zn_u_op2(u, ZN_OP_CastLike, decay, u->in[0]));
}

/* ---- normalizations, computed in f32 ---- */

/* Each row of the last axis over its root mean square */
static zn_vid rms(zn_unode *u, zn_vid x, double eps) {
  const zn_vid in[2] = {x, zn_u_num(u, ZN_F32, 1)};
  const zn_nid n = zn_u_node(u, ZN_OP_RMSNormalization, in, 2);
  zn_node_set_float(u->s->g, n, "epsilon", eps);
  return zn_node_out(u->s->g, n, 0);
}

/* (X, scale [C], gate): rows of C elements of X, times activation(gate) */
void zn_up_ms_gatedrmsnorm(zn_unode *u) {
  const char *act = zn_u_str(u, "activation", "silu");
  const double eps = zn_u_float(u, "epsilon", 1e-5f);
  const bool sigmoid = !strcmp(act, "sigmoid");
  if (!zn_u_need(u, 3)) return;
  if (!sigmoid && strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0) {
    zn_u_lacking(u, act);
    return;
  }
  const zn_vid c[2] = {zn_u_i64(u, -1), zn_u_dim(u, u->in[1], 0, true)};
  const zn_vid to = zn_u_concat(u, c, 2, 0), scale = zn_u_cast(u, u->in[1], ZN_F32), gate = zn_u_cast(u, u->in[2], ZN_F32);
  const zn_vid x = zn_u_cast(u, u->in[0], ZN_F32), rows = zn_u_op2(u, ZN_OP_Reshape, x, to);
  const zn_vid y = zn_u_reshape_as(u, times(u, rms(u, rows, eps), scale), u->in[0]);
  const zn_vid g = sigmoid ? zn_u_op1(u, ZN_OP_Sigmoid, gate) : zn_u_swish(u, gate, 1);
  zn_u_finish(u, zn_u_op2(u, ZN_OP_CastLike, times(u, y, g), u->in[0]));
}

/* X [..., C, H], or [..., C * H] with num_branches C; the scale [C * H], [C, H] or [H] */
void zn_up_ms_branchwisermsnorm(zn_unode *u) {
  const double eps = zn_u_float(u, "epsilon", 1e-5f);
  const int64_t branches = zn_u_int(u, "num_branches", 0);
  int64_t c = branches, h = 0, n = 0;
  if (!zn_u_need(u, 1)) return;
  zn_vid x = zn_u_cast(u, u->in[0], ZN_F32), scale = zn_u_in(u, 1);
  const bool known = zn_u_const_dim(u, u->in[0], -1, &h) && (branches > 0 || zn_u_const_dim(u, u->in[0], -2, &c));
  if (!known || c < 1 || (branches > 0 && h % branches)) {
    zn_u_lacking(u, "branches of an unknown number or size");
    return;
  }
  if (branches > 0) {
    h /= c;
    const int64_t apart[2] = {c, h};
    zn_vid to[2] = {zn_u_op1(u, ZN_OP_Shape, x)};
    to[0] = zn_u_slice(u, to[0], 0, 0, -1);
    to[1] = zn_u_i64s(u, apart, 2);
    x = zn_u_op2(u, ZN_OP_Reshape, x, zn_u_concat(u, to, 2, 0));
  }
  zn_vid y = rms(u, x, eps);
  if (scale) {
    const int64_t apart[2] = {c, h};
    const bool whole = zn_u_type(u, scale)->rank == 1 && zn_u_const_dim(u, scale, 0, &n) && n == c * h;
    y = times(u, y, zn_u_cast(u, whole ? zn_u_reshape(u, scale, apart, 2) : scale, ZN_F32));
  }
  if (branches > 0) y = zn_u_reshape_as(u, y, u->in[0]);
  zn_u_finish(u, zn_u_op2(u, ZN_OP_CastLike, y, u->in[0]));
}

/* ---- state-carrying operators, as in ai.onnx ---- */

static bool absent(zn_unode *u, const char *const *attrs, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    const zn_attr *a = zn_u_attr(u, attrs[i]);
    const bool layout = !strcmp(attrs[i], "state_channels_last"); /* -1: as the input */
    if (a && a->u.i != (layout ? -1 : 0)) {
      zn_u_lacking(u, attrs[i]);
      return false;
    }
    zn_u_del(u, attrs[i]);
  }
  return true;
}

/* (query, key, value, past state, decay, beta) -> (y, present state) */
void zn_up_ms_linearattention(zn_unode *u) {
  static const char *const extended[] = {"state_window"};
  if (!zn_u_need(u, 3) || !absent(u, extended, 1)) return;
  u->domain = "";
}

/* (input, weight, bias, past state) -> (y, present state) */
void zn_up_ms_causalconvwithstate(zn_unode *u) {
  static const char *const extended[] = {"state_window",   "state_update_capacity", "state_length",
                                         "input_channels", "input_channel_offset",  "state_channels_last"};
  if (!zn_u_need(u, 2) || !absent(u, extended, sizeof extended / sizeof *extended)) return;
  const bool last = zn_u_int(u, "channels_last", 0) != 0;
  if (zn_u_int(u, "ndim", 1) != 1 || zn_u_int(u, "dilation", 1) != 1 || zn_u_wants(u, 2)) {
    zn_u_lacking(u, "more than one spatial axis, a dilation, or a captured update");
    return;
  }
  const bool one = zn_u_type(u, u->in[0])->rank == 3; /* more channel axes */
  zn_vid in[4] = {u->in[0], u->in[1], zn_u_in(u, 2), zn_u_in(u, 3)};
  if (last && !one) {
    zn_u_lacking(u, "channels of more than one axis");
    return;
  }
  if (last) in[0] = zn_u_swapped(u, in[0]);
  if (last && in[3]) in[3] = zn_u_swapped(u, in[3]);
  const zn_nid n = zn_u_nodes_with_attrs(u, ZN_OP_CausalConvWithState, in, in[3] ? 4 : in[2] ? 3 : 2, 2);
  for (uint32_t i = 0; i < 2; i++) {
    const zn_vid y = zn_node_out(u->s->g, n, i);
    zn_unode_bind(u, i, last ? zn_u_swapped(u, y) : y);
  }
  u->done = true;
}

/* ---- rotary positions of three streams ---- */

/* Row positions[stream of the column, b, s] of a cache [positions, half]: [batch, sequence, half] */
static zn_vid by_stream(zn_unode *u, zn_vid cache, zn_vid ids, const int64_t *stream, int64_t half) {
  const zn_vid rows = zn_u_op2(u, ZN_OP_Gather, cache, ids); /* [3, batch, sequence, half] */
  zn_vid y = zn_u_gather(u, rows, 0);
  for (int64_t s = 1; s < 3; s++) {
    zn_htensor *mine = ZN_NEW(u->s->I->ga, zn_htensor);
    *mine = zn_htensor_new(u->s->I->ga, ZN_BOOL, 1, &half);
    for (int64_t i = 0; i < half; i++) ((uint8_t *)mine->data)[i] = stream[i] == s;
    const zn_vid its = zn_u_gather(u, rows, s);
    y = zn_u_op3(u, ZN_OP_Where, zn_graph_const(u->s->g, NULL, mine), its, y);
  }
  return y;
}

/* (x, positions [3, batch, sequence], cos, sin): time, height and width, each for some of the columns */
void zn_up_ms_mrotary(zn_unode *u) {
  const int64_t layout = zn_u_int(u, "mrope_layout", 0), packed = zn_u_int(u, "is_packed_batching", 0);
  const double scale = zn_u_float(u, "scale", 1);
  int64_t half, heads = zn_u_int(u, "num_heads", 0), hidden;
  const zn_attr *section = zn_u_attr(u, "mrope_section");
  if (!zn_u_need(u, 4)) return;
  const int rank = zn_u_type(u, u->in[0])->rank;
  if (!section || section->kind != ZN_A_INTS || section->n != 3 || layout < 0 || layout > 1 || scale != 1 ||
      packed || (rank != 3 && rank != 4) || !zn_u_const_dim(u, u->in[2], 1, &half) ||
      section->u.is[0] + section->u.is[1] + section->u.is[2] != half) {
    zn_u_lacking(u, "sections that do not add up, a scale, packed batching, or inputs of these ranks");
    return;
  }
  const int64_t *n = section->u.is;
  int64_t *stream = ZN_ARRAY(u->s->I->pa, int64_t, (size_t)half);
  for (int64_t i = 0; i < half; i++) {
    if (layout == 0) stream[i] = i < n[0] ? 0 : i < n[0] + n[1] ? 1 : 2;
    else stream[i] = i % 3 && i < 3 * n[i % 3] ? i % 3 : 0;
  }
  if (rank == 3 && !heads && zn_u_const_dim(u, u->in[0], 2, &hidden)) heads = hidden / (2 * half);
  zn_vid in[3] = {u->in[0]};
  for (int i = 1; i < 3; i++) in[i] = by_stream(u, u->in[1 + i], u->in[1], stream, half);
  const zn_nid r = zn_u_nodes_with_attrs(u, ZN_OP_RotaryEmbedding, in, 3, 1);
  zn_node_set_int(u->s->g, r, "num_heads", rank == 3 ? heads : 0);
  zn_u_finish(u, zn_node_out(u->s->g, r, 0));
}

/* (angles, q, q turned, k, k turned) -> (q cos + q' sin, k cos + k' sin) */
void zn_up_ms_gemmarotary(zn_unode *u) {
  zn_vid trig[2];
  if (!zn_u_need(u, 5)) return;
  for (int i = 0; i < 2; i++) {
    const zn_vid t = zn_u_op1(u, i ? ZN_OP_Sin : ZN_OP_Cos, u->in[0]);
    trig[i] = zn_u_unsqueeze(u, zn_u_op2(u, ZN_OP_CastLike, t, u->in[1]), 1);
  }
  for (uint32_t i = 0; i < 2; i++) {
    const zn_vid x = times(u, u->in[1 + 2 * i], trig[0]), turned = times(u, u->in[2 + 2 * i], trig[1]);
    zn_unode_bind(u, i, plus(u, x, turned));
  }
  u->done = true;
}

/* ---- embeddings quantized in blocks ---- */

typedef struct blocks {
  zn_vid data, scale, zero, at; /* at: indices, in range */
  int64_t bits, block, gather, axis, out_axis; /* out_axis: of the blocks, in the result */
  int rank;
  bool packed; /* several numbers in a byte of the last axis */
} blocks;

/* Rows of v, which has one for each of the data's or one for all */
static zn_vid picked(zn_unode *u, const blocks *b, zn_vid v) {
  int64_t one = 0;
  const bool shared = zn_u_const_dim(u, v, (int)b->gather, &one) && one == 1;
  const zn_vid at = shared ? times(u, b->at, zn_u_num(u, ZN_I64, 0)) : b->at;
  const zn_nid n = zn_u_node(u, ZN_OP_Gather, (zn_vid[]){v, at}, 2);
  zn_node_set_int(u->s->g, n, "axis", b->gather);
  return zn_node_out(u->s->g, n, 0);
}

/* A scale or zero point (already picked) for each of the n elements along the blocks' axis */
static zn_vid spread(zn_unode *u, const blocks *b, zn_vid v, zn_vid n) {
  const zn_vid size = zn_u_num(u, ZN_I64, (double)b->block), i = zn_u_range(u, n);
  const zn_nid g = zn_u_node(u, ZN_OP_Gather, (zn_vid[]){v, zn_u_op2(u, ZN_OP_Div, i, size)}, 2);
  zn_node_set_int(u->s->g, g, "axis", b->out_axis);
  return zn_node_out(u->s->g, g, 0);
}

static bool read_blocks(zn_unode *u, blocks *b) {
  const zn_type *t = zn_u_type(u, b->data);
  int indices = zn_u_type(u, u->in[1])->rank;
  b->rank = t->rank;
  b->packed = t->dtype == ZN_U8 && b->bits < 8;
  if (b->gather < 0) b->gather += b->rank;
  if (b->axis < 0) b->axis += b->rank;
  if (b->rank < 1 || indices < 0 || b->gather < 0 || b->gather >= b->rank || b->axis < 0 || b->axis >= b->rank ||
      b->gather == b->axis || b->block < 0 || (b->bits != 2 && b->bits != 4 && b->bits != 8)) {
    zn_u_lacking(u, "axes, a block size or bits that are out of range");
    return false;
  }
  b->out_axis = b->axis < b->gather ? b->axis : b->axis + indices - 1;
  return true;
}

/* (data, indices, scales, zero points): Gather, then (data - zero) * scale with a pair for each block along an axis. Indices
 * out of range give zeros. */
void zn_up_ms_gatherblockquantized(zn_unode *u) {
  blocks b = {.bits = zn_u_int(u, "bits", 4), .block = zn_u_int(u, "block_size", 128),
              .gather = zn_u_int(u, "gather_axis", 0), .axis = zn_u_int(u, "quantize_axis", -1)};
  if (!zn_u_need(u, 3)) return;
  b.data = u->in[0], b.scale = u->in[2], b.zero = zn_u_in(u, 3);
  if (!read_blocks(u, &b)) return;
  const zn_dtype t = (zn_dtype)zn_u_type(u, b.scale)->dtype, dt = (zn_dtype)zn_u_type(u, b.data)->dtype;
  const zn_vid i = zn_u_cast(u, u->in[1], ZN_I64), size = zn_u_dim(u, b.data, b.gather, false);
  const zn_vid from = zn_u_op2(u, ZN_OP_GreaterOrEqual, i, zn_u_op1(u, ZN_OP_Neg, size));
  const zn_vid below = zn_u_op2(u, ZN_OP_Less, i, size), inside = zn_u_op2(u, ZN_OP_And, from, below);
  b.at = zn_u_op3(u, ZN_OP_Where, inside, i, zn_u_num(u, ZN_I64, 0));
  zn_vid x = picked(u, &b, b.data), zero = 0;
  if (b.packed) x = zn_u_unpacked(u, x, b.bits);
  const zn_vid n = zn_u_dim(u, x, b.out_axis, false);
  b.scale = picked(u, &b, b.scale);
  if (b.zero) {
    zero = picked(u, &b, b.zero);
    if (b.packed) zero = zn_u_unpacked(u, zero, b.bits);
    zero = zn_u_cast(u, zero, t);
  }
  if (b.block) {
    b.scale = spread(u, &b, b.scale, n);
    if (zero) zero = spread(u, &b, zero, n);
  }
  if (!zero && dt == ZN_U8) zero = zn_u_num(u, t, (double)(1 << (b.bits - 1)));
  x = zn_u_cast(u, x, t);
  if (zero) x = zn_u_op2(u, ZN_OP_Sub, x, zero);
  zn_vid keep = inside;
  for (int64_t d = 0; d < b.gather; d++) keep = zn_u_unsqueeze(u, keep, 0);
  for (int64_t d = b.gather + 1; d < b.rank; d++) keep = zn_u_unsqueeze(u, keep, -1);
  const zn_vid nothing = zn_u_num(u, t, 0);
  zn_u_finish(u, zn_u_op3(u, ZN_OP_Where, keep, times(u, x, b.scale), nothing));
}

/* ---- weights of four bits by a table of values ---- */

/* Codes of FP4 (sign, then an index) and NF4 (quantiles of a normal distribution), as bitsandbytes defines them */
static const float fp4[16] = {0.0f, 5.208333333e-03f, 0.66666667f, 1.0f, 0.33333333f, 0.5f, 0.16666667f, 0.25f,
                              -0.0f, -5.208333333e-03f, -0.66666667f, -1.0f, -0.33333333f, -0.5f, -0.16666667f, -0.25f};
static const float nf4[16] = {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
                              -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
                              0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
                              0.7229568362236023f, 1.0f};

/* (A, codes of [N, K] two in a byte, the first one high, a scale for each block) */
void zn_up_ms_matmulbnb4(zn_unode *u) {
  const int64_t n = zn_u_int(u, "N", 0), k = zn_u_int(u, "K", 0), block = zn_u_int(u, "block_size", 0);
  const int64_t transposed = zn_u_int(u, "transB", 1), type = zn_u_int(u, "quant_type", 0), dims[2] = {n, k};
  if (!zn_u_need(u, 3)) return;
  const zn_htensor *b = u->s->g->vals[u->in[1]].cst, *scale = u->s->g->vals[u->in[2]].cst;
  if (!b || !scale || n < 1 || k < 1 || n > INT32_MAX || k > INT32_MAX || block < 1 || type < 0 || type > 1 ||
      zn_htensor_count(b) != (uint64_t)(n * k + 1) / 2 || zn_htensor_count(scale) != (uint64_t)((n * k + block - 1) / block)) {
    zn_u_lacking(u, "weights that are no constants or not of the sizes it states");
    return;
  }
  zn_htensor *w = ZN_NEW(u->s->I->ga, zn_htensor);
  *w = zn_htensor_new(u->s->I->ga, scale->dtype, 2, dims);
  for (int64_t i = 0; i < n * k; i++) {
    const int code = ((const uint8_t *)b->data)[i / 2] >> (i % 2 ? 0 : 4) & 15;
    const double s = zn_load_f64(scale->dtype, scale->data, (uint64_t)(i / block));
    zn_store_f64(w->dtype, w->data, (uint64_t)i, s * (double)(type ? nf4 : fp4)[code]);
  }
  zn_vid v = zn_graph_const(u->s->g, NULL, w);
  if (transposed) v = zn_u_swapped(u, v);
  zn_u_finish(u, zn_u_op2(u, ZN_OP_MatMul, u->in[0], v));
}

/* ---- mixture of experts ---- */

/* How much of each expert a token gets: [tokens, experts], zero for all but the best k */
static zn_vid routing(zn_unode *u, zn_vid logits, int64_t k, bool normalize) {
  const zn_vid p = zn_u_op1(u, ZN_OP_Softmax, zn_u_cast(u, logits, ZN_F32)), in[2] = {p, zn_u_i64(u, k)};
  const zn_nid top = zn_u_nodes(u, ZN_OP_TopK, in, 2, 2);
  zn_vid best = zn_node_out(u->s->g, top, 0);
  if (normalize) {
    const zn_vid sum = zn_u_op2(u, ZN_OP_ReduceSum, best, zn_u_i64(u, -1));
    best = zn_u_op2(u, ZN_OP_Div, best, sum);
  }
  const zn_vid none = times(u, p, zn_u_num(u, ZN_F32, 0));
  const zn_nid put = zn_u_node(u, ZN_OP_ScatterElements, (zn_vid[]){none, zn_node_out(u->s->g, top, 1), best}, 3);
  zn_node_set_int(u->s->g, put, "axis", -1);
  return zn_node_out(u->s->g, put, 0);
}

/* x [., tokens, in] times each expert's weights [experts, out, in] */
static zn_vid layer(zn_unode *u, zn_vid x, zn_vid w, zn_vid bias) {
  const int64_t swap[3] = {0, 2, 1};
  const zn_vid y = zn_u_op2(u, ZN_OP_MatMul, x, zn_u_transpose(u, w, swap, 3));
  return bias ? plus(u, y, zn_u_unsqueeze(u, bias, 1)) : y;
}

/* Gate and linear half of a fused projection: interleaved, or one behind the other. */
static void halves(zn_unode *u, zn_vid h, bool interleaved, zn_vid out[2]) {
  if (!interleaved) {
    zn_u_split(u, h, -1, NULL, 2, out);
    return;
  }
  for (int64_t i = 0; i < 2; i++) {
    const int64_t range[4] = {i, INT64_MAX, -1, 2}; /* from, to, axis, step */
    zn_vid in[5] = {h};
    for (int k = 0; k < 4; k++) in[1 + k] = zn_u_i64(u, range[k]);
    out[i] = zn_u_op(u, ZN_OP_Slice, in, 5);
  }
}

static zn_vid expert_activation(zn_unode *u, const char *name, zn_vid x) { /* 0: not known */
  if (!strcmp(name, "relu")) return zn_u_op1(u, ZN_OP_Relu, x);
  if (!strcmp(name, "gelu")) return zn_u_gelu(u, x, true);
  if (!strcmp(name, "silu")) return zn_u_swish(u, x, 1);
  return !strcmp(name, "identity") ? x : 0;
}

/* (x [..., hidden], router [tokens, experts], fc1, its bias, fc2, its bias, fc3, its bias): every expert computes every token,
 * which is right but k of the experts would do. */
void zn_up_ms_moe(zn_unode *u) {
  const int64_t k = zn_u_int(u, "k", 1), fusion = zn_u_int(u, "swiglu_fusion", 0);
  const bool normalize = zn_u_int(u, "normalize_routing_weights", 0) != 0;
  const glu p = {zn_u_float(u, "activation_alpha", 1), zn_u_float(u, "activation_beta", 0),
                 zn_u_float(u, "swiglu_limit", (double)INFINITY)};
  const char *act = zn_u_str(u, "activation_type", "relu");
  const bool gated_one = !strcmp(act, "swiglu");
  if (!zn_u_need(u, 3) || !zn_u_in(u, 4) || zn_u_int(u, "use_sparse_mixer", 0) ||
      zn_u_int(u, "swiglu_limit_after_activation", 0)) {
    if (!u->done) zn_u_lacking(u, "a sparse mixer, a limit behind the activation, or too few inputs");
    return;
  }
  int64_t hidden, flat[2] = {-1, 0};
  if (!zn_u_const_dim(u, u->in[0], -1, &hidden) || (gated_one && !fusion && !zn_u_in(u, 6))) {
    zn_u_lacking(u, "a hidden size that is not a constant, or a gate without its linear half");
    return;
  }
  flat[1] = hidden;
  const zn_vid x = zn_u_reshape(u, u->in[0], flat, 2);
  zn_vid h = layer(u, x, u->in[2], zn_u_in(u, 3)), pair[2] = {h, 0};
  if (gated_one && fusion) halves(u, h, fusion == 1, pair);
  else if (zn_u_in(u, 6)) pair[1] = layer(u, x, u->in[6], zn_u_in(u, 7));
  h = gated_one ? gated(u, pair[0], pair[1], &p) : expert_activation(u, act, h);
  if (!h) {
    zn_u_lacking(u, act);
    return;
  }
  if (!gated_one && pair[1]) h = times(u, h, pair[1]);
  const int64_t to_front[2] = {1, 0};
  const zn_vid y = layer(u, h, u->in[4], zn_u_in(u, 5)); /* [experts, tokens, hidden] */
  const zn_vid w = zn_u_unsqueeze(u, zn_u_transpose(u, routing(u, u->in[1], k, normalize), to_front, 2), -1);
  const zn_vid part = times(u, y, zn_u_op2(u, ZN_OP_CastLike, w, y)), none = zn_u_num(u, ZN_F32, 0);
  const zn_vid unused = zn_u_op2(u, ZN_OP_Equal, w, none), zero = zn_u_scalar_like(u, 0, y);
  const zn_vid kept = zn_u_op3(u, ZN_OP_Where, unused, zero, part);
  const zn_nid sum = zn_u_node(u, ZN_OP_ReduceSum, (zn_vid[]){kept, zn_u_i64(u, 0)}, 2);
  zn_node_set_int(u->s->g, sum, "keepdims", 0);
  zn_u_finish(u, zn_u_reshape_as(u, zn_node_out(u->s->g, sum, 0), u->in[0]));
}
