/* pow with the special cases of C99, and the exact floating remainder. */
#include <math.h>

#include "codegen/kir/math.h"

/* ---- double-word arithmetic in the format of m ---- */

typedef struct pair {
  R hi, lo;
} pair;

static R add(const zn_mx *m, R x, R y) { return zn_mx_bin(m, ZN_K_Add, x, y); }
static R sub(const zn_mx *m, R x, R y) { return zn_mx_bin(m, ZN_K_Sub, x, y); }
static R mul(const zn_mx *m, R x, R y) { return zn_mx_bin(m, ZN_K_Mul, x, y); }

/* x + y exactly, |x| >= |y| */
static pair quick_sum(const zn_mx *m, R x, R y) {
  R s = add(m, x, y), t = sub(m, s, x), e = sub(m, y, t);
  return (pair){s, e};
}

/* Upper half of the significand (clearing bits, so no overflow). */
static R upper(const zn_mx *m, R x) {
  R i = zn_mx_bits(m, x);
  i = zn_mx_bini(m, ZN_K_And, i, -((int64_t)1 << (m->k->mant / 2 + 1)));
  return zn_mx_unbits(m, i);
}

/* x * y exactly */
static pair product(const zn_mx *m, R x, R y) {
  R p = mul(m, x, y);
  if (zn_mx_fused(m)) {
    R minus = zn_kb_un(m->b, ZN_K_Neg, p), e = zn_kb_fma(m->b, x, y, minus);
    return (pair){p, e};
  }
  R xh = upper(m, x), xl = sub(m, x, xh), yh = upper(m, y), yl = sub(m, y, yh);
  R a = mul(m, xh, yh), b = mul(m, xh, yl), c = mul(m, xl, yh), d = mul(m, xl, yl);
  R e = sub(m, a, p);
  e = add(m, e, b);
  e = add(m, e, c);
  e = add(m, e, d);
  return (pair){p, e};
}

/* log(a) as a double word, a > 0 finite, about 2^-65 relative: e ln 2 + 2 s + s z c, s = f/(2+f).
 */
static pair log_pair(const zn_mx *m, R a) {
  const zn_math_format *k = m->k;
  R tiny = zn_mx_cmpk(m, ZN_K_Lt, a, k->min_normal), up = zn_mx_bink(m, ZN_K_Mul, a, k->up);
  R v = zn_kb_select(m->b, tiny, up, a), bits = zn_mx_bits(m, v);
  R d = zn_mx_bini(m, ZN_K_Sub, bits, k->two_thirds), e = zn_mx_bini(m, ZN_K_Shr, d, k->mant);
  R back = zn_mx_bini(m, ZN_K_Shl, e, k->mant), mant = sub(m, bits, back),
    down = zn_mx_bini(m, ZN_K_Sub, e, k->mant);
  e = zn_kb_select(m->b, tiny, down, e);
  e = zn_mx_bini(m, ZN_K_Add, e, k->magic_bits);
  R ef = zn_mx_unbits(m, e), f = zn_mx_unbits(m, mant);
  ef = zn_mx_bink(m, ZN_K_Sub, ef, k->magic);
  f = zn_mx_bink(m, ZN_K_Sub, f, 1);
  R two = zn_mx_k(m, 2);
  pair den = quick_sum(m, two, f);
  R s = zn_mx_bin(m, ZN_K_Div, f, den.hi);
  pair sd = product(m, s, den.hi); /* s_lo = (f - s den) / den */
  R rest = sub(m, f, sd.hi);
  rest = sub(m, rest, sd.lo);
  R t = mul(m, s, den.lo);
  rest = sub(m, rest, t);
  R s_lo = zn_mx_bin(m, ZN_K_Div, rest, den.hi);
  pair z = product(m, s, s);
  R ss = mul(m, s, s_lo);
  ss = add(m, ss, ss);
  z.lo = add(m, z.lo, ss);
  /* c = 2/3 + z Q1(z), c0 in two words */
  R q = zn_mx_poly(m, k->logw, z.hi), c0 = zn_mx_k(m, 2.0 / 3), zq = mul(m, z.hi, q);
  zq = zn_mx_bink(m, ZN_K_Add, zq, 3.700743415417188e-17); /* 2/3 - (double)(2/3) */
  pair c = quick_sum(m, c0, zq);
  pair sz = product(m, s, z.hi);
  R u = mul(m, s, z.lo), u2 = mul(m, s_lo, z.hi);
  u = add(m, u, u2);
  sz.lo = add(m, sz.lo, u);
  pair w = product(m, sz.hi, c.hi);
  u = mul(m, sz.hi, c.lo);
  u2 = mul(m, sz.lo, c.hi);
  u = add(m, u, u2);
  w.lo = add(m, w.lo, u);
  /* sum: e ln2_hi (exact) + 2 s + w */
  R sh = add(m, s, s), sl = add(m, s_lo, s_lo);
  pair log1 = quick_sum(m, sh, w.hi);
  u = add(m, sl, w.lo);
  log1.lo = add(m, log1.lo, u);
  R eh = zn_mx_bink(m, ZN_K_Mul, ef, k->ln2_hi);
  pair total = {add(m, eh, log1.hi), 0};
  /* two-sum: either part may be the larger */
  R vv = sub(m, total.hi, eh), ev = sub(m, total.hi, vv), er = sub(m, eh, ev),
    vr = sub(m, log1.hi, vv);
  er = add(m, er, vr);
  R el = zn_mx_bink(m, ZN_K_Mul, ef, k->ln2_lo), low = add(m, er, log1.lo);
  low = add(m, low, el);
  return quick_sum(m, total.hi, low);
}

