/* The arithmetic of Slice. Conditions become factors of 0 or 1 (negative(v) = max(0, min(1, -v))), so that a start, an axis
 * or a step that only the run knows is an expression like any other. */
#include "zenithc/ops/slice.h"

#include "zenithc/ops/axes.h"

static const int64_t far = INT64_C(0x7fffffff); /* beyond every dimension */

static zn_expr entry_of(const zn_graph *g, zn_vid v, uint32_t k) {
  const zn_value *val = &g->vals[v];
  if (val->cst) {
    int64_t x = zn_load_i64(val->cst->dtype, val->cst->data, k);
    return zn_ex_const(g->ex, x > far ? far : x < -far ? -far : x);
  }
  return val->elems && k < val->num_elems ? val->elems[k] : ZN_EX_NONE;
}

static zn_expr negative(zn_exprs *ex, zn_expr v) {
  zn_expr m = zn_ex_muli(ex, v, -1);
  return zn_ex_max(ex, zn_ex_const(ex, 0), zn_ex_min(ex, zn_ex_const(ex, 1), m));
}

static zn_expr clamp(zn_exprs *ex, zn_expr v, zn_expr lo, zn_expr hi) {
  if (!zn_ex_le(ex, v, hi)) v = zn_ex_min(ex, v, hi);
  return zn_ex_le(ex, lo, v) ? v : zn_ex_max(ex, v, lo);
}

static zn_expr from_end(zn_exprs *ex, zn_expr v, zn_expr d) {
  return zn_ex_add(ex, v, zn_ex_mul(ex, d, negative(ex, v)));
}

static void resolve_axis(zn_exprs *ex, zn_expr d, zn_expr s, zn_expr e, zn_expr step, zn_expr *start,
                         zn_expr *count) {
  zn_expr zero = zn_ex_const(ex, 0), one = zn_ex_const(ex, 1);
  zn_expr forward = zn_ex_max(ex, zero, zn_ex_min(ex, one, step));
  zn_expr top = zn_ex_add(ex, zn_ex_addi(ex, d, -1), forward), bottom = zn_ex_addi(ex, forward, -1);
  zn_expr a = clamp(ex, from_end(ex, s, d), zero, top);
  zn_expr b = clamp(ex, from_end(ex, e, d), bottom, top);
  *start = a;
  zn_expr n = zn_ex_ceildiv(ex, zn_ex_sub(ex, b, a), step);
  if (!n) n = zero; /* a step of 0 is reported elsewhere */
  *count = clamp(ex, n, zero, d);
}

bool zn_slice_resolve(const zn_graph *g, const zn_node *n, zn_expr *start, zn_expr *step, zn_expr *count) {
  zn_exprs *ex = g->ex;
  const zn_type *t = &g->vals[n->in[0]].type;
  zn_vid axes = zn_node_in(n, 3), steps = zn_node_in(n, 4);
  const zn_type *ts = &g->vals[n->in[1]].type;
  int64_t num = 1; /* a scalar, as a Loop's iteration number is, counts as one entry */
  if (ts->rank > 1 || ts->rank < 0 || (ts->rank == 1 && !zn_ex_is_const(ex, ts->dims[0], &num))) return false;
  for (int d = 0; d < t->rank; d++) {
    zn_expr one = zn_ex_const(ex, 1), taken = zn_ex_const(ex, 0);
    zn_expr s = taken, e = taken, st = taken;
    for (uint32_t k = 0; k < (uint32_t)num; k++) {
      zn_expr a = axes ? entry_of(g, axes, k) : zn_ex_const(ex, k);
      zn_expr sk = entry_of(g, n->in[1], k), ek = entry_of(g, n->in[2], k);
      zn_expr stk = steps ? entry_of(g, steps, k) : one;
      if (!a || !sk || !ek || !stk) return false;
      zn_expr here = zn_axes_is(ex, a, d, t->rank);
      if (zn_ex_is(ex, here, 0)) continue;
      s = zn_ex_add(ex, s, zn_ex_mul(ex, here, sk));
      e = zn_ex_add(ex, e, zn_ex_mul(ex, here, ek));
      st = zn_ex_add(ex, st, zn_ex_mul(ex, here, stk));
      taken = zn_ex_add(ex, taken, here);
    }
    zn_expr whole = zn_ex_sub(ex, one, taken);
    st = zn_ex_add(ex, st, whole);
    e = zn_ex_add(ex, e, zn_ex_muli(ex, whole, far));
    step[d] = st;
    if (zn_ex_is(ex, taken, 0)) {
      start[d] = zn_ex_const(ex, 0);
      count[d] = t->dims[d];
    } else {
      resolve_axis(ex, t->dims[d], s, e, st, &start[d], &count[d]);
    }
    if (start[d] <= ZN_EX_OVERFLOW || count[d] <= ZN_EX_OVERFLOW || step[d] <= ZN_EX_OVERFLOW) return false;
  }
  return true;
}
