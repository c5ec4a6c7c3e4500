/* Whole files, and names in paths. */
#include "zenithc/base/file.h"

#include <errno.h>
#include <sys/stat.h>

#include "zenithc/base/text.h"

zn_status zn_read_file(zn_ctx *c, zn_arena *a, const char *path, const char **out_text, size_t *out_n) {
  FILE *f = fopen(path, "rb");
  if (!f) return zn_fail(c, ZN_ERR_IO, path, "cannot be read: %s", strerror(errno));
  zn_text t;
  zn_text_init(&t, a);
  char buf[1 << 14];
  for (size_t n; (n = fread(buf, 1, sizeof buf, f)) > 0;) zn_text_put(&t, buf, n);
  int bad = ferror(f), e = errno;
  fclose(f);
  if (bad) return zn_fail(c, ZN_ERR_IO, path, "cannot be read: %s", strerror(e));
  *out_text = t.s ? t.s : "";
  *out_n = t.len;
  return ZN_OK;
}

zn_status zn_write_file(zn_ctx *c, const char *path, const void *bytes, size_t n) {
  FILE *f = fopen(path, "wb");
  struct stat st;
  bool fine = f && (n == 0 || fwrite(bytes, 1, n, f) == n);
  int e = errno;
  if (f && fclose(f)) fine = false, e = errno;
  if (fine) return ZN_OK;
  if (f && stat(path, &st) == 0 && S_ISREG(st.st_mode)) remove(path);
  return zn_fail(c, ZN_ERR_IO, path, "cannot be written: %s", strerror(e));
}

bool zn_has_suffix(const char *path, const char *suffix) {
  size_t n = strlen(path), k = strlen(suffix);
  return n >= k && !strcmp(path + n - k, suffix);
}

const char *zn_base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

const char *zn_suffix(const char *path) {
  const char *base = zn_base_name(path), *dot = strrchr(base, '.');
  return dot && dot != base ? dot : base + strlen(base);
}
