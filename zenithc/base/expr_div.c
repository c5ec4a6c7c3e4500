/* Floor division, modulo, min, max and broadcast of expressions.
 *
 * a // m and a % m by a divisor with a single term m = c*M proceed in steps, each exact for every
 * value of the symbols:
 *   1. split a = m*q + r term by term;                       a//m = q + r//m        a%m = r%m
 *   2. r provably inside one multiple k of m:                r//m = k               r%m = r - k*m
 *   3. a common factor g of m and some terms, r = g*A + B with 0 <= B < g:
 *                                                            r//m = A//(m/g)        r%m =
 * g*(A%(m/g)) + B
 *   4. (x//n + s)//m = (x + n*s)//(n*m)      (x%n)//m = (x//m)%(n/m) when m divides n
 *      (k*(x%n) + s)%m = (k*x + s)%m when m divides k*n
 * What is left becomes an opaque atom. Divisors with several terms divide by long division. A
 * divisor that is zero has no value, so a symbol with lower bound 0 counts as positive in a
 * divisor. */
#include <assert.h>

#include "zenithc/base/expr_impl.h"

enum { MAX_NEST = 40 };

static bool positive(const zn_exprs *p, zn_expr m) {
  return !zn_ex_bad(m) && zn_ex_at(p, m)->lo >= 0;
}

/* a = c*M*q + r; with M = 1 the constant goes to r in [0, c), other coefficients keep their sign.
 */
static void split(zn_exprs *p, zn_expr a, int64_t c, zn_expr M, zn_expr *out_q, zn_expr *out_r) {
  zn_ex_poly *q = zn_ex_poly_get(p), *r = zn_ex_poly_get(p);
  uint32_t n = zn_ex_num_terms(p, a);
  for (uint32_t i = 0; i < n; i++) {
    zn_ex_term t = zn_ex_term_at(p, a, i);
    zn_expr left = zn_ex_mono_div(p, t.m, M);
    int64_t k = !left || (t.k == INT64_MIN && c == -1) ? 0
                : t.m == ZN_EX_ONE                     ? zn_floordiv(t.k, c)
                                                       : t.k / c;
    if (left) zn_ex_poly_term(p, q, k, left);
    zn_ex_poly_term(p, r, t.k - k * c, t.m);
  }
  *out_r = zn_ex_poly_done(p, r);
  *out_q = zn_ex_poly_done(p, q);
}

/* lo <= e < lo + m provably? */
static bool inside(zn_exprs *p, zn_expr e, zn_expr m, int64_t lo_times) {
  zn_expr low = zn_ex_sub(p, e, zn_ex_muli(p, m, lo_times));
  return zn_ex_le(p, ZN_EX_ZERO, low) && zn_ex_lt(p, low, m);
}

/* Step 2. k with k*m <= r < (k+1)*m. */
static bool one_multiple(zn_exprs *p, zn_expr r, zn_expr m, int64_t *out_k) {
  int64_t c;
  if (zn_ex_is_const(p, m, &c)) {
    const zn_ex_node *n = zn_ex_at(p, r);
    if (n->lo != INT64_MIN && n->hi != INT64_MAX &&
        zn_floordiv(n->lo, c) == zn_floordiv(n->hi, c)) {
      *out_k = zn_floordiv(n->lo, c);
      return true;
    }
  }
  if (!zn_ex_at(p, r)->bounded && !zn_ex_at(p, m)->bounded && zn_ex_at(p, m)->op == ZN_EX_CONST)
    return false;
  for (int64_t k = zn_ex_at(p, r)->hi < 0 ? -1 : 0; k >= (zn_ex_at(p, r)->lo >= 0 ? 0 : -1); k--) {
    if (inside(p, r, m, k)) {
      *out_k = k;
      return true;
    }
  }
  return false;
}

