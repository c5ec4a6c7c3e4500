/* Direct convolution over channel-blocked images: a register tile is `px` output pixels times `ov` vectors of output
 * channels; each step broadcasts one input element per pixel and multiplies it with `ov` vectors of weights, which were
 * packed at compile time in exactly the order of use. The input is blocked like the output, or plain (few channels).
 *
 * The output image is cut into segments of `seg` pixels (a part of a row, or a run over several rows), each into tiles
 * of px[0] and px[1] pixels that fill it exactly: no pixel is computed twice and there is no tail. Where a tile does
 * not stay in a row, its pixels' addresses are computed once, before the loops over taps and channels.
 * Where a segment stays in a row, rows of taps that lie above or below the image are left out; where it is the whole
 * image, its first and last row may be cut into tiles of their own for that (rims).
 * Where the vectors of output channels do not divide into tiles, the last tile begins earlier (as with 1000 channels).
 * A 1x1 kernel with strides reads a copy of just the pixels it needs: the others share their cache lines.
 * A grid iteration takes a chunk of segments, whose input stays in cache, and a part of the output channels. */
#include <assert.h>

#include "codegen/lower/conv_image.h"
#include "codegen/lower/cut.h"
#include "codegen/lower/gemm.h"

enum {
  MAX_SEG = 512, MAX_WRITTEN = 16, MAX_PLANES = 8, MAX_PARTIAL = 16384,
  LINE = 64,               /* of cache, bytes */
  FETCH_BYTES = 256 << 10, /* weights smaller than this stay in cache by themselves */
  MAX_FETCH = 16,          /* lines asked for in one trip of the loop over channels */
  MAX_OV = 4, MAX_PX = 16,
  CHUNK_EIGHTHS = 4,       /* of the second-level cache for the input of a chunk */
  MIN_UNEVEN = 16          /* vectors of channels of which one or two may be computed twice */
};

typedef struct tiling { /* how the image is cut */
  double cost;          /* cycles of one thread, times the imbalance of several; 0: there is none */
  int64_t ov, px[2], tiles[2], seg;
  int64_t rims, rim_px[2], rim_tiles[2]; /* rows with tiles of their own, not in tiles */
} tiling;

typedef struct tilings {
  tiling best, by_shape[MAX_OV + 1][MAX_PX + 1]; /* the best of each ov and px[0] */
} tilings;

typedef struct direct {
  zn_conv_image m;
  int64_t images, l2;           /* of the batch, 1 where only the run knows; bytes of the second-level cache */
  int64_t ov, px[2], tiles[2];
  int64_t rims, rim_px[2], rim_tiles[2]; /* the first or last row, or both: tiles of one of them */
  int64_t seg, segs;            /* pixels of a segment; segments */
  int64_t oc_groups;            /* register tiles along channels, per group; the last one may begin earlier */
  bool uneven;                  /* may it? Not where results may lie over an operand */
  int64_t parts, per_part;      /* of them, in the grid */
  int64_t chunks, per_chunk;    /* of the segments, in the grid */
  int64_t unit;                 /* input channels written out in the loop body: the block, or some planes */
  int64_t units;                /* trips of the loop over channels */
  int64_t pieces, per_piece;    /* of the units: the weights of one piece stay in the first-level cache */
  int64_t fetch;                /* cache lines of the next piece of weights asked for in each trip over channels */
  zn_loc input;                 /* the image as the loops read it */
  zn_kref partial;              /* sums of all but the last piece, one chunk of pixels by one tile of channels */
  zn_loc weights;
} direct;

/* ---------------------------------------------------------------- choice of the tile */

/* Input addresses are linear in the flat pixel number. */
static bool touches(const zn_conv_image *m) { return m->width == m->ow && m->sh == 1 && m->sw == 1; }

/* Rows of taps written out in the innermost loop. */
static int64_t written_rows(const direct *d) { return d->m.kh * d->unit <= MAX_WRITTEN ? d->m.kh : 1; }

/* Can rows of taps be left out that meet zeros only? */
static bool skips_rows(const direct *d, int64_t seg) {
  const zn_conv_image *m = &d->m;
  int64_t below = (m->oh - 1) * m->sh + m->kh - m->above - m->height;
  if (m->dh != 1 || m->ow % seg || written_rows(d) > 1 || m->above >= m->kh || below >= m->kh) return false;
  return m->above > 0 || below > 0;
}

/* The part of the rows of taps that is left. */
static double kept_rows(const direct *d, int64_t seg) {
  const zn_conv_image *m = &d->m;
  int64_t kept = 0;
  if (!skips_rows(d, seg)) return 1;
  for (int64_t row = 0; row < m->oh; row++) {
    int64_t first = m->above - row * m->sh, end = first + m->height;
    kept += (end < m->kh ? end : m->kh) - (first > 0 ? first : 0);
  }
  return (double)kept / (double)(m->oh * m->kh);
}

