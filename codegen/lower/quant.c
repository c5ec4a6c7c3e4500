/* QuantizeLinear and DequantizeLinear (28): true division by the scale, round half to even, add the zero point, saturate; per
 * tensor, per axis or per block. */
#include <assert.h>
#include <math.h>

#include "codegen/lower/codes.h"

/* Index of the scale (and zero point) that belongs to element idx of x. */
static void scale_index(zn_lw *lw, const zn_node *node, const zn_expr *idx, zn_expr *out) {
  const zn_type *tx = zn_lw_type(lw, node->in[0]), *ts = zn_lw_type(lw, node->in[1]);
  int64_t axis = zn_node_int(node, "axis"), block = zn_node_int(node, "block_size");
  if (axis < 0) axis += tx->rank;
  for (int d = 0; d < ZN_MAX_RANK; d++) out[d] = zn_ex_const(lw->ex, 0);
  if (ts->rank == 0) return;
  if (ts->rank == 1 && tx->rank >= 1 && block == 0) {
    out[0] = zn_ex_is(lw->ex, ts->dims[0], 1) ? zn_ex_const(lw->ex, 0) : idx[axis];
    return;
  }
  for (int d = 0; d < ts->rank; d++) out[d] = idx[d];
  if (block) out[axis] = zn_ex_divi(lw->ex, idx[axis], block);
}

static void int_range(zn_dtype t, double *lo, double *hi) {
  unsigned bits = zn_int_bits(t);
  bool s = zn_is_signed(t);
  *lo = s ? -ldexp(1, (int)bits - 1) : 0;
  *hi = s ? ldexp(1, (int)bits - 1) - 1 : ldexp(1, (int)bits) - 1;
}

/* The largest float x, or the smallest (dir -1), whose code rint(x / s) is still at most (at least) `code`. Correctly
 * rounded division is monotonic, so bisection over the ordered floats finds it. */
static float last_with_code(float s, float code, int dir) {
  int32_t lo = 0, hi = 0x7f7fffff; /* of |x| when the code's sign is dir, else the answer is found by mirroring */
  float sign = (float)dir;
  if (sign * code < 0) { /* beyond zero: the first |x| that is no longer too large */
    while (lo < hi) {
      int32_t mid = lo + (hi - lo) / 2;
      float x;
      memcpy(&x, &mid, 4);
      if (rintf(-sign * x / s) * sign <= code * sign) hi = mid;
      else lo = mid + 1;
    }
    float x;
    memcpy(&x, &lo, 4);
    return -sign * x;
  }
  while (lo < hi) {
    int32_t mid = lo + (hi - lo + 1) / 2;
    float x;
    memcpy(&x, &mid, 4);
    if (rintf(sign * x / s) * sign <= code * sign) lo = mid;
    else hi = mid - 1;
  }
  float x;
  memcpy(&x, &lo, 4);
  return sign * x;
}

/* rint(q) + z as i32 for |q| < 2^22: floats from 2^23 to 2^24 are integers, so adding 1.5 * 2^23, which is even, rounds half
 * to even, and the sum's low bits are the integer. Two operations on any machine, whatever it has for rounding; where only the
 * low byte counts, one: an even zero point joins that number. */
static zn_kref round_small(zn_lw *lw, zn_kref q, int32_t z) {
  zn_kb *b = &lw->kb;
  const int32_t magic = 0x4b400000, even = z % 2 ? 0 : z;
  q = zn_kb_bin(b, ZN_K_Add, q, zn_kb_float(b, ZN_F32, 0x1.8p23 + even));
  zn_kref bits = zn_kb_bitcast(b, q, ZN_I32);
  return zn_kb_bin(b, ZN_K_Add, bits, zn_kb_int(b, ZN_I32, (int64_t)z - even - magic));
}

/* 1 / s as a float and what it lacks: x * near + x * rest, the second product first, is x / s to 2^-48, rounded once. */
typedef struct reciprocal {
  float near, rest;
} reciprocal;

