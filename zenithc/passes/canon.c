/* One spelling for each thing, so that later passes and schedules see fewer cases: nodes that do
 * nothing disappear, view operators become Reshape with a constant target where one exists, chains
 * of reshapes or transposes merge, n-ary maps become binary ones, constants stand on the right.
 * Each rule is a static function that returns whether it changed the graph. Rules about windows,
 * bodies and branches are in canon_window.c and canon_control.c. */
#include "zenithc/passes/canon.h"

enum { MAX_ROUNDS = 12 };

static bool same_dims(const zn_type *a, const zn_type *b) {
  if (a->rank < 0 || a->rank != b->rank) return false;
  for (int d = 0; d < a->rank; d++) {
    if (a->dims[d] != b->dims[d]) return false;
  }
  return true;
}

static const zn_type *out_type(const zn_graph *g, const zn_node *n) {
  return &g->vals[n->out[0]].type;
}

bool zn_canon_forward(zn_canon *k, zn_nid n, zn_vid v) {
  zn_graph *g = k->g;
  const zn_vid out = g->nodes[n].out[0];
  const zn_value *x = &g->vals[v];
  /* a graph output that is also an input, a constant or another output needs its node */
  if (g->vals[out].is_output && (x->is_input || x->cst || x->is_output || !x->def)) {
    if (g->nodes[n].op == ZN_OP_Identity) return false;
    if (!zn_pass_may_rewrite(k->o)) return false;
    zn_graph_replace(g, out, v); /* places an Identity */
    zn_graph_kill(g, n);
    return true;
  }
  if (!zn_pass_may_rewrite(k->o)) return false;
  zn_graph_replace(g, out, v);
  zn_graph_kill(g, n);
  return true;
}

/* ---- nodes that do nothing ---- */

static bool all_i64(const zn_graph *g, zn_vid v, int64_t want) {
  int64_t x[ZN_MAX_ELEMS];
  uint32_t n;
  if (!zn_value_i64s(g, v, x, ZN_MAX_ELEMS, &n)) return false;
  for (uint32_t i = 0; i < n; i++) {
    if (x[i] != want) return false;
  }
  return true;
}

/* A conversion to the same type may still saturate: an infinity becomes the greatest number of an 8-bit format that has
 * both (operator Cast, attribute saturate). */
static bool cast_does_nothing(const zn_graph *g, const zn_node *n) {
  const zn_dtype from = g->vals[n->in[0]].type.dtype;
  return from == out_type(g, n)->dtype && from != ZN_NONE && (from != ZN_F8E5M2 || !zn_node_int(n, "saturate"));
}

static bool does_nothing(const zn_graph *g, const zn_node *n) {
  const zn_type *i = &g->vals[n->in[0]].type, *o = out_type(g, n);
  switch ((unsigned)n->op) {
    case ZN_OP_Identity: return true;
    case ZN_OP_Cast:
    case ZN_OP_CastLike: return cast_does_nothing(g, n);
    case ZN_OP_Reshape:
    case ZN_OP_Squeeze:
    case ZN_OP_Unsqueeze:
    case ZN_OP_Flatten:
    case ZN_OP_Expand: return same_dims(i, o);
    case ZN_OP_Slice: return same_dims(i, o) && (!zn_node_in(n, 4) || all_i64(g, n->in[4], 1));
    case ZN_OP_Pad: return all_i64(g, n->in[1], 0);
    case ZN_OP_Tile: return all_i64(g, n->in[1], 1);
    case ZN_OP_Concat:
    case ZN_OP_Sum:
    case ZN_OP_Mean:
    case ZN_OP_Max:
    case ZN_OP_Min: return n->num_in == 1;
    case ZN_OP_Split: return n->num_out == 1;
    case ZN_OP_Clip: return !zn_node_in(n, 1) && !zn_node_in(n, 2);
    case ZN_OP_Resize:
      return same_dims(i, o) &&
             strcmp(zn_node_str(n, "coordinate_transformation_mode"), "tf_crop_and_resize") &&
             zn_node_in(n, 3) != 0;
    default: return false;
  }
}

