/* SHA-256 (FIPS 180-4), for naming models and artifacts in reports. */
#include <errno.h>

#include "zenithc/driver/job.h"

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

typedef struct sha {
  uint32_t h[8];
  uint8_t buf[64];
  uint64_t len;
} sha;

static uint32_t ror(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void block(sha *s, const uint8_t *p) {
  uint32_t w[64], v[8];
  for (int i = 0; i < 16; i++)
    w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (ror(a, 7) ^ ror(a, 18) ^ a >> 3) + w[i - 7] + (ror(b, 17) ^ ror(b, 19) ^ b >> 10);
  }
  memcpy(v, s->h, sizeof v);
  for (int i = 0; i < 64; i++) {
    uint32_t e = v[4], a = v[0];
    uint32_t t1 = v[7] + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + K[i] + w[i];
    uint32_t t2 = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
    memmove(v + 1, v, 7 * sizeof *v);
    v[0] = t1 + t2;
    v[4] += t1;
  }
  for (int i = 0; i < 8; i++) s->h[i] += v[i];
}

static void start(sha *s) {
  *s = (sha){.h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

static void add(sha *s, const uint8_t *p, size_t n) {
  size_t have = s->len & 63;
  s->len += n;
  while (n) {
    size_t k = 64 - have < n ? 64 - have : n;
    memcpy(s->buf + have, p, k);
    have += k, p += k, n -= k;
    if (have == 64) block(s, s->buf), have = 0;
  }
}

static void finish(sha *s, char hex[65]) {
  uint64_t bits = s->len * 8;
  uint8_t pad[72] = {0x80};
  size_t n = ((s->len & 63) < 56 ? 56 : 120) - (s->len & 63);
  for (int i = 0; i < 8; i++) pad[n + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
  add(s, pad, n + 8);
  for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", s->h[i]);
}

void zn_sha256(const void *data, size_t n, char out_hex[65]) {
  sha s;
  start(&s);
  add(&s, data, n);
  finish(&s, out_hex);
}

zn_status zn_sha256_file(zn_ctx *c, const char *path, char out_hex[65]) {
  FILE *f = fopen(path, "rb");
  if (!f) return zn_fail(c, ZN_ERR_IO, NULL, "cannot be read: %s", strerror(errno));
  sha s;
  uint8_t buf[1 << 14];
  start(&s);
  for (size_t n; (n = fread(buf, 1, sizeof buf, f)) > 0;) add(&s, buf, n);
  int bad = ferror(f), e = errno;
  fclose(f);
  finish(&s, out_hex);
  return bad ? zn_fail(c, ZN_ERR_IO, NULL, "cannot be read: %s", strerror(e)) : ZN_OK;
}
