/* GridSample: every output element reads a few positions of X around the one that the grid names. One formula per element, so
 * it is a point operator; coordinates are computed in double, as their error would be the result's. */
#include <string.h>

#include "codegen/lower/real.h"

typedef struct sampler {
  zn_lw *lw;
  zn_kb *b;
  zn_vid x;
  const zn_expr *idx; /* of the output: batch, channel */
  int n;              /* spatial axes */
  char mode, pad;     /* n l c; z b r */
  zn_dtype ct;
  zn_kref len[ZN_MAX_RANK], lo[ZN_MAX_RANK], hi[ZN_MAX_RANK], pos[ZN_MAX_RANK]; /* f64; lo, hi: borders of reflection */
} sampler;

/* x mirrored at lo and hi until it lies between them. */
static zn_kref reflect(zn_kb *b, zn_kref x, zn_kref lo, zn_kref hi) {
  zn_kref span = zn_r_sub(b, hi, lo), left = zn_kb_cmp(b, ZN_K_Lt, x, lo), right = zn_kb_cmp(b, ZN_K_Gt, x, hi);
  zn_kref some = zn_r_cmpc(b, ZN_K_Gt, span, 0), part = zn_r_orc(b, some, span, 1);
  zn_kref dl = zn_r_sub(b, lo, x), dr = zn_r_sub(b, x, hi), d = zn_kb_select(b, left, dl, dr);
  zn_kref k = zn_r_floor(b, zn_r_div(b, d, part)), whole = zn_r_mul(b, k, part), r = zn_r_sub(b, d, whole);
  zn_kref half = zn_r_floor(b, zn_r_mulc(b, k, 0.5)), twice = zn_r_mulc(b, half, 2);
  zn_kref odd = zn_kb_cmp(b, ZN_K_Ne, k, twice), from_hi = zn_kb_bin(b, ZN_K_Xor, zn_kb_un(b, ZN_K_Not, left), odd);
  /* left of lo: even counts go up from lo; right of hi: even counts go down from hi */
  zn_kref up = zn_r_add(b, lo, r), down = zn_r_sub(b, hi, r), mirrored = zn_kb_select(b, from_hi, down, up);
  zn_kref out = zn_r_or(b, left, right), y = zn_kb_select(b, out, mirrored, x);
  return zn_kb_select(b, some, y, lo);
}

/* The grid's coordinate g in [-1, 1] as position along an axis. */
static zn_kref position(sampler *s, int d, zn_kref g, bool align) {
  zn_kb *b = s->b;
  zn_kref g1 = zn_r_addc(b, g, 1), top = zn_r_addc(b, s->len[d], -1), p, zero = zn_r_like(b, g, 0);
  if (align) {
    p = zn_r_mul(b, zn_r_mulc(b, g1, 0.5), top);
  } else {
    p = zn_r_mul(b, g1, s->len[d]);
    p = zn_r_mulc(b, zn_r_addc(b, p, -1), 0.5);
  }
  if (s->mode == 'n') { /* a decision, hence taken on the position as float32 */
    p = zn_kb_cvt(b, zn_kb_cvt(b, p, ZN_F32), ZN_F64);
    p = zn_kb_un(b, ZN_K_Rint, p);
  }
  zn_kref inside = zn_r_within(b, p, s->lo[d], s->hi[d]);
  if (s->pad == 'b') {
    zn_kref c = zn_r_clamp(b, p, zero, top);
    p = zn_kb_select(b, inside, p, c);
  }
  if (s->pad == 'r') p = reflect(b, p, s->lo[d], s->hi[d]);
  if (s->mode == 'n') p = zn_kb_un(b, ZN_K_Trunc, p);
  zn_kref fine = zn_r_cmpc(b, ZN_K_Lt, zn_r_abs(b, p), 1e15);
  return zn_r_orc(b, fine, p, -1e15);
}

