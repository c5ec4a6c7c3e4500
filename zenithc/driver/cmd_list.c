/* zenithc targets and zenithc ops: what the compiler has, from its tables. */
#include <fnmatch.h>

#include "codegen/lower/lower.h"
#include "zenithc/driver/tools.h"
#include "zenithc/eval/eval_impl.h"

int zn_cmd_targets(zn_ctx *c, const zn_opts *o) {
  const char *only = zn_opt_given(o, ZN_O_target) ? zn_opt_str(o, ZN_O_target) : NULL;
  if (o->num_args) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "expected no argument, got '%s'", o->args[0]);
    zn_help(c, "one target alone: --target=%s", o->args[0]);
    return 2;
  }
  if (only && !zn_target_find(only)) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "unknown target '%s'", only);
    return 2;
  }
  for (const zn_target *const *p = zn_targets; *p; p++) {
    const zn_target *t = *p;
    const char *why = NULL;
    zn_caps caps;
    if (only && strcmp(t->name, only)) continue;
    printf("%-8s %s\n", t->name, t->doc);
    if (t->archs) printf("         --arch: %s\n", t->archs);
    fputs("         writes:", stdout);
    for (uint32_t i = 0; t->suffixes[i]; i++) printf(" %s", t->suffixes[i]);
    bool run = t->caps(c, NULL, &caps) == ZN_OK && zn_can_run(t, &caps, &why);
    printf("\n         runs here: %s%s%s\n", run ? "yes" : "no", !run && why ? ", " : "", !run && why ? why : "");
  }
  return 0;
}

static bool evaluated(zn_op op) { return zn_eval_table[op] != NULL; }

static const char *lowered(zn_op op) {
  const zn_lower *l = zn_lower_of(op);
  if (l && (l->kernel || l->point)) return l->kernel && l->point ? "kernel, point" : l->kernel ? "kernel" : "point";
  return zn_ops[op].expand ? "expanded" : "-";
}

/* Operators that import rewrites into others, in every version: rows of upgrade.def without a row in ops.def. */
typedef struct rewritten {
  const char *domain, *name;
  int below;
} rewritten;
static const rewritten upgrades[] = {
#define UPGRADE(domain, op, below, rule) {domain, op, below},
#include "frontends/onnx/upgrade.def"
#undef UPGRADE
};
enum { NUM_UPGRADES = sizeof upgrades / sizeof upgrades[0], EVERY_VERSION = 1000 };

static bool on_import(size_t i) {
  return upgrades[i].below == EVERY_VERSION && zn_op_find(upgrades[i].domain, upgrades[i].name) == ZN_OP_NONE;
}

static unsigned count_on_import(void) {
  unsigned n = 0;
  for (size_t i = 0; i < NUM_UPGRADES; i++) n += on_import(i);
  return n;
}

static bool wanted(const zn_opts *o, const char *name) {
  for (uint32_t i = 0; i < o->num_args; i++)
    if (!fnmatch(o->args[i], name, 0)) return true;
  return o->num_args == 0;
}

/* ---- what proves an operator: op_tests.def ---- */

typedef struct proof {
  zn_op op;
  unsigned nodes;
  const char *texts, *models;
} proof;
static const proof proofs[] = {
#define PROVED(op, nodes, texts, models) {ZN_OP_##op, nodes, texts, models},
#include "zenithc/ops/op_tests.def"
#undef PROVED
};

static const proof *proof_of(zn_op op) {
  static const proof none = {ZN_OP_NONE, 0, "", ""};
  for (size_t i = 0; i < sizeof proofs / sizeof proofs[0]; i++)
    if (proofs[i].op == op) return &proofs[i];
  return &none;
}

