/* Kernel IR modules and the builder: every call checks its operand types, folds what is constant,
 * and appends one instruction. The first error sticks in zn_kb.error and turns later calls into
 * no-ops. */
#include "codegen/kir/kir.h"

#include "codegen/kir/kfold.h"

const zn_kop_info zn_kops[ZN_K_COUNT] = {
#define KOP(n, text, sig, cls) {text, sig, #cls[0]},
#include "codegen/kir/kops.def"
#undef KOP
};

zn_kmod *zn_kmod_new(zn_arena *a, const char *name) {
  zn_kmod *m = ZN_NEW(a, zn_kmod);
  m->arena = a;
  m->name = zn_arena_strdup(a, name);
  return m;
}

uint32_t zn_kmod_add_const(zn_kmod *m, const char *name, zn_dtype dtype, uint64_t count,
                           const void *data) {
  zn_kconst k = {
      .name = zn_arena_strdup(m->arena, name), .dtype = dtype, .count = count, .data = data};
  ZN_PUSH(m->arena, m->consts, m->num_consts, m->cap_consts, k);
  return m->num_consts - 1;
}

/* ---- builder basics ---- */

static zn_kref fail(zn_kb *b, zn_kop op, const char *what) {
  if (!b->error)
    b->error =
        zn_arena_printf(b->mod->arena, "%s: %s at instruction %u: %s", b->f ? b->f->name : "?",
                        zn_kops[op].text, b->f ? b->f->num_insts : 0, what);
  return 0;
}

/* True when a operand is a defined instruction and no error is pending. */
static bool ok1(zn_kb *b, zn_kop op, zn_kref r) {
  if (b->error) return false;
  if (r != 0 && r < b->f->num_insts) return true;
  fail(b, op, "operand is not a value");
  return false;
}

static bool ok2(zn_kb *b, zn_kop op, zn_kref x, zn_kref y) {
  return ok1(b, op, x) && ok1(b, op, y);
}

static zn_dtype type_of(const zn_kb *b, zn_kref r) { return zn_kf_dtype(b->f, r); }
static unsigned lanes_of(const zn_kb *b, zn_kref r) { return zn_kf_lanes(b->f, r); }

zn_kref zn_kb_raw(zn_kb *b, zn_kinst in) {
  if (b->error) return 0;
  switch (in.op) {
    case ZN_K_For:
    case ZN_K_If:
    case ZN_K_Loop: b->depth++; break;
    case ZN_K_End:
      if (b->depth-- == 0) return fail(b, ZN_K_End, "no region is open");
      break;
    default: break;
  }
  ZN_PUSH(b->mod->arena, b->f->insts, b->f->num_insts, b->f->cap_insts, in);
  return b->f->num_insts - 1;
}

static zn_kref put(zn_kb *b, zn_kop op, zn_dtype t, unsigned lanes, zn_kref x, zn_kref y, zn_kref z,
                   int64_t imm) {
  if (lanes == 0 || lanes > UINT16_MAX) return fail(b, op, "lanes out of range");
  return zn_kb_raw(b, (zn_kinst){.op = (uint8_t)op,
                                 .dtype = (uint8_t)t,
                                 .lanes = (uint16_t)lanes,
                                 .a = x,
                                 .b = y,
                                 .c = z,
                                 .imm.i = imm});
}

uint32_t zn_kb_begin(zn_kb *b, zn_ctx *ctx, zn_kmod *mod, const char *name, bool is_entry) {
  memset(b, 0, sizeof *b);
  b->ctx = ctx;
  b->mod = mod;
  b->f = ZN_NEW(mod->arena, zn_kfunc);
  b->f->name = zn_arena_strdup(mod->arena, name);
  b->f->is_entry = is_entry;
  put(b, ZN_K_Nop, ZN_NONE, 1, 0, 0, 0, 0);
  ZN_PUSH(mod->arena, mod->funcs, mod->num_funcs, mod->cap_funcs, b->f);
  return mod->num_funcs - 1;
}

void zn_kb_finish(zn_kb *b) {
  if (!b->error && b->depth) fail(b, ZN_K_End, "regions are still open");
  if (b->error) ZN_BUG(b->ctx, "kernel IR builder: %s", b->error);
  if (zn_kfunc_verify(b->ctx, b->mod, b->f) != ZN_OK)
    ZN_BUG(b->ctx, "kernel IR builder: function %s does not verify", b->f->name);
}

