/* Inference and passes against the reference evaluator, on every model of the model collection and
 * on the ONNX node tests (both skipped with a count when absent): each value's inferred type, dims
 * and contents must agree with what the evaluator computes, before and after the passes, and the
 * passes must not change any output. With arguments: checks those folders (model.onnx,
 * test_data_set_0) and prints one line each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <unistd.h>

#include "frontends/onnx/onnx.h"
#include "zenithc/eval/eval.h"
#include "zenithc/passes/pass.h"

typedef struct check {
  zn_ctx *c;
  zn_graph *g;
  zn_expr sym[4096];
  int64_t val[4096];
  uint32_t num_syms;
  uint32_t values, unknown, contents, wrong;
  bool verbose, silent;
} check;

static void bind(check *k, zn_expr s, int64_t v) {
  for (uint32_t i = 0; i < k->num_syms; i++) {
    if (k->sym[i] == s) {
      k->val[i] = v;
      return;
    }
  }
  if (k->num_syms == 4096) return;
  k->sym[k->num_syms] = s;
  k->val[k->num_syms++] = v;
}

static bool lookup(void *user, zn_expr s, int64_t *out) {
  const check *k = user;
  for (uint32_t i = 0; i < k->num_syms; i++) {
    if (k->sym[i] == s) {
      *out = k->val[i];
      return true;
    }
  }
  return false;
}

static const char *text(check *k, zn_expr e) {
  zn_text t;
  zn_text_init(&t, &k->c->graph);
  zn_ex_print(k->g->ex, e, &t);
  return t.s ? t.s : "?";
}

static void wrong(check *k, const char *name, const char *what, int64_t at, const char *have,
                  int64_t want) {
  k->wrong++;
  if (k->verbose) {
    printf("    %s: %s %" PRId64 ": inferred %s, actual %" PRId64 "\n", name, what, at, have, want);
  }
}

static void check_contents(check *k, const zn_value *v, const zn_eval_val *x) {
  if (!v->elems || zn_is_float(x->dtype)) return;
  if (v->num_elems != x->count) {
    wrong(k, v->name, "count", 0, zn_arena_printf(&k->c->graph, "%u", v->num_elems),
          (int64_t)x->count);
    return;
  }
  for (uint32_t i = 0; i < v->num_elems; i++) {
    int64_t e;
    if (v->content && v->content[i]) bind(k, v->content[i], x->u.i[i]);
    if (!v->elems[i] || !zn_ex_eval(k->g->ex, v->elems[i], lookup, k, &e)) continue;
    k->contents++;
    if (e != x->u.i[i]) wrong(k, v->name, "element", i, text(k, v->elems[i]), x->u.i[i]);
  }
}

static void check_value(check *k, zn_vid id, const zn_eval_val *x) {
  const zn_value *v = &k->g->vals[id];
  if (!x->set || x->kind != ZN_V_TENSOR) return;
  k->values++;
  if (v->type.dtype != x->dtype) {
    wrong(k, v->name, "dtype", v->type.dtype, zn_dtypes[v->type.dtype].name, x->dtype);
  }
  if (v->type.rank < 0) {
    k->unknown++;
    if (k->verbose) printf("    %s: rank unknown\n", v->name);
    return;
  }
  if (v->type.rank != (int)x->rank) {
    wrong(k, v->name, "rank", 0, zn_arena_printf(&k->c->graph, "%d", v->type.rank), x->rank);
    return;
  }
  for (uint32_t d = 0; d < x->rank; d++) {
    const zn_expr e = v->type.dims[d];
    int64_t n;
    if (zn_ex_eval(k->g->ex, e, lookup, k, &n)) {
      if (n != x->dims[d]) wrong(k, v->name, "dim", d, text(k, e), x->dims[d]);
    } else if (zn_ex_kind(k->g->ex, e) == ZN_EX_SYM) {
      bind(k, e, x->dims[d]);
    } else {
      k->unknown++;
      if (k->verbose) printf("    %s: dim %u is %s, not evaluated\n", v->name, d, text(k, e));
    }
  }
  check_contents(k, v, x);
}

static void on_node(void *user, const zn_graph *g, zn_nid n, const zn_eval_val *out,
                    uint32_t num_out) {
  check *k = user;
  if (g != k->g || k->silent) return; /* bodies: symbols change from run to run */
  for (uint32_t i = 0; i < num_out; i++) {
    if (g->nodes[n].out[i]) check_value(k, g->nodes[n].out[i], &out[i]);
  }
}

/* ---- data ---- */

