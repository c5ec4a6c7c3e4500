/* Fused attention on matrix units (attend.c): MatMul n, whose left operand is a Softmax that fusion left inside. */
#ifndef ZN_LOWER_ATTEND_H
#define ZN_LOWER_ATTEND_H
#include "codegen/lower/lower.h"

bool zn_lower_attends(const zn_lw *lw, zn_nid n);
zn_status zn_lower_attend(zn_lw *lw, zn_nid n);
#endif
