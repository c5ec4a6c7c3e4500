/* Resize (19) in every mode. Along each axis an output position is a weighted sum of a few input positions; for sizes known
 * at compile time both are tables of constants, made here once in double precision, so that all modes and coordinate
 * transformations run through one loop nest. */
#include <math.h>
#include <string.h>

#include "codegen/lower/lower.h"

typedef struct axis_table {
  bool resized;
  int taps;
  zn_loc index, weight; /* [out][taps]: i32 positions (clamped), weights in the compute type */
} axis_table;

typedef struct resizer {
  zn_nid n;
  const zn_node *node;
  const char *mode, *coord, *nearest;
  double a;
  bool antialias, exclude;
} resizer;

static double original(const resizer *r, double x, double scale, double in, double out, const double *roi) {
  if (!strcmp(r->coord, "asymmetric")) return x / scale;
  if (!strcmp(r->coord, "align_corners")) { /* the resized length before it was rounded down */
    const double whole = fabs(scale * in - out) < 1e-5 * out ? out : scale * in;
    return out == 1 ? 0 : x * (in - 1) / (whole - 1);
  }
  if (!strcmp(r->coord, "pytorch_half_pixel")) return out == 1 ? 0 : (x + 0.5) / scale - 0.5;
  if (!strcmp(r->coord, "tf_half_pixel_for_nn")) return (x + 0.5) / scale;
  if (!strcmp(r->coord, "tf_crop_and_resize")) {
    if (out == 1) return 0.5 * (roi[0] + roi[1]) * (in - 1);
    return roi[0] * (in - 1) + x * (roi[1] - roi[0]) * (in - 1) / (out - 1);
  }
  if (!strcmp(r->coord, "half_pixel_symmetric")) {
    double adjustment = out / (scale * in), centre = in / 2;
    return centre * (1 - adjustment) + (x + 0.5) / scale - 0.5;
  }
  return (x + 0.5) / scale - 0.5;
}

static double cubic(double x, double a) {
  x = fabs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}

static double nearest_index(const resizer *r, double x) {
  if (!strcmp(r->nearest, "floor")) return floor(x);
  if (!strcmp(r->nearest, "ceil")) return ceil(x);
  if (!strcmp(r->nearest, "round_prefer_ceil")) return floor(x + 0.5);
  return ceil(x - 0.5);
}

static int tap_count(const resizer *r, double scale) {
  if (r->mode[0] == 'n') return 1;
  int reach = r->mode[0] == 'c' ? 2 : 1; /* pixels on each side */
  if (r->antialias && scale < 1) return 2 - 2 * (int)(floor(-reach / scale) + 1);
  return 2 * reach;
}

/* Positions and weights of one output coordinate; base pixel left of x, ratio in (0, 1]. */
static void taps_of(const resizer *r, double x, double scale, int64_t in, int taps, int32_t *idx,
                    double *w) {
  if (r->mode[0] == 'n') {
    idx[0] = (int32_t)fmin(fmax(nearest_index(r, x), 0), (double)(in - 1));
    w[0] = 1;
    return;
  }
  double base = ceil(x) - 1, ratio = x - base, sum = 0;
  double stretch = r->antialias && scale < 1 ? scale : 1;
  int start = 1 - taps / 2;
  for (int t = 0; t < taps; t++) {
    double pos = base + start + t, arg = (start + t - ratio) * stretch;
    w[t] = r->mode[0] == 'c' ? cubic(arg, r->a) : fmax(0, 1 - fabs(arg));
    if (r->exclude && (pos < 0 || pos >= (double)in)) w[t] = 0;
    idx[t] = (int32_t)fmin(fmax(pos, 0), (double)(in - 1));
    sum += w[t];
  }
  if (r->exclude || r->antialias)
    for (int t = 0; t < taps; t++) w[t] /= sum;
}

static void build_axis(zn_lw *lw, const resizer *r, zn_dtype ct, int64_t in, int64_t out, double scale,
                       const double *roi, double extrapolate, axis_table *table) {
  int taps = tap_count(r, scale);
  bool crop = !strcmp(r->coord, "tf_crop_and_resize");
  int32_t *idx = ZN_ARRAY(&lw->ctx->graph, int32_t, out * taps);
  char *w = zn_arena_array(&lw->ctx->graph, (size_t)(out * taps), zn_dtype_bytes(ct));
  double *wt = ZN_ARRAY(&lw->ctx->tmp, double, taps);
  for (int64_t o = 0; o < out; o++) {
    double x = original(r, (double)o, scale, (double)in, (double)out, roi);
    taps_of(r, x, scale, in, taps, idx + o * taps, wt);
    bool outside = crop && (x < 0 || x > (double)(in - 1));
    for (int t = 0; t < taps; t++) zn_store_f64(ct, w, (uint64_t)(o * taps + t), outside ? NAN : wt[t]);
  }
  (void)extrapolate;
  table->resized = true;
  table->taps = taps;
  table->index = zn_lw_const(lw, "resize_index", ZN_I32, (uint64_t)(out * taps), idx);
  table->weight = zn_lw_const(lw, "resize_weight", ct, (uint64_t)(out * taps), w);
}