static bool drop_noop(zn_canon *k, zn_nid n) {
  const zn_node *nd = &k->g->nodes[n];
  if (nd->num_in == 0 || !nd->in[0] || !nd->out[0] || !does_nothing(k->g, nd)) return false;
  return zn_canon_forward(k, n, nd->in[0]);
}

/* x + 0, x - 0, x * 1, x / 1 with the constant on the right. */
static bool drop_neutral(zn_canon *k, zn_nid n) {
  const zn_node *nd = &k->g->nodes[n];
  double v;
  if (nd->num_in != 2 || !k->g->vals[nd->in[1]].cst) return false;
  const bool add = nd->op == ZN_OP_Add || nd->op == ZN_OP_Sub,
             mul = nd->op == ZN_OP_Mul || nd->op == ZN_OP_Div;
  if ((!add && !mul) || !same_dims(&k->g->vals[nd->in[0]].type, out_type(k->g, nd))) return false;
  if (!zn_value_f64(k->g, nd->in[1], &v) || v != (add ? 0 : 1)) return false;
  return zn_canon_forward(k, n, nd->in[0]);
}

/* ---- views ---- */

static zn_rw builder(zn_canon *k, zn_nid n) { return (zn_rw){k->c, k->g, n, ZN_OK}; }

static bool is_reshape(zn_op op) {
  return op == ZN_OP_Reshape || op == ZN_OP_Squeeze || op == ZN_OP_Unsqueeze || op == ZN_OP_Flatten;
}

/* Any reshape, reading through the reshapes before it, becomes Reshape with a constant target. */
static bool constant_reshape(zn_canon *k, zn_nid n) {
  zn_graph *g = k->g;
  const zn_node *nd = &g->nodes[n];
  int64_t want[ZN_MAX_RANK], have[ZN_MAX_RANK];
  uint32_t m;
  if (!is_reshape(nd->op) || out_type(g, nd)->rank < 0) return false;
  zn_vid x = nd->in[0];
  while (g->vals[x].def && is_reshape(g->nodes[g->vals[x].def].op))
    x = g->nodes[g->vals[x].def].in[0];
  if (g->vals[x].type.rank < 0) return false;
  const zn_type to = *out_type(g, nd);
  if (!zn_rw_target(g->ex, &g->vals[x].type, to.dims, to.rank, want)) {
    x = nd->in[0];
    if (!zn_rw_target(g->ex, &g->vals[x].type, to.dims, to.rank, want)) return false;
  }
  if (nd->op == ZN_OP_Reshape && x == nd->in[0] && g->vals[nd->in[1]].cst &&
      zn_value_i64s(g, nd->in[1], have, ZN_MAX_RANK, &m) && (int)m == to.rank &&
      (m == 0 || memcmp(have, want, m * sizeof *have) == 0)) {
    return false;
  }
  if (!zn_pass_may_rewrite(k->o)) return false;
  zn_rw w = builder(k, n);
  const zn_vid y = zn_rw_reshape_to(&w, x, want, (uint32_t)to.rank);
  if (w.st != ZN_OK) return k->st = w.st, false;
  g->vals[y].type = to; /* the same dims, in the form that was there */
  zn_rw_output(&w, 0, y);
  zn_rw_done(&w);
  return true;
}

static bool perm_of(const zn_graph *g, const zn_node *n, int64_t *perm, int *rank) {
  uint32_t m;
  const int64_t *p = zn_node_ints(n, "perm", &m);
  *rank = g->vals[n->in[0]].type.rank;
  if (*rank < 0) return false;
  for (int d = 0; d < *rank; d++) perm[d] = p && m ? p[d] : *rank - 1 - d;
  return true;
}

/* Moves nothing but axes of extent 1: the order of elements in memory stays. */
static bool keeps_order(const zn_graph *g, const zn_node *n, const int64_t *perm, int rank) {
  int64_t last = -1;
  for (int d = 0; d < rank; d++) {
    if (zn_ex_is(g->ex, g->vals[n->in[0]].type.dims[perm[d]], 1)) continue;
    if (perm[d] < last) return false;
    last = perm[d];
  }
  return true;
}

