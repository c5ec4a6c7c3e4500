/* The JSON report of a compilation (--report), schema 1: see docs/NUMERICS.md. */
#include <cjson/cJSON.h>
#include <math.h>
#include <sys/resource.h>

#include "zenithc/driver/job.h"

static void num(cJSON *o, const char *key, double x) {
  if (isfinite(x)) cJSON_AddNumberToObject(o, key, x);
  else cJSON_AddNullToObject(o, key);
}

static cJSON *output_json(const zn_voutput *v, uint32_t samples) {
  cJSON *o = cJSON_CreateObject();
  cJSON_AddStringToObject(o, "name", v->name);
  cJSON_AddStringToObject(o, "dtype", zn_dtypes[v->dtype].name);
  cJSON *eta = cJSON_AddObjectToObject(o, "eta");
  num(eta, "max", v->m.eta_max);
  num(eta, "p999", v->m.eta_p999);
  num(eta, "p50", v->m.eta_p50);
  cJSON_AddStringToObject(eta, "kind", "measured");
  num(eta, "n", samples);
  num(o, "tolerance", v->tolerance);
  if (v->floor >= 0) num(o, "floor", v->floor);
  num(o, "sqnr_db", v->m.sqnr_db);
  num(o, "cos", v->m.cosine);
  num(o, "elementwise_rel_max", v->m.rel_max);
  num(o, "unequal", (double)v->m.unequal);
  num(o, "ties", (double)v->ties);
  double agree[2] = {(double)v->m.top1, (double)v->m.rows};
  cJSON_AddItemToObject(o, "top1_agree", cJSON_CreateDoubleArray(agree, 2));
  cJSON_AddBoolToObject(o, "outlier_scaled", v->m.outlier_scaled);
  cJSON_AddBoolToObject(o, "pass", v->pass);
  return o;
}

static void add_artifact(cJSON *r, const zn_job *j, bool made) {
  cJSON *a = cJSON_AddObjectToObject(r, "artifact");
  char sha[65];
  cJSON_AddStringToObject(a, "path", j->out);
  cJSON_AddStringToObject(a, "kind", j->kind);
  cJSON_AddStringToObject(a, "target", j->target->name);
  if (j->k.caps.arch) cJSON_AddStringToObject(a, "arch", j->k.caps.arch);
  if (j->k.num_more) {
    cJSON *list = cJSON_AddArrayToObject(a, "archs"); /* the preferred first */
    for (uint32_t i = 0; i <= j->k.num_more; i++)
      cJSON_AddItemToArray(list, cJSON_CreateString(i ? j->k.more[i - 1].caps.arch : j->k.caps.arch));
  }
  num(a, "bytes", (double)j->artifact_bytes);
  if (made && zn_sha256_file(j->c, j->temp_out, sha) == ZN_OK) cJSON_AddStringToObject(a, "sha256", sha);
}

static void add_check(cJSON *r, const zn_job *j) {
  const zn_verify *v = &j->v;
  cJSON *t = cJSON_AddObjectToObject(r, "tolerance");
  if (v->user_tol >= 0) num(t, "value", v->user_tol);
  cJSON_AddStringToObject(t, "source", v->user_tol >= 0 ? "--tolerance" : "max(delta of the type, 4*floor)");
  if (j->checked_on) cJSON_AddStringToObject(t, "checked_on", j->checked_on);
  cJSON *in = cJSON_AddArrayToObject(r, "inputs");
  cJSON *one = cJSON_CreateObject();
  bool files = zn_opt_given(j->o, ZN_O_input);
  cJSON_AddStringToObject(one, "kind", files ? "files" : "generated");
  if (!files) num(one, "seed", (double)v->seed);
  num(one, "n", v->samples_done);
  cJSON_AddItemToArray(in, one);
  cJSON *out = cJSON_AddArrayToObject(r, "outputs");
  for (uint32_t i = 0; i < v->num_out; i++) cJSON_AddItemToArray(out, output_json(&v->out[i], v->samples_done));
  if (v->drift) cJSON_AddStringToObject(r, "drift", v->drift);
}

