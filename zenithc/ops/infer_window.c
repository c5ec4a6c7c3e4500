/* Inference of sliding windows: convolutions, pooling, region pooling, Col2Im. The output extent
 * follows the specification: floor or ceil of (in + pads - dilated kernel) / stride, plus 1, where
 * with ceil_mode a window that would start in the padding behind the input is dropped. */
#include "zenithc/ops/infer_util.h"

#include <inttypes.h>

static zn_status int_list(const zn_inf *f, const char *name, int n, int64_t def, int64_t least,
                          int64_t *out) {
  uint32_t m;
  const int64_t *v = zn_op_schema(f->nd->op) && zn_schema_find_attr(zn_op_schema(f->nd->op), name)
                         ? zn_node_ints(f->nd, name, &m)
                         : NULL;
  if (v && (int)m != n) {
    return zn_inf_err(f, "attribute '%s' has %u entries, expected %d", name, m, n);
  }
  for (int d = 0; d < n; d++) {
    out[d] = v ? v[d] : def;
    if (out[d] < least || out[d] > INT32_MAX) {
      return zn_inf_err(f, "attribute '%s' has the entry %" PRId64, name, out[d]);
    }
  }
  return ZN_OK;
}

zn_status zn_inf_window_attrs(const zn_inf *f, int n, zn_inf_win *w) {
  const zn_schema *s = zn_op_schema(f->nd->op);
  int64_t pads[2 * ZN_MAX_RANK];
  *w = (zn_inf_win){.n = n};
  if (n < 1) return zn_inf_err(f, "the input has no spatial axes");
  ZN_TRY(int_list(f, "strides", n, 1, 1, w->stride));
  ZN_TRY(int_list(f, "dilations", n, 1, 1, w->dilation));
  ZN_TRY(int_list(f, "pads", 2 * n, 0, INT32_MIN, pads));
  for (int d = 0; d < n; d++) {
    w->pad_lo[d] = pads[d];
    w->pad_hi[d] = pads[n + d];
  }
  w->ceil_mode = zn_schema_find_attr(s, "ceil_mode") && zn_node_int(f->nd, "ceil_mode") != 0;
  const char *ap = zn_schema_find_attr(s, "auto_pad") ? zn_node_str(f->nd, "auto_pad") : NULL;
  if (!ap || strcmp(ap, "NOTSET") == 0 || !*ap) return ZN_OK;
  w->same_upper = strcmp(ap, "SAME_UPPER") == 0;
  w->same_lower = strcmp(ap, "SAME_LOWER") == 0;
  w->valid = strcmp(ap, "VALID") == 0;
  if (!w->same_upper && !w->same_lower && !w->valid) {
    return zn_inf_err(f, "attribute 'auto_pad' is '%s'", ap);
  }
  return ZN_OK;
}

/* Extent of the dilated kernel. */
static zn_expr extent(const zn_inf *f, const zn_inf_win *w, int d) {
  return zn_ex_addi(f->ex, zn_ex_muli(f->ex, zn_ex_addi(f->ex, w->kernel[d], -1), w->dilation[d]),
                    1);
}

zn_expr zn_inf_window_dim(const zn_inf *f, const zn_inf_win *w, int d, zn_expr in) {
  const zn_expr s = zn_inf_k(f, w->stride[d]), ek = extent(f, w, d);
  if (w->same_upper || w->same_lower) return zn_ex_ceildiv(f->ex, in, s);
  const int64_t lo = w->valid ? 0 : w->pad_lo[d], hi = w->valid ? 0 : w->pad_hi[d];
  const zn_expr span = zn_ex_sub(f->ex, zn_ex_addi(f->ex, in, lo + hi), ek);
  if (!w->ceil_mode || w->valid) return zn_ex_addi(f->ex, zn_ex_div(f->ex, span, s), 1);
  const zn_expr out = zn_ex_addi(f->ex, zn_ex_ceildiv(f->ex, span, s), 1);
  return zn_ex_min(f->ex, out, zn_ex_ceildiv(f->ex, zn_ex_addi(f->ex, in, lo), s));
}

