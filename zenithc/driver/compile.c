/* The pipeline: load, graph passes, lowering, kernel passes. */
#include "zenithc/driver/compile.h"

#include <ctype.h>
#include <time.h>

double zn_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

const char *zn_identifier_from_path(zn_arena *a, const char *path) {
  const char *base = strrchr(path, '/');
  base = base ? base + 1 : path;
  const char *dot = strrchr(base, '.');
  size_t n = dot && dot != base ? (size_t)(dot - base) : strlen(base);
  char *s = zn_arena_alloc(a, n + 2), *p = s;
  if (n == 0 || isdigit((unsigned char)base[0])) *p++ = 'm';
  for (size_t i = 0; i < n; i++) {
    unsigned char ch = (unsigned char)base[i];
    *p++ = (char)(isalnum(ch) ? tolower(ch) : '_');
  }
  return s;
}

/* At level 0 loops stay plain. */
static zn_caps caps_of_level(zn_ctx *c, const zn_caps *full, int opt_level) {
  zn_caps caps = *full;
  if (opt_level > 0) return caps;
  caps.vector_bytes = 0;
  if (!caps.host) return caps;
  zn_caps *host = ZN_NEW(&c->graph, zn_caps);
  *host = *caps.host;
  host->vector_bytes = 0;
  caps.host = host;
  return caps;
}

static zn_status kernel_passes(zn_ctx *c, const zn_compile_opts *o, zn_compiled *r) {
  zn_caps caps = caps_of_level(c, &r->caps, o->opt_level);
  ZN_TRY(zn_kmod_verify(c, r->mod));
  if (o->opt_level > 0) ZN_TRY(zn_kpass_clean(c, r->mod));
  if (caps.simt) ZN_TRY(zn_kpass_threads(c, r->mod));
  ZN_TRY(zn_kpass_widen(c, r->mod, &caps));
  ZN_TRY(zn_kpass_expand(c, r->mod, &caps));
  if (o->opt_level > 0) ZN_TRY(zn_kpass_clean(c, r->mod));
  if (caps.simt) ZN_TRY(zn_kpass_align(c, r->mod));
  if (caps.simt) ZN_TRY(zn_kpass_simt(c, r->mod, &caps));
  zn_kmod_drop_consts(r->mod);
  return zn_kmod_verify(c, r->mod);
}

static void dump_graph(zn_ctx *c, FILE *f) {
  zn_text t;
  zn_text_init(&t, &c->tmp);
  zn_graph_print(c->crash_user, &t);
  fputs(t.s ? t.s : "", f);
}

/* ---- several instruction sets ---- */

enum { MAX_VARIANTS = 8 };

/* The wider vectors first, then the more features; equal ones cannot be told apart when a run must choose. */
static int preference(const zn_caps *x, const zn_caps *y) {
  if (x->vector_bytes != y->vector_bytes) return x->vector_bytes > y->vector_bytes ? 1 : -1;
  int bits = __builtin_popcount(x->feature_bits) - __builtin_popcount(y->feature_bits);
  return bits > 0 ? 1 : bits < 0 ? -1 : 0;
}

static zn_status check_pair(zn_ctx *c, const char *list, const zn_caps *x, const zn_caps *y) {
  const char *ours = x->triple ? x->triple : "", *other = y->triple ? y->triple : "";
  const bool asks = !strncmp(ours, "x86_64", 6) || !strncmp(ours, "aarch64", 7) || !strncmp(ours, "riscv64", 7);
  if (strcmp(ours, other) || !asks) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "--arch=%s: %s and %s cannot share an artifact", list, x->arch, y->arch);
    zn_help(c, "only those of x86-64, of AArch64 or of RISC-V can: a run asks the processor which of them it may use");
    return ZN_ERR_USAGE;
  }
  if (x->feature_bits != y->feature_bits) return ZN_OK;
  zn_fail(c, ZN_ERR_USAGE, NULL, "--arch=%s: %s and %s need the same instruction sets", list, x->arch, y->arch);
  zn_help(c, "leave one of them out");
  return ZN_ERR_USAGE;
}

/* The list's names, resolved and in order of preference. */
static zn_status split_archs(zn_ctx *c, const zn_compile_opts *o, zn_caps *out, uint32_t *out_n) {
  uint32_t n = 0;
  for (const char *p = o->arch, *e; p; p = e ? e + 1 : NULL) {
    e = strchr(p, ',');
    const char *name = e ? zn_arena_strndup(&c->perm, p, (size_t)(e - p)) : p;
    zn_caps caps;
    if (!strcmp(name, "native") || !*name || n == MAX_VARIANTS) {
      const char *why = !*name ? "a name is missing beside a comma" : "native is this machine alone";
      if (n == MAX_VARIANTS) why = "more than 8 names";
      zn_fail(c, ZN_ERR_USAGE, NULL, "--arch=%s: %s", o->arch, why);
      zn_help(c, "name the levels or processors, e.g. --arch=x86-64-v3,x86-64-v4");
      return ZN_ERR_USAGE;
    }
    ZN_TRY(o->target->caps(c, name, &caps));
    for (uint32_t i = 0; i < n; i++) ZN_TRY(check_pair(c, o->arch, &out[i], &caps));
    uint32_t at = n++;
    for (; at && preference(&caps, &out[at - 1]) > 0; at--) out[at] = out[at - 1];
    out[at] = caps;
  }
  *out_n = n;
  return ZN_OK;
}

