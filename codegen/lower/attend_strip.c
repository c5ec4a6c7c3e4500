/* softmax(f(Q K'))V in one kernel with vectors. A grid iteration takes a block of rows of one head. The keys are taken in
 * chunks: K is packed transposed and V in panels, on the stack, once for all rows of the block; then for each register
 * tile of rows the chunk's scores go to a strip in the first-level cache, mapped by whatever f the graph has, become
 * exponentials there, and multiply V. With several chunks each row keeps its maximum, its sum and its result so far
 * (online softmax: Milakov and Gimelshein 2018, Dao et al. 2022); with one, results leave the registers finished. Where f
 * takes a constant for what a constant mask hides, the keys behind the last visible one of a tile are left out as long as
 * they cannot count (find_limits). Sums have sixteen parts on every target. */
#include <math.h>

#include "codegen/lower/attend.h"
#include "codegen/lower/gemm.h"
#include "codegen/lower/index.h"
#include "zenithc/ops/attention_form.h"

enum {
  PARTS = 16, /* of a row's sums */
  PACKED = 5, /* sixteenths of the second-level cache for one chunk's keys, values and scores */
  RESULT = 2, /* the same for a block's results between chunks */
  MOST_CACHE = 1 << 20, /* that counts: all of this is stack */
  MIN_GRID = 8,
  LATE_ROWS = 96, /* of a block when only the run knows how many there are */
  NEGLIGIBLE = 104 /* exp(-x) is zero in f32 from there on */
};

typedef struct strip {
  zn_attend o;
  zn_vid y;
  int rank;
  zn_expr sq, sk;
  int64_t lanes, vectors, rows; /* register tile: rows x vectors */
  int64_t panel, width; /* keys of a panel of K, columns of a panel of V */
  int64_t tiles, chunk; /* row tiles of a block, keys of a chunk */
  bool whole; /* one chunk holds all keys */
  bool even; /* every chunk ends with a panel */
  bool squares; /* K lies along the depth */
  zn_loc limits; /* keys that each tile has to look at; kind NONE: all */
  double hidden; /* what f gives for those behind */
  zn_kref square; /* a vector of mapped keys; 0: they are only moved */
  zn_kref keys, values,
      scores; /* packed K [panel][d][keys], V [panel][key][columns]; [row][key] of a tile */
  zn_kref top, sum,
      result; /* per row of the block: maximum and sum; result [row][panel of V][columns] */
  zn_kref
      factor; /* per row of the tile: of what was summed before, and, with one chunk, of the result */
  zn_expr batch[ZN_MAX_RANK], block;
  zn_expr tile, first_row; /* within the block; of the tile, within the head */
  zn_expr key0, kn,
      last; /* first key and number of keys of the chunk; is it the last one: chunks - 1 - number */
} strip;

static zn_expr constant(const zn_lw *lw, int64_t v) { return zn_ex_const(lw->ex, v); }

/* ---- packing ---- */

static zn_kref element(zn_lw *lw, const strip *a, zn_vid v, zn_expr row, zn_expr col) {
  zn_expr i[ZN_MAX_RANK];
  for (int d = 0; d < a->rank - 2; d++) i[d] = a->batch[d];
  i[a->rank - 2] = row;
  i[a->rank - 1] = col;
  return zn_lw_load(lw, v, i);
}

/* The key, or the last one where it lies behind it (their scores do not count). */
static zn_expr inside(zn_lw *lw, const strip *a, zn_expr key) {
  zn_expr most = zn_ex_addi(lw->ex, a->sk, -1);
  if (zn_ex_le(lw->ex, key, most)) return key;
  return zn_lw_as_expr(lw, zn_lw_ix(lw, zn_ex_min(lw->ex, key, most)), a->sk);
}

static zn_expr packed_key(zn_lw *lw, const strip *a, zn_expr panel, zn_expr k, zn_expr key) {
  zn_exprs *ex = lw->ex;
  zn_expr line = zn_ex_add(ex, zn_ex_muli(ex, panel, a->o.d), k);
  return zn_ex_add(ex, zn_ex_muli(ex, line, a->panel), key);
}

/* Is the value computed on the way, not only moved? */
static bool is_mapped(zn_lw *lw, zn_vid v) {
  const zn_value *val = &lw->g->vals[v];
  if (!val->inlined) return false;
  const zn_node *n = zn_lw_node(lw, val->def);
  return zn_ops[n->op].flags & ZN_OPF_EW || is_mapped(lw, n->in[0]);
}

