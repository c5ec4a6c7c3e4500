/* Upgrade rules of standard operators, in the order of upgrade.def. */
#include <float.h>
#include <math.h>

#include "frontends/onnx/upgrade.h"
#include "frontends/onnx/upgrade_tools.h"

static int rank_of(zn_unode *u, zn_vid v) { return v ? zn_u_type(u, v)->rank : -1; }

/* Rank of v as an i64 vector of one element: Shape(Shape(v)). */
static zn_vid rank_value(zn_unode *u, zn_vid v) {
  int r = rank_of(u, v);
  if (r >= 0) return zn_u_i64(u, r);
  return zn_u_op1(u, ZN_OP_Shape, zn_u_op1(u, ZN_OP_Shape, v));
}

/* n ones, n an i64 vector of one element. */
static zn_vid ones(zn_unode *u, zn_vid n) {
  int64_t dims[1] = {1};
  zn_htensor *one = ZN_NEW(u->s->I->ga, zn_htensor);
  *one = zn_htensor_new(u->s->I->ga, ZN_I64, 1, dims);
  zn_store_i64(ZN_I64, one->data, 0, 1);
  zn_nid c = zn_u_node(u, ZN_OP_ConstantOfShape, &n, 1);
  zn_node_set_attr(u->s->g, c, (zn_attr){.name = "value", .kind = ZN_A_TENSOR, .n = 1, .u.t = one});
  return zn_node_out(u->s->g, c, 0);
}

static zn_vid concat(zn_unode *u, zn_vid a, zn_vid b) {
  zn_vid in[2] = {a, b};
  zn_nid n = zn_u_node(u, ZN_OP_Concat, in, 2);
  zn_node_set_int(u->s->g, n, "axis", 0);
  return zn_node_out(u->s->g, n, 0);
}

/* b with dimensions of 1 appended, so that its first dimension meets dimension `axis` of a: rank(a) - axis - rank(b) of
 * them, axis counted from the front. */
static zn_vid align_axis(zn_unode *u, zn_vid a, zn_vid b, int64_t axis) {
  int ra = rank_of(u, a), rb = rank_of(u, b);
  if (ra >= 0 && rb >= 0) {
    if (axis < 0) axis += ra;
    int64_t n = ra - axis - rb, axes[ZN_MAX_RANK];
    if (n <= 0 || n + rb > ZN_MAX_RANK) return b;
    for (int64_t i = 0; i < n; i++) axes[i] = rb + i;
    return zn_u_op2(u, ZN_OP_Unsqueeze, b, zn_u_i64s(u, axes, (uint32_t)n));
  }
  const zn_vid less = rank_value(u, b);
  zn_vid n;
  if (axis >= 0) {
    n = zn_u_op2(u, ZN_OP_Sub, rank_value(u, a), less);
    n = zn_u_op2(u, ZN_OP_Sub, n, zn_u_i64(u, axis));
  } else {
    n = zn_u_op2(u, ZN_OP_Sub, zn_u_i64(u, -axis), less);
  }
  const zn_vid more = ones(u, n);
  return zn_u_op2(u, ZN_OP_Reshape, b, concat(u, zn_u_op1(u, ZN_OP_Shape, b), more));
}

/* Binary operators before 7: B matches A's dimensions from `axis` on; without axis, its last ones. */
void zn_up_broadcast(zn_unode *u) {
  bool given = zn_u_attr(u, "axis") != NULL;
  int64_t axis = zn_u_int(u, "axis", 0), broadcast = zn_u_int(u, "broadcast", 0);
  if (broadcast && given && zn_u_in(u, 0) && zn_u_in(u, 1)) zn_u_set_in(u, 1, align_axis(u, u->in[0], u->in[1], axis));
}

/* Before 7 a slope of one dimension runs along the channels. */
void zn_up_prelu(zn_unode *u) {
  zn_vid slope = zn_u_in(u, 1);
  if (!zn_u_in(u, 0) || !slope) return;
  const zn_type *t = zn_u_type(u, slope);
  if (t->rank == 1 && !zn_ex_is(u->s->g->ex, t->dims[0], 1)) zn_u_set_in(u, 1, align_axis(u, u->in[0], slope, 1));
}

/* Y = (X - mean) / sqrt(var + eps) * scale + B for every element of a sample on its own. */
static void per_activation_batchnorm(zn_unode *u, double eps) {
  zn_vid e = zn_u_scalar_like(u, eps, u->in[4]);
  zn_vid std = zn_u_op1(u, ZN_OP_Sqrt, zn_u_op2(u, ZN_OP_Add, u->in[4], e));
  zn_vid y = zn_u_op2(u, ZN_OP_Div, zn_u_op2(u, ZN_OP_Sub, u->in[0], u->in[3]), std);
  y = zn_u_op2(u, ZN_OP_Mul, y, u->in[1]);
  zn_unode_bind(u, 0, zn_u_op2(u, ZN_OP_Add, y, u->in[2]));
  u->done = true;
}

