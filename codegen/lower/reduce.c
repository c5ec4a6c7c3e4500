/* ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceProd over any axes; ArgMax and ArgMin. */
#include "codegen/lower/reduce.h"

#include <assert.h>
#include <math.h>

enum { FEW = 16, MANY = 32, LONG = 128 }; /* partial sums of short runs, and of those from LONG on */

zn_kref zn_red_init(zn_lw *lw, zn_red r, zn_dtype t) {
  zn_kb *b = &lw->kb;
  if (zn_is_float(t)) {
    static const double v[] = {0, 1, -(double)INFINITY, (double)INFINITY, -(double)INFINITY};
    return zn_kb_float(b, t, v[r]);
  }
  if (r == ZN_RED_SUM || r == ZN_RED_PROD || t == ZN_BOOL)
    return zn_kb_int(b, t, r == ZN_RED_PROD || (t == ZN_BOOL && r == ZN_RED_MIN));
  unsigned bits = zn_int_bits(t);
  int64_t max = zn_is_signed(t) ? (int64_t)(UINT64_MAX >> (65 - bits))
                                : (int64_t)(UINT64_MAX >> (64 - bits));
  int64_t min = zn_is_signed(t) ? -max - 1 : 0;
  return zn_kb_int(b, t, r == ZN_RED_MIN ? max : min);
}

zn_kref zn_red_step(zn_lw *lw, zn_red r, zn_kref acc, zn_kref x) {
  static const uint8_t op[] = {ZN_K_Add, ZN_K_Mul, ZN_K_Max, ZN_K_Min, ZN_K_Max};
  zn_kb *b = &lw->kb;
  zn_dtype t = zn_lw_kdtype(lw, acc);
  if (t == ZN_BOOL) return zn_kb_bin(b, r == ZN_RED_MAX || r == ZN_RED_MAX_NUM ? ZN_K_Or : ZN_K_And, acc, x);
  zn_kref s = zn_kb_bin(b, (zn_kop)op[r], acc, x); /* passes a NaN in x */
  if (r < ZN_RED_MAX || r == ZN_RED_MAX_NUM || !zn_is_float(t)) return s;
  zn_kref was_nan = zn_kb_cmp(b, ZN_K_Ne, acc, acc);
  return zn_kb_select(b, was_nan, acc, s);
}

enum { TEAM = 128, WARP = 32 }; /* partial results where threads make them */

zn_kref zn_red_scratch(zn_lw *lw, zn_dtype t) { return zn_kb_alloc(&lw->kb, t, lw->caps->simt ? TEAM : MANY); }

int64_t zn_red_rows_beside(zn_lw *lw, zn_nid node, zn_dtype t, const zn_expr *dims, int axis, int64_t most) {
  int64_t n, choices[3] = {1};
  uint32_t num = 1;
  if (lw->caps->simt || zn_lw_lanes(lw, t) < 2 || axis == 0 || !zn_ex_is_const(lw->ex, dims[axis - 1], &n)) return 1;
  while (most > 1 && (n % most || (most > 2 && n < 4 * most))) most /= 2;
  for (int64_t rows = 2; rows <= ZN_RED_MAX_ROWS && n && n % rows == 0; rows *= 2) choices[num++] = rows;
  return num > 1 ? zn_lw_knob(lw, node, "rows", most, choices, num) : most;
}

zn_kref zn_red_begin_rows(zn_lw *lw, zn_dtype t, const zn_expr *dims, int axis, int64_t rows, zn_expr *idx) {
  zn_exprs *ex = lw->ex;
  zn_expr extents[ZN_MAX_RANK];
  zn_kref scratch = rows > 1 ? zn_kb_alloc(&lw->kb, t, (uint64_t)rows * MANY) : zn_red_scratch(lw, t);
  for (int d = 0; d < axis; d++) extents[d] = dims[d];
  if (rows > 1) extents[axis - 1] = zn_ex_divi(ex, extents[axis - 1], rows);
  zn_lw_grid(lw, (uint32_t)axis, extents, idx);
  if (rows == 1) return scratch;
  zn_expr row = zn_lw_for(lw, zn_ex_const(ex, rows), ZN_FOR_UNROLL, (unsigned)rows);
  idx[axis - 1] = zn_ex_add(ex, zn_ex_muli(ex, idx[axis - 1], rows), row);
  return zn_kb_ptradd(&lw->kb, scratch, zn_lw_ix(lw, zn_ex_muli(ex, row, MANY * (int64_t)zn_dtype_bytes(t))));
}

