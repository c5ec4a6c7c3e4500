/* ai.onnx.ml: linear models and support vector machines, and the score transforms that classifiers
 * share. */
#include "zenithc/eval/eval_impl.h"

static double logistic(double x) { return x < 0 ? 1 - 1 / (1 + exp(x)) : 1 / (1 + exp(-x)); }

/* sqrt(2) erfinv(2p - 1) by the approximation that all implementations of PROBIT use */
static double probit(double p) {
  double x = 2 * p - 1, l = log((1 - x) * (1 + x)), v = 2 / (3.14159265358979 * 0.147) + 0.5 * l;
  double s = sqrt(-v + sqrt(v * v - l / 0.147));
  return 1.41421356 * (x < 0 ? -s : s);
}

static void softmax_zero(const zn_ev *e, double *y, uint64_t n) {
  double m = -INFINITY, s = 0;
  for (uint64_t k = 0; k < n; k++) m = y[k] > m ? y[k] : m;
  for (uint64_t k = 0; k < n; k++) {
    y[k] = zn_ev_r(e, fabs(y[k]) > 1e-7 ? exp(y[k] - m) : y[k] * exp(-m));
    s = zn_ev_r(e, s + y[k]);
  }
  for (uint64_t k = 0; k < n; k++) y[k] = s == 0 ? 0.5 : zn_ev_r(e, y[k] / s);
}

void zn_ev_post(const zn_ev *e, const char *post, double *y, uint64_t n) {
  if (strcmp(post, "SOFTMAX") == 0) zn_ev_softmax(e, y, n, false);
  else if (strcmp(post, "SOFTMAX_ZERO") == 0) softmax_zero(e, y, n);
  for (uint64_t k = 0; k < n; k++) {
    if (strcmp(post, "LOGISTIC") == 0) y[k] = zn_ev_r(e, logistic(y[k]));
    else if (strcmp(post, "PROBIT") == 0) y[k] = zn_ev_r(e, probit(y[k]));
  }
}

typedef struct labels {
  const zn_attr *ints, *strs;
  uint32_t n;
} labels;

static labels labels_of(const zn_ev *e) {
  labels l = {zn_node_attr(e->n, "classlabels_ints"), zn_node_attr(e->n, "classlabels_strings"), 0};
  if (l.ints && !l.ints->n) l.ints = NULL;
  if (l.strs && !l.strs->n) l.strs = NULL;
  l.n = l.ints ? l.ints->n : l.strs ? l.strs->n : 0;
  return l;
}

static void put_label(zn_eval_val *y, uint64_t at, const labels *l, uint64_t k) {
  if (l->ints) y->u.i[at] = l->ints->u.is[k < l->n ? k : 0];
  else if (l->strs) y->u.s[at] = l->strs->u.ss[k < l->n ? k : 0];
  else y->u.i[at] = (int64_t)k;
}

static uint64_t best_of(const double *y, uint64_t n) {
  uint64_t b = 0;
  for (uint64_t k = 1; k < n; k++)
    if ((double)(float)y[k] > (double)(float)y[b]) b = k;
  return b;
}

static void shape_rows(const zn_eval_val *x, uint64_t *rows, uint64_t *cols) {
  *cols = x->rank ? (uint64_t)x->dims[x->rank - 1] : 1;
  *rows = *cols ? x->count / *cols : 0;
}

zn_status zn_eval_ml_linearregressor(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  uint32_t nc, ni;
  const double *co = zn_node_floats(e->n, "coefficients", &nc),
               *in = zn_node_floats(e->n, "intercepts", &ni);
  uint64_t rows, cols, T = (uint64_t)zn_node_int(e->n, "targets");
  shape_rows(x, &rows, &cols);
  if (T < 1 || nc != T * cols || (ni && ni != T))
    return zn_ev_fail(e, "%u coefficients for %llu features", nc, (unsigned long long)cols);
  int64_t dims[2] = {(int64_t)rows, (int64_t)T};
  ZN_TRY(zn_ev_out(e, 0, ZN_F32, 2, dims));
  double *xd = zn_ev_doubles(e, x);
  for (uint64_t r = 0; r < rows; r++) {
    double *y = e->out[0].u.f + r * T;
    for (uint64_t t = 0; t < T; t++) {
      y[t] = zn_ev_dot(e, xd + r * cols, 1, co + t * cols, 1, cols);
      if (ni) y[t] = zn_ev_r(e, y[t] + in[t]);
    }
    zn_ev_post(e, zn_node_str(e->n, "post_transform"), y, T);
  }
  return ZN_OK;
}

