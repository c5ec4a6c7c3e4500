/* Operators whose integer operands depend on the shape of their data: targets of Reshape, positions, paddings. */
#include "tests/fuzz/graphs/fuzz.h"

static zn_vid data(fz *f, zn_op op, int min_rank) {
  const zn_schema *s = zn_op_schema(op);
  for (int k = 0; k < 8; k++) {
    zn_vid v = fz_some(f, fz_chance(f, 80) ? f->main : ZN_F32, -1);
    if (v && fz_type(f, v)->rank >= min_rank &&
        zn_schema_allows(s, s->in[0].type, (zn_dtype)fz_type(f, v)->dtype))
      return v;
  }
  return 0;
}

/* -1: not a constant */
static int64_t extent(const fz *f, zn_vid v, int d) {
  int64_t n;
  return zn_ex_is_const(f->g->ex, fz_type(f, v)->dims[d], &n) ? n : -1;
}

static zn_dtype index_type(fz *f) { return fz_chance(f, 75) ? ZN_I64 : ZN_I32; }

/* Splits and merges neighbouring axes; one dim may be -1 or 0 (copied). */
static zn_vid reshape(fz *f) {
  zn_vid x = data(f, ZN_OP_Reshape, 0);
  if (!x) return 0;
  const zn_type t = *fz_type(f, x);
  int64_t out[2 * ZN_MAX_RANK];
  uint32_t n = 0;
  bool open = false, zero = false;
  for (int d = 0; d < t.rank && n < 6; d++) {
    int64_t e = extent(f, x, d);
    zero |= e == 0;
    if (e < 0 && (uint32_t)d == n && !open && fz_chance(f, 50)) {
      out[n++] = 0;
    } else if (e < 0) {
      if (open) return 0;
      open = true;
      out[n++] = -1;
    } else if (n && out[n - 1] > 0 && fz_chance(f, 40)) {
      out[n - 1] *= e;
    } else if (e >= 4 && e % 2 == 0 && fz_chance(f, 40)) {
      out[n++] = 2;
      out[n++] = e / 2;
    } else {
      out[n++] = e;
    }
  }
  if (fz_chance(f, 15) && n < 6) out[n++] = 1;
  if (zero) return 0;
  if (n && !open && fz_chance(f, 40)) {
    uint32_t k = fz_below(f, n);
    if (out[k] > 0) out[k] = -1;
  }
  zn_vid in[2] = {x, fz_i64s(f, ZN_I64, out, n)};
  return fz_node(f, ZN_OP_Reshape, in, 2, 1, NULL);
}

static zn_vid expand(fz *f) {
  zn_vid x = data(f, ZN_OP_Expand, 0);
  if (!x) return 0;
  const zn_type t = *fz_type(f, x);
  int64_t out[ZN_MAX_RANK];
  uint32_t n = 0;
  if (fz_chance(f, 40) && t.rank < 5) out[n++] = fz_range(f, 1, 4);
  for (int d = 0; d < t.rank; d++) {
    int64_t e = extent(f, x, d);
    out[n++] = e == 1 ? fz_range(f, 1, 5) : e < 0 || fz_chance(f, 30) ? 1 : e;
  }
  zn_vid in[2] = {x, fz_i64s(f, ZN_I64, out, n)};
  return fz_node(f, ZN_OP_Expand, in, 2, 1, NULL);
}

