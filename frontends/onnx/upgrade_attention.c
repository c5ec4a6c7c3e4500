/* Attention, MultiHeadAttention, QAttention and RotaryEmbedding of ONNX Runtime's own domain
 * (com.microsoft) in terms of ai.onnx: projections and packings are taken apart, every kind of mask becomes an additive one, and
 * the standard Attention does the rest. A masked key gets mask_filter_value added, as there: a row whose keys are all
 * masked still is a softmax. */
#include <math.h>

#include "frontends/onnx/upgrade_attention.h"

double zn_ua_scale(zn_unode *u) { return zn_u_float(u, "scale", 0); }

zn_nid zn_ua_attend(zn_unode *u, const zn_ua_core *c) {
  zn_graph *g = u->s->g;
  const zn_vid in[7] = {c->q, c->k, c->v, c->mask, c->past_k, c->past_v, c->filled};
  const uint32_t num_in = c->filled ? 7 : c->past_k ? 6 : c->mask ? 4 : 3;
  const zn_nid n = zn_u_nodes(u, ZN_OP_Attention, in, num_in, c->mode >= 0 ? 4 : 3);
  if (c->heads) {
    zn_node_set_int(g, n, "q_num_heads", c->heads);
    zn_node_set_int(g, n, "kv_num_heads", c->kv_heads);
  }
  if (c->scale != 0) zn_node_set_float(g, n, "scale", c->scale);
  if (c->softcap != 0) zn_node_set_float(g, n, "softcap", c->softcap);
  if (c->causal) zn_node_set_int(g, n, "is_causal", 1);
  if (c->left >= 0) zn_node_set_int(g, n, "left_window_size", c->left);
  if (c->mode >= 0) zn_node_set_int(g, n, "qk_matmul_output_mode", c->mode);
  return n;
}

zn_vid zn_ua_apart(zn_unode *u, zn_vid x, int64_t heads) {
  const int64_t dims[4] = {0, 0, heads, -1}, perm[4] = {0, 2, 1, 3};
  return zn_u_transpose(u, zn_u_reshape(u, x, dims, 4), perm, 4);
}
zn_vid zn_ua_together(zn_unode *u, zn_vid x) {
  const int64_t dims[3] = {0, 0, -1}, perm[4] = {0, 2, 1, 3};
  return zn_u_reshape(u, zn_u_transpose(u, x, perm, 4), dims, 3);
}

bool zn_ua_heads_fit(zn_unode *u, int64_t heads) {
  if (heads >= 1 && heads <= 65536) return true;
  zn_u_lacking(u, "this number of heads");
  return false;
}

/* ---- masks ---- */

zn_vid zn_ua_penalty(zn_unode *u, zn_vid keep, double filter, zn_vid like) {
  const zn_vid zero = zn_u_scalar_like(u, 0, like), low = zn_u_scalar_like(u, filter, like);
  return zn_u_op3(u, ZN_OP_Where, keep, zero, low);
}

/* A vector says where the keys of each sequence end, in a second part also where they begin: bool [batch, keys]. */
static zn_vid keep_between(zn_unode *u, zn_vid mask, zn_vid batch_of, zn_vid total) {
  zn_exprs *ex = u->s->g->ex;
  const zn_expr n = zn_u_type(u, mask)->dims[0];
  const zn_type *t = zn_u_type(u, batch_of);
  if (t->rank < 1) return 0;
  const zn_expr batch = t->dims[0], two = zn_ex_muli(ex, batch, 2);
  const bool starts = n == two && n != batch;
  if (n != batch && !starts && n != zn_ex_addi(ex, zn_ex_muli(ex, batch, 3), 2)) return 0;
  const zn_vid all = zn_u_cast(u, mask, ZN_I64), j = zn_u_range(u, total),
               b = zn_u_dim(u, batch_of, 0, true);
  const zn_vid zero = zn_u_i64(u, 0), axis = zn_u_i64(u, 0);
  const zn_vid head[4] = {all, zero, b, axis};
  const zn_vid end = n == batch ? all : zn_u_op(u, ZN_OP_Slice, head, 4);
  zn_vid keep = zn_u_op2(u, ZN_OP_Less, j, zn_u_unsqueeze(u, end, 1));
  if (!starts) return keep;
  const zn_vid far = zn_u_i64(u, INT64_MAX), tail[4] = {all, b, far, axis};
  const zn_vid start = zn_u_unsqueeze(u, zn_u_op(u, ZN_OP_Slice, tail, 4), 1);
  return zn_u_op2(u, ZN_OP_And, keep, zn_u_op2(u, ZN_OP_GreaterOrEqual, j, start));
}

