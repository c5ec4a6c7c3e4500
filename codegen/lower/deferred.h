/* Sums of a product's parts that wait for their reader (gemm_simt.c). When the depth of a product is cut, its results exist
 * only once the parts are added up and the epilogue has run. Usually that is a kernel of its own; a normalisation of the
 * results' rows that comes next does it on the way instead. */
#ifndef ZN_DEFERRED_H
#define ZN_DEFERRED_H
#include "codegen/lower/gemm.h"

typedef struct zn_deferred {
  zn_gemm g;      /* user outlives the lowering */
  zn_loc partial; /* [part][batch][m][n] */
  unsigned parts;
  zn_vid result;  /* what the group stores last: element [batch..., m, n] */
} zn_deferred;

/* The row-wise normalisation that can add up the parts of g: its operand, or 0. */
zn_vid zn_deferred_reader(const zn_lw *lw, const zn_gemm *g);
void zn_defer(zn_lw *lw, const zn_gemm *g, zn_loc partial, unsigned parts, zn_vid result);
/* In the kernel of another group: the sum of element [batch..., m, n], after the product's epilogue, which is run and stored. */
zn_kref zn_deferred_element(zn_lw *lw, const zn_deferred *d, const zn_expr *at);
/* Before another kernel than the reader's: a kernel for what waits, if anything does. */
void zn_deferred_flush(zn_lw *lw);
#endif
