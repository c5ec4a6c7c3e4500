/* What an operator demands of its operands and only the run can check: before the kernels of a node, the run is refused with
 * a code when sizes do not broadcast or a list of axes is not one. */
#include "codegen/lower/program.h"
#include "zenithc/ops/axes.h"

enum { SHAPE = 3 /* ZN_RUN_SHAPE */ };

static void require_equal(zn_lw *lw, zn_expr a, zn_expr b, bool or_one) {
  zn_step s = {.kind = ZN_STEP_REQUIRE, .a = a, .b = b, .or_one = or_one, .code = SHAPE};
  if (a != b) ZN_PUSH(lw->arena, lw->steps, lw->num_steps, lw->cap_steps, s);
}

/* numpy broadcasting. */
static void broadcasts(zn_lw *lw, const zn_node *n) {
  const zn_type *t = zn_lw_type(lw, n->out[0]);
  for (uint32_t i = 0; i < n->num_in; i++) {
    if (!n->in[i]) continue;
    const zn_type *ti = zn_lw_type(lw, n->in[i]);
    for (int d = 0; d < ti->rank; d++) {
      zn_expr o = t->dims[t->rank - ti->rank + d];
      if (!zn_ex_is(lw->ex, ti->dims[d], 1)) require_equal(lw, ti->dims[d], o, true);
    }
  }
}

/* Every entry is an axis and none is listed twice; what Squeeze drops has one element. */
static void axes_list(zn_lw *lw, const zn_node *n, uint32_t input, int rank) {
  zn_axes a;
  zn_vid list = zn_node_in(n, input);
  if (!list || !zn_axes_resolve(lw->g, list, rank, &a)) return;
  zn_expr sum = zn_ex_const(lw->ex, 0), top = zn_ex_const(lw->ex, rank - 1), low = zn_ex_const(lw->ex, -rank);
  for (uint32_t i = 0; i < a.count && !a.known; i++) {
    zn_lw_require_le(lw, a.entry[i], top);
    zn_lw_require_le(lw, low, a.entry[i]);
  }
  for (int d = 0; d < rank; d++) {
    sum = zn_ex_add(lw->ex, sum, a.mask[d]);
    if (n->op == ZN_OP_DFT && d == rank - 1) require_equal(lw, a.mask[d], zn_ex_const(lw->ex, 0), false); /* re, im */
    if (n->op != ZN_OP_Squeeze) continue;
    zn_expr over = zn_ex_addi(lw->ex, zn_lw_dim(lw, n->in[0], d), -1);
    require_equal(lw, zn_ex_mul(lw->ex, a.mask[d], over), zn_ex_const(lw->ex, 0), false);
  }
  if (!a.known) require_equal(lw, sum, zn_ex_const(lw->ex, a.count), false);
}

/* A Range of integers advances. */
static void delta(zn_lw *lw, const zn_node *n) {
  const zn_value *v = &lw->g->vals[n->in[2]];
  if (v->cst || !v->elems || !v->elems[0]) return;
  require_equal(lw, zn_axes_equal(lw->ex, v->elems[0], zn_ex_const(lw->ex, 0)), zn_ex_const(lw->ex, 0), false);
}

/* A sliding window fits into its padded input: the formula would go on with extents of 0 and below. */
static void window_fits(zn_lw *lw, const zn_node *n) {
  const zn_type *t = zn_lw_type(lw, n->out[0]);
  for (int d = 2; d < t->rank; d++)
    if (!zn_ex_is(lw->ex, t->dims[d], 0)) zn_lw_require_le(lw, zn_ex_const(lw->ex, 1), t->dims[d]);
}

/* Parts of complex numbers have one shape. */
static void same_shape(zn_lw *lw, const zn_node *n) {
  const zn_type *a = zn_lw_type(lw, n->in[0]), *b = zn_lw_type(lw, n->in[1]);
  for (int d = 0; d < a->rank; d++) require_equal(lw, a->dims[d], b->dims[d], false);
}

/* Places are counted from an operand that has elements, where there is something to read or write: kernels hold the places
 * within it, and within nothing there is none. */
static void has_elements(zn_lw *lw, const zn_node *n, zn_expr places) {
  zn_exprs *ex = lw->ex;
  const zn_expr one = zn_ex_const(ex, 1);
  const zn_expr wanted = zn_ex_min(ex, one, places), there = zn_ex_min(ex, one, zn_type_count(ex, zn_lw_type(lw, n->in[0])));
  zn_lw_require_le(lw, wanted, there);
}

/* A branch that the model cannot take (pass ranks): shapes decided it. */
static void condition(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_expr idx[ZN_MAX_RANK];
  for (int d = 0; d < zn_lw_type(lw, node->in[1])->rank; d++) idx[d] = zn_ex_const(lw->ex, 0);
  zn_lw_kernel(lw, n, "require");
  zn_kref holds = zn_lw_load(lw, node->in[1], idx);
  zn_lw_fail_if(lw, zn_node_int(node, "value") ? zn_kb_un(&lw->kb, ZN_K_Not, holds) : holds, SHAPE);
  zn_lw_kernel_end(lw);
}

static zn_expr count_of(zn_lw *lw, zn_vid v) { return zn_type_count(lw->ex, zn_lw_type(lw, v)); }

void zn_lower_require(zn_lw *lw, zn_nid id) {
  const zn_node *n = zn_lw_node(lw, id);
  if ((zn_ops[n->op].flags & ZN_OPF_EW) && n->num_in > 1) broadcasts(lw, n);
  switch (n->op) {
  case ZN_OP_ReduceSum: case ZN_OP_ReduceMean: case ZN_OP_ReduceMax: case ZN_OP_ReduceMin: case ZN_OP_ReduceProd:
  case ZN_OP_Squeeze: axes_list(lw, n, 1, zn_lw_type(lw, n->in[0])->rank); break;
  case ZN_OP_Unsqueeze: axes_list(lw, n, 1, zn_lw_type(lw, n->out[0])->rank); break;
  case ZN_OP_Conv: case ZN_OP_ConvInteger: case ZN_OP_QLinearConv: case ZN_OP_MaxPool: case ZN_OP_AveragePool:
  case ZN_OP_LpPool: window_fits(lw, n); break;
  case ZN_OP_Gather: case ZN_OP_GatherElements: case ZN_OP_GatherND: case ZN_OP_GridSample: case ZN_OP_RoiAlign:
  case ZN_OP_MaxRoiPool: has_elements(lw, n, count_of(lw, n->out[0])); break;
  case ZN_OP_DeformConv: /* without channels a result is its bias */
    has_elements(lw, n, zn_ex_mul(lw->ex, count_of(lw, n->out[0]), zn_lw_dim(lw, n->in[0], 1)));
    break;
  case ZN_OP_ScatterElements: case ZN_OP_ScatterND: has_elements(lw, n, count_of(lw, n->in[2])); break;
  case ZN_OP_ComplexOf: same_shape(lw, n); break;
  case ZN_OP_Require: condition(lw, id); break;
  case ZN_OP_Pad: axes_list(lw, n, 3, zn_lw_type(lw, n->in[0])->rank); break;
  case ZN_OP_DFT: axes_list(lw, n, 2, zn_lw_type(lw, n->in[0])->rank); break;
  case ZN_OP_Range:
    delta(lw, n);
    zn_lower_range_length(lw, id);
    break;
  default: break;
  }
}
