/* Architectures of the cpu target, one row each, and what this machine can run. */
#if defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__riscv)
#include <unistd.h>
#elif defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "codegen/llvm/llvm_emit.h"
#include "targets/caps_groups.h"
#include "targets/cpu/cpu.h"

#define X86 "x86_64-unknown-linux-gnu"
#define A64 "aarch64-unknown-linux-gnu"
#define RV64 "riscv64-unknown-linux-gnu"
#define ARMV7EM "thumbv7em-none-unknown-eabihf"
#define ARMV8M "thumbv8m.main-none-unknown-eabihf"
#define ARMV81M "thumbv8.1m.main-none-unknown-eabihf"

/* Byte products of the CPUs named below: vpdpbusd on 256 bits (VEX), or on 512. */
#define AVXVNNI "+avxvnni"
#define AVX512VNNI "+avx512vnni"
#define AVX512BF16 AVX512VNNI ",+avx512bf16"
#define AMX AVX512BF16 ",+amx-tile,+amx-int8,+amx-bf16"

/* Where a row's code comes from, and its caches in KiB. */
#define FROM(t, c, f) .triple = t, .cpu = c, .features = f
#define CACHES(one, two) .l1_bytes = (one) << 10, .l2_bytes = (two) << 10

static const zn_caps rows[] = {
    {.arch = "x86-64", FROM(X86, "x86-64", ""), ZN_CAPS_WIDE, .vector_bytes = 16, .vector_regs = 16, CACHES(32, 256)},
    {.arch = "x86-64-v2", FROM(X86, "x86-64-v2", ""), ZN_CAPS_WIDE, .vector_bytes = 16, .vector_regs = 16, .round_native = true,
     .dot2 = true, .dot4 = ZN_DOT4_PAIRS, .feature_bits = ZN_FEATS_V2, CACHES(32, 256)},
    {.arch = "x86-64-v3", FROM(X86, "x86-64-v3", ""), ZN_CAPS_AVX2, .f16_convert = true, .dot4 = ZN_DOT4_PAIRS,
     .feature_bits = ZN_FEATS_V3, CACHES(32, 512)},
    {.arch = "x86-64-v4", FROM(X86, "x86-64-v4", ""), ZN_CAPS_AVX512, .f16_convert = true, .dot4 = ZN_DOT4_PAIRS,
     .feature_bits = ZN_FEATS_V4, CACHES(32, 1024)},
    {.arch = "alderlake", FROM(X86, "x86-64-v3", AVXVNNI), ZN_CAPS_AVX2, .f16_convert = true, .dot4 = ZN_DOT4_MIXED,
     .feature_bits = ZN_FEATS_V3 | ZN_FEAT_AVXVNNI, CACHES(32, 1024)},
    {.arch = "icelake-server", FROM(X86, "x86-64-v4", AVX512VNNI), ZN_CAPS_AVX512, .f16_convert = true, .dot4 = ZN_DOT4_MIXED,
     .feature_bits = ZN_FEATS_V4 | ZN_FEAT_AVX512VNNI, CACHES(32, 1024)},
    {.arch = "znver4", FROM(X86, "x86-64-v4", AVX512BF16), ZN_CAPS_AVX512, .f16_convert = true, .dot4 = ZN_DOT4_MIXED,
     .dot_bf16 = true, .feature_bits = ZN_FEATS_V4 | ZN_FEAT_AVX512VNNI | ZN_FEAT_AVX512BF16, CACHES(32, 1024)},
    {.arch = "sapphirerapids", FROM(X86, "x86-64-v4", AMX), ZN_CAPS_AVX512, .f16_convert = true, .dot4 = ZN_DOT4_MIXED,
     .dot_bf16 = true, .tile_dot = ZN_TILE_AMX,
     .feature_bits = ZN_FEATS_V4 | ZN_FEAT_AVX512VNNI | ZN_FEAT_AVX512BF16 | ZN_FEAT_AMX, CACHES(48, 2048)},
    {.arch = "aarch64", FROM(A64, "generic", "+neon"), ZN_CAPS_NEON_PLAIN, .f16_convert = true, CACHES(32, 512)},
    /* Armv8.2 with dot products: Cortex-A55 and A76 onwards, Raspberry Pi 5, Graviton 2 */
    {.arch = "armv8.2-a+dotprod", FROM(A64, "generic", "+v8.2a,+dotprod"), ZN_CAPS_NEON_DOT, .f16_convert = true,
     CACHES(32, 512)},
    {.arch = "cortex-a76", FROM(A64, "cortex-a76", ""), ZN_CAPS_NEON_DOT, .f16_convert = true, CACHES(64, 512)},
    {.arch = "neoverse-n1", FROM(A64, "neoverse-n1", ""), ZN_CAPS_NEON_DOT, .f16_convert = true, CACHES(64, 1024)},
    /* and with products of unlike signs and of pairs of rows: Graviton 3, Cortex-A710 onwards */
    {.arch = "armv8.6-a", FROM(A64, "generic", "+v8.6a,+dotprod,+i8mm"), ZN_CAPS_NEON_I8MM, .f16_convert = true,
     .tile_dot = ZN_TILE_PAIRS, CACHES(64, 1024)},
    {.arch = "neoverse-v1", FROM(A64, "neoverse-v1", "-sve"), ZN_CAPS_NEON_I8MM, .f16_convert = true, .tile_dot = ZN_TILE_PAIRS,
     CACHES(64, 1024)},
    {.arch = "riscv64", FROM(RV64, "generic-rv64", ZN_RISCV_LEAST), ZN_CAPS_WIDE, .vector_regs = 32, .fma = true,
     CACHES(32, 256)},
    /* The V extension, with registers of 128 bits at least, used in pairs (LMUL 2): vectors of fixed size, right on any wider
     * machine. */
    {.arch = "rv64gcv", FROM(RV64, "generic-rv64", ZN_RISCV_LEAST ",+v"), ZN_CAPS_WIDE, .vector_bytes = 32, .vector_regs = 16,
     .fma = true, .feature_bits = ZN_FEAT_RVV, CACHES(32, 512)},
    /* Single-precision unit only: f64 goes through the __aeabi_* functions of the compiler's runtime library. */
    {.arch = "cortex-m4", FROM(ARMV7EM, "cortex-m4", ""), ZN_CAPS_CORTEX_M, .vector_regs = 32, .fma = true, .f16_convert = true},
    {.arch = "cortex-m7", FROM(ARMV7EM, "cortex-m7", ""), ZN_CAPS_CORTEX_M, .vector_regs = 32, .fma = true, .f16_convert = true,
     .round_native = true, .f64_native = true, CACHES(16, 0)},
    {.arch = "cortex-m33", FROM(ARMV8M, "cortex-m33", ""), ZN_CAPS_CORTEX_M, .vector_regs = 32, .fma = true, .f16_convert = true,
     .round_native = true},
    /* Helium: eight vector registers; vectors of floats take subnormals for zeros */
    {.arch = "cortex-m55", FROM(ARMV81M, "cortex-m55", ""), ZN_CAPS_HELIUM, .f16_convert = true, .round_native = true,
     .tile_dot = ZN_TILE_RUNS, .f64_alone = true, CACHES(16, 0)},
};
enum { NUM_ROWS = sizeof rows / sizeof *rows };

