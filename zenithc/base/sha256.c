/* SHA-256 through libcrypto. */
#include "zenithc/base/sha256.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

static void to_hex(const unsigned char *digest, char hex[65]) {
  for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

void zn_sha256(const void *data, size_t n, char out_hex[65]) {
  unsigned char digest[EVP_MAX_MD_SIZE] = {0};
  EVP_Digest(data, n, digest, NULL, EVP_sha256(), NULL);
  to_hex(digest, out_hex);
}

zn_status zn_sha256_file(zn_ctx *c, const char *path, char out_hex[65]) {
  FILE *f = fopen(path, "rb");
  if (!f) return zn_fail(c, ZN_ERR_IO, NULL, "cannot be read: %s", strerror(errno));
  unsigned char digest[EVP_MAX_MD_SIZE] = {0}, buf[1 << 16];
  EVP_MD_CTX *md = EVP_MD_CTX_new();
  bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;
  for (size_t n; ok && (n = fread(buf, 1, sizeof buf, f)) > 0;) ok = EVP_DigestUpdate(md, buf, n) == 1;
  if (ok) ok = EVP_DigestFinal_ex(md, digest, NULL) == 1;
  int bad = ferror(f), e = errno;
  EVP_MD_CTX_free(md);
  fclose(f);
  to_hex(digest, out_hex);
  if (bad) return zn_fail(c, ZN_ERR_IO, NULL, "cannot be read: %s", strerror(e));
  return ok ? ZN_OK : zn_fail(c, ZN_ERR_IO, NULL, "the digest cannot be computed");
}
