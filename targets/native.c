/* Shared objects with the zenith.h ABI: dlopen, checks of the descriptor, one run through the
 * common entry caller, and prepared calls for benchmarks, which plan and allocate once and then
 * only invoke the run entry. */
#include "targets/native.h"

#include <dlfcn.h>
#include <elf.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <time.h>

#include "runtime/zenith_pool.h"
#include "targets/exec_common.h"

struct zn_exec {
  void *handle;
  const zn_model *model;
  const zn_host *host;
  zn_host pool_host; /* filled when pool is not NULL */
  zn_pool *pool;
};

static zn_status check_model(zn_ctx *c, const char *path, const zn_model *m) {
  if (m->magic != ZN_MODEL_MAGIC)
    return zn_fail(c, ZN_ERR_MODEL, path, "zn_model_main has magic 0x%08" PRIx32 ", expected 0x%08x", m->magic,
                   ZN_MODEL_MAGIC);
  if (m->abi != ZN_ABI_VERSION) {
    zn_status st = zn_fail(c, ZN_ERR_MODEL, path, "ABI version %" PRIu32 ", this program speaks %d", m->abi, ZN_ABI_VERSION);
    zn_help(c, "compile the model again with this version of zenithc");
    return st;
  }
  return ZN_OK;
}

/* Why dlopen failed, without the name that it says first. */
static const char *load_error(const char *file) {
  const char *why = dlerror();
  const size_t n = strlen(file);
  if (!why) return "unknown error";
  return !strncmp(why, file, n) && !strncmp(why + n, ": ", 2) ? why + n + 2 : why;
}

/* Less than its segments need? dlopen would map what is not there, and end the process with SIGBUS. */
static bool cut_short(const char *file) {
  FILE *f = fopen(file, "rb");
  Elf64_Ehdr h;
  Elf64_Phdr p;
  struct stat st;
  bool cut = false;
  if (!f) return false;
  if (fstat(fileno(f), &st) == 0 && fread(&h, sizeof h, 1, f) == 1 && !memcmp(h.e_ident, ELFMAG, SELFMAG) &&
      h.e_ident[EI_CLASS] == ELFCLASS64 && h.e_phentsize == sizeof p)
    for (unsigned i = 0; i < h.e_phnum && !cut; i++)
      cut = fseek(f, (long)(h.e_phoff + i * sizeof p), SEEK_SET) || fread(&p, sizeof p, 1, f) != 1 ||
            (p.p_type == PT_LOAD && (p.p_filesz > (uint64_t)st.st_size || p.p_offset > (uint64_t)st.st_size - p.p_filesz));
  fclose(f);
  return cut;
}

zn_status zn_native_load(zn_ctx *c, const zn_kmod *mod, const char *path, zn_exec **out) {
  (void)mod;
  *out = NULL;
  /* a name without a slash would be searched in the system's library path */
  const char *file = strchr(path, '/') ? path : zn_arena_printf(&c->perm, "./%s", path);
  const bool cut = cut_short(file);
  void *handle = cut ? NULL : dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (c->file && !strcmp(c->file, path)) path = NULL; /* messages begin with it */
  if (cut) {
    zn_fail(c, ZN_ERR_IO, path, "cannot load: the file is cut short");
    zn_help(c, "copy it again, or compile the model again");
    return ZN_ERR_IO;
  }
  if (!handle) return zn_fail(c, ZN_ERR_IO, path, "cannot load: %s", load_error(file));
  const zn_model *m = dlsym(handle, "zn_model_main");
  if (!m) {
    zn_status st = zn_fail(c, ZN_ERR_MODEL, path, "exports no zn_model_main, so it is not a compiled model");
    zn_help(c, "a shared object made from C output needs -DZN_MODEL_MAIN");
    dlclose(handle);
    return st;
  }
  zn_status st = check_model(c, path, m);
  if (st != ZN_OK) {
    dlclose(handle);
    return st;
  }
  zn_exec *e = ZN_NEW(&c->perm, zn_exec);
  e->handle = handle;
  e->model = m;
  *out = e;
  return ZN_OK;
}

static int32_t call_entry(void *user, bool plan, zn_tensor *in, zn_tensor *out, void *ws,
                          uint64_t ws_bytes, const zn_host *host) {
  const zn_model *m = user;
  return (plan ? m->plan : m->run)(in, out, ws, (size_t)ws_bytes, host);
}

zn_status zn_native_run(zn_ctx *c, zn_exec *e, zn_arena *a, const zn_htensor *in, zn_htensor *out) {
  return zn_exec_run_entries(c, a, e->model->name, e->model->num_inputs, e->model->num_outputs,
                             call_entry, (void *)(uintptr_t)e->model, e->host, in, out);
}

void zn_native_unload(zn_exec *e) {
  if (!e) return;
  if (e->pool) zn_pool_destroy(e->pool);
  if (e->handle) dlclose(e->handle);
  *e = (zn_exec){0};
}

