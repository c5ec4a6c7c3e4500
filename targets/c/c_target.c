/* The c target: one freestanding C99 file and its typed header per model. It needs no toolchain to
 * build; running goes through the host's C compiler into a temporary shared object, which the
 * native loader opens. */
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "codegen/cstyle/cstyle.h"
#include "targets/caps_groups.h"
#include "targets/native.h"
#include "zenithc/base/file.h"

/* Constants below this size are literals in the C file; above it they go to a companion .bin file.
 */
enum { LITERAL_LIMIT = 1 << 20 };

typedef struct arch_row {
  zn_caps caps;
  const char *cflags; /* what the file must be compiled with beyond -O2 */
  const char *host;   /* "x86_64", "aarch64", "any": where it can run; NULL: nowhere we know */
} arch_row;

#define CACHES(one, two) .target = "c", .l1_bytes = (one) << 10, .l2_bytes = (two) << 10
#define THUMB "-mthumb -mfloat-abi=hard"

static const arch_row archs[] = {
    {{.arch = "generic", ZN_CAPS_WIDE, .vector_bytes = 16, .vector_regs = 16, .dot2 = true, CACHES(32, 512)},
     "-Wno-psabi", "any"},
    {{.arch = "x86-64-v3", ZN_CAPS_AVX2, .dot4 = ZN_DOT4_PAIRS, .feature_bits = ZN_FEATS_V3, CACHES(32, 1024)},
     "-march=x86-64-v3 -Wno-psabi", "x86_64"},
    {{.arch = "aarch64", ZN_CAPS_NEON_PLAIN, CACHES(32, 512)}, "", "aarch64"},
    {{.arch = "armv8.2-a+dotprod", ZN_CAPS_NEON_DOT, CACHES(32, 512)}, "-march=armv8.2-a+dotprod", "aarch64"},
    {{.arch = "armv8.6-a", ZN_CAPS_NEON_I8MM, CACHES(32, 512)}, "-march=armv8.6-a", "aarch64"},
    {{.arch = "cortex-m4", ZN_CAPS_CORTEX_M, .cores = 1, CACHES(16, 64)}, "-mcpu=cortex-m4 " THUMB " -mfpu=fpv4-sp-d16", NULL},
    {{.arch = "cortex-m7", ZN_CAPS_CORTEX_M, .f64_native = true, .cores = 1, CACHES(16, 128)},
     "-mcpu=cortex-m7 " THUMB " -mfpu=fpv5-d16", NULL},
    {{.arch = "cortex-m33", ZN_CAPS_CORTEX_M, .cores = 1, CACHES(16, 64)}, "-mcpu=cortex-m33 " THUMB " -mfpu=fpv5-sp-d16", NULL},
    {{.arch = "cortex-m55", ZN_CAPS_HELIUM, .cores = 1, CACHES(16, 128)}, "-mcpu=cortex-m55 " THUMB, NULL},
    {{.arch = "scalar32", .idx_bytes = 4, .cores = 1, CACHES(16, 64)}, "", NULL},
};
enum { NUM_ARCHS = sizeof archs / sizeof archs[0] };

static bool host_is(const char *host) {
#if defined(__x86_64__)
  return !strcmp(host, "any") || !strcmp(host, "x86_64");
#elif defined(__aarch64__)
  return !strcmp(host, "any") || !strcmp(host, "aarch64");
#else
  return !strcmp(host, "any");
#endif
}

static bool cpu_has(uint32_t features) {
#if defined(__x86_64__)
  if ((features & ZN_FEATS_V3) == ZN_FEATS_V3) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return features == 0;
}

static const arch_row *find_arch(const char *name) {
  if (!strcmp(name, "native")) {
    const arch_row *best = &archs[0];
    for (int i = 1; i < NUM_ARCHS; i++)
      if (archs[i].host && host_is(archs[i].host) && cpu_has(archs[i].caps.feature_bits))
        best = &archs[i];
    return best;
  }
  for (int i = 0; i < NUM_ARCHS; i++)
    if (!strcmp(name, archs[i].caps.arch)) return &archs[i];
  return NULL;
}

static const char arch_list[] = "generic x86-64-v3 aarch64 armv8.2-a+dotprod armv8.6-a cortex-m4 cortex-m7 cortex-m33 cortex-m55 "
                                "scalar32 native";

static zn_status c_caps(zn_ctx *c, const char *arch, zn_caps *out) {
  const arch_row *row = find_arch(arch ? arch : "generic");
  if (!row) {
    zn_status st = zn_fail(c, ZN_ERR_USAGE, NULL, "target c: unknown architecture '%s'", arch);
    zn_help(c, "known are: %s", arch_list);
    return st;
  }
  *out = row->caps;
  return ZN_OK;
}

/* ---- build ---- */

static const char *stem(zn_ctx *c, const char *path) {
  size_t n = strlen(path);
  if (n > 2 && !strcmp(path + n - 2, ".c")) n -= 2;
  return zn_arena_strndup(&c->tmp, path, n);
}

