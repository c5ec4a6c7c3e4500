/* A target is data first, then a few functions. Adding one: copy targets/null, one row in targets.def. */
#ifndef ZN_TARGET_H
#define ZN_TARGET_H
#include "codegen/kir/kir.h"

typedef struct zn_target zn_target;
typedef struct zn_exec zn_exec; /* a loaded artifact, defined by each target */

typedef struct zn_build_opts {
  const char *out;    /* path of the artifact; its suffix chooses the kind */
  int opt_level;      /* 0..3 */
  const char *cache;  /* folder of compiled kernels (cuda) or objects (cpu); NULL: none */
  bool keep_names;    /* keep kernel symbol names in the object */
  /* Further instruction sets in the same artifact, the preferred first, all less preferred than the module that is built
   * (zn_kmod_unite of all of them came before). Only for targets with `several`. */
  const zn_variant *more;
  uint32_t num_more;
} zn_build_opts;

struct zn_target {
  const char *name;
  const char *doc;               /* one line for `zenithc targets` */
  const char *const *suffixes;   /* ".so", ".o", ...; NULL-terminated */
  const char *archs;             /* accepted --arch names, for help */
  bool caches;                   /* does build use a folder of what it compiled earlier? */
  bool several;                  /* can one artifact hold several instruction sets (--arch=A,B)? */
  /* Resolves --arch (NULL = default) into caps; unknown names are reported with the accepted ones. */
  zn_status (*caps)(zn_ctx *c, const char *arch, zn_caps *out);
  /* Writes the artifact (and companions such as .h and .bin). mod is fully lowered and expanded for caps. */
  zn_status (*build)(zn_ctx *c, const zn_kmod *mod, const zn_caps *caps, const zn_build_opts *o);
  /* Can artifacts for these caps run on this machine? Explains in *why when not. */
  bool (*can_run)(const zn_caps *caps, const char **why);
  /* Loads what build wrote at path (mod is given too, for interp, which ignores path). */
  zn_status (*load)(zn_ctx *c, const zn_kmod *mod, const char *path, zn_exec **out);
  /* Runs once. in/out dtype+dims+data as zn_htensor; out[i].data NULL: taken from arena, with the shape run reports. */
  zn_status (*run)(zn_ctx *c, zn_exec *e, zn_arena *a, const zn_htensor *in, zn_htensor *out);
  void (*unload)(zn_exec *e);
};

#define TARGET(n) extern const zn_target zn_target_##n;
#include "targets/targets.def"
#undef TARGET
extern const zn_target *const zn_targets[]; /* NULL-terminated, in targets.def order */
const zn_target *zn_target_find(const char *name);

/* targets/native.c: load/run/unload for shared objects with the zenith.h ABI (cpu, c). */
typedef struct zn_native zn_native;
#endif
