/* Sampling operators: GridSample, AffineGrid, RoiAlign, DeformConv, Col2Im. */
#include "zenithc/eval/eval_impl.h"

/* ---- GridSample, any number of spatial axes ---- */
typedef struct sampler {
  const zn_ev *e;
  uint32_t n;
  int64_t dims[ZN_MAX_RANK], st[ZN_MAX_RANK];
  double lo[ZN_MAX_RANK], hi[ZN_MAX_RANK]; /* reflection borders */
  char pad, mode;                          /* z b r; n l c */
} sampler;

static double reflect(double x, double lo, double hi) {
  double span = hi - lo;
  if (span <= 0) return lo;
  if (x < lo || x > hi) {
    double d = x < lo ? lo - x : x - hi, k = floor(d / span), r = d - k * span;
    bool even = fmod(k, 2) == 0;
    return (x < lo) == even ? lo + r : hi - r;
  }
  return x;
}

/* Position of grid index i on axis d, -1 for a zero. */
static int64_t grid_index(const sampler *s, uint32_t d, int64_t i) {
  if (i >= 0 && i < s->dims[d]) return i;
  if (s->pad == 'z') return -1;
  if (s->pad == 'b') return i < 0 ? 0 : s->dims[d] - 1;
  int64_t k = (int64_t)reflect((double)i, s->lo[d], s->hi[d]);
  return k < 0 ? 0 : k >= s->dims[d] ? s->dims[d] - 1 : k;
}

