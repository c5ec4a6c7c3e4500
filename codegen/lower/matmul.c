/* MatMul with numpy broadcasting of the batch axes, its integer and quantised forms, and Gemm. A constant
 * right operand is packed into panels. */
#include "codegen/lower/attend.h"
#include "codegen/lower/gemm.h"
#include "codegen/lower/gemm_bytes.h"
#include "codegen/lower/gemm_dot.h"
#include "codegen/lower/requant.h"

typedef struct operands {
  zn_vid a, b, c, y;
  zn_type ta, tb, ty;
  bool trans_a, trans_b;
  bool vec_a, vec_b; /* rank-1 operands of MatMul */
  double alpha, beta;
  zn_vid za, zb;         /* zero points of the integer forms, or 0 */
  zn_vid sa, sb, sy, zy; /* QLinearMatMul only */
  zn_loc sums;           /* of the weights' columns, on matrix units */
  zn_dtype acc;
} operands;

/* Index of a 2-D slice of operand v: broadcast batch, then (row, col). */
static zn_kref load_matrix(zn_lw *lw, zn_vid v, const zn_type *t, const operands *o, const zn_expr *batch,
                           zn_expr row, zn_expr col) {
  zn_expr at[ZN_MAX_RANK];
  int nb = t->rank - 2, yb = o->ty.rank - (o->vec_a ? 0 : 1) - (o->vec_b ? 0 : 1);
  for (int d = 0; d < nb; d++) {
    zn_expr i = batch[yb - nb + d];
    zn_expr one = zn_ex_const(lw->ex, 1);
    if (zn_ex_is(lw->ex, t->dims[d], 1))
      i = zn_ex_const(lw->ex, 0);
    else if (t->dims[d] != o->ty.dims[yb - nb + d] && !zn_ex_is_const(lw->ex, t->dims[d], NULL))
      i = zn_ex_mul(lw->ex, i, zn_ex_min(lw->ex, zn_ex_addi(lw->ex, t->dims[d], -1), one));
    at[d] = i;
  }
  at[nb] = row;
  at[nb + 1] = col;
  return zn_lw_load(lw, v, at);
}

/* A scale or zero point: scalar, one per row (column), or of the operand's rank with 1 for the contracted axis. */
static zn_kref load_param(zn_lw *lw, zn_vid v, const operands *o, const zn_expr *batch, zn_expr line,
                          bool rows) {
  zn_expr zero = zn_ex_const(lw->ex, 0);
  const zn_type t = *zn_lw_type(lw, v);
  if (t.rank < 2) {
    if (t.rank == 1 && zn_ex_is(lw->ex, t.dims[0], 1)) line = zero;
    return zn_lw_load(lw, v, &line);
  }
  if (zn_ex_is(lw->ex, t.dims[rows ? t.rank - 2 : t.rank - 1], 1)) line = zero;
  return rows ? load_matrix(lw, v, &t, o, batch, line, zero) : load_matrix(lw, v, &t, o, batch, zero, line);
}

static zn_kref load_a(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr k) {
  const operands *o = user;
  zn_kref x = o->vec_a     ? zn_lw_load(lw, o->a, &k)
              : o->trans_a ? load_matrix(lw, o->a, &o->ta, o, batch, k, m)
                           : load_matrix(lw, o->a, &o->ta, o, batch, m, k);
  return o->za ? zn_centre(lw, x, load_param(lw, o->za, o, batch, m, true), o->acc) : x;
}

static zn_kref load_b(zn_lw *lw, void *user, const zn_expr *batch, zn_expr k, zn_expr n) {
  const operands *o = user;
  zn_kref x = o->vec_b     ? zn_lw_load(lw, o->b, &k)
              : o->trans_b ? load_matrix(lw, o->b, &o->tb, o, batch, n, k)
                           : load_matrix(lw, o->b, &o->tb, o, batch, k, n);
  return o->zb ? zn_centre(lw, x, load_param(lw, o->zb, o, batch, n, false), o->acc) : x;
}

static bool whole(double x) { return x == (double)(int64_t)x; }

