/* Private to gemm_simt.c and gemm_mma.c: a block of C on its way through a team of threads. */
#ifndef ZN_GEMM_SIMT_H
#define ZN_GEMM_SIMT_H
#include "codegen/lower/gemm.h"

enum { ZN_GS_REG = 8, ZN_GS_STAGE = 16, ZN_GS_COLUMNS = 256 };

/* May a block have bn of n columns? Wider ones would mostly be empty. */
static inline bool zn_gs_columns_fit(uint64_t bn, double n) { return bn <= 64 || (double)bn < 2 * n; }

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
  unsigned blocks;                 /* of a multiprocessor, side by side (gemm_stream.c); 0: not by producers and consumers */
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

/* Sets where the tile's share of the depth begins and ends, by its part. */
void zn_gs_set_depth(zn_lw *lw, zn_gs_tile *t);
/* Packed B in tiles: [64 steps][eight columns], 1024 bytes each, whose 16-byte piece p of column c is at place p ^ c, as
 * GroupMma reads them. Number of the element at depth k, a multiple of the piece's elements, and column n. */
zn_kref zn_gs_tile_element(zn_lw *lw, const zn_gemm *g, zn_kref k, zn_kref n);

/* gemm_pipe.c. Copies operand A's or B's part of the step at depth k0 into slot number `slot`; the work of t->threads threads. */
void zn_gs_fetch(zn_lw *lw, const zn_gs_tile *t, bool is_a, zn_kref slot, zn_kref k0);
/* `run` neighbours of a row from (row, col) on, whose sums lie in shared memory from word `at` on, to the epilogue, unless they
 * are outside of C. */
void zn_gs_finish_run(zn_lw *lw, const zn_gs_tile *t, zn_kref row, zn_kref col, zn_kref shared, zn_kref at, int64_t run);
/* gemm_rows.c: a few rows and packed weights whose depth is innermost. fits: reads sizes and types. */
bool zn_gs_rows_fit(zn_lw *lw, const zn_gemm *g);
void zn_gs_rows(zn_lw *lw, const zn_gemm *g);
/* gemm_stream.c: the kernel as t says; bytes of shared memory beside the slots for so many groups of consumers. */
void zn_gs_stream(zn_lw *lw, zn_gs_tile *t);
uint64_t zn_gs_stream_extra(unsigned groups);
/* gemm_pipe.c: matrix units, tiles copied asynchronously. false: does not apply, nothing was emitted. */
bool zn_gs_fma_fits(zn_lw *lw, const zn_gemm *g); /* f32 by single threads: reads sizes and A only */
bool zn_gs_pipe_fits(zn_lw *lw, const zn_gemm *g);
bool zn_gs_pipe(zn_lw *lw, zn_gs_tile *t);
/* gemm_mma.c: matrix units. fits: the schedule applies (decides how weights are packed, so it reads sizes only) to f16 and
 * bf16; units_fit: or to bytes, or to f32 that may be rounded to tf32. */
bool zn_gs_mma_fits(zn_lw *lw, const zn_gemm *g);
bool zn_gs_units_fit(zn_lw *lw, const zn_gemm *g);
zn_mma_format zn_gs_format(const zn_gemm *g); /* of operands on matrix units */
bool zn_gs_mma(zn_lw *lw, zn_gs_tile *t);
#endif
