/* Fused attention: MatMul n, whose left operand fusion left inside its kernel (zenithc/ops/attention_form.h). */
#ifndef ZN_LOWER_ATTEND_H
#define ZN_LOWER_ATTEND_H
#include "codegen/lower/lower.h"

bool zn_lower_attends(const zn_lw *lw, zn_nid n);
zn_status zn_lower_attend(zn_lw *lw, zn_nid n);
/* attend_strip.c: the same with vectors. */
zn_status zn_lower_attend_strip(zn_lw *lw, zn_nid n);
/* Are `count` elements along the axis, from a multiple of `count` on, neighbours in memory (on SIMT targets: in aligned
 * memory), read through the views and scales of v? */
bool zn_attend_runs_along(zn_lw *lw, zn_vid v, int axis, int64_t count);
#endif
