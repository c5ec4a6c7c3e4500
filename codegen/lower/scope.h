/* Bodies of control flow, lowered in place: shared by control.c and seqmap.c. */
#ifndef ZN_SCOPE_H
#define ZN_SCOPE_H
#include "codegen/lower/lower.h"

typedef struct zn_lscope { /* of the graph being lowered */
  zn_graph *g;
  zn_loc *loc;
} zn_lscope;

zn_lscope zn_scope_new(zn_lw *lw, zn_graph *body);
/* Makes s current; returns the one before. */
zn_lscope zn_scope_enter(zn_lw *lw, zn_lscope s);
/* The trailing inputs of the body, from `own` on, are the storage of node n's captured values. */
void zn_scope_captures(zn_lw *lw, zn_nid n, zn_lscope body, uint32_t own);
/* The body's nodes, here. */
zn_status zn_scope_lower(zn_lw *lw, zn_lscope body);
/* Error unless the node's and the body's values are of kinds that have storage. */
zn_status zn_scope_check(zn_lw *lw, zn_nid n, const zn_graph *body);
static inline void zn_lw_push(zn_lw *lw, zn_step s) {
  ZN_PUSH(lw->arena, lw->steps, lw->num_steps, lw->cap_steps, s);
}
#endif
