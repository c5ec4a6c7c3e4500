/* Dot4, Dot2 and Dot2Bf16 as instructions: vpdpbusd, vpmaddubsw, vpmaddwd, vdpbf16ps, sdot, udot, usdot, smlal, smlad. Only forms
 * that zn_dot4_native and its like grant arrive here. Vectors are cut to the widths that have the instruction. */
#include <assert.h>

#include "codegen/llvm/llvm_priv.h"

static zn_lval call(zn_lfun *s, const char *name, zn_ltype *over, unsigned num_over, zn_lval *args, unsigned n) {
  zn_lmod *m = s->m;
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  assert(id != 0);
  zn_lval fn = LLVMGetIntrinsicDeclaration(m->lm, id, over, num_over);
  return LLVMBuildCall2(m->b, LLVMIntrinsicGetType(m->lc, id, over, num_over), fn, args, n, "");
}

static zn_lval as_lanes(zn_lfun *s, zn_lval v, zn_ltype elem, unsigned lanes) {
  return LLVMBuildBitCast(s->m->b, v, zn_lm_vec(elem, lanes), "");
}

static zn_lval ones16(const zn_lmod *m, unsigned lanes) {
  return zn_lm_splat_const(LLVMConstInt(m->i16, 1, 0), lanes);
}

/* Sums of neighbouring products of 16 bits; n 32-bit lanes. */
static zn_lval madd16(zn_lfun *s, zn_lval x, zn_lval y, unsigned n) {
  const char *name = n == 4 ? "llvm.x86.sse2.pmadd.wd" : n == 8 ? "llvm.x86.avx2.pmadd.wd" : "llvm.x86.avx512.pmaddw.d.512";
  zn_lval args[2] = {as_lanes(s, x, s->m->i16, 2 * n), as_lanes(s, y, s->m->i16, 2 * n)};
  return call(s, name, NULL, 0, args, 2);
}

static zn_lval x86_dot(zn_lfun *s, const zn_kinst *in, zn_lval x, zn_lval y, zn_lval acc, unsigned n) {
  zn_lmod *m = s->m;
  LLVMBuilderRef b = m->b;
  bool vnni = m->caps->dot4 == ZN_DOT4_MIXED;
  zn_lval args[3] = {acc, x, y};
  if (in->op == ZN_K_Dot2Bf16) {
    static const char *const names[] = {"llvm.x86.avx512bf16.dpbf16ps.128", "llvm.x86.avx512bf16.dpbf16ps.256",
                                        "llvm.x86.avx512bf16.dpbf16ps.512"};
    zn_ltype half = LLVMBFloatTypeInContext(m->lc);
    zn_lval reals[3] = {as_lanes(s, acc, m->f32, n), as_lanes(s, x, half, 2 * n), as_lanes(s, y, half, 2 * n)};
    return as_lanes(s, call(s, names[n == 4 ? 0 : n == 8 ? 1 : 2], NULL, 0, reals, 3), m->i32, n);
  }
  if (vnni) {
    static const char *const names[2][3] = {
        {"llvm.x86.avx512.vpdpwssd.128", "llvm.x86.avx512.vpdpwssd.256", "llvm.x86.avx512.vpdpwssd.512"},
        {"llvm.x86.avx512.vpdpbusd.128", "llvm.x86.avx512.vpdpbusd.256", "llvm.x86.avx512.vpdpbusd.512"}};
    return call(s, names[in->op == ZN_K_Dot4][n == 4 ? 0 : n == 8 ? 1 : 2], NULL, 0, args, 3);
  }
  if (in->op == ZN_K_Dot2) return LLVMBuildAdd(b, acc, madd16(s, x, y, n), "");
  int64_t c;
  const char *name = n == 4   ? "llvm.x86.ssse3.pmadd.ub.sw.128"
                     : n == 8 ? "llvm.x86.avx2.pmadd.ub.sw"
                              : "llvm.x86.avx512.pmaddubs.w.512";
  zn_lval bytes[2] = {as_lanes(s, x, m->i8, 4 * n), as_lanes(s, y, m->i8, 4 * n)};
  zn_lval pairs = call(s, name, NULL, 0, bytes, 2);
  if (in->op == ZN_K_Pair4) {
    bool none = zn_kf_const_int(s->f, in->c, &c) && c == 0;
    zn_lval sum = none ? pairs : LLVMBuildAdd(b, as_lanes(s, acc, m->i16, 2 * n), pairs, "");
    return as_lanes(s, sum, m->i32, n);
  }
  return LLVMBuildAdd(b, acc, madd16(s, pairs, ones16(m, 2 * n), n), "");
}

