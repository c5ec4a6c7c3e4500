/* MaxUnpool and Det: small serial kernels. */
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

typedef struct matrix {
  zn_kref p, n, base;
  zn_dtype t;
} matrix;

static zn_kref cell(zn_lw *lw, const matrix *m, zn_kref r, zn_kref c) {
  zn_kref row = zn_s_mul(lw, r, m->n), first = zn_s_add(lw, m->base, row);
  return zn_s_add(lw, first, c);
}

static zn_kref get(zn_lw *lw, const matrix *m, zn_kref r, zn_kref c) {
  return zn_kb_load(&lw->kb, m->t, 1, m->p, cell(lw, m, r, c));
}

/* Row with the largest element in column c, from row c on. */
static zn_kref pivot(zn_lw *lw, const matrix *m, zn_kref c) {
  zn_kb *b = &lw->kb;
  zn_kref best = zn_kb_var(b, c);
  zn_kref r = zn_kb_for(b, c, m->n, 1, ZN_FOR_SERIAL, 0);
  zn_kref old = zn_kb_get(b, best);
  zn_kref have = zn_kb_un(b, ZN_K_Abs, get(lw, m, old, c)), here = zn_kb_un(b, ZN_K_Abs, get(lw, m, r, c));
  zn_kref more = zn_kb_cmp(b, ZN_K_Gt, here, have);
  zn_kb_set(b, best, zn_kb_select(b, more, r, old));
  zn_kb_end(b);
  return zn_kb_get(b, best);
}

/* Elimination with partial pivoting in a scratch copy; a zero pivot makes every later factor 0. */
static zn_kref determinant(zn_lw *lw, const matrix *m) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_float(b, m->t, 0), one = zn_kb_float(b, m->t, 1);
  zn_kref det = zn_kb_var(b, one);
  zn_kref c = zn_s_for(lw, m->n);
  zn_kref p = pivot(lw, m, c);
  zn_kref j = zn_s_for(lw, m->n);
  zn_kref x = get(lw, m, c, j), y = get(lw, m, p, j);
  zn_kb_store(b, m->p, cell(lw, m, c, j), y);
  zn_kref same = zn_kb_cmp(b, ZN_K_Eq, c, p);
  zn_kref to = cell(lw, m, p, j);
  zn_kb_store(b, m->p, to, zn_kb_select(b, same, y, x));
  zn_kb_end(b);
  zn_kref d = get(lw, m, c, c), old = zn_kb_get(b, det), minus = zn_kb_un(b, ZN_K_Neg, old);
  same = zn_kb_cmp(b, ZN_K_Eq, c, p);
  zn_kref sign = zn_kb_select(b, same, old, minus);
  zn_kb_set(b, det, zn_kb_bin(b, ZN_K_Mul, sign, d));
  zn_kref none = zn_kb_cmp(b, ZN_K_Eq, d, zero), by = zn_kb_select(b, none, one, d);
  zn_kref next = zn_s_inc(lw, c);
  zn_kref r = zn_kb_for(b, next, m->n, 1, ZN_FOR_SERIAL, 0);
  zn_kref f = zn_kb_bin(b, ZN_K_Div, get(lw, m, r, c), by);
  zn_kref k = zn_kb_for(b, c, m->n, 1, ZN_FOR_SERIAL, 0);
  zn_kref top = get(lw, m, c, k), mine = get(lw, m, r, k), part = zn_kb_bin(b, ZN_K_Mul, f, top);
  zn_kref at = cell(lw, m, r, k);
  zn_kb_store(b, m->p, at, zn_kb_bin(b, ZN_K_Sub, mine, part));
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_end(b);
  return zn_kb_get(b, det);
}

static zn_status det_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  zn_vid x = node->in[0], y = node->out[0];
  const zn_type t = *zn_lw_type(lw, x);
  int batch = t.rank - 2;
  zn_expr size = t.dims[t.rank - 1], cells = zn_ex_mul(ex, size, size), idx[ZN_MAX_RANK];
  zn_expr lane = zn_ex_const(ex, 0);
  matrix m = {.t = zn_lw_ctype((zn_dtype)t.dtype)};
  zn_loc copy = zn_lw_scratch(lw, zn_ex_muli(ex, zn_type_count(ex, &t), zn_dtype_bytes(m.t)));
  zn_lw_kernel(lw, n, "det");
  zn_lw_grid(lw, (uint32_t)batch, t.dims, idx);
  for (int d = 0; d < batch; d++) lane = zn_ex_add(ex, zn_ex_mul(ex, lane, t.dims[d]), idx[d]);
  m.p = zn_lw_ptr_loc(lw, copy, ZN_KP_INOUT, m.t);
  m.n = zn_lw_ix(lw, size);
  m.base = zn_lw_ix(lw, zn_ex_mul(ex, lane, cells));
  idx[batch] = zn_lw_for(lw, size, ZN_FOR_SERIAL, 0);
  idx[batch + 1] = zn_lw_for(lw, size, ZN_FOR_SERIAL, 0);
  zn_kref v = zn_lw_load(lw, x, idx), r = zn_lw_ix(lw, idx[batch]), c = zn_lw_ix(lw, idx[batch + 1]);
  zn_kref at = cell(lw, &m, r, c);
  zn_kb_store(&lw->kb, m.p, at, v);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_store(lw, y, idx, determinant(lw, &m));
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_det = {NULL, det_kernel};
