/* Lowering: from fused groups of graph nodes to kernels. The only place that sees both IRs.
 *
 * An operator is lowered in one of two ways (or both), by its zn_lower object (one per family, named in ops.def):
 *   point   the value of one output element, given its index: what elementwise maps and views are. Point operators fold
 *           into whatever reads them (zn_lw_load) and cost no memory.
 *   kernel  whole loop nests for operators with reductions, data-dependent structure or several outputs. Its inputs are
 *           read with zn_lw_load (so maps and views fold in as prologue) and each finished element is handed to
 *           zn_lw_emit, which runs the fused epilogue and stores.
 * Code is emitted as plain scalar loops with marks (grid, vector, unroll); codegen/kir/widen.c makes vectors and register
 * tiles of them. Indexes are zn_expr over dimension symbols and loop variables, so that composed index maps simplify.
 * A kernel takes as parameters the buffers and integers that its body happened to ask for. */
#ifndef ZN_LOWER_H
#define ZN_LOWER_H
#include "codegen/kir/kir.h"
#include "zenithc/graph/knob.h"
#include "zenithc/ops/op.h"

typedef struct zn_lw zn_lw;

typedef struct zn_lower {
  zn_kref (*point)(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx);
  zn_status (*kernel)(zn_lw *lw, zn_nid n);
} zn_lower;

const zn_lower *zn_lower_of(zn_op op); /* both NULL: not lowered yet */

typedef struct zn_lower_opts {
  int opt_level;
  bool no_alloc; /* refuse models that need an allocator */
  bool math_fast;
  int winograd_most; /* as in driver/compile.h */
  bool tf32;     /* products of f32 may round their operands to tf32 */
  bool frugal; /* the least memory counts: nothing is copied for the sake of speed */
  const char *provenance;
  const zn_knobs *knobs; /* measured choices; NULL: the analytic model alone */
} zn_lower_opts;

typedef struct zn_plan_stats { /* of the memory plan, static shapes only (else zeros) */
  uint64_t workspace, lower_bound, sum_of_buffers;
  uint32_t num_buffers;
} zn_plan_stats;

/* Lowers a fused graph to a verified kernel module (not yet widened or expanded). Reports every operator that cannot be
 * lowered at once. out_stats may be NULL. */
zn_status zn_lower_graph(zn_ctx *c, zn_graph *g, const zn_caps *caps, const zn_lower_opts *o, const char *name,
                         zn_kmod **out, zn_plan_stats *out_stats);

/* ---------------------------------------------------------------- inside lowering ------------------------------- */
/* Of a >= 0 and b > 0: their quotient rounded up, and the next multiple of b from a on. */
static inline int64_t zn_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t zn_round_up(int64_t a, int64_t b) { return zn_ceil_div(a, b) * b; }

enum { ZN_LW_MAX_OVERRIDES = 16, ZN_LW_MAX_LOOPS = 64 };

typedef enum zn_loc_kind {
  ZN_LOC_NONE,
  ZN_LOC_INPUT,
  ZN_LOC_OUTPUT,
  ZN_LOC_CONST,
  ZN_LOC_WS,
  ZN_LOC_PART, /* inside another place */
  ZN_LOC_CELL /* where the address in a workspace buffer points: memory found by the run */
} zn_loc_kind;
typedef struct zn_loc { /* where a value is stored; sequences, optionals and maps: their zn_tensor (lists.h) */
  zn_loc_kind kind;
  uint32_t index; /* input/output number, module constant, workspace buffer, part */
} zn_loc;

typedef struct zn_part { /* a place inside another one */
  zn_loc whole;   /* not a part */
  uint64_t at;    /* bytes */
  uint64_t bytes; /* that it covers at most, from `at` on; UINT64_MAX: not known */
} zn_part;

