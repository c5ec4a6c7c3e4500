/* MaxPool (with indices), AveragePool and LpPool over any number of spatial axes: lanes run along the last spatial axis, or
 * along blocked channels; taps are serial loops. Taps outside the input are read at a clamped position and masked, so that
 * no branch is needed. The largest of plain images whose windows overlap or leave the image along the last axis comes in
 * two steps: that of the rows of a window, for all columns side by side, into a line with borders, then along the line. */
#include <string.h>

#include "codegen/lower/reduce.h"
#include "codegen/lower/window.h"

typedef struct pool {
  zn_nid n;
  zn_vid x, y, indices;
  zn_type tx, ty;
  zn_window w;
  zn_dtype ct;
  zn_expr idx[ZN_MAX_RANK];  /* output position */
  zn_expr at[ZN_MAX_RANK];   /* clamped input position of the current tap */
  zn_kref inside;            /* the tap lies within the input */
  bool always;               /* ... provably */
  bool by_lines;             /* taps of the last axis are not among the loops */
} pool;

/* Channels are lanes, or the last axis has no taps: positions are scalars, so the taps outside the input are left out
 * instead of masked. */
static bool bounded(const zn_lw *lw, const pool *p) { return p->by_lines || lw->g->vals[p->y].layout.block != 0; }

static unsigned pixels_at_once(const zn_lw *lw, const pool *p) {
  for (int i = 0; i < p->w.rank; i++)
    if (!zn_ex_is(lw->ex, p->w.pad_lo[i], 0) || !zn_ex_is(lw->ex, p->w.pad_hi[i], 0)) return 1;
  return 4;
}

/* The loop over the taps of axis i that lie inside the input; returns the tap. */
static zn_expr inner_taps(zn_lw *lw, const pool *p, int i, zn_expr start) {
  zn_exprs *ex = lw->ex;
  zn_expr zero = zn_ex_const(ex, 0), dilation = zn_ex_const(ex, p->w.dilation[i]);
  zn_expr kernel = zn_ex_const(ex, p->w.kernel[i]), n = p->tx.dims[i + 2];
  zn_expr first = zn_ex_ceildiv(ex, zn_ex_max(ex, zn_ex_sub(ex, zero, start), zero), dilation);
  zn_expr end = zn_ex_min(ex, zn_ex_ceildiv(ex, zn_ex_sub(ex, n, start), dilation), kernel);
  if (zn_ex_is(ex, first, 0) && end == kernel) return zn_lw_for(lw, kernel, ZN_FOR_SERIAL, 0);
  zn_expr from = zn_lw_as_expr(lw, zn_lw_ix(lw, first), zn_ex_addi(ex, kernel, 1));
  zn_expr count = zn_lw_as_expr(lw, zn_lw_ix(lw, zn_ex_sub(ex, end, from)), zn_ex_addi(ex, kernel, 1));
  return zn_ex_add(ex, from, zn_lw_for(lw, count, ZN_FOR_SERIAL, 0));
}

/* Opens the loops over taps and locates the current one; zn_lw_end as many times as it returns closes them. */
static int open_taps(zn_lw *lw, pool *p) {
  const int axes = p->w.rank - p->by_lines;
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_expr zero = zn_ex_const(ex, 0), pos[ZN_MAX_RANK] = {0};
  for (int i = 0; i < axes; i++) {
    zn_expr o = zn_ex_sub(ex, zn_ex_muli(ex, p->idx[i + 2], p->w.stride[i]), p->w.pad_lo[i]);
    zn_expr k = bounded(lw, p) ? inner_taps(lw, p, i, o) : zn_lw_for(lw, zn_ex_const(ex, p->w.kernel[i]), ZN_FOR_SERIAL, 0);
    pos[i] = zn_ex_add(ex, o, zn_ex_muli(ex, k, p->w.dilation[i]));
  }
  p->at[0] = p->idx[0];
  p->at[1] = p->idx[1];
  p->inside = zn_kb_int(b, ZN_BOOL, 1);
  p->always = true;
  for (int i = 0; i < axes; i++) {
    zn_expr n = p->tx.dims[i + 2], q = pos[i];
    if (bounded(lw, p)) {
      p->at[i + 2] = q;
      continue;
    }
    if (!zn_ex_le(ex, zero, q) || !zn_ex_lt(ex, q, n)) {
      p->always = false;
      zn_kref in = zn_lw_in_range(lw, q, n);
      p->inside = zn_kb_bin(b, ZN_K_And, p->inside, in);
      q = zn_ex_max(ex, zn_ex_min(ex, q, zn_ex_addi(ex, n, -1)), zero);
    }
    p->at[i + 2] = q;
  }
  return axes;
}

