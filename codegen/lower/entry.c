/* The two entry functions of an artifact, in kernel IR like everything else: they check what the caller gave, bind the
 * dimension symbols, lay out the workspace and launch the kernels. Layout of zn_tensor: runtime/zenith.h. */
#include <assert.h>

#include "codegen/lower/program.h"
#include "runtime/zenith.h"

enum { T_SIZE = 88, T_DATA = 0, T_BYTES = 8, T_DTYPE = 16, T_RANK = 20, T_SHAPE = 24, HOST_ALLOC = 4, HOST_IMAGE = 6 };
static const int64_t max_dim = INT64_C(0x7fffffff), max_bytes = INT64_C(1) << 46;

typedef struct entry {
  zn_lw *lw;
  zn_kb *b;
  const zn_plan *plan;
  const zn_sides *sides;
  bool run; /* NAME_run, else NAME_plan */
  zn_kref in, out, ws, ws_bytes;
  struct sym_var { zn_expr sym; zn_kref var; } *syms;
  uint32_t num_syms, cap_syms;
  zn_kref host, *room; /* room: per heap buffer, a variable with the bytes it has */
  zn_kref *in_data, *out_data, *slot_off;
  int depth; /* open regions of the program: variables declared inside would not be seen after them */
  struct open { const zn_step *step; zn_kref recorded, taken; } *open; /* those; recorded: 0 where a device does not decide */
} entry;

/* ---------------------------------------------------------------- small code pieces */

static void fail_if(entry *e, zn_kref cond, int32_t code) {
  int64_t c;
  if (zn_kf_const_int(e->b->f, cond, &c) && !c) return;
  zn_kref r = zn_kb_int(e->b, ZN_I32, code);
  zn_kb_if(e->b, cond);
  zn_kb_ret(e->b, r);
  zn_kb_end(e->b);
}

static zn_kref field(entry *e, zn_kref tensors, uint32_t i, int off, zn_dtype t) {
  zn_kref bytes = zn_kb_idx(e->b, (int64_t)i * T_SIZE + off);
  zn_kref p = zn_kb_ptradd(e->b, tensors, bytes);
  zn_kref zero = zn_kb_idx(e->b, 0);
  return zn_kb_load(e->b, t, 1, p, zero);
}

static zn_kref tensor_at(entry *e, zn_kref tensors, uint32_t i) {
  return zn_kb_ptradd(e->b, tensors, zn_kb_idx(e->b, (int64_t)i * T_SIZE));
}

static void set_field(entry *e, zn_kref tensors, uint32_t i, int off, zn_kref v) {
  zn_kref bytes = zn_kb_idx(e->b, (int64_t)i * T_SIZE + off);
  zn_kref p = zn_kb_ptradd(e->b, tensors, bytes);
  zn_kref zero = zn_kb_idx(e->b, 0);
  zn_kb_store(e->b, p, zero, v);
}

/* An element of a tensor or of the workspace: device memory where kernels run on a device. */
static zn_kref peek(entry *e, zn_dtype t, zn_kref p, zn_kref at, bool last) {
  if (!e->lw->caps->simt) return zn_kb_load(e->b, t, 1, p, at);
  return zn_kb_raw(e->b, (zn_kinst){.op = ZN_K_Fetch, .dtype = (uint8_t)t, .lanes = 1, .a = p, .b = at, .imm.i = last});
}

static zn_kref is_null(entry *e, zn_kref p) {
  zn_kref addr = zn_kb_bitcast(e->b, p, ZN_IDX);
  return zn_kb_cmp(e->b, ZN_K_Eq, addr, zn_kb_idx(e->b, 0));
}

static struct sym_var *find_sym(entry *e, zn_expr sym) {
  for (uint32_t i = 0; i < e->num_syms; i++)
    if (e->syms[i].sym == sym) return &e->syms[i];
  return NULL;
}

static void unknown_size(entry *e, zn_expr sym, const char *why) {
  if (!e->lw->failed)
    zn_fail(e->lw->ctx, ZN_ERR_UNSUPPORTED, NULL, "size '%s' %s", zn_ex_name(e->lw->ex, sym), why);
  e->lw->failed = true;
}

static void declare_sym(entry *e, zn_expr sym, zn_kref init) {
  struct sym_var s = {sym, zn_kb_var(e->b, init)};
  ZN_PUSH(e->lw->arena, e->syms, e->num_syms, e->cap_syms, s);
}

static zn_kref ix(entry *e, zn_expr x);

/* A named formula: computed once, unless sizes inside it are still to be found by the run. */
static zn_kref formula(entry *e, zn_expr sym) {
  zn_expr def = zn_ex_def(e->lw->ex, sym);
  zn_kref v = ix(e, def);
  if (e->depth > 0) return v;
  for (uint32_t i = 0; i < e->lw->num_steps; i++) {
    zn_expr s = e->lw->steps[i].sym;
    if (s && zn_ex_depends(e->lw->ex, def, s)) return v;
  }
  declare_sym(e, sym, v);
  return v;
}

/* idx value of an expression over dimension symbols */
static zn_kref ix(entry *e, zn_expr x) {
  zn_exprs *ex = e->lw->ex;
  zn_kb *b = e->b;
  int64_t c;
  if (zn_ex_is_const(ex, x, &c)) return zn_kb_idx(b, c);
  zn_ex_op op = zn_ex_kind(ex, x);
  if (op == ZN_EX_SYM) {
    struct sym_var *s = find_sym(e, x);
    if (s) return zn_kb_get(b, s->var);
    if (zn_ex_def(ex, x)) return formula(e, x);
    unknown_size(e, x, "is computed at run time by an operator that does not tell it yet");
    return zn_kb_idx(b, 1);
  }
  zn_kref r = ix(e, zn_ex_operand(ex, x, 0));
  for (uint32_t i = 1; i < zn_ex_arity(ex, x); i++) {
    zn_kref y = ix(e, zn_ex_operand(ex, x, i));
    zn_kref zero = zn_kb_idx(b, 0), one = zn_kb_idx(b, 1);
    switch (op) {
    case ZN_EX_ADD: r = zn_kb_bin(b, ZN_K_Add, r, y); break;
    case ZN_EX_MUL: r = zn_kb_bin(b, ZN_K_Mul, r, y); break;
    case ZN_EX_MIN: r = zn_kb_bin(b, ZN_K_Min, r, y); break;
    case ZN_EX_MAX: r = zn_kb_bin(b, ZN_K_Max, r, y); break;
    case ZN_EX_BCAST: {
      zn_kref is1 = zn_kb_cmp(b, ZN_K_Eq, r, one);
      r = zn_kb_select(b, is1, y, r);
      break;
    }
    default: { /* floor division and modulo */
      zn_kref q = zn_kb_bin(b, ZN_K_Div, r, y), m = zn_kb_bin(b, ZN_K_Rem, r, y);
      zn_kref mneg = zn_kb_cmp(b, ZN_K_Lt, m, zero), yneg = zn_kb_cmp(b, ZN_K_Lt, y, zero);
      zn_kref nz = zn_kb_cmp(b, ZN_K_Ne, m, zero), differ = zn_kb_bin(b, ZN_K_Xor, mneg, yneg);
      zn_kref fix = zn_kb_bin(b, ZN_K_And, nz, differ);
      zn_kref q1 = zn_kb_bin(b, ZN_K_Sub, q, one), m1 = zn_kb_bin(b, ZN_K_Add, m, y);
      r = op == ZN_EX_DIV ? zn_kb_select(b, fix, q1, q) : zn_kb_select(b, fix, m1, m);
    }
    }
  }
  return r;
}