static reciprocal reciprocal_of(float s) {
  const double r = 1 / (double)s;
  const float near = (float)r;
  return (reciprocal){near, (float)(r - (double)near)};
}

static float times_reciprocal(float x, reciprocal r) { return fmaf(x, r.near, x * r.rest); }

/* Does times_reciprocal give the codes of the division by s? Both are monotonic: it is enough to look where the codes lo to hi
 * change, at the last float of one and the first of the next. */
static bool reciprocal_holds(float s, reciprocal r, float lo, float hi) {
  for (int i = (int)lo; i < (int)hi; i++) {
    const float code = (float)i, last = last_with_code(s, code, 1), next = nextafterf(last, INFINITY);
    if (rintf(times_reciprocal(last, r)) > code || rintf(times_reciprocal(next, r)) <= code) return false;
  }
  return true;
}

/* Constant scale s > 0 and zero point z, integer codes: x is first limited to what gives codes in range. The quotient comes
 * from the reciprocal in two floats where all bytes prove it, else from the rounded reciprocal and two corrections, which
 * is the correctly rounded quotient (Markstein) unless the significand of s is all ones. The same codes as by division, for
 * every x. */
static zn_kref quantize_constant(zn_lw *lw, zn_kref x, float s, double z, zn_dtype to) {
  zn_kb *b = &lw->kb;
  double lo, hi;
  int_range(to, &lo, &hi);
  const float first = (float)(lo - z), last = (float)(hi - z);
  zn_kref low = zn_kb_float(b, ZN_F32, (double)last_with_code(s, first, -1));
  zn_kref high = zn_kb_float(b, ZN_F32, (double)last_with_code(s, last, 1)), q;
  x = zn_kb_bin(b, ZN_K_Max, x, low);
  x = zn_kb_bin(b, ZN_K_Min, x, high);
  const reciprocal r = reciprocal_of(s);
  if (zn_int_bits(to) <= 8 && reciprocal_holds(s, r, first, last)) {
    zn_kref near = zn_kb_float(b, ZN_F32, (double)r.near), rest = zn_kb_float(b, ZN_F32, (double)r.rest);
    rest = zn_kb_bin(b, ZN_K_Mul, x, rest);
    q = zn_kb_fma(b, x, near, rest);
  } else {
    zn_kref kr = zn_kb_float(b, ZN_F32, (double)(1.0f / s)), minus = zn_kb_float(b, ZN_F32, -(double)s);
    q = zn_kb_bin(b, ZN_K_Mul, x, kr);
    zn_kref rest = zn_kb_fma(b, q, minus, x);
    q = zn_kb_fma(b, rest, kr, q);
  }
  return zn_lw_convert(lw, round_small(lw, q, (int32_t)z), ZN_I32, to, true);
}

/* Can quantize_constant stand for the division by s? */
static bool has_reciprocal(const zn_lw *lw, zn_kref s) {
  double v;
  uint32_t bits;
  if (!lw->caps->fma || !zn_kf_const_float(lw->kb.f, s, &v) || !(v > 1e-20 && v < 1e20)) return false;
  float f = (float)v;
  memcpy(&bits, &f, 4);
  return (bits & 0x7fffff) != 0x7fffff;
}

