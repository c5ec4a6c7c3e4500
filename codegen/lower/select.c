/* NonZero and Compress: count first (that defines the size symbol), then write. */
#include "codegen/lower/strvalue.h"
#include "codegen/lower/sortkeys.h"

/* Stores the count at cell 0 of an i64 buffer; when dim is a symbol, it takes that value. */
static void define_count(zn_lw *lw, zn_expr dim, zn_loc cell) {
  if (zn_ex_kind(lw->ex, dim) == ZN_EX_SYM) zn_lw_define_sym(lw, dim, cell);
}

static void store_count(zn_lw *lw, zn_loc cell, zn_kref count) {
  zn_kb *b = &lw->kb;
  zn_kref p = zn_lw_ptr_loc(lw, cell, ZN_KP_OUT, ZN_I64), zero = zn_kb_idx(b, 0);
  zn_kb_store(b, p, zero, zn_kb_cvt(b, count, ZN_I64));
}

static zn_kref is_nonzero(zn_lw *lw, zn_vid x, const zn_expr *idx) {
  zn_kb *b = &lw->kb;
  zn_kref v = zn_lw_load(lw, x, idx);
  const zn_dtype t = zn_lw_kdtype(lw, v), stored = (zn_dtype)zn_lw_type(lw, x)->dtype;
  if (t == ZN_BOOL) return v;
  if (stored == ZN_STR) { /* not empty */
    zn_kref len = zn_sv_len(lw, v);
    return zn_kb_cmp(b, ZN_K_Ne, len, zn_kb_idx(b, 0));
  }
  if (stored == ZN_C64) { /* a negative zero is one: the sign bits do not count */
    zn_kref signs = zn_kb_int(b, t, INT64_C(0x7fffffff7fffffff));
    v = zn_kb_bin(b, ZN_K_And, v, signs);
  } else if (stored == ZN_C128) {
    zn_kref signs = zn_kb_int(b, ZN_U64, INT64_MAX), first = zn_kb_idx(b, 0), second = zn_kb_idx(b, 1);
    zn_kref re = zn_kb_load(b, ZN_U64, 1, v, first), im = zn_kb_load(b, ZN_U64, 1, v, second);
    zn_kref both = zn_kb_bin(b, ZN_K_And, zn_kb_bin(b, ZN_K_Or, re, im), signs);
    return zn_kb_cmp(b, ZN_K_Ne, both, zn_kb_int(b, ZN_U64, 0));
  }
  zn_kref zero = zn_is_float(t) ? zn_kb_float(b, t, 0) : zn_kb_int(b, t, 0);
  return zn_kb_cmp(b, ZN_K_Ne, v, zero);
}

static zn_status nonzero_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid x = node->in[0], y = node->out[0];
  const zn_type t = *zn_lw_type(lw, x);
  zn_loc cell = zn_lw_scratch(lw, zn_ex_const(lw->ex, 8));
  zn_expr idx[ZN_MAX_RANK];
  zn_expr dim = zn_lw_dim(lw, y, 1);
  for (int pass = 0; pass < 2; pass++) {
    zn_lw_kernel(lw, n, pass ? "nonzero" : "nonzero_count");
    zn_kb *b = &lw->kb;
    zn_kref count = zn_kb_var(b, zn_kb_idx(b, 0));
    for (int d = 0; d < t.rank; d++) idx[d] = zn_lw_for(lw, t.dims[d], ZN_FOR_SERIAL, 0);
    zn_kref hit = is_nonzero(lw, x, idx), at = zn_kb_get(b, count);
    if (pass) {
      zn_kb_if(b, hit);
      zn_expr to[2] = {ZN_EX_NONE, zn_lw_as_expr(lw, at, dim)};
      for (int d = 0; d < t.rank; d++) {
        to[0] = zn_ex_const(lw->ex, d);
        zn_lw_store(lw, y, to, zn_kb_cvt(b, zn_lw_ix(lw, idx[d]), ZN_I64));
      }
      zn_kb_end(b);
    }
    zn_kref next = zn_s_inc(lw, at);
    zn_kb_set(b, count, zn_kb_select(b, hit, next, at));
    for (int d = 0; d < t.rank; d++) zn_lw_end(lw);
    if (!pass) store_count(lw, cell, zn_kb_get(b, count));
    zn_lw_kernel_end(lw);
    if (!pass) define_count(lw, dim, cell);
  }
  return ZN_OK;
}
const zn_lower zn_lower_nonzero = {NULL, nonzero_kernel};

/* Position i of the flat tensor as index. */
static void unflatten(zn_lw *lw, const zn_type *t, zn_expr i, zn_expr *idx) {
  for (int d = t->rank - 1; d > 0; d--) {
    idx[d] = zn_ex_mod(lw->ex, i, t->dims[d]);
    i = zn_ex_div(lw->ex, i, t->dims[d]);
  }
  if (t->rank) idx[0] = i;
}

static zn_status compress_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  zn_vid x = node->in[0], cond = node->in[1], y = node->out[0];
  const zn_type t = *zn_lw_type(lw, x), ty = *zn_lw_type(lw, y);
  bool flat = !zn_node_has(node, "axis");
  int64_t a = zn_node_int(node, "axis");
  int axis = flat ? 0 : (int)(a < 0 ? a + t.rank : a);
  zn_expr all = flat ? zn_type_count(ex, &t) : t.dims[axis];
  zn_expr len = zn_ex_min(ex, all, zn_lw_dim(lw, cond, 0));
  zn_loc cell = zn_lw_scratch(lw, zn_ex_const(ex, 8)), where = zn_s_cells(lw, len);
  zn_lw_kernel(lw, n, "compress_count");
  zn_kb *b = &lw->kb;
  zn_kref p = zn_lw_ptr_loc(lw, where, ZN_KP_OUT, ZN_I32);
  zn_kref count = zn_kb_var(b, zn_kb_idx(b, 0));
  zn_expr i = zn_lw_for(lw, len, ZN_FOR_SERIAL, 0);
  zn_kref hit = is_nonzero(lw, cond, &i), at = zn_kb_get(b, count), pos = zn_lw_ix(lw, i);
  zn_kb_if(b, hit);
  zn_s_store(lw, p, at, pos);
  zn_kb_set(b, count, zn_s_inc(lw, at));
  zn_kb_end(b);
  zn_lw_end(lw);
  store_count(lw, cell, zn_kb_get(b, count));
  zn_lw_kernel_end(lw);
  define_count(lw, ty.dims[axis], cell);
  zn_lw_kernel(lw, n, "compress");
  zn_expr idx[ZN_MAX_RANK], from[ZN_MAX_RANK];
  int last = ty.rank - 1;
  zn_lw_grid(lw, (uint32_t)last, ty.dims, idx);
  idx[last] = zn_lw_for(lw, ty.dims[last], ZN_FOR_VECTOR, 0);
  for (int d = 0; d < ty.rank; d++) from[d] = idx[d];
  p = zn_lw_ptr_loc(lw, where, ZN_KP_IN, ZN_I32);
  zn_kref k = zn_s_load(lw, p, zn_lw_ix(lw, idx[axis]));
  from[axis] = zn_lw_as_expr(lw, k, all);
  if (flat) unflatten(lw, &t, from[0], from);
  zn_lw_store(lw, y, idx, zn_lw_load(lw, x, from));
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_compress = {NULL, compress_kernel};