static zn_eval_val from_pb(zn_arena *a, const zn_pb_value *p) {
  if (p->kind == ZN_V_TENSOR) return zn_eval_from_htensor(a, &p->tensor);
  zn_eval_val v = {.set = true, .kind = (uint8_t)p->kind, .count = p->n};
  v.u.items = ZN_ARRAY(a, zn_eval_val, p->n + 1);
  for (uint32_t i = 0; i < p->n && p->items; i++) v.u.items[i] = from_pb(a, &p->items[i]);
  if (p->n && p->items) v.dtype = v.u.items[0].dtype;
  return v;
}

static bool read_data(zn_ctx *c, const zn_graph *g, const char *dir, const char *what,
                      const zn_vid *v, uint32_t n, zn_eval_val *out) {
  for (uint32_t i = 0; i < n; i++) {
    char path[4096];
    zn_pb_value p;
    snprintf(path, sizeof path, "%s/test_data_set_0/%s_%u.pb", dir, what, i);
    if (access(path, R_OK) != 0) return false;
    if (zn_pb_read(c, &c->graph, path, (zn_vkind)g->vals[v[i]].type.kind, &p) != ZN_OK)
      return false;
    if (p.kind == ZN_V_MAP) return false;
    out[i] = from_pb(&c->graph, &p);
  }
  return true;
}

static bool run(zn_ctx *c, zn_graph *g, const zn_eval_val *in, zn_eval_val *out, check *k) {
  zn_eval_tap tap = {on_node, k, 0};
  k->c = c;
  k->g = g;
  for (uint32_t i = 0; i < g->num_inputs; i++) check_value(k, g->inputs[i], &in[i]);
  if (k->wrong) { /* data that contradict the model's own declarations prove nothing about inference
                   */
    printf("    the inputs do not have the declared dims\n");
    k->wrong = 0;
    k->silent = true;
  }
  return zn_eval_graph(c, g, ZN_EVAL_F64, &c->graph, in, out, &tap) == ZN_OK;
}

/* max |a - b| / max |a| beyond half a unit of the narrow float types, which a Cast may round to
 * earlier or later. */
static double distance(const zn_eval_val *a, const zn_eval_val *b) {
  double top = 0, err = 0;
  const double half_unit = a->dtype == ZN_BF16 ? 0x1p-8 : a->dtype == ZN_F16 ? 0x1p-11 : 0;
  if (a->set != b->set || a->kind != b->kind) return INFINITY;
  if (a->kind != ZN_V_TENSOR || !a->set) return 0;
  if (a->rank != b->rank || a->count != b->count || a->dtype != b->dtype) return INFINITY;
  const double slack =
      a->dtype == ZN_U8 || a->dtype == ZN_I8 ? 1 : 0; /* rounding decisions of quantisation */
  if (a->dtype == ZN_STR || a->dtype == ZN_C64 || a->dtype == ZN_C128) return 0;
  for (uint64_t i = 0; i < a->count; i++) {
    const double x = zn_is_float(a->dtype) ? a->u.f[i] : (double)a->u.i[i];
    const double y = zn_is_float(a->dtype) ? b->u.f[i] : (double)b->u.i[i];
    if (x == y || (isnan(x) && isnan(y)) || fabs(x - y) <= slack) continue;
    if (fabs(x - y) <= half_unit * fmax(fabs(x), fabs(y))) continue;
    if (fabs(x) > top) top = fabs(x);
    if (!(fabs(x - y) <= err)) err = fabs(x - y);
  }
  return err == 0 ? 0 : err / (top > 0 ? top : 1);
}

/* ---- one model ---- */

typedef struct totals {
  uint32_t models, skipped, given, refused, wrong, changed, unknown, values, contents;
} totals;

static const char pipeline[] = "infer,expand,canon,fold,foldbn,cse,canon,fold,dce";

static void ignore(void *user, zn_severity s, const char *line) { (void)user, (void)s, (void)line; }

