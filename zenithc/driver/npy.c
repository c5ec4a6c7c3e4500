/* NumPy files. The header is a Python dictionary literal with three known keys, read by a small scanner; contents are
 * byte-swapped and transposed to the host form where needed. Archives go through libzip. */
#include "zenithc/driver/npy.h"

#include <errno.h>
#include <sys/stat.h>
#include <zip.h>

#include "zenithc/base/file.h"
#include "zenithc/base/text.h"

typedef struct header {
  char kind;      /* b i u f c S U */
  uint64_t item;  /* bytes per element as stored (U: 4 per character) */
  bool swapped, fortran;
  uint32_t rank;
  int64_t dims[ZN_MAX_RANK];
} header;

/* ---- header ---- */

static const char *after_key(const char *h, const char *key) {
  const char *p = strstr(h, key);
  if (!p) return NULL;
  p += strlen(key);
  while (*p == ' ') p++;
  if (*p != ':') return NULL;
  for (p++; *p == ' ';) p++;
  return p;
}

static bool parse_descr(const char *p, header *h) {
  if ((*p != '\'' && *p != '"') || !p[1] || !p[2]) return false;
  char order = p[1];
  h->kind = p[2];
  char *end;
  errno = 0;
  h->item = strtoull(p + 3, &end, 10);
  if (p[3] < '0' || p[3] > '9' || *end != *p || errno || h->item > 1u << 20) return false;
  if (h->kind == 'U') h->item *= 4;
  h->swapped = order == '>' && h->item > 1;
  return (order == '<' || order == '>' || order == '|' || order == '=') && strchr("biufcSU", h->kind) != NULL;
}

static bool parse_shape(const char *p, header *h) {
  if (*p++ != '(') return false;
  for (;;) {
    while (*p == ' ') p++;
    if (*p == ')') return true;
    char *end;
    errno = 0;
    long long v = strtoll(p, &end, 10);
    if (end == p || v < 0 || errno || h->rank == ZN_MAX_RANK) return false;
    h->dims[h->rank++] = v;
    for (p = end; *p == ' ' || *p == 'L';) p++;
    if (*p == ',') p++;
    else if (*p != ')') return false;
  }
}

static zn_dtype dtype_of(const header *h) {
  switch (h->kind) {
    case 'b': return h->item == 1 ? ZN_BOOL : ZN_NONE;
    case 'i': return h->item == 1 ? ZN_I8 : h->item == 2 ? ZN_I16 : h->item == 4 ? ZN_I32 : h->item == 8 ? ZN_I64 : ZN_NONE;
    case 'u': return h->item == 1 ? ZN_U8 : h->item == 2 ? ZN_U16 : h->item == 4 ? ZN_U32 : h->item == 8 ? ZN_U64 : ZN_NONE;
    case 'f': return h->item == 2 ? ZN_F16 : h->item == 4 ? ZN_F32 : h->item == 8 ? ZN_F64 : ZN_NONE;
    case 'c': return h->item == 8 ? ZN_C64 : h->item == 16 ? ZN_C128 : ZN_NONE;
    default: return ZN_STR;
  }
}

/* ---- contents ---- */

/* Offset in elements, in the file, of C-order element i. */
static uint64_t fortran_index(const header *h, uint64_t i) {
  uint64_t at = 0, stride = 1;
  int64_t coord[ZN_MAX_RANK];
  for (uint32_t d = h->rank; d-- > 0;) {
    coord[d] = (int64_t)(i % (uint64_t)h->dims[d]);
    i /= (uint64_t)h->dims[d];
  }
  for (uint32_t d = 0; d < h->rank; d++) {
    at += (uint64_t)coord[d] * stride;
    stride *= (uint64_t)h->dims[d];
  }
  return at;
}

static void copy_item(const header *h, const uint8_t *src, uint8_t *dst) {
  uint64_t part = h->kind == 'c' ? h->item / 2 : h->item;
  for (uint64_t k = 0; k < h->item; k++) dst[k] = src[h->swapped ? k / part * part + (part - 1 - k % part) : k];
}

static size_t utf8(uint32_t ch, char *out) {
  if (ch < 0x80) return out[0] = (char)ch, 1;
  if (ch < 0x800) return out[0] = (char)(0xc0 | ch >> 6), out[1] = (char)(0x80 | (ch & 63)), 2;
  if (ch < 0x10000) {
    out[0] = (char)(0xe0 | ch >> 12), out[1] = (char)(0x80 | (ch >> 6 & 63)), out[2] = (char)(0x80 | (ch & 63));
    return 3;
  }
  out[0] = (char)(0xf0 | (ch >> 18 & 7)), out[1] = (char)(0x80 | (ch >> 12 & 63));
  out[2] = (char)(0x80 | (ch >> 6 & 63)), out[3] = (char)(0x80 | (ch & 63));
  return 4;
}

