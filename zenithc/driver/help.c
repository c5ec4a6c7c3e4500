/* Prints the option and command tables: one-screen help, docs/CLI.md and the manual page. */
#include "zenithc/driver/options.h"

static const char intro[] =
    "zenithc compiles machine-learning models (ONNX) ahead of time into shared objects, object\n"
    "files or C that need nothing else, and compares each with a reference before writing it.\n";

static const char *const exit_codes[][2] = {
    {"0", "done; the check passed"},
    {"1", "the model or the check failed; nothing was written"},
    {"2", "wrong usage, or a file or tool is missing"},
    {"3", "out of memory; for `verify`: the tolerance is exceeded"},
    {"4", "`verify`: the tolerance is below the model's own noise floor"},
    {"5", "`verify`: cannot compare (unsupported operator, no reference)"},
    {"134", "an internal error; the graph is in zenithc-crash.zg"},
};
enum { NUM_EXIT = sizeof exit_codes / sizeof *exit_codes };

/* "--max-ram=BYTES", "-O0..3", "-o OUT", "-v" */
static void left_side(const zn_optdef *d, char *out, size_t n) {
  const char *sep = d->kind == ZN_OK_LETTERS ? "" : d->spelling[1] == '-' ? "=" : " ";
  snprintf(out, n, "%s%s%s", d->spelling, d->arg ? sep : "", d->arg ? d->arg : "");
}

/* What the sentence leaves out: choices and default. */
static void extra(const zn_optdef *d, char *out, size_t n) {
  *out = 0;
  if (!*d->values) return;
  if (d->kind == ZN_OK_CHOICE) snprintf(out, n, " (%s)", d->values);
  else snprintf(out, n, " (default %s)", d->values);
}

static void print_options(zn_cmd cmd, FILE *f) {
  for (unsigned i = 0; i < ZN_O_COUNT; i++) {
    const zn_optdef *d = &zn_optdefs[i];
    char left[80], more[120];
    if (!zn_opt_allowed((zn_optid)i, cmd)) continue;
    left_side(d, left, sizeof left);
    extra(d, more, sizeof more);
    fprintf(f, "  %-22s %s%s\n", left, d->doc, more);
  }
}

static void usage_line(const zn_cmddef *k, FILE *f) {
  bool compile = !strcmp(k->name, "compile");
  fprintf(f, "zenithc %s%s%s\n", compile ? "" : k->name, compile || !*k->args ? "" : " ", k->args);
}

static void print_examples(const char *text, const char *before, FILE *f) {
  for (const char *p = text; *p; p += strcspn(p, "\n"), p += *p == '\n')
    fprintf(f, "%s%.*s\n", before, (int)strcspn(p, "\n"), p);
}

void zn_help_command(zn_cmd cmd, FILE *f) {
  const zn_cmddef *k = &zn_cmddefs[cmd];
  fputs("usage: ", f);
  usage_line(k, f);
  fprintf(f, "%s\n\n", k->doc);
  print_options(cmd, f);
  fputs("\nexamples:\n", f);
  print_examples(k->examples, "  ", f);
}

void zn_help_overview(FILE *f) {
  fputs(intro, f);
  fputs("\nusage:\n", f);
  for (unsigned i = 0; i < ZN_CMD_COUNT; i++) {
    char line[100] = "zenithc ";
    snprintf(line + 8, sizeof line - 8, "%s%s%s", i ? zn_cmddefs[i].name : "", i ? " " : "", zn_cmddefs[i].args);
    fprintf(f, "  %-40s %s\n", line, zn_cmddefs[i].doc);
  }
  fputs("\nexamples:\n", f);
  for (unsigned i = 0; i < ZN_CMD_COUNT; i++) {
    const char *e = zn_cmddefs[i].examples;
    fprintf(f, "  %.*s\n", (int)strcspn(e, "\n"), e);
  }
  fputs("\n`zenithc compile --help`, `zenithc run --help`, ... list the options of each.\n", f);
}

/* ---- docs/CLI.md ---- */

static void md_text(const char *s, FILE *f) {
  for (; *s; s++) {
    if (*s == '|' || *s == '<' || *s == '*') fputc('\\', f);
    fputc(*s, f);
  }
}

