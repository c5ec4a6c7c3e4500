/* LayerNormalization, RMSNormalization, InstanceNormalization, GroupNormalization: mean and variance over a run of
 * trailing axes in two passes (one-pass variance cancels), then scale and shift. */
#include <math.h>

#include "codegen/lower/deferred.h"
#include "codegen/lower/reduce.h"

enum { ROWS = 2 }; /* side by side */

typedef struct norm {
  zn_vid x;
  zn_type t;
  int axis;     /* axes axis.. are normalised together */
  zn_dtype ct;
  zn_expr idx[ZN_MAX_RANK], len;
  zn_kref mean; /* 0 for RMS */
} norm;

static void unflatten(zn_lw *lw, norm *s, zn_expr j) {
  for (int d = s->t.rank - 1; d > s->axis; d--) {
    s->idx[d] = zn_ex_mod(lw->ex, j, s->t.dims[d]);
    j = zn_ex_div(lw->ex, j, s->t.dims[d]);
  }
  s->idx[s->axis] = j;
}

static zn_kref elem(zn_lw *lw, void *user, zn_expr j) {
  norm *s = user;
  unflatten(lw, s, j);
  return zn_lw_load(lw, s->x, s->idx);
}

static zn_kref elem_square(zn_lw *lw, void *user, zn_expr j) {
  norm *s = user;
  zn_kref d = elem(lw, s, j);
  if (s->mean) d = zn_kb_bin(&lw->kb, ZN_K_Sub, d, s->mean);
  return zn_kb_bin(&lw->kb, ZN_K_Mul, d, d);
}

static zn_kref average(zn_lw *lw, norm *s, zn_kref partial, zn_red_elem f) {
  zn_kref sum = zn_red_inner(lw, ZN_RED_SUM, s->ct, s->len, partial, f, s);
  zn_kref n = zn_kb_cvt(&lw->kb, zn_lw_ix(lw, s->len), s->ct);
  return zn_kb_bin(&lw->kb, ZN_K_Div, sum, n);
}

/* Mean (unless rms) and 1/sqrt(variance + eps) of the current row. */
static zn_kref statistics(zn_lw *lw, norm *s, zn_kref partial, bool rms, double eps) {
  zn_kb *b = &lw->kb;
  s->mean = 0;
  if (!rms) s->mean = average(lw, s, partial, elem);
  zn_kref var = average(lw, s, partial, elem_square);
  zn_kref sum = zn_kb_bin(b, ZN_K_Add, var, zn_kb_float(b, s->ct, eps));
  zn_kref root = zn_kb_un(b, ZN_K_Sqrt, sum), one = zn_kb_float(b, s->ct, 1);
  return zn_kb_bin(b, ZN_K_Div, one, root);
}

static zn_kref normalised(zn_lw *lw, norm *s, zn_kref inv) {
  zn_kref x = zn_lw_load(lw, s->x, s->idx);
  if (s->mean) x = zn_kb_bin(&lw->kb, ZN_K_Sub, x, s->mean);
  return zn_kb_bin(&lw->kb, ZN_K_Mul, x, inv);
}

static zn_kref affine(zn_lw *lw, zn_kref z, zn_kref scale, zn_kref bias) {
  /* RMSNormalization's scale may have another type than x: it is the result's */
  if (scale) z = zn_kb_cvt(&lw->kb, z, zn_kf_dtype(lw->kb.f, scale));
  if (scale && bias) return zn_kb_fma(&lw->kb, z, scale, bias);
  if (scale) z = zn_kb_bin(&lw->kb, ZN_K_Mul, z, scale);
  return z;
}

static void emit_stat(zn_lw *lw, const norm *s, zn_vid out, zn_kref k) {
  if (!out) return;
  zn_expr at[ZN_MAX_RANK];
  for (int d = 0; d < s->t.rank; d++) at[d] = d < s->axis ? s->idx[d] : zn_ex_const(lw->ex, 0);
  zn_lw_store(lw, out, at, k);
}

/* ---- a team per row, its elements in registers between the steps ---- */

enum { TEAM = 128, WARP = 32, EACH = 16 };

typedef struct team_row {
  norm *s;
  zn_kref thread, partial;
  int64_t len, each;
} team_row;

