/* Artifacts with the device interface: a session of their own for the profile. */
#include "runtime/zenith_device.h"

#include "targets/native.h"

zn_status zn_device_profile(zn_ctx *c, const void *interface, const zn_native_call *call, unsigned runs, double *out_seconds) {
  const zn_device_api *api = interface;
  zn_session *s;
  uint32_t n = call->model->num_kernels;
  float *ms = ZN_ARRAY(&c->perm, float, n + 1);
  int32_t rc = api->open(0, &s);
  if (rc) return zn_error(c, NULL, "the device cannot be opened: %s", api->error(NULL));
  for (unsigned r = 0; r <= runs && !rc; r++) {
    rc = api->profile(s, call->in, call->out, ms);
    for (uint32_t i = 0; i < n; i++) out_seconds[i] = r ? out_seconds[i] + (double)ms[i] * 1e-3 / runs : 0;
  }
  zn_status st = rc ? zn_error(c, NULL, "the run failed: %s", api->error(s)) : ZN_OK;
  api->close(s);
  return st;
}
