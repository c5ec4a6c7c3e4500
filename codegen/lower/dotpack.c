/* Packing for integer dot products. vpmaddubsw adds two products in 16 bits and saturates: a pair of weights is safe when
 * its positive ones sum to at most 128 and its negative ones to at least -128, because 255 * 128 = 32640. Any activation
 * x may be replaced by 255 - x (all bits flipped) and its weight negated; 255 * weight is a constant. So
 *   two words whose pairs are safe together, with flips that suit all columns of a block, share one widening to 32 bits
 *   (doubles): most words find such a partner among the next few;
 *   else a pair is made safe by a flip;
 *   else its weights are cut down to a safe pair, and the rest goes into a further step on the same word.
 * The sum of all steps is the exact sum. */
#include "codegen/lower/dotpack.h"

#include <stdlib.h>

enum { PAIR_MAX = 128, SAMPLE = 3, CANDIDATES = 8};
#define DOUBLE_TIME 1.5 /* of a double, over one step */

zn_dot_form zn_dot_choose(const zn_caps *caps, zn_dtype a, int32_t lo, int32_t hi) {
  if (a == ZN_BF16 && caps->dot_bf16) return ZN_DOT_REALS;
  if (a != ZN_U8 && a != ZN_I8) return ZN_DOT_NO_FORM;
  if (caps->dot4 != ZN_DOT4_NONE && lo >= -128 && hi <= 127) return ZN_DOT_BYTES;
  return caps->dot2 && lo >= INT16_MIN && hi <= INT16_MAX ? ZN_DOT_HALVES : ZN_DOT_NO_FORM;
}

unsigned zn_dot_temporaries(const zn_caps *caps) {
  return caps->dot4 == ZN_DOT4_SIGNED_PAIRS ? 9 : 3; /* products at twice the width, of several accumulators at once */
}

bool zn_dot_tiles(const zn_caps *caps, zn_dtype a, int32_t lo, int32_t hi) {
  if (a == ZN_BF16) return caps->dot_bf16 && caps->tile_dot == ZN_TILE_AMX;
  return caps->tile_dot && (a == ZN_U8 || a == ZN_I8) && lo >= -128 && hi <= 127;
}

/* Blocks so wide have their columns in lanes: each word of activations is broadcast, from memory at no cost, but by way of three
 * operations when a mask comes between. Doubles without flips are preferred there, and get a loop of their own when this part
 * of all is such. */
enum { WIDE = 16 };
static const double enough_plain = 0.6;

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

/* ---------------------------------------------------------------- doubles */

typedef struct dual { /* two words and the flips of their activations */
  int32_t q[2], mask[2];
} dual;

typedef struct block_plan {
  dual *duals;
  int32_t *singles;
  int64_t num_duals, num_singles, num_plain; /* plain: duals without flips */
} block_plan;

/* Are the products of half h of both words safe with these flips (bits 0 1: first word, 2 3: second), in all columns? */
static bool safe_together(const int16_t *a, const int16_t *b, int64_t width, int h, unsigned flips) {
  for (int64_t c = 0; c < width; c++) {
    int32_t up = 0, down = 0;
    for (unsigned j = 0; j < 4; j++) {
      int32_t w = (j < 2 ? a : b)[(2 * h + (int)(j & 1)) * width + c];
      if (flips >> j & 1) w = -w;
      if (w > 127) return false;
      if (w > 0) up += w;
      else down -= w;
    }
    if (up > PAIR_MAX || down > PAIR_MAX) return false;
  }
  return true;
}

static int32_t mask_of(unsigned flips, int h) {
  uint32_t m = (flips & 1 ? 0x00ffu : 0) | (flips & 2 ? 0xff00u : 0);
  return (int32_t)(m << (16 * h));
}

static bool pair_up(const int16_t *w, int64_t width, int32_t qa, int32_t qb, dual *out) {
  const int16_t *a = w + qa * 4 * width, *b = w + qb * 4 * width;
  *out = (dual){{qa, qb}, {0, 0}};
  for (int h = 0; h < 2; h++) {
    unsigned flips = 0;
    while (flips < 16 && !safe_together(a, b, width, h, flips)) flips += 2; /* flipping all four changes nothing */
    if (flips >= 16) return false;
    out->mask[0] |= mask_of(flips & 3, h);
    out->mask[1] |= mask_of(flips >> 2, h);
  }
  return true;
}

static bool is_plain(const dual *d) { return !d->mask[0] && !d->mask[1]; }