/* Rows past .. past + queries and the first `total` columns of [batch, 1, max, max]. */
static zn_vid window_of(zn_unode *u, zn_vid mask, zn_vid queries, zn_vid total) {
  const zn_vid to = zn_u_unsqueeze(u, total, 0), from = zn_u_op2(u, ZN_OP_Sub, to, queries),
               zero = zn_u_i64(u, 0);
  const zn_vid starts[2] = {from, zero}, ends[2] = {to, to};
  const int64_t axes[2] = {2, 3};
  zn_vid in[4] = {mask};
  in[1] = zn_u_concat(u, starts, 2, 0), in[2] = zn_u_concat(u, ends, 2, 0),
  in[3] = zn_u_i64s(u, axes, 2);
  return zn_u_op(u, ZN_OP_Slice, in, 4);
}

/* The mask input, of any of its forms, as numbers to add to the scores; x: [batch, queries, ...], total: number of keys. 0: its
 * form is not known. */
static zn_vid mask_bias(zn_unode *u, zn_vid mask, zn_vid x, zn_vid total) {
  const double filter = zn_u_float(u, "mask_filter_value", -10000);
  const int rank = zn_u_type(u, mask)->rank;
  zn_vid keep;
  if (rank == 1) {
    if (!(keep = keep_between(u, mask, x, total))) return 0;
  } else if (rank >= 2 && rank <= 4) {
    const zn_vid m = rank == 4 ? window_of(u, mask, zn_u_dim(u, x, 1, true), total) : mask;
    const zn_vid zero = zn_u_scalar_like(u, 0, m);
    keep = zn_u_op2(u, ZN_OP_Greater, m, zero);
  } else {
    return 0;
  }
  if (rank < 3) keep = zn_u_unsqueeze(u, keep, 1);
  if (rank < 4) keep = zn_u_unsqueeze(u, keep, 1);
  return zn_ua_penalty(u, keep, filter, x);
}

/* Sets c->mask from a mask and an additive bias, either may be 0; keys: the new ones, the axis their sequence runs along. */
static bool set_mask(zn_unode *u, zn_ua_core *c, zn_vid mask, zn_vid bias, zn_vid x, zn_vid keys,
                     int axis) {
  zn_vid total = zn_u_dim(u, keys, axis, false);
  if (c->past_k) total = zn_u_op2(u, ZN_OP_Add, total, zn_u_dim(u, c->past_k, 2, false));
  c->mask = bias;
  if (!mask) return true;
  const zn_vid m = mask_bias(u, mask, x, total);
  if (!m) {
    zn_u_lacking(u, "a mask whose form its shape does not tell");
    return false;
  }
  c->mask = bias ? zn_u_op2(u, ZN_OP_Add, m, bias) : m;
  return true;
}

/* ---- a buffer that past and present share: [batch, heads, room, size], of which `len` (i64 [1]) rows are past ---- */

static zn_vid length_of(zn_unode *u, zn_vid len) {
  const int64_t one = 1;
  return zn_u_reshape(u, zn_u_cast(u, len, ZN_I64), &one, 1);
}

static zn_vid rows_in_use(zn_unode *u, zn_vid buffer, zn_vid len) {
  const zn_vid zero = zn_u_i64(u, 0), axis = zn_u_i64(u, 2), in[4] = {buffer, zero, len, axis};
  return zn_u_op(u, ZN_OP_Slice, in, 4);
}

