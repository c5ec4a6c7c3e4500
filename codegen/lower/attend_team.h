/* Private to the schedules of fused attention on SIMT targets: a team of threads at a block of rows (attend.c, attend_fma.c). */
#ifndef ZN_LOWER_ATTEND_TEAM_H
#define ZN_LOWER_ATTEND_TEAM_H
#include "codegen/lower/lower.h"
#include "zenithc/ops/attention_form.h"

typedef struct zn_at_team {
  zn_attend o;
  zn_vid y;
  zn_dtype t; /* of the operands, in memory and in shared memory */
  int rank;
  unsigned threads;
  int64_t rows, keys;           /* of the block; of a tile */
  zn_expr batch[ZN_MAX_RANK];
  zn_kref thread;
} zn_at_team;

/* Rows of an operand in shared memory: from element `base` of `to` on, `pitch` elements apart. */
typedef struct zn_at_place {
  zn_kref to, base;
  int64_t pitch;
} zn_at_place;

/* Copies rows first .. first + rows of operand v, `depths` long (a multiple of 16 bytes), whose last two axes are exchanged when
 * `turned`; asynchronously where they allow it. Rows behind the operand's `extent` repeat its last one. */
void zn_at_copy_rows(zn_lw *lw, const zn_at_team *t, zn_vid v, bool turned, zn_kref first, int64_t rows, int64_t extent,
                     int64_t depths, zn_at_place at);
/* f of the score at (row, key), as Softmax would read it; minus infinity behind the last key. */
zn_kref zn_at_mapped(zn_lw *lw, const zn_at_team *t, zn_kref score, zn_kref row, zn_kref key);
zn_kref zn_at_exp(zn_kb *b, zn_kref x); /* of an x that is not positive */
/* x, or zero where no exponential was above zero and the graph says that such a row is zero. */
zn_kref zn_at_guarded(zn_lw *lw, const zn_at_team *t, zn_kref x, zn_kref sum);
/* Opens the grid over batches and blocks of rows; returns the block's first row. Closed by zn_lw_end. */
zn_expr zn_at_grid(zn_lw *lw, zn_at_team *t);
/* Blocks that a block of so many rows makes of all batches. */
double zn_at_blocks(zn_lw *lw, const zn_at_team *t, int64_t rows);

/* attend_fma.c: f32 by single threads. */
zn_status zn_lower_attend_fma(zn_lw *lw, zn_nid n, const zn_attend *o);
#endif