zn_kref zn_kb_param(zn_kb *b, const char *name, zn_kparam_kind kind, zn_dtype elem) {
  if (b->error) return 0;
  zn_kparam p = {.name = zn_arena_strdup(b->mod->arena, name),
                 .kind = (uint8_t)kind,
                 .dtype = (uint8_t)(kind == ZN_KP_INT ? ZN_IDX : elem)};
  ZN_PUSH(b->mod->arena, b->f->params, b->f->num_params, b->f->cap_params, p);
  return put(b, ZN_K_Param, kind == ZN_KP_INT ? ZN_IDX : ZN_PTR, 1, 0, 0, 0, b->f->num_params - 1);
}

/* ---- constants ---- */

zn_kref zn_kb_int(zn_kb *b, zn_dtype t, int64_t v) {
  if (b->error) return 0;
  if (zn_is_float(t)) return zn_kb_float(b, t, (double)v);
  if (!zn_kdt_is_int(t) && t != ZN_BOOL) return fail(b, ZN_K_Const, "not an integer type");
  return put(b, ZN_K_Const, t, 1, 0, 0, 0, zn_kfold_wrap(t, v));
}

zn_kref zn_kb_float(zn_kb *b, zn_dtype t, double v) {
  if (b->error) return 0;
  if (!zn_kdt_is_float(t) && t != ZN_F16 && t != ZN_BF16)
    return fail(b, ZN_K_Const, "not a float type");
  return zn_kb_raw(
      b,
      (zn_kinst){.op = ZN_K_Const, .dtype = (uint8_t)t, .lanes = 1, .imm.f = zn_kfold_round(t, v)});
}

zn_kref zn_kb_idx(zn_kb *b, int64_t v) { return zn_kb_int(b, ZN_IDX, v); }

static const zn_kinst *constant(const zn_kfunc *f, zn_kref r) {
  while (r && r < f->num_insts && f->insts[r].op == ZN_K_Splat) r = f->insts[r].a;
  return r && r < f->num_insts && f->insts[r].op == ZN_K_Const ? &f->insts[r] : NULL;
}

bool zn_kf_const_int(const zn_kfunc *f, zn_kref r, int64_t *out) {
  const zn_kinst *k = constant(f, r);
  if (!k || zn_is_float((zn_dtype)k->dtype)) return false;
  *out = k->imm.i;
  return true;
}

bool zn_kf_const_float(const zn_kfunc *f, zn_kref r, double *out) {
  const zn_kinst *k = constant(f, r);
  if (!k || !zn_is_float((zn_dtype)k->dtype)) return false;
  *out = k->imm.f;
  return true;
}

double zn_exp_scale(zn_dtype t) { return t == ZN_F32 ? 0x1p64 : 0x1p512; }

static zn_kref int_const(zn_kb *b, zn_dtype t, unsigned lanes, int64_t v) {
  return zn_kb_splat(b, zn_kb_int(b, t, v), lanes);
}

static zn_kref float_const(zn_kb *b, zn_dtype t, unsigned lanes, double v) {
  return zn_kb_splat(b, zn_kb_float(b, t, v), lanes);
}

/* ---- arithmetic ---- */

zn_kref zn_kb_un(zn_kb *b, zn_kop op, zn_kref a) {
  if (!ok1(b, op, a)) return 0;
  zn_dtype t = type_of(b, a);
  unsigned n = lanes_of(b, a);
  if (op >= ZN_K_ReduceAdd && op <= ZN_K_ReduceMax) {
    if (!zn_kdt_is_int(t) && !zn_kdt_is_float(t)) return fail(b, op, "operand is not a number");
    if (n & (n - 1)) return fail(b, op, "lanes are not a power of two");
    return n == 1 ? a : put(b, op, t, 1, a, 0, 0, 0);
  }
  if (!zn_kop_accepts(op, t) || strncmp(zn_kops[op].sig, "v--", 3))
    return fail(b, op, "operand type does not fit");
  int64_t i;
  double f;
  if (zn_kf_const_int(b->f, a, &i) && zn_kfold_int(op, t, i, 0, &i)) return int_const(b, t, n, i);
  if (zn_kf_const_float(b->f, a, &f) && zn_kfold_float(op, t, f, 0, &f))
    return float_const(b, t, n, f);
  return put(b, op, t, n, a, 0, 0, 0);
}

/* Splats the narrower of two operands; false (error set) when types or lanes do not fit. */
static bool match_operands(zn_kb *b, zn_kop op, zn_kref *x, zn_kref *y) {
  if (!ok2(b, op, *x, *y)) return false;
  if (type_of(b, *x) != type_of(b, *y)) {
    fail(b, op, "operands have different types");
    return false;
  }
  unsigned nx = lanes_of(b, *x), ny = lanes_of(b, *y);
  if (nx == ny) return true;
  if (nx != 1 && ny != 1) {
    fail(b, op, "operands have different lanes");
    return false;
  }
  if (nx == 1)
    *x = zn_kb_splat(b, *x, ny);
  else
    *y = zn_kb_splat(b, *y, nx);
  return !b->error;
}