/* The new rows behind those in use. */
static zn_vid written(zn_unode *u, zn_vid buffer, zn_vid rows, zn_vid len) {
  const zn_vid batch = zn_u_dim(u, buffer, 0, true);
  return zn_u_op3(u, ZN_OP_TensorScatter, buffer, rows, zn_u_op2(u, ZN_OP_Expand, len, batch));
}

/* beams: [batch, beams, room], for each row the beam it came from; x: [batch * beams, heads, rows, size]. */
static zn_vid of_beams(zn_unode *u, zn_vid x, zn_vid beams, zn_vid len) {
  const int64_t flat[2] = {-1, 0}, column[3] = {-1, 1, 1}, apart[4] = {0, 1, -1, 1};
  const zn_vid from = zn_u_cast(u, beams, ZN_I64), group = zn_u_range(u, zn_u_dim(u, from, 0, false));
  const zn_vid first = zn_u_op2(u, ZN_OP_Mul, group, zn_u_dim(u, from, 1, false)), room = zn_u_dim(u, from, 2, true);
  const zn_vid all = zn_u_op2(u, ZN_OP_Add, from, zn_u_reshape(u, first, column, 3));
  const zn_vid dims[2] = {zn_u_i64s(u, flat, 1), room}, zero = zn_u_i64(u, 0), axis = zn_u_i64(u, 1);
  const zn_vid in[4] = {zn_u_op2(u, ZN_OP_Reshape, all, zn_u_concat(u, dims, 2, 0)), zero, len, axis};
  const zn_vid rows = zn_u_reshape(u, zn_u_unsqueeze(u, zn_u_op(u, ZN_OP_Slice, in, 4), 1), apart, 4);
  const zn_vid shape = zn_u_op1(u, ZN_OP_Shape, x), at = zn_u_op2(u, ZN_OP_Expand, rows, shape);
  const zn_nid n = zn_u_node(u, ZN_OP_GatherElements, (zn_vid[]){x, at}, 2);
  zn_node_set_int(u->s->g, n, "axis", 0);
  return zn_node_out(u->s->g, n, 0);
}

/* ---- Attention, QAttention ---- */

/* Queries and keys turned as do_rotary says: element i and i + size / 2 of a head are a pair, at position p turned by the angle
 * p / 10000^(2 i / size). ONNX Runtime's only kernel that has this attribute (CUDA) defines it so; positions go on behind the
 * past, of `before` rows (i64 [1], or 0). */
static bool turn_heads(zn_unode *u, zn_ua_core *c, zn_vid before) {
  zn_graph *g = u->s->g;
  zn_ua_rotary r = {.heads = c->heads, .dim = zn_u_int(u, "rotary_embedding_dim", 0)};
  int64_t hidden;
  if (!zn_u_const_dim(u, c->q, 2, &hidden) || hidden % c->heads || r.dim < 0 || r.dim > hidden / c->heads ||
      (r.dim ? r.dim : hidden / c->heads) % 2) {
    zn_u_lacking(u, "do_rotary and heads whose size is odd, not a constant, or less than rotary_embedding_dim");
    return false;
  }
  const int64_t size = r.dim ? r.dim : hidden / c->heads, half = size / 2;
  zn_htensor *period = ZN_ARRAY(g->arena, zn_htensor, 1);
  *period = zn_htensor_new(g->arena, ZN_F32, 1, &half);
  for (int64_t i = 0; i < half; i++)
    zn_store_f64(ZN_F32, period->data, (uint64_t)i, pow(10000, 2 * (double)i / (double)size));
  zn_vid p = zn_u_range(u, zn_u_dim(u, c->q, 1, false));
  if (before) p = zn_u_op2(u, ZN_OP_Add, p, before);
  const zn_vid column = zn_u_unsqueeze(u, zn_u_cast(u, p, ZN_F32), 1), each = zn_graph_const(g, NULL, period);
  const zn_vid angle = zn_u_unsqueeze(u, zn_u_op2(u, ZN_OP_Div, column, each), 0), wide = zn_u_dim(u, c->q, 0, true);
  const zn_vid one = zn_u_i64s(u, (int64_t[]){1, 1}, 2), part[2] = {wide, one}, all = zn_u_concat(u, part, 2, 0);
  const zn_dtype t = (zn_dtype)zn_u_type(u, c->q)->dtype;
  r.cos = zn_u_op2(u, ZN_OP_Expand, zn_u_cast(u, zn_u_op1(u, ZN_OP_Cos, angle), t), all);
  r.sin = zn_u_op2(u, ZN_OP_Expand, zn_u_cast(u, zn_u_op1(u, ZN_OP_Sin, angle), t), all);
  c->q = zn_ua_rotate(u, c->q, &r);
  c->k = zn_ua_rotate(u, c->k, &r);
  return true;
}

