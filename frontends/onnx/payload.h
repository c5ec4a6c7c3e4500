/* Tensor contents: from a TensorProto (views into the mapped file, typed fields, external files) to host tensors. */
#ifndef ZN_ONNX_PAYLOAD_H
#define ZN_ONNX_PAYLOAD_H
#include "frontends/onnx/onnx.h"
#include "onnx_min.pb-c.h"

typedef struct zn_payload {
  zn_ctx *c;
  zn_arena *a;          /* copies go here */
  const uint8_t *base;  /* the file that views refer to */
  size_t size;
  bool mapped;          /* base is a file mapping: pages that were copied can be dropped */
  bool copy;            /* never borrow from base */
  const char *dir;      /* folder of external data; NULL: refused */
  char *real_dir;       /* canonical form, made on first use */
  zn_onnx_maps *maps;
  uint64_t sparse_left; /* bytes that sparse tensors may still grow to */
} zn_payload;

/* Dense contents of t; *out borrows from the file when its bytes are usable in place. where: "initializer 'w'". */
zn_status zn_payload_tensor(zn_payload *s, const Pb__TensorProto *t, const char *where, zn_htensor *out);
zn_status zn_payload_sparse(zn_payload *s, const Pb__SparseTensorProto *t, const char *where, zn_htensor *out);
/* Maps a regular file read-only and appends it to maps. */
zn_status zn_payload_map(zn_ctx *c, zn_onnx_maps *maps, const char *path, const uint8_t **out, size_t *out_n);
#endif
