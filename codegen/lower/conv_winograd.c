/* Winograd convolution (winograd.h) over channel-blocked images: 3x3 kernels with unit strides, --math=fast. The output
 * image is cut into tiles of m x m pixels; the last tile of a row or column starts earlier, and what it shares with its
 * neighbour is not stored twice. Three stages:
 *   scatter    each tile's side x side inputs are transformed; place (i, j) of all tiles and channels is a plane;
 *   products   side * side products of a plane, tiles x input channels, with the weights of that place, which were
 *              transformed at compile time: register tiles of `px` tiles times `ov` vectors of output channels;
 *   gather     the products of a tile are transformed back and handed to the epilogue.
 * Either one kernel takes a chunk of tiles through all stages, with its planes on the stack, so that they stay in cache;
 * or (chunks = 0) each stage is a kernel of its own over all tiles, so that weights are read once, whatever their size.
 * Which, and m, follow from estimated cycles; where the direct schedule needs fewer, that one is left to do it. */
#include <assert.h>

#include "codegen/lower/conv_image.h"
#include "codegen/lower/gemm.h"
#include "codegen/lower/winograd.h"

enum {
  LINE = 64,          /* of cache, bytes */
  PAGE = 4096,        /* planes whose distance divides this share sets of the first-level cache */
  STACK_BYTES = 1 << 20,
  MAX_PX = 14,
  MAX_OV = 4,
  MAX_FETCH = 8,      /* lines asked for in one trip of the loop over channels */
  MIN_CHUNKS = 8,     /* something to share out */
  MAX_CHUNKS = 64,
  DEPTH = 32          /* input channels summed up one after the other; sums of so many are added: as exact as direct sums */
};

typedef struct wino {
  zn_conv_image m;
  zn_winograd f;
  int64_t th, tw, images, tiles; /* rows and columns of tiles; images side by side in a plane; tiles of a plane */
  zn_expr outer;                 /* images that are not */
  int64_t ic, oc;
  int64_t chunks, per_chunk;     /* of the tiles; 0: every stage is a kernel, per_chunk = tiles */
  int64_t ov, px[2], blocks[2];  /* register tiles: blocks[i] of px[i] tiles fill per_chunk */
  int64_t og;                    /* groups of ov vectors of output channels */
  int64_t pieces, units;         /* of the input channels; blocks of channels in a piece (fewer in the last) */
  int64_t v_plane, m_plane;      /* elements from plane to plane: transformed inputs, products */
  int64_t fetch;                 /* lines of the next weights asked for in each trip over channels */
  double cycles;
  zn_loc v_loc, m_loc, weights;  /* of all tiles */
  zn_kref v_mem, m_mem, tile_mem; /* of a chunk; of one tile */
} wino;

static int64_t places(const wino *d) { return (int64_t)d->f.side * d->f.side; }

/* ---------------------------------------------------------------- choice */

/* Cycles of one register tile, as in conv_direct.c. */
static double block_cycles(const wino *d, int64_t px, int64_t ov) {
  double fma = (double)(px * ov) / 2, load = (double)(px + ov) / 2, step = fma > load ? fma : load;
  if (step < 4) step = 4;
  return (double)d->ic * step + (double)d->ic / (double)d->m.block * 1.5 + ((double)(px * ov) * 2 + 12) * (double)d->pieces;
}

/* The register tile that takes the fewest cycles over per_chunk tiles. */
static double choose_block(wino *d, int64_t regs) {
  double best = 0;
  int64_t ocv = d->oc / d->m.lanes, n = d->per_chunk;
  for (int64_t ov = 1; ov <= (regs > 16 ? MAX_OV : 3); ov++)
    for (int64_t px = 1; ocv % ov == 0 && px <= n && px <= MAX_PX && px * ov + ov + 1 <= regs; px++)
      for (int64_t px2 = 0; px2 < px; px2++) {
        int64_t a = n / px, rest = n - a * px;
        for (; px2 && a > 0 && rest % px2; a--) rest += px;
        if (px2 ? a <= 0 || !rest : rest) continue;
        int64_t b = px2 ? rest / px2 : 0;
        double c = ((double)a * block_cycles(d, px, ov) + (double)b * block_cycles(d, px2, ov)) * (double)(ocv / ov);
        if (best > 0 && c >= best) continue;
        best = c;
        d->ov = ov, d->px[0] = px, d->px[1] = px2, d->blocks[0] = a, d->blocks[1] = b;
      }
  d->og = ocv / (d->ov ? d->ov : 1);
  return best;
}