/* alpha * acc + beta * C. Integers with a fractional factor go through doubles and are truncated once. */
static zn_kref scaled(zn_lw *lw, const operands *o, zn_kref acc, const zn_expr *at) {
  zn_kb *b = &lw->kb;
  zn_dtype t = zn_lw_kdtype(lw, acc), ct = t;
  zn_kref c = o->c && o->beta != 0 ? zn_lw_load_bcast(lw, o->c, o->ty.rank, o->ty.dims, at) : 0;
  if (!zn_is_float(t) && !(whole(o->alpha) && (!c || whole(o->beta)))) {
    ct = ZN_F64;
    acc = zn_kb_cvt(b, acc, ct);
    if (c) c = zn_kb_cvt(b, c, ct);
  }
  if (o->alpha != 1) {
    zn_kref s = zn_is_float(ct) ? zn_kb_float(b, ct, o->alpha) : zn_kb_int(b, ct, (int64_t)o->alpha);
    acc = zn_kb_bin(b, ZN_K_Mul, acc, s);
  }
  if (c && o->beta != 1) {
    zn_kref s = zn_is_float(ct) ? zn_kb_float(b, ct, o->beta) : zn_kb_int(b, ct, (int64_t)o->beta);
    acc = zn_mul_add(lw, c, s, acc);
  } else if (c) {
    acc = zn_kb_bin(b, ZN_K_Add, acc, c);
  }
  return zn_kb_cvt(b, acc, t);
}

static void emit(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n, zn_kref acc) {
  const operands *o = user;
  zn_expr at[ZN_MAX_RANK];
  int r = o->ty.rank, d = 0, nb = r - (o->vec_a ? 0 : 1) - (o->vec_b ? 0 : 1);
  for (; d < nb; d++) at[d] = batch[d];
  if (!o->vec_a) at[d++] = m;
  if (!o->vec_b) at[d++] = n;
  if (o->sy) {
    zn_kref sa = load_param(lw, o->sa, o, batch, m, true), sb = load_param(lw, o->sb, o, batch, n, false);
    zn_kref sy = load_param(lw, o->sy, o, batch, m, true), zy = load_param(lw, o->zy, o, batch, m, true);
    acc = zn_requantize(lw, acc, zn_requant_scale(lw, sa, sb, sy), zy, (zn_dtype)o->ty.dtype);
  }
  zn_lw_emit(lw, o->y, at, scaled(lw, o, acc, at));
}

typedef struct packing {
  const zn_htensor *w, *zero;
  bool trans;
  uint64_t k, n;
  zn_dtype t;
} packing;

static packing packing_of(const operands *o, const zn_htensor *w, const zn_htensor *zero, zn_dtype t) {
  return (packing){w, zero, o->trans_b, (uint64_t)w->dims[o->trans_b], (uint64_t)w->dims[!o->trans_b], t};
}

static uint64_t place_of(const packing *p, uint64_t k, uint64_t n) { return p->trans ? n * p->k + k : k * p->n + n; }

static void copy_elem(void *user, uint64_t k, uint64_t n, void *dst) {
  const packing *p = user;
  unsigned size = zn_dtype_bytes(p->w->dtype);
  uint64_t i = place_of(p, k, n);
  if (p->zero) {
    uint64_t z = zn_htensor_count(p->zero) == 1 ? 0 : n;
    int64_t zero = zn_load_i64(p->zero->dtype, p->zero->data, z);
    zn_store_i64(p->t, dst, 0, zn_load_i64(p->w->dtype, p->w->data, i) - zero);
    return;
  }
  memcpy(dst, (const char *)p->w->data + i * size, size);
}

static zn_kref raw_a(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr k) {
  const operands *o = user;
  return load_matrix(lw, o->a, &o->ta, o, batch, m, k);
}

/* By instructions that take weights packed in words. */
static zn_gemm_dot dot_product(zn_lw *lw, zn_nid n, operands *o, const char *hint, packing *p, zn_dot_weight weight) {
  zn_gemm_dot g = {.node = n, .hint = hint, .m = o->ta.dims[o->ta.rank - 2], .k = (int64_t)p->k, .n = (int64_t)p->n,
                   .num_batch = (uint32_t)o->ta.rank - 2, .a = raw_a, .a_type = (zn_dtype)o->ta.dtype, .a_stored = o->a,
                   .emit = emit, .user = o, .weight = weight, .weights = p, .name = lw->g->vals[o->b].name};
  for (uint32_t i = 0; i < g.num_batch; i++) g.batch[i] = o->ty.dims[i];
  return g;
}

static int32_t bf16_weight(void *user, int64_t k, int64_t n) {
  const packing *p = user;
  return ((const uint16_t *)p->w->data)[place_of(p, (uint64_t)k, (uint64_t)n)];
}

/* Dot products of bf16 take subnormal numbers for zeros. Activations that small change a sum by k * 2^-126 * max |weight| at
 * most, which is nothing below this bound of weights; subnormal weights could meet large activations. */
static bool bf16_weights_fit(const zn_htensor *w) {
  enum { LARGEST = 127 + 40 }; /* exponent with its bias */
  const uint16_t *x = w->data;
  for (uint64_t i = 0; i < zn_htensor_count(w); i++) {
    const unsigned exponent = x[i] >> 7 & 255;
    if (exponent > LARGEST || (exponent == 0 && x[i] & 127)) return false;
  }
  return true;
}

