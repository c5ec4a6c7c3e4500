/* Det and Inverse: elimination with partial pivoting in scratch copies, one matrix per grid iteration. */
#include "codegen/lower/sortkeys.h"

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

static void put(zn_lw *lw, const matrix *m, zn_kref r, zn_kref c, zn_kref v) {
  zn_kref at = cell(lw, m, r, c);
  zn_kb_store(&lw->kb, m->p, at, v);
}

static void swap_rows(zn_lw *lw, const matrix *m, zn_kref a, zn_kref b) {
  zn_kref j = zn_s_for(lw, m->n);
  zn_kref x = get(lw, m, a, j), y = get(lw, m, b, j);
  put(lw, m, a, j, y);
  put(lw, m, b, j, x);
  zn_kb_end(&lw->kb);
}

/* Elimination with partial pivoting in a scratch copy; a zero pivot makes every later factor 0. */
static zn_kref determinant(zn_lw *lw, const matrix *m) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_float(b, m->t, 0), one = zn_kb_float(b, m->t, 1);
  zn_kref det = zn_kb_var(b, one);
  zn_kref c = zn_s_for(lw, m->n);
  zn_kref p = pivot(lw, m, c);
  swap_rows(lw, m, c, p);
  zn_kref d = get(lw, m, c, c), old = zn_kb_get(b, det), minus = zn_kb_un(b, ZN_K_Neg, old);
  zn_kref same = zn_kb_cmp(b, ZN_K_Eq, c, p);
  zn_kref sign = zn_kb_select(b, same, old, minus);
  zn_kb_set(b, det, zn_kb_bin(b, ZN_K_Mul, sign, d));
  zn_kref none = zn_kb_cmp(b, ZN_K_Eq, d, zero), by = zn_kb_select(b, none, one, d);
  zn_kref next = zn_s_inc(lw, c);
  zn_kref r = zn_kb_for(b, next, m->n, 1, ZN_FOR_SERIAL, 0);
  zn_kref f = zn_kb_bin(b, ZN_K_Div, get(lw, m, r, c), by);
  zn_kref k = zn_kb_for(b, c, m->n, 1, ZN_FOR_SERIAL, 0);
  zn_kref top = get(lw, m, c, k), mine = get(lw, m, r, k), part = zn_kb_bin(b, ZN_K_Mul, f, top);
  put(lw, m, r, k, zn_kb_bin(b, ZN_K_Sub, mine, part));
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_end(b);
  return zn_kb_get(b, det);
}

/* Opens the kernel and the loops over the batch, idx[0..rank-2); m: this matrix's place in a scratch copy. */
static void open_batch(zn_lw *lw, zn_nid n, const char *name, zn_dtype t, matrix *m, uint32_t copies, zn_expr *idx) {
  zn_exprs *ex = lw->ex;
  const zn_type x = *zn_lw_type(lw, zn_lw_node(lw, n)->in[0]);
  const int batch = x.rank - 2;
  zn_expr size = x.dims[x.rank - 1], cells = zn_ex_mul(ex, size, size), lane = zn_ex_const(ex, 0);
  zn_loc scratch[2];
  for (uint32_t i = 0; i < copies; i++)
    scratch[i] = zn_lw_scratch(lw, zn_ex_muli(ex, zn_type_count(ex, &x), zn_dtype_bytes(t)));
  zn_lw_kernel(lw, n, name);
  zn_lw_grid(lw, (uint32_t)batch, x.dims, idx);
  for (int d = 0; d < batch; d++) lane = zn_ex_add(ex, zn_ex_mul(ex, lane, x.dims[d]), idx[d]);
  for (uint32_t i = 0; i < copies; i++) {
    m[i].t = t;
    m[i].p = zn_lw_ptr_loc(lw, scratch[i], ZN_KP_INOUT, t);
    m[i].n = zn_lw_ix(lw, size);
    m[i].base = zn_lw_ix(lw, zn_ex_mul(ex, lane, cells));
  }
}

