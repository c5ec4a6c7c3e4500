/* The cuda target: kernels as CUDA C++ through NVRTC, host code through LLVM, the runtime object of runtime/zenith_cuda.c. */
#ifndef ZN_CUDA_H
#define ZN_CUDA_H
#include "targets/target.h"

zn_status zn_cuda_caps(zn_ctx *c, const char *arch, zn_caps *out);
bool zn_cuda_can_run(const zn_caps *caps, const char **why);

typedef struct zn_cuda_peaks { /* per second */
  double bytes; /* of memory read and written by a copy */
  double flops; /* f32 multiply-adds in registers, 2 operations each */
  double units; /* the same on matrix units, f16 operands and f32 sums; 0: it has none */
} zn_cuda_peaks;
/* Measures the first device for about a tenth of a second. false: there is none, or it does not answer. */
bool zn_cuda_measure(zn_arena *a, zn_cuda_peaks *out);

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
