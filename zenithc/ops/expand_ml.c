/* ai.onnx.ml: Normalizer, OneHotEncoder, linear models and support vector machines, in terms of matrix
 * products and maps. Sums are formed in the input's float type, in double for integers. */
#include "zenithc/ops/expand_util.h"

static zn_dtype dtype_of(const zn_rw *w, zn_vid v) { return (zn_dtype)zn_rw_type(w, v)->dtype; }
static zn_vid num(zn_rw *w, zn_vid like, double v) { return zn_rw_num(w, dtype_of(w, like), v); }

/* The input as floats. */
static zn_vid real_input(zn_rw *w) {
  const zn_vid x = zn_rw_in(w, 0);
  return zn_rw_cast(w, x, dtype_of(w, x) == ZN_F32 ? ZN_F32 : ZN_F64);
}

/* [rows, columns], one row for rank 1. */
static zn_vid as_rows(zn_rw *w, zn_vid x) {
  const int64_t zero = 0;
  return zn_rw_type(w, x)->rank == 1 ? zn_rw_unsqueeze(w, x, &zero, 1) : x;
}

static zn_vid matrix(zn_rw *w, zn_dtype t, int64_t rows, int64_t cols, const double *v, bool transposed) {
  if (w->st != ZN_OK) return 0;
  const int64_t dims[2] = {rows, cols};
  zn_htensor *h = ZN_NEW(w->g->arena, zn_htensor);
  *h = zn_htensor_new(w->g->arena, t, rows ? 2 : 1, rows ? dims : dims + 1);
  const int64_t n = rows ? rows : 1;
  for (int64_t r = 0; r < n; r++)
    for (int64_t c = 0; c < cols; c++)
      zn_store_f64(t, h->data, (uint64_t)(r * cols + c), v[transposed ? c * n + r : r * cols + c]);
  return zn_graph_const(w->g, NULL, h);
}

/* ---- post_transform ---- */

/* Softmax that leaves zeros at exp(-max) times themselves. */
static zn_vid softmax_zero(zn_rw *w, zn_vid y) {
  const int64_t last = -1;
  const zn_vid m = zn_rw_reduce(w, ZN_OP_ReduceMax, y, &last, 1, true);
  const zn_vid far = zn_rw1(w, ZN_OP_Exp, zn_rw2(w, ZN_OP_Sub, y, m));
  const zn_vid shrink = zn_rw1(w, ZN_OP_Exp, zn_rw1(w, ZN_OP_Neg, m)), size = zn_rw1(w, ZN_OP_Abs, y);
  const zn_vid near = zn_rw2(w, ZN_OP_Mul, y, shrink), tiny = num(w, y, 1e-7);
  const zn_vid e = zn_rw3(w, ZN_OP_Where, zn_rw2(w, ZN_OP_Greater, size, tiny), far, near);
  const zn_vid s = zn_rw_reduce(w, ZN_OP_ReduceSum, e, &last, 1, true), none = num(w, y, 0);
  const zn_vid share = zn_rw2(w, ZN_OP_Div, e, s), half = num(w, y, 0.5);
  return zn_rw3(w, ZN_OP_Where, zn_rw2(w, ZN_OP_Equal, s, none), half, share);
}

/* sqrt(2) erfinv(2p - 1) by the approximation that all implementations of PROBIT use. */
static zn_vid probit(zn_rw *w, zn_vid p) {
  const double k = 2 / (3.14159265358979 * 0.147);
  const zn_vid one = num(w, p, 1), two = num(w, p, 2), x = zn_rw2(w, ZN_OP_Sub, zn_rw2(w, ZN_OP_Mul, p, two), one);
  const zn_vid less = zn_rw2(w, ZN_OP_Sub, one, x), more = zn_rw2(w, ZN_OP_Add, one, x);
  const zn_vid l = zn_rw1(w, ZN_OP_Log, zn_rw2(w, ZN_OP_Mul, less, more)), half = num(w, p, 0.5), base = num(w, p, k);
  const zn_vid v = zn_rw2(w, ZN_OP_Add, zn_rw2(w, ZN_OP_Mul, l, half), base), a = num(w, p, 0.147);
  const zn_vid square = zn_rw2(w, ZN_OP_Mul, v, v), part = zn_rw2(w, ZN_OP_Div, l, a);
  const zn_vid root = zn_rw1(w, ZN_OP_Sqrt, zn_rw2(w, ZN_OP_Sub, square, part));
  const zn_vid s = zn_rw1(w, ZN_OP_Sqrt, zn_rw2(w, ZN_OP_Sub, root, v)), zero = num(w, p, 0);
  const zn_vid below = zn_rw2(w, ZN_OP_Less, x, zero), minus = zn_rw1(w, ZN_OP_Neg, s);
  const zn_vid r = zn_rw3(w, ZN_OP_Where, below, minus, s), scale = num(w, p, 1.41421356);
  return zn_rw2(w, ZN_OP_Mul, r, scale);
}

