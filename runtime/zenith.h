/* zenith.h: the one public header of a compiled model. Needs <stdint.h> and <stddef.h> only; C99 and C++.
 *
 * An artifact called NAME exports
 *     const zn_model NAME_model;                      the descriptor (a .so also exports it as zn_model_main)
 *     int32_t NAME_plan(in, out, &bytes, 0, host);    sizes: fills out[].shape/rank/dtype/bytes and *bytes (workspace)
 *     int32_t NAME_run(in, out, ws, ws_bytes, host);  computes
 * Both are reentrant, write nothing but their arguments (and, once, what the CPU answered), allocate nothing and call nothing
 * but the host's hooks.
 * Tensors are dense and row-major; the caller owns every buffer. Bool is one byte; 4- and 2-bit types take one byte
 * per element. Alignment of the element type suffices for tensors; the workspace must be 64-byte aligned.
 *
 * An output may have the address of an input where plan allows it: set out[o].u.data = in[i].u.data before plan, which
 * returns ZN_RUN_OVERLAP when that pair may not share memory, as run does. What begins as a copy of the input (a cache of
 * keys that grows, a state of which a few elements change) is then updated in place, in a buffer as large as the output.
 *
 * What has no size before the run (the bytes of strings, the items of sequences, tensors without an upper bound) is not
 * in the caller's buffers: run sets pointers to it. It lies in the inputs, in the artifact, in the workspace or in memory
 * from host->alloc, is only to be read, and is valid as long as those are. */
#ifndef ZENITH_H
#define ZENITH_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ZN_ABI_VERSION 3
#define ZN_ABI_MAX_RANK 8
#define ZN_MODEL_MAGIC 0x314e5a00u

typedef enum zn_result {
  ZN_RUN_OK = 0,
  ZN_RUN_NULL = 1,      /* a pointer is null */
  ZN_RUN_RANK = 2,      /* an input's rank is wrong */
  ZN_RUN_SHAPE = 3,     /* an input's shape does not fit the model, or two inputs disagree about a symbol */
  ZN_RUN_DTYPE = 4,     /* an input's or output's dtype is wrong */
  ZN_RUN_SHORT = 5,     /* a buffer is smaller than its shape needs */
  ZN_RUN_WORKSPACE = 6, /* workspace too small or not 64-byte aligned */
  ZN_RUN_CPU = 7,       /* this CPU lacks an instruction set the artifact was compiled for */
  ZN_RUN_INDEX = 8,     /* data error: an index tensor points outside its operand */
  ZN_RUN_DOMAIN = 9,    /* data error: the operator is undefined on this input */
  ZN_RUN_ALLOC = 10,    /* the caller's allocator refused or gave unaligned memory, or the model needs one and has none */
  ZN_RUN_OVERFLOW = 11, /* a size does not fit the machine's pointers */
  ZN_RUN_HOOK = 12,     /* the model decodes images and the host has no decode_image */
  ZN_RUN_IMAGE = 13,    /* decode_image could not decode, or told two sizes */
  ZN_RUN_OVERLAP = 14   /* an output has the address of an input that it may not lie over */
} zn_result;

/* dtype codes are ONNX's TensorProto.DataType: 1 float, 2 uint8, 3 int8, 6 int32, 7 int64, 9 bool, 10 float16,
 * 8 string (elements are zn_string), 11 double, 16 bfloat16, ... With a kind the value is a list: data points to `shape[0]`
 * zn_tensor, rank is 1. */