void zn_red_end_rows(zn_lw *lw, int64_t rows) {
  if (rows > 1) zn_lw_end(lw);
  zn_lw_end(lw);
}

bool zn_red_exchanges(const zn_lw *lw, zn_dtype t) {
  return lw->caps->simt && lw->caps->warp == WARP && (t == ZN_F32 || t == ZN_I32 || t == ZN_U32);
}

zn_kref zn_red_warp(zn_lw *lw, zn_red r, zn_kref x) {
  for (unsigned bits = WARP / 2; bits; bits /= 2) x = zn_red_step(lw, r, x, zn_kb_lanexor(&lw->kb, x, bits));
  return x;
}

/* The same as reduce_team, with warps that reduce by exchange; one place of `partial` each. */
static zn_kref reduce_warps(zn_lw *lw, zn_red r, zn_dtype t, zn_expr n, int64_t lanes, zn_kref partial, zn_red_elem elem,
                            void *user) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_idx(b, 0), first = zn_kb_for(b, zero, zn_kb_idx(b, lanes), 1, ZN_FOR_THREAD, (unsigned)lanes);
  zn_kref acc = zn_kb_var(b, zn_red_init(lw, r, t)), end = zn_lw_ix(lw, n);
  zn_kref j = zn_kb_for(b, first, end, lanes, ZN_FOR_SERIAL, 0);
  zn_kref x = elem(lw, user, zn_lw_as_expr(lw, j, n));
  zn_kref old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_red_step(lw, r, old, x));
  zn_kb_end(b);
  zn_kref sum = zn_red_warp(lw, r, zn_kb_get(b, acc)), warp = zn_kb_idx(b, WARP);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, zn_kb_bin(b, ZN_K_Rem, first, warp), zero));
  zn_kb_store(b, partial, zn_kb_bin(b, ZN_K_Div, first, warp), sum);
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kref total = zn_kb_load(b, t, 1, partial, zero);
  for (int64_t w = 1; w < lanes / WARP; w++) total = zn_red_step(lw, r, total, zn_kb_load(b, t, 1, partial, zn_kb_idx(b, w)));
  return total;
}

/* Threads take every TEAM-th (or WARP-th) element each; a halving tree combines them: an order that depends on n alone. */
static zn_kref reduce_team(zn_lw *lw, zn_red r, zn_dtype t, zn_expr n, zn_kref partial, zn_red_elem elem, void *user) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  int64_t lo, hi;
  zn_ex_range(ex, n, &lo, &hi);
  int64_t lanes = hi > 8 * WARP ? TEAM : WARP;
  if (zn_red_exchanges(lw, t) && lo >= WARP) return reduce_warps(lw, r, t, n, lanes, partial, elem, user);
  zn_expr l = zn_lw_for(lw, zn_ex_const(ex, lanes), ZN_FOR_VECTOR, 0);
  zn_kref acc = zn_kb_var(b, zn_red_init(lw, r, t)), first = zn_lw_ix(lw, l), end = zn_lw_ix(lw, n);
  zn_kref j = zn_kb_for(b, first, end, lanes, ZN_FOR_SERIAL, 0);
  zn_kref x = elem(lw, user, zn_lw_as_expr(lw, j, n));
  zn_kref old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_red_step(lw, r, old, x));
  zn_kb_end(b);
  zn_kb_store(b, partial, first, zn_kb_get(b, acc));
  zn_lw_end(lw);
  for (int64_t w = lanes / 2; w > 0; w /= 2) {
    zn_kref at = zn_lw_ix(lw, zn_lw_for(lw, zn_ex_const(ex, w), ZN_FOR_VECTOR, 0));
    zn_kref here = zn_kb_load(b, t, 1, partial, at);
    zn_kref there = zn_kb_load(b, t, 1, partial, zn_kb_bin(b, ZN_K_Add, at, zn_kb_idx(b, w)));
    zn_kb_store(b, partial, at, zn_red_step(lw, r, here, there));
    zn_lw_end(lw);
  }
  return zn_kb_load(b, t, 1, partial, zn_kb_idx(b, 0));
}

