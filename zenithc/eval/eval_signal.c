/* Signal processing: DFT (direct sums), STFT, windows, the mel filter bank; and the determinant. */
#include "zenithc/eval/eval_impl.h"

static const double TAU = 6.283185307179586476925286766559;

/* X[k] = sum x[t] w[t] exp(sign * 2 pi i k t / n), k in [0, m); x strided complex (im NULL: real).
 */
static void dft(const zn_ev *e, const double *re, const double *im, uint64_t stride,
                const double *win, uint64_t have, uint64_t n, uint64_t m, int sign, double *out,
                double *tmp) {
  for (uint64_t k = 0; k < m; k++) {
    uint64_t len = have < n ? have : n;
    for (uint64_t t = 0; t < len; t++) {
      double a = TAU * (double)(k * t % n) / (double)n * sign, c = zn_ev_r(e, cos(a)),
             s = zn_ev_r(e, sin(a));
      double x = re[t * stride], y = im ? im[t * stride] : 0;
      if (win) {
        x = zn_ev_r(e, x * win[t]);
        y = zn_ev_r(e, y * win[t]);
      }
      tmp[t] = zn_ev_r(e, zn_ev_r(e, x * c) - zn_ev_r(e, y * s));
      tmp[n + t] = zn_ev_r(e, zn_ev_r(e, x * s) + zn_ev_r(e, y * c));
    }
    out[2 * k] = zn_ev_sum(e, tmp, len, 1);
    out[2 * k + 1] = zn_ev_sum(e, tmp + n, len, 1);
  }
}

zn_status zn_eval_dft(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *lv = zn_ev_in(e, 1), *av = zn_ev_in(e, 2);
  bool inv = zn_node_int(e->n, "inverse") != 0, one = zn_node_int(e->n, "onesided") != 0;
  uint32_t a, r = x->rank;
  if (r < 2 || (x->dims[r - 1] != 1 && x->dims[r - 1] != 2))
    return zn_ev_fail(e, "the last axis must hold 1 or 2 numbers");
  ZN_TRY(zn_ev_axis(e, av && av->count ? av->u.i[0] : -2, r, &a));
  if (a == r - 1) return zn_ev_fail(e, "the last axis cannot be transformed");
  bool real_out = inv && one;
  uint64_t have = (uint64_t)x->dims[a], parts = (uint64_t)x->dims[r - 1];
  uint64_t n = lv && lv->count ? (uint64_t)lv->u.i[0] : real_out ? 2 * (have - 1) : have;
  if (n < 1 || n > UINT64_C(1) << 30) return zn_ev_fail(e, "dft_length is %lld", (long long)n);
  uint64_t m = one && !inv ? n / 2 + 1 : n;
  int64_t dims[ZN_MAX_RANK];
  memcpy(dims, x->dims, sizeof dims);
  dims[a] = (int64_t)m;
  dims[r - 1] = real_out ? 1 : 2;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, r, dims));
  uint64_t outer = zn_ev_count(a, x->dims), inner = zn_ev_count(r - 2 - a, x->dims + a + 1),
           full = real_out ? n : have;
  double *re = ZN_ARRAY(e->tmp, double, full + 1), *im = ZN_ARRAY(e->tmp, double, full + 1);
  double *y = ZN_ARRAY(e->tmp, double, 2 * m + 2), *tmp = ZN_ARRAY(e->tmp, double, 2 * n + 2);
  for (uint64_t o = 0; o < outer * inner; o++) {
    for (uint64_t t = 0; t < have; t++) {
      const double *p = x->u.f + ((o / inner * have + t) * inner + o % inner) * parts;
      if (t >= full) break;
      re[t] = p[0];
      im[t] = parts == 2 ? p[1] : 0;
    }
    for (uint64_t t = have; real_out && t < n;
         t++) { /* the other half is the conjugate mirror image */
      uint64_t q = n - t;
      re[t] = q < have ? re[q] : 0;
      im[t] = q < have ? -im[q] : 0;
    }
    if (real_out) { /* as every irfft: the imaginary parts of the ends do not count */
      im[0] = 0;
      if (n % 2 == 0 && n / 2 < have) im[n / 2] = 0;
    }
    dft(e, re, im, 1, NULL, full, n, m, inv ? 1 : -1, y, tmp);
    for (uint64_t k = 0; k < m; k++) {
      double *q = e->out[0].u.f + ((o / inner * m + k) * inner + o % inner) * (uint64_t)dims[r - 1];
      q[0] = inv ? zn_ev_r(e, y[2 * k] / (double)n) : y[2 * k];
      if (!real_out) q[1] = inv ? zn_ev_r(e, y[2 * k + 1] / (double)n) : y[2 * k + 1];
    }
  }
  return ZN_OK;
}

