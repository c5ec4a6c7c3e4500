/* The interpreter as a target: the artifact is the kernel IR text (.zk) with large constants in a
 * .bin beside it; running interprets the module with every access checked. It is the second witness
 * next to the graph evaluator. */
#include <errno.h>

#include "codegen/kir/ktext.h"
#include "targets/exec_common.h"
#include "targets/target.h"
#include "zenithc/base/file.h"

struct zn_exec {
  zn_arena arena; /* holds this struct and a parsed module */
  zn_ctx *c;
  const zn_kmod *mod;
  const void *const *consts; /* results may point into them: keys of a map */
};

static const char *const suffixes[] = {".zk", NULL};

static zn_status interp_caps(zn_ctx *c, const char *arch, zn_caps *out) {
  if (arch && strcmp(arch, "any"))
    return zn_fail(c, ZN_ERR_USAGE, "--arch",
                   "target interp has no architecture '%s'; it knows: any", arch);
  *out = (zn_caps){.target = "interp",
                   .arch = "any",
                   .idx_bytes = 8,
                   .vector_bytes = 64,
                   .vector_regs = 32,
                   .fma = true,
                   .f16_convert = true,
                   .round_native = true,
                   .f64_native = true,
                   .dot2 = true,
                   .dot4 = ZN_DOT4_PAIRS,
                   .l1_bytes = 32768,
                   .l2_bytes = 1 << 20,
                   .cores = 1};
  return ZN_OK;
}

static zn_status write_failed(zn_ctx *c, const char *path) {
  return zn_fail(c, ZN_ERR_IO, path, "cannot be written: %s", strerror(errno));
}

/* Large constants, each at the offset the text names. */
static zn_status write_bin(zn_ctx *c, const zn_kmod *mod, const char *path) {
  static const char zeros[64];
  uint64_t pos = 0, at, end = 0;
  FILE *f = NULL;
  bool fine = true;
  zn_arena a;
  zn_arena_init(&a, "constant");
  for (uint32_t i = 0; i < mod->num_consts && fine; i++) {
    at = zn_kconst_place(&mod->consts[i], &pos);
    if (at == UINT64_MAX) continue;
    if (!f && !(f = fopen(path, "wb"))) return write_failed(c, path);
    fine = fwrite(zeros, 1, (size_t)(at - end), f) == at - end &&
           fwrite(zn_kconst_data(&mod->consts[i], &a), 1, (size_t)(pos - at), f) == pos - at;
    end = pos;
    zn_arena_reset(&a);
  }
  if (f && fclose(f)) fine = false;
  return fine ? ZN_OK : write_failed(c, path);
}

static zn_status interp_build(zn_ctx *c, const zn_kmod *mod, const zn_caps *caps,
                              const zn_build_opts *o) {
  (void)caps;
  zn_arena tmp;
  zn_arena_init(&tmp, "interp");
  const char *bin = zn_arena_printf(&tmp, "%s.bin", o->out), *slash = strrchr(bin, '/');
  zn_text t;
  zn_text_init(&t, &tmp);
  zn_kmod_print_split(mod, &t, slash ? slash + 1 : bin);
  zn_status st = write_bin(c, mod, bin);
  if (st == ZN_OK) st = zn_write_file(c, o->out, t.s, t.len);
  zn_arena_reset(&tmp);
  return st;
}

static bool interp_can_run(const zn_caps *caps, const char **why) {
  (void)caps;
  *why = NULL;
  return true;
}

/* With a module the path is not looked at; without one the text at path is parsed. */
static zn_status interp_load(zn_ctx *c, const zn_kmod *mod, const char *path, zn_exec **out) {
  zn_arena arena;
  zn_arena_init(&arena, "interp");
  zn_exec *e = ZN_NEW(&arena, zn_exec);
  e->c = c;
  e->mod = mod;
  zn_status st = ZN_OK;
  if (!mod) {
    const char *text;
    size_t n;
    const char *slash = strrchr(path, '/');
    const char *dir = slash ? zn_arena_strndup(&arena, path, (size_t)(slash - path) + 1) : "./";
    zn_kmod *parsed = NULL;
    st = zn_read_file(c, &arena, path, &text, &n);
    if (st == ZN_OK) st = zn_kmod_parse(c, &arena, text, n, dir, &parsed);
    if (st == ZN_OK) st = zn_kmod_verify(c, parsed);
    e->mod = parsed;
  }
  if (st != ZN_OK) {
    zn_arena_reset(&arena);
    return st;
  }
  e->consts = zn_interp_consts(e->mod, &arena);
  e->arena = arena;
  *out = e;
  return ZN_OK;
}

static int32_t call_entry(void *user, bool plan, zn_tensor *in, zn_tensor *out, void *ws,
                          uint64_t ws_bytes, const zn_host *host) {
  const zn_exec *e = user;
  const zn_interp_opts o = {.check_bounds = true, .consts = e->consts};
  uint32_t fn = plan ? e->mod->plan_fn : e->mod->run_fn;
  return zn_interp_entry(e->c, e->mod, fn, in, out, ws, ws_bytes, host, &o);
}

static zn_status interp_run(zn_ctx *c, zn_exec *e, zn_arena *a, const zn_htensor *in,
                            zn_htensor *out) {
  e->c = c;
  return zn_exec_run_entries(c, a, e->mod->name, e->mod->num_inputs, e->mod->num_outputs,
                             call_entry, e, NULL, in, out);
}

static void interp_unload(zn_exec *e) {
  if (!e) return;
  zn_arena arena = e->arena; /* the struct lives in it */
  zn_arena_reset(&arena);
}

const zn_target zn_target_interp = {
    .name = "interp",
    .doc = "kernel IR text (.zk), run by the built-in interpreter: slow, every access checked",
    .suffixes = suffixes,
    .archs = "any",
    .caps = interp_caps,
    .build = interp_build,
    .can_run = interp_can_run,
    .load = interp_load,
    .run = interp_run,
    .unload = interp_unload,
};
