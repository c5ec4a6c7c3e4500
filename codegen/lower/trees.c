/* TreeEnsemble: one row per grid step walks every tree. Nodes are tables of constants; a child that is a leaf is stored as
 * -1 - leaf, so that the walk ends when the number turns negative. */
#include <string.h>

#include "codegen/lower/sortkeys.h"

typedef struct trees {
  zn_nid node;
  zn_vid x, y;
  zn_type t;
  zn_dtype ct;
  uint32_t nodes, leaves, roots;
  int64_t targets, aggregate, post;
  const zn_htensor *splits, *modes, *weights, *members;
  zn_loc next, feature, split, mode, missing, root, target, weight, member, member_at, acc, hits;
  bool has_missing, has_members;
} trees;

static zn_loc list_i32(zn_lw *lw, const char *name, const int32_t *v, uint32_t n) {
  return zn_lw_const(lw, name, ZN_I32, n, v);
}

static zn_status invalid(zn_lw *lw, const trees *t, const char *what) {
  return zn_error(lw->ctx, zn_node_where(lw->ctx, zn_lw_node(lw, t->node)), "the trees' %s are not valid", what);
}

static zn_status read_nodes(zn_lw *lw, trees *t) {
  const zn_node *n = zn_lw_node(lw, t->node);
  static const char *const names[] = {"nodes_truenodeids", "nodes_falsenodeids", "nodes_trueleafs",
                                      "nodes_falseleafs", "nodes_featureids"};
  const int64_t *list[5], *roots = zn_node_ints(n, "tree_roots", &t->roots);
  const int64_t *target = zn_node_ints(n, "leaf_targetids", &t->leaves);
  for (int i = 0; i < 5; i++) {
    uint32_t count;
    list[i] = zn_node_ints(n, names[i], &count);
    if (i && count != t->nodes) return invalid(lw, t, "node lists");
    t->nodes = count;
  }
  if (zn_htensor_count(t->splits) != t->nodes || zn_htensor_count(t->modes) != t->nodes ||
      zn_htensor_count(t->weights) != t->leaves)
    return invalid(lw, t, "node lists");
  uint32_t nm;
  const int64_t *missing = zn_node_ints(n, "nodes_missing_value_tracks_true", &nm);
  zn_arena *a = &lw->ctx->graph;
  int32_t *next = ZN_ARRAY(a, int32_t, 2 * t->nodes + 1), *feature = ZN_ARRAY(a, int32_t, t->nodes + 1);
  int32_t *mode = ZN_ARRAY(a, int32_t, t->nodes + 1), *miss = ZN_ARRAY(a, int32_t, t->nodes + 1);
  int32_t *root = ZN_ARRAY(a, int32_t, t->roots + 1), *to = ZN_ARRAY(a, int32_t, t->leaves + 1);
  int32_t *at = ZN_ARRAY(a, int32_t, t->nodes + 1);
  int64_t cols = 0;
  bool known = zn_ex_is_const(lw->ex, t->t.dims[t->t.rank - 1], &cols);
  uint64_t members = t->members ? zn_htensor_count(t->members) : 0, seen = 0;
  for (uint32_t k = 0; k < t->nodes; k++) {
    for (int side = 0; side < 2; side++) {
      int64_t id = list[side][k];
      bool leaf = list[2 + side][k] != 0;
      if (id < 0 || id >= (leaf ? t->leaves : t->nodes)) return invalid(lw, t, "children");
      next[2 * k + (uint32_t)side] = (int32_t)(leaf ? -1 - id : id);
    }
    feature[k] = (int32_t)list[4][k];
    if (list[4][k] < 0 || (known && list[4][k] >= cols)) return invalid(lw, t, "features");
    mode[k] = (int32_t)zn_load_i64(t->modes->dtype, t->modes->data, k);
    miss[k] = missing && k < nm && missing[k];
    t->has_missing |= miss[k] != 0;
    at[k] = (int32_t)seen;
    if (mode[k] != 6) continue;
    t->has_members = true;
    while (seen < members && zn_load_f64(t->members->dtype, t->members->data, seen) ==
                                 zn_load_f64(t->members->dtype, t->members->data, seen))
      seen++;
    if (seen == members) return invalid(lw, t, "member lists");
    seen++;
  }
  for (uint32_t r = 0; r < t->roots; r++) {
    int64_t k = roots[r];
    if (k < 0 || k >= (t->nodes ? t->nodes : t->leaves)) return invalid(lw, t, "roots");
    bool single = t->nodes && next[2 * k] < 0 && next[2 * k] == next[2 * k + 1];
    root[r] = (int32_t)(!t->nodes ? -1 - k : single ? next[2 * k] : k);
  }
  for (uint32_t l = 0; l < t->leaves; l++) {
    if (target[l] < 0 || target[l] >= t->targets) return invalid(lw, t, "targets");
    to[l] = (int32_t)target[l];
  }
  t->next = list_i32(lw, "tree_next", next, 2 * t->nodes);
  t->feature = list_i32(lw, "tree_feature", feature, t->nodes);
  t->mode = list_i32(lw, "tree_mode", mode, t->nodes);
  t->missing = list_i32(lw, "tree_missing", miss, t->nodes);
  t->root = list_i32(lw, "tree_root", root, t->roots);
  t->target = list_i32(lw, "tree_target", to, t->leaves);
  t->member_at = list_i32(lw, "tree_member_at", at, t->nodes);
  return ZN_OK;
}

