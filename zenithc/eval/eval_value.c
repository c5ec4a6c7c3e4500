/* Values of the evaluator: refcounted storage, conversions to and from host tensors, casts of
 * single elements. */
#include <assert.h>
#include <stdio.h>

#include "zenithc/eval/eval_impl.h"

static zn_status buf_new(zn_evrun *r, uint64_t bytes, zn_eval_buf **out) {
  zn_eval_buf *b = bytes < (UINT64_C(1) << 46) ? calloc(1, sizeof *b + bytes + 16) : NULL;
  if (!b) return ZN_ERR_UNSUPPORTED;
  b->refs = 1;
  b->bytes = bytes;
  b->prev = &r->list;
  b->next = r->list.next;
  b->next->prev = b;
  r->list.next = b;
  r->live += bytes;
  if (r->live > r->peak) r->peak = r->live;
  *out = b;
  return ZN_OK;
}

static void *buf_data(zn_eval_buf *b) {
  uintptr_t p = (uintptr_t)(b + 1);
  return (void *)((p + 15) & ~(uintptr_t)15);
}

zn_status zn_ev_new(zn_ev *e, zn_dtype t, uint32_t rank, const int64_t *dims, zn_eval_val *out) {
  uint64_t n = 0;
  if (rank > ZN_MAX_RANK)
    return zn_ev_fail(e, "a result of rank %u exceeds rank %d", rank, ZN_MAX_RANK);
  if (!zn_dims_count(rank, dims, 16, &n)) return zn_ev_fail(e, "a result has an impossible shape");
  zn_eval_val v = {.set = true, .kind = ZN_V_TENSOR, .dtype = (uint8_t)t, .rank = rank, .count = n};
  for (uint32_t d = 0; d < rank; d++) v.dims[d] = dims[d];
  if (buf_new(e->run, n * zn_ev_esize(t), &v.buf) != ZN_OK)
    return zn_ev_fail(e, "no memory for a result of %llu elements", (unsigned long long)n);
  v.u.p = buf_data(v.buf);
  *out = v;
  return ZN_OK;
}

zn_status zn_ev_out(zn_ev *e, uint32_t i, zn_dtype t, uint32_t rank, const int64_t *dims) {
  assert(i < e->num_out && !e->out[i].set);
  return zn_ev_new(e, t, rank, dims, &e->out[i]);
}

zn_status zn_ev_list(zn_ev *e, zn_vkind kind, zn_dtype t, uint64_t n, zn_eval_val *out) {
  zn_eval_val v = {.set = true, .kind = (uint8_t)kind, .dtype = (uint8_t)t, .count = n};
  if (buf_new(e->run, n * sizeof(zn_eval_val), &v.buf) != ZN_OK)
    return zn_ev_fail(e, "no memory for a sequence of %llu items", (unsigned long long)n);
  v.buf->num_items = n;
  v.u.p = buf_data(v.buf);
  *out = v;
  return ZN_OK;
}

zn_eval_val zn_ev_share(const zn_eval_val *v) {
  if (v->buf) v->buf->refs++;
  return *v;
}

void zn_ev_release(zn_evrun *r, zn_eval_val *v) {
  zn_eval_buf *b = v->buf;
  memset(v, 0, sizeof *v);
  if (!b || --b->refs) return;
  zn_eval_val *items = buf_data(b);
  for (uint64_t i = 0; i < b->num_items; i++) zn_ev_release(r, &items[i]);
  b->prev->next = b->next;
  b->next->prev = b->prev;
  r->live -= b->bytes;
  free(b);
}

zn_status zn_ev_view(zn_ev *e, uint32_t i, const zn_eval_val *v, uint32_t rank,
                     const int64_t *dims) {
  if (rank > ZN_MAX_RANK)
    return zn_ev_fail(e, "a result of rank %u exceeds rank %d", rank, ZN_MAX_RANK);
  assert(zn_ev_count(rank, dims) == v->count);
  zn_eval_val o = zn_ev_share(v);
  o.rank = rank;
  for (uint32_t d = 0; d < rank; d++) o.dims[d] = dims[d];
  e->out[i] = o;
  return ZN_OK;
}

zn_str zn_ev_str(zn_ev *e, const char *s, uint64_t n) {
  return (zn_str){zn_arena_strndup(e->run->keep, n ? s : "", n), n};
}

int zn_ev_strcmp(const zn_str *a, const zn_str *b) {
  uint64_t n = a->len < b->len ? a->len : b->len;
  int c = n ? memcmp(a->ptr, b->ptr, n) : 0;
  return c ? c : a->len < b->len ? -1 : a->len > b->len;
}

