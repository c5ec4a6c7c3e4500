/* Differential fuzzing of whole graphs: draw a valid graph, run it through every way of computing it, compare, shrink
 * what differs. Operators come from their schemas in ops.def: a new row is drawn without a change here. Shape inference is
 * the judge of validity: a node that it refuses is taken back. draw_rows.def says what schemas cannot (that the weight
 * of a Conv has the channels of its input). The same seed gives the same graph on every host. */
#ifndef ZN_FUZZ_H
#define ZN_FUZZ_H
#include "zenithc/eval/gen.h"
#include "zenithc/eval/metric.h"
#include "zenithc/ops/op.h"

enum { FZ_SYMS = 3, FZ_MAX_ELEMS = 6000 };

typedef struct fz { /* one graph being drawn */
  zn_ctx *c;
  zn_arena *a;
  zn_graph *g; /* main, or the body being drawn */
  uint64_t rng;
  zn_vid *pool; /* values of g that nodes may read */
  uint32_t n, cap;
  uint32_t depth; /* of bodies */
  bool dynamic; /* some dimensions are symbols */
  zn_dtype main; /* favourite element type */
  zn_expr sym[FZ_SYMS];
  uint32_t nodes; /* made in g so far */
  uint32_t tried[ZN_OP_COUNT], made[ZN_OP_COUNT];
} fz;

/* ---- random numbers (splitmix64) ---- */
static inline uint64_t fz_next(fz *f) {
  uint64_t z = (f->rng += UINT64_C(0x9E3779B97F4A7C15));
  z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
  return z ^ (z >> 31);
}
static inline uint32_t fz_below(fz *f, uint32_t n) { return n ? (uint32_t)(fz_next(f) % n) : 0; }
static inline int64_t fz_range(fz *f, int64_t lo, int64_t hi) { /* inclusive */
  return lo + (int64_t)(fz_next(f) % (uint64_t)(hi - lo + 1));
}
static inline bool fz_chance(fz *f, uint32_t percent) { return fz_below(f, 100) < percent; }

/* ---- values (draw_values.c) ---- */
zn_expr fz_dim(fz *f); /* a symbol or a small constant */
int64_t fz_size(fz *f); /* a small constant */
zn_dtype fz_dtype_of(fz *f, const zn_schema *s,
                     const char *type); /* one that the type set allows */
/* A value of g of this type: a new input, constant or captured value. dims are borrowed. */
zn_vid fz_leaf(fz *f, zn_dtype t, int rank, const zn_expr *dims);
zn_vid fz_const(fz *f, zn_dtype t, int rank, const int64_t *dims, double lo,
                double hi); /* uniform in [lo, hi) */
zn_vid fz_i64s(fz *f, zn_dtype t, const int64_t *v, uint32_t n); /* rank 1 */
zn_vid fz_scalar(fz *f, zn_dtype t, double x);
/* Some existing value of element type t (ZN_NONE: any) and rank (< 0: any), newer ones more often; 0 when there is none. */
zn_vid fz_pick(fz *f, zn_dtype t, int rank);
zn_vid fz_some(fz *f, zn_dtype t, int rank); /* picked, else a leaf of random shape */
/* A shape that broadcasts with `like`: the same, leading axes dropped, some dims 1. */
int fz_broadcast_shape(fz *f, const zn_type *like, zn_expr *out_dims);
/* An existing value of exactly this type, else a leaf. */
zn_vid fz_exact(fz *f, zn_dtype t, int rank, const zn_expr *dims);
void fz_add(fz *f, zn_vid v); /* to the pool */
bool fz_static(const fz *f, zn_vid v, int64_t *out_dims);
static inline const zn_type *fz_type(const fz *f, zn_vid v) { return &f->g->vals[v].type; }

/* ---- nodes ---- */
/* Makes a node, infers it and takes it back when that fails or a result is too large. Inputs must exist. Attributes are
 * set by the caller through `attrs`. Returns output 0, or 0. */
typedef struct fz_attrs {
  zn_attr v[24];
  uint32_t n;
} fz_attrs;
void fz_set_i(fz_attrs *at, const char *name, int64_t v);
void fz_set_f(fz_attrs *at, const char *name, double v);
void fz_set_s(fz *f, fz_attrs *at, const char *name, const char *v);
void fz_set_is(fz *f, fz_attrs *at, const char *name, const int64_t *v, uint32_t n);
zn_vid fz_node(fz *f, zn_op op, const zn_vid *in, uint32_t num_in, uint32_t num_out,
               const fz_attrs *at);