static zn_str string_item(zn_arena *a, const header *h, const uint8_t *src) {
  zn_text t;
  zn_text_init(&t, a);
  for (uint64_t k = 0; k < h->item; k += h->kind == 'U' ? 4 : 1) {
    char buf[4] = {(char)src[k]};
    uint32_t ch = src[k];
    if (h->kind == 'U') {
      const uint8_t *s = src + k;
      ch = h->swapped ? (uint32_t)s[0] << 24 | (uint32_t)s[1] << 16 | (uint32_t)s[2] << 8 | s[3]
                      : (uint32_t)s[3] << 24 | (uint32_t)s[2] << 16 | (uint32_t)s[1] << 8 | s[0];
    }
    if (ch == 0) break;
    zn_text_put(&t, buf, h->kind == 'U' ? utf8(ch, buf) : 1);
  }
  return (zn_str){t.s ? t.s : "", t.len};
}

static void contents(zn_arena *a, const header *h, const uint8_t *p, uint64_t count, zn_htensor *out) {
  bool plain = !h->fortran && !h->swapped && out->dtype != ZN_STR;
  if (plain && count) memcpy(out->data, p, count * h->item);
  for (uint64_t i = 0; i < count && !plain; i++) {
    const uint8_t *src = p + (h->fortran ? fortran_index(h, i) : i) * h->item;
    if (out->dtype == ZN_STR) ((zn_str *)out->data)[i] = string_item(a, h, src);
    else copy_item(h, src, (uint8_t *)out->data + i * h->item);
  }
  if (out->dtype == ZN_BOOL)
    for (uint64_t i = 0; i < count; i++) ((uint8_t *)out->data)[i] = ((uint8_t *)out->data)[i] != 0;
}

zn_status zn_npy_parse(zn_ctx *c, zn_arena *a, const uint8_t *data, size_t n, const char *what, zn_htensor *out) {
  memset(out, 0, sizeof *out);
  if (n < 10 || memcmp(data, "\x93NUMPY", 6) != 0) return zn_error(c, what, "not a NumPy file");
  size_t start = data[6] == 1 ? 10 : 12, len = (size_t)data[8] | (size_t)data[9] << 8;
  if (data[6] < 1 || data[6] > 3) return zn_error(c, what, "NumPy format version %d; known are 1 to 3", data[6]);
  if (start == 12) len = n < 12 ? n : len | (size_t)data[10] << 16 | (size_t)data[11] << 24;
  if (n < start || len > n - start || len > 1 << 20) return zn_error(c, what, "a truncated NumPy header");
  char *text = zn_arena_strndup(&c->tmp, (const char *)data + start, len);
  const char *descr = after_key(text, "'descr'"), *shape = after_key(text, "'shape'");
  const char *fortran = after_key(text, "'fortran_order'");
  header h = {0};
  if (!descr || !shape || !fortran) return zn_error(c, what, "a NumPy header without descr, shape or fortran_order");
  h.fortran = !strncmp(fortran, "True", 4);
  if (!parse_descr(descr, &h) || dtype_of(&h) == ZN_NONE)
    return zn_fail(c, ZN_ERR_UNSUPPORTED, what, "NumPy element type %.24s: expected bool, integers, floats or strings", descr);
  if (!parse_shape(shape, &h))
    return zn_error(c, what, "a NumPy shape that is malformed or of more than %d dimensions", ZN_MAX_RANK);
  uint64_t count, left = n - start - len;
  zn_dtype t = dtype_of(&h);
  if (!zn_dims_count(h.rank, h.dims, 16, &count) || (h.item && count > left / h.item) || (!h.item && count > left + 65536))
    return zn_error(c, what, "the file is shorter than its shape");
  *out = zn_htensor_new(a, t, h.rank, h.dims);
  contents(a, &h, data + start + len, count, out);
  return ZN_OK;
}

