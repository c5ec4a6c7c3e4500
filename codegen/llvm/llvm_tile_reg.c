/* TileDot in vector registers, sums kept over the whole depth: smmla and its relatives on AArch64, 2 x 2 results an instruction;
 * vmladava on Helium, whose sums are general registers, so that a tile is computed in squares of two rows by two columns. */
#include "codegen/llvm/llvm_priv.h"

enum { STRAIGHT = 4, MAX_SUMS = 32 };

typedef struct reg_tile {
  zn_lfun *s;
  const zn_tile *t;
  zn_lval rows, cols; /* of the present square, at depth 0 */
  unsigned num_rows, num_cols;
  zn_lval sum[MAX_SUMS];
  unsigned num_sums;
} reg_tile;

typedef void step_fn(reg_tile *r, zn_lval rows, zn_lval cols);

static zn_lval call(zn_lfun *s, const char *name, zn_ltype *over, unsigned num_over, zn_lval *args, unsigned n) {
  zn_lmod *m = s->m;
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  zn_lval fn = LLVMGetIntrinsicDeclaration(m->lm, id, over, num_over);
  return LLVMBuildCall2(m->b, LLVMIntrinsicGetType(m->lc, id, over, num_over), fn, args, n, "");
}

static zn_lval after(zn_lfun *s, zn_lval p, uint64_t bytes) {
  zn_lval at = LLVMConstInt(s->m->idx, bytes, 0);
  return bytes ? LLVMBuildGEP2(s->m->b, s->m->i8, p, &at, 1, "") : p;
}

static zn_lval load(zn_lfun *s, zn_ltype type, zn_lval p, uint64_t bytes, unsigned align) {
  zn_lval v = LLVMBuildLoad2(s->m->b, type, after(s, p, bytes), "");
  LLVMSetAlignment(v, align);
  return v;
}

/* Some groups without a loop, from group `first` of the pointers on. */
static void straight(reg_tile *r, step_fn *step, zn_lval rows, zn_lval cols, unsigned first, unsigned n) {
  const zn_tile *t = r->t;
  for (unsigned g = first; g < first + n; g++) {
    zn_lval x = after(r->s, rows, g * zn_tile_group_step(t));
    zn_lval y = after(r->s, cols, (uint64_t)g * zn_tile_group(t->kind) * t->col_step);
    step(r, x, y);
  }
}

/* All groups: a few straight, else `per` a turn. */
static void over_depth(reg_tile *r, step_fn *step, unsigned per) {
  zn_lmod *m = r->s->m;
  LLVMBuilderRef b = m->b;
  const zn_tile *t = r->t;
  const unsigned first = t->groups <= STRAIGHT ? t->groups : t->groups % per, turns = (t->groups - first) / per;
  straight(r, step, r->rows, r->cols, 0, first);
  if (!turns) return;
  const uint64_t row_step = zn_tile_group_step(t), col_step = (uint64_t)zn_tile_group(t->kind) * t->col_step;
  LLVMBasicBlockRef before = LLVMGetInsertBlock(b), loop = LLVMAppendBasicBlockInContext(m->lc, r->s->fv, "");
  LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(m->lc, r->s->fv, "");
  zn_lval rows = after(r->s, r->rows, first * row_step), cols = after(r->s, r->cols, first * col_step);
  LLVMBuildBr(b, loop);
  LLVMPositionBuilderAtEnd(b, loop);
  zn_lval zero = LLVMConstInt(m->idx, 0, 0), g = LLVMBuildPhi(b, m->idx, ""), phi[MAX_SUMS];
  for (unsigned i = 0; i < r->num_sums; i++) {
    phi[i] = LLVMBuildPhi(b, LLVMTypeOf(r->sum[i]), "");
    LLVMAddIncoming(phi[i], &r->sum[i], &before, 1);
    r->sum[i] = phi[i];
  }
  zn_lval to_rows = LLVMBuildMul(b, g, LLVMConstInt(m->idx, per * row_step, 0), "");
  zn_lval to_cols = LLVMBuildMul(b, g, LLVMConstInt(m->idx, per * col_step, 0), "");
  rows = LLVMBuildGEP2(b, m->i8, rows, &to_rows, 1, "");
  cols = LLVMBuildGEP2(b, m->i8, cols, &to_cols, 1, "");
  straight(r, step, rows, cols, 0, per);
  zn_lval next = LLVMBuildAdd(b, g, LLVMConstInt(m->idx, 1, 0), "");
  LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntULT, next, LLVMConstInt(m->idx, turns, 0), ""), loop, done);
  LLVMAddIncoming(g, &zero, &before, 1);
  LLVMAddIncoming(g, &next, &loop, 1);
  for (unsigned i = 0; i < r->num_sums; i++) LLVMAddIncoming(phi[i], &r->sum[i], &loop, 1);
  LLVMPositionBuilderAtEnd(b, done);
}

