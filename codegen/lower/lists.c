/* zn_tensors and lists of them in kernel IR. */
#include "codegen/lower/lists.h"

#include "runtime/zenith.h"

/* ---------------------------------------------------------------- in kernels */

static zn_kref field_ptr(zn_lw *lw, zn_kref t, int field) {
  return zn_kb_ptradd(&lw->kb, t, zn_kb_idx(&lw->kb, field));
}

zn_kref zn_ls_field(zn_lw *lw, zn_kref t, int field, zn_dtype type) {
  zn_kref p = field_ptr(lw, t, field), zero = zn_kb_idx(&lw->kb, 0);
  return zn_kb_load(&lw->kb, type, 1, p, zero);
}

static void set(zn_lw *lw, zn_kref t, int field, zn_kref v) {
  zn_kref p = field_ptr(lw, t, field), zero = zn_kb_idx(&lw->kb, 0);
  zn_kb_store(&lw->kb, p, zero, v);
}

zn_kref zn_ls_dim(zn_lw *lw, zn_kref t, int d) {
  return zn_kb_cvt(&lw->kb, zn_ls_field(lw, t, ZN_T_SHAPE + 8 * d, ZN_I64), ZN_IDX);
}

zn_kref zn_ls_count(zn_lw *lw, zn_kref list) { return zn_ls_dim(lw, list, 0); }

zn_kref zn_ls_at(zn_lw *lw, zn_kref tensors, zn_kref i) {
  zn_kref size = zn_kb_idx(&lw->kb, ZN_TENSOR_BYTES);
  return zn_kb_ptradd(&lw->kb, tensors, zn_s_mul(lw, i, size));
}

zn_kref zn_ls_item(zn_lw *lw, zn_kref list, zn_kref i) {
  return zn_ls_at(lw, zn_ls_field(lw, list, ZN_T_DATA, ZN_PTR), i);
}

void zn_ls_copy(zn_lw *lw, zn_kref to, zn_kref from) {
  zn_kb *b = &lw->kb;
  zn_kref words[ZN_TENSOR_BYTES / 8];
  for (int k = 0; k < ZN_TENSOR_BYTES / 8; k++) words[k] = zn_kb_load(b, ZN_U64, 1, from, zn_kb_idx(b, k));
  for (int k = 0; k < ZN_TENSOR_BYTES / 8; k++) zn_kb_store(b, to, zn_kb_idx(b, k), words[k]);
}

void zn_ls_write(zn_lw *lw, zn_kref t, zn_kref data, zn_kref bytes, uint32_t code, uint32_t rank, const zn_kref *dims) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_int(b, ZN_I64, 0);
  if (lw->caps->idx_bytes < 8) set(lw, t, ZN_T_DATA, zero); /* the upper half of the address */
  set(lw, t, ZN_T_DATA, data);
  set(lw, t, ZN_T_BYTES, zn_kb_cvt(b, bytes, ZN_U64));
  set(lw, t, ZN_T_DTYPE, zn_kb_int(b, ZN_U32, code));
  set(lw, t, ZN_T_RANK, zn_kb_int(b, ZN_U32, rank));
  for (uint32_t d = 0; d < ZN_MAX_RANK; d++)
    set(lw, t, ZN_T_SHAPE + 8 * (int)d, d < rank ? zn_kb_cvt(b, dims[d], ZN_I64) : zero);
}

void zn_ls_write_list(zn_lw *lw, zn_kref t, zn_kref items, zn_kref n, uint32_t code) {
  zn_kref size = zn_kb_idx(&lw->kb, ZN_TENSOR_BYTES);
  zn_ls_write(lw, t, items, zn_s_mul(lw, n, size), code, 1, &n);
}

zn_kref zn_ls_ptr(zn_lw *lw, zn_vid v, zn_kparam_kind access) {
  return zn_lw_ptr_loc(lw, zn_lw_loc(lw, v), access, ZN_U64);
}

zn_kref zn_ls_position(zn_lw *lw, zn_vid v, zn_kref n, zn_kref otherwise, zn_kref *out_ok) {
  zn_kb *b = &lw->kb;
  zn_expr zeros[ZN_MAX_RANK];
  for (int d = 0; d < ZN_MAX_RANK; d++) zeros[d] = zn_ex_const(lw->ex, 0);
  zn_kref zero = zn_kb_idx(b, 0), i = v ? zn_kb_cvt(b, zn_lw_load(lw, v, zeros), ZN_IDX) : otherwise;
  zn_kref up = zn_s_add(lw, i, n), negative = zn_kb_cmp(b, ZN_K_Lt, i, zero);
  i = zn_kb_select(b, negative, up, i);
  zn_kref low = zn_kb_cmp(b, ZN_K_Ge, i, zero), high = zn_kb_cmp(b, ZN_K_Lt, i, n);
  *out_ok = zn_kb_bin(b, ZN_K_And, low, high);
  return i;
}

/* ---------------------------------------------------------------- lengths */

void zn_ls_know_len(zn_lw *lw, zn_vid v, zn_expr len) {
  zn_lwlen l = {lw->g, v, len};
  ZN_PUSH(lw->arena, lw->lens, lw->num_lens, lw->cap_lens, l);
}

