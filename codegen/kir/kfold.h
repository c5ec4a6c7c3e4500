/* The scalar meaning of pure operations on constants: integers as int64 wrapped to their dtype,
 * floats as double. Used by the builder's folding; the interpreter has its own typed loops and
 * tests compare the two. */
#ifndef ZN_KFOLD_H
#define ZN_KFOLD_H
#include "codegen/kir/kir.h"

/* Wraps like memory of dtype t would; idx is 64 bits, bool 0 or 1. */
int64_t zn_kfold_wrap(zn_dtype t, int64_t v);
/* Rounds to float for f32, to the format for f16 and bf16. */
double zn_kfold_round(zn_dtype t, double v);
bool zn_kfold_int(zn_kop op, zn_dtype t, int64_t x, int64_t y, int64_t *out);
bool zn_kfold_float(zn_kop op, zn_dtype t, double x, double y,
                    double *out); /* classes A and M, not Fma */
bool zn_kfold_cmp_int(zn_kop op, zn_dtype t, int64_t x, int64_t y);
bool zn_kfold_cmp_float(zn_kop op, double x, double y);
double zn_kfold_math(zn_kop op, double x, double y); /* class M in double */
/* Saturating truncation to an integer type, NaN = 0. */
int64_t zn_kfold_float_to_int(zn_dtype t, double x);
#endif
