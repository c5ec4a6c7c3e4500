/* Local functions that generated code calls: CPU features, kernel launch with the host's hooks, 64-bit division.
 * Each is created on first use, so that the builder of the caller is saved and restored. */
#include "codegen/llvm/llvm_priv.h"
#include "runtime/zenith.h"

static zn_lval c32(zn_lmaker *k, uint64_t v) { return LLVMConstInt(k->m->i32, v, 0); }

static zn_lmaker begin(zn_lmod *m, const char *name, zn_ltype ret, zn_ltype *params, unsigned n) {
  zn_lmaker k = {m, LLVMAddFunction(m->lm, name, LLVMFunctionType(ret, params, n, 0)),
             LLVMCreateBuilderInContext(m->lc)};
  LLVMSetLinkage(k.fn, LLVMPrivateLinkage);
  zn_lm_function_attrs(m, k.fn, true);
  zn_lm_attr(m, k.fn, (unsigned)LLVMAttributeFunctionIndex, "noinline");
  zn_lm_at(&k, zn_lm_block(&k));
  return k;
}

/* ---- features ---- */

typedef struct cpuid {
  zn_lval r[4]; /* eax ebx ecx edx */
} cpuid;

static cpuid call_cpuid(zn_lmaker *k, uint32_t leaf, uint32_t sub) {
  zn_lmod *m = k->m;
  zn_ltype four[4] = {m->i32, m->i32, m->i32, m->i32};
  zn_ltype ret = LLVMStructTypeInContext(m->lc, four, 4, 0);
  zn_ltype ft = LLVMFunctionType(ret, four, 2, 0);
  static const char text[] = "cpuid";
  static const char cons[] = "={ax},={bx},={cx},={dx},{ax},{cx},~{dirflag},~{fpsr},~{flags}";
  zn_lval as = LLVMGetInlineAsm(ft, text, sizeof text - 1, cons, sizeof cons - 1, 1, 0,
                                LLVMInlineAsmDialectATT, 0);
  zn_lval args[2] = {c32(k, leaf), c32(k, sub)};
  zn_lval v = LLVMBuildCall2(k->b, ft, as, args, 2, "");
  cpuid out;
  for (unsigned i = 0; i < 4; i++) out.r[i] = LLVMBuildExtractValue(k->b, v, i, "");
  return out;
}

static zn_lval call_xgetbv(zn_lmaker *k) {
  zn_lmod *m = k->m;
  zn_ltype two[2] = {m->i32, m->i32};
  zn_ltype ft = LLVMFunctionType(LLVMStructTypeInContext(m->lc, two, 2, 0), two, 1, 0);
  static const char text[] = "xgetbv";
  static const char cons[] = "={ax},={dx},{cx},~{dirflag},~{fpsr},~{flags}";
  zn_lval as = LLVMGetInlineAsm(ft, text, sizeof text - 1, cons, sizeof cons - 1, 1, 0,
                                LLVMInlineAsmDialectATT, 0);
  zn_lval zero = c32(k, 0);
  return LLVMBuildExtractValue(k->b, LLVMBuildCall2(k->b, ft, as, &zero, 1, ""), 0, "");
}

/* arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA): Linux gives the state of AMX tiles to processes that ask; i32, 0 when
 * it did. */
static zn_lval ask_for_tiles(zn_lmaker *k) {
  zn_lmod *m = k->m;
  zn_ltype three[3] = {m->i64, m->i64, m->i64};
  zn_ltype ft = LLVMFunctionType(m->i64, three, 3, 0);
  static const char text[] = "syscall";
  static const char cons[] = "={ax},{ax},{di},{si},~{rcx},~{r11},~{memory},~{dirflag},~{fpsr},~{flags}";
  zn_lval as = LLVMGetInlineAsm(ft, text, sizeof text - 1, cons, sizeof cons - 1, 1, 0, LLVMInlineAsmDialectATT, 0);
  zn_lval args[3] = {LLVMConstInt(m->i64, 158, 0), LLVMConstInt(m->i64, 0x1023, 0), LLVMConstInt(m->i64, 18, 0)};
  return LLVMBuildTrunc(k->b, LLVMBuildCall2(k->b, ft, as, args, 3, ""), m->i32, "");
}

