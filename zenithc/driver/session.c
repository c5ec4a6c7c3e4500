/* Opens a model or an artifact so that it can be run: compile options from the command line, a temporary build, the
 * target's loader, and inputs from files or the generator. */
#include <inttypes.h>

#include "targets/native.h"
#include "zenithc/ops/grad.h"
#include "zenithc/driver/tools.h"
#include "zenithc/tune/tunedb.h"

static zn_status find_target(zn_ctx *c, const char *name, const zn_target **out) {
  *out = zn_target_find(name);
  if (*out) return ZN_OK;
  const char *names[64];
  uint32_t n = 0;
  for (const zn_target *const *t = zn_targets; *t && n < 64; t++) names[n++] = (*t)->name;
  const char *near = zn_nearest(name, names, n);
  zn_fail(c, ZN_ERR_USAGE, NULL, "unknown target '%s'", name);
  if (near) zn_help(c, "did you mean --target=%s?", near);
  else zn_help(c, "`zenithc targets` lists them");
  return ZN_ERR_USAGE;
}

static zn_status read_precision(zn_ctx *c, const zn_opts *o, zn_compile_opts *out) {
  const char *p = zn_opt_str(o, ZN_O_precision);
  out->tf32 = !strcmp(p, "tf32");
  out->pass.precision = !strcmp(p, "fp16") ? ZN_F16 : !strcmp(p, "bf16") ? ZN_BF16 : ZN_NONE;
  if (out->tf32 && strcmp(out->target->name, "cuda"))
    return zn_fail(c, ZN_ERR_USAGE, NULL, "--precision=tf32 is for --target=cuda, sm_80 or later");
  if (out->tf32 || out->pass.precision || !strcmp(p, "model") || !strcmp(p, "fp32")) return ZN_OK;
  zn_fail(c, ZN_ERR_USAGE, NULL, "--precision=%s is not available (model, fp32, tf32, fp16, bf16)", p);
  zn_help(c, "models that are quantised already compile as they are");
  return ZN_ERR_USAGE;
}

/* The database is read whole and closed: what a build answers does not change under it. */
static zn_status read_tuning(zn_ctx *c, const zn_opts *o, const zn_knobs **out) {
  const char *path = zn_opt_str(o, ZN_O_tune);
  zn_tunedb *db;
  if (!path) return ZN_OK;
  zn_tune_table *table = ZN_NEW(&c->perm, zn_tune_table);
  ZN_TRY(zn_tunedb_open(c, path, false, &db));
  const zn_tune_use use = {.cpu = zn_opt_str(o, ZN_O_tune_cpu),
                           .threads = (uint32_t)zn_opt_int(o, ZN_O_tune_threads, 0),
                           .likely = zn_opt_allowed(ZN_O_threads, o->cmd) ? (uint32_t)zn_opt_int(o, ZN_O_threads, 1) : 0};
  zn_status st = zn_tunedb_load(c, db, &use, table);
  zn_tunedb_close(db);
  zn_knobs *k = ZN_NEW(&c->perm, zn_knobs);
  *k = (zn_knobs){.find = zn_tune_find, .user = table};
  *out = k;
  return st;
}

zn_status zn_opts_compile(zn_ctx *c, const zn_opts *o, const char *model, zn_compile_opts *out) {
  memset(out, 0, sizeof *out);
  ZN_TRY(find_target(c, zn_opt_str(o, ZN_O_target), &out->target));
  ZN_TRY(read_precision(c, o, out));
  out->model = model;
  out->arch = zn_opt_str(o, ZN_O_arch);
  out->opt_level = (int)zn_opt_int(o, ZN_O_level, 2);
  if (strcmp(zn_cmddefs[o->cmd].name, "tune")) ZN_TRY(read_tuning(c, o, &out->knobs));
  out->no_alloc = zn_opt_given(o, ZN_O_no_alloc);
  out->math_fast = zn_opt_is(o, ZN_O_math, "fast");
  out->emulate = zn_opt_given(o, ZN_O_emulate);
  out->no_build = zn_opt_given(o, ZN_O_no_build);
  out->onnx = (zn_onnx_opts){.infer_node = zn_infer_node,
                             .dims = o->val[ZN_O_dim].v,
                             .num_dims = o->val[ZN_O_dim].n,
                             .shapes = o->val[ZN_O_shape].v,
                             .num_shapes = o->val[ZN_O_shape].n};
  out->pass.rewrite_limit = zn_opt_int(o, ZN_O_rewrite_limit, -1);
  out->pass.dump = zn_opt_str(o, ZN_O_dump);
  out->pass.time = zn_opt_given(o, ZN_O_time);
  out->pass.verify_each = true;
  out->pass.stop_after = zn_opt_str(o, ZN_O_stop_after);
  return ZN_OK;
}

bool zn_session_is_native(const zn_session *s) { return s->target->run == zn_native_run; }

static void from_mod(zn_session *s, const zn_kmod *mod) {
  s->mod = mod;
  s->num_in = mod->num_inputs;
  s->num_out = mod->num_outputs;
  s->in = mod->inputs;
  s->out = mod->outputs;
}

static zn_kio *from_desc(zn_arena *a, const zn_io_desc *d, uint32_t n) {
  zn_kio *io = ZN_ARRAY(a, zn_kio, n);
  for (uint32_t i = 0; i < n; i++) {
    io[i].name = d[i].name;
    io[i].dtype = zn_dtype_from_onnx((int)(d[i].dtype & 0xff));
    io[i].kind = d[i].dtype & ~0xffu;
    io[i].rank = d[i].rank;
    memcpy(io[i].dims, d[i].shape, sizeof io[i].dims);
    memcpy(io[i].dim_text, d[i].dim_names, sizeof io[i].dim_text);
  }
  return io;
}

