/* Matrix products whose tiles arrive asynchronously: while a step is multiplied, the copies of the next ones are under way. Who
 * multiplies: warps from registers (Mma), four of them together straight from shared memory (GroupMma, where the target has
 * that: large products then need half the reads), or, for f32, each thread a register tile of its own (fma). Both operands must
 * lie in memory with the depth innermost. Weights depend on no kernel before this one, so their first tiles are fetched before
 * it waits for those. Results go through shared memory to the epilogue, which a thread runs for eight neighbours at once. */
#include "codegen/lower/deferred.h"
#include "codegen/lower/gemm_simt.h"
#include "codegen/lower/index.h"

/* COPY: bytes of one, which also pad the rows of a tile; RUN: results that a thread finishes at once; PAD: words behind them;
 * GROUP: threads */
enum { COPY = 16, RUN = 8, PAD = 8, MAX_STAGES = 8, GROUP = 128, STEP = 64, ROWS = 64, PIECE = 8 /* words of an Mma */ };
enum { FEW = 1 << 19 }; /* f32 results for which gemm_simt.c's tiles were as fast (BERT-base at batch 1: 1.49 ms against 1.94) */

typedef zn_gs_tile tile;

static const zn_gs_shape shapes[] = {{128, 128, 32, 64, 64}, {128, 128, 64, 64, 32}, {128, 64, 64, 32, 32}, {64, 128, 64, 32, 32},
                                     {64, 64, 64, 32, 32},   {64, 64, 128, 32, 32}, {64, 32, 64, 32, 16},  {64, 32, 128, 32, 16},
                                     {32, 64, 64, 16, 32},   {32, 64, 128, 16, 32}, {32, 32, 64, 16, 16},  {32, 32, 128, 16, 16},
                                     {16, 64, 128, 16, 16},  {16, 32, 128, 16, 8}};

/* By groups of four warps: tm rows and all columns of the block each. */
static const zn_gs_shape group_shapes[] = {{128, 256, 64, 64, 256}, {256, 128, 64, 64, 128}, {128, 128, 64, 64, 128},
                                           {64, 256, 64, 64, 256},  {64, 128, 64, 64, 128},   {64, 64, 64, 64, 64}};

/* By producers and consumers: tm rows and all columns a group; blocks of a multiprocessor. */
static const struct { zn_gs_shape s; unsigned blocks; } streams[] = {
    {{128, 256, 64, 64, 256}, 1}, {{128, 192, 64, 64, 192}, 1}, {{256, 128, 64, 128, 128}, 1}, {{128, 128, 64, 128, 128}, 2},
    {{128, 96, 64, 128, 96}, 2},  {{64, 192, 64, 64, 192}, 2},  {{64, 128, 64, 64, 128}, 2},   {{128, 64, 64, 128, 64}, 2},
    {{64, 96, 64, 64, 96}, 2},    {{64, 64, 64, 64, 64}, 2}};

/* By single threads: tm x tn results each. */
static const zn_gs_shape fma_shapes[] = {{128, 128, 16, 8, 8}, {128, 64, 16, 8, 4}, {64, 128, 16, 8, 8}, {64, 64, 16, 8, 4},
                                         {64, 32, 16, 4, 4},   {32, 64, 16, 4, 4},  {32, 32, 16, 4, 2},  {32, 32, 32, 4, 4}};

static int64_t size_of(const zn_gemm *g) { return g->bytes ? 1 : g->narrow ? 2 : 4; } /* bytes of an operand's element */
static int64_t run_of(const zn_gemm *g) { return COPY / size_of(g); }                  /* elements of one copy */

bool zn_gs_fma_fits(zn_lw *lw, const zn_gemm *g) {
  int64_t k;
  if (g->t != ZN_F32 || g->narrow != ZN_NONE || g->bytes != ZN_NONE || lw->opts->tf32) return false;
  if (!lw->caps->mma || (!g->a_plain && !g->spot)) return false; /* asynchronous copies came with matrix units */
  double m = zn_gs_extent(lw, g->m), n = zn_gs_extent(lw, g->n), results = m * n;
  for (uint32_t i = 0; i < g->num_batch; i++) results *= zn_gs_extent(lw, g->batch[i]);
  if (m < 16 || n < 16 || (!g->spot && results < (double)FEW)) return false;
  return zn_ex_is_const(lw->ex, g->k, &k) && k >= 16 && k % run_of(g) == 0;
}

static bool units_fit(zn_lw *lw, const zn_gemm *g) {
  return g->bytes ? zn_gs_units_fit(lw, g) : zn_gs_mma_fits(lw, g);
}

bool zn_gs_pipe_fits(zn_lw *lw, const zn_gemm *g) {
  int64_t k;
  if ((!g->a_plain && !g->spot) || !g->packed || !g->b_depth_inner) return false;
  if (zn_gs_fma_fits(lw, g)) return g->panel_dtype == ZN_F32;
  return units_fit(lw, g) && zn_ex_is_const(lw->ex, g->k, &k) && k % run_of(g) == 0;
}

bool zn_gemm_spots_fit(zn_lw *lw, const zn_gemm *g) {
  int64_t k;
  return zn_gs_fma_fits(lw, g) || (units_fit(lw, g) && zn_ex_is_const(lw->ex, g->k, &k) && k % run_of(g) == 0);
}

