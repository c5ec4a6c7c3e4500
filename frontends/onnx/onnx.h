/* ONNX models and data files: reading into the graph IR. Every file is untrusted input: sizes, offsets, nesting and paths
 * are checked, memory is bounded by the file's size, and the answer is ZN_OK or diagnostics with a status, never a crash. */
#ifndef ZN_ONNX_H
#define ZN_ONNX_H
#include "zenithc/graph/graph.h"

/* Files that graphs borrow from. Everything stays mapped until zn_onnx_unmap. */
typedef struct zn_onnx_maps {
  struct zn_onnx_map {
    const char *path;
    const uint8_t *data;
    size_t size;
  } *files;
  uint32_t num_files, cap_files;
} zn_onnx_maps;

typedef struct zn_onnx_opts {
  const char *const *dims; /* "batch=8", "seq=1..512": value or range of a symbolic dimension */
  uint32_t num_dims;
  const char *const *shapes; /* "input=1x3x224x224"; '?' keeps the declared dimension, a word names one */
  uint32_t num_shapes;
  /* Infers the types of one node (zn_infer_node); NULL: none. Some upgrades of old operators depend on a rank or an
   * element type: without inference they give longer code, and LabelEncoder of version 1 is refused. */
  zn_status (*infer_node)(zn_ctx *c, zn_graph *g, zn_nid n);
  zn_onnx_maps *maps; /* for loaders that take only these: as the argument of zn_onnx_load */
} zn_onnx_opts;

/* Reads a model, external data included, upgrades every operator to its canonical version (ops.def) and inlines
 * model-local functions. The graph and its constants live in c->graph; large constants may be views of the mapped
 * files (aligned for their element type), so they are valid until zn_onnx_unmap(maps); with maps NULL the
 * files stay mapped until the process ends. opts may be NULL.
 * Errors are all reported before returning: ZN_ERR_MODEL, ZN_ERR_UNSUPPORTED (only operators we lack), ZN_ERR_IO,
 * ZN_ERR_USAGE (an option names something that the model lacks). */
zn_status zn_onnx_load(zn_ctx *c, const char *path, const zn_onnx_opts *opts, zn_onnx_maps *maps, zn_graph **out);
/* The same from memory (borrowed as long as the graph). dir: folder of external data, NULL refuses it. */
zn_status zn_onnx_load_bytes(zn_ctx *c, const uint8_t *data, size_t n, const char *dir, const zn_onnx_opts *opts,
                             zn_onnx_maps *maps, zn_graph **out);
void zn_onnx_unmap(zn_onnx_maps *maps);

/* A value in a .pb file of the ONNX test convention. */
typedef struct zn_pb_value {
  zn_vkind kind;
  uint32_t n;                /* SEQ: elements; MAP: entries; OPT: 0 or 1; TENSOR: 1 */
  zn_htensor tensor;         /* TENSOR; MAP: the values as one tensor of n elements when all are scalars of one type */
  zn_htensor keys;           /* MAP: n elements, an integer type or strings */
  struct zn_pb_value *items; /* SEQ, OPT: n values; MAP: n values unless they are in `tensor` */
} zn_pb_value;

/* kind says which message the file holds (the format does not tell): that of the model's input or output. Copies
 * everything to a; the file is not kept open. */
zn_status zn_pb_read(zn_ctx *c, zn_arena *a, const char *path, zn_vkind kind, zn_pb_value *out);
/* Writes a TensorProto with raw_data (strings: string_data), sub-byte types packed; or, by t's kind, a SequenceProto,
 * OptionalProto or MapProto. */
zn_status zn_pb_write(zn_ctx *c, const char *path, const zn_htensor *t);
#endif
