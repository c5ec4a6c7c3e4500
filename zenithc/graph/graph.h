/* Graph IR: what to compute. Values and nodes are u32 ids into arrays (0 = none); `order` lists live nodes in
 * execution order and is always topological. Shapes are symbolic expressions; small integer tensors carry their
 * elements as expressions, so that shape arithmetic disappears. Text form: .zg (docs/zg.md).
 *
 * Subgraphs (bodies of If, Loop, Scan) are closed: import turns captured outer values into trailing node inputs and
 * matching trailing body inputs, so nothing refers across graphs. All graphs of a model share one expression pool. */
#ifndef ZN_GRAPH_H
#define ZN_GRAPH_H
#include "zenithc/base/expr.h"
#include "zenithc/base/tensor.h"

typedef uint32_t zn_vid;
typedef uint32_t zn_nid;
struct zn_graph;

typedef enum zn_op {
  ZN_OP_NONE,
#define OP(name, domain, since, schema, infer, eval, expand, lower, flags) ZN_OP_##name,
#include "zenithc/ops/ops.def"
#undef OP
  ZN_OP_COUNT
} zn_op;

typedef struct zn_type {
  uint8_t kind;   /* zn_vkind: tensor, sequence of tensors, optional, map */
  uint8_t dtype;  /* zn_dtype of the (element) tensor; ZN_NONE while unknown */
  uint8_t key;    /* ZN_V_MAP: key dtype */
  uint8_t of;     /* ZN_V_OPT: 1 = optional sequence; ZN_V_SEQ: 1 = sequence of maps */
  int8_t rank;    /* -1 unknown */
  zn_expr dims[ZN_MAX_RANK];
} zn_type;

/* Physical layout of a tensor: optional blocking of one axis and zero-filled halos. Plain row-major when all zero.
 * Blocked: axis `axis` of constant extent C becomes C/block outer (in place) and `block` innermost; block divides C.
 * Halo, on the last one or two axes of an image: the stored extent of axis d is lo[d] + dim[d] + hi[d]; halos always
 * hold zeros. A band (zn_value.within) lies in the rows of a higher image: behind its own rows, halo included, `gap` more
 * stored rows follow in every plane (axis rank - 2); its halo may be the image's, which then keeps it zero. */
typedef struct zn_layout {
  uint16_t block; /* 0 = plain */
  uint8_t axis;
  uint8_t has_halo;
  uint32_t gap, shares_halo;
  uint16_t lo[ZN_MAX_RANK], hi[ZN_MAX_RANK];
} zn_layout;

typedef struct zn_scaled { /* sym = floor(by * element elem) in float32; by NONE: 1 */
  zn_expr sym, by;
  uint32_t elem;
} zn_scaled;

typedef struct zn_value {
  const char *name; /* unique in its graph */
  zn_type type;
  const zn_type *declared; /* what the model says about a value that a node computes, or NULL: fixes sizes without a bound */
  zn_nid def;       /* defining node; 0 for graph inputs and constants */
  uint32_t def_out;
  const zn_htensor *cst; /* contents of a constant (mapped or arena), or NULL */
  zn_expr *elems;   /* symbolic contents, row-major, of an integer/bool tensor of at most ZN_MAX_ELEMS; NULL unknown */
  uint32_t num_elems;
  zn_expr *content; /* num_elems symbols that stand for this value's own elements because a shape depends on them (0: none):
                     * whoever computes the value defines them. NULL when there are none */
  zn_scaled *scaled; /* the same for float values that scale a size (Resize) or are one (OneHot) */
  uint32_t num_scaled, cap_scaled;
  bool is_input, is_output;
  /* set by the fuse and layout passes */
  zn_vid alias;     /* same storage as this stored value (a reshape), 0 = own */
  bool inlined;     /* never stored: computed inside the kernels that use it */
  zn_vid within;    /* bands: stored inside this value's memory, 0 = own; its first stored row (halo included) is ... */
  uint32_t row;     /* ... this stored row of that value */
  zn_layout layout;
} zn_value;
enum { ZN_MAX_ELEMS = 256 };

