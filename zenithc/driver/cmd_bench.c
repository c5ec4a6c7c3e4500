/* zenithc bench: time of one run, with everything prepared; per kernel with --profile. */
#include <inttypes.h>
#include <cjson/cJSON.h>
#include <unistd.h>

#include "zenithc/driver/profile.h"

enum { MAX_RUNS = 1000000 };

typedef struct bench {
  zn_ctx *c;
  const zn_opts *o;
  zn_session s;
  zn_native_call call;
  unsigned threads, runs;
  uint64_t *ns; /* sorted after the measurement */
} bench;

/* ---- measurement ---- */

static int ascending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* Runs for two seconds' worth unless --runs says how many. */
static zn_status measure(bench *b) {
  int64_t before = zn_opt_int(b->o, ZN_O_warmup, 3);
  unsigned warmup = before > MAX_RUNS ? MAX_RUNS : (unsigned)before;
  if (before > MAX_RUNS) zn_warn(b->c, NULL, "%d runs before the timed ones are the most", MAX_RUNS);
  uint64_t once = 0;
  int32_t rc = zn_native_time(&b->call, warmup, 1, &once);
  int64_t want = zn_opt_int(b->o, ZN_O_runs, 0);
  if (want <= 0) want = once ? (int64_t)(2000000000u / once) : MAX_RUNS;
  if (!zn_opt_given(b->o, ZN_O_runs) && want < 20) want = 20;
  if (zn_opt_given(b->o, ZN_O_runs) && want > MAX_RUNS) zn_warn(b->c, NULL, "%d runs are the most", MAX_RUNS);
  b->runs = want > MAX_RUNS ? MAX_RUNS : (unsigned)want;
  b->ns = ZN_ARRAY(&b->c->perm, uint64_t, b->runs);
  if (!rc) rc = zn_native_time(&b->call, 0, b->runs, b->ns);
  if (rc) return zn_error(b->c, NULL, "the run failed: %s", zn_native_result_text(rc));
  qsort(b->ns, b->runs, sizeof *b->ns, ascending);
  return ZN_OK;
}

static double ms(uint64_t ns) { return (double)ns * 1e-6; }

static double median_ms(const bench *b) {
  return (ms(b->ns[(b->runs - 1) / 2]) + ms(b->ns[b->runs / 2])) / 2;
}

static double p10_ms(const bench *b) { return ms(b->ns[(b->runs - 1) / 10]); }

static double p99_ms(const bench *b) { return ms(b->ns[(uint64_t)(b->runs - 1) * 99 / 100]); }

static void print_json(const bench *b) {
  cJSON *r = cJSON_CreateObject();
  cJSON_AddStringToObject(r, "model", b->call.model->name);
  cJSON_AddNumberToObject(r, "median_ms", median_ms(b));
  cJSON_AddNumberToObject(r, "min_ms", ms(b->ns[0]));
  cJSON_AddNumberToObject(r, "p10_ms", p10_ms(b));
  cJSON_AddNumberToObject(r, "p99_ms", p99_ms(b));
  cJSON_AddNumberToObject(r, "threads", b->threads);
  cJSON_AddNumberToObject(r, "runs", b->runs);
  cJSON_AddNumberToObject(r, "workspace_bytes", (double)b->call.ws_bytes);
  cJSON_AddNumberToObject(r, "weights_bytes", (double)b->call.model->weights_bytes);
  cJSON_AddNumberToObject(r, "load_ms", b->s.seconds_load * 1e3);
  if (b->s.mod) cJSON_AddNumberToObject(r, "compile_ms", b->s.seconds_compile * 1e3);
  char *text = cJSON_PrintUnformatted(r);
  if (text) puts(text);
  cJSON_free(text);
  cJSON_Delete(r);
}

static void print_text(const bench *b) {
  printf("median_ms %.4f  min_ms %.4f  p99_ms %.4f  threads %u  runs %u\n", median_ms(b), ms(b->ns[0]), p99_ms(b),
         b->threads, b->runs);
  printf("workspace %" PRIu64 " bytes  weights %" PRIu64 " bytes  load %.3f ms", b->call.ws_bytes,
         b->call.model->weights_bytes, b->s.seconds_load * 1e3);
  if (b->s.mod) printf("  compile %.0f ms", b->s.seconds_compile * 1e3);
  putchar('\n');
}

static zn_status run(bench *b) {
  zn_ctx *c = b->c;
  zn_htensor *in;
  if (!zn_session_is_native(&b->s)) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "target %s is not for timing", b->s.target->name);
    zn_help(c, "use --target=cpu or --target=c");
    return ZN_ERR_USAGE;
  }
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  int64_t t = zn_opt_int(b->o, ZN_O_threads, 1);
  b->threads = t <= 0 ? (unsigned)(cpus > 0 ? cpus : 1) : (unsigned)t;
  ZN_TRY(zn_native_set_threads(c, b->s.exec, b->threads));
  ZN_TRY(zn_inputs_make(c, b->o, &c->perm, b->s.in, b->s.num_in, b->s.graph,
                        (uint64_t)zn_opt_int(b->o, ZN_O_random, 0), 1, &in));
  ZN_TRY(zn_native_prepare(c, b->s.exec, &c->perm, in, &b->call));
  ZN_TRY(measure(b));
  if (zn_opt_given(b->o, ZN_O_json)) print_json(b);
  else print_text(b);
  if (!zn_opt_given(b->o, ZN_O_profile)) return ZN_OK;
  return zn_profile_print(c, &b->s, &b->call, b->threads, b->runs < 200 ? b->runs : 200);
}

int zn_cmd_bench(zn_ctx *c, const zn_opts *o) {
  bench b = {.c = c, .o = o};
  if (o->num_args != 1) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "expected one model or artifact, got %u", o->num_args);
    return 2;
  }
  c->file = o->args[0];
  zn_status st = zn_session_open(c, o, o->args[0], &b.s);
  if (st != ZN_OK) return zn_exit_code(st);
  st = run(&b);
  zn_session_close(&b.s);
  return zn_exit_code(st);
}