static bool has_feature(const char *list, const char *name) {
  size_t n = strlen(name);
  for (const char *p = list; p && *p; p = strchr(p, ','), p = p ? p + 1 : NULL)
    if (p[0] == '+' && !strncmp(p + 1, name, n) && (p[n + 1] == ',' || !p[n + 1])) return true;
  return false;
}

static const zn_caps *find_row(const char *arch) {
  for (size_t i = 0; i < NUM_ROWS; i++)
    if (!strcmp(rows[i].arch, arch)) return &rows[i];
  return NULL;
}

static const char *accepted(zn_ctx *c) {
  const char *s = "native";
  for (size_t i = 0; i < NUM_ROWS; i++) s = zn_arena_printf(&c->tmp, "%s, %s", s, rows[i].arch);
  return s;
}

static uint32_t x86_bits(const char *f) {
  uint32_t bits = 0;
  if (has_feature(f, "avx2")) bits |= ZN_FEAT_AVX2;
  if (has_feature(f, "fma")) bits |= ZN_FEAT_FMA;
  if (has_feature(f, "f16c")) bits |= ZN_FEAT_F16C;
  if (has_feature(f, "sse4.2")) bits |= ZN_FEAT_SSE42;
  if (has_feature(f, "bmi2")) bits |= ZN_FEAT_BMI2;
  if (has_feature(f, "avxvnni")) bits |= ZN_FEAT_AVXVNNI;
  if (has_feature(f, "avx512vnni")) bits |= ZN_FEAT_AVX512VNNI;
  if (has_feature(f, "avx512bf16")) bits |= ZN_FEAT_AVX512BF16;
  if (has_feature(f, "avx512f") && has_feature(f, "avx512bw") && has_feature(f, "avx512cd") &&
      has_feature(f, "avx512dq") && has_feature(f, "avx512vl"))
    bits |= ZN_FEAT_AVX512;
  return bits;
}

/* Does the system let this process use AMX tiles? Linux gives their state to who asks for it. */
static bool may_use_tiles(void) {
#if defined(__x86_64__) && defined(__linux__)
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
  unsigned a, b, c, d;
  const unsigned wanted = 1u << 22 | 3u << 24; /* bf16, tile, int8 */
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & wanted) != wanted) return false;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
  return false;
#endif
}

