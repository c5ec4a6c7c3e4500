/* Convolutions of channels-last images on SIMT targets (zn_layout with one block of all channels). The matrix product whose
 * rows are the pixels of all images and whose columns are output channels: eight channels under one tap are neighbours in
 * memory, so tiles of the input are copied asynchronously as they are, zeros outside the image. Depthwise: a thread takes
 * eight channels of a few pixels of a row. Few channels (the image that a network is given): the input is copied first, with a
 * border, its channels filled up with zeros to four or eight, so that all taps of a row of the kernel are neighbours. Bytes
 * go to the units as they are, sixteen neighbours a copy; the border is the zero point then, and a term of the sum
 * (gemm_bytes.c). */
#include "codegen/lower/conv.h"
#include "codegen/lower/gemm.h"
#include "codegen/lower/gemm_bytes.h"

enum { COPY = 16, RUN = 8, MAX_TAPS = 49, MAX_SIDE = 4, FILL = 1 << 17 }; /* FILL: results that keep the machine busy */

bool zn_conv_is_nhwc(const zn_lw *lw, zn_vid v) {
  const zn_layout *l = &lw->g->vals[v].layout;
  int64_t channels;
  if (!l->block || l->axis != 1 || l->has_halo) return false;
  return zn_ex_is_const(lw->ex, zn_lw_dim(lw, v, 1), &channels) && channels == l->block;
}

static zn_dtype narrow_of(zn_dtype t) { return t == ZN_F16 || t == ZN_BF16 ? t : ZN_NONE; }

static bool is_bytes(const zn_conv *v) { return v->tx.dtype == ZN_U8 || v->tx.dtype == ZN_I8; }

/* Elements of a copy. */
static int64_t run_of(const zn_conv *v) { return COPY / zn_dtype_bytes((zn_dtype)v->tx.dtype); }

/* Number m of a pixel over all images, as image and position. */
static void split_pixel(zn_lw *lw, const zn_conv *v, zn_expr m, zn_expr *image, zn_expr *pos) {
  for (int i = v->win.rank - 1; i >= 0; i--) {
    pos[i] = zn_ex_mod(lw->ex, m, v->ty.dims[i + 2]);
    m = zn_ex_div(lw->ex, m, v->ty.dims[i + 2]);
  }
  *image = m;
}

static bool is_padded(zn_lw *lw, const zn_conv *v) {
  for (int i = 0; i < v->win.rank; i++)
    if (!zn_ex_is(lw->ex, v->win.pad_lo[i], 0) || !zn_ex_is(lw->ex, v->win.pad_hi[i], 0)) return true;
  return false;
}

/* Where eight (bytes: sixteen) channels of the input under step k of the depth (tap, then channel) lie. */
static zn_gemm_spot spot(zn_lw *lw, void *user, zn_expr m, zn_expr k) {
  const zn_conv *v = user;
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_expr idx[ZN_MAX_RANK], pos[ZN_MAX_RANK], tap = zn_ex_div(ex, k, v->icg);
  zn_kref inside = zn_kb_int(b, ZN_BOOL, 1);
  int64_t always;
  split_pixel(lw, v, m, &idx[0], pos);
  idx[1] = zn_ex_mod(ex, k, v->icg);
  for (int i = v->win.rank - 1; i >= 0; i--) {
    zn_expr step = zn_ex_muli(ex, zn_ex_modi(ex, tap, v->win.kernel[i]), v->win.dilation[i]);
    tap = zn_ex_divi(ex, tap, v->win.kernel[i]);
    idx[i + 2] = zn_ex_sub(ex, zn_ex_add(ex, zn_ex_muli(ex, pos[i], v->win.stride[i]), step), v->win.pad_lo[i]);
    zn_kref in = zn_lw_in_range(lw, idx[i + 2], v->tx.dims[i + 2]);
    inside = zn_kb_bin(b, ZN_K_And, inside, in);
  }
  zn_gemm_spot s = {.from = zn_lw_ptr(lw, v->x, ZN_KP_IN), .element = zn_lw_ix(lw, zn_lw_offset(lw, v->x, idx))};
  if (!zn_kf_const_int(b->f, inside, &always)) s.inside = inside;
  if (s.inside && v->zx && is_padded(lw, v)) s.outside = zn_lw_ptr_loc(lw, v->border, ZN_KP_IN, (zn_dtype)v->tx.dtype);
  return s;
}

