/* The command line's tables, the configuration file, identifiers, SHA-256, and failing allocations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cli/tiny_model.h"
#include "zenithc/driver/job.h"

static void keep_line(void *user, zn_severity sev, const char *line) {
  char *all = user;
  size_t n = strlen(all);
  (void)sev;
  snprintf(all + n, 4000 - n, "%s\n", line);
}

typedef struct fix {
  zn_ctx c;
  zn_opts o;
  char said[4000];
} fix;

static void begin(fix *f) {
  memset(f, 0, sizeof *f);
  zn_ctx_init(&f->c);
  f->c.sink = keep_line;
  f->c.sink_user = f->said;
}

static zn_status parse(fix *f, const char *line) {
  char *argv[32];
  int argc = 0;
  char *copy = zn_arena_strdup(&f->c.perm, line), *save = NULL;
  for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) argv[argc++] = w;
  return zn_opts_parse(&f->c, argc, argv, &f->o);
}

static void test_table(void **state) {
  (void)state;
  for (unsigned i = 0; i < ZN_O_COUNT; i++) {
    const zn_optdef *d = &zn_optdefs[i];
    assert_true(d->spelling[0] == '-' && d->doc[0] && d->cmds[0]);
    assert_true((d->kind == ZN_OK_FLAG) == (d->arg == NULL));
    for (const char *p = d->cmds; *p; p++) {
      bool known = false;
      for (unsigned k = 0; k < ZN_CMD_COUNT; k++) known = known || zn_cmddefs[k].letter == *p;
      assert_true(known);
    }
    for (unsigned j = 0; j < i; j++) assert_string_not_equal(d->spelling, zn_optdefs[j].spelling);
    assert_int_equal(
        zn_opt_find(d->spelling + strspn(d->spelling, "-"), strlen(d->spelling) - strspn(d->spelling, "-")), i);
  }
}

static void test_parse(void **state) {
  (void)state;
  fix f;
  begin(&f);
  assert_int_equal(parse(&f, "zenithc m.onnx -o out.so -O3 --dim batch=8 --dim=seq=1..4 --max-ram 64K --no-alloc -v"),
                   ZN_OK);
  assert_int_equal(f.o.cmd, ZN_CMD_compile);
  assert_string_equal(f.o.args[0], "m.onnx");
  assert_string_equal(zn_opt_str(&f.o, ZN_O_out), "out.so");
  assert_int_equal(zn_opt_int(&f.o, ZN_O_level, 1), 3);
  assert_int_equal(f.o.val[ZN_O_dim].n, 2);
  assert_string_equal(f.o.val[ZN_O_dim].v[1], "seq=1..4");
  assert_int_equal(zn_opt_bytes(&f.o, ZN_O_max_ram), 65536);
  assert_true(zn_opt_given(&f.o, ZN_O_no_alloc) && zn_opt_given(&f.o, ZN_O_verbose));
  assert_true(zn_opt_is(&f.o, ZN_O_math, "strict"));
  assert_string_equal(zn_opt_str(&f.o, ZN_O_target), "cpu");
  assert_int_equal(parse(&f, "zenithc check a b -- --c"), ZN_OK);
  assert_int_equal(f.o.cmd, ZN_CMD_check);
  assert_int_equal(f.o.num_args, 3);
  zn_ctx_fini(&f.c);
}

static void test_wrong(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"zenithc m --tarjet=cpu", "did you mean --target?"}, {"zenithc m -O7", "expected -O0"},
      {"zenithc m --max-ram=x", "expected a size"},         {"zenithc m --math=lose", "strict|fast"},
      {"zenithc m --dim batch", "expected NAME=VALUE"},     {"zenithc run m --report r", "does not belong"},
      {"zenithc m --no-alloc=1", "takes no value"},         {"zenithc bench m --runs -3", "a whole number"},
      {"zenithc m --target", "needs a value"},              {"zenithc m -x", "unknown option -x"},
      {"zenithc m --config /nonexistent.yaml", "cannot be read"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fix f;
    begin(&f);
    assert_int_not_equal(parse(&f, cases[i][0]), ZN_OK);
    if (!strstr(f.said, cases[i][1])) fail_msg("%s: said %s", cases[i][0], f.said);
    zn_ctx_fini(&f.c);
  }
}

static void test_bytes(void **state) {
  (void)state;
  uint64_t v;
  assert_true(zn_parse_bytes("4096", &v) && v == 4096);
  assert_true(zn_parse_bytes("1.5M", &v) && v == 1572864);
  assert_true(zn_parse_bytes("2GiB", &v) && v == 2147483648u);
  assert_false(zn_parse_bytes("", &v) || zn_parse_bytes("-1", &v) || zn_parse_bytes("1X", &v) ||
               zn_parse_bytes("1e30", &v));
}

static void test_nearest(void **state) {
  (void)state;
  const char *const words[] = {"check", "compile", "run"};
  assert_string_equal(zn_nearest("chekc", words, 3), "check");
  assert_string_equal(zn_nearest("complie", words, 3), "compile");
  assert_null(zn_nearest("zzzzzz", words, 3));
}

static void test_yaml(void **state) {
  (void)state;
  fix f;
  begin(&f);
  static const char text[] =
      "model: a.onnx\no: a.so\nO: 1\ndim: {batch: 8, seq: 1..4}\nshape:\n  - x=1x2\nno-alloc: yes\n"
      "runs: 5\ntarget: c\n";
  assert_int_equal(parse(&f, "zenithc --target=cpu"), ZN_OK);
  assert_int_equal(zn_opts_yaml(&f.c, &f.o, "z.yaml", text, sizeof text - 1), ZN_OK);
  assert_string_equal(f.o.args[0], "a.onnx");
  assert_string_equal(zn_opt_str(&f.o, ZN_O_target), "cpu"); /* the command line wins */
  assert_int_equal(zn_opt_int(&f.o, ZN_O_level, 2), 1);
  assert_int_equal(f.o.val[ZN_O_dim].n, 2);
  assert_string_equal(f.o.val[ZN_O_dim].v[1], "seq=1..4");
  assert_true(zn_opt_given(&f.o, ZN_O_no_alloc));
  static const char *const bad[][2] = {{"tarrget: c", "did you mean target"},
                                       {"- a", "NAME: VALUE"},
                                       {"a: [", "z.yaml:"},
                                       {"v: maybe", "true or false"},
                                       {"arch: {a: b}", "one value"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    f.said[0] = 0;
    assert_int_equal(zn_opts_yaml(&f.c, &f.o, "z.yaml", bad[i][0], strlen(bad[i][0])), ZN_ERR_USAGE);
    if (!strstr(f.said, bad[i][1])) fail_msg("%s: said %s", bad[i][0], f.said);
  }
  zn_ctx_fini(&f.c);
}