/* Duals without flips first; else in order. */
static void plain_first(zn_arena *tmp, block_plan *b) {
  dual *to = ZN_ARRAY(tmp, dual, (uint64_t)b->num_duals + 1);
  int64_t n = 0;
  for (int flipped = 0; flipped < 2; flipped++)
    for (int64_t i = 0; i < b->num_duals; i++)
      if (is_plain(&b->duals[i]) == !flipped) to[n++] = b->duals[i];
  b->duals = to;
}

/* Weights of a block, [word][4][width]. */
static int16_t *read_block(const packer *k, zn_arena *tmp, int64_t block) {
  const zn_dotpack *p = k->p;
  int64_t first = first_column(p, block);
  int16_t *w = ZN_ARRAY(tmp, int16_t, (uint64_t)(p->words * 4 * p->width));
  for (int64_t i = 0; i < p->words * 4; i++)
    for (int64_t c = 0; c < p->width; c++) w[i * p->width + c] = (int16_t)weight_at(k, i, first + c);
  return w;
}

/* Partners are sought among the next words, so that the activations are still read nearly in order. */
static void plan_block(const packer *k, zn_arena *keep, int64_t block, block_plan *out) {
  const zn_dotpack *p = k->p;
  zn_arena tmp;
  zn_arena_init(&tmp, "dots");
  const int16_t *w = read_block(k, &tmp, block);
  bool *taken = ZN_ARRAY(&tmp, bool, (uint64_t)p->words);
  *out = (block_plan){.duals = ZN_ARRAY(keep, dual, (uint64_t)(p->words / 2 + 1)),
                      .singles = ZN_ARRAY(keep, int32_t, (uint64_t)p->words)};
  for (int32_t q = 0; q < p->words; q++) {
    dual d = {0};
    int tried = 0;
    bool found = false;
    if (taken[q]) continue;
    for (int32_t r = q + 1; r < p->words && tried < CANDIDATES; r++) {
      dual now;
      if (taken[r] || (tried++, !pair_up(w, p->width, q, r, &now))) continue;
      if (found && !is_plain(&now)) continue;
      d = now;
      found = true;
      if (is_plain(&d) || p->width < WIDE) break;
    }
    if (!found) {
      out->singles[out->num_singles++] = q;
      continue;
    }
    taken[d.q[1]] = true;
    out->duals[out->num_duals++] = d;
    out->num_plain += is_plain(&d);
  }
  zn_arena_reset(&tmp);
}

static int64_t extra_steps(const packer *k, int64_t block, const block_plan *b) {
  int64_t extra = 0;
  for (int64_t i = 0; i < b->num_singles; i++)
    extra += judge(k, block, b->singles[i] * 4) == SPLIT || judge(k, block, b->singles[i] * 4 + 2) == SPLIT;
  return extra;
}

double zn_dot_steps(const zn_caps *caps, int64_t k, int64_t n, int64_t width, zn_dot_weight weight, void *user) {
  zn_dotpack p = {.k = k, .n = n, .width = width, .blocks = (n + width - 1) / width, .words = (k + 3) / 4};
  packer pk = {&p, weight, user, 1};
  if (caps->dot4 != ZN_DOT4_PAIRS) return 1;
  zn_arena tmp;
  zn_arena_init(&tmp, "dots");
  int64_t count = p.blocks < SAMPLE ? p.blocks : SAMPLE;
  double time = 0;
  for (int64_t i = 0; i < count; i++) {
    block_plan b;
    plan_block(&pk, &tmp, i * p.blocks / count, &b);
    time += DOUBLE_TIME * (double)b.num_duals + (double)(b.num_singles + extra_steps(&pk, i * p.blocks / count, &b));
  }
  zn_arena_reset(&tmp);
  return time / (double)(count * p.words);
}

static block_plan *plan_blocks(const packer *k, zn_arena *arena, zn_arena *tmp) {
  zn_dotpack *p = k->p;
  block_plan *b = ZN_ARRAY(tmp, block_plan, (uint64_t)p->blocks);
  p->range = ZN_ARRAY(arena, int32_t, (uint64_t)p->blocks * ZN_DOT_RANGE);
  p->steps = 0;
  p->ordered = true;
  int64_t plain = 0, duals = 0;
  for (int64_t i = 0; i < p->blocks; i++) {
    plan_block(k, tmp, i, &b[i]);
    plain += b[i].num_plain;
    duals += b[i].num_duals;
  }
  p->has_plain = p->width >= WIDE && (double)plain > enough_plain * (double)duals;
  for (int64_t i = 0; i < p->blocks; i++) {
    if (p->has_plain) plain_first(tmp, &b[i]);
    else b[i].num_plain = 0;
    int32_t *range = &p->range[ZN_DOT_RANGE * i];
    int64_t singles = b[i].num_singles + extra_steps(k, i, &b[i]);
    range[0] = (int32_t)p->steps;
    range[1] = (int32_t)b[i].num_plain;
    range[2] = (int32_t)(b[i].num_duals - b[i].num_plain);
    range[3] = (int32_t)singles;
    p->steps += 2 * b[i].num_duals + singles;
  }
  return b;
}

