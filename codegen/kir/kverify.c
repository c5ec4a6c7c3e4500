/* The kernel IR verifier: operand kinds come from the signatures in kops.def, types from the
 * operation's class, and scopes from one walk with a stack of open regions (a value is usable until
 * the region that defines it closes). */
#include "codegen/kir/kir.h"

typedef struct verifier {
  zn_ctx *c;
  const zn_kmod *m;
  const zn_kfunc *f;
  uint32_t at;
  bool *live;      /* value i is in scope */
  uint32_t *stack; /* open regions; after Else the Else itself */
  uint32_t depth, grids;
  bool bad;
} verifier;

static void bad(verifier *v, const char *what) {
  if (v->bad) return;
  v->bad = true;
  char where[256];
  snprintf(where, sizeof where, "kernel IR: function '%s', instruction %u (%s)", v->f->name, v->at,
           v->f->insts[v->at].op < ZN_K_COUNT ? zn_kops[v->f->insts[v->at].op].text : "?");
  zn_error(v->c, where, "%s", what);
}

static bool loadable(zn_dtype t) {
  return zn_kdt_is_int(t) || zn_kdt_is_float(t) || t == ZN_F16 || t == ZN_BF16 || t == ZN_BOOL;
}

bool zn_kop_accepts(zn_kop op, zn_dtype t) {
  switch ((int)op) {
    case ZN_K_And:
    case ZN_K_Or:
    case ZN_K_Xor:
    case ZN_K_Not: return zn_kdt_is_int(t) || t == ZN_BOOL;
    case ZN_K_Shl:
    case ZN_K_Shr: return zn_kdt_is_int(t);
    case ZN_K_Dot4:
    case ZN_K_Pair4:
    case ZN_K_Dot2:
    case ZN_K_Dot2Bf16: return t == ZN_I32;
    case ZN_K_Fma:
    case ZN_K_Sqrt:
    case ZN_K_Floor:
    case ZN_K_Ceil:
    case ZN_K_Trunc:
    case ZN_K_Rint:
    case ZN_K_CopySign: return zn_kdt_is_float(t);
    case ZN_K_Eq:
    case ZN_K_Ne: return zn_kdt_is_int(t) || zn_kdt_is_float(t) || t == ZN_BOOL || t == ZN_PTR;
    default: break;
  }
  switch (zn_kops[op].cls) {
    case 'A': return zn_kdt_is_int(t) || zn_kdt_is_float(t);
    case 'M': return zn_kdt_is_float(t);
    case 'P': return zn_kdt_is_int(t) || zn_kdt_is_float(t) || t == ZN_BOOL;
    default: return false;
  }
}

static void check_operand(verifier *v, char kind, zn_kref r) {
  if (kind == '-') return;
  if (r == 0 || r >= v->at || !v->live[r]) {
    bad(v, "operand is not a value in scope");
    return;
  }
  const zn_kinst *d = &v->f->insts[r];
  bool var = d->op == ZN_K_Var;
  if (kind == 'r' && !var) bad(v, "operand is not a variable");
  if (kind != 'r' && var) bad(v, "a variable is used as a value (Get is missing)");
  if (kind == 'p' && (zn_kf_dtype(v->f, r) != ZN_PTR || d->lanes != 1))
    bad(v, "operand is not a pointer");
  if (kind == 'x' && d->dtype != ZN_IDX) bad(v, "operand is not an idx value");
}

#define CHECK(cond, text)      \
  do {                         \
    if (!(cond)) bad(v, text); \
  } while (0)

static void check_leaf(verifier *v, const zn_kinst *in, zn_dtype t) {
  CHECK(in->lanes == 1, "a leaf has one lane");
  switch (in->op) {
    case ZN_K_Const: CHECK(loadable(t), "no constants of this type"); break;
    case ZN_K_Param:
      if (in->imm.i < 0 || in->imm.i >= v->f->num_params) {
        bad(v, "no such parameter");
      } else {
        bool is_int = v->f->params[in->imm.i].kind == ZN_KP_INT;
        CHECK(t == (is_int ? ZN_IDX : ZN_PTR), "type is not the parameter's");
      }
      break;
    case ZN_K_ConstAddr:
      CHECK(in->imm.i >= 0 && in->imm.i < v->m->num_consts, "no such module constant");
      CHECK(t == ZN_PTR, "address is not of type ptr");
      break;
    default: CHECK(t == ZN_U64, "features are u64"); break;
  }
}

