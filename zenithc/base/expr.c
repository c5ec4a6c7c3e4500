/* The expression pool: hash-consed nodes, polynomials over atoms, intervals, and the walks over
 * them (evaluation, substitution, dependence). Division and modulo are in expr_div.c, proofs of
 * inequalities in expr_prove.c, text in expr_text.c. Operands always have smaller ids than their
 * node. */
#include <assert.h>

#include "zenithc/base/expr_impl.h"

/* ---- nodes ---- */

static uint32_t hash_node(const zn_ex_node *n, const zn_expr *ops) {
  uint64_t h = n->op * UINT64_C(0x9e3779b97f4a7c15);
  if (n->op == ZN_EX_CONST) h ^= (uint64_t)n->coef;
  for (uint32_t i = 0; i < n->n; i++) h = (h ^ ops[i]) * UINT64_C(0xff51afd7ed558ccd);
  h *= UINT64_C(0xc4ceb9fe1a85ec53);
  return (uint32_t)(h >> 32);
}

static uint32_t hash_name(const char *s) {
  uint64_t h = UINT64_C(1469598103934665603);
  for (; *s; s++) h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
  return (uint32_t)((h * UINT64_C(0xc4ceb9fe1a85ec53)) >> 32);
}

static void table_add(zn_exprs *p, uint32_t h, zn_expr e) {
  uint32_t mask = p->table_size - 1, i = h;
  while (p->table[i & mask].e) i++;
  p->table[i & mask] = (zn_ex_slot){h, e};
}

static void table_grow(zn_exprs *p) {
  zn_ex_slot *old = p->table;
  uint32_t n = p->table_size;
  p->table_size = n ? n * 4 : 1024;
  p->table = ZN_ARRAY(p->a, zn_ex_slot, p->table_size);
  for (uint32_t i = 0; i < n; i++)
    if (old[i].e) table_add(p, old[i].hash, old[i].e);
}

static zn_expr push_node(zn_exprs *p, zn_ex_node n, const zn_expr *ops) {
  if (p->num == p->cap) {
    uint32_t cap = p->cap ? p->cap * 2 : 256;
    p->nodes = zn_arena_grow(p->a, p->nodes, p->num * sizeof *p->nodes, cap * sizeof *p->nodes);
    p->scratch = ZN_ARRAY(p->a, zn_ex_scratch, cap);
    p->cap = cap;
  }
  while (p->num_ops + n.n > p->cap_ops) {
    uint32_t cap = p->cap_ops ? p->cap_ops * 2 : 1024;
    p->ops = zn_arena_grow(p->a, p->ops, p->num_ops * sizeof *p->ops, cap * sizeof *p->ops);
    p->cap_ops = cap;
  }
  n.first = p->num_ops;
  for (uint32_t i = 0; i < n.n; i++) p->ops[p->num_ops++] = ops[i];
  p->nodes[p->num] = n;
  return p->num++;
}

/* ---- intervals ---- */

/* Interval ends behave like extended reals; 0 * infinity is 0. */
static int64_t end_mul(int64_t a, int64_t b) {
  if (a == 0 || b == 0) return 0;
  int64_t v;
  bool inf = a == INT64_MIN || a == INT64_MAX || b == INT64_MIN || b == INT64_MAX;
  if (inf || __builtin_mul_overflow(a, b, &v)) return (a < 0) != (b < 0) ? INT64_MIN : INT64_MAX;
  return v;
}

static int64_t end_add(int64_t a, int64_t b, int64_t infinity) {
  int64_t v;
  if (a == infinity || b == infinity) return infinity;
  if (__builtin_add_overflow(a, b, &v)) return a < 0 ? INT64_MIN : INT64_MAX;
  return v;
}

static int64_t end_div(int64_t a, int64_t b) { /* floor; b > 0 */
  if (a == INT64_MIN || a == INT64_MAX) return a;
  if (b == INT64_MAX) return a < 0 ? -1 : 0;
  return zn_floordiv(a, b);
}

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static void mul_range(int64_t *lo, int64_t *hi, int64_t bl, int64_t bh) {
  int64_t c[4] = {end_mul(*lo, bl), end_mul(*lo, bh), end_mul(*hi, bl), end_mul(*hi, bh)};
  *lo = min64(min64(c[0], c[1]), min64(c[2], c[3]));
  *hi = max64(max64(c[0], c[1]), max64(c[2], c[3]));
}

