/* ImageDecoder: BMP, PNM, PNG, uncompressed TIFF and sequential JPEG (eval_jpeg.c). JPEG 2000 and
 * WebP are refused. Every decoder yields RGB bytes; the stream is untrusted. */
#include <zlib.h>

#include "zenithc/eval/decode.h"
#include "zenithc/eval/eval_impl.h"

enum { MAX_SIDE = 1 << 15 };

static uint32_t le(const uint8_t *p, int n) {
  uint32_t v = 0;
  for (int i = n; i-- > 0;) v = v << 8 | p[i];
  return v;
}
static uint32_t be(const uint8_t *p, int n) {
  uint32_t v = 0;
  for (int i = 0; i < n; i++) v = v << 8 | p[i];
  return v;
}

bool zn_image_alloc(zn_image *im, zn_arena *a, uint32_t w, uint32_t h) {
  if (w == 0 || h == 0 || w > MAX_SIDE || h > MAX_SIDE) return false;
  im->w = w;
  im->h = h;
  im->rgb = ZN_ARRAY(a, uint8_t, (size_t)w *h * 3);
  return true;
}

static bool bmp(zn_arena *a, const uint8_t *p, size_t n, zn_image *im) {
  if (n < 54) return false;
  uint32_t at = le(p + 10, 4), w = le(p + 18, 4), bits = le(p + 28, 2), pal = 14 + le(p + 14, 4),
           used = le(p + 46, 4);
  int32_t hs = (int32_t)le(p + 22, 4);
  bool flip = hs > 0;
  uint32_t h = (uint32_t)(flip ? hs : -hs);
  if (le(p + 30, 4) != 0 || (bits != 8 && bits != 24 && bits != 32) || !zn_image_alloc(im, a, w, h))
    return false;
  size_t row = (size_t)(w * bits + 31) / 32 * 4;
  if (at > n || row * h > n - at || (bits == 8 && pal + 4 * (used ? used : 256) > n)) return false;
  for (uint32_t y = 0; y < h; y++)
    for (uint32_t x = 0; x < w; x++) {
      const uint8_t *s = p + at + row * (flip ? h - 1 - y : y) + (size_t)x * bits / 8;
      if (bits == 8) s = p + pal + 4 * (*s < (used ? used : 256) ? *s : 0);
      for (int c = 0; c < 3; c++) im->rgb[((size_t)y * w + x) * 3 + (size_t)c] = s[2 - c];
    }
  return true;
}

static bool pnm_number(const uint8_t *p, size_t n, size_t *at, uint32_t *out) {
  while (*at < n && (p[*at] == '#' || p[*at] <= ' ')) {
    bool comment = p[*at] == '#';
    while (comment && *at < n && p[*at] != '\n') (*at)++;
    if (*at < n) (*at)++;
  }
  uint32_t v = 0;
  size_t from = *at;
  while (*at < n && p[*at] >= '0' && p[*at] <= '9' && v < 1000000)
    v = v * 10 + (uint32_t)(p[(*at)++] - '0');
  *out = v;
  return *at > from;
}

static bool pnm(zn_arena *a, const uint8_t *p, size_t n, zn_image *im) {
  uint32_t w, h, max;
  size_t at = 2, per = p[1] == '6' ? 3 : 1;
  if (!pnm_number(p, n, &at, &w) || !pnm_number(p, n, &at, &h) || !pnm_number(p, n, &at, &max) ||
      max != 255)
    return false;
  if (!zn_image_alloc(im, a, w, h) || ++at > n || (size_t)w * h * per > n - at) return false;
  for (size_t k = 0; k < (size_t)w * h * 3; k++) im->rgb[k] = p[at + (per == 3 ? k : k / 3)];
  return true;
}

/* ---- PNG: 8 bits per sample, not interlaced ---- */
typedef struct png {
  uint32_t w, h, per; /* samples per pixel */
  uint8_t type, palette[768];
  uint8_t *z; /* concatenated IDAT */
  size_t zn;
} png;

