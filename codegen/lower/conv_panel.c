/* Conv as a product of packed weights and a packed panel of pixels, for constant image sizes. A grid iteration takes a
 * tile of output pixels (whole rows, or a piece of one), and for each chunk of input channels
 *   packs     every (channel, tap) row of its pixels side by side into a panel on the stack that stays in cache,
 *   computes  register tiles of `mr` output channels x `nv` vectors of pixels over the whole chunk.
 * The last tile of each axis starts earlier instead of being smaller, so that there is one register tile and no tail
 * code: what overlaps is computed twice, with equal results. Partial sums of all but the last chunk wait in the
 * workspace, one cell per register tile, so overlapping tiles do not add up. */
#include <assert.h>

#include "codegen/lower/conv.h"
#include "codegen/lower/gemm.h"

enum { PANEL_BYTES = 192 << 10, PANEL_MAX = 1 << 20, MAX_PIXELS = 256, MIN_GRID = 16 };

typedef struct shape {
  unsigned mr, nv;
  double speed; /* part of the peak in the steady state: loads per multiply-add, latency */
} shape;

/* 16 vector registers: mr * nv accumulators + nv operands + one broadcast. */
static const shape shapes[] = {{4, 3, 1.0}, {6, 2, 0.98}, {5, 2, 0.94}, {4, 2, 0.85}, {12, 1, 0.88},
                               {8, 1, 0.82}, {3, 3, 0.93}, {2, 4, 0.86}};

enum { NUM_SHAPES = sizeof shapes / sizeof *shapes };

typedef struct panel {
  zn_conv *v;
  int64_t ic, oc, groups, taps;
  int64_t rows, width;     /* output image: all axes but the last flattened, and the last */
  int64_t tile_rows, tile_width, row_tiles, col_tiles;
  int64_t pixels;          /* of a tile */
  unsigned mr, nv, lanes;
  int64_t blocks, pblocks; /* register tiles along channels and pixels */
  int64_t chunk, chunks;   /* input channels per chunk */
  int64_t split, per_split; /* grid parts along channels, blocks in each */
  bool flat;               /* the input is read in place: the image is one row */
  zn_loc weights, partial;
  zn_kref stack;
} panel;

static bool read_sizes(zn_lw *lw, panel *p) {
  zn_exprs *ex = lw->ex;
  const zn_conv *v = p->v;
  if (!zn_ex_is_const(ex, v->icg, &p->ic) || !zn_ex_is_const(ex, v->ocg, &p->oc)) return false;
  if (!zn_ex_is_const(ex, v->group, &p->groups)) return false;
  p->rows = 1;
  p->taps = v->taps;
  for (int i = 0; i < v->win.rank; i++) {
    int64_t d;
    if (!zn_ex_is_const(ex, v->ty.dims[i + 2], &d) || d < 1) return false;
    if (!zn_ex_is_const(ex, v->tx.dims[i + 2], NULL)) return false;
    if (i < v->win.rank - 1)
      p->rows *= d;
    else
      p->width = d;
  }
  return true;
}

/* Useful part of all pixels computed, for a tile of r rows x w columns in steps of px. */
static double pixel_use(const panel *p, int64_t r, int64_t w, int64_t px) {
  int64_t tiles = zn_ceil_div(p->rows, r) * zn_ceil_div(p->width, w);
  return (double)(p->rows * p->width) / (double)(tiles * zn_ceil_div(r * w, px) * px);
}

/* The best tile for a register shape; leaves p alone when it has one that is better than that. */
static void choose_tile(panel *p, const shape *s, double *best) {
  int64_t px = (int64_t)s->nv * p->lanes;
  double channel_use = (double)p->oc / (double)(zn_ceil_div(p->oc, s->mr) * s->mr);
  for (int k = 1; k <= MAX_PIXELS; k++) {
    int64_t r = p->width <= MAX_PIXELS ? k : 1;
    int64_t w = p->width <= MAX_PIXELS ? p->width : k;
    if (r > p->rows || r * w > MAX_PIXELS || r * w < px) continue;
    double n = (double)(r * w);
    double score = s->speed * channel_use * pixel_use(p, r, w, px) * n / (n + 6);
    if (score <= *best) continue;
    *best = score;
    p->mr = s->mr;
    p->nv = s->nv;
    p->tile_rows = r;
    p->tile_width = w;
  }
}