static double cubic_weight(double x) {
  const double a = -0.75;
  x = fabs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

static double sample(const sampler *s, const double *x, uint32_t d, const double *pos,
                     int64_t base) {
  if (d == s->n) return x[base];
  int64_t f = (int64_t)floor(pos[d]), lo = s->mode == 'c' ? f - 1 : f,
          num = s->mode == 'c' ? 4 : 2;
  double sum = 0;
  for (int64_t k = lo; k < lo + num; k++) {
    double t = pos[d] - (double)k, w = s->mode == 'l' ? 1 - fabs(t) : cubic_weight(t);
    int64_t i = grid_index(s, d, k);
    if (i < 0 || w == 0) continue;
    sum = zn_ev_r(s->e, sum + zn_ev_r(s->e, w * sample(s, x, d + 1, pos, base + i * s->st[d])));
  }
  return sum;
}

/* The element at a position, for nearest: false outside. */
static bool nearest(const sampler *s, const double *pos, int64_t *out_at) {
  *out_at = 0;
  for (uint32_t d = 0; d < s->n; d++) {
    int64_t i = grid_index(s, d, (int64_t)floor(pos[d]));
    if (i < 0) return false;
    *out_at += i * s->st[d];
  }
  return true;
}

zn_status zn_eval_gridsample(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *grid = e->in[1];
  const char *mode = zn_node_str(e->n, "mode"), *pad = zn_node_str(e->n, "padding_mode");
  bool align = zn_node_int(e->n, "align_corners") != 0;
  if (x->rank < 3 || grid->rank != x->rank || grid->dims[grid->rank - 1] != x->rank - 2 ||
      grid->dims[0] != x->dims[0])
    return zn_ev_fail(e, "the grid does not fit X");
  sampler s = {.e = e,
               .n = x->rank - 2,
               .pad = pad[0],
               .mode = strcmp(mode, "bilinear") == 0  ? 'l'
                       : strcmp(mode, "bicubic") == 0 ? 'c'
                                                      : mode[0]};
  int64_t dims[ZN_MAX_RANK] = {x->dims[0], x->dims[1]};
  zn_ev_strides(s.n, x->dims + 2, s.st);
  for (uint32_t d = 0; d < s.n; d++) {
    s.dims[d] = x->dims[d + 2];
    dims[d + 2] = grid->dims[d + 1];
    s.lo[d] = align ? 0 : -0.5;
    s.hi[d] = (double)s.dims[d] - (align ? 1 : 0.5);
  }
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  const bool complex = zn_ev_is_cplx((zn_dtype)x->dtype);
  const uint32_t parts = s.mode == 'n' ? 0 : complex ? 2 : 1;
  const double *xd[2] = {NULL, NULL};
  for (uint32_t p = 0; p < parts; p++) xd[p] = zn_ev_parts(e, x, p);
  const size_t size = zn_ev_esize((zn_dtype)x->dtype);
  uint64_t in_n = zn_ev_count(s.n, s.dims), pts = zn_ev_count(s.n, dims + 2),
           C = (uint64_t)x->dims[1];
  if (!in_n && C && pts && x->dims[0]) return zn_ev_fail(e, "the image has no elements");
  for (uint64_t k = 0; k < (uint64_t)x->dims[0] * pts; k++) {
    double pos[ZN_MAX_RANK];
    for (uint32_t d = 0; d < s.n; d++) { /* the last grid coordinate is the first axis */
      double g = zn_ev_get(grid, k * s.n + (s.n - 1 - d)), len = (double)s.dims[d];
      double p = align ? (g + 1) / 2 * (len - 1) : ((g + 1) * len - 1) / 2;
      if (s.mode == 'n') p = rint((double)(float)p);
      if (p < s.lo[d] || p > s.hi[d]) {
        if (s.pad == 'b') p = p < 0 ? 0 : len - 1;
        else if (s.pad == 'r') p = reflect(p, s.lo[d], s.hi[d]);
      }
      if (s.mode == 'n') p = trunc(p);
      pos[d] = !(fabs(p) < 1e15) ? -1e15 : p;
    }
    int64_t at;
    const bool inside = s.mode == 'n' && nearest(&s, pos, &at);
    for (uint64_t c = 0; c < C; c++) {
      const uint64_t image = k / pts * C + c, to = image * pts + k % pts;
      for (uint32_t p = 0; p < parts; p++) {
        const double v = sample(&s, xd[p] + image * in_n, 0, pos, 0);
        if (complex) e->out[0].u.f[2 * to + p] = v;
        else zn_ev_set(&e->out[0], to, v);
      }
      if (inside) zn_ev_copy1(e->out[0].u.p, to, x->u.p, image * in_n + (uint64_t)at, size);
    }
  }
  return ZN_OK;
}

zn_status zn_eval_affinegrid(zn_ev *e) {
  const zn_eval_val *th = e->in[0], *size = e->in[1];
  bool align = zn_node_int(e->n, "align_corners") != 0;
  uint32_t n = (uint32_t)size->count - 2;
  if (size->count < 4 || size->count > 5 || th->rank != 3 || th->dims[1] != n ||
      th->dims[2] != n + 1 || th->dims[0] != size->u.i[0])
    return zn_ev_fail(e, "theta and size do not fit together");
  int64_t dims[ZN_MAX_RANK] = {size->u.i[0]}, ix[ZN_MAX_RANK] = {0};
  for (uint32_t d = 0; d < n; d++) dims[d + 1] = size->u.i[d + 2];
  dims[n + 1] = n;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)th->dtype, n + 2, dims));
  for (uint64_t k = 0; k < e->out[0].count / n; k++, zn_ev_next(n + 1, dims, ix)) {
    double p[4] = {0};
    for (uint32_t d = 0; d < n; d++) { /* x is the last axis */
      double len = (double)dims[d + 1], i = (double)ix[d + 1];
      p[n - 1 - d] = align ? (len > 1 ? 2 * i / (len - 1) - 1 : -1) : (2 * i + 1) / len - 1;
    }
    p[n] = 1;
    for (uint32_t r = 0; r < n; r++)
      e->out[0].u.f[k * n + r] = zn_ev_dot(e, p, 1, th->u.f + ((uint32_t)ix[0] * n + r) * (n + 1),
                                           1, n + 1);
  }
  return ZN_OK;
}

