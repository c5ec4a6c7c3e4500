/* Conv, ConvInteger and QLinearConv, any number of spatial axes, groups, strides and dilations. Schedules:
 *   winograd  3x3 under --math=fast (conv_winograd.c),
 *   direct    channel-blocked results (conv_direct.c), and
 *   lanes     their depthwise form (conv_lanes.c): where the layout pass chose blocked layouts and zero borders;
 *   depth     one channel's plane at a time (conv_depth.c), and
 *   panel     packed pixels times packed weights (conv_panel.c): floats, constant weights and image sizes;
 *   rows      lanes run along the last spatial axis (a whole image for 1x1): `maps` output channels x vectors of pixels
 *             per register tile, weights packed [group][block][k][maps];
 *   channels  small images: the matrix-product schedule with pixels as rows and output channels as columns.
 * Padding and strides are taken out first by one copy of the input into a zero-bordered scratch whose last axis is
 * split into its stride phases, so that the loops below are free of conditions and every vector load is contiguous. */
#include <assert.h>

#include "codegen/lower/conv.h"
#include "codegen/lower/gemm.h"
#include "codegen/lower/gemm_bytes.h"
#include "codegen/lower/requant.h"

typedef zn_conv conv;

/* ---------------------------------------------------------------- the padded copy */

bool zn_conv_needs_copy(zn_lw *lw, const conv *v) {
  if (!zn_lw_is_stored(lw, v->x) || v->zx) return true;
  int s = v->win.rank;
  if (v->win.stride[s - 1] > 1) return true;
  for (int i = 0; i < s; i++)
    if (!zn_ex_is(lw->ex, v->win.pad_lo[i], 0) || !zn_ex_is(lw->ex, v->win.pad_hi[i], 0)) return true;
  return false;
}

static zn_expr scratch_offset(zn_lw *lw, const conv *v, zn_expr n, zn_expr c, const zn_expr *pos,
                              zn_expr phase) {
  zn_exprs *ex = lw->ex;
  zn_expr off = zn_ex_add(ex, zn_ex_mul(ex, n, v->tx.dims[1]), c);
  int s = v->win.rank;
  for (int i = 0; i < s; i++) {
    if (i == s - 1) off = zn_ex_add(ex, zn_ex_muli(ex, off, v->phases), phase);
    off = zn_ex_add(ex, zn_ex_mul(ex, off, v->dims[i]), pos[i]);
  }
  return off;
}

