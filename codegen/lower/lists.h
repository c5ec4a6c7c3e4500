/* Sequences, optionals and maps in kernels. Such a value is a zn_tensor (runtime/zenith.h) of a list kind: `data` points to
 * shape[0] zn_tensors. Its storage (zn_lw_loc) is that one zn_tensor of 88 bytes, so copying a sequence copies 88 bytes:
 * items, their elements and the bytes of strings never change and stay until the caller has read the outputs (zn_lw_keep,
 * inputs, constants). An item taken out is not copied either: its storage is a cell with the address (ZN_LOC_CELL). */
#ifndef ZN_LISTS_H
#define ZN_LISTS_H
#include "codegen/lower/program.h"
#include "codegen/lower/sortkeys.h"

enum { ZN_T_DATA = 0, ZN_T_BYTES = 8, ZN_T_DTYPE = 16, ZN_T_RANK = 20, ZN_T_SHAPE = 24 }; /* fields of zn_tensor */

/* ---- inside kernels; t, list: addresses of zn_tensors ---- */
zn_kref zn_ls_field(zn_lw *lw, zn_kref t, int field, zn_dtype type);
zn_kref zn_ls_dim(zn_lw *lw, zn_kref t, int d); /* idx value */
zn_kref zn_ls_count(zn_lw *lw, zn_kref list);   /* of items: idx value */
zn_kref zn_ls_at(zn_lw *lw, zn_kref tensors, zn_kref i); /* address of zn_tensor number i of an array */
zn_kref zn_ls_item(zn_lw *lw, zn_kref list, zn_kref i);
void zn_ls_copy(zn_lw *lw, zn_kref to, zn_kref from);
/* Writes the zn_tensor at t; dims: idx values. */
void zn_ls_write(zn_lw *lw, zn_kref t, zn_kref data, zn_kref bytes, uint32_t code, uint32_t rank, const zn_kref *dims);
/* The same for a list of n items at `items`. */
void zn_ls_write_list(zn_lw *lw, zn_kref t, zn_kref items, zn_kref n, uint32_t code);
/* Pointer parameter for list v's zn_tensor. */
zn_kref zn_ls_ptr(zn_lw *lw, zn_vid v, zn_kparam_kind access);
/* Position v (absent: otherwise) in [0, n): negative ones count from the end. out_ok: is it inside? */
zn_kref zn_ls_position(zn_lw *lw, zn_vid v, zn_kref n, zn_kref otherwise, zn_kref *out_ok);

/* ---- between kernels ---- */
/* Copies a value of type `from` to storage of type `to`: the same, or a sequence that becomes the item of an optional, or
 * the other way round (a state of a loop may start as an empty optional). */
void zn_ls_convert(zn_lw *lw, zn_nid n, const zn_type *from, zn_loc src, const zn_type *to, zn_loc dst);
/* Number of items of list v; read from it unless known. */
zn_expr zn_ls_len(zn_lw *lw, zn_nid n, zn_vid v);
void zn_ls_know_len(zn_lw *lw, zn_vid v, zn_expr len);
/* Storage of a value as an item of a list: its elements are copied unless they stay anyway. */
typedef struct zn_held {
  zn_loc at;
  zn_type type;
} zn_held;
zn_held zn_ls_hold(zn_lw *lw, zn_nid n, zn_vid v);
/* In a kernel: item's zn_tensor at address t. */
void zn_ls_put(zn_lw *lw, zn_kref t, const zn_held *item);

/* Tensor v of node n becomes an item of a list of type `list`. Prepare, then in a kernel zn_ls_take with the item's address
 * (inside an If when it may not exist), then finish: v has sizes and storage. */
typedef struct zn_taken {
  zn_vid v;
  zn_loc cell, dims;
  bool own[ZN_MAX_RANK]; /* sizes that this item decides */
} zn_taken;
zn_taken zn_ls_prepare(zn_lw *lw, zn_vid v, const zn_type *list);
void zn_ls_take(zn_lw *lw, const zn_taken *t, zn_kref item);
void zn_ls_finish(zn_lw *lw, zn_nid n, const zn_taken *t);
#endif