static bool png_chunks(zn_arena *a, const uint8_t *p, size_t n, png *g) {
  g->z = zn_arena_alloc(a, n);
  for (size_t at = 8; at + 12 <= n;) {
    size_t len = be(p + at, 4);
    const uint8_t *d = p + at + 8;
    if (len > n - at - 12) return false;
    if (memcmp(p + at + 4, "IHDR", 4) == 0 && len >= 13) {
      g->w = be(d, 4);
      g->h = be(d + 4, 4);
      g->type = d[9];
      g->per = d[9] == 2 ? 3 : d[9] == 4 ? 2 : d[9] == 6 ? 4 : 1;
      if (d[8] != 8 || d[12] != 0) return false;
    } else if (memcmp(p + at + 4, "PLTE", 4) == 0) {
      memcpy(g->palette, d, len < 768 ? len : 768);
    } else if (memcmp(p + at + 4, "IDAT", 4) == 0) {
      memcpy(g->z + g->zn, d, len);
      g->zn += len;
    }
    at += len + 12;
  }
  return g->per != 0;
}

static int paeth(int a, int b, int c) {
  int p = a + b - c, pa = abs(p - a), pb = abs(p - b), pc = abs(p - c);
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

static bool png_unfilter(uint8_t *rows, uint32_t h, size_t row, uint32_t per) {
  for (uint32_t y = 0; y < h; y++) {
    uint8_t *r = rows + y * (row + 1) + 1, *up = y ? r - row - 1 : NULL, f = r[-1];
    if (f > 4) return false;
    for (size_t x = 0; x < row; x++) {
      int l = x >= per ? r[x - per] : 0, u = up ? up[x] : 0, c = up && x >= per ? up[x - per] : 0;
      int add = f == 1 ? l : f == 2 ? u : f == 3 ? (l + u) / 2 : f == 4 ? paeth(l, u, c) : 0;
      r[x] = (uint8_t)(r[x] + add);
    }
  }
  return true;
}

static bool png_decode(zn_arena *a, const uint8_t *p, size_t n, zn_image *im) {
  png g = {0};
  if (!png_chunks(a, p, n, &g) || !zn_image_alloc(im, a, g.w, g.h)) return false;
  size_t row = (size_t)g.w * g.per;
  uLongf total = (uLongf)((row + 1) * g.h);
  uint8_t *rows = zn_arena_alloc(a, total);
  if (uncompress(rows, &total, g.z, (uLong)g.zn) != Z_OK || total != (row + 1) * g.h ||
      !png_unfilter(rows, g.h, row, g.per))
    return false;
  for (size_t k = 0; k < (size_t)g.w * g.h; k++) {
    const uint8_t *s = rows + k / g.w * (row + 1) + 1 + k % g.w * g.per;
    if (g.type == 3) s = g.palette + 3 * *s;
    bool rgb = g.type == 2 || g.type == 6 || g.type == 3;
    for (size_t c = 0; c < 3; c++) im->rgb[k * 3 + c] = s[rgb ? c : 0];
  }
  return true;
}

/* ---- TIFF: one image, strips, no compression, 8 bits ---- */
typedef struct tiff {
  const uint8_t *p;
  size_t n;
  bool big;
} tiff;

static bool tiff_get(const tiff *t, size_t at, int bytes, uint32_t *out) {
  if (at > t->n || (size_t)bytes > t->n - at) return false;
  *out = t->big ? be(t->p + at, bytes) : le(t->p + at, bytes);
  return true;
}

/* Value k of tag in the directory at `dir`; def when the tag is absent. */
static bool tiff_tag(const tiff *t, size_t dir, uint32_t tag, uint32_t k, uint32_t def,
                     uint32_t *out) {
  uint32_t num, id, type, count, at;
  if (!tiff_get(t, dir, 2, &num)) return false;
  for (uint32_t i = 0; i < num; i++) {
    size_t e = dir + 2 + 12 * (size_t)i;
    if (!tiff_get(t, e, 2, &id) || !tiff_get(t, e + 2, 2, &type) || !tiff_get(t, e + 4, 4, &count))
      return false;
    if (id != tag) continue;
    int size = type == 3 ? 2 : type == 4 ? 4 : 1;
    if (k >= count || !tiff_get(t, e + 8, 4, &at)) return false;
    return tiff_get(t, ((size_t)size * count <= 4 ? e + 8 : at) + (size_t)size * k, size, out);
  }
  *out = def;
  return true;
}

static bool tiff_decode(zn_arena *a, const uint8_t *p, size_t n, zn_image *im) {
  tiff t = {p, n, p[0] == 'M'};
  uint32_t dir, w, h, comp, per, rows, bits, from, len;
  if (!tiff_get(&t, 4, 4, &dir) || !tiff_tag(&t, dir, 256, 0, 0, &w) ||
      !tiff_tag(&t, dir, 257, 0, 0, &h) || !tiff_tag(&t, dir, 259, 0, 1, &comp) ||
      !tiff_tag(&t, dir, 277, 0, 1, &per) || !tiff_tag(&t, dir, 278, 0, h, &rows) ||
      !tiff_tag(&t, dir, 258, 0, 1, &bits) || comp != 1 || bits != 8 || per < 1 || rows < 1 ||
      !zn_image_alloc(im, a, w, h))
    return false;
  for (uint32_t y = 0; y < h; y++) {
    if (!tiff_tag(&t, dir, 273, y / rows, 0, &from) ||
        !tiff_tag(&t, dir, 279, y / rows, UINT32_MAX, &len))
      return false;
    size_t row = (size_t)w * per, at = from + (size_t)(y % rows) * row;
    if (at > n || row > n - at) return false;
    for (uint32_t x = 0; x < w; x++)
      for (uint32_t c = 0; c < 3; c++)
        im->rgb[((size_t)y * w + x) * 3 + c] = p[at + (size_t)x * per + (per >= 3 ? c : 0)];
  }
  return true;
}

zn_status zn_eval_imagedecoder(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  size_t n = (size_t)x->count;
  uint8_t *p = zn_arena_alloc(e->tmp, n + 16);
  for (size_t k = 0; k < n; k++) p[k] = (uint8_t)x->u.i[k];
  zn_image im = {0};
  bool ok;
  if (n > 8 && p[0] == 'B' && p[1] == 'M') ok = bmp(e->tmp, p, n, &im);
  else if (n > 8 && p[0] == 'P' && (p[1] == '5' || p[1] == '6')) ok = pnm(e->tmp, p, n, &im);
  else if (n > 8 && memcmp(p, "\x89PNG", 4) == 0) ok = png_decode(e->tmp, p, n, &im);
  else if (n > 8 && (memcmp(p, "II*", 4) == 0 || memcmp(p, "MM\0*", 4) == 0))
    ok = tiff_decode(e->tmp, p, n, &im);
  else if (n > 8 && p[0] == 0xFF && p[1] == 0xD8) ok = zn_jpeg_decode(e->tmp, p, n, &im);
  else if (e->run->quiet) return ZN_ERR_UNSUPPORTED;
  else
    return zn_fail(e->c, ZN_ERR_UNSUPPORTED, zn_node_where(e->c, e->n),
                   "the image format is not one of BMP, PNM, PNG, TIFF, JPEG");
  if (!ok) return zn_ev_fail(e, "the image is damaged or of an unsupported kind");
  const char *fmt = zn_node_str(e->n, "pixel_format");
  bool gray = fmt[0] == 'G', bgr = fmt[0] == 'B';
  int64_t dims[3] = {im.h, im.w, gray ? 1 : 3};
  ZN_TRY(zn_ev_out(e, 0, ZN_U8, 3, dims));
  for (size_t k = 0; k < (size_t)im.w * im.h; k++) {
    const uint8_t *c = im.rgb + 3 * k;
    if (gray)
      e->out[0].u.i[k] = (c[0] * 19595 + c[1] * 38470 + c[2] * 7471 + 0x8000) >>
                         16; /* ITU-R 601 luma */
    for (size_t j = 0; !gray && j < 3; j++) e->out[0].u.i[3 * k + j] = c[bgr ? 2 - j : j];
  }
  return ZN_OK;
}
