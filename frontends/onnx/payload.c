/* Tensor contents. The stored form (packed bytes) is found first: in the file, in typed fields, or in an external file
 * inside the model's folder. Then it is used in place when aligned, else copied; sub-byte elements get a byte each. */
#include "frontends/onnx/payload.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frontends/onnx/wire.h"

enum { FIELD_FLOAT = 4, FIELD_INT32 = 5, FIELD_INT64 = 7, FIELD_RAW = 9, FIELD_DOUBLE = 10, FIELD_UINT64 = 11 };

/* ---- files ---- */

zn_status zn_payload_map(zn_ctx *c, zn_onnx_maps *maps, const char *path, const uint8_t **out, size_t *out_n) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return zn_fail(c, ZN_ERR_IO, NULL, "cannot open '%s': %s", path, strerror(errno));
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    close(fd);
    return zn_fail(c, ZN_ERR_IO, NULL, "'%s' is not a regular file", path);
  }
  if (st.st_size == 0) {
    close(fd);
    *out = NULL;
    *out_n = 0;
    return ZN_OK;
  }
  void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  int err = errno;
  close(fd);
  if (p == MAP_FAILED) return zn_fail(c, ZN_ERR_IO, NULL, "cannot map '%s': %s", path, strerror(err));
  struct zn_onnx_map m = {zn_arena_strdup(&c->perm, path), p, (size_t)st.st_size};
  ZN_PUSH(&c->perm, maps->files, maps->num_files, maps->cap_files, m);
  *out = p;
  *out_n = m.size;
  return ZN_OK;
}

void zn_onnx_unmap(zn_onnx_maps *maps) {
  for (uint32_t i = 0; i < maps->num_files; i++)
    munmap((void *)(uintptr_t)maps->files[i].data, maps->files[i].size);
  memset(maps, 0, sizeof *maps);
}

static bool leaves_folder(const char *loc) {
  if (*loc == '/' || *loc == 0 || strchr(loc, '\\')) return true;
  for (const char *p = loc; p; p = strchr(p, '/')) {
    if (*p == '/') p++;
    if (!strncmp(p, "..", 2) && (p[2] == 0 || p[2] == '/')) return true;
  }
  return false;
}

/* The external file `loc`, mapped once. */
static zn_status external_file(zn_payload *s, const char *loc, const char *where, const uint8_t **out,
                               size_t *out_n) {
  if (!s->dir)
    return zn_error(s->c, where, "external data '%s', but the model is not in a folder", loc);
  if (leaves_folder(loc) || strlen(loc) > 1024)
    return zn_error(s->c, where, "external data '%.200s' is outside the model's folder", loc);
  char buf[PATH_MAX], *path = zn_arena_printf(&s->c->tmp, "%s/%s", s->dir, loc);
  if (!s->real_dir) {
    if (!realpath(s->dir, buf))
      return zn_fail(s->c, ZN_ERR_IO, where, "cannot resolve '%s': %s", s->dir, strerror(errno));
    s->real_dir = zn_arena_strdup(s->a, buf);
  }
  if (!realpath(path, buf)) {
    zn_fail(s->c, ZN_ERR_IO, where, "external data '%s': %s", path, strerror(errno));
    zn_help(s->c, "the file belongs to the model: copy it too, to the same place beside it");
    return ZN_ERR_IO;
  }
  size_t n = strlen(s->real_dir);
  if (strncmp(buf, s->real_dir, n) != 0 || (n > 1 && buf[n] != '/'))
    return zn_error(s->c, where, "external data '%s' is a link to outside the model's folder", loc);
  for (uint32_t i = s->maps->num_files; i-- > 0;) {
    if (strcmp(s->maps->files[i].path, buf) != 0) continue;
    *out = s->maps->files[i].data;
    *out_n = s->maps->files[i].size;
    return ZN_OK;
  }
  return zn_payload_map(s->c, s->maps, buf, out, out_n);
}

static bool parse_u64(const char *t, uint64_t *out) {
  char *end;
  if (*t < '0' || *t > '9') return false;
  errno = 0;
  *out = strtoull(t, &end, 10);
  return errno == 0 && *end == 0;
}

