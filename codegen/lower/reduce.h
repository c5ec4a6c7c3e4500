/* Reductions over one loop, shared by reduce, softmax and the normalisations. Sums use 16 partial sums along contiguous
 * axes, 32 along long ones, on every target (so bits do not depend on the vector width), combined by a halving tree. */
#ifndef ZN_REDUCE_H
#define ZN_REDUCE_H
#include "codegen/lower/lower.h"

typedef enum zn_red {
  ZN_RED_SUM,
  ZN_RED_PROD,
  ZN_RED_MAX,
  ZN_RED_MIN,
  ZN_RED_MAX_NUM /* for callers to whom the maximum of numbers and NaN may be anything */
} zn_red;

/* Neutral element as a constant of type t. */
zn_kref zn_red_init(zn_lw *lw, zn_red r, zn_dtype t);
/* ReduceSum, ...: which reduction its steps are. */
zn_red zn_red_of(zn_op op);
/* A Reduce node whose axes only the run knows (reduce_late.c). */
zn_status zn_lower_reduce_late(zn_lw *lw, zn_nid n);
/* One step; Max and Min keep NaN. */
zn_kref zn_red_step(zn_lw *lw, zn_red r, zn_kref acc, zn_kref x);
/* Element j of what is reduced, in type t. */
/* SIMT: do warps reduce values of type t by exchange? And then: x of all threads of the warp, reduced, for each of them. Inside
 * thread loops of whole warps. */
bool zn_red_exchanges(const zn_lw *lw, zn_dtype t);
zn_kref zn_red_warp(zn_lw *lw, zn_red r, zn_kref x);
typedef zn_kref (*zn_red_elem)(zn_lw *lw, void *user, zn_expr j);
zn_kref zn_red_scratch(zn_lw *lw, zn_dtype t);
enum { ZN_RED_MAX_ROWS = 4 };
/* How many rows of dims[axis - 1] a step of the grid takes side by side: while one waits for its sum, others have elements
 * computed. A power of two, at most `most` unless measurements for `node` say otherwise, and never more than ZN_RED_MAX_ROWS; 1
 * on SIMT targets. */
int64_t zn_red_rows_beside(zn_lw *lw, zn_nid node, zn_dtype t, const zn_expr *dims, int axis, int64_t most);
/* Begins a grid over dims[0 .. axis) by so many rows, and the loop over those; idx: the row; its scratch is returned. */
zn_kref zn_red_begin_rows(zn_lw *lw, zn_dtype t, const zn_expr *dims, int axis, int64_t rows, zn_expr *idx);
void zn_red_end_rows(zn_lw *lw, int64_t rows);
/* Reduces elem(0 .. n-1), consecutive j being consecutive in memory. `partial` comes from
 * zn_red_scratch, called at the start of the kernel. */
zn_kref zn_red_inner(zn_lw *lw, zn_red r, zn_dtype t, zn_expr n, zn_kref partial, zn_red_elem elem, void *user);
/* The same, bit for bit, with at most so many vectors of partial sums formed side by side: for elements that take many
 * registers (exponentials). */
zn_kref zn_red_inner_beside(zn_lw *lw, zn_red r, zn_dtype t, zn_expr n, zn_kref partial, unsigned most, zn_red_elem elem,
                            void *user);
#endif
