/* softmax(f(Q K'))V of f32 in one kernel by single threads. A block keeps up to 64 rows of Q in shared memory while tiles of K
 * and V pass through it (online softmax, as in attend.c). Sixteen threads of a warp share up to eight rows: each has every
 * sixteenth key of a tile and its columns of the result. Probabilities go through shared memory from those who compute them to
 * those who multiply them, all in one warp. Rows of K arrive while V is multiplied, those of V while scores are. */
#include "codegen/lower/attend_team.h"
#include "codegen/lower/index.h"

#include <math.h>

/* PAD: words behind a row; RUN: neighbours of a row that a thread reads or finishes at once; MOST: rows of a thread */
enum { TEAM = 128, ACROSS = 16, DOWN = TEAM / ACROSS, PAD = 4, RUN = 4, MOST = 8, LEAST = 2, MINE = ZN_AT_FMA_KEYS / ACROSS };
enum { MAX_RUNS = 2 };

typedef struct attend {
  zn_at_team m;
  unsigned tall, runs;               /* rows of a thread; its runs of columns of the result */
  zn_kref row, col;                  /* the thread's place: its first row, its first key */
  zn_kref sq, sk, sv, sp, first;     /* shared: rows of Q, keys, values, probabilities; the block's first row */
  zn_kref max[MOST], sum[MOST], out[MOST * MAX_RUNS * RUN];
} attend;

static int64_t p_pitch(void) { return ZN_AT_FMA_KEYS + PAD; }

static zn_kref load4(zn_kb *b, zn_kref from, zn_kref at) { return zn_kb_load(b, ZN_F32, RUN, from, at); }

/* Word `at` of the thread's row number i, whose rows are `pitch` words apart. */
static zn_kref in_row(zn_kb *b, const attend *a, unsigned i, int64_t pitch, zn_kref at) {
  return zn_i_add(b, zn_i_muli(b, zn_i_addi(b, a->row, (int64_t)i * DOWN), pitch), at);
}

/* ---- scores ---- */

/* Sums for the thread's rows and keys: variables [row][key]. */
static void scores(zn_lw *lw, const attend *a, zn_kref *s) {
  zn_kb *b = &lw->kb;
  int64_t pitch = a->m.o.d + PAD;
  zn_kref zero = zn_kb_float(b, ZN_F32, 0), x[MOST];
  for (unsigned e = 0; e < a->tall * MINE; e++) s[e] = zn_kb_var(b, zero);
  zn_kref none = zn_kb_idx(b, 0), depth = zn_kb_idx(b, a->m.o.d), k = zn_kb_for(b, none, depth, RUN, ZN_FOR_SERIAL, 0);
  for (unsigned i = 0; i < a->tall; i++) x[i] = load4(b, a->sq, in_row(b, a, i, pitch, k));
  for (unsigned j = 0; j < MINE; j++) {
    zn_kref key = zn_i_muli(b, zn_i_addi(b, a->col, (int64_t)j * ACROSS), pitch), y = load4(b, a->sk, zn_i_add(b, key, k));
    for (unsigned q = 0; q < RUN; q++) {
      zn_kref yq = zn_kb_extract(b, y, q);
      for (unsigned i = 0; i < a->tall; i++) {
        zn_kref xq = zn_kb_extract(b, x[i], q), old = zn_kb_get(b, s[i * MINE + j]);
        zn_kb_set(b, s[i * MINE + j], zn_kb_fma(b, xq, yq, old));
      }
    }
  }
  zn_kb_end(b);
}

/* Over the threads that share a row. */
static zn_kref over_row(zn_kb *b, zn_kop op, zn_kref x) {
  for (unsigned d = 1; d < ACROSS; d *= 2) x = zn_kb_bin(b, op, x, zn_kb_lanexor(b, x, d));
  return x;
}

/* Row i of the tile: mapped, its maximum and sum brought up to date, what was summed before scaled, exponentials to shared
 * memory. */