static void check_arith(verifier *v, const zn_kinst *in, zn_dtype t) {
  const char *sig = zn_kops[in->op].sig;
  const zn_kref r[3] = {in->a, in->b, in->c};
  zn_dtype operand = zn_kf_dtype(v->f, in->a);
  CHECK(zn_kop_accepts((zn_kop)in->op, operand), "operand type does not fit the operation");
  if (in->op == ZN_K_Dot4 || in->op == ZN_K_Pair4) CHECK(in->imm.i >= 0 && in->imm.i < 8, "unknown flags");
  if (in->op == ZN_K_Dot2 || in->op == ZN_K_Dot2Bf16) CHECK(in->imm.i == 0, "unknown flags");
  CHECK(t == (zn_kops[in->op].cls == 'P' ? ZN_BOOL : operand), "result type is wrong");
  for (int k = 0; k < 3; k++) {
    if (sig[k] != 'v') continue;
    CHECK(zn_kf_dtype(v->f, r[k]) == operand, "operands have different types");
    CHECK(v->f->insts[r[k]].lanes == in->lanes, "operands have other lanes than the result");
  }
}

static void check_convert(verifier *v, const zn_kinst *in, zn_dtype t) {
  zn_dtype from = zn_kf_dtype(v->f, in->a);
  unsigned n = v->f->insts[in->a].lanes;
  if (in->op == ZN_K_Select) {
    CHECK(from == ZN_BOOL && (n == 1 || n == in->lanes), "condition is not bool of fitting lanes");
    CHECK(zn_kf_dtype(v->f, in->b) == t && zn_kf_dtype(v->f, in->c) == t,
          "operands have different types");
    CHECK(v->f->insts[in->b].lanes == in->lanes && v->f->insts[in->c].lanes == in->lanes,
          "lanes differ");
    return;
  }
  CHECK(n == in->lanes, "lanes differ");
  if (in->op == ZN_K_Bitcast && from == ZN_PTR && t == ZN_IDX) return;
  CHECK(loadable(from) && loadable(t), "type cannot be converted");
  if (in->op == ZN_K_Bitcast)
    CHECK(
        zn_dtype_bytes(from) == zn_dtype_bytes(t) && from != ZN_IDX && t != ZN_IDX && t != ZN_BOOL,
        "types have different sizes");
}

static void check_vector(verifier *v, const zn_kinst *in, zn_dtype t) {
  CHECK(loadable(t), "type has no vectors");
  if (in->op == ZN_K_Iota) {
    CHECK(zn_kdt_is_int(t) || zn_kdt_is_float(t), "type is not a number");
    return;
  }
  unsigned n = v->f->insts[in->a].lanes;
  if (in->op == ZN_K_Mma) {
    const zn_kinst *b = &v->f->insts[in->b], *acc = &v->f->insts[in->c];
    CHECK(zn_kf_dtype(v->f, in->a) == ZN_U32 && n == 4 && b->dtype == ZN_U32 && b->lanes == 2, "operands are not u32 x4 and x2");
    CHECK(in->imm.i >= 0 && in->imm.i < ZN_MMA_FORMATS, "unknown format of the operands");
    zn_dtype sum = zn_mma_sum((zn_mma_format)in->imm.i);
    CHECK(acc->dtype == sum && acc->lanes == 4 && t == sum && in->lanes == 4, "sum or result is not x4 of the format's type");
    return;
  }
  CHECK(zn_kf_dtype(v->f, in->a) == t, "operand type differs from the result's");
  switch (in->op) {
    case ZN_K_LaneXor:
      CHECK(in->lanes == 1 && n == 1 && zn_dtype_bytes(t) == 4, "not one lane of 32 bits");
      CHECK(in->imm.i > 0 && in->imm.i < 32, "no such thread");
      break;
    case ZN_K_GroupWait: CHECK(in->lanes == n && (t == ZN_F32 || t == ZN_I32), "not a sum of GroupMma"); break;
    case ZN_K_Splat: CHECK(n == 1, "operand is not a scalar"); break;
    case ZN_K_Extract:
      CHECK(in->lanes == 1 && in->imm.i >= 0 && in->imm.i < n, "no such lane");
      break;
    case ZN_K_Insert:
      CHECK(in->lanes == n && in->imm.i >= 0 && in->imm.i < n, "no such lane");
      CHECK(zn_kf_dtype(v->f, in->b) == t && v->f->insts[in->b].lanes == 1,
            "inserted value is not a scalar");
      break;
    case ZN_K_Shuffle:
      CHECK(zn_kf_dtype(v->f, in->b) == t && v->f->insts[in->b].lanes == n,
            "operands differ in type or lanes");
      if (in->imm.i < 0 || in->imm.i + in->lanes > v->f->num_extra) {
        bad(v, "mask is missing");
        return;
      }
      for (unsigned j = 0; j < in->lanes; j++)
        CHECK(v->f->extra[in->imm.i + j] < 2 * n, "mask points outside the operands");
      break;
    default:
      CHECK(in->lanes == 1 && (n & (n - 1)) == 0, "lanes are not a power of two");
      CHECK(zn_kdt_is_int(t) || zn_kdt_is_float(t), "type is not a number");
  }
}