static zn_loc list_float(zn_lw *lw, const trees *t, const char *name, const zn_htensor *v) {
  uint64_t n = zn_htensor_count(v);
  void *data = zn_arena_array(&lw->ctx->graph, n + 1, zn_dtype_bytes(t->ct));
  for (uint64_t i = 0; i < n; i++) zn_store_f64(t->ct, data, i, zn_load_f64(v->dtype, v->data, i));
  return zn_lw_const(lw, name, t->ct, n, data);
}

static zn_kref cell(zn_lw *lw, zn_loc loc, zn_kref at) {
  zn_kref p = zn_lw_ptr_loc(lw, loc, ZN_KP_IN, ZN_I32);
  return zn_s_load(lw, p, at);
}

static zn_kref real(zn_lw *lw, const trees *t, zn_loc loc, zn_kref at) {
  zn_kref p = zn_lw_ptr_loc(lw, loc, ZN_KP_IN, t->ct);
  return zn_kb_load(&lw->kb, t->ct, 1, p, at);
}

static zn_kref is_member(zn_lw *lw, const trees *t, zn_kref k, zn_kref x) {
  zn_kb *b = &lw->kb;
  zn_kref found = zn_kb_var(b, zn_kb_int(b, ZN_BOOL, 0)), at = zn_kb_var(b, cell(lw, t->member_at, k));
  zn_kb_loop(b);
  zn_kref i = zn_kb_get(b, at);
  zn_kref m = real(lw, t, t->member, i), same = zn_kb_cmp(b, ZN_K_Eq, m, x);
  zn_kb_set(b, found, same);
  zn_kb_break(b, zn_kb_bin(b, ZN_K_Or, same, zn_kb_cmp(b, ZN_K_Ne, m, m)));
  zn_kb_set(b, at, zn_s_inc(lw, i));
  zn_kb_end(b);
  return zn_kb_get(b, found);
}

/* Does node k send x to its true side? */
static zn_kref goes_true(zn_lw *lw, const trees *t, zn_kref k, zn_kref x) {
  static const uint8_t op[] = {ZN_K_Le, ZN_K_Lt, ZN_K_Ge, ZN_K_Gt, ZN_K_Eq, ZN_K_Ne};
  zn_kb *b = &lw->kb;
  zn_kref s = real(lw, t, t->split, k), yes = 0, mode = 0;
  bool used[7] = {0};
  for (uint32_t i = 0; i < t->nodes; i++) {
    int64_t m = zn_load_i64(t->modes->dtype, t->modes->data, i);
    if (m >= 0 && m < 7) used[m] = true;
  }
  for (int m = 0; m < 6; m++) {
    if (!used[m]) continue;
    zn_kref c = zn_kb_cmp(b, (zn_kop)op[m], x, s);
    if (!yes) {
      yes = c;
      continue;
    }
    if (!mode) mode = cell(lw, t->mode, k);
    yes = zn_kb_select(b, zn_kb_cmp(b, ZN_K_Eq, mode, zn_kb_idx(b, m)), c, yes);
  }
  if (t->has_members) {
    zn_kref in = yes ? zn_kb_var(b, yes) : zn_kb_var(b, zn_kb_int(b, ZN_BOOL, 0));
    mode = cell(lw, t->mode, k);
    zn_kref member = zn_kb_cmp(b, ZN_K_Eq, mode, zn_kb_idx(b, 6));
    zn_kb_if(b, member);
    zn_kb_set(b, in, is_member(lw, t, k, x));
    zn_kb_end(b);
    yes = zn_kb_get(b, in);
  }
  if (!t->has_missing) return yes;
  zn_kref nan = zn_kb_cmp(b, ZN_K_Ne, x, x), zero = zn_kb_idx(b, 0);
  zn_kref tracks = zn_kb_cmp(b, ZN_K_Ne, cell(lw, t->missing, k), zero);
  zn_kref missing = zn_kb_bin(b, ZN_K_And, nan, tracks);
  return zn_kb_bin(b, ZN_K_Or, yes, missing);
}

