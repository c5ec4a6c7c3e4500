/* Zero points and requantisation, shared by the integer forms of MatMul and Conv. */
#include "codegen/lower/requant.h"

#include <math.h>

zn_kref zn_centre(zn_lw *lw, zn_kref x, zn_kref zero, zn_dtype t) {
  zn_kb *b = &lw->kb;
  if (zn_lw_kdtype(lw, x) != t) x = zn_kb_cvt(b, x, t);
  if (!zero) return x;
  if (zn_lw_kdtype(lw, zero) != t) zero = zn_kb_cvt(b, zero, t);
  return zn_kb_bin(b, ZN_K_Sub, x, zero);
}

zn_dtype zn_requant_type(const zn_lw *lw) { return lw->caps->f64_native ? ZN_F64 : ZN_F32; }

zn_kref zn_requant_scale(zn_lw *lw, zn_kref sa, zn_kref sb, zn_kref sy) {
  zn_kb *b = &lw->kb;
  const zn_dtype t = zn_requant_type(lw);
  sa = zn_kb_cvt(b, sa, t);
  sb = zn_kb_cvt(b, sb, t);
  sy = zn_kb_cvt(b, sy, t);
  zn_kref s = zn_kb_bin(b, ZN_K_Mul, sa, sb);
  return zn_kb_bin(b, ZN_K_Div, s, sy);
}

zn_kref zn_requantize(zn_lw *lw, zn_kref acc, zn_kref scale, zn_kref zero, zn_dtype t) {
  zn_kb *b = &lw->kb;
  const zn_dtype ft = zn_lw_kdtype(lw, scale);
  if (zn_lw_kdtype(lw, acc) != ft) acc = zn_kb_cvt(b, acc, ft);
  zn_kref q = zn_kb_bin(b, ZN_K_Mul, acc, scale);
  zn_kref z = zero ? zn_kb_cvt(b, zero, ft) : 0;
  if (zn_is_float(t)) { /* float8: the encoding rounds */
    if (z) q = zn_kb_bin(b, ZN_K_Add, q, z);
    if (ft != ZN_F32) q = zn_kb_cvt(b, q, ZN_F32);
    zn_kref code = zn_lw_convert(lw, q, ZN_F32, t, true);
    return zn_lw_convert(lw, code, t, zn_lw_ctype(t), true);
  }
  q = zn_kb_un(b, ZN_K_Rint, q);
  if (z) q = zn_kb_bin(b, ZN_K_Add, q, z);
  const unsigned bits = zn_int_bits(t);
  const double lo = zn_is_signed(t) ? -ldexp(1, (int)bits - 1) : 0;
  const double hi = lo + ldexp(1, (int)bits) - 1;
  zn_kref klo = zn_kb_float(b, ft, lo), khi = zn_kb_float(b, ft, hi);
  q = zn_kb_bin(b, ZN_K_Max, q, klo);
  q = zn_kb_bin(b, ZN_K_Min, q, khi);
  zn_kref i = zn_kb_cvt(b, q, ZN_I32);
  return zn_lw_convert(lw, i, ZN_I32, t, true);
}

zn_dtype zn_centred_type(const zn_lw *lw, zn_vid w, zn_vid zero) {
  const zn_htensor *h = zn_lw_cst(lw, w), *z = zn_lw_cst(lw, zero);
  if (!h || (zero && !z)) return ZN_NONE;
  for (uint64_t i = 0; z && i < zn_htensor_count(z); i++)
    if (zn_load_i64(z->dtype, z->data, i) != 0) return ZN_I16;
  return (zn_dtype)h->dtype;
}
