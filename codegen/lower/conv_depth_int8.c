/* Depthwise convolution of bytes, constant image sizes: exact sums in f32, since a product of two centred bytes times
 * MAX_TAPS stays below 2^24. A grid iteration takes a band of rows of one channel: it copies what the band sees, centred and
 * with the zero border, to the stack, split into stride phases of both axes, so that output position (row, column) lies
 * at row * width + column in every phase. Lanes run over these positions whatever the width of the image is (5 columns
 * cost 7 here, not 8 masked ones or a scalar tail); the few positions between rows are computed and dropped when rows are
 * moved together for the store loop. */
#include "codegen/lower/conv.h"
#include "codegen/lower/gemm.h"

enum { PLANE_MAX = 6 << 10, MAX_TAPS = 25, SLACK = 128, VECTORS = 4, MOST_VECTORS = 8, MOST_LANES = 16 };
_Static_assert(MAX_TAPS * 255 * 255 < 1 << 24, "sums are exact in f32");
_Static_assert(MOST_VECTORS * MOST_LANES <= SLACK, "vectors behind the last position");

typedef struct axis { /* rows or columns */
  int64_t in, out, pad, stride, dilation, kernel;
  int64_t span; /* positions of a phase in the plane */
} axis;

typedef struct depth {
  zn_conv *v;
  axis r, c;
  int64_t mult, band, bands; /* band: output rows of a grid iteration */
  int64_t lanes, count;      /* count: elements of the plane without slack */
  int64_t vectors;           /* of sums, side by side */
  zn_loc weights;
  zn_kref image, plane, sums, closed; /* image: centred rows as they lie in memory, from SLACK / 2 on */
} depth;

static bool read_axis(zn_lw *lw, const zn_conv *v, int i, axis *a) {
  zn_exprs *ex = lw->ex;
  const zn_window *w = &v->win;
  if (!zn_ex_is_const(ex, v->tx.dims[i + 2], &a->in) || !zn_ex_is_const(ex, v->ty.dims[i + 2], &a->out)) return false;
  if (!zn_ex_is_const(ex, w->pad_lo[i], &a->pad) || a->pad < 0 || a->out < 1 || a->in < 1) return false;
  a->stride = w->stride[i], a->dilation = w->dilation[i], a->kernel = w->kernel[i];
  return true;
}

/* Positions of one phase that `out` results see. */
static int64_t span_of(const axis *a, int64_t out) { return out + (a->kernel - 1) * a->dilation / a->stride; }

/* Bands of rows whose planes take `room` elements at most; 0: not even one row's does. */
static int64_t bands_of(const depth *d, int64_t room, int64_t per_row, int64_t fixed) {
  return per_row + fixed > room ? 0 : zn_ceil_div(d->r.out, (room - fixed) / per_row);
}

/* A row adds per_row elements to a plane, which has `fixed` more. */
static bool cut_bands(zn_lw *lw, depth *d, int64_t per_row, int64_t fixed) {
  static const int64_t eighths[] = {8, 1, 2, 4, 16}; /* of PLANE_MAX */
  int64_t choices[5], bands[5], share;
  uint32_t n = 0;
  for (int i = 0; i < (lw->opts->knobs ? 5 : 1); i++) {
    bands[n] = bands_of(d, PLANE_MAX / 8 * eighths[i], per_row, fixed);
    if (bands[n] > 0 && zn_lw_is_new(bands, n, bands[n])) choices[n++] = eighths[i];
    else if (i == 0) return false;
  }
  share = n > 1 ? zn_lw_knob(lw, d->v->n, "band", 8, choices, n) : 8;
  for (uint32_t i = 0; i < n; i++)
    if (choices[i] == share) d->bands = bands[i];
  d->band = zn_ceil_div(d->r.out, d->bands);
  return true;
}

