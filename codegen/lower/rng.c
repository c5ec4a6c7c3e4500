/* Random operators as points: element k is a function of the seed and k (zenithc/ops/random.h). Multinomial is a kernel. */
#include "zenithc/ops/random.h"

#include "codegen/lower/real.h"
#include "codegen/lower/sortkeys.h"

/* z ^ z >> n */
static zn_kref fold(zn_kb *b, zn_kref z, int n) {
  zn_kref by = zn_kb_int(b, ZN_U64, n);
  return zn_kb_bin(b, ZN_K_Xor, z, zn_kb_bin(b, ZN_K_Shr, z, by));
}

static zn_kref times(zn_kb *b, zn_kref z, uint64_t c) {
  zn_kref k = zn_kb_int(b, ZN_U64, (int64_t)c);
  return zn_kb_bin(b, ZN_K_Mul, z, k);
}

/* Draw number k (u64) as f64 in [0, 1). */
static zn_kref uniform(zn_kb *b, uint64_t seed, zn_kref k) {
  zn_kref start = zn_kb_int(b, ZN_U64, (int64_t)(seed + ZN_RANDOM_GAMMA));
  zn_kref z = zn_kb_bin(b, ZN_K_Add, times(b, k, ZN_RANDOM_GAMMA), start);
  z = times(b, fold(b, z, 30), ZN_RANDOM_MIX1);
  z = times(b, fold(b, z, 27), ZN_RANDOM_MIX2);
  z = fold(b, z, 31);
  zn_kref eleven = zn_kb_int(b, ZN_U64, 11);
  z = zn_kb_cvt(b, zn_kb_bin(b, ZN_K_Shr, z, eleven), ZN_I64);
  return zn_r_mulc(b, zn_kb_cvt(b, z, ZN_F64), 0x1p-53);
}

static zn_kref flat_index(zn_lw *lw, const zn_type *t, const zn_expr *idx) {
  zn_expr flat = zn_ex_const(lw->ex, 0);
  for (int d = 0; d < t->rank; d++) flat = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, flat, t->dims[d]), idx[d]);
  return zn_kb_cvt(&lw->kb, zn_lw_ix(lw, flat), ZN_U64);
}

static zn_kref normal(zn_kb *b, uint64_t seed, zn_kref k) {
  zn_kref even = times(b, k, 2), one = zn_kb_int(b, ZN_U64, 1), odd = zn_kb_bin(b, ZN_K_Add, even, one);
  zn_kref u = uniform(b, seed, even), v = uniform(b, seed, odd);
  zn_kref log = zn_kb_un(b, ZN_K_Log, zn_r_cop(b, ZN_K_Sub, 1, u));
  zn_kref radius = zn_kb_un(b, ZN_K_Sqrt, zn_r_mulc(b, log, -2));
  return zn_r_mul(b, radius, zn_kb_un(b, ZN_K_Cos, zn_r_mulc(b, v, 6.283185307179586476925)));
}

static zn_kref random_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_kb *b = &lw->kb;
  zn_dtype t = zn_lw_ctype((zn_dtype)zn_lw_type(lw, node->out[out])->dtype);
  uint64_t seed = zn_random_seed(node);
  zn_kref k = flat_index(lw, zn_lw_type(lw, node->out[out]), idx);
  if (node->op == ZN_OP_Bernoulli) {
    zn_kref p = zn_r_load(lw, node->in[0], idx, ZN_F64), u = uniform(b, seed, k);
    return zn_kb_cvt(b, zn_kb_cmp(b, ZN_K_Lt, u, p), t);
  }
  bool bell = node->op == ZN_OP_RandomNormal || node->op == ZN_OP_RandomNormalLike;
  double base = zn_node_float(node, bell ? "mean" : "low"), span = zn_node_float(node, bell ? "scale" : "high");
  zn_kref x = bell ? normal(b, seed, k) : uniform(b, seed, k);
  if (!bell) span -= base;
  return zn_kb_cvt(b, zn_r_addc(b, zn_r_mulc(b, x, span), base), t);
}
const zn_lower zn_lower_random = {random_point, NULL};

/* Training form: elements are kept with probability 1 - ratio, and scaled by its inverse. */
static zn_kref dropout_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_kb *b = &lw->kb;
  zn_vid x = node->in[0], ratio = zn_node_in(node, 1), mode = zn_node_in(node, 2);
  zn_expr zero = zn_ex_const(lw->ex, 0);
  zn_kref r = ratio ? zn_r_load(lw, ratio, &zero, ZN_F64) : zn_kb_float(b, ZN_F64, 0.5);
  zn_kref train = mode ? zn_lw_load(lw, mode, &zero) : zn_kb_int(b, ZN_BOOL, 0);
  train = zn_r_and(b, train, zn_r_cmpc(b, ZN_K_Gt, r, 0));
  zn_kref k = flat_index(lw, zn_lw_type(lw, x), idx);
  zn_kref u = uniform(b, zn_random_seed(node), k), keep = zn_kb_cmp(b, ZN_K_Ge, u, r);
  if (out == 1) return zn_r_or(b, keep, zn_kb_un(b, ZN_K_Not, train));
  zn_kref v = zn_lw_load(lw, x, idx), rest = zn_r_cop(b, ZN_K_Sub, 1, r);
  zn_kref scaled = zn_kb_cvt(b, zn_r_div(b, zn_kb_cvt(b, v, ZN_F64), rest), zn_lw_kdtype(lw, v));
  scaled = zn_r_orc(b, keep, scaled, 0);
  return zn_kb_select(b, train, scaled, v);
}
const zn_lower zn_lower_dropout = {dropout_point, NULL};