double zn_eval_round(zn_dtype t, double x) {
  if (t == ZN_F32) return (double)(float)x;
  if (t == ZN_F64 || !zn_is_float(t)) return x;
  return zn_float_decode(t, zn_float_encode(t, x, false));
}

void zn_ev_set(zn_eval_val *v, uint64_t k, double x) {
  zn_dtype t = (zn_dtype)v->dtype;
  if (zn_is_float(t)) {
    v->u.f[k] = x;
    return;
  }
  if (t == ZN_BOOL) {
    v->u.i[k] = x != 0;
    return;
  }
  uint64_t cell = 0; /* the storage rules of the base: truncate, saturate, NaN = 0 */
  zn_store_f64(t, &cell, 0, x);
  v->u.i[k] = zn_load_i64(t, &cell, 0);
}

bool zn_ev_ints(const zn_ev *e, uint32_t i, const int64_t **out, uint32_t *n) {
  const zn_eval_val *v = zn_ev_in(e, i);
  *n = 0;
  *out = NULL;
  if (!v || v->kind != ZN_V_TENSOR || zn_is_float((zn_dtype)v->dtype)) return false;
  *out = v->u.i;
  *n = (uint32_t)v->count;
  return true;
}

double *zn_ev_doubles(const zn_ev *e, const zn_eval_val *v) {
  double *x = ZN_ARRAY(e->tmp, double, v->count ? v->count : 1);
  for (uint64_t k = 0; k < v->count; k++) x[k] = zn_ev_get(v, k);
  return x;
}

/* ---- host tensors ---- */
void zn_ev_load(zn_eval_val *v, const zn_htensor *t) {
  if (t->dtype == ZN_STR) {
    memcpy(v->u.s, t->data, v->count * sizeof(zn_str));
  } else if (zn_ev_is_cplx(t->dtype)) {
    zn_dtype part = t->dtype == ZN_C64 ? ZN_F32 : ZN_F64;
    for (uint64_t k = 0; k < 2 * v->count; k++) v->u.f[k] = zn_load_f64(part, t->data, k);
  } else if (t->dtype == ZN_F32) {
    for (uint64_t k = 0; k < v->count; k++) {
      float x;
      memcpy(&x, (const char *)t->data + 4 * k, 4);
      v->u.f[k] = (double)x;
    }
  } else if (zn_is_float(t->dtype)) {
    for (uint64_t k = 0; k < v->count; k++) v->u.f[k] = zn_load_f64(t->dtype, t->data, k);
  } else {
    for (uint64_t k = 0; k < v->count; k++) v->u.i[k] = zn_load_i64(t->dtype, t->data, k);
  }
}

zn_eval_val zn_eval_from_htensor(zn_arena *a, const zn_htensor *t) {
  if (t->kind != ZN_V_TENSOR) {
    zn_eval_val l = {.set = true, .kind = t->kind, .dtype = (uint8_t)t->dtype, .count = (uint64_t)t->dims[0]};
    const zn_htensor *items = t->data;
    l.u.items = ZN_ARRAY(a, zn_eval_val, l.count + 1);
    for (uint64_t k = 0; k < l.count; k++) l.u.items[k] = zn_eval_from_htensor(a, &items[k]);
    return l;
  }
  zn_eval_val v = {.set = true, .kind = ZN_V_TENSOR, .dtype = (uint8_t)t->dtype, .rank = t->rank};
  for (uint32_t d = 0; d < t->rank; d++) v.dims[d] = t->dims[d];
  v.count = zn_htensor_count(t);
  v.u.p = zn_arena_array(a, v.count, zn_ev_esize(t->dtype));
  zn_ev_load(&v, t);
  return v;
}

static void store_bits(zn_dtype t, void *data, uint64_t k, uint32_t bits) {
  uint16_t wide = (uint16_t)bits;
  uint8_t byte = (uint8_t)bits;
  if (zn_dtype_bytes(t) == 2) memcpy((char *)data + 2 * k, &wide, 2);
  else memcpy((char *)data + k, &byte, 1);
}

static zn_htensor list_to_htensor(zn_arena *a, const zn_eval_val *v) {
  zn_htensor *items = ZN_ARRAY(a, zn_htensor, v->count + 1);
  for (uint64_t k = 0; k < v->count; k++) items[k] = zn_eval_to_htensor(a, &v->u.items[k]);
  return (zn_htensor){.dtype = (zn_dtype)v->dtype,
                      .rank = 1,
                      .dims = {(int64_t)v->count},
                      .data = items,
                      .kind = v->kind,
                      .of = v->kind != ZN_V_MAP && v->count && items[0].kind != ZN_V_TENSOR};
}

