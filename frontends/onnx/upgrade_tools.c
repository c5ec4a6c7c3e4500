/* Nodes in one call, for upgrade rules. */
#include "frontends/onnx/upgrade_tools.h"

void zn_u_lacking(zn_unode *u, const char *what) {
  const bool ours = !strcmp(u->domain, "com.microsoft");
  zn_imp_problem(u->s->I, zn_unode_where(u), true,
                 ours ? "export the model without ONNX Runtime's optimization" : NULL,
                 "%s of %s with %s", u->op, *u->domain ? u->domain : "ai.onnx", what);
  for (uint32_t i = 0; i < u->num_out; i++) {
    const zn_vid v = zn_graph_value(u->s->g, NULL);
    u->s->g->vals[v].type.rank = -1;
    zn_unode_bind(u, i, v);
  }
  u->done = true;
}

bool zn_u_need(zn_unode *u, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (zn_u_in(u, i)) continue;
    zn_u_lacking(u, "too few inputs");
    return false;
  }
  return true;
}

void zn_u_finish(zn_unode *u, zn_vid v) {
  zn_unode_bind(u, 0, v);
  u->done = true;
}

bool zn_u_wants(const zn_unode *u, uint32_t o) { return o < u->num_out && *u->out[o]; }

zn_nid zn_u_nodes(zn_unode *u, zn_op op, const zn_vid *in, uint32_t num_in, uint32_t num_out) {
  const zn_nid n = zn_graph_node(u->s->g, op, u->name, in, num_in, num_out);
  u->s->g->nodes[n].source = u->source;
  return n;
}

zn_nid zn_u_nodes_with_attrs(zn_unode *u, zn_op op, const zn_vid *in, uint32_t n, uint32_t num_out) {
  const zn_nid id = zn_u_nodes(u, op, in, n, num_out);
  const zn_schema *sc = zn_op_schema(op);
  for (uint32_t i = 0; i < u->num_attrs; i++) {
    const zn_schema_attr *sa = zn_schema_find_attr(sc, u->attrs[i].name);
    if (sa && sa->kind == u->attrs[i].kind) zn_node_set_attr(u->s->g, id, u->attrs[i]);
  }
  return id;
}

zn_vid zn_u_with_attrs(zn_unode *u, zn_op op, const zn_vid *in, uint32_t n) {
  return zn_node_out(u->s->g, zn_u_nodes_with_attrs(u, op, in, n, 1), 0);
}

zn_vid zn_u_op3(zn_unode *u, zn_op op, zn_vid a, zn_vid b, zn_vid c) {
  const zn_vid in[3] = {a, b, c};
  return zn_u_op(u, op, in, 3);
}

zn_vid zn_u_num(zn_unode *u, zn_dtype t, double v) { return zn_graph_const_scalar(u->s->g, t, v); }

zn_vid zn_u_cast(zn_unode *u, zn_vid v, zn_dtype t) {
  const zn_nid n = zn_u_node(u, ZN_OP_Cast, &v, 1);
  zn_node_set_int(u->s->g, n, "to", zn_dtypes[t].onnx);
  return zn_node_out(u->s->g, n, 0);
}

zn_vid zn_u_concat(zn_unode *u, const zn_vid *in, uint32_t n, int64_t axis) {
  const zn_nid id = zn_u_node(u, ZN_OP_Concat, in, n);
  zn_node_set_int(u->s->g, id, "axis", axis);
  return zn_node_out(u->s->g, id, 0);
}

zn_vid zn_u_unsqueeze(zn_unode *u, zn_vid v, int64_t axis) {
  const zn_vid at = zn_u_i64(u, axis);
  return zn_u_op2(u, ZN_OP_Unsqueeze, v, at);
}

zn_vid zn_u_reshape(zn_unode *u, zn_vid v, const int64_t *dims, uint32_t n) {
  const zn_vid to = zn_u_i64s(u, dims, n);
  return zn_u_op2(u, ZN_OP_Reshape, v, to);
}

zn_vid zn_u_reshape_as(zn_unode *u, zn_vid v, zn_vid like) {
  return zn_u_op2(u, ZN_OP_Reshape, v, zn_u_op1(u, ZN_OP_Shape, like));
}