static void div_range(zn_ex_node *n, const zn_ex_node *x, const zn_ex_node *m) {
  int64_t ml = m->lo == 0 ? 1 : m->lo; /* a zero divisor has no value */
  if (ml > 0 && m->hi > 0) {
    n->lo = x->lo >= 0 ? end_div(x->lo, m->hi) : end_div(x->lo, ml);
    n->hi = x->hi >= 0 ? end_div(x->hi, ml) : end_div(x->hi, m->hi);
    return;
  }
  int64_t mag = x->lo == INT64_MIN ? INT64_MAX
                                   : max64(x->lo < 0 ? -x->lo : x->lo, x->hi < 0 ? -x->hi : x->hi);
  n->lo = mag == INT64_MAX ? INT64_MIN : -mag;
  n->hi = mag;
}

static void mod_range(zn_ex_node *n, const zn_ex_node *x, const zn_ex_node *m) {
  n->lo = m->lo >= 0 ? 0 : m->lo == INT64_MIN ? INT64_MIN : min64(m->lo + 1, 0);
  n->hi = m->hi == INT64_MAX ? INT64_MAX : max64(m->hi - 1, 0);
  if (m->lo >= 0 && x->lo >= 0) n->hi = min64(n->hi, x->hi);
}

static void set_interval(const zn_exprs *p, zn_ex_node *n, const zn_expr *ops) {
  const zn_ex_node *x = n->n > 0 ? zn_ex_at(p, ops[0]) : NULL,
                   *y = n->n > 1 ? zn_ex_at(p, ops[1]) : NULL;
  switch ((zn_ex_op)n->op) {
    case ZN_EX_CONST: n->lo = n->hi = n->coef; break;
    case ZN_EX_SYM:
      if (n->is_var) {
        int64_t h = zn_ex_at(p, n->extent)->hi;
        n->lo = 0;
        n->hi = zn_ex_bad(n->extent) || h == INT64_MAX ? INT64_MAX : max64(h - 1, 0);
      }
      break;
    case ZN_EX_ADD:
      n->lo = n->hi = 0;
      for (uint32_t i = 0; i < n->n; i++) {
        n->lo = end_add(n->lo, zn_ex_at(p, ops[i])->lo, INT64_MIN);
        n->hi = end_add(n->hi, zn_ex_at(p, ops[i])->hi, INT64_MAX);
      }
      break;
    case ZN_EX_MUL:
      n->lo = x->lo;
      n->hi = x->hi;
      for (uint32_t i = 1; i < n->n; i++)
        mul_range(&n->lo, &n->hi, zn_ex_at(p, ops[i])->lo, zn_ex_at(p, ops[i])->hi);
      break;
    case ZN_EX_DIV: div_range(n, x, y); break;
    case ZN_EX_MOD: mod_range(n, x, y); break;
    case ZN_EX_MIN:
      n->lo = min64(x->lo, y->lo);
      n->hi = min64(x->hi, y->hi);
      break;
    case ZN_EX_MAX:
      n->lo = max64(x->lo, y->lo);
      n->hi = max64(x->hi, y->hi);
      break;
    case ZN_EX_BCAST:
      n->lo = min64(x->lo, y->lo);
      n->hi = max64(x->hi, y->hi);
      break;
  }
}

/* Finds or makes the node {op, coef, mono} with these operands; n is filled in but for what follows
 * from them. */
static zn_expr intern(zn_exprs *p, zn_ex_node n, const zn_expr *ops) {
  uint32_t h = hash_node(&n, ops), mask = p->table_size - 1;
  for (uint32_t i = h; p->table[i & mask].e; i++) {
    if (p->table[i & mask].hash != h) continue;
    zn_expr e = p->table[i & mask].e;
    const zn_ex_node *o = zn_ex_at(p, e);
    if (o->op != n.op || o->n != n.n || (n.op == ZN_EX_CONST && o->coef != n.coef)) continue;
    if (n.n == 0 || !memcmp(p->ops + o->first, ops, n.n * sizeof *ops)) return e;
  }
  set_interval(p, &n, ops);
  n.bounded = n.op > ZN_EX_MUL || (n.op == ZN_EX_MUL && n.n + (n.coef == 1) > 2);
  n.has_divmod = n.op == ZN_EX_DIV || n.op == ZN_EX_MOD;
  for (uint32_t i = 0; i < n.n; i++) {
    n.syms |= zn_ex_at(p, ops[i])->syms;
    n.bounded |= zn_ex_at(p, ops[i])->bounded;
    if (n.op == ZN_EX_MUL || n.op == ZN_EX_ADD) n.has_divmod |= zn_ex_at(p, ops[i])->has_divmod;
  }
  if (p->num * 2 >= p->table_size) table_grow(p);
  zn_expr e = push_node(p, n, ops);
  if (!p->nodes[e].mono && n.op != ZN_EX_ADD) p->nodes[e].mono = e;
  table_add(p, h, e);
  return e;
}