/* i32 `bit` where all bits of mask are set in reg, else 0. */
static zn_lval feature(zn_lmaker *k, zn_lval reg, uint32_t mask, uint32_t bit) {
  zn_lval got = LLVMBuildAnd(k->b, reg, c32(k, mask), "");
  zn_lval has = LLVMBuildICmp(k->b, LLVMIntEQ, got, c32(k, mask), "");
  return LLVMBuildSelect(k->b, has, c32(k, bit), c32(k, 0), "");
}

static zn_lval any_of(zn_lmaker *k, zn_lval a, zn_lval b) { return LLVMBuildOr(k->b, a, b, ""); }

static zn_lval if_feature(zn_lmaker *k, zn_lval reg, uint32_t mask, zn_lval bits) {
  return LLVMBuildAnd(k->b, bits, feature(k, reg, mask, 0xffffffffu), "");
}

/* ZN_FEAT_AMX or 0; edx of leaf 7, low half of XCR0. Only artifacts that may use tiles ask for them. */
static zn_lval tile_feature(zn_lmaker *k, zn_lval edx, zn_lval xcr) {
  LLVMBuilderRef b = k->b;
  zn_lmod *m = k->m;
  bool wanted = false;
  for (uint32_t i = 0; i < m->num_variants; i++) wanted |= (m->variants[i].caps->feature_bits & ZN_FEAT_AMX) != 0;
  if (!wanted) return c32(k, 0);
  zn_lval has = if_feature(k, xcr, 3u << 17, feature(k, edx, 1u << 22 | 3u << 24, ZN_FEAT_AMX));
  LLVMBasicBlockRef before = LLVMGetInsertBlock(b), ask = zn_lm_block(k), done = zn_lm_block(k);
  LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntNE, has, c32(k, 0), ""), ask, done);
  zn_lm_at(k, ask);
  zn_lval granted = LLVMBuildICmp(b, LLVMIntEQ, ask_for_tiles(k), c32(k, 0), "");
  zn_lval bit = LLVMBuildSelect(b, granted, c32(k, ZN_FEAT_AMX), c32(k, 0), "");
  LLVMBuildBr(b, done);
  zn_lm_at(k, done);
  zn_lval r = LLVMBuildPhi(b, m->i32, ""), vals[2] = {c32(k, 0), bit};
  LLVMBasicBlockRef from[2] = {before, ask};
  LLVMAddIncoming(r, vals, from, 2);
  return r;
}

