/* Packing for integer dot products against brute force: the steps of a block add up to the exact product, and no pair of
 * a step can leave 16 bits, whatever the activations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "codegen/lower/dotpack.h"

enum { SCALE = 3 };

typedef struct matrix {
  int64_t k, n;
  int32_t *w;
} matrix;

static int32_t weight(void *user, int64_t k, int64_t n) {
  const matrix *m = user;
  return m->w[k * m->n + n];
}

static uint32_t next(uint32_t *s) { return (*s = *s * 1664525u + 1013904223u) >> 8; }

/* Mostly small weights with some extreme ones; `wild`: of 100. */
static matrix make(zn_arena *a, int64_t k, int64_t n, unsigned wild, uint32_t seed) {
  matrix m = {k, n, ZN_ARRAY(a, int32_t, (uint64_t)(k * n))};
  static const int32_t extreme[] = {127, -128, 126, -127, 64, -64, 65, -65};
  for (int64_t i = 0; i < k * n; i++) {
    m.w[i] = (int32_t)(next(&seed) % 41) - 20;
    if (next(&seed) % 100 < wild) m.w[i] = extreme[next(&seed) % 8];
  }
  return m;
}

static int32_t byte_of(int32_t word, int j) { return (int8_t)((uint32_t)word >> (8 * j)); }

/* Extremes of a sum of two products over all activations 0..255: at the corners. */
static void check_pair(int32_t w0, int32_t w1) {
  for (int c = 0; c < 4; c++) {
    int32_t sum = (c & 1 ? 255 : 0) * w0 + (c & 2 ? 255 : 0) * w1;
    assert_in_range(sum + 32768, 0, 65535);
  }
}

static int64_t column_of(const zn_dotpack *p, int64_t block, int64_t c) {
  int64_t first = block * p->width;
  if (first + p->width > p->n && p->n >= p->width) first = p->n - p->width;
  return first + c;
}

/* The product of one column with random activations, by the steps and directly. */
static void check_column(const zn_dotpack *p, const matrix *m, int64_t block, int64_t c, uint32_t *seed) {
  uint8_t x[64] = {0};
  int64_t exact = 0, by_steps = 0, column = column_of(p, block, c);
  if (column >= m->n) return;
  for (int64_t k = 0; k < m->k; k++) {
    x[k] = next(seed) % 3 ? (uint8_t)next(seed) : 255;
    exact += x[k] * m->w[k * m->n + column];
  }
  by_steps = p->form == ZN_DOT_BYTES ? p->base[block * p->width + c] : 0;
  int64_t first = p->ordered ? p->range[ZN_DOT_RANGE * block] : block * p->words;
  int64_t doubles = p->ordered ? p->range[ZN_DOT_RANGE * block + 1] + p->range[ZN_DOT_RANGE * block + 2] : 0;
  int64_t steps = p->ordered ? 2 * doubles + p->range[ZN_DOT_RANGE * block + 3] : p->words;
  for (int64_t s = first; s < first + steps; s++) {
    const int32_t *order = p->ordered ? &p->order[s * 2] : NULL;
    int64_t q = order ? order[0] / SCALE : s - first;
    uint32_t mask = order ? (uint32_t)order[1] : 0;
    int32_t word = p->w[s * p->width + c];
    int n = p->form == ZN_DOT_BYTES ? 4 : 2;
    for (int j = 0; j < n; j++)
      by_steps += (int32_t)(x[q * n + j] ^ (n == 4 ? mask >> (8 * j) & 255 : 0)) *
                  (n == 4 ? byte_of(word, j) : (int16_t)((uint32_t)word >> (16 * j)));
    if (p->flags & ZN_DOT_PAIRS)
      for (int j = 0; j < 4; j += 2) check_pair(byte_of(word, j), byte_of(word, j + 1));
  }
  assert_int_equal(exact, by_steps);
  for (int64_t d = first; p->ordered && d < first + 2 * p->range[ZN_DOT_RANGE * block + 1]; d++)
    assert_true(p->has_plain && !p->order[d * 2 + 1]);
  for (int64_t d = first; d < first + 2 * doubles; d += 2)
    for (int h = 0; h < 2; h++) { /* four products in one half, at the corners */
      int32_t up = 0, down = 0;
      for (int j = 0; j < 4; j++) {
        int32_t w = byte_of(p->w[(d + j / 2) * p->width + c], 2 * h + j % 2);
        up += w > 0 ? 255 * w : 0;
        down += w < 0 ? 255 * w : 0;
      }
      assert_true(up <= INT16_MAX && down >= INT16_MIN);
    }
}

