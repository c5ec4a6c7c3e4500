/* Softmax, LogSoftmax, Hardmax along one axis: maximum, exponentials and their sum, scale. Shifted by the maximum, so no
 * overflow. A NaN anywhere makes the sum NaN and with it every result, so the maximum need not keep it. Scaling by the
 * sum's reciprocal costs one rounding more than division, far inside the bound of docs/NUMERICS.md. In f16 and bf16
 * every step has its type's precision, as the steps of the operator's function body have; sums are formed in float32 and
 * rounded once, but short sums of bf16 term by term, as ONNX's reference forms them (a long one would stop growing). */
#include <assert.h>

#include "codegen/lower/reduce.h"

typedef struct soft {
  zn_vid x, y;
  zn_type t;
  int axis;
  zn_dtype ct, t_of; /* computed in; the operand's */
  bool stored; /* exponentials are kept in y between the passes */
  zn_expr idx[ZN_MAX_RANK];
  zn_kref max, scale; /* scale: 1 / sum, where exponentials are kept */
} soft;

static zn_kref at(zn_lw *lw, soft *s, zn_expr j) {
  s->idx[s->axis] = j;
  return zn_lw_load(lw, s->x, s->idx);
}

static zn_kref elem_x(zn_lw *lw, void *user, zn_expr j) { return at(lw, user, j); }

static zn_kref shifted(zn_lw *lw, soft *s, zn_expr j) {
  return zn_lw_round_to(lw, zn_kb_bin(&lw->kb, ZN_K_Sub, at(lw, s, j), s->max), s->t_of);
}

/* Kept exponentials are scaled: what they are multiplied with in the end takes that off, without an instruction of its own.
 * The Min says that the argument is not positive, which makes the exponential cheaper (codegen/kir/math_exp.c). */
static zn_kref exp_of(zn_lw *lw, soft *s, zn_kref d) {
  if (s->stored) return zn_kb_bin(&lw->kb, ZN_K_ScaledExp, d, zn_kb_float(&lw->kb, s->ct, zn_exp_scale(s->ct)));
  zn_kref zero = zn_kb_float(&lw->kb, s->ct, 0), low = zn_kb_bin(&lw->kb, ZN_K_Min, zero, d);
  return zn_lw_round_to(lw, zn_kb_un(&lw->kb, ZN_K_Exp, low), s->t_of);
}

static zn_kref elem_exp(zn_lw *lw, void *user, zn_expr j) {
  soft *s = user;
  zn_kref e = exp_of(lw, s, shifted(lw, s, j));
  if (s->stored) zn_lw_store(lw, s->y, s->idx, e);
  return e;
}

static void write_row(zn_lw *lw, zn_nid n, soft *s, zn_expr j, zn_kref sum, zn_kref log_sum) {
  zn_kb *b = &lw->kb;
  s->idx[s->axis] = j;
  zn_kref r;
  if (s->stored) {
    zn_kref p = zn_lw_ptr(lw, s->y, ZN_KP_INOUT);
    zn_kref e = zn_lw_load_at(lw, p, s->ct, zn_lw_offset(lw, s->y, s->idx));
    r = zn_kb_bin(b, ZN_K_Mul, e, s->scale);
  } else {
    zn_kref d = shifted(lw, s, j);
    if (zn_lw_node(lw, n)->op == ZN_OP_LogSoftmax) {
      r = zn_kb_bin(b, ZN_K_Sub, d, log_sum);
    } else {
      zn_kref e = exp_of(lw, s, d);
      r = zn_kb_bin(b, ZN_K_Div, e, sum);
    }
  }
  zn_lw_store(lw, s->y, s->idx, r);
}

/* The sum of a row's exponentials in the operand's type, term by term. */
static zn_kref short_sum(zn_lw *lw, soft *s, zn_expr len) {
  zn_kb *b = &lw->kb;
  zn_kref acc = zn_kb_var(b, zn_kb_float(b, s->ct, 0));
  zn_expr j = zn_lw_for(lw, len, ZN_FOR_SERIAL, 0);
  zn_kref e = elem_exp(lw, s, j), old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_lw_round_to(lw, zn_kb_bin(b, ZN_K_Add, old, e), s->t_of));
  zn_lw_end(lw);
  return zn_kb_get(b, acc);
}

static bool is_short(const zn_lw *lw, const soft *s, zn_expr len) {
  int64_t n;
  return s->t_of == ZN_BF16 && zn_ex_is_const(lw->ex, len, &n) && n <= 16;
}

enum { BESIDE = ZN_RED_MAX_ROWS }; /* vectors of exponentials computed step by step side by side */

/* Axis contiguous in memory: one row, two or four per grid step, vector code along the row. */
static void soft_rows(zn_lw *lw, zn_nid n, soft *s) {
  zn_kb *b = &lw->kb;
  zn_expr len = s->t.dims[s->axis];
  int64_t rows = zn_red_rows_beside(lw, n, s->ct, s->t.dims, s->axis, s->stored ? BESIDE : 2);
  zn_kref partial = zn_red_begin_rows(lw, s->ct, s->t.dims, s->axis, rows, s->idx);
  s->max = zn_red_inner(lw, ZN_RED_MAX_NUM, s->ct, len, partial, elem_x, s);
  unsigned beside = (unsigned)(BESIDE / rows);
  zn_kref sum = is_short(lw, s, len) ? short_sum(lw, s, len)
                                     : zn_red_inner_beside(lw, ZN_RED_SUM, s->ct, len, partial, beside, elem_exp, s);
  sum = zn_lw_round_to(lw, sum, s->t_of);
  zn_kref ls = zn_lw_node(lw, n)->op == ZN_OP_LogSoftmax ? zn_lw_round_to(lw, zn_kb_un(b, ZN_K_Log, sum), s->t_of) : 0;
  if (s->stored) s->scale = zn_kb_bin(b, ZN_K_Div, zn_kb_float(b, s->ct, 1), sum);
  zn_expr j = zn_lw_for(lw, len, ZN_FOR_VECTOR, 0);
  write_row(lw, n, s, j, sum, ls);
  zn_lw_end(lw);
  zn_red_end_rows(lw, rows);
}

