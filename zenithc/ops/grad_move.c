/* Derivatives of operators that move elements, and of reductions. What only moves elements tells where each came from when it
 * moves their numbers instead: adjoints are added up there. */
#include "zenithc/ops/grad.h"

static zn_dtype type_of(const zn_grad *a, zn_vid v) { return (zn_dtype)zn_grad_type(a, v)->dtype; }
static int rank_of(const zn_grad *a, zn_vid v) { return zn_grad_type(a, v)->rank; }
static zn_vid number(zn_grad *a, double v) { return zn_rw_num(&a->w, ZN_I64, v); }

void zn_grad_identity(zn_grad *a) { zn_grad_give(a, 0, zn_grad_of(a, 0)); }
void zn_grad_cast(zn_grad *a) { zn_grad_give(a, 0, zn_grad_of(a, 0)); }
void zn_grad_require(zn_grad *a) { zn_grad_give(a, 0, zn_grad_of(a, 0)); }
void zn_grad_expand(zn_grad *a) { zn_grad_give(a, 0, zn_grad_of(a, 0)); }
void zn_grad_reshaped(zn_grad *a) { zn_grad_give(a, 0, zn_grad_shaped(a, zn_grad_of(a, 0), zn_grad_in(a, 0))); }

/* The node again, with input 0 replaced. */
static zn_nid again(zn_grad *a, zn_vid x, uint32_t num_in, uint32_t num_out) {
  zn_graph *g = a->w.g;
  const zn_node m = *zn_grad_node(a);
  zn_vid *in = ZN_ARRAY(&a->w.c->tmp, zn_vid, num_in + 1);
  for (uint32_t i = 0; i < num_in; i++) in[i] = i ? zn_grad_in(a, i) : x;
  const zn_nid n = zn_rw_raw(&a->w, m.op, in, num_in, num_out);
  for (uint32_t k = 0; n && k < m.num_attrs; k++) zn_node_set_attr(g, n, m.attrs[k]);
  return n;
}

static zn_vid scatter_add(zn_grad *a, zn_vid to, zn_vid at, zn_vid v, int64_t axis) {
  const zn_vid in[3] = {to, at, v};
  const zn_nid n = zn_rw_raw(&a->w, ZN_OP_ScatterElements, in, 3, 1);
  if (!n) return 0;
  zn_node_set_int(a->w.g, n, "axis", axis);
  zn_node_set_str(a->w.g, n, "reduction", "add");
  return zn_rw_infer(&a->w, n);
}

static zn_vid flat(zn_grad *a, zn_vid v) {
  const int64_t all = -1;
  return zn_rw_reshape_to(&a->w, v, &all, 1);
}

static zn_vid zeros(zn_grad *a, zn_dtype t, zn_vid count) {
  const zn_vid zero = zn_rw_num(&a->w, t, 0);
  return zn_rw2(&a->w, ZN_OP_Expand, zero, flat(a, count));
}

/* Elements are numbered from 1; what the operator fills in by itself has number 0. */
void zn_grad_moved(zn_grad *a) {
  zn_rw *w = &a->w;
  const zn_node *m = zn_grad_node(a);
  const zn_vid x = zn_grad_in(a, 0), dy = zn_grad_of(a, 0);
  for (uint32_t i = 1; i < m->num_in; i++)
    if (zn_grad_wants(a, i)) {
      zn_grad_refuse(a, "%s has no derivative in its input %u here", zn_op_name(m->op), i + 1);
      return;
    }
  const bool pad = m->op == ZN_OP_Pad, resize = m->op == ZN_OP_Resize;
  const zn_vid n = zn_rw1(w, ZN_OP_Size, x), one = number(a, 1), end = zn_rw2(w, ZN_OP_Add, n, one);
  zn_vid from = zn_grad_shaped(a, zn_rw3(w, ZN_OP_Range, one, end, one), x);
  const zn_schema *s = zn_op_schema(m->op);
  if (!zn_schema_allows(s, s->in[0].type, ZN_I64)) from = zn_rw_cast(w, from, ZN_F64);
  const zn_nid moved = again(a, from, m->num_in, 1);
  if (!moved) return;
  if (pad && w->g->nodes[moved].num_in > 2) w->g->nodes[moved].in[2] = 0;
  if (resize) zn_node_set_float(w->g, moved, "extrapolation_value", 0);
  from = zn_rw_cast(w, zn_rw_infer(w, moved), ZN_I64);
  if (w->st != ZN_OK) return;
  const zn_vid to = zeros(a, type_of(a, dy), end), at = flat(a, from), dx = scatter_add(a, to, at, flat(a, dy), 0);
  zn_grad_give(a, 0, zn_grad_shaped(a, zn_rw_slice(w, dx, 0, 1, INT64_MAX), x));
}

