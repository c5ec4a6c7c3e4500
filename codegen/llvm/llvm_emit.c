/* One emission: module, functions, optimisation passes, machine code. The pass list is ours: no vectorisers (kernels
 * arrive vectorised), no idiom recognition (it calls memset and memcpy), no inlining. */
#include "codegen/llvm/llvm_emit.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/Error.h>
#include <llvm-c/Target.h>
#include <llvm-c/Transforms/PassBuilder.h>

#include "codegen/llvm/elf_data.h"
#include "codegen/llvm/llvm_priv.h"
#include "zenithc/base/file.h"

void zn_llvm_init(void) { /* idempotent inside LLVM */
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  LLVMInitializeX86AsmParser();
  LLVMInitializeAArch64TargetInfo();
  LLVMInitializeAArch64Target();
  LLVMInitializeAArch64TargetMC();
  LLVMInitializeAArch64AsmPrinter();
  LLVMInitializeAArch64AsmParser();
  LLVMInitializeARMTargetInfo();
  LLVMInitializeARMTarget();
  LLVMInitializeARMTargetMC();
  LLVMInitializeARMAsmPrinter();
  LLVMInitializeARMAsmParser();
  LLVMInitializeRISCVTargetInfo();
  LLVMInitializeRISCVTarget();
  LLVMInitializeRISCVTargetMC();
  LLVMInitializeRISCVAsmPrinter();
  LLVMInitializeRISCVAsmParser();
}

static char *take(zn_arena *a, char *llvm_text) {
  char *s = zn_arena_strdup(a, llvm_text);
  LLVMDisposeMessage(llvm_text);
  return s;
}

void zn_llvm_host(zn_arena *a, const char **out_triple, const char **out_cpu, const char **out_features) {
  *out_triple = take(a, LLVMGetDefaultTargetTriple());
  *out_cpu = take(a, LLVMGetHostCPUName());
  *out_features = take(a, LLVMGetHostCPUFeatures());
}

const char *zn_llvm_identity(zn_arena *a) {
  static const char source[] =
#include "llvm_source.inc"
      ;
  unsigned major, minor, patch;
  LLVMGetVersion(&major, &minor, &patch);
  return zn_arena_printf(a, "LLVM %u.%u.%u, source %s", major, minor, patch, source);
}

static zn_status find_arch(zn_lmod *m) {
  const char *t = m->caps->triple ? m->caps->triple : "";
  if (!strncmp(t, "x86_64", 6)) m->arch = ZN_LA_X86;
  else if (!strncmp(t, "aarch64", 7)) m->arch = ZN_LA_AARCH64;
  else if (!strncmp(t, "thumb", 5) || !strncmp(t, "arm", 3)) m->arch = ZN_LA_ARM;
  else if (!strncmp(t, "riscv", 5)) m->arch = ZN_LA_RISCV;
  else return zn_fail(m->ctx, ZN_ERR_UNSUPPORTED, NULL, "no code generator for target triple '%s'", t);
  return ZN_OK;
}

static zn_status make_machine(zn_lmod *m, LLVMTargetMachineRef *out_tm) {
  zn_llvm_init();
  LLVMTargetRef target;
  char *msg = NULL;
  if (LLVMGetTargetFromTriple(m->caps->triple, &target, &msg))
    return zn_fail(m->ctx, ZN_ERR_UNSUPPORTED, NULL, "LLVM: %s", take(m->a, msg));
  bool bare = m->arch == ZN_LA_ARM;
  LLVMTargetMachineOptionsRef o = LLVMCreateTargetMachineOptions();
  LLVMTargetMachineOptionsSetCPU(o, m->caps->cpu);
  /* where a run asks the processor each function says what it may use: those that ask, less than the kernels */
  const char *features = m->arch == ZN_LA_RISCV ? ZN_RISCV_LEAST : zn_lm_asks(m) || !m->caps->features ? "" : m->caps->features;
  LLVMTargetMachineOptionsSetFeatures(o, features);
  LLVMTargetMachineOptionsSetCodeGenOptLevel(o, m->o->opt_level <= 0   ? LLVMCodeGenLevelLess
                                                : m->o->opt_level >= 3 ? LLVMCodeGenLevelAggressive
                                                                       : LLVMCodeGenLevelDefault);
  LLVMTargetMachineOptionsSetRelocMode(o, bare ? LLVMRelocStatic : LLVMRelocPIC);
  LLVMTargetMachineOptionsSetCodeModel(o, m->arch == ZN_LA_RISCV ? LLVMCodeModelMedium
                                                                 : LLVMCodeModelDefault);
  if (m->arch == ZN_LA_RISCV) LLVMTargetMachineOptionsSetABI(o, "lp64d");
  *out_tm = LLVMCreateTargetMachineWithOptions(target, m->caps->triple, o);
  LLVMDisposeTargetMachineOptions(o);
  return *out_tm ? ZN_OK : zn_fail(m->ctx, ZN_ERR_UNSUPPORTED, NULL, "LLVM cannot generate code for %s (%s)",
                                   m->caps->cpu, m->caps->triple);
}

