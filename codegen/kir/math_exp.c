/* Exponentials, logarithms and what is made of them. Branch free; reductions follow Cody and Waite
 * with constants whose products are exact, so that the code is as good without fma. */
#include <math.h>

#include "codegen/kir/math.h"

/* x = n ln 2 + r, |r| <= ln(2)/2: returns e^r - 1, n as an integer in *out_n. NaN gives NaN and any
 * n. */
static R reduce(const zn_mx *m, R x, R *out_n) {
  const zn_math_format *k = m->k;
  R mg = zn_mx_k(m, k->magic);
  R t = zn_mx_fmak(m, x, k->log2e, mg);
  R n = zn_mx_bin(m, ZN_K_Sub, t, mg);
  R i = zn_mx_bits(m, t);
  *out_n = zn_mx_bini(m, ZN_K_Sub, i, k->magic_bits);
  R r = zn_mx_fmak(m, n, -k->ln2_hi, x);
  r = zn_mx_fmak(m, n, -k->ln2_lo, r);
  R r2 = zn_mx_bin(m, ZN_K_Mul, r, r), p = zn_mx_poly_pairs(m, k->exp, r, r2);
  return zn_mx_fma(m, r2, p, r);
}

/* min(hi, max(lo, x)) that lets NaN through. */
static R clamp(const zn_mx *m, R x, double lo, double hi) {
  R l = zn_mx_k(m, lo), h = zn_mx_k(m, hi);
  x = zn_mx_bin(m, ZN_K_Max, l, x);
  return zn_mx_bin(m, ZN_K_Min, h, x);
}

static R exp_small(const zn_mx *m, R x) {
  R n, q = reduce(m, x, &n), s = zn_mx_pow2(m, n);
  return zn_mx_fma(m, s, q, s);
}

/* 2^up e^x for x <= 0 or NaN: a power that is normal all the way down. */
static R exp_lifted(const zn_mx *m, R x, int up) {
  R n, low = zn_mx_k(m, m->k->exp_min);
  x = zn_mx_bin(m, ZN_K_Max, low, x);
  R q = reduce(m, x, &n);
  n = zn_mx_bini(m, ZN_K_Add, n, up);
  R s = zn_mx_pow2(m, n);
  return zn_mx_fma(m, s, q, s);
}

/* e^x for x <= 0 or NaN: one scaling back is exact, or the only rounding. */
static R exp_nonpositive(const zn_mx *m, R x) {
  const double up = zn_exp_scale(m->k->t);
  return zn_mx_bink(m, ZN_K_Mul, exp_lifted(m, x, ilogb(up)), 1 / up);
}

R zn_math_scaled_exp(const zn_mx *m, R x, R scale) {
  double c = 0;
  if (!zn_kf_const_float(m->b->f, scale, &c)) return zn_mx_bin(m, ZN_K_Mul, zn_math_exp(m, x), scale);
  return exp_lifted(m, x, ilogb(c));
}

/* Is x visibly not positive: a minimum with a constant that is not, or a negated magnitude? */
static bool nonpositive(const zn_mx *m, R x) {
  const zn_kfunc *f = m->b->f;
  const zn_kinst *in = &f->insts[x];
  double c;
  if (in->op == ZN_K_Min) return zn_kf_const_float(f, in->a, &c) && c <= 0;
  return in->op == ZN_K_Neg && f->insts[in->a].op == ZN_K_Abs;
}

R zn_math_exp(const zn_mx *m, R x) {
  R n;
  if (nonpositive(m, x)) return exp_nonpositive(m, x);
  x = clamp(m, x, m->k->exp_min, m->k->exp_max);
  R q = reduce(m, x, &n), p = zn_mx_bink(m, ZN_K_Add, q, 1);
  R half = zn_mx_bini(m, ZN_K_Shr, n, 1), rest = zn_mx_bin(m, ZN_K_Sub, n, half);
  R s = zn_mx_pow2(m, half), u = zn_mx_pow2(m, rest);
  p = zn_mx_bin(m, ZN_K_Mul, p, s);
  return zn_mx_bin(m, ZN_K_Mul, p, u);
}

