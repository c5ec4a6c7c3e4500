/* ai.onnx.ml: the old tree ensembles become TreeEnsemble plus standard operators. There a leaf has one target, so a tree
 * whose leaves have several is repeated for each of them. Labels follow ONNX Runtime where the specification is silent. */
#include <math.h>

#include "frontends/onnx/upgrade.h"

/* LabelEncoder-1 maps strings to positions, or positions to strings. */
void zn_up_labelencoder(zn_unode *u) {
  const zn_attr *a = zn_u_attr(u, "classes_strings");
  if (!a || a->kind != ZN_A_STRINGS || !zn_u_in(u, 0)) return;
  zn_attr classes = *a;
  int64_t *pos = ZN_ARRAY(u->s->I->pa, int64_t, classes.n);
  for (uint32_t i = 0; i < classes.n; i++) pos[i] = i;
  zn_dtype t = (zn_dtype)zn_u_type(u, u->in[0])->dtype;
  if (t == ZN_NONE) {
    zn_imp_problem(u->s->I, zn_unode_where(u), true, "export with ai.onnx.ml opset 2 or later",
                   "LabelEncoder of version 1 on an input whose type is not known here");
    return;
  }
  zn_u_del(u, "classes_strings");
  classes.name = t == ZN_STR ? "keys_strings" : "values_strings";
  ZN_PUSH(u->s->I->pa, u->attrs, u->num_attrs, u->cap_attrs, classes);
  zn_u_set_ints(u, t == ZN_STR ? "values_int64s" : "keys_int64s", pos, classes.n);
}

/* ---- reading the old form ---- */

typedef struct tree_node {
  int64_t tree, feature;
  uint32_t yes, no;      /* children; UINT32_MAX for a leaf */
  uint32_t first, count; /* its weights */
  double split;
  uint8_t mode;
  bool missing, child;
  uint32_t visit; /* last copy that reached it: a second time is a cycle or a shared child */
} tree_node;

typedef struct weight {
  uint32_t node, target;
  double w;
} weight;

typedef struct forest {
  zn_unode *u;
  zn_arena *a;
  tree_node *nodes;
  uint32_t num_nodes;
  weight *weights; /* sorted by node */
  uint32_t num_weights, num_targets, num_trees;
  zn_dtype dtype; /* of splits and weights */
  bool missing;
  double nothing; /* weight of a leaf for a target that it has no weight for */
  /* the new form */
  int64_t *featureids, *trueids, *falseids, *trueleafs, *falseleafs, *missings, *roots, *leaf_targets;
  double *splits, *leaf_weights;
  uint8_t *modes;
  uint32_t ni, nl, nr, cap_nodes, cap_leaves, cap_roots;
} forest;

static void wrong(zn_unode *u, const char *what) {
  zn_imp_problem(u->s->I, zn_unode_where(u), false, NULL, "%s: %s", u->op, what);
}

static const int64_t *ints(zn_unode *u, const char *name, uint32_t *n) {
  const zn_attr *a = zn_u_attr(u, name);
  *n = a && a->kind == ZN_A_INTS ? a->n : 0;
  return *n ? a->u.is : NULL;
}

/* A list of floats, or the tensor that replaced it. */
static const double *reals(forest *f, const char *name, uint32_t *n) {
  char tensor[64];
  snprintf(tensor, sizeof tensor, "%s_as_tensor", name);
  const zn_attr *a = zn_u_attr(f->u, name), *t = zn_u_attr(f->u, tensor);
  *n = 0;
  if (t && t->kind == ZN_A_TENSOR && zn_is_float(t->u.t->dtype)) {
    if (t->u.t->dtype == ZN_F64) f->dtype = ZN_F64;
    *n = (uint32_t)zn_htensor_count(t->u.t);
    double *v = ZN_ARRAY(f->a, double, *n);
    for (uint32_t i = 0; i < *n; i++) v[i] = zn_load_f64(t->u.t->dtype, t->u.t->data, i);
    return v;
  }
  if (!a || a->kind != ZN_A_FLOATS) return NULL;
  *n = a->n;
  return a->u.fs;
}

