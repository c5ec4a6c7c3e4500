/* RoiAlign and MaxRoiPool: each output element averages, or takes the largest of, what lies in its part of a region. */
#include <math.h>
#include <string.h>

#include "codegen/lower/real.h"
#include "codegen/lower/sortkeys.h"

typedef struct roi {
  zn_vid x;
  zn_expr item, channel;
  zn_kref height, width; /* f64 */
  bool max;
} roi;

static zn_kref pixel(zn_lw *lw, const roi *r, zn_kref y, zn_kref x) { /* f64 positions inside */
  zn_kb *b = &lw->kb;
  zn_expr h = zn_lw_dim(lw, r->x, 2), w = zn_lw_dim(lw, r->x, 3);
  zn_expr at[4] = {r->item, r->channel};
  at[2] = zn_lw_as_expr(lw, zn_kb_cvt(b, y, ZN_IDX), h);
  at[3] = zn_lw_as_expr(lw, zn_kb_cvt(b, x, ZN_IDX), w);
  return zn_r_load(lw, r->x, at, ZN_F64);
}

/* Neighbours of a coordinate and their weights: outside [-1, len] none, at the borders the outermost pixel. */
typedef struct neighbours {
  zn_kref low, high, wl, wh, inside;
} neighbours;

static neighbours around(zn_kb *b, zn_kref p, zn_kref len) {
  neighbours n;
  zn_kref least = zn_r_like(b, p, -1), top = zn_r_addc(b, len, -1);
  n.inside = zn_r_within(b, p, least, len);
  p = zn_r_orc(b, n.inside, zn_r_maxc(b, p, 0), 0);
  zn_kref f = zn_r_floor(b, p), last = zn_kb_cmp(b, ZN_K_Ge, f, top);
  n.low = zn_kb_select(b, last, top, f);
  n.high = zn_kb_select(b, last, top, zn_r_addc(b, f, 1));
  p = zn_kb_select(b, last, top, p);
  n.wh = zn_r_sub(b, p, n.low);
  n.wl = zn_r_cop(b, ZN_K_Sub, 1, n.wh);
  return n;
}

static zn_kref bilinear(zn_lw *lw, const roi *r, zn_kref y, zn_kref x) {
  zn_kb *b = &lw->kb;
  neighbours v = around(b, y, r->height), h = around(b, x, r->width);
  zn_kref inside = zn_r_and(b, v.inside, h.inside), acc = 0;
  for (int k = 0; k < 4; k++) {
    zn_kref w = zn_r_mul(b, k & 2 ? v.wh : v.wl, k & 1 ? h.wh : h.wl);
    zn_kref p = pixel(lw, r, k & 2 ? v.high : v.low, k & 1 ? h.high : h.low);
    p = zn_r_orc(b, inside, zn_r_mul(b, p, w), 0);
    acc = !acc ? p : zn_kb_bin(b, r->max ? ZN_K_Max : ZN_K_Add, acc, p);
  }
  return acc;
}

/* Samples along one axis of a bin: the attribute, or one per pixel. */
static zn_kref sample_count(zn_kb *b, zn_kref size, int64_t ratio) {
  if (ratio > 0) return zn_kb_float(b, ZN_F64, (double)ratio);
  zn_kref up = zn_kb_un(b, ZN_K_Ceil, zn_kb_cvt(b, zn_kb_cvt(b, size, ZN_F32), ZN_F64));
  up = zn_r_maxc(b, up, 0);
  return zn_r_minc(b, up, 0x1p30);
}

static zn_kref sample_at(zn_kb *b, zn_kref start, zn_kref i, zn_kref size, zn_kref count) {
  zn_kref mid = zn_r_addc(b, zn_kb_cvt(b, i, ZN_F64), 0.5);
  zn_kref off = zn_r_div(b, zn_r_mul(b, mid, size), count);
  return zn_r_add(b, start, off);
}