/* Cycles of one tile: fused multiply-adds and loads both go two a cycle; a chain of them has a latency of four, and few chains
 * more than that leave no room for what comes late (0.87 of the pace for eight sums, 0.94 for ten, 0.98 for twelve). */
static double tile_cost(const direct *d, int64_t px, int64_t ov, bool bent, double kept) {
  const zn_conv_image *m = &d->m;
  double steps = (double)(m->icg * m->kh * m->kw) * kept, fma = (double)(px * ov) / 2, load = (double)(px + ov) / 2;
  double step = fma > load ? fma : load;
  if (step < 4) step = 4;
  step += 0.6 / (1 + 1.5 * (step - 4) * (step - 4));
  double loops = (double)d->units * (double)(m->kh * m->kw) * kept * 1.5;
  return steps * step + loops + (double)(px * ov) * 2 + 12 + (bent ? (double)px * 5 : 0);
}

/* Tiles of px and px2 < px pixels that fill n pixels: as few as possible. */
static bool fill(int64_t n, int64_t px, int64_t px2, int64_t *a, int64_t *b) {
  for (*a = n / px; *a >= 0; --*a) {
    int64_t rest = n - *a * px;
    if (rest == 0 || (px2 > 0 && rest % px2 == 0)) {
      *b = rest ? rest / px2 : 0;
      return *a > 0;
    }
  }
  return false;
}

/* The work as it can be cut into iterations: tiles of ov vectors of channels times segments. */
static zn_cut work_of(const direct *d, int64_t ov, int64_t seg, int64_t eighths) {
  const zn_conv_image *m = &d->m;
  int64_t size = zn_dtype_bytes(m->v->ct), depth = m->icg * m->kh * m->kw;
  zn_cut c = {.outer = d->images * m->groups, .a = zn_ceil_div(m->ocg / m->lanes, ov), .b = m->oh * m->ow / seg};
  double row_bytes = (double)(m->width * m->icg * size);
  int64_t rows = (int64_t)(((double)(d->l2 / 8 * eighths) / row_bytes - (double)((m->kh - 1) * m->dh)) / (double)m->sh);
  c.b_most = (rows < 1 ? 1 : rows) * m->ow / seg;
  if (c.b_most < 1) c.b_most = 1;
  c.cycles = (double)(seg * ov * depth) / 2;
  c.a_bytes = (double)(depth * ov * m->lanes * size);
  c.b_bytes = row_bytes * (double)(m->sh * seg) / (double)m->ow;
  return c;
}

/* What uneven shares and data read again cost, on the mean of machines: a factor. */
static double imbalance(const direct *d, int64_t ov, int64_t seg) {
  zn_cut c = work_of(d, ov, seg, CHUNK_EIGHTHS);
  int64_t a, b;
  return zn_cut_work(&c, &a, &b);
}

static void note(tilings *all, const tiling *t) {
  tiling *same = &all->by_shape[t->ov][t->px[0]];
  if (same->cost <= 0 || t->cost < same->cost) *same = *t;
  if (all->best.cost <= 0 || t->cost < all->best.cost) all->best = *t;
}

static int64_t first_rims(const direct *d) { return d->m.above > 0; }
static int64_t last_rims(const direct *d) {
  const zn_conv_image *m = &d->m;
  return (m->oh - 1) * m->sh + m->kh > m->above + m->height;
}

/* Tiles of ov vectors of channels: all whole, or the last one, of many, over the one before it. */
static bool fits_channels(const direct *d, int64_t ov) {
  int64_t ocv = d->m.ocg / d->m.lanes;
  return ocv % ov == 0 || (d->uneven && ocv >= MIN_UNEVEN);
}

/* Cheapest tiles of one row with ov vectors; 0: there are none. */
static double rim_cost(const direct *d, int64_t regs, double kept, tiling *t) {
  double best = 0;
  for (int64_t px = 1; px <= d->m.ow && px * t->ov + t->ov + 1 <= regs && px <= MAX_PX; px++)
    for (int64_t px2 = 0; px2 < px; px2++) {
      int64_t a, b;
      if (!fill(d->m.ow, px, px2, &a, &b) || (px2 > 0) != (b > 0)) continue;
      double c = (double)a * tile_cost(d, px, t->ov, false, kept);
      if (b) c += (double)b * tile_cost(d, px2, t->ov, false, kept) + 6;
      if (best > 0 && c >= best) continue;
      best = c;
      t->rim_px[0] = px, t->rim_px[1] = px2, t->rim_tiles[0] = a, t->rim_tiles[1] = b;
    }
  return best;
}

