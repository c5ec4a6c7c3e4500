/* Arithmetic, comparisons and vector operations, lane for lane as the kernel IR defines them: integers wrap, division
 * by zero is defined, shifts past the width are defined, min/max are a compare and a select, sums never reassociate. */
#include "codegen/llvm/llvm_priv.h"

zn_lval zn_lf_opnd(zn_lfun *s, zn_kref r, unsigned lanes) {
  zn_lval v = s->v[r];
  if (lanes == 1 || s->f->insts[r].lanes != 1) return v;
  if (LLVMIsConstant(v)) return zn_lm_splat_const(v, lanes);
  zn_lmod *m = s->m;
  zn_lval undef = LLVMGetPoison(LLVMVectorType(LLVMTypeOf(v), lanes));
  zn_lval one = LLVMBuildInsertElement(m->b, undef, v, LLVMConstInt(m->i32, 0, 0), "");
  zn_lval zeros = LLVMConstNull(LLVMVectorType(m->i32, lanes));
  return LLVMBuildShuffleVector(m->b, one, undef, zeros, "");
}

static bool is_signed(zn_dtype t) { return zn_is_signed(t); }
static bool arith_float(zn_dtype t) { return t == ZN_F32 || t == ZN_F64; }

static zn_lval compare(zn_lfun *s, zn_kop op, zn_dtype t, zn_lval x, zn_lval y) {
  LLVMBuilderRef b = s->m->b;
  if (arith_float(t)) {
    LLVMRealPredicate p = op == ZN_K_Eq   ? LLVMRealOEQ
                          : op == ZN_K_Ne ? LLVMRealUNE
                          : op == ZN_K_Lt ? LLVMRealOLT
                          : op == ZN_K_Le ? LLVMRealOLE
                          : op == ZN_K_Gt ? LLVMRealOGT
                                          : LLVMRealOGE;
    return LLVMBuildFCmp(b, p, x, y, "");
  }
  bool sg = is_signed(t);
  LLVMIntPredicate p = op == ZN_K_Eq   ? LLVMIntEQ
                       : op == ZN_K_Ne ? LLVMIntNE
                       : op == ZN_K_Lt ? (sg ? LLVMIntSLT : LLVMIntULT)
                       : op == ZN_K_Le ? (sg ? LLVMIntSLE : LLVMIntULE)
                       : op == ZN_K_Gt ? (sg ? LLVMIntSGT : LLVMIntUGT)
                                       : (sg ? LLVMIntSGE : LLVMIntUGE);
  return LLVMBuildICmp(b, p, x, y, "");
}

zn_lval zn_lf_compare(zn_lfun *s, const zn_kinst *in) {
  zn_dtype t = (zn_dtype)s->f->insts[in->a].dtype;
  return compare(s, (zn_kop)in->op, t, zn_lf_opnd(s, in->a, in->lanes),
                 zn_lf_opnd(s, in->b, in->lanes));
}

/* One 64-bit unsigned division on a machine without a divider that wide. */
static zn_lval soft_udiv(zn_lfun *s, zn_lval x, zn_lval y, bool rem) {
  zn_lval fn = zn_lm_udiv_fn(s->m);
  zn_lval args[3] = {x, y, LLVMConstInt(s->m->i1, rem, 0)};
  return LLVMBuildCall2(s->m->b, LLVMGlobalGetValueType(fn), fn, args, 3, "");
}

static zn_lval soft_div(zn_lfun *s, bool sg, bool rem, zn_lval x, zn_lval y) {
  LLVMBuilderRef b = s->m->b;
  if (!sg) return soft_udiv(s, x, y, rem);
  zn_lval zero = LLVMConstInt(s->m->i64, 0, 0);
  zn_lval nx = LLVMBuildICmp(b, LLVMIntSLT, x, zero, "");
  zn_lval ny = LLVMBuildICmp(b, LLVMIntSLT, y, zero, "");
  zn_lval ax = LLVMBuildSelect(b, nx, LLVMBuildNeg(b, x, ""), x, "");
  zn_lval ay = LLVMBuildSelect(b, ny, LLVMBuildNeg(b, y, ""), y, "");
  zn_lval r = soft_udiv(s, ax, ay, rem);
  zn_lval flip = rem ? nx : LLVMBuildXor(b, nx, ny, "");
  return LLVMBuildSelect(b, flip, LLVMBuildNeg(b, r, ""), r, "");
}