/* Partial sums 0 .. count-1 to one: p[i] with p[i + count/2], and so on. In registers as far as there are lanes. */
static zn_kref halving_tree(zn_lw *lw, zn_red r, zn_dtype t, int count, zn_kref partial) {
  zn_kb *b = &lw->kb;
  zn_kref p[MANY];
  bool keeps_nan = zn_is_float(t) && (r == ZN_RED_MAX || r == ZN_RED_MIN);
  int lanes = t == ZN_BOOL || keeps_nan ? 1 : (int)zn_lw_lanes(lw, t);
  if (lanes > count) lanes = count;
  int n = count / lanes;
  for (int i = 0; i < n; i++) p[i] = zn_kb_load(b, t, (unsigned)lanes, partial, zn_kb_idx(b, i * lanes));
  for (int w = n / 2; w > 0; w /= 2)
    for (int i = 0; i < w; i++) p[i] = zn_red_step(lw, r, p[i], p[i + w]);
  if (lanes == 1) return p[0];
  static const uint8_t op[] = {ZN_K_ReduceAdd, ZN_K_ReduceMul, ZN_K_ReduceMax, ZN_K_ReduceMin, ZN_K_ReduceMax};
  return zn_kb_un(b, (zn_kop)op[r], p[0]);
}

zn_kref zn_red_inner_beside(zn_lw *lw, zn_red r, zn_dtype t, zn_expr n, zn_kref partial, unsigned most, zn_red_elem elem,
                            void *user) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  if (lw->caps->simt) return reduce_team(lw, r, t, n, partial, elem, user);
  int64_t lo, hi;
  zn_ex_range(ex, n, &lo, &hi);
  int count = hi >= LONG ? MANY : FEW;
  zn_kref total = zn_kb_var(b, zn_red_init(lw, r, t));
  zn_expr done = zn_ex_const(ex, 0);
  if (hi >= 2 * count) {
    zn_expr blocks = zn_ex_divi(ex, n, count);
    done = zn_ex_muli(ex, blocks, count);
    int lanes = (int)zn_lw_lanes(lw, t) < count ? (int)zn_lw_lanes(lw, t) : count;
    unsigned jam = lanes > 1 ? (unsigned)(count / lanes) : 4;
    if (jam > most) jam = most;
    zn_expr u = zn_lw_for(lw, zn_ex_const(ex, count / lanes), ZN_FOR_UNROLL, jam);
    zn_expr v = zn_lw_for(lw, zn_ex_const(ex, lanes), ZN_FOR_VECTOR, (unsigned)lanes);
    zn_expr l = zn_ex_add(ex, zn_ex_muli(ex, u, lanes), v);
    zn_kref acc = zn_kb_var(b, zn_red_init(lw, r, t));
    zn_expr j = zn_lw_for(lw, blocks, ZN_FOR_SERIAL, 0);
    zn_kref x = elem(lw, user, zn_ex_add(ex, zn_ex_muli(ex, j, count), l));
    zn_kref old = zn_kb_get(b, acc);
    zn_kb_set(b, acc, zn_red_step(lw, r, old, x));
    zn_lw_end(lw);
    zn_kref at = zn_lw_ix(lw, l);
    zn_kb_store(b, partial, at, zn_kb_get(b, acc));
    zn_lw_end(lw);
    zn_lw_end(lw);
    zn_kb_set(b, total, halving_tree(lw, r, t, count, partial));
  }
  zn_expr rest = zn_ex_sub(ex, n, done);
  if (!zn_ex_is(ex, rest, 0)) {
    zn_expr j = zn_lw_for(lw, rest, ZN_FOR_SERIAL, 0);
    zn_kref x = elem(lw, user, zn_ex_add(ex, done, j));
    zn_kref old = zn_kb_get(b, total);
    zn_kb_set(b, total, zn_red_step(lw, r, old, x));
    zn_lw_end(lw);
  }
  return zn_kb_get(b, total);
}

