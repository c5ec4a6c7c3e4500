/* Matrix products of ONNX Runtime's own domain (com.microsoft) in their packings, and Trilu. */
#include "frontends/onnx/upgrade.h"

static void lacking(zn_unode *u, const char *what) {
  zn_imp_problem(u->s->I, zn_unode_where(u), true, "export the model without ONNX Runtime's optimization",
                 "%s of com.microsoft with %s", u->op, what);
  for (uint32_t i = 0; i < u->num_out; i++) zn_unode_bind(u, i, zn_graph_value(u->s->g, NULL));
  u->done = true;
}

static bool inputs_there(zn_unode *u, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (zn_u_in(u, i)) continue;
    lacking(u, "too few inputs");
    return false;
  }
  return true;
}

static void finish(zn_unode *u, zn_vid v) {
  zn_unode_bind(u, 0, v);
  u->done = true;
}

static zn_vid cast(zn_unode *u, zn_vid v, zn_dtype t) {
  const zn_nid n = zn_u_node(u, ZN_OP_Cast, &v, 1);
  zn_node_set_int(u->s->g, n, "to", zn_dtypes[t].onnx);
  return zn_node_out(u->s->g, n, 0);
}

/* The last two axes exchanged; 0 when the rank is unknown. */
static zn_vid swapped(zn_unode *u, zn_vid v) {
  const int rank = zn_u_type(u, v)->rank;
  int64_t perm[ZN_MAX_RANK];
  if (rank < 2) return 0;
  for (int d = 0; d < rank; d++) perm[d] = d < rank - 2 ? d : 2 * rank - 3 - d;
  const zn_nid n = zn_u_node(u, ZN_OP_Transpose, &v, 1);
  zn_node_set_ints(u->s->g, n, "perm", perm, (uint32_t)rank);
  return zn_node_out(u->s->g, n, 0);
}

/* alpha * A' B', each operand transposed when its attribute says so. */
void zn_up_ms_fusedmatmul(zn_unode *u) {
  const int64_t ta = zn_u_int(u, "transA", 0), tb = zn_u_int(u, "transB", 0);
  const int64_t batch = zn_u_int(u, "transBatchA", 0) | zn_u_int(u, "transBatchB", 0);
  const double alpha = zn_u_float(u, "alpha", 1);
  if (!inputs_there(u, 2)) return;
  const zn_vid a = ta ? swapped(u, u->in[0]) : u->in[0], b = tb ? swapped(u, u->in[1]) : u->in[1];
  if (batch || !a || !b) {
    lacking(u, batch ? "transBatchA or transBatchB" : "a transposed operand of unknown rank");
    return;
  }
  zn_vid y = zn_u_op2(u, ZN_OP_MatMul, a, b);
  if (alpha != 1) y = zn_u_op2(u, ZN_OP_Mul, y, zn_u_scalar_like(u, alpha, u->in[0]));
  finish(u, y);
}

/* Gemm and an activation. */
void zn_up_ms_fusedgemm(zn_unode *u) {
  static const struct {
    const char *name;
    zn_op op;
    const char *params[2];
  } acts[] = {{"", ZN_OP_Identity, {0}},           {"Relu", ZN_OP_Relu, {0}},
              {"Sigmoid", ZN_OP_Sigmoid, {0}},     {"Tanh", ZN_OP_Tanh, {0}},
              {"LeakyRelu", ZN_OP_LeakyRelu, {"alpha", 0}}, {"Elu", ZN_OP_Elu, {"alpha", 0}},
              {"HardSigmoid", ZN_OP_HardSigmoid, {"alpha", "beta"}}};
  static const char *const given[2] = {"activation_alpha", "activation_beta"};
  if (!inputs_there(u, 2)) return;
  const char *name = zn_u_str(u, "activation", "");
  size_t k = 0;
  while (k < sizeof acts / sizeof *acts && strcmp(acts[k].name, name) != 0) k++;
  if (k == sizeof acts / sizeof *acts) {
    lacking(u, name);
    return;
  }
  const zn_vid in[3] = {u->in[0], u->in[1], zn_u_in(u, 2)};
  const zn_nid g = zn_u_node(u, ZN_OP_Gemm, in, in[2] ? 3 : 2);
  zn_node_set_float(u->s->g, g, "alpha", zn_u_float(u, "alpha", 1));
  zn_node_set_float(u->s->g, g, "beta", zn_u_float(u, "beta", 1));
  zn_node_set_int(u->s->g, g, "transA", zn_u_int(u, "transA", 0));
  zn_node_set_int(u->s->g, g, "transB", zn_u_int(u, "transB", 0));
  const zn_vid y = zn_node_out(u->s->g, g, 0);
  const zn_nid act = zn_u_node(u, acts[k].op, &y, 1);
  for (int i = 0; i < 2 && acts[k].params[i]; i++)
    if (zn_u_attr(u, given[i])) zn_node_set_float(u->s->g, act, acts[k].params[i], zn_u_float(u, given[i], 0));
  finish(u, zn_node_out(u->s->g, act, 0));
}

