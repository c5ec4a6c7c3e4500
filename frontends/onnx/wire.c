/* A walk over protobuf wire data, guided by protobuf-c's descriptors. It writes a skeleton of the message: the same
 * structure with unknown fields dropped and tensor payloads replaced by views, nested lengths as five-byte varints that
 * are filled in afterwards. protobuf-c then unpacks the skeleton with an allocator that has a limit. */
#include "frontends/onnx/wire.h"

#include <stdarg.h>

#include "onnx_min.pb-c.h"

typedef struct walk {
  zn_ctx *c;
  zn_arena *a;
  const uint8_t *base; /* start of the file */
  const char *what;
  uint8_t *out;
  size_t len, cap;
  uint64_t cost; /* estimate of protobuf-c's memory */
  bool failed;
} walk;

static bool fail(walk *w, const uint8_t *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static bool fail(walk *w, const uint8_t *at, const char *fmt, ...) {
  char msg[256];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(msg, sizeof msg, fmt, ap);
  va_end(ap);
  if (!w->failed)
    zn_error(w->c, NULL, "not a readable ONNX %s: %s at byte %zu", w->what, msg, (size_t)(at - w->base));
  w->failed = true;
  return false;
}

bool zn_wire_varint(const uint8_t **p, const uint8_t *end, uint64_t *out) {
  uint64_t v = 0;
  const uint8_t *q = *p;
  for (unsigned shift = 0; shift < 70 && q < end; shift += 7) {
    uint8_t b = *q++;
    if (shift < 64) v |= (uint64_t)(b & 0x7f) << shift;
    if (!(b & 0x80)) {
      *p = q;
      *out = v;
      return true;
    }
  }
  return false;
}

static void put(walk *w, const void *s, size_t n) {
  if (w->len + n > w->cap) {
    size_t cap = w->cap ? w->cap * 2 : 4096;
    while (cap < w->len + n) cap *= 2;
    w->out = zn_arena_grow(w->a, w->out, w->len, cap);
    w->cap = cap;
  }
  if (n) memcpy(w->out + w->len, s, n);
  w->len += n;
}

static void put_varint(walk *w, uint64_t v) {
  uint8_t b[10];
  size_t n = 0;
  do {
    b[n++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
    v >>= 7;
  } while (v);
  put(w, b, n);
}

static void put_tag(walk *w, uint32_t field, unsigned wire) { put_varint(w, (uint64_t)field << 3 | wire); }

/* Reserves a length, and fills it in when the end is known. */
static size_t open_length(walk *w) {
  put(w, "\0\0\0\0\0", 5);
  return w->len;
}
static void close_length(walk *w, size_t start) {
  size_t n = w->len - start;
  for (int i = 0; i < 5; i++)
    w->out[start - 5 + (size_t)i] = (uint8_t)(((n >> 7 * i) & 0x7f) | (i < 4 ? 0x80 : 0));
}

static void put_view(walk *w, uint32_t field, const uint8_t *p, uint64_t n) {
  uint64_t off = (uint64_t)(p - w->base);
  put_tag(w, ZN_WIRE_LOCAL_FIELD, 2);
  size_t at = open_length(w);
  put_tag(w, 1, 0);
  put_varint(w, field);
  put_tag(w, 2, 1);
  put(w, &off, 8);
  put_tag(w, 3, 1);
  put(w, &n, 8);
  close_length(w, at);
  w->cost += sizeof(Pb__View) + 48;
}

static bool is_payload(uint32_t field) {
  return field == 4 || field == 5 || field == 7 || field == 9 || field == 10 || field == 11;
}

/* Elements in a packed field, for the estimate: the smallest wire form of an element is one byte. */
static bool wire_fits(const ProtobufCFieldDescriptor *f, unsigned wire) {
  bool packed = f->label == PROTOBUF_C_LABEL_REPEATED && wire == 2;
  switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE: return wire == 2;
    case PROTOBUF_C_TYPE_FLOAT: return wire == 5 || packed;
    case PROTOBUF_C_TYPE_DOUBLE: return wire == 1 || packed;
    default: return wire == 0 || packed;
  }
}

static bool walk_message(walk *w, const uint8_t *p, const uint8_t *end,
                         const ProtobufCMessageDescriptor *md, unsigned depth);

/* One length-delimited field with contents s[0..n). */
static bool walk_bytes(walk *w, const ProtobufCMessageDescriptor *md, const ProtobufCFieldDescriptor *f,
                       const uint8_t *s, uint64_t n, unsigned depth) {
  if (md == &pb__tensor_proto__descriptor && is_payload(f->id)) {
    put_view(w, f->id, s, n);
    return true;
  }
  put_tag(w, f->id, 2);
  if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
    size_t at = open_length(w);
    if (!walk_message(w, s, s + n, f->descriptor, depth + 1)) return false;
    if (w->len - at >= (uint64_t)1 << 31) return fail(w, s, "a message of more than 2 GiB");
    close_length(w, at);
    return true;
  }
  if (f->type == PROTOBUF_C_TYPE_STRING && n && memchr(s, 0, n)) return fail(w, s, "a NUL byte in a string");
  if (n >= (uint64_t)1 << 31) return fail(w, s, "a field of more than 2 GiB");
  put_varint(w, n);
  put(w, s, n);
  bool scalars = f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_BYTES;
  w->cost += 32 + (scalars ? n * 8 : n);
  return true;
}