/* Elements from plane to plane: planes start in different sets of the cache. */
static int64_t plane_of(int64_t elements, int64_t size) {
  int64_t lines = zn_ceil_div(elements * size, LINE);
  while (lines % (PAGE / LINE) % 16 != 1) lines++;
  return lines * LINE / size;
}

/* Cycles for bytes that come from, or go to, the cache level that holds `held` bytes: rates of one core, measured. */
static double moved(const zn_caps *caps, double bytes, double held) {
  double l2 = caps->l2_bytes ? (double)caps->l2_bytes : 262144;
  return bytes / (held <= l2 ? 24 : held <= 16 * l2 ? 10 : 5);
}

/* Cycles of all stages; fills in the register tile. */
static void estimate(zn_lw *lw, wino *d) {
  const double size = 4, side2 = (double)places(d), tiles = (double)d->tiles;
  double times = d->chunks ? (double)d->chunks : 1, per_vector = (double)d->f.side * (double)(d->f.side + d->f.m) * 3;
  double block = choose_block(d, lw->caps->vector_regs);
  d->cycles = 0;
  if (block <= 0) return;
  double planes = side2 * (double)d->per_chunk * (double)(d->ic + d->oc) * size;
  double weights = side2 * (double)d->ic * (double)d->oc * size;
  d->cycles = side2 * block * times;
  d->cycles += tiles * (double)(d->ic + d->oc) / (double)d->m.lanes * per_vector;
  d->cycles += times * 2 * moved(lw->caps, planes, planes);
  double stream = moved(lw->caps, weights, weights);
  d->cycles += (times - 1) * stream * 0.3 + stream * (weights > 4e6 ? 1 : 0.5);
}

static double direct_cycles(const wino *d) {
  const zn_conv_image *m = &d->m;
  double macs = (double)(d->images * m->oh * m->ow) * (double)(d->ic * d->oc) * 9;
  return macs / (double)(2 * m->lanes) / 0.9 + moved(&(zn_caps){0}, (double)(d->ic * d->oc) * 36, 1e7) * 0.3;
}

static bool plan(zn_lw *lw, wino *d, int m, int64_t chunks) {
  int64_t blocks = d->ic / d->m.block;
  d->f = zn_winograd_of(m);
  d->pieces = zn_ceil_div(d->ic, DEPTH);
  d->units = zn_ceil_div(blocks, d->pieces);
  d->pieces = zn_ceil_div(blocks, d->units);
  if (d->m.oh < m || d->m.ow < m) return false;
  d->th = zn_ceil_div(d->m.oh, m);
  d->tw = zn_ceil_div(d->m.ow, m);
  d->tiles = d->images * d->th * d->tw;
  if (chunks > d->tiles) return false;
  d->per_chunk = chunks ? zn_ceil_div(d->tiles, chunks) : d->tiles;
  d->chunks = chunks ? zn_ceil_div(d->tiles, d->per_chunk) : 0;
  d->v_plane = plane_of(d->per_chunk * d->ic, 4);
  d->m_plane = plane_of(d->per_chunk * d->oc, 4);
  if (chunks && places(d) * (d->v_plane + d->m_plane) * 4 > STACK_BYTES) return false;
  estimate(lw, d);
  return d->cycles > 0;
}

enum { CODE = 1024 }; /* a plan as a knob's choice: m * CODE + chunks; 0: another schedule */

