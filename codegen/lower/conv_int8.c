/* Integer convolution with constant weights and image sizes, exact in i32. A grid iteration takes a tile of output pixels,
 * packs what each input channel quad (pair for Dot2) and tap sees, or each channel and quad of taps of a row where that
 * leaves less room in the words, into words side by side, on the stack in the order [pixel block][word][pixel], and
 * computes register tiles of `mr` output channels x `nv` vectors of pixels from them. Lanes are pixels, weights are
 * broadcast. Where channels are cut into parts, a kernel of its own packs the panels of all tiles, in memory, instead of
 * each part on its stack. With TileDot the products of a register tile come from one operation, on the same panels.
 * The last tile of each axis starts earlier instead of being smaller: what overlaps is computed twice. The zero
 * point of the activations is a term of the initial sum; borders hold it. */
#include "codegen/lower/conv.h"
#include "codegen/lower/dotpack.h"
#include "codegen/lower/requant.h"

enum {
  PANEL_BYTES = 288 << 10,
  SMALL_PANEL = 4 << 10, /* of microcontrollers: it is stack */
  MAX_PIXELS = 256,
  MIN_GRID = 16,
  /* Panels are shared where there are so many channels and fewer tiles than that, and then there are so many parts in all. */
  SHARED_CHANNELS = 128,
  ENOUGH_TILES = 12,
  SHARED_GRID = 48,
  MIN_TILES = 32, /* with AMX, for 16 threads */
  TILE_UNROLL = 2,
  FEW_TEMPORARIES = 3
};

typedef struct shape {
  unsigned mr, nv;
  double speed; /* part of the peak in the steady state */
} shape;

/* Channels by vectors of pixels of a TileDot, by kind. AMX: mr at most 16 is one row of tiles. */
enum { MAX_TILE_SHAPES = 8 };
static const shape tile_shapes[][MAX_TILE_SHAPES] = {
    [ZN_TILE_AMX] = {{32, 2, 1.0}, {16, 2, 0.7}, {32, 1, 0.65}, {16, 1, 0.5},
                     {8, 2, 0.4},  {8, 1, 0.3},  {4, 2, 0.2},   {4, 1, 0.15}},
    [ZN_TILE_PAIRS] = {{8, 2, 1.0}, {6, 2, 0.95}, {4, 2, 0.85}, {8, 1, 0.8}, {4, 1, 0.65}, {2, 2, 0.6}, {2, 1, 0.5}},
    [ZN_TILE_RUNS] = {{2, 1, 1.0}, {1, 1, 0.7}}};

/* mr * nv accumulators, nv operands, one broadcast and two temporaries. */
static const shape shapes[] = {{4, 2, 1.0}, {5, 2, 0.9}, {3, 2, 0.9}, {3, 3, 0.85}, {8, 1, 0.9}, {6, 1, 0.85}, {4, 1, 0.75},
                               {2, 2, 0.75}, {2, 4, 0.85}, {2, 1, 0.5}, {1, 4, 0.6}, {1, 1, 0.3}, {12, 2, 1.1}, {8, 3, 1.1},
                               {6, 4, 1.08}, {8, 2, 1.05}};

/* A word at a time (smlad): four sums, two words of either side cut into halves and three addresses fill 13 registers. */
static const shape scalar_shapes[] = {{2, 2, 1.0}, {2, 1, 0.75}, {1, 1, 0.5}};
enum { NUM_SHAPES = sizeof shapes / sizeof *shapes, NUM_SCALAR_SHAPES = sizeof scalar_shapes / sizeof *scalar_shapes };

typedef struct plan {
  zn_conv *v;
  int64_t ic, oc, groups, taps, per_word; /* elements of a word */
  int64_t row_taps;                       /* of the kernel's last axis */
  bool of_taps;                           /* words are taps of a row, not channels */
  int64_t channel_steps, tap_steps;       /* words along the channels, and along a row of taps */
  int64_t words, room_words;              /* of a pixel; with what fills the last group of a TileDot */
  int64_t rows, width;                    /* output image: all axes but the last flattened, and the last */
  int64_t tile_rows, tile_width, row_tiles, col_tiles, pixels;
  unsigned mr, nv, lanes;
  int64_t blocks, split, per_split;
  bool shared;       /* panels are packed once, by a kernel of their own, for all parts of the channels */
  zn_loc panels;
  bool flat; /* the input is read in place: the image is one row */
  zn_dotpack pack;
  zn_dot_consts consts;
  zn_kref line, stack; /* one word of all pixels of a tile; the panel, or all panels */
  zn_expr panel;       /* the first word of the tile's panel */
  zn_kref sums;        /* tiles: the results of one */
} plan;

/* Words of depth below which a TileDot does not pay. */
static const int64_t tile_words[] = {[ZN_TILE_AMX] = 24, [ZN_TILE_PAIRS] = 6, [ZN_TILE_RUNS] = 3};