static void clear(reg_tile *r, zn_ltype type, unsigned n) {
  r->num_sums = n;
  for (unsigned i = 0; i < n; i++) r->sum[i] = LLVMConstNull(type);
}

static zn_lval shuffle(zn_lfun *s, zn_lval x, zn_lval y, const unsigned order[4]) {
  zn_lval mask[4];
  for (int j = 0; j < 4; j++) mask[j] = LLVMConstInt(s->m->i32, order[j], 0);
  return LLVMBuildShuffleVector(s->m->b, x, y, LLVMConstVector(mask, 4), "");
}

/* ---- AArch64 ---- */

/* Eight bytes of two rows. */
static zn_lval row_pair(reg_tile *r, zn_lval rows, unsigned pair) {
  zn_lmod *m = r->s->m;
  const uint64_t step = zn_tile_row_step(r->t), at = 2 * pair * step;
  const zn_ltype bytes = zn_lm_vec(m->i8, 16);
  if (step == 8) return load(r->s, bytes, rows, at, 1);
  zn_lval both = LLVMGetPoison(zn_lm_vec(m->i64, 2));
  for (unsigned j = 0; j < 2; j++) {
    zn_lval row = load(r->s, m->i64, rows, at + j * step, 1);
    both = LLVMBuildInsertElement(m->b, both, row, LLVMConstInt(m->i32, j, 0), "");
  }
  return LLVMBuildBitCast(m->b, both, bytes, "");
}

/* usmmla wants the unsigned operand first: are rows the second one then? Results stand transposed. */
static bool exchanged(const zn_tile *t) { return t->b_signed && !t->c_signed; }

static void pairs_step(reg_tile *r, zn_lval rows, zn_lval cols) {
  static const unsigned low[4] = {0, 4, 1, 5}, high[4] = {2, 6, 3, 7};
  zn_lmod *m = r->s->m;
  const zn_tile *t = r->t;
  const char *name = t->b_signed != t->c_signed ? "llvm.aarch64.neon.usmmla"
                     : t->b_signed              ? "llvm.aarch64.neon.smmla"
                                                : "llvm.aarch64.neon.ummla";
  const zn_ltype words = zn_lm_vec(m->i32, 4), bytes = zn_lm_vec(m->i8, 16);
  zn_ltype over[2] = {words, bytes};
  zn_lval a[16];
  for (unsigned i = 0; i < r->num_rows / 2; i++) a[i] = row_pair(r, rows, i);
  for (unsigned j = 0; j < r->num_cols / 2; j++) {
    zn_lval w0 = load(r->s, words, cols, j / 2 * 16, 4), w1 = load(r->s, words, cols, t->col_step * 4ull + j / 2 * 16, 4);
    zn_lval y = LLVMBuildBitCast(m->b, shuffle(r->s, w0, w1, j % 2 ? high : low), bytes, "");
    for (unsigned i = 0; i < r->num_rows / 2; i++) {
      zn_lval *sum = &r->sum[i * (r->num_cols / 2) + j];
      zn_lval args[3] = {*sum, exchanged(t) ? y : a[i], exchanged(t) ? a[i] : y};
      *sum = call(r->s, name, over, 2, args, 3);
    }
  }
}

