/* Matrix products by producers and consumers (GroupMma's targets). Four warps keep the slots of shared memory filled: rows of A
 * by asynchronous copies, whole tiles of packed weights by one bulk copy a step; signals say when a slot is full and when it is
 * empty. One or two groups of four warps do nothing but multiply, and finish tiles: while one block or group runs the epilogue,
 * the other one multiplies, and the next tile's slots fill. A block takes one tile after another, in an order in which those of
 * all blocks at work share rows and columns. Results pass through a piece of shared memory that belongs to the warp. */
#include "codegen/lower/gemm_simt.h"
#include "codegen/lower/index.h"

/* GROUP: threads; PIECE: columns that a warp hands out at once; PITCH: their row in words; RUN: results of a thread at once */
enum { GROUP = 128, WARP = 32, PIECE = 32, PITCH = PIECE + 8, RUN = 8, STEP = 64, ROWS = 64, SPREAD = 16 };

typedef zn_gs_tile tile;

typedef struct flow {
  zn_lw *lw;
  tile *t;
  unsigned groups, per;         /* of consumers; products of a group a step */
  zn_kref full, empty, staging; /* signals of the slots; words of the warps */
  zn_kref first, tiles;         /* the block's first tile; how many there are */
  int64_t blocks;               /* that take them */
  zn_kref slot, turn;           /* variables: the slot in use and the turn of its signals */
} flow;

uint64_t zn_gs_stream_extra(unsigned groups) { return (uint64_t)groups * GROUP / WARP * 16 * PITCH * 4; }

/* ---- places ---- */

static zn_expr ceil_of(zn_lw *lw, zn_expr e, int64_t d) { return zn_ex_ceildiv(lw->ex, e, zn_ex_const(lw->ex, d)); }

/* Rows of tiles that neighbours take before they go to the next column. */
static int64_t spread_of(zn_lw *lw, zn_expr rows) {
  int64_t n, best = 0;
  if (!zn_ex_is_const(lw->ex, rows, &n)) return 0;
  for (int64_t d = 1; d <= SPREAD && d <= n; d++)
    if (n % d == 0) best = d;
  return best >= SPREAD / 2 ? best : 0;
}

static void split(zn_kb *b, zn_kref x, zn_kref by, zn_kref *quotient, zn_kref *rest) {
  *quotient = zn_kb_bin(b, ZN_K_Div, x, by);
  *rest = zn_kb_bin(b, ZN_K_Rem, x, by);
}

/* Where tile number i lies: part, batch, row and column. */
static void place_tile(const flow *f, zn_kref i) {
  zn_lw *lw = f->lw;
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  tile *t = f->t;
  const zn_gemm *g = t->g;
  zn_expr rows = ceil_of(lw, g->m, t->s.bm), cols = ceil_of(lw, g->n, t->s.bn);
  zn_kref in_plane, rest, row, col, high = zn_lw_ix(lw, rows), wide = zn_lw_ix(lw, cols);
  split(b, i, zn_lw_ix(lw, zn_ex_mul(ex, rows, cols)), &rest, &in_plane);
  int64_t spread = spread_of(lw, rows);
  if (spread) {
    zn_kref band, inside;
    split(b, in_plane, zn_i_muli(b, wide, spread), &band, &inside);
    zn_kref start = zn_i_muli(b, band, spread);
    row = zn_i_add(b, start, zn_i_remi(b, inside, spread));
    col = zn_i_divi(b, inside, spread);
  } else {
    split(b, in_plane, high, &col, &row);
  }
  for (uint32_t k = g->num_batch; k-- > 0;) {
    zn_kref at;
    split(b, rest, zn_lw_ix(lw, g->batch[k]), &rest, &at);
    t->batch[k] = zn_lw_as_expr(lw, at, g->batch[k]);
  }
  t->part = zn_lw_as_expr(lw, rest, zn_ex_const(ex, t->parts));
  t->row0 = zn_ex_muli(ex, zn_lw_as_expr(lw, row, rows), t->s.bm);
  t->col0 = zn_ex_muli(ex, zn_lw_as_expr(lw, col, cols), t->s.bn);
  zn_gs_set_depth(lw, t);
}

