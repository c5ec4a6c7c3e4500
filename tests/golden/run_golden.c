/* Golden tests. A file is: "# RUN: pass,pass [-O<n>] [--ram=BYTES] [--bands] [--simt]" (or "# RUN: parse"), a .zg text,
 * "# OUT" and the text expected after those passes, or "# ERR" and the diagnostics. What is expected must also
 * read back and print the same. run_golden [--rebase] FILE...     exit 0 when all agree; --rebase
 * rewrites the expectations of those that differ. */
#include <stdio.h>
#include <stdlib.h>

#include "zenithc/passes/pass.h"

typedef struct said {
  zn_text t;
} said;

static void listen(void *user, zn_severity sev, const char *line) {
  said *s = user;
  (void)sev;
  zn_text_printf(&s->t, "%s\n", line);
}

typedef struct test {
  const char *path;
  char *text;         /* whole file */
  const char *passes; /* of the RUN line */
  int level;
  int64_t ram; /* limit of intermediate values; 0: none */
  bool bands; /* of rows, to stay below it */
  bool simt; /* for a target whose kernels run as teams of threads */
  const char *input, *expected; /* input ends where the marker begins */
  size_t input_len;
} test;

static char *read_file(zn_arena *a, const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  zn_text t;
  zn_text_init(&t, a);
  char buf[4096];
  size_t n;
  while ((n = fread(buf, 1, sizeof buf, f)) > 0) zn_text_put(&t, buf, n);
  fclose(f);
  return t.s ? t.s : zn_arena_strdup(a, "");
}

static const char *find_marker(const char *s) {
  for (const char *p = s; p; p = strchr(p, '\n'), p += p != NULL)
    if (!strncmp(p, "# OUT\n", 6) || !strncmp(p, "# ERR\n", 6)) return p;
  return NULL;
}

static bool load(zn_arena *a, const char *path, test *t) {
  *t = (test){.path = path, .text = read_file(a, path), .level = 2};
  if (!t->text || strncmp(t->text, "# RUN: ", 7) != 0) return false;
  const char *line = t->text + 7, *end = strchr(line, '\n');
  if (!end) return false;
  char *passes = zn_arena_strndup(a, line, (size_t)(end - line));
  char *opt = strstr(passes, " --simt");
  t->simt = opt != NULL;
  if (opt) *opt = 0;
  opt = strstr(passes, " --bands");
  t->bands = opt != NULL;
  if (opt) *opt = 0;
  opt = strstr(passes, " --ram=");
  if (opt) {
    t->ram = atoll(opt + 7);
    *opt = 0;
  }
  opt = strstr(passes, " -O");
  if (opt) {
    t->level = opt[3] - '0';
    *opt = 0;
  }
  t->passes = passes;
  t->input = end + 1;
  const char *marker = find_marker(t->input);
  t->input_len = marker ? (size_t)(marker - t->input) : strlen(t->input);
  t->expected = marker ? marker : "";
  return true;
}

static zn_status run(zn_ctx *c, const test *t, zn_text *out) {
  zn_graph *g;
  char dir[1024];
  const char *slash = strrchr(t->path, '/');
  snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - t->path) : 1, slash ? t->path : ".");
  ZN_TRY(zn_graph_parse(c, &c->graph, t->input, t->input_len, dir, &g));
  zn_caps caps = {.target = "cpu",
                               .arch = "x86-64-v3",
                               .idx_bytes = 8,
                               .vector_bytes = 32,
                               .vector_regs = 16,
                               .fma = true,
                               .f16_convert = true,
                               .round_native = true,
                               .f64_native = true,
                               .l1_bytes = 32768,
                               .l2_bytes = 1 << 20,
                               .cores = 4};
  caps.simt = t->simt;
  zn_pass_opts o = {.opt_level = t->level, .caps = &caps, .verify_each = true, .rewrite_limit = -1, .ram_bytes = t->ram,
                    .bands = t->bands};
  ZN_TRY(zn_graph_verify(c, g));
  if (strcmp(t->passes, "parse") != 0) ZN_TRY(zn_passes_run_named(c, g, t->passes, &o));
  zn_graph_print(g, out);
  zn_text again;
  zn_graph *copy;
  zn_text_init(&again, &c->perm);
  ZN_TRY(zn_graph_parse(c, &c->graph, out->s, out->len, dir, &copy));
  zn_graph_print(copy, &again);
  if (strcmp(again.s, out->s) != 0)
    return zn_error(c, NULL, "the text does not read back:\n%s", again.s);
  return ZN_OK;
}

static bool rewrite(const test *t, const char *now) {
  FILE *f = fopen(t->path, "wb");
  if (!f) return false;
  fwrite(t->text, 1, (size_t)(t->input - t->text) + t->input_len, f);
  fputs(now, f);
  return fclose(f) == 0;
}

static bool one(const char *path, bool rebase) {
  zn_ctx c;
  test t;
  zn_ctx_init(&c);
  said s;
  zn_text_init(&s.t, &c.perm);
  c.sink = listen;
  c.sink_user = &s;
  bool ok = load(&c.perm, path, &t);
  if (ok) {
    zn_text out, now;
    zn_text_init(&out, &c.perm);
    zn_text_init(&now, &c.perm);
    zn_status st = run(&c, &t, &out);
    zn_text_puts(&now, st == ZN_OK ? "# OUT\n" : "# ERR\n");
    const char *what = st == ZN_OK ? out.s : s.t.s;
    if (what) zn_text_puts(&now, what);
    ok = !strcmp(now.s, t.expected);
    if (!ok && rebase) ok = rewrite(&t, now.s) && printf("rewritten %s\n", path) > 0;
    if (!ok) printf("FAIL %s\n--- expected\n%s--- got\n%s", path, t.expected, now.s);
  } else {
    printf("FAIL %s: cannot be read or does not begin with '# RUN: passes'\n", path);
  }
  zn_ctx_fini(&c);
  return ok;
}

int main(int argc, char **argv) {
  bool rebase = argc > 1 && !strcmp(argv[1], "--rebase");
  int failed = 0, count = 0;
  for (int i = 1 + rebase; i < argc; i++, count++) failed += !one(argv[i], rebase);
  printf("golden: %d of %d agree\n", count - failed, count);
  return failed != 0;
}
