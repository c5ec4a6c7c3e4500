/* Has the processor the V extension, version 1.0? Programs may not read RISC-V's own registers of that, so Linux is asked,
 * without a library: riscv_hwprobe (Linux 6.4; V since 6.5). Where there is no such call, the auxiliary vector of the
 * process says V, but there are kernels that say so of version 0.7, whose instructions mean something else: it knows no
 * tail and mask policies, and marks a vector type that asks for them as unusable. */
#include "codegen/llvm/llvm_priv.h"
#include "zenithc/base/caps.h"

enum {
  SYS_OPENAT = 56, SYS_CLOSE = 57, SYS_READ = 63, SYS_RISCV_HWPROBE = 258,
  ENOSYS = 38,
  HERE = -100, /* AT_FDCWD */
  HWPROBE_KEY_IMA_EXT_0 = 4, HWPROBE_IMA_V = 1 << 2,
  AT_HWCAP = 16, HWCAP_V = 1 << ('v' - 'a'),
  AUXV_BYTES = 1024
};

static zn_lval c64(zn_lmaker *k, int64_t v) { return LLVMConstInt(k->m->i64, (uint64_t)v, 1); }

/* A system call of up to five arguments, the last two 0; i64: its result, or a negative error. */
static zn_lval system_call(zn_lmaker *k, int64_t number, zn_lval a0, zn_lval a1, zn_lval a2) {
  zn_ltype six[6];
  for (int i = 0; i < 6; i++) six[i] = k->m->i64;
  zn_ltype ft = LLVMFunctionType(k->m->i64, six, 6, 0);
  static const char text[] = "ecall", cons[] = "={x10},{x17},{x10},{x11},{x12},{x13},{x14},~{memory}";
  zn_lval as = LLVMGetInlineAsm(ft, text, sizeof text - 1, cons, sizeof cons - 1, 1, 0, LLVMInlineAsmDialectATT, 0);
  zn_lval zero = c64(k, 0), args[6] = {c64(k, number), a0, a1, a2, zero, zero};
  return LLVMBuildCall2(k->b, ft, as, args, 6, "");
}

static zn_lval address(zn_lmaker *k, zn_lval p) { return LLVMBuildPtrToInt(k->b, p, k->m->i64, ""); }

static zn_lval word(zn_lmaker *k, zn_lval p, zn_lval bytes) {
  return LLVMBuildLoad2(k->b, k->m->i64, LLVMBuildGEP2(k->b, k->m->i8, p, &bytes, 1, ""), "");
}

static zn_lval has(zn_lmaker *k, zn_lval v, int64_t bit) {
  return LLVMBuildICmp(k->b, LLVMIntNE, LLVMBuildAnd(k->b, v, c64(k, bit), ""), c64(k, 0), "");
}

static zn_lval room(zn_lmaker *k, unsigned bytes) {
  zn_lval p = LLVMBuildAlloca(k->b, LLVMArrayType2(k->m->i8, bytes), "");
  LLVMSetAlignment(p, 16);
  return p;
}

/* Does this V know tail and mask policies? */
static zn_lval is_version_1(zn_lmaker *k) {
  zn_ltype ft = LLVMFunctionType(k->m->i64, NULL, 0, 0);
  static const char text[] = ".option push\n.option arch, +v\nvsetvli $0, zero, e8, m1, ta, ma\ncsrr $0, vtype\n.option pop";
  static const char cons[] = "=r,~{vl},~{vtype}";
  zn_lval as = LLVMGetInlineAsm(ft, text, sizeof text - 1, cons, sizeof cons - 1, 1, 0, LLVMInlineAsmDialectATT, 0);
  return LLVMBuildICmp(k->b, LLVMIntSGE, LLVMBuildCall2(k->b, ft, as, NULL, 0, ""), c64(k, 0), "");
}