static bool read_sizes(zn_lw *lw, depth *d) {
  const zn_conv *v = d->v;
  const int rank = v->win.rank;
  if (rank < 1 || rank > 2 || !zn_ex_is(lw->ex, v->icg, 1) || !zn_ex_is_const(lw->ex, v->ocg, &d->mult)) return false;
  d->r = (axis){.in = 1, .out = 1, .stride = 1, .dilation = 1, .kernel = 1};
  if (rank == 2 && !read_axis(lw, v, 0, &d->r)) return false;
  if (!read_axis(lw, v, rank - 1, &d->c)) return false;
  d->c.span = span_of(&d->c, d->c.out);
  /* what a row is read with, beyond its ends */
  if (d->c.pad > SLACK / 2 || d->c.span * d->c.stride - d->c.pad - d->c.in > SLACK / 2) return false;
  const int64_t per_row = d->r.stride * d->c.stride * d->c.span;
  if (!cut_bands(lw, d, per_row, span_of(&d->r, 0) * per_row)) return false;
  d->r.span = span_of(&d->r, d->band);
  d->count = d->r.span * per_row + d->r.stride * d->c.stride * d->lanes;
  return true;
}

/* [output channel][tap], centred */
static void pack(zn_lw *lw, depth *d) {
  const zn_htensor *w = zn_lw_cst(lw, d->v->w), *z = zn_lw_cst(lw, d->v->zw);
  const uint64_t count = zn_htensor_count(w), per = (uint64_t)d->v->taps;
  float *data = ZN_ARRAY(&lw->ctx->graph, float, count);
  for (uint64_t i = 0; i < count; i++) {
    int64_t x = zn_load_i64(w->dtype, w->data, i);
    if (z) x -= zn_load_i64(z->dtype, z->data, zn_htensor_count(z) == 1 ? 0 : i / per);
    data[i] = (float)x;
  }
  d->weights = zn_lw_const(lw, zn_arena_printf(lw->arena, "%s_taps", lw->g->vals[d->v->w].name), ZN_F32, count, data);
}

/* ---------------------------------------------------------------- the plane */

/* Position (r, c) of phase (pr, pc). */
static zn_expr plane_at(zn_lw *lw, const depth *d, int64_t pr, int64_t pc, zn_expr r, zn_expr c) {
  zn_exprs *ex = lw->ex;
  const int64_t first = (pr * d->c.stride + pc) * (d->r.span * d->c.span + d->lanes);
  return zn_ex_addi(ex, zn_ex_add(ex, zn_ex_muli(ex, r, d->c.span), c), first);
}

static void clear(zn_lw *lw, zn_kref to, int64_t count) {
  zn_expr i = zn_lw_for(lw, zn_ex_const(lw->ex, count), ZN_FOR_VECTOR, 0);
  zn_lw_store_at(lw, to, ZN_F32, i, zn_kb_float(&lw->kb, ZN_F32, 0));
  zn_lw_end(lw);
}

/* Positions [*first, *end) of a phase come from the image. */
static void inside(const axis *a, int64_t phase, int64_t *first, int64_t *end) {
  *first = a->pad > phase ? zn_ceil_div(a->pad - phase, a->stride) : 0;
  *end = a->pad + a->in > phase ? zn_ceil_div(a->pad + a->in - phase, a->stride) : 0;
  if (*end > a->span) *end = a->span;
}

/* `rows` image rows from `row` on, as they lie in memory: whole vectors whatever the width. */
static void centre_rows(zn_lw *lw, const depth *d, const zn_expr *at, zn_expr row, int64_t rows) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const zn_conv *v = d->v;
  const zn_expr zero = zn_ex_const(ex, 0);
  const int64_t all = rows * d->c.in, vectors = zn_ceil_div(all, d->lanes);
  zn_expr from = zero, here = zn_ex_const(ex, all < d->lanes ? all : d->lanes);
  if (all >= d->lanes)
    from = zn_conv_tile_start(lw, zn_lw_for(lw, zn_ex_const(ex, vectors), ZN_FOR_SERIAL, 0), d->lanes, vectors, all);
  zn_expr i = zn_ex_add(ex, from, zn_lw_for(lw, here, ZN_FOR_VECTOR, (unsigned)d->lanes)), idx[4] = {at[0], at[1]};
  idx[2] = zn_ex_add(ex, row, rows > 1 ? zn_ex_divi(ex, i, d->c.in) : zero);
  idx[v->win.rank + 1] = rows > 1 ? zn_ex_modi(ex, i, d->c.in) : i;
  zn_kref x = zn_kb_cvt(b, zn_lw_load(lw, v->x, idx), ZN_I32);
  if (v->zx) x = zn_kb_bin(b, ZN_K_Sub, x, zn_kb_cvt(b, zn_lw_load(lw, v->zx, &zero), ZN_I32));
  zn_lw_store_at(lw, d->image, ZN_F32, zn_ex_addi(ex, i, SLACK / 2), zn_kb_cvt(b, x, ZN_F32));
  zn_lw_end(lw);
  if (all >= d->lanes) zn_lw_end(lw);
}