static zn_status external_bytes(zn_payload *s, const Pb__TensorProto *t, const char *where, uint64_t want,
                                const uint8_t **out) {
  const char *loc = NULL;
  uint64_t off = 0, len = want;
  for (size_t i = 0; i < t->n_external_data; i++) {
    const char *k = t->external_data[i]->key, *v = t->external_data[i]->value;
    if (!k || !v) continue;
    if (!strcmp(k, "location")) loc = v;
    if ((!strcmp(k, "offset") && !parse_u64(v, &off)) || (!strcmp(k, "length") && !parse_u64(v, &len)))
      return zn_error(s->c, where, "external data with %s '%.40s', expected a number", k, v);
  }
  if (!loc) return zn_error(s->c, where, "external data without a location");
  if (len != want)
    return zn_error(s->c, where, "external data has %llu bytes, its shape and type need %llu",
                    (unsigned long long)len, (unsigned long long)want);
  size_t size;
  const uint8_t *base;
  ZN_TRY(external_file(s, loc, where, &base, &size));
  if (off > size || want > size - off) {
    zn_error(s->c, where, "external data at %llu+%llu ends behind '%s' (%zu bytes)", (unsigned long long)off,
             (unsigned long long)want, loc, size);
    zn_help(s->c, "the file is cut short or another model's: copy both again");
    return ZN_ERR_MODEL;
  }
  *out = base + off;
  return ZN_OK;
}

/* ---- stored bytes ---- */

/* The typed field that holds elements of type t, 0 for none. */
static uint32_t typed_field(zn_dtype t) {
  switch (t) {
    case ZN_F32:
    case ZN_C64: return FIELD_FLOAT;
    case ZN_F64:
    case ZN_C128: return FIELD_DOUBLE;
    case ZN_I64: return FIELD_INT64;
    case ZN_U64:
    case ZN_U32: return FIELD_UINT64;
    default: return FIELD_INT32;
  }
}

static size_t unpacked_count(const Pb__TensorProto *t, uint32_t field) {
  switch (field) {
    case FIELD_FLOAT: return t->n_float_data;
    case FIELD_DOUBLE: return t->n_double_data;
    case FIELD_INT64: return t->n_int64_data;
    case FIELD_UINT64: return t->n_uint64_data;
    default: return t->n_int32_data;
  }
}

static uint64_t unpacked_at(const Pb__TensorProto *t, uint32_t field, size_t i) {
  if (field == FIELD_INT64) return (uint64_t)t->int64_data[i];
  if (field == FIELD_UINT64) return t->uint64_data[i];
  return (uint64_t)(int64_t)t->int32_data[i];
}

typedef struct stored {
  const uint8_t *p;
  uint64_t n;
  bool owned; /* in the arena already */
} stored;

/* Varints to little-endian items of `width` bytes. Fails when there are not exactly `count`. */
static bool decode_varints(zn_payload *s, const Pb__TensorProto *t, uint32_t field, unsigned width,
                           uint64_t count, uint64_t payload_bytes, stored *out) {
  size_t loose = unpacked_count(t, field);
  if (count > payload_bytes + loose) return false; /* a varint takes a byte at least */
  uint8_t *q = zn_arena_array(s->a, count, width);
  uint64_t done = 0;
  for (size_t i = 0; i < loose && done < count; i++, done++) {
    uint64_t v = unpacked_at(t, field, i);
    memcpy(q + done * width, &v, width);
  }
  bool more = loose > count;
  for (size_t i = 0; i < t->n_view; i++) {
    if (t->view[i]->field != field) continue;
    const uint8_t *p = s->base + t->view[i]->offset, *end = p + t->view[i]->length;
    while (p < end) {
      uint64_t v;
      if (!zn_wire_varint(&p, end, &v)) return false;
      if (done == count) return false;
      memcpy(q + done++ * width, &v, width);
    }
  }
  *out = (stored){q, count * width, true};
  return !more && done == count;
}

/* Fixed-size typed data (float_data, double_data): one chunk is used in place. */
static bool fixed_chunks(zn_payload *s, const Pb__TensorProto *t, uint32_t field, uint64_t want, stored *out) {
  size_t item = field == FIELD_FLOAT ? 4 : 8, loose = unpacked_count(t, field);
  uint64_t total = (uint64_t)loose * item, chunks = 0;
  for (size_t i = 0; i < t->n_view; i++) {
    if (t->view[i]->field != field) continue;
    if (t->view[i]->length % item) return false;
    total += t->view[i]->length;
    chunks++;
    *out = (stored){s->base + t->view[i]->offset, t->view[i]->length, false};
  }
  if (total != want) return false;
  if (chunks == 1 && !loose) return true;
  uint8_t *q = zn_arena_alloc(s->a, total), *p = q;
  const void *src = field == FIELD_FLOAT ? (const void *)t->float_data : (const void *)t->double_data;
  if (loose) memcpy(p, src, loose * item);
  p += loose * item;
  for (size_t i = 0; i < t->n_view; i++) {
    if (t->view[i]->field != field) continue;
    memcpy(p, s->base + t->view[i]->offset, t->view[i]->length);
    p += t->view[i]->length;
  }
  *out = (stored){q, total, true};
  return true;
}

