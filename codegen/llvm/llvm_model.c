/* What surrounds the functions of a model: declarations and linkage, the constants, and the descriptor of zenith.h. */
#include <errno.h>
#include <unistd.h>

#include "codegen/llvm/elf_data.h"
#include "codegen/llvm/llvm_priv.h"
#include "runtime/zenith.h"

static const char *symbol(const zn_lmod *m, uint32_t fn) {
  const zn_kmod *k = m->mod;
  const zn_kfunc *f = k->funcs[fn];
  if (f->is_entry && m->o->device_blob) return fn == k->run_fn ? "zn_device_run" : "zn_device_plan";
  const char *prefix = "";
  if (m->num_variants > 1) { /* "x86_64_v3_" */
    char *p = zn_arena_printf(m->a, "%s_", m->caps->arch);
    for (prefix = p; *p; p++)
      if (*p == '-' || *p == '.' || *p == '+') *p = '_';
  }
  if (f->is_entry && fn == k->run_fn) return zn_arena_printf(m->a, "%s_%srun", k->name, prefix);
  if (f->is_entry && fn == k->plan_fn) return zn_arena_printf(m->a, "%s_%splan", k->name, prefix);
  return zn_arena_printf(m->a, "%s%s", prefix, f->name);
}

bool zn_lm_holds(const zn_lmod *m, uint32_t fn) {
  const zn_kfunc *f = m->mod->funcs[fn];
  if (m->o->device_blob && zn_kfunc_on_device(f)) return false;
  if (f->is_entry) return m->o->part == 0;
  return !m->shares || m->shares[m->first_func + fn] == m->o->part;
}

static void set_linkage(const zn_lmod *m, zn_lval fn, const zn_kfunc *f) {
  bool local = (!f->is_entry && !f->exported) || m->num_variants > 1;
  if (m->shares && local && !f->is_entry) LLVMSetVisibility(fn, LLVMHiddenVisibility); /* other parts refer to it */
  else if (local) LLVMSetLinkage(fn, m->o->keep_names ? LLVMInternalLinkage : LLVMPrivateLinkage);
}

void zn_lm_declare(zn_lmod *m) {
  const zn_kmod *k = m->mod;
  m->funcs = ZN_ARRAY(m->a, zn_lval, k->num_funcs + 1);
  for (uint32_t i = 0; i < k->num_funcs; i++) {
    const zn_kfunc *f = k->funcs[i];
    if (m->o->device_blob && zn_kfunc_on_device(f)) continue;
    if (m->o->part && !zn_lm_holds(m, i)) continue;
    zn_lval fn = LLVMAddFunction(m->lm, symbol(m, i), f->is_entry ? m->entry_type : m->kernel_type);
    set_linkage(m, fn, f);
    if (m->o->device_blob && f->is_entry) LLVMSetVisibility(fn, LLVMHiddenVisibility);
    zn_lm_function_attrs(m, fn, f->is_entry);
    if (!f->is_entry)
      for (unsigned p = 1; p <= 2; p++) {
        zn_lm_attr(m, fn, p, "noalias");
        zn_lm_attr(m, fn, p, "readonly");
      }
    m->funcs[i] = fn;
  }
  if (!zn_lm_has_entries(k) || m->o->part) return;
  m->plans[m->variant] = m->funcs[k->plan_fn];
  m->runs[m->variant] = m->funcs[k->run_fn];
}

/* ---- constants ---- */

static void inline_data(zn_lmod *m) {
  char *all = zn_arena_alloc(m->a, m->weights_bytes);
  for (uint32_t i = 0; i < m->mod->num_consts; i++) {
    const zn_kconst *k = &m->mod->consts[i];
    if (k->count) memcpy(all + m->const_off[i], zn_kconst_data(k, m->a), zn_kconst_bytes(k));
  }
  zn_lval init = LLVMConstStringInContext2(m->lc, all, m->weights_bytes, 1);
  LLVMSetInitializer(m->weights, init);
  LLVMSetGlobalConstant(m->weights, 1);
  if (m->shares) LLVMSetVisibility(m->weights, LLVMHiddenVisibility);
  else LLVMSetLinkage(m->weights, LLVMInternalLinkage);
  LLVMSetSection(m->weights, ".rodata.zn");
}

/* Large constants never become LLVM values. In objects they are a section without bytes, which elf_data.c fills. */
static void empty_section(zn_lmod *m) {
  LLVMSetInitializer(m->weights, LLVMConstNull(LLVMGlobalGetValueType(m->weights)));
  LLVMSetExternallyInitialized(m->weights, 1);
  LLVMSetSection(m->weights, ZN_ELF_BSS_SECTION);
  LLVMSetVisibility(m->weights, LLVMHiddenVisibility);
  if (m->o->defer_data) LLVMSetAlignment(m->weights, m->arch == ZN_LA_AARCH64 ? 65536 : 4096); /* pages of their own */
}