/* Identities of one constant operand; 0 when none applies. x and y have equal lanes. */
static zn_kref simplify_int(zn_kb *b, zn_kop op, zn_dtype t, zn_kref x, zn_kref y) {
  int64_t k;
  bool commutes =
      op == ZN_K_Add || op == ZN_K_Mul || op == ZN_K_And || op == ZN_K_Or || op == ZN_K_Xor;
  if (commutes && zn_kf_const_int(b->f, x, &k)) {
    zn_kref swap = x;
    x = y;
    y = swap;
  }
  if (!zn_kf_const_int(b->f, y, &k)) return 0;
  int64_t ones = t == ZN_BOOL ? 1 : zn_kfold_wrap(t, -1);
  switch ((int)op) {
    case ZN_K_Add:
    case ZN_K_Sub:
    case ZN_K_Xor:
    case ZN_K_Shl:
    case ZN_K_Shr: return k == 0 ? x : 0;
    case ZN_K_Mul: return k == 1 ? x : k == 0 ? y : 0;
    case ZN_K_Div: return k == 1 ? x : 0;
    case ZN_K_Rem: return k == 1 ? int_const(b, t, lanes_of(b, x), 0) : 0;
    case ZN_K_And: return k == ones ? x : k == 0 ? y : 0;
    case ZN_K_Or: return k == 0 ? x : k == ones ? y : 0;
    default: return 0;
  }
}

static zn_kref simplify_float(zn_kb *b, zn_kop op, zn_kref x, zn_kref y) {
  double k;
  if ((op == ZN_K_Add || op == ZN_K_Mul) && zn_kf_const_float(b->f, x, &k)) {
    zn_kref swap = x;
    x = y;
    y = swap;
  }
  if (!zn_kf_const_float(b->f, y, &k)) return 0;
  bool minus_zero = k == 0 && 1 / k < 0, plus_zero = k == 0 && 1 / k > 0;
  if ((op == ZN_K_Add && minus_zero) || (op == ZN_K_Sub && plus_zero)) return x;
  return (op == ZN_K_Mul || op == ZN_K_Div) && k == 1 ? x : 0;
}

zn_kref zn_kb_bin(zn_kb *b, zn_kop op, zn_kref x, zn_kref y) {
  if (!match_operands(b, op, &x, &y)) return 0;
  zn_dtype t = type_of(b, x);
  unsigned n = lanes_of(b, x);
  if (!zn_kop_accepts(op, t) || strncmp(zn_kops[op].sig, "vv-", 3))
    return fail(b, op, "operand type does not fit");
  zn_kref same = 0;
  if (!zn_is_float(t)) {
    int64_t i, j;
    if (zn_kf_const_int(b->f, x, &i) && zn_kf_const_int(b->f, y, &j) &&
        zn_kfold_int(op, t, i, j, &i))
      return int_const(b, t, n, i);
    same = simplify_int(b, op, t, x, y);
  } else {
    double f, g;
    if (zn_kf_const_float(b->f, x, &f) && zn_kf_const_float(b->f, y, &g) &&
        zn_kfold_float(op, t, f, g, &f))
      return float_const(b, t, n, f);
    same = simplify_float(b, op, x, y);
  }
  return same ? same : put(b, op, t, n, x, y, 0, 0);
}

zn_kref zn_kb_cmp(zn_kb *b, zn_kop op, zn_kref x, zn_kref y) {
  if (!match_operands(b, op, &x, &y)) return 0;
  zn_dtype t = type_of(b, x);
  unsigned n = lanes_of(b, x);
  if (zn_kops[op].cls != 'P' || !zn_kop_accepts(op, t))
    return fail(b, op, "operand type does not fit");
  int64_t i, j;
  double f, g;
  if (zn_kf_const_int(b->f, x, &i) && zn_kf_const_int(b->f, y, &j))
    return int_const(b, ZN_BOOL, n, zn_kfold_cmp_int(op, t, i, j));
  if (zn_kf_const_float(b->f, x, &f) && zn_kf_const_float(b->f, y, &g))
    return int_const(b, ZN_BOOL, n, zn_kfold_cmp_float(op, f, g));
  return put(b, op, ZN_BOOL, n, x, y, 0, 0);
}