static zn_vid post_transform(zn_rw *w, zn_vid y) {
  const char *how = zn_node_str(zn_rw_node(w), "post_transform");
  if (strcmp(how, "SOFTMAX") == 0) return zn_rw_attr_int(w, ZN_OP_Softmax, &y, 1, "axis", -1);
  if (strcmp(how, "SOFTMAX_ZERO") == 0) return softmax_zero(w, y);
  if (strcmp(how, "LOGISTIC") == 0) return zn_rw1(w, ZN_OP_Sigmoid, y);
  return strcmp(how, "PROBIT") == 0 ? probit(w, y) : y;
}

/* ---- TreeEnsemble: PROBIT in elementwise operators ---- */

ZN_EXPAND(ml_treeensemble) {
  enum { PROBIT = 4 };
  const zn_vid x = zn_rw_in(w, 0);
  const zn_dtype t = dtype_of(w, x);
  if (zn_node_int(zn_rw_node(w), "post_transform") != PROBIT) return ZN_OK;
  const zn_nid sums = zn_rw_raw(w, ZN_OP_TreeEnsemble, &x, 1, 1);
  if (!sums) return w->st;
  for (uint32_t i = 0; i < zn_rw_node(w)->num_attrs; i++) zn_node_set_attr(w->g, sums, zn_rw_node(w)->attrs[i]);
  zn_node_set_int(w->g, sums, "post_transform", 0);
  const zn_vid y = zn_rw_cast(w, zn_rw_infer(w, sums), t == ZN_F64 ? ZN_F64 : ZN_F32);
  zn_rw_output(w, 0, zn_rw_cast(w, probit(w, y), t));
  return zn_rw_done(w);
}

/* ---- Normalizer ---- */

ZN_EXPAND(ml_normalizer) {
  const char *norm = zn_node_str(zn_rw_node(w), "norm");
  const int64_t last = -1;
  const zn_vid x = real_input(w);
  if (w->st != ZN_OK || zn_rw_type(w, x)->rank < 1) return w->st;
  zn_vid s;
  if (norm[0] == 'M') s = zn_rw_reduce(w, ZN_OP_ReduceMax, x, &last, 1, true);
  else if (norm[1] == '1') s = zn_rw_reduce(w, ZN_OP_ReduceSum, zn_rw1(w, ZN_OP_Abs, x), &last, 1, true);
  else s = zn_rw1(w, ZN_OP_Sqrt, zn_rw_reduce(w, ZN_OP_ReduceSum, zn_rw2(w, ZN_OP_Mul, x, x), &last, 1, true));
  const zn_vid none = num(w, s, 0), one = num(w, s, 1);
  const zn_vid by = zn_rw3(w, ZN_OP_Where, zn_rw2(w, ZN_OP_Equal, s, none), one, s);
  zn_rw_output(w, 0, zn_rw_cast(w, zn_rw2(w, ZN_OP_Div, x, by), ZN_F32));
  return zn_rw_done(w);
}

/* ---- OneHotEncoder ---- */