static void include_file(zn_lmod *m, const char *name, const char *path, uint64_t bytes) {
  zn_text t;
  zn_text_init(&t, m->a);
  zn_text_printf(&t, ".section .rodata.zn,\"a\",%%progbits\n.p2align 6\n.globl %s\n.hidden %s\n", name, name);
  zn_text_printf(&t, ".type %s,%%object\n.size %s,%llu\n%s:\n.incbin ", name, name, (unsigned long long)bytes, name);
  zn_text_quote(&t, path, strlen(path));
  zn_text_puts(&t, "\n.text\n");
  LLVMAppendModuleInlineAsm(m->lm, t.s, t.len);
}

/* Text (.ll, .s) and device artifacts name a file that the assembler reads. Where it stays beside the text, by its name alone:
 * both move, from the folder they are built in to begin with. */
static void incbin_data(zn_lmod *m, const char *name) {
  const char *slash = m->o->bin ? strrchr(m->bin, '/') : NULL;
  include_file(m, name, slash ? slash + 1 : m->bin, m->weights_bytes);
  LLVMSetGlobalConstant(m->weights, 1);
  LLVMSetVisibility(m->weights, LLVMHiddenVisibility);
}

void zn_lm_constants(zn_lmod *m) {
  const zn_kmod *k = m->mod;
  m->const_off = zn_kmod_const_places(k, m->a);
  m->weights_bytes = zn_kmod_consts_bytes(k);
  if (m->weights_bytes == 0) return;
  const char *name = m->o->device_blob ? "zn_device_weights" : zn_arena_printf(m->a, "%s_weights", k->name);
  m->weights = LLVMAddGlobal(m->lm, LLVMArrayType2(m->i8, m->weights_bytes), name);
  LLVMSetAlignment(m->weights, ZN_KCONST_ALIGN);
  if (m->o->part) { /* another object has them */
    LLVMSetVisibility(m->weights, LLVMHiddenVisibility);
    LLVMSetGlobalConstant(m->weights, 1);
  } else if (m->weights_bytes <= ZN_LLVM_INLINE_BYTES && !m->o->device_blob) {
    inline_data(m);
  } else if (m->o->kind == ZN_LLVM_OBJECT && !m->o->device_blob) {
    empty_section(m);
  } else {
    m->bin = m->o->bin ? m->o->bin : zn_arena_printf(m->a, "%s.zn-bin-%ld", m->o->out, (long)getpid());
    incbin_data(m, name);
  }
}

zn_status zn_lm_write_bin(zn_lmod *m) {
  if (!m->bin) return ZN_OK;
  FILE *f = fopen(m->bin, "wb");
  bool ok = f && zn_kmod_write_consts(m->mod, f);
  if (f && fclose(f) != 0) ok = false;
  if (ok) return ZN_OK;
  int e = errno;
  if (f) remove(m->bin);
  return zn_fail(m->ctx, ZN_ERR_IO, m->bin, "cannot write the constants: %s", strerror(e));
}

/* ---- descriptor ---- */

static zn_lval local_data(zn_lmod *m, const char *name, zn_lval init) {
  zn_lval g = LLVMAddGlobal(m->lm, LLVMTypeOf(init), name);
  LLVMSetInitializer(g, init);
  LLVMSetGlobalConstant(g, 1);
  LLVMSetLinkage(g, LLVMPrivateLinkage);
  return g;
}

static zn_lval text(zn_lmod *m, const char *s) {
  if (!s) s = "";
  zn_lval g = local_data(m, "s", LLVMConstStringInContext2(m->lc, s, strlen(s), 0));
  LLVMSetUnnamedAddress(g, LLVMGlobalUnnamedAddr);
  return g;
}

static zn_lval c32(zn_lmod *m, uint32_t v) { return LLVMConstInt(m->i32, v, 0); }

static zn_lval io_desc(zn_lmod *m, const zn_kio *io) {
  zn_lval shape[ZN_ABI_MAX_RANK], names[ZN_ABI_MAX_RANK];
  for (uint32_t d = 0; d < ZN_ABI_MAX_RANK; d++) {
    bool used = d < io->rank;
    shape[d] = LLVMConstInt(m->i64, used ? (uint64_t)io->dims[d] : 0, 1);
    names[d] = text(m, used ? io->dim_text[d] : "");
  }
  zn_lval f[5] = {text(m, io->name), c32(m, zn_kio_code(io)), c32(m, io->rank),
                  LLVMConstArray2(m->i64, shape, ZN_ABI_MAX_RANK),
                  LLVMConstArray2(m->ptr, names, ZN_ABI_MAX_RANK)};
  return LLVMConstStructInContext(m->lc, f, 5, 0);
}