/* ---------------------------------------------------------------- checks */

static void check_input_type(entry *e, uint32_t i) {
  zn_kref dt = field(e, e->in, i, T_DTYPE, ZN_U32), rank = field(e, e->in, i, T_RANK, ZN_U32);
  const zn_kio *io = &e->lw->mod->inputs[i];
  if (io->kind) dt = zn_kb_bin(e->b, ZN_K_And, dt, zn_kb_int(e->b, ZN_U32, 0xff00)); /* items say what they are */
  zn_kref want = zn_kb_int(e->b, ZN_U32, io->kind ? io->kind & 0xff00 : zn_kio_code(io));
  fail_if(e, zn_kb_cmp(e->b, ZN_K_Ne, dt, want), ZN_RUN_DTYPE);
  zn_kref r = zn_kb_int(e->b, ZN_U32, e->lw->mod->inputs[i].rank);
  fail_if(e, zn_kb_cmp(e->b, ZN_K_Ne, rank, r), ZN_RUN_RANK);
}

static zn_kref input_dim(entry *e, uint32_t i, int d) {
  return zn_kb_cvt(e->b, field(e, e->in, i, T_SHAPE + 8 * d, ZN_I64), ZN_IDX);
}

static void check_dim_range(entry *e, uint32_t i, int d) {
  zn_kref raw = field(e, e->in, i, T_SHAPE + 8 * d, ZN_I64);
  zn_kref zero = zn_kb_int(e->b, ZN_I64, 0), top = zn_kb_int(e->b, ZN_I64, max_dim);
  fail_if(e, zn_kb_cmp(e->b, ZN_K_Lt, raw, zero), ZN_RUN_SHAPE);
  fail_if(e, zn_kb_cmp(e->b, ZN_K_Gt, raw, top), ZN_RUN_OVERFLOW);
}

static void bind_symbols(entry *e) {
  zn_lw *lw = e->lw;
  for (uint32_t i = 0; i < lw->g->num_inputs; i++) {
    const zn_type *t = zn_lw_type(lw, lw->g->inputs[i]);
    for (int d = 0; t->kind == ZN_V_TENSOR && d < t->rank; d++) {
      check_dim_range(e, i, d);
      if (zn_ex_kind(lw->ex, t->dims[d]) != ZN_EX_SYM || find_sym(e, t->dims[d])) continue;
      zn_kref v = input_dim(e, i, d);
      int64_t lo, hi;
      zn_ex_range(lw->ex, t->dims[d], &lo, &hi);
      if (lo > 0) fail_if(e, zn_kb_cmp(e->b, ZN_K_Lt, v, zn_kb_idx(e->b, lo)), ZN_RUN_SHAPE);
      if (hi < max_dim) fail_if(e, zn_kb_cmp(e->b, ZN_K_Gt, v, zn_kb_idx(e->b, hi)), ZN_RUN_SHAPE);
      declare_sym(e, t->dims[d], v);
    }
  }
}

/* count of elements times size, failing before it could overflow */
static zn_kref checked_bytes(entry *e, const zn_type *t) {
  zn_kb *b = e->b;
  int64_t limit = e->lw->caps->idx_bytes == 4 ? max_dim : max_bytes;
  zn_kref p = zn_kb_idx(b, zn_dtype_bytes((zn_dtype)t->dtype));
  for (int d = 0; d < t->rank; d++) {
    zn_kref n = ix(e, t->dims[d]), one = zn_kb_idx(b, 1);
    int64_t c, pc, lo, hi;
    zn_ex_range(e->lw->ex, t->dims[d], &lo, &hi);
    if (lo < 0) {
      zn_kref zero = zn_kb_idx(b, 0);
      fail_if(e, zn_kb_cmp(b, ZN_K_Lt, n, zero), ZN_RUN_SHAPE);
    }
    if (zn_kf_const_int(b->f, n, &c) && zn_kf_const_int(b->f, p, &pc) && (c == 0 || pc <= limit / c)) {
      p = zn_kb_idx(b, c * pc);
      continue;
    }
    zn_kref lim = zn_kb_idx(b, limit), n1 = zn_kb_bin(b, ZN_K_Max, n, one);
    zn_kref most = zn_kb_bin(b, ZN_K_Div, lim, n1);
    fail_if(e, zn_kb_cmp(b, ZN_K_Gt, p, most), ZN_RUN_OVERFLOW);
    p = zn_kb_bin(b, ZN_K_Mul, p, n);
  }
  return p;
}

static void check_buffer(entry *e, zn_kref tensors, uint32_t i, zn_kref need) {
  zn_kb *b = e->b;
  zn_kref have = field(e, tensors, i, T_BYTES, ZN_U64), want = zn_kb_cvt(b, need, ZN_U64);
  fail_if(e, zn_kb_cmp(b, ZN_K_Lt, have, want), ZN_RUN_SHORT);
  zn_kref data = field(e, tensors, i, T_DATA, ZN_PTR), zero = zn_kb_idx(b, 0);
  zn_kref null = is_null(e, data), some = zn_kb_cmp(b, ZN_K_Ne, need, zero);
  fail_if(e, zn_kb_bin(b, ZN_K_And, null, some), ZN_RUN_NULL);
}

