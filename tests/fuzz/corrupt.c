/* corrupt [-n N] [-s SEED] [-d DIR] MODELS -- CMD ARGS...: runs "CMD ARGS... FILE" on N seeded corruptions of the models
 * below MODELS (model.onnx files), each in a child with 1 GiB of address space and a time limit. The command must end with
 * exit code 0, 1 or 2 (the last two with a message on stderr), never by a signal. Exit 1 when one did not; the file stays. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_FILES = 256, SECONDS = 20 };

typedef struct blob {
  uint8_t *p;
  size_t n;
} blob;

typedef struct spots { /* offsets of tags and of length fields */
  size_t *tag, *len;
  size_t num_tag, num_len, cap;
} spots;

static uint64_t rng;
static uint64_t rnd(void) { /* splitmix64 */
  uint64_t z = (rng += 0x9e3779b97f4a7c15u);
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}
static size_t below(size_t n) { return n ? (size_t)(rnd() % n) : 0; }

static bool read_all(const char *path, blob *b) {
  FILE *f = fopen(path, "rb");
  if (!f) return false;
  fseek(f, 0, SEEK_END);
  long n = ftell(f);
  rewind(f);
  b->n = n > 0 ? (size_t)n : 0;
  b->p = malloc(b->n + 1);
  bool ok = b->p && fread(b->p, 1, b->n, f) == b->n;
  fclose(f);
  return ok;
}

static bool varint(const uint8_t *p, size_t n, size_t *at, uint64_t *v) {
  *v = 0;
  for (int s = 0; s < 64 && *at < n; s += 7) {
    uint8_t b = p[(*at)++];
    *v |= (uint64_t)(b & 127) << s;
    if (!(b & 128)) return true;
  }
  return false;
}

/* Is p[0..n) a message? Notes the places of its fields, and of the messages in it. */
static bool scan(const uint8_t *p, size_t n, size_t base, spots *s, int depth) {
  size_t tags = s->num_tag, lens = s->num_len, at = 0;
  while (at < n) {
    uint64_t tag, v = 0;
    size_t start = at, here;
    bool ok = varint(p, n, &at, &tag) && tag >> 3 > 0 && tag >> 3 < 100;
    unsigned wire = (unsigned)(tag & 7);
    here = at;
    if (ok && wire == 0) ok = varint(p, n, &at, &v);
    else if (ok && (wire == 1 || wire == 5)) at += wire == 1 ? 8 : 4;
    else if (ok && wire == 2) ok = varint(p, n, &at, &v) && v <= n - at;
    else ok = false;
    if (!ok || at > n) {
      s->num_tag = tags;
      s->num_len = lens;
      return false;
    }
    if (s->num_tag < s->cap) s->tag[s->num_tag++] = base + start;
    if (wire != 2) continue;
    if (s->num_len < s->cap) s->len[s->num_len++] = base + here;
    if (depth < 40 && v > 1 && v < 1u << 22) scan(p + at, (size_t)v, base + at, s, depth + 1);
    at += (size_t)v;
  }
  return true;
}

static size_t place(const blob *b, const spots *s) {
  if (s->num_tag && rnd() % 4) return s->tag[below(s->num_tag)] + below(6);
  return below(b->n);
}

static void edit_length(blob *b, const spots *s) {
  if (!s->num_len) return;
  size_t at = s->len[below(s->num_len)];
  static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 0x07};
  switch (below(4)) {
    case 0: b->p[at] = (uint8_t)(b->p[at] + 1); break;
    case 1: b->p[at] = (uint8_t)(b->p[at] - 1); break;
    case 2: b->p[at] = (uint8_t)rnd(); break;
    default:
      if (at + sizeof huge < b->n) memcpy(b->p + at, huge, sizeof huge);
  }
}

/* A copy of `from` with one to four corruptions. */
static blob corrupt(const blob *from, const blob *other, const spots *s) {
  blob b = {malloc(from->n + other->n + 8192), from->n};
  memcpy(b.p, from->p, from->n);
  for (size_t k = 1 + below(4); k-- && b.n > 16;) {
    size_t at = place(&b, s), n = 1 + below(rnd() % 3 ? 64 : 4096), src;
    if (at >= b.n) at = b.n - 1;
    switch (below(7)) {
      case 0:
      case 1: b.p[at] = (uint8_t)(b.p[at] ^ 1u << below(8)); break;
      case 2: b.p[at] = (uint8_t)rnd(); break;
      case 3: b.n = at + 1; break;
      case 4: /* remove a piece */
        if (n > b.n - at) n = b.n - at;
        memmove(b.p + at, b.p + at + n, b.n - at - n);
        b.n -= n;
        break;
      case 5: /* insert a piece of a model */
        src = below(other->n);
        if (n > other->n - src) n = other->n - src;
        if (b.n + n > from->n + 8192) break;
        memmove(b.p + at + n, b.p + at, b.n - at);
        memcpy(b.p + at, other->p + src, n);
        b.n += n;
        break;
      default: edit_length(&b, s);
    }
    if (k && rnd() % 2) break; /* places are of the original: shifted ones are random enough */
  }
  return b;
}

