/* Resize along an axis whose size, scale or region only the run knows: a small kernel evaluates the coordinate
 * transformation in double precision and fills the axis' tables; the loop nest of resize.c does the rest. */
#include "codegen/lower/resize.h"
#include "codegen/lower/real.h"

#include <math.h>
#include <string.h>

typedef struct filler {
  zn_lw *lw;
  zn_kb *b;
  const zn_resizer *r;
  zn_kref in, out, scale, lo, hi; /* f64: extents, scale, ends of the region */
} filler;

static zn_kref f64_of(filler *f, zn_expr e) { return zn_r_of(f->lw, e, ZN_F64); }

static zn_kref element(filler *f, zn_vid v, uint32_t i) {
  zn_expr at = zn_ex_const(f->lw->ex, i);
  return zn_r_load(f->lw, v, &at, ZN_F64);
}

static bool is_given(const zn_lw *lw, zn_vid v) {
  if (!v) return false;
  const zn_type *t = zn_lw_type(lw, v);
  return !(t->rank == 1 && zn_ex_is(lw->ex, t->dims[0], 0));
}

/* keep_aspect_ratio_policy: the smallest or largest of all axes' ratios. */
static zn_kref common_scale(filler *f, uint32_t n) {
  zn_lw *lw = f->lw;
  const zn_node *node = zn_lw_node(lw, f->r->n);
  uint32_t na;
  const int64_t *axes = zn_node_ints(node, "axes", &na);
  bool larger = !strcmp(zn_node_str(node, "keep_aspect_ratio_policy"), "not_smaller");
  int rank = zn_lw_type(lw, node->in[0])->rank;
  zn_kref s = 0;
  for (uint32_t i = 0; i < n; i++) {
    int64_t d = na ? axes[i] : (int64_t)i;
    zn_kref have = f64_of(f, zn_lw_dim(lw, node->in[0], (int)(d < 0 ? d + rank : d)));
    zn_kref q = zn_r_div(f->b, element(f, node->in[3], i), have);
    s = s ? zn_kb_bin(f->b, larger ? ZN_K_Max : ZN_K_Min, s, q) : q;
  }
  return s;
}

static zn_kref scale_of(filler *f, uint32_t i, uint32_t n) {
  const zn_node *node = zn_lw_node(f->lw, f->r->n);
  if (is_given(f->lw, zn_node_in(node, 2))) return element(f, node->in[2], i);
  if (strcmp(zn_node_str(node, "keep_aspect_ratio_policy"), "stretch")) return common_scale(f, n);
  return zn_r_div(f->b, f->out, f->in);
}

/* align_corners counts from the resized length before it was rounded down. */
static zn_kref align_corners(filler *f, zn_kref x, zn_kref top, zn_kref single) {
  zn_kb *b = f->b;
  zn_kref whole = zn_r_mul(b, f->scale, f->in), slack = zn_r_mulc(b, f->out, 1e-5);
  zn_kref off = zn_r_abs(b, zn_r_sub(b, whole, f->out)), near = zn_kb_cmp(b, ZN_K_Lt, off, slack);
  zn_kref last = zn_r_addc(b, zn_kb_select(b, near, f->out, whole), -1), way = zn_r_mul(b, x, top);
  zn_kref zero = zn_r_like(b, x, 0), at = zn_r_div(b, way, last);
  return zn_kb_select(b, single, zero, at);
}

static zn_kref crop(filler *f, zn_kref x, zn_kref top, zn_kref single) {
  zn_kb *b = f->b;
  zn_kref span = zn_r_mul(b, zn_r_sub(b, f->hi, f->lo), top), first = zn_r_mul(b, f->lo, top);
  zn_kref one = zn_r_like(b, x, 1), half = zn_r_like(b, x, 0.5), last = zn_r_addc(b, f->out, -1);
  zn_kref steps = zn_kb_select(b, single, one, last), share = zn_r_div(b, x, steps);
  share = zn_kb_select(b, single, half, share); /* one position: the middle */
  return zn_r_add(b, first, zn_r_mul(b, span, share));
}