/* An element as index: numbers beyond every dimension ("to the end") come down to the largest one. */
static zn_kref size_of_element(entry *e, zn_kref x) {
  zn_kb *b = e->b;
  if (zn_kf_dtype(b->f, x) != ZN_I64) return zn_kb_cvt(b, x, ZN_IDX);
  zn_kref top = zn_kb_int(b, ZN_I64, max_dim), bottom = zn_kb_int(b, ZN_I64, -max_dim);
  zn_kref low = zn_kb_bin(b, ZN_K_Max, x, bottom);
  return zn_kb_cvt(b, zn_kb_bin(b, ZN_K_Min, low, top), ZN_IDX);
}

/* What compilation took for granted about a size that is an element of an input. */
static void check_range(entry *e, zn_expr sym) {
  int64_t lo, hi;
  zn_ex_range(e->lw->ex, sym, &lo, &hi);
  zn_kref v = zn_kb_get(e->b, find_sym(e, sym)->var);
  if (lo > -max_dim) fail_if(e, zn_kb_cmp(e->b, ZN_K_Lt, v, zn_kb_idx(e->b, lo)), ZN_RUN_SHAPE);
  if (hi < max_dim) fail_if(e, zn_kb_cmp(e->b, ZN_K_Gt, v, zn_kb_idx(e->b, hi)), ZN_RUN_SHAPE);
}

/* floor(by * x) in float32, or floor(x); not a number, and what no dimension is, come out as -1. */
static zn_kref size_of_float(entry *e, zn_kref x, zn_expr by) {
  zn_kb *b = e->b;
  if (zn_kf_dtype(b->f, x) != ZN_F32) x = zn_kb_cvt(b, x, ZN_F32);
  if (by) x = zn_kb_bin(b, ZN_K_Mul, zn_kb_cvt(b, ix(e, by), ZN_F32), x);
  zn_kref low = zn_kb_cmp(b, ZN_K_Ge, x, zn_kb_float(b, ZN_F32, 0));
  zn_kref high = zn_kb_cmp(b, ZN_K_Lt, x, zn_kb_float(b, ZN_F32, (double)max_dim));
  zn_kref fine = zn_kb_bin(b, ZN_K_And, low, high), none = zn_kb_float(b, ZN_F32, -1);
  return zn_kb_cvt(b, zn_kb_select(b, fine, x, none), ZN_IDX);
}

/* Sizes that elements of a float input scale, when all that they scale is bound. */
static void bind_scaled(entry *e, uint32_t i, const zn_value *v) {
  zn_kref data = field(e, e->in, i, T_DATA, ZN_PTR);
  for (uint32_t k = 0; k < v->num_scaled; k++) {
    if (find_sym(e, v->scaled[k].sym)) continue;
    zn_kref at = zn_kb_idx(e->b, v->scaled[k].elem);
    zn_kref n = size_of_float(e, peek(e, (zn_dtype)v->type.dtype, data, at, false), v->scaled[k].by);
    declare_sym(e, v->scaled[k].sym, n);
    check_range(e, v->scaled[k].sym);
  }
}

/* Sizes that are elements of an input: read before anything is sized, by plan too. */
static void bind_contents(entry *e, uint32_t i, const zn_value *v) {
  zn_kref data = field(e, e->in, i, T_DATA, ZN_PTR);
  for (uint32_t k = 0; k < v->num_elems; k++) {
    if (!v->content[k] || find_sym(e, v->content[k])) continue;
    zn_kref at = zn_kb_idx(e->b, k);
    zn_kref x = peek(e, (zn_dtype)v->type.dtype, data, at, false);
    declare_sym(e, v->content[k], size_of_element(e, x));
    check_range(e, v->content[k]);
  }
}

/* The zn_tensors of a list are checked where they are used. */
static void check_list(entry *e, uint32_t i) {
  check_dim_range(e, i, 0);
  zn_kref size = zn_kb_idx(e->b, T_SIZE), n = input_dim(e, i, 0);
  check_buffer(e, e->in, i, zn_kb_bin(e->b, ZN_K_Mul, n, size));
}

static void check_inputs(entry *e) {
  zn_lw *lw = e->lw;
  for (uint32_t i = 0; i < lw->g->num_inputs; i++) {
    const zn_type *t = zn_lw_type(lw, lw->g->inputs[i]);
    if (t->kind != ZN_V_TENSOR) {
      if (e->run) check_list(e, i);
      continue;
    }
    for (int d = 0; d < t->rank; d++) {
      struct sym_var *s = find_sym(e, t->dims[d]);
      zn_kref have = input_dim(e, i, d), want = s ? zn_kb_get(e->b, s->var) : ix(e, t->dims[d]);
      fail_if(e, zn_kb_cmp(e->b, ZN_K_Ne, have, want), ZN_RUN_SHAPE);
    }
    const zn_value *v = &lw->g->vals[lw->g->inputs[i]];
    if (e->run || v->content || v->num_scaled) check_buffer(e, e->in, i, checked_bytes(e, t));
    if (v->content) bind_contents(e, i, v);
  }
  for (uint32_t i = 0; i < lw->g->num_inputs; i++) bind_scaled(e, i, &lw->g->vals[lw->g->inputs[i]]);
}

/* In both entries: nobody has to call plan, and the answer is kept (codegen/llvm/llvm_support.c). */
static void check_cpu(entry *e) {
  uint32_t need = e->lw->caps->feature_bits;
  if (!need) return;
  zn_kref have = zn_kb_raw(e->b, (zn_kinst){.op = ZN_K_Features, .dtype = ZN_U64, .lanes = 1});
  zn_kref mask = zn_kb_int(e->b, ZN_U64, need);
  zn_kref got = zn_kb_bin(e->b, ZN_K_And, have, mask);
  fail_if(e, zn_kb_cmp(e->b, ZN_K_Ne, got, mask), ZN_RUN_CPU);
}

/* ---------------------------------------------------------------- outputs and workspace */

/* A size as plan can know it: its bound. */
static zn_expr bounded(entry *e, zn_expr x) {
  zn_expr top = zn_lw_bound(e->lw, x);
  assert(top && "unbounded buffers are not in the workspace");
  return top;
}

static bool is_list(const zn_type *t) { return t->kind != ZN_V_TENSOR; }

/* Does the caller give the buffer of output i? */
static bool given(const entry *e, uint32_t i) {
  return !is_list(zn_lw_type(e->lw, e->lw->g->outputs[i])) && e->lw->out_heap[i] == UINT32_MAX;
}

static zn_type bounded_type(entry *e, zn_vid v) {
  zn_type t = *zn_lw_type(e->lw, v);
  for (int d = 0; d < t.rank; d++) t.dims[d] = bounded(e, t.dims[d]);
  return t;
}

