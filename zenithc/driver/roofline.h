/* What this machine can do at most, measured, for `bench --profile`. */
#ifndef ZN_ROOFLINE_H
#define ZN_ROOFLINE_H
#include "runtime/zenith_pool.h"
#include "zenithc/driver/tools.h"

typedef struct zn_peaks {
  double flops; /* f32 multiply-adds from registers, 2 operations each, per second */
  double bytes; /* read, per second, from wherever an array of `footprint` bytes stays between two readings */
  uint64_t footprint;
  double units; /* the same of bytes, with their sums; on a device: of f16 on its matrix units, 0: none */
} zn_peaks;

/* Compiles three kernels for this machine's processor and times them on the pool's threads (NULL: the caller's alone) for a
 * third of a second. footprint: bytes that a run of the model goes through, its weights and workspace. */
zn_status zn_peaks_measure(zn_ctx *c, zn_pool *pool, uint64_t footprint, zn_peaks *out);
#endif
