/* Between resize.c (tables of constants) and resize_late.c (tables that the run fills). */
#ifndef ZN_RESIZE_H
#define ZN_RESIZE_H
#include "codegen/lower/lower.h"

typedef struct zn_resize_axis {
  bool resized;
  zn_expr taps;
  zn_loc index, weight; /* [out][taps]: i32 positions (clamped), weights in the compute type; NaN: outside the region */
} zn_resize_axis;

typedef struct zn_resizer {
  zn_nid n;
  const zn_node *node;
  const char *mode, *coord, *nearest;
  double a;
  bool antialias, exclude, crop;
  zn_dtype ct; /* compute type */
} zn_resizer;

/* Where result o of the axis has a tap on the operand, of that extent, and what it counts. */
zn_expr zn_resize_position(zn_lw *lw, const zn_resize_axis *a, zn_expr o, zn_expr tap, zn_expr extent);
zn_kref zn_resize_weight(zn_lw *lw, const zn_resize_axis *a, zn_dtype ct, zn_expr o, zn_expr tap);
/* Opens the loop over the taps of result o: the position of the current one, whose weight multiplies *weight (0: becomes it;
 * NULL: is not read). */
zn_expr zn_resize_open_taps(zn_lw *lw, const zn_resize_axis *a, zn_dtype ct, zn_expr o, zn_expr extent, zn_kref *weight);
/* Rows of a plain image that are weighted sums, of several rows and then along themselves: the kernel, or false for others. */
bool zn_resize_by_lines(zn_lw *lw, const zn_resizer *r, const zn_resize_axis *axes);
/* Axis d of the operand, entry i of n of the operator's lists: a kernel that fills its tables. */
void zn_resize_fill(zn_lw *lw, const zn_resizer *r, int d, uint32_t i, uint32_t n, zn_resize_axis *out);
#endif
