/* Images by MagickWand: the sizes from the file's header alone, the pixels as interleaved bytes. */
#include "zenith_image.h"

#include <dlfcn.h>
#include <string.h>

typedef struct MagickWand wand;
enum { CHAR_PIXEL = 1, LAB = 5, YCBCR = 7, YCC = 8, CMYK = 12, SRGB = 13 }; /* of ImageMagick 6 */

#define WAND_FUNCTIONS(F)                                                                        \
  F(void, MagickWandGenesis, (void))                                                             \
  F(wand *, NewMagickWand, (void))                                                               \
  F(wand *, DestroyMagickWand, (wand *))                                                         \
  F(unsigned, MagickPingImageBlob, (wand *, const void *, size_t))                               \
  F(unsigned, MagickReadImageBlob, (wand *, const void *, size_t))                               \
  F(unsigned, MagickSetIteratorIndex, (wand *, ptrdiff_t))                                       \
  F(size_t, MagickGetImageWidth, (wand *))                                                       \
  F(size_t, MagickGetImageHeight, (wand *))                                                      \
  F(unsigned, MagickGetImageColorspace, (wand *))                                                \
  F(unsigned, MagickTransformImageColorspace, (wand *, unsigned))                                \
  F(unsigned, MagickExportImagePixels,                                                           \
    (wand *, ptrdiff_t, ptrdiff_t, size_t, size_t, const char *, unsigned, void *))

typedef struct magick {
#define F(type, name, args) type(*name) args;
  WAND_FUNCTIONS(F)
#undef F
} magick;

/* The library stays for the life of the process: opening it again only counts. */
static int load(magick *m) {
  void *lib = dlopen("libMagickWand-6.Q16.so.6", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!lib) return 0;
  int fine = 1;
#define F(type, name, args)               \
  do {                                    \
    void *f = dlsym(lib, #name);          \
    fine &= f != NULL;                    \
    memcpy(&m->name, &f, sizeof m->name); \
  } while (0);
  WAND_FUNCTIONS(F)
#undef F
  dlclose(lib);
  if (fine) m->MagickWandGenesis();
  return fine;
}

const char *zn_image_problem(void) {
  magick m;
  return load(&m) ? NULL : "no libMagickWand-6.Q16.so.6 here: install the Debian package libmagickwand-6.q16-6";
}

static int starts(const unsigned char *p, size_t n, const char *magic, size_t len) {
  return n >= len && !memcmp(p, magic, len);
}

static int known_format(const unsigned char *p, size_t n) {
  int jp2 = starts(p, n, "\0\0\0\x0cjP  \r\n\x87\n", 12) || starts(p, n, "\xff\x4f\xff\x51", 4);
  int tiff = starts(p, n, "II*\0", 4) || starts(p, n, "MM\0*", 4);
  int webp = starts(p, n, "RIFF", 4) && n >= 12 && !memcmp(p + 8, "WEBP", 4);
  int pnm = n >= 3 && p[0] == 'P' && p[1] >= '1' && p[1] <= '6' && (p[2] == '#' || (p[2] >= 9 && p[2] <= 13) || p[2] == ' ');
  return jp2 || tiff || webp || pnm || starts(p, n, "\xff\xd8\xff", 3) || starts(p, n, "\x89PNG\r\n\x1a\n", 8) ||
         starts(p, n, "BM", 2);
}

/* ITU-R BT.601 luma in 16-bit fixed point, rounded: `count` RGB pixels become as many bytes, in place. */
static void to_gray(unsigned char *p, size_t count) {
  for (size_t k = 0; k < count; k++)
    p[k] = (unsigned char)((p[3 * k] * 19595u + p[3 * k + 1] * 38470u + p[3 * k + 2] * 7471u + 0x8000u) >> 16);
}

/* Row by row, so that gray needs no more room than the image has. */
static int32_t export_rows(const magick *m, wand *w, uint32_t pixels, zn_tensor *image) {
  unsigned char *to = (unsigned char *)image->u.data, rgb[3 * 256];
  size_t height = (size_t)image->shape[0], width = (size_t)image->shape[1], channels = (size_t)image->shape[2];
  const char *order = pixels == ZN_PIXELS_BGR ? "BGR" : "RGB";
  for (size_t y = 0; y < height; y++, to += width * channels) {
    if (pixels != ZN_PIXELS_GRAY) {
      if (!m->MagickExportImagePixels(w, 0, (ptrdiff_t)y, width, 1, order, CHAR_PIXEL, to)) return ZN_IMAGE_DAMAGED;
      continue;
    }
    for (size_t x = 0; x < width; x += 256) {
      size_t n = width - x < 256 ? width - x : 256;
      if (!m->MagickExportImagePixels(w, (ptrdiff_t)x, (ptrdiff_t)y, n, 1, order, CHAR_PIXEL, rgb)) return ZN_IMAGE_DAMAGED;
      to_gray(rgb, n);
      memcpy(to + x, rgb, n);
    }
  }
  return 0;
}

static int32_t decode(const magick *m, wand *w, const zn_tensor *file, uint32_t pixels, zn_tensor *image) {
  const int sizes = image->u.data == NULL;
  const int64_t channels = pixels == ZN_PIXELS_GRAY ? 1 : 3;
  const size_t n = (size_t)file->bytes;
  unsigned fine = sizes ? m->MagickPingImageBlob(w, file->u.data, n) : m->MagickReadImageBlob(w, file->u.data, n);
  if (!fine || !m->MagickSetIteratorIndex(w, 0)) return ZN_IMAGE_DAMAGED;
  const int64_t height = (int64_t)m->MagickGetImageHeight(w), width = (int64_t)m->MagickGetImageWidth(w);
  if (sizes) {
    image->rank = 3;
    image->shape[0] = height;
    image->shape[1] = width;
    image->shape[2] = channels;
    return 0;
  }
  if (image->shape[0] != height || image->shape[1] != width || image->shape[2] != channels ||
      image->bytes < (uint64_t)(height * width * channels))
    return ZN_IMAGE_SIZE;
  unsigned space = m->MagickGetImageColorspace(w);
  if ((space == CMYK || space == YCBCR || space == YCC || space == LAB) && !m->MagickTransformImageColorspace(w, SRGB))
    return ZN_IMAGE_DAMAGED;
  return export_rows(m, w, pixels, image);
}

int32_t zn_image_decode(void *user, const zn_tensor *file, uint32_t pixels, zn_tensor *image) {
  magick m;
  (void)user;
  if (!known_format((const unsigned char *)file->u.data, (size_t)file->bytes)) return ZN_IMAGE_FORMAT;
  if (!load(&m)) return ZN_IMAGE_NO_LIBRARY;
  wand *w = m.NewMagickWand();
  if (!w) return ZN_IMAGE_NO_LIBRARY;
  int32_t code = decode(&m, w, file, pixels, image);
  m.DestroyMagickWand(w);
  return code;
}
