/* Runs the reference evaluator on folders in the ONNX test convention and counts agreements:
 *   eval_check [-v] [--rtol X] [--atol X] [--rel X] [--f32] [--floor] [--xfail FILE] DIR...
 * DIR/model.onnx + DIR/test_data_set_*
 * --floor prints each output's noise floor; --xfail names folders that must fail, one a line.
 * --rel X compares max|difference| / max|reference| instead of element by element. Every folder is
 * evaluated in a process of its own with a time limit, so that one crash is one failure. */
#include <math.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "frontends/onnx/onnx.h"
#include "zenithc/eval/metric.h"
#include "zenithc/passes/pass.h"

typedef struct opts {
  double rtol, atol, rel;
  bool verbose, f32, floor;
  const char *xfail; /* contents of the file, or NULL */
} opts;

static zn_eval_val from_pb(zn_arena *a, const zn_pb_value *v) {
  if (v->kind == ZN_V_TENSOR) return zn_eval_from_htensor(a, &v->tensor);
  zn_eval_val o = {.set = true, .kind = (uint8_t)v->kind, .count = v->kind == ZN_V_MAP ? 2 : v->n};
  o.u.items = ZN_ARRAY(a, zn_eval_val, o.count);
  if (v->kind == ZN_V_MAP) {
    o.u.items[0] = zn_eval_from_htensor(a, &v->keys);
    o.u.items[1] = zn_eval_from_htensor(a, &v->tensor);
    return o;
  }
  for (uint32_t i = 0; i < v->n; i++) o.u.items[i] = from_pb(a, &v->items[i]);
  return o;
}

static zn_status read_value(zn_ctx *c, const char *path, zn_vkind kind, zn_eval_val *out) {
  zn_pb_value v;
  ZN_TRY(zn_pb_read(c, &c->graph, path, kind, &v));
  *out = from_pb(&c->graph, &v);
  return ZN_OK;
}

static void describe(const char *name, const zn_eval_val *ref, const zn_eval_val *got,
                     const zn_metric *m) {
  printf("    output '%s': ", name);
  if (!m->same_type) {
    printf("expected kind %d %s [", ref->kind, zn_dtypes[ref->dtype].name);
    for (uint32_t d = 0; d < ref->rank; d++) printf(" %lld", (long long)ref->dims[d]);
    printf(" ] n=%llu, got kind %d %s [", (unsigned long long)ref->count, got->kind,
           zn_dtypes[got->dtype].name);
    for (uint32_t d = 0; d < got->rank; d++) printf(" %lld", (long long)got->dims[d]);
    printf(" ] n=%llu\n", (unsigned long long)got->count);
    return;
  }
  printf("eta %.2g, rel %.2g, abs %.2g, tensor rel %.2g, %llu non-finite, %llu unequal (max %g) of "
         "%llu\n",
         m->eta_max, m->rel_max, m->abs_max, m->rel_tensor, (unsigned long long)m->nonfinite_bad,
         (unsigned long long)m->unequal, m->int_max, (unsigned long long)m->n);
  if (ref->kind != ZN_V_TENSOR) return;
  uint64_t shown = 0;
  for (uint64_t k = 0; k < ref->count && shown < 6; k++) {
    if (ref->dtype == ZN_STR) {
      printf("      '%.*s' '%.*s'\n", (int)ref->u.s[k].len, ref->u.s[k].ptr, (int)got->u.s[k].len,
             got->u.s[k].ptr);
      shown++;
    } else if (zn_is_float((zn_dtype)ref->dtype)) {
      if (ref->u.f[k] != got->u.f[k] && ++shown)
        printf("      [%llu] %.9g, got %.9g\n", (unsigned long long)k, ref->u.f[k], got->u.f[k]);
    } else if (ref->dtype != ZN_C64 && ref->dtype != ZN_C128 && ref->u.i[k] != got->u.i[k] &&
               ++shown) {
      printf("      [%llu] %lld, got %lld\n", (unsigned long long)k, (long long)ref->u.i[k],
             (long long)got->u.i[k]);
    }
  }
}

/* Random results cannot be compared: their types and shapes can. */
static bool is_random(const zn_graph *g) {
  for (uint32_t k = 0; k < g->num_order; k++) {
    const zn_node *n = &g->nodes[g->order[k]];
    if ((zn_ops[n->op].flags & ZN_OPF_RANDOM) || (n->op == ZN_OP_Dropout && zn_node_in(n, 2)))
      return true;
  }
  return false;
}

static void print_floor(zn_ctx *c, const zn_graph *g, const zn_eval_val *in) {
  double *fl = ZN_ARRAY(&c->graph, double, g->num_outputs);
  if (zn_metric_floor(c, g, &c->graph, in, fl, NULL) != ZN_OK) return;
  for (uint32_t i = 0; i < g->num_outputs; i++)
    printf("    output '%s': noise floor %.2g\n", g->vals[g->outputs[i]].name, fl[i]);
}

