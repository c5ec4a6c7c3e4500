/* What expand_*.c share: a builder that places nodes before the one being rewritten and infers each
 * at once. Errors are sticky: after a failure every call returns 0, and zn_rw_done reports it. */
#ifndef ZN_EXPAND_UTIL_H
#define ZN_EXPAND_UTIL_H
#include "zenithc/ops/op.h"

typedef struct zn_rw {
  zn_ctx *c;
  zn_graph *g;
  zn_nid at;
  zn_status st;
} zn_rw;

/* ZN_EXPAND(name) { ... body with `zn_rw *w` ... } defines zn_expand_<name>. */
#define ZN_EXPAND(name)                                                                            \
  static zn_status expand_##name(zn_rw *w);                                                        \
  zn_status zn_expand_##name(zn_ctx *c, zn_graph *g, zn_nid n);                                    \
  zn_status zn_expand_##name(zn_ctx *c, zn_graph *g, zn_nid n) {                                   \
    zn_rw w = {c, g, n, ZN_OK};                                                                    \
    return expand_##name(&w);                                                                      \
  }                                                                                                \
  static zn_status expand_##name(zn_rw *w)

/* The node being rewritten: fetch again after building, additions move the array. */
static inline const zn_node *zn_rw_node(const zn_rw *w) { return &w->g->nodes[w->at]; }
static inline zn_vid zn_rw_in(const zn_rw *w, uint32_t i) { return zn_node_in(zn_rw_node(w), i); }
bool zn_rw_wants(const zn_rw *w, uint32_t o); /* output o is present */
const zn_type *zn_rw_type(const zn_rw *w, zn_vid v);

/* A node without attributes; its first output. */
zn_vid zn_rw_op(zn_rw *w, zn_op op, const zn_vid *in, uint32_t n);
zn_vid zn_rw1(zn_rw *w, zn_op op, zn_vid a);
zn_vid zn_rw2(zn_rw *w, zn_op op, zn_vid a, zn_vid b);
zn_vid zn_rw3(zn_rw *w, zn_op op, zn_vid a, zn_vid b, zn_vid c);
/* A node whose attributes are still to be set: infer it with zn_rw_infer afterwards. */
zn_nid zn_rw_raw(zn_rw *w, zn_op op, const zn_vid *in, uint32_t n, uint32_t num_out);
zn_vid zn_rw_infer(zn_rw *w, zn_nid n); /* first output */
zn_vid zn_rw_attr_int(zn_rw *w, zn_op op, const zn_vid *in, uint32_t n, const char *name,
                      int64_t v);
/* ReduceX over constant axes. */
zn_vid zn_rw_reduce(zn_rw *w, zn_op op, zn_vid x, const int64_t *axes, uint32_t n, bool keep);
zn_vid zn_rw_transpose(zn_rw *w, zn_vid x, const int64_t *perm, uint32_t n);
zn_vid zn_rw_cast(zn_rw *w, zn_vid x, zn_dtype t); /* x itself when it has type t */
/* The type that a composite operator computes in when its tensors have type t: one rounding at the end, as reductions
 * and normalisations of the half types promise; squares of f16 numbers leave their range early. */
static inline zn_dtype zn_rw_wide(zn_dtype t) { return t == ZN_F16 || t == ZN_BF16 ? ZN_F32 : t; }
zn_vid zn_rw_ints(zn_rw *w, const int64_t *v, uint32_t n);
zn_vid zn_rw_num(zn_rw *w, zn_dtype t, double v); /* rank 0 */
zn_vid zn_rw_reshape_to(zn_rw *w, zn_vid x, const int64_t *dims,
                        uint32_t n); /* with 0 and -1 as Reshape has them */
zn_vid zn_rw_squeeze(zn_rw *w, zn_vid x, const int64_t *axes, uint32_t n);
zn_vid zn_rw_unsqueeze(zn_rw *w, zn_vid x, const int64_t *axes, uint32_t n);
/* x[lo:hi] along one axis with constant bounds. */
zn_vid zn_rw_slice(zn_rw *w, zn_vid x, int64_t axis, int64_t lo, int64_t hi);
/* One extent of x, as a scalar or as a vector of one element (i64). */
zn_vid zn_rw_extent(zn_rw *w, zn_vid x, int axis);
zn_vid zn_rw_extent1(zn_rw *w, zn_vid x, int axis);
/* Keys or values [batch, heads, sequence, size] for the query heads of q: each head serves a group of them, in a row. */
zn_vid zn_rw_repeat_heads(zn_rw *w, zn_vid x, zn_vid q);
/* Can the heads of q be shared out among those of k, as far as is known? */
bool zn_rw_heads_divide(const zn_rw *w, zn_vid q, zn_vid k);
/* Reshape to symbolic dims. Uses constants, copies (0) and one -1 where that says it; otherwise the
 * dims are computed from those of x and `like` (a value whose dims hold the needed symbols; may be
 * 0). Returns 0 without an error when impossible. */
zn_vid zn_rw_reshape(zn_rw *w, zn_vid x, const zn_expr *dims, int rank, zn_vid like);
/* Entries for Reshape that say dims given the input's dims; false when they cannot. */
bool zn_rw_target(const zn_exprs *ex, const zn_type *in, const zn_expr *dims, int rank,
                  int64_t *out);
/* Places copies of the nodes of a body graph; in: its inputs' values (num_inputs), out: room for its outputs' values. The
 * body's own bodies are shared with the copies: inline a body once, and drop it. */
void zn_rw_inline(zn_rw *w, zn_graph *body, const zn_vid *in, zn_vid *out);
/* Replaces output o of the node by v, casting nothing: types must agree. */
void zn_rw_output(zn_rw *w, uint32_t o, zn_vid v);
/* Kills the node; the sticky status. */
zn_status zn_rw_done(zn_rw *w);
#endif
