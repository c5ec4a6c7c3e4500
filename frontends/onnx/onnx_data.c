/* Data files of the ONNX test convention: TensorProto, SequenceProto, MapProto, OptionalProto. */

#include "frontends/onnx/payload.h"
#include "frontends/onnx/wire.h"
#include "zenithc/base/file.h"

enum { MAX_NESTING = 8 };
enum { ELEM_TENSOR = 1, ELEM_SEQUENCE = 3, ELEM_MAP = 4 }; /* SequenceProto.DataType, OptionalProto.DataType */

typedef struct reader {
  zn_ctx *c;
  zn_arena *a;
  zn_payload payload;
} reader;

static zn_status read_tensor(reader *r, const Pb__TensorProto *t, zn_pb_value *out) {
  out->kind = ZN_V_TENSOR;
  out->n = 1;
  return zn_payload_tensor(&r->payload, t, "tensor", &out->tensor);
}

static zn_status read_map(reader *r, const Pb__MapProto *m, unsigned depth, zn_pb_value *out);
static zn_status read_optional(reader *r, const Pb__OptionalProto *o, unsigned depth, zn_pb_value *out);

static zn_status read_sequence(reader *r, const Pb__SequenceProto *s, unsigned depth, zn_pb_value *out) {
  size_t n = s->n_tensor_values + s->n_sequence_values + s->n_map_values + s->n_optional_values;
  if (depth > MAX_NESTING) return zn_error(r->c, NULL, "values nested deeper than %d levels", MAX_NESTING);
  if (s->n_sparse_tensor_values) return zn_fail(r->c, ZN_ERR_UNSUPPORTED, NULL, "a sequence of sparse tensors");
  out->kind = ZN_V_SEQ;
  out->n = (uint32_t)n;
  out->items = ZN_ARRAY(r->a, zn_pb_value, n);
  zn_pb_value *v = out->items;
  for (size_t i = 0; i < s->n_tensor_values; i++) ZN_TRY(read_tensor(r, s->tensor_values[i], v++));
  for (size_t i = 0; i < s->n_sequence_values; i++) ZN_TRY(read_sequence(r, s->sequence_values[i], depth + 1, v++));
  for (size_t i = 0; i < s->n_map_values; i++) ZN_TRY(read_map(r, s->map_values[i], depth + 1, v++));
  for (size_t i = 0; i < s->n_optional_values; i++) ZN_TRY(read_optional(r, s->optional_values[i], depth + 1, v++));
  return ZN_OK;
}

static zn_status read_keys(reader *r, const Pb__MapProto *m, zn_pb_value *out) {
  zn_dtype t = zn_dtype_from_onnx(m->key_type);
  bool strings = m->n_string_keys > 0 || t == ZN_STR;
  size_t n = strings ? m->n_string_keys : m->n_keys;
  int64_t dims[1] = {(int64_t)n};
  if (strings) t = ZN_STR;
  if (!strings && !zn_is_int(t)) t = ZN_I64;
  out->n = (uint32_t)n;
  out->keys = zn_htensor_new(r->a, t, 1, dims);
  for (size_t i = 0; i < n; i++) {
    if (!strings) {
      zn_store_i64(t, out->keys.data, i, m->keys[i]);
      continue;
    }
    size_t len = m->string_keys[i].len;
    zn_str s = {zn_arena_strndup(r->a, len ? (const char *)m->string_keys[i].data : "", len), len};
    ((zn_str *)out->keys.data)[i] = s;
  }
  return ZN_OK;
}

/* Values that are all scalars of one type become one tensor. */
static void join_scalars(reader *r, zn_pb_value *v) {
  if (!v->n) return;
  zn_dtype t = v->items[0].tensor.dtype;
  for (uint32_t i = 0; i < v->n; i++)
    if (v->items[i].kind != ZN_V_TENSOR || v->items[i].tensor.dtype != t || zn_htensor_count(&v->items[i].tensor) != 1)
      return;
  int64_t dims[1] = {v->n};
  size_t w = zn_dtype_bytes(t);
  v->tensor = zn_htensor_new(r->a, t, 1, dims);
  for (uint32_t i = 0; i < v->n; i++) memcpy((char *)v->tensor.data + i * w, v->items[i].tensor.data, w);
}

static zn_status read_map(reader *r, const Pb__MapProto *m, unsigned depth, zn_pb_value *out) {
  zn_pb_value vals = {0};
  if (m->values) ZN_TRY(read_sequence(r, m->values, depth + 1, &vals));
  out->kind = ZN_V_MAP;
  ZN_TRY(read_keys(r, m, out));
  if (vals.n == 1 && out->n != 1 && vals.items[0].kind == ZN_V_TENSOR &&
      zn_htensor_count(&vals.items[0].tensor) == out->n) { /* all values in one tensor */
    out->tensor = vals.items[0].tensor;
    return ZN_OK;
  }
  if (vals.n != out->n) return zn_error(r->c, NULL, "a map of %u keys and %u values", out->n, vals.n);
  out->items = vals.items;
  join_scalars(r, out);
  return ZN_OK;
}