static zn_kref never(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr k) {
  (void)user, (void)batch, (void)m, (void)k;
  ZN_BUG(lw->ctx, "a convolution of channels-last images asks for single elements");
}

static zn_kref init(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n) {
  (void)batch, (void)m;
  const zn_conv *v = user;
  zn_expr first = zn_ex_const(lw->ex, 0);
  zn_kref start = zn_conv_bias(lw, v, n);
  return v->zx ? zn_bytes_initial(lw, v->sums, zn_lw_load(lw, v->zx, &first), n, start) : start;
}

static void out(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n, zn_kref sum) {
  (void)batch;
  zn_expr at[ZN_MAX_RANK];
  split_pixel(lw, user, m, &at[0], at + 2);
  at[1] = n;
  zn_conv_emit(lw, user, at, sum);
}

typedef struct packing {
  const zn_htensor *w, *zero; /* zero: of integers, or NULL */
  uint64_t channels, taps;
  zn_dtype t;
} packing;

static uint64_t weight_at(const packing *p, uint64_t k, uint64_t n) {
  return (n * p->channels + k % p->channels) * p->taps + k / p->channels;
}

static void copy_weight(void *user, uint64_t k, uint64_t n, void *dst) {
  const packing *p = user;
  zn_store_f64(p->t, dst, 0, zn_load_f64(p->w->dtype, p->w->data, weight_at(p, k, n)));
}

static int32_t byte_weight(void *user, int64_t k, int64_t n) {
  const packing *p = user;
  return zn_conv_centred(p->w, p->zero, weight_at(p, (uint64_t)k, (uint64_t)n));
}

/* Packs the weights: as `copy` gives them, or, for bytes, `weight`. false: a weight does not fit. */
static bool pack(zn_lw *lw, zn_conv *v, zn_gemm *g, int64_t k, int64_t n, void (*copy)(void *, uint64_t, uint64_t, void *),
                 zn_bytes_weight weight, void *user) {
  const char *name = lw->g->vals[v->w].name;
  const zn_dtype t = (zn_dtype)v->tx.dtype;
  if (is_bytes(v)) return zn_gemm_bytes(lw, g, t, name, k, n, weight, user, &v->sums);
  zn_gemm_pack(lw, g, name, (uint64_t)k, (uint64_t)n, t, copy, user);
  return true;
}

/* Weights that the units take: constant, of one group. */
static const zn_htensor *usable_weights(zn_lw *lw, const zn_conv *v) {
  const zn_htensor *w = zn_lw_cst(lw, v->w);
  if (!w || !zn_ex_is(lw->ex, v->group, 1)) return NULL;
  return is_bytes(v) || w->dtype == (zn_dtype)v->tx.dtype ? w : NULL;
}

/* What lies outside the image: a run of the zero point. false: only the run knows that. */
static bool set_border(zn_lw *lw, zn_conv *v) {
  const zn_htensor *z = zn_lw_cst(lw, v->zx);
  if (!v->zx || !is_padded(lw, v)) return true;
  if (!z) return false;
  char *data = zn_arena_array(&lw->ctx->graph, COPY, 1);
  memset(data, (int)zn_load_i64(z->dtype, z->data, 0), COPY);
  v->border = zn_lw_const(lw, zn_arena_printf(lw->arena, "%s_border", lw->g->vals[v->x].name), ZN_U8, COPY, data);
  return true;
}