/* ---------------------------------------------------------------- words */

static int32_t word_of(const int32_t w[4]) {
  uint32_t v = 0;
  for (int j = 0; j < 4; j++) v |= (uint32_t)(w[j] & 255) << (8 * j);
  return (int32_t)v;
}

/* Step `step` of block b multiplies word q under a mask by the weights of all columns; what pairs in SPLIT cannot hold
 * goes into step `further`. */
static void fill_step(const packer *k, int64_t b, int64_t step, int32_t q, int32_t mask, const pair_state s[2],
                      int64_t further) {
  zn_dotpack *p = k->p;
  bool any = s[0] == SPLIT || s[1] == SPLIT;
  int32_t *to = p->w;
  for (int64_t c = 0; c < p->width; c++) {
    int32_t w[4], rest[4] = {0}, *base = &p->base[b * p->width + c];
    for (int j = 0; j < 4; j++) {
      w[j] = weight_at(k, q * 4 + j, first_column(p, b) + c);
      if (!((uint32_t)mask >> (8 * j) & 1)) continue;
      *base = (int32_t)((uint32_t)*base + 255u * (uint32_t)w[j]);
      w[j] = -w[j];
    }
    for (int h = 0; h < 2; h++)
      if (s[h] == SPLIT) split(w + 2 * h, rest + 2 * h);
    to[step * p->width + c] = word_of(w);
    if (any) to[further * p->width + c] = word_of(rest);
  }
  if (!p->ordered) return;
  int32_t *order = p->order;
  order[2 * step] = (int32_t)(q * k->scale);
  order[2 * step + 1] = mask;
  if (any) order[2 * further] = (int32_t)(q * k->scale);
}

static void fill_block(const packer *k, int64_t b, const block_plan *plan) {
  static const pair_state plain[2] = {PLAIN, PLAIN};
  int64_t step = b * k->p->words;
  if (!plan) {
    for (int32_t q = 0; q < k->p->words; q++) fill_step(k, b, step++, q, 0, plain, 0);
    return;
  }
  step = k->p->range[ZN_DOT_RANGE * b];
  int64_t further = step + 2 * plan->num_duals + plan->num_singles;
  for (int64_t i = 0; i < plan->num_duals; i++)
    for (int j = 0; j < 2; j++) fill_step(k, b, step++, plan->duals[i].q[j], plan->duals[i].mask[j], plain, further);
  for (int64_t i = 0; i < plan->num_singles; i++) {
    int32_t q = plan->singles[i];
    pair_state s[2] = {judge(k, b, q * 4), judge(k, b, q * 4 + 2)};
    int32_t mask = (s[0] == FLIPPED ? mask_of(2, 0) : 0) | (s[1] == FLIPPED ? mask_of(2, 1) : 0);
    fill_step(k, b, step++, q, mask, s, further);
    further += s[0] == SPLIT || s[1] == SPLIT;
  }
}

/* The two weights from row `row` on. */
static int32_t pair_of(const packer *k, int64_t row, int64_t column) {
  const uint32_t low = (uint32_t)weight_at(k, row, column) & 65535, high = (uint32_t)weight_at(k, row + 1, column) & 65535;
  return (int32_t)(low | high << 16);
}

static void fill_halves(const packer *k, zn_arena *arena) {
  zn_dotpack *p = k->p;
  p->words = (p->k + 1) / 2;
  p->steps = p->blocks * p->words;
  p->w = ZN_ARRAY(arena, int32_t, (uint64_t)(p->steps * p->width));
  for (int64_t b = 0; b < p->blocks; b++)
    for (int64_t s = 0; s < p->words; s++)
      for (int64_t c = 0; c < p->width; c++)
        p->w[(b * p->words + s) * p->width + c] = pair_of(k, s * 2, first_column(p, b) + c);
}

