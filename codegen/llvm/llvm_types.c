/* Types, constants, intrinsics and attributes of the LLVM printer. */
#include <assert.h>

#include "codegen/llvm/llvm_priv.h"

zn_ltype zn_lm_scalar(const zn_lmod *m, zn_dtype t) {
  switch (t) {
    case ZN_BOOL: return m->i1;
    case ZN_I8: case ZN_U8: return m->i8;
    case ZN_I16: case ZN_U16: case ZN_F16: case ZN_BF16: return m->i16;
    case ZN_I32: case ZN_U32: return m->i32;
    case ZN_I64: case ZN_U64: return m->i64;
    case ZN_F32: return m->f32;
    case ZN_F64: return m->f64;
    case ZN_IDX: return m->idx;
    case ZN_PTR: return m->ptr;
    default: ZN_BUG(m->ctx, "kernel IR: dtype %s has no register form", zn_dtypes[t].name);
  }
}

zn_ltype zn_lm_vec(zn_ltype elem, unsigned lanes) {
  return lanes == 1 ? elem : LLVMVectorType(elem, lanes);
}

zn_ltype zn_lm_type(const zn_lmod *m, zn_dtype t, unsigned lanes) {
  return zn_lm_vec(zn_lm_scalar(m, t), lanes);
}

unsigned zn_lm_bytes(const zn_lmod *m, zn_dtype t) {
  return t == ZN_IDX || t == ZN_PTR ? m->caps->idx_bytes : zn_dtype_bytes(t);
}

zn_lval zn_lm_splat_const(zn_lval scalar, unsigned lanes) {
  if (lanes == 1) return scalar;
  zn_lval elems[1024];
  assert(lanes <= 1024);
  for (unsigned i = 0; i < lanes; i++) elems[i] = scalar;
  return LLVMConstVector(elems, lanes);
}

static uint64_t mask_to(uint64_t v, unsigned bits) {
  return bits >= 64 ? v : v & ((1ull << bits) - 1);
}

zn_lval zn_lm_int(const zn_lmod *m, zn_dtype t, unsigned lanes, int64_t v) {
  if (t == ZN_PTR) {
    zn_lval p = v == 0 ? LLVMConstNull(m->ptr)
                       : LLVMConstIntToPtr(LLVMConstInt(m->idx, (uint64_t)v, 1), m->ptr);
    return zn_lm_splat_const(p, lanes);
  }
  if (t == ZN_BOOL) v = v != 0;
  zn_ltype ty = zn_lm_scalar(m, t);
  uint64_t bits = mask_to((uint64_t)v, LLVMGetIntTypeWidth(ty));
  return zn_lm_splat_const(LLVMConstInt(ty, bits, 0), lanes);
}

zn_lval zn_lm_float(const zn_lmod *m, zn_dtype t, unsigned lanes, double v) {
  zn_lval s;
  if (t == ZN_F32) {
    float f = (float)v; /* round first: NaN and overflow as in C */
    s = LLVMConstReal(m->f32, (double)f);
  } else if (t == ZN_F64) {
    s = LLVMConstReal(m->f64, v);
  } else {
    assert(t == ZN_F16 || t == ZN_BF16);
    s = LLVMConstInt(m->i16, zn_float_encode(t, v, false), 0);
  }
  return zn_lm_splat_const(s, lanes);
}

zn_lval zn_lm_intrinsic(zn_lmod *m, const char *name, zn_ltype over, zn_lval *args, unsigned n) {
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  assert(id != 0);
  zn_lval fn = LLVMGetIntrinsicDeclaration(m->lm, id, &over, 1);
  return LLVMBuildCall2(m->b, LLVMIntrinsicGetType(m->lc, id, &over, 1), fn, args, n, "");
}

void zn_lm_attr(const zn_lmod *m, zn_lval fn, unsigned index, const char *name) {
  unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
  assert(kind != 0);
  LLVMAddAttributeAtIndex(fn, index, LLVMCreateEnumAttribute(m->lc, kind, 0));
}

void zn_lm_attr_text(const zn_lmod *m, zn_lval fn, const char *key, const char *value) {
  LLVMAddAttributeAtIndex(fn, (unsigned)LLVMAttributeFunctionIndex,
                          LLVMCreateStringAttribute(m->lc, key, (unsigned)strlen(key), value,
                                                    (unsigned)strlen(value)));
}

void zn_lm_function_attrs(const zn_lmod *m, zn_lval fn, bool baseline) {
  zn_lm_attr(m, fn, (unsigned)LLVMAttributeFunctionIndex, "nounwind");
  zn_lm_attr_text(m, fn, "no-builtins", "");
  zn_lm_attr_text(m, fn, "no-trapping-math", "true");
  zn_lm_attr_text(m, fn, "frame-pointer", "none");
  const bool low = baseline && zn_lm_asks(m);
  const char *least = m->arch == ZN_LA_X86 ? "x86-64" : m->arch == ZN_LA_RISCV ? "generic-rv64" : "generic";
  zn_lm_attr_text(m, fn, "target-cpu", low ? least : m->caps->cpu);
  const char *features = low ? "" : m->caps->features;
  if (features && features[0]) zn_lm_attr_text(m, fn, "target-features", features);
}