static void close(zn_lw *lw, int loops) {
  while (loops-- > 0) zn_lw_end(lw);
}

static pool read_node(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  pool p = {.n = n, .x = node->in[0], .y = node->out[0]};
  p.tx = *zn_lw_type(lw, p.x);
  p.ty = *zn_lw_type(lw, p.y);
  p.ct = zn_lw_ctype((zn_dtype)p.tx.dtype);
  return p;
}

/* Position of the current tap in the flattened input, row or column major over the spatial axes. */
static zn_kref flat_position(zn_lw *lw, const pool *p) {
  zn_exprs *ex = lw->ex;
  bool column = zn_node_int(zn_lw_node(lw, p->n), "storage_order") != 0;
  zn_expr f = zn_ex_add(ex, zn_ex_mul(ex, p->at[0], p->tx.dims[1]), p->at[1]), s = zn_ex_const(ex, 0);
  for (int i = 0; i < p->w.rank; i++) {
    int a = column ? p->w.rank - 1 - i : i;
    f = zn_ex_mul(ex, f, p->tx.dims[i + 2]);
    s = zn_ex_add(ex, zn_ex_mul(ex, s, p->tx.dims[a + 2]), p->at[a + 2]);
  }
  return zn_kb_cvt(&lw->kb, zn_lw_ix(lw, zn_ex_add(ex, f, s)), ZN_I64);
}

typedef struct line {
  int64_t n, lo, out, step; /* elements in and before the first of a row; results, and from one to the next */
  int64_t taps, dilation;
  int64_t size;             /* with both borders */
  zn_kref at;
} line;

/* Can the pool go by lines, and should it? */
static bool read_line(zn_lw *lw, const pool *p, line *l) {
  zn_exprs *ex = lw->ex;
  const int i = p->w.rank - 1;
  if (p->indices || lw->caps->simt || lw->opts->frugal || lw->g->vals[p->y].layout.block || p->ct == ZN_PTR) return false;
  if (!zn_ex_is_const(ex, p->tx.dims[i + 2], &l->n) || !zn_ex_is_const(ex, p->ty.dims[i + 2], &l->out)) return false;
  if (!zn_ex_is_const(ex, p->w.pad_lo[i], &l->lo) || l->n < 1 || l->out < 1 || l->lo < 0) return false;
  l->step = p->w.stride[i];
  l->taps = p->w.kernel[i];
  l->dilation = p->w.dilation[i];
  const int64_t end = (l->out - 1) * l->step + (l->taps - 1) * l->dilation + 1;
  l->size = end > l->lo + l->n ? end : l->lo + l->n;
  if (l->taps == 1 || l->taps > 32 || l->size * zn_dtype_bytes(p->ct) > zn_lw_line_bytes(lw)) return false;
  return l->taps > l->step || l->lo || end > l->n;
}

/* The line of the current row of results: the largest of each column's rows, and least values around them. */
static void fill_line(zn_lw *lw, pool *p, const line *l) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const int64_t start[] = {0, l->lo + l->n}, count[] = {l->lo, l->size - l->lo - l->n};
  for (int side = 0; side < 2; side++) {
    if (!count[side]) continue;
    zn_expr i = zn_lw_for(lw, zn_ex_const(ex, count[side]), ZN_FOR_SERIAL, 0);
    zn_lw_store_at(lw, l->at, p->ct, zn_ex_addi(ex, i, start[side]), zn_red_init(lw, ZN_RED_MAX, p->ct));
    zn_lw_end(lw);
  }
  zn_expr i = zn_lw_for_line(lw, p->ct, l->n);
  zn_kref best = zn_kb_var(b, zn_red_init(lw, ZN_RED_MAX, p->ct));
  const int loops = open_taps(lw, p);
  p->at[p->w.rank + 1] = i;
  zn_kref x = zn_lw_load(lw, p->x, p->at), old = zn_kb_get(b, best);
  zn_kb_set(b, best, zn_kb_bin(b, ZN_K_Max, x, old));
  close(lw, loops);
  zn_lw_store_at(lw, l->at, p->ct, zn_ex_addi(ex, i, l->lo), zn_kb_get(b, best));
  close(lw, 2);
}

