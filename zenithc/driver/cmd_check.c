/* zenithc check: folders of the ONNX test convention. Each folder runs in a child process of its own, so that a crash
 * or a hang is one failure; the parent prints results in the order of the folders. */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "zenithc/driver/tools.h"
#include "zenithc/eval/eval.h"

enum { LINE = 1000, MAX_JOBS = 256, FAILED = 77 };

/* ---- one folder, in the child ---- */

typedef struct check {
  zn_ctx *c;
  const zn_opts *o;
  const char *dir;
  char why[LINE]; /* first difference, or the first diagnostic */
  double rtol, atol, spread; /* spread < 0: not asked */
  const zn_compile_opts *co;
  uint32_t *file;            /* input i of the compiled model is input_<file[i]>.pb; NULL: the same number */
} check;

static void first_error(void *user, zn_severity sev, const char *line) {
  check *k = user;
  if (sev == ZN_DIAG_ERROR && !k->why[0]) snprintf(k->why, sizeof k->why, "%s", line);
}

static zn_status differ(check *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static zn_status differ(check *k, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(k->why, sizeof k->why, fmt, ap);
  va_end(ap);
  return ZN_ERR_MODEL;
}

static double part(const zn_htensor *t, uint64_t i) {
  switch (t->dtype) {
    case ZN_C64: return zn_load_f64(ZN_F32, t->data, i);
    case ZN_C128: return zn_load_f64(ZN_F64, t->data, i);
    default: return zn_load_f64(t->dtype, t->data, i);
  }
}

static bool same_string(const zn_htensor *a, const zn_htensor *b, uint64_t i) {
  const zn_str *x = a->data, *y = b->data;
  return x[i].len == y[i].len && !memcmp(x[i].ptr, y[i].ptr, x[i].len);
}

/* Is element i of got acceptable? Integers, bool and strings must be equal unless a spread is given. */
static bool element_fine(const check *k, const zn_htensor *got, const zn_htensor *want, uint64_t i) {
  if (want->dtype == ZN_STR) return same_string(got, want, i);
  if (zn_is_int(want->dtype) || want->dtype == ZN_BOOL)
    return zn_load_i64(got->dtype, got->data, i) == zn_load_i64(want->dtype, want->data, i);
  double x = part(got, i), y = part(want, i);
  if (isnan(y) || isnan(x)) return isnan(x) && isnan(y);
  if (isinf(y) || isinf(x)) return x == y;
  return fabs(x - y) <= k->atol + k->rtol * fabs(y);
}

typedef struct extent {
  double abs, rel, ref; /* largest |diff|, |diff|/|want|, |want| over finite pairs */
  bool odd;             /* an infinity or NaN that the other side lacks */
} extent;

static extent measure(const zn_htensor *got, const zn_htensor *want, uint64_t n) {
  extent e = {0};
  if (want->dtype == ZN_STR) return e;
  for (uint64_t i = 0; i < n; i++) {
    double x = part(got, i), y = part(want, i), d = fabs(x - y);
    if (!isfinite(x) || !isfinite(y)) {
      if (!(x == y || (isnan(x) && isnan(y)))) e.odd = true;
      continue;
    }
    e.abs = fmax(e.abs, d);
    e.ref = fmax(e.ref, fabs(y));
    if (d > 0) e.rel = fmax(e.rel, d / fabs(y));
  }
  return e;
}

static zn_status report_element(check *k, const char *name, const zn_htensor *got, const zn_htensor *want,
                                uint64_t i, extent e) {
  zn_text at, g, w;
  zn_arena *a = &k->c->graph;
  zn_text_init(&at, a);
  zn_text_init(&g, a);
  zn_text_init(&w, a);
  bool pairs = zn_dtypes[want->dtype].cls == 'C';
  uint64_t el = pairs ? i / 2 : i, rest = el;
  int64_t idx[ZN_MAX_RANK] = {0};
  for (uint32_t d = want->rank; d-- > 0; rest /= (uint64_t)want->dims[d])
    idx[d] = (int64_t)(rest % (uint64_t)want->dims[d]);
  for (uint32_t d = 0; d < want->rank; d++) zn_text_printf(&at, "%s%" PRId64, d ? "," : "", idx[d]);
  zn_tensor_elem(&g, got, el);
  zn_tensor_elem(&w, want, el);
  return differ(k, "output %s[%s]: got %s, want %s, max abs %.3g, max rel %.3g", name, at.s ? at.s : "",
                g.s, w.s, e.abs, e.rel);
}

static zn_status compare(check *k, const char *name, const zn_htensor *got, const zn_htensor *want);

static zn_status compare_list(check *k, const char *name, const zn_htensor *got, const zn_htensor *want) {
  const zn_htensor *x = got->data, *y = want->data;
  if (got->kind != want->kind) return differ(k, "output %s: another kind of value", name);
  if (got->dims[0] != want->dims[0])
    return differ(k, "output %s: %" PRId64 " items, want %" PRId64, name, got->dims[0], want->dims[0]);
  for (int64_t i = 0; i < want->dims[0]; i++)
    ZN_TRY(compare(k, zn_arena_printf(&k->c->graph, "%s[%" PRId64 "]", name, i), &x[i], &y[i]));
  return ZN_OK;
}

static zn_status compare(check *k, const char *name, const zn_htensor *got, const zn_htensor *want) {
  zn_arena *a = &k->c->graph;
  if (got->kind != ZN_V_TENSOR || want->kind != ZN_V_TENSOR) return compare_list(k, name, got, want);
  if (got->dtype != want->dtype)
    return differ(k, "output %s: dtype %s, want %s", name, zn_dtypes[got->dtype].name,
                  zn_dtypes[want->dtype].name);
  if (got->rank != want->rank || memcmp(got->dims, want->dims, got->rank * sizeof got->dims[0]))
    return differ(k, "output %s: shape %s, want %s", name, zn_tensor_text(a, got), zn_tensor_text(a, want));
  uint64_t n = zn_htensor_count(want) * (zn_dtypes[want->dtype].cls == 'C' ? 2 : 1);
  if (k->spread >= 0 && want->dtype != ZN_STR) {
    extent e = measure(got, want, n);
    double s = e.abs == 0 ? 0 : e.abs / e.ref;
    if (e.odd) return differ(k, "output %s: not finite in different places", name);
    return s <= k->spread ? ZN_OK
                          : differ(k, "output %s: spread %.3g exceeds %.3g (max abs %.3g, largest value %.6g)",
                                   name, s, k->spread, e.abs, e.ref);
  }
  for (uint64_t i = 0; i < n; i++)
    if (!element_fine(k, got, want, i)) return report_element(k, name, got, want, i, measure(got, want, n));
  return ZN_OK;
}

static zn_status read_values(check *k, const char *set, const char *what, uint32_t n, const zn_graph *g,
                             const zn_vid *vids, zn_htensor *out) {
  for (uint32_t i = 0; i < n; i++) {
    const uint32_t number = k->file && *what == 'i' ? k->file[i] : i;
    const char *path = zn_arena_printf(&k->c->graph, "%s/%s_%u.pb", set, what, number);
    zn_vkind kind = (zn_vkind)g->vals[vids[i]].type.kind;
    zn_pb_value v;
    if (zn_file_size(path) < 0) {
      if (!strcmp(what, "output")) continue; /* not stored: not compared */
      return differ(k, "%s_%u.pb is missing (input %s)", what, number, g->vals[vids[i]].name);
    }
    ZN_TRY(zn_pb_read(k->c, &k->c->graph, path, kind, &v));
    ZN_TRY(zn_value_from_pb(k->c, &k->c->graph, &v, &out[i]));
    const zn_type *type = &g->vals[vids[i]].type;
    zn_value_settle(&out[i], (zn_dtype)type->dtype, type->of != 0);
    out[i].name = g->vals[vids[i]].name;
  }
  return ZN_OK;
}

static bool draws(const zn_graph *g) {
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    if (zn_ops[n->op].flags & ZN_OPF_RANDOM) return true;
    for (uint32_t a = 0; a < n->num_attrs; a++)
      if (n->attrs[a].kind == ZN_A_GRAPH && draws(n->attrs[a].u.g)) return true;
  }
  return false;
}

