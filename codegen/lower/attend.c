/* softmax(f(Q K'))V in one kernel on matrix units. A warp keeps 16 rows of Q, their running maximum, sum and result in
 * registers while tiles of K and V pass through shared memory (online softmax: Milakov and Gimelshein 2018, Dao et al. 2022).
 * Where there are too few rows for the machine, the warps of a block share one set of rows and split the keys; their maxima,
 * sums and results meet in shared memory at the end. f is whatever maps the graph has between the scores and Softmax: it is
 * computed element by element where the scores are. Scores of places behind the last key count as minus infinity. */
#include "codegen/lower/attend.h"
#include "codegen/lower/attend_team.h"
#include "codegen/lower/index.h"

#include <math.h>

enum { PAD = 8, CHUNK = 8, ROWS = 16, KEYS = 64, MAX_FRAGMENTS = 16, WARPS = 4, MEET_PAD = 4 };

typedef struct attend {
  zn_at_team m;
  bool brain; /* bf16 */
  int64_t keys;                       /* of a warp's tile */
  unsigned warps, shares;             /* of a block; those that share the rows, each a share of the keys */
  zn_expr row0;
  zn_kref lane, warp, share; /* warp: which rows; share: which keys */
  zn_kref sq, sk, sv;        /* shared: rows of Q, slots of keys and of values */
  zn_kref q[MAX_FRAGMENTS / 2], max[2], sum[2], out[MAX_FRAGMENTS];
} attend;

bool zn_lower_attends(const zn_lw *lw, zn_nid n) {
  const zn_value *p = &lw->g->vals[zn_lw_node(lw, n)->in[0]];
  return p->inlined && lw->g->nodes[p->def].group == n;
}

static int64_t rows_of(const attend *a) { return ROWS * (int64_t)(a->warps / a->shares); }

/* ---- tiles ---- */

static bool multiple(zn_lw *lw, zn_vid v, int axis, int64_t of) {
  int64_t c;
  return zn_ex_is_const(lw->ex, zn_lw_dim(lw, v, axis), &c) && c % of == 0;
}

bool zn_attend_runs_along(zn_lw *lw, zn_vid v, int axis, int64_t count) {
  const zn_value *val = &lw->g->vals[v];
  const zn_node *n = val->def ? zn_lw_node(lw, val->def) : NULL;
  int last = val->type.rank - 1;
  if (!val->inlined) {
    bool plain = !val->layout.block && !val->layout.has_halo && !zn_value_known(val);
    return axis == last && multiple(lw, v, last, count) && (lw->caps->simt ? zn_lw_in_workspace(lw, v) : plain);
  }
  uint32_t num;
  switch (n->op) {
  case ZN_OP_Transpose: {
    const int64_t *perm = zn_node_ints(n, "perm", &num);
    return zn_attend_runs_along(lw, n->in[0], perm && num ? (int)perm[axis] : last - axis, count);
  }
  case ZN_OP_Reshape: case ZN_OP_Squeeze: case ZN_OP_Unsqueeze: case ZN_OP_Flatten: case ZN_OP_Identity: {
    int to = zn_lw_type(lw, n->in[0])->rank - 1;
    return axis == last && to >= 0 && multiple(lw, v, last, count) && multiple(lw, n->in[0], to, count) &&
           zn_attend_runs_along(lw, n->in[0], to, count);
  }
  case ZN_OP_Expand: {
    int to = axis - last + zn_lw_type(lw, n->in[0])->rank - 1;
    return to >= 0 && zn_lw_dim(lw, n->in[0], to) == val->type.dims[axis] && zn_attend_runs_along(lw, n->in[0], to, count);
  }
  case ZN_OP_Split: {
    int64_t at = zn_node_int(n, "axis");
    if (at < 0) at += val->type.rank;
    for (uint32_t i = 0; at == axis && i < val->def_out; i++)
      if (n->out[i] && !multiple(lw, n->out[i], axis, count)) return false;
    return zn_attend_runs_along(lw, n->in[0], axis, count);
  }
  default: /* a map: elements follow each other as its operand's do */
    if (lw->caps->simt || !(zn_ops[n->op].flags & ZN_OPF_EW)) return false;
    for (uint32_t i = 0; i < n->num_in; i++)
      if (n->in[i] && !lw->g->vals[n->in[i]].cst) return zn_attend_runs_along(lw, n->in[i], axis, count);
    return false;
  }
}