zn_status zn_eval_stft(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *step = e->in[1], *win = zn_ev_in(e, 2), *len = zn_ev_in(e, 3);
  bool one = zn_node_int(e->n, "onesided") != 0;
  if (x->rank < 2 || x->rank > 3 || !step->count || step->u.i[0] < 1)
    return zn_ev_fail(e, "signal or frame_step is not valid");
  uint64_t N = (uint64_t)x->dims[1], parts = x->rank == 3 ? (uint64_t)x->dims[2] : 1;
  uint64_t n = len && len->count ? (uint64_t)len->u.i[0]
               : win             ? win->count
                                 : N,
           hop = (uint64_t)step->u.i[0];
  if (n < 1 || n > N || (win && win->count != n))
    return zn_ev_fail(e, "a frame of %llu does not fit the signal or window",
                      (unsigned long long)n);
  uint64_t frames = (N - n) / hop + 1, m = one ? n / 2 + 1 : n;
  int64_t dims[4] = {x->dims[0], (int64_t)frames, (int64_t)m, 2};
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, 4, dims));
  double *tmp = ZN_ARRAY(e->tmp, double, 2 * n + 2);
  for (uint64_t b = 0; b < (uint64_t)x->dims[0]; b++)
    for (uint64_t f = 0; f < frames; f++) {
      const double *p = x->u.f + (b * N + f * hop) * parts;
      dft(e, p, parts == 2 ? p + 1 : NULL, parts, win ? win->u.f : NULL, n, n, m, -1,
          e->out[0].u.f + (b * frames + f) * m * 2, tmp);
    }
  return ZN_OK;
}

zn_status zn_eval_window(zn_ev *e) {
  if (!e->in[0]->count) return zn_ev_fail(e, "size must be a scalar");
  int64_t n = e->in[0]->u.i[0];
  if (n < 0) return zn_ev_fail(e, "size is negative");
  double d = (double)(zn_node_int(e->n, "periodic") ? n : n - 1);
  ZN_TRY(zn_ev_out(e, 0, zn_dtype_from_onnx((int)zn_node_int(e->n, "output_datatype")), 1, &n));
  for (int64_t k = 0; k < n; k++) {
    double t = TAU * (double)k / d, w;
    if (e->op == ZN_OP_HannWindow) w = 0.5 - 0.5 * cos(t);
    else if (e->op == ZN_OP_HammingWindow) w = 25.0 / 46.0 - 21.0 / 46.0 * cos(t);
    else w = 0.42 + 0.08 * cos(2 * t) - 0.5 * cos(t); /* in this order it is 0 at the ends and 1 in the middle */
    if (n == 1 && d == 0) w = 1;
    zn_ev_set(&e->out[0], (uint64_t)k, w);
  }
  return ZN_OK;
}

static double hz_to_mel(double f) { return 2595 * log10(1 + f / 700); }

zn_status zn_eval_melweightmatrix(zn_ev *e) {
  for (uint32_t i = 0; i < 5; i++)
    if (!e->in[i]->count) return zn_ev_fail(e, "input %u must be a scalar", i + 1);
  int64_t bins = e->in[0]->u.i[0], len = e->in[1]->u.i[0], rate = e->in[2]->u.i[0];
  double lo = hz_to_mel(zn_ev_get(e->in[3], 0)), hi = hz_to_mel(zn_ev_get(e->in[4], 0));
  if (bins < 0 || len < 0 || rate < 1) return zn_ev_fail(e, "sizes must be positive");
  int64_t dims[2] = {len / 2 + 1, bins};
  ZN_TRY(zn_ev_out(e, 0, zn_dtype_from_onnx((int)zn_node_int(e->n, "output_datatype")), 2, dims));
  int64_t *at = ZN_ARRAY(e->tmp, int64_t, bins + 2);
  for (int64_t k = 0; k < bins + 2; k++) {
    double mel = lo + (double)k * (hi - lo) / (double)(bins + 2);
    at[k] = (int64_t)floor((double)(len + 1) * (700 * (pow(10, mel / 2595) - 1)) / (double)rate);
  }
  for (int64_t k = 0; k < bins; k++) {
    int64_t l = at[k], c = at[k + 1], h = at[k + 2];
    if (c == l && c >= 0 && c < dims[0]) zn_ev_set(&e->out[0], (uint64_t)(c * bins + k), 1);
    for (int64_t j = l; c != l && j <= c; j++)
      if (j >= 0 && j < dims[0])
        zn_ev_set(&e->out[0], (uint64_t)(j * bins + k), (double)(j - l) / (double)(c - l));
    for (int64_t j = c; h != c && j < h; j++)
      if (j >= 0 && j < dims[0])
        zn_ev_set(&e->out[0], (uint64_t)(j * bins + k), (double)(h - j) / (double)(h - c));
  }
  return ZN_OK;
}