/* Position in the operand of output position x. */
static zn_kref original(filler *f, zn_kref x) {
  zn_kb *b = f->b;
  const char *coord = f->r->coord;
  zn_kref single = zn_r_cmpc(b, ZN_K_Eq, f->out, 1), top = zn_r_addc(b, f->in, -1);
  if (!strcmp(coord, "asymmetric")) return zn_r_div(b, x, f->scale);
  if (!strcmp(coord, "align_corners")) return align_corners(f, x, top, single);
  if (f->r->crop) return crop(f, x, top, single);
  zn_kref centre = zn_r_div(b, zn_r_addc(b, x, 0.5), f->scale);
  if (!strcmp(coord, "tf_half_pixel_for_nn")) return centre;
  zn_kref h = zn_r_addc(b, centre, -0.5), zero = zn_r_like(b, x, 0);
  if (!strcmp(coord, "pytorch_half_pixel")) return zn_kb_select(b, single, zero, h);
  if (!strcmp(coord, "half_pixel_symmetric")) {
    zn_kref whole = zn_r_mul(b, f->scale, f->in), adjust = zn_r_div(b, f->out, whole);
    zn_kref rest = zn_r_cop(b, ZN_K_Sub, 1, adjust), middle = zn_r_mulc(b, f->in, 0.5);
    h = zn_r_add(b, h, zn_r_mul(b, middle, rest));
  }
  return h;
}

/* An axis that keeps its size at scale 1 keeps its positions, whatever the transformation. */
static zn_kref position(filler *f, zn_kref x) {
  zn_kb *b = f->b;
  zn_kref at = original(f, x), same = zn_kb_cmp(b, ZN_K_Eq, f->in, f->out), unit;
  if (f->r->crop) {
    zn_kref whole = zn_r_cmpc(b, ZN_K_Eq, f->hi, 1);
    unit = zn_r_and(b, whole, zn_r_cmpc(b, ZN_K_Eq, f->lo, 0));
  } else {
    unit = zn_r_cmpc(b, ZN_K_Eq, f->scale, 1);
  }
  return zn_kb_select(b, zn_r_and(b, same, unit), x, at);
}

static void put(filler *f, const zn_resize_axis *t, zn_expr cell, zn_kref pos, zn_kref w) {
  zn_lw *lw = f->lw;
  zn_kref top = zn_r_maxc(f->b, zn_r_addc(f->b, f->in, -1), 0), zero = zn_r_like(f->b, pos, 0);
  zn_kref p = zn_kb_cvt(f->b, zn_r_clamp(f->b, pos, zero, top), ZN_I32), v = zn_kb_cvt(f->b, w, f->r->ct);
  zn_kref ip = zn_lw_ptr_loc(lw, t->index, ZN_KP_OUT, ZN_I32), wp = zn_lw_ptr_loc(lw, t->weight, ZN_KP_OUT, f->r->ct);
  zn_lw_store_at(lw, ip, ZN_I32, cell, p);
  zn_lw_store_at(lw, wp, f->r->ct, cell, v);
}

/* A decision, hence taken on the position as float32, as the operator's scales are. */
static zn_kref nearest(filler *f, zn_kref x) {
  zn_kb *b = f->b;
  const char *how = f->r->nearest;
  x = zn_kb_cvt(b, zn_kb_cvt(b, x, ZN_F32), ZN_F64);
  if (!strcmp(how, "floor")) return zn_r_floor(b, x);
  if (!strcmp(how, "ceil")) return zn_kb_un(b, ZN_K_Ceil, x);
  if (!strcmp(how, "round_prefer_ceil")) return zn_r_floor(b, zn_r_addc(b, x, 0.5));
  return zn_kb_un(b, ZN_K_Ceil, zn_r_addc(b, x, -0.5));
}

/* All taps of one output position: base is the pixel left of x, the weights fall off with the distance. */
static void fill_taps(filler *f, const zn_resize_axis *t, zn_expr o, zn_kref x, zn_kref outside) {
  zn_lw *lw = f->lw;
  zn_kb *b = f->b;
  zn_exprs *ex = lw->ex;
  const zn_resizer *r = f->r;
  zn_kref zero = zn_r_like(b, x, 0), nan = zn_r_like(b, x, (double)NAN), stretch = 0;
  zn_kref base = zn_r_addc(b, zn_kb_un(b, ZN_K_Ceil, x), -1), ratio = zn_r_sub(b, x, base);
  if (r->antialias) stretch = zn_r_minc(b, f->scale, 1);
  zn_expr first = zn_ex_sub(ex, zn_ex_const(ex, 1), zn_ex_divi(ex, t->taps, 2)), row = zn_ex_mul(ex, o, t->taps);
  bool scaled = r->exclude || r->antialias;
  zn_kref sum = scaled ? zn_kb_var(b, zero) : 0;
  zn_expr k = zn_lw_for(lw, t->taps, ZN_FOR_SERIAL, 0);
  zn_kref off = f64_of(f, zn_ex_add(ex, first, k)), pos = zn_r_add(b, base, off), far = zn_r_sub(b, off, ratio);
  if (stretch) far = zn_r_mul(b, far, stretch);
  far = zn_r_abs(b, far);
  zn_kref w = r->mode[0] == 'c' ? zn_r_cubic(b, far, r->a) : zn_r_maxc(b, zn_r_cop(b, ZN_K_Sub, 1, far), 0);
  if (r->exclude) {
    zn_kref below = zn_kb_cmp(b, ZN_K_Lt, pos, zero), above = zn_kb_cmp(b, ZN_K_Ge, pos, f->in);
    w = zn_kb_select(b, zn_r_or(b, below, above), zero, w);
  }
  if (scaled) {
    zn_kref so_far = zn_kb_get(b, sum);
    zn_kb_set(b, sum, zn_r_add(b, so_far, w));
  }
  if (outside) w = zn_kb_select(b, outside, nan, w);
  put(f, t, zn_ex_add(ex, row, k), pos, w);
  zn_lw_end(lw);
  if (!scaled) return;
  zn_kref total = zn_kb_get(b, sum), wp = zn_lw_ptr_loc(lw, t->weight, ZN_KP_OUT, r->ct);
  k = zn_lw_for(lw, t->taps, ZN_FOR_SERIAL, 0);
  zn_kref old = zn_kb_cvt(b, zn_lw_load_at(lw, wp, r->ct, zn_ex_add(ex, row, k)), ZN_F64);
  zn_kref share = zn_kb_cvt(b, zn_r_div(b, old, total), r->ct);
  zn_lw_store_at(lw, wp, r->ct, zn_ex_add(ex, row, k), share);
  zn_lw_end(lw);
}

