/* The matrix-product schedule. A grid iteration takes one block of columns (a packed panel where B is constant) and all
 * rows, or a part of them; the depth is cut into chunks whose piece of the panel stays in cache. Inside, register tiles
 * of `rows` x `vectors` accumulators: widen.c makes them of the marked loops, with one broadcast per row and step.
 * The last tile of an axis starts earlier (constant extents) or repeats its last row (symbolic ones): there is one
 * register tile and no tail code; what is computed twice is equal both times. Partial sums of all but the last chunk
 * wait in the workspace, one cell per tile. */
#include "codegen/lower/gemm.h"

#include <assert.h>

enum {
  DEPTH_BYTES = 96 << 10,
  MIN_GRID = 16,
  FETCH_STEPS = 32,        /* of the depth between two fetches, at most */
  LINE = 64,               /* of cache, bytes */
  FETCH_BYTES = 256 << 10, /* operands smaller than this stay in cache by themselves */
  FETCH_TILES = 24         /* row tiles to share out the fetching over when their number is symbolic */
};

zn_kref zn_mul_add(zn_lw *lw, zn_kref a, zn_kref b, zn_kref acc) {
  zn_kb *kb = &lw->kb;
  zn_dtype t = zn_lw_kdtype(lw, acc);
  if (zn_lw_kdtype(lw, a) != t) a = zn_kb_cvt(kb, a, t);
  if (zn_lw_kdtype(lw, b) != t) b = zn_kb_cvt(kb, b, t);
  if (zn_is_float(t)) return zn_kb_fma(kb, a, b, acc);
  zn_kref p = zn_kb_bin(kb, ZN_K_Mul, a, b);
  return zn_kb_bin(kb, ZN_K_Add, acc, p);
}

typedef struct shape {
  uint8_t rows, vectors;
  double speed; /* part of the peak in the steady state: loads per multiply-add, latency */
} shape;

static const shape shapes[] = {{4, 3, 1.0},  {6, 2, 0.98}, {5, 2, 0.94}, {4, 2, 0.85},  {3, 4, 0.98},
                               {3, 3, 0.93}, {2, 4, 0.86}, {2, 5, 0.9},  {1, 8, 0.7},   {1, 4, 0.6},
                               {2, 2, 0.5},  {8, 1, 0.82}, {3, 2, 0.7},  {3, 1, 0.4},   {2, 1, 0.3},
                               {1, 2, 0.35}, {1, 1, 0.2},  {12, 2, 1.1}, {8, 3, 1.12},  {7, 3, 1.08},
                               {5, 4, 1.08}, {4, 4, 1.05}, {12, 1, 0.88}, {5, 1, 0.6}};

enum { NUM_SHAPES = sizeof shapes / sizeof *shapes };

double zn_gemm_use(zn_lw *lw, zn_expr e, int64_t s) {
  int64_t c;
  if (!zn_ex_is_const(lw->ex, e, &c) || c <= 0) return 1;
  return (double)c / (double)zn_round_up(c, s);
}