/* ---- RoiAlign ---- */
typedef struct bilinear {
  int64_t at[4];
  double w[4];
  bool inside;
} bilinear;

static bilinear roi_point(double y, double x, int64_t H, int64_t W) {
  bilinear b = {.inside = !(y < -1 || y > (double)H || x < -1 || x > (double)W)};
  if (!b.inside) return b;
  y = y < 0 ? 0 : y;
  x = x < 0 ? 0 : x;
  int64_t y0 = (int64_t)y, x0 = (int64_t)x, y1 = y0 + 1, x1 = x0 + 1;
  if (y0 >= H - 1) {
    y0 = y1 = H - 1;
    y = (double)y0;
  }
  if (x0 >= W - 1) {
    x0 = x1 = W - 1;
    x = (double)x0;
  }
  double ly = y - (double)y0, lx = x - (double)x0;
  b.at[0] = y0 * W + x0;
  b.w[0] = (1 - ly) * (1 - lx);
  b.at[1] = y0 * W + x1;
  b.w[1] = (1 - ly) * lx;
  b.at[2] = y1 * W + x0;
  b.w[2] = ly * (1 - lx);
  b.at[3] = y1 * W + x1;
  b.w[3] = ly * lx;
  return b;
}

static double roi_bin(const zn_ev *e, const double *x, int64_t H, int64_t W, double y0, double x0,
                      double bh, double bw, int64_t gh, int64_t gw, bool max) {
  double acc = max ? -INFINITY : 0;
  for (int64_t iy = 0; iy < gh; iy++)
    for (int64_t ix = 0; ix < gw; ix++) {
      bilinear b = roi_point(y0 + ((double)iy + 0.5) * bh / (double)gh,
                             x0 + ((double)ix + 0.5) * bw / (double)gw, H, W);
      double v[4], s = 0, m = -INFINITY;
      for (int k = 0; k < 4; k++) {
        v[k] = b.inside ? zn_ev_r(e, b.w[k] * x[b.at[k]]) : 0;
        s = zn_ev_r(e, s + v[k]);
        m = v[k] > m ? v[k] : m;
      }
      acc = max ? (m > acc ? m : acc) : zn_ev_r(e, acc + s);
    }
  if (max) return gh * gw > 0 ? acc : 0;
  return zn_ev_r(e, acc / (double)(gh * gw > 1 ? gh * gw : 1));
}

zn_status zn_eval_roialign(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *rois = e->in[1], *bi = e->in[2];
  bool half = strcmp(zn_node_str(e->n, "coordinate_transformation_mode"), "half_pixel") == 0;
  bool max = strcmp(zn_node_str(e->n, "mode"), "max") == 0;
  int64_t oh = zn_node_int(e->n, "output_height"), ow = zn_node_int(e->n, "output_width"),
          sr = zn_node_int(e->n, "sampling_ratio");
  double scale = zn_node_float(e->n, "spatial_scale"), off = half ? 0.5 : 0;
  if (x->rank != 4 || rois->rank != 2 || rois->dims[1] != 4 || bi->count != (uint64_t)rois->dims[0])
    return zn_ev_fail(e, "the operands do not fit RoiAlign");
  int64_t C = x->dims[1], H = x->dims[2], W = x->dims[3], dims[4] = {rois->dims[0], C, oh, ow};
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, 4, dims));
  double *y = e->out[0].u.f;
  for (int64_t r = 0; r < dims[0]; r++) {
    const double *b = rois->u.f + r * 4;
    double x0 = b[0] * scale - off, y0 = b[1] * scale - off, w = b[2] * scale - off - x0,
           h = b[3] * scale - off - y0;
    if (!half) {
      w = w < 1 ? 1 : w;
      h = h < 1 ? 1 : h;
    }
    double bh = h / (double)oh, bw = w / (double)ow;
    int64_t gh = sr > 0 ? sr : (int64_t)ceil((double)(float)bh),
            gw = sr > 0 ? sr : (int64_t)ceil((double)(float)bw), n = bi->u.i[r];
    if (n < 0 || n >= x->dims[0])
      return zn_ev_fail(e, "a region names batch item %lld", (long long)n);
    for (int64_t c = 0; c < C; c++)
      for (int64_t p = 0; p < oh * ow; p++)
        *y++ = roi_bin(e, x->u.f + (n * C + c) * H * W, H, W, y0 + (double)(p / ow) * bh,
                       x0 + (double)(p % ow) * bw, bh, bw, gh, gw, max);
  }
  return ZN_OK;
}