/* The even or odd ones of twice n lanes. */
static zn_lval every_other(zn_lfun *s, zn_lval v, unsigned n, unsigned first) {
  zn_lval mask[64];
  for (unsigned j = 0; j < n; j++) mask[j] = LLVMConstInt(s->m->i32, 2 * j + first, 0);
  return LLVMBuildShuffleVector(s->m->b, v, LLVMGetPoison(LLVMTypeOf(v)), LLVMConstVector(mask, n), "");
}

/* Lanes [first, first + n) of v. */
static zn_lval slice(zn_lfun *s, zn_lval v, unsigned first, unsigned n) {
  zn_lval mask[64];
  for (unsigned j = 0; j < n; j++) mask[j] = LLVMConstInt(s->m->i32, first + j, 0);
  return LLVMBuildShuffleVector(s->m->b, v, LLVMGetPoison(LLVMTypeOf(v)), LLVMConstVector(mask, n), "");
}

/* n products of signed elements at twice the width: smull and smull2. */
static zn_lval long_products(zn_lfun *s, zn_lval x, zn_lval y, zn_ltype narrow, zn_ltype wide, unsigned n) {
  LLVMBuilderRef b = s->m->b;
  zn_lval xw = LLVMBuildSExt(b, as_lanes(s, x, narrow, n), zn_lm_vec(wide, n), "");
  zn_lval yw = LLVMBuildSExt(b, as_lanes(s, y, narrow, n), zn_lm_vec(wide, n), "");
  return LLVMBuildMul(b, xw, yw, "");
}

static zn_lval neighbours(zn_lfun *s, zn_lval v, unsigned n) {
  zn_lval even = every_other(s, v, n, 0), odd = every_other(s, v, n, 1);
  return LLVMBuildAdd(s->m->b, even, odd, "");
}

/* Without the instruction: products of 16 bits, added in pairs (addp, then sadalp) where two fit, else at 32 bits. */
static zn_lval neon_long_dot(zn_lfun *s, zn_lval x, zn_lval y, zn_lval acc, bool pairs_fit) {
  zn_lmod *m = s->m;
  zn_lval p = long_products(s, x, y, m->i8, m->i16, 16);
  zn_ltype over[2] = {zn_lm_vec(m->i32, 4), zn_lm_vec(m->i16, 8)};
  if (pairs_fit) {
    zn_lval pairs = neighbours(s, p, 8);
    return LLVMBuildAdd(m->b, acc, call(s, "llvm.aarch64.neon.saddlp", over, 2, &pairs, 1), "");
  }
  zn_lval half[2], sum[2], mask[8];
  for (unsigned h = 0; h < 2; h++) {
    half[h] = slice(s, p, 8 * h, 8);
    sum[h] = call(s, "llvm.aarch64.neon.saddlp", over, 2, &half[h], 1);
  }
  for (unsigned j = 0; j < 8; j++) mask[j] = LLVMConstInt(m->i32, j, 0);
  zn_lval both = LLVMBuildShuffleVector(m->b, sum[0], sum[1], LLVMConstVector(mask, 8), "");
  return LLVMBuildAdd(m->b, acc, neighbours(s, both, 4), "");
}

static zn_lval neon_dot(zn_lfun *s, const zn_kinst *in, zn_lval x, zn_lval y, zn_lval acc) {
  zn_lmod *m = s->m;
  LLVMBuilderRef b = m->b;
  if (in->op == ZN_K_Dot2) return LLVMBuildAdd(b, acc, neighbours(s, long_products(s, x, y, m->i16, m->i32, 8), 4), "");
  if (m->caps->dot4 == ZN_DOT4_SIGNED_PAIRS) return neon_long_dot(s, x, y, acc, in->imm.i & ZN_DOT_PAIRS);
  zn_ltype over[2] = {zn_lm_vec(m->i32, 4), zn_lm_vec(m->i8, 16)};
  zn_lval args[3] = {acc, as_lanes(s, x, m->i8, 16), as_lanes(s, y, m->i8, 16)};
  const unsigned signs = in->imm.i & (ZN_DOT_A_SIGNED | ZN_DOT_B_SIGNED);
  const char *name = signs == ZN_DOT_B_SIGNED ? "llvm.aarch64.neon.usdot"
                     : signs                  ? "llvm.aarch64.neon.sdot"
                                              : "llvm.aarch64.neon.udot";
  return call(s, name, over, 2, args, 3);
}