/* ONNX leaves open which numbers random operators draw: outputs stored with a model have the right types and shapes, the
 * values are the reference evaluator's. */
static zn_status drawn(check *k, const zn_session *s, const zn_htensor *in, zn_htensor *want) {
  zn_ctx *c = k->c;
  zn_arena *a = &c->graph;
  zn_graph *ref;
  ZN_TRY(zn_load_graph(c, k->co->model, &k->co->onnx, &ref));
  if (ref->num_inputs != s->num_in) return differ(k, "draws random numbers, so its inputs cannot be fixed");
  zn_eval_val *iv = ZN_ARRAY(a, zn_eval_val, s->num_in + 1), *ov = ZN_ARRAY(a, zn_eval_val, s->num_out + 1);
  for (uint32_t i = 0; i < s->num_in; i++) iv[i] = zn_eval_from_htensor(a, &in[i]);
  ZN_TRY(zn_eval_graph(c, ref, ZN_EVAL_F64, a, iv, ov, NULL));
  for (uint32_t i = 0; i < s->num_out; i++) {
    if (want[i].dtype == ZN_NONE) continue;
    zn_htensor stored = want[i];
    want[i] = zn_eval_to_htensor(a, &ov[i]);
    want[i].name = stored.name;
    if (stored.dtype != want[i].dtype || stored.rank != want[i].rank ||
        memcmp(stored.dims, want[i].dims, stored.rank * sizeof stored.dims[0]))
      return differ(k, "output %s: stored as %s, drawn as %s", stored.name, zn_tensor_text(a, &stored),
                    zn_tensor_text(a, &want[i]));
  }
  return ZN_OK;
}