static zn_status det_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid x = node->in[0], y = node->out[0];
  const zn_type t = *zn_lw_type(lw, x);
  const int batch = t.rank - 2;
  zn_expr idx[ZN_MAX_RANK];
  matrix m;
  open_batch(lw, n, "det", zn_lw_ctype((zn_dtype)t.dtype), &m, 1, idx);
  idx[batch] = zn_lw_for(lw, t.dims[batch], ZN_FOR_SERIAL, 0);
  idx[batch + 1] = zn_lw_for(lw, t.dims[batch], ZN_FOR_SERIAL, 0);
  zn_kref v = zn_lw_load(lw, x, idx), r = zn_lw_ix(lw, idx[batch]), c = zn_lw_ix(lw, idx[batch + 1]);
  put(lw, &m, r, c, v);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_store(lw, y, idx, determinant(lw, &m));
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_det = {NULL, det_kernel};

/* ---- Inverse ---- */

/* Row r of both matrices minus f times row c. */
static void subtract_row(zn_lw *lw, const matrix *m, zn_kref r, zn_kref c, zn_kref f) {
  zn_kb *b = &lw->kb;
  zn_kref j = zn_s_for(lw, m[0].n);
  for (int i = 0; i < 2; i++) {
    zn_kref top = get(lw, &m[i], c, j), mine = get(lw, &m[i], r, j), part = zn_kb_bin(b, ZN_K_Mul, f, top);
    put(lw, &m[i], r, j, zn_kb_bin(b, ZN_K_Sub, mine, part));
  }
  zn_kb_end(b);
}

/* Gauss-Jordan elimination with partial pivoting: m[0] becomes the identity, m[1] from it the inverse. */
static void eliminate(zn_lw *lw, const matrix *m) {
  zn_kb *b = &lw->kb;
  zn_kref c = zn_s_for(lw, m[0].n);
  zn_kref p = pivot(lw, &m[0], c);
  for (int i = 0; i < 2; i++) swap_rows(lw, &m[i], c, p);
  zn_kref d = get(lw, &m[0], c, c);
  zn_kref j = zn_s_for(lw, m[0].n);
  for (int i = 0; i < 2; i++) put(lw, &m[i], c, j, zn_kb_bin(b, ZN_K_Div, get(lw, &m[i], c, j), d));
  zn_kb_end(b);
  zn_kref r = zn_s_for(lw, m[0].n);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Ne, r, c));
  subtract_row(lw, m, r, c, get(lw, &m[0], r, c));
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_end(b);
}

static zn_status inverse_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_kb *b = &lw->kb;
  zn_vid x = node->in[0], y = node->out[0];
  const zn_type t = *zn_lw_type(lw, x);
  const zn_dtype ct = zn_lw_ctype((zn_dtype)t.dtype), wide = ZN_F64;
  const int batch = t.rank - 2;
  zn_expr idx[ZN_MAX_RANK];
  matrix m[2];
  open_batch(lw, n, "inverse", wide, m, 2, idx);
  for (int out = 0; out < 2; out++) {
    if (out) eliminate(lw, m);
    idx[batch] = zn_lw_for(lw, t.dims[batch], ZN_FOR_SERIAL, 0);
    idx[batch + 1] = zn_lw_for(lw, t.dims[batch], ZN_FOR_SERIAL, 0);
    zn_kref r = zn_lw_ix(lw, idx[batch]), c = zn_lw_ix(lw, idx[batch + 1]);
    if (out) {
      zn_kref v = get(lw, &m[1], r, c);
      zn_lw_store(lw, y, idx, ct == wide ? v : zn_kb_cvt(b, v, ct));
    } else {
      zn_kref v = zn_lw_load(lw, x, idx), one = zn_kb_float(b, wide, 1), zero = zn_kb_float(b, wide, 0);
      put(lw, &m[0], r, c, ct == wide ? v : zn_kb_cvt(b, v, wide));
      put(lw, &m[1], r, c, zn_kb_select(b, zn_kb_cmp(b, ZN_K_Eq, r, c), one, zero));
    }
    zn_lw_end(lw);
    zn_lw_end(lw);
  }
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_inverse = {NULL, inverse_kernel};