/* (e^x - 1) / 2^down */
static R expm1_scaled(const zn_mx *m, R x, int down) {
  R n;
  x = clamp(m, x, -(m->k->mant + 2) * 0.7, m->k->exp_max + 0.5);
  R q = reduce(m, x, &n);
  n = zn_mx_bini(m, ZN_K_Sub, n, down);
  R s = zn_mx_pow2(m, n), t = zn_mx_bink(m, ZN_K_Sub, s, ldexp(1, -down));
  return zn_mx_fma(m, s, q, t);
}

/* (e^x - 1) / 2, overflowing only where that does */
static R expm1_half(const zn_mx *m, R x) {
  R h = expm1_scaled(m, x, 2);
  return zn_mx_bin(m, ZN_K_Add, h, h);
}

/* ---- logarithms ---- */

/* bits of u -> exponent e and the bits of u / 2^e in [2/3, 4/3). */
static R split(const zn_mx *m, R bits, R *out_mant) {
  R d = zn_mx_bini(m, ZN_K_Sub, bits, m->k->two_thirds);
  R e = zn_mx_bini(m, ZN_K_Shr, d, m->k->mant), back = zn_mx_bini(m, ZN_K_Shl, e, m->k->mant);
  *out_mant = zn_mx_bin(m, ZN_K_Sub, bits, back);
  return e;
}

/* A small integer as a float, without a conversion instruction. */
static R small_float(const zn_mx *m, R e) {
  R i = zn_mx_bini(m, ZN_K_Add, e, m->k->magic_bits), f = zn_mx_unbits(m, i);
  return zn_mx_bink(m, ZN_K_Sub, f, m->k->magic);
}

/* e ln 2 + log(1 + f) */
static R log_sum(const zn_mx *m, R e, R f) {
  const zn_math_format *k = m->k;
  R t;
  e = small_float(m, e);
  if (k->log.n) {
    R p = zn_mx_poly(m, k->log, f), f2 = zn_mx_bin(m, ZN_K_Mul, f, f),
      lo = zn_mx_bink(m, ZN_K_Mul, e, k->ln2_lo);
    t = zn_mx_fma(m, f2, p, lo);
  } else { /* s = f / (2 + f), log(1 + f) = f - s (f - s^2 Q(s^2)) */
    R den = zn_mx_bink(m, ZN_K_Add, f, 2), s = zn_mx_bin(m, ZN_K_Div, f, den);
    R z = zn_mx_bin(m, ZN_K_Mul, s, s), q = zn_mx_poly(m, k->logs, z);
    q = zn_mx_bin(m, ZN_K_Mul, z, q);
    q = zn_mx_bin(m, ZN_K_Sub, q, f);
    q = zn_mx_bin(m, ZN_K_Mul, s, q);
    t = zn_mx_fmak(m, e, k->ln2_lo, q);
  }
  f = zn_mx_bin(m, ZN_K_Add, f, t);
  return zn_mx_fmak(m, e, k->ln2_hi, f);
}

/* y where edge < x < inf; -inf at edge, NaN below, x itself for inf, NaN. */
static R log_edges(const zn_mx *m, R x, double edge, R y) {
  R below = zn_mx_cmpk(m, ZN_K_Lt, x, edge), at = zn_mx_cmpk(m, ZN_K_Eq, x, edge);
  R above = zn_mx_cmpk(m, ZN_K_Gt, x, edge), fin = zn_mx_cmpk(m, ZN_K_Lt, x, (double)INFINITY);
  R in = zn_mx_bin(m, ZN_K_And, above, fin);
  R special = zn_mx_selk(m, below, (double)NAN, x);
  special = zn_mx_selk(m, at, -(double)INFINITY, special);
  return zn_kb_select(m->b, in, y, special);
}

