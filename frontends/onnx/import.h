/* The importer's own structures: shared by its files only. */
#ifndef ZN_ONNX_IMPORT_H
#define ZN_ONNX_IMPORT_H
#include "frontends/onnx/payload.h"
#include "zenithc/ops/op.h"

/* ---- names: strings to u32 (onnx_names.c); keys are borrowed ---- */
typedef struct zn_nmap {
  zn_arena *a;
  struct zn_nmap_slot {
    const char *key;
    uint32_t hash, val;
  } *slots;
  uint32_t n, cap;
} zn_nmap;
bool zn_nmap_put(zn_nmap *m, const char *key, uint32_t val); /* false: taken already, unchanged */
bool zn_nmap_get(const zn_nmap *m, const char *key, uint32_t *out);
void zn_nmap_set(zn_nmap *m, const char *key, uint32_t val); /* put or overwrite */

/* ---- one import ---- */
typedef struct zn_problem {
  const char *where, *text, *help; /* of the first node that has it */
  uint32_t count;
  bool unsupported; /* valid ONNX that we lack, else the model is wrong */
} zn_problem;

typedef struct zn_imp {
  zn_ctx *c;
  zn_arena *ga, *pa; /* graph; import-time data, freed at the end */
  zn_payload payload;
  const Pb__ModelProto *m;
  const zn_onnx_opts *o;
  zn_exprs *ex;
  zn_nmap functions; /* "domain:name:overload" -> index */
  zn_nmap upgrades;  /* "domain:name" -> first row of the upgrade table */
  zn_nmap dim_opts;  /* symbol -> index into dims */
  struct zn_dim_opt {
    const char *name;
    int64_t lo, hi;
    bool used;
  } *dims;
  zn_nmap pure_dims; /* symbols that are a whole dimension of some model input -> place in their order */
  const char **pure_names;
  uint32_t num_pure, cap_pure;
  zn_nmap problem_keys;
  zn_problem *problems;
  uint32_t num_problems, cap_problems;
  uint32_t hard;      /* errors reported directly */
  zn_status status;   /* first direct error */
  uint64_t nodes_left;
  uint32_t num_nodes, doubles;
  bool stop;          /* too many errors or nodes: unwind */
} zn_imp;

struct zn_scope;
/* One inlined call of a model-local function: its attributes, each with the scope it was written in. */
typedef struct zn_call {
  const Pb__FunctionProto *f;
  const char *prefix; /* of names inside */
  const char **attr_names;
  const Pb__AttributeProto **attrs;
  struct zn_scope **attr_scopes;
  uint32_t num_attrs;
  unsigned depth;
} zn_call;

/* Names visible to nodes. A body has its own graph and a parent scope; a function call has the caller's graph and none. */
typedef struct zn_scope {
  zn_imp *I;
  zn_graph *g;
  struct zn_scope *parent;
  zn_call *call;
  zn_nmap names;  /* ONNX name -> zn_vid; 0: an absent input of the function */
  zn_nmap *used;  /* value names taken in g */
  const Pb__OperatorSetIdProto *const *opsets;
  size_t num_opsets;
  struct zn_capture {
    zn_vid outer, inner;
  } *caps; /* values of parent->g that bodies inside use */
  uint32_t num_caps, cap_caps;
  uint32_t *infer_at; /* of g: entries of g->order whose types were inferred on demand */
  unsigned depth;
} zn_scope;

enum { ZN_MAX_BODY_DEPTH = 32, ZN_MAX_CALL_DEPTH = 64 };

/* A node on its way from NodeProto to the graph; upgrade rules rewrite it in place. */
typedef struct zn_unode {
  zn_scope *s;
  const char *op, *domain, *name, *source;
  int ver; /* opset version that applies to it */
  zn_vid *in;
  uint32_t num_in, cap_in;
  const char **out; /* "" absent */
  uint32_t num_out;
  zn_attr *attrs;
  uint32_t num_attrs, cap_attrs;
  zn_vid *caps; /* captures of all bodies, in the order of the bodies' trailing inputs */
  uint32_t num_caps;
  bool done;    /* a rule has emitted it */
} zn_unode;