static zn_kref signal_at(zn_kb *b, zn_kref signals, zn_kref slot) { return zn_kb_ptradd(b, signals, zn_i_muli(b, slot, 8)); }

static int64_t slot_bytes(const tile *t) { return (int64_t)(t->s.bm + t->s.bn) * STEP * 2; }

static zn_kref slot_of(const flow *f, zn_kref slot, bool is_a) {
  zn_kb *b = &f->lw->kb;
  return zn_kb_ptradd(b, is_a ? f->t->sa : f->t->sb, zn_i_muli(b, slot, slot_bytes(f->t)));
}

/* On to the next slot, behind the last one to the first one's next turn. */
static void advance(const flow *f) {
  zn_kb *b = &f->lw->kb;
  zn_kref next = zn_i_addi(b, zn_kb_get(b, f->slot), 1), last = zn_kb_cmp(b, ZN_K_Eq, next, zn_kb_idx(b, f->t->stages));
  zn_kref turn = zn_kb_get(b, f->turn), then = zn_i_addi(b, turn, 1);
  zn_kb_set(b, f->slot, zn_kb_select(b, last, zn_kb_idx(b, 0), next));
  zn_kb_set(b, f->turn, zn_kb_select(b, last, then, turn));
}

/* ---- producers ---- */

/* The weights of the step at k0, by one thread. */
static void send_weights(const flow *f, zn_kref slot, zn_kref k0) {
  zn_lw *lw = f->lw;
  zn_kb *b = &lw->kb;
  const tile *t = f->t;
  const int64_t bytes = (int64_t)t->s.bn * STEP * 2;
  zn_kref from = zn_lw_ptr_loc(lw, t->g->panels, ZN_KP_IN, t->g->panel_dtype), signal = signal_at(b, f->full, slot);
  zn_kref element = zn_gs_tile_element(lw, t->g, k0, zn_lw_ix(lw, t->col0));
  zn_kb_signal_arrive(b, signal, bytes);
  from = zn_kb_ptradd(b, from, zn_i_muli(b, element, 2));
  zn_kb_bulk_copy(b, slot_of(f, slot, false), from, bytes, signal);
}

/* Weights depend on no kernel: the first tile's, as far as there is room, set out before the wait for those. Returns how many. */
static zn_kref send_first(const flow *f) {
  zn_lw *lw = f->lw;
  zn_kb *b = &lw->kb;
  const tile *t = f->t;
  place_tile(f, f->first);
  zn_kref begin = zn_lw_ix(lw, t->k_begin), end = zn_lw_ix(lw, t->k_end);
  zn_kref steps = zn_i_divi(b, zn_i_addi(b, zn_kb_bin(b, ZN_K_Sub, end, begin), STEP - 1), STEP);
  zn_kref many = zn_kb_bin(b, ZN_K_Min, steps, zn_kb_idx(b, t->stages));
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, t->thread, zn_kb_idx(b, (int64_t)f->groups * GROUP)));
  zn_kref s = zn_kb_for(b, zn_kb_idx(b, 0), many, 1, ZN_FOR_SERIAL, 0);
  send_weights(f, s, zn_i_add(b, begin, zn_i_muli(b, s, STEP)));
  zn_kb_end(b);
  zn_kb_end(b);
  return many;
}

/* The block's tiles, one after the other; closed by the caller. */
static void open_tiles(const flow *f) {
  zn_kb *b = &f->lw->kb;
  place_tile(f, zn_kb_for(b, f->first, f->tiles, f->blocks, ZN_FOR_SERIAL, 0));
}

static zn_kref open_steps(const flow *f) {
  zn_lw *lw = f->lw;
  zn_kref begin = zn_lw_ix(lw, f->t->k_begin), end = zn_lw_ix(lw, f->t->k_end);
  return zn_kb_for(&lw->kb, begin, end, STEP, ZN_FOR_SERIAL, 0);
}