static zn_status run_set(check *k, zn_session *s, const char *set) {
  zn_arena *a = &k->c->graph;
  const zn_graph *g = s->graph;
  zn_htensor *in = ZN_ARRAY(a, zn_htensor, s->num_in), *out = ZN_ARRAY(a, zn_htensor, s->num_out),
             *want = ZN_ARRAY(a, zn_htensor, s->num_out);
  if (g->num_inputs != s->num_in || g->num_outputs != s->num_out)
    return differ(k, "the artifact has %u inputs and %u outputs, the model %u and %u", s->num_in, s->num_out,
                  g->num_inputs, g->num_outputs);
  ZN_TRY(read_values(k, set, "input", s->num_in, g, g->inputs, in));
  ZN_TRY(read_values(k, set, "output", s->num_out, g, g->outputs, want));
  ZN_TRY(s->target->run(k->c, s->exec, a, in, out));
  if (draws(s->graph)) ZN_TRY(drawn(k, s, in, want));
  for (uint32_t i = 0; i < s->num_out; i++)
    if (want[i].data || want[i].dtype != ZN_NONE) ZN_TRY(compare(k, s->out[i].name, &out[i], &want[i]));
  return ZN_OK;
}

/* --fix-shapes: ONNX's operator tests pass axes, target shapes and sizes as inputs; models hold them as constants. When
 * such a model cannot be compiled as it is and there is one data set, its shape operands become constants. */
