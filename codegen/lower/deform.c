/* DeformConv in two steps: the samples at the shifted positions, columns of X with one row per channel and kernel position,
 * then their products with the weights. */
#include "codegen/lower/real.h"
#include "codegen/lower/window.h"

typedef struct deform {
  zn_nid n;
  zn_vid x, w, offset, bias, mask, y;
  zn_window win;
  int64_t group, offset_group, taps;
  zn_expr outs; /* output positions */
  zn_loc columns; /* [batch][channel][tap][output position], compute type */
  zn_dtype ct;
} deform;

/* Multilinear sample of X at pos, zero outside. */
static zn_kref sample(zn_lw *lw, const deform *d, zn_expr *at, const zn_kref *pos) {
  zn_kb *b = &lw->kb;
  zn_kref sum = 0;
  for (int corner = 0; corner < 1 << d->win.rank; corner++) {
    zn_kref weight = 0, inside = 0;
    for (int a = 0; a < d->win.rank; a++) {
      zn_expr len = zn_lw_dim(lw, d->x, 2 + a);
      zn_kref f = zn_r_floor(b, pos[a]), t = zn_r_sub(b, pos[a], f);
      bool up = corner >> a & 1;
      zn_kref w = up ? t : zn_r_cop(b, ZN_K_Sub, 1, t), i = up ? zn_r_addc(b, f, 1) : f;
      zn_kref zero = zn_r_like(b, i, 0), top = zn_r_of(lw, zn_ex_addi(lw->ex, len, -1), ZN_F64);
      zn_kref in = zn_r_within(b, i, zero, top);
      zn_kref k = zn_kb_cvt(b, zn_r_clamp(b, i, zero, top), ZN_IDX);
      at[2 + a] = zn_lw_as_expr(lw, k, len);
      weight = weight ? zn_r_mul(b, weight, w) : w;
      inside = inside ? zn_r_and(b, inside, in) : in;
    }
    zn_kref some = zn_r_cmpc(b, ZN_K_Ne, weight, 0), v = zn_r_load(lw, d->x, at, ZN_F64);
    v = zn_r_orc(b, zn_r_and(b, inside, some), v, 0);
    sum = sum ? zn_kb_fma(b, v, weight, sum) : zn_r_mul(b, v, weight);
  }
  return sum;
}

static void unflatten(zn_exprs *ex, zn_expr flat, int n, const zn_expr *dims, zn_expr *out) {
  for (int a = n - 1; a > 0; a--) {
    out[a] = zn_ex_mod(ex, flat, dims[a]);
    flat = zn_ex_div(ex, flat, dims[a]);
  }
  out[0] = flat;
}