static zn_lval plain_div(zn_lfun *s, bool sg, bool rem, zn_lval x, zn_lval y, unsigned lanes) {
  LLVMBuilderRef b = s->m->b;
  zn_ltype ty = LLVMTypeOf(x);
  zn_ltype elem = lanes == 1 ? ty : LLVMGetElementType(ty);
  if (s->m->arch == ZN_LA_ARM && LLVMGetIntTypeWidth(elem) == 64) {
    if (lanes == 1) return soft_div(s, sg, rem, x, y);
    zn_lval r = LLVMGetPoison(ty);
    for (unsigned i = 0; i < lanes; i++) {
      zn_lval k = LLVMConstInt(s->m->i32, i, 0);
      zn_lval xe = LLVMBuildExtractElement(b, x, k, ""), ye = LLVMBuildExtractElement(b, y, k, "");
      r = LLVMBuildInsertElement(b, r, soft_div(s, sg, rem, xe, ye), k, "");
    }
    return r;
  }
  if (rem) return sg ? LLVMBuildSRem(b, x, y, "") : LLVMBuildURem(b, x, y, "");
  return sg ? LLVMBuildSDiv(b, x, y, "") : LLVMBuildUDiv(b, x, y, "");
}

/* Integer division: x/0 = 0, x%0 = x, MIN/-1 = MIN, MIN%-1 = 0. */
static zn_lval int_div(zn_lfun *s, const zn_kinst *in, zn_lval x, zn_lval y) {
  LLVMBuilderRef b = s->m->b;
  zn_dtype t = (zn_dtype)in->dtype;
  bool sg = is_signed(t), rem = in->op == ZN_K_Rem;
  int64_t d;
  if (zn_kf_const_int(s->f, in->b, &d) && d != 0 && d != -1)
    return plain_div(s, sg, rem, x, y, in->lanes);
  zn_lval zero = zn_lm_int(s->m, t, in->lanes, 0), one = zn_lm_int(s->m, t, in->lanes, 1);
  zn_lval is0 = LLVMBuildICmp(b, LLVMIntEQ, y, zero, ""), bad = is0, ism1 = NULL;
  if (sg) {
    ism1 = LLVMBuildICmp(b, LLVMIntEQ, y, zn_lm_int(s->m, t, in->lanes, -1), "");
    bad = LLVMBuildOr(b, is0, ism1, "");
  }
  zn_lval safe = LLVMBuildSelect(b, bad, one, y, "");
  zn_lval q = plain_div(s, sg, rem, x, safe, in->lanes);
  if (rem) return LLVMBuildSelect(b, is0, x, q, ""); /* x % 1 = 0 covers -1 */
  if (sg) q = LLVMBuildSelect(b, ism1, LLVMBuildNeg(b, x, ""), q, "");
  return LLVMBuildSelect(b, is0, zero, q, "");
}

static zn_lval shift(zn_lfun *s, const zn_kinst *in, zn_lval x, zn_lval y) {
  LLVMBuilderRef b = s->m->b;
  zn_dtype t = (zn_dtype)in->dtype;
  unsigned width = LLVMGetIntTypeWidth(zn_lm_scalar(s->m, t));
  bool left = in->op == ZN_K_Shl, arith = !left && is_signed(t);
  int64_t k;
  bool safe = zn_kf_const_int(s->f, in->b, &k) && k >= 0 && k < (int64_t)width;
  zn_lval big = NULL, n = y;
  if (!safe) {
    zn_lval last = zn_lm_int(s->m, t, in->lanes, (int64_t)width - 1);
    big = LLVMBuildICmp(b, LLVMIntUGT, y, last, "");
    n = LLVMBuildSelect(b, big, last, y, "");
  }
  zn_lval r = left    ? LLVMBuildShl(b, x, n, "")
              : arith ? LLVMBuildAShr(b, x, n, "")
                      : LLVMBuildLShr(b, x, n, "");
  if (safe || arith) return r;
  return LLVMBuildSelect(b, big, zn_lm_int(s->m, t, in->lanes, 0), r, "");
}