/* Taps that suffice for any scale that gives `out` from `in`: antialiasing widens the filter by 1/scale, and a scale is at
 * least (out - 1/2) / in. Taps beyond the filter get weight 0. */
static zn_expr tap_count(zn_lw *lw, const zn_resizer *r, zn_expr in, zn_expr out) {
  zn_exprs *ex = lw->ex;
  int reach = r->mode[0] == 'c' ? 2 : 1;
  if (r->mode[0] == 'n') return zn_ex_const(ex, 1);
  if (!r->antialias) return zn_ex_const(ex, 2 * reach);
  zn_expr least = zn_ex_max(ex, zn_ex_addi(ex, zn_ex_muli(ex, out, 2), -1), zn_ex_const(ex, 1));
  zn_expr wide = zn_ex_ceildiv(ex, zn_ex_muli(ex, in, 2 * reach), least);
  zn_expr half = zn_ex_addi(ex, zn_ex_max(ex, wide, zn_ex_const(ex, reach)), 1);
  return zn_ex_named(ex, zn_ex_muli(ex, half, 2), 0);
}

void zn_resize_fill(zn_lw *lw, const zn_resizer *r, int d, uint32_t i, uint32_t n, zn_resize_axis *out) {
  zn_exprs *ex = lw->ex;
  const zn_node *node = zn_lw_node(lw, r->n);
  zn_expr in_dim = zn_lw_dim(lw, node->in[0], d), out_dim = zn_lw_dim(lw, node->out[0], d);
  *out = (zn_resize_axis){.resized = true, .taps = tap_count(lw, r, in_dim, out_dim)};
  zn_expr cells = zn_ex_mul(ex, out_dim, out->taps);
  out->index = zn_lw_scratch(lw, zn_ex_muli(ex, cells, 4));
  out->weight = zn_lw_scratch(lw, zn_ex_muli(ex, cells, zn_dtype_bytes(r->ct)));
  zn_lw_kernel(lw, r->n, "resize_taps");
  filler f = {.lw = lw, .b = &lw->kb, .r = r};
  f.in = f64_of(&f, in_dim);
  f.out = f64_of(&f, out_dim);
  f.scale = scale_of(&f, i, n);
  f.lo = zn_kb_float(f.b, ZN_F64, 0);
  f.hi = zn_kb_float(f.b, ZN_F64, 1);
  if (r->crop && is_given(lw, zn_node_in(node, 1))) {
    f.lo = element(&f, node->in[1], i);
    f.hi = element(&f, node->in[1], n + i);
  }
  zn_expr o = zn_lw_for(lw, out_dim, ZN_FOR_SERIAL, 0);
  zn_kref x = position(&f, f64_of(&f, o)), outside = 0;
  if (r->crop) {
    zn_kref below = zn_r_cmpc(f.b, ZN_K_Lt, x, 0), top = zn_r_addc(f.b, f.in, -1);
    outside = zn_r_or(f.b, below, zn_kb_cmp(f.b, ZN_K_Gt, x, top));
  }
  if (r->mode[0] == 'n') {
    zn_kref w = zn_r_like(f.b, x, 1), nan = zn_r_like(f.b, x, (double)NAN);
    if (outside) w = zn_kb_select(f.b, outside, nan, w);
    put(&f, out, o, nearest(&f, x), w);
  } else {
    fill_taps(&f, out, o, x, outside);
  }
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}
