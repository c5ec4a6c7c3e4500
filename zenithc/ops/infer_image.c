/* Inference of resampling, signal, random and quantisation operators. */
#include "zenithc/ops/axes.h"
#include "zenithc/ops/infer_util.h"

#include <inttypes.h>
#include <math.h>

static bool floats(const zn_inf *f, uint32_t i, double *out, uint32_t n) {
  const zn_vid v = zn_node_in(f->nd, i);
  const zn_htensor *t = v ? f->g->vals[v].cst : NULL;
  if (!t || zn_htensor_count(t) != n) return false;
  for (uint32_t k = 0; k < n; k++) out[k] = zn_load_f64(t->dtype, t->data, k);
  return true;
}

/* Present and not an empty tensor. */
static bool given(const zn_inf *f, uint32_t i) {
  const zn_type *t = zn_inf_in(f, i);
  return t && !(t->rank == 1 && zn_ex_is(f->ex, t->dims[0], 0));
}

/* floor(d * s) when d is known or s a ratio of small integers, else NONE. */
static zn_expr scaled(const zn_inf *f, zn_expr d, double s) {
  int64_t x;
  if (s == 1) return d;
  if (zn_ex_is_const(f->ex, d, &x)) return zn_inf_k(f, (int64_t)floorf((float)x * (float)s));
  for (int64_t q = 1; q <= 64; q++) {
    const double p = rint(s * (double)q);
    if (p >= 1 && fabs(p / (double)q - s) <= 1e-7 * s) {
      return zn_ex_divi(f->ex, zn_ex_muli(f->ex, d, (int64_t)p), q);
    }
  }
  return ZN_EX_NONE;
}

/* floor(size * extent / of + 1/2): the extent under the scale that gives `of` the size. */
static zn_expr same_scale(const zn_inf *f, zn_expr extent, zn_expr size, zn_expr of) {
  const zn_expr twice = zn_ex_muli(f->ex, zn_ex_mul(f->ex, size, extent), 2);
  const zn_expr q = zn_ex_div(f->ex, zn_ex_add(f->ex, twice, of), zn_ex_max(f->ex, zn_ex_muli(f->ex, of, 2), zn_inf_k(f, 1)));
  return zn_ex_max(f->ex, q, zn_inf_k(f, 0));
}

static void keep_ratio(const zn_inf *f, const int64_t *axes, uint32_t n, const zn_expr *sizes,
                       bool larger, zn_expr *dims) {
  double scale = larger ? 0 : INFINITY;
  bool known = true;
  int64_t s, d;
  for (uint32_t i = 0; i < n; i++) {
    if (!zn_ex_is_const(f->ex, sizes[i], &s) || !zn_ex_is_const(f->ex, dims[axes[i]], &d) ||
        d == 0) {
      known = false;
      continue;
    }
    const double r = (double)s / (double)d;
    scale = larger ? fmax(scale, r) : fmin(scale, r);
  }
  zn_expr old[ZN_MAX_RANK];
  for (uint32_t i = 0; i < n; i++) old[i] = dims[axes[i]];
  for (uint32_t i = 0; i < n; i++) {
    if (known && zn_ex_is_const(f->ex, old[i], &d)) {
      dims[axes[i]] = zn_inf_k(f, (int64_t)floor(scale * (double)d + 0.5));
      continue;
    }
    zn_expr r = ZN_EX_NONE;
    for (uint32_t k = 0; k < n; k++) {
      const zn_expr one = same_scale(f, old[i], sizes[k], old[k]);
      r = !r ? one : larger ? zn_ex_max(f->ex, r, one) : zn_ex_min(f->ex, r, one);
    }
    dims[axes[i]] = zn_ex_named(f->ex, r, 0);
  }
}

/* Mode nearest moves elements, the others add them up. */
static bool interpolates(const zn_inf *f) {
  const char *mode = zn_node_str(f->nd, "mode");
  return !mode || strcmp(mode, "nearest") != 0;
}

