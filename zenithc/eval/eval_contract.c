/* Contractions: MatMul, Gemm, Conv and their integer, quantised and transposed forms. */
#include "zenithc/eval/eval_impl.h"

zn_status zn_ev_attr_ints(zn_ev *e, const char *name, uint32_t n, int64_t fill, int64_t *out) {
  uint32_t count = 0;
  const int64_t *v = zn_node_ints(e->n, name, &count);
  if (v && count != n && count != 0)
    return zn_ev_fail(e, "attribute '%s' has %u items, expected %u", name, count, n);
  for (uint32_t i = 0; i < n; i++) out[i] = v && count ? v[i] : fill;
  return ZN_OK;
}

zn_status zn_ev_window(zn_ev *e, const zn_eval_val *x, const int64_t *kernel, bool ceil_mode,
                       zn_ev_win *w) {
  memset(w, 0, sizeof *w);
  if (x->rank < 3) return zn_ev_fail(e, "input has rank %u, expected at least 3", x->rank);
  w->n = x->rank - 2;
  int64_t pads[2 * ZN_MAX_RANK];
  ZN_TRY(zn_ev_attr_ints(e, "strides", w->n, 1, w->s));
  ZN_TRY(zn_ev_attr_ints(e, "dilations", w->n, 1, w->d));
  ZN_TRY(zn_ev_attr_ints(e, "pads", 2 * w->n, 0, pads));
  const char *mode = zn_schema_find_attr(zn_op_schema(e->op), "auto_pad")
                         ? zn_node_str(e->n, "auto_pad")
                         : "NOTSET";
  for (uint32_t d = 0; d < w->n; d++) {
    w->in[d] = x->dims[d + 2];
    w->k[d] = kernel[d];
    if (w->s[d] < 1 || w->d[d] < 1 || w->k[d] < 1)
      return zn_ev_fail(e, "strides, dilations and kernel extents must be positive");
    int64_t span = (w->k[d] - 1) * w->d[d] + 1;
    if (strncmp(mode, "SAME", 4) == 0) {
      w->out[d] = (w->in[d] + w->s[d] - 1) / w->s[d];
      int64_t total = (w->out[d] - 1) * w->s[d] + span - w->in[d];
      if (total < 0) total = 0;
      w->lo[d] = strcmp(mode, "SAME_LOWER") == 0 ? (total + 1) / 2 : total / 2;
      w->hi[d] = total - w->lo[d];
      continue;
    }
    w->lo[d] = strcmp(mode, "VALID") == 0 ? 0 : pads[d];
    w->hi[d] = strcmp(mode, "VALID") == 0 ? 0 : pads[d + w->n];
    int64_t room = w->in[d] + w->lo[d] + w->hi[d] - span;
    if (room < 0) {
      if (w->in[d] || ceil_mode || room + w->s[d] < 0) return zn_ev_fail(e, "the window is larger than the padded input");
      w->out[d] = 0;
      continue;
    }
    w->out[d] = (ceil_mode ? room + w->s[d] - 1 : room) / w->s[d] + 1;
    if (ceil_mode && (w->out[d] - 1) * w->s[d] >= w->in[d] + w->lo[d]) w->out[d]--;
  }
  return ZN_OK;
}

/* ---- matrix products ---- */
typedef struct mm {
  uint64_t M, N, K;
  uint32_t brank;
  int64_t bdims[ZN_MAX_RANK], bsa[ZN_MAX_RANK], bsb[ZN_MAX_RANK]; /* batch: strides in matrices */
  uint32_t orank;
  int64_t odims[ZN_MAX_RANK];
} mm;

