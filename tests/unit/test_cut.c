/* Cuts of work into iterations: they cover the work, keep the bound of an axis, and give sixteen threads even shares. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "codegen/lower/cut.h"

static uint32_t next(uint32_t *s) { return (*s = *s * 1664525u + 1013904223u) >> 8; }

static int64_t smaller_of(int64_t a, int64_t b) { return a < b ? a : b; }

/* Units of the slowest of `threads` when each takes the next iteration as soon as it is free. */
static int64_t slowest(const zn_cut *c, int64_t a_per, int64_t b_per, int threads) {
  int64_t busy[16] = {0}, most = 0;
  for (int64_t o = 0; o < c->outer; o++)
    for (int64_t a = 0; a < c->a; a += a_per)
      for (int64_t b = 0; b < c->b; b += b_per) {
        int free = 0;
        for (int t = 1; t < threads; t++)
          if (busy[t] < busy[free]) free = t;
        busy[free] += smaller_of(a_per, c->a - a) * smaller_of(b_per, c->b - b);
      }
  for (int t = 0; t < threads; t++)
    if (busy[t] > most) most = busy[t];
  return most;
}

static void shares_are_even(void **state) {
  (void)state;
  uint32_t seed = 1;
  for (int i = 0; i < 2000; i++) {
    zn_cut c = {.outer = 1 + next(&seed) % 20, .a = 1 + next(&seed) % 70, .b = 1 + next(&seed) % 130, .cycles = 20000};
    if (next(&seed) % 2) c.b_most = 1 + next(&seed) % 20;
    int64_t a = 0, b = 0, units = c.outer * c.a * c.b;
    double f = zn_cut_work(&c, &a, &b);
    assert_true(f >= 1);
    assert_in_range(a, 1, c.a);
    assert_in_range(b, 1, c.b_most ? smaller_of(c.b, c.b_most) : c.b);
    if (units < 64) continue; /* a thread has a few units, whole ones */
    assert_true((double)slowest(&c, a, b, 16) <= 1.25 * (double)units / 16 + 1);
    assert_true((double)slowest(&c, a, b, 2) <= 1.1 * (double)units / 2 + 1);
  }
}

/* 64 channels at 14 x 14 from 384, as tiles of two vectors: a whole image at once leaves fourteen threads idle. */
static void segments_count(void **state) {
  (void)state;
  int64_t a, b;
  zn_cut image = {.outer = 1, .a = 2, .b = 1, .cycles = 75264}, rows = {.outer = 1, .a = 2, .b = 7, .cycles = 10752};
  double whole = zn_cut_work(&image, &a, &b), cut = zn_cut_work(&rows, &a, &b);
  assert_int_equal(a * b, 1);
  assert_true(whole > 1.5 * cut);
}

/* What each iteration reads again, and what it costs to begin one, keep short work whole. */
static void data_counts(void **state) {
  (void)state;
  int64_t a, b;
  zn_cut tiny = {.outer = 1, .a = 4, .b = 4, .cycles = 1}, heavy = {.outer = 16, .a = 1, .b = 64, .cycles = 1000};
  zn_cut_work(&tiny, &a, &b);
  assert_int_equal(a * b, 16);
  heavy.a_bytes = 1e6;
  zn_cut_work(&heavy, &a, &b);
  assert_int_equal(b, 64);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(shares_are_even), cmocka_unit_test(segments_count),
                                     cmocka_unit_test(data_counts)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