static bool product(zn_lw *lw, zn_conv *v) {
  zn_exprs *ex = lw->ex;
  const zn_htensor *w = usable_weights(lw, v);
  const zn_dtype t = (zn_dtype)v->tx.dtype;
  int64_t k, n, channels;
  zn_gemm g = {.node = v->n, .hint = "conv", .n = v->ocg, .k = zn_ex_muli(ex, v->icg, v->taps), .t = v->ct,
               .narrow = narrow_of(t), .bytes = is_bytes(v) ? t : ZN_NONE, .a = never, .spot = spot, .init = init, .emit = out,
               .user = v, .m = v->ty.dims[0]};
  for (int i = 0; i < v->win.rank; i++) g.m = zn_ex_mul(ex, g.m, v->ty.dims[i + 2]);
  if (!w || !zn_gemm_spots_fit(lw, &g)) return false;
  if (!zn_ex_is_const(ex, g.k, &k) || !zn_ex_is_const(ex, g.n, &n) || !zn_ex_is_const(ex, v->icg, &channels)) return false;
  if (channels % run_of(v) || !set_border(lw, v)) return false;
  packing p = {w, zn_lw_cst(lw, v->zw), (uint64_t)channels, (uint64_t)v->taps, t};
  if (!pack(lw, v, &g, k, n, copy_weight, byte_weight, &p)) return false;
  zn_gemm_emit(lw, &g);
  return true;
}

/* ---- few channels ---- */

typedef struct bordered {
  zn_conv *v;
  zn_loc at;                     /* [image][rows][width][channels] */
  int64_t rows, width, channels; /* of the copy */
  int64_t run;                   /* elements under a row of the kernel, filled up to whole runs */
  const zn_htensor *zero;        /* of integer weights, or NULL */
} bordered;

static zn_kref few_pixel(zn_lw *lw, const bordered *c, zn_expr image, const zn_expr *at) {
  zn_kb *b = &lw->kb;
  const zn_dtype t = (zn_dtype)c->v->tx.dtype;
  int64_t have = 0;
  zn_ex_is_const(lw->ex, c->v->icg, &have);
  zn_kref zero = is_bytes(c->v) ? zn_kb_int(b, t, 0) : zn_kb_cvt(b, zn_kb_float(b, ZN_F32, 0), t);
  zn_kref pixel = zn_kb_splat(b, zero, (unsigned)c->channels);
  for (int64_t ch = 0; ch < have; ch++) {
    zn_kref x = zn_conv_guarded(lw, c->v, image, zn_ex_const(lw->ex, ch), at);
    pixel = zn_kb_insert(b, pixel, zn_kb_cvt(b, x, t), (unsigned)ch);
  }
  return pixel;
}

