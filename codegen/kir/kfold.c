/* Scalar evaluation of pure kernel operations on constants. Float arithmetic of f32 is done in
 * double and rounded once, which is exact for + - * / sqrt (53 >= 2*24 + 2 bits). */
#include "codegen/kir/kfold.h"

#include <math.h>

static unsigned int_bits(zn_dtype t) {
  return t == ZN_BOOL ? 1 : t == ZN_IDX ? 64 : zn_int_bits(t);
}

int64_t zn_kfold_wrap(zn_dtype t, int64_t v) {
  switch ((int)t) {
    case ZN_BOOL: return v != 0;
    case ZN_U8: return (uint8_t)v;
    case ZN_I8: return (int8_t)v;
    case ZN_U16: return (uint16_t)v;
    case ZN_I16: return (int16_t)v;
    case ZN_I32: return (int32_t)v;
    case ZN_U32: return (uint32_t)v;
    default: return v;
  }
}

double zn_kfold_round(zn_dtype t, double v) {
  if (t == ZN_F32) return (double)(float)v;
  if (t == ZN_F16 || t == ZN_BF16) return zn_float_decode(t, zn_float_encode(t, v, false));
  return v;
}

static int64_t divide(zn_dtype t, int64_t x, int64_t y) {
  if (y == 0) return 0;
  if (t == ZN_U64) return (int64_t)((uint64_t)x / (uint64_t)y);
  if (y == -1) return (int64_t)(0 - (uint64_t)x);
  return x / y;
}

static int64_t remainder_of(zn_dtype t, int64_t x, int64_t y) {
  if (y == 0) return x;
  if (t == ZN_U64) return (int64_t)((uint64_t)x % (uint64_t)y);
  return y == -1 ? 0 : x % y;
}

static int64_t shift(zn_kop op, zn_dtype t, int64_t x, int64_t y) {
  unsigned bits = int_bits(t);
  bool over = (uint64_t)y >= bits; /* negative counts of signed types are over too */
  if (op == ZN_K_Shl) return over ? 0 : (int64_t)((uint64_t)x << y);
  if (zn_is_signed(t)) return x >> (over ? 63 : y);
  return over ? 0 : (int64_t)((uint64_t)x >> y);
}

static bool less(zn_dtype t, int64_t x, int64_t y) {
  return t == ZN_U64 ? (uint64_t)x < (uint64_t)y : x < y;
}

bool zn_kfold_int(zn_kop op, zn_dtype t, int64_t x, int64_t y, int64_t *out) {
  uint64_t ux = (uint64_t)x, uy = (uint64_t)y;
  int64_t r;
  switch ((int)op) {
    case ZN_K_Add: r = (int64_t)(ux + uy); break;
    case ZN_K_Sub: r = (int64_t)(ux - uy); break;
    case ZN_K_Mul: r = (int64_t)(ux * uy); break;
    case ZN_K_Div: r = divide(t, x, y); break;
    case ZN_K_Rem: r = remainder_of(t, x, y); break;
    case ZN_K_Min: r = less(t, x, y) ? x : y; break;
    case ZN_K_Max: r = less(t, y, x) ? x : y; break;
    case ZN_K_And: r = x & y; break;
    case ZN_K_Or: r = x | y; break;
    case ZN_K_Xor: r = x ^ y; break;
    case ZN_K_Shl:
    case ZN_K_Shr: r = shift(op, t, x, y); break;
    case ZN_K_Neg: r = (int64_t)(0 - ux); break;
    case ZN_K_Abs: r = zn_is_signed(t) && x < 0 ? (int64_t)(0 - ux) : x; break;
    case ZN_K_Not: r = t == ZN_BOOL ? !x : ~x; break;
    default: return false;
  }
  *out = zn_kfold_wrap(t, r);
  return true;
}

double zn_kfold_math(zn_kop op, double x, double y) {
  switch ((int)op) {
    case ZN_K_Exp: return exp(x);
    case ZN_K_Log: return log(x);
    case ZN_K_Log1p: return log1p(x);
    case ZN_K_Expm1: return expm1(x);
    case ZN_K_Sin: return sin(x);
    case ZN_K_Cos: return cos(x);
    case ZN_K_Tan: return tan(x);
    case ZN_K_Asin: return asin(x);
    case ZN_K_Acos: return acos(x);
    case ZN_K_Atan: return atan(x);
    case ZN_K_Sinh: return sinh(x);
    case ZN_K_Cosh: return cosh(x);
    case ZN_K_Tanh: return tanh(x);
    case ZN_K_Asinh: return asinh(x);
    case ZN_K_Acosh: return acosh(x);
    case ZN_K_Atanh: return atanh(x);
    case ZN_K_Erf: return erf(x);
    case ZN_K_Sigmoid: return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
    case ZN_K_Pow: return pow(x, y);
    case ZN_K_ScaledExp: return exp(x) * y;
    default: return NAN;
  }
}

bool zn_kfold_float(zn_kop op, zn_dtype t, double x, double y, double *out) {
  double r;
  switch ((int)op) {
    case ZN_K_Add: r = x + y; break;
    case ZN_K_Sub: r = x - y; break;
    case ZN_K_Mul: r = x * y; break;
    case ZN_K_Div: r = x / y; break;
    case ZN_K_Rem: r = fmod(x, y); break;
    case ZN_K_Min: r = x < y ? x : y; break;
    case ZN_K_Max: r = x > y ? x : y; break;
    case ZN_K_Neg: r = -x; break;
    case ZN_K_Abs: r = fabs(x); break;
    case ZN_K_Sqrt: r = sqrt(x); break;
    case ZN_K_Floor: r = floor(x); break;
    case ZN_K_Ceil: r = ceil(x); break;
    case ZN_K_Trunc: r = trunc(x); break;
    case ZN_K_Rint: r = rint(x); break;
    case ZN_K_CopySign: r = copysign(x, y); break;
    default:
      if (zn_kops[op].cls != 'M') return false;
      r = zn_kfold_math(op, x, y);
  }
  *out = zn_kfold_round(t, r);
  return true;
}

bool zn_kfold_cmp_int(zn_kop op, zn_dtype t, int64_t x, int64_t y) {
  switch ((int)op) {
    case ZN_K_Eq: return x == y;
    case ZN_K_Ne: return x != y;
    case ZN_K_Lt: return less(t, x, y);
    case ZN_K_Le: return !less(t, y, x);
    case ZN_K_Gt: return less(t, y, x);
    default: return !less(t, x, y);
  }
}

bool zn_kfold_cmp_float(zn_kop op, double x, double y) {
  switch ((int)op) {
    case ZN_K_Eq: return x == y;
    case ZN_K_Ne: return x != y;
    case ZN_K_Lt: return x < y;
    case ZN_K_Le: return x <= y;
    case ZN_K_Gt: return x > y;
    default: return x >= y;
  }
}

int64_t zn_kfold_float_to_int(zn_dtype t, double x) {
  if (t == ZN_BOOL) return x != 0; /* NaN is true, as in C */
  if (isnan(x)) return 0;
  unsigned bits = int_bits(t);
  if (zn_is_signed(t)) {
    double top = ldexp(1, (int)bits - 1);
    int64_t max = bits == 64 ? INT64_MAX : (INT64_C(1) << (bits - 1)) - 1;
    return x >= top ? max : x <= -top ? -max - 1 : (int64_t)x;
  }
  uint64_t max = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
  return x >= ldexp(1, (int)bits) ? (int64_t)max : x <= 0 ? 0 : (int64_t)(uint64_t)x;
}
