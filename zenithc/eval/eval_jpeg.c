/* Sequential JPEG (ITU-T T.81): Huffman decoding, the 13-bit integer inverse DCT of Loeffler,
 * Ligtenberg and Moschytz, triangle-filter chroma upsampling and the JFIF colour conversion in
 * 16-bit fixed point: what common decoders compute, so that results agree bit by bit. */
#include "zenithc/eval/decode.h"

typedef struct huff {
  uint8_t bits[17], vals[256];
  int32_t mincode[17], maxcode[18], first[17];
  bool set;
} huff;

typedef struct comp {
  uint8_t id, h, v, tq, td, ta;
  int pred;
  uint32_t w, ht, stride, rows; /* real extent; padded extent in samples */
  uint8_t *px;
} comp;

typedef struct jpeg {
  const uint8_t *p;
  size_t n, at;
  uint16_t q[4][64];
  huff dc[4], ac[4];
  comp c[3];
  uint32_t num, w, h, hmax, vmax, restart;
  uint32_t acc;
  int have; /* bits in acc */
  bool bad;
} jpeg;

static const uint8_t zigzag[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                   12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                   35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                   58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

static int bit(jpeg *j) {
  if (j->have == 0) {
    uint8_t b = 0;
    if (j->at < j->n) {
      b = j->p[j->at];
      if (b == 0xFF && (j->at + 1 >= j->n || j->p[j->at + 1] != 0))
        b = 0; /* a marker: zeros from here on */
      else j->at += b == 0xFF ? 2 : 1;
    }
    j->acc = b;
    j->have = 8;
  }
  return (int)(j->acc >> --j->have & 1);
}

static int receive(jpeg *j, int n) {
  int v = 0;
  for (int i = 0; i < n; i++) v = v << 1 | bit(j);
  return n && v < 1 << (n - 1) ? v - (1 << n) + 1 : v;
}

static void huff_build(huff *h) {
  int32_t code = 0, k = 0;
  for (int l = 1; l <= 16; l++, code <<= 1) {
    h->mincode[l] = code;
    h->first[l] = k;
    code += h->bits[l];
    k += h->bits[l];
    h->maxcode[l] = h->bits[l] ? code - 1 : -1;
  }
  h->set = true;
}

static int huff_next(jpeg *j, const huff *h) {
  int32_t code = 0;
  for (int l = 1; l <= 16; l++) {
    code = code << 1 | bit(j);
    if (h->maxcode[l] >= 0 && code <= h->maxcode[l] && code >= h->mincode[l])
      return h->vals[(h->first[l] + code - h->mincode[l]) & 255];
  }
  j->bad = true;
  return 0;
}

/* One dimension of the inverse DCT: in and out are 8 values `step` apart; results are scaled down
 * by 2^shift. */
static void idct8(const int64_t *in, int64_t *out, int step, int shift) {
  int64_t z1 = (in[2 * step] + in[6 * step]) * 4433, t2 = z1 - in[6 * step] * 15137,
          t3 = z1 + in[2 * step] * 6270;
  int64_t t0 = (in[0] + in[4 * step]) * 8192, t1 = (in[0] - in[4 * step]) * 8192;
  int64_t e[4] = {t0 + t3, t1 + t2, t1 - t2, t0 - t3};
  int64_t a = in[7 * step], b = in[5 * step], c = in[3 * step], d = in[step];
  int64_t p1 = (a + d) * -7373, p2 = (b + c) * -20995, z5 = (a + c + b + d) * 9633;
  int64_t p3 = (a + c) * -16069 + z5, p4 = (b + d) * -3196 + z5;
  int64_t o[4] = {d * 12299 + p1 + p4, c * 25172 + p2 + p3, b * 16819 + p2 + p4,
                  a * 2446 + p1 + p3};
  for (int k = 0; k < 4; k++) {
    out[k * step] = (e[k] + o[k] + (1 << (shift - 1))) >> shift;
    out[(7 - k) * step] = (e[k] - o[k] + (1 << (shift - 1))) >> shift;
  }
}

static void block(jpeg *j, comp *c, uint32_t bx, uint32_t by) {
  int64_t co[64] = {0}, t[64];
  int s = huff_next(j, &j->dc[c->td]);
  c->pred = (int16_t)(c->pred + receive(j, s > 15 ? 0 : s));
  co[0] = (int16_t)(c->pred * j->q[c->tq][0]);
  for (int k = 1; k < 64 && !j->bad; k++) {
    int rs = huff_next(j, &j->ac[c->ta]), r = rs >> 4;
    if ((rs & 15) == 0) {
      if (r != 15) break;
      k += 15;
      continue;
    }
    k += r;
    if (k > 63) {
      j->bad = true;
      break;
    }
    co[zigzag[k]] = (int16_t)(receive(j, rs & 15) * j->q[c->tq][k]);
  }
  for (int x = 0; x < 8; x++) idct8(co + x, t + x, 8, 11);
  for (int y = 0; y < 8; y++) {
    int64_t row[8];
    idct8(t + 8 * y, row, 1, 18);
    uint8_t *o = c->px + (size_t)(by * 8 + (uint32_t)y) * c->stride + bx * 8;
    for (int x = 0; x < 8; x++)
      o[x] = (uint8_t)(row[x] + 128 < 0 ? 0 : row[x] + 128 > 255 ? 255 : row[x] + 128);
  }
}

static bool scan(jpeg *j) {
  uint32_t mw = (j->w + 8 * j->hmax - 1) / (8 * j->hmax),
           mh = (j->h + 8 * j->vmax - 1) / (8 * j->vmax), left = j->restart;
  j->have = 0;
  for (uint32_t m = 0; m < mw * mh && !j->bad; m++) {
    if (j->restart && left == 0) {
      j->have = 0;
      while (j->at + 1 < j->n &&
             !(j->p[j->at] == 0xFF && j->p[j->at + 1] >= 0xD0 && j->p[j->at + 1] <= 0xD7))
        j->at++;
      j->at += 2;
      for (uint32_t i = 0; i < j->num; i++) j->c[i].pred = 0;
      left = j->restart;
    }
    left--;
    for (uint32_t i = 0; i < j->num; i++) {
      comp *c = &j->c[i];
      for (uint32_t v = 0; v < c->v; v++)
        for (uint32_t h = 0; h < c->h; h++) block(j, c, m % mw * c->h + h, m / mw * c->v + v);
    }
  }
  return !j->bad;
}

/* ---- upsampling to the full extent ---- */
static int tri_row(const comp *c, int64_t y, int64_t near, int64_t x) {
  y = y < 0 ? 0 : y >= (int64_t)c->ht ? (int64_t)c->ht - 1 : y;
  near = near < 0 ? 0 : near >= (int64_t)c->ht ? (int64_t)c->ht - 1 : near;
  return 3 * c->px[(size_t)y * c->stride + (size_t)x] + c->px[(size_t)near * c->stride + (size_t)x];
}

static int sample(const jpeg *j, const comp *c, uint32_t x, uint32_t y) {
  uint32_t fx = j->hmax / c->h, fy = j->vmax / c->v, sx = x / fx, sy = y / fy;
  if (fx == 2 && fy == 2 && c->w > 2) {
    int64_t other = y % 2 ? (int64_t)sy + 1 : (int64_t)sy - 1;
    int s = tri_row(c, sy, other, sx);
    if (x % 2 == 0)
      return sx == 0 ? (4 * s + 8) >> 4 : (3 * s + tri_row(c, sy, other, sx - 1) + 8) >> 4;
    return sx + 1 == c->w ? (4 * s + 7) >> 4 : (3 * s + tri_row(c, sy, other, sx + 1) + 7) >> 4;
  }
  const uint8_t *r = c->px + (size_t)sy * c->stride;
  if (fx == 2 && fy == 1 && c->w > 2) {
    if (x % 2 == 0) return sx == 0 ? r[0] : (3 * r[sx] + r[sx - 1] + 1) >> 2;
    return sx + 1 == c->w ? r[sx] : (3 * r[sx] + r[sx + 1] + 2) >> 2;
  }
  return r[sx];
}

static uint8_t clamp(int v) { return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); }