static void copy_few(zn_lw *lw, bordered *c) {
  zn_exprs *ex = lw->ex;
  int64_t size = zn_dtype_bytes((zn_dtype)c->v->tx.dtype);
  zn_expr image = c->v->ty.dims[0], bytes = zn_ex_muli(ex, image, c->rows * c->width * c->channels * size), var[2], at[2];
  zn_expr extents[2] = {image, zn_ex_const(ex, c->rows)};
  c->at = zn_lw_scratch(lw, bytes);
  zn_lw_kernel(lw, c->v->n, "conv_border");
  lw->num_epilogue = 0;
  zn_lw_grid(lw, 2, extents, var);
  at[0] = var[1];
  at[1] = zn_lw_for(lw, zn_ex_const(ex, c->width), ZN_FOR_VECTOR, 0);
  zn_expr row = zn_ex_add(ex, zn_ex_muli(ex, var[0], c->rows), var[1]);
  zn_expr to = zn_ex_muli(ex, zn_ex_add(ex, zn_ex_muli(ex, row, c->width), at[1]), c->channels);
  zn_kref pixel = few_pixel(lw, c, var[0], at), p = zn_lw_ptr_loc(lw, c->at, ZN_KP_OUT, (zn_dtype)c->v->tx.dtype);
  zn_kb_store(&lw->kb, p, zn_lw_ix(lw, to), pixel);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

static zn_gemm_spot few_spot(zn_lw *lw, void *user, zn_expr m, zn_expr k) {
  const bordered *c = user;
  const zn_window *w = &c->v->win;
  zn_exprs *ex = lw->ex;
  zn_expr image, pos[ZN_MAX_RANK];
  split_pixel(lw, c->v, m, &image, pos);
  zn_expr row = zn_ex_add(ex, zn_ex_muli(ex, pos[0], w->stride[0]), zn_ex_muli(ex, zn_ex_divi(ex, k, c->run), w->dilation[0]));
  row = zn_ex_add(ex, zn_ex_muli(ex, image, c->rows), row);
  zn_expr at = zn_ex_add(ex, zn_ex_muli(ex, row, c->width), zn_ex_muli(ex, pos[1], w->stride[1]));
  at = zn_ex_add(ex, zn_ex_muli(ex, at, c->channels), zn_ex_modi(ex, k, c->run));
  return (zn_gemm_spot){.from = zn_lw_ptr_loc(lw, c->at, ZN_KP_IN, (zn_dtype)c->v->tx.dtype), .element = zn_lw_ix(lw, at)};
}

static zn_kref few_init(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n) {
  return init(lw, ((const bordered *)user)->v, batch, m, n);
}

static void few_out(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n, zn_kref sum) {
  out(lw, ((const bordered *)user)->v, batch, m, n, sum);
}

/* Number of the weight for depth k; false: filled up. */
static bool few_weight(const bordered *c, uint64_t k, uint64_t n, uint64_t *at) {
  const zn_htensor *w = c->v->w_data;
  uint64_t run = (uint64_t)c->run, channels = (uint64_t)c->channels, have = (uint64_t)w->dims[1], width = (uint64_t)w->dims[3];
  uint64_t row = k / run, tap = k % run / channels, ch = k % channels;
  *at = ((n * have + ch) * (uint64_t)w->dims[2] + row) * width + tap;
  return tap < width && ch < have;
}

static void copy_few_weight(void *user, uint64_t k, uint64_t n, void *dst) {
  const bordered *c = user;
  const zn_htensor *w = c->v->w_data;
  uint64_t at;
  zn_store_f64(w->dtype, dst, 0, few_weight(c, k, n, &at) ? zn_load_f64(w->dtype, w->data, at) : 0);
}

static int32_t few_byte_weight(void *user, int64_t k, int64_t n) {
  const bordered *c = user;
  uint64_t at;
  return few_weight(c, (uint64_t)k, (uint64_t)n, &at) ? zn_conv_centred(c->v->w_data, c->zero, at) : 0;
}

/* Channels of the copy: the first tap of every pixel starts a run. */
static int64_t fill_channels(const zn_conv *v, int64_t have) {
  int64_t copy = run_of(v);
  for (int64_t c = 4; c < copy; c *= 2)
    if (have <= c && c * v->win.stride[1] % copy == 0) return c;
  return copy > RUN ? copy : RUN;
}

static bool few_channels(zn_lw *lw, zn_conv *v) {
  zn_exprs *ex = lw->ex;
  const zn_window *w = &v->win;
  bordered c = {.v = v, .zero = zn_lw_cst(lw, v->zw)};
  int64_t have, high, wide, n;
  const zn_dtype t = (zn_dtype)v->tx.dtype;
  v->w_data = usable_weights(lw, v);
  if (w->rank != 2 || w->dilation[1] != 1 || !v->w_data) return false;
  if (!zn_ex_is_const(ex, v->icg, &have) || have > RUN || !zn_ex_is_const(ex, v->ocg, &n)) return false;
  if (!zn_ex_is_const(ex, v->ty.dims[2], &high) || !zn_ex_is_const(ex, v->ty.dims[3], &wide)) return false;
  if (high < 1 || wide < 1) return false;
  int64_t copy = run_of(v); /* elements in 16 bytes, where each pixel's taps start */
  c.channels = fill_channels(v, have);
  c.run = (w->kernel[1] * c.channels + copy - 1) / copy * copy;
  c.rows = (high - 1) * w->stride[0] + (w->kernel[0] - 1) * w->dilation[0] + 1;
  c.width = (wide - 1) * w->stride[1] + c.run / c.channels;
  zn_gemm g = {.node = v->n, .hint = "conv", .n = v->ocg, .k = zn_ex_const(ex, w->kernel[0] * c.run), .t = v->ct,
               .narrow = narrow_of(t), .bytes = is_bytes(v) ? t : ZN_NONE, .a = never, .spot = few_spot, .init = few_init,
               .emit = few_out, .user = &c, .m = zn_ex_muli(ex, v->ty.dims[0], high * wide)};
  if (!zn_gemm_spots_fit(lw, &g)) return false;
  if (!pack(lw, v, &g, w->kernel[0] * c.run, n, copy_few_weight, few_byte_weight, &c)) return false;
  v->raw = is_bytes(v);
  copy_few(lw, &c);
  zn_gemm_emit(lw, &g);
  return true;
}

/* ---- depthwise ---- */

typedef struct depthwise {
  const zn_conv *v;
  zn_loc weights; /* [tap][channel] */
  zn_dtype t;     /* of the weights; integers are centred */
  int64_t channels, side; /* pixels of a row a thread */
  zn_expr image, channel, row[ZN_MAX_RANK], col; /* the thread's place: its first column */
} depthwise;

static void pack_taps(zn_lw *lw, depthwise *d) {
  const zn_htensor *w = zn_lw_cst(lw, d->v->w), *zero = zn_lw_cst(lw, d->v->zw);
  uint64_t c = (uint64_t)d->channels, taps = (uint64_t)d->v->taps;
  d->t = is_bytes(d->v) ? d->v->wt : w->dtype;
  char *data = zn_arena_array(&lw->ctx->graph, c * taps, zn_dtype_bytes(d->t));
  for (uint64_t i = 0; i < c * taps; i++) {
    uint64_t to = i % taps * c + i / taps;
    if (is_bytes(d->v)) zn_store_i64(d->t, data, to, zn_conv_centred(w, zero, i));
    else zn_store_f64(d->t, data, to, zn_load_f64(w->dtype, w->data, i));
  }
  d->weights = zn_lw_const(lw, zn_arena_printf(lw->arena, "%s_taps", lw->g->vals[d->v->w].name), d->t, c * taps, data);
}

/* The input at padded position `at`. */
static zn_kref input(zn_lw *lw, const depthwise *d, const zn_expr *at) {
  return zn_conv_guarded(lw, d->v, d->image, d->channel, at);
}

/* All pixels of the thread under the taps of one row of the kernel; each column is read once. */
static void row_of_taps(zn_lw *lw, const depthwise *d, int64_t first_tap, zn_expr *at, const zn_kref *acc) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  const zn_window *w = &d->v->win;
  int last = w->rank - 1;
  int64_t stride = w->stride[last], dilation = w->dilation[last], kernel = w->kernel[last];
  zn_kref weight[MAX_TAPS], p = zn_lw_ptr_loc(lw, d->weights, ZN_KP_IN, d->t);
  for (int64_t t = 0; t < kernel; t++)
    weight[t] = zn_lw_load_at(lw, p, d->t, zn_ex_addi(ex, d->channel, (first_tap + t) * d->channels));
  for (int64_t c = 0; c <= (d->side - 1) * stride + (kernel - 1) * dilation; c++) {
    zn_kref x = 0;
    for (int64_t s = 0; s < d->side; s++) {
      int64_t t = c - s * stride;
      if (t < 0 || t % dilation || t / dilation >= kernel) continue;
      at[last] = zn_ex_addi(ex, zn_ex_muli(ex, d->col, stride), c);
      if (!x) x = input(lw, d, at);
      zn_kref old = zn_kb_get(b, acc[s]);
      zn_kb_set(b, acc[s], zn_mul_add(lw, x, weight[t / dilation], old));
    }
  }
}

