/* zenithc targets and zenithc ops: what the compiler has, from its tables. */
#include <fnmatch.h>

#include "codegen/lower/lower.h"
#include "zenithc/driver/tools.h"
#include "zenithc/eval/eval_impl.h"

int zn_cmd_targets(zn_ctx *c, const zn_opts *o) {
  const char *only = zn_opt_given(o, ZN_O_target) ? zn_opt_str(o, ZN_O_target) : NULL;
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

static bool wanted(const zn_opts *o, const char *name) {
  for (uint32_t i = 0; i < o->num_args; i++)
    if (!fnmatch(o->args[i], name, 0)) return true;
  return o->num_args == 0;
}

static void print_schema(zn_op op) {
  const zn_opdef *d = &zn_ops[op];
  printf("    %s\n", d->schema);
}

int zn_cmd_ops(zn_ctx *c, const zn_opts *o) {
  unsigned n = 0, eval = 0, low = 0;
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
    if (o->num_args) print_schema(op);
  }
  if (!n) {
    const char *names[ZN_OP_COUNT];
    for (unsigned i = 1; i < ZN_OP_COUNT; i++) names[i - 1] = zn_ops[i].name;
    const char *near = zn_nearest(o->args[0], names, ZN_OP_COUNT - 1);
    zn_error(c, NULL, "no operator is called '%s'", o->args[0]);
    if (near) zn_help(c, "did you mean %s?", near);
    return 1;
  }
  printf("%u operators: %u in the reference evaluator, %u compiled\n", n, eval, low);
  return 0;
}