static void fill_columns(zn_lw *lw, const deform *d) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  int r = d->win.rank;
  zn_expr batch = zn_lw_dim(lw, d->x, 0), channels = zn_lw_dim(lw, d->x, 1), tap_dims[ZN_MAX_RANK] = {0}, v[2], o[ZN_MAX_RANK];
  zn_expr outer[2] = {batch, channels}, taps = zn_ex_const(ex, d->taps);
  for (int a = 0; a < r; a++) tap_dims[a] = zn_ex_const(ex, d->win.kernel[a]);
  zn_lw_kernel(lw, d->n, "deform_columns");
  zn_lw_grid(lw, 2, outer, v);
  zn_expr tap = zn_lw_for(lw, taps, ZN_FOR_SERIAL, 0), k[ZN_MAX_RANK], at[ZN_MAX_RANK] = {v[0], v[1]};
  unflatten(ex, tap, r, tap_dims, k);
  for (int a = 0; a < r; a++) o[a] = zn_lw_for(lw, zn_lw_dim(lw, d->y, 2 + a), ZN_FOR_SERIAL, 0);
  zn_expr per = zn_ex_div(ex, channels, zn_ex_const(ex, d->offset_group)), g = zn_ex_div(ex, v[1], per);
  zn_expr row = zn_ex_add(ex, zn_ex_muli(ex, g, d->taps), tap), where[ZN_MAX_RANK] = {v[0]};
  for (int a = 0; a < r; a++) where[2 + a] = o[a];
  zn_kref pos[ZN_MAX_RANK];
  for (int a = 0; a < r; a++) {
    where[1] = zn_ex_addi(ex, zn_ex_muli(ex, row, r), a);
    zn_kref shift = zn_r_load(lw, d->offset, where, ZN_F64);
    zn_expr base = zn_ex_sub(ex, zn_ex_muli(ex, o[a], d->win.stride[a]), d->win.pad_lo[a]);
    zn_kref start = zn_r_of(lw, zn_ex_add(ex, base, zn_ex_muli(ex, k[a], d->win.dilation[a])), ZN_F64);
    pos[a] = zn_r_add(b, start, shift);
  }
  zn_kref s = sample(lw, d, at, pos);
  if (d->mask) {
    where[1] = row;
    s = zn_r_mul(b, s, zn_r_load(lw, d->mask, where, ZN_F64));
  }
  zn_expr flat = zn_ex_const(ex, 0);
  for (int a = 0; a < r; a++) flat = zn_ex_add(ex, zn_ex_mul(ex, flat, zn_lw_dim(lw, d->y, 2 + a)), o[a]);
  zn_expr line = zn_ex_add(ex, zn_ex_muli(ex, zn_ex_add(ex, zn_ex_mul(ex, v[0], channels), v[1]), d->taps), tap);
  zn_kref p = zn_lw_ptr_loc(lw, d->columns, ZN_KP_OUT, d->ct);
  zn_kref sum = zn_kb_cvt(b, s, d->ct);
  zn_lw_store_at(lw, p, d->ct, zn_ex_add(ex, zn_ex_mul(ex, line, d->outs), flat), sum);
  for (int a = 0; a < r + 2; a++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

static void multiply(zn_lw *lw, const deform *d) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  int r = d->win.rank;
  zn_expr channels = zn_lw_dim(lw, d->x, 1), filters = zn_lw_dim(lw, d->w, 0), each = zn_lw_dim(lw, d->w, 1);
  zn_expr outer[2] = {zn_lw_dim(lw, d->x, 0), filters}, v[2], tap_dims[ZN_MAX_RANK] = {0}, k[ZN_MAX_RANK], wi[ZN_MAX_RANK];
  for (int a = 0; a < r; a++) tap_dims[a] = zn_ex_const(ex, d->win.kernel[a]);
  zn_lw_kernel(lw, d->n, "deform_product");
  zn_lw_grid(lw, 2, outer, v);
  zn_expr flat = zn_lw_for(lw, d->outs, ZN_FOR_VECTOR, 0), zero = zn_ex_const(ex, 0);
  zn_kref acc = zn_kb_var(b, d->bias ? zn_r_load(lw, d->bias, &v[1], d->ct) : zn_kb_float(b, d->ct, 0));
  zn_expr c = zn_lw_for(lw, each, ZN_FOR_SERIAL, 0), tap = zn_lw_for(lw, zn_ex_const(ex, d->taps), ZN_FOR_SERIAL, 0);
  zn_expr per = zn_ex_div(ex, filters, zn_ex_const(ex, d->group)), g = zn_ex_div(ex, v[1], per);
  zn_expr channel = zn_ex_add(ex, zn_ex_mul(ex, g, each), c);
  zn_expr line = zn_ex_add(ex, zn_ex_muli(ex, zn_ex_add(ex, zn_ex_mul(ex, v[0], channels), channel), d->taps), tap);
  unflatten(ex, tap, r, tap_dims, k);
  wi[0] = v[1], wi[1] = c;
  for (int a = 0; a < r; a++) wi[2 + a] = k[a];
  zn_kref weight = zn_r_load(lw, d->w, wi, d->ct), p = zn_lw_ptr_loc(lw, d->columns, ZN_KP_IN, d->ct);
  zn_kref x = zn_lw_load_at(lw, p, d->ct, zn_ex_add(ex, zn_ex_mul(ex, line, d->outs), flat)), old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_kb_fma(b, x, weight, old));
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_expr o[ZN_MAX_RANK], to[ZN_MAX_RANK] = {v[0], v[1], zero};
  unflatten(ex, flat, r, zn_lw_type(lw, d->y)->dims + 2, o);
  for (int a = 0; a < r; a++) to[2 + a] = o[a];
  zn_lw_emit(lw, d->y, to, zn_kb_get(b, acc));
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

static zn_status deformconv_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  deform d = {.n = n, .x = node->in[0], .w = node->in[1], .offset = node->in[2], .bias = zn_node_in(node, 3),
              .mask = zn_node_in(node, 4), .y = node->out[0], .group = zn_node_int(node, "group"),
              .offset_group = zn_node_int(node, "offset_group"), .taps = 1, .outs = zn_ex_const(ex, 1)};
  ZN_TRY(zn_window_read(lw, n, d.x, d.w, d.y, &d.win));
  for (int a = 0; a < d.win.rank; a++) {
    d.taps *= d.win.kernel[a];
    d.outs = zn_ex_mul(ex, d.outs, zn_lw_dim(lw, d.y, 2 + a));
  }
  d.ct = zn_lw_ctype((zn_dtype)zn_lw_type(lw, d.x)->dtype);
  zn_expr cells = zn_ex_mul(ex, zn_ex_mul(ex, zn_lw_dim(lw, d.x, 0), zn_lw_dim(lw, d.x, 1)), d.outs);
  d.columns = zn_lw_scratch(lw, zn_ex_muli(ex, cells, d.taps * zn_dtype_bytes(d.ct)));
  fill_columns(lw, &d);
  multiply(lw, &d);
  return ZN_OK;
}
const zn_lower zn_lower_deformconv = {NULL, deformconv_kernel};