static void choose(zn_lw *lw, zn_gemm *g) {
  int64_t lanes = zn_lw_lanes(lw, g->t), n, m;
  if (g->rows) return;
  g->rows = 2;
  g->vectors = 4;
  if (!zn_ex_is_const(lw->ex, g->m, &m)) m = INT64_MAX;
  if (!zn_ex_is_const(lw->ex, g->n, &n)) n = INT64_MAX;
  if (lanes == 1) {
    if (m < 2) g->rows = 1;
    if (n < 4) g->vectors = n < 1 ? 1 : (unsigned)n;
    return;
  }
  double best = 0, scores[NUM_SHAPES];
  int64_t codes[NUM_SHAPES], code = 2 * 16 + 1;
  uint32_t num = 0, usual = 0;
  for (size_t i = 0; i < NUM_SHAPES; i++) {
    const shape *s = &shapes[i];
    /* vectors of B that only one row uses are read where they are needed */
    unsigned regs = (unsigned)s->rows * s->vectors + (s->rows > 1 ? s->vectors : 1) + 1;
    if (regs > lw->caps->vector_regs || s->rows > m) continue;
    if (s->vectors > 1 && s->vectors * lanes > n) continue;
    double fill = zn_gemm_use(lw, g->m, s->rows) * zn_gemm_use(lw, g->n, s->vectors * lanes), score = s->speed * fill;
    if (lw->opts->frugal && fill < 1) score /= 4; /* tiles that overlap cannot be written over an operand */
    codes[num] = s->rows * 16 + s->vectors;
    scores[num++] = score;
    if (score <= best) continue;
    best = score;
    usual = num - 1;
  }
  if (num) code = codes[zn_lw_knob_best(lw, g->node, "tile", usual, codes, scores, num)];
  g->rows = (unsigned)code / 16;
  g->vectors = (unsigned)code % 16;
}

static uint64_t panel_width(const zn_lw *lw, const zn_gemm *g) { return (uint64_t)g->vectors * zn_lw_lanes(lw, g->t); }

/* First column of the panel that stands at p: the last one starts earlier. */
static uint64_t panel_start(uint64_t p, uint64_t panel, uint64_t n) {
  return n < panel ? 0 : p + panel > n ? n - panel : p;
}

typedef struct words { /* a matrix of 32-bit elements in memory that outlives the lowering */
  const uint32_t *raw;
  uint64_t raw_k, raw_n, k, n, panel;
} words;

static void fill_words(const void *user, void *dst) {
  const words *w = user;
  uint32_t *to = dst;
  for (uint64_t p = 0; p < w->n; p += w->panel) {
    uint64_t first = panel_start(p, w->panel, w->n), width = w->n - first < w->panel ? w->n - first : w->panel;
    const uint32_t *from = w->raw + first * w->raw_n;
    for (uint64_t i = 0; i < w->k; i++, to += w->panel) {
      for (uint64_t j = 0; j < width; j++) to[j] = from[i * w->raw_k + j * w->raw_n];
      for (uint64_t j = width; j < w->panel; j++) to[j] = 0;
    }
  }
}

void zn_gemm_pack(zn_lw *lw, zn_gemm *g, const char *name, uint64_t k, uint64_t n, zn_dtype dtype,
                  void (*copy)(void *user, uint64_t k, uint64_t n, void *dst), void *user) {
  if (lw->caps->simt) {
    zn_gemm_pack_simt(lw, g, name, k, n, dtype, copy, user);
    return;
  }
  choose(lw, g);
  uint64_t panel = panel_width(lw, g), count = (n + panel - 1) / panel * panel * k;
  unsigned size = zn_dtype_bytes(dtype);
  const char *title = zn_arena_printf(lw->arena, "%s_panels", name);
  g->packed = true;
  g->panel_dtype = dtype;
  if (g->raw && size == 4) {
    words *w = ZN_NEW(lw->arena, words);
    *w = (words){g->raw, (uint64_t)g->raw_k, (uint64_t)g->raw_n, k, n, panel};
    g->panels = zn_lw_const_fill(lw, title, dtype, count, fill_words, w);
    return;
  }
  char *data = zn_arena_array(&lw->ctx->graph, count, size);
  for (uint64_t p = 0; p < n; p += panel) {
    uint64_t first = panel_start(p, panel, n);
    for (uint64_t i = 0; i < k; i++)
      for (uint64_t j = 0; j < panel && first + j < n; j++)
        copy(user, i, first + j, data + (p * k + i * panel + j) * size);
  }
  g->panels = zn_lw_const(lw, title, dtype, count, data);
}

