/* Sorting inside a kernel: a stable merge sort of key numbers by any order, shared by TopK, Unique and
 * NonMaxSuppression; and short names for serial code on scratch memory. */
#ifndef ZN_SORTKEYS_H
#define ZN_SORTKEYS_H
#include "codegen/lower/lower.h"

/* Bool value: does key a (idx value) stand strictly before key b? */
typedef zn_kref (*zn_key_before)(zn_lw *lw, void *user, zn_kref a, zn_kref b);
/* Sorts the n keys (i32) at buf[base ..] with buf[base + n .. base + 2n) as room; n an idx value. Returns the idx value
 * of the offset where the sorted keys begin (base or base + n). */
zn_kref zn_sort_keys(zn_lw *lw, zn_kref buf, zn_kref base, zn_kref n, zn_key_before before, void *user);
/* x before y in ascending order (NaN last, so first in descending order) of kernel values of one type. */
zn_kref zn_value_before(zn_lw *lw, zn_kref x, zn_kref y, bool descending);

static inline zn_kref zn_s_add(zn_lw *lw, zn_kref a, zn_kref b) { return zn_kb_bin(&lw->kb, ZN_K_Add, a, b); }
static inline zn_kref zn_s_mul(zn_lw *lw, zn_kref a, zn_kref b) { return zn_kb_bin(&lw->kb, ZN_K_Mul, a, b); }
static inline zn_kref zn_s_inc(zn_lw *lw, zn_kref a) {
  zn_kref one = zn_kb_idx(&lw->kb, 1);
  return zn_kb_bin(&lw->kb, ZN_K_Add, a, one);
}
static inline void zn_s_bump(zn_lw *lw, zn_kref var) { /* ++var */
  zn_kref v = zn_kb_get(&lw->kb, var);
  zn_kb_set(&lw->kb, var, zn_s_inc(lw, v));
}
/* i32 cell as idx value */
static inline zn_kref zn_s_load(zn_lw *lw, zn_kref p, zn_kref at) {
  return zn_kb_cvt(&lw->kb, zn_kb_load(&lw->kb, ZN_I32, 1, p, at), ZN_IDX);
}
static inline void zn_s_store(zn_lw *lw, zn_kref p, zn_kref at, zn_kref v) {
  zn_kb_store(&lw->kb, p, at, zn_kb_cvt(&lw->kb, v, ZN_I32));
}
/* Serial loop over idx values [0, n); close with zn_kb_end. */
static inline zn_kref zn_s_for(zn_lw *lw, zn_kref n) {
  zn_kref zero = zn_kb_idx(&lw->kb, 0);
  return zn_kb_for(&lw->kb, zero, n, 1, ZN_FOR_SERIAL, 0);
}
/* i32 scratch of n cells */
static inline zn_loc zn_s_cells(zn_lw *lw, zn_expr n) { return zn_lw_scratch(lw, zn_ex_muli(lw->ex, n, 4)); }
#endif
