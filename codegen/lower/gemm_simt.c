/* Matrix products on SIMT targets.
 *   tiles   a team computes a block of C: tiles of A and B go through shared memory (the next ones are loaded into registers
 *           while the present ones are used), each thread keeps a register tile; the finished block goes through shared
 *           memory once more, so that results are written in the order of memory whatever the register tile was;
 *   parts   the same with the depth cut into parts, where C alone has too few blocks for the machine: partial sums in the
 *           workspace, added in order by a second kernel that runs the epilogue;
 *   points  one result a thread: small and odd shapes. */
#include "codegen/lower/gemm_simt.h"

#include "codegen/lower/deferred.h"

#include <assert.h>

typedef zn_gs_shape shape;
typedef zn_gs_tile tile;

enum { TEAM = 128 };

static zn_kref ix_div(zn_kb *b, zn_kref x, int64_t d) { return zn_kb_bin(b, ZN_K_Div, x, zn_kb_idx(b, d)); }
static zn_kref ix_rem(zn_kb *b, zn_kref x, int64_t d) { return zn_kb_bin(b, ZN_K_Rem, x, zn_kb_idx(b, d)); }
static zn_kref ix_mul(zn_kb *b, zn_kref x, int64_t d) { return zn_kb_bin(b, ZN_K_Mul, x, zn_kb_idx(b, d)); }
static zn_kref ix_add(zn_kb *b, zn_kref x, zn_kref y) { return zn_kb_bin(b, ZN_K_Add, x, y); }
static zn_kref ix_addi(zn_kb *b, zn_kref x, int64_t d) { return zn_kb_bin(b, ZN_K_Add, x, zn_kb_idx(b, d)); }

/* ---- B in tiles (gemm_simt.h) ---- */

enum { TILE_K = 64, TILE_N = 8, TILE_PIECE = 8, TILE = TILE_K * TILE_N };

static uint64_t up_to(uint64_t x, uint64_t d) { return (x + d - 1) / d * d; }

/* A block's columns may reach behind the last one: what is read there is never used, but must be memory. */
static uint64_t tiled_count(uint64_t k, uint64_t n) {
  uint64_t wide = up_to(n, TILE_N), most = wide;
  for (uint64_t bn = 32; bn <= ZN_GS_COLUMNS && zn_gs_columns_fit(bn, (double)n); bn += 32)
    if (up_to(n, bn) > most) most = up_to(n, bn);
  return (up_to(k, TILE_K) * wide) + (most - wide) * TILE_K;
}

static uint64_t tiled_place(uint64_t k, uint64_t n, uint64_t all_n) {
  uint64_t number = k / TILE_K * (up_to(all_n, TILE_N) / TILE_N) + n / TILE_N;
  uint64_t piece = k % TILE_K / TILE_PIECE;
  return number * TILE + n % TILE_N * TILE_K + (piece ^ n % TILE_N) * TILE_PIECE + k % TILE_PIECE;
}

zn_kref zn_gs_tile_element(zn_lw *lw, const zn_gemm *g, zn_kref k, zn_kref n) {
  zn_kb *b = &lw->kb;
  int64_t columns = 0;
  zn_ex_is_const(lw->ex, g->n, &columns);
  zn_kref across = ix_mul(b, ix_div(b, k, TILE_K), (int64_t)up_to((uint64_t)columns, TILE_N) / TILE_N);
  zn_kref number = ix_add(b, across, ix_div(b, n, TILE_N)), line = ix_rem(b, n, TILE_N), step = ix_rem(b, k, TILE_K);
  zn_kref piece = zn_kb_bin(b, ZN_K_Xor, ix_div(b, step, TILE_PIECE), line);
  zn_kref at = ix_mul(b, number, TILE);
  at = ix_add(b, at, ix_mul(b, line, TILE_K));
  at = ix_add(b, at, ix_mul(b, piece, TILE_PIECE));
  return ix_add(b, at, ix_rem(b, k, TILE_PIECE));
}

void zn_gemm_pack_simt(zn_lw *lw, zn_gemm *g, const char *name, uint64_t k, uint64_t n, zn_dtype dtype,
                       void (*copy)(void *user, uint64_t k, uint64_t n, void *dst), void *user) {
  unsigned size = zn_dtype_bytes(dtype);
  /* they want neighbours along the depth */
  g->b_depth_inner = zn_gs_units_fit(lw, g) || zn_gs_fma_fits(lw, g) || zn_gs_rows_fit(lw, g);
  g->packed = true;
  g->panel_dtype = dtype;
  g->b_tiles = lw->caps->group_mma && size == 2 && zn_gs_pipe_fits(lw, g);
  uint64_t count = g->b_tiles ? tiled_count(k, n) : k * n;
  char *data = zn_arena_array(&lw->ctx->graph, count, size);
  for (uint64_t i = 0; i < k; i++)
    for (uint64_t j = 0; j < n; j++) {
      uint64_t at = g->b_tiles ? tiled_place(i, j, n) : g->b_depth_inner ? j * k + i : i * n + j;
      copy(user, i, j, data + at * size);
    }
  g->panels = zn_lw_const(lw, zn_arena_printf(lw->arena, "%s_columns", name), dtype, count, data);
}