/* Row r of every column phase of phase pr, from row `row` of the centred ones. What a vector writes behind its row is
 * written over by the next one. */
static void deal_row(zn_lw *lw, const depth *d, int64_t pr, zn_expr r, zn_expr row) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  for (int64_t pc = 0; pc < d->c.stride; pc++) {
    zn_expr j = zn_lw_for(lw, zn_ex_const(ex, zn_ceil_div(d->c.span, d->lanes)), ZN_FOR_SERIAL, 0);
    zn_expr l = zn_lw_for(lw, zn_ex_const(ex, d->lanes), ZN_FOR_VECTOR, (unsigned)d->lanes);
    zn_expr c = zn_ex_add(ex, zn_ex_muli(ex, j, d->lanes), l);
    zn_expr col = zn_ex_addi(ex, zn_ex_muli(ex, c, d->c.stride), pc - d->c.pad);
    zn_expr from = zn_ex_addi(ex, zn_ex_add(ex, zn_ex_muli(ex, row, d->c.in), col), SLACK / 2);
    zn_kref x = zn_lw_load_at(lw, d->image, ZN_F32, from);
    zn_kref none = zn_kb_float(b, ZN_F32, 0);
    x = zn_kb_select(b, zn_lw_in_range(lw, col, zn_ex_const(ex, d->c.in)), x, none);
    zn_lw_store_at(lw, d->plane, ZN_F32, plane_at(lw, d, pr, pc, r, c), x);
    zn_lw_end(lw);
    zn_lw_end(lw);
  }
}

static void clear_rows(zn_lw *lw, const depth *d, int64_t pr, zn_expr r, int64_t rows) {
  for (int64_t pc = 0; pc < d->c.stride && rows > 0; pc++) {
    zn_expr i = zn_lw_for(lw, zn_ex_const(lw->ex, rows * d->c.span), ZN_FOR_VECTOR, 0);
    zn_lw_store_at(lw, d->plane, ZN_F32, plane_at(lw, d, pr, pc, r, i), zn_kb_float(&lw->kb, ZN_F32, 0));
    zn_lw_end(lw);
  }
}

/* The whole image is one band. */
static void fill_plane(zn_lw *lw, const depth *d, const zn_expr *at) {
  zn_exprs *ex = lw->ex;
  centre_rows(lw, d, at, zn_ex_const(ex, 0), d->r.in);
  for (int64_t pr = 0; pr < d->r.stride; pr++) {
    int64_t first, end;
    inside(&d->r, pr, &first, &end);
    if (end > first) {
      zn_expr r = zn_ex_addi(ex, zn_lw_for(lw, zn_ex_const(ex, end - first), ZN_FOR_SERIAL, 0), first);
      deal_row(lw, d, pr, r, zn_ex_addi(ex, zn_ex_muli(ex, r, d->r.stride), pr - d->r.pad));
      zn_lw_end(lw);
    } else {
      end = first = d->r.span;
    }
    clear_rows(lw, d, pr, zn_ex_const(ex, 0), first);
    clear_rows(lw, d, pr, zn_ex_const(ex, end), d->r.span - end);
  }
}

/* Row by row, for the band that starts at output row `top`. */
static void fill_band(zn_lw *lw, const depth *d, const zn_expr *at, zn_expr top) {
  zn_exprs *ex = lw->ex;
  for (int64_t pr = 0; pr < d->r.stride; pr++) {
    zn_expr r = zn_lw_for(lw, zn_ex_const(ex, d->r.span), ZN_FOR_SERIAL, 0);
    zn_expr row = zn_ex_addi(ex, zn_ex_muli(ex, zn_ex_add(ex, top, r), d->r.stride), pr - d->r.pad);
    zn_kb_if(&lw->kb, zn_lw_in_range(lw, row, zn_ex_const(ex, d->r.in)));
    centre_rows(lw, d, at, row, 1);
    deal_row(lw, d, pr, r, zn_ex_const(ex, 0));
    zn_kb_else(&lw->kb);
    clear_rows(lw, d, pr, r, 1);
    zn_kb_end(&lw->kb);
    zn_lw_end(lw);
  }
}