zn_kref zn_kb_fma(zn_kb *b, zn_kref x, zn_kref y, zn_kref z) {
  if (!match_operands(b, ZN_K_Fma, &x, &y) || !match_operands(b, ZN_K_Fma, &x, &z) ||
      !match_operands(b, ZN_K_Fma, &y, &z))
    return 0;
  zn_dtype t = type_of(b, x);
  if (!zn_kdt_is_float(t)) return fail(b, ZN_K_Fma, "operand type does not fit");
  double f;
  if (zn_kf_const_float(b->f, x, &f) && f == 1) return zn_kb_bin(b, ZN_K_Add, y, z);
  if (zn_kf_const_float(b->f, y, &f) && f == 1) return zn_kb_bin(b, ZN_K_Add, x, z);
  return put(b, ZN_K_Fma, t, lanes_of(b, x), x, y, z, 0);
}

zn_kref zn_kb_dot(zn_kb *b, zn_kop op, zn_kref x, zn_kref y, zn_kref acc, unsigned flags) {
  if (!match_operands(b, op, &x, &y) || !match_operands(b, op, &x, &acc) || !match_operands(b, op, &y, &acc))
    return 0;
  if (type_of(b, x) != ZN_I32) return fail(b, op, "operands are not i32");
  return put(b, op, ZN_I32, lanes_of(b, x), x, y, acc, flags);
}

zn_kref zn_kb_select(zn_kb *b, zn_kref cond, zn_kref x, zn_kref y) {
  if (!ok1(b, ZN_K_Select, cond) || !match_operands(b, ZN_K_Select, &x, &y)) return 0;
  if (type_of(b, cond) != ZN_BOOL) return fail(b, ZN_K_Select, "condition is not bool");
  unsigned nc = lanes_of(b, cond), n = lanes_of(b, x);
  if (n == 1 && nc > 1) {
    x = zn_kb_splat(b, x, nc);
    y = zn_kb_splat(b, y, nc);
    n = nc;
  }
  if (nc != 1 && nc != n) return fail(b, ZN_K_Select, "condition has other lanes");
  int64_t k;
  if (zn_kf_const_int(b->f, cond, &k)) return k ? x : y;
  if (x == y) return x;
  return put(b, ZN_K_Select, type_of(b, x), n, cond, x, y, 0);
}

/* ---- conversions ---- */

static bool convertible(zn_dtype t) {
  return zn_kdt_is_int(t) || zn_kdt_is_float(t) || t == ZN_F16 || t == ZN_BF16 || t == ZN_BOOL;
}

static zn_kref convert(zn_kb *b, zn_kop op, zn_kref a, zn_dtype to) {
  if (!ok1(b, op, a)) return 0;
  zn_dtype t = type_of(b, a);
  if (!convertible(t) || !convertible(to)) return fail(b, op, "type cannot be converted");
  if (t == to) return a;
  unsigned n = lanes_of(b, a);
  int64_t i;
  double f;
  if (zn_kf_const_int(b->f, a, &i)) {
    if (!zn_is_float(to)) return int_const(b, to, n, i);
    if (to == ZN_F32)
      return float_const(b, to, n, t == ZN_U64 ? (double)(float)(uint64_t)i : (double)(float)i);
    return float_const(b, to, n, t == ZN_U64 ? (double)(uint64_t)i : (double)i);
  }
  if (zn_kf_const_float(b->f, a, &f)) {
    if (zn_is_float(to)) return float_const(b, to, n, f);
    return int_const(b, to, n, zn_kfold_float_to_int(to, f));
  }
  return put(b, op, to, n, a, 0, 0, 0);
}

zn_kref zn_kb_cvt(zn_kb *b, zn_kref a, zn_dtype to) { return convert(b, ZN_K_Cvt, a, to); }
zn_kref zn_kb_cvtfast(zn_kb *b, zn_kref a, zn_dtype to) { return convert(b, ZN_K_CvtFast, a, to); }

zn_kref zn_kb_bitcast(zn_kb *b, zn_kref a, zn_dtype to) {
  if (!ok1(b, ZN_K_Bitcast, a)) return 0;
  zn_dtype t = type_of(b, a);
  if (t == to) return a;
  if (t == ZN_PTR && to == ZN_IDX) return put(b, ZN_K_Bitcast, to, 1, a, 0, 0, 0); /* the address */
  if (!zn_dtype_bytes(t) || zn_dtype_bytes(t) != zn_dtype_bytes(to) || !convertible(t) ||
      !convertible(to) || to == ZN_BOOL)
    return fail(b, ZN_K_Bitcast, "types have different sizes");
  return put(b, ZN_K_Bitcast, to, lanes_of(b, a), a, 0, 0, 0);
}

/* ---- vectors ---- */

