/* GroupQueryAttention of com.microsoft: caches that grow, share a buffer, slide or are quantized, rotary embedding, sinks. */
#include <math.h>

#include "frontends/onnx/upgrade_attention.h"

typedef struct stored { /* how a cache holds its numbers; scale 0: as they are */
  zn_vid scale;
  zn_dtype t; /* i8, f8e4m3fn, or u8: two numbers of 4 bits, the first one low, 8 more than they are */
} stored;

typedef struct gqa {
  zn_ua_core c;
  zn_vid before; /* i64 [batch]: keys in the cache before this step */
  zn_vid ends; /* i64 [batch]: after it */
  stored form[2]; /* of keys and values */
  int64_t window; /* of a cache that slides, else 0 */
} gqa;

/* ---- quantized caches ---- */

static bool read_forms(zn_unode *u, gqa *a) {
  static const char *const types[2] = {"k_quant_type", "v_quant_type"};
  const int64_t bits = zn_u_int(u, "kv_cache_bit_width", 8);
  for (uint32_t i = 0; i < 2; i++) {
    if (!strcmp(zn_u_str(u, types[i], "NONE"), "NONE")) continue;
    const zn_vid past = zn_u_in(u, 3 + i);
    stored *f = &a->form[i];
    f->scale = zn_u_in(u, 12 + i);
    f->t = past ? (zn_dtype)zn_u_type(u, past)->dtype : ZN_NONE;
    if (f->scale && ((f->t == ZN_I8 && bits == 8) || (f->t == ZN_U8 && bits == 4) || f->t == ZN_F8E4M3FN)) continue;
    zn_u_lacking(u, "a quantized cache without past or scale, or of another type than its bit width says");
    return false;
  }
  return true;
}

/* The last axis in pairs: its even and its odd elements. */
static void pairs(zn_unode *u, zn_vid x, zn_vid *even, zn_vid *odd) {
  const int64_t dims[5] = {0, 0, 0, -1, 2}, flat[4] = {0, 0, 0, -1};
  const zn_vid two = zn_u_reshape(u, x, dims, 5);
  *even = zn_u_reshape(u, zn_u_slice(u, two, 4, 0, 1), flat, 4);
  *odd = zn_u_reshape(u, zn_u_slice(u, two, 4, 1, 2), flat, 4);
}

static zn_vid shifted(zn_unode *u, zn_vid x, const char *direction) {
  const zn_vid four = zn_u_num(u, ZN_U8, 4);
  const zn_nid n = zn_u_node(u, ZN_OP_BitShift, (zn_vid[]){x, four}, 2);
  zn_node_set_str(u->s->g, n, "direction", direction);
  return zn_node_out(u->s->g, n, 0);
}

/* Rows as the cache holds them: the nearest number, ties to even. */
static zn_vid store_rows(zn_unode *u, const stored *f, zn_vid rows) {
  if (!f->scale) return rows;
  const zn_vid x = zn_u_op2(u, ZN_OP_Div, zn_u_cast(u, rows, ZN_F32), f->scale);
  if (f->t == ZN_F8E4M3FN) return zn_u_cast(u, x, f->t);
  const bool wide = f->t == ZN_I8;
  const zn_vid lo = zn_u_num(u, ZN_F32, wide ? -128 : -8), hi = zn_u_num(u, ZN_F32, wide ? 127 : 7);
  const zn_vid q = zn_u_op3(u, ZN_OP_Clip, zn_u_op1(u, ZN_OP_Round, x), lo, hi);
  if (wide) return zn_u_cast(u, q, ZN_I8);
  const zn_vid eight = zn_u_num(u, ZN_F32, 8), both = zn_u_cast(u, zn_u_op2(u, ZN_OP_Add, q, eight), ZN_U8);
  zn_vid low, high;
  pairs(u, both, &low, &high);
  return zn_u_op2(u, ZN_OP_BitwiseOr, low, shifted(u, high, "LEFT"));
}

/* A cache as numbers of the type of `like`. */
static zn_vid load_rows(zn_unode *u, const stored *f, zn_vid cache, zn_vid like) {
  if (!f->scale) return cache;
  zn_vid x = cache;
  if (f->t == ZN_U8) {
    const zn_vid fifteen = zn_u_num(u, ZN_U8, 15), low = zn_u_op2(u, ZN_OP_BitwiseAnd, cache, fifteen);
    const zn_vid part[2] = {zn_u_unsqueeze(u, low, -1), zn_u_unsqueeze(u, shifted(u, cache, "RIGHT"), -1)};
    const int64_t flat[4] = {0, 0, 0, -1};
    x = zn_u_reshape(u, zn_u_concat(u, part, 2, -1), flat, 4);
  }
  x = zn_u_cast(u, x, ZN_F32);
  if (f->t == ZN_U8) x = zn_u_op2(u, ZN_OP_Sub, x, zn_u_num(u, ZN_F32, 8));
  return zn_u_cast(u, zn_u_op2(u, ZN_OP_Mul, x, f->scale), (zn_dtype)zn_u_type(u, like)->dtype);
}