static zn_vid slice(fz *f) {
  zn_vid x = data(f, ZN_OP_Slice, 1);
  if (!x) return 0;
  const zn_type t = *fz_type(f, x);
  int64_t from[ZN_MAX_RANK], to[ZN_MAX_RANK], axes[ZN_MAX_RANK], step[ZN_MAX_RANK];
  uint32_t n = 0;
  for (int d = 0; d < t.rank; d++) {
    if (!fz_chance(f, 50)) continue;
    int64_t e = extent(f, x, d);
    if (e < 0) e = 6;
    step[n] = fz_chance(f, 65) ? 1 : fz_range(f, 0, 1) ? fz_range(f, 2, 3) : -fz_range(f, 1, 2);
    from[n] = fz_chance(f, 30) ? (step[n] > 0 ? 0 : -1) : fz_range(f, -e, e);
    to[n] = fz_chance(f, 40) ? (step[n] > 0 ? INT32_MAX : INT32_MIN) : fz_range(f, -e, e);
    axes[n++] = fz_chance(f, 70) ? d : d - t.rank;
  }
  zn_dtype it = index_type(f);
  zn_vid in[5] = {x, fz_i64s(f, it, from, n), fz_i64s(f, it, to, n), fz_i64s(f, it, axes, n),
                  fz_i64s(f, it, step, n)};
  return fz_node(f, ZN_OP_Slice, in, 5, 1, NULL);
}

static zn_vid pad(fz *f) {
  static const char *const modes[] = {"constant", "constant", "constant",
                                      "edge",     "reflect",  "wrap"};
  zn_vid x = data(f, ZN_OP_Pad, 1);
  if (!x) return 0;
  const zn_type t = *fz_type(f, x);
  const char *mode = modes[fz_below(f, 6)];
  int64_t p[2 * ZN_MAX_RANK];
  for (int d = 0; d < 2 * t.rank; d++) {
    int64_t e = extent(f, x, d % t.rank);
    if (!strcmp(mode, "constant")) p[d] = fz_chance(f, 50) ? 0 : fz_range(f, e > 3 ? -1 : 0, 2);
    else p[d] = e >= 3 && fz_chance(f, 50) ? fz_range(f, 0, 2) : 0;
  }
  fz_attrs at = {.n = 0};
  fz_set_s(f, &at, "mode", mode);
  zn_vid in[3] = {x, fz_i64s(f, ZN_I64, p, 2 * (uint32_t)t.rank),
                  fz_scalar(f, (zn_dtype)t.dtype, (double)fz_range(f, 0, 3))};
  return fz_node(f, ZN_OP_Pad, in, fz_chance(f, 50) && !strcmp(mode, "constant") ? 3 : 2, 1, &at);
}

/* Indices into axis `axis` of x, as a constant or as an input (whose contents zn_gen keeps in range). */
static zn_vid indices(fz *f, zn_vid x, int axis, int rank, const int64_t *dims) {
  int64_t e = extent(f, x, axis);
  zn_dtype it = index_type(f);
  if (e <= 0 && f->g->parent) return 0;
  if (e > 0 && (f->g->parent || fz_chance(f, 60)))
    return fz_const(f, it, rank, dims, fz_chance(f, 30) ? (double)-e : 0, (double)e);
  zn_expr d[ZN_MAX_RANK];
  for (int k = 0; k < rank; k++) d[k] = zn_ex_const(f->g->ex, dims[k]);
  return zn_graph_input(f->g, "index", zn_type_tensor(it, rank, d));
}

static void small_dims(fz *f, int rank, int64_t *out) {
  for (int d = 0; d < rank; d++) out[d] = fz_range(f, 1, 4);
}

static zn_vid gather(fz *f) {
  zn_vid x = data(f, ZN_OP_Gather, 1);
  if (!x) return 0;
  int axis = (int)fz_below(f, (uint32_t)fz_type(f, x)->rank), rank = (int)fz_range(f, 0, 2);
  int64_t dims[2];
  small_dims(f, rank, dims);
  fz_attrs at = {.n = 0};
  fz_set_i(&at, "axis", fz_chance(f, 70) ? axis : axis - fz_type(f, x)->rank);
  zn_vid in[2] = {x, indices(f, x, axis, rank, dims)};
  return in[1] ? fz_node(f, ZN_OP_Gather, in, 2, 1, &at) : 0;
}

static const char *reduction(fz *f, zn_dtype t) {
  static const char *const names[] = {"none", "add", "mul", "max", "min"};
  return names[t == ZN_BOOL ? 0 : fz_below(f, 5)];
}

