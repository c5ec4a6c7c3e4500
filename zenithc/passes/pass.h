/* Passes: one file, one exported function, one row in passes.def. A pass sees the graph and caps,
 * never a target. */
#ifndef ZN_PASS_H
#define ZN_PASS_H
#include "zenithc/base/caps.h"
#include "zenithc/graph/knob.h"
#include "zenithc/ops/op.h"

typedef struct zn_pass_opts {
  int opt_level;       /* 0..3 */
  const zn_caps *caps; /* may be NULL before a target is chosen */
  bool math_fast;
  const zn_knobs *knobs; /* measured choices; NULL: the analytic model alone */
  bool tf32;           /* products of f32 on matrix units, rounded to tf32 */
  zn_dtype precision;  /* ZN_F16 or ZN_BF16: how f32 tensors are stored; else as the model says */
  bool frugal;         /* plain layouts without borders */
  bool bands;          /* ram_bytes is reached by bands of rows, not by slices of channels */
  int64_t ram_bytes;   /* of intermediate values at a time, as far as slicing can help; 0: no limit */
  const char *dump; /* letters to dump after; NULL */
  FILE *dump_to;
  bool verify_each;
  bool time;
  int64_t rewrite_limit;  /* stop rewriting after N changes in total; -1 = no limit (bisecting) */
  int64_t rewrites;       /* counted here */
  const char *stop_after; /* pass name or NULL */
} zn_pass_opts;

typedef zn_status (*zn_pass_fn)(zn_ctx *c, zn_graph *g, zn_pass_opts *o);
typedef struct zn_pass {
  char letter;
  const char *name;
  zn_pass_fn run;
  const char *doc;
  int min_level; /* lowest -O at which it runs */
} zn_pass;
extern const zn_pass zn_passes[];
extern const unsigned zn_num_passes;

/* True when another rewrite may be made; counts it. Every optional rewrite asks first. */
bool zn_pass_may_rewrite(zn_pass_opts *o);
/* Runs the pipeline in passes.def order on g and its bodies. */
zn_status zn_passes_run(zn_ctx *c, zn_graph *g, zn_pass_opts *o);
/* Runs `run` on every body graph of g's nodes (one level; passes recurse by calling this
 * themselves). */
zn_status zn_pass_bodies(zn_ctx *c, zn_graph *g, zn_pass_opts *o, zn_pass_fn run);
/* Runs a comma-separated list by name ("fold,dce"): for tests and --passes. */
zn_status zn_passes_run_named(zn_ctx *c, zn_graph *g, const char *names, zn_pass_opts *o);
/* fix_input.c. Does the content of input v decide the rank or shape of something (axes of a reduction, the target of a
 * Reshape, sizes of a Resize)? Directly or through integer arithmetic; such inputs are worth fixing at compile time. */
bool zn_input_decides_shape(zn_ctx *c, const zn_graph *g, zn_vid v);
/* Graph input v becomes the constant t (borrowed; dtype and rank must be the input's) and leaves the input list. Before
 * inference. */
zn_status zn_fix_input(zn_ctx *c, zn_graph *g, zn_vid v, const zn_htensor *t);

/* fold.c: dequantised constants, which the fold pass leaves to the qdq pass, become constants. */
zn_status zn_fold_dequantized(zn_ctx *c, zn_graph *g);
/* foldbn.c: can the parameters of BatchNormalization n move into the constant weights of the only
 * node before it? */
bool zn_foldbn_applies(zn_ctx *c, const zn_graph *g, zn_nid n);

#define PASS(letter, name, level, doc)                                                             \
  zn_status zn_pass_##name(zn_ctx *c, zn_graph *g, zn_pass_opts *o);
#include "zenithc/passes/passes.def"
#undef PASS
#endif