/* Corner k of region `row`, scaled; first: the column of x1. */
static zn_kref corner(zn_lw *lw, zn_vid rois, zn_expr row, int column, double scale) {
  zn_expr at[2] = {row, zn_ex_const(lw->ex, column)};
  return zn_r_mulc(&lw->kb, zn_r_load(lw, rois, at, ZN_F64), scale);
}

static zn_kref bin_size(zn_kb *b, zn_kref lo, zn_kref hi, bool at_least_one, zn_kref bins) {
  zn_kref size = zn_r_sub(b, hi, lo);
  if (at_least_one) size = zn_r_maxc(b, size, 1);
  return zn_r_div(b, size, bins);
}

static zn_kref bin_start(zn_lw *lw, zn_kref lo, zn_kref size, zn_expr i) {
  zn_kref k = zn_r_of(lw, i, ZN_F64);
  return zn_r_add(&lw->kb, lo, zn_r_mul(&lw->kb, k, size));
}

static zn_status roialign_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_kb *b = &lw->kb;
  zn_vid rois = node->in[1], y = node->out[0];
  const zn_type ty = *zn_lw_type(lw, y);
  bool half = !strcmp(zn_node_str(node, "coordinate_transformation_mode"), "half_pixel");
  double scale = zn_node_float(node, "spatial_scale"), shift = half ? -0.5 : 0;
  int64_t ratio = zn_node_int(node, "sampling_ratio");
  roi r = {.x = node->in[0], .max = !strcmp(zn_node_str(node, "mode"), "max")};
  zn_expr v[4];
  zn_lw_kernel(lw, n, "roi_align");
  zn_lw_grid(lw, 4, ty.dims, v);
  r.item = zn_lw_checked_index(lw, zn_lw_load(lw, zn_lw_node(lw, n)->in[2], v), zn_lw_dim(lw, r.x, 0));
  r.channel = v[1];
  r.height = zn_r_of(lw, zn_lw_dim(lw, r.x, 2), ZN_F64);
  r.width = zn_r_of(lw, zn_lw_dim(lw, r.x, 3), ZN_F64);
  zn_kref c[4];
  for (int k = 0; k < 4; k++) c[k] = zn_r_addc(b, corner(lw, rois, v[0], k, scale), shift);
  zn_kref rows = zn_r_of(lw, ty.dims[2], ZN_F64), cols = zn_r_of(lw, ty.dims[3], ZN_F64);
  zn_kref bh = bin_size(b, c[1], c[3], !half, rows), bw = bin_size(b, c[0], c[2], !half, cols);
  zn_kref y0 = bin_start(lw, c[1], bh, v[2]), x0 = bin_start(lw, c[0], bw, v[3]);
  zn_kref gh = sample_count(b, bh, ratio), gw = sample_count(b, bw, ratio);
  zn_kref acc = zn_kb_var(b, zn_kb_float(b, ZN_F64, r.max ? -(double)INFINITY : 0));
  zn_kref i = zn_s_for(lw, zn_kb_cvt(b, gh, ZN_IDX)), j = zn_s_for(lw, zn_kb_cvt(b, gw, ZN_IDX));
  zn_kref py = sample_at(b, y0, i, bh, gh), px = sample_at(b, x0, j, bw, gw);
  zn_kref s = bilinear(lw, &r, py, px), old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_kb_bin(b, r.max ? ZN_K_Max : ZN_K_Add, s, old));
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kref total = zn_kb_get(b, acc), count = zn_r_mul(b, gh, gw);
  zn_kref some = zn_r_cmpc(b, ZN_K_Gt, count, 0);
  total = r.max ? zn_r_orc(b, some, total, 0) : zn_r_div(b, total, zn_r_maxc(b, count, 1));
  zn_lw_emit(lw, y, v, zn_kb_cvt(b, total, zn_lw_ctype((zn_dtype)ty.dtype)));
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_roialign = {NULL, roialign_kernel};

