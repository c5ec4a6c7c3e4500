/* RNN, GRU and LSTM, as the operator pages write the equations. */
#include <strings.h>

#include "zenithc/eval/eval_impl.h"

typedef struct act {
  char name[24];
  double alpha, beta;
} act;

typedef struct rnn {
  const zn_ev *e;
  uint64_t T, B, I, H, D, G; /* steps, batch, input, hidden, directions, gates */
  bool layout;
  double clip; /* 0: none */
  act f[2][3];
  bool reverse_only;
  bool linear_before_reset, input_forget;
  const zn_eval_val *X, *W, *R, *bias, *len, *h0, *c0, *P;
} rnn;

static double activate(const rnn *r, const act *a, double x) {
  const zn_ev *e = r->e;
  if (r->clip > 0) x = x > r->clip ? r->clip : x < -r->clip ? -r->clip : x;
  const char *n = a->name;
  double y;
  if (strcasecmp(n, "Sigmoid") == 0) y = 1 / (1 + exp(-x));
  else if (strcasecmp(n, "Tanh") == 0) y = tanh(x);
  else if (strcasecmp(n, "Relu") == 0) y = x > 0 ? x : 0;
  else if (strcasecmp(n, "Affine") == 0) y = a->alpha * x + a->beta;
  else if (strcasecmp(n, "LeakyRelu") == 0) y = x >= 0 ? x : a->alpha * x;
  else if (strcasecmp(n, "ThresholdedRelu") == 0) y = x >= a->alpha ? x : 0;
  else if (strcasecmp(n, "ScaledTanh") == 0) y = a->alpha * tanh(a->beta * x);
  else if (strcasecmp(n, "HardSigmoid") == 0) y = fmin(fmax(a->alpha * x + a->beta, 0), 1);
  else if (strcasecmp(n, "Elu") == 0) y = x >= 0 ? x : a->alpha * expm1(x);
  else if (strcasecmp(n, "Softsign") == 0) y = x / (1 + fabs(x));
  else y = log1p(exp(-fabs(x))) + (x > 0 ? x : 0); /* Softplus */
  return zn_ev_r(e, y);
}

static bool uses(const char *name, bool beta, double *def) {
  static const struct {
    const char *n;
    bool a, b;
    double da, db;
  } t[] = {{"Affine", 1, 1, 1, 0},          {"LeakyRelu", 1, 0, 0.01, 0},
           {"ThresholdedRelu", 1, 0, 1, 0}, {"ScaledTanh", 1, 1, 1, 1},
           {"HardSigmoid", 1, 1, 0.2, 0.5}, {"Elu", 1, 0, 1, 0}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++)
    if (strcasecmp(name, t[i].n) == 0) {
      *def = beta ? t[i].db : t[i].da;
      return beta ? t[i].b : t[i].a;
    }
  return false;
}

static zn_status read_acts(zn_ev *e, rnn *r, uint32_t per) {
  static const char *const known[] = {
      "Sigmoid",    "Tanh",        "Relu", "Affine",   "LeakyRelu", "ThresholdedRelu",
      "ScaledTanh", "HardSigmoid", "Elu",  "Softsign", "Softplus"};
  const zn_attr *names = zn_node_attr(e->n, "activations");
  uint32_t na, nb, ia = 0, ib = 0;
  const double *al = zn_node_floats(e->n, "activation_alpha", &na),
               *be = zn_node_floats(e->n, "activation_beta", &nb);
  for (uint32_t d = 0; d < r->D; d++)
    for (uint32_t k = 0; k < per; k++) {
      act *a = &r->f[d][k];
      const char *s = k == 0 && per > 1 ? "Sigmoid" : "Tanh";
      zn_str given = {s, strlen(s)};
      if (names && names->n > d * per + k) given = names->u.ss[d * per + k];
      if (given.len >= sizeof a->name) return zn_ev_fail(e, "unknown activation");
      memcpy(a->name, given.ptr, given.len);
      a->name[given.len] = 0;
      bool ok = false;
      for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        ok = ok || strcasecmp(a->name, known[i]) == 0;
      if (!ok) return zn_ev_fail(e, "unknown activation '%s'", a->name);
      if (uses(a->name, false, &a->alpha) && ia < na) a->alpha = al[ia++];
      if (uses(a->name, true, &a->beta) && ib < nb) a->beta = be[ib++];
    }
  return ZN_OK;
}