zn_kref zn_red_inner(zn_lw *lw, zn_red r, zn_dtype t, zn_expr n, zn_kref partial, zn_red_elem elem, void *user) {
  return zn_red_inner_beside(lw, r, t, n, partial, MANY, elem, user);
}

/* ---------------------------------------------------------------- the operators */

typedef struct reduction {
  zn_vid x, y;
  zn_type tx, ty;
  bool axis[ZN_MAX_RANK]; /* reduced axes of x */
  int tail;               /* axes tail.. of x are all reduced and walked as one; rank when the last is kept */
  zn_expr idx[ZN_MAX_RANK];
  zn_red op;
  zn_dtype t;             /* accumulator type */
} reduction;

zn_red zn_red_of(zn_op op) {
  switch (op) {
  case ZN_OP_ReduceProd: return ZN_RED_PROD;
  case ZN_OP_ReduceMax: return ZN_RED_MAX;
  case ZN_OP_ReduceMin: return ZN_RED_MIN;
  default: return ZN_RED_SUM;
  }
}

/* False when only the run knows the axes. */
static bool find_axes(zn_lw *lw, zn_nid n, reduction *r) {
  const zn_node *node = zn_lw_node(lw, n);
  int64_t axes[ZN_MAX_RANK * 4];
  uint32_t count = 0;
  zn_vid in = zn_node_in(node, 1);
  if (in && !zn_value_i64s(lw->g, in, axes, ZN_MAX_RANK * 4, &count)) return false;
  bool all = count == 0 && !zn_node_int(node, "noop_with_empty_axes");
  for (int d = 0; d < r->tx.rank; d++) r->axis[d] = all;
  for (uint32_t i = 0; i < count; i++) r->axis[axes[i] < 0 ? axes[i] + r->tx.rank : axes[i]] = true;
  for (r->tail = r->tx.rank; r->tail > 0 && r->axis[r->tail - 1];) r->tail--;
  return true;
}

/* Index of y for the kept part of idx. */
static void out_index(const zn_lw *lw, const reduction *r, zn_expr *out) {
  int o = 0;
  bool keep = r->ty.rank == r->tx.rank;
  for (int d = 0; d < r->tx.rank; d++) {
    if (!r->axis[d])
      out[o++] = r->idx[d];
    else if (keep)
      out[o++] = zn_ex_const(lw->ex, 0);
  }
}

static zn_kref tail_elem(zn_lw *lw, void *user, zn_expr j) {
  reduction *r = user;
  zn_expr at[ZN_MAX_RANK];
  for (int d = 0; d < r->tail; d++) at[d] = r->idx[d];
  for (int d = r->tx.rank - 1; d > r->tail; d--) {
    at[d] = zn_ex_mod(lw->ex, j, r->tx.dims[d]);
    j = zn_ex_div(lw->ex, j, r->tx.dims[d]);
  }
  at[r->tail] = j;
  zn_kref x = zn_lw_load(lw, r->x, at);
  return zn_lw_kdtype(lw, x) == r->t ? x : zn_kb_cvt(&lw->kb, x, r->t);
}

static zn_kref finish(zn_lw *lw, zn_nid n, const reduction *r, zn_kref acc) {
  if (zn_lw_node(lw, n)->op != ZN_OP_ReduceMean) return acc;
  zn_expr count = zn_ex_const(lw->ex, 1);
  for (int d = 0; d < r->tx.rank; d++)
    if (r->axis[d]) count = zn_ex_mul(lw->ex, count, r->tx.dims[d]);
  zn_kref k = zn_kb_cvt(&lw->kb, zn_lw_ix(lw, count), r->t);
  return zn_kb_bin(&lw->kb, ZN_K_Div, acc, k);
}

