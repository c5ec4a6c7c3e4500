/* Code on string descriptors, and the tables of constant strings. */
#include "codegen/lower/strvalue.h"

zn_kref zn_sv_len(zn_lw *lw, zn_kref s) {
  zn_kref one = zn_kb_idx(&lw->kb, 1);
  return zn_kb_cvt(&lw->kb, zn_kb_load(&lw->kb, ZN_U64, 1, s, one), ZN_IDX);
}

zn_kref zn_sv_data(zn_lw *lw, zn_kref s) {
  zn_kref zero = zn_kb_idx(&lw->kb, 0);
  return zn_kb_load(&lw->kb, ZN_PTR, 1, s, zero);
}

void zn_sv_set(zn_lw *lw, zn_kref s, zn_kref data, zn_kref len) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_idx(b, 0), one = zn_kb_idx(b, 1);
  if (lw->caps->idx_bytes < 8) { /* the upper half of the address */
    zn_kref nothing = zn_kb_int(b, ZN_U64, 0);
    zn_kb_store(b, s, zero, nothing);
  }
  zn_kb_store(b, s, zero, data);
  zn_kb_store(b, s, one, zn_kb_cvt(b, len, ZN_U64));
}

void zn_sv_copy(zn_lw *lw, zn_kref to, zn_kref from) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_idx(b, 0), one = zn_kb_idx(b, 1);
  zn_kref data = zn_kb_load(b, ZN_U64, 1, from, zero), len = zn_kb_load(b, ZN_U64, 1, from, one);
  zn_kb_store(b, to, zero, data);
  zn_kb_store(b, to, one, len);
}

zn_kref zn_sv_compare_bytes(zn_lw *lw, zn_kref pa, zn_kref na, zn_kref pb, zn_kref nb) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_idx(b, 0), n = zn_kb_bin(b, ZN_K_Min, na, nb);
  zn_kref diff = zn_kb_var(b, zero), at = zn_kb_var(b, zero);
  zn_kb_loop(b);
  zn_kref i = zn_kb_get(b, at);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, i, n));
  zn_kref x = zn_kb_cvt(b, zn_kb_load(b, ZN_U8, 1, pa, i), ZN_IDX);
  zn_kref y = zn_kb_cvt(b, zn_kb_load(b, ZN_U8, 1, pb, i), ZN_IDX);
  zn_kref d = zn_kb_bin(b, ZN_K_Sub, x, y);
  zn_kb_set(b, diff, d);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ne, d, zero));
  zn_kb_set(b, at, zn_kb_bin(b, ZN_K_Add, i, zn_kb_idx(b, 1)));
  zn_kb_end(b);
  zn_kref first = zn_kb_get(b, diff), by_len = zn_kb_bin(b, ZN_K_Sub, na, nb);
  zn_kref same = zn_kb_cmp(b, ZN_K_Eq, first, zero);
  return zn_kb_select(b, same, by_len, first);
}

zn_kref zn_sv_compare(zn_lw *lw, zn_kref a, zn_kref b) {
  zn_kref pa = zn_sv_data(lw, a), na = zn_sv_len(lw, a), pb = zn_sv_data(lw, b), nb = zn_sv_len(lw, b);
  return zn_sv_compare_bytes(lw, pa, na, pb, nb);
}

zn_kref zn_sv_equal(zn_lw *lw, zn_kref a, zn_kref b) {
  zn_kref c = zn_sv_compare(lw, a, b);
  return zn_kb_cmp(&lw->kb, ZN_K_Eq, c, zn_kb_idx(&lw->kb, 0));
}

void zn_sv_move(zn_lw *lw, zn_kref dst, zn_kref src, zn_kref n) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_idx(b, 0);
  zn_kref i = zn_kb_for(b, zero, n, 1, ZN_FOR_SERIAL, 0);
  zn_kref x = zn_kb_load(b, ZN_U8, 1, src, i);
  zn_kb_store(b, dst, i, x);
  zn_kb_end(b);
}

/* ---------------------------------------------------------------- constants */