static void describe_list(entry *e, uint32_t i) {
  set_field(e, e->out, i, T_DTYPE, zn_kb_int(e->b, ZN_U32, zn_kio_code(&e->lw->mod->outputs[i])));
  set_field(e, e->out, i, T_RANK, zn_kb_int(e->b, ZN_U32, 1));
  set_field(e, e->out, i, T_SHAPE, zn_kb_int(e->b, ZN_I64, -1));
}

/* What plan says about an output that has no bound. */
static void describe_unbounded(entry *e, uint32_t i) {
  const zn_type *t = zn_lw_type(e->lw, e->lw->g->outputs[i]);
  set_field(e, e->out, i, T_DTYPE, zn_kb_int(e->b, ZN_U32, zn_dtypes[t->dtype].onnx));
  set_field(e, e->out, i, T_RANK, zn_kb_int(e->b, ZN_U32, t->rank));
  for (int d = 0; d < t->rank; d++) {
    zn_expr top = zn_lw_bound(e->lw, t->dims[d]);
    zn_kref n = top ? zn_kb_cvt(e->b, ix(e, top), ZN_I64) : zn_kb_int(e->b, ZN_I64, -1);
    set_field(e, e->out, i, T_SHAPE + 8 * d, n);
  }
}

static void describe_output(entry *e, uint32_t i, bool exact) {
  zn_lw *lw = e->lw;
  zn_type t = *zn_lw_type(lw, lw->g->outputs[i]);
  if (!exact) t = bounded_type(e, lw->g->outputs[i]);
  set_field(e, e->out, i, T_DTYPE, zn_kb_int(e->b, ZN_U32, zn_dtypes[t.dtype].onnx));
  set_field(e, e->out, i, T_RANK, zn_kb_int(e->b, ZN_U32, t.rank));
  for (int d = 0; d < t.rank; d++)
    set_field(e, e->out, i, T_SHAPE + 8 * d, zn_kb_cvt(e->b, ix(e, t.dims[d]), ZN_I64));
}

static zn_kref round64(entry *e, zn_kref n) {
  zn_kref up = zn_kb_bin(e->b, ZN_K_Add, n, zn_kb_idx(e->b, 63));
  return zn_kb_bin(e->b, ZN_K_And, up, zn_kb_idx(e->b, -64));
}

static zn_kref workspace_layout(entry *e) {
  const zn_plan *p = e->plan;
  zn_kref at = zn_kb_idx(e->b, (int64_t)p->static_bytes);
  e->slot_off = ZN_ARRAY(e->lw->arena, zn_kref, p->num_slots);
  for (uint32_t s = 0; s < p->num_slots; s++) {
    e->slot_off[s] = at;
    zn_kref size = zn_kb_idx(e->b, 0);
    for (uint32_t i = 0; i < p->slots[s].num_sizes; i++) {
      zn_kref one = ix(e, bounded(e, p->slots[s].sizes[i])), nothing = zn_kb_idx(e->b, 0);
      fail_if(e, zn_kb_cmp(e->b, ZN_K_Lt, one, nothing), ZN_RUN_SHAPE);
      size = zn_kb_bin(e->b, ZN_K_Max, size, one);
    }
    size = round64(e, size);
    at = zn_kb_bin(e->b, ZN_K_Add, at, size);
    zn_kref limit = zn_kb_idx(e->b, e->lw->caps->idx_bytes == 4 ? max_dim : max_bytes);
    zn_kref over = zn_kb_cmp(e->b, ZN_K_Gt, at, limit), zero = zn_kb_idx(e->b, 0);
    zn_kref neg = zn_kb_cmp(e->b, ZN_K_Lt, at, zero);
    fail_if(e, zn_kb_bin(e->b, ZN_K_Or, over, neg), ZN_RUN_OVERFLOW);
  }
  return at;
}

static void check_workspace(entry *e, zn_kref need) {
  zn_kb *b = e->b;
  zn_kref zero = zn_kb_idx(b, 0);
  zn_kref some = zn_kb_cmp(b, ZN_K_Ne, need, zero);
  zn_kref small = zn_kb_cmp(b, ZN_K_Lt, e->ws_bytes, need);
  fail_if(e, small, ZN_RUN_WORKSPACE);
  zn_kref null = is_null(e, e->ws);
  fail_if(e, zn_kb_bin(b, ZN_K_And, null, some), ZN_RUN_NULL);
  zn_kref addr = zn_kb_bitcast(b, e->ws, ZN_IDX);
  zn_kref low = zn_kb_bin(b, ZN_K_And, addr, zn_kb_idx(b, 63));
  zn_kref odd = zn_kb_cmp(b, ZN_K_Ne, low, zero);
  fail_if(e, zn_kb_bin(b, ZN_K_And, odd, some), ZN_RUN_WORKSPACE);
}

/* An output at the address of an input, unless it may lie there. */
static void check_overlays(entry *e) {
  zn_lw *lw = e->lw;
  zn_kb *b = e->b;
  const uint32_t num = lw->g->num_outputs;
  int32_t *may = ZN_ARRAY(lw->arena, int32_t, num + 1);
  for (uint32_t o = 0; o < num; o++) may[o] = given(e, o) ? (int32_t)lw->over_input[o] - 1 : -2;
  if (!num || !lw->g->num_inputs) return;
  if (lw->overlays.kind == ZN_LOC_NONE) lw->overlays = zn_lw_const(lw, "overlays", ZN_I32, num, may);
  zn_kref table = zn_kb_constaddr(b, lw->overlays.index), zero = zn_kb_idx(b, 0);
  zn_kref o = zn_kb_for(b, zero, zn_kb_idx(b, num), 1, ZN_FOR_SERIAL, 0);
  zn_kref i = zn_kb_for(b, zero, zn_kb_idx(b, lw->g->num_inputs), 1, ZN_FOR_SERIAL, 0);
  zn_kref size = zn_kb_idx(b, T_SIZE), allowed = zn_kb_cvt(b, zn_kb_load(b, ZN_I32, 1, table, o), ZN_IDX);
  zn_kref x = zn_kb_ptradd(b, e->in, zn_kb_bin(b, ZN_K_Mul, i, size));
  zn_kref y = zn_kb_ptradd(b, e->out, zn_kb_bin(b, ZN_K_Mul, o, size));
  zn_kref from = zn_kb_bitcast(b, zn_kb_load(b, ZN_PTR, 1, x, zero), ZN_IDX);
  zn_kref to = zn_kb_bitcast(b, zn_kb_load(b, ZN_PTR, 1, y, zero), ZN_IDX), one = zn_kb_idx(b, 1);
  zn_kref none = zn_kb_int(b, ZN_U64, 0), some = zn_kb_cmp(b, ZN_K_Ne, zn_kb_load(b, ZN_U64, 1, x, one), none);
  zn_kref set = zn_kb_cmp(b, ZN_K_Ne, from, zero), same = zn_kb_bin(b, ZN_K_And, zn_kb_cmp(b, ZN_K_Eq, from, to), set);
  zn_kref decided = zn_kb_cmp(b, ZN_K_Ne, allowed, zn_kb_idx(b, -2));
  zn_kref other = zn_kb_bin(b, ZN_K_And, zn_kb_cmp(b, ZN_K_Ne, allowed, i), decided);
  zn_kref bad = zn_kb_bin(b, ZN_K_And, zn_kb_bin(b, ZN_K_And, same, some), other);
  fail_if(e, bad, ZN_RUN_OVERLAP);
  zn_kb_end(b);
  zn_kb_end(b);
}

