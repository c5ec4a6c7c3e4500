/* Proofs of e >= 0. Intervals answer most questions. Otherwise atoms are eliminated, the latest
 * first (the bounds of a loop variable refer to earlier ones only): in e = k*v + rest with k of one
 * sign, v is replaced by the bound that makes e smallest, which may be symbolic (the extent of a
 * loop variable, the operands of // % min max). Linear decomposition, dependence on symbols and the
 * public inequalities live here too. */
#include <assert.h>

#include "zenithc/base/expr_impl.h"

bool zn_ex_split_atom(zn_exprs *p, zn_expr e, zn_expr atom, zn_expr *coef, zn_expr *rest) {
  zn_ex_poly *c = zn_ex_poly_get(p), *r = zn_ex_poly_get(p);
  bool linear = true;
  uint32_t n = zn_ex_num_terms(p, e);
  for (uint32_t i = 0; i < n; i++) {
    zn_ex_term t = zn_ex_term_at(p, e, i);
    zn_expr left = zn_ex_mono_div(p, t.m, atom);
    if (!left) {
      zn_ex_poly_term(p, r, t.k, t.m);
      continue;
    }
    if (zn_ex_mono_div(p, left, atom)) linear = false;
    zn_ex_poly_term(p, c, t.k, left);
  }
  *coef = zn_ex_poly_done(p, c);
  *rest = zn_ex_poly_done(p, r);
  return linear && !zn_ex_bad(*coef) && !zn_ex_bad(*rest);
}

static zn_expr operand(const zn_exprs *p, zn_expr e, uint32_t i) {
  return p->ops[zn_ex_at(p, e)->first + i];
}

/* k*by + scale*rest >= 0 */
static bool with(zn_exprs *p, zn_expr k, zn_expr by, zn_expr rest, zn_expr scale, unsigned depth) {
  zn_expr e = zn_ex_add(p, zn_ex_mul(p, k, by), zn_ex_mul(p, rest, scale));
  return !zn_ex_bad(e) && zn_ex_nonneg(p, e, depth);
}

/* e = k*v + rest where k >= 0 (up: v at its smallest) or k <= 0 (v at its largest). */
static bool try_bound(zn_exprs *p, zn_expr v, zn_expr k, zn_expr rest, bool up, unsigned depth) {
  const zn_ex_node *n = zn_ex_at(p, v);
  zn_ex_op op = (zn_ex_op)n->op;
  int64_t lo = n->lo, hi = n->hi;
  zn_expr extent = n->extent;
  if (!up && !zn_ex_bad(extent) && zn_ex_at(p, extent)->op != ZN_EX_CONST)
    return with(p, k, zn_ex_addi(p, extent, -1), rest, ZN_EX_ONE, depth);
  if (op >= ZN_EX_DIV) {
    zn_expr x = operand(p, v, 0), m = operand(p, v, 1);
    bool positive = zn_ex_at(p, m)->lo >= 0;
    if (op == ZN_EX_DIV && positive) { /* x - m + 1 <= m*v <= x, everything times m */
      zn_expr by = up ? zn_ex_addi(p, zn_ex_sub(p, x, m), 1) : x;
      if (!zn_ex_bad(by) && with(p, k, by, rest, m, depth)) return true;
    } else if (op == ZN_EX_MOD && positive && !up) {
      if (with(p, k, zn_ex_addi(p, m, -1), rest, ZN_EX_ONE, depth)) return true;
      if (zn_ex_at(p, x)->lo >= 0 && with(p, k, x, rest, ZN_EX_ONE, depth)) return true;
    } else if (op >=
               ZN_EX_MIN) { /* one operand is the value: both must do, or the one that bounds it */
      bool either = (op == ZN_EX_MIN && !up) || (op == ZN_EX_MAX && up);
      bool first = with(p, k, x, rest, ZN_EX_ONE, depth);
      if (first && either) return true;
      if ((first || either) && with(p, k, m, rest, ZN_EX_ONE, depth)) return true;
    }
  }
  int64_t c = up ? lo : hi;
  if (c == INT64_MIN || c == INT64_MAX) return false;
  return with(p, k, zn_ex_const(p, c), rest, ZN_EX_ONE, depth);
}

/* The latest atom of e that is older than `below`; 0 when there is none. */
static zn_expr latest_atom(const zn_exprs *p, zn_expr e, zn_expr below) {
  zn_expr best = 0;
  uint32_t n = zn_ex_num_terms(p, e);
  for (uint32_t i = 0; i < n; i++) {
    zn_expr m = zn_ex_term_at(p, e, i).m;
    const zn_expr *f = NULL;
    uint32_t count = zn_ex_factors(p, &m, &f);
    for (uint32_t j = 0; j < count; j++)
      if (f[j] < below && f[j] > best) best = f[j];
  }
  return best;
}