static void thread_body(zn_lw *lw, const depthwise *d) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  const zn_window *w = &d->v->win;
  int last = w->rank - 1;
  int64_t rows = d->v->taps / w->kernel[last];
  zn_kref acc[MAX_SIDE];
  for (int64_t s = 0; s < d->side; s++) acc[s] = zn_kb_var(b, zn_conv_bias(lw, d->v, d->channel));
  for (int64_t r = 0; r < rows; r++) {
    zn_expr at[ZN_MAX_RANK];
    int64_t left = r;
    for (int i = last - 1; i >= 0; i--) {
      int64_t tap = left % w->kernel[i];
      left /= w->kernel[i];
      at[i] = zn_ex_addi(ex, zn_ex_muli(ex, d->row[i], w->stride[i]), tap * w->dilation[i]);
    }
    row_of_taps(lw, d, r * w->kernel[last], at, acc);
  }
  zn_expr to[ZN_MAX_RANK];
  to[0] = d->image;
  to[1] = d->channel;
  for (int i = 0; i < last; i++) to[i + 2] = d->row[i];
  for (int64_t s = 0; s < d->side; s++) {
    to[last + 2] = zn_ex_addi(ex, d->col, s);
    zn_conv_emit(lw, d->v, to, zn_kb_get(b, acc[s]));
  }
}

