/* Integer expressions: dimensions of tensors, elements of shape tensors, and index maps of kernels.
 * One hash-consed pool; equal canonical forms have equal ids, so == on ids is equality of expressions.
 * Canonical form: a sum of coefficient * product of atoms (polynomial, terms sorted by creation order of atoms);
 * atoms are symbols and the opaque operators floordiv, mod, min, max, bcast. Division and modulo are *floor*.
 * Simplification uses ranges: a symbol has constant bounds and may have a symbolic upper bound (loop variables):
 * (8*i + j) // 8 = i and (8*i + j) % 8 = j when 0 <= j < 8; (i*N + j) // N = i when j < N; a*(x//a) + x%a = x.
 * Arithmetic is checked: overflow past int64 yields the sticky id ZN_EX_OVERFLOW, never a wrapped value. */
#ifndef ZN_EXPR_H
#define ZN_EXPR_H
#include "zenithc/base/text.h"

typedef uint32_t zn_expr; /* 0: none / unknown */
enum { ZN_EX_NONE = 0, ZN_EX_OVERFLOW = 1 };

typedef enum zn_ex_op { /* shape of the canonical node, for walkers (code generation, printing) */
  ZN_EX_CONST, ZN_EX_SYM, ZN_EX_ADD, ZN_EX_MUL, ZN_EX_DIV, ZN_EX_MOD, ZN_EX_MIN, ZN_EX_MAX, ZN_EX_BCAST
} zn_ex_op;

typedef struct zn_exprs zn_exprs;
zn_exprs *zn_exprs_new(zn_arena *a);

zn_expr zn_ex_const(zn_exprs *p, int64_t v);
/* A named symbol with inclusive constant bounds; the same name gives the same id (bounds of the first call hold;
 * zn_ex_set_range changes them). Dimension symbols: lo 0 or 1, hi INT64_MAX when unbounded. */
zn_expr zn_ex_sym(zn_exprs *p, const char *name, int64_t lo, int64_t hi);
/* A fresh loop variable, 0 <= v < extent (extent any expression). Never merged with another. `tag` is free for the
 * caller (e.g. the kernel value that holds it). */
zn_expr zn_ex_var(zn_exprs *p, const char *name, zn_expr extent);
void zn_ex_set_range(zn_exprs *p, zn_expr sym, int64_t lo, int64_t hi);
void zn_ex_set_tag(zn_exprs *p, zn_expr sym, uint64_t tag);
uint64_t zn_ex_tag(const zn_exprs *p, zn_expr sym);
/* The symbolic extent of a symbol (0 <= sym < extent), or ZN_EX_NONE; data-dependent sizes carry their bound this way. */
zn_expr zn_ex_extent(const zn_exprs *p, zn_expr sym);
void zn_ex_set_extent(zn_exprs *p, zn_expr sym, zn_expr extent);

/* A symbol that stands for e (opaque to simplification, so that large shape formulas do not multiply through index maps);
 * at least lo. The same e gives the same symbol, called size_<id>. */
zn_expr zn_ex_named(zn_exprs *p, zn_expr e, int64_t lo);
zn_expr zn_ex_def(const zn_exprs *p, zn_expr sym); /* what a named symbol stands for, else ZN_EX_NONE */
uint32_t zn_ex_size(const zn_exprs *p, zn_expr e); /* nodes of e written out, at most about 1000 */

zn_expr zn_ex_add(zn_exprs *p, zn_expr a, zn_expr b);
zn_expr zn_ex_sub(zn_exprs *p, zn_expr a, zn_expr b);
zn_expr zn_ex_mul(zn_exprs *p, zn_expr a, zn_expr b);
zn_expr zn_ex_div(zn_exprs *p, zn_expr a, zn_expr b); /* floor; b == const 0 gives ZN_EX_NONE */
zn_expr zn_ex_mod(zn_exprs *p, zn_expr a, zn_expr b); /* a - b*floor(a/b) */
zn_expr zn_ex_ceildiv(zn_exprs *p, zn_expr a, zn_expr b);
zn_expr zn_ex_min(zn_exprs *p, zn_expr a, zn_expr b);
zn_expr zn_ex_max(zn_exprs *p, zn_expr a, zn_expr b);
zn_expr zn_ex_bcast(zn_exprs *p, zn_expr a, zn_expr b); /* a == 1 ? b : a  (numpy broadcast of two dims) */
zn_expr zn_ex_addi(zn_exprs *p, zn_expr a, int64_t b);
zn_expr zn_ex_muli(zn_exprs *p, zn_expr a, int64_t b);
zn_expr zn_ex_divi(zn_exprs *p, zn_expr a, int64_t b);
zn_expr zn_ex_modi(zn_exprs *p, zn_expr a, int64_t b);

bool zn_ex_is_const(const zn_exprs *p, zn_expr e, int64_t *out); /* out may be NULL */
bool zn_ex_is(const zn_exprs *p, zn_expr e, int64_t v);
/* Sound inclusive bounds; INT64_MIN / INT64_MAX when unbounded. */
void zn_ex_range(const zn_exprs *p, zn_expr e, int64_t *lo, int64_t *hi);
/* True only when provable: a < b, a <= b (uses symbolic extents of loop variables). */
bool zn_ex_lt(zn_exprs *p, zn_expr a, zn_expr b);
bool zn_ex_le(zn_exprs *p, zn_expr a, zn_expr b);
/* e = coef * v + rest with v not in rest; false when e is not linear in v. */
bool zn_ex_linear(zn_exprs *p, zn_expr e, zn_expr v, zn_expr *out_coef, zn_expr *out_rest);
bool zn_ex_depends(const zn_exprs *p, zn_expr e, zn_expr sym);
/* Replace symbols from[i] by to[i] simultaneously. */
zn_expr zn_ex_subst(zn_exprs *p, zn_expr e, const zn_expr *from, const zn_expr *to, uint32_t n);
/* From now on x // 0 = x % 0 = 0 instead of ZN_EX_NONE: in index maps over empty tensors, whose loops have no iterations. */
void zn_ex_divide_totally(zn_exprs *p);
/* Value with symbols given by the callback (returns false: unknown symbol). False on unknown, overflow or /0. */
bool zn_ex_eval(const zn_exprs *p, zn_expr e, bool (*sym)(void *user, zn_expr s, int64_t *out), void *user,
                int64_t *out);

/* Walking. ADD: terms, MUL: factors (first may be a CONST coefficient), others: 2 operands. */
zn_ex_op zn_ex_kind(const zn_exprs *p, zn_expr e);
uint32_t zn_ex_arity(const zn_exprs *p, zn_expr e);
zn_expr zn_ex_operand(const zn_exprs *p, zn_expr e, uint32_t i);
const char *zn_ex_name(const zn_exprs *p, zn_expr sym);

/* Text: "8*batch + 1", "(n + 3)//2", "n % 4", "min(a, b, c)", "max(a, b)", "bcast(a, b)", "?" for ZN_EX_NONE.
 * Symbol names that are not identifiers are quoted: !"unk 12". Canonical, and parse(print(e)) == e. */
void zn_ex_print(const zn_exprs *p, zn_expr e, zn_text *t);
zn_status zn_ex_parse(zn_exprs *p, zn_lexer *l, zn_expr *out);
#endif
