/* Selections by position: EyeLike, Trilu, OneHot, ReverseSequence; SpaceToDepth and DepthToSpace as index maps. */
#include "codegen/lower/lower.h"

static zn_kref one_of(zn_lw *lw, zn_dtype ct, bool one) {
  if (ct == ZN_PTR || !one) return zn_lw_zero(lw, ct);
  return zn_is_float(ct) ? zn_kb_float(&lw->kb, ct, 1) : zn_kb_int(&lw->kb, ct, 1);
}

static zn_kref eyelike_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_dtype ct = zn_lw_ctype((zn_dtype)zn_lw_type(lw, node->out[out])->dtype);
  zn_expr diag = zn_ex_addi(lw->ex, idx[0], zn_node_int(node, "k"));
  zn_kref a = zn_lw_ix(lw, diag), c = zn_lw_ix(lw, idx[1]);
  zn_kref eq = zn_kb_cmp(&lw->kb, ZN_K_Eq, a, c), one = one_of(lw, ct, true), zero = one_of(lw, ct, false);
  return zn_kb_select(&lw->kb, eq, one, zero);
}
const zn_lower zn_lower_eyelike = {eyelike_point, NULL};

static zn_kref trilu_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  const zn_type *t = zn_lw_type(lw, node->out[out]);
  zn_kb *b = &lw->kb;
  zn_vid kv = zn_node_in(node, 1);
  zn_kref k = kv ? zn_kb_cvt(b, zn_lw_load(lw, kv, (zn_expr[1]){zn_ex_const(lw->ex, 0)}), ZN_IDX)
                 : zn_kb_idx(b, 0);
  zn_kref row = zn_lw_ix(lw, idx[t->rank - 2]), col = zn_lw_ix(lw, idx[t->rank - 1]);
  zn_kref diag = zn_kb_bin(b, ZN_K_Add, row, k);
  bool upper = zn_node_int(zn_lw_node(lw, n), "upper") != 0;
  zn_kref keep = zn_kb_cmp(b, upper ? ZN_K_Ge : ZN_K_Le, col, diag);
  zn_kref x = zn_lw_load(lw, zn_lw_node(lw, n)->in[0], idx), zero = one_of(lw, zn_lw_kdtype(lw, x), false);
  return zn_kb_select(b, keep, x, zero);
}
const zn_lower zn_lower_trilu = {trilu_point, NULL};

static zn_kref onehot_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_kb *b = &lw->kb;
  const zn_type *t = zn_lw_type(lw, node->out[out]);
  int64_t a = zn_node_int(node, "axis");
  int axis = (int)(a < 0 ? a + t->rank : a);
  zn_expr at[ZN_MAX_RANK];
  for (int d = 0, k = 0; d < t->rank; d++)
    if (d != axis) at[k++] = idx[d];
  zn_vid values = node->in[2];
  zn_kref raw = zn_lw_load(lw, node->in[0], at);
  zn_kref i = zn_kb_cvt(b, raw, ZN_I64), depth = zn_kb_cvt(b, zn_lw_ix(lw, t->dims[axis]), ZN_I64);
  zn_kref neg = zn_kb_cmp(b, ZN_K_Lt, i, zn_kb_int(b, ZN_I64, 0)), up = zn_kb_bin(b, ZN_K_Add, i, depth);
  i = zn_kb_select(b, neg, up, i);
  zn_kref here = zn_kb_cvt(b, zn_lw_ix(lw, idx[axis]), ZN_I64);
  zn_kref hit = zn_kb_cmp(b, ZN_K_Eq, i, here);
  zn_expr e0 = zn_ex_const(lw->ex, 0), e1 = zn_ex_const(lw->ex, 1);
  zn_kref off = zn_lw_load(lw, values, &e0), on = zn_lw_load(lw, values, &e1);
  return zn_kb_select(b, hit, on, off);
}
const zn_lower zn_lower_onehot = {onehot_point, NULL};

static zn_kref reversesequence_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_kb *b = &lw->kb;
  const zn_type *t = zn_lw_type(lw, node->out[out]);
  int64_t batch = zn_node_int(node, "batch_axis"), time = zn_node_int(node, "time_axis");
  zn_expr at[ZN_MAX_RANK];
  for (int d = 0; d < t->rank; d++) at[d] = idx[d];
  zn_vid x = node->in[0];
  zn_kref len = zn_kb_cvt(b, zn_lw_load(lw, node->in[1], &idx[batch]), ZN_IDX);
  zn_kref i = zn_lw_ix(lw, idx[time]);
  zn_kref inside = zn_kb_cmp(b, ZN_K_Lt, i, len), last = zn_kb_bin(b, ZN_K_Sub, len, zn_kb_idx(b, 1));
  zn_kref back = zn_kb_bin(b, ZN_K_Sub, last, i);
  zn_kref from = zn_kb_select(b, inside, back, i), top = zn_lw_ix(lw, zn_ex_addi(lw->ex, t->dims[time], -1));
  from = zn_kb_bin(b, ZN_K_Min, from, top); /* a length beyond the axis must not read outside */
  at[time] = zn_lw_as_expr(lw, from, t->dims[time]);
  return zn_lw_load(lw, x, at);
}
const zn_lower zn_lower_reversesequence = {reversesequence_point, NULL};
