/* Builds an artifact of the cuda target: kernels to text to cubin and PTX, entries to an x86-64 object, both linked with the
 * runtime object into one shared object. */
#include <unistd.h>

#include "codegen/cstyle/cstyle.h"
#include "codegen/llvm/llvm_emit.h"
#include "targets/cpu/cpu.h"
#include "targets/cuda/cuda.h"
#include "targets/native.h"
#include "zenithc/base/file.h"

static const unsigned char runtime_object[] = {
#include "zenith_cuda_o.inc"
};

enum { UNIT_INSTS = 3000 }; /* instructions of a group of kernels, about */

/* ---- 32-bit indexes ---- */

static bool small_io(const zn_kio *io, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    uint64_t count;
    if (!zn_dims_count(io[i].rank, io[i].dims, zn_dtype_bytes(io[i].dtype), &count)) return false;
    if (count * zn_dtype_bytes(io[i].dtype) > INT32_MAX) return false;
  }
  return true;
}

static bool has_symbols(const zn_kmod *m) {
  for (uint32_t i = 0; i < m->num_funcs; i++)
    for (uint32_t k = 0; k < m->funcs[i]->num_params && zn_kfunc_on_device(m->funcs[i]); k++)
      if (m->funcs[i]->params[k].kind == ZN_KP_INT) return true;
  return false;
}

/* Do 32-bit indexes reach everywhere? All sizes known, and every buffer and index constant below 2^31. */
static bool fits_32(const zn_kmod *m) {
  if (!small_io(m->inputs, m->num_inputs) || !small_io(m->outputs, m->num_outputs)) return false;
  if (m->workspace_bytes > INT32_MAX || (m->workspace_bytes == 0 && has_symbols(m))) return false;
  for (uint32_t i = 0; i < m->num_consts; i++)
    if (m->consts[i].count * zn_dtype_bytes(m->consts[i].dtype) > INT32_MAX) return false;
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    const zn_kfunc *f = m->funcs[i];
    if (!zn_kfunc_on_device(f)) continue;
    for (uint32_t k = 1; k < f->num_insts; k++) {
      const zn_kinst *in = &f->insts[k];
      if (in->op == ZN_K_Const && in->dtype == ZN_IDX && (in->imm.i > INT32_MAX || in->imm.i < INT32_MIN)) return false;
    }
  }
  return true;
}

/* ---- kernels ---- */

typedef struct device_code {
  zn_cuda_unit *units;
  uint32_t *first, num;
  bool idx32;
} device_code;

static void split_units(zn_ctx *c, const zn_kmod *m, uint32_t most, device_code *d) {
  uint32_t kernel = 0, size = 0;
  d->first = ZN_ARRAY(&c->graph, uint32_t, m->num_funcs + 2);
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    if (!zn_kfunc_on_device(m->funcs[i])) continue;
    if (d->num == 0 || size + m->funcs[i]->num_insts > most) {
      d->first[d->num++] = kernel;
      size = 0;
    }
    size += m->funcs[i]->num_insts;
    kernel++;
  }
  d->first[d->num] = kernel;
}

static zn_status compile_kernels(zn_ctx *c, const zn_kmod *m, const zn_caps *caps, uint32_t most, const char *cache,
                                 device_code *d) {
  split_units(c, m, most, d);
  d->idx32 = fits_32(m);
  d->units = ZN_ARRAY(&c->graph, zn_cuda_unit, d->num + 1);
  for (uint32_t i = 0; i < d->num; i++) {
    zn_text t;
    zn_arena_init(&d->units[i].arena, "cuda");
    zn_text_init(&t, &d->units[i].arena);
    zn_cprint_cuda(c, m, d->first[i], d->first[i + 1] - d->first[i], d->idx32, &t);
    d->units[i].text = t.s;
  }
  return d->num ? zn_cuda_compile(c, d->units, d->num, caps->arch, cache) : ZN_OK;
}

static void free_units(device_code *d) {
  for (uint32_t i = 0; d->units && i < d->num; i++) zn_arena_reset(&d->units[i].arena);
}

/* ---- artifacts ---- */

static zn_status link_shared(zn_ctx *c, const zn_kmod *m, const zn_caps *caps, const device_code *d,
                             const zn_build_opts *o) {
  const char *stem = zn_arena_printf(&c->tmp, "%s.zn-%ld", o->out, (long)getpid());
  const char *blob = zn_arena_printf(&c->tmp, "%s.blob", stem), *obj = zn_arena_printf(&c->tmp, "%s.o", stem);
  const char *rt = zn_arena_printf(&c->tmp, "%s.rt.o", stem);
  zn_llvm_opts e = {.out = obj, .opt_level = o->opt_level, .export_main = true, .device_blob = blob};
  zn_status st = zn_cuda_write_blob(c, m, caps, d->units, d->first, d->num, d->idx32, blob);
  if (st == ZN_OK) st = zn_write_file(c, rt, runtime_object, sizeof runtime_object);
  if (st == ZN_OK) st = zn_llvm_emit(c, m, caps->host, &e);
  const char *const objects[] = {obj, rt, NULL};
  if (st == ZN_OK) st = zn_cpu_link_all(c, objects, false, o->out);
  remove(blob);
  remove(obj);
  remove(rt);
  return st;
}

static zn_status build(zn_ctx *c, const zn_kmod *m, const zn_caps *caps, const zn_build_opts *o) {
  bool so = zn_has_suffix(o->out, ".so");
  device_code d = {0};
  if (zn_has_suffix(o->out, ".cu")) {
    zn_text t;
    zn_text_init(&t, &c->tmp);
    zn_cprint_cuda(c, m, 0, UINT32_MAX, fits_32(m), &t);
    return zn_write_file(c, o->out, t.s, t.len);
  }
  zn_status st = compile_kernels(c, m, caps, so ? UNIT_INSTS : UINT32_MAX, o->cache, &d);
  if (st == ZN_OK && so) st = link_shared(c, m, caps, &d, o);
  if (st == ZN_OK && !so && d.num == 0) st = zn_fail(c, ZN_ERR_USAGE, o->out, "the model has no kernels");
  if (st == ZN_OK && zn_has_suffix(o->out, ".ptx")) {
    size_t n = d.units[0].ptx_bytes;
    while (n && !d.units[0].ptx[n - 1]) n--;
    st = zn_write_file(c, o->out, d.units[0].ptx, n);
  } else if (st == ZN_OK && zn_has_suffix(o->out, ".cubin")) {
    st = zn_write_file(c, o->out, d.units[0].cubin, d.units[0].cubin_bytes);
  }
  free_units(&d);
  return st;
}

static const char *const suffixes[] = {".so", ".ptx", ".cubin", ".cu", NULL};

const zn_target zn_target_cuda = {
    .name = "cuda",
    .doc = "NVIDIA GPUs: cubin and PTX through NVRTC, in a shared object that needs only the driver",
    .suffixes = suffixes,
    .archs = "sm_75, sm_80 (default), sm_86, sm_89, sm_90, sm_90a, sm_100, sm_103, sm_110, sm_120, sm_121, native",
    .caches = true,
    .caps = zn_cuda_caps,
    .build = build,
    .can_run = zn_cuda_can_run,
    .load = zn_native_load,
    .run = zn_native_run,
    .unload = zn_native_unload,
};