/* x.W_row (+ h.R_row) + biases for gate row g of direction d */
static double in_part(const rnn *r, uint64_t d, uint64_t row, const double *x) {
  return zn_ev_dot(r->e, x, 1, r->W->u.f + (d * r->G * r->H + row) * r->I, 1, r->I);
}
static double rec_part(const rnn *r, uint64_t d, uint64_t row, const double *h) {
  return zn_ev_dot(r->e, h, 1, r->R->u.f + (d * r->G * r->H + row) * r->H, 1, r->H);
}
static double bias_at(const rnn *r, uint64_t d, uint64_t row, bool rec) {
  return r->bias ? r->bias->u.f[d * 2 * r->G * r->H + (rec ? r->G * r->H : 0) + row] : 0;
}
static double pre(const rnn *r, uint64_t d, uint64_t row, const double *x, const double *h) {
  double s = zn_ev_r(r->e, in_part(r, d, row, x) + rec_part(r, d, row, h));
  return r->bias ? zn_ev_r(r->e,
                           s + zn_ev_r(r->e, bias_at(r, d, row, false) + bias_at(r, d, row, true)))
                 : s;
}

static void step_rnn(const rnn *r, uint64_t d, const double *x, double *h, double *nh) {
  for (uint64_t j = 0; j < r->H; j++) nh[j] = activate(r, &r->f[d][0], pre(r, d, j, x, h));
  memcpy(h, nh, r->H * sizeof *h);
}

static void step_gru(const rnn *r, uint64_t d, const double *x, double *h, double *buf) {
  const zn_ev *e = r->e;
  uint64_t H = r->H;
  double *z = buf, *rt = buf + H, *rh = buf + 2 * H, *nh = buf + 3 * H;
  for (uint64_t j = 0; j < H; j++) {
    z[j] = activate(r, &r->f[d][0], pre(r, d, j, x, h));
    rt[j] = activate(r, &r->f[d][0], pre(r, d, H + j, x, h));
    rh[j] = zn_ev_r(e, rt[j] * h[j]);
  }
  for (uint64_t j = 0; j < H; j++) {
    double s;
    if (r->linear_before_reset) {
      double lin = zn_ev_r(e, rec_part(r, d, 2 * H + j, h) + bias_at(r, d, 2 * H + j, true));
      s = zn_ev_r(e, in_part(r, d, 2 * H + j, x) + zn_ev_r(e, rt[j] * lin));
      s = zn_ev_r(e, s + bias_at(r, d, 2 * H + j, false));
    } else {
      s = pre(r, d, 2 * H + j, x, rh);
    }
    double ht = activate(r, &r->f[d][1], s);
    nh[j] = zn_ev_r(e, zn_ev_r(e, zn_ev_r(e, 1 - z[j]) * ht) + zn_ev_r(e, z[j] * h[j]));
  }
  memcpy(h, nh, H * sizeof *h);
}

static void step_lstm(const rnn *r, uint64_t d, const double *x, double *h, double *c, double *nh) {
  const zn_ev *e = r->e;
  uint64_t H = r->H;
  const double *P = r->P ? r->P->u.f + d * 3 * H : NULL;
  for (uint64_t j = 0; j < H; j++) {
    double pi = pre(r, d, j, x, h), po = pre(r, d, H + j, x, h), pf = pre(r, d, 2 * H + j, x, h);
    if (P) {
      pi = zn_ev_r(e, pi + zn_ev_r(e, P[j] * c[j]));
      pf = zn_ev_r(e, pf + zn_ev_r(e, P[2 * H + j] * c[j]));
    }
    double it = activate(r, &r->f[d][0], pi);
    double ft = r->input_forget ? zn_ev_r(e, 1 - it) : activate(r, &r->f[d][0], pf);
    double ct = activate(r, &r->f[d][1], pre(r, d, 3 * H + j, x, h));
    double nc = zn_ev_r(e, zn_ev_r(e, ft * c[j]) + zn_ev_r(e, it * ct));
    if (P) po = zn_ev_r(e, po + zn_ev_r(e, P[H + j] * nc));
    double ot = activate(r, &r->f[d][0], po);
    act plain = r->f[d][2];
    rnn unclipped = *r;
    unclipped.clip = 0; /* the cell is not clipped before h() */
    nh[j] = zn_ev_r(e, ot * activate(&unclipped, &plain, nc));
    c[j] = nc;
  }
  memcpy(h, nh, H * sizeof *h);
}

