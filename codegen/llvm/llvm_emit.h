/* Kernel IR to object code, assembly or LLVM text through the LLVM C API. No LLVM type appears here.
 * Symbols: NAME_model, NAME_run, NAME_plan and functions marked exported; all others are local.
 * The output holds no path, time or host name: the same module and caps give the same bytes. */
#ifndef ZN_LLVM_EMIT_H
#define ZN_LLVM_EMIT_H
#include "codegen/kir/kir.h"

typedef enum zn_llvm_kind { ZN_LLVM_OBJECT, ZN_LLVM_ASM, ZN_LLVM_IR } zn_llvm_kind;

typedef struct zn_llvm_opts {
  const char *out;       /* path to write */
  zn_llvm_kind kind;
  int opt_level;         /* 0..3 */
  bool keep_names;       /* local symbols for kernels, else none (but between parts) */
  bool export_main;      /* alias zn_model_main -> NAME_model (shared objects) */
  /* Further instruction sets of the same architecture, the preferred first: NAME_plan and NAME_run then hand over to the
   * first module, mod before these, whose features the processor and the system have. */
  const zn_variant *more;
  uint32_t num_more;
  /* Objects for linking into one shared object: this one has the kernels of share `part` of `parts` alone, and number 0 also
   * all that is no kernel. parts 0: everything is in one. */
  uint32_t part, parts;
  bool raw_data;         /* objects: the section of large constants is left to the caller (elf_data.h) */
  bool defer_data;       /* objects: large constants stay out, for zn_elf_fill_shared behind the linker */
  /* Host side of a device artifact: entries only, launching and touching device memory through the hooks of
   * runtime/zenith_device.h; NAME_run and NAME_plan hand over to zn_device_call_run and _plan of the runtime object, which
   * finds the entries as zn_device_run and zn_device_plan, the constants as zn_device_weights, and what the file named here
   * holds as zn_device_blob. NULL: an artifact for the processor. */
  const char *device_blob;
  const char *bin;       /* file for large constants that LLVM text refers to; NULL: a temporary one */
} zn_llvm_opts;

/* mod is verified and expanded for caps (no class M operation, no Fma without caps->fma, ...): anything else is our bug.
 * Fails with ZN_ERR_IO when a file cannot be written. */
zn_status zn_llvm_emit(zn_ctx *c, const zn_kmod *mod, const zn_caps *caps, const zn_llvm_opts *o);

/* What compiles: LLVM's version and a digest of the files here. In a. */
const char *zn_llvm_identity(zn_arena *a);
/* How many parts are worth their cost, the same on every machine; and each function's part (of mod, then of more), in a. */
uint32_t zn_llvm_parts(const zn_kmod *mod, const zn_llvm_opts *o);
const uint32_t *zn_llvm_shares(zn_arena *a, const zn_kmod *mod, const zn_llvm_opts *o);
/* What every 64-bit RISC-V machine must have: the calling convention passes doubles in registers. */
#define ZN_RISCV_LEAST "+m,+a,+f,+d,+c"

/* Once per process, before zn_llvm_emit runs in several threads. */
void zn_llvm_init(void);
enum { ZN_LLVM_MAX_PARTS = 8 };
enum { ZN_LLVM_INLINE_BYTES = 64 * 1024 }; /* constants up to this in all are part of what LLVM compiles */

/* The running machine as LLVM names it; strings from a. */
void zn_llvm_host(zn_arena *a, const char **out_triple, const char **out_cpu, const char **out_features);
#endif