/* The generic level this machine reaches, with the machine's own tuning and features. */
static zn_status native_caps(zn_ctx *c, zn_caps *out) {
  const char *triple, *cpu, *features, *base;
  zn_llvm_host(&c->perm, &triple, &cpu, &features);
  if (!strncmp(triple, "x86_64", 6)) {
    uint32_t bits = x86_bits(features);
    const uint32_t icelake = ZN_FEATS_V4 | ZN_FEAT_AVX512VNNI, alder = ZN_FEATS_V3 | ZN_FEAT_AVXVNNI;
    const uint32_t genoa = icelake | ZN_FEAT_AVX512BF16;
    base = (bits & genoa) == genoa       ? may_use_tiles() ? "sapphirerapids" : "znver4"
           : (bits & icelake) == icelake ? "icelake-server"
           : (bits & ZN_FEATS_V4) == ZN_FEATS_V4 ? "x86-64-v4"
           : (bits & alder) == alder     ? "alderlake"
           : (bits & ZN_FEATS_V3) == ZN_FEATS_V3 ? "x86-64-v3"
           : (bits & ZN_FEATS_V2) == ZN_FEATS_V2 ? "x86-64-v2"
                                         : "x86-64";
  } else if (!strncmp(triple, "aarch64", 7)) {
    base = has_feature(features, "dotprod") ? (has_feature(features, "i8mm") ? "armv8.6-a" : "armv8.2-a+dotprod") : "aarch64";
  } else if (!strncmp(triple, "riscv64", 7)) {
    base = has_feature(features, "v") ? "rv64gcv" : "riscv64";
  } else {
    return zn_fail(c, ZN_ERR_USAGE, NULL, "--arch=native: no code generator for this machine (%s)", triple);
  }
  *out = *find_row(base);
  out->cpu = cpu;
  /* legacy-encoded SSE4a (insertq) amid AVX code was measured at hundreds of cycles */
  out->features = strncmp(triple, "x86_64", 6) ? features : zn_arena_printf(&c->perm, "%s,-sse4a", features);
  return ZN_OK;
}

zn_status zn_cpu_caps(zn_ctx *c, const char *arch, zn_caps *out) {
  if (!arch || !*arch) { /* one default for each host architecture, so that builds are reproducible */
    const char *triple, *cpu, *features;
    zn_llvm_host(&c->perm, &triple, &cpu, &features);
    arch = !strncmp(triple, "aarch64", 7)   ? "aarch64"
           : !strncmp(triple, "riscv64", 7) ? "riscv64"
                                            : "x86-64-v3";
  }
  if (!strcmp(arch, "native")) {
    ZN_TRY(native_caps(c, out));
  } else {
    const zn_caps *row = find_row(arch);
    if (!row) {
      zn_fail(c, ZN_ERR_USAGE, NULL, "--arch=%s is not an architecture of target cpu", arch);
      zn_help(c, "use one of: %s", accepted(c));
      return ZN_ERR_USAGE;
    }
    *out = *row;
  }
  out->target = "cpu";
  return ZN_OK;
}

static uint32_t running_bits(void) {
  uint32_t bits = 0;
#if defined(__aarch64__)
  const unsigned long hw = getauxval(AT_HWCAP), hw2 = getauxval(AT_HWCAP2);
  if (hw >> 20 & 1) bits |= ZN_FEAT_DOTPROD; /* HWCAP_ASIMDDP, HWCAP2_I8MM of Linux */
  if (hw2 >> 13 & 1) bits |= ZN_FEAT_I8MM;
#endif
#if defined(__riscv)
  long pair[2] = {4, 0}; /* riscv_hwprobe: RISCV_HWPROBE_KEY_IMA_EXT_0, whose bit 2 is V */
  if (!syscall(258, pair, 1L, 0L, 0L, 0L) && pair[1] & 4) bits |= ZN_FEAT_RVV;
#endif
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) bits |= ZN_FEAT_AVX2;
  if (__builtin_cpu_supports("fma")) bits |= ZN_FEAT_FMA;
  if (__builtin_cpu_supports("f16c")) bits |= ZN_FEAT_F16C;
  if (__builtin_cpu_supports("sse4.2")) bits |= ZN_FEAT_SSE42;
  if (__builtin_cpu_supports("bmi2")) bits |= ZN_FEAT_BMI2;
  if (__builtin_cpu_supports("avxvnni")) bits |= ZN_FEAT_AVXVNNI;
  if (__builtin_cpu_supports("avx512vnni")) bits |= ZN_FEAT_AVX512VNNI;
  if (__builtin_cpu_supports("avx512bf16")) bits |= ZN_FEAT_AVX512BF16;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    bits |= ZN_FEAT_AVX512;
  if (may_use_tiles()) bits |= ZN_FEAT_AMX;
#endif
  return bits;
}

bool zn_cpu_can_run(const zn_caps *caps, const char **why) {
#if defined(__x86_64__)
  const char *host = "x86_64";
#elif defined(__aarch64__)
  const char *host = "aarch64";
#elif defined(__riscv) && __riscv_xlen == 64
  const char *host = "riscv64";
#else
  const char *host = "?";
#endif
  if (strncmp(caps->triple, host, strlen(host)) != 0) {
    *why = "the artifact is for another architecture than this machine";
    return false;
  }
  if (caps->feature_bits & ~running_bits()) {
    *why = "this CPU lacks an instruction set of the chosen --arch (try --arch=native)";
    return false;
  }
  return true;
}