/* ---- copies ---- */

static bool divides(zn_lw *lw, zn_expr e, int64_t d) {
  int64_t c;
  return zn_ex_is_const(lw->ex, e, &c) && c % d == 0;
}

/* Elements from row to row. What a warp reads of neighbouring rows lies in different banks: by padding or exchanged pieces. */
static int64_t pitch_of(const tile *t) { return t->s.bk + (t->group ? 0 : run_of(t->g)); }

/* The spot of the load behind element (line `at`, depth k) of a plain operand. */
static zn_gemm_spot spot_of_load(zn_lw *lw, const tile *t, bool is_a, zn_expr at, zn_expr k) {
  zn_kb *b = &lw->kb;
  if (!is_a && t->g->b_tiles) {
    zn_kref step = zn_lw_ix(lw, k), element = zn_gs_tile_element(lw, t->g, step, zn_lw_ix(lw, at));
    return (zn_gemm_spot){zn_lw_ptr_loc(lw, t->g->panels, ZN_KP_IN, t->g->panel_dtype), element, 0, 0};
  }
  zn_kref x = is_a ? t->g->a(lw, t->g->user, t->batch, at, k) : zn_gs_load_b(lw, t->g, t->batch, k, at);
  const zn_kinst *in = &b->f->insts[x];
  while (in->op != ZN_K_Load) in = &b->f->insts[in->a]; /* below the conversion to f32 */
  return (zn_gemm_spot){in->a, in->b, 0, 0};
}

/* Bytes from the start of a slot's tile at which the thread's first run stands. The rows of its others are a multiple of eight
 * further down, or rows are padded. */
static zn_kref place_of(zn_kb *b, const tile *t, zn_kref line, zn_kref chunk) {
  zn_kref start = zn_i_muli(b, line, pitch_of(t) * size_of(t->g));
  if (t->group) chunk = zn_kb_bin(b, ZN_K_Xor, chunk, zn_i_remi(b, line, 8)); /* exchanged pieces */
  return zn_i_add(b, start, zn_i_muli(b, chunk, COPY));
}

void zn_gs_fetch(zn_lw *lw, const tile *t, bool is_a, zn_kref slot, zn_kref k0) {
  zn_kb *b = &lw->kb;
  const zn_gemm *g = t->g;
  int64_t width = is_a ? t->s.bm : t->s.bn, chunks = t->s.bk / run_of(g), size = size_of(g), down = t->threads / chunks;
  bool whole = divides(lw, g->k, (int64_t)t->s.bk * t->parts);
  zn_kref first = zn_lw_ix(lw, is_a ? t->row0 : t->col0), end = zn_lw_ix(lw, t->k_end), zero = zn_kb_idx(b, 0);
  zn_kref line = zn_i_divi(b, t->thread, chunks), chunk = zn_i_remi(b, t->thread, chunks), bytes = zn_kb_idx(b, COPY);
  zn_kref k = zn_i_add(b, k0, zn_i_muli(b, chunk, run_of(g))), inside = zn_kb_cmp(b, ZN_K_Lt, k, end);
  zn_expr ke = zn_lw_as_expr(lw, whole ? k : zn_kb_select(b, inside, k, zero), g->k);
  zn_kref to = zn_i_muli(b, slot, (t->s.bm + t->s.bn) * pitch_of(t) * size);
  to = zn_kb_ptradd(b, is_a ? t->sa : t->sb, zn_i_add(b, to, place_of(b, t, line, chunk)));
  for (int64_t e = 0; e < width / down; e++) {
    zn_kref row = zn_i_addi(b, zn_i_add(b, first, line), e * down);
    zn_expr at = zn_gs_clamped(lw, row, is_a ? g->m : g->n, width);
    zn_gemm_spot s = is_a && g->spot ? g->spot(lw, g->user, at, ke) : spot_of_load(lw, t, is_a, at, ke);
    zn_kref element = s.inside ? zn_kb_select(b, s.inside, s.element, zero) : s.element, some = whole ? 0 : inside;
    zn_kref source = zn_kb_ptradd(b, s.from, zn_i_muli(b, element, size));
    if (s.outside) source = zn_kb_select(b, s.inside, source, s.outside);
    else if (s.inside) some = some ? zn_kb_bin(b, ZN_K_And, some, s.inside) : s.inside;
    zn_kref n = some ? zn_kb_select(b, some, bytes, zero) : bytes;
    zn_kb_async_copy(b, zn_kb_ptradd(b, to, zn_kb_idx(b, e * down * pitch_of(t) * size)), source, n);
  }
}

/* ---- products ---- */

/* Words from the start of a slot's tile at which the thread's row of each square starts, for the warp's first line. */
static zn_kref square_row(zn_kb *b, const tile *t, bool is_a, zn_kref line, zn_kref lane) {
  zn_kref half = zn_i_remi(b, zn_i_divi(b, lane, 8), 2), far = zn_i_divi(b, lane, 16), row = zn_i_remi(b, lane, 8);
  zn_kref down = zn_i_add(b, row, zn_i_muli(b, is_a ? half : far, 8)), along = zn_i_muli(b, is_a ? far : half, 4);
  return zn_i_add(b, zn_i_muli(b, zn_i_add(b, line, down), pitch_of(t) / t->per), along);
}

