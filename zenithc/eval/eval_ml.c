/* ai.onnx.ml: feature preparation, label maps and tree ensembles. */
#include "zenithc/eval/eval_impl.h"

static const zn_attr *ml_attr(const zn_ev *e, const char *name) {
  const zn_attr *a = zn_node_attr(e->n, name);
  return a && a->n ? a : NULL;
}

/* Rows and columns of a rank-1 or rank-2 input (rank 1: one row). */
static void rows_cols(const zn_eval_val *x, int64_t *rows, int64_t *cols) {
  *cols = x->rank ? x->dims[x->rank - 1] : 1;
  *rows = x->rank > 1 ? (int64_t)zn_ev_count(x->rank - 1, x->dims) : 1;
}

zn_status zn_eval_ml_arrayfeatureextractor(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *y = e->in[1];
  if (x->rank == 0) return zn_ev_fail(e, "X is a scalar");
  int64_t n = x->dims[x->rank - 1], dims[ZN_MAX_RANK];
  uint64_t rows = n ? x->count / (uint64_t)n : 0;
  memcpy(dims, x->dims, sizeof dims);
  dims[x->rank - 1] = (int64_t)y->count;
  int64_t two[2] = {1, (int64_t)y->count};
  ZN_TRY(
      zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank == 1 ? 2 : x->rank, x->rank == 1 ? two : dims));
  for (uint64_t k = 0; k < y->count; k++)
    if (y->u.i[k] < 0 || y->u.i[k] >= n)
      return zn_ev_fail(e, "index %lld is outside %lld", (long long)y->u.i[k], (long long)n);
  for (uint64_t r = 0; r < rows; r++)
    for (uint64_t k = 0; k < y->count; k++)
      zn_ev_copy1(e->out[0].u.p, r * y->count + k, x->u.p, r * (uint64_t)n + (uint64_t)y->u.i[k],
                  zn_ev_esize((zn_dtype)x->dtype));
  return ZN_OK;
}

zn_status zn_eval_ml_binarizer(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  double t = zn_node_float(e->n, "threshold");
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  for (uint64_t k = 0; k < x->count; k++) zn_ev_set(&e->out[0], k, zn_ev_get(x, k) > t);
  return ZN_OK;
}

zn_status zn_eval_ml_castmap(zn_ev *e) {
  const zn_eval_val *m = e->in[0], *keys = &m->u.items[0], *vals = &m->u.items[1];
  const char *to = zn_node_str(e->n, "cast_to");
  bool sparse = strcmp(zn_node_str(e->n, "map_form"), "SPARSE") == 0;
  zn_dtype t = strcmp(to, "TO_STRING") == 0  ? ZN_STR
               : strcmp(to, "TO_INT64") == 0 ? ZN_I64
                                             : ZN_F32;
  int64_t dims[2] = {1, sparse ? zn_node_int(e->n, "max_map") : (int64_t)keys->count};
  ZN_TRY(zn_ev_out(e, 0, t, 2, dims));
  for (uint64_t k = 0; t == ZN_STR && k < e->out[0].count; k++)
    e->out[0].u.s[k] = zn_ev_str(e, "", 0);
  uint64_t *order = ZN_ARRAY(e->tmp, uint64_t, keys->count + 1); /* by key */
  for (uint64_t k = 0; k < keys->count; k++) {
    uint64_t j = k;
    for (; j > 0 && keys->u.i[order[j - 1]] > keys->u.i[k]; j--) order[j] = order[j - 1];
    order[j] = k;
  }
  for (uint64_t k = 0; k < keys->count; k++) {
    int64_t at = sparse ? keys->u.i[order[k]] : (int64_t)k;
    if (at >= 0 && at < dims[1])
      ZN_TRY(zn_ev_cast1(e, &e->out[0], (uint64_t)at, vals, order[k], true, "up"));
  }
  return ZN_OK;
}

