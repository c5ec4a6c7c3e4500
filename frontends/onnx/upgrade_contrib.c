/* Matrix products of ONNX Runtime's own domain (com.microsoft) in their packings, and Trilu. */
#include "frontends/onnx/upgrade_tools.h"

/* One operand: with `batch` its first axis moves to the place before the last, then the last two change places for `swap`.
 * 0 when the rank is unknown. */
static zn_vid operand(zn_unode *u, zn_vid v, bool batch, bool swap) {
  const int rank = zn_u_type(u, v)->rank;
  int64_t perm[ZN_MAX_RANK];
  if (!batch && !swap) return v;
  if (rank < 0) return 0;
  for (int d = 0; d < rank; d++) perm[d] = d;
  for (int d = 0; batch && d + 2 < rank; d++) perm[d] = d + 1;
  if (batch && rank > 2) perm[rank - 2] = 0;
  if (swap && rank > 1) {
    const int64_t t = perm[rank - 1];
    perm[rank - 1] = perm[rank - 2], perm[rank - 2] = t;
  }
  return zn_u_transpose(u, v, perm, (uint32_t)rank);
}

/* The node's activation of y, "" none; its parameters have attributes of their own. */
static void finish_activated(zn_unode *u, zn_vid y) {
  double params[2] = {0};
  uint32_t n = 0;
  const char *name = zn_u_str(u, "activation", ""), *param;
  if (!zn_u_activation_known(name)) {
    zn_u_lacking(u, name);
    return;
  }
  for (; (param = zn_u_activation_param(name, n)) != NULL; n++) {
    const char *attr = zn_arena_printf(u->s->I->pa, "activation_%s", param);
    if (!zn_u_attr(u, attr)) break;
    params[n] = zn_u_float(u, attr, 0);
  }
  zn_u_finish(u, zn_u_activation(u, name, params, n, y));
}

/* alpha * A' B', each operand transposed as its attributes say; a vector is never transposed. FusedMatMulActivation: an
 * activation of it. */
void zn_up_ms_fusedmatmul(zn_unode *u) {
  const int64_t ta = zn_u_int(u, "transA", 0), tb = zn_u_int(u, "transB", 0);
  const int64_t ba = zn_u_int(u, "transBatchA", 0), bb = zn_u_int(u, "transBatchB", 0);
  const double alpha = zn_u_float(u, "alpha", 1);
  if (!zn_u_need(u, 2)) return;
  const zn_vid a = operand(u, u->in[0], ba != 0, ta != 0), b = operand(u, u->in[1], bb != 0, tb != 0);
  if (!a || !b) {
    zn_u_lacking(u, "a transposed operand of unknown rank");
    return;
  }
  zn_vid y = zn_u_op2(u, ZN_OP_MatMul, a, b);
  if (alpha != 1) y = zn_u_op2(u, ZN_OP_Mul, y, zn_u_scalar_like(u, alpha, u->in[0]));
  finish_activated(u, y);
}

/* Gemm and an activation. */
void zn_up_ms_fusedgemm(zn_unode *u) {
  if (!zn_u_need(u, 2)) return;
  const zn_vid in[3] = {u->in[0], u->in[1], zn_u_in(u, 2)};
  finish_activated(u, zn_u_with_attrs(u, ZN_OP_Gemm, in, in[2] ? 3 : 2));
}

void zn_up_ms_matmulintegertofloat(zn_unode *u) {
  if (!zn_u_need(u, 4)) return;
  zn_u_finish(u, zn_u_scaled_product(u, u->in[0], u->in[1], u->in[2], u->in[3], zn_u_in(u, 4), zn_u_in(u, 5), zn_u_in(u, 6)));
}

void zn_up_ms_dynamicquantizematmul(zn_unode *u) {
  if (!zn_u_need(u, 3)) return;
  const zn_nid q = zn_graph_node(u->s->g, ZN_OP_DynamicQuantizeLinear, u->name, u->in, 1, 3);
  const zn_vid a = zn_node_out(u->s->g, q, 0), sa = zn_node_out(u->s->g, q, 1), za = zn_node_out(u->s->g, q, 2);
  zn_u_finish(u, zn_u_scaled_product(u, a, u->in[1], sa, u->in[2], za, zn_u_in(u, 3), zn_u_in(u, 4)));
}

