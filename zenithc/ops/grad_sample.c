/* The derivative of an interpolating GridSample in image and grid: through what it is, a sum over the neighbours of each position
 * of weights times elements. Which elements they are does not vary, weights and positions do. */
#include <string.h>

#include "zenithc/ops/grad.h"

typedef struct sample {
  zn_rw *w;
  zn_dtype t;
  bool cubic, align;
  char pad; /* zeros, border, reflection */
} sample;

typedef struct place { /* one tap along an axis, for every position: [batch, positions...] */
  zn_vid index, weight;
} place;

static zn_vid number(const sample *s, double v) { return zn_rw_num(s->w, s->t, v); }
static zn_vid with(const sample *s, zn_op op, zn_vid x, double v) { return zn_rw2(s->w, op, x, number(s, v)); }
static zn_vid add(const sample *s, zn_vid x, zn_vid y) { return zn_rw2(s->w, ZN_OP_Add, x, y); }
static zn_vid sub(const sample *s, zn_vid x, zn_vid y) { return zn_rw2(s->w, ZN_OP_Sub, x, y); }
static zn_vid mul(const sample *s, zn_vid x, zn_vid y) { return zn_rw2(s->w, ZN_OP_Mul, x, y); }

/* x folded back at the ends of the axis: a triangle wave. */
static zn_vid reflected(const sample *s, zn_vid x, zn_vid len) {
  const double low = s->align ? 0 : -0.5;
  const zn_vid span = s->align ? with(s, ZN_OP_Sub, len, 1) : len;
  const zn_vid turn = with(s, ZN_OP_Max, add(s, span, span), 1e-30); /* an axis of one element has none */
  const zn_vid in[2] = {zn_rw1(s->w, ZN_OP_Abs, with(s, ZN_OP_Sub, x, low)), turn};
  const zn_vid t = zn_rw_attr_int(s->w, ZN_OP_Mod, in, 2, "fmod", 1);
  return with(s, ZN_OP_Add, zn_rw2(s->w, ZN_OP_Min, t, sub(s, turn, t)), low);
}

/* Positions along an axis of `len` elements, from coordinates in [-1, 1]. */
static zn_vid positions(const sample *s, zn_vid g, zn_vid len) {
  zn_rw *w = s->w;
  const zn_vid up = with(s, ZN_OP_Add, g, 1), last = with(s, ZN_OP_Sub, len, 1);
  zn_vid p = s->align ? mul(s, up, last) : with(s, ZN_OP_Sub, mul(s, up, len), 1);
  p = with(s, ZN_OP_Mul, p, 0.5);
  if (s->pad == 'z') return p;
  const zn_vid low = number(s, s->align ? 0 : -0.5), high = s->align ? last : with(s, ZN_OP_Sub, len, 0.5);
  const zn_vid below = zn_rw2(w, ZN_OP_Less, p, low), above = zn_rw2(w, ZN_OP_Greater, p, high);
  if (s->pad == 'r') {
    const zn_vid outside = zn_rw2(w, ZN_OP_Or, below, above);
    return zn_rw3(w, ZN_OP_Where, outside, reflected(s, p, len), p);
  }
  const zn_vid zero = number(s, 0);
  return zn_rw3(w, ZN_OP_Where, below, zero, zn_rw3(w, ZN_OP_Where, above, last, p));
}

/* The cubic convolution kernel with a = -0.75 at distance x, which is in [near, near + 1). */
static zn_vid cubic_weight(const sample *s, zn_vid x, bool near) {
  const double a = -0.75, c[2][4] = {{a + 2, -(a + 3), 0, 1}, {a, -5 * a, 8 * a, -4 * a}};
  zn_vid y = number(s, c[near ? 0 : 1][0]);
  for (int k = 1; k < 4; k++) y = with(s, ZN_OP_Add, mul(s, y, x), c[near ? 0 : 1][k]);
  return y;
}

/* Tap k of the neighbours of p: from the one at or below it on, for cubic from the one before that. */
static place tap(const sample *s, zn_vid p, zn_vid len, int k) {
  zn_rw *w = s->w;
  const int offset = s->cubic ? k - 1 : k;
  const zn_vid at = with(s, ZN_OP_Add, zn_rw1(w, ZN_OP_Floor, p), offset), last = with(s, ZN_OP_Sub, len, 1);
  const zn_vid away = offset > 0 ? sub(s, at, p) : sub(s, p, at); /* not negative */
  place out = {.weight = s->cubic ? cubic_weight(s, away, k == 1 || k == 2) : sub(s, number(s, 1), away)};
  const zn_vid zero = number(s, 0);
  if (s->pad == 'z') {
    const zn_vid inside = zn_rw2(w, ZN_OP_GreaterOrEqual, at, zero), below = zn_rw2(w, ZN_OP_LessOrEqual, at, last);
    out.weight = zn_rw3(w, ZN_OP_Where, zn_rw2(w, ZN_OP_And, inside, below), out.weight, zero);
  }
  const zn_vid i = s->pad == 'r' ? reflected(s, at, len) : at;
  out.index = zn_rw_cast(w, zn_rw2(w, ZN_OP_Min, zn_rw2(w, ZN_OP_Max, i, zero), last), ZN_I64);
  return out;
}