static void features_x86(zn_lmaker *k) {
  LLVMBuilderRef b = k->b;
  LLVMBasicBlockRef first = LLVMGetInsertBlock(b), os = zn_lm_block(k), rest = zn_lm_block(k), leaf7 = zn_lm_block(k),
                    done = zn_lm_block(k);
  cpuid c0 = call_cpuid(k, 0, 0), c1 = call_cpuid(k, 1, 0);
  zn_lval osxsave = LLVMBuildICmp(b, LLVMIntNE, LLVMBuildAnd(b, c1.r[2], c32(k, 1u << 27), ""),
                                  c32(k, 0), "");
  LLVMBuildCondBr(b, osxsave, os, rest);
  zn_lm_at(k, os);
  zn_lval xcr = call_xgetbv(k);
  LLVMBuildBr(b, rest);
  zn_lm_at(k, rest);
  zn_lval x = LLVMBuildPhi(b, k->m->i32, "");
  zn_lval vals[2] = {c32(k, 0), xcr};
  LLVMBasicBlockRef from[2] = {first, os};
  LLVMAddIncoming(x, vals, from, 2);
  zn_lval sse42 = feature(k, c1.r[2], 1u << 20, ZN_FEAT_SSE42);
  zn_lval fma = feature(k, c1.r[2], 1u << 12, ZN_FEAT_FMA); /* one builder call a line: C leaves the order of arguments open */
  zn_lval f16c = feature(k, c1.r[2], 1u << 29, ZN_FEAT_F16C);
  zn_lval vex = any_of(k, fma, f16c);
  vex = if_feature(k, x, 6, vex);
  zn_lval low = any_of(k, sse42, vex);
  LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntUGE, c0.r[0], c32(k, 7), ""), leaf7, done);
  zn_lm_at(k, leaf7);
  cpuid c7 = call_cpuid(k, 7, 0);
  cpuid c71 = call_cpuid(k, 7, 1); /* all zeros where there is no sub-leaf 1 */
  uint32_t f_dq_cd_bw_vl = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;
  zn_lval avx2 = if_feature(k, x, 6, feature(k, c7.r[1], 1u << 5, ZN_FEAT_AVX2));
  zn_lval z = if_feature(k, x, 0xe6, feature(k, c7.r[1], f_dq_cd_bw_vl, ZN_FEAT_AVX512));
  zn_lval bmi2 = feature(k, c7.r[1], 1u << 8, ZN_FEAT_BMI2);
  zn_lval vnni = if_feature(k, x, 6, feature(k, c71.r[0], 1u << 4, ZN_FEAT_AVXVNNI));
  zn_lval vnni512 = if_feature(k, x, 0xe6, feature(k, c7.r[2], 1u << 11, ZN_FEAT_AVX512VNNI));
  zn_lval bf16 = if_feature(k, x, 0xe6, feature(k, c71.r[0], 1u << 5, ZN_FEAT_AVX512BF16));
  zn_lval narrow = any_of(k, low, avx2), wide = any_of(k, z, bmi2), dots = any_of(k, vnni, vnni512);
  dots = any_of(k, dots, bf16);
  zn_lval vectors = any_of(k, narrow, wide);
  zn_lval all = any_of(k, vectors, dots), tiles = tile_feature(k, c7.r[3], x);
  all = any_of(k, all, tiles);
  leaf7 = LLVMGetInsertBlock(b);
  LLVMBuildBr(b, done);
  zn_lm_at(k, done);
  zn_lval bits = LLVMBuildPhi(b, k->m->i32, "");
  zn_lval vals2[2] = {low, all};
  LLVMBasicBlockRef from2[2] = {rest, leaf7};
  LLVMAddIncoming(bits, vals2, from2, 2);
  LLVMBuildRet(b, LLVMBuildZExt(b, bits, k->m->i64, ""));
}

/* The four bits of an identification register from `shift` on are not zero: `bit`, else 0. Linux lets programs read these
 * registers: it traps and answers. */
static zn_lval id_field(zn_lmaker *k, const char *reg, unsigned shift, uint64_t bit) {
  zn_lmod *m = k->m;
  zn_ltype ft = LLVMFunctionType(m->i64, NULL, 0, 0);
  const char *text = zn_arena_printf(m->a, "mrs $0, %s", reg);
  zn_lval as = LLVMGetInlineAsm(ft, text, strlen(text), "=r", 2, 1, 0, LLVMInlineAsmDialectATT, 0);
  zn_lval v = LLVMBuildCall2(k->b, ft, as, NULL, 0, "");
  zn_lval field = LLVMBuildAnd(k->b, v, LLVMConstInt(m->i64, 15ull << shift, 0), "");
  zn_lval has = LLVMBuildICmp(k->b, LLVMIntNE, field, LLVMConstInt(m->i64, 0, 0), "");
  return LLVMBuildSelect(k->b, has, LLVMConstInt(m->i64, bit, 0), LLVMConstInt(m->i64, 0, 0), "");
}

