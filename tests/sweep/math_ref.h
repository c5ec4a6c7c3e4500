/* References and error measurement for the mathematical functions: f32 against double libm, f64
 * against long double. */
#ifndef MATH_REF_H
#define MATH_REF_H
#include <math.h>

#include "codegen/kir/kir.h"

/* op(x, y), or op(x); ScaledExp: of -|x|, with the scale that lowering takes. */
static inline bool math_takes_two(zn_kop op) { return zn_kops[op].sig[1] == 'v' && op != ZN_K_ScaledExp; }
static inline zn_kref math_call(zn_kb *b, zn_kop op, zn_dtype t, zn_kref x, zn_kref y) {
  if (math_takes_two(op)) return zn_kb_bin(b, op, x, y);
  if (op != ZN_K_ScaledExp) return zn_kb_un(b, op, x);
  zn_kref a = zn_kb_un(b, ZN_K_Abs, x), minus = zn_kb_un(b, ZN_K_Neg, a);
  zn_kref scale = zn_kb_float(b, t, zn_exp_scale(t));
  return zn_kb_bin(b, op, minus, scale);
}

static inline long double ref_long(zn_kop op, long double x, long double y) {
  switch ((int)op) {
  case ZN_K_Exp: return expl(x);
  case ZN_K_Log: return logl(x);
  case ZN_K_Log1p: return log1pl(x);
  case ZN_K_Expm1: return expm1l(x);
  case ZN_K_Sin: return sinl(x);
  case ZN_K_Cos: return cosl(x);
  case ZN_K_Tan: return tanl(x);
  case ZN_K_Asin: return asinl(x);
  case ZN_K_Acos: return acosl(x);
  case ZN_K_Atan: return atanl(x);
  case ZN_K_Sinh: return sinhl(x);
  case ZN_K_Cosh: return coshl(x);
  case ZN_K_Tanh: return tanhl(x);
  case ZN_K_Asinh: return asinhl(x);
  case ZN_K_Acosh: return acoshl(x);
  case ZN_K_Atanh: return atanhl(x);
  case ZN_K_Erf: return erfl(x);
  case ZN_K_Sigmoid: return x < 0 ? expl(x) / (1 + expl(x)) : 1 / (1 + expl(-x));
  case ZN_K_ScaledExp: return expl(-(fabsl(x) > 746 ? 746 : fabsl(x))) * 0x1p512L;
  case ZN_K_Pow: return powl(x, y);
  case ZN_K_Rem: return fmodl(x, y);
  case ZN_K_Floor: return floorl(x);
  case ZN_K_Ceil: return ceill(x);
  case ZN_K_Trunc: return truncl(x);
  default: return rintl(x);
  }
}

static inline double ref_double(zn_kop op, double x, double y) {
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
  case ZN_K_Sigmoid: return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x));
  case ZN_K_ScaledExp: return exp(-(fabs(x) > 104 ? 104 : fabs(x))) * 0x1p64; /* f32 */
  case ZN_K_Pow: return pow(x, y);
  case ZN_K_Rem: return fmod(x, y);
  case ZN_K_Floor: return floor(x);
  case ZN_K_Ceil: return ceil(x);
  case ZN_K_Trunc: return trunc(x);
  default: return rint(x);
  }
}

enum { WRONG = 1000000000 }; /* NaN, infinity or the sign of zero does not agree */

/* Error in units of the last place of the format with `mant` stored bits and least exponent emin.
 */
static inline double ulp_error(double got, long double want, int mant, int emin, double most) {
  if (isnan(want) || isnan(got)) return isnan(want) && isnan(got) ? 0 : WRONG;
  if (got == 0 && want == 0) return !signbit(got) == !signbit(want) ? 0 : WRONG;
  int e;
  if (isinf(got) || isinf(want)) {
    if (isinf(got) && isinf(want)) return !signbit(got) == !signbit(want) ? 0 : WRONG;
    if (!signbit(got) != !signbit(want)) return WRONG;
    if (isinf(want))
      return (double)((long double)most - fabsl((long double)got)) / ldexp(1, emin) > 0 ? WRONG : 1;
    if (fabsl(want) < (long double)most * (1 - 4 * ldexpl(1, -mant - 1))) return WRONG;
    return fabsl(want) > (long double)most ? 0
                                           : (double)(((long double)most - fabsl(want)) /
                                                      (ldexpl(1, 0) * most) * ldexpl(1, mant + 1)) +
                                                 1;
  }
  (void)frexpl(want, &e);
  e = e - 1 < emin ? emin : e - 1;
  return (double)ldexpl(fabsl((long double)got - want), mant - e);
}

static inline double ulp_f32(float got, double want) {
  return ulp_error((double)got, (long double)want, 23, -126, 3.4028234663852886e38);
}
static inline double ulp_f64(double got, long double want) {
  return ulp_error(got, want, 52, -1022, 1.7976931348623157e308);
}
#endif