/* At least so many chunks: a number that two and four threads share evenly, with a full last chunk. */
static int64_t even_chunks(int64_t tiles, int64_t least) {
  double best = 0;
  int64_t chunks = least;
  for (int64_t n = least; n <= 2 * least && n <= tiles; n++) {
    int64_t per = zn_ceil_div(tiles, n), count = zn_ceil_div(tiles, per);
    double work = (double)(per * (zn_ceil_div(count, 2) * 2 + zn_ceil_div(count, 4) * 4));
    if (count != n || (best > 0 && work >= best)) continue;
    best = work;
    chunks = n;
  }
  return chunks;
}

/* Chunks whose planes take about half, all or twice the second-level cache, or no chunks. */
static uint32_t candidates(zn_lw *lw, wino *d, int64_t *codes, double *cycles, uint32_t most) {
  static const int64_t shares[] = {2, 4, 8}; /* quarters of that cache */
  int64_t l2 = lw->caps->l2_bytes ? (int64_t)lw->caps->l2_bytes : 262144;
  uint32_t n = 0;
  int largest = lw->opts->winograd_most ? lw->opts->winograd_most : ZN_WINO_MAX;
  for (int m = ZN_WINO_MIN; m <= largest; m++) {
    if (plan(lw, d, m, 0)) codes[n] = (int64_t)m * CODE, cycles[n++] = d->cycles;
    for (int i = 0; i < 3 && n < most; i++) {
      int64_t room = l2 / 4 * shares[i] / (places(d) * (d->ic + d->oc) * 4);
      int64_t least = room > 0 ? zn_ceil_div(d->tiles, room) : MAX_CHUNKS + 1;
      int64_t chunks = even_chunks(d->tiles, least < MIN_CHUNKS ? MIN_CHUNKS : least);
      if (chunks > MAX_CHUNKS || !plan(lw, d, m, chunks) || codes[n - 1] == (int64_t)m * CODE + chunks) continue;
      codes[n] = (int64_t)m * CODE + chunks, cycles[n++] = d->cycles;
    }
  }
  return n;
}

static bool choose(zn_lw *lw, wino *d) {
  enum { MOST = 13 };
  int64_t codes[MOST + 1] = {0};
  double cycles[MOST + 1] = {direct_cycles(d) * 0.9};
  uint32_t n = 1 + candidates(lw, d, codes + 1, cycles + 1, MOST - 1), best = 0;
  for (uint32_t i = 1; i < n; i++)
    if (cycles[i] < cycles[best]) best = i;
  int64_t code = zn_lw_knob(lw, d->m.v->n, "winograd", codes[best], codes, n);
  return code && plan(lw, d, (int)(code / CODE), code % CODE);
}

/* ---------------------------------------------------------------- weights */

typedef struct packing {
  const zn_htensor *w;
  zn_winograd f;
  int64_t ic, oc, wide;
} packing;

/* [place][group of output channels][input channel][wide] */
static void fill_weights(const void *user, void *dst) {
  const packing *p = user;
  float *to = dst;
  int side = p->f.side;
  for (int64_t o = 0; o < p->oc; o++)
    for (int64_t c = 0; c < p->ic; c++) {
      double w[9], u[ZN_WINO_SIDE][ZN_WINO_SIDE];
      for (int i = 0; i < 9; i++) w[i] = zn_load_f64(p->w->dtype, p->w->data, (uint64_t)((o * p->ic + c) * 9 + i));
      zn_winograd_filter(&p->f, w, u);
      float *at = to + (o / p->wide * p->ic + c) * p->wide + o % p->wide;
      for (int i = 0; i < side * side; i++) at[i * p->ic * p->oc] = (float)u[i / side][i % side];
    }
}

static void pack(zn_lw *lw, wino *d, const zn_htensor *w) {
  packing *p = ZN_NEW(&lw->ctx->graph, packing);
  *p = (packing){w, d->f, d->ic, d->oc, d->ov * d->m.lanes};
  const char *name = zn_arena_printf(lw->arena, "%s_winograd", lw->g->vals[d->m.v->w].name);
  d->weights = zn_lw_const_fill(lw, name, ZN_F32, (uint64_t)(places(d) * d->ic * d->oc), fill_weights, p);
}

/* ---------------------------------------------------------------- the loops */

