/* fuzz_graphs [-n N] [-s SEED] [-o DIR] [--c EVERY] [--onnx DIR EVERY] [--seconds S] [--verbose]
 *                                                                                      draws and compares N graphs
 * fuzz_graphs --check FILE.zg...                                                       compares these
 * fuzz_graphs [-o DIR] [--c 0] [--ways BITS] --cases DIR...                            models with inputs (cases.c)
 * fuzz_graphs --print SEED                                                             the graph of a seed as text
 * Exit code 1 when something differed; what did lies in DIR as SEED.zg (as drawn) and SEED-min.zg (shrunk). */
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/fuzz/graphs/fuzz.h"

enum { TEXT = 4 << 20, KINDS = 200 };

typedef struct
    drawn { /* filled by the child that draws: drawing runs the inference, which may crash */
  bool done;
  size_t n;
  uint32_t made[ZN_OP_COUNT];
  char text[TEXT];
} drawn;

typedef struct tally { /* messages with counts */
  char text[KINDS][120];
  uint32_t count[KINDS], n;
} tally;

static void quiet(void *user, zn_severity sev, const char *line) {
  (void)user, (void)sev, (void)line;
}

static void count_in(tally *t, const char *what) {
  char key[120];
  size_t n = 0;
  const char *p = strstr(what, "): ");
  for (p = p ? p + 3 : what; *p && n + 1 < sizeof key;
       p++) /* numbers and names differ from graph to graph */
    if (!(*p >= '0' && *p <= '9')) key[n++] = *p;
  key[n] = 0;
  uint32_t k = 0;
  while (k < t->n && strcmp(t->text[k], key)) k++;
  if (k == t->n && k < KINDS) snprintf(t->text[t->n++], sizeof key, "%s", key);
  if (k < KINDS) t->count[k]++;
}

static void print_tally(const char *title, const tally *t) {
  for (uint32_t k = 0; k < t->n; k++) printf("  %s %u: %s\n", title, t->count[k], t->text[k]);
}

/* Draws in a child; false when that crashed. */
static bool draw_apart(uint64_t seed, drawn *d) {
  d->done = false;
  d->n = 0;
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    zn_ctx c;
    fz *f = calloc(1, sizeof *f);
    zn_ctx_init(&c);
    c.sink = quiet;
    c.verbosity = -1;
    alarm(60);
    zn_graph *g = fz_draw(&c, seed, f);
    size_t n = 0;
    const char *s = g ? fz_print(g, &c.graph, &n) : "";
    zn_graph *again; /* what the parser makes of it, so that unused symbols and names are gone */
    if (g && zn_graph_parse(&c, &c.graph, s, n, NULL, &again) == ZN_OK)
      s = fz_print(again, &c.graph, &n);
    if (n < TEXT) {
      memcpy(d->text, s, n);
      d->text[n] = 0;
      d->n = n;
    }
    memcpy(d->made, f->made, sizeof d->made);
    d->done = true;
    _exit(0);
  }
  int st;
  waitpid(pid, &st, 0);
  return d->done;
}

static void write_text(const char *path, const char *s, size_t n) {
  FILE *f = fopen(path, "wb");
  if (f) {
    fwrite(s, 1, n, f);
    fclose(f);
  }
}

static const char *const outcomes[] = {"same",      "undefined", "refused",
                                       "different", "crash",     "hang"};

static int check_files(int argc, char **argv, const fz_opts *o) {
  int bad = 0;
  for (int i = 0; i < argc; i++) {
    FILE *f = fopen(argv[i], "rb");
    if (!f) {
      fprintf(stderr, "cannot read %s\n", argv[i]);
      return 2;
    }
    char *s = calloc(1, TEXT);
    size_t n = fread(s, 1, TEXT - 1, f), m;
    fclose(f);
    zn_ctx c;
    zn_graph *g;
    fz_result r = {.outcome = FZ_DIFFERENT, .way = "text", .what = "does not parse"};
    zn_ctx_init(&c);
    if (zn_graph_parse(&c, &c.graph, s, n, NULL, &g) == ZN_OK) {
      const char *text =
          fz_print(g, &c.graph, &m); /* comments and layout of the file do not matter */
      fz_check_apart(text, m, 1, o, &r);
    }
    if (r.outcome == FZ_SAME) printf("ok %s\n", argv[i]);
    else printf("FAIL %s: %s %s: %s\n", argv[i], outcomes[r.outcome], r.way, r.what), bad++;
    zn_ctx_fini(&c);
    free(s);
  }
  return bad != 0;
}

typedef struct args {
  uint64_t seed;
  uint32_t n, c_every, onnx_every, seconds; /* seconds: stop then; 0: never */
  const char *dir, *onnx_dir;
  bool shrink;
} args;

static void report(const args *a, uint64_t seed, const drawn *d, const fz_result *r, fz_opts *o) {
  char path[700];
  zn_arena mem;
  size_t n;
  printf("seed %llu: %s %s: %s\n", (unsigned long long)seed, outcomes[r->outcome], r->way, r->what);
  fflush(stdout);
  snprintf(path, sizeof path, "%s/%llu.zg", a->dir, (unsigned long long)seed);
  write_text(path, d->text, d->n);
  if (!a->shrink) return;
  zn_arena_init(&mem, "shrink");
  fz_opts only = *o;
  static const char *const ways[] = {"interp-O2", "cpu-O3",    "cpu-O0",
                                     "cpu-O2",    "interp-O0", "c-O2"};
  for (uint32_t k = 0; k < 6; k++)
    if (!strcmp(ways[k], r->way)) only.only = 1u << k;
  if (!strcmp(r->way, "c-O2")) only.use_c = true;
  const char *s = fz_shrink(&mem, d->text, seed, &only, r, &n);
  snprintf(path, sizeof path, "%s/%llu-min.zg", a->dir, (unsigned long long)seed);
  FILE *f = fopen(path, "wb");
  if (f) {
    fprintf(f, "%.*s# seed %llu, %s: %s\n", (int)n, s, (unsigned long long)seed, r->way, r->what);
    fclose(f);
  }
  zn_arena_reset(&mem);
}

