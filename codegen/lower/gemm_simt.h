/* Private to gemm_simt.c and gemm_mma.c: a block of C on its way through a team of threads. */
#ifndef ZN_GEMM_SIMT_H
#define ZN_GEMM_SIMT_H
#include "codegen/lower/gemm.h"

enum { ZN_GS_REG = 8, ZN_GS_STAGE = 16 };

typedef struct zn_gs_shape { /* block of C, depth of a step, register tile of a thread (mma: of a warp) */
  uint16_t bm, bn, bk, tm, tn;
} zn_gs_shape;

typedef struct zn_gs_tile {
  const zn_gemm *g;
  zn_gs_shape s;
  zn_mma_format format; /* matrix units (gemm_mma.c): of the words in the shared tiles, */
  unsigned per;         /* and their elements */
  unsigned threads, parts, stages; /* stages: slots for tiles that are there or on their way (gemm_pipe.c) */
  unsigned ahead;                  /* steps that the copies are ahead (gemm_pipe.c) */
  bool fma;                        /* threads multiply, each for itself (gemm_pipe.c) */
  bool group, deferred;            /* four warps multiply together; over the end of a step (gemm_pipe.c) */
  uint64_t shared;                 /* bytes of shared memory (gemm_pipe.c) */
  zn_expr batch[ZN_MAX_RANK], part, row0, col0, k_begin, k_end;
  zn_kref thread, sa, sb; /* the thread's number; the shared tiles */
  zn_kref acc[ZN_GS_REG * ZN_GS_REG], stage_a[ZN_GS_STAGE], stage_b[ZN_GS_STAGE];
  zn_loc partial;
} zn_gs_tile;

double zn_gs_extent(zn_lw *lw, zn_expr e); /* symbolic extents count as long */
zn_kref zn_gs_load_b(zn_lw *lw, const zn_gemm *g, const zn_expr *batch, zn_expr k, zn_expr n);
/* min(x, extent - 1) as index below extent, x itself where `step` divides extent. */
zn_expr zn_gs_clamped(zn_lw *lw, zn_kref x, zn_expr extent, int64_t step);
/* Workspace for partial sums. */
zn_loc zn_gs_scratch(zn_lw *lw, const zn_gemm *g, unsigned parts);
/* Opens the grid and the team's thread loop (two regions) and sets the block's place. */
void zn_gs_open(zn_lw *lw, zn_gs_tile *t);
/* From shared memory to the epilogue, or to the workspace when the depth is cut. */
void zn_gs_hand_out(zn_lw *lw, const zn_gs_tile *t, zn_kref shared);

/* Element (m, n) of the block's sum: to the epilogue, or to the workspace when the depth is cut. */
void zn_gs_finish(zn_lw *lw, const zn_gs_tile *t, zn_expr m, zn_expr n, zn_kref sum);

/* Adds the parts of element (m, n) and runs the epilogue; a kernel that does so for all. */
void zn_gs_add_parts(zn_lw *lw, const zn_gemm *g, zn_loc partial, unsigned parts, const zn_expr *batch, zn_expr m, zn_expr n);
void zn_gs_sum_kernel(zn_lw *lw, const zn_gemm *g, zn_loc partial, unsigned parts);

/* gemm_pipe.c: matrix units, tiles copied asynchronously. false: does not apply, nothing was emitted. */
bool zn_gs_fma_fits(zn_lw *lw, const zn_gemm *g); /* f32 by single threads: reads sizes and A only */
bool zn_gs_pipe_fits(zn_lw *lw, const zn_gemm *g);
bool zn_gs_pipe(zn_lw *lw, zn_gs_tile *t);
/* gemm_mma.c: matrix units. fits: the schedule applies (decides how weights are packed, so it reads sizes only) to f16 and
 * bf16; units_fit: or to bytes, or to f32 that may be rounded to tf32. */
bool zn_gs_mma_fits(zn_lw *lw, const zn_gemm *g);
bool zn_gs_units_fit(zn_lw *lw, const zn_gemm *g);
bool zn_gs_mma(zn_lw *lw, zn_gs_tile *t);
#endif