/* Constant weights of bf16 on processors that multiply them. */
static bool product_bf16(zn_lw *lw, zn_nid n, operands *o, const char *hint) {
  const zn_htensor *w = zn_lw_cst(lw, o->b);
  if (!w || !lw->caps->dot_bf16 || o->ta.dtype != ZN_BF16 || w->dtype != ZN_BF16) return false;
  if (o->tb.rank != 2 || o->ta.rank < 2 || o->trans_a || !bf16_weights_fit(w)) return false;
  packing p = packing_of(o, w, NULL, ZN_BF16);
  zn_gemm_dot g = dot_product(lw, n, o, hint, &p, bf16_weight);
  return zn_gemm_dot_emit(lw, &g);
}

static zn_status product(zn_lw *lw, zn_nid n, const operands *given, const char *hint) {
  operands *o = ZN_NEW(lw->arena, operands);
  *o = *given;
  o->ta = *zn_lw_type(lw, o->a);
  o->tb = *zn_lw_type(lw, o->b);
  o->ty = *zn_lw_type(lw, o->y);
  if (product_bf16(lw, n, o, hint)) return ZN_OK;
  zn_expr one = zn_ex_const(lw->ex, 1);
  int ra = o->ta.rank, rb = o->tb.rank;
  zn_gemm g = {.node = n, .hint = hint, .a = load_a, .b = load_b, .emit = emit, .user = o,
               .t = o->acc ? o->acc : zn_lw_ctype((zn_dtype)o->ta.dtype), .m = one, .n = one};
  if (!o->vec_a) g.m = o->ta.dims[o->trans_a ? ra - 1 : ra - 2];
  if (!o->vec_b) g.n = o->tb.dims[o->trans_b ? rb - 2 : rb - 1];
  g.k = o->ta.dims[o->trans_a ? ra - 2 : ra - 1];
  if (!o->vec_a && !o->vec_b) g.rows_of = o->y;
  if (o->ta.dtype == o->tb.dtype && (o->ta.dtype == ZN_F16 || o->ta.dtype == ZN_BF16)) {
    g.narrow = (zn_dtype)o->ta.dtype;
    g.a_plain = !o->trans_a && ra > 1 && zn_lw_in_workspace(lw, o->a);
    g.b_depth_inner = o->trans_b;
  }
  if (lw->caps->simt && g.t == ZN_F32 && o->ta.dtype == ZN_F32) g.a_plain = !o->trans_a && ra > 1 && zn_lw_in_workspace(lw, o->a);
  g.num_batch = (uint32_t)(o->ty.rank - (o->vec_a ? 0 : 1) - (o->vec_b ? 0 : 1));
  for (uint32_t i = 0; i < g.num_batch; i++) g.batch[i] = o->ty.dims[i];
  const zn_htensor *w = zn_lw_cst(lw, o->b);
  zn_dtype wt = w ? (zn_dtype)w->dtype : ZN_NONE;
  if (o->zb) wt = zn_is_float(g.t) ? ZN_NONE : zn_centred_type(lw, o->b, o->zb);
  if (wt && rb == 2 && ra > 1) { /* one constant matrix for all batches: they are rows of one product */
    packing p = packing_of(o, w, wt != (zn_dtype)w->dtype ? zn_lw_cst(lw, o->zb) : NULL, wt);
    if (!p.zero) g.raw = w->data, g.raw_k = p.trans ? 1 : p.n, g.raw_n = p.trans ? p.k : 1;
    zn_gemm_pack(lw, &g, lw->g->vals[o->b].name, p.k, p.n, wt, copy_elem, &p);
  }
  zn_gemm_emit(lw, &g);
  return ZN_OK;
}

static zn_status matmul_kernel(zn_lw *lw, zn_nid n) {
  if (zn_lower_attends(lw, n)) return zn_lower_attend(lw, n);
  const zn_node *node = zn_lw_node(lw, n);
  operands o = {.a = node->in[0], .b = node->in[1], .y = node->out[0], .alpha = 1};
  o.vec_a = zn_lw_type(lw, o.a)->rank == 1;
  o.vec_b = zn_lw_type(lw, o.b)->rank == 1;
  return product(lw, n, &o, "matmul");
}
const zn_lower zn_lower_matmul = {NULL, matmul_kernel};

static zn_kref row_zero(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m) {
  const operands *o = user;
  return zn_kb_cvt(&lw->kb, load_param(lw, o->za, o, batch, m, true), ZN_I32);
}

static int32_t centred_weight(void *user, int64_t k, int64_t n) {
  const packing *p = user;
  int64_t z = 0;
  if (p->zero) z = zn_load_i64(p->zero->dtype, p->zero->data, zn_htensor_count(p->zero) == 1 ? 0 : (uint64_t)n);
  return (int32_t)(zn_load_i64(p->w->dtype, p->w->data, place_of(p, (uint64_t)k, (uint64_t)n)) - z);
}

