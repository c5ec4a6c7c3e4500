/* Codes of sums of codes: a form that was found gives the literal code for every pair of bytes, and one is found where the
 * scales are in the ratio of small integers and for most others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "codegen/lower/codes.h"

/* The operators' definitions, not by way of codes.c. */
static int naive(const zn_code_sum *s, int a, int b) {
  volatile float x = (float)(a - s->za) * s->sa, y = (float)(b - s->zb) * s->sb;
  volatile float sum = x + y;
  if (s->relu && sum < 0) sum = 0;
  volatile float q = sum / s->sy;
  double code = nearbyint((double)q) + s->zy;
  const double lo = s->ty == ZN_I8 ? -128 : 0;
  return (int)fmin(fmax(code, lo), lo + 255);
}

static void check_all_pairs(const zn_code_sum *s, const zn_code_form *f) {
  const int la = s->ta == ZN_I8 ? -128 : 0, lb = s->tb == ZN_I8 ? -128 : 0;
  for (int a = la; a < la + 256; a++)
    for (int b = lb; b < lb + 256; b++) {
      const int want = naive(s, a, b);
      if (zn_code_by_form(f, a, b) != want) fail_msg("%d and %d: %d, not %d", a, b, zn_code_by_form(f, a, b), want);
      if (zn_code_literal(s, a, b) != want) fail_msg("%d and %d: literal %d, not %d", a, b, zn_code_literal(s, a, b), want);
    }
}

static void equal_scales_are_integers(void **state) {
  (void)state;
  static const zn_code_sum sums[] = {
      {ZN_U8, ZN_U8, ZN_U8, 0.04705882f, 0.04705882f, 0.04705882f, 128, 128, 0, true},
      {ZN_I8, ZN_U8, ZN_I8, 0.0131f, 0.0262f, 0.0131f, -3, 7, 5, false},
      {ZN_I8, ZN_I8, ZN_U8, 0.3f, 0.3f, 0.1f, 0, 0, 77, true},
  };
  for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) {
    const zn_code_form f = zn_code_find(&sums[i]);
    assert_int_equal(f.kind, ZN_CODES_INT);
    check_all_pairs(&sums[i], &f);
  }
}

static uint32_t next(uint32_t *s) {
  *s = *s * 1664525u + 1013904223u;
  return *s >> 8;
}

static void other_scales_mostly_have_a_form(void **state) {
  (void)state;
  uint32_t seed = 5, found = 0;
  enum { SUMS = 40 };
  for (int i = 0; i < SUMS; i++) {
    zn_code_sum s = {.ta = next(&seed) & 1 ? ZN_U8 : ZN_I8, .tb = next(&seed) & 1 ? ZN_U8 : ZN_I8};
    s.ty = next(&seed) & 1 ? ZN_U8 : ZN_I8;
    s.sa = 0.001f + (float)(next(&seed) & 0xfffff) * 1e-7f;
    s.sb = 0.001f + (float)(next(&seed) & 0xfffff) * 1e-7f;
    s.sy = 0.001f + (float)(next(&seed) & 0xfffff) * 1.5e-7f;
    s.za = (int32_t)(next(&seed) % 256) + (s.ta == ZN_I8 ? -128 : 0);
    s.zb = (int32_t)(next(&seed) % 256) + (s.tb == ZN_I8 ? -128 : 0);
    s.zy = (int32_t)(next(&seed) % 256) + (s.ty == ZN_I8 ? -128 : 0);
    s.relu = next(&seed) & 1;
    const zn_code_form f = zn_code_find(&s);
    if (f.kind == ZN_CODES_LITERAL) continue;
    found++;
    check_all_pairs(&s, &f);
  }
  print_message("%u of %d\n", found, SUMS);
  assert_true(found > SUMS / 2);
}

/* Half a scale: every other sum is a tie, which goes to even before an odd zero point is added, and no form does that. */
static void ties_are_not_missed(void **state) {
  (void)state;
  zn_code_sum s = {ZN_U8, ZN_U8, ZN_U8, 0.5f, 0.5f, 1.0f, 0, 0, 1, false};
  assert_int_equal(zn_code_find(&s).kind, ZN_CODES_LITERAL);
  s.zy = 2;
  const zn_code_form f = zn_code_find(&s);
  assert_int_equal(f.kind, ZN_CODES_FLOAT);
  check_all_pairs(&s, &f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(equal_scales_are_integers),
      cmocka_unit_test(other_scales_mostly_have_a_form),
      cmocka_unit_test(ties_are_not_missed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
