/* What a target can do, as plain data. Passes and schedules read this and never a target. */
#ifndef ZN_CAPS_H
#define ZN_CAPS_H
#include <stdbool.h>
#include <stdint.h>

/* Required CPU features of an artifact, checked at run time (zn_model.features in runtime/zenith.h uses the same bits). */
enum {
  ZN_FEAT_AVX2 = 1u << 0, ZN_FEAT_FMA = 1u << 1, ZN_FEAT_F16C = 1u << 2, ZN_FEAT_AVX512 = 1u << 3, /* F BW CD DQ VL */
  ZN_FEAT_SSE42 = 1u << 4, ZN_FEAT_BMI2 = 1u << 5,
  ZN_FEAT_AVXVNNI = 1u << 6,    /* vpdpbusd on 128 and 256 bits */
  ZN_FEAT_AVX512VNNI = 1u << 7, /* and on 512 */
  ZN_FEAT_DOTPROD = 1u << 8,    /* AArch64 sdot, udot */
  ZN_FEAT_I8MM = 1u << 9,       /* AArch64 usdot, smmla, ummla, usmmla */
  ZN_FEAT_AMX = 1u << 10,       /* amx-tile, amx-int8, amx-bf16, and the system lets this process use them */
  ZN_FEAT_RVV = 1u << 11,       /* RISC-V V, version 1.0 */
  ZN_FEAT_AVX512BF16 = 1u << 12 /* vdpbf16ps on 128 to 512 bits */
};

/* What 4-way products of bytes cost (Dot4 of codegen/kir/kops.def). */
typedef enum zn_dot4_kind {
  ZN_DOT4_NONE,  /* expanded: widen to 16 bits and use Dot2 instead */
  ZN_DOT4_PAIRS, /* u8 * i8 in a few instructions, when ZN_DOT_PAIRS is proved (vpmaddubsw) */
  ZN_DOT4_SIGNED_PAIRS, /* i8 * i8, exact, in a few instructions, fewer when ZN_DOT_PAIRS is proved (smull, sadalp) */
  ZN_DOT4_MIXED, /* u8 * i8, exact (vpdpbusd) */
  ZN_DOT4_SAME,  /* i8 * i8 and u8 * u8, exact (sdot, udot) */
  ZN_DOT4_ANY,   /* these and u8 * i8, exact (sdot, udot, usdot) */
  ZN_DOT4_SCALAR /* any signs, exact, one 32-bit word at a time (uxtb16, sxtb16, smlad) */
} zn_dot4_kind;

/* How a target computes a TileDot (kops.def): whose layout its operands have, and what the schedules count on. */
typedef enum zn_tile_kind {
  ZN_TILE_NONE,
  ZN_TILE_AMX,   /* up to 2 x 2 tiles of 16 rows by 16 columns, 64 bytes deep, of any signs */
  ZN_TILE_PAIRS, /* pairs of rows by pairs of columns, 8 bytes deep, of any signs: smmla, ummla, usmmla */
  ZN_TILE_RUNS   /* a row by a column, 16 bytes deep, of equal signs: vmladava */
} zn_tile_kind;

/* Bytes of depth that follow each other in a row (a group), and in a column (a unit). */
static inline unsigned zn_tile_group(unsigned kind) { return kind == ZN_TILE_AMX ? 64 : kind == ZN_TILE_PAIRS ? 8 : 16; }
static inline unsigned zn_tile_unit(unsigned kind) { return kind == ZN_TILE_RUNS ? 16 : 4; }

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
  bool dot2;            /* two products of 16 bits into one 32-bit sum in about one instruction: vpmaddwd, smlad */
  bool dot_bf16;        /* Dot2Bf16 in an instruction (vdpbf16ps), and TileDot of bf16 where tiles are AMX's */
  uint8_t dot4;         /* zn_dot4_kind */
  uint8_t tile_dot;     /* zn_tile_kind */
  bool f64_native;      /* double arithmetic in hardware */
  bool f64_alone;       /* ... but not in vectors */
  bool big_endian;
  uint32_t feature_bits;/* ZN_FEAT_* the generated code needs */
  uint64_t l1_bytes, l2_bytes;
  bool simt;            /* kernels run as teams of threads (codegen/kir/simt.c); vector_bytes is then 0 */
  bool mma;             /* SIMT: the matrix operation of kops.def (Mma) */
  bool group_mma;       /* SIMT: GroupMma of kops.def */
  unsigned sm;          /* SIMT: generation of the instruction set, e.g. 90 */
  unsigned warp;        /* SIMT: threads in lockstep */
  unsigned team_max;    /* SIMT: largest team */
  uint64_t shared_bytes;/* SIMT: shared memory a team may have */
  unsigned launch;      /* cycles between a kernel and the next that depends on it; 0 = nothing that kernels in one would save */
  unsigned cores;       /* expected threads for splitting work; 0 = unknown */
  const struct zn_caps *host; /* SIMT: the processor beside the device, for kernels that it cannot run; NULL = none */
} zn_caps;
#endif