ZN_INFER(resize) {
  const zn_type *in = zn_inf_in(f, 0);
  int64_t axes[ZN_MAX_RANK];
  zn_expr dims[ZN_MAX_RANK];
  double s[ZN_MAX_RANK];
  uint32_t na, n;
  bool mask[ZN_MAX_RANK];
  if (interpolates(f)) ZN_TRY(zn_inf_numbers(f, "Resize in this mode"));
  if (!zn_inf_known(f, 0)) return ZN_OK;
  const int64_t *given_axes = zn_node_ints(f->nd, "axes", &na);
  if (!given_axes) na = (uint32_t)in->rank;
  if (na > (uint32_t)in->rank) return zn_inf_err(f, "%u axes for rank %d", na, in->rank);
  if (given_axes) ZN_TRY(zn_inf_axes(f, given_axes, na, in->rank, mask));
  for (uint32_t i = 0; i < na; i++) {
    axes[i] =
        given_axes ? given_axes[i] < 0 ? given_axes[i] + in->rank : given_axes[i] : (int64_t)i;
  }
  for (int d = 0; d < in->rank; d++) dims[d] = in->dims[d];
  if (given(f, 3)) {
    const zn_expr *e = zn_inf_need(f, 3, &n);
    const char *policy = zn_node_str(f->nd, "keep_aspect_ratio_policy");
    if (e && n != na) return zn_inf_err(f, "sizes has %u entries, expected %u", n, na);
    if (e && policy && strcmp(policy, "stretch") != 0) {
      keep_ratio(f, axes, na, e, strcmp(policy, "not_smaller") == 0, dims);
    } else {
      for (uint32_t i = 0; i < na; i++) {
        if (e && zn_ex_kind(f->ex, e[i]) == ZN_EX_SYM && !zn_inf_ge(f, e[i], 0))
          zn_ex_set_range(f->ex, e[i], 0, INT64_MAX); /* serves as a dimension */
        const bool ok = e && zn_inf_ge(f, e[i], 0);
        dims[axes[i]] = ok ? e[i] : zn_inf_fresh(f, 0, (uint32_t)axes[i], 0, ZN_EX_NONE);
      }
    }
  } else if (given(f, 2)) {
    const bool known = floats(f, 2, s, na);
    for (uint32_t i = 0; i < na; i++) {
      const uint32_t ax = (uint32_t)axes[i];
      if (known && !(s[i] > 0 && s[i] < 1e9))
        return zn_inf_err(f, "scale %g is out of range", s[i]);
      const zn_expr by = dims[ax];
      dims[ax] = known ? scaled(f, by, s[i]) : ZN_EX_NONE;
      if (!dims[ax]) dims[ax] = zn_inf_scaled(f, 0, ax, 2, i, by);
    }
  } else {
    return zn_inf_err(f, "neither scales nor sizes is given");
  }
  zn_inf_shape(f, 0, in->rank, dims);
  return ZN_OK;
}

ZN_INFER(gridsample) {
  if (interpolates(f)) ZN_TRY(zn_inf_numbers(f, "GridSample in this mode"));
  const zn_type *x = zn_inf_in(f, 0), *grid = zn_inf_in(f, 1);
  zn_expr dims[ZN_MAX_RANK];
  if (!zn_inf_known(f, 0) || !zn_inf_known(f, 1)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 0, 3));
  ZN_TRY(zn_inf_want_rank(f, 1, x->rank));
  ZN_TRY(zn_inf_same_dim(f, grid->dims[grid->rank - 1], zn_inf_k(f, x->rank - 2),
                         "the grid's last extent and the spatial rank"));
  dims[0] = x->dims[0];
  dims[1] = x->dims[1];
  for (int d = 2; d < x->rank; d++) {
    dims[d] = grid->dims[d - 1];
    if (zn_ex_is(f->ex, x->dims[d], 0)) return zn_inf_err(f, "axis %d of the image has no elements", d);
  }
  zn_inf_shape(f, 0, x->rank, dims);
  return ZN_OK;
}