/* Scale of each axis of x as the operator's inputs give it. */
static zn_status read_scales(zn_lw *lw, const resizer *r, const int64_t *in, const int64_t *out, int rank,
                             double *scale) {
  const zn_htensor *scales = zn_lw_cst(lw, zn_node_in(r->node, 2));
  uint32_t na;
  const int64_t *axes = zn_node_ints(r->node, "axes", &na);
  for (int d = 0; d < rank; d++) scale[d] = (double)out[d] / (double)in[d];
  if (scales && zn_htensor_count(scales)) {
    for (uint32_t i = 0; i < zn_htensor_count(scales); i++) {
      int64_t d = na ? axes[i] : i;
      scale[d < 0 ? d + rank : d] = zn_load_f64(scales->dtype, scales->data, i);
    }
    return ZN_OK;
  }
  const char *policy = zn_node_str(r->node, "keep_aspect_ratio_policy");
  int64_t sizes[ZN_MAX_RANK];
  uint32_t ns;
  zn_vid sv = zn_node_in(r->node, 3);
  if (!strcmp(policy, "stretch") || !sv || !zn_value_i64s(lw->g, sv, sizes, ZN_MAX_RANK, &ns)) return ZN_OK;
  double s = policy[4] == 'l' ? INFINITY : 0; /* not_larger, not_smaller */
  for (uint32_t i = 0; i < ns; i++) {
    int64_t d = na ? axes[i] : i;
    double q = (double)sizes[i] / (double)in[d < 0 ? d + rank : d];
    s = policy[4] == 'l' ? fmin(s, q) : fmax(s, q);
  }
  for (uint32_t i = 0; i < ns; i++) {
    int64_t d = na ? axes[i] : i;
    scale[d < 0 ? d + rank : d] = s;
  }
  return ZN_OK;
}

static void read_roi(zn_lw *lw, const resizer *r, int rank, double roi[][2]) {
  const zn_htensor *t = zn_lw_cst(lw, zn_node_in(r->node, 1));
  uint32_t na;
  const int64_t *axes = zn_node_ints(r->node, "axes", &na);
  for (int d = 0; d < rank; d++) roi[d][0] = 0, roi[d][1] = 1;
  if (!t) return;
  uint64_t n = zn_htensor_count(t) / 2;
  for (uint64_t i = 0; i < n; i++) {
    int64_t d = na ? axes[i] : (int64_t)i;
    if (d < 0) d += rank;
    roi[d][0] = zn_load_f64(t->dtype, t->data, i);
    roi[d][1] = zn_load_f64(t->dtype, t->data, n + i);
  }
}

