/* A check in a process of its own: generated code may crash, the compiler may find its own bug, either may hang. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/fuzz/graphs/fuzz.h"

enum { SECONDS = 20 };

static struct shared {
  char stage[24];
  fz_result result;
} *shared;

static void at_stage(const char *way) { snprintf(shared->stage, sizeof shared->stage, "%s", way); }

/* The line that names the bug, from what the child said. */
static void last_words(const char *path, char *out, size_t room) {
  char line[400];
  FILE *f = fopen(path, "r");
  out[0] = 0;
  while (f && fgets(line, sizeof line, f)) {
    line[strcspn(line, "\n")] = 0;
    if (!out[0] || strstr(line, "bug") || strstr(line, "Assert") || strstr(line, "rror:"))
      snprintf(out, room, "%.*s", (int)room - 1, line);
  }
  if (f) fclose(f);
}

void fz_apart(fz_job *job, const void *user, const fz_opts *o, fz_result *out) {
  char log[600];
  if (!shared)
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  memset(shared, 0, sizeof *shared);
  snprintf(log, sizeof log, "%s/%d.log", o->dir, (int)getpid());
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    struct rlimit as = {(rlim_t)6 << 30, (rlim_t)6 << 30}, core = {0, 0}, cpu = {SECONDS, SECONDS};
    setrlimit(RLIMIT_AS, &as);
    setrlimit(RLIMIT_CORE, &core);
    setrlimit(RLIMIT_CPU, &cpu);
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (!o->verbose) dup2(fd, 2);
    alarm(30 * SECONDS);
    fz_result r;
    job(user, o, at_stage, &r);
    shared->result = r;
    _exit(0);
  }
  int st = 0;
  while (waitpid(pid, &st, 0) < 0 && errno == EINTR) {}
  *out = shared->result;
  if (!WIFEXITED(st) || WEXITSTATUS(st)) {
    int sig = WIFSIGNALED(st) ? WTERMSIG(st) : 0;
    char words[240];
    last_words(log, words, sizeof words);
    out->outcome = sig == SIGALRM || sig == SIGXCPU || sig == SIGKILL ? FZ_HANG : FZ_CRASH;
    snprintf(out->way, sizeof out->way, "%s", shared->stage);
    if (sig) snprintf(out->what, sizeof out->what, "signal %d %s", sig, words);
    else snprintf(out->what, sizeof out->what, "exit %d %s", WEXITSTATUS(st), words);
  }
  unlink(log);
}

struct text {
  const char *zg;
  size_t n;
  uint64_t seed;
};

static void check_text(const void *user, const fz_opts *o, fz_stage *stage, fz_result *out) {
  const struct text *t = user;
  fz_check(t->zg, t->n, t->seed, o, out, stage);
}

void fz_check_apart(const char *zg, size_t n, uint64_t seed, const fz_opts *o, fz_result *out) {
  struct text t = {zg, n, seed};
  fz_apart(check_text, &t, o, out);
}
