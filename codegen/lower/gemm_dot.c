/* The matrix-product schedule of dot-product instructions: of bytes, 16-bit integers and bf16. A grid iteration takes one block
 * of columns and all rows, or a part of them; lanes are columns, rows of activations are broadcast a word (4 bytes or 2 halves)
 * at a time. Activations that do not lie in memory as words of the right signedness are copied once into a scratch of whole
 * words. Zero points of the activations become a term of the initial sum, from the column sums of the weights. */
#include "codegen/lower/gemm_dot.h"

#include "codegen/lower/gemm.h"
#include "codegen/lower/requant.h"

enum { TILE_UNROLL = 2, FEW_TEMPORARIES = 3 };

typedef struct shape {
  uint8_t rows, vectors;
  double speed; /* part of the peak in the steady state */
} shape;

/* Accumulators, weights, one broadcast and two temporaries must fit the registers. */
static const shape shapes[] = {{4, 2, 1.0}, {5, 2, 0.9},  {3, 2, 0.9},  {3, 3, 0.85}, {8, 1, 0.9}, {6, 1, 0.85}, {4, 1, 0.75},
                               {2, 4, 0.8}, {1, 8, 0.7},  {1, 4, 0.6},  {3, 1, 0.5},  {2, 2, 0.7}, {2, 1, 0.4},  {1, 2, 0.4},
                               {1, 1, 0.2}, {12, 2, 1.1}, {8, 3, 1.1},  {6, 4, 1.08}};
enum { NUM_SHAPES = sizeof shapes / sizeof *shapes };

typedef struct product {
  const zn_gemm_dot *g;
  zn_dotpack pack;
  zn_dot_form form;
  unsigned rows, vectors, lanes;
  int64_t width; /* columns of a block */
  zn_dot_consts consts;
  zn_loc packed;
  bool in_place; /* A is read where it is */
  zn_kref sums;  /* tiles: the results of one */
  zn_dtype word_type;
  zn_expr batch[ZN_MAX_RANK];
  zn_expr block, first; /* column block and its first column */
  zn_expr row_blocks, parts, per_part;
} product;

/* What a TileDot wants, by kind: rows and columns at least, depth at least; at most `rows` rows, a multiple of `step` where there
 * are as many, by two vectors where there are `two` columns. */
typedef struct tile_limits {
  int64_t min_rows, min_cols, min_depth, rows, step, two;
  unsigned lanes;
} tile_limits;

static const tile_limits limits[] = {[ZN_TILE_AMX] = {4, 16, 4, 32, 16, 32, 16},
                                     [ZN_TILE_PAIRS] = {2, 4, 32, 8, 2, 8, 4},
                                     [ZN_TILE_RUNS] = {1, 1, 12, 2, 2, INT64_MAX, 4}};

static bool choose_tiles(zn_lw *lw, product *p) {
  const zn_gemm_dot *g = p->g;
  const tile_limits *t = &limits[lw->caps->tile_dot];
  int64_t least, m; /* as many rows as there can be */
  zn_ex_range(lw->ex, g->m, &least, &m);
  if (!zn_dot_tiles(lw->caps, g->a_type, g->lo, g->hi)) return false;
  if (m < t->min_rows || g->n < t->min_cols || g->k < t->min_depth || p->lanes != t->lanes) return false;
  p->form = ZN_DOT_TILES;
  if (m > t->rows) m = t->rows;
  p->rows = (unsigned)(m >= t->step ? m / t->step * t->step : m);
  p->vectors = g->n >= t->two ? 2 : 1;
  return true;
}

/* Fewer rows or vectors of a TileDot. */
static void ask_tiles(zn_lw *lw, product *p) {
  const int64_t step = limits[lw->caps->tile_dot].step;
  int64_t codes[4], code;
  uint32_t n = 0;
  for (unsigned rows = p->rows; rows == p->rows || (rows * 2 == p->rows && rows % step == 0); rows /= 2)
    for (unsigned vectors = p->vectors; vectors; vectors /= 2) codes[n++] = rows * 16 + vectors;
  if (n < 2) return;
  code = zn_lw_knob(lw, p->g->node, "tile", codes[0], codes, n);
  p->rows = (unsigned)code / 16;
  p->vectors = (unsigned)code % 16;
}