/* Which of the categories a string is; their number when none. */
static zn_vid number_of_text(zn_rw *w, zn_vid x, const zn_attr *cats) {
  const zn_nid id = zn_rw_raw(w, ZN_OP_LabelEncoder, &x, 1, 1);
  if (!id) return 0;
  int64_t *number = ZN_ARRAY(w->g->arena, int64_t, cats->n);
  for (uint32_t k = 0; k < cats->n; k++) number[k] = k;
  zn_attr keys = *cats;
  keys.name = "keys_strings";
  zn_node_set_attr(w->g, id, keys);
  zn_node_set_ints(w->g, id, "values_int64s", number, cats->n);
  zn_node_set_int(w->g, id, "default_int64", cats->n);
  return zn_rw_infer(w, id);
}

/* Row k of a table is one at column k; row n is all zeros when unknown categories may be, and does not exist otherwise, so
 * that the run is refused with a code. */
ZN_EXPAND(ml_onehotencoder) {
  const zn_vid x = zn_rw_in(w, 0);
  const bool text = dtype_of(w, x) == ZN_STR;
  const zn_attr *cats = zn_node_attr(zn_rw_node(w), text ? "cats_strings" : "cats_int64s");
  const int rank = zn_rw_type(w, x)->rank;
  const bool zeros = zn_node_int(zn_rw_node(w), "zeros") != 0;
  if (!cats || !cats->n || rank < 0 || rank >= ZN_MAX_RANK) return ZN_OK;
  const int64_t n = cats->n, last = -1, dims[2] = {n + zeros, n};
  zn_htensor *h = ZN_NEW(w->g->arena, zn_htensor);
  *h = zn_htensor_new(w->g->arena, ZN_F32, 2, dims);
  for (int64_t k = 0; k < n; k++) zn_store_f64(ZN_F32, h->data, (uint64_t)(k * n + k), 1);
  const zn_vid table = zn_graph_const(w->g, NULL, h);
  if (text) {
    zn_rw_output(w, 0, zn_rw2(w, ZN_OP_Gather, table, number_of_text(w, x, cats)));
    return zn_rw_done(w);
  }
  const zn_vid list = zn_rw_ints(w, cats->u.is, cats->n);
  const zn_vid value = zn_rw_unsqueeze(w, zn_rw_cast(w, x, ZN_I64), &last, 1);
  const zn_vid hit = zn_rw_cast(w, zn_rw2(w, ZN_OP_Equal, value, list), ZN_I32);
  const zn_vid any = zn_rw_cast(w, zn_rw_reduce(w, ZN_OP_ReduceMax, hit, &last, 1, false), ZN_BOOL);
  const zn_nid arg = zn_rw_raw(w, ZN_OP_ArgMax, &hit, 1, 1);
  if (!arg) return w->st;
  zn_node_set_int(w->g, arg, "axis", -1);
  zn_node_set_int(w->g, arg, "keepdims", 0);
  const zn_vid first = zn_rw_infer(w, arg), none = zn_rw_num(w, ZN_I64, (double)n);
  zn_rw_output(w, 0, zn_rw2(w, ZN_OP_Gather, table, zn_rw3(w, ZN_OP_Where, any, first, none)));
  return zn_rw_done(w);
}

/* ---- linear models ---- */

/* x times the rows of coefficients, plus intercepts: [rows, C]. */
static zn_vid linear(zn_rw *w, zn_vid x, int64_t C) {
  uint32_t nc, ni;
  const double *co = zn_node_floats(zn_rw_node(w), "coefficients", &nc);
  const double *in = zn_node_floats(zn_rw_node(w), "intercepts", &ni);
  zn_vid y = zn_rw2(w, ZN_OP_MatMul, x, matrix(w, dtype_of(w, x), (int64_t)nc / C, C, co, true));
  if (ni) y = zn_rw2(w, ZN_OP_Add, y, matrix(w, dtype_of(w, x), 0, C, in, false));
  return y;
}

/* Columns of x, and whether `count` coefficients are whole rows of them. */
static zn_status columns(zn_rw *w, zn_vid x, uint32_t count, int64_t *cols) {
  const zn_type *t = zn_rw_type(w, x);
  if (w->st != ZN_OK) return w->st;
  if (t->rank < 1 || t->rank > 2 || !zn_ex_is_const(w->g->ex, t->dims[t->rank - 1], cols) || *cols < 1)
    return zn_error(w->c, zn_node_where(w->c, zn_rw_node(w)), "the number of features must be known, and one at least");
  if (count % (uint64_t)*cols == 0 && count) return ZN_OK;
  return zn_error(w->c, zn_node_where(w->c, zn_rw_node(w)), "%u coefficients for %lld features", count, (long long)*cols);
}