/* alpha sa sb ((A' - za)(B' - zb) + C), quantized again when the output has a scale. */
void zn_up_ms_qgemm(zn_unode *u) {
  const int64_t ta = zn_u_int(u, "transA", 0), tb = zn_u_int(u, "transB", 0);
  const double alpha = zn_u_float(u, "alpha", 1);
  if (!zn_u_need(u, 2) || !zn_u_in(u, 3) || !zn_u_in(u, 4)) {
    if (!u->done) zn_u_lacking(u, "too few inputs");
    return;
  }
  const zn_vid a = ta ? zn_u_swapped(u, u->in[0]) : u->in[0], b = tb ? zn_u_swapped(u, u->in[3]) : u->in[3];
  if (!a || !b) {
    zn_u_lacking(u, "a transposed operand of unknown rank");
    return;
  }
  const zn_vid in[4] = {a, b, zn_u_in(u, 2), zn_u_in(u, 5)};
  zn_vid y = zn_u_op(u, ZN_OP_MatMulInteger, in, in[3] ? 4 : in[2] ? 3 : 2);
  if (zn_u_in(u, 6)) y = zn_u_op2(u, ZN_OP_Add, y, u->in[6]);
  zn_vid scale = zn_u_op2(u, ZN_OP_Mul, u->in[1], u->in[4]);
  if (alpha != 1) scale = zn_u_op2(u, ZN_OP_Mul, scale, zn_u_scalar_like(u, alpha, u->in[1]));
  y = zn_u_op2(u, ZN_OP_Mul, zn_u_cast(u, y, ZN_F32), scale);
  const zn_vid out[3] = {y, zn_u_in(u, 7), zn_u_in(u, 8)};
  zn_u_finish(u, out[1] ? zn_u_op(u, ZN_OP_QuantizeLinear, out, out[2] ? 3 : 2) : y);
}

/* ---- MatMulNBits ---- */

typedef struct nbits {
  int64_t n, k, bits, block, blocks;
  const zn_htensor *b, *scale, *zero, *group; /* group: the block of each k, NULL: k / block */
} nbits;

static int64_t packed(const zn_htensor *t, int64_t row, int64_t row_bytes, int64_t i, int64_t bits) {
  const uint8_t *p = (const uint8_t *)t->data + row * row_bytes;
  return p[i * bits / 8] >> (i * bits % 8) & ((1 << bits) - 1);
}

static double weight(const nbits *w, int64_t col, int64_t k) {
  const int64_t bytes = w->block * w->bits / 8, at = w->group ? zn_load_i64(ZN_I32, w->group->data, (uint64_t)k)
                                                                   : k / w->block;
  const int64_t q = packed(w->b, col * w->blocks + k / w->block, bytes, k % w->block, w->bits);
  double zero = (double)((int64_t)1 << (w->bits - 1));
  if (w->zero && zn_is_float(w->zero->dtype))
    zero = zn_load_f64(w->zero->dtype, w->zero->data, (uint64_t)(col * w->blocks + at));
  else if (w->zero)
    zero = (double)packed(w->zero, col, (w->blocks * w->bits + 7) / 8, at, w->bits);
  return ((double)q - zero) * zn_load_f64(w->scale->dtype, w->scale->data, (uint64_t)(col * w->blocks + at));
}

static bool fits(const nbits *w) {
  const uint64_t cells = (uint64_t)(w->n * w->blocks);
  if (zn_htensor_count(w->b) != cells * (uint64_t)(w->block * w->bits / 8) || zn_dtype_bytes(w->b->dtype) != 1) return false;
  if (zn_htensor_count(w->scale) != cells) return false;
  if (w->group && (w->group->dtype != ZN_I32 || zn_htensor_count(w->group) < (uint64_t)w->k)) return false;
  for (int64_t k = 0; w->group && k < w->k; k++) {
    const int64_t at = zn_load_i64(ZN_I32, w->group->data, (uint64_t)k);
    if (at < 0 || at >= w->blocks) return false;
  }
  if (!w->zero) return true;
  const uint64_t want = zn_is_float(w->zero->dtype) ? cells : (uint64_t)(w->n * ((w->blocks * w->bits + 7) / 8));
  return zn_htensor_count(w->zero) == want;
}

static zn_vid constant_weights(zn_unode *u, const nbits *w) {
  const int64_t dims[2] = {w->k, w->n};
  zn_htensor *h = ZN_NEW(u->s->I->ga, zn_htensor);
  *h = zn_htensor_new(u->s->I->ga, w->scale->dtype, 2, dims);
  for (int64_t k = 0; k < w->k; k++)
    for (int64_t c = 0; c < w->n; c++) zn_store_f64(h->dtype, h->data, (uint64_t)(k * w->n + c), weight(w, c, k));
  return zn_graph_const(u->s->g, NULL, h);
}