/* GatherElements and ScatterElements */
static zn_vid elements(fz *f, zn_op op) {
  zn_vid x = data(f, op, 1);
  int64_t dims[ZN_MAX_RANK];
  if (!x || !fz_static(f, x, dims)) return 0;
  const zn_type t = *fz_type(f, x);
  int axis = (int)fz_below(f, (uint32_t)t.rank);
  bool scatter = op == ZN_OP_ScatterElements, repeat = false;
  for (int d = 0; d < t.rank; d++) {
    if (dims[d] == 0) return 0;
    dims[d] = fz_range(f, 1, dims[d] < 5 ? dims[d] : 5);
  }
  fz_attrs at = {.n = 0};
  fz_set_i(&at, "axis", axis);
  const char *how = scatter ? reduction(f, (zn_dtype)t.dtype) : "none";
  if (scatter) fz_set_s(f, &at, "reduction", how);
  repeat = scatter && !strcmp(how, "none"); /* two updates of one element: order is undefined */
  if (repeat) dims[axis] = 1;
  zn_vid in[3] = {x, indices(f, x, axis, t.rank, dims), 0};
  zn_expr d[ZN_MAX_RANK];
  for (int k = 0; k < t.rank; k++) d[k] = zn_ex_const(f->g->ex, dims[k]);
  if (scatter) in[2] = fz_exact(f, (zn_dtype)t.dtype, t.rank, d);
  return in[1] && (!scatter || in[2]) ? fz_node(f, op, in, scatter ? 3 : 2, 1, &at) : 0;
}

static zn_vid nd(fz *f, zn_op op) {
  zn_vid x = data(f, op, 1);
  int64_t dims[ZN_MAX_RANK], least = INT64_MAX, idims[2];
  if (!x || !fz_static(f, x, dims)) return 0;
  const zn_type t = *fz_type(f, x);
  bool scatter = op == ZN_OP_ScatterND;
  const char *how = scatter ? reduction(f, (zn_dtype)t.dtype) : "none";
  idims[0] = scatter && !strcmp(how, "none") ? 1 : fz_range(f, 1, 4);
  idims[1] = fz_range(f, 1, t.rank);
  for (int d = 0; d < idims[1]; d++) least = dims[d] < least ? dims[d] : least;
  if (least <= 0) return 0;
  zn_vid in[3] = {
      x, fz_const(f, ZN_I64, 2, idims, fz_chance(f, 20) ? (double)-least : 0, (double)least), 0};
  fz_attrs at = {.n = 0};
  if (scatter) {
    zn_expr d[ZN_MAX_RANK];
    int n = 0;
    d[n++] = zn_ex_const(f->g->ex, idims[0]);
    for (int k = (int)idims[1]; k < t.rank; k++) d[n++] = t.dims[k];
    fz_set_s(f, &at, "reduction", how);
    in[2] = fz_exact(f, (zn_dtype)t.dtype, n, d);
    if (!in[2]) return 0;
  }
  return fz_node(f, op, in, scatter ? 3 : 2, 1, &at);
}

static zn_vid concat(fz *f) {
  zn_vid x = data(f, ZN_OP_Concat, 1), in[4];
  if (!x) return 0;
  const zn_type t = *fz_type(f, x);
  int axis = (int)fz_below(f, (uint32_t)t.rank);
  uint32_t n = 1 + fz_below(f, 4);
  zn_expr dims[ZN_MAX_RANK];
  memcpy(dims, t.dims, sizeof dims);
  for (uint32_t i = 0; i < n; i++) {
    if (fz_chance(f, 50)) dims[axis] = zn_ex_const(f->g->ex, fz_size(f));
    else dims[axis] = t.dims[axis];
    in[i] = i == n / 2 ? x : fz_exact(f, (zn_dtype)t.dtype, t.rank, dims);
    if (!in[i]) return 0;
  }
  fz_attrs at = {.n = 0};
  fz_set_i(&at, "axis", fz_chance(f, 70) ? axis : axis - t.rank);
  return fz_node(f, ZN_OP_Concat, in, n, 1, &at);
}