static void add_kernels(cJSON *list, const zn_kmod *m, const char *arch) {
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    const zn_kfunc *f = m->funcs[i];
    if (f->is_entry) continue;
    cJSON *one = cJSON_CreateObject();
    cJSON_AddStringToObject(one, "name", f->name);
    if (f->note) cJSON_AddStringToObject(one, "computes", f->note);
    if (arch) cJSON_AddStringToObject(one, "arch", arch);
    cJSON_AddItemToArray(list, one);
  }
}

static void add_plan(cJSON *r, const zn_job *j) {
  const zn_plan_stats *p = &j->k.plan;
  cJSON *o = cJSON_AddObjectToObject(r, "plan");
  num(o, "workspace", (double)j->k.mod->workspace_bytes);
  num(o, "lower_bound", (double)p->lower_bound);
  num(o, "sum_of_buffers", (double)p->sum_of_buffers);
  num(o, "buffers", p->num_buffers);
  num(o, "ram", (double)j->ram_bytes);
  cJSON *over = cJSON_AddArrayToObject(o, "in_place"); /* outputs that may have the address of an input */
  for (uint32_t i = 0; i < j->k.mod->num_outputs; i++) {
    const zn_kio *out = &j->k.mod->outputs[i];
    if (!out->over) continue;
    cJSON *pair = cJSON_CreateObject();
    cJSON_AddStringToObject(pair, "output", out->name);
    cJSON_AddStringToObject(pair, "input", j->k.mod->inputs[out->over - 1].name);
    cJSON_AddItemToArray(over, pair);
  }
  cJSON *k = cJSON_AddArrayToObject(r, "kernels");
  add_kernels(k, j->k.mod, j->k.num_more ? j->k.caps.arch : NULL);
  for (uint32_t i = 0; i < j->k.num_more; i++) add_kernels(k, j->k.more[i].mod, j->k.more[i].caps.arch);
}

static void add_costs(cJSON *r, const zn_job *j) {
  struct rusage u;
  cJSON *t = cJSON_AddObjectToObject(r, "seconds");
  num(t, "load", j->k.seconds_load);
  num(t, "passes", j->k.seconds_passes);
  num(t, "lower", j->k.seconds_lower);
  num(t, "kernels", j->k.seconds_kernels);
  num(t, "build", j->seconds_build);
  num(t, "check", j->seconds_check);
  if (getrusage(RUSAGE_SELF, &u) == 0) num(r, "peak_memory_bytes", (double)u.ru_maxrss * 1024);
}

zn_status zn_job_report(const zn_job *j, zn_status st) {
  const char *path = zn_opt_str(j->o, ZN_O_report);
  if (!path) return ZN_OK;
  cJSON *r = cJSON_CreateObject();
  num(r, "zn_report", 1);
  cJSON_AddStringToObject(r, "compiler", "zenithc " ZN_VERSION);
  cJSON *m = cJSON_AddObjectToObject(r, "model");
  cJSON_AddStringToObject(m, "path", j->co.model);
  cJSON_AddStringToObject(m, "sha256", j->model_sha);
  add_artifact(r, j, st == ZN_OK);
  add_check(r, j);
  if (j->k.mod) add_plan(r, j);
  add_costs(r, j);
  const char *verdict = zn_verdict_name(j->v.verdict);
  if (st != ZN_OK && j->v.verdict <= ZN_VERDICT_PASS) verdict = "fail";
  cJSON_AddStringToObject(r, "verdict", verdict);
  num(r, "exit", zn_exit_code(st));
  char *text = cJSON_Print(r);
  cJSON_Delete(r);
  if (!text) return zn_fail(j->c, ZN_ERR_IO, path, "out of memory for the report");
  zn_status w = zn_write_file(j->c, path, text, strlen(text));
  cJSON_free(text);
  return w;
}
