/* Types, names and literals of the C printer. Typedefs of vectors are emitted when a vector is
 * first named: with the vector extension where lanes are a power of two, as a struct of lanes
 * otherwise. */
#include <ctype.h>
#include <inttypes.h>
#include <math.h>

#include "codegen/cstyle/cs_priv.h"

static uint64_t hash_text(const char *s) {
  uint64_t h = 1469598103934665603u;
  for (; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
  return h;
}

static void insert_key(const char **keys, uint32_t cap, const char *key) {
  uint32_t i = (uint32_t)hash_text(key) & (cap - 1);
  while (keys[i]) i = (i + 1) & (cap - 1);
  keys[i] = key;
}

static void grow_keys(cs_state *s) {
  uint32_t cap = s->cap_keys ? s->cap_keys * 2 : 256;
  const char **keys = ZN_ARRAY(&s->arena, const char *, cap);
  for (uint32_t i = 0; i < s->cap_keys; i++)
    if (s->keys[i]) insert_key(keys, cap, s->keys[i]);
  s->keys = keys;
  s->cap_keys = cap;
}

bool cs_once(cs_state *s, const char *key) {
  if (s->num_keys * 2 >= s->cap_keys) grow_keys(s);
  uint32_t i = (uint32_t)hash_text(key) & (s->cap_keys - 1);
  for (; s->keys[i]; i = (i + 1) & (s->cap_keys - 1))
    if (!strcmp(s->keys[i], key)) return false;
  s->keys[i] = zn_arena_strdup(&s->arena, key);
  s->num_keys++;
  return true;
}

const char *cs_fmt(cs_state *s, const char *fmt, ...) {
  char small[256];
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  int n = vsnprintf(small, sizeof small, fmt, ap);
  va_end(ap);
  char *r = zn_arena_alloc(&s->arena, (size_t)n + 1);
  if ((size_t)n < sizeof small)
    memcpy(r, small, (size_t)n + 1);
  else
    vsnprintf(r, (size_t)n + 1, fmt, again);
  va_end(again);
  return r;
}

const char *cs_ident(cs_state *s, const char *name) {
  char *r = zn_arena_strndup(&s->arena, name, strnlen(name, 48));
  for (char *p = r; *p; p++)
    if (!isalnum((unsigned char)*p)) *p = '_';
  return r;
}

zn_dtype cs_canon(zn_dtype t) {
  if (zn_is_float(t) && zn_dtype_bytes(t) == 2) return ZN_U16;
  if (zn_is_float(t) && zn_dtype_bytes(t) == 1) return ZN_U8;
  if (zn_is_int(t) && zn_dtype_bits(t) < 8) return zn_is_signed(t) ? ZN_I8 : ZN_U8;
  return t;
}

cs_type cs_scalar(zn_dtype t) { return (cs_type){.dtype = (uint8_t)cs_canon(t), .lanes = 1}; }

cs_type cs_vector(zn_dtype t, unsigned lanes, unsigned mask) {
  cs_type r = {.dtype = (uint8_t)cs_canon(t), .lanes = (uint16_t)lanes};
  if (t == ZN_BOOL && lanes > 1) r.mask = (uint8_t)mask;
  return r;
}

bool cs_is_pow2(unsigned lanes) { return (lanes & (lanes - 1)) == 0; }

unsigned cs_mask_of(zn_dtype t) {
  if (t == ZN_IDX) return CS_MASK_IDX;
  return zn_dtype_bytes(cs_canon(t));
}

const char *cs_tag(cs_state *s, cs_type t) {
  if (t.mask == CS_MASK_IDX) return "mp";
  if (t.mask) return cs_fmt(s, "m%u", t.mask * 8u);
  return zn_dtypes[t.dtype].name;
}

const char *cs_elem(cs_state *s, cs_type t) {
  static const zn_dtype mask_elem[] = {
      [1] = ZN_I8, [2] = ZN_I16, [4] = ZN_I32, [8] = ZN_I64, [CS_MASK_IDX] = ZN_IDX};
  return s->dia->scalar[t.mask ? mask_elem[t.mask] : (zn_dtype)t.dtype];
}

const char *cs_name(cs_state *s, cs_type t) {
  const char *elem = cs_elem(s, t);
  if (t.lanes == 1) return elem;
  const char *name = cs_fmt(s, "zn_%sx%u", cs_tag(s, t), t.lanes);
  if (!cs_once(s, name)) return name;
  if (!cs_is_pow2(t.lanes)) {
    zn_text_printf(&s->helpers, "typedef struct { %s v[%u]; } %s;\n", elem, t.lanes, name);
    return name;
  }
  zn_text_printf(&s->helpers, "ZN_VECTOR(%s, %u, %s);\n", elem, t.lanes, name);
  return name;
}

const char *cs_unsigned(cs_state *s, zn_dtype t) {
  if (t == ZN_IDX) return s->dia->unsigned_idx;
  return s->dia->scalar[zn_dtype_bytes(t) == 8 ? ZN_U64 : ZN_U32];
}

zn_dtype cs_unsigned_dtype(zn_dtype t) {
  switch ((int)t) {
  case ZN_I8:
    return ZN_U8;
  case ZN_I16:
    return ZN_U16;
  case ZN_I32:
  case ZN_F32:
    return ZN_U32;
  case ZN_I64:
  case ZN_F64:
    return ZN_U64;
  default:
    return t;
  }
}

const char *cs_int_literal(cs_state *s, zn_dtype t, int64_t v) {
  if (t == ZN_BOOL) return v ? "1" : "0";
  if (t == ZN_U32) return cs_fmt(s, "%" PRIu32 "u", (uint32_t)v);
  if (t == ZN_U64) return cs_fmt(s, "UINT64_C(%" PRIu64 ")", (uint64_t)v);
  if (t == ZN_U8) return cs_fmt(s, "%u", (unsigned)(uint8_t)v);
  if (t == ZN_U16) return cs_fmt(s, "%u", (unsigned)(uint16_t)v);
  if (v == INT64_MIN) return "(-INT64_C(9223372036854775807) - 1)";
  if (v == INT32_MIN && (t == ZN_I32 || t == ZN_IDX)) return "(-2147483647 - 1)";
  bool wide = t == ZN_I64 || v > INT32_MAX || v < -INT32_MAX;
  if (t == ZN_IDX && wide)
    return cs_fmt(s, v < 0 ? "((zi)-INT64_C(%" PRId64 "))" : "(zi)INT64_C(%" PRId64 ")",
                  v < 0 ? -v : v);
  if (wide)
    return cs_fmt(s, v < 0 ? "(-INT64_C(%" PRId64 "))" : "INT64_C(%" PRId64 ")", v < 0 ? -v : v);
  return cs_fmt(s, v < 0 ? "(%" PRId64 ")" : "%" PRId64, v);
}

/* Decimal when seven (f32) or fifteen (f64) digits name the value exactly enough to read it back,
 * else hexadecimal. */
static const char *finite_literal(cs_state *s, zn_dtype t, double v) {
  char text[64];
  bool single = t == ZN_F32;
  snprintf(text, sizeof text, "%.*g", single ? 7 : 15, v);
  if ((single ? (double)strtof(text, NULL) : strtod(text, NULL)) != v)
    snprintf(text, sizeof text, "%a", v);
  const char *point = strpbrk(text, ".epx") ? "" : ".0", *suffix = single ? "f" : "";
  return signbit(v) ? cs_fmt(s, "(%s%s%s)", text, point, suffix) : cs_fmt(s, "%s%s%s", text, point, suffix);
}

const char *cs_float_literal(cs_state *s, zn_dtype t, double v) {
  if (t == ZN_F16 || t == ZN_BF16)
    return cs_fmt(s, "0x%04x", (unsigned)zn_float_encode(t, v, false));
  if (t == ZN_F32) v = (double)(float)v;
  if (isfinite(v)) return finite_literal(s, t, v);
  cs_scalar_bitcast(s, t == ZN_F32 ? ZN_U32 : ZN_U64, t, "0"); /* the helper must exist */
  if (t == ZN_F32)
    return cs_fmt(s, "zn_f32_of(0x%08xu)",
                  isnan(v) ? 0x7fc00000u
                  : v < 0  ? 0xff800000u
                           : 0x7f800000u);
  return cs_fmt(s, "zn_f64_of(UINT64_C(0x%s000000000000))",
                isnan(v) ? "7ff8"
                : v < 0  ? "fff0"
                         : "7ff0");
}
