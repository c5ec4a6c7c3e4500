/* Circular functions and their inverses. Arguments up to trig_max are reduced with pi/2 in parts
 * whose products are exact; beyond, behind a branch that is almost never taken, by integer
 * multiplication with the bits of 2/pi, which is exact for every finite argument. */
#include <math.h>

#include "codegen/kir/math.h"

/* Any lane true, as a scalar bool. */
static R any_lane(const zn_mx *m, R cond) {
  if (m->lanes == 1) return cond;
  R r = 0;
  if ((m->lanes & (m->lanes - 1)) == 0) {
    R v = zn_kb_cvt(m->b, cond, ZN_I32);
    r = zn_kb_un(m->b, ZN_K_ReduceMax, v);
    return zn_kb_cvt(m->b, r, ZN_BOOL);
  }
  for (unsigned i = 0; i < m->lanes; i++) {
    R e = zn_kb_extract(m->b, cond, i);
    r = r ? zn_kb_bin(m->b, ZN_K_Or, r, e) : e;
  }
  return r;
}

/* ---- large arguments ---- */

static R u64k(const zn_mx *m, int64_t v) { return zn_mx_ki(m, ZN_U64, v); }

/* High 64 bits of x * y. */
static R mul_high(const zn_mx *m, R x, R y) {
  R mask = u64k(m, 0xffffffff), s = u64k(m, 32);
  R xl = zn_mx_bin(m, ZN_K_And, x, mask), xh = zn_mx_bin(m, ZN_K_Shr, x, s);
  R yl = zn_mx_bin(m, ZN_K_And, y, mask), yh = zn_mx_bin(m, ZN_K_Shr, y, s);
  R ll = zn_mx_bin(m, ZN_K_Mul, xl, yl), lh = zn_mx_bin(m, ZN_K_Mul, xl, yh);
  R hl = zn_mx_bin(m, ZN_K_Mul, xh, yl), hh = zn_mx_bin(m, ZN_K_Mul, xh, yh);
  R c = zn_mx_bin(m, ZN_K_Shr, ll, s), t = zn_mx_bin(m, ZN_K_Add, hl, c);
  R tl = zn_mx_bin(m, ZN_K_And, t, mask), th = zn_mx_bin(m, ZN_K_Shr, t, s);
  R w = zn_mx_bin(m, ZN_K_Add, lh, tl), wh = zn_mx_bin(m, ZN_K_Shr, w, s),
    r = zn_mx_bin(m, ZN_K_Add, hh, th);
  return zn_mx_bin(m, ZN_K_Add, r, wh);
}

static R pi_table(const zn_mx *m) {
  if (*m->pi_const == UINT32_MAX)
    *m->pi_const = zn_kmod_add_const(m->b->mod, "zn_two_over_pi", ZN_U64, 22, zn_math_two_over_pi);
  return zn_kb_constaddr(m->b, *m->pi_const);
}

/* 192 bits of 2/pi that matter for exponent e (biased, f64): the words in w[0..2], first the
 * highest. */
static void pi_window(const zn_mx *m, R e, R *w) {
  zn_kb *b = m->b;
  R table = pi_table(m), off = zn_mx_bini(m, ZN_K_Sub, e, 1075 + 2 - 64);
  off = zn_kb_cvt(b, off, ZN_IDX);
  R lo = zn_mx_ki(m, ZN_IDX, 0), hi = zn_mx_ki(m, ZN_IDX, 1040);
  off = zn_kb_bin(b, ZN_K_Max, lo, off);
  off = zn_kb_bin(b, ZN_K_Min, hi, off);
  R at = zn_mx_bini(m, ZN_K_Shr, off, 6), bit = zn_mx_bini(m, ZN_K_And, off, 63);
  bit = zn_kb_cvt(b, bit, ZN_U64);
  R full = u64k(m, 64), other = zn_kb_bin(b, ZN_K_Sub, full, bit);
  R word = zn_kb_load(b, ZN_U64, m->lanes, table, at);
  for (int i = 0; i < 3; i++) {
    R high = zn_kb_bin(b, ZN_K_Shl, word, bit);
    at = zn_mx_bini(m, ZN_K_Add, at, 1);
    word = zn_kb_load(b, ZN_U64, m->lanes, table, at);
    R low = zn_kb_bin(b, ZN_K_Shr, word, other);
    w[i] = zn_kb_bin(b, ZN_K_Or, high, low);
  }
}