zn_kref zn_kb_splat(zn_kb *b, zn_kref a, unsigned lanes) {
  if (!ok1(b, ZN_K_Splat, a)) return 0;
  if (lanes_of(b, a) == lanes) return a;
  if (lanes_of(b, a) != 1) return fail(b, ZN_K_Splat, "operand is not a scalar");
  if (!convertible(type_of(b, a))) return fail(b, ZN_K_Splat, "type has no vectors");
  return put(b, ZN_K_Splat, type_of(b, a), lanes, a, 0, 0, 0);
}

zn_kref zn_kb_iota(zn_kb *b, zn_dtype t, unsigned lanes) {
  if (b->error) return 0;
  if (!zn_kdt_is_int(t) && !zn_kdt_is_float(t)) return fail(b, ZN_K_Iota, "type is not a number");
  if (lanes == 1) return zn_kb_int(b, t, 0);
  return put(b, ZN_K_Iota, t, lanes, 0, 0, 0, 0);
}

zn_kref zn_kb_extract(zn_kb *b, zn_kref a, unsigned lane) {
  if (!ok1(b, ZN_K_Extract, a)) return 0;
  if (lane >= lanes_of(b, a)) return fail(b, ZN_K_Extract, "no such lane");
  if (lanes_of(b, a) == 1) return a;
  if (b->f->insts[a].op == ZN_K_Splat) return b->f->insts[a].a;
  return put(b, ZN_K_Extract, type_of(b, a), 1, a, 0, 0, lane);
}

zn_kref zn_kb_insert(zn_kb *b, zn_kref a, zn_kref s, unsigned lane) {
  if (!ok2(b, ZN_K_Insert, a, s)) return 0;
  if (lane >= lanes_of(b, a)) return fail(b, ZN_K_Insert, "no such lane");
  if (type_of(b, a) != type_of(b, s) || lanes_of(b, s) != 1)
    return fail(b, ZN_K_Insert, "second operand is not a scalar of the vector's type");
  if (lanes_of(b, a) == 1) return s;
  return put(b, ZN_K_Insert, type_of(b, a), lanes_of(b, a), a, s, 0, lane);
}

zn_kref zn_kb_shuffle(zn_kb *b, zn_kref x, zn_kref y, unsigned lanes, const uint32_t *mask) {
  if (!ok2(b, ZN_K_Shuffle, x, y)) return 0;
  if (type_of(b, x) != type_of(b, y) || lanes_of(b, x) != lanes_of(b, y))
    return fail(b, ZN_K_Shuffle, "operands differ in type or lanes");
  if (!convertible(type_of(b, x))) return fail(b, ZN_K_Shuffle, "type has no vectors");
  uint32_t first = b->f->num_extra;
  for (unsigned j = 0; j < lanes; j++) {
    if (mask[j] >= 2 * lanes_of(b, x))
      return fail(b, ZN_K_Shuffle, "mask points outside the operands");
    ZN_PUSH(b->mod->arena, b->f->extra, b->f->num_extra, b->f->cap_extra, mask[j]);
  }
  return put(b, ZN_K_Shuffle, type_of(b, x), lanes, x, y, 0, first);
}

/* ---- memory ---- */

static bool address(zn_kb *b, zn_kop op, zn_kref ptr, zn_kref idx, unsigned lanes) {
  if (!ok2(b, op, ptr, idx)) return false;
  if (type_of(b, ptr) != ZN_PTR || type_of(b, idx) != ZN_IDX) {
    fail(b, op, "address is not (ptr, idx)");
    return false;
  }
  if (lanes_of(b, idx) != 1 && lanes_of(b, idx) != lanes) {
    fail(b, op, "index has other lanes than the access");
    return false;
  }
  return true;
}

zn_kref zn_kb_load(zn_kb *b, zn_dtype t, unsigned lanes, zn_kref ptr, zn_kref idx) {
  if (!address(b, ZN_K_Load, ptr, idx, lanes)) return 0;
  if (!convertible(t) && !(t == ZN_PTR && lanes == 1))
    return fail(b, ZN_K_Load, "type cannot be loaded");
  return put(b, ZN_K_Load, t, lanes, ptr, idx, 0, 0);
}

void zn_kb_store(zn_kb *b, zn_kref ptr, zn_kref idx, zn_kref value) {
  if (!ok1(b, ZN_K_Store, value)) return;
  if (!address(b, ZN_K_Store, ptr, idx, lanes_of(b, value))) return;
  if (!convertible(type_of(b, value)) && type_of(b, value) != ZN_PTR) {
    fail(b, ZN_K_Store, "type cannot be stored");
    return;
  }
  put(b, ZN_K_Store, type_of(b, value), lanes_of(b, value), ptr, idx, value, 0);
}

