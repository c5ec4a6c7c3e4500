/* Pooling: average, Lp and max windows, global pools, unpooling and region-of-interest max pooling.
 */
#include "zenithc/eval/eval_impl.h"

static zn_status pool_window(zn_ev *e, const zn_eval_val *x, zn_ev_win *w, int64_t *dims) {
  uint32_t n;
  const int64_t *k = zn_node_ints(e->n, "kernel_shape", &n);
  if (x->rank < 3 || n != x->rank - 2)
    return zn_ev_fail(e, "kernel_shape has %u items for rank %u", n, x->rank);
  ZN_TRY(zn_ev_window(e, x, k, zn_node_int(e->n, "ceil_mode") != 0, w));
  dims[0] = x->dims[0];
  dims[1] = x->dims[1];
  memcpy(dims + 2, w->out, w->n * sizeof *dims);
  return ZN_OK;
}

/* Offset of kernel position k seen from output position o; false outside the input. */
static bool window_at(const zn_ev_win *w, const int64_t *o, const int64_t *k, int64_t *off,
                      bool *padded) {
  bool inside = true;
  *padded = true; /* inside input plus explicit padding (ceil_mode may reach beyond) */
  *off = 0;
  for (uint32_t d = 0; d < w->n; d++) {
    int64_t i = o[d] * w->s[d] - w->lo[d] + k[d] * w->d[d];
    if (i < 0 || i >= w->in[d]) inside = false;
    if (i >= w->in[d] + w->hi[d]) *padded = false;
    *off = *off * w->in[d] + i;
  }
  return inside;
}

zn_status zn_eval_pool(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  zn_ev_win w;
  int64_t dims[ZN_MAX_RANK];
  ZN_TRY(pool_window(e, x, &w, dims));
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  bool lp = e->op == ZN_OP_LpPool, all = !lp && zn_node_int(e->n, "count_include_pad") != 0;
  double p = lp ? (double)zn_node_int(e->n, "p") : 0;
  uint64_t kk = zn_ev_count(w.n, w.k), in_n = zn_ev_count(w.n, w.in),
           out_n = zn_ev_count(w.n, w.out);
  double *t = ZN_ARRAY(e->tmp, double, kk + 1);
  for (uint64_t c = 0; out_n && c < (uint64_t)(x->dims[0] * x->dims[1]); c++) {
    int64_t o[ZN_MAX_RANK] = {0};
    for (uint64_t j = 0; j < out_n; j++, zn_ev_next(w.n, w.out, o)) {
      int64_t k[ZN_MAX_RANK] = {0}, off;
      uint64_t n = 0, area = 0;
      for (uint64_t i = 0; i < kk; i++, zn_ev_next(w.n, w.k, k)) {
        bool padded, in = window_at(&w, o, k, &off, &padded);
        area += all ? padded : in;
        if (!in) continue;
        double v = x->u.f[c * in_n + (uint64_t)off];
        t[n++] = lp ? zn_ev_r(e, p == 2 ? v * v : pow(fabs(v), p)) : v;
      }
      double s = zn_ev_sum(e, t, n, 1);
      if (lp) s = zn_ev_r(e, p == 2 ? sqrt(s) : pow(s, 1 / p));
      else s = zn_ev_r(e, s / (double)area);
      e->out[0].u.f[c * out_n + j] = s;
    }
  }
  return ZN_OK;
}