static int branch_mode(const char *s) {
  static const char *const modes[] = {"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT",
                                      "BRANCH_EQ",  "BRANCH_NEQ", "LEAF"};
  for (int i = 0; i < 7; i++)
    if (!strcmp(s, modes[i])) return i;
  return -1;
}

static char *node_key(forest *f, int64_t tree, int64_t id) {
  return zn_arena_printf(f->a, "%lld:%lld", (long long)tree, (long long)id);
}

static bool read_nodes(forest *f, zn_nmap *ids) {
  zn_unode *u = f->u;
  uint32_t n, m[6];
  const int64_t *tree = ints(u, "nodes_treeids", &n), *id = ints(u, "nodes_nodeids", &m[0]);
  const int64_t *feature = ints(u, "nodes_featureids", &m[1]), *yes = ints(u, "nodes_truenodeids", &m[2]);
  const int64_t *no = ints(u, "nodes_falsenodeids", &m[3]), *miss = ints(u, "nodes_missing_value_tracks_true", &m[4]);
  const double *split = reals(f, "nodes_values", &m[5]);
  const zn_attr *modes = zn_u_attr(u, "nodes_modes");
  bool same = n && m[0] == n && m[1] == n && m[2] == n && m[3] == n && m[5] == n && modes &&
              modes->kind == ZN_A_STRINGS && modes->n == n && (m[4] == 0 || m[4] == n);
  if (!same) {
    wrong(u, "the nodes_* attributes must have equal, nonzero lengths");
    return false;
  }
  f->nodes = ZN_ARRAY(f->a, tree_node, n);
  f->num_nodes = n;
  for (uint32_t i = 0; i < n; i++) {
    int mode = branch_mode(modes->u.ss[i].ptr);
    bool fresh = zn_nmap_put(ids, node_key(f, tree[i], id[i]), i);
    if (mode < 0 || !fresh || (mode < 6 && feature[i] < 0)) {
      wrong(u, "a node with an unknown mode, a repeated id or a negative feature");
      return false;
    }
    f->nodes[i] = (tree_node){.tree = tree[i], .feature = feature[i], .split = split[i], .mode = (uint8_t)mode};
    f->nodes[i].missing = miss && miss[i];
    f->missing = f->missing || f->nodes[i].missing;
    f->nodes[i].yes = f->nodes[i].no = UINT32_MAX;
  }
  for (uint32_t i = 0; i < n; i++) {
    if (f->nodes[i].mode == 6) continue;
    if (!zn_nmap_get(ids, node_key(f, tree[i], yes[i]), &f->nodes[i].yes) ||
        !zn_nmap_get(ids, node_key(f, tree[i], no[i]), &f->nodes[i].no)) {
      wrong(u, "a branch to a node that does not exist");
      return false;
    }
    f->nodes[f->nodes[i].yes].child = f->nodes[f->nodes[i].no].child = true;
  }
  return true;
}

static bool read_weights(forest *f, zn_nmap *ids, const char *kind) {
  zn_unode *u = f->u;
  char name[4][40];
  static const char *const suffix[] = {"treeids", "nodeids", "ids", "weights"};
  for (int i = 0; i < 4; i++) snprintf(name[i], sizeof name[i], "%s_%s", kind, suffix[i]);
  uint32_t n, m[3];
  const int64_t *tree = ints(u, name[0], &n), *node = ints(u, name[1], &m[0]), *id = ints(u, name[2], &m[1]);
  const double *w = reals(f, name[3], &m[2]);
  if (n == 0 || m[0] != n || m[1] != n || m[2] != n) {
    wrong(u, "the leaf attributes must have equal, nonzero lengths");
    return false;
  }
  f->weights = ZN_ARRAY(f->a, weight, n);
  f->num_weights = n;
  uint32_t *of = ZN_ARRAY(f->a, uint32_t, n), at = 0;
  for (uint32_t i = 0; i < n; i++) {
    if (!zn_nmap_get(ids, node_key(f, tree[i], node[i]), &of[i]) || id[i] < 0 || id[i] >= f->num_targets) {
      wrong(u, "a weight of a node or target that does not exist");
      return false;
    }
    f->nodes[of[i]].count++;
  }
  for (uint32_t i = 0; i < f->num_nodes; i++) {
    f->nodes[i].first = at;
    at += f->nodes[i].count;
    f->nodes[i].count = 0;
  }
  for (uint32_t i = 0; i < n; i++) {
    tree_node *t = &f->nodes[of[i]];
    f->weights[t->first + t->count++] = (weight){of[i], (uint32_t)id[i], w[i]};
  }
  return true;
}

