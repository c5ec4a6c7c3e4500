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
  if (caps.simt) ZN_TRY(zn_kpass_simt(c, r->mod, &caps));
  return zn_kmod_verify(c, r->mod);
}

static void dump_graph(zn_ctx *c, FILE *f) {
  zn_text t;
  zn_text_init(&t, &c->tmp);
  zn_graph_print(c->crash_user, &t);
  fputs(t.s ? t.s : "", f);
}

zn_status zn_compile_graph(zn_ctx *c, zn_graph *g, const zn_compile_opts *o, zn_compiled *out) {
  zn_pass_opts pass = o->pass;
  out->graph = g;
  out->emulate = o->emulate;
  out->no_build = o->no_build;
  if (c->verbosity >= 0) c->crash_dump = dump_graph;
  c->crash_user = g;
  ZN_TRY(o->target->caps(c, o->arch, &out->caps));
  pass.opt_level = o->opt_level;
  pass.math_fast = o->math_fast;
  pass.caps = &out->caps;
  double t0 = zn_now();
  ZN_TRY(zn_passes_run(c, g, &pass));
  double t1 = zn_now();
  zn_caps caps = caps_of_level(c, &out->caps, o->opt_level);
  bool firmware = caps.arch && !strncmp(caps.arch, "cortex-m", 8); /* no heap there unless its owner says so */
  zn_lower_opts lo = {.opt_level = o->opt_level, .no_alloc = o->no_alloc || firmware, .math_fast = o->math_fast,
                      .provenance = o->provenance ? o->provenance : ""};
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

zn_status zn_compile(zn_ctx *c, const zn_compile_opts *o, zn_compiled *out) {
  zn_graph *g;
  double t0 = zn_now();
  memset(out, 0, sizeof *out);
  ZN_TRY(zn_load_graph(c, o->model, &o->onnx, &g));
  out->seconds_load = zn_now() - t0;
  return zn_compile_graph(c, g, o, out);
}