static void make_types(zn_lmod *m) {
  LLVMContextRef c = m->lc;
  m->i1 = LLVMInt1TypeInContext(c);
  m->i8 = LLVMInt8TypeInContext(c);
  m->i16 = LLVMInt16TypeInContext(c);
  m->i32 = LLVMInt32TypeInContext(c);
  m->i64 = LLVMInt64TypeInContext(c);
  m->f16 = LLVMHalfTypeInContext(c);
  m->f32 = LLVMFloatTypeInContext(c);
  m->f64 = LLVMDoubleTypeInContext(c);
  m->ptr = LLVMPointerTypeInContext(c, 0);
  m->none = LLVMVoidTypeInContext(c);
  m->idx = m->caps->idx_bytes == 4 ? m->i32 : m->i64;
  zn_ltype k[4] = {m->ptr, m->ptr, m->idx, m->idx};
  m->kernel_type = LLVMFunctionType(m->none, k, 4, 0);
  zn_ltype e[5] = {m->ptr, m->ptr, m->ptr, m->idx, m->ptr};
  m->entry_type = LLVMFunctionType(m->i32, e, 5, 0);
  m->md_scope = LLVMGetMDKindIDInContext(c, "alias.scope", 11);
  m->md_noalias = LLVMGetMDKindIDInContext(c, "noalias", 7);
}

static void module_flag(zn_lmod *m, const char *key, LLVMModuleFlagBehavior how, LLVMMetadataRef v) {
  LLVMAddModuleFlag(m->lm, how, key, strlen(key), v);
}

static void describe_module(zn_lmod *m, LLVMTargetMachineRef tm) {
  LLVMSetSourceFileName(m->lm, m->mod->name, strlen(m->mod->name));
  LLVMSetTarget(m->lm, m->caps->triple);
  LLVMTargetDataRef dl = LLVMCreateTargetDataLayout(tm);
  LLVMSetModuleDataLayout(m->lm, dl);
  LLVMDisposeTargetData(dl);
  if (m->arch == ZN_LA_RISCV)
    module_flag(m, "target-abi", LLVMModuleFlagBehaviorError, LLVMMDStringInContext2(m->lc, "lp64d", 5));
  if (m->arch != ZN_LA_ARM)
    module_flag(m, "PIC Level", LLVMModuleFlagBehaviorWarning,
                LLVMValueAsMetadata(LLVMConstInt(m->i32, 2, 0)));
}

static void enter_variant(zn_lmod *m, uint32_t i) {
  m->variant = i;
  m->mod = m->variants[i].mod;
  m->caps = m->variants[i].caps;
}

static void build_module(zn_lmod *m) {
  zn_lm_constants(m);
  m->plans = ZN_ARRAY(m->a, zn_lval, m->num_variants);
  m->runs = ZN_ARRAY(m->a, zn_lval, m->num_variants);
  for (uint32_t v = 0; v < m->num_variants; v++) {
    enter_variant(m, v);
    zn_lm_declare(m);
    for (uint32_t i = 0; i < m->mod->num_funcs; i++)
      if (zn_lm_holds(m, i)) zn_lf_emit(m, i);
    for (uint32_t i = 0; i < m->mod->num_funcs; i++) m->first_kernel += !m->mod->funcs[i]->is_entry;
    m->first_func += m->mod->num_funcs;
  }
  enter_variant(m, 0);
  if (m->o->part == 0) zn_lm_descriptor(m);
  char *msg = NULL;
  if (LLVMVerifyModule(m->lm, LLVMReturnStatusAction, &msg))
    ZN_BUG(m->ctx, "LLVM module of '%s' does not verify: %s", m->mod->name, msg);
  LLVMDisposeMessage(msg);
}

/* Combining stops after its first round; LLVM would otherwise abort where a second one could do more. */
#define COMBINE "instcombine<no-verify-fixpoint>"

static const char *pipeline(int level) {
  if (level <= 0) return "function(sroa)";
  if (level == 1) return "function(sroa,early-cse<memssa>," COMBINE ",simplifycfg)";
  return "function(sroa,early-cse<memssa>,simplifycfg," COMBINE ","
         "loop-mssa(loop-instsimplify,loop-simplifycfg,licm),simplifycfg," COMBINE ","
         "loop(indvars,loop-deletion),gvn,sccp," COMBINE ","
         "loop-mssa(licm),dse,adce,simplifycfg," COMBINE ")";
}

