/* The builder of rewrites. */
#include "zenithc/ops/expand_util.h"

bool zn_rw_wants(const zn_rw *w, uint32_t o) {
  const zn_node *n = zn_rw_node(w);
  return o < n->num_out && n->out[o] != 0;
}

const zn_type *zn_rw_type(const zn_rw *w, zn_vid v) { return &w->g->vals[v].type; }

zn_nid zn_rw_raw(zn_rw *w, zn_op op, const zn_vid *in, uint32_t n, uint32_t num_out) {
  if (w->st != ZN_OK) return 0;
  const char *base = w->g->nodes[w->at].name;
  const char *name = zn_arena_printf(w->g->arena, "%s/%s", base, zn_op_name(op));
  return zn_graph_node_before(w->g, w->at, op, name, in, n, num_out);
}

zn_vid zn_rw_infer(zn_rw *w, zn_nid n) {
  if (w->st != ZN_OK || n == 0) return 0;
  w->st = zn_infer_node(w->c, w->g, n);
  return w->st == ZN_OK ? w->g->nodes[n].out[0] : 0;
}

zn_vid zn_rw_op(zn_rw *w, zn_op op, const zn_vid *in, uint32_t n) {
  return zn_rw_infer(w, zn_rw_raw(w, op, in, n, 1));
}

zn_vid zn_rw1(zn_rw *w, zn_op op, zn_vid a) { return zn_rw_op(w, op, &a, 1); }

zn_vid zn_rw2(zn_rw *w, zn_op op, zn_vid a, zn_vid b) {
  const zn_vid in[2] = {a, b};
  return zn_rw_op(w, op, in, 2);
}

zn_vid zn_rw3(zn_rw *w, zn_op op, zn_vid a, zn_vid b, zn_vid c) {
  const zn_vid in[3] = {a, b, c};
  return zn_rw_op(w, op, in, 3);
}

zn_vid zn_rw_attr_int(zn_rw *w, zn_op op, const zn_vid *in, uint32_t n, const char *name,
                      int64_t v) {
  const zn_nid id = zn_rw_raw(w, op, in, n, 1);
  if (id) zn_node_set_int(w->g, id, name, v);
  return zn_rw_infer(w, id);
}

zn_vid zn_rw_ints(zn_rw *w, const int64_t *v, uint32_t n) {
  return w->st == ZN_OK ? zn_graph_const_i64s(w->g, v, n) : 0;
}

zn_vid zn_rw_num(zn_rw *w, zn_dtype t, double v) {
  return w->st == ZN_OK ? zn_graph_const_scalar(w->g, t, v) : 0;
}

zn_vid zn_rw_reduce(zn_rw *w, zn_op op, zn_vid x, const int64_t *axes, uint32_t n, bool keep) {
  const zn_vid in[2] = {x, zn_rw_ints(w, axes, n)};
  return zn_rw_attr_int(w, op, in, 2, "keepdims", keep);
}

zn_vid zn_rw_transpose(zn_rw *w, zn_vid x, const int64_t *perm, uint32_t n) {
  const zn_nid id = zn_rw_raw(w, ZN_OP_Transpose, &x, 1, 1);
  if (id) zn_node_set_ints(w->g, id, "perm", perm, n);
  return zn_rw_infer(w, id);
}

zn_vid zn_rw_cast(zn_rw *w, zn_vid x, zn_dtype t) {
  if (w->st != ZN_OK || zn_rw_type(w, x)->dtype == t) return x;
  return zn_rw_attr_int(w, ZN_OP_Cast, &x, 1, "to", zn_dtypes[t].onnx);
}

zn_vid zn_rw_reshape_to(zn_rw *w, zn_vid x, const int64_t *dims, uint32_t n) {
  return zn_rw2(w, ZN_OP_Reshape, x, zn_rw_ints(w, dims, n));
}

zn_vid zn_rw_squeeze(zn_rw *w, zn_vid x, const int64_t *axes, uint32_t n) {
  return zn_rw2(w, ZN_OP_Squeeze, x, zn_rw_ints(w, axes, n));
}

zn_vid zn_rw_unsqueeze(zn_rw *w, zn_vid x, const int64_t *axes, uint32_t n) {
  return zn_rw2(w, ZN_OP_Unsqueeze, x, zn_rw_ints(w, axes, n));
}

zn_vid zn_rw_slice(zn_rw *w, zn_vid x, int64_t axis, int64_t lo, int64_t hi) {
  const zn_vid in[4] = {x, zn_rw_ints(w, &lo, 1), zn_rw_ints(w, &hi, 1), zn_rw_ints(w, &axis, 1)};
  return zn_rw_op(w, ZN_OP_Slice, in, 4);
}