zn_kref zn_gs_load_b(zn_lw *lw, const zn_gemm *g, const zn_expr *batch, zn_expr k, zn_expr n) {
  if (!g->packed) return g->b(lw, g->user, batch, k, n);
  zn_kref p = zn_lw_ptr_loc(lw, g->panels, ZN_KP_IN, g->panel_dtype);
  if (g->b_tiles) {
    zn_kref step = zn_lw_ix(lw, k), at = zn_gs_tile_element(lw, g, step, zn_lw_ix(lw, n));
    return zn_lw_load_at(lw, p, g->panel_dtype, zn_lw_as_expr(lw, at, g->k));
  }
  return zn_lw_load_at(lw, p, g->panel_dtype,
                        g->b_depth_inner ? zn_ex_add(lw->ex, zn_ex_mul(lw->ex, n, g->k), k)
                                         : zn_ex_add(lw->ex, zn_ex_mul(lw->ex, k, g->n), n));
}

static zn_kref zero_of(zn_lw *lw, zn_dtype t) {
  return zn_is_float(t) ? zn_kb_float(&lw->kb, t, 0) : zn_kb_int(&lw->kb, t, 0);
}

static zn_kref initial(zn_lw *lw, const zn_gemm *g, const zn_expr *batch, zn_expr m, zn_expr n) {
  return g->init ? g->init(lw, g->user, batch, m, n) : zero_of(lw, g->t);
}

/* ---------------------------------------------------------------- points */

/* Grid over batch, the outer axis of C and pieces of the inner one; a thread per element of the piece. Returns its place. */
static void open_points(zn_lw *lw, const zn_gemm *g, zn_expr *var, zn_expr *m, zn_expr *n) {
  zn_exprs *ex = lw->ex;
  zn_expr extents[ZN_MAX_RANK + 2], size = zn_ex_const(ex, TEAM);
  zn_expr inner = g->rows_inner ? g->m : g->n, outer = g->rows_inner ? g->n : g->m;
  uint32_t nb = g->num_batch;
  for (uint32_t i = 0; i < nb; i++) extents[i] = g->batch[i];
  extents[nb] = outer;
  extents[nb + 1] = zn_ex_ceildiv(ex, inner, size);
  zn_lw_grid(lw, nb + 2, extents, var);
  zn_expr base = zn_ex_mul(ex, var[nb + 1], size);
  zn_expr here = zn_ex_min(ex, size, zn_ex_sub(ex, inner, base));
  zn_expr at = zn_ex_add(ex, base, zn_lw_for(lw, here, ZN_FOR_VECTOR, 0));
  *m = g->rows_inner ? at : var[nb];
  *n = g->rows_inner ? var[nb] : at;
}

static void points(zn_lw *lw, const zn_gemm *g) {
  zn_kb *b = &lw->kb;
  zn_expr var[ZN_MAX_RANK + 2], m, n;
  zn_lw_kernel(lw, g->node, g->hint);
  open_points(lw, g, var, &m, &n);
  zn_kref acc = zn_kb_var(b, initial(lw, g, var, m, n));
  zn_expr k = zn_lw_for(lw, g->k, ZN_FOR_SERIAL, 0);
  zn_kref x = g->a(lw, g->user, var, m, k), y = zn_gs_load_b(lw, g, var, k, n), old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_mul_add(lw, x, y, old));
  zn_lw_end(lw);
  g->emit(lw, g->user, var, m, n, zn_kb_get(b, acc));
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* ---------------------------------------------------------------- thin */

enum { THIN_ROWS = 8, THIN_COLS = 32, THIN_SLICES = 8 };

/* A few rows: a team takes 32 runs of columns, each of its eight warps a slice of the depth, so that B streams past once; the
 * slices meet in shared memory. `part` and `parts` cut the depth over teams as well. */
typedef struct thin {
  const zn_gemm *g;
  unsigned rows, parts, run; /* run: neighbouring columns of a thread, which divide n */
  zn_loc partial;
} thin;

static void thin_store(zn_lw *lw, const thin *t, const zn_expr *var, zn_expr m, zn_expr n, zn_kref sum) {
  const zn_gemm *g = t->g;
  zn_exprs *ex = lw->ex;
  if (t->parts == 1) {
    if (g->init) sum = zn_kb_bin(&lw->kb, ZN_K_Add, sum, initial(lw, g, var + 1, m, n));
    g->emit(lw, g->user, var + 1, m, n, sum);
    return;
  }
  zn_expr off = var[0], outer = g->rows_inner ? n : m, inner = g->rows_inner ? m : n;
  for (uint32_t k = 0; k < g->num_batch; k++) off = zn_ex_add(ex, zn_ex_mul(ex, off, g->batch[k]), var[k + 1]);
  off = zn_ex_add(ex, zn_ex_mul(ex, off, g->rows_inner ? g->n : g->m), outer);
  off = zn_ex_add(ex, zn_ex_mul(ex, off, g->rows_inner ? g->m : g->n), inner);
  zn_lw_store_at(lw, zn_lw_ptr_loc(lw, t->partial, ZN_KP_OUT, g->t), g->t, off, sum);
}

