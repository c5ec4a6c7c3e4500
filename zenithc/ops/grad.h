/* Gradient (ai.onnx.preview.training): reverse-mode differentiation of a graph. Gradient names tensors, so it is written out as
 * soon as a graph is read, before any pass renames or rewrites them. What a derivative is comes from two tables: elementwise
 * operators are differentiated through their formulas (scalar.def, grad_scalar.c), others have a rule in grad.def; composite
 * operators without a rule are differentiated through their expansion. Where y is a tensor, the gradient is that of the sum of
 * its elements. At a kink the result is a subgradient: Relu has 0 at 0, Min, Max and Clip share between equal operands. */
#ifndef ZN_GRAD_H
#define ZN_GRAD_H
#include "zenithc/ops/expand_util.h"

/* Replaces the Gradient nodes of g, which must not have been rewritten, and of its bodies. Reports every operator on the way
 * that has no derivative. Does nothing, not even inference, where there are none. */
zn_status zn_grad_resolve(zn_ctx *c, zn_graph *g);

/* ---- for rules ---- */
typedef struct zn_grad {
  zn_rw w;       /* places nodes before the Gradient node */
  zn_nid n;      /* the node whose inputs are to get their adjoints */
  zn_vid *adj;   /* per value: sum of its adjoints so far, 0 = none */
  bool *varies;  /* per value: depends on a variable, and is no integer */
  uint32_t cap;
  const char *y; /* for messages */
  bool failed;   /* an operator was reported */
} zn_grad;
typedef void (*zn_grad_rule)(zn_grad *a);

static inline const zn_node *zn_grad_node(const zn_grad *a) { return &a->w.g->nodes[a->n]; }
static inline zn_vid zn_grad_in(const zn_grad *a, uint32_t i) { return zn_node_in(zn_grad_node(a), i); }
static inline zn_vid zn_grad_out(const zn_grad *a, uint32_t o) {
  return o < zn_grad_node(a)->num_out ? zn_grad_node(a)->out[o] : 0;
}
static inline const zn_type *zn_grad_type(const zn_grad *a, zn_vid v) { return &a->w.g->vals[v].type; }
zn_vid zn_grad_of(const zn_grad *a, uint32_t o); /* adjoint of output o, 0 = none */
bool zn_grad_wants(const zn_grad *a, uint32_t i); /* does input i need one? */
/* Adds v to the adjoint of input i: of its shape, or of a shape that it was broadcast to. */
void zn_grad_give(zn_grad *a, uint32_t i, zn_vid v);
/* The form or size at hand has no derivative here. */
void zn_grad_refuse(zn_grad *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* v summed over the axes along which `like` was broadcast to its shape. */
zn_vid zn_grad_sum_to(zn_grad *a, zn_vid v, zn_vid like);
zn_vid zn_grad_expand_to(zn_grad *a, zn_vid v, zn_vid like); /* v broadcast to the shape of `like` */
zn_vid zn_grad_shaped(zn_grad *a, zn_vid v, zn_vid like);    /* v reshaped to the shape of `like` */
zn_vid zn_grad_zeros(zn_grad *a, zn_vid like);
/* Differentiates a copy of the node that `expand` writes out. */
void zn_grad_through(zn_grad *a, zn_status (*expand)(zn_ctx *c, zn_graph *g, zn_nid n));
/* The rule of elementwise operators: through the formula in scalar.def. */
void zn_grad_scalar(zn_grad *a);
#define GRAD(op, rule) void zn_grad_##rule(zn_grad *a);
#include "zenithc/ops/grad.def"
#undef GRAD
#endif