const zn_model *zn_native_model(const zn_exec *e) { return e->model; }

const void *zn_native_device(const zn_exec *e) { return dlsym(e->handle, "zn_device_main"); }

void zn_native_set_host(zn_exec *e, const zn_host *host) { e->host = host; }

zn_status zn_native_set_threads(zn_ctx *c, zn_exec *e, unsigned threads) {
  if (e->pool) zn_pool_destroy(e->pool);
  e->pool = NULL;
  e->host = NULL;
  if (threads <= 1) return ZN_OK;
  e->pool = zn_pool_create(threads);
  if (!e->pool) return zn_fail(c, ZN_ERR_USAGE, NULL, "cannot start %u threads", threads);
  e->pool_host = (zn_host){.user = e->pool, .parallel_for = zn_pool_parallel_for};
  e->host = &e->pool_host;
  return ZN_OK;
}

static void *alloc_aligned(zn_arena *a, uint64_t bytes) {
  uintptr_t p = (uintptr_t)zn_arena_alloc(a, (size_t)bytes + 64);
  return (void *)((p + 63) & ~(uintptr_t)63);
}

static zn_status call_failed(zn_ctx *c, const zn_model *m, const char *what, int32_t rc) {
  return zn_error(c, NULL, "%s: %s returned %" PRId32 ": %s", m->name, what, rc,
                  zn_native_result_text(rc));
}

zn_status zn_native_prepare(zn_ctx *c, zn_exec *e, zn_arena *a, const zn_htensor *in,
                            zn_native_call *out_call) {
  const zn_model *m = e->model;
  zn_host *host = ZN_NEW(a, zn_host);
  zn_native_call k = {.model = m, .host = host, .heap = ZN_NEW(a, zn_arena)};
  zn_arena_init(k.heap, "run");
  *host = zn_exec_host(k.heap, e->host);
  k.in = ZN_ARRAY(a, zn_tensor, m->num_inputs ? m->num_inputs : 1);
  k.out = ZN_ARRAY(a, zn_tensor, m->num_outputs ? m->num_outputs : 1);
  for (uint32_t i = 0; i < m->num_inputs; i++) zn_exec_to_abi(a, &in[i], &k.in[i]);
  uint64_t bytes = 0;
  int32_t rc = m->plan(k.in, k.out, &bytes, 0, k.host);
  if (rc != ZN_RUN_OK) return call_failed(c, m, "plan", rc);
  k.ws_bytes = bytes;
  k.ws = alloc_aligned(a, bytes);
  for (uint32_t i = 0; i < m->num_outputs; i++) k.out[i].u.data = alloc_aligned(a, k.out[i].bytes);
  *out_call = k;
  return ZN_OK;
}

int32_t zn_native_invoke(const zn_native_call *k) {
  zn_arena_reset(k->heap);
  return k->model->run(k->in, k->out, k->ws, (size_t)k->ws_bytes, k->host);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int32_t zn_native_time(const zn_native_call *call, unsigned warmup, unsigned runs,
                       uint64_t *out_ns) {
  for (unsigned i = 0; i < warmup; i++) {
    int32_t rc = zn_native_invoke(call);
    if (rc != ZN_RUN_OK) return rc;
  }
  for (unsigned i = 0; i < runs; i++) {
    uint64_t t0 = now_ns();
    int32_t rc = zn_native_invoke(call);
    out_ns[i] = now_ns() - t0;
    if (rc != ZN_RUN_OK) return rc;
  }
  return ZN_RUN_OK;
}

const char *zn_native_result_text(int32_t code) {
  static const char *const text[] = {
      [ZN_RUN_OK] = "ok",
      [ZN_RUN_NULL] = "a pointer is null",
      [ZN_RUN_RANK] = "an input's rank is wrong",
      [ZN_RUN_SHAPE] =
          "an input's shape does not fit the model, or two inputs disagree about a symbol",
      [ZN_RUN_DTYPE] = "an input's or output's element type is wrong",
      [ZN_RUN_SHORT] = "a buffer is smaller than its shape needs",
      [ZN_RUN_WORKSPACE] = "the workspace is too small or not 64-byte aligned",
      [ZN_RUN_CPU] = "this CPU lacks an instruction set the artifact was compiled for",
      [ZN_RUN_INDEX] = "an index tensor points outside its operand",
      [ZN_RUN_DOMAIN] = "the operator is undefined on this input",
      [ZN_RUN_ALLOC] = "the caller's allocator refused, or none was given",
      [ZN_RUN_OVERFLOW] = "a size does not fit the machine's pointers",
      [ZN_RUN_HOOK] = "the model decodes images, and the host has no decoder",
      [ZN_RUN_IMAGE] = "an image could not be decoded",
      [ZN_RUN_OVERLAP] = "an output has the address of an input that it may not lie over"};
  if (code < 0 || (size_t)code >= sizeof text / sizeof text[0]) return "unknown result code";
  return text[code];
}
