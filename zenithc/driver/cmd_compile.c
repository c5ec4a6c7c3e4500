/* zenithc MODEL -o OUT: compile, build in a temporary folder beside OUT, compare with the reference, then move the
 * files into place. Nothing is written when anything fails. */
#include <errno.h>
#include <inttypes.h>

#include "zenithc/driver/job.h"

static const char *join_suffixes(zn_arena *a, const zn_target *t) {
  zn_text s;
  zn_text_init(&s, a);
  for (uint32_t i = 0; t->suffixes[i]; i++) zn_text_printf(&s, "%s, ", t->suffixes[i]);
  zn_text_puts(&s, ".zg, .zk");
  return s.s;
}

static const char *folder_of(zn_arena *a, const char *path) {
  const char *base = zn_base_name(path);
  return base == path ? "." : zn_arena_strndup(a, path, (size_t)(base - path) - (base - path > 1));
}

/* What is moved into place replaces what was there: a file, and not the model. A link stays, and its file changes. */
static zn_status choose_place(zn_job *j) {
  zn_ctx *c = j->c;
  const char *report = zn_opt_str(j->o, ZN_O_report);
  if (zn_is_dir(j->out))
    return zn_fail(c, ZN_ERR_USAGE, NULL, "-o %s: this is a folder; name the file to write in it", j->out);
  if (zn_is_special(j->out)) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "-o %s: this is a device or pipe, and OUT is replaced as a whole; name a file", j->out);
    zn_help(c, "`zenithc verify MODEL` compiles and compares without writing anything");
    return ZN_ERR_USAGE;
  }
  if (zn_is_special(j->co.model)) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "this is a device or pipe, and the model is read more than once");
    zn_help(c, "save it as a file first");
    return ZN_ERR_USAGE;
  }
  if (zn_same_file(j->out, j->co.model))
    return zn_fail(c, ZN_ERR_USAGE, NULL, "-o %s: this is the model itself; name another file", j->out);
  if (report && zn_same_file(report, j->co.model))
    return zn_fail(c, ZN_ERR_USAGE, NULL, "--report %s: this is the model itself; name another file", report);
  j->place = zn_behind_links(&c->perm, j->out);
  const char *dir = folder_of(&c->perm, j->place);
  if (zn_is_dir(dir)) return ZN_OK;
  zn_fail(c, ZN_ERR_USAGE, NULL, "-o %s: cannot be written: there is no folder '%s'", j->out, dir);
  zn_help(c, "make it first: mkdir -p %s", dir);
  return ZN_ERR_USAGE;
}

/* The kind of artifact is OUT's suffix, or --emit. .zg and .zk are written for every target. */
static zn_status choose_kind(zn_job *j) {
  zn_ctx *c = j->c;
  const char *emit = zn_opt_str(j->o, ZN_O_emit);
  j->kind = emit ? zn_arena_printf(&c->perm, "%s%s", *emit == '.' ? "" : ".", emit) : zn_suffix(j->out);
  if (!strcmp(j->kind, ".zg") || !strcmp(j->kind, ".zk")) return ZN_OK;
  for (uint32_t i = 0; j->target->suffixes[i]; i++)
    if (!strcmp(j->target->suffixes[i], j->kind)) return ZN_OK;
  zn_fail(c, ZN_ERR_USAGE, NULL, "%s: target %s cannot write %s%s", j->out, j->target->name,
          *j->kind ? j->kind : "a file without suffix", *j->kind ? " files" : "");
  zn_help(c, "it writes %s", join_suffixes(&c->tmp, j->target));
  for (const zn_target *const *t = zn_targets; *t && *j->kind; t++)
    for (uint32_t i = 0; (*t)->suffixes[i]; i++)
      if (!strcmp((*t)->suffixes[i], j->kind)) zn_help(c, "--target=%s writes %s", (*t)->name, j->kind);
  return ZN_ERR_USAGE;
}

