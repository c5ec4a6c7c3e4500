/* Arithmetic of the interpreter: one lane loop per operation and type, generated from the lists
 * below. */
#include <math.h>

#include "codegen/kir/interp.h"
#include "codegen/kir/kfold.h"

#define BINARY(name, T, R, expr)                                                    \
  static void name(const zn_idec *d, zn_imach *m) {                                 \
    const T *restrict pa = ZN_SLOT(T, m, d->a), *restrict pb = ZN_SLOT(T, m, d->b); \
    R *restrict pr = ZN_SLOT(R, m, d->r);                                           \
    ZN_LANES(d, T a = pa[i]; T b = pb[i]; pr[i] = (R)(expr));                       \
  }
#define UNARY(name, T, expr)                        \
  static void name(const zn_idec *d, zn_imach *m) { \
    const T *restrict pa = ZN_SLOT(T, m, d->a);     \
    T *restrict pr = ZN_SLOT(T, m, d->r);           \
    ZN_LANES(d, T a = pa[i]; pr[i] = (T)(expr));    \
  }
/* Halving tree over d->n lanes (a power of two); the result's slot has room for all of them. */
#define REDUCE(name, T, expr)                       \
  static void name(const zn_idec *d, zn_imach *m) { \
    T *pr = ZN_SLOT(T, m, d->r);                    \
    memcpy(pr, m->slots + d->a, d->n * sizeof(T));  \
    for (uint32_t h = d->n / 2; h; h /= 2) {        \
      for (uint32_t i = 0; i < h; i++) {            \
        T a = pr[i], b = pr[i + h];                 \
        pr[i] = (T)(expr);                          \
      }                                             \
    }                                               \
  }