zn_status zn_eval_ml_linearclassifier(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  uint32_t nc, ni;
  const double *co = zn_node_floats(e->n, "coefficients", &nc),
               *in = zn_node_floats(e->n, "intercepts", &ni);
  const char *post = zn_node_str(e->n, "post_transform");
  labels lab = labels_of(e);
  uint64_t rows, cols;
  shape_rows(x, &rows, &cols);
  uint64_t C = cols ? nc / cols : 0, W = C == 1 && lab.n == 2 ? 2 : C;
  if (C < 1 || C * cols != nc || (ni && ni != C))
    return zn_ev_fail(e, "%u coefficients for %llu features", nc, (unsigned long long)cols);
  int64_t dims[2] = {(int64_t)rows, (int64_t)W};
  ZN_TRY(zn_ev_out(e, 0, lab.strs && !lab.ints ? ZN_STR : ZN_I64, 1, dims));
  ZN_TRY(zn_ev_out(e, 1, ZN_F32, 2, dims));
  double *xd = zn_ev_doubles(e, x);
  for (uint64_t r = 0; r < rows; r++) {
    double *y = e->out[1].u.f + r * W;
    for (uint64_t c = 0; c < C; c++) {
      double s = zn_ev_dot(e, xd + r * cols, 1, co + c * cols, 1, cols);
      y[W - C + c] = ni ? zn_ev_r(e, s + in[c]) : s;
    }
    if (W > C) y[0] = -y[1];
    uint64_t best = best_of(y, W);
    zn_ev_post(e, post, y, W);
    if (W > 1) put_label(&e->out[0], r, &lab, best);
    else if (lab.strs && !lab.ints)
      e->out[0].u.s[r] = y[0] >= (post[0] == 'N' ? 0 : 0.5) ? lab.strs->u.ss[0]
                                                            : zn_ev_str(e, "", 0);
    else
      e->out[0].u.i[r] = y[0] >= (post[0] == 'N' ? 0 : 0.5) ? (lab.ints ? lab.ints->u.is[0] : 1)
                                                            : 0;
  }
  return ZN_OK;
}

/* ---- support vector machines ---- */
typedef struct svm {
  const double *co, *sv, *rho, *pa, *pb;
  uint32_t nco, nsv, nrho, npa, npb;
  double gamma, coef0, degree;
  char kernel; /* L P R S */
} svm;

static void svm_init(const zn_ev *e, svm *s, bool classifier) {
  memset(s, 0, sizeof *s);
  uint32_t np;
  const double *kp = zn_node_floats(e->n, "kernel_params", &np);
  s->co = zn_node_floats(e->n, "coefficients", &s->nco);
  s->sv = zn_node_floats(e->n, "support_vectors", &s->nsv);
  s->rho = zn_node_floats(e->n, "rho", &s->nrho);
  if (classifier) {
    s->pa = zn_node_floats(e->n, "prob_a", &s->npa);
    s->pb = zn_node_floats(e->n, "prob_b", &s->npb);
  }
  s->gamma = np > 0 ? kp[0] : 0;
  s->coef0 = np > 1 ? kp[1] : 0;
  s->degree = np > 2 ? kp[2] : 0;
  s->kernel = zn_node_str(e->n, "kernel_type")[0];
}

