/* What infer_*.c share. An inference function sets rank and dims of the outputs; dtypes that the
 * schema's type variables determine are set before it runs (zn_infer_node), and the results are
 * checked after it. An output left at rank -1 is of unknown rank. Nothing here adds nodes or
 * values, so pointers stay valid inside one inference function.
 *
 * Contents (zn_value.elems): an entry may be ZN_EX_NONE (unknown). A symbol named "<value>[i]"
 * stands for the value's own content and is made when a shape depends on it: such a value must be
 * computed to know the symbol. */
#ifndef ZN_INFER_UTIL_H
#define ZN_INFER_UTIL_H
#include "zenithc/ops/op.h"

typedef struct zn_inf {
  zn_ctx *c;
  zn_graph *g;
  zn_exprs *ex;
  zn_nid n;
  const zn_node *nd;
} zn_inf;

/* ZN_INFER(name) { ... body with `zn_inf *f` ... } defines zn_infer_<name>. */
#define ZN_INFER(name)                                                                             \
  static zn_status infer_##name(zn_inf *f);                                                        \
  zn_status zn_infer_##name(zn_ctx *c, zn_graph *g, zn_nid n);                                     \
  zn_status zn_infer_##name(zn_ctx *c, zn_graph *g, zn_nid n) {                                    \
    zn_inf f = {c, g, g->ex, n, &g->nodes[n]};                                                     \
    return infer_##name(&f);                                                                       \
  }                                                                                                \
  static zn_status infer_##name(zn_inf *f)

const zn_type *zn_inf_in(const zn_inf *f, uint32_t i); /* NULL when absent */
zn_type *zn_inf_out(const zn_inf *f, uint32_t i);      /* NULL when absent */
bool zn_inf_known(const zn_inf *f, uint32_t i);        /* present with known rank */
/* Diagnostic naming the node. */
/* Input 1 must hold numbers, because `what` (an operator, a reduction) computes: strings and complex numbers are only moved. */
zn_status zn_inf_numbers(const zn_inf *f, const char *what);
zn_status zn_inf_err(const zn_inf *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "input 2 'W' has rank 3, expected 4" unless the rank is unknown. */
zn_status zn_inf_want_rank(const zn_inf *f, uint32_t i, int rank);
zn_status zn_inf_min_rank(const zn_inf *f, uint32_t i, int rank);

static inline zn_expr zn_inf_k(const zn_inf *f, int64_t v) { return zn_ex_const(f->ex, v); }
/* No-ops when the output is absent. */
void zn_inf_shape(const zn_inf *f, uint32_t o, int rank, const zn_expr *dims);
void zn_inf_same(const zn_inf *f, uint32_t o, uint32_t i);
void zn_inf_dtype(const zn_inf *f, uint32_t o, zn_dtype t);
/* Unknown dimension d of output o: a symbol in [lo, upper bound of `bound`] (bound ZN_EX_NONE:
 * unbounded); the same one on every run of the inference. */
zn_expr zn_inf_fresh(const zn_inf *f, uint32_t o, uint32_t d, int64_t lo, zn_expr bound);
/* Unknown dimension d of output o is floor(by * element elem of float input i); by NONE: 1. */
zn_expr zn_inf_scaled(const zn_inf *f, uint32_t o, uint32_t d, uint32_t i, uint32_t elem, zn_expr by);
/* Records that symbol sym never exceeds `bound` (no-op for NONE, other expressions, and bounds that mention sym). */
void zn_inf_limit(zn_exprs *ex, zn_expr sym, zn_expr bound);
/* The same for any value of any graph. */
zn_expr zn_inf_fresh_of(zn_graph *g, zn_vid v, uint32_t d, int64_t lo, int64_t hi);
/* The content of scalar v becomes a symbol, at least lo. Returns it. */
zn_expr zn_inf_name_scalar(zn_graph *g, zn_vid v, int64_t lo);
/* Does e use a symbol that was made inside body graph `body` (or a body of it)? Such symbols mean
 * nothing outside. */
bool zn_inf_is_local(const zn_graph *body, zn_expr e);
/* All dims of output o fresh. */
void zn_inf_unknown(const zn_inf *f, uint32_t o, int rank);
/* The dim is the constant v or may be at run time; a provable clash is an error. */
zn_status zn_inf_same_dim(const zn_inf *f, zn_expr a, zn_expr b, const char *what);
zn_status zn_inf_axis(const zn_inf *f, int64_t axis, int rank, int *out);
/* Sorted axes as a mask from an int64 list; duplicates are errors. */
zn_status zn_inf_axes(const zn_inf *f, const int64_t *axes, uint32_t n, int rank, bool *mask);
zn_status zn_inf_bcast(const zn_inf *f, zn_expr a, zn_expr b, zn_expr *out);
/* numpy broadcast of whole shapes, in place into *rank, dims. */
zn_status zn_inf_bcast_shape(const zn_inf *f, int *rank, zn_expr *dims, int rank_b,
                             const zn_expr *b);

/* Contents of input i, or NULL when nothing is known; entries may be ZN_EX_NONE. */
const zn_expr *zn_inf_elems(const zn_inf *f, uint32_t i, uint32_t *out_n);
/* The same with symbols for unknown entries; NULL only when the count is unknown or exceeds
 * ZN_MAX_ELEMS. */
const zn_expr *zn_inf_need(const zn_inf *f, uint32_t i, uint32_t *out_n);
bool zn_inf_i64s(const zn_inf *f, uint32_t i, int64_t *out, uint32_t max, uint32_t *out_n);
/* Gives output o room for n entries (all unknown); NULL when o is absent, not integer/bool, or n is
 * too many. */
zn_expr *zn_inf_set_elems(const zn_inf *f, uint32_t o, uint32_t n);
/* Static element count of a type; false when unknown or above max. */
bool zn_inf_count(const zn_inf *f, const zn_type *t, uint32_t max, uint32_t *out);
/* out's contents = in's, permuted: src[k] is the source index of element k (count n). */
void zn_inf_take(const zn_inf *f, uint32_t o, uint32_t i, const uint32_t *src, uint32_t n);
/* Pass the contents through unchanged. */
void zn_inf_copy_elems(const zn_inf *f, uint32_t o, uint32_t i);
/* Lower bound known to be at least v. */
bool zn_inf_ge(const zn_inf *f, zn_expr e, int64_t v);

/* infer_window.c: spatial output dims of convolution and pooling; all arrays have `n` entries. */
typedef struct zn_inf_win {
  int n;
  zn_expr kernel[ZN_MAX_RANK];
  int64_t stride[ZN_MAX_RANK], dilation[ZN_MAX_RANK], pad_lo[ZN_MAX_RANK], pad_hi[ZN_MAX_RANK];
  bool same_upper, same_lower, valid, ceil_mode;
} zn_inf_win;
zn_status zn_inf_window_attrs(const zn_inf *f, int n, zn_inf_win *w);
zn_expr zn_inf_window_dim(const zn_inf *f, const zn_inf_win *w, int d, zn_expr in);
#endif
