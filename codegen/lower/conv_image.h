/* Private to conv_direct.c and conv_lanes.c: a convolution whose input is stored with borders of zeros wide enough for
 * its padding (zn_layout's halo), so that every tap of every output position lies in memory. */
#ifndef ZN_CONV_IMAGE_H
#define ZN_CONV_IMAGE_H
#include "codegen/lower/conv.h"

typedef struct zn_conv_image {
  const zn_conv *v;
  int64_t groups, icg, ocg;          /* channels per group */
  int64_t oh, ow;                    /* output image; oh = 1 for one spatial axis */
  int64_t kh, kw, sh, sw, dh, dw;
  int64_t block;                     /* of the input's channels; 0 = plain */
  int64_t rows, width;               /* stored extents of an input plane, borders included */
  int64_t row0, col0;                /* stored position under tap (0, 0) of output (0, 0) */
  int64_t above, height;             /* rows of zeros between row0 and the image (padding); rows of the image */
  int64_t lanes;
} zn_conv_image;

/* False when a size is unknown, an axis too many, a border too narrow or the type not a vector's. */
bool zn_conv_image_read(zn_lw *lw, const zn_conv *v, zn_conv_image *out);
/* Element offset of the first channel of block `cb` (plain: of channel cb) at stored row and column. */
zn_expr zn_conv_image_at(zn_lw *lw, const zn_conv_image *m, zn_expr n, zn_expr cb, zn_expr row, zn_expr col);
/* Index of an output element, for zn_lw_emit. */
void zn_conv_image_out(const zn_conv_image *m, zn_expr n, zn_expr c, zn_expr row, zn_expr col, zn_expr *out_idx);
#endif