static zn_lval binary(zn_lfun *s, zn_kop op, zn_dtype t, zn_lval x, zn_lval y) {
  LLVMBuilderRef b = s->m->b;
  bool fl = arith_float(t);
  switch (op) {
    case ZN_K_Add: return fl ? LLVMBuildFAdd(b, x, y, "") : LLVMBuildAdd(b, x, y, "");
    case ZN_K_Sub: return fl ? LLVMBuildFSub(b, x, y, "") : LLVMBuildSub(b, x, y, "");
    case ZN_K_Mul: return fl ? LLVMBuildFMul(b, x, y, "") : LLVMBuildMul(b, x, y, "");
    case ZN_K_Min: return LLVMBuildSelect(b, compare(s, ZN_K_Lt, t, x, y), x, y, "");
    case ZN_K_Max: return LLVMBuildSelect(b, compare(s, ZN_K_Gt, t, x, y), x, y, "");
    case ZN_K_And: return LLVMBuildAnd(b, x, y, "");
    case ZN_K_Or: return LLVMBuildOr(b, x, y, "");
    case ZN_K_Xor: return LLVMBuildXor(b, x, y, "");
    default: ZN_BUG(s->m->ctx, "%s: operation %s reached the LLVM printer", s->f->name, zn_kops[op].text);
  }
}

static zn_lval float_unary(zn_lfun *s, const zn_kinst *in, zn_lval x) {
  const zn_caps *caps = s->m->caps;
  zn_ltype ty = LLVMTypeOf(x);
  const char *name = NULL;
  bool rounding = false;
  switch (in->op) {
    case ZN_K_Neg: return LLVMBuildFNeg(s->m->b, x, "");
    case ZN_K_Abs: name = "llvm.fabs"; break;
    case ZN_K_Sqrt: name = "llvm.sqrt"; break;
    case ZN_K_Floor: name = "llvm.floor", rounding = true; break;
    case ZN_K_Ceil: name = "llvm.ceil", rounding = true; break;
    case ZN_K_Trunc: name = "llvm.trunc", rounding = true; break;
    case ZN_K_Rint: /* Arm has no round-to-even with a fixed mode; nobody changes the mode */
      name = s->m->arch == ZN_LA_ARM ? "llvm.rint" : "llvm.roundeven", rounding = true;
      break;
    default: break;
  }
  if (!name || (rounding && !caps->round_native))
    ZN_BUG(s->m->ctx, "%s: operation %s of %s was not expanded for %s", s->f->name,
           zn_kops[in->op].text, zn_dtypes[in->dtype].name, caps->arch);
  return zn_lm_intrinsic(s->m, name, ty, &x, 1);
}

static zn_lval unary(zn_lfun *s, const zn_kinst *in, zn_lval x) {
  zn_lmod *m = s->m;
  zn_dtype t = (zn_dtype)in->dtype;
  if (arith_float(t)) return float_unary(s, in, x);
  switch (in->op) {
    case ZN_K_Neg: return LLVMBuildNeg(m->b, x, "");
    case ZN_K_Not: return LLVMBuildNot(m->b, x, "");
    case ZN_K_Abs: {
      if (!is_signed(t)) return x;
      zn_lval args[2] = {x, LLVMConstInt(m->i1, 0, 0)};
      return zn_lm_intrinsic(m, "llvm.abs", LLVMTypeOf(x), args, 2);
    }
    default: return x; /* Floor and friends of integers */
  }
}

zn_lval zn_lf_arith(zn_lfun *s, const zn_kinst *in) {
  zn_lmod *m = s->m;
  zn_dtype t = (zn_dtype)in->dtype;
  const char *sig = zn_kops[in->op].sig;
  if (zn_kop_is_dot(in->op)) return zn_lf_dot(s, in);
  zn_lval x = zn_lf_opnd(s, in->a, in->lanes);
  if (sig[1] == '-') return unary(s, in, x);
  zn_lval y = zn_lf_opnd(s, in->b, in->lanes);
  bool fl = arith_float(t);
  switch (in->op) {
    case ZN_K_Fma: {
      zn_lval z = zn_lf_opnd(s, in->c, in->lanes);
      if (!m->caps->fma) ZN_BUG(m->ctx, "%s: fma was not expanded", s->f->name);
      if (t == ZN_F64 && !m->caps->f64_native) /* no such instruction: two roundings */
        return LLVMBuildFAdd(m->b, LLVMBuildFMul(m->b, x, y, ""), z, "");
      zn_lval args[3] = {x, y, z};
      return zn_lm_intrinsic(m, "llvm.fma", LLVMTypeOf(x), args, 3);
    }
    case ZN_K_Div:
      return fl ? LLVMBuildFDiv(m->b, x, y, "") : int_div(s, in, x, y);
    case ZN_K_Rem:
      if (fl) ZN_BUG(m->ctx, "%s: float rem was not expanded", s->f->name);
      return int_div(s, in, x, y);
    case ZN_K_Shl: case ZN_K_Shr: return shift(s, in, x, y);
    case ZN_K_CopySign: {
      zn_lval args[2] = {x, y};
      return zn_lm_intrinsic(m, "llvm.copysign", LLVMTypeOf(x), args, 2);
    }
    default: return binary(s, (zn_kop)in->op, t, x, y);
  }
}

