/* TreeEnsemble. A node is a record of four words (feature, split, what follows when true, when false), numbered so that a
 * walk mostly finds the next one behind it; a child that is a leaf is stored as -1 - leaf. A walk waits for one load after
 * another, so several go side by side: groups of rows through one tree, whose nodes then stay in the nearest cache, or one row
 * through several trees. Leaves are added in the order of the trees either way. */
#include <math.h>
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
  zn_loc record, split, mode, missing, root, target, weight, member, member_at, acc, hits;
  bool has_missing, has_members;
  int64_t features; /* the highest one, plus 1 */
  uint32_t jam;     /* walks side by side */
} trees;

enum { RECORD = 4, MAX_JAM = 8, GROUPS = 4 /* of rows, for each tree that comes into the cache */ };

static zn_loc list_i32(zn_lw *lw, const char *name, const int32_t *v, uint32_t n) {
  return zn_lw_const(lw, name, ZN_I32, n, v);
}

static zn_status invalid(zn_lw *lw, const trees *t, const char *what) {
  return zn_error(lw->ctx, zn_node_where(lw->ctx, zn_lw_node(lw, t->node)), "the trees' %s are not valid", what);
}

/* The lists of the attributes, checked: children as numbers of nodes or -1 - leaf, two for each node. */
typedef struct lists {
  int32_t *next, *feature, *mode, *missing, *root, *target, *member_at;
} lists;

static zn_status read_children(zn_lw *lw, trees *t, const int64_t *const *list, lists *l) {
  for (uint32_t k = 0; k < t->nodes; k++)
    for (int side = 0; side < 2; side++) {
      const int64_t id = list[side][k];
      const bool leaf = list[2 + side][k] != 0;
      if (id < 0 || id >= (leaf ? t->leaves : t->nodes)) return invalid(lw, t, "children");
      l->next[2 * k + (uint32_t)side] = (int32_t)(leaf ? -1 - id : id);
    }
  return ZN_OK;
}

/* Modes, missing values, and where the members of a node begin (mode 6, BRANCH_MEMBER; NaN ends a list). */
static zn_status read_modes(zn_lw *lw, trees *t, lists *l) {
  uint32_t nm;
  const int64_t *missing = zn_node_ints(zn_lw_node(lw, t->node), "nodes_missing_value_tracks_true", &nm);
  const uint64_t members = t->members ? zn_htensor_count(t->members) : 0;
  uint64_t seen = 0;
  for (uint32_t k = 0; k < t->nodes; k++) {
    l->mode[k] = (int32_t)zn_load_i64(t->modes->dtype, t->modes->data, k);
    l->missing[k] = missing && k < nm && missing[k];
    t->has_missing |= l->missing[k] != 0;
    l->member_at[k] = (int32_t)seen;
    if (l->mode[k] != 6) continue;
    t->has_members = true;
    while (seen < members && !isnan(zn_load_f64(t->members->dtype, t->members->data, seen))) seen++;
    if (seen == members) return invalid(lw, t, "member lists");
    seen++;
  }
  return ZN_OK;
}

/* The order in which walks meet the nodes, the true side first; a node that leads back to itself is an error. place[k]: the
 * new number of node k. */
static zn_status number_nodes(zn_lw *lw, const trees *t, const lists *l, int32_t *place) {
  enum { NEW, OPEN, DONE };
  zn_arena *a = &lw->ctx->tmp;
  uint8_t *state = ZN_ARRAY(a, uint8_t, t->nodes + 1), *side = ZN_ARRAY(a, uint8_t, t->nodes + 1);
  int32_t *path = ZN_ARRAY(a, int32_t, t->nodes + 1), count = 0;
  memset(state, NEW, t->nodes + 1);
  memset(side, 0, t->nodes + 1);
  for (uint32_t r = 0; r < t->roots + t->nodes; r++) { /* nodes that no walk meets come last */
    uint32_t depth = 0;
    int32_t k = r < t->roots ? l->root[r] : (int32_t)(r - t->roots);
    if (k < 0 || state[k] == DONE) continue;
    state[k] = OPEN, place[k] = count++, path[depth++] = k;
    while (depth) {
      k = path[depth - 1];
      if (side[k] == 2) {
        state[k] = DONE, depth--;
        continue;
      }
      const int32_t next = l->next[2 * k + side[k]++];
      if (next < 0 || state[next] == DONE) continue;
      if (state[next] == OPEN) return invalid(lw, t, "children (a node leads back to itself)");
      state[next] = OPEN, place[next] = count++, path[depth++] = next;
    }
  }
  return ZN_OK;
}