zn_status zn_eval_maxpool(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  zn_ev_win w;
  int64_t dims[ZN_MAX_RANK];
  ZN_TRY(pool_window(e, x, &w, dims));
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  if (zn_ev_wants(e, 1)) ZN_TRY(zn_ev_out(e, 1, ZN_I64, x->rank, dims));
  bool f = zn_is_float((zn_dtype)x->dtype), col = zn_node_int(e->n, "storage_order") != 0;
  uint64_t kk = zn_ev_count(w.n, w.k), in_n = zn_ev_count(w.n, w.in),
           out_n = zn_ev_count(w.n, w.out);
  for (uint64_t c = 0; out_n && c < (uint64_t)(x->dims[0] * x->dims[1]); c++) {
    int64_t o[ZN_MAX_RANK] = {0};
    for (uint64_t j = 0; j < out_n; j++, zn_ev_next(w.n, w.out, o)) {
      int64_t k[ZN_MAX_RANK] = {0}, off, best = -1;
      double bv = 0;
      for (uint64_t i = 0; i < kk; i++, zn_ev_next(w.n, w.k, k)) {
        bool padded;
        if (!window_at(&w, o, k, &off, &padded)) continue;
        double v = f ? x->u.f[c * in_n + (uint64_t)off] : (double)x->u.i[c * in_n + (uint64_t)off];
        if (best < 0 || v > bv || (isnan(v) && !isnan(bv))) {
          best = off;
          bv = v;
        }
      }
      uint64_t at = c * out_n + j;
      if (f) e->out[0].u.f[at] = best < 0 ? -INFINITY : bv;
      else zn_ev_set(&e->out[0], at, best < 0 ? -INFINITY : bv);
      if (e->num_out > 1 && e->out[1].set) {
        int64_t idx = best;
        if (col && best >= 0) { /* column-major position within the plane */
          int64_t r = best, scale = 1;
          int64_t pos[ZN_MAX_RANK];
          for (uint32_t d = w.n; d-- > 0;) {
            pos[d] = r % w.in[d];
            r /= w.in[d];
          }
          idx = 0;
          for (uint32_t d = 0; d < w.n; d++) {
            idx += pos[d] * scale;
            scale *= w.in[d];
          }
        }
        e->out[1].u.i[at] = (int64_t)(c * in_n) + idx;
      }
    }
  }
  return ZN_OK;
}

zn_status zn_eval_globalpool(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  if (x->rank < 2) return zn_ev_fail(e, "input has rank %u, expected at least 2", x->rank);
  uint64_t n = zn_ev_count(x->rank - 2, x->dims + 2), planes = (uint64_t)(x->dims[0] * x->dims[1]);
  int64_t dims[ZN_MAX_RANK] = {x->dims[0], x->dims[1]};
  for (uint32_t d = 2; d < x->rank; d++) dims[d] = 1;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  double p = e->op == ZN_OP_GlobalLpPool ? (double)zn_node_int(e->n, "p") : 0,
         *t = ZN_ARRAY(e->tmp, double, n + 1);
  for (uint64_t c = 0; c < planes; c++) {
    const double *v = x->u.f + c * n;
    double m = -INFINITY;
    for (uint64_t k = 0; k < n; k++) {
      if (v[k] > m || isnan(v[k])) m = v[k];
      if (p != 0) t[k] = zn_ev_r(e, pow(fabs(v[k]), p));
    }
    e->out[0].u.f[c] = e->op == ZN_OP_GlobalMaxPool ? m
                       : e->op == ZN_OP_GlobalAveragePool
                           ? zn_ev_r(e, zn_ev_sum(e, v, n, 1) / (double)n)
                           : zn_ev_r(e, pow(zn_ev_sum(e, t, n, 1), 1 / p));
  }
  return ZN_OK;
}

