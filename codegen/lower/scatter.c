/* ScatterElements, ScatterND, TensorScatter: the operand is copied, then the updates are applied. Updates that may meet at
 * one element are applied in index order by one thread; different lines of ScatterElements are independent. */
#include <string.h>

#include "codegen/lower/lower.h"

typedef enum scat { SET, ADD, MUL, MIN, MAX } scat;

static scat reduction_of(const zn_node *n) {
  static const char *const names[] = {"none", "add", "mul", "min", "max"};
  const char *r = zn_node_str(n, "reduction");
  for (int i = 0; i < 5; i++)
    if (!strcmp(r, names[i])) return (scat)i;
  return SET;
}

static zn_kref combine(zn_lw *lw, scat s, zn_kref old, zn_kref x) {
  static const uint8_t op[] = {0, ZN_K_Add, ZN_K_Mul, ZN_K_Min, ZN_K_Max};
  zn_kb *b = &lw->kb;
  zn_dtype t = zn_lw_kdtype(lw, x);
  if (s == SET) return x;
  if (t == ZN_BOOL) return zn_kb_bin(b, s == ADD || s == MAX ? ZN_K_Or : ZN_K_And, old, x);
  zn_kref r = zn_kb_bin(b, (zn_kop)op[s], old, x); /* passes a NaN in x */
  if (s < MIN || !zn_is_float(t)) return r;
  zn_kref nan = zn_kb_cmp(b, ZN_K_Ne, old, old);
  return zn_kb_select(b, nan, old, r);
}

/* The same of complex numbers: sums and products. */
static void combine_complex(zn_lw *lw, scat s, zn_kref p, zn_dtype t, zn_expr off, zn_kref x) {
  zn_kb *b = &lw->kb;
  zn_kref old = zn_lw_load_at(lw, p, t, off), u[2], v[2];
  for (int k = 0; k < 2; k++) u[k] = zn_lw_part(lw, old, t, k), v[k] = zn_lw_part(lw, x, t, k);
  if (s == ADD) {
    zn_kref re = zn_kb_bin(b, ZN_K_Add, u[0], v[0]), im = zn_kb_bin(b, ZN_K_Add, u[1], v[1]);
    zn_lw_store_complex(lw, p, t, off, re, im);
    return;
  }
  zn_kref rr = zn_kb_bin(b, ZN_K_Mul, u[0], v[0]), ii = zn_kb_bin(b, ZN_K_Mul, u[1], v[1]);
  zn_kref ri = zn_kb_bin(b, ZN_K_Mul, u[0], v[1]), ir = zn_kb_bin(b, ZN_K_Mul, u[1], v[0]);
  zn_kref re = zn_kb_bin(b, ZN_K_Sub, rr, ii), im = zn_kb_bin(b, ZN_K_Add, ri, ir);
  zn_lw_store_complex(lw, p, t, off, re, im);
}

/* y[idx] = combine(y[idx], x) */
static void update(zn_lw *lw, scat s, zn_vid y, const zn_expr *idx, zn_kref x) {
  zn_dtype t = (zn_dtype)zn_lw_type(lw, y)->dtype;
  zn_kref p = zn_lw_ptr(lw, y, s == SET ? ZN_KP_OUT : ZN_KP_INOUT);
  zn_expr off = zn_lw_offset(lw, y, idx);
  if (s != SET && zn_dtypes[t].cls == 'C') {
    combine_complex(lw, s, p, t, off, x);
    return;
  }
  zn_kref old = s == SET ? 0 : zn_lw_load_at(lw, p, t, off);
  zn_lw_store_at(lw, p, t, off, combine(lw, s, old, x));
}

