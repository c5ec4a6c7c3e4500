/* NVRTC by dlopen: text to cubin and PTX, several groups of kernels at once, with a folder of earlier results. */
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "targets/cuda/cuda.h"
#include "zenithc/base/parallel.h"
#include "zenithc/base/text.h"

typedef struct nvrtc {
#define NVRTC_FN(name, symbol, params) int(*name) params;
#include "targets/cuda/nvrtc.def"
#undef NVRTC_FN
  void *handle;
  int major, minor;
} nvrtc;

/* ---- finding it ---- */

static void *try_folder(zn_arena *a, const char *folder, const char *file) {
  return folder && *folder ? dlopen(zn_arena_printf(a, "%s/%s", folder, file), RTLD_NOW | RTLD_LOCAL) : NULL;
}

/* $ZENITH_NVRTC (a file), then the loader's own path, then where CUDA is usually installed. */
static void *find_library(zn_arena *a) {
  static const char *const files[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so", NULL};
  const char *named = getenv("ZENITH_NVRTC"), *home = getenv("CUDA_HOME");
  if (named) return dlopen(named, RTLD_NOW | RTLD_LOCAL);
  for (const char *const *f = files; *f; f++) {
    void *h = dlopen(*f, RTLD_NOW | RTLD_LOCAL);
    if (!h && home) h = try_folder(a, zn_arena_printf(a, "%s/lib64", home), *f);
    if (!h) h = try_folder(a, "/usr/local/cuda/lib64", *f);
    if (!h) h = try_folder(a, "/usr/lib/x86_64-linux-gnu", *f);
    if (h) return h;
  }
  return NULL;
}

/* NVRTC looks for its second library on the loader's path only: where it lies beside the first one, it is loaded here. */
static void load_builtins(zn_ctx *c, const nvrtc *r) {
  Dl_info at;
  if (!dladdr(*(void *const *)&r->version, &at) || !at.dli_fname) return;
  const char *slash = strrchr(at.dli_fname, '/');
  if (slash)
    dlopen(zn_arena_printf(&c->tmp, "%.*s/libnvrtc-builtins.so.%d.%d", (int)(slash - at.dli_fname), at.dli_fname, r->major,
                           r->minor), RTLD_NOW | RTLD_GLOBAL);
}

static zn_status load(zn_ctx *c, nvrtc *r) {
  r->handle = find_library(&c->tmp);
  if (!r->handle) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "target cuda needs NVRTC (libnvrtc.so.12 or newer), which is not installed");
    zn_help(c, "install the CUDA toolkit's cuda-nvrtc package, or name the library: ZENITH_NVRTC=/path/libnvrtc.so.13");
    return ZN_ERR_USAGE;
  }