/* |x| = n pi/2 + r for any finite x; n as i64 (mod 4), r as f64. */
static R reduce_large(const zn_mx *m, R x, R *out_n) {
  zn_kb *b = m->b;
  R d = zn_kb_cvt(b, x, ZN_F64), bits = zn_kb_bitcast(b, d, ZN_U64), w[3];
  R e = zn_mx_bini(m, ZN_K_Shr, bits, 52), frac = zn_mx_bini(m, ZN_K_And, bits, 0xfffffffffffff);
  e = zn_mx_bini(m, ZN_K_And, e, 0x7ff);
  e = zn_kb_cvt(b, e, ZN_I64);
  R sig = zn_mx_bini(m, ZN_K_Or, frac, 0x10000000000000);
  pi_window(m, e, w);
  R a = zn_kb_bin(b, ZN_K_Mul, sig, w[0]), mid = zn_kb_bin(b, ZN_K_Mul, sig, w[1]);
  R mid_hi = mul_high(m, sig, w[1]), low_hi = mul_high(m, sig, w[2]);
  R lo = zn_kb_bin(b, ZN_K_Add, mid, low_hi), carry = zn_kb_cmp(b, ZN_K_Lt, lo, mid);
  carry = zn_kb_cvt(b, carry, ZN_U64);
  R hi = zn_kb_bin(b, ZN_K_Add, a, mid_hi);
  hi = zn_kb_bin(b, ZN_K_Add, hi, carry);
  /* hi:lo / 2^126 is |x| 2/pi mod 4 */
  R up = zn_mx_bini(m, ZN_K_Add, hi, (int64_t)1 << 61), n = zn_mx_bini(m, ZN_K_Shr, up, 62);
  R whole = zn_mx_bini(m, ZN_K_Shl, n, 62), rest = zn_kb_bin(b, ZN_K_Sub, hi, whole);
  rest = zn_kb_bitcast(b, rest, ZN_I64);
  *out_n = zn_kb_bitcast(b, n, ZN_I64);
  lo = zn_mx_bini(m, ZN_K_Shr, lo, 11);
  lo = zn_kb_bitcast(b, lo, ZN_I64);
  zn_mx q = *m;
  q.k = &zn_math_f64;
  R rh = zn_kb_cvt(b, rest, ZN_F64), rl = zn_kb_cvt(b, lo, ZN_F64);
  rl = zn_mx_bink(&q, ZN_K_Mul, rl, 0x1p-53);
  R r = zn_kb_bin(b, ZN_K_Add, rh, rl);
  return zn_mx_bink(&q, ZN_K_Mul, r, 1.5707963267948966 * 0x1p-62);
}

/* ---- sin cos tan ---- */

/* Reduction in m's own type: n in the integer type. */
static R reduce_parts(const zn_mx *m, R x, R *out_n) {
  const zn_math_format *k = m->k;
  R mg = zn_mx_k(m, k->magic), t = zn_mx_fmak(m, x, k->two_over_pi, mg),
    f = zn_mx_bin(m, ZN_K_Sub, t, mg);
  R i = zn_mx_bits(m, t);
  *out_n = zn_mx_bini(m, ZN_K_Sub, i, k->magic_bits);
  for (int p = 0; p < 4 && k->pio2_part[p] != 0; p++) x = zn_mx_fmak(m, f, -k->pio2_part[p], x);
  return x;
}