/* (A - za)(B - zb) sa sb + bias; zero points and bias may be absent. */
static zn_vid scaled_product(zn_unode *u, zn_vid a, zn_vid b, zn_vid sa, zn_vid sb, zn_vid za, zn_vid zb, zn_vid bias) {
  const zn_vid in[4] = {a, b, za, zb};
  const zn_vid y = zn_u_op(u, ZN_OP_MatMulInteger, in, zb ? 4 : za ? 3 : 2), scale = zn_u_op2(u, ZN_OP_Mul, sa, sb);
  const zn_vid f = zn_u_op2(u, ZN_OP_Mul, cast(u, y, ZN_F32), scale);
  return bias ? zn_u_op2(u, ZN_OP_Add, f, bias) : f;
}

void zn_up_ms_matmulintegertofloat(zn_unode *u) {
  if (!inputs_there(u, 4)) return;
  finish(u, scaled_product(u, u->in[0], u->in[1], u->in[2], u->in[3], zn_u_in(u, 4), zn_u_in(u, 5), zn_u_in(u, 6)));
}

void zn_up_ms_dynamicquantizematmul(zn_unode *u) {
  if (!inputs_there(u, 3)) return;
  const zn_nid q = zn_graph_node(u->s->g, ZN_OP_DynamicQuantizeLinear, u->name, u->in, 1, 3);
  const zn_vid a = zn_node_out(u->s->g, q, 0), sa = zn_node_out(u->s->g, q, 1), za = zn_node_out(u->s->g, q, 2);
  finish(u, scaled_product(u, a, u->in[1], sa, u->in[2], za, zn_u_in(u, 3), zn_u_in(u, 4)));
}

/* alpha sa sb ((A' - za)(B' - zb) + C), quantized again when the output has a scale. */
void zn_up_ms_qgemm(zn_unode *u) {
  const int64_t ta = zn_u_int(u, "transA", 0), tb = zn_u_int(u, "transB", 0);
  const double alpha = zn_u_float(u, "alpha", 1);
  if (!inputs_there(u, 2) || !zn_u_in(u, 3) || !zn_u_in(u, 4)) {
    if (!u->done) lacking(u, "too few inputs");
    return;
  }
  const zn_vid a = ta ? swapped(u, u->in[0]) : u->in[0], b = tb ? swapped(u, u->in[3]) : u->in[3];
  if (!a || !b) {
    lacking(u, "a transposed operand of unknown rank");
    return;
  }
  const zn_vid in[4] = {a, b, zn_u_in(u, 2), zn_u_in(u, 5)};
  zn_vid y = zn_u_op(u, ZN_OP_MatMulInteger, in, in[3] ? 4 : in[2] ? 3 : 2);
  if (zn_u_in(u, 6)) y = zn_u_op2(u, ZN_OP_Add, y, u->in[6]);
  zn_vid scale = zn_u_op2(u, ZN_OP_Mul, u->in[1], u->in[4]);
  if (alpha != 1) scale = zn_u_op2(u, ZN_OP_Mul, scale, zn_u_scalar_like(u, alpha, u->in[1]));
  y = zn_u_op2(u, ZN_OP_Mul, cast(u, y, ZN_F32), scale);
  const zn_vid out[3] = {y, zn_u_in(u, 7), zn_u_in(u, 8)};
  finish(u, out[1] ? zn_u_op(u, ZN_OP_QuantizeLinear, out, out[2] ? 3 : 2) : y);
}

/* ---- MatMulNBits ---- */