typedef struct zn_wsbuf { /* a workspace buffer: lives from step `first` to step `last` */
  zn_expr bytes;
  uint32_t first, last;
  uint64_t offset;        /* static plan */
  uint32_t slot;          /* dynamic plan */
  bool keep;              /* the contents are referred to until the outputs are read */
  bool heap;              /* no upper bound, or kept in a loop: from the caller's allocator, through `cell` */
  uint32_t cell;          /* heap: workspace buffer that holds the address */
  uint32_t born;          /* first step that touches it, before lifetimes are stretched over loops */
  bool grows;             /* GROW steps make room; else it happens before step `born` */
  bool in_loop;           /* born inside a loop */
} zn_wsbuf;

typedef enum zn_step_kind {
  ZN_STEP_CALL,
  ZN_STEP_SYM,        /* symbol := element `elem` (dtype) of the buffer, floats times a; without buffer a */
  ZN_STEP_IF,         /* when bool element 0 of the buffer is true */
  ZN_STEP_IF_OVER,    /* when the output (loc) lies over input `elem` */
  ZN_STEP_ELSE,
  ZN_STEP_ENDIF,
  ZN_STEP_LOOP,       /* repeat: until `a` (expr or NONE) turns or the bool buffer (or NONE) is false; counts in symbol `sym`, and
                         kernels of its body in the i64 buffer `count`, unless that is NONE */
  ZN_STEP_ENDLOOP,
  ZN_STEP_REQUIRE,    /* return `code` unless a == b, or a == 1 when or_one */
  ZN_STEP_CHECK,      /* the run ends when a kernel so far has failed */
  ZN_STEP_IMAGE,      /* the host decodes: the buffer holds two zn_tensors, file and image; `code` is the zn_pixels; args: what
                         the two point to */
  ZN_STEP_GROW        /* the buffer has room for `a` bytes and keeps its first `b` (NONE: nothing); for unbounded ones */
} zn_step_kind;

typedef struct zn_arg { /* of a call: a buffer or an integer expression */
  bool is_int;
  zn_loc loc;
  zn_expr e;
  zn_kparam_kind access;
} zn_arg;

typedef struct zn_step {
  zn_step_kind kind;
  uint32_t fn;
  zn_arg *args;
  uint32_t num_args, cap_args;
  zn_expr grid, a, b, sym;
  zn_loc loc, count;
  uint32_t elem;
  zn_dtype dtype;
  int32_t code;
  bool or_one;
  bool flow; /* IF, LOOP: a device can decide it by itself (flow.c) */
  bool tells; /* LOOP of that kind: behind it, the host needs to know how many turns there were */
  bool counted, inexact; /* CALL of several (together.c): what they cost is known as the parts were, not from the kernel */
  double flops, bytes;
} zn_step;

typedef struct zn_stable { /* a table of constant strings: strvalue.c */
  const zn_str *s;
  uint64_t n;
  zn_loc at;
} zn_stable;

typedef struct zn_counter { /* a loop's turns so far, as kernels of a device find them */
  zn_expr sym;
  zn_loc at;
} zn_counter;

typedef struct zn_lwlen { /* known number of items of list v of g: lists.h */
  const zn_graph *g;
  zn_vid v;
  zn_expr len;
} zn_lwlen;

