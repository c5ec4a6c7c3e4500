/* The matrix-product schedule: C[m, n] = sum_k A[m, k] * B[k, n] as register tiles of rows x vectors, shared by MatMul, Gemm
 * and the small-image form of Conv. Operands and results go through callbacks, so any index map fits. */
#ifndef ZN_GEMM_H
#define ZN_GEMM_H
#include "codegen/lower/lower.h"

/* Where neighbours along the depth lie: from element `element` of `from` on. Unless `inside` (0: always) they are the 16 bytes at
 * `outside`, or, where that is 0, zeros. */
typedef struct zn_gemm_spot {
  zn_kref from, element, inside, outside;
} zn_gemm_spot;

typedef struct zn_gemm {
  zn_nid node;
  const char *hint;         /* kernel name */
  uint32_t num_batch;
  zn_expr batch[ZN_MAX_RANK]; /* extents of the batch axes */
  zn_expr m, n, k;
  zn_dtype t;               /* accumulator type */
  zn_kref (*a)(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr k);
  zn_kref (*b)(zn_lw *lw, void *user, const zn_expr *batch, zn_expr k, zn_expr n);
  /* Initial accumulator of element (m, n); NULL: zero. */
  zn_kref (*init)(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n);
  void (*emit)(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n, zn_kref acc);
  void *user;
  /* B packed at compile time into panels of `panel` columns, [ceil(n/panel)][k][panel], the last one ending at column n;
   * then b is not called. */
  bool packed;
  zn_loc panels;
  zn_dtype panel_dtype;
  const void *raw;        /* for packing, instead of copy: B in memory as it is packed, or NULL */
  uint64_t raw_k, raw_n;  /* its strides in elements */
  zn_vid rows_of;         /* the value whose element [batch..., m, n] each result is; 0: none */
  bool rows_inner;        /* results of neighbouring rows, not columns, are neighbours in memory (for SIMT schedules) */
  bool b_depth_inner;     /* B's elements along the depth are neighbours in memory (for SIMT schedules) */
  bool b_tiles;           /* the packed B lies in tiles of eight columns and 64 steps, as GroupMma reads them (gemm_simt.h) */
  zn_dtype narrow;        /* F16 or BF16: elements of A and B are values of that type (for matrix units); else ZN_NONE */
  zn_dtype bytes;         /* U8 or I8: elements of A are those, of B (packed) I8, t is I32 (matrix units); else ZN_NONE */
  bool a_plain;           /* A is stored as `narrow` (bytes, f32), in aligned rows: neighbours along k may be read together */
  /* The same for an A that is spread over memory in runs of 16 bytes: the spot of the run that starts at (m, k), k a multiple
   * of its length. Then `a` is not called. */
  zn_gemm_spot (*spot)(zn_lw *lw, void *user, zn_expr m, zn_expr k);
  bool a_rows_inner;      /* neighbouring rows of A are neighbours in memory, whatever the results are */
  unsigned rows, vectors; /* the register tile; 0: chosen when packing or emitting */
} zn_gemm;

/* Packs an element function of constant data into panels in c->graph; copy gives element (k, n) at compile time.
 * All sizes of g must be set: they decide the register tile and with it the panels. */
void zn_gemm_pack(zn_lw *lw, zn_gemm *g, const char *name, uint64_t k, uint64_t n, zn_dtype dtype,
                  void (*copy)(void *user, uint64_t k, uint64_t n, void *dst), void *user);
/* One kernel; two where n may be smaller than a register tile. */
void zn_gemm_emit(zn_lw *lw, const zn_gemm *g);
/* Can a product whose A is given by spots be emitted? Reads sizes and types. */
bool zn_gemm_spots_fit(zn_lw *lw, const zn_gemm *g);
/* gemm_simt.c: the same for SIMT targets. Packing there is one panel of all columns. */
void zn_gemm_pack_simt(zn_lw *lw, zn_gemm *g, const char *name, uint64_t k, uint64_t n, zn_dtype dtype,
                       void (*copy)(void *user, uint64_t k, uint64_t n, void *dst), void *user);
void zn_gemm_simt(zn_lw *lw, const zn_gemm *g);
/* Useful part of extent e in steps of s; symbolic extents count as long. */
double zn_gemm_use(zn_lw *lw, zn_expr e, int64_t s);
/* Cuts the blocks of rows into parts of *out_each, so that these, the batch axes and the blocks of columns (not counted where
 * their number is symbolic) are enough to share out, or as many as measurements for the node say. */
void zn_gemm_cut_rows(zn_lw *lw, zn_nid node, uint32_t num_batch, const zn_expr *batch, zn_expr row_blocks, zn_expr column_blocks,
                      zn_expr *out_each, zn_expr *out_parts);
/* Where tile i of `step` rows or columns starts: min(i * step, extent - step), as a plain variable. */
zn_expr zn_gemm_tile_start(zn_lw *lw, zn_expr i, int64_t step, zn_expr extent);
/* acc + a*b in type t: fma for floats. */
zn_kref zn_mul_add(zn_lw *lw, zn_kref a, zn_kref b, zn_kref acc);
#endif