void zn_conv_copy_input(zn_lw *lw, conv *v) {
  zn_exprs *ex = lw->ex;
  int s = v->win.rank;
  v->copied = true;
  v->phases = v->win.stride[s - 1];
  zn_expr count = zn_ex_mul(ex, v->tx.dims[0], v->tx.dims[1]);
  for (int i = 0; i < s; i++) {
    zn_expr e = zn_ex_add(ex, zn_ex_add(ex, v->tx.dims[i + 2], v->win.pad_lo[i]), v->win.pad_hi[i]);
    if (i == s - 1) e = zn_ex_ceildiv(ex, e, zn_ex_const(ex, v->phases));
    v->dims[i] = e;
    count = zn_ex_mul(ex, count, e);
  }
  count = zn_ex_muli(ex, count, v->phases);
  count = zn_ex_addi(ex, count, ZN_CONV_SLACK);
  v->scratch = zn_lw_scratch(lw, zn_ex_muli(ex, count, zn_dtype_bytes(v->xt)));
  zn_lw_kernel(lw, v->n, "conv_pad");
  lw->num_epilogue = 0;
  zn_kref to = zn_lw_ptr_loc(lw, v->scratch, ZN_KP_OUT, v->xt);
  zn_expr extents[ZN_MAX_RANK + 1], var[ZN_MAX_RANK + 1], idx[ZN_MAX_RANK];
  extents[0] = v->tx.dims[0];
  extents[1] = v->tx.dims[1];
  for (int i = 0; i < s - 1; i++) extents[i + 2] = v->dims[i];
  zn_lw_grid(lw, (uint32_t)s + 1, extents, var);
  zn_expr phase = zn_lw_for(lw, zn_ex_const(ex, v->phases), ZN_FOR_SERIAL, 0);
  zn_kb *b = &lw->kb;
  zn_kref inside = zn_kb_int(b, ZN_BOOL, 1);
  for (int i = 0; i < s - 1; i++) {
    idx[i + 2] = zn_ex_sub(ex, var[i + 2], v->win.pad_lo[i]);
    inside = zn_kb_bin(b, ZN_K_And, inside, zn_lw_in_range(lw, idx[i + 2], v->tx.dims[i + 2]));
  }
  idx[0] = var[0];
  idx[1] = var[1];
  /* last axis: position q of the phase is column q*phases + phase - pad; columns [0, W) exist */
  zn_expr w = v->tx.dims[s + 1], pad = v->win.pad_lo[s - 1], ph = zn_ex_const(ex, v->phases);
  zn_expr zero = zn_ex_const(ex, 0);
  zn_expr first = zn_ex_max(ex, zn_ex_ceildiv(ex, zn_ex_sub(ex, pad, phase), ph), zero);
  zn_expr end = zn_ex_ceildiv(ex, zn_ex_sub(ex, zn_ex_add(ex, w, pad), phase), ph);
  end = zn_ex_min(ex, zn_ex_max(ex, end, first), v->dims[s - 1]);
  zn_expr row[ZN_MAX_RANK];
  for (int i = 0; i < s - 1; i++) row[i] = var[i + 2];
  zn_kref fz = zn_is_float(v->xt) ? zn_kb_float(b, v->xt, 0) : zn_kb_int(b, v->xt, 0);
  zn_kref x_zero = v->zx ? zn_lw_load(lw, v->zx, (const zn_expr[]){zero}) : 0;
  if (v->raw && x_zero) fz = x_zero;
  zn_kref k_first = zn_lw_ix(lw, first), k_end = zn_lw_ix(lw, end), k_zero = zn_kb_idx(b, 0);
  zn_expr e_first = zn_lw_as_expr(lw, zn_kb_select(b, inside, k_first, k_zero), zn_ex_addi(ex, v->dims[s - 1], 1));
  zn_kref len = zn_kb_bin(b, ZN_K_Sub, k_end, k_first);
  zn_expr e_len = zn_lw_as_expr(lw, zn_kb_select(b, inside, len, k_zero), zn_ex_addi(ex, v->dims[s - 1], 1));
  zn_expr parts[3] = {e_first, e_len, ZN_EX_NONE}, start[3] = {zero, e_first, zn_ex_add(ex, e_first, e_len)};
  parts[2] = zn_ex_sub(ex, v->dims[s - 1], start[2]);
  for (int p = 0; p < 3; p++) {
    zn_expr q = zn_ex_add(ex, start[p], zn_lw_for(lw, parts[p], ZN_FOR_VECTOR, 0));
    row[s - 1] = q;
    zn_kref val = fz;
    if (p == 1) {
      idx[s + 1] = zn_ex_sub(ex, zn_ex_add(ex, zn_ex_muli(ex, q, v->phases), phase), pad);
      val = zn_lw_load(lw, v->x, idx);
      if (!zn_is_float(v->xt) && !v->raw) val = zn_centre(lw, val, x_zero, v->xt);
    }
    zn_lw_store_at(lw, to, v->xt, scratch_offset(lw, v, idx[0], idx[1], row, phase), val);
    zn_lw_end(lw);
  }
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* Input element under tap `tap` of output position pos (spatial). */
zn_kref zn_conv_input(zn_lw *lw, const conv *v, zn_expr n, zn_expr c, const zn_expr *pos,
                      const zn_expr *tap) {
  zn_exprs *ex = lw->ex;
  int s = v->win.rank;
  zn_expr at[ZN_MAX_RANK], phase = zn_ex_const(ex, 0);
  for (int i = 0; i < s; i++) {
    zn_expr k = zn_ex_muli(ex, tap[i], v->win.dilation[i]);
    if (v->copied && i == s - 1) {
      phase = zn_ex_modi(ex, k, v->phases);
      at[i] = zn_ex_add(ex, pos[i], zn_ex_divi(ex, k, v->phases));
    } else {
      at[i] = zn_ex_add(ex, zn_ex_muli(ex, pos[i], v->win.stride[i]), k);
    }
  }
  if (v->copied) {
    zn_kref p = zn_lw_ptr_loc(lw, v->scratch, ZN_KP_IN, v->xt);
    return zn_lw_load_at(lw, p, v->xt, scratch_offset(lw, v, n, c, at, phase));
  }
  if (v->guarded) return zn_conv_guarded(lw, v, n, c, at);
  zn_expr idx[ZN_MAX_RANK];
  idx[0] = n;
  idx[1] = c;
  for (int i = 0; i < s; i++) idx[i + 2] = at[i];
  return zn_lw_load(lw, v->x, idx);
}

/* ---------------------------------------------------------------- weights */

/* A scale or zero point: scalar or one per output channel. */
static zn_kref channel_param(zn_lw *lw, zn_vid p, zn_expr oc) {
  if (zn_ex_is(lw->ex, zn_type_count(lw->ex, zn_lw_type(lw, p)), 1)) oc = zn_ex_const(lw->ex, 0);
  return zn_lw_load(lw, p, &oc);
}

static zn_kref load_weight(zn_lw *lw, const conv *v, zn_expr g, zn_expr oc, zn_expr ic, const zn_expr *tap) {
  zn_exprs *ex = lw->ex;
  if (v->is_packed) { /* [group][oc block][ic][taps][maps] */
    zn_expr blocks = zn_ex_divi(ex, v->ocg, v->maps);
    zn_expr block = zn_ex_divi(ex, oc, v->maps), off = zn_ex_add(ex, zn_ex_mul(ex, g, blocks), block);
    off = zn_ex_add(ex, zn_ex_mul(ex, off, v->icg), ic);
    for (int i = 0; i < v->win.rank; i++)
      off = zn_ex_add(ex, zn_ex_muli(ex, off, v->win.kernel[i]), tap[i]);
    off = zn_ex_add(ex, zn_ex_muli(ex, off, v->maps), zn_ex_modi(ex, oc, v->maps));
    zn_kref p = zn_lw_ptr_loc(lw, v->packed, ZN_KP_IN, v->wt);
    return zn_lw_load_at(lw, p, v->wt, off);
  }
  zn_expr idx[ZN_MAX_RANK];
  idx[0] = zn_ex_add(ex, zn_ex_mul(ex, g, v->ocg), oc);
  idx[1] = ic;
  for (int i = 0; i < v->win.rank; i++) idx[i + 2] = tap[i];
  zn_kref k = zn_lw_load(lw, v->w, idx);
  return v->zw ? zn_centre(lw, k, channel_param(lw, v->zw, idx[0]), v->ct) : k;
}

int32_t zn_conv_centred(const zn_htensor *w, const zn_htensor *zero, uint64_t i) {
  int64_t z = 0;
  if (zero) {
    uint64_t per = zn_htensor_count(w) / (uint64_t)w->dims[0];
    z = zn_load_i64(zero->dtype, zero->data, zn_htensor_count(zero) == 1 ? 0 : i / per);
  }
  return (int32_t)(zn_load_i64(w->dtype, w->data, i) - z);
}

/* Weight i as it is packed, minus its zero point. */
static void store_weight(const zn_htensor *w, const zn_htensor *zero, uint64_t i, zn_dtype t, void *dst,
                         uint64_t to) {
  if (zn_is_float(t) && t == w->dtype) {
    const unsigned size = zn_dtype_bytes(t);
    memcpy((char *)dst + to * size, (const char *)w->data + i * size, size);
    return;
  }
  if (zn_is_float(t)) {
    zn_store_f64(t, dst, to, zn_load_f64(w->dtype, w->data, i));
    return;
  }
  zn_store_i64(t, dst, to, zn_conv_centred(w, zero, i));
}

static void pack_weights(zn_lw *lw, conv *v) {
  const zn_htensor *w = zn_lw_cst(lw, v->w), *zero = zn_lw_cst(lw, v->zw);
  int64_t ocg, icg, groups;
  if (!w || !v->wt || v->maps == 1 || !zn_ex_is_const(lw->ex, v->ocg, &ocg) || ocg % v->maps) return;
  if (!zn_ex_is_const(lw->ex, v->icg, &icg) || !zn_ex_is_const(lw->ex, v->group, &groups)) return;
  uint64_t inner = (uint64_t)(icg * v->taps), count = (uint64_t)(groups * ocg) * inner;
  unsigned size = zn_dtype_bytes(v->wt);
  char *data = zn_arena_array(&lw->ctx->graph, count, size);
  for (uint64_t o = 0; o < (uint64_t)(groups * ocg); o++)
    for (uint64_t i = 0; i < inner; i++) {
      uint64_t to = (o / v->maps * inner + i) * v->maps + o % v->maps;
      store_weight(w, zero, o * inner + i, v->wt, data, to);
    }
  const char *name = zn_arena_printf(lw->arena, "%s_packed", lw->g->vals[v->w].name);
  v->packed = zn_lw_const(lw, name, v->wt, count, data);
  v->is_packed = true;
}

/* ---------------------------------------------------------------- schedule: rows */

zn_kref zn_conv_bias(zn_lw *lw, const conv *v, zn_expr oc) {
  if (v->bias) return zn_lw_load(lw, v->bias, &oc);
  return zn_is_float(v->ct) ? zn_kb_float(&lw->kb, v->ct, 0) : zn_kb_int(&lw->kb, v->ct, 0);
}

/* The finished sum of an output element; `at` is its index. */
void zn_conv_emit(zn_lw *lw, const conv *v, const zn_expr *at, zn_kref acc) {
  if (v->sy) {
    zn_expr zero = zn_ex_const(lw->ex, 0);
    zn_kref sx = channel_param(lw, v->sx, zero), sw = channel_param(lw, v->sw, at[1]);
    zn_kref sy = channel_param(lw, v->sy, zero), zy = channel_param(lw, v->zy, zero);
    acc = zn_requantize(lw, acc, zn_requant_scale(lw, sx, sw, sy), zy, (zn_dtype)v->ty.dtype);
  }
  zn_lw_emit(lw, v->y, at, acc);
}

static void one_pixel(zn_lw *lw, const conv *v, zn_expr n, zn_expr g, zn_expr oc, const zn_expr *pos) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  int s = v->win.rank;
  zn_expr c_out = zn_ex_add(ex, zn_ex_mul(ex, g, v->ocg), oc), tap[ZN_MAX_RANK] = {0};
  zn_kref acc = zn_kb_var(b, zn_conv_bias(lw, v, c_out));
  zn_expr ic = zn_lw_for(lw, v->icg, ZN_FOR_SERIAL, 0);
  for (int i = 0; i < s; i++) tap[i] = zn_lw_for(lw, zn_ex_const(ex, v->win.kernel[i]), ZN_FOR_SERIAL, 0);
  zn_expr c_in = zn_ex_add(ex, zn_ex_mul(ex, g, v->icg), ic);
  zn_kref wk = load_weight(lw, v, g, oc, ic, tap);
  zn_kref xk = zn_conv_input(lw, v, n, c_in, pos, tap);
  zn_kref old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_mul_add(lw, wk, xk, old));
  for (int i = 0; i <= s; i++) zn_lw_end(lw);
  zn_expr out[ZN_MAX_RANK] = {0};
  out[0] = n;
  out[1] = c_out;
  for (int i = 0; i < s; i++) out[i + 2] = pos[i];
  zn_conv_emit(lw, v, out, zn_kb_get(b, acc));
}