zn_status zn_eval_maxunpool(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *ind = e->in[1];
  if (x->rank < 3 || ind->count != x->count) return zn_ev_fail(e, "X and I do not match");
  uint32_t n = x->rank - 2, nk, no;
  int64_t s[ZN_MAX_RANK], pads[2 * ZN_MAX_RANK], dims[ZN_MAX_RANK], want[ZN_MAX_RANK];
  const int64_t *k = zn_node_ints(e->n, "kernel_shape", &nk), *shape;
  ZN_TRY(zn_ev_attr_ints(e, "strides", n, 1, s));
  ZN_TRY(zn_ev_attr_ints(e, "pads", 2 * n, 0, pads));
  if (nk != n) return zn_ev_fail(e, "kernel_shape has %u items", nk);
  for (uint32_t d = 0; d < x->rank; d++) {
    dims[d] = x->dims[d];
    if (d >= 2) dims[d] = (x->dims[d] - 1) * s[d - 2] - pads[d - 2] - pads[d - 2 + n] + k[d - 2];
    want[d] = dims[d];
  }
  if (zn_ev_ints(e, 2, &shape, &no)) {
    if (no != x->rank) return zn_ev_fail(e, "output_shape has %u items", no);
    memcpy(want, shape, no * sizeof *want);
  }
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, want));
  int64_t from[ZN_MAX_RANK], to[ZN_MAX_RANK];
  zn_ev_strides(x->rank, dims, from);
  zn_ev_strides(x->rank, want, to);
  uint64_t limit = zn_ev_count(x->rank, dims);
  for (uint64_t i = 0; i < x->count; i++) { /* indices refer to the unpadded shape */
    int64_t r = ind->u.i[i], at = 0;
    bool ok = r >= 0 && (uint64_t)r < limit;
    for (uint32_t d = 0; ok && d < x->rank; d++) {
      int64_t p = r / from[d];
      r %= from[d];
      if (p >= want[d]) ok = false;
      at += p * to[d];
    }
    if (!ok) return zn_ev_fail(e, "index %lld is outside the output", (long long)ind->u.i[i]);
    e->out[0].u.f[at] = x->u.f[i];
  }
  return ZN_OK;
}

zn_status zn_eval_maxroipool(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *rois = e->in[1];
  uint32_t np;
  const int64_t *ps = zn_node_ints(e->n, "pooled_shape", &np);
  double scale = zn_node_float(e->n, "spatial_scale");
  if (x->rank != 4 || rois->rank != 2 || rois->dims[1] != 5 || np != 2)
    return zn_ev_fail(e, "shapes do not fit MaxRoiPool");
  int64_t C = x->dims[1], H = x->dims[2], W = x->dims[3],
          dims[4] = {rois->dims[0], C, ps[0], ps[1]};
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, 4, dims));
  double *y = e->out[0].u.f;
  for (int64_t r = 0; r < rois->dims[0]; r++) {
    const double *b = rois->u.f + r * 5;
    int64_t n = (int64_t)b[0], x0 = llround(b[1] * scale), y0 = llround(b[2] * scale),
            x1 = llround(b[3] * scale), y1 = llround(b[4] * scale);
    if (n < 0 || n >= x->dims[0])
      return zn_ev_fail(e, "a region names batch item %lld", (long long)n);
    double bh = (double)(y1 - y0 + 1 > 1 ? y1 - y0 + 1 : 1) / (double)ps[0];
    double bw = (double)(x1 - x0 + 1 > 1 ? x1 - x0 + 1 : 1) / (double)ps[1];
    for (int64_t c = 0; c < C; c++)
      for (int64_t ph = 0; ph < ps[0]; ph++)
        for (int64_t pw = 0; pw < ps[1]; pw++) {
          int64_t h0 = (int64_t)floor((double)ph * bh) + y0,
                  h1 = (int64_t)ceil((double)(ph + 1) * bh) + y0;
          int64_t w0 = (int64_t)floor((double)pw * bw) + x0,
                  w1 = (int64_t)ceil((double)(pw + 1) * bw) + x0;
          h0 = h0 < 0 ? 0 : h0 > H ? H : h0;
          h1 = h1 < 0 ? 0 : h1 > H ? H : h1;
          w0 = w0 < 0 ? 0 : w0 > W ? W : w0;
          w1 = w1 < 0 ? 0 : w1 > W ? W : w1;
          double m = h1 <= h0 || w1 <= w0 ? 0 : -INFINITY;
          for (int64_t h = h0; h < h1; h++)
            for (int64_t w = w0; w < w1; w++) {
              double v = x->u.f[((n * C + c) * H + h) * W + w];
              m = v > m ? v : m;
            }
          *y++ = m;
        }
  }
  return ZN_OK;
}
