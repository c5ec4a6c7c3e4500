/* Contents of constants in .zg text: lists of elements for small ones, and recipes (zeros, fill,
 * iota, rand, file) which a tensor remembers as its origin. Large contents without a recipe print
 * as opaque(hash) and read back as numbers drawn from that hash: enough to reproduce the structure
 * of a dump, not its values. */
#include <assert.h>
#include <math.h>

#include "zenithc/graph/text_impl.h"

enum { MAX_INLINE = 4096, MIN_RECIPE = 17 };

/* ---- printing ---- */

void zn_zg_print_number(zn_dtype t, double x, zn_text *out) {
  if (t == ZN_F64 || isnan(x) || isinf(x)) {
    zn_text_double(out, x);
    return;
  }
  char buf[40];
  bool narrow = t != ZN_F32 && zn_is_float(t);
  if (fabs(x) < 1e7 && x == floor(x)) {
    zn_text_printf(out, "%.0f", x);
    return;
  }
  for (int digits = 1; digits <= 9; digits++) {
    snprintf(buf, sizeof buf, "%.*g", digits, x);
    double y = strtod(buf, NULL);
    if (narrow ? zn_float_encode(t, y, true) == zn_float_encode(t, x, true) : (float)y == (float)x)
      break;
  }
  zn_text_puts(out, buf);
}

static void print_element(const zn_htensor *h, uint64_t i, zn_text *t) {
  if (h->dtype == ZN_STR) {
    const zn_str *s = (const zn_str *)h->data + i;
    zn_text_quote(t, s->ptr ? s->ptr : "", s->len);
  } else if (h->dtype == ZN_C64) {
    zn_zg_print_number(ZN_F32, (double)((const float *)h->data)[i], t);
  } else if (h->dtype == ZN_C128) {
    zn_zg_print_number(ZN_F64, ((const double *)h->data)[i], t);
  } else if (zn_is_float(h->dtype)) {
    zn_zg_print_number(h->dtype, zn_load_f64(h->dtype, h->data, i), t);
  } else { /* u64 above 2^63 appears as a negative number */
    zn_text_printf(t, "%lld", (long long)zn_load_i64(h->dtype, h->data, i));
  }
}

static bool is_number(zn_dtype t) { return zn_is_int(t) || zn_is_float(t) || t == ZN_BOOL; }

static bool all_same(const zn_htensor *h, uint64_t n) {
  unsigned b = zn_dtype_bytes(h->dtype);
  const char *p = h->data;
  return n > 0 && !memcmp(p, p + b, (size_t)(n - 1) * b);
}

static bool is_iota(const zn_htensor *h, uint64_t n) {
  if (zn_dtype_bytes(h->dtype) < 4 && n > 100) return false;
  for (uint64_t i = 0; i < n; i++)
    if (zn_load_f64(h->dtype, h->data, i) != (double)i) return false;
  return true;
}

static bool print_recipe(const zn_htensor *h, uint64_t n, zn_text *t) {
  if (h->origin) {
    zn_text_puts(t, h->origin);
  } else if (!is_number(h->dtype) || n < MIN_RECIPE) {
    return false;
  } else if (all_same(h, n)) {
    const unsigned char *p = h->data;
    bool zero = true;
    for (unsigned i = 0; i < zn_dtype_bytes(h->dtype); i++) zero &= p[i] == 0;
    zn_text_puts(t, zero ? "zeros" : "fill(");
    if (!zero) print_element(h, 0, t);
    if (!zero) zn_text_puts(t, ")");
  } else if (is_iota(h, n)) {
    zn_text_puts(t, "iota");
  } else if (n > MAX_INLINE) {
    uint64_t x = UINT64_C(1469598103934665603), bytes = zn_htensor_bytes(h);
    for (uint64_t i = 0; i < bytes; i++)
      x = (x ^ ((const unsigned char *)h->data)[i]) * UINT64_C(1099511628211);
    zn_text_printf(t, "opaque(%llu)", (unsigned long long)(x >> 1));
  } else {
    return false;
  }
  return true;
}

void zn_zg_print_data(const zn_htensor *h, zn_text *t) {
  uint64_t n = zn_htensor_count(h);
  if (print_recipe(h, n, t)) return;
  if (h->dtype == ZN_C64 || h->dtype == ZN_C128) n *= 2; /* real and imaginary parts in turn */
  zn_text_puts(t, "[");
  for (uint64_t i = 0; i < n; i++) {
    if (i) zn_text_puts(t, ", ");
    print_element(h, i, t);
  }
  zn_text_puts(t, "]");
}

/* ---- parsing ---- */

