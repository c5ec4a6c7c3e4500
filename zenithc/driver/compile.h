/* One compilation, from a model file to a lowered kernel module and an artifact. */
#ifndef ZN_COMPILE_H
#define ZN_COMPILE_H
#include "codegen/lower/lower.h"
#include "frontends/onnx/onnx.h"
#include "targets/target.h"
#include "zenithc/passes/pass.h"

typedef struct zn_compile_opts {
  const char *model;        /* path */
  const char *name;         /* C identifier prefix; NULL: from the output's or model's file name */
  const zn_target *target;
  const char *arch;         /* NULL: the target's default */
  int opt_level;
  bool math_fast;
  int winograd_most;        /* with it: largest tiles of Winograd convolutions, results a side; 1: none of them; 0: any */
  bool tf32;                /* products of f32 may round their operands to tf32 */
  bool emulate;             /* where the artifact cannot run, its kernels run in the interpreter */
  bool no_build;            /* then without building the artifact */
  bool no_alloc;            /* refuse models that need an allocator; always so for firmware */
  zn_onnx_opts onnx;
  const char *provenance;   /* stored in the artifact */
  const zn_knobs *knobs;    /* measured choices of schedules; NULL: the analytic model alone */
  zn_pass_opts pass;        /* dump, time, verify_each, stop_after, rewrite_limit are honoured */
} zn_compile_opts;

typedef struct zn_compiled {
  zn_graph *graph; /* after all passes */
  zn_caps caps;
  zn_kmod *mod;
  zn_plan_stats plan;
  bool emulate, no_build;
  /* --arch=A,B: this is the preferred instruction set, here are the others, the preferred first. */
  struct zn_compiled *more;
  uint32_t num_more;
  double seconds_load, seconds_passes, seconds_lower, seconds_kernels;
} zn_compiled;

/* Everything up to (not including) target->build. */
zn_status zn_compile(zn_ctx *c, const zn_compile_opts *o, zn_compiled *out);
/* Can --arch be had? Reports why not. */
zn_status zn_compile_archs(zn_ctx *c, const zn_compile_opts *o);
/* For zn_build_opts.more, in a. */
zn_variant *zn_compiled_variants(zn_arena *a, const zn_compiled *k);
/* .zg text or ONNX, by suffix. Constants may be views of files that stay mapped until the process ends. */
zn_status zn_load_graph(zn_ctx *c, const char *path, const zn_onnx_opts *opts, zn_graph **out);
/* From a graph that is loaded already (borrowed and rewritten). Of several --arch, for the one that this machine prefers. */
zn_status zn_compile_graph(zn_ctx *c, zn_graph *g, const zn_compile_opts *o, zn_compiled *out);
/* "My model-v2.onnx" -> "my_model_v2": a C identifier in a. */
const char *zn_identifier_from_path(zn_arena *a, const char *path);
double zn_now(void); /* seconds, monotonic */
#endif
