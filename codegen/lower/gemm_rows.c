/* Products of a few rows with packed weights on SIMT targets, at the pace of memory: the depth is innermost, so a warp reads
 * runs of 16 bytes of a column, copied
 * asynchronously so that many are under way. Warps of a team that share columns take turns along the depth; each sums its part,
 * lanes add theirs up, and the parts meet in shared memory, always in the same order. */
#include "codegen/lower/gemm_simt.h"
#include "codegen/lower/index.h"

enum { WARP = 32, WARPS = 8, TEAM = WARP * WARPS, COPY = 16, ROWS = 8, AHEAD = 8, MOST_COLS = 2 }; /* AHEAD: steps */

typedef struct stripes {
  const zn_gemm *g;
  unsigned rows, cols, run;   /* cols: of a warp; run: elements of a load */
  unsigned slices;            /* warps along the depth */
  zn_kref thread, lane, slice, col; /* the thread's place; its warp's first column */
  zn_kref slots;              /* shared memory where weights arrive */
  const zn_expr *batch;
  zn_kref acc[ROWS * MOST_COLS];
} stripes;

static unsigned run_of(const zn_gemm *g) { return (unsigned)COPY / (g->narrow ? 2u : 4u); }

bool zn_gs_rows_fit(zn_lw *lw, const zn_gemm *g) {
  int64_t m, n, k;
  if (!lw->caps->mma || lw->caps->warp != WARP || g->t != ZN_F32 || !g->a_plain || g->bytes != ZN_NONE) return false;
  if (!zn_ex_is_const(lw->ex, g->m, &m) || !zn_ex_is_const(lw->ex, g->n, &n) || !zn_ex_is_const(lw->ex, g->k, &k)) return false;
  return m > 0 && m <= ROWS && n >= 16 && k >= WARP * run_of(g) && k % run_of(g) == 0;
}

/* The load behind `run` neighbours of a row of A (is_a) or a column of B from depth k on. */
static zn_kinst load_of(zn_lw *lw, const stripes *s, bool is_a, zn_kref line, zn_kref k) {
  const zn_gemm *g = s->g;
  zn_expr ke = zn_lw_as_expr(lw, k, g->k), at = zn_lw_as_expr(lw, line, is_a ? g->m : g->n);
  zn_kref x = is_a ? g->a(lw, g->user, s->batch, at, ke) : zn_gs_load_b(lw, g, s->batch, ke, at);
  const zn_kinst *insts = lw->kb.f->insts, *in = &insts[x];
  while (in->op != ZN_K_Load) in = &insts[in->a]; /* below the conversion to f32 */
  return *in;
}

/* Depth of the thread's run in step number `step`; 0 behind the end, which *inside then says. */
static zn_kref depth_of(zn_lw *lw, const stripes *s, zn_kref step, zn_kref *inside) {
  zn_kb *b = &lw->kb;
  int64_t turn = (int64_t)s->slices * WARP * s->run, k = 0;
  zn_ex_is_const(lw->ex, s->g->k, &k);
  zn_kref start = zn_i_muli(b, step, turn), place = zn_i_add(b, zn_i_muli(b, s->slice, WARP), s->lane);
  zn_kref at = zn_i_add(b, start, zn_i_muli(b, place, s->run));
  *inside = 0;
  if (k % turn == 0) return at;
  *inside = zn_kb_cmp(b, ZN_K_Lt, at, zn_kb_idx(b, k));
  return zn_kb_select(b, *inside, at, zn_kb_idx(b, 0));
}

/* Bytes from the start of the slots at which the thread's run of column c of a step lies. */
static zn_kref place_of(zn_kb *b, const stripes *s, zn_kref step, unsigned c) {
  zn_kref slot = zn_i_addi(b, zn_i_muli(b, zn_i_remi(b, step, AHEAD), s->cols), c);
  return zn_i_muli(b, zn_i_add(b, zn_i_muli(b, slot, TEAM), s->thread), COPY);
}

