/* Alignment of vector accesses. A printer moves the lanes of a Load or Store at once only where the address is known to be
 * a multiple of their size: the pointer's part comes from parameters and allocations, the index's part from its arithmetic. */
#include "codegen/kir/kir.h"

enum { MOST = 64, ALLOC = 16 }; /* bytes */

/* A power of two that divides x, at most MOST. */
static uint64_t power_in(int64_t x) {
  uint64_t u = (uint64_t)x, p = u & -u;
  return p == 0 || p > MOST ? MOST : p;
}

static uint64_t least(uint64_t x, uint64_t y) { return x < y ? x : y; }

static bool positive_const(const zn_kfunc *f, zn_kref r, int64_t *k) { return zn_kf_const_int(f, r, k) && *k > 0; }

/* The power of two known to divide value i; operands come before it. */
static uint64_t divisor(const zn_kfunc *f, const uint64_t *known, uint32_t i) {
  const zn_kinst *in = &f->insts[i];
  uint64_t p;
  int64_t k;
  switch (in->op) {
  case ZN_K_Const: return power_in(in->imm.i);
  case ZN_K_Add:
  case ZN_K_Sub:
  case ZN_K_Min:
  case ZN_K_Max: return least(known[in->a], known[in->b]);
  case ZN_K_Select: return least(known[in->b], known[in->c]);
  case ZN_K_For: return least(known[in->a], power_in(in->imm.i));
  case ZN_K_Mul: p = known[in->a] * known[in->b]; return least(p, MOST);
  case ZN_K_Rem: return positive_const(f, in->b, &k) ? least(known[in->a], power_in(k)) : 1;
  case ZN_K_Div:
    if (!positive_const(f, in->b, &k) || (k & (k - 1)) || (uint64_t)k >= known[in->a]) return 1;
    return known[in->a] / (uint64_t)k;
  case ZN_K_Shl: return zn_kf_const_int(f, in->b, &k) && k >= 0 && k < 6 ? least(known[in->a] << k, MOST) : known[in->a];
  default: return 1;
  }
}

static uint64_t address(const zn_kfunc *f, const uint64_t *known, uint32_t i) {
  const zn_kinst *in = &f->insts[i];
  switch (in->op) {
  case ZN_K_Param: return f->params[in->imm.i].align ? f->params[in->imm.i].align : 1;
  case ZN_K_ConstAddr: return MOST;
  case ZN_K_PtrAdd: return least(known[in->a], known[in->b]);
  case ZN_K_Alloc: return ALLOC;
  default: return 1;
  }
}

static void align_function(zn_kfunc *f, zn_arena *tmp) {
  uint64_t *known = ZN_ARRAY(tmp, uint64_t, f->num_insts + 1); /* MOST stands for more, too */
  known[0] = 1;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    zn_kinst *in = &f->insts[i];
    known[i] = 1;
    bool moves = (in->op == ZN_K_Load || in->op == ZN_K_Store) && in->lanes > 1 && in->imm.i == 0;
    if (moves && f->insts[in->b].lanes == 1) {
      uint64_t size = in->dtype == ZN_IDX ? 4 : zn_dtype_bytes((zn_dtype)in->dtype);
      uint64_t p = least(known[in->a], least(known[in->b] * size, MOST));
      if (p > size) in->imm.i = (int64_t)p;
    }
    if (in->op == ZN_K_Store || in->lanes != 1) continue;
    if (zn_kf_dtype(f, i) == ZN_PTR) known[i] = address(f, known, i);
    else if (in->dtype == ZN_IDX) known[i] = divisor(f, known, i);
  }
}

zn_status zn_kpass_align(zn_ctx *c, zn_kmod *m) {
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    if (m->funcs[i]->is_entry || m->funcs[i]->on_host) continue;
    zn_arena tmp;
    zn_arena_init(&tmp, "align");
    align_function(m->funcs[i], &tmp);
    zn_arena_reset(&tmp);
  }
  return zn_kmod_verify(c, m);
}