static double kernel(const zn_ev *e, const svm *s, char k, const double *a, const double *b,
                     uint64_t n, double *tmp) {
  if (k == 'R') {
    for (uint64_t i = 0; i < n; i++) tmp[i] = zn_ev_r(e, a[i] - b[i]);
    return zn_ev_r(e, exp(zn_ev_r(e, -s->gamma * zn_ev_dot(e, tmp, 1, tmp, 1, n))));
  }
  double d = zn_ev_dot(e, a, 1, b, 1, n);
  if (k == 'L') return d;
  d = zn_ev_r(e, zn_ev_r(e, s->gamma * d) + s->coef0);
  return zn_ev_r(e, k == 'P' ? pow(d, s->degree) : tanh(d));
}

zn_status zn_eval_ml_svmregressor(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  svm s;
  svm_init(e, &s, false);
  uint64_t rows, cols, n = (uint64_t)zn_node_int(e->n, "n_supports");
  shape_rows(x, &rows, &cols);
  bool one = zn_node_int(e->n, "one_class") != 0;
  if (!s.nrho || (n ? s.nsv != n * cols || s.nco < n : s.nco != cols))
    return zn_ev_fail(e, "the support vectors do not fit %llu features", (unsigned long long)cols);
  int64_t dims[2] = {(int64_t)rows, 1};
  ZN_TRY(zn_ev_out(e, 0, ZN_F32, 2, dims));
  double *xd = zn_ev_doubles(e, x), *k = ZN_ARRAY(e->tmp, double, n + 1),
         *tmp = ZN_ARRAY(e->tmp, double, cols + 1);
  for (uint64_t r = 0; r < rows; r++) {
    double y;
    for (uint64_t j = 0; j < n; j++)
      k[j] = kernel(e, &s, s.kernel, xd + r * cols, s.sv + j * cols, cols, tmp);
    y = n ? zn_ev_dot(e, k, 1, s.co, 1, n) : kernel(e, &s, 'L', xd + r * cols, s.co, cols, tmp);
    y = zn_ev_r(e, y + s.rho[0]);
    if (one) y = y > 0 ? 1 : -1;
    zn_ev_post(e, zn_node_str(e->n, "post_transform"), &y, 1);
    e->out[0].u.f[r] = y;
  }
  return ZN_OK;
}

/* Pairwise probabilities R to class probabilities, the second method of Wu, Lin and Weng (JMLR 5,
 * 2004). */
static void couple(const double *R, uint64_t k, double *P, double *Q, double *Qp) {
  for (uint64_t t = 0; t < k; t++) {
    P[t] = 1 / (double)k;
    Q[t * k + t] = 0;
    for (uint64_t j = 0; j < k; j++) {
      if (j == t) continue;
      Q[t * k + t] += R[j * k + t] * R[j * k + t];
      Q[t * k + j] = -R[j * k + t] * R[t * k + j];
    }
  }
  for (uint64_t iter = 0, max = k > 100 ? k : 100; iter < max; iter++) {
    double pqp = 0, worst = 0;
    for (uint64_t t = 0; t < k; t++) {
      Qp[t] = 0;
      for (uint64_t j = 0; j < k; j++) Qp[t] += Q[t * k + j] * P[j];
      pqp += P[t] * Qp[t];
    }
    for (uint64_t t = 0; t < k; t++) worst = fmax(worst, fabs(Qp[t] - pqp));
    if (worst < 0.005 / (double)k) break;
    for (uint64_t t = 0; t < k; t++) {
      double d = (pqp - Qp[t]) / Q[t * k + t];
      P[t] += d;
      pqp = (pqp + d * (d * Q[t * k + t] + 2 * Qp[t])) / (1 + d) / (1 + d);
      for (uint64_t j = 0; j < k; j++) {
        Qp[j] = (Qp[j] + d * Q[t * k + j]) / (1 + d);
        P[j] /= 1 + d;
      }
    }
  }
}

