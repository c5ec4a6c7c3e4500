/* The operator registry: one row of ops.def per operator in its one canonical version. Import upgrades older
 * versions, so nothing after it asks for a version. The same rows expand into the evaluator's table
 * (zenithc/eval/eval_table.c) and the lowering table (codegen/lower/lower_table.c).
 *
 * Schema strings: "X:T W:T B:T? -> Y:T | axis:i=-1 pads:is mode:s=nearest to:i! body:g! | T=f16,f32,f64"
 *   inputs -> outputs | attributes | type sets. '?' optional, '*' variadic (same type), '~' variadic of different
 *   types; attribute kinds i f s is fs ss t ts g tp, '=' default (list items separated by commas), '!' required. A type
 *   is a type set's name or a dtype name; sets may contain all, float (f16 bf16 f32 f64), int (u8..i64),
 *   num (int+float), numb (num+bool), and seq, opt, map. */
#ifndef ZN_OP_H
#define ZN_OP_H
#include "zenithc/graph/graph.h"

enum { /* flags */
  ZN_OPF_EW = 1,       /* elementwise with numpy broadcasting: described in scalar.def */
  ZN_OPF_COMM = 2,     /* first two inputs commute */
  ZN_OPF_VIEW = 4,     /* pure index map of input 0 */
  ZN_OPF_RANDOM = 8,   /* not a function of its inputs: never folded or merged */
  ZN_OPF_CONTROL = 16, /* has body graphs */
  ZN_OPF_HOST = 32,    /* strings or sequences: host targets only */
  ZN_OPF_POINT = 64    /* lowered element by element (zn_lower.point): may fold into its consumers, as EW ones may */
};

typedef struct zn_schema_io {
  const char *name, *type; /* type as written */
  bool optional, variadic, hetero;
} zn_schema_io;
typedef struct zn_schema_attr {
  const char *name;
  uint8_t kind; /* zn_attr_kind */
  bool required, has_default;
  zn_attr def;
} zn_schema_attr;
typedef struct zn_schema {
  zn_schema_io *in, *out;
  uint32_t num_in, num_out, min_in, max_in, min_out, max_out; /* max UINT32_MAX when variadic */
  zn_schema_attr *attrs;
  uint32_t num_attrs;
  const char *types; /* third part as written */
} zn_schema;

typedef zn_status (*zn_infer_fn)(zn_ctx *c, zn_graph *g, zn_nid n);
/* Rewrites node n into simpler nodes placed before it, replaces its outputs, kills it. Leaves it alone (OK) when it
 * does not apply. */
typedef zn_status (*zn_expand_fn)(zn_ctx *c, zn_graph *g, zn_nid n);

typedef struct zn_opdef {
  const char *name, *domain; /* domain "" = ai.onnx */
  int since;                 /* canonical opset version */
  const char *schema;
  zn_infer_fn infer;
  zn_expand_fn expand;       /* NULL: primitive */
  unsigned flags;
} zn_opdef;

extern const zn_opdef zn_ops[ZN_OP_COUNT];
/* Parsed on first use (pthread_once over all rows); immutable afterwards; never NULL for a valid op. */
const zn_schema *zn_op_schema(zn_op op);
const zn_schema_attr *zn_schema_find_attr(const zn_schema *s, const char *name);
/* Is dtype t allowed by type name `type` of schema s (a set's name, or a dtype's)? */
bool zn_schema_allows(const zn_schema *s, const char *type, zn_dtype t);
zn_op zn_op_find(const char *domain, const char *name); /* ZN_OP_NONE when unknown */
static inline const char *zn_op_name(zn_op op) { return zn_ops[op].name; }

/* scalar.def rows: SCALAR(op, "expression"): inputs by schema name in lower case (x, a, b, ...), attributes by name, numbers,
 * + - * / unary -, comparisons, function calls f(x); a name before '(' is a function. Parsed by scalar.c into trees that
 * the evaluator and the lowering each walk with their own arithmetic. streq(attribute, 'TEXT') compares a string attribute:
 * both arguments are ATTR nodes, the second one's name is the text. Variadic operators (Max, Sum, ...) give the binary step
 * over a and b; whoever walks them folds the inputs from the left and, for Mean, divides by their number at the end.
 * Types: every step has the operator's input type T (the first input that is not bool); numbers and attributes are of that
 * type too, compared and logical results are bool, and the value is converted to the output's type once, at the end.
 * Pow computes in T when both inputs have it, otherwise in f64, and converts the result to the type of x. */
typedef enum zn_sc_kind { ZN_SC_NUM, ZN_SC_IN, ZN_SC_ATTR, ZN_SC_CALL } zn_sc_kind;
typedef struct zn_sc {
  zn_sc_kind kind;
  double num;       /* NUM */
  uint32_t index;   /* IN: input number */
  const char *name; /* ATTR, CALL. Calls: add sub mul div neg min max abs exp log sqrt ... as in kops.def, mod fmod floor ceil
                       rint trunc, lt le gt ge eq ne, and or not xor shl shr, select(c,a,b), isnan, isinf, sign */
  struct zn_sc *arg[3];
  uint32_t num_args;
} zn_sc;
const zn_sc *zn_scalar_expr(zn_op op); /* NULL when the operator has no scalar row */

/* Shape inference over a whole graph (and bodies), and of one node: what passes call after changing things. Defined in
 * zenithc/passes/infer.c. */
zn_status zn_infer_graph(zn_ctx *c, zn_graph *g);
zn_status zn_infer_node(zn_ctx *c, zn_graph *g, zn_nid n);
/* One branch of If n, from the types of what it captures (infer_control.c). */
zn_status zn_infer_branch(zn_ctx *c, zn_graph *g, zn_nid n, bool then);

/* Helpers for infer functions (zenithc/ops/infer_util.c) */
zn_type *zn_out_type(zn_graph *g, zn_nid n, uint32_t i);                       /* NULL when the output is absent */
const zn_type *zn_in_type(const zn_graph *g, const zn_node *n, uint32_t i);    /* NULL when absent */
/* numpy broadcast of two dims; reports a clash of constants. */
zn_status zn_infer_bcast_dim(zn_ctx *c, zn_graph *g, zn_nid n, zn_expr a, zn_expr b, zn_expr *out);
/* Axis in [-rank, rank) to [0, rank), or an error naming the node. */
zn_status zn_infer_axis(zn_ctx *c, const zn_graph *g, zn_nid n, int64_t axis, int rank, int *out);
/* A fresh data-dependent symbol in [0, bound]. */
zn_expr zn_infer_fresh(zn_graph *g, const char *stem, zn_expr bound);
#endif
