/* Private to bands*.c: a run of kernels over images that is computed band by band of rows. */
#ifndef ZN_BANDS_H
#define ZN_BANDS_H
#include "zenithc/passes/pass.h"

enum { ZN_BAND_UNITS = 12, ZN_BAND_MOST = 64, ZN_BAND_ROWS = 2 /* the axis of rows: images are [n, channels, rows, columns] */ };

/* How output rows follow from the rows of operand 0. */
typedef struct zn_band_flow {
  bool window; /* false: row for row */
  int64_t kernel, stride, dilation, pad;
} zn_band_flow;

typedef struct zn_bands {
  zn_vid v[ZN_BAND_UNITS]; /* stored results in the order in which they are computed; the last one stays whole */
  uint32_t n, num;         /* of them; of bands */
  /* Rows of result u in band k: [first, end) are computed, from `start` on they are at hand. */
  int64_t first[ZN_BAND_UNITS][ZN_BAND_MOST], end[ZN_BAND_UNITS][ZN_BAND_MOST], start[ZN_BAND_UNITS][ZN_BAND_MOST];
  bool strip[ZN_BAND_UNITS]; /* rows of one band serve the next: they move to the beginning of the strip */
  zn_vid over;               /* the last result is stored over this image, or 0 */
} zn_bands;

int64_t zn_band_height(const zn_graph *g, zn_vid v);
/* The rows of operand i that rows [*lo, *hi) of node n need, clipped to the image: they replace *lo and *hi. false: operand
 * i is the same for all rows. Only for nodes of a chosen run. */
bool zn_band_operand(const zn_graph *g, const zn_node *n, uint32_t i, int64_t *lo, int64_t *hi);
bool zn_band_flow_of(const zn_graph *g, const zn_node *n, zn_band_flow *out);
/* Stored rows of result u in band k that are zeros before and behind the image, and in all bands together. */
int64_t zn_band_above(const zn_graph *g, const zn_bands *b, uint32_t u, uint32_t k);
int64_t zn_band_below(const zn_graph *g, const zn_bands *b, uint32_t u, uint32_t k);
int64_t zn_band_capacity(const zn_graph *g, const zn_bands *b, uint32_t u);
/* The best run for `room` bytes of intermediate values; false: none makes the peak smaller. Only values below `known`. */
bool zn_bands_choose(zn_ctx *c, const zn_graph *g, uint32_t known, int64_t room, zn_bands *out);
#endif