typedef struct tile {
  const zn_gemm *g;
  zn_expr batch[ZN_MAX_RANK];
  zn_expr width;                /* columns of a block: constant, or n where that is smaller */
  unsigned panel;               /* columns of a packed panel */
  zn_expr panel_no, first;      /* column block and its first column */
  zn_expr row_blocks, row_no;
  zn_expr base;                 /* first row */
  zn_expr chunks, depth, chunk_no, k0, kn; /* pieces of the depth; depth of one; the current one */
  zn_expr parts, per_part;      /* of the row blocks */
  zn_loc partial;
  bool split_depth;
  zn_expr tile_no;              /* row tile within the part */
  int64_t steps, fetch;         /* bytes of the next piece to ask for every so many steps of the depth, 0 = none */
} tile;

static zn_kref load_b(zn_lw *lw, const tile *t, zn_expr k, zn_expr col) {
  const zn_gemm *g = t->g;
  zn_exprs *ex = lw->ex;
  if (!g->packed) return g->b(lw, g->user, t->batch, k, zn_ex_add(ex, t->first, col));
  zn_kref p = zn_lw_ptr_loc(lw, g->panels, ZN_KP_IN, g->panel_dtype);
  zn_expr off = zn_ex_mul(ex, zn_ex_muli(ex, t->panel_no, t->panel), g->k);
  off = zn_ex_add(ex, off, zn_ex_add(ex, zn_ex_muli(ex, k, t->panel), col));
  return zn_lw_load_at(lw, p, g->panel_dtype, off);
}

/* Workspace cell of the partial sum. */
static zn_expr cell_of(zn_lw *lw, const tile *t, zn_expr r, zn_expr col) {
  const zn_gemm *g = t->g;
  zn_exprs *ex = lw->ex;
  zn_expr c = zn_ex_const(ex, 0), blocks = zn_ex_ceildiv(ex, g->n, zn_ex_const(ex, t->panel));
  for (uint32_t i = 0; i < g->num_batch; i++) c = zn_ex_add(ex, zn_ex_mul(ex, c, g->batch[i]), t->batch[i]);
  c = zn_ex_add(ex, zn_ex_mul(ex, c, blocks), t->panel_no);
  c = zn_ex_add(ex, zn_ex_mul(ex, c, t->row_blocks), t->row_no);
  c = zn_ex_add(ex, zn_ex_muli(ex, c, g->rows), r);
  return zn_ex_add(ex, zn_ex_muli(ex, c, t->panel), col);
}

/* In the loop over depth: row tiles share out the fetching of the next piece of the packed operand, which lies behind
 * the current one. Without it the first row tile of each piece runs at the speed of main memory. */
static void fetch_ahead(zn_lw *lw, const tile *t, zn_expr block) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  if (!t->fetch) return;
  int64_t line = (int64_t)t->panel * zn_dtype_bytes(t->g->panel_dtype);
  zn_expr piece = zn_ex_muli(ex, t->kn, line);
  zn_expr here = zn_ex_mul(ex, zn_ex_muli(ex, t->panel_no, line), t->g->k);
  here = zn_ex_add(ex, here, zn_ex_muli(ex, t->k0, line));
  here = zn_ex_add(ex, here, piece);
  zn_expr done = zn_ex_mul(ex, t->tile_no, zn_ex_muli(ex, zn_ex_divi(ex, t->kn, t->steps), t->fetch));
  done = zn_ex_min(ex, done, piece);
  zn_kref p = zn_lw_ptr_loc(lw, t->g->panels, ZN_KP_IN, t->g->panel_dtype);
  zn_expr at = zn_ex_add(ex, zn_ex_add(ex, here, done), zn_ex_muli(ex, block, t->fetch));
  for (int64_t i = 0; i < t->fetch; i += LINE) {
    zn_kref bytes = zn_lw_ix(lw, zn_ex_addi(ex, at, i));
    zn_kb_prefetch(b, p, bytes);
  }
}