static void test_names(void **state) {
  (void)state;
  zn_arena a;
  zn_arena_init(&a, "test");
  assert_string_equal(zn_identifier_from_path(&a, "/x/My model-v2.onnx"), "my_model_v2");
  assert_string_equal(zn_identifier_from_path(&a, "7z.so"), "m7z");
  assert_string_equal(zn_suffix("a.b/c"), "");
  assert_string_equal(zn_suffix("a.b/c.tar.so"), ".so");
  assert_string_equal(zn_base_name("a/b.so"), "b.so");
  zn_arena_reset(&a);
}

static void test_sha256(void **state) {
  (void)state;
  char hex[65], text[200];
  zn_sha256("abc", 3, hex);
  assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  zn_sha256("", 0, hex);
  assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  zn_sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, hex);
  assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  memset(text, 'a', sizeof text);
  zn_sha256(text, 119, hex);
  assert_string_equal(hex, "31eba51c313a5c08226adf18d4a359cfdfd8d2e816b13f4af952f7ea6584dcfb");
}

/* ---- every allocation of a compilation fails once ---- */

static char folder[] = "/tmp/zn-driver-XXXXXX";

/* Exit code of a whole compilation (self-check included) whose n-th allocation fails; n 0: none. */
static int compile_failing_at(uint64_t n, const char *out, const char *target) {
  pid_t pid = fork();
  if (pid == 0) {
    char model[100], path[100];
    int null = open("/dev/null", O_WRONLY);
    snprintf(model, sizeof model, "%s/m.onnx", folder);
    snprintf(path, sizeof path, "%s/%s", folder, out);
    char *argv[] = {(char[]){"zenithc"},       model, (char[]){"-o"}, path, (char[]){"--target"},
                    (char *)(uintptr_t)target, NULL};
    zn_ctx c;
    zn_opts o;
    dup2(null, 2);
    zn_ctx_init(&c);
    zn_arena_fail_after(n);
    zn_status st = zn_opts_parse(&c, 6, argv, &o);
    exit(st == ZN_OK ? zn_cmd_compile(&c, &o) : 77);
  }
  int status = 0;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static unsigned files_in(const char *dir) {
  zn_ctx c;
  const char **names;
  uint32_t n = 0;
  zn_ctx_init(&c);
  assert_int_equal(zn_list_dir(&c, &c.perm, dir, &names, &n), ZN_OK);
  zn_ctx_fini(&c);
  return n;
}

static void out_of_memory(const char *out, const char *target, uint64_t dense, uint64_t step) {
  char path[100];
  uint64_t n = 1;
  snprintf(path, sizeof path, "%s/%s", folder, out);
  for (;; n += n < dense ? 1 : step) {
    int code = compile_failing_at(n, out, target);
    if (code == 0) break;
    if (code != 3) fail_msg("allocation %llu: exit code %d, expected 3", (unsigned long long)n, code);
    if (files_in(folder) != 1) /* the model; nothing half-written beside it */
      fail_msg("allocation %llu leaves files in %s", (unsigned long long)n, folder);
  }
  assert_true(n > 100 && zn_file_size(path) > 0);
  unlink(path);
  strcat(path, ".bin"); /* the companion of .zk */
  unlink(path);
}

static void test_oom_interp(void **state) {
  (void)state;
  out_of_memory("m.zk", "interp", 150, 23);
}

static void test_oom_cpu(void **state) {
  (void)state;
  out_of_memory("m.so", "cpu", 0, 211);
}

static int set_up(void **state) {
  (void)state;
  char path[100];
  pb p = tiny_model(2, "Relu");
  if (!mkdtemp(folder)) return 1;
  snprintf(path, sizeof path, "%s/m.onnx", folder);
  return tiny_write(path, &p);
}

static int tear_down(void **state) {
  (void)state;
  zn_remove_tree(folder);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_table),  cmocka_unit_test(test_parse),   cmocka_unit_test(test_wrong),
      cmocka_unit_test(test_bytes),  cmocka_unit_test(test_nearest), cmocka_unit_test(test_yaml),
      cmocka_unit_test(test_names),  cmocka_unit_test(test_sha256),  cmocka_unit_test(test_oom_interp),
      cmocka_unit_test(test_oom_cpu)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
