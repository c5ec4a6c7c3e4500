/* The comparison that every compilation ends with. The artifact runs when this machine can run it; otherwise the
 * kernel module it was made from runs in the interpreter, and the report says so. */
#include <inttypes.h>

#include "zenithc/driver/job.h"

/* Kinds that the target's loader takes as they are. */
static bool loadable(const zn_job *j) {
  return !strcmp(j->kind, j->target->suffixes[0]) && !strcmp(zn_suffix(j->out), j->kind);
}

static zn_status open_for_check(zn_job *j, const char *dir, zn_session *s) {
  zn_ctx *c = j->c;
  const char *why;
  if (strcmp(j->kind, ".zk") && zn_can_run(j->target, &j->k.caps, &why)) {
    if (loadable(j)) {
      j->checked_on = "artifact";
      return zn_session_attach(c, &j->k, j->target, j->temp_out, s);
    }
    j->checked_on = zn_arena_printf(&c->perm, "the same code as a %s file", j->target->suffixes[0]);
    return zn_session_load(c, &j->k, j->target, j->co.opt_level, dir, s);
  }
  bool text = !strcmp(j->kind, ".zk");
  j->checked_on =
      text ? "artifact"
           : zn_arena_printf(&c->perm, "kernel IR interpreter (%s)", why ? why : "the artifact cannot run here");
  return zn_session_attach(c, &j->k, zn_target_find("interp"), j->temp_out, s);
}

static zn_status no_reference(zn_job *j, zn_status st) {
  zn_ctx *c = j->c;
  zn_note(c, "the reference evaluator could not run the model, so the artifact cannot be checked");
  zn_help(c, "give real inputs with --input NAME=FILE, or skip the check with --verify=off (it is recorded)");
  return st;
}

static zn_status compare(zn_job *j, zn_session *s) {
  zn_ctx *c = j->c;
  zn_graph *ref;
  ZN_TRY(zn_load_graph(c, j->co.model, &j->co.onnx, &ref));
  double t = zn_opt_real(j->o, ZN_O_tolerance, -1);
  if (t < 0 && j->co.pass.precision) t = 8 * zn_verify_delta(j->co.pass.precision); /* roundings add up over layers */
  int64_t samples = zn_opt_int(j->o, ZN_O_samples, 1);
  j->v = (zn_verify){.c = c, .o = j->o, .s = s, .ref = ref, .user_tol = t,
                     .samples = samples < 1 ? 1 : (uint32_t)samples,
                     .seed = (uint64_t)zn_opt_int(j->o, ZN_O_random, 0)};
  zn_status st = zn_verify_run(&j->v);
  if (j->v.verdict == ZN_VERDICT_UNABLE) return no_reference(j, st);
  ZN_TRY(st);
  if (j->v.verdict == ZN_VERDICT_PASS) return ZN_OK;
  const zn_target *on = s->target;
  zn_compile_opts co = j->co;
  if (on != co.target) co.target = on, co.arch = NULL;
  if (j->v.verdict == ZN_VERDICT_FAIL) zn_verify_localise(&j->v, &co, on);
  zn_verify_explain(&j->v);
  zn_help(c, "nothing was written; --verify=off would write it unchecked");
  return ZN_ERR_MODEL;
}

zn_status zn_job_selfcheck(zn_job *j) {
  const char *dir;
  zn_session s = {0};
  double t0 = zn_now();
  ZN_TRY(zn_tmp_make(j->c, NULL, &dir));
  zn_status st = open_for_check(j, dir, &s);
  if (st == ZN_OK) st = compare(j, &s);
  if (s.exec && s.target->unload) s.target->unload(s.exec);
  s.exec = NULL;
  zn_remove_tree(dir);
  j->seconds_check = zn_now() - t0;
  return st;
}