#define ZN_SEQUENCE 0x100u          /* of tensors | their dtype */
#define ZN_OPTIONAL 0x200u          /* of a tensor | its dtype; shape[0] is 0 or 1 */
#define ZN_MAP 0x300u               /* | dtype of the values | dtype of the keys << 16; two rank-1 tensors: keys, values */
#define ZN_OPTIONAL_SEQUENCE 0x400u /* | dtype; shape[0] is 0 or 1 */
#define ZN_SEQUENCE_OF_MAPS 0x500u  /* as ZN_MAP; shape[0] maps */
#define ZN_KIND(dtype) ((dtype) & 0xff00u)
typedef struct zn_tensor {
  union {
    void *data;
    uint64_t data_bits; /* fixes the layout on 32-bit machines: set `data`, leave the upper half zero */
  } u;
  uint64_t bytes; /* size of the buffer behind data */
  uint32_t dtype;
  uint32_t rank;
  /* inputs: given; outputs: written by plan (upper bounds; -1: no bound, then bytes is 0 and run sets data and bytes)
   * and run (exact) */
  int64_t shape[ZN_ABI_MAX_RANK];
} zn_tensor;                      /* 88 bytes: data 0, bytes 8, dtype 16, rank 20, shape 24 */

typedef struct zn_string { /* element of a string tensor: UTF-8, not terminated */
  union {
    const char *ptr;
    uint64_t ptr_bits; /* as in zn_tensor */
  } u;
  uint64_t len;
} zn_string; /* 16 bytes */

typedef void (*zn_kernel)(void *const *bufs, const intptr_t *ints, intptr_t begin, intptr_t end);

typedef enum zn_pixels { ZN_PIXELS_RGB = 0, ZN_PIXELS_BGR = 1, ZN_PIXELS_GRAY = 2 } zn_pixels;

/* Hooks; any may be null, and so may the pointer to the struct itself. Set what is not used to null: `zn_host h = {0}`. */
typedef struct zn_host {
  void *user;
  /* Must run kernel on disjoint parts that cover [0, n) and return when all are done. */
  void (*parallel_for)(void *user, zn_kernel kernel, void *const *bufs, const intptr_t *ints, intptr_t n);
  /* Called before (begin = 1) and after (begin = 0) kernel number k of the descriptor's kernel_names. */
  void (*profile)(void *user, uint32_t k, int32_t begin);
  /* Memory whose need only the run knows: 64-byte aligned, at least `bytes`, NULL to refuse. Run never gives it back; the
   * caller may drop all of it once the outputs are read (or the run failed). Models that are bounded never call it. */
  void *alloc_user;
  void *(*alloc)(void *alloc_user, size_t bytes);
  /* Decodes the image file `file` (uint8, rank 1), for models with ImageDecoder; runtime/zenith_image.c is one. pixels: a
   * zn_pixels. Asked twice for each image: with image->u.data null it sets image->shape to height, width and channels (3,
   * gray: 1); then data has room for that and gets the pixels, row by row, channels together. 0, or the run ends with
   * ZN_RUN_IMAGE. */
  void *image_user;
  int32_t (*decode_image)(void *image_user, const zn_tensor *file, uint32_t pixels, zn_tensor *image);
} zn_host;

typedef struct zn_io_desc {
  const char *name;
  uint32_t dtype;
  uint32_t rank;
  int64_t shape[ZN_ABI_MAX_RANK];            /* -1 where symbolic */
  const char *dim_names[ZN_ABI_MAX_RANK];    /* expression over symbols where symbolic, "" otherwise */
} zn_io_desc;

typedef int32_t (*zn_entry)(zn_tensor *in, zn_tensor *out, void *ws, size_t ws_bytes, const zn_host *host);

typedef struct zn_model {
  uint32_t magic; /* ZN_MODEL_MAGIC */
  uint32_t abi;   /* ZN_ABI_VERSION */
  const char *name;
  uint32_t num_inputs, num_outputs;
  const zn_io_desc *inputs, *outputs;
  zn_entry plan, run;
  uint64_t workspace_bytes; /* exact for static shapes; 0 when it depends on the inputs: ask plan */
  uint64_t weights_bytes;
  uint32_t features;        /* ZN_FEAT_* bits needed */
  uint32_t num_kernels;
  const char *const *kernel_names;
  const char *provenance;
} zn_model;

#ifdef __cplusplus
}
#endif
#endif