/* Elements (k .., key) of K side by side. */
static zn_kref key_vector(zn_lw *lw, const strip *a, zn_expr k, zn_expr key) {
  zn_kb *b = &lw->kb;
  if (a->square) { /* by way of memory: maps are scalar code in a marked loop */
    zn_expr v = zn_lw_for(lw, constant(lw, a->lanes), ZN_FOR_VECTOR, (unsigned)a->lanes);
    zn_kref x = element(lw, a, a->o.kt, zn_ex_add(lw->ex, k, v), key);
    zn_kb_store(b, a->square, zn_lw_ix(lw, v), x);
    zn_lw_end(lw);
    return zn_kb_load(b, ZN_F32, (unsigned)a->lanes, a->square, zn_kb_idx(b, 0));
  }
  const zn_kref one = element(lw, a, a->o.kt, k, key);
  const zn_kinst load = b->f->insts[one];
  return zn_kb_load(b, ZN_F32, (unsigned)a->lanes, load.a, load.b);
}

/* Squares of lanes x lanes elements, transposed in registers. */
static void pack_squares(zn_lw *lw, const strip *a, zn_expr panel) {
  zn_exprs *ex = lw->ex;
  zn_kref v[ZN_LW_MAX_SQUARE];
  unsigned lanes = (unsigned)a->lanes;
  zn_expr key =
      zn_ex_muli(ex, zn_lw_for(lw, constant(lw, a->panel / a->lanes), ZN_FOR_SERIAL, 0), a->lanes);
  zn_expr k =
      zn_ex_muli(ex, zn_lw_for(lw, constant(lw, a->o.d / a->lanes), ZN_FOR_SERIAL, 0), a->lanes);
  zn_expr first = zn_ex_add(ex, zn_ex_add(ex, a->key0, zn_ex_muli(ex, panel, a->panel)), key);
  for (unsigned j = 0; j < lanes; j++)
    v[j] = key_vector(lw, a, k, inside(lw, a, zn_ex_addi(ex, first, j)));
  zn_lw_transpose_square(lw, v, lanes);
  for (unsigned j = 0; j < lanes; j++) {
    zn_kref at = zn_lw_ix(lw, packed_key(lw, a, panel, zn_ex_addi(ex, k, j), key));
    zn_kb_store(&lw->kb, a->keys, at, v[j]);
  }
  zn_lw_end(lw);
  zn_lw_end(lw);
}

static void pack_keys(zn_lw *lw, const strip *a) {
  zn_exprs *ex = lw->ex;
  zn_expr panel = zn_lw_for(lw, zn_ex_ceildiv(ex, a->kn, constant(lw, a->panel)), ZN_FOR_SERIAL, 0);
  if (a->squares) {
    pack_squares(lw, a, panel);
  } else {
    zn_expr k = zn_lw_for(lw, constant(lw, a->o.d), ZN_FOR_SERIAL, 0),
            key = zn_lw_for(lw, constant(lw, a->panel), ZN_FOR_VECTOR, 0);
    zn_expr from = zn_ex_add(ex, zn_ex_add(ex, a->key0, zn_ex_muli(ex, panel, a->panel)), key);
    zn_kref x = element(lw, a, a->o.kt, k, inside(lw, a, from));
    zn_kb_store(&lw->kb, a->keys, zn_lw_ix(lw, packed_key(lw, a, panel, k, key)), x);
    zn_lw_end(lw);
    zn_lw_end(lw);
  }
  zn_lw_end(lw);
}

static zn_expr value_panels(const zn_lw *lw, const strip *a) {
  return constant(lw, zn_round_up(a->o.dv, a->width) / a->width);
}

static zn_expr packed_value(zn_lw *lw, const strip *a, zn_expr panel, zn_expr key, zn_expr col) {
  zn_exprs *ex = lw->ex;
  zn_expr line = zn_ex_add(ex, zn_ex_muli(ex, panel, a->chunk), key);
  return zn_ex_add(ex, zn_ex_muli(ex, line, a->width), col);
}

static void pack_values(zn_lw *lw, const strip *a) {
  zn_exprs *ex = lw->ex;
  zn_expr key = zn_lw_for(lw, a->kn, ZN_FOR_SERIAL, 0),
          panel = zn_lw_for(lw, value_panels(lw, a), ZN_FOR_SERIAL, 0);
  zn_expr first = zn_gemm_tile_start(lw, panel, a->width, constant(lw, a->o.dv));
  zn_expr col = zn_lw_for(lw, constant(lw, a->width), ZN_FOR_VECTOR, 0);
  zn_kref x = element(lw, a, a->o.v, zn_ex_add(ex, a->key0, key), zn_ex_add(ex, first, col));
  zn_kb_store(&lw->kb, a->values, zn_lw_ix(lw, packed_value(lw, a, panel, key, col)), x);
  for (int i = 0; i < 3; i++) zn_lw_end(lw);
}

/* ---- scores ---- */