/* An image with blocked channels, reduced to one value per channel: lanes are channels, up to four blocks go side by side,
 * and each row has a sum of its own, which keeps rounding errors as small as the general form does. */
static bool reduce_image(zn_lw *lw, zn_nid n, reduction *r) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  const zn_layout *l = &lw->g->vals[r->x].layout;
  int64_t channels, side = 1;
  if (!l->block || l->axis != 1 || r->axis[0] || r->axis[1] || r->tail != 2) return false;
  if (!zn_ex_is_const(ex, r->tx.dims[1], &channels)) return false;
  for (int64_t f = 4; f > 1 && side == 1; f--)
    if (channels / l->block % f == 0) side = f;
  zn_lw_kernel(lw, n, "reduce");
  zn_expr ext[2] = {r->tx.dims[0], zn_ex_const(ex, channels / l->block / side)}, var[2];
  zn_lw_grid(lw, 2, ext, var);
  zn_expr u = zn_lw_for(lw, zn_ex_const(ex, side), ZN_FOR_UNROLL, (unsigned)side);
  zn_expr lane = zn_lw_for(lw, zn_ex_const(ex, l->block), ZN_FOR_VECTOR, l->block);
  r->idx[0] = var[0];
  r->idx[1] = zn_ex_add(ex, zn_ex_muli(ex, zn_ex_add(ex, zn_ex_muli(ex, var[1], side), u), l->block), lane);
  zn_kref total = zn_kb_var(b, zn_red_init(lw, r->op, r->t));
  int last = r->tx.rank - 1;
  for (int d = 2; d < last; d++) r->idx[d] = zn_lw_for(lw, r->tx.dims[d], ZN_FOR_SERIAL, 0);
  zn_kref acc = zn_kb_var(b, zn_red_init(lw, r->op, r->t));
  r->idx[last] = zn_lw_for(lw, r->tx.dims[last], ZN_FOR_SERIAL, 0);
  zn_kref x = zn_lw_load(lw, r->x, r->idx), old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_red_step(lw, r->op, old, x));
  zn_lw_end(lw);
  zn_kref sum = zn_kb_get(b, total), part = zn_kb_get(b, acc);
  zn_kb_set(b, total, zn_red_step(lw, r->op, sum, part));
  for (int d = 2; d < last; d++) zn_lw_end(lw);
  zn_expr out[ZN_MAX_RANK];
  out_index(lw, r, out);
  zn_lw_emit(lw, r->y, out, finish(lw, n, r, zn_kb_get(b, total)));
  for (int i = 0; i < 3; i++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return true;
}

