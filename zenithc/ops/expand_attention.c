/* Attention and RotaryEmbedding as matrix products, softmax and maps. */
#include <math.h>

#include "zenithc/ops/expand_util.h"

static zn_dtype dtype_of(const zn_rw *w, zn_vid v) { return (zn_dtype)zn_rw_type(w, v)->dtype; }

static bool const_dim(const zn_rw *w, zn_vid v, int d, int64_t *out) {
  return zn_ex_is_const(w->g->ex, zn_rw_type(w, v)->dims[d], out);
}

/* (B, S, heads * D) to (B, heads, S, D). */
static zn_vid heads_apart(zn_rw *w, zn_vid x, int64_t heads) {
  const int64_t dims[4] = {0, 0, heads, -1}, perm[4] = {0, 2, 1, 3};
  return zn_rw_transpose(w, zn_rw_reshape_to(w, x, dims, 4), perm, 4);
}

static zn_vid heads_together(zn_rw *w, zn_vid x) {
  const int64_t dims[3] = {0, 0, -1}, perm[4] = {0, 2, 1, 3};
  return zn_rw_reshape_to(w, zn_rw_transpose(w, x, perm, 4), dims, 3);
}

static zn_vid count_up(zn_rw *w, zn_vid n) {
  const zn_vid one = zn_rw_num(w, ZN_I64, 1), zero = zn_rw_num(w, ZN_I64, 0);
  return zn_rw3(w, ZN_OP_Range, zero, n, one);
}

static zn_vid both(zn_rw *w, zn_vid a, zn_vid b) {
  return a && b ? zn_rw2(w, ZN_OP_And, a, b) : a ? a : b;
}

typedef struct attn {
  int64_t qh, kh; /* heads of packed forms */
  double scale, softcap;
  bool sized; /* else the scale is 1 / sqrt(head size), which the run knows */
  int64_t left, right, mode;
  bool packed, causal;
  zn_dtype t, soft; /* computed in; softmax in */
  zn_vid q, k, v, mask, past_k, past_v, nonpad;
} attn;

static bool read_attn(zn_rw *w, attn *a) {
  const zn_node *n = zn_rw_node(w);
  a->q = n->in[0], a->k = n->in[1], a->v = n->in[2];
  a->mask = zn_node_in(n, 3), a->past_k = zn_node_in(n, 4), a->past_v = zn_node_in(n, 5);
  a->nonpad = zn_node_in(n, 6);
  a->packed = zn_rw_type(w, a->q)->rank == 3;
  a->t = dtype_of(w, a->q);
  int64_t d = 0;
  const bool sized = const_dim(w, a->q, a->packed ? 2 : 3, &d);
  a->qh = a->packed ? zn_node_int(n, "q_num_heads") : 1, a->kh = a->packed ? zn_node_int(n, "kv_num_heads") : 1;
  if (a->qh < 1 || a->kh < 1 || a->qh % a->kh || (!a->packed && !zn_rw_heads_divide(w, a->q, a->k))) return false;
  const bool stated = zn_node_has(n, "scale");
  a->scale = stated ? zn_node_float(n, "scale") : sized ? 1 / sqrt((double)(d / a->qh)) : 0;
  a->sized = stated || sized;
  a->softcap = zn_node_float(n, "softcap");
  a->left = zn_node_int(n, "left_window_size"), a->right = zn_node_int(n, "right_window_size");
  a->mode = zn_node_int(n, "qk_matmul_output_mode");
  a->causal = zn_node_int(n, "is_causal") != 0;
  a->soft = zn_node_has(n, "softmax_precision")
                ? zn_dtype_from_onnx((int)zn_node_int(n, "softmax_precision"))
                : a->t;
  if (a->soft != ZN_F64 && a->soft != ZN_NONE) a->soft = a->t;
  return a->soft != ZN_NONE;
}

