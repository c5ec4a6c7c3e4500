/* Spatial windows: attributes of Conv and pooling operators, resolved. */
#ifndef ZN_WINDOW_H
#define ZN_WINDOW_H
#include "codegen/lower/lower.h"

typedef struct zn_window {
  int rank; /* spatial axes */
  int64_t kernel[ZN_MAX_RANK], stride[ZN_MAX_RANK], dilation[ZN_MAX_RANK];
  zn_expr pad_lo[ZN_MAX_RANK]; /* auto_pad resolved; may be symbolic */
  zn_expr pad_hi[ZN_MAX_RANK];
} zn_window;

/* x: [N, C, spatial...]; kernel sizes from the kernel_shape attribute or, when absent, from `w`'s trailing dims. */
zn_status zn_window_read(zn_lw *lw, zn_nid n, zn_vid x, zn_vid w, zn_vid y, zn_window *out);
#endif
