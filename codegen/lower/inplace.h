/* Who shares storage with whom, for one graph: inside codegen/lower. */
#ifndef ZN_INPLACE_H
#define ZN_INPLACE_H
#include "codegen/lower/lower.h"

/* Storage decisions for the values of g, made before its nodes are lowered. A value's root is the value that owns its
 * buffer: behind aliases (reshapes) and, for parts, the whole they lie in. */
typedef struct zn_sharing {
  const zn_graph *g;
  uint32_t *run_at;   /* node -> position in g->order at which its kernel runs (inlined ones: where their last reader does) */
  zn_vid *part_of;    /* operands of Concat, pieces of Split: the value in whose buffer they lie; 0: none */
  uint64_t *part_at;  /* at this byte offset */
  uint32_t *last_use; /* by root: last position that reads it; UINT32_MAX: it never dies */
  bool *took_over;    /* the value lies in the buffer of an operand of its kernel */
  uint32_t position;  /* in g->order, of what is being lowered */
} zn_sharing;

/* over_input.c: lw->over_input, once the sharing of the main graph is known. */
void zn_over_input_find(zn_lw *lw);
/* May `to` lie over `from`, the beginning of which it is a copy of? */
bool zn_over_input(const zn_lw *lw, zn_loc from, zn_loc to);
/* Between kernels: what follows runs if output `to` lies over its input, what follows Else if it does not, up to End. */
void zn_over_input_if(zn_lw *lw, zn_loc to);
void zn_over_input_else(zn_lw *lw);
void zn_over_input_end(zn_lw *lw);

zn_sharing *zn_sharing_find(zn_lw *lw, const zn_graph *g);
zn_vid zn_sharing_alias_root(const zn_graph *g, zn_vid v);
zn_vid zn_sharing_root(const zn_sharing *s, zn_vid v);
#endif