static int fuzz(const args *a, fz_opts o) {
  static tally refused, undefined;
  uint32_t got[6] = {0}, empty = 0;
  static uint32_t made[ZN_OP_COUNT];
  drawn *d = mmap(NULL, sizeof *d, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  const time_t start = time(NULL);
  uint32_t k = 0;
  for (; k < a->n && (!a->seconds || time(NULL) - start < (time_t)a->seconds); k++) {
    uint64_t seed = a->seed + k;
    fz_result r = {.outcome = FZ_CRASH, .way = "drawing", .what = "inference crashed"};
    if (draw_apart(seed, d)) {
      if (!d->n) {
        empty++;
        continue;
      }
      o.use_c = a->c_every && k % a->c_every == 0;
      fz_check_apart(d->text, d->n, seed, &o, &r);
      for (uint32_t op = 0; op < ZN_OP_COUNT; op++) made[op] += d->made[op] != 0;
    }
    got[r.outcome]++;
    if ((k + 1) % 500 == 0) {
      printf("%u drawn\n", k + 1);
      fflush(stdout);
    }
    if (r.outcome == FZ_REFUSED && o.verbose) printf("refused %llu: %s\n", (unsigned long long)seed, r.what);
    if (r.outcome == FZ_REFUSED) count_in(&refused, r.what);
    else if (r.outcome == FZ_UNDEFINED) count_in(&undefined, r.what);
    else if (r.outcome != FZ_SAME) report(a, seed, d, &r, &o);
    if (a->onnx_every && k % a->onnx_every == 0 &&
        (r.outcome == FZ_SAME || r.outcome == FZ_REFUSED))
      fz_export(d->text, d->n, seed, a->onnx_dir);
  }
  print_tally("refused", &refused);
  print_tally("undefined", &undefined);
  printf("never drawn:");
  for (uint32_t op = 1; op < ZN_OP_COUNT; op++)
    if (!made[op] && k >= 300) printf(" %s", zn_op_name((zn_op)op));
  printf(
      "\n%u graphs: %u same, %u undefined, %u refused, %u different, %u crashes, %u hangs; %u "
      "empty\n",
      k, got[0], got[1], got[2], got[3], got[4], got[5], empty);
  return got[3] + got[4] + got[5] != 0;
}

int main(int argc, char **argv) {
  args a = {.seed = 1, .n = 100, .dir = "build/fuzz/graphs", .c_every = 8, .shrink = true};
  fz_opts o = {0};
  for (int i = 1; i < argc; i++) {
    const char *s = argv[i];
    bool more = i + 1 < argc;
    if (!strcmp(s, "-n") && more) a.n = (uint32_t)strtoul(argv[++i], NULL, 10);
    else if (!strcmp(s, "-s") && more) a.seed = strtoull(argv[++i], NULL, 10);
    else if (!strcmp(s, "-o") && more) a.dir = argv[++i];
    else if (!strcmp(s, "--c") && more) a.c_every = (uint32_t)strtoul(argv[++i], NULL, 10);
    else if (!strcmp(s, "--seconds") && more) a.seconds = (uint32_t)strtoul(argv[++i], NULL, 10);
    else if (!strcmp(s, "--no-shrink")) a.shrink = false;
    else if (!strcmp(s, "--verbose")) o.verbose = true;
    else if (!strcmp(s, "--onnx") && i + 2 < argc)
      a.onnx_dir = argv[i + 1], a.onnx_every = (uint32_t)strtoul(argv[i + 2], NULL, 10), i += 2;
    else if (!strcmp(s, "--check") && more) {
      mkdir(a.dir, 0777);
      o.dir = a.dir;
      o.use_c = a.c_every != 0;
      o.only = 0x3f;
      return check_files(argc - i - 1, argv + i + 1, &o);
    } else if (!strcmp(s, "--ways") && more) {
      o.only = (uint32_t)strtoul(argv[++i], NULL, 0);
    } else if (!strcmp(s, "--cases") && more) {
      mkdir(a.dir, 0777);
      o.dir = a.dir;
      o.use_c = a.c_every != 0;
      return !fz_check_cases(argc - i - 1, argv + i + 1, &o);
    } else if (!strcmp(s, "--print") && more) {
      drawn *d = mmap(NULL, sizeof *d, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
      if (!draw_apart(strtoull(argv[i + 1], NULL, 10), d)) return 1;
      fwrite(d->text, 1, d->n, stdout);
      return 0;
    } else {
      fprintf(stderr,
              "fuzz_graphs: cannot read '%s'; see the first lines of tests/fuzz/graphs/main.c\n",
              s);
      return 2;
    }
  }
  mkdir(a.dir, 0777);
  if (a.onnx_dir) mkdir(a.onnx_dir, 0777);
  o.dir = a.dir;
  return fuzz(&a, o);
}