/* numpy.matmul's shape rules */
static zn_status mm_shape(zn_ev *e, const zn_eval_val *a, const zn_eval_val *b, mm *s) {
  memset(s, 0, sizeof *s);
  if (a->rank == 0 || b->rank == 0) return zn_ev_fail(e, "operands must have rank 1 or more");
  int64_t ka = a->dims[a->rank - 1], kb = b->dims[b->rank == 1 ? 0 : b->rank - 2];
  if (ka != kb)
    return zn_ev_fail(e, "inner dimensions %lld and %lld differ", (long long)ka, (long long)kb);
  s->K = (uint64_t)ka;
  s->M = a->rank == 1 ? 1 : (uint64_t)a->dims[a->rank - 2];
  s->N = b->rank == 1 ? 1 : (uint64_t)b->dims[b->rank - 1];
  zn_eval_val ba = *a, bb = *b;
  ba.rank = a->rank > 2 ? a->rank - 2 : 0;
  bb.rank = b->rank > 2 ? b->rank - 2 : 0;
  const zn_eval_val *both[2] = {&ba, &bb};
  ZN_TRY(zn_ev_bcast(e, both, 2, &s->brank, s->bdims));
  zn_ev_bstrides(&ba, s->brank, s->bsa);
  zn_ev_bstrides(&bb, s->brank, s->bsb);
  memcpy(s->odims, s->bdims, sizeof s->odims);
  s->orank = s->brank;
  if (a->rank > 1) s->odims[s->orank++] = (int64_t)s->M;
  if (b->rank > 1) s->odims[s->orank++] = (int64_t)s->N;
  return ZN_OK;
}

static void mm_f64(const zn_ev *e, const mm *s, const double *a, const double *b, double *y) {
  int64_t ix[ZN_MAX_RANK] = {0};
  uint64_t batches = zn_ev_count(s->brank, s->bdims);
  for (uint64_t i = 0; i < batches; i++) {
    int64_t oa = 0, ob = 0;
    for (uint32_t d = 0; d < s->brank; d++) {
      oa += ix[d] * s->bsa[d];
      ob += ix[d] * s->bsb[d];
    }
    zn_ev_gemm(e, s->M, s->N, s->K, a + (uint64_t)oa * s->M * s->K, s->K,
               b + (uint64_t)ob * s->K * s->N, s->N, y + i * s->M * s->N, s->N);
    zn_ev_next(s->brank, s->bdims, ix);
  }
}

static void mm_i64(const mm *s, zn_dtype t, const int64_t *a, const int64_t *b, int64_t *y) {
  int64_t ix[ZN_MAX_RANK] = {0};
  uint64_t batches = zn_ev_count(s->brank, s->bdims);
  for (uint64_t i = 0; i < batches; i++) {
    int64_t oa = 0, ob = 0;
    for (uint32_t d = 0; d < s->brank; d++) {
      oa += ix[d] * s->bsa[d];
      ob += ix[d] * s->bsb[d];
    }
    const int64_t *am = a + (uint64_t)oa * s->M * s->K, *bm = b + (uint64_t)ob * s->K * s->N;
    for (uint64_t m = 0; m < s->M; m++)
      for (uint64_t n = 0; n < s->N; n++) {
        uint64_t sum = 0;
        for (uint64_t k = 0; k < s->K; k++)
          sum += (uint64_t)am[m * s->K + k] * (uint64_t)bm[k * s->N + n];
        y[(i * s->M + m) * s->N + n] = zn_int_wrap(t, (int64_t)sum);
      }
    zn_ev_next(s->brank, s->bdims, ix);
  }
}

zn_status zn_eval_matmul(zn_ev *e) {
  const zn_eval_val *a = e->in[0], *b = e->in[1];
  zn_dtype t = (zn_dtype)a->dtype;
  mm s;
  ZN_TRY(mm_shape(e, a, b, &s));
  ZN_TRY(zn_ev_out(e, 0, t, s.orank, s.odims));
  if (zn_is_float(t)) mm_f64(e, &s, a->u.f, b->u.f, e->out[0].u.f);
  else mm_i64(&s, t, a->u.i, b->u.i, e->out[0].u.i);
  return ZN_OK;
}

/* A [r,c] matrix, transposed when asked, as doubles in tmp or in place. */
static const double *matrix(const zn_ev *e, const zn_eval_val *v, bool trans) {
  if (!trans) return zn_is_float((zn_dtype)v->dtype) ? v->u.f : zn_ev_doubles(e, v);
  uint64_t r = (uint64_t)v->dims[0], c = (uint64_t)v->dims[1];
  double *x = ZN_ARRAY(e->tmp, double, v->count + 1);
  for (uint64_t i = 0; i < r; i++)
    for (uint64_t j = 0; j < c; j++) x[j * r + i] = zn_ev_get(v, i * c + j);
  return x;
}