ZN_EXPAND(ml_linearregressor) {
  uint32_t nc;
  int64_t cols;
  const int64_t T = zn_node_int(zn_rw_node(w), "targets");
  zn_node_floats(zn_rw_node(w), "coefficients", &nc);
  const zn_vid x = real_input(w);
  ZN_TRY(columns(w, x, nc, &cols));
  if (T < 1 || nc != (uint64_t)(T * cols)) return ZN_OK;
  const zn_vid y = linear(w, as_rows(w, x), T);
  zn_rw_output(w, 0, zn_rw_cast(w, post_transform(w, y), ZN_F32));
  return zn_rw_done(w);
}

/* Label number `at` of each row; without labels, the numbers themselves. */
static zn_vid labels_at(zn_rw *w, zn_vid at) {
  const zn_attr *ints = zn_node_attr(zn_rw_node(w), "classlabels_ints");
  const zn_attr *strs = zn_node_attr(zn_rw_node(w), "classlabels_strings");
  if (ints && ints->n) return zn_rw2(w, ZN_OP_Gather, zn_rw_ints(w, ints->u.is, ints->n), at);
  if (!strs || !strs->n || w->st != ZN_OK) return at;
  const int64_t n = strs->n;
  zn_htensor *h = ZN_NEW(w->g->arena, zn_htensor);
  *h = zn_htensor_new(w->g->arena, ZN_STR, 1, &n);
  memcpy(h->data, strs->u.ss, strs->n * sizeof(zn_str));
  return zn_rw2(w, ZN_OP_Gather, zn_graph_const(w->g, NULL, h), at);
}

static uint32_t label_count(const zn_rw *w) {
  const zn_attr *ints = zn_node_attr(zn_rw_node(w), "classlabels_ints");
  const zn_attr *strs = zn_node_attr(zn_rw_node(w), "classlabels_strings");
  return ints && ints->n ? ints->n : strs ? strs->n : 0;
}

/* One score only: the label, or 0, by its sign (its half for probabilities). Strings are left to the primitive. */
static zn_vid single_label(zn_rw *w, zn_vid y) {
  const zn_attr *ints = zn_node_attr(zn_rw_node(w), "classlabels_ints");
  const bool raw = zn_node_str(zn_rw_node(w), "post_transform")[0] == 'N';
  const int64_t last = -1;
  const zn_vid limit = num(w, y, raw ? 0 : 0.5), yes = zn_rw2(w, ZN_OP_GreaterOrEqual, y, limit);
  const zn_vid label = zn_rw_num(w, ZN_I64, ints && ints->n ? (double)ints->u.is[0] : 1), zero = zn_rw_num(w, ZN_I64, 0);
  return zn_rw_squeeze(w, zn_rw3(w, ZN_OP_Where, yes, label, zero), &last, 1);
}

ZN_EXPAND(ml_linearclassifier) {
  uint32_t nc;
  int64_t cols, C;
  const uint32_t n = label_count(w);
  const zn_attr *strs = zn_node_attr(zn_rw_node(w), "classlabels_strings");
  zn_node_floats(zn_rw_node(w), "coefficients", &nc);
  const zn_vid x = real_input(w);
  ZN_TRY(columns(w, x, nc, &cols));
  C = (int64_t)nc / cols;
  if (C == 1 && n != 2 && strs && strs->n) return ZN_OK;
  zn_vid y = linear(w, as_rows(w, x), C);
  if (C == 1 && n == 2) {
    const zn_vid both[2] = {zn_rw1(w, ZN_OP_Neg, y), y};
    y = zn_rw_attr_int(w, ZN_OP_Concat, both, 2, "axis", 1);
    C = 2;
  }
  const zn_vid plain = zn_rw_cast(w, y, ZN_F32);
  y = post_transform(w, y);
  if (C == 1) {
    zn_rw_output(w, 0, single_label(w, y));
  } else {
    const zn_nid arg = zn_rw_raw(w, ZN_OP_ArgMax, &plain, 1, 1);
    if (!arg) return w->st;
    zn_node_set_int(w->g, arg, "axis", 1);
    zn_node_set_int(w->g, arg, "keepdims", 0);
    const zn_vid best = zn_rw_infer(w, arg);
    zn_rw_output(w, 0, labels_at(w, best));
  }
  if (zn_rw_wants(w, 1)) zn_rw_output(w, 1, zn_rw_cast(w, y, ZN_F32));
  return zn_rw_done(w);
}

