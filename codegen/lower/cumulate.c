/* CumSum and CumProd: one line along the axis per lane, in the accumulator type. */
#include "codegen/lower/lower.h"

static zn_kref neutral(zn_lw *lw, zn_nid n, const zn_type *t) {
  bool prod = zn_lw_node(lw, n)->op == ZN_OP_CumProd;
  zn_dtype ct = zn_lw_ctype((zn_dtype)t->dtype);
  return zn_is_float(ct) ? zn_kb_float(&lw->kb, ct, prod) : zn_kb_int(&lw->kb, ct, prod);
}

static void step(zn_lw *lw, zn_nid n, zn_kref acc, const zn_expr *idx) {
  zn_kb *b = &lw->kb;
  const zn_node *node = zn_lw_node(lw, n);
  bool prod = node->op == ZN_OP_CumProd, exclusive = zn_node_int(node, "exclusive") != 0;
  zn_kref old = zn_kb_get(b, acc), v = zn_lw_load(lw, node->in[0], idx);
  zn_kref sum = zn_kb_bin(b, prod ? ZN_K_Mul : ZN_K_Add, old, v);
  zn_kb_set(b, acc, sum);
  zn_lw_store(lw, zn_lw_node(lw, n)->out[0], idx, exclusive ? old : sum);
}

static void line(zn_lw *lw, zn_nid n, const zn_type *t, int axis, zn_expr *idx) {
  bool reverse = zn_node_int(zn_lw_node(lw, n), "reverse") != 0;
  zn_kref acc = zn_kb_var(&lw->kb, neutral(lw, n, t));
  zn_expr j = zn_lw_for(lw, t->dims[axis], ZN_FOR_SERIAL, 0);
  idx[axis] = reverse ? zn_ex_sub(lw->ex, zn_ex_addi(lw->ex, t->dims[axis], -1), j) : j;
  step(lw, n, acc, idx);
  zn_lw_end(lw);
}

/* The axis is an input: extent and stride of its lines are chosen at run time. */
static void any_axis(zn_lw *lw, zn_nid n, const zn_type *t) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  bool reverse = zn_node_int(zn_lw_node(lw, n), "reverse") != 0;
  zn_expr zero = zn_ex_const(ex, 0), count = zn_type_count(ex, t), inner = zn_ex_const(ex, 1);
  zn_kref raw = zn_lw_load(lw, zn_lw_node(lw, n)->in[1], &zero);
  zn_kref axis = zn_lw_ix(lw, zn_lw_checked_index(lw, raw, zn_ex_const(ex, t->rank)));
  zn_kref one = zn_kb_idx(b, 1), len = one, stride = one;
  for (int d = t->rank - 1; d >= 0; d--) {
    zn_kref is = zn_kb_cmp(b, ZN_K_Eq, axis, zn_kb_idx(b, d));
    zn_kref size = zn_lw_ix(lw, t->dims[d]), gap = zn_lw_ix(lw, inner);
    len = zn_kb_select(b, is, size, len);
    stride = zn_kb_select(b, is, gap, stride);
    inner = zn_ex_mul(ex, inner, t->dims[d]);
  }
  zn_kref total = zn_lw_ix(lw, count), none = zn_kb_idx(b, 0);
  zn_kref lines = zn_kb_bin(b, ZN_K_Div, total, len);
  zn_kref l = zn_kb_for(b, none, lines, 1, ZN_FOR_SERIAL, 0);
  zn_kref acc = zn_kb_var(b, neutral(lw, n, t));
  zn_kref block = zn_kb_bin(b, ZN_K_Div, l, stride), at = zn_kb_bin(b, ZN_K_Rem, l, stride);
  zn_kref j = zn_kb_for(b, none, len, 1, ZN_FOR_SERIAL, 0);
  zn_kref top = zn_kb_bin(b, ZN_K_Sub, len, one);
  zn_kref pos = reverse ? zn_kb_bin(b, ZN_K_Sub, top, j) : j;
  zn_kref row = zn_kb_bin(b, ZN_K_Mul, block, len);
  row = zn_kb_bin(b, ZN_K_Add, row, pos);
  row = zn_kb_bin(b, ZN_K_Mul, row, stride);
  zn_expr rest = zn_lw_as_expr(lw, zn_kb_bin(b, ZN_K_Add, row, at), count), idx[ZN_MAX_RANK];
  for (int d = t->rank - 1; d > 0; d--) {
    idx[d] = zn_ex_mod(ex, rest, t->dims[d]);
    rest = zn_ex_div(ex, rest, t->dims[d]);
  }
  idx[0] = rest;
  step(lw, n, acc, idx);
  zn_kb_end(b);
  zn_kb_end(b);
}

static zn_status cumulate_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  const zn_type t = *zn_lw_type(lw, node->in[0]);
  int64_t a;
  uint32_t count;
  if (!zn_value_i64s(lw->g, node->in[1], &a, 1, &count) || count != 1) {
    zn_lw_kernel(lw, n, "cumulate");
    any_axis(lw, n, &t);
    zn_lw_kernel_end(lw);
    return ZN_OK;
  }
  int axis = (int)(a < 0 ? a + t.rank : a), last = t.rank - 1;
  zn_lw_kernel(lw, n, node->op == ZN_OP_CumProd ? "cumprod" : "cumsum");
  zn_expr extents[ZN_MAX_RANK], vars[ZN_MAX_RANK], idx[ZN_MAX_RANK];
  uint32_t g = 0;
  for (int d = 0; d < t.rank; d++)
    if (d != axis && (d != last || axis == last)) extents[g++] = t.dims[d];
  zn_lw_grid(lw, g, extents, vars);
  for (int d = 0, k = 0; d < t.rank; d++)
    if (d != axis && (d != last || axis == last)) idx[d] = vars[k++];
  if (axis != last) idx[last] = zn_lw_for(lw, t.dims[last], ZN_FOR_VECTOR, 0);
  line(lw, n, &t, axis, idx);
  if (axis != last) zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_cumsum = {NULL, cumulate_kernel};
const zn_lower zn_lower_cumprod = {NULL, cumulate_kernel};