/* The region is computed at run time (tf_crop_and_resize): a small kernel fills the tables, linear or nearest. */
static void fill_axis(zn_lw *lw, const resizer *r, int d, uint32_t roi_at, uint32_t roi_len, zn_dtype ct,
                      axis_table *table) {
  zn_exprs *ex = lw->ex;
  const zn_node *node = zn_lw_node(lw, r->n);
  zn_vid roi = node->in[1];
  zn_expr in = zn_lw_dim(lw, node->in[0], d), out = zn_lw_dim(lw, node->out[0], d);
  *table = (axis_table){.resized = true, .taps = r->mode[0] == 'n' ? 1 : 2};
  zn_expr cells = zn_ex_muli(ex, out, table->taps);
  table->index = zn_lw_scratch(lw, zn_ex_muli(ex, cells, 4));
  table->weight = zn_lw_scratch(lw, zn_ex_muli(ex, cells, zn_dtype_bytes(ct)));
  zn_lw_kernel(lw, r->n, "resize_region");
  zn_kb *b = &lw->kb;
  zn_expr ends[2] = {zn_ex_const(ex, roi_at), zn_ex_const(ex, roi_at + roi_len)};
  zn_kref lo = zn_kb_cvt(b, zn_lw_load(lw, roi, &ends[0]), ZN_F64);
  zn_kref hi = zn_kb_cvt(b, zn_lw_load(lw, roi, &ends[1]), ZN_F64);
  zn_expr o = zn_lw_for(lw, out, ZN_FOR_SERIAL, 0);
  zn_kref top = zn_kb_cvt(b, zn_lw_ix(lw, zn_ex_addi(ex, in, -1)), ZN_F64), zero = zn_kb_float(b, ZN_F64, 0);
  zn_kref steps = zn_kb_cvt(b, zn_lw_ix(lw, zn_ex_addi(ex, out, -1)), ZN_F64), one = zn_kb_float(b, ZN_F64, 1);
  zn_kref pos = zn_kb_cvt(b, zn_lw_ix(lw, o), ZN_F64), half = zn_kb_float(b, ZN_F64, 0.5);
  zn_kref first = zn_kb_bin(b, ZN_K_Mul, lo, top), span = zn_kb_bin(b, ZN_K_Sub, hi, lo);
  span = zn_kb_bin(b, ZN_K_Mul, span, top);
  zn_kref single = zn_kb_cmp(b, ZN_K_Eq, steps, zero), parts = zn_kb_select(b, single, one, steps);
  zn_kref share = zn_kb_bin(b, ZN_K_Div, pos, parts);
  share = zn_kb_select(b, single, half, share); /* one position: the middle of the region */
  zn_kref x = zn_kb_bin(b, ZN_K_Add, first, zn_kb_bin(b, ZN_K_Mul, span, share));
  zn_kref below = zn_kb_cmp(b, ZN_K_Lt, x, zero), above = zn_kb_cmp(b, ZN_K_Gt, x, top);
  zn_kref outside = zn_kb_bin(b, ZN_K_Or, below, above), nan = zn_kb_float(b, ZN_F64, (double)NAN);
  zn_kref base = zn_kb_bin(b, ZN_K_Sub, zn_kb_un(b, ZN_K_Ceil, x), one);
  zn_kref ratio = zn_kb_bin(b, ZN_K_Sub, x, base);
  if (table->taps == 1) {
    bool up = !strcmp(r->nearest, "round_prefer_ceil"), down = !strcmp(r->nearest, "round_prefer_floor");
    zn_kref shifted = up ? zn_kb_bin(b, ZN_K_Add, x, half) : down ? zn_kb_bin(b, ZN_K_Sub, x, half) : x;
    bool floors = up || !strcmp(r->nearest, "floor");
    base = zn_kb_un(b, floors ? ZN_K_Floor : ZN_K_Ceil, shifted);
  }
  zn_kref left = zn_kb_bin(b, ZN_K_Sub, one, ratio);
  for (int t = 0; t < table->taps; t++) {
    zn_kref p = t ? zn_kb_bin(b, ZN_K_Add, base, one) : base, w = t ? ratio : left;
    if (table->taps == 1) w = one;
    w = zn_kb_select(b, outside, nan, w);
    p = zn_kb_bin(b, ZN_K_Max, p, zero);
    p = zn_kb_bin(b, ZN_K_Min, p, top);
    zn_expr cell = zn_ex_addi(ex, zn_ex_muli(ex, o, table->taps), t);
    zn_kref ip = zn_lw_ptr_loc(lw, table->index, ZN_KP_OUT, ZN_I32);
    zn_lw_store_at(lw, ip, ZN_I32, cell, zn_kb_cvt(b, p, ZN_I32));
    zn_kref wp = zn_lw_ptr_loc(lw, table->weight, ZN_KP_OUT, ct);
    zn_lw_store_at(lw, wp, ct, cell, zn_kb_cvt(b, w, ct));
  }
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* A region of run-time values: every axis it names goes through tables filled at run time. */
static zn_status fill_axes(zn_lw *lw, const resizer *r, zn_dtype ct, int rank, axis_table *axes) {
  uint32_t na;
  const int64_t *list = zn_node_ints(r->node, "axes", &na);
  if (r->mode[0] == 'c' || r->antialias || r->exclude)
    return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, r->node),
                   "a region computed at run time needs mode linear or nearest, without antialias");
  uint32_t n = list && na ? na : (uint32_t)rank;
  for (uint32_t i = 0; i < n; i++) {
    int64_t d = list && na ? list[i] : (int64_t)i;
    d = d < 0 ? d + rank : d;
    fill_axis(lw, r, (int)d, i, n, ct, &axes[d]);
  }
  return ZN_OK;
}

static zn_kref table_at(zn_lw *lw, zn_loc loc, zn_dtype t, const axis_table *a, zn_expr o, zn_expr tap) {
  zn_kref p = zn_lw_ptr_loc(lw, loc, ZN_KP_IN, t);
  zn_expr off = zn_ex_add(lw->ex, zn_ex_muli(lw->ex, o, a->taps), tap);
  return zn_lw_load_at(lw, p, t, off);
}

