/* Conversions of f16 and bf16 by integer arithmetic: to nearest even in one rounding, subnormals,
 * infinities; NaN stays NaN and becomes quiet. */
#include "codegen/kir/math.h"

typedef struct small_format {
  zn_dtype t;
  int mant, bias;
} small_format;

static const small_format half = {ZN_F16, 10, 15}, brain = {ZN_BF16, 7, 127};

static bool is_small(unsigned t) { return t == ZN_F16 || t == ZN_BF16; }
static const small_format *small_of(unsigned t) { return t == ZN_F16 ? &half : &brain; }

/* f32 or f64 -> f16 or bf16 */
static R narrow(const zn_mx *m, R x, const small_format *s) {
  const zn_math_format *k = m->k;
  zn_kb *b = m->b;
  zn_dtype ut = k->t == ZN_F32 ? ZN_U32 : ZN_U64;
  int width = k->t == ZN_F32 ? 32 : 64, shift = k->mant - s->mant;
  int64_t inf = (2 * k->bias + 1) << k->mant, small_inf = (int64_t)(2 * s->bias + 1) << s->mant;
  int64_t quiet = (int64_t)1 << (s->mant - 1), low = ((int64_t)1 << (shift - 1)) - 1;
  R bits = zn_kb_bitcast(b, x, ut), sign = zn_mx_bini(m, ZN_K_Shr, bits, width - 16);
  sign = zn_mx_bini(m, ZN_K_And, sign, 0x8000);
  R a = zn_mx_bini(m, ZN_K_And, bits, (int64_t)(UINT64_MAX >> (65 - width)));
  R v = zn_mx_bini(m, ZN_K_Sub, a, (k->bias - s->bias) << k->mant),
    lsb = zn_mx_bini(m, ZN_K_Shr, v, shift);
  lsb = zn_mx_bini(m, ZN_K_And, lsb, 1);
  v = zn_mx_bini(m, ZN_K_Add, v, low);
  v = zn_mx_bin(m, ZN_K_Add, v, lsb);
  R h = zn_mx_bini(m, ZN_K_Shr, v, shift);
  h = zn_mx_bini(m, ZN_K_Min, h, small_inf);
  if (s->bias !=
      k->bias) { /* adding a power of two whose last place is the smallest subnormal rounds there */
    int64_t magic = (1 - s->bias - s->mant + k->mant + k->bias) << k->mant;
    R mg = zn_mx_ki(m, ut, magic), mf = zn_kb_bitcast(b, mg, k->t), ax = zn_kb_bitcast(b, a, k->t);
    R sum = zn_mx_bin(m, ZN_K_Add, ax, mf), sub = zn_kb_bitcast(b, sum, ut);
    sub = zn_mx_bin(m, ZN_K_Sub, sub, mg);
    R limit = zn_mx_ki(m, ut, (1 - s->bias + k->bias) << k->mant),
      tiny = zn_kb_cmp(b, ZN_K_Lt, a, limit);
    h = zn_kb_select(b, tiny, sub, h);
  }
  R payload = zn_mx_bini(m, ZN_K_Shr, a, shift), top = zn_mx_ki(m, ut, inf),
    nan = zn_kb_cmp(b, ZN_K_Gt, a, top);
  payload = zn_mx_bini(m, ZN_K_And, payload, quiet - 1);
  payload = zn_mx_bini(m, ZN_K_Or, payload, small_inf | quiet);
  h = zn_kb_select(b, nan, payload, h);
  h = zn_mx_bin(m, ZN_K_Or, h, sign);
  h = zn_kb_cvt(b, h, ZN_U16);
  return zn_kb_bitcast(b, h, s->t);
}

/* f16 or bf16 -> f32 */
static R widen(const zn_mx *m, R x, const small_format *s) {
  zn_kb *b = m->b;
  R h = zn_kb_bitcast(b, x, ZN_U16), w = zn_kb_cvt(b, h, ZN_U32);
  if (s == &brain) {
    w = zn_mx_bini(m, ZN_K_Shl, w, 16);
    return zn_kb_bitcast(b, w, ZN_F32);
  }
  R sign = zn_mx_bini(m, ZN_K_And, w, 0x8000), a = zn_mx_bini(m, ZN_K_And, w, 0x7fff);
  sign = zn_mx_bini(m, ZN_K_Shl, sign, 16);
  a = zn_mx_bini(m, ZN_K_Shl, a, 13);
  R f = zn_kb_bitcast(b, a, ZN_F32), limit = zn_mx_ki(m, ZN_U32, 0x7c00 << 13),
    big = zn_kb_cmp(b, ZN_K_Ge, a, limit);
  f = zn_mx_bink(m, ZN_K_Mul, f, 0x1p112);
  R bits = zn_kb_bitcast(b, f, ZN_U32), ones = zn_mx_ki(m, ZN_U32, 0x7fc00000),
    none = zn_mx_ki(m, ZN_U32, 0);
  /* Inf and NaN came out with exponent 143: all ones, and a NaN's quiet bit */
  R frac = zn_mx_bini(m, ZN_K_And, a, 0x3ff << 13), is_nan = zn_kb_cmp(b, ZN_K_Ne, frac, none);
  R inf = zn_mx_ki(m, ZN_U32, 0x7f800000), fill = zn_kb_select(b, is_nan, ones, inf);
  fill = zn_kb_select(b, big, fill, none);
  bits = zn_mx_bin(m, ZN_K_Or, bits, fill);
  bits = zn_mx_bin(m, ZN_K_Or, bits, sign);
  return zn_kb_bitcast(b, bits, ZN_F32);
}

R zn_expand_cvt(const zn_caps *caps, zn_kb *b, const zn_kinst *in, R x) {
  zn_dtype from = zn_kf_dtype(b->f, x), to = (zn_dtype)in->dtype;
  if (from == to || (!is_small(from) && !is_small(to))) return 0;
  bool native = caps->f16_convert;
  if (native && ((from == ZN_F16 && to == ZN_F32) || (from == ZN_F32 && to == ZN_F16))) return 0;
  zn_mx m = {.b = b, .caps = caps, .k = &zn_math_f32, .lanes = in->lanes};
  if (is_small(from)) {
    x = from == ZN_F16 && native ? zn_kb_cvt(b, x, ZN_F32) : widen(&m, x, small_of(from));
    if (!is_small(to))
      return in->op == ZN_K_CvtFast ? zn_kb_cvtfast(b, x, to) : zn_kb_cvt(b, x, to);
    from = ZN_F32;
  }
  if (!zn_is_float(from)) { /* integers that f32 holds exactly go through it */
    unsigned bytes = zn_dtype_bytes(from);
    from = bytes == 1 || bytes == 2 ? ZN_F32 : ZN_F64;
    x = zn_kb_cvt(b, x, from);
  }
  if (from == ZN_F32 && to == ZN_F16 && native) return zn_kb_cvt(b, x, to);
  if (from == ZN_F64) m.k = &zn_math_f64;
  return narrow(&m, x, small_of(to));
}