/* Row r of the tile, within the head; where only the run knows how many there are, the last one again behind it. */
static zn_expr row_of(zn_lw *lw, const strip *a, zn_expr r) {
  zn_expr row = zn_ex_add(lw->ex, a->first_row, r);
  if (a->o.sq >= 0) return row;
  return zn_lw_as_expr(lw, zn_lw_ix(lw, zn_ex_min(lw->ex, row, zn_ex_addi(lw->ex, a->sq, -1))),
                       a->sq);
}

static zn_expr score_at(zn_lw *lw, const strip *a, zn_expr r, zn_expr key) {
  return zn_ex_add(lw->ex, zn_ex_muli(lw->ex, r, zn_round_up(a->chunk, a->panel)), key);
}

/* f of a score, as Softmax would read it. */
static zn_kref mapped(zn_lw *lw, const strip *a, zn_kref score, zn_expr row, zn_expr key) {
  lw->over[lw->num_over].v = a->o.s;
  lw->over[lw->num_over++].k = score;
  zn_kref x = element(lw, a, a->o.x, row, key);
  lw->num_over--;
  return x;
}

/* The tile's scores in panels from .. from + count of the chunk; ragged: some keys may lie behind the last one. */
static void score_panels(zn_lw *lw, const strip *a, zn_expr from, zn_expr count, bool ragged) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const int64_t across = a->vectors * a->lanes;
  zn_expr panel = zn_ex_add(ex, from, zn_lw_for(lw, count, ZN_FOR_SERIAL, 0));
  zn_expr part = zn_lw_for(lw, constant(lw, a->panel / across), ZN_FOR_SERIAL, 0);
  zn_expr r = zn_lw_for(lw, constant(lw, a->rows), ZN_FOR_UNROLL, (unsigned)a->rows),
          row = row_of(lw, a, r);
  zn_expr u = zn_lw_for(lw, constant(lw, a->vectors), ZN_FOR_UNROLL, (unsigned)a->vectors);
  zn_expr v = zn_lw_for(lw, constant(lw, a->lanes), ZN_FOR_VECTOR, (unsigned)a->lanes);
  zn_expr col =
      zn_ex_add(ex, zn_ex_muli(ex, part, across), zn_ex_add(ex, zn_ex_muli(ex, u, a->lanes), v));
  zn_kref acc = zn_kb_var(b, zn_kb_float(b, ZN_F32, 0));
  zn_expr k = zn_lw_for(lw, constant(lw, a->o.d), ZN_FOR_SERIAL, 0);
  zn_kref q = element(lw, a, a->o.q, row, k);
  zn_kref kt = zn_kb_load(b, ZN_F32, 1, a->keys, zn_lw_ix(lw, packed_key(lw, a, panel, k, col)));
  zn_kref old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_mul_add(lw, q, kt, old));
  zn_lw_end(lw);
  zn_expr here = zn_ex_add(ex, zn_ex_muli(ex, panel, a->panel), col),
          key = zn_ex_add(ex, a->key0, here);
  zn_expr shown = ragged ? inside(lw, a, key) : key;
  zn_kref x = mapped(lw, a, zn_kb_get(b, acc), row, shown);
  if (ragged) {
    zn_kref end = zn_lw_ix(lw, a->sk), at = zn_lw_ix(lw, key);
    zn_kref before = zn_kb_cmp(b, ZN_K_Lt, at, end),
            low = zn_kb_float(b, ZN_F32, -(double)INFINITY);
    x = zn_kb_select(b, before, x, low);
  }
  zn_kb_store(b, a->scores, zn_lw_ix(lw, score_at(lw, a, r, here)), x);
  for (int i = 0; i < 5; i++) zn_lw_end(lw);
}

static void tile_scores(zn_lw *lw, const strip *a, zn_expr kn) {
  zn_exprs *ex = lw->ex;
  int64_t n;
  zn_expr full = zn_ex_divi(ex, kn, a->panel),
          rest = zn_ex_sub(ex, zn_ex_ceildiv(ex, kn, constant(lw, a->panel)), full);
  if (!zn_ex_is_const(ex, kn, &n) || n >= a->panel)
    score_panels(lw, a, constant(lw, 0), full, false);
  if (!a->even) score_panels(lw, a, full, rest, true);
}

/* ---- softmax ---- */

static zn_kref vector_at(zn_lw *lw, const strip *a, zn_kref row, zn_kref j, int64_t part) {
  return zn_i_addi(&lw->kb, zn_i_add(&lw->kb, row, j), part * a->lanes);
}

/* One number of the parts: part i with part i + half, and so on. */
static zn_kref combined(zn_lw *lw, const strip *a, const zn_kref *var, zn_kop op, zn_kop across) {
  zn_kb *b = &lw->kb;
  zn_kref p[PARTS];
  int64_t n = PARTS / a->lanes;
  for (int64_t i = 0; i < n; i++) p[i] = zn_kb_get(b, var[i]);
  for (int64_t w = n / 2; w > 0; w /= 2)
    for (int64_t i = 0; i < w; i++) p[i] = zn_kb_bin(b, op, p[i], p[i + w]);
  return zn_kb_un(b, across, p[0]);
}

