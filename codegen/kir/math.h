/* Mathematical functions as kernel-IR arithmetic, for scalars and vectors of any number of lanes,
 * f32 and f64. Private to kexpand.c, expand_cvt.c and math*.c.
 *
 * ZN_MATH_BOUNDS is the table K: no result is further than this from the exact one, in units of the
 * last place, with or without caps.fma. Measured by tests/sweep/sweep_math.c against wider libm:
 * f32 exp, log, tanh and erf over all 2^32 inputs (`make sweep` does so for all), the other
 * f32 functions over every 97th, f64 and functions of two arguments over samples of every range and
 * special values. NaN, infinities and signs of zero are those of C99. */
#ifndef ZN_MATH_H
#define ZN_MATH_H
#include "codegen/kir/kir.h"

/* clang-format off */
/* X(function, f32 bound, f64 bound) */
#define ZN_MATH_BOUNDS(X)                                                                          \
  X(Exp, 1.1, 1.1)   X(Log, 0.9, 1.0)   X(Log1p, 1.7, 1.6) X(Expm1, 1.7, 2.1)                      \
  X(Sin, 1.7, 2.7)   X(Cos, 1.7, 2.7)   X(Tan, 3.3, 4.0)                                           \
  X(Asin, 2.5, 2.4)  X(Acos, 1.3, 1.3)  X(Atan, 2.0, 1.9)                                          \
  X(Sinh, 2.5, 2.6)  X(Cosh, 1.6, 1.6)  X(Tanh, 2.0, 2.4)                                          \
  X(Asinh, 2.1, 2.2) X(Acosh, 2.5, 2.2) X(Atanh, 2.4, 2.4)                                         \
  X(Erf, 1.3, 1.5)   X(Sigmoid, 1.9, 2.0) X(Pow, 0.51, 1.7) X(Rem, 0, 0)                           \
  X(ScaledExp, 1.1, 1.1) X(Floor, 0, 0)     X(Ceil, 0, 0)      X(Trunc, 0, 0)     X(Rint, 0, 0)
/* clang-format on */

typedef struct zn_math_poly {
  const double *c; /* degree 0 first */
  int n;
} zn_math_poly;

typedef struct zn_math_format {
  zn_dtype t, it; /* the float type and the integer type of its width */
  int mant;       /* stored bits of the significand */
  int64_t bias;
  double magic; /* 1.5 * 2^mant: adding it rounds to an integer and leaves that in the low bits */
  int64_t magic_bits, two_thirds;
  double min_normal, up; /* up: 2^mant, lifts subnormals */
  double exp_min, exp_max;
  double trig_max; /* Cody-Waite reduction up to here */
  double log2e, ln2_hi, ln2_lo, two_over_pi, pio2_part[4], pio2_hi, pio2_lo;
  /* exp: (e^r - 1 - r) / r^2    log: (log(1+f) - f) / f^2    logs: (2 atanh s - 2 s) / s^3 in s^2
   * logw: (logs - 2/3) / s^2 in s^2
   * sin: (sin r - r) / r^3 in r^2    cos: (cos r - 1 + r^2/2) / r^4 in r^2    atan, asin: like sin
   * erf: erf(x)/x - 1 in x^2    erfl: log(erfc(2 + u))    erfc: erfc(x) e^(x^2) in (x - 2)/(x + 2)
   * erfp/erfq: erf(x)/x in x^2, |x| < 3.93
   */
  zn_math_poly exp, log, logs, logw, sin, cos, atan, asin, erf, erfl, erfc, erfp, erfq;
} zn_math_format;

extern const zn_math_format zn_math_f32, zn_math_f64;
extern const uint64_t zn_math_two_over_pi[22]; /* 64 zero bits, then the bits of 2 / pi */

/* Where and in which type a function is being written. */
typedef struct zn_mx {
  zn_kb *b;
  const zn_caps *caps;
  const zn_math_format *k;
  unsigned lanes;
  uint32_t *pi_const; /* module constant with zn_math_two_over_pi; UINT32_MAX until used */
} zn_mx;

typedef zn_kref R;

/* Operands that are calls are at most one per call below: C leaves the order of arguments open. */
R zn_mx_k(const zn_mx *m, double v);               /* constants: of the float type, */
R zn_mx_ki(const zn_mx *m, zn_dtype t, int64_t v); /* of an integer type */
R zn_mx_bin(const zn_mx *m, zn_kop op, R x, R y);
R zn_mx_bink(const zn_mx *m, zn_kop op, R x, double v);
R zn_mx_bini(const zn_mx *m, zn_kop op, R x, int64_t v); /* integer constant of x's type */
bool zn_mx_fused(const zn_mx *m);                        /* has the target fma in this format? */
R zn_mx_fma(const zn_mx *m, R x, R y, R z);       /* Mul and Add where the target has no fma */
R zn_mx_fmak(const zn_mx *m, R x, double y, R z); /* x * k + z */
R zn_mx_fmac(const zn_mx *m, R x, R y, double z); /* x * y + k */
R zn_mx_cmpk(const zn_mx *m, zn_kop op, R x, double v);
R zn_mx_selk(const zn_mx *m, R cond, double v, R y); /* cond ? k : y */
R zn_mx_selr(const zn_mx *m, R cond, R x, double v); /* cond ? x : k */
R zn_mx_poly(const zn_mx *m, zn_math_poly p, R x);
R zn_mx_poly_pairs(const zn_mx *m, zn_math_poly p, R x, R x2); /* with x^2: as many operations, half the depth */
R zn_mx_bits(const zn_mx *m, R x); /* float -> integer of the format */
R zn_mx_unbits(const zn_mx *m, R x);
R zn_mx_pow2(const zn_mx *m, R n);              /* 2^n for an integer n of a normal number */
R zn_mx_flip(const zn_mx *m, R x, R sign_bits); /* x with its sign bit xored */

/* math_exp.c */
R zn_math_exp(const zn_mx *m, R x);
R zn_math_scaled_exp(const zn_mx *m, R x, R scale); /* scale: a constant */
R zn_math_log(const zn_mx *m, R x);
R zn_math_log1p(const zn_mx *m, R x);
R zn_math_hyperbolic(const zn_mx *m, zn_kop op,
                     R x); /* Expm1 Sinh Cosh Tanh Asinh Acosh Atanh Sigmoid */
R zn_math_erf(const zn_mx *m, R x);
/* f32, absolute error below 5e-7 and 3e-7, exact +-1 where the function rounds to that: for sums with 1. */
R zn_math_erf_absolute(const zn_mx *m, R x);
R zn_math_tanh_absolute(const zn_mx *m, R x);
/* math_trig.c */
R zn_math_circular(const zn_mx *m, zn_kop op, R x); /* Sin Cos Tan */
R zn_math_arc(const zn_mx *m, zn_kop op, R x);      /* Asin Acos Atan */
/* math_pow.c */
R zn_math_pow(const zn_mx *m, R x, R y);
R zn_math_rem(const zn_mx *m, R x, R y);

/* expand_cvt.c: what the target cannot convert; 0 when it can. */
R zn_expand_cvt(const zn_caps *caps, zn_kb *b, const zn_kinst *in, R x);
/* expand_dot.c */
R zn_expand_dot(zn_kb *b, const zn_kinst *in);
/* math.c */
R zn_math_round(const zn_mx *m, zn_kop op, R x); /* Floor Ceil Trunc Rint without the instruction */
R zn_math_expand(const zn_mx *m, zn_kop op, R x, R y);
#endif