static zn_status c_build(zn_ctx *c, const zn_kmod *mod, const zn_caps *caps,
                         const zn_build_opts *o) {
  const arch_row *row = find_arch(caps->arch);
  const char *to = stem(c, o->out);
  zn_cprint_opts po = {.caps = caps, .cflags = row ? row->cflags : ""};
  if (zn_cprint_weights_bytes(mod) >= LITERAL_LIMIT) {
    const char *bin = zn_arena_printf(&c->tmp, "%s.bin", to);
    ZN_TRY(zn_cprint_weights(c, mod, bin));
    po.weights_file = zn_base_name(bin);
  }
  zn_arena text;
  zn_arena_init(&text, "c text");
  zn_text t;
  zn_text_init(&t, &text);
  zn_cprint_module(c, mod, &po, &t);
  zn_status st = zn_write_file(c, o->out, t.s, t.len);
  zn_arena_reset(&text);
  if (st != ZN_OK) return st;
  return zn_write_typed_header(c, mod, zn_arena_printf(&c->tmp, "%s.h", to));
}

/* ---- run, through the host's compiler ---- */

static const char *compiler(void) {
  const char *cc = getenv("CC");
  return cc && *cc ? cc : "cc";
}

static bool on_path(const char *program) {
  char path[4096];
  if (strchr(program, '/')) return access(program, X_OK) == 0;
  for (const char *p = getenv("PATH"); p && *p;) {
    size_t n = strcspn(p, ":");
    if (n + strlen(program) + 2 < sizeof path) {
      snprintf(path, sizeof path, "%.*s/%s", (int)n, p, program);
      if (access(path, X_OK) == 0) return true;
    }
    p += n + (p[n] == ':');
  }
  return false;
}

static bool c_can_run(const zn_caps *caps, const char **why) {
  const arch_row *row = find_arch(caps->arch);
  char first[256];
  snprintf(first, sizeof first, "%.*s", (int)strcspn(compiler(), " "), compiler());
  if (!row || !row->host || !host_is(row->host))
    *why = "the file is for another processor than this one";
  else if (!cpu_has(caps->feature_bits))
    *why = "this processor lacks AVX2 or FMA";
  else if (!on_path(first))
    *why = "no C compiler: install one, or name it in the environment variable CC";
  else
    return true;
  return false;
}

/* The flags after "Compile with" in the file's first comment; only what selects a processor is
 * taken. */
static uint32_t read_cflags(zn_ctx *c, const char *path, char **argv, uint32_t room) {
  char head[2048];
  FILE *f = fopen(path, "rb");
  size_t n = f ? fread(head, 1, sizeof head - 1, f) : 0;
  if (f) fclose(f);
  head[n] = 0;
  uint32_t count = 0;
  char *p = strstr(head, "Compile with "), *save = NULL;
  if (!p) return 0;
  p[strcspn(p, "\n")] = 0;
  for (p = strtok_r(p, " ", &save); p && count < room; p = strtok_r(NULL, " ", &save))
    if (!strncmp(p, "-m", 2)) argv[count++] = zn_arena_strdup(&c->tmp, p);
  return count;
}

static zn_status run_compiler(zn_ctx *c, const char *source, const char *object) {
  char *argv[48], *cc = zn_arena_strdup(&c->tmp, compiler()), *save = NULL;
  uint32_t n = 0;
  for (char *w = strtok_r(cc, " ", &save); w && n < 16; w = strtok_r(NULL, " ", &save))
    argv[n++] = w;
  const char *slash = strrchr(source, '/');
  int dir_len = slash ? (int)(slash - source) : 1;
  n += read_cflags(c, source, argv + n, 16);
  const char *const fixed[] = {"-O2", "-Wno-psabi", "-fPIC", "-shared", "-w", "-DZN_MODEL_MAIN",
                               "-o",  object,       source};
  for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
    argv[n++] = zn_arena_strdup(&c->tmp, fixed[i]);
  argv[n++] = zn_arena_printf(&c->tmp, "-Wa,-I%.*s", dir_len, slash ? source : ".");
  argv[n] = NULL;
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    execvp(argv[0], argv);
    _exit(127);
  }
  int status = 0;
  if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return zn_fail(c, ZN_ERR_USAGE, NULL, "%s: '%s' could not compile it (status %d)", source,
                   argv[0], WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  return ZN_OK;
}

static zn_status c_load(zn_ctx *c, const zn_kmod *mod, const char *path, zn_exec **out) {
  const char *tmp = getenv("TMPDIR");
  char *dir = zn_arena_printf(&c->tmp, "%s/zenith-XXXXXX", tmp && *tmp ? tmp : "/tmp");
  if (!mkdtemp(dir))
    return zn_fail(c, ZN_ERR_IO, NULL, "%s: cannot make a temporary directory", dir);
  const char *so = zn_arena_printf(&c->tmp, "%s/model.so", dir);
  zn_status st = run_compiler(c, path, so);
  if (st == ZN_OK) st = zn_native_load(c, mod, so, out);
  unlink(so); /* an opened object stays mapped */
  rmdir(dir);
  return st;
}

static const char *const suffixes[] = {".c", NULL};

const zn_target zn_target_c = {
    .name = "c",
    .doc = "one freestanding C99 file and a typed header: any compiler, any processor",
    .suffixes = suffixes,
    .archs = arch_list,
    .caps = c_caps,
    .build = c_build,
    .can_run = c_can_run,
    .load = c_load,
    .run = zn_native_run,
    .unload = zn_native_unload,
};
