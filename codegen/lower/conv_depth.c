/* Depthwise Conv of constant image size: a grid iteration copies one channel's plane into a zero-bordered array on the
 * stack (borders are cleared once per launch), its last axis split into stride phases, and computes from there with the
 * taps written out, so that rows of a register tile share their loads. The last tile of an axis starts earlier instead
 * of being smaller. */
#include <assert.h>

#include "codegen/lower/conv.h"
#include "codegen/lower/gemm.h"

enum { PLANE_MAX = 48 << 10, MAX_TAPS = 25, SLACK = 32 };

typedef struct depth {
  zn_conv *v;
  int64_t h, w, oh, ow, sh, sw, pt, pl, mult;
  int64_t rows, phases, width; /* of the plane; width of one phase */
  int64_t kh, kw, dh, dw;
  unsigned lanes, r, nv;       /* register tile: r rows x nv vectors */
  zn_kref plane;
} depth;

static bool read_sizes(zn_lw *lw, depth *d) {
  const zn_conv *v = d->v;
  const zn_window *w = &v->win;
  zn_exprs *ex = lw->ex;
  int64_t pb, pr;
  if (w->rank != 2 || !zn_ex_is(ex, v->icg, 1) || !zn_ex_is_const(ex, v->ocg, &d->mult)) return false;
  if (!zn_ex_is_const(ex, v->tx.dims[2], &d->h) || !zn_ex_is_const(ex, v->tx.dims[3], &d->w)) return false;
  if (!zn_ex_is_const(ex, v->ty.dims[2], &d->oh) || !zn_ex_is_const(ex, v->ty.dims[3], &d->ow)) return false;
  if (!zn_ex_is_const(ex, w->pad_lo[0], &d->pt) || !zn_ex_is_const(ex, w->pad_lo[1], &d->pl)) return false;
  if (!zn_ex_is_const(ex, w->pad_hi[0], &pb) || !zn_ex_is_const(ex, w->pad_hi[1], &pr)) return false;
  if (d->pt < 0 || d->pl < 0 || pb < 0 || pr < 0 || d->oh < 1 || d->ow < 1) return false;
  d->kh = w->kernel[0], d->kw = w->kernel[1];
  d->sh = w->stride[0], d->sw = w->stride[1];
  d->dh = w->dilation[0], d->dw = w->dilation[1];
  d->phases = d->sw;
  d->rows = d->h + d->pt + pb;
  d->width = (d->w + d->pl + pr + d->sw - 1) / d->sw;
  return true;
}

static zn_expr plane_at(zn_lw *lw, const depth *d, zn_expr row, int64_t phase, zn_expr col) {
  zn_exprs *ex = lw->ex;
  zn_expr at = zn_ex_addi(ex, zn_ex_muli(ex, row, d->phases), phase);
  return zn_ex_add(ex, zn_ex_muli(ex, at, d->width), col);
}

static void clear_plane(zn_lw *lw, const depth *d) {
  int64_t count = d->rows * d->phases * d->width + SLACK;
  zn_expr i = zn_lw_for(lw, zn_ex_const(lw->ex, count), ZN_FOR_VECTOR, 0);
  zn_lw_store_at(lw, d->plane, d->v->ct, i, zn_kb_float(&lw->kb, d->v->ct, 0));
  zn_lw_end(lw);
}

/* Columns first.. of each phase that come from the image. */
static void fill_plane(zn_lw *lw, const depth *d, zn_expr n, zn_expr c) {
  zn_exprs *ex = lw->ex;
  zn_expr row = zn_lw_for(lw, zn_ex_const(ex, d->h), ZN_FOR_SERIAL, 0);
  for (int64_t phase = 0; phase < d->phases; phase++) {
    int64_t first = 0, end = 0;
    while (first * d->phases + phase < d->pl) first++;
    while (end * d->phases + phase < d->pl + d->w) end++;
    if (end <= first) continue;
    zn_expr q = zn_lw_for(lw, zn_ex_const(ex, end - first), ZN_FOR_VECTOR, 0);
    zn_expr col = zn_ex_addi(ex, q, first);
    zn_expr idx[4] = {n, c, row, zn_ex_addi(ex, zn_ex_muli(ex, col, d->phases), phase - d->pl)};
    zn_kref x = zn_lw_load(lw, d->v->x, idx);
    zn_lw_store_at(lw, d->plane, d->v->ct, plane_at(lw, d, zn_ex_addi(ex, row, d->pt), phase, col), x);
    zn_lw_end(lw);
  }
  zn_lw_end(lw);
}

/* min(i * step, extent - step) as a plain variable. */
static zn_expr start_of(zn_lw *lw, zn_expr i, int64_t step, int64_t extent) {
  zn_exprs *ex = lw->ex;
  zn_expr at = zn_ex_muli(ex, i, step);
  if (extent % step == 0) return at;
  zn_expr e = zn_ex_min(ex, at, zn_ex_const(ex, extent - step));
  if (zn_ex_is_const(ex, e, NULL)) return e;
  return zn_lw_as_expr(lw, zn_lw_ix(lw, e), zn_ex_const(ex, extent - step + 1));
}

