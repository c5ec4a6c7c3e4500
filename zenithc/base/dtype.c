/* The table of element types, and exact scalar conversions. Small floats are described by five
 * numbers (exponent bits, mantissa bits, bias, and what the top codes mean), so one encoder and one
 * decoder serve them all: the value is scaled to units of its last place, rounded to nearest even
 * there, and the carry moves into the exponent by itself. */
#include "zenithc/base/dtype.h"

#include <assert.h>
#include <math.h>
#include <string.h>

const zn_dtype_info zn_dtypes[ZN_DTYPE_COUNT] = {
    {"?", "", 0, 0, '?'},
#define DTYPE(n, text, onnx, bytes, cls, c) {text, c, onnx, bytes, #cls[0]},
#include "zenithc/base/dtype.def"
#undef DTYPE
};

zn_dtype zn_dtype_from_onnx(int code) {
  for (int t = 1; t < ZN_DTYPE_COUNT; t++)
    if (code > 0 && zn_dtypes[t].onnx == code) return (zn_dtype)t;
  return ZN_NONE;
}

zn_dtype zn_dtype_from_name(const char *name) {
  for (int t = 1; t < ZN_DTYPE_COUNT; t++)
    if (!strcmp(zn_dtypes[t].name, name)) return (zn_dtype)t;
  return ZN_NONE;
}

unsigned zn_int_bits(zn_dtype t) {
  switch (t) {
    case ZN_U4:
    case ZN_I4: return 4;
    case ZN_U2:
    case ZN_I2: return 2;
    case ZN_IDX: return 64;
    default: return zn_is_int(t) ? 8u * zn_dtypes[t].bytes : 0;
  }
}

/* ---- floats of at most 16 bits ---- */

typedef enum top_codes {
  TOP_IEEE, /* all-ones exponent: Inf and NaN */
  TOP_FN,   /* all ones (but for the sign): NaN; no Inf */
  TOP_FNUZ, /* only code 0x80 is NaN; no Inf, no negative zero */
  TOP_NONE  /* finite numbers only */
} top_codes;

typedef struct float_format {
  int exp_bits, mant_bits, bias;
  top_codes top;
} float_format;

static bool format_of(zn_dtype t, float_format *out) {
  switch (t) {
    case ZN_F16: *out = (float_format){5, 10, 15, TOP_IEEE}; return true;
    case ZN_BF16: *out = (float_format){8, 7, 127, TOP_IEEE}; return true;
    case ZN_F8E4M3FN: *out = (float_format){4, 3, 7, TOP_FN}; return true;
    case ZN_F8E4M3FNUZ: *out = (float_format){4, 3, 8, TOP_FNUZ}; return true;
    case ZN_F8E5M2: *out = (float_format){5, 2, 15, TOP_IEEE}; return true;
    case ZN_F8E5M2FNUZ: *out = (float_format){5, 2, 16, TOP_FNUZ}; return true;
    case ZN_F4E2M1: *out = (float_format){2, 1, 1, TOP_NONE}; return true;
    case ZN_F6E2M3: *out = (float_format){2, 3, 1, TOP_NONE}; return true;
    case ZN_F6E3M2: *out = (float_format){3, 2, 3, TOP_NONE}; return true;
    default: return false;
  }
}

unsigned zn_dtype_bits(zn_dtype t) {
  float_format f;
  unsigned whole = zn_int_bits(t);
  if (whole) return whole;
  return format_of(t, &f) ? (unsigned)(1 + f.exp_bits + f.mant_bits) : 8 * zn_dtype_bytes(t);
}

static uint32_t sign_bit(const float_format *f) { return 1u << (f->exp_bits + f->mant_bits); }

/* Code of the largest finite magnitude. */
static uint32_t max_code(const float_format *f) {
  uint32_t all = sign_bit(f) - 1;
  if (f->top == TOP_IEEE) return all - (1u << f->mant_bits);
  return f->top == TOP_FN ? all - 1 : all;
}

static uint32_t nan_code(const float_format *f, bool negative) {
  uint32_t sign = negative ? sign_bit(f) : 0;
  switch (f->top) {
    case TOP_IEEE: /* quiet: top mantissa bit */
      return sign | (max_code(f) + 1) | (1u << (f->mant_bits - 1));
    case TOP_FN: return sign | (sign_bit(f) - 1);
    case TOP_FNUZ: return sign_bit(f);
    case TOP_NONE: break;
  }
  return sign_bit(f); /* no NaN in the format: negative zero, as ml_dtypes */
}

static double decode_e8m0(uint32_t bits) {
  return bits == 0xff ? (double)NAN : ldexp(1.0, (int)bits - 127);
}