static zn_vid split(fz *f) {
  zn_vid x = data(f, ZN_OP_Split, 1);
  if (!x) return 0;
  const zn_type t = *fz_type(f, x);
  int axis = (int)fz_below(f, (uint32_t)t.rank);
  int64_t e = extent(f, x, axis), part[3];
  fz_attrs at = {.n = 0};
  fz_set_i(&at, "axis", axis);
  if (e < 2) return 0;
  if (fz_chance(f, 40)) {
    fz_set_i(&at, "num_outputs", 2);
    return fz_node(f, ZN_OP_Split, &x, 1, 2, &at);
  }
  part[0] = fz_range(f, 0, e);
  part[1] = fz_range(f, 0, e - part[0]);
  part[2] = e - part[0] - part[1];
  zn_vid in[2] = {x, fz_i64s(f, ZN_I64, part, 3)};
  return fz_node(f, ZN_OP_Split, in, 2, 3, &at);
}

static zn_vid tile(fz *f) {
  zn_vid x = data(f, ZN_OP_Tile, 1);
  int64_t r[ZN_MAX_RANK];
  if (!x) return 0;
  for (int d = 0; d < fz_type(f, x)->rank; d++) r[d] = fz_chance(f, 60) ? 1 : fz_range(f, 1, 3);
  zn_vid in[2] = {x, fz_i64s(f, ZN_I64, r, (uint32_t)fz_type(f, x)->rank)};
  return fz_node(f, ZN_OP_Tile, in, 2, 1, NULL);
}

static zn_vid topk(fz *f) {
  zn_vid x = data(f, ZN_OP_TopK, 1);
  if (!x) return 0;
  int axis = (int)fz_below(f, (uint32_t)fz_type(f, x)->rank);
  int64_t e = extent(f, x, axis), k;
  if (e < 1) return 0;
  k = fz_range(f, 1, e);
  fz_attrs at = {.n = 0};
  fz_set_i(&at, "axis", axis);
  fz_set_i(&at, "largest", fz_below(f, 2));
  zn_vid in[2] = {x, fz_i64s(f, ZN_I64, &k, 1)};
  return fz_node(f, ZN_OP_TopK, in, 2, 2, &at);
}

static zn_vid resize(fz *f) {
  static const char *const modes[] = {"nearest", "nearest", "linear", "linear", "cubic"};
  static const char *const where[] = {"half_pixel", "asymmetric", "align_corners",
                                      "pytorch_half_pixel", "half_pixel_symmetric"};
  static const char *const near[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};
  static const double scales[] = {1, 1, 2, 2, 3, 0.5, 1.5, 0.7};
  zn_vid x = data(f, ZN_OP_Resize, 1), in[4] = {0};
  if (!x) return 0;
  int rank = fz_type(f, x)->rank;
  bool sizes = fz_chance(f, 40);
  int64_t n[ZN_MAX_RANK], dims = rank;
  zn_htensor *s = ZN_NEW(f->a, zn_htensor);
  *s = zn_htensor_new(f->a, ZN_F32, 1, &dims);
  for (int d = 0; d < rank; d++) {
    int64_t e = extent(f, x, d);
    bool space = d >= rank - 2 && (rank < 4 || fz_chance(f, 95));
    if (e < 1 && sizes) return 0;
    n[d] = space ? fz_range(f, 1, 12) : e;
    zn_store_f64(ZN_F32, s->data, (uint64_t)d, space ? scales[fz_below(f, 8)] : 1);
  }
  in[0] = x;
  if (sizes) in[3] = fz_i64s(f, ZN_I64, n, (uint32_t)rank);
  else in[2] = zn_graph_const(f->g, NULL, s);
  fz_attrs at = {.n = 0};
  fz_set_s(f, &at, "mode", modes[fz_below(f, 5)]);
  if (fz_chance(f, 70)) fz_set_s(f, &at, "coordinate_transformation_mode", where[fz_below(f, 5)]);
  if (fz_chance(f, 50)) fz_set_s(f, &at, "nearest_mode", near[fz_below(f, 4)]);
  if (fz_chance(f, 15)) fz_set_i(&at, "antialias", 1);
  if (fz_chance(f, 15)) fz_set_i(&at, "exclude_outside", 1);
  if (fz_chance(f, 10)) fz_set_f(&at, "cubic_coeff_a", -0.5);
  if (sizes && fz_chance(f, 20)) fz_set_s(f, &at, "keep_aspect_ratio_policy", fz_chance(f, 50) ? "not_larger" : "not_smaller");
  return fz_node(f, ZN_OP_Resize, in, sizes ? 4 : 3, 1, &at);
}