/* Sum over the taps along axis d and the axes behind it; at: positions so far, valid: none of them fell outside. */
static zn_kref sum_taps(sampler *s, int d, zn_expr *at, zn_kref weight, zn_kref valid, zn_kref acc) {
  zn_kb *b = s->b;
  zn_lw *lw = s->lw;
  if (d == s->n) {
    zn_kref x = zn_lw_load(lw, s->x, at);
    zn_dtype t = zn_lw_kdtype(lw, x);
    if (!weight && valid) x = zn_kb_select(b, valid, x, zn_lw_zero(lw, t));
    if (!weight) return x;
    if (zn_lw_kdtype(lw, x) != s->ct) x = zn_kb_cvt(b, x, s->ct);
    zn_kref counts = zn_r_cmpc(b, ZN_K_Ne, weight, 0);
    if (valid) counts = zn_r_and(b, counts, valid);
    x = zn_r_orc(b, counts, x, 0);
    return acc ? zn_kb_fma(b, x, weight, acc) : zn_r_mul(b, x, weight);
  }
  int taps = s->mode == 'c' ? 4 : s->mode == 'l' ? 2 : 1;
  zn_kref first = zn_r_floor(b, s->pos[d]), top = zn_r_addc(b, s->len[d], -1), zero = zn_r_like(b, first, 0);
  for (int k = 0; k < taps; k++) {
    zn_kref i = zn_r_addc(b, first, s->mode == 'c' ? k - 1 : k), w = weight, ok = valid;
    if (taps > 1) {
      zn_kref far = zn_r_abs(b, zn_r_sub(b, s->pos[d], i));
      zn_kref one = taps == 4 ? zn_r_cubic(b, far, -0.75) : zn_r_cop(b, ZN_K_Sub, 1, far);
      one = s->ct == ZN_F64 ? one : zn_kb_cvt(b, one, s->ct);
      w = w ? zn_r_mul(b, w, one) : one;
    }
    if (s->pad == 'z') {
      zn_kref in = zn_r_within(b, i, zero, top);
      ok = ok ? zn_r_and(b, ok, in) : in;
    } else if (s->pad == 'r') {
      zn_kref in = zn_r_within(b, i, zero, top), r = zn_kb_un(b, ZN_K_Trunc, reflect(b, i, s->lo[d], s->hi[d]));
      i = zn_kb_select(b, in, i, r);
    }
    i = zn_kb_cvt(b, zn_r_clamp(b, i, zero, top), ZN_IDX);
    at[2 + d] = zn_lw_as_expr(lw, i, zn_lw_dim(lw, s->x, 2 + d));
    acc = sum_taps(s, d + 1, at, w, ok, acc);
  }
  return acc;
}

static zn_kref gridsample_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  const zn_node *node = zn_lw_node(lw, n);
  zn_kb *b = &lw->kb;
  zn_vid grid = node->in[1];
  const char *mode = zn_node_str(node, "mode");
  bool align = zn_node_int(node, "align_corners") != 0;
  sampler s = {.lw = lw, .b = b, .x = node->in[0], .idx = idx, .pad = zn_node_str(node, "padding_mode")[0]};
  s.n = zn_lw_type(lw, s.x)->rank - 2;
  s.mode = !strcmp(mode, "bilinear") ? 'l' : !strcmp(mode, "bicubic") ? 'c' : mode[0];
  zn_dtype t = zn_lw_ctype((zn_dtype)zn_lw_type(lw, s.x)->dtype);
  s.ct = zn_is_float(t) ? t : ZN_F64; /* integers are the sums without their fraction */
  zn_expr at[ZN_MAX_RANK], where[ZN_MAX_RANK];
  where[0] = at[0] = idx[0];
  at[1] = idx[1];
  for (int d = 0; d < s.n; d++) where[1 + d] = idx[2 + d];
  for (int d = 0; d < s.n; d++) {
    s.len[d] = zn_r_of(lw, zn_lw_dim(lw, s.x, 2 + d), ZN_F64);
    s.lo[d] = zn_kb_float(b, ZN_F64, align ? 0 : -0.5);
    s.hi[d] = zn_r_addc(b, s.len[d], align ? -1 : -0.5);
    where[1 + s.n] = zn_ex_const(lw->ex, s.n - 1 - d); /* the grid's last coordinate is the first axis */
    zn_kref g = zn_r_load(lw, grid, where, ZN_F64);
    s.pos[d] = position(&s, d, g, align);
  }
  zn_kref r = sum_taps(&s, 0, at, 0, 0, 0);
  return zn_lw_kdtype(lw, r) == t ? r : zn_kb_cvt(b, r, t);
}
const zn_lower zn_lower_gridsample = {gridsample_point, NULL};