/* sent: steps whose weights are on their way already. */
static void produce(const flow *all, zn_kref sent) {
  zn_kb *b = &all->lw->kb;
  tile own = *all->t;
  flow f = *all;
  zn_kref none = zn_kb_idx(b, 0);
  f.t = &own;
  own.thread = zn_i_remi(b, own.thread, GROUP);
  own.threads = GROUP;
  f.slot = zn_kb_var(b, none);
  f.turn = zn_kb_var(b, zn_kb_idx(b, -1));
  zn_kref count = zn_kb_var(b, none);
  open_tiles(&f);
  zn_kref k0 = open_steps(&f), slot = zn_kb_get(b, f.slot), done = zn_kb_get(b, count);
  zn_kref turn = zn_kb_get(b, f.turn);
  zn_kb_signal_wait(b, signal_at(b, f.empty, slot), turn);
  zn_kref leader = zn_kb_cmp(b, ZN_K_Eq, own.thread, none), fresh = zn_kb_cmp(b, ZN_K_Ge, done, sent);
  zn_kb_if(b, zn_kb_bin(b, ZN_K_And, leader, fresh));
  send_weights(&f, slot, k0);
  zn_kb_end(b);
  zn_gs_fetch(all->lw, &own, true, slot, k0);
  zn_kb_async_arrive(b, signal_at(b, f.full, slot));
  zn_kb_set(b, count, zn_i_addi(b, done, 1));
  advance(&f);
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_statement(b, ZN_K_AsyncGroup);
  zn_kb_async_wait(b, 0);
}

/* ---- consumers ---- */

/* The warp tells that it has read `slot`. */
static void give_back(const flow *f, zn_kref lane, zn_kref slot) {
  zn_kb *b = &f->lw->kb;
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, lane, zn_kb_idx(b, 0)));
  zn_kb_signal_arrive(b, signal_at(b, f->empty, slot), 0);
  zn_kb_end(b);
}

/* The group's products of a step; those of the step before are then done. */
static void multiply(const flow *f, zn_kref group, zn_kref slot) {
  zn_kb *b = &f->lw->kb;
  const tile *t = f->t;
  zn_kref cols = slot_of(f, slot, false), rows = slot_of(f, slot, true);
  rows = zn_kb_ptradd(b, rows, zn_i_muli(b, group, (int64_t)t->s.tm * STEP * 2));
  for (unsigned i = 0; i < f->per; i++) {
    zn_kref from = zn_kb_ptradd(b, rows, zn_kb_idx(b, (int64_t)i * ROWS * STEP * 2)), sum = zn_kb_get(b, t->acc[i]);
    zn_kb_set(b, t->acc[i], zn_kb_groupmma(b, from, cols, sum, t->format, f->per));
  }
}

/* Piece number `piece` of the warp's sums to its memory. Sums are in registers, so each piece has code of its own. */
static void put_piece(const flow *f, zn_kref lane, zn_kref piece) {
  zn_kb *b = &f->lw->kb;
  const tile *t = f->t;
  unsigned across = t->s.bn / PIECE;
  zn_kref none = zn_kb_splat(b, zn_kb_float(b, ZN_F32, 0), 2);
  zn_kref at = zn_i_muli(b, zn_i_divi(b, lane, 4), PITCH);
  at = zn_i_add(b, at, zn_i_muli(b, zn_i_remi(b, lane, 4), 2));
  for (unsigned p = 0; p < across * f->per; p++) {
    zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, piece, zn_kb_idx(b, p)));
    zn_kref sums = zn_kb_get(b, t->acc[p / across]);
    for (unsigned half = 0; half < 2; half++)
      for (unsigned j = 0; j < PIECE / 8; j++) {
        unsigned e = (p % across * (PIECE / 8) + j) * 4 + half * 2;
        zn_kref low = zn_kb_extract(b, sums, e), high = zn_kb_extract(b, sums, e + 1);
        zn_kref pair = zn_kb_insert(b, zn_kb_insert(b, none, low, 0), high, 1);
        zn_kb_store(b, f->staging, zn_i_addi(b, at, half * 8 * PITCH + j * 8), pair);
      }
    zn_kb_end(b);
  }
}