ZN_INFER(affinegrid) {
  uint32_t n;
  ZN_TRY(zn_inf_want_rank(f, 0, 3));
  const zn_expr *e = zn_inf_need(f, 1, &n);
  if (!e) return ZN_OK;
  if (n != 4 && n != 5) return zn_inf_err(f, "size has %u entries, expected 4 or 5", n);
  zn_expr dims[5] = {e[0]};
  for (uint32_t d = 1; d + 1 < n; d++) dims[d] = e[d + 1];
  dims[n - 1] = zn_inf_k(f, n - 2);
  zn_inf_shape(f, 0, (int)n, dims);
  return ZN_OK;
}

/* ---- signal ---- */

static zn_status dtype_attr(const zn_inf *f, const char *name, uint32_t o) {
  const zn_dtype t = zn_dtype_from_onnx((int)zn_node_int(f->nd, name));
  if (t == ZN_NONE) return zn_inf_err(f, "attribute '%s' is no tensor element type", name);
  zn_inf_dtype(f, o, t);
  return ZN_OK;
}

static zn_expr scalar_of(const zn_inf *f, uint32_t i) {
  uint32_t n;
  const zn_expr *e = zn_inf_need(f, i, &n);
  if (!e || n != 1) return ZN_EX_NONE;
  if (!zn_inf_ge(f, e[0], 0) && zn_ex_kind(f->ex, e[0]) == ZN_EX_SYM) {
    zn_ex_set_range(f->ex, e[0], 0, INT64_MAX);
  }
  return e[0];
}

ZN_INFER(window) {
  ZN_TRY(dtype_attr(f, "output_datatype", 0));
  zn_expr n = scalar_of(f, 0);
  if (!n) n = zn_inf_fresh(f, 0, 0, 0, ZN_EX_NONE);
  zn_inf_shape(f, 0, 1, &n);
  return ZN_OK;
}

ZN_INFER(melweightmatrix) {
  ZN_TRY(dtype_attr(f, "output_datatype", 0));
  zn_expr bins = scalar_of(f, 0), len = scalar_of(f, 1);
  if (!bins) bins = zn_inf_fresh(f, 0, 1, 0, ZN_EX_NONE);
  const zn_expr rows =
      len ? zn_ex_addi(f->ex, zn_ex_divi(f->ex, len, 2), 1) : zn_inf_fresh(f, 0, 0, 0, ZN_EX_NONE);
  const zn_expr dims[2] = {rows, bins};
  zn_inf_shape(f, 0, 2, dims);
  return ZN_OK;
}

/* The extent along a transformed axis. */
static zn_expr dft_extent(const zn_inf *f, zn_expr have, bool half, bool inverse, uint32_t axis) {
  zn_expr len = have;
  if (zn_node_in(f->nd, 1)) {
    len = scalar_of(f, 1);
    if (!len) len = zn_inf_fresh(f, 0, axis, 0, ZN_EX_NONE);
  }
  if (half && !inverse) return zn_ex_addi(f->ex, zn_ex_divi(f->ex, len, 2), 1);
  if (half && !zn_node_in(f->nd, 1)) return zn_ex_muli(f->ex, zn_ex_addi(f->ex, len, -1), 2);
  return len;
}

/* An axis that the run gives. */
static zn_status dft_late(const zn_inf *f, bool half, bool inverse) {
  const zn_type *in = zn_inf_in(f, 0);
  zn_expr dims[ZN_MAX_RANK];
  zn_axes a;
  if (!zn_axes_resolve(f->g, f->nd->in[2], in->rank, &a) || a.count != 1) {
    zn_inf_unknown(f, 0, in->rank);
    return ZN_OK;
  }
  for (int d = 0; d + 1 < in->rank; d++) {
    const zn_expr other = zn_ex_sub(f->ex, dft_extent(f, in->dims[d], half, inverse, (uint32_t)d), in->dims[d]);
    dims[d] = zn_ex_add(f->ex, in->dims[d], zn_ex_mul(f->ex, a.mask[d], other));
  }
  dims[in->rank - 1] = zn_inf_k(f, half && inverse ? 1 : 2);
  zn_inf_shape(f, 0, in->rank, dims);
  return ZN_OK;
}

