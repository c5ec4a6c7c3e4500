/* Cases that somebody else made (tests/sweep/types): a model, its inputs, and what other implementations make of them. */
#include <stdio.h>
#include <unistd.h>

#include "frontends/onnx/onnx.h"
#include "tests/fuzz/graphs/fuzz.h"
#include "zenithc/driver/tools.h"

static const char *const opinions[FZ_OPINIONS] = {"ref", "ort"};

static void first(void *user, zn_severity sev, const char *line) {
  fz_result *r = user;
  if (sev == ZN_DIAG_ERROR && !r->what[0]) snprintf(r->what, sizeof r->what, "%s", line);
}

/* Values k of ids from DIR/WHAT_k.pb; a file that is missing leaves its value without a type. */
static zn_status read_values(zn_ctx *c, const zn_graph *g, const zn_vid *ids, uint32_t n, const char *dir,
                             const char *what, zn_htensor **out) {
  zn_htensor *t = ZN_ARRAY(&c->perm, zn_htensor, n + 1);
  *out = NULL;
  for (uint32_t i = 0; i < n; i++) {
    const zn_type *type = &g->vals[ids[i]].type;
    const char *path = zn_arena_printf(&c->perm, "%s/%s_%u.pb", dir, what, i);
    zn_pb_value v;
    if (zn_file_size(path) < 0) return ZN_OK;
    ZN_TRY(zn_pb_read(c, &c->perm, path, (zn_vkind)type->kind, &v));
    ZN_TRY(zn_value_from_pb(c, &c->perm, &v, &t[i]));
    zn_value_settle(&t[i], (zn_dtype)type->dtype, type->of != 0);
    t[i].name = g->vals[ids[i]].name;
  }
  *out = t;
  return ZN_OK;
}

static zn_status read_case(zn_ctx *c, const char *dir, zn_graph **out_g, fz_given *out) {
  const zn_onnx_opts onnx = {.infer_node = zn_infer_node};
  ZN_TRY(zn_onnx_load(c, zn_arena_printf(&c->perm, "%s/model.onnx", dir), &onnx, NULL, out_g));
  ZN_TRY(zn_infer_graph(c, *out_g));
  const zn_graph *g = *out_g;
  out->dir = zn_arena_printf(&c->perm, "%s/test_data_set_0", dir);
  ZN_TRY(read_values(c, g, g->inputs, g->num_inputs, out->dir, "input", &out->in));
  if (!out->in) return zn_fail(c, ZN_ERR_MODEL, dir, "has no inputs");
  for (uint32_t k = 0; k < FZ_OPINIONS; k++)
    ZN_TRY(read_values(c, g, g->outputs, g->num_outputs, zn_arena_printf(&c->perm, "%s/%s", dir, opinions[k]), "output",
                       &out->want[k]));
  return ZN_OK;
}

static void check_case(const void *user, const fz_opts *o, fz_stage *stage, fz_result *out) {
  zn_ctx c;
  zn_graph *g;
  size_t n;
  fz_given given = {0};
  fz_opts with = *o;
  memset(out, 0, sizeof *out);
  zn_ctx_init(&c);
  c.verbosity = -1;
  c.sink = first;
  c.sink_user = out;
  stage("import");
  if (read_case(&c, user, &g, &given) != ZN_OK) {
    out->outcome = FZ_REFUSED;
    snprintf(out->way, sizeof out->way, "import");
    return;
  }
  with.given = &given;
  const char *text = fz_print(g, &c.graph, &n);
  zn_graph *again; /* what the parser makes of it: unused symbols and names are gone */
  if (zn_graph_parse(&c, &c.graph, text, n, NULL, &again) == ZN_OK) text = fz_print(again, &c.graph, &n);
  fz_check(text, n, 1, &with, out, stage);
}

bool fz_check_cases(int n, char **dirs, const fz_opts *o) {
  static const char *const outcomes[] = {"same", "undefined", "refused", "different", "crash", "hang"};
  bool all = true;
  for (int i = 0; i < n; i++) {
    fz_result r;
    fz_apart(check_case, dirs[i], o, &r);
    all &= r.outcome == FZ_SAME;
    for (char *p = r.what; *p; p++)
      if (*p == '\n' || *p == '\t') *p = ' ';
    printf("%s\t%s\t%s\t%s\t%s\t%s\n", outcomes[r.outcome], dirs[i], r.way, r.what, r.opinion[0], r.opinion[1]);
    fflush(stdout);
  }
  return all;
}