static zn_status not_available(zn_job *j) {
  zn_ctx *c = j->c;
  if (zn_opt_given(j->o, ZN_O_calib)) {
    zn_fail(c, ZN_ERR_USAGE, NULL,
            "--calib has no use: calibration belongs to a reduced --precision, which is not available");
    return ZN_ERR_USAGE;
  }
  if (zn_opt_given(j->o, ZN_O_cache) && !j->target->caches) {
    zn_fail(j->c, ZN_ERR_USAGE, NULL, "--cache: target %s keeps nothing that took long to compile", j->target->name);
    return ZN_ERR_USAGE;
  }
  ZN_TRY(zn_folder_option(c, "--cache", zn_opt_str(j->o, ZN_O_cache)));
  if (!strcmp(j->kind, ".zk") && j->target->several && j->co.arch && strchr(j->co.arch, ',')) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "--arch=%s: a .zk file holds the kernels of one instruction set", j->co.arch);
    return ZN_ERR_USAGE;
  }
  const bool chooses_cpu = zn_opt_given(j->o, ZN_O_tune_cpu);
  if ((chooses_cpu || zn_opt_given(j->o, ZN_O_tune_threads)) && !zn_opt_given(j->o, ZN_O_tune)) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "--tune-%s chooses from a tuning database: give it with --tune FILE",
            chooses_cpu ? "cpu" : "threads");
    return ZN_ERR_USAGE;
  }
  if ((zn_opt_given(j->o, ZN_O_passes) || zn_opt_given(j->o, ZN_O_stop_after)) && strcmp(j->kind, ".zg")) {
    zn_fail(c, ZN_ERR_USAGE, NULL,
            "--passes and --stop-after leave a graph that cannot be lowered; write it with -o NAME.zg");
    return ZN_ERR_USAGE;
  }
  return ZN_OK;
}

static zn_status list_passes(const zn_opts *o, bool *out_done) {
  const char *d = zn_opt_str(o, ZN_O_dump);
  *out_done = d && strchr(d, '?');
  for (unsigned i = 0; *out_done && i < zn_num_passes; i++)
    printf("%c  %-8s -O%d  %s\n", zn_passes[i].letter, zn_passes[i].name, zn_passes[i].min_level, zn_passes[i].doc);
  return ZN_OK;
}

static zn_status write_graph(zn_job *j) {
  zn_graph *g;
  zn_pass_opts p = j->co.pass;
  zn_caps caps;
  const char *named = zn_opt_str(j->o, ZN_O_passes);
  ZN_TRY(j->target->caps(j->c, j->co.arch, &caps));
  p.opt_level = j->co.opt_level;
  p.math_fast = j->co.math_fast;
  p.caps = &caps;
  ZN_TRY(zn_load_graph(j->c, j->co.model, &j->co.onnx, &g));
  if (named) ZN_TRY(zn_passes_run_named(j->c, g, named, &p));
  else ZN_TRY(zn_passes_run(j->c, g, &p));
  zn_text t;
  zn_text_init(&t, &j->c->graph);
  zn_graph_print(g, &t);
  return zn_write_file(j->c, j->temp_out, t.s ? t.s : "", t.len);
}

static zn_status build(zn_job *j) {
  zn_build_opts b = {.out = j->temp_out, .opt_level = j->co.opt_level, .cache = zn_opt_str(j->o, ZN_O_cache),
                     .more = zn_compiled_variants(&j->c->perm, &j->k), .num_more = j->k.num_more};
  const zn_target *t = strcmp(j->kind, ".zk") ? j->target : zn_target_find("interp");
  double t0 = zn_now();
  if (strcmp(zn_suffix(j->temp_out), j->kind)) { /* --emit, or a link to another name */
    /* built under a name that has the suffix, renamed behind it */
    b.out = zn_arena_printf(&j->c->perm, "%s%s", j->temp_out, j->kind);
  }
  ZN_TRY(t->build(j->c, j->k.mod, &j->k.caps, &b));
  zn_arena_reset(&j->c->tmp);
  if (b.out != j->temp_out && rename(b.out, j->temp_out))
    return zn_fail(j->c, ZN_ERR_IO, j->out, "cannot be written: %s", strerror(errno));
  j->seconds_build = zn_now() - t0;
  return ZN_OK;
}

