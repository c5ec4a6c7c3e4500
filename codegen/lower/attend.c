/* softmax(f(Q K'))V in one kernel on matrix units. A warp keeps 16 rows of Q, their running maximum, sum and result in
 * registers while tiles of K and V pass through shared memory (online softmax: Milakov and Gimelshein 2018, Dao et al. 2022).
 * Where there are too few rows for the machine, the warps of a block share one set of rows and split the keys; their maxima,
 * sums and results meet in shared memory at the end. f is whatever maps the graph has between the scores and Softmax: it is
 * computed element by element where the scores are. Scores of places behind the last key count as minus infinity. */
#include "codegen/lower/attend.h"
#include "codegen/lower/index.h"

#include <math.h>

#include "zenithc/ops/attention_form.h"

enum { PAD = 8, CHUNK = 8, ROWS = 16, KEYS = 64, MAX_FRAGMENTS = 16, WARPS = 4, MEET_PAD = 4 };

typedef struct attend {
  zn_attend o;
  zn_vid y;
  bool brain; /* bf16 */
  int rank;
  int64_t keys;                       /* of a warp's tile */
  unsigned warps, shares;             /* of a block; those that share the rows, each a share of the keys */
  zn_expr batch[ZN_MAX_RANK], row0;
  zn_kref thread, lane, warp, share; /* warp: which rows; share: which keys */
  zn_kref sq, sk, sv;                /* shared: rows of Q, slots of keys and of values */
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

/* Elements [row, depth .. depth + CHUNK) of an operand, whose last two axes are exchanged when `turned`. */
static void copy_chunk(zn_lw *lw, const attend *a, zn_vid v, bool turned, bool whole, zn_expr row, zn_kref depth, int64_t depths,
                       zn_kref to, zn_kref at) {
  zn_kb *b = &lw->kb;
  zn_expr i[ZN_MAX_RANK];
  int r = a->rank;
  for (int d = 0; d < r - 2; d++) i[d] = a->batch[d];
  for (int64_t e = 0; e < (whole ? 1 : CHUNK); e++) {
    zn_expr k = zn_lw_as_expr(lw, zn_i_addi(b, depth, e), zn_ex_const(lw->ex, depths));
    i[r - 2] = turned ? k : row;
    i[r - 1] = turned ? row : k;
    zn_kref x = zn_lw_load(lw, v, i);
    if (!whole) {
      zn_kref half = zn_kb_cvt(b, x, a->brain ? ZN_BF16 : ZN_F16);
      zn_kb_store(b, to, zn_i_addi(b, at, e), half);
      continue;
    }
    const zn_kinst *in = &b->f->insts[x];
    while (in->op != ZN_K_Load) in = &b->f->insts[in->a];
    zn_kref from = in->a, element = in->b;
    zn_kref bytes = zn_kb_idx(b, 16), source = zn_kb_ptradd(b, from, zn_i_muli(b, element, 2));
    zn_kb_async_copy(b, zn_kb_ptradd(b, to, zn_i_muli(b, at, 2)), source, bytes);
  }
}

/* Rows first .. first + rows of an operand, `depths` long, to shared memory from element `base` on; rows behind the operand's
 * `extent` repeat its last one. */
static void copy_rows(zn_lw *lw, const attend *a, zn_vid v, bool turned, zn_kref first, int64_t rows, int64_t extent,
                      int64_t depths, zn_kref to, zn_kref base) {
  zn_kb *b = &lw->kb;
  int64_t per_row = depths / CHUNK, chunks = rows * per_row, threads = 32 * (int64_t)a->warps;
  bool whole = zn_attend_runs_along(lw, v, turned ? a->rank - 2 : a->rank - 1, CHUNK);
  for (int64_t e = 0; e < (chunks + threads - 1) / threads; e++) {
    zn_kref i = zn_i_addi(b, a->thread, e * threads), row = zn_i_divi(b, i, per_row),
            depth = zn_i_muli(b, zn_i_remi(b, i, per_row), CHUNK);
    bool some = (e + 1) * threads > chunks;
    if (some) zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, i, zn_kb_idx(b, chunks)));
    zn_kref there = zn_i_add(b, first, row);
    if (extent % rows != 0) there = zn_kb_bin(b, ZN_K_Min, there, zn_kb_idx(b, extent - 1));
    zn_expr re = zn_lw_as_expr(lw, there, zn_ex_const(lw->ex, extent));
    copy_chunk(lw, a, v, turned, whole, re, depth, depths, to,
               zn_i_add(b, base, zn_i_add(b, zn_i_muli(b, row, depths + PAD), depth)));
    if (some) zn_kb_end(b);
  }
}

