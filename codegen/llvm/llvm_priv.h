/* State shared by the files of the LLVM printer; private to codegen/llvm. */
#ifndef ZN_LLVM_PRIV_H
#define ZN_LLVM_PRIV_H
#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>

#include "codegen/llvm/llvm_emit.h"

typedef LLVMValueRef zn_lval;
typedef LLVMTypeRef zn_ltype;
typedef enum zn_larch { ZN_LA_X86, ZN_LA_AARCH64, ZN_LA_ARM, ZN_LA_RISCV } zn_larch;

typedef struct zn_lmod {
  zn_ctx *ctx;
  zn_arena *a; /* lives for one emission */
  zn_variant *variants; /* all that the artifact holds, the preferred first */
  uint32_t num_variants, variant;
  const zn_kmod *mod;   /* of the current variant */
  const zn_caps *caps;
  zn_lval *plans, *runs; /* entries, by variant */
  const uint32_t *shares; /* part of each function of all variants; NULL: there is one part */
  uint32_t first_func;    /* place of the current variant's functions there */
  uint32_t first_kernel; /* number of the current variant's first kernel in the descriptor */
  const zn_llvm_opts *o;
  zn_larch arch;
  LLVMContextRef lc;
  LLVMModuleRef lm;
  LLVMBuilderRef b;  /* at the current instruction */
  LLVMBuilderRef eb; /* end of the current function's entry block: allocas, parameters */
  zn_ltype i1, i8, i16, i32, i64, f16, f32, f64, ptr, idx, none;
  zn_ltype kernel_type, entry_type;
  zn_lval *funcs;      /* by function number */
  zn_lval weights;     /* all constants, one after another; NULL when there are none */
  uint64_t *const_off; /* constant number -> offset in weights */
  uint64_t weights_bytes;
  const char *bin;     /* path of the file of large constants; NULL when they are data in the module */
  zn_lval features_fn, launch_fn, udiv_fn;
  unsigned md_scope, md_noalias;
} zn_lmod;

typedef struct zn_lregion {
  uint8_t op;   /* For If Loop */
  LLVMBasicBlockRef head, next, exit; /* For: body, -, exit. If: -, else, merge. Loop: body, -, exit */
  zn_lval phi, hi;
  int64_t step;
} zn_lregion;

typedef struct zn_lfun {
  zn_lmod *m;
  const zn_kfunc *f;
  zn_lval fv;
  zn_lval *v;          /* instruction -> value (Var: its alloca) */
  uint32_t *origin;    /* instruction -> 1 + number of the pointer parameter it derives from; 0 unknown */
  zn_lval *params;     /* parameter number -> value */
  zn_lval *md_scope, *md_noalias; /* per parameter: metadata, NULL = none */
  zn_lregion *regions;
  uint32_t num_regions, cap_regions;
  zn_lval arr_bufs, arr_ints; /* argument arrays of launches */
} zn_lfun;

/* llvm_types.c: types and constants. f16 and bf16 are i16 in registers, bool is i1 (i8 in memory). */
zn_ltype zn_lm_scalar(const zn_lmod *m, zn_dtype t);
zn_ltype zn_lm_type(const zn_lmod *m, zn_dtype t, unsigned lanes);
zn_ltype zn_lm_vec(zn_ltype elem, unsigned lanes); /* elem itself for one lane */
unsigned zn_lm_bytes(const zn_lmod *m, zn_dtype t); /* per element in memory */
zn_lval zn_lm_splat_const(zn_lval scalar, unsigned lanes);
zn_lval zn_lm_int(const zn_lmod *m, zn_dtype t, unsigned lanes, int64_t v);
zn_lval zn_lm_float(const zn_lmod *m, zn_dtype t, unsigned lanes, double v); /* F32, F64, F16, BF16 */
zn_lval zn_lm_intrinsic(zn_lmod *m, const char *name, zn_ltype over, zn_lval *args, unsigned n);
void zn_lm_attr(const zn_lmod *m, zn_lval fn, unsigned index, const char *name);
void zn_lm_attr_text(const zn_lmod *m, zn_lval fn, const char *key, const char *value);
/* Attributes that every function has. baseline: no instruction beyond the architecture's minimum. */
void zn_lm_function_attrs(const zn_lmod *m, zn_lval fn, bool baseline);

/* llvm_arith.c: classes A, P, V. */
zn_lval zn_lf_opnd(zn_lfun *s, zn_kref r, unsigned lanes); /* splat to lanes when scalar */
zn_lval zn_lf_arith(zn_lfun *s, const zn_kinst *in);
zn_lval zn_lf_compare(zn_lfun *s, const zn_kinst *in);
zn_lval zn_lf_vector(zn_lfun *s, const zn_kinst *in);
/* llvm_dot.c. NULL: a Pair4 that is emitted with the operation that reads it. */
zn_lval zn_lf_dot_now(zn_lfun *s, const zn_kinst *in);
zn_lval zn_lf_dot(zn_lfun *s, const zn_kinst *in);
/* llvm_convert.c: class X. */
zn_lval zn_lf_convert(zn_lfun *s, const zn_kinst *in);

/* llvm_tile.c: TileDot, and what stands at both ends of a kernel that has it. */
void zn_lf_tile_dot(zn_lfun *s, const zn_kinst *in);
/* llvm_tile_reg.c: one of kind PAIRS or RUNS. */
void zn_lf_tile_reg(zn_lfun *s, const zn_tile *t, zn_lval to, zn_lval rows, zn_lval cols);
void zn_lf_tiles_begin(zn_lfun *s);
void zn_lf_tiles_end(zn_lfun *s);

/* llvm_func.c */
void zn_lf_emit(zn_lmod *m, uint32_t fn);
/* llvm_model.c: declarations first, the descriptor last. */
void zn_lm_declare(zn_lmod *m);
bool zn_lm_has_entries(const zn_kmod *k);
/* Does this object hold function fn of the current variant? */
bool zn_lm_holds(const zn_lmod *m, uint32_t fn);
void zn_lm_constants(zn_lmod *m);
zn_status zn_lm_write_bin(zn_lmod *m);
void zn_lm_descriptor(zn_lmod *m);
/* llvm_support.c: local helper functions, created on first use. */
zn_lval zn_lm_features_fn(zn_lmod *m);
/* A helper function being made. */
typedef struct zn_lmaker {
  zn_lmod *m;
  zn_lval fn;
  LLVMBuilderRef b;
} zn_lmaker;
static inline LLVMBasicBlockRef zn_lm_block(zn_lmaker *k) { return LLVMAppendBasicBlockInContext(k->m->lc, k->fn, ""); }
static inline void zn_lm_at(zn_lmaker *k, LLVMBasicBlockRef bb) { LLVMPositionBuilderAtEnd(k->b, bb); }
/* llvm_riscv.c: the body of the function that asks for ZN_FEAT_RVV. */
void zn_lm_features_riscv(zn_lmaker *k);
/* Does a run ask the processor what it may use? Then functions say for themselves what they use. */
static inline bool zn_lm_asks(const zn_lmod *m) { return m->arch != ZN_LA_ARM; }
zn_lval zn_lm_launch_fn(zn_lmod *m);
/* NAME_`what` over the entries fns[i] of the variants; NULL fits: ZN_RUN_CPU. */
zn_lval zn_lm_dispatch_fn(zn_lmod *m, const char *what, const zn_lval *fns);
/* i64 (a, b, want_rem), unsigned, b != 0: for machines without a 64-bit divider, where LLVM would call a library. */
zn_lval zn_lm_udiv_fn(zn_lmod *m);
#endif