/* Sums of the thread's slice for its columns, to shared memory. */
static void thin_slice(zn_lw *lw, const thin *t, const zn_expr *var, zn_kref shared, zn_kref thread, zn_kref col) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  const zn_gemm *g = t->g;
  zn_kref acc[THIN_ROWS], slice = zn_kb_bin(b, ZN_K_Div, thread, zn_kb_idx(b, THIN_COLS));
  zn_kref last = zn_lw_ix(lw, zn_ex_addi(ex, g->n, -(int64_t)t->run)), first = zn_kb_bin(b, ZN_K_Min, col, last);
  zn_expr each = zn_ex_ceildiv(ex, g->k, zn_ex_const(ex, t->parts)), from = zn_ex_mul(ex, var[0], each);
  zn_kref begin = zn_kb_bin(b, ZN_K_Add, zn_lw_ix(lw, from), slice);
  zn_kref end = zn_lw_ix(lw, zn_ex_min(ex, zn_ex_add(ex, from, each), g->k));
  zn_kref none = zn_kb_idx(b, 0), all = zn_kb_idx(b, t->run), lane = zn_kb_for(b, none, all, 1, ZN_FOR_VECTOR, t->run);
  zn_expr n = zn_lw_as_expr(lw, zn_kb_bin(b, ZN_K_Add, first, lane), g->n);
  for (unsigned r = 0; r < t->rows; r++) acc[r] = zn_kb_var(b, zero_of(lw, g->t));
  zn_kref k = zn_kb_for(b, begin, end, THIN_SLICES, ZN_FOR_SERIAL, 0);
  zn_expr ke = zn_lw_as_expr(lw, k, g->k);
  zn_kref y = zn_gs_load_b(lw, g, var + 1, ke, n);
  for (unsigned r = 0; r < t->rows; r++) {
    zn_kref x = g->a(lw, g->user, var + 1, zn_ex_const(ex, r), ke), old = zn_kb_get(b, acc[r]);
    zn_kb_set(b, acc[r], zn_mul_add(lw, x, y, old));
  }
  zn_kb_end(b);
  for (unsigned r = 0; r < t->rows; r++) {
    zn_kref at = zn_kb_bin(b, ZN_K_Add, thread, zn_kb_idx(b, (int64_t)r * THIN_SLICES * THIN_COLS));
    at = zn_kb_bin(b, ZN_K_Mul, at, zn_kb_idx(b, t->run));
    zn_kref sum = zn_kb_get(b, acc[r]);
    zn_kb_store(b, shared, zn_kb_bin(b, ZN_K_Add, at, lane), sum);
  }
  zn_kb_end(b);
}

/* The sums of all slices for row `row` and the thread's columns. */
static void thin_finish(zn_lw *lw, const thin *t, const zn_expr *var, zn_kref shared, zn_kref row, zn_kref place, zn_kref col) {
  zn_kb *b = &lw->kb;
  const zn_gemm *g = t->g;
  zn_kref base = zn_kb_bin(b, ZN_K_Mul, row, zn_kb_idx(b, (int64_t)THIN_SLICES * THIN_COLS * t->run)), sum = 0;
  base = zn_kb_bin(b, ZN_K_Add, base, zn_kb_bin(b, ZN_K_Mul, place, zn_kb_idx(b, t->run)));
  zn_kref none = zn_kb_idx(b, 0), all = zn_kb_idx(b, t->run), lane = zn_kb_for(b, none, all, 1, ZN_FOR_VECTOR, t->run);
  base = zn_kb_bin(b, ZN_K_Add, base, lane);
  for (int64_t i = 0; i < THIN_SLICES; i++) {
    zn_kref at = zn_kb_bin(b, ZN_K_Add, base, zn_kb_idx(b, i * THIN_COLS * t->run)), x = zn_kb_load(b, g->t, 1, shared, at);
    sum = i ? zn_kb_bin(b, ZN_K_Add, sum, x) : x;
  }
  zn_expr n = zn_lw_as_expr(lw, zn_kb_bin(b, ZN_K_Add, col, lane), g->n);
  thin_store(lw, t, var, zn_lw_as_expr(lw, row, g->m), n, sum);
  zn_kb_end(b);
}