static zn_lval reduce(zn_lfun *s, const zn_kinst *in) {
  zn_lmod *m = s->m;
  zn_kop op = in->op == ZN_K_ReduceAdd   ? ZN_K_Add
              : in->op == ZN_K_ReduceMul ? ZN_K_Mul
              : in->op == ZN_K_ReduceMin ? ZN_K_Min
                                         : ZN_K_Max;
  zn_lval x = s->v[in->a];
  unsigned n = s->f->insts[in->a].lanes;
  while (n > 1) {
    n /= 2;
    zn_lval half[2];
    for (unsigned h = 0; h < 2; h++) {
      zn_lval mask[512];
      for (unsigned i = 0; i < n; i++) mask[i] = LLVMConstInt(m->i32, h * n + i, 0);
      half[h] = n == 1 ? LLVMBuildExtractElement(m->b, x, mask[0], "")
                       : LLVMBuildShuffleVector(m->b, x, LLVMGetPoison(LLVMTypeOf(x)),
                                                LLVMConstVector(mask, n), "");
    }
    x = binary(s, op, (zn_dtype)in->dtype, half[0], half[1]);
  }
  return x;
}

static zn_lval shuffle(zn_lfun *s, const zn_kinst *in) {
  zn_lmod *m = s->m;
  const uint32_t *mask = s->f->extra + in->imm.i;
  unsigned n = s->f->insts[in->a].lanes;
  zn_lval src[2] = {s->v[in->a], in->b ? s->v[in->b] : s->v[in->a]};
  if (n == 1 || in->lanes == 1) { /* scalar on one side: element by element */
    zn_lval r = in->lanes == 1 ? NULL : LLVMGetPoison(zn_lm_type(m, (zn_dtype)in->dtype, in->lanes));
    for (unsigned j = 0; j < in->lanes; j++) {
      zn_lval e = src[mask[j] / n];
      if (n > 1) e = LLVMBuildExtractElement(m->b, e, LLVMConstInt(m->i32, mask[j] % n, 0), "");
      if (in->lanes == 1) return e;
      r = LLVMBuildInsertElement(m->b, r, e, LLVMConstInt(m->i32, j, 0), "");
    }
    return r;
  }
  zn_lval *elems = ZN_ARRAY(m->a, zn_lval, in->lanes);
  for (unsigned j = 0; j < in->lanes; j++) elems[j] = LLVMConstInt(m->i32, mask[j], 0);
  return LLVMBuildShuffleVector(m->b, src[0], src[1], LLVMConstVector(elems, in->lanes), "");
}

zn_lval zn_lf_vector(zn_lfun *s, const zn_kinst *in) {
  zn_lmod *m = s->m;
  zn_dtype t = (zn_dtype)in->dtype;
  switch (in->op) {
    case ZN_K_Splat: return zn_lf_opnd(s, in->a, in->lanes);
    case ZN_K_Iota: {
      zn_lval *e = ZN_ARRAY(m->a, zn_lval, in->lanes);
      for (unsigned j = 0; j < in->lanes; j++)
        e[j] = zn_is_float(t) ? zn_lm_float(m, t, 1, j) : zn_lm_int(m, t, 1, j);
      return in->lanes == 1 ? e[0] : LLVMConstVector(e, in->lanes);
    }
    case ZN_K_Extract:
      if (s->f->insts[in->a].lanes == 1) return s->v[in->a];
      return LLVMBuildExtractElement(m->b, s->v[in->a],
                                     LLVMConstInt(m->i32, (uint64_t)in->imm.i, 0), "");
    case ZN_K_Insert:
      if (in->lanes == 1) return s->v[in->b];
      return LLVMBuildInsertElement(m->b, zn_lf_opnd(s, in->a, in->lanes), s->v[in->b],
                                    LLVMConstInt(m->i32, (uint64_t)in->imm.i, 0), "");
    case ZN_K_Shuffle: return shuffle(s, in);
    default: return reduce(s, in);
  }
}