/* With constant starts and steps of 1 the rest is zeros around it. */
void zn_grad_slice(zn_grad *a) {
  zn_rw *w = &a->w;
  const zn_vid x = zn_grad_in(a, 0), dy = zn_grad_of(a, 0);
  int64_t start[ZN_MAX_RANK], axis[ZN_MAX_RANK], step[ZN_MAX_RANK];
  uint32_t n = 0, na = 0, ns = 0;
  bool plain = zn_value_i64s(w->g, zn_grad_in(a, 1), start, ZN_MAX_RANK, &n);
  if (zn_grad_in(a, 3)) plain &= zn_value_i64s(w->g, zn_grad_in(a, 3), axis, ZN_MAX_RANK, &na);
  if (zn_grad_in(a, 4)) plain &= zn_value_i64s(w->g, zn_grad_in(a, 4), step, ZN_MAX_RANK, &ns);
  for (uint32_t k = 0; plain && k < ns; k++) plain = step[k] == 1;
  if (!plain) {
    zn_grad_moved(a);
    return;
  }
  const zn_vid shape = zn_rw1(w, ZN_OP_Shape, x), taken = zn_rw1(w, ZN_OP_Shape, dy), zero = number(a, 0);
  zn_vid pads[2 * ZN_MAX_RANK];
  const int rank = rank_of(a, x);
  for (int d = 0; d < rank; d++) {
    const zn_vid have = zn_rw_slice(w, shape, 0, d, d + 1), got = zn_rw_slice(w, taken, 0, d, d + 1);
    zn_vid before = 0;
    for (uint32_t k = 0; k < n; k++) {
      const int64_t on = na ? axis[k] < 0 ? axis[k] + rank : axis[k] : (int64_t)k;
      if (on != d) continue;
      before = number(a, (double)start[k]);
      if (start[k] < 0) before = zn_rw2(w, ZN_OP_Max, zn_rw2(w, ZN_OP_Add, have, before), zero);
    }
    const int64_t one = 1;
    pads[d] = zn_rw_reshape_to(w, before ? before : zero, &one, 1);
    pads[rank + d] = zn_rw2(w, ZN_OP_Sub, zn_rw2(w, ZN_OP_Sub, have, pads[d]), got);
  }
  if (!rank) {
    zn_grad_give(a, 0, dy);
    return;
  }
  const zn_vid all = zn_rw_attr_int(w, ZN_OP_Concat, pads, 2 * (uint32_t)rank, "axis", 0);
  zn_grad_give(a, 0, zn_grad_shaped(a, zn_rw2(w, ZN_OP_Pad, dy, all), x));
}

void zn_grad_transpose(zn_grad *a) {
  uint32_t n;
  const int rank = rank_of(a, zn_grad_in(a, 0));
  const int64_t *perm = zn_node_ints(zn_grad_node(a), "perm", &n);
  int64_t inverse[ZN_MAX_RANK];
  for (int d = 0; d < rank; d++) inverse[n ? perm[d] : rank - 1 - d] = d;
  zn_grad_give(a, 0, zn_rw_transpose(&a->w, zn_grad_of(a, 0), inverse, (uint32_t)rank));
}

void zn_grad_concat(zn_grad *a) {
  zn_rw *w = &a->w;
  const uint32_t n = zn_grad_node(a)->num_in;
  const int64_t raw = zn_node_int(zn_grad_node(a), "axis"), axis = raw < 0 ? raw + rank_of(a, zn_grad_in(a, 0)) : raw;
  zn_vid *len = ZN_ARRAY(&w->c->tmp, zn_vid, n);
  for (uint32_t i = 0; i < n; i++)
    len[i] = zn_rw_slice(w, zn_rw1(w, ZN_OP_Shape, zn_grad_in(a, i)), 0, axis, axis + 1);
  const zn_vid in[2] = {zn_grad_of(a, 0), zn_rw_attr_int(w, ZN_OP_Concat, len, n, "axis", 0)};
  const zn_nid s = zn_rw_raw(w, ZN_OP_Split, in, 2, n);
  if (!s) return;
  zn_node_set_int(w->g, s, "axis", axis);
  zn_rw_infer(w, s);
  for (uint32_t i = 0; i < n && w->st == ZN_OK; i++) zn_grad_give(a, i, w->g->nodes[s].out[i]);
}

void zn_grad_split(zn_grad *a) {
  zn_rw *w = &a->w;
  const uint32_t n = zn_grad_node(a)->num_out;
  zn_vid *part = ZN_ARRAY(&w->c->tmp, zn_vid, n);
  for (uint32_t o = 0; o < n && w->st == ZN_OK; o++) {
    part[o] = zn_grad_of(a, o);
    if (part[o]) continue;
    if (!zn_grad_out(a, o)) {
      zn_grad_refuse(a, "Split without its output %u has no derivative here", o + 1);
      return;
    }
    part[o] = zn_grad_zeros(a, zn_grad_out(a, o));
  }
  zn_grad_give(a, 0, zn_rw_attr_int(w, ZN_OP_Concat, part, n, "axis", zn_node_int(zn_grad_node(a), "axis")));
}