zn_status zn_eval_gemm(zn_ev *e) {
  const zn_eval_val *a = e->in[0], *b = e->in[1], *c = zn_ev_in(e, 2);
  bool ta = zn_node_int(e->n, "transA") != 0, tb = zn_node_int(e->n, "transB") != 0;
  if (a->rank != 2 || b->rank != 2) return zn_ev_fail(e, "A and B must have rank 2");
  uint64_t M = (uint64_t)a->dims[ta], K = (uint64_t)a->dims[!ta], N = (uint64_t)b->dims[!tb];
  if ((uint64_t)b->dims[tb] != K) return zn_ev_fail(e, "inner dimensions differ");
  double alpha = zn_node_float(e->n, "alpha"), beta = zn_node_float(e->n, "beta");
  int64_t dims[2] = {(int64_t)M, (int64_t)N};
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)a->dtype, 2, dims));
  double *y = ZN_ARRAY(e->tmp, double, M *N + 1);
  zn_ev_gemm(e, M, N, K, matrix(e, a, ta), K, matrix(e, b, tb), N, y, N);
  int64_t cs[2] = {0};
  if (c) {
    if (c->rank > 2) return zn_ev_fail(e, "C has rank %u, expected at most 2", c->rank);
    for (uint32_t d = 0; d < c->rank; d++)
      if (c->dims[d] != 1 && c->dims[d] != dims[2 - c->rank + d])
        return zn_ev_fail(e, "C does not broadcast");
    zn_ev_bstrides(c, 2, cs);
  }
  for (uint64_t m = 0; m < M; m++)
    for (uint64_t n = 0; n < N; n++) {
      double x = alpha == 1 ? y[m * N + n] : zn_ev_r(e, alpha * y[m * N + n]);
      if (c) {
        double z = zn_ev_get(c, m * (uint64_t)cs[0] + n * (uint64_t)cs[1]);
        x = zn_ev_r(e, x + (beta == 1 ? z : zn_ev_r(e, beta * z)));
      }
      zn_ev_set(&e->out[0], m * N + n, x);
    }
  return ZN_OK;
}

/* x - zero point, which is a scalar, per row (A) or per column (B) of the last two axes. Exact. */
static double *centred(const zn_ev *e, const zn_eval_val *x, const zn_eval_val *zp, bool by_row) {
  double *d = zn_ev_doubles(e, x);
  if (!zp || x->rank == 0) return d;
  uint64_t cols = (uint64_t)x->dims[x->rank - 1],
           rows = x->rank > 1 ? (uint64_t)x->dims[x->rank - 2] : 1;
  uint64_t n = by_row ? rows : cols;
  for (uint64_t i = 0; i < x->count; i++) {
    uint64_t line = by_row ? i / cols % rows : i % cols, mat = i / (rows * cols);
    uint64_t z = zp->count == 1 ? 0 : zp->count == n ? line : mat * n + line;
    d[i] -= zn_ev_get(zp, z < zp->count ? z : 0);
  }
  return d;
}

zn_status zn_eval_matmulinteger(zn_ev *e) {
  const zn_eval_val *a = e->in[0], *b = e->in[1];
  e->mode = ZN_EVAL_F64; /* integers below 2^53: exact */
  mm s;
  ZN_TRY(mm_shape(e, a, b, &s));
  ZN_TRY(zn_ev_out(e, 0, ZN_I32, s.orank, s.odims));
  double *y = ZN_ARRAY(e->tmp, double, e->out[0].count + 1);
  mm_f64(e, &s, centred(e, a, zn_ev_in(e, 2), true), centred(e, b, zn_ev_in(e, 3), false), y);
  for (uint64_t i = 0; i < e->out[0].count; i++)
    e->out[0].u.i[i] = zn_int_wrap(ZN_I32, (int64_t)y[i]);
  return ZN_OK;
}