/* |x|^y for finite positive a, as exp(y log a) with y log a in double words; f64. */
static R pow_wide(const zn_mx *m, R a, R y) {
  pair l = log_pair(m, a), p = product(m, y, l.hi);
  R t = mul(m, y, l.lo), limit = zn_mx_k(m, 800), least = zn_mx_k(m, -800);
  R lo = add(m, p.lo, t), hi = p.hi;
  /* far out of range the low part may be NaN or huge: it no longer matters */
  R size = zn_kb_un(m->b, ZN_K_Abs, hi), sane = zn_mx_cmpk(m, ZN_K_Lt, size, 800);
  lo = zn_mx_selr(m, sane, lo, 0);
  hi = zn_mx_bin(m, ZN_K_Min, limit, hi);
  hi = zn_mx_bin(m, ZN_K_Max, least, hi);
  R e = zn_math_exp(m, hi), fin = zn_mx_cmpk(m, ZN_K_Lt, e, (double)INFINITY),
    r = zn_mx_fma(m, e, lo, e);
  return zn_kb_select(m->b, fin, r, e);
}

/* Is y an integer; and odd. Infinities count as even. */
static R is_integer(const zn_mx *m, R y, R *out_odd) {
  R t = m->caps->round_native ? zn_kb_un(m->b, ZN_K_Trunc, y) : zn_math_round(m, ZN_K_Trunc, y);
  R integer = zn_kb_cmp(m->b, ZN_K_Eq, t, y), half = zn_mx_bink(m, ZN_K_Mul, y, 0.5);
  R h =
      m->caps->round_native ? zn_kb_un(m->b, ZN_K_Trunc, half) : zn_math_round(m, ZN_K_Trunc, half);
  R odd = zn_kb_cmp(m->b, ZN_K_Ne, h, half);
  *out_odd = zn_mx_bin(m, ZN_K_And, odd, integer);
  return integer;
}