/* [n, blocks] as one number for each weight: [n, blocks, 1], or with the groups of the columns [n, k]. */
static zn_vid per_weight(zn_unode *u, const nbits *w, zn_vid x, zn_vid group) {
  const int64_t blocks[3] = {w->n, w->blocks, 1}, flat[2] = {w->n, w->blocks};
  if (!group) return zn_u_reshape(u, x, blocks, 3);
  const zn_vid at = zn_u_slice(u, group, 0, 0, w->k);
  const zn_nid n = zn_u_node(u, ZN_OP_Gather, (zn_vid[]){zn_u_reshape(u, x, flat, 2), at}, 2);
  zn_node_set_int(u->s->g, n, "axis", 1);
  return zn_node_out(u->s->g, n, 0);
}

/* The weights as floats, [k, n], computed by the model. */
static zn_vid weights_of_run(zn_unode *u, const nbits *w, zn_vid group) {
  const zn_dtype t = (zn_dtype)zn_u_type(u, u->in[2])->dtype;
  const int64_t blocks[3] = {w->n, w->blocks, w->block}, bytes[3] = {w->n, w->blocks, w->block * w->bits / 8};
  const int64_t flat[2] = {w->n, -1}, swap[2] = {1, 0};
  zn_vid zero = zn_u_in(u, 3);
  zn_vid x = zn_u_cast(u, zn_u_reshape(u, zn_u_unpacked(u, zn_u_reshape(u, u->in[1], bytes, 3), w->bits), blocks, 3), t);
  if (group) x = zn_u_slice(u, zn_u_reshape(u, x, flat, 2), 1, 0, w->k);
  if (zero && !zn_is_float(zn_u_type(u, zero)->dtype)) {
    zero = zn_u_unpacked(u, zn_u_reshape(u, zero, flat, 2), w->bits);
    zero = zn_u_slice(u, zero, 1, 0, w->blocks);
  }
  if (zero) zero = per_weight(u, w, zn_u_cast(u, zero, t), group);
  else zero = zn_u_num(u, t, (double)((int64_t)1 << (w->bits - 1)));
  const zn_vid scale = per_weight(u, w, u->in[2], group);
  x = zn_u_op2(u, ZN_OP_Mul, zn_u_op2(u, ZN_OP_Sub, x, zero), scale);
  if (!group) x = zn_u_slice(u, zn_u_reshape(u, x, flat, 2), 1, 0, w->k);
  return zn_u_transpose(u, x, swap, 2);
}

static bool states_sizes(const nbits *w) {
  return w->n >= 1 && w->k >= 1 && w->block >= 1 && (w->bits == 2 || w->bits == 4 || w->bits == 8) &&
         w->block * w->bits % 8 == 0 && w->n <= INT32_MAX && w->k <= INT32_MAX && w->block <= INT32_MAX;
}

/* A times a matrix of 2, 4 or 8 bits per weight, with a scale and a zero point for each block along K: constants become floats
 * here. */
void zn_up_ms_matmulnbits(zn_unode *u) {
  nbits w = {.n = zn_u_int(u, "N", 0), .k = zn_u_int(u, "K", 0), .bits = zn_u_int(u, "bits", 4),
             .block = zn_u_int(u, "block_size", 0)};
  if (!zn_u_need(u, 3)) return;
  const zn_vid zero = zn_u_in(u, 3), group = zn_u_in(u, 4), bias = zn_u_in(u, 5);
  const zn_graph *g = u->s->g;
  w.b = g->vals[u->in[1]].cst, w.scale = g->vals[u->in[2]].cst, w.zero = zero ? g->vals[zero].cst : NULL;
  w.group = group ? g->vals[group].cst : NULL;
  w.blocks = w.block > 0 ? (w.k + w.block - 1) / w.block : 0;
  const bool known = w.b && w.scale && (!zero || w.zero) && (!group || w.group);
  const bool prepacked = zn_u_int(u, "weight_prepacked", 0) != 0;
  if (prepacked || !states_sizes(&w) || (known && !fits(&w))) {
    zn_u_lacking(u, prepacked ? "weights in the order of one GPU's kernels (weight_prepacked); export them as they are"
                              : "weights that are not of the sizes it states");
    return;
  }
  const zn_vid weights = known ? constant_weights(u, &w) : weights_of_run(u, &w, group);
  zn_vid y = zn_u_op2(u, ZN_OP_MatMul, u->in[0], weights);
  if (bias) y = zn_u_op2(u, ZN_OP_Add, y, bias);
  zn_u_finish(u, y);
}

/* ---- the same operator as in ai.onnx ---- */

void zn_up_ms_trilu(zn_unode *u) {
  const int64_t upper = zn_u_int(u, "upper", 1);
  if (!zn_u_need(u, 1)) return;
  const zn_nid n = zn_u_node(u, ZN_OP_Trilu, u->in, zn_u_in(u, 1) ? 2 : 1);
  zn_node_set_int(u->s->g, n, "upper", upper);
  zn_u_finish(u, zn_node_out(u->s->g, n, 0));
}