static int64_t gcd64(int64_t a, int64_t b) {
  uint64_t x = a < 0 ? (uint64_t)-a : (uint64_t)a, y = b < 0 ? (uint64_t)-b : (uint64_t)b;
  while (y) {
    uint64_t t = x % y;
    x = y;
    y = t;
  }
  return (int64_t)x;
}

/* Step 3: finds g, A, B and m/g for r by m = c*M (c > 0). */
static bool factor_split(zn_exprs *p, zn_expr r, int64_t c, zn_expr M, zn_expr *g, zn_expr *A,
                         zn_expr *B, zn_expr *rest) {
  uint32_t n = zn_ex_num_terms(p, r);
  for (uint32_t i = 0; i < n; i++) {
    zn_ex_term t = zn_ex_term_at(p, r, i);
    if (t.m == ZN_EX_ONE || t.k == INT64_MIN) continue;
    int64_t gc = gcd64(t.k, c);
    zn_expr gm = zn_ex_mono_gcd(p, t.m, M);
    if ((gc == 1 && gm == ZN_EX_ONE) || (gc == c && gm == M)) continue;
    *g = zn_ex_single(p, gc, gm);
    if (!positive(p, *g)) continue;
    *rest = zn_ex_single(p, c / gc, zn_ex_mono_div(p, M, gm));
    split(p, r, gc, gm, A, B);
    if (zn_ex_bad(*A) || zn_ex_bad(*B)) continue;
    if (*B == ZN_EX_ZERO || (positive(p, *rest) && inside(p, *B, *g, 0))) return true;
  }
  return false;
}

/* The operands of a DIV or MOD atom. */
static zn_expr operand(const zn_exprs *p, zn_expr e, uint32_t i) {
  return p->ops[zn_ex_at(p, e)->first + i];
}

/* The only DIV atom of r, when it stands alone with coefficient 1. */
static zn_expr lone_div(const zn_exprs *p, zn_expr r) {
  zn_expr found = 0;
  uint32_t n = zn_ex_num_terms(p, r);
  for (uint32_t i = 0; i < n; i++) {
    zn_ex_term t = zn_ex_term_at(p, r, i);
    if (zn_ex_at(p, t.m)->op != ZN_EX_DIV) continue;
    if (found || t.k != 1) return 0;
    found = t.m;
  }
  return found;
}

/* Step 4 for division; NONE when it does not apply. m > 0. */
static zn_expr nested_div(zn_exprs *p, zn_expr r, zn_expr m, int64_t c, zn_expr M) {
  zn_expr d = lone_div(p, r);
  if (d) {
    zn_expr x = operand(p, d, 0), n = operand(p, d, 1);
    if (positive(p, n)) {
      zn_expr s = zn_ex_mul(p, zn_ex_sub(p, r, d), n), top = zn_ex_add(p, x, s),
              bottom = zn_ex_mul(p, n, m);
      if (!zn_ex_bad(top) && !zn_ex_bad(bottom)) return zn_ex_div(p, top, bottom);
    }
  }
  if (zn_ex_at(p, r)->op == ZN_EX_MOD) {
    zn_expr x = operand(p, r, 0), n = operand(p, r, 1), q, rest;
    split(p, n, c, M, &q, &rest);
    if (rest == ZN_EX_ZERO && positive(p, n)) return zn_ex_mod(p, zn_ex_div(p, x, m), q);
  }
  return ZN_EX_NONE;
}

/* Long division by a divisor of several terms, by its first term of the highest degree. */
static uint32_t degree(const zn_exprs *p, zn_expr m) {
  const zn_expr *f;
  return zn_ex_factors(p, &m, &f);
}