/* The fragments of A (tm / 16) and B (tn / 8) for eight words of the depth from word k on. */
static void load_fragments(zn_lw *lw, const tile *t, zn_kref base, zn_kref row, zn_kref col, int64_t k, zn_kref *fa,
                           zn_kref *fb) {
  zn_kb *b = &lw->kb;
  unsigned mf = t->s.tm / 16u, nf = t->s.tn / 8u, squares = nf > 1 ? 4 : 2;
  int64_t pitch = pitch_of(t) / t->per;
  zn_kref none = zn_kb_splat(b, zn_kb_int(b, ZN_U32, 0), 2);
  for (unsigned i = 0; i < mf; i++)
    fa[i] = zn_kb_ldmatrix(b, 4, false, t->sa, zn_i_add(b, base, zn_i_addi(b, row, i * 16 * pitch + k)));
  for (unsigned j = 0; j < nf; j += 2) {
    zn_kref v = zn_kb_ldmatrix(b, squares, false, t->sb, zn_i_add(b, base, zn_i_addi(b, col, j * 8 * pitch + k)));
    for (unsigned f = 0; f < squares / 2; f++) {
      zn_kref low = zn_kb_extract(b, v, 2 * f), high = zn_kb_extract(b, v, 2 * f + 1);
      fb[j + f] = zn_kb_insert(b, zn_kb_insert(b, none, low, 0), high, 1);
    }
  }
}

/* One step; fragments are on their way while those before them are multiplied. */
static void multiply(zn_lw *lw, const tile *t, zn_kref slot, zn_kref row, zn_kref col) {
  zn_kb *b = &lw->kb;
  unsigned mf = t->s.tm / 16u, nf = t->s.tn / 8u;
  int64_t words = t->s.bk / t->per;
  zn_kref fa[2][ZN_GS_REG], fb[2][ZN_GS_REG], base = zn_i_muli(b, slot, (t->s.bm + t->s.bn) * pitch_of(t) / t->per);
  zn_dtype sum = zn_mma_sum(t->format);
  load_fragments(lw, t, base, row, col, 0, fa[0], fb[0]);
  for (int64_t k = 0; k < words; k += PIECE) {
    int64_t now = k / PIECE % 2;
    if (k + PIECE < words) load_fragments(lw, t, base, row, col, k + PIECE, fa[1 - now], fb[1 - now]);
    for (unsigned i = 0; i < mf; i++)
      for (unsigned j = 0; j < nf; j++) {
        zn_kref acc = t->acc[i * nf + j], old = zn_kb_get(b, acc);
        zn_kb_set(b, acc, zn_kb_raw(b, (zn_kinst){.op = ZN_K_Mma, .dtype = (uint8_t)sum, .lanes = 4, .a = fa[now][i],
                                                  .b = fb[now][j], .c = old, .imm.i = t->format}));
      }
  }
}

/* The same by groups: each has its rows of A. Deferred, the products go on while the next step's tiles are waited for. */
static void multiply_groups(zn_lw *lw, const tile *t, zn_kref slot) {
  zn_kb *b = &lw->kb;
  int64_t row = pitch_of(t) * size_of(t->g);
  zn_kref base = zn_i_muli(b, slot, (t->s.bm + t->s.bn) * row), own = zn_i_muli(b, zn_i_divi(b, t->thread, GROUP), t->s.tm * row);
  zn_kref cols = zn_kb_ptradd(b, t->sb, base), rows = zn_kb_ptradd(b, t->sa, zn_i_add(b, base, own));
  zn_kb_set(b, t->acc[0], zn_kb_groupmma(b, rows, cols, zn_kb_get(b, t->acc[0]), t->format, t->deferred ? 1 : 0));
}

/* The thread's first row and column of the block; its others follow at the distance of all threads' first ones. */
static void fma_place(zn_kb *b, const tile *t, zn_kref *row, zn_kref *col) {
  int64_t across = t->s.bn / t->s.tn;
  *row = zn_i_divi(b, t->thread, across);
  *col = zn_i_remi(b, t->thread, across);
}

/* The same by single threads: four steps of the depth from each row and column at once. */
static void multiply_fma(zn_lw *lw, const tile *t, zn_kref slot) {
  zn_kb *b = &lw->kb;
  unsigned rows = t->s.tm, cols = t->s.tn;
  zn_kref row, col, x[ZN_GS_REG], y, base = zn_i_muli(b, slot, (t->s.bm + t->s.bn) * pitch_of(t));
  fma_place(b, t, &row, &col);
  zn_kref none = zn_kb_idx(b, 0), depth = zn_kb_idx(b, t->s.bk), kk = zn_kb_for(b, none, depth, 4, ZN_FOR_SERIAL, 0);
  zn_kref at = zn_i_add(b, base, kk);
  zn_kref from = zn_i_add(b, at, zn_i_muli(b, row, pitch_of(t))), other = zn_i_add(b, at, zn_i_muli(b, col, pitch_of(t)));
  for (unsigned i = 0; i < rows; i++)
    x[i] = zn_kb_load(b, ZN_F32, 4, t->sa, zn_i_addi(b, from, i * (t->s.bm / rows) * pitch_of(t)));
  for (unsigned j = 0; j < cols; j++) {
    y = zn_kb_load(b, ZN_F32, 4, t->sb, zn_i_addi(b, other, j * (t->s.bn / cols) * pitch_of(t)));
    for (unsigned q = 0; q < 4; q++) {
      zn_kref yq = zn_kb_extract(b, y, q);
      for (unsigned i = 0; i < rows; i++) {
        zn_kref acc = t->acc[i * cols + j], xq = zn_kb_extract(b, x[i], q);
        zn_kb_set(b, acc, zn_kb_fma(b, xq, yq, zn_kb_get(b, acc)));
      }
    }
  }
  zn_kb_end(b);
}

