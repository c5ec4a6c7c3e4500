/* The tuning database: writers in parallel, winners, what is refused; and that an answer reaches the kernels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cli/tiny_model.h"
#include "zenithc/driver/compile.h"
#include "zenithc/ops/op.h"
#include "zenithc/tune/tunedb.h"

typedef struct fixture {
  zn_ctx c;
  char dir[64], path[96], msg[512];
} fixture;

static void keep(void *user, zn_severity sev, const char *line) {
  (void)sev;
  char *msg = user;
  size_t n = strlen(msg);
  snprintf(msg + n, 512 - n, "%s\n", line);
}

static int setup(void **state) {
  fixture *f = calloc(1, sizeof *f);
  zn_ctx_init(&f->c);
  f->c.sink = keep;
  f->c.sink_user = f->msg;
  strcpy(f->dir, "/tmp/zn-test-tune-XXXXXX");
  assert_non_null(mkdtemp(f->dir));
  snprintf(f->path, sizeof f->path, "%s/t.tune", f->dir);
  *state = f;
  return 0;
}

static int teardown(void **state) {
  fixture *f = *state;
  char model[96];
  snprintf(model, sizeof model, "%s/m.onnx", f->dir);
  remove(f->path);
  remove(model);
  assert_int_equal(rmdir(f->dir), 0); /* a journal would be left behind */
  zn_ctx_fini(&f->c);
  free(f);
  return 0;
}

static void put_for(fixture *f, uint32_t threads, const char *signature, const char *cpu, const char *knobs, double ratio,
                    double noise) {
  zn_tunedb *db;
  zn_tune_trial t = {signature, cpu, threads, knobs, ratio, noise, 1000, 20};
  assert_int_equal(zn_tunedb_open(&f->c, f->path, true, &db), ZN_OK);
  assert_int_equal(zn_tunedb_put(&f->c, db, &t, 1), ZN_OK);
  zn_tunedb_close(db);
}

static void put(fixture *f, const char *signature, const char *cpu, const char *knobs, double ratio, double noise) {
  put_for(f, 1, signature, cpu, knobs, ratio, noise);
}

static zn_status load_for(fixture *f, zn_tune_use use, zn_tune_table *out) {
  zn_tunedb *db;
  *f->msg = 0;
  ZN_TRY(zn_tunedb_open(&f->c, f->path, false, &db));
  zn_status st = zn_tunedb_load(&f->c, db, &use, out);
  zn_tunedb_close(db);
  return st;
}

static zn_status load(fixture *f, const char *cpu, zn_tune_table *out) {
  return load_for(f, (zn_tune_use){.cpu = cpu}, out);
}