static void parts_of(zn_lw *lw, const strip *a, double start, zn_kref *var) {
  zn_kb *b = &lw->kb;
  for (int64_t i = 0; i < PARTS / a->lanes; i++)
    var[i] = zn_kb_var(b, zn_kb_splat(b, zn_kb_float(b, ZN_F32, start), (unsigned)a->lanes));
}

/* The largest of the row's scores 0 .. end. */
static zn_kref largest(zn_lw *lw, const strip *a, zn_kref row, zn_kref end) {
  zn_kb *b = &lw->kb;
  zn_kref part[PARTS];
  parts_of(lw, a, -(double)INFINITY, part);
  zn_kref j = zn_kb_for(b, zn_kb_idx(b, 0), end, PARTS, ZN_FOR_SERIAL, 0);
  for (int64_t i = 0; i < PARTS / a->lanes; i++) {
    zn_kref x = zn_kb_load(b, ZN_F32, (unsigned)a->lanes, a->scores, vector_at(lw, a, row, j, i)),
            old = zn_kb_get(b, part[i]);
    zn_kb_set(b, part[i], zn_kb_bin(b, ZN_K_Max, old, x));
  }
  zn_kb_end(b);
  return combined(lw, a, part, ZN_K_Max, ZN_K_ReduceMax);
}

static zn_kref exp_of(zn_kb *b, zn_kref zero,
                      zn_kref x) { /* the Min says that it is not positive */
  return zn_kb_un(b, ZN_K_Exp, zn_kb_bin(b, ZN_K_Min, zero, x));
}

/* The scores become exponentials of their distance to `shift`; returns their sum. */
static zn_kref exponentials(zn_lw *lw, const strip *a, zn_kref row, zn_kref end, zn_kref shift) {
  zn_kb *b = &lw->kb;
  zn_kref part[PARTS], zero = zn_kb_splat(b, zn_kb_float(b, ZN_F32, 0), (unsigned)a->lanes),
                       by = zn_kb_splat(b, shift, (unsigned)a->lanes);
  parts_of(lw, a, 0, part);
  zn_kref j = zn_kb_for(b, zn_kb_idx(b, 0), end, PARTS, ZN_FOR_SERIAL, 0);
  for (int64_t i = 0; i < PARTS / a->lanes; i++) {
    zn_kref at = vector_at(lw, a, row, j, i),
            x = zn_kb_load(b, ZN_F32, (unsigned)a->lanes, a->scores, at);
    zn_kref e = exp_of(b, zero, zn_kb_bin(b, ZN_K_Sub, x, by)), old = zn_kb_get(b, part[i]);
    zn_kb_store(b, a->scores, at, e);
    zn_kb_set(b, part[i], zn_kb_bin(b, ZN_K_Add, old, e));
  }
  zn_kb_end(b);
  return combined(lw, a, part, ZN_K_Add, ZN_K_ReduceAdd);
}

/* 1 / sum; zero where the graph says that a row without keys is zero: no exponential was above zero then. */
static zn_kref inverse(zn_lw *lw, const strip *a, zn_kref sum) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_float(b, ZN_F32, 0),
          x = zn_kb_bin(b, ZN_K_Div, zn_kb_float(b, ZN_F32, 1), sum);
  if (a->o.guard[0]) return zn_kb_select(b, zn_kb_cmp(b, ZN_K_Eq, sum, zero), zero, x);
  if (zn_ex_le(lw->ex, constant(lw, 1), a->sk)) return x;
  zn_kref keys = zn_lw_ix(lw, a->sk), none = zn_kb_cmp(b, ZN_K_Eq, keys, zn_kb_idx(b, 0));
  return zn_kb_select(b, none, zero, x);
}