static bool paint(zn_arena *a, const jpeg *j, zn_image *im) {
  if (!zn_image_alloc(im, a, j->w, j->h)) return false;
  for (uint32_t y = 0; y < j->h; y++)
    for (uint32_t x = 0; x < j->w; x++) {
      uint8_t *o = im->rgb + ((size_t)y * j->w + x) * 3;
      int l = sample(j, &j->c[0], x, y);
      o[0] = o[1] = o[2] = (uint8_t)l;
      if (j->num != 3) continue;
      int cb = sample(j, &j->c[1], x, y) - 128, cr = sample(j, &j->c[2], x, y) - 128;
      o[0] = clamp(l + ((91881 * cr + 32768) >> 16));
      o[1] = clamp(l + ((-22554 * cb - 46802 * cr + 32768) >> 16));
      o[2] = clamp(l + ((116130 * cb + 32768) >> 16));
    }
  return true;
}

/* ---- segments ---- */
static bool frame(zn_arena *a, jpeg *j, const uint8_t *d, size_t n) {
  if (n < 6 || d[0] != 8 || j->num) return false;
  j->h = (uint32_t)d[1] << 8 | d[2];
  j->w = (uint32_t)d[3] << 8 | d[4];
  j->num = d[5];
  if ((j->num != 1 && j->num != 3) || n < 6 + 3 * (size_t)j->num || j->w == 0 || j->h == 0 ||
      j->w > 32768 || j->h > 32768)
    return false;
  for (uint32_t i = 0; i < j->num; i++) {
    comp *c = &j->c[i];
    c->id = d[6 + 3 * i];
    c->h = d[7 + 3 * i] >> 4;
    c->v = d[7 + 3 * i] & 15;
    c->tq = d[8 + 3 * i] & 3;
    if (j->num == 1) c->h = c->v = 1;
    if (c->h < 1 || c->h > 4 || c->v < 1 || c->v > 4) return false;
    j->hmax = c->h > j->hmax ? c->h : j->hmax;
    j->vmax = c->v > j->vmax ? c->v : j->vmax;
  }
  for (uint32_t i = 0; i < j->num; i++) {
    comp *c = &j->c[i];
    if (j->hmax % c->h || j->vmax % c->v) return false;
    c->w = (j->w * c->h + j->hmax - 1) / j->hmax;
    c->ht = (j->h * c->v + j->vmax - 1) / j->vmax;
    c->stride = (j->w + 8 * j->hmax - 1) / (8 * j->hmax) * 8 * c->h;
    c->rows = (j->h + 8 * j->vmax - 1) / (8 * j->vmax) * 8 * c->v;
    c->px = zn_arena_array(a, c->stride, c->rows);
  }
  return true;
}