/* Before 14: outputs mean and var mean training, saved_mean and saved_var have no equal now. */
void zn_up_batchnorm(zn_unode *u) {
  int64_t is_test = zn_u_int(u, "is_test", 0), spatial = zn_u_int(u, "spatial", 1);
  while (u->num_out > 1 && !*u->out[u->num_out - 1]) u->num_out--;
  if (is_test) u->num_out = u->num_out > 1 ? 1 : u->num_out;
  if (u->num_out > 3)
    zn_warn(u->s->I->c, zn_unode_where(u), "outputs saved_mean and saved_var of old versions are dropped");
  if (u->num_out > 1) {
    u->num_out = u->num_out > 3 ? 3 : u->num_out;
    zn_u_set_int(u, "training_mode", 1);
  }
  if (spatial || u->num_in < 5 || u->num_out != 1) return;
  for (uint32_t i = 0; i < 5; i++)
    if (!u->in[i]) return;
  per_activation_batchnorm(u, zn_u_float(u, "epsilon", 1e-5f));
}

void zn_up_cast_name(zn_unode *u) {
  static const struct {
    const char *name;
    int code;
  } types[] = {{"FLOAT", 1},  {"UINT8", 2}, {"INT8", 3},     {"UINT16", 4}, {"INT16", 5},   {"INT32", 6},   {"INT64", 7},
               {"STRING", 8}, {"BOOL", 9},  {"FLOAT16", 10}, {"DOUBLE", 11}, {"UINT32", 12}, {"UINT64", 13}};
  const char *to = zn_u_str(u, "to", NULL);
  for (size_t i = 0; to && i < sizeof types / sizeof *types; i++)
    if (!strcmp(to, types[i].name)) {
      zn_u_set_int(u, "to", types[i].code);
      return;
    }
}

void zn_up_clip(zn_unode *u) {
  bool has_min = zn_u_attr(u, "min"), has_max = zn_u_attr(u, "max");
  double min = zn_u_float(u, "min", 0), max = zn_u_float(u, "max", 0);
  if (!zn_u_in(u, 0)) return;
  if (has_min && min > -FLT_MAX) zn_u_set_in(u, 1, zn_u_scalar_like(u, min, u->in[0]));
  if (has_max && max < FLT_MAX) zn_u_set_in(u, 2, zn_u_scalar_like(u, max, u->in[0]));
}

void zn_up_concat(zn_unode *u) {
  if (!zn_u_attr(u, "axis")) zn_u_set_int(u, "axis", 1);
}

void zn_up_dft(zn_unode *u) {
  zn_u_set_in(u, 2, zn_graph_const_scalar(u->s->g, ZN_I64, (double)zn_u_int(u, "axis", 1)));
}

/* Inference: the ratio means nothing. */
void zn_up_dropout(zn_unode *u) {
  zn_u_del(u, "ratio");
  zn_u_del(u, "is_test");
}

void zn_up_gemm(zn_unode *u) { zn_u_del(u, "broadcast"); }

void zn_up_lp_p(zn_unode *u) {
  const zn_attr *a = zn_u_attr(u, "p");
  if (a && a->kind == ZN_A_FLOAT && a->u.f == floor(a->u.f)) zn_u_set_int(u, "p", (int64_t)a->u.f);
}

void zn_up_gridsample(zn_unode *u) {
  const char *mode = zn_u_str(u, "mode", "bilinear");
  if (!strcmp(mode, "bilinear")) zn_u_set_str(u, "mode", "linear");
  else if (!strcmp(mode, "bicubic")) zn_u_set_str(u, "mode", "cubic");
}

/* Before 21 scale and bias have one element per group: repeat them for the channels of the group. */
void zn_up_groupnorm(zn_unode *u) {
  const zn_attr *a = zn_u_attr(u, "num_groups");
  if (!a || a->kind != ZN_A_INT || a->u.i < 1 || !zn_u_in(u, 0)) return;
  zn_nid shape = zn_u_node(u, ZN_OP_Shape, &u->in[0], 1);
  zn_node_set_int(u->s->g, shape, "start", 1);
  zn_node_set_int(u->s->g, shape, "end", 2);
  zn_vid groups = zn_u_i64(u, a->u.i);
  zn_vid per = zn_u_op2(u, ZN_OP_Div, zn_node_out(u->s->g, shape, 0), groups);
  zn_vid to = concat(u, groups, per), one = zn_u_i64(u, 1), flat = zn_u_i64(u, -1);
  for (uint32_t i = 1; i < 3; i++)
    if (zn_u_in(u, i)) {
      zn_vid wide = zn_u_op2(u, ZN_OP_Expand, zn_u_op2(u, ZN_OP_Unsqueeze, u->in[i], one), to);
      zn_u_set_in(u, i, zn_u_op2(u, ZN_OP_Reshape, wide, flat));
    }
}