static bool read_sizes(zn_lw *lw, plan *p) {
  zn_exprs *ex = lw->ex;
  const zn_conv *v = p->v;
  if (!zn_ex_is_const(ex, v->icg, &p->ic) || !zn_ex_is_const(ex, v->ocg, &p->oc)) return false;
  if (!zn_ex_is_const(ex, v->group, &p->groups)) return false;
  p->rows = 1;
  p->taps = v->taps;
  p->row_taps = v->win.kernel[v->win.rank - 1];
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

/* Useful part of all pixels computed, for a tile of r rows x w columns: full register tiles of px pixels, and one of as many
 * vectors as the rest takes. */
static double pixel_use(const plan *p, int64_t r, int64_t w, int64_t px) {
  int64_t tiles = zn_ceil_div(p->rows, r) * zn_ceil_div(p->width, w), rest = r * w % px;
  return (double)(p->rows * p->width) / (double)(tiles * (r * w - rest + zn_ceil_div(rest, p->lanes) * p->lanes));
}

/* ---------------------------------------------------------------- weights */

typedef struct weights {
  const plan *p;
  const zn_htensor *w, *zero;
} weights;

/* Row k: element k % per_word of word k / per_word, which is (step of channels, row of taps, step of a row). Column: block
 * * mr + m of all groups, blocks counted through; the last block of a group starts at oc - mr. */
static int32_t weight(void *user, int64_t k, int64_t n) {
  const weights *u = user;
  const plan *p = u->p;
  int64_t word = k / p->per_word, j = k % p->per_word, in_row = word % p->tap_steps, rows = p->taps / p->row_taps;
  int64_t row = word / p->tap_steps % rows, c = word / p->tap_steps / rows;
  if (p->of_taps) in_row = in_row * p->per_word + j;
  else c = c * p->per_word + j;
  if (c >= p->ic || in_row >= p->row_taps) return 0;
  int64_t tap = row * p->row_taps + in_row;
  int64_t block = n / p->mr, g = block / p->blocks, first = block % p->blocks * p->mr;
  if (first > p->oc - p->mr) first = p->oc - p->mr;
  int64_t o = g * p->oc + first + n % p->mr;
  int64_t v = zn_load_i64(u->w->dtype, u->w->data, (uint64_t)((o * p->ic + c) * p->taps + tap));
  if (u->zero) v -= zn_load_i64(u->zero->dtype, u->zero->data, zn_htensor_count(u->zero) == 1 ? 0 : (uint64_t)o);
  return (int32_t)v;
}

static void set_words(plan *p, zn_dot_form form) {
  p->per_word = form == ZN_DOT_HALVES ? 2 : 4;
  const int64_t channels = zn_ceil_div(p->ic, p->per_word), taps = zn_ceil_div(p->row_taps, p->per_word);
  p->of_taps = p->ic * taps < channels * p->row_taps;
  p->channel_steps = p->of_taps ? p->ic : channels;
  p->tap_steps = p->of_taps ? taps : p->row_taps;
  p->words = p->room_words = p->channel_steps * (p->taps / p->row_taps) * p->tap_steps;
}

/* ---------------------------------------------------------------- choice */

/* A machine of one core and little stack. */
static bool is_small(const zn_lw *lw) { return lw->caps->idx_bytes == 4; }

/* The tile of pixels for a register tile; its score: useful part of the peak. */
static double choose_tile(plan *p, const shape *s, double channel_use, int64_t most, int64_t max_pixels) {
  const int64_t px = (int64_t)s->nv * p->lanes, room = most / (p->room_words * 4);
  const bool whole_rows = p->width <= max_pixels && !p->flat && p->width <= room;
  double best = 0;
  for (int k = 1; k <= max_pixels; k++) {
    const int64_t r = whole_rows ? k : 1, w = whole_rows ? p->width : k;
    if (r > p->rows || w > p->width || r * w > max_pixels || r * w < px || r * w > room) continue;
    double n = (double)(r * w), score = s->speed * channel_use * pixel_use(p, r, w, px) * n / (n + 3);
    if (score <= best) continue;
    best = score;
    p->tile_rows = r;
    p->tile_width = w;
  }
  return best;
}

/* What a form chooses from. */
typedef struct space {
  const shape *shapes;
  uint32_t num;
  int64_t most, pixels; /* bytes of a panel, pixels of a tile */
} space;

static space space_of(const zn_lw *lw, const plan *p, zn_dot_form form) {
  const unsigned kind = lw->caps->tile_dot;
  const bool tiles = zn_dot_is_tiles(form), amx = tiles && kind == ZN_TILE_AMX;
  space s = {p->lanes == 1 ? scalar_shapes : shapes, p->lanes == 1 ? NUM_SCALAR_SHAPES : NUM_SHAPES,
             is_small(lw) ? SMALL_PANEL : PANEL_BYTES, MAX_PIXELS};
  if (tiles) s.shapes = tile_shapes[kind], s.num = 0;
  while (tiles && s.num < MAX_TILE_SHAPES && s.shapes[s.num].mr) s.num++;
  if (!amx) return s;
  if ((int64_t)lw->caps->l2_bytes / 4 > s.most) s.most = (int64_t)lw->caps->l2_bytes / 4;
  /* tiles small enough that there are some for every thread; 2 vectors of pixels at least, where there are as many */
  int64_t all = p->rows * p->width;
  s.pixels = all / MIN_TILES > 2 * p->lanes ? all / MIN_TILES : 2 * p->lanes;
  if (s.pixels > MAX_PIXELS) s.pixels = MAX_PIXELS;
  if (s.pixels < p->width && p->width <= MAX_PIXELS && !p->flat) s.pixels = p->width;
  return s;
}

/* Takes a shape, with the best tile of pixels for it; the score, 0: it does not suit, or is not above `least`. */
static double take_shape(zn_lw *lw, plan *p, const shape *s, const space *sp, zn_dot_form form, unsigned temporaries,
                         const weights *u, double least) {
  const bool tiles = zn_dot_is_tiles(form);
  const int64_t mr = s->mr, group = tiles ? zn_tile_group(lw->caps->tile_dot) : 4;
  weights mine = *u;
  mine.p = p;
  if (p->oc < mr || (!tiles && s->mr * s->nv + s->nv + temporaries > lw->caps->vector_regs)) return 0;
  p->mr = s->mr;
  p->nv = s->nv;
  p->blocks = zn_ceil_div(p->oc, mr);
  if (tiles) p->room_words = zn_ceil_div(p->words * 4, group) * group / 4;
  double score = choose_tile(p, s, (double)p->oc / (double)(p->blocks * mr), sp->most, sp->pixels);
  if (score <= least) return 0;
  if (form == ZN_DOT_BYTES) score /= zn_dot_steps(lw->caps, p->words * 4, p->groups * p->blocks * mr, mr, weight, &mine);
  if (form == ZN_DOT_HALVES) score /= ZN_DOT_HALVES_COST;
  return score > least ? score : 0;
}

/* The best plan of a form, with its score; 0 when there is none, or too little for tiles. */
static double choose(zn_lw *lw, plan *p, zn_dot_form form, const weights *u) {
  double best = 0;
  plan now = *p;
  set_words(&now, form);
  const unsigned kind = lw->caps->tile_dot;
  if (zn_dot_is_tiles(form) && (p->lanes != (kind == ZN_TILE_AMX ? 16 : 4) || now.words < tile_words[kind])) return 0;
  const space sp = space_of(lw, &now, form);
  for (uint32_t i = 0; i < sp.num; i++) {
    double score = take_shape(lw, &now, &sp.shapes[i], &sp, form, zn_dot_temporaries(lw->caps), u, best);
    if (score <= best) continue;
    best = score;
    *p = now;
  }
  return best;
}

/* Other register tiles, also those that fit the registers with few temporaries only; then other tiles of pixels. */
static void ask_tile(zn_lw *lw, plan *p, zn_dot_form form, const weights *u) {
  static const int64_t eighths[] = {8, 1, 2, 4, 16};
  int64_t codes[NUM_SHAPES], choices[5];
  double scores[NUM_SHAPES];
  uint32_t at = 0, n = 0;
  if (!lw->opts->knobs) return;
  space sp = space_of(lw, p, form);
  for (uint32_t i = 0; i < sp.num; i++) {
    plan other = *p;
    codes[i] = sp.shapes[i].mr * 16 + sp.shapes[i].nv;
    scores[i] = take_shape(lw, &other, &sp.shapes[i], &sp, form, FEW_TEMPORARIES, u, 0);
    if (sp.shapes[i].mr == p->mr && sp.shapes[i].nv == p->nv) at = i;
  }
  const shape *s = &sp.shapes[zn_lw_knob_best(lw, p->v->n, "tile", at, codes, scores, sp.num)];
  take_shape(lw, p, s, &sp, form, FEW_TEMPORARIES, u, 0);
  const int64_t usual = sp.pixels;
  plan found[5];
  for (int i = 0; i < 5; i++) {
    found[n] = *p;
    sp.pixels = usual * eighths[i] / 8;
    bool fresh = i == 0 || take_shape(lw, &found[n], s, &sp, form, FEW_TEMPORARIES, u, 0) > 0;
    for (uint32_t k = 0; k < n; k++)
      fresh &= found[k].tile_rows != found[n].tile_rows || found[k].tile_width != found[n].tile_width;
    if (fresh) choices[n++] = eighths[i];
  }
  const int64_t share = n > 1 ? zn_lw_knob(lw, p->v->n, "pixels", 8, choices, n) : 8;
  for (uint32_t i = 0; i < n; i++)
    if (choices[i] == share) *p = found[i];
}

/* Parts of the channels: `share` eighths of as many as the grid wants, 0: one. */
static void cut_channels(zn_lw *lw, plan *p, bool shared, int64_t share) {
  int64_t n = 1;
  if (!zn_ex_is_const(lw->ex, p->v->ty.dims[0], &n) || n < 1) n = 1;
  p->shared = shared && n == 1 && !is_small(lw) && p->oc >= SHARED_CHANNELS && !lw->opts->frugal;
  const int64_t tiles = n * p->groups * p->row_tiles * p->col_tiles;
  /* where each part packs, packing must stay cheap, unless measurements say that threads want more */
  const int64_t most = is_small(lw) ? 1 : p->shared || share != 8 ? p->blocks : p->oc < 128 ? 1 : p->oc / 64;
  const int64_t enough = (p->shared ? ENOUGH_TILES : MIN_GRID) * share / 8;
  const int64_t grid = (p->shared ? SHARED_GRID : MIN_GRID) * share / 8;
  p->split = tiles >= enough ? 1 : zn_ceil_div(grid, tiles);
  if (p->split > most) p->split = most;
  p->per_split = zn_ceil_div(p->blocks, p->split);
  p->split = zn_ceil_div(p->blocks, p->per_split);
  p->shared &= p->split > 1;
}

static void cut_grid(zn_lw *lw, plan *p) {
  static const int64_t either[] = {0, 1}, shares[] = {8, 0, 1, 2, 4, 16};
  int64_t choices[6], splits[6];
  uint32_t n = 0;
  p->row_tiles = zn_ceil_div(p->rows, p->tile_rows);
  p->col_tiles = zn_ceil_div(p->width, p->tile_width);
  p->pixels = p->tile_rows * p->tile_width;
  cut_channels(lw, p, true, 8);
  if (!lw->opts->knobs) return;
  const bool shared = !p->shared || zn_lw_knob(lw, p->v->n, "shared", 1, either, 2);
  for (int i = 0; i < 6; i++) {
    cut_channels(lw, p, shared, shares[i]);
    if (zn_lw_is_new(splits, n, p->split)) choices[n] = shares[i], splits[n++] = p->split;
  }
  cut_channels(lw, p, shared, n > 1 ? zn_lw_knob(lw, p->v->n, "grid", 8, choices, n) : 8);
}

/* The form: tiles where they pay, else what takes the least time. */
static zn_dot_form choose_form(zn_lw *lw, plan *p, int32_t lo, int32_t hi, const weights *u) {
  const zn_dtype a = (zn_dtype)p->v->tx.dtype;
  plan of[3] = {*p, *p, *p};
  int64_t forms[3];
  uint32_t n = 0, at = 0;
  double score[3] = {0};
  if (zn_dot_tiles(lw->caps, a, lo, hi) && (score[n] = choose(lw, &of[n], ZN_DOT_TILE_ROWS, u)) > 0)
    forms[n++] = ZN_DOT_TILE_ROWS;
  const bool tiles = n > 0;
  const zn_dot_form form = tiles && !lw->opts->knobs ? ZN_DOT_NO_FORM : zn_dot_choose(lw->caps, a, lo, hi);
  if (form == ZN_DOT_BYTES && (score[n] = choose(lw, &of[n], ZN_DOT_BYTES, u)) > 0) forms[n++] = ZN_DOT_BYTES;
  if (form && lw->caps->dot2 && (score[n] = choose(lw, &of[n], ZN_DOT_HALVES, u)) > 0) forms[n++] = ZN_DOT_HALVES;
  if (!n) return ZN_DOT_NO_FORM;
  for (uint32_t i = 1; i < n && !tiles; i++)
    if (score[i] > score[at]) at = i;
  at = zn_lw_knob_best(lw, p->v->n, "form", at, forms, score, n);
  *p = of[at];
  return (zn_dot_form)forms[at];
}

static bool prepare(zn_lw *lw, plan *p) {
  weights u = {p, zn_lw_cst(lw, p->v->w), p->v->zw ? zn_lw_cst(lw, p->v->zw) : NULL};
  const zn_htensor *w = u.w, *z = u.zero;
  int32_t lo = 0, hi = 0;
  uint64_t count = zn_htensor_count(w), per = count / (uint64_t)w->dims[0];
  for (uint64_t i = 0; i < count; i++) {
    int64_t x = zn_load_i64(w->dtype, w->data, i);
    if (z) x -= zn_load_i64(z->dtype, z->data, zn_htensor_count(z) == 1 ? 0 : i / per);
    if (x < lo) lo = (int32_t)x;
    if (x > hi) hi = (int32_t)x;
  }
  const zn_dot_form form = choose_form(lw, p, lo, hi, &u);
  if (!form) return false;
  ask_tile(lw, p, form, &u);
  cut_grid(lw, p);
  zn_dot_pack(&p->pack, &lw->ctx->graph, lw->caps, (zn_dtype)p->v->tx.dtype, form,
              p->words * p->per_word, p->groups * p->blocks * p->mr, p->mr, (int64_t)p->nv * p->lanes,
              weight, &u);
  return true;
}

/* ---------------------------------------------------------------- pixels */

typedef struct place {
  zn_expr n, g, row, col; /* first row and column of the tile */
  zn_expr part;
} place;

/* Output position of pixel `at` of the tile. */
static void locate(zn_lw *lw, const plan *p, const place *q, zn_expr at, zn_expr *pos) {
  const int64_t within = !p->flat && p->tile_width < p->width ? 0 : p->width;
  zn_conv_locate(lw, p->v, within, q->row, zn_ex_add(lw->ex, q->col, at), pos);
}

/* Element j of the words at step `cw` of the channels under `tap`, whose last entry is a step of the row. 0: there is none,
 * and its weight is zero: any byte will do. */
static zn_kref gather_element(zn_lw *lw, plan *p, const place *q, zn_expr cw, const zn_expr *pos, const zn_expr *tap, int64_t j) {
  zn_exprs *ex = lw->ex;
  zn_conv *v = p->v;
  const int last = v->win.rank - 1;
  zn_expr at[ZN_MAX_RANK], c = cw;
  memcpy(at, tap, sizeof at);
  const int64_t steps = p->of_taps ? p->tap_steps : p->channel_steps, all = p->of_taps ? p->row_taps : p->ic;
  zn_expr *along = p->of_taps ? &at[last] : &c;
  *along = zn_ex_addi(ex, zn_ex_muli(ex, *along, p->per_word), j);
  if (steps * p->per_word != all) {
    if (steps == 1 && j >= all) return 0;
    *along = zn_ex_min(ex, *along, zn_ex_const(ex, all - 1));
  }
  zn_expr channel = zn_ex_add(ex, zn_ex_muli(ex, q->g, p->ic), c);
  return zn_kb_cvt(&lw->kb, zn_conv_input(lw, v, q->n, channel, pos, at), ZN_I32);
}

static zn_kref gather_word(zn_lw *lw, plan *p, const place *q, zn_expr cw, const zn_expr *pos, const zn_expr *tap) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_conv *v = p->v;
  bool halves = p->pack.form == ZN_DOT_HALVES;
  unsigned bits = halves ? 16 : 8;
  zn_kref word = 0, zero = 0;
  if (halves && v->zx) zero = zn_kb_cvt(b, zn_lw_load(lw, v->zx, (const zn_expr[]){zn_ex_const(ex, 0)}), ZN_I32);
  for (int64_t j = 0; j < p->per_word; j++) {
    zn_kref x = gather_element(lw, p, q, cw, pos, tap, j);
    if (!x) break;
    if (zero) x = zn_kb_bin(b, ZN_K_Sub, x, zero);
    if (j < p->per_word - 1 && (halves || v->tx.dtype == ZN_I8))
      x = zn_kb_bin(b, ZN_K_And, x, zn_kb_int(b, ZN_I32, (1 << bits) - 1));
    if (j) x = zn_kb_bin(b, ZN_K_Shl, x, zn_kb_int(b, ZN_I32, j * bits));
    word = word ? zn_kb_bin(b, ZN_K_Or, word, x) : x;
  }
  if (p->pack.a_add) word = zn_kb_bin(b, ZN_K_Xor, word, zn_kb_int(b, ZN_I32, (int32_t)0x80808080));
  return word;
}