static bool choose(zn_lw *lw, panel *p) {
  double best = 0;
  int64_t codes[NUM_SHAPES];
  uint32_t num = 0;
  for (size_t i = 0; i < NUM_SHAPES; i++)
    if (p->oc >= shapes[i].mr) {
      choose_tile(p, &shapes[i], &best);
      codes[num++] = (int64_t)shapes[i].mr * 16 + shapes[i].nv;
    }
  if (best == 0) return false;
  int64_t usual = (int64_t)p->mr * 16 + p->nv, code = zn_lw_knob(lw, p->v->n, "tile", usual, codes, num);
  for (size_t i = 0; i < NUM_SHAPES && code != usual; i++) {
    panel other = *p;
    double score = 0;
    if (shapes[i].mr * 16 + shapes[i].nv != code) continue;
    choose_tile(&other, &shapes[i], &score);
    if (score > 0) *p = other;
  }
  p->row_tiles = zn_ceil_div(p->rows, p->tile_rows);
  p->col_tiles = zn_ceil_div(p->width, p->tile_width);
  p->pixels = p->tile_rows * p->tile_width;
  p->blocks = zn_ceil_div(p->oc, p->mr);
  p->pblocks = zn_ceil_div(p->pixels, (int64_t)p->nv * p->lanes);
  int64_t bytes = p->pixels * p->taps * zn_dtype_bytes(p->v->ct);
  if (bytes > PANEL_MAX) return false;
  p->chunk = PANEL_BYTES / bytes < 1 ? 1 : PANEL_BYTES / bytes;
  if (p->chunk > p->ic) p->chunk = p->ic;
  p->chunks = zn_ceil_div(p->ic, p->chunk);
  p->chunk = zn_ceil_div(p->ic, p->chunks);
  p->chunks = zn_ceil_div(p->ic, p->chunk);
  int64_t n = 1;
  if (!zn_ex_is_const(lw->ex, p->v->ty.dims[0], &n) || n < 1) n = 1;
  int64_t grid = n * p->groups * p->row_tiles * p->col_tiles;
  p->split = grid >= MIN_GRID ? 1 : zn_ceil_div(MIN_GRID, grid);
  int64_t most = p->oc / 48 < 1 ? 1 : p->oc / 48; /* packing must stay cheap */
  if (p->split > most) p->split = most;
  p->per_split = zn_ceil_div(p->blocks, p->split);
  p->split = zn_ceil_div(p->blocks, p->per_split);
  return true;
}

/* [group][block][k][mr]; the last block of a group starts at oc - mr. */
static void pack(zn_lw *lw, panel *p, const zn_htensor *w) {
  uint64_t k = (uint64_t)(p->ic * p->taps), count = (uint64_t)(p->groups * p->blocks) * k * p->mr;
  zn_dtype t = p->v->ct;
  char *data = zn_arena_array(&lw->ctx->graph, count, zn_dtype_bytes(t));
  uint64_t to = 0;
  for (int64_t g = 0; g < p->groups; g++)
    for (int64_t b = 0; b < p->blocks; b++) {
      int64_t first = b * p->mr < p->oc - p->mr ? b * p->mr : p->oc - p->mr;
      if (t == ZN_F32 && w->dtype == ZN_F32) {
        const float *from = (const float *)w->data + (uint64_t)(g * p->oc + first) * k;
        float *dst = (float *)(void *)data + to;
        for (uint64_t i = 0; i < k; i++)
          for (unsigned r = 0; r < p->mr; r++) *dst++ = from[r * k + i];
        to += k * p->mr;
        continue;
      }
      for (uint64_t i = 0; i < k; i++)
        for (unsigned r = 0; r < p->mr; r++) {
          uint64_t from = (uint64_t)(g * p->oc + first + r) * k + i;
          zn_store_f64(t, data, to++, zn_load_f64(w->dtype, w->data, from));
        }
    }
  const char *name = zn_arena_printf(lw->arena, "%s_tiles", lw->g->vals[p->v->w].name);
  p->weights = zn_lw_const(lw, name, t, count, data);
}