struct zn_lw {
  zn_ctx *ctx;
  zn_arena *arena;
  zn_graph *g;       /* the graph being lowered: main or a body */
  zn_exprs *ex;
  zn_kmod *mod;
  const zn_caps *caps;        /* of the part that the current kernels are for */
  const zn_caps *device_caps; /* as compiled for */
  bool on_host;               /* kernels are for the processor beside the device (sides.c) */
  const bool *host_values;    /* per value of g: computed from what only the host has; NULL: there is none */
  const zn_lower_opts *opts;
  /* program */
  zn_step *steps;
  uint32_t num_steps, cap_steps;
  zn_wsbuf *bufs;
  uint32_t num_bufs, cap_bufs;
  zn_part *parts;
  uint32_t num_parts, cap_parts;
  zn_loc *loc;       /* per value of g */
  uint32_t *out_heap; /* per output: workspace buffer that holds it, UINT32_MAX: the caller's */
  zn_loc overlays;      /* of the entries: the same, as a constant */
  uint32_t *over_input; /* per output: the input it may lie over plus one, 0: none (over_input.c); NULL until it is known */
  zn_stable *tables;
  uint32_t num_tables, cap_tables;
  zn_counter *counters;
  uint32_t num_counters, cap_counters;
  zn_lwlen *lens;
  uint32_t num_lens, cap_lens;
  struct { const void *key, *data; } *memo; /* what point lowerings computed for a node */
  uint32_t num_memo, cap_memo;
  struct zn_sharing *sharing; /* storage shared among the values of g (inplace.h) */
  uint32_t err_buf;  /* workspace buffer of the i32 error cell; UINT32_MAX until somebody needs it */
  struct { const zn_graph *g; zn_nid n; const char *text; } signature; /* of the node that was asked for last */
  /* current kernel */
  zn_kb kb;
  zn_step *cur;
  uint32_t kernel_fn;
  zn_nid node;       /* root node of the current group */
  struct { zn_vid v; zn_kref k; } over[ZN_LW_MAX_OVERRIDES];
  uint32_t num_over;
  struct { zn_loc loc; zn_kparam_kind access; zn_kref k; } *ptrs; /* pointer parameters so far */
  uint32_t num_ptrs, cap_ptrs;
  struct { zn_expr e; zn_kref k; } *ints;                         /* integer parameters so far */
  uint32_t num_ints, cap_ints;
  uint32_t kernel_count;
  bool open_real[ZN_LW_MAX_LOOPS]; /* loops of extent 1 are not emitted */
  uint32_t num_open;
  bool once;         /* the kernel emits each element once (zn_lw_in_place) */
  struct zn_deferred *deferred; /* sums that the next kernel may add up (deferred.h) */
  zn_kref emitted;   /* what zn_lw_emit stored last, as its readers would load it */
  zn_nid *epilogue;  /* nodes fused behind the root whose outputs are stored, in order */
  uint32_t num_epilogue;
  bool failed;       /* some operator was reported: keep going to report all */
};

/* ---- kernels ---- */
/* Kernels from here on are for the host of a device (true) or for the device; returns what it was. Targets that are no device
 * have one part: nothing happens. */
bool zn_lw_side(zn_lw *lw, bool host);
/* Starts a kernel for the group of node n; hint becomes part of its name ("conv", "softmax_sum"). */
void zn_lw_kernel(zn_lw *lw, zn_nid n, const char *hint);
void zn_lw_kernel_end(zn_lw *lw);
/* lw->epilogue for the root lw->node. */
void zn_lw_find_epilogue(zn_lw *lw);
/* Directly behind zn_lw_kernel, in schedules that emit each element of the result exactly once (no tile computed twice)
 * and read the epilogue's operands only for the element they emit: an operand that dies here gives its buffer to the
 * result. own: bit i = the root's input i, of the result's shape, is not read at an element after that was emitted. */
void zn_lw_in_place(zn_lw *lw, uint32_t own);
/* One grid loop over the product of n extents; vars[i] get the loop variables (outermost first). Once per kernel, at top
 * level, closed with zn_lw_end. n may be 0 (one iteration). */
/* The longest line that a kernel may keep on the stack, which microcontrollers have little of. */
int64_t zn_lw_line_bytes(const zn_lw *lw);
/* Opens two loops over n elements of a line in whole vectors; the last one starts earlier instead of being shorter. */
zn_expr zn_lw_for_line(zn_lw *lw, zn_dtype t, int64_t n);
void zn_lw_grid(zn_lw *lw, uint32_t n, const zn_expr *extents, zn_expr *out_vars);
/* Loop 0..extent-1; factor: lanes or replication for VECTOR and UNROLL, 0 = the target's vector width / extent. */
zn_expr zn_lw_for(zn_lw *lw, zn_expr extent, zn_for_kind kind, unsigned factor);
void zn_lw_end(zn_lw *lw); /* closes the innermost loop or if */
/* A kernel value as index variable with 0 <= value < extent (a loaded index, a computed position). */
zn_expr zn_lw_as_expr(zn_lw *lw, zn_kref idx_value, zn_expr extent);
/* Code (idx) for an expression at this place. Sub-expressions without loop variables become integer parameters. */
zn_kref zn_lw_ix(zn_lw *lw, zn_expr e);
/* A loaded index as expression in [0, extent): negative ones count from the end; outside: error code, 0. */
zn_expr zn_lw_checked_index(zn_lw *lw, zn_kref raw, zn_expr extent);
/* 0 <= e < n as a bool value; folds when provable. */
zn_kref zn_lw_in_range(zn_lw *lw, zn_expr e, zn_expr n);