static zn_kref plus(zn_lw *lw, zn_kref at, int64_t more) { return zn_kb_bin(&lw->kb, ZN_K_Add, at, zn_kb_idx(&lw->kb, more)); }
static zn_expr loop(zn_lw *lw, int64_t n) { return zn_lw_for(lw, zn_ex_const(lw->ex, n), ZN_FOR_SERIAL, 0); }
static zn_expr lanes(zn_lw *lw, int64_t n) { return zn_lw_for(lw, zn_ex_const(lw->ex, n), ZN_FOR_VECTOR, (unsigned)n); }
static zn_kref inputs(zn_lw *lw, const wino *d, zn_kparam_kind k) {
  return d->chunks ? d->v_mem : zn_lw_ptr_loc(lw, d->v_loc, k, ZN_F32);
}
static zn_kref products(zn_lw *lw, const wino *d, zn_kparam_kind k) {
  return d->chunks ? d->m_mem : zn_lw_ptr_loc(lw, d->m_loc, k, ZN_F32);
}

typedef struct spot {
  zn_expr outer;    /* number of the set of planes: 0 on the stack */
  zn_expr slot;     /* row of the planes */
  zn_expr n, ty, tx; /* image and tile */
  zn_expr row, col; /* first output pixel */
} spot;

static spot spot_of(zn_lw *lw, const wino *d, zn_expr outer, zn_expr slot, zn_expr tile) {
  zn_exprs *ex = lw->ex;
  spot s = {.outer = d->chunks ? zn_ex_const(ex, 0) : outer, .slot = slot};
  s.n = zn_ex_add(ex, zn_ex_muli(ex, outer, d->images), zn_ex_divi(ex, tile, d->th * d->tw));
  tile = zn_ex_modi(ex, tile, d->th * d->tw);
  s.ty = zn_ex_divi(ex, tile, d->tw);
  s.tx = zn_ex_modi(ex, tile, d->tw);
  s.row = zn_conv_tile_start(lw, s.ty, d->f.m, d->th, d->m.oh);
  s.col = zn_conv_tile_start(lw, s.tx, d->f.m, d->tw, d->m.ow);
  return s;
}

/* Element of the planes: tile and channel of place 0. */
static zn_expr plane_at(zn_lw *lw, const wino *d, const spot *s, int64_t plane, int64_t channels, zn_expr channel) {
  zn_exprs *ex = lw->ex;
  zn_expr at = zn_ex_add(ex, zn_ex_muli(ex, s->outer, places(d) * plane), zn_ex_muli(ex, s->slot, channels));
  return zn_ex_add(ex, at, channel);
}

/* All channels of one tile: columns into the memory of the tile, then rows into the planes. */
static void scatter(zn_lw *lw, const wino *d, const spot *s) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const zn_conv_image *m = &d->m;
  const int side = d->f.side;
  zn_kref x[ZN_WINO_SIDE], y[ZN_WINO_SIDE];
  zn_expr cb = loop(lw, d->ic / m->block);
  zn_expr r = zn_ex_addi(ex, s->row, m->row0), c = zn_ex_addi(ex, s->col, m->col0);
  zn_expr j = loop(lw, side), l = lanes(lw, m->block);
  zn_expr in = zn_ex_add(ex, zn_conv_image_at(lw, m, s->n, cb, r, zn_ex_add(ex, c, j)), l);
  zn_kref from = zn_lw_ix(lw, in), to = zn_lw_ix(lw, zn_ex_add(ex, zn_ex_muli(ex, j, m->block), l));
  zn_kref image = zn_lw_ptr(lw, m->v->x, ZN_KP_IN);
  for (int i = 0; i < side; i++) x[i] = zn_kb_load(b, ZN_F32, 1, image, plus(lw, from, i * m->width * m->block));
  zn_winograd_apply(lw, d->f.bt, side, side, x, y);
  for (int i = 0; i < side; i++) zn_kb_store(b, d->tile_mem, plus(lw, to, i * side * m->block), y[i]);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_expr i = loop(lw, side);
  l = lanes(lw, m->block);
  zn_kref row = zn_lw_ix(lw, zn_ex_add(ex, zn_ex_muli(ex, i, side * m->block), l));
  zn_expr out = plane_at(lw, d, s, d->v_plane, d->ic, zn_ex_add(ex, zn_ex_muli(ex, cb, m->block), l));
  out = zn_ex_add(ex, out, zn_ex_muli(ex, i, side * d->v_plane));
  to = zn_lw_ix(lw, out);
  for (int k = 0; k < side; k++) x[k] = zn_kb_load(b, ZN_F32, 1, d->tile_mem, plus(lw, row, k * m->block));
  zn_winograd_apply(lw, d->f.bt, side, side, x, y);
  zn_kref planes = inputs(lw, d, ZN_KP_OUT);
  for (int k = 0; k < side; k++) zn_kb_store(b, planes, plus(lw, to, k * d->v_plane), y[k]);
  for (int k = 0; k < 3; k++) zn_lw_end(lw);
}