/* ---- results ---- */

static zn_kref zero_sum(zn_kb *b, const tile *t) {
  return t->g->t == ZN_I32 ? zn_kb_int(b, ZN_I32, 0) : zn_kb_float(b, ZN_F32, 0);
}

static int64_t block_pitch(const tile *t) { return t->s.bn + PAD; } /* words */

/* The thread's accumulators to shared memory; row, col: of its first one in the block. One accumulator holds 16 rows of
 * eight columns, or 64 of all. */
static void put_block(zn_lw *lw, const tile *t, zn_kref row, zn_kref col) {
  zn_kb *b = &lw->kb;
  unsigned mf = t->group ? 1 : t->s.tm / 16u, nf = t->s.tn / 8u;
  zn_kref none = zn_kb_splat(b, zero_sum(b, t), 2);
  for (unsigned i = 0; i < mf; i++)
    for (unsigned half = 0; half < 2; half++) {
      zn_kref at = zn_i_add(b, zn_i_muli(b, zn_i_addi(b, row, i * 16 + half * 8), block_pitch(t)), col);
      for (unsigned j = 0; j < nf; j++) {
        zn_kref acc = zn_kb_get(b, t->acc[t->group ? 0 : i * nf + j]);
        unsigned lane = (t->group ? j * 4 : 0) + half * 2;
        zn_kref low = zn_kb_extract(b, acc, lane), high = zn_kb_extract(b, acc, lane + 1), pair = zn_kb_insert(b, none, low, 0);
        pair = zn_kb_insert(b, pair, high, 1);
        zn_kb_store(b, t->sa, zn_i_addi(b, at, j * 8), pair);
      }
    }
}

static zn_kref both(zn_kb *b, zn_kref x, zn_kref y) { return x ? zn_kb_bin(b, ZN_K_And, x, y) : y; }

static void put_fma_block(zn_lw *lw, const tile *t) {
  zn_kb *b = &lw->kb;
  zn_kref row, col;
  fma_place(b, t, &row, &col);
  for (unsigned i = 0; i < t->s.tm; i++) {
    zn_kref at = zn_i_add(b, zn_i_muli(b, zn_i_addi(b, row, i * (t->s.bm / t->s.tm)), block_pitch(t)), col);
    for (unsigned j = 0; j < t->s.tn; j++) {
      zn_kref sum = zn_kb_get(b, t->acc[i * t->s.tn + j]);
      zn_kb_store(b, t->sa, zn_i_addi(b, at, j * (t->s.bn / t->s.tn)), sum);
    }
  }
}

void zn_gs_finish_run(zn_lw *lw, const tile *t, zn_kref row, zn_kref col, zn_kref shared, zn_kref at, int64_t run) {
  zn_kb *b = &lw->kb;
  const zn_gemm *g = t->g;
  zn_kref inside = 0;
  if (!divides(lw, g->m, t->s.bm)) inside = both(b, inside, zn_kb_cmp(b, ZN_K_Lt, row, zn_lw_ix(lw, g->m)));
  if (!divides(lw, g->n, t->s.bn)) inside = both(b, inside, zn_kb_cmp(b, ZN_K_Lt, col, zn_lw_ix(lw, g->n)));
  if (inside) zn_kb_if(b, inside);
  zn_kref none = zn_kb_idx(b, 0), last = zn_kb_idx(b, run), lane = zn_kb_for(b, none, last, 1, ZN_FOR_VECTOR, (unsigned)run);
  zn_kref sum = zn_kb_load(b, g->t, 1, shared, zn_i_add(b, at, lane));
  zn_expr m = zn_lw_as_expr(lw, row, g->m), n = zn_lw_as_expr(lw, zn_i_add(b, col, lane), g->n);
  zn_gs_finish(lw, t, m, n, sum);
  zn_kb_end(b);
  if (inside) zn_kb_end(b);
}

/* The block from shared memory to the epilogue: `run` neighbours of a row a thread at a time. */
static void hand_out(zn_lw *lw, const tile *t) {
  zn_kb *b = &lw->kb;
  int64_t run = divides(lw, t->g->n, RUN) ? RUN : 1, across = t->s.bn / run, runs = t->s.bm * across;
  int64_t turns = (runs + t->threads - 1) / t->threads;
  zn_kref none = zn_kb_idx(b, 0), last = zn_kb_idx(b, turns), turn = zn_kb_for(b, none, last, 1, ZN_FOR_SERIAL, 0);
  zn_kref i = zn_i_add(b, zn_i_muli(b, turn, t->threads), t->thread);
  zn_kref r = zn_i_divi(b, i, across), c = zn_i_muli(b, zn_i_remi(b, i, across), run);
  zn_kref row = zn_i_add(b, zn_lw_ix(lw, t->row0), r), col = zn_i_add(b, zn_lw_ix(lw, t->col0), c);
  bool even = runs % t->threads == 0;
  if (!even) zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, i, zn_kb_idx(b, runs)));
  zn_gs_finish_run(lw, t, row, col, t->sa, zn_i_add(b, zn_i_muli(b, r, block_pitch(t)), c), run);
  if (!even) zn_kb_end(b);
  zn_kb_end(b);
}