void zn_up_rnn(zn_unode *u) {
  zn_u_del(u, "output_sequence");
  if (!strcmp(zn_u_str(u, "direction", ""), "foward")) zn_u_set_str(u, "direction", "forward"); /* sic: GRU-1 */
}

/* Before 13 the input is seen as a matrix, split at `axis`: Flatten, the operator over the last axis, and back. */
void zn_up_softmax(zn_unode *u) {
  int64_t axis = zn_u_int(u, "axis", 1);
  zn_vid x = zn_u_in(u, 0);
  int rank = rank_of(u, x);
  zn_u_set_int(u, "axis", -1);
  if (!x || axis == -1 || (rank >= 0 && axis == rank - 1)) return;
  zn_nid flat = zn_u_node(u, ZN_OP_Flatten, &x, 1);
  zn_node_set_int(u->s->g, flat, "axis", axis);
  zn_vid f = zn_node_out(u->s->g, flat, 0);
  zn_nid soft = zn_u_node(u, zn_op_find("", u->op), &f, 1);
  zn_node_set_int(u->s->g, soft, "axis", -1);
  zn_vid shape = zn_u_op1(u, ZN_OP_Shape, x);
  zn_unode_bind(u, 0, zn_u_op2(u, ZN_OP_Reshape, zn_node_out(u->s->g, soft, 0), shape));
  u->done = true;
}

void zn_up_pad_name(zn_unode *u) {
  zn_attr *a = zn_u_attr(u, "paddings");
  if (a) a->name = "pads";
}

void zn_up_pad(zn_unode *u) {
  double value = zn_u_float(u, "value", 0);
  const zn_attr *a = zn_u_attr(u, "pads");
  if (a && a->kind == ZN_A_INTS) zn_u_set_in(u, 1, zn_u_i64s(u, a->u.is, a->n));
  zn_u_del(u, "pads");
  if (value != 0 && zn_u_in(u, 0)) zn_u_set_in(u, 2, zn_u_scalar_like(u, value, u->in[0]));
}

void zn_up_axes(zn_unode *u) { zn_up_ints_to_input(u, "axes", 1); }

void zn_up_reshape(zn_unode *u) {
  const zn_attr *a = zn_u_attr(u, "shape");
  if (a && a->kind == ZN_A_INTS) zn_u_set_in(u, 1, zn_u_i64s(u, a->u.is, a->n));
  zn_u_del(u, "shape");
}

/* ---- Resize and Upsample ---- */

/* Do constant scales shrink (-1), grow (1), both (2) or are they unknown (0)? */
static int scale_direction(zn_unode *u, zn_vid scales) {
  const zn_htensor *t = u->s->g->vals[scales].cst;
  if (!t || t->dtype != ZN_F32) return 0;
  bool up = false, down = false;
  for (uint64_t i = 0; i < zn_htensor_count(t); i++) {
    double v = zn_load_f64(ZN_F32, t->data, i);
    up = up || v > 1;
    down = down || v < 1;
  }
  return up && down ? 2 : down ? -1 : 1;
}

/* Resize-10 and Upsample: coordinates out/scale; nearest takes the floor when growing, the ceiling when shrinking. */
static void legacy_resize(zn_unode *u, zn_vid scales) {
  const char *mode = zn_u_str(u, "mode", "nearest");
  int dir = scale_direction(u, scales);
  bool nearest = !strcmp(mode, "nearest");
  if (nearest && dir == 2)
    zn_imp_problem(u->s->I, zn_unode_where(u), true, "export with opset 11 or later",
                   "nearest %s that grows one dimension and shrinks another", u->op);
  if (!strcmp(mode, "bilinear")) zn_u_set_str(u, "mode", "linear");
  zn_u_set_str(u, "coordinate_transformation_mode", "asymmetric");
  if (nearest) zn_u_set_str(u, "nearest_mode", dir < 0 ? "ceil" : "floor");
  u->op = "Resize";
  u->num_in = 1;
  zn_u_set_in(u, 2, scales);
}

void zn_up_resize_10(zn_unode *u) {
  if (zn_u_in(u, 1)) legacy_resize(u, u->in[1]);
}

