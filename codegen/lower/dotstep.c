/* The loops over the steps of a pack (dotpack.c), inside the marked loops of a register tile, and its constants. */
#include "codegen/lower/dotpack.h"

zn_dot_consts zn_dot_place(zn_lw *lw, const zn_dotpack *p, const char *name) {
  zn_dot_consts c = {0};
  c.w = zn_lw_const(lw, zn_arena_printf(lw->arena, "%s_dots", name), ZN_I32, (uint64_t)(p->steps * p->width), p->w);
  if (p->reals) return c;
  c.sums = zn_lw_const(lw, zn_arena_printf(lw->arena, "%s_sums", name), ZN_I32, (uint64_t)p->n, p->sums);
  if (!p->ordered) return c;
  uint64_t blocks = (uint64_t)p->blocks;
  c.order = zn_lw_const(lw, zn_arena_printf(lw->arena, "%s_order", name), ZN_I32, (uint64_t)p->steps * 2, p->order);
  c.range = zn_lw_const(lw, zn_arena_printf(lw->arena, "%s_range", name), ZN_I32, blocks * ZN_DOT_RANGE, p->range);
  c.base = zn_lw_const(lw, zn_arena_printf(lw->arena, "%s_base", name), ZN_I32, blocks * (uint64_t)p->width, p->base);
  return c;
}

typedef struct stepper {
  const zn_dotpack *p;
  const zn_dot_consts *c;
  int64_t scale;
  zn_expr column;
  zn_kref (*activations)(zn_lw *lw, void *user, zn_expr at);
  void *user;
} stepper;

static zn_kref load(zn_lw *lw, zn_loc loc, zn_expr at) {
  return zn_lw_load_at(lw, zn_lw_ptr_loc(lw, loc, ZN_KP_IN, ZN_I32), ZN_I32, at);
}

/* Entry j of a block's range as an index. */
static zn_expr range(zn_lw *lw, const stepper *s, zn_expr block, int64_t j, int64_t most) {
  zn_expr at = zn_ex_addi(lw->ex, zn_ex_muli(lw->ex, block, ZN_DOT_RANGE), j);
  zn_kref v = zn_kb_cvt(&lw->kb, load(lw, s->c->range, at), ZN_IDX);
  return zn_lw_as_expr(lw, v, zn_ex_const(lw->ex, most + 1));
}

/* Activations and weights of step `step`, which without an order is word `word`. */
static void operands(zn_lw *lw, const stepper *s, zn_expr step, zn_expr word, bool masked, zn_kref *x, zn_kref *w) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_expr at = zn_ex_muli(ex, word, s->scale);
  zn_kref mask = 0;
  if (s->p->ordered) {
    zn_expr o = zn_ex_muli(ex, step, 2);
    zn_kref q = zn_kb_cvt(b, load(lw, s->c->order, o), ZN_IDX);
    if (masked) mask = load(lw, s->c->order, zn_ex_addi(ex, o, 1));
    at = zn_lw_as_expr(lw, q, zn_ex_const(ex, s->p->words * s->scale));
  }
  *w = load(lw, s->c->w, zn_ex_add(ex, zn_ex_muli(ex, step, s->p->width), s->column));
  *x = s->activations(lw, s->user, at);
  if (mask) *x = zn_kb_bin(b, ZN_K_Xor, *x, mask);
}

static void doubles(zn_lw *lw, const stepper *s, zn_expr first, zn_expr count, bool masked, zn_kref acc) {
  zn_kb *b = &lw->kb;
  zn_expr d = zn_ex_add(lw->ex, first, zn_ex_muli(lw->ex, zn_lw_for(lw, count, ZN_FOR_SERIAL, 0), 2));
  zn_kref halves = zn_kb_int(b, ZN_I32, 0), x, w;
  for (int k = 0; k < 2; k++) {
    operands(lw, s, zn_ex_addi(lw->ex, d, k), ZN_EX_NONE, masked, &x, &w);
    halves = zn_kb_dot(b, ZN_K_Pair4, x, w, halves, s->p->flags);
  }
  zn_kref old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_kb_dot(b, ZN_K_Dot2, halves, zn_kb_int(b, ZN_I32, 0x00010001), old, 0));
  zn_lw_end(lw);
}

void zn_dot_steps_emit(zn_lw *lw, const zn_dotpack *p, const zn_dot_consts *c, int64_t scale, zn_expr block, zn_expr column,
                       zn_kref acc, zn_kref (*activations)(zn_lw *lw, void *user, zn_expr at), void *user) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const stepper s = {p, c, scale, column, activations, user};
  zn_expr first = zn_ex_muli(ex, block, p->words), count = zn_ex_const(ex, p->words);
  if (p->ordered) {
    first = range(lw, &s, block, 0, p->steps);
    count = range(lw, &s, block, 3, 2 * p->words);
    for (int masked = !p->has_plain; masked < 2; masked++) {
      zn_expr twos = range(lw, &s, block, 1 + masked, p->words / 2);
      doubles(lw, &s, first, twos, masked, acc);
      first = zn_ex_add(ex, first, zn_ex_muli(ex, twos, 2));
    }
  }
  zn_expr i = zn_lw_for(lw, count, ZN_FOR_SERIAL, 0);
  zn_kref x, w;
  operands(lw, &s, zn_ex_add(ex, first, i), i, true, &x, &w);
  zn_kref old = zn_kb_get(b, acc);
  zn_kop op = p->form == ZN_DOT_BYTES ? ZN_K_Dot4 : p->reals ? ZN_K_Dot2Bf16 : ZN_K_Dot2;
  zn_kb_set(b, acc, zn_kb_dot(b, op, x, w, old, op == ZN_K_Dot4 ? p->flags : 0));
  zn_lw_end(lw);
}

void zn_dot_tile_emit(zn_lw *lw, const zn_dotpack *p, const zn_dot_consts *c, zn_expr block, zn_kref to, zn_kref other,
                      zn_dtype a, zn_tile *t) {
  zn_kb *b = &lw->kb;
  const bool rows = p->form == ZN_DOT_TILE_ROWS, a_signed = (a == ZN_I8) != (p->a_add != 0);
  t->kind = lw->caps->tile_dot;
  t->groups = (unsigned)(p->words * 4 / zn_tile_group(t->kind));
  t->reals = p->reals;
  t->b_signed = !p->reals && (rows || a_signed);
  t->c_signed = !p->reals && (!rows || a_signed);
  zn_kref at = zn_lw_ix(lw, zn_ex_muli(lw->ex, block, p->words * p->width * 4));
  zn_kref w = zn_kb_ptradd(b, zn_lw_ptr_loc(lw, c->w, ZN_KP_IN, ZN_I32), at);
  zn_kb_tiledot(b, to, rows ? w : other, rows ? other : w, t);
}

zn_kref zn_dot_initial(zn_lw *lw, const zn_dotpack *p, const zn_dot_consts *c, zn_kref init, zn_kref zero,
                       zn_expr block_column, zn_expr n) {
  zn_kb *b = &lw->kb;
  if (p->ordered) init = zn_kb_bin(b, ZN_K_Add, init, load(lw, c->base, block_column));
  if (p->form == ZN_DOT_HALVES || p->reals || (!zero && !p->a_add)) return init;
  zn_kref add = zn_kb_int(b, ZN_I32, p->a_add);
  zero = zero ? zn_kb_bin(b, ZN_K_Add, zero, add) : add;
  zn_kref all = zn_kb_bin(b, ZN_K_Mul, load(lw, c->sums, n), zero);
  return zn_kb_bin(b, ZN_K_Sub, init, all);
}
