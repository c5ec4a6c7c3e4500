/* String elements inside kernels. A string tensor is an array of zn_string descriptors (runtime/zenith.h): an address of 8
 * bytes and a length of 8 bytes. The kernel value of an element is the address of its descriptor (type PTR), so whatever
 * only moves elements moves 16 bytes. Bytes are never owned by a tensor: they lie in the caller's inputs, in the artifact
 * or in memory that lives until the caller is done with the outputs (zn_lw_keep), and never change. */
#ifndef ZN_STRVALUE_H
#define ZN_STRVALUE_H
#include "codegen/lower/lower.h"

enum { ZN_STR_BYTES = 16 };

zn_kref zn_sv_len(zn_lw *lw, zn_kref s);  /* idx value */
zn_kref zn_sv_data(zn_lw *lw, zn_kref s); /* address of the first byte */
/* Writes the descriptor at address s. */
void zn_sv_set(zn_lw *lw, zn_kref s, zn_kref data, zn_kref len);
/* Copies a descriptor. */
void zn_sv_copy(zn_lw *lw, zn_kref to, zn_kref from);
/* idx value < 0, 0, > 0: order of the bytes, then of the lengths. */
zn_kref zn_sv_compare(zn_lw *lw, zn_kref a, zn_kref b);
zn_kref zn_sv_compare_bytes(zn_lw *lw, zn_kref pa, zn_kref na, zn_kref pb, zn_kref nb);
zn_kref zn_sv_equal(zn_lw *lw, zn_kref a, zn_kref b); /* bool value */
/* n bytes from src to dst. */
void zn_sv_move(zn_lw *lw, zn_kref dst, zn_kref src, zn_kref n);

typedef struct zn_spool { /* constant strings as bytes: string k is bytes [offset k, offset k+1) of the pool */
  zn_loc bytes, offsets;  /* u8; n+1 i64 */
} zn_spool;
zn_spool zn_sv_pool(zn_lw *lw, const zn_str *s, uint64_t n);
/* Address and length of string k (idx value). */
void zn_sv_pool_at(zn_lw *lw, const zn_spool *p, zn_kref k, zn_kref *out_data, zn_kref *out_len);
/* Constant strings as string tensor: descriptors are made at the start of every run. The array s names the table: asking
 * twice gives the same one. */
zn_loc zn_lw_strings(zn_lw *lw, const zn_str *s, uint64_t n);
/* Behind all nodes: the kernels that make the tables, placed before all other steps. */
void zn_lw_make_tables(zn_lw *lw);
#endif