/* ---- writing the new form ---- */

static uint32_t add_leaf(forest *f, const tree_node *t, uint32_t target) {
  double w = 0;
  bool has = false;
  for (uint32_t i = 0; i < t->count; i++)
    if (f->weights[t->first + i].target == target) w += f->weights[t->first + i].w, has = true;
  if (!has) w = f->nothing;
  if (f->nl == f->cap_leaves) {
    uint32_t cap = f->cap_leaves ? f->cap_leaves * 2 : 256;
    f->leaf_targets = zn_arena_grow(f->a, f->leaf_targets, f->nl * sizeof *f->leaf_targets, cap * sizeof *f->leaf_targets);
    f->leaf_weights = zn_arena_grow(f->a, f->leaf_weights, f->nl * sizeof *f->leaf_weights, cap * sizeof *f->leaf_weights);
    f->cap_leaves = cap;
  }
  f->leaf_targets[f->nl] = target;
  f->leaf_weights[f->nl] = w;
  return f->nl++;
}

#define GROW(field) f->field = zn_arena_grow(f->a, f->field, f->ni * sizeof *f->field, cap * sizeof *f->field)
static uint32_t add_branch(forest *f, const tree_node *t) {
  if (f->ni == f->cap_nodes) {
    uint32_t cap = f->cap_nodes ? f->cap_nodes * 2 : 256;
    GROW(featureids), GROW(trueids), GROW(falseids), GROW(trueleafs), GROW(falseleafs), GROW(missings);
    GROW(splits), GROW(modes);
    f->cap_nodes = cap;
  }
  bool leaf = t->mode == 6;
  f->featureids[f->ni] = leaf ? 0 : t->feature;
  f->splits[f->ni] = leaf ? 0 : t->split;
  f->modes[f->ni] = leaf ? 0 : t->mode;
  f->missings[f->ni] = t->missing;
  return f->ni++;
}
#undef GROW

typedef struct pending {
  uint32_t node, slot; /* subtree whose number goes into slot's yes or no */
  bool yes;
} pending;

/* One copy of the tree at `root` for one target; false on a cycle. */
static bool copy_tree(forest *f, uint32_t root, uint32_t target, uint32_t serial, pending *stack) {
  uint32_t top = 0, at = add_branch(f, &f->nodes[root]);
  ZN_PUSH(f->a, f->roots, f->nr, f->cap_roots, at);
  if (f->nodes[root].mode == 6) { /* a tree of one leaf */
    f->trueids[at] = f->falseids[at] = add_leaf(f, &f->nodes[root], target);
    f->trueleafs[at] = f->falseleafs[at] = 1;
    return true;
  }
  f->nodes[root].visit = serial;
  stack[top++] = (pending){f->nodes[root].no, at, false};
  stack[top++] = (pending){f->nodes[root].yes, at, true};
  while (top) {
    pending p = stack[--top];
    tree_node *t = &f->nodes[p.node];
    if (t->visit == serial) return false;
    t->visit = serial;
    bool leaf = t->mode == 6;
    uint32_t id = leaf ? add_leaf(f, t, target) : add_branch(f, t);
    (p.yes ? f->trueids : f->falseids)[p.slot] = id;
    (p.yes ? f->trueleafs : f->falseleafs)[p.slot] = leaf;
    if (leaf) continue;
    stack[top++] = (pending){t->no, id, false};
    stack[top++] = (pending){t->yes, id, true};
  }
  return true;
}

