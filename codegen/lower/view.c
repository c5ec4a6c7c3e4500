/* Views: operators that only move elements. Each is an index map from output to input, so that it folds into whatever
 * reads it; Concat is the exception, one copy loop per operand. */
#include <assert.h>

#include "codegen/lower/inplace.h"
#include "codegen/lower/program.h"
#include "zenithc/ops/slice.h"

/* ---------------------------------------------------------------- Reshape and relatives */

static zn_expr product(zn_exprs *ex, const zn_expr *d, int from, int to) {
  zn_expr p = zn_ex_const(ex, 1);
  for (int i = from; i < to; i++) p = zn_ex_mul(ex, p, d[i]);
  return p;
}

/* Index map of a row-major reshape. Axes are cut into the smallest runs of equal products, so that only axes that are
 * really split or merged need division. */
static void reshape_index(zn_exprs *ex, const zn_type *out, const zn_expr *idx, const zn_type *in,
                          zn_expr *out_idx) {
  int i = 0, o = 0;
  while (i < in->rank || o < out->rank) {
    int bi = in->rank, bo = out->rank;
    for (int sum = 1; sum <= in->rank - i + out->rank - o; sum++) {
      bool found = false;
      for (int a = 0; a <= sum && !found; a++) {
        int e = i + a, f = o + (sum - a);
        if (e > in->rank || f > out->rank) continue;
        if (product(ex, in->dims, i, e) != product(ex, out->dims, o, f)) continue;
        bi = e, bo = f, found = true;
      }
      if (found) break;
    }
    zn_expr flat = zn_ex_const(ex, 0);
    for (int k = o; k < bo; k++) flat = zn_ex_add(ex, zn_ex_mul(ex, flat, out->dims[k]), idx[k]);
    for (int k = bi - 1; k > i; k--) {
      out_idx[k] = zn_ex_mod(ex, flat, in->dims[k]);
      flat = zn_ex_div(ex, flat, in->dims[k]);
    }
    if (bi > i) out_idx[i] = flat;
    i = bi, o = bo;
  }
}

static zn_kref reshape_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_expr at[ZN_MAX_RANK];
  reshape_index(lw->ex, zn_lw_type(lw, node->out[out]), idx, zn_lw_type(lw, node->in[0]), at);
  return zn_lw_load(lw, node->in[0], at);
}
const zn_lower zn_lower_reshape = {reshape_point, NULL};

static zn_kref transpose_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  const zn_node *node = zn_lw_node(lw, n);
  int rank = zn_lw_type(lw, node->in[0])->rank;
  uint32_t count;
  const int64_t *perm = zn_node_ints(node, "perm", &count);
  zn_expr at[ZN_MAX_RANK];
  for (int d = 0; d < rank; d++) at[perm && count ? perm[d] : rank - 1 - d] = idx[d];
  return zn_lw_load(lw, node->in[0], at);
}
const zn_lower zn_lower_transpose = {transpose_point, NULL};

static zn_kref expand_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  const zn_type *t = zn_lw_type(lw, node->out[out]);
  return zn_lw_load_bcast(lw, node->in[0], t->rank, t->dims, idx);
}
const zn_lower zn_lower_expand = {expand_point, NULL};

static zn_kref tile_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  const zn_node *node = zn_lw_node(lw, n);
  const zn_type *t = zn_lw_type(lw, node->in[0]);
  zn_expr at[ZN_MAX_RANK];
  for (int d = 0; d < t->rank; d++) at[d] = zn_ex_mod(lw->ex, idx[d], t->dims[d]);
  return zn_lw_load(lw, node->in[0], at);
}
const zn_lower zn_lower_tile = {tile_point, NULL};

/* ---------------------------------------------------------------- Slice */