static void long_division(zn_exprs *p, zn_expr a, zn_expr m, zn_expr *out_q, zn_expr *out_r) {
  zn_ex_term lead = zn_ex_term_at(p, m, 0);
  for (uint32_t i = 1; i < zn_ex_num_terms(p, m); i++) {
    zn_ex_term t = zn_ex_term_at(p, m, i);
    if (degree(p, t.m) > degree(p, lead.m)) lead = t;
  }
  *out_q = ZN_EX_ZERO;
  *out_r = a;
  for (int steps = 0; steps < 16; steps++) {
    bool found = false;
    for (uint32_t i = 0; i < zn_ex_num_terms(p, *out_r) && !found; i++) {
      zn_ex_term t = zn_ex_term_at(p, *out_r, i);
      zn_expr left = t.k % lead.k == 0 ? zn_ex_mono_div(p, t.m, lead.m) : 0;
      if (!left || lead.k == -1) continue;
      zn_expr step = zn_ex_single(p, t.k / lead.k, left);
      zn_expr q = zn_ex_add(p, *out_q, step), r = zn_ex_sub(p, *out_r, zn_ex_mul(p, step, m));
      if (zn_ex_bad(q) || zn_ex_bad(r)) return;
      *out_q = q;
      *out_r = r;
      found = true;
    }
    if (!found) return;
  }
}

static zn_expr div_poly(zn_exprs *p, zn_expr a, zn_expr m) {
  zn_expr q, r;
  int64_t k;
  long_division(p, a, m, &q, &r);
  if (r == ZN_EX_ZERO) return q;
  if (one_multiple(p, r, m, &k)) return zn_ex_addi(p, q, k);
  return zn_ex_opaque(p, ZN_EX_DIV, a, m);
}

static zn_expr div_single(zn_exprs *p, zn_expr a, zn_expr m, int64_t c, zn_expr M) {
  zn_expr q, r, g, A, B, rest;
  int64_t k;
  split(p, a, c, M, &q, &r);
  if (zn_ex_bad(q) || zn_ex_bad(r)) return zn_ex_worse(q, r);
  if (r == ZN_EX_ZERO) return q;
  if (one_multiple(p, r, m, &k)) return zn_ex_addi(p, q, k);
  zn_expr d = ZN_EX_NONE;
  if (p->depth < MAX_NEST) {
    if (factor_split(p, r, c, M, &g, &A, &B, &rest))
      d = zn_ex_div(p, A, rest);
    else if (positive(p, m))
      d = nested_div(p, r, m, c, M);
  }
  if (d == ZN_EX_NONE) d = zn_ex_opaque(p, ZN_EX_DIV, r, m);
  return zn_ex_add(p, q, d);
}

static zn_expr negate(zn_exprs *p, zn_expr a) { return zn_ex_muli(p, a, -1); }

void zn_ex_divide_totally(zn_exprs *p) { p->total_division = true; }

zn_expr zn_ex_div(zn_exprs *p, zn_expr a, zn_expr b) {
  if (zn_ex_bad(a) || zn_ex_bad(b)) return zn_ex_worse(a, b);
  int64_t x, y;
  if (b == ZN_EX_ZERO) return p->total_division ? ZN_EX_ZERO : ZN_EX_NONE;
  if (b == ZN_EX_ONE) return a;
  if (a == ZN_EX_ZERO) return a;
  if (a == b) return ZN_EX_ONE;
  if (zn_ex_is_const(p, a, &x) && zn_ex_is_const(p, b, &y))
    return x == INT64_MIN && y == -1 ? ZN_EX_OVERFLOW : zn_ex_const(p, zn_floordiv(x, y));
  zn_expr r;
  if (zn_ex_memo_get(p, ZN_EX_DIV, a, b, &r)) return r;
  p->depth++;
  zn_ex_term m = zn_ex_term_at(p, b, 0);
  if (zn_ex_num_terms(p, b) > 1)
    r = div_poly(p, a, b);
  else if (m.k < 0)
    r = zn_ex_div(p, negate(p, a), negate(p, b));
  else
    r = div_single(p, a, b, m.k, m.m);
  p->depth--;
  zn_ex_memo_put(p, ZN_EX_DIV, a, b, r);
  return r;
}