static void rows(zn_lw *lw, conv *v) {
  zn_exprs *ex = lw->ex;
  int s = v->win.rank;
  int64_t ocg;
  v->maps = 1;
  if (zn_ex_is_const(ex, v->ocg, &ocg))
    for (unsigned m = 4; m > 1 && v->maps == 1; m--)
      if (ocg % m == 0) v->maps = m;
  pack_weights(lw, v);
  zn_lw_kernel(lw, v->n, "conv");
  zn_expr extents[ZN_MAX_RANK + 2], var[ZN_MAX_RANK + 2], pos[ZN_MAX_RANK];
  extents[0] = v->ty.dims[0];
  extents[1] = v->group;
  extents[2] = zn_ex_ceildiv(ex, v->ocg, zn_ex_const(ex, v->maps));
  for (int i = 0; i < s - 1; i++) extents[i + 3] = v->ty.dims[i + 2];
  zn_lw_grid(lw, (uint32_t)s + 2, extents, var);
  for (int i = 0; i < s - 1; i++) pos[i] = var[i + 3];
  unsigned lanes = zn_lw_lanes(lw, v->ct), vecs = lanes == 1 ? 2 : lw->caps->vector_regs < 16 ? 1 : 3;
  zn_expr w = v->ty.dims[s + 1], tile = zn_ex_const(ex, (int64_t)lanes * vecs);
  zn_expr full = zn_ex_div(ex, w, tile), done = zn_ex_mul(ex, full, tile), rest = zn_ex_sub(ex, w, done);
  zn_expr maps = zn_ex_const(ex, v->maps);
  if (!zn_ex_is(ex, full, 0)) {
    zn_expr t = zn_lw_for(lw, full, ZN_FOR_SERIAL, 0);
    zn_expr m = zn_lw_for(lw, maps, ZN_FOR_UNROLL, v->maps);
    zn_expr u = zn_lw_for(lw, zn_ex_const(ex, vecs), ZN_FOR_UNROLL, vecs);
    zn_expr l = zn_lw_for(lw, zn_ex_const(ex, lanes), ZN_FOR_VECTOR, lanes);
    pos[s - 1] = zn_ex_add(ex, zn_ex_add(ex, zn_ex_mul(ex, t, tile), zn_ex_muli(ex, u, lanes)), l);
    one_pixel(lw, v, var[0], var[1], zn_ex_add(ex, zn_ex_mul(ex, var[2], maps), m), pos);
    for (int i = 0; i < 4; i++) zn_lw_end(lw);
  }
  if (!zn_ex_is(ex, rest, 0)) {
    zn_expr m = zn_lw_for(lw, maps, ZN_FOR_UNROLL, v->maps);
    zn_expr l = zn_lw_for(lw, rest, ZN_FOR_VECTOR, lanes);
    pos[s - 1] = zn_ex_add(ex, done, l);
    one_pixel(lw, v, var[0], var[1], zn_ex_add(ex, zn_ex_mul(ex, var[2], maps), m), pos);
    for (int i = 0; i < 2; i++) zn_lw_end(lw);
  }
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* ---------------------------------------------------------------- schedule: channels */

static void split_pixel(zn_lw *lw, const conv *v, zn_expr m, zn_expr *pos) {
  for (int i = v->win.rank - 1; i > 0; i--) {
    pos[i] = zn_ex_mod(lw->ex, m, v->ty.dims[i + 2]);
    m = zn_ex_div(lw->ex, m, v->ty.dims[i + 2]);
  }
  pos[0] = m;
}

static void split_k(zn_lw *lw, const conv *v, zn_expr k, zn_expr *ic, zn_expr *tap) {
  for (int i = v->win.rank - 1; i >= 0; i--) {
    tap[i] = zn_ex_modi(lw->ex, k, v->win.kernel[i]);
    k = zn_ex_divi(lw->ex, k, v->win.kernel[i]);
  }
  *ic = k;
}

static zn_kref gemm_a(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr k) {
  const conv *v = user;
  zn_expr pos[ZN_MAX_RANK] = {0}, tap[ZN_MAX_RANK] = {0}, ic;
  split_pixel(lw, v, m, pos);
  split_k(lw, v, k, &ic, tap);
  zn_expr c = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, batch[1], v->icg), ic);
  return zn_conv_input(lw, v, batch[0], c, pos, tap);
}

