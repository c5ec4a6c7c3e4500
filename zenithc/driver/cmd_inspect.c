/* zenithc inspect: what a model holds, without compiling it. Import alone names everything that is not supported. */
#include <cjson/cJSON.h>
#include <inttypes.h>

#include "codegen/lower/lower.h"
#include "zenithc/driver/tools.h"

typedef struct facts {
  uint32_t ops[ZN_OP_COUNT];
  uint64_t params, param_bytes;
  double flops; /* of contractions with known shapes: 2 per multiply-add */
  bool unknown_flops;
  uint32_t nodes, bodies;
} facts;

static bool dim(const zn_graph *g, const zn_type *t, int d, double *out) {
  int64_t v;
  if (t->rank < 0 || d < 0 || d >= t->rank || !zn_ex_is_const(g->ex, t->dims[d], &v)) return false;
  *out = (double)v;
  return true;
}

static bool count_of(const zn_graph *g, zn_vid v, double *out) {
  *out = 1;
  for (int d = 0; d < g->vals[v].type.rank; d++) {
    double x;
    if (!dim(g, &g->vals[v].type, d, &x)) return false;
    *out *= x;
  }
  return g->vals[v].type.rank >= 0;
}

/* Multiply-adds per output element, times 2; false when a shape is unknown. Other operators count nothing. */
static bool node_flops(const zn_graph *g, const zn_node *n, double *out) {
  double outs, inner, per;
  *out = 0;
  bool conv = n->op == ZN_OP_Conv || n->op == ZN_OP_QLinearConv || n->op == ZN_OP_ConvInteger;
  bool mm =
      n->op == ZN_OP_MatMul || n->op == ZN_OP_Gemm || n->op == ZN_OP_MatMulInteger || n->op == ZN_OP_QLinearMatMul;
  if (!conv && !mm && n->op != ZN_OP_ConvTranspose) return true;
  if (!count_of(g, n->out[0], &outs)) return false;
  if (mm) {
    const zn_type *a = &g->vals[n->in[0]].type;
    bool trans = n->op == ZN_OP_Gemm && zn_node_int(n, "transA");
    if (!dim(g, a, trans ? 0 : a->rank - 1, &inner)) return false;
    *out = 2 * outs * inner;
    return true;
  }
  zn_vid w = n->op == ZN_OP_QLinearConv ? n->in[3] : n->in[1];
  if (!count_of(g, w, &per) || !dim(g, &g->vals[w].type, 0, &inner)) return false;
  if (n->op == ZN_OP_ConvTranspose) { /* every input element meets the filters of its channel */
    if (!count_of(g, n->in[0], &outs)) return false;
  }
  *out = inner > 0 ? 2 * outs * per / inner : 0;
  return true;
}

static void add_value(const zn_graph *g, zn_vid v, facts *f) {
  const zn_htensor *t = g->vals[v].cst;
  if (!t) return;
  f->params += zn_htensor_count(t);
  f->param_bytes += zn_htensor_bytes(t);
}

static void walk(const zn_graph *g, facts *f) {
  for (zn_vid v = 1; v < g->num_vals; v++) add_value(g, v, f);
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    double x;
    f->nodes++;
    f->ops[n->op]++;
    if (node_flops(g, n, &x)) f->flops += x;
    else f->unknown_flops = true;
    for (uint32_t k = 0; k < n->num_attrs; k++)
      if (n->attrs[k].kind == ZN_A_GRAPH) f->bodies++, walk(n->attrs[k].u.g, f);
  }
}

static const char *type_text(const zn_graph *g, zn_arena *a, const zn_type *t) {
  static const char *const kinds[] = {"", "seq ", "optional ", "map "};
  zn_text s;
  zn_text_init(&s, a);
  zn_text_puts(&s, kinds[t->kind]);
  zn_text_puts(&s, t->dtype ? zn_dtypes[t->dtype].name : "?");
  if (t->rank < 0) zn_text_puts(&s, "[...]");
  for (int d = 0; d < t->rank; d++) {
    zn_text_puts(&s, d ? "," : "[");
    zn_ex_print(g->ex, t->dims[d], &s);
  }
  if (t->rank >= 0) zn_text_puts(&s, t->rank ? "]" : "[]");
  return s.s;
}

static void print_values(const zn_graph *g, zn_arena *a, const char *title, const zn_vid *ids, uint32_t n) {
  printf("%s:\n", title);
  for (uint32_t i = 0; i < n; i++)
    printf("  %s: %s\n", g->vals[ids[i]].name, type_text(g, a, &g->vals[ids[i]].type));
}

/* Names of symbols in the inputs' shapes, in order of appearance. */
static void collect(const zn_exprs *ex, zn_expr e, zn_expr *syms, uint32_t *n) {
  if (e == ZN_EX_NONE) return;
  if (zn_ex_kind(ex, e) == ZN_EX_SYM) {
    for (uint32_t i = 0; i < *n; i++)
      if (syms[i] == e) return;
    if (*n < 64) syms[(*n)++] = e;
    return;
  }
  if (zn_ex_kind(ex, e) == ZN_EX_CONST) return;
  for (uint32_t i = 0; i < zn_ex_arity(ex, e); i++) collect(ex, zn_ex_operand(ex, e, i), syms, n);
}