zn_expr zn_ex_opaque(zn_exprs *p, zn_ex_op op, zn_expr a, zn_expr b) {
  return intern(p, (zn_ex_node){.op = (uint8_t)op, .n = 2, .coef = 1}, (const zn_expr[]){a, b});
}

zn_exprs *zn_exprs_new(zn_arena *a) {
  zn_exprs *p = ZN_NEW(a, zn_exprs);
  p->a = a;
  p->stamp = ZN_NEW(a, uint32_t);
  push_node(p, (zn_ex_node){.lo = INT64_MIN, .hi = INT64_MAX}, NULL); /* NONE */
  push_node(p, (zn_ex_node){.lo = INT64_MIN, .hi = INT64_MAX}, NULL); /* OVERFLOW */
  table_grow(p);
  zn_expr zero = zn_ex_const(p, 0), one = zn_ex_const(p, 1);
  assert(zero == ZN_EX_ZERO && one == ZN_EX_ONE);
  (void)zero;
  (void)one;
  return p;
}

zn_expr zn_ex_const(zn_exprs *p, int64_t v) {
  return intern(p, (zn_ex_node){.op = ZN_EX_CONST, .coef = v, .mono = ZN_EX_ONE}, NULL);
}

static zn_expr new_sym(zn_exprs *p, zn_ex_node n) {
  n.op = ZN_EX_SYM;
  n.coef = 1;
  n.mono = p->num;
  n.syms = UINT64_C(1) << (p->num * 2654435761u >> 26);
  if (n.is_var) n.bounded = true;
  set_interval(p, &n, NULL);
  if (p->num * 2 >= p->table_size) table_grow(p);
  return push_node(p, n, NULL);
}

zn_expr zn_ex_sym(zn_exprs *p, const char *name, int64_t lo, int64_t hi) {
  uint32_t h = hash_name(name), mask = p->table_size - 1;
  for (uint32_t i = h; p->table[i & mask].e; i++) {
    zn_expr e = p->table[i & mask].e;
    if (zn_ex_at(p, e)->op == ZN_EX_SYM && !strcmp(zn_ex_at(p, e)->name, name)) return e;
  }
  zn_expr e = new_sym(p, (zn_ex_node){.name = zn_arena_strdup(p->a, name), .lo = lo, .hi = hi});
  table_add(p, h, e);
  return e;
}

zn_expr zn_ex_var(zn_exprs *p, const char *name, zn_expr extent) {
  return new_sym(
      p, (zn_ex_node){.name = zn_arena_strdup(p->a, name), .is_var = true, .extent = extent});
}

void zn_ex_set_range(zn_exprs *p, zn_expr sym, int64_t lo, int64_t hi) {
  assert(zn_ex_at(p, sym)->op == ZN_EX_SYM);
  if (zn_ex_at(p, sym)->is_var || (zn_ex_at(p, sym)->lo == lo && zn_ex_at(p, sym)->hi == hi))
    return;
  p->nodes[sym].lo = lo;
  p->nodes[sym].hi = hi;
  for (zn_expr e = sym + 1; e < p->num; e++)
    set_interval(p, &p->nodes[e], p->ops ? p->ops + p->nodes[e].first : NULL);
  p->memo_size = p->memo_used = 0; /* later simplifications may use the new bounds */
}