/* Asks for this trip's share of the weights behind those of (place, group): the next ones. */
static void fetch_ahead(zn_lw *lw, const wino *d, zn_expr piece, zn_expr trip) {
  zn_exprs *ex = lw->ex;
  int64_t bytes = d->ic * d->ov * d->m.lanes * 4;
  if (!d->fetch) return;
  zn_expr ahead = zn_ex_min(ex, zn_ex_muli(ex, trip, d->fetch * LINE), zn_ex_const(ex, bytes));
  zn_expr at = zn_ex_add(ex, zn_ex_muli(ex, zn_ex_addi(ex, piece, 1), bytes), ahead);
  zn_kref p = zn_lw_ptr_loc(lw, d->weights, ZN_KP_IN, ZN_F32);
  for (int64_t i = 0; i < d->fetch; i++) {
    zn_kref to = zn_lw_ix(lw, zn_ex_addi(ex, at, i * LINE));
    zn_kb_prefetch(&lw->kb, p, to);
  }
}

/* One register tile: `which` of the two kinds, its input channels those of piece `kp`. */
static void multiply_tile(zn_lw *lw, const wino *d, zn_expr set, zn_expr piece, zn_expr kp, zn_expr group, int which) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const int64_t ln = d->m.lanes, wide = d->ov * ln, unit = d->m.block, blocks = d->ic / unit, px = d->px[which];
  zn_expr t = loop(lw, d->blocks[which]), first = zn_ex_muli(ex, kp, d->units), here = zn_ex_const(ex, d->units);
  if (d->pieces * d->units != blocks) here = zn_ex_min(ex, here, zn_ex_sub(ex, zn_ex_const(ex, blocks), first));
  zn_expr p = zn_lw_for(lw, zn_ex_const(ex, px), ZN_FOR_UNROLL, (unsigned)px);
  zn_expr slot = zn_ex_addi(ex, zn_ex_add(ex, zn_ex_muli(ex, t, px), p), which ? d->blocks[0] * d->px[0] : 0);
  zn_expr o = zn_lw_for(lw, zn_ex_const(ex, d->ov), ZN_FOR_UNROLL, (unsigned)d->ov);
  zn_expr lane = zn_ex_add(ex, zn_ex_muli(ex, o, ln), lanes(lw, ln));
  zn_expr xo = zn_ex_add(ex, zn_ex_muli(ex, set, d->v_plane), zn_ex_muli(ex, slot, d->ic));
  zn_expr wo = zn_ex_add(ex, zn_ex_muli(ex, piece, d->ic * wide), lane);
  zn_kref x0 = zn_lw_ix(lw, zn_ex_add(ex, xo, zn_ex_muli(ex, first, unit)));
  zn_kref w0 = zn_lw_ix(lw, zn_ex_add(ex, wo, zn_ex_muli(ex, first, unit * wide)));
  zn_kref acc = zn_kb_var(b, zn_kb_float(b, ZN_F32, 0));
  zn_expr u = zn_lw_for(lw, here, ZN_FOR_SERIAL, 0), done = zn_ex_muli(ex, kp, d->blocks[0] + d->blocks[1]);
  done = zn_ex_add(ex, done, zn_ex_addi(ex, t, which ? d->blocks[0] : 0));
  fetch_ahead(lw, d, piece, zn_ex_add(ex, zn_ex_muli(ex, done, d->units), u));
  zn_kref xu = zn_kb_bin(b, ZN_K_Add, zn_lw_ix(lw, zn_ex_muli(ex, u, unit)), x0);
  zn_kref wu = zn_kb_bin(b, ZN_K_Add, zn_lw_ix(lw, zn_ex_muli(ex, u, unit * wide)), w0);
  zn_kref xp = inputs(lw, d, ZN_KP_IN), wp = zn_lw_ptr_loc(lw, d->weights, ZN_KP_IN, ZN_F32);
  for (int64_t c = 0; c < unit; c++) {
    zn_kref xk = zn_kb_load(b, ZN_F32, 1, xp, plus(lw, xu, c)), wk = zn_kb_load(b, ZN_F32, 1, wp, plus(lw, wu, c * wide));
    zn_kref old = zn_kb_get(b, acc);
    zn_kb_set(b, acc, zn_mul_add(lw, xk, wk, old));
  }
  zn_lw_end(lw);
  zn_expr to = zn_ex_add(ex, zn_ex_muli(ex, set, d->m_plane), zn_ex_muli(ex, slot, d->oc));
  zn_kref at = zn_lw_ix(lw, zn_ex_add(ex, to, zn_ex_add(ex, zn_ex_muli(ex, group, wide), lane))), sum = zn_kb_get(b, acc);
  zn_kref planes = products(lw, d, d->pieces > 1 ? ZN_KP_INOUT : ZN_KP_OUT);
  if (d->pieces > 1) {
    zn_kref before = zn_kb_load(b, ZN_F32, 1, planes, at), no = zn_lw_ix(lw, kp);
    zn_kref start = zn_kb_cmp(b, ZN_K_Eq, no, zn_kb_idx(b, 0));
    sum = zn_kb_select(b, start, sum, zn_kb_bin(b, ZN_K_Add, before, sum));
  }
  zn_kb_store(b, planes, at, sum);
  for (int k = 0; k < 4; k++) zn_lw_end(lw);
}