/* ---- the kernel ---- */

static void fill_pipe(zn_lw *lw, const tile *t, zn_kref begin) {
  zn_kb *b = &lw->kb;
  zn_kref end = zn_lw_ix(lw, t->k_end);
  for (int side = 1; side >= 0; side--) { /* weights first */
    for (unsigned s = 0; s < t->ahead; s++) {
      zn_kref k0 = zn_i_addi(b, begin, (int64_t)s * t->s.bk);
      if (s > 0) zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, k0, end));
      zn_gs_fetch(lw, t, side == 0, zn_kb_idx(b, s), k0);
      if (s > 0) zn_kb_end(b);
      if (side == 0) zn_kb_statement(b, ZN_K_AsyncGroup);
    }
    if (side == 1) zn_kb_statement(b, ZN_K_Await);
  }
}

/* The slot behind `slot`. */
static zn_kref following(zn_kb *b, const tile *t, zn_kref slot) {
  zn_kref next = zn_i_addi(b, slot, 1), last = zn_kb_cmp(b, ZN_K_Eq, next, zn_kb_idx(b, t->stages));
  return zn_kb_select(b, last, zn_kb_idx(b, 0), next);
}

typedef struct mapping { /* where the thread's warp works */
  zn_kref row, col;     /* first ones in the block */
  zn_kref a_row, b_row; /* Mma: square_row */
} mapping;

static mapping map_thread(zn_kb *b, const tile *t) {
  int64_t across = t->s.bn / t->s.tn; /* warps along a row of the block */
  zn_kref warp = zn_i_divi(b, t->thread, 32), lane = zn_i_remi(b, t->thread, 32);
  mapping m = {0};
  if (t->group) {
    zn_kref own = zn_i_muli(b, zn_i_divi(b, t->thread, GROUP), t->s.tm), place = zn_i_muli(b, zn_i_remi(b, warp, GROUP / 32), 16);
    m.row = zn_i_add(b, own, place);
    m.col = zn_kb_idx(b, 0);
    return m;
  }
  m.row = zn_i_muli(b, zn_i_divi(b, warp, across), t->s.tm);
  m.col = zn_i_muli(b, zn_i_remi(b, warp, across), t->s.tn);
  m.a_row = square_row(b, t, true, m.row, lane);
  m.b_row = square_row(b, t, false, m.col, lane);
  return m;
}

static void clear_sums(zn_kb *b, tile *t) {
  unsigned sums = t->fma ? (unsigned)t->s.tm * t->s.tn : t->group ? 1 : t->s.tm / 16u * (t->s.tn / 8u);
  unsigned lanes = t->fma ? 1 : t->group ? t->s.bn / 2u : 4;
  zn_kref zero = zero_sum(b, t);
  if (lanes > 1) zero = zn_kb_splat(b, zero, lanes);
  for (unsigned i = 0; i < sums; i++) t->acc[i] = zn_kb_var(b, zero);
}

static void finish_block(zn_lw *lw, const tile *t, const mapping *m) {
  zn_kb *b = &lw->kb;
  zn_kref lane = zn_i_remi(b, t->thread, 32), group = zn_i_divi(b, lane, 4), pair = zn_i_remi(b, lane, 4);
  zn_kref row = t->fma ? 0 : zn_i_add(b, m->row, group), col = t->fma ? 0 : zn_i_add(b, m->col, zn_i_muli(b, pair, 2));
  if (t->deferred) zn_kb_set(b, t->acc[0], zn_kb_groupwait(b, zn_kb_get(b, t->acc[0])));
  zn_kb_statement(b, ZN_K_Barrier); /* the last step's tiles are read */
  if (t->fma) put_fma_block(lw, t);
  else put_block(lw, t, row, col);
  zn_kb_statement(b, ZN_K_Barrier);
  hand_out(lw, t);
}

static void team_body(zn_lw *lw, tile *t) {
  zn_kb *b = &lw->kb;
  mapping m = {0};
  if (!t->fma) m = map_thread(b, t);
  clear_sums(b, t);
  zn_kref begin = zn_lw_ix(lw, t->k_begin), end = zn_lw_ix(lw, t->k_end);
  fill_pipe(lw, t, begin);
  zn_kref use = zn_kb_var(b, zn_kb_idx(b, 0)), put = zn_kb_var(b, zn_kb_idx(b, t->ahead));
  zn_kref k0 = zn_kb_for(b, begin, end, t->s.bk, ZN_FOR_SERIAL, 0);
  zn_kb_async_wait(b, t->ahead - 1);
  if (t->group) zn_kb_statement(b, ZN_K_AsyncShare);
  zn_kb_statement(b, ZN_K_Barrier); /* the step's tiles are there, and nobody reads the slot that is filled next */
  zn_kref slot = zn_kb_get(b, use), free_slot = zn_kb_get(b, put), next = zn_i_addi(b, k0, (int64_t)t->ahead * t->s.bk);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, next, end));
  zn_gs_fetch(lw, t, true, free_slot, next);
  zn_gs_fetch(lw, t, false, free_slot, next);
  zn_kb_end(b);
  zn_kb_statement(b, ZN_K_AsyncGroup);
  if (t->fma) multiply_fma(lw, t, slot);
  else if (t->group) multiply_groups(lw, t, slot);
  else multiply(lw, t, slot, m.a_row, m.b_row);
  zn_kb_set(b, use, following(b, t, slot));
  zn_kb_set(b, put, following(b, t, free_slot));
  zn_kb_end(b);
  finish_block(lw, t, &m);
}

