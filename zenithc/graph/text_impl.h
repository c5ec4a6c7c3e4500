/* Inside the .zg text: what its printer and parser share with the contents of constants. */
#ifndef ZN_TEXT_IMPL_H
#define ZN_TEXT_IMPL_H
#include "zenithc/graph/graph.h"

/* "f32[N,4]", "f32[*]" of unknown rank, "?[*]", "seq(..)", "opt(..)", "map(i64, ..)". */
void zn_zg_print_type(const zn_exprs *ex, const zn_type *y, zn_text *t);
zn_status zn_zg_parse_type(zn_exprs *ex, zn_lexer *l, zn_type *out);

/* The contents behind a static tensor type: "[1, 2]", "zeros", "fill(2)", "iota", "rand(seed)",
 * "rand(seed, lo, hi)", "file \"x\"+8", "opaque(hash)". */
void zn_zg_print_data(const zn_htensor *h, zn_text *t);
zn_status zn_zg_parse_data(zn_lexer *l, zn_arena *a, const char *base_dir, zn_htensor *h);
/* A number as one element of dtype t that reads back exactly. */
void zn_zg_print_number(zn_dtype t, double x, zn_text *out);
#endif