/* 0 fine, else what is wrong. */
static const char *run(char **cmd, const char *file, const char *log, int *out_status) {
  pid_t pid = fork();
  if (pid == 0) {
    struct rlimit as = {(rlim_t)1 << 30, (rlim_t)1 << 30}, cpu = {SECONDS, SECONDS}, core = {0, 0};
    int n = 0, fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0644), null = open("/dev/null", O_WRONLY);
    char *argv[64];
    while (cmd[n] && n < 60) argv[n] = cmd[n], n++;
    argv[n] = (char *)(uintptr_t)file;
    argv[n + 1] = NULL;
    setrlimit(RLIMIT_AS, &as);
    setrlimit(RLIMIT_CPU, &cpu);
    setrlimit(RLIMIT_CORE, &core);
    dup2(null, 1);
    dup2(fd, 2);
    alarm(4 * SECONDS);
    execvp(argv[0], argv);
    _exit(127);
  }
  int st = 0;
  struct stat ls;
  while (waitpid(pid, &st, 0) < 0 && errno == EINTR) {}
  *out_status = st;
  if (WIFSIGNALED(st)) return WTERMSIG(st) == SIGXCPU || WTERMSIG(st) == SIGALRM || WTERMSIG(st) == SIGKILL ? "time" : "signal";
  if (WEXITSTATUS(st) > 2) return "exit code";
  if (WEXITSTATUS(st) && (stat(log, &ls) != 0 || ls.st_size == 0)) return "no message";
  return NULL;
}

static size_t load_models(const char *dir, blob *out) {
  struct dirent **names;
  int n = scandir(dir, &names, NULL, alphasort);
  size_t count = 0;
  for (int i = 0; i < n; i++) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s/model.onnx", dir, names[i]->d_name);
    if (count < MAX_FILES && access(path, R_OK) == 0 && read_all(path, &out[count]) && out[count].n < 8u << 20) count++;
    free(names[i]);
  }
  return count;
}

int main(int argc, char **argv) {
  size_t n = 1000, bad = 0, codes[3] = {0, 0, 0};
  uint64_t seed = 1;
  const char *dir = ".", *models = NULL;
  int i = 1;
  for (; i < argc && strcmp(argv[i], "--"); i++) {
    if (!strcmp(argv[i], "-n") && i + 1 < argc) n = strtoull(argv[++i], NULL, 10);
    else if (!strcmp(argv[i], "-s") && i + 1 < argc) seed = strtoull(argv[++i], NULL, 10);
    else if (!strcmp(argv[i], "-d") && i + 1 < argc) dir = argv[++i];
    else models = argv[i];
  }
  static blob files[MAX_FILES];
  static spots at[MAX_FILES];
  size_t count = models ? load_models(models, files) : 0;
  if (i + 1 >= argc || !count) {
    fprintf(stderr, "usage: corrupt [-n N] [-s SEED] [-d DIR] MODELS -- CMD ARGS...\n");
    return 2;
  }
  for (size_t k = 0; k < count; k++) {
    at[k].cap = 200000;
    at[k].tag = malloc(at[k].cap * sizeof(size_t));
    at[k].len = malloc(at[k].cap * sizeof(size_t));
    scan(files[k].p, files[k].n, 0, &at[k], 0);
  }
  char file[1024], log[1024];
  for (size_t k = 0; k < n; k++) {
    rng = seed * 1000003 + k;
    size_t which = below(count);
    blob b = corrupt(&files[which], &files[below(count)], &at[which]);
    snprintf(file, sizeof file, "%s/corrupt-%llu-%zu.onnx", dir, (unsigned long long)seed, k);
    snprintf(log, sizeof log, "%s/corrupt-%llu.log", dir, (unsigned long long)seed);
    FILE *f = fopen(file, "wb");
    if (!f || fwrite(b.p, 1, b.n, f) != b.n || fclose(f) != 0) {
      fprintf(stderr, "corrupt: cannot write %s\n", file);
      return 2;
    }
    free(b.p);
    int st;
    const char *wrong = run(argv + i + 1, file, log, &st);
    if (wrong) {
      printf("%s: %s (%s %d)\n", file, wrong,
             WIFSIGNALED(st) ? "signal" : "exit", WIFSIGNALED(st) ? WTERMSIG(st) : WEXITSTATUS(st));
      fflush(stdout);
      bad++;
    } else {
      codes[WEXITSTATUS(st)]++;
      unlink(file);
    }
  }
  printf("corrupt: %zu files: %zu accepted, %zu refused as models, %zu otherwise, %zu wrong\n",
         n, codes[0], codes[1], codes[2], bad);
  return bad != 0;
}