static void thin_body(zn_lw *lw, const thin *t, const zn_expr *var, zn_kref shared, zn_kref thread) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  const zn_gemm *g = t->g;
  zn_kref place = zn_kb_bin(b, ZN_K_Rem, thread, zn_kb_idx(b, THIN_COLS));
  zn_kref slice = zn_kb_bin(b, ZN_K_Div, thread, zn_kb_idx(b, THIN_COLS));
  zn_kref first = zn_lw_ix(lw, zn_ex_muli(ex, var[g->num_batch + 1], (int64_t)THIN_COLS * t->run));
  zn_kref col = zn_kb_bin(b, ZN_K_Add, first, zn_kb_bin(b, ZN_K_Mul, place, zn_kb_idx(b, t->run)));
  thin_slice(lw, t, var, shared, thread, col);
  zn_kb_raw(b, (zn_kinst){.op = ZN_K_Barrier, .lanes = 1});
  for (unsigned r0 = 0; r0 < t->rows; r0 += THIN_SLICES) { /* the warp of slice r finishes row r */
    zn_kref row = zn_kb_bin(b, ZN_K_Add, slice, zn_kb_idx(b, r0)), some = zn_lw_ix(lw, g->m), cols = zn_lw_ix(lw, g->n);
    zn_kref in_rows = zn_kb_cmp(b, ZN_K_Lt, row, some), in_cols = zn_kb_cmp(b, ZN_K_Lt, col, cols);
    zn_kb_if(b, zn_kb_bin(b, ZN_K_And, in_rows, in_cols));
    thin_finish(lw, t, var, shared, row, place, col);
    zn_kb_end(b);
  }
}

static void thin_kernel(zn_lw *lw, const thin *t) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  const zn_gemm *g = t->g;
  zn_expr extents[ZN_MAX_RANK + 2], var[ZN_MAX_RANK + 2];
  unsigned threads = THIN_COLS * THIN_SLICES;
  zn_lw_kernel(lw, g->node, g->hint);
  zn_kref shared = zn_kb_alloc(b, g->t, (uint64_t)threads * t->rows * t->run);
  extents[0] = zn_ex_const(ex, t->parts);
  for (uint32_t i = 0; i < g->num_batch; i++) extents[i + 1] = g->batch[i];
  extents[g->num_batch + 1] = zn_ex_ceildiv(ex, g->n, zn_ex_const(ex, (int64_t)THIN_COLS * t->run));
  zn_lw_grid(lw, g->num_batch + 2, extents, var);
  zn_kref end = zn_kb_idx(b, threads), thread = zn_kb_for(b, zn_kb_idx(b, 0), end, 1, ZN_FOR_THREAD, threads);
  thin_body(lw, t, var, shared, thread);
  zn_kb_end(b);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* ---------------------------------------------------------------- tiles */

static const shape shapes[] = {{128, 128, 8, 8, 8}, {128, 64, 8, 8, 4}, {64, 128, 8, 4, 8}, {64, 64, 16, 4, 4},
                               {64, 32, 16, 4, 2},  {32, 64, 16, 2, 4}, {32, 32, 16, 2, 2}};

enum { PAD = 4 };

static bool is_multiple(zn_lw *lw, zn_expr e, int64_t of) {
  int64_t c;
  return zn_ex_is_const(lw->ex, e, &c) && c % of == 0;
}

/* min(x, extent - 1) as index below extent: places outside C are computed on valid memory and never emitted. */
zn_expr zn_gs_clamped(zn_lw *lw, zn_kref x, zn_expr extent, int64_t step) {
  zn_kb *b = &lw->kb;
  if (is_multiple(lw, extent, step)) return zn_lw_as_expr(lw, x, extent);
  zn_kref last = zn_lw_ix(lw, zn_ex_addi(lw->ex, extent, -1));
  return zn_lw_as_expr(lw, zn_kb_bin(b, ZN_K_Min, x, last), extent);
}

/* Element e of the thread's share of a tile of `width` lines and bk steps: neighbours in memory go to neighbouring threads. */
static void share(zn_lw *lw, const tile *t, unsigned e, int64_t width, bool lines_inner, zn_kref *line, zn_kref *step) {
  zn_kb *b = &lw->kb;
  zn_kref i = ix_addi(b, t->thread, (int64_t)e * t->threads);
  *line = lines_inner ? ix_rem(b, i, width) : ix_div(b, i, t->s.bk);
  *step = lines_inner ? ix_div(b, i, width) : ix_rem(b, i, t->s.bk);
}

static zn_kref fetch(zn_lw *lw, const tile *t, bool is_a, unsigned e, zn_kref k0) {
  zn_kb *b = &lw->kb;
  const zn_gemm *g = t->g;
  zn_kref line, step;
  share(lw, t, e, is_a ? t->s.bm : t->s.bn, is_a ? g->rows_inner : !g->b_depth_inner, &line, &step);
  zn_kref k = ix_add(b, k0, step), end = zn_lw_ix(lw, t->k_end);
  bool whole = is_multiple(lw, g->k, (int64_t)t->s.bk * t->parts) && t->parts == 1;
  zn_kref inside = zn_kb_cmp(b, ZN_K_Lt, k, end);
  zn_kref kc = whole ? k : zn_kb_select(b, inside, k, zn_kb_idx(b, 0));
  zn_expr ke = zn_lw_as_expr(lw, kc, g->k);
  zn_kref first = zn_lw_ix(lw, is_a ? t->row0 : t->col0);
  zn_expr at = zn_gs_clamped(lw, ix_add(b, first, line), is_a ? g->m : g->n, is_a ? t->s.bm : t->s.bn);
  zn_kref x = is_a ? g->a(lw, g->user, t->batch, at, ke) : zn_gs_load_b(lw, g, t->batch, ke, at);
  if (zn_lw_kdtype(lw, x) != g->t) x = zn_kb_cvt(b, x, g->t);
  return whole ? x : zn_kb_select(b, inside, x, zero_of(lw, g->t));
}