static zn_status fix_shape_inputs(check *k, zn_graph *g, const char *set, uint32_t *out_fixed) {
  zn_ctx *c = k->c;
  const uint32_t n = g->num_inputs;
  zn_htensor *in = ZN_ARRAY(&c->graph, zn_htensor, n + 1);
  zn_vid *vids = ZN_ARRAY(&c->graph, zn_vid, n + 1);
  uint32_t left = 0;
  for (uint32_t i = 0; i < n; i++) vids[i] = g->inputs[i];
  ZN_TRY(read_values(k, set, "input", n, g, vids, in));
  k->file = ZN_ARRAY(&c->graph, uint32_t, n + 1);
  *out_fixed = 0;
  for (uint32_t i = 0; i < n; i++) {
    if (zn_input_decides_shape(c, g, vids[i])) {
      ZN_TRY(zn_fix_input(c, g, vids[i], &in[i]));
      ++*out_fixed;
    } else {
      k->file[left++] = i;
    }
  }
  return ZN_OK;
}

static zn_status compile_dir(check *k, const zn_compile_opts *co, const char *only_set, zn_compiled *r) {
  zn_graph *g;
  uint32_t fixed;
  zn_status st = zn_compile(k->c, co, r);
  if (st == ZN_OK || !only_set || !zn_opt_given(k->o, ZN_O_fix_shapes)) return st;
  char why[LINE];
  memcpy(why, k->why, sizeof why);
  ZN_TRY(zn_load_graph(k->c, co->model, &co->onnx, &g));
  if (fix_shape_inputs(k, g, only_set, &fixed) != ZN_OK || fixed == 0) {
    memcpy(k->why, why, sizeof why);
    return st;
  }
  k->why[0] = 0;
  memset(r, 0, sizeof *r);
  return zn_compile_graph(k->c, g, co, r);
}

static const char *only_data_set(check *k, const char *const *names, uint32_t n) {
  const char *set = NULL;
  for (uint32_t i = 0; i < n; i++) {
    if (strncmp(names[i], "test_data_set_", 14)) continue;
    if (set) return NULL;
    set = zn_arena_printf(&k->c->perm, "%s/%s", k->dir, names[i]);
  }
  return set;
}

static zn_status keep_artifact(check *k, const zn_compile_opts *co, const char *tmp) {
  zn_ctx *c = k->c;
  const char *suffix = co->target->suffixes[0], *text;
  size_t n = strlen(k->dir), len;
  while (n > 1 && k->dir[n - 1] == '/') n--;
  const char *name = zn_base_name(zn_arena_strndup(&c->perm, k->dir, n));
  const char *to = zn_arena_printf(&c->perm, "%s/%s%s", zn_opt_str(k->o, ZN_O_artifacts), name, suffix);
  ZN_TRY(zn_read_file(c, &c->perm, zn_arena_printf(&c->perm, "%s/%s%s", tmp, co->name, suffix), &text, &len));
  return zn_write_file(c, to, text, len);
}

static zn_status run_dir(check *k, const char *tmp) {
  zn_ctx *c = k->c;
  zn_compile_opts *co = ZN_NEW(&c->perm, zn_compile_opts);
  zn_compiled r = {0};
  zn_session s = {0};
  const char **names, *model = zn_arena_printf(&c->perm, "%s/model.onnx", k->dir);
  uint32_t n, sets = 0;
  ZN_TRY(zn_opts_compile(c, k->o, model, co));
  co->name = "model";
  k->co = co;
  co->pass.time = false;
  ZN_TRY(zn_list_dir(c, &c->perm, k->dir, &names, &n));
  ZN_TRY(compile_dir(k, co, only_data_set(k, names, n), &r));
  ZN_TRY(zn_session_load(c, &r, co->target, co->opt_level, tmp, &s));
  if (zn_opt_given(k->o, ZN_O_artifacts)) ZN_TRY(keep_artifact(k, co, tmp));
  for (uint32_t i = 0; i < n; i++) {
    if (strncmp(names[i], "test_data_set_", 14)) continue;
    sets++;
    zn_status st = run_set(k, &s, zn_arena_printf(&c->perm, "%s/%s", k->dir, names[i]));
    if (st != ZN_OK) {
      const char *why = zn_arena_strdup(&c->perm, k->why);
      return snprintf(k->why, sizeof k->why, "%s: %s", names[i], why) < 0 ? ZN_ERR_MODEL : st;
    }
  }
  return sets ? ZN_OK : differ(k, "no test_data_set_* in it");
}

