/* CUDA C++ as NVRTC takes it: no header, so the fixed-width types are named here. zn_rank is the thread's place in its team,
 * zn_at the team's grid iteration, zn_shared the block's dynamic shared memory. */
#include "codegen/cstyle/cs_priv.h"

static const char *const prologue[] = {
    "typedef signed char int8_t;",
    "typedef unsigned char uint8_t;",
    "typedef short int16_t;",
    "typedef unsigned short uint16_t;",
    "typedef int int32_t;",
    "typedef unsigned int uint32_t;",
    "typedef long long int64_t;",
    "typedef unsigned long long uint64_t;",
    "#define INT64_C(x) x##ll",
    "#define UINT64_C(x) x##ull",
    "#define INT8_MIN (-128)",
    "#define INT8_MAX 127",
    "#define INT16_MIN (-32768)",
    "#define INT16_MAX 32767",
    "#define INT32_MIN (-2147483647 - 1)",
    "#define INT32_MAX 2147483647",
    "#define INT64_MIN (-INT64_C(9223372036854775807) - 1)",
    "#define INT64_MAX INT64_C(9223372036854775807)",
    "#define UINT8_MAX 255",
    "#define UINT16_MAX 65535",
    "#define UINT32_MAX 4294967295u",
    "#define UINT64_MAX UINT64_C(18446744073709551615)",
    "#if ZN_IDX_BITS == 32",
    "typedef int32_t zi;",
    "typedef uint32_t zu;",
    "#define INTPTR_MIN INT32_MIN",
    "#define INTPTR_MAX INT32_MAX",
    "#else",
    "typedef int64_t zi;",
    "typedef uint64_t zu;",
    "#define INTPTR_MIN INT64_MIN",
    "#define INTPTR_MAX INT64_MAX",
    "#endif",
    "#define ZN_INLINE static __device__ __forceinline__",
    "#define ZN_VEC 0",
    "#define ZN_SHUFFLE 0",
    "#define ZN_LANE(a, k) ((a).v[k])",
    "#define ZN_VECTOR(T, n, name) \\",
    "  typedef struct __align__((n) * sizeof(T) < 16 ? (n) * sizeof(T) : 16) { T v[n]; } name",
    "#define ZN_VECTOR_UN(T, n, name) typedef struct { T v[n]; } name",
    "#define ZN_VECTOR_AL ZN_VECTOR",
    "#define ZN_ALIGN64(decl) __align__(16) decl",
    "#define ZN_LD(t, p, i) (((const zn_##t##_m *)(p))[(zi)(i)])",
    "#define ZN_ST(t, p, i, x) ((void)(((zn_##t##_m *)(p))[(zi)(i)] = (x)))",
    "typedef float zn_f32_m;",
    "typedef double zn_f64_m;",
    "typedef int8_t zn_i8_m;",
    "typedef int16_t zn_i16_m;",
    "typedef int32_t zn_i32_m;",
    "typedef int64_t zn_i64_m;",
    "typedef uint8_t zn_u8_m;",
    "typedef uint16_t zn_u16_m;",
    "typedef uint32_t zn_u32_m;",
    "typedef uint64_t zn_u64_m;",
    "typedef uint8_t zn_bool_m;",
    "typedef zi zn_idx_m;",
    "extern __shared__ __align__(1024) unsigned char zn_shared[];",
    "ZN_INLINE float zn_f16_f32(uint16_t a) { float r; asm(\"cvt.f32.f16 %0, %1;\" : \"=f\"(r) : \"h\"(a)); return r; }",
    "ZN_INLINE uint16_t zn_f32_f16(float a) {",
    "  uint16_t r; asm(\"cvt.rn.f16.f32 %0, %1;\" : \"=h\"(r) : \"f\"(a)); return r;",
    "}",
    /* the kernel before has stored all it stores; the one behind may start and wait. x is 0 in a way the compiler cannot see:
     * addresses made with it are not used before */
    "#if __CUDA_ARCH__ >= 900",
    "#define ZN_AWAIT(x) \\",
    "  unsigned x; \\",
    "  asm volatile(\"griddepcontrol.wait;\\n griddepcontrol.launch_dependents;\\n mov.b32 %0, 0;\" : \"=r\"(x) :: \"memory\")",
    "#else",
    "#define ZN_AWAIT(x) const unsigned x = 0",
    "#endif",
    "#define ZN_ASYNC_COPY(to, from, n) \\",
    "  asm volatile(\"cp.async.cg.shared.global [%0], [%1], 16, %2;\" :: \"r\"((unsigned)__cvta_generic_to_shared(to)), \\",
    "               \"l\"(from), \"r\"((unsigned)(n)) : \"memory\")",
    "#define ZN_ASYNC_SHARE() asm volatile(\"fence.proxy.async.shared::cta;\" ::: \"memory\")",
    "#define ZN_ASYNC_GROUP() asm volatile(\"cp.async.commit_group;\" ::: \"memory\")",
    "#define ZN_ASYNC_WAIT(n) asm volatile(\"cp.async.wait_group %0;\" :: \"n\"(n) : \"memory\")",
    NULL};

const zn_cdialect zn_cdialect_cuda = {
    .name = "cuda",
    .prologue = prologue,
    .helper_qual = "ZN_INLINE",
    .scalar = {[ZN_F32] = "float",
               [ZN_F64] = "double",
               [ZN_BOOL] = "uint8_t",
               [ZN_I8] = "int8_t",
               [ZN_I16] = "int16_t",
               [ZN_I32] = "int32_t",
               [ZN_I64] = "int64_t",
               [ZN_U8] = "uint8_t",
               [ZN_U16] = "uint16_t",
               [ZN_U32] = "uint32_t",
               [ZN_U64] = "uint64_t",
               [ZN_IDX] = "zi",
               [ZN_PTR] = "unsigned char *"},
    .unsigned_idx = "zu",
    .simt = true,
    .native = {[ZN_K_Fma] = {"__fmaf_rn", "__fma_rn"},
               [ZN_K_Sqrt] = {"__fsqrt_rn", "__dsqrt_rn"},
               [ZN_K_Floor] = {"floorf", "floor"},
               [ZN_K_Ceil] = {"ceilf", "ceil"},
               [ZN_K_Trunc] = {"truncf", "trunc"},
               [ZN_K_Rint] = {"rintf", "rint"},
               [ZN_K_Abs] = {"fabsf", "fabs"},
               [ZN_K_CopySign] = {"copysignf", "copysign"}},
    .f16_to_f32 = "zn_f16_f32",
    .f32_to_f16 = "zn_f32_f16",
};

static bool points_into(const zn_kfunc *f, zn_kref p, uint32_t param) {
  while (f->insts[p].op == ZN_K_PtrAdd) p = f->insts[p].a;
  if (f->insts[p].op == ZN_K_Param) return (uint32_t)f->insts[p].imm.i == param;
  return f->insts[p].op != ZN_K_Alloc && f->insts[p].op != ZN_K_ConstAddr;
}

const char *cs_restrict(const zn_kfunc *f, uint32_t param) {
  bool loads = false, stores = false, barriers = false;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    const zn_kinst *in = &f->insts[i];
    barriers |= in->op == ZN_K_Barrier;
    if (in->op == ZN_K_Load) loads |= points_into(f, in->a, param);
    if (in->op == ZN_K_AsyncCopy) loads |= points_into(f, in->b, param);
    if (in->op == ZN_K_Store) stores |= points_into(f, in->a, param);
  }
  return loads && stores && barriers ? "" : "__restrict__ ";
}