static zn_status read_optional(reader *r, const Pb__OptionalProto *o, unsigned depth, zn_pb_value *out) {
  if (depth > MAX_NESTING) return zn_error(r->c, NULL, "values nested deeper than %d levels", MAX_NESTING);
  out->kind = ZN_V_OPT;
  out->n = o->tensor_value || o->sequence_value || o->map_value || o->optional_value;
  out->items = ZN_ARRAY(r->a, zn_pb_value, 1);
  if (o->tensor_value) return read_tensor(r, o->tensor_value, out->items);
  if (o->sequence_value) return read_sequence(r, o->sequence_value, depth + 1, out->items);
  if (o->map_value) return read_map(r, o->map_value, depth + 1, out->items);
  if (o->optional_value) return read_optional(r, o->optional_value, depth + 1, out->items);
  if (o->sparse_tensor_value) return zn_fail(r->c, ZN_ERR_UNSUPPORTED, NULL, "an optional sparse tensor");
  return ZN_OK;
}

static zn_status read_value(reader *r, zn_arena *pa, const uint8_t *p, size_t n, zn_vkind kind, zn_pb_value *out) {
  static const ProtobufCMessageDescriptor *const md[] = {
      [ZN_V_TENSOR] = &pb__tensor_proto__descriptor, [ZN_V_SEQ] = &pb__sequence_proto__descriptor,
      [ZN_V_OPT] = &pb__optional_proto__descriptor,  [ZN_V_MAP] = &pb__map_proto__descriptor};
  memset(out, 0, sizeof *out);
  out->kind = kind;
  if (n == 0) { /* a message without fields: an empty sequence, map or optional */
    if (kind == ZN_V_TENSOR) return zn_error(r->c, NULL, "the file is empty");
    return ZN_OK;
  }
  ProtobufCMessage *m = zn_wire_read(r->c, pa, p, n, md[kind], "value");
  if (!m) return ZN_ERR_MODEL;
  switch (kind) {
    case ZN_V_SEQ: return read_sequence(r, (Pb__SequenceProto *)m, 0, out);
    case ZN_V_OPT: return read_optional(r, (Pb__OptionalProto *)m, 0, out);
    case ZN_V_MAP: return read_map(r, (Pb__MapProto *)m, 0, out);
    default: return read_tensor(r, (Pb__TensorProto *)m, out);
  }
}

zn_status zn_pb_read(zn_ctx *c, zn_arena *a, const char *path, zn_vkind kind, zn_pb_value *out) {
  zn_onnx_maps maps = {NULL, 0, 0};
  zn_arena pa;
  const uint8_t *p;
  size_t n;
  const char *old = c->file;
  c->file = zn_arena_strdup(&c->perm, path);
  zn_status st = zn_payload_map(c, &maps, path, &p, &n);
  if (st == ZN_OK) {
    reader r = {c, a, {.c = c, .a = a, .base = p, .size = n, .mapped = true, .copy = true, .maps = &maps}};
    zn_arena_init(&pa, "import");
    st = read_value(&r, &pa, p, n, kind, out);
    zn_arena_reset(&pa);
  }
  zn_onnx_unmap(&maps);
  c->file = old;
  return st;
}

/* ---- writing ---- */

static void set_raw(zn_arena *a, const zn_htensor *t, uint64_t count, Pb__TensorProto *p) {
  unsigned bits = zn_dtype_bits(t->dtype);
  p->has_raw_data = true;
  p->raw_data.len = (count * bits + 7) / 8;
  if (bits >= 8) {
    p->raw_data.data = t->data;
    return;
  }
  uint8_t *q = zn_arena_alloc(a, p->raw_data.len);
  const uint8_t *src = t->data;
  const unsigned mask = (1u << bits) - 1;
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t at = i * bits;
    const unsigned shift = (unsigned)(at % 8), v = (src[i] & mask) << shift;
    q[at / 8] |= (uint8_t)v;
    if (shift + bits > 8) q[at / 8 + 1] |= (uint8_t)(v >> 8);
  }
  p->raw_data.data = q;
}

