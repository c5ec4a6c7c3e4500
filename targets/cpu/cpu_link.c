/* Shared objects through a linker run as a program (no shell), and one-member archives written here. Both depend on
 * their inputs only: no build id, no time, no owner. */
#include <errno.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "targets/cpu/cpu.h"
#include "zenithc/base/file.h"
#include "zenithc/base/text.h"

extern char **environ;

/* Finds name in PATH; NULL when it is not there. */
static const char *find_program(zn_arena *a, const char *name) {
  const char *p = getenv("PATH");
  while (p && *p) {
    const char *e = strchr(p, ':');
    size_t n = e ? (size_t)(e - p) : strlen(p);
    const char *full = zn_arena_printf(a, "%.*s/%s", n ? (int)n : 1, n ? p : ".", name);
    if (access(full, X_OK) == 0) return full;
    p = e ? e + 1 : NULL;
  }
  return NULL;
}

static const char *find_linker(zn_arena *a) {
  static const char *const names[] = {"ld.lld-19", "ld.lld", "ld"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *p = find_program(a, names[i]);
    if (p) return p;
  }
  return NULL;
}

static void read_all(int fd, zn_text *out) {
  char buf[4096];
  ssize_t n;
  while ((n = read(fd, buf, sizeof buf)) > 0 || (n < 0 && errno == EINTR))
    if (n > 0) zn_text_put(out, buf, (size_t)n);
}

enum { SIGNALLED = 128 };

/* Runs argv, collecting what it says. Returns its exit status, or -1 with errno. */
static int run_program(char *const argv[], zn_text *out) {
  int fd[2];
  if (pipe(fd) != 0) return -1;
  posix_spawn_file_actions_t act;
  posix_spawn_file_actions_init(&act);
  posix_spawn_file_actions_adddup2(&act, fd[1], 1);
  posix_spawn_file_actions_adddup2(&act, fd[1], 2);
  posix_spawn_file_actions_addclose(&act, fd[0]);
  pid_t pid;
  int e = posix_spawn(&pid, argv[0], &act, NULL, argv, environ);
  posix_spawn_file_actions_destroy(&act);
  close(fd[1]);
  if (e == 0) read_all(fd[0], out);
  close(fd[0]);
  if (e != 0) {
    errno = e;
    return -1;
  }
  int status;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : SIGNALLED;
}

zn_status zn_cpu_link(zn_ctx *c, const char *obj, const char *out) {
  const char *const objs[] = {obj, NULL};
  return zn_cpu_link_all(c, objs, true, out);
}

zn_status zn_cpu_link_all(zn_ctx *c, const char *const *objs, bool closed, const char *out) {
  const char *ld = find_linker(&c->tmp);
  if (!ld) {
    zn_fail(c, ZN_ERR_USAGE, out, "no linker found (looked for ld.lld-19, ld.lld and ld in PATH)");
    zn_help(c, "install one, e.g. `apt-get install lld-19`, or write an object with -o NAME.o");
    return ZN_ERR_USAGE;
  }
  const char *args[] = {ld, "-shared", "-nostdlib", "--build-id=none", "--hash-style=gnu",
                        "-z", "relro", "-z", "now", "-z", "noexecstack", "-z", closed ? "defs" : "undefs", "--gc-sections",
                        "-Bsymbolic", "-soname", zn_base_name(out), "-o", out};
  enum { N = sizeof args / sizeof *args, MOST = 8 };
  char *argv[N + MOST + 2];
  size_t n = 0;
  for (; n < N; n++) argv[n] = zn_arena_strdup(&c->tmp, args[n]);
  for (size_t i = 0; i < MOST && objs[i]; i++) argv[n++] = zn_arena_strdup(&c->tmp, objs[i]);
  argv[n] = NULL;
  zn_text said;
  zn_text_init(&said, &c->tmp);
  int rc = run_program(argv, &said);
  const bool lld = strstr(zn_base_name(ld), "lld") != NULL;
  if (rc == SIGNALLED && lld) { /* a full disk ends its writing through a map; without one it says so */
    argv[n++] = zn_arena_strdup(&c->tmp, "--no-mmap-output-file");
    argv[n] = NULL;
    zn_text_init(&said, &c->tmp);
    rc = run_program(argv, &said);
  }
  if (rc == 0) return ZN_OK;
  int e = errno;
  remove(out);
  if (rc < 0) return zn_fail(c, ZN_ERR_USAGE, out, "cannot run %s: %s", ld, strerror(e));
  zn_fail(c, ZN_ERR_USAGE, out, "%s failed (exit %d): %s", zn_base_name(ld), rc, said.s ? said.s : "");
  if (!lld) zn_help(c, "for another architecture than this machine's, install lld: `apt-get install lld-19`");
  return ZN_ERR_USAGE;
}

/* ---- archives ---- */

/* 60 bytes: name, date 0, owner 0, group 0, mode 644, size, `\n. */
static void put_header(FILE *f, const char *name, uint64_t size) {
  fprintf(f, "%-16s%-12d%-6d%-6d%-8s%-10llu`\n", name, 0, 0, 0, "100644", (unsigned long long)size);
}

static void put_be32(FILE *f, uint32_t v) {
  for (int s = 24; s >= 0; s -= 8) fputc((int)(v >> s & 255), f);
}

/* The symbol index "/": count, the member's offset once for each symbol, names. */
static void put_index(FILE *f, const char *const *symbols) {
  uint32_t n = 0, bytes = 4;
  for (; symbols[n]; n++) bytes += 4 + (uint32_t)strlen(symbols[n]) + 1;
  uint32_t pad = bytes & 1;
  put_header(f, "/", bytes + pad);
  put_be32(f, n);
  for (uint32_t i = 0; i < n; i++) put_be32(f, 8 + 60 + bytes + pad);
  for (uint32_t i = 0; i < n; i++) fwrite(symbols[i], 1, strlen(symbols[i]) + 1, f);
  if (pad) fputc(0, f);
}

static bool copy_member(FILE *in, FILE *f, uint64_t size) {
  char buf[65536];
  uint64_t done = 0;
  size_t n;
  while ((n = fread(buf, 1, sizeof buf, in)) > 0) {
    if (fwrite(buf, 1, n, f) != n) return false;
    done += n;
  }
  if (size & 1) fputc('\n', f);
  return done == size && !ferror(in);
}

zn_status zn_cpu_archive(zn_ctx *c, const char *obj, const char *member, const char *const *symbols,
                         const char *out) {
  FILE *in = fopen(obj, "rb"), *f = in ? fopen(out, "wb") : NULL;
  struct stat st;
  bool ok = in && f && fstat(fileno(in), &st) == 0;
  if (ok) {
    fputs("!<arch>\n", f);
    put_index(f, symbols);
    put_header(f, zn_arena_printf(&c->tmp, "%.15s/", member), (uint64_t)st.st_size);
    ok = copy_member(in, f, (uint64_t)st.st_size) && !ferror(f);
  }
  int e = errno;
  if (in) fclose(in);
  if (f && fclose(f) != 0) ok = false, e = errno;
  if (ok) return ZN_OK;
  if (f) remove(out);
  return zn_fail(c, ZN_ERR_IO, out, "cannot write the archive: %s", strerror(e));
}