static void features_aarch64(zn_lmaker *k) {
  zn_lval dot = id_field(k, "ID_AA64ISAR0_EL1", 44, ZN_FEAT_DOTPROD);
  zn_lval mm = id_field(k, "ID_AA64ISAR1_EL1", 52, ZN_FEAT_I8MM);
  LLVMBuildRet(k->b, LLVMBuildOr(k->b, dot, mm, ""));
}

static zn_lval detect_fn(zn_lmod *m) {
  zn_lmaker k = begin(m, "zn_detect", m->i64, NULL, 0);
  if (m->arch == ZN_LA_X86) features_x86(&k);
  else if (m->arch == ZN_LA_RISCV) zn_lm_features_riscv(&k);
  else features_aarch64(&k);
  LLVMDisposeBuilder(k.b);
  return k.fn;
}

static zn_lval atomically(zn_lval access) {
  LLVMSetOrdering(access, LLVMAtomicOrderingMonotonic);
  LLVMSetAlignment(access, 8);
  return access;
}

/* CPUID leaves a virtual machine each time, and a read of an Arm identification register or a system call the program, which
 * costs what a small network costs. So the answer is kept, in the one word that an artifact writes; whoever asks at the same
 * time writes the same. In .data: behind .bss come the constants. */
static void features_kept(zn_lmaker *k) {
  enum { ASKED = 63 };
  zn_lmod *m = k->m;
  zn_lval detect = detect_fn(m), word = LLVMAddGlobal(m->lm, m->i64, "zn_cpu");
  LLVMSetInitializer(word, LLVMConstInt(m->i64, 0, 0));
  LLVMSetLinkage(word, LLVMInternalLinkage);
  LLVMSetSection(word, ".data");
  LLVMSetAlignment(word, 8);
  LLVMBasicBlockRef known = zn_lm_block(k), ask = zn_lm_block(k);
  zn_lval have = atomically(LLVMBuildLoad2(k->b, m->i64, word, ""));
  LLVMBuildCondBr(k->b, LLVMBuildICmp(k->b, LLVMIntNE, have, LLVMConstInt(m->i64, 0, 0), ""), known, ask);
  zn_lm_at(k, known);
  LLVMBuildRet(k->b, have);
  zn_lm_at(k, ask);
  zn_lval bits = LLVMBuildCall2(k->b, LLVMGlobalGetValueType(detect), detect, NULL, 0, "");
  bits = LLVMBuildOr(k->b, bits, LLVMConstInt(m->i64, 1ull << ASKED, 0), "");
  atomically(LLVMBuildStore(k->b, bits, word));
  LLVMBuildRet(k->b, bits);
}

zn_lval zn_lm_features_fn(zn_lmod *m) {
  if (m->features_fn) return m->features_fn;
  zn_lmaker k = begin(m, "zn_features", m->i64, NULL, 0);
  if (zn_lm_asks(m)) features_kept(&k);
  else LLVMBuildRet(k.b, LLVMConstInt(m->i64, ~0ull, 0));
  LLVMDisposeBuilder(k.b);
  return m->features_fn = k.fn;
}

/* ---- several instruction sets ---- */

