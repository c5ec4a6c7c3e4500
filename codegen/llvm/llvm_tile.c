/* TileDot as AMX: results in tiles 0 to 3, rows in 4 and 5, columns in 6 and 7; one configuration a kernel. */
#include "codegen/llvm/llvm_priv.h"

enum { ROWS = 4, COLS = 6 };

static zn_lval number(zn_lfun *s, unsigned tile) { return LLVMConstInt(s->m->i8, tile, 0); }

static zn_lval call(zn_lfun *s, const char *name, zn_lval *args, unsigned n) {
  zn_lmod *m = s->m;
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  zn_lval fn = LLVMGetIntrinsicDeclaration(m->lm, id, NULL, 0);
  return LLVMBuildCall2(m->b, LLVMIntrinsicGetType(m->lc, id, NULL, 0), fn, args, n, "");
}

/* Tile `tile` and memory, from p on, `step` bytes from row to row. */
static void move(zn_lfun *s, const char *name, unsigned tile, zn_lval p, uint64_t step) {
  zn_lval args[3] = {number(s, tile), p, LLVMConstInt(s->m->i64, step, 0)};
  call(s, name, args, 3);
}

static zn_lval after(zn_lfun *s, zn_lval p, uint64_t bytes) {
  zn_lval at = LLVMConstInt(s->m->i64, bytes, 0);
  return LLVMBuildGEP2(s->m->b, s->m->i8, p, &at, 1, "");
}

static unsigned rows_of(const zn_kfunc *f) {
  zn_tile t;
  for (uint32_t i = 1; i < f->num_insts; i++)
    if (f->insts[i].op == ZN_K_TileDot && zn_tile_read(f->insts[i].imm.i, &t) && t.kind == ZN_TILE_AMX) return t.rows;
  return 0;
}

/* The 64 bytes that ldtilecfg reads: palette 1, bytes of a row from byte 16 on, rows from byte 48 on. */
void zn_lf_tiles_begin(zn_lfun *s) {
  const unsigned rows = rows_of(s->f);
  if (!rows) return;
  zn_lmod *m = s->m;
  char config[64] = {1};
  for (int t = 0; t < 8; t++) {
    config[16 + 2 * t] = 64;
    config[48 + t] = (char)(t < COLS ? rows : 16);
  }
  zn_lval text = LLVMConstStringInContext2(m->lc, config, sizeof config, 1);
  zn_lval g = LLVMAddGlobal(m->lm, LLVMTypeOf(text), "zn_tiles");
  LLVMSetInitializer(g, text);
  LLVMSetLinkage(g, LLVMPrivateLinkage);
  LLVMSetGlobalConstant(g, 1);
  LLVMSetAlignment(g, 64);
  call(s, "llvm.x86.ldtilecfg", &g, 1);
}

void zn_lf_tiles_end(zn_lfun *s) {
  if (rows_of(s->f)) call(s, "llvm.x86.tilerelease", NULL, 0);
}

/* One group of 64 bytes. */
static void group(zn_lfun *s, const zn_tile *t, zn_lval rows, zn_lval cols) {
  static const char *const products[2][2] = {{"llvm.x86.tdpbuud", "llvm.x86.tdpbusd"}, {"llvm.x86.tdpbsud", "llvm.x86.tdpbssd"}};
  const uint64_t step = zn_tile_row_step(t);
  for (unsigned j = 0; j < t->cols / 16; j++)
    move(s, "llvm.x86.tileloadd64", COLS + j, after(s, cols, 64ull * j), t->col_step * 4ull);
  for (unsigned i = 0; i < t->row_tiles; i++) {
    move(s, "llvm.x86.tileloadd64", ROWS + i, after(s, rows, i * t->rows * step), step);
    for (unsigned j = 0; j < t->cols / 16; j++) {
      zn_lval args[3] = {number(s, i * 2 + j), number(s, ROWS + i), number(s, COLS + j)};
      call(s, t->reals ? "llvm.x86.tdpbf16ps" : products[t->b_signed][t->c_signed], args, 3);
    }
  }
}

void zn_lf_tile_dot(zn_lfun *s, const zn_kinst *in) {
  zn_lmod *m = s->m;
  LLVMBuilderRef b = m->b;
  zn_tile t;
  const bool known = zn_tile_read(in->imm.i, &t) && t.kind == m->caps->tile_dot;
  if (known && t.kind != ZN_TILE_AMX) {
    zn_lf_tile_reg(s, &t, s->v[in->a], s->v[in->b], s->v[in->c]);
    return;
  }
  if (!known || t.rows != rows_of(s->f) || t.cols % 16 || m->arch != ZN_LA_X86)
    ZN_BUG(m->ctx, "%s: a tile that %s does not have", s->f->name, m->caps->arch);
  for (unsigned k = 0; k < t.row_tiles * 2; k++) {
    zn_lval tile = number(s, k);
    if (k % 2 < t.cols / 16) call(s, "llvm.x86.tilezero", &tile, 1);
  }
  LLVMBasicBlockRef before = LLVMGetInsertBlock(b), loop = LLVMAppendBasicBlockInContext(m->lc, s->fv, "");
  LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(m->lc, s->fv, "");
  LLVMBuildBr(b, loop);
  LLVMPositionBuilderAtEnd(b, loop);
  zn_lval zero = LLVMConstInt(m->i64, 0, 0), g = LLVMBuildPhi(b, m->i64, "");
  zn_lval to_rows = LLVMBuildMul(b, g, LLVMConstInt(m->i64, zn_tile_group_step(&t), 0), "");
  zn_lval to_cols = LLVMBuildMul(b, g, LLVMConstInt(m->i64, t.col_step * 64ull, 0), "");
  zn_lval rows = LLVMBuildGEP2(b, m->i8, s->v[in->b], &to_rows, 1, "");
  zn_lval cols = LLVMBuildGEP2(b, m->i8, s->v[in->c], &to_cols, 1, "");
  group(s, &t, rows, cols);
  zn_lval next = LLVMBuildAdd(b, g, LLVMConstInt(m->i64, 1, 0), "");
  LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntULT, next, LLVMConstInt(m->i64, t.groups, 0), ""), loop, done);
  LLVMAddIncoming(g, &zero, &before, 1);
  LLVMAddIncoming(g, &next, &loop, 1);
  LLVMPositionBuilderAtEnd(b, done);
  const uint64_t width = t.cols * 4ull;
  for (unsigned i = 0; i < t.row_tiles; i++)
    for (unsigned j = 0; j < t.cols / 16; j++)
      move(s, "llvm.x86.tilestored64", i * 2 + j, after(s, s->v[in->a], i * t.rows * width + 64ull * j), width);
}