/* Two products of signed bytes fit 16 bits unless all four are -128. */
static bool pairs_fit(const zn_dotpack *p) {
  for (int64_t i = 0; i < p->steps * p->width; i++) {
    const uint32_t w = (uint32_t)p->w[i];
    if ((w & 0xffff) == 0x8080 || w >> 16 == 0x8080) return false;
  }
  return true;
}

static void fill_tiles(const packer *k, zn_arena *arena, const zn_caps *caps, zn_dtype a) {
  zn_dotpack *p = k->p;
  const int64_t group = zn_tile_group(caps->tile_dot) / 4, unit = zn_tile_unit(caps->tile_dot) / 4;
  const int64_t in_word = p->reals ? 2 : 4;
  if (caps->tile_dot == ZN_TILE_RUNS && a == ZN_U8) p->a_add = -128;
  p->words = zn_ceil_div(p->k, in_word * group) * group;
  p->steps = p->blocks * p->words;
  p->w = ZN_ARRAY(arena, int32_t, (uint64_t)(p->steps * p->width));
  for (int64_t b = 0; b < p->blocks; b++)
    for (int64_t s = 0; s < p->words; s++)
      for (int64_t c = 0; c < p->width; c++) {
        const int64_t column = first_column(p, b) + c;
        int32_t w[4];
        for (int64_t j = 0; j < 4 && !p->reals; j++) w[j] = weight_at(k, s * 4 + j, column);
        int64_t at = (b * p->words + s / unit * unit) * p->width + c * unit + s % unit;
        if (p->form == ZN_DOT_TILE_ROWS) at = ((b * p->words + s / group * group) * p->width) + c * group + s % group;
        p->w[at] = p->reals ? pair_of(k, s * 2, column) : word_of(w);
      }
}

static void fill_bytes(const packer *k, zn_arena *arena, const zn_caps *caps, zn_dtype a) {
  zn_dotpack *p = k->p;
  const bool pairs = caps->dot4 == ZN_DOT4_PAIRS, signed_pairs = caps->dot4 == ZN_DOT4_SIGNED_PAIRS;
  const bool mixed = pairs || caps->dot4 == ZN_DOT4_MIXED, same = signed_pairs || caps->dot4 == ZN_DOT4_SAME;
  p->words = (p->k + 3) / 4;
  p->steps = p->blocks * p->words;
  if (mixed && a == ZN_I8) p->a_add = 128;
  if (same && a == ZN_U8) p->a_add = -128;
  p->flags = ZN_DOT_B_SIGNED | (pairs ? ZN_DOT_PAIRS : 0u);
  if (same || (!mixed && a == ZN_I8)) p->flags |= ZN_DOT_A_SIGNED;
  zn_arena tmp;
  zn_arena_init(&tmp, "dots");
  block_plan *plans = pairs ? plan_blocks(k, arena, &tmp) : NULL;
  p->w = ZN_ARRAY(arena, int32_t, (uint64_t)(p->steps * p->width));
  if (p->ordered) p->order = ZN_ARRAY(arena, int32_t, (uint64_t)(p->steps * 2));
  for (int64_t b = 0; b < p->blocks; b++) fill_block(k, b, plans ? &plans[b] : NULL);
  if (signed_pairs && pairs_fit(p)) p->flags |= ZN_DOT_PAIRS;
  zn_arena_reset(&tmp);
}

void zn_dot_pack(zn_dotpack *p, zn_arena *arena, const zn_caps *caps, zn_dtype a, zn_dot_form form, int64_t k, int64_t n,
                 int64_t width, int64_t scale, zn_dot_weight weight, void *user) {
  *p = (zn_dotpack){.form = form, .reals = a == ZN_BF16, .k = k, .n = n, .width = width, .blocks = (n + width - 1) / width};
  packer pk = {p, weight, user, scale};
  p->sums = ZN_ARRAY(arena, int32_t, (uint64_t)n);
  p->base = ZN_ARRAY(arena, int32_t, (uint64_t)(p->blocks * width));
  if (zn_dot_is_tiles(form)) fill_tiles(&pk, arena, caps, a);
  else if (form == ZN_DOT_BYTES) fill_bytes(&pk, arena, caps, a);
  else fill_halves(&pk, arena);
  for (int64_t c = 0; c < n && !p->reals; c++) {
    uint32_t sum = 0;
    for (int64_t i = 0; i < k; i++) sum += (uint32_t)weight(user, i, c);
    p->sums[c] = (int32_t)sum;
  }
}
