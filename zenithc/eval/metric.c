/* The error metric, allclose, and the noise floor. */
#include "zenithc/eval/metric.h"

#include <math.h>

static bool is_numeric_float(const zn_eval_val *v) {
  return zn_is_float((zn_dtype)v->dtype) || v->dtype == ZN_C64 || v->dtype == ZN_C128;
}

static uint64_t num_parts(const zn_eval_val *v) {
  return v->dtype == ZN_C64 || v->dtype == ZN_C128 ? 2 * v->count : v->count;
}

static bool same_shape(const zn_eval_val *a, const zn_eval_val *b) {
  if (a->set != b->set) return false;
  if (!a->set) return true;
  if (a->kind != b->kind || a->count != b->count) return false;
  if (a->kind != ZN_V_TENSOR) return true;
  if (a->dtype != b->dtype || a->rank != b->rank) return false;
  for (uint32_t d = 0; d < a->rank; d++)
    if (a->dims[d] != b->dims[d]) return false;
  return true;
}

static bool equal_str(const zn_str *a, const zn_str *b) {
  return a->len == b->len && (a->len == 0 || memcmp(a->ptr, b->ptr, a->len) == 0);
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void compare_exact(const zn_eval_val *r, const zn_eval_val *g, zn_metric *m) {
  for (uint64_t k = 0; k < r->count; k++) {
    if (r->dtype == ZN_STR) {
      m->unequal += !equal_str(&r->u.s[k], &g->u.s[k]);
    } else if (r->u.i[k] != g->u.i[k]) {
      m->unequal++;
      m->int_max = fmax(m->int_max, fabs((double)g->u.i[k] - (double)r->u.i[k]));
    }
  }
}

/* s of element k: RMS of its channel or of the whole tensor. */
static double *scales(zn_arena *a, const zn_eval_val *r, zn_metric *m, uint64_t *channels,
                      uint64_t *inner) {
  uint64_t n = num_parts(r), finite = 0, axis;
  double ss = 0, top = 0;
  for (uint64_t k = 0; k < n; k++)
    if (isfinite(r->u.f[k])) {
      ss += r->u.f[k] * r->u.f[k];
      top = fmax(top, fabs(r->u.f[k]));
      finite++;
    }
  m->rms = finite ? sqrt(ss / (double)finite) : 0;
  *channels = *inner = 1;
  m->outlier_scaled = r->rank >= 2 && m->rms > 0 && top / m->rms > 50 && n == r->count;
  if (m->outlier_scaled) {
    axis = r->rank >= 3 ? 1 : r->rank - 1;
    *channels = (uint64_t)r->dims[axis];
    for (uint32_t d = (uint32_t)axis + 1; d < r->rank; d++) *inner *= (uint64_t)r->dims[d];
  }
  double *s = ZN_ARRAY(a, double, *channels);
  uint64_t *count = ZN_ARRAY(a, uint64_t, *channels);
  for (uint64_t k = 0; k < n; k++) {
    uint64_t c = m->outlier_scaled ? k / *inner % *channels : 0;
    if (!isfinite(r->u.f[k])) continue;
    s[c] += r->u.f[k] * r->u.f[k];
    count[c]++;
  }
  for (uint64_t c = 0; c < *channels; c++) s[c] = count[c] ? sqrt(s[c] / (double)count[c]) : 0;
  return s;
}

static void compare_top(const zn_eval_val *r, const zn_eval_val *g, zn_metric *m) {
  uint64_t n = r->rank ? (uint64_t)r->dims[r->rank - 1] : 0;
  if (n < 2 || num_parts(r) != r->count) return;
  for (uint64_t row = 0; row < r->count / n; row++) {
    const double *y = r->u.f + row * n, *z = g->u.f + row * n;
    uint64_t by = 0, bz = 0, above = 0;
    for (uint64_t k = 1; k < n; k++) {
      if (y[k] > y[by]) by = k;
      if (z[k] > z[bz]) bz = k;
    }
    for (uint64_t k = 0; k < n; k++) above += z[k] > z[by];
    m->rows++;
    m->top1 += by == bz;
    m->top5 += above < 5;
  }
}

static void compare_floats(zn_arena *a, const zn_eval_val *r, const zn_eval_val *g, zn_metric *m) {
  uint64_t n = num_parts(r), channels, inner, used = 0;
  double *s = scales(a, r, m, &channels, &inner), *eta = ZN_ARRAY(a, double, n + 1);
  double noise = 0, power = 0, other = 0, cross = 0, top = 0;
  for (uint64_t k = 0; k < n; k++) {
    double y = r->u.f[k], z = g->u.f[k];
    if (!isfinite(y) || !isfinite(z)) {
      m->nonfinite_bad += !((isnan(y) && isnan(z)) || y == z);
      continue;
    }
    double d = fabs(z - y), den = fabs(y) + s[m->outlier_scaled ? k / inner % channels : 0];
    eta[used++] = d == 0 ? 0 : den > 0 ? d / den : INFINITY;
    m->abs_max = fmax(m->abs_max, d);
    if (y != 0) m->rel_max = fmax(m->rel_max, d / fabs(y));
    top = fmax(top, fabs(y));
    noise += d * d;
    power += y * y;
    other += z * z;
    cross += y * z;
  }
  qsort(eta, used, sizeof *eta, by_value);
  if (used) {
    m->eta_max = eta[used - 1];
    m->eta_p50 = eta[(used - 1) / 2];
    m->eta_p999 = eta[(uint64_t)ceil(0.999 * (double)used) - 1];
  }
  m->sqnr_db = noise > 0 ? 10 * log10(power / noise) : INFINITY;
  m->cosine = power > 0 && other > 0 ? cross / sqrt(power * other) : power == other ? 1 : 0;
  m->rel_tensor = top > 0 ? m->abs_max / top : m->abs_max > 0 ? INFINITY : 0;
  compare_top(r, g, m);
}

static void worst(zn_metric *m, const zn_metric *x) {
  m->same_type &= x->same_type;
  m->outlier_scaled |= x->outlier_scaled;
  m->n += x->n;
  m->nonfinite_bad += x->nonfinite_bad;
  m->unequal += x->unequal;
  m->int_max = fmax(m->int_max, x->int_max);
  m->eta_max = fmax(m->eta_max, x->eta_max);
  m->eta_p50 = fmax(m->eta_p50, x->eta_p50);
  m->eta_p999 = fmax(m->eta_p999, x->eta_p999);
  m->rel_max = fmax(m->rel_max, x->rel_max);
  m->abs_max = fmax(m->abs_max, x->abs_max);
  m->rel_tensor = fmax(m->rel_tensor, x->rel_tensor);
  m->sqnr_db = fmin(m->sqnr_db, x->sqnr_db);
  m->cosine = fmin(m->cosine, x->cosine);
  m->rows += x->rows;
  m->top1 += x->top1;
  m->top5 += x->top5;
}

void zn_metric_compare(zn_arena *a, const zn_eval_val *ref, const zn_eval_val *got,
                       zn_metric *out) {
  memset(out, 0, sizeof *out);
  out->sqnr_db = INFINITY;
  out->cosine = 1;
  out->same_type = same_shape(ref, got);
  if (!out->same_type || !ref->set) return;
  if (ref->kind != ZN_V_TENSOR) {
    for (uint64_t k = 0; k < ref->count; k++) {
      zn_metric one;
      zn_metric_compare(a, &ref->u.items[k], &got->u.items[k], &one);
      worst(out, &one);
    }
    return;
  }
  out->n = ref->count;
  if (is_numeric_float(ref)) compare_floats(a, ref, got, out);
  else compare_exact(ref, got, out);
}

bool zn_metric_allclose(const zn_eval_val *ref, const zn_eval_val *got, double rtol, double atol) {
  if (!same_shape(ref, got)) return false;
  if (!ref->set) return true;
  if (ref->kind != ZN_V_TENSOR) {
    for (uint64_t k = 0; k < ref->count; k++)
      if (!zn_metric_allclose(&ref->u.items[k], &got->u.items[k], rtol, atol)) return false;
    return true;
  }
  if (!is_numeric_float(ref)) {
    zn_metric m = {0};
    compare_exact(ref, got, &m);
    return m.unequal == 0;
  }
  for (uint64_t k = 0; k < num_parts(ref); k++) {
    double y = ref->u.f[k], z = got->u.f[k];
    if ((isnan(y) && isnan(z)) || y == z) continue;
    if (!(fabs(z - y) <= atol + rtol * fabs(y)) || isinf(z) || isinf(y)) return false;
  }
  return true;
}

zn_status zn_metric_floor(zn_ctx *c, const zn_graph *g, zn_arena *a, const zn_eval_val *in,
                          double *out_floor, zn_eval_val *ref) {
  zn_arena mem;
  zn_arena_init(&mem, "floor");
  zn_eval_val *y = ref ? ref : ZN_ARRAY(&mem, zn_eval_val, g->num_outputs),
              *z = ZN_ARRAY(&mem, zn_eval_val, g->num_outputs);
  zn_status st = zn_eval_graph(c, g, ZN_EVAL_F64, ref ? a : &mem, in, y, NULL);
  for (uint32_t i = 0; i < g->num_outputs; i++) out_floor[i] = 0;
  for (zn_eval_mode m = ZN_EVAL_F32_SEQ; st == ZN_OK && m <= ZN_EVAL_F32_BLOCK8; m++) {
    st = zn_eval_graph(c, g, m, &mem, in, z, NULL);
    for (uint32_t i = 0; st == ZN_OK && i < g->num_outputs; i++) {
      zn_metric k;
      zn_metric_compare(&mem, &y[i], &z[i], &k);
      out_floor[i] = fmax(out_floor[i], k.same_type ? k.eta_max : INFINITY);
    }
  }
  zn_arena_reset(&mem);
  return st;
}