/* ---------------------------------------------------------------- the program */

static zn_kref base_of(entry *e, zn_loc loc) {
  if (loc.kind == ZN_LOC_INPUT) return e->in_data[loc.index];
  if (loc.kind == ZN_LOC_OUTPUT) return e->out_data[loc.index];
  if (loc.kind == ZN_LOC_CONST) return zn_kb_constaddr(e->b, loc.index);
  const zn_wsbuf *w = &e->lw->bufs[loc.index];
  zn_loc cell = {ZN_LOC_WS, loc.kind == ZN_LOC_CELL ? loc.index : w->cell};
  if (loc.kind == ZN_LOC_CELL || w->heap) {
    zn_kref p = base_of(e, cell), zero = zn_kb_idx(e->b, 0);
    return zn_kb_load(e->b, ZN_PTR, 1, p, zero);
  }
  assert(loc.kind == ZN_LOC_WS);
  zn_kref off = w->slot == UINT32_MAX ? zn_kb_idx(e->b, (int64_t)w->offset) : e->slot_off[w->slot];
  return zn_kb_ptradd(e->b, e->ws, off);
}

static zn_kref address(entry *e, zn_loc loc) {
  if (loc.kind != ZN_LOC_PART) return base_of(e, loc);
  const zn_part *p = &e->lw->parts[loc.index];
  zn_kref base = base_of(e, p->whole);
  return p->at ? zn_kb_ptradd(e->b, base, zn_kb_idx(e->b, (int64_t)p->at)) : base;
}

/* ---- two parts: the host's and the device's ---- */

static const uint8_t *side_of(entry *e, zn_loc root) {
  const zn_sides *s = e->sides;
  return root.kind == ZN_LOC_WS       ? &s->buf[root.index]
         : root.kind == ZN_LOC_INPUT  ? &s->in[root.index]
         : root.kind == ZN_LOC_OUTPUT ? &s->out[root.index]
                                      : NULL;
}

static zn_loc root_of(entry *e, zn_loc loc) { return loc.kind == ZN_LOC_PART ? e->lw->parts[loc.index].whole : loc; }

/* Size of a place, the same each time while it holds the same thing. */
static zn_kref share_bytes(entry *e, zn_loc root) {
  zn_lw *lw = e->lw;
  if (root.kind == ZN_LOC_INPUT) return ix(e, zn_lw_bytes(lw, zn_lw_type(lw, lw->g->inputs[root.index])));
  if (root.kind == ZN_LOC_OUTPUT) {
    zn_type t = bounded_type(e, lw->g->outputs[root.index]);
    return ix(e, zn_lw_bytes(lw, &t));
  }
  const zn_wsbuf *w = &lw->bufs[root.index];
  if (!w->heap) return ix(e, bounded(e, w->bytes));
  if (w->keep && !w->grows) return ix(e, w->bytes);
  return zn_kb_get(e->b, e->room[root.index]);
}

/* Before a place is used by whom flags name. What only one side ever touches lies there; inputs and outputs come from outside. */
static void share(entry *e, zn_loc loc, unsigned flags) {
  zn_loc root = root_of(e, loc);
  const uint8_t *sides = e->sides->mixed ? side_of(e, root) : NULL;
  if (!sides || (root.kind == ZN_LOC_WS && *sides != (ZN_SIDE_HOST | ZN_SIDE_DEVICE))) return;
  if (root.kind == ZN_LOC_INPUT && zn_side_of_type(zn_lw_type(e->lw, e->lw->g->inputs[root.index]))) return;
  if (root.kind == ZN_LOC_OUTPUT && zn_side_of_type(zn_lw_type(e->lw, e->lw->g->outputs[root.index]))) return;
  zn_kref p = base_of(e, root), bytes = share_bytes(e, root);
  zn_kb_share(e->b, p, bytes, flags);
}

/* Is the place memory that the entry itself can read, once it is shared? */
static bool host_reads(entry *e, zn_loc loc) {
  zn_loc root = root_of(e, loc);
  return e->sides->mixed && (root.kind != ZN_LOC_WS || *side_of(e, root) != ZN_SIDE_DEVICE);
}

/* An element of a place, wherever it is. */
static zn_kref peek_at(entry *e, zn_dtype t, zn_loc loc, int64_t elem, bool last) {
  bool host = host_reads(e, loc);
  if (host) share(e, loc, ZN_SHARE_HOST);
  zn_kref p = address(e, loc), at = zn_kb_idx(e->b, elem);
  return host ? zn_kb_load(e->b, t, 1, p, at) : peek(e, t, p, at, last);
}

static void clear_error(entry *e) {
  zn_kb *b = e->b;
  zn_loc loc = {ZN_LOC_WS, e->lw->err_buf};
  bool poke = e->lw->caps->simt && !(e->sides->mixed && e->sides->buf[loc.index] == ZN_SIDE_HOST);
  if (poke) share(e, loc, ZN_SHARE_DEVICE | ZN_SHARE_WRITE);
  zn_kref p = address(e, loc), zero = zn_kb_idx(b, 0), ok = zn_kb_int(b, ZN_I32, 0);
  if (poke) zn_kb_raw(b, (zn_kinst){.op = ZN_K_Poke, .dtype = ZN_I32, .lanes = 1, .a = p, .b = zero, .c = ok});
  else zn_kb_store(b, p, zero, ok);
}