void zn_ex_set_tag(zn_exprs *p, zn_expr sym, uint64_t tag) {
  assert(zn_ex_at(p, sym)->op == ZN_EX_SYM);
  p->nodes[sym].tag = tag;
}
uint32_t zn_ex_size(const zn_exprs *p, zn_expr e) {
  uint32_t n = 1;
  if (zn_ex_kind(p, e) == ZN_EX_CONST || zn_ex_kind(p, e) == ZN_EX_SYM) return n;
  for (uint32_t i = 0; i < zn_ex_arity(p, e) && n < 1000; i++)
    n += zn_ex_size(p, zn_ex_operand(p, e, i));
  return n;
}

zn_expr zn_ex_named(zn_exprs *p, zn_expr e, int64_t lo) {
  int64_t elo, ehi;
  if (zn_ex_kind(p, e) == ZN_EX_CONST || zn_ex_kind(p, e) == ZN_EX_SYM) return e;
  zn_ex_range(p, e, &elo, &ehi);
  char name[24];
  snprintf(name, sizeof name, "size_%u", e);
  zn_expr sym = zn_ex_sym(p, name, elo > lo ? elo : lo, ehi);
  p->nodes[sym].def = e;
  p->nodes[sym].syms |= zn_ex_at(p, e)->syms;
  return sym;
}

zn_expr zn_ex_def(const zn_exprs *p, zn_expr sym) { return zn_ex_at(p, sym)->def; }

zn_expr zn_ex_extent(const zn_exprs *p, zn_expr sym) { return zn_ex_at(p, sym)->extent; }

void zn_ex_set_extent(zn_exprs *p, zn_expr sym, zn_expr extent) {
  assert(zn_ex_at(p, sym)->op == ZN_EX_SYM);
  int64_t lo = zn_ex_at(p, sym)->lo, elo, ehi;
  zn_ex_range(p, extent, &elo, &ehi);
  zn_ex_set_range(p, sym, lo, ehi == INT64_MAX ? ehi : ehi - 1);
  p->nodes[sym].extent = extent;
  for (zn_expr e = sym; e < p->num; e++)
    p->nodes[e].bounded |= (p->nodes[e].syms & p->nodes[sym].syms) != 0;
}

uint64_t zn_ex_tag(const zn_exprs *p, zn_expr sym) { return zn_ex_at(p, sym)->tag; }

/* ---- memo of binary operations ---- */

static uint32_t memo_hash(uint32_t op, zn_expr a, zn_expr b) {
  uint64_t h = (((uint64_t)a << 32 | b) ^ (uint64_t)op << 60) * UINT64_C(0x9e3779b97f4a7c15);
  return (uint32_t)(h >> 32);
}

bool zn_ex_memo_get(const zn_exprs *p, zn_ex_op op, zn_expr a, zn_expr b, zn_expr *out) {
  if (!p->memo_size) return false;
  uint32_t mask = p->memo_size - 1, key = (uint32_t)op + 1;
  for (uint32_t i = memo_hash(key, a, b);; i++) {
    const zn_ex_memo *m = &p->memo[i & mask];
    if (!m->op) return false;
    if (m->op == key && m->a == a && m->b == b) {
      *out = m->r;
      return true;
    }
  }
}

void zn_ex_memo_put(zn_exprs *p, zn_ex_op op, zn_expr a, zn_expr b, zn_expr r) {
  if (p->memo_used * 2 >= p->memo_size) {
    zn_ex_memo *old = p->memo;
    uint32_t old_size = p->memo_size;
    p->memo_size = old_size ? old_size * 2 : 1024;
    p->memo = ZN_ARRAY(p->a, zn_ex_memo, p->memo_size);
    for (uint32_t j = 0; j < old_size; j++) {
      if (!old[j].op) continue;
      uint32_t i = memo_hash(old[j].op, old[j].a, old[j].b);
      while (p->memo[i & (p->memo_size - 1)].op) i++;
      p->memo[i & (p->memo_size - 1)] = old[j];
    }
  }
  uint32_t key = (uint32_t)op + 1, i = memo_hash(key, a, b);
  while (p->memo[i & (p->memo_size - 1)].op) i++;
  p->memo[i & (p->memo_size - 1)] = (zn_ex_memo){key, a, b, r};
  p->memo_used++;
}

/* ---- monomials ---- */

uint32_t zn_ex_factors(const zn_exprs *p, const zn_expr *mono, const zn_expr **out) {
  if (*mono == ZN_EX_ONE) return 0;
  const zn_ex_node *n = zn_ex_at(p, *mono);
  if (n->op != ZN_EX_MUL) {
    *out = mono;
    return 1;
  }
  *out = p->ops + n->first;
  return n->n;
}