static bool simplify_transpose(zn_canon *k, zn_nid n) {
  zn_graph *g = k->g;
  int64_t perm[ZN_MAX_RANK], inner[ZN_MAX_RANK], target[ZN_MAX_RANK];
  int rank, r2;
  if (g->nodes[n].op != ZN_OP_Transpose || !perm_of(g, &g->nodes[n], perm, &rank)) return false;
  bool ident = true;
  for (int d = 0; d < rank; d++) ident &= perm[d] == d;
  if (ident) return zn_canon_forward(k, n, g->nodes[n].in[0]);
  const zn_vid x = g->nodes[n].in[0];
  const zn_nid def = g->vals[x].def;
  if (def && g->nodes[def].op == ZN_OP_Transpose && perm_of(g, &g->nodes[def], inner, &r2)) {
    if (!zn_pass_may_rewrite(k->o)) return false;
    for (int d = 0; d < rank; d++) target[d] = inner[perm[d]];
    zn_rw w = builder(k, n);
    zn_rw_output(&w, 0, zn_rw_transpose(&w, g->nodes[def].in[0], target, (uint32_t)rank));
    k->st = zn_rw_done(&w);
    return k->st == ZN_OK;
  }
  if (!keeps_order(g, &g->nodes[n], perm, rank)) return false;
  const zn_type to = *out_type(g, &g->nodes[n]);
  if (!zn_rw_target(g->ex, &g->vals[x].type, to.dims, rank, target) || !zn_pass_may_rewrite(k->o))
    return false;
  zn_rw w = builder(k, n);
  zn_rw_output(&w, 0, zn_rw_reshape_to(&w, x, target, (uint32_t)rank));
  k->st = zn_rw_done(&w);
  return k->st == ZN_OK;
}

/* ---- maps ---- */

static bool binary_chain(zn_canon *k, zn_nid n) {
  zn_graph *g = k->g;
  const zn_op op = g->nodes[n].op;
  const uint32_t m = g->nodes[n].num_in;
  const bool sum = op == ZN_OP_Sum, mean = op == ZN_OP_Mean;
  if (!sum && !mean && op != ZN_OP_Max && op != ZN_OP_Min) return false;
  if (m < 2 || (m == 2 && !sum && !mean) || !zn_pass_may_rewrite(k->o)) return false;
  zn_rw w = builder(k, n);
  zn_vid r = g->nodes[n].in[0];
  for (uint32_t i = 1; i < m; i++) r = zn_rw2(&w, sum || mean ? ZN_OP_Add : op, r, zn_rw_in(&w, i));
  if (mean && w.st == ZN_OK) {
    const zn_dtype t = (zn_dtype)g->vals[r].type.dtype;
    r = zn_rw2(&w, ZN_OP_Div, r, zn_rw_num(&w, t, m));
  }
  zn_rw_output(&w, 0, r);
  k->st = zn_rw_done(&w);
  return k->st == ZN_OK;
}

static bool constant_right(zn_canon *k, zn_nid n) {
  zn_node *nd = &k->g->nodes[n];
  if (!(zn_ops[nd->op].flags & ZN_OPF_COMM) || nd->num_in != 2) return false;
  if (!k->g->vals[nd->in[0]].cst || k->g->vals[nd->in[1]].cst || !zn_pass_may_rewrite(k->o))
    return false;
  const zn_vid a = nd->in[0];
  nd->in[0] = nd->in[1];
  nd->in[1] = a;
  return true;
}