static void fetch(zn_lw *lw, const stripes *s, zn_kref step) {
  zn_kb *b = &lw->kb;
  zn_kref inside, k = depth_of(lw, s, step, &inside), last = zn_lw_ix(lw, zn_ex_addi(lw->ex, s->g->n, -1));
  zn_kref bytes = zn_kb_idx(b, COPY);
  if (inside) bytes = zn_kb_select(b, inside, bytes, zn_kb_idx(b, 0));
  for (unsigned c = 0; c < s->cols; c++) {
    zn_kinst load = load_of(lw, s, false, zn_kb_bin(b, ZN_K_Min, zn_i_addi(b, s->col, c), last), k);
    zn_kref from = zn_kb_ptradd(b, load.a, zn_i_muli(b, load.b, COPY / s->run)), to = place_of(b, s, step, c);
    zn_kb_async_copy(b, zn_kb_ptradd(b, s->slots, to), from, bytes);
  }
}

static void add_step(zn_lw *lw, const stripes *s, zn_kref step) {
  zn_kb *b = &lw->kb;
  zn_kref inside, k = depth_of(lw, s, step, &inside), w[MOST_COLS], x;
  const zn_dtype stored = s->g->panel_dtype == ZN_F32 ? ZN_F32 : s->g->narrow;
  for (unsigned c = 0; c < s->cols; c++) {
    w[c] = zn_kb_load(b, stored, s->run, s->slots, zn_i_divi(b, place_of(b, s, step, c), COPY / s->run));
    b->f->insts[w[c]].imm.i = COPY;
    w[c] = zn_kb_cvt(b, w[c], ZN_F32);
  }
  for (unsigned r = 0; r < s->rows; r++) {
    zn_kinst load = load_of(lw, s, true, zn_kb_idx(b, r), k);
    x = zn_kb_load(b, (zn_dtype)load.dtype, s->run, load.a, load.b);
    b->f->insts[x].imm.i = COPY;
    x = zn_kb_cvt(b, x, ZN_F32);
    for (unsigned c = 0; c < s->cols; c++) {
      zn_kref acc = s->acc[r * s->cols + c];
      zn_kb_set(b, acc, zn_kb_fma(b, x, w[c], zn_kb_get(b, acc)));
    }
  }
}

/* The warp's part of the sums. The first steps' weights set out before the wait for other kernels. */
static void sum_slice(zn_lw *lw, stripes *s) {
  zn_kb *b = &lw->kb;
  int64_t turn = (int64_t)s->slices * WARP * s->run, k = 0;
  zn_ex_is_const(lw->ex, s->g->k, &k);
  int64_t steps = (k + turn - 1) / turn;
  zn_kref zero = zn_kb_splat(b, zn_kb_float(b, ZN_F32, 0), s->run), none = zn_kb_idx(b, 0);
  for (unsigned i = 0; i < s->rows * s->cols; i++) s->acc[i] = zn_kb_var(b, zero);
  for (int64_t i = 0; i < AHEAD; i++) {
    if (i < steps) fetch(lw, s, zn_kb_idx(b, i));
    zn_kb_statement(b, ZN_K_AsyncGroup);
  }
  zn_kb_statement(b, ZN_K_Await);
  zn_kref step = zn_kb_for(b, none, zn_kb_idx(b, steps), 1, ZN_FOR_SERIAL, 0), next = zn_i_addi(b, step, AHEAD);
  zn_kb_async_wait(b, AHEAD - 1);
  add_step(lw, s, step);
  if (steps > AHEAD) {
    zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, next, zn_kb_idx(b, steps)));
    fetch(lw, s, next);
    zn_kb_end(b);
  }
  zn_kb_statement(b, ZN_K_AsyncGroup);
  zn_kb_end(b);
}

/* Sums of the lanes, to shared memory: [slice][row][column of the team]. */
static void put_sums(zn_lw *lw, const stripes *s, zn_kref shared) {
  zn_kb *b = &lw->kb;
  unsigned across = WARPS / s->slices * s->cols;
  zn_kref column = zn_i_muli(b, zn_i_divi(b, zn_i_divi(b, s->thread, WARP), s->slices), s->cols);
  for (unsigned r = 0; r < s->rows; r++)
    for (unsigned c = 0; c < s->cols; c++) {
      zn_kref sum = zn_kb_un(b, ZN_K_ReduceAdd, zn_kb_get(b, s->acc[r * s->cols + c]));
      for (unsigned bits = WARP / 2; bits; bits /= 2) sum = zn_kb_bin(b, ZN_K_Add, sum, zn_kb_lanexor(b, sum, bits));
      zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, s->lane, zn_kb_idx(b, 0)));
      zn_kref at = zn_i_addi(b, zn_i_muli(b, s->slice, (int64_t)s->rows * across), (int64_t)r * across + c);
      zn_kb_store(b, shared, zn_i_add(b, at, column), sum);
      zn_kb_end(b);
    }
}