/* Records a problem of u (same key: counted, reported once). help may be NULL. */
void zn_imp_problem(zn_imp *I, const char *where, bool unsupported, const char *help, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void zn_imp_hard(zn_imp *I, zn_status st); /* counts an error that was reported directly */
const char *zn_unode_where(const zn_unode *u);
void zn_imp_report(zn_imp *I); /* prints the problems */
void zn_imp_unknown_op(const zn_unode *u);
/* The opset in which an operator appeared; 0 when unknown. */
int zn_op_first_version(const char *domain, const char *name);

/* Attributes and types (onnx_attr.c) */
/* Dimensions without a name become symbols "<value>.d<k>". False: reported. */
bool zn_imp_type(zn_imp *I, const Pb__TypeProto *p, const char *value, zn_type *out);
/* --dim and the symbols of the model's inputs; to be called before the first type. */
zn_status zn_imp_dims_init(zn_imp *I);
zn_expr zn_imp_symbol(zn_imp *I, const char *name); /* a dimension by name, as --dim says */
zn_status zn_imp_dims_check(zn_imp *I); /* every --dim named a symbol */
void zn_imp_attrs(zn_unode *u, const Pb__NodeProto *p);
const Pb__AttributeProto *zn_imp_attr_ref(zn_scope *s, const Pb__AttributeProto *a, zn_scope **out_scope);
zn_graph *zn_imp_body(zn_scope *parent, const Pb__GraphProto *p, const char *name, zn_scope **out_scope);
bool zn_imp_constant(zn_scope *s, const Pb__NodeProto *p, const char *where, zn_htensor *out);

/* A topological order of nodes, stable; NULL when they are in order already (or cyclic). */
uint32_t *zn_imp_order(zn_imp *I, Pb__NodeProto **nodes, size_t n);

/* Emission (import.c) */
zn_status zn_imp_run(zn_ctx *c, const Pb__ModelProto *m, zn_arena *pa, const zn_payload *payload,
                     const zn_onnx_opts *o, zn_graph **out);
zn_vid zn_imp_resolve(zn_scope *s, const char *name, bool *found);
void zn_imp_name_value(zn_scope *s, zn_vid v, const char *name);
void zn_unode_emit(zn_unode *u);
void zn_unode_bind(zn_unode *u, uint32_t i, zn_vid v); /* output i is v */

/* Upgrading (upgrade.c) */
void zn_upgrade_init(zn_imp *I);
void zn_upgrade(zn_unode *u);

/* For upgrade rules */
zn_attr *zn_u_attr(zn_unode *u, const char *name);
void zn_u_del(zn_unode *u, const char *name);
int64_t zn_u_int(zn_unode *u, const char *name, int64_t dflt);     /* reads and removes */
double zn_u_float(zn_unode *u, const char *name, double dflt);     /* reads and removes */
const char *zn_u_str(zn_unode *u, const char *name, const char *dflt); /* reads, keeps */
void zn_u_set_int(zn_unode *u, const char *name, int64_t v);
void zn_u_set_float(zn_unode *u, const char *name, double v);
void zn_u_set_str(zn_unode *u, const char *name, const char *v);
void zn_u_set_ints(zn_unode *u, const char *name, const int64_t *v, uint32_t n);
void zn_u_set_in(zn_unode *u, uint32_t i, zn_vid v); /* grows the list with absent inputs */
static inline zn_vid zn_u_in(const zn_unode *u, uint32_t i) { return i < u->num_in ? u->in[i] : 0; }
/* A helper node with one output (named after u) and attributes set afterwards through the node id. */
zn_nid zn_u_node(zn_unode *u, zn_op op, const zn_vid *in, uint32_t num_in);
zn_vid zn_u_op(zn_unode *u, zn_op op, const zn_vid *in, uint32_t num_in);
zn_vid zn_u_op1(zn_unode *u, zn_op op, zn_vid a);
zn_vid zn_u_op2(zn_unode *u, zn_op op, zn_vid a, zn_vid b);
zn_vid zn_u_i64s(zn_unode *u, const int64_t *v, uint32_t n);
zn_vid zn_u_i64(zn_unode *u, int64_t v); /* rank 1, one element */
/* A scalar of the element type of `like`. */
zn_vid zn_u_scalar_like(zn_unode *u, double v, zn_vid like);
/* Type of a value as far as it can be known now (infers nodes emitted so far); rank -1, dtype NONE when unknown. */
const zn_type *zn_u_type(zn_unode *u, zn_vid v);
#endif