static zn_vid axes_of(fz *f, zn_op op) {
  zn_vid x = data(f, op, op == ZN_OP_Squeeze);
  if (!x) return 0;
  const zn_type t = *fz_type(f, x);
  int64_t axes[ZN_MAX_RANK];
  uint32_t n = 0;
  if (op == ZN_OP_Unsqueeze) {
    axes[n++] = fz_range(f, -t.rank - 1, t.rank);
  } else {
    for (int d = 0; d < t.rank; d++)
      if (extent(f, x, d) == 1 && fz_chance(f, 70)) axes[n++] = fz_chance(f, 70) ? d : d - t.rank;
    if (!n) return 0;
  }
  zn_vid in[2] = {x, fz_i64s(f, ZN_I64, axes, n)};
  return fz_node(f, op, in, 2, 1, NULL);
}

static zn_vid constant_of_shape(fz *f) {
  int64_t d[3];
  uint32_t n = fz_below(f, 4);
  zn_vid s = fz_chance(f, 40) ? fz_pick(f, ZN_I64, 1) : 0;
  for (uint32_t i = 0; i < n; i++) d[i] = fz_range(f, 1, 5);
  if (!s) s = fz_i64s(f, ZN_I64, d, n);
  return fz_node(f, ZN_OP_ConstantOfShape, &s, 1, 1, NULL);
}

static zn_vid clip(fz *f) {
  zn_vid x = data(f, ZN_OP_Clip, 0);
  if (!x) return 0;
  zn_dtype t = (zn_dtype)fz_type(f, x)->dtype;
  zn_vid in[3] = {x, fz_chance(f, 80) ? fz_scalar(f, t, 0) : 0,
                  fz_chance(f, 80) ? fz_scalar(f, t, (double)fz_range(f, 1, 6)) : 0};
  return fz_node(f, ZN_OP_Clip, in, 3, 1, NULL);
}

static zn_vid power(fz *f) {
  static const double p[] = {2, 2, 3, 0.5, 1, -1, 0};
  zn_vid x = data(f, ZN_OP_Pow, 0);
  if (!x) return 0;
  zn_dtype t = (zn_dtype)fz_type(f, x)->dtype;
  double e = p[fz_below(f, 7)];
  if (!zn_is_float(t) && e != 2) return 0;
  zn_vid in[2] = {x, fz_scalar(f, t, e)};
  return fz_node(f, ZN_OP_Pow, in, 2, 1, NULL);
}

/* Bits of a computed float show its last rounding, which is nobody's business: floats come from inputs and constants. */
static zn_vid bit_cast(fz *f) {
  static const zn_dtype types[] = {ZN_F32, ZN_I32, ZN_U32, ZN_F16, ZN_I16, ZN_BF16, ZN_F64, ZN_I64, ZN_U8, ZN_I8};
  zn_dtype t = types[fz_below(f, 10)];
  zn_expr dims[3] = {ZN_EX_NONE};
  int rank = (int)fz_range(f, 1, 3);
  for (int d = 0; d < rank; d++) dims[d] = f->g->parent ? zn_ex_const(f->g->ex, fz_size(f)) : fz_dim(f);
  zn_vid x = zn_is_float(t) ? fz_leaf(f, t, rank, dims) : fz_some(f, t, -1);
  if (!x) return 0;
  fz_attrs at = {.n = 0};
  fz_set_i(&at, "to", zn_dtypes[types[fz_below(f, 10)]].onnx);
  return fz_node(f, ZN_OP_BitCast, &x, 1, 1, &at);
}