static bool tables(jpeg *j, uint8_t marker, const uint8_t *d, size_t n) {
  for (size_t at = 0; at < n;) {
    uint8_t t = d[at] & 3, kind = d[at] >> 4;
    if (marker == 0xDB) {
      size_t size = kind ? 2 : 1;
      if (n - at < 1 + 64 * size) return false;
      for (size_t k = 0; k < 64; k++)
        j->q[t][k] = (uint16_t)(kind ? d[at + 1 + 2 * k] << 8 | d[at + 2 + 2 * k] : d[at + 1 + k]);
      at += 1 + 64 * size;
      continue;
    }
    huff *h = kind ? &j->ac[t] : &j->dc[t];
    size_t total = 0;
    if (n - at < 17) return false;
    for (size_t k = 1; k <= 16; k++) total += h->bits[k] = d[at + k];
    if (total > 256 || n - at < 17 + total) return false;
    memcpy(h->vals, d + at + 17, total);
    huff_build(h);
    at += 17 + total;
  }
  return true;
}

static bool scan_header(jpeg *j, const uint8_t *d, size_t n) {
  if (j->num == 0 || n < 1 || d[0] != j->num || n < 1 + 2 * (size_t)d[0])
    return false; /* one interleaved scan */
  for (uint32_t i = 0; i < j->num; i++) {
    if (d[1 + 2 * i] != j->c[i].id) return false;
    j->c[i].td = d[2 + 2 * i] >> 4 & 3;
    j->c[i].ta = d[2 + 2 * i] & 3;
    if (!j->dc[j->c[i].td].set || !j->ac[j->c[i].ta].set) return false;
  }
  return true;
}

bool zn_jpeg_decode(zn_arena *a, const uint8_t *p, size_t n, zn_image *out) {
  jpeg *j = ZN_NEW(a, jpeg);
  j->p = p;
  j->n = n;
  j->at = 2;
  while (j->at + 4 <= n) {
    if (p[j->at] != 0xFF) return false;
    uint8_t m = p[j->at + 1];
    if (m == 0xFF) {
      j->at++;
      continue;
    }
    size_t len = (size_t)p[j->at + 2] << 8 | p[j->at + 3];
    const uint8_t *d = p + j->at + 4;
    if (len < 2 || len > n - j->at - 2) return false;
    j->at += 2 + len;
    len -= 2;
    bool ok = true;
    if (m == 0xC0 || m == 0xC1) ok = frame(a, j, d, len);
    else if (m == 0xDB || m == 0xC4) ok = tables(j, m, d, len);
    else if (m == 0xDD && len >= 2) j->restart = (uint32_t)d[0] << 8 | d[1];
    else if (m == 0xDA) return scan_header(j, d, len) && scan(j) && paint(a, j, out);
    else if (m >= 0xC2 && m <= 0xCF && m != 0xC8 && m != 0xCC)
      return false; /* progressive, lossless, arithmetic */
    if (!ok) return false;
  }
  return false;
}
