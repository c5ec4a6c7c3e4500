/* Inside the expression pool: what expr.c, expr_div.c, expr_prove.c and expr_text.c share. Nobody
 * else includes this. A polynomial under construction is a list of (coefficient, unit monomial)
 * sorted by monomial id, the constant last; a unit monomial is ONE, an atom, or a MUL node without
 * coefficient. */
#ifndef ZN_EXPR_IMPL_H
#define ZN_EXPR_IMPL_H
#include "zenithc/base/expr.h"

enum { ZN_EX_ZERO = 2, ZN_EX_ONE = 3, ZN_EX_MAX_TERMS = 2048 };

typedef struct zn_ex_node {
  uint8_t op;       /* zn_ex_op */
  bool is_var;      /* SYM from zn_ex_var */
  bool bounded;     /* the prover can use more than the interval: some atom has a symbolic bound */
  bool has_divmod;  /* a single-term node with a DIV or MOD atom among its factors */
  uint32_t n, first;/* operands */
  int64_t coef;     /* single-term nodes: coef * mono; CONST: the value, mono ONE. mono 0 for ADD */
  zn_expr mono;
  int64_t lo, hi;   /* interval; INT64_MIN and INT64_MAX are infinite */
  uint64_t syms;    /* Bloom mask of the symbols inside */
  const char *name; /* SYM */
  zn_expr extent;   /* SYM from zn_ex_var */
  zn_expr def;      /* SYM from zn_ex_named: what it stands for */
  uint64_t tag;
} zn_ex_node;

typedef struct zn_ex_term {
  int64_t k;
  zn_expr m;
} zn_ex_term;

typedef struct zn_ex_poly {
  zn_ex_term *t;
  uint32_t n, cap;
  bool overflow;
  struct zn_ex_poly *next; /* free list */
} zn_ex_poly;

typedef struct zn_ex_slot {
  uint32_t hash;
  zn_expr e; /* 0 empty */
} zn_ex_slot;

typedef struct zn_ex_memo {
  uint32_t op; /* zn_ex_op + 1; 0 empty */
  zn_expr a, b, r;
} zn_ex_memo;

typedef struct zn_ex_scratch { /* per node, valid when stamp matches: eval, subst, depends */
  uint32_t stamp;
  uint32_t state;
  int64_t v;
} zn_ex_scratch;

struct zn_exprs {
  zn_arena *a;
  zn_ex_node *nodes;
  uint32_t num, cap;
  zn_expr *ops;
  uint32_t num_ops, cap_ops;
  zn_ex_slot *table; /* hash-consing */
  uint32_t table_size;
  zn_ex_memo *memo;
  uint32_t memo_size, memo_used;
  zn_ex_poly *free_polys;
  zn_ex_scratch *scratch; /* cap entries */
  uint32_t *stamp;
  bool total_division; /* x // 0 = x % 0 = 0 */
  uint32_t depth; /* nested simplification; bounds the work on hostile input */
  uint32_t proofs, proof_steps; /* proofs under way, and the steps that are left for all of them */
};

static inline const zn_ex_node *zn_ex_at(const zn_exprs *p, zn_expr e) { return &p->nodes[e]; }
static inline bool zn_ex_bad(zn_expr a) { return a <= ZN_EX_OVERFLOW; }
static inline zn_expr zn_ex_worse(zn_expr a, zn_expr b) {
  return a == ZN_EX_OVERFLOW || b == ZN_EX_OVERFLOW ? ZN_EX_OVERFLOW : ZN_EX_NONE;
}
static inline int64_t zn_floordiv(int64_t a, int64_t b) { /* not for INT64_MIN / -1 */
  int64_t q = a / b;
  return q - (a % b != 0 && (a < 0) != (b < 0));
}

/* An opaque node of two operands, hash-consed, with its interval. */
zn_expr zn_ex_opaque(zn_exprs *p, zn_ex_op op, zn_expr a, zn_expr b);
bool zn_ex_memo_get(const zn_exprs *p, zn_ex_op op, zn_expr a, zn_expr b, zn_expr *out);
void zn_ex_memo_put(zn_exprs *p, zn_ex_op op, zn_expr a, zn_expr b, zn_expr r);

zn_ex_poly *zn_ex_poly_get(zn_exprs *p);
void zn_ex_poly_put(zn_exprs *p, zn_ex_poly *q);
/* q += scale * e */
void zn_ex_poly_add(zn_exprs *p, zn_ex_poly *q, zn_expr e, int64_t scale);
void zn_ex_poly_term(zn_exprs *p, zn_ex_poly *q, int64_t k, zn_expr mono);
/* The node of q, which goes back to the free list. */
zn_expr zn_ex_poly_done(zn_exprs *p, zn_ex_poly *q);
zn_expr zn_ex_single(zn_exprs *p, int64_t k, zn_expr mono); /* k * mono */

/* Factors of a unit monomial: pointer is valid until the next node is made. */
uint32_t zn_ex_factors(const zn_exprs *p, const zn_expr *mono, const zn_expr **out);
zn_expr zn_ex_mono_mul(zn_exprs *p, zn_expr a, zn_expr b);
/* a / b when b divides a, else 0. */
zn_expr zn_ex_mono_div(zn_exprs *p, zn_expr a, zn_expr b);
zn_expr zn_ex_mono_gcd(zn_exprs *p, zn_expr a, zn_expr b);
/* Terms of any expression: term i of e as coefficient and unit monomial. */
uint32_t zn_ex_num_terms(const zn_exprs *p, zn_expr e);
zn_ex_term zn_ex_term_at(const zn_exprs *p, zn_expr e, uint32_t i);

/* e >= 0, provably. */
bool zn_ex_nonneg(zn_exprs *p, zn_expr e, unsigned depth);
/* Proofs between begin and end, and those within others, share one allowance of steps: what hostile input can cost. */
void zn_ex_prove_begin(zn_exprs *p);
void zn_ex_prove_end(zn_exprs *p);
/* e = coef * atom + rest, only the top-level occurrences of the atom; false when it occurs squared.
 */
bool zn_ex_split_atom(zn_exprs *p, zn_expr e, zn_expr atom, zn_expr *coef, zn_expr *rest);
/* Sums with DIV or MOD atoms: a*(x//a) + x%a becomes x, x - a*(x//a) becomes x%a. */
void zn_ex_pair_divmod(zn_exprs *p, zn_ex_poly *q);
#endif
