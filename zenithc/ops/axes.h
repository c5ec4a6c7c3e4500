/* Lists of axes that may be known at run time only (reductions, Squeeze, Unsqueeze, Pad), as formulas: every axis gets a
 * factor of 0 or 1 that says whether the list names it, so that shapes and index maps are expressions like any other. The
 * number of entries must be known, because ranks depend on it. */
#ifndef ZN_AXES_H
#define ZN_AXES_H
#include "zenithc/ops/op.h"

typedef struct zn_axes {
  uint32_t count;
  bool known;                   /* every entry is a constant */
  zn_expr entry[ZN_MAX_RANK];   /* as given: negative ones count from the end */
  zn_expr mask[ZN_MAX_RANK];    /* 1 when axis d is listed, else 0 */
  zn_expr before[ZN_MAX_RANK];  /* axes in front of d that are not listed */
} zn_axes;

/* 1 when a is axis d of a tensor of this rank, else 0; a in [-rank, rank). */
zn_expr zn_axes_is(zn_exprs *ex, zn_expr a, int d, int rank);
/* 1 when a == b, else 0. */
zn_expr zn_axes_equal(zn_exprs *ex, zn_expr a, zn_expr b);
/* The list `axes` (0: the empty list) on a tensor of this rank. False when inference did not name its contents, or when it
 * has more entries than axes. */
bool zn_axes_resolve(const zn_graph *g, zn_vid axes, int rank, zn_axes *out);
/* The dims of what is left when the listed axes are dropped: rank - count of them. */
void zn_axes_drop(zn_exprs *ex, const zn_axes *a, int rank, const zn_expr *dims, zn_expr *out);
/* The reverse: dims of this rank with 1 at the listed axes and `in` (rank - count of them) at the others. */
void zn_axes_insert(zn_exprs *ex, const zn_axes *a, int rank, const zn_expr *in, zn_expr *out);
#endif