zn_vid zn_rw_extent(zn_rw *w, zn_vid x, int axis) {
  const zn_vid shape = zn_rw1(w, ZN_OP_Shape, x);
  return zn_rw2(w, ZN_OP_Gather, shape, zn_rw_num(w, ZN_I64, axis));
}

zn_vid zn_rw_extent1(zn_rw *w, zn_vid x, int axis) {
  const int64_t at = axis;
  const zn_vid shape = zn_rw1(w, ZN_OP_Shape, x);
  return zn_rw2(w, ZN_OP_Gather, shape, zn_rw_ints(w, &at, 1));
}

bool zn_rw_heads_divide(const zn_rw *w, zn_vid q, zn_vid k) {
  int64_t qh, kh;
  if (!zn_ex_is_const(w->g->ex, zn_rw_type(w, q)->dims[1], &qh)) return true;
  return !zn_ex_is_const(w->g->ex, zn_rw_type(w, k)->dims[1], &kh) || (kh > 0 && qh % kh == 0);
}

/* How many query heads a head of x serves: [1]. Sizes that the run knows must divide. */
static zn_vid group_size(zn_rw *w, zn_vid *x, zn_vid q) {
  int64_t qh, kh;
  const zn_exprs *ex = w->g->ex;
  if (zn_ex_is_const(ex, zn_rw_type(w, q)->dims[1], &qh) && zn_ex_is_const(ex, zn_rw_type(w, *x)->dims[1], &kh)) {
    const int64_t times = qh / kh;
    return zn_rw_ints(w, &times, 1);
  }
  const int64_t one = 1;
  const zn_vid all = zn_rw_extent(w, q, 1), own = zn_rw_extent(w, *x, 1), times = zn_rw2(w, ZN_OP_Div, all, own);
  const zn_vid in[2] = {*x, zn_rw2(w, ZN_OP_Equal, zn_rw2(w, ZN_OP_Mul, times, own), all)};
  *x = zn_rw_attr_int(w, ZN_OP_Require, in, 2, "value", 1);
  return zn_rw_reshape_to(w, times, &one, 1);
}

zn_vid zn_rw_repeat_heads(zn_rw *w, zn_vid x, zn_vid q) {
  if (w->st != ZN_OK || zn_rw_type(w, x)->dims[1] == zn_rw_type(w, q)->dims[1]) return x;
  const int64_t two = 2, one[2] = {1, 1};
  const zn_vid times = group_size(w, &x, q), ones = zn_rw_ints(w, one, 2);
  const zn_vid shape[3] = {ones, times, ones};
  const zn_vid target = zn_rw_attr_int(w, ZN_OP_Concat, shape, 3, "axis", 0);
  const zn_vid wide = zn_rw2(w, ZN_OP_Expand, zn_rw_unsqueeze(w, x, &two, 1), target);
  const zn_vid dims[4] = {zn_rw_extent1(w, x, 0), zn_rw_extent1(w, q, 1), zn_rw_extent1(w, x, 2), zn_rw_extent1(w, x, 3)};
  const zn_vid in[2] = {wide, zn_rw_attr_int(w, ZN_OP_Concat, dims, 4, "axis", 0)};
  return zn_rw_attr_int(w, ZN_OP_Reshape, in, 2, "allowzero", 1); /* a head may be of size 0 */
}

bool zn_rw_target(const zn_exprs *ex, const zn_type *in, const zn_expr *dims, int rank,
                  int64_t *out) {
  int open = 0;
  bool zero = false;
  for (int d = 0; d < rank; d++) {
    if (zn_ex_is_const(ex, dims[d], &out[d])) {
      zero |= out[d] == 0;
    } else if (d < in->rank && in->dims[d] == dims[d]) {
      out[d] = 0;
    } else {
      out[d] = -1;
      open++;
    }
  }
  return open <= 1 && !zero; /* a true extent of 0 would read as a copy */
}

/* ---- dims computed at run time ---- */

