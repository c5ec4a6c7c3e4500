/* Sizes and addresses of convolutions over zero-bordered images. */
#include "codegen/lower/conv_image.h"

static bool read_axis(zn_lw *lw, const zn_conv *v, int i, int64_t *in, int64_t *out, int64_t *pad) {
  zn_exprs *ex = lw->ex;
  return zn_ex_is_const(ex, v->tx.dims[i + 2], in) && zn_ex_is_const(ex, v->ty.dims[i + 2], out) &&
         zn_ex_is_const(ex, v->win.pad_lo[i], pad) && *out >= 1;
}

bool zn_conv_image_read(zn_lw *lw, const zn_conv *v, zn_conv_image *m) {
  zn_exprs *ex = lw->ex;
  const zn_layout *l = &lw->g->vals[v->x].layout;
  const zn_window *w = &v->win;
  int rank = w->rank;
  *m = (zn_conv_image){.v = v, .oh = 1, .kh = 1, .sh = 1, .dh = 1, .rows = 1, .lanes = zn_lw_lanes(lw, v->ct)};
  if (rank < 1 || rank > 2 || m->lanes < 2 || !zn_is_float(v->ct) || v->xt != v->ct) return false;
  if (!zn_lw_is_stored(lw, v->x) || (l->block && l->axis != 1) || v->tx.dtype != v->ct) return false;
  if (!zn_ex_is_const(ex, v->icg, &m->icg) || !zn_ex_is_const(ex, v->ocg, &m->ocg)) return false;
  if (!zn_ex_is_const(ex, v->group, &m->groups)) return false;
  m->block = l->block;
  for (int i = 0; i < rank; i++) {
    int64_t in, out, pad, first, stored, span = (w->kernel[i] - 1) * w->dilation[i];
    if (!read_axis(lw, v, i, &in, &out, &pad)) return false;
    first = l->lo[i + 2] - pad;
    stored = l->lo[i + 2] + in + l->hi[i + 2];
    if (first < 0 || first + (out - 1) * w->stride[i] + span >= stored) return false;
    if (i == rank - 1) {
      m->ow = out, m->kw = w->kernel[i], m->sw = w->stride[i], m->dw = w->dilation[i];
      m->width = stored, m->col0 = first;
    } else {
      m->oh = out, m->kh = w->kernel[i], m->sh = w->stride[i], m->dh = w->dilation[i];
      m->rows = stored + l->gap, m->row0 = first, m->above = pad, m->height = in;
    }
  }
  return true;
}

zn_expr zn_conv_image_at(zn_lw *lw, const zn_conv_image *m, zn_expr n, zn_expr cb, zn_expr row, zn_expr col) {
  zn_exprs *ex = lw->ex;
  int64_t channels = m->groups * m->icg, block = m->block ? m->block : 1;
  zn_expr at = zn_ex_add(ex, zn_ex_muli(ex, n, channels / block), cb);
  at = zn_ex_add(ex, zn_ex_muli(ex, at, m->rows), row);
  at = zn_ex_add(ex, zn_ex_muli(ex, at, m->width), col);
  return zn_ex_muli(ex, at, block);
}

void zn_conv_image_out(const zn_conv_image *m, zn_expr n, zn_expr c, zn_expr row, zn_expr col, zn_expr *idx) {
  idx[0] = n;
  idx[1] = c;
  if (m->v->win.rank == 2) idx[2] = row;
  idx[m->v->win.rank + 1] = col;
}
