/* Resize (19) in every mode. Along each axis an output position is a weighted sum of a few input positions; for sizes known
 * at compile time both are tables of constants, made here once in double precision, so that all modes and coordinate
 * transformations run through one loop nest. */
#include "codegen/lower/resize.h"

#include <math.h>
#include <string.h>

static double original(const zn_resizer *r, double x, double scale, double in, double out, const double *roi) {
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

static double nearest_index(const zn_resizer *r, double x) {
  if (!strcmp(r->nearest, "floor")) return floor(x);
  if (!strcmp(r->nearest, "ceil")) return ceil(x);
  if (!strcmp(r->nearest, "round_prefer_ceil")) return floor(x + 0.5);
  return ceil(x - 0.5);
}

static int tap_count(const zn_resizer *r, double scale) {
  if (r->mode[0] == 'n') return 1;
  int reach = r->mode[0] == 'c' ? 2 : 1; /* pixels on each side */
  if (r->antialias && scale < 1) return 2 - 2 * (int)(floor(-reach / scale) + 1);
  return 2 * reach;
}

/* Positions and weights of one output coordinate; base pixel left of x, ratio in (0, 1]. */
static void taps_of(const zn_resizer *r, double x, double scale, int64_t in, int taps, int32_t *idx,
                    double *w) {
  if (r->mode[0] == 'n') { /* a decision, hence taken on the position as float32, as the operator's scales are */
    idx[0] = (int32_t)fmin(fmax(nearest_index(r, (double)(float)x), 0), (double)(in - 1));
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

static void build_axis(zn_lw *lw, const zn_resizer *r, zn_dtype ct, int64_t in, int64_t out, double scale,
                       const double *roi, zn_resize_axis *table) {
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
  table->resized = true;
  table->taps = zn_ex_const(lw->ex, taps);
  table->index = zn_lw_const(lw, "resize_index", ZN_I32, (uint64_t)(out * taps), idx);
  table->weight = zn_lw_const(lw, "resize_weight", ct, (uint64_t)(out * taps), w);
}

/* Scale of each axis of x as the operator's inputs give it. */
static zn_status read_scales(zn_lw *lw, const zn_resizer *r, const int64_t *in, const int64_t *out, int rank,
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

static void read_roi(zn_lw *lw, const zn_resizer *r, int rank, double roi[][2]) {
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

static zn_kref table_at(zn_lw *lw, zn_loc loc, zn_dtype t, const zn_resize_axis *a, zn_expr o, zn_expr tap) {
  zn_kref p = zn_lw_ptr_loc(lw, loc, ZN_KP_IN, t);
  zn_expr off = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, o, a->taps), tap);
  return zn_lw_load_at(lw, p, t, off);
}

zn_expr zn_resize_position(zn_lw *lw, const zn_resize_axis *a, zn_expr o, zn_expr tap, zn_expr extent) {
  return zn_lw_as_expr(lw, zn_kb_cvt(&lw->kb, table_at(lw, a->index, ZN_I32, a, o, tap), ZN_IDX), extent);
}

zn_kref zn_resize_weight(zn_lw *lw, const zn_resize_axis *a, zn_dtype ct, zn_expr o, zn_expr tap) {
  return table_at(lw, a->weight, ct, a, o, tap);
}

zn_expr zn_resize_open_taps(zn_lw *lw, const zn_resize_axis *a, zn_dtype ct, zn_expr o, zn_expr extent, zn_kref *weight) {
  const zn_expr tap = zn_lw_for(lw, a->taps, ZN_FOR_SERIAL, 0), at = zn_resize_position(lw, a, o, tap, extent);
  if (!weight) return at;
  zn_kref w = zn_resize_weight(lw, a, ct, o, tap);
  *weight = *weight ? zn_kb_bin(&lw->kb, ZN_K_Mul, *weight, w) : w;
  return at;
}

/* To the nearest integer, of two the even one; rounding noise of the sum does not move a result off the middle. */
static zn_kref whole(zn_kb *b, zn_dtype t, zn_kref x) {
  if (t == ZN_F64) {
    x = zn_kb_bin(b, ZN_K_Mul, x, zn_kb_float(b, t, 4096));
    x = zn_kb_un(b, ZN_K_Rint, x);
    x = zn_kb_bin(b, ZN_K_Mul, x, zn_kb_float(b, t, 1.0 / 4096));
  }
  return zn_kb_un(b, ZN_K_Rint, x);
}

/* Elements that can only be moved. */
static bool only_moves(zn_dtype t) { return t == ZN_STR || t == ZN_C64 || t == ZN_C128; }

static void emit_loops(zn_lw *lw, zn_nid n, const zn_resize_axis *axes, zn_dtype ct, bool nearest, bool crop,
                       double extrapolate) {
  zn_kb *b = &lw->kb;
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid x = node->in[0], y = node->out[0];
  zn_type tx = *zn_lw_type(lw, x), ty = *zn_lw_type(lw, y);
  int rank = ty.rank, loops = 0;
  zn_expr idx[ZN_MAX_RANK], at[ZN_MAX_RANK];
  zn_lw_kernel(lw, n, "resize");
  int outer = zn_lw_over(lw, y, 1, idx);
  zn_dtype vt = nearest && !crop ? zn_lw_ctype((zn_dtype)tx.dtype) : ct;
  const bool moves = only_moves((zn_dtype)tx.dtype);
  if (moves) vt = zn_lw_ctype((zn_dtype)tx.dtype);
  zn_kref zero = zn_lw_zero(lw, vt);
  zn_kref acc = zn_kb_var(b, zero), weight = 0;
  bool late = false;
  for (int d = 0; d < rank; d++) {
    at[d] = idx[d];
    if (!axes[d].resized) continue;
    at[d] = zn_resize_open_taps(lw, &axes[d], ct, idx[d], tx.dims[d], nearest && !crop ? NULL : &weight);
    loops++;
    late |= axes[d].index.kind == ZN_LOC_WS;
  }
  zn_kref v = zn_lw_load(lw, x, at), old = zn_kb_get(b, acc);
  if (moves) { /* a NaN weight: outside of the region */
    zn_kref in = weight ? zn_kb_cmp(b, ZN_K_Eq, weight, weight) : 0;
    zn_kb_set(b, acc, in ? zn_kb_select(b, in, v, zero) : v);
  } else if (weight) {
    if (zn_lw_kdtype(lw, v) != ct) v = zn_kb_cvt(b, v, ct);
    if (late) { /* positions with weight 0 do not count, whatever they hold */
      zn_kref none = zn_kb_cmp(b, ZN_K_Eq, weight, zn_kb_float(b, ct, 0));
      v = zn_kb_select(b, none, zn_kb_float(b, ct, 0), v);
    }
    zn_kb_set(b, acc, zn_kb_fma(b, v, weight, old));
  } else {
    zn_kb_set(b, acc, zn_kb_cvt(b, v, vt)); /* no axis changes its size */
  }
  while (loops-- > 0) zn_lw_end(lw);
  zn_kref r = zn_kb_get(b, acc);
  if (crop && !moves) { /* NaN weights mark positions outside the region */
    zn_kref in = zn_kb_cmp(b, ZN_K_Eq, r, r), e = zn_kb_float(b, ct, extrapolate);
    r = zn_kb_select(b, in, r, e);
  }
  if (!moves && !zn_is_float(zn_lw_ctype((zn_dtype)ty.dtype)) && vt == ct) r = whole(b, ct, r);
  zn_lw_emit(lw, y, idx, r);
  while (outer-- > 0) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* Everything about axis d that tables of constants need is known. */
static bool is_static(zn_lw *lw, const zn_resizer *r, int d, int64_t *in, int64_t *out) {
  const zn_node *node = r->node;
  if (!zn_ex_is_const(lw->ex, zn_lw_dim(lw, node->in[0], d), in)) return false;
  if (!zn_ex_is_const(lw->ex, zn_lw_dim(lw, node->out[0], d), out)) return false;
  zn_vid region = zn_node_in(node, 1), scales = zn_node_in(node, 2), sizes = zn_node_in(node, 3);
  if (r->crop && region && !zn_lw_cst(lw, region)) return false;
  if (scales && zn_ex_is(lw->ex, zn_type_count(lw->ex, zn_lw_type(lw, scales)), 0)) scales = 0;
  if (scales && !zn_lw_cst(lw, scales)) return false;
  int64_t k[ZN_MAX_RANK];
  uint32_t n;
  bool ratio = !scales && strcmp(zn_node_str(node, "keep_aspect_ratio_policy"), "stretch") != 0;
  return !ratio || !sizes || zn_value_i64s(lw->g, sizes, k, ZN_MAX_RANK, &n);
}

/* The same extent and a scale of 1: nothing to do along this axis. */
static bool keeps(zn_lw *lw, const zn_resizer *r, int d, int64_t entry) {
  if (zn_lw_dim(lw, r->node->in[0], d) != zn_lw_dim(lw, r->node->out[0], d)) return false;
  if (entry < 0) return true;
  const zn_htensor *scales = zn_lw_cst(lw, zn_node_in(r->node, 2));
  return scales && (int64_t)zn_htensor_count(scales) > entry && !r->crop &&
         zn_load_f64(scales->dtype, scales->data, (uint64_t)entry) == 1;
}

static zn_status make_tables(zn_lw *lw, const zn_resizer *r, zn_resize_axis *axes) {
  const zn_node *node = r->node;
  const zn_type *tx = zn_lw_type(lw, node->in[0]);
  int rank = tx->rank;
  int64_t in[ZN_MAX_RANK], out[ZN_MAX_RANK], entry[ZN_MAX_RANK];
  double scale[ZN_MAX_RANK], roi[ZN_MAX_RANK][2];
  bool late[ZN_MAX_RANK];
  uint32_t na;
  const int64_t *list = zn_node_ints(node, "axes", &na);
  for (int d = 0; d < rank; d++) entry[d] = list && na ? -1 : d;
  for (uint32_t i = 0; list && i < na; i++) entry[list[i] < 0 ? list[i] + rank : list[i]] = i;
  for (int d = 0; d < rank; d++) {
    late[d] = !is_static(lw, r, d, &in[d], &out[d]);
    if (late[d]) in[d] = out[d] = 1;
  }
  ZN_TRY(read_scales(lw, r, in, out, rank, scale));
  read_roi(lw, r, rank, roi);
  for (int d = 0; d < rank; d++) {
    if (late[d]) {
      uint32_t n = list && na ? na : (uint32_t)rank;
      if (!keeps(lw, r, d, entry[d])) zn_resize_fill(lw, r, d, (uint32_t)entry[d], n, &axes[d]);
      continue;
    }
    bool same = in[d] == out[d] && scale[d] == 1 && (!r->crop || (roi[d][0] == 0 && roi[d][1] == 1));
    if (!same) build_axis(lw, r, r->ct, in[d], out[d], scale[d], roi[d], &axes[d]);
  }
  return ZN_OK;
}

static zn_status resize_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_resizer r = {.n = n, .node = node, .mode = zn_node_str(node, "mode"),
                  .coord = zn_node_str(node, "coordinate_transformation_mode"),
                  .nearest = zn_node_str(node, "nearest_mode"), .a = zn_node_float(node, "cubic_coeff_a"),
                  .antialias = zn_node_int(node, "antialias") != 0,
                  .exclude = zn_node_int(node, "exclude_outside") != 0};
  r.crop = !strcmp(r.coord, "tf_crop_and_resize");
  /* whole numbers: sums exact enough that rounding them is the same decision everywhere */
  bool narrow = zn_is_float((zn_dtype)zn_lw_type(lw, node->in[0])->dtype) || r.mode[0] == 'n' || !lw->caps->f64_native;
  r.ct = narrow && zn_lw_ctype((zn_dtype)zn_lw_type(lw, node->in[0])->dtype) != ZN_F64 ? ZN_F32 : ZN_F64;
  zn_resize_axis axes[ZN_MAX_RANK] = {0};
  ZN_TRY(make_tables(lw, &r, axes));
  if (zn_resize_by_lines(lw, &r, axes)) return ZN_OK;
  emit_loops(lw, n, axes, r.ct, r.mode[0] == 'n', r.crop, zn_node_float(node, "extrapolation_value"));
  return ZN_OK;
}
const zn_lower zn_lower_resize = {NULL, resize_kernel};