/* All tiles of the planes, for one place and one group of output channels. */
static void multiply(zn_lw *lw, const wino *d, zn_expr outer, zn_expr place, zn_expr group) {
  zn_exprs *ex = lw->ex;
  zn_expr set = zn_ex_add(ex, zn_ex_muli(ex, d->chunks ? zn_ex_const(ex, 0) : outer, places(d)), place);
  zn_expr piece = zn_ex_add(ex, zn_ex_muli(ex, place, d->og), group), kp = loop(lw, d->pieces);
  for (int which = 0; which < 2; which++)
    if (d->blocks[which]) multiply_tile(lw, d, set, piece, kp, group, which);
  zn_lw_end(lw);
}

/* All output channels of one tile: columns into the memory of the tile; of each row behind it its m results, which are
 * stored from the first one on that no earlier tile has stored. */
static void gather(zn_lw *lw, const wino *d, const spot *s) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const zn_conv_image *m = &d->m;
  const int side = d->f.side, wide = d->f.m;
  const int64_t ln = m->lanes, results = (int64_t)wide * side * ln;
  zn_kref x[ZN_WINO_SIDE], y[ZN_WINO_SIDE];
  zn_expr ob = loop(lw, d->oc / ln), j = loop(lw, side), l = lanes(lw, ln);
  zn_expr in = plane_at(lw, d, s, d->m_plane, d->oc, zn_ex_add(ex, zn_ex_muli(ex, ob, ln), l));
  zn_kref from = zn_lw_ix(lw, zn_ex_add(ex, in, zn_ex_muli(ex, j, d->m_plane)));
  zn_kref to = zn_lw_ix(lw, zn_ex_add(ex, zn_ex_muli(ex, j, ln), l)), planes = products(lw, d, ZN_KP_IN);
  for (int i = 0; i < side; i++) x[i] = zn_kb_load(b, ZN_F32, 1, planes, plus(lw, from, i * side * d->m_plane));
  zn_winograd_apply(lw, d->f.at, wide, side, x, y);
  for (int i = 0; i < wide; i++) zn_kb_store(b, d->tile_mem, plus(lw, to, i * side * ln), y[i]);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_expr new_row = zn_ex_muli(ex, s->ty, wide), new_col = zn_ex_muli(ex, s->tx, wide), out[ZN_MAX_RANK];
  zn_expr skip_row = zn_ex_sub(ex, new_row, s->row), skip_col = zn_ex_sub(ex, new_col, s->col), all = zn_ex_const(ex, wide);
  zn_expr i = zn_lw_for(lw, zn_ex_sub(ex, all, skip_row), ZN_FOR_SERIAL, 0);
  l = lanes(lw, ln);
  zn_kref row = zn_lw_ix(lw, zn_ex_add(ex, zn_ex_muli(ex, zn_ex_add(ex, skip_row, i), side * ln), l));
  for (int k = 0; k < side; k++) x[k] = zn_kb_load(b, ZN_F32, 1, d->tile_mem, plus(lw, row, k * ln));
  zn_winograd_apply(lw, d->f.at, wide, side, x, y);
  to = zn_lw_ix(lw, zn_ex_addi(ex, l, results));
  for (int k = 0; k < wide; k++) zn_kb_store(b, d->tile_mem, plus(lw, to, k * ln), y[k]);
  zn_lw_end(lw);
  zn_expr c = zn_lw_for(lw, zn_ex_sub(ex, all, skip_col), ZN_FOR_SERIAL, 0);
  l = lanes(lw, ln);
  zn_expr oc = zn_ex_add(ex, zn_ex_muli(ex, ob, ln), l), at = zn_ex_muli(ex, zn_ex_add(ex, skip_col, c), ln);
  zn_kref k = zn_lw_ix(lw, zn_ex_addi(ex, zn_ex_add(ex, at, l), results)), sum = zn_kb_load(b, ZN_F32, 1, d->tile_mem, k);
  if (m->v->bias) sum = zn_kb_bin(b, ZN_K_Add, sum, zn_conv_bias(lw, m->v, oc));
  zn_conv_image_out(m, s->n, oc, zn_ex_add(ex, new_row, i), zn_ex_add(ex, new_col, c), out);
  zn_lw_emit(lw, m->v->y, out, sum);
  for (int e = 0; e < 4; e++) zn_lw_end(lw);
}