/* ---- support vector machines ---- */

/* Kernel of each row of x with each of n support vectors: [rows, n]. Squared distances are sums of squared differences: the
 * expanded square cancels. */
static zn_vid svm_kernel(zn_rw *w, zn_vid x, int64_t n, int64_t cols) {
  uint32_t ns, np;
  const double *sv = zn_node_floats(zn_rw_node(w), "support_vectors", &ns);
  const double *kp = zn_node_floats(zn_rw_node(w), "kernel_params", &np);
  const double gamma = np > 0 ? kp[0] : 0, coef = np > 1 ? kp[1] : 0, degree = np > 2 ? kp[2] : 0;
  const char kind = zn_node_str(zn_rw_node(w), "kernel_type")[0];
  const zn_dtype t = dtype_of(w, x);
  const int64_t one = 1, last = -1;
  if (kind == 'R') {
    const zn_vid rows = zn_rw_unsqueeze(w, x, &one, 1), off = zn_rw2(w, ZN_OP_Sub, rows, matrix(w, t, n, cols, sv, false));
    const zn_vid d = zn_rw_reduce(w, ZN_OP_ReduceSum, zn_rw2(w, ZN_OP_Mul, off, off), &last, 1, false);
    return zn_rw1(w, ZN_OP_Exp, zn_rw2(w, ZN_OP_Mul, d, num(w, x, -gamma)));
  }
  zn_vid d = zn_rw2(w, ZN_OP_MatMul, x, matrix(w, t, cols, n, sv, true));
  if (kind == 'L') return d;
  d = zn_rw2(w, ZN_OP_Mul, d, num(w, x, gamma));
  d = zn_rw2(w, ZN_OP_Add, d, num(w, x, coef));
  return kind == 'P' ? zn_rw2(w, ZN_OP_Pow, d, num(w, x, degree)) : zn_rw1(w, ZN_OP_Tanh, d);
}

ZN_EXPAND(ml_svmregressor) {
  uint32_t nc, ns, nr;
  int64_t cols;
  const zn_node *nd = zn_rw_node(w);
  const int64_t n = zn_node_int(nd, "n_supports");
  const bool one_class = zn_node_int(nd, "one_class") != 0;
  const double *co = zn_node_floats(nd, "coefficients", &nc), *rho = zn_node_floats(nd, "rho", &nr);
  zn_node_floats(nd, "support_vectors", &ns);
  zn_vid x = real_input(w);
  ZN_TRY(columns(w, x, n > 0 ? ns : nc, &cols));
  if (!nr || n < 0 || (n ? ns != (uint64_t)(n * cols) || nc < n : nc != cols))
    return zn_error(w->c, zn_node_where(w->c, nd), "the support vectors do not fit %lld features", (long long)cols);
  x = as_rows(w, x);
  const zn_vid k = n ? svm_kernel(w, x, n, cols) : x;
  zn_vid y = zn_rw2(w, ZN_OP_MatMul, k, matrix(w, dtype_of(w, x), n ? n : cols, 1, co, false));
  y = zn_rw2(w, ZN_OP_Add, y, num(w, x, rho[0]));
  if (one_class) {
    const zn_vid zero = num(w, x, 0), in = num(w, x, 1), out = num(w, x, -1);
    y = zn_rw3(w, ZN_OP_Where, zn_rw2(w, ZN_OP_Greater, y, zero), in, out);
  }
  zn_rw_output(w, 0, zn_rw_cast(w, post_transform(w, y), ZN_F32));
  return zn_rw_done(w);
}