static zn_status window_dims(const zn_inf *f, zn_inf_win *w, const zn_type *x, zn_expr *dims) {
  for (int d = 0; d < w->n; d++) {
    int64_t v;
    dims[2 + d] = zn_inf_window_dim(f, w, d, x->dims[2 + d]);
    const int64_t pads = w->valid ? 0 : w->pad_lo[d] + w->pad_hi[d];
    const zn_expr room = zn_ex_sub(f->ex, zn_ex_addi(f->ex, x->dims[2 + d], pads), extent(f, w, d));
    const bool same = w->same_upper || w->same_lower, empty = zn_ex_is(f->ex, x->dims[2 + d], 0);
    if ((zn_ex_is_const(f->ex, dims[2 + d], &v) && v < 0) || (!same && !empty && zn_ex_is_const(f->ex, room, &v) && v < 0)) {
      return zn_inf_err(f, "the window is larger than the padded input on spatial axis %d", d);
    }
  }
  return ZN_OK;
}

/* ---- convolution ---- */

static zn_status conv_kernel(const zn_inf *f, const zn_type *wt, zn_inf_win *w) {
  uint32_t n;
  const int64_t *ks = zn_node_ints(f->nd, "kernel_shape", &n);
  if (ks && (int)n != w->n) {
    return zn_inf_err(f, "attribute 'kernel_shape' has %u entries, expected %d", n, w->n);
  }
  for (int d = 0; d < w->n; d++) {
    w->kernel[d] = ks ? zn_inf_k(f, ks[d]) : wt->dims[2 + d];
    if (ks) {
      ZN_TRY(zn_inf_same_dim(f, w->kernel[d], wt->dims[2 + d],
                             "kernel_shape and the weight's extent"));
    }
  }
  return ZN_OK;
}

static zn_status conv_at(const zn_inf *f, uint32_t xi, uint32_t wi) {
  const zn_type *x = zn_inf_in(f, xi), *wt = zn_inf_in(f, wi);
  const int64_t group = zn_node_int(f->nd, "group");
  zn_expr dims[ZN_MAX_RANK];
  zn_inf_win w;
  if (!x || !wt || x->rank < 0 || wt->rank < 0) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, xi, 3));
  ZN_TRY(zn_inf_want_rank(f, wi, x->rank));
  if (group < 1) return zn_inf_err(f, "attribute 'group' is %" PRId64, group);
  ZN_TRY(zn_inf_window_attrs(f, x->rank - 2, &w));
  ZN_TRY(conv_kernel(f, wt, &w));
  ZN_TRY(zn_inf_same_dim(f, x->dims[1], zn_ex_muli(f->ex, wt->dims[1], group),
                         "input channels and the weight's channels times group"));
  int64_t m;
  if (zn_ex_is_const(f->ex, wt->dims[0], &m) && m % group) {
    return zn_inf_err(f, "%" PRId64 " output channels do not divide into %" PRId64 " groups", m,
                      group);
  }
  dims[0] = x->dims[0];
  dims[1] = wt->dims[0];
  ZN_TRY(window_dims(f, &w, x, dims));
  zn_inf_shape(f, 0, x->rank, dims);
  return ZN_OK;
}

ZN_INFER(conv) { return conv_at(f, 0, 1); }
ZN_INFER(qlinearconv) { return conv_at(f, 0, 3); }
ZN_INFER(deformconv) { return conv_at(f, 0, 1); }

static zn_status transposed_dims(const zn_inf *f, const zn_inf_win *w, const zn_type *x,
                                 zn_expr *dims) {
  int64_t extra[ZN_MAX_RANK];
  uint32_t n;
  ZN_TRY(int_list(f, "output_padding", w->n, 0, 0, extra));
  const int64_t *os = zn_node_ints(f->nd, "output_shape", &n);
  if (os && (int)n != w->n && (int)n != w->n + 2) {
    return zn_inf_err(f, "attribute 'output_shape' has %u entries, expected %d", n, w->n);
  }
  for (int d = 0; d < w->n; d++) {
    const zn_expr in = x->dims[2 + d];
    if (os) {
      dims[2 + d] = zn_inf_k(f, os[(int)n - w->n + d]);
    } else if (w->same_upper || w->same_lower) {
      dims[2 + d] = zn_ex_muli(f->ex, in, w->stride[d]);
    } else {
      const int64_t pads = w->valid ? 0 : w->pad_lo[d] + w->pad_hi[d];
      const zn_expr body = zn_ex_muli(f->ex, zn_ex_addi(f->ex, in, -1), w->stride[d]);
      dims[2 + d] = zn_ex_addi(f->ex, zn_ex_add(f->ex, body, extent(f, w, d)), extra[d] - pads);
    }
  }
  return ZN_OK;
}