zn_status zn_eval_pairwisecoupling(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  uint64_t C = (uint64_t)zn_node_int(e->n, "classes"), pairs = C * (C - 1) / 2;
  if (x->rank != 2 || (uint64_t)x->dims[1] != pairs) return zn_ev_fail(e, "the pairs do not fit the classes");
  int64_t dims[2] = {x->dims[0], (int64_t)C};
  double *mem = ZN_ARRAY(e->tmp, double, 2 * C * C + C + 1), *R = mem, *Q = mem + C * C, *Qp = Q + C * C;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, 2, dims));
  for (int64_t r = 0; r < dims[0]; r++) {
    const double *p = x->u.f + (uint64_t)r * pairs;
    for (uint64_t i = 0, at = 0; i < C; i++)
      for (uint64_t j = i + 1; j < C; j++, at++) {
        R[i * C + j] = p[at];
        R[j * C + i] = 1 - p[at];
      }
    couple(R, C, e->out[0].u.f + (uint64_t)r * C, Q, Qp);
  }
  return ZN_OK;
}

typedef struct svc {
  svm s;
  labels lab;
  const int64_t *per; /* support vectors per class */
  uint64_t C, V, cols;
  bool proba, positive;
} svc;

/* Scores of one row (votes in `votes` when there are support vectors); returns how many scores. */
static uint64_t svc_scores(const zn_ev *e, const svc *m, const double *x, double *score,
                           double *votes, double *k, double *tmp) {
  if (!m->V) {
    for (uint64_t c = 0; c < m->C; c++)
      score[c] = zn_ev_r(e, m->s.rho[0] +
                                kernel(e, &m->s, 'L', x, m->s.co + c * m->cols, m->cols, tmp));
    return m->C;
  }
  for (uint64_t j = 0; j < m->V; j++)
    k[j] = kernel(e, &m->s, m->s.kernel, x, m->s.sv + j * m->cols, m->cols, tmp);
  uint64_t at = 0, si = 0;
  memset(votes, 0, m->C * sizeof *votes);
  for (uint64_t i = 0; i < m->C; si += (uint64_t)m->per[i++]) {
    uint64_t sj = si + (uint64_t)m->per[i];
    for (uint64_t j = i + 1; j < m->C; sj += (uint64_t)m->per[j++]) {
      double a = zn_ev_dot(e, m->s.co + (j - 1) * m->V + si, 1, k + si, 1, (uint64_t)m->per[i]);
      double b = zn_ev_dot(e, m->s.co + i * m->V + sj, 1, k + sj, 1, (uint64_t)m->per[j]);
      score[at] = zn_ev_r(e, m->s.rho[at] + zn_ev_r(e, a + b));
      votes[score[at] > 0 ? i : j]++;
      at++;
    }
  }
  return at;
}

static void svc_probabilities(const svc *m, const double *score, double *P, double *mem) {
  uint64_t C = m->C, at = 0;
  double *R = mem, *Q = mem + C * C, *Qp = Q + C * C;
  for (uint64_t i = 0; i < C; i++)
    for (uint64_t j = i + 1; j < C; j++, at++) {
      double p = 1 - logistic(score[at] * m->s.pa[at] + m->s.pb[at]);
      p = p < 1e-7 ? 1e-7 : p > 1 - 1e-7 ? 1 - 1e-7 : p;
      R[i * C + j] = p;
      R[j * C + i] = 1 - p;
    }
  couple(R, C, P, Q, Qp);
}

/* Two scores from one, as classifiers with a single decision value write them. */
static uint64_t widen(const zn_ev *e, const char *post, int add, double *y) {
  double s = y[0];
  if (strcmp(post, "PROBIT") == 0) {
    y[0] = probit(s);
    return 1;
  }
  if (add < 0) return 1;
  y[0] = add < 2 ? 1 - s : -s;
  y[1] = s;
  if (add >= 2 && strcmp(post, "NONE") != 0) zn_ev_post(e, post, y, 2);
  return 2;
}