static uint64_t io_bytes(const zn_kio *io, uint32_t n, bool *known) {
  uint64_t sum = 0, count;
  for (uint32_t i = 0; i < n; i++) {
    if (zn_dims_count(io[i].rank, io[i].dims, zn_dtype_bytes(io[i].dtype), &count))
      sum += count * zn_dtype_bytes(io[i].dtype);
    else
      *known = false;
  }
  return sum;
}

/* --max-ram: where the plan needs more, Winograd's schedule is not taken and images are computed in bands of rows, or
 * convolutions in slices of channels, ever smaller, at last without borders and copies that make them fast; the first plan
 * that fits stays, or the smallest. */
static zn_status fit_ram(zn_job *j) {
  enum { TRIES = 4 };
  static const struct { bool frugal, bands; } kinds[] = {{false, true}, {false, false}, {true, true}, {true, false}};
  const uint64_t ram = zn_opt_bytes(j->o, ZN_O_max_ram);
  bool known = true;
  uint64_t io = io_bytes(j->k.mod->inputs, j->k.mod->num_inputs, &known);
  io += io_bytes(j->k.mod->outputs, j->k.mod->num_outputs, &known);
  if (!ram || !known || j->co.opt_level == 0) return ZN_OK;
  const uint64_t room = ram > io ? ram - io : 1;
  for (unsigned kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
    j->co.winograd_most = 1; /* its planes may take more than the images */
    j->co.pass.frugal = kinds[kind].frugal;
    j->co.pass.bands = kinds[kind].bands;
    uint64_t before = UINT64_MAX;
    for (int i = 0; i < TRIES && j->k.mod->workspace_bytes > room; i++) {
      zn_compiled smaller = {0};
      j->co.pass.ram_bytes = (int64_t)(room >> i);
      if (!j->co.pass.ram_bytes) break;
      ZN_TRY(zn_compile(j->c, &j->co, &smaller));
      const uint64_t bytes = smaller.mod->workspace_bytes;
      if (bytes < j->k.mod->workspace_bytes) j->k = smaller;
      if (bytes >= before) break;
      before = bytes;
    }
  }
  return ZN_OK;
}

/* --max-ram and --max-flash: against the plan and the file. */
static zn_status check_limits(zn_job *j) {
  zn_ctx *c = j->c;
  const zn_kmod *m = j->k.mod;
  bool known = true;
  uint64_t in = io_bytes(m->inputs, m->num_inputs, &known), out = io_bytes(m->outputs, m->num_outputs, &known);
  uint64_t ram = zn_opt_bytes(j->o, ZN_O_max_ram), flash = zn_opt_bytes(j->o, ZN_O_max_flash);
  j->ram_bytes = m->workspace_bytes + in + out;
  if (ram && !known) {
    zn_error(c, NULL, "--max-ram cannot be checked: the model's shapes are symbolic");
    zn_help(c, "fix them with --dim NAME=VALUE or --shape INPUT=DIMS");
    return ZN_ERR_MODEL;
  }
  if (ram && j->ram_bytes > ram) {
    zn_error(c, NULL, "needs %" PRIu64 " bytes of RAM, --max-ram allows %" PRIu64, j->ram_bytes, ram);
    zn_note(c, "the least found is workspace %" PRIu64 " (its buffers need %" PRIu64 "), inputs %" PRIu64 ", outputs %" PRIu64,
            m->workspace_bytes, j->k.plan.lower_bound, in, out);
    zn_help(c, "--max-ram=%" PRIu64 " is the least that works%s", j->ram_bytes,
            j->co.opt_level == 0 ? " at -O0; -O2 also cuts layers into slices" : "");
    return ZN_ERR_MODEL;
  }
  if (flash && (uint64_t)j->artifact_bytes > flash) {
    uint64_t weights = 0;
    for (uint32_t i = 0; i < m->num_consts; i++) weights += m->consts[i].count * zn_dtype_bytes(m->consts[i].dtype);
    zn_error(c, NULL, "the artifact has %" PRId64 " bytes, --max-flash allows %" PRIu64, j->artifact_bytes, flash);
    zn_note(c, "weights %" PRIu64 " bytes, code and tables %" PRIu64, weights,
            (uint64_t)j->artifact_bytes > weights ? (uint64_t)j->artifact_bytes - weights : 0);
    return ZN_ERR_MODEL;
  }
  return ZN_OK;
}