static zn_kref gemm_b(zn_lw *lw, void *user, const zn_expr *batch, zn_expr k, zn_expr n) {
  const conv *v = user;
  zn_expr tap[ZN_MAX_RANK] = {0}, ic;
  split_k(lw, v, k, &ic, tap);
  return load_weight(lw, v, batch[1], n, ic, tap);
}

static zn_kref gemm_init(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n) {
  (void)m;
  const conv *v = user;
  return zn_conv_bias(lw, v, zn_ex_add(lw->ex, zn_ex_mul(lw->ex, batch[1], v->ocg), n));
}

static void gemm_out(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n, zn_kref acc) {
  const conv *v = user;
  zn_expr out[ZN_MAX_RANK];
  out[0] = batch[0];
  out[1] = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, batch[1], v->ocg), n);
  split_pixel(lw, v, m, out + 2);
  zn_conv_emit(lw, v, out, acc);
}

typedef struct conv_pack {
  const zn_htensor *w, *zero;
  uint64_t inner;
  zn_dtype t;
} conv_pack;

static void copy_weight(void *user, uint64_t k, uint64_t n, void *dst) {
  const conv_pack *p = user;
  store_weight(p->w, p->zero, n * p->inner + k, p->t, dst, 0);
}

/* ---- integers on matrix units ---- */