static void check_memory(verifier *v, const zn_kinst *in, zn_dtype t) {
  if (in->op == ZN_K_Alloc) {
    CHECK(loadable(t) && in->imm.i > 0 && in->imm.i <= ZN_KIR_MAX_ALLOC && in->lanes == 1,
          "type or count out of range");
    CHECK(v->depth == 0, "alloc inside a region");
    return;
  }
  if (in->op == ZN_K_GroupMma) {
    const zn_kinst *acc = &v->f->insts[in->c];
    bool whole = in->lanes >= 16 && in->lanes <= 128 && in->lanes % 8 == 0;
    CHECK(in->imm.i >= 0 && zn_group_under_way(in->imm.i) < 8, "too many under way");
    zn_mma_format format = zn_group_format(in->imm.i);
    CHECK(format < ZN_MMA_FORMATS && format != ZN_MMA_TF32, "a format that tiles do not hold");
    bool alike = t == zn_mma_sum(format) && acc->dtype == t && acc->lanes == in->lanes;
    CHECK(alike && whole, "sum or result is not of the format's type, or not of 16, 24 ... 128 lanes");
    return;
  }
  unsigned nx = v->f->insts[in->b].lanes;
  if (in->op == ZN_K_Flow) {
    CHECK(v->f->is_entry && t == ZN_BOOL && in->lanes == 1, "only entry functions lead a device, and get a bool");
    CHECK(in->imm.i >= 0 && in->imm.i < (ZN_FLOW_COUNT << 1), "no such kind of region");
    return;
  }
  if (in->op == ZN_K_HostImage) {
    CHECK(v->f->is_entry && t == ZN_I32 && in->lanes == 1, "only entry functions ask the host, for an i32");
    CHECK(in->imm.i >= 0 && in->imm.i <= 2, "no such form of pixels");
    return;
  }
  if (in->op == ZN_K_HostAlloc) CHECK(v->f->is_entry, "only entry functions allocate");
  if (in->op == ZN_K_PtrAdd || in->op == ZN_K_HostAlloc) {
    CHECK(t == ZN_PTR && in->lanes == 1 && nx == 1, "pointers have one lane");
    return;
  }
  if (in->op == ZN_K_LdMatrix) {
    CHECK(t == ZN_U32 && (in->lanes == 1 || in->lanes == 2 || in->lanes == 4) && nx == 1, "not u32 of 1, 2 or 4 lanes");
    CHECK(in->imm.i == 0 || in->imm.i == 1, "neither as stored nor transposed");
    return;
  }
  CHECK(loadable(t) || (t == ZN_PTR && in->lanes == 1), "type cannot be in memory");
  CHECK(nx == 1 || nx == in->lanes, "index has other lanes than the access");
  CHECK(in->imm.i >= 0 && (in->imm.i & (in->imm.i - 1)) == 0, "alignment is not a power of two");
  if (in->op == ZN_K_Fetch || in->op == ZN_K_Poke)
    CHECK(v->f->is_entry && in->lanes == 1, "only entries fetch and poke, one element");
  if (in->op == ZN_K_Store || in->op == ZN_K_Poke)
    CHECK(zn_kf_dtype(v->f, in->c) == t && v->f->insts[in->c].lanes == in->lanes,
          "value's type or lanes differ");
}

static void check_call(verifier *v, const zn_kinst *in) {
  CHECK(v->f->is_entry, "only entry functions call");
  if (in->imm.i < 0 || in->imm.i >= v->m->num_funcs || v->m->funcs[in->imm.i]->is_entry) {
    bad(v, "no such kernel");
    return;
  }
  const zn_kfunc *k = v->m->funcs[in->imm.i];
  check_operand(v, 'x', in->c);
  if (in->b != k->num_params || (uint64_t)in->a + in->b > v->f->num_extra) {
    bad(v, "number of arguments is not the kernel's number of parameters");
    return;
  }
  for (uint32_t i = 0; i < in->b; i++)
    check_operand(v, k->params[i].kind == ZN_KP_INT ? 'x' : 'p', v->f->extra[in->a + i]);
}