static zn_kref bytes_init(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n) {
  const operands *o = user;
  zn_kref none = zn_kb_int(&lw->kb, ZN_I32, 0);
  return zn_bytes_initial(lw, o->sums, row_zero(lw, user, batch, m), n, none);
}

/* The same on matrix units. */
static bool product_units(zn_lw *lw, zn_nid n, const operands *given, const char *hint, packing *p) {
  operands *o = ZN_NEW(lw->arena, operands);
  *o = *given;
  zn_gemm g = {.node = n, .hint = hint, .a = raw_a, .emit = emit, .user = o, .t = ZN_I32, .rows_of = o->y,
               .k = zn_ex_const(lw->ex, (int64_t)p->k), .n = zn_ex_const(lw->ex, (int64_t)p->n)};
  g.m = o->ta.dims[o->ta.rank - 2];
  g.num_batch = (uint32_t)o->ta.rank - 2;
  for (uint32_t i = 0; i < g.num_batch; i++) g.batch[i] = o->ty.dims[i];
  const char *name = lw->g->vals[o->b].name;
  const zn_dtype a = (zn_dtype)o->ta.dtype;
  g.a_plain = zn_lw_in_workspace(lw, o->a);
  if (!zn_gemm_bytes(lw, &g, a, name, (int64_t)p->k, (int64_t)p->n, centred_weight, p, &o->sums)) return false;
  if (o->za) g.init = bytes_init;
  zn_gemm_emit(lw, &g);
  return true;
}

/* Constant weights and i32 sums: matrix units, or the schedule of Dot4 and Dot2. */
static bool product_int8(zn_lw *lw, zn_nid n, operands *o, const char *hint) {
  o->ta = *zn_lw_type(lw, o->a);
  o->tb = *zn_lw_type(lw, o->b);
  o->ty = *zn_lw_type(lw, o->y);
  const zn_htensor *w = zn_lw_cst(lw, o->b), *z = zn_lw_cst(lw, o->zb);
  if (!w || (o->zb && !z) || o->tb.rank != 2 || o->ta.rank < 2 || o->trans_a) return false;
  packing p = packing_of(o, w, z, ZN_I32);
  if (lw->caps->simt) return product_units(lw, n, o, hint, &p);
  zn_gemm_dot g = dot_product(lw, n, o, hint, &p, centred_weight);
  if (o->za) g.zero = row_zero;
  for (int64_t i = 0; i < g.k; i++)
    for (int64_t c = 0; c < g.n; c++) {
      int32_t v = centred_weight(&p, i, c);
      if (v < g.lo) g.lo = v;
      if (v > g.hi) g.hi = v;
    }
  return zn_gemm_dot_emit(lw, &g);
}

static zn_status integer_product(zn_lw *lw, zn_nid n, operands o, const char *hint) {
  o.y = zn_lw_node(lw, n)->out[0];
  o.alpha = 1;
  o.vec_a = zn_lw_type(lw, o.a)->rank == 1;
  o.vec_b = zn_lw_type(lw, o.b)->rank == 1;
  o.acc = zn_is_float((zn_dtype)zn_lw_type(lw, o.a)->dtype) ? ZN_F32 : ZN_I32;
  return o.acc == ZN_I32 && product_int8(lw, n, &o, hint) ? ZN_OK : product(lw, n, &o, hint);
}

static zn_status matmulinteger_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  operands o = {.a = node->in[0], .b = node->in[1], .za = zn_node_in(node, 2), .zb = zn_node_in(node, 3)};
  return integer_product(lw, n, o, "matmul_int");
}
const zn_lower zn_lower_matmulinteger = {NULL, matmulinteger_kernel};

static zn_status qlinearmatmul_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  operands o = {.a = node->in[0], .sa = node->in[1], .za = node->in[2], .b = node->in[3],
                .sb = node->in[4], .zb = node->in[5], .sy = node->in[6], .zy = node->in[7]};
  return integer_product(lw, n, o, "matmul_quant");
}
const zn_lower zn_lower_qlinearmatmul = {NULL, qlinearmatmul_kernel};

static zn_status gemm_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  operands o = {.a = node->in[0], .b = node->in[1], .c = zn_node_in(node, 2), .y = node->out[0]};
  o.alpha = zn_node_float(node, "alpha");
  o.beta = zn_node_float(node, "beta");
  o.trans_a = zn_node_int(node, "transA") != 0;
  o.trans_b = zn_node_int(node, "transB") != 0;
  return product(lw, n, &o, "gemm");
}
const zn_lower zn_lower_gemm = {NULL, gemm_kernel};