/* Words of `len` pixels of one row. */
static void copy_row(zn_lw *lw, plan *p, const place *q, zn_expr cw, const zn_expr *tap, zn_expr r, int64_t len) {
  zn_exprs *ex = lw->ex;
  zn_conv *v = p->v;
  zn_expr pos[ZN_MAX_RANK] = {0};
  int last = v->win.rank - 1;
  int64_t lanes = p->lanes, vecs = zn_ceil_div(len, lanes);
  zn_expr j = zn_lw_for(lw, zn_ex_const(ex, vecs), lanes == 1 ? ZN_FOR_SERIAL : ZN_FOR_UNROLL, vecs > 8 ? 4 : (unsigned)vecs);
  zn_expr from = zn_ex_muli(ex, j, lanes);
  if (len >= lanes && len % lanes) from = zn_ex_min(ex, from, zn_ex_const(ex, len - lanes));
  from = zn_lw_as_expr(lw, zn_lw_ix(lw, from), zn_ex_const(ex, len));
  zn_expr l = zn_lw_for(lw, zn_ex_const(ex, lanes), ZN_FOR_VECTOR, p->lanes);
  zn_expr at = zn_ex_add(ex, from, l);
  if (p->flat) {
    locate(lw, p, q, at, pos);
  } else {
    zn_conv_split_row(lw, v, zn_ex_add(ex, q->row, r), pos);
    pos[last] = zn_ex_add(ex, q->col, at);
  }
  zn_kref x = gather_word(lw, p, q, cw, pos, tap);
  zn_expr to = zn_ex_add(ex, zn_ex_muli(ex, r, p->tile_width), at);
  zn_lw_store_at(lw, p->line, ZN_I32, to, x);
  zn_lw_end(lw);
  zn_lw_end(lw);
}