/* Scores of all rows of the tile become exponentials, `factor` and what is known of the rows so far is brought up to date. */
static void tile_softmax(zn_lw *lw, const strip *a, zn_expr kn) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_expr r = zn_lw_for(lw, constant(lw, a->rows), ZN_FOR_SERIAL, 0);
  zn_kref at = zn_lw_ix(lw, r),
          slot = zn_lw_ix(lw, zn_ex_add(ex, zn_ex_muli(ex, a->tile, a->rows), r));
  zn_kref row = zn_lw_ix(lw, score_at(lw, a, r, constant(lw, 0)));
  zn_kref end =
      zn_lw_ix(lw, zn_ex_muli(ex, zn_ex_ceildiv(ex, kn, constant(lw, a->panel)), a->panel));
  zn_kref zero = zn_kb_float(b, ZN_F32, 0), low = zn_kb_float(b, ZN_F32, -(double)INFINITY),
          before = 0;
  zn_kref top = a->limits.kind ? zn_kb_load(b, ZN_F32, 1, a->top, slot) : largest(lw, a, row, end);
  if (!a->whole) {
    before = zn_kb_load(b, ZN_F32, 1, a->top, slot);
    top = zn_kb_bin(b, ZN_K_Max, before, top);
    zn_kb_store(b, a->top, slot, top);
  }
  zn_kref shift = zn_kb_select(b, zn_kb_cmp(b, ZN_K_Eq, top, low), zero,
                               top); /* nothing visible yet: all exponentials are 0 */
  zn_kref sum = exponentials(lw, a, row, end, shift);
  if (a->whole) {
    zn_kb_store(b, a->factor, at, inverse(lw, a, sum));
  } else {
    zn_kref factor = exp_of(b, zero, zn_kb_bin(b, ZN_K_Sub, before, shift)),
            old = zn_kb_load(b, ZN_F32, 1, a->sum, slot);
    zn_kb_store(b, a->factor, at, factor);
    zn_kb_store(b, a->sum, slot, zn_kb_fma(b, old, factor, sum));
  }
  zn_lw_end(lw);
}

/* ---- values ---- */

static void hand_out(zn_lw *lw, const strip *a, zn_expr row, zn_expr col, zn_kref x) {
  zn_expr i[ZN_MAX_RANK];
  for (int d = 0; d < a->rank - 2; d++) i[d] = a->batch[d];
  i[a->rank - 2] = row;
  i[a->rank - 1] = col;
  zn_lw_emit(lw, a->y, i, x);
}

static void tile_values(zn_lw *lw, const strip *a, zn_expr kn) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_expr panel = zn_lw_for(lw, value_panels(lw, a), ZN_FOR_SERIAL, 0);
  zn_expr first = zn_gemm_tile_start(lw, panel, a->width, constant(lw, a->o.dv));
  zn_expr r = zn_lw_for(lw, constant(lw, a->rows), ZN_FOR_UNROLL, (unsigned)a->rows),
          row = row_of(lw, a, r);
  zn_expr u = zn_lw_for(lw, constant(lw, a->vectors), ZN_FOR_UNROLL, (unsigned)a->vectors);
  zn_expr v = zn_lw_for(lw, constant(lw, a->lanes), ZN_FOR_VECTOR, (unsigned)a->lanes);
  zn_expr col = zn_ex_add(ex, zn_ex_muli(ex, u, a->lanes), v),
          slot = zn_ex_add(ex, zn_ex_muli(ex, a->tile, a->rows), r);
  zn_kref factor = zn_kb_load(b, ZN_F32, 1, a->factor, zn_lw_ix(lw, r)),
          start = zn_kb_float(b, ZN_F32, 0), cell = 0;
  if (!a->whole) {
    zn_expr at = zn_ex_add(ex, zn_ex_mul(ex, slot, value_panels(lw, a)), panel);
    cell = zn_lw_ix(lw, zn_ex_add(ex, zn_ex_muli(ex, at, a->width), col));
    zn_kref old = zn_kb_load(b, ZN_F32, 1, a->result, cell);
    start = zn_kb_bin(b, ZN_K_Mul, old, factor);
  }
  zn_kref acc = zn_kb_var(b, start);
  zn_expr key = zn_lw_for(lw, kn, ZN_FOR_SERIAL, 0);
  zn_kref p = zn_kb_load(b, ZN_F32, 1, a->scores, zn_lw_ix(lw, score_at(lw, a, r, key)));
  zn_kref x = zn_kb_load(b, ZN_F32, 1, a->values,
                         zn_lw_ix(lw, packed_value(lw, a, panel, key, col))),
          old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_mul_add(lw, p, x, old));
  zn_lw_end(lw);
  zn_kref total = zn_kb_get(b, acc);
  zn_expr to = zn_ex_add(ex, first, col);
  if (a->whole) {
    hand_out(lw, a, row, to, zn_kb_bin(b, ZN_K_Mul, total, factor));
  } else {
    zn_kref sum = zn_kb_load(b, ZN_F32, 1, a->sum, zn_lw_ix(lw, slot));
    zn_kref left = zn_lw_ix(lw, a->last), none = zn_kb_idx(b, 0);
    zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, left, none));
    hand_out(lw, a, row, to, zn_kb_bin(b, ZN_K_Mul, total, inverse(lw, a, sum)));
    zn_kb_else(b);
    zn_kb_store(b, a->result, cell, total);
    zn_kb_end(b);
  }
  for (int i = 0; i < 4; i++) zn_lw_end(lw);
}

/* ---- what a constant mask hides ---- */