enum { MAX_DEGREE = 64 };

static zn_expr mono_from(zn_exprs *p, const zn_expr *f, uint32_t n) {
  if (n == 0) return ZN_EX_ONE;
  if (n == 1) return f[0];
  return intern(p, (zn_ex_node){.op = ZN_EX_MUL, .n = n, .coef = 1}, f);
}

zn_expr zn_ex_mono_mul(zn_exprs *p, zn_expr a, zn_expr b) {
  if (a == ZN_EX_ONE) return b;
  if (b == ZN_EX_ONE) return a;
  const zn_expr *fa = NULL, *fb = NULL;
  uint32_t na = zn_ex_factors(p, &a, &fa), nb = zn_ex_factors(p, &b, &fb), i = 0, j = 0, n = 0;
  if (na + nb > MAX_DEGREE) return ZN_EX_OVERFLOW;
  zn_expr f[MAX_DEGREE];
  while (i < na || j < nb) f[n++] = j == nb || (i < na && fa[i] <= fb[j]) ? fa[i++] : fb[j++];
  return mono_from(p, f, n);
}

zn_expr zn_ex_mono_div(zn_exprs *p, zn_expr a, zn_expr b) {
  if (b == ZN_EX_ONE) return a;
  if (a == b) return ZN_EX_ONE;
  const zn_expr *fa = NULL, *fb = NULL;
  uint32_t na = zn_ex_factors(p, &a, &fa), nb = zn_ex_factors(p, &b, &fb), j = 0, n = 0;
  if (na <= nb) return 0;
  zn_expr f[MAX_DEGREE];
  for (uint32_t i = 0; i < na; i++) {
    if (j < nb && fa[i] == fb[j])
      j++;
    else
      f[n++] = fa[i];
  }
  return j == nb ? mono_from(p, f, n) : 0;
}

zn_expr zn_ex_mono_gcd(zn_exprs *p, zn_expr a, zn_expr b) {
  const zn_expr *fa = NULL, *fb = NULL;
  uint32_t na = zn_ex_factors(p, &a, &fa), nb = zn_ex_factors(p, &b, &fb), i = 0, j = 0, n = 0;
  zn_expr f[MAX_DEGREE];
  while (i < na && j < nb) {
    if (fa[i] == fb[j]) {
      f[n++] = fa[i++];
      j++;
    } else if (fa[i] < fb[j]) {
      i++;
    } else {
      j++;
    }
  }
  return mono_from(p, f, n);
}

zn_expr zn_ex_single(zn_exprs *p, int64_t k, zn_expr mono) {
  if (zn_ex_bad(mono)) return mono;
  if (k == 0) return ZN_EX_ZERO;
  if (mono == ZN_EX_ONE) return zn_ex_const(p, k);
  if (k == 1) return mono;
  zn_expr f[MAX_DEGREE + 1];
  const zn_expr *fm = NULL;
  f[0] = zn_ex_const(p, k);
  uint32_t n = zn_ex_factors(p, &mono, &fm);
  memcpy(f + 1, fm, n * sizeof *f);
  return intern(p, (zn_ex_node){.op = ZN_EX_MUL, .n = n + 1, .coef = k, .mono = mono}, f);
}

/* ---- polynomials ---- */

zn_ex_poly *zn_ex_poly_get(zn_exprs *p) {
  zn_ex_poly *q = p->free_polys;
  if (q)
    p->free_polys = q->next;
  else
    q = ZN_NEW(p->a, zn_ex_poly);
  q->n = 0;
  q->overflow = false;
  return q;
}

void zn_ex_poly_put(zn_exprs *p, zn_ex_poly *q) {
  q->next = p->free_polys;
  p->free_polys = q;
}

uint32_t zn_ex_num_terms(const zn_exprs *p, zn_expr e) {
  const zn_ex_node *n = zn_ex_at(p, e);
  return n->op == ZN_EX_ADD ? n->n : e == ZN_EX_ZERO ? 0 : 1;
}

zn_ex_term zn_ex_term_at(const zn_exprs *p, zn_expr e, uint32_t i) {
  const zn_ex_node *n = zn_ex_at(p, e);
  if (n->op == ZN_EX_ADD) n = zn_ex_at(p, p->ops[n->first + i]);
  return (zn_ex_term){n->coef, n->mono};
}