zn_vid fz_node1(fz *f, zn_op op, zn_vid a,
                zn_vid b); /* one or two inputs (b may be 0), no attributes */

bool fz_draw_schema(fz *f, zn_op op); /* draw_schema.c: from the schema alone */
bool fz_draw_row(fz *f, zn_op op, bool *out_has); /* draw_rows.c: from a row of draw_rows.def */
bool fz_draw_special(fz *f, zn_op op,
                     bool *out_has); /* draw_special.c: operands that depend on a shape */
bool fz_draw_control(fz *f, zn_op op); /* draw_control.c: If, Loop, Scan with drawn bodies */
bool fz_draw_block(fz *f); /* draw_blocks.c: a piece of a network, for fusion */
bool fz_draw_lists(fz *f); /* draw_lists.c: a piece that makes and reads a sequence, or strings */
bool fz_draw_op(fz *f, zn_op op); /* whichever of these fits */
void fz_draw_nodes(fz *f, uint32_t count); /* draw.c */
/* The whole graph of this seed, inferred, with outputs. NULL when nothing came out. */
zn_graph *fz_draw(zn_ctx *c, uint64_t seed, fz *out_f);

/* ---- running (check.c, jit.c) ---- */
enum { FZ_OPINIONS = 2 };
/* Inputs and results that somebody else gives. */
typedef struct fz_given {
  zn_htensor *in; /* of every input; NULL: drawn */
  zn_htensor *want[FZ_OPINIONS]; /* of every output; NULL: no such opinion */
  const char *dir; /* what the reference makes of them goes to DIR/output_N.pb */
} fz_given;
typedef struct fz_opts {
  const char *dir; /* scratch files */
  bool use_c; /* the c target too */
  uint32_t only; /* bits of ways; 0: all */
  bool verbose;
  const fz_given *given; /* or NULL */
} fz_opts;
typedef enum fz_outcome {
  FZ_SAME,
  FZ_UNDEFINED, /* the reference has no defined result on the inputs tried */
  FZ_REFUSED, /* some target says that it cannot compile this: counted, not a difference */
  FZ_DIFFERENT,
  FZ_CRASH, /* by a signal or our own ZN_BUG (set by the parent) */
  FZ_HANG
} fz_outcome;
typedef struct fz_result {
  fz_outcome outcome;
  char way[24]; /* "cpu-O3" */
  char what[300]; /* what differs, or the first diagnostic */
  char opinion[FZ_OPINIONS][200]; /* "" none, "agrees", or what differs from the reference */
} fz_result;
/* Runs the graph (as .zg text) every way and compares. Never returns when generated code crashes: call in a child. */
void fz_check(const char *zg, size_t n, uint64_t seed, const fz_opts *o, fz_result *out,
              void (*stage)(const char *way));
/* A job in a child process with a time limit; what kills it becomes the result. The job may say by stage where it is. */
typedef void fz_stage(const char *way);
typedef void fz_job(const void *user, const fz_opts *o, fz_stage *stage, fz_result *out);
void fz_apart(fz_job *job, const void *user, const fz_opts *o, fz_result *out);
/* fz_check in a child. */
void fz_check_apart(const char *zg, size_t n, uint64_t seed, const fz_opts *o, fz_result *out);

/* cases.c: folders with model.onnx and inputs (test_data_set_0/input_N.pb), with opinions what comes out (ref/output_N.pb
 * and ort/output_N.pb, each optional), checked like drawn graphs. A line of tab-separated fields for each: outcome, folder,
 * way, what, and the two opinions. Returns whether all are same. The results of our reference become
 * test_data_set_0/output_N.pb, so that `zenithc check` can read the folder too. */
bool fz_check_cases(int n, char **dirs, const fz_opts *o);

/* jit.c. The error is the caller's for good. */
typedef struct fz_jit fz_jit;
struct zn_model;
fz_jit *fz_jit_load(const char *object, const char *name, const struct zn_model **out_model,
                    const char **out_error);
void fz_jit_close(fz_jit *j);

/* ---- what to do with a difference ---- */
/* A smaller graph that still ends in the same outcome and way; text in a. */
const char *fz_shrink(zn_arena *a, const char *zg, uint64_t seed, const fz_opts *o,
                      const fz_result *same, size_t *out_n);
const char *fz_print(const zn_graph *g, zn_arena *a, size_t *out_n);
/* export.c: the graph as DIR/SEED/model.onnx with test data; no model.onnx when opset 23 cannot say it. */
void fz_export(const char *zg, size_t n, uint64_t seed, const char *dir);
#endif