static int64_t folder_bytes(zn_ctx *c, const char *dir) {
  const char **names;
  uint32_t n;
  int64_t sum = 0;
  if (zn_list_dir(c, &c->tmp, dir, &names, &n) != ZN_OK) return 0;
  for (uint32_t i = 0; i < n; i++)
    if (!zn_has_suffix(names[i], ".h")) sum += zn_file_size(zn_arena_printf(&c->tmp, "%s/%s", dir, names[i]));
  return sum;
}

static zn_status compile_and_build(zn_job *j) {
  ZN_TRY(zn_compile(j->c, &j->co, &j->k));
  ZN_TRY(fit_ram(j));
  if (zn_opt_given(j->o, ZN_O_time))
    fprintf(stderr, "load %.3f s  passes %.3f s  lower %.3f s  kernels %.3f s\n", j->k.seconds_load,
            j->k.seconds_passes, j->k.seconds_lower, j->k.seconds_kernels);
  ZN_TRY(build(j));
  if (zn_opt_given(j->o, ZN_O_time)) fprintf(stderr, "build %.3f s\n", j->seconds_build);
  j->artifact_bytes = folder_bytes(j->c, j->temp_dir);
  return check_limits(j);
}

static zn_status compile_and_check(zn_job *j) {
  zn_ctx *c = j->c;
  bool off = zn_opt_is(j->o, ZN_O_verify, "off");
  j->co.provenance = zn_arena_printf(&c->perm, "zenithc %s; model sha256 %s; target %s%s%s; -O%d%s; verify=%s",
                                     ZN_VERSION, j->model_sha, j->target->name, j->co.arch ? " " : "",
                                     j->co.arch ? j->co.arch : "", j->co.opt_level,
                                     j->co.math_fast ? "; math=fast" : "", off ? "off" : "self-check");
  for (;;) {
    ZN_TRY(compile_and_build(j));
    if (off) return ZN_OK;
    ZN_TRY(zn_job_selfcheck(j));
    if (j->v.verdict == ZN_VERDICT_PASS) return ZN_OK;
    j->co.winograd_most = zn_job_finer(j);
    zn_warn(c, NULL, "--math=fast misses the tolerance; built again %s",
            j->co.winograd_most > 1 ? "with Winograd's tiles of 2 x 2 results" : "without Winograd's convolutions");
  }
}

static void print_kernels(const zn_compiled *k) {
  uint32_t n = k->mod->num_funcs >= 2 ? k->mod->num_funcs - 2 : 0;
  fprintf(stderr, ", %u kernels", n);
  if (!k->num_more) return;
  fprintf(stderr, " for %s", k->caps.arch);
  for (uint32_t i = 0; i < k->num_more; i++)
    fprintf(stderr, ", %u for %s", k->more[i].mod->num_funcs - 2, k->more[i].caps.arch);
}

/* verdict: made before the file was in place, since what fails behind that leaves it there. */
static void print_summary(const zn_job *j, const char *verdict) {
  if (zn_opt_given(j->o, ZN_O_quiet)) return;
  fprintf(stderr, "%s: %" PRId64 " bytes", j->out, j->artifact_bytes);
  if (j->k.mod) {
    print_kernels(&j->k);
    if (j->k.mod->workspace_bytes) fprintf(stderr, ", workspace %" PRIu64, j->k.mod->workspace_bytes);
  }
  if (j->v.verdict == ZN_VERDICT_PASS) fprintf(stderr, ", %s", verdict);
  else fputs(", not compared with the reference", stderr);
  if (j->checked_on && strcmp(j->checked_on, "artifact")) fprintf(stderr, " on %s", j->checked_on);
  fputc('\n', stderr);
}

