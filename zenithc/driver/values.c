/* Tensors on disk and on the terminal. */
#include <inttypes.h>
#include <math.h>

#include "zenithc/driver/tools.h"

static zn_status read_npz(zn_ctx *c, zn_arena *a, const char *path, const char *name, zn_htensor *out) {
  zn_htensor *all;
  uint32_t n;
  ZN_TRY(zn_npz_read(c, a, path, &all, &n));
  for (uint32_t i = 0; i < n; i++)
    if (!strcmp(all[i].name, name) || n == 1) {
      *out = all[i];
      return ZN_OK;
    }
  zn_fail(c, ZN_ERR_USAGE, path, "holds no array '%s'", name);
  for (uint32_t i = 0; i < n; i++) zn_note(c, "it holds '%s'", all[i].name);
  return ZN_ERR_USAGE;
}

zn_status zn_value_from_pb(zn_ctx *c, zn_arena *a, const zn_pb_value *v, zn_htensor *out) {
  if (v->kind == ZN_V_TENSOR) {
    *out = v->tensor;
    return ZN_OK;
  }
  bool map = v->kind == ZN_V_MAP;
  zn_htensor *items = ZN_ARRAY(a, zn_htensor, v->n + 2);
  if (map && v->n && !v->tensor.data)
    return zn_fail(c, ZN_ERR_UNSUPPORTED, NULL, "a map whose values are not scalars of one type");
  if (map) {
    items[0] = v->keys;
    items[1] = v->tensor;
  }
  for (uint32_t i = 0; i < v->n && !map; i++) ZN_TRY(zn_value_from_pb(c, a, &v->items[i], &items[i]));
  *out = (zn_htensor){.kind = (uint8_t)v->kind, .rank = 1, .dims = {map ? 2 : v->n}, .data = items};
  out->dtype = map ? v->tensor.dtype : v->n ? items[0].dtype : ZN_NONE;
  return ZN_OK;
}

void zn_value_settle(zn_htensor *t, zn_dtype dtype, bool of) {
  if (t->kind == ZN_V_TENSOR) return;
  t->of = of;
  if (t->dtype == ZN_NONE) t->dtype = dtype;
}

zn_status zn_value_read(zn_ctx *c, zn_arena *a, const char *path, const char *name, zn_vkind kind, zn_htensor *out) {
  if (kind != ZN_V_TENSOR && !zn_has_suffix(path, ".pb"))
    return zn_fail(c, ZN_ERR_USAGE, path, "sequences, optionals and maps are read from .pb files");
  if (zn_has_suffix(path, ".npy")) return zn_npy_read(c, a, path, out);
  if (zn_has_suffix(path, ".npz")) return read_npz(c, a, path, name, out);
  if (!zn_has_suffix(path, ".pb"))
    return zn_fail(c, ZN_ERR_USAGE, path, "inputs are read from .npy, .npz and .pb files");
  zn_pb_value v;
  ZN_TRY(zn_pb_read(c, a, path, kind, &v));
  return zn_value_from_pb(c, a, &v, out);
}

const char *zn_tensor_text(zn_arena *a, const zn_htensor *t) {
  zn_text s;
  zn_text_init(&s, a);
  zn_text_printf(&s, "%s[", zn_dtypes[t->dtype].name);
  for (uint32_t d = 0; d < t->rank; d++) zn_text_printf(&s, "%s%" PRId64, d ? "," : "", t->dims[d]);
  zn_text_puts(&s, "]");
  return s.s;
}

static bool is_complex(zn_dtype t) { return zn_dtypes[t].cls == 'C'; }

void zn_tensor_elem(zn_text *t, const zn_htensor *x, uint64_t i) {
  if (x->dtype == ZN_STR) {
    const zn_str *s = x->data;
    zn_text_quote(t, s[i].ptr, s[i].len);
  } else if (x->dtype == ZN_U64) {
    zn_text_printf(t, "%" PRIu64, (uint64_t)zn_load_i64(x->dtype, x->data, i));
  } else if (zn_is_int(x->dtype) || x->dtype == ZN_BOOL) {
    zn_text_printf(t, "%" PRId64, zn_load_i64(x->dtype, x->data, i));
  } else if (is_complex(x->dtype)) {
    zn_dtype part = x->dtype == ZN_C64 ? ZN_F32 : ZN_F64;
    zn_text_printf(t, "%.9g%+.9gi", zn_load_f64(part, x->data, 2 * i), zn_load_f64(part, x->data, 2 * i + 1));
  } else {
    zn_text_printf(t, x->dtype == ZN_F64 ? "%.15g" : "%.8g", zn_load_f64(x->dtype, x->data, i));
  }
}