/* The magnitude for a = |x|: the formula for finite positive a, limits for 0 and infinity. */
static R magnitude(const zn_mx *m, R a, R y) {
  zn_mx w = *m;
  R wa = a, wy = y, r;
  w.k = &zn_math_f64;
  if (m->k->t == ZN_F32) {
    wa = zn_kb_cvt(m->b, a, ZN_F64);
    wy = zn_kb_cvt(m->b, y, ZN_F64);
    R l = zn_math_log(&w, wa), p = mul(&w, l, wy);
    r = zn_math_exp(&w, p);
    return zn_kb_cvt(m->b, r, ZN_F32);
  }
  r = pow_wide(m, a, y);
  R zero = zn_mx_cmpk(m, ZN_K_Eq, a, 0), inf = zn_mx_cmpk(m, ZN_K_Eq, a, (double)INFINITY);
  R neg = zn_mx_cmpk(m, ZN_K_Lt, y, 0), none = zn_mx_k(m, 0);
  R at_zero = zn_mx_selk(m, neg, (double)INFINITY, none), most = zn_mx_k(m, (double)INFINITY);
  R at_inf = zn_mx_selk(m, neg, 0, most), ordered = zn_kb_cmp(m->b, ZN_K_Eq, y, y);
  zero = zn_mx_bin(m, ZN_K_And, zero, ordered);
  inf = zn_mx_bin(m, ZN_K_And, inf, ordered);
  r = zn_kb_select(m->b, zero, at_zero, r);
  r = zn_kb_select(m->b, inf, at_inf, r);
  R nan = zn_kb_cmp(m->b, ZN_K_Ne, a, a), sum = add(m, a, y);
  return zn_kb_select(m->b, nan, sum, r);
}

R zn_math_pow(const zn_mx *m, R x, R y) {
  zn_kb *b = m->b;
  R a = zn_kb_un(b, ZN_K_Abs, x), odd, integer = is_integer(m, y, &odd), r = magnitude(m, a, y);
  /* sign: the sign bit of x when y is an odd integer */
  R signed_r = zn_mx_bin(m, ZN_K_CopySign, r, x);
  r = zn_kb_select(b, odd, signed_r, r);
  /* finite x < 0 and y no integer: NaN */
  R neg = zn_mx_cmpk(m, ZN_K_Lt, x, 0), fin = zn_mx_cmpk(m, ZN_K_Lt, a, (double)INFINITY);
  R whole = zn_kb_un(b, ZN_K_Not, integer), bad = zn_mx_bin(m, ZN_K_And, neg, fin);
  bad = zn_mx_bin(m, ZN_K_And, bad, whole);
  r = zn_mx_selk(m, bad, (double)NAN, r);
  /* x^0 = 1^y = (-1)^(+-inf) = 1 */
  R y0 = zn_mx_cmpk(m, ZN_K_Eq, y, 0), x1 = zn_mx_cmpk(m, ZN_K_Eq, x, 1),
    a1 = zn_mx_cmpk(m, ZN_K_Eq, a, 1);
  R ya = zn_kb_un(b, ZN_K_Abs, y), yi = zn_mx_cmpk(m, ZN_K_Eq, ya, (double)INFINITY);
  R one = zn_mx_bin(m, ZN_K_And, a1, yi);
  one = zn_mx_bin(m, ZN_K_Or, one, y0);
  one = zn_mx_bin(m, ZN_K_Or, one, x1);
  return zn_mx_selk(m, one, 1, r);
}

/* ---- remainder ---- */

/* Significand with the leading one at bit mant, and the exponent, so that a = sig * 2^(exp -
 * const); a > 0 finite. */
static R decompose(const zn_mx *m, R a, R *out_exp) {
  const zn_math_format *k = m->k;
  R tiny = zn_mx_cmpk(m, ZN_K_Lt, a, k->min_normal), up = zn_mx_bink(m, ZN_K_Mul, a, k->up);
  R v = zn_kb_select(m->b, tiny, up, a), bits = zn_mx_bits(m, v);
  R e = zn_mx_bini(m, ZN_K_Shr, bits, k->mant), down = zn_mx_bini(m, ZN_K_Sub, e, k->mant);
  *out_exp = zn_kb_select(m->b, tiny, down, e);
  R sig = zn_mx_bini(m, ZN_K_And, bits, ((int64_t)1 << k->mant) - 1);
  return zn_mx_bini(m, ZN_K_Or, sig, (int64_t)1 << k->mant);
}