/* ---- all elements of a tensor (elements.c) ---- */
/* Opens loops over the elements of v in the order of its layout, vector lanes innermost: one grid loop and loops inside
 * it. Where lanes are channels, up to `side` neighbouring pixels are taken at once. Returns how many times zn_lw_end closes
 * them. */
int zn_lw_over(zn_lw *lw, zn_vid v, unsigned side, zn_expr *out_idx);
/* Copies between the plain and the blocked form of an image as transposed tiles (reorder.c): false when Identity n is no
 * such copy, and nothing is emitted then. */
bool zn_lower_reorder(zn_lw *lw, zn_nid n);
/* Transposes the square of n vectors of n lanes: n a power of two, ZN_LW_MAX_SQUARE at most. */
enum { ZN_LW_MAX_SQUARE = 16 };
void zn_lw_transpose_square(zn_lw *lw, zn_kref *v, unsigned n);
/* A kernel of node n that clears the halo of stored value v, if it has one. */
void zn_lw_clear_halo(zn_lw *lw, zn_nid n, zn_vid v);

/* ---- elements ---- */
/* The type values of dtype t have inside kernels: f16 bf16 f8* f4 -> f32, 2/4-bit ints -> i8/u8, str -> ptr (the address
 * of the element's descriptor: strvalue.h), c128 -> ptr (the address of its 16 bytes), c64 -> u64 (its bits), others
 * themselves. Complex elements are only moved. */
zn_dtype zn_lw_ctype(zn_dtype t);
/* Zero of a compute type; of those that are handled by address (ZN_PTR) the empty string, which is complex zero too. */
zn_kref zn_lw_zero(zn_lw *lw, zn_dtype ctype);
/* Element of value v at idx (one expression per axis), in its ctype: from a register override, an immediate, the point
 * lowering of its producer (inlined), or memory. */
zn_kref zn_lw_load(zn_lw *lw, zn_vid v, const zn_expr *idx);
/* idx has the rank of `shape_like`'s broadcast result: drops leading axes and puts 0 (or a run-time choice) where v's
 * dim is 1: numpy broadcasting of v to dims out[rank]. */
zn_kref zn_lw_load_bcast(zn_lw *lw, zn_vid v, int rank, const zn_expr *out_dims, const zn_expr *idx);
/* Stores k (ctype or any numeric type: converted) as element idx of v. */
void zn_lw_store(zn_lw *lw, zn_vid v, const zn_expr *idx, zn_kref k);
/* For kernel lowerings: element idx of output v of the root is k. Runs the fused epilogue and stores what is stored. */
void zn_lw_emit(zn_lw *lw, zn_vid v, const zn_expr *idx, zn_kref k);
/* Converts between kernel types; `saturate` only for float8/4 encodings. */
zn_kref zn_lw_convert(zn_lw *lw, zn_kref k, zn_dtype from, zn_dtype to, bool saturate);
/* A number to the code of an f8e8m0, by Cast's round_mode (zn_lw_convert: up). */
zn_kref zn_lw_to_e8m0(zn_lw *lw, zn_kref k, const char *mode, bool saturate);
/* The real (0) or imaginary (1) part of a c64 or c128 in its ctype, as f32 or f64. */
zn_kref zn_lw_part(zn_lw *lw, zn_kref k, zn_dtype t, int part);
/* Stores the complex number of these parts as element `off` of p (of u64, as zn_lw_ptr gives it). */
void zn_lw_store_complex(zn_lw *lw, zn_kref p, zn_dtype t, zn_expr off, zn_kref re, zn_kref im);
/* dtype of a kernel value */
zn_dtype zn_lw_kdtype(const zn_lw *lw, zn_kref k);
/* Rounds a ctype value to what storing it as t and loading it back gives (f16, bf16, float8, 4-bit). */
zn_kref zn_lw_round_to(zn_lw *lw, zn_kref k, zn_dtype t);

