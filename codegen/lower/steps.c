/* Steps between kernels: symbols that take run-time values, flat copies. */
#include "codegen/lower/inplace.h"
#include "codegen/lower/program.h"

#include <assert.h>

static void push_step(zn_lw *lw, zn_step s) {
  assert(!lw->cur && "steps stand between kernels");
  ZN_PUSH(lw->arena, lw->steps, lw->num_steps, lw->cap_steps, s);
}

void zn_lw_define_sym(zn_lw *lw, zn_expr sym, zn_loc loc) {
  push_step(lw, (zn_step){.kind = ZN_STEP_SYM, .sym = sym, .loc = loc, .dtype = ZN_I64});
}

void zn_lw_define_sym_at(zn_lw *lw, zn_expr sym, zn_loc loc, uint32_t elem) {
  push_step(lw, (zn_step){.kind = ZN_STEP_SYM, .sym = sym, .loc = loc, .elem = elem, .dtype = ZN_I64});
}

void zn_lw_check(zn_lw *lw) { push_step(lw, (zn_step){.kind = ZN_STEP_CHECK}); }

void zn_lw_set_sym(zn_lw *lw, zn_expr sym, zn_expr e) {
  push_step(lw, (zn_step){.kind = ZN_STEP_SYM, .sym = sym, .a = e});
}

void zn_lw_require_le(zn_lw *lw, zn_expr a, zn_expr b) {
  if (zn_ex_le(lw->ex, a, b)) return;
  zn_expr over = zn_ex_max(lw->ex, zn_ex_sub(lw->ex, a, b), zn_ex_const(lw->ex, 0));
  push_step(lw, (zn_step){.kind = ZN_STEP_REQUIRE, .a = over, .b = zn_ex_const(lw->ex, 0), .code = 3});
}

/* A loop's number of the turn, as its body's input: the entry knows it, and kernels find every name of it in memory. */
static bool define_turn(zn_lw *lw, zn_vid v) {
  const zn_loc at = lw->loc[v];
  zn_expr turn = ZN_EX_NONE;
  for (uint32_t i = 0; i < lw->num_counters && !turn; i++)
    if (lw->counters[i].at.kind == at.kind && lw->counters[i].at.index == at.index) turn = lw->counters[i].sym;
  const zn_expr sym = turn ? lw->g->vals[v].content[0] : ZN_EX_NONE;
  if (!sym) return turn != ZN_EX_NONE;
  push_step(lw, (zn_step){.kind = ZN_STEP_SYM, .sym = sym, .a = turn});
  const zn_counter c = {sym, at};
  ZN_PUSH(lw->arena, lw->counters, lw->num_counters, lw->cap_counters, c);
  return true;
}

void zn_lw_define_content(zn_lw *lw, zn_vid v) {
  const zn_value *val = &lw->g->vals[v];
  if (val->inlined || val->cst) return;
  if (val->content && define_turn(lw, v)) return;
  for (uint32_t k = 0; val->content && k < val->num_elems; k++) {
    zn_step s = {.kind = ZN_STEP_SYM, .sym = val->content[k], .elem = k, .dtype = (zn_dtype)val->type.dtype};
    if (!val->content[k]) continue;
    s.loc = zn_lw_loc(lw, v);
    push_step(lw, s);
  }
  for (uint32_t k = 0; k < val->num_scaled; k++) {
    const zn_scaled *f = &lw->g->vals[v].scaled[k];
    zn_step s = {.kind = ZN_STEP_SYM, .sym = f->sym, .a = f->by, .elem = f->elem, .dtype = (zn_dtype)val->type.dtype};
    s.loc = zn_lw_loc(lw, v);
    push_step(lw, s);
  }
}

void zn_lw_copy(zn_lw *lw, zn_nid n, const zn_type *t, zn_loc from, zn_loc to) {
  zn_lw_copy_at(lw, n, t, from, to, zn_ex_const(lw->ex, 0));
}

zn_expr zn_lw_bytes(zn_lw *lw, const zn_type *t) {
  if (t->kind != ZN_V_TENSOR) return zn_ex_const(lw->ex, ZN_TENSOR_BYTES);
  return zn_ex_muli(lw->ex, zn_type_count(lw->ex, t), zn_dtype_bytes((zn_dtype)t->dtype));
}

void zn_lw_grow(zn_lw *lw, zn_loc loc, zn_expr bytes, zn_expr used) {
  push_step(lw, (zn_step){.kind = ZN_STEP_GROW, .loc = loc, .a = bytes, .b = used});
}