/* A mask shorter than the keys hides the rest. Returns 0 for one that is longer. */
static zn_vid full_mask(zn_rw *w, zn_vid mask, zn_vid scores) {
  const zn_type *m = zn_rw_type(w, mask), *s = zn_rw_type(w, scores);
  const zn_expr have = m->dims[m->rank - 1], want = s->dims[3];
  int64_t a, b, pads[2 * ZN_MAX_RANK] = {0};
  if (m->rank < 1 || have == want || zn_ex_is(w->g->ex, have, 1)) return mask;
  if (!zn_ex_is_const(w->g->ex, have, &a) || !zn_ex_is_const(w->g->ex, want, &b))
    return mask; /* equal, as far as anybody can tell: broadcasting checks it at run time */
  if (a > b) return 0;
  const uint32_t r = (uint32_t)m->rank;
  pads[2 * r - 1] = b - a;
  const zn_vid fill =
      m->dtype == ZN_BOOL ? zn_rw_num(w, ZN_BOOL, 0) : zn_rw_num(w, (zn_dtype)m->dtype, -INFINITY);
  return zn_rw3(w, ZN_OP_Pad, mask, zn_rw_ints(w, pads, 2 * r), fill);
}

/* Which keys each query may see by position: causality, windows, and padding behind nonpad. 0: all.
 */
static zn_vid visible(zn_rw *w, const attn *a, zn_vid q, zn_vid k) {
  const int64_t col[2] = {-1, 1}, batch[4] = {-1, 1, 1, 1};
  zn_vid ok = 0, per_batch = 0;
  if (!a->causal && a->left < 0 && a->right < 0 && !a->nonpad) return 0;
  const zn_vid j = count_up(w, zn_rw_extent(w, k, 2));
  if (a->nonpad) {
    per_batch = zn_rw_reshape_to(w, a->nonpad, batch, 4);
    ok = zn_rw2(w, ZN_OP_Less, j, per_batch);
  }
  if (!a->causal && a->left < 0 && a->right < 0) return ok;
  const zn_vid sq = zn_rw_extent(w, q, 2);
  zn_vid p = zn_rw_reshape_to(w, count_up(w, sq), col, 2);
  if (a->past_k) {
    p = zn_rw2(w, ZN_OP_Add, p, zn_rw_extent(w, a->past_k, 2));
  } else if (a->nonpad) {
    p = zn_rw2(w, ZN_OP_Add, p, zn_rw2(w, ZN_OP_Sub, per_batch, sq));
  }
  if (a->causal) ok = both(w, ok, zn_rw2(w, ZN_OP_LessOrEqual, j, p));
  if (a->left >= 0) {
    const zn_vid from = zn_rw2(w, ZN_OP_Sub, p, zn_rw_num(w, ZN_I64, (double)a->left));
    ok = both(w, ok, zn_rw2(w, ZN_OP_GreaterOrEqual, j, from));
  }
  if (a->right >= 0) {
    const zn_vid to = zn_rw2(w, ZN_OP_Add, p, zn_rw_num(w, ZN_I64, (double)a->right));
    ok = both(w, ok, zn_rw2(w, ZN_OP_LessOrEqual, j, to));
  }
  return ok;
}

/* Softmax over keys; a row without any visible key is zero. */
static zn_vid probabilities(zn_rw *w, zn_vid s, bool guard, zn_dtype soft, zn_dtype t) {
  const int64_t last = -1;
  const zn_vid x = zn_rw_cast(w, s, soft);
  zn_vid p = zn_rw_attr_int(w, ZN_OP_Softmax, &x, 1, "axis", -1);
  if (guard) {
    const zn_vid top = zn_rw_reduce(w, ZN_OP_ReduceMax, x, &last, 1, true);
    const zn_vid none = zn_rw2(w, ZN_OP_Equal, top, zn_rw_num(w, soft, -INFINITY));
    p = zn_rw3(w, ZN_OP_Where, none, zn_rw_num(w, soft, 0), p);
  }
  return zn_rw_cast(w, p, t);
}

/* Queries and keys are multiplied by the root of the scale each; queries alone by one that has no root. */
static zn_vid scale_root(zn_rw *w, const attn *a, zn_vid q, bool of_keys) {
  if (a->sized && a->scale > 0) return zn_rw_num(w, a->t, sqrt(a->scale));
  if (a->sized) return zn_rw_num(w, a->t, of_keys ? 1 : a->scale);
  const zn_vid size = zn_rw_cast(w, zn_rw_extent(w, q, 3), ZN_F32);
  return zn_rw_cast(w, zn_rw2(w, ZN_OP_Pow, size, zn_rw_num(w, ZN_F32, -0.25)), a->t);
}