static void share_args(entry *e, const zn_step *s) {
  unsigned side = zn_side_of_step(e->lw, s) == ZN_SIDE_HOST ? ZN_SHARE_HOST : ZN_SHARE_DEVICE;
  for (int writes = 0; writes < 2; writes++)
    for (uint32_t i = 0; i < s->num_args; i++)
      if (!s->args[i].is_int && (s->args[i].access != ZN_KP_IN) == writes)
        share(e, s->args[i].loc, side | (writes ? ZN_SHARE_WRITE : 0));
}

/* The run ends unless the host has hook number `field`. */
static void need_hook(entry *e, int field_number, int32_t code) {
  zn_kb *b = e->b;
  fail_if(e, is_null(e, e->host), code);
  zn_kref at = zn_kb_idx(b, field_number);
  fail_if(e, is_null(e, zn_kb_load(b, ZN_PTR, 1, e->host, at)), code);
}

/* Memory from the caller, or the run ends. */
static zn_kref allocate(entry *e, zn_kref bytes) {
  zn_kb *b = e->b;
  need_hook(e, HOST_ALLOC, ZN_RUN_ALLOC);
  zn_kref p = zn_kb_hostalloc(b, e->host, round64(e, bytes));
  fail_if(e, is_null(e, p), ZN_RUN_ALLOC);
  zn_kref mask = zn_kb_idx(b, 63), low = zn_kb_bin(b, ZN_K_And, zn_kb_bitcast(b, p, ZN_IDX), mask);
  fail_if(e, zn_kb_cmp(b, ZN_K_Ne, low, zn_kb_idx(b, 0)), ZN_RUN_ALLOC);
  return p;
}

static void copy_words(entry *e, zn_kref to, zn_kref from, zn_kref bytes) {
  zn_kb *b = e->b;
  zn_kref zero = zn_kb_idx(b, 0), word = zn_kb_idx(b, 8), words = zn_kb_bin(b, ZN_K_Div, round64(e, bytes), word);
  zn_kref i = zn_kb_for(b, zero, words, 1, ZN_FOR_SERIAL, 0);
  zn_kref x = zn_kb_load(b, ZN_U64, 1, from, i);
  zn_kb_store(b, to, i, x);
  zn_kb_end(b);
}

/* Room for `bytes` in a heap buffer, its first `used` (NONE: none) kept. It doubles, so that growing costs a constant factor;
 * what others point into is never used again. */
static void grow(entry *e, uint32_t buf, zn_expr bytes, zn_expr used) {
  zn_kb *b = e->b;
  const zn_wsbuf *w = &e->lw->bufs[buf];
  zn_kref one = zn_kb_idx(b, 1), need = zn_kb_bin(b, ZN_K_Max, ix(e, bytes), one);
  zn_kref limit = zn_kb_idx(b, e->lw->caps->idx_bytes == 4 ? max_dim / 4 : max_bytes);
  fail_if(e, zn_kb_cmp(b, ZN_K_Gt, need, limit), ZN_RUN_OVERFLOW);
  zn_kref old_bytes = used ? ix(e, used) : 0, zero = zn_kb_idx(b, 0);
  zn_kref cell = address(e, (zn_loc){ZN_LOC_WS, w->cell});
  if (w->keep && !w->grows) {
    zn_kref p = allocate(e, need);
    zn_kb_store(b, cell, zero, p);
    return;
  }
  zn_kref have = zn_kb_get(b, e->room[buf]), twice = zn_kb_bin(b, ZN_K_Add, have, have);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Gt, need, have));
  zn_kref size = zn_kb_bin(b, ZN_K_Max, need, twice);
  zn_kref p = allocate(e, size);
  if (used) {
    zn_kb_if(b, zn_kb_cmp(b, ZN_K_Gt, old_bytes, zero));
    share(e, (zn_loc){ZN_LOC_WS, buf}, ZN_SHARE_HOST);
    copy_words(e, p, zn_kb_load(b, ZN_PTR, 1, cell, zero), old_bytes);
    zn_kb_end(b);
  }
  zn_kb_store(b, cell, zero, p);
  zn_kb_set(b, e->room[buf], size);
  if (used) share(e, (zn_loc){ZN_LOC_WS, buf}, ZN_SHARE_HOST | ZN_SHARE_WRITE);
  zn_kb_end(b);
}

static void emit_call(entry *e, const zn_step *s) {
  if (e->sides->mixed) share_args(e, s);
  zn_kref *args = ZN_ARRAY(&e->lw->ctx->tmp, zn_kref, s->num_args);
  for (uint32_t i = 0; i < s->num_args; i++)
    args[i] = s->args[i].is_int ? ix(e, s->args[i].e) : address(e, s->args[i].loc);
  zn_kref grid = ix(e, s->grid);
  zn_kb_call(e->b, s->fn, args, s->num_args, grid);
}

static void decode_image(entry *e, const zn_step *s) {
  zn_kb *b = e->b;
  need_hook(e, HOST_IMAGE, ZN_RUN_HOOK);
  if (e->sides->mixed) share_args(e, s);
  zn_kref file = address(e, s->loc), image = zn_kb_ptradd(b, file, zn_kb_idx(b, T_SIZE));
  zn_kref code = zn_kb_hostimage(b, e->host, file, image, s->code);
  fail_if(e, zn_kb_cmp(b, ZN_K_Ne, code, zn_kb_int(b, ZN_I32, 0)), ZN_RUN_IMAGE);
}

/* ---- control flow: by the host, or recorded once for the device to decide ---- */

static zn_kref flow(entry *e, const zn_step *s, zn_flow_kind kind) {
  const bool cond = s->loc.kind != ZN_LOC_NONE, count = s->kind == ZN_STEP_LOOP && s->a;
  zn_kref c = cond ? address(e, s->loc) : e->ws, n = count ? address(e, s->count) : e->ws;
  zn_kref most = count ? ix(e, s->a) : zn_kb_idx(e->b, 0);
  return zn_kb_flow(e->b, c, n, most, kind | (cond ? ZN_FLOW_COND : 0u) | (count ? ZN_FLOW_COUNT : 0u));
}

static void go_on(entry *e, const struct open *o, zn_flow_kind kind) {
  zn_kb_if(e->b, o->recorded);
  flow(e, o->step, kind);
  zn_kb_end(e->b);
}