R zn_math_log(const zn_mx *m, R x) {
  const zn_math_format *k = m->k;
  R tiny = zn_mx_cmpk(m, ZN_K_Lt, x, k->min_normal), up = zn_mx_bink(m, ZN_K_Mul, x, k->up);
  R v = zn_kb_select(m->b, tiny, up, x), bits = zn_mx_bits(m, v), mant;
  R e = split(m, bits, &mant), down = zn_mx_bini(m, ZN_K_Sub, e, k->mant);
  e = zn_kb_select(m->b, tiny, down, e);
  R f = zn_mx_unbits(m, mant);
  f = zn_mx_bink(m, ZN_K_Sub, f, 1);
  return log_edges(m, x, 0, log_sum(m, e, f));
}

/* log(1 + x) + extra ln 2: u = 1 + x gives the exponent, f = x / 2^e - (1 - 1 / 2^e) loses nothing
 * of x. */
static R log1p_plus(const zn_mx *m, R x, R extra) {
  const zn_math_format *k = m->k;
  R u = zn_mx_bink(m, ZN_K_Add, x, 1), bits = zn_mx_bits(m, u), mant, e = split(m, bits, &mant);
  R f = zn_mx_unbits(m, mant);
  f = zn_mx_bink(m, ZN_K_Sub, f, 1);
  R zero = zn_mx_ki(m, k->it, 0), minus = zn_mx_bin(m, ZN_K_Sub, zero, e), s = zn_mx_pow2(m, minus);
  R s1 = zn_mx_bink(m, ZN_K_Sub, s, 1), g = zn_mx_fma(m, x, s, s1);
  R most = zn_mx_ki(m, k->it, k->mant + 2), huge = zn_kb_cmp(m->b, ZN_K_Gt, e, most);
  f = zn_kb_select(m->b, huge, f, g);
  if (extra) e = zn_mx_bin(m, ZN_K_Add, e, extra);
  return log_edges(m, x, -1, log_sum(m, e, f));
}

/* x itself where |x| is so small that f(x) = x; keeps signed zeros and subnormals. */
static R keep_tiny(const zn_mx *m, R x, R y) {
  R a = zn_kb_un(m->b, ZN_K_Abs, x);
  R tiny = zn_mx_cmpk(m, ZN_K_Lt, a, ldexp(1, -m->k->mant - 3));
  return zn_kb_select(m->b, tiny, x, y);
}

R zn_math_log1p(const zn_mx *m, R x) { return keep_tiny(m, x, log1p_plus(m, x, 0)); }

/* ---- hyperbolic functions ---- */

/* t = e / (e + 1) as e - e t where e is small: the rounding of e + 1 then matters little. */
static R quotient(const zn_mx *m, R e, R t) {
  R small = zn_mx_cmpk(m, ZN_K_Lt, e, 0.5), minus = zn_kb_un(m->b, ZN_K_Neg, t),
    r = zn_mx_fma(m, e, minus, e);
  return zn_kb_select(m->b, small, r, t);
}

/* h / (h + 1) with h = (e^2|x| - 1) / 2 */
static R tanh_(const zn_mx *m, R x) {
  R a = zn_kb_un(m->b, ZN_K_Abs, x), twice = zn_mx_bin(m, ZN_K_Add, a, a);
  R most = zn_mx_k(m, (m->k->mant + 3) * 0.7);
  twice = zn_mx_bin(m, ZN_K_Min, most, twice);
  R h = expm1_scaled(m, twice, 1), d = zn_mx_bink(m, ZN_K_Add, h, 1),
    r = zn_mx_bin(m, ZN_K_Div, h, d);
  r = quotient(m, h, r);
  return zn_mx_bin(m, ZN_K_CopySign, r, x);
}

/* h + h / (2 h + 1) with h = (e^|x| - 1) / 2 */
static R sinh_(const zn_mx *m, R x) {
  R a = zn_kb_un(m->b, ZN_K_Abs, x), h = expm1_half(m, a), top = zn_mx_k(m, m->k->up);
  R g = zn_mx_bin(m, ZN_K_Min, top, h), d = zn_mx_bin(m, ZN_K_Add, g, g);
  d = zn_mx_bink(m, ZN_K_Add, d, 1);
  R q = zn_mx_bin(m, ZN_K_Div, g, d), r = zn_mx_bin(m, ZN_K_Add, h, q);
  r = zn_mx_bin(m, ZN_K_CopySign, r, x);
  return keep_tiny(m, x, r);
}

