/* Depthwise convolution over channel-blocked images: lanes are channels, a register tile is a run of pixels of one row,
 * the taps are written out so that neighbouring pixels share their loads. Rows are cut into tiles of two sizes that fill
 * them exactly. */
#include <assert.h>

#include "codegen/lower/conv_image.h"
#include "codegen/lower/cut.h"
#include "codegen/lower/gemm.h"

enum { MAX_TAPS = 25 };

typedef struct depth {
  zn_conv_image m;
  int64_t blocks;             /* of channels */
  int64_t px[2], tiles[2];    /* pixels of a tile, tiles of a row */
  int64_t bands, band;        /* pieces of the image in the grid, rows of one */
  zn_loc weights;
} depth;

/* As few tiles as 16 registers allow; the second size takes what the first leaves. */
static void choose_tile(zn_lw *lw, depth *d) {
  int64_t w = d->m.ow, most = lw->caps->vector_regs > 16 ? 14 : 7, best = INT64_MAX, usual = 1, choices[14];
  uint32_t n = 0;
  for (int64_t px = 1; px <= most && px <= w; px++) {
    int64_t rest = w % px, cost = (w / px + (rest > 0)) * 8 + (rest > 0 ? 4 : 0);
    choices[n++] = px;
    if (cost > best) continue;
    best = cost;
    usual = px;
  }
  int64_t px = zn_lw_knob(lw, d->m.v->n, "pixels", usual, choices, n), rest = w % px;
  d->px[0] = px, d->tiles[0] = w / px;
  d->px[1] = rest, d->tiles[1] = rest > 0;
}

static void pack(zn_lw *lw, depth *d, const zn_htensor *w) { /* [block][tap][lanes] */
  const zn_conv_image *m = &d->m;
  int64_t taps = m->kh * m->kw;
  uint64_t to = 0, count = (uint64_t)(m->groups * taps);
  zn_dtype t = m->v->ct;
  char *data = zn_arena_array(&lw->ctx->graph, count, zn_dtype_bytes(t));
  for (int64_t c = 0; c < m->groups; c += m->lanes)
    for (int64_t k = 0; k < taps; k++)
      for (int64_t l = 0; l < m->lanes; l++)
        zn_store_f64(t, data, to++, zn_load_f64(w->dtype, w->data, (uint64_t)((c + l) * taps + k)));
  d->weights = zn_lw_const(lw, zn_arena_printf(lw->arena, "%s_lanes", lw->g->vals[m->v->w].name), t, count, data);
}

/* One output element: lane of channel block cb at row, col. */
static void element(zn_lw *lw, const depth *d, zn_expr n, zn_expr cb, zn_expr lane, zn_expr row, zn_expr col) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const zn_conv_image *m = &d->m;
  zn_dtype t = m->v->ct;
  zn_expr r = zn_ex_addi(ex, zn_ex_muli(ex, row, m->sh), m->row0);
  zn_expr c = zn_ex_addi(ex, zn_ex_muli(ex, col, m->sw), m->col0), out[ZN_MAX_RANK];
  zn_kref x0 = zn_lw_ix(lw, zn_ex_add(ex, zn_conv_image_at(lw, m, n, cb, r, c), lane));
  zn_kref w0 = zn_lw_ix(lw, zn_ex_add(ex, zn_ex_muli(ex, cb, m->kh * m->kw * m->lanes), lane));
  zn_expr channel = zn_ex_add(ex, zn_ex_muli(ex, cb, m->lanes), lane);
  zn_kref acc = zn_conv_bias(lw, m->v, channel);
  for (int64_t y = 0; y < m->kh; y++)
    for (int64_t x = 0; x < m->kw; x++) {
      zn_kref xi = zn_kb_bin(b, ZN_K_Add, x0, zn_kb_idx(b, (y * m->dh * m->width + x * m->dw) * m->lanes));
      zn_kref wi = zn_kb_bin(b, ZN_K_Add, w0, zn_kb_idx(b, (y * m->kw + x) * m->lanes));
      zn_kref xk = zn_kb_load(b, t, 1, zn_lw_ptr(lw, m->v->x, ZN_KP_IN), xi);
      zn_kref wk = zn_kb_load(b, t, 1, zn_lw_ptr_loc(lw, d->weights, ZN_KP_IN, t), wi);
      acc = zn_mul_add(lw, wk, xk, acc);
    }
  zn_conv_image_out(m, n, channel, row, col, out);
  zn_lw_emit(lw, m->v->y, out, acc);
}

static void emit_kernel(zn_lw *lw, const depth *d) {
  zn_exprs *ex = lw->ex;
  const zn_conv_image *m = &d->m;
  zn_lw_kernel(lw, m->v->n, "conv_depth");
  zn_expr ext[3] = {m->v->ty.dims[0], zn_ex_const(ex, d->blocks), zn_ex_const(ex, d->bands)}, var[3];
  zn_lw_grid(lw, 3, ext, var);
  zn_expr first = zn_ex_muli(ex, var[2], d->band), here = zn_ex_const(ex, d->band);
  if (m->oh % d->band) here = zn_ex_min(ex, here, zn_ex_sub(ex, zn_ex_const(ex, m->oh), first));
  zn_expr row = zn_ex_add(ex, first, zn_lw_for(lw, here, ZN_FOR_SERIAL, 0));
  for (int k = 0; k < 2; k++) {
    if (!d->tiles[k]) continue;
    zn_expr t = zn_lw_for(lw, zn_ex_const(ex, d->tiles[k]), ZN_FOR_SERIAL, 0);
    zn_expr p = zn_lw_for(lw, zn_ex_const(ex, d->px[k]), ZN_FOR_UNROLL, (unsigned)d->px[k]);
    zn_expr l = zn_lw_for(lw, zn_ex_const(ex, m->lanes), ZN_FOR_VECTOR, (unsigned)m->lanes);
    zn_expr col = zn_ex_addi(ex, zn_ex_muli(ex, t, d->px[k]), k ? d->tiles[0] * d->px[0] : 0);
    element(lw, d, var[0], var[1], l, row, zn_ex_add(ex, col, p));
    for (int i = 0; i < 3; i++) zn_lw_end(lw);
  }
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

bool zn_conv_lanes(zn_lw *lw, zn_conv *v) {
  depth d = {0};
  const zn_htensor *w = zn_lw_cst(lw, v->w);
  const zn_layout *ly = &lw->g->vals[v->y].layout;
  if (!w || v->zx || v->zw || v->sy || !ly->block || v->taps > MAX_TAPS) return false;
  if (!zn_conv_image_read(lw, v, &d.m)) return false;
  zn_conv_image *m = &d.m;
  if (m->icg != 1 || m->ocg != 1 || m->block != ly->block || ly->block > m->lanes || ly->axis != 1) return false;
  m->lanes = ly->block;
  d.blocks = m->groups / m->lanes;
  choose_tile(lw, &d);
  int64_t n = 1, one;
  if (!zn_ex_is_const(lw->ex, v->ty.dims[0], &n) || n < 1) n = 1;
  zn_cut c = {.outer = n * d.blocks, .a = 1, .b = m->oh, .cycles = (double)(m->ow * m->kh * m->kw)};
  c.b_bytes = (double)(m->sh * m->width * m->lanes * zn_dtype_bytes(v->ct));
  zn_cut_work(&c, &one, &d.band);
  d.bands = (m->oh + d.band - 1) / d.band;
  pack(lw, &d, w);
  emit_kernel(lw, &d);
  return true;
}