/* One line into the blocks: whole ones of nv vectors, then one of the rest. A unit's words of a pixel lie together. */
static void deal_line(zn_lw *lw, plan *p, zn_expr k) {
  zn_exprs *ex = lw->ex;
  const int64_t unit = zn_dot_is_tiles(p->pack.form) ? zn_tile_unit(lw->caps->tile_dot) / 4 : 1;
  const zn_expr in_unit = zn_ex_modi(ex, k, unit), base = zn_ex_sub(ex, k, in_unit);
  const int64_t vw = (int64_t)p->nv * p->lanes, whole = p->pixels / vw, rest = zn_ceil_div(p->pixels % vw, p->lanes);
  for (int part = 0; part < 2; part++) {
    int64_t vecs = part ? rest : p->nv;
    if (!vecs || (!part && !whole)) continue;
    zn_expr pb = part ? zn_ex_const(ex, whole) : zn_lw_for(lw, zn_ex_const(ex, whole), ZN_FOR_SERIAL, 0);
    zn_expr u = zn_lw_for(lw, zn_ex_const(ex, vecs), ZN_FOR_UNROLL, (unsigned)vecs);
    zn_expr l = zn_lw_for(lw, zn_ex_const(ex, p->lanes), unit > 1 ? ZN_FOR_UNROLL : ZN_FOR_VECTOR, p->lanes);
    zn_expr px = zn_ex_add(ex, zn_ex_muli(ex, u, p->lanes), l);
    zn_expr from = part ? zn_ex_const(ex, p->pixels - rest * p->lanes) : zn_ex_muli(ex, pb, vw);
    zn_kref x = zn_lw_load_at(lw, p->line, ZN_I32, zn_ex_add(ex, from, px));
    zn_expr to = zn_ex_muli(ex, zn_ex_add(ex, zn_ex_muli(ex, pb, p->pack.words), base), vw);
    to = zn_ex_add(ex, to, zn_ex_add(ex, zn_ex_muli(ex, px, unit), in_unit));
    zn_lw_store_at(lw, p->stack, ZN_I32, zn_ex_add(ex, p->panel, to), x);
    for (int i = part; i < 3; i++) zn_lw_end(lw);
  }
}