/* A companion, such as OUT's constants in a .bin, may have the name of the model's own external data. */
static zn_status spare_model(zn_job *j) {
  zn_ctx *c = j->c;
  const char **names, *dir = folder_of(&c->tmp, j->place);
  uint32_t n;
  ZN_TRY(zn_list_dir(c, &c->tmp, j->temp_dir, &names, &n));
  for (uint32_t i = 0; i < n; i++) {
    const char *to = zn_arena_printf(&c->tmp, "%s/%s", dir, names[i]);
    for (uint32_t m = 0; m < j->maps.num_files; m++) {
      if (!zn_same_file(to, j->maps.files[m].path)) continue;
      zn_fail(c, ZN_ERR_USAGE, NULL, "-o %s: would replace %s, which belongs to the model", j->out, names[i]);
      zn_help(c, "give -o another name or folder");
      return ZN_ERR_USAGE;
    }
  }
  return ZN_OK;
}

static zn_status run_job(zn_job *j) {
  zn_ctx *c = j->c;
  ZN_TRY(zn_opts_compile(c, j->o, j->co.model, &j->co));
  j->target = j->co.target;
  j->co.onnx.maps = &j->maps;
  ZN_TRY(choose_place(j));
  ZN_TRY(choose_kind(j));
  ZN_TRY(not_available(j));
  const char *name = zn_opt_str(j->o, ZN_O_name);
  j->co.name = zn_identifier_from_path(&c->perm, name ? name : j->out);
  ZN_TRY(zn_sha256_file(c, j->co.model, j->model_sha));
  ZN_TRY(zn_tmp_make(c, folder_of(&c->perm, j->place), &j->temp_dir));
  j->temp_out = zn_arena_printf(&c->perm, "%s/%s", j->temp_dir, zn_base_name(j->place));
  zn_status st;
  if (!strcmp(j->kind, ".zg")) st = write_graph(j);
  else st = compile_and_check(j);
  if (st == ZN_OK && !j->artifact_bytes) j->artifact_bytes = folder_bytes(c, j->temp_dir);
  zn_status reported = zn_job_report(j, st);
  if (st == ZN_OK) st = reported;
  const char *verdict = j->v.verdict == ZN_VERDICT_PASS ? zn_verify_summary(&c->graph, &j->v) : NULL;
  if (st == ZN_OK) st = spare_model(j);
  if (st == ZN_OK) st = zn_tmp_publish(c, j->temp_dir, j->place);
  if (st == ZN_OK) print_summary(j, verdict);
  return st;
}

int zn_cmd_compile(zn_ctx *c, const zn_opts *o) {
  bool done;
  (void)list_passes(o, &done);
  if (done) return 0;
  if (o->num_args != 1) {
    const char *near = o->num_args ? zn_nearest_command(o->args[0]) : NULL;
    zn_fail(c, ZN_ERR_USAGE, NULL, o->num_args ? "expected one model, got %u" : "no model given", o->num_args);
    if (near) zn_help(c, "did you mean `zenithc %s`?", near);
    else zn_help(c, "zenithc MODEL.onnx -o OUT.so; `zenithc --help` shows more");
    return 2;
  }
  zn_job j = {.c = c, .o = o, .out = zn_opt_str(o, ZN_O_out)};
  j.co.model = o->args[0];
  c->file = o->args[0];
  if (!j.out) {
    const char *near = zn_file_size(o->args[0]) < 0 ? zn_nearest_command(o->args[0]) : NULL;
    zn_fail(c, ZN_ERR_USAGE, NULL, "no output given");
    if (near) zn_help(c, "did you mean `zenithc %s`?", near);
    else zn_help(c, "add -o NAME.so (shared object), -o NAME.o, -o NAME.c with --target=c, ...");
    return 2;
  }
  zn_status st = run_job(&j);
  zn_tmp_remove();
  return zn_exit_code(st);
}
