/* The cuda target: kernels as CUDA C++ through NVRTC, host code through LLVM, the runtime object of runtime/zenith_cuda.c. */
#ifndef ZN_CUDA_H
#define ZN_CUDA_H
#include "targets/target.h"

zn_status zn_cuda_caps(zn_ctx *c, const char *arch, zn_caps *out);
bool zn_cuda_can_run(const zn_caps *caps, const char **why);

/* A group of kernels on its way through the compiler. */
typedef struct zn_cuda_unit {
  const char *text; /* CUDA C++ */
  char *cubin, *ptx;  /* results, from malloc-free memory of the unit's arena; NULL until compiled */
  size_t cubin_bytes, ptx_bytes;
  const char *error; /* what went wrong, with the compiler's log */
  bool cached;
  zn_arena arena;
} zn_cuda_unit;

/* Compiles every unit for arch ("sm_90a"), in parallel; cache: folder of earlier results, or NULL. Reports the first
 * failure. A missing NVRTC is reported with what was looked for. */
zn_status zn_cuda_compile(zn_ctx *c, zn_cuda_unit *units, uint32_t n, const char *arch, const char *cache);

/* Writes the device part (runtime/cuda_blob.h). units[i] holds kernels first[i] .. first[i + 1] - 1. */
zn_status zn_cuda_write_blob(zn_ctx *c, const zn_kmod *m, const zn_caps *caps, const zn_cuda_unit *units,
                             const uint32_t *first, uint32_t num_units, bool idx32, const char *path);
#endif