static void check_all(const zn_caps *caps, unsigned wild, zn_dot_form form) {
  zn_arena a;
  zn_arena_init(&a, "dots");
  for (uint32_t seed = 1; seed <= 40; seed++) {
    uint32_t s = seed * 77;
    int64_t k = 1 + next(&s) % 60, n = 1 + next(&s) % 30, width = 1 + next(&s) % 24;
    matrix m = make(&a, k, n, wild, seed);
    zn_dotpack p;
    assert_int_equal(zn_dot_choose(caps, ZN_U8, -128, 127), ZN_DOT_BYTES);
    zn_dot_pack(&p, &a, caps, ZN_U8, form, k, n, width, SCALE, weight, &m);
    for (int64_t b = 0; b < p.blocks; b++)
      for (int64_t c = 0; c < width; c++)
        for (int r = 0; r < 4; r++) check_column(&p, &m, b, c, &s);
    for (int64_t c = 0; c < n; c++) {
      int64_t sum = 0;
      for (int64_t i = 0; i < k; i++) sum += m.w[i * n + c];
      assert_int_equal(p.sums[c], sum);
    }
    zn_arena_reset(&a);
  }
}

static void test_pairs(void **state) {
  (void)state;
  const zn_caps caps = {.vector_bytes = 32, .vector_regs = 16, .dot2 = true, .dot4 = ZN_DOT4_PAIRS};
  check_all(&caps, 0, ZN_DOT_BYTES);
  check_all(&caps, 2, ZN_DOT_BYTES);
  check_all(&caps, 60, ZN_DOT_BYTES);
  check_all(&caps, 60, ZN_DOT_HALVES);
}

static void test_exact(void **state) {
  (void)state;
  const zn_caps caps = {.vector_bytes = 32, .vector_regs = 16, .dot2 = true, .dot4 = ZN_DOT4_MIXED};
  check_all(&caps, 60, ZN_DOT_BYTES);
}

/* Every weight stands where TileDot reads it, and what lies beyond the matrix is zero. */
static void check_tiles(zn_tile_kind kind, zn_dot_form form, uint32_t seed) {
  zn_arena a;
  zn_arena_init(&a, "tiles");
  uint32_t s = seed * 77;
  int64_t k = 1 + next(&s) % 200, width = 1 + next(&s) % 32, n = width + next(&s) % 40;
  matrix m = make(&a, k, n, 10, seed);
  const zn_caps caps = {.tile_dot = kind};
  const int64_t group = zn_tile_group(kind) / 4, unit = zn_tile_unit(kind) / 4;
  zn_dotpack p;
  assert_true(zn_dot_tiles(&caps, ZN_U8, -128, 127) && !zn_dot_tiles(&caps, ZN_U8, -129, 127));
  zn_dot_pack(&p, &a, &caps, ZN_U8, form, k, n, width, 1, weight, &m);
  assert_true(p.words % group == 0 && p.words * 4 >= k && p.words * 4 < k + 4 * group);
  assert_int_equal(p.a_add, kind == ZN_TILE_RUNS ? -128 : 0);
  for (int64_t b = 0; b < p.blocks; b++)
    for (int64_t c = 0; c < width; c++)
      for (int64_t i = 0; i < p.words * 4; i++) {
        const int64_t word = i / 4, run = form == ZN_DOT_TILE_ROWS ? group : unit;
        const int64_t at = (b * p.words + word / run * run) * width + c * run + word % run;
        assert_int_equal(byte_of(p.w[at], (int)(i % 4)), i < k ? m.w[i * n + column_of(&p, b, c)] : 0);
      }
  zn_arena_reset(&a);
}

static void test_tiles(void **state) {
  (void)state;
  for (uint32_t seed = 1; seed <= 20; seed++) {
    for (zn_tile_kind kind = ZN_TILE_AMX; kind <= ZN_TILE_RUNS; kind++) {
      check_tiles(kind, ZN_DOT_TILES, seed);
      check_tiles(kind, ZN_DOT_TILE_ROWS, seed);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_pairs), cmocka_unit_test(test_exact), cmocka_unit_test(test_tiles)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