static zn_status maxpool_lines(zn_lw *lw, pool *p, line *l) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const int last = p->w.rank + 1;
  p->by_lines = true;
  zn_lw_kernel(lw, p->n, "maxpool");
  l->at = zn_kb_alloc(b, p->ct, (uint64_t)l->size);
  zn_lw_grid(lw, (uint32_t)last, p->ty.dims, p->idx);
  fill_line(lw, p, l);
  p->idx[last] = zn_lw_for_line(lw, p->ct, l->out);
  const zn_expr first = zn_ex_muli(ex, p->idx[last], l->step);
  zn_kref best = 0;
  for (int64_t k = 0; k < l->taps; k++) {
    zn_kref x = zn_lw_load_at(lw, l->at, p->ct, zn_ex_addi(ex, first, k * l->dilation));
    best = k ? zn_kb_bin(b, ZN_K_Max, x, best) : x;
  }
  zn_lw_emit(lw, p->y, p->idx, best);
  close(lw, 3);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

static zn_status maxpool_kernel(zn_lw *lw, zn_nid n) {
  zn_kb *b = &lw->kb;
  pool p = read_node(lw, n);
  const zn_node *node = zn_lw_node(lw, n);
  p.indices = node->num_out > 1 ? node->out[1] : 0;
  ZN_TRY(zn_window_read(lw, n, p.x, 0, p.y, &p.w));
  line l;
  if (read_line(lw, &p, &l)) return maxpool_lines(lw, &p, &l);
  zn_lw_kernel(lw, n, "maxpool");
  int loops = zn_lw_over(lw, p.y, pixels_at_once(lw, &p), p.idx);
  zn_kref best = zn_kb_var(b, zn_red_init(lw, ZN_RED_MAX, p.ct));
  zn_kref where = p.indices ? zn_kb_var(b, zn_kb_int(b, ZN_I64, -1)) : 0;
  const int taps = open_taps(lw, &p);
  zn_kref x = zn_lw_load(lw, p.x, p.at), old = zn_kb_get(b, best);
  zn_kref more = zn_kb_cmp(b, ZN_K_Gt, x, old);
  if (!p.always) more = zn_kb_bin(b, ZN_K_And, more, p.inside);
  if (where) { /* the first tap inside counts even when it holds the least value */
    zn_kref pos = flat_position(lw, &p), have = zn_kb_get(b, where);
    zn_kref none = zn_kb_cmp(b, ZN_K_Lt, have, zn_kb_int(b, ZN_I64, 0));
    zn_kref first = zn_kb_bin(b, ZN_K_And, none, p.inside);
    zn_kref take = zn_kb_bin(b, ZN_K_Or, more, first);
    zn_kb_set(b, where, zn_kb_select(b, take, pos, have));
  }
  zn_kb_set(b, best, zn_kb_select(b, more, x, old));
  close(lw, taps);
  if (where) zn_lw_store(lw, p.indices, p.idx, zn_kb_get(b, where));
  zn_lw_emit(lw, p.y, p.idx, zn_kb_get(b, best));
  close(lw, loops);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_maxpool = {NULL, maxpool_kernel};

/* Taps of the window that lie within the padded input: what count_include_pad divides by. */
static zn_expr padded_taps(zn_lw *lw, const pool *p) {
  zn_exprs *ex = lw->ex;
  zn_expr c = zn_ex_const(ex, 1);
  for (int i = 0; i < p->w.rank; i++) {
    zn_expr start = zn_ex_sub(ex, zn_ex_muli(ex, p->idx[i + 2], p->w.stride[i]), p->w.pad_lo[i]);
    zn_expr left = zn_ex_sub(ex, zn_ex_add(ex, p->tx.dims[i + 2], p->w.pad_hi[i]), start);
    zn_expr fit = zn_ex_ceildiv(ex, left, zn_ex_const(ex, p->w.dilation[i]));
    c = zn_ex_mul(ex, c, zn_ex_min(ex, fit, zn_ex_const(ex, p->w.kernel[i])));
  }
  return c;
}

static zn_status averagepool(zn_lw *lw, zn_nid n, pool *p) {
  zn_kb *b = &lw->kb;
  bool include = zn_node_int(zn_lw_node(lw, n), "count_include_pad") != 0;
  zn_lw_kernel(lw, n, "averagepool");
  int loops = zn_lw_over(lw, p->y, pixels_at_once(lw, p), p->idx);
  zn_kref sum = zn_kb_var(b, zn_kb_float(b, p->ct, 0)), cnt = zn_kb_var(b, zn_kb_float(b, p->ct, 0));
  const int taps = open_taps(lw, p);
  zn_kref x = zn_lw_load(lw, p->x, p->at), zero = zn_kb_float(b, p->ct, 0);
  zn_kref v = p->always ? x : zn_kb_select(b, p->inside, x, zero);
  zn_kref old = zn_kb_get(b, sum);
  zn_kb_set(b, sum, zn_kb_bin(b, ZN_K_Add, old, v));
  if (!include) {
    zn_kref one = zn_kb_float(b, p->ct, 1), c = zn_kb_get(b, cnt);
    zn_kref inc = p->always ? one : zn_kb_select(b, p->inside, one, zero);
    zn_kb_set(b, cnt, zn_kb_bin(b, ZN_K_Add, c, inc));
  }
  close(lw, taps);
  zn_kref d = include ? zn_kb_cvt(b, zn_lw_ix(lw, padded_taps(lw, p)), p->ct) : zn_kb_get(b, cnt);
  zn_kref total = zn_kb_get(b, sum);
  zn_lw_emit(lw, p->y, p->idx, zn_kb_bin(b, ZN_K_Div, total, d));
  close(lw, loops);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

static zn_status lppool(zn_lw *lw, zn_nid n, pool *p) {
  zn_kb *b = &lw->kb;
  double order = (double)zn_node_int(zn_lw_node(lw, n), "p");
  zn_lw_kernel(lw, n, "lppool");
  int loops = zn_lw_over(lw, p->y, pixels_at_once(lw, p), p->idx);
  zn_kref sum = zn_kb_var(b, zn_kb_float(b, p->ct, 0));
  const int taps = open_taps(lw, p);
  zn_kref a = zn_kb_un(b, ZN_K_Abs, zn_lw_load(lw, p->x, p->at)), v;
  if (order == 1)
    v = a;
  else if (order == 2)
    v = zn_kb_bin(b, ZN_K_Mul, a, a);
  else
    v = zn_kb_bin(b, ZN_K_Pow, a, zn_kb_float(b, p->ct, order));
  zn_kref zero = zn_kb_float(b, p->ct, 0);
  if (!p->always) v = zn_kb_select(b, p->inside, v, zero);
  zn_kref old = zn_kb_get(b, sum);
  zn_kb_set(b, sum, zn_kb_bin(b, ZN_K_Add, old, v));
  close(lw, taps);
  zn_kref s = zn_kb_get(b, sum);
  if (order == 2) s = zn_kb_un(b, ZN_K_Sqrt, s);
  if (order > 2) s = zn_kb_bin(b, ZN_K_Pow, s, zn_kb_float(b, p->ct, 1 / order));
  zn_lw_emit(lw, p->y, p->idx, s);
  close(lw, loops);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

static zn_status pool_kernel(zn_lw *lw, zn_nid n) {
  pool p = read_node(lw, n);
  ZN_TRY(zn_window_read(lw, n, p.x, 0, p.y, &p.w));
  if (zn_lw_node(lw, n)->op == ZN_OP_LpPool) return lppool(lw, n, &p);
  return averagepool(lw, n, &p);
}
const zn_lower zn_lower_pool = {NULL, pool_kernel};
