/* Integer contractions: operands centred on their zero points, and the way back from an exact sum to a quantised result. */
#ifndef ZN_REQUANT_H
#define ZN_REQUANT_H
#include "codegen/lower/lower.h"

/* x - zero as type t (I16 and I32 hold every 8-bit difference); zero may be 0 (absent). */
zn_kref zn_centre(zn_lw *lw, zn_kref x, zn_kref zero, zn_dtype t);
/* round(acc * scale) + zero, saturated to t (float8: encoded); ctype of t. scale is F64 or F32, zero has the ctype of t. */
zn_kref zn_requantize(zn_lw *lw, zn_kref acc, zn_kref scale, zn_kref zero, zn_dtype t);
/* The type scales are multiplied in: F64 where the target has it, else F32. */
zn_dtype zn_requant_type(const zn_lw *lw);
/* sa * sb / sy in zn_requant_type. */
zn_kref zn_requant_scale(zn_lw *lw, zn_kref sa, zn_kref sb, zn_kref sy);
/* Element type that holds w - zero for all of a constant w: its own, or I16. `zero` 0: none.
 * ZN_NONE when something is not constant. */
zn_dtype zn_centred_type(const zn_lw *lw, zn_vid w, zn_vid zero);
#endif