static void copy_operand(zn_lw *lw, zn_nid n) {
  zn_vid x = zn_lw_node(lw, n)->in[0], y = zn_lw_node(lw, n)->out[0];
  const zn_type t = *zn_lw_type(lw, x);
  if (!lw->g->vals[x].elems || lw->g->vals[x].cst) {
    zn_loc to = zn_lw_loc(lw, y);
    zn_lw_copy(lw, n, &t, zn_lw_loc(lw, x), to);
    return;
  }
  zn_expr idx[ZN_MAX_RANK]; /* shape arithmetic: not in memory */
  zn_lw_kernel(lw, n, "scatter_copy");
  for (int d = 0; d < t.rank; d++) idx[d] = zn_lw_for(lw, t.dims[d], ZN_FOR_SERIAL, 0);
  zn_lw_store(lw, y, idx, zn_lw_load(lw, x, idx));
  for (int d = 0; d < t.rank; d++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

static zn_status scatterelements_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid y = node->out[0], indices = node->in[1], updates = node->in[2];
  const zn_type ti = *zn_lw_type(lw, indices);
  int64_t a = zn_node_int(node, "axis");
  int axis = (int)(a < 0 ? a + ti.rank : a);
  scat s = reduction_of(node);
  copy_operand(lw, n);
  zn_lw_kernel(lw, n, "scatter_elements");
  zn_expr extents[ZN_MAX_RANK], vars[ZN_MAX_RANK], idx[ZN_MAX_RANK];
  uint32_t g = 0;
  for (int d = 0; d < ti.rank; d++)
    if (d != axis) extents[g++] = ti.dims[d];
  zn_lw_grid(lw, g, extents, vars);
  for (int d = 0, k = 0; d < ti.rank; d++)
    if (d != axis) idx[d] = vars[k++];
  idx[axis] = zn_lw_for(lw, ti.dims[axis], ZN_FOR_SERIAL, 0);
  zn_kref raw = zn_lw_load(lw, indices, idx), x = zn_lw_load(lw, updates, idx);
  idx[axis] = zn_lw_checked_index(lw, raw, zn_lw_dim(lw, y, axis));
  update(lw, s, y, idx, x);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_scatterelements = {NULL, scatterelements_kernel};

static zn_status scatternd_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid y = node->out[0], indices = node->in[1], updates = node->in[2];
  const zn_type ti = *zn_lw_type(lw, indices), ty = *zn_lw_type(lw, y);
  int64_t depth;
  int q = ti.rank - 1;
  if (!zn_ex_is_const(lw->ex, ti.dims[q], &depth))
    return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, node),
                   "the depth of the indices is not constant");
  scat s = reduction_of(node);
  copy_operand(lw, n);
  zn_lw_kernel(lw, n, "scatter_nd");
  zn_expr where[ZN_MAX_RANK], at[ZN_MAX_RANK], from[ZN_MAX_RANK];
  for (int d = 0; d < q; d++) from[d] = where[d] = zn_lw_for(lw, ti.dims[d], ZN_FOR_SERIAL, 0);
  for (int k = 0; k < depth; k++) {
    where[q] = zn_ex_const(lw->ex, k);
    zn_kref raw = zn_lw_load(lw, indices, where);
    at[k] = zn_lw_checked_index(lw, raw, ty.dims[k]);
  }
  for (int d = (int)depth; d < ty.rank; d++)
    at[d] = from[q + d - depth] = zn_lw_for(lw, ty.dims[d], d == ty.rank - 1 ? ZN_FOR_VECTOR : ZN_FOR_SERIAL, 0);
  zn_kref x = zn_lw_load(lw, updates, from);
  update(lw, s, y, at, x);
  for (int d = 0; d < q + ty.rank - (int)depth; d++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_scatternd = {NULL, scatternd_kernel};

/* present[.., start + i, ..] = update[.., i, ..] along the sequence axis, start per batch item. */
static zn_status tensorscatter_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid y = node->out[0], u = node->in[1], starts = zn_node_in(node, 2);
  const zn_type tu = *zn_lw_type(lw, u);
  int64_t a = zn_node_int(node, "axis");
  int axis = (int)(a < 0 ? a + tu.rank : a);
  bool circular = !strcmp(zn_node_str(node, "mode"), "circular");
  zn_expr room = zn_lw_dim(lw, y, axis);
  copy_operand(lw, n);
  zn_lw_kernel(lw, n, "tensor_scatter");
  zn_kb *b = &lw->kb;
  zn_expr idx[ZN_MAX_RANK], at[ZN_MAX_RANK];
  zn_lw_grid(lw, (uint32_t)axis, tu.dims, idx);
  for (int d = axis; d < tu.rank; d++)
    idx[d] = zn_lw_for(lw, tu.dims[d], d > axis && d == tu.rank - 1 ? ZN_FOR_VECTOR : ZN_FOR_SERIAL, 0);
  memcpy(at, idx, sizeof at);
  zn_kref x = zn_lw_load(lw, u, idx), i = zn_lw_ix(lw, idx[axis]), size = zn_lw_ix(lw, room);
  if (starts) {
    zn_kref start = zn_kb_cvt(b, zn_lw_load(lw, starts, idx), ZN_IDX);
    i = zn_kb_bin(b, ZN_K_Add, start, i);
  }
  if (circular) i = zn_kb_bin(b, ZN_K_Rem, i, size);
  zn_kref zero = zn_kb_idx(b, 0);
  zn_kref low = zn_kb_cmp(b, ZN_K_Ge, i, zero), high = zn_kb_cmp(b, ZN_K_Lt, i, size);
  zn_kref ok = zn_kb_bin(b, ZN_K_And, low, high);
  /* outside positions rewrite the operand's own first element of the line */
  at[axis] = zn_lw_as_expr(lw, zn_kb_select(b, ok, i, zero), room);
  zn_kref p = zn_lw_ptr(lw, y, ZN_KP_INOUT);
  zn_dtype t = (zn_dtype)tu.dtype;
  zn_kref old = zn_lw_load_at(lw, p, t, zn_lw_offset(lw, y, at));
  zn_kref kept = zn_kb_select(b, ok, x, old);
  zn_lw_store_at(lw, p, t, zn_lw_offset(lw, y, at), kept);
  for (int d = axis; d < tu.rank; d++) zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_tensorscatter = {NULL, tensorscatter_kernel};