static bool str_is(const zn_str *a, const zn_str *b) { return zn_ev_strcmp(a, b) == 0; }

zn_status zn_eval_ml_categorymapper(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  const zn_attr *ints = ml_attr(e, "cats_int64s"), *strs = ml_attr(e, "cats_strings");
  if (!ints || !strs || ints->n != strs->n)
    return zn_ev_fail(e, "cats_int64s and cats_strings differ in length");
  bool from_str = x->dtype == ZN_STR;
  const char *def = zn_node_str(e->n, "default_string");
  ZN_TRY(zn_ev_out(e, 0, from_str ? ZN_I64 : ZN_STR, x->rank, x->dims));
  for (uint64_t k = 0; k < x->count; k++) {
    uint32_t j = 0;
    while (j < ints->n &&
           !(from_str ? str_is(&x->u.s[k], &strs->u.ss[j]) : x->u.i[k] == ints->u.is[j]))
      j++;
    if (from_str)
      e->out[0].u.i[k] = j < ints->n ? ints->u.is[j] : zn_node_int(e->n, "default_int64");
    else e->out[0].u.s[k] = j < ints->n ? strs->u.ss[j] : zn_ev_str(e, def, strlen(def));
  }
  return ZN_OK;
}

zn_status zn_eval_ml_dictvectorizer(zn_ev *e) {
  const zn_eval_val *m = e->in[0], *keys = &m->u.items[0], *vals = &m->u.items[1];
  const zn_attr *ints = ml_attr(e, "int64_vocabulary"), *strs = ml_attr(e, "string_vocabulary"),
                *voc = ints ? ints : strs;
  if (!voc || (keys->dtype == ZN_STR) != (voc == strs))
    return zn_ev_fail(e, "the vocabulary does not fit the map's keys");
  int64_t dims[2] = {1, voc->n};
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)vals->dtype, 2, dims));
  for (uint32_t j = 0; j < voc->n; j++) {
    if (vals->dtype == ZN_STR) e->out[0].u.s[j] = zn_ev_str(e, "", 0);
    for (uint64_t k = 0; k < keys->count; k++)
      if (strs && voc == strs ? str_is(&keys->u.s[k], &strs->u.ss[j])
                              : keys->u.i[k] == ints->u.is[j])
        zn_ev_copy1(e->out[0].u.p, j, vals->u.p, k, zn_ev_esize((zn_dtype)vals->dtype));
  }
  return ZN_OK;
}

zn_status zn_eval_ml_featurevectorizer(zn_ev *e) {
  uint32_t nd;
  const int64_t *want = zn_node_ints(e->n, "inputdimensions", &nd);
  int64_t rows = 0, total = 0, r, c;
  for (uint32_t i = 0; i < e->num_in; i++) {
    rows_cols(e->in[i], &r, &c);
    if (i && r != rows) return zn_ev_fail(e, "the inputs differ in rows");
    rows = r;
    total += i < nd ? want[i] : c;
  }
  int64_t dims[2] = {rows, total}, at = 0;
  ZN_TRY(zn_ev_out(e, 0, ZN_F32, 2, dims));
  for (uint32_t i = 0; i < e->num_in; i++) {
    rows_cols(e->in[i], &r, &c);
    int64_t w = i < nd ? want[i] : c;
    for (int64_t k = 0; k < rows; k++)
      for (int64_t j = 0; j < w && j < c; j++)
        e->out[0].u.f[k * total + at + j] = zn_ev_get(e->in[i], (uint64_t)(k * c + j));
    at += w;
  }
  return ZN_OK;
}

