/* SHA-256 (FIPS 180-4), for naming models, artifacts and cached objects; lower-case hexadecimal. */
#ifndef ZN_SHA256_H
#define ZN_SHA256_H
#include "zenithc/base/diag.h"

void zn_sha256(const void *data, size_t n, char out_hex[65]);
zn_status zn_sha256_file(zn_ctx *c, const char *path, char out_hex[65]);
#endif
