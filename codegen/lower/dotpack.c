/* Packing for integer dot products. vpmaddubsw adds two products in 16 bits and saturates; a pair of weights is safe when
 * its positive ones sum to at most 128 and its negative ones to at least -128, because 255 * 128 = 32640. Where a pair is
 * not safe in all columns of a block,
 *   its second activation x may be replaced by 255 - x (all bits flipped) and the weight negated: pairs of equal signs
 *   become pairs of opposite ones. 255 * weight is a constant;
 *   else its weights are cut down to a safe pair, and the rest goes into a further step on the same word.
 * The sum of all steps is the exact sum. */
#include "codegen/lower/dotpack.h"

enum { PAIR_MAX = 128, SAMPLE = 24 };

zn_dot_form zn_dot_choose(const zn_caps *caps, zn_dtype a, int32_t lo, int32_t hi) {
  if (a != ZN_U8 && a != ZN_I8) return ZN_DOT_NO_FORM;
  if (caps->dot4 != ZN_DOT4_NONE && lo >= -128 && hi <= 127) return ZN_DOT_BYTES;
  return caps->dot2 && lo >= INT16_MIN && hi <= INT16_MAX ? ZN_DOT_HALVES : ZN_DOT_NO_FORM;
}

/* The part of weight *w that a safe pair with `other` cannot hold; *w keeps the rest. */
static int32_t cut(int32_t *w, int32_t other) {
  int32_t same = *w > 0 ? (other > 0 ? other : 0) : (other < 0 ? -other : 0);
  int32_t size = *w > 0 ? *w : -*w, over = size + same - PAIR_MAX;
  if (over <= 0) return 0;
  if (over > size) over = size;
  if (*w < 0) over = -over;
  *w -= over;
  return over;
}

static bool safe(int32_t w0, int32_t w1) {
  int32_t up = (w0 > 0 ? w0 : 0) + (w1 > 0 ? w1 : 0), down = (w0 < 0 ? -w0 : 0) + (w1 < 0 ? -w1 : 0);
  return up <= PAIR_MAX && down <= PAIR_MAX && w0 <= 127 && w1 <= 127;
}

/* Makes a pair safe: rest[] is what is taken out. */
static void split(int32_t w[2], int32_t rest[2]) {
  bool second = (w[1] > 0 ? w[1] : -w[1]) > (w[0] > 0 ? w[0] : -w[0]);
  rest[0] = second ? 0 : cut(&w[0], w[1]);
  rest[1] = second ? cut(&w[1], w[0]) : 0;
}

typedef struct packer {
  zn_dotpack *p;
  zn_dot_weight weight;
  void *user;
  int64_t scale;
} packer;

static int64_t first_column(const zn_dotpack *p, int64_t block) {
  int64_t first = block * p->width;
  return first + p->width > p->n && p->n >= p->width ? p->n - p->width : first;
}

static int32_t weight_at(const packer *k, int64_t row, int64_t column) {
  return row < k->p->k && column < k->p->n ? k->weight(k->user, row, column) : 0;
}

typedef enum pair_state { PLAIN, FLIPPED, SPLIT } pair_state;

/* What to do with the pair at row `row` in all columns of a block. */
static pair_state judge(const packer *k, int64_t block, int64_t row) {
  bool plain = true, flipped = true;
  int64_t first = first_column(k->p, block);
  for (int64_t c = first; c < first + k->p->width && (plain || flipped); c++) {
    int32_t w0 = weight_at(k, row, c), w1 = weight_at(k, row + 1, c);
    plain &= safe(w0, w1);
    flipped &= safe(w0, -w1);
  }
  return plain ? PLAIN : flipped ? FLIPPED : SPLIT;
}

static int64_t extra_steps(const packer *k, int64_t block, bool *flips) {
  int64_t more = 0;
  for (int64_t q = 0; q < k->p->words; q++) {
    pair_state s = judge(k, block, q * 4), t = judge(k, block, q * 4 + 2);
    more += s == SPLIT || t == SPLIT;
    *flips |= s == FLIPPED || t == FLIPPED;
  }
  return more;
}

double zn_dot_steps(const zn_caps *caps, int64_t k, int64_t n, int64_t width, zn_dot_weight weight, void *user) {
  zn_dotpack p = {.k = k, .n = n, .width = width, .blocks = (n + width - 1) / width, .words = (k + 3) / 4};
  packer pk = {&p, weight, user, 1};
  int64_t most = 0, stride = p.blocks / SAMPLE + 1;
  bool flips = false;
  if (caps->dot4 != ZN_DOT4_PAIRS) return 1;
  for (int64_t b = 0; b < p.blocks; b += stride) {
    int64_t more = extra_steps(&pk, b, &flips);
    if (more > most) most = more;
  }
  return 1 + (double)most / (double)p.words;
}

/* Steps of all blocks alike, so that equal shapes are equal kernels. */
static void count_steps(const packer *k) {
  zn_dotpack *p = k->p;
  int64_t most = 0, unit = p->words / 32 + 1;
  bool flips = false;
  for (int64_t b = 0; b < p->blocks; b++) {
    int64_t more = extra_steps(k, b, &flips);
    if (more > most) most = more;
  }
  p->steps = p->words + (most + unit - 1) / unit * unit;
  p->ordered = most > 0 || flips;
}