zn_status zn_eval_ml_imputer(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  bool f = zn_is_float((zn_dtype)x->dtype);
  const zn_attr *v = ml_attr(e, f ? "imputed_value_floats" : "imputed_value_int64s");
  if (!v) return zn_ev_fail(e, "the imputed values are missing");
  double old = f ? zn_node_float(e->n, "replaced_value_float")
                 : (double)zn_node_int(e->n, "replaced_value_int64");
  int64_t rows, cols;
  rows_cols(x, &rows, &cols);
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  for (uint64_t k = 0; k < x->count; k++) {
    uint32_t j = v->n == 1 ? 0 : (uint32_t)(k % (uint64_t)cols) % v->n;
    if (f) {
      double y = x->u.f[k];
      e->out[0].u.f[k] = (isnan(old) ? isnan(y) : y == old) ? v->u.fs[j] : y;
    } else {
      e->out[0].u.i[k] = (double)x->u.i[k] == old ? v->u.is[j] : x->u.i[k];
    }
  }
  return ZN_OK;
}

/* Keys or values of a LabelEncoder as one tensor in tmp. */
static bool label_list(zn_ev *e, const char *stem, zn_eval_val *out) {
  static const char *const suffix[] = {"floats", "int64s", "strings", "tensor"};
  for (int s = 0; s < 4; s++) {
    char name[40];
    snprintf(name, sizeof name, "%s_%s", stem, suffix[s]);
    const zn_attr *a = s == 3 ? zn_node_attr(e->n, name) : ml_attr(e, name);
    if (!a) continue;
    if (s == 3) {
      *out = zn_eval_from_htensor(e->tmp, a->u.t);
      return true;
    }
    *out = (zn_eval_val){.set = true,
                         .dtype = s == 0   ? ZN_F32
                                  : s == 1 ? ZN_I64
                                           : ZN_STR,
                         .rank = 1,
                         .count = a->n};
    if (s == 2) {
      out->u.p = ZN_ARRAY(e->tmp, zn_str, a->n);
      memcpy(out->u.p, a->u.ss, a->n * sizeof(zn_str));
    } else {
      out->u.p = ZN_ARRAY(e->tmp, double, a->n);
      memcpy(out->u.p, a->u.is, a->n * sizeof(int64_t));
    }
    return true;
  }
  return false;
}

static bool same_label(const zn_eval_val *a, uint64_t i, const zn_eval_val *b, uint64_t j) {
  if (a->dtype == ZN_STR || b->dtype == ZN_STR)
    return a->dtype == b->dtype && str_is(&a->u.s[i], &b->u.s[j]);
  double x = zn_ev_get(a, i), y = zn_ev_get(b, j);
  return (isnan(x) && isnan(y)) || x == y;
}

zn_status zn_eval_ml_labelencoder(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  zn_eval_val keys, vals, def = {0};
  if (!label_list(e, "keys", &keys) || !label_list(e, "values", &vals) || keys.count != vals.count)
    return zn_ev_fail(e, "keys and values differ in length");
  const zn_attr *dt = zn_node_attr(e->n, "default_tensor");
  const char *ds = zn_node_str(e->n, "default_string");
  zn_str str = {ds, strlen(ds)};
  double df = zn_node_float(e->n, "default_float");
  int64_t di = zn_node_int(e->n, "default_int64");
  if (dt) def = zn_eval_from_htensor(e->tmp, dt->u.t);
  else if (vals.dtype == ZN_STR) def.u.s = &str;
  else if (zn_is_float((zn_dtype)vals.dtype)) def.u.f = &df;
  else def.u.i = &di;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)vals.dtype, x->rank, x->dims));
  size_t es = zn_ev_esize((zn_dtype)vals.dtype);
  for (uint64_t k = 0; k < x->count; k++) {
    uint64_t j = keys.count; /* the last of equal keys counts */
    while (j > 0 && !same_label(&keys, j - 1, x, k)) j--;
    if (j) zn_ev_copy1(e->out[0].u.p, k, vals.u.p, j - 1, es);
    else zn_ev_copy1(e->out[0].u.p, k, def.u.p, 0, es);
  }
  return ZN_OK;
}