/* Sum over the team of a thread's values; `slot` tells the partial sums of one sum from those of another. */
static zn_kref team_sum(zn_lw *lw, const team_row *r, const zn_kref *x, int64_t slot) {
  zn_kb *b = &lw->kb;
  zn_kref sum = x[0], zero = zn_kb_idx(b, 0), warp = zn_kb_idx(b, WARP);
  int64_t warps = TEAM / WARP;
  for (int64_t e = 1; e < r->each; e++) sum = zn_kb_bin(b, ZN_K_Add, sum, x[e]);
  sum = zn_red_warp(lw, ZN_RED_SUM, sum);
  zn_kref first = zn_kb_idx(b, slot * warps), at = zn_kb_bin(b, ZN_K_Add, zn_kb_bin(b, ZN_K_Div, r->thread, warp), first);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, zn_kb_bin(b, ZN_K_Rem, r->thread, warp), zero));
  zn_kb_store(b, r->partial, at, sum);
  zn_kb_end(b);
  zn_kb_statement(b, ZN_K_Barrier);
  for (int64_t w = 0; w < warps; w++) {
    zn_kref part = zn_kb_load(b, ZN_F32, 1, r->partial, zn_kb_idx(b, slot * warps + w));
    sum = w ? zn_kb_bin(b, ZN_K_Add, sum, part) : part;
  }
  return sum;
}

static zn_kref place(zn_lw *lw, const team_row *r, int64_t e) {
  return zn_kb_bin(&lw->kb, ZN_K_Add, r->thread, zn_kb_idx(&lw->kb, e * TEAM));
}

static bool all_inside(const team_row *r, int64_t e) { return (e + 1) * TEAM <= r->len; }

/* The thread's elements; those behind the row's end are zeros. */
static void row_elements(zn_lw *lw, const team_row *r, zn_kref *x) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_float(b, ZN_F32, 0);
  for (int64_t e = 0; e < r->each; e++) {
    zn_kref j = place(lw, r, e), var = 0;
    if (!all_inside(r, e)) {
      var = zn_kb_var(b, zero);
      zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, j, zn_kb_idx(b, r->len)));
    }
    unflatten(lw, r->s, zn_lw_as_expr(lw, j, r->s->len));
    x[e] = lw->deferred ? zn_deferred_element(lw, lw->deferred, r->s->idx) : zn_lw_load(lw, r->s->x, r->s->idx);
    if (!var) continue;
    zn_kb_set(b, var, x[e]);
    zn_kb_end(b);
    x[e] = zn_kb_get(b, var);
  }
}

/* d[e] = x[e] - mean, zero behind the end. */
static void centred(zn_lw *lw, const team_row *r, zn_kref mean, const zn_kref *x, zn_kref *d) {
  zn_kb *b = &lw->kb;
  for (int64_t e = 0; e < r->each; e++) {
    d[e] = mean ? zn_kb_bin(b, ZN_K_Sub, x[e], mean) : x[e];
    if (mean && !all_inside(r, e)) {
      zn_kref len = zn_kb_idx(b, r->len), inside = zn_kb_cmp(b, ZN_K_Lt, place(lw, r, e), len);
      d[e] = zn_kb_select(b, inside, d[e], zn_kb_float(b, ZN_F32, 0));
    }
  }
}

static bool fits_team(const zn_lw *lw, const norm *s) {
  int64_t len;
  return zn_red_exchanges(lw, s->ct) && zn_ex_is_const(lw->ex, s->len, &len) && len >= TEAM && len <= TEAM * EACH;
}