zn_lval zn_lm_dispatch_fn(zn_lmod *m, const char *what, const zn_lval *fns) {
  zn_lval features = zn_lm_features_fn(m), args[5];
  zn_lmaker k = {m, LLVMAddFunction(m->lm, zn_arena_printf(m->a, "%s_%s", m->mod->name, what), m->entry_type),
             LLVMCreateBuilderInContext(m->lc)};
  zn_lm_function_attrs(m, k.fn, true);
  LLVMGetParams(k.fn, args);
  zn_lm_at(&k, zn_lm_block(&k));
  zn_lval have = LLVMBuildCall2(k.b, LLVMGlobalGetValueType(features), features, NULL, 0, "");
  for (uint32_t i = 0; i < m->num_variants; i++) {
    LLVMBasicBlockRef yes = zn_lm_block(&k), no = zn_lm_block(&k);
    zn_lval need = LLVMConstInt(m->i64, m->variants[i].caps->feature_bits, 0);
    zn_lval fits = LLVMBuildICmp(k.b, LLVMIntEQ, LLVMBuildAnd(k.b, have, need, ""), need, "");
    LLVMBuildCondBr(k.b, fits, yes, no);
    zn_lm_at(&k, yes);
    LLVMBuildRet(k.b, LLVMBuildCall2(k.b, m->entry_type, fns[i], args, 5, ""));
    zn_lm_at(&k, no);
  }
  LLVMBuildRet(k.b, c32(&k, ZN_RUN_CPU));
  LLVMDisposeBuilder(k.b);
  return k.fn;
}

/* ---- launch ---- */

static zn_lval host_field(zn_lmaker *k, zn_lval host, unsigned field) {
  zn_lval i = c32(k, field);
  zn_lval p = LLVMBuildGEP2(k->b, k->m->ptr, host, &i, 1, "");
  return LLVMBuildLoad2(k->b, k->m->ptr, p, "");
}

static void call_profile(zn_lmaker *k, zn_lval prof, zn_lval user, zn_lval number, unsigned is_begin) {
  zn_lmod *m = k->m;
  zn_ltype pt[3] = {m->ptr, m->i32, m->i32};
  LLVMBasicBlockRef yes = zn_lm_block(k), next = zn_lm_block(k);
  LLVMBuildCondBr(k->b, LLVMBuildIsNull(k->b, prof, ""), next, yes);
  zn_lm_at(k, yes);
  zn_lval args[3] = {user, number, c32(k, is_begin)};
  LLVMBuildCall2(k->b, LLVMFunctionType(m->none, pt, 3, 0), prof, args, 3, "");
  LLVMBuildBr(k->b, next);
  zn_lm_at(k, next);
}

static void call_kernel(zn_lmaker *k, zn_lval n) {
  zn_lval args[4] = {LLVMGetParam(k->fn, 1), LLVMGetParam(k->fn, 2), LLVMConstInt(k->m->idx, 0, 0), n};
  LLVMBuildCall2(k->b, k->m->kernel_type, LLVMGetParam(k->fn, 0), args, 4, "");
}

static void call_parallel(zn_lmaker *k, zn_lval hook, zn_lval user, zn_lval n) {
  zn_lmod *m = k->m;
  zn_ltype pt[5] = {m->ptr, m->ptr, m->ptr, m->ptr, m->idx};
  zn_lval args[5] = {user, LLVMGetParam(k->fn, 0), LLVMGetParam(k->fn, 1), LLVMGetParam(k->fn, 2), n};
  LLVMBuildCall2(k->b, LLVMFunctionType(m->none, pt, 5, 0), hook, args, 5, "");
}