zn_status zn_eval_ml_normalizer(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  const char *norm = zn_node_str(e->n, "norm");
  int64_t rows, cols;
  rows_cols(x, &rows, &cols);
  ZN_TRY(zn_ev_out(e, 0, ZN_F32, x->rank, x->dims));
  double *t = ZN_ARRAY(e->tmp, double, cols + 1);
  for (int64_t r = 0; r < rows; r++) {
    double m = -(double)INFINITY, s;
    for (int64_t c = 0; c < cols; c++) {
      double v = zn_ev_get(x, (uint64_t)(r * cols + c));
      m = fmax(m, v); /* the specification: X / max(X), signs and all */
      t[c] = norm[1] == '2' ? zn_ev_r(e, v * v) : fabs(v);
    }
    s = norm[0] == 'M' ? m : zn_ev_sum(e, t, (uint64_t)cols, 1);
    if (norm[1] == '2') s = zn_ev_r(e, sqrt(s));
    for (int64_t c = 0; c < cols; c++) {
      double v = zn_ev_get(x, (uint64_t)(r * cols + c));
      e->out[0].u.f[r * cols + c] = s == 0 ? v : zn_ev_r(e, v / s);
    }
  }
  return ZN_OK;
}

zn_status zn_eval_ml_onehotencoder(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  const zn_attr *ints = ml_attr(e, "cats_int64s"), *strs = ml_attr(e, "cats_strings"),
                *cats = x->dtype == ZN_STR ? strs : ints;
  if (!cats || x->rank >= ZN_MAX_RANK) return zn_ev_fail(e, "the categories do not fit the input");
  int64_t dims[ZN_MAX_RANK];
  memcpy(dims, x->dims, sizeof dims);
  dims[x->rank] = cats->n;
  ZN_TRY(zn_ev_out(e, 0, ZN_F32, x->rank + 1, dims));
  bool zeros = zn_node_int(e->n, "zeros") != 0;
  for (uint64_t k = 0; k < x->count; k++) {
    bool hit = false;
    for (uint32_t j = 0; j < cats->n && !hit; j++) {
      hit = x->dtype == ZN_STR ? str_is(&x->u.s[k], &strs->u.ss[j])
                               : (int64_t)zn_ev_get(x, k) == ints->u.is[j];
      if (hit) e->out[0].u.f[k * cats->n + j] = 1;
    }
    if (!hit && !zeros) return zn_ev_fail(e, "a category is unknown");
  }
  return ZN_OK;
}

zn_status zn_eval_ml_scaler(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  uint32_t no, ns;
  const double *off = zn_node_floats(e->n, "offset", &no), *sc = zn_node_floats(e->n, "scale", &ns);
  int64_t rows, cols;
  rows_cols(x, &rows, &cols);
  if ((no > 1 && no != cols) || (ns > 1 && ns != cols))
    return zn_ev_fail(e, "offset and scale do not have one item per feature");
  ZN_TRY(zn_ev_out(e, 0, ZN_F32, x->rank, x->dims));
  for (uint64_t k = 0; k < x->count; k++) {
    uint64_t c = k % (uint64_t)cols;
    double v = zn_ev_r(e, zn_ev_get(x, k) - (no ? off[no == 1 ? 0 : c] : 0));
    e->out[0].u.f[k] = zn_ev_r(e, v * (ns ? sc[ns == 1 ? 0 : c] : 1));
  }
  return ZN_OK;
}