static unsigned per_thread(const tile *t, bool is_a) {
  return (unsigned)(is_a ? t->s.bm : t->s.bn) * t->s.bk / t->threads;
}

static void stage(zn_lw *lw, tile *t, zn_kref k0, bool first) {
  zn_kb *b = &lw->kb;
  for (int side = 0; side < 2; side++)
    for (unsigned e = 0; e < per_thread(t, side == 0); e++) {
      zn_kref x = fetch(lw, t, side == 0, e, k0), *var = side == 0 ? &t->stage_a[e] : &t->stage_b[e];
      if (first) *var = zn_kb_var(b, x);
      else zn_kb_set(b, *var, x);
    }
}

static void put_stage(zn_lw *lw, const tile *t) {
  zn_kb *b = &lw->kb;
  for (int side = 0; side < 2; side++)
    for (unsigned e = 0; e < per_thread(t, side == 0); e++) {
      zn_kref line, step;
      int64_t width = side == 0 ? t->s.bm : t->s.bn;
      share(lw, t, e, width, side == 0 ? t->g->rows_inner : !t->g->b_depth_inner, &line, &step);
      zn_kref at = ix_add(b, ix_mul(b, step, width + PAD), line);
      zn_kb_store(b, side == 0 ? t->sa : t->sb, at, zn_kb_get(b, side == 0 ? t->stage_a[e] : t->stage_b[e]));
    }
}

/* Lines of a register tile come in runs of `run` neighbours, spread over the block so that a warp reads without conflicts. */
static zn_kref line_of(zn_lw *lw, zn_kref place, unsigned tiles, unsigned per, unsigned i) {
  unsigned run = per < 4 ? per : 4;
  return ix_addi(&lw->kb, ix_mul(&lw->kb, place, run), (int64_t)(i / run) * tiles * run + i % run);
}

static void read_lines(zn_lw *lw, const tile *t, zn_kref from, zn_kref row, zn_kref place, unsigned tiles, unsigned per,
                       zn_kref *out) {
  zn_kb *b = &lw->kb;
  unsigned run = per < 4 ? per : 4;
  for (unsigned i = 0; i < per; i += run) {
    zn_kref at = ix_add(b, row, line_of(lw, place, tiles, per, i));
    if (run == 1) {
      out[i] = zn_kb_load(b, t->g->t, 1, from, at);
      continue;
    }
    zn_kref v = zn_kb_load(b, t->g->t, run, from, at);
    b->f->insts[v].imm.i = (int64_t)run * zn_dtype_bytes(t->g->t) <= 16 ? (int64_t)run * zn_dtype_bytes(t->g->t) : 16;
    for (unsigned j = 0; j < run; j++) out[i + j] = zn_kb_extract(b, v, j);
  }
}

static void multiply(zn_lw *lw, const tile *t, zn_kref trow, zn_kref tcol) {
  zn_kb *b = &lw->kb;
  const shape *s = &t->s;
  zn_kref lo = zn_kb_idx(b, 0), hi = zn_kb_idx(b, s->bk), x[ZN_GS_REG], y[ZN_GS_REG];
  zn_kref kk = zn_kb_for(b, lo, hi, 1, ZN_FOR_SERIAL, 0);
  read_lines(lw, t, t->sa, ix_mul(b, kk, s->bm + PAD), trow, s->bm / s->tm, s->tm, x);
  read_lines(lw, t, t->sb, ix_mul(b, kk, s->bn + PAD), tcol, s->bn / s->tn, s->tn, y);
  for (unsigned i = 0; i < s->tm; i++)
    for (unsigned j = 0; j < s->tn; j++) {
      zn_kref acc = t->acc[i * s->tn + j], old = zn_kb_get(b, acc);
      zn_kb_set(b, acc, zn_mul_add(lw, x[i], y[j], old));
    }
  zn_kb_end(b);
}

void zn_gs_finish(zn_lw *lw, const tile *t, zn_expr m, zn_expr n, zn_kref sum) {
  zn_exprs *ex = lw->ex;
  const zn_gemm *g = t->g;
  if (t->parts == 1) {
    if (g->init) sum = zn_kb_bin(&lw->kb, ZN_K_Add, sum, initial(lw, g, t->batch, m, n));
    g->emit(lw, g->user, t->batch, m, n, sum);
    return;
  }
  zn_kref p = zn_lw_ptr_loc(lw, t->partial, ZN_KP_OUT, g->t);
  zn_expr off = t->part;
  for (uint32_t k = 0; k < g->num_batch; k++) off = zn_ex_add(ex, zn_ex_mul(ex, off, g->batch[k]), t->batch[k]);
  off = zn_ex_add(ex, zn_ex_mul(ex, off, g->rows_inner ? g->n : g->m), g->rows_inner ? n : m);
  off = zn_ex_add(ex, zn_ex_mul(ex, off, g->rows_inner ? g->m : g->n), g->rows_inner ? m : n);
  zn_lw_store_at(lw, p, g->t, off, sum);
}