static zn_kref find_leaf(zn_lw *lw, const trees *t, zn_expr row, zn_kref root) {
  zn_kb *b = &lw->kb;
  zn_kref at = zn_kb_var(b, root), zero = zn_kb_idx(b, 0), steps = zn_kb_var(b, zero);
  if (t->nodes) {
    zn_kb_loop(b);
    zn_kref k = zn_kb_get(b, at), s = zn_kb_get(b, steps);
    zn_kb_break(b, zn_kb_cmp(b, ZN_K_Lt, k, zero));
    zn_kb_break(b, zn_kb_cmp(b, ZN_K_Gt, s, zn_kb_idx(b, t->nodes))); /* a cycle */
    zn_expr cols = t->t.dims[t->t.rank - 1];
    zn_expr idx[2] = {row, zn_lw_as_expr(lw, cell(lw, t->feature, k), cols)};
    zn_kref x = zn_lw_load(lw, t->x, t->t.rank == 1 ? idx + 1 : idx);
    zn_kref no = zn_kb_un(b, ZN_K_Not, goes_true(lw, t, k, x)), twice = zn_s_add(lw, k, k);
    zn_kref side = zn_s_add(lw, twice, zn_kb_cvt(b, no, ZN_IDX));
    zn_kb_set(b, at, cell(lw, t->next, side));
    zn_kb_set(b, steps, zn_s_inc(lw, s));
    zn_kb_end(b);
  }
  zn_kref k = zn_kb_get(b, at), minus = zn_kb_idx(b, -1);
  zn_kref leaf = zn_kb_bin(b, ZN_K_Sub, minus, k);
  zn_lw_fail_if(lw, zn_kb_cmp(b, ZN_K_Lt, leaf, zero), 9 /* ZN_RUN_DOMAIN */);
  return zn_kb_bin(b, ZN_K_Max, leaf, zero);
}

static void add_leaf(zn_lw *lw, const trees *t, zn_kref leaf, zn_kref base) {
  zn_kb *b = &lw->kb;
  zn_kref p = zn_lw_ptr_loc(lw, t->acc, ZN_KP_INOUT, t->ct), w = real(lw, t, t->weight, leaf);
  zn_kref at = zn_s_add(lw, base, cell(lw, t->target, leaf)), old = zn_kb_load(b, t->ct, 1, p, at), r;
  if (t->aggregate <= 1) {
    r = zn_kb_bin(b, ZN_K_Add, old, w);
  } else {
    zn_kref h = zn_lw_ptr_loc(lw, t->hits, ZN_KP_INOUT, ZN_I32), one = zn_kb_idx(b, 1), none = zn_kb_idx(b, 0);
    zn_kref first = zn_kb_cmp(b, ZN_K_Eq, zn_s_load(lw, h, at), none);
    zn_kref better = zn_kb_bin(b, t->aggregate == 2 ? ZN_K_Min : ZN_K_Max, w, old);
    r = zn_kb_select(b, first, w, better);
    zn_s_store(lw, h, at, one);
  }
  zn_kb_store(b, p, at, r);
}

static zn_kref sum_value(zn_lw *lw, const trees *t, zn_kref base, zn_expr j) {
  zn_kb *b = &lw->kb;
  zn_kref p = zn_lw_ptr_loc(lw, t->acc, ZN_KP_INOUT, t->ct);
  zn_kref v = zn_kb_load(b, t->ct, 1, p, zn_s_add(lw, base, zn_lw_ix(lw, j)));
  if (t->aggregate) return v;
  zn_kref n = zn_kb_float(b, t->ct, (double)t->roots);
  return zn_kb_bin(b, ZN_K_Div, v, n);
}

static zn_kref exponent(zn_lw *lw, const trees *t, zn_kref v, zn_kref max) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_float(b, t->ct, 0), e = zn_kb_un(b, ZN_K_Exp, zn_kb_bin(b, ZN_K_Sub, v, max));
  if (t->post != 3) return e; /* SOFTMAX_ZERO leaves zeros alone */
  zn_kref some = zn_kb_cmp(b, ZN_K_Ne, v, zero);
  return zn_kb_select(b, some, e, zero);
}