static zn_kref slice_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  const zn_node *node = zn_lw_node(lw, n);
  zn_expr start[ZN_MAX_RANK], step[ZN_MAX_RANK], count[ZN_MAX_RANK], at[ZN_MAX_RANK];
  int rank = zn_lw_type(lw, node->in[0])->rank;
  if (!zn_slice_resolve(lw->g, node, start, step, count))
    ZN_BUG(lw->ctx, "%s: unresolved slice", zn_node_where(lw->ctx, node));
  for (int d = 0; d < rank; d++)
    at[d] = zn_ex_add(lw->ex, start[d], zn_ex_mul(lw->ex, idx[d], step[d]));
  return zn_lw_load(lw, node->in[0], at);
}
const zn_lower zn_lower_slice = {slice_point, NULL};

/* ---------------------------------------------------------------- Concat, Split */

static int node_axis(const zn_lw *lw, const zn_node *n, zn_vid like) {
  int64_t a = zn_node_int(n, "axis");
  return (int)(a < 0 ? a + zn_lw_type(lw, like)->rank : a);
}

static zn_kref split_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  int axis = node_axis(lw, node, node->in[0]), rank = zn_lw_type(lw, node->in[0])->rank;
  zn_expr at[ZN_MAX_RANK], off = zn_ex_const(lw->ex, 0);
  for (uint32_t i = 0; i < out; i++)
    if (node->out[i]) off = zn_ex_add(lw->ex, off, zn_lw_dim(lw, node->out[i], axis));
  for (int d = 0; d < rank; d++) at[d] = idx[d];
  at[axis] = zn_ex_add(lw->ex, idx[axis], off);
  return zn_lw_load(lw, node->in[0], at);
}
const zn_lower zn_lower_split = {split_point, NULL};