/* Writes known contents (shape arithmetic) into memory. */
static void write_known(zn_lw *lw, zn_nid n, zn_vid v, zn_loc to) {
  const zn_type t = *zn_lw_type(lw, v);
  zn_lw_kernel(lw, n, "known");
  zn_expr idx[ZN_MAX_RANK], flat = zn_ex_const(lw->ex, 0);
  for (int d = 0; d < t.rank; d++) {
    idx[d] = zn_lw_for(lw, t.dims[d], ZN_FOR_SERIAL, 0);
    flat = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, flat, t.dims[d]), idx[d]);
  }
  zn_kref x = zn_lw_load(lw, v, idx), p = zn_lw_ptr_loc(lw, to, ZN_KP_OUT, (zn_dtype)t.dtype);
  zn_lw_store_at(lw, p, (zn_dtype)t.dtype, flat, x);
  for (int d = 0; d < t.rank; d++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

zn_loc zn_lw_source(zn_lw *lw, zn_nid n, zn_vid v) {
  const zn_value *val = &lw->g->vals[v];
  bool only_known = !val->cst && val->elems && val->num_elems && lw->loc[v].kind == ZN_LOC_NONE;
  if (!only_known) return zn_lw_loc(lw, v);
  zn_loc to = zn_lw_scratch(lw, zn_lw_bytes(lw, &val->type));
  write_known(lw, n, v, to);
  return to;
}

/* Copies of strings and lists, and what lists will point to or pointed to, are the host's. */
static bool host_copies(const zn_lw *lw, const zn_type *t, zn_loc from, zn_loc to) {
  bool kept = to.kind == ZN_LOC_WS && lw->bufs[to.index].keep;
  return zn_side_of_type(t) || from.kind == ZN_LOC_CELL || kept;
}

void zn_lw_copy_at(zn_lw *lw, zn_nid n, const zn_type *t, zn_loc from, zn_loc to, zn_expr first) {
  zn_exprs *ex = lw->ex;
  const bool was_host = zn_lw_side(lw, host_copies(lw, t, from, to));
  zn_type words = zn_type_tensor(ZN_U64, 1, (zn_expr[]){zn_ex_const(ex, ZN_TENSOR_BYTES / 8)});
  if (t->kind != ZN_V_TENSOR) t = &words;
  zn_dtype dt = (zn_dtype)t->dtype;
  static const zn_dtype raw[9] = {0, ZN_U8, ZN_U16, 0, ZN_U32, 0, 0, 0, ZN_U64};
  zn_expr count = zn_type_count(ex, t), base = zn_ex_const(ex, 0), here;
  if (zn_dtype_bytes(dt) == 16) { /* strings and complex numbers: two words */
    dt = ZN_U64;
    count = zn_ex_muli(ex, count, 2);
    first = zn_ex_muli(ex, first, 2);
  }
  if (dt != ZN_BOOL) dt = raw[zn_dtype_bytes(dt)];
  here = count;
  int64_t lo, hi;
  zn_ex_range(ex, count, &lo, &hi);
  const bool over = zn_over_input(lw, from, to) && zn_ex_is(ex, first, 0);
  if (over) {
    zn_over_input_if(lw, to);
    zn_over_input_else(lw);
  }
  zn_lw_kernel(lw, n, "copy");
  const int64_t share = lw->caps->simt ? 1024 : 16384;
  bool split = hi > (lw->caps->simt ? share : 4 * share);
  if (split) { /* something to share out */
    zn_expr size = zn_ex_const(ex, share), parts = zn_ex_ceildiv(ex, count, size), p;
    zn_lw_grid(lw, 1, &parts, &p);
    base = zn_ex_mul(ex, p, size);
    here = zn_ex_min(ex, size, zn_ex_sub(ex, count, base));
  }
  zn_kref dst = zn_lw_ptr_loc(lw, to, ZN_KP_OUT, dt);
  zn_kref src = zn_lw_ptr_loc(lw, from, ZN_KP_IN, dt);
  zn_expr i = zn_lw_for(lw, here, ZN_FOR_VECTOR, 0);
  zn_kref x = zn_kb_load(&lw->kb, dt, 1, src, zn_lw_ix(lw, zn_ex_add(ex, base, i)));
  zn_kref at = zn_lw_ix(lw, zn_ex_add(ex, first, zn_ex_add(ex, base, i)));
  zn_kb_store(&lw->kb, dst, at, x);
  zn_lw_end(lw);
  if (split) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  if (over) zn_over_input_end(lw);
  zn_lw_side(lw, was_host);
}
