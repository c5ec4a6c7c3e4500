/* Conversions. f16 and bf16 live in registers as their bits; narrowing to them rounds once, from f64 by way of an f32
 * rounded to odd. Float to integer saturates with compares on x86 and with the machine's own instruction elsewhere. */
#include "codegen/llvm/llvm_priv.h"

typedef struct cvt {
  zn_lfun *s;
  zn_lmod *m;
  LLVMBuilderRef b;
  unsigned lanes;
} cvt;

static zn_ltype ty(const cvt *c, zn_dtype t) { return zn_lm_type(c->m, t, c->lanes); }
static zn_lval ci(const cvt *c, zn_dtype t, int64_t v) { return zn_lm_int(c->m, t, c->lanes, v); }
static zn_lval cf(const cvt *c, zn_dtype t, double v) { return zn_lm_float(c->m, t, c->lanes, v); }

static zn_lval widen16(const cvt *c, zn_dtype from, zn_lval x) {
  if (from == ZN_BF16) {
    zn_lval w = LLVMBuildZExt(c->b, x, ty(c, ZN_U32), "");
    w = LLVMBuildShl(c->b, w, ci(c, ZN_U32, 16), "");
    return LLVMBuildBitCast(c->b, w, ty(c, ZN_F32), "");
  }
  if (!c->m->caps->f16_convert) ZN_BUG(c->m->ctx, "%s: f16 conversion was not expanded", c->s->f->name);
  zn_lval h = LLVMBuildBitCast(c->b, x, zn_lm_vec(c->m->f16, c->lanes), "");
  return LLVMBuildFPExt(c->b, h, ty(c, ZN_F32), "");
}

/* f64 -> f32 rounded to odd: a later rounding to fewer bits is then correct. */
static zn_lval odd_f32(const cvt *c, zn_lval x) {
  zn_ltype tf64 = ty(c, ZN_F64), tu32 = ty(c, ZN_U32);
  zn_lval f = LLVMBuildFPTrunc(c->b, x, ty(c, ZN_F32), "");
  zn_lval back = LLVMBuildFPExt(c->b, f, tf64, "");
  zn_lval inexact = LLVMBuildFCmp(c->b, LLVMRealONE, back, x, "");
  zn_lval ab = zn_lm_intrinsic(c->m, "llvm.fabs", tf64, &back, 1);
  zn_lval ax = zn_lm_intrinsic(c->m, "llvm.fabs", tf64, &x, 1);
  zn_lval away = LLVMBuildFCmp(c->b, LLVMRealOGT, ab, ax, "");
  zn_lval bits = LLVMBuildBitCast(c->b, f, tu32, "");
  zn_lval down = LLVMBuildSub(c->b, bits, LLVMBuildZExt(c->b, away, tu32, ""), "");
  zn_lval odd = LLVMBuildOr(c->b, down, ci(c, ZN_U32, 1), "");
  zn_lval r = LLVMBuildSelect(c->b, inexact, odd, bits, "");
  return LLVMBuildBitCast(c->b, r, ty(c, ZN_F32), "");
}

static zn_lval narrow16(const cvt *c, zn_dtype to, zn_lval x) {
  if (to == ZN_F16) {
    if (!c->m->caps->f16_convert)
      ZN_BUG(c->m->ctx, "%s: f16 conversion was not expanded", c->s->f->name);
    zn_lval h = LLVMBuildFPTrunc(c->b, x, zn_lm_vec(c->m->f16, c->lanes), "");
    return LLVMBuildBitCast(c->b, h, ty(c, ZN_U16), "");
  }
  zn_lval bits = LLVMBuildBitCast(c->b, x, ty(c, ZN_U32), "");
  zn_lval high = LLVMBuildLShr(c->b, bits, ci(c, ZN_U32, 16), "");
  zn_lval lsb = LLVMBuildAnd(c->b, high, ci(c, ZN_U32, 1), "");
  zn_lval bias = LLVMBuildAdd(c->b, lsb, ci(c, ZN_U32, 0x7fff), "");
  zn_lval r = LLVMBuildLShr(c->b, LLVMBuildAdd(c->b, bits, bias, ""), ci(c, ZN_U32, 16), "");
  zn_lval nan = LLVMBuildFCmp(c->b, LLVMRealUNO, x, x, "");
  r = LLVMBuildSelect(c->b, nan, LLVMBuildOr(c->b, high, ci(c, ZN_U32, 0x40), ""), r, "");
  return LLVMBuildTrunc(c->b, r, ty(c, ZN_U16), "");
}