zn_expr zn_ls_len(zn_lw *lw, zn_nid n, zn_vid v) {
  for (uint32_t i = 0; i < lw->num_lens; i++)
    if (lw->lens[i].g == lw->g && lw->lens[i].v == v) return lw->lens[i].len;
  zn_loc cell = zn_lw_scratch(lw, zn_ex_const(lw->ex, 8));
  zn_expr len = zn_ex_var(lw->ex, "items", ZN_EX_NONE);
  zn_lw_kernel(lw, n, "items");
  zn_kref count = zn_ls_field(lw, zn_ls_ptr(lw, v, ZN_KP_IN), ZN_T_SHAPE, ZN_I64);
  zn_kref p = zn_lw_ptr_loc(lw, cell, ZN_KP_OUT, ZN_I64), zero = zn_kb_idx(&lw->kb, 0);
  zn_kb_store(&lw->kb, p, zero, count);
  zn_lw_kernel_end(lw);
  zn_lw_define_sym(lw, len, cell);
  zn_ls_know_len(lw, v, len);
  return len;
}

/* ---------------------------------------------------------------- items */

zn_held zn_ls_hold(zn_lw *lw, zn_nid n, zn_vid v) {
  zn_held h = {{ZN_LOC_NONE, 0}, *zn_lw_type(lw, v)};
  if (h.type.kind != ZN_V_TENSOR) {
    h.at = zn_lw_loc(lw, v);
    return h;
  }
  zn_loc from = zn_lw_source(lw, n, v);
  bool stays = from.kind == ZN_LOC_INPUT || from.kind == ZN_LOC_CELL || from.kind == ZN_LOC_CONST;
  h.at = from;
  if (stays) return h;
  h.at = zn_lw_keep(lw, zn_lw_bytes(lw, &h.type));
  zn_lw_copy(lw, n, &h.type, from, h.at);
  return h;
}

void zn_ls_put(zn_lw *lw, zn_kref t, const zn_held *item) {
  const zn_type *type = &item->type;
  zn_kref p = zn_lw_ptr_loc(lw, item->at, ZN_KP_IN, ZN_U8), dims[ZN_MAX_RANK];
  if (type->kind != ZN_V_TENSOR) {
    zn_ls_copy(lw, t, p);
    return;
  }
  for (int d = 0; d < type->rank; d++) dims[d] = zn_lw_ix(lw, type->dims[d]);
  zn_ls_write(lw, t, p, zn_lw_ix(lw, zn_lw_bytes(lw, type)), zn_lw_code(type), (uint32_t)type->rank, dims);
}

zn_taken zn_ls_prepare(zn_lw *lw, zn_vid v, const zn_type *list) {
  const zn_type *t = zn_lw_type(lw, v);
  zn_taken k = {.v = v};
  k.cell = zn_lw_scratch(lw, zn_ex_const(lw->ex, 8));
  k.dims = zn_lw_scratch(lw, zn_ex_const(lw->ex, 8 * ZN_MAX_RANK));
  for (int d = 0; d < t->rank; d++) k.own[d] = list->rank != t->rank || list->dims[d] == ZN_EX_NONE;
  return k;
}

void zn_ls_take(zn_lw *lw, const zn_taken *t, zn_kref item) {
  zn_kb *b = &lw->kb;
  const zn_type type = *zn_lw_type(lw, t->v);
  zn_kref code = zn_ls_field(lw, item, ZN_T_DTYPE, ZN_U32), rank = zn_ls_field(lw, item, ZN_T_RANK, ZN_U32);
  zn_lw_fail_if(lw, zn_kb_cmp(b, ZN_K_Ne, code, zn_kb_int(b, ZN_U32, zn_lw_code(&type))), ZN_RUN_DTYPE);
  zn_lw_fail_if(lw, zn_kb_cmp(b, ZN_K_Ne, rank, zn_kb_int(b, ZN_U32, type.rank)), ZN_RUN_RANK);
  zn_kref dims = zn_lw_ptr_loc(lw, t->dims, ZN_KP_OUT, ZN_I64);
  for (int d = 0; d < type.rank; d++) {
    zn_kref n = zn_ls_field(lw, item, ZN_T_SHAPE + 8 * d, ZN_I64);
    if (t->own[d]) {
      zn_kb_store(b, dims, zn_kb_idx(b, d), n);
      continue;
    }
    zn_kref want = zn_kb_cvt(b, zn_lw_ix(lw, type.dims[d]), ZN_I64);
    zn_lw_fail_if(lw, zn_kb_cmp(b, ZN_K_Ne, n, want), ZN_RUN_SHAPE);
  }
  zn_kref cell = zn_lw_ptr_loc(lw, t->cell, ZN_KP_OUT, ZN_PTR), zero = zn_kb_idx(b, 0);
  zn_kb_store(b, cell, zero, zn_ls_field(lw, item, ZN_T_DATA, ZN_PTR));
}

void zn_ls_finish(zn_lw *lw, zn_nid n, const zn_taken *t) {
  const zn_type type = *zn_lw_type(lw, t->v);
  zn_lw_check(lw);
  for (int d = 0; d < type.rank; d++)
    if (t->own[d]) zn_lw_define_sym_at(lw, type.dims[d], t->dims, (uint32_t)d);
  zn_loc at = {ZN_LOC_CELL, t->cell.index};
  bool device = lw->device_caps->host && !zn_side_of_type(&type); /* its readers may be the device's */
  if (lw->loc[t->v].kind == ZN_LOC_NONE && device) zn_lw_copy(lw, n, &type, at, zn_lw_loc(lw, t->v));
  else if (lw->loc[t->v].kind == ZN_LOC_NONE) lw->loc[t->v] = at;
  else zn_lw_copy(lw, n, &type, at, lw->loc[t->v]);
}