static int32_t centred_weight(void *user, int64_t k, int64_t n) {
  const conv_pack *p = user;
  return zn_conv_centred(p->w, p->zero, (uint64_t)n * p->inner + (uint64_t)k);
}

static zn_kref bytes_init(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n) {
  const conv *v = user;
  zn_expr first = zn_ex_const(lw->ex, 0);
  zn_kref start = gemm_init(lw, user, batch, m, n);
  return v->zx ? zn_bytes_initial(lw, v->sums, zn_lw_load(lw, v->zx, &first), n, start) : start;
}

static bool on_bytes(zn_lw *lw, conv *v, zn_gemm *g, const zn_htensor *w, int64_t k, int64_t n) {
  conv_pack p = {w, zn_lw_cst(lw, v->zw), (uint64_t)k, ZN_I64};
  if (v->ct != ZN_I32 || !lw->caps->simt || (v->zw && !p.zero)) return false;
  if (v->zx && !zn_ex_is(lw->ex, zn_type_count(lw->ex, zn_lw_type(lw, v->zx)), 1)) return false;
  if (!zn_gemm_bytes(lw, g, (zn_dtype)v->tx.dtype, lw->g->vals[v->w].name, k, n, centred_weight, &p, &v->sums)) return false;
  v->raw = true;
  g->init = bytes_init;
  return true;
}

