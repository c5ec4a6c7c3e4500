/* What a target can do, as plain data. Passes and schedules read this and never a target. */
#ifndef ZN_CAPS_H
#define ZN_CAPS_H
#include <stdbool.h>
#include <stdint.h>

/* Required CPU features of an artifact, checked at run time (zn_model.features in runtime/zenith.h uses the same bits). */
enum {
  ZN_FEAT_AVX2 = 1u << 0, ZN_FEAT_FMA = 1u << 1, ZN_FEAT_F16C = 1u << 2, ZN_FEAT_AVX512 = 1u << 3, /* F BW CD DQ VL */
  ZN_FEAT_SSE42 = 1u << 4, ZN_FEAT_BMI2 = 1u << 5
};

typedef struct zn_caps {
  const char *target;   /* "cpu", "c", "interp" */
  const char *arch;     /* as the user named it: "x86-64-v3", "cortex-m4", "aarch64", "native" resolved */
  const char *triple;   /* LLVM target triple; NULL where meaningless */
  const char *cpu;      /* LLVM CPU name */
  const char *features; /* LLVM feature string */
  unsigned idx_bytes;   /* 4 or 8: width of idx and ptr */
  unsigned vector_bytes;/* native vector register width; 0 = scalar only */
  unsigned vector_regs; /* 16, 32 */
  bool fma;             /* scalar and vector fused multiply-add in f32 and f64 (else Fma is expanded to mul+add) */
  bool f16_convert;     /* f16 <-> f32 in one instruction */
  bool round_native;    /* floor ceil trunc rint in one instruction */
  bool f64_native;      /* double arithmetic in hardware */
  bool big_endian;
  uint32_t feature_bits;/* ZN_FEAT_* the generated code needs */
  uint64_t l1_bytes, l2_bytes;
  unsigned cores;       /* expected threads for splitting work; 0 = unknown */
} zn_caps;
#endif
