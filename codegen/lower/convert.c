/* Conversions between the types tensors are stored in and the types kernels compute in. */
#include "codegen/lower/lower.h"

zn_dtype zn_lw_ctype(zn_dtype t) {
  if (zn_is_float(t) && zn_dtype_bytes(t) < 4) return ZN_F32;
  if (zn_dtype_bits(t) < 8 && zn_is_int(t)) return zn_is_signed(t) ? ZN_I8 : ZN_U8;
  switch (t) {
  case ZN_C64: return ZN_U64;
  case ZN_STR: case ZN_C128: return ZN_PTR;
  default: return t;
  }
}

zn_kref zn_lw_zero(zn_lw *lw, zn_dtype ctype) {
  static const uint64_t nothing[2]; /* the empty string, and zero of 16 bytes */
  if (ctype == ZN_PTR) return zn_lw_ptr_loc(lw, zn_lw_const(lw, "nothing", ZN_U64, 2, nothing), ZN_KP_IN, ZN_U64);
  return zn_is_float(ctype) ? zn_kb_float(&lw->kb, ctype, 0) : zn_kb_int(&lw->kb, ctype, 0);
}

typedef struct minifloat { /* sign, exponent, m mantissa bits; codes without the sign bit */
  zn_dtype t;
  int m, bias;
  int64_t max_code, inf_code, nan_code; /* inf_code -1: none; nan_code with its sign bit */
  bool fnuz;                            /* no negative zero */
  uint32_t sign_bit;
} minifloat;

static const minifloat minifloats[] = {
    {ZN_F8E4M3FN, 3, 7, 0x7e, -1, 0x7f, false, 0x80},
    {ZN_F8E4M3FNUZ, 3, 8, 0x7f, -1, 0x80, true, 0x80},
    {ZN_F8E5M2, 2, 15, 0x7b, 0x7c, 0x7f, false, 0x80},
    {ZN_F8E5M2FNUZ, 2, 16, 0x7f, -1, 0x80, true, 0x80},
    {ZN_F4E2M1, 1, 1, 0x7, -1, -1, false, 0x8},
    {ZN_F6E2M3, 3, 1, 0x1f, -1, -1, false, 0x20},
    {ZN_F6E3M2, 2, 3, 0x1f, -1, -1, false, 0x20},
};

static const minifloat *minifloat_of(zn_dtype t) {
  for (unsigned i = 0; i < sizeof minifloats / sizeof *minifloats; i++)
    if (minifloats[i].t == t) return &minifloats[i];
  return NULL;
}

/* Builder calls are never nested two to an argument list: C leaves their order open. */
static zn_kref ki(zn_kb *b, int64_t v) { return zn_kb_int(b, ZN_I32, v); }
static zn_kref bini(zn_kb *b, zn_kop op, zn_kref x, int64_t v) { return zn_kb_bin(b, op, x, ki(b, v)); }
static zn_kref cmpi(zn_kb *b, zn_kop op, zn_kref x, int64_t v) { return zn_kb_cmp(b, op, x, ki(b, v)); }
static zn_kref f32_of_bits(zn_kb *b, zn_kref bits) { return zn_kb_bitcast(b, bits, ZN_F32); }
static zn_kref f32_const_bits(zn_kb *b, int64_t bits) { return f32_of_bits(b, ki(b, bits)); }

static zn_kref decode_minifloat(zn_kb *b, zn_kref code8, const minifloat *f) {
  zn_kref code = zn_kb_cvt(b, code8, ZN_I32);
  zn_kref sign = bini(b, ZN_K_And, code, f->sign_bit);
  zn_kref mag = bini(b, ZN_K_And, code, f->sign_bit - 1);
  zn_kref man = bini(b, ZN_K_And, mag, (1 << f->m) - 1);
  zn_kref ex = bini(b, ZN_K_Shr, mag, f->m);
  zn_kref ebits = bini(b, ZN_K_Add, ex, 127 - f->bias);
  ebits = bini(b, ZN_K_Shl, ebits, 23);
  zn_kref mbits = bini(b, ZN_K_Shl, man, 23 - f->m);
  zn_kref normal = f32_of_bits(b, zn_kb_bin(b, ZN_K_Or, ebits, mbits));
  double unit = 1.0;
  for (int i = 0; i < f->bias - 1 + f->m; i++) unit *= 0.5;
  zn_kref fm = zn_kb_cvt(b, man, ZN_F32);
  zn_kref sub = zn_kb_bin(b, ZN_K_Mul, fm, zn_kb_float(b, ZN_F32, unit));
  zn_kref is_sub = cmpi(b, ZN_K_Eq, ex, 0);
  zn_kref v = zn_kb_select(b, is_sub, sub, normal);
  if (f->inf_code >= 0) {
    zn_kref is_inf = cmpi(b, ZN_K_Eq, mag, f->inf_code);
    zn_kref inf = f32_const_bits(b, 0x7f800000);
    v = zn_kb_select(b, is_inf, inf, v);
  }
  zn_kref neg = zn_kb_un(b, ZN_K_Neg, v);
  zn_kref has_sign = cmpi(b, ZN_K_Ne, sign, 0);
  v = zn_kb_select(b, has_sign, neg, v);
  if (f->nan_code < 0) return v;
  zn_kref nan = f32_const_bits(b, 0x7fc00000), is_nan;
  if (f->fnuz)
    is_nan = cmpi(b, ZN_K_Eq, code, f->nan_code);
  else
    is_nan = cmpi(b, ZN_K_Gt, mag, f->inf_code >= 0 ? f->inf_code : f->max_code);
  return zn_kb_select(b, is_nan, nan, v);
}

