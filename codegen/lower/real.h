/* Short names for floating-point code in kernels. A constant operand takes the other one's type. Each call makes its values
 * in a fixed order; arguments that are calls themselves must not be more than one per call (C leaves their order open). */
#ifndef ZN_REAL_H
#define ZN_REAL_H
#include "codegen/lower/lower.h"

static inline zn_kref zn_r_add(zn_kb *b, zn_kref x, zn_kref y) { return zn_kb_bin(b, ZN_K_Add, x, y); }
static inline zn_kref zn_r_sub(zn_kb *b, zn_kref x, zn_kref y) { return zn_kb_bin(b, ZN_K_Sub, x, y); }
static inline zn_kref zn_r_mul(zn_kb *b, zn_kref x, zn_kref y) { return zn_kb_bin(b, ZN_K_Mul, x, y); }
static inline zn_kref zn_r_div(zn_kb *b, zn_kref x, zn_kref y) { return zn_kb_bin(b, ZN_K_Div, x, y); }
static inline zn_kref zn_r_like(zn_kb *b, zn_kref x, double c) { return zn_kb_float(b, zn_kf_dtype(b->f, x), c); }
/* x op c */
static inline zn_kref zn_r_opc(zn_kb *b, zn_kop op, zn_kref x, double c) {
  zn_kref k = zn_r_like(b, x, c);
  return zn_kb_bin(b, op, x, k);
}
static inline zn_kref zn_r_addc(zn_kb *b, zn_kref x, double c) { return zn_r_opc(b, ZN_K_Add, x, c); }
static inline zn_kref zn_r_mulc(zn_kb *b, zn_kref x, double c) { return zn_r_opc(b, ZN_K_Mul, x, c); }
static inline zn_kref zn_r_maxc(zn_kb *b, zn_kref x, double c) { return zn_r_opc(b, ZN_K_Max, x, c); }
static inline zn_kref zn_r_minc(zn_kb *b, zn_kref x, double c) { return zn_r_opc(b, ZN_K_Min, x, c); }
/* c op x */
static inline zn_kref zn_r_cop(zn_kb *b, zn_kop op, double c, zn_kref x) {
  zn_kref k = zn_r_like(b, x, c);
  return zn_kb_bin(b, op, k, x);
}
/* Compares with a constant. */
static inline zn_kref zn_r_cmpc(zn_kb *b, zn_kop op, zn_kref x, double c) {
  zn_kref k = zn_r_like(b, x, c);
  return zn_kb_cmp(b, op, x, k);
}
static inline zn_kref zn_r_and(zn_kb *b, zn_kref x, zn_kref y) { return zn_kb_bin(b, ZN_K_And, x, y); }
static inline zn_kref zn_r_or(zn_kb *b, zn_kref x, zn_kref y) { return zn_kb_bin(b, ZN_K_Or, x, y); }
static inline zn_kref zn_r_abs(zn_kb *b, zn_kref x) { return zn_kb_un(b, ZN_K_Abs, x); }
static inline zn_kref zn_r_floor(zn_kb *b, zn_kref x) { return zn_kb_un(b, ZN_K_Floor, x); }
/* cond ? x : c */
static inline zn_kref zn_r_orc(zn_kb *b, zn_kref cond, zn_kref x, double c) {
  zn_kref k = zn_r_like(b, x, c);
  return zn_kb_select(b, cond, x, k);
}
/* lo <= x <= hi */
static inline zn_kref zn_r_within(zn_kb *b, zn_kref x, zn_kref lo, zn_kref hi) {
  zn_kref above = zn_kb_cmp(b, ZN_K_Ge, x, lo), below = zn_kb_cmp(b, ZN_K_Le, x, hi);
  return zn_r_and(b, above, below);
}
static inline zn_kref zn_r_clamp(zn_kb *b, zn_kref x, zn_kref lo, zn_kref hi) {
  zn_kref up = zn_kb_bin(b, ZN_K_Max, x, lo);
  return zn_kb_bin(b, ZN_K_Min, up, hi);
}
/* An index expression as a number of type t. */
static inline zn_kref zn_r_of(zn_lw *lw, zn_expr e, zn_dtype t) { return zn_kb_cvt(&lw->kb, zn_lw_ix(lw, e), t); }
/* Element of v in type t. */
static inline zn_kref zn_r_load(zn_lw *lw, zn_vid v, const zn_expr *idx, zn_dtype t) {
  zn_kref x = zn_lw_load(lw, v, idx);
  return zn_lw_kdtype(lw, x) == t ? x : zn_kb_cvt(&lw->kb, x, t);
}
/* The cubic convolution kernel of distance x >= 0. */
static inline zn_kref zn_r_cubic(zn_kb *b, zn_kref x, double a) {
  zn_kref in = zn_r_mulc(b, x, a + 2), out = zn_r_mulc(b, x, a);
  in = zn_r_mul(b, zn_r_addc(b, in, -(a + 3)), x);
  in = zn_r_addc(b, zn_r_mul(b, in, x), 1);
  out = zn_r_mul(b, zn_r_addc(b, out, -5 * a), x);
  out = zn_r_mul(b, zn_r_addc(b, out, 8 * a), x);
  out = zn_r_addc(b, out, -4 * a);
  zn_kref reach = zn_r_cmpc(b, ZN_K_Lt, x, 2), near = zn_r_cmpc(b, ZN_K_Le, x, 1);
  out = zn_r_orc(b, reach, out, 0);
  return zn_kb_select(b, near, in, out);
}
#endif