static zn_status find_stored(zn_payload *s, const Pb__TensorProto *t, zn_dtype dt, uint64_t count,
                             const char *where, stored *out) {
  uint64_t want = (count * zn_dtype_bits(dt) + 7) / 8, payload = 0;
  const Pb__View *raw = NULL;
  if (t->data_location == 1) {
    *out = (stored){NULL, want, false};
    return external_bytes(s, t, where, want, &out->p);
  }
  uint32_t field = typed_field(dt);
  for (size_t i = 0; i < t->n_view; i++) {
    const Pb__View *v = t->view[i];
    if (v->offset > s->size || v->length > s->size - v->offset)
      return zn_error(s->c, where, "payload outside the file");
    if (v->field == FIELD_RAW) raw = v;
    if (v->field == field) payload += v->length;
  }
  if (raw) {
    *out = (stored){s->base + raw->offset, raw->length, false};
    if (raw->length == want) return ZN_OK;
    return zn_error(s->c, where, "%llu bytes of data, its shape and type (%s) need %llu",
                    (unsigned long long)raw->length, zn_dtypes[dt].name, (unsigned long long)want);
  }
  bool ok;
  if (field == FIELD_FLOAT || field == FIELD_DOUBLE) {
    ok = fixed_chunks(s, t, field, want, out);
  } else {
    unsigned width = zn_dtype_bits(dt) < 8 ? 1 : zn_dtype_bytes(dt);
    ok = decode_varints(s, t, field, width, want / width, payload, out);
  }
  if (ok) return ZN_OK;
  return zn_error(s->c, where, "its data does not have the %llu elements (%s) of its shape",
                  (unsigned long long)count, zn_dtypes[dt].name);
}

/* ---- from stored to host form ---- */

static uint8_t *unpack_sub_byte(zn_arena *a, zn_dtype dt, const uint8_t *p, uint64_t count) {
  unsigned bits = zn_dtype_bits(dt), mask = (1u << bits) - 1;
  uint8_t *q = zn_arena_alloc(a, count);
  bool sign = zn_is_signed(dt);
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t at = i * bits;
    const unsigned shift = (unsigned)(at % 8);
    unsigned v = (unsigned)p[at / 8] >> shift;
    if (shift + bits > 8) v |= (unsigned)p[at / 8 + 1] << (8 - shift);
    v &= mask;
    if (sign && v >> (bits - 1)) v |= ~mask;
    q[i] = (uint8_t)v;
  }
  return q;
}

static bool bools_clean(const uint8_t *p, uint64_t n) {
  uint8_t any = 0;
  for (uint64_t i = 0; i < n; i++) any |= p[i];
  return any <= 1;
}

/* Drops the pages of a copied view, so that the file and its copy are not resident together. */
static void drop_pages(const zn_payload *s, const stored *st) {
  uintptr_t page = 4096, lo = ((uintptr_t)st->p + page - 1) & ~(page - 1), hi = ((uintptr_t)st->p + st->n) & ~(page - 1);
  bool in_base = st->p >= s->base && st->p < s->base + s->size;
  if ((s->mapped || !in_base) && hi > lo && st->n >= 16 * page) madvise((void *)lo, hi - lo, MADV_DONTNEED);
}

static void *host_form(zn_payload *s, zn_dtype dt, const stored *st, uint64_t count) {
  if (zn_dtype_bits(dt) < 8) return unpack_sub_byte(s->a, dt, st->p, count);
  uintptr_t align = dt == ZN_C64 ? 4 : dt == ZN_C128 ? 8 : zn_dtype_bytes(dt);
  bool clean = dt != ZN_BOOL || bools_clean(st->p, st->n);
  if (st->owned && clean) return (void *)(uintptr_t)st->p;
  if (clean && !s->copy && (uintptr_t)st->p % align == 0 && st->n >= 1024) return (void *)(uintptr_t)st->p;
  uint8_t *q = zn_arena_alloc(s->a, st->n);
  if (st->n) memcpy(q, st->p, st->n);
  if (!clean)
    for (uint64_t i = 0; i < st->n; i++) q[i] = q[i] != 0;
  if (!st->owned) drop_pages(s, st);
  return q;
}

static zn_status strings(zn_payload *s, const Pb__TensorProto *t, uint64_t count, const char *where, void **out) {
  if (t->n_string_data != count)
    return zn_error(s->c, where, "%zu strings, its shape needs %llu", t->n_string_data, (unsigned long long)count);
  zn_str *q = zn_arena_array(s->a, count, sizeof *q);
  for (uint64_t i = 0; i < count; i++) {
    size_t n = t->string_data[i].len;
    q[i] = (zn_str){zn_arena_strndup(s->a, n ? (const char *)t->string_data[i].data : "", n), n};
  }
  *out = q;
  return ZN_OK;
}