/* ---- DeformConv, two or more spatial axes: multilinear samples at shifted positions ---- */
static double shifted(const zn_ev *e, const zn_ev_win *w, const double *x, const double *pos) {
  double sum = 0;
  for (uint32_t corner = 0; corner < 1U << w->n; corner++) {
    double weight = 1;
    int64_t at = 0;
    bool in = true;
    for (uint32_t d = 0; d < w->n; d++) {
      double f = floor(pos[d]), t = pos[d] - f;
      int64_t i = (int64_t)f + (corner >> d & 1);
      weight *= corner >> d & 1 ? t : 1 - t;
      if (i < 0 || i >= w->in[d]) in = false;
      at = at * w->in[d] + i;
    }
    if (in && weight != 0) sum = zn_ev_r(e, sum + zn_ev_r(e, weight * x[at]));
  }
  return sum;
}

zn_status zn_eval_deformconv(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *w = e->in[1], *off = e->in[2], *b = zn_ev_in(e, 3),
                    *mask = zn_ev_in(e, 4);
  int64_t group = zn_node_int(e->n, "group"), og = zn_node_int(e->n, "offset_group");
  zn_ev_win win;
  if (x->rank < 3 || w->rank != x->rank || off->rank != x->rank || group < 1 || og < 1 ||
      x->dims[1] % og || w->dims[1] * group != x->dims[1] || w->dims[0] % group)
    return zn_ev_fail(e, "X, W, offset and groups do not fit together");
  ZN_TRY(zn_ev_window(e, x, w->dims + 2, false, &win));
  int64_t dims[ZN_MAX_RANK] = {x->dims[0], w->dims[0]};
  memcpy(dims + 2, win.out, win.n * sizeof *dims);
  int64_t kk = (int64_t)zn_ev_count(win.n, win.k), in_n = (int64_t)zn_ev_count(win.n, win.in),
          out_n = (int64_t)zn_ev_count(win.n, win.out);
  int64_t C = x->dims[1], Cg = w->dims[1], M = w->dims[0], n_sp = win.n;
  if (off->count != (uint64_t)(x->dims[0] * og * kk * n_sp * out_n) ||
      (mask && mask->count != (uint64_t)(x->dims[0] * og * kk * out_n)))
    return zn_ev_fail(e, "offset or mask has the wrong size");
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  double *t = ZN_ARRAY(e->tmp, double, C *kk + 1);
  for (int64_t n = 0; n < x->dims[0]; n++) {
    int64_t o[ZN_MAX_RANK] = {0};
    for (int64_t p = 0; p < out_n; p++, zn_ev_next(win.n, win.out, o)) {
      for (int64_t c = 0; c < C; c++) {
        int64_t k[ZN_MAX_RANK] = {0}, g = c / (C / og);
        for (int64_t i = 0; i < kk; i++, zn_ev_next(win.n, win.k, k)) {
          double pos[ZN_MAX_RANK];
          for (uint32_t d = 0; d < win.n; d++)
            pos[d] = (double)(o[d] * win.s[d] - win.lo[d] + k[d] * win.d[d]) +
                     off->u.f[(((n * og + g) * kk + i) * n_sp + d) * out_n + p];
          double v = shifted(e, &win, x->u.f + (n * C + c) * in_n, pos);
          t[c * kk + i] = mask ? zn_ev_r(e, v * mask->u.f[((n * og + g) * kk + i) * out_n + p]) : v;
        }
      }
      for (int64_t m = 0; m < M; m++) {
        double s = zn_ev_dot(e, t + m / (M / group) * Cg * kk, 1, w->u.f + m * Cg * kk, 1,
                             (uint64_t)(Cg * kk));
        e->out[0].u.f[(n * M + m) * out_n + p] = b ? zn_ev_r(e, s + b->u.f[m]) : s;
      }
    }
  }
  return ZN_OK;
}