/* The opset that introduced it, 0 when it is none of ONNX's. */
static int introduced(const char *domain, const char *name) {
  static const struct first {
    const char *domain, *name;
    int version;
  } rows[] = {
#define FIRST(domain, name, version) {domain, name, version},
#include "frontends/onnx/op_first.def"
#undef FIRST
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
    if (!strcmp(rows[i].name, name) && !strcmp(rows[i].domain, domain)) return rows[i].version;
  return 0;
}

static int first_version(zn_op op) {
  int v = introduced(zn_ops[op].domain, zn_ops[op].name);
  return v ? v : zn_ops[op].since;
}

/* Targets whose kernels come from the lowering: all that do anything. "" when the operator is not compiled. */
static const char *targets_of(zn_arena *a, zn_op op) {
  const char *s = "";
  if (*lowered(op) == '-') return s;
  for (const zn_target *const *p = zn_targets; *p; p++)
    if (strcmp((*p)->name, "null")) s = zn_arena_printf(a, "%s%s%s", s, *s ? ", " : "", (*p)->name);
  return s;
}

static void print_details(zn_ctx *c, zn_op op) {
  const zn_opdef *d = &zn_ops[op];
  const proof *p = proof_of(op);
  printf("    %s\n", d->schema);
  printf("    opsets %d to %d; compiled by: %s\n", first_version(op), d->since, targets_of(&c->tmp, op));
  printf("    tests: %u of ONNX's node tests; texts: %s; models: %s\n", p->nodes, *p->texts ? p->texts : "none",
         *p->models ? p->models : "none");
}

/* "X: f32, f64" from the third part of the schema: "T=num" becomes "T: num". */
static void print_types(const char *types) {
  for (const char *t = types; *t; t++) {
    if (*t == '=') fputs(": ", stdout);
    else if (*t == ' ') fputs("; ", stdout);
    else if (*t == ',') fputs(", ", stdout);
    else putchar(*t);
  }
}

static int ops_page(zn_ctx *c) {
  unsigned low = 0, eval = 0, num = ZN_OP_COUNT - 1;
  for (unsigned i = 1; i < ZN_OP_COUNT; i++) low += *lowered((zn_op)i) != '-', eval += evaluated((zn_op)i);
  printf("# Operators\n\nThis page is written by `zenithc ops --markdown` from the compiler's tables; "
         "`make ops-docs` refreshes it.\n\n");
  printf("%u operators, %u in the reference evaluator, %u compiled. Older versions are raised to the newest on import, and %u\n"
         "more operators, at the end, are written in terms of these there.\n",
         num, eval, low, count_on_import());
  printf("Targets: %s. Types: float = f16 bf16 f32 f64, int = all of 8 to 64 bits, num = both,\n",
         targets_of(&c->tmp, ZN_OP_Add));
  printf("numb = num and bool, all = every type. `expanded`: into other operators; `point`: per element, fuses into\n"
         "its reader. Proved by: how many of ONNX's node tests contain it; texts under tests/; real models.\n\n");
  printf("| operator | opsets | types | compiled | node tests | texts | models |\n|---|---|---|---|---|---|---|\n");
  for (unsigned i = 1; i < ZN_OP_COUNT; i++) {
    const zn_op op = (zn_op)i;
    const proof *p = proof_of(op);
    const char *domain = zn_ops[i].domain;
    printf("| %s%s%s%s | ", zn_ops[i].name, *domain ? " (" : "", domain, *domain ? ")" : "");
    if (first_version(op) == zn_ops[i].since) printf("%d | ", zn_ops[i].since);
    else printf("%d-%d | ", first_version(op), zn_ops[i].since);
    print_types(zn_op_schema(op)->types);
    printf(" | %s | %u | %s | %s |\n", *lowered(op) == '-' ? "no" : lowered(op), p->nodes, p->texts, p->models);
  }
  fputs("\n## Written in terms of others on import\n\nONNX's own are legacy or experimental; those of com.microsoft "
        "are compared with ONNX Runtime\n(tests/contrib).\n\n| domain | operators |\n|---|---|\n", stdout);
  const char *domain = NULL;
  for (size_t i = 0; i < NUM_UPGRADES; i++) {
    if (!on_import(i)) continue;
    const bool same = domain && !strcmp(domain, upgrades[i].domain);
    if (!same) printf("%s| %s | ", domain ? " |\n" : "", *upgrades[i].domain ? upgrades[i].domain : "ai.onnx");
    printf("%s%s", same ? ", " : "", upgrades[i].name);
    domain = upgrades[i].domain;
  }
  fputs(domain ? " |\n" : "", stdout);
  return 0;
}

static unsigned list_on_import(const zn_opts *o) {
  unsigned n = 0;
  for (size_t i = 0; i < NUM_UPGRADES; i++) {
    const char *domain = upgrades[i].domain, *name = upgrades[i].name;
    if (!on_import(i) || !wanted(o, name)) continue;
    int first = introduced(domain, name);
    printf("%-30s %-12s %5d  %-9s  %s\n", name, *domain ? domain : "ai.onnx", first ? first : 1, "-", "rewritten on import");
    n++;
  }
  return n;
}

/* Every pattern of the command line names an operator, of the table or rewritten on import. */
static bool all_known(zn_ctx *c, const zn_opts *o) {
  const char *names[ZN_OP_COUNT + NUM_UPGRADES];
  uint32_t n = 0;
  for (unsigned i = 1; i < ZN_OP_COUNT; i++) names[n++] = zn_ops[i].name;
  for (size_t i = 0; i < NUM_UPGRADES; i++)
    if (on_import(i)) names[n++] = upgrades[i].name;
  for (uint32_t k = 0; k < o->num_args; k++) {
    uint32_t i = 0;
    while (i < n && fnmatch(o->args[k], names[i], 0)) i++;
    if (i < n) continue;
    const char *near = zn_nearest(o->args[k], names, n);
    zn_error(c, NULL, "no operator is called '%s'", o->args[k]);
    if (near) zn_help(c, "did you mean %s?", near);
    return false;
  }
  return true;
}

int zn_cmd_ops(zn_ctx *c, const zn_opts *o) {
  unsigned n = 0, eval = 0, low = 0;
  if (!all_known(c, o)) return 1;
  if (zn_opt_given(o, ZN_O_markdown)) return ops_page(c);
  printf("%-30s %-12s %5s  %-9s  %s\n", "operator", "domain", "opset", "reference", "lowering");
  for (unsigned i = 1; i < ZN_OP_COUNT; i++) {
    zn_op op = (zn_op)i;
    if (!wanted(o, zn_ops[i].name)) continue;
    const char *how = lowered(op);
    n++;
    eval += evaluated(op);
    low += *how != '-';
    printf("%-30s %-12s %5d  %-9s  %s\n", zn_ops[i].name, *zn_ops[i].domain ? zn_ops[i].domain : "ai.onnx",
           zn_ops[i].since, evaluated(op) ? "yes" : "-", how);
    if (o->num_args) print_details(c, op);
  }
  const unsigned imported = list_on_import(o);
  printf("%u operators: %u in the reference evaluator, %u compiled; %u more rewritten on import\n", n, eval, low, imported);
  return 0;
}