_Noreturn static void child(const zn_opts *o, const char *dir, const char *tmp, int fd) {
  zn_ctx c;
  zn_tmp_disown();
  setpgid(0, 0);
  dup2(fd, 1); /* last words of a crash arrive with the rest */
  dup2(fd, 2);
  zn_ctx_init(&c);
  check k = {.c = &c, .o = o, .dir = dir, .spread = -1};
  k.rtol = zn_opt_real(o, ZN_O_rtol, 1e-3);
  k.atol = zn_opt_real(o, ZN_O_atol, 1e-7);
  k.spread = zn_opt_real(o, ZN_O_spread, -1);
  c.verbosity = -1; /* no crash file for each of many folders */
  c.sink = first_error;
  c.sink_user = &k;
  zn_status st = run_dir(&k, tmp);
  if (st != ZN_OK && !k.why[0]) snprintf(k.why, sizeof k.why, "failed without a message");
  /* the path of the folder is known: leave the messages short */
  const char *why = k.why;
  size_t n = strlen(dir);
  if (!strncmp(why, dir, n) && why[n] == '/') why += n + 1;
  if (st != ZN_OK && write(1, why, strlen(why)) < 0) _exit(FAILED);
  _exit(st == ZN_OK ? 0 : FAILED);
}

/* ---- all folders, in the parent ---- */

typedef struct item {
  const char *dir, *name;
  char result;      /* 0 not yet, p passed, f failed, s skipped */
  const char *why;
  const char *xfail; /* reason, or NULL */
} item;

typedef struct job {
  pid_t pid;
  int fd;
  uint32_t item;
  double deadline;
  const char *tmp;
  char buf[LINE + 1];
  size_t n;
} job;

typedef struct batch {
  zn_ctx *c;
  const zn_opts *o;
  item *items;
  uint32_t n, cap, next, printed;
  uint32_t passed, failed, skipped;
  job jobs[MAX_JOBS];
  uint32_t max_jobs;
  const char *tmp;
  double timeout;
  char **skips, **xfails;
  uint32_t num_skips, num_xfails;
} batch;

static zn_status read_list(zn_ctx *c, const char *path, char ***out, uint32_t *out_n) {
  uint32_t cap = 0;
  const char *text;
  size_t n;
  if (!path) return ZN_OK;
  ZN_TRY(zn_read_file(c, &c->perm, path, &text, &n));
  for (const char *p = text; *p; p += *p == '\n') {
    size_t len = strcspn(p, "\n");
    if (len && *p != '#') {
      char *s = zn_arena_strndup(&c->perm, p, len);
      ZN_PUSH(&c->perm, *out, *out_n, cap, s);
    }
    p += len;
  }
  return ZN_OK;
}

/* The reason behind the first pattern of list that matches name, or NULL. */
static const char *listed(zn_arena *a, char **list, uint32_t n, const char *name) {
  for (uint32_t i = 0; i < n; i++) {
    size_t k = strcspn(list[i], " \t");
    if (fnmatch(zn_arena_strndup(a, list[i], k), name, 0) == 0) {
      const char *why = list[i] + k;
      return why + strspn(why, " \t");
    }
  }
  return NULL;
}

static void add(batch *b, const char *dir) {
  item it = {.dir = dir, .name = zn_base_name(dir)};
  const char *skip = listed(&b->c->tmp, b->skips, b->num_skips, it.name);
  it.xfail = listed(&b->c->tmp, b->xfails, b->num_xfails, it.name);
  if (skip) it.result = 's', it.why = skip;
  ZN_PUSH(&b->c->perm, b->items, b->n, b->cap, it);
}

static bool is_test(zn_ctx *c, const char *dir) {
  return zn_file_size(zn_arena_printf(&c->tmp, "%s/model.onnx", dir)) >= 0;
}

