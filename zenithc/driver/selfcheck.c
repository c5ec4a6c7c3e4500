/* The comparison that every compilation ends with. The artifact runs when this machine can run it; otherwise the
 * kernel module it was made from runs in the interpreter, and the report says so. Of several instruction sets in one
 * artifact each is compared: the artifact itself runs the one it prefers here, the others run alone. */
#include <inttypes.h>

#include "zenithc/driver/job.h"

/* Kinds that the target's loader takes as they are. */
static bool loadable(const zn_job *j) {
  return !strcmp(j->kind, j->target->suffixes[0]) && !strcmp(zn_suffix(j->temp_out), j->kind);
}

/* k: one instruction set of the artifact; chosen: the artifact runs it here. */
static zn_status open_for_check(zn_job *j, const zn_compiled *k, bool chosen, const char *dir, zn_session *s,
                                const char **out_on) {
  zn_ctx *c = j->c;
  const char *why;
  if (strcmp(j->kind, ".zk") && zn_can_run(j->target, &k->caps, &why)) {
    if (chosen && loadable(j)) {
      *out_on = "artifact";
      return zn_session_attach(c, k, j->target, j->temp_out, s);
    }
    *out_on = zn_arena_printf(&c->perm, "the same code as a %s file", j->target->suffixes[0]);
    return zn_session_load(c, k, j->target, j->co.opt_level, dir, s);
  }
  bool text = !strcmp(j->kind, ".zk");
  *out_on =
      text ? "artifact"
           : zn_arena_printf(&c->perm, "kernel IR interpreter (%s)", why ? why : "the artifact cannot run here");
  return zn_session_attach(c, k, zn_target_find("interp"), j->temp_out, s);
}

static zn_status no_reference(zn_job *j, zn_status st) {
  zn_ctx *c = j->c;
  zn_note(c, "the reference evaluator could not run the model, so the artifact cannot be checked");
  zn_help(c, "give real inputs with --input NAME=FILE, or skip the check with --verify=off (it is recorded)");
  return st;
}

int zn_job_finer(const zn_job *j) {
  int most = j->co.winograd_most;
  return !j->co.math_fast || most == 1 ? 0 : most == 0 ? 2 : most - 1;
}

static zn_status compare(zn_job *j, zn_session *s) {
  zn_ctx *c = j->c;
  zn_graph *ref;
  ZN_TRY(zn_load_graph(c, j->co.model, &j->co.onnx, &ref));
  double t = zn_opt_real(j->o, ZN_O_tolerance, -1);
  const zn_dtype rounded = j->co.tf32 ? ZN_F16 : j->co.pass.precision; /* tf32 has the mantissa of f16 */
  if (t < 0 && rounded) t = 8 * zn_verify_delta(rounded); /* roundings add up over layers */
  j->v = (zn_verify){.c = c, .o = j->o, .s = s, .model = j->co.model, .ref = ref, .user_tol = t,
                     .samples = (uint32_t)zn_opt_int(j->o, ZN_O_samples, 1),
                     .seed = (uint64_t)zn_opt_int(j->o, ZN_O_random, 0)};
  zn_status st = zn_verify_run(&j->v);
  if (j->v.verdict == ZN_VERDICT_UNABLE) return no_reference(j, st);
  ZN_TRY(st);
  if (j->v.verdict == ZN_VERDICT_PASS || zn_job_finer(j)) return ZN_OK;
  const zn_target *on = s->target;
  zn_compile_opts co = j->co;
  if (j->k.num_more) co.arch = s->caps.arch;
  if (on != co.target) co.target = on, co.arch = NULL;
  if (j->v.verdict == ZN_VERDICT_FAIL) zn_verify_localise(&j->v, &co, on);
  zn_verify_explain(&j->v);
  zn_help(c, "nothing was written; --verify=off would write it unchecked");
  return ZN_ERR_MODEL;
}

static zn_status check_one(zn_job *j, const zn_compiled *k, bool chosen, const char **out_on) {
  const char *dir;
  zn_session s = {0};
  ZN_TRY(zn_tmp_make(j->c, NULL, &dir));
  zn_status st = open_for_check(j, k, chosen, dir, &s, out_on);
  if (st == ZN_OK) st = compare(j, &s);
  if (s.exec && s.target->unload) s.target->unload(s.exec);
  s.exec = NULL;
  zn_remove_tree(dir);
  return st;
}

static double worst_eta(const zn_verify *v) {
  double worst = -1;
  for (uint32_t i = 0; i < v->num_out; i++)
    if (v->out[i].m.eta_max > worst) worst = v->out[i].m.eta_max;
  return worst;
}

/* Stops at the first that is wrong; what is reported is the worst of those that are right. */
static zn_status check_several(zn_job *j) {
  bool chosen = false;
  zn_verify worst = {0};
  zn_text on;
  zn_text_init(&on, &j->c->perm);
  for (uint32_t i = 0; i <= j->k.num_more; i++) {
    zn_compiled one = i ? j->k.more[i - 1] : j->k;
    one.num_more = 0;
    const char *why, *where;
    bool first = !chosen && zn_can_run(j->target, &one.caps, &why);
    chosen = chosen || first;
    ZN_TRY(check_one(j, &one, first, &where));
    if (j->v.verdict != ZN_VERDICT_PASS) return ZN_OK;
    if (i == 0 || worst_eta(&j->v) > worst_eta(&worst)) worst = j->v;
    zn_text_printf(&on, "%s%s: %s", i ? "; " : "", one.caps.arch, where);
  }
  j->v = worst;
  j->checked_on = on.s;
  return ZN_OK;
}

zn_status zn_job_selfcheck(zn_job *j) {
  double t0 = zn_now();
  zn_status st = j->k.num_more ? check_several(j) : check_one(j, &j->k, true, &j->checked_on);
  j->seconds_check = zn_now() - t0;
  return st;
}