/* The words of step cw of the channels. */
static void pack_step(zn_lw *lw, plan *p, const place *q, zn_expr cw) {
  zn_exprs *ex = lw->ex;
  zn_conv *v = p->v;
  zn_expr tap[ZN_MAX_RANK] = {0}, k = cw;
  for (int i = 0; i < v->win.rank; i++) {
    const int64_t steps = i == v->win.rank - 1 ? p->tap_steps : v->win.kernel[i];
    tap[i] = zn_lw_for(lw, zn_ex_const(ex, steps), ZN_FOR_SERIAL, 0);
    k = zn_ex_add(ex, zn_ex_muli(ex, k, steps), tap[i]);
  }
  if (p->flat) {
    copy_row(lw, p, q, cw, tap, zn_ex_const(ex, 0), p->pixels);
  } else {
    zn_expr r = zn_lw_for(lw, zn_ex_const(ex, p->tile_rows), ZN_FOR_SERIAL, 0);
    copy_row(lw, p, q, cw, tap, r, p->tile_width);
    zn_lw_end(lw);
  }
  deal_line(lw, p, k);
  for (int i = 0; i < v->win.rank; i++) zn_lw_end(lw);
}

/* ---------------------------------------------------------------- sums */

typedef struct pixels_at {
  zn_kref stack;
  zn_expr pixel;
} pixels_at;