/* Useful part of the peak, for a shape and a form; 0: it does not suit, or is not above `least`. */
static double score_of(zn_lw *lw, const product *p, const shape *s, zn_dot_form form, unsigned temporaries, double least) {
  const zn_gemm_dot *g = p->g;
  int64_t m, width = (int64_t)s->vectors * p->lanes;
  unsigned regs = (unsigned)s->rows * s->vectors + s->vectors + temporaries;
  if (!zn_ex_is_const(lw->ex, g->m, &m)) m = INT64_MAX;
  if (regs > (p->lanes > 1 ? lw->caps->vector_regs : 10u) || s->rows > m || (s->vectors > 1 && width > g->n)) return 0;
  double score = s->speed * zn_gemm_use(lw, g->m, s->rows) * zn_gemm_use(lw, zn_ex_const(lw->ex, g->n), width);
  if (score <= least) return 0;
  if (form == ZN_DOT_BYTES) score /= zn_dot_steps(lw->caps, g->k, g->n, width, g->weight, g->weights);
  else if (form == ZN_DOT_HALVES) score /= ZN_DOT_HALVES_COST;
  return score > least ? score : 0;
}

/* The register tile: the least time per product; returns the score, 0 when there is none. */
static double choose(zn_lw *lw, product *p, zn_dot_form form) {
  double best = 0;
  const unsigned temporaries = p->lanes > 1 ? zn_dot_temporaries(lw->caps) : FEW_TEMPORARIES;
  for (size_t i = 0; i < NUM_SHAPES; i++) {
    double score = score_of(lw, p, &shapes[i], form, temporaries, best);
    if (score <= best) continue;
    best = score;
    p->form = form;
    p->rows = shapes[i].rows;
    p->vectors = shapes[i].vectors;
  }
  return best;
}

/* Also those that fit the registers with few temporaries only. */
static void ask_shape(zn_lw *lw, product *p) {
  int64_t codes[NUM_SHAPES];
  double scores[NUM_SHAPES];
  uint32_t at = 0;
  if (!lw->opts->knobs) return;
  for (uint32_t i = 0; i < NUM_SHAPES; i++) {
    const shape *s = &shapes[i];
    codes[i] = s->rows * 16 + s->vectors;
    scores[i] = score_of(lw, p, s, p->form, FEW_TEMPORARIES, 0);
    if (s->rows == p->rows && s->vectors == p->vectors) at = i;
  }
  at = zn_lw_knob_best(lw, p->g->node, "tile", at, codes, scores, NUM_SHAPES);
  p->rows = shapes[at].rows;
  p->vectors = shapes[at].vectors;
}

/* Form and register tile. */
static bool choose_all(zn_lw *lw, product *p) {
  const zn_gemm_dot *g = p->g;
  product of[3] = {*p, *p, *p};
  int64_t forms[3];
  uint32_t n = 0, at = 0;
  double score[3] = {0};
  if (choose_tiles(lw, &of[n])) score[n++] = 1;
  const zn_dot_form form = n && !lw->opts->knobs ? ZN_DOT_NO_FORM : zn_dot_choose(lw->caps, g->a_type, g->lo, g->hi);
  const bool tiles = n > 0;
  const bool reals = form == ZN_DOT_REALS;
  if ((reals || form == ZN_DOT_BYTES) && (score[n] = choose(lw, &of[n], form)) > 0) n++;
  if (form && !reals && lw->caps->dot2 && (score[n] = choose(lw, &of[n], ZN_DOT_HALVES)) > 0) n++;
  if (!n) return false;
  for (uint32_t i = 1; i < n && !tiles; i++)
    if (score[i] > score[at]) at = i;
  for (uint32_t i = 0; i < n; i++) forms[i] = of[i].form;
  *p = of[zn_lw_knob_best(lw, g->node, "form", at, forms, score, n)];
  if (p->form == ZN_DOT_TILES) ask_tiles(lw, p);
  else ask_shape(lw, p);
  p->width = (int64_t)p->vectors * p->lanes;
  return true;
}