/* Resize-11 only: nearest at floor((x + 0.5) / scale) is what half_pixel with round_prefer_ceil takes. */
void zn_up_resize_11(zn_unode *u) {
  if (strcmp(zn_u_str(u, "coordinate_transformation_mode", ""), "tf_half_pixel_for_nn") != 0) return;
  if (!strcmp(zn_u_str(u, "mode", "nearest"), "nearest") &&
      !strcmp(zn_u_str(u, "nearest_mode", "round_prefer_floor"), "floor")) {
    zn_u_set_str(u, "coordinate_transformation_mode", "half_pixel");
    zn_u_set_str(u, "nearest_mode", "round_prefer_ceil");
    return;
  }
  zn_imp_problem(u->s->I, zn_unode_where(u), true, "export with opset 13 or later",
                 "tf_half_pixel_for_nn in another mode than nearest with floor");
}

/* roi, scales and sizes without elements are absent. */
void zn_up_resize_empty(zn_unode *u) {
  for (uint32_t i = 1; i < u->num_in; i++) {
    const zn_htensor *t = u->in[i] ? u->s->g->vals[u->in[i]].cst : NULL;
    if (t && zn_htensor_count(t) == 0) u->in[i] = 0;
  }
}

static zn_vid f32s(zn_unode *u, const double *v, uint32_t n) {
  int64_t dims[1] = {n};
  zn_htensor *t = ZN_NEW(u->s->I->ga, zn_htensor);
  *t = zn_htensor_new(u->s->I->ga, ZN_F32, 1, dims);
  for (uint32_t i = 0; i < n; i++) zn_store_f64(ZN_F32, t->data, i, v[i]);
  return zn_graph_const(u->s->g, NULL, t);
}

void zn_up_upsample(zn_unode *u) {
  const zn_attr *a = zn_u_attr(u, "scales");
  zn_vid scales = zn_u_in(u, 1);
  if (a && a->kind == ZN_A_FLOATS) scales = f32s(u, a->u.fs, a->n);
  if (!scales && zn_u_attr(u, "height_scale")) {
    double v[4] = {1, 1, zn_u_float(u, "height_scale", 1), zn_u_float(u, "width_scale", 1)};
    scales = f32s(u, v, 4);
  }
  zn_u_del(u, "scales");
  if (scales) legacy_resize(u, scales);
}

/* ---- the rest ---- */

void zn_up_roialign(zn_unode *u) { zn_u_set_str(u, "coordinate_transformation_mode", "output_half_pixel"); }

void zn_up_scatter(zn_unode *u) { u->op = "ScatterElements"; }

void zn_up_selu(zn_unode *u) {
  if (!zn_u_attr(u, "alpha")) zn_u_set_float(u, "alpha", 1.6732f);
  if (!zn_u_attr(u, "gamma")) zn_u_set_float(u, "gamma", 1.0507f);
}

void zn_up_slice(zn_unode *u) {
  zn_up_ints_to_input(u, "starts", 1);
  zn_up_ints_to_input(u, "ends", 2);
  zn_up_ints_to_input(u, "axes", 3);
}

void zn_up_split(zn_unode *u) {
  const zn_vid sizes = zn_u_in(u, 1); /* version 1 had them as numbers of the type of the data */
  if (sizes) u->in[1] = zn_u_cast(u, sizes, ZN_I64);
  zn_up_ints_to_input(u, "split", 1);
}

void zn_up_split_outputs(zn_unode *u) {
  if (!zn_u_in(u, 1)) zn_u_set_int(u, "num_outputs", u->num_out);
}

/* Tile-1: (input, tiles, axis), both scalars: repeats is all ones but for tiles at axis. */
void zn_up_tile(zn_unode *u) {
  if (u->num_in != 3 || !u->in[0] || !u->in[1] || !u->in[2]) return;
  zn_vid one = zn_u_i64(u, 1), x[2];
  for (int i = 0; i < 2; i++) {
    zn_nid cast = zn_u_node(u, ZN_OP_Cast, &u->in[1 + i], 1);
    zn_node_set_int(u->s->g, cast, "to", 7);
    x[i] = zn_u_op2(u, ZN_OP_Reshape, zn_node_out(u->s->g, cast, 0), one);
  }
  zn_vid in[3] = {ones(u, rank_value(u, u->in[0])), x[1], x[0]};
  u->num_in = 1;
  zn_u_set_in(u, 1, zn_u_op(u, ZN_OP_ScatterElements, in, 3));
}

void zn_up_topk(zn_unode *u) {
  const zn_attr *a = zn_u_attr(u, "k");
  if (a && a->kind == ZN_A_INT) zn_u_set_in(u, 1, zn_u_i64(u, a->u.i));
  zn_u_del(u, "k");
}