static void exponentials(zn_lw *lw, const attend *a, const zn_kref *s, unsigned i, zn_kref key0) {
  zn_kb *b = &lw->kb;
  zn_kref low = zn_kb_float(b, ZN_F32, -(double)INFINITY), zero = zn_kb_float(b, ZN_F32, 0), e[MINE], top = 0, part = 0;
  zn_kref none = zn_kb_idx(b, 0), row = zn_i_add(b, a->first, in_row(b, a, i, 1, none));
  for (unsigned j = 0; j < MINE; j++) {
    zn_kref key = zn_i_add(b, key0, zn_i_addi(b, a->col, (int64_t)j * ACROSS)), score = zn_kb_get(b, s[i * MINE + j]);
    e[j] = zn_at_mapped(lw, &a->m, score, row, key);
    top = top ? zn_kb_bin(b, ZN_K_Max, top, e[j]) : e[j];
  }
  zn_kref before = zn_kb_get(b, a->max[i]);
  top = zn_kb_bin(b, ZN_K_Max, before, over_row(b, ZN_K_Max, top));
  zn_kb_set(b, a->max[i], top);
  zn_kref shift = zn_kb_select(b, zn_kb_cmp(b, ZN_K_Eq, top, low), zero, top); /* nothing visible yet: all exponentials are 0 */
  zn_kref factor = zn_at_exp(b, zn_kb_bin(b, ZN_K_Sub, before, shift));
  for (unsigned j = 0; j < MINE; j++) {
    e[j] = zn_at_exp(b, zn_kb_bin(b, ZN_K_Sub, e[j], shift));
    part = part ? zn_kb_bin(b, ZN_K_Add, part, e[j]) : e[j];
    zn_kref at = in_row(b, a, i, p_pitch(), zn_i_addi(b, a->col, (int64_t)j * ACROSS));
    zn_kb_store(b, a->sp, at, e[j]);
  }
  zn_kref old = zn_kb_get(b, a->sum[i]);
  zn_kb_set(b, a->sum[i], zn_kb_fma(b, old, factor, part));
  for (unsigned c = 0; c < a->runs * RUN; c++) {
    zn_kref acc = a->out[i * a->runs * RUN + c], sum = zn_kb_get(b, acc);
    zn_kb_set(b, acc, zn_kb_bin(b, ZN_K_Mul, sum, factor));
  }
}

/* ---- values ---- */

/* First column of the thread's run number c; behind the last one it is the last run once more, which nobody reads. */
static zn_kref run_at(zn_kb *b, const attend *a, unsigned c) {
  zn_kref at = zn_i_muli(b, zn_i_addi(b, a->col, (int64_t)c * ACROSS), RUN);
  bool whole = a->m.o.dv % (ACROSS * RUN) == 0;
  return whole ? at : zn_kb_bin(b, ZN_K_Min, at, zn_kb_idx(b, a->m.o.dv - RUN));
}

static void add_values(zn_lw *lw, const attend *a) {
  zn_kb *b = &lw->kb;
  int64_t pitch = a->m.o.dv + PAD;
  zn_kref none = zn_kb_idx(b, 0), all = zn_kb_idx(b, ZN_AT_FMA_KEYS), k = zn_kb_for(b, none, all, RUN, ZN_FOR_SERIAL, 0), x[MOST];
  for (unsigned i = 0; i < a->tall; i++) x[i] = load4(b, a->sp, in_row(b, a, i, p_pitch(), k));
  for (unsigned q = 0; q < RUN; q++)
    for (unsigned c = 0; c < a->runs; c++) {
      zn_kref key = zn_i_muli(b, zn_i_addi(b, k, q), pitch), at = run_at(b, a, c), y = load4(b, a->sv, zn_i_add(b, key, at));
      for (unsigned e = 0; e < RUN; e++) {
        zn_kref ye = zn_kb_extract(b, y, e);
        for (unsigned i = 0; i < a->tall; i++) {
          zn_kref acc = a->out[(i * a->runs + c) * RUN + e], xq = zn_kb_extract(b, x[i], q), old = zn_kb_get(b, acc);
          zn_kb_set(b, acc, zn_kb_fma(b, xq, ye, old));
        }
      }
    }
  zn_kb_end(b);
}

/* ---- results ---- */