static void layernorm_team(zn_lw *lw, const zn_node *node, norm *s, bool rms) {
  zn_kb *b = &lw->kb;
  team_row r = {.s = s, .partial = zn_kb_alloc(b, ZN_F32, 2 * TEAM / WARP)};
  zn_vid scale = zn_node_in(node, 1), bias = rms ? 0 : zn_node_in(node, 2);
  zn_kref x[EACH], d[EACH], square[EACH] = {0}, one = zn_kb_float(b, ZN_F32, 1);
  zn_ex_is_const(lw->ex, s->len, &r.len);
  r.each = (r.len + TEAM - 1) / TEAM;
  zn_lw_grid(lw, (uint32_t)s->axis, s->t.dims, s->idx);
  zn_kref team = zn_kb_idx(b, TEAM);
  r.thread = zn_kb_for(b, zn_kb_idx(b, 0), team, 1, ZN_FOR_THREAD, TEAM);
  row_elements(lw, &r, x);
  zn_kref count = zn_kb_float(b, ZN_F32, (double)r.len), mean = 0;
  if (!rms) mean = zn_kb_bin(b, ZN_K_Div, team_sum(lw, &r, x, 0), count);
  centred(lw, &r, mean, x, d);
  for (int64_t e = 0; e < r.each; e++) square[e] = zn_kb_bin(b, ZN_K_Mul, d[e], d[e]);
  zn_kref var = zn_kb_bin(b, ZN_K_Div, team_sum(lw, &r, square, 1), count);
  zn_kref eps = zn_kb_float(b, ZN_F32, zn_node_float(node, "epsilon"));
  zn_kref inv = zn_kb_bin(b, ZN_K_Div, one, zn_kb_un(b, ZN_K_Sqrt, zn_kb_bin(b, ZN_K_Add, var, eps)));
  if (!rms && (zn_node_in(node, 0) && node->num_out > 1)) {
    zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, r.thread, zn_kb_idx(b, 0)));
    emit_stat(lw, s, node->out[1], mean);
    if (node->num_out > 2) emit_stat(lw, s, node->out[2], inv);
    zn_kb_end(b);
  }
  for (int64_t e = 0; e < r.each; e++) {
    zn_kref j = place(lw, &r, e);
    if (!all_inside(&r, e)) zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, j, zn_kb_idx(b, r.len)));
    unflatten(lw, s, zn_lw_as_expr(lw, j, s->len));
    zn_kref k = scale ? zn_lw_load_bcast(lw, scale, s->t.rank, s->t.dims, s->idx) : 0;
    zn_kref c = bias ? zn_lw_load_bcast(lw, bias, s->t.rank, s->t.dims, s->idx) : 0;
    zn_lw_emit(lw, node->out[0], s->idx, affine(lw, zn_kb_bin(b, ZN_K_Mul, d[e], inv), k, c));
    if (!all_inside(&r, e)) zn_kb_end(b);
  }
  zn_kb_end(b);
  zn_lw_end(lw);
}

static zn_status layernorm_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  bool rms = node->op == ZN_OP_RMSNormalization;
  norm s = {.x = node->in[0], .t = *zn_lw_type(lw, node->in[0])};
  int64_t axis = zn_node_int(node, "axis");
  s.axis = (int)(axis < 0 ? axis + s.t.rank : axis);
  s.ct = zn_lw_ctype((zn_dtype)s.t.dtype);
  s.len = zn_ex_const(lw->ex, 1);
  for (int d = s.axis; d < s.t.rank; d++) s.len = zn_ex_mul(lw->ex, s.len, s.t.dims[d]);
  zn_vid scale = zn_node_in(node, 1), bias = rms ? 0 : zn_node_in(node, 2), y = node->out[0];
  zn_vid out_mean = node->num_out > 1 ? node->out[1] : 0, out_inv = node->num_out > 2 ? node->out[2] : 0;
  double eps = zn_node_float(node, "epsilon");
  if (lw->deferred && !fits_team(lw, &s)) zn_deferred_flush(lw);
  zn_lw_kernel(lw, n, lw->deferred ? "sum_layernorm" : "layernorm");
  if (!lw->deferred) zn_lw_in_place(lw, 1);
  if (fits_team(lw, &s)) {
    layernorm_team(lw, node, &s, rms);
    zn_lw_kernel_end(lw);
    lw->deferred = NULL;
    return ZN_OK;
  }
  int64_t rows = zn_red_rows_beside(lw, n, s.ct, s.t.dims, s.axis, ROWS);
  zn_kref partial = zn_red_begin_rows(lw, s.ct, s.t.dims, s.axis, rows, s.idx);
  zn_kref inv = statistics(lw, &s, partial, rms, eps);
  if (!rms) emit_stat(lw, &s, out_mean, s.mean);
  if (!rms) emit_stat(lw, &s, out_inv, inv);
  unflatten(lw, &s, zn_lw_for(lw, s.len, ZN_FOR_VECTOR, 0));
  zn_kref z = normalised(lw, &s, inv);
  zn_kref k = scale ? zn_lw_load_bcast(lw, scale, s.t.rank, s.t.dims, s.idx) : 0;
  zn_kref c = bias ? zn_lw_load_bcast(lw, bias, s.t.rank, s.t.dims, s.idx) : 0;
  zn_lw_emit(lw, y, s.idx, affine(lw, z, k, c));
  zn_lw_end(lw);
  zn_red_end_rows(lw, rows);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_layernorm = {NULL, layernorm_kernel};