static zn_status open_shared(zn_ctx *c, const char *path, zn_session *s) {
  double t0 = zn_now();
  s->target = zn_target_find("cpu");
  ZN_TRY(zn_native_load(c, NULL, path, &s->exec));
  s->seconds_load = zn_now() - t0;
  const zn_model *m = zn_native_model(s->exec);
  s->num_in = m->num_inputs;
  s->num_out = m->num_outputs;
  s->in = from_desc(&c->perm, m->inputs, m->num_inputs);
  s->out = from_desc(&c->perm, m->outputs, m->num_outputs);
  return ZN_OK;
}

static zn_status open_zk(zn_ctx *c, const char *path, zn_session *s) {
  double t0 = zn_now();
  const char *text, *base = zn_base_name(path);
  size_t n;
  zn_kmod *mod;
  ZN_TRY(zn_read_file(c, &c->perm, path, &text, &n));
  const char *dir = base == path ? "./" : zn_arena_strndup(&c->perm, path, (size_t)(base - path));
  ZN_TRY(zn_kmod_parse(c, &c->perm, text, n, dir, &mod));
  ZN_TRY(zn_kmod_verify(c, mod));
  s->target = zn_target_find("interp");
  from_mod(s, mod);
  ZN_TRY(s->target->load(c, mod, path, &s->exec));
  s->seconds_load = zn_now() - t0;
  return ZN_OK;
}

bool zn_can_run(const zn_target *t, const zn_caps *caps, const char **why) {
  *why = NULL;
  return t->can_run && t->load && t->run && t->can_run(caps, why);
}

/* Can one of the artifact's instruction sets run here? */
static bool can_run_some(const zn_target *t, const zn_compiled *k, const char **why) {
  bool can = zn_can_run(t, &k->caps, why);
  for (uint32_t i = 0; i < k->num_more && !can; i++) can = zn_can_run(t, &k->more[i].caps, why);
  return can;
}

zn_status zn_session_attach(zn_ctx *c, const zn_compiled *k, const zn_target *t, const char *path, zn_session *s) {
  s->target = t;
  s->graph = k->graph;
  s->caps = k->caps;
  s->plan = k->plan;
  s->more = k->more;
  s->num_more = k->num_more;
  from_mod(s, k->mod);
  double t0 = zn_now();
  zn_status st = t->load(c, k->mod, path, &s->exec);
  s->seconds_load = zn_now() - t0;
  return st;
}

zn_status zn_session_load(zn_ctx *c, const zn_compiled *k, const zn_target *t, int level, const char *dir,
                          zn_session *s) {
  const char *why;
  bool can = can_run_some(t, k, &why);
  if (!can && !k->emulate) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "an artifact for --target=%s --arch=%s cannot run here%s%s", t->name,
            k->caps.arch ? k->caps.arch : "", why ? ": " : "", why ? why : "");
    zn_help(c, "--target=interp runs any model, slowly; --emulate runs this target's kernels that way");
    return ZN_ERR_USAGE;
  }
  double t0 = zn_now();
  const char *path = zn_arena_printf(&c->graph, "%s/%s%s", dir, k->mod->name, t->suffixes[0]);
  if (strcmp(t->name, "interp") && (can || !k->no_build)) {
    zn_build_opts b = {.out = path, .opt_level = level, .keep_names = true,
                       .more = zn_compiled_variants(&c->perm, k), .num_more = k->num_more};
    ZN_TRY(t->build(c, k->mod, &k->caps, &b));
    zn_arena_reset(&c->tmp);
  }
  s->seconds_compile = zn_now() - t0;
  return zn_session_attach(c, k, can ? t : zn_target_find("interp"), path, s);
}

zn_status zn_session_open(zn_ctx *c, const zn_opts *o, const char *path, zn_session *out) {
  memset(out, 0, sizeof *out);
  out->path = path;
  if (zn_has_suffix(path, ".so")) return open_shared(c, path, out);
  if (zn_has_suffix(path, ".zk")) return open_zk(c, path, out);
  zn_compile_opts co;
  zn_compiled k;
  const char *dir;
  c->file = path;
  ZN_TRY(zn_opts_compile(c, o, path, &co));
  double t0 = zn_now();
  ZN_TRY(zn_compile(c, &co, &k));
  double middle = zn_now() - t0;
  ZN_TRY(zn_tmp_make(c, NULL, &dir));
  zn_status st = zn_session_load(c, &k, co.target, co.opt_level, dir, out);
  out->seconds_compile += middle;
  if (st != ZN_OK) zn_tmp_remove();
  return st;
}

void zn_session_close(zn_session *s) {
  if (s->exec && s->target->unload) s->target->unload(s->exec);
  s->exec = NULL;
  zn_tmp_remove();
}

zn_status zn_load_graph(zn_ctx *c, const char *path, const zn_onnx_opts *opts, zn_graph **out) {
  if (!zn_has_suffix(path, ".zg")) return zn_onnx_load(c, path, opts, opts ? opts->maps : NULL, out);
  const char *text, *base = zn_base_name(path);
  size_t n;
  if (opts && (opts->num_dims || opts->num_shapes)) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "--%s is for ONNX models; this one is graph text", opts->num_dims ? "dim" : "shape");
    zn_help(c, "write the sizes into the text (`sym N 1..8` bounds a symbol), or give the option where the .zg is made");
    return ZN_ERR_USAGE;
  }
  ZN_TRY(zn_read_file(c, &c->graph, path, &text, &n));
  const char *dir = base == path ? "." : zn_arena_strndup(&c->graph, path, (size_t)(base - path));
  ZN_TRY(zn_graph_parse(c, &c->graph, text, n, dir, out));
  return zn_grad_resolve(c, *out);
}