/* x = n pi/2 + r, |r| <= pi/4, for all finite x; n in the integer type of the format. */
static R reduce(const zn_mx *m, R x, R *out_n) {
  zn_kb *b = m->b;
  R r, n, a = zn_kb_un(b, ZN_K_Abs, x);
  double most = m->k->trig_max;
  if (m->k->t == ZN_F32 && m->caps->f64_native) {
    zn_mx q = *m;
    q.k = &zn_math_f64;
    most = q.k->trig_max;
    R d = zn_kb_cvt(b, x, ZN_F64);
    r = reduce_parts(&q, d, &n);
    r = zn_kb_cvt(b, r, ZN_F32);
    n = zn_kb_cvt(b, n, ZN_I32);
  } else
    r = reduce_parts(m, x, &n);
  R rv = zn_kb_var(b, r), nv = zn_kb_var(b, n);
  R big = zn_mx_cmpk(m, ZN_K_Gt, a, most), fin = zn_mx_cmpk(m, ZN_K_Lt, a, (double)INFINITY);
  big = zn_kb_bin(b, ZN_K_And, big, fin);
  R any = any_lane(m, big);
  zn_kb_if(b, any);
  R ln, lr = reduce_large(m, x, &ln), zero = zn_mx_ki(m, ZN_I64, 0),
        minus_n = zn_kb_bin(b, ZN_K_Sub, zero, ln);
  R neg = zn_mx_cmpk(m, ZN_K_Lt, x, 0), minus_r = zn_kb_un(b, ZN_K_Neg, lr);
  lr = zn_kb_select(b, neg, minus_r, lr);
  ln = zn_kb_select(b, neg, minus_n, ln);
  lr = zn_kb_cvt(b, lr, m->k->t);
  ln = zn_kb_cvt(b, ln, m->k->it);
  lr = zn_kb_select(b, big, lr, r);
  ln = zn_kb_select(b, big, ln, n);
  zn_kb_set(b, rv, lr);
  zn_kb_set(b, nv, ln);
  zn_kb_end(b);
  *out_n = zn_kb_get(b, nv);
  return zn_kb_get(b, rv);
}

R zn_math_circular(const zn_mx *m, zn_kop op, R x) {
  const zn_math_format *k = m->k;
  R n, r = reduce(m, x, &n), z = zn_mx_bin(m, ZN_K_Mul, r, r);
  R ps = zn_mx_poly(m, k->sin, z), rz = zn_mx_bin(m, ZN_K_Mul, r, z), s = zn_mx_fma(m, rz, ps, r);
  /* w = 1 - z/2 with the error of that subtraction added back */
  R pc = zn_mx_poly(m, k->cos, z), z2 = zn_mx_bin(m, ZN_K_Mul, z, z),
    h = zn_mx_bink(m, ZN_K_Mul, z, 0.5);
  R one = zn_mx_k(m, 1), w = zn_mx_bin(m, ZN_K_Sub, one, h), e = zn_mx_bin(m, ZN_K_Sub, one, w);
  e = zn_mx_bin(m, ZN_K_Sub, e, h);
  e = zn_mx_fma(m, z2, pc, e);
  R c = zn_mx_bin(m, ZN_K_Add, w, e);
  int sign_at = k->t == ZN_F32 ? 30 : 62;
  if (op == ZN_K_Cos) n = zn_mx_bini(m, ZN_K_Add, n, 1);
  R odd_bit = zn_mx_bini(m, ZN_K_And, n, 1), zero = zn_mx_ki(m, k->it, 0);
  R odd = zn_kb_cmp(m->b, ZN_K_Ne, odd_bit, zero), y = zn_kb_select(m->b, odd, c, s);
  if (op == ZN_K_Tan) {
    R d = zn_kb_select(m->b, odd, s, c), flip = zn_mx_bini(m, ZN_K_Shl, odd_bit, sign_at + 1);
    y = zn_mx_bin(m, ZN_K_Div, y, d);
    y = zn_mx_flip(m, y, flip);
  } else {
    R two = zn_mx_bini(m, ZN_K_And, n, 2), flip = zn_mx_bini(m, ZN_K_Shl, two, sign_at);
    y = zn_mx_flip(m, y, flip);
  }
  if (op == ZN_K_Cos) return y;
  R is_zero = zn_mx_cmpk(m, ZN_K_Eq, x, 0);
  return zn_kb_select(m->b, is_zero, x, y);
}

/* ---- inverse functions ---- */

/* t + t z P(z) */
static R odd_poly(const zn_mx *m, zn_math_poly p, R t, R z) {
  R q = zn_mx_poly(m, p, z), tz = zn_mx_bin(m, ZN_K_Mul, t, z);
  return zn_mx_fma(m, tz, q, t);
}

