/* Gather, GatherElements, GatherND: the index tensor is read at run time; negative indices count from the end, indices
 * outside the operand set the run's error code and read element 0. Pad and one-hot kinds of selection by comparison. */
#include <string.h>

#include "codegen/lower/lower.h"

/* A loaded index as expression in [0, extent). */
zn_expr zn_lw_checked_index(zn_lw *lw, zn_kref raw, zn_expr extent) {
  zn_kb *b = &lw->kb;
  zn_kref i = zn_kb_cvt(b, raw, ZN_IDX), n = zn_lw_ix(lw, extent), zero = zn_kb_idx(b, 0);
  int64_t c, lo, hi;
  zn_ex_range(lw->ex, extent, &lo, &hi);
  if (zn_kf_const_int(b->f, i, &c) && (c < 0 ? -c <= lo : c < lo))
    return c < 0 ? zn_ex_addi(lw->ex, extent, c) : zn_ex_const(lw->ex, c);
  zn_kref neg = zn_kb_cmp(b, ZN_K_Lt, i, zero), up = zn_kb_bin(b, ZN_K_Add, i, n);
  i = zn_kb_select(b, neg, up, i);
  zn_kref below = zn_kb_cmp(b, ZN_K_Lt, i, zero), above = zn_kb_cmp(b, ZN_K_Ge, i, n);
  zn_kref bad = zn_kb_bin(b, ZN_K_Or, below, above);
  zn_lw_fail_if(lw, bad, 8 /* ZN_RUN_INDEX */);
  return zn_lw_as_expr(lw, zn_kb_select(b, bad, zero, i), extent);
}

static int axis_of(const zn_lw *lw, const zn_node *n) {
  int64_t a = zn_node_int(n, "axis");
  return (int)(a < 0 ? a + zn_lw_type(lw, n->in[0])->rank : a);
}

static zn_kref gather_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid x = node->in[0], indices = node->in[1];
  int axis = axis_of(lw, node), r = zn_lw_type(lw, x)->rank, q = zn_lw_type(lw, indices)->rank;
  zn_expr at[ZN_MAX_RANK];
  zn_kref raw = zn_lw_load(lw, indices, idx + axis);
  for (int d = 0; d < axis; d++) at[d] = idx[d];
  at[axis] = zn_lw_checked_index(lw, raw, zn_lw_dim(lw, x, axis));
  for (int d = axis + 1; d < r; d++) at[d] = idx[d - 1 + q];
  return zn_lw_load(lw, x, at);
}
const zn_lower zn_lower_gather = {gather_point, NULL};

static zn_kref gatherelements_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid x = node->in[0], indices = node->in[1];
  int axis = axis_of(lw, node), r = zn_lw_type(lw, x)->rank;
  zn_expr at[ZN_MAX_RANK];
  zn_kref raw = zn_lw_load(lw, indices, idx);
  for (int d = 0; d < r; d++) at[d] = idx[d];
  at[axis] = zn_lw_checked_index(lw, raw, zn_lw_dim(lw, x, axis));
  return zn_lw_load(lw, x, at);
}
const zn_lower zn_lower_gatherelements = {gatherelements_point, NULL};

static zn_kref gathernd_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid x = node->in[0], indices = node->in[1];
  const zn_type *ti = zn_lw_type(lw, indices);
  int q = ti->rank, r = zn_lw_type(lw, x)->rank, batch = (int)zn_node_int(node, "batch_dims");
  int64_t depth = 0;
  zn_ex_is_const(lw->ex, ti->dims[q - 1], &depth);
  zn_expr at[ZN_MAX_RANK], where[ZN_MAX_RANK];
  for (int d = 0; d < q - 1; d++) where[d] = idx[d];
  for (int d = 0; d < batch; d++) at[d] = idx[d];
  for (int k = 0; k < depth; k++) {
    where[q - 1] = zn_ex_const(lw->ex, k);
    zn_kref raw = zn_lw_load(lw, indices, where);
    at[batch + k] = zn_lw_checked_index(lw, raw, zn_lw_dim(lw, x, batch + k));
  }
  for (int d = batch + (int)depth, o = q - 1; d < r; d++, o++) at[d] = idx[o];
  return zn_lw_load(lw, x, at);
}
const zn_lower zn_lower_gathernd = {gathernd_point, NULL};
