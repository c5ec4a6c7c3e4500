/* Between program.c, plan.c and entry.c: the memory plan. */
#ifndef ZN_PROGRAM_H
#define ZN_PROGRAM_H
#include "codegen/lower/lower.h"

typedef struct zn_plan {
  uint64_t static_bytes; /* buffers of constant size: offsets in zn_wsbuf.offset */
  zn_expr *slots;        /* sizes of the dynamic slots, behind the static part, each rounded up to 64 */
  uint32_t num_slots;
} zn_plan;

/* Lifetimes from the steps, then offsets: constant sizes by largest-first first-fit, symbolic sizes by slot sharing. */
zn_plan zn_plan_memory(zn_lw *lw, zn_plan_stats *out_stats);
/* Builds NAME_plan and NAME_run. */
void zn_entry_build(zn_lw *lw, const zn_plan *plan);
#endif
