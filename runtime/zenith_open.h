/* zenith_open.h: loading a compiled model from a shared object. POSIX dlopen; C99 and C++.
 *
 *     zn_artifact a;
 *     if (zn_open("model.so", &a) != 0) { puts(a.error); ... }
 *     a.model->run(in, out, ws, ws_bytes, NULL);
 *     zn_close(&a);                                                                              */
#ifndef ZENITH_OPEN_H
#define ZENITH_OPEN_H
#include "zenith.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct zn_artifact {
  const zn_model *model; /* valid until zn_close */
  const char *error; /* after a failed zn_open: why; valid until the next dl call of the thread */
  void *handle;
} zn_artifact;

/* 0, or -1 with out->error set: no such file, not a compiled model, another ABI version. */
int zn_open(const char *path, zn_artifact *out);
void zn_close(zn_artifact *a);

#ifdef __cplusplus
}
#endif
#endif
