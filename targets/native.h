/* Load, run and time shared objects with the ABI of runtime/zenith.h. The cpu and c targets share
 * this. A loaded object belongs to the process until unload; its zn_exec lives in ctx->perm. */
#ifndef ZN_NATIVE_H
#define ZN_NATIVE_H
#include "runtime/zenith.h"
#include "targets/target.h"

/* The slots of zn_target. load checks that the file is a shared object that exports zn_model_main
 * with our magic and ABI version; mod may be NULL. run plans, allocates (workspace and missing
 * outputs from a) and runs once. */
zn_status zn_native_load(zn_ctx *c, const zn_kmod *mod, const char *path, zn_exec **out);
zn_status zn_native_run(zn_ctx *c, zn_exec *e, zn_arena *a, const zn_htensor *in, zn_htensor *out);
void zn_native_unload(zn_exec *e);

/* The descriptor inside the loaded object; valid until unload. */
const zn_model *zn_native_model(const zn_exec *e);
/* The device interface (runtime/zenith_device.h) of an artifact that has one, else NULL. */
const void *zn_native_device(const zn_exec *e);
/* Hooks for later runs (borrowed, may be NULL: one thread). */
void zn_native_set_host(zn_exec *e, const zn_host *host);
/* A pool of `threads` (1 = none) that later runs use; destroyed by unload. */
zn_status zn_native_set_threads(zn_ctx *c, zn_exec *e, unsigned threads);

/* A run with everything prepared, so that invoking it costs nothing but the model: for benchmarks.
 */
typedef struct zn_native_call {
  const zn_model *model;
  zn_tensor *in, *out;
  void *ws; /* 64-byte aligned */
  uint64_t ws_bytes;
  const zn_host *host;
  zn_arena *heap; /* what the run allocates; dropped by the next */
} zn_native_call;
/* Plans for these inputs (data borrowed) and allocates outputs and workspace from a. */
zn_status zn_native_prepare(zn_ctx *c, zn_exec *e, zn_arena *a, const zn_htensor *in,
                            zn_native_call *out_call);
/* Returns the model's zn_result. */
int32_t zn_native_invoke(const zn_native_call *call);
/* Runs `runs` times after `warmup` untimed runs; out_ns[i] = wall time of run i in nanoseconds.
 * Stops at the first run that does not return ZN_RUN_OK and returns its code. */
int32_t zn_native_time(const zn_native_call *call, unsigned warmup, unsigned runs,
                       uint64_t *out_ns);

/* device.c: seconds of each kernel in a run on the device, the mean of `runs` after a first one. api: zn_native_device's. */
zn_status zn_device_profile(zn_ctx *c, const void *api, const zn_native_call *call, unsigned runs, double *out_seconds);

/* cuda/cuda_peaks.c: what a device can do at most. */
typedef struct zn_device_peaks { /* per second */
  double bytes; /* of memory read and written by a copy */
  double flops; /* f32 multiply-adds in registers, 2 operations each */
  double units; /* the same on matrix units, f16 operands and f32 sums; 0: it has none */
} zn_device_peaks;
/* Measures the first device for about a tenth of a second. false: there is none, or it does not answer. */
bool zn_device_measure(zn_arena *a, zn_device_peaks *out);

/* Words for a zn_result: "an input's shape does not fit the model, ...". */
const char *zn_native_result_text(int32_t code);
#endif