/* x: projected queries, keys and values side by side. past, present: [2, batch, heads, sequence, size]; len: rows in use of a
 * buffer that both share, or 0. */
static void self_attention(zn_unode *u, zn_vid x, zn_vid mask, zn_vid past, zn_vid len, zn_vid bias,
                           const zn_attr *sizes) {
  zn_ua_core c = {.heads = zn_u_int(u, "num_heads", 0), .left = -1, .mode = -1};
  zn_vid part[3];
  c.kv_heads = c.heads;
  c.scale = zn_ua_scale(u);
  c.causal = zn_u_int(u, "unidirectional", 0) != 0;
  if (!zn_ua_heads_fit(u, c.heads)) return;
  zn_u_split(u, x, -1, sizes ? sizes->u.is : NULL, 3, part);
  c.q = part[0], c.k = part[1], c.v = part[2];
  if (past) c.past_k = zn_u_gather(u, past, 0), c.past_v = zn_u_gather(u, past, 1);
  const zn_vid buffer[2] = {c.past_k, c.past_v};
  if (len) c.past_k = rows_in_use(u, c.past_k, len), c.past_v = rows_in_use(u, c.past_v, len);
  if (zn_u_int(u, "do_rotary", 0)) {
    const zn_vid before = len ? len : past ? zn_u_dim(u, c.past_k, 2, true) : 0;
    if (!turn_heads(u, &c, before)) return;
    part[1] = c.k;
  }
  if (!set_mask(u, &c, mask, bias, x, x, 1)) return;
  const zn_nid n = zn_ua_attend(u, &c);
  zn_unode_bind(u, 0, zn_node_out(u->s->g, n, 0));
  if (zn_u_wants(u, 1)) {
    zn_vid kv[2];
    for (uint32_t i = 0; i < 2; i++) {
      kv[i] = zn_node_out(u->s->g, n, 1 + i);
      if (len) kv[i] = written(u, buffer[i], zn_ua_apart(u, part[1 + i], c.heads), len);
      kv[i] = zn_u_unsqueeze(u, kv[i], 0);
    }
    zn_unode_bind(u, 1, zn_u_concat(u, kv, 2, 0));
  }
  u->done = true;
}

/* (input, weights, bias, mask, past, attention bias, past length) -> (y, present) */
void zn_up_ms_attention(zn_unode *u) {
  const zn_attr *sizes = zn_u_attr(u, "qkv_hidden_sizes");
  if (!zn_u_need(u, 2)) return;
  const bool shared = zn_u_int(u, "past_present_share_buffer", 0) != 0;
  if (shared && (!zn_u_in(u, 4) || !zn_u_in(u, 6))) {
    zn_u_lacking(u, "a shared buffer without past or its length");
    return;
  }
  if (sizes && (sizes->kind != ZN_A_INTS || sizes->n != 3)) sizes = NULL;
  zn_vid x = zn_u_op2(u, ZN_OP_MatMul, u->in[0], u->in[1]);
  if (zn_u_in(u, 2)) x = zn_u_op2(u, ZN_OP_Add, x, u->in[2]);
  const zn_vid len = shared ? length_of(u, u->in[6]) : 0;
  self_attention(u, x, zn_u_in(u, 3), zn_u_in(u, 4), len, zn_u_in(u, 5), sizes);
}