static bool convert(forest *f) {
  uint32_t serial = 0;
  pending *stack = ZN_ARRAY(f->a, pending, (size_t)f->num_nodes + 2);
  bool *has = ZN_ARRAY(f->a, bool, f->num_targets);
  for (uint32_t i = 0; i < f->num_nodes;) { /* nodes of a tree stand together */
    uint32_t end = i, root = UINT32_MAX, roots = 0, copies = 0;
    memset(has, 0, f->num_targets * sizeof *has);
    for (; end < f->num_nodes && f->nodes[end].tree == f->nodes[i].tree; end++) {
      const tree_node *t = &f->nodes[end];
      if (!t->child) root = end, roots++;
      for (uint32_t k = 0; k < t->count; k++) has[f->weights[t->first + k].target] = true;
    }
    if (roots != 1) {
      wrong(f->u, "a tree without exactly one root");
      return false;
    }
    f->num_trees++;
    for (uint32_t t = 0; t < f->num_targets; t++) {
      if (!has[t] && !(t + 1 == f->num_targets && !copies && f->nr == 0)) continue;
      copies++;
      if ((uint64_t)f->ni + f->nl + (end - i) > (uint64_t)16 * f->num_nodes + 4000000) {
        zn_imp_problem(f->u->s->I, zn_unode_where(f->u), true, NULL, "%s with too many targets per leaf", f->u->op);
        return false;
      }
      if (!copy_tree(f, root, t, ++serial, stack)) {
        wrong(f->u, "a node reached twice");
        return false;
      }
    }
    i = end;
  }
  return true;
}

static void set_tensor(zn_unode *u, zn_nid n, const char *name, zn_dtype t, const double *v, const uint8_t *b, uint32_t k) {
  int64_t dims[1] = {k};
  zn_htensor *h = ZN_NEW(u->s->I->ga, zn_htensor);
  *h = zn_htensor_new(u->s->I->ga, t, 1, dims);
  for (uint32_t i = 0; i < k; i++) zn_store_f64(t, h->data, i, v ? v[i] : b[i]);
  zn_node_set_attr(u->s->g, n, (zn_attr){.name = name, .kind = ZN_A_TENSOR, .n = 1, .u.t = h});
}

static zn_vid cast(zn_unode *u, zn_vid v, zn_dtype t) {
  zn_nid n = zn_u_node(u, ZN_OP_Cast, &v, 1);
  zn_node_set_int(u->s->g, n, "to", zn_dtypes[t].onnx);
  return zn_node_out(u->s->g, n, 0);
}

/* Sums of the leaves: f32 or f64 [N, targets]. */
static zn_vid emit_sums(forest *f, int64_t aggregate) {
  zn_unode *u = f->u;
  zn_graph *g = u->s->g;
  zn_vid x = u->in[0];
  if (zn_u_type(u, x)->dtype != f->dtype) x = cast(u, x, f->dtype);
  zn_nid n = zn_u_node(u, ZN_OP_TreeEnsemble, &x, 1);
  zn_node_set_int(g, n, "aggregate_function", aggregate);
  zn_node_set_int(g, n, "n_targets", f->num_targets);
  zn_node_set_ints(g, n, "tree_roots", f->roots, f->nr);
  zn_node_set_ints(g, n, "nodes_featureids", f->featureids, f->ni);
  zn_node_set_ints(g, n, "nodes_truenodeids", f->trueids, f->ni);
  zn_node_set_ints(g, n, "nodes_falsenodeids", f->falseids, f->ni);
  zn_node_set_ints(g, n, "nodes_trueleafs", f->trueleafs, f->ni);
  zn_node_set_ints(g, n, "nodes_falseleafs", f->falseleafs, f->ni);
  if (f->missing) zn_node_set_ints(g, n, "nodes_missing_value_tracks_true", f->missings, f->ni);
  zn_node_set_ints(g, n, "leaf_targetids", f->leaf_targets, f->nl);
  set_tensor(u, n, "nodes_splits", f->dtype, f->splits, NULL, f->ni);
  set_tensor(u, n, "nodes_modes", ZN_U8, NULL, f->modes, f->ni);
  set_tensor(u, n, "leaf_weights", f->dtype, f->leaf_weights, NULL, f->nl);
  return zn_node_out(g, n, 0);
}

static zn_vid row(zn_unode *u, zn_dtype t, const double *v, uint32_t n) {
  int64_t dims[1] = {n};
  zn_htensor *h = ZN_NEW(u->s->I->ga, zn_htensor);
  *h = zn_htensor_new(u->s->I->ga, t, 1, dims);
  for (uint32_t i = 0; i < n; i++) zn_store_f64(t, h->data, i, v[i]);
  return zn_graph_const(u->s->g, NULL, h);
}

