/* Cast, CastLike. Between numbers an element is a formula. Text is another matter (strnum.h): to read it is long code that
 * may fail, what is written needs a place for its bytes, so both are kernels and never fold into others (pass fuse). */
#include "codegen/lower/strnum.h"
#include "codegen/lower/strvalue.h"
#include "runtime/zenith.h"

static zn_kref to_type(zn_lw *lw, const zn_node *node, zn_kref k, zn_dtype from, zn_dtype to) {
  bool saturate = zn_node_int(node, "saturate") != 0;
  zn_dtype ct = zn_lw_ctype(to);
  if (to == ZN_F8E8M0 && from != to)
    return zn_lw_convert(lw, zn_lw_to_e8m0(lw, k, zn_node_str(node, "round_mode"), saturate), to, ct, saturate);
  if (ct == to && !zn_is_float(from)) return zn_lw_convert(lw, k, zn_lw_ctype(from), to, saturate);
  zn_kref narrow = zn_lw_convert(lw, k, zn_lw_ctype(from), to, saturate);
  return ct == to ? narrow : zn_lw_convert(lw, narrow, to, ct, saturate);
}

static zn_kref cast_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_dtype from = (zn_dtype)zn_lw_type(lw, node->in[0])->dtype;
  zn_dtype to = (zn_dtype)zn_lw_type(lw, node->out[out])->dtype;
  return to_type(lw, node, zn_lw_load(lw, node->in[0], idx), from, to);
}

static zn_status write_numbers(zn_lw *lw, zn_nid n, zn_vid x, zn_vid y) {
  const zn_type t = *zn_lw_type(lw, y);
  zn_expr idx[ZN_MAX_RANK], total = zn_ex_const(lw->ex, 1);
  for (int d = 0; d < t.rank; d++) total = zn_ex_mul(lw->ex, total, t.dims[d]);
  zn_loc bytes = zn_lw_keep(lw, zn_ex_muli(lw->ex, total, ZN_SN_ROOM));
  zn_lw_kernel(lw, n, "print");
  zn_kb *b = &lw->kb;
  const zn_sn s = zn_sn_writer(lw, (zn_dtype)zn_lw_type(lw, x)->dtype);
  zn_lw_grid(lw, (uint32_t)t.rank, t.dims, idx);
  zn_expr flat = zn_lw_offset(lw, y, idx);
  zn_kref pool = zn_lw_ptr_loc(lw, bytes, ZN_KP_OUT, ZN_U8), place = zn_lw_ix(lw, zn_ex_muli(lw->ex, flat, ZN_SN_ROOM));
  zn_kref to = zn_kb_ptradd(b, pool, place), len = zn_sn_write(&s, to, zn_lw_load(lw, x, idx));
  zn_sv_set(lw, zn_lw_load_at(lw, zn_lw_ptr(lw, y, ZN_KP_OUT), ZN_STR, flat), to, len);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

static zn_status read_numbers(zn_lw *lw, zn_nid n, zn_vid x, zn_vid y) {
  const zn_type t = *zn_lw_type(lw, y);
  zn_expr idx[ZN_MAX_RANK];
  zn_lw_kernel(lw, n, "parse");
  const zn_sn s = zn_sn_reader(lw, (zn_dtype)t.dtype);
  zn_lw_grid(lw, (uint32_t)t.rank, t.dims, idx);
  zn_kref text = zn_lw_load(lw, x, idx), data = zn_sv_data(lw, text), len = zn_sv_len(lw, text), bad;
  zn_kref v = zn_sn_read(&s, data, len, &bad);
  zn_lw_fail_if(lw, bad, ZN_RUN_DOMAIN);
  zn_lw_store(lw, y, idx, to_type(lw, zn_lw_node(lw, n), v, zn_lw_ctype((zn_dtype)t.dtype), (zn_dtype)t.dtype));
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

static zn_status cast_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid x = node->in[0], y = node->out[0];
  bool from = zn_lw_type(lw, x)->dtype == ZN_STR, to = zn_lw_type(lw, y)->dtype == ZN_STR;
  if (from == to) return zn_lower_value_map(lw, n, y);
  return from ? read_numbers(lw, n, x, y) : write_numbers(lw, n, x, y);
}
const zn_lower zn_lower_cast = {cast_point, cast_kernel};