static bool names_several(const zn_compile_opts *o) { return o->target->several && o->arch && strchr(o->arch, ','); }

/* Of a list the one that this machine would run. */
static zn_status caps_of(zn_ctx *c, const zn_compile_opts *o, zn_caps *out) {
  zn_caps caps[MAX_VARIANTS];
  const char *why;
  uint32_t n, at = 0;
  if (!names_several(o)) return o->target->caps(c, o->arch, out);
  ZN_TRY(split_archs(c, o, caps, &n));
  while (at < n && !o->target->can_run(&caps[at], &why)) at++;
  *out = caps[at < n ? at : 0];
  return ZN_OK;
}

zn_status zn_compile_graph(zn_ctx *c, zn_graph *g, const zn_compile_opts *o, zn_compiled *out) {
  zn_pass_opts pass = o->pass;
  out->graph = g;
  out->emulate = o->emulate;
  out->no_build = o->no_build;
  if (c->verbosity >= 0) c->crash_dump = dump_graph;
  c->crash_user = g;
  ZN_TRY(caps_of(c, o, &out->caps));
  pass.opt_level = o->opt_level;
  pass.math_fast = o->math_fast;
  pass.caps = &out->caps;
  pass.tf32 = o->tf32;
  pass.knobs = o->opt_level >= 2 ? o->knobs : NULL;
  double t0 = zn_now();
  ZN_TRY(zn_passes_run(c, g, &pass));
  double t1 = zn_now();
  zn_caps caps = caps_of_level(c, &out->caps, o->opt_level);
  bool firmware = caps.arch && !strncmp(caps.arch, "cortex-m", 8); /* no heap there unless its owner says so */
  zn_lower_opts lo = {.opt_level = o->opt_level, .no_alloc = o->no_alloc || firmware,
                      .math_fast = o->math_fast, .winograd_most = o->winograd_most, .tf32 = o->tf32,
                      .frugal = o->pass.frugal,
                      .provenance = o->provenance ? o->provenance : "", .knobs = o->opt_level >= 2 ? o->knobs : NULL};
  const char *name = o->name ? o->name : zn_identifier_from_path(&c->graph, o->model);
  ZN_TRY(zn_lower_graph(c, g, &caps, &lo, name, &out->mod, &out->plan));
  double t2 = zn_now();
  ZN_TRY(kernel_passes(c, o, out));
  out->seconds_passes = t1 - t0;
  out->seconds_lower = t2 - t1;
  out->seconds_kernels = zn_now() - t2;
  zn_arena_reset(&c->tmp);
  return ZN_OK;
}

static zn_status compile_one(zn_ctx *c, const zn_compile_opts *o, zn_compiled *out) {
  zn_graph *g;
  double t0 = zn_now();
  memset(out, 0, sizeof *out);
  ZN_TRY(zn_load_graph(c, o->model, &o->onnx, &g));
  out->seconds_load = zn_now() - t0;
  return zn_compile_graph(c, g, o, out);
}

static zn_status compile_several(zn_ctx *c, const zn_compile_opts *o, zn_compiled *out) {
  zn_caps caps[MAX_VARIANTS];
  zn_kmod *mods[MAX_VARIANTS];
  uint32_t n;
  memset(out, 0, sizeof *out);
  ZN_TRY(split_archs(c, o, caps, &n));
  zn_compiled *k = ZN_ARRAY(&c->perm, zn_compiled, n);
  double load = 0, passes = 0, lower = 0, kernels = 0;
  for (uint32_t i = 0; i < n; i++) {
    zn_compile_opts one = *o;
    one.arch = caps[i].arch;
    ZN_TRY(compile_one(c, &one, &k[i]));
    mods[i] = k[i].mod;
    load += k[i].seconds_load, passes += k[i].seconds_passes, lower += k[i].seconds_lower, kernels += k[i].seconds_kernels;
  }
  zn_kmod_unite(mods, n, &c->graph);
  *out = k[0];
  out->more = k + 1;
  out->num_more = n - 1;
  out->seconds_load = load, out->seconds_passes = passes, out->seconds_lower = lower, out->seconds_kernels = kernels;
  return ZN_OK;
}

zn_status zn_compile_archs(zn_ctx *c, const zn_compile_opts *o) {
  zn_caps caps[MAX_VARIANTS];
  uint32_t n;
  return names_several(o) ? split_archs(c, o, caps, &n) : o->target->caps(c, o->arch, caps);
}

zn_status zn_compile(zn_ctx *c, const zn_compile_opts *o, zn_compiled *out) {
  return names_several(o) ? compile_several(c, o, out) : compile_one(c, o, out);
}

zn_variant *zn_compiled_variants(zn_arena *a, const zn_compiled *k) {
  zn_variant *v = ZN_ARRAY(a, zn_variant, k->num_more + 1);
  for (uint32_t i = 0; i < k->num_more; i++) v[i] = (zn_variant){k->more[i].mod, &k->more[i].caps};
  return v;
}