/* The same where all channels of a pixel lie side by side: a warp takes 32 channels and every eighth pixel. */
static bool reduce_pixels(zn_lw *lw, zn_nid n, reduction *r) {
  enum { SLICES = 8 };
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  const zn_layout *l = &lw->g->vals[r->x].layout;
  int last = r->tx.rank - 1;
  if (!lw->caps->simt || !l->block || l->axis != 1 || r->axis[0] || r->axis[1] || r->tail != 2) return false;
  zn_expr pixels = zn_ex_const(ex, 1), ext[2] = {r->tx.dims[0], zn_ex_ceildiv(ex, r->tx.dims[1], zn_ex_const(ex, WARP))}, var[2];
  for (int d = 2; d <= last; d++) pixels = zn_ex_mul(ex, pixels, r->tx.dims[d]);
  zn_lw_kernel(lw, n, "reduce");
  zn_kref partial = zn_kb_alloc(b, r->t, WARP * SLICES), none = zn_kb_idx(b, 0), all = zn_kb_idx(b, WARP * SLICES);
  zn_lw_grid(lw, 2, ext, var);
  zn_kref thread = zn_kb_for(b, none, all, 1, ZN_FOR_THREAD, WARP * SLICES), warp = zn_kb_idx(b, WARP);
  zn_kref lane = zn_kb_bin(b, ZN_K_Rem, thread, warp), slice = zn_kb_bin(b, ZN_K_Div, thread, warp);
  zn_kref first = zn_lw_ix(lw, zn_ex_muli(ex, var[1], WARP)), channel = zn_kb_bin(b, ZN_K_Add, first, lane);
  zn_kref inside = zn_kb_cmp(b, ZN_K_Lt, channel, zn_lw_ix(lw, r->tx.dims[1]));
  r->idx[0] = var[0];
  r->idx[1] = zn_lw_as_expr(lw, zn_kb_select(b, inside, channel, none), r->tx.dims[1]);
  zn_kref acc = zn_kb_var(b, zn_red_init(lw, r->op, r->t)), end = zn_lw_ix(lw, pixels);
  zn_expr pixel = zn_lw_as_expr(lw, zn_kb_for(b, slice, end, SLICES, ZN_FOR_SERIAL, 0), pixels);
  zn_kref x = tail_elem(lw, r, pixel), old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_red_step(lw, r->op, old, x));
  zn_kb_end(b);
  zn_kb_store(b, partial, thread, zn_kb_get(b, acc));
  zn_kb_statement(b, ZN_K_Barrier);
  zn_kref finishes = zn_kb_cmp(b, ZN_K_Lt, thread, warp);
  zn_kb_if(b, zn_kb_bin(b, ZN_K_And, finishes, inside));
  zn_kref total = zn_kb_load(b, r->t, 1, partial, lane);
  for (int64_t s = 1; s < SLICES; s++) {
    zn_kref at = zn_kb_bin(b, ZN_K_Add, lane, zn_kb_idx(b, s * WARP));
    total = zn_red_step(lw, r->op, total, zn_kb_load(b, r->t, 1, partial, at));
  }
  zn_expr to[ZN_MAX_RANK];
  out_index(lw, r, to);
  zn_lw_emit(lw, r->y, to, finish(lw, n, r, total));
  zn_kb_end(b);
  zn_kb_end(b);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return true;
}

/* ---- long rows of which there are few, where threads make teams: parts of a row, then the parts ---- */

typedef struct parted {
  reduction *r;
  zn_expr count, each, rows; /* elements of a row and of a part; rows */
  int64_t parts;
  zn_loc at;                 /* [row][part] */
  zn_expr row, first;        /* where a team works */
} parted;

/* How many parts; 1: none. */
static int64_t parts_for(zn_lw *lw, const reduction *r, zn_expr rows, zn_expr count) {
  enum { LEAST = 8192, EACH = 1024, UNKNOWN = 64 };
  int64_t cores = lw->caps->cores ? lw->caps->cores : 64, m, n, most;
  for (int d = 0; d < r->tail; d++)
    if (r->axis[d]) return 1;
  if (!lw->caps->simt || !zn_ex_is_const(lw->ex, rows, &m) || m < 1 || m > cores / 4) return 1;
  most = 2 * cores / m;
  if (!zn_ex_is_const(lw->ex, count, &n)) return most < UNKNOWN ? most : UNKNOWN;
  if (n < LEAST) return 1;
  return n / EACH < most ? n / EACH : most;
}

static void open_rows(zn_lw *lw, parted *p, bool with_parts) {
  zn_exprs *ex = lw->ex;
  zn_expr extents[ZN_MAX_RANK + 1], var[ZN_MAX_RANK + 1];
  uint32_t tail = (uint32_t)p->r->tail;
  for (uint32_t d = 0; d < tail; d++) extents[d] = p->r->tx.dims[d];
  extents[tail] = zn_ex_const(ex, p->parts);
  zn_lw_grid(lw, with_parts ? tail + 1 : tail, extents, var);
  p->row = zn_ex_const(ex, 0);
  for (uint32_t d = 0; d < tail; d++) {
    p->r->idx[d] = var[d];
    p->row = zn_ex_add(ex, zn_ex_mul(ex, p->row, extents[d]), var[d]);
  }
  if (with_parts) p->first = zn_ex_mul(ex, var[tail], p->each);
  p->row = zn_ex_muli(ex, p->row, p->parts);
  if (with_parts) p->row = zn_ex_add(ex, p->row, var[tail]);
}

static zn_kref elem_of_part(zn_lw *lw, void *user, zn_expr j) {
  const parted *p = user;
  return tail_elem(lw, p->r, zn_ex_add(lw->ex, p->first, j));
}