zn_status zn_eval_ml_zipmap(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  const zn_attr *ints = ml_attr(e, "classlabels_int64s"), *strs = ml_attr(e, "classlabels_strings"),
                *lab = ints ? ints : strs;
  int64_t rows, cols;
  rows_cols(x, &rows, &cols);
  if (!lab || lab->n != cols)
    return zn_ev_fail(e, "%u labels for %lld columns", lab ? lab->n : 0, (long long)cols);
  ZN_TRY(zn_ev_list(e, ZN_V_SEQ, ZN_F32, (uint64_t)rows, &e->out[0]));
  for (int64_t r = 0; r < rows; r++) {
    zn_eval_val *m = &e->out[0].u.items[r];
    ZN_TRY(zn_ev_list(e, ZN_V_MAP, ZN_F32, 2, m));
    ZN_TRY(zn_ev_new(e, ints ? ZN_I64 : ZN_STR, 1, &cols, &m->u.items[0]));
    ZN_TRY(zn_ev_new(e, ZN_F32, 1, &cols, &m->u.items[1]));
    for (int64_t c = 0; c < cols; c++) {
      if (ints) m->u.items[0].u.i[c] = ints->u.is[c];
      else m->u.items[0].u.s[c] = strs->u.ss[c];
      m->u.items[1].u.f[c] = x->u.f[r * cols + c];
    }
  }
  return ZN_OK;
}

/* ---- tree ensembles ---- */
typedef struct trees {
  const int64_t *truen, *falsen, *truel, *falsel, *feature, *roots, *target, *missing;
  uint32_t nodes, leaves, num_roots;
  zn_eval_val split, mode, weight, member;
  uint64_t *member_at; /* first member of a membership node */
} trees;

static zn_status need(zn_ev *e, const char *name, const int64_t **out, uint32_t *n) {
  *out = zn_node_ints(e->n, name, n);
  return *out ? ZN_OK : zn_ev_fail(e, "attribute '%s' is missing", name);
}

static zn_status trees_init(zn_ev *e, trees *t) {
  memset(t, 0, sizeof *t);
  uint32_t n[8], nm = 0;
  ZN_TRY(need(e, "nodes_truenodeids", &t->truen, &n[0]));
  ZN_TRY(need(e, "nodes_falsenodeids", &t->falsen, &n[1]));
  ZN_TRY(need(e, "nodes_trueleafs", &t->truel, &n[2]));
  ZN_TRY(need(e, "nodes_falseleafs", &t->falsel, &n[3]));
  ZN_TRY(need(e, "nodes_featureids", &t->feature, &n[4]));
  ZN_TRY(need(e, "tree_roots", &t->roots, &t->num_roots));
  ZN_TRY(need(e, "leaf_targetids", &t->target, &t->leaves));
  t->missing = zn_node_ints(e->n, "nodes_missing_value_tracks_true", &nm);
  const zn_attr *sp = zn_node_attr(e->n, "nodes_splits"), *mo = zn_node_attr(e->n, "nodes_modes"),
                *we = zn_node_attr(e->n, "leaf_weights"),
                *me = zn_node_attr(e->n, "membership_values");
  t->nodes = n[0];
  if (!sp || !mo || !we)
    return zn_ev_fail(e, "nodes_splits, nodes_modes and leaf_weights are required");
  t->split = zn_eval_from_htensor(e->tmp, sp->u.t);
  t->mode = zn_eval_from_htensor(e->tmp, mo->u.t);
  t->weight = zn_eval_from_htensor(e->tmp, we->u.t);
  if (me) t->member = zn_eval_from_htensor(e->tmp, me->u.t);
  for (int i = 1; i < 5; i++)
    if (n[i] != t->nodes) return zn_ev_fail(e, "the node lists differ in length");
  if (t->split.count != t->nodes || t->mode.count != t->nodes || t->weight.count != t->leaves ||
      (t->missing && nm && nm != t->nodes))
    return zn_ev_fail(e, "the node lists differ in length");
  if (!nm) t->missing = NULL;
  t->member_at = ZN_ARRAY(e->tmp, uint64_t, t->nodes + 1);
  for (uint64_t k = 0, at = 0; k < t->nodes; k++) {
    if (t->mode.u.i[k] != 6) continue;
    t->member_at[k] = at;
    while (at < t->member.count && !isnan(t->member.u.f[at])) at++;
    at++;
  }
  return ZN_OK;
}