static bool depthwise_product(zn_lw *lw, zn_conv *v) {
  zn_exprs *ex = lw->ex;
  depthwise d = {.v = v, .side = 1};
  int last = v->win.rank - 1;
  int64_t width, results;
  if (!zn_lw_cst(lw, v->w) || v->taps > MAX_TAPS || !zn_ex_is(ex, v->icg, 1) || !zn_ex_is(ex, v->ocg, 1)) return false;
  if (!zn_ex_is_const(ex, v->group, &d.channels) || d.channels % RUN || !v->wt) return false;
  if (zn_ex_is_const(ex, v->ty.dims[last + 2], &width) && zn_ex_is_const(ex, zn_type_count(ex, &v->ty), &results))
    for (int64_t s = 2; s <= MAX_SIDE; s++)
      if (width % s == 0 && results / RUN / s >= FILL / 2) d.side = s;
  pack_taps(lw, &d);
  zn_lw_kernel(lw, v->n, "conv_depth");
  zn_expr extents[ZN_MAX_RANK], var[ZN_MAX_RANK];
  extents[0] = v->ty.dims[0];
  for (int i = 0; i <= last; i++) extents[i + 1] = v->ty.dims[i + 2];
  extents[last + 1] = zn_ex_divi(ex, extents[last + 1], d.side);
  zn_lw_grid(lw, (uint32_t)last + 2, extents, var);
  d.image = var[0];
  for (int i = 0; i < last; i++) d.row[i] = var[i + 1];
  d.col = zn_ex_muli(ex, var[last + 1], d.side);
  zn_expr run = zn_lw_for(lw, zn_ex_const(ex, d.channels / RUN), ZN_FOR_VECTOR, 0);
  zn_expr lane = zn_lw_for(lw, zn_ex_const(ex, RUN), ZN_FOR_VECTOR, RUN);
  d.channel = zn_ex_add(ex, zn_ex_muli(ex, run, RUN), lane);
  thread_body(lw, &d);
  for (int i = 0; i < 3; i++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return true;
}

/* Zero points that the units' sum can account for: one of the input's, constant ones of the weights. */
static bool zeros_fit(zn_lw *lw, const zn_conv *v) {
  if (v->zw && !zn_lw_cst(lw, v->zw)) return false;
  return !v->zx || zn_ex_is(lw->ex, zn_type_count(lw->ex, zn_lw_type(lw, v->zx)), 1);
}

bool zn_conv_nhwc(zn_lw *lw, zn_conv *v) {
  bool floats = v->tx.dtype == ZN_F16 || v->tx.dtype == ZN_BF16 || v->tx.dtype == ZN_F32;
  if (!floats && (!is_bytes(v) || !zeros_fit(lw, v))) return false;
  if (!zn_lw_is_stored(lw, v->x) || !zn_conv_is_nhwc(lw, v->y)) return false;
  if (!zn_conv_is_nhwc(lw, v->x)) return few_channels(lw, v);
  return depthwise_product(lw, v) || product(lw, v);
}