static void element(zn_lw *lw, const depth *d, zn_expr n, zn_expr g, zn_expr oc, zn_expr oh, zn_expr ow) {
  zn_exprs *ex = lw->ex;
  (void)g;
  zn_kref acc = zn_conv_bias(lw, d->v, oc);
  for (int64_t y = 0; y < d->kh; y++)
    for (int64_t x = 0; x < d->kw; x++) {
      zn_expr widx[4] = {oc, zn_ex_const(ex, 0), zn_ex_const(ex, y), zn_ex_const(ex, x)};
      zn_expr row = zn_ex_addi(ex, zn_ex_muli(ex, oh, d->sh), y * d->dh);
      int64_t step = x * d->dw;
      zn_expr at = plane_at(lw, d, row, step % d->phases, zn_ex_addi(ex, ow, step / d->phases));
      zn_kref k = zn_lw_load(lw, d->v->w, widx);
      acc = zn_mul_add(lw, k, zn_lw_load_at(lw, d->plane, d->v->ct, at), acc);
    }
  zn_expr out[4] = {n, oc, oh, ow};
  zn_lw_emit(lw, d->v->y, out, acc);
}

static void compute(zn_lw *lw, const depth *d, zn_expr n, zn_expr g) {
  zn_exprs *ex = lw->ex;
  zn_expr m = zn_lw_for(lw, zn_ex_const(ex, d->mult), ZN_FOR_SERIAL, 0);
  zn_expr oc = zn_ex_add(ex, zn_ex_muli(ex, g, d->mult), m);
  zn_expr tile = zn_lw_for(lw, zn_ex_const(ex, (d->oh + d->r - 1) / d->r), ZN_FOR_SERIAL, 0);
  zn_expr row = start_of(lw, tile, d->r, d->oh), col;
  int64_t vw = (int64_t)d->nv * d->lanes;
  if (d->ow >= vw) {
    zn_expr t = zn_lw_for(lw, zn_ex_const(ex, (d->ow + vw - 1) / vw), ZN_FOR_SERIAL, 0);
    col = start_of(lw, t, vw, d->ow);
    row = zn_ex_add(ex, row, zn_lw_for(lw, zn_ex_const(ex, d->r), ZN_FOR_UNROLL, d->r));
    zn_expr u = zn_lw_for(lw, zn_ex_const(ex, d->nv), ZN_FOR_UNROLL, d->nv);
    zn_expr l = zn_lw_for(lw, zn_ex_const(ex, d->lanes), ZN_FOR_VECTOR, d->lanes);
    col = zn_ex_add(ex, col, zn_ex_add(ex, zn_ex_muli(ex, u, d->lanes), l));
    element(lw, d, n, g, oc, row, col);
    for (int i = 0; i < 3; i++) zn_lw_end(lw);
  } else {
    row = zn_ex_add(ex, row, zn_lw_for(lw, zn_ex_const(ex, d->r), ZN_FOR_UNROLL, d->r));
    col = zn_lw_for(lw, zn_ex_const(ex, d->ow), ZN_FOR_VECTOR, d->lanes);
    element(lw, d, n, g, oc, row, col);
    zn_lw_end(lw);
  }
  for (int i = 0; i < 3; i++) zn_lw_end(lw);
}

bool zn_conv_depth(zn_lw *lw, zn_conv *v) {
  depth d = {.v = v, .lanes = zn_lw_lanes(lw, v->ct)};
  if (!zn_lw_cst(lw, v->w) || !zn_is_float(v->ct) || v->xt != v->ct || v->zx || v->zw || v->sy) return false;
  if (d.lanes < 2 || !read_sizes(lw, &d) || d.mult > 8 || v->taps > MAX_TAPS) return false;
  int64_t count = d.rows * d.phases * d.width + SLACK;
  if (count > PLANE_MAX) return false;
  d.nv = d.ow >= 2 * (int64_t)d.lanes ? 2 : 1;
  int64_t best = INT64_MAX;
  for (unsigned r = d.nv == 2 ? 4 : 7; r >= 2; r--) {
    int64_t cost = (d.oh + r - 1) / r * (2 * r + 1);
    if (r <= d.oh && cost < best) best = cost, d.r = r;
  }
  if (!d.r) d.r = 1;
  zn_lw_kernel(lw, v->n, "conv_depth");
  d.plane = zn_kb_alloc(&lw->kb, v->ct, (uint64_t)count);
  clear_plane(lw, &d);
  zn_expr ext[2] = {v->ty.dims[0], v->group}, var[2];
  zn_lw_grid(lw, 2, ext, var);
  fill_plane(lw, &d, var[0], var[1]);
  compute(lw, &d, var[0], var[1]);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return true;
}