/* Is v the number that f gives for what a mask hides? */
static bool hides(zn_lw *lw, zn_vid v, double *out) {
  const zn_htensor *h = zn_lw_cst(lw, v);
  if (!h || !h->data || !zn_is_float(h->dtype) || zn_htensor_count(h) != 1) return false;
  *out = zn_load_f64(h->dtype, h->data, 0);
  return *out < -1e30;
}

/* seen[row]: keys up to the last visible one, from a mask that broadcasts to the scores. */
static void count_visible(const zn_htensor *mask, bool visible, int64_t sq, int64_t sk,
                          int64_t *seen) {
  const uint8_t *m = mask->data;
  int64_t across = mask->rank ? mask->dims[mask->rank - 1] : 1,
          down = mask->rank > 1 ? mask->dims[mask->rank - 2] : 1;
  for (uint64_t i = 0; i < zn_htensor_count(mask); i++) {
    if ((m[i] != 0) != visible) continue;
    int64_t col = across == 1 ? sk : (int64_t)(i % (uint64_t)across) + 1,
            row = (int64_t)(i / (uint64_t)across % (uint64_t)down);
    for (int64_t r = down == 1 ? 0 : row; r < (down == 1 ? sq : row + 1); r++)
      if (seen[r] < col) seen[r] = col;
  }
}

static int64_t start_of(const strip *a, int64_t tile) {
  int64_t at = tile * a->rows;
  return at > a->o.sq - a->rows ? a->o.sq - a->rows : at;
}

/* limits: how many keys each row tile looks at, where f is a selection by a constant mask. What it leaves out weighs
 * nothing as long as each row's maximum lies above the hidden number by more than exponentials can express; a tile in which
 * that is not so is computed again with all keys. */
static void find_limits(zn_lw *lw, strip *a) {
  const zn_node *f = zn_lw_node(lw, lw->g->vals[a->o.x].def);
  if (f->op != ZN_OP_Where || !a->whole || a->o.sq < 0) return;
  const zn_htensor *mask = zn_lw_cst(lw, f->in[0]);
  bool second = hides(lw, f->in[2], &a->hidden);
  if (!mask || !mask->data || mask->dtype != ZN_BOOL ||
      (!second && !hides(lw, f->in[1], &a->hidden)))
    return;
  int64_t tiles = (a->o.sq + a->rows - 1) / a->rows, total = 0;
  int64_t *seen = ZN_ARRAY(lw->arena, int64_t, a->o.sq);
  int32_t *table = ZN_ARRAY(lw->arena, int32_t, tiles);
  count_visible(mask, second, a->o.sq, a->o.sk, seen);
  for (int64_t t = 0; t < tiles; t++) {
    int64_t most = 1;
    for (int64_t r = 0; r < a->rows; r++)
      if (seen[start_of(a, t) + r] > most) most = seen[start_of(a, t) + r];
    most = zn_round_up(most, a->panel);
    table[t] = (int32_t)(most < a->o.sk ? most : a->o.sk);
    total += table[t];
  }
  if (total < tiles * a->o.sk)
    a->limits = zn_lw_const(lw, "attention_keys", ZN_I32, (uint64_t)tiles, table);
}

/* Scores of the tile and its rows' maxima, in `top`; returns how many keys they are of. */
static zn_expr limited_scores(zn_lw *lw, const strip *a, zn_expr number) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const zn_expr extent = zn_ex_addi(ex, a->sk, 1);
  zn_kref table = zn_lw_ptr_loc(lw, a->limits, ZN_KP_IN, ZN_I32), all = zn_kb_idx(b, a->o.sk);
  zn_kref seen = zn_kb_var(b, zn_kb_cvt(b, zn_lw_load_at(lw, table, ZN_I32, number), ZN_IDX));
  zn_kb_loop(b);
  zn_kref n = zn_kb_get(b, seen);
  zn_expr kn = zn_lw_as_expr(lw, n, extent);
  tile_scores(lw, a, kn);
  zn_kref least = zn_kb_var(b, zn_kb_float(b, ZN_F32, (double)INFINITY));
  zn_kref end =
      zn_lw_ix(lw, zn_ex_muli(ex, zn_ex_ceildiv(ex, kn, constant(lw, a->panel)), a->panel));
  zn_expr r = zn_lw_for(lw, constant(lw, a->rows), ZN_FOR_SERIAL, 0);
  zn_kref top = largest(lw, a, zn_lw_ix(lw, score_at(lw, a, r, constant(lw, 0))), end),
          old = zn_kb_get(b, least);
  zn_kb_store(b, a->top, zn_lw_ix(lw, zn_ex_add(ex, zn_ex_muli(ex, a->tile, a->rows), r)), top);
  zn_kb_set(b, least, zn_kb_bin(b, ZN_K_Min, old, top));
  zn_lw_end(lw);
  zn_kref lowest = zn_kb_get(b, least), hidden = zn_kb_float(b, ZN_F32, a->hidden),
          none = zn_kb_float(b, ZN_F32, NEGLIGIBLE);
  zn_kref enough = zn_kb_cmp(b, ZN_K_Gt, zn_kb_bin(b, ZN_K_Sub, lowest, hidden), none),
          had = zn_kb_cmp(b, ZN_K_Eq, n, all);
  zn_kb_break(b, zn_kb_bin(b, ZN_K_Or, enough, had));
  zn_kb_set(b, seen, all);
  zn_kb_end(b);
  return zn_lw_as_expr(lw, zn_kb_get(b, seen), extent);
}