/* ---- MaxRoiPool ---- */

static zn_kref round_half_away(zn_kb *b, zn_kref x) {
  zn_kref up = zn_r_floor(b, zn_r_addc(b, zn_r_abs(b, x), 0.5));
  return zn_kb_bin(b, ZN_K_CopySign, up, x);
}

/* First and last + 1 pixel of bin i of `bins` between corners lo and hi, inside [0, len]. */
static void pool_range(zn_lw *lw, zn_kref lo, zn_kref hi, zn_expr i, zn_expr bins, zn_expr len, zn_kref *out) {
  zn_kb *b = &lw->kb;
  zn_kref size = zn_r_maxc(b, zn_r_addc(b, zn_r_sub(b, hi, lo), 1), 1), n = zn_r_of(lw, bins, ZN_F64);
  zn_kref each = zn_r_div(b, size, n), k = zn_r_of(lw, i, ZN_F64), k1 = zn_r_addc(b, k, 1);
  zn_kref end[2] = {zn_r_floor(b, zn_r_mul(b, k, each)), 0};
  end[1] = zn_kb_un(b, ZN_K_Ceil, zn_r_mul(b, k1, each));
  zn_kref zero = zn_kb_float(b, ZN_F64, 0), top = zn_r_of(lw, len, ZN_F64);
  for (int e = 0; e < 2; e++) out[e] = zn_kb_cvt(b, zn_r_clamp(b, zn_r_add(b, end[e], lo), zero, top), ZN_IDX);
}

static zn_status maxroipool_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_kb *b = &lw->kb;
  zn_vid x = node->in[0], rois = node->in[1], y = node->out[0];
  const zn_type ty = *zn_lw_type(lw, y);
  double scale = zn_node_float(node, "spatial_scale");
  zn_dtype ct = zn_lw_ctype((zn_dtype)ty.dtype);
  zn_expr v[4], height = zn_lw_dim(lw, x, 2), width = zn_lw_dim(lw, x, 3);
  zn_lw_kernel(lw, n, "roi_max");
  zn_lw_grid(lw, 4, ty.dims, v);
  zn_expr first[2] = {v[0], zn_ex_const(lw->ex, 0)};
  zn_kref which = zn_kb_cvt(b, zn_r_load(lw, rois, first, ZN_F64), ZN_I64);
  zn_expr item = zn_lw_checked_index(lw, which, zn_lw_dim(lw, x, 0));
  zn_kref c[4], h[2], w[2];
  for (int k = 0; k < 4; k++) c[k] = round_half_away(b, corner(lw, rois, v[0], 1 + k, scale));
  pool_range(lw, c[1], c[3], v[2], ty.dims[2], height, h);
  pool_range(lw, c[0], c[2], v[3], ty.dims[3], width, w);
  zn_kref rows = zn_kb_cmp(b, ZN_K_Gt, h[1], h[0]), cols = zn_kb_cmp(b, ZN_K_Gt, w[1], w[0]);
  zn_kref some = zn_r_and(b, rows, cols), low = zn_kb_float(b, ct, -(double)INFINITY);
  zn_kref acc = zn_kb_var(b, zn_r_orc(b, some, low, 0));
  zn_kref i = zn_kb_for(b, h[0], h[1], 1, ZN_FOR_SERIAL, 0), j = zn_kb_for(b, w[0], w[1], 1, ZN_FOR_SERIAL, 0);
  zn_expr at[4] = {item, v[1]};
  at[2] = zn_lw_as_expr(lw, i, height);
  at[3] = zn_lw_as_expr(lw, j, width);
  zn_kref p = zn_lw_load(lw, x, at), old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_kb_bin(b, ZN_K_Max, p, old));
  zn_kb_end(b);
  zn_kb_end(b);
  zn_lw_emit(lw, y, v, zn_kb_get(b, acc));
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_maxroipool = {NULL, maxroipool_kernel};