/* The warp's sums to the epilogue, piece by piece; row: its first one of the tile. */
static void finish_tile(const flow *f, zn_kref row, zn_kref lane) {
  zn_lw *lw = f->lw;
  zn_kb *b = &lw->kb;
  const tile *t = f->t;
  int64_t across = t->s.bn / PIECE, runs = PIECE / RUN, turns = 16 * runs / WARP;
  zn_kref none = zn_kb_idx(b, 0), pieces = zn_kb_idx(b, across * f->per), piece = zn_kb_for(b, none, pieces, 1, ZN_FOR_SERIAL, 0);
  zn_kb_statement(b, ZN_K_Meet); /* the piece before is read */
  put_piece(f, lane, piece);
  zn_kb_statement(b, ZN_K_Meet);
  zn_kref last = zn_kb_idx(b, turns), turn = zn_kb_for(b, none, last, 1, ZN_FOR_SERIAL, 0);
  zn_kref i = zn_i_add(b, zn_i_muli(b, turn, WARP), lane), r = zn_i_divi(b, i, runs);
  zn_kref c = zn_i_muli(b, zn_i_remi(b, i, runs), RUN), at = zn_i_add(b, zn_i_muli(b, r, PITCH), c);
  r = zn_i_add(b, r, row);
  r = zn_i_add(b, r, zn_i_muli(b, zn_i_divi(b, piece, across), ROWS));
  c = zn_i_add(b, c, zn_i_muli(b, zn_i_remi(b, piece, across), PIECE));
  r = zn_i_add(b, zn_lw_ix(lw, t->row0), r);
  c = zn_i_add(b, zn_lw_ix(lw, t->col0), c);
  zn_gs_finish_run(lw, t, r, c, f->staging, at, RUN);
  zn_kb_end(b);
  zn_kb_end(b);
}

static void consume(const flow *all) {
  zn_lw *lw = all->lw;
  zn_kb *b = &lw->kb;
  flow f = *all;
  tile *t = f.t;
  zn_kref group = zn_i_divi(b, t->thread, GROUP), warp = zn_i_divi(b, t->thread, WARP), lane = zn_i_remi(b, t->thread, WARP);
  zn_kref row = zn_i_muli(b, group, t->s.tm);
  row = zn_i_add(b, row, zn_i_muli(b, zn_i_remi(b, warp, GROUP / WARP), 16));
  zn_kref none = zn_kb_idx(b, 0), zero = zn_kb_splat(b, zn_kb_float(b, ZN_F32, 0), t->s.bn / 2u);
  f.staging = zn_kb_ptradd(b, f.staging, zn_i_muli(b, warp, 16 * PITCH * 4));
  f.slot = zn_kb_var(b, none);
  f.turn = zn_kb_var(b, none);
  zn_kref before = zn_kb_var(b, none);
  for (unsigned i = 0; i < f.per; i++) t->acc[i] = zn_kb_var(b, zero);
  open_tiles(&f);
  for (unsigned i = 0; i < f.per; i++) zn_kb_set(b, t->acc[i], zero);
  zn_kref k0 = open_steps(&f), slot = zn_kb_get(b, f.slot), turn = zn_kb_get(b, f.turn);
  zn_kb_signal_wait(b, signal_at(b, f.full, slot), turn);
  zn_kb_statement(b, ZN_K_AsyncShare);
  multiply(&f, group, slot);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Gt, k0, zn_lw_ix(lw, t->k_begin)));
  give_back(&f, lane, zn_kb_get(b, before));
  zn_kb_end(b);
  zn_kb_set(b, before, slot);
  advance(&f);
  zn_kb_end(b);
  for (unsigned i = 0; i < f.per; i++) zn_kb_set(b, t->acc[i], zn_kb_groupwait(b, zn_kb_get(b, t->acc[i])));
  give_back(&f, lane, zn_kb_get(b, before));
  finish_tile(&f, row, lane);
  zn_kb_end(b);
}