static void set_tensor(fz *f, fz_attrs *at, const char *name, zn_dtype t, const double *v, uint32_t n) {
  zn_htensor *h = ZN_NEW(f->a, zn_htensor);
  int64_t dims = n;
  *h = zn_htensor_new(f->a, t, 1, &dims);
  for (uint32_t i = 0; i < n; i++) zn_store_f64(t, h->data, i, v[i]);
  at->v[at->n++] = (zn_attr){.name = name, .kind = ZN_A_TENSOR, .u.t = h};
}

/* Two trees: one of two branches and three leaves, one of a branch and two leaves. */
static zn_vid tree_ensemble(fz *f) {
  zn_dtype t = fz_chance(f, 70) ? ZN_F32 : ZN_F64;
  zn_expr dims[2] = {fz_dim(f), zn_ex_const(f->g->ex, 3)};
  zn_vid x = fz_exact(f, t, 2, dims);
  double splits[3], modes[3], weights[5];
  int64_t features[3], targets[5];
  if (!x) return 0;
  for (int i = 0; i < 3; i++) {
    splits[i] = (double)fz_range(f, -8, 8) / 4;
    modes[i] = (double)fz_below(f, 6);
    features[i] = fz_below(f, 3);
  }
  for (int i = 0; i < 5; i++) weights[i] = (double)fz_range(f, -16, 16) / 8, targets[i] = fz_below(f, 2);
  fz_attrs at = {.n = 0};
  fz_set_i(&at, "aggregate_function", fz_below(f, 4));
  fz_set_i(&at, "n_targets", 2);
  fz_set_is(f, &at, "tree_roots", (int64_t[]){0, 2}, 2);
  fz_set_is(f, &at, "nodes_featureids", features, 3);
  set_tensor(f, &at, "nodes_splits", t, splits, 3);
  set_tensor(f, &at, "nodes_modes", ZN_U8, modes, 3);
  fz_set_is(f, &at, "nodes_truenodeids", (int64_t[]){1, 0, 3}, 3);
  fz_set_is(f, &at, "nodes_trueleafs", (int64_t[]){0, 1, 1}, 3);
  fz_set_is(f, &at, "nodes_falsenodeids", (int64_t[]){2, 1, 4}, 3);
  fz_set_is(f, &at, "nodes_falseleafs", (int64_t[]){1, 1, 1}, 3);
  fz_set_is(f, &at, "leaf_targetids", targets, 5);
  set_tensor(f, &at, "leaf_weights", t, weights, 5);
  return fz_node(f, ZN_OP_TreeEnsemble, &x, 1, 1, &at);
}

bool fz_draw_special(fz *f, zn_op op, bool *out_has) {
  *out_has = true;
  switch (op) {
    case ZN_OP_Reshape: return reshape(f) != 0;
    case ZN_OP_Expand: return expand(f) != 0;
    case ZN_OP_Slice: return slice(f) != 0;
    case ZN_OP_Pad: return pad(f) != 0;
    case ZN_OP_Gather: return gather(f) != 0;
    case ZN_OP_GatherElements:
    case ZN_OP_ScatterElements: return elements(f, op) != 0;
    case ZN_OP_GatherND:
    case ZN_OP_ScatterND: return nd(f, op) != 0;
    case ZN_OP_Concat: return concat(f) != 0;
    case ZN_OP_Split: return split(f) != 0;
    case ZN_OP_Tile: return tile(f) != 0;
    case ZN_OP_TopK: return topk(f) != 0;
    case ZN_OP_Resize: return resize(f) != 0;
    case ZN_OP_Squeeze:
    case ZN_OP_Unsqueeze: return axes_of(f, op) != 0;
    case ZN_OP_ConstantOfShape: return constant_of_shape(f) != 0;
    case ZN_OP_TreeEnsemble: return tree_ensemble(f) != 0;
    case ZN_OP_BitCast: return bit_cast(f) != 0;
    case ZN_OP_Clip: return clip(f) != 0;
    case ZN_OP_Pow: return power(f) != 0;
    default: *out_has = false; return false;
  }
}
