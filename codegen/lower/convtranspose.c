/* ConvTranspose in gather form. Output columns are walked by stride phase, so that within a phase input columns are
 * consecutive; a zero-bordered copy of the input makes every tap readable. */
#include <string.h>

#include "codegen/lower/gemm.h"
#include "codegen/lower/window.h"

typedef struct deconv {
  zn_nid n;
  zn_vid x, w, bias, y;
  zn_type tx, tw, ty;
  zn_window win;
  zn_expr group, icg, ocg, pad[ZN_MAX_RANK];
  int64_t margin[ZN_MAX_RANK];
  zn_expr dims[ZN_MAX_RANK];
  zn_loc scratch;
  zn_dtype ct;
} deconv;

static void resolve_pads(zn_lw *lw, deconv *v) {
  const zn_node *node = zn_lw_node(lw, v->n);
  zn_exprs *ex = lw->ex;
  uint32_t no, ns;
  const int64_t *op = zn_node_ints(node, "output_padding", &no);
  const char *mode = zn_node_str(node, "auto_pad");
  zn_node_ints(node, "output_shape", &ns);
  bool same = !strncmp(mode, "SAME", 4);
  for (int i = 0; i < v->win.rank; i++) {
    v->pad[i] = v->win.pad_lo[i];
    v->margin[i] = ((v->win.kernel[i] - 1) * v->win.dilation[i]) / v->win.stride[i] + 1;
    if (!ns && !same) continue;
    zn_expr full = zn_ex_muli(ex, zn_ex_addi(ex, v->tx.dims[i + 2], -1), v->win.stride[i]);
    full = zn_ex_addi(ex, full, (v->win.kernel[i] - 1) * v->win.dilation[i] + 1 + (no ? op[i] : 0));
    zn_expr total = zn_ex_max(ex, zn_ex_sub(ex, full, v->ty.dims[i + 2]), zn_ex_const(ex, 0));
    zn_expr half = zn_ex_divi(ex, total, 2);
    v->pad[i] = !strcmp(mode, "SAME_UPPER") ? half : zn_ex_sub(ex, total, half);
  }
}

static zn_expr offset(zn_lw *lw, const deconv *v, zn_expr n, zn_expr c, const zn_expr *pos) {
  zn_expr off = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, n, v->tx.dims[1]), c);
  for (int i = 0; i < v->win.rank; i++)
    off = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, off, v->dims[i]), pos[i]);
  return off;
}

/* Highest input position any output asks for stays inside: the far margin also covers output_padding. */
static void copy_input(zn_lw *lw, deconv *v) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_expr count = zn_ex_mul(ex, v->tx.dims[0], v->tx.dims[1]), extents[ZN_MAX_RANK], var[ZN_MAX_RANK];
  int s = v->win.rank;
  for (int i = 0; i < s; i++) {
    zn_expr last = zn_ex_add(ex, zn_ex_addi(ex, v->ty.dims[i + 2], -1), v->pad[i]);
    zn_expr reach = zn_ex_addi(ex, zn_ex_divi(ex, last, v->win.stride[i]), 2);
    v->dims[i] = zn_ex_addi(ex, zn_ex_max(ex, reach, v->tx.dims[i + 2]), 2 * v->margin[i]);
    count = zn_ex_mul(ex, count, v->dims[i]);
  }
  v->scratch = zn_lw_scratch(lw, zn_ex_muli(ex, count, zn_dtype_bytes(v->ct)));
  zn_lw_kernel(lw, v->n, "deconv_pad");
  lw->num_epilogue = 0;
  extents[0] = v->tx.dims[0];
  extents[1] = v->tx.dims[1];
  for (int i = 0; i < s - 1; i++) extents[i + 2] = v->dims[i];
  zn_lw_grid(lw, (uint32_t)s + 1, extents, var);
  zn_expr q = zn_lw_for(lw, v->dims[s - 1], ZN_FOR_VECTOR, 0), at[ZN_MAX_RANK], pos[ZN_MAX_RANK] = {0};
  at[0] = var[0];
  at[1] = var[1];
  zn_kref inside = zn_kb_int(b, ZN_BOOL, 1);
  bool empty = false; /* may be: then there is no element to read in place of what lies outside */
  for (int i = 0; i < s; i++) {
    int64_t lo, hi;
    zn_ex_range(ex, v->tx.dims[i + 2], &lo, &hi);
    empty |= lo < 1;
    pos[i] = i == s - 1 ? q : var[i + 2];
    zn_expr p = zn_ex_addi(ex, pos[i], -v->margin[i]), top = zn_ex_addi(ex, v->tx.dims[i + 2], -1);
    zn_kref in = zn_lw_in_range(lw, p, v->tx.dims[i + 2]);
    inside = zn_kb_bin(b, ZN_K_And, inside, in);
    at[i + 2] = zn_ex_max(ex, zn_ex_min(ex, p, top), zn_ex_const(ex, 0));
  }
  zn_kref zero = zn_kb_float(b, v->ct, 0), x;
  if (empty) {
    zn_kref element = zn_kb_var(b, zero);
    zn_kb_if(b, inside);
    zn_kb_set(b, element, zn_lw_load(lw, v->x, at));
    zn_kb_end(b);
    x = zn_kb_get(b, element);
  } else {
    x = zn_lw_load(lw, v->x, at);
    x = zn_kb_select(b, inside, x, zero);
  }
  zn_kref to = zn_lw_ptr_loc(lw, v->scratch, ZN_KP_OUT, v->ct);
  zn_lw_store_at(lw, to, v->ct, offset(lw, v, var[0], var[1], pos), x);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* Accumulates output o (spatial): the taps whose stride phase fits. phase: o of the last axis modulo stride. */