static void copy_tile(zn_lw *lw, const attend *a, zn_kref slot, zn_kref first) {
  zn_kb *b = &lw->kb;
  const zn_attend *o = &a->o;
  int64_t keys = a->keys * a->shares;
  copy_rows(lw, a, o->kt, true, first, keys, o->sk, o->d, a->sk, zn_i_muli(b, slot, keys * (o->d + PAD)));
  copy_rows(lw, a, o->v, false, first, keys, o->sk, o->dv, a->sv, zn_i_muli(b, slot, keys * (o->dv + PAD)));
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
  int64_t pitch = a->o.d + PAD;
  zn_kref first = zn_i_muli(b, a->warp, ROWS * pitch / 2), at = zn_i_add(b, square_row(b, a, pitch, true), first);
  for (int64_t k = 0; k < a->o.d / 16; k++) a->q[k] = zn_kb_ldmatrix(b, 4, false, a->sq, zn_i_addi(b, at, k * 8));
}

/* Where in words the warp's keys start. */
static zn_kref own_keys(zn_kb *b, const attend *a, zn_kref slot, int64_t pitch) {
  return zn_i_muli(b, zn_i_add(b, zn_i_muli(b, slot, a->shares), a->share), a->keys * pitch / 2);
}

static void scores(zn_lw *lw, const attend *a, zn_kref slot, zn_kref *s) {
  zn_kb *b = &lw->kb;
  int64_t pitch = a->o.d + PAD;
  zn_kref keys = own_keys(b, a, slot, pitch), at = zn_i_add(b, square_row(b, a, pitch, false), keys);
  for (int64_t j = 0; j < a->keys / 8; j++) s[j] = zn_kb_splat(b, zn_kb_float(b, ZN_F32, 0), 4);
  for (int64_t k = 0; k < a->o.d / 16; k++)
    for (int64_t j = 0; j < a->keys / 8; j += 2) {
      zn_kref f[2];
      two_fragments(b, zn_kb_ldmatrix(b, 4, false, a->sk, zn_i_addi(b, at, j * 4 * pitch + k * 8)), f);
      s[j] = mma(lw, a, a->q[k], f[0], s[j]);
      s[j + 1] = mma(lw, a, a->q[k], f[1], s[j + 1]);
    }
}

/* f of a score, as Softmax would read it. */
static zn_kref mapped(zn_lw *lw, const attend *a, zn_kref score, zn_kref row, zn_kref key) {
  zn_kb *b = &lw->kb;
  zn_expr i[ZN_MAX_RANK];
  int64_t sq = a->o.sq, sk = a->o.sk;
  for (int d = 0; d < a->rank - 2; d++) i[d] = a->batch[d];
  zn_kref inside = zn_kb_cmp(b, ZN_K_Lt, key, zn_kb_idx(b, sk)), last_row = zn_kb_idx(b, sq - 1), last_key = zn_kb_idx(b, sk - 1);
  bool ragged_rows = sq % rows_of(a) != 0, ragged_keys = sk % (a->keys * a->shares) != 0;
  i[a->rank - 2] = zn_lw_as_expr(lw, ragged_rows ? zn_kb_bin(b, ZN_K_Min, row, last_row) : row, zn_ex_const(lw->ex, sq));
  i[a->rank - 1] = zn_lw_as_expr(lw, ragged_keys ? zn_kb_bin(b, ZN_K_Min, key, last_key) : key, zn_ex_const(lw->ex, sk));
  lw->over[lw->num_over].v = a->o.s;
  lw->over[lw->num_over++].k = zn_lw_round_to(lw, score, (zn_dtype)zn_lw_type(lw, a->o.s)->dtype);
  zn_kref x = zn_lw_load(lw, a->o.x, i);
  lw->num_over--;
  return ragged_keys ? zn_kb_select(b, inside, x, zn_kb_float(b, ZN_F32, -(double)INFINITY)) : x;
}

