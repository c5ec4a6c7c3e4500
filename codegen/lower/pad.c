/* Pad in its four modes, as a point: inside, the operand; outside, the constant or a reflected, clamped or wrapped position. */
#include <string.h>

#include "codegen/lower/lower.h"
#include "zenithc/ops/axes.h"

/* Pads before axis d, from constants, shape arithmetic or the contents of a run-time operand; false when unnamed. */
static bool pad_before(zn_lw *lw, const zn_node *node, int rank, zn_expr *out) {
  const zn_value *p = &lw->g->vals[node->in[1]];
  zn_vid list = zn_node_in(node, 3);
  zn_axes axes = {.count = (uint32_t)rank};
  if (list && !zn_axes_resolve(lw->g, list, rank, &axes)) return false;
  for (int d = 0; d < rank; d++) out[d] = zn_ex_const(lw->ex, 0);
  for (uint32_t i = 0; i < axes.count; i++) {
    zn_expr v = ZN_EX_NONE;
    if (p->elems && i < p->num_elems) v = p->elems[i];
    if (!v && p->cst) v = zn_ex_const(lw->ex, zn_load_i64(p->cst->dtype, p->cst->data, i));
    if (!v) return false;
    if (!list) out[i] = v;
    for (int d = 0; list && d < rank; d++)
      out[d] = zn_ex_add(lw->ex, out[d], zn_ex_mul(lw->ex, v, zn_axes_is(lw->ex, axes.entry[i], d, rank)));
  }
  return true;
}

static zn_expr mirrored(zn_exprs *ex, zn_expr i, zn_expr n) { /* ... 2 1 | 0 1 2 .. n-1 | n-2 ... */
  zn_expr period = zn_ex_max(ex, zn_ex_muli(ex, zn_ex_addi(ex, n, -1), 2), zn_ex_const(ex, 1));
  zn_expr m = zn_ex_mod(ex, i, period);
  return zn_ex_min(ex, m, zn_ex_sub(ex, period, m));
}

static zn_kref pad_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const zn_type *t = zn_lw_type(lw, node->in[0]);
  const char *mode = zn_node_str(node, "mode");
  zn_expr before[ZN_MAX_RANK], at[ZN_MAX_RANK], zero = zn_ex_const(ex, 0);
  if (!pad_before(lw, node, t->rank, before)) {
    zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, node),
            "the number of padded axes is only known at run time; give it with --shape");
    lw->failed = true;
    for (int d = 0; d < t->rank; d++) before[d] = zero;
  }
  zn_kref inside = zn_kb_int(b, ZN_BOOL, 1), some = inside; /* some: the operand has elements, as far as unknown */
  bool empty = false;                                       /* can it have none? */
  for (int d = 0; d < t->rank; d++) {
    zn_expr i = zn_ex_sub(ex, idx[d], before[d]), top = zn_ex_addi(ex, t->dims[d], -1);
    if (mode[0] == 'c' && (!zn_ex_le(ex, zero, i) || !zn_ex_lt(ex, i, t->dims[d]))) {
      zn_kref in = zn_lw_in_range(lw, i, t->dims[d]);
      inside = zn_kb_bin(b, ZN_K_And, inside, in);
      i = zn_ex_max(ex, zn_ex_min(ex, i, top), zero);
      if (!zn_ex_lt(ex, zero, t->dims[d])) {
        zn_kref extent = zn_lw_ix(lw, t->dims[d]), none = zn_kb_idx(b, 0);
        some = zn_kb_bin(b, ZN_K_And, some, zn_kb_cmp(b, ZN_K_Gt, extent, none));
        empty = true;
      }
    } else if (mode[0] == 'e') {
      i = zn_ex_max(ex, zn_ex_min(ex, i, top), zero);
    } else if (mode[0] == 'r') {
      i = mirrored(ex, i, t->dims[d]);
    } else if (mode[0] == 'w') {
      i = zn_ex_mod(ex, i, t->dims[d]);
    }
    at[d] = i;
  }
  int64_t always;
  zn_vid fill = zn_node_in(node, 2);
  if (zn_kf_const_int(b->f, inside, &always) && always) return zn_lw_load(lw, node->in[0], at);
  zn_dtype ct = zn_lw_ctype((zn_dtype)t->dtype);
  zn_kref v;
  if (fill)
    v = zn_lw_load(lw, fill, &zero);
  else
    v = zn_lw_zero(lw, ct);
  for (int d = 0; d < t->rank; d++)
    if (zn_ex_is(ex, t->dims[d], 0)) return v; /* nothing to read */
  if (!empty) {
    zn_kref x = zn_lw_load(lw, zn_lw_node(lw, n)->in[0], at);
    return zn_kb_select(b, inside, x, v);
  }
  zn_kref y = zn_kb_var(b, v); /* no element may be read where there is none */
  zn_kb_if(b, some);
  zn_kref x = zn_lw_load(lw, zn_lw_node(lw, n)->in[0], at);
  zn_kb_set(b, y, zn_kb_select(b, inside, x, v));
  zn_kb_end(b);
  return zn_kb_get(b, y);
}
const zn_lower zn_lower_pad = {pad_point, NULL};