static R scale_by(const zn_mx *m, R sig, R exp) {
  /* sig * 2^(exp - bias - mant) by three exact factors: exp may be below the normal range */
  const zn_math_format *k = m->k;
  R s = zn_kb_bitcast(m->b, sig, k->it), f = zn_kb_cvt(m->b, s, k->t);
  R n = zn_mx_bini(m, ZN_K_Sub, exp, k->bias + k->mant);
  R least = zn_mx_ki(m, k->it, 1 - k->bias), hi = zn_mx_bin(m, ZN_K_Max, least, n),
    lo = sub(m, n, hi);
  R p = zn_mx_pow2(m, hi), q = zn_mx_pow2(m, lo);
  f = mul(m, f, q);
  return mul(m, f, p);
}

/* fmod by long division of the significands, as many bits at a time as fit. */
R zn_math_rem(const zn_mx *m, R x, R y) {
  zn_kb *b = m->b;
  const zn_math_format *k = m->k;
  zn_dtype ut = k->t == ZN_F32 ? ZN_U32 : ZN_U64;
  int spare = k->t == ZN_F32 ? 8 : 11;
  R ax = zn_kb_un(b, ZN_K_Abs, x), ay = zn_kb_un(b, ZN_K_Abs, y), ex, ey;
  R sx = decompose(m, ax, &ex), sy = decompose(m, ay, &ey);
  R ux = zn_kb_bitcast(b, sx, ut), uy = zn_kb_bitcast(b, sy, ut), zero = zn_mx_ki(m, k->it, 0);
  R steps = sub(m, ex, ey), fin = zn_mx_cmpk(m, ZN_K_Lt, ax, (double)INFINITY);
  steps = zn_mx_bin(m, ZN_K_Max, zero, steps);
  steps = zn_kb_select(b, fin, steps, zero);
  R first = zn_kb_bin(b, ZN_K_Rem, ux, uy), rv = zn_kb_var(b, first), nv = zn_kb_var(b, steps);
  zn_kb_loop(b);
  R n = zn_kb_get(b, nv), more = zn_kb_cmp(b, ZN_K_Gt, n, zero), top = n;
  if (m->lanes > 1) {
    R mv = zn_kb_var(b, zn_kb_extract(b, n, 0));
    for (unsigned i = 1; i < m->lanes; i++) {
      R e = zn_kb_extract(b, n, i), old = zn_kb_get(b, mv), next = zn_kb_bin(b, ZN_K_Max, e, old);
      zn_kb_set(b, mv, next);
    }
    top = zn_kb_get(b, mv);
  }
  R none = zn_kb_int(b, k->it, 0), done = zn_kb_cmp(b, ZN_K_Le, top, none);
  zn_kb_break(b, done);
  R most = zn_mx_ki(m, k->it, spare), by = zn_mx_bin(m, ZN_K_Min, n, most), r = zn_kb_get(b, rv);
  by = zn_kb_select(b, more, by, zero);
  R ub = zn_kb_bitcast(b, by, ut), wide = zn_kb_bin(b, ZN_K_Shl, r, ub),
    next = zn_kb_bin(b, ZN_K_Rem, wide, uy);
  R left = sub(m, n, by);
  zn_kb_set(b, rv, next);
  zn_kb_set(b, nv, left);
  zn_kb_end(b);
  R last = zn_kb_get(b, rv), out = scale_by(m, last, ey),
    whole = zn_mx_cmpk(m, ZN_K_Eq, ay, (double)INFINITY);
  R less = zn_kb_cmp(b, ZN_K_Lt, ax, ay);
  out = zn_kb_select(b, less, ax, out);
  out = zn_mx_bin(m, ZN_K_CopySign, out, x);
  /* x infinite, y zero, or NaN */
  R y0 = zn_mx_cmpk(m, ZN_K_Eq, ay, 0), ok = zn_kb_cmp(b, ZN_K_Le, ay, ay),
    not0 = zn_kb_un(b, ZN_K_Not, y0);
  ok = zn_mx_bin(m, ZN_K_And, ok, fin);
  ok = zn_mx_bin(m, ZN_K_And, ok, not0);
  out = zn_kb_select(b, whole, x, out);
  return zn_mx_selr(m, ok, out, (double)NAN);
}
