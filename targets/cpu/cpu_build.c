/* Builds one artifact of the cpu target; the suffix of the output chooses its kind. */
#include <unistd.h>

#include "codegen/cstyle/cstyle.h"
#include "codegen/llvm/elf_data.h"
#include "targets/cpu/cpu.h"
#include "targets/native.h"
#include "zenithc/base/file.h"
#include "zenithc/base/parallel.h"

/* The output's path with another suffix. */
static const char *sibling(zn_arena *a, const char *out, const char *suffix) {
  const char *dot = strrchr(out, '.');
  return zn_arena_printf(a, "%.*s%s", (int)(dot - out), out, suffix);
}

static const char *temporary(zn_arena *a, const char *out) {
  return zn_arena_printf(a, "%s.zn-obj-%ld", out, (long)getpid());
}

/* ---- the objects of a shared object, compiled side by side ---- */

typedef struct parts {
  zn_ctx *c;
  const zn_kmod *mod;
  const zn_caps *caps;
  const zn_llvm_opts *o;
  const char *cache, *out[ZN_LLVM_MAX_PARTS + 1];
  uint32_t n;
  zn_status st[ZN_LLVM_MAX_PARTS + 1];
} parts;

static void compile_part(void *user, uint32_t i) {
  parts *p = user;
  zn_llvm_opts e = *p->o;
  e.out = p->out[i];
  e.part = i;
  e.parts = p->n;
  p->st[i] = zn_cpu_object(p->c, p->mod, p->caps, &e, p->cache);
}

static zn_status compile_all(parts *p) {
  zn_llvm_init();
  zn_parallel(p->n, compile_part, p);
  for (uint32_t i = 0; i < p->n; i++) ZN_TRY(p->st[i]);
  return ZN_OK;
}

static zn_status build_shared(zn_ctx *c, const zn_kmod *mod, const zn_caps *caps, zn_llvm_opts e, const char *cache) {
  if (strstr(caps->triple, "-none-")) {
    zn_fail(c, ZN_ERR_USAGE, e.out, "%s has no operating system to load a shared object", caps->arch);
    zn_help(c, "write an object or an archive (-o NAME.o, -o NAME.a) and link it into the firmware");
    return ZN_ERR_USAGE;
  }
  const char *out = e.out;
  e.export_main = e.defer_data = true;
  parts p = {.c = c, .mod = mod, .caps = caps, .o = &e, .cache = cache, .n = zn_llvm_parts(mod, &e)};
  for (uint32_t i = 0; i < p.n; i++) p.out[i] = zn_arena_printf(&c->tmp, "%s-%u", temporary(&c->tmp, out), i);
  zn_status st = compile_all(&p);
  if (st == ZN_OK) st = zn_cpu_link_all(c, p.out, true, out);
  for (uint32_t i = 0; i < p.n; i++) remove(p.out[i]);
  return st == ZN_OK ? zn_elf_fill_shared(c, out, mod) : st;
}

static const char *const *exported_symbols(zn_arena *a, const zn_kmod *mod) {
  const char **s = ZN_ARRAY(a, const char *, mod->num_funcs + 4);
  uint32_t n = 0;
  s[n++] = zn_arena_printf(a, "%s_model", mod->name);
  s[n++] = zn_arena_printf(a, "%s_plan", mod->name);
  s[n++] = zn_arena_printf(a, "%s_run", mod->name);
  for (uint32_t i = 0; i < mod->num_funcs; i++)
    if (!mod->funcs[i]->is_entry && mod->funcs[i]->exported) s[n++] = mod->funcs[i]->name;
  return s;
}

static zn_status build_archive(zn_ctx *c, const zn_kmod *mod, const zn_caps *caps, zn_llvm_opts e, const char *cache) {
  const char *out = e.out;
  e.out = temporary(&c->tmp, out);
  zn_status st = zn_cpu_object(c, mod, caps, &e, cache);
  if (st == ZN_OK)
    st = zn_cpu_archive(c, e.out, zn_arena_printf(&c->tmp, "%.13s.o", mod->name),
                        exported_symbols(&c->tmp, mod), out);
  remove(e.out);
  return st;
}

/* Modules of kernels only, as tests build them, have no entries to declare. */
static bool has_model(const zn_kmod *mod) {
  return mod->run_fn < mod->num_funcs && mod->funcs[mod->run_fn]->is_entry;
}

zn_status zn_cpu_build(zn_ctx *c, const zn_kmod *mod, const zn_caps *caps, const zn_build_opts *o) {
  zn_llvm_opts e = {.out = o->out, .opt_level = o->opt_level, .keep_names = o->keep_names, .more = o->more,
                    .num_more = o->num_more};
  const char *cache = zn_cpu_cache_ready(c, o->cache);
  if (zn_has_suffix(o->out, ".so")) return build_shared(c, mod, caps, e, cache);
  bool archive = zn_has_suffix(o->out, ".a");
  if (archive || zn_has_suffix(o->out, ".o")) {
    ZN_TRY(archive ? build_archive(c, mod, caps, e, cache) : zn_cpu_object(c, mod, caps, &e, cache));
    return has_model(mod) ? zn_write_typed_header(c, mod, sibling(&c->tmp, o->out, ".h")) : ZN_OK;
  }
  bool ir = zn_has_suffix(o->out, ".ll");
  if (!ir && !zn_has_suffix(o->out, ".s")) {
    zn_fail(c, ZN_ERR_USAGE, o->out, "target cpu cannot write this kind of file");
    zn_help(c, "use a name ending in .so, .o, .a, .s or .ll");
    return ZN_ERR_USAGE;
  }
  e.kind = ir ? ZN_LLVM_IR : ZN_LLVM_ASM;
  e.keep_names = true;
  if (ir) e.bin = sibling(&c->tmp, o->out, ".bin"); /* assembly text holds them itself */
  return zn_llvm_emit(c, mod, caps, &e);
}

static const char *const suffixes[] = {".so", ".o", ".a", ".s", ".ll", NULL};

const zn_target zn_target_cpu = {
    .name = "cpu",
    .doc = "x86-64, AArch64, RISC-V and Cortex-M machine code through LLVM",
    .suffixes = suffixes,
    .archs = "native, x86-64, x86-64-v2, x86-64-v3 (default), x86-64-v4, alderlake, icelake-server, aarch64, "
             "armv8.2-a+dotprod, cortex-a76, neoverse-n1, armv8.6-a, neoverse-v1, riscv64, rv64gcv, cortex-m4, cortex-m7, "
             "cortex-m33, cortex-m55",
    .several = true,
    .caches = true,
    .caps = zn_cpu_caps,
    .build = zn_cpu_build,
    .can_run = zn_cpu_can_run,
    .load = zn_native_load,
    .run = zn_native_run,
    .unload = zn_native_unload,
};
