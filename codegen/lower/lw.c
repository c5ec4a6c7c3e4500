/* The kernel side of lowering: starting and ending kernels, loops, index code, element access. Everything that a
 * schedule needs and nothing about any operator. */
#include "codegen/lower/inplace.h"

#include <assert.h>

#include "codegen/lower/strvalue.h"

/* ---------------------------------------------------------------- kernels */

void zn_lw_find_epilogue(zn_lw *lw) {
  const zn_graph *g = lw->g;
  lw->num_epilogue = 0;
  lw->epilogue = ZN_ARRAY(lw->arena, zn_nid, 8);
  uint32_t cap = 8;
  for (uint32_t i = 0; lw->node && i < g->num_order; i++) {
    zn_nid n = g->order[i];
    if (n == lw->node || g->nodes[n].group != lw->node) continue;
    if (g->vals[g->nodes[n].out[0]].inlined) continue;
    ZN_PUSH(lw->arena, lw->epilogue, lw->num_epilogue, cap, n);
  }
}

static const char *signature_of(zn_lw *lw, zn_nid n) {
  if (lw->signature.g == lw->g && lw->signature.n == n) return lw->signature.text;
  lw->signature.g = lw->g;
  lw->signature.n = n;
  lw->signature.text = zn_knob_signature(lw->arena, lw->g, n, lw->caps->arch, lw->opts->math_fast);
  return lw->signature.text;
}

void zn_lw_kernel(zn_lw *lw, zn_nid n, const char *hint) {
  assert(!lw->cur && "kernels do not nest");
  lw->node = n;
  lw->num_over = lw->num_ptrs = lw->num_ints = lw->num_open = 0;
  lw->once = false;
  lw->cap_ptrs = lw->cap_ints = 0;
  lw->ptrs = NULL;
  lw->ints = NULL;
  zn_lw_find_epilogue(lw);
  zn_step s = {.kind = ZN_STEP_CALL, .grid = zn_ex_const(lw->ex, 1)};
  ZN_PUSH(lw->arena, lw->steps, lw->num_steps, lw->cap_steps, s);
  lw->cur = &lw->steps[lw->num_steps - 1];
  const char *name = zn_arena_printf(lw->arena, "k%u_%s", lw->kernel_count++, hint);
  memset(&lw->kb, 0, sizeof lw->kb);
  lw->kernel_fn = zn_kb_begin(&lw->kb, lw->ctx, lw->mod, name, false);
  lw->kb.f->on_host = lw->on_host;
  lw->cur->fn = lw->kernel_fn;
  const zn_node *node = zn_lw_node(lw, n);
  const char *note = n ? zn_arena_printf(lw->arena, "%s '%s'", zn_op_name(node->op), node->name) : NULL;
  for (uint32_t i = 0; i < lw->num_epilogue; i++)
    note = zn_arena_printf(lw->arena, "%s + %s", note,
                           zn_op_name(zn_lw_node(lw, lw->epilogue[i])->op));
  lw->kb.f->note = note;
  if (lw->opts->knobs && n) lw->kb.f->signature = signature_of(lw, n);
}

int64_t zn_lw_knob(zn_lw *lw, zn_nid node, const char *knob, int64_t usual, const int64_t *choices, uint32_t n) {
  if (!lw->opts->knobs || lw->caps->simt || !node) return usual;
  return zn_knob_ask(lw->opts->knobs, signature_of(lw, node), knob, usual, choices, n);
}

uint32_t zn_lw_knob_best(zn_lw *lw, zn_nid node, const char *knob, uint32_t usual, const int64_t *codes, const double *scores,
                         uint32_t n) {
  int64_t choices[ZN_KNOB_MAX_CHOICES] = {codes[usual]};
  uint32_t place[ZN_KNOB_MAX_CHOICES] = {usual}, num = 1;
  for (; num < ZN_KNOB_MAX_CHOICES; num++) {
    uint32_t next = n;
    for (uint32_t i = 0; i < n; i++) {
      bool taken = scores[i] <= 0;
      for (uint32_t k = 0; k < num; k++) taken |= place[k] == i;
      if (!taken && (next == n || scores[i] > scores[next])) next = i;
    }
    if (next == n) break;
    place[num] = next;
    choices[num] = codes[next];
  }
  const int64_t code = num > 1 ? zn_lw_knob(lw, node, knob, codes[usual], choices, num) : codes[usual];
  uint32_t at = 0;
  while (choices[at] != code) at++;
  return place[at];
}