/* Rounds half to even, adds the zero point, saturates (float8: encodes). */
static void requantize(zn_eval_val *y, uint64_t i, double x, double zp) {
  zn_dtype t = (zn_dtype)y->dtype;
  if (zn_is_float(t)) y->u.f[i] = zn_float_decode(t, zn_float_encode(t, x + zp, true));
  else zn_ev_set(y, i, rint(x) + zp);
}

static double scale_at(const zn_eval_val *s, uint64_t i) {
  return zn_ev_get(s, s->count == 1 ? 0 : i % s->count);
}

zn_status zn_eval_qlinearmatmul(zn_ev *e) {
  const zn_eval_val *a = e->in[0], *b = e->in[3], *sa = e->in[1], *sb = e->in[4], *sy = e->in[6],
                    *zy = e->in[7];
  e->mode = ZN_EVAL_F64;
  mm s;
  ZN_TRY(mm_shape(e, a, b, &s));
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)zy->dtype, s.orank, s.odims));
  double *y = ZN_ARRAY(e->tmp, double, e->out[0].count + 1);
  mm_f64(e, &s, centred(e, a, e->in[2], true), centred(e, b, e->in[5], false), y);
  for (uint64_t i = 0; i < e->out[0].count; i++) {
    uint64_t n = i % s.N, m = i / s.N % s.M;
    double x = y[i] * scale_at(sa, m) * scale_at(sb, n) / scale_at(sy, m);
    requantize(&e->out[0], i, x, scale_at(zy, m));
  }
  return ZN_OK;
}

/* ---- convolutions ---- */
static zn_status conv_shape(zn_ev *e, const zn_eval_val *x, const zn_eval_val *w, zn_ev_win *win,
                            int64_t *dims) {
  if (x->rank < 3 || w->rank != x->rank)
    return zn_ev_fail(e, "X has rank %u and W rank %u", x->rank, w->rank);
  ZN_TRY(zn_ev_window(e, x, w->dims + 2, false, win));
  int64_t group = zn_node_int(e->n, "group");
  if (group < 1 || w->dims[1] * group != x->dims[1])
    return zn_ev_fail(e, "W wants %lld channels in each of %lld groups, X has %lld",
                      (long long)w->dims[1], (long long)group, (long long)x->dims[1]);
  dims[0] = x->dims[0];
  dims[1] = w->dims[0];
  memcpy(dims + 2, win->out, win->n * sizeof *dims);
  return ZN_OK;
}

zn_status zn_eval_conv(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *w = e->in[1], *b = zn_ev_in(e, 2);
  zn_ev_win win;
  int64_t dims[ZN_MAX_RANK];
  ZN_TRY(conv_shape(e, x, w, &win, dims));
  if (b && b->count != (uint64_t)w->dims[0])
    return zn_ev_fail(e, "B does not have one item per output channel");
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  return zn_ev_conv(e, x->u.f, w->u.f, b ? b->u.f : NULL, (uint64_t)x->dims[0],
                    (uint64_t)x->dims[1], (uint64_t)w->dims[0],
                    (uint64_t)zn_node_int(e->n, "group"), &win, e->out[0].u.f);
}

/* Weights minus their zero point, a scalar or one per output channel. */
static double *centred_weights(const zn_ev *e, const zn_eval_val *w, const zn_eval_val *zp) {
  double *d = zn_ev_doubles(e, w);
  uint64_t per = w->dims[0] ? w->count / (uint64_t)w->dims[0] : 1;
  for (uint64_t i = 0; zp && i < w->count; i++) d[i] -= scale_at(zp, i / per);
  return d;
}