/* One operand, in the order in which it is stored. */
static void concat_operand(zn_lw *lw, zn_nid n, zn_vid in, int axis, zn_expr offset) {
  const zn_type t = *zn_lw_type(lw, in);
  zn_vid out = zn_lw_node(lw, n)->out[0];
  zn_expr at[ZN_MAX_RANK], to[ZN_MAX_RANK];
  zn_lw_kernel(lw, n, "concat");
  int loops = zn_lw_over(lw, in, 4, at);
  for (int d = 0; d < t.rank; d++) to[d] = at[d];
  to[axis] = zn_ex_add(lw->ex, at[axis], offset);
  zn_lw_emit(lw, out, to, zn_lw_load(lw, in, at));
  while (loops-- > 0) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

static bool is_plain(const zn_value *v) { return zn_layout_is_plain(&v->layout); }

/* The first operand, whose memory the result lies over: runs move apart, the last one first, by way of the stack. */
static void concat_apart(zn_lw *lw, zn_nid n, zn_vid in, zn_expr outer, zn_expr run, zn_expr stride) {
  enum { CHUNK = 1024 };
  zn_exprs *ex = lw->ex;
  zn_dtype t = (zn_dtype)zn_lw_type(lw, in)->dtype, ct = zn_lw_ctype(t);
  zn_expr one = zn_ex_const(ex, 1), chunk = zn_ex_const(ex, CHUNK), pieces = zn_ex_ceildiv(ex, run, chunk);
  if (zn_ex_is(ex, outer, 1)) return;
  zn_lw_kernel(lw, n, "concat_apart");
  zn_kref hold = zn_kb_alloc(&lw->kb, ct, CHUNK), p = zn_lw_ptr(lw, zn_lw_node(lw, n)->out[0], ZN_KP_INOUT);
  zn_expr r = zn_lw_for(lw, zn_ex_sub(ex, outer, one), ZN_FOR_SERIAL, 0);
  zn_expr c = zn_lw_for(lw, pieces, ZN_FOR_SERIAL, 0);
  r = zn_ex_sub(ex, zn_ex_sub(ex, outer, one), r);
  zn_expr base = zn_ex_mul(ex, zn_ex_sub(ex, zn_ex_sub(ex, pieces, one), c), chunk);
  zn_expr len = zn_ex_min(ex, chunk, zn_ex_sub(ex, run, base));
  for (int back = 0; back < 2; back++) {
    zn_expr i = zn_lw_for(lw, len, ZN_FOR_VECTOR, 0), line = zn_ex_mul(ex, r, back ? stride : run);
    zn_expr at = zn_ex_add(ex, line, zn_ex_add(ex, base, i));
    if (back) zn_lw_store_at(lw, p, t, at, zn_lw_load_at(lw, hold, ct, i));
    else zn_lw_store_at(lw, hold, ct, i, zn_lw_load_at(lw, p, t, at));
    zn_lw_end(lw);
  }
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* A stored operand: the axes from `axis` on are one run of memory in both tensors. False when they are not. */
static bool concat_runs(zn_lw *lw, zn_nid n, zn_vid in, int axis, zn_expr offset) {
  enum { CHUNK = 4096, VECTORS = 4 };
  zn_exprs *ex = lw->ex;
  zn_vid out = zn_lw_node(lw, n)->out[0];
  const zn_value *v = &lw->g->vals[in];
  if (!is_plain(v) || !is_plain(&lw->g->vals[out]) || !zn_lw_is_stored(lw, in)) return false;
  if (!v->cst && zn_value_known(v)) return false;
  zn_expr one = zn_ex_const(ex, 1), outer = one, inner = one;
  for (int d = 0; d < v->type.rank; d++) {
    if (d < axis) outer = zn_ex_mul(ex, outer, v->type.dims[d]);
    if (d > axis) inner = zn_ex_mul(ex, inner, v->type.dims[d]);
  }
  zn_expr run = zn_ex_mul(ex, inner, zn_lw_dim(lw, in, axis)), stride = zn_ex_mul(ex, inner, zn_lw_dim(lw, out, axis));
  zn_dtype t = (zn_dtype)v->type.dtype;
  zn_expr extents[2] = {outer, zn_ex_ceildiv(ex, run, zn_ex_const(ex, CHUNK))}, at[2];
  const zn_loc to_loc = zn_lw_loc(lw, out);
  const bool over = zn_over_input(lw, zn_lw_loc(lw, in), to_loc);
  if (over) {
    zn_over_input_if(lw, to_loc);
    concat_apart(lw, n, in, outer, run, stride);
    zn_over_input_else(lw);
  }
  zn_lw_kernel(lw, n, "concat");
  zn_lw_grid(lw, 2, extents, at);
  zn_expr base = zn_ex_muli(ex, at[1], CHUNK), len = zn_ex_const(ex, CHUNK);
  int64_t whole;
  if (!zn_ex_is_const(ex, run, &whole) || whole % CHUNK) len = zn_ex_min(ex, len, zn_ex_sub(ex, run, base));
  zn_expr i = zn_ex_add(ex, base, zn_lw_for(lw, len, ZN_FOR_VECTOR, VECTORS * zn_lw_lanes(lw, t)));
  zn_expr from = zn_ex_add(ex, zn_ex_mul(ex, at[0], run), i);
  zn_expr place = zn_ex_add(ex, zn_ex_mul(ex, offset, inner), i);
  zn_expr to = zn_ex_add(ex, zn_ex_mul(ex, at[0], stride), place);
  zn_kref src = zn_lw_ptr(lw, in, ZN_KP_IN), dst = zn_lw_ptr(lw, out, ZN_KP_OUT);
  zn_lw_store_at(lw, dst, t, to, zn_lw_load_at(lw, src, t, from));
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  if (over) zn_over_input_end(lw);
  return true;
}

static zn_status concat_kernel(zn_lw *lw, zn_nid n) {
  int axis = node_axis(lw, zn_lw_node(lw, n), zn_lw_node(lw, n)->out[0]);
  zn_expr offset = zn_ex_const(lw->ex, 0);
  for (uint32_t i = 0; i < zn_lw_node(lw, n)->num_in; i++) {
    zn_vid in = zn_lw_node(lw, n)->in[i];
    zn_vid out = zn_lw_node(lw, n)->out[0];
    int64_t first;
    bool there = zn_lw_lies_in(lw, in, out);
    if (axis == zn_lw_type(lw, in)->rank - 2 && zn_ex_is_const(lw->ex, offset, &first))
      there |= zn_lw_rows_lie_in(lw, in, out, first);
    bool nothing = there || zn_ex_is(lw->ex, zn_lw_dim(lw, in, axis), 0);
    if (!nothing && !concat_runs(lw, n, in, axis, offset)) concat_operand(lw, n, in, axis, offset);
    offset = zn_ex_add(lw->ex, offset, zn_lw_dim(lw, in, axis));
  }
  return ZN_OK;
}
const zn_lower zn_lower_concat = {NULL, concat_kernel};

/* ---------------------------------------------------------------- generators */

/* Shape and Size are always known element by element: zn_lw_load answers before this is asked. */
static zn_kref known_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  (void)idx;
  ZN_BUG(lw->ctx, "%s: its elements are unknown", zn_node_where(lw->ctx, zn_lw_node(lw, n)));
}
const zn_lower zn_lower_shape = {known_point, NULL};
const zn_lower zn_lower_size = {known_point, NULL};

static zn_kref constantofshape_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)idx;
  const zn_node *node = zn_lw_node(lw, n);
  zn_dtype t = (zn_dtype)zn_lw_type(lw, node->out[out])->dtype, ct = zn_lw_ctype(t);
  const zn_attr *a = zn_node_attr(node, "value");
  if (!a) return zn_kb_float(&lw->kb, ct, 0);
  const zn_htensor *v = a->u.t;
  if (zn_is_float(t)) return zn_kb_float(&lw->kb, ct, zn_load_f64(v->dtype, v->data, 0));
  return zn_kb_int(&lw->kb, ct, zn_load_i64(v->dtype, v->data, 0));
}
const zn_lower zn_lower_constantofshape = {constantofshape_point, NULL};