static bool simplify_pow(zn_canon *k, zn_nid n) {
  zn_graph *g = k->g;
  const zn_node *nd = &g->nodes[n];
  double p;
  if (nd->op != ZN_OP_Pow || !zn_is_float((zn_dtype)g->vals[nd->in[0]].type.dtype)) return false;
  if (!same_dims(&g->vals[nd->in[0]].type, out_type(g, nd)) || !zn_value_f64(g, nd->in[1], &p))
    return false;
  const zn_vid x = nd->in[0];
  if (p == 1) return zn_canon_forward(k, n, x);
  if ((p != 2 && p != 3 && p != 0.5 && p != -1) || !zn_pass_may_rewrite(k->o)) return false;
  zn_rw w = builder(k, n);
  zn_vid y;
  if (p == 0.5) y = zn_rw1(&w, ZN_OP_Sqrt, x);
  else if (p == -1) y = zn_rw1(&w, ZN_OP_Reciprocal, x);
  else y = zn_rw2(&w, ZN_OP_Mul, x, x);
  if (p == 3) y = zn_rw2(&w, ZN_OP_Mul, y, x);
  zn_rw_output(&w, 0, y);
  k->st = zn_rw_done(&w);
  return k->st == ZN_OK;
}

static bool cast_like(zn_canon *k, zn_nid n) {
  zn_graph *g = k->g;
  if (g->nodes[n].op != ZN_OP_CastLike || !zn_pass_may_rewrite(k->o)) return false;
  const zn_dtype t = (zn_dtype)out_type(g, &g->nodes[n])->dtype;
  zn_rw w = builder(k, n);
  const zn_vid x = g->nodes[n].in[0];
  const zn_nid c = zn_rw_raw(&w, ZN_OP_Cast, &x, 1, 1);
  zn_node_set_int(g, c, "to", zn_dtypes[t].onnx);
  zn_node_set_int(g, c, "saturate", zn_node_int(&g->nodes[n], "saturate"));
  zn_node_set_str(g, c, "round_mode", zn_node_str(&g->nodes[n], "round_mode"));
  zn_rw_output(&w, 0, zn_rw_infer(&w, c));
  k->st = zn_rw_done(&w);
  return k->st == ZN_OK;
}

/* Concat: parts of extent 0 go, nested Concats on the same axis merge. */
static bool drop_empty_parts(zn_canon *k, zn_nid n) {
  zn_graph *g = k->g;
  zn_node *nd = &g->nodes[n];
  uint32_t keep = 0;
  if (nd->op != ZN_OP_Concat) return false;
  const int rank = out_type(g, nd)->rank;
  if (rank < 1) return false;
  const int64_t a = zn_node_int(nd, "axis"), axis = a < 0 ? a + rank : a;
  for (uint32_t i = 0; i < nd->num_in; i++)
    keep += !zn_ex_is(g->ex, g->vals[nd->in[i]].type.dims[axis], 0);
  if (keep == nd->num_in || keep == 0 || !zn_pass_may_rewrite(k->o)) return false;
  keep = 0;
  for (uint32_t i = 0; i < nd->num_in; i++) {
    if (!zn_ex_is(g->ex, g->vals[nd->in[i]].type.dims[axis], 0)) nd->in[keep++] = nd->in[i];
  }
  nd->num_in = keep;
  return true;
}

static bool apply_rules(zn_canon *k, zn_nid n) {
  static bool (*const rules[])(zn_canon *, zn_nid) = {
      drop_noop,        drop_neutral,       cast_like,       drop_empty_parts,
      constant_reshape, simplify_transpose, binary_chain,    constant_right,
      simplify_pow,     zn_canon_window,    zn_canon_control};
  for (unsigned i = 0; i < sizeof rules / sizeof *rules && k->st == ZN_OK; i++) {
    if (rules[i](k, n)) return true;
  }
  return false;
}

zn_status zn_pass_canon(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  zn_canon k = {c, g, o, ZN_OK};
  for (int round = 0; round < MAX_ROUNDS; round++) {
    bool changed = false;
    for (uint32_t i = 0; i < g->num_order; i++) {
      const zn_nid n = g->order[i];
      if (g->nodes[n].dead) continue;
      const uint32_t before = g->num_order;
      changed |= apply_rules(&k, n);
      if (k.st != ZN_OK) return k.st;
      i += g->num_order - before;
    }
    zn_graph_compact(g);
    if (!changed) break;
  }
  return zn_pass_bodies(c, g, o, zn_pass_canon);
}