/* E + 1 / (4 E) with E = e^|x| / 2 */
static R cosh_(const zn_mx *m, R x) {
  R a = zn_kb_un(m->b, ZN_K_Abs, x), n, top = zn_mx_k(m, m->k->exp_max + 1);
  a = zn_mx_bin(m, ZN_K_Min, top, a);
  R q = reduce(m, a, &n), p = zn_mx_bink(m, ZN_K_Add, q, 1);
  n = zn_mx_bini(m, ZN_K_Sub, n, 2);
  R s = zn_mx_pow2(m, n), e = zn_mx_bin(m, ZN_K_Mul, p, s);
  e = zn_mx_bin(m, ZN_K_Add, e, e);
  R quarter = zn_mx_k(m, 0.25), r = zn_mx_bin(m, ZN_K_Div, quarter, e);
  return zn_mx_bin(m, ZN_K_Add, e, r);
}

/* log1p(z) or, for large arguments, log(a) + ln 2 */
static R log_large(const zn_mx *m, R a, R z) {
  R large = zn_mx_cmpk(m, ZN_K_Gt, a, ldexp(1, m->k->mant + 5));
  R one = zn_mx_ki(m, m->k->it, 1), zero = zn_mx_ki(m, m->k->it, 0),
    extra = zn_kb_select(m->b, large, one, zero);
  z = zn_kb_select(m->b, large, a, z);
  return log1p_plus(m, z, extra);
}

/* log1p(a + a^2 / (1 + sqrt(1 + a^2))) */
static R asinh_(const zn_mx *m, R x) {
  R a = zn_kb_un(m->b, ZN_K_Abs, x), a2 = zn_mx_bin(m, ZN_K_Mul, a, a),
    d = zn_mx_bink(m, ZN_K_Add, a2, 1);
  d = zn_kb_un(m->b, ZN_K_Sqrt, d);
  d = zn_mx_bink(m, ZN_K_Add, d, 1);
  R q = zn_mx_bin(m, ZN_K_Div, a2, d), z = zn_mx_bin(m, ZN_K_Add, a, q), r = log_large(m, a, z);
  r = zn_mx_bin(m, ZN_K_CopySign, r, x);
  return keep_tiny(m, x, r);
}

/* t = x - 1: log1p(t + sqrt(t (t + 2))) */
static R acosh_(const zn_mx *m, R x) {
  R t = zn_mx_bink(m, ZN_K_Sub, x, 1), t2 = zn_mx_bink(m, ZN_K_Add, t, 2),
    d = zn_mx_bin(m, ZN_K_Mul, t, t2);
  d = zn_kb_un(m->b, ZN_K_Sqrt, d);
  R z = zn_mx_bin(m, ZN_K_Add, t, d), r = log_large(m, x, z), low = zn_mx_cmpk(m, ZN_K_Lt, x, 1);
  return zn_mx_selk(m, low, (double)NAN, r);
}

/* log1p(2 a / (1 - a)) / 2 */
static R atanh_(const zn_mx *m, R x) {
  R a = zn_kb_un(m->b, ZN_K_Abs, x), one = zn_mx_k(m, 1), d = zn_mx_bin(m, ZN_K_Sub, one, a);
  R n = zn_mx_bin(m, ZN_K_Add, a, a), q = zn_mx_bin(m, ZN_K_Div, n, d), r = log1p_plus(m, q, 0);
  r = zn_mx_bink(m, ZN_K_Mul, r, 0.5);
  r = zn_mx_bin(m, ZN_K_CopySign, r, x);
  return keep_tiny(m, x, r);
}

/* e = exp(-|x|): x < 0 ? e / (1 + e) : 1 / (1 + e) */
static R sigmoid_(const zn_mx *m, R x) {
  R a = zn_kb_un(m->b, ZN_K_Abs, x), minus = zn_kb_un(m->b, ZN_K_Neg, a), e = zn_math_exp(m, minus);
  R neg = zn_mx_cmpk(m, ZN_K_Lt, x, 0), num = zn_mx_selr(m, neg, e, 1);
  R den = zn_mx_bink(m, ZN_K_Add, e, 1);
  R t = zn_mx_bin(m, ZN_K_Div, num, den), q = quotient(m, e, t);
  return zn_kb_select(m->b, neg, q, t);
}