ZN_EXPAND(attention) {
  attn a;
  if (zn_rw_type(w, zn_rw_node(w)->out[0])->rank < 0 || !read_attn(w, &a)) return ZN_OK;
  zn_vid q = a.q, k = a.k, v = a.v;
  if (a.packed)
    q = heads_apart(w, q, a.qh), k = heads_apart(w, k, a.kh), v = heads_apart(w, v, a.kh);
  if (a.past_k) {
    const zn_vid kk[2] = {a.past_k, k}, vv[2] = {a.past_v, v};
    k = zn_rw_attr_int(w, ZN_OP_Concat, kk, 2, "axis", 2);
    v = zn_rw_attr_int(w, ZN_OP_Concat, vv, 2, "axis", 2);
  }
  const zn_vid present_k = k, present_v = v;
  const zn_dtype narrow = dtype_of(w, a.q);
  const zn_vid ok = visible(w, &a, q, k);
  q = zn_rw_cast(w, q, a.t), k = zn_rw_cast(w, k, a.t), v = zn_rw_cast(w, v, a.t);
  k = zn_rw_repeat_heads(w, k, q);
  v = zn_rw_repeat_heads(w, v, q);
  const int64_t perm[4] = {0, 1, 3, 2};
  const zn_vid root = scale_root(w, &a, q, false), key_root = a.sized && a.scale <= 0 ? scale_root(w, &a, q, true) : root;
  const zn_vid kt = zn_rw_transpose(w, zn_rw2(w, ZN_OP_Mul, k, key_root), perm, 4);
  zn_vid s = zn_rw2(w, ZN_OP_MatMul, zn_rw2(w, ZN_OP_Mul, q, root), kt);
  if (w->st != ZN_OK) return w->st;
  zn_vid mask = a.mask;
  if (mask && !(mask = full_mask(w, mask, s))) return w->st;
  zn_vid shown[4] = {s};
  if (a.softcap > 0) {
    const zn_vid cap = zn_rw_num(w, a.t, a.softcap);
    s = zn_rw2(w, ZN_OP_Mul, zn_rw1(w, ZN_OP_Tanh, zn_rw2(w, ZN_OP_Div, s, cap)), cap);
  }
  shown[1] = s;
  const bool flags = mask && dtype_of(w, mask) == ZN_BOOL;
  if (mask && !flags) s = zn_rw2(w, ZN_OP_Add, s, zn_rw_cast(w, mask, a.t));
  const zn_vid see = both(w, ok, flags ? mask : 0);
  if (see) s = zn_rw3(w, ZN_OP_Where, see, s, zn_rw_num(w, a.t, -INFINITY));
  shown[2] = s;
  const zn_vid p = probabilities(w, s, mask || a.nonpad, a.soft, a.t);
  shown[3] = p;
  const zn_vid y = zn_rw_cast(w, zn_rw2(w, ZN_OP_MatMul, p, v), narrow);
  zn_rw_output(w, 0, a.packed ? heads_together(w, y) : y);
  if (zn_rw_wants(w, 1)) zn_rw_output(w, 1, zn_rw1(w, ZN_OP_Identity, present_k));
  if (zn_rw_wants(w, 2)) zn_rw_output(w, 2, zn_rw1(w, ZN_OP_Identity, present_v));
  if (zn_rw_wants(w, 3))
    zn_rw_output(w, 3, zn_rw1(w, ZN_OP_Identity, zn_rw_cast(w, shown[a.mode & 3], narrow)));
  return zn_rw_done(w);
}

/* ---- RotaryEmbedding ---- */

static zn_vid every_other(zn_rw *w, zn_vid x, int64_t first) {
  const int64_t to = INT64_MAX, axis = 3, step = 2;
  const zn_vid in[5] = {x, zn_rw_ints(w, &first, 1), zn_rw_ints(w, &to, 1), zn_rw_ints(w, &axis, 1),
                        zn_rw_ints(w, &step, 1)};
  return zn_rw_op(w, ZN_OP_Slice, in, 5);
}