/* One accumulator: row r of the tile at row m, column first + col. */
static void accumulate(zn_lw *lw, const tile *t, zn_expr r, zn_expr m, zn_expr col) {
  const zn_gemm *g = t->g;
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  zn_expr n = zn_ex_add(ex, t->first, col), cell = ZN_EX_NONE;
  zn_kref init, last = 0, store = 0;
  if (g->init)
    init = g->init(lw, g->user, t->batch, m, n);
  else
    init = zn_is_float(g->t) ? zn_kb_float(b, g->t, 0) : zn_kb_int(b, g->t, 0);
  if (t->split_depth) {
    cell = cell_of(lw, t, r, col);
    store = zn_lw_ptr_loc(lw, t->partial, ZN_KP_INOUT, g->t);
    zn_kref no = zn_lw_ix(lw, t->chunk_no), old = zn_lw_load_at(lw, store, g->t, cell);
    init = zn_kb_select(b, zn_kb_cmp(b, ZN_K_Eq, no, zn_kb_idx(b, 0)), init, old);
    zn_kref end = zn_lw_ix(lw, zn_ex_addi(ex, t->chunks, -1));
    last = zn_kb_cmp(b, ZN_K_Eq, no, end);
  }
  zn_kref acc = zn_kb_var(b, init);
  zn_expr k = t->k0;
  if (t->fetch) { /* two loops: an unrolled one makes LLVM spill accumulators */
    zn_expr block = zn_lw_for(lw, zn_ex_divi(ex, t->kn, t->steps), ZN_FOR_SERIAL, 0);
    fetch_ahead(lw, t, block);
    k = zn_ex_add(ex, k, zn_ex_muli(ex, block, t->steps));
  }
  k = zn_ex_add(ex, k, zn_lw_for(lw, t->fetch ? zn_ex_const(ex, t->steps) : t->kn, ZN_FOR_SERIAL, 0));
  zn_kref av = g->a(lw, g->user, t->batch, m, k);
  zn_kref bv = load_b(lw, t, k, col);
  zn_kref old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_mul_add(lw, av, bv, old));
  zn_lw_end(lw);
  if (t->fetch) zn_lw_end(lw);
  zn_kref sum = zn_kb_get(b, acc);
  if (!t->split_depth) {
    g->emit(lw, g->user, t->batch, m, n, sum);
    return;
  }
  zn_kb_if(b, last);
  g->emit(lw, g->user, t->batch, m, n, sum);
  zn_kb_else(b);
  zn_lw_store_at(lw, store, g->t, cell, sum);
  zn_kb_end(b);
}

/* The loops over columns and the accumulator inside them, for row r of the tile. */
static void columns(zn_lw *lw, const tile *t, zn_expr r, zn_expr m) {
  zn_exprs *ex = lw->ex;
  int64_t w, lanes = zn_lw_lanes(lw, t->g->t);
  if (zn_ex_is_const(ex, t->width, &w) && w == t->panel) {
    zn_expr u = zn_lw_for(lw, zn_ex_const(ex, w / lanes), ZN_FOR_UNROLL, (unsigned)(w / lanes));
    zn_expr v = zn_lw_for(lw, zn_ex_const(ex, lanes), ZN_FOR_VECTOR, (unsigned)lanes);
    accumulate(lw, t, r, m, zn_ex_add(ex, zn_ex_muli(ex, u, lanes), v));
    zn_lw_end(lw);
  } else {
    zn_expr v = zn_lw_for(lw, t->width, ZN_FOR_VECTOR, (unsigned)lanes);
    accumulate(lw, t, r, m, v);
  }
  zn_lw_end(lw);
}