typedef struct svc {
  const double *co, *rho, *pa, *pb;
  const int64_t *per; /* support vectors per class */
  uint32_t nco, nsv, nrho, npa, npb, nper;
  int64_t labels, C, V, pairs, cols;
  bool proba;
} svc;

static zn_status svc_read(zn_rw *w, svc *m) {
  const zn_node *nd = zn_rw_node(w);
  m->co = zn_node_floats(nd, "coefficients", &m->nco);
  m->rho = zn_node_floats(nd, "rho", &m->nrho);
  m->pa = zn_node_floats(nd, "prob_a", &m->npa);
  m->pb = zn_node_floats(nd, "prob_b", &m->npb);
  m->per = zn_node_ints(nd, "vectors_per_class", &m->nper);
  zn_node_floats(nd, "support_vectors", &m->nsv);
  m->labels = label_count(w);
  m->C = m->labels ? m->labels : 1;
  for (uint32_t i = 0; i < m->nper; i++) m->V += m->per[i];
  m->pairs = m->C * (m->C - 1) / 2;
  m->proba = m->V && m->npa;
  ZN_TRY(columns(w, zn_rw_in(w, 0), m->V ? m->nsv : m->nco, &m->cols));
  const bool vectors = m->nper == m->C && m->nsv == m->V * m->cols && m->nco == (m->C - 1) * m->V;
  const bool fits = m->V ? m->C > 1 && vectors && m->nrho >= m->pairs : m->nco == m->C * m->cols && m->nrho >= 1;
  if (fits && (!m->proba || (m->npa >= m->pairs && m->npb >= m->pairs))) return ZN_OK;
  return zn_error(w->c, zn_node_where(w->c, nd), "the support vectors do not fit %lld features and %lld classes",
                  (long long)m->cols, (long long)m->C);
}

/* One score per pair of classes, first against second: kernel values times a matrix, and rho. */
static zn_vid svc_pair_scores(zn_rw *w, const svc *m, zn_vid x) {
  double *to = ZN_ARRAY(&w->c->tmp, double, (size_t)(m->V * m->pairs));
  int64_t at = 0, si = 0;
  for (int64_t i = 0; i < m->C; si += m->per[i++]) {
    int64_t sj = si + m->per[i];
    for (int64_t j = i + 1; j < m->C; sj += m->per[j++], at++) {
      for (int64_t k = si; k < si + m->per[i]; k++) to[k * m->pairs + at] = m->co[(j - 1) * m->V + k];
      for (int64_t k = sj; k < sj + m->per[j]; k++) to[k * m->pairs + at] = m->co[i * m->V + k];
    }
  }
  const zn_vid k = svm_kernel(w, x, m->V, m->cols);
  const zn_vid y = zn_rw2(w, ZN_OP_MatMul, k, matrix(w, dtype_of(w, x), m->V, m->pairs, to, false));
  return zn_rw2(w, ZN_OP_Add, y, matrix(w, dtype_of(w, x), 0, m->pairs, m->rho, false));
}

/* How many pairs each class wins: [rows, C]. */
static zn_vid svc_votes(zn_rw *w, const svc *m, zn_vid score) {
  double *won = ZN_ARRAY(&w->c->tmp, double, (size_t)(m->pairs * m->C)), *base = ZN_ARRAY(&w->c->tmp, double, (size_t)m->C);
  int64_t at = 0;
  for (int64_t i = 0; i < m->C; i++)
    for (int64_t j = i + 1; j < m->C; j++, at++) {
      won[at * m->C + i] = 1;
      won[at * m->C + j] = -1;
      base[j]++;
    }
  const zn_vid first = zn_rw_cast(w, zn_rw2(w, ZN_OP_Greater, score, num(w, score, 0)), ZN_F32);
  const zn_vid votes = zn_rw2(w, ZN_OP_MatMul, first, matrix(w, ZN_F32, m->pairs, m->C, won, false));
  return zn_rw2(w, ZN_OP_Add, votes, matrix(w, ZN_F32, 0, m->C, base, false));
}