static zn_kref encode_minifloat(zn_kb *b, zn_kref x, const minifloat *f, bool saturate) {
  zn_kref bits = zn_kb_bitcast(b, x, ZN_I32);
  zn_kref abits = bini(b, ZN_K_And, bits, 0x7fffffff);
  zn_kref a = f32_of_bits(b, abits);
  zn_kref e = bini(b, ZN_K_Shr, abits, 23);
  e = bini(b, ZN_K_Sub, e, 127);
  e = bini(b, ZN_K_Max, e, 1 - f->bias);
  e = bini(b, ZN_K_Min, e, 100);
  /* a in units of the last place at exponent e: exact scaling, one rounding */
  zn_kref bias = ki(b, 127 + f->m);
  zn_kref se = zn_kb_bin(b, ZN_K_Sub, bias, e);
  zn_kref scale = f32_of_bits(b, bini(b, ZN_K_Shl, se, 23));
  zn_kref q = zn_kb_un(b, ZN_K_Rint, zn_kb_bin(b, ZN_K_Mul, a, scale));
  zn_kref qi = zn_kb_cvt(b, q, ZN_I32);
  zn_kref hi = bini(b, ZN_K_Add, e, f->bias - 1);
  hi = bini(b, ZN_K_Shl, hi, f->m);
  zn_kref code = zn_kb_bin(b, ZN_K_Add, hi, qi);
  zn_kref above = cmpi(b, ZN_K_Gt, code, f->max_code);
  zn_kref infinite = cmpi(b, ZN_K_Ge, abits, 0x7f800000);
  zn_kref big = zn_kb_bin(b, ZN_K_Or, above, infinite);
  bool to_max = saturate || f->nan_code < 0;
  zn_kref over = ki(b, to_max ? f->max_code : f->inf_code >= 0 ? f->inf_code : f->nan_code);
  code = zn_kb_select(b, big, over, code);
  zn_kref neg = cmpi(b, ZN_K_Lt, bits, 0);
  zn_kref signed_code = bini(b, ZN_K_Or, code, f->sign_bit);
  if (f->fnuz) {
    zn_kref nonzero = cmpi(b, ZN_K_Ne, code, 0);
    neg = zn_kb_bin(b, ZN_K_And, neg, nonzero);
  }
  code = zn_kb_select(b, neg, signed_code, code);
  zn_kref is_nan = cmpi(b, ZN_K_Gt, abits, 0x7f800000); /* without a code for NaN: negative zero */
  zn_kref nan = ki(b, f->nan_code >= 0 ? f->nan_code : (int64_t)f->sign_bit);
  code = zn_kb_select(b, is_nan, nan, code);
  return zn_kb_cvt(b, code, ZN_U8);
}

static zn_kref decode_e8m0(zn_kb *b, zn_kref code8) {
  zn_kref code = zn_kb_cvt(b, code8, ZN_I32);
  zn_kref v = f32_of_bits(b, bini(b, ZN_K_Shl, code, 23));
  zn_kref tiny = f32_const_bits(b, 0x00400000); /* 2^-127 is subnormal */
  zn_kref is0 = cmpi(b, ZN_K_Eq, code, 0);
  v = zn_kb_select(b, is0, tiny, v);
  zn_kref nan = f32_const_bits(b, 0x7fc00000);
  zn_kref is_nan = cmpi(b, ZN_K_Eq, code, 255);
  return zn_kb_select(b, is_nan, nan, v);
}