/* Variables of the grid and of the current chunk. */
typedef struct place {
  zn_expr n, g, row, col; /* first row and column of the tile */
  zn_expr tile_no, part;
  zn_expr c0, cn;         /* first input channel of the chunk, number of channels */
  zn_expr chunk_no;
} place;

/* Output position of pixel `at` of the tile. */
static void locate(zn_lw *lw, const panel *p, const place *q, zn_expr at, zn_expr *pos) {
  const int64_t within = !p->flat && p->tile_width < p->width ? 0 : p->width;
  zn_conv_locate(lw, p->v, within, q->row, zn_ex_add(lw->ex, q->col, at), pos);
}

/* panel[(c, tap)][pixel] = input under that tap, `len` pixels of one row from `at`. */
static void copy_row(zn_lw *lw, panel *p, const place *q, zn_expr c, const zn_expr *tap, zn_expr k,
                     zn_expr r, int64_t len) {
  zn_exprs *ex = lw->ex;
  zn_conv *v = p->v;
  zn_expr pos[ZN_MAX_RANK] = {0};
  int last = v->win.rank - 1;
  int64_t lanes = p->lanes, vecs = zn_ceil_div(len, lanes);
  zn_expr j = zn_lw_for(lw, zn_ex_const(ex, vecs), ZN_FOR_UNROLL, vecs > 8 ? 4 : (unsigned)vecs);
  zn_expr from = zn_ex_muli(ex, j, lanes);
  if (len >= lanes && len % lanes) from = zn_ex_min(ex, from, zn_ex_const(ex, len - lanes));
  zn_kref base = zn_lw_ix(lw, from);
  from = zn_lw_as_expr(lw, base, zn_ex_const(ex, len));
  zn_expr l = zn_lw_for(lw, zn_ex_const(ex, lanes), ZN_FOR_VECTOR, p->lanes);
  zn_expr at = zn_ex_add(ex, from, l);
  if (p->flat) {
    locate(lw, p, q, at, pos);
  } else {
    zn_conv_split_row(lw, v, zn_ex_add(ex, q->row, r), pos);
    pos[last] = zn_ex_add(ex, q->col, at);
  }
  zn_expr channel = zn_ex_add(ex, zn_ex_muli(ex, q->g, p->ic), zn_ex_add(ex, q->c0, c));
  zn_kref x = zn_conv_input(lw, v, q->n, channel, pos, tap);
  zn_expr to = zn_ex_add(ex, zn_ex_muli(ex, k, p->pixels), zn_ex_add(ex, zn_ex_muli(ex, r, p->tile_width), at));
  zn_lw_store_at(lw, p->stack, v->ct, to, x);
  zn_lw_end(lw);
  zn_lw_end(lw);
}

static void pack_panel(zn_lw *lw, panel *p, const place *q) {
  zn_exprs *ex = lw->ex;
  zn_conv *v = p->v;
  zn_expr tap[ZN_MAX_RANK] = {0};
  zn_expr c = zn_lw_for(lw, q->cn, ZN_FOR_SERIAL, 0), k = c;
  for (int i = 0; i < v->win.rank; i++) {
    tap[i] = zn_lw_for(lw, zn_ex_const(ex, v->win.kernel[i]), ZN_FOR_SERIAL, 0);
    k = zn_ex_add(ex, zn_ex_muli(ex, k, v->win.kernel[i]), tap[i]);
  }
  if (p->flat) { /* rows touch: one long row */
    copy_row(lw, p, q, c, tap, k, zn_ex_const(ex, 0), p->pixels);
  } else {
    zn_expr r = zn_lw_for(lw, zn_ex_const(ex, p->tile_rows), ZN_FOR_SERIAL, 0);
    copy_row(lw, p, q, c, tap, k, r, p->tile_width);
    zn_lw_end(lw);
  }
  for (int i = 0; i <= v->win.rank; i++) zn_lw_end(lw);
}