static uint32_t term_key(zn_expr m) { return m == ZN_EX_ONE ? UINT32_MAX : m; }

void zn_ex_poly_term(zn_exprs *p, zn_ex_poly *q, int64_t k, zn_expr mono) {
  if (mono == ZN_EX_OVERFLOW || q->n >= ZN_EX_MAX_TERMS) q->overflow = true;
  if (k == 0 || q->overflow) return;
  uint32_t lo = 0, hi = q->n, key = term_key(mono);
  while (lo < hi) {
    uint32_t mid = (lo + hi) / 2;
    if (term_key(q->t[mid].m) < key)
      lo = mid + 1;
    else
      hi = mid;
  }
  if (lo < q->n && q->t[lo].m == mono) {
    if (__builtin_add_overflow(q->t[lo].k, k, &q->t[lo].k)) q->overflow = true;
    if (q->t[lo].k == 0) {
      q->n--;
      memmove(q->t + lo, q->t + lo + 1, (q->n - lo) * sizeof *q->t);
    }
    return;
  }
  ZN_PUSH(p->a, q->t, q->n, q->cap, ((zn_ex_term){k, mono}));
  memmove(q->t + lo + 1, q->t + lo, (q->n - 1 - lo) * sizeof *q->t);
  q->t[lo] = (zn_ex_term){k, mono};
}

void zn_ex_poly_add(zn_exprs *p, zn_ex_poly *q, zn_expr e, int64_t scale) {
  if (zn_ex_bad(e)) {
    q->overflow = true;
    return;
  }
  uint32_t n = zn_ex_num_terms(p, e);
  for (uint32_t i = 0; i < n; i++) {
    zn_ex_term t = zn_ex_term_at(p, e, i);
    int64_t k;
    if (__builtin_mul_overflow(t.k, scale, &k)) q->overflow = true;
    zn_ex_poly_term(p, q, k, t.m);
  }
}

zn_expr zn_ex_poly_done(zn_exprs *p, zn_ex_poly *q) {
  uint32_t divmods = 0;
  for (uint32_t i = 0; i < q->n && !q->overflow; i++) divmods += zn_ex_at(p, q->t[i].m)->has_divmod;
  if (divmods && q->n > 1) zn_ex_pair_divmod(p, q);
  zn_expr r = ZN_EX_ZERO;
  if (q->overflow) {
    r = ZN_EX_OVERFLOW;
  } else if (q->n == 1) {
    r = zn_ex_single(p, q->t[0].k, q->t[0].m);
  } else if (q->n > 1) {
    zn_expr small[16], *ops = q->n <= 16 ? small : ZN_ARRAY(p->a, zn_expr, q->n);
    for (uint32_t i = 0; i < q->n; i++) ops[i] = zn_ex_single(p, q->t[i].k, q->t[i].m);
    r = intern(p, (zn_ex_node){.op = ZN_EX_ADD, .n = q->n}, ops);
  }
  zn_ex_poly_put(p, q);
  return r;
}

/* ---- arithmetic ---- */

static zn_expr add_scaled(zn_exprs *p, zn_expr a, zn_expr b, int64_t scale) {
  if (zn_ex_bad(a) || zn_ex_bad(b)) return zn_ex_worse(a, b);
  if (b == ZN_EX_ZERO) return a;
  if (a == ZN_EX_ZERO && scale == 1) return b;
  zn_ex_poly *q = zn_ex_poly_get(p);
  zn_ex_poly_add(p, q, a, 1);
  zn_ex_poly_add(p, q, b, scale);
  return zn_ex_poly_done(p, q);
}

zn_expr zn_ex_add(zn_exprs *p, zn_expr a, zn_expr b) { return add_scaled(p, a, b, 1); }
zn_expr zn_ex_sub(zn_exprs *p, zn_expr a, zn_expr b) {
  if (a == b && !zn_ex_bad(a)) return ZN_EX_ZERO;
  return add_scaled(p, a, b, -1);
}