/* ---- caches ---- */

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

/* A cache of `room` rows keeps the most recent positions from row 0 on. When it is full it drops all but the window, so how many
 * it holds follows from how many there have been: [batch, 1]. */
static zn_vid resident(zn_unode *u, const gqa *a, zn_vid count, zn_vid room) {
  const zn_vid one = zn_u_i64(u, 1), all = zn_u_unsqueeze(u, count, 1);
  const zn_vid step = zn_u_op2(u, ZN_OP_Sub, room, zn_u_i64(u, a->window - 1));
  const zn_vid over = zn_u_op2(u, ZN_OP_Sub, all, room);
  const zn_vid up = zn_u_op2(u, ZN_OP_Sub, zn_u_op2(u, ZN_OP_Add, over, step), one);
  const zn_vid dropped = zn_u_op2(u, ZN_OP_Mul, zn_u_op2(u, ZN_OP_Div, up, step), step);
  const zn_vid fits = zn_u_op2(u, ZN_OP_LessOrEqual, all, room);
  return zn_u_op3(u, ZN_OP_Where, fits, all, zn_u_op2(u, ZN_OP_Sub, all, dropped));
}

typedef struct slide { /* of a cache that slides and the new rows behind it, as one: `room` + new rows */
  zn_vid room; /* i64 [1] */
  zn_vid at; /* i64 [batch, rows]: position in the sequence */
  zn_vid used; /* bool [batch, rows] */
  zn_vid from; /* i64 [batch, room]: which of the rows stay, in this order */
} slide;

static slide slide_of(zn_unode *u, const gqa *a, zn_vid past, zn_vid rows) {
  slide s = {.room = zn_u_dim(u, past, 2, true)};
  const zn_vid before = zn_u_unsqueeze(u, a->before, 1), ends = zn_u_unsqueeze(u, a->ends, 1);
  const zn_vid had = resident(u, a, a->before, s.room), has = resident(u, a, a->ends, s.room);
  const zn_vid first = zn_u_op2(u, ZN_OP_Sub, before, had); /* position of row 0 */
  const zn_vid old = zn_u_range(u, zn_u_dim(u, past, 2, false)), fresh = zn_u_range(u, zn_u_dim(u, rows, 2, false));
  const zn_vid at[2] = {zn_u_op2(u, ZN_OP_Add, first, old), zn_u_op2(u, ZN_OP_Add, before, fresh)};
  const zn_vid used[2] = {zn_u_op2(u, ZN_OP_Less, old, had), zn_u_op2(u, ZN_OP_Less, at[1], ends)};
  s.at = zn_u_concat(u, at, 2, 1);
  s.used = zn_u_concat(u, used, 2, 1);
  const zn_vid stays = zn_u_op2(u, ZN_OP_Add, zn_u_op2(u, ZN_OP_Sub, ends, has), old); /* their positions */
  const zn_vid cached_row = zn_u_op2(u, ZN_OP_Sub, stays, first);
  const zn_vid new_row = zn_u_op2(u, ZN_OP_Add, zn_u_op2(u, ZN_OP_Sub, stays, before), s.room);
  const zn_vid is_old = zn_u_op2(u, ZN_OP_Less, stays, before), kept = zn_u_op2(u, ZN_OP_Less, old, has);
  s.from = zn_u_op3(u, ZN_OP_Where, kept, zn_u_op3(u, ZN_OP_Where, is_old, cached_row, new_row), old);
  return s;
}

/* Rows s->from of [batch, heads, rows, size]. */
static zn_vid staying(zn_unode *u, const slide *s, zn_vid all) {
  const int64_t flat[4] = {0, 1, -1, 1};
  const zn_vid shape[4] = {zn_u_dim(u, all, 0, true), zn_u_dim(u, all, 1, true), s->room, zn_u_dim(u, all, 3, true)};
  const zn_vid target = zn_u_concat(u, shape, 4, 0);
  const zn_vid at = zn_u_op2(u, ZN_OP_Expand, zn_u_reshape(u, zn_u_unsqueeze(u, s->from, 1), flat, 4), target);
  const zn_nid n = zn_u_node(u, ZN_OP_GatherElements, (zn_vid[]){all, at}, 2);
  zn_node_set_int(u->s->g, n, "axis", 2);
  return zn_node_out(u->s->g, n, 0);
}