static zn_status read_file(zn_ctx *c, zn_arena *a, const char *path, uint8_t **out, size_t *out_n) {
  FILE *f = fopen(path, "rb");
  struct stat st;
  if (!f) return zn_fail(c, ZN_ERR_IO, NULL, "cannot open '%s': %s", path, strerror(errno));
  bool ok = fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode);
  if (ok) {
    *out_n = (size_t)st.st_size;
    *out = zn_arena_alloc(a, *out_n);
    ok = fread(*out, 1, *out_n, f) == *out_n;
  }
  fclose(f);
  return ok ? ZN_OK : zn_fail(c, ZN_ERR_IO, NULL, "cannot read '%s'", path);
}

zn_status zn_npy_read(zn_ctx *c, zn_arena *a, const char *path, zn_htensor *out) {
  zn_arena tmp;
  uint8_t *p = NULL;
  size_t n = 0;
  zn_arena_init(&tmp, "file");
  zn_status st = read_file(c, &tmp, path, &p, &n);
  if (st == ZN_OK) st = zn_npy_parse(c, a, p, n, path, out);
  zn_arena_reset(&tmp);
  return st;
}

/* ---- writing ---- */

static uint32_t decode_utf8(const char **p, const char *end) {
  const uint8_t *s = (const uint8_t *)*p;
  size_t left = (size_t)(end - *p), n = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
  uint32_t ch = n == 1 ? s[0] : n == 2 ? s[0] & 31u : n == 3 ? s[0] & 15u : s[0] & 7u;
  if (s[0] < 0xc0 || n > left) n = 1, ch = s[0];
  for (size_t i = 1; i < n; i++) ch = ch << 6 | (s[i] & 63u);
  *p += n;
  return ch;
}

static uint64_t longest_string(const zn_htensor *t, uint64_t count) {
  uint64_t longest = 1;
  for (uint64_t i = 0; i < count; i++) {
    const zn_str *s = (const zn_str *)t->data + i;
    uint64_t n = 0;
    for (const char *p = s->ptr, *end = p + s->len; p < end; n++) (void)decode_utf8(&p, end);
    if (n > longest) longest = n;
  }
  return longest;
}

/* The whole file in arena a. */
static uint8_t *build(zn_arena *a, const zn_htensor *t, size_t *out_n) {
  uint64_t count = zn_htensor_count(t), item = zn_dtype_bytes(t->dtype), chars = 0;
  char kind = zn_dtypes[t->dtype].cls;
  kind = kind == 'B' ? 'b' : kind == 'I' ? 'i' : kind == 'U' ? 'u' : kind == 'C' ? 'c' : kind == 'S' ? 'U' : 'f';
  if (kind == 'f' && t->dtype != ZN_F16 && t->dtype != ZN_F32 && t->dtype != ZN_F64) kind = 'u';
  if (kind == 'U') {
    chars = longest_string(t, count);
    item = chars * 4;
  }
  zn_text h;
  zn_text_init(&h, a);
  zn_text_printf(&h, "{'descr': '%c%c%llu', 'fortran_order': False, 'shape': (", item == 1 ? '|' : '<', kind,
                 (unsigned long long)(kind == 'U' ? chars : item));
  for (uint32_t d = 0; d < t->rank; d++) zn_text_printf(&h, d ? ", %lld" : "%lld", (long long)t->dims[d]);
  zn_text_puts(&h, t->rank == 1 ? ",), }" : "), }");
  while ((h.len + 11) % 64) zn_text_puts(&h, " ");
  zn_text_puts(&h, "\n");
  *out_n = 10 + h.len + count * item;
  uint8_t *p = zn_arena_alloc(a, *out_n), *q = p + 10 + h.len;
  memcpy(p, "\x93NUMPY\x01\x00", 8);
  p[8] = (uint8_t)(h.len & 255);
  p[9] = (uint8_t)(h.len >> 8);
  memcpy(p + 10, h.s, h.len);
  if (kind != 'U' && count) memcpy(q, t->data, count * item);
  for (uint64_t i = 0; i < count && kind == 'U'; i++, q += item) {
    const zn_str *s = (const zn_str *)t->data + i;
    uint8_t *w = q;
    for (const char *r = s->ptr, *end = r + s->len; r < end; w += 4) {
      uint32_t ch = decode_utf8(&r, end);
      for (int b = 0; b < 4; b++) w[b] = (uint8_t)(ch >> 8 * b);
    }
  }
  return p;
}

zn_status zn_npy_write(zn_ctx *c, const char *path, const zn_htensor *t) {
  zn_arena a;
  size_t n;
  zn_arena_init(&a, "file");
  uint8_t *p = build(&a, t, &n);
  zn_status st = zn_write_file(c, path, p, n);
  zn_arena_reset(&a);
  return st;
}