/* A folder without a model.onnx stands for the test folders directly inside it. */
static zn_status collect(batch *b, const char *path) {
  zn_ctx *c = b->c;
  size_t len = strlen(path);
  while (len > 1 && path[len - 1] == '/') len--;
  const char *dir = zn_arena_strndup(&c->perm, path, len);
  if (!zn_is_dir(dir)) return zn_fail(c, ZN_ERR_USAGE, dir, "is not a folder");
  if (is_test(c, dir)) {
    add(b, dir);
    return ZN_OK;
  }
  const char **names;
  uint32_t n, before = b->n;
  ZN_TRY(zn_list_dir(c, &c->perm, dir, &names, &n));
  for (uint32_t i = 0; i < n; i++) {
    const char *sub = zn_arena_printf(&c->perm, "%s/%s", dir, names[i]);
    if (is_test(c, sub)) add(b, sub);
  }
  if (b->n > before) return ZN_OK;
  zn_fail(c, ZN_ERR_USAGE, dir, "holds no model.onnx, and neither do the folders in it");
  zn_help(c, "a test is a folder with model.onnx and test_data_set_0/{input,output}_0.pb");
  return ZN_ERR_USAGE;
}

static void print_item(batch *b, const item *it) {
  bool quiet = zn_opt_given(b->o, ZN_O_quiet);
  if (it->result == 's') {
    b->skipped++;
    if (!quiet) printf("skip %s%s%s\n", it->name, *it->why ? ": " : "", it->why);
  } else if (it->xfail && it->result == 'f') {
    b->passed++;
    if (!quiet) printf("xfail %s: %s\n", it->name, it->why);
  } else if (it->xfail) {
    b->failed++;
    printf("FAIL %s: passes, but is listed as an expected failure\n", it->name);
  } else if (it->result == 'p') {
    b->passed++;
    if (!quiet) printf("ok %s\n", it->name);
  } else {
    b->failed++;
    printf("FAIL %s: %s\n", it->name, it->why);
  }
  fflush(stdout);
}

static void start(batch *b, job *j) {
  int fds[2];
  while (b->next < b->n && b->items[b->next].result) b->next++;
  if (b->next == b->n) return;
  j->item = b->next++;
  j->n = 0;
  item *it = &b->items[j->item];
  const char *tmp = NULL;
  if (zn_tmp_make(b->c, NULL, &tmp) != ZN_OK || pipe(fds) != 0) {
    it->result = 'f';
    it->why = "cannot start a process for it";
    return;
  }
  fflush(NULL);
  j->tmp = tmp;
  j->pid = fork();
  if (j->pid == 0) {
    close(fds[0]);
    child(b->o, it->dir, tmp, fds[1]);
  }
  close(fds[1]);
  fcntl(fds[0], F_SETFD, FD_CLOEXEC);
  j->fd = fds[0];
  j->deadline = zn_now() + b->timeout;
  if (j->pid < 0) {
    close(j->fd);
    j->pid = 0;
    it->result = 'f';
    it->why = "cannot start a process for it";
  }
}

static void finish(batch *b, job *j, const char *killed) {
  item *it = &b->items[j->item];
  int status = 0;
  while (waitpid(j->pid, &status, 0) < 0 && errno == EINTR) {}
  kill(-j->pid, SIGKILL); /* what the child may have left behind */
  close(j->fd);
  zn_arena *a = &b->c->perm;
  while (j->n && j->buf[j->n - 1] == '\n') j->n--;
  char *said = zn_arena_strndup(a, j->buf, j->n);
  for (char *p = said; *p; p++)
    if (*p == '\n') *p = ' ';
  it->result = !killed && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 'p' : 'f';
  if (killed) it->why = killed;
  else if (WIFSIGNALED(status)) it->why = zn_arena_printf(a, "crashed (%s): %s", strsignal(WTERMSIG(status)), said);
  else if (WEXITSTATUS(status) == FAILED || !WEXITSTATUS(status)) it->why = said;
  else it->why = zn_arena_printf(a, "ended early (exit code %d): %s", WEXITSTATUS(status), said);
  zn_remove_tree(j->tmp);
  j->pid = 0;
}