void zn_lw_kernel_end(zn_lw *lw) {
  assert(lw->num_open == 0 && "a loop was left open");
  zn_kb_finish(&lw->kb);
  for (uint32_t i = 0; i < lw->num_ptrs; i++) /* a band over the residual that it adds */
    if (lw->ptrs[i].loc.kind == ZN_LOC_PART && lw->ptrs[i].access == ZN_KP_INOUT && !lw->once && lw->node &&
        zn_lw_node(lw, lw->node)->op == ZN_OP_Conv)
      ZN_BUG(lw->ctx, "%s: stored over an operand by a schedule with overlapping tiles",
             zn_node_where(lw->ctx, zn_lw_node(lw, lw->node)));
  lw->cur = NULL;
}

/* ---------------------------------------------------------------- loops */

static void push_open(zn_lw *lw, bool real) {
  assert(lw->num_open < ZN_LW_MAX_LOOPS);
  lw->open_real[lw->num_open++] = real;
}

void zn_lw_end(zn_lw *lw) {
  assert(lw->num_open > 0);
  if (lw->open_real[--lw->num_open]) zn_kb_end(&lw->kb);
}

static zn_expr loop_var(zn_lw *lw, zn_kref k, zn_expr extent) {
  zn_expr v = zn_ex_var(lw->ex, "i", extent);
  zn_ex_set_tag(lw->ex, v, k);
  return v;
}

zn_expr zn_lw_as_expr(zn_lw *lw, zn_kref k, zn_expr extent) {
  int64_t c;
  if (zn_kf_const_int(lw->kb.f, k, &c)) return zn_ex_const(lw->ex, c);
  return loop_var(lw, k, extent);
}

zn_expr zn_lw_for(zn_lw *lw, zn_expr extent, zn_for_kind kind, unsigned factor) {
  if (zn_ex_is(lw->ex, extent, 1)) {
    push_open(lw, false);
    return zn_ex_const(lw->ex, 0);
  }
  int64_t n;
  if (kind == ZN_FOR_UNROLL && factor == 0 && zn_ex_is_const(lw->ex, extent, &n))
    factor = n < 64 ? (unsigned)n : 8;
  zn_kref hi = zn_lw_ix(lw, extent);
  zn_kref lo = zn_kb_idx(&lw->kb, 0);
  zn_kref k = zn_kb_for(&lw->kb, lo, hi, 1, kind, factor);
  push_open(lw, true);
  return loop_var(lw, k, extent);
}

void zn_lw_grid(zn_lw *lw, uint32_t n, const zn_expr *extents, zn_expr *out_vars) {
  zn_expr total = zn_ex_const(lw->ex, 1);
  for (uint32_t i = 0; i < n; i++) total = zn_ex_mul(lw->ex, total, extents[i]);
  lw->cur->grid = total;
  zn_kref lo = zn_kb_idx(&lw->kb, 0);
  if (zn_ex_is(lw->ex, total, 1)) {
    push_open(lw, false);
    for (uint32_t i = 0; i < n; i++) out_vars[i] = zn_ex_const(lw->ex, 0);
    return;
  }
  zn_kref hi = zn_lw_ix(lw, total);
  zn_kref gk = zn_kb_for(&lw->kb, lo, hi, 1, ZN_FOR_GRID, 0);
  push_open(lw, true);
  zn_expr rest = loop_var(lw, gk, total);
  for (uint32_t i = n; i-- > 0;) { /* innermost first; the outermost takes what is left */
    if (zn_ex_is(lw->ex, extents[i], 1)) {
      out_vars[i] = zn_ex_const(lw->ex, 0);
      continue;
    }
    bool outermost = true;
    for (uint32_t j = 0; j < i; j++) outermost &= zn_ex_is(lw->ex, extents[j], 1);
    if (outermost) {
      out_vars[i] = rest;
      rest = zn_ex_const(lw->ex, 0);
      continue;
    }
    zn_kref d = zn_lw_ix(lw, extents[i]);
    zn_kref r = zn_lw_ix(lw, rest);
    zn_kref m = zn_kb_bin(&lw->kb, ZN_K_Rem, r, d);
    zn_kref q = zn_kb_bin(&lw->kb, ZN_K_Div, r, d);
    out_vars[i] = loop_var(lw, m, extents[i]);
    zn_expr left = zn_ex_const(lw->ex, 1);
    for (uint32_t j = 0; j < i; j++) left = zn_ex_mul(lw->ex, left, extents[j]);
    rest = loop_var(lw, q, left);
  }
}

/* ---------------------------------------------------------------- index code */

static const zn_counter *counter_of(const zn_lw *lw, zn_expr sym) {
  for (uint32_t i = 0; i < lw->num_counters && !lw->on_host; i++)
    if (lw->counters[i].sym == sym) return &lw->counters[i];
  return NULL;
}

static bool has_loop_var(const zn_lw *lw, zn_expr e) {
  if (zn_ex_kind(lw->ex, e) == ZN_EX_CONST) return false;
  if (zn_ex_kind(lw->ex, e) == ZN_EX_SYM) return zn_ex_tag(lw->ex, e) != 0 || counter_of(lw, e);
  for (uint32_t i = 0; i < zn_ex_arity(lw->ex, e); i++)
    if (has_loop_var(lw, zn_ex_operand(lw->ex, e, i))) return true;
  return false;
}