static void pack_weights(zn_lw *lw, product *p) {
  const zn_gemm_dot *g = p->g;
  zn_arena *a = &lw->ctx->graph;
  zn_dot_pack(&p->pack, a, lw->caps, g->a_type, p->form, g->k, g->n, p->width, 1, g->weight, g->weights);
  p->consts = zn_dot_place(lw, &p->pack, g->name);
}

/* ---------------------------------------------------------------- activations as words */

/* Row number of A over all batches. */
static zn_expr flat_row(zn_lw *lw, const zn_gemm_dot *g, const zn_expr *batch, zn_expr m) {
  zn_expr r = zn_ex_const(lw->ex, 0);
  for (uint32_t i = 0; i < g->num_batch; i++) r = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, r, g->batch[i]), batch[i]);
  return zn_ex_add(lw->ex, zn_ex_mul(lw->ex, r, g->m), m);
}

/* Does the last tile read more rows than there are? */
static bool reads_past(zn_lw *lw, const product *p) {
  return zn_dot_is_tiles(p->pack.form) && !zn_ex_is_const(lw->ex, p->g->m, NULL);
}

static bool can_stay(zn_lw *lw, const product *p) {
  const zn_gemm_dot *g = p->g;
  zn_vid v = g->a_stored;
  if (reads_past(lw, p)) return false;
  const unsigned whole = zn_dot_is_tiles(p->pack.form) ? zn_tile_group(lw->caps->tile_dot) : 4;
  if (!v || p->pack.form == ZN_DOT_HALVES || p->pack.a_add || g->k * zn_dtype_bytes(g->a_type) % whole) return false;
  while (lw->g->vals[v].alias) v = lw->g->vals[v].alias;
  return zn_lw_is_stored(lw, v) && !lw->g->vals[v].is_input && !lw->g->vals[v].is_output;
}