/* The axis that is indexed comes first, its indices too; then rows are added where they came from. */
void zn_grad_gather(zn_grad *a) {
  zn_rw *w = &a->w;
  const zn_vid x = zn_grad_in(a, 0), at = zn_grad_in(a, 1), dy = zn_grad_of(a, 0);
  const int rank = rank_of(a, x), q = rank_of(a, at), out = rank_of(a, dy);
  const int64_t raw = zn_node_int(zn_grad_node(a), "axis"), axis = raw < 0 ? raw + rank : raw, last = q;
  int64_t front[ZN_MAX_RANK], rows[ZN_MAX_RANK], back[ZN_MAX_RANK];
  int n = 0;
  for (int d = 0; d < q; d++) rows[n++] = axis + d;
  for (int d = 0; d < out; d++)
    if (d < axis || d >= axis + q) rows[n++] = d;
  front[0] = axis;
  for (int d = 0, k = 1; d < rank; d++)
    if (d != axis) front[k++] = d;
  for (int d = 0; d < rank; d++) back[front[d]] = d;
  const zn_vid zero = zn_rw_transpose(w, zn_grad_zeros(a, x), front, (uint32_t)rank);
  const zn_vid turned = zn_rw_transpose(w, dy, rows, (uint32_t)out);
  const zn_vid in[3] = {zero, zn_rw_cast(w, zn_rw_unsqueeze(w, at, &last, 1), ZN_I64), turned};
  const zn_nid s = zn_rw_raw(w, ZN_OP_ScatterND, in, 3, 1);
  if (!s) return;
  zn_node_set_str(w->g, s, "reduction", "add");
  zn_grad_give(a, 0, zn_rw_transpose(w, zn_rw_infer(w, s), back, (uint32_t)rank));
}

void zn_grad_gatherelements(zn_grad *a) {
  const int64_t axis = zn_node_int(zn_grad_node(a), "axis");
  zn_grad_give(a, 0, scatter_add(a, zn_grad_zeros(a, zn_grad_in(a, 0)), zn_grad_in(a, 1), zn_grad_of(a, 0), axis));
}

void zn_grad_topk(zn_grad *a) {
  const zn_vid x = zn_grad_in(a, 0);
  zn_vid at = zn_grad_out(a, 1);
  if (!at) {
    const zn_nid n = again(a, x, 2, 2);
    zn_rw_infer(&a->w, n);
    at = n ? a->w.g->nodes[n].out[1] : 0;
  }
  const int64_t axis = zn_node_int(zn_grad_node(a), "axis");
  if (a->w.st == ZN_OK) zn_grad_give(a, 0, scatter_add(a, zn_grad_zeros(a, x), at, zn_grad_of(a, 0), axis));
}

/* Without reduction what was overwritten does not count. */
void zn_grad_scatter(zn_grad *a) {
  zn_rw *w = &a->w;
  const bool nd = zn_grad_node(a)->op == ZN_OP_ScatterND;
  const char *how = zn_node_str(zn_grad_node(a), "reduction");
  const zn_vid at = zn_grad_in(a, 1), dy = zn_grad_of(a, 0);
  const int64_t axis = nd ? 0 : zn_node_int(zn_grad_node(a), "axis");
  if (strcmp(how, "none") && strcmp(how, "add")) {
    zn_grad_refuse(a, "%s with reduction '%s' has no derivative here", zn_op_name(zn_grad_node(a)->op), how);
    return;
  }
  if (zn_grad_wants(a, 0)) {
    zn_vid dx = dy;
    const zn_vid in[3] = {dy, at, zn_grad_zeros(a, zn_grad_in(a, 2))};
    if (how[0] == 'n' && nd) dx = zn_rw_op(w, ZN_OP_ScatterND, in, 3);
    else if (how[0] == 'n') dx = zn_rw_attr_int(w, ZN_OP_ScatterElements, in, 3, "axis", axis);
    zn_grad_give(a, 0, dx);
  }
  if (!zn_grad_wants(a, 2)) return;
  const zn_vid in[2] = {dy, at};
  zn_grad_give(a, 2, nd ? zn_rw_op(w, ZN_OP_GatherND, in, 2) : zn_rw_attr_int(w, ZN_OP_GatherElements, in, 2, "axis", axis));
}