/* One element of a register tile: block ob, channel m of it, pixel block pb, pixel px of it. */
static void element(zn_lw *lw, panel *p, const place *q, zn_expr ob, zn_expr m, zn_expr pb, zn_expr pstart,
                    zn_expr px) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_conv *v = p->v;
  int64_t vw = (int64_t)p->nv * p->lanes;
  zn_expr oc0 = zn_ex_muli(ex, ob, p->mr);
  if (p->blocks * p->mr != p->oc) oc0 = zn_ex_min(ex, oc0, zn_ex_const(ex, p->oc - p->mr));
  zn_expr oc = zn_ex_add(ex, zn_ex_muli(ex, q->g, p->oc), zn_ex_add(ex, oc0, m));
  zn_kref init = zn_conv_bias(lw, v, oc), store = 0, last = 0;
  zn_expr cell = ZN_EX_NONE;
  if (p->chunks > 1) {
    zn_expr cells = zn_ex_add(ex, zn_ex_muli(ex, q->n, p->groups), q->g);
    cells = zn_ex_add(ex, zn_ex_muli(ex, cells, p->row_tiles * p->col_tiles), q->tile_no);
    cells = zn_ex_add(ex, zn_ex_muli(ex, cells, p->blocks), ob);
    cells = zn_ex_add(ex, zn_ex_muli(ex, cells, p->pblocks), pb);
    cell = zn_ex_add(ex, zn_ex_muli(ex, zn_ex_add(ex, zn_ex_muli(ex, cells, p->mr), m), vw), px);
    store = zn_lw_ptr_loc(lw, p->partial, ZN_KP_INOUT, v->ct);
    zn_kref no = zn_lw_ix(lw, q->chunk_no), old = zn_lw_load_at(lw, store, v->ct, cell);
    zn_kref first = zn_kb_cmp(b, ZN_K_Eq, no, zn_kb_idx(b, 0));
    init = zn_kb_select(b, first, init, old);
    last = zn_kb_cmp(b, ZN_K_Eq, no, zn_kb_idx(b, p->chunks - 1));
  }
  zn_kref acc = zn_kb_var(b, init);
  int64_t depth = p->ic * p->taps;
  zn_expr k = zn_lw_for(lw, zn_ex_muli(ex, q->cn, p->taps), ZN_FOR_SERIAL, 0);
  zn_expr wo = zn_ex_add(ex, zn_ex_muli(ex, q->g, p->blocks), ob);
  wo = zn_ex_add(ex, zn_ex_muli(ex, wo, depth), zn_ex_add(ex, zn_ex_muli(ex, q->c0, p->taps), k));
  wo = zn_ex_add(ex, zn_ex_muli(ex, wo, p->mr), m);
  zn_kref wp = zn_lw_ptr_loc(lw, p->weights, ZN_KP_IN, v->ct);
  zn_kref wk = zn_lw_load_at(lw, wp, v->ct, wo);
  zn_expr xo = zn_ex_add(ex, zn_ex_muli(ex, k, p->pixels), zn_ex_add(ex, pstart, px));
  zn_kref xk = zn_lw_load_at(lw, p->stack, v->ct, xo);
  zn_kref old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_mul_add(lw, wk, xk, old));
  zn_lw_end(lw);
  zn_expr out[ZN_MAX_RANK] = {0};
  out[0] = q->n;
  out[1] = oc;
  locate(lw, p, q, zn_ex_add(ex, pstart, px), out + 2);
  zn_kref r = zn_kb_get(b, acc);
  if (p->chunks > 1) {
    zn_kb_if(b, last);
    zn_lw_emit(lw, v->y, out, r);
    zn_kb_else(b);
    zn_lw_store_at(lw, store, v->ct, cell, r);
    zn_kb_end(b);
  } else {
    zn_lw_emit(lw, v->y, out, r);
  }
}