static zn_kref range_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_dtype ct = zn_lw_ctype((zn_dtype)zn_lw_type(lw, node->out[out])->dtype);
  zn_kref start = zn_lw_load(lw, node->in[0], NULL);
  zn_kref delta = zn_lw_load(lw, zn_lw_node(lw, n)->in[2], NULL);
  zn_kref i = zn_kb_cvt(&lw->kb, zn_lw_ix(lw, idx[0]), ct);
  zn_kref step = zn_kb_bin(&lw->kb, ZN_K_Mul, i, delta);
  return zn_kb_bin(&lw->kb, ZN_K_Add, start, step);
}
/* The length of a Range of floats that only the run knows: max(0, ceil((limit - start) / delta)) in double. */
void zn_lower_range_length(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_expr len = zn_lw_dim(lw, node->out[0], 0), zero = zn_ex_const(lw->ex, 0);
  zn_vid in[3] = {node->in[0], node->in[1], node->in[2]};
  if (!zn_is_float((zn_dtype)zn_lw_type(lw, in[0])->dtype) || zn_ex_kind(lw->ex, len) != ZN_EX_SYM) return;
  zn_loc cell = zn_lw_scratch(lw, zn_ex_const(lw->ex, 8));
  zn_lw_kernel(lw, n, "range_length");
  zn_kb *b = &lw->kb;
  zn_kref v[3], none = zn_kb_float(b, ZN_F64, 0), top = zn_kb_float(b, ZN_F64, 0x1p40);
  for (int i = 0; i < 3; i++) v[i] = zn_kb_cvt(b, zn_lw_load(lw, in[i], &zero), ZN_F64);
  zn_kref q = zn_kb_un(b, ZN_K_Ceil, zn_kb_bin(b, ZN_K_Div, zn_kb_bin(b, ZN_K_Sub, v[1], v[0]), v[2]));
  zn_kref some = zn_kb_cmp(b, ZN_K_Gt, q, none); /* false for what is not a number */
  q = zn_kb_select(b, some, zn_kb_bin(b, ZN_K_Min, q, top), none);
  zn_kref p = zn_lw_ptr_loc(lw, cell, ZN_KP_OUT, ZN_I64), at = zn_kb_idx(b, 0);
  zn_kb_store(b, p, at, zn_kb_cvt(b, q, ZN_I64));
  zn_lw_kernel_end(lw);
  zn_lw_define_sym(lw, len, cell);
}
const zn_lower zn_lower_range = {range_point, NULL};