static zn_status conv_exact(zn_ev *e, const zn_eval_val *x, const zn_eval_val *zx,
                            const zn_eval_val *w, const zn_eval_val *zw, const zn_eval_val *b,
                            zn_dtype t, double **y) {
  zn_ev_win win;
  int64_t dims[ZN_MAX_RANK];
  e->mode = ZN_EVAL_F64; /* integers below 2^53: exact */
  ZN_TRY(conv_shape(e, x, w, &win, dims));
  ZN_TRY(zn_ev_out(e, 0, t, x->rank, dims));
  *y = ZN_ARRAY(e->tmp, double, e->out[0].count + 1);
  double *xd = zn_ev_doubles(e, x), z = zx ? zn_ev_get(zx, 0) : 0;
  for (uint64_t i = 0; i < x->count; i++) xd[i] -= z;
  return zn_ev_conv(e, xd, centred_weights(e, w, zw), b ? zn_ev_doubles(e, b) : NULL,
                    (uint64_t)x->dims[0], (uint64_t)x->dims[1], (uint64_t)w->dims[0],
                    (uint64_t)zn_node_int(e->n, "group"), &win, *y);
}

zn_status zn_eval_convinteger(zn_ev *e) {
  double *y;
  ZN_TRY(conv_exact(e, e->in[0], zn_ev_in(e, 2), e->in[1], zn_ev_in(e, 3), NULL, ZN_I32, &y));
  for (uint64_t i = 0; i < e->out[0].count; i++)
    e->out[0].u.i[i] = zn_int_wrap(ZN_I32, (int64_t)y[i]);
  return ZN_OK;
}

zn_status zn_eval_qlinearconv(zn_ev *e) {
  const zn_eval_val *sx = e->in[1], *sw = e->in[4], *sy = e->in[6], *zy = e->in[7];
  double *y;
  ZN_TRY(conv_exact(e, e->in[0], e->in[2], e->in[3], e->in[5], zn_ev_in(e, 8), (zn_dtype)zy->dtype,
                    &y));
  uint64_t outer, M, inner;
  zn_ev_split(&e->out[0], 1, &outer, &M, &inner);
  for (uint64_t i = 0; i < e->out[0].count; i++)
    requantize(&e->out[0], i,
               y[i] * zn_ev_get(sx, 0) * scale_at(sw, i / inner % M) / zn_ev_get(sy, 0),
               zn_ev_get(zy, 0));
  return ZN_OK;
}

/* ---- transposed convolution: per output channel, a product over the input channels, then
 * scattered ---- */
typedef struct deconv {
  const zn_ev *e;
  const zn_eval_val *x, *w, *b;
  const zn_ev_win *win; /* .in and .out as of the transposed operator */
  uint64_t group, kk, in_n, out_n, M;
  double *y;
} deconv;

static void deconv_channel(const deconv *c, uint64_t job, double *wm, double *cols) {
  const zn_ev_win *w = c->win;
  uint64_t m = job % c->M, n = job / c->M, Mg = c->M / c->group, gr = m / Mg;
  uint64_t Cg = (uint64_t)c->x->dims[1] / c->group;
  for (uint64_t ch = 0; ch < Cg; ch++)
    for (uint64_t k = 0; k < c->kk; k++)
      wm[k * Cg + ch] = c->w->u.f[((gr * Cg + ch) * Mg + m % Mg) * c->kk + k];
  zn_ev one = *c->e;
  const double *x = c->x->u.f + (n * (uint64_t)c->x->dims[1] + gr * Cg) * c->in_n;
  for (uint64_t k = 0; k < c->kk; k++) /* rows one by one: stays on this thread */
    zn_ev_gemm(&one, 1, c->in_n, Cg, wm + k * Cg, Cg, x, c->in_n, cols + k * c->in_n, c->in_n);
  double *y = c->y + (n * c->M + m) * c->out_n;
  int64_t kp[ZN_MAX_RANK] = {0};
  for (uint64_t k = 0; k < c->kk; k++, zn_ev_next(w->n, w->k, kp)) {
    int64_t ip[ZN_MAX_RANK] = {0};
    for (uint64_t i = 0; i < c->in_n; i++, zn_ev_next(w->n, w->in, ip)) {
      int64_t off = 0;
      bool inside = true;
      for (uint32_t d = 0; d < w->n; d++) {
        int64_t o = ip[d] * w->s[d] + kp[d] * w->d[d] - w->lo[d];
        if (o < 0 || o >= w->out[d]) inside = false;
        off = off * w->out[d] + o;
      }
      if (inside) y[off] = zn_ev_r(c->e, y[off] + cols[k * c->in_n + i]);
    }
  }
  for (uint64_t i = 0; c->b && i < c->out_n; i++) y[i] = zn_ev_r(c->e, y[i] + c->b->u.f[m]);
}