typedef enum zn_attr_kind {
  ZN_A_NONE, ZN_A_INT, ZN_A_FLOAT, ZN_A_STRING, ZN_A_INTS, ZN_A_FLOATS, ZN_A_STRINGS, ZN_A_TENSOR, ZN_A_TENSORS,
  ZN_A_GRAPH, ZN_A_TYPE
} zn_attr_kind;

typedef struct zn_attr {
  const char *name;
  uint8_t kind; /* zn_attr_kind */
  uint32_t n;   /* elements of the list kinds */
  union {
    int64_t i;
    double f;
    zn_str s; /* also NUL-terminated */
    const int64_t *is;
    const double *fs;
    const zn_str *ss;
    const zn_htensor *t; /* n tensors for TENSORS */
    struct zn_graph *g;
    const zn_type *type;
  } u;
} zn_attr;

typedef struct zn_node {
  zn_op op;
  const char *name;   /* for diagnostics; never NULL */
  const char *source; /* "model.py:42 (features.0)" or NULL */
  zn_vid *in, *out;   /* 0 = absent optional */
  uint32_t num_in, num_out;
  zn_attr *attrs;
  uint32_t num_attrs;
  uint32_t num_captures; /* trailing inputs that feed the bodies' trailing inputs (If, Loop, Scan) */
  bool dead;
  uint32_t group;        /* fused kernel, set by the fuse pass; 0 = none */
} zn_node;

struct zn_names; /* names taken in a graph */
typedef struct zn_graph {
  zn_arena *arena;
  zn_exprs *ex;            /* shared by all graphs of a model */
  struct zn_graph *parent; /* of a body; NULL for main */
  const char *name;
  zn_value *vals;          /* [0] unused */
  uint32_t num_vals, cap_vals;
  zn_node *nodes;          /* [0] unused */
  uint32_t num_nodes, cap_nodes;
  zn_nid *order;
  uint32_t num_order, cap_order;
  zn_vid *inputs, *outputs;
  uint32_t num_inputs, num_outputs, cap_inputs, cap_outputs;
  const char *producer;    /* "pytorch 2.1" or NULL */
  struct zn_names *names;
} zn_graph;

zn_graph *zn_graph_new(zn_arena *a, zn_exprs *ex, const char *name);
/* name NULL: the id. A taken name gets a suffix. */
zn_vid zn_graph_value(zn_graph *g, const char *name);
/* A taken name gets a suffix; assigning to vals[v].name directly forfeits uniqueness. */
void zn_graph_rename(zn_graph *g, zn_vid v, const char *name);
/* A conversion or copy of result i becomes the result in its place, under its name; the old one is called NAME_suffix. */
void zn_graph_take_output(zn_graph *g, uint32_t i, zn_vid copy, const char *suffix);
zn_vid zn_graph_input(zn_graph *g, const char *name, zn_type type);
/* Borrows t (must live as long as the graph); sets the type, and elems for small integers. */
zn_vid zn_graph_const(zn_graph *g, const char *name, const zn_htensor *t);
/* Convenience constants for rewrites. */
zn_vid zn_graph_const_i64s(zn_graph *g, const int64_t *v, uint32_t n); /* rank 1 */
zn_vid zn_graph_const_scalar(zn_graph *g, zn_dtype t, double v);       /* rank 0 */
void zn_graph_output(zn_graph *g, zn_vid v);
/* Appends a live node at the end of `order` with num_out fresh outputs (rename or type them through their ids).
 * Pointers into nodes[]/vals[] are invalidated by additions: hold ids. */
zn_nid zn_graph_node(zn_graph *g, zn_op op, const char *name, const zn_vid *in, uint32_t num_in, uint32_t num_out);
/* The same, placed before node `before` in order; inherits its source. */
zn_nid zn_graph_node_before(zn_graph *g, zn_nid before, zn_op op, const char *name, const zn_vid *in,
                            uint32_t num_in, uint32_t num_out);
