/* The reference evaluator: one obvious implementation per operator, in double precision, sharing no
 * code with the lowering. It is the specification that every artifact is checked against.
 *
 * Values. A float tensor is held as doubles, integers and bool as int64 (u64 keeps its bits),
 * complex as pairs of doubles. Shapes come from the data at run time, never from inference.
 *
 * Precision. ZN_EVAL_F64: f16, bf16 and f32 tensors keep double precision between operators; only
 * the explicit rounding operators (Cast to a narrower type, QuantizeLinear, ...) round. Decisions
 * (comparisons, Floor, Ceil, Round, float to integer, ArgMax, TopK) are taken on operands rounded
 * to their declared dtype, as every implementation must: otherwise 10 * 0.7f would floor to 6. The
 * F32 modes round every arithmetic result to float, and to the tensor's dtype at each node output,
 * and add up sums front to back, back to front, or in 8 interleaved partial sums; their distance
 * from F64 is the model's noise floor (metric.h). f64 tensors are computed in double in every mode.
 * ZN_EVAL_F32_RANDOM + k, k < ZN_EVAL_RANDOM_RUNS, adds from another place on, products without a
 * rounding of their own, and rounds what is inexact up or down at random (by a hash of the number
 * and k, so a run can be repeated): stochastic arithmetic (Vignes, "Discrete stochastic
 * arithmetic", 2004). It shows what the three orders cannot: the noise of functions and of 16-bit
 * tensors, which every order rounds alike.
 *
 * Randomness: operators without a seed attribute draw from a stream seeded by the node's name;
 * results are the same on every run. */
#ifndef ZN_EVAL_H
#define ZN_EVAL_H
#include "zenithc/graph/graph.h"

typedef enum zn_eval_mode {
  ZN_EVAL_F64,
  ZN_EVAL_F32_SEQ,
  ZN_EVAL_F32_REV,
  ZN_EVAL_F32_BLOCK8,
  ZN_EVAL_F32_RANDOM,
  ZN_EVAL_RANDOM_RUNS = 8
} zn_eval_mode;

typedef struct zn_eval_buf zn_eval_buf;

typedef struct zn_eval_val {
  bool set;      /* false: an absent optional value */
  uint8_t kind;  /* zn_vkind */
  uint8_t dtype; /* zn_dtype of the elements (sequences: of the tensors, when known) */
  uint32_t rank; /* tensors */
  int64_t dims[ZN_MAX_RANK];
  uint64_t count; /* tensor elements; items of a sequence; 0 or 1 for an optional; 2 for a map */
  union {
    void *p;
    double *f;  /* floats; complex: pairs */
    int64_t *i; /* integers, bool */
    zn_str *s;
    struct zn_eval_val
        *items; /* sequence, optional; map: items[0] keys, items[1] values, both of rank 1 */
  } u;
  zn_eval_buf *buf; /* NULL: the storage belongs to an arena or to the caller */
} zn_eval_val;

/* Sees every node's outputs, bodies included, as soon as they exist. Values are valid during the
 * call only. */
typedef struct zn_eval_tap {
  void (*node)(void *user, const zn_graph *g, zn_nid n, const zn_eval_val *out, uint32_t num_out);
  void *user;
  uint64_t peak_bytes; /* set by zn_eval_graph: largest total of live values */
} zn_eval_tap;

/* in: g->num_inputs values (must outlive the call); out: g->num_outputs values, stored in arena a.
 * Intermediate values are freed after their last use. tap may be NULL. */
zn_status zn_eval_graph(zn_ctx *c, const zn_graph *g, zn_eval_mode mode, zn_arena *a,
                        const zn_eval_val *in, zn_eval_val *out, zn_eval_tap *tap);
/* One node on given inputs (NULL = absent), for constant folding: results are rounded once to their
 * dtype and allocated in g->arena; out[i].dtype is ZN_NONE for an absent output. Reports nothing:
 * any status but ZN_OK means "leave it for run time" (errors, operators that are random or yield
 * sequences). */
zn_status zn_eval_node(zn_ctx *c, zn_graph *g, zn_nid n, const zn_htensor **in, zn_htensor *out);

/* Exact. Strings are borrowed from t; everything else is copied to a. */
zn_eval_val zn_eval_from_htensor(zn_arena *a, const zn_htensor *t);
/* Rounds to v's dtype. Contents in a, strings borrowed from v. The type of an empty list's items is not known. */
zn_htensor zn_eval_to_htensor(zn_arena *a, const zn_eval_val *v);
/* Rounds x to a value of float type t (to nearest even, overflow to infinity where the type has
 * one). */
double zn_eval_round(zn_dtype t, double x);
#endif