/* The bias of every row, from columns that are positions: [batch, heads or 1, queries, rows]. */
static zn_vid bias_of_rows(zn_unode *u, const slide *s, zn_vid bias, zn_vid q) {
  const int64_t flat[4] = {0, 1, 1, -1};
  const zn_vid batch = zn_u_dim(u, q, 0, true), heads = zn_u_dim(u, bias, 1, true), rows = zn_u_dim(u, q, 2, true);
  const zn_vid wide[4] = {batch, heads, rows, zn_u_dim(u, bias, 3, true)};
  const zn_vid tall[4] = {batch, heads, rows, zn_u_dim(u, s->at, 1, true)}, target = zn_u_concat(u, tall, 4, 0);
  const zn_vid last = zn_u_op2(u, ZN_OP_Sub, wide[3], zn_u_i64(u, 1)), zero = zn_u_i64(u, 0);
  const zn_vid inside = zn_u_op2(u, ZN_OP_Max, zn_u_op2(u, ZN_OP_Min, s->at, last), zero);
  const zn_vid all = zn_u_op2(u, ZN_OP_Expand, bias, zn_u_concat(u, wide, 4, 0));
  const zn_vid at = zn_u_op2(u, ZN_OP_Expand, zn_u_reshape(u, zn_u_unsqueeze(u, inside, 1), flat, 4), target);
  const zn_nid n = zn_u_node(u, ZN_OP_GatherElements, (zn_vid[]){all, at}, 2);
  zn_node_set_int(u->s->g, n, "axis", 3);
  return zn_node_out(u->s->g, n, 0);
}

/* Queries see the rows of their window, wherever they stand. */
static zn_vid mask_of_rows(zn_unode *u, const gqa *a, const slide *s, zn_vid q) {
  const int64_t row[4] = {0, 1, 1, -1}, column[4] = {0, 1, -1, 1};
  const zn_vid at = zn_u_reshape(u, zn_u_unsqueeze(u, s->at, 1), row, 4);
  const zn_vid used = zn_u_reshape(u, zn_u_unsqueeze(u, s->used, 1), row, 4);
  const zn_vid p = zn_u_reshape(u, zn_u_unsqueeze(u, zn_ua_positions(u, a->before, q, 2), 1), column, 4);
  const zn_vid edge = zn_u_op2(u, ZN_OP_Sub, p, zn_u_i64(u, a->window));
  const zn_vid inside = zn_u_op2(u, ZN_OP_Greater, at, edge), past = zn_u_op2(u, ZN_OP_LessOrEqual, at, p);
  return zn_u_op2(u, ZN_OP_And, used, zn_u_op2(u, ZN_OP_And, inside, past));
}

/* Keys and values of a cache that slides: the attention reads all rows that there are, then the window moves. */
static bool slide_caches(zn_unode *u, gqa *a) {
  const zn_vid past[2] = {zn_u_in(u, 3), zn_u_in(u, 4)};
  zn_vid *kv[2] = {&a->c.k, &a->c.v};
  if (!past[0] || !past[1] || !a->c.causal || a->window < 1) {
    zn_u_lacking(u, "a cache that slides, without past, window or causality");
    return false;
  }
  if (a->c.mode >= 0) {
    zn_u_lacking(u, "scores out of a cache that slides: nothing defines which key a column stands for");
    return false;
  }
  const slide s = slide_of(u, a, past[0], a->c.k);
  for (uint32_t i = 0; i < 2; i++) {
    const zn_vid part[2] = {past[i], store_rows(u, &a->form[i], *kv[i])}, all = zn_u_concat(u, part, 2, 2);
    zn_unode_bind(u, 1 + i, staying(u, &s, all));
    *kv[i] = load_rows(u, &a->form[i], all, a->c.q);
  }
  a->c.mask = zn_ua_penalty(u, mask_of_rows(u, a, &s, a->c.q), -INFINITY, a->c.q);
  if (zn_u_in(u, 10)) a->c.mask = zn_u_op2(u, ZN_OP_Add, a->c.mask, bias_of_rows(u, &s, u->in[10], a->c.q));
  a->c.causal = false, a->c.left = -1, a->c.filled = 0;
  return true;
}

/* Those of one that holds every position, each in its place. */
static void fill_caches(zn_unode *u, gqa *a) {
  zn_vid *kv[2] = {&a->c.k, &a->c.v};
  for (uint32_t i = 0; i < 2; i++) {
    const zn_vid all = cached(u, a, zn_u_in(u, 3 + i), store_rows(u, &a->form[i], *kv[i]));
    zn_unode_bind(u, 1 + i, all);
    *kv[i] = load_rows(u, &a->form[i], all, a->c.q);
  }
  const zn_vid rows = zn_u_dim(u, a->c.q, 2, true);
  a->c.filled = a->c.causal ? zn_u_op2(u, ZN_OP_Add, a->before, rows) : a->ends;
  a->c.mask = zn_u_in(u, 10);
}