static void write_row(zn_lw *lw, const trees *t, zn_expr row, zn_kref base) {
  zn_kb *b = &lw->kb;
  zn_expr n = zn_ex_const(lw->ex, t->targets);
  zn_kref max = 0, sum = 0;
  if (t->post == 1 || t->post == 3) {
    zn_kref m = zn_kb_var(b, zn_kb_float(b, t->ct, -3e38)), s = zn_kb_var(b, zn_kb_float(b, t->ct, 0));
    zn_expr j = zn_lw_for(lw, n, ZN_FOR_SERIAL, 0);
    zn_kref v = sum_value(lw, t, base, j), old = zn_kb_get(b, m);
    zn_kb_set(b, m, zn_kb_bin(b, ZN_K_Max, old, v));
    zn_lw_end(lw);
    max = zn_kb_get(b, m);
    j = zn_lw_for(lw, n, ZN_FOR_SERIAL, 0);
    v = exponent(lw, t, sum_value(lw, t, base, j), max);
    old = zn_kb_get(b, s);
    zn_kb_set(b, s, zn_kb_bin(b, ZN_K_Add, old, v));
    zn_lw_end(lw);
    sum = zn_kb_get(b, s);
    zn_kref zero = zn_kb_float(b, t->ct, 0), one = zn_kb_float(b, t->ct, 1);
    sum = zn_kb_select(b, zn_kb_cmp(b, ZN_K_Eq, sum, zero), one, sum);
  }
  zn_expr idx[2] = {row, zn_lw_for(lw, n, ZN_FOR_SERIAL, 0)};
  zn_kref v = sum_value(lw, t, base, idx[1]);
  if (t->post == 2) v = zn_kb_un(b, ZN_K_Sigmoid, v);
  if (sum) v = zn_kb_bin(b, ZN_K_Div, exponent(lw, t, v, max), sum);
  zn_lw_store(lw, t->y, idx, v);
  zn_lw_end(lw);
}

static zn_status treeensemble_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  trees t = {.node = n, .x = node->in[0], .y = node->out[0], .t = *zn_lw_type(lw, node->in[0])};
  t.ct = zn_lw_ctype((zn_dtype)t.t.dtype);
  const zn_attr *sp = zn_node_attr(node, "nodes_splits"), *mo = zn_node_attr(node, "nodes_modes");
  const zn_attr *we = zn_node_attr(node, "leaf_weights"), *me = zn_node_attr(node, "membership_values");
  const zn_attr *nt = zn_node_attr(node, "n_targets");
  t.targets = nt ? nt->u.i : 1;
  t.aggregate = zn_node_int(node, "aggregate_function");
  t.post = zn_node_int(node, "post_transform");
  if (!sp || !mo || !we || t.targets < 1 || t.post < 0 || t.post > 3) return invalid(lw, &t, "attributes");
  t.splits = sp->u.t, t.modes = mo->u.t, t.weights = we->u.t, t.members = me ? me->u.t : NULL;
  ZN_TRY(read_nodes(lw, &t));
  t.split = list_float(lw, &t, "tree_split", t.splits);
  t.weight = list_float(lw, &t, "tree_weight", t.weights);
  if (t.has_members) t.member = list_float(lw, &t, "tree_member", t.members);
  zn_expr rows = zn_lw_dim(lw, t.y, 0), cells = zn_ex_muli(ex, rows, t.targets), row;
  t.acc = zn_lw_scratch(lw, zn_ex_muli(ex, cells, zn_dtype_bytes(t.ct)));
  t.hits = zn_s_cells(lw, cells);
  zn_lw_kernel(lw, n, "trees");
  zn_kb *b = &lw->kb;
  zn_lw_grid(lw, 1, &rows, &row);
  zn_kref base = zn_lw_ix(lw, zn_ex_muli(ex, row, t.targets));
  zn_expr j = zn_lw_for(lw, zn_ex_const(ex, t.targets), ZN_FOR_SERIAL, 0);
  zn_kref at = zn_s_add(lw, base, zn_lw_ix(lw, j)), none = zn_kb_idx(b, 0);
  zn_kref p = zn_lw_ptr_loc(lw, t.acc, ZN_KP_INOUT, t.ct);
  zn_kb_store(b, p, at, zn_kb_float(b, t.ct, 0));
  if (t.aggregate > 1) zn_s_store(lw, zn_lw_ptr_loc(lw, t.hits, ZN_KP_INOUT, ZN_I32), at, none);
  zn_lw_end(lw);
  zn_expr r = zn_lw_for(lw, zn_ex_const(ex, t.roots), ZN_FOR_SERIAL, 0);
  zn_kref leaf = find_leaf(lw, &t, row, cell(lw, t.root, zn_lw_ix(lw, r)));
  add_leaf(lw, &t, leaf, base);
  zn_lw_end(lw);
  write_row(lw, &t, row, base);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_ml_treeensemble = {NULL, treeensemble_kernel};