static void emit_loops(zn_lw *lw, zn_nid n, const axis_table *axes, zn_dtype ct, bool nearest, bool crop,
                       double extrapolate) {
  zn_kb *b = &lw->kb;
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid x = node->in[0], y = node->out[0];
  zn_type tx = *zn_lw_type(lw, x), ty = *zn_lw_type(lw, y);
  int rank = ty.rank, loops = 0;
  zn_expr idx[ZN_MAX_RANK], at[ZN_MAX_RANK];
  zn_lw_kernel(lw, n, "resize");
  int outer = zn_lw_over(lw, y, idx);
  zn_dtype vt = nearest && !crop ? zn_lw_ctype((zn_dtype)tx.dtype) : ct;
  zn_kref zero = zn_is_float(vt) ? zn_kb_float(b, vt, 0) : zn_kb_int(b, vt, 0);
  zn_kref acc = zn_kb_var(b, zero), weight = 0;
  for (int d = 0; d < rank; d++) {
    at[d] = idx[d];
    if (!axes[d].resized) continue;
    zn_expr t = zn_lw_for(lw, zn_ex_const(lw->ex, axes[d].taps), ZN_FOR_SERIAL, 0);
    loops++;
    zn_kref i = zn_kb_cvt(b, table_at(lw, axes[d].index, ZN_I32, &axes[d], idx[d], t), ZN_IDX);
    at[d] = zn_lw_as_expr(lw, i, tx.dims[d]);
    if (nearest && !crop) continue;
    zn_kref w = table_at(lw, axes[d].weight, ct, &axes[d], idx[d], t);
    weight = weight ? zn_kb_bin(b, ZN_K_Mul, weight, w) : w;
  }
  zn_kref v = zn_lw_load(lw, x, at), old = zn_kb_get(b, acc);
  if (weight) {
    if (zn_lw_kdtype(lw, v) != ct) v = zn_kb_cvt(b, v, ct);
    zn_kb_set(b, acc, zn_kb_fma(b, v, weight, old));
  } else {
    zn_kb_set(b, acc, v);
  }
  while (loops-- > 0) zn_lw_end(lw);
  zn_kref r = zn_kb_get(b, acc);
  if (crop) { /* NaN weights mark positions outside the region */
    zn_kref in = zn_kb_cmp(b, ZN_K_Eq, r, r), e = zn_kb_float(b, ct, extrapolate);
    r = zn_kb_select(b, in, r, e);
  }
  if (!zn_is_float(zn_lw_ctype((zn_dtype)ty.dtype)) && vt == ct) r = zn_kb_un(b, ZN_K_Rint, r);
  zn_lw_emit(lw, y, idx, r);
  while (outer-- > 0) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

static zn_status resize_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  resizer r = {.n = n, .node = node, .mode = zn_node_str(node, "mode"),
               .coord = zn_node_str(node, "coordinate_transformation_mode"),
               .nearest = zn_node_str(node, "nearest_mode"), .a = zn_node_float(node, "cubic_coeff_a"),
               .antialias = zn_node_int(node, "antialias") != 0,
               .exclude = zn_node_int(node, "exclude_outside") != 0};
  double extrapolate = zn_node_float(node, "extrapolation_value");
  const zn_type *tx = zn_lw_type(lw, node->in[0]), *ty = zn_lw_type(lw, node->out[0]);
  int64_t in[ZN_MAX_RANK] = {0}, out[ZN_MAX_RANK] = {0};
  double scale[ZN_MAX_RANK], roi[ZN_MAX_RANK][2];
  int rank = tx->rank;
  bool crop = !strcmp(r.coord, "tf_crop_and_resize");
  for (int d = 0; d < rank; d++) {
    bool known = zn_ex_is_const(lw->ex, tx->dims[d], &in[d]) && zn_ex_is_const(lw->ex, ty->dims[d], &out[d]);
    if (known) continue;
    if (tx->dims[d] != ty->dims[d])
      return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, node),
                     "axis %d has a size that is only known at run time; fix it with --dim or --shape", d);
    in[d] = out[d] = 1; /* an axis of any size that keeps it */
  }
  ZN_TRY(read_scales(lw, &r, in, out, rank, scale));
  read_roi(lw, &r, rank, roi);
  zn_dtype ct = zn_lw_ctype((zn_dtype)tx->dtype) == ZN_F64 ? ZN_F64 : ZN_F32;
  axis_table axes[ZN_MAX_RANK] = {0};
  zn_vid region = zn_node_in(node, 1);
  bool late = crop && region && !zn_lw_cst(lw, region);
  if (late) ZN_TRY(fill_axes(lw, &r, ct, rank, axes));
  for (int d = 0; d < rank && !late; d++) {
    bool same = in[d] == out[d] && (scale[d] == 1 || tx->dims[d] == ty->dims[d]) && !crop;
    if (crop && roi[d][0] == 0 && roi[d][1] == 1 && in[d] == out[d]) same = true;
    if (!same) build_axis(lw, &r, ct, in[d], out[d], scale[d], roi[d], extrapolate, &axes[d]);
  }
  emit_loops(lw, n, axes, ct, r.mode[0] == 'n', crop, extrapolate);
  return ZN_OK;
}
const zn_lower zn_lower_resize = {NULL, resize_kernel};