/* A rank-1, one-element i64 value that holds e, from the dims of x. */
static zn_vid dim_value(zn_rw *w, zn_expr e, zn_vid x, zn_vid shape) {
  zn_exprs *ex = w->g->ex;
  const zn_type *t = zn_rw_type(w, x);
  int64_t k;
  if (zn_ex_is_const(ex, e, &k)) return zn_rw_ints(w, &k, 1);
  for (int d = 0; d < t->rank; d++) {
    if (t->dims[d] != e) continue;
    const int64_t at = d;
    return zn_rw2(w, ZN_OP_Gather, shape, zn_rw_ints(w, &at, 1));
  }
  static const zn_op ops[] = {
      [ZN_EX_ADD] = ZN_OP_Add, [ZN_EX_MUL] = ZN_OP_Mul, [ZN_EX_DIV] = ZN_OP_Div,
      [ZN_EX_MOD] = ZN_OP_Mod, [ZN_EX_MIN] = ZN_OP_Min, [ZN_EX_MAX] = ZN_OP_Max};
  const zn_ex_op kind = zn_ex_kind(ex, e);
  if (kind == ZN_EX_SYM || kind == ZN_EX_BCAST || kind == ZN_EX_CONST) return 0;
  zn_vid r = 0;
  for (uint32_t i = 0; i < zn_ex_arity(ex, e); i++) {
    const zn_vid v = dim_value(w, zn_ex_operand(ex, e, i), x, shape);
    if (!v) return 0;
    r = r ? zn_rw2(w, ops[kind], r, v) : v;
  }
  return r;
}

zn_vid zn_rw_reshape(zn_rw *w, zn_vid x, const zn_expr *dims, int rank, zn_vid like) {
  int64_t k[ZN_MAX_RANK];
  zn_vid part[ZN_MAX_RANK];
  if (w->st != ZN_OK) return 0;
  if (zn_rw_target(w->g->ex, zn_rw_type(w, x), dims, rank, k)) {
    return zn_rw_reshape_to(w, x, k, (uint32_t)rank);
  }
  const zn_vid from = like ? like : x;
  const zn_vid shape = zn_rw1(w, ZN_OP_Shape, from);
  for (int d = 0; d < rank; d++) {
    part[d] = dim_value(w, dims[d], from, shape);
    if (!part[d]) return 0;
  }
  const zn_vid in[2] = {x, zn_rw_attr_int(w, ZN_OP_Concat, part, (uint32_t)rank, "axis", 0)};
  return zn_rw_attr_int(w, ZN_OP_Reshape, in, 2, "allowzero", 1); /* these are true sizes */
}

/* A copy of node b of a body; map: value of the body to value of the graph. */
static void inline_node(zn_rw *w, const zn_node *b, zn_vid *map) {
  zn_vid *in = ZN_ARRAY(&w->c->tmp, zn_vid, b->num_in + 1);
  for (uint32_t j = 0; j < b->num_in; j++) in[j] = b->in[j] ? map[b->in[j]] : 0;
  const zn_nid id = zn_graph_node_before(w->g, w->at, b->op, b->name, in, b->num_in, b->num_out);
  zn_node *m = &w->g->nodes[id];
  m->attrs = b->attrs;
  m->num_attrs = b->num_attrs;
  m->num_captures = b->num_captures;
  if (b->source) m->source = b->source;
  for (uint32_t a = 0; a < m->num_attrs; a++) {
    if (m->attrs[a].kind == ZN_A_GRAPH) m->attrs[a].u.g->parent = w->g;
  }
  for (uint32_t j = 0; j < b->num_out; j++) {
    if (b->out[j]) map[b->out[j]] = m->out[j];
    else m->out[j] = 0;
  }
  w->st = zn_infer_node(w->c, w->g, id);
}

void zn_rw_inline(zn_rw *w, zn_graph *body, const zn_vid *in, zn_vid *out) {
  if (w->st != ZN_OK) return;
  zn_vid *map = ZN_ARRAY(&w->c->tmp, zn_vid, body->num_vals);
  for (uint32_t i = 0; i < body->num_inputs; i++) map[body->inputs[i]] = in[i];
  for (zn_vid v = 1; v < body->num_vals; v++) {
    if (body->vals[v].cst && !map[v]) map[v] = zn_graph_const(w->g, NULL, body->vals[v].cst);
  }
  for (uint32_t i = 0; i < body->num_order && w->st == ZN_OK; i++) {
    const zn_node *b = &body->nodes[body->order[i]];
    if (!b->dead) inline_node(w, b, map);
  }
  for (uint32_t i = 0; i < body->num_outputs; i++) out[i] = map[body->outputs[i]];
}

void zn_rw_output(zn_rw *w, uint32_t o, zn_vid v) {
  if (w->st != ZN_OK || !v || !zn_rw_wants(w, o)) return;
  zn_graph_replace(w->g, zn_rw_node(w)->out[o], v);
}

zn_status zn_rw_done(zn_rw *w) {
  if (w->st == ZN_OK) zn_graph_kill(w->g, w->at);
  return w->st;
}