static bool branch(const trees *t, int64_t k, double x, zn_dtype dt) {
  double s = t->split.u.f[k];
  x = zn_ev_key(dt, x);
  if (t->missing && t->missing[k] && isnan(x)) return true;
  switch (t->mode.u.i[k]) {
  case 0: return x <= s;
  case 1: return x < s;
  case 2: return x >= s;
  case 3: return x > s;
  case 4: return x == s;
  case 5: return x != s;
  default:
    for (uint64_t j = t->member_at[k]; j < t->member.count && !isnan(t->member.u.f[j]); j++)
      if (t->member.u.f[j] == x) return true;
    return false;
  }
}

static zn_status leaf_of(zn_ev *e, const trees *t, int64_t k, const double *x, int64_t cols,
                         int64_t *out) {
  bool leaf = t->nodes == 0;
  if (!leaf && k >= 0 && k < t->nodes && t->truel[k] && t->falsel[k] &&
      t->truen[k] == t->falsen[k]) { /* one leaf */
    k = t->truen[k];
    leaf = true;
  }
  for (uint32_t steps = 0; !leaf; steps++) {
    if (k < 0 || k >= t->nodes || steps > t->nodes || t->feature[k] < 0 || t->feature[k] >= cols)
      return zn_ev_fail(e, "node %lld of the trees is not valid", (long long)k);
    bool yes = branch(t, k, x[t->feature[k]], (zn_dtype)e->in[0]->dtype);
    leaf = (yes ? t->truel[k] : t->falsel[k]) != 0;
    k = yes ? t->truen[k] : t->falsen[k];
  }
  *out = k;
  return k >= 0 && k < t->leaves ? ZN_OK : zn_ev_fail(e, "leaf %lld does not exist", (long long)k);
}

zn_status zn_eval_ml_treeensemble(zn_ev *e) {
  static const char *const posts[] = {"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"};
  const zn_eval_val *x = e->in[0];
  trees t;
  ZN_TRY(trees_init(e, &t));
  const zn_attr *nt = zn_node_attr(e->n, "n_targets");
  int64_t agg = zn_node_int(e->n, "aggregate_function"), post = zn_node_int(e->n, "post_transform"),
          rows, cols;
  rows_cols(x, &rows, &cols);
  int64_t n = nt ? nt->u.i : 1, dims[2] = {rows, n};
  if (n < 1 || post < 0 || post > 4)
    return zn_ev_fail(e, "n_targets or post_transform is not valid");
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, 2, dims));
  double *y = ZN_ARRAY(e->tmp, double, n + 1), *xd = zn_ev_doubles(e, x);
  uint64_t *hits = ZN_ARRAY(e->tmp, uint64_t, n + 1);
  for (int64_t r = 0; r < rows; r++) {
    memset(hits, 0, (size_t)n * sizeof *hits);
    memset(y, 0, (size_t)n * sizeof *y);
    for (uint32_t k = 0; k < t.num_roots; k++) {
      int64_t leaf = 0, to;
      ZN_TRY(leaf_of(e, &t, t.roots[k], xd + r * cols, cols, &leaf));
      to = t.target[leaf];
      if (to < 0 || to >= n) return zn_ev_fail(e, "target %lld does not exist", (long long)to);
      double w = t.weight.u.f[leaf];
      if (agg <= 1) y[to] = zn_ev_r(e, y[to] + w);
      else if (hits[to] == 0 || (agg == 2 ? w < y[to] : w > y[to])) y[to] = w;
      hits[to]++;
    }
    for (int64_t k = 0; agg == 0 && k < n; k++) y[k] = zn_ev_r(e, y[k] / (double)t.num_roots);
    zn_ev_post(e, posts[post], y, (uint64_t)n);
    memcpy(e->out[0].u.f + r * n, y, (size_t)n * sizeof *y);
  }
  return ZN_OK;
}