static zn_kref over_quad(zn_kb *b, zn_kop op, zn_kref x) {
  x = zn_kb_bin(b, op, x, zn_kb_lanexor(b, x, 1));
  return zn_kb_bin(b, op, x, zn_kb_lanexor(b, x, 2));
}

static zn_kref exp_of(zn_kb *b, zn_kref x) { /* the Min says that it is not positive */
  return zn_kb_un(b, ZN_K_Exp, zn_kb_bin(b, ZN_K_Min, zn_kb_float(b, ZN_F32, 0), x));
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
    e[j] = mapped(lw, a, zn_kb_extract(b, s[j / 2], 2 * h + j % 2), at_row, at_key);
    top = top ? zn_kb_bin(b, ZN_K_Max, top, e[j]) : e[j];
  }
  zn_kref before = zn_kb_get(b, a->max[h]);
  top = zn_kb_bin(b, ZN_K_Max, before, over_quad(b, ZN_K_Max, top));
  zn_kb_set(b, a->max[h], top);
  zn_kref shift = zn_kb_select(b, zn_kb_cmp(b, ZN_K_Eq, top, low), zero, top); /* nothing visible yet: all exponentials are 0 */
  zn_kref factor = exp_of(b, zn_kb_bin(b, ZN_K_Sub, before, shift)), part = 0;
  for (unsigned j = 0; j < n; j++) {
    e[j] = exp_of(b, zn_kb_bin(b, ZN_K_Sub, e[j], shift));
    part = part ? zn_kb_bin(b, ZN_K_Add, part, e[j]) : e[j];
  }
  zn_kref old = zn_kb_get(b, a->sum[h]);
  zn_kb_set(b, a->sum[h], zn_kb_fma(b, old, factor, part));
  return factor;
}

static void add_values(zn_lw *lw, const attend *a, zn_kref slot, zn_kref e[2][MAX_FRAGMENTS * 2], const zn_kref *factor) {
  zn_kb *b = &lw->kb;
  int64_t pitch = a->o.dv + PAD, nf = a->o.dv / 8;
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

/* x, or zero where no exponential was above zero and the graph says that such a row is zero. */
static zn_kref guarded(zn_lw *lw, const attend *a, zn_kref x, zn_kref sum) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_float(b, ZN_F32, 0);
  return a->o.guard[0] ? zn_kb_select(b, zn_kb_cmp(b, ZN_K_Eq, sum, zero), zero, x) : x;
}

static void hand_out(zn_lw *lw, const attend *a, zn_kref row) {
  zn_kb *b = &lw->kb;
  zn_expr i[ZN_MAX_RANK];
  zn_kref pair = zn_i_muli(b, zn_i_remi(b, a->lane, 4), 2);
  bool ragged = a->o.sq % rows_of(a) != 0;
  for (int d = 0; d < a->rank - 2; d++) i[d] = a->batch[d];
  for (unsigned h = 0; h < 2; h++) {
    zn_kref total = over_quad(b, ZN_K_Add, zn_kb_get(b, a->sum[h])), r = zn_i_addi(b, row, 8 * h);
    zn_kref inverse = guarded(lw, a, zn_kb_bin(b, ZN_K_Div, zn_kb_float(b, ZN_F32, 1), total), total);
    if (ragged) zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, r, zn_kb_idx(b, a->o.sq)));
    i[a->rank - 2] = zn_lw_as_expr(lw, r, zn_ex_const(lw->ex, a->o.sq));
    for (int64_t j = 0; j < a->o.dv / 8; j++)
      for (unsigned e = 0; e < 2; e++) {
        zn_kref x = zn_kb_extract(b, zn_kb_get(b, a->out[j]), 2 * h + e);
        i[a->rank - 1] = zn_lw_as_expr(lw, zn_i_addi(b, pair, j * 8 + e), zn_ex_const(lw->ex, a->o.dv));
        zn_lw_emit(lw, a->y, i, zn_kb_bin(b, ZN_K_Mul, x, inverse));
      }
    if (ragged) zn_kb_end(b);
  }
}