/* ---- the kernel ---- */

/* Registers that a producer needs, and what is left to each consumer when `blocks` blocks share a multiprocessor. */
static unsigned producer_registers(const zn_gemm *g) { return g->spot ? 96 : 56; }

static unsigned consumer_registers(const zn_gemm *g, unsigned groups, unsigned blocks) {
  unsigned each = 65536 / (blocks * (groups + 1) * GROUP) / 8 * 8;
  unsigned most = (each * (groups + 1) - producer_registers(g)) / groups / 8 * 8;
  return most < 240 ? most : 240;
}

static void team_body(flow *f) {
  zn_lw *lw = f->lw;
  zn_kb *b = &lw->kb;
  tile *t = f->t;
  zn_kref none = zn_kb_idx(b, 0), slots = zn_kb_idx(b, t->stages);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, t->thread, none));
  zn_kref s = zn_kb_for(b, none, slots, 1, ZN_FOR_SERIAL, 0);
  zn_kb_signal_set(b, signal_at(b, f->full, s), GROUP + 1);
  zn_kb_signal_set(b, signal_at(b, f->empty, s), (int64_t)f->groups * GROUP / WARP);
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_statement(b, ZN_K_Barrier);
  zn_kref sent = send_first(f);
  zn_kb_statement(b, ZN_K_Await);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Ge, t->thread, zn_kb_idx(b, (int64_t)f->groups * GROUP)));
  zn_kb_registers(b, -(int64_t)producer_registers(t->g));
  produce(f, sent);
  zn_kb_else(b);
  zn_kb_registers(b, consumer_registers(t->g, f->groups, t->blocks));
  consume(f);
  zn_kb_end(b);
}

void zn_gs_stream(zn_lw *lw, tile *t) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  const zn_gemm *g = t->g;
  flow f = {.lw = lw, .t = t, .groups = t->s.bm / t->s.tm, .per = t->s.tm / ROWS};
  unsigned cores = lw->caps->cores ? lw->caps->cores : 64;
  f.blocks = (int64_t)cores * t->blocks;
  zn_expr across = ceil_of(lw, g->n, t->s.bn), total = zn_ex_mul(ex, ceil_of(lw, g->m, t->s.bm), across), at;
  total = zn_ex_muli(ex, total, t->parts);
  for (uint32_t i = 0; i < g->num_batch; i++) total = zn_ex_mul(ex, total, g->batch[i]);
  zn_expr grid = zn_ex_min(ex, total, zn_ex_const(ex, f.blocks));
  zn_lw_kernel(lw, g->node, g->hint);
  lw->kb.f->blocks = (uint16_t)t->blocks;
  t->sa = zn_kb_alloc(b, ZN_F32, (uint64_t)slot_bytes(t) * t->stages / 4);
  t->sb = zn_kb_ptradd(b, t->sa, zn_kb_idx(b, (int64_t)t->s.bm * STEP * 2));
  f.staging = zn_kb_alloc(b, ZN_F32, zn_gs_stream_extra(f.groups) / 4);
  f.full = zn_kb_alloc(b, ZN_U64, 2ull * t->stages);
  f.empty = zn_kb_ptradd(b, f.full, zn_kb_idx(b, 8 * (int64_t)t->stages));
  zn_lw_grid(lw, 1, &grid, &at);
  zn_kref none = zn_kb_idx(b, 0), end = zn_kb_idx(b, t->threads);
  t->thread = zn_kb_for(b, none, end, 1, ZN_FOR_THREAD, t->threads);
  f.first = zn_lw_ix(lw, at);
  f.tiles = zn_lw_ix(lw, total);
  team_body(&f);
  zn_kb_end(b);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}