static zn_status svc_init(zn_ev *e, svc *m, uint64_t cols) {
  memset(m, 0, sizeof *m);
  svm_init(e, &m->s, true);
  uint32_t np;
  m->lab = labels_of(e);
  m->per = zn_node_ints(e->n, "vectors_per_class", &np);
  m->C = m->lab.n ? m->lab.n : 1;
  m->cols = cols;
  for (uint32_t i = 0; i < np; i++) m->V += (uint64_t)m->per[i];
  uint64_t pairs = m->C * (m->C - 1) / 2;
  if (m->V ? np != m->C || m->s.nsv != m->V * cols || m->s.nco != (m->C - 1) * m->V ||
                 m->s.nrho < pairs
           : m->s.nco != m->C * cols || m->s.nrho < 1)
    return zn_ev_fail(e, "the support vectors do not fit %llu features and %llu classes",
                      (unsigned long long)cols, (unsigned long long)m->C);
  m->proba = m->V && m->s.npa > 0;
  if (m->proba && (m->s.npa < pairs || m->s.npb < pairs))
    return zn_ev_fail(e, "prob_a and prob_b are too short");
  m->positive = true;
  for (uint32_t i = 0; i < m->s.nco; i++) m->positive = m->positive && m->s.co[i] >= 0;
  return ZN_OK;
}

/* Label of one row: an index into the labels, or (plain) the label itself for the classes 1 and 0.
 */
static uint64_t svc_label(const svc *m, const double *pick, uint64_t n, int *add, bool *plain) {
  uint64_t best = best_of(pick, n);
  double w = pick[best];
  *add = -1;
  *plain = false;
  if (m->s.nrho != 1) return best;
  *add = 2;
  if (m->lab.n == 2) return !m->proba && m->positive && w >= 0.5 ? 1 : best;
  *plain = true;
  return w > 0;
}

zn_status zn_eval_ml_svmclassifier(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  const char *post = zn_node_str(e->n, "post_transform");
  uint64_t rows, cols, W = 0;
  svc m;
  shape_rows(x, &rows, &cols);
  ZN_TRY(svc_init(e, &m, cols));
  uint64_t pairs = m.C * (m.C - 1) / 2, room = pairs + m.C + 2;
  double *xd = zn_ev_doubles(e, x), *y = ZN_ARRAY(e->tmp, double, room),
         *votes = ZN_ARRAY(e->tmp, double, m.C + 1), *P = ZN_ARRAY(e->tmp, double, room),
         *k = ZN_ARRAY(e->tmp, double, m.V + 1), *tmp = ZN_ARRAY(e->tmp, double, cols + 1),
         *mem = ZN_ARRAY(e->tmp, double, 2 * m.C * m.C + m.C + 1),
         *all = ZN_ARRAY(e->tmp, double, rows *room + 1);
  int64_t dims[2] = {(int64_t)rows, 0};
  ZN_TRY(zn_ev_out(e, 0, m.lab.strs && !m.lab.ints ? ZN_STR : ZN_I64, 1, dims));
  for (uint64_t r = 0; r < rows; r++) {
    uint64_t n = svc_scores(e, &m, xd + r * cols, y, votes, k, tmp);
    if (m.proba) {
      svc_probabilities(&m, y, P, mem);
      memcpy(y, P, m.C * sizeof *y);
      n = m.C;
    }
    int add;
    bool plain;
    uint64_t best = svc_label(&m, m.V ? votes : y, m.V ? m.C : n, &add, &plain);
    if (plain && e->out[0].dtype == ZN_I64) e->out[0].u.i[r] = (int64_t)best;
    else put_label(&e->out[0], r, &m.lab, best);
    if (n == 1) n = widen(e, post, add, y);
    else zn_ev_post(e, post, y, n);
    memcpy(all + r * n, y, n * sizeof *y);
    W = n;
  }
  dims[1] = (int64_t)(rows ? W : m.C);
  ZN_TRY(zn_ev_out(e, 1, ZN_F32, 2, dims));
  memcpy(e->out[1].u.f, all, rows * W * sizeof *all);
  return ZN_OK;
}