/* Three ranges in one division: a, (a - 1)/(a + 1), -1/a with pi/4 or pi/2 added. */
static R atan_(const zn_mx *m, R x) {
  const zn_math_format *k = m->k;
  R a = zn_kb_un(m->b, ZN_K_Abs, x), far = zn_mx_cmpk(m, ZN_K_Gt, a, 2.414213562373095);
  R mid = zn_mx_cmpk(m, ZN_K_Gt, a, 0.4142135623730951);
  R less = zn_mx_bink(m, ZN_K_Sub, a, 1), more = zn_mx_bink(m, ZN_K_Add, a, 1);
  R num = zn_kb_select(m->b, mid, less, a), den = zn_mx_selr(m, mid, more, 1);
  num = zn_mx_selk(m, far, -1, num);
  den = zn_kb_select(m->b, far, a, den);
  R t = zn_mx_bin(m, ZN_K_Div, num, den), z = zn_mx_bin(m, ZN_K_Mul, t, t);
  R none = zn_mx_k(m, 0), hi = zn_mx_selk(m, mid, k->pio2_hi / 2, none),
    lo = zn_mx_selk(m, mid, k->pio2_lo / 2, none);
  hi = zn_mx_selk(m, far, k->pio2_hi, hi);
  lo = zn_mx_selk(m, far, k->pio2_lo, lo);
  R q = zn_mx_poly(m, k->atan, z), tz = zn_mx_bin(m, ZN_K_Mul, t, z), s = zn_mx_fma(m, tz, q, lo);
  s = zn_mx_bin(m, ZN_K_Add, t, s);
  s = zn_mx_bin(m, ZN_K_Add, hi, s);
  return zn_mx_bin(m, ZN_K_CopySign, s, x);
}

/* a > 1/2: through the square root of (1 - a)/2; p = asin of that, or of a. */
static R asin_acos(const zn_mx *m, R x, bool cosine) {
  const zn_math_format *k = m->k;
  R a = zn_kb_un(m->b, ZN_K_Abs, x), big = zn_mx_cmpk(m, ZN_K_Gt, a, 0.5), one = zn_mx_k(m, 1);
  R h = zn_mx_bin(m, ZN_K_Sub, one, a), a2 = zn_mx_bin(m, ZN_K_Mul, a, a);
  h = zn_mx_bink(m, ZN_K_Mul, h, 0.5);
  R root = zn_kb_un(m->b, ZN_K_Sqrt, h), t = zn_kb_select(m->b, big, root, a),
    z = zn_kb_select(m->b, big, h, a2);
  R p = odd_poly(m, k->asin, t, z), p2 = zn_mx_bin(m, ZN_K_Add, p, p);
  R lo = zn_mx_k(m, k->pio2_lo), hi = zn_mx_k(m, k->pio2_hi);
  if (!cosine) { /* pi/2 - 2p */
    R r = zn_mx_bin(m, ZN_K_Sub, lo, p2);
    r = zn_mx_bin(m, ZN_K_Add, hi, r);
    r = zn_kb_select(m->b, big, r, p);
    return zn_mx_bin(m, ZN_K_CopySign, r, x);
  }
  /* x > 1/2: 2p;  x < -1/2: pi - 2p;  else pi/2 - p with the sign of x */
  R neg = zn_mx_cmpk(m, ZN_K_Lt, x, 0), sp = zn_mx_bin(m, ZN_K_CopySign, p, x);
  R near = zn_mx_bin(m, ZN_K_Sub, lo, sp), pi_lo = zn_mx_k(m, 2 * k->pio2_lo),
    left = zn_mx_bin(m, ZN_K_Sub, pi_lo, p2);
  near = zn_mx_bin(m, ZN_K_Add, hi, near);
  left = zn_mx_bink(m, ZN_K_Add, left, 2 * k->pio2_hi);
  R far = zn_kb_select(m->b, neg, left, p2);
  return zn_kb_select(m->b, big, far, near);
}

R zn_math_arc(const zn_mx *m, zn_kop op, R x) {
  return op == ZN_K_Atan ? atan_(m, x) : asin_acos(m, x, op == ZN_K_Acos);
}