static void finish(zn_lw *lw, const stripes *s, zn_kref shared, zn_expr first) {
  zn_kb *b = &lw->kb;
  const zn_gemm *g = s->g;
  unsigned across = WARPS / s->slices * s->cols, results = s->rows * across;
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, s->thread, zn_kb_idx(b, results)));
  zn_kref start = zn_lw_ix(lw, first), col = zn_i_add(b, start, zn_i_remi(b, s->thread, across));
  zn_kref row = zn_i_divi(b, s->thread, across), sum = 0;
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, col, zn_lw_ix(lw, g->n)));
  for (unsigned i = 0; i < s->slices; i++) {
    zn_kref x = zn_kb_load(b, ZN_F32, 1, shared, zn_i_addi(b, s->thread, (int64_t)i * results));
    sum = i ? zn_kb_bin(b, ZN_K_Add, sum, x) : x;
  }
  zn_expr m = zn_lw_as_expr(lw, row, g->m), n = zn_lw_as_expr(lw, col, g->n);
  if (g->init) sum = zn_kb_bin(b, ZN_K_Add, sum, g->init(lw, g->user, s->batch, m, n));
  g->emit(lw, g->user, s->batch, m, n, sum);
  zn_kb_end(b);
  zn_kb_end(b);
}

/* Columns that share the row's loads, as long as there are warps enough for the machine. */
static void plan(zn_lw *lw, stripes *s) {
  const double ENOUGH = 16;
  double cores = lw->caps->cores ? lw->caps->cores : 64, warps = zn_gs_extent(lw, s->g->n), k = zn_gs_extent(lw, s->g->k);
  for (uint32_t i = 0; i < s->g->num_batch; i++) warps *= zn_gs_extent(lw, s->g->batch[i]);
  s->cols = s->rows <= ROWS / 2 && warps / (double)MOST_COLS >= ENOUGH * cores ? MOST_COLS : 1;
  warps /= s->cols;
  s->slices = 1;
  while (s->slices < WARPS && warps * s->slices < ENOUGH * cores && k / (s->slices * 2) >= WARP * s->run * 2) s->slices *= 2;
}

void zn_gs_rows(zn_lw *lw, const zn_gemm *g) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  zn_expr extents[ZN_MAX_RANK + 1], var[ZN_MAX_RANK + 1];
  int64_t rows = 1;
  zn_ex_is_const(ex, g->m, &rows);
  stripes s = {.g = g, .rows = (unsigned)rows, .run = run_of(g), .batch = var};
  plan(lw, &s);
  unsigned across = WARPS / s.slices * s.cols;
  zn_lw_kernel(lw, g->node, g->hint);
  s.slots = zn_kb_alloc(b, ZN_F32, (uint64_t)AHEAD * s.cols * TEAM * COPY / 4);
  zn_kref shared = zn_kb_alloc(b, ZN_F32, (uint64_t)s.slices * s.rows * across);
  for (uint32_t i = 0; i < g->num_batch; i++) extents[i] = g->batch[i];
  extents[g->num_batch] = zn_ex_ceildiv(ex, g->n, zn_ex_const(ex, across));
  zn_lw_grid(lw, g->num_batch + 1, extents, var);
  zn_expr first = zn_ex_muli(ex, var[g->num_batch], across);
  zn_kref none = zn_kb_idx(b, 0), end = zn_kb_idx(b, TEAM);
  s.thread = zn_kb_for(b, none, end, 1, ZN_FOR_THREAD, TEAM);
  zn_kref warp = zn_i_divi(b, s.thread, WARP);
  s.lane = zn_i_remi(b, s.thread, WARP);
  s.slice = zn_i_remi(b, warp, s.slices);
  zn_kref start = zn_lw_ix(lw, first);
  s.col = zn_i_add(b, start, zn_i_muli(b, zn_i_divi(b, warp, s.slices), s.cols));
  sum_slice(lw, &s);
  put_sums(lw, &s, shared);
  zn_kb_statement(b, ZN_K_Barrier);
  finish(lw, &s, shared, first);
  zn_kb_end(b);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}