/* Step 4 for modulo: k*(x%n) becomes k*x where m divides k*n. */
static zn_expr drop_mods(zn_exprs *p, zn_expr r, int64_t c, zn_expr M) {
  zn_ex_poly *out = zn_ex_poly_get(p);
  uint32_t n = zn_ex_num_terms(p, r);
  for (uint32_t i = 0; i < n; i++) {
    zn_ex_term t = zn_ex_term_at(p, r, i);
    zn_expr q, rest = r, e = zn_ex_single(p, t.k, t.m);
    if (zn_ex_at(p, t.m)->op == ZN_EX_MOD) {
      split(p, zn_ex_muli(p, operand(p, t.m, 1), t.k), c, M, &q, &rest);
      if (rest == ZN_EX_ZERO) e = zn_ex_muli(p, operand(p, t.m, 0), t.k);
    }
    zn_ex_poly_add(p, out, e, 1);
  }
  return zn_ex_poly_done(p, out);
}

static zn_expr mod_single(zn_exprs *p, zn_expr a, zn_expr m, int64_t c, zn_expr M) {
  zn_expr q, r, g, A, B, rest;
  int64_t k;
  split(p, a, c, M, &q, &r);
  if (zn_ex_bad(r)) return r;
  if (r == ZN_EX_ZERO) return r;
  if (one_multiple(p, r, m, &k)) return zn_ex_sub(p, r, zn_ex_muli(p, m, k));
  if (p->depth < MAX_NEST) {
    zn_expr s = zn_ex_at(p, r)->has_divmod ? drop_mods(p, r, c, M) : r;
    if (s != r && !zn_ex_bad(s)) return zn_ex_mod(p, s, m);
    if (factor_split(p, r, c, M, &g, &A, &B, &rest))
      return zn_ex_add(p, zn_ex_mul(p, g, zn_ex_mod(p, A, rest)), B);
  }
  return zn_ex_opaque(p, ZN_EX_MOD, r, m);
}

static zn_expr mod_poly(zn_exprs *p, zn_expr a, zn_expr m) {
  zn_expr q, r;
  int64_t k;
  long_division(p, a, m, &q, &r);
  if (r == ZN_EX_ZERO) return r;
  if (one_multiple(p, r, m, &k)) return zn_ex_sub(p, r, zn_ex_muli(p, m, k));
  return zn_ex_opaque(p, ZN_EX_MOD, a, m);
}

zn_expr zn_ex_mod(zn_exprs *p, zn_expr a, zn_expr b) {
  if (zn_ex_bad(a) || zn_ex_bad(b)) return zn_ex_worse(a, b);
  int64_t x, y;
  if (b == ZN_EX_ZERO) return p->total_division ? ZN_EX_ZERO : ZN_EX_NONE;
  if (b == ZN_EX_ONE || a == ZN_EX_ZERO || a == b) return ZN_EX_ZERO;
  if (zn_ex_is_const(p, a, &x) && zn_ex_is_const(p, b, &y)) {
    int64_t v = y == -1 ? 0 : x % y;
    return zn_ex_const(p, v != 0 && (v < 0) != (y < 0) ? v + y : v);
  }
  zn_expr r;
  if (zn_ex_memo_get(p, ZN_EX_MOD, a, b, &r)) return r;
  p->depth++;
  zn_ex_term m = zn_ex_term_at(p, b, 0);
  if (zn_ex_num_terms(p, b) > 1)
    r = mod_poly(p, a, b);
  else if (m.k < 0)
    r = negate(p, zn_ex_mod(p, negate(p, a), negate(p, b)));
  else
    r = mod_single(p, a, b, m.k, m.m);
  p->depth--;
  zn_ex_memo_put(p, ZN_EX_MOD, a, b, r);
  return r;
}

zn_expr zn_ex_ceildiv(zn_exprs *p, zn_expr a, zn_expr b) {
  int64_t c;
  if (!zn_ex_bad(b) && zn_ex_is_const(p, b, &c) && c > 0)
    return zn_ex_div(p, zn_ex_addi(p, a, c - 1), b);
  return negate(p, zn_ex_div(p, negate(p, a), b));
}