/* A power of two, 2^-127 at least; negative numbers have none. mode: up, down or nearest (ties go up). */
static zn_kref encode_e8m0(zn_kb *b, zn_kref x, const char *mode, bool saturate) {
  const bool up = !strcmp(mode, "up"), down = !strcmp(mode, "down");
  zn_kref bits = zn_kb_bitcast(b, x, ZN_I32), abits = bini(b, ZN_K_And, bits, 0x7fffffff);
  zn_kref sum = bini(b, ZN_K_Add, abits, up ? 0x7fffff : down ? 0 : 0x400000), code = bini(b, ZN_K_Shr, sum, 23);
  zn_kref tiny = cmpi(b, ZN_K_Lt, abits, 0x800000); /* subnormal: 2^-127 is 0x400000 */
  zn_kref above = down ? zn_kb_int(b, ZN_BOOL, 0) : cmpi(b, ZN_K_Ge, abits, up ? 0x400001 : 0x600000);
  zn_kref small = zn_kb_cvt(b, above, ZN_I32);
  code = zn_kb_select(b, tiny, small, code);
  zn_kref big = cmpi(b, ZN_K_Gt, code, 254), most = ki(b, saturate ? 254 : 255);
  code = zn_kb_select(b, big, most, code);
  zn_kref is_nan = cmpi(b, ZN_K_Gt, abits, 0x7f800000), negative = cmpi(b, ZN_K_Lt, bits, 0);
  zn_kref something = cmpi(b, ZN_K_Ne, abits, 0), none = zn_kb_bin(b, ZN_K_And, negative, something);
  zn_kref nan = ki(b, 255);
  return zn_kb_cvt(b, zn_kb_select(b, zn_kb_bin(b, ZN_K_Or, is_nan, none), nan, code), ZN_U8);
}

/* x, a f64, as the f32 next to it whose last bit says that there was more (rounding to odd): a second rounding to few bits
 * then gives what one gives. */
static zn_kref odd_f32(zn_kb *b, zn_kref x) {
  zn_kref f = zn_kb_cvt(b, x, ZN_F32), back = zn_kb_cvt(b, f, ZN_F64), bits = zn_kb_bitcast(b, f, ZN_I32);
  zn_kref a = zn_kb_un(b, ZN_K_Abs, back), ax = zn_kb_un(b, ZN_K_Abs, x), over = zn_kb_cmp(b, ZN_K_Gt, a, ax);
  zn_kref lower = bini(b, ZN_K_Sub, bits, 1), cut = zn_kb_select(b, over, lower, bits), odd = bini(b, ZN_K_Or, cut, 1);
  zn_kref inexact = zn_kb_cmp(b, ZN_K_Ne, a, ax), some = zn_kb_cmp(b, ZN_K_Eq, x, x);
  return f32_of_bits(b, zn_kb_select(b, zn_kb_bin(b, ZN_K_And, inexact, some), odd, bits));
}

zn_kref zn_lw_to_e8m0(zn_lw *lw, zn_kref k, const char *mode, bool saturate) {
  zn_kb *b = &lw->kb;
  const zn_dtype t = zn_lw_kdtype(lw, k);
  if (t == ZN_F32) return encode_e8m0(b, k, mode, saturate);
  if (zn_is_int(t) && zn_dtype_bytes(t) >= 4) k = zn_kb_cvt(b, k, ZN_F64);
  k = zn_lw_kdtype(lw, k) == ZN_F64 ? odd_f32(b, k) : zn_kb_cvt(b, k, ZN_F32);
  return encode_e8m0(b, k, mode, saturate);
}

static zn_kref wrap_small(zn_kb *b, zn_kref k, zn_dtype t) { /* keep the low bits of a 4- or 2-bit int */
  zn_dtype s = zn_is_signed(t) ? ZN_I8 : ZN_U8;
  k = zn_kb_cvt(b, k, s);
  zn_kref n = zn_kb_int(b, s, 8 - zn_int_bits(t));
  zn_kref up = zn_kb_bin(b, ZN_K_Shl, k, n);
  return zn_kb_bin(b, ZN_K_Shr, up, n);
}

static bool is_small_int(zn_dtype t) { return zn_is_int(t) && zn_dtype_bits(t) < 8; }

/* `from` names what the bits of k mean (an F8 code is a u8 value); `to` likewise for the result. */
zn_kref zn_lw_convert(zn_lw *lw, zn_kref k, zn_dtype from, zn_dtype to, bool saturate) {
  zn_kb *b = &lw->kb;
  const minifloat *mf = minifloat_of(from);
  if (mf || from == ZN_F8E8M0) {
    if (from == to) return k;
    k = mf ? decode_minifloat(b, k, mf) : decode_e8m0(b, k);
    from = ZN_F32;
  }
  if ((mf = minifloat_of(to)) || to == ZN_F8E8M0) {
    if (!mf) return zn_lw_to_e8m0(lw, k, "up", saturate);
    if (from != ZN_F32) k = zn_kb_cvt(b, k, ZN_F32);
    return encode_minifloat(b, k, mf, saturate);
  }
  if (is_small_int(to)) {
    if (from == to) return k;
    if (zn_is_float(from)) k = zn_kb_cvt(b, k, ZN_I32);
    return wrap_small(b, k, to);
  }
  if (zn_lw_kdtype(lw, k) == to || to == ZN_STR || to == ZN_PTR || to == ZN_C64 || to == ZN_C128) return k;
  return zn_kb_cvt(b, k, to);
}

zn_kref zn_lw_round_to(zn_lw *lw, zn_kref k, zn_dtype t) {
  zn_dtype ct = zn_lw_ctype(t);
  if (ct == t) return k;
  return zn_lw_convert(lw, zn_lw_convert(lw, k, ct, t, true), t, ct, false);
}
