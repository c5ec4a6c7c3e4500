/* Decoded images of the ImageDecoder operator. */
#ifndef ZN_DECODE_H
#define ZN_DECODE_H
#include <stdbool.h>

#include "zenithc/base/arena.h"

typedef struct zn_image {
  uint32_t w, h;
  uint8_t *rgb; /* h * w * 3, from the caller's arena */
} zn_image;

/* False when a side is 0 or exceeds 32768. */
bool zn_image_alloc(zn_image *im, zn_arena *a, uint32_t w, uint32_t h);
/* Baseline and extended sequential JPEG (ITU-T T.81), 8 bits, gray or YCbCr; false when damaged or
 * of another kind. */
bool zn_jpeg_decode(zn_arena *a, const uint8_t *p, size_t n, zn_image *out);
#endif