/* Bytes 0 and 2 (1 and 3) of x, extended to halves. */
static zn_lval halves(zn_lfun *s, zn_lval x, bool odd, bool is_signed) {
  zn_lmod *m = s->m;
  if (odd) {
    zn_lval args[3] = {x, x, LLVMConstInt(m->i32, 8, 0)};
    x = call(s, "llvm.fshr", &m->i32, 1, args, 3);
  }
  return call(s, is_signed ? "llvm.arm.sxtb16" : "llvm.arm.uxtb16", NULL, 0, &x, 1);
}

static zn_lval arm_dot(zn_lfun *s, const zn_kinst *in, zn_lval x, zn_lval y, zn_lval acc) {
  for (int odd = 0; odd < 2; odd++) {
    zn_lval args[3] = {x, y, acc};
    if (in->op == ZN_K_Dot4) {
      args[0] = halves(s, x, odd, in->imm.i & ZN_DOT_A_SIGNED);
      args[1] = halves(s, y, odd, in->imm.i & ZN_DOT_B_SIGNED);
    }
    acc = call(s, "llvm.arm.smlad", NULL, 0, args, 3);
    if (in->op == ZN_K_Dot2) break;
  }
  return acc;
}

static zn_lval dot_lanes(zn_lfun *s, const zn_kinst *in, zn_lval x, zn_lval y, zn_lval acc, unsigned n) {
  const unsigned widest = s->m->caps->vector_bytes / 4;
  if (s->m->arch == ZN_LA_ARM) return arm_dot(s, in, x, y, acc);
  if (n <= widest) return s->m->arch == ZN_LA_X86 ? x86_dot(s, in, x, y, acc, n) : neon_dot(s, in, x, y, acc);
  zn_lval half[2], mask[64];
  for (unsigned h = 0; h < 2; h++)
    half[h] = dot_lanes(s, in, slice(s, x, h * n / 2, n / 2), slice(s, y, h * n / 2, n / 2),
                        slice(s, acc, h * n / 2, n / 2), n / 2);
  for (unsigned j = 0; j < n; j++) mask[j] = LLVMConstInt(s->m->i32, j, 0);
  return LLVMBuildShuffleVector(s->m->b, half[0], half[1], LLVMConstVector(mask, n), "");
}

/* Pair4 is emitted where Dot2 takes its sum, whole chains at a time: jammed register tiles would otherwise hold the halves
 * of all their accumulators at once. */
static zn_lval operand(zn_lfun *s, zn_kref r, unsigned lanes) {
  return s->v[r] ? zn_lf_opnd(s, r, lanes) : zn_lf_dot_now(s, &s->f->insts[r]);
}

/* Do only dot products of as many lanes read the value of `in`? */
static bool feeds_dots_only(const zn_lfun *s, const zn_kinst *in) {
  const zn_kfunc *f = s->f;
  const zn_kref r = (zn_kref)(in - f->insts);
  for (uint32_t i = r + 1; i < f->num_insts; i++) {
    const zn_kinst *u = &f->insts[i];
    const char *sig = zn_kops[u->op].sig;
    bool sum = u->op == ZN_K_Dot2 && u->a == r && u->b != r && u->c != r;
    bool chain = u->op == ZN_K_Pair4 && u->c == r && u->a != r && u->b != r;
    if ((sum || chain) && u->lanes == in->lanes) continue;
    if ((sig[0] != '-' && u->a == r) || (sig[1] != '-' && u->b == r) || (sig[2] != '-' && u->c == r)) return false;
  }
  return true;
}

zn_lval zn_lf_dot(zn_lfun *s, const zn_kinst *in) {
  return in->op == ZN_K_Pair4 && feeds_dots_only(s, in) ? NULL : zn_lf_dot_now(s, in);
}

zn_lval zn_lf_dot_now(zn_lfun *s, const zn_kinst *in) {
  zn_lval x = operand(s, in->a, in->lanes), y = zn_lf_opnd(s, in->b, in->lanes);
  zn_lval acc = operand(s, in->c, in->lanes);
  bool native = in->op == ZN_K_Dot4    ? zn_dot4_native(s->m->caps, in->lanes, (unsigned)in->imm.i)
                : in->op == ZN_K_Pair4 ? zn_pair4_native(s->m->caps, in->lanes, (unsigned)in->imm.i)
                       : in->op == ZN_K_Dot2 ? zn_dot2_native(s->m->caps, in->lanes)
                                             : zn_dot2_bf16_native(s->m->caps, in->lanes);
  if (!native || in->lanes > 64) ZN_BUG(s->m->ctx, "%s: %s was not expanded", s->f->name, zn_kops[in->op].text);
  return dot_lanes(s, in, x, y, acc, in->lanes);
}