/* 2^e times 1 and the fraction's 52 bits. */
static double double_of(int e, uint64_t fraction) {
  uint64_t bits = (uint64_t)(e + 1023) << 52 | fraction;
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

double zn_float_decode(zn_dtype t, uint32_t bits) {
  if (t == ZN_F8E8M0) return decode_e8m0(bits & 0xff);
  float_format f;
  bool known = format_of(t, &f);
  assert(known);
  if (!known) return NAN;
  uint32_t sign = bits & sign_bit(&f), mag = bits & (sign_bit(&f) - 1);
  uint32_t mant = mag & ((1u << f.mant_bits) - 1);
  int exp = (int)(mag >> f.mant_bits);
  if (f.top == TOP_FNUZ && sign && !mag) return NAN;
  if (mag > max_code(&f)) {
    double special = f.top == TOP_IEEE && mant == 0 ? (double)INFINITY : (double)NAN;
    return sign ? -special : special;
  }
  double v = exp ? double_of(exp - f.bias, (uint64_t)mant << (52 - f.mant_bits)) : ldexp((double)mant, 1 - f.bias - f.mant_bits);
  return sign ? -v : v;
}

/* Overflow and Inf alike: the largest finite magnitude, or Inf, or NaN. */
static uint32_t overflow_code(const float_format *f, zn_dtype t, bool negative, bool saturate) {
  uint32_t sign = negative ? sign_bit(f) : 0;
  bool wide = t == ZN_F16 || t == ZN_BF16;
  if (f->top == TOP_NONE || (saturate && !wide)) return sign | max_code(f);
  return f->top == TOP_IEEE ? sign | (max_code(f) + 1) : nan_code(f, negative);
}

/* Negative numbers have no place in e8m0: NaN. Zero and everything below the smallest is the
 * smallest if saturating. */
static uint32_t encode_e8m0(double x, bool saturate) {
  if (isnan(x) || x < 0) return 0xff;
  if (isinf(x)) return saturate ? 0xfe : 0xff;
  if (x == 0) return saturate ? 0 : 0xff;
  int e;
  double m = frexp(x, &e); /* x = m * 2^e, 0.5 <= m < 1: candidates 2^(e-1) and 2^e */
  int code = e - 1 + 127;
  if (m >= 0.75) code++; /* the kept bit, the hidden one, is always odd: ties go up */
  if (code > 0xfe) return saturate ? 0xfe : 0xff;
  if (code < 0) return saturate ? 0 : 0xff;
  return (uint32_t)code;
}

/* Code of |x| = 2^e * 1.fraction, whose exponent the format has: the fraction rounded on the bits, to nearest even. */
static uint32_t normal_code(const float_format *f, double x) {
  const int drop = 52 - f->mant_bits;
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  bits &= UINT64_MAX >> 1;
  bits += (UINT64_C(1) << (drop - 1)) - 1 + (bits >> drop & 1);
  return (uint32_t)((bits >> drop) - ((uint64_t)(1023 - f->bias) << f->mant_bits));
}

static int exponent_of(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (int)(bits >> 52 & 2047) - 1023;
}

uint32_t zn_float_encode(zn_dtype t, double x, bool saturate) {
  if (t == ZN_F8E8M0) return encode_e8m0(x, saturate);
  float_format f;
  bool known = format_of(t, &f);
  assert(known);
  if (!known) return 0;
  bool negative = signbit(x) != 0;
  if (isnan(x)) return nan_code(&f, negative);
  if (isinf(x)) return overflow_code(&f, t, negative, saturate);
  uint32_t mag = 0;
  if (x != 0) {
    const int e = exponent_of(x), emin = 1 - f.bias; /* 1 <= |x| / 2^e < 2 */
    if (e > f.bias + 2) return overflow_code(&f, t, negative, saturate);
    if (e >= emin) mag = normal_code(&f, x);
    else mag = (uint32_t)rint(ldexp(fabs(x), f.mant_bits - emin)); /* in units of the last place; exact but for the rounding */
    if (mag > max_code(&f)) return overflow_code(&f, t, negative, saturate);
  }
  if (mag == 0 && f.top == TOP_FNUZ) return 0;
  return (negative ? sign_bit(&f) : 0) | mag;
}

/* ---- elements of buffers ---- */

static bool small_float(zn_dtype t) { return zn_is_float(t) && t != ZN_F32 && t != ZN_F64; }

#define AT(type) (((const type *)data)[i])

static uint32_t load_bits(zn_dtype t, const void *data, uint64_t i) {
  return zn_dtypes[t].bytes == 2 ? AT(uint16_t) : AT(uint8_t);
}

int64_t zn_int_wrap(zn_dtype t, int64_t x) {
  unsigned bits = zn_int_bits(t);
  if (t == ZN_BOOL) return x != 0;
  if (bits == 0 || bits == 64) return x;
  uint64_t mask = ((uint64_t)1 << bits) - 1, v = (uint64_t)x & mask;
  if (zn_is_signed(t) && (v >> (bits - 1))) v |= ~mask;
  return (int64_t)v;
}

static int64_t load_int(zn_dtype t, const void *data, uint64_t i) {
  switch (t) {
    case ZN_U8: return AT(uint8_t);
    case ZN_I8: return AT(int8_t);
    case ZN_U16: return AT(uint16_t);
    case ZN_I16: return AT(int16_t);
    case ZN_U32: return AT(uint32_t);
    case ZN_I32: return AT(int32_t);
    case ZN_IDX:
    case ZN_U64:
    case ZN_I64: return AT(int64_t);
    case ZN_BOOL: return AT(uint8_t) != 0;
    case ZN_U4:
    case ZN_U2:
    case ZN_I4:
    case ZN_I2: return zn_int_wrap(t, AT(uint8_t));
    default: assert(false && "integer type"); return 0;
  }
}

double zn_load_f64(zn_dtype t, const void *data, uint64_t i) {
  switch (t) {
    case ZN_F32: return (double)AT(float);
    case ZN_F64: return AT(double);
    case ZN_C64: return (double)((const float *)data)[2 * i]; /* real part */
    case ZN_C128: return ((const double *)data)[2 * i];
    case ZN_U64: return (double)AT(uint64_t);
    default:
      if (zn_is_float(t)) return zn_float_decode(t, load_bits(t, data, i));
      return (double)load_int(t, data, i);
  }
}

/* Truncation that saturates; NaN becomes 0. */
static int64_t to_int(zn_dtype t, double x) {
  if (t == ZN_BOOL) return x != 0;
  if (isnan(x)) return 0;
  unsigned bits = zn_int_bits(t);
  bool sgn = zn_is_signed(t);
  double hi = ldexp(1.0, (int)bits - (sgn ? 1 : 0)), lo = sgn ? -hi : 0.0; /* valid: lo <= x < hi */
  if (x >= hi)
    return sgn ? (int64_t)(((uint64_t)1 << (bits - 1)) - 1) : (int64_t)(UINT64_MAX >> (64 - bits));
  if (x <= lo) return sgn ? -(int64_t)(((uint64_t)1 << (bits - 1)) - 1) - 1 : 0;
  return t == ZN_U64 ? (int64_t)(uint64_t)x : (int64_t)x;
}

int64_t zn_load_i64(zn_dtype t, const void *data, uint64_t i) {
  if (zn_is_int(t) || t == ZN_BOOL) return load_int(t, data, i);
  return to_int(ZN_I64, zn_load_f64(t, data, i));
}

#undef AT
#define PUT(type, v) ((type *)data)[i] = (type)(v)

void zn_store_i64(zn_dtype t, void *data, uint64_t i, int64_t x) {
  switch (t) {
    case ZN_U8:
    case ZN_I8:
    case ZN_U4:
    case ZN_U2:
    case ZN_I4:
    case ZN_I2: PUT(uint8_t, zn_int_wrap(t, x)); break;
    case ZN_U16:
    case ZN_I16: PUT(uint16_t, x); break;
    case ZN_U32:
    case ZN_I32: PUT(uint32_t, x); break;
    case ZN_IDX:
    case ZN_U64:
    case ZN_I64: PUT(int64_t, x); break;
    case ZN_BOOL: PUT(uint8_t, x != 0); break;
    case ZN_F32: PUT(float, x); break; /* one rounding */
    default: zn_store_f64(t, data, i, (double)x);
  }
}

void zn_store_f64(zn_dtype t, void *data, uint64_t i, double x) {
  switch (t) {
    case ZN_F32: PUT(float, x); return;
    case ZN_F64: PUT(double, x); return;
    case ZN_C64:
      ((float *)data)[2 * i] = (float)x;
      ((float *)data)[2 * i + 1] = 0;
      return;
    case ZN_C128:
      ((double *)data)[2 * i] = x;
      ((double *)data)[2 * i + 1] = 0;
      return;
    default: break;
  }
  if (small_float(t)) {
    uint32_t bits = zn_float_encode(t, x, true);
    if (zn_dtypes[t].bytes == 2)
      PUT(uint16_t, bits);
    else
      PUT(uint8_t, bits);
  } else {
    assert(zn_is_int(t) || t == ZN_BOOL);
    zn_store_i64(t, data, i, to_int(t, x));
  }
}
