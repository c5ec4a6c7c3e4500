/* Resize: every mode is a weighted sum of input positions along one axis at a time. */
#include "zenithc/eval/eval_impl.h"

typedef struct tap {
  int64_t at;
  double w;
} tap;

typedef struct axis_map { /* for each output position, `n` taps, or extrapolated when n is 0 */
  int64_t in, out;
  double scale, roi0, roi1;
  uint32_t width; /* taps per position */
  tap *taps;
  uint32_t *count;
  bool identity;
} axis_map;

typedef struct resize {
  const char *coord, *mode, *nearest;
  double a, extra;
  bool antialias, exclude;
} resize;

static double source(const resize *r, const axis_map *m, int64_t x) {
  double in = (double)m->in, out = m->scale * in, k = (double)x;
  if (strcmp(r->coord, "align_corners") == 0) return out == 1 ? 0 : k * (in - 1) / (out - 1);
  if (strcmp(r->coord, "asymmetric") == 0) return k / m->scale;
  if (strcmp(r->coord, "tf_crop_and_resize") == 0)
    return m->out == 1 ? 0.5 * (m->roi0 + m->roi1) * (in - 1)
                       : m->roi0 * (in - 1) +
                             k * (m->roi1 - m->roi0) * (in - 1) / (double)(m->out - 1);
  if (strcmp(r->coord, "pytorch_half_pixel") == 0 && m->out == 1) return 0;
  double h = (k + 0.5) / m->scale - 0.5;
  if (strcmp(r->coord, "half_pixel_symmetric") == 0) h += in / 2 * (1 - (double)m->out / out);
  return h;
}