/* ---- the kernel ---- */

/* Rows of a register tile: as many as there are registers for, or a few less where more of them are then of use. */
static int64_t choose_rows(zn_lw *lw, const strip *a, zn_nid n) {
  static const double speed[] = {0,   0.2,  0.35, 0.45, 0.55, 0.62,
                                 0.7, 0.78, 0.85, 0.9,  0.94, 0.96}; /* by accumulators */
  int64_t best = 1, most = ((int64_t)lw->caps->vector_regs - a->vectors - 1) / a->vectors,
          choices[16];
  uint32_t num = 0;
  double top = 0;
  if (most > 12) most = 12;
  for (int64_t r = most; r > 0; r--) {
    if (a->o.sq >= 0 && r > a->o.sq) continue;
    int64_t acc = r * a->vectors;
    double useful = a->o.sq < 0 ? 1 : (double)a->o.sq / (double)zn_round_up(a->o.sq, r);
    double score = useful * (acc < 12 ? speed[acc] : 0.98 + 0.001 * (double)acc);
    choices[num++] = r;
    if (score > top) top = score, best = r;
  }
  return zn_lw_knob(lw, n, "rows", best, choices,
                    num > ZN_KNOB_MAX_CHOICES ? ZN_KNOB_MAX_CHOICES : num);
}

static void divide(zn_lw *lw, strip *a, zn_nid n) {
  const int64_t sq = a->o.sq, sk = a->o.sk;
  a->lanes = zn_lw_lanes(lw, ZN_F32);
  a->vectors = a->o.dv >= 2 * a->lanes ? 2 : 1;
  a->rows = choose_rows(lw, a, n);
  a->width = a->vectors * a->lanes;
  a->panel = a->width > PARTS ? a->width : PARTS;
  static const int64_t shares[] = {1, 2, 4, 8}; /* quarters of PACKED */
  int64_t share = zn_lw_knob(lw, n, "keys", 4, shares, 4);
  int64_t l2 = lw->caps->l2_bytes ? (int64_t)lw->caps->l2_bytes : 262144,
          sixteenth = (l2 < MOST_CACHE ? l2 : MOST_CACHE) / 16;
  int64_t most =
      PACKED * sixteenth / 4 * share / (4 * (a->o.d + a->o.dv + a->rows)) / a->panel * a->panel;
  if (most < a->panel) most = a->panel;
  a->whole = sk >= 0 && sk <= most;
  a->chunk = a->whole ? sk : most;
  int64_t chunks = (sk + most - 1) / most;
  if (!a->whole && sk >= 0) a->chunk = zn_round_up((sk + chunks - 1) / chunks, a->panel);
  a->even = sk >= 0 && sk % a->panel == 0;
  int64_t batches = 1, d, line = zn_round_up(a->o.dv, a->width) * 4;
  for (int i = 0; i < a->rank - 2; i++)
    if (zn_ex_is_const(lw->ex, zn_lw_dim(lw, a->o.q, i), &d) && d > 0) batches *= d;
  a->tiles = (LATE_ROWS + a->rows - 1) / a->rows;
  static const int64_t parts[] = {1, MIN_GRID, 4 * MIN_GRID};
  int64_t grid = zn_lw_knob(lw, n, "grid", MIN_GRID, parts, 3),
          blocks = batches < grid ? (grid + batches - 1) / batches : 1;
  if (sq >= 0) a->tiles = ((sq + a->rows - 1) / a->rows + blocks - 1) / blocks;
  if (!a->whole && a->tiles * a->rows * line > RESULT * sixteenth)
    a->tiles =
        RESULT * sixteenth / (a->rows * line) > 0 ? RESULT * sixteenth / (a->rows * line) : 1;
}