static void copy_tile(zn_lw *lw, const attend *a, zn_kref slot, zn_kref first) {
  zn_kb *b = &lw->kb;
  const zn_attend *o = &a->m.o;
  const int64_t keys = a->m.keys, k_pitch = o->d + PAD, v_pitch = o->dv + PAD;
  zn_at_place k = {a->sk, zn_i_muli(b, slot, keys * k_pitch), k_pitch}, v = {a->sv, zn_i_muli(b, slot, keys * v_pitch), v_pitch};
  zn_at_copy_rows(lw, &a->m, o->kt, true, first, keys, o->sk, o->d, k);
  zn_at_copy_rows(lw, &a->m, o->v, false, first, keys, o->sk, o->dv, v);
}

/* ---- products ---- */

static zn_kref mma(zn_lw *lw, const attend *a, zn_kref x, zn_kref y, zn_kref acc) {
  return zn_kb_raw(&lw->kb, (zn_kinst){.op = ZN_K_Mma, .dtype = ZN_F32, .lanes = 4, .a = x, .b = y, .c = acc, .imm.i = a->brain});
}

/* The two fragments of B in four squares. */
static void two_fragments(zn_kb *b, zn_kref squares, zn_kref *out) {
  zn_kref none = zn_kb_splat(b, zn_kb_int(b, ZN_U32, 0), 2);
  for (unsigned f = 0; f < 2; f++) {
    zn_kref low = zn_kb_extract(b, squares, 2 * f), high = zn_kb_extract(b, squares, 2 * f + 1);
    out[f] = zn_kb_insert(b, zn_kb_insert(b, none, low, 0), high, 1);
  }
}

/* Where in words the thread's row of the squares lies: squares 0 and 1 are neighbours along the rows when `down`, else along
 * the words; 2 and 3 the other way. */
static zn_kref square_row(zn_kb *b, const attend *a, int64_t pitch, bool down) {
  zn_kref near = zn_i_remi(b, zn_i_divi(b, a->lane, 8), 2), far = zn_i_divi(b, a->lane, 16);
  zn_kref square = zn_i_muli(b, down ? near : far, 8), row = zn_i_add(b, zn_i_remi(b, a->lane, 8), square);
  zn_kref word = zn_i_muli(b, down ? far : near, 4);
  return zn_i_add(b, zn_i_muli(b, row, pitch / 2), word);
}

static void load_queries(zn_lw *lw, attend *a) {
  zn_kb *b = &lw->kb;
  int64_t pitch = a->m.o.d + PAD;
  zn_kref first = zn_i_muli(b, a->warp, ROWS * pitch / 2), at = zn_i_add(b, square_row(b, a, pitch, true), first);
  for (int64_t k = 0; k < a->m.o.d / 16; k++) a->q[k] = zn_kb_ldmatrix(b, 4, false, a->sq, zn_i_addi(b, at, k * 8));
}

/* Where in words the warp's keys start. */
static zn_kref own_keys(zn_kb *b, const attend *a, zn_kref slot, int64_t pitch) {
  return zn_i_muli(b, zn_i_add(b, zn_i_muli(b, slot, a->shares), a->share), a->keys * pitch / 2);
}

static void scores(zn_lw *lw, const attend *a, zn_kref slot, zn_kref *s) {
  zn_kb *b = &lw->kb;
  int64_t pitch = a->m.o.d + PAD;
  zn_kref keys = own_keys(b, a, slot, pitch), at = zn_i_add(b, square_row(b, a, pitch, false), keys);
  for (int64_t j = 0; j < a->keys / 8; j++) s[j] = zn_kb_splat(b, zn_kb_float(b, ZN_F32, 0), 4);
  for (int64_t k = 0; k < a->m.o.d / 16; k++)
    for (int64_t j = 0; j < a->keys / 8; j += 2) {
      zn_kref f[2];
      two_fragments(b, zn_kb_ldmatrix(b, 4, false, a->sk, zn_i_addi(b, at, j * 4 * pitch + k * 8)), f);
      s[j] = mma(lw, a, a->q[k], f[0], s[j]);
      s[j + 1] = mma(lw, a, a->q[k], f[1], s[j + 1]);
    }
}