static void pairs_tile(reg_tile *r, zn_lval to) {
  static const unsigned row[2][4] = {{0, 1, 4, 5}, {2, 3, 6, 7}}, across[2][4] = {{0, 2, 4, 6}, {1, 3, 5, 7}};
  zn_lmod *m = r->s->m;
  const unsigned pairs = r->num_cols / 2;
  clear(r, zn_lm_vec(m->i32, 4), r->num_rows / 2 * pairs);
  over_depth(r, pairs_step, 1);
  for (unsigned i = 0; i < r->num_rows; i++)
    for (unsigned j = 0; j < pairs; j += 2) {
      const zn_lval *sum = &r->sum[i / 2 * pairs + j];
      zn_lval v = shuffle(r->s, sum[0], sum[1], exchanged(r->t) ? across[i % 2] : row[i % 2]);
      LLVMSetAlignment(LLVMBuildStore(m->b, v, after(r->s, to, (i * r->num_cols + j * 2) * 4ull)), 4);
    }
}

/* ---- Helium ---- */

static void runs_step(reg_tile *r, zn_lval rows, zn_lval cols) {
  zn_lmod *m = r->s->m;
  zn_ltype bytes = zn_lm_vec(m->i8, 16);
  zn_lval x[2], none = LLVMConstInt(m->i32, 0, 0);
  for (unsigned i = 0; i < r->num_rows; i++) x[i] = load(r->s, bytes, rows, i * zn_tile_row_step(r->t), 1);
  for (unsigned j = 0; j < r->num_cols; j++) {
    zn_lval y = load(r->s, bytes, cols, 16ull * j, 1);
    for (unsigned i = 0; i < r->num_rows; i++) {
      zn_lval *sum = &r->sum[i * r->num_cols + j];
      zn_lval args[6] = {LLVMConstInt(m->i32, !r->t->b_signed, 0), none, none, *sum, x[i], y};
      *sum = call(r->s, "llvm.arm.mve.vmldava", &bytes, 1, args, 6);
    }
  }
}

/* The square of rows and columns from `row` and `col` on. */
static void runs_square(const reg_tile *all, zn_lval to, unsigned row, unsigned col) {
  reg_tile r = *all;
  zn_lmod *m = r.s->m;
  const unsigned rows = all->num_rows - row, cols = all->num_cols - col;
  r.rows = after(r.s, all->rows, row * zn_tile_row_step(r.t));
  r.cols = after(r.s, all->cols, 16ull * col);
  r.num_rows = rows < 2 ? rows : 2;
  r.num_cols = rows < 2 && cols >= 4 ? 4 : 2;
  clear(&r, m->i32, r.num_rows * r.num_cols);
  over_depth(&r, runs_step, 2);
  for (unsigned i = 0; i < r.num_sums; i++) {
    const uint64_t at = (uint64_t)(row + i / r.num_cols) * all->num_cols + col + i % r.num_cols;
    LLVMSetAlignment(LLVMBuildStore(m->b, r.sum[i], after(r.s, to, at * 4)), 4);
  }
}

void zn_lf_tile_reg(zn_lfun *s, const zn_tile *t, zn_lval to, zn_lval rows, zn_lval cols) {
  reg_tile r = {.s = s, .t = t, .rows = rows, .cols = cols, .num_rows = t->rows * t->row_tiles, .num_cols = t->cols};
  const bool pairs = t->kind == ZN_TILE_PAIRS;
  const bool fits = pairs ? r.num_rows % 2 == 0 && r.num_rows * r.num_cols / 4 <= MAX_SUMS : t->b_signed == t->c_signed;
  if (!fits || s->m->arch != (pairs ? ZN_LA_AARCH64 : ZN_LA_ARM))
    ZN_BUG(s->m->ctx, "%s: a tile that %s does not have", s->f->name, s->m->caps->arch);
  if (pairs) {
    pairs_tile(&r, to);
    return;
  }
  for (unsigned row = 0; row < r.num_rows; row += 2)
    for (unsigned col = 0; col < r.num_cols; col += r.num_rows - row < 2 ? 4 : 2) runs_square(&r, to, row, col);
}