/* (input, weights, bias, input scale, weight scale, mask, input zero, weight zero, past) -> (y, present) */
void zn_up_ms_qattention(zn_unode *u) {
  if (!zn_u_need(u, 5)) return;
  if (zn_u_int(u, "past_present_share_buffer", 0)) {
    zn_u_lacking(u, "past_present_share_buffer: none of its inputs says how many rows of the buffer are in use");
    return;
  }
  const zn_vid x = zn_u_scaled_product(u, u->in[0], u->in[1], u->in[3], u->in[4], zn_u_in(u, 6),
                                       zn_u_in(u, 7), u->in[2]);
  self_attention(u, x, zn_u_in(u, 5), zn_u_in(u, 8), 0, 0, NULL);
}

/* ---- MultiHeadAttention ---- */

/* Entry i of axis 3 of [batch, sequence, heads, n, size], as [batch, sequence, heads * size]. */
static zn_vid unpacked(zn_unode *u, zn_vid x, int64_t i) {
  const int64_t flat[3] = {0, 0, -1};
  const zn_vid at = zn_u_num(u, ZN_I64, (double)i);
  const zn_nid g = zn_u_node(u, ZN_OP_Gather, (zn_vid[]){x, at}, 2);
  zn_node_set_int(u->s->g, g, "axis", 3);
  return zn_u_reshape(u, zn_node_out(u->s->g, g, 0), flat, 3);
}

/* Adds to q, k and v their parts of the bias, whose sizes are theirs; v's is what remains. */
static bool add_biases(zn_unode *u, zn_ua_core *c, zn_vid bias) {
  int64_t d, all;
  zn_vid b[3], *x[3] = {&c->q, &c->k, &c->v};
  if (!zn_u_const_dim(u, c->q, 2, &d) || !zn_u_const_dim(u, bias, 0, &all)) {
    zn_u_lacking(u, "a bias for a hidden size that is not a constant");
    return false;
  }
  const int64_t sizes[3] = {d, d, all - 2 * d};
  zn_u_split(u, bias, 0, sizes, 3, b);
  for (int i = 0; i < 3; i++) *x[i] = zn_u_op2(u, ZN_OP_Add, *x[i], b[i]);
  return true;
}

/* (query, key, value, bias, padding mask, attention bias, past key, past value, rows in use when past and present share a buffer,
 * beams its rows came from) -> (y, present key and value, scores). The query may hold all three, the key also the values;
 * keys of rank 4 have their heads apart already. */
void zn_up_ms_multiheadattention(zn_unode *u) {
  zn_ua_core c = {.heads = zn_u_int(u, "num_heads", 0), .left = -1, .mode = zn_u_wants(u, 3) ? 2 : -1};
  if (!zn_u_need(u, 1) || !zn_ua_heads_fit(u, c.heads)) return;
  c.kv_heads = c.heads;
  c.scale = zn_ua_scale(u);
  c.causal = zn_u_int(u, "unidirectional", 0) != 0;
  c.past_k = zn_u_in(u, 6), c.past_v = zn_u_in(u, 7);
  c.q = u->in[0], c.k = zn_u_in(u, 1), c.v = zn_u_in(u, 2);
  const int rank = zn_u_type(u, c.k ? c.k : c.q)->rank;
  const bool apart = c.k && rank == 4;
  if (!c.k && rank == 5) {
    const zn_vid all = c.q;
    c.q = unpacked(u, all, 0), c.k = unpacked(u, all, 1), c.v = unpacked(u, all, 2);
  } else if (c.k && !c.v && rank == 5) {
    const zn_vid both = c.k;
    c.k = unpacked(u, both, 0), c.v = unpacked(u, both, 1);
  } else if (!c.k || !c.v || (rank != 3 && rank != 4)) {
    zn_u_lacking(u, "keys and values of this form");
    return;
  }
  if (zn_u_in(u, 3) && !apart && !add_biases(u, &c, u->in[3])) return;
  const zn_vid buffer[2] = {c.past_k, c.past_v}, len = zn_u_in(u, 8) && c.past_k && c.past_v ? length_of(u, u->in[8]) : 0;
  if (zn_u_in(u, 9) && !len) {
    zn_u_lacking(u, "beams without a shared buffer");
    return;
  }
  if (len) c.past_k = rows_in_use(u, c.past_k, len), c.past_v = rows_in_use(u, c.past_v, len);
  if (zn_u_in(u, 9)) c.past_k = of_beams(u, c.past_k, u->in[9], len), c.past_v = of_beams(u, c.past_v, u->in[9], len);
  if (!set_mask(u, &c, zn_u_in(u, 4), zn_u_in(u, 5), c.q, c.k, apart ? 2 : 1)) return;
  const zn_vid fresh[2] = {c.k, c.v};
  const int64_t heads = c.heads;
  if (apart) c.q = zn_ua_apart(u, c.q, c.heads);
  if (apart) c.heads = 0;
  const zn_nid n = zn_ua_attend(u, &c);
  const zn_vid y = zn_node_out(u->s->g, n, 0);
  zn_unode_bind(u, 0, apart ? zn_ua_together(u, y) : y);
  for (uint32_t i = 1; i < 4 && i < u->num_out; i++) {
    if (!zn_u_wants(u, i)) continue;
    zn_vid v = zn_node_out(u->s->g, n, i);
    if (len && i < 3) v = written(u, buffer[i - 1], apart ? fresh[i - 1] : zn_ua_apart(u, fresh[i - 1], heads), len);
    zn_unode_bind(u, i, v);
  }
  u->done = true;
}