/* The whole image as one segment, its rims apart. */
static void try_rims(const direct *d, int64_t regs, tilings *all) {
  const zn_conv_image *m = &d->m;
  int64_t ocv = m->ocg / m->lanes, rims = first_rims(d) + last_rims(d), inner = (m->oh - rims) * m->ow;
  if (!skips_rows(d, m->ow) || m->oh <= rims || m->oh < 2 || m->oh * m->ow > MAX_SEG) return;
  if (m->above > m->sh || (m->oh - 2) * m->sh + m->kh > m->above + m->height) return; /* other rows see all their taps */
  double kept = 1 - (1 - kept_rows(d, m->ow)) * (double)m->oh / (double)rims;
  for (int64_t ov = 1; ov <= (regs > 16 ? MAX_OV : 3); ov++) {
    tiling t = {.ov = ov, .seg = m->oh * m->ow, .rims = rims};
    double rim = fits_channels(d, ov) ? rim_cost(d, regs, kept, &t) : 0, uneven = imbalance(d, ov, t.seg);
    for (int64_t px = 1; rim > 0 && px <= inner && px * ov + ov + 1 <= regs && px <= MAX_PX; px++)
      for (int64_t px2 = 0; px2 < px; px2++) {
        int64_t a, b;
        if (!fill(inner, px, px2, &a, &b) || (px2 > 0) != (b > 0)) continue;
        double c = (double)a * tile_cost(d, px, ov, true, 1) + (b ? (double)b * tile_cost(d, px2, ov, true, 1) + 6 : 0);
        t.cost = (c + (double)rims * rim + 12) * (double)zn_ceil_div(ocv, ov) * uneven;
        t.px[0] = px, t.px[1] = px2, t.tiles[0] = a, t.tiles[1] = b;
        note(all, &t);
      }
  }
}

static void try_segment(const direct *d, int64_t seg, int64_t regs, tilings *all) {
  const zn_conv_image *m = &d->m;
  int64_t ocv = m->ocg / m->lanes, segs = m->oh * m->ow / seg;
  bool bent = m->ow % seg != 0 && !touches(m);
  double kept = kept_rows(d, seg);
  for (int64_t ov = 1; ov <= (regs > 16 ? MAX_OV : 3); ov++) {
    if (!fits_channels(d, ov)) continue;
    double uneven = imbalance(d, ov, seg);
    for (int64_t px = 1; px <= seg && px * ov + ov + 1 <= regs && px <= MAX_PX; px++)
      for (int64_t px2 = 0; px2 < px; px2++) {
        int64_t a, b;
        if (!fill(seg, px, px2, &a, &b) || (px2 > 0) != (b > 0)) continue;
        double c = (double)a * tile_cost(d, px, ov, bent, kept) + (b ? (double)b * tile_cost(d, px2, ov, bent, kept) + 6 : 0);
        c = (c + 6) * (double)(segs * zn_ceil_div(ocv, ov)) * uneven;
        tiling t = {.cost = c, .ov = ov, .px = {px, px2}, .tiles = {a, b}, .seg = seg};
        note(all, &t);
      }
  }
}

static int64_t tile_code(const tiling *t) {
  return (((t->rims * 4096 + t->seg) * 32 + t->ov) * 32 + t->px[0]) * 32 + t->px[1];
}

/* The best few shapes by the model's cost, its own choice first. */
static uint32_t best_shapes(const tilings *all, tiling *out, uint32_t most) {
  uint32_t n = 0;
  out[n++] = all->best;
  for (; n < most; n++) {
    const tiling *next = NULL;
    for (int ov = 1; ov <= MAX_OV; ov++)
      for (int px = 1; px <= MAX_PX; px++) {
        const tiling *t = &all->by_shape[ov][px];
        bool taken = t->cost <= 0 || t->cost > 1.5 * all->best.cost;
        for (uint32_t k = 0; k < n; k++) taken |= out[k].ov == t->ov && out[k].px[0] == t->px[0];
        if (!taken && (!next || t->cost < next->cost)) next = t;
      }
    if (!next) break;
    out[n] = *next;
  }
  return n;
}

static bool choose_tile(zn_lw *lw, direct *d) {
  enum { SHAPES = 6 };
  const zn_conv_image *m = &d->m;
  int64_t pixels = m->oh * m->ow, codes[SHAPES];
  tilings all = {0};
  tiling list[SHAPES];
  for (int64_t seg = 1; seg <= MAX_SEG && seg <= pixels; seg++)
    if (pixels % seg == 0) try_segment(d, seg, lw->caps->vector_regs, &all);
  try_rims(d, lw->caps->vector_regs, &all);
  if (all.best.cost <= 0) return false;
  uint32_t n = best_shapes(&all, list, SHAPES), at = 0;
  for (uint32_t i = 0; i < n; i++) codes[i] = tile_code(&list[i]);
  int64_t code = zn_lw_knob(lw, m->v->n, "tile", codes[0], codes, n);
  while (codes[at] != code) at++;
  d->ov = list[at].ov, d->seg = list[at].seg, d->segs = pixels / d->seg;
  d->rims = list[at].rims;
  for (int i = 0; i < 2; i++) {
    d->px[i] = list[at].px[i], d->tiles[i] = list[at].tiles[i];
    d->rim_px[i] = list[at].rim_px[i], d->rim_tiles[i] = list[at].rim_tiles[i];
  }
  return true;
}