/* ---- raw memory, for schedules that know what they do ---- */
bool zn_lw_is_stored(const zn_lw *lw, zn_vid v); /* lives in memory (not inlined) */
/* Stored plainly and aligned to 16 bytes at least: in a buffer of ours, or anywhere on a device. */
bool zn_lw_in_workspace(zn_lw *lw, zn_vid v);
/* Flat element offset of idx in v's layout. */
zn_expr zn_lw_offset(zn_lw *lw, zn_vid v, const zn_expr *idx);
/* Pointer parameter for v's buffer (value must be stored). */
zn_kref zn_lw_ptr(zn_lw *lw, zn_vid v, zn_kparam_kind access);
zn_kref zn_lw_ptr_loc(zn_lw *lw, zn_loc loc, zn_kparam_kind access, zn_dtype dtype);
/* Raw load/store at a flat element offset, converting to/from ctype. */
zn_kref zn_lw_load_at(zn_lw *lw, zn_kref ptr, zn_dtype t, zn_expr offset);
void zn_lw_store_at(zn_lw *lw, zn_kref ptr, zn_dtype t, zn_expr offset, zn_kref k);
/* Where stored value v lives; assigns a place on first use. */
zn_loc zn_lw_loc(zn_lw *lw, zn_vid v);
/* Does stored value v lie inside the buffer of `whole` (sharing.c), so that it needs no copy there? */
bool zn_lw_lies_in(const zn_lw *lw, zn_vid v, zn_vid whole);
/* The same for bands (zn_value.within): are the rows of `part` those of `whole` from row `first` on? Slice n: is its result
 * such a part of its operand? */
bool zn_lw_rows_lie_in(const zn_lw *lw, zn_vid part, zn_vid whole, int64_t first);
bool zn_lw_is_window(const zn_lw *lw, zn_nid n);
/* The `bytes` bytes of `whole` from byte `at` on. */
zn_loc zn_lw_inside(zn_lw *lw, zn_loc whole, uint64_t at, uint64_t bytes);
/* A workspace buffer for the steps of the current node only. */
zn_loc zn_lw_scratch(zn_lw *lw, zn_expr bytes);
/* A buffer that other values point into: it is valid, unchanged, until the caller has read the outputs. */
zn_loc zn_lw_keep(zn_lw *lw, zn_expr bytes);
/* Between kernels: before the next one the buffer of `bytes` bytes is made, its first `used` (NONE: none) kept. Needed for
 * buffers that are written in several branches, or piece by piece in a loop. Does nothing when the size is bounded. */
void zn_lw_grow(zn_lw *lw, zn_loc loc, zn_expr bytes, zn_expr used);
/* Bytes of a value of type t: its elements, or a zn_tensor for lists. */
zn_expr zn_lw_bytes(zn_lw *lw, const zn_type *t);
/* Storage of v for readers in memory: known contents (shape arithmetic) are written out first. */
zn_loc zn_lw_source(zn_lw *lw, zn_nid n, zn_vid v);
/* A packed or computed constant: data is borrowed. */
zn_loc zn_lw_const(zn_lw *lw, const char *name, zn_dtype t, uint64_t count, const void *data);
/* The same, produced by fill(user, dst) when it is written: user and what it refers to live as long as the graph. */
zn_loc zn_lw_const_fill(zn_lw *lw, const char *name, zn_dtype t, uint64_t count,
                        void (*fill)(const void *user, void *dst), const void *user);