static double cubic(double x, double a) {
  x = fabs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

static uint32_t fill_taps(const resize *r, const axis_map *m, double x, tap *t) {
  if (r->mode[0] == 'n') {
    x = (double)(float)x; /* a decision */
    double k = strcmp(r->nearest, "floor") == 0               ? floor(x)
               : strcmp(r->nearest, "ceil") == 0              ? ceil(x)
               : strcmp(r->nearest, "round_prefer_ceil") == 0 ? floor(x + 0.5)
                                                              : ceil(x - 0.5);
    t[0] = (tap){k<0 ? 0 : k>(double) m->in - 1 ? m->in - 1 : (int64_t)k, 1};
    return 1;
  }
  bool lin = r->mode[0] == 'l';
  double s = r->antialias && m->scale < 1 ? m->scale : 1, reach = (lin ? 1 : 2) / s, sum = 0;
  uint32_t n = 0;
  for (int64_t k = (int64_t)ceil(x - reach); (double)k <= x + reach && n < m->width; k++) {
    double d = ((double)k - x) * s, w = lin ? fmax(0, 1 - fabs(d)) : cubic(d, r->a);
    if (r->exclude && (k < 0 || k >= m->in)) continue;
    t[n++] = (tap){k < 0 ? 0 : k >= m->in ? m->in - 1 : k, w};
    sum += w;
  }
  for (uint32_t i = 0; (r->exclude || r->antialias) && sum != 0 && i < n; i++) t[i].w /= sum;
  return n;
}

static void map_axis(zn_ev *e, const resize *r, axis_map *m) {
  bool crop = strcmp(r->coord, "tf_crop_and_resize") == 0;
  m->identity = m->out == m->in && fabs(m->scale - 1) < 1e-9 &&
                (!crop || (m->roi0 == 0 && m->roi1 == 1));
  if (m->identity) return;
  double s = r->antialias && m->scale < 1 ? m->scale : 1;
  m->width = (uint32_t)(2 * (r->mode[0] == 'c' ? 2 : 1) / s) + 3;
  m->taps = zn_arena_array(e->tmp, (size_t)m->out * m->width + 1, sizeof *m->taps);
  m->count = ZN_ARRAY(e->tmp, uint32_t, m->out + 1);
  for (int64_t k = 0; k < m->out; k++) {
    double x = source(r, m, k);
    if (crop && (x < 0 || x > (double)m->in - 1)) continue;
    m->count[k] = fill_taps(r, m, x, m->taps + k * m->width);
  }
}

/* Extents, scales and regions of all axes from scales or sizes. */
static zn_status plan(zn_ev *e, const zn_eval_val *x, axis_map *m, uint32_t *axes, uint32_t *num) {
  const zn_eval_val *roi = zn_ev_in(e, 1), *sc = zn_ev_in(e, 2), *sz = zn_ev_in(e, 3);
  uint32_t na;
  const int64_t *ax = zn_node_ints(e->n, "axes", &na);
  *num = ax ? na : x->rank;
  bool by_scale = sc && sc->count > 0;
  if ((by_scale ? sc->count : sz ? sz->count : 0) != *num)
    return zn_ev_fail(e, "scales or sizes do not name %u axes", *num);
  const char *policy = zn_node_str(e->n, "keep_aspect_ratio_policy");
  double common = policy[0] == 's' ? 0 : strcmp(policy, "not_larger") == 0 ? INFINITY : -INFINITY;
  for (uint32_t d = 0; d < x->rank; d++)
    m[d] = (axis_map){.in = x->dims[d], .out = x->dims[d], .scale = 1, .roi1 = 1};
  for (uint32_t i = 0; i < *num; i++) {
    ZN_TRY(zn_ev_axis(e, ax ? ax[i] : (int64_t)i, x->rank, &axes[i]));
    axis_map *a = &m[axes[i]];
    if (by_scale) {
      a->scale = sc->u.f[i];
      if (!(a->scale > 0)) return zn_ev_fail(e, "a scale is not positive");
      a->out = (int64_t)floor((double)((float)a->in * (float)a->scale));
    } else {
      a->out = sz->u.i[i];
      if (a->out < 0) return zn_ev_fail(e, "a size is negative");
      a->scale = a->in ? (double)a->out / (double)a->in : 1;
      if (policy[0] != 's')
        common = strcmp(policy, "not_larger") == 0 ? fmin(common, a->scale)
                                                   : fmax(common, a->scale);
    }
    if (roi && roi->count == 2 * (uint64_t)*num) {
      a->roi0 = zn_ev_get(roi, i);
      a->roi1 = zn_ev_get(roi, *num + i);
    }
  }
  for (uint32_t i = 0; !by_scale && policy[0] != 's' && i < *num; i++) {
    axis_map *a = &m[axes[i]];
    a->scale = common;
    a->out = (int64_t)floor(common * (double)a->in + 0.5);
  }
  return ZN_OK;
}

static void apply_axis(const zn_ev *e, const resize *r, const axis_map *m, const double *x,
                       uint64_t outer, uint64_t inner, double *y) {
  for (uint64_t o = 0; o < outer; o++)
    for (int64_t k = 0; k < m->out; k++)
      for (uint64_t i = 0; i < inner; i++) {
        double t[256], s = 0;
        const tap *tp = m->taps + k * m->width;
        uint32_t n = m->count[k];
        for (uint32_t j = 0; j < n; j++) {
          double p = zn_ev_r(e,
                             tp[j].w * x[(o * (uint64_t)m->in + (uint64_t)tp[j].at) * inner + i]);
          if (n <= 256) t[j] = p;
          else s = zn_ev_r(e, s + p);
        }
        if (n <= 256) s = zn_ev_sum(e, t, n, 1);
        y[(o * (uint64_t)m->out + (uint64_t)k) * inner + i] = n ? s : r->extra;
      }
}

static zn_status pick_nearest(zn_ev *e, const zn_eval_val *x, const axis_map *m, const resize *r) {
  int64_t ix[ZN_MAX_RANK] = {0}, st[ZN_MAX_RANK];
  zn_ev_strides(x->rank, x->dims, st);
  zn_eval_val *y = &e->out[0];
  for (uint64_t k = 0; k < y->count; k++, zn_ev_next(x->rank, y->dims, ix)) {
    int64_t at = 0;
    bool out = false;
    for (uint32_t d = 0; d < x->rank; d++) {
      if (!m[d].identity && m[d].count[ix[d]] == 0) out = true;
      else at += (m[d].identity ? ix[d] : m[d].taps[ix[d] * m[d].width].at) * st[d];
    }
    if (!out) zn_ev_copy1(y->u.p, k, x->u.p, (uint64_t)at, zn_ev_esize((zn_dtype)x->dtype));
    else if (zn_ev_is_cplx((zn_dtype)x->dtype)) y->u.f[2 * k] = r->extra;
    else if (x->dtype != ZN_STR) zn_ev_set(y, k, r->extra);
  }
  return ZN_OK;
}

/* The numbers of x along all axes in turn; x: of e's input 0. */
static const double *interpolate(const zn_ev *e, const resize *r, const axis_map *m, const double *x) {
  const uint32_t rank = e->in[0]->rank;
  int64_t now[ZN_MAX_RANK];
  memcpy(now, e->in[0]->dims, sizeof now);
  for (uint32_t d = 0; d < rank; d++) {
    if (m[d].identity) continue;
    uint64_t outer = zn_ev_count(d, now), inner = zn_ev_count(rank - d - 1, now + d + 1);
    now[d] = m[d].out;
    double *next = ZN_ARRAY(e->tmp, double, zn_ev_count(rank, now) + 1);
    apply_axis(e, r, &m[d], x, outer, inner, next);
    x = next;
  }
  return x;
}

zn_status zn_eval_resize(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  resize r = {.coord = zn_node_str(e->n, "coordinate_transformation_mode"),
              .mode = zn_node_str(e->n, "mode"),
              .nearest = zn_node_str(e->n, "nearest_mode"),
              .a = zn_node_float(e->n, "cubic_coeff_a"),
              .extra = zn_node_float(e->n, "extrapolation_value"),
              .antialias = zn_node_int(e->n, "antialias") != 0,
              .exclude = zn_node_int(e->n, "exclude_outside") != 0};
  axis_map m[ZN_MAX_RANK];
  uint32_t axes[ZN_MAX_RANK], num;
  ZN_TRY(plan(e, x, m, axes, &num));
  int64_t dims[ZN_MAX_RANK];
  for (uint32_t d = 0; d < x->rank; d++) {
    dims[d] = m[d].out;
    if (m[d].in == 0 && m[d].out) return zn_ev_fail(e, "an empty axis cannot grow");
    map_axis(e, &r, &m[d]);
  }
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  if (r.mode[0] == 'n') return pick_nearest(e, x, m, &r);
  if (x->dtype == ZN_STR) return zn_ev_fail(e, "only mode nearest works on this type");
  zn_eval_val *y = &e->out[0];
  const bool whole = !zn_is_float((zn_dtype)y->dtype);
  if (!zn_ev_is_cplx((zn_dtype)x->dtype)) {
    const double *v = interpolate(e, &r, m, zn_ev_doubles(e, x));
    for (uint64_t k = 0; k < y->count; k++) /* noise does not move a result off the middle of two integers */
      zn_ev_set(y, k, whole ? rint(rint(v[k] * 4096) / 4096) : v[k]);
    return ZN_OK;
  }
  for (uint32_t part = 0; part < 2; part++, r.extra = 0) {
    const double *v = interpolate(e, &r, m, zn_ev_parts(e, x, part));
    for (uint64_t k = 0; k < y->count; k++) y->u.f[2 * k + part] = v[k];
  }
  return ZN_OK;
}
