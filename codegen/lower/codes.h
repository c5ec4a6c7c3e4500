/* Codes of sums of codes: QuantizeLinear of the sum of two dequantised bytes is a function of two bytes, which a few
 * operations compute where all 65,536 pairs prove it. */
#ifndef ZN_CODES_H
#define ZN_CODES_H
#include "codegen/lower/lower.h"

typedef struct zn_code_sum { /* quantize(relu(a + b)); per-tensor f32 scales, integer zero points */
  zn_dtype ta, tb, ty;       /* U8 or I8 */
  float sa, sb, sy;
  int32_t za, zb, zy;
  bool relu;
} zn_code_sum;

typedef enum zn_code_kind { ZN_CODES_LITERAL, ZN_CODES_INT, ZN_CODES_FLOAT } zn_code_kind;
typedef struct zn_code_form { /* limited to low .. high: */
  zn_code_kind kind;
  int32_t ia, ib, ic; /* INT: a * ia + b * ib + ic */
  float fa, fb, fc;   /* FLOAT: rint(fma(a, fa, fma(b, fb, fc))) */
  int32_t low, high;
} zn_code_form;

/* What the operators say, in f32 as they are evaluated one by one. */
int32_t zn_code_literal(const zn_code_sum *s, int32_t a, int32_t b);
/* The same by the form, which must not be LITERAL. */
int32_t zn_code_by_form(const zn_code_form *f, int32_t a, int32_t b);
/* A form that gives the literal code for every pair of bytes; LITERAL: none was found. */
zn_code_form zn_code_find(const zn_code_sum *s);
/* The code that QuantizeLinear n gives for element idx, in its ctype, when its operand is such a sum computed here; 0: it is
 * not, or has no form. */
zn_kref zn_code_sum_point(zn_lw *lw, zn_nid n, const zn_expr *idx);
#endif