static uint64_t mix(uint64_t seed, uint64_t i) { /* splitmix64 */
  uint64_t z = seed * UINT64_C(0xd1342543de82ef95) + (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static void fill_random(zn_htensor *h, uint64_t seed, double lo, double hi) {
  uint64_t n = zn_htensor_count(h);
  for (uint64_t i = 0; i < n; i++) {
    double u = lo + (hi - lo) * ((double)(mix(seed, i) >> 11) / 9007199254740992.0);
    if (zn_is_float(h->dtype))
      zn_store_f64(h->dtype, h->data, i, u);
    else
      zn_store_i64(h->dtype, h->data, i, (int64_t)floor(u));
  }
}

static bool at_number(const zn_lexer *l) { return l->tok == ZN_TOK_INT || l->tok == ZN_TOK_FLOAT; }

static zn_status parse_number(zn_lexer *l, double *out) {
  if (!at_number(l)) return zn_lex_error(l, "expected a number, found '%s'", l->text);
  *out = l->f;
  zn_lex_next(l);
  return ZN_OK;
}

static zn_status parse_random(zn_lexer *l, zn_arena *a, zn_htensor *h, bool opaque) {
  double lo, hi;
  if (!is_number(h->dtype))
    return zn_lex_error(l, "%s has no random contents", zn_dtypes[h->dtype].name);
  ZN_TRY(zn_lex_expect(l, '(', "'('"));
  if (l->tok != ZN_TOK_INT) return zn_lex_error(l, "expected an integer seed, found '%s'", l->text);
  const uint64_t seed = (uint64_t)l->i;
  hi = zn_is_float(h->dtype) ? 1 : h->dtype == ZN_BOOL ? 2 : zn_int_bits(h->dtype) < 8 ? 2 : 8;
  lo = zn_is_float(h->dtype) || zn_is_signed(h->dtype) ? -hi : 0;
  zn_text t;
  zn_text_init(&t, a);
  zn_text_printf(&t, "%s(%lld", opaque ? "opaque" : "rand", (long long)l->i);
  zn_lex_next(l);
  if (!opaque && zn_lex_accept(l, ',')) {
    ZN_TRY(parse_number(l, &lo));
    ZN_TRY(zn_lex_expect(l, ',', "','"));
    ZN_TRY(parse_number(l, &hi));
    zn_text_puts(&t, ", ");
    zn_text_double(&t, lo);
    zn_text_puts(&t, ", ");
    zn_text_double(&t, hi);
  }
  zn_text_puts(&t, ")");
  if (!(fabs(lo) < 1e18 && fabs(hi) < 1e18)) return zn_lex_error(l, "bounds of rand out of range");
  ZN_TRY(zn_lex_expect(l, ')', "')'"));
  h->origin = t.s;
  fill_random(h, seed, lo, hi);
  return ZN_OK;
}

/* Files are named relative to the folder of the text and cannot leave it. */
static bool safe_path(const char *s) {
  if (!*s || *s == '/' || strchr(s, '\\')) return false;
  for (const char *p = s; *p; p += strcspn(p, "/"), p += *p == '/')
    if (p[0] == '.' && p[1] == '.' && (p[2] == 0 || p[2] == '/')) return false;
  return true;
}

static zn_status parse_file(zn_lexer *l, zn_arena *a, const char *base_dir, zn_htensor *h) {
  const char *name = l->text;
  uint64_t bytes = zn_htensor_bytes(h);
  int64_t offset = 0;
  if (l->tok != ZN_TOK_STRING)
    return zn_lex_error(l, "expected a file name in quotes, found '%s'", l->text);
  if (!base_dir || strlen(name) != l->text_len || !safe_path(name) || h->dtype == ZN_STR)
    return zn_lex_error(
        l, "cannot read contents from file '%s': only numbers, from below this text's folder",
        name);
  zn_lex_next(l);
  if (zn_lex_accept(l, '+')) {
    offset = l->i;
    if (l->tok != ZN_TOK_INT || offset < 0)
      return zn_lex_error(l, "expected a byte offset, found '%s'", l->text);
    zn_lex_next(l);
  }
  zn_text o;
  zn_text_init(&o, a);
  zn_text_puts(&o, "file ");
  zn_text_quote(&o, name, strlen(name));
  if (offset) zn_text_printf(&o, "+%lld", (long long)offset);
  h->origin = o.s;
  FILE *f = fopen(zn_arena_printf(a, "%s/%s", base_dir, name), "rb");
  bool ok = f && fseek(f, 0, SEEK_END) == 0 && ftell(f) >= offset &&
            (uint64_t)(ftell(f) - offset) >= bytes;
  if (ok) {
    h->data = zn_arena_alloc(a, (size_t)bytes);
    ok = fseek(f, (long)offset, SEEK_SET) == 0 && fread(h->data, 1, (size_t)bytes, f) == bytes;
  }
  if (f) fclose(f);
  return ok ? ZN_OK
            : zn_lex_error(l, "file '%s' cannot be read or is shorter than %lld + %llu bytes", name,
                           (long long)offset, (unsigned long long)bytes);
}

static zn_status parse_element(zn_lexer *l, zn_htensor *h, uint64_t i) {
  if (h->dtype == ZN_STR) {
    if (l->tok != ZN_TOK_STRING) return zn_lex_error(l, "expected a string, found '%s'", l->text);
    ((zn_str *)h->data)[i] = (zn_str){l->text, l->text_len};
  } else if (!at_number(l)) {
    return zn_lex_error(l, "expected a number, found '%s'", l->text);
  } else if (h->dtype == ZN_C64) {
    ((float *)h->data)[i] = (float)l->f;
  } else if (h->dtype == ZN_C128) {
    ((double *)h->data)[i] = l->f;
  } else if (zn_is_float(h->dtype)) {
    zn_store_f64(h->dtype, h->data, i, l->f);
  } else {
    if (l->tok != ZN_TOK_INT || (h->dtype != ZN_U64 && zn_int_wrap(h->dtype, l->i) != l->i))
      return zn_lex_error(l, "%s is no %s", l->text, zn_dtypes[h->dtype].name);
    zn_store_i64(h->dtype, h->data, i, l->i);
  }
  zn_lex_next(l);
  return ZN_OK;
}

static zn_status parse_list(zn_lexer *l, zn_htensor *h) {
  uint64_t n = zn_htensor_count(h), i = 0;
  if (h->dtype == ZN_C64 || h->dtype == ZN_C128) n *= 2;
  for (; l->tok != ']' && l->tok != ZN_TOK_ERROR; i++) {
    if (i && !zn_lex_accept(l, ',')) return zn_lex_expect(l, ']', "',' or ']'");
    if (i >= n) return zn_lex_error(l, "more than %llu elements", (unsigned long long)n);
    ZN_TRY(parse_element(l, h, i));
  }
  if (i != n && l->tok == ']')
    return zn_lex_error(l, "%llu elements, expected %llu", (unsigned long long)i,
                        (unsigned long long)n);
  return zn_lex_expect(l, ']', "']'");
}

static zn_status parse_fill(zn_lexer *l, zn_htensor *h, bool iota) {
  uint64_t n = zn_htensor_count(h);
  if (iota) {
    for (uint64_t i = 0; i < n && zn_is_float(h->dtype); i++)
      zn_store_f64(h->dtype, h->data, i, (double)i);
    for (uint64_t i = 0; i < n && !zn_is_float(h->dtype); i++)
      zn_store_i64(h->dtype, h->data, i, (int64_t)i);
    return ZN_OK;
  }
  uint64_t one = 0;
  zn_htensor first = {.dtype = h->dtype, .data = &one};
  ZN_TRY(zn_lex_expect(l, '(', "'('"));
  ZN_TRY(parse_element(l, &first, 0));
  unsigned b = zn_dtype_bytes(h->dtype);
  for (uint64_t i = 0; i < n; i++) memcpy((char *)h->data + i * b, &one, b);
  return zn_lex_expect(l, ')', "')'");
}

zn_status zn_zg_parse_data(zn_lexer *l, zn_arena *a, const char *base_dir, zn_htensor *h) {
  uint64_t n, limit = (uint64_t)1 << 31;
  if (!zn_dims_count(h->rank, h->dims, zn_dtype_bytes(h->dtype), &n) ||
      n * zn_dtype_bytes(h->dtype) > limit)
    return zn_lex_error(l, "a constant of more than %llu bytes", (unsigned long long)limit);
  if (zn_lex_is(l, "file")) {
    zn_lex_next(l);
    return parse_file(l, a, base_dir, h);
  }
  bool list = l->tok == '[';
  if (list && n > (uint64_t)(l->end - l->p) +
                      1) /* nothing is allocated for elements that cannot be there */
    return zn_lex_error(l, "the list is shorter than %llu elements", (unsigned long long)n);
  *h = zn_htensor_new(a, h->dtype, h->rank, h->dims);
  if (zn_lex_accept(l, '[')) return parse_list(l, h);
  const char *word = l->tok == ZN_TOK_IDENT ? l->text : "";
  bool numeric = is_number(h->dtype);
  if (*word) zn_lex_next(l);
  if (!strcmp(word, "zeros")) return ZN_OK;
  if (!strcmp(word, "fill") && numeric) return parse_fill(l, h, false);
  if (!strcmp(word, "iota") && numeric) return parse_fill(l, h, true);
  if (!strcmp(word, "rand")) return parse_random(l, a, h, false);
  if (!strcmp(word, "opaque")) return parse_random(l, a, h, true);
  return zn_lex_error(
      l, "expected contents ([..], zeros, fill(x), iota, rand(seed), file \"..\"), found '%s'",
      *word ? word : l->text);
}
