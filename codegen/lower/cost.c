/* What each kernel computes and moves, counted on its loops before they are widened: floating-point operations and products
 * of bytes (2 for an fma or a product with its sum, MATH_OPS for a mathematical function) and the bytes that must come from
 * or go to memory at least once (what each buffer parameter has touched, at most the buffer). Loop bounds follow from the
 * arguments and from tables among the constants; a loop variable counts with the middle of its range. Where data decides, the
 * count is unknown.
 * `bench --profile` shows them, and a kernel whose every call is too short to be worth sharing is marked serial. */
#include <assert.h>

#include "codegen/lower/program.h"

enum { MATH_OPS = 16, MAX_DEPTH = 128 };

/* Below this a call is not split over threads: some times the cost of waking and joining them. Rates are those of one
 * modest core, so that the decision does not depend on the building machine. */
static const double least_seconds = 5e-6, flops_per_second = 30e9, bytes_per_second = 15e9;

typedef struct counter {
  zn_lw *lw;
  const zn_kfunc *f;
  const zn_step *call;
  int64_t *val; /* of scalar integers, where `known` */
  bool *known;
  uint32_t *param; /* pointer value -> 1 + parameter it derives from */
  double *touched; /* bytes, per parameter */
  double flops;
  bool exact;
} counter;

static bool arg_value(const counter *k, uint32_t p, int64_t *out) {
  return p < k->call->num_args && k->call->args[p].is_int && zn_ex_is_const(k->lw->ex, k->call->args[p].e, out);
}

static bool fold(const zn_kinst *in, int64_t a, int64_t b, int64_t *out) {
  switch (in->op) {
  case ZN_K_Add: *out = a + b; return true;
  case ZN_K_Sub: *out = a - b; return true;
  case ZN_K_Mul: *out = a * b; return true;
  case ZN_K_Div: *out = b ? a / b : 0; return true;
  case ZN_K_Rem: *out = b ? a % b : a; return true;
  case ZN_K_Min: *out = a < b ? a : b; return true;
  case ZN_K_Max: *out = a > b ? a : b; return true;
  default: return false;
  }
}

static bool compare(const zn_kinst *in, int64_t a, int64_t b, int64_t *out) {
  switch (in->op) {
  case ZN_K_Eq: *out = a == b; return true;
  case ZN_K_Ne: *out = a != b; return true;
  case ZN_K_Lt: *out = a < b; return true;
  case ZN_K_Le: *out = a <= b; return true;
  case ZN_K_Gt: *out = a > b; return true;
  case ZN_K_Ge: *out = a >= b; return true;
  case ZN_K_And: *out = a && b; return true;
  case ZN_K_Or: *out = a || b; return true;
  default: return false;
  }
}

/* A number in a table: programs of integer products say there how many steps each block has. */
static bool table_value(const counter *k, const zn_kinst *in, int64_t *out) {
  const uint32_t p = k->param[in->a];
  if (!p || p > k->call->num_args || in->lanes != 1 || zn_is_float((zn_dtype)in->dtype) || !k->known[in->b]) return false;
  const zn_arg *arg = &k->call->args[p - 1];
  if (arg->is_int || arg->loc.kind != ZN_LOC_CONST || k->f->insts[in->a].op != ZN_K_Param) return false;
  const zn_kconst *c = &k->lw->mod->consts[arg->loc.index];
  if (!c->data || c->dtype != in->dtype || k->val[in->b] < 0 || (uint64_t)k->val[in->b] >= c->count) return false;
  *out = zn_load_i64(c->dtype, c->data, (uint64_t)k->val[in->b]);
  return true;
}

static void evaluate(counter *k, uint32_t i) {
  const zn_kinst *in = &k->f->insts[i];
  const char *sig = zn_kops[in->op].sig;
  switch (in->op) {
  case ZN_K_Const:
    k->known[i] = in->dtype == ZN_IDX || in->dtype == ZN_BOOL;
    k->val[i] = in->imm.i;
    return;
  case ZN_K_Param:
    k->known[i] = in->dtype == ZN_IDX && arg_value(k, (uint32_t)in->imm.i, &k->val[i]);
    if (in->dtype == ZN_PTR) k->param[i] = (uint32_t)in->imm.i + 1;
    return;
  case ZN_K_Load: k->known[i] = table_value(k, in, &k->val[i]); return;
  case ZN_K_Cvt:
    k->known[i] = in->dtype == ZN_IDX && k->known[in->a];
    k->val[i] = k->val[in->a];
    return;
  case ZN_K_Select: /* borders and the like: what the middle of the range takes */
    k->known[i] = in->dtype == ZN_IDX && k->known[in->a] && k->known[k->val[in->a] ? in->b : in->c];
    k->val[i] = k->val[k->val[in->a] ? in->b : in->c];
    return;
  case ZN_K_PtrAdd: k->param[i] = k->param[in->a]; return;
  case ZN_K_Var: /* variables keep their first value: starts of tiles */
  case ZN_K_Get:
    k->known[i] = k->known[in->a];
    k->val[i] = k->val[in->a];
    return;
  default:
    if ((in->dtype != ZN_IDX && in->dtype != ZN_BOOL) || sig[0] != 'v' || sig[1] != 'v') return;
    if (!k->known[in->a] || !k->known[in->b]) return;
    k->known[i] = (in->dtype == ZN_IDX ? fold : compare)(in, k->val[in->a], k->val[in->b], &k->val[i]);
  }
}

/* Dot2 with ones adds the halves of a Pair4 up, whose products are counted there. */
static bool adds_halves(const zn_kfunc *f, const zn_kinst *in) {
  int64_t v;
  return zn_kf_const_int(f, in->b, &v) && v == 0x00010001;
}

