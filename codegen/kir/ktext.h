/* The .zk text with constants in a companion file. */
#ifndef ZN_KTEXT_H
#define ZN_KTEXT_H
#include "codegen/kir/kir.h"

/* As zn_kmod_print, but constants of more than 256 bytes are written as `bin "bin_name" OFFSET`.
 * bin_name NULL: all inline. */
void zn_kmod_print_split(const zn_kmod *m, zn_text *t, const char *bin_name);
/* Offset of k in the companion file, or UINT64_MAX when it stays inline; call in order of the
 * constants with *pos starting at 0 (it becomes the end of k). The gaps between constants are zero
 * bytes. */
uint64_t zn_kconst_place(const zn_kconst *k, uint64_t *pos);
#endif