/* Chunks whose input stays in half of the second-level cache; enough iterations to share out. */
static void choose_grid(zn_lw *lw, direct *d) {
  static const int64_t shares[] = {1, 2, 4, 8, 64}; /* eighths of that cache; the last: all at once */
  const zn_conv_image *m = &d->m;
  d->oc_groups = zn_ceil_div(m->ocg / m->lanes, d->ov);
  zn_cut c = work_of(d, d->ov, d->seg, zn_lw_knob(lw, m->v->n, "chunk", CHUNK_EIGHTHS, shares, 5));
  zn_cut_work(&c, &d->per_part, &d->per_chunk);
  d->parts = zn_ceil_div(d->oc_groups, d->per_part);
  d->chunks = zn_ceil_div(d->segs, d->per_chunk);
}

/* Where the weights of a tile of channels exceed half of the first-level cache, the input channels are walked in pieces,
 * and each piece's weights serve all pixels of the chunk before the next piece's are read. */
static void choose_pieces(zn_lw *lw, direct *d) {
  const zn_conv_image *m = &d->m;
  int64_t l1 = lw->caps->l1_bytes ? (int64_t)lw->caps->l1_bytes : 32768;
  int64_t unit_bytes = d->unit * m->kh * m->kw * d->ov * m->lanes * zn_dtype_bytes(m->v->ct);
  static const int64_t shares[] = {0, 2, 4, 8, 16}; /* eighths of that cache; 0: in one piece */
  int64_t share = zn_lw_knob(lw, m->v->n, "pieces", 4, shares, 5);
  d->pieces = 1;
  d->per_piece = d->units;
  if (share == 0 || unit_bytes * d->units <= l1 * 3 / 4 || d->per_chunk * d->seg * d->ov * m->lanes > MAX_PARTIAL) return;
  if (d->per_chunk * d->seg < 4 * d->px[0]) return; /* too few pixels to share the weights */
  int64_t fit = l1 / 8 * share / unit_bytes;
  d->pieces = zn_ceil_div(d->units, fit < 1 ? 1 : fit);
  d->per_piece = zn_ceil_div(d->units, d->pieces);
  d->pieces = zn_ceil_div(d->units, d->per_piece);
}

/* Tiles of a segment. */
static int64_t tiles_of(const direct *d) {
  return d->tiles[0] + d->tiles[1] + d->rims * (d->rim_tiles[0] + d->rim_tiles[1]);
}

static int64_t piece_bytes(const direct *d) {
  const zn_conv_image *m = &d->m;
  return d->per_piece * d->unit * m->kh * m->kw * d->ov * m->lanes * (int64_t)zn_dtype_bytes(m->v->ct);
}

/* The tiles of a chunk share out the fetching of the next piece of weights, which lies behind the current one: the first
 * tile of each piece would run at the speed of a farther cache. */
static void choose_fetch(zn_lw *lw, direct *d) {
  const zn_conv_image *m = &d->m;
  int64_t all = m->groups * d->oc_groups * d->pieces * piece_bytes(d), tiles = d->per_chunk * tiles_of(d);
  static const int64_t choices[] = {0, 1};
  d->fetch = 0;
  if (!zn_lw_knob(lw, m->v->n, "fetch", 1, choices, 2)) return;
  if (!lw->caps->l2_bytes || !lw->caps->vector_bytes || all < FETCH_BYTES || tiles < 2) return;
  int64_t lines = zn_ceil_div(piece_bytes(d), LINE);
  d->fetch = zn_ceil_div(lines, tiles * d->per_piece);
  if (d->fetch > MAX_FETCH) d->fetch = MAX_FETCH;
}

/* ---------------------------------------------------------------- strided pixels side by side */

