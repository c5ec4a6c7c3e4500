/* Complex numbers taken apart and put together. Kernels hold a c64 as its bits and a c128 by address (zn_lw_ctype). */
#include "codegen/lower/lower.h"

zn_kref zn_lw_part(zn_lw *lw, zn_kref k, zn_dtype t, int part) {
  zn_kb *b = &lw->kb;
  if (t == ZN_C128) {
    zn_kref at = zn_kb_idx(b, part);
    return zn_kb_bitcast(b, zn_kb_load(b, ZN_U64, 1, k, at), ZN_F64);
  }
  if (part) k = zn_kb_bin(b, ZN_K_Shr, k, zn_kb_int(b, ZN_U64, 32));
  return zn_kb_bitcast(b, zn_kb_cvt(b, k, ZN_U32), ZN_F32);
}

static zn_kref part_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  const zn_node *node = zn_lw_node(lw, n);
  const zn_dtype t = (zn_dtype)zn_lw_type(lw, node->in[0])->dtype;
  return zn_lw_part(lw, zn_lw_load(lw, node->in[0], idx), t, zn_node_int(node, "imaginary") != 0);
}
const zn_lower zn_lower_complexpart = {part_point, NULL};

static zn_kref bits_of(zn_kb *b, zn_kref x) { return zn_kb_cvt(b, zn_kb_bitcast(b, x, ZN_U32), ZN_U64); }

void zn_lw_store_complex(zn_lw *lw, zn_kref p, zn_dtype t, zn_expr off, zn_kref re, zn_kref im) {
  zn_kb *b = &lw->kb;
  if (t == ZN_C64) {
    zn_kref low = bits_of(b, re), high = bits_of(b, im);
    high = zn_kb_bin(b, ZN_K_Shl, high, zn_kb_int(b, ZN_U64, 32));
    zn_kref at = zn_lw_ix(lw, off);
    zn_kb_store(b, p, at, zn_kb_bin(b, ZN_K_Or, low, high));
    return;
  }
  zn_kref at = zn_lw_ix(lw, zn_ex_muli(lw->ex, off, 2)), one = zn_kb_idx(b, 1), next = zn_kb_bin(b, ZN_K_Add, at, one);
  zn_kb_store(b, p, at, zn_kb_bitcast(b, re, ZN_U64));
  zn_kb_store(b, p, next, zn_kb_bitcast(b, im, ZN_U64));
}

static zn_status complexof_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  const zn_vid y = node->out[0];
  const zn_type t = *zn_lw_type(lw, y);
  zn_expr idx[ZN_MAX_RANK];
  zn_lw_kernel(lw, n, "complex");
  for (int d = 0; d < t.rank; d++) idx[d] = zn_lw_for(lw, t.dims[d], ZN_FOR_SERIAL, 0);
  zn_kref re = zn_lw_load(lw, node->in[0], idx), im = zn_lw_load(lw, node->in[1], idx);
  zn_kref p = zn_lw_ptr(lw, y, ZN_KP_OUT);
  zn_lw_store_complex(lw, p, (zn_dtype)t.dtype, zn_lw_offset(lw, y, idx), re, im);
  for (int d = 0; d < t.rank; d++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_complexof = {NULL, complexof_kernel};