ZN_EXPAND(rotaryembedding) {
  const zn_node *n = zn_rw_node(w);
  const zn_type in = *zn_rw_type(w, n->in[0]);
  const zn_vid ids = zn_node_in(n, 3);
  const bool inter = zn_node_int(n, "interleaved") != 0, packed = in.rank == 3;
  const int64_t heads = packed ? zn_node_int(n, "num_heads") : 0;
  const int64_t head_axis = packed ? 2 : 1, last = 4;
  int64_t r = zn_node_int(n, "rotary_embedding_dim"), d;
  zn_vid x = n->in[0], c = n->in[1], s = n->in[2];
  if ((in.rank != 3 && in.rank != 4) || (packed && heads < 1)) return ZN_OK;
  const bool sized = const_dim(w, x, in.rank - 1, &d);
  if (!sized) d = -1;
  if (packed && sized) d /= heads;
  const bool whole = r == 0 || (sized && r >= d), halves = whole && !sized;
  if (r == 0) r = d;
  const int64_t split[4] = {0, 0, heads, d}, flat[3] = {0, 0, sized ? heads * d : -1}; /* -1 says nothing of an empty tensor */
  if (packed) x = zn_rw_reshape_to(w, x, split, 4);
  if (ids) c = zn_rw2(w, ZN_OP_Gather, c, ids), s = zn_rw2(w, ZN_OP_Gather, s, ids);
  c = zn_rw_unsqueeze(w, c, &head_axis, 1);
  s = zn_rw_unsqueeze(w, s, &head_axis, 1);
  const zn_vid rot = whole ? x : zn_rw_slice(w, x, 3, 0, r);
  zn_vid x1, x2;
  if (halves && !inter) {
    const zn_nid parts = zn_rw_raw(w, ZN_OP_Split, &rot, 1, 2);
    if (!parts) return w->st;
    zn_node_set_int(w->g, parts, "axis", 3);
    zn_node_set_int(w->g, parts, "num_outputs", 2);
    zn_rw_infer(w, parts);
    x1 = w->g->nodes[parts].out[0], x2 = w->g->nodes[parts].out[1];
  } else {
    x1 = inter ? every_other(w, rot, 0) : zn_rw_slice(w, rot, 3, 0, r / 2);
    x2 = inter ? every_other(w, rot, 1) : zn_rw_slice(w, rot, 3, r / 2, r);
  }
  const zn_dtype t = (zn_dtype)in.dtype, wide = zn_rw_wide(t);
  x1 = zn_rw_cast(w, x1, wide), x2 = zn_rw_cast(w, x2, wide);
  c = zn_rw_cast(w, c, wide), s = zn_rw_cast(w, s, wide);
  const zn_vid sx2 = zn_rw2(w, ZN_OP_Mul, s, x2);
  zn_vid re = zn_rw2(w, ZN_OP_Sub, zn_rw2(w, ZN_OP_Mul, c, x1), sx2);
  const zn_vid cx2 = zn_rw2(w, ZN_OP_Mul, c, x2);
  zn_vid im = zn_rw2(w, ZN_OP_Add, zn_rw2(w, ZN_OP_Mul, s, x1), cx2);
  re = zn_rw_cast(w, re, t), im = zn_rw_cast(w, im, t);
  zn_vid y;
  if (inter) {
    const zn_vid pair[2] = {zn_rw_unsqueeze(w, re, &last, 1), zn_rw_unsqueeze(w, im, &last, 1)};
    const int64_t join[4] = {0, 0, 0, r};
    y = zn_rw_reshape_to(w, zn_rw_attr_int(w, ZN_OP_Concat, pair, 2, "axis", 4), join, 4);
  } else {
    const zn_vid pair[2] = {re, im};
    y = zn_rw_attr_int(w, ZN_OP_Concat, pair, 2, "axis", 3);
  }
  if (!whole) {
    const zn_vid all[2] = {y, zn_rw_slice(w, x, 3, r, sized ? d : INT64_MAX)};
    y = zn_rw_attr_int(w, ZN_OP_Concat, all, 2, "axis", 3);
  }
  zn_rw_output(w, 0, packed ? zn_rw_reshape_to(w, y, flat, 3) : y);
  return zn_rw_done(w);
}