/* The first use of a parameter may stand inside a loop: every use names it anew, cleaning merges them. */
static zn_kref param_again(zn_lw *lw, zn_kref first) {
  zn_kinst p = lw->kb.f->insts[first];
  return zn_kb_raw(&lw->kb, p);
}

static zn_kref int_param(zn_lw *lw, zn_expr e) {
  for (uint32_t i = 0; i < lw->num_ints; i++)
    if (lw->ints[i].e == e) return param_again(lw, lw->ints[i].k);
  const char *name = zn_arena_printf(lw->arena, "n%u", lw->num_ints);
  zn_kref k = zn_kb_param(&lw->kb, name, ZN_KP_INT, ZN_IDX);
  if (lw->num_ints == lw->cap_ints) {
    uint32_t cap = lw->cap_ints ? lw->cap_ints * 2 : 8;
    lw->ints = zn_arena_grow(lw->arena, lw->ints, lw->num_ints * sizeof *lw->ints,
                             cap * sizeof *lw->ints);
    lw->cap_ints = cap;
  }
  lw->ints[lw->num_ints].e = e;
  lw->ints[lw->num_ints++].k = k;
  zn_arg a = {.is_int = true, .e = e};
  ZN_PUSH(lw->arena, lw->cur->args, lw->cur->num_args, lw->cur->cap_args, a);
  return k;
}

static zn_kref floor_div_mod(zn_lw *lw, zn_expr num, zn_expr den, bool mod) {
  zn_kb *b = &lw->kb;
  int64_t lo, hi, dlo, dhi;
  zn_ex_range(lw->ex, num, &lo, &hi);
  zn_ex_range(lw->ex, den, &dlo, &dhi);
  zn_kref x = zn_lw_ix(lw, num), d = zn_lw_ix(lw, den);
  zn_kref r = zn_kb_bin(b, ZN_K_Rem, x, d);
  if (lo >= 0 && dlo >= 0) return mod ? r : zn_kb_bin(b, ZN_K_Div, x, d);
  /* floor semantics: adjust when the remainder's sign differs from the divisor's */
  zn_kref zero = zn_kb_idx(b, 0);
  zn_kref nonzero = zn_kb_cmp(b, ZN_K_Ne, r, zero);
  zn_kref sx = zn_kb_cmp(b, ZN_K_Lt, r, zero), sd = zn_kb_cmp(b, ZN_K_Lt, d, zero);
  zn_kref differ = zn_kb_cmp(b, ZN_K_Ne, sx, sd);
  zn_kref fix = zn_kb_bin(b, ZN_K_And, nonzero, differ);
  if (mod) {
    zn_kref rd = zn_kb_bin(b, ZN_K_Add, r, d);
    return zn_kb_select(b, fix, rd, r);
  }
  zn_kref q = zn_kb_bin(b, ZN_K_Div, x, d);
  zn_kref one = zn_kb_idx(b, 1);
  zn_kref q1 = zn_kb_bin(b, ZN_K_Sub, q, one);
  return zn_kb_select(b, fix, q1, q);
}