/* The shares of each row come together: [row][share] maxima and sums, [share][row][dv] results, in the memory of the tiles. */
static void meet(zn_lw *lw, const attend *a, zn_kref base) {
  zn_kb *b = &lw->kb;
  int64_t n = a->shares, rows = rows_of(a), pitch = a->o.dv + MEET_PAD, threads = 32 * (int64_t)a->warps;
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
    for (int64_t j = 0; j < a->o.dv / 8; j++)
      for (unsigned e = 0; e < 2; e++) {
        zn_kref x = zn_kb_extract(b, zn_kb_get(b, a->out[j]), 2 * h + e);
        zn_kb_store(b, parts, zn_i_add(b, line, zn_i_addi(b, pair, j * 8 + e)), x);
      }
  }
  zn_kb_statement(b, ZN_K_Barrier);
  zn_expr i[ZN_MAX_RANK];
  for (int d = 0; d < a->rank - 2; d++) i[d] = a->batch[d];
  for (int64_t e = 0; e < rows * a->o.dv / threads; e++) { /* dv is a multiple of 16: no rest */
    zn_kref k = zn_i_addi(b, a->thread, e * threads), r = zn_i_divi(b, k, a->o.dv), c = zn_i_remi(b, k, a->o.dv),
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
      factor[s] = exp_of(b, zn_kb_bin(b, ZN_K_Sub, factor[s], top));
      zn_kref nth = zn_kb_idx(b, s), part = zn_kb_load(b, ZN_F32, 1, sums, zn_i_add(b, zn_i_muli(b, r, n), nth));
      zn_kref y = zn_kb_load(b, ZN_F32, 1, parts, zn_i_add(b, zn_i_muli(b, zn_i_addi(b, r, s * rows), pitch), c));
      sum = s ? zn_kb_fma(b, part, factor[s], sum) : zn_kb_bin(b, ZN_K_Mul, part, factor[s]);
      x = s ? zn_kb_fma(b, y, factor[s], x) : zn_kb_bin(b, ZN_K_Mul, y, factor[s]);
    }
    zn_kref there = zn_i_add(b, base, r);
    bool ragged = a->o.sq % rows != 0;
    if (ragged) zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, there, zn_kb_idx(b, a->o.sq)));
    i[a->rank - 2] = zn_lw_as_expr(lw, there, zn_ex_const(lw->ex, a->o.sq));
    i[a->rank - 1] = zn_lw_as_expr(lw, c, zn_ex_const(lw->ex, a->o.dv));
    zn_lw_emit(lw, a->y, i, guarded(lw, a, zn_kb_bin(b, ZN_K_Div, x, sum), sum));
    if (ragged) zn_kb_end(b);
  }
}

static void team_body(zn_lw *lw, attend *a) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_idx(b, 0), base = zn_lw_ix(lw, a->row0), keys = zn_kb_idx(b, a->o.sk);
  a->lane = zn_i_remi(b, a->thread, 32);
  a->warp = zn_i_divi(b, a->thread, 32 * (int64_t)a->shares);
  a->share = zn_i_remi(b, zn_i_divi(b, a->thread, 32), a->shares);
  for (unsigned h = 0; h < 2; h++) {
    a->max[h] = zn_kb_var(b, zn_kb_float(b, ZN_F32, -(double)INFINITY));
    a->sum[h] = zn_kb_var(b, zn_kb_float(b, ZN_F32, 0));
  }
  for (int64_t j = 0; j < a->o.dv / 8; j++) a->out[j] = zn_kb_var(b, zn_kb_splat(b, zn_kb_float(b, ZN_F32, 0), 4));
  copy_rows(lw, a, a->o.q, false, base, rows_of(a), a->o.sq, a->o.d, a->sq, zero);
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