/* Elimination with partial pivoting. */
zn_status zn_eval_det(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  if (x->rank < 2 || x->dims[x->rank - 1] != x->dims[x->rank - 2])
    return zn_ev_fail(e, "X must hold square matrices");
  uint64_t n = (uint64_t)x->dims[x->rank - 1];
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank - 2, x->dims));
  double *m = ZN_ARRAY(e->tmp, double, n *n + 1);
  for (uint64_t b = 0; b < e->out[0].count; b++) {
    double det = 1;
    memcpy(m, x->u.f + b * n * n, n * n * sizeof *m);
    for (uint64_t c = 0; c < n; c++) {
      uint64_t p = c;
      for (uint64_t r = c + 1; r < n; r++)
        if (fabs(m[r * n + c]) > fabs(m[p * n + c])) p = r;
      if (m[p * n + c] == 0) det = 0;
      if (det == 0) break;
      for (uint64_t k = 0; p != c && k < n; k++) {
        double t = m[c * n + k];
        m[c * n + k] = m[p * n + k];
        m[p * n + k] = t;
      }
      if (p != c) det = -det;
      det = zn_ev_r(e, det * m[c * n + c]);
      for (uint64_t r = c + 1; r < n; r++) {
        double f = zn_ev_r(e, m[r * n + c] / m[c * n + c]);
        for (uint64_t k = c; k < n; k++)
          m[r * n + k] = zn_ev_r(e, m[r * n + k] - zn_ev_r(e, f * m[c * n + k]));
      }
    }
    e->out[0].u.f[b] = det;
  }
  return ZN_OK;
}

/* Row r minus f times row c, in [a | b]. */
static void subtract_row(double *a, double *b, uint64_t n, uint64_t r, uint64_t c, double f) {
  for (uint64_t k = 0; k < n; k++) {
    a[r * n + k] -= f * a[c * n + k];
    b[r * n + k] -= f * b[c * n + k];
  }
}

/* a becomes the identity, b from it the inverse: Gauss-Jordan elimination with partial pivoting. */
static void invert(double *a, double *b, uint64_t n) {
  for (uint64_t k = 0; k < n * n; k++) b[k] = k % (n + 1) == 0;
  for (uint64_t c = 0; c < n; c++) {
    uint64_t p = c;
    for (uint64_t r = c + 1; r < n; r++)
      if (fabs(a[r * n + c]) > fabs(a[p * n + c])) p = r;
    if (p != c) {
      for (uint64_t k = 0; k < n; k++) {
        double t = a[c * n + k], s = b[c * n + k];
        a[c * n + k] = a[p * n + k], a[p * n + k] = t;
        b[c * n + k] = b[p * n + k], b[p * n + k] = s;
      }
    }
    double d = a[c * n + c];
    for (uint64_t k = 0; k < n; k++) a[c * n + k] /= d, b[c * n + k] /= d;
    for (uint64_t r = 0; r < n; r++)
      if (r != c) subtract_row(a, b, n, r, c, a[r * n + c]);
  }
}

zn_status zn_eval_inverse(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  if (x->rank < 2 || x->dims[x->rank - 1] != x->dims[x->rank - 2])
    return zn_ev_fail(e, "X must hold square matrices");
  const uint64_t n = (uint64_t)x->dims[x->rank - 1];
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  double *a = ZN_ARRAY(e->tmp, double, n *n + 1);
  for (uint64_t at = 0; n && at < x->count; at += n * n) {
    memcpy(a, x->u.f + at, n * n * sizeof *a);
    invert(a, e->out[0].u.f + at, n);
  }
  for (uint64_t k = 0; k < x->count; k++) zn_ev_set(&e->out[0], k, e->out[0].u.f[k]);
  return ZN_OK;
}