static void cut_depth(zn_lw *lw, tile *t) {
  zn_exprs *ex = lw->ex;
  const zn_gemm *g = t->g;
  int64_t m, k, lo, hi;
  t->chunks = zn_ex_const(ex, 1);
  t->depth = g->k;
  zn_ex_range(ex, g->m, &lo, &hi);
  if (zn_ex_is_const(ex, g->m, &m) && m < 32) return;
  if (!g->packed || !zn_ex_is_const(ex, g->k, &k)) return;
  static const int64_t shares[] = {2, 4, 8, 1024}; /* quarters of DEPTH_BYTES; the last: all at once */
  int64_t share = zn_lw_knob(lw, g->node, "depth", 4, shares, 4);
  int64_t most = DEPTH_BYTES / 4 * share / ((int64_t)t->panel * zn_dtype_bytes(g->t));
  if (k <= most) return;
  int64_t chunks = (k + most - 1) / most, depth = ((k + chunks - 1) / chunks + 15) / 16 * 16;
  t->chunks = zn_ex_const(ex, (k + depth - 1) / depth);
  t->depth = zn_ex_const(ex, depth);
  t->split_depth = true;
  zn_expr cells = zn_ex_muli(ex, zn_ex_mul(ex, t->row_blocks, zn_ex_ceildiv(ex, g->n, zn_ex_const(ex, t->panel))),
                             (int64_t)g->rows * t->panel * zn_dtype_bytes(g->t));
  for (uint32_t i = 0; i < g->num_batch; i++) cells = zn_ex_mul(ex, cells, g->batch[i]);
  t->partial = zn_lw_scratch(lw, cells);
}

/* How many parts `share` eighths of MIN_GRID take, `others` iterations being there; *each: blocks of a part, 0: symbolic. */
static int64_t parts_for(int64_t share, int64_t others, int64_t blocks, int64_t *each) {
  const int64_t want = MIN_GRID * share / 8;
  int64_t parts = others >= want ? 1 : zn_ceil_div(want, others);
  *each = 0;
  if (blocks == INT64_MAX) return parts;
  if (parts > blocks) parts = blocks < 1 ? 1 : blocks;
  *each = blocks < 1 ? 1 : zn_ceil_div(blocks, parts);
  return zn_ceil_div(blocks, *each);
}

void zn_gemm_cut_rows(zn_lw *lw, zn_nid node, uint32_t num_batch, const zn_expr *batch, zn_expr row_blocks,
                      zn_expr column_blocks, zn_expr *out_each, zn_expr *out_parts) {
  static const int64_t shares[] = {8, 0, 2, 4, 16, 32, 64};
  enum { SHARES = sizeof shares / sizeof *shares };
  zn_exprs *ex = lw->ex;
  int64_t blocks, n = 1, d, each, choices[SHARES], found[SHARES];
  uint32_t num = 0;
  *out_parts = zn_ex_const(ex, 1);
  *out_each = row_blocks;
  for (uint32_t i = 0; i < num_batch; i++)
    if (zn_ex_is_const(ex, batch[i], &d)) n *= d;
  if (zn_ex_is_const(ex, column_blocks, &d)) n *= d;
  if (n <= 0) return;
  if (!zn_ex_is_const(ex, row_blocks, &blocks)) blocks = INT64_MAX;
  for (int i = 0; i < (lw->opts->knobs ? SHARES : 1); i++) {
    const int64_t parts = parts_for(shares[i], n, blocks, &each);
    if (zn_lw_is_new(found, num, parts)) choices[num] = shares[i], found[num++] = parts;
  }
  const int64_t share = num > 1 ? zn_lw_knob(lw, node, "grid", 8, choices, num) : 8;
  const int64_t parts = parts_for(share, n, blocks, &each);
  if (n >= MIN_GRID * share / 8) return; /* one part */
  *out_each = each ? zn_ex_const(ex, each) : zn_ex_ceildiv(ex, row_blocks, zn_ex_const(ex, parts));
  *out_parts = zn_ex_const(ex, parts);
}

zn_expr zn_gemm_tile_start(zn_lw *lw, zn_expr i, int64_t step, zn_expr extent) {
  zn_exprs *ex = lw->ex;
  int64_t c;
  zn_expr at = zn_ex_muli(ex, i, step);
  if (zn_ex_is_const(ex, extent, &c) && c % step == 0) return at;
  zn_expr e = zn_ex_min(ex, at, zn_ex_addi(ex, extent, -step));
  if (zn_ex_is_const(ex, e, NULL)) return e;
  return zn_lw_as_expr(lw, zn_lw_ix(lw, e), extent);
}