static double pow2(unsigned n) {
  double r = 1;
  while (n--) r *= 2;
  return r;
}

static zn_lval float_to_int(const cvt *c, zn_dtype from, zn_dtype to, zn_lval x, bool fast) {
  zn_ltype rt = ty(c, to);
  bool sg = zn_is_signed(to);
  if (fast) {
    zn_lval r = sg ? LLVMBuildFPToSI(c->b, x, rt, "") : LLVMBuildFPToUI(c->b, x, rt, "");
    return LLVMBuildFreeze(c->b, r, "");
  }
  if (c->m->arch != ZN_LA_X86) {
    const char *name = sg ? "llvm.fptosi.sat" : "llvm.fptoui.sat";
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    zn_ltype over[2] = {rt, LLVMTypeOf(x)};
    zn_lval fn = LLVMGetIntrinsicDeclaration(c->m->lm, id, over, 2);
    return LLVMBuildCall2(c->b, LLVMIntrinsicGetType(c->m->lc, id, over, 2), fn, &x, 1, "");
  }
  unsigned bits = LLVMGetIntTypeWidth(zn_lm_scalar(c->m, to));
  zn_lval r = sg ? LLVMBuildFPToSI(c->b, x, rt, "") : LLVMBuildFPToUI(c->b, x, rt, "");
  double top = pow2(sg ? bits - 1 : bits);
  uint64_t ones = bits == 64 ? ~0ull : (1ull << bits) - 1;
  int64_t max = (int64_t)(sg ? ones >> 1 : ones), min = sg ? -max - 1 : 0;
  zn_lval over = LLVMBuildFCmp(c->b, LLVMRealOGE, x, cf(c, from, top), "");
  zn_lval under = LLVMBuildFCmp(c->b, LLVMRealOLT, x, cf(c, from, sg ? -top : 0), "");
  zn_lval nan = LLVMBuildFCmp(c->b, LLVMRealUNO, x, x, "");
  r = LLVMBuildSelect(c->b, over, ci(c, to, max), r, "");
  r = LLVMBuildSelect(c->b, under, ci(c, to, min), r, "");
  return LLVMBuildSelect(c->b, nan, ci(c, to, 0), r, "");
}

static zn_lval to_bool(const cvt *c, zn_dtype from, zn_lval x) {
  if (from == ZN_F32 || from == ZN_F64)
    return LLVMBuildFCmp(c->b, LLVMRealUNE, x, cf(c, from, 0), "");
  if (zn_is_float(from)) x = LLVMBuildAnd(c->b, x, ci(c, ZN_U16, 0x7fff), "");
  zn_ltype t = LLVMTypeOf(x);
  return LLVMBuildICmp(c->b, LLVMIntNE, x, LLVMConstNull(t), "");
}

/* 64-bit integer to f64 where LLVM would call a library: high * 2^32 + low is rounded once, by the sum. */
static zn_lval long_to_double(const cvt *c, bool sg, zn_lval x) {
  zn_ltype f64 = ty(c, ZN_F64), i32 = ty(c, ZN_I32);
  zn_lval high = LLVMBuildTrunc(c->b, LLVMBuildLShr(c->b, x, ci(c, ZN_U64, 32), ""), i32, "");
  zn_lval low = LLVMBuildUIToFP(c->b, LLVMBuildTrunc(c->b, x, i32, ""), f64, "");
  high = sg ? LLVMBuildSIToFP(c->b, high, f64, "") : LLVMBuildUIToFP(c->b, high, f64, "");
  high = LLVMBuildFMul(c->b, high, cf(c, ZN_F64, 4294967296.0), "");
  return LLVMBuildFAdd(c->b, high, low, "");
}