zn_kref zn_lw_ix(zn_lw *lw, zn_expr e) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  int64_t c;
  assert(e != ZN_EX_NONE);
  if (zn_ex_is_const(ex, e, &c)) return zn_kb_idx(b, c);
  if (!has_loop_var(lw, e)) return int_param(lw, e);
  zn_ex_op op = zn_ex_kind(ex, e);
  const zn_counter *count = op == ZN_EX_SYM ? counter_of(lw, e) : NULL;
  if (count) {
    zn_kref p = zn_lw_ptr_loc(lw, count->at, ZN_KP_IN, ZN_I64), zero = zn_kb_idx(b, 0);
    return zn_kb_cvt(b, zn_kb_load(b, ZN_I64, 1, p, zero), ZN_IDX);
  }
  if (op == ZN_EX_SYM) return (zn_kref)zn_ex_tag(ex, e);
  if (op == ZN_EX_ADD) { /* invariant terms first: they hoist as one */
    zn_expr inv = zn_ex_const(ex, 0);
    for (uint32_t i = 0; i < zn_ex_arity(ex, e); i++) {
      zn_expr t = zn_ex_operand(ex, e, i);
      if (!has_loop_var(lw, t)) inv = zn_ex_add(ex, inv, t);
    }
    zn_kref sum = zn_lw_ix(lw, inv);
    for (uint32_t i = 0; i < zn_ex_arity(ex, e); i++) {
      zn_expr t = zn_ex_operand(ex, e, i);
      if (!has_loop_var(lw, t)) continue;
      zn_kref k = zn_lw_ix(lw, t);
      sum = zn_kb_bin(b, ZN_K_Add, sum, k);
    }
    return sum;
  }
  if (op == ZN_EX_MUL) {
    zn_expr inv = zn_ex_const(ex, 1);
    zn_kref prod = 0;
    for (uint32_t i = 0; i < zn_ex_arity(ex, e); i++) {
      zn_expr t = zn_ex_operand(ex, e, i);
      if (!has_loop_var(lw, t)) {
        inv = zn_ex_mul(ex, inv, t);
        continue;
      }
      zn_kref k = zn_lw_ix(lw, t);
      prod = prod ? zn_kb_bin(b, ZN_K_Mul, prod, k) : k;
    }
    zn_kref f = zn_lw_ix(lw, inv);
    return zn_kb_bin(b, ZN_K_Mul, prod, f);
  }
  zn_expr x = zn_ex_operand(ex, e, 0), y = zn_ex_operand(ex, e, 1);
  if (op == ZN_EX_DIV || op == ZN_EX_MOD) return floor_div_mod(lw, x, y, op == ZN_EX_MOD);
  zn_kref kx = zn_lw_ix(lw, x), ky = zn_lw_ix(lw, y);
  if (op == ZN_EX_MIN) return zn_kb_bin(b, ZN_K_Min, kx, ky);
  if (op == ZN_EX_MAX) return zn_kb_bin(b, ZN_K_Max, kx, ky);
  assert(op == ZN_EX_BCAST);
  zn_kref one = zn_kb_idx(b, 1);
  zn_kref is1 = zn_kb_cmp(b, ZN_K_Eq, kx, one);
  return zn_kb_select(b, is1, ky, kx);
}

zn_kref zn_lw_in_range(zn_lw *lw, zn_expr e, zn_expr n) {
  zn_kb *b = &lw->kb;
  zn_expr zero = zn_ex_const(lw->ex, 0);
  zn_kref lo = zn_ex_le(lw->ex, zero, e) ? zn_kb_int(b, ZN_BOOL, 1) : 0;
  zn_kref hi = zn_ex_lt(lw->ex, e, n) ? zn_kb_int(b, ZN_BOOL, 1) : 0;
  if (lo && hi) return lo;
  zn_kref k = zn_lw_ix(lw, e);
  if (!lo) lo = zn_kb_cmp(b, ZN_K_Ge, k, zn_kb_idx(b, 0));
  if (!hi) {
    zn_kref kn = zn_lw_ix(lw, n);
    hi = zn_kb_cmp(b, ZN_K_Lt, k, kn);
  }
  return zn_kb_bin(b, ZN_K_And, lo, hi);
}

/* ---------------------------------------------------------------- memory */

/* What is known of a place's address: buffers of ours and constants start at multiples of 64, what the caller gives a device
 * at 16 (other tensors are copied first). */
static uint8_t alignment(const zn_lw *lw, zn_loc loc) {
  uint64_t at = 0, most = 64;
  if (loc.kind == ZN_LOC_PART) at = lw->parts[loc.index].at, loc = lw->parts[loc.index].whole;
  if (loc.kind == ZN_LOC_INPUT || loc.kind == ZN_LOC_OUTPUT) most = lw->caps->simt ? 16 : 1;
  else if (loc.kind != ZN_LOC_WS && loc.kind != ZN_LOC_CONST) return 0;
  return at % most ? (uint8_t)(at & -at) : most > 1 ? (uint8_t)most : 0;
}

zn_kref zn_lw_ptr_loc(zn_lw *lw, zn_loc loc, zn_kparam_kind access, zn_dtype dtype) {
  for (uint32_t i = 0; i < lw->num_ptrs; i++) {
    if (lw->ptrs[i].loc.kind != loc.kind || lw->ptrs[i].loc.index != loc.index) continue;
    if (lw->ptrs[i].access != access && lw->ptrs[i].access != ZN_KP_INOUT) {
      lw->ptrs[i].access = ZN_KP_INOUT;
      uint32_t p = (uint32_t)lw->kb.f->insts[lw->ptrs[i].k].imm.i;
      lw->kb.f->params[p].kind = ZN_KP_INOUT;
      lw->cur->args[p].access = ZN_KP_INOUT;
    }
    return param_again(lw, lw->ptrs[i].k);
  }
  static const char *const stem[] = {"?", "in", "out", "w", "t", "part", "at"};
  const char *name = zn_arena_printf(lw->arena, "%s%u", stem[loc.kind], loc.index);
  zn_kref k = zn_kb_param(&lw->kb, name, access, dtype);
  lw->kb.f->params[lw->kb.f->insts[k].imm.i].align = alignment(lw, loc);
  if (lw->num_ptrs == lw->cap_ptrs) {
    uint32_t cap = lw->cap_ptrs ? lw->cap_ptrs * 2 : 8;
    lw->ptrs = zn_arena_grow(lw->arena, lw->ptrs, lw->num_ptrs * sizeof *lw->ptrs,
                             cap * sizeof *lw->ptrs);
    lw->cap_ptrs = cap;
  }
  lw->ptrs[lw->num_ptrs].loc = loc;
  lw->ptrs[lw->num_ptrs].access = access;
  lw->ptrs[lw->num_ptrs++].k = k;
  zn_arg a = {.loc = loc, .access = access};
  ZN_PUSH(lw->arena, lw->cur->args, lw->cur->num_args, lw->cur->cap_args, a);
  return k;
}