/* Scores of rows [N, n] after post_transform. */
static zn_vid post(forest *f, zn_vid s, const char *how) {
  zn_unode *u = f->u;
  if (!strcmp(how, "LOGISTIC")) return zn_u_op1(u, ZN_OP_Sigmoid, s);
  if (!strcmp(how, "SOFTMAX")) return zn_u_op1(u, ZN_OP_Softmax, s);
  if (!strcmp(how, "SOFTMAX_ZERO")) { /* scores of (nearly) zero stay zero */
    zn_vid axis = zn_u_i64(u, -1), max = zn_u_op2(u, ZN_OP_ReduceMax, s, axis);
    double eps = 1e-7f, zero = 0;
    zn_vid tiny = row(u, f->dtype, &eps, 1), some = zn_u_op2(u, ZN_OP_Greater, zn_u_op1(u, ZN_OP_Abs, s), tiny);
    zn_vid in[3] = {some, zn_u_op1(u, ZN_OP_Exp, zn_u_op2(u, ZN_OP_Sub, s, max)), row(u, f->dtype, &zero, 1)};
    zn_vid e = zn_u_op(u, ZN_OP_Where, in, 3);
    return zn_u_op2(u, ZN_OP_Div, e, zn_u_op2(u, ZN_OP_ReduceSum, e, axis));
  }
  if (strcmp(how, "NONE") != 0)
    zn_imp_problem(u->s->I, zn_unode_where(u), true, NULL, "post_transform '%s' of tree ensembles", how);
  return s;
}

static bool prepare(forest *f, zn_unode *u, const char *kind, int64_t targets) {
  f->u = u;
  f->a = u->s->I->pa;
  f->dtype = ZN_F32;
  zn_nmap ids = {.a = f->a};
  if (targets < 1 || targets > 1000000 || !zn_u_in(u, 0)) {
    wrong(u, "no input, targets or classes");
    return false;
  }
  f->num_targets = (uint32_t)targets;
  return read_nodes(f, &ids) && read_weights(f, &ids, kind) && convert(f);
}

static void give_up(zn_unode *u) {
  u->num_out = 0;
  u->done = true;
}

void zn_up_treeregressor(zn_unode *u) {
  forest f = {0};
  static const char *const names[] = {"AVERAGE", "SUM", "MIN", "MAX"};
  const zn_attr *targets = zn_u_attr(u, "n_targets");
  const char *how = zn_u_str(u, "aggregate_function", "SUM");
  int64_t aggregate = -1;
  for (int i = 0; i < 4; i++)
    if (!strcmp(how, names[i])) aggregate = i;
  if (aggregate > 1) f.nothing = aggregate == 2 ? INFINITY : -INFINITY; /* changes no minimum, no maximum */
  if (!prepare(&f, u, "target", targets && targets->kind == ZN_A_INT ? targets->u.i : 1)) {
    give_up(u);
    return;
  }
  if (aggregate < 0) zn_imp_problem(u->s->I, zn_unode_where(u), true, NULL, "aggregate_function '%s' of tree ensembles", how);
  zn_vid s = emit_sums(&f, aggregate == 0 ? 1 : aggregate);
  if (aggregate > 1) { /* targets that no tree reached are 0 */
    const double zero = 0;
    const zn_vid in[3] = {zn_u_op1(u, ZN_OP_IsInf, s), row(u, f.dtype, &zero, 1), s};
    s = zn_u_op(u, ZN_OP_Where, in, 3);
  }
  if (aggregate == 0) {
    double part = 1.0 / f.num_trees;
    s = zn_u_op2(u, ZN_OP_Mul, s, row(u, f.dtype, &part, 1));
  }
  uint32_t nb;
  const double *base = reals(&f, "base_values", &nb);
  if (nb == f.num_targets) s = zn_u_op2(u, ZN_OP_Add, s, row(u, f.dtype, base, nb));
  else if (nb) wrong(u, "base_values needs one value per target");
  s = post(&f, s, zn_u_str(u, "post_transform", "NONE"));
  zn_unode_bind(u, 0, f.dtype == ZN_F32 ? s : cast(u, s, ZN_F32));
  u->done = true;
}

