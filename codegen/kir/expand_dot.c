/* Integer dot products: which forms a target has, and the plain form of the others. */
#include "codegen/kir/math.h"

/* Vectors of one to several whole registers, or a part of one that still fits an instruction. */
static bool vector_fits(const zn_caps *caps, unsigned lanes) {
  return caps->vector_bytes >= 16 && lanes >= 4 && (lanes & (lanes - 1)) == 0;
}

bool zn_dot4_native(const zn_caps *caps, unsigned lanes, unsigned flags) {
  const unsigned signs = flags & (ZN_DOT_A_SIGNED | ZN_DOT_B_SIGNED), both = ZN_DOT_A_SIGNED | ZN_DOT_B_SIGNED;
  switch (caps->dot4) {
  case ZN_DOT4_PAIRS: return signs == ZN_DOT_B_SIGNED && flags & ZN_DOT_PAIRS && vector_fits(caps, lanes);
  case ZN_DOT4_SIGNED_PAIRS: return signs == both && vector_fits(caps, lanes);
  case ZN_DOT4_MIXED: return signs == ZN_DOT_B_SIGNED && vector_fits(caps, lanes);
  case ZN_DOT4_SAME: return (signs == 0 || signs == both) && vector_fits(caps, lanes);
  case ZN_DOT4_ANY: return signs != ZN_DOT_A_SIGNED && vector_fits(caps, lanes);
  case ZN_DOT4_SCALAR: return lanes == 1;
  default: return false;
  }
}

bool zn_pair4_native(const zn_caps *caps, unsigned lanes, unsigned flags) {
  return caps->dot4 == ZN_DOT4_PAIRS && (flags & 3) == ZN_DOT_B_SIGNED && vector_fits(caps, lanes);
}

bool zn_dot2_native(const zn_caps *caps, unsigned lanes) {
  return caps->dot2 && (caps->dot4 == ZN_DOT4_SCALAR ? lanes == 1 : vector_fits(caps, lanes));
}

bool zn_dot2_bf16_native(const zn_caps *caps, unsigned lanes) { return caps->dot_bf16 && vector_fits(caps, lanes); }

/* Part j of x, `bits` wide, as i32. */
static R part(zn_kb *b, R x, unsigned lanes, unsigned j, unsigned bits, bool is_signed) {
  const unsigned up = 32 - bits * (j + 1);
  if (!is_signed) {
    R down = zn_kb_splat(b, zn_kb_int(b, ZN_I32, bits * j), lanes);
    R mask = zn_kb_splat(b, zn_kb_int(b, ZN_I32, (1 << bits) - 1), lanes);
    R v = j ? zn_kb_bin(b, ZN_K_Shr, x, down) : x;
    return zn_kb_bin(b, ZN_K_And, v, mask);
  }
  R left = zn_kb_splat(b, zn_kb_int(b, ZN_I32, up), lanes);
  R right = zn_kb_splat(b, zn_kb_int(b, ZN_I32, 32 - bits), lanes);
  R v = up ? zn_kb_bin(b, ZN_K_Shl, x, left) : x;
  return zn_kb_bin(b, ZN_K_Shr, v, right);
}

static R product(zn_kb *b, const zn_kinst *in, unsigned j, unsigned bits) {
  R x = part(b, in->a, in->lanes, j, bits, bits == 16 || in->imm.i & ZN_DOT_A_SIGNED);
  R y = part(b, in->b, in->lanes, j, bits, bits == 16 || in->imm.i & ZN_DOT_B_SIGNED);
  return zn_kb_bin(b, ZN_K_Mul, x, y);
}

static R expand_pair4(zn_kb *b, const zn_kinst *in) {
  R sum[2];
  for (unsigned h = 0; h < 2; h++) {
    sum[h] = part(b, in->c, in->lanes, h, 16, true);
    for (unsigned j = 2 * h; j < 2 * h + 2; j++) {
      R p = product(b, in, j, 8);
      sum[h] = zn_kb_bin(b, ZN_K_Add, sum[h], p);
    }
  }
  R mask = zn_kb_splat(b, zn_kb_int(b, ZN_I32, 65535), in->lanes), up = zn_kb_splat(b, zn_kb_int(b, ZN_I32, 16), in->lanes);
  R low = zn_kb_bin(b, ZN_K_And, sum[0], mask), high = zn_kb_bin(b, ZN_K_Shl, sum[1], up);
  return zn_kb_bin(b, ZN_K_Or, low, high);
}

/* The bf16 in the lower or upper half of the words of x. */
static R half_real(zn_kb *b, R x, unsigned lanes, bool upper) {
  R by = zn_kb_splat(b, zn_kb_int(b, ZN_I32, upper ? -65536 : 16), lanes);
  return zn_kb_bitcast(b, zn_kb_bin(b, upper ? ZN_K_And : ZN_K_Shl, x, by), ZN_F32);
}

static R expand_bf16(zn_kb *b, const zn_kinst *in) {
  R sum = zn_kb_bitcast(b, in->c, ZN_F32);
  for (int upper = 1; upper >= 0; upper--) {
    R x = half_real(b, in->a, in->lanes, upper), y = half_real(b, in->b, in->lanes, upper);
    sum = zn_kb_fma(b, x, y, sum);
  }
  return zn_kb_bitcast(b, sum, ZN_I32);
}

R zn_expand_dot(zn_kb *b, const zn_kinst *in) {
  if (in->op == ZN_K_Pair4) return expand_pair4(b, in);
  if (in->op == ZN_K_Dot2Bf16) return expand_bf16(b, in);
  const unsigned n = in->op == ZN_K_Dot4 ? 4 : 2, bits = 32 / n;
  R sum = in->c;
  for (unsigned j = 0; j < n; j++) {
    R p = product(b, in, j, bits);
    sum = zn_kb_bin(b, ZN_K_Add, sum, p);
  }
  return sum;
}