zn_loc zn_lw_const(zn_lw *lw, const char *name, zn_dtype t, uint64_t count, const void *data) {
  return (zn_loc){ZN_LOC_CONST, zn_kmod_add_const(lw->mod, name, t, count, data)};
}

zn_loc zn_lw_const_fill(zn_lw *lw, const char *name, zn_dtype t, uint64_t count,
                        void (*fill)(const void *user, void *dst), const void *user) {
  uint32_t k = zn_kmod_add_const(lw->mod, name, t, count, NULL);
  lw->mod->consts[k].fill = fill;
  lw->mod->consts[k].user = user;
  return (zn_loc){ZN_LOC_CONST, k};
}

const zn_htensor *zn_lw_cst(const zn_lw *lw, zn_vid v) { return v ? lw->g->vals[v].cst : NULL; }

static uint32_t new_buffer(zn_lw *lw, zn_expr bytes) {
  zn_wsbuf b = {.bytes = bytes, .first = UINT32_MAX};
  ZN_PUSH(lw->arena, lw->bufs, lw->num_bufs, lw->cap_bufs, b);
  return lw->num_bufs - 1;
}

zn_loc zn_lw_scratch(zn_lw *lw, zn_expr bytes) { return (zn_loc){ZN_LOC_WS, new_buffer(lw, bytes)}; }

zn_loc zn_lw_keep(zn_lw *lw, zn_expr bytes) {
  zn_loc at = zn_lw_scratch(lw, bytes);
  lw->bufs[at.index].keep = true;
  return at;
}

/* Elements that v occupies in its physical layout. */
static zn_expr stored_count(zn_lw *lw, zn_vid v) {
  const zn_value *val = &lw->g->vals[v];
  zn_expr n = zn_ex_const(lw->ex, 1);
  for (int d = 0; d < val->type.rank; d++) {
    int64_t more = val->layout.lo[d] + val->layout.hi[d] + (d == val->type.rank - 2 ? (int64_t)val->layout.gap : 0);
    zn_expr e = zn_ex_addi(lw->ex, val->type.dims[d], more);
    if (val->layout.block && val->layout.axis == d)
      e = zn_ex_muli(lw->ex, zn_ex_ceildiv(lw->ex, e, zn_ex_const(lw->ex, val->layout.block)),
                     val->layout.block);
    n = zn_ex_mul(lw->ex, n, e);
  }
  return n;
}

zn_loc zn_lw_inside(zn_lw *lw, zn_loc whole, uint64_t at, uint64_t bytes) {
  zn_part p = {whole, at, bytes};
  if (whole.kind == ZN_LOC_PART) p.whole = lw->parts[whole.index].whole, p.at += lw->parts[whole.index].at;
  for (uint32_t i = 0; i < lw->num_parts; i++) { /* one place is one pointer of a kernel */
    zn_part *q = &lw->parts[i];
    if (q->at != p.at || q->whole.kind != p.whole.kind || q->whole.index != p.whole.index) continue;
    if (q->bytes < p.bytes) q->bytes = p.bytes;
    return (zn_loc){ZN_LOC_PART, i};
  }
  ZN_PUSH(lw->arena, lw->parts, lw->num_parts, lw->cap_parts, p);
  return (zn_loc){ZN_LOC_PART, lw->num_parts - 1};
}