static zn_kref load_pixels(zn_lw *lw, void *user, zn_expr at) {
  const pixels_at *t = user;
  return zn_lw_load_at(lw, t->stack, ZN_I32, zn_ex_add(lw->ex, at, t->pixel));
}

/* Channel m of block ob of the group, over all groups; its place among the packed weights goes to *column. */
static zn_expr channel_of(zn_lw *lw, const plan *p, const place *q, zn_expr ob, zn_expr m, zn_expr *column) {
  zn_exprs *ex = lw->ex;
  zn_expr oc0 = zn_ex_muli(ex, ob, p->mr), block = zn_ex_add(ex, zn_ex_muli(ex, q->g, p->blocks), ob);
  if (p->blocks * p->mr != p->oc) oc0 = zn_ex_min(ex, oc0, zn_ex_const(ex, p->oc - p->mr));
  *column = zn_ex_add(ex, zn_ex_muli(ex, block, p->mr), m);
  return zn_ex_add(ex, zn_ex_muli(ex, q->g, p->oc), zn_ex_add(ex, oc0, m));
}

typedef struct register_at {
  zn_expr ob, pb, pstart; /* block of channels; block of pixels, and where in the tile its first pixel is */
  unsigned nv;            /* vectors of pixels */
} register_at;

/* One element of a register tile: channel m of its block, pixel px. */
static void element(zn_lw *lw, plan *p, const place *q, const register_at *r, zn_expr m, zn_expr px) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_conv *v = p->v;
  zn_expr zero = zn_ex_const(ex, 0), column, oc = channel_of(lw, p, q, r->ob, m, &column);
  zn_kref zx = v->zx ? zn_kb_cvt(b, zn_lw_load(lw, v->zx, &zero), ZN_I32) : 0;
  zn_kref sum = zn_dot_initial(lw, &p->pack, &p->consts, zn_conv_bias(lw, v, oc), zx, column, column);
  const int64_t vw = (int64_t)p->nv * p->lanes;
  if (p->sums) {
    zn_expr at = zn_ex_add(ex, zn_ex_muli(ex, m, (int64_t)r->nv * p->lanes), px);
    zn_kref products = zn_lw_load_at(lw, p->sums, ZN_I32, at);
    sum = zn_kb_bin(b, ZN_K_Add, products, sum);
  } else {
    zn_kref acc = zn_kb_var(b, sum);
    pixels_at t = {p->stack, zn_ex_add(ex, p->panel, zn_ex_add(ex, zn_ex_muli(ex, r->pb, p->pack.words * vw), px))};
    zn_expr block = zn_ex_add(ex, zn_ex_muli(ex, q->g, p->blocks), r->ob);
    zn_dot_steps_emit(lw, &p->pack, &p->consts, vw, block, m, acc, load_pixels, &t);
    sum = zn_kb_get(b, acc);
  }
  zn_expr out[ZN_MAX_RANK] = {0};
  out[0] = q->n;
  out[1] = oc;
  locate(lw, p, q, zn_ex_add(ex, r->pstart, px), out + 2);
  zn_conv_emit(lw, v, out, sum);
}