/* ---- choice ---- */

typedef struct candidate {
  const zn_gs_shape *s;
  unsigned size; /* bytes of an operand's element */
  bool group, deferred, fma; /* deferred: a slot is read for one step longer */
  unsigned stages, parts, blocks; /* blocks: of a multiprocessor by producers and consumers (gemm_stream.c), or 0 */
} candidate;

static unsigned ahead_of(const candidate *c) { return c->stages - (c->deferred ? 2 : 1); }

static unsigned threads_of(const candidate *c) {
  if (c->fma) return (unsigned)(c->s->bm / c->s->tm) * (c->s->bn / c->s->tn);
  if (c->blocks) return (unsigned)GROUP * (c->s->bm / c->s->tm + 1);
  return c->group ? (unsigned)GROUP * (c->s->bm / c->s->tm) : 32u * (c->s->bm / c->s->tm) * (c->s->bn / c->s->tn);
}

static uint64_t slot_bytes(const candidate *c) {
  return ((uint64_t)c->s->bm + c->s->bn) * (c->s->bk * c->size + (c->group ? 0u : COPY));
}

/* Shared memory: the slots, or the finished block. */
static uint64_t shared_of(const candidate *c) {
  uint64_t slots = slot_bytes(c) * c->stages;
  if (c->blocks) return slots + zn_gs_stream_extra(c->s->bm / c->s->tm) + 16u * c->stages;
  uint64_t block = (uint64_t)c->s->bm * (c->s->bn + PAD) * 4;
  return slots > block ? slots : block;
}

static double up(double x) { return (double)(int64_t)(x + 0.999); }

static double cores_of(const zn_lw *lw) { return lw->caps->cores ? lw->caps->cores : 64; }

/* Tiles of all matrices and parts. */
static double tiles_of(zn_lw *lw, const zn_gemm *g, const candidate *c) {
  double tiles = c->parts * up(zn_gs_extent(lw, g->m) / c->s->bm) * up(zn_gs_extent(lw, g->n) / c->s->bn);
  for (uint32_t i = 0; i < g->num_batch; i++) tiles *= zn_gs_extent(lw, g->batch[i]);
  return tiles;
}

/* Of adding up the parts: traffic, and a kernel unless the reader does it. */
static double adding_cost(zn_lw *lw, const zn_gemm *g, const candidate *c) {
  const double LAUNCH = 2500, PART = 400;
  double elements = zn_gs_extent(lw, g->m) * zn_gs_extent(lw, g->n);
  if (c->parts == 1) return 0;
  for (uint32_t i = 0; i < g->num_batch; i++) elements *= zn_gs_extent(lw, g->batch[i]);
  return PART * c->parts + elements * 4 * (c->parts + 1) / 1700 + (zn_deferred_reader(lw, g) ? 0 : LAUNCH);
}

/* Cycles of one step of a block, with its multiprocessor to itself: products, or reads of shared memory for them. */
static double step_cost(const candidate *c) {
  const zn_gs_shape *s = c->s;
  double depth = s->bk * c->size / 2.0; /* in elements of 16 bits */
  double products = (double)s->bm * s->bn * depth / 2048, warps = threads_of(c) / 32;
  if (c->blocks) return products * 1.1;
  if (c->group) return 60 + products * 1.2;
  if (c->fma) return 40 + (double)s->bm * s->bn * s->bk / 128 * (1 + 0.4 * (1.0 / s->tm + 1.0 / s->tn));
  double reads = warps * (s->tm / 16.0 + s->tn / 16.0) * depth / 16 * 4;
  return 40 + (products * 2 > reads ? products * 2 : reads);
}

/* The same for producers and consumers: products of one block beside the epilogue of the other, where there are two. */
static double stream_cost(zn_lw *lw, const zn_gemm *g, const candidate *c) {
  const double LATENCY = 1100, START = 2500, ALONE = 700, ALL = 4800;
  const zn_gs_shape *s = c->s;
  double tiles = tiles_of(lw, g, c), cores = cores_of(lw), steps = up(zn_gs_extent(lw, g->k) / (double)STEP / c->parts);
  double bytes = (double)((s->bm + s->bn) * STEP * 2), step = step_cost(c), alone = LATENCY / c->stages;
  double finish = 600 + (double)s->bm * s->bn / 128 * 12 / (s->bm / s->tm), own = step > alone ? step : alone;
  double queue = up(tiles / cores / c->blocks), chain = queue * (steps * own + finish);
  double work = up(tiles / cores) * steps * step + finish, all = tiles * steps * bytes / ALL;
  double time = chain > work ? chain : work;
  time = START + ALONE + (time > all ? time : all);
  return time + adding_cost(lw, g, c);
}

