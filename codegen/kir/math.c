/* The vocabulary the mathematical functions are written in, rounding to integers, and the dispatch.
 */
#include "codegen/kir/math.h"

R zn_mx_k(const zn_mx *m, double v) {
  R r = zn_kb_float(m->b, m->k->t, v);
  return zn_kb_splat(m->b, r, m->lanes);
}

R zn_mx_ki(const zn_mx *m, zn_dtype t, int64_t v) {
  R r = zn_kb_int(m->b, t, v);
  return zn_kb_splat(m->b, r, m->lanes);
}

R zn_mx_bin(const zn_mx *m, zn_kop op, R x, R y) { return zn_kb_bin(m->b, op, x, y); }

R zn_mx_bink(const zn_mx *m, zn_kop op, R x, double v) {
  R k = zn_mx_k(m, v);
  return zn_kb_bin(m->b, op, x, k);
}

R zn_mx_bini(const zn_mx *m, zn_kop op, R x, int64_t v) {
  R k = zn_mx_ki(m, zn_kf_dtype(m->b->f, x), v);
  return zn_kb_bin(m->b, op, x, k);
}

bool zn_mx_fused(const zn_mx *m) {
  return m->caps->fma && (m->k->t == ZN_F32 || m->caps->f64_native);
}

R zn_mx_fma(const zn_mx *m, R x, R y, R z) {
  if (zn_mx_fused(m)) return zn_kb_fma(m->b, x, y, z);
  R p = zn_kb_bin(m->b, ZN_K_Mul, x, y);
  return zn_kb_bin(m->b, ZN_K_Add, p, z);
}

R zn_mx_fmak(const zn_mx *m, R x, double y, R z) {
  R k = zn_mx_k(m, y);
  return zn_mx_fma(m, x, k, z);
}

R zn_mx_fmac(const zn_mx *m, R x, R y, double z) {
  R k = zn_mx_k(m, z);
  return zn_mx_fma(m, x, y, k);
}

R zn_mx_cmpk(const zn_mx *m, zn_kop op, R x, double v) {
  R k = zn_mx_k(m, v);
  return zn_kb_cmp(m->b, op, x, k);
}

R zn_mx_selk(const zn_mx *m, R cond, double v, R y) {
  R k = zn_mx_k(m, v);
  return zn_kb_select(m->b, cond, k, y);
}

R zn_mx_selr(const zn_mx *m, R cond, R x, double v) {
  R k = zn_mx_k(m, v);
  return zn_kb_select(m->b, cond, x, k);
}

R zn_mx_poly(const zn_mx *m, zn_math_poly p, R x) {
  R r = zn_mx_k(m, p.c[p.n - 1]);
  for (int i = p.n - 2; i >= 0; i--) r = zn_mx_fmac(m, r, x, p.c[i]);
  return r;
}

R zn_mx_poly_pairs(const zn_mx *m, zn_math_poly p, R x, R x2) {
  int i = (p.n - 1) / 2 * 2;
  R r = i + 1 < p.n ? zn_mx_fmak(m, x, p.c[i + 1], zn_mx_k(m, p.c[i])) : zn_mx_k(m, p.c[i]);
  for (i -= 2; i >= 0; i -= 2) {
    R pair = zn_mx_fmak(m, x, p.c[i + 1], zn_mx_k(m, p.c[i]));
    r = zn_mx_fma(m, r, x2, pair);
  }
  return r;
}

R zn_mx_bits(const zn_mx *m, R x) { return zn_kb_bitcast(m->b, x, m->k->it); }
R zn_mx_unbits(const zn_mx *m, R x) { return zn_kb_bitcast(m->b, x, m->k->t); }

R zn_mx_pow2(const zn_mx *m, R n) {
  R e = zn_mx_bini(m, ZN_K_Add, n, m->k->bias);
  e = zn_mx_bini(m, ZN_K_Shl, e, m->k->mant);
  return zn_mx_unbits(m, e);
}

R zn_mx_flip(const zn_mx *m, R x, R sign_bits) {
  R i = zn_mx_bits(m, x);
  i = zn_mx_bin(m, ZN_K_Xor, i, sign_bits);
  return zn_mx_unbits(m, i);
}

/* Adding and subtracting 2^mant rounds |x| < 2^mant to an integer; one step corrects the direction.
 */
R zn_math_round(const zn_mx *m, zn_kop op, R x) {
  R a = zn_kb_un(m->b, ZN_K_Abs, x);
  R r = zn_mx_bink(m, ZN_K_Add, a, m->k->up);
  r = zn_mx_bink(m, ZN_K_Sub, r, m->k->up);
  if (op == ZN_K_Trunc) {
    R over = zn_kb_cmp(m->b, ZN_K_Gt, r, a), less = zn_mx_bink(m, ZN_K_Sub, r, 1);
    r = zn_kb_select(m->b, over, less, r);
  }
  r = zn_mx_bin(m, ZN_K_CopySign, r, x);
  if (op == ZN_K_Floor || op == ZN_K_Ceil) {
    bool down = op == ZN_K_Floor;
    R wrong = zn_kb_cmp(m->b, down ? ZN_K_Gt : ZN_K_Lt, r, x);
    R fixed = zn_mx_bink(m, down ? ZN_K_Sub : ZN_K_Add, r, 1);
    r = zn_kb_select(m->b, wrong, fixed, r);
    r = zn_mx_bin(m, ZN_K_CopySign, r, x);
  }
  R small = zn_mx_cmpk(m, ZN_K_Lt, a, m->k->up);
  return zn_kb_select(m->b, small, r, x);
}

R zn_math_expand(const zn_mx *m, zn_kop op, R x, R y) {
  switch ((int)op) {
  case ZN_K_Exp: return zn_math_exp(m, x);
  case ZN_K_Log: return zn_math_log(m, x);
  case ZN_K_Log1p: return zn_math_log1p(m, x);
  case ZN_K_Sin:
  case ZN_K_Cos:
  case ZN_K_Tan: return zn_math_circular(m, op, x);
  case ZN_K_Asin:
  case ZN_K_Acos:
  case ZN_K_Atan: return zn_math_arc(m, op, x);
  case ZN_K_Erf: return zn_math_erf(m, x);
  case ZN_K_Pow: return zn_math_pow(m, x, y);
  case ZN_K_ScaledExp: return zn_math_scaled_exp(m, x, y);
  case ZN_K_Rem: return zn_math_rem(m, x, y);
  case ZN_K_Floor:
  case ZN_K_Ceil:
  case ZN_K_Trunc:
  case ZN_K_Rint: return zn_math_round(m, op, x);
  default: return zn_math_hyperbolic(m, op, x);
  }
}