static void gather_pixels(zn_lw *lw, direct *d) {
  zn_exprs *ex = lw->ex;
  zn_conv_image *m = &d->m;
  const zn_conv *v = m->v;
  int64_t blocks = m->groups * m->icg / m->block, pixels = m->oh * m->ow;
  d->input = zn_lw_scratch(lw, zn_ex_muli(ex, v->ty.dims[0], blocks * pixels * m->block * zn_dtype_bytes(v->ct)));
  zn_lw_kernel(lw, v->n, "conv_pixels");
  zn_expr ext[3] = {v->ty.dims[0], zn_ex_const(ex, blocks), zn_ex_const(ex, m->oh)}, var[3];
  zn_lw_grid(lw, 3, ext, var);
  zn_expr col = zn_lw_for(lw, zn_ex_const(ex, m->ow), ZN_FOR_SERIAL, 0);
  zn_expr lane = zn_lw_for(lw, zn_ex_const(ex, m->block), ZN_FOR_VECTOR, (unsigned)m->block);
  zn_expr r = zn_ex_addi(ex, zn_ex_muli(ex, var[2], m->sh), m->row0), c = zn_ex_addi(ex, zn_ex_muli(ex, col, m->sw), m->col0);
  zn_expr from = zn_ex_add(ex, zn_conv_image_at(lw, m, var[0], var[1], r, c), lane);
  m->rows = m->oh, m->width = m->ow, m->row0 = m->col0 = 0, m->sh = m->sw = 1;
  zn_expr to = zn_ex_add(ex, zn_conv_image_at(lw, m, var[0], var[1], var[2], col), lane);
  zn_kref x = zn_lw_load_at(lw, zn_lw_ptr(lw, v->x, ZN_KP_IN), v->ct, from);
  zn_lw_store_at(lw, zn_lw_ptr_loc(lw, d->input, ZN_KP_OUT, v->ct), v->ct, to, x);
  for (int i = 0; i < 3; i++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* ---------------------------------------------------------------- weights */

typedef struct packing {
  const zn_htensor *w;
  zn_dtype t;
  int64_t wide, icg, ocg, groups, kh, kw, unit;
} packing;

/* [unit][tap column][tap row][channel of the unit][ov * lanes] of the tile that begins with output channel o */
static uint64_t fill_tile(const packing *p, int64_t o, void *dst, uint64_t to) {
  int64_t taps = p->kh * p->kw, depth = p->icg * taps;
  for (int64_t u = 0; u < p->icg; u += p->unit)
    for (int64_t tap = 0; tap < taps; tap++)
      for (int64_t c = 0; c < p->unit; c++) {
        int64_t at = tap % p->kh * p->kw + tap / p->kh;
        uint64_t from = (uint64_t)(o * depth + (u + c) * taps + at);
        if (p->t == ZN_F32 && p->w->dtype == ZN_F32) {
          const float *f = (const float *)p->w->data + from;
          for (int64_t j = 0; j < p->wide; j++) ((float *)dst)[to++] = f[j * depth];
          continue;
        }
        for (int64_t j = 0; j < p->wide; j++)
          zn_store_f64(p->t, dst, to++, zn_load_f64(p->w->dtype, p->w->data, from + (uint64_t)(j * depth)));
      }
  return to;
}

/* [group][tile of channels] */
static void fill_weights(const void *user, void *dst) {
  const packing *p = user;
  uint64_t to = 0;
  for (int64_t g = 0; g < p->groups; g++)
    for (int64_t o = 0; o < p->ocg; o += p->wide) {
      int64_t first = o + p->wide > p->ocg ? p->ocg - p->wide : o;
      to = fill_tile(p, g * p->ocg + first, dst, to);
    }
}

static void pack(zn_lw *lw, direct *d, const zn_htensor *w) {
  const zn_conv_image *m = &d->m;
  packing *p = ZN_NEW(&lw->ctx->graph, packing);
  *p = (packing){w, m->v->ct, d->ov * m->lanes, m->icg, m->ocg, m->groups, m->kh, m->kw, d->unit};
  const char *name = zn_arena_printf(lw->arena, "%s_direct", lw->g->vals[m->v->w].name);
  int64_t count = p->groups * d->oc_groups * p->wide * p->icg * p->kh * p->kw;
  d->weights = zn_lw_const_fill(lw, name, p->t, (uint64_t)count, fill_weights, p);
}

/* ---------------------------------------------------------------- the loops */

typedef struct place {
  zn_expr n, g, og; /* image, group, tile of channels within the group */
  zn_expr seg, local; /* segment of the image, of the chunk */
  zn_expr tile_no;    /* of the chunk */
  zn_expr piece;
} place;

/* Row and column of pixel `at` of the segment. */
static void locate(zn_lw *lw, const direct *d, const place *q, zn_expr at, zn_expr *row, zn_expr *col) {
  zn_exprs *ex = lw->ex;
  const zn_conv_image *m = &d->m;
  if (m->ow % d->seg == 0) {
    int64_t per_row = m->ow / d->seg;
    *row = zn_ex_divi(ex, q->seg, per_row);
    *col = zn_ex_add(ex, zn_ex_muli(ex, zn_ex_modi(ex, q->seg, per_row), d->seg), at);
    return;
  }
  zn_expr flat = zn_ex_add(ex, zn_ex_muli(ex, q->seg, d->seg), at);
  *row = zn_ex_divi(ex, flat, m->ow);
  *col = zn_ex_modi(ex, flat, m->ow);
}

/* Offset of the pixel's first input element, without channel and tap. */
static zn_expr input_base(zn_lw *lw, const direct *d, const place *q, zn_expr at, zn_expr row, zn_expr col) {
  zn_exprs *ex = lw->ex;
  const zn_conv_image *m = &d->m;
  zn_expr cb = zn_ex_muli(ex, q->g, m->icg / (m->block ? m->block : 1)), r, c;
  if (m->ow % d->seg != 0 && touches(m)) {
    zn_expr flat = zn_ex_add(ex, zn_ex_muli(ex, q->seg, d->seg), at);
    r = zn_ex_const(ex, m->row0);
    c = zn_ex_addi(ex, flat, m->col0);
  } else {
    r = zn_ex_addi(ex, zn_ex_muli(ex, row, m->sh), m->row0);
    c = zn_ex_addi(ex, zn_ex_muli(ex, col, m->sw), m->col0);
  }
  return zn_conv_image_at(lw, m, q->n, cb, r, c);
}

/* One multiply-add at constant distances from the running offsets. */
static void step(zn_lw *lw, const direct *d, zn_kref acc, zn_kref x_at, int64_t dx, zn_kref w_at, int64_t dw) {
  zn_kb *b = &lw->kb;
  zn_dtype t = d->m.v->ct;
  zn_kref wp = zn_lw_ptr_loc(lw, d->weights, ZN_KP_IN, t), xp = zn_lw_ptr_loc(lw, d->input, ZN_KP_IN, t);
  zn_kref wi = zn_kb_bin(b, ZN_K_Add, w_at, zn_kb_idx(b, dw));
  zn_kref xi = zn_kb_bin(b, ZN_K_Add, x_at, zn_kb_idx(b, dx));
  zn_kref wk = zn_kb_load(b, t, 1, wp, wi), xk = zn_kb_load(b, t, 1, xp, xi);
  zn_kref old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_mul_add(lw, xk, wk, old));
}

/* Asks for this trip's share of the piece of weights that begins with unit `next`. */
static void fetch_ahead(zn_lw *lw, const direct *d, const place *q, zn_expr trip, zn_expr next) {
  zn_exprs *ex = lw->ex;
  int64_t bytes = piece_bytes(d);
  if (!d->fetch) return;
  zn_expr block = zn_ex_add(ex, zn_ex_muli(ex, q->g, d->oc_groups), q->og);
  zn_expr at = zn_ex_muli(ex, zn_ex_add(ex, zn_ex_muli(ex, block, d->units), next), bytes / d->per_piece);
  trip = zn_ex_add(ex, zn_ex_muli(ex, q->tile_no, d->per_piece), trip);
  at = zn_ex_add(ex, at, zn_ex_min(ex, zn_ex_muli(ex, trip, d->fetch * LINE), zn_ex_const(ex, bytes)));
  zn_kref p = zn_lw_ptr_loc(lw, d->weights, ZN_KP_IN, d->m.v->ct);
  for (int64_t i = 0; i < d->fetch; i++) {
    zn_kref to = zn_lw_ix(lw, zn_ex_addi(ex, at, i * LINE));
    zn_kb_prefetch(&lw->kb, p, to);
  }
}

/* Loop over the rows of taps, `written` at once; for output row `row` (NONE: of any) those that meet the image. */
static zn_expr tap_rows(zn_lw *lw, const direct *d, zn_expr row, int64_t written) {
  zn_exprs *ex = lw->ex;
  const zn_conv_image *m = &d->m;
  zn_expr zero = zn_ex_const(ex, 0), all = zn_ex_const(ex, m->kh);
  if (row == ZN_EX_NONE || !skips_rows(d, m->ow)) return zn_lw_for(lw, zn_ex_const(ex, m->kh / written), ZN_FOR_SERIAL, 0);
  zn_expr above = zn_ex_sub(ex, zn_ex_const(ex, m->above), zn_ex_muli(ex, row, m->sh));
  zn_expr first = zn_ex_max(ex, above, zero), end = zn_ex_min(ex, zn_ex_addi(ex, above, m->height), all);
  return zn_ex_add(ex, first, zn_lw_for(lw, zn_ex_sub(ex, end, first), ZN_FOR_SERIAL, 0));
}

/* Sum over channels and taps of one output element: x0 its input base, w0 its first weight. Rows of taps may be written
 * out, columns not: neighbouring pixels would share their elements, and keeping those takes registers that are not there. */
static void accumulate(zn_lw *lw, const direct *d, const place *q, zn_expr out_row, zn_kref acc, zn_kref x0, zn_kref w0) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const zn_conv_image *m = &d->m;
  int64_t wide = d->ov * m->lanes, plane = m->rows * m->width, block = m->block ? m->block : 1;
  int64_t row = m->dh * m->width * block, channel = m->block ? 1 : plane;
  int64_t written = written_rows(d);
  zn_expr first = zn_ex_muli(ex, q->piece, d->per_piece), here = zn_ex_const(ex, d->per_piece);
  if (d->pieces * d->per_piece != d->units)
    here = zn_ex_min(ex, here, zn_ex_sub(ex, zn_ex_const(ex, d->units), first));
  zn_expr trip = zn_lw_for(lw, here, ZN_FOR_SERIAL, 0), u = zn_ex_add(ex, first, trip);
  fetch_ahead(lw, d, q, trip, zn_ex_add(ex, first, here));
  zn_expr x = zn_lw_for(lw, zn_ex_const(ex, m->kw), ZN_FOR_SERIAL, 0);
  zn_expr y = tap_rows(lw, d, out_row, written);
  zn_expr xo = zn_ex_add(ex, zn_ex_muli(ex, u, plane * d->unit), zn_ex_muli(ex, x, m->dw * block));
  xo = zn_ex_add(ex, xo, zn_ex_muli(ex, y, row));
  zn_expr wo = zn_ex_add(ex, zn_ex_muli(ex, zn_ex_add(ex, zn_ex_muli(ex, u, m->kw), x), m->kh), y);
  zn_kref x_at = zn_kb_bin(b, ZN_K_Add, zn_lw_ix(lw, xo), x0);
  zn_kref w_at = zn_kb_bin(b, ZN_K_Add, zn_lw_ix(lw, zn_ex_muli(ex, wo, d->unit * wide)), w0);
  for (int64_t k = 0; k < written; k++)
    for (int64_t c = 0; c < d->unit; c++)
      step(lw, d, acc, x_at, k * row + c * channel, w_at, (k * d->unit + c) * wide);
  for (int i = 0; i < 3; i++) zn_lw_end(lw);
}