ZN_INFER(convtranspose) {
  const zn_type *x = zn_inf_in(f, 0), *wt = zn_inf_in(f, 1);
  const int64_t group = zn_node_int(f->nd, "group");
  zn_expr dims[ZN_MAX_RANK];
  zn_inf_win w;
  if (!zn_inf_known(f, 0) || !zn_inf_known(f, 1)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 0, 3));
  ZN_TRY(zn_inf_want_rank(f, 1, x->rank));
  if (group < 1) return zn_inf_err(f, "attribute 'group' is %" PRId64, group);
  ZN_TRY(zn_inf_window_attrs(f, x->rank - 2, &w));
  ZN_TRY(conv_kernel(f, wt, &w));
  ZN_TRY(
      zn_inf_same_dim(f, x->dims[1], wt->dims[0], "input channels and the weight's first extent"));
  dims[0] = x->dims[0];
  dims[1] = zn_ex_muli(f->ex, wt->dims[1], group);
  ZN_TRY(transposed_dims(f, &w, x, dims));
  zn_inf_shape(f, 0, x->rank, dims);
  return ZN_OK;
}

ZN_INFER(causalconvwithstate) {
  const zn_type *x = zn_inf_in(f, 0), *w = zn_inf_in(f, 1);
  ZN_TRY(zn_inf_want_rank(f, 0, 3));
  ZN_TRY(zn_inf_want_rank(f, 1, 3));
  zn_inf_same(f, 0, 0);
  if (!zn_inf_known(f, 0) || !zn_inf_known(f, 1)) return ZN_OK;
  const zn_expr dims[3] = {x->dims[0], x->dims[1], zn_ex_addi(f->ex, w->dims[2], -1)};
  zn_inf_shape(f, 1, 3, dims);
  return ZN_OK;
}

/* ---- pooling ---- */

static zn_status pooled(const zn_inf *f, uint32_t outs) {
  const zn_type *x = zn_inf_in(f, 0);
  zn_expr dims[ZN_MAX_RANK];
  zn_inf_win w;
  uint32_t n;
  if (!zn_inf_known(f, 0)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 0, 3));
  ZN_TRY(zn_inf_window_attrs(f, x->rank - 2, &w));
  const int64_t *ks = zn_node_ints(f->nd, "kernel_shape", &n);
  if (!ks || (int)n != w.n) {
    return zn_inf_err(f, "attribute 'kernel_shape' has %u entries, expected %d", n, w.n);
  }
  for (int d = 0; d < w.n; d++) {
    if (ks[d] < 1) return zn_inf_err(f, "attribute 'kernel_shape' has the entry %" PRId64, ks[d]);
    w.kernel[d] = zn_inf_k(f, ks[d]);
  }
  dims[0] = x->dims[0];
  dims[1] = x->dims[1];
  ZN_TRY(window_dims(f, &w, x, dims));
  for (uint32_t o = 0; o < outs; o++) zn_inf_shape(f, o, x->rank, dims);
  return ZN_OK;
}

ZN_INFER(pool) { return pooled(f, 1); }
ZN_INFER(maxpool) {
  zn_inf_dtype(f, 1, ZN_I64);
  return pooled(f, 2);
}

