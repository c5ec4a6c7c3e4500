/* MaxUnpool: a small serial kernel. */
#include "codegen/lower/sortkeys.h"

/* Indices count in the unpadded shape (dims from strides and kernel); the output may be larger. */
static zn_status maxunpool_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  zn_vid x = node->in[0], where = node->in[1], y = node->out[0];
  const zn_type t = *zn_lw_type(lw, x), ty = *zn_lw_type(lw, y);
  uint32_t nk, ns, np;
  const int64_t *k = zn_node_ints(node, "kernel_shape", &nk), *s = zn_node_ints(node, "strides", &ns);
  const int64_t *pads = zn_node_ints(node, "pads", &np);
  int sp = t.rank - 2;
  zn_expr dims[ZN_MAX_RANK], idx[ZN_MAX_RANK], limit = zn_ex_const(ex, 1);
  for (int d = 0; d < t.rank; d++) {
    dims[d] = t.dims[d];
    if (d >= 2) {
      int64_t pad = np ? pads[d - 2] + pads[d - 2 + sp] : 0;
      dims[d] = zn_ex_muli(ex, zn_ex_addi(ex, t.dims[d], -1), ns ? s[d - 2] : 1);
      dims[d] = zn_ex_addi(ex, dims[d], k[d - 2] - pad);
    }
    limit = zn_ex_mul(ex, limit, dims[d]);
  }
  zn_lw_kernel(lw, n, "unpool_clear");
  zn_lw_grid(lw, (uint32_t)ty.rank - 1, ty.dims, idx);
  idx[ty.rank - 1] = zn_lw_for(lw, ty.dims[ty.rank - 1], ZN_FOR_VECTOR, 0);
  zn_lw_store(lw, y, idx, zn_kb_float(&lw->kb, zn_lw_ctype((zn_dtype)t.dtype), 0));
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  zn_lw_kernel(lw, n, "unpool");
  zn_kb *b = &lw->kb;
  for (int d = 0; d < t.rank; d++) idx[d] = zn_lw_for(lw, t.dims[d], ZN_FOR_SERIAL, 0);
  zn_kref raw = zn_lw_load(lw, where, idx), v = zn_lw_load(lw, x, idx);
  zn_expr rest = zn_lw_checked_index(lw, raw, limit), at[ZN_MAX_RANK];
  for (int d = t.rank - 1; d > 0; d--) {
    at[d] = zn_ex_mod(ex, rest, dims[d]);
    rest = zn_ex_div(ex, rest, dims[d]);
  }
  at[0] = rest;
  zn_kref ok = zn_kb_int(b, ZN_BOOL, 1);
  for (int d = 0; d < t.rank; d++) {
    zn_kref in = zn_lw_in_range(lw, at[d], ty.dims[d]);
    ok = zn_kb_bin(b, ZN_K_And, ok, in);
  }
  zn_lw_fail_if(lw, zn_kb_un(b, ZN_K_Not, ok), 8 /* ZN_RUN_INDEX */);
  zn_kb_if(b, ok);
  zn_lw_store(lw, y, at, v);
  zn_kb_end(b);
  for (int d = 0; d < t.rank; d++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_maxunpool = {NULL, maxunpool_kernel};
