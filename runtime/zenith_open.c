/* Opening a model's shared object: dlopen, find the descriptor, check magic and ABI version. */
#include "zenith_open.h"

#include <dlfcn.h>

static int refuse(zn_artifact *out, const char *why) {
  if (out->handle) dlclose(out->handle);
  out->handle = NULL;
  out->model = NULL;
  out->error = why;
  return -1;
}

int zn_open(const char *path, zn_artifact *out) {
  const char *why;
  out->model = NULL;
  out->error = NULL;
  out->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!out->handle) {
    why = dlerror();
    return refuse(out, why ? why : "dlopen failed");
  }
  out->model = (const zn_model *)dlsym(out->handle, "zn_model_main");
  if (!out->model) return refuse(out, "exports no zn_model_main: not a compiled model");
  if (out->model->magic != ZN_MODEL_MAGIC) return refuse(out, "wrong magic in zn_model_main");
  if (out->model->abi != ZN_ABI_VERSION)
    return refuse(out, "compiled for another ABI version: compile the model again");
  return 0;
}

void zn_close(zn_artifact *a) {
  if (a->handle) dlclose(a->handle);
  a->handle = NULL;
  a->model = NULL;
}