static zn_kref elem_of_parts(zn_lw *lw, void *user, zn_expr j) {
  const parted *p = user;
  zn_kref from = zn_lw_ptr_loc(lw, p->at, ZN_KP_IN, p->r->t);
  return zn_lw_load_at(lw, from, p->r->t, zn_ex_add(lw->ex, p->row, j));
}

static bool reduce_parts(zn_lw *lw, zn_nid n, reduction *r) {
  zn_exprs *ex = lw->ex;
  parted p = {.r = r, .count = zn_ex_const(ex, 1), .rows = zn_ex_const(ex, 1)};
  for (int d = 0; d < r->tail; d++) p.rows = zn_ex_mul(ex, p.rows, r->tx.dims[d]);
  for (int d = r->tail; d < r->tx.rank; d++) p.count = zn_ex_mul(ex, p.count, r->tx.dims[d]);
  p.parts = parts_for(lw, r, p.rows, p.count);
  if (p.parts < 2) return false;
  p.each = zn_ex_ceildiv(ex, p.count, zn_ex_const(ex, p.parts));
  p.at = zn_lw_scratch(lw, zn_ex_muli(ex, p.rows, p.parts * zn_dtype_bytes(r->t)));
  zn_lw_kernel(lw, n, "reduce_part");
  lw->num_epilogue = 0;
  zn_kref partial = zn_red_scratch(lw, r->t);
  open_rows(lw, &p, true);
  zn_expr none = zn_ex_const(ex, 0), here = zn_ex_min(ex, p.each, zn_ex_max(ex, none, zn_ex_sub(ex, p.count, p.first)));
  zn_kref part = zn_red_inner(lw, r->op, r->t, here, partial, elem_of_part, &p);
  zn_lw_store_at(lw, zn_lw_ptr_loc(lw, p.at, ZN_KP_OUT, r->t), r->t, p.row, part);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  zn_lw_kernel(lw, n, "reduce");
  partial = zn_red_scratch(lw, r->t);
  open_rows(lw, &p, false);
  zn_kref all = zn_red_inner(lw, r->op, r->t, zn_ex_const(ex, p.parts), partial, elem_of_parts, &p);
  zn_expr out[ZN_MAX_RANK];
  out_index(lw, r, out);
  zn_lw_emit(lw, r->y, out, finish(lw, n, r, all));
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return true;
}

static zn_status reduce_kernel(zn_lw *lw, zn_nid n) {
  zn_kb *b = &lw->kb;
  const zn_node *node = zn_lw_node(lw, n);
  reduction r = {.x = node->in[0], .y = node->out[0], .tx = *zn_lw_type(lw, node->in[0]),
                 .ty = *zn_lw_type(lw, node->out[0])};
  r.op = zn_red_of(node->op);
  r.t = zn_lw_ctype((zn_dtype)r.tx.dtype);
  if (!find_axes(lw, n, &r)) return zn_lower_reduce_late(lw, n);
  if (reduce_pixels(lw, n, &r) || reduce_image(lw, n, &r) || reduce_parts(lw, n, &r)) return ZN_OK;
  zn_lw_kernel(lw, n, "reduce");
  bool inner = r.tail < r.tx.rank;
  zn_kref partial = inner ? zn_red_scratch(lw, r.t) : 0;
  zn_expr extents[ZN_MAX_RANK], vars[ZN_MAX_RANK];
  int kept[ZN_MAX_RANK], num = 0;
  for (int d = 0; d < r.tx.rank; d++)
    if (!r.axis[d]) kept[num++] = d;
  int grid = inner || num == 0 ? num : num - 1; /* the last kept axis is the vector axis otherwise */
  for (int i = 0; i < num; i++) extents[i] = r.tx.dims[kept[i]];
  zn_lw_grid(lw, (uint32_t)grid, extents, vars);
  if (grid < num) vars[grid] = zn_lw_for(lw, extents[grid], ZN_FOR_VECTOR, 0);
  for (int i = 0; i < num; i++) r.idx[kept[i]] = vars[i];
  zn_kref acc = zn_kb_var(b, zn_red_init(lw, r.op, r.t));
  int loops = 0;
  for (int d = 0; d < r.tail; d++)
    if (r.axis[d]) {
      r.idx[d] = zn_lw_for(lw, r.tx.dims[d], ZN_FOR_SERIAL, 0);
      loops++;
    }
  zn_kref x;
  if (inner) {
    zn_expr count = zn_ex_const(lw->ex, 1);
    for (int d = r.tail; d < r.tx.rank; d++) count = zn_ex_mul(lw->ex, count, r.tx.dims[d]);
    x = zn_red_inner(lw, r.op, r.t, count, partial, tail_elem, &r);
  } else {
    x = zn_lw_load(lw, r.x, r.idx);
  }
  zn_kref old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_red_step(lw, r.op, old, x));
  while (loops-- > 0) zn_lw_end(lw);
  zn_expr out[ZN_MAX_RANK];
  out_index(lw, &r, out);
  zn_lw_emit(lw, r.y, out, finish(lw, n, &r, zn_kb_get(b, acc)));
  if (grid < num) zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_reduce = {NULL, reduce_kernel};