/* The block of C lies in shared memory: the team hands it on in the order of memory. */
void zn_gs_hand_out(zn_lw *lw, const tile *t, zn_kref sc) {
  zn_kb *b = &lw->kb;
  const zn_gemm *g = t->g;
  const shape *s = &t->s;
  zn_kref end = zn_kb_idx(b, (int64_t)s->bm * s->bn);
  zn_kref i = zn_kb_for(b, t->thread, end, t->threads, ZN_FOR_SERIAL, 0);
  zn_kref r = g->rows_inner ? ix_rem(b, i, s->bm) : ix_div(b, i, s->bn);
  zn_kref c = g->rows_inner ? ix_div(b, i, s->bm) : ix_rem(b, i, s->bn);
  zn_kref row = ix_add(b, zn_lw_ix(lw, t->row0), r), col = ix_add(b, zn_lw_ix(lw, t->col0), c);
  zn_kref rows = zn_lw_ix(lw, g->m), cols = zn_lw_ix(lw, g->n);
  zn_kref in_rows = zn_kb_cmp(b, ZN_K_Lt, row, rows), in_cols = zn_kb_cmp(b, ZN_K_Lt, col, cols);
  zn_kb_if(b, zn_kb_bin(b, ZN_K_And, in_rows, in_cols));
  zn_kref at = g->rows_inner ? ix_add(b, ix_mul(b, c, s->bm), r) : ix_add(b, ix_mul(b, r, s->bn), c);
  zn_kref sum = zn_kb_load(b, g->t, 1, sc, at);
  zn_expr at_col = zn_lw_as_expr(lw, col, g->n);
  zn_gs_finish(lw, t, zn_lw_as_expr(lw, row, g->m), at_col, sum);
  zn_kb_end(b);
  zn_kb_end(b);
}

static void barrier(zn_lw *lw) { zn_kb_raw(&lw->kb, (zn_kinst){.op = ZN_K_Barrier, .lanes = 1}); }

static void team_body(zn_lw *lw, tile *t, zn_kref shared) {
  zn_kb *b = &lw->kb;
  const shape *s = &t->s;
  unsigned cols = s->bn / s->tn;
  zn_kref trow = ix_div(b, t->thread, cols), tcol = ix_rem(b, t->thread, cols);
  for (unsigned i = 0; i < (unsigned)s->tm * s->tn; i++) t->acc[i] = zn_kb_var(b, zero_of(lw, t->g->t));
  zn_kref begin = zn_lw_ix(lw, t->k_begin), end = zn_lw_ix(lw, t->k_end);
  stage(lw, t, begin, true);
  zn_kref k0 = zn_kb_for(b, begin, end, s->bk, ZN_FOR_SERIAL, 0);
  put_stage(lw, t);
  barrier(lw);
  /* behind the last step this reads step 0's neighbours again, or places that count as zero */
  zn_kref next = ix_addi(b, k0, s->bk), more = zn_kb_cmp(b, ZN_K_Lt, next, end);
  stage(lw, t, zn_kb_select(b, more, next, begin), false);
  multiply(lw, t, trow, tcol);
  barrier(lw);
  zn_kb_end(b);
  for (unsigned i = 0; i < s->tm; i++)
    for (unsigned j = 0; j < s->tn; j++) {
      zn_kref r = line_of(lw, trow, s->bm / s->tm, s->tm, i), c = line_of(lw, tcol, cols, s->tn, j);
      zn_kref at = t->g->rows_inner ? ix_add(b, ix_mul(b, c, s->bm), r) : ix_add(b, ix_mul(b, r, s->bn), c);
      zn_kb_store(b, shared, at, zn_kb_get(b, t->acc[i * s->tn + j]));
    }
  barrier(lw);
  zn_gs_hand_out(lw, t, shared);
}

static uint64_t shared_elements(const shape *s) {
  uint64_t steps = (uint64_t)s->bk * ((uint64_t)s->bm + s->bn + 2 * PAD), block = (uint64_t)s->bm * s->bn;
  return steps > block ? steps : block;
}

void zn_gs_set_depth(zn_lw *lw, tile *t) {
  zn_exprs *ex = lw->ex;
  zn_expr k = t->g->k, steps = zn_ex_ceildiv(ex, k, zn_ex_const(ex, t->s.bk));
  zn_expr each = zn_ex_muli(ex, zn_ex_ceildiv(ex, steps, zn_ex_const(ex, t->parts)), t->s.bk);
  t->k_begin = zn_ex_mul(ex, t->part, each);
  t->k_end = t->parts == 1 ? k : zn_ex_min(ex, zn_ex_add(ex, t->k_begin, each), k);
}