static void check_model(const char *dir, bool verbose, totals *t) {
  char path[4096];
  zn_ctx *c = calloc(1, sizeof *c);
  check *k = calloc(2, sizeof *k);
  zn_graph *g, *h;
  snprintf(path, sizeof path, "%s/model.onnx", dir);
  zn_ctx_init(c);
  if (!verbose) c->sink = ignore;
  k[0].verbose = k[1].verbose = verbose;
  zn_onnx_maps m1 = {0}, m2 = {0};
  zn_pass_opts o = {.opt_level = 2, .rewrite_limit = -1, .verify_each = true};
  const char *state = "ok";
  double worst = 0, tolerance = 1e-5;
  if (zn_onnx_load(c, path, NULL, &m1, &g) != ZN_OK ||
      zn_onnx_load(c, path, NULL, &m2, &h) != ZN_OK) {
    t->skipped++;
    state = "not imported";
  } else if (zn_infer_graph(c, g) != ZN_OK) {
    t->refused++;
    state = "INFERENCE FAILED";
  } else {
    zn_eval_val *in = ZN_ARRAY(&c->graph, zn_eval_val, g->num_inputs + 1);
    zn_eval_val *y = ZN_ARRAY(&c->graph, zn_eval_val, g->num_outputs + 1);
    zn_eval_val *z = ZN_ARRAY(&c->graph, zn_eval_val, g->num_outputs + 1);
    const uint32_t nodes = g->num_order;
    const bool have = read_data(c, g, dir, "input", g->inputs, g->num_inputs, in);
    const bool direct = have && run(c, g, in, y, &k[0]);
    t->given += !direct;
    if (!direct) tolerance = 1e-4; /* reference outputs are f32 results */
    if (!have || (!direct && !read_data(c, g, dir, "output", g->outputs, g->num_outputs, y))) {
      t->skipped++;
      state = "no data";
    } else if (zn_passes_run_named(c, h, pipeline, &o) != ZN_OK) {
      t->refused++;
      state = "PASSES FAILED";
    } else if (!run(c, h, in, z, &k[1])) {
      t->skipped += !direct;
      t->changed += direct;
      state = direct ? "NOT EVALUATED AFTER THE PASSES" : "not evaluated";
    } else {
      for (uint32_t i = 0; i < g->num_outputs; i++) worst = fmax(worst, distance(&y[i], &z[i]));
      if (!(worst < tolerance)) {
        t->changed++;
        state = "CHANGED";
      }
    }
    if (verbose) {
      printf("  %u nodes -> %u, %u values, %u contents, %u unknown\n", nodes, h->num_order,
             k[0].values, k[0].contents, k[0].unknown);
    }
  }
  t->models++;
  t->wrong += k[0].wrong + k[1].wrong > 0;
  t->unknown += k[0].unknown;
  t->values += k[0].values;
  t->contents += k[0].contents;
  if (verbose || k[0].wrong || k[1].wrong || *state != 'o') {
    printf("%-40s %s%s (%.2g)\n", strrchr(dir, '/') ? strrchr(dir, '/') + 1 : dir, state,
           k[0].wrong   ? ", WRONG"
           : k[1].wrong ? ", WRONG AFTER THE PASSES"
                        : "",
           worst);
    fflush(stdout);
  }
  zn_onnx_unmap(&m1);
  zn_onnx_unmap(&m2);
  zn_ctx_fini(c);
  free(c);
  free(k);
}

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static void check_folder(const char *root, totals *t) {
  DIR *d = opendir(root);
  char **names = NULL, path[2048];
  size_t n = 0;
  if (!d) return;
  for (struct dirent *e; (e = readdir(d));) {
    snprintf(path, sizeof path, "%s/%s/model.onnx", root, e->d_name);
    if (e->d_name[0] == '.' || access(path, R_OK) != 0) continue;
    if (!strncmp(e->d_name, "test_light_", 11)) continue; /* minutes for an evaluator; `check` runs them */
    names = realloc(names, (n + 1) * sizeof *names);
    names[n++] = strdup(e->d_name);
  }
  closedir(d);
  if (n) qsort(names, n, sizeof *names, by_name);
  for (size_t i = 0; i < n; i++) {
    snprintf(path, sizeof path, "%s/%s", root, names[i]);
    check_model(path, false, t);
    free(names[i]);
  }
  free(names);
}

static void report(const char *what, const totals *t) {
  printf(
      "%s: %u models, %u not evaluated, %u against given outputs, %u refused, %u with wrong types, "
      "%u changed by passes; "
      "%u values (%u unknown), %u contents\n",
      what, t->models, t->skipped, t->given, t->refused, t->wrong, t->changed, t->values,
      t->unknown, t->contents);
}

static void node_tests(void **state) {
  const char *dir = getenv("ZN_ONNX_DATA");
  totals t = {0};
  (void)state;
  check_folder(dir ? dir : "build/onnx-data", &t);
  report("node tests", &t);
  if (t.models == 0) skip();
  assert_int_equal(t.wrong + t.changed, 0);
}

static void real_models(void **state) {
  const char *dir = getenv("ZN_MODELS");
  totals t = {0};
  (void)state;
  check_folder(dir ? dir : "../shared/models", &t);
  report("models", &t);
  if (t.models == 0) skip();
  assert_int_equal(t.wrong + t.changed + t.refused, 0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(node_tests), cmocka_unit_test(real_models)};
  totals t = {0};
  for (int i = 1; i < argc; i++) check_model(argv[i], true, &t);
  return argc > 1 ? 0 : cmocka_run_group_tests(tests, NULL, NULL);
}