zn_loc zn_lw_loc(zn_lw *lw, zn_vid v) {
  if (lw->loc[v].kind != ZN_LOC_NONE) return lw->loc[v];
  const zn_value *val = &lw->g->vals[v];
  if (val->cst && val->cst->dtype == ZN_STR) {
    lw->loc[v] = zn_lw_strings(lw, val->cst->data, zn_htensor_count(val->cst));
  } else if (val->cst) {
    const zn_dtype t = val->cst->dtype;
    const uint64_t n = zn_htensor_count(val->cst);
    if (zn_dtypes[t].cls == 'C') lw->loc[v] = zn_lw_const(lw, val->name, ZN_U64, n * zn_dtype_bytes(t) / 8, val->cst->data);
    else lw->loc[v] = zn_lw_const(lw, val->name, t, n, val->cst->data);
  } else if (val->alias) {
    lw->loc[v] = zn_lw_loc(lw, val->alias);
  } else if (lw->sharing && lw->sharing->g == lw->g && lw->sharing->part_of[v]) {
    int64_t count;
    bool known = zn_ex_is_const(lw->ex, stored_count(lw, v), &count);
    uint64_t bytes = known ? (uint64_t)count * zn_dtype_bytes(val->type.dtype) : UINT64_MAX;
    lw->loc[v] = zn_lw_inside(lw, zn_lw_loc(lw, lw->sharing->part_of[v]), lw->sharing->part_at[v], bytes);
  } else {
    zn_expr bytes = val->type.kind != ZN_V_TENSOR
                        ? zn_lw_bytes(lw, &val->type)
                        : zn_ex_muli(lw->ex, stored_count(lw, v), zn_dtype_bytes(val->type.dtype));
    lw->loc[v] = (zn_loc){ZN_LOC_WS, new_buffer(lw, bytes)};
  }
  return lw->loc[v];
}

bool zn_lw_in_workspace(zn_lw *lw, zn_vid v) {
  const zn_value *val = &lw->g->vals[v];
  if (val->cst || val->inlined || zn_value_known(val) || !zn_layout_is_plain(&val->layout)) return false;
  zn_loc_kind kind = zn_lw_loc(lw, v).kind;
  return kind == ZN_LOC_WS || (lw->caps->simt && (kind == ZN_LOC_INPUT || kind == ZN_LOC_OUTPUT));
}

bool zn_lw_is_stored(const zn_lw *lw, zn_vid v) {
  const zn_value *val = &lw->g->vals[v];
  return val->cst || !val->inlined;
}

static zn_dtype storage_ktype(zn_dtype t) { /* what Load and Store move */
  if (zn_is_float(t) && zn_dtype_bytes(t) == 1) return ZN_U8;
  if (zn_dtype_bits(t) < 8 && zn_is_int(t)) return zn_is_signed(t) ? ZN_I8 : ZN_U8;
  switch (t) {
  case ZN_STR: case ZN_C64: case ZN_C128: return ZN_U64;
  default: return t;
  }
}

zn_kref zn_lw_ptr(zn_lw *lw, zn_vid v, zn_kparam_kind access) {
  return zn_lw_ptr_loc(lw, zn_lw_loc(lw, v), access, storage_ktype(lw->g->vals[v].type.dtype));
}

zn_expr zn_lw_offset(zn_lw *lw, zn_vid v, const zn_expr *idx) {
  const zn_value *val = &lw->g->vals[v];
  const zn_layout *l = &val->layout;
  zn_exprs *ex = lw->ex;
  zn_expr off = zn_ex_const(ex, 0), inner = ZN_EX_NONE;
  for (int d = 0; d < val->type.rank; d++) {
    zn_expr i = zn_ex_addi(ex, idx[d], l->lo[d]);
    int64_t more = l->lo[d] + l->hi[d] + (d == val->type.rank - 2 ? (int64_t)l->gap : 0);
    zn_expr extent = zn_ex_addi(ex, val->type.dims[d], more);
    if (l->block && l->axis == d) {
      inner = zn_ex_modi(ex, i, l->block);
      i = zn_ex_divi(ex, i, l->block);
      extent = zn_ex_ceildiv(ex, extent, zn_ex_const(ex, l->block));
    }
    off = zn_ex_add(ex, zn_ex_mul(ex, off, extent), i);
  }
  if (inner) off = zn_ex_add(ex, zn_ex_muli(ex, off, l->block), inner);
  return off;
}

zn_kref zn_lw_load_at(zn_lw *lw, zn_kref ptr, zn_dtype t, zn_expr offset) {
  if (zn_lw_ctype(t) == ZN_PTR) return zn_kb_ptradd(&lw->kb, ptr, zn_lw_ix(lw, zn_ex_muli(lw->ex, offset, ZN_STR_BYTES)));
  zn_kref i = zn_lw_ix(lw, offset);
  zn_kref k = zn_kb_load(&lw->kb, storage_ktype(t), 1, ptr, i);
  return zn_lw_convert(lw, k, t, zn_lw_ctype(t), false);
}

void zn_lw_store_at(zn_lw *lw, zn_kref ptr, zn_dtype t, zn_expr offset, zn_kref k) {
  if (zn_lw_ctype(t) == ZN_PTR) {
    zn_sv_copy(lw, zn_lw_load_at(lw, ptr, t, offset), k);
    return;
  }
  zn_kref v = zn_lw_convert(lw, k, zn_lw_kdtype(lw, k), t, false); /* infinities are values of t */
  zn_kref i = zn_lw_ix(lw, offset);
  zn_kb_store(&lw->kb, ptr, i, v);
}

/* ---------------------------------------------------------------- elements */