/* The thread's results to shared memory, where keys and values were. */
static void put_results(zn_lw *lw, const attend *a) {
  zn_kb *b = &lw->kb;
  int64_t pitch = a->m.o.dv + PAD;
  for (unsigned i = 0; i < a->tall; i++) {
    zn_kref total = over_row(b, ZN_K_Add, zn_kb_get(b, a->sum[i])), one = zn_kb_float(b, ZN_F32, 1);
    zn_kref inverse = zn_at_guarded(lw, &a->m, zn_kb_bin(b, ZN_K_Div, one, total), total);
    for (unsigned c = 0; c < a->runs; c++) {
      zn_kref at = in_row(b, a, i, pitch, zn_i_muli(b, zn_i_addi(b, a->col, (int64_t)c * ACROSS), RUN));
      bool whole = a->m.o.dv % (ACROSS * RUN) == 0;
      if (!whole) {
        zn_kref from = zn_i_muli(b, zn_i_addi(b, a->col, (int64_t)c * ACROSS), RUN);
        zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, from, zn_kb_idx(b, a->m.o.dv)));
      }
      for (unsigned e = 0; e < RUN; e++) {
        zn_kref sum = zn_kb_get(b, a->out[(i * a->runs + c) * RUN + e]), there = zn_i_addi(b, at, e);
        zn_kb_store(b, a->sk, there, zn_kb_bin(b, ZN_K_Mul, sum, inverse));
      }
      if (!whole) zn_kb_end(b);
    }
  }
}

static void hand_out(zn_lw *lw, const attend *a) {
  zn_kb *b = &lw->kb;
  zn_expr i[ZN_MAX_RANK];
  const zn_attend *o = &a->m.o;
  int64_t across = o->dv / RUN, runs = a->m.rows * across;
  for (int d = 0; d < a->m.rank - 2; d++) i[d] = a->m.batch[d];
  zn_kref n = zn_kb_for(b, a->m.thread, zn_kb_idx(b, runs), TEAM, ZN_FOR_SERIAL, 0), r = zn_i_divi(b, n, across);
  zn_kref c = zn_i_muli(b, zn_i_remi(b, n, across), RUN), row = zn_i_add(b, a->first, r);
  bool ragged = o->sq % a->m.rows != 0;
  if (ragged) zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, row, zn_kb_idx(b, o->sq)));
  zn_kref none = zn_kb_idx(b, 0), run = zn_kb_idx(b, RUN), lane = zn_kb_for(b, none, run, 1, ZN_FOR_VECTOR, RUN);
  zn_kref col = zn_i_add(b, c, lane), x = zn_kb_load(b, ZN_F32, 1, a->sk, zn_i_add(b, zn_i_muli(b, r, o->dv + PAD), col));
  i[a->m.rank - 2] = zn_lw_as_expr(lw, row, zn_ex_const(lw->ex, o->sq));
  i[a->m.rank - 1] = zn_lw_as_expr(lw, col, zn_ex_const(lw->ex, o->dv));
  zn_lw_emit(lw, a->m.y, i, x);
  zn_kb_end(b);
  if (ragged) zn_kb_end(b);
  zn_kb_end(b);
}

/* ---- the kernel ---- */

static void copy_keys(zn_lw *lw, const attend *a, zn_kref first) {
  zn_kb *b = &lw->kb;
  zn_at_place at = {a->sk, zn_kb_idx(b, 0), a->m.o.d + PAD};
  zn_at_copy_rows(lw, &a->m, a->m.o.kt, true, first, ZN_AT_FMA_KEYS, a->m.o.sk, a->m.o.d, at);
}

static void copy_values(zn_lw *lw, const attend *a, zn_kref first) {
  zn_kb *b = &lw->kb;
  zn_at_place at = {a->sv, zn_kb_idx(b, 0), a->m.o.dv + PAD};
  zn_at_copy_rows(lw, &a->m, a->m.o.v, false, first, ZN_AT_FMA_KEYS, a->m.o.sk, a->m.o.dv, at);
}

/* Until all but the thread's last group of copies is there, for the whole block. */
static void arrived(zn_kb *b) {
  zn_kb_async_wait(b, 1);
  zn_kb_statement(b, ZN_K_Barrier);
}

