/* The device part of an artifact: tables and images, one behind the other. */
#include "runtime/cuda_blob.h"

#include <errno.h>

#include "targets/cuda/cuda.h"

typedef struct writer {
  FILE *f;
  uint64_t at;
  bool ok;
} writer;

static uint64_t round8(uint64_t n) { return (n + 7) & ~UINT64_C(7); }

static void put(writer *w, const void *data, uint64_t n) {
  static const char zeros[8];
  uint64_t pad = round8(n) - n;
  if (n && fwrite(data, 1, (size_t)n, w->f) != n) w->ok = false;
  if (pad && fwrite(zeros, 1, (size_t)pad, w->f) != pad) w->ok = false;
  w->at += n + pad;
}

static const char *kernel_name(zn_arena *a, const zn_kfunc *f) {
  return f->exported ? f->name : zn_arena_printf(a, "k_%s", f->name);
}

static void describe_kernel(const zn_kfunc *f, zn_cuda_kernel *k) {
  k->team = f->team ? f->team : 1;
  k->shared = k->team > 1 ? zn_kfunc_alloc_bytes(f) : 0;
  for (uint32_t i = 0; i < f->num_params; i++) *(f->params[i].kind == ZN_KP_INT ? &k->num_ints : &k->num_bufs) += 1;
}

zn_status zn_cuda_write_blob(zn_ctx *c, const zn_kmod *m, const zn_caps *caps, const zn_cuda_unit *units,
                             const uint32_t *first, uint32_t num_units, bool idx32, const char *path) {
  zn_arena *a = &c->tmp;
  uint32_t n = 0, on_device = 0, unit = 0;
  const char **names = ZN_ARRAY(a, const char *, m->num_funcs + 1);
  zn_cuda_kernel *kernels = ZN_ARRAY(a, zn_cuda_kernel, m->num_funcs + 1);
  zn_cuda_image *images = ZN_ARRAY(a, zn_cuda_image, num_units + 1);
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    if (m->funcs[i]->is_entry) continue;
    names[n] = kernel_name(a, m->funcs[i]);
    describe_kernel(m->funcs[i], &kernels[n]);
    kernels[n].image = ZN_CUDA_ON_HOST;
    if (zn_kfunc_on_device(m->funcs[i])) {
      while (unit + 1 < num_units && on_device >= first[unit + 1]) unit++;
      kernels[n].image = unit;
      on_device++;
    }
    n++;
  }
  zn_cuda_blob head = {.magic = ZN_CUDA_BLOB_MAGIC, .num_images = num_units, .num_kernels = n, .sm = caps->sm,
                       .weights_bytes = zn_kmod_consts_bytes(m), .idx_bytes = idx32 ? 4 : 8,
                       .mixed = m->mixed, .flows = m->flows};
  uint64_t at = sizeof head;
  head.images = at;
  at += num_units * sizeof *images;
  head.kernels = at;
  at += n * sizeof *kernels;
  for (uint32_t i = 0; i < n; i++) kernels[i].name = at, at += round8(strlen(names[i]) + 1);
  for (uint32_t i = 0; i < num_units; i++) {
    images[i] = (zn_cuda_image){at, units[i].cubin_bytes, at + round8(units[i].cubin_bytes), units[i].ptx_bytes};
    at = images[i].ptx + round8(units[i].ptx_bytes);
  }
  head.bytes = at;
  writer w = {.f = fopen(path, "wb"), .ok = true};
  if (!w.f) return zn_fail(c, ZN_ERR_IO, path, "cannot be written: %s", strerror(errno));
  put(&w, &head, sizeof head);
  put(&w, images, num_units * sizeof *images);
  put(&w, kernels, n * sizeof *kernels);
  for (uint32_t i = 0; i < n; i++) put(&w, names[i], strlen(names[i]) + 1);
  for (uint32_t i = 0; i < num_units; i++) {
    put(&w, units[i].cubin, units[i].cubin_bytes);
    put(&w, units[i].ptx, units[i].ptx_bytes);
  }
  if (fclose(w.f) != 0) w.ok = false;
  return w.ok ? ZN_OK : zn_fail(c, ZN_ERR_IO, path, "cannot be written: %s", strerror(errno));
}