#define NVRTC_FN(name, symbol, params)                                                     \
  *(void **)&r->name = dlsym(r->handle, #symbol);                                          \
  if (!r->name) return zn_fail(c, ZN_ERR_USAGE, NULL, "NVRTC is too old: it lacks %s", #symbol);
#include "targets/cuda/nvrtc.def"
#undef NVRTC_FN
  r->version(&r->major, &r->minor);
  load_builtins(c, r);
  return ZN_OK;
}

/* ---- the cache: one file a unit, named by what went in ---- */

static uint64_t hash_text(uint64_t h, const char *s) {
  for (; *s; s++) h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
  return h;
}

static const char *cache_file(zn_arena *a, const char *folder, const zn_cuda_unit *u, const char *key) {
  uint64_t h = hash_text(hash_text(UINT64_C(14695981039346656037), key), u->text);
  uint64_t g = hash_text(hash_text(UINT64_C(0x9e3779b97f4a7c15), u->text), key);
  return zn_arena_printf(a, "%s/%016" PRIx64 "%016" PRIx64 ".cuda", folder, h, g);
}

static bool read_cache(zn_cuda_unit *u, const char *path) {
  FILE *f = fopen(path, "rb");
  uint64_t n[2];
  bool ok = f && fread(n, sizeof n, 1, f) == 1 && n[0] < UINT32_MAX && n[1] < UINT32_MAX;
  if (ok) {
    u->cubin = zn_arena_alloc(&u->arena, (size_t)n[0] + 1);
    u->ptx = zn_arena_alloc(&u->arena, (size_t)n[1] + 1);
    ok = fread(u->cubin, 1, (size_t)n[0], f) == n[0] && fread(u->ptx, 1, (size_t)n[1], f) == n[1] && fgetc(f) == EOF;
    u->cubin_bytes = (size_t)n[0];
    u->ptx_bytes = (size_t)n[1];
  }
  if (f) fclose(f);
  if (!ok) u->cubin = u->ptx = NULL;
  return u->cached = ok;
}

/* Written under another name and moved: a reader never sees half a file. Failing to write costs nothing but time. */
static void write_cache(zn_cuda_unit *u, const char *path) {
  const char *temp = zn_arena_printf(&u->arena, "%s.%ld-%p", path, (long)getpid(), (void *)u);
  FILE *f = fopen(temp, "wb");
  uint64_t n[2] = {u->cubin_bytes, u->ptx_bytes};
  bool ok = f && fwrite(n, sizeof n, 1, f) == 1 && fwrite(u->cubin, 1, u->cubin_bytes, f) == u->cubin_bytes &&
            fwrite(u->ptx, 1, u->ptx_bytes, f) == u->ptx_bytes;
  if (f && fclose(f) != 0) ok = false;
  if (!ok || rename(temp, path) != 0) remove(temp);
}

/* ---- compiling ---- */

typedef struct batch {
  const nvrtc *r;
  zn_cuda_unit *units;
  const char *arch, *cache;
} batch;

static void compile_text(const nvrtc *r, zn_cuda_unit *u, const char *arch) {
  void *p = NULL;
  size_t n = 0;
  /* a*b+c is two roundings unless the kernel says fma; division and square root are exact by default */
  const char *options[] = {zn_arena_printf(&u->arena, "--gpu-architecture=%s", arch), "--fmad=false", "--std=c++17",
                           "--device-as-default-execution-space", "-w"};
  int rc = r->create(&p, u->text, "kernels.cu", 0, NULL, NULL);
  if (!rc) rc = r->compile(p, 5, options);
  if (rc) {
    char *log = NULL;
    if (p && !r->log_size(p, &n)) {
      log = zn_arena_alloc(&u->arena, n + 1);
      r->log(p, log);
      log[n] = 0;
    }
    u->error = zn_arena_printf(&u->arena, "NVRTC failed with code %d: %s", rc, log ? log : "");
  } else {
    r->cubin_size(p, &u->cubin_bytes);
    u->cubin = zn_arena_alloc(&u->arena, u->cubin_bytes + 1);
    r->cubin(p, u->cubin);
    r->ptx_size(p, &u->ptx_bytes);
    u->ptx = zn_arena_alloc(&u->arena, u->ptx_bytes + 1);
    r->ptx(p, u->ptx);
  }
  if (p) r->destroy(&p);
}

static void compile_unit(void *user, uint32_t i) {
  const batch *b = user;
  zn_cuda_unit *u = &b->units[i];
  const char *key = zn_arena_printf(&u->arena, "%s nvrtc %d.%d", b->arch, b->r->major, b->r->minor);
  const char *path = b->cache ? cache_file(&u->arena, b->cache, u, key) : NULL;
  if (path && read_cache(u, path)) return;
  compile_text(b->r, u, b->arch);
  if (path && !u->error) write_cache(u, path);
}

zn_status zn_cuda_compile(zn_ctx *c, zn_cuda_unit *units, uint32_t n, const char *arch, const char *cache) {
  nvrtc r = {0};
  ZN_TRY(load(c, &r));
  if (cache && mkdir(cache, 0777) && errno != EEXIST)
    return zn_fail(c, ZN_ERR_IO, "--cache", "%s: cannot be made: %s", cache, strerror(errno));
  batch b = {.r = &r, .units = units, .arch = arch, .cache = cache};
  zn_parallel(n, compile_unit, &b);
  for (uint32_t i = 0; i < n; i++) {
    if (!units[i].error) continue;
    const char *dump = getenv("ZENITH_CUDA_DUMP");
    FILE *f = dump ? fopen(dump, "wb") : NULL;
    if (f) fputs(units[i].text, f), fclose(f);
    ZN_BUG(c, "generated CUDA code does not compile for %s: %s\n%s", arch, units[i].error, units[i].text);
  }
  return ZN_OK;
}