typedef struct nbits {
  int64_t n, k, bits, block, blocks;
  const zn_htensor *b, *scale, *zero;
} nbits;

static int64_t packed(const zn_htensor *t, int64_t row, int64_t row_bytes, int64_t i, int64_t bits) {
  const uint8_t *p = (const uint8_t *)t->data + row * row_bytes;
  return p[i * bits / 8] >> (i * bits % 8) & ((1 << bits) - 1);
}

static double weight(const nbits *w, int64_t col, int64_t k) {
  const int64_t at = k / w->block, bytes = w->block * w->bits / 8;
  const int64_t q = packed(w->b, col * w->blocks + at, bytes, k % w->block, w->bits);
  double zero = (double)((int64_t)1 << (w->bits - 1));
  if (w->zero && zn_is_float(w->zero->dtype))
    zero = zn_load_f64(w->zero->dtype, w->zero->data, (uint64_t)(col * w->blocks + at));
  else if (w->zero)
    zero = (double)packed(w->zero, col, (w->blocks * w->bits + 7) / 8, at, w->bits);
  return ((double)q - zero) * zn_load_f64(w->scale->dtype, w->scale->data, (uint64_t)(col * w->blocks + at));
}

static bool fits(const nbits *w) {
  if (w->n < 1 || w->k < 1 || w->block < 1 || (w->bits != 2 && w->bits != 4 && w->bits != 8)) return false;
  const uint64_t cells = (uint64_t)(w->n * w->blocks);
  if (zn_htensor_count(w->b) != cells * (uint64_t)(w->block * w->bits / 8) || zn_dtype_bytes(w->b->dtype) != 1) return false;
  if (zn_htensor_count(w->scale) != cells) return false;
  if (!w->zero) return true;
  const uint64_t want = zn_is_float(w->zero->dtype) ? cells : (uint64_t)(w->n * ((w->blocks * w->bits + 7) / 8));
  return zn_htensor_count(w->zero) == want;
}

/* A times a matrix of 2, 4 or 8 bits per weight, with a scale and a zero point for each block along K: the weights become
 * floats here, so they must be constants. */
void zn_up_ms_matmulnbits(zn_unode *u) {
  nbits w = {.n = zn_u_int(u, "N", 0), .k = zn_u_int(u, "K", 0), .bits = zn_u_int(u, "bits", 4),
             .block = zn_u_int(u, "block_size", 0)};
  if (!inputs_there(u, 3)) return;
  const zn_vid zero = zn_u_in(u, 3), bias = zn_u_in(u, 5);
  const zn_graph *g = u->s->g;
  w.b = g->vals[u->in[1]].cst, w.scale = g->vals[u->in[2]].cst, w.zero = zero ? g->vals[zero].cst : NULL;
  w.blocks = w.block > 0 ? (w.k + w.block - 1) / w.block : 0;
  if (!w.b || !w.scale || (zero && !w.zero) || zn_u_in(u, 4) || !fits(&w)) {
    lacking(u, zn_u_in(u, 4) ? "a group index" : "weights that are not constants of the sizes it states");
    return;
  }
  const int64_t dims[2] = {w.k, w.n};
  zn_htensor *h = ZN_NEW(u->s->I->ga, zn_htensor);
  *h = zn_htensor_new(u->s->I->ga, w.scale->dtype, 2, dims);
  for (int64_t k = 0; k < w.k; k++)
    for (int64_t c = 0; c < w.n; c++) zn_store_f64(h->dtype, h->data, (uint64_t)(k * w.n + c), weight(&w, c, k));
  zn_vid y = zn_u_op2(u, ZN_OP_MatMul, u->in[0], zn_graph_const(u->s->g, NULL, h));
  if (bias) y = zn_u_op2(u, ZN_OP_Add, y, bias);
  finish(u, y);
}

/* ---- the same operator as in ai.onnx ---- */

void zn_up_ms_trilu(zn_unode *u) {
  const int64_t upper = zn_u_int(u, "upper", 1);
  if (!inputs_there(u, 1)) return;
  const zn_nid n = zn_u_node(u, ZN_OP_Trilu, u->in, zn_u_in(u, 1) ? 2 : 1);
  zn_node_set_int(u->s->g, n, "upper", upper);
  finish(u, zn_node_out(u->s->g, n, 0));
}
