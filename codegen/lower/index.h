/* Index arithmetic on kernel values, for schedules that place threads and copies by hand. */
#ifndef ZN_LOWER_INDEX_H
#define ZN_LOWER_INDEX_H
#include "codegen/kir/kir.h"

static inline zn_kref zn_i_add(zn_kb *b, zn_kref x, zn_kref y) { return zn_kb_bin(b, ZN_K_Add, x, y); }
static inline zn_kref zn_i_addi(zn_kb *b, zn_kref x, int64_t v) { return zn_kb_bin(b, ZN_K_Add, x, zn_kb_idx(b, v)); }
static inline zn_kref zn_i_muli(zn_kb *b, zn_kref x, int64_t v) { return zn_kb_bin(b, ZN_K_Mul, x, zn_kb_idx(b, v)); }
static inline zn_kref zn_i_divi(zn_kb *b, zn_kref x, int64_t v) { return zn_kb_bin(b, ZN_K_Div, x, zn_kb_idx(b, v)); }
static inline zn_kref zn_i_remi(zn_kb *b, zn_kref x, int64_t v) { return zn_kb_bin(b, ZN_K_Rem, x, zn_kb_idx(b, v)); }
#endif
