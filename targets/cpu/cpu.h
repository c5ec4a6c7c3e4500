/* The cpu target: objects, archives and shared objects for the architectures in cpu_caps.c, through LLVM. */
#ifndef ZN_CPU_H
#define ZN_CPU_H
#include "codegen/llvm/llvm_emit.h"
#include "targets/target.h"

zn_status zn_cpu_caps(zn_ctx *c, const char *arch, zn_caps *out);
bool zn_cpu_can_run(const zn_caps *caps, const char **why);
zn_status zn_cpu_build(zn_ctx *c, const zn_kmod *mod, const zn_caps *caps, const zn_build_opts *o);

/* zn_llvm_emit of an object, through a folder of objects compiled earlier (cache, NULL: none): the same bytes. */
zn_status zn_cpu_object(zn_ctx *c, const zn_kmod *mod, const zn_caps *caps, const zn_llvm_opts *o, const char *cache);
/* The folder, made when it is missing; NULL after a warning when it cannot be used. */
const char *zn_cpu_cache_ready(zn_ctx *c, const char *folder);

/* Links one object into a shared object that needs nothing: lld where found, else the system's ld. */
zn_status zn_cpu_link(zn_ctx *c, const char *obj, const char *out);
/* The same from several objects (NULL-terminated, 8 at most); closed: every symbol must be found in them. */
zn_status zn_cpu_link_all(zn_ctx *c, const char *const *objs, bool closed, const char *out);
/* A deterministic ar archive of one member, with a symbol index of `symbols` (NULL-terminated). */
zn_status zn_cpu_archive(zn_ctx *c, const char *obj, const char *member, const char *const *symbols,
                         const char *out);
#endif