/* ---------------------------------------------------------------- kernels */

static zn_kref tile_memory(zn_lw *lw, const wino *d) {
  int64_t wide = d->m.block > d->m.lanes ? d->m.block : d->m.lanes;
  return zn_kb_alloc(&lw->kb, ZN_F32, (uint64_t)(places(d) * wide));
}

static void emit_chunks(zn_lw *lw, wino *d) {
  zn_exprs *ex = lw->ex;
  zn_lw_kernel(lw, d->m.v->n, "conv_winograd");
  zn_lw_in_place(lw, 0);
  d->v_mem = zn_kb_alloc(&lw->kb, ZN_F32, (uint64_t)(places(d) * d->v_plane));
  d->m_mem = zn_kb_alloc(&lw->kb, ZN_F32, (uint64_t)(places(d) * d->m_plane));
  d->tile_mem = tile_memory(lw, d);
  zn_expr ext[2] = {d->outer, zn_ex_const(ex, d->chunks)}, var[2];
  zn_lw_grid(lw, 2, ext, var);
  zn_expr first = zn_ex_muli(ex, var[1], d->per_chunk), here = zn_ex_const(ex, d->per_chunk);
  if (d->chunks * d->per_chunk != d->tiles) here = zn_ex_min(ex, here, zn_ex_sub(ex, zn_ex_const(ex, d->tiles), first));
  zn_expr slot = loop(lw, d->per_chunk), tile = zn_ex_add(ex, first, slot), last = zn_ex_const(ex, d->tiles - 1);
  if (d->chunks * d->per_chunk != d->tiles) /* rows of no tile: any numbers */
    tile = zn_lw_as_expr(lw, zn_lw_ix(lw, zn_ex_min(ex, tile, last)), zn_ex_const(ex, d->tiles));
  spot s = spot_of(lw, d, var[0], slot, tile);
  scatter(lw, d, &s);
  zn_lw_end(lw);
  zn_expr place = loop(lw, places(d)), group = loop(lw, d->og);
  multiply(lw, d, var[0], place, group);
  zn_lw_end(lw);
  zn_lw_end(lw);
  slot = zn_lw_for(lw, here, ZN_FOR_SERIAL, 0);
  s = spot_of(lw, d, var[0], slot, zn_ex_add(ex, first, slot));
  gather(lw, d, &s);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

static void emit_stages(zn_lw *lw, wino *d) {
  zn_exprs *ex = lw->ex;
  zn_expr tiles[2] = {d->outer, zn_ex_const(ex, d->tiles)}, var[3];
  zn_expr parts[3] = {d->outer, zn_ex_const(ex, places(d)), zn_ex_const(ex, d->og)};
  d->v_loc = zn_lw_scratch(lw, zn_ex_muli(ex, d->outer, places(d) * d->v_plane * 4));
  d->m_loc = zn_lw_scratch(lw, zn_ex_muli(ex, d->outer, places(d) * d->m_plane * 4));
  zn_lw_kernel(lw, d->m.v->n, "winograd_scatter");
  lw->num_epilogue = 0;
  d->tile_mem = tile_memory(lw, d);
  zn_lw_grid(lw, 2, tiles, var);
  spot s = spot_of(lw, d, var[0], var[1], var[1]);
  scatter(lw, d, &s);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  zn_lw_kernel(lw, d->m.v->n, "winograd_products");
  lw->num_epilogue = 0;
  zn_lw_grid(lw, 3, parts, var);
  multiply(lw, d, var[0], var[1], var[2]);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  zn_lw_kernel(lw, d->m.v->n, "winograd_gather");
  zn_lw_in_place(lw, 0);
  d->tile_mem = tile_memory(lw, d);
  zn_lw_grid(lw, 2, tiles, var);
  s = spot_of(lw, d, var[0], var[1], var[1]);
  gather(lw, d, &s);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

static bool fits(zn_lw *lw, zn_conv *v, wino *d) {
  zn_conv_image *m = &d->m;
  const zn_layout *ly = &lw->g->vals[v->y].layout;
  if (lw->caps->idx_bytes < 8) return false; /* small machines: weights grow by up to four, stacks are short */
  if (!lw->opts->math_fast || v->zx || v->zw || v->sy || v->ct != ZN_F32 || v->win.rank != 2) return false;
  if (!ly->block || ly->axis != 1 || !zn_conv_image_read(lw, v, m)) return false;
  if (m->kh != 3 || m->kw != 3 || m->sh * m->sw * m->dh * m->dw != 1 || m->groups != 1 || !m->block) return false;
  if (ly->block > m->lanes || m->icg % m->block || m->ocg % ly->block) return false;
  m->lanes = ly->block;
  d->ic = m->icg, d->oc = m->ocg;
  if (zn_ex_is_const(lw->ex, v->ty.dims[0], &d->images) && d->images >= 1) d->outer = zn_ex_const(lw->ex, 1);
  else d->images = 1, d->outer = v->ty.dims[0];
  return true;
}

bool zn_conv_winograd(zn_lw *lw, zn_conv *v) {
  wino d = {0};
  const zn_htensor *w = zn_lw_cst(lw, v->w);
  if (!w || !fits(lw, v, &d) || !choose(lw, &d)) return false;
  int64_t trips = (d.blocks[0] + d.blocks[1]) * (d.ic / d.m.block);
  d.fetch = zn_ceil_div(zn_ceil_div(d.ic * d.ov * d.m.lanes * 4, LINE), trips);
  if (d.fetch > MAX_FETCH) d.fetch = MAX_FETCH;
  if (!lw->caps->l2_bytes) d.fetch = 0;
  pack(lw, &d, w);
  if (d.chunks) emit_chunks(lw, &d);
  else emit_stages(lw, &d);
  return true;
}