/* ---- Col2Im ---- */
zn_status zn_eval_col2im(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *img = e->in[1], *blk = e->in[2];
  uint32_t n = (uint32_t)img->count;
  int64_t s[ZN_MAX_RANK], d[ZN_MAX_RANK], pads[2 * ZN_MAX_RANK], steps[ZN_MAX_RANK],
      dims[ZN_MAX_RANK];
  if (x->rank != 3 || n < 1 || n + 2 > ZN_MAX_RANK || blk->count != n)
    return zn_ev_fail(e, "image_shape and block_shape do not fit");
  ZN_TRY(zn_ev_attr_ints(e, "strides", n, 1, s));
  ZN_TRY(zn_ev_attr_ints(e, "dilations", n, 1, d));
  ZN_TRY(zn_ev_attr_ints(e, "pads", 2 * n, 0, pads));
  int64_t L = 1, kk = 1;
  for (uint32_t i = 0; i < n; i++) {
    int64_t room = img->u.i[i] + pads[i] + pads[i + n] - d[i] * (blk->u.i[i] - 1) - 1;
    steps[i] = room < 0 || s[i] < 1 ? 0 : room / s[i] + 1;
    L *= steps[i];
    kk *= blk->u.i[i];
    dims[i + 2] = img->u.i[i];
  }
  if (kk < 1 || x->dims[1] % kk || x->dims[2] != L)
    return zn_ev_fail(e, "input is [%lld, %lld], expected multiples of %lld and %lld",
                      (long long)x->dims[1], (long long)x->dims[2], (long long)kk, (long long)L);
  dims[0] = x->dims[0];
  dims[1] = x->dims[1] / kk;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, n + 2, dims));
  int64_t img_n = (int64_t)zn_ev_count(n, dims + 2);
  for (int64_t row = 0; row < x->dims[0] * x->dims[1]; row++) {
    int64_t k[ZN_MAX_RANK], r = row % kk, p[ZN_MAX_RANK] = {0};
    for (uint32_t i = n; i-- > 0;) {
      k[i] = r % blk->u.i[i];
      r /= blk->u.i[i];
    }
    for (int64_t l = 0; l < L; l++, zn_ev_next(n, steps, p)) {
      int64_t at = 0;
      bool in = true;
      for (uint32_t i = 0; i < n; i++) {
        int64_t q = p[i] * s[i] - pads[i] + k[i] * d[i];
        if (q < 0 || q >= dims[i + 2]) in = false;
        at = at * dims[i + 2] + q;
      }
      if (!in) continue;
      uint64_t to = (uint64_t)(row / kk * img_n + at), from = (uint64_t)(row * L + l);
      if (zn_is_float((zn_dtype)x->dtype))
        e->out[0].u.f[to] = zn_ev_r(e, e->out[0].u.f[to] + x->u.f[from]);
      else if (x->dtype == ZN_BOOL)
        e->out[0].u.i[to] |= x->u.i[from];
      else if (zn_ev_is_cplx((zn_dtype)x->dtype))
        for (uint64_t part = 0; part < 2; part++)
          e->out[0].u.f[2 * to + part] = zn_ev_r(e, e->out[0].u.f[2 * to + part] + x->u.f[2 * from + part]);
      else if (x->dtype != ZN_STR)
        e->out[0].u.i[to] = zn_int_wrap((zn_dtype)x->dtype,
                                        (int64_t)((uint64_t)e->out[0].u.i[to] + (uint64_t)x->u.i[from]));
    }
  }
  return ZN_OK;
}