/* ---- heads ---- */

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
  zn_ua_rotary r = {.cos = zn_u_in(u, 7), .sin = zn_u_in(u, 8), .ids = zn_u_in(u, 9)};
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
    const zn_vid one = zn_u_i64(u, 1), limit = zn_u_op2(u, ZN_OP_Sub, zn_u_dim(u, r.cos, 0, true), one);
    r.ids = zn_u_op2(u, ZN_OP_Min, zn_ua_positions(u, a->before, u->in[0], 1),
                     limit); /* rows behind the end of a sequence */
  }
  a->c.q = zn_ua_rotate(u, a->c.q, &r);
  a->c.k = zn_ua_rotate(u, a->c.k, &r);
  return true;
}

/* What the standard Attention hides by position, as a mask. */
static zn_vid mask_of_positions(zn_unode *u, const zn_ua_core *c, const gqa *a) {
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
  const zn_vid m = zn_ua_penalty(u, keep, -INFINITY, c->q);
  return c->mask ? zn_u_op2(u, ZN_OP_Add, m, c->mask) : m;
}

/* A sink in the denominator of the softmax: one more key of zeros, with a score of its own and a value of zeros. */
static void add_sink(zn_unode *u, zn_ua_core *c, zn_vid sink, const gqa *a) {
  const zn_vid m = c->filled ? mask_of_positions(u, c, a) : c->mask;
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

/* (query, key, value, past key, past value, lengths - 1, total length, cos, sin, positions, attention bias, sink, scales, norm
 * weights, rows in use) -> (y, present key, present value, scores) */
void zn_up_ms_groupqueryattention(zn_unode *u) {
  gqa a = {.c = {.heads = zn_u_int(u, "num_heads", 0),
                 .kv_heads = zn_u_int(u, "kv_num_heads", 0),
                 .mode = -1}};
  zn_ua_core *c = &a.c;
  if (!zn_u_in(u, 0) || !zn_u_in(u, 5) || !zn_u_in(u, 6)) {
    zn_u_lacking(u, "too few inputs");
    return;
  }
  if (!read_forms(u, &a) || !zn_ua_heads_fit(u, c->heads) || !zn_ua_heads_fit(u, c->kv_heads)) return;
  const int64_t window = zn_u_int(u, "local_window_size", -1),
                smooth = zn_u_int(u, "smooth_softmax", -1);
  const int64_t scores = zn_u_int(u, "qk_output", 0);
  c->scale = zn_ua_scale(u), c->softcap = zn_u_float(u, "softcap", 0);
  c->causal = zn_u_int(u, "causal", 1) != 0, c->left = window > 0 ? window - 1 : -1;
  if (zn_u_wants(u, 3)) c->mode = scores == 2 ? 3 : 2;
  read_lengths(u, &a);
  const zn_vid q = zn_ua_apart(u, u->in[0], zn_u_in(u, 1) ? c->heads : c->heads + 2 * c->kv_heads);
  if (zn_u_in(u, 1) && zn_u_in(u, 2)) {
    c->q = q, c->k = zn_ua_apart(u, u->in[1], c->kv_heads),
    c->v = zn_ua_apart(u, u->in[2], c->kv_heads);
  } else {
    zn_vid part[3];
    const int64_t sizes[3] = {c->heads, c->kv_heads, c->kv_heads};
    zn_u_split(u, q, 1, sizes, 3, part);
    c->q = part[0], c->k = part[1], c->v = part[2];
  }
  if (!prepare_heads(u, &a)) return;
  const bool slides = zn_u_int(u, "sliding_window_cache", 0) != 0;
  a.window = slides ? window : 0;
  if (slides && !slide_caches(u, &a)) return;
  if (!slides) fill_caches(u, &a);
  c->heads = 0;
  const zn_vid sink = zn_u_in(u, 11) ? u->in[11]
                      : smooth == 1  ? zn_u_scalar_like(u, 0, u->in[0])
                                     : 0;
  if (sink) add_sink(u, c, sink, &a);
  const zn_nid n = zn_ua_attend(u, c);
  zn_unode_bind(u, 0, zn_ua_together(u, zn_node_out(u->s->g, n, 0)));
  if (c->mode >= 0) {
    const zn_vid s = zn_node_out(u->s->g, n, 3);
    zn_unode_bind(u, 3, sink ? zn_u_slice(u, s, 3, 0, -1) : s);
  }
  u->done = true;
}