static zn_lval io_descs(zn_lmod *m, const zn_kio *io, uint32_t n, const char *name) {
  if (n == 0) return LLVMConstNull(m->ptr);
  zn_lval *v = ZN_ARRAY(m->a, zn_lval, n);
  for (uint32_t i = 0; i < n; i++) v[i] = io_desc(m, &io[i]);
  return local_data(m, name, LLVMConstArray2(LLVMTypeOf(v[0]), v, n));
}

static zn_lval kernel_name(zn_lmod *m, const zn_kfunc *f, const char *arch) {
  const char *s = f->note ? f->note : f->name;
  return text(m, m->num_variants > 1 ? zn_arena_printf(m->a, "%s [%s]", s, arch) : s);
}

static zn_lval kernel_names(zn_lmod *m, uint32_t *out_n) {
  zn_lval *v = NULL;
  uint32_t n = 0, cap = 0;
  for (uint32_t k = 0; k < m->num_variants; k++) {
    const zn_kmod *mod = m->variants[k].mod;
    for (uint32_t i = 0; i < mod->num_funcs; i++) {
      if (mod->funcs[i]->is_entry) continue;
      zn_lval name = kernel_name(m, mod->funcs[i], m->variants[k].caps->arch);
      ZN_PUSH(m->a, v, n, cap, name);
    }
  }
  *out_n = n;
  return n ? local_data(m, "kernel_names", LLVMConstArray2(m->ptr, v, n)) : LLVMConstNull(m->ptr);
}

bool zn_lm_has_entries(const zn_kmod *k) {
  return k->run_fn < k->num_funcs && k->plan_fn < k->num_funcs && k->funcs[k->run_fn]->is_entry &&
         k->funcs[k->plan_fn]->is_entry;
}

/* NAME_run or NAME_plan of a device artifact: a call of the runtime object. */
static zn_lval hand_over(zn_lmod *m, const char *what) {
  zn_lval to = LLVMAddFunction(m->lm, zn_arena_printf(m->a, "zn_device_call_%s", what), m->entry_type);
  LLVMSetVisibility(to, LLVMHiddenVisibility);
  zn_lval fn = LLVMAddFunction(m->lm, zn_arena_printf(m->a, "%s_%s", m->mod->name, what), m->entry_type);
  zn_lm_function_attrs(m, fn, true);
  LLVMPositionBuilderAtEnd(m->b, LLVMAppendBasicBlockInContext(m->lc, fn, ""));
  zn_lval args[5];
  LLVMGetParams(fn, args);
  LLVMBuildRet(m->b, LLVMBuildCall2(m->b, m->entry_type, to, args, 5, ""));
  return fn;
}

void zn_lm_descriptor(zn_lmod *m) {
  const zn_kmod *k = m->mod;
  if (!zn_lm_has_entries(k)) return; /* a module of kernels only */
  uint32_t num_kernels, features = m->caps->feature_bits;
  zn_lval names = kernel_names(m, &num_kernels);
  zn_lval plan = m->plans[0], run = m->runs[0];
  if (m->num_variants > 1) {
    plan = zn_lm_dispatch_fn(m, "plan", m->plans);
    run = zn_lm_dispatch_fn(m, "run", m->runs);
    for (uint32_t i = 0; i < m->num_variants; i++) features &= m->variants[i].caps->feature_bits;
  }
  if (m->o->device_blob) {
    plan = hand_over(m, "plan");
    run = hand_over(m, "run");
    include_file(m, "zn_device_blob", m->o->device_blob, 0);
  }
  zn_lval f[16] = {c32(m, ZN_MODEL_MAGIC), c32(m, ZN_ABI_VERSION), text(m, k->name),
                   c32(m, k->num_inputs), c32(m, k->num_outputs),
                   io_descs(m, k->inputs, k->num_inputs, "inputs"),
                   io_descs(m, k->outputs, k->num_outputs, "outputs"), plan, run,
                   LLVMConstInt(m->i64, k->workspace_bytes, 0),
                   LLVMConstInt(m->i64, m->weights_bytes, 0), c32(m, features),
                   c32(m, num_kernels), names, text(m, k->provenance), NULL};
  zn_lval init = LLVMConstStructInContext(m->lc, f, 15, 0);
  zn_lval g = LLVMAddGlobal(m->lm, LLVMTypeOf(init), zn_arena_printf(m->a, "%s_model", k->name));
  LLVMSetInitializer(g, init);
  LLVMSetGlobalConstant(g, 1);
  if (m->o->export_main) LLVMAddAlias2(m->lm, LLVMTypeOf(init), 0, g, "zn_model_main");
}
