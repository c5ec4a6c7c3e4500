/* Upper bounds of sizes that only the run knows: plan reports them, and the workspace has room for them. What has none
 * comes from the caller's allocator. */
#include "codegen/lower/program.h"

/* Bounds above are no sizes but clamps of 2^31, perhaps divided by the step of a Slice. */
static const int64_t max_dim = INT64_C(1) << 28;

/* Largest value of a data-dependent size, over other symbols; ZN_EX_NONE when unbounded. */
zn_expr zn_lw_sym_bound(zn_lw *lw, zn_expr sym) {
  zn_expr extent = zn_ex_extent(lw->ex, sym);
  if (extent) return zn_ex_addi(lw->ex, extent, -1);
  int64_t lo, hi;
  zn_ex_range(lw->ex, sym, &lo, &hi);
  return hi < max_dim ? zn_ex_const(lw->ex, hi) : ZN_EX_NONE;
}

static bool data_dependent(const zn_lw *lw, zn_expr x) {
  for (uint32_t i = 0; i < lw->num_steps; i++)
    if (lw->steps[i].sym && zn_ex_depends(lw->ex, x, lw->steps[i].sym)) return true;
  return false;
}

static zn_expr limit(zn_lw *lw, zn_expr x, bool upper);

/* Coefficients may be negative; everything else that multiplies is a size. */
static zn_expr limit_product(zn_lw *lw, zn_expr x, bool upper) {
  zn_exprs *ex = lw->ex;
  int64_t c;
  zn_expr p = zn_ex_const(ex, 1), zero = zn_ex_const(ex, 0);
  if (zn_ex_is_const(ex, zn_ex_operand(ex, x, 0), &c) && c < 0) upper = !upper;
  for (uint32_t i = 0; i < zn_ex_arity(ex, x); i++) {
    zn_expr f = zn_ex_operand(ex, x, i);
    zn_expr t = zn_ex_is_const(ex, f, NULL) ? f : limit(lw, f, upper);
    if (!t) return ZN_EX_NONE;
    if (!zn_ex_is_const(ex, f, NULL)) t = zn_ex_max(ex, t, zero);
    p = zn_ex_mul(ex, p, t);
  }
  return p;
}

static zn_expr limit_symbol(zn_lw *lw, zn_expr x, bool upper) {
  zn_exprs *ex = lw->ex;
  zn_expr def = zn_ex_def(ex, x);
  int64_t lo, hi;
  zn_ex_range(ex, x, &lo, &hi);
  if (!upper) return lo > INT64_MIN ? zn_ex_const(ex, lo) : def ? limit(lw, def, false) : ZN_EX_NONE;
  zn_expr top = zn_lw_sym_bound(lw, x);
  if (top && data_dependent(lw, top)) top = limit(lw, top, true);
  if (!top && def) top = limit(lw, def, true);
  return top;
}

/* An expression of what plan knows that x never exceeds (or never falls below); ZN_EX_NONE when there is none. */
static zn_expr limit(zn_lw *lw, zn_expr x, bool upper) {
  zn_exprs *ex = lw->ex;
  int64_t c;
  if (upper && zn_ex_is_const(ex, x, &c) && c >= max_dim) return ZN_EX_NONE; /* a clamp, not a size */
  if (!data_dependent(lw, x)) return x;
  zn_ex_op op = zn_ex_kind(ex, x);
  if (op == ZN_EX_SYM) return limit_symbol(lw, x, upper);
  if (op == ZN_EX_MUL) return limit_product(lw, x, upper);
  zn_expr r = limit(lw, zn_ex_operand(ex, x, 0), upper);
  if (op == ZN_EX_MOD) {
    zn_expr d = zn_ex_operand(ex, x, 1);
    if (!upper) return zn_ex_const(ex, 0);
    d = limit(lw, d, true);
    return d ? zn_ex_addi(ex, d, -1) : r;
  }
  if (op == ZN_EX_DIV) { /* the smallest quotient of sizes is 0 */
    zn_expr d = zn_ex_operand(ex, x, 1);
    if (data_dependent(lw, d)) return upper ? r : zn_ex_const(ex, 0);
    return r ? zn_ex_div(ex, r, d) : r;
  }
  for (uint32_t i = 1; i < zn_ex_arity(ex, x); i++) {
    zn_expr t = limit(lw, zn_ex_operand(ex, x, i), upper);
    bool either = op == ZN_EX_MIN ? upper : op == ZN_EX_MAX && !upper; /* one bound is enough */
    if (either && (!r || !t)) {
      r = r ? r : t;
      continue;
    }
    if (!r || !t) return ZN_EX_NONE;
    if (op == ZN_EX_ADD)
      r = zn_ex_add(ex, r, t);
    else if (op == ZN_EX_MIN || (op == ZN_EX_BCAST && !upper))
      r = zn_ex_min(ex, r, t);
    else
      r = zn_ex_max(ex, r, t);
  }
  return r;
}

zn_expr zn_lw_bound(zn_lw *lw, zn_expr x) {
  int64_t lo, hi;
  zn_expr top = limit(lw, x, true);
  if (top) return top;
  zn_ex_range(lw->ex, x, &lo, &hi);
  return hi < max_dim ? zn_ex_const(lw->ex, hi) : ZN_EX_NONE;
}