static int32_t bits_of(const trees *t, uint32_t k) {
  const float f = (float)zn_load_f64(t->splits->dtype, t->splits->data, k);
  int32_t i;
  memcpy(&i, &f, sizeof i);
  return i;
}

/* The tables of constants, nodes in their new order. */
static void write_tables(zn_lw *lw, trees *t, const lists *l, const int32_t *place) {
  zn_arena *a = &lw->ctx->graph;
  int32_t *record = ZN_ARRAY(a, int32_t, RECORD * t->nodes + 1), *mode = ZN_ARRAY(a, int32_t, t->nodes + 1);
  int32_t *missing = ZN_ARRAY(a, int32_t, t->nodes + 1), *members = ZN_ARRAY(a, int32_t, t->nodes + 1);
  void *split = t->ct == ZN_F32 ? NULL : zn_arena_array(a, t->nodes + 1, zn_dtype_bytes(t->ct));
  for (uint32_t k = 0; k < t->nodes; k++) {
    int32_t *to = record + RECORD * place[k];
    to[0] = l->feature[k], to[1] = bits_of(t, k);
    for (int side = 0; side < 2; side++) {
      const int32_t next = l->next[2 * k + (uint32_t)side];
      to[2 + side] = next < 0 ? next : place[next];
    }
    mode[place[k]] = l->mode[k], missing[place[k]] = l->missing[k], members[place[k]] = l->member_at[k];
    if (split) zn_store_f64(t->ct, split, (uint64_t)place[k], zn_load_f64(t->splits->dtype, t->splits->data, k));
  }
  for (uint32_t r = 0; r < t->roots; r++) l->root[r] = l->root[r] < 0 ? l->root[r] : place[l->root[r]];
  t->record = list_i32(lw, "tree_nodes", record, RECORD * t->nodes);
  if (split) t->split = zn_lw_const(lw, "tree_split", t->ct, t->nodes, split);
  t->mode = list_i32(lw, "tree_mode", mode, t->nodes);
  t->missing = list_i32(lw, "tree_missing", missing, t->nodes);
  t->root = list_i32(lw, "tree_root", l->root, t->roots);
  t->target = list_i32(lw, "tree_target", l->target, t->leaves);
  t->member_at = list_i32(lw, "tree_member_at", members, t->nodes);
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
      zn_htensor_count(t->weights) != t->leaves || t->nodes > INT32_MAX / RECORD)
    return invalid(lw, t, "node lists");
  zn_arena *a = &lw->ctx->graph;
  lists l;
  int32_t **const per_node[] = {&l.feature, &l.mode, &l.missing, &l.member_at};
  for (int i = 0; i < 4; i++) *per_node[i] = ZN_ARRAY(a, int32_t, t->nodes + 1);
  l.next = ZN_ARRAY(a, int32_t, 2 * t->nodes + 1);
  l.root = ZN_ARRAY(a, int32_t, t->roots + 1), l.target = ZN_ARRAY(a, int32_t, t->leaves + 1);
  ZN_TRY(read_children(lw, t, list, &l));
  ZN_TRY(read_modes(lw, t, &l));
  int64_t cols = 0;
  const bool known = zn_ex_is_const(lw->ex, t->t.dims[t->t.rank - 1], &cols);
  for (uint32_t k = 0; k < t->nodes; k++) {
    if (list[4][k] < 0 || list[4][k] >= (known ? cols : INT32_MAX)) return invalid(lw, t, "features");
    l.feature[k] = (int32_t)list[4][k];
    if (list[4][k] >= t->features) t->features = list[4][k] + 1;
  }
  for (uint32_t r = 0; r < t->roots; r++) {
    const int64_t k = roots[r];
    if (k < 0 || k >= (t->nodes ? t->nodes : t->leaves)) return invalid(lw, t, "roots");
    const bool single = t->nodes && l.next[2 * k] < 0 && l.next[2 * k] == l.next[2 * k + 1];
    l.root[r] = (int32_t)(!t->nodes ? -1 - k : single ? l.next[2 * k] : k);
  }
  for (uint32_t i = 0; i < t->leaves; i++) {
    if (target[i] < 0 || target[i] >= t->targets) return invalid(lw, t, "targets");
    l.target[i] = (int32_t)target[i];
  }
  int32_t *place = ZN_ARRAY(a, int32_t, t->nodes + 1);
  ZN_TRY(number_nodes(lw, t, &l, place));
  write_tables(lw, t, &l, place);
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
static zn_kref goes_true(zn_lw *lw, const trees *t, zn_kref k, zn_kref s, zn_kref x) {
  static const uint8_t op[] = {ZN_K_Le, ZN_K_Lt, ZN_K_Ge, ZN_K_Gt, ZN_K_Eq, ZN_K_Ne};
  zn_kb *b = &lw->kb;
  zn_kref yes = 0, mode = 0;
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

/* The node behind k on the walk through a row. */
static zn_kref step(zn_lw *lw, const trees *t, zn_expr row, zn_kref k) {
  zn_kb *b = &lw->kb;
  zn_kref p = zn_lw_ptr_loc(lw, t->record, ZN_KP_IN, ZN_I32), words = zn_kb_idx(b, RECORD), at = zn_s_mul(lw, k, words);
  zn_kref feature = zn_s_load(lw, p, at), split;
  if (t->ct == ZN_F32) split = zn_kb_bitcast(b, zn_kb_load(b, ZN_I32, 1, p, zn_s_inc(lw, at)), ZN_F32);
  else split = real(lw, t, t->split, k);
  zn_expr idx[2] = {row, zn_lw_as_expr(lw, feature, t->t.dims[t->t.rank - 1])};
  zn_kref x = zn_lw_load(lw, t->x, t->t.rank == 1 ? idx + 1 : idx);
  zn_kref no = zn_kb_un(b, ZN_K_Not, goes_true(lw, t, k, split, x)), two = zn_kb_idx(b, 2), sides = zn_s_add(lw, at, two);
  zn_kref side = zn_s_add(lw, sides, zn_kb_cvt(b, no, ZN_IDX));
  return zn_s_load(lw, p, side);
}

/* n walks side by side: walk i through row[i] from root[i] on; leaf[i] gets where it ends. */
static void walk(zn_lw *lw, const trees *t, uint32_t n, const zn_expr *row, const zn_kref *root, zn_kref *leaf) {
  zn_kb *b = &lw->kb;
  zn_kref at[MAX_JAM], k[MAX_JAM] = {0}, zero = zn_kb_idx(b, 0), minus = zn_kb_idx(b, -1);
  for (uint32_t i = 0; i < n; i++) at[i] = zn_kb_var(b, root[i]);
  if (t->nodes) {
    zn_kb_loop(b);
    for (uint32_t i = 0; i < n; i++) k[i] = zn_kb_get(b, at[i]);
    zn_kref all = k[0];
    for (uint32_t i = 1; i < n; i++) all = zn_kb_bin(b, ZN_K_And, all, k[i]);
    zn_kb_break(b, zn_kb_cmp(b, ZN_K_Lt, all, zero));
    for (uint32_t i = 0; i < n; i++) {
      zn_kref next = step(lw, t, row[i], n == 1 ? k[i] : zn_kb_bin(b, ZN_K_Max, k[i], zero));
      if (n > 1) next = zn_kb_select(b, zn_kb_cmp(b, ZN_K_Lt, k[i], zero), k[i], next);
      zn_kb_set(b, at[i], next);
    }
    zn_kb_end(b);
  }
  for (uint32_t i = 0; i < n; i++) leaf[i] = zn_kb_bin(b, ZN_K_Sub, minus, zn_kb_get(b, at[i]));
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

/* ---- schedules ---- */

static zn_kref base_of(zn_lw *lw, const trees *t, zn_expr row) { return zn_lw_ix(lw, zn_ex_muli(lw->ex, row, t->targets)); }

static void clear_row(zn_lw *lw, const trees *t, zn_expr row) {
  zn_kb *b = &lw->kb;
  zn_kref base = base_of(lw, t, row);
  zn_expr j = zn_lw_for(lw, zn_ex_const(lw->ex, t->targets), ZN_FOR_SERIAL, 0);
  zn_kref at = zn_s_add(lw, base, zn_lw_ix(lw, j)), none = zn_kb_idx(b, 0);
  zn_kref p = zn_lw_ptr_loc(lw, t->acc, ZN_KP_INOUT, t->ct);
  zn_kb_store(b, p, at, zn_kb_float(b, t->ct, 0));
  if (t->aggregate > 1) zn_s_store(lw, zn_lw_ptr_loc(lw, t->hits, ZN_KP_INOUT, ZN_I32), at, none);
  zn_lw_end(lw);
}

/* Trees first .. first + count of one row, `jam` at a time. */
static void some_trees(zn_lw *lw, const trees *t, zn_expr row, uint32_t first, uint32_t count, uint32_t jam) {
  zn_exprs *ex = lw->ex;
  zn_kref root[MAX_JAM] = {0}, leaf[MAX_JAM];
  zn_expr rows[MAX_JAM] = {0}, r = zn_lw_for(lw, zn_ex_const(ex, count / jam), ZN_FOR_SERIAL, 0);
  for (uint32_t i = 0; i < jam; i++) {
    rows[i] = row;
    root[i] = cell(lw, t->root, zn_lw_ix(lw, zn_ex_addi(ex, zn_ex_muli(ex, r, jam), first + i)));
  }
  walk(lw, t, jam, rows, root, leaf);
  for (uint32_t i = 0; i < jam; i++) add_leaf(lw, t, leaf[i], base_of(lw, t, row));
  zn_lw_end(lw);
}

/* Rows first .. first + rows, one by one. */
static void single_rows(zn_lw *lw, const trees *t, zn_expr first, zn_expr rows) {
  const uint32_t most = t->roots / t->jam * t->jam;
  zn_expr i;
  zn_lw_kernel(lw, t->node, "trees");
  zn_lw_grid(lw, 1, &rows, &i);
  zn_expr row = zn_ex_add(lw->ex, first, i);
  clear_row(lw, t, row);
  if (most) some_trees(lw, t, row, 0, most, t->jam);
  if (most < t->roots) some_trees(lw, t, row, most, t->roots - most, 1);
  write_row(lw, t, row, base_of(lw, t, row));
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* Groups of jam rows: each tree for some of them, then the next tree. */
static void grouped_rows(zn_lw *lw, const trees *t, zn_expr groups) {
  zn_exprs *ex = lw->ex;
  zn_kref root[MAX_JAM] = {0}, leaf[MAX_JAM];
  zn_expr each = zn_ex_const(ex, GROUPS), blocks = zn_ex_ceildiv(ex, groups, each), block, rows[MAX_JAM] = {0};
  zn_lw_kernel(lw, t->node, "trees");
  zn_lw_grid(lw, 1, &blocks, &block);
  zn_expr first = zn_ex_mul(ex, block, each), n = zn_ex_min(ex, each, zn_ex_sub(ex, groups, first));
  zn_expr row0 = zn_ex_muli(ex, first, t->jam), count = zn_ex_muli(ex, n, t->jam);
  clear_row(lw, t, zn_ex_add(ex, row0, zn_lw_for(lw, count, ZN_FOR_SERIAL, 0)));
  zn_lw_end(lw);
  zn_expr r = zn_lw_for(lw, zn_ex_const(ex, t->roots), ZN_FOR_SERIAL, 0);
  zn_kref from = cell(lw, t->root, zn_lw_ix(lw, r));
  zn_expr g = zn_lw_for(lw, n, ZN_FOR_SERIAL, 0), at = zn_ex_add(ex, row0, zn_ex_muli(ex, g, t->jam));
  for (uint32_t i = 0; i < t->jam; i++) root[i] = from, rows[i] = zn_ex_addi(ex, at, i);
  walk(lw, t, t->jam, rows, root, leaf);
  for (uint32_t i = 0; i < t->jam; i++) add_leaf(lw, t, leaf[i], base_of(lw, t, rows[i]));
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_expr row = zn_ex_add(ex, row0, zn_lw_for(lw, count, ZN_FOR_SERIAL, 0));
  write_row(lw, t, row, base_of(lw, t, row));
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
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
  t.weight = list_float(lw, &t, "tree_weight", t.weights);
  if (t.has_members) t.member = list_float(lw, &t, "tree_member", t.members);
  const zn_expr rows = zn_lw_dim(lw, t.y, 0), cells = zn_ex_muli(ex, rows, t.targets);
  t.acc = zn_lw_scratch(lw, zn_ex_muli(ex, cells, zn_dtype_bytes(t.ct)));
  t.hits = zn_s_cells(lw, cells);
  t.jam = lw->caps->simt || t.has_members || lw->opts->opt_level < 1 ? 1 : MAX_JAM;
  if (t.features > 0) zn_lw_require_le(lw, zn_ex_const(ex, t.features), t.t.dims[t.t.rank - 1]);
  const zn_expr jam = zn_ex_const(ex, t.jam), groups = t.jam > 1 ? zn_ex_div(ex, rows, jam) : zn_ex_const(ex, 0);
  const zn_expr done = zn_ex_mul(ex, groups, jam);
  int64_t most = 1;
  if (!zn_ex_is_const(ex, groups, &most) || most > 0) grouped_rows(lw, &t, groups);
  if (!zn_ex_is_const(ex, zn_ex_sub(ex, rows, done), &most) || most > 0) single_rows(lw, &t, done, zn_ex_sub(ex, rows, done));
  return ZN_OK;
}
const zn_lower zn_lower_ml_treeensemble = {NULL, treeensemble_kernel};