/* void launch(kernel, bufs, ints, n, host, number, alone): split over threads when n > alone */
zn_lval zn_lm_launch_fn(zn_lmod *m) {
  if (m->launch_fn) return m->launch_fn;
  zn_ltype pt[7] = {m->ptr, m->ptr, m->ptr, m->idx, m->ptr, m->i32, m->idx};
  zn_lmaker k = begin(m, "zn_launch", m->none, pt, 7);
  zn_lval n = LLVMGetParam(k.fn, 3), host = LLVMGetParam(k.fn, 4), number = LLVMGetParam(k.fn, 5);
  LLVMBasicBlockRef alone = zn_lm_block(&k), hosted = zn_lm_block(&k), par = zn_lm_block(&k), ser = zn_lm_block(&k),
                    end = zn_lm_block(&k);
  LLVMBuildCondBr(k.b, LLVMBuildIsNull(k.b, host, ""), alone, hosted);
  zn_lm_at(&k, alone);
  call_kernel(&k, n);
  LLVMBuildRetVoid(k.b);
  zn_lm_at(&k, hosted);
  zn_lval user = host_field(&k, host, 0), hook = host_field(&k, host, 1);
  zn_lval prof = host_field(&k, host, 2);
  call_profile(&k, prof, user, number, 1);
  zn_lval many = LLVMBuildICmp(k.b, LLVMIntSGT, n, LLVMGetParam(k.fn, 6), "");
  zn_lval can = LLVMBuildIsNotNull(k.b, hook, "");
  LLVMBuildCondBr(k.b, LLVMBuildAnd(k.b, many, can, ""), par, ser);
  zn_lm_at(&k, par);
  call_parallel(&k, hook, user, n);
  LLVMBuildBr(k.b, end);
  zn_lm_at(&k, ser);
  call_kernel(&k, n);
  LLVMBuildBr(k.b, end);
  zn_lm_at(&k, end);
  call_profile(&k, prof, user, number, 0);
  LLVMBuildRetVoid(k.b);
  LLVMDisposeBuilder(k.b);
  return m->launch_fn = k.fn;
}

/* ---- division ---- */

/* Schoolbook, one quotient bit a round: r = r*2 + next bit of a; if r >= b, subtract and set the bit. */
zn_lval zn_lm_udiv_fn(zn_lmod *m) {
  if (m->udiv_fn) return m->udiv_fn;
  zn_ltype pt[3] = {m->i64, m->i64, m->i1};
  zn_lmaker k = begin(m, "zn_udiv64", m->i64, pt, 3);
  LLVMBuilderRef b = k.b;
  zn_lval y = LLVMGetParam(k.fn, 1), one = LLVMConstInt(m->i64, 1, 0);
  LLVMBasicBlockRef from[2] = {LLVMGetInsertBlock(b), zn_lm_block(&k)}, done = zn_lm_block(&k);
  LLVMBuildBr(b, from[1]);
  zn_lm_at(&k, from[1]);
  zn_lval n = LLVMBuildPhi(b, m->i32, ""), a = LLVMBuildPhi(b, m->i64, ""), r = LLVMBuildPhi(b, m->i64, "");
  zn_lval top = LLVMBuildLShr(b, a, LLVMConstInt(m->i64, 63, 0), "");
  zn_lval r2 = LLVMBuildOr(b, LLVMBuildShl(b, r, one, ""), top, "");
  /* The bit shifted out of r makes it larger than any b. */
  zn_lval carry = LLVMBuildICmp(b, LLVMIntSLT, r, LLVMConstInt(m->i64, 0, 0), "");
  zn_lval ge = LLVMBuildOr(b, carry, LLVMBuildICmp(b, LLVMIntUGE, r2, y, ""), "");
  zn_lval r3 = LLVMBuildSelect(b, ge, LLVMBuildSub(b, r2, y, ""), r2, "");
  zn_lval shifted = LLVMBuildShl(b, a, one, ""), bit = LLVMBuildZExt(b, ge, m->i64, "");
  zn_lval a2 = LLVMBuildOr(b, shifted, bit, "");
  zn_lval n2 = LLVMBuildAdd(b, n, c32(&k, 1), "");
  LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntULT, n2, c32(&k, 64), ""), from[1], done);
  zn_lval vn[2] = {c32(&k, 0), n2}, va[2] = {LLVMGetParam(k.fn, 0), a2};
  zn_lval vr[2] = {LLVMConstInt(m->i64, 0, 0), r3};
  LLVMAddIncoming(n, vn, from, 2);
  LLVMAddIncoming(a, va, from, 2);
  LLVMAddIncoming(r, vr, from, 2);
  zn_lm_at(&k, done);
  LLVMBuildRet(b, LLVMBuildSelect(b, LLVMGetParam(k.fn, 2), r3, a2, ""));
  LLVMDisposeBuilder(b);
  return m->udiv_fn = k.fn;
}