static void one_output(zn_lw *lw, const deconv *v, zn_expr n, zn_expr g, zn_expr oc, const zn_expr *o) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  int s = v->win.rank, ifs = 0;
  zn_expr c_out = zn_ex_add(ex, zn_ex_mul(ex, g, v->ocg), oc), tap[ZN_MAX_RANK] = {0}, pos[ZN_MAX_RANK] = {0};
  zn_kref acc = zn_kb_var(b, v->bias ? zn_lw_load(lw, v->bias, &c_out) : zn_kb_float(b, v->ct, 0));
  for (int i = 0; i < s; i++) {
    tap[i] = zn_lw_for(lw, zn_ex_const(ex, v->win.kernel[i]), ZN_FOR_SERIAL, 0);
    zn_expr t = zn_ex_sub(ex, zn_ex_add(ex, o[i], v->pad[i]), zn_ex_muli(ex, tap[i], v->win.dilation[i]));
    /* shifted to be non-negative, so that division is exact and plain */
    t = zn_ex_addi(ex, t, v->margin[i] * v->win.stride[i]);
    pos[i] = zn_ex_divi(ex, t, v->win.stride[i]);
    zn_expr off_phase = zn_ex_modi(ex, t, v->win.stride[i]);
    if (zn_ex_is(ex, off_phase, 0)) continue;
    zn_kref m = zn_lw_ix(lw, off_phase);
    zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, m, zn_kb_idx(b, 0)));
    lw->open_real[lw->num_open++] = true;
    ifs++;
  }
  zn_expr ic = zn_lw_for(lw, v->icg, ZN_FOR_SERIAL, 0), at[ZN_MAX_RANK];
  zn_expr c_in = zn_ex_add(ex, zn_ex_mul(ex, g, v->icg), ic);
  at[0] = c_in;
  at[1] = oc;
  for (int i = 0; i < s; i++) at[i + 2] = tap[i];
  zn_kref w = zn_lw_load(lw, v->w, at), p = zn_lw_ptr_loc(lw, v->scratch, ZN_KP_IN, v->ct);
  zn_kref x = zn_lw_load_at(lw, p, v->ct, offset(lw, v, n, c_in, pos)), old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_mul_add(lw, w, x, old));
  for (int i = 0; i < s + 1 + ifs; i++) zn_lw_end(lw);
  zn_expr out[ZN_MAX_RANK];
  out[0] = n;
  out[1] = c_out;
  for (int i = 0; i < s; i++) out[i + 2] = o[i];
  zn_lw_emit(lw, v->y, out, zn_kb_get(b, acc));
}

static zn_status convtranspose_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  deconv v = {.n = n, .x = node->in[0], .w = node->in[1], .bias = zn_node_in(node, 2), .y = node->out[0]};
  v.tx = *zn_lw_type(lw, v.x);
  v.tw = *zn_lw_type(lw, v.w);
  v.ty = *zn_lw_type(lw, v.y);
  v.ct = zn_lw_ctype((zn_dtype)v.tx.dtype);
  ZN_TRY(zn_window_read(lw, n, v.x, v.w, v.y, &v.win));
  resolve_pads(lw, &v);
  v.group = zn_ex_const(ex, zn_node_int(node, "group"));
  v.icg = zn_ex_div(ex, v.tx.dims[1], v.group);
  v.ocg = v.tw.dims[1];
  copy_input(lw, &v);
  int s = v.win.rank;
  unsigned maps = 1;
  int64_t ocg;
  if (zn_ex_is_const(ex, v.ocg, &ocg))
    for (unsigned m = 4; m > 1 && maps == 1; m--)
      if (ocg % m == 0) maps = m;
  zn_lw_kernel(lw, n, "convtranspose");
  zn_expr extents[ZN_MAX_RANK + 2], var[ZN_MAX_RANK + 2], o[ZN_MAX_RANK] = {0};
  extents[0] = v.ty.dims[0];
  extents[1] = v.group;
  extents[2] = zn_ex_ceildiv(ex, v.ocg, zn_ex_const(ex, maps));
  for (int i = 0; i < s - 1; i++) extents[i + 3] = v.ty.dims[i + 2];
  zn_lw_grid(lw, (uint32_t)s + 2, extents, var);
  for (int i = 0; i < s - 1; i++) o[i] = var[i + 3];
  zn_expr stride = zn_ex_const(ex, v.win.stride[s - 1]);
  zn_expr phase = zn_lw_for(lw, stride, ZN_FOR_SERIAL, 0);
  zn_expr m = zn_lw_for(lw, zn_ex_const(ex, maps), ZN_FOR_UNROLL, maps);
  zn_expr columns = zn_ex_ceildiv(ex, zn_ex_sub(ex, v.ty.dims[s + 1], phase), stride);
  zn_expr q = zn_lw_for(lw, columns, ZN_FOR_VECTOR, 0);
  o[s - 1] = zn_ex_add(ex, zn_ex_mul(ex, q, stride), phase);
  one_output(lw, &v, var[0], var[1], zn_ex_add(ex, zn_ex_muli(ex, var[2], maps), m), o);
  for (int i = 0; i < 4; i++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_convtranspose = {NULL, convtranspose_kernel};