void zn_gs_open(zn_lw *lw, tile *t) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const zn_gemm *g = t->g;
  const shape *s = &t->s;
  zn_expr extents[ZN_MAX_RANK + 3], var[ZN_MAX_RANK + 3];
  uint32_t nb = g->num_batch;
  for (uint32_t i = 0; i < nb; i++) extents[i + 1] = g->batch[i];
  extents[0] = zn_ex_const(ex, t->parts);
  extents[nb + 1] = zn_ex_ceildiv(ex, g->n, zn_ex_const(ex, s->bn));
  extents[nb + 2] = zn_ex_ceildiv(ex, g->m, zn_ex_const(ex, s->bm)); /* neighbours share a panel of B */
  zn_lw_grid(lw, nb + 3, extents, var);
  for (uint32_t i = 0; i < nb; i++) t->batch[i] = var[i + 1];
  t->part = var[0];
  t->row0 = zn_ex_muli(ex, var[nb + 2], s->bm);
  t->col0 = zn_ex_muli(ex, var[nb + 1], s->bn);
  zn_gs_set_depth(lw, t);
  zn_kref end = zn_kb_idx(b, t->threads);
  t->thread = zn_kb_for(b, zn_kb_idx(b, 0), end, 1, ZN_FOR_THREAD, t->threads);
}

static void tiles_kernel(zn_lw *lw, tile *t) {
  zn_kb *b = &lw->kb;
  const shape *s = &t->s;
  unsigned size = zn_dtype_bytes(t->g->t);
  t->threads = (unsigned)(s->bm / s->tm) * (s->bn / s->tn);
  zn_lw_kernel(lw, t->g->node, t->g->hint);
  zn_kref shared = zn_kb_alloc(b, t->g->t, shared_elements(s));
  t->sa = shared;
  t->sb = zn_kb_ptradd(b, shared, zn_kb_idx(b, (int64_t)s->bk * (s->bm + PAD) * size));
  zn_gs_open(lw, t);
  team_body(lw, t, shared);
  zn_kb_end(b);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

void zn_gs_add_parts(zn_lw *lw, const zn_gemm *g, zn_loc partial, unsigned parts, const zn_expr *batch, zn_expr m, zn_expr n) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  zn_expr off = zn_ex_const(ex, 0), plane = zn_ex_mul(ex, g->m, g->n);
  for (uint32_t i = 0; i < g->num_batch; i++) {
    off = zn_ex_add(ex, zn_ex_mul(ex, off, g->batch[i]), batch[i]);
    plane = zn_ex_mul(ex, plane, g->batch[i]);
  }
  off = zn_ex_add(ex, zn_ex_mul(ex, off, g->rows_inner ? g->n : g->m), g->rows_inner ? n : m);
  off = zn_ex_add(ex, zn_ex_mul(ex, off, g->rows_inner ? g->m : g->n), g->rows_inner ? m : n);
  zn_kref p = zn_lw_ptr_loc(lw, partial, ZN_KP_IN, g->t), sum = 0;
  for (unsigned i = 0; i < parts; i++) {
    zn_kref x = zn_lw_load_at(lw, p, g->t, zn_ex_add(ex, zn_ex_muli(ex, plane, i), off));
    sum = i ? zn_kb_bin(b, ZN_K_Add, sum, x) : x;
  }
  if (g->init) sum = zn_kb_bin(b, ZN_K_Add, sum, initial(lw, g, batch, m, n));
  g->emit(lw, g->user, batch, m, n, sum);
}

