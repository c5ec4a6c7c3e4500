/* Between program.c, plan.c and entry.c: the memory plan. */
#ifndef ZN_PROGRAM_H
#define ZN_PROGRAM_H
#include "codegen/lower/lower.h"

typedef struct zn_slot { /* place for buffers of symbolic size that are never alive together */
  zn_expr *sizes;        /* distinct sizes of its tenants; the run takes the largest */
  uint32_t num_sizes, cap_sizes;
  uint32_t busy_until;   /* last step of the latest tenant */
} zn_slot;

typedef struct zn_plan {
  uint64_t static_bytes; /* buffers of constant size: offsets in zn_wsbuf.offset */
  zn_slot *slots;        /* behind the static part, each rounded up to 64 bytes */
  uint32_t num_slots;
} zn_plan;

/* Steps that refuse a run whose sizes or lists of axes do not suit node n (require.c); sizes of point operators, which may
 * never become kernels, that only data decide. */
void zn_lower_require(zn_lw *lw, zn_nid n);
/* The length of a Range of floats (view.c). */
void zn_lower_range_length(zn_lw *lw, zn_nid n);
/* The dtype field of a value's zn_tensor. */
uint32_t zn_lw_code(const zn_type *t);
enum { ZN_TENSOR_BYTES = 88 }; /* zn_tensor */
/* Largest value of a data-dependent symbol, over other symbols; ZN_EX_NONE when there is none. */
zn_expr zn_lw_sym_bound(zn_lw *lw, zn_expr sym);
/* An expression of what plan knows that x never exceeds; ZN_EX_NONE when there is none. */
zn_expr zn_lw_bound(zn_lw *lw, zn_expr x);
/* Unbounded outputs move to buffers of their own; every unbounded buffer gets its cell. Before the plan. */
void zn_plan_heap(zn_lw *lw);
/* Kernels with equal bodies become one function. */
void zn_lower_dedupe(zn_lw *lw);
/* together.c: calls that are independent and small become one, where a launch costs. */
void zn_lower_together(zn_lw *lw);
/* cost.c. Adds what a call computes and moves; false: more than that, data decides. */
bool zn_lower_call_cost(zn_lw *lw, const zn_step *call, double *flops, double *bytes);
/* cost.c: mod->costs, and which kernels are serial. */
void zn_lower_costs(zn_lw *lw);
/* Lifetimes from the steps, then offsets: constant sizes by largest-first first-fit, symbolic sizes by slot sharing. */
zn_plan zn_plan_memory(zn_lw *lw, zn_plan_stats *out_stats);
/* sides.c: device artifacts of two parts. Strings, lists and what is computed from them are the host's, everything else the
 * device's; places that both touch are kept alike by Share. */
/* lw->host_values for lw->g. */
const bool *zn_side_values(zn_lw *lw);
/* Must the kernels of node n's group run on the host? */
bool zn_side_of_group(const zn_lw *lw, zn_nid n);
/* Is a value of type t the host's alone? */
static inline bool zn_side_of_type(const zn_type *t) { return t->kind != ZN_V_TENSOR || t->dtype == ZN_STR; }
/* flow.c: marks the If and Loop steps whose regions a device can run without asking the host (zn_step.flow). */
bool zn_flow_find(zn_lw *lw, bool mixed); /* are there any? */
/* May the loop of body graph g, that n turns of it at most (NONE: unknown) run while the data says so (data), count its turns
 * on the device? False where a host unrolls it into the recorded run. */
bool zn_flow_counts(zn_lw *lw, zn_graph *g, zn_expr n, bool data);
typedef struct zn_sides {
  bool mixed;                /* there is something for the host to do or to keep; else the rest is empty */
  uint8_t *buf, *in, *out;   /* per workspace buffer, input, output: bit 0 a kernel of the host touches it, bit 1 the device */
} zn_sides;
enum { ZN_SIDE_HOST = 1, ZN_SIDE_DEVICE = 2 };
zn_sides zn_sides_find(zn_lw *lw);
uint8_t zn_side_of_step(const zn_lw *lw, const zn_step *s); /* of a step that computes: CALL or IMAGE */
/* Reports, for a device, what its artifact leaves to the host. */
void zn_sides_report(zn_lw *lw);
/* Builds NAME_plan and NAME_run. */
void zn_entry_build(zn_lw *lw, const zn_plan *plan);
#endif