/* x[N, C, ...]: statistics per (n, c), or per (n, group of channels). */
typedef struct group_row {
  norm s;
  zn_expr n, g, per_group;
} group_row;

static void group_index(zn_lw *lw, group_row *r, zn_expr j) {
  norm *s = &r->s;
  for (int d = s->t.rank - 1; d > 1; d--) {
    s->idx[d] = zn_ex_mod(lw->ex, j, s->t.dims[d]);
    j = zn_ex_div(lw->ex, j, s->t.dims[d]);
  }
  s->idx[0] = r->n;
  s->idx[1] = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, r->g, r->per_group), j);
}

static zn_kref group_elem(zn_lw *lw, void *user, zn_expr j) {
  group_row *r = user;
  group_index(lw, r, j);
  zn_kref x = zn_lw_load(lw, r->s.x, r->s.idx);
  return r->s.mean ? zn_kb_bin(&lw->kb, ZN_K_Sub, x, r->s.mean) : x;
}

static zn_kref group_square(zn_lw *lw, void *user, zn_expr j) {
  zn_kref d = group_elem(lw, user, j);
  return zn_kb_bin(&lw->kb, ZN_K_Mul, d, d);
}

static zn_status instancenorm_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  group_row r = {.s = {.x = node->in[0], .t = *zn_lw_type(lw, node->in[0])}};
  norm *s = &r.s;
  zn_expr groups = s->t.dims[1];
  if (node->op == ZN_OP_GroupNormalization) groups = zn_ex_const(ex, zn_node_int(node, "num_groups"));
  r.per_group = zn_ex_div(ex, s->t.dims[1], groups);
  s->ct = zn_lw_ctype((zn_dtype)s->t.dtype);
  zn_vid scale = node->in[1], bias = node->in[2], y = node->out[0];
  double eps = zn_node_float(node, "epsilon");
  zn_expr area = zn_ex_const(ex, 1);
  for (int d = 2; d < s->t.rank; d++) area = zn_ex_mul(ex, area, s->t.dims[d]);
  s->len = zn_ex_mul(ex, area, r.per_group);
  zn_lw_kernel(lw, n, "instancenorm");
  zn_kref partial = zn_red_scratch(lw, s->ct);
  zn_expr extents[2] = {s->t.dims[0], groups}, vars[2];
  zn_lw_grid(lw, 2, extents, vars);
  r.n = vars[0];
  r.g = vars[1];
  zn_kref count = zn_kb_cvt(b, zn_lw_ix(lw, s->len), s->ct);
  zn_kref sum = zn_red_inner(lw, ZN_RED_SUM, s->ct, s->len, partial, group_elem, &r);
  s->mean = zn_kb_bin(b, ZN_K_Div, sum, count);
  zn_kref sq = zn_red_inner(lw, ZN_RED_SUM, s->ct, s->len, partial, group_square, &r);
  zn_kref var = zn_kb_bin(b, ZN_K_Div, sq, count);
  zn_kref v = zn_kb_bin(b, ZN_K_Add, var, zn_kb_float(b, s->ct, eps));
  zn_kref root = zn_kb_un(b, ZN_K_Sqrt, v);
  zn_expr c = zn_lw_for(lw, r.per_group, ZN_FOR_SERIAL, 0);
  zn_expr channel = zn_ex_add(ex, zn_ex_mul(ex, r.g, r.per_group), c);
  zn_kref sc = zn_lw_load(lw, scale, &channel), bi = zn_lw_load(lw, bias, &channel);
  zn_kref f = zn_kb_bin(b, ZN_K_Div, sc, root);
  zn_expr j = zn_lw_for(lw, area, ZN_FOR_VECTOR, 0);
  group_index(lw, &r, zn_ex_add(ex, zn_ex_mul(ex, c, area), j));
  zn_kref d = zn_kb_bin(b, ZN_K_Sub, zn_lw_load(lw, s->x, s->idx), s->mean);
  zn_lw_emit(lw, y, s->idx, zn_kb_fma(b, d, f, bi));
  for (int i = 0; i < 3; i++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_instancenorm = {NULL, instancenorm_kernel};