/* ---------------------------------------------------------------- sums */

static void sum_positions(zn_lw *lw, const depth *d, zn_expr oc) {
  zn_exprs *ex = lw->ex;
  const zn_expr zero = zn_ex_const(ex, 0);
  const int64_t all = (d->band - 1) * d->c.span + d->c.out, vectors = zn_ceil_div(all, d->lanes);
  const int64_t jam = vectors < d->vectors ? vectors : d->vectors;
  zn_expr t = zn_lw_for(lw, zn_ex_const(ex, zn_ceil_div(vectors, jam)), ZN_FOR_SERIAL, 0);
  zn_expr u = zn_lw_for(lw, zn_ex_const(ex, jam), ZN_FOR_UNROLL, (unsigned)jam);
  zn_expr l = zn_lw_for(lw, zn_ex_const(ex, d->lanes), ZN_FOR_VECTOR, (unsigned)d->lanes);
  zn_expr q = zn_ex_add(ex, zn_ex_muli(ex, zn_ex_add(ex, zn_ex_muli(ex, t, jam), u), d->lanes), l);
  zn_kref acc = zn_kb_float(&lw->kb, ZN_F32, 0), w = zn_lw_ptr_loc(lw, d->weights, ZN_KP_IN, ZN_F32);
  for (int64_t y = 0; y < d->r.kernel; y++)
    for (int64_t x = 0; x < d->c.kernel; x++) {
      const int64_t r = y * d->r.dilation, c = x * d->c.dilation;
      zn_expr at = plane_at(lw, d, r % d->r.stride, c % d->c.stride, zn_ex_const(ex, r / d->r.stride),
                            zn_ex_addi(ex, zero, c / d->c.stride));
      zn_expr tap = zn_ex_addi(ex, zn_ex_muli(ex, oc, d->v->taps), y * d->c.kernel + x);
      zn_kref k = zn_lw_load_at(lw, w, ZN_F32, tap);
      zn_kref v = zn_lw_load_at(lw, d->plane, ZN_F32, zn_ex_add(ex, at, q));
      acc = zn_mul_add(lw, k, v, acc);
    }
  zn_lw_store_at(lw, d->sums, ZN_F32, q, acc);
  for (int i = 0; i < 3; i++) zn_lw_end(lw);
}

/* The sums without the positions between rows, in order: what a vector writes behind its row is written over by the next
 * one. Returns where they are. */
static zn_kref close_rows(zn_lw *lw, const depth *d) {
  zn_exprs *ex = lw->ex;
  if (d->c.span == d->c.out || d->band == 1) return d->sums;
  zn_expr r = zn_lw_for(lw, zn_ex_const(ex, d->band), ZN_FOR_SERIAL, 0);
  zn_expr j = zn_lw_for(lw, zn_ex_const(ex, zn_ceil_div(d->c.out, d->lanes)), ZN_FOR_SERIAL, 0);
  zn_expr l = zn_lw_for(lw, zn_ex_const(ex, d->lanes), ZN_FOR_VECTOR, (unsigned)d->lanes);
  zn_expr c = zn_ex_add(ex, zn_ex_muli(ex, j, d->lanes), l);
  zn_kref x = zn_lw_load_at(lw, d->sums, ZN_F32, zn_ex_add(ex, zn_ex_muli(ex, r, d->c.span), c));
  zn_lw_store_at(lw, d->closed, ZN_F32, zn_ex_add(ex, zn_ex_muli(ex, r, d->c.out), c), x);
  for (int i = 0; i < 3; i++) zn_lw_end(lw);
  return d->closed;
}