static zn_kref over_quad(zn_kb *b, zn_kop op, zn_kref x) {
  x = zn_kb_bin(b, op, x, zn_kb_lanexor(b, x, 1));
  return zn_kb_bin(b, op, x, zn_kb_lanexor(b, x, 2));
}

/* Two neighbours as one word. */
static zn_kref packed(zn_lw *lw, const attend *a, zn_kref low, zn_kref high) {
  zn_kb *b = &lw->kb;
  zn_kref w[2] = {low, high};
  for (int i = 0; i < 2; i++) {
    zn_kref h = zn_kb_bitcast(b, zn_kb_cvt(b, w[i], a->brain ? ZN_BF16 : ZN_F16), ZN_U16);
    w[i] = zn_kb_cvt(b, h, ZN_U32);
  }
  return zn_kb_bin(b, ZN_K_Or, w[0], zn_kb_bin(b, ZN_K_Shl, w[1], zn_kb_int(b, ZN_U32, 16)));
}

/* Half `h` (rows +0, +8) of the tile's scores: mapped, the maximum brought up to date, e[] becomes their exponentials. Returns
 * the factor of what was summed before. */
static zn_kref exponentials(zn_lw *lw, attend *a, const zn_kref *s, unsigned h, zn_kref row, zn_kref key, zn_kref *e) {
  zn_kb *b = &lw->kb;
  zn_kref top = 0, low = zn_kb_float(b, ZN_F32, -(double)INFINITY), zero = zn_kb_float(b, ZN_F32, 0);
  unsigned n = (unsigned)a->keys / 8 * 2;
  for (unsigned j = 0; j < n; j++) {
    zn_kref at_key = zn_i_addi(b, key, j / 2 * 8 + j % 2), at_row = zn_i_addi(b, row, 8 * h);
    e[j] = zn_at_mapped(lw, &a->m, zn_kb_extract(b, s[j / 2], 2 * h + j % 2), at_row, at_key);
    top = top ? zn_kb_bin(b, ZN_K_Max, top, e[j]) : e[j];
  }
  zn_kref before = zn_kb_get(b, a->max[h]);
  top = zn_kb_bin(b, ZN_K_Max, before, over_quad(b, ZN_K_Max, top));
  zn_kb_set(b, a->max[h], top);
  zn_kref shift = zn_kb_select(b, zn_kb_cmp(b, ZN_K_Eq, top, low), zero, top); /* nothing visible yet: all exponentials are 0 */
  zn_kref factor = zn_at_exp(b, zn_kb_bin(b, ZN_K_Sub, before, shift)), part = 0;
  for (unsigned j = 0; j < n; j++) {
    e[j] = zn_at_exp(b, zn_kb_bin(b, ZN_K_Sub, e[j], shift));
    part = part ? zn_kb_bin(b, ZN_K_Add, part, e[j]) : e[j];
  }
  zn_kref old = zn_kb_get(b, a->sum[h]);
  zn_kb_set(b, a->sum[h], zn_kb_fma(b, old, factor, part));
  return factor;
}

static void add_values(zn_lw *lw, const attend *a, zn_kref slot, zn_kref e[2][MAX_FRAGMENTS * 2], const zn_kref *factor) {
  zn_kb *b = &lw->kb;
  int64_t pitch = a->m.o.dv + PAD, nf = a->m.o.dv / 8;
  zn_kref keys = own_keys(b, a, slot, pitch), at = zn_i_add(b, square_row(b, a, pitch, true), keys), acc[MAX_FRAGMENTS];
  zn_kref scale = zn_kb_splat(b, factor[0], 4);
  scale = zn_kb_insert(b, zn_kb_insert(b, scale, factor[1], 2), factor[1], 3);
  for (int64_t j = 0; j < nf; j++) acc[j] = zn_kb_bin(b, ZN_K_Mul, zn_kb_get(b, a->out[j]), scale);
  for (int64_t t = 0; t < a->keys / 16; t++) {
    zn_kref p = zn_kb_splat(b, zn_kb_int(b, ZN_U32, 0), 4);
    for (unsigned w = 0; w < 4; w++) {
      const zn_kref *row = e[w % 2] + 4 * t + w / 2 * 2;
      p = zn_kb_insert(b, p, packed(lw, a, row[0], row[1]), w);
    }
    for (int64_t j = 0; j < nf; j += 2) {
      zn_kref f[2];
      two_fragments(b, zn_kb_ldmatrix(b, 4, true, a->sv, zn_i_addi(b, at, t * 8 * pitch + j * 4)), f);
      acc[j] = mma(lw, a, p, f[0], acc[j]);
      acc[j + 1] = mma(lw, a, p, f[1], acc[j + 1]);
    }
  }
  for (int64_t j = 0; j < nf; j++) zn_kb_set(b, a->out[j], acc[j]);
}