static void copy_activations(zn_lw *lw, product *p) {
  const zn_gemm_dot *g = p->g;
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  bool halves = p->pack.form == ZN_DOT_HALVES;
  p->word_type = halves ? ZN_I16 : g->a_type;
  const int64_t size = zn_dtype_bytes(p->word_type), row = p->pack.words * 4 / size;
  zn_expr count = g->m;
  for (uint32_t i = 0; i < g->num_batch; i++) count = zn_ex_mul(ex, count, g->batch[i]);
  if (reads_past(lw, p)) count = zn_ex_addi(ex, count, p->rows - 1);
  p->packed = zn_lw_scratch(lw, zn_ex_muli(ex, count, row * size));
  zn_lw_kernel(lw, g->node, "dot_words");
  lw->num_epilogue = 0;
  zn_kref to = zn_lw_ptr_loc(lw, p->packed, ZN_KP_OUT, p->word_type);
  zn_expr extents[ZN_MAX_RANK + 1], vars[ZN_MAX_RANK + 1];
  for (uint32_t i = 0; i < g->num_batch; i++) extents[i] = g->batch[i];
  extents[g->num_batch] = g->m;
  zn_lw_grid(lw, g->num_batch + 1, extents, vars);
  zn_expr m = vars[g->num_batch], start = zn_ex_muli(ex, flat_row(lw, g, vars, m), row);
  zn_kref zero = halves && g->zero ? zn_kb_cvt(b, g->zero(lw, g->user, vars, m), ZN_I16) : 0;
  zn_expr k = zn_lw_for(lw, zn_ex_const(ex, g->k), ZN_FOR_VECTOR, 0);
  zn_kref x = g->a(lw, g->user, vars, m, k);
  if (halves) {
    x = zn_kb_cvt(b, x, ZN_I16);
    if (zero) x = zn_kb_bin(b, ZN_K_Sub, x, zero);
  } else if (p->pack.a_add) {
    x = zn_kb_bin(b, ZN_K_Xor, x, zn_kb_int(b, g->a_type, g->a_type == ZN_I8 ? -128 : 128));
  } else if (p->pack.reals) {
    x = zn_kb_cvt(b, x, ZN_BF16);
  }
  zn_lw_store_at(lw, to, p->word_type, zn_ex_add(ex, start, k), x);
  zn_lw_end(lw);
  if (row > g->k) { /* the weights there are zero; the bytes must only be defined */
    zn_expr r = zn_lw_for(lw, zn_ex_const(ex, row - g->k), ZN_FOR_SERIAL, 0);
    zn_kref nothing = p->pack.reals ? zn_kb_float(b, p->word_type, 0) : zn_kb_int(b, p->word_type, 0);
    zn_lw_store_at(lw, to, p->word_type, zn_ex_add(ex, zn_ex_addi(ex, start, g->k), r), nothing);
    zn_lw_end(lw);
  }
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* Word `w` (a kernel value) of row (batch, m). */
static zn_kref load_word(zn_lw *lw, const product *p, zn_expr m, zn_expr w) {
  zn_kref base = p->in_place ? zn_lw_ptr(lw, p->g->a_stored, ZN_KP_IN)
                             : zn_lw_ptr_loc(lw, p->packed, ZN_KP_IN, p->word_type);
  zn_expr at = zn_ex_muli(lw->ex, flat_row(lw, p->g, p->batch, m), p->pack.words);
  return zn_lw_load_at(lw, base, ZN_I32, zn_ex_add(lw->ex, at, w));
}

/* ---------------------------------------------------------------- the product */

typedef struct row_at {
  const product *p;
  zn_expr m;
} row_at;

static zn_kref load_row(zn_lw *lw, void *user, zn_expr at) {
  const row_at *r = user;
  return load_word(lw, r->p, r->m, at);
}

/* One accumulator: row base + r, which is row m of A, column first + col. */
static void accumulate(zn_lw *lw, const product *p, zn_expr r, zn_expr m, zn_expr col) {
  const zn_gemm_dot *g = p->g;
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  const bool reals = p->pack.reals;
  zn_expr n = zn_ex_add(ex, p->first, col), column = zn_ex_add(ex, zn_ex_muli(ex, p->block, p->width), col);
  zn_kref zero = g->zero && p->pack.form != ZN_DOT_HALVES ? g->zero(lw, g->user, p->batch, m) : 0;
  zn_kref sum = zn_dot_initial(lw, &p->pack, &p->consts, zn_kb_int(b, ZN_I32, 0), zero, column, n);
  if (p->sums) {
    zn_kref products = zn_lw_load_at(lw, p->sums, reals ? ZN_F32 : ZN_I32, zn_ex_add(ex, zn_ex_muli(ex, r, p->width), col));
    sum = reals ? products : zn_kb_bin(b, ZN_K_Add, products, sum);
  } else {
    zn_kref acc = zn_kb_var(b, sum);
    row_at at = {p, m};
    zn_dot_steps_emit(lw, &p->pack, &p->consts, 1, p->block, col, acc, load_row, &at);
    sum = zn_kb_get(b, acc);
    if (reals) sum = zn_kb_bitcast(b, sum, ZN_F32);
  }
  g->emit(lw, g->user, p->batch, m, n, sum);
}

/* The products of the rows from `base` on, into p->sums. */
static void tile_products(zn_lw *lw, const product *p, zn_expr base) {
  zn_exprs *ex = lw->ex;
  const int64_t bytes = p->pack.words * 4;
  zn_tile t = {.rows = p->rows < 16 ? p->rows : 16, .row_tiles = p->rows > 16 ? 2 : 1, .cols = (unsigned)p->width,
               .col_step = (unsigned)p->width, .row_bytes = (unsigned)bytes};
  zn_kref a = p->in_place ? zn_lw_ptr(lw, p->g->a_stored, ZN_KP_IN) : zn_lw_ptr_loc(lw, p->packed, ZN_KP_IN, p->word_type);
  zn_kref at = zn_lw_ix(lw, zn_ex_muli(ex, flat_row(lw, p->g, p->batch, base), bytes));
  zn_kref rows = zn_kb_ptradd(&lw->kb, a, at);
  zn_dot_tile_emit(lw, &p->pack, &p->consts, p->block, p->sums, rows, p->g->a_type, &t);
}

static void columns(zn_lw *lw, const product *p, zn_expr r, zn_expr m) {
  zn_exprs *ex = lw->ex;
  if (p->g->n < p->width) {
    zn_expr v = zn_lw_for(lw, zn_ex_const(ex, p->g->n), ZN_FOR_VECTOR, p->lanes);
    accumulate(lw, p, r, m, v);
    zn_lw_end(lw);
    return;
  }
  zn_expr u = zn_lw_for(lw, zn_ex_const(ex, p->vectors), ZN_FOR_UNROLL, p->vectors);
  zn_expr v = zn_lw_for(lw, zn_ex_const(ex, p->lanes), ZN_FOR_VECTOR, p->lanes);
  accumulate(lw, p, r, m, zn_ex_add(ex, zn_ex_muli(ex, u, p->lanes), v));
  zn_lw_end(lw);
  zn_lw_end(lw);
}

static void row_tiles(zn_lw *lw, product *p, zn_expr part) {
  zn_exprs *ex = lw->ex;
  const zn_gemm_dot *g = p->g;
  bool fixed = zn_ex_is_const(ex, g->m, NULL);
  zn_expr first = zn_ex_mul(ex, part, p->per_part), here = p->per_part;
  if (!zn_ex_is(ex, p->parts, 1)) {
    zn_expr left = zn_ex_max(ex, zn_ex_sub(ex, p->row_blocks, first), zn_ex_const(ex, 0));
    here = zn_ex_min(ex, here, left);
  }
  zn_expr row_no = zn_ex_add(ex, first, zn_lw_for(lw, here, ZN_FOR_SERIAL, 0));
  zn_expr base = fixed ? zn_gemm_tile_start(lw, row_no, p->rows, g->m) : zn_ex_muli(ex, row_no, p->rows);
  if (p->sums) tile_products(lw, p, base);
  zn_expr r = zn_lw_for(lw, zn_ex_const(ex, p->rows), ZN_FOR_UNROLL, p->sums ? TILE_UNROLL : p->rows);
  zn_expr row = zn_ex_add(ex, base, r);
  if (!fixed) {
    row = zn_ex_min(ex, row, zn_ex_addi(ex, g->m, -1));
    row = zn_lw_as_expr(lw, zn_lw_ix(lw, row), g->m);
    if (p->sums) r = zn_ex_sub(ex, row, base);
  }
  columns(lw, p, r, row);
  zn_lw_end(lw);
  zn_lw_end(lw);
}

bool zn_gemm_dot_emit(zn_lw *lw, const zn_gemm_dot *g) {
  zn_exprs *ex = lw->ex;
  product p = {.g = g, .word_type = g->a_type, .lanes = zn_lw_lanes(lw, ZN_I32)};
  if (g->k < 4 || g->n < 1) return false;
  if (!choose_all(lw, &p)) return false;
  pack_weights(lw, &p);
  p.in_place = can_stay(lw, &p);
  if (!p.in_place) copy_activations(lw, &p);
  p.row_blocks = zn_ex_ceildiv(ex, g->m, zn_ex_const(ex, p.rows));
  zn_gemm_cut_rows(lw, g->node, g->num_batch, g->batch, p.row_blocks, zn_ex_const(ex, p.pack.blocks), &p.per_part, &p.parts);
  zn_lw_kernel(lw, g->node, g->hint);
  const zn_dtype sum_type = p.pack.reals ? ZN_F32 : ZN_I32;
  if (zn_dot_is_tiles(p.form)) p.sums = zn_kb_alloc(&lw->kb, sum_type, (uint64_t)p.rows * (uint64_t)p.width);
  zn_expr extents[ZN_MAX_RANK + 2], vars[ZN_MAX_RANK + 2];
  for (uint32_t i = 0; i < g->num_batch; i++) extents[i] = g->batch[i];
  extents[g->num_batch] = zn_ex_const(ex, p.pack.blocks);
  extents[g->num_batch + 1] = p.parts;
  zn_lw_grid(lw, g->num_batch + 2, extents, vars);
  for (uint32_t i = 0; i < g->num_batch; i++) p.batch[i] = vars[i];
  p.block = vars[g->num_batch];
  p.first = g->n < p.width ? zn_ex_const(ex, 0) : zn_gemm_tile_start(lw, p.block, p.width, zn_ex_const(ex, g->n));
  row_tiles(lw, &p, vars[g->num_batch + 1]);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return true;
}