#define COMPARE(T, s)                \
  BINARY(eq_##s, T, uint8_t, a == b) \
  BINARY(ne_##s, T, uint8_t, a != b) \
  BINARY(lt_##s, T, uint8_t, a < b)  \
  BINARY(le_##s, T, uint8_t, a <= b) \
  BINARY(gt_##s, T, uint8_t, a > b)  \
  BINARY(ge_##s, T, uint8_t, a >= b)

/* Sums and products in uint64_t: they wrap, and small types do not overflow int. */
#define INTEGER(T, s, bits, is_signed)                                             \
  BINARY(add_##s, T, T, (uint64_t)a + (uint64_t)b)                                 \
  BINARY(sub_##s, T, T, (uint64_t)a - (uint64_t)b)                                 \
  BINARY(mul_##s, T, T, (uint64_t)a * (uint64_t)(b))                                  \
  BINARY(div_##s, T, T,                                                            \
         b == 0                        ? 0                                         \
         : (is_signed) && b == (T)(-1) ? (T)(0 - (uint64_t)a)                      \
                                       : (T)(a / b))                               \
  BINARY(rem_##s, T, T, b == 0 ? a : (is_signed) && b == (T)(-1) ? 0 : (T)(a % b)) \
  BINARY(min_##s, T, T, a < b ? a : b)                                             \
  BINARY(max_##s, T, T, a > b ? a : b)                                             \
  BINARY(and_##s, T, T, a & (b))                                                      \
  BINARY(or_##s, T, T, a | b)                                                      \
  BINARY(xor_##s, T, T, a ^ b)                                                     \
  BINARY(shl_##s, T, T, (uint64_t)b >= bits ? 0 : (uint64_t)a << (uint64_t)b)      \
  BINARY(shr_##s, T, T,                                                            \
         a >> ((uint64_t)b >= bits ? bits - 1 : (uint64_t)b) &                     \
             ((uint64_t)b >= bits && !(is_signed) ? 0 : (T)(-1)))                  \
  UNARY(neg_##s, T, 0 - (uint64_t)a)                                               \
  UNARY(abs_##s, T, (is_signed) && a < (T)1 ? 0 - (uint64_t)a : (uint64_t)a)       \
  UNARY(not_##s, T, ~a)                                                            \
  REDUCE(reduceadd_##s, T, (uint64_t)a + (uint64_t)b)                              \
  REDUCE(reducemul_##s, T, (uint64_t)a * (uint64_t)(b))                               \
  REDUCE(reducemin_##s, T, a < b ? a : b)                                          \
  REDUCE(reducemax_##s, T, a > b ? a : b)                                          \
  COMPARE(T, s)

#define FLOATING(T, s, f)                                                                          \
  BINARY(add_##s, T, T, a + b)                                                                     \
  BINARY(sub_##s, T, T, a - b)                                                                     \
  BINARY(mul_##s, T, T, a * (b))                                                                      \
  BINARY(div_##s, T, T, a / b)                                                                     \
  BINARY(rem_##s, T, T, fmod##f(a, b))                                                             \
  BINARY(min_##s, T, T, a < b ? a : b)                                                             \
  BINARY(max_##s, T, T, a > b ? a : b)                                                             \
  BINARY(copysign_##s, T, T, copysign##f(a, b))                                                    \
  UNARY(neg_##s, T, -a)                                                                            \
  UNARY(abs_##s, T, fabs##f(a))                                                                    \
  UNARY(sqrt_##s, T, sqrt##f(a))                                                                   \
  UNARY(floor_##s, T, floor##f(a))                                                                 \
  UNARY(ceil_##s, T, ceil##f(a))                                                                   \
  UNARY(trunc_##s, T, trunc##f(a))                                                                 \
  UNARY(rint_##s, T, rint##f(a))                                                                   \
  REDUCE(reduceadd_##s, T, a + b)                                                                  \
  REDUCE(reducemul_##s, T, a * (b))                                                                   \
  REDUCE(reducemin_##s, T, a < b ? a : b)                                                          \
  REDUCE(reducemax_##s, T, a > b ? a : b)                                                          \
  COMPARE(T, s)                                                                                    \
  static void fma_##s(const zn_idec *d, zn_imach *m) {                                             \
    const T *restrict pa = ZN_SLOT(T, m, d->a);                                                    \
    const T *restrict pb = ZN_SLOT(T, m, d->b);                                                    \
    const T *restrict pc = ZN_SLOT(T, m, d->c);                                                    \
    T *restrict pr = ZN_SLOT(T, m, d->r);                                                          \
    ZN_LANES(d, pr[i] = fma##f(pa[i], pb[i], pc[i]));                                              \
  }                                                                                                \
  static void math1_##s(const zn_idec *d, zn_imach *m) {                                           \
    const T *pa = ZN_SLOT(T, m, d->a);                                                             \
    T *pr = ZN_SLOT(T, m, d->r);                                                                   \
    for (uint32_t i = 0; i < d->n; i++) pr[i] = (T)zn_kfold_math((zn_kop)d->op, (double)pa[i], 0); \
  }                                                                                                \
  static void math2_##s(const zn_idec *d, zn_imach *m) {                                           \
    const T *pa = ZN_SLOT(T, m, d->a), *pb = ZN_SLOT(T, m, d->b);                                  \
    T *pr = ZN_SLOT(T, m, d->r);                                                                   \
    for (uint32_t i = 0; i < d->n; i++)                                                            \
      pr[i] = (T)zn_kfold_math((zn_kop)d->op, (double)pa[i], (double)pb[i]);                       \
  }

INTEGER(uint8_t, u8, 8, 0)
INTEGER(int8_t, i8, 8, 1)
INTEGER(uint16_t, u16, 16, 0)
INTEGER(int16_t, i16, 16, 1)
INTEGER(uint32_t, u32, 32, 0)
INTEGER(int32_t, i32, 32, 1)
INTEGER(uint64_t, u64, 64, 0)
INTEGER(int64_t, i64, 64, 1)
FLOATING(float, f32, f)
FLOATING(double, f64, )
UNARY(not_bool, uint8_t, !a)

static int32_t dot_part(uint32_t v, unsigned j, unsigned bits, bool is_signed) {
  uint32_t p = v >> (j * bits) & ((1u << bits) - 1u);
  return is_signed && p >> (bits - 1) ? (int32_t)p - (1 << bits) : (int32_t)p;
}

static void dot4(const zn_idec *d, zn_imach *m) {
  const uint32_t *pa = ZN_SLOT(uint32_t, m, d->a), *pb = ZN_SLOT(uint32_t, m, d->b), *pc = ZN_SLOT(uint32_t, m, d->c);
  uint32_t *pr = ZN_SLOT(uint32_t, m, d->r);
  for (uint32_t i = 0; i < d->n; i++) {
    int32_t p[4];
    for (unsigned j = 0; j < 4; j++)
      p[j] = dot_part(pa[i], j, 8, d->imm & ZN_DOT_A_SIGNED) * dot_part(pb[i], j, 8, d->imm & ZN_DOT_B_SIGNED);
    for (unsigned j = 0; j < 4 && d->imm & ZN_DOT_PAIRS; j += 2)
      if (p[j] + p[j + 1] < INT16_MIN || p[j] + p[j + 1] > INT16_MAX)
        ZN_BUG(m->c, "dot4: the pair %d + %d leaves 16 bits, which was proved impossible", p[j], p[j + 1]);
    pr[i] = pc[i] + (uint32_t)(p[0] + p[1] + p[2] + p[3]);
  }
}

static void pair4(const zn_idec *d, zn_imach *m) {
  const uint32_t *pa = ZN_SLOT(uint32_t, m, d->a), *pb = ZN_SLOT(uint32_t, m, d->b), *pc = ZN_SLOT(uint32_t, m, d->c);
  uint32_t *pr = ZN_SLOT(uint32_t, m, d->r);
  for (uint32_t i = 0; i < d->n; i++) {
    uint32_t halves = 0;
    for (unsigned h = 0; h < 2; h++) {
      int32_t sum = dot_part(pc[i], h, 16, true);
      for (unsigned j = 2 * h; j < 2 * h + 2; j++)
        sum += dot_part(pa[i], j, 8, d->imm & ZN_DOT_A_SIGNED) * dot_part(pb[i], j, 8, d->imm & ZN_DOT_B_SIGNED);
      if (sum < INT16_MIN || sum > INT16_MAX)
        ZN_BUG(m->c, "pair4: the sum %d leaves 16 bits, which was proved impossible", sum);
      halves |= ((uint32_t)sum & 65535) << (16 * h);
    }
    pr[i] = halves;
  }
}

static void dot2(const zn_idec *d, zn_imach *m) {
  const uint32_t *pa = ZN_SLOT(uint32_t, m, d->a), *pb = ZN_SLOT(uint32_t, m, d->b), *pc = ZN_SLOT(uint32_t, m, d->c);
  uint32_t *pr = ZN_SLOT(uint32_t, m, d->r);
  for (uint32_t i = 0; i < d->n; i++) {
    uint32_t sum = pc[i];
    for (unsigned j = 0; j < 2; j++) sum += (uint32_t)(dot_part(pa[i], j, 16, true) * dot_part(pb[i], j, 16, true));
    pr[i] = sum;
  }
}

static float real_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* Subnormal numbers as zeros. */
static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

float zn_interp_bf16_step(uint32_t x, uint32_t y, float sum) {
  const float a = flushed(real_of(x << 16)), b = flushed(real_of(y << 16));
  return flushed(fmaf(a, b, flushed(sum)));
}

static void dot2_bf16(const zn_idec *d, zn_imach *m) {
  const uint32_t *pa = ZN_SLOT(uint32_t, m, d->a), *pb = ZN_SLOT(uint32_t, m, d->b), *pc = ZN_SLOT(uint32_t, m, d->c);
  uint32_t *pr = ZN_SLOT(uint32_t, m, d->r);
  for (uint32_t i = 0; i < d->n; i++) {
    float sum = zn_interp_bf16_step(pa[i] >> 16, pb[i] >> 16, real_of(pc[i]));
    sum = zn_interp_bf16_step(pa[i] & 65535, pb[i] & 65535, sum);
    memcpy(&pr[i], &sum, sizeof sum);
  }
}

#define ROW_ALL(N, s)                                                                 \
  [ZN_K_Eq][ZN_##N] = eq_##s, [ZN_K_Ne][ZN_##N] = ne_##s, [ZN_K_Lt][ZN_##N] = lt_##s, \
  [ZN_K_Le][ZN_##N] = le_##s, [ZN_K_Gt][ZN_##N] = gt_##s, [ZN_K_Ge][ZN_##N] = ge_##s
#define ROW_NUM(N, s)                                                                           \
  ROW_ALL(N, s),                                                                                \
      [ZN_K_Add][ZN_##N] = add_##s, [ZN_K_Sub][ZN_##N] = sub_##s, [ZN_K_Mul][ZN_##N] = mul_##s, \
      [ZN_K_Div][ZN_##N] = div_##s, [ZN_K_Rem][ZN_##N] = rem_##s, [ZN_K_Min][ZN_##N] = min_##s, \
      [ZN_K_Max][ZN_##N] = max_##s, [ZN_K_Neg][ZN_##N] = neg_##s, [ZN_K_Abs][ZN_##N] = abs_##s, \
      [ZN_K_ReduceAdd][ZN_##N] = reduceadd_##s, [ZN_K_ReduceMul][ZN_##N] = reducemul_##s,       \
      [ZN_K_ReduceMin][ZN_##N] = reducemin_##s, [ZN_K_ReduceMax][ZN_##N] = reducemax_##s
#define ROW_INT(N, s)                                                        \
  ROW_NUM(N, s), [ZN_K_And][ZN_##N] = and_##s, [ZN_K_Or][ZN_##N] = or_##s,   \
                 [ZN_K_Xor][ZN_##N] = xor_##s, [ZN_K_Shl][ZN_##N] = shl_##s, \
                 [ZN_K_Shr][ZN_##N] = shr_##s, [ZN_K_Not][ZN_##N] = not_##s
#define ROW_FLOAT(N, s)                                                            \
  ROW_NUM(N, s), [ZN_K_Fma][ZN_##N] = fma_##s, [ZN_K_Sqrt][ZN_##N] = sqrt_##s,     \
                 [ZN_K_Floor][ZN_##N] = floor_##s, [ZN_K_Ceil][ZN_##N] = ceil_##s, \
                 [ZN_K_Trunc][ZN_##N] = trunc_##s, [ZN_K_Rint][ZN_##N] = rint_##s, \
                 [ZN_K_CopySign][ZN_##N] = copysign_##s

static const zn_ifn handlers[ZN_K_COUNT][ZN_DTYPE_COUNT] = {ROW_INT(U8, u8),
                                                            ROW_INT(I8, i8),
                                                            ROW_INT(U16, u16),
                                                            ROW_INT(I16, i16),
                                                            ROW_INT(U32, u32),
                                                            ROW_INT(I32, i32),
                                                            ROW_INT(U64, u64),
                                                            ROW_INT(I64, i64),
                                                            ROW_INT(IDX, i64),
                                                            ROW_FLOAT(F32, f32),
                                                            ROW_FLOAT(F64, f64),
                                                            ROW_ALL(BOOL, u8),
                                                            [ZN_K_Dot4][ZN_I32] = dot4,
                                                            [ZN_K_Pair4][ZN_I32] = pair4,
                                                            [ZN_K_Dot2][ZN_I32] = dot2,
                                                            [ZN_K_Dot2Bf16][ZN_I32] = dot2_bf16,
                                                            [ZN_K_And][ZN_BOOL] = and_u8,
                                                            [ZN_K_Or][ZN_BOOL] = or_u8,
                                                            [ZN_K_Xor][ZN_BOOL] = xor_u8,
                                                            [ZN_K_Not][ZN_BOOL] = not_bool,
                                                            [ZN_K_Eq][ZN_PTR] = eq_u64,
                                                            [ZN_K_Ne][ZN_PTR] = ne_u64};

zn_ifn zn_interp_arith(zn_kop op, zn_dtype t) {
  if (zn_kops[op].cls == 'M') {
    bool two = zn_kops[op].sig[1] == 'v';
    return t == ZN_F32 ? (two ? math2_f32 : math1_f32) : (two ? math2_f64 : math1_f64);
  }
  return handlers[op][t];
}

/* ---- conversions ---- */

static double decode16(zn_dtype t, uint16_t v) { return zn_float_decode(t, v); }

#define FROM_EACH(T)                           \
  case ZN_BOOL:                                \
  case ZN_U8: LOOP(uint8_t, T, PLAIN) break;   \
  case ZN_I8: LOOP(int8_t, T, PLAIN) break;    \
  case ZN_U16: LOOP(uint16_t, T, PLAIN) break; \
  case ZN_I16: LOOP(int16_t, T, PLAIN) break;  \
  case ZN_U32: LOOP(uint32_t, T, PLAIN) break; \
  case ZN_I32: LOOP(int32_t, T, PLAIN) break;  \
  case ZN_U64: LOOP(uint64_t, T, PLAIN) break; \
  case ZN_I64:                                 \
  case ZN_IDX: LOOP(int64_t, T, PLAIN) break;
#define LOOP(S, T, how) ZN_LANES(d, pr[i] = how(T, ZN_SLOT(S, m, d->a)[i]));
#define PLAIN(T, x) (T)(x)
#define SATURATE(T, x) (T) zn_kfold_float_to_int((zn_dtype)d->dtype, (double)(x))
#define HALF(T, x) (T) decode16((zn_dtype)d->from, (x))
#define HALF_SATURATE(T, x) \
  (T) zn_kfold_float_to_int((zn_dtype)d->dtype, decode16((zn_dtype)d->from, (x)))

#define CVT_INT(T, s)                                  \
  static void cvt_##s(const zn_idec *d, zn_imach *m) { \
    T *pr = ZN_SLOT(T, m, d->r);                       \
    switch ((int)d->from) {                            \
      FROM_EACH(T)                                     \
      case ZN_F32: LOOP(float, T, SATURATE) break;     \
      case ZN_F64: LOOP(double, T, SATURATE) break;    \
      default: LOOP(uint16_t, T, HALF_SATURATE) break; \
    }                                                  \
  }
#define CVT_FLOAT(T, s)                                \
  static void cvt_##s(const zn_idec *d, zn_imach *m) { \
    T *pr = ZN_SLOT(T, m, d->r);                       \
    switch ((int)d->from) {                            \
      FROM_EACH(T)                                     \
      case ZN_F32: LOOP(float, T, PLAIN) break;        \
      case ZN_F64: LOOP(double, T, PLAIN) break;       \
      default: LOOP(uint16_t, T, HALF) break;          \
    }                                                  \
  }
CVT_INT(uint8_t, u8)
CVT_INT(int8_t, i8)
CVT_INT(uint16_t, u16)
CVT_INT(int16_t, i16)
CVT_INT(uint32_t, u32)
CVT_INT(int32_t, i32)
CVT_INT(uint64_t, u64)
CVT_INT(int64_t, i64)
CVT_FLOAT(float, f32)
CVT_FLOAT(double, f64)

#undef PLAIN
#define PLAIN(T, x) (uint8_t)((x) != 0)
#undef HALF
#define HALF(T, x) (uint8_t)(decode16((zn_dtype)d->from, (x)) != 0)
CVT_FLOAT(uint8_t, bool)

#undef PLAIN
#define PLAIN(T, x) (uint16_t)zn_float_encode((zn_dtype)d->dtype, (double)(x), false)
#undef HALF
#define HALF(T, x) \
  (uint16_t)zn_float_encode((zn_dtype)d->dtype, decode16((zn_dtype)d->from, (x)), false)
CVT_FLOAT(uint16_t, half)

zn_ifn zn_interp_cvt(zn_dtype t) {
  switch ((int)t) {
    case ZN_BOOL: return cvt_bool;
    case ZN_U8: return cvt_u8;
    case ZN_I8: return cvt_i8;
    case ZN_U16: return cvt_u16;
    case ZN_I16: return cvt_i16;
    case ZN_U32: return cvt_u32;
    case ZN_I32: return cvt_i32;
    case ZN_U64: return cvt_u64;
    case ZN_I64:
    case ZN_IDX: return cvt_i64;
    case ZN_F32: return cvt_f32;
    case ZN_F64: return cvt_f64;
    case ZN_F16:
    case ZN_BF16: return cvt_half;
    default: return NULL;
  }
}