/* ---- RotaryEmbedding ---- */

zn_vid zn_ua_rotate(zn_unode *u, zn_vid x, const zn_ua_rotary *r) {
  const zn_vid in[4] = {x, r->cos, r->sin, r->ids};
  const zn_nid n = zn_u_node(u, ZN_OP_RotaryEmbedding, in, r->ids ? 4 : 3);
  if (r->heads) zn_node_set_int(u->s->g, n, "num_heads", r->heads);
  if (r->dim) zn_node_set_int(u->s->g, n, "rotary_embedding_dim", r->dim);
  zn_node_set_int(u->s->g, n, "interleaved", r->interleaved);
  return zn_node_out(u->s->g, n, 0);
}

zn_vid zn_ua_positions(zn_unode *u, zn_vid first, zn_vid x, int64_t axis) {
  const zn_vid s = zn_u_range(u, zn_u_dim(u, x, axis, false));
  return zn_u_op2(u, ZN_OP_Add, zn_u_unsqueeze(u, first, 1), s);
}

/* (x, position ids or their offset, cos, sin) */
void zn_up_ms_rotary(zn_unode *u) {
  if (!zn_u_need(u, 4)) return;
  const zn_vid x = u->in[0];
  const int rank = zn_u_type(u, x)->rank, ids_rank = zn_u_type(u, u->in[1])->rank;
  zn_ua_rotary r = {.cos = u->in[2], .sin = u->in[3], .ids = u->in[1]};
  int64_t hidden, half;
  r.heads = zn_u_int(u, "num_heads", 0);
  r.dim = zn_u_int(u, "rotary_embedding_dim", 0);
  r.interleaved = zn_u_int(u, "interleaved", 0) != 0;
  if (zn_u_int(u, "is_packed_batching", 0) || (rank != 3 && rank != 4) ||
      (ids_rank != 1 && ids_rank != 2)) {
    zn_u_lacking(u, "packed batching, or inputs of these ranks");
    return;
  }
  if (rank == 3 && !r.heads) { /* the cache says how large a head is */
    if (!zn_u_const_dim(u, x, 2, &hidden) || !zn_u_const_dim(u, r.cos, 1, &half) || half < 1) {
      zn_u_lacking(u, "a head size that is not a constant");
      return;
    }
    r.heads = hidden / (2 * half);
  }
  if (rank == 4) r.heads = 0;
  if (ids_rank == 1) { /* an offset for all sequences */
    const zn_vid b = zn_u_dim(u, x, 0, true);
    r.ids = zn_ua_positions(u, zn_u_op2(u, ZN_OP_Expand, r.ids, b), x, rank == 3 ? 1 : 2);
  }
  zn_u_finish(u, zn_ua_rotate(u, x, &r));
}