static void allocate(zn_lw *lw, strip *a) {
  zn_kb *b = &lw->kb;
  int64_t keys = zn_round_up(a->chunk, a->panel), columns = zn_round_up(a->o.dv, a->width),
          rows = a->tiles * a->rows;
  a->keys = zn_kb_alloc(b, ZN_F32, (uint64_t)(keys * a->o.d));
  a->values = zn_kb_alloc(b, ZN_F32, (uint64_t)(a->chunk * columns));
  a->scores = zn_kb_alloc(b, ZN_F32, (uint64_t)(a->rows * keys));
  a->factor = zn_kb_alloc(b, ZN_F32, (uint64_t)a->rows);
  a->squares = a->o.d % a->lanes == 0 && zn_attend_runs_along(lw, a->o.kt, a->rank - 2, a->lanes);
  if (a->squares && is_mapped(lw, a->o.kt)) a->square = zn_kb_alloc(b, ZN_F32, (uint64_t)a->lanes);
  if (!a->whole || a->limits.kind) a->top = zn_kb_alloc(b, ZN_F32, (uint64_t)rows);
  if (a->whole) return;
  a->sum = zn_kb_alloc(b, ZN_F32, (uint64_t)rows);
  a->result = zn_kb_alloc(b, ZN_F32, (uint64_t)(rows * columns));
}

/* Nothing seen of any row. */
static void forget(zn_lw *lw, const strip *a) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_float(b, ZN_F32, 0), low = zn_kb_float(b, ZN_F32, -(double)INFINITY);
  zn_kref slot = zn_lw_ix(lw, zn_lw_for(lw, constant(lw, a->tiles * a->rows), ZN_FOR_VECTOR, 0));
  zn_kb_store(b, a->top, slot, low);
  zn_kb_store(b, a->sum, slot, zero);
  zn_lw_end(lw);
  zn_kref at =
      zn_lw_ix(lw, zn_lw_for(lw, constant(lw, a->tiles * a->rows * zn_round_up(a->o.dv, a->width)),
                             ZN_FOR_VECTOR, 0));
  zn_kb_store(b, a->result, at, zero);
  zn_lw_end(lw);
}

static void tile_body(zn_lw *lw, strip *a, zn_expr tiles) {
  zn_exprs *ex = lw->ex;
  zn_expr before = zn_ex_muli(ex, a->block, a->tiles), kn = a->kn;
  zn_expr left = zn_ex_sub(ex, tiles, before);
  a->tile = zn_lw_for(lw, zn_ex_min(ex, constant(lw, a->tiles), left), ZN_FOR_SERIAL, 0);
  zn_expr number = zn_ex_add(ex, before, a->tile);
  a->first_row = a->o.sq >= 0 ? zn_gemm_tile_start(lw, number, a->rows, a->sq)
                              : zn_ex_muli(ex, number, a->rows);
  if (a->limits.kind) kn = limited_scores(lw, a, number);
  else tile_scores(lw, a, kn);
  tile_softmax(lw, a, kn);
  tile_values(lw, a, kn);
  zn_lw_end(lw);
}

zn_status zn_lower_attend_strip(zn_lw *lw, zn_nid n) {
  zn_exprs *ex = lw->ex;
  strip a = {.y = zn_lw_node(lw, n)->out[0]};
  if (!zn_attend_find(lw->g, zn_graph_uses(lw->g, lw->arena), lw->caps, n, &a.o))
    ZN_BUG(lw->ctx, "%s: no attention after all", zn_node_where(lw->ctx, zn_lw_node(lw, n)));
  a.rank = zn_lw_type(lw, a.o.q)->rank;
  a.sq = zn_lw_dim(lw, a.o.q, a.rank - 2);
  a.sk = zn_lw_dim(lw, a.o.kt, a.rank - 1);
  divide(lw, &a, n);
  find_limits(lw, &a);
  zn_lw_kernel(lw, n, "attention");
  allocate(lw, &a);
  zn_expr extents[ZN_MAX_RANK], var[ZN_MAX_RANK],
      tiles = zn_ex_ceildiv(ex, a.sq, constant(lw, a.rows));
  for (int d = 0; d < a.rank - 2; d++) extents[d] = zn_lw_dim(lw, a.o.q, d);
  extents[a.rank - 2] = zn_ex_ceildiv(ex, tiles, constant(lw, a.tiles));
  zn_lw_grid(lw, (uint32_t)a.rank - 1, extents, var);
  for (int d = 0; d < a.rank - 2; d++) a.batch[d] = var[d];
  a.block = var[a.rank - 2];
  if (!a.whole) forget(lw, &a);
  zn_expr chunks =
      a.whole ? constant(lw, 1)
              : zn_ex_max(ex, constant(lw, 1), zn_ex_ceildiv(ex, a.sk, constant(lw, a.chunk)));
  zn_expr chunk = zn_lw_for(lw, chunks, ZN_FOR_SERIAL, 0);
  a.key0 = zn_ex_muli(ex, chunk, a.chunk);
  a.kn = a.whole ? a.sk : zn_ex_min(ex, constant(lw, a.chunk), zn_ex_sub(ex, a.sk, a.key0));
  a.last = zn_ex_sub(ex, zn_ex_addi(ex, chunks, -1), chunk);
  pack_keys(lw, &a);
  pack_values(lw, &a);
  tile_body(lw, &a, tiles);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
