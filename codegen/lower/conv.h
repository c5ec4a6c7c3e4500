/* Private to conv*.c: one convolution on its way to a kernel. */
#ifndef ZN_CONV_H
#define ZN_CONV_H
#include "codegen/lower/window.h"

typedef struct zn_conv {
  zn_nid n;
  zn_vid x, w, bias, y;
  zn_type tx, tw, ty;
  zn_window win;
  zn_expr group, icg, ocg; /* groups; channels per group in and out */
  int64_t taps;            /* product of kernel sizes */
  zn_dtype ct;             /* of the accumulators */
  zn_dtype xt, wt;         /* of the padded copy and of packed weights */
  zn_vid zx, zw;           /* zero points of the integer forms, or 0 */
  zn_vid sx, sw, sy, zy;   /* QLinearConv only */
  /* the input as the loops see it */
  bool copied;
  bool raw;       /* the copy (guarded: the condition) gives the integers themselves, in the border the zero point */
  zn_loc scratch;
  zn_expr dims[ZN_MAX_RANK]; /* spatial extents of the scratch; the last one per phase */
  int64_t phases;
  unsigned maps;
  zn_loc packed;
  bool is_packed;
  const zn_htensor *w_data;  /* constant weights, or NULL (conv_nhwc.c) */
  bool guarded;              /* elements are read through conditions (SIMT) */
  zn_loc border;             /* 16 bytes of the zero point (conv_nhwc.c) */
  zn_loc sums;               /* with raw: what the weights of each output channel add up to */
} zn_conv;

enum { ZN_CONV_SLACK = 64 }; /* elements behind the padded scratch that a vector load may touch */

/* Is the input read through a zero-bordered, phase-split copy? */
bool zn_conv_needs_copy(zn_lw *lw, const zn_conv *v);
/* The kernel that makes it. */
void zn_conv_copy_input(zn_lw *lw, zn_conv *v);
/* Input element under tap `tap` of output position pos (spatial). */
zn_kref zn_conv_input(zn_lw *lw, const zn_conv *v, zn_expr n, zn_expr c, const zn_expr *pos,
                      const zn_expr *tap);
/* The same under a condition, at holding padded coordinates (conv_simt.c). */
zn_kref zn_conv_guarded(zn_lw *lw, const zn_conv *v, zn_expr n, zn_expr c, const zn_expr *at);
/* Where tile i of `count` tiles over an extent starts: min(i * step, extent - step). */
zn_expr zn_conv_tile_start(zn_lw *lw, zn_expr i, int64_t step, int64_t count, int64_t extent);
/* The output position of a row: pos of every spatial axis but the last, from the row's number over all of them. */
void zn_conv_split_row(zn_lw *lw, const zn_conv *v, zn_expr row, zn_expr *pos);
/* Weight i minus the zero point of its output channel (zero: NULL, or one or as many as channels). */
int32_t zn_conv_centred(const zn_htensor *w, const zn_htensor *zero, uint64_t i);
/* The output position (spatial) in column col of a row; width > 0: col may pass the end of the row, as the next rows
 * follow it. */
void zn_conv_locate(zn_lw *lw, const zn_conv *v, int64_t width, zn_expr row, zn_expr col, zn_expr *pos);
/* Bias of output channel oc, or zero. */
zn_kref zn_conv_bias(zn_lw *lw, const zn_conv *v, zn_expr oc);
/* The finished sum of an output element; `at` is its index. Requantises for QLinearConv. */
void zn_conv_emit(zn_lw *lw, const zn_conv *v, const zn_expr *at, zn_kref acc);
/* Integers with constant weights (conv_int8.c), like the next one. */
bool zn_conv_int8(zn_lw *lw, zn_conv *v);
/* The schedule for channel-blocked results (conv_direct.c): false when it does not apply, and nothing is emitted then. */
bool zn_conv_direct(zn_lw *lw, zn_conv *v);
/* The same with fewer multiplications, under --math=fast (conv_winograd.c). */
bool zn_conv_winograd(zn_lw *lw, zn_conv *v);
/* The same for depthwise convolutions (conv_lanes.c). */
bool zn_conv_lanes(zn_lw *lw, zn_conv *v);
/* The panel schedule (conv_panel.c), likewise. */
bool zn_conv_panel(zn_lw *lw, zn_conv *v);
/* SIMT: is value v an image with all channels of a pixel side by side? The schedules for such input and result
 * (conv_nhwc.c), like the above. */
bool zn_conv_is_nhwc(const zn_lw *lw, zn_vid v);
bool zn_conv_nhwc(zn_lw *lw, zn_conv *v);
/* The depthwise schedule (conv_depth.c), likewise. */
bool zn_conv_depth(zn_lw *lw, zn_conv *v);
/* Its form for bytes (conv_depth_int8.c). */
bool zn_conv_depth_int8(zn_lw *lw, zn_conv *v);
#endif