R zn_math_hyperbolic(const zn_mx *m, zn_kop op, R x) {
  switch ((int)op) {
  case ZN_K_Expm1: {
    R h = expm1_half(m, x), r = zn_mx_bin(m, ZN_K_Add, h, h);
    return keep_tiny(m, x, r);
  }
  case ZN_K_Sinh: return sinh_(m, x);
  case ZN_K_Cosh: return cosh_(m, x);
  case ZN_K_Tanh: return tanh_(m, x);
  case ZN_K_Asinh: return asinh_(m, x);
  case ZN_K_Acosh: return acosh_(m, x);
  case ZN_K_Atanh: return atanh_(m, x);
  default: return sigmoid_(m, x);
  }
}

/* ---- erf ---- */

/* 1 - erfc(a), 1 <= a <= 6 */
static R erf_tail(const zn_mx *m, R a) {
  const zn_math_format *k = m->k;
  R e, c, top = zn_mx_k(m, k->erfl.n ? 4 : 6);
  a = zn_mx_bin(m, ZN_K_Min, top, a);
  R u = zn_mx_bink(m, ZN_K_Sub, a, 2);
  if (k->erfl.n) {
    R low = zn_mx_k(m, -1);
    u = zn_mx_bin(m, ZN_K_Max, low, u); /* keeps the exponential a normal number for every a */
    e = zn_mx_poly(m, k->erfl, u);
    c = exp_small(m, e);
  } else {
    R d = zn_mx_bink(m, ZN_K_Add, a, 2), t = zn_mx_bin(m, ZN_K_Div, u, d),
      p = zn_mx_poly(m, k->erfc, t);
    e = zn_mx_bin(m, ZN_K_Mul, a, a);
    e = zn_kb_un(m->b, ZN_K_Neg, e);
    e = exp_small(m, e);
    c = zn_mx_bin(m, ZN_K_Mul, e, p);
  }
  R one = zn_mx_k(m, 1);
  return zn_mx_bin(m, ZN_K_Sub, one, c);
}

R zn_math_erf(const zn_mx *m, R x) {
  R a = zn_kb_un(m->b, ZN_K_Abs, x), z = zn_mx_bin(m, ZN_K_Mul, x, x);
  R p = zn_mx_poly(m, m->k->erf, z), near = zn_mx_fma(m, a, p, a);
  R far = erf_tail(m, a), is_near = zn_mx_cmpk(m, ZN_K_Lt, a, 1),
    r = zn_kb_select(m->b, is_near, near, far);
  return zn_mx_bin(m, ZN_K_CopySign, r, x);
}

/* The quotient passes 1 between 3.9 and 4.1 and grows with x from there on, so that the clamp makes it 1. */
R zn_math_erf_absolute(const zn_mx *m, R x) {
  R z = zn_mx_bin(m, ZN_K_Mul, x, x), top = zn_mx_k(m, 4.1 * 4.1);
  z = zn_mx_bin(m, ZN_K_Min, top, z);
  R p = zn_mx_poly(m, m->k->erfp, z), q = zn_mx_poly(m, m->k->erfq, z);
  p = zn_mx_bin(m, ZN_K_Mul, x, p);
  return clamp(m, zn_mx_bin(m, ZN_K_Div, p, q), -1, 1);
}

/* 1 - 2 / (e^2x + 1) */
R zn_math_tanh_absolute(const zn_mx *m, R x) {
  x = clamp(m, x, -10, 10);
  R e = exp_small(m, zn_mx_bin(m, ZN_K_Add, x, x)), two = zn_mx_k(m, 2);
  R d = zn_mx_bink(m, ZN_K_Add, e, 1), one = zn_mx_k(m, 1);
  d = zn_mx_bin(m, ZN_K_Div, two, d);
  return zn_mx_bin(m, ZN_K_Sub, one, d);
}