/* The hardware word of the auxiliary vector, as far as it says V, in the variable `out`. */
static void read_auxv(zn_lmaker *k, zn_lval buffer, zn_lval out) {
  LLVMBuilderRef b = k->b;
  static const char path[] = "/proc/self/auxv";
  zn_lval text = LLVMConstStringInContext2(k->m->lc, path, sizeof path, 1);
  zn_lval name = LLVMAddGlobal(k->m->lm, LLVMTypeOf(text), "zn_auxv");
  LLVMSetInitializer(name, text);
  LLVMSetLinkage(name, LLVMPrivateLinkage);
  LLVMSetGlobalConstant(name, 1);
  zn_lval file = system_call(k, SYS_OPENAT, c64(k, HERE), address(k, name), c64(k, 0));
  LLVMBasicBlockRef opened = zn_lm_block(k), loop = zn_lm_block(k), entry = zn_lm_block(k), found = zn_lm_block(k);
  LLVMBasicBlockRef end = zn_lm_block(k);
  LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntSGE, file, c64(k, 0), ""), opened, end);
  zn_lm_at(k, opened);
  zn_lval got = system_call(k, SYS_READ, file, address(k, buffer), c64(k, AUXV_BYTES));
  system_call(k, SYS_CLOSE, file, c64(k, 0), c64(k, 0));
  LLVMBuildBr(b, loop);
  zn_lm_at(k, loop);
  zn_lval i = LLVMBuildPhi(b, k->m->i64, ""), first = c64(k, 0), next = LLVMBuildAdd(b, i, c64(k, 16), "");
  LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntSLE, next, got, ""), entry, end);
  zn_lm_at(k, entry);
  zn_lval key = word(k, buffer, i);
  LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntEQ, key, c64(k, AT_HWCAP), ""), found, loop);
  LLVMAddIncoming(i, &first, &opened, 1);
  LLVMAddIncoming(i, &next, &entry, 1);
  zn_lm_at(k, found);
  zn_lval value_at = LLVMBuildAdd(b, i, c64(k, 8), "");
  LLVMBuildStore(b, word(k, buffer, value_at), out);
  LLVMBuildBr(b, end);
  zn_lm_at(k, end);
}

void zn_lm_features_riscv(zn_lmaker *k) {
  zn_lmod *m = k->m;
  LLVMBuilderRef b = k->b;
    zn_lval pair = room(k, 16), hwcap = room(k, 8), buffer = room(k, AUXV_BYTES);
  zn_lval bit = c64(k, ZN_FEAT_RVV), none = c64(k, 0);
  LLVMBuildStore(b, c64(k, HWPROBE_KEY_IMA_EXT_0), pair);
  zn_lval to_value = c64(k, 8), value = LLVMBuildGEP2(b, m->i8, pair, &to_value, 1, "");
  LLVMBuildStore(b, none, value);
  LLVMBuildStore(b, none, hwcap);
  zn_lval r = system_call(k, SYS_RISCV_HWPROBE, address(k, pair), c64(k, 1), none);
  LLVMBasicBlockRef answered = zn_lm_block(k), old = zn_lm_block(k), vectors = zn_lm_block(k);
  LLVMBasicBlockRef without = zn_lm_block(k);
  LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntEQ, r, c64(k, -ENOSYS), ""), old, answered);
  zn_lm_at(k, answered);
  zn_lval v = has(k, LLVMBuildLoad2(b, m->i64, value, ""), HWPROBE_IMA_V);
  v = LLVMBuildAnd(b, v, LLVMBuildICmp(b, LLVMIntEQ, r, none, ""), "");
  LLVMBuildRet(b, LLVMBuildSelect(b, v, bit, none, ""));
  zn_lm_at(k, old);
  read_auxv(k, buffer, hwcap);
  LLVMBuildCondBr(b, has(k, LLVMBuildLoad2(b, m->i64, hwcap, ""), HWCAP_V), vectors, without);
  zn_lm_at(k, vectors);
  LLVMBuildRet(b, LLVMBuildSelect(b, is_version_1(k), bit, none, ""));
  zn_lm_at(k, without);
  LLVMBuildRet(b, none);
}