static zn_status read_rnn(zn_ev *e, rnn *r) {
  memset(r, 0, sizeof *r);
  r->e = e;
  r->X = e->in[0];
  r->W = e->in[1];
  r->R = e->in[2];
  r->bias = zn_ev_in(e, 3);
  r->len = zn_ev_in(e, 4);
  r->h0 = zn_ev_in(e, 5);
  bool lstm = e->op == ZN_OP_LSTM;
  if (lstm) {
    r->c0 = zn_ev_in(e, 6);
    r->P = zn_ev_in(e, 7);
    r->input_forget = zn_node_int(e->n, "input_forget") != 0;
  }
  r->G = lstm ? 4 : e->op == ZN_OP_GRU ? 3 : 1;
  r->linear_before_reset = e->op == ZN_OP_GRU && zn_node_int(e->n, "linear_before_reset") != 0;
  r->layout = zn_node_int(e->n, "layout") != 0;
  const zn_attr *clip = zn_node_attr(e->n, "clip");
  r->clip = clip ? clip->u.f : 0;
  const char *dir = zn_node_str(e->n, "direction");
  r->reverse_only = strcmp(dir, "reverse") == 0;
  r->D = strcmp(dir, "bidirectional") == 0 ? 2 : 1;
  if (r->X->rank != 3 || r->R->rank != 3 || r->W->rank != 3)
    return zn_ev_fail(e, "X, W and R must have rank 3");
  r->T = (uint64_t)r->X->dims[r->layout];
  r->B = (uint64_t)r->X->dims[!r->layout];
  r->I = (uint64_t)r->X->dims[2];
  r->H = (uint64_t)r->R->dims[2];
  uint64_t rows = r->D * r->G * r->H;
  if (r->W->count != rows * r->I || r->R->count != rows * r->H ||
      (r->bias && r->bias->count != 2 * rows) || (r->h0 && r->h0->count != r->D * r->B * r->H) ||
      (r->c0 && r->c0->count != r->D * r->B * r->H) || (r->P && r->P->count != 3 * r->D * r->H) ||
      (r->len && r->len->count != r->B))
    return zn_ev_fail(e, "the operands' shapes do not fit hidden size %llu",
                      (unsigned long long)r->H);
  return read_acts(e, r, lstm ? 3 : e->op == ZN_OP_GRU ? 2 : 1);
}

static void run_lane(zn_ev *e, const rnn *r, uint64_t d, uint64_t b, double *buf) {
  uint64_t H = r->H, D = r->D, state = r->layout ? (b * D + d) * H : (d * r->B + b) * H;
  double *h = buf, *c = buf + H, *tmp = buf + 2 * H;
  memset(buf, 0, 2 * H * sizeof *buf);
  if (r->h0) memcpy(h, r->h0->u.f + state, H * sizeof *h);
  if (r->c0) memcpy(c, r->c0->u.f + state, H * sizeof *c);
  uint64_t len = r->len ? (uint64_t)(r->len->u.i[b] < 0 ? 0 : r->len->u.i[b]) : r->T;
  if (len > r->T) len = r->T;
  bool rev = d == 1 || r->reverse_only;
  for (uint64_t k = 0; k < len; k++) {
    uint64_t t = rev ? len - 1 - k : k;
    const double *x = r->X->u.f + (r->layout ? b * r->T + t : t * r->B + b) * r->I;
    if (r->G == 1) step_rnn(r, d, x, h, tmp);
    else if (r->G == 3) step_gru(r, d, x, h, tmp);
    else step_lstm(r, d, x, h, c, tmp);
    if (e->out[0].set)
      memcpy(e->out[0].u.f + (r->layout ? (b * r->T + t) * D + d : (t * D + d) * r->B + b) * H, h,
             H * sizeof *h);
  }
  if (e->num_out > 1 && e->out[1].set) memcpy(e->out[1].u.f + state, h, H * sizeof *h);
  if (e->num_out > 2 && e->out[2].set) memcpy(e->out[2].u.f + state, c, H * sizeof *c);
}

zn_status zn_eval_rnn(zn_ev *e) {
  rnn r;
  ZN_TRY(read_rnn(e, &r));
  int64_t T = (int64_t)r.T, B = (int64_t)r.B, D = (int64_t)r.D, H = (int64_t)r.H;
  int64_t y0[4] = {T, D, B, H}, y1[4] = {B, T, D, H}, s0[3] = {D, B, H}, s1[3] = {B, D, H};
  zn_dtype t = (zn_dtype)r.X->dtype;
  if (zn_ev_wants(e, 0)) ZN_TRY(zn_ev_out(e, 0, t, 4, r.layout ? y1 : y0));
  for (uint32_t i = 1; i < 3; i++)
    if (zn_ev_wants(e, i)) ZN_TRY(zn_ev_out(e, i, t, 3, r.layout ? s1 : s0));
  double *buf = ZN_ARRAY(e->tmp, double, 6 * r.H + 1);
  for (uint64_t d = 0; d < r.D; d++)
    for (uint64_t b = 0; b < r.B; b++) run_lane(e, &r, d, b, buf);
  return ZN_OK;
}
