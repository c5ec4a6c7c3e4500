/* Col2Im as a gather: an image element sums the columns of all kernel positions that cover it. */
#include "codegen/lower/lower.h"

typedef struct blocks {
  int n;
  zn_expr kernel[ZN_MAX_RANK], steps[ZN_MAX_RANK]; /* sizes of the block, positions of it along each axis */
  int64_t stride[ZN_MAX_RANK], dilation[ZN_MAX_RANK], pad[ZN_MAX_RANK];
} blocks;

static int64_t entry(const zn_node *node, const char *name, int i, int64_t dflt) {
  uint32_t n;
  const int64_t *v = zn_node_ints(node, name, &n);
  return v && (uint32_t)i < n ? v[i] : dflt;
}

static zn_expr content(const zn_lw *lw, zn_vid v, int i) {
  const zn_value *val = &lw->g->vals[v];
  if (val->cst) return zn_ex_const(lw->ex, zn_load_i64(val->cst->dtype, val->cst->data, (uint64_t)i));
  return val->elems && (uint32_t)i < val->num_elems ? val->elems[i] : ZN_EX_NONE;
}

static zn_status read_blocks(zn_lw *lw, zn_nid id, blocks *k) {
  const zn_node *node = zn_lw_node(lw, id);
  zn_exprs *ex = lw->ex;
  const zn_type *ty = zn_lw_type(lw, node->out[0]);
  k->n = ty->rank - 2;
  for (int i = 0; i < k->n; i++) {
    k->kernel[i] = content(lw, node->in[2], i);
    if (!k->kernel[i])
      return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, node), "block_shape has an unknown length");
    k->stride[i] = entry(node, "strides", i, 1);
    k->dilation[i] = entry(node, "dilations", i, 1);
    k->pad[i] = entry(node, "pads", i, 0);
    zn_expr span = zn_ex_muli(ex, zn_ex_addi(ex, k->kernel[i], -1), k->dilation[i]);
    zn_expr room = zn_ex_sub(ex, zn_ex_addi(ex, ty->dims[2 + i], k->pad[i] + entry(node, "pads", i + k->n, 0) - 1), span);
    k->steps[i] = zn_ex_addi(ex, zn_ex_divi(ex, room, k->stride[i]), 1);
  }
  return ZN_OK;
}

static zn_status col2im_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_vid x = node->in[0], y = node->out[0];
  const zn_type ty = *zn_lw_type(lw, y);
  blocks k = {0};
  ZN_TRY(read_blocks(lw, n, &k));
  zn_expr v[ZN_MAX_RANK], at[3], cells = zn_ex_const(ex, 1), places = zn_ex_const(ex, 1);
  for (int i = 0; i < k.n; i++) {
    cells = zn_ex_mul(ex, cells, k.kernel[i]);
    places = zn_ex_mul(ex, places, k.steps[i]);
  }
  zn_lw_require_le(lw, places, zn_lw_dim(lw, x, 2));
  zn_lw_require_le(lw, zn_lw_dim(lw, x, 2), places);
  zn_lw_require_le(lw, zn_lw_dim(lw, x, 1), zn_ex_mul(ex, ty.dims[1], cells));
  zn_dtype ct = zn_lw_ctype((zn_dtype)ty.dtype);
  zn_lw_kernel(lw, n, "col2im");
  zn_lw_grid(lw, (uint32_t)ty.rank, ty.dims, v);
  zn_kref none = zn_is_float(ct) ? zn_kb_float(b, ct, 0) : zn_kb_int(b, ct, 0), acc = zn_kb_var(b, none);
  zn_kref inside = zn_kb_int(b, ZN_BOOL, 1);
  zn_expr cell = zn_ex_const(ex, 0), place = zn_ex_const(ex, 0);
  for (int i = 0; i < k.n; i++) {
    zn_expr c = zn_lw_for(lw, k.kernel[i], ZN_FOR_SERIAL, 0);
    cell = zn_ex_add(ex, zn_ex_mul(ex, cell, k.kernel[i]), c);
    zn_expr from = zn_ex_sub(ex, zn_ex_addi(ex, v[2 + i], k.pad[i]), zn_ex_muli(ex, c, k.dilation[i]));
    zn_expr p = zn_ex_divi(ex, from, k.stride[i]), rest = zn_ex_modi(ex, from, k.stride[i]);
    zn_kref in = zn_lw_in_range(lw, p, k.steps[i]), r = zn_lw_ix(lw, rest), zero = zn_kb_idx(b, 0);
    zn_kref whole = zn_kb_cmp(b, ZN_K_Eq, r, zero);
    inside = zn_kb_bin(b, ZN_K_And, inside, zn_kb_bin(b, ZN_K_And, in, whole));
    zn_expr top = zn_ex_addi(ex, k.steps[i], -1);
    zn_expr safe = zn_ex_max(ex, zn_ex_min(ex, p, top), zn_ex_const(ex, 0));
    place = zn_ex_add(ex, zn_ex_mul(ex, place, k.steps[i]), safe);
  }
  at[0] = v[0];
  at[1] = zn_ex_add(ex, zn_ex_mul(ex, v[1], cells), cell);
  at[2] = place;
  zn_kb_if(b, inside);
  zn_kref e = zn_lw_load(lw, x, at), old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, ct == ZN_BOOL ? zn_kb_bin(b, ZN_K_Or, old, e) : zn_kb_bin(b, ZN_K_Add, old, e));
  zn_kb_end(b);
  for (int i = 0; i < k.n; i++) zn_lw_end(lw);
  zn_lw_emit(lw, y, v, zn_kb_get(b, acc));
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_col2im = {NULL, col2im_kernel};