zn_kref zn_kb_ptradd(zn_kb *b, zn_kref ptr, zn_kref bytes) {
  if (!address(b, ZN_K_PtrAdd, ptr, bytes, 1)) return 0;
  int64_t k;
  if (zn_kf_const_int(b->f, bytes, &k) && k == 0) return ptr;
  return put(b, ZN_K_PtrAdd, ZN_PTR, 1, ptr, bytes, 0, 0);
}

void zn_kb_prefetch(zn_kb *b, zn_kref ptr, zn_kref bytes) {
  if (!address(b, ZN_K_Prefetch, ptr, bytes, 1)) return;
  put(b, ZN_K_Prefetch, ZN_NONE, 1, ptr, bytes, 0, 0);
}

void zn_kb_share(zn_kb *b, zn_kref ptr, zn_kref bytes, unsigned flags) {
  if (!address(b, ZN_K_Share, ptr, bytes, 1)) return;
  put(b, ZN_K_Share, ZN_NONE, 1, ptr, bytes, 0, flags);
}

zn_kref zn_kb_flow(zn_kb *b, zn_kref cond, zn_kref count, zn_kref most, unsigned kind) {
  if (!address(b, ZN_K_Flow, cond, most, 1) || !address(b, ZN_K_Flow, count, most, 1)) return 0;
  return put(b, ZN_K_Flow, ZN_BOOL, 1, cond, count, most, kind);
}

int64_t zn_tile_code(const zn_tile *t) {
  const uint64_t shape = t->rows | t->row_tiles << 5 | t->cols / 4 << 7 | t->col_step / 4 << 11 | (t->b_signed ? 1u << 17 : 0) |
                         (t->c_signed ? 1u << 18 : 0) | t->kind << 19;
  return (int64_t)(shape | (uint64_t)t->groups << 21 | (uint64_t)t->row_bytes << 37 | (uint64_t)t->reals << 61);
}

bool zn_tile_read(int64_t code, zn_tile *out) {
  const uint64_t c = (uint64_t)code;
  *out = (zn_tile){.rows = c & 31, .row_tiles = c >> 5 & 3, .cols = (c >> 7 & 15) * 4, .col_step = (c >> 11 & 63) * 4,
                   .b_signed = c >> 17 & 1, .c_signed = c >> 18 & 1, .kind = c >> 19 & 3, .groups = c >> 21 & 0xffff,
                   .row_bytes = c >> 37 & 0xffffff, .reals = c >> 61 & 1};
  return zn_tile_code(out) == code && out->kind != ZN_TILE_NONE && out->rows >= 1 && out->rows <= 16 && out->row_tiles >= 1 &&
         out->row_tiles <= 2 && out->cols >= 4 && out->cols <= 32 && out->col_step >= out->cols && out->groups >= 1 &&
         !(out->reals && (out->b_signed || out->c_signed || out->kind != ZN_TILE_AMX));
}

void zn_kb_tiledot(zn_kb *b, zn_kref to, zn_kref rows, zn_kref cols, const zn_tile *t) {
  if (!b->error) put(b, ZN_K_TileDot, ZN_NONE, 1, to, rows, cols, zn_tile_code(t));
}

void zn_kb_async_copy(zn_kb *b, zn_kref to, zn_kref from, zn_kref bytes) {
  if (!address(b, ZN_K_AsyncCopy, to, bytes, 1) || !address(b, ZN_K_AsyncCopy, from, bytes, 1)) return;
  put(b, ZN_K_AsyncCopy, ZN_NONE, 1, to, from, bytes, 0);
}

void zn_kb_async_wait(zn_kb *b, unsigned groups) {
  if (!b->error) put(b, ZN_K_AsyncWait, ZN_NONE, 1, 0, 0, 0, groups);
}

void zn_kb_statement(zn_kb *b, zn_kop op) {
  if (!b->error) put(b, op, ZN_NONE, 1, 0, 0, 0, 0);
}

void zn_kb_signal_set(zn_kb *b, zn_kref signal, int64_t arrivals) {
  if (ok1(b, ZN_K_SignalSet, signal)) put(b, ZN_K_SignalSet, ZN_NONE, 1, signal, 0, 0, arrivals);
}

void zn_kb_signal_arrive(zn_kb *b, zn_kref signal, int64_t bytes) {
  if (ok1(b, ZN_K_SignalArrive, signal)) put(b, ZN_K_SignalArrive, ZN_NONE, 1, signal, 0, 0, bytes);
}