static double operations(const zn_kfunc *f, const zn_kinst *in) {
  char cls = zn_kops[in->op].cls;
  if (in->op == ZN_K_Dot4 || in->op == ZN_K_Pair4) return 8.0 * in->lanes;
  if (in->op == ZN_K_Dot2) return adds_halves(f, in) ? 0 : 4.0 * in->lanes;
  if (in->op == ZN_K_Dot2Bf16) return 4.0 * in->lanes;
  if (!zn_kdt_is_float((zn_dtype)in->dtype)) return 0;
  if (in->op == ZN_K_Fma) return 2.0 * in->lanes;
  return cls == 'M' ? (double)MATH_OPS * in->lanes : cls == 'A' ? in->lanes : 0;
}

static double enter(counter *k, uint32_t i, double times) {
  const zn_kinst *in = &k->f->insts[i];
  if (in->op != ZN_K_For) {
    if (in->op == ZN_K_Loop) k->exact = false;
    return times;
  }
  if (!k->known[in->a] || !k->known[in->b]) {
    k->exact = false;
    return times;
  }
  int64_t lo = k->val[in->a], n = (k->val[in->b] - lo + in->imm.i - 1) / in->imm.i;
  if (n < 0) n = 0;
  k->known[i] = true;
  k->val[i] = lo + (n ? (n - 1) / 2 : 0) * in->imm.i;
  return times * (double)n;
}

static void walk(counter *k) {
  double times[MAX_DEPTH] = {1};
  uint32_t depth = 0;
  for (uint32_t i = 1; i < k->f->num_insts; i++) {
    const zn_kinst *in = &k->f->insts[i];
    if (in->op == ZN_K_For || in->op == ZN_K_If || in->op == ZN_K_Loop) {
      if (++depth == MAX_DEPTH) {
        k->exact = false;
        return;
      }
      times[depth] = enter(k, i, times[depth - 1]);
      continue;
    }
    if (in->op == ZN_K_End) depth--;
    evaluate(k, i);
    zn_tile t;
    if (in->op == ZN_K_TileDot && zn_tile_read(in->imm.i, &t))
      k->flops += times[depth] * 2.0 * t.rows * t.row_tiles * t.cols * t.groups * zn_tile_group(t.kind) / (t.reals ? 2 : 1);
    k->flops += times[depth] * operations(k->f, in);
    if ((in->op == ZN_K_Load || in->op == ZN_K_Store) && k->param[in->a])
      k->touched[k->param[in->a] - 1] += times[depth] * in->lanes * zn_dtype_bytes((zn_dtype)in->dtype);
  }
}

/* Bytes behind an argument; infinite where it is not known. */
static double buffer_bytes(const zn_lw *lw, zn_loc loc) {
  int64_t n;
  if (loc.kind == ZN_LOC_CONST) return (double)zn_kconst_bytes(&lw->mod->consts[loc.index]);
  if (loc.kind == ZN_LOC_WS && zn_ex_is_const(lw->ex, lw->bufs[loc.index].bytes, &n)) return (double)n;
  return 1e300;
}

/* false: unknown. */
static bool count_call(zn_lw *lw, const zn_step *call, double *out_flops, double *out_bytes) {
  const zn_kfunc *f = lw->mod->funcs[call->fn];
  zn_arena *a = &lw->ctx->tmp;
  counter k = {.lw = lw, .f = f, .call = call, .exact = true};
  k.val = ZN_ARRAY(a, int64_t, f->num_insts);
  k.known = ZN_ARRAY(a, bool, f->num_insts);
  k.param = ZN_ARRAY(a, uint32_t, f->num_insts);
  k.touched = ZN_ARRAY(a, double, f->num_params + 1);
  walk(&k);
  *out_flops = k.flops;
  *out_bytes = 0;
  for (uint32_t p = 0; p < f->num_params && p < call->num_args; p++) {
    if (call->args[p].is_int) continue;
    double most = buffer_bytes(lw, call->args[p].loc);
    *out_bytes += k.touched[p] < most ? k.touched[p] : most;
  }
  return k.exact;
}

bool zn_lower_call_cost(zn_lw *lw, const zn_step *call, double *flops, double *bytes) {
  double f = call->flops, b = call->bytes;
  bool exact = call->counted ? !call->inexact : count_call(lw, call, &f, &b);
  *flops += f;
  *bytes += b;
  return exact;
}

void zn_lower_costs(zn_lw *lw) {
  zn_kmod *m = lw->mod;
  m->costs = ZN_ARRAY(lw->arena, zn_kcost, m->num_funcs + 2); /* the entries come behind */
  bool *split = ZN_ARRAY(&lw->ctx->tmp, bool, m->num_funcs + 1);
  uint32_t loops = 0;
  for (uint32_t i = 0; i < lw->num_steps; i++) {
    const zn_step *s = &lw->steps[i];
    loops += s->kind == ZN_STEP_LOOP;
    if (s->kind != ZN_STEP_CALL) continue;
    double flops = 0, bytes = 0;
    bool exact = zn_lower_call_cost(lw, s, &flops, &bytes);
    if (!exact || flops / flops_per_second + bytes / bytes_per_second > least_seconds) split[s->fn] = true;
    m->costs[s->fn].flops += flops;
    m->costs[s->fn].bytes += bytes;
    if (!exact || loops) m->costs[s->fn].inexact = true;
  }
  for (uint32_t i = 0; i < m->num_funcs; i++) m->funcs[i]->serial = !split[i];
}