static void channels(zn_lw *lw, conv *v) {
  zn_exprs *ex = lw->ex;
  zn_gemm g = {.node = v->n, .hint = v->guarded ? "conv" : "conv_small", .rows_inner = !zn_conv_is_nhwc(lw, v->y),
               .a_rows_inner = !zn_conv_is_nhwc(lw, v->x),
               .num_batch = 2, .n = v->ocg, .t = v->ct,
               .a = gemm_a, .b = gemm_b, .init = gemm_init, .emit = gemm_out, .user = v};
  g.batch[0] = v->ty.dims[0];
  g.batch[1] = v->group;
  g.m = zn_ex_const(ex, 1);
  for (int i = 0; i < v->win.rank; i++) g.m = zn_ex_mul(ex, g.m, v->ty.dims[i + 2]);
  g.k = zn_ex_muli(ex, v->icg, v->taps);
  if (v->tx.dtype == v->tw.dtype && (v->tx.dtype == ZN_F16 || v->tx.dtype == ZN_BF16)) g.narrow = (zn_dtype)v->tx.dtype;
  const zn_htensor *w = zn_lw_cst(lw, v->w);
  int64_t k, n;
  bool fixed = w && zn_ex_is(ex, v->group, 1) && zn_ex_is_const(ex, g.k, &k) && zn_ex_is_const(ex, g.n, &n);
  if (fixed && on_bytes(lw, v, &g, w, k, n)) {
    zn_gemm_emit(lw, &g);
    return;
  }
  if (fixed && v->wt) {
    zn_dtype wt = lw->caps->simt && g.narrow ? g.narrow : v->wt;
    conv_pack p = {w, zn_lw_cst(lw, v->zw), (uint64_t)k, wt};
    zn_gemm_pack(lw, &g, lw->g->vals[v->w].name, (uint64_t)k, (uint64_t)n, wt, copy_weight, &p);
  }
  zn_gemm_emit(lw, &g);
}