void zn_gs_sum_kernel(zn_lw *lw, const zn_gemm *g, zn_loc partial, unsigned parts) {
  zn_expr var[ZN_MAX_RANK + 2], m, n;
  zn_lw_kernel(lw, g->node, zn_arena_printf(lw->arena, "%s_sum", g->hint));
  open_points(lw, g, var, &m, &n);
  zn_gs_add_parts(lw, g, partial, parts, var, m, n);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* The parts are there: their reader adds them up, or a kernel does. */
static void add_parts(zn_lw *lw, const zn_gemm *g, zn_loc partial, unsigned parts) {
  zn_vid result = zn_deferred_reader(lw, g);
  if (result) zn_defer(lw, g, partial, parts, result);
  else zn_gs_sum_kernel(lw, g, partial, parts);
}

/* ---------------------------------------------------------------- choice */

double zn_gs_extent(zn_lw *lw, zn_expr e) { /* symbolic extents count as long */
  int64_t c;
  return zn_ex_is_const(lw->ex, e, &c) ? (double)c : 512;
}

static double ceil_div(double x, double y) {
  int64_t q = (int64_t)((x + y - 1) / y);
  return (double)(q < 1 ? 1 : q);
}

/* Cycles until the last block is done. A step of a block costs its multiply-adds, or the latency of the loads that the step
 * waits for when the multiprocessor has too few blocks to hide it. */
static double cost(zn_lw *lw, const zn_gemm *g, const shape *s, unsigned parts) {
  const double LANES = 128, LATENCY = 900, LAUNCH = 4000, THREADS = 1024;
  double blocks = parts * ceil_div(zn_gs_extent(lw, g->m), s->bm) * ceil_div(zn_gs_extent(lw, g->n), s->bn);
  for (uint32_t i = 0; i < g->num_batch; i++) blocks *= zn_gs_extent(lw, g->batch[i]);
  double cores = lw->caps->cores ? lw->caps->cores : 64, threads = (double)(s->bm / s->tm) * (s->bn / s->tn);
  double steps = ceil_div(ceil_div(zn_gs_extent(lw, g->k), s->bk), parts);
  double words = (double)(s->tm + s->tn) / (s->tm * s->tn); /* read from shared memory for a multiply-add */
  double staged = (double)(s->bm + s->bn) * s->bk * 12;      /* instructions that move the tiles */
  double step = ((double)s->bm * s->bn * s->bk * (1 + words) + staged) / LANES;
  double room = THREADS / threads < 1 ? 1 : THREADS / threads; /* blocks of a multiprocessor at once */
  double queue = ceil_div(blocks, cores), together = queue < room ? queue : room;
  double turn = step * together > LATENCY ? step * together : LATENCY;
  double time = steps * turn * (queue / together) + (double)s->bm * s->bn * 20 / LANES * queue + LAUNCH;
  if (parts > 1) time += LAUNCH + zn_gs_extent(lw, g->m) * zn_gs_extent(lw, g->n) * parts / cores / 8;
  return time;
}

static bool choose(zn_lw *lw, const zn_gemm *g, tile *t) {
  double best = 0;
  unsigned most = g->t == ZN_F32 && zn_gs_extent(lw, g->k) >= 256 ? 16 : 1;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (unsigned parts = 1; parts <= most; parts *= 2) {
      if (zn_gs_extent(lw, g->k) / parts < 64 && parts > 1) continue;
      double time = cost(lw, g, &shapes[i], parts);
      if (best != 0 && time >= best) continue;
      best = time;
      t->s = shapes[i];
      t->parts = parts;
    }
  return best != 0;
}

zn_loc zn_gs_scratch(zn_lw *lw, const zn_gemm *g, unsigned parts) {
  zn_exprs *ex = lw->ex;
  zn_expr bytes = zn_ex_muli(ex, zn_ex_mul(ex, g->m, g->n), (int64_t)parts * zn_dtype_bytes(g->t));
  for (uint32_t i = 0; i < g->num_batch; i++) bytes = zn_ex_mul(ex, bytes, g->batch[i]);
  return zn_lw_scratch(lw, bytes);
}

static void emit_thin(zn_lw *lw, const zn_gemm *g, unsigned rows) {
  thin t = {.g = g, .rows = rows, .parts = 1, .run = 1};
  bool neighbours = g->packed && !g->b_depth_inner && g->t == ZN_F32 && !g->rows_inner;
  if (neighbours && is_multiple(lw, g->n, 4)) t.run = rows <= 4 && is_multiple(lw, g->n, 8) ? 8 : 4;
  while (t.run > 1 && zn_gs_extent(lw, g->n) < THIN_COLS * t.run) t.run /= 2; /* all threads have columns */
  double teams = ceil_div(zn_gs_extent(lw, g->n), THIN_COLS * t.run), cores = lw->caps->cores ? lw->caps->cores : 64;
  for (uint32_t i = 0; i < g->num_batch; i++) teams *= zn_gs_extent(lw, g->batch[i]);
  while (g->t == ZN_F32 && teams * t.parts < 2 * cores && zn_gs_extent(lw, g->k) / (t.parts * 2) >= 32 * THIN_SLICES)
    t.parts *= 2;
  if (t.parts > 1) t.partial = zn_gs_scratch(lw, g, t.parts);
  thin_kernel(lw, &t);
  if (t.parts > 1) add_parts(lw, g, t.partial, t.parts);
}

void zn_gemm_simt(zn_lw *lw, const zn_gemm *g) {
  tile t = {.g = g, .parts = 1};
  double m = zn_gs_extent(lw, g->m), n = zn_gs_extent(lw, g->n), k = zn_gs_extent(lw, g->k);
  bool wide = g->t == ZN_F32 || g->t == ZN_I32;
  int64_t rows;
  bool few = zn_ex_is_const(lw->ex, g->m, &rows) && rows > 0 && rows <= THIN_ROWS && n >= 16 && k >= 64;
  if (wide && few && !(g->bytes && zn_gs_pipe_fits(lw, g))) {
    if (g->packed && zn_gs_rows_fit(lw, g)) zn_gs_rows(lw, g);
    else emit_thin(lw, g, (unsigned)rows);
    return;
  }
  if (zn_gs_pipe(lw, &t) || (zn_gs_units_fit(lw, g) && zn_gs_mma(lw, &t))) {
    if (t.parts > 1) add_parts(lw, g, t.partial, t.parts);
    return;
  }
  if (!wide || m < 8 || n < 8 || k < 8 || !choose(lw, g, &t)) {
    zn_gemm p = *g;
    if (n < 32 && m > n) p.rows_inner = true; /* threads along the longer side */
    points(lw, &p);
    return;
  }
  if (t.parts > 1) t.partial = zn_gs_scratch(lw, g, t.parts);
  tiles_kernel(lw, &t);
  if (t.parts > 1) add_parts(lw, g, t.partial, t.parts);
}