static inline zn_vid zn_node_out(const zn_graph *g, zn_nid n, uint32_t i) { return g->nodes[n].out[i]; }
static inline zn_vid zn_node_in(const zn_node *n, uint32_t i) { return i < n->num_in ? n->in[i] : 0; }
/* Every use of `from` (node inputs and graph outputs) becomes `to`. When `from` is a graph output, `to` takes over its
 * name (or, if `to` is an input, constant or already an output, an Identity node is placed between). */
void zn_graph_replace(zn_graph *g, zn_vid from, zn_vid to);
void zn_graph_kill(zn_graph *g, zn_nid n); /* marks dead; zn_graph_compact removes it from order */
void zn_graph_compact(zn_graph *g);
/* uses[v] = number of uses by live nodes and graph outputs; array of num_vals from a. */
uint32_t *zn_graph_uses(const zn_graph *g, zn_arena *a);
zn_graph *zn_graph_clone(const zn_graph *g); /* a body with its bodies, in the same arena; same ids, same parent */
bool zn_graph_toposort(zn_graph *g); /* stable; false when cyclic */

/* Attributes. Getters fall back to the default in the operator's schema; asking for an attribute that the schema
 * lacks is a ZN_BUG. Strings are NUL-terminated. */
void zn_node_set_int(zn_graph *g, zn_nid n, const char *name, int64_t v);
void zn_node_set_float(zn_graph *g, zn_nid n, const char *name, double v);
void zn_node_set_str(zn_graph *g, zn_nid n, const char *name, const char *v);
void zn_node_set_ints(zn_graph *g, zn_nid n, const char *name, const int64_t *v, uint32_t count);
void zn_node_set_attr(zn_graph *g, zn_nid n, zn_attr a);             /* copies shallowly */
const zn_attr *zn_node_attr(const zn_node *n, const char *name);     /* as given, NULL when absent */
bool zn_node_has(const zn_node *n, const char *name);
/* 0, 0.0 and "" when absent without default. */
int64_t zn_node_int(const zn_node *n, const char *name);
double zn_node_float(const zn_node *n, const char *name);
const char *zn_node_str(const zn_node *n, const char *name);
/* NULL and *count = 0 when absent without default. */
const int64_t *zn_node_ints(const zn_node *n, const char *name, uint32_t *count);
const double *zn_node_floats(const zn_node *n, const char *name, uint32_t *count);
zn_graph *zn_node_graph(const zn_node *n, const char *name);

/* Types */
zn_type zn_type_tensor(zn_dtype t, int rank, const zn_expr *dims);
zn_type zn_type_static(zn_graph *g, zn_dtype t, int rank, const int64_t *dims);
zn_expr zn_type_count(zn_exprs *ex, const zn_type *t); /* product of dims; ZN_EX_NONE when rank unknown */
bool zn_type_is_static(const zn_exprs *ex, const zn_type *t, int64_t *out_dims);

/* Every element is known without running the producer: a constant, or shape arithmetic over symbols of other values. */
bool zn_value_known(const zn_value *v);
/* Row-major, without borders or gaps. */
static inline bool zn_layout_is_plain(const zn_layout *l) { return !l->block && !l->has_halo && !l->gap; }
/* Constant contents as int64 / double, row-major, from cst or elems. False when not constant, too many or fractions. */
bool zn_value_i64s(const zn_graph *g, zn_vid v, int64_t *out, uint32_t max, uint32_t *out_n);
bool zn_value_f64(const zn_graph *g, zn_vid v, double *out); /* single element */
/* "node 'conv1' (Conv)" for diagnostics, from c->tmp. */
const char *zn_node_where(zn_ctx *c, const zn_node *n);

/* ---- text, verifier ---- */
void zn_graph_print(const zn_graph *g, zn_text *t);
zn_status zn_graph_parse(zn_ctx *c, zn_arena *a, const char *src, size_t n, const char *base_dir, zn_graph **out);
/* Structure (ids, topological order, arity by schema, types present after inference); errors are our bugs' text. */
zn_status zn_graph_verify(zn_ctx *c, const zn_graph *g);
#endif