/* ---- pairs in sums ---- */

static int64_t poly_coef(const zn_ex_poly *q, zn_expr mono) {
  for (uint32_t i = 0; i < q->n; i++)
    if (q->t[i].m == mono) return q->t[i].k;
  return 0;
}

/* The factor of t with this operation, and k*t = K*factor. */
static zn_expr divmod_factor(zn_exprs *p, zn_ex_term t, zn_ex_op op, uint32_t nth, zn_expr *out_K) {
  const zn_expr *f = NULL;
  zn_expr found = 0;
  uint32_t n = zn_ex_factors(p, &t.m, &f);
  for (uint32_t i = 0; i < n && !found; i++)
    if (zn_ex_at(p, f[i])->op == op && nth-- == 0) found = f[i];
  if (found) *out_K = zn_ex_single(p, t.k, zn_ex_mono_div(p, t.m, found));
  return found;
}

/* K*(x%m) beside a multiple of K*m*(x//m). */
static bool pair_mod(zn_exprs *p, zn_ex_poly *q, zn_expr K, zn_expr atom) {
  zn_expr x = operand(p, atom, 0), m = operand(p, atom, 1);
  zn_expr d = zn_ex_div(p, x, m), md = zn_ex_mul(p, zn_ex_mul(p, m, d), K);
  if (zn_ex_bad(md) || zn_ex_num_terms(p, md) != 1 || zn_ex_at(p, d)->op != ZN_EX_DIV) return false;
  if (!poly_coef(q, zn_ex_term_at(p, md, 0).m)) return false;
  zn_ex_poly_add(p, q, zn_ex_mul(p, K, x), 1);
  zn_ex_poly_add(p, q, md, -1);
  zn_ex_poly_add(p, q, zn_ex_mul(p, K, atom), -1);
  return true;
}

/* K*m*(x//m) beside -K*x. */
static bool pair_div(zn_exprs *p, zn_ex_poly *q, zn_expr Km, zn_expr atom) {
  zn_expr x = operand(p, atom, 0), m = operand(p, atom, 1);
  if (zn_ex_num_terms(p, m) != 1 || zn_ex_at(p, Km)->op == ZN_EX_ADD) return false;
  zn_ex_term mt = zn_ex_term_at(p, m, 0), kt = zn_ex_term_at(p, Km, 0);
  zn_expr left = kt.k % mt.k == 0 ? zn_ex_mono_div(p, kt.m, mt.m) : 0;
  if (!left || mt.k == -1) return false;
  zn_expr K = zn_ex_single(p, kt.k / mt.k, left), Kx = zn_ex_mul(p, K, x);
  if (zn_ex_bad(Kx)) return false;
  uint32_t n = zn_ex_num_terms(p, Kx);
  for (uint32_t i = 0; i < n; i++) {
    zn_ex_term t = zn_ex_term_at(p, Kx, i);
    if (t.m != ZN_EX_ONE && (t.k == INT64_MIN || poly_coef(q, t.m) != -t.k)) return false;
  }
  zn_expr mod = zn_ex_mul(p, K, zn_ex_mod(p, x, m));
  if (zn_ex_bad(mod)) return false;
  zn_ex_poly_add(p, q, zn_ex_mul(p, Km, atom), -1);
  zn_ex_poly_add(p, q, Kx, 1);
  zn_ex_poly_add(p, q, mod, -1);
  return true;
}

static bool pair_term(zn_exprs *p, zn_ex_poly *q, zn_ex_term t) {
  zn_expr K = 0, atom;
  for (uint32_t nth = 0; (atom = divmod_factor(p, t, ZN_EX_MOD, nth, &K)); nth++)
    if (pair_mod(p, q, K, atom)) return true;
  for (uint32_t nth = 0; (atom = divmod_factor(p, t, ZN_EX_DIV, nth, &K)); nth++)
    if (pair_div(p, q, K, atom)) return true;
  return false;
}