static void start(zn_lw *lw, attend *a) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_float(b, ZN_F32, 0), low = zn_kb_float(b, ZN_F32, -(double)INFINITY), none = zn_kb_idx(b, 0);
  a->row = zn_i_divi(b, a->m.thread, ACROSS);
  a->col = zn_i_remi(b, a->m.thread, ACROSS);
  for (unsigned i = 0; i < a->tall; i++) {
    a->max[i] = zn_kb_var(b, low);
    a->sum[i] = zn_kb_var(b, zero);
  }
  for (unsigned e = 0; e < a->tall * a->runs * RUN; e++) a->out[e] = zn_kb_var(b, zero);
  zn_at_place at = {a->sq, none, a->m.o.d + PAD};
  zn_at_copy_rows(lw, &a->m, a->m.o.q, false, a->first, a->m.rows, a->m.o.sq, a->m.o.d, at);
  copy_keys(lw, a, none);
  zn_kb_statement(b, ZN_K_AsyncGroup);
  copy_values(lw, a, none);
  zn_kb_statement(b, ZN_K_AsyncGroup);
}

static void team_body(zn_lw *lw, attend *a) {
  zn_kb *b = &lw->kb;
  start(lw, a);
  zn_kref none = zn_kb_idx(b, 0), keys = zn_kb_idx(b, a->m.o.sk), s[MOST * MINE];
  zn_kref key0 = zn_kb_for(b, none, keys, ZN_AT_FMA_KEYS, ZN_FOR_SERIAL, 0), next = zn_i_addi(b, key0, ZN_AT_FMA_KEYS);
  zn_kref more = zn_kb_cmp(b, ZN_K_Lt, next, keys);
  arrived(b); /* keys */
  scores(lw, a, s);
  zn_kb_statement(b, ZN_K_Barrier); /* they are read */
  zn_kb_if(b, more);
  copy_keys(lw, a, next);
  zn_kb_end(b);
  zn_kb_statement(b, ZN_K_AsyncGroup);
  for (unsigned i = 0; i < a->tall; i++) exponentials(lw, a, s, i, key0);
  arrived(b); /* values, and the probabilities of the warp */
  add_values(lw, a);
  zn_kb_statement(b, ZN_K_Barrier); /* both are read */
  zn_kb_if(b, more);
  copy_values(lw, a, next);
  zn_kb_end(b);
  zn_kb_statement(b, ZN_K_AsyncGroup);
  zn_kb_end(b);
  put_results(lw, a);
  zn_kb_statement(b, ZN_K_Barrier);
  hand_out(lw, a);
}

/* Eight rows a thread, unless there are fewer, or that leaves multiprocessors idle. */
static void divide(zn_lw *lw, attend *a) {
  double cores = lw->caps->cores ? lw->caps->cores : 64;
  a->tall = MOST;
  while (a->tall > LEAST && a->m.o.sq <= DOWN * a->tall / 2) a->tall /= 2;
  while (a->tall > LEAST && zn_at_blocks(lw, &a->m, DOWN * a->tall) < cores) a->tall /= 2;
  a->runs = a->m.o.dv > ACROSS * RUN ? 2 : 1;
  a->m.rows = DOWN * a->tall;
  a->m.keys = ZN_AT_FMA_KEYS;
  a->m.threads = TEAM;
}

zn_status zn_lower_attend_fma(zn_lw *lw, zn_nid n, const zn_attend *o) {
  zn_kb *b = &lw->kb;
  attend a = {.m = {.o = *o, .y = zn_lw_node(lw, n)->out[0], .t = ZN_F32, .rank = zn_lw_type(lw, o->q)->rank}};
  divide(lw, &a);
  zn_lw_kernel(lw, n, "attention");
  a.sq = zn_kb_alloc(b, ZN_F32, (uint64_t)(a.m.rows * (o->d + PAD)));
  a.sk = zn_kb_alloc(b, ZN_F32, (uint64_t)(ZN_AT_FMA_KEYS * (o->d + o->dv + 2 * PAD)));
  a.sv = zn_kb_ptradd(b, a.sk, zn_kb_idx(b, 4 * ZN_AT_FMA_KEYS * (o->d + PAD)));
  a.sp = zn_kb_alloc(b, ZN_F32, (uint64_t)(a.m.rows * p_pitch()));
  a.first = zn_lw_ix(lw, zn_at_grid(lw, &a.m));
  zn_kref none = zn_kb_idx(b, 0), team = zn_kb_idx(b, TEAM);
  a.m.thread = zn_kb_for(b, none, team, 1, ZN_FOR_THREAD, TEAM);
  team_body(lw, &a);
  zn_kb_end(b);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