zn_dtype zn_lw_kdtype(const zn_lw *lw, zn_kref k) { return (zn_dtype)lw->kb.f->insts[k].dtype; }

static zn_kref immediate(zn_lw *lw, const zn_htensor *t, uint64_t i) {
  zn_dtype ct = zn_lw_ctype(t->dtype);
  if (zn_is_float(t->dtype)) return zn_kb_float(&lw->kb, ct, zn_load_f64(t->dtype, t->data, i));
  return zn_kb_int(&lw->kb, ct, zn_load_i64(t->dtype, t->data, i));
}

/* Row-major position when every index is constant. */
static bool const_position(zn_lw *lw, const zn_type *t, const zn_expr *idx, uint64_t *out) {
  int64_t p = 0, i, d;
  for (int a = 0; a < t->rank; a++) {
    if (!zn_ex_is_const(lw->ex, t->dims[a], &d)) return false;
    if (d == 1) continue;
    if (!zn_ex_is_const(lw->ex, idx[a], &i)) return false;
    p = p * d + i;
  }
  *out = (uint64_t)p;
  return true;
}

static zn_kref load_elems(zn_lw *lw, const zn_value *v, const zn_expr *idx) {
  zn_dtype ct = zn_lw_ctype(v->type.dtype);
  uint64_t p = 0;
  if (const_position(lw, &v->type, idx, &p))
    return zn_kb_cvt(&lw->kb, zn_lw_ix(lw, v->elems[p]), ct);
  zn_expr flat = zn_ex_const(lw->ex, 0);
  for (int d = 0; d < v->type.rank; d++)
    flat = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, flat, v->type.dims[d]), idx[d]);
  zn_kref at = zn_lw_ix(lw, flat);
  zn_kref r = zn_lw_ix(lw, v->elems[0]);
  for (uint32_t i = 1; i < v->num_elems; i++) {
    zn_kref c = zn_kb_cmp(&lw->kb, ZN_K_Eq, at, zn_kb_idx(&lw->kb, i));
    zn_kref e = zn_lw_ix(lw, v->elems[i]);
    r = zn_kb_select(&lw->kb, c, e, r);
  }
  return zn_kb_cvt(&lw->kb, r, ct);
}

/* A value that is not stored has the bits it would have in memory: results do not depend on what was fused. */
static zn_kref rounded(zn_lw *lw, zn_kref k, zn_dtype t) {
  if (t != ZN_F16 && t != ZN_BF16) return k;
  k = zn_lw_convert(lw, k, zn_lw_kdtype(lw, k), ZN_F32, false);
  return zn_lw_round_to(lw, k, t);
}

zn_kref zn_lw_load(zn_lw *lw, zn_vid v, const zn_expr *idx) {
  assert(v);
  for (uint32_t i = 0; i < lw->num_over; i++)
    if (lw->over[i].v == v) return lw->over[i].k;
  const zn_value *val = &lw->g->vals[v];
  uint64_t p;
  const char cls = zn_dtypes[val->type.dtype].cls;
  if (val->cst && cls != 'S' && cls != 'C' && const_position(lw, &val->type, idx, &p)) return immediate(lw, val->cst, p);
  if (!val->cst && zn_value_known(val)) return load_elems(lw, val, idx);
  if (val->inlined) {
    const zn_lower *l = zn_lower_of(lw->g->nodes[val->def].op);
    assert(l->point && "only point operators are inlined");
    return rounded(lw, l->point(lw, val->def, val->def_out, idx), (zn_dtype)val->type.dtype);
  }
  zn_kref ptr = zn_lw_ptr(lw, v, ZN_KP_IN);
  return zn_lw_load_at(lw, ptr, (zn_dtype)val->type.dtype, zn_lw_offset(lw, v, idx));
}

zn_kref zn_lw_load_bcast(zn_lw *lw, zn_vid v, int rank, const zn_expr *out_dims, const zn_expr *idx) {
  const zn_type *t = zn_lw_type(lw, v);
  zn_expr at[ZN_MAX_RANK];
  for (int d = 0; d < t->rank; d++) {
    int o = rank - t->rank + d;
    if (zn_ex_is(lw->ex, t->dims[d], 1)) {
      at[d] = zn_ex_const(lw->ex, 0);
    } else if (t->dims[d] == out_dims[o] || zn_ex_is_const(lw->ex, t->dims[d], NULL)) {
      at[d] = idx[o];
    } else { /* 1 or equal, known at run time only: index * (dim != 1) */
      zn_expr one = zn_ex_const(lw->ex, 1);
      zn_expr m = zn_ex_min(lw->ex, zn_ex_addi(lw->ex, t->dims[d], -1), one);
      at[d] = zn_ex_mul(lw->ex, idx[o], zn_ex_max(lw->ex, m, zn_ex_const(lw->ex, 0)));
    }
  }
  return zn_lw_load(lw, v, at);
}