/* Waits for output of any child until the first deadline; ends those that are done or late. */
static void wait_some(batch *b) {
  struct pollfd fds[MAX_JOBS];
  job *who[MAX_JOBS] = {0};
  nfds_t n = 0;
  double first = 1e300;
  for (uint32_t i = 0; i < b->max_jobs; i++) {
    job *j = &b->jobs[i];
    if (!j->pid) continue;
    who[n] = j;
    fds[n++] = (struct pollfd){.fd = j->fd, .events = POLLIN};
    first = fmin(first, j->deadline);
  }
  double left = fmax(first - zn_now(), 0);
  int ready = poll(fds, n, (int)(fmin(left, 1000) * 1000) + 1);
  for (nfds_t i = 0; i < n; i++) {
    job *j = who[i];
    if (ready > 0 && fds[i].revents) {
      char drop[256];
      bool full = j->n == LINE;
      ssize_t got = read(j->fd, full ? drop : j->buf + j->n, full ? sizeof drop : LINE - j->n);
      if (got > 0 && !full) j->n += (size_t)got;
      if (got == 0) finish(b, j, NULL);
    } else if (zn_now() >= j->deadline) {
      kill(-j->pid, SIGKILL);
      kill(j->pid, SIGKILL);
      finish(b, j, zn_arena_printf(&b->c->perm, "still running after %g seconds", b->timeout));
    }
  }
}

static void run_all(batch *b) {
  for (;;) {
    uint32_t running = 0;
    for (uint32_t i = 0; i < b->max_jobs; i++) {
      while (!b->jobs[i].pid && b->next < b->n) start(b, &b->jobs[i]);
      if (b->jobs[i].pid) running++;
    }
    if (running) wait_some(b);
    while (b->printed < b->n && b->items[b->printed].result) print_item(b, &b->items[b->printed++]);
    zn_arena_reset(&b->c->tmp);
    if (!running && b->next >= b->n) return;
  }
}

int zn_cmd_check(zn_ctx *c, const zn_opts *o) {
  batch *b = ZN_NEW(&c->perm, batch);
  *b = (batch){.c = c, .o = o, .timeout = zn_opt_real(o, ZN_O_timeout, 60)};
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  int64_t jobs = zn_opt_int(o, ZN_O_jobs, cpus > 0 ? cpus : 1);
  b->max_jobs = jobs > MAX_JOBS ? MAX_JOBS : (uint32_t)jobs;
  zn_compile_opts probe; /* a wrong option is reported once, here */
  zn_status st = o->num_args ? ZN_OK : zn_fail(c, ZN_ERR_USAGE, NULL, "no folder given");
  if (st == ZN_OK) st = zn_folder_option(c, "--artifacts", zn_opt_str(o, ZN_O_artifacts));
  if (st == ZN_OK) st = zn_opts_compile(c, o, "model.onnx", &probe);
  if (st == ZN_OK) st = zn_compile_archs(c, &probe);
  if (st == ZN_OK) st = read_list(c, zn_opt_str(o, ZN_O_skip), &b->skips, &b->num_skips);
  if (st == ZN_OK) st = read_list(c, zn_opt_str(o, ZN_O_xfail), &b->xfails, &b->num_xfails);
  for (uint32_t i = 0; i < o->num_args && st == ZN_OK; i++) st = collect(b, o->args[i]);
  if (st == ZN_OK) st = zn_tmp_make(c, NULL, &b->tmp);
  if (st != ZN_OK) return zn_exit_code(st);
  run_all(b);
  zn_tmp_remove();
  printf("%u passed, %u failed, %u skipped\n", b->passed, b->failed, b->skipped);
  return b->failed ? 1 : 0;
}
