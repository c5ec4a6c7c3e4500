/* zenith_image.h: an optional zn_host.decode_image: JPEG, JPEG 2000, PNG, BMP, TIFF, WebP and PNM files through ImageMagick's
 * wand library, found by dlopen when the first image comes (Debian: libmagickwand-6.q16-6). POSIX; C99 and C++.
 *
 *     zn_host host = {0};
 *     host.decode_image = zn_image_decode;
 *     NAME_run(in, out, ws, ws_bytes, &host);
 *
 * Any threads may decode at the same time. Files may come from anywhere: other formats are refused by their first bytes, so
 * that no interpreter of a document language ever sees them. The first frame counts, orientation tags and transparency do not;
 * gray is the luma of ITU-R BT.601. */
#ifndef ZENITH_IMAGE_H
#define ZENITH_IMAGE_H
#include "zenith.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  ZN_IMAGE_NO_LIBRARY = 1, /* what zn_image_problem tells */
  ZN_IMAGE_FORMAT = 2,     /* none of the formats above */
  ZN_IMAGE_DAMAGED = 3,
  ZN_IMAGE_SIZE = 4        /* not the sizes that were told before, or no room */
};

/* zn_host.decode_image; user is not looked at. */
int32_t zn_image_decode(void *user, const zn_tensor *file, uint32_t pixels, zn_tensor *image);
/* NULL when the library is there; else why not and what to install. */
const char *zn_image_problem(void);

#ifdef __cplusplus
}
#endif
#endif
