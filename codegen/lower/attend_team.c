/* What the schedules of fused attention on SIMT targets share: tiles on their way to shared memory, the map between scores and
 * Softmax, the grid. */
#include "codegen/lower/attend_team.h"

#include <math.h>

#include "codegen/lower/attend.h"
#include "codegen/lower/index.h"

enum { COPY = 16 };

static int64_t size_of(const zn_at_team *t) { return zn_dtype_bytes(t->t); }

/* Elements [row, depth .. depth + 16 bytes) of an operand. */
static void copy_chunk(zn_lw *lw, const zn_at_team *t, zn_vid v, bool turned, bool whole, zn_expr row, zn_kref depth,
                       int64_t depths, zn_kref to, zn_kref at) {
  zn_kb *b = &lw->kb;
  zn_expr i[ZN_MAX_RANK];
  int r = t->rank;
  for (int d = 0; d < r - 2; d++) i[d] = t->batch[d];
  for (int64_t e = 0; e < (whole ? 1 : COPY / size_of(t)); e++) {
    zn_expr k = zn_lw_as_expr(lw, zn_i_addi(b, depth, e), zn_ex_const(lw->ex, depths));
    i[r - 2] = turned ? k : row;
    i[r - 1] = turned ? row : k;
    zn_kref x = zn_lw_load(lw, v, i);
    if (!whole) {
      zn_kref stored = zn_kb_cvt(b, x, t->t);
      zn_kb_store(b, to, zn_i_addi(b, at, e), stored);
      continue;
    }
    const zn_kinst *in = &b->f->insts[x];
    while (in->op != ZN_K_Load) in = &b->f->insts[in->a];
    zn_kref from = in->a, element = in->b;
    zn_kref bytes = zn_kb_idx(b, COPY), source = zn_kb_ptradd(b, from, zn_i_muli(b, element, size_of(t)));
    zn_kb_async_copy(b, zn_kb_ptradd(b, to, zn_i_muli(b, at, size_of(t))), source, bytes);
  }
}

void zn_at_copy_rows(zn_lw *lw, const zn_at_team *t, zn_vid v, bool turned, zn_kref first, int64_t rows, int64_t extent,
                     int64_t depths, zn_at_place at) {
  zn_kb *b = &lw->kb;
  int64_t chunk = COPY / size_of(t), per_row = depths / chunk, chunks = rows * per_row, threads = t->threads;
  bool whole = zn_attend_runs_along(lw, v, turned ? t->rank - 2 : t->rank - 1, chunk);
  for (int64_t e = 0; e < (chunks + threads - 1) / threads; e++) {
    zn_kref i = zn_i_addi(b, t->thread, e * threads), row = zn_i_divi(b, i, per_row),
            depth = zn_i_muli(b, zn_i_remi(b, i, per_row), chunk);
    bool some = (e + 1) * threads > chunks;
    if (some) zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, i, zn_kb_idx(b, chunks)));
    zn_kref there = zn_i_add(b, first, row);
    if (extent % rows != 0) there = zn_kb_bin(b, ZN_K_Min, there, zn_kb_idx(b, extent - 1));
    zn_expr re = zn_lw_as_expr(lw, there, zn_ex_const(lw->ex, extent));
    copy_chunk(lw, t, v, turned, whole, re, depth, depths, at.to,
               zn_i_add(b, at.base, zn_i_add(b, zn_i_muli(b, row, at.pitch), depth)));
    if (some) zn_kb_end(b);
  }
}

zn_kref zn_at_mapped(zn_lw *lw, const zn_at_team *t, zn_kref score, zn_kref row, zn_kref key) {
  zn_kb *b = &lw->kb;
  zn_expr i[ZN_MAX_RANK];
  int64_t sq = t->o.sq, sk = t->o.sk;
  for (int d = 0; d < t->rank - 2; d++) i[d] = t->batch[d];
  zn_kref inside = zn_kb_cmp(b, ZN_K_Lt, key, zn_kb_idx(b, sk)), last_row = zn_kb_idx(b, sq - 1), last_key = zn_kb_idx(b, sk - 1);
  bool ragged_rows = sq % t->rows != 0, ragged_keys = sk % t->keys != 0;
  i[t->rank - 2] = zn_lw_as_expr(lw, ragged_rows ? zn_kb_bin(b, ZN_K_Min, row, last_row) : row, zn_ex_const(lw->ex, sq));
  i[t->rank - 1] = zn_lw_as_expr(lw, ragged_keys ? zn_kb_bin(b, ZN_K_Min, key, last_key) : key, zn_ex_const(lw->ex, sk));
  lw->over[lw->num_over].v = t->o.s;
  lw->over[lw->num_over++].k = zn_lw_round_to(lw, score, (zn_dtype)zn_lw_type(lw, t->o.s)->dtype);
  zn_kref x = zn_lw_load(lw, t->o.x, i);
  lw->num_over--;
  return ragged_keys ? zn_kb_select(b, inside, x, zn_kb_float(b, ZN_F32, -(double)INFINITY)) : x;
}

zn_kref zn_at_exp(zn_kb *b, zn_kref x) { /* the Min says that it is not positive */
  return zn_kb_un(b, ZN_K_Exp, zn_kb_bin(b, ZN_K_Min, zn_kb_float(b, ZN_F32, 0), x));
}

zn_kref zn_at_guarded(zn_lw *lw, const zn_at_team *t, zn_kref x, zn_kref sum) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_float(b, ZN_F32, 0);
  return t->o.guard[0] ? zn_kb_select(b, zn_kb_cmp(b, ZN_K_Eq, sum, zero), zero, x) : x;
}

static int64_t blocks_of(const zn_at_team *t, int64_t rows) { return (t->o.sq + rows - 1) / rows; }

double zn_at_blocks(zn_lw *lw, const zn_at_team *t, int64_t rows) {
  double blocks = (double)blocks_of(t, rows);
  for (int d = 0; d < t->rank - 2; d++) {
    int64_t c;
    blocks *= zn_ex_is_const(lw->ex, zn_lw_dim(lw, t->o.q, d), &c) ? (double)c : 8;
  }
  return blocks;
}

zn_expr zn_at_grid(zn_lw *lw, zn_at_team *t) {
  zn_expr extents[ZN_MAX_RANK], var[ZN_MAX_RANK];
  for (int d = 0; d < t->rank - 2; d++) extents[d] = zn_lw_dim(lw, t->o.q, d);
  extents[t->rank - 2] = zn_ex_const(lw->ex, blocks_of(t, t->rows));
  zn_lw_grid(lw, (uint32_t)t->rank - 1, extents, var);
  for (int d = 0; d < t->rank - 2; d++) t->batch[d] = var[d];
  return zn_ex_muli(lw->ex, var[t->rank - 2], t->rows);
}