static void share_fetching(zn_lw *lw, tile *t) {
  zn_exprs *ex = lw->ex;
  const zn_gemm *g = t->g;
  int64_t k, n, tiles;
  t->fetch = 0;
  if (!g->packed || !lw->caps->l2_bytes || !lw->caps->vector_bytes) return;
  if (!zn_ex_is_const(ex, g->k, &k) || !zn_ex_is_const(ex, g->n, &n)) return;
  bool big = k * n * zn_dtype_bytes(g->panel_dtype) >= FETCH_BYTES;
  if (!big || !zn_ex_is_const(ex, t->kn, &k)) return;
  int64_t line = (int64_t)t->panel * zn_dtype_bytes(g->panel_dtype);
  if (!zn_ex_is_const(ex, t->per_part, &tiles)) tiles = FETCH_TILES;
  static const int64_t choices[] = {0, 1};
  if (!zn_lw_knob(lw, g->node, "fetch", 1, choices, 2)) return;
  if (tiles < 2) return; /* a stream: the hardware's prefetching does that */
  t->steps = FETCH_STEPS;
  while (k % t->steps) t->steps--;
  if (t->steps < FETCH_STEPS / 4) return;
  t->fetch = (line * t->steps + tiles - 1) / tiles;
}

static void row_tiles(zn_lw *lw, tile *t, zn_expr part) {
  zn_exprs *ex = lw->ex;
  const zn_gemm *g = t->g;
  int64_t m;
  bool fixed = zn_ex_is_const(ex, g->m, &m);
  zn_expr first = zn_ex_mul(ex, part, t->per_part), here = t->per_part;
  if (!zn_ex_is(ex, t->parts, 1)) {
    zn_expr left = zn_ex_max(ex, zn_ex_sub(ex, t->row_blocks, first), zn_ex_const(ex, 0));
    here = zn_ex_min(ex, here, left);
  }
  t->chunk_no = zn_lw_for(lw, t->chunks, ZN_FOR_SERIAL, 0);
  t->k0 = zn_ex_mul(ex, t->chunk_no, t->depth);
  t->kn = t->depth;
  int64_t k, depth;
  bool even = zn_ex_is_const(ex, g->k, &k) && zn_ex_is_const(ex, t->depth, &depth) && depth > 0 &&
              k % depth == 0;
  if (t->split_depth && !even) t->kn = zn_ex_min(ex, t->depth, zn_ex_sub(ex, g->k, t->k0));
  share_fetching(lw, t);
  t->tile_no = zn_lw_for(lw, here, ZN_FOR_SERIAL, 0);
  t->row_no = zn_ex_add(ex, first, t->tile_no);
  zn_expr base = fixed ? zn_gemm_tile_start(lw, t->row_no, g->rows, g->m) : zn_ex_muli(ex, t->row_no, g->rows);
  zn_expr r = zn_lw_for(lw, zn_ex_const(ex, g->rows), ZN_FOR_UNROLL, g->rows);
  zn_expr row = zn_ex_add(ex, base, r);
  if (!fixed) {
    row = zn_ex_min(ex, row, zn_ex_addi(ex, g->m, -1));
    row = zn_lw_as_expr(lw, zn_lw_ix(lw, row), g->m);
  }
  columns(lw, t, r, row);
  for (int i = 0; i < 3; i++) zn_lw_end(lw);
}