/* Values of a region end with it. */
static void leave_scope(verifier *v) {
  uint32_t region = v->stack[v->depth - 1];
  for (uint32_t i = region; i < v->at; i++) v->live[i] = false;
}

static bool inside_loop(const verifier *v) {
  for (uint32_t d = v->depth; d-- > 0;) {
    const zn_kinst *r = &v->f->insts[v->stack[d]];
    if (r->op == ZN_K_Loop) return true;
    if (r->op == ZN_K_For) return (r->c & 255) == ZN_FOR_SERIAL;
  }
  return false;
}

static void check_for(verifier *v, const zn_kinst *in, zn_dtype t) {
  CHECK(t == ZN_IDX && in->lanes == 1, "induction variable is idx");
  CHECK(v->f->insts[in->a].lanes == 1 && v->f->insts[in->b].lanes == 1, "bounds have one lane");
  CHECK(in->imm.i > 0, "step is not positive");
  CHECK((in->c & 255) <= ZN_FOR_THREAD, "unknown kind of loop");
  if ((in->c & 255) == ZN_FOR_GRID) {
    CHECK(v->depth == 0 && !v->f->is_entry, "a grid loop stands at the top level of a kernel");
    CHECK(v->grids++ == 0, "a second grid loop");
    int64_t lo = -1;
    CHECK(zn_kf_const_int(v->f, in->a, &lo) && lo == 0 && in->imm.i == 1,
          "a grid loop counts from 0 by 1");
  }
}

static void check_statement(verifier *v, const zn_kinst *in, zn_dtype t) {
  const zn_kinst *a = &v->f->insts[in->a];
  switch (in->op) {
    case ZN_K_Nop: break;
    case ZN_K_Share: CHECK(v->f->is_entry && in->imm.i >= 0 && in->imm.i < 8, "only entries share, with known flags"); break;
    case ZN_K_SignalSet:
      CHECK(!v->f->is_entry && in->imm.i > 0 && in->imm.i <= 1024, "only kernels set signals, for 1 to 1024 arrivals");
      break;
    case ZN_K_AsyncArrive:
    case ZN_K_SignalArrive:
      CHECK(!v->f->is_entry && in->imm.i >= 0 && in->imm.i < 1 << 20, "only kernels arrive, with less than 1 MiB");
      break;
    case ZN_K_SignalWait: CHECK(!v->f->is_entry && v->f->insts[in->b].lanes == 1, "only kernels wait, for one turn"); break;
    case ZN_K_BulkCopy:
      CHECK(!v->f->is_entry, "only kernels copy in bulk");
      CHECK(in->imm.i > 0 && in->imm.i < 1 << 20 && in->imm.i % 16 == 0, "not a multiple of 16 bytes");
      break;
    case ZN_K_Registers: CHECK(!v->f->is_entry && in->imm.i % 8 == 0, "not a multiple of eight registers, in a kernel"); break;
    case ZN_K_Meet:
    case ZN_K_Barrier: CHECK(!v->f->is_entry, "only kernels have barriers"); break;
    case ZN_K_Var:
      CHECK(loadable(t) || (t == ZN_PTR && in->lanes == 1), "type has no variables");
      CHECK(zn_kf_dtype(v->f, in->a) == t && a->lanes == in->lanes, "initial value's type differs");
      break;
    case ZN_K_Get:
      CHECK(a->dtype == t && a->lanes == in->lanes, "type is not the variable's");
      break;
    case ZN_K_Set:
      CHECK(a->dtype == t && a->lanes == in->lanes, "type is not the variable's");
      CHECK(zn_kf_dtype(v->f, in->b) == t && v->f->insts[in->b].lanes == in->lanes,
            "value's type differs");
      break;
    case ZN_K_For: check_for(v, in, t); break;
    case ZN_K_If:
    case ZN_K_Break:
      CHECK(a->dtype == ZN_BOOL && a->lanes == 1, "condition is not a scalar bool");
      if (in->op == ZN_K_Break)
        CHECK(inside_loop(v), "no loop to leave (parallel loops cannot be left)");
      break;
    case ZN_K_Else:
      CHECK(v->depth && v->f->insts[v->stack[v->depth - 1]].op == ZN_K_If, "no open if");
      break;
    case ZN_K_End: CHECK(v->depth, "no open region"); break;
    case ZN_K_Ret:
      CHECK(v->f->is_entry, "only entry functions return a code");
      CHECK(a->dtype == ZN_I32 && a->lanes == 1, "code is not a scalar i32");
      break;
    case ZN_K_Call: check_call(v, in); break;
    case ZN_K_AsyncCopy: CHECK(!v->f->is_entry && v->f->insts[in->c].lanes == 1, "a copy of one lane, in a kernel"); break;
    case ZN_K_TileDot: {
      zn_tile tile;
      CHECK(!v->f->is_entry && zn_tile_read(in->imm.i, &tile), "not a tile, or not in a kernel");
      break;
    }
    case ZN_K_AsyncWait: CHECK(in->imm.i >= 0 && in->imm.i < 8, "number of groups out of range"); break;
    case ZN_K_Prefetch: CHECK(v->f->insts[in->b].lanes == 1, "pointers have one lane"); break;
    default: break;
  }
}