zn_expr zn_ex_mul(zn_exprs *p, zn_expr a, zn_expr b) {
  if (zn_ex_bad(a) || zn_ex_bad(b)) return zn_ex_worse(a, b);
  if (a == ZN_EX_ONE) return b;
  if (b == ZN_EX_ONE) return a;
  uint32_t na = zn_ex_num_terms(p, a), nb = zn_ex_num_terms(p, b);
  if ((uint64_t)na * nb > ZN_EX_MAX_TERMS) return ZN_EX_OVERFLOW;
  zn_ex_poly *q = zn_ex_poly_get(p);
  for (uint32_t i = 0; i < na; i++) {
    for (uint32_t j = 0; j < nb; j++) {
      zn_ex_term s = zn_ex_term_at(p, a, i), t = zn_ex_term_at(p, b, j);
      int64_t k;
      if (__builtin_mul_overflow(s.k, t.k, &k)) q->overflow = true;
      zn_ex_poly_term(p, q, k, zn_ex_mono_mul(p, s.m, t.m));
    }
  }
  return zn_ex_poly_done(p, q);
}

zn_expr zn_ex_addi(zn_exprs *p, zn_expr a, int64_t b) { return zn_ex_add(p, a, zn_ex_const(p, b)); }
zn_expr zn_ex_muli(zn_exprs *p, zn_expr a, int64_t b) { return zn_ex_mul(p, a, zn_ex_const(p, b)); }
zn_expr zn_ex_divi(zn_exprs *p, zn_expr a, int64_t b) { return zn_ex_div(p, a, zn_ex_const(p, b)); }
zn_expr zn_ex_modi(zn_exprs *p, zn_expr a, int64_t b) { return zn_ex_mod(p, a, zn_ex_const(p, b)); }

/* ---- questions ---- */

bool zn_ex_is_const(const zn_exprs *p, zn_expr e, int64_t *out) {
  if (zn_ex_bad(e) || zn_ex_at(p, e)->op != ZN_EX_CONST) return false;
  if (out) *out = zn_ex_at(p, e)->coef;
  return true;
}

bool zn_ex_is(const zn_exprs *p, zn_expr e, int64_t v) {
  int64_t k;
  return zn_ex_is_const(p, e, &k) && k == v;
}

void zn_ex_range(const zn_exprs *p, zn_expr e, int64_t *lo, int64_t *hi) {
  *lo = zn_ex_at(p, e)->lo;
  *hi = zn_ex_at(p, e)->hi;
}

zn_ex_op zn_ex_kind(const zn_exprs *p, zn_expr e) { return (zn_ex_op)zn_ex_at(p, e)->op; }
uint32_t zn_ex_arity(const zn_exprs *p, zn_expr e) { return zn_ex_at(p, e)->n; }
zn_expr zn_ex_operand(const zn_exprs *p, zn_expr e, uint32_t i) {
  assert(i < zn_ex_at(p, e)->n);
  return p->ops[zn_ex_at(p, e)->first + i];
}
const char *zn_ex_name(const zn_exprs *p, zn_expr sym) { return zn_ex_at(p, sym)->name; }

/* ---- walks: results are kept per node for one stamp, so shared operands are visited once ---- */

static bool depends(const zn_exprs *p, zn_expr e, zn_expr sym, uint32_t stamp) {
  if (e == sym) return true;
  const zn_ex_node *n = zn_ex_at(p, e);
  if (n->def) return depends(p, n->def, sym, stamp);
  if (!n->n || !(n->syms & zn_ex_at(p, sym)->syms) || p->scratch[e].stamp == stamp) return false;
  p->scratch[e].stamp = stamp;
  for (uint32_t i = 0; i < n->n; i++)
    if (depends(p, p->ops[n->first + i], sym, stamp)) return true;
  return false;
}

bool zn_ex_depends(const zn_exprs *p, zn_expr e, zn_expr sym) {
  return depends(p, e, sym, ++*p->stamp);
}

typedef struct eval_job {
  const zn_exprs *p;
  bool (*sym)(void *user, zn_expr s, int64_t *out);
  void *user;
  uint32_t stamp;
} eval_job;

static bool eval_op(zn_ex_op op, int64_t a, int64_t b, int64_t *out) {
  switch (op) {
    case ZN_EX_ADD: return !__builtin_add_overflow(a, b, out);
    case ZN_EX_MUL: return !__builtin_mul_overflow(a, b, out);
    case ZN_EX_DIV:
      if (b == 0 || (a == INT64_MIN && b == -1)) return false;
      *out = zn_floordiv(a, b);
      return true;
    case ZN_EX_MOD:
      if (b == 0) return false;
      *out = b == -1 ? 0 : a % b;
      if (*out != 0 && (*out < 0) != (b < 0)) *out += b;
      return true;
    case ZN_EX_MIN: *out = min64(a, b); return true;
    case ZN_EX_MAX: *out = max64(a, b); return true;
    case ZN_EX_BCAST: *out = a == 1 ? b : a; return true;
    default: return false;
  }
}