ZN_INFER(maxunpool) {
  const zn_type *x = zn_inf_in(f, 0);
  zn_expr dims[ZN_MAX_RANK];
  zn_inf_win w;
  uint32_t n;
  if (zn_node_in(f->nd, 2)) {
    const zn_expr *e = zn_inf_need(f, 2, &n);
    if (e && n <= ZN_MAX_RANK) zn_inf_shape(f, 0, (int)n, e);
    return ZN_OK;
  }
  if (!zn_inf_known(f, 0)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 0, 3));
  ZN_TRY(zn_inf_window_attrs(f, x->rank - 2, &w));
  const int64_t *ks = zn_node_ints(f->nd, "kernel_shape", &n);
  if (!ks || (int)n != w.n) return zn_inf_err(f, "attribute 'kernel_shape' does not fit the input");
  dims[0] = x->dims[0];
  dims[1] = x->dims[1];
  for (int d = 0; d < w.n; d++) {
    dims[2 + d] =
        zn_ex_addi(f->ex, zn_ex_muli(f->ex, zn_ex_addi(f->ex, x->dims[2 + d], -1), w.stride[d]),
                   ks[d] - w.pad_lo[d] - w.pad_hi[d]);
  }
  zn_inf_shape(f, 0, x->rank, dims);
  return ZN_OK;
}

ZN_INFER(maxroipool) {
  const zn_type *x = zn_inf_in(f, 0), *r = zn_inf_in(f, 1);
  uint32_t n;
  const int64_t *ps = zn_node_ints(f->nd, "pooled_shape", &n);
  ZN_TRY(zn_inf_want_rank(f, 0, 4));
  ZN_TRY(zn_inf_want_rank(f, 1, 2));
  if (!ps || n != 2) return zn_inf_err(f, "attribute 'pooled_shape' has %u entries, expected 2", n);
  if (!zn_inf_known(f, 0) || !zn_inf_known(f, 1)) return ZN_OK;
  const zn_expr dims[4] = {r->dims[0], x->dims[1], zn_inf_k(f, ps[0]), zn_inf_k(f, ps[1])};
  zn_inf_shape(f, 0, 4, dims);
  return ZN_OK;
}

ZN_INFER(roialign) {
  const zn_type *x = zn_inf_in(f, 0), *r = zn_inf_in(f, 1);
  ZN_TRY(zn_inf_want_rank(f, 0, 4));
  ZN_TRY(zn_inf_want_rank(f, 1, 2));
  ZN_TRY(zn_inf_want_rank(f, 2, 1));
  if (!zn_inf_known(f, 0) || !zn_inf_known(f, 1)) return ZN_OK;
  const zn_expr dims[4] = {r->dims[0], x->dims[1], zn_inf_k(f, zn_node_int(f->nd, "output_height")),
                           zn_inf_k(f, zn_node_int(f->nd, "output_width"))};
  zn_inf_shape(f, 0, 4, dims);
  return ZN_OK;
}

ZN_INFER(col2im) {
  const zn_type *x = zn_inf_in(f, 0);
  uint32_t n, m;
  zn_expr dims[ZN_MAX_RANK], block;
  ZN_TRY(zn_inf_numbers(f, "Col2Im"));
  ZN_TRY(zn_inf_want_rank(f, 0, 3));
  const zn_expr *im = zn_inf_need(f, 1, &n), *bl = zn_inf_need(f, 2, &m);
  if (!zn_inf_known(f, 0) || !im) return ZN_OK;
  if (n + 2 > ZN_MAX_RANK || (bl && m != n)) {
    return zn_inf_err(f, "image_shape has %u entries, block_shape %u", n, m);
  }
  block = zn_inf_k(f, 1);
  for (uint32_t d = 0; bl && d < m; d++) block = zn_ex_mul(f->ex, block, bl[d]);
  dims[0] = x->dims[0];
  dims[1] = bl ? zn_ex_div(f->ex, x->dims[1], block) : zn_inf_fresh(f, 0, 1, 0, x->dims[1]);
  if (dims[1] == ZN_EX_NONE) return zn_inf_err(f, "block_shape has a zero entry");
  for (uint32_t d = 0; d < n; d++) dims[2 + d] = im[d];
  zn_inf_shape(f, 0, (int)n + 2, dims);
  return ZN_OK;
}