static double elem(const zn_htensor *t, uint64_t i) {
  return zn_is_float(t->dtype) ? zn_load_f64(t->dtype, t->data, i)
                               : (double)zn_load_i64(t->dtype, t->data, i);
}

static void print_stats(FILE *f, const zn_htensor *t, uint64_t n) {
  double lo = INFINITY, hi = -INFINITY, sum = 0;
  uint64_t odd = 0;
  for (uint64_t i = 0; i < n; i++) {
    double x = elem(t, i);
    if (!isfinite(x)) odd++;
    else sum += x, lo = fmin(lo, x), hi = fmax(hi, x);
  }
  if (odd < n) fprintf(f, "  min %.6g  max %.6g  mean %.6g", lo, hi, sum / (double)(n - odd));
  if (odd) fprintf(f, "  (%" PRIu64 " not finite)", odd);
  fputc('\n', f);
}

/* The five largest of the last axis, when everything before it is 1. */
static void print_top(FILE *f, const zn_htensor *t, uint64_t n) {
  uint64_t best[5];
  unsigned k = 0;
  for (uint64_t i = 0; i < n; i++) {
    unsigned at = k;
    while (at && elem(t, i) > elem(t, best[at - 1])) at--;
    if (at == 5) continue;
    if (k < 5) k++;
    for (unsigned j = k - 1; j > at; j--) best[j] = best[j - 1];
    best[at] = i;
  }
  fputs("  top:", f);
  for (unsigned i = 0; i < k; i++) fprintf(f, " %" PRIu64 " (%.6g)", best[i], elem(t, best[i]));
  fputc('\n', f);
}

static bool is_vector(const zn_htensor *t, uint64_t n) {
  uint64_t longest = 1;
  for (uint32_t d = 0; d < t->rank; d++)
    if ((uint64_t)t->dims[d] > longest) longest = (uint64_t)t->dims[d];
  return n > 5 && longest == n;
}

static const char *list_word(const zn_htensor *t) {
  return t->kind == ZN_V_SEQ ? "sequence" : t->kind == ZN_V_OPT ? "optional" : "map";
}

static void list_summary(FILE *f, zn_arena *a, const zn_htensor *t, bool top) {
  const zn_htensor *items = t->data;
  fprintf(f, "%s: %s of %" PRId64 "\n", t->name ? t->name : "?", list_word(t),
          t->kind == ZN_V_MAP ? items[0].dims[0] : t->dims[0]);
  for (int64_t i = 0; i < t->dims[0] && i < 16; i++) {
    zn_htensor x = items[i];
    const char *what = t->kind == ZN_V_MAP ? i ? "values" : "keys" : zn_arena_printf(a, "[%" PRId64 "]", i);
    x.name = zn_arena_printf(a, "%s %s", t->name ? t->name : "?", what);
    zn_tensor_summary(f, a, &x, top && x.kind != ZN_V_TENSOR);
  }
  if (t->dims[0] > 16) fprintf(f, "  ...\n");
}

void zn_tensor_summary(FILE *f, zn_arena *a, const zn_htensor *t, bool top) {
  if (t->kind != ZN_V_TENSOR) {
    list_summary(f, a, t, top);
    return;
  }
  uint64_t n = zn_htensor_count(t);
  fprintf(f, "%s: %s\n", t->name ? t->name : "?", zn_tensor_text(a, t));
  if (n == 0) return;
  bool numeric = t->dtype != ZN_STR && !is_complex(t->dtype);
  if (numeric) print_stats(f, t, n);
  zn_text s;
  zn_text_init(&s, a);
  for (uint64_t i = 0; i < n && i < 8; i++) {
    zn_text_puts(&s, " ");
    zn_tensor_elem(&s, t, i);
  }
  fprintf(f, "  values:%s%s\n", s.s, n > 8 ? " ..." : "");
  if (top && numeric && is_vector(t, n)) print_top(f, t, n);
}