bool zn_ex_nonneg(zn_exprs *p, zn_expr e, unsigned depth) {
  if (zn_ex_bad(e)) return false;
  const zn_ex_node *n = zn_ex_at(p, e);
  if (n->lo >= 0) return true;
  if (n->hi < 0 || !n->bounded || depth == 0 || n->n > 32 || p->proof_steps == 0) return false;
  p->proof_steps--;
  unsigned tried = 0;
  for (zn_expr v = latest_atom(p, e, UINT32_MAX); v && tried < 3; v = latest_atom(p, e, v)) {
    zn_expr k, rest;
    if (!zn_ex_split_atom(p, e, v, &k, &rest)) continue;
    bool up = zn_ex_nonneg(p, k, depth - 1);
    if (!up && !zn_ex_nonneg(p, zn_ex_muli(p, k, -1), depth - 1)) continue;
    if (try_bound(p, v, k, rest, up, depth - 1)) return true;
    tried++;
  }
  return false;
}

/* A cheap counterexample saves the search: two points that respect all bounds. At the low one loop
 * variables are 0 and other symbols at their lower end, at the high one loop variables are at their
 * extent - 1 and symbols a little up. */
typedef struct point {
  const zn_exprs *p;
  bool high;
  unsigned depth;
} point;

static bool coordinate(void *user, zn_expr s, int64_t *out) {
  const point *at = user;
  const zn_ex_node *n = zn_ex_at(at->p, s);
  int64_t lo = n->lo == INT64_MIN ? n->hi < 0 ? n->hi : 0 : n->lo, extent;
  const int64_t up = lo > INT64_MAX - 100 ? lo : n->hi > lo + 100 ? lo + 37 : n->hi;
  *out = at->high ? up : lo;
  if (zn_ex_bad(n->extent)) return true;
  point inner = {at->p, at->high, at->depth + 1};
  if (at->depth > 16 || !zn_ex_eval(at->p, n->extent, coordinate, &inner, &extent) || extent <= lo)
    return false;
  if (at->high) *out = extent - 1;
  return true;
}

static bool refuted(const zn_exprs *p, zn_expr e) {
  int64_t v;
  point low = {p, false, 0}, high = {p, true, 0};
  if (zn_ex_bad(e)) return true;
  return (zn_ex_eval(p, e, coordinate, &high, &v) && v < 0) ||
         (zn_ex_eval(p, e, coordinate, &low, &v) && v < 0);
}

/* Proofs that succeed on real models take less than 10 steps; a search without end is for hostile input. */
enum { PROOF_DEPTH = 8, PROOF_STEPS = 1000 };

void zn_ex_prove_begin(zn_exprs *p) {
  if (p->proofs++ == 0) p->proof_steps = PROOF_STEPS;
}

void zn_ex_prove_end(zn_exprs *p) { p->proofs--; }

bool zn_ex_le(zn_exprs *p, zn_expr a, zn_expr b) {
  if (zn_ex_bad(a) || zn_ex_bad(b)) return false;
  if (a == b) return true;
  const zn_ex_node *x = zn_ex_at(p, a), *y = zn_ex_at(p, b);
  if (x->hi <= y->lo && x->hi != INT64_MAX && y->lo != INT64_MIN) return true;
  if (x->lo > y->hi) return false;
  zn_expr e = zn_ex_sub(p, b, a);
  if (refuted(p, e)) return false;
  zn_ex_prove_begin(p);
  const bool proved = zn_ex_nonneg(p, e, PROOF_DEPTH);
  zn_ex_prove_end(p);
  return proved;
}

bool zn_ex_lt(zn_exprs *p, zn_expr a, zn_expr b) {
  if (zn_ex_bad(a) || zn_ex_bad(b) || a == b) return false;
  return zn_ex_le(p, zn_ex_addi(p, a, 1), b);
}

bool zn_ex_linear(zn_exprs *p, zn_expr e, zn_expr v, zn_expr *out_coef, zn_expr *out_rest) {
  if (zn_ex_bad(e)) return false;
  zn_expr coef, rest;
  if (!zn_ex_split_atom(p, e, v, &coef, &rest)) return false;
  if (zn_ex_depends(p, coef, v) || zn_ex_depends(p, rest, v)) return false;
  *out_coef = coef;
  *out_rest = rest;
  return true;
}