static void compute(zn_lw *lw, panel *p, const place *q) {
  zn_exprs *ex = lw->ex;
  int64_t vw = (int64_t)p->nv * p->lanes;
  zn_expr per = zn_ex_const(ex, p->per_split), first = zn_ex_muli(ex, q->part, p->per_split), here = per;
  if (p->split * p->per_split != p->blocks)
    here = zn_ex_min(ex, per, zn_ex_sub(ex, zn_ex_const(ex, p->blocks), first));
  zn_expr ob = zn_ex_add(ex, first, zn_lw_for(lw, here, ZN_FOR_SERIAL, 0));
  zn_expr pb = zn_lw_for(lw, zn_ex_const(ex, p->pblocks), ZN_FOR_SERIAL, 0);
  zn_expr pstart = zn_conv_tile_start(lw, pb, vw, p->pblocks, p->pixels);
  zn_expr m = zn_lw_for(lw, zn_ex_const(ex, p->mr), ZN_FOR_UNROLL, p->mr);
  zn_expr u = zn_lw_for(lw, zn_ex_const(ex, p->nv), ZN_FOR_UNROLL, p->nv);
  zn_expr l = zn_lw_for(lw, zn_ex_const(ex, p->lanes), ZN_FOR_VECTOR, p->lanes);
  element(lw, p, q, ob, m, pb, pstart, zn_ex_add(ex, zn_ex_muli(ex, u, p->lanes), l));
  for (int i = 0; i < 5; i++) zn_lw_end(lw);
}

static void emit_kernel(zn_lw *lw, panel *p) {
  zn_exprs *ex = lw->ex;
  zn_conv *v = p->v;
  zn_lw_kernel(lw, v->n, "conv");
  uint64_t cells = (uint64_t)(p->pixels * p->chunk * p->taps) + ZN_CONV_SLACK;
  p->stack = zn_kb_alloc(&lw->kb, v->ct, cells);
  zn_expr ext[5] = {v->ty.dims[0], v->group, zn_ex_const(ex, p->row_tiles), zn_ex_const(ex, p->col_tiles),
                    zn_ex_const(ex, p->split)};
  zn_expr var[5];
  zn_lw_grid(lw, 5, ext, var);
  place q = {.n = var[0], .g = var[1], .part = var[4]};
  q.tile_no = zn_ex_add(ex, zn_ex_muli(ex, var[2], p->col_tiles), var[3]);
  q.row = zn_conv_tile_start(lw, var[2], p->tile_rows, p->row_tiles, p->rows);
  q.col = zn_conv_tile_start(lw, var[3], p->tile_width, p->col_tiles, p->width);
  q.chunk_no = zn_lw_for(lw, zn_ex_const(ex, p->chunks), ZN_FOR_SERIAL, 0);
  q.c0 = zn_ex_muli(ex, q.chunk_no, p->chunk);
  q.cn = zn_ex_const(ex, p->chunk);
  if (p->chunks * p->chunk != p->ic)
    q.cn = zn_ex_min(ex, q.cn, zn_ex_sub(ex, zn_ex_const(ex, p->ic), q.c0));
  pack_panel(lw, p, &q);
  compute(lw, p, &q);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

bool zn_conv_panel(zn_lw *lw, zn_conv *v) {
  panel p = {.v = v, .lanes = zn_lw_lanes(lw, v->ct)};
  const zn_htensor *w = zn_lw_cst(lw, v->w);
  if (!w || !zn_is_float(v->ct) || v->xt != v->ct || v->zx || v->zw || v->sy || p.lanes < 2 ||
      lw->caps->vector_regs < 16)
    return false;
  if (!read_sizes(lw, &p) || p.oc < 8 || p.ic * p.taps < 8) return false;
  bool copy = zn_conv_needs_copy(lw, v), touch = !copy && v->taps == 1;
  for (int i = 0; i < v->win.rank; i++) touch &= v->win.stride[i] == 1;
  p.flat = touch;
  if (touch) { /* any run of pixels will do: treat the image as one row per pixel unit */
    p.width *= p.rows;
    p.rows = 1;
  }
  if (!choose(lw, &p)) return false;
  if (copy || (!touch && p.tile_width < p.lanes)) zn_conv_copy_input(lw, v);
  pack(lw, &p, w);
  if (p.chunks > 1) {
    int64_t cells = p.groups * p.row_tiles * p.col_tiles * p.blocks * p.pblocks * p.mr * (int64_t)p.nv *
                    p.lanes * zn_dtype_bytes(v->ct);
    p.partial = zn_lw_scratch(lw, zn_ex_muli(lw->ex, v->ty.dims[0], cells));
  }
  emit_kernel(lw, &p);
  return true;
}