void zn_help_markdown(FILE *f) {
  fputs("# The command line\n\n", f);
  fputs("This page is written by `zenithc help --markdown` from the compiler's tables\n"
        "(zenithc/driver/commands.def, options.def); `make cli-docs` refreshes it. Every example is run by the "
        "tests.\n\n",
        f);
  fputs(intro, f);
  for (unsigned i = 0; i < ZN_CMD_COUNT; i++) {
    const zn_cmddef *k = &zn_cmddefs[i];
    fprintf(f, "\n## zenithc %s\n\n`", k->name);
    bool compile = i == ZN_CMD_compile;
    fprintf(f, "zenithc %s%s%s", compile ? "" : k->name, compile || !*k->args ? "" : " ", k->args);
    fprintf(f, "`: %s.\n\n```\n", k->doc);
    print_examples(k->examples, "", f);
    fputs("```\n\n| option | meaning |\n|---|---|\n", f);
    for (unsigned j = 0; j < ZN_O_COUNT; j++) {
      char left[80], more[120];
      if (!zn_opt_allowed((zn_optid)j, (zn_cmd)i)) continue;
      left_side(&zn_optdefs[j], left, sizeof left);
      extra(&zn_optdefs[j], more, sizeof more);
      fprintf(f, "| `%s` | ", left);
      md_text(zn_optdefs[j].doc, f);
      md_text(more, f);
      fputs(" |\n", f);
    }
  }
  fputs("\n## Configuration file\n\n"
        "`--config FILE` reads options from YAML by the same names, without dashes; the command line wins. Lists and\n"
        "mappings give the options that may be repeated.\n\n"
        "```yaml\nmodel: model.onnx\no: model.so\ntarget: cpu\narch: x86-64-v3\nO: 3\ndim: {batch: 8}\n"
        "shape:\n  - x=8x4\nno-alloc: true\n```\n",
        f);
  fputs("\n## Exit codes\n\n| code | meaning |\n|---|---|\n", f);
  for (unsigned i = 0; i < NUM_EXIT; i++) fprintf(f, "| %s | %s |\n", exit_codes[i][0], exit_codes[i][1]);
}

/* ---- the manual page ---- */

static void man_text(const char *s, FILE *f) {
  if (*s == '.' || *s == '\'') fputs("\\&", f);
  for (; *s; s++) {
    if (*s == '-') fputs("\\-", f);
    else if (*s == '\\') fputs("\\e", f);
    else fputc(*s, f);
  }
}

static void man_options(unsigned cmd, FILE *f) {
  for (unsigned j = 0; j < ZN_O_COUNT; j++) {
    char left[80], more[120];
    if (!zn_opt_allowed((zn_optid)j, (zn_cmd)cmd)) continue;
    left_side(&zn_optdefs[j], left, sizeof left);
    extra(&zn_optdefs[j], more, sizeof more);
    fputs(".TP\n.B ", f);
    man_text(left, f);
    fputc('\n', f);
    man_text(zn_optdefs[j].doc, f);
    man_text(more, f);
    fputc('\n', f);
  }
}

void zn_help_man(FILE *f) {
  fprintf(f, ".TH ZENITHC 1 \"\" \"zenithc %s\" \"User Commands\"\n", ZN_VERSION);
  fputs(".SH NAME\nzenithc \\- ahead\\-of\\-time compiler for machine\\-learning models\n.SH SYNOPSIS\n", f);
  for (unsigned i = 0; i < ZN_CMD_COUNT; i++) {
    fputs(i ? ".br\n.B zenithc " : ".B zenithc ", f);
    if (i != ZN_CMD_compile) fprintf(f, "%s ", zn_cmddefs[i].name);
    man_text(zn_cmddefs[i].args, f);
    fputc('\n', f);
  }
  fputs(".SH DESCRIPTION\n", f);
  man_text(intro, f);
  for (unsigned i = 0; i < ZN_CMD_COUNT; i++) {
    fprintf(f, ".SH ZENITHC %s\n", zn_cmddefs[i].name);
    man_text(zn_cmddefs[i].doc, f);
    fputs(".\n", f);
    man_options(i, f);
    fputs(".PP\nExamples:\n.nf\n", f);
    for (const char *p = zn_cmddefs[i].examples; *p; p += strcspn(p, "\n"), p += *p == '\n') {
      char line[300];
      snprintf(line, sizeof line, "%.*s", (int)strcspn(p, "\n"), p);
      man_text(line, f);
      fputc('\n', f);
    }
    fputs(".fi\n", f);
  }
  fputs(".SH EXIT STATUS\n", f);
  for (unsigned i = 0; i < NUM_EXIT; i++) {
    fprintf(f, ".TP\n.B %s\n", exit_codes[i][0]);
    man_text(exit_codes[i][1], f);
    fputc('\n', f);
  }
}
