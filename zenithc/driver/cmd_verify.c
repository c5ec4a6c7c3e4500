/* zenithc verify: an artifact, or a model compiled for this, against the reference. */
#include <inttypes.h>

#include "targets/native.h"
#include "zenithc/driver/job.h"

enum { EXIT_TOLERANCE = 3, EXIT_INFEASIBLE = 4, EXIT_UNABLE = 5 };

static bool is_artifact(const char *path) { return zn_has_suffix(path, ".so") || zn_has_suffix(path, ".zk"); }

/* A different model than the artifact was compiled from is worth saying. */
static zn_status check_origin(zn_ctx *c, const zn_session *s, const char *model) {
  const char *p = s->mod ? s->mod->provenance : zn_native_model(s->exec)->provenance;
  const char *at = p ? strstr(p, "sha256 ") : NULL;
  char sha[65];
  c->file = model;
  if (!at) return ZN_OK;
  ZN_TRY(zn_sha256_file(c, model, sha));
  if (strncmp(at + 7, sha, 64)) zn_warn(c, NULL, "the artifact was compiled from another model than %s", model);
  return ZN_OK;
}

static void print_outputs(const zn_verify *v) {
  for (uint32_t i = 0; i < v->num_out; i++) {
    const zn_voutput *o = &v->out[i];
    printf("%s %s: ", o->pass ? "ok" : "FAIL", o->name);
    if (!o->m.same_type) {
      puts("type or shape differs");
      continue;
    }
    if (zn_is_float(o->dtype) || zn_dtypes[o->dtype].cls == 'C')
      printf("eta %.3g (p99.9 %.2g, p50 %.2g), tolerance %.3g, SQNR %.1f dB, cosine %.9g", o->m.eta_max,
             o->m.eta_p999, o->m.eta_p50, o->tolerance, o->m.sqnr_db, o->m.cosine);
    else
      printf("%" PRIu64 " of %" PRIu64 " differ%s", o->m.unequal, o->m.n, o->ties ? " (ties)" : "");
    if (o->floor >= 0) printf(", noise floor %.2g", o->floor);
    if (o->m.rows) printf(", top-1 %" PRIu64 "/%" PRIu64, o->m.top1, o->m.rows);
    putchar('\n');
  }
}

static int finish(zn_verify *v, const zn_compile_opts *co) {
  zn_status st = zn_verify_run(v);
  if (v->verdict == ZN_VERDICT_UNABLE || st != ZN_OK) {
    return v->verdict == ZN_VERDICT_UNABLE ? EXIT_UNABLE : zn_exit_code(st);
  }
  print_outputs(v);
  if (v->verdict == ZN_VERDICT_FAIL) zn_verify_localise(v, co, co->target);
  if (v->verdict != ZN_VERDICT_PASS) zn_verify_explain(v);
  printf("%s: %s, %u sample%s\n", zn_verdict_name(v->verdict), zn_verify_summary(&v->c->graph, v), v->samples_done,
         v->samples_done == 1 ? "" : "s");
  if (zn_opt_given(v->o, ZN_O_time))
    fprintf(stderr, "reference %.3f s  artifact %.3f s\n", v->seconds_ref, v->seconds_run);
  return v->verdict == ZN_VERDICT_PASS ? 0 : v->verdict == ZN_VERDICT_FAIL ? EXIT_TOLERANCE : EXIT_INFEASIBLE;
}

int zn_cmd_verify(zn_ctx *c, const zn_opts *o) {
  zn_session s;
  zn_compile_opts co;
  zn_graph *ref;
  if (o->num_args != 1) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "expected one model or artifact, got %u", o->num_args);
    return 2;
  }
  const char *model = zn_opt_str(o, ZN_O_reference);
  c->file = o->args[0];
  if (!model && is_artifact(o->args[0])) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "an artifact holds no reference");
    zn_help(c, "name the model it was compiled from: --reference MODEL.onnx");
    return 2;
  }
  if (!model) model = o->args[0];
  zn_status st = zn_opts_compile(c, o, model, &co);
  if (st == ZN_OK) st = zn_session_open(c, o, o->args[0], &s);
  if (st != ZN_OK) return st == ZN_ERR_UNSUPPORTED ? EXIT_UNABLE : zn_exit_code(st);
  int code = 0;
  if (is_artifact(o->args[0])) st = check_origin(c, &s, model);
  if (st == ZN_OK) st = zn_load_graph(c, model, &co.onnx, &ref);
  if (st == ZN_OK) {
    zn_verify v = {.c = c, .o = o, .s = &s, .model = model, .ref = ref, .user_tol = zn_opt_real(o, ZN_O_tolerance, -1),
                   .samples = (uint32_t)zn_opt_int(o, ZN_O_samples, 1), .seed = (uint64_t)zn_opt_int(o, ZN_O_random, 0)};
    code = finish(&v, &co);
  } else {
    code = zn_exit_code(st);
  }
  zn_session_close(&s);
  return code;
}