/* Eight processes create one file and write: rows of their own, and one that all of them replace. */
static void test_parallel_writers(void **state) {
  enum { WRITERS = 8, ROWS = 25 };
  fixture *f = *state;
  zn_tune_table t;
  for (int w = 0; w < WRITERS; w++) {
    if (fork() != 0) continue;
    zn_tunedb *db;
    bool ok = zn_tunedb_open(&f->c, f->path, true, &db) == ZN_OK;
    for (int i = 0; i < ROWS && ok; i++) {
      char own[32];
      snprintf(own, sizeof own, "own %d %02d", w, i);
      zn_tune_trial rows[2] = {{own, "cpu", 1, "tile=1", 0.5, 0, 1, 9}, {"shared", "cpu", 1, "tile=2", 0.5, 0, 1, 9}};
      ok = zn_tunedb_put(&f->c, db, rows, 2) == ZN_OK;
    }
    if (ok) zn_tunedb_close(db);
    _exit(ok ? 0 : 1);
  }
  for (int w = 0; w < WRITERS; w++) {
    int status;
    wait(&status);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  assert_int_equal(load(f, NULL, &t), ZN_OK);
  assert_int_equal(t.num, WRITERS * ROWS + 1);
  int64_t v = 0;
  assert_true(zn_tune_find(&t, "own 7 24", "tile", &v) && v == 1);
  assert_true(zn_tune_find(&t, "shared", "tile", &v) && v == 2);
}

/* The fastest wins, when it is faster by more than its noise. */
static void test_winners(void **state) {
  fixture *f = *state;
  zn_tune_table t;
  int64_t v;
  put(f, "a", "cpu", "fetch=0 tile=4", 0.9, 0.01);
  put(f, "a", "cpu", "tile=5", 0.8, 0.2); /* all noise */
  put(f, "a", "cpu", "tile=6", 0.95, 0);
  put(f, "b", "cpu", "tile=7", 0.99, 0); /* not worth it */
  put(f, "c", "cpu", "tile=8", 1e9, 0);  /* does not work */
  put(f, "d", "cpu", "tile=9", 0.5, 0);
  put(f, "d", "cpu", "tile=9", 1.5, 0); /* measured again */
  assert_int_equal(load(f, "cpu", &t), ZN_OK);
  assert_int_equal(t.num, 1);
  assert_true(zn_tune_find(&t, "a", "tile", &v) && v == 4);
  assert_true(zn_tune_find(&t, "a", "fetch", &v) && v == 0);
  assert_false(zn_tune_find(&t, "a", "til", &v));
  assert_false(zn_tune_find(&t, "b", "tile", &v));
  assert_int_equal(load(f, "another", &t), ZN_ERR_USAGE);
  assert_non_null(strstr(f->msg, "nothing was measured on 'another'"));
  assert_non_null(strstr(f->msg, "--tune-cpu='cpu'"));
}

/* What wins with one thread need not win with eight: rows of their own, and a build says which it is for. */
static void test_threads(void **state) {
  fixture *f = *state;
  zn_tune_table t;
  int64_t v;
  put_for(f, 8, "a", "cpu", "tile=8", 0.8, 0);
  assert_int_equal(load(f, NULL, &t), ZN_OK); /* the only number */
  assert_true(zn_tune_find(&t, "a", "tile", &v) && v == 8);
  put_for(f, 1, "a", "cpu", "tile=8", 1.3, 0);
  put_for(f, 1, "a", "cpu", "tile=4", 0.9, 0);
  put_for(f, 2, "a", "another", "tile=2", 0.9, 0);
  assert_int_equal(load(f, "cpu", &t), ZN_ERR_USAGE);
  assert_non_null(strstr(f->msg, "--tune-threads=1"));
  assert_non_null(strstr(f->msg, "--tune-threads=8"));
  assert_null(strstr(f->msg, "--tune-threads=2"));
  for (uint32_t n = 1; n <= 8; n += 7) {
    assert_int_equal(load_for(f, (zn_tune_use){.cpu = "cpu", .threads = n}, &t), ZN_OK);
    assert_true(zn_tune_find(&t, "a", "tile", &v) && v == (n == 1 ? 4 : 8));
    assert_int_equal(load_for(f, (zn_tune_use){.cpu = "cpu", .likely = n}, &t), ZN_OK);
    assert_true(zn_tune_find(&t, "a", "tile", &v) && v == (n == 1 ? 4 : 8));
  }
  assert_int_equal(load_for(f, (zn_tune_use){.cpu = "cpu", .threads = 1, .likely = 8}, &t), ZN_OK);
  assert_true(zn_tune_find(&t, "a", "tile", &v) && v == 4);
  assert_int_equal(load_for(f, (zn_tune_use){.cpu = "another", .likely = 8}, &t), ZN_OK); /* the only number there */
  assert_true(zn_tune_find(&t, "a", "tile", &v) && v == 2);
  assert_int_equal(load_for(f, (zn_tune_use){.cpu = "cpu", .threads = 4}, &t), ZN_ERR_USAGE);
  assert_non_null(strstr(f->msg, "nothing was measured with 4 threads"));
  zn_tunedb *db;
  zn_tune_trial r = {"a", "cpu", 8, "tile=4", 0, 0, 0, 0};
  assert_int_equal(zn_tunedb_open(&f->c, f->path, false, &db), ZN_OK);
  assert_false(zn_tunedb_get(db, &r));
  r.threads = 1;
  assert_true(zn_tunedb_get(db, &r) && r.ratio > 0.89 && r.ratio < 0.91);
  zn_tunedb_close(db);
}

/* Files of schema 1 do not know the number: builds read them as they did, nobody adds to them. */
static void test_older_file(void **state) {
  fixture *f = *state;
  zn_tune_table t;
  int64_t v;
  zn_tunedb *db;
  sqlite3 *h;
  assert_int_equal(sqlite3_open(f->path, &h), SQLITE_OK);
  assert_int_equal(sqlite3_exec(h, "CREATE TABLE trial (signature TEXT NOT NULL, cpu TEXT NOT NULL, knobs TEXT NOT NULL,"
                                   " ratio REAL NOT NULL, noise REAL NOT NULL, usual_ns REAL NOT NULL, rounds INTEGER NOT NULL,"
                                   " PRIMARY KEY (signature, cpu, knobs)) WITHOUT ROWID; PRAGMA user_version = 1;"
                                   "INSERT INTO trial VALUES ('a', 'cpu', 'tile=4', 0.5, 0, 1, 9)", NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(h);
  for (uint32_t n = 0; n < 3; n++) {
    assert_int_equal(load_for(f, (zn_tune_use){.likely = n}, &t), ZN_OK);
    assert_true(t.num == 1 && zn_tune_find(&t, "a", "tile", &v) && v == 4);
  }
  assert_int_equal(load_for(f, (zn_tune_use){.threads = 2}, &t), ZN_ERR_USAGE);
  assert_non_null(strstr(f->msg, "does not say with how many threads"));
  *f->msg = 0;
  assert_int_equal(zn_tunedb_open(&f->c, f->path, true, &db), ZN_ERR_USAGE);
  assert_non_null(strstr(f->msg, "give another file"));
}

static void test_refusals(void **state) {
  fixture *f = *state;
  zn_tune_table t;
  assert_int_equal(load(f, NULL, &t), ZN_ERR_USAGE); /* no such file, and none is made */
  assert_non_null(strstr(f->msg, "zenithc tune"));
  assert_int_not_equal(access(f->path, F_OK), 0);
  FILE *out = fopen(f->path, "w");
  fputs("this is text, and it is long enough to be taken for a page of something else by nobody at all\n", out);
  fclose(out);
  assert_int_not_equal(load(f, NULL, &t), ZN_OK);
  remove(f->path);
  put(f, "a", "zen", "tile=4", 0.5, 0);
  put(f, "a", "lake", "tile=5", 0.5, 0);
  *f->msg = 0;
  assert_int_equal(load(f, NULL, &t), ZN_ERR_USAGE);
  assert_non_null(strstr(f->msg, "--tune-cpu='lake'"));
  assert_int_equal(load(f, "zen", &t), ZN_OK);
  assert_int_equal(t.num, 1);
}

/* ---- from the table to the kernels ---- */

typedef struct question {
  char signature[256];
  int64_t usual, other; /* of the knob "tile" */
  bool answer;
} question;

static void asked(void *user, const char *signature, const char *knob, int64_t usual, const int64_t *choices, uint32_t n) {
  question *q = user;
  if (strcmp(knob, "tile")) return;
  snprintf(q->signature, sizeof q->signature, "%s", signature);
  q->usual = usual;
  for (uint32_t i = 0; i < n; i++)
    if (choices[i] != usual && !q->answer) q->other = choices[i];
}

static bool answer(void *user, const char *signature, const char *knob, int64_t *out) {
  question *q = user;
  *out = q->other;
  return q->answer && !strcmp(knob, "tile") && !strcmp(signature, q->signature);
}

static const char *kernels(fixture *f, const char *model, int level, question *q) {
  zn_knobs knobs = {.find = answer, .asked = asked, .user = q};
  zn_compile_opts o = {.model = model, .name = "m", .target = zn_target_find("cpu"), .opt_level = level, .knobs = &knobs};
  o.onnx.infer_node = zn_infer_node;
  o.pass.rewrite_limit = -1;
  zn_compiled k;
  zn_text t;
  assert_int_equal(zn_compile(&f->c, &o, &k), ZN_OK);
  zn_text_init(&t, &f->c.perm);
  zn_kmod_print(k.mod, &t);
  return t.s;
}

static void test_answers(void **state) {
  fixture *f = *state;
  char model[96];
  snprintf(model, sizeof model, "%s/m.onnx", f->dir);
  pb p = tiny_model(4, "Relu");
  assert_int_equal(tiny_write(model, &p), 0);
  question q = {.answer = false};
  const char *usual = kernels(f, model, 2, &q);
  assert_non_null(strstr(q.signature, "Gemm"));
  assert_int_not_equal(q.other, q.usual);
  q.answer = true;
  const char *other = kernels(f, model, 2, &q);
  assert_string_not_equal(usual, other);
  assert_string_equal(kernels(f, model, 2, &q), other);
  q.other = 987654321; /* no choice of the schedule: the model decides */
  assert_string_equal(kernels(f, model, 2, &q), usual);
  q = (question){.answer = true};
  kernels(f, model, 1, &q);
  assert_string_equal(q.signature, ""); /* -O1 asks nobody */
}

int main(void) {
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
  const struct CMUnitTest tests[] = {T(test_parallel_writers), T(test_winners), T(test_threads), T(test_older_file),
                                     T(test_refusals), T(test_answers)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