static int32_t word_of(const int32_t w[4]) {
  uint32_t v = 0;
  for (int j = 0; j < 4; j++) v |= (uint32_t)(w[j] & 255) << (8 * j);
  return (int32_t)v;
}

/* One word of one column, and what it leaves for a further step. */
static bool fill_column(const packer *k, int64_t q, int64_t column, const pair_state s[2], int32_t *base, int32_t *word,
                        int32_t *more) {
  int32_t w[4], rest[4] = {0};
  for (int j = 0; j < 4; j++) w[j] = weight_at(k, q * 4 + j, column);
  for (int h = 0; h < 2; h++) {
    if (s[h] == FLIPPED) {
      *base = (int32_t)((uint32_t)*base + 255u * (uint32_t)w[2 * h + 1]);
      w[2 * h + 1] = -w[2 * h + 1];
    }
    if (s[h] == SPLIT) split(w + 2 * h, rest + 2 * h);
  }
  *word = word_of(w);
  *more = word_of(rest);
  return rest[0] || rest[1] || rest[2] || rest[3];
}

static void fill_block(const packer *k, int64_t b, bool pairs) {
  zn_dotpack *p = k->p;
  int64_t extra = p->words, first = first_column(p, b);
  int32_t *to = p->w + b * p->steps * p->width, *order = p->ordered ? p->order + b * p->steps * 2 : NULL;
  for (int64_t q = 0; q < p->words; q++) {
    pair_state s[2] = {PLAIN, PLAIN};
    bool any = false;
    for (int h = 0; h < 2 && pairs; h++) s[h] = judge(k, b, q * 4 + 2 * h);
    for (int64_t c = 0; c < p->width; c++) {
      int32_t more;
      if (!fill_column(k, q, first + c, s, &p->base[b * p->width + c], &to[q * p->width + c], &more)) continue;
      to[extra * p->width + c] = more;
      any = true;
    }
    if (!order) continue;
    order[2 * q] = (int32_t)(q * k->scale);
    order[2 * q + 1] = (s[0] == FLIPPED ? 0xff00 : 0) | (s[1] == FLIPPED ? INT32_MIN | 0x7f000000 : 0);
    if (any) order[2 * extra++] = (int32_t)(q * k->scale);
  }
}

static void fill_halves(const packer *k, zn_arena *arena) {
  zn_dotpack *p = k->p;
  p->words = p->steps = (p->k + 1) / 2;
  p->w = ZN_ARRAY(arena, int32_t, (uint64_t)(p->blocks * p->steps * p->width));
  for (int64_t b = 0; b < p->blocks; b++)
    for (int64_t s = 0; s < p->steps; s++)
      for (int64_t c = 0; c < p->width; c++) {
        uint32_t v = 0;
        int64_t column = first_column(p, b) + c;
        for (int64_t j = 0; j < 2; j++) v |= (uint32_t)(weight_at(k, s * 2 + j, column) & 65535) << (16 * j);
        p->w[(b * p->steps + s) * p->width + c] = (int32_t)v;
      }
}

static void fill_bytes(const packer *k, zn_arena *arena, const zn_caps *caps, zn_dtype a) {
  zn_dotpack *p = k->p;
  bool pairs = caps->dot4 == ZN_DOT4_PAIRS, mixed = pairs || caps->dot4 == ZN_DOT4_MIXED, same = caps->dot4 == ZN_DOT4_SAME;
  p->words = p->steps = (p->k + 3) / 4;
  if (mixed && a == ZN_I8) p->a_add = 128;
  if (same && a == ZN_U8) p->a_add = -128;
  p->flags = ZN_DOT_B_SIGNED | (pairs ? ZN_DOT_PAIRS : 0u);
  if (same || (!mixed && a == ZN_I8)) p->flags |= ZN_DOT_A_SIGNED;
  if (pairs) count_steps(k);
  p->w = ZN_ARRAY(arena, int32_t, (uint64_t)(p->blocks * p->steps * p->width));
  if (p->ordered) p->order = ZN_ARRAY(arena, int32_t, (uint64_t)(p->blocks * p->steps * 2));
  for (int64_t b = 0; b < p->blocks; b++) fill_block(k, b, pairs);
}

void zn_dot_pack(zn_dotpack *p, zn_arena *arena, const zn_caps *caps, zn_dtype a, zn_dot_form form, int64_t k, int64_t n,
                 int64_t width, int64_t scale, zn_dot_weight weight, void *user) {
  *p = (zn_dotpack){.form = form, .k = k, .n = n, .width = width, .blocks = (n + width - 1) / width};
  packer pk = {p, weight, user, scale};
  p->sums = ZN_ARRAY(arena, int32_t, (uint64_t)n);
  p->base = ZN_ARRAY(arena, int32_t, (uint64_t)(p->blocks * width));
  if (form == ZN_DOT_BYTES) fill_bytes(&pk, arena, caps, a);
  else fill_halves(&pk, arena);
  for (int64_t c = 0; c < n; c++) {
    uint32_t sum = 0;
    for (int64_t i = 0; i < k; i++) sum += (uint32_t)weight(user, i, c);
    p->sums[c] = (int32_t)sum;
  }
}