/* Constant contents of v (cst), or NULL. */
const zn_htensor *zn_lw_cst(const zn_lw *lw, zn_vid v);
/* if (cond) the run reports `code` (zn_result) and results are unspecified. Not inside vector loops. */
void zn_lw_fail_if(zn_lw *lw, zn_kref cond, int32_t code);
/* After the kernel that computes it: symbol sym takes the i64 stored at loc. */
void zn_lw_define_sym(zn_lw *lw, zn_expr sym, zn_loc loc);
void zn_lw_define_sym_at(zn_lw *lw, zn_expr sym, zn_loc loc, uint32_t elem);
/* Between kernels: the run ends when one of those before it has failed (what follows relies on its results). */
void zn_lw_check(zn_lw *lw);
/* Between kernels: symbol sym takes the value of e. */
void zn_lw_set_sym(zn_lw *lw, zn_expr sym, zn_expr e);
/* Between kernels: the run fails with ZN_RUN_SHAPE unless a <= b. */
void zn_lw_require_le(zn_lw *lw, zn_expr a, zn_expr b);
/* Between kernels: the symbols that stand for v's own elements (zn_value.content, scaled) are read from v. */
void zn_lw_define_content(zn_lw *lw, zn_vid v);
/* Flat copy between stored tensors of type t (same layout), a kernel of node n. */
void zn_lw_copy(zn_lw *lw, zn_nid n, const zn_type *t, zn_loc from, zn_loc to);
/* The same to element `first` on. */
void zn_lw_copy_at(zn_lw *lw, zn_nid n, const zn_type *t, zn_loc from, zn_loc to, zn_expr first);

/* ---- knobs: decisions that measurements may overrule ---- */
/* For the kernels of node n: `usual`, the model's choice, or another of the n choices, all of which are right. */
int64_t zn_lw_knob(zn_lw *lw, zn_nid node, const char *knob, int64_t usual, const int64_t *choices, uint32_t n);
/* Is v none of found[0 .. n)? Choices that lead to the same thing are one. */
static inline bool zn_lw_is_new(const int64_t *found, uint32_t n, int64_t v) {
  while (n && found[n - 1] != v) n--;
  return n == 0;
}
/* The same where there may be more candidates than choices: a place in codes[]; `usual` and those with the highest scores are
 * the choices. */
uint32_t zn_lw_knob_best(zn_lw *lw, zn_nid node, const char *knob, uint32_t usual, const int64_t *codes, const double *scores,
                         uint32_t n);

/* What a point lowering has found out once for all its elements, by an address that stands for the question; NULL: nothing. */
void *zn_lw_memo_find(const zn_lw *lw, const void *key);
void zn_lw_memo_add(zn_lw *lw, const void *key, const void *data);

/* ---- small conveniences ---- */
static inline const zn_node *zn_lw_node(const zn_lw *lw, zn_nid n) { return &lw->g->nodes[n]; }
static inline const zn_type *zn_lw_type(const zn_lw *lw, zn_vid v) { return &lw->g->vals[v].type; }
static inline zn_expr zn_lw_dim(const zn_lw *lw, zn_vid v, int axis) { return lw->g->vals[v].type.dims[axis]; }
/* Vector lanes the target has for dtype t (1 when it has none). */
unsigned zn_lw_lanes(const zn_lw *lw, zn_dtype t);
/* The map schedule: computes stored value v element by element through its producer's point lowering. */
zn_status zn_lower_value_map(zn_lw *lw, zn_nid n, zn_vid v);
/* Evaluates a scalar.def row on kernel values (in[i] ctype of input i, 0 = absent optional). */
zn_kref zn_lower_scalar(zn_lw *lw, zn_nid n, const zn_kref *in, uint32_t num_in);
/* Lowers nodes of a body graph in place of the current position (control flow): see control.c. */
zn_status zn_lower_nodes(zn_lw *lw);

#define OP(name, domain, since, schema, infer, eval, expand, lower, flags) extern const zn_lower zn_lower_##lower;
#include "zenithc/ops/ops.def"
#undef OP
extern const zn_lower zn_lower_none;
#endif