zn_vid zn_u_transpose(zn_unode *u, zn_vid v, const int64_t *perm, uint32_t n) {
  const zn_nid id = zn_u_node(u, ZN_OP_Transpose, &v, 1);
  zn_node_set_ints(u->s->g, id, "perm", perm, n);
  return zn_node_out(u->s->g, id, 0);
}

zn_vid zn_u_slice(zn_unode *u, zn_vid v, int64_t axis, int64_t from, int64_t to) {
  zn_vid in[4] = {v};
  in[1] = zn_u_i64(u, from), in[2] = zn_u_i64(u, to), in[3] = zn_u_i64(u, axis);
  return zn_u_op(u, ZN_OP_Slice, in, 4);
}

void zn_u_split(zn_unode *u, zn_vid v, int64_t axis, const int64_t *sizes, uint32_t n,
                zn_vid *out) {
  zn_vid in[2] = {v, 0};
  if (sizes) in[1] = zn_u_i64s(u, sizes, n);
  const zn_nid id = zn_u_nodes(u, ZN_OP_Split, in, sizes ? 2 : 1, n);
  zn_node_set_int(u->s->g, id, "axis", axis);
  if (!sizes) zn_node_set_int(u->s->g, id, "num_outputs", n);
  for (uint32_t i = 0; i < n; i++) out[i] = zn_node_out(u->s->g, id, i);
}

zn_vid zn_u_gather(zn_unode *u, zn_vid v, int64_t i) {
  const zn_vid at = zn_u_num(u, ZN_I64, (double)i);
  return zn_u_op2(u, ZN_OP_Gather, v, at);
}

zn_vid zn_u_dim(zn_unode *u, zn_vid v, int64_t axis, bool vector) {
  const zn_vid shape = zn_u_op1(u, ZN_OP_Shape, v);
  if (!vector) return zn_u_gather(u, shape, axis);
  const zn_vid at = zn_u_i64(u, axis);
  return zn_u_op2(u, ZN_OP_Gather, shape, at);
}

zn_vid zn_u_range(zn_unode *u, zn_vid end) {
  const zn_vid zero = zn_u_num(u, ZN_I64, 0), one = zn_u_num(u, ZN_I64, 1);
  return zn_u_op3(u, ZN_OP_Range, zero, end, one);
}

zn_vid zn_u_swapped(zn_unode *u, zn_vid v) {
  const int rank = zn_u_type(u, v)->rank;
  int64_t perm[ZN_MAX_RANK];
  if (rank < 2) return 0;
  for (int d = 0; d < rank; d++) perm[d] = d < rank - 2 ? d : 2 * rank - 3 - d;
  return zn_u_transpose(u, v, perm, (uint32_t)rank);
}

zn_vid zn_u_channels(zn_unode *u, zn_vid v, bool last) {
  const int rank = zn_u_type(u, v)->rank;
  int64_t perm[ZN_MAX_RANK] = {0};
  if (rank < 2) return 0;
  for (int d = 1; d < rank; d++)
    perm[d] = last ? (d == rank - 1 ? 1 : d + 1) : (d == 1 ? rank - 1 : d - 1);
  return zn_u_transpose(u, v, perm, (uint32_t)rank);
}

zn_vid zn_u_scaled_product(zn_unode *u, zn_vid a, zn_vid b, zn_vid sa, zn_vid sb, zn_vid za,
                           zn_vid zb, zn_vid bias) {
  const zn_vid in[4] = {a, b, za, zb};
  const zn_vid y = zn_u_op(u, ZN_OP_MatMulInteger, in,
                           zb   ? 4
                           : za ? 3
                                : 2),
               scale = zn_u_op2(u, ZN_OP_Mul, sa, sb);
  const zn_vid f = zn_u_op2(u, ZN_OP_Mul, zn_u_cast(u, y, ZN_F32), scale);
  return bias ? zn_u_op2(u, ZN_OP_Add, f, bias) : f;
}