static zn_kref quantize_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_kb *b = &lw->kb;
  zn_dtype to = (zn_dtype)zn_lw_type(lw, node->out[out])->dtype;
  zn_expr at[ZN_MAX_RANK] = {0};
  zn_kref code = zn_code_sum_point(lw, n, idx);
  if (code) return code;
  node = zn_lw_node(lw, n);
  scale_index(lw, node, idx, at);
  zn_vid zp = zn_node_in(node, 2);
  zn_kref x = zn_lw_load(lw, node->in[0], idx);
  zn_kref s = zn_lw_load(lw, zn_lw_node(lw, n)->in[1], at);
  const zn_dtype st = (zn_dtype)zn_lw_type(lw, zn_lw_node(lw, n)->in[1])->dtype;
  const int64_t precision = zn_node_int(zn_lw_node(lw, n), "precision");
  const zn_dtype div = precision ? zn_dtype_from_onnx((int)precision) : st == ZN_F16 || st == ZN_BF16 ? st : ZN_F32;
  if (zn_lw_kdtype(lw, x) != ZN_F32) x = zn_kb_cvt(b, x, ZN_F32);
  if (zn_lw_kdtype(lw, s) != ZN_F32) s = zn_kb_cvt(b, s, ZN_F32);
  const bool narrow = div == ZN_F16 || div == ZN_BF16;
  if (precision && narrow) {
    x = zn_lw_round_to(lw, x, div);
    s = zn_lw_round_to(lw, s, div);
  }
  zn_kref kz = zp ? zn_lw_load(lw, zp, at) : 0;
  int64_t z = 0;
  if (!narrow && !zn_is_float(to) && zn_int_bits(to) <= 16 && has_reciprocal(lw, s) && (!kz || zn_kf_const_int(b->f, kz, &z))) {
    double v = 0;
    zn_kf_const_float(b->f, s, &v);
    return quantize_constant(lw, x, (float)v, (double)z, to);
  }
  zn_kref q = zn_kb_bin(b, ZN_K_Div, x, s);
  if (narrow) q = zn_lw_round_to(lw, q, div);
  if (zn_is_float(to)) { /* float8, float4: the encoding rounds */
    bool saturate = zn_node_int(zn_lw_node(lw, n), "saturate") != 0;
    if (zp) q = zn_kb_bin(b, ZN_K_Add, q, kz);
    q = zn_lw_convert(lw, q, ZN_F32, to, saturate);
    return zn_lw_convert(lw, q, to, zn_lw_ctype(to), saturate);
  }
  q = zn_kb_un(b, ZN_K_Rint, q);
  if (zp) {
    zn_kref offset = zn_kb_cvt(b, kz, ZN_F32);
    q = zn_kb_bin(b, ZN_K_Add, q, offset);
  }
  double lo, hi;
  int_range(to, &lo, &hi);
  zn_kref klo = zn_kb_float(b, ZN_F32, lo), khi = zn_kb_float(b, ZN_F32, hi);
  q = zn_kb_bin(b, ZN_K_Max, q, klo);
  q = zn_kb_bin(b, ZN_K_Min, q, khi);
  zn_kref i = zn_kb_cvt(b, q, ZN_I32);
  return zn_lw_convert(lw, i, ZN_I32, to, true);
}
const zn_lower zn_lower_quantizelinear = {quantize_point, NULL};

static zn_kref dequantize_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  const zn_node *node = zn_lw_node(lw, n);
  zn_kb *b = &lw->kb;
  zn_expr at[ZN_MAX_RANK] = {0};
  scale_index(lw, node, idx, at);
  zn_vid zp = zn_node_in(node, 2), sv = node->in[1];
  zn_kref x = zn_lw_load(lw, node->in[0], idx);
  bool floats = zn_is_float(zn_lw_kdtype(lw, x));
  zn_kref v;
  if (floats) {
    v = x;
    if (zp) v = zn_kb_bin(b, ZN_K_Sub, v, zn_lw_load(lw, zp, at));
  } else {
    v = zn_kb_cvt(b, x, ZN_I32);
    if (zp) {
      zn_kref z = zn_kb_cvt(b, zn_lw_load(lw, zp, at), ZN_I32);
      v = zn_kb_bin(b, ZN_K_Sub, v, z);
    }
    v = zn_kb_cvt(b, v, ZN_F32);
  }
  zn_kref s = zn_lw_load(lw, sv, at);
  if (zn_lw_kdtype(lw, s) != ZN_F32) s = zn_kb_cvt(b, s, ZN_F32);
  return zn_kb_bin(b, ZN_K_Mul, v, s);
}
const zn_lower zn_lower_dequantizelinear = {dequantize_point, NULL};