static zn_vid svc_probabilities(zn_rw *w, const svc *m, zn_vid score) {
  const zn_dtype t = dtype_of(w, score);
  zn_vid p = zn_rw2(w, ZN_OP_Mul, score, matrix(w, t, 0, m->pairs, m->pa, false));
  p = zn_rw1(w, ZN_OP_Sigmoid, zn_rw1(w, ZN_OP_Neg, zn_rw2(w, ZN_OP_Add, p, matrix(w, t, 0, m->pairs, m->pb, false))));
  const zn_vid low = num(w, p, 1e-7), high = num(w, p, 1 - 1e-7), limits[3] = {p, low, high};
  p = zn_rw_op(w, ZN_OP_Clip, limits, 3);
  return zn_rw_attr_int(w, ZN_OP_PairwiseCoupling, &p, 1, "classes", m->C);
}

/* pick: votes, or scores of classes. A single rho means one decision: labels of their own when there are not two of them. */
static zn_vid svc_label(zn_rw *w, const svc *m, zn_vid pick) {
  const zn_attr *ints = zn_node_attr(zn_rw_node(w), "classlabels_ints");
  const int64_t last = -1;
  pick = zn_rw_cast(w, pick, ZN_F32);
  const zn_nid arg = zn_rw_raw(w, ZN_OP_ArgMax, &pick, 1, 1);
  if (!arg) return 0;
  zn_node_set_int(w->g, arg, "axis", 1);
  zn_node_set_int(w->g, arg, "keepdims", 0);
  const zn_vid best = zn_rw_infer(w, arg);
  bool positive = !m->proba;
  for (uint32_t i = 0; i < m->nco; i++) positive = positive && m->co[i] >= 0;
  if (m->nrho != 1 || (m->labels == 2 && !positive)) return labels_at(w, best);
  const zn_vid top = zn_rw_reduce(w, ZN_OP_ReduceMax, pick, &last, 1, false);
  if (m->labels == 2) {
    const zn_vid far = zn_rw2(w, ZN_OP_GreaterOrEqual, top, num(w, top, 0.5)), one = zn_rw_num(w, ZN_I64, 1);
    return labels_at(w, zn_rw3(w, ZN_OP_Where, far, one, best));
  }
  const zn_vid yes = zn_rw_cast(w, zn_rw2(w, ZN_OP_Greater, top, num(w, top, 0)), ZN_I64);
  if (!m->labels || (ints && ints->n)) return yes;
  return labels_at(w, m->labels > 1 ? yes : zn_rw2(w, ZN_OP_Mul, yes, zn_rw_num(w, ZN_I64, 0)));
}

ZN_EXPAND(ml_svmclassifier) {
  svc m = {0};
  ZN_TRY(svc_read(w, &m));
  /* coefficients of support vectors have both signs and cancel: doubles */
  zn_vid x = as_rows(w, m.V ? zn_rw_cast(w, zn_rw_in(w, 0), ZN_F64) : real_input(w)), y, pick;
  if (m.V) {
    y = svc_pair_scores(w, &m, x);
    pick = svc_votes(w, &m, y);
    if (m.proba) y = svc_probabilities(w, &m, y);
  } else {
    y = zn_rw2(w, ZN_OP_MatMul, x, matrix(w, dtype_of(w, x), m.cols, m.C, m.co, true));
    pick = y = zn_rw2(w, ZN_OP_Add, y, num(w, x, m.rho[0]));
  }
  zn_rw_output(w, 0, svc_label(w, &m, pick));
  if (!zn_rw_wants(w, 1)) return zn_rw_done(w);
  const char *how = zn_node_str(zn_rw_node(w), "post_transform");
  if (m.V && !m.proba ? m.pairs == 1 : m.C == 1) { /* one score: minus it for the other class */
    const zn_vid both[2] = {zn_rw1(w, ZN_OP_Neg, y), y};
    if (m.nrho == 1 && strcmp(how, "PROBIT")) y = post_transform(w, zn_rw_attr_int(w, ZN_OP_Concat, both, 2, "axis", 1));
    else if (!strcmp(how, "PROBIT")) y = probit(w, y);
  } else {
    y = post_transform(w, y);
  }
  zn_rw_output(w, 1, zn_rw_cast(w, y, ZN_F32));
  return zn_rw_done(w);
}