/* Number `which` of the two kinds of tiles, of the segment or (rim) of each of its rims. */
static void tile(zn_lw *lw, const direct *d, place *q, int which, bool rim) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const zn_conv_image *m = &d->m;
  const int64_t *px = rim ? d->rim_px : d->px, *tiles = rim ? d->rim_tiles : d->tiles, first = first_rims(d);
  int64_t wide = d->ov * m->lanes, before = which ? tiles[0] * px[0] : 0, skip = d->rims && !rim ? first * m->ow : 0;
  if (!tiles[which]) return;
  zn_expr r = zn_lw_for(lw, zn_ex_const(ex, rim ? d->rims : 1), ZN_FOR_SERIAL, 0), row, col, out[ZN_MAX_RANK];
  zn_expr t = zn_lw_for(lw, zn_ex_const(ex, tiles[which]), ZN_FOR_SERIAL, 0);
  zn_expr no = zn_ex_addi(ex, t, (which ? tiles[0] : 0) + (rim ? d->tiles[0] + d->tiles[1] : 0));
  no = zn_ex_add(ex, no, zn_ex_muli(ex, r, tiles[0] + tiles[1]));
  q->tile_no = zn_ex_add(ex, zn_ex_muli(ex, q->local, tiles_of(d)), no);
  zn_expr p = zn_lw_for(lw, zn_ex_const(ex, px[which]), ZN_FOR_UNROLL, (unsigned)px[which]);
  zn_expr at = zn_ex_add(ex, zn_ex_addi(ex, zn_ex_muli(ex, t, px[which]), before + skip), p);
  if (rim) { /* one rim: the first or the last row; two: both */
    row = d->rims == 2 ? zn_ex_muli(ex, r, m->oh - 1) : zn_ex_const(ex, first ? 0 : m->oh - 1);
    col = at;
    at = zn_ex_add(ex, at, zn_ex_muli(ex, row, m->ow));
  } else {
    locate(lw, d, q, at, &row, &col);
  }
  zn_expr taps_of = rim || m->ow % d->seg == 0 ? row : ZN_EX_NONE;
  zn_kref x0 = zn_lw_ix(lw, input_base(lw, d, q, at, row, col));
  zn_expr o = zn_lw_for(lw, zn_ex_const(ex, d->ov), ZN_FOR_UNROLL, (unsigned)d->ov);
  zn_expr l = zn_lw_for(lw, zn_ex_const(ex, m->lanes), ZN_FOR_VECTOR, (unsigned)m->lanes);
  zn_expr block = zn_ex_add(ex, zn_ex_muli(ex, q->g, d->oc_groups), q->og);
  zn_expr lane = zn_ex_add(ex, zn_ex_muli(ex, o, m->lanes), l);
  zn_kref w0 = zn_lw_ix(lw, zn_ex_add(ex, zn_ex_muli(ex, block, wide * m->icg * m->kh * m->kw), lane));
  zn_expr first_oc = zn_ex_muli(ex, q->og, wide);
  if (m->ocg % wide) first_oc = zn_ex_min(ex, first_oc, zn_ex_const(ex, m->ocg - wide));
  zn_expr oc = zn_ex_add(ex, zn_ex_add(ex, zn_ex_muli(ex, q->g, m->ocg), first_oc), lane);
  zn_kref init = zn_conv_bias(lw, m->v, oc), cell = 0, now = 0;
  if (d->pieces > 1) {
    zn_expr c = zn_ex_add(ex, zn_ex_muli(ex, q->local, d->seg), at);
    cell = zn_lw_ix(lw, zn_ex_add(ex, zn_ex_muli(ex, c, wide), lane));
    now = zn_lw_ix(lw, q->piece);
    zn_kref old = zn_kb_load(b, m->v->ct, 1, d->partial, cell);
    init = zn_kb_select(b, zn_kb_cmp(b, ZN_K_Eq, now, zn_kb_idx(b, 0)), init, old);
  }
  zn_kref acc = zn_kb_var(b, init);
  accumulate(lw, d, q, taps_of, acc, x0, w0);
  zn_conv_image_out(m, q->n, oc, row, col, out);
  zn_kref sum = zn_kb_get(b, acc);
  if (d->pieces > 1) {
    zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, now, zn_kb_idx(b, d->pieces - 1)));
    zn_kb_store(b, d->partial, cell, sum);
    zn_kb_else(b);
  }
  zn_lw_emit(lw, m->v->y, out, sum);
  if (d->pieces > 1) zn_kb_end(b);
  for (int i = 0; i < 5; i++) zn_lw_end(lw);
}