static void emit_results(zn_lw *lw, const depth *d, zn_kref sums, zn_expr n, zn_expr oc, zn_expr top) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const zn_conv *v = d->v;
  const int64_t all = d->band * d->c.out;
  zn_expr from = zn_ex_const(ex, 0);
  if (all >= d->lanes) {
    const int64_t vectors = zn_ceil_div(all, d->lanes);
    from = zn_conv_tile_start(lw, zn_lw_for(lw, zn_ex_const(ex, vectors), ZN_FOR_SERIAL, 0), d->lanes, vectors, all);
  }
  zn_expr here = zn_ex_const(ex, all < d->lanes ? all : d->lanes);
  zn_expr at = zn_ex_add(ex, from, zn_lw_for(lw, here, ZN_FOR_VECTOR, (unsigned)d->lanes));
  zn_kref x = zn_kb_cvtfast(b, zn_lw_load_at(lw, sums, ZN_F32, at), ZN_I32);
  if (v->bias) x = zn_kb_bin(b, ZN_K_Add, x, zn_conv_bias(lw, v, oc));
  zn_expr flat = zn_ex_add(ex, zn_ex_muli(ex, top, d->c.out), at), out[4] = {n, oc};
  out[2] = zn_ex_divi(ex, flat, d->c.out);
  out[v->win.rank + 1] = zn_ex_modi(ex, flat, d->c.out);
  x = zn_kb_get(b, zn_kb_var(b, x)); /* lanes as many as sums fit a register, whatever the epilogue widens them to */
  zn_conv_emit(lw, v, out, x);
  zn_lw_end(lw);
  if (all >= d->lanes) zn_lw_end(lw);
}

static void emit_kernel(zn_lw *lw, depth *d) {
  zn_exprs *ex = lw->ex;
  const zn_conv *v = d->v;
  zn_lw_kernel(lw, v->n, "conv_depth_int8");
  const bool whole = d->bands == 1 && zn_lw_is_stored(lw, v->x);
  const int64_t image = d->c.in * (whole ? d->r.in : 1) + SLACK + d->c.stride * d->lanes;
  d->image = zn_kb_alloc(&lw->kb, ZN_F32, (uint64_t)image);
  d->plane = zn_kb_alloc(&lw->kb, ZN_F32, (uint64_t)(d->count + SLACK));
  d->sums = zn_kb_alloc(&lw->kb, ZN_F32, (uint64_t)(d->band * d->c.span + SLACK));
  d->closed = zn_kb_alloc(&lw->kb, ZN_F32, (uint64_t)(d->band * d->c.out + SLACK));
  clear(lw, d->image, image);
  clear(lw, d->plane, d->count + SLACK);
  zn_expr ext[3] = {v->ty.dims[0], v->group, zn_ex_const(ex, d->bands)}, var[3];
  zn_lw_grid(lw, 3, ext, var);
  zn_expr top = zn_conv_tile_start(lw, var[2], d->band, d->bands, d->r.out);
  if (whole)
    fill_plane(lw, d, var);
  else
    fill_band(lw, d, var, top);
  zn_expr m = zn_lw_for(lw, zn_ex_const(ex, d->mult), ZN_FOR_SERIAL, 0);
  zn_expr oc = zn_ex_add(ex, zn_ex_muli(ex, var[1], d->mult), m);
  sum_positions(lw, d, oc);
  zn_kref sums = close_rows(lw, d);
  emit_results(lw, d, sums, var[0], oc, top);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

bool zn_conv_depth_int8(zn_lw *lw, zn_conv *v) {
  depth d = {.v = v, .lanes = zn_lw_lanes(lw, ZN_F32)};
  if (v->ct != ZN_I32 || !zn_lw_cst(lw, v->w) || (v->zw && !zn_lw_cst(lw, v->zw)) || d.lanes < 4) return false;
  if (v->tx.dtype != ZN_U8 && v->tx.dtype != ZN_I8) return false;
  if (v->taps > MAX_TAPS || !read_sizes(lw, &d)) return false;
  static const int64_t beside[] = {1, 2, VECTORS, MOST_VECTORS};
  d.vectors = zn_lw_knob(lw, v->n, "vectors", VECTORS, beside, d.lanes > MOST_LANES ? 3 : 4);
  pack(lw, &d);
  emit_kernel(lw, &d);
  return true;
}