zn_htensor zn_eval_to_htensor(zn_arena *a, const zn_eval_val *v) {
  if (v->kind != ZN_V_TENSOR) return list_to_htensor(a, v);
  zn_htensor t = zn_htensor_new(a, (zn_dtype)v->dtype, v->rank, v->dims);
  if (v->dtype == ZN_STR) {
    memcpy(t.data, v->u.s, v->count * sizeof(zn_str));
  } else if (zn_ev_is_cplx(t.dtype)) {
    zn_dtype part = t.dtype == ZN_C64 ? ZN_F32 : ZN_F64;
    for (uint64_t k = 0; k < 2 * v->count; k++) zn_store_f64(part, t.data, k, v->u.f[k]);
  } else if (zn_is_float(t.dtype) && zn_dtype_bytes(t.dtype) <= 2) { /* infinities stay infinite */
    for (uint64_t k = 0; k < v->count; k++)
      store_bits(t.dtype, t.data, k, zn_float_encode(t.dtype, v->u.f[k], false));
  } else if (zn_is_float(t.dtype)) {
    for (uint64_t k = 0; k < v->count; k++) zn_store_f64(t.dtype, t.data, k, v->u.f[k]);
  } else {
    for (uint64_t k = 0; k < v->count; k++) zn_store_i64(t.dtype, t.data, k, v->u.i[k]);
  }
  return t;
}

/* ---- casts ---- */
/* float8e8m0 holds powers of two only; up, down and nearest differ. */
static double to_e8m0(double x, const char *mode, bool saturate) {
  if (isnan(x) || x < 0) return NAN;
  if (isinf(x)) return saturate ? ldexp(1, 127) : NAN;
  if (x == 0) return ldexp(1, -127);
  int ex;
  double m = frexp(x, &ex); /* x = m * 2^ex, m in [0.5, 1) */
  ex--;
  m *= 2;
  if (m > 1 && (strcmp(mode, "up") == 0 || (strcmp(mode, "nearest") == 0 && m >= 1.5))) ex++;
  if (ex > 127) return saturate ? ldexp(1, 127) : NAN;
  return ldexp(1, ex < -127 ? -127 : ex);
}

static int64_t float_to_int(zn_dtype t, double x) {
  uint64_t cell = 0;
  if (zn_int_bits(t) < 8) { /* 2 and 4 bits keep the low ones of 32 */
    zn_store_f64(ZN_I32, &cell, 0, x);
    return zn_int_wrap(t, zn_load_i64(ZN_I32, &cell, 0));
  }
  zn_store_f64(t, &cell, 0, x);
  return zn_load_i64(t, &cell, 0);
}

static bool small_float(zn_dtype t) { return zn_is_float(t) && zn_dtype_bytes(t) == 1; }

zn_status zn_ev_cast1(zn_ev *e, zn_eval_val *dst, uint64_t i, const zn_eval_val *src, uint64_t j,
                      bool saturate, const char *round_mode) {
  zn_dtype to = (zn_dtype)dst->dtype, from = (zn_dtype)src->dtype;
  if (from == ZN_STR && to == ZN_STR) {
    dst->u.s[i] = src->u.s[j];
    return ZN_OK;
  }
  if (to == ZN_STR) {
    dst->u.s[i] = zn_ev_print_number(e, src, j);
    return ZN_OK;
  }
  bool is_float = zn_is_float(from);
  double x = is_float ? src->u.f[j] : 0;
  if (from == ZN_STR) {
    ZN_TRY(zn_ev_read_number(e, &src->u.s[j], dst, i));
    if (!small_float(to)) return ZN_OK;
    is_float = true;
    x = dst->u.f[i];
  }
  if (zn_is_float(to)) {
    if (!is_float) x = zn_ev_get(src, j);
    if (to == ZN_F8E8M0) x = to_e8m0(x, round_mode, saturate);
    else if (small_float(to)) x = zn_float_decode(to, zn_float_encode(to, x, saturate));
    else if (!is_float || zn_dtype_bytes(to) < zn_dtype_bytes(from) ||
             (to != from && zn_dtype_bytes(to) == zn_dtype_bytes(from)))
      x = zn_eval_round(to, x);
    dst->u.f[i] = x;
    return ZN_OK;
  }
  if (is_float) x = zn_ev_key(from, x);
  if (to == ZN_BOOL) dst->u.i[i] = is_float ? x != 0 : src->u.i[j] != 0;
  else dst->u.i[i] = is_float ? float_to_int(to, x) : zn_int_wrap(to, src->u.i[j]);
  return ZN_OK;
}