/* The products of a register tile, into p->sums. */
static void tile_products(zn_lw *lw, plan *p, const place *q, const register_at *r) {
  zn_exprs *ex = lw->ex;
  const int64_t vw = (int64_t)p->nv * p->lanes;
  zn_tile t = {.rows = p->mr < 16 ? p->mr : 16, .row_tiles = p->mr > 16 ? 2 : 1, .cols = r->nv * p->lanes,
               .col_step = (unsigned)vw};
  zn_kref from = zn_lw_ix(lw, zn_ex_muli(ex, zn_ex_add(ex, p->panel, zn_ex_muli(ex, r->pb, p->pack.words * vw)), 4));
  zn_kref pixels = zn_kb_ptradd(&lw->kb, p->stack, from);
  zn_expr block = zn_ex_add(ex, zn_ex_muli(ex, q->g, p->blocks), r->ob);
  zn_dot_tile_emit(lw, &p->pack, &p->consts, block, p->sums, pixels, (zn_dtype)p->v->tx.dtype, &t);
}

static void register_tile(zn_lw *lw, plan *p, const place *q, const register_at *r) {
  zn_exprs *ex = lw->ex;
  if (p->sums) tile_products(lw, p, q, r);
  zn_expr m = zn_lw_for(lw, zn_ex_const(ex, p->mr), ZN_FOR_UNROLL, p->sums ? TILE_UNROLL : p->mr);
  zn_expr u = zn_lw_for(lw, zn_ex_const(ex, r->nv), ZN_FOR_UNROLL, r->nv);
  zn_expr l = zn_lw_for(lw, zn_ex_const(ex, p->lanes), ZN_FOR_VECTOR, p->lanes);
  element(lw, p, q, r, m, zn_ex_add(ex, zn_ex_muli(ex, u, p->lanes), l));
  for (int i = 0; i < 3; i++) zn_lw_end(lw);
}

static void compute(zn_lw *lw, plan *p, const place *q) {
  zn_exprs *ex = lw->ex;
  int64_t vw = (int64_t)p->nv * p->lanes, rest = zn_ceil_div(p->pixels % vw, p->lanes);
  zn_expr per = zn_ex_const(ex, p->per_split), first = zn_ex_muli(ex, q->part, p->per_split), here = per;
  if (p->split * p->per_split != p->blocks)
    here = zn_ex_min(ex, per, zn_ex_sub(ex, zn_ex_const(ex, p->blocks), first));
  zn_expr ob = zn_ex_add(ex, first, zn_lw_for(lw, here, ZN_FOR_SERIAL, 0));
  zn_expr pb = zn_lw_for(lw, zn_ex_const(ex, p->pixels / vw), ZN_FOR_SERIAL, 0);
  register_at whole = {ob, pb, zn_ex_muli(ex, pb, vw), p->nv};
  register_tile(lw, p, q, &whole);
  zn_lw_end(lw);
  register_at last = {ob, zn_ex_const(ex, p->pixels / vw), zn_ex_const(ex, p->pixels - rest * p->lanes), (unsigned)rest};
  if (rest) register_tile(lw, p, q, &last);
  zn_lw_end(lw);
}

static int64_t panel_words(const plan *p) {
  const int64_t vw = (int64_t)p->nv * p->lanes;
  return zn_ceil_div(p->pixels, vw) * vw * p->pack.words;
}