static Pb__TensorProto *pack_tensor(zn_arena *a, const zn_htensor *t) {
  Pb__TensorProto *p = ZN_NEW(a, Pb__TensorProto);
  pb__tensor_proto__init(p);
  uint64_t count = zn_htensor_count(t);
  p->n_dims = t->rank;
  p->dims = ZN_ARRAY(a, int64_t, ZN_MAX_RANK);
  memcpy(p->dims, t->dims, sizeof t->dims);
  p->has_data_type = true;
  p->data_type = zn_dtypes[t->dtype].onnx;
  p->name = (char *)(uintptr_t)t->name;
  if (t->dtype != ZN_STR) {
    set_raw(a, t, count, p);
    return p;
  }
  const zn_str *s = t->data;
  p->n_string_data = count;
  p->string_data = ZN_ARRAY(a, ProtobufCBinaryData, count);
  for (uint64_t i = 0; i < count; i++)
    p->string_data[i] = (ProtobufCBinaryData){s[i].len, (uint8_t *)(uintptr_t)s[i].ptr};
  return p;
}

static Pb__MapProto *pack_map(zn_arena *a, const zn_htensor *t);

static Pb__SequenceProto *pack_sequence(zn_arena *a, const zn_htensor *t) {
  Pb__SequenceProto *p = ZN_NEW(a, Pb__SequenceProto);
  const zn_htensor *items = t->data;
  size_t n = (size_t)t->dims[0];
  pb__sequence_proto__init(p);
  p->has_elem_type = true;
  p->elem_type = t->of ? ELEM_MAP : ELEM_TENSOR;
  p->tensor_values = ZN_ARRAY(a, Pb__TensorProto *, n);
  p->map_values = ZN_ARRAY(a, Pb__MapProto *, n);
  for (size_t i = 0; i < n; i++) {
    if (items[i].kind == ZN_V_MAP) p->map_values[p->n_map_values++] = pack_map(a, &items[i]);
    else p->tensor_values[p->n_tensor_values++] = pack_tensor(a, &items[i]);
  }
  return p;
}

static Pb__MapProto *pack_map(zn_arena *a, const zn_htensor *t) {
  Pb__MapProto *p = ZN_NEW(a, Pb__MapProto);
  const zn_htensor *keys = t->data, *values = keys + 1;
  size_t n = (size_t)keys->dims[0];
  pb__map_proto__init(p);
  p->has_key_type = true;
  p->key_type = zn_dtypes[keys->dtype].onnx;
  p->keys = ZN_ARRAY(a, int64_t, n);
  p->string_keys = ZN_ARRAY(a, ProtobufCBinaryData, n);
  for (size_t i = 0; i < n; i++) {
    if (keys->dtype != ZN_STR) {
      p->keys[p->n_keys++] = zn_load_i64(keys->dtype, keys->data, i);
      continue;
    }
    const zn_str *s = (const zn_str *)keys->data + i;
    p->string_keys[p->n_string_keys++] = (ProtobufCBinaryData){s->len, (uint8_t *)(uintptr_t)s->ptr};
  }
  zn_htensor *each = ZN_ARRAY(a, zn_htensor, n); /* a scalar per key */
  for (size_t i = 0; i < n; i++)
    each[i] = (zn_htensor){.dtype = values->dtype, .data = (char *)values->data + i * zn_dtype_bytes(values->dtype)};
  zn_htensor list = {.rank = 1, .dims = {(int64_t)n}, .data = each, .kind = ZN_V_SEQ};
  p->values = pack_sequence(a, &list);
  return p;
}

static Pb__OptionalProto *pack_optional(zn_arena *a, const zn_htensor *t) {
  Pb__OptionalProto *p = ZN_NEW(a, Pb__OptionalProto);
  const zn_htensor *item = t->data;
  pb__optional_proto__init(p);
  p->has_elem_type = true;
  p->elem_type = t->of ? ELEM_SEQUENCE : ELEM_TENSOR;
  if (t->dims[0] && item->kind == ZN_V_SEQ) p->sequence_value = pack_sequence(a, item);
  else if (t->dims[0]) p->tensor_value = pack_tensor(a, item);
  return p;
}

static ProtobufCMessage *pack(zn_arena *a, const zn_htensor *t) {
  switch (t->kind) {
    case ZN_V_SEQ: return &pack_sequence(a, t)->base;
    case ZN_V_OPT: return &pack_optional(a, t)->base;
    case ZN_V_MAP: return &pack_map(a, t)->base;
    default: return &pack_tensor(a, t)->base;
  }
}

zn_status zn_pb_write(zn_ctx *c, const char *path, const zn_htensor *t) {
  zn_arena a;
  zn_arena_init(&a, "write");
  ProtobufCMessage *m = pack(&a, t);
  size_t n = protobuf_c_message_get_packed_size(m);
  uint8_t *buf = zn_arena_alloc(&a, n);
  protobuf_c_message_pack(m, buf);
  zn_status st = zn_write_file(c, path, buf, n);
  zn_arena_reset(&a);
  return st;
}