/* One kernel over `count` column blocks of `width` columns. */
static void emit_kernel(zn_lw *lw, const zn_gemm *g, zn_expr count, zn_expr width) {
  zn_exprs *ex = lw->ex;
  tile t = {.g = g, .panel = (unsigned)panel_width(lw, g), .width = width};
  zn_expr extents[ZN_MAX_RANK + 2], vars[ZN_MAX_RANK + 2];
  t.row_blocks = zn_ex_ceildiv(ex, g->m, zn_ex_const(ex, g->rows));
  cut_depth(lw, &t);
  zn_gemm_cut_rows(lw, g->node, g->num_batch, g->batch, t.row_blocks, count, &t.per_part, &t.parts);
  zn_lw_kernel(lw, g->node, g->hint);
  int64_t m, n;
  bool whole = zn_ex_is_const(ex, g->m, &m) && zn_ex_is_const(ex, g->n, &n) && m % g->rows == 0 && n % t.panel == 0;
  if (whole) zn_lw_in_place(lw, 0);
  for (uint32_t i = 0; i < g->num_batch; i++) extents[i] = g->batch[i];
  extents[g->num_batch] = count;
  extents[g->num_batch + 1] = t.parts;
  zn_lw_grid(lw, g->num_batch + 2, extents, vars);
  for (uint32_t i = 0; i < g->num_batch; i++) t.batch[i] = vars[i];
  t.panel_no = vars[g->num_batch];
  t.first = zn_ex_const(ex, 0);
  if (zn_ex_is(ex, width, t.panel)) t.first = zn_gemm_tile_start(lw, t.panel_no, t.panel, g->n);
  row_tiles(lw, &t, vars[g->num_batch + 1]);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* 1 when there is one row, else 0. */
static zn_expr has_one_row(zn_lw *lw, const zn_gemm *g) {
  zn_exprs *ex = lw->ex;
  zn_expr one = zn_ex_const(ex, 1);
  zn_expr some = zn_ex_min(ex, g->m, one), most = zn_ex_max(ex, g->m, one);
  return zn_ex_div(ex, some, most);
}

/* A number of rows that only the run knows is often one (a batch, a token): a tile would compute that row several times. */
static void emit_one_row(zn_lw *lw, const zn_gemm *g, zn_expr blocks, zn_expr width) {
  zn_gemm row = *g;
  row.m = zn_ex_const(lw->ex, 1);
  row.rows = 1;
  emit_kernel(lw, &row, zn_ex_mul(lw->ex, blocks, has_one_row(lw, g)), width);
}

static bool may_have_one_row(zn_lw *lw, const zn_gemm *g) {
  int64_t lo, hi;
  zn_ex_range(lw->ex, g->m, &lo, &hi);
  return g->rows > 1 && lo <= 1 && hi > 1 && !zn_ex_is_const(lw->ex, g->m, NULL) && lw->opts->opt_level > 1;
}

void zn_gemm_emit(zn_lw *lw, const zn_gemm *given) {
  zn_exprs *ex = lw->ex;
  zn_gemm g = *given;
  if (lw->caps->simt) {
    zn_gemm_simt(lw, &g);
    return;
  }
  choose(lw, &g);
  int64_t n, panel = (int64_t)panel_width(lw, &g);
  zn_expr width = zn_ex_const(ex, panel), one = zn_ex_const(ex, 1);
  zn_expr blocks = zn_ex_ceildiv(ex, g.n, width);
  if (zn_ex_is_const(ex, g.n, &n)) {
    if (n < panel) blocks = one, width = g.n;
    bool both = may_have_one_row(lw, &g);
    if (both) emit_one_row(lw, &g, blocks, width);
    emit_kernel(lw, &g, both ? zn_ex_mul(ex, blocks, zn_ex_sub(ex, one, has_one_row(lw, &g))) : blocks, width);
    return;
  }
  zn_expr wide = zn_ex_min(ex, one, zn_ex_div(ex, g.n, width)); /* 1 when a block fits */
  emit_kernel(lw, &g, zn_ex_mul(ex, blocks, wide), width);
  emit_kernel(lw, &g, zn_ex_sub(ex, one, wide), g.n);
}