zn_vid zn_u_unpacked(zn_unode *u, zn_vid x, int64_t bits) {
  if (bits == 8) return x;
  const zn_vid mask = zn_u_num(u, ZN_U8, (double)((1 << bits) - 1));
  const int rank = zn_u_type(u, x)->rank;
  zn_vid part[4];
  int64_t dims[ZN_MAX_RANK] = {0};
  for (int64_t i = 0; i < 8 / bits; i++) {
    const zn_vid by = zn_u_num(u, ZN_U8, (double)(i * bits));
    const zn_nid shift = zn_u_node(u, ZN_OP_BitShift, (zn_vid[]){x, by}, 2);
    zn_node_set_str(u->s->g, shift, "direction", "RIGHT");
    part[i] = zn_u_unsqueeze(u, zn_u_op2(u, ZN_OP_BitwiseAnd, zn_node_out(u->s->g, shift, 0), mask), -1);
  }
  dims[rank - 1] = -1;
  return zn_u_reshape(u, zn_u_concat(u, part, (uint32_t)(8 / bits), -1), dims, (uint32_t)rank);
}

bool zn_u_const_dim(zn_unode *u, zn_vid v, int d, int64_t *out) {
  const zn_type *t = zn_u_type(u, v);
  if (d < 0) d += t->rank;
  return t->rank > d && d >= 0 && zn_ex_is_const(u->s->g->ex, t->dims[d], out);
}

/* ---- activations ---- */

zn_vid zn_u_gelu(zn_unode *u, zn_vid v, bool fast) {
  const zn_nid n = zn_u_node(u, ZN_OP_Gelu, &v, 1);
  if (fast) zn_node_set_str(u->s->g, n, "approximate", "tanh");
  return zn_node_out(u->s->g, n, 0);
}

zn_vid zn_u_swish(zn_unode *u, zn_vid v, double alpha) {
  const zn_nid n = zn_u_node(u, ZN_OP_Swish, &v, 1);
  zn_node_set_float(u->s->g, n, "alpha", alpha);
  return zn_node_out(u->s->g, n, 0);
}

typedef struct act {
  const char *name;
  zn_op op;
  const char *params[2];
} act;
static const act acts[] = {{"", ZN_OP_Identity, {0}},
                           {"Relu", ZN_OP_Relu, {0}},
                           {"Sigmoid", ZN_OP_Sigmoid, {0}},
                           {"Tanh", ZN_OP_Tanh, {0}},
                           {"LeakyRelu", ZN_OP_LeakyRelu, {"alpha", 0}},
                           {"HardSigmoid", ZN_OP_HardSigmoid, {"alpha", "beta"}},
                           {"HardSwish", ZN_OP_HardSwish, {0}},
                           {"Clip", ZN_OP_Clip, {"min", "max"}},
                           {"Elu", ZN_OP_Elu, {"alpha", 0}},
                           {"Selu", ZN_OP_Selu, {"alpha", "gamma"}},
                           {"Celu", ZN_OP_Celu, {"alpha", 0}},
                           {"Softplus", ZN_OP_Softplus, {0}},
                           {"Softsign", ZN_OP_Softsign, {0}},
                           {"ThresholdedRelu", ZN_OP_ThresholdedRelu, {"alpha", 0}},
                           {"Gelu", ZN_OP_Gelu, {0}},
                           {"QuickGelu", ZN_OP_Swish, {"alpha", 0}}};

static const act *find_act(const char *name) {
  for (size_t k = 0; k < sizeof acts / sizeof *acts; k++)
    if (!strcmp(acts[k].name, name)) return &acts[k];
  return NULL;
}

bool zn_u_activation_known(const char *name) { return find_act(name) != NULL; }

const char *zn_u_activation_param(const char *name, uint32_t i) {
  return i < 2 ? find_act(name)->params[i] : NULL;
}

zn_vid zn_u_activation(zn_unode *u, const char *name, const double *params, uint32_t n, zn_vid v) {
  const act *a = find_act(name);
  const bool clip = a->op == ZN_OP_Clip;
  zn_vid in[3] = {v, 0, 0};
  for (uint32_t i = 0; clip && i < 2 && i < n; i++) in[1 + i] = zn_u_scalar_like(u, params[i], v);
  const zn_nid id = zn_u_node(u, a->op, in, in[2] ? 3 : in[1] ? 2 : 1);
  for (uint32_t i = 0; !clip && i < 2 && i < n && a->params[i]; i++)
    zn_node_set_float(u->s->g, id, a->params[i], params[i]);
  return zn_node_out(u->s->g, id, 0);
}