/* Another axis is innermost: lanes run over it, the softmax axis is a serial loop. */
static void soft_columns(zn_lw *lw, zn_nid n, soft *s) {
  zn_kb *b = &lw->kb;
  int last = s->t.rank - 1;
  zn_expr extents[ZN_MAX_RANK], vars[ZN_MAX_RANK];
  uint32_t g = 0;
  for (int d = 0; d < last; d++)
    if (d != s->axis) extents[g++] = s->t.dims[d];
  zn_lw_grid(lw, g, extents, vars);
  for (int d = 0, k = 0; d < last; d++)
    if (d != s->axis) s->idx[d] = vars[k++];
  s->idx[last] = zn_lw_for(lw, s->t.dims[last], ZN_FOR_VECTOR, 0);
  zn_expr len = s->t.dims[s->axis];
  zn_kref m = zn_kb_var(b, zn_red_init(lw, ZN_RED_MAX_NUM, s->ct));
  zn_expr j = zn_lw_for(lw, len, ZN_FOR_SERIAL, 0);
  zn_kref x = at(lw, s, j), old = zn_kb_get(b, m);
  zn_kb_set(b, m, zn_red_step(lw, ZN_RED_MAX_NUM, old, x));
  zn_lw_end(lw);
  s->max = zn_kb_get(b, m);
  zn_kref acc = zn_kb_var(b, zn_red_init(lw, ZN_RED_SUM, s->ct));
  j = zn_lw_for(lw, len, ZN_FOR_SERIAL, 0);
  zn_kref e = elem_exp(lw, s, j);
  old = zn_kb_get(b, acc);
  e = zn_kb_bin(b, ZN_K_Add, old, e);
  zn_kb_set(b, acc, is_short(lw, s, len) ? zn_lw_round_to(lw, e, s->t_of) : e);
  zn_lw_end(lw);
  zn_kref sum = zn_lw_round_to(lw, zn_kb_get(b, acc), s->t_of);
  zn_kref ls = zn_lw_node(lw, n)->op == ZN_OP_LogSoftmax ? zn_lw_round_to(lw, zn_kb_un(b, ZN_K_Log, sum), s->t_of) : 0;
  if (s->stored) s->scale = zn_kb_bin(b, ZN_K_Div, zn_kb_float(b, s->ct, 1), sum);
  j = zn_lw_for(lw, len, ZN_FOR_SERIAL, 0);
  write_row(lw, n, s, j, sum, ls);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_end(lw);
}

/* 1 at the first maximum, 0 elsewhere. */
static void hardmax(zn_lw *lw, soft *s) {
  zn_kb *b = &lw->kb;
  zn_expr extents[ZN_MAX_RANK], vars[ZN_MAX_RANK];
  uint32_t g = 0;
  for (int d = 0; d < s->t.rank; d++)
    if (d != s->axis) extents[g++] = s->t.dims[d];
  zn_lw_grid(lw, g, extents, vars);
  for (int d = 0, k = 0; d < s->t.rank; d++)
    if (d != s->axis) s->idx[d] = vars[k++];
  zn_kref best = zn_kb_var(b, at(lw, s, zn_ex_const(lw->ex, 0)));
  zn_kref where = zn_kb_var(b, zn_kb_idx(b, 0));
  zn_expr j = zn_lw_for(lw, s->t.dims[s->axis], ZN_FOR_SERIAL, 0);
  zn_kref x = at(lw, s, j), old = zn_kb_get(b, best), jk = zn_lw_ix(lw, j), pos = zn_kb_get(b, where);
  zn_kref more = zn_kb_cmp(b, ZN_K_Gt, x, old);
  zn_kb_set(b, best, zn_kb_select(b, more, x, old));
  zn_kb_set(b, where, zn_kb_select(b, more, jk, pos));
  zn_lw_end(lw);
  pos = zn_kb_get(b, where);
  j = zn_lw_for(lw, s->t.dims[s->axis], ZN_FOR_SERIAL, 0);
  jk = zn_lw_ix(lw, j);
  zn_kref one = zn_kb_float(b, s->ct, 1), zero = zn_kb_float(b, s->ct, 0);
  zn_kref is = zn_kb_cmp(b, ZN_K_Eq, jk, pos);
  s->idx[s->axis] = j;
  zn_lw_store(lw, s->y, s->idx, zn_kb_select(b, is, one, zero));
  zn_lw_end(lw);
  zn_lw_end(lw);
}

static zn_status softmax_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  soft s = {.x = node->in[0], .y = node->out[0], .t = *zn_lw_type(lw, node->in[0])};
  int64_t axis = zn_node_int(node, "axis");
  s.axis = (int)(axis < 0 ? axis + s.t.rank : axis);
  s.t_of = (zn_dtype)s.t.dtype;
  s.ct = zn_lw_ctype(s.t_of);
  s.stored = node->op == ZN_OP_Softmax && s.ct == (zn_dtype)s.t.dtype;
  zn_lw_kernel(lw, n, "softmax");
  zn_lw_in_place(lw, node->op == ZN_OP_Hardmax ? 0 : 1);
  if (node->op == ZN_OP_Hardmax)
    hardmax(lw, &s);
  else if (s.axis == s.t.rank - 1)
    soft_rows(lw, n, &s);
  else
    soft_columns(lw, n, &s);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_softmax = {NULL, softmax_kernel};