/* ---------------------------------------------------------------- choice */

/* 1x1 with unit strides and no padding: the image is one long row. */
static bool flatten_image(zn_lw *lw, conv *v) {
  if (zn_conv_needs_copy(lw, v) || v->taps != 1) return false;
  for (int i = 0; i < v->win.rank; i++)
    if (v->win.stride[i] != 1) return false;
  return true;
}

static zn_status convolve(zn_lw *lw, zn_nid n, conv v) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  v.n = n;
  v.y = node->out[0];
  v.phases = v.maps = 1;
  v.taps = 1;
  v.tx = *zn_lw_type(lw, v.x);
  v.tw = *zn_lw_type(lw, v.w);
  v.ty = *zn_lw_type(lw, v.y);
  v.ct = v.xt = v.wt = zn_lw_ctype((zn_dtype)v.tx.dtype);
  if (!zn_is_float(v.ct)) {
    v.ct = ZN_I32;
    v.xt = v.zx ? ZN_I16 : (zn_dtype)v.tx.dtype;
    v.wt = zn_centred_type(lw, v.w, v.zw);
  }
  ZN_TRY(zn_window_read(lw, n, v.x, v.w, v.y, &v.win));
  for (int i = 0; i < v.win.rank; i++) v.taps *= v.win.kernel[i];
  v.group = zn_ex_const(ex, zn_node_int(node, "group"));
  v.icg = v.tw.dims[1];
  v.ocg = zn_ex_div(ex, v.tw.dims[0], v.group);
  unsigned lanes = zn_lw_lanes(lw, v.ct);
  zn_expr width = v.ty.dims[v.win.rank + 1], area = zn_ex_const(ex, 1);
  bool flat = flatten_image(lw, &v);
  for (int i = 0; i < v.win.rank; i++) area = zn_ex_mul(ex, area, v.ty.dims[i + 2]);
  int64_t lo, hi, olo, ohi;
  zn_ex_range(ex, flat ? area : width, &lo, &hi);
  zn_ex_range(ex, v.ocg, &olo, &ohi);
  /* no copy: taps outside the image are zeros by a condition */
  if (lw->caps->simt || (lw->opts->frugal && zn_is_float(v.ct) && zn_conv_needs_copy(lw, &v) && !zn_ex_is(ex, v.icg, 1))) {
    v.guarded = true;
    if (!zn_conv_nhwc(lw, &v)) channels(lw, &v);
    return ZN_OK;
  }
  if (zn_conv_lanes(lw, &v) || zn_conv_winograd(lw, &v) || zn_conv_direct(lw, &v)) return ZN_OK;
  if (zn_conv_depth(lw, &v) || zn_conv_panel(lw, &v)) return ZN_OK;
  if (zn_conv_depth_int8(lw, &v) || zn_conv_int8(lw, &v)) return ZN_OK;
  if (zn_conv_needs_copy(lw, &v)) zn_conv_copy_input(lw, &v);
  if (hi < 2 * (int64_t)lanes && olo >= (int64_t)lanes) {
    channels(lw, &v);
    return ZN_OK;
  }
  rows(lw, &v);
  return ZN_OK;
}

