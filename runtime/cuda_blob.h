/* The device part of a CUDA artifact, written by targets/cuda and read by zenith_cuda.c: this head, then the tables and the
 * images it names by byte offsets from its own start. All numbers little-endian, everything 8-byte aligned. */
#ifndef ZN_CUDA_BLOB_H
#define ZN_CUDA_BLOB_H
#include <stdint.h>

#define ZN_CUDA_BLOB_MAGIC UINT64_C(0x33626f6c6275637a) /* "zcublob3" */
#define ZN_CUDA_ON_HOST UINT64_MAX

typedef struct zn_cuda_image { /* a compiled group of kernels */
  uint64_t cubin, cubin_bytes; /* for one generation */
  uint64_t ptx, ptx_bytes;     /* for later ones; ends with a zero byte; 0 bytes: none */
} zn_cuda_image;

typedef struct zn_cuda_kernel {
  uint64_t image, name;       /* number of the image, or ZN_CUDA_ON_HOST; offset of the name, zero-terminated */
  uint32_t team, num_bufs, num_ints, reserved;
  uint64_t shared;            /* bytes of shared memory for a team */
} zn_cuda_kernel;

typedef struct zn_cuda_blob {
  uint64_t magic, bytes;
  uint64_t num_images, images; /* zn_cuda_image[] */
  uint64_t num_kernels, kernels;
  uint64_t weights_bytes;
  uint32_t idx_bytes; /* of integer parameters */
  uint32_t sm;        /* of the cubins */
  uint64_t mixed;     /* 1: the host has a part in a run: addresses in the entries are the host's, and Share is called */
  uint64_t flows;     /* 1: the entry has regions for the device to decide */
} zn_cuda_blob;
#endif
