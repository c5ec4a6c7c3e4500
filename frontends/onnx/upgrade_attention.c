/* Attention, MultiHeadAttention, QAttention, GroupQueryAttention and RotaryEmbedding of ONNX Runtime's own domain
 * (com.microsoft) in terms of ai.onnx: projections and packings are taken apart, every kind of mask becomes an additive one, and
 * the standard Attention does the rest. A masked key gets mask_filter_value added, as there: a row whose keys are all
 * masked still is a softmax. */
#include <math.h>

#include "frontends/onnx/upgrade_tools.h"

typedef struct core {
  zn_vid q, k, v; /* [batch, sequence, heads * size], or all [batch, heads, sequence, size] */
  zn_vid mask; /* additive, or 0 */
  zn_vid past_k, past_v; /* [batch, heads, sequence, size], or 0 */
  zn_vid
      filled; /* i64 [batch]: keys in use; with it q's rows are the last ones before that end. Or 0 */
  int64_t heads, kv_heads, left; /* left: keys before a query's own that it sees, -1 all */
  double scale, softcap; /* 0: default, none */
  bool causal;
  int mode; /* of the scores in output 3; -1 not wanted */
} core;

static double scale_of(zn_unode *u) { return zn_u_float(u, "scale", 0); }

static zn_nid attend(zn_unode *u, const core *c) {
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

/* [batch, sequence, heads * size] and [batch, heads, sequence, size]. */
static zn_vid heads_apart(zn_unode *u, zn_vid x, int64_t heads) {
  const int64_t dims[4] = {0, 0, heads, -1}, perm[4] = {0, 2, 1, 3};
  return zn_u_transpose(u, zn_u_reshape(u, x, dims, 4), perm, 4);
}
static zn_vid heads_together(zn_unode *u, zn_vid x) {
  const int64_t dims[3] = {0, 0, -1}, perm[4] = {0, 2, 1, 3};
  return zn_u_reshape(u, zn_u_transpose(u, x, perm, 4), dims, 3);
}

static bool heads_fit(zn_unode *u, int64_t heads) {
  if (heads >= 1 && heads <= 65536) return true;
  zn_u_lacking(u, "this number of heads");
  return false;
}

/* ---- masks ---- */

/* Where keep: 0, else `filter`, in the type of `like`. */
static zn_vid penalty(zn_unode *u, zn_vid keep, double filter, zn_vid like) {
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
  return penalty(u, keep, filter, x);
}

/* Sets c->mask from a mask and an additive bias, either may be 0; keys: the new ones, the axis their sequence runs along. */
static bool set_mask(zn_unode *u, core *c, zn_vid mask, zn_vid bias, zn_vid x, zn_vid keys,
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

/* ---- Attention, QAttention ---- */

/* x: projected queries, keys and values side by side. past, present: [2, batch, heads, sequence, size]. */
static void self_attention(zn_unode *u, zn_vid x, zn_vid mask, zn_vid past, zn_vid bias,
                           const zn_attr *sizes) {
  core c = {.heads = zn_u_int(u, "num_heads", 0), .left = -1, .mode = -1};
  zn_vid part[3];
  c.kv_heads = c.heads;
  c.scale = scale_of(u);
  c.causal = zn_u_int(u, "unidirectional", 0) != 0;
  if (!heads_fit(u, c.heads)) return;
  zn_u_split(u, x, -1, sizes ? sizes->u.is : NULL, 3, part);
  c.q = part[0], c.k = part[1], c.v = part[2];
  if (past) c.past_k = zn_u_gather(u, past, 0), c.past_v = zn_u_gather(u, past, 1);
  if (!set_mask(u, &c, mask, bias, x, x, 1)) return;
  const zn_nid n = attend(u, &c);
  zn_unode_bind(u, 0, zn_node_out(u->s->g, n, 0));
  if (zn_u_wants(u, 1)) {
    zn_vid kv[2];
    for (uint32_t i = 0; i < 2; i++) kv[i] = zn_u_unsqueeze(u, zn_node_out(u->s->g, n, 1 + i), 0);
    zn_unode_bind(u, 1, zn_u_concat(u, kv, 2, 0));
  }
  u->done = true;
}

/* (input, weights, bias, mask, past, attention bias, past length) -> (y, present) */
void zn_up_ms_attention(zn_unode *u) {
  const zn_attr *sizes = zn_u_attr(u, "qkv_hidden_sizes");
  if (!zn_u_need(u, 2)) return;
  if (zn_u_int(u, "do_rotary", 0) || zn_u_int(u, "past_present_share_buffer", 0) || zn_u_in(u, 6)) {
    zn_u_lacking(u, "rotary embedding or a shared buffer of past and present");
    return;
  }
  if (sizes && (sizes->kind != ZN_A_INTS || sizes->n != 3)) sizes = NULL;
  zn_vid x = zn_u_op2(u, ZN_OP_MatMul, u->in[0], u->in[1]);
  if (zn_u_in(u, 2)) x = zn_u_op2(u, ZN_OP_Add, x, u->in[2]);
  self_attention(u, x, zn_u_in(u, 3), zn_u_in(u, 4), zn_u_in(u, 5), sizes);
}

/* (input, weights, bias, input scale, weight scale, mask, input zero, weight zero, past) -> (y, present) */
void zn_up_ms_qattention(zn_unode *u) {
  if (!zn_u_need(u, 5)) return;
  if (zn_u_int(u, "do_rotary", 0) || zn_u_int(u, "past_present_share_buffer", 0)) {
    zn_u_lacking(u, "rotary embedding or a shared buffer of past and present");
    return;
  }
  const zn_vid x = zn_u_scaled_product(u, u->in[0], u->in[1], u->in[3], u->in[4], zn_u_in(u, 6),
                                       zn_u_in(u, 7), u->in[2]);
  self_attention(u, x, zn_u_in(u, 5), zn_u_in(u, 8), 0, NULL);
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
static bool add_biases(zn_unode *u, core *c, zn_vid bias) {
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

/* (query, key, value, bias, padding mask, attention bias, past key, past value, ...) -> (y, present key and value, scores). The
 * query may hold all three, the key also the values; keys of rank 4 have their heads apart already. */
void zn_up_ms_multiheadattention(zn_unode *u) {
  core c = {.heads = zn_u_int(u, "num_heads", 0), .left = -1, .mode = zn_u_wants(u, 3) ? 2 : -1};
  if (!zn_u_need(u, 1) || !heads_fit(u, c.heads)) return;
  if (zn_u_in(u, 8) || zn_u_in(u, 9)) {
    zn_u_lacking(u, "a shared buffer of past and present, or a cache indirection");
    return;
  }
  c.kv_heads = c.heads;
  c.scale = scale_of(u);
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
  if (!set_mask(u, &c, zn_u_in(u, 4), zn_u_in(u, 5), c.q, c.k, apart ? 2 : 1)) return;
  if (apart) c.q = heads_apart(u, c.q, c.heads);
  if (apart) c.heads = 0;
  const zn_nid n = attend(u, &c);
  const zn_vid y = zn_node_out(u->s->g, n, 0);
  zn_unode_bind(u, 0, apart ? heads_together(u, y) : y);
  for (uint32_t i = 1; i < 4 && i < u->num_out; i++)
    if (zn_u_wants(u, i)) zn_unode_bind(u, i, zn_node_out(u->s->g, n, i));
  u->done = true;
}

/* ---- RotaryEmbedding ---- */

typedef struct rotary {
  zn_vid cos, sin, ids; /* ids: [batch, sequence] */
  int64_t heads, dim; /* 0: x has its heads apart; all of a head */
  bool interleaved;
} rotary;

static zn_vid rotate(zn_unode *u, zn_vid x, const rotary *r) {
  const zn_vid in[4] = {x, r->cos, r->sin, r->ids};
  const zn_nid n = zn_u_node(u, ZN_OP_RotaryEmbedding, in, 4);
  if (r->heads) zn_node_set_int(u->s->g, n, "num_heads", r->heads);
  if (r->dim) zn_node_set_int(u->s->g, n, "rotary_embedding_dim", r->dim);
  zn_node_set_int(u->s->g, n, "interleaved", r->interleaved);
  return zn_node_out(u->s->g, n, 0);
}

/* first[b] + 0, 1, ... for the rows of x: [batch, sequence]. */
static zn_vid positions(zn_unode *u, zn_vid first, zn_vid x, int64_t axis) {
  const zn_vid s = zn_u_range(u, zn_u_dim(u, x, axis, false));
  return zn_u_op2(u, ZN_OP_Add, zn_u_unsqueeze(u, first, 1), s);
}

/* (x, position ids or their offset, cos, sin) */
void zn_up_ms_rotary(zn_unode *u) {
  if (!zn_u_need(u, 4)) return;
  const zn_vid x = u->in[0];
  const int rank = zn_u_type(u, x)->rank, ids_rank = zn_u_type(u, u->in[1])->rank;
  rotary r = {.cos = u->in[2], .sin = u->in[3], .ids = u->in[1]};
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
    r.ids = positions(u, zn_u_op2(u, ZN_OP_Expand, r.ids, b), x, rank == 3 ? 1 : 2);
  }
  zn_u_finish(u, rotate(u, x, &r));
}

/* ---- GroupQueryAttention ---- */

typedef struct gqa {
  core c;
  zn_vid before; /* i64 [batch]: keys in the cache before this step */
  zn_vid ends; /* i64 [batch]: after it */
  bool packed;
} gqa;

static bool gqa_refused(zn_unode *u) {
  const char *const quant[2] = {"k_quant_type", "v_quant_type"};
  bool odd = zn_u_int(u, "sliding_window_cache", 0) != 0 || zn_u_in(u, 12) || zn_u_in(u, 13);
  for (int i = 0; i < 2; i++) odd = odd || strcmp(zn_u_str(u, quant[i], "NONE"), "NONE") != 0;
  if (odd) zn_u_lacking(u, "a quantized cache or one that slides");
  return odd;
}

/* Keys before this step: all after it but the new ones, none for a first prompt, whose sequences may end early. */
static void read_lengths(zn_unode *u, gqa *a) {
  const int64_t flat = -1;
  const zn_vid k = zn_u_reshape(u, zn_u_cast(u, u->in[5], ZN_I64), &flat, 1), one = zn_u_i64(u, 1);
  a->ends = zn_u_op2(u, ZN_OP_Add, k, one);
  if (zn_u_in(u, 16)) { /* rows in use are stated */
    const zn_vid rows = zn_u_cast(u, u->in[16], ZN_I64);
    a->before = zn_u_op2(u, ZN_OP_Sub, a->ends, rows);
    return;
  }
  const zn_vid rows = zn_u_dim(u, u->in[0], 1, true), zero = zn_u_i64(u, 0);
  a->before = zn_u_op2(u, ZN_OP_Max, zn_u_op2(u, ZN_OP_Sub, a->ends, rows), zero);
}

/* The cache, as long as `total` says when that is more, with the new rows (heads apart) where they belong. */
static zn_vid cached(zn_unode *u, const gqa *a, zn_vid past, zn_vid rows) {
  const int64_t flat = -1;
  if (!past) return rows;
  const zn_vid have = zn_u_dim(u, past, 2, true), zero = zn_u_i64(u, 0), axis = zn_u_i64(u, 2);
  const zn_vid total = zn_u_reshape(u, zn_u_cast(u, u->in[6], ZN_I64), &flat, 1);
  const zn_vid pads[2] = {zero, zn_u_op2(u, ZN_OP_Max, zn_u_op2(u, ZN_OP_Sub, total, have), zero)};
  const zn_vid in[4] = {past, zn_u_concat(u, pads, 2, 0), 0, axis};
  return zn_u_op3(u, ZN_OP_TensorScatter, zn_u_op(u, ZN_OP_Pad, in, 4), rows, a->before);
}

static zn_vid normed(zn_unode *u, zn_vid x, zn_vid weight, const char *eps) {
  const double e = zn_u_float(
      u, eps, zn_u_attr(u, "qk_norm_epsilon") ? zn_u_attr(u, "qk_norm_epsilon")->u.f : 1e-6f);
  const zn_nid n = zn_u_node(u, ZN_OP_RMSNormalization, (zn_vid[]){x, weight}, 2);
  zn_node_set_float(u->s->g, n, "epsilon", e);
  return zn_node_out(u->s->g, n, 0);
}

/* Normalizes and rotates queries and keys, whose heads are apart. */
static bool prepare_heads(zn_unode *u, gqa *a) {
  const bool turn = zn_u_int(u, "do_rotary", 0) != 0;
  rotary r = {.cos = zn_u_in(u, 7), .sin = zn_u_in(u, 8), .ids = zn_u_in(u, 9)};
  int64_t half;
  if (zn_u_in(u, 14)) a->c.q = normed(u, a->c.q, u->in[14], "q_norm_epsilon");
  if (zn_u_in(u, 15)) a->c.k = normed(u, a->c.k, u->in[15], "k_norm_epsilon");
  r.interleaved = zn_u_int(u, "rotary_interleaved", 0) != 0;
  if (!turn) return true;
  if (!r.cos || !r.sin || !zn_u_const_dim(u, r.cos, 1, &half)) {
    zn_u_lacking(u, "rotary embedding without tables of a constant width");
    return false;
  }
  r.dim = 2 * half;
  if (!r.ids) {
    const zn_vid limit = zn_u_op2(u, ZN_OP_Sub, zn_u_dim(u, r.cos, 0, true), zn_u_i64(u, 1));
    r.ids = zn_u_op2(u, ZN_OP_Min, positions(u, a->before, u->in[0], 1),
                     limit); /* rows behind the end of a sequence */
  }
  a->c.q = rotate(u, a->c.q, &r);
  a->c.k = rotate(u, a->c.k, &r);
  return true;
}

/* A sink in the denominator of the softmax: one more key of zeros, with a score of its own and a value of zeros. What the
 * standard Attention would hide by position must now be in the mask. */
static void add_sink(zn_unode *u, core *c, zn_vid sink, const gqa *a) {
  const zn_vid j = zn_u_range(u, zn_u_dim(u, c->k, 2, false));
  const zn_vid first = zn_u_reshape(u, a->before, (int64_t[]){-1, 1, 1, 1}, 4);
  const zn_vid rows = zn_u_unsqueeze(u, zn_u_range(u, zn_u_dim(u, c->q, 2, false)), 1);
  const zn_vid p = zn_u_op2(u, ZN_OP_Add, first, rows); /* [batch, 1, queries, 1] */
  zn_vid keep =
      c->causal ? zn_u_op2(u, ZN_OP_LessOrEqual, j, p)
                : zn_u_op2(u, ZN_OP_Less, j, zn_u_reshape(u, a->ends, (int64_t[]){-1, 1, 1, 1}, 4));
  if (c->left >= 0) {
    const zn_vid from = zn_u_op2(u, ZN_OP_Sub, p, zn_u_num(u, ZN_I64, (double)c->left));
    keep = zn_u_op2(u, ZN_OP_And, keep, zn_u_op2(u, ZN_OP_GreaterOrEqual, j, from));
  }
  zn_vid m = penalty(u, keep, -INFINITY, c->q);
  if (c->mask) m = zn_u_op2(u, ZN_OP_Add, m, c->mask);
  const zn_vid score = zn_u_reshape(u, sink, (int64_t[]){1, -1, 1, 1}, 4);
  const zn_vid scores =
      zn_u_op2(u, ZN_OP_Sub, c->q, c->q); /* [batch, heads, queries, size] of zeros */
  const zn_vid none = zn_u_slice(u, scores, 3, 0, 1), column = zn_u_op2(u, ZN_OP_Add, none, score);
  const zn_vid wide = zn_u_op2(u, ZN_OP_Add, m, none), both[2] = {wide, column};
  c->mask = zn_u_concat(u, both, 2, 3);
  const int64_t pads[2] = {0, 1};
  zn_vid *kv[2] = {&c->k, &c->v};
  for (int i = 0; i < 2; i++) {
    zn_vid in[4] = {*kv[i]};
    in[1] = zn_u_i64s(u, pads, 2), in[3] = zn_u_i64(u, 2);
    *kv[i] = zn_u_op(u, ZN_OP_Pad, in, 4);
  }
  c->causal = false, c->left = -1, c->filled = 0;
}

/* (query, key, value, past key, past value, lengths - 1, total length, cos, sin, positions, attention bias, sink, -, -, norm
 * weights, rows in use) -> (y, present key, present value, scores) */
void zn_up_ms_groupqueryattention(zn_unode *u) {
  gqa a = {.c = {.heads = zn_u_int(u, "num_heads", 0),
                 .kv_heads = zn_u_int(u, "kv_num_heads", 0),
                 .mode = -1}};
  core *c = &a.c;
  if (!zn_u_in(u, 0) || !zn_u_in(u, 5) || !zn_u_in(u, 6)) {
    zn_u_lacking(u, "too few inputs");
    return;
  }
  if (gqa_refused(u) || !heads_fit(u, c->heads) || !heads_fit(u, c->kv_heads)) return;
  const int64_t window = zn_u_int(u, "local_window_size", -1),
                smooth = zn_u_int(u, "smooth_softmax", -1);
  const int64_t scores = zn_u_int(u, "qk_output", 0);
  c->scale = scale_of(u), c->softcap = zn_u_float(u, "softcap", 0);
  c->causal = zn_u_int(u, "causal", 1) != 0, c->left = window > 0 ? window - 1 : -1;
  if (zn_u_wants(u, 3)) c->mode = scores == 2 ? 3 : 2;
  read_lengths(u, &a);
  const zn_vid q = heads_apart(u, u->in[0], zn_u_in(u, 1) ? c->heads : c->heads + 2 * c->kv_heads);
  if (zn_u_in(u, 1) && zn_u_in(u, 2)) {
    c->q = q, c->k = heads_apart(u, u->in[1], c->kv_heads),
    c->v = heads_apart(u, u->in[2], c->kv_heads);
  } else {
    zn_vid part[3];
    const int64_t sizes[3] = {c->heads, c->kv_heads, c->kv_heads};
    zn_u_split(u, q, 1, sizes, 3, part);
    c->q = part[0], c->k = part[1], c->v = part[2];
  }
  if (!prepare_heads(u, &a)) return;
  c->k = cached(u, &a, zn_u_in(u, 3), c->k);
  c->v = cached(u, &a, zn_u_in(u, 4), c->v);
  zn_unode_bind(u, 1, c->k);
  zn_unode_bind(u, 2, c->v);
  const zn_vid rows = zn_u_dim(u, c->q, 2, true);
  c->filled = c->causal ? zn_u_op2(u, ZN_OP_Add, a.before, rows) : a.ends;
  c->mask = zn_u_in(u, 10);
  c->heads = 0;
  const zn_vid sink = zn_u_in(u, 11) ? u->in[11]
                      : smooth == 1  ? zn_u_scalar_like(u, 0, u->in[0])
                                     : 0;
  if (sink) add_sink(u, c, sink, &a);
  const zn_nid n = attend(u, c);
  zn_unode_bind(u, 0, heads_together(u, zn_node_out(u->s->g, n, 0)));
  if (c->mode >= 0) {
    const zn_vid s = zn_node_out(u->s->g, n, 3);
    zn_unode_bind(u, 3, sink ? zn_u_slice(u, s, 3, 0, -1) : s);
  }
  u->done = true;
}