static void check_inst(verifier *v) {
  const zn_kinst *in = &v->f->insts[v->at];
  if (in->op >= ZN_K_COUNT || in->dtype >= ZN_DTYPE_COUNT) {
    bad(v, "unknown operation or type");
    return;
  }
  CHECK(in->lanes >= 1, "no lanes");
  const char *sig = zn_kops[in->op].sig;
  check_operand(v, sig[0], in->a);
  check_operand(v, sig[1], in->b);
  check_operand(v, sig[2], in->c);
  if (v->bad) return;
  zn_dtype t = (zn_dtype)in->dtype;
  switch (zn_kops[in->op].cls) {
    case 'C': check_leaf(v, in, t); break;
    case 'A':
    case 'M':
    case 'P': check_arith(v, in, t); break;
    case 'X': check_convert(v, in, t); break;
    case 'V': check_vector(v, in, t); break;
    case 'L': check_memory(v, in, t); break;
    default: check_statement(v, in, t);
  }
  if (v->bad) return;
  if (in->op == ZN_K_End || in->op == ZN_K_Else) {
    leave_scope(v);
    v->depth--;
  }
  v->live[v->at] = zn_kop_has_value((zn_kop)in->op);
  if (in->op == ZN_K_For || in->op == ZN_K_If || in->op == ZN_K_Loop || in->op == ZN_K_Else)
    v->stack[v->depth++] = v->at;
}

bool zn_kop_has_value(zn_kop op) {
  switch ((int)op) {
    case ZN_K_Var:
    case ZN_K_Get:
    case ZN_K_For: return true;
    case ZN_K_Store:
    case ZN_K_Poke: return false;
    default: return zn_kops[op].cls != 'S';
  }
}

static bool check_params(verifier *v) {
  for (uint32_t i = 0; i < v->f->num_params; i++) {
    const zn_kparam *p = &v->f->params[i];
    if (!p->name || p->kind > ZN_KP_INT || (p->kind == ZN_KP_INT && p->dtype != ZN_IDX))
      bad(v, "a parameter is malformed");
  }
  if (v->f->is_entry) {
    bool fits = v->f->num_params == 5;
    for (uint32_t i = 0; fits && i < 5; i++) fits = (v->f->params[i].kind == ZN_KP_INT) == (i == 3);
    CHECK(fits, "an entry has the parameters (ptr in, ptr out, ptr ws, idx ws_bytes, ptr host)");
  }
  return !v->bad;
}

zn_status zn_kfunc_verify(zn_ctx *c, const zn_kmod *m, const zn_kfunc *f) {
  zn_arena tmp;
  zn_arena_init(&tmp, "verify");
  verifier v = {.c = c, .m = m, .f = f};
  v.live = ZN_ARRAY(&tmp, bool, f->num_insts);
  v.stack = ZN_ARRAY(&tmp, uint32_t, f->num_insts);
  if (f->num_insts == 0 || f->insts[0].op != ZN_K_Nop)
    v.bad = zn_error(c, f->name, "kernel IR: a function starts with nop") != ZN_OK;
  if (!v.bad) check_params(&v);
  for (v.at = 1; v.at < f->num_insts && !v.bad; v.at++) check_inst(&v);
  if (!v.bad && v.depth) {
    v.at = f->num_insts - 1;
    bad(&v, "a region is not closed");
  }
  zn_arena_reset(&tmp);
  return v.bad ? ZN_ERR_MODEL : ZN_OK;
}

zn_status zn_kmod_verify(zn_ctx *c, const zn_kmod *m) {
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    ZN_TRY(zn_kfunc_verify(c, m, m->funcs[i]));
    for (uint32_t j = 0; j < i; j++)
      if (!strcmp(m->funcs[i]->name, m->funcs[j]->name))
        return zn_error(c, m->funcs[i]->name, "kernel IR: two functions have this name");
  }
  return ZN_OK;
}