/* Sum over all combinations of taps: [batch, positions..., channels]. x: the channels last. */
static zn_vid sum_of_taps(const sample *s, zn_vid x, const place (*taps)[4], int axes) {
  zn_rw *w = s->w;
  const int per = s->cubic ? 4 : 2;
  const int64_t end = -1;
  int all = 1;
  zn_vid y = 0;
  for (int d = 0; d < axes; d++) all *= per;
  for (int c = 0; c < all && w->st == ZN_OK; c++) {
    zn_vid index[ZN_MAX_RANK], weight = 0;
    for (int d = 0, rest = c; d < axes; d++, rest /= per) {
      const place *t = &taps[d][rest % per];
      index[d] = zn_rw_unsqueeze(w, t->index, &end, 1);
      weight = weight ? mul(s, weight, t->weight) : t->weight;
    }
    const zn_vid at[2] = {x, zn_rw_attr_int(w, ZN_OP_Concat, index, (uint32_t)axes, "axis", -1)};
    const zn_vid v = zn_rw_attr_int(w, ZN_OP_GatherND, at, 2, "batch_dims", 1);
    const zn_vid part = mul(s, v, zn_rw_unsqueeze(w, weight, &end, 1));
    y = y ? add(s, y, part) : part;
  }
  return y;
}

ZN_EXPAND(sample_taps) {
  const zn_node m = *zn_rw_node(w);
  const zn_dtype t = (zn_dtype)zn_rw_type(w, m.in[0])->dtype;
  const int rank = zn_rw_type(w, m.in[0])->rank, axes = rank - 2;
  sample s = {.w = w, .t = zn_rw_wide(t), .pad = zn_node_str(&m, "padding_mode")[0]};
  s.cubic = strstr(zn_node_str(&m, "mode"), "cubic") != NULL;
  s.align = zn_node_int(&m, "align_corners") != 0;
  place taps[ZN_MAX_RANK][4];
  int64_t to_last[ZN_MAX_RANK] = {0}, back[ZN_MAX_RANK] = {0, rank - 1};
  for (int d = 0; d < axes; d++) to_last[d + 1] = d + 2, back[d + 2] = d + 1;
  to_last[rank - 1] = 1;
  const zn_vid grid = zn_rw_cast(w, m.in[1], s.t), x = zn_rw_transpose(w, zn_rw_cast(w, m.in[0], s.t), to_last, (uint32_t)rank);
  for (int d = 0; d < axes && w->st == ZN_OK; d++) { /* the last coordinate is the first axis */
    const int64_t end = -1, c = axes - 1 - d;
    const zn_vid g = zn_rw_squeeze(w, zn_rw_slice(w, grid, rank - 1, c, c + 1), &end, 1);
    const zn_vid len = zn_rw_cast(w, zn_rw_extent(w, m.in[0], d + 2), s.t), p = positions(&s, g, len);
    for (int k = 0; k < (s.cubic ? 4 : 2); k++) taps[d][k] = tap(&s, p, len, k);
  }
  if (w->st != ZN_OK) return w->st;
  const zn_vid y = zn_rw_transpose(w, sum_of_taps(&s, x, (const place(*)[4])taps, axes), back, (uint32_t)rank);
  zn_rw_output(w, 0, zn_rw_cast(w, y, t));
  return zn_rw_done(w);
}

/* The nearest element does not vary with the grid. */
void zn_grad_gridsample(zn_grad *a) {
  const zn_node *m = zn_grad_node(a);
  if (strcmp(zn_node_str(m, "mode"), "nearest") != 0) {
    zn_grad_through(a, zn_expand_sample_taps);
    return;
  }
  const zn_vid grid = zn_grad_in(a, 1);
  const bool varies = zn_grad_wants(a, 1), wanted = zn_grad_wants(a, 0);
  if (varies) a->varies[grid] = false;
  if (wanted) zn_grad_moved(a);
  if (varies) a->varies[grid] = true;
}