/* The sum of exp(x[row, c] - top) over c below `classes`, each stored at p[row, c]. */
static void shares(zn_lw *lw, zn_vid x, zn_expr row, zn_expr classes, zn_kref p) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  zn_kref top = zn_kb_var(b, zn_kb_float(b, ZN_F64, -0x1p1000)), sum = zn_kb_var(b, zn_kb_float(b, ZN_F64, 0));
  for (int pass = 0; pass < 3; pass++) {
    zn_expr c = zn_lw_for(lw, classes, ZN_FOR_SERIAL, 0), at[2] = {row, c};
    zn_expr cell = zn_ex_add(ex, zn_ex_mul(ex, row, classes), c);
    if (pass == 0) {
      zn_kref v = zn_r_load(lw, x, at, ZN_F64), old = zn_kb_get(b, top);
      zn_kb_set(b, top, zn_kb_bin(b, ZN_K_Max, v, old));
    } else if (pass == 1) {
      zn_kref v = zn_r_load(lw, x, at, ZN_F64), m = zn_kb_get(b, top);
      zn_kref e = zn_kb_un(b, ZN_K_Exp, zn_r_sub(b, v, m)), old = zn_kb_get(b, sum);
      zn_lw_store_at(lw, p, ZN_F64, cell, e);
      zn_kb_set(b, sum, zn_r_add(b, old, e));
    } else {
      zn_kref e = zn_lw_load_at(lw, p, ZN_F64, cell), s = zn_kb_get(b, sum);
      zn_lw_store_at(lw, p, ZN_F64, cell, zn_r_div(b, e, s));
    }
    zn_lw_end(lw);
  }
}

/* Rows of unnormalised log probabilities: a sample is the first class whose cumulated share exceeds its draw. */
static zn_status multinomial_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_vid x = node->in[0], y = node->out[0];
  uint64_t seed = zn_random_seed(node);
  zn_expr rows = zn_lw_dim(lw, x, 0), classes = zn_lw_dim(lw, x, 1), samples = zn_lw_dim(lw, y, 1), row;
  zn_loc buf = zn_lw_scratch(lw, zn_ex_muli(ex, zn_ex_mul(ex, rows, classes), 8));
  zn_dtype t = zn_lw_ctype((zn_dtype)zn_lw_type(lw, y)->dtype);
  zn_lw_kernel(lw, n, "multinomial");
  zn_lw_grid(lw, 1, &rows, &row);
  zn_kref p = zn_lw_ptr_loc(lw, buf, ZN_KP_INOUT, ZN_F64);
  shares(lw, x, row, classes, p);
  zn_expr s = zn_lw_for(lw, samples, ZN_FOR_SERIAL, 0), to[2] = {row, s};
  zn_kref k = zn_kb_cvt(b, zn_lw_ix(lw, zn_ex_add(ex, zn_ex_mul(ex, row, samples), s)), ZN_U64);
  zn_kref u = uniform(b, seed, k), cum = zn_kb_var(b, zn_kb_float(b, ZN_F64, 0));
  zn_kref pick = zn_kb_var(b, zn_kb_idx(b, 0)), done = zn_kb_var(b, zn_kb_int(b, ZN_BOOL, 0));
  zn_expr c = zn_lw_for(lw, zn_ex_addi(ex, classes, -1), ZN_FOR_SERIAL, 0);
  zn_kref share = zn_lw_load_at(lw, p, ZN_F64, zn_ex_add(ex, zn_ex_mul(ex, row, classes), c));
  zn_kref so_far = zn_kb_get(b, cum), sum = zn_r_add(b, so_far, share);
  zn_kb_set(b, cum, sum);
  zn_kref was = zn_kb_get(b, done), now = zn_r_or(b, was, zn_kb_cmp(b, ZN_K_Gt, sum, u));
  zn_kb_set(b, done, now);
  zn_kref old = zn_kb_get(b, pick), next = zn_s_inc(lw, old);
  zn_kb_set(b, pick, zn_kb_select(b, now, old, next));
  zn_lw_end(lw);
  zn_lw_emit(lw, y, to, zn_kb_cvt(b, zn_kb_get(b, pick), t));
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_multinomial = {NULL, multinomial_kernel};
