/* Rescale: an integer sum as a real number, rounded once, without doubles. Every number is a pair of f32, of which the second is
 * what the first has lost; fma gives what a product loses, six operations what a sum does (Knuth's two-sum). What is left out
 * is below 2^-45 of the greater operand, so the result is the correctly rounded one unless the exact value lies that near to
 * the middle of two floats. */
#include "codegen/lower/lower.h"

typedef struct pair {
  zn_kref hi, lo; /* lo 0: nothing lost */
} pair;

static pair split(zn_lw *lw, zn_kref x, bool wide) {
  zn_kb *b = &lw->kb;
  pair r = {zn_kb_cvt(b, x, ZN_F32), 0};
  if (!wide) return r;
  zn_kref back = zn_kb_cvt(b, r.hi, ZN_I32), rest = zn_kb_bin(b, ZN_K_Sub, x, back);
  r.lo = zn_kb_cvt(b, rest, ZN_F32);
  return r;
}

static zn_kref rescale_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  zn_kb *b = &lw->kb;
  const zn_type *t = zn_lw_type(lw, zn_lw_node(lw, n)->out[out]);
  zn_kref in[5];
  for (uint32_t i = 0; i < 5; i++) in[i] = zn_lw_load_bcast(lw, zn_lw_node(lw, n)->in[i], t->rank, t->dims, idx);
  const pair x = split(lw, in[0], zn_node_int(zn_lw_node(lw, n), "wide") != 0);
  zn_kref p = zn_kb_bin(b, ZN_K_Mul, x.hi, in[1]), minus = zn_kb_un(b, ZN_K_Neg, p);
  zn_kref lost = zn_kb_fma(b, x.hi, in[1], minus);
  lost = zn_kb_fma(b, x.hi, in[2], lost);
  if (x.lo) lost = zn_kb_fma(b, x.lo, in[1], lost);
  lost = zn_kb_bin(b, ZN_K_Add, lost, in[4]);
  zn_kref sum = zn_kb_bin(b, ZN_K_Add, p, in[3]), shifted = zn_kb_bin(b, ZN_K_Sub, sum, p);
  zn_kref shift_lost = zn_kb_bin(b, ZN_K_Sub, in[3], shifted), was = zn_kb_bin(b, ZN_K_Sub, sum, shifted);
  zn_kref p_lost = zn_kb_bin(b, ZN_K_Sub, p, was);
  zn_kref sum_lost = zn_kb_bin(b, ZN_K_Add, p_lost, shift_lost);
  lost = zn_kb_bin(b, ZN_K_Add, lost, sum_lost);
  return zn_kb_bin(b, ZN_K_Add, sum, lost);
}
const zn_lower zn_lower_rescale = {rescale_point, NULL};