/* ---- archives ---- */

enum { MAX_MEMBERS = 65536 };

static zn_status read_member(zn_ctx *c, zn_arena *a, zip_t *z, zip_uint64_t i, uint64_t *budget, zn_htensor *out) {
  zip_stat_t st;
  if (zip_stat_index(z, i, 0, &st) != 0 || !(st.valid & ZIP_STAT_SIZE) || !(st.valid & ZIP_STAT_NAME))
    return zn_error(c, NULL, "an unreadable archive member");
  if (st.size > *budget) return zn_error(c, st.name, "%llu bytes when unpacked: too large", (unsigned long long)st.size);
  *budget -= st.size;
  zn_arena tmp;
  zn_arena_init(&tmp, "file");
  uint8_t *p = zn_arena_alloc(&tmp, st.size);
  zip_file_t *f = zip_fopen_index(z, i, 0);
  bool ok = f && zip_fread(f, p, st.size) == (zip_int64_t)st.size;
  if (f) zip_fclose(f);
  zn_status s = ok ? zn_npy_parse(c, a, p, st.size, st.name, out) : zn_error(c, st.name, "cannot be unpacked");
  zn_arena_reset(&tmp);
  size_t len = strlen(st.name);
  if (len > 4 && !strcmp(st.name + len - 4, ".npy")) len -= 4;
  out->name = zn_arena_strndup(a, st.name, len);
  return s;
}

static const char *zip_text(zn_arena *a, int code) {
  zip_error_t e;
  zip_error_init_with_code(&e, code);
  const char *text = zn_arena_strdup(a, zip_error_strerror(&e));
  zip_error_fini(&e);
  return text;
}

zn_status zn_npz_read(zn_ctx *c, zn_arena *a, const char *path, zn_htensor **out, uint32_t *out_n) {
  int err = 0;
  struct stat st;
  if (stat(path, &st) != 0) return zn_fail(c, ZN_ERR_IO, NULL, "cannot open '%s': %s", path, strerror(errno));
  zip_t *z = zip_open(path, ZIP_RDONLY, &err);
  if (!z) return zn_error(c, path, "not a readable .npz archive: %s", zip_text(&c->tmp, err));
  zip_int64_t n = zip_get_num_entries(z, 0);
  zn_status s = n > MAX_MEMBERS ? zn_error(c, path, "more than %d members", MAX_MEMBERS) : ZN_OK;
  /* deflate reaches 1000:1; honest data stays far below */
  uint64_t budget = ((uint64_t)256 << 20) + (uint64_t)st.st_size * 64;
  *out_n = 0;
  *out = ZN_ARRAY(a, zn_htensor, n > 0 && s == ZN_OK ? n : 0);
  for (zip_int64_t i = 0; i < n && s == ZN_OK; i++) s = read_member(c, a, z, (zip_uint64_t)i, &budget, &(*out)[(*out_n)++]);
  zip_discard(z);
  return s;
}

zn_status zn_npz_write(zn_ctx *c, const char *path, const zn_htensor *t, uint32_t n) {
  int err = 0;
  zip_t *z = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &err);
  if (!z) return zn_fail(c, ZN_ERR_IO, NULL, "cannot write '%s': %s", path, zip_text(&c->tmp, err));
  zn_arena a;
  zn_arena_init(&a, "file");
  bool ok = true;
  for (uint32_t i = 0; i < n && ok; i++) {
    size_t len;
    uint8_t *p = build(&a, &t[i], &len);
    char *name = t[i].name ? zn_arena_printf(&a, "%s.npy", t[i].name) : zn_arena_printf(&a, "arr_%u.npy", i);
    zip_source_t *src = zip_source_buffer(z, p, len, 0);
    zip_int64_t k = src ? zip_file_add(z, name, src, ZIP_FL_ENC_UTF_8) : -1;
    ok = k >= 0 && zip_set_file_compression(z, (zip_uint64_t)k, ZIP_CM_STORE, 0) == 0 &&
         zip_file_set_dostime(z, (zip_uint64_t)k, 0, 0x21, 0) == 0; /* 1980-01-01 */
  }
  ok = ok && zip_close(z) == 0;
  if (!ok) zn_fail(c, ZN_ERR_IO, NULL, "cannot write '%s': %s", path, zip_strerror(z));
  if (!ok) zip_discard(z);
  zn_arena_reset(&a);
  return ok ? ZN_OK : ZN_ERR_IO;
}