zn_spool zn_sv_pool(zn_lw *lw, const zn_str *s, uint64_t n) {
  uint64_t total = 0;
  for (uint64_t k = 0; k < n; k++) total += s[k].len;
  char *bytes = zn_arena_alloc(lw->arena, total + 1);
  int64_t *offset = ZN_ARRAY(lw->arena, int64_t, n + 1);
  total = 0;
  for (uint64_t k = 0; k < n; k++) {
    if (s[k].len) memcpy(bytes + total, s[k].ptr, s[k].len);
    total += s[k].len;
    offset[k + 1] = (int64_t)total;
  }
  zn_spool p;
  p.bytes = zn_lw_const(lw, "string_bytes", ZN_U8, total + 1, bytes);
  p.offsets = zn_lw_const(lw, "string_offsets", ZN_I64, n + 1, offset);
  return p;
}

void zn_sv_pool_at(zn_lw *lw, const zn_spool *p, zn_kref k, zn_kref *out_data, zn_kref *out_len) {
  zn_kb *b = &lw->kb;
  zn_kref offsets = zn_lw_ptr_loc(lw, p->offsets, ZN_KP_IN, ZN_I64);
  zn_kref bytes = zn_lw_ptr_loc(lw, p->bytes, ZN_KP_IN, ZN_U8);
  zn_kref next = zn_kb_bin(b, ZN_K_Add, k, zn_kb_idx(b, 1));
  zn_kref from = zn_kb_cvt(b, zn_kb_load(b, ZN_I64, 1, offsets, k), ZN_IDX);
  zn_kref to = zn_kb_cvt(b, zn_kb_load(b, ZN_I64, 1, offsets, next), ZN_IDX);
  *out_data = zn_kb_ptradd(b, bytes, from);
  *out_len = zn_kb_bin(b, ZN_K_Sub, to, from);
}

zn_loc zn_lw_strings(zn_lw *lw, const zn_str *s, uint64_t n) {
  for (uint32_t i = 0; i < lw->num_tables; i++)
    if (lw->tables[i].s == s && lw->tables[i].n == n) return lw->tables[i].at;
  zn_stable t = {s, n, zn_lw_scratch(lw, zn_ex_const(lw->ex, (int64_t)(n ? n : 1) * ZN_STR_BYTES))};
  ZN_PUSH(lw->arena, lw->tables, lw->num_tables, lw->cap_tables, t);
  return t.at;
}

static void make_table(zn_lw *lw, const zn_stable *t) {
  zn_spool pool = zn_sv_pool(lw, t->s, t->n);
  zn_lw_kernel(lw, 0, "strings");
  zn_kb *b = &lw->kb;
  zn_kref to = zn_lw_ptr_loc(lw, t->at, ZN_KP_OUT, ZN_U64), data, len;
  zn_kref zero = zn_kb_idx(b, 0), n = zn_lw_ix(lw, zn_ex_const(lw->ex, (int64_t)t->n));
  zn_kref k = zn_kb_for(b, zero, n, 1, ZN_FOR_SERIAL, 0);
  zn_sv_pool_at(lw, &pool, k, &data, &len);
  zn_kref at = zn_kb_bin(b, ZN_K_Mul, k, zn_kb_idx(b, ZN_STR_BYTES));
  zn_sv_set(lw, zn_kb_ptradd(b, to, at), data, len);
  zn_kb_end(b);
  zn_lw_kernel_end(lw);
}

void zn_lw_make_tables(zn_lw *lw) {
  uint32_t before = lw->num_steps;
  for (uint32_t i = 0; i < lw->num_tables; i++) make_table(lw, &lw->tables[i]);
  uint32_t made = lw->num_steps - before;
  if (!made) return;
  zn_step *all = ZN_ARRAY(lw->arena, zn_step, lw->num_steps);
  memcpy(all, lw->steps + before, made * sizeof *all);
  memcpy(all + made, lw->steps, before * sizeof *all);
  lw->steps = all;
  lw->cap_steps = lw->num_steps;
}