static void open_if(entry *e, const zn_step *s) {
  zn_kb *b = e->b;
  struct open o = {.step = s};
  if (s->flow) {
    o.recorded = flow(e, s, ZN_FLOW_IF);
    zn_kref take = zn_kb_var(b, zn_kb_int(b, ZN_BOOL, 1));
    zn_kb_if(b, zn_kb_un(b, ZN_K_Not, o.recorded));
    zn_kb_set(b, take, peek_at(e, ZN_BOOL, s->loc, 0, false));
    zn_kb_end(b);
    o.taken = zn_kb_get(b, take);
  } else {
    o.taken = peek_at(e, ZN_BOOL, s->loc, 0, false);
  }
  zn_kb_if(b, o.taken);
  e->open[e->depth++] = o;
}

static void turn_if(entry *e) {
  zn_kb *b = e->b;
  const struct open *o = &e->open[e->depth - 1];
  if (!o->recorded) {
    zn_kb_else(b);
    return;
  }
  go_on(e, o, ZN_FLOW_ELSE);
  zn_kb_end(b);
  zn_kref other = zn_kb_un(b, ZN_K_Not, o->taken);
  zn_kb_if(b, zn_kb_bin(b, ZN_K_Or, o->recorded, other));
}

static void close_if(entry *e) {
  const struct open *o = &e->open[--e->depth];
  zn_kb_end(e->b);
  if (o->recorded) go_on(e, o, ZN_FLOW_END);
}

static void open_loop(entry *e, const zn_step *s) {
  zn_kb *b = e->b;
  struct open o = {.step = s};
  zn_kref var = find_sym(e, s->sym)->var;
  zn_kb_set(b, var, zn_kb_idx(b, 0));
  if (s->flow) o.recorded = flow(e, s, ZN_FLOW_WHILE);
  zn_kb_loop(b);
  e->open[e->depth++] = o;
  if (o.recorded) zn_kb_if(b, zn_kb_un(b, ZN_K_Not, o.recorded));
  if (s->a) {
    zn_kref i = zn_kb_get(b, var), n = ix(e, s->a);
    zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, i, n));
  }
  if (s->loc.kind != ZN_LOC_NONE) {
    zn_kref go = peek_at(e, ZN_BOOL, s->loc, 0, false);
    zn_kb_break(b, zn_kb_un(b, ZN_K_Not, go));
  }
  if (o.recorded) zn_kb_end(b);
}

static void close_loop(entry *e, const zn_step *s) {
  zn_kb *b = e->b;
  const struct open *o = &e->open[--e->depth];
  zn_kref var = find_sym(e, s->sym)->var, i = zn_kb_get(b, var);
  if (o->recorded) {
    zn_kb_if(b, o->recorded);
    zn_kb_break(b, zn_kb_un(b, ZN_K_Not, flow(e, o->step, ZN_FLOW_END)));
    zn_kb_end(b);
  }
  zn_kb_set(b, var, zn_kb_bin(b, ZN_K_Add, i, zn_kb_idx(b, 1)));
  zn_kb_end(b);
  if (!o->step->tells) return;
  zn_kb_if(b, o->recorded);
  zn_kb_set(b, var, zn_kb_cvt(b, peek_at(e, ZN_I64, o->step->count, 0, false), ZN_IDX));
  zn_kb_end(b);
}

static void emit_step(entry *e, const zn_step *s) {
  zn_kb *b = e->b;
  switch (s->kind) {
  case ZN_STEP_CALL: emit_call(e, s); break;
  case ZN_STEP_IMAGE: decode_image(e, s); break;
  case ZN_STEP_CHECK: {
    if (e->lw->err_buf == UINT32_MAX) break;
    zn_kref code = peek_at(e, ZN_I32, (zn_loc){ZN_LOC_WS, e->lw->err_buf}, 0, false);
    zn_kb_if(b, zn_kb_cmp(b, ZN_K_Ne, code, zn_kb_int(b, ZN_I32, 0)));
    zn_kb_ret(b, code);
    zn_kb_end(b);
    break;
  }
  case ZN_STEP_GROW:
    if (s->loc.kind == ZN_LOC_WS && e->lw->bufs[s->loc.index].heap) grow(e, s->loc.index, s->a, s->b);
    break;
  case ZN_STEP_SYM: {
    zn_kref v;
    if (s->loc.kind == ZN_LOC_NONE) {
      v = ix(e, s->a);
    } else {
      v = peek_at(e, s->dtype, s->loc, s->elem, false);
      v = zn_is_float(s->dtype) ? size_of_float(e, v, s->a) : size_of_element(e, v);
    }
    zn_expr top = zn_lw_sym_bound(e->lw, s->sym);
    if (top) fail_if(e, zn_kb_cmp(b, ZN_K_Gt, v, ix(e, top)), ZN_RUN_SHAPE);
    int64_t lo, hi;
    zn_ex_range(e->lw->ex, s->sym, &lo, &hi);
    if (lo > INT32_MIN) fail_if(e, zn_kb_cmp(b, ZN_K_Lt, v, zn_kb_idx(b, lo)), ZN_RUN_SHAPE);
    zn_kb_set(b, find_sym(e, s->sym)->var, v);
    break;
  }
  case ZN_STEP_IF: open_if(e, s); break;
  case ZN_STEP_IF_OVER: {
    const bool ours = e->lw->out_heap[s->loc.index] == UINT32_MAX;
    zn_kref x = zn_kb_bitcast(b, e->in_data[s->elem], ZN_IDX), y = zn_kb_bitcast(b, e->out_data[s->loc.index], ZN_IDX);
    zn_kb_if(b, ours ? zn_kb_cmp(b, ZN_K_Eq, x, y) : zn_kb_int(b, ZN_BOOL, 0));
    e->open[e->depth++] = (struct open){.step = s};
    break;
  }
  case ZN_STEP_ELSE: turn_if(e); break;
  case ZN_STEP_ENDIF: close_if(e); break;
  case ZN_STEP_LOOP: open_loop(e, s); break;
  case ZN_STEP_ENDLOOP: close_loop(e, s); break;
  case ZN_STEP_REQUIRE: {
    zn_kref x = ix(e, s->a), y = ix(e, s->b);
    zn_kref bad = zn_kb_cmp(b, ZN_K_Ne, x, y);
    if (s->or_one) {
      zn_kref not1 = zn_kb_cmp(b, ZN_K_Ne, x, zn_kb_idx(b, 1));
      bad = zn_kb_bin(b, ZN_K_And, bad, not1);
    }
    fail_if(e, bad, s->code);
    break;
  }
  }
}

