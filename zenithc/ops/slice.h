/* Slice resolved to index arithmetic, shared by inference and lowering: along axis d the output takes count[d] elements from
 * start[d] on, step[d] apart (ONNX Slice-13, with its clamping), all as expressions, whether known or not. */
#ifndef ZN_SLICE_H
#define ZN_SLICE_H
#include "zenithc/ops/op.h"

/* Arrays of ZN_MAX_RANK. False when starts, ends, axes or steps have contents that inference did not name. */
bool zn_slice_resolve(const zn_graph *g, const zn_node *n, zn_expr *out_start, zn_expr *out_step, zn_expr *out_count);
#endif
