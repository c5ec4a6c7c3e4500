/* Fields of zn_caps that rows of several tables share: what the processors of a family can do, whoever prints their code. */
#ifndef ZN_CAPS_GROUPS_H
#define ZN_CAPS_GROUPS_H
#include "zenithc/base/caps.h"

enum {
  ZN_FEATS_V2 = ZN_FEAT_SSE42,
  ZN_FEATS_V3 = ZN_FEATS_V2 | ZN_FEAT_AVX2 | ZN_FEAT_FMA | ZN_FEAT_F16C | ZN_FEAT_BMI2,
  ZN_FEATS_V4 = ZN_FEATS_V3 | ZN_FEAT_AVX512,
  ZN_FEATS_I8MM = ZN_FEAT_DOTPROD | ZN_FEAT_I8MM
};

#define ZN_CAPS_WIDE .idx_bytes = 8, .f64_native = true /* machines of 64 bits */
#define ZN_CAPS_MODERN ZN_CAPS_WIDE, .fma = true, .round_native = true, .dot2 = true
#define ZN_CAPS_AVX2 ZN_CAPS_MODERN, .vector_bytes = 32, .vector_regs = 16
#define ZN_CAPS_AVX512 ZN_CAPS_MODERN, .vector_bytes = 64, .vector_regs = 32
#define ZN_CAPS_NEON ZN_CAPS_MODERN, .vector_bytes = 16, .vector_regs = 32
#define ZN_CAPS_NEON_PLAIN ZN_CAPS_NEON, .dot4 = ZN_DOT4_SIGNED_PAIRS
#define ZN_CAPS_NEON_DOT ZN_CAPS_NEON, .dot4 = ZN_DOT4_SAME, .feature_bits = ZN_FEAT_DOTPROD
#define ZN_CAPS_NEON_I8MM ZN_CAPS_NEON, .dot4 = ZN_DOT4_ANY, .feature_bits = ZN_FEATS_I8MM
#define ZN_CAPS_CORTEX_M .idx_bytes = 4, .dot2 = true, .dot4 = ZN_DOT4_SCALAR
#define ZN_CAPS_HELIUM .idx_bytes = 4, .vector_bytes = 16, .vector_regs = 8, .fma = true, .f64_native = true
#endif