static zn_status get_dims(zn_payload *s, size_t n, const int64_t *dims, zn_dtype dt, const char *where,
                          zn_htensor *out, uint64_t *out_count) {
  if (n > ZN_MAX_RANK)
    return zn_error(s->c, where, "rank %zu; tensors have at most %d dimensions", n, ZN_MAX_RANK);
  out->dtype = dt;
  out->rank = (uint32_t)n;
  for (size_t i = 0; i < n; i++) out->dims[i] = dims[i];
  if (!zn_dims_count((uint32_t)n, dims, zn_dtype_bytes(dt), out_count))
    return zn_error(s->c, where, "an impossible shape (a negative dimension or too many elements)");
  return ZN_OK;
}

static zn_dtype known_dtype(zn_payload *s, const Pb__TensorProto *t, const char *where) {
  zn_dtype dt = zn_dtype_from_onnx(t->data_type);
  if (dt == ZN_NONE) zn_error(s->c, where, "unknown element type %d", t->data_type);
  return dt;
}

zn_status zn_payload_tensor(zn_payload *s, const Pb__TensorProto *t, const char *where, zn_htensor *out) {
  uint64_t count;
  memset(out, 0, sizeof *out);
  zn_dtype dt = known_dtype(s, t, where);
  if (dt == ZN_NONE) return ZN_ERR_MODEL;
  ZN_TRY(get_dims(s, t->n_dims, t->dims, dt, where, out, &count));
  out->name = t->name ? zn_arena_strdup(s->a, t->name) : NULL;
  if (dt == ZN_STR) {
    if (t->data_location == 1) return zn_error(s->c, where, "strings in external data");
    return strings(s, t, count, where, &out->data);
  }
  if (count == 0) {
    out->data = zn_arena_alloc(s->a, 16);
    return ZN_OK;
  }
  stored st = {NULL, 0, false};
  ZN_TRY(find_stored(s, t, dt, count, where, &st));
  out->data = host_form(s, dt, &st, count);
  return ZN_OK;
}

/* indices: [nnz] positions in the flat tensor, or [nnz, rank] coordinates. */
zn_status zn_payload_sparse(zn_payload *s, const Pb__SparseTensorProto *t, const char *where, zn_htensor *out) {
  zn_htensor v, ix;
  uint64_t count;
  memset(out, 0, sizeof *out);
  if (!t->values || !t->indices) return zn_error(s->c, where, "a sparse tensor without values or indices");
  ZN_TRY(zn_payload_tensor(s, t->values, where, &v));
  ZN_TRY(zn_payload_tensor(s, t->indices, where, &ix));
  ZN_TRY(get_dims(s, t->n_dims, t->dims, v.dtype, where, out, &count));
  out->name = v.name;
  uint64_t nnz = v.rank == 1 ? (uint64_t)v.dims[0] : UINT64_MAX, bytes = count * zn_dtype_bytes(v.dtype);
  bool linear = ix.rank == 1 && (uint64_t)ix.dims[0] == nnz;
  bool coords = ix.rank == 2 && (uint64_t)ix.dims[0] == nnz && (uint64_t)ix.dims[1] == out->rank;
  if (ix.dtype != ZN_I64 || v.dtype == ZN_STR || !(linear || coords))
    return zn_error(s->c, where, "a sparse tensor needs values [nnz] and i64 indices [nnz] or [nnz, rank]");
  if (bytes > s->sparse_left)
    return zn_fail(s->c, ZN_ERR_UNSUPPORTED, where, "a sparse tensor of %llu MiB when dense: too large",
                   (unsigned long long)(bytes >> 20));
  s->sparse_left -= bytes;
  unsigned w = zn_dtype_bytes(v.dtype);
  uint8_t *q = zn_arena_alloc(s->a, bytes);
  for (uint64_t i = 0; i < nnz; i++) {
    uint64_t at = 0;
    for (uint32_t d = 0; d < (linear ? 1 : out->rank); d++) {
      int64_t x = zn_load_i64(ZN_I64, ix.data, linear ? i : i * out->rank + d);
      uint64_t extent = linear ? count : (uint64_t)out->dims[d];
      if (x < 0 || (uint64_t)x >= extent)
        return zn_error(s->c, where, "sparse index %lld outside the tensor", (long long)x);
      at = at * extent + (uint64_t)x;
    }
    memcpy(q + at * w, (const uint8_t *)v.data + i * w, w);
  }
  out->data = q;
  return ZN_OK;
}