static bool eval(const eval_job *j, zn_expr e, int64_t *out) {
  const zn_exprs *p = j->p;
  if (zn_ex_bad(e)) return false;
  const zn_ex_node *n = zn_ex_at(p, e);
  if (n->op == ZN_EX_CONST) {
    *out = n->coef;
    return true;
  }
  zn_ex_scratch *s = &p->scratch[e];
  if (s->stamp == j->stamp) {
    *out = s->v;
    return s->state == 1;
  }
  int64_t v = 0, b;
  bool ok = n->op == ZN_EX_SYM ? j->sym(j->user, e, &v) : eval(j, p->ops[n->first], &v);
  for (uint32_t i = 1; ok && i < n->n; i++)
    ok = eval(j, p->ops[n->first + i], &b) && eval_op((zn_ex_op)n->op, v, b, &v);
  *s = (zn_ex_scratch){j->stamp, ok ? 1 : 2, v};
  *out = v;
  return ok;
}

bool zn_ex_eval(const zn_exprs *p, zn_expr e, bool (*sym)(void *user, zn_expr s, int64_t *out),
                void *user, int64_t *out) {
  eval_job j = {p, sym, user, ++*p->stamp};
  int64_t v;
  if (!eval(&j, e, &v)) return false;
  *out = v;
  return true;
}

typedef struct subst_job {
  zn_exprs *p;
  const zn_expr *from, *to;
  uint32_t n;
  uint64_t mask;
  uint32_t stamp;
} subst_job;

static zn_expr apply(zn_exprs *p, zn_ex_op op, zn_expr a, zn_expr b) {
  switch (op) {
    case ZN_EX_ADD: return zn_ex_add(p, a, b);
    case ZN_EX_MUL: return zn_ex_mul(p, a, b);
    case ZN_EX_DIV: return zn_ex_div(p, a, b);
    case ZN_EX_MOD: return zn_ex_mod(p, a, b);
    case ZN_EX_MIN: return zn_ex_min(p, a, b);
    case ZN_EX_MAX: return zn_ex_max(p, a, b);
    case ZN_EX_BCAST: return zn_ex_bcast(p, a, b);
    default: assert(false && "binary operation"); return ZN_EX_NONE;
  }
}

static zn_expr subst(const subst_job *j, zn_expr e) {
  zn_exprs *p = j->p;
  if (!(zn_ex_at(p, e)->syms & j->mask)) return e;
  if (zn_ex_at(p, e)->op == ZN_EX_SYM) {
    for (uint32_t i = 0; i < j->n; i++)
      if (j->from[i] == e) return j->to[i];
    return e;
  }
  if (p->scratch[e].stamp == j->stamp) return (zn_expr)p->scratch[e].v;
  uint32_t n = zn_ex_at(p, e)->n, first = zn_ex_at(p, e)->first;
  zn_ex_op op = (zn_ex_op)zn_ex_at(p, e)->op;
  bool same = true;
  zn_expr small[16], *ops = n <= 16 ? small : ZN_ARRAY(p->a, zn_expr, n);
  for (uint32_t i = 0; i < n; i++) {
    ops[i] = subst(j, p->ops[first + i]);
    same &= ops[i] == p->ops[first + i];
  }
  zn_expr r = same ? e : ops[0];
  for (uint32_t i = 1; i < n && !same; i++) r = apply(p, op, r, ops[i]);
  p->scratch[e] = (zn_ex_scratch){j->stamp, 1, r};
  return r;
}

zn_expr zn_ex_subst(zn_exprs *p, zn_expr e, const zn_expr *from, const zn_expr *to, uint32_t n) {
  subst_job j = {p, from, to, n, 0, ++*p->stamp};
  for (uint32_t i = 0; i < n; i++) {
    assert(zn_ex_at(p, from[i])->op == ZN_EX_SYM);
    j.mask |= zn_ex_at(p, from[i])->syms;
  }
  return subst(&j, e);
}