/* 1 passed, 0 failed, -1 no such data set */
static int run_set(zn_ctx *c, const zn_graph *g, const char *dir, int set, const opts *o) {
  char path[4096];
  snprintf(path, sizeof path, "%s/test_data_set_%d", dir, set);
  if (access(path, R_OK) != 0) return -1;
  zn_eval_val *in = ZN_ARRAY(&c->graph, zn_eval_val, g->num_inputs),
              *out = ZN_ARRAY(&c->graph, zn_eval_val, g->num_outputs);
  for (uint32_t i = 0; i < g->num_inputs; i++) {
    snprintf(path, sizeof path, "%s/test_data_set_%d/input_%u.pb", dir, set, i);
    if (access(path, R_OK) != 0) continue;
    if (read_value(c, path, (zn_vkind)g->vals[g->inputs[i]].type.kind, &in[i]) != ZN_OK) return 0;
  }
  if (o->floor) print_floor(c, g, in);
  zn_eval_tap tap = {0};
  struct timespec t0, t1;
  clock_gettime(CLOCK_MONOTONIC, &t0);
  if (zn_eval_graph(c, g, o->f32 ? ZN_EVAL_F32_SEQ : ZN_EVAL_F64, &c->graph, in, out, &tap) !=
      ZN_OK)
    return 0;
  clock_gettime(CLOCK_MONOTONIC, &t1);
  int ok = 1;
  bool random = is_random(g);
  double worst = 0;
  for (uint32_t i = 0; i < g->num_outputs; i++) {
    zn_eval_val ref;
    const zn_value *v = &g->vals[g->outputs[i]];
    snprintf(path, sizeof path, "%s/test_data_set_%d/output_%u.pb", dir, set, i);
    if (access(path, R_OK) != 0) continue;
    if (read_value(c, path, out[i].set ? (zn_vkind)out[i].kind : ZN_V_TENSOR, &ref) != ZN_OK)
      return 0;
    if (out[i].set && out[i].kind == ZN_V_TENSOR &&
        zn_is_float((zn_dtype)out[i].dtype)) { /* as stored in its dtype */
      zn_htensor h = zn_eval_to_htensor(&c->graph, &out[i]);
      out[i] = zn_eval_from_htensor(&c->graph, &h);
    }
    zn_metric m;
    zn_metric_compare(&c->graph, &ref, &out[i], &m);
    bool good =
        o->rel > 0
            ? m.same_type && !m.nonfinite_bad && !m.unequal && m.rel_tensor <= o->rel
            : zn_metric_allclose(&ref, &out[i],
                                 ref.dtype == ZN_BF16 ? fmax(o->rtol, 0x1p-6) : o->rtol, o->atol) ||
                  zn_metric_pass(&m, 1e-6); /* the expected data carry fp32 rounding themselves */
    if (random) good = m.same_type;
    if (m.rel_tensor > worst) worst = m.rel_tensor;
    if (!good) describe(v->name, &ref, &out[i], &m);
    if (!good) ok = 0;
  }
  if (o->verbose)
    printf("    set %d: %.2f s, peak %.1f MB, worst relative difference %.2g\n", set,
           (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) * 1e-9,
           (double)tap.peak_bytes * 1e-6, worst);
  return ok;
}

static int check(const char *dir, const opts *o) {
  char path[4096];
  zn_ctx c;
  zn_ctx_init(&c);
  c.file = dir;
  snprintf(path, sizeof path, "%s/model.onnx", dir);
  zn_graph *g = NULL;
  int ok = zn_onnx_load(&c, path, NULL, NULL, &g) == ZN_OK, sets = 0;
  for (int s = 0, r; ok && (r = run_set(&c, g, dir, s, o)) >= 0; s++, sets++) ok = r;
  zn_ctx_fini(&c);
  return ok ? 0 : 1;
}

static int isolated(const char *dir, const opts *o) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    alarm(600);
    dup2(1, 2);
    int r = check(dir, o);
    fflush(stdout);
    _exit(r);
  }
  int st = 0;
  waitpid(pid, &st, 0);
  if (WIFSIGNALED(st)) printf("    killed by signal %d\n", WTERMSIG(st));
  return WIFEXITED(st) ? WEXITSTATUS(st) : 1;
}

static char *read_text(const char *path) {
  FILE *f = fopen(path, "r");
  char *s = f ? calloc(1, 1 << 16) : NULL;
  if (s) s[fread(s, 1, (1 << 16) - 1, f)] = 0;
  if (f) fclose(f);
  return s;
}

/* Is the folder's last name the first word of a line of the list? */
static bool listed(const char *list, const char *dir) {
  size_t n = strlen(dir);
  while (n && dir[n - 1] == '/') n--;
  size_t from = n;
  while (from && dir[from - 1] != '/') from--;
  for (const char *p = list; p && *p; p += strcspn(p, "\n"), p += *p == '\n')
    if (strncmp(p, dir + from, n - from) == 0 && (p[n - from] == ' ' || p[n - from] == '\n'))
      return true;
  return false;
}

int main(int argc, char **argv) {
  opts o = {.rtol = 1e-3, .atol = 1e-7};
  unsigned passed = 0, failed = 0;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "-v") == 0) o.verbose = true;
    else if (strcmp(argv[i], "--f32") == 0) o.f32 = true;
    else if (strcmp(argv[i], "--floor") == 0) o.floor = true;
    else if (strcmp(argv[i], "--xfail") == 0 && i + 1 < argc) o.xfail = read_text(argv[++i]);
    else if (strcmp(argv[i], "--rtol") == 0 && i + 1 < argc) o.rtol = strtod(argv[++i], NULL);
    else if (strcmp(argv[i], "--atol") == 0 && i + 1 < argc) o.atol = strtod(argv[++i], NULL);
    else if (strcmp(argv[i], "--rel") == 0 && i + 1 < argc) o.rel = strtod(argv[++i], NULL);
    else {
      if (o.verbose) printf("%s\n", argv[i]);
      bool expected = listed(o.xfail, argv[i]);
      int r = isolated(argv[i], &o) != expected;
      if (r) printf("%s %s\n", expected ? "UNEXPECTEDLY PASSED" : "FAILED", argv[i]);
      if (r) failed++;
      else passed++;
    }
  }
  printf("%u passed, %u failed\n", passed, failed);
  return failed != 0;
}