static void deconv_part(void *p, uint64_t lo, uint64_t hi) {
  const deconv *c = p;
  uint64_t Cg = (uint64_t)c->x->dims[1] / c->group;
  double *wm = malloc((size_t)(c->kk * Cg + 1) * sizeof *wm),
         *cols = malloc((size_t)(c->kk * c->in_n + 1) * sizeof *wm);
  if (!wm || !cols) abort(); /* no larger than the weights and one output channel */
  for (uint64_t j = lo; j < hi; j++) deconv_channel(c, j, wm, cols);
  free(wm);
  free(cols);
}

static zn_status deconv_shape(zn_ev *e, const zn_eval_val *x, const zn_eval_val *w,
                              zn_ev_win *win) {
  memset(win, 0, sizeof *win);
  win->n = x->rank - 2;
  int64_t pads[2 * ZN_MAX_RANK], extra[ZN_MAX_RANK], want[ZN_MAX_RANK];
  ZN_TRY(zn_ev_attr_ints(e, "strides", win->n, 1, win->s));
  ZN_TRY(zn_ev_attr_ints(e, "dilations", win->n, 1, win->d));
  ZN_TRY(zn_ev_attr_ints(e, "pads", 2 * win->n, 0, pads));
  ZN_TRY(zn_ev_attr_ints(e, "output_padding", win->n, 0, extra));
  uint32_t count = 0;
  const int64_t *shape = zn_node_ints(e->n, "output_shape", &count);
  const char *mode = zn_node_str(e->n, "auto_pad");
  bool same = strncmp(mode, "SAME", 4) == 0;
  for (uint32_t d = 0; d < win->n; d++) {
    win->in[d] = x->dims[d + 2];
    win->k[d] = w->dims[d + 2];
    int64_t full = win->s[d] * (win->in[d] - 1) + extra[d] + (win->k[d] - 1) * win->d[d] + 1;
    if (count || same) {
      want[d] = count ? shape[count - win->n + d] : win->in[d] * win->s[d];
      int64_t total = full - want[d];
      if (total < 0) total = 0;
      bool upper = strcmp(mode, "SAME_UPPER") == 0;
      win->lo[d] = upper ? total / 2 : total - total / 2;
      win->out[d] = want[d];
    } else {
      bool valid = strcmp(mode, "VALID") == 0;
      win->lo[d] = valid ? 0 : pads[d];
      win->out[d] = full - win->lo[d] - (valid ? 0 : pads[d + win->n]);
    }
    if (win->out[d] < 0)
      return zn_ev_fail(e, "output extent %lld is negative", (long long)win->out[d]);
  }
  return ZN_OK;
}

zn_status zn_eval_convtranspose(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *w = e->in[1], *b = zn_ev_in(e, 2);
  int64_t group = zn_node_int(e->n, "group");
  if (x->rank < 3 || w->rank != x->rank || w->dims[0] != x->dims[1] || group < 1 ||
      x->dims[1] % group)
    return zn_ev_fail(e, "X, W and group do not fit together");
  zn_ev_win win;
  ZN_TRY(deconv_shape(e, x, w, &win));
  int64_t dims[ZN_MAX_RANK] = {x->dims[0], w->dims[1] * group};
  memcpy(dims + 2, win.out, win.n * sizeof *dims);
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, dims));
  deconv c = {.e = e,
              .x = x,
              .w = w,
              .b = b,
              .win = &win,
              .group = (uint64_t)group,
              .M = (uint64_t)dims[1],
              .y = e->out[0].u.f};
  c.kk = zn_ev_count(win.n, win.k);
  c.in_n = zn_ev_count(win.n, win.in);
  c.out_n = zn_ev_count(win.n, win.out);
  double work = (double)w->count * (double)c.in_n * (double)x->dims[0];
  if (c.out_n) zn_ev_parallel((uint64_t)dims[0] * c.M, work, deconv_part, &c);
  return ZN_OK;
}