/* ---- the kernel ---- */

static void hand_out(zn_lw *lw, const attend *a, zn_kref row) {
  zn_kb *b = &lw->kb;
  zn_expr i[ZN_MAX_RANK];
  zn_kref pair = zn_i_muli(b, zn_i_remi(b, a->lane, 4), 2);
  bool ragged = a->m.o.sq % rows_of(a) != 0;
  for (int d = 0; d < a->m.rank - 2; d++) i[d] = a->m.batch[d];
  for (unsigned h = 0; h < 2; h++) {
    zn_kref total = over_quad(b, ZN_K_Add, zn_kb_get(b, a->sum[h])), r = zn_i_addi(b, row, 8 * h);
    zn_kref inverse = zn_at_guarded(lw, &a->m, zn_kb_bin(b, ZN_K_Div, zn_kb_float(b, ZN_F32, 1), total), total);
    if (ragged) zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, r, zn_kb_idx(b, a->m.o.sq)));
    i[a->m.rank - 2] = zn_lw_as_expr(lw, r, zn_ex_const(lw->ex, a->m.o.sq));
    for (int64_t j = 0; j < a->m.o.dv / 8; j++)
      for (unsigned e = 0; e < 2; e++) {
        zn_kref x = zn_kb_extract(b, zn_kb_get(b, a->out[j]), 2 * h + e);
        i[a->m.rank - 1] = zn_lw_as_expr(lw, zn_i_addi(b, pair, j * 8 + e), zn_ex_const(lw->ex, a->m.o.dv));
        zn_lw_emit(lw, a->m.y, i, zn_kb_bin(b, ZN_K_Mul, x, inverse));
      }
    if (ragged) zn_kb_end(b);
  }
}

