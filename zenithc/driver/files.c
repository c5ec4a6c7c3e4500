/* Files and folders. The temporary folder's name is the one piece of process state of the compiler: signal handlers
 * and exit need it to leave nothing behind. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "zenithc/driver/tools.h"

int64_t zn_file_size(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (int64_t)st.st_size : -1;
}

bool zn_is_dir(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool zn_is_special(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

bool zn_same_file(const char *a, const char *b) {
  struct stat x, y;
  return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

const char *zn_behind_links(zn_arena *a, const char *path) {
  struct stat st;
  char *real = lstat(path, &st) == 0 && S_ISLNK(st.st_mode) ? realpath(path, NULL) : NULL;
  if (!real) return path;
  path = zn_arena_strdup(a, real);
  free(real);
  return path;
}

zn_status zn_folder_option(zn_ctx *c, const char *option, const char *path) {
  if (!path || zn_is_dir(path) || access(path, F_OK) != 0) return ZN_OK;
  return zn_fail(c, ZN_ERR_USAGE, NULL, "%s %s: this is a file, and a folder is expected", option, path);
}

static int by_name(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

zn_status zn_list_dir(zn_ctx *c, zn_arena *a, const char *path, const char ***out_names, uint32_t *out_n) {
  const char **names = NULL;
  uint32_t n = 0, cap = 0;
  DIR *d = opendir(path);
  if (!d) return zn_fail(c, ZN_ERR_IO, path, "cannot be listed: %s", strerror(errno));
  for (struct dirent *e; (e = readdir(d));)
    if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) {
      const char *s = zn_arena_strdup(a, e->d_name);
      ZN_PUSH(a, names, n, cap, s);
    }
  closedir(d);
  if (n) qsort(names, n, sizeof *names, by_name);
  *out_names = names;
  *out_n = n;
  return ZN_OK;
}

/* ---- the temporary folder ---- */

static char tmp_dir[4096]; /* "" = none */
static volatile sig_atomic_t tmp_held;
static unsigned tmp_inner;

/* One level of files and one of folders is all that is ever made; only async-signal-safe calls but readdir's malloc,
 * which a fatal signal leaves no better way around. */
void zn_remove_tree(const char *path) {
  DIR *d = opendir(path);
  for (struct dirent *e; d && (e = readdir(d));) {
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    if (unlinkat(dirfd(d), e->d_name, 0) == 0) continue;
    char sub[4400];
    if (snprintf(sub, sizeof sub, "%s/%s", path, e->d_name) < (int)sizeof sub) zn_remove_tree(sub);
  }
  if (d) closedir(d);
  rmdir(path);
}

void zn_tmp_remove(void) {
  if (!tmp_held) return;
  tmp_held = 0;
  tmp_inner = 0;
  zn_remove_tree(tmp_dir);
}

void zn_tmp_disown(void) { tmp_held = 0; }

static void on_signal(int sig) {
  zn_tmp_remove();
  signal(sig, SIG_DFL);
  raise(sig);
}

static void install_cleanup(void) {
  static bool done;
  if (done) return;
  done = true;
  atexit(zn_tmp_remove);
  const int fatal[] = {SIGINT, SIGTERM, SIGHUP, SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
  struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
  for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) sigaction(fatal[i], &sa, NULL);
}

zn_status zn_tmp_make(zn_ctx *c, const char *near, const char **out_dir) {
  if (tmp_held) {
    char *dir = zn_arena_printf(&c->perm, "%s/%u", tmp_dir, tmp_inner++);
    if (mkdir(dir, 0700))
      return zn_fail(c, ZN_ERR_IO, dir, "cannot make a temporary folder: %s", strerror(errno));
    *out_dir = dir;
    return ZN_OK;
  }
  const char *base = near ? near : getenv("TMPDIR");
  if (!base || !*base) base = "/tmp";
  char path[sizeof tmp_dir];
  if ((size_t)snprintf(path, sizeof path, "%s/%szenithc-XXXXXX", base, near ? "." : "") >= sizeof path ||
      !mkdtemp(path)) {
    zn_fail(c, ZN_ERR_IO, base, "cannot make a temporary folder: %s", strerror(errno));
    if (near) zn_help(c, "artifacts are built beside OUT and moved into place; name an OUT in a folder that may be written");
    else zn_help(c, "name a writable folder in the environment variable TMPDIR");
    return ZN_ERR_IO;
  }
  memcpy(tmp_dir, path, sizeof tmp_dir);
  install_cleanup();
  tmp_held = 1;
  *out_dir = zn_arena_strdup(&c->perm, path);
  return ZN_OK;
}

static zn_status move(zn_ctx *c, const char *dir, const char *name, const char *to) {
  const char *from = zn_arena_printf(&c->tmp, "%s/%s", dir, name);
  if (rename(from, to) == 0) return ZN_OK;
  return zn_fail(c, ZN_ERR_IO, to, "cannot be written: %s", strerror(errno));
}

zn_status zn_tmp_publish(zn_ctx *c, const char *dir, const char *out) {
  const char **names, *base = zn_base_name(out);
  uint32_t n;
  ZN_TRY(zn_list_dir(c, &c->tmp, dir, &names, &n));
  for (uint32_t i = 0; i < n; i++)
    if (strcmp(names[i], base))
      ZN_TRY(move(c, dir, names[i],
                  zn_arena_printf(&c->tmp, "%.*s%s", (int)(base - out), out, names[i])));
  return move(c, dir, base, out);
}