/* ---- classifier ---- */

static zn_vid labels(zn_unode *u, uint32_t *n) {
  const zn_attr *i = zn_u_attr(u, "classlabels_int64s"), *s = zn_u_attr(u, "classlabels_strings");
  int64_t dims[1];
  zn_htensor *h = ZN_NEW(u->s->I->ga, zn_htensor);
  bool strings = s && s->kind == ZN_A_STRINGS && s->n;
  *n = strings ? s->n : i && i->kind == ZN_A_INTS ? i->n : 0;
  if (!*n) return 0;
  dims[0] = *n;
  *h = zn_htensor_new(u->s->I->ga, strings ? ZN_STR : ZN_I64, 1, dims);
  for (uint32_t k = 0; k < *n; k++) {
    if (strings) ((zn_str *)h->data)[k] = s->u.ss[k];
    else zn_store_i64(ZN_I64, h->data, k, i->u.is[k]);
  }
  return zn_graph_const(u->s->g, NULL, h);
}

static zn_vid concat_columns(zn_unode *u, zn_vid a, zn_vid b) {
  zn_vid in[2] = {a, b};
  zn_nid n = zn_u_node(u, ZN_OP_Concat, in, 2);
  zn_node_set_int(u->s->g, n, "axis", 1);
  return zn_node_out(u->s->g, n, 0);
}

/* Two classes, weights for one: its score s decides alone. Weights that are all positive are probabilities: scores
 * [1-s, s], label by s > 0.5. Otherwise [-s, s], label by s > 0. *out_index: [N, 1]. */
static zn_vid binary_scores(forest *f, zn_vid s, const char *how, zn_vid *out_index) {
  zn_unode *u = f->u;
  bool positive = true;
  for (uint32_t i = 0; i < f->num_weights; i++) positive = positive && f->weights[i].w >= 0;
  double half = positive ? 0.5 : 0, one = 1;
  *out_index = cast(u, zn_u_op2(u, ZN_OP_Greater, s, row(u, f->dtype, &half, 1)), ZN_I64);
  if (positive) return concat_columns(u, zn_u_op2(u, ZN_OP_Sub, row(u, f->dtype, &one, 1), s), s);
  zn_vid both = concat_columns(u, zn_u_op1(u, ZN_OP_Neg, s), s);
  return strcmp(how, "LOGISTIC") ? both : post(f, both, how);
}

void zn_up_treeclassifier(zn_unode *u) {
  forest f = {0};
  uint32_t n, nb;
  zn_vid names = labels(u, &n), index;
  if (!names || !prepare(&f, u, "class", n)) {
    if (!names) wrong(u, "no class labels");
    give_up(u);
    return;
  }
  uint32_t only = f.weights[0].target;
  bool single = n == 2;
  for (uint32_t i = 0; i < f.num_weights; i++) single = single && f.weights[i].target == only;
  const char *how = zn_u_str(u, "post_transform", "NONE");
  const double *base = reals(&f, "base_values", &nb);
  if (single) { /* one column */
    f.num_targets = 1;
    for (uint32_t i = 0; i < f.nl; i++) f.leaf_targets[i] = 0;
  }
  zn_vid s = emit_sums(&f, 1), z;
  if (nb == n || (nb == 1 && single))
    s = zn_u_op2(u, ZN_OP_Add, s, row(u, f.dtype, base + (single ? nb - 1 : 0), single ? 1 : n));
  else if (nb) wrong(u, "base_values needs one value per class");
  if (single) {
    z = binary_scores(&f, s, how, &index);
    index = zn_u_op2(u, ZN_OP_Squeeze, index, zn_u_i64(u, 1));
  } else {
    zn_nid arg = zn_u_node(u, ZN_OP_ArgMax, &s, 1);
    zn_node_set_int(u->s->g, arg, "axis", 1);
    zn_node_set_int(u->s->g, arg, "keepdims", 0);
    index = zn_node_out(u->s->g, arg, 0);
    z = post(&f, s, how);
  }
  zn_unode_bind(u, 0, zn_u_op2(u, ZN_OP_Gather, names, index));
  zn_unode_bind(u, 1, f.dtype == ZN_F32 ? z : cast(u, z, ZN_F32));
  u->done = true;
}
