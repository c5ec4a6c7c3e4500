/* zenith_device.h: models compiled for a device. Needs zenith.h; C99 and C++.
 *
 * Such an artifact has everything zenith.h promises: NAME_plan and NAME_run work on host memory (run opens the first device,
 * copies inputs and outputs, and waits). It also exports `const zn_device_api zn_device_main`, which keeps weights and memory
 * on the device, takes device pointers without copying, and only enqueues when it is given a stream.
 *
 *     const zn_device_api *api = dlsym(handle, "zn_device_main");
 *     zn_session *s;
 *     if (api->open(0, &s) != ZN_RUN_OK) puts(api->error(NULL));
 *     api->run(s, in, out, NULL);           waits; host or device pointers, in any mixture
 *     api->run(s, in, out, stream);         enqueues into a CUstream of the session's device (its primary context)
 *     api->wait(s);                         result of the enqueued run
 *     api->close(s);
 *
 * Where the model has kernels of the host (strings, sequences, sizes without a bound; zenithc says so), run waits even when given
 * a stream; strings and the items of lists are host memory, as inputs and as outputs, and what outputs of that kind point to is
 * the session's until its next run.
 *
 * From the second run with the same shapes and pointers on, the run is a recorded graph, with If and Loop inside it where the
 * device can decide them (drivers since CUDA 12.3); where the host must see data on the way, several. Sessions are independent:
 * one thread at a time each, any number of them on any devices. */
#ifndef ZENITH_DEVICE_H
#define ZENITH_DEVICE_H
#include "zenith.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ZN_DEVICE_MAGIC 0x314e5a44u
#define ZN_DEVICE_VERSION 1

/* Results beyond zn_result. */
enum {
  ZN_RUN_NO_DRIVER = 64,     /* the driver library is missing or too old, or there is no device of that number */
  ZN_RUN_DEVICE = 65,        /* the driver reported an error; error() has its text */
  ZN_RUN_DEVICE_MEMORY = 66, /* the device has too little memory left */
  ZN_RUN_DEVICE_CODE = 67    /* the artifact holds no code that this device can run */
};

typedef struct zn_session zn_session;

typedef struct zn_device_api {
  uint32_t magic, version;
  int32_t (*open)(int32_t device, zn_session **out);
  /* in and out as for zn_model.plan: fills out[].shape rank dtype bytes. */
  int32_t (*plan)(zn_session *s, zn_tensor *in, zn_tensor *out);
  int32_t (*run)(zn_session *s, zn_tensor *in, zn_tensor *out, void *stream);
  int32_t (*wait)(zn_session *s);
  const char *(*error)(const zn_session *s); /* words for the last failure; NULL: of the last open */
  void (*close)(zn_session *s);
  /* Milliseconds of each kernel, num_kernels of them, added over its
   * launches, in one run outside the graph. */
  int32_t (*profile)(zn_session *s, zn_tensor *in, zn_tensor *out, float *out_ms);
} zn_device_api;

/* What generated entries call; for the runtime object only. Errors stay in the session. */
typedef struct zn_device_hooks {
  zn_host base;
  void (*launch)(struct zn_device_hooks *h, uint32_t kernel, void *const *bufs, const intptr_t *ints, intptr_t grid);
  void (*fetch)(struct zn_device_hooks *h, void *to, const void *from, uint32_t bytes, uint32_t last);
  void (*poke)(struct zn_device_hooks *h, void *to, const void *value, uint32_t bytes);
  void (*share)(struct zn_device_hooks *h, void *p, intptr_t bytes, uint32_t flags); /* zn_share_flags of kir.h */
  /* Flow of kops.def: 1 at the beginning of a region that is being recorded, and at the end of one: pass through it again. */
  uint32_t (*flow)(struct zn_device_hooks *h, const void *cond, const void *count, intptr_t most, uint32_t kind);
} zn_device_hooks;

#ifdef __cplusplus
}
#endif
#endif