/* Loop over the numbers of part `part` of `total`, `per` in each; *out_local counts them from 0. */
static zn_expr part_loop(zn_lw *lw, zn_expr part, int64_t per, int64_t total, zn_expr *out_local) {
  zn_exprs *ex = lw->ex;
  zn_expr first = zn_ex_muli(ex, part, per), here = zn_ex_const(ex, per);
  if (total % per) here = zn_ex_min(ex, here, zn_ex_sub(ex, zn_ex_const(ex, total), first));
  *out_local = zn_lw_for(lw, here, ZN_FOR_SERIAL, 0);
  return zn_ex_add(ex, first, *out_local);
}

static void emit_kernel(zn_lw *lw, direct *d) {
  zn_exprs *ex = lw->ex;
  const zn_conv_image *m = &d->m;
  const zn_conv *v = m->v;
  zn_lw_kernel(lw, v->n, "conv");
  if (m->ocg / m->lanes % d->ov == 0) zn_lw_in_place(lw, 0);
  if (d->pieces > 1)
    d->partial = zn_kb_alloc(&lw->kb, v->ct, (uint64_t)(d->per_chunk * d->seg * d->ov * m->lanes));
  zn_expr parts = zn_ex_const(ex, d->parts), chunks = zn_ex_const(ex, d->chunks), var[4];
  /* what is larger is walked once: the weights, or the image */
  static const int64_t orders[] = {0, 1};
  int64_t weights_outside = m->ocg * m->kh * m->kw > m->rows * m->width;
  weights_outside = zn_lw_knob(lw, v->n, "order", weights_outside, orders, 2);
  zn_expr ext[4] = {v->ty.dims[0], v->group, weights_outside ? parts : chunks, weights_outside ? chunks : parts};
  zn_lw_grid(lw, 4, ext, var);
  place q = {.n = var[0], .g = var[1]};
  q.og = part_loop(lw, var[weights_outside ? 2 : 3], d->per_part, d->oc_groups, &q.local);
  q.piece = zn_lw_for(lw, zn_ex_const(ex, d->pieces), ZN_FOR_SERIAL, 0);
  q.seg = part_loop(lw, var[weights_outside ? 3 : 2], d->per_chunk, d->segs, &q.local);
  for (int which = 0; which < 2; which++) tile(lw, d, &q, which, false);
  for (int which = 0; which < 2 && d->rims; which++) tile(lw, d, &q, which, true);
  for (int i = 0; i < 4; i++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* Does the epilogue of convolution n read images that the result might lie over? */
static bool adds_images(const zn_lw *lw, zn_nid n) {
  const zn_graph *g = lw->g;
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *e = &g->nodes[g->order[i]];
    if (e->group != n || g->order[i] == n) continue;
    for (uint32_t k = 0; k < e->num_in; k++) {
      const zn_value *x = &g->vals[e->in[k]];
      if (e->in[k] && !x->cst && !(x->def && g->nodes[x->def].group == n)) return true;
    }
  }
  return false;
}

bool zn_conv_direct(zn_lw *lw, zn_conv *v) {
  direct d = {0};
  const zn_htensor *w = zn_lw_cst(lw, v->w);
  const zn_layout *ly = &lw->g->vals[v->y].layout;
  if (!w || v->zx || v->zw || v->sy || !ly->block || !zn_conv_image_read(lw, v, &d.m)) return false;
  zn_conv_image *m = &d.m;
  if (ly->block > m->lanes || ly->axis != 1 || m->ocg % ly->block) return false;
  if (m->block > MAX_PLANES * 2 || (m->block && m->icg % m->block)) return false;
  m->lanes = ly->block;
  d.uneven = !lw->opts->frugal && !lw->g->vals[v->y].within && !adds_images(lw, v->n);
  d.unit = m->block ? m->block : MAX_PLANES;
  while (m->icg % d.unit) d.unit--;
  d.units = m->icg / d.unit;
  d.input = zn_lw_loc(lw, v->x);
  if (m->block && m->kh * m->kw == 1 && m->sh * m->sw > 1 && m->ocg > m->oh * m->ow) gather_pixels(lw, &d);
  d.l2 = lw->caps->l2_bytes ? (int64_t)lw->caps->l2_bytes : 262144;
  if (!zn_ex_is_const(lw->ex, v->ty.dims[0], &d.images) || d.images < 1) d.images = 1;
  if (!choose_tile(lw, &d)) return false;
  choose_grid(lw, &d);
  choose_pieces(lw, &d);
  choose_fetch(lw, &d);
  pack(lw, &d, w);
  emit_kernel(lw, &d);
  return true;
}