/* The shares of each row come together: [row][share] maxima and sums, [share][row][dv] results, in the memory of the tiles. */
static void meet(zn_lw *lw, const attend *a, zn_kref base) {
  zn_kb *b = &lw->kb;
  int64_t n = a->shares, rows = rows_of(a), pitch = a->m.o.dv + MEET_PAD, threads = 32 * (int64_t)a->warps;
  zn_kref quad = zn_i_divi(b, a->lane, 4), row = zn_i_add(b, zn_i_muli(b, a->warp, ROWS), quad),
          pair = zn_i_muli(b, zn_i_remi(b, a->lane, 4), 2);
  zn_kref tops = a->sq, sums = zn_kb_ptradd(b, a->sq, zn_kb_idx(b, rows * n * 4)), parts = a->sk; /* a->sv lies behind a->sk */
  zn_kref first = zn_kb_idx(b, 0);
  zn_kb_statement(b, ZN_K_Barrier);
  for (unsigned h = 0; h < 2; h++) {
    zn_kref at = zn_i_add(b, zn_i_muli(b, zn_i_addi(b, row, 8 * h), n), a->share),
            total = over_quad(b, ZN_K_Add, zn_kb_get(b, a->sum[h]));
    zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, pair, first));
    zn_kb_store(b, tops, at, zn_kb_get(b, a->max[h]));
    zn_kb_store(b, sums, at, total);
    zn_kb_end(b);
    zn_kref own = zn_i_addi(b, row, 8 * h), line = zn_i_muli(b, zn_i_add(b, zn_i_muli(b, a->share, rows), own), pitch);
    for (int64_t j = 0; j < a->m.o.dv / 8; j++)
      for (unsigned e = 0; e < 2; e++) {
        zn_kref x = zn_kb_extract(b, zn_kb_get(b, a->out[j]), 2 * h + e);
        zn_kb_store(b, parts, zn_i_add(b, line, zn_i_addi(b, pair, j * 8 + e)), x);
      }
  }
  zn_kb_statement(b, ZN_K_Barrier);
  zn_expr i[ZN_MAX_RANK];
  for (int d = 0; d < a->m.rank - 2; d++) i[d] = a->m.batch[d];
  for (int64_t e = 0; e < rows * a->m.o.dv / threads; e++) { /* dv is a multiple of 16: no rest */
    zn_kref k = zn_i_addi(b, a->m.thread, e * threads), r = zn_i_divi(b, k, a->m.o.dv), c = zn_i_remi(b, k, a->m.o.dv),
            top = 0, sum = 0, x = 0;
    zn_kref low = zn_kb_float(b, ZN_F32, -(double)INFINITY), factor[WARPS];
    for (int64_t s = 0; s < n; s++) {
      zn_kref nth = zn_kb_idx(b, s);
      factor[s] = zn_kb_load(b, ZN_F32, 1, tops, zn_i_add(b, zn_i_muli(b, r, n), nth));
      top = top ? zn_kb_bin(b, ZN_K_Max, top, factor[s]) : factor[s];
    }
    zn_kref none = zn_kb_float(b, ZN_F32, 0);
    top = zn_kb_select(b, zn_kb_cmp(b, ZN_K_Eq, top, low), none, top);
    for (int64_t s = 0; s < n; s++) {
      factor[s] = zn_at_exp(b, zn_kb_bin(b, ZN_K_Sub, factor[s], top));
      zn_kref nth = zn_kb_idx(b, s), part = zn_kb_load(b, ZN_F32, 1, sums, zn_i_add(b, zn_i_muli(b, r, n), nth));
      zn_kref y = zn_kb_load(b, ZN_F32, 1, parts, zn_i_add(b, zn_i_muli(b, zn_i_addi(b, r, s * rows), pitch), c));
      sum = s ? zn_kb_fma(b, part, factor[s], sum) : zn_kb_bin(b, ZN_K_Mul, part, factor[s]);
      x = s ? zn_kb_fma(b, y, factor[s], x) : zn_kb_bin(b, ZN_K_Mul, y, factor[s]);
    }
    zn_kref there = zn_i_add(b, base, r);
    bool ragged = a->m.o.sq % rows != 0;
    if (ragged) zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, there, zn_kb_idx(b, a->m.o.sq)));
    i[a->m.rank - 2] = zn_lw_as_expr(lw, there, zn_ex_const(lw->ex, a->m.o.sq));
    i[a->m.rank - 1] = zn_lw_as_expr(lw, c, zn_ex_const(lw->ex, a->m.o.dv));
    zn_lw_emit(lw, a->m.y, i, zn_at_guarded(lw, &a->m, zn_kb_bin(b, ZN_K_Div, x, sum), sum));
    if (ragged) zn_kb_end(b);
  }
}

static void team_body(zn_lw *lw, attend *a) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_idx(b, 0), base = zn_lw_ix(lw, a->row0), keys = zn_kb_idx(b, a->m.o.sk);
  a->lane = zn_i_remi(b, a->m.thread, 32);
  a->warp = zn_i_divi(b, a->m.thread, 32 * (int64_t)a->shares);
  a->share = zn_i_remi(b, zn_i_divi(b, a->m.thread, 32), a->shares);
  for (unsigned h = 0; h < 2; h++) {
    a->max[h] = zn_kb_var(b, zn_kb_float(b, ZN_F32, -(double)INFINITY));
    a->sum[h] = zn_kb_var(b, zn_kb_float(b, ZN_F32, 0));
  }
  for (int64_t j = 0; j < a->m.o.dv / 8; j++) a->out[j] = zn_kb_var(b, zn_kb_splat(b, zn_kb_float(b, ZN_F32, 0), 4));
  zn_at_copy_rows(lw, &a->m, a->m.o.q, false, base, rows_of(a), a->m.o.sq, a->m.o.d, (zn_at_place){a->sq, zero, a->m.o.d + PAD});
  copy_tile(lw, a, zero, zero);
  zn_kb_statement(b, ZN_K_AsyncGroup);
  zn_kb_async_wait(b, 0);
  zn_kb_statement(b, ZN_K_Barrier);
  load_queries(lw, a);
  zn_kref quad = zn_i_divi(b, a->lane, 4), row = zn_i_add(b, base, zn_i_add(b, zn_i_muli(b, a->warp, ROWS), quad)),
          pair = zn_i_muli(b, zn_i_remi(b, a->lane, 4), 2);
  zn_kref use = zn_kb_var(b, zero);
  zn_kref key0 = zn_kb_for(b, zero, keys, a->keys * a->shares, ZN_FOR_SERIAL, 0);
  zn_kref slot = zn_kb_get(b, use), other = zn_kb_bin(b, ZN_K_Sub, zn_kb_idx(b, 1), slot),
          next = zn_i_addi(b, key0, a->keys * a->shares);
  zn_kb_async_wait(b, 0);
  zn_kb_statement(b, ZN_K_Barrier); /* this tile is there, and nobody reads the other slot */
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, next, keys));
  copy_tile(lw, a, other, next);
  zn_kb_end(b);
  zn_kb_statement(b, ZN_K_AsyncGroup);
  zn_kref s[MAX_FRAGMENTS], e[2][MAX_FRAGMENTS * 2], factor[2];
  scores(lw, a, slot, s);
  zn_kref key = zn_i_add(b, key0, zn_i_add(b, zn_i_muli(b, a->share, a->keys), pair));
  for (unsigned h = 0; h < 2; h++) factor[h] = exponentials(lw, a, s, h, row, key, e[h]);
  add_values(lw, a, slot, e, factor);
  zn_kb_set(b, use, other);
  zn_kb_end(b);
  if (a->shares > 1) meet(lw, a, base);
  else hand_out(lw, a, row);
}