void zn_lw_store(zn_lw *lw, zn_vid v, const zn_expr *idx, zn_kref k) {
  zn_kref ptr = zn_lw_ptr(lw, v, ZN_KP_OUT);
  zn_lw_store_at(lw, ptr, (zn_dtype)lw->g->vals[v].type.dtype, zn_lw_offset(lw, v, idx), k);
}

static zn_kref as_loaded(zn_lw *lw, zn_vid v, zn_kref k) {
  if (!lw->deferred) return 0;
  zn_dtype t = (zn_dtype)lw->g->vals[v].type.dtype;
  return rounded(lw, zn_lw_convert(lw, k, zn_lw_kdtype(lw, k), zn_lw_ctype(t), false), t);
}

void *zn_lw_memo_find(const zn_lw *lw, const void *key) {
  for (uint32_t i = 0; i < lw->num_memo; i++)
    if (lw->memo[i].key == key) return (void *)(uintptr_t)lw->memo[i].data;
  return NULL;
}

void zn_lw_memo_add(zn_lw *lw, const void *key, const void *data) {
  if (lw->num_memo == lw->cap_memo) {
    uint32_t cap = lw->cap_memo ? 2 * lw->cap_memo : 8;
    lw->memo = zn_arena_grow(lw->arena, lw->memo, lw->num_memo * sizeof *lw->memo, cap * sizeof *lw->memo);
    lw->cap_memo = cap;
  }
  lw->memo[lw->num_memo].key = key;
  lw->memo[lw->num_memo++].data = data;
}

/* From an element's index in the operand of Transpose n to that in its result. */
static void transpose_index(const zn_lw *lw, zn_nid n, zn_expr *at) {
  const zn_node *node = zn_lw_node(lw, n);
  int rank = zn_lw_type(lw, node->in[0])->rank;
  uint32_t count;
  const int64_t *perm = zn_node_ints(node, "perm", &count);
  zn_expr from[ZN_MAX_RANK];
  memcpy(from, at, (size_t)rank * sizeof *at);
  for (int d = 0; d < rank; d++) at[d] = from[perm && count ? perm[d] : rank - 1 - d];
}

void zn_lw_emit(zn_lw *lw, zn_vid v, const zn_expr *idx, zn_kref k) {
  if (!v) return;
  if (!lw->g->vals[v].inlined) {
    zn_lw_store(lw, v, idx, k);
    if (!lw->num_epilogue) lw->emitted = as_loaded(lw, v, k);
    if (!lw->num_epilogue) return;
  }
  assert(lw->num_over < ZN_LW_MAX_OVERRIDES);
  zn_dtype ct = zn_lw_ctype((zn_dtype)lw->g->vals[v].type.dtype);
  lw->over[lw->num_over].v = v;
  k = zn_lw_convert(lw, k, zn_lw_kdtype(lw, k), ct, false);
  lw->over[lw->num_over++].k = rounded(lw, k, (zn_dtype)lw->g->vals[v].type.dtype);
  zn_expr at[ZN_MAX_RANK];
  memcpy(at, idx, (size_t)lw->g->vals[v].type.rank * sizeof *at);
  for (uint32_t i = 0; i < lw->num_epilogue; i++) {
    zn_nid n = lw->epilogue[i];
    if (lw->g->nodes[n].op == ZN_OP_Transpose) transpose_index(lw, n, at);
    zn_kref r = zn_lower_of(lw->g->nodes[n].op)->point(lw, n, 0, at);
    zn_lw_store(lw, lw->g->nodes[n].out[0], at, r);
    if (i + 1 == lw->num_epilogue) lw->emitted = as_loaded(lw, lw->g->nodes[n].out[0], r);
  }
  lw->num_over--;
}

void zn_lw_fail_if(zn_lw *lw, zn_kref cond, int32_t code) {
  zn_kb *b = &lw->kb;
  int64_t c;
  if (zn_kf_const_int(b->f, cond, &c) && !c) return;
  if (lw->err_buf == UINT32_MAX) lw->err_buf = new_buffer(lw, zn_ex_const(lw->ex, 4));
  zn_loc err = {ZN_LOC_WS, lw->err_buf};
  zn_kref p = zn_lw_ptr_loc(lw, err, ZN_KP_INOUT, ZN_I32);
  zn_kref v = zn_kb_int(b, ZN_I32, code), z = zn_kb_idx(b, 0);
  zn_kb_if(b, cond);
  zn_kb_store(b, p, z, v);
  zn_kb_end(b);
}

unsigned zn_lw_lanes(const zn_lw *lw, zn_dtype t) {
  unsigned bytes = zn_dtype_bytes(zn_lw_ctype(t));
  if (!lw->caps->vector_bytes || !bytes || bytes > lw->caps->vector_bytes) return 1;
  return lw->caps->vector_bytes / bytes;
}