static zn_lval convert(const cvt *c, zn_dtype from, zn_dtype to, zn_lval x, bool fast) {
  if (from == to) return x;
  if (to == ZN_BOOL) return to_bool(c, from, x);
  bool from16 = from == ZN_F16 || from == ZN_BF16;
  if (from16) return convert(c, ZN_F32, to, widen16(c, from, x), fast);
  bool from_float = zn_is_float(from), to_float = zn_is_float(to);
  if (to == ZN_F16 || to == ZN_BF16) {
    if (from == ZN_F32) return narrow16(c, to, x);
    if (from == ZN_F64) return narrow16(c, to, odd_f32(c, x));
    /* Integers of at most 24 bits are exact in f32; larger ones overflow f16 either way. */
    bool small = from == ZN_BOOL || zn_dtype_bytes(from) == 1 || zn_dtype_bytes(from) == 2;
    zn_dtype mid = small || to == ZN_F16 ? ZN_F32 : ZN_F64;
    return convert(c, mid, to, convert(c, from, mid, x, fast), fast);
  }
  zn_ltype rt = ty(c, to);
  if (from == ZN_BOOL && to_float)
    return LLVMBuildSelect(c->b, x, cf(c, to, 1), cf(c, to, 0), "");
  if (from_float && to_float)
    return to == ZN_F64 ? LLVMBuildFPExt(c->b, x, rt, "") : LLVMBuildFPTrunc(c->b, x, rt, "");
  if (from_float) return float_to_int(c, from, to, x, fast);
  bool sg = zn_is_signed(from);
  if (to == ZN_F64 && zn_dtype_bytes(from) == 8 && c->m->arch == ZN_LA_ARM)
    return long_to_double(c, sg, x);
  if (to_float)
    return sg ? LLVMBuildSIToFP(c->b, x, rt, "") : LLVMBuildUIToFP(c->b, x, rt, "");
  return LLVMBuildIntCast2(c->b, x, rt, sg, "");
}

static zn_lval bitcast(const cvt *c, zn_dtype from, zn_dtype to, zn_lval x) {
  zn_ltype rt = ty(c, to);
  if (from == ZN_PTR && to == ZN_PTR) return x;
  if (from == ZN_PTR) return LLVMBuildPtrToInt(c->b, x, rt, "");
  if (to == ZN_PTR) return LLVMBuildIntToPtr(c->b, x, rt, "");
  if (from == ZN_BOOL && to != ZN_BOOL) return LLVMBuildZExt(c->b, x, rt, "");
  if (to == ZN_BOOL && from != ZN_BOOL) return to_bool(c, ZN_U8, x);
  return LLVMBuildBitCast(c->b, x, rt, "");
}

/* Vectors of 64-bit lanes on Arm's M profile: LLVM would widen 32-bit lanes to 64 bits and call a library for each. */
static zn_lval one_by_one(const cvt *c, zn_dtype from, zn_dtype to, zn_lval x, bool fast) {
  cvt one = *c;
  one.lanes = 1;
  zn_lval r = LLVMGetPoison(ty(c, to));
  for (unsigned i = 0; i < c->lanes; i++) {
    zn_lval k = LLVMConstInt(c->m->i32, i, 0);
    zn_lval e = convert(&one, from, to, LLVMBuildExtractElement(c->b, x, k, ""), fast);
    r = LLVMBuildInsertElement(c->b, r, e, k, "");
  }
  return r;
}

zn_lval zn_lf_convert(zn_lfun *s, const zn_kinst *in) {
  cvt c = {s, s->m, s->m->b, in->lanes};
  if (in->op == ZN_K_Select)
    return LLVMBuildSelect(c.b, s->v[in->a], zn_lf_opnd(s, in->b, in->lanes),
                           zn_lf_opnd(s, in->c, in->lanes), "");
  zn_dtype from = (zn_dtype)s->f->insts[in->a].dtype, to = (zn_dtype)in->dtype;
  zn_lval x = zn_lf_opnd(s, in->a, in->lanes);
  if (in->op == ZN_K_Bitcast) return bitcast(&c, from, to, x);
  const bool fast = in->op == ZN_K_CvtFast, wide = from == ZN_F64 || to == ZN_F64;
  if (s->m->arch == ZN_LA_ARM && wide && in->lanes > 1) return one_by_one(&c, from, to, x, fast);
  return convert(&c, from, to, x, fast);
}