static zn_status conv_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  return convolve(lw, n, (conv){.x = node->in[0], .w = node->in[1], .bias = zn_node_in(node, 2)});
}
const zn_lower zn_lower_conv = {NULL, conv_kernel};

/* A zero point that is the constant 0 needs no subtraction. */
static zn_vid zero_point(const zn_lw *lw, zn_vid z) {
  const zn_htensor *h = zn_lw_cst(lw, z);
  for (uint64_t i = 0; h && i < zn_htensor_count(h); i++)
    if (zn_load_i64(h->dtype, h->data, i) != 0) return z;
  return h ? 0 : z;
}

static zn_status convinteger_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  conv v = {.x = node->in[0], .w = node->in[1]};
  v.zx = zero_point(lw, zn_node_in(node, 2));
  v.zw = zero_point(lw, zn_node_in(node, 3));
  return convolve(lw, n, v);
}
const zn_lower zn_lower_convinteger = {NULL, convinteger_kernel};

static zn_status qlinearconv_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  conv v = {.x = node->in[0], .w = node->in[3], .bias = zn_node_in(node, 8), .sx = node->in[1],
            .sw = node->in[4], .sy = node->in[6], .zy = node->in[7]};
  v.zx = zero_point(lw, node->in[2]);
  v.zw = zero_point(lw, node->in[5]);
  return convolve(lw, n, v);
}
const zn_lower zn_lower_qlinearconv = {NULL, qlinearconv_kernel};

zn_expr zn_conv_tile_start(zn_lw *lw, zn_expr i, int64_t step, int64_t count, int64_t extent) {
  zn_expr at = zn_ex_muli(lw->ex, i, step);
  if (count * step == extent) return at;
  zn_expr last = zn_ex_const(lw->ex, extent - step);
  zn_expr e = zn_ex_min(lw->ex, at, last);
  return count == 1 ? e : zn_lw_as_expr(lw, zn_lw_ix(lw, e), zn_ex_const(lw->ex, extent - step + 1));
}

void zn_conv_split_row(zn_lw *lw, const zn_conv *v, zn_expr row, zn_expr *pos) {
  for (int i = v->win.rank - 2; i > 0; i--) {
    pos[i] = zn_ex_mod(lw->ex, row, v->ty.dims[i + 2]);
    row = zn_ex_div(lw->ex, row, v->ty.dims[i + 2]);
  }
  if (v->win.rank > 1) pos[0] = row;
}

void zn_conv_locate(zn_lw *lw, const zn_conv *v, int64_t width, zn_expr row, zn_expr col, zn_expr *pos) {
  zn_exprs *ex = lw->ex;
  const int last = v->win.rank - 1;
  if (!width) {
    zn_conv_split_row(lw, v, row, pos);
    pos[last] = col;
    return;
  }
  zn_expr flat = zn_ex_add(ex, zn_ex_muli(ex, row, width), col);
  for (int i = last; i > 0; i--) {
    pos[i] = zn_ex_mod(ex, flat, v->ty.dims[i + 2]);
    flat = zn_ex_div(ex, flat, v->ty.dims[i + 2]);
  }
  pos[0] = flat;
}
