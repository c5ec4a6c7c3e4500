/* The null target: accepts everything, writes the listing of the module, runs nothing. It is the
 * template for a new target (copy the folder, rename zn_target_null, add a row in targets.def, fill
 * in the functions) and it shows that the pipeline works without any back end. */

#include "codegen/kir/ktext.h"
#include "targets/target.h"
#include "zenithc/base/file.h"

static const char *const suffixes[] = {".txt", NULL};

/* Resolves --arch. A target with several architectures looks the name up in a table and reports
 * unknown ones. */
static zn_status null_caps(zn_ctx *c, const char *arch, zn_caps *out) {
  if (arch && strcmp(arch, "any"))
    return zn_fail(c, ZN_ERR_USAGE, "--arch", "target null has no architecture '%s'; it knows: any",
                   arch);
  *out = (zn_caps){.target = "null", .arch = "any", .idx_bytes = 8, .f64_native = true, .cores = 1};
  return ZN_OK;
}

/* Writes the artifact. A real target prints mod through its code generator and links. */
static zn_status null_build(zn_ctx *c, const zn_kmod *mod, const zn_caps *caps,
                            const zn_build_opts *o) {
  (void)caps;
  zn_arena tmp;
  zn_arena_init(&tmp, "null");
  zn_text t;
  zn_text_init(&t, &tmp);
  zn_text_printf(&t, "%s: %u functions, %u constants\n", mod->name, mod->num_funcs,
                 mod->num_consts);
  for (uint32_t i = 0; i < mod->num_funcs; i++)
    zn_text_printf(&t, "%4u %s: %u instructions%s%s\n", i, mod->funcs[i]->name,
                   mod->funcs[i]->num_insts, mod->funcs[i]->note ? "; " : "",
                   mod->funcs[i]->note ? mod->funcs[i]->note : "");
  zn_status st = zn_write_file(c, o->out, t.s, t.len);
  zn_arena_reset(&tmp);
  return st;
}

static bool null_can_run(const zn_caps *caps, const char **why) {
  (void)caps;
  *why = "the null target computes nothing";
  return false;
}

/* Targets that cannot run leave load, run and unload NULL. */
const zn_target zn_target_null = {
    .name = "null",
    .doc = "compiles and discards; writes a list of the functions",
    .suffixes = suffixes,
    .archs = "any",
    .caps = null_caps,
    .build = null_build,
    .can_run = null_can_run,
};
