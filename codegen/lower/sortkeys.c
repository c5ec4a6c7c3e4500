/* Bottom-up merge sort in kernel IR: runs of 1, 2, 4, ... keys are merged from one half of the buffer into the other. */
#include "codegen/lower/sortkeys.h"
#include "codegen/lower/strvalue.h"

zn_kref zn_value_before(zn_lw *lw, zn_kref x, zn_kref y, bool descending) {
  zn_kb *b = &lw->kb;
  zn_dtype t = zn_lw_kdtype(lw, x);
  if (t == ZN_PTR) { /* strings: by their bytes */
    zn_kref order = zn_sv_compare(lw, x, y), zero = zn_kb_idx(b, 0);
    return zn_kb_cmp(b, descending ? ZN_K_Gt : ZN_K_Lt, order, zero);
  }
  if (t == ZN_BOOL) {
    x = zn_kb_cvt(b, x, ZN_U8);
    y = zn_kb_cvt(b, y, ZN_U8);
  }
  zn_kref lt = zn_kb_cmp(b, descending ? ZN_K_Gt : ZN_K_Lt, x, y);
  if (!zn_is_float(t)) return lt;
  zn_kref xn = zn_kb_cmp(b, ZN_K_Ne, x, x), yn = zn_kb_cmp(b, ZN_K_Ne, y, y);
  zn_kref other = zn_kb_un(b, ZN_K_Not, descending ? yn : xn);
  zn_kref by_nan = zn_kb_bin(b, ZN_K_And, descending ? xn : yn, other);
  return zn_kb_bin(b, ZN_K_Or, lt, by_nan);
}

/* Merges src[lo, mid) and src[mid, hi) into dst[lo ..]; all relative to the offsets. */
static void merge(zn_lw *lw, zn_kref buf, zn_kref src, zn_kref dst, zn_kref lo, zn_kref mid, zn_kref hi,
                  zn_key_before before, void *user) {
  zn_kb *b = &lw->kb;
  zn_kref i = zn_kb_var(b, lo), j = zn_kb_var(b, mid);
  zn_kref w = zn_kb_for(b, lo, hi, 1, ZN_FOR_SERIAL, 0);
  zn_kref iv = zn_kb_get(b, i), jv = zn_kb_get(b, j), one = zn_kb_idx(b, 1);
  zn_kref last_i = zn_kb_bin(b, ZN_K_Sub, mid, one), last_j = zn_kb_bin(b, ZN_K_Sub, hi, one);
  zn_kref ci = zn_kb_bin(b, ZN_K_Min, iv, last_i), cj = zn_kb_bin(b, ZN_K_Min, jv, last_j);
  zn_kref ki = zn_s_load(lw, buf, zn_s_add(lw, src, ci)), kj = zn_s_load(lw, buf, zn_s_add(lw, src, cj));
  zn_kref right_first = before(lw, user, kj, ki);
  zn_kref more_i = zn_kb_cmp(b, ZN_K_Lt, iv, mid), done_i = zn_kb_un(b, ZN_K_Not, more_i);
  zn_kref more_j = zn_kb_cmp(b, ZN_K_Lt, jv, hi);
  zn_kref want = zn_kb_bin(b, ZN_K_Or, done_i, right_first);
  zn_kref right = zn_kb_bin(b, ZN_K_And, more_j, want);
  zn_kref to = zn_s_add(lw, dst, w);
  zn_s_store(lw, buf, to, zn_kb_select(b, right, kj, ki));
  zn_kref i1 = zn_s_inc(lw, iv), j1 = zn_s_inc(lw, jv);
  zn_kb_set(b, i, zn_kb_select(b, right, iv, i1));
  zn_kb_set(b, j, zn_kb_select(b, right, j1, jv));
  zn_kb_end(b);
}

zn_kref zn_sort_keys(zn_lw *lw, zn_kref buf, zn_kref base, zn_kref n, zn_key_before before, void *user) {
  zn_kb *b = &lw->kb;
  zn_kref width = zn_kb_var(b, zn_kb_idx(b, 1)), from = zn_kb_var(b, base);
  zn_kref room = zn_s_add(lw, base, n), both = zn_s_add(lw, base, room);
  zn_kb_loop(b);
  zn_kref w = zn_kb_get(b, width);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, w, n));
  zn_kref src = zn_kb_get(b, from), dst = zn_kb_bin(b, ZN_K_Sub, both, src);
  zn_kref start = zn_kb_var(b, zn_kb_idx(b, 0));
  zn_kb_loop(b);
  zn_kref lo = zn_kb_get(b, start);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, lo, n));
  zn_kref to_mid = zn_s_add(lw, lo, w), to_hi = zn_s_add(lw, to_mid, w);
  zn_kref mid = zn_kb_bin(b, ZN_K_Min, to_mid, n), hi = zn_kb_bin(b, ZN_K_Min, to_hi, n);
  merge(lw, buf, src, dst, lo, mid, hi, before, user);
  zn_kb_set(b, start, hi);
  zn_kb_end(b);
  zn_kb_set(b, from, dst);
  zn_kb_set(b, width, zn_s_add(lw, w, w));
  zn_kb_end(b);
  return zn_kb_get(b, from);
}