void zn_ex_pair_divmod(zn_exprs *p, zn_ex_poly *q) {
  for (int round = 0; round < 8; round++) {
    bool changed = false;
    for (uint32_t i = 0; i < q->n && !changed && !q->overflow; i++)
      if (zn_ex_at(p, q->t[i].m)->has_divmod) changed = pair_term(p, q, q->t[i]);
    if (!changed) return;
  }
}

/* ---- min, max, broadcast ---- */

enum { MAX_ARGS = 32 };

/* The operands of nested nodes of one kind. */
static void flatten(const zn_exprs *p, zn_ex_op op, zn_expr e, zn_expr *list, uint32_t *n) {
  if (zn_ex_at(p, e)->op == op && *n + 2 < MAX_ARGS) {
    flatten(p, op, operand(p, e, 0), list, n);
    flatten(p, op, operand(p, e, 1), list, n);
    return;
  }
  list[(*n)++] = e;
}

static zn_expr minmax(zn_exprs *p, zn_ex_op op, zn_expr a, zn_expr b) {
  if (zn_ex_bad(a) || zn_ex_bad(b)) return zn_ex_worse(a, b);
  if (a == b) return a;
  zn_expr memo, list[2 * MAX_ARGS], keep[2 * MAX_ARGS] = {0};
  if (zn_ex_memo_get(p, op, a, b, &memo)) return memo;
  uint32_t n = 0, kept = 0;
  flatten(p, op, a, list, &n);
  flatten(p, op, b, list, &n);
  zn_ex_prove_begin(p);
  for (uint32_t i = 0; i < n; i++) {
    bool drop = false; /* another operand always wins (of equal ones the first stays) */
    for (uint32_t j = 0; j < n && !drop; j++) {
      if (i == j || list[j] == ZN_EX_NONE) continue;
      if (list[i] == list[j])
        drop = j < i;
      else
        drop = op == ZN_EX_MIN ? zn_ex_le(p, list[j], list[i]) : zn_ex_le(p, list[i], list[j]);
    }
    if (drop) list[i] = ZN_EX_NONE;
  }
  zn_ex_prove_end(p);
  for (uint32_t i = 0; i < n; i++) {
    if (list[i] == ZN_EX_NONE) continue;
    uint32_t at = kept++;
    for (; at > 0 && keep[at - 1] > list[i]; at--) keep[at] = keep[at - 1];
    keep[at] = list[i];
  }
  assert(kept > 0);
  zn_expr r = keep[0];
  for (uint32_t i = 1; i < kept; i++) r = zn_ex_opaque(p, op, r, keep[i]);
  zn_ex_memo_put(p, op, a, b, r);
  return r;
}

zn_expr zn_ex_min(zn_exprs *p, zn_expr a, zn_expr b) { return minmax(p, ZN_EX_MIN, a, b); }
zn_expr zn_ex_max(zn_exprs *p, zn_expr a, zn_expr b) { return minmax(p, ZN_EX_MAX, a, b); }

zn_expr zn_ex_bcast(zn_exprs *p, zn_expr a, zn_expr b) {
  if (zn_ex_bad(a) || zn_ex_bad(b)) return zn_ex_worse(a, b);
  if (a == b || b == ZN_EX_ONE) return a;
  if (a == ZN_EX_ONE) return b;
  const zn_ex_node *n = zn_ex_at(p, a);
  if (n->lo > 1 || n->hi < 1) return a;
  if (n->op == ZN_EX_BCAST && (operand(p, a, 0) == b || operand(p, a, 1) == b)) return a;
  if (zn_ex_at(p, b)->op == ZN_EX_BCAST && operand(p, b, 0) == a) return b;
  return zn_ex_opaque(p, ZN_EX_BCAST, a, b);
}
