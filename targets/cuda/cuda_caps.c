/* Generations of NVIDIA GPUs that kernels can be compiled for, and whether this machine has one. */
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "targets/cpu/cpu.h"
#include "targets/cuda/cuda.h"

typedef struct arch_row {
  const char *name;
  unsigned sm, cores;    /* cores: multiprocessors of the usual part */
  uint64_t shared_bytes; /* that one block may have */
} arch_row;

static const arch_row archs[] = {{"sm_75", 75, 40, 64 << 10},     {"sm_80", 80, 108, 163 << 10},
                                 {"sm_86", 86, 84, 99 << 10},     {"sm_87", 87, 16, 163 << 10},
                                 {"sm_89", 89, 128, 99 << 10},    {"sm_90", 90, 132, 227 << 10},
                                 {"sm_90a", 90, 132, 227 << 10},  {"sm_100", 100, 148, 227 << 10},
                                 {"sm_100a", 100, 148, 227 << 10}, {"sm_103", 103, 148, 227 << 10},
                                 {"sm_110", 110, 20, 227 << 10},  {"sm_120", 120, 170, 99 << 10},
                                 {"sm_121", 121, 48, 99 << 10}};
enum { NUM_ARCHS = sizeof archs / sizeof archs[0] };

/* The driver, for questions only. */
typedef struct asker {
  void *handle;
  int (*init)(unsigned flags);
  int (*count)(int *out);
  int (*get)(int *out, int ordinal);
  int (*attribute)(int *out, int attribute, int device);
} asker;

static bool open_asker(asker *a) {
  a->handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!a->handle) return false;
  *(void **)&a->init = dlsym(a->handle, "cuInit");
  *(void **)&a->count = dlsym(a->handle, "cuDeviceGetCount");
  *(void **)&a->get = dlsym(a->handle, "cuDeviceGet");
  *(void **)&a->attribute = dlsym(a->handle, "cuDeviceGetAttribute");
  return a->init && a->count && a->get && a->attribute;
}

/* Why no device can be used: the driver's own codes (CUresult), and two of ours for what comes before it answers. */
enum { ASK_NO_DRIVER = -1, ASK_NO_ANSWER = -2 };

static const struct {
  int code;
  const char *text;
} reasons[] = {
    {ASK_NO_DRIVER, "no CUDA driver (libcuda.so.1)"},
    {2, "the CUDA driver has no memory (error 2): is the address space limited?"},
    {100, "the CUDA driver finds no device (error 100)"},
    {304, "the CUDA driver cannot use the system (error 304): are /dev/nvidia* there?"},
    {802, "the CUDA driver waits for the system's fabric manager (error 802)"},
    {803, "libcuda.so.1 and the kernel's driver differ in version (error 803)"},
    {999, "the CUDA driver does not start (error 999)"},
};

static const char *reason_of(int code) {
  for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
    if (reasons[i].code == code) return reasons[i].text;
  return "the CUDA driver does not answer";
}

typedef struct answer {
  int sm;   /* generation of the first device: 90 */
  int code; /* or, with sm 0, why there is none */
} answer;

static answer ask_driver(void) {
  asker a = {0};
  int n = 0, dev, major = 0, minor = 0, e;
  if (!open_asker(&a)) return (answer){0, ASK_NO_DRIVER};
  if ((e = a.init(0)) != 0 || (e = a.count(&n)) != 0) return (answer){0, e};
  if (n == 0) return (answer){0, 100};
  if ((e = a.get(&dev, 0)) != 0 || (e = a.attribute(&major, 75, dev)) != 0 || (e = a.attribute(&minor, 76, dev)) != 0)
    return (answer){0, e};
  return (answer){10 * major + minor, 0};
}

/* Generation of the first device, or 0 with the reason. A process of its own asks: one that has started the driver cannot fork
 * processes that use it, as `check` does. */
static unsigned first_device(const char **why) {
  int fd[2], status;
  answer got = {0, ASK_NO_ANSWER};
  if (pipe(fd) == 0) {
    pid_t pid = fork();
    if (pid == 0) {
      got = ask_driver();
      _exit(write(fd[1], &got, sizeof got) != sizeof got);
    }
    close(fd[1]);
    if (pid > 0 && read(fd[0], &got, sizeof got) != sizeof got) got = (answer){0, ASK_NO_ANSWER};
    close(fd[0]);
    if (pid > 0) waitpid(pid, &status, 0);
  }
  *why = got.sm > 0 ? NULL : reason_of(got.code);
  return got.sm > 0 ? (unsigned)got.sm : 0;
}

static const arch_row *find_arch(const char *name) {
  for (int i = 0; i < NUM_ARCHS; i++)
    if (!strcmp(archs[i].name, name)) return &archs[i];
  return NULL;
}

static const arch_row *native_arch(zn_ctx *c) {
  const char *why;
  unsigned sm = first_device(&why);
  const arch_row *best = NULL;
  for (int i = 0; i < NUM_ARCHS; i++)
    if (archs[i].sm <= sm && (!best || archs[i].sm > best->sm)) best = &archs[i];
  if (best) return best;
  zn_fail(c, ZN_ERR_USAGE, "--arch", "native: %s", why ? why : "the device is older than sm_75");
  zn_help(c, "name the device's generation: --arch=sm_90a");
  return NULL;
}

zn_status zn_cuda_caps(zn_ctx *c, const char *arch, zn_caps *out) {
  const arch_row *a = !arch ? find_arch("sm_80") : !strcmp(arch, "native") ? native_arch(c) : find_arch(arch);
  if (!a && arch && !strcmp(arch, "native")) return ZN_ERR_USAGE;
  if (!a)
    return zn_fail(c, ZN_ERR_USAGE, "--arch", "target cuda has no architecture '%s'; it knows sm_75 to sm_121, native",
                   arch);
  *out = (zn_caps){.target = "cuda",
                   .arch = a->name,
                   .triple = "x86_64-unknown-linux-gnu", /* of the host code */
                   .cpu = "x86-64",
                   .features = "",
                   .idx_bytes = 8,
                   .fma = true,
                   .f16_convert = true,
                   .round_native = true,
                   .f64_native = true,
                   .l1_bytes = 128 << 10,
                   .l2_bytes = 4 << 20,
                   .simt = true,
                   .sm = a->sm,
                   .mma = a->sm >= 80,
                   .group_mma = !strcmp(a->name, "sm_90a"),
                   .launch = 2500,
                   .cores = a->cores,
                   .warp = 32,
                   .team_max = 1024,
                   .shared_bytes = a->shared_bytes};
  zn_caps *host = ZN_NEW(&c->perm, zn_caps);
  ZN_TRY(zn_cpu_caps(c, out->cpu, host));
  out->host = host;
  return ZN_OK;
}

bool zn_cuda_can_run(const zn_caps *caps, const char **why) {
  unsigned sm = first_device(why);
  if (sm == 0) return false;
  if (sm >= caps->sm) return true;
  *why = "this machine's GPU is older than the chosen --arch (try --arch=native)";
  return false;
}