static void optimise(zn_lmod *m, LLVMTargetMachineRef tm) {
  LLVMPassBuilderOptionsRef o = LLVMCreatePassBuilderOptions();
  LLVMErrorRef e = LLVMRunPasses(m->lm, pipeline(m->o->opt_level), tm, o);
  LLVMDisposePassBuilderOptions(o);
  if (e) ZN_BUG(m->ctx, "LLVM passes: %s", LLVMGetErrorMessage(e));
}

/* LLVM ends the process when it writes files itself and the disk is full. */
static zn_status write_out(zn_lmod *m, LLVMTargetMachineRef tm) {
  char *msg = NULL;
  LLVMMemoryBufferRef made;
  if (m->o->kind == ZN_LLVM_IR) {
    char *text = LLVMPrintModuleToString(m->lm);
    zn_status st = zn_write_file(m->ctx, m->o->out, text, strlen(text));
    LLVMDisposeMessage(text);
    return st;
  }
  if (LLVMTargetMachineEmitToMemoryBuffer(tm, m->lm, m->o->kind == ZN_LLVM_ASM ? LLVMAssemblyFile : LLVMObjectFile, &msg, &made))
    return zn_fail(m->ctx, ZN_ERR_IO, m->o->out, "cannot be written: %s", take(m->a, msg));
  zn_status st = zn_write_file(m->ctx, m->o->out, LLVMGetBufferStart(made), LLVMGetBufferSize(made));
  LLVMDisposeMemoryBuffer(made);
  return st;
}

static void on_diagnostic(LLVMDiagnosticInfoRef info, void *user) {
  zn_lmod *m = user;
  LLVMDiagnosticSeverity sev = LLVMGetDiagInfoSeverity(info);
  if (sev != LLVMDSError && sev != LLVMDSWarning) return;
  char *s = LLVMGetDiagInfoDescription(info);
  if (sev == LLVMDSError) ZN_BUG(m->ctx, "LLVM: %s", s);
  zn_warn(m->ctx, NULL, "LLVM: %s", s);
  LLVMDisposeMessage(s);
}

static zn_status emit_with(zn_lmod *m, LLVMTargetMachineRef tm) {
  describe_module(m, tm);
  build_module(m);
  ZN_TRY(zn_lm_write_bin(m));
  if (m->o->kind != ZN_LLVM_IR || m->o->opt_level > 0) optimise(m, tm);
  zn_status st = write_out(m, tm);
  if (m->bin && !m->o->bin) remove(m->bin);
  if (st != ZN_OK || m->o->kind != ZN_LLVM_OBJECT || m->o->raw_data) return st;
  return m->o->defer_data ? zn_elf_defer(m->ctx, m->o->out) : zn_elf_fill_object(m->ctx, m->o->out, m->mod);
}

static void list_variants(zn_lmod *m) {
  if (m->o->parts > 1) m->shares = zn_llvm_shares(m->a, m->mod, m->o);
  m->num_variants = m->o->num_more + 1;
  m->variants = ZN_ARRAY(m->a, zn_variant, m->num_variants);
  m->variants[0] = (zn_variant){m->mod, m->caps};
  for (uint32_t i = 0; i < m->o->num_more; i++) m->variants[i + 1] = m->o->more[i];
}

zn_status zn_llvm_emit(zn_ctx *c, const zn_kmod *mod, const zn_caps *caps, const zn_llvm_opts *o) {
  zn_arena a;
  zn_arena_init(&a, "llvm");
  zn_lmod m = {.ctx = c, .a = &a, .mod = mod, .caps = caps, .o = o};
  list_variants(&m);
  LLVMTargetMachineRef tm = NULL;
  zn_status st = find_arch(&m);
  if (st == ZN_OK) st = make_machine(&m, &tm);
  if (st == ZN_OK) {
    m.lc = LLVMContextCreate();
    LLVMContextSetDiscardValueNames(m.lc, o->kind != ZN_LLVM_IR);
    LLVMContextSetDiagnosticHandler(m.lc, on_diagnostic, &m);
    m.lm = LLVMModuleCreateWithNameInContext(mod->name, m.lc);
    m.b = LLVMCreateBuilderInContext(m.lc);
    m.eb = LLVMCreateBuilderInContext(m.lc);
    make_types(&m);
    st = emit_with(&m, tm);
    LLVMDisposeBuilder(m.b);
    LLVMDisposeBuilder(m.eb);
    LLVMDisposeModule(m.lm);
    LLVMContextDispose(m.lc);
  }
  if (tm) LLVMDisposeTargetMachine(tm);
  zn_arena_reset(&a);
  return st;
}