/* Cycles until the last block is done. A multiprocessor runs as many blocks at once as fit: together they take their work, but
 * no less than the chain of one of them: the first tiles' way, a step each at the pace of the copies, the epilogue. L2 gives
 * 64 bytes a cycle to a multiprocessor, 3400 to all. */
static double cost(zn_lw *lw, const zn_gemm *g, const candidate *c) {
  const double LATENCY = 1100, START = 1500, ALONE = 700, EPILOGUE = 900, ISSUE = 150;
  const zn_gs_shape *s = c->s;
  if (c->blocks) return stream_cost(lw, g, c);
  double blocks = tiles_of(lw, g, c), cores = cores_of(lw), threads = threads_of(c);
  double steps = up(zn_gs_extent(lw, g->k) / s->bk / c->parts), bytes = (double)(s->bm + s->bn) * s->bk * c->size;
  double step = step_cost(c), fetched = bytes / 64, finish = (double)s->bm * s->bn / 128 * 10;
  if (fetched > step) step = fetched;
  double registers = (c->fma ? 80 : 56) + (double)s->bm * s->bn / threads, room = 65536 / (threads * registers);
  double fit = (double)lw->caps->shared_bytes / (double)shared_of(c);
  if (fit < room) room = fit;
  room = (double)(int64_t)(room < 1 ? 1 : room);
  double alone = LATENCY / ahead_of(c), own = step + (c->group && !c->deferred ? ISSUE : 0);
  double chain = START + steps * (own > alone ? own : alone) + finish + EPILOGUE, work = steps * step + finish;
  double queue = up(blocks / cores), full = (double)(int64_t)(queue / room), rest = queue - full * room;
  double time = full * (room * work > chain ? room * work : chain), all = blocks * steps * bytes / 3400;
  if (rest > 0) time += rest * work > chain ? rest * work : chain;
  if (all > time) time = all;
  if (shared_of(c) > lw->caps->shared_bytes / 2) time += ALONE; /* the next kernel cannot start beside it */
  return time + adding_cost(lw, g, c);
}

/* Blocks start while the kernel before still runs, wherever it leaves room, and would crowd there. Those of a long kernel ask
 * for so much shared memory that each multiprocessor takes its even share of them. */
static uint64_t spread(zn_lw *lw, const zn_gemm *g, const candidate *c, double time) {
  const double LONG = 12000, MOST = 4;
  double share = up(tiles_of(lw, g, c) / cores_of(lw));
  if (!c->fma || time < LONG || share > MOST) return shared_of(c);
  uint64_t least = (lw->caps->shared_bytes / ((uint64_t)share + 1) + 16) / 16 * 16;
  return least > shared_of(c) ? least : shared_of(c);
}

static bool same_shape(const zn_type *a, const zn_type *b) {
  return a->rank == b->rank && !memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims);
}

/* Does node n, or what is inlined into it, read another stored value of its result's shape than the product's? */
static bool node_reads_beside(const zn_lw *lw, zn_nid product, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  if (!(zn_ops[node->op].flags & ZN_OPF_EW)) return false;
  for (uint32_t i = 0; i < node->num_in; i++) {
    zn_vid v = node->in[i];
    const zn_value *val = &lw->g->vals[v];
    if (!v || val->cst || val->def == product || !same_shape(&val->type, zn_lw_type(lw, node->out[0]))) continue;
    if (!val->inlined || node_reads_beside(lw, product, val->def)) return true;
  }
  return false;
}

/* Does the epilogue read memory of the size of the results? */
static bool reads_beside(const zn_lw *lw, const zn_gemm *g) {
  for (uint32_t i = 0; i < lw->g->num_order; i++) {
    const zn_nid n = lw->g->order[i];
    if (zn_lw_node(lw, n)->group != g->node || n == g->node || lw->g->vals[zn_lw_node(lw, n)->out[0]].inlined) continue;
    if (node_reads_beside(lw, g->node, n)) return true;
  }
  return false;
}

/* Measured (ResNet-50, MobileNetV2): spots of A cost four producers more than eight warps that share them, which shows where the
 * steps are neither few nor so many that cutting the depth is what they replace, unless one tile has all columns. And where
 * wide results are added to others from memory, eight warps a multiprocessor have too few reads under way. */
static bool spots_stream(const zn_lw *lw, const zn_gemm *g, int64_t steps) {
  enum { SHORT = 4, MANY = 16, NARROW = 64, WIDE = 256 };
  int64_t n = 0;
  zn_ex_is_const(lw->ex, g->n, &n);
  if (n >= WIDE && reads_beside(lw, g)) return false;
  return n <= NARROW || steps <= SHORT || steps > MANY;
}