/* Blocks of four warps with rows of their own, unless that leaves multiprocessors idle. */
static void divide(zn_lw *lw, attend *a) {
  double blocks = zn_at_blocks(lw, &a->m, ROWS * WARPS), cores = lw->caps->cores ? lw->caps->cores : 64;
  a->warps = WARPS;
  a->shares = 1;
  while (a->shares < WARPS && blocks * a->shares < cores && a->m.o.sk > 16 * (int64_t)a->shares) a->shares *= 2;
  while (a->warps > a->shares && a->m.o.sq <= rows_of(a) / 2) a->warps /= 2;
  int64_t each = zn_round_up((a->m.o.sk + a->shares - 1) / a->shares, 16), most = a->shares > 1 ? KEYS / 2 : KEYS;
  a->keys = each < most ? each : most;
  a->m.keys = a->keys * a->shares;
  a->m.rows = rows_of(a);
  a->m.threads = 32 * a->warps;
}

static void attend_units(zn_lw *lw, zn_nid n, const zn_attend *o) {
  zn_kb *b = &lw->kb;
  attend a = {.m = {.o = *o, .y = zn_lw_node(lw, n)->out[0], .rank = zn_lw_type(lw, o->q)->rank}};
  a.m.t = (zn_dtype)zn_lw_type(lw, o->q)->dtype;
  a.brain = a.m.t == ZN_BF16;
  divide(lw, &a);
  zn_lw_kernel(lw, n, "attention");
  int64_t keys = a.m.keys, slots = o->sk > keys ? 2 : 1, tiles = slots * keys * (o->d + o->dv + 2 * PAD);
  int64_t met = a.shares > 1 ? 2 * rows_of(&a) * a.shares * (o->dv + MEET_PAD) : 0;
  int64_t queries = rows_of(&a) * (o->d + PAD), stats = 4 * rows_of(&a) * a.shares;
  a.sq = zn_kb_alloc(b, ZN_F16, (uint64_t)(queries > stats ? queries : stats));
  a.sk = zn_kb_alloc(b, ZN_F16, (uint64_t)(tiles > met ? tiles : met));
  a.sv = zn_kb_ptradd(b, a.sk, zn_kb_idx(b, 2 * slots * keys * (o->d + PAD)));
  a.row0 = zn_at_grid(lw, &a.m);
  zn_kref threads = zn_kb_idx(b, a.m.threads);
  a.m.thread = zn_kb_for(b, zn_kb_idx(b, 0), threads, 1, ZN_FOR_THREAD, a.m.threads);
  team_body(lw, &a);
  zn_kb_end(b);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

zn_status zn_lower_attend(zn_lw *lw, zn_nid n) {
  zn_attend o;
  if (!lw->caps->mma) return zn_lower_attend_strip(lw, n);
  if (!zn_attend_find(lw->g, zn_graph_uses(lw->g, lw->arena), lw->caps, n, &o))
    ZN_BUG(lw->ctx, "%s: no attention after all", zn_node_where(lw->ctx, zn_lw_node(lw, n)));
  if (zn_lw_type(lw, o.q)->dtype == ZN_F32) return zn_lower_attend_fma(lw, n, &o);
  attend_units(lw, n, &o);
  return ZN_OK;
}