static void print_symbols(const zn_graph *g) {
  zn_expr syms[64];
  uint32_t n = 0;
  for (uint32_t i = 0; i < g->num_inputs; i++) {
    const zn_type *t = &g->vals[g->inputs[i]].type;
    for (int d = 0; d < t->rank; d++) collect(g->ex, t->dims[d], syms, &n);
  }
  if (!n) return;
  fputs("symbols:", stdout);
  for (uint32_t i = 0; i < n; i++) {
    int64_t lo, hi;
    zn_ex_range(g->ex, syms[i], &lo, &hi);
    printf("%s %s", i ? "," : "", zn_ex_name(g->ex, syms[i]));
    if (hi != INT64_MAX) printf(" in %" PRId64 "..%" PRId64, lo, hi);
  }
  puts("   (fix with --dim NAME=VALUE)");
}

static bool compiled(zn_op op) {
  const zn_lower *l = zn_lower_of(op);
  return (l && (l->kernel || l->point)) || zn_ops[op].expand;
}

static void print_ops(const facts *f) {
  puts("operators:");
  bool missing = false;
  for (uint32_t most = UINT32_MAX;;) { /* by falling count, then by name */
    uint32_t next = 0;
    for (unsigned i = 1; i < ZN_OP_COUNT; i++)
      if (f->ops[i] < most && f->ops[i] > next) next = f->ops[i];
    if (!next) break;
    for (unsigned i = 1; i < ZN_OP_COUNT; i++)
      if (f->ops[i] == next) {
        printf("  %5u  %s%s\n", next, zn_ops[i].name, compiled((zn_op)i) ? "" : "   (not compiled yet)");
        missing = missing || !compiled((zn_op)i);
      }
    most = next;
  }
  if (missing) puts("  operators marked so are rejected, unless constant folding removes them");
}

static void print_json(const zn_graph *g, zn_arena *a, const facts *f) {
  cJSON *r = cJSON_CreateObject(), *list;
  const struct {
    const char *key;
    const zn_vid *ids;
    uint32_t n;
  } io[] = {{"inputs", g->inputs, g->num_inputs}, {"outputs", g->outputs, g->num_outputs}};
  for (unsigned k = 0; k < 2; k++) {
    list = cJSON_AddObjectToObject(r, io[k].key);
    for (uint32_t i = 0; i < io[k].n; i++)
      cJSON_AddStringToObject(list, g->vals[io[k].ids[i]].name, type_text(g, a, &g->vals[io[k].ids[i]].type));
  }
  list = cJSON_AddObjectToObject(r, "operators");
  for (unsigned i = 1; i < ZN_OP_COUNT; i++)
    if (f->ops[i]) cJSON_AddNumberToObject(list, zn_ops[i].name, f->ops[i]);
  cJSON_AddNumberToObject(r, "nodes", f->nodes);
  cJSON_AddNumberToObject(r, "parameters", (double)f->params);
  cJSON_AddNumberToObject(r, "parameter_bytes", (double)f->param_bytes);
  cJSON_AddNumberToObject(r, "flops", f->flops);
  char *text = cJSON_Print(r);
  if (text) puts(text);
  cJSON_free(text);
  cJSON_Delete(r);
}

int zn_cmd_inspect(zn_ctx *c, const zn_opts *o) {
  zn_compile_opts co;
  zn_graph *g;
  facts f = {0};
  if (o->num_args != 1) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "expected one model or artifact, got %u", o->num_args);
    return 2;
  }
  c->file = o->args[0];
  if (zn_has_suffix(o->args[0], ".so"))
    return zn_exit_code(zn_inspect_artifact(c, o->args[0], zn_opt_given(o, ZN_O_json)));
  zn_status st = zn_opts_compile(c, o, o->args[0], &co);
  if (st == ZN_OK) st = zn_load_graph(c, o->args[0], &co.onnx, &g);
  if (st == ZN_OK) st = zn_infer_graph(c, g);
  if (st != ZN_OK) return zn_exit_code(st);
  walk(g, &f);
  if (zn_opt_given(o, ZN_O_json)) {
    print_json(g, &c->perm, &f);
    return 0;
  }
  if (g->producer) printf("producer: %s\n", g->producer);
  print_values(g, &c->perm, "inputs", g->inputs, g->num_inputs);
  print_values(g, &c->perm, "outputs", g->outputs, g->num_outputs);
  print_symbols(g);
  printf("parameters: %" PRIu64 " (%" PRIu64 " bytes)\n", f.params, f.param_bytes);
  printf("work: %.4g GFLOP in contractions%s\n", f.flops * 1e-9,
         f.unknown_flops ? ", besides those of unknown shape" : "");
  printf("nodes: %u", f.nodes);
  if (f.bodies) printf(", in the model and %u bodies", f.bodies);
  putchar('\n');
  print_ops(&f);
  return 0;
}
