/* Packing for integer dot products. vpmaddubsw adds two products in 16 bits and saturates; a pair of weights is safe when
 * its positive ones sum to at most 128 and its negative ones to at least -128, because 255 * 128 = 32640. Weights of an
 * unsafe pair are cut down to that, and the rest goes into a further step on the same quad of activations: the sum of
 * all steps is the exact sum. */
#include "codegen/lower/dotpack.h"

enum { PAIR_MAX = 128, EXTRA_PERCENT = 25 };

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

/* Splits the four weights of a quad into safe ones and a remainder; true when there is one. */
static bool split(int32_t w[4], int32_t rest[4]) {
  bool any = false;
  for (int j = 0; j < 4; j += 2) {
    bool second = (w[j + 1] > 0 ? w[j + 1] : -w[j + 1]) > (w[j] > 0 ? w[j] : -w[j]);
    rest[j] = second ? 0 : cut(&w[j], w[j + 1]);
    rest[j + 1] = second ? cut(&w[j + 1], w[j]) : 0;
    any |= rest[j] || rest[j + 1];
  }
  return any;
}

typedef struct packer {
  zn_dotpack *p;
  zn_dot_weight weight;
  void *user;
} packer;

static int64_t first_column(const zn_dotpack *p, int64_t block) {
  int64_t first = block * p->width;
  return first + p->width > p->n && p->n >= p->width ? p->n - p->width : first;
}

static void quad_of(const packer *k, int64_t q, int64_t column, int32_t w[4]) {
  for (int64_t j = 0; j < 4; j++)
    w[j] = q * 4 + j < k->p->k && column < k->p->n ? k->weight(k->user, q * 4 + j, column) : 0;
}

static int32_t word_of(const int32_t w[4]) {
  uint32_t v = 0;
  for (int j = 0; j < 4; j++) v |= (uint32_t)(w[j] & 255) << (8 * j);
  return (int32_t)v;
}

static bool quad_overflows(const packer *k, int64_t block, int64_t q) {
  int32_t w[4], rest[4];
  for (int64_t c = 0; c < k->p->width; c++) {
    quad_of(k, q, first_column(k->p, block) + c, w);
    if (split(w, rest)) return true;
  }
  return false;
}

/* Steps of all blocks; false when that is too much more than one per quad. */
static bool count_steps(const packer *k) {
  zn_dotpack *p = k->p;
  int64_t most = 0;
  for (int64_t b = 0; b < p->blocks; b++) {
    int64_t more = 0;
    for (int64_t q = 0; q < p->words; q++) more += quad_overflows(k, b, q);
    if (more > most) most = more;
  }
  if (most * 100 > p->words * EXTRA_PERCENT) return false;
  p->steps = p->words + most;
  p->ordered = most > 0;
  return true;
}

static void fill_bytes(const packer *k, zn_arena *arena, bool pairs) {
  zn_dotpack *p = k->p;
  p->w = ZN_ARRAY(arena, int32_t, (uint64_t)(p->blocks * p->steps * p->width));
  if (p->ordered) p->order = ZN_ARRAY(arena, int32_t, (uint64_t)(p->blocks * p->steps));
  for (int64_t b = 0; b < p->blocks; b++) {
    int64_t extra = p->words;
    int32_t *to = p->w + b * p->steps * p->width;
    for (int64_t q = 0; q < p->words; q++) {
      bool any = false;
      for (int64_t c = 0; c < p->width; c++) {
        int32_t w[4], rest[4];
        quad_of(k, q, first_column(p, b) + c, w);
        if (pairs && split(w, rest)) {
          to[extra * p->width + c] = word_of(rest);
          any = true;
        }
        to[q * p->width + c] = word_of(w);
      }
      if (p->ordered) p->order[b * p->steps + q] = (int32_t)q;
      if (any) p->order[b * p->steps + extra++] = (int32_t)q;
    }
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
        for (int64_t j = 0; j < 2 && column < p->n; j++)
          if (s * 2 + j < p->k) v |= (uint32_t)(k->weight(k->user, s * 2 + j, column) & 65535) << (16 * j);
        p->w[(b * p->steps + s) * p->width + c] = (int32_t)v;
      }
}

void zn_dot_pack(zn_dotpack *p, zn_arena *arena, const zn_caps *caps, zn_dtype a, zn_dot_form form, int64_t k, int64_t n,
                 int64_t width, zn_dot_weight weight, void *user) {
  *p = (zn_dotpack){.form = form, .k = k, .n = n, .width = width, .blocks = (n + width - 1) / width};
  packer pk = {p, weight, user};
  bool pairs = caps->dot4 == ZN_DOT4_PAIRS;
  p->words = p->steps = (k + 3) / 4;
  if (form == ZN_DOT_BYTES && pairs && !count_steps(&pk)) p->form = caps->dot2 ? ZN_DOT_HALVES : ZN_DOT_NO_FORM;
  if (p->form == ZN_DOT_BYTES) {
    bool same = caps->dot4 == ZN_DOT4_SAME, mixed = pairs || caps->dot4 == ZN_DOT4_MIXED;
    if (mixed && a == ZN_I8) p->a_add = 128;
    p->flags = ZN_DOT_B_SIGNED | (pairs ? ZN_DOT_PAIRS : 0u);
    if (same || (!mixed && a == ZN_I8)) p->flags |= ZN_DOT_A_SIGNED;
    if (same && a == ZN_U8) p->a_add = -128;
    fill_bytes(&pk, arena, pairs);
  } else if (p->form == ZN_DOT_HALVES) {
    fill_halves(&pk, arena);
  }
  p->sums = ZN_ARRAY(arena, int32_t, (uint64_t)n);
  for (int64_t c = 0; c < n; c++) {
    uint32_t sum = 0;
    for (int64_t i = 0; i < k; i++) sum += (uint32_t)weight(user, i, c);
    p->sums[c] = (int32_t)sum;
  }
}