static bool walk_message(walk *w, const uint8_t *p, const uint8_t *end,
                         const ProtobufCMessageDescriptor *md, unsigned depth) {
  uint64_t seen = 0;
  if (depth > ZN_WIRE_DEPTH) return fail(w, p, "messages nested deeper than %d levels", ZN_WIRE_DEPTH);
  w->cost += md->sizeof_message + 24;
  while (p < end) {
    const uint8_t *start = p;
    uint64_t tag, n = 0;
    if (!zn_wire_varint(&p, end, &tag)) return fail(w, start, "a truncated field tag");
    unsigned wire = (unsigned)(tag & 7);
    if (tag >> 3 == 0 || tag >> 3 >= 1u << 29) return fail(w, start, "an impossible field number");
    const uint8_t *value = p;
    if (wire == 0) {
      if (!zn_wire_varint(&p, end, &n)) return fail(w, start, "a truncated integer");
      n = 0;
    } else if (wire == 1 || wire == 5) {
      n = wire == 1 ? 8 : 4;
    } else if (wire == 2) {
      if (!zn_wire_varint(&p, end, &n)) return fail(w, start, "a truncated length");
    } else {
      return fail(w, start, "wire type %u", wire);
    }
    if (n > (uint64_t)(end - p))
      return fail(w, start, "a field of %llu bytes where %zu are left", (unsigned long long)n, (size_t)(end - p));
    const uint8_t *body = p;
    p += n;
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field(md, (unsigned)(tag >> 3));
    if (!f || f->id >= ZN_WIRE_LOCAL_FIELD || !wire_fits(f, wire)) continue;
    if (f->type == PROTOBUF_C_TYPE_MESSAGE && f->label != PROTOBUF_C_LABEL_REPEATED) {
      uint64_t bit = (uint64_t)1 << (f - md->fields);
      if (seen & bit) return fail(w, start, "a second '%s'", f->name);
      seen |= bit;
    }
    if (wire == 2) {
      if (!walk_bytes(w, md, f, body, n, depth)) return false;
    } else {
      put_tag(w, f->id, wire);
      put(w, value, (size_t)(p - value));
      w->cost += 16;
    }
  }
  return true;
}

/* ---- unpacking within a limit ---- */

typedef struct budget {
  zn_arena *a;
  uint64_t left;
} budget;

static void *budget_alloc(void *user, size_t n) {
  budget *b = user;
  if (n > b->left) return NULL;
  b->left -= n;
  return zn_arena_alloc(b->a, n);
}
static void budget_free(void *user, void *p) {
  (void)user;
  (void)p;
}

ProtobufCMessage *zn_wire_read(zn_ctx *c, zn_arena *a, const uint8_t *data, size_t n,
                               const ProtobufCMessageDescriptor *md, const char *what) {
  walk w = {.c = c, .a = a, .base = data, .what = what};
  if (n == 0) {
    zn_error(c, NULL, "the file is empty");
    return NULL;
  }
  put(&w, "", 0);
  if (!walk_message(&w, data, data + n, md, 0)) return NULL;
  uint64_t cap = ((uint64_t)64 << 20) + (uint64_t)n * 16;
  if (w.cost > cap) {
    zn_error(c, NULL, "a %s of %zu bytes whose structure needs %llu MiB: refused (limit %llu MiB)", what, n,
             (unsigned long long)(w.cost >> 20), (unsigned long long)(cap >> 20));
    return NULL;
  }
  budget b = {a, w.cost * 4 + 65536};
  ProtobufCAllocator al = {budget_alloc, budget_free, &b};
  static const uint8_t none[1];
  ProtobufCMessage *m = protobuf_c_message_unpack(md, &al, w.len, w.out ? w.out : none);
  if (!m) zn_error(c, NULL, "not a readable ONNX %s: its fields do not parse", what);
  return m;
}