ZN_INFER(dft) {
  const zn_type *in = zn_inf_in(f, 0);
  zn_expr dims[ZN_MAX_RANK];
  int64_t axis = -2;
  uint32_t n;
  int ax;
  const bool inverse = zn_node_int(f->nd, "inverse") != 0,
             half = zn_node_int(f->nd, "onesided") != 0;
  if (!zn_inf_known(f, 0)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 0, 2));
  zn_inf_need(f, 2, &n);
  if (zn_node_in(f->nd, 2) && !zn_inf_i64s(f, 2, &axis, 1, &n)) return dft_late(f, half, inverse);
  ZN_TRY(zn_inf_axis(f, axis, in->rank, &ax));
  if (ax == in->rank - 1) return zn_inf_err(f, "the axis is the one of real and imaginary parts");
  for (int d = 0; d < in->rank; d++) dims[d] = in->dims[d];
  dims[ax] = dft_extent(f, dims[ax], half, inverse, (uint32_t)ax);
  dims[in->rank - 1] = zn_inf_k(f, half && inverse ? 1 : 2);
  zn_inf_shape(f, 0, in->rank, dims);
  return ZN_OK;
}

ZN_INFER(stft) {
  const zn_type *x = zn_inf_in(f, 0), *w = zn_inf_in(f, 2);
  if (!zn_inf_known(f, 0)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 0, 2));
  zn_expr step = scalar_of(f, 1), len = ZN_EX_NONE;
  if (zn_node_in(f->nd, 3)) {
    len = scalar_of(f, 3);
  } else if (w && w->rank == 1) {
    len = w->dims[0];
  } else if (!w) {
    return zn_inf_err(f, "neither window nor frame_length is given");
  }
  zn_expr frames = ZN_EX_NONE, bins = ZN_EX_NONE;
  if (step && len) {
    if (!zn_inf_ge(f, step, 1)) step = zn_ex_max(f->ex, step, zn_inf_k(f, 1)); /* seen at run time */
    frames = zn_ex_addi(f->ex, zn_ex_div(f->ex, zn_ex_sub(f->ex, x->dims[1], len), step), 1);
  }
  if (len) {
    bins = zn_node_int(f->nd, "onesided") ? zn_ex_addi(f->ex, zn_ex_divi(f->ex, len, 2), 1) : len;
  }
  if (!frames) frames = zn_inf_fresh(f, 0, 1, 0, x->dims[1]);
  if (!bins) bins = zn_inf_fresh(f, 0, 2, 0, ZN_EX_NONE);
  const zn_expr dims[4] = {x->dims[0], frames, bins, zn_inf_k(f, 2)};
  zn_inf_shape(f, 0, 4, dims);
  return ZN_OK;
}

ZN_INFER(imagedecoder) {
  const char *fmt = zn_node_str(f->nd, "pixel_format");
  const zn_expr dims[3] = {zn_inf_fresh(f, 0, 0, 0, ZN_EX_NONE),
                           zn_inf_fresh(f, 0, 1, 0, ZN_EX_NONE),
                           zn_inf_k(f, fmt && strcmp(fmt, "Grayscale") == 0 ? 1 : 3)};
  zn_inf_shape(f, 0, 3, dims);
  return ZN_OK;
}

/* ---- random ---- */

ZN_INFER(random) {
  uint32_t n;
  zn_expr dims[ZN_MAX_RANK];
  const int64_t *s = zn_node_ints(f->nd, "shape", &n);
  ZN_TRY(dtype_attr(f, "dtype", 0));
  if (n > ZN_MAX_RANK)
    return zn_inf_err(f, "rank %u is more than the supported %d", n, ZN_MAX_RANK);
  for (uint32_t d = 0; d < n; d++) dims[d] = zn_inf_k(f, s[d]);
  zn_inf_shape(f, 0, (int)n, dims);
  return ZN_OK;
}