static int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

/* Blocks of four warps with rows of their own, unless that leaves multiprocessors idle. */
static void divide(zn_lw *lw, attend *a) {
  double blocks = (double)round_up(a->o.sq, ROWS * WARPS) / (ROWS * WARPS), cores = lw->caps->cores ? lw->caps->cores : 64;
  for (int d = 0; d < a->rank - 2; d++) {
    int64_t c;
    blocks *= zn_ex_is_const(lw->ex, zn_lw_dim(lw, a->o.q, d), &c) ? (double)c : 8;
  }
  a->warps = WARPS;
  a->shares = 1;
  while (a->shares < WARPS && blocks * a->shares < cores && a->o.sk > 16 * (int64_t)a->shares) a->shares *= 2;
  while (a->warps > a->shares && a->o.sq <= rows_of(a) / 2) a->warps /= 2;
  int64_t each = round_up((a->o.sk + a->shares - 1) / a->shares, 16), most = a->shares > 1 ? KEYS / 2 : KEYS;
  a->keys = each < most ? each : most;
}

zn_status zn_lower_attend(zn_lw *lw, zn_nid n) {
  if (!lw->caps->mma) return zn_lower_attend_strip(lw, n);
  zn_kb *b = &lw->kb;
  attend a = {.y = zn_lw_node(lw, n)->out[0]};
  if (!zn_attend_find(lw->g, zn_graph_uses(lw->g, lw->arena), lw->caps, n, &a.o))
    ZN_BUG(lw->ctx, "%s: no attention after all", zn_node_where(lw->ctx, zn_lw_node(lw, n)));
  a.rank = zn_lw_type(lw, a.o.q)->rank;
  a.brain = zn_lw_type(lw, a.o.q)->dtype == ZN_BF16;
  divide(lw, &a);
  zn_expr extents[ZN_MAX_RANK], var[ZN_MAX_RANK];
  zn_lw_kernel(lw, n, "attention");
  int64_t keys = a.keys * a.shares, slots = a.o.sk > keys ? 2 : 1, tiles = slots * keys * (a.o.d + a.o.dv + 2 * PAD);
  int64_t met = a.shares > 1 ? 2 * rows_of(&a) * a.shares * (a.o.dv + MEET_PAD) : 0;
  int64_t queries = rows_of(&a) * (a.o.d + PAD), stats = 4 * rows_of(&a) * a.shares;
  a.sq = zn_kb_alloc(b, ZN_F16, (uint64_t)(queries > stats ? queries : stats));
  a.sk = zn_kb_alloc(b, ZN_F16, (uint64_t)(tiles > met ? tiles : met));
  a.sv = zn_kb_ptradd(b, a.sk, zn_kb_idx(b, 2 * slots * keys * (a.o.d + PAD)));
  for (int d = 0; d < a.rank - 2; d++) extents[d] = zn_lw_dim(lw, a.o.q, d);
  extents[a.rank - 2] = zn_ex_const(lw->ex, round_up(a.o.sq, rows_of(&a)) / rows_of(&a));
  zn_lw_grid(lw, (uint32_t)a.rank - 1, extents, var);
  for (int d = 0; d < a.rank - 2; d++) a.batch[d] = var[d];
  a.row0 = zn_ex_muli(lw->ex, var[a.rank - 2], rows_of(&a));
  zn_kref threads = zn_kb_idx(b, 32 * (int64_t)a.warps);
  a.thread = zn_kb_for(b, zn_kb_idx(b, 0), threads, 1, ZN_FOR_THREAD, 32 * a.warps);
  team_body(lw, &a);
  zn_kb_end(b);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