void zn_kb_async_arrive(zn_kb *b, zn_kref signal) {
  if (ok1(b, ZN_K_AsyncArrive, signal)) put(b, ZN_K_AsyncArrive, ZN_NONE, 1, signal, 0, 0, 0);
}

void zn_kb_signal_wait(zn_kb *b, zn_kref signal, zn_kref turn) {
  if (address(b, ZN_K_SignalWait, signal, turn, 1)) put(b, ZN_K_SignalWait, ZN_NONE, 1, signal, turn, 0, 0);
}

void zn_kb_bulk_copy(zn_kb *b, zn_kref to, zn_kref from, int64_t bytes, zn_kref signal) {
  if (!ok2(b, ZN_K_BulkCopy, to, from) || !ok1(b, ZN_K_BulkCopy, signal)) return;
  put(b, ZN_K_BulkCopy, ZN_NONE, 1, to, from, signal, bytes);
}

void zn_kb_registers(zn_kb *b, int64_t most) {
  if (!b->error) put(b, ZN_K_Registers, ZN_NONE, 1, 0, 0, 0, most);
}

zn_kref zn_kb_ldmatrix(zn_kb *b, unsigned squares, bool transposed, zn_kref ptr, zn_kref word) {
  if (!address(b, ZN_K_LdMatrix, ptr, word, 1)) return 0;
  return put(b, ZN_K_LdMatrix, ZN_U32, squares, ptr, word, 0, transposed);
}

zn_kref zn_kb_groupmma(zn_kb *b, zn_kref rows, zn_kref cols, zn_kref acc, zn_mma_format format, unsigned under_way) {
  if (b->error) return 0;
  int64_t imm = (int64_t)format + 8 * (int64_t)under_way;
  return put(b, ZN_K_GroupMma, zn_mma_sum(format), b->f->insts[acc].lanes, rows, cols, acc, imm);
}

zn_kref zn_kb_groupwait(zn_kb *b, zn_kref acc) {
  if (!ok1(b, ZN_K_GroupWait, acc)) return 0;
  return put(b, ZN_K_GroupWait, (zn_dtype)b->f->insts[acc].dtype, b->f->insts[acc].lanes, acc, 0, 0, 0);
}

zn_kref zn_kb_lanexor(zn_kb *b, zn_kref a, unsigned bits) {
  if (!ok1(b, ZN_K_LaneXor, a)) return 0;
  return put(b, ZN_K_LaneXor, type_of(b, a), 1, a, 0, 0, bits);
}

zn_kref zn_kb_alloc(zn_kb *b, zn_dtype t, uint64_t count) {
  if (b->error) return 0;
  if (!convertible(t) || count == 0 || count > ZN_KIR_MAX_ALLOC)
    return fail(b, ZN_K_Alloc, "type or count out of range");
  return put(b, ZN_K_Alloc, t, 1, 0, 0, 0, (int64_t)count);
}

zn_kref zn_kb_hostalloc(zn_kb *b, zn_kref host, zn_kref bytes) {
  if (!address(b, ZN_K_HostAlloc, host, bytes, 1)) return 0;
  return put(b, ZN_K_HostAlloc, ZN_PTR, 1, host, bytes, 0, 0);
}

zn_kref zn_kb_hostimage(zn_kb *b, zn_kref host, zn_kref file, zn_kref image, int64_t pixels) {
  if (!ok2(b, ZN_K_HostImage, host, file) || !ok1(b, ZN_K_HostImage, image)) return 0;
  if (type_of(b, host) != ZN_PTR || type_of(b, file) != ZN_PTR || type_of(b, image) != ZN_PTR)
    return fail(b, ZN_K_HostImage, "an operand is not a pointer");
  return put(b, ZN_K_HostImage, ZN_I32, 1, host, file, image, pixels);
}

zn_kref zn_kb_constaddr(zn_kb *b, uint32_t const_id) {
  if (b->error) return 0;
  if (const_id >= b->mod->num_consts) return fail(b, ZN_K_ConstAddr, "no such module constant");
  return put(b, ZN_K_ConstAddr, ZN_PTR, 1, 0, 0, 0, const_id);
}

/* ---- variables and control ---- */

zn_kref zn_kb_var(zn_kb *b, zn_kref init) {
  if (!ok1(b, ZN_K_Var, init)) return 0;
  zn_dtype t = type_of(b, init);
  if (!convertible(t) && t != ZN_PTR) return fail(b, ZN_K_Var, "initial value has no type");
  return put(b, ZN_K_Var, t, lanes_of(b, init), init, 0, 0, 0);
}