/* Index of the largest (smallest) element along one axis; first or last of equals; NaN wins as in numpy. */
static zn_status argreduce_kernel(zn_lw *lw, zn_nid n) {
  zn_kb *b = &lw->kb;
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid x = node->in[0], y = node->out[0];
  zn_type tx = *zn_lw_type(lw, x);
  bool is_max = node->op == ZN_OP_ArgMax, last = zn_node_int(node, "select_last_index") != 0;
  int64_t axis = zn_node_int(node, "axis");
  if (axis < 0) axis += tx.rank;
  bool keep = zn_lw_type(lw, y)->rank == tx.rank;
  zn_lw_kernel(lw, n, "arg");
  zn_expr extents[ZN_MAX_RANK], vars[ZN_MAX_RANK], idx[ZN_MAX_RANK], out[ZN_MAX_RANK];
  uint32_t g = 0;
  int o = 0;
  for (int d = 0; d < tx.rank; d++)
    if (d != axis) extents[g++] = tx.dims[d];
  zn_lw_grid(lw, g, extents, vars);
  for (int d = 0, k = 0; d < tx.rank; d++) {
    if (d != axis)
      idx[d] = out[o++] = vars[k++];
    else if (keep)
      out[o++] = zn_ex_const(lw->ex, 0);
  }
  idx[axis] = zn_ex_const(lw->ex, 0);
  zn_kref best = zn_kb_var(b, zn_lw_load(lw, x, idx));
  zn_kref at = zn_kb_var(b, zn_kb_int(b, ZN_I64, 0));
  zn_expr j = zn_lw_for(lw, tx.dims[axis], ZN_FOR_SERIAL, 0);
  idx[axis] = j;
  zn_kref v = zn_lw_load(lw, x, idx), old = zn_kb_get(b, best);
  zn_kop op = is_max ? (last ? ZN_K_Ge : ZN_K_Gt) : (last ? ZN_K_Le : ZN_K_Lt);
  zn_kref better = zn_kb_cmp(b, op, v, old);
  if (zn_is_float(zn_lw_kdtype(lw, v))) {
    zn_kref vn = zn_kb_cmp(b, ZN_K_Ne, v, v), ok = zn_kb_cmp(b, ZN_K_Eq, old, old);
    zn_kref first_nan = last ? vn : zn_kb_bin(b, ZN_K_And, vn, ok);
    better = zn_kb_bin(b, ZN_K_Or, better, first_nan);
  }
  zn_kref jk = zn_kb_cvt(b, zn_lw_ix(lw, j), ZN_I64), old_at = zn_kb_get(b, at);
  zn_kb_set(b, best, zn_kb_select(b, better, v, old));
  zn_kb_set(b, at, zn_kb_select(b, better, jk, old_at));
  zn_lw_end(lw);
  zn_lw_emit(lw, y, out, zn_kb_get(b, at));
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_argreduce = {NULL, argreduce_kernel};
