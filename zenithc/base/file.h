/* Whole files, and names in paths. */
#ifndef ZN_FILE_H
#define ZN_FILE_H
#include "zenithc/base/diag.h"

/* NUL-terminated. */
zn_status zn_read_file(zn_ctx *c, zn_arena *a, const char *path, const char **out_text, size_t *out_n);
/* What could be written in part is removed. */
zn_status zn_write_file(zn_ctx *c, const char *path, const void *bytes, size_t n);
bool zn_has_suffix(const char *path, const char *suffix);
const char *zn_base_name(const char *path);
/* ".so" of "a.b/model.so"; "" when the file name has none. */
const char *zn_suffix(const char *path);
#endif