static void finish_output(entry *e, uint32_t i) {
  const zn_type *t = zn_lw_type(e->lw, e->lw->g->outputs[i]);
  if (is_list(t)) return; /* a kernel wrote it */
  describe_output(e, i, true);
  share(e, given(e, i) ? (zn_loc){ZN_LOC_OUTPUT, i} : (zn_loc){ZN_LOC_WS, e->lw->out_heap[i]},
        given(e, i) ? ZN_SHARE_OWNER : ZN_SHARE_HOST);
  if (given(e, i)) return;
  zn_kref data = address(e, (zn_loc){ZN_LOC_WS, e->lw->out_heap[i]});
  if (e->lw->caps->idx_bytes < 8) set_field(e, e->out, i, T_DATA, zn_kb_int(e->b, ZN_U64, 0));
  set_field(e, e->out, i, T_DATA, data);
  set_field(e, e->out, i, T_BYTES, zn_kb_cvt(e->b, checked_bytes(e, t), ZN_U64));
}

static void emit_program(entry *e) {
  zn_lw *lw = e->lw;
  zn_kb *b = e->b;
  e->in_data = ZN_ARRAY(lw->arena, zn_kref, lw->g->num_inputs);
  e->out_data = ZN_ARRAY(lw->arena, zn_kref, lw->g->num_outputs);
  for (uint32_t i = 0; i < lw->g->num_inputs; i++)
    e->in_data[i] = is_list(zn_lw_type(lw, lw->g->inputs[i])) ? tensor_at(e, e->in, i)
                                                               : field(e, e->in, i, T_DATA, ZN_PTR);
  for (uint32_t i = 0; i < lw->g->num_outputs; i++)
    e->out_data[i] = is_list(zn_lw_type(lw, lw->g->outputs[i])) ? tensor_at(e, e->out, i)
                                                                 : field(e, e->out, i, T_DATA, ZN_PTR);
  e->room = ZN_ARRAY(lw->arena, zn_kref, lw->num_bufs);
  for (uint32_t i = 0; i < lw->num_bufs; i++)
    if (lw->bufs[i].heap) e->room[i] = zn_kb_var(b, zn_kb_idx(b, 0));
  e->open = ZN_ARRAY(lw->arena, struct open, lw->num_steps + 1);
  const bool fails = lw->err_buf != UINT32_MAX;
  if (fails) clear_error(e);
  for (uint32_t i = 0; i < lw->num_steps; i++) {
    for (uint32_t k = 0; k < lw->num_bufs; k++)
      if (lw->bufs[k].heap && !lw->bufs[k].grows && lw->bufs[k].born == i) grow(e, k, lw->bufs[k].bytes, ZN_EX_NONE);
    emit_step(e, &lw->steps[i]);
  }
  for (uint32_t i = 0; i < lw->g->num_outputs; i++) finish_output(e, i);
  zn_kb_ret(b, fails ? peek_at(e, ZN_I32, (zn_loc){ZN_LOC_WS, lw->err_buf}, 0, true) : zn_kb_int(b, ZN_I32, 0));
}

static void data_dependent_syms(entry *e) {
  for (uint32_t i = 0; i < e->lw->num_steps; i++) {
    zn_expr s = e->lw->steps[i].sym;
    if (s && !find_sym(e, s)) declare_sym(e, s, zn_kb_idx(e->b, 0));
  }
}

static uint32_t build(zn_lw *lw, const zn_plan *plan, const zn_sides *sides, bool run) {
  zn_kb b = {0};
  entry e = {.lw = lw, .b = &b, .plan = plan, .sides = sides, .run = run};
  const char *name = zn_arena_printf(lw->arena, "%s_%s", lw->mod->name, run ? "run" : "plan");
  uint32_t fn = zn_kb_begin(&b, lw->ctx, lw->mod, name, true);
  b.f->exported = true;
  e.in = zn_kb_param(&b, "in", ZN_KP_IN, ZN_U8);
  e.out = zn_kb_param(&b, "out", ZN_KP_INOUT, ZN_U8);
  e.ws = zn_kb_param(&b, "ws", ZN_KP_INOUT, ZN_U8);
  e.ws_bytes = zn_kb_param(&b, "ws_bytes", ZN_KP_INT, ZN_IDX);
  e.host = zn_kb_param(&b, "host", ZN_KP_IN, ZN_U8);
  if (lw->g->num_inputs) fail_if(&e, is_null(&e, e.in), ZN_RUN_NULL);
  if (lw->g->num_outputs) fail_if(&e, is_null(&e, e.out), ZN_RUN_NULL);
  if (!run) fail_if(&e, is_null(&e, e.ws), ZN_RUN_NULL);
  check_cpu(&e);
  for (uint32_t i = 0; i < lw->g->num_inputs; i++) check_input_type(&e, i);
  bind_symbols(&e);
  check_inputs(&e);
  check_overlays(&e);
  if (run) data_dependent_syms(&e);
  for (uint32_t i = 0; i < lw->g->num_outputs; i++) {
    if (!given(&e, i)) {
      if (!run && is_list(zn_lw_type(lw, lw->g->outputs[i]))) describe_list(&e, i);
      else if (!run) describe_unbounded(&e, i);
      if (!run) set_field(&e, e.out, i, T_BYTES, zn_kb_int(&b, ZN_U64, 0));
      continue;
    }
    zn_type t = bounded_type(&e, lw->g->outputs[i]);
    zn_kref need = checked_bytes(&e, &t);
    if (run) {
      check_buffer(&e, e.out, i, need);
      continue;
    }
    describe_output(&e, i, false);
    set_field(&e, e.out, i, T_BYTES, zn_kb_cvt(&b, need, ZN_U64));
  }
  zn_kref need = workspace_layout(&e);
  if (run) {
    check_workspace(&e, need);
    emit_program(&e);
  } else {
    zn_kref at = zn_kb_idx(&b, 0), bytes = zn_kb_cvt(&b, need, ZN_U64);
    zn_kb_store(&b, e.ws, at, bytes);
    zn_kb_ret(&b, zn_kb_int(&b, ZN_I32, 0));
  }
  zn_kb_finish(&b);
  return fn;
}

void zn_entry_build(zn_lw *lw, const zn_plan *plan) {
  const zn_sides sides = zn_sides_find(lw);
  lw->mod->flows = zn_flow_find(lw, sides.mixed);
  lw->mod->mixed = sides.mixed;
  lw->mod->plan_fn = build(lw, plan, &sides, false);
  lw->mod->run_fn = build(lw, plan, &sides, true);
  lw->mod->workspace_bytes = plan->num_slots ? 0 : plan->static_bytes;
}
