/* BitCast: the stored bits of an element read as another type of the same width. */
#include "codegen/lower/lower.h"

static zn_dtype carrier(zn_dtype t) { /* the unsigned integer as wide as t is in memory */
  switch (zn_dtype_bytes(t)) {
  case 1: return ZN_U8;
  case 2: return ZN_U16;
  case 4: return ZN_U32;
  default: return ZN_U64;
  }
}

static zn_kref bitcast_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  zn_kb *b = &lw->kb;
  const zn_node *node = zn_lw_node(lw, n);
  const zn_dtype from = (zn_dtype)zn_lw_type(lw, node->in[0])->dtype;
  const zn_dtype to = (zn_dtype)zn_lw_type(lw, node->out[out])->dtype, u = carrier(from);
  zn_kref k = zn_lw_load(lw, node->in[0], idx);
  if (from == to) return k;
  k = zn_lw_convert(lw, k, zn_lw_ctype(from), from, false);
  const zn_dtype s = zn_lw_kdtype(lw, k);
  if (s == ZN_BOOL)
    k = zn_kb_cvt(b, k, u);
  else if (s != u)
    k = zn_kb_bitcast(b, k, u);
  const unsigned bits = zn_dtype_bits(from);
  if (u == ZN_U8 && s != ZN_BOOL && bits < 8) k = zn_kb_bin(b, ZN_K_And, k, zn_kb_int(b, ZN_U8, (1 << bits) - 1));
  const zn_dtype ct = zn_lw_ctype(to);
  if (to == ZN_BOOL) return zn_kb_cvt(b, k, ZN_BOOL);
  if (to == ct) return to == u ? k : zn_kb_bitcast(b, k, to);
  if (to == ZN_F16 || to == ZN_BF16) return zn_kb_cvt(b, zn_kb_bitcast(b, k, to), ct);
  if (zn_is_float(to)) return zn_lw_convert(lw, k, to, ct, false);
  k = zn_lw_convert(lw, k, ZN_U8, to, false);
  return zn_lw_kdtype(lw, k) == ct ? k : zn_kb_bitcast(b, k, ct);
}
const zn_lower zn_lower_bitcast = {bitcast_point, NULL};
