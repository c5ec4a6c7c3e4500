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
/* cost.c: mod->costs, and which kernels are serial. */
void zn_lower_costs(zn_lw *lw);
/* Lifetimes from the steps, then offsets: constant sizes by largest-first first-fit, symbolic sizes by slot sharing. */
zn_plan zn_plan_memory(zn_lw *lw, zn_plan_stats *out_stats);
/* Builds NAME_plan and NAME_run. */
void zn_entry_build(zn_lw *lw, const zn_plan *plan);
#endif