void zn_grad_cumsum(zn_grad *a) {
  const zn_vid in[2] = {zn_grad_of(a, 0), zn_grad_in(a, 1)};
  const zn_nid n = zn_rw_raw(&a->w, ZN_OP_CumSum, in, 2, 1);
  if (!n) return;
  zn_node_set_int(a->w.g, n, "exclusive", zn_node_int(zn_grad_node(a), "exclusive"));
  zn_node_set_int(a->w.g, n, "reverse", !zn_node_int(zn_grad_node(a), "reverse"));
  zn_grad_give(a, 0, zn_rw_infer(&a->w, n));
}

/* ---------------------------------------------------------------- reductions */

/* Does the reduction reduce nothing? */
static bool reduces_nothing(const zn_grad *a) {
  const zn_vid axes = zn_grad_in(a, 1);
  const bool empty = !axes || zn_ex_is(a->w.g->ex, zn_grad_type(a, axes)->dims[0], 0);
  return empty && zn_node_int(zn_grad_node(a), "noop_with_empty_axes");
}

/* v, of the result's shape, with the axes that were reduced as 1 again. */
static zn_vid with_axes(zn_grad *a, zn_vid v) {
  const zn_vid axes = zn_grad_in(a, 1);
  const bool all = !axes || zn_ex_is(a->w.g->ex, zn_grad_type(a, axes)->dims[0], 0);
  if (all || zn_node_int(zn_grad_node(a), "keepdims")) return v;
  return zn_rw2(&a->w, ZN_OP_Unsqueeze, v, axes);
}

/* The same axes of another tensor, kept. */
static zn_vid reduce_same(zn_grad *a, zn_op op, zn_vid v) {
  const zn_vid in[2] = {v, zn_grad_in(a, 1)};
  return zn_rw_attr_int(&a->w, op, in, in[1] ? 2 : 1, "keepdims", 1);
}

void zn_grad_reduce_sum(zn_grad *a) {
  zn_rw *w = &a->w;
  const zn_vid x = zn_grad_in(a, 0);
  zn_vid dy = zn_grad_of(a, 0);
  if (reduces_nothing(a)) {
    zn_grad_give(a, 0, dy);
    return;
  }
  if (zn_grad_node(a)->op == ZN_OP_ReduceMean) {
    const zn_dtype t = type_of(a, x), wide = zn_rw_wide(t);
    const zn_vid n = zn_rw_cast(w, zn_rw1(w, ZN_OP_Size, x), wide), m = zn_rw_cast(w, zn_rw1(w, ZN_OP_Size, dy), wide);
    const zn_vid each = zn_rw2(w, ZN_OP_Div, n, m);
    dy = zn_rw_cast(w, zn_rw2(w, ZN_OP_Div, zn_rw_cast(w, dy, wide), each), t);
  }
  zn_grad_give(a, 0, zn_grad_expand_to(a, with_axes(a, dy), x));
}

/* Equal extremes share. */
void zn_grad_reduce_extreme(zn_grad *a) {
  zn_rw *w = &a->w;
  const zn_vid x = zn_grad_in(a, 0), dy = zn_grad_of(a, 0);
  if (reduces_nothing(a)) {
    zn_grad_give(a, 0, dy);
    return;
  }
  const zn_vid hit = zn_rw_cast(w, zn_rw2(w, ZN_OP_Equal, x, with_axes(a, zn_grad_out(a, 0))), type_of(a, x));
  const zn_vid hits = reduce_same(a, ZN_OP_ReduceSum, hit), share = zn_rw2(w, ZN_OP_Div, with_axes(a, dy), hits);
  zn_grad_give(a, 0, zn_rw2(w, ZN_OP_Mul, hit, share));
}

/* The product of the others: the whole over x, or of all that are not 0 where x is the only 0. */
void zn_grad_reduce_prod(zn_grad *a) {
  zn_rw *w = &a->w;
  const zn_vid x = zn_grad_in(a, 0), dy = zn_grad_of(a, 0);
  if (reduces_nothing(a)) {
    zn_grad_give(a, 0, dy);
    return;
  }
  const zn_dtype t = type_of(a, x);
  const zn_vid zero = zn_rw_num(w, t, 0), one = zn_rw_num(w, t, 1), is_zero = zn_rw2(w, ZN_OP_Equal, x, zero);
  const zn_vid some = zn_rw3(w, ZN_OP_Where, is_zero, one, x), product = reduce_same(a, ZN_OP_ReduceProd, some);
  const zn_vid count = reduce_same(a, ZN_OP_ReduceSum, zn_rw_cast(w, is_zero, t));
  const zn_vid own = zn_rw2(w, ZN_OP_Sub, count, zn_rw_cast(w, is_zero, t)); /* zeros among the others */
  const zn_vid rest = zn_rw2(w, ZN_OP_Div, product, some);
  const zn_vid others = zn_rw3(w, ZN_OP_Where, zn_rw2(w, ZN_OP_Equal, own, zero), rest, zero);
  zn_grad_give(a, 0, zn_rw2(w, ZN_OP_Mul, with_axes(a, dy), others));
}