/* Small products are better off with more blocks. Multiprocessors have a KiB a block more than a block may ask for. */
static bool stream_usable(zn_lw *lw, const zn_gemm *g, const candidate *c) {
  enum { OWN = 1024 };
  const double FULL = 0.9;
  uint64_t share = (lw->caps->shared_bytes + OWN) / c->blocks - OWN;
  int64_t k = 0, each;
  zn_ex_is_const(lw->ex, g->k, &k);
  each = ((k + STEP - 1) / STEP + c->parts - 1) / c->parts * STEP;
  if (!g->b_tiles || !divides(lw, g->n, RUN) || !zn_gs_columns_fit(c->s->bn, zn_gs_extent(lw, g->n))) return false;
  bool full = tiles_of(lw, g, c) >= FULL * cores_of(lw);
  bool large = c->parts == 1 && c->s->bm >= 2 * ROWS && c->s->bn >= 2 * ROWS && full;
  if (g->spot ? !spots_stream(lw, g, (k + STEP - 1) / STEP) : !large) return false;
  return shared_of(c) <= share && each * (c->parts - 1) < k; /* no part is empty */
}

static bool usable(zn_lw *lw, const zn_gemm *g, const candidate *c) {
  unsigned threads = threads_of(c);
  if (c->blocks) return stream_usable(lw, g, c);
  int64_t chunks = c->s->bk * c->size / COPY;
  if (c->group && threads / chunks % 8) return false; /* place_of */
  return c->s->bm * chunks % threads == 0 && c->s->bn * chunks % threads == 0 && shared_of(c) <= lw->caps->shared_bytes;
}

static void consider(zn_lw *lw, tile *t, candidate c, double *best) {
  if (!usable(lw, t->g, &c) || (c.parts > 1 && zn_gs_extent(lw, t->g->k) / c.parts < 2 * c.s->bk)) return;
  double time = cost(lw, t->g, &c);
  if (*best != 0 && time >= *best) return;
  *best = time;
  t->s = *c.s;
  t->group = c.group;
  t->fma = c.fma;
  t->blocks = c.blocks;
  t->deferred = c.deferred;
  t->ahead = ahead_of(&c);
  t->parts = c.parts;
  t->stages = c.stages;
  t->threads = threads_of(&c);
  t->shared = spread(lw, t->g, &c, time);
}

/* The shape with all numbers of slots and parts. */
static void consider_shape(zn_lw *lw, tile *t, candidate c, double *best) {
  unsigned most = t->g->rows_inner ? 1 : 16;
  for (c.stages = 3; c.stages <= MAX_STAGES; c.stages++)
    for (c.parts = 1; c.parts <= most; c.parts++) {
      c.deferred = false;
      consider(lw, t, c, best);
      c.deferred = c.group && c.stages > 3;
      if (c.deferred) consider(lw, t, c, best);
    }
}

static void consider_streams(zn_lw *lw, tile *t, double *best) {
  for (unsigned i = 0; i < sizeof streams / sizeof *streams; i++)
    for (unsigned stages = MAX_STAGES; stages >= 3; stages--)
      for (unsigned parts = 1; parts <= (t->g->rows_inner ? 1u : 8u); parts++) {
        candidate c = {.s = &streams[i].s, .size = 2, .group = true, .blocks = streams[i].blocks};
        c.stages = stages, c.parts = parts;
        consider(lw, t, c, best);
      }
}

static bool choose(zn_lw *lw, tile *t) {
  enum { WARPS = sizeof shapes / sizeof *shapes, GROUPS = sizeof group_shapes / sizeof *group_shapes };
  enum { THREADS = sizeof fma_shapes / sizeof *fma_shapes };
  double best = 0;
  candidate c = {.size = (unsigned)size_of(t->g)};
  c.fma = c.size == 4;
  if (c.size == 2) consider_streams(lw, t, &best);
  for (unsigned i = 0; c.fma && i < THREADS; i++) {
    c.s = &fma_shapes[i];
    consider_shape(lw, t, c, &best);
  }
  for (unsigned i = 0; !c.fma && i < WARPS; i++)
    for (unsigned longer = 1; longer <= 2 / c.size; longer++) { /* bytes: rows as long as those of f16, or half of that */
      zn_gs_shape s = shapes[i];
      s.bk = (uint16_t)(s.bk * longer);
      c.s = &s;
      consider_shape(lw, t, c, &best);
    }
  for (unsigned i = 0; !c.fma && lw->caps->group_mma && i < GROUPS; i++) {
    zn_gs_shape s = group_shapes[i];
    s.bk = (uint16_t)(s.bk * 2 / c.size);
    c.group = true;
    c.s = &s;
    consider_shape(lw, t, c, &best);
  }
  return best != 0;
}

bool zn_gs_pipe(zn_lw *lw, tile *t) {
  zn_kb *b = &lw->kb;
  if (!zn_gs_pipe_fits(lw, t->g) || !choose(lw, t)) return false;
  t->format = zn_gs_format(t->g);
  t->per = 4 / (unsigned)size_of(t->g);
  if (t->parts > 1) t->partial = zn_gs_scratch(lw, t->g, t->parts);
  if (t->blocks) {
    zn_gs_stream(lw, t);
    return true;
  }
  zn_lw_kernel(lw, t->g->node, t->g->hint);
  t->sa = zn_kb_alloc(b, ZN_F32, t->shared / 4);
  t->sb = zn_kb_ptradd(b, t->sa, zn_kb_idx(b, t->s.bm * pitch_of(t) * size_of(t->g)));
  zn_gs_open(lw, t);
  team_body(lw, t);
  zn_kb_end(b);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return true;
}