/* The grid: tiles, and `inner` for each; the last variable. Panels are numbered as the tiles are. */
static zn_expr open_grid(zn_lw *lw, plan *p, int64_t inner, bool inner_first, place *q) {
  zn_exprs *ex = lw->ex;
  zn_expr parts = zn_ex_const(ex, inner), var[5];
  zn_expr ext[5] = {p->v->ty.dims[0], p->v->group, zn_ex_const(ex, p->row_tiles), zn_ex_const(ex, p->col_tiles), parts};
  if (inner_first) {
    memmove(ext + 1, ext, 4 * sizeof *ext);
    ext[0] = parts;
  }
  zn_lw_grid(lw, 5, ext, var);
  const zn_expr *at = inner_first ? var + 1 : var, last = inner_first ? var[0] : var[4];
  *q = (place){.n = at[0], .g = at[1]};
  q->row = zn_conv_tile_start(lw, at[2], p->tile_rows, p->row_tiles, p->rows);
  q->col = zn_conv_tile_start(lw, at[3], p->tile_width, p->col_tiles, p->width);
  zn_expr tile = zn_ex_add(ex, zn_ex_mul(ex, at[0], p->v->group), at[1]);
  tile = zn_ex_add(ex, zn_ex_muli(ex, tile, p->row_tiles), at[2]);
  tile = zn_ex_add(ex, zn_ex_muli(ex, tile, p->col_tiles), at[3]);
  p->panel = p->shared ? zn_ex_muli(ex, tile, panel_words(p)) : zn_ex_const(ex, 0);
  return last;
}

/* All panels, for the kernel behind. */
static void emit_panels(zn_lw *lw, plan *p) {
  zn_exprs *ex = lw->ex;
  zn_expr bytes = zn_ex_mul(ex, p->v->ty.dims[0], p->v->group);
  bytes = zn_ex_muli(ex, bytes, p->row_tiles * p->col_tiles * panel_words(p) * 4);
  p->panels = zn_lw_scratch(lw, bytes);
  zn_lw_kernel(lw, p->v->n, "conv_words");
  lw->num_epilogue = 0;
  p->line = zn_kb_alloc(&lw->kb, ZN_I32, (uint64_t)p->pixels + ZN_CONV_SLACK);
  p->stack = zn_lw_ptr_loc(lw, p->panels, ZN_KP_OUT, ZN_I32);
  place q;
  zn_expr cw = open_grid(lw, p, p->channel_steps, false, &q);
  pack_step(lw, p, &q, cw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* Parts of the channels come first: one processor reads only some of the weights. */
static void emit_kernel(zn_lw *lw, plan *p) {
  zn_exprs *ex = lw->ex;
  const int64_t vw = (int64_t)p->nv * p->lanes;
  place q;
  if (p->shared) emit_panels(lw, p);
  zn_lw_kernel(lw, p->v->n, "conv_int8");
  if (p->shared) {
    p->stack = zn_lw_ptr_loc(lw, p->panels, ZN_KP_IN, ZN_I32);
  } else {
    p->line = zn_kb_alloc(&lw->kb, ZN_I32, (uint64_t)p->pixels + ZN_CONV_SLACK);
    p->stack = zn_kb_alloc(&lw->kb, ZN_I32, (uint64_t)panel_words(p));
  }
  if (zn_dot_is_tiles(p->pack.form)) p->sums = zn_kb_alloc(&lw->kb, ZN_I32, (uint64_t)p->mr * (uint64_t)vw);
  const zn_expr part = open_grid(lw, p, p->split, true, &q);
  q.part = part;
  if (!p->shared) {
    zn_expr cw = zn_lw_for(lw, zn_ex_const(ex, p->channel_steps), ZN_FOR_SERIAL, 0);
    pack_step(lw, p, &q, cw);
    zn_lw_end(lw);
  }
  compute(lw, p, &q);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

bool zn_conv_int8(zn_lw *lw, zn_conv *v) {
  plan p = {.v = v, .lanes = zn_lw_lanes(lw, ZN_I32)};
  const zn_htensor *w = zn_lw_cst(lw, v->w);
  if (!w || v->ct != ZN_I32 || (v->zw && !zn_lw_cst(lw, v->zw))) return false;
  if (lw->caps->vector_regs < 16 && !lw->caps->tile_dot) return false;
  if (p.lanes < 4 && (p.lanes != 1 || lw->caps->dot4 != ZN_DOT4_SCALAR)) return false;
  if (v->tx.dtype != ZN_U8 && v->tx.dtype != ZN_I8) return false;
  if (!read_sizes(lw, &p) || p.oc < 4 || p.ic * p.taps < 8) return false;
  v->raw = true;
  zn_dtype before = v->xt;
  v->xt = (zn_dtype)v->tx.dtype;
  bool padded = false;
  for (int i = 0; i < v->win.rank; i++)
    padded |= !zn_ex_is(lw->ex, v->win.pad_lo[i], 0) || !zn_ex_is(lw->ex, v->win.pad_hi[i], 0);
  const int64_t stride = v->win.stride[v->win.rank - 1];
  bool copy = padded || stride > 2 || (stride > 1 && v->taps > 1) || !zn_lw_is_stored(lw, v->x);
  bool touch = !copy && v->taps == 1;
  for (int i = 0; i < v->win.rank; i++) touch &= v->win.stride[i] == 1;
  p.flat = touch;
  if (touch) {
    p.width *= p.rows;
    p.rows = 1;
  }
  if (!prepare(lw, &p)) {
    v->raw = false;
    v->xt = before;
    return false;
  }
  p.consts = zn_dot_place(lw, &p.pack, lw->g->vals[v->w].name);
  if (copy || (!touch && p.tile_width < p.lanes)) zn_conv_copy_input(lw, v);
  emit_kernel(lw, &p);
  return true;
}
