/* Cast between text and numbers, by the C library: strtod and printf follow the rounding mode, which gives the two
 * neighbours of what a format cannot hold. What is text of a number, and which text a number gets: ONNX's Cast; where it
 * leaves that open, codegen/lower/strnum.h says what holds. */
#include <fenv.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "zenithc/eval/eval_impl.h"

static double read_rounded(const char *s, int mode) {
  int old = fegetround();
  fesetround(mode);
  double x = strtod(s, NULL);
  fesetround(old);
  return x;
}

/* Rounded to odd: narrower types then round as from the exact number. */
static double read_odd(const char *s) {
  double low = read_rounded(s, FE_DOWNWARD), high = read_rounded(s, FE_UPWARD);
  uint64_t bits;
  memcpy(&bits, &low, sizeof bits);
  return low == high || (bits & 1) ? low : high;
}

static double read_as(zn_dtype t, const char *s) {
  if (t == ZN_F64) return strtod(s, NULL);
  return t == ZN_F32 ? (double)strtof(s, NULL) : zn_ev_key(t, read_odd(s));
}

/* The text without blanks around it, checked; NULL: no number. */
static const char *trimmed(zn_ev *e, const zn_str *s) {
  static const char *const blanks = " \t\n\v\f\r";
  const char *p = s->len ? s->ptr : "";
  uint64_t n = s->len;
  while (n && memchr(blanks, *p, 6)) p++, n--;
  while (n && memchr(blanks, p[n - 1], 6)) n--;
  char *t = zn_arena_strndup(e->tmp, p, n), *end;
  const char *word = t + (*t == '-' || *t == '+');
  if (!strcasecmp(word, "inf") || !strcasecmp(word, "nan")) return t;
  if (!n || strlen(t) != n || strspn(t, "0123456789+-.eE") != n) return NULL;
  strtod(t, &end);
  return *end ? NULL : t;
}

static bool read_int(zn_dtype t, const char *s, int64_t *out) {
  int old = fegetround(), bits = (int)zn_int_bits(t);
  fesetround(FE_TOWARDZERO); /* long double holds 64 bits: what stands before the point is exact */
  long double x = truncl(strtold(s, NULL));
  fesetround(old);
  long double end = ldexpl(1, zn_is_signed(t) ? bits - 1 : bits);
  if (!(x < end && x >= (zn_is_signed(t) ? -end : 0))) return false;
  *out = x < 0 ? (int64_t)x : (int64_t)(uint64_t)x;
  return true;
}

zn_status zn_ev_read_number(zn_ev *e, const zn_str *s, zn_eval_val *dst, uint64_t i) {
  zn_dtype t = (zn_dtype)dst->dtype;
  const char *text = trimmed(e, s);
  bool fine = text != NULL;
  if (fine && zn_is_float(t)) dst->u.f[i] = zn_dtype_bytes(t) == 1 ? read_odd(text) : read_as(t, text);
  else if (fine && t == ZN_BOOL) {
    size_t mantissa = strcspn(text, "eE");
    dst->u.i[i] = strpbrk(text, "nN") || strcspn(text, "123456789") < mantissa;
  } else if (fine) fine = read_int(t, text, &dst->u.i[i]);
  return fine ? ZN_OK : zn_ev_fail(e, "'%.*s' is not a number of type %s", (int)s->len, s->ptr, zn_dtypes[t].name);
}

/* Does the text of a larger number read as x, because x is the largest of its type? Such a text is none of x. */
static bool beyond_last(zn_dtype t, double x, const char *s) {
  if (zn_dtype_bytes(t) != 1) return false;
  const uint32_t code = zn_float_encode(t, x, true);
  const double next = zn_float_decode(t, (uint8_t)(code + 1)), previous = zn_float_decode(t, (uint8_t)(code - 1));
  const double over = strtod(s, NULL) - (x + (x - previous) / 2);
  return !(next > x && isfinite(next)) && (over > 0 || (over == 0 && code % 2 != 0));
}

/* x with p significant digits, if that reads back: the nearest such text, or the other neighbour. */
static bool print_digits(zn_dtype t, double x, int p, char *buf, size_t n) {
  static const int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD};
  int old = fegetround();
  for (int k = 0; k < 3; k++) {
    fesetround(modes[k]);
    snprintf(buf, n, "%.*e", p - 1, x);
    fesetround(old);
    if (read_as(t, buf) == x && !beyond_last(t, x, buf)) return true;
  }
  return false;
}

static void print_float(zn_dtype t, double x, char *buf, size_t n) {
  char e[64], digits[32] = {0};
  int count = 0;
  if (t == ZN_F8E8M0) t = ZN_F32;
  for (int p = 1; p < 18 && !print_digits(t, fabs(x), p, e, sizeof e); p++) {}
  char *at = strchr(e, 'e');
  for (const char *c = e; c < at; c++)
    if (*c != '.') digits[count++] = *c;
  int point = (int)strtol(at + 1, NULL, 10) + 1;
  const char *sign = signbit(x) ? "-" : "";
  if (x == 0) snprintf(buf, n, "%s0.0", sign);
  else if (point <= -4 || point > 16)
    snprintf(buf, n, "%s%c%s%se%c%02d", sign, digits[0], count > 1 ? "." : "", digits + 1, point > 0 ? '+' : '-', abs(point - 1));
  else if (point <= 0) snprintf(buf, n, "%s0.%.*s%s", sign, -point, "0000", digits);
  else if (count <= point) snprintf(buf, n, "%s%s%.*s.0", sign, digits, point - count, "0000000000000000");
  else snprintf(buf, n, "%s%.*s.%s", sign, point, digits, digits + point);
}

zn_str zn_ev_print_number(zn_ev *e, const zn_eval_val *v, uint64_t j) {
  char buf[64];
  zn_dtype t = (zn_dtype)v->dtype;
  double x = zn_is_float(t) ? zn_ev_key(t, v->u.f[j]) : 0;
  if (isnan(x)) snprintf(buf, sizeof buf, "NaN");
  else if (isinf(x)) snprintf(buf, sizeof buf, "%s", x < 0 ? "-INF" : "INF");
  else if (zn_is_float(t)) print_float(t, x, buf, sizeof buf);
  else if (t == ZN_BOOL) snprintf(buf, sizeof buf, "%d", v->u.i[j] != 0);
  else if (t == ZN_U64) snprintf(buf, sizeof buf, "%llu", (unsigned long long)v->u.i[j]);
  else snprintf(buf, sizeof buf, "%lld", (long long)v->u.i[j]);
  return zn_ev_str(e, buf, strlen(buf));
}