zn_kref zn_kb_get(zn_kb *b, zn_kref var) {
  if (!ok1(b, ZN_K_Get, var)) return 0;
  if (b->f->insts[var].op != ZN_K_Var) return fail(b, ZN_K_Get, "operand is not a variable");
  return put(b, ZN_K_Get, (zn_dtype)b->f->insts[var].dtype, b->f->insts[var].lanes, var, 0, 0, 0);
}

void zn_kb_set(zn_kb *b, zn_kref var, zn_kref v) {
  if (!ok2(b, ZN_K_Set, var, v)) return;
  if (b->f->insts[var].op != ZN_K_Var) {
    fail(b, ZN_K_Set, "operand is not a variable");
    return;
  }
  zn_dtype t = (zn_dtype)b->f->insts[var].dtype;
  unsigned n = b->f->insts[var].lanes;
  if (lanes_of(b, v) == 1 && n > 1) v = zn_kb_splat(b, v, n);
  if (!b->error && (type_of(b, v) != t || lanes_of(b, v) != n))
    fail(b, ZN_K_Set, "value has not the variable's type");
  put(b, ZN_K_Set, t, n, var, v, 0, 0);
}

zn_kref zn_kb_for(zn_kb *b, zn_kref lo, zn_kref hi, int64_t step, zn_for_kind kind,
                  unsigned factor) {
  if (!ok2(b, ZN_K_For, lo, hi)) return 0;
  if (type_of(b, lo) != ZN_IDX || type_of(b, hi) != ZN_IDX || lanes_of(b, lo) != 1 ||
      lanes_of(b, hi) != 1)
    return fail(b, ZN_K_For, "bounds are not scalar idx values");
  if (step <= 0 || factor >= 1u << 24) return fail(b, ZN_K_For, "step or factor out of range");
  return put(b, ZN_K_For, ZN_IDX, 1, lo, hi, (uint32_t)kind | factor << 8, step);
}

static bool condition(zn_kb *b, zn_kop op, zn_kref cond) {
  if (!ok1(b, op, cond)) return false;
  if (type_of(b, cond) == ZN_BOOL && lanes_of(b, cond) == 1) return true;
  fail(b, op, "condition is not a scalar bool");
  return false;
}

void zn_kb_if(zn_kb *b, zn_kref cond) {
  if (condition(b, ZN_K_If, cond)) put(b, ZN_K_If, ZN_NONE, 1, cond, 0, 0, 0);
}

void zn_kb_else(zn_kb *b) { put(b, ZN_K_Else, ZN_NONE, 1, 0, 0, 0, 0); }
void zn_kb_loop(zn_kb *b) { put(b, ZN_K_Loop, ZN_NONE, 1, 0, 0, 0, 0); }

void zn_kb_break(zn_kb *b, zn_kref cond) {
  if (condition(b, ZN_K_Break, cond)) put(b, ZN_K_Break, ZN_NONE, 1, cond, 0, 0, 0);
}

void zn_kb_end(zn_kb *b) { put(b, ZN_K_End, ZN_NONE, 1, 0, 0, 0, 0); }

void zn_kb_ret(zn_kb *b, zn_kref code) {
  if (!ok1(b, ZN_K_Ret, code)) return;
  if (type_of(b, code) != ZN_I32 || lanes_of(b, code) != 1)
    fail(b, ZN_K_Ret, "code is not a scalar i32");
  put(b, ZN_K_Ret, ZN_NONE, 1, code, 0, 0, 0);
}

void zn_kb_call(zn_kb *b, uint32_t fn, const zn_kref *args, uint32_t num_args, zn_kref grid) {
  if (!ok1(b, ZN_K_Call, grid)) return;
  uint32_t first = b->f->num_extra;
  for (uint32_t i = 0; i < num_args; i++) {
    if (!ok1(b, ZN_K_Call, args[i])) return;
    ZN_PUSH(b->mod->arena, b->f->extra, b->f->num_extra, b->f->cap_extra, args[i]);
  }
  put(b, ZN_K_Call, ZN_NONE, 1, first, num_args, grid, fn);
}

uint32_t *zn_kf_match(const zn_kfunc *f, zn_arena *a) {
  uint32_t *match = ZN_ARRAY(a, uint32_t, f->num_insts),
           *stack = ZN_ARRAY(a, uint32_t, f->num_insts), depth = 0;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    uint8_t op = f->insts[i].op;
    if ((op == ZN_K_End || op == ZN_K_Else) && depth) match[stack[--depth]] = i;
    if (op == ZN_K_For || op == ZN_K_If || op == ZN_K_Loop || op == ZN_K_Else) stack[depth++] = i;
  }
  return match;
}