ZN_INFER(randomlike) {
  if (zn_node_has(f->nd, "dtype")) {
    ZN_TRY(dtype_attr(f, "dtype", 0));
  } else {
    zn_inf_dtype(f, 0, (zn_dtype)zn_inf_in(f, 0)->dtype);
  }
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(multinomial) {
  const zn_type *in = zn_inf_in(f, 0);
  ZN_TRY(dtype_attr(f, "dtype", 0));
  ZN_TRY(zn_inf_want_rank(f, 0, 2));
  if (!zn_inf_known(f, 0)) {
    zn_inf_unknown(f, 0, 2);
    return ZN_OK;
  }
  const zn_expr dims[2] = {in->dims[0], zn_inf_k(f, zn_node_int(f->nd, "sample_size"))};
  zn_inf_shape(f, 0, 2, dims);
  return ZN_OK;
}

/* ---- quantisation ---- */

static zn_status quant_axis(const zn_inf *f) {
  const zn_type *x = zn_inf_in(f, 0), *s = zn_inf_in(f, 1);
  int axis;
  uint32_t n;
  if (x->rank < 0 || !s || s->rank != 1 || (zn_inf_count(f, s, 1, &n) && n == 1)) return ZN_OK;
  if (x->rank == 0) return zn_inf_err(f, "a scale per axis needs an input of rank 1 or more");
  ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), x->rank, &axis));
  if (zn_node_int(f->nd, "block_size") != 0) return ZN_OK;
  return zn_inf_same_dim(f, x->dims[axis], s->dims[0],
                         "extent of the axis and length of the scale");
}

ZN_INFER(quantizelinear) {
  const zn_type *zp = zn_inf_in(f, 2);
  const zn_dtype od = zn_dtype_from_onnx((int)zn_node_int(f->nd, "output_dtype"));
  zn_inf_dtype(f, 0, zp ? (zn_dtype)zp->dtype : od ? od : ZN_U8);
  zn_inf_same(f, 0, 0);
  return quant_axis(f);
}

ZN_INFER(dequantizelinear) {
  const zn_type *s = zn_inf_in(f, 1);
  const zn_dtype od = zn_dtype_from_onnx((int)zn_node_int(f->nd, "output_dtype"));
  zn_inf_dtype(f, 0, od ? od : (zn_dtype)s->dtype);
  zn_inf_same(f, 0, 0);
  return quant_axis(f);
}

ZN_INFER(dynamicquantizelinear) {
  zn_inf_dtype(f, 0, ZN_U8);
  zn_inf_dtype(f, 2, ZN_U8);
  zn_inf_same(f, 0, 0);
  zn_inf_shape(f, 1, 0, NULL);
  zn_inf_shape(f, 2, 0, NULL);
  return ZN_OK;
}

/* ---- training ---- */

ZN_INFER(train) {
  /* inputs R, T, then k tensors each of X, G and states; outputs: new X and states in the same
   * order */
  const uint32_t per = f->nd->op == ZN_OP_Adam ? 4 : 3, k = (f->nd->num_in - 2) / per;
  if (f->nd->num_in < 2 + per || f->nd->num_in != 2 + per * k) {
    return zn_inf_err(f, "%u inputs do not form groups of %u", f->nd->num_in, per);
  }
  for (uint32_t o = 0; o < f->nd->num_out; o++) {
    const uint32_t src = o < k ? 2 + o : 2 + o + k; /* skip the gradients */
    const zn_type *t = zn_inf_in(f, src);
    if (!t) return zn_inf_err(f, "output %u has no matching input", o + 1);
    zn_inf_dtype(f, o, (zn_dtype)t->dtype);
    zn_inf_same(f, o, src);
  }
  return ZN_OK;
}

ZN_INFER(gradient) {
  uint32_t n = 0;
  const zn_attr *xs = zn_node_attr(f->nd, "xs");
  if (xs) n = xs->n;
  for (uint32_t o = 0; o < f->nd->num_out && o < n; o++) {
    const zn_type *t = zn_inf_in(f, o);
    if (!t) return zn_inf_err(f, "output %u has no matching input", o + 1);
    zn_inf_dtype(f, o, (zn_dtype)t->dtype);
    zn_inf_same(f, o, o);
  }
  return ZN_OK;
}
