/* Attention and its relatives: scaled dot-product attention with masks, windows and caches,
 * FlexAttention, rotary embeddings, linear attention, the causal convolution with state, SwiGLU. */
#include "zenithc/eval/eval_impl.h"

/* [B, H, S, D] operand, given as rank 4 or packed as [B, S, H*D]. */
typedef struct heads {
  const double *p;
  int64_t B, H, S, D, sb, sh, ss;
} heads;

static zn_status heads_of(zn_ev *e, const zn_eval_val *v, int64_t num, heads *h) {
  h->p = v->u.f;
  if (v->rank == 4) {
    *h = (heads){v->u.f, v->dims[0], v->dims[1], v->dims[2], v->dims[3], 0, 0, v->dims[3]};
    h->sh = h->S * h->D;
    h->sb = h->H * h->sh;
    return ZN_OK;
  }
  if (v->rank != 3 || num < 1 || v->dims[2] % num)
    return zn_ev_fail(e, "%lld heads do not divide the hidden size", (long long)num);
  *h = (heads){v->u.f, v->dims[0], num, v->dims[1], v->dims[2] / num, 0, 0, v->dims[2]};
  h->sh = h->D;
  h->sb = h->S * v->dims[2];
  return ZN_OK;
}

/* Rank-4 concatenation of past [B,H,P,D] (may be NULL) and the new heads. */
static zn_status present(zn_ev *e, const zn_eval_val *past, const heads *h, zn_dtype t,
                         zn_eval_val *out) {
  int64_t P = past ? past->dims[2] : 0, dims[4] = {h->B, h->H, P + h->S, h->D};
  if (past &&
      (past->rank != 4 || past->dims[0] != h->B || past->dims[1] != h->H || past->dims[3] != h->D))
    return zn_ev_fail(e, "the past cache does not fit the new keys");
  ZN_TRY(zn_ev_new(e, t, 4, dims, out));
  for (int64_t b = 0; b < h->B; b++)
    for (int64_t n = 0; n < h->H; n++) {
      double *o = out->u.f + (b * h->H + n) * dims[2] * h->D;
      if (past) memcpy(o, past->u.f + (b * h->H + n) * P * h->D, (size_t)(P * h->D) * sizeof *o);
      for (int64_t s = 0; s < h->S; s++)
        memcpy(o + (P + s) * h->D, h->p + b * h->sb + n * h->sh + s * h->ss,
               (size_t)h->D * sizeof *o);
    }
  return ZN_OK;
}

typedef struct attn {
  heads q;
  const double *k, *v; /* [B, Hk, S, D] */
  int64_t Hk, S, Dv, past, left, right;
  double scale, cap;
  bool causal;
  const zn_eval_val *mask, *len;
  int64_t ms[4], mlast; /* mask strides; its last extent */
} attn;

/* Additive bias of query i, key j: 0, the mask's number, or -inf. */
static double bias_at(const attn *a, int64_t b, int64_t h, int64_t i, int64_t j) {
  int64_t off = a->len ? a->len->u.i[b] - a->q.S : a->past, p = off + i;
  if ((a->causal && j > p) || (a->left >= 0 && p - j > a->left) ||
      (a->right >= 0 && j - p > a->right))
    return -INFINITY;
  if (a->len && j >= a->len->u.i[b]) return -INFINITY;
  if (!a->mask) return 0;
  if (j >= a->mlast) return -INFINITY; /* a shorter mask is padded */
  int64_t at = b * a->ms[0] + h * a->ms[1] + i * a->ms[2] + j * a->ms[3];
  if (a->mask->dtype == ZN_BOOL) return a->mask->u.i[at] ? 0 : -INFINITY;
  return zn_ev_get(a->mask, (uint64_t)at);
}

/* The F32 modes round inner tensors to the type of Q, as the operator's function body has them. */
static double inner(const zn_ev *e, double x) {
  zn_dtype t = (zn_dtype)e->in[0]->dtype;
  if (!e->single) return x;
  if (t != ZN_F16 && t != ZN_BF16) return zn_ev_r(e, x);
  return e->mode >= ZN_EVAL_F32_RANDOM ? zn_ev_jitter(e->mode, t, x) : zn_eval_round(t, x);
}

/* One query row: probabilities in p; *tap gets the number that qk_matmul_output asks for. */
static void attn_row(const zn_ev *e, const attn *a, int64_t b, int64_t h, int64_t i, double *p,
                     double *tap, int64_t mode) {
  const double *q = a->q.p + b * a->q.sb + h * a->q.sh + i * a->q.ss;
  int64_t hk = h / (a->q.H / a->Hk);
  double root = inner(e, sqrt(a->scale)), qs[1024];
  double *qv = a->q.D <= 1024 ? qs : malloc((size_t)a->q.D * sizeof *qv);
  if (!qv) abort(); /* one head */
  for (int64_t d = 0; d < a->q.D; d++)
    qv[d] = e->mode == ZN_EVAL_F64 ? q[d] * a->scale : inner(e, q[d] * root);
  bool any = false;
  for (int64_t j = 0; j < a->S; j++) {
    const double *k = a->k + ((b * a->Hk + hk) * a->S + j) * a->q.D;
    double s = zn_ev_dot(e, qv, 1, k, 1, (uint64_t)a->q.D), m = bias_at(a, b, h, i, j);
    if (e->mode != ZN_EVAL_F64) s = inner(e, s * root);
    if (tap && mode == 0) tap[j] = s;
    if (a->cap > 0) s = inner(e, a->cap * inner(e, tanh(inner(e, s / a->cap))));
    if (tap && mode == 1) tap[j] = s;
    if (m > -INFINITY) any = true;
    p[j] = m == -INFINITY ? -INFINITY : inner(e, s + m);
    if (tap && mode == 2) tap[j] = p[j];
  }
  if (any) zn_ev_softmax(e, p, (uint64_t)a->S, false);
  for (int64_t j = 0; j < a->S; j++) {
    p[j] = any ? inner(e, p[j]) : 0;
    if (tap && mode == 3) tap[j] = p[j];
  }
  if (qv != qs) free(qv);
}

static zn_status attn_mask(zn_ev *e, attn *a) {
  const zn_eval_val *m = a->mask;
  if (!m) return ZN_OK;
  int64_t want[4] = {a->q.B, a->q.H, a->q.S, a->S}, st[ZN_MAX_RANK];
  if (m->rank > 4 || m->rank == 0) return zn_ev_fail(e, "the mask has rank %u", m->rank);
  zn_ev_strides(m->rank, m->dims, st);
  a->mlast = m->dims[m->rank - 1];
  for (uint32_t d = 0; d < m->rank; d++) {
    uint32_t o = 4 - m->rank + d;
    bool last = d + 1 == m->rank;
    if (m->dims[d] != 1 && m->dims[d] != want[o] && !(last && m->dims[d] < want[o]))
      return zn_ev_fail(e, "the mask does not broadcast to [batch, heads, query, key]");
    a->ms[o] = m->dims[d] == 1 ? 0 : st[d];
  }
  return ZN_OK;
}

zn_status zn_eval_attention(zn_ev *e) {
  const zn_eval_val *Q = e->in[0], *pk = zn_ev_in(e, 4), *pv = zn_ev_in(e, 5);
  const zn_attr *sc = zn_node_attr(e->n, "scale"), *nq = zn_node_attr(e->n, "q_num_heads"),
                *nk = zn_node_attr(e->n, "kv_num_heads");
  attn a = {.mask = zn_ev_in(e, 3),
            .len = zn_ev_in(e, 6),
            .causal = zn_node_int(e->n, "is_causal") != 0,
            .cap = zn_node_float(e->n, "softcap"),
            .left = zn_node_int(e->n, "left_window_size"),
            .right = zn_node_int(e->n, "right_window_size"),
            .past = pk ? pk->dims[2] : 0};
  heads k = {0}, v = {0};
  ZN_TRY(heads_of(e, Q, nq ? nq->u.i : 0, &a.q));
  ZN_TRY(heads_of(e, e->in[1], nk ? nk->u.i : 0, &k));
  ZN_TRY(heads_of(e, e->in[2], nk ? nk->u.i : 0, &v));
  zn_eval_val K, V;
  ZN_TRY(present(e, pk, &k, (zn_dtype)e->in[1]->dtype, &K));
  ZN_TRY(present(e, pv, &v, (zn_dtype)e->in[2]->dtype, &V));
  if (k.H == 0 || a.q.H % k.H || k.D != a.q.D || K.dims[2] != V.dims[2] || k.B != a.q.B)
    return zn_ev_fail(e, "Q, K and V do not fit together");
  a.k = K.u.f;
  a.v = V.u.f;
  a.Hk = k.H;
  a.S = K.dims[2];
  a.Dv = v.D;
  a.scale = sc ? sc->u.f : 1 / sqrt((double)a.q.D);
  ZN_TRY(attn_mask(e, &a));
  int64_t d4[4] = {a.q.B, a.q.H, a.q.S, a.Dv}, d3[3] = {a.q.B, a.q.S, a.q.H * a.Dv},
          dq[4] = {a.q.B, a.q.H, a.q.S, a.S};
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)Q->dtype, Q->rank == 4 ? 4 : 3, Q->rank == 4 ? d4 : d3));
  if (zn_ev_wants(e, 3)) ZN_TRY(zn_ev_out(e, 3, (zn_dtype)Q->dtype, 4, dq));
  double *p = ZN_ARRAY(e->tmp, double, a.S + 1), *y = e->out[0].u.f;
  int64_t mode = zn_node_int(e->n, "qk_matmul_output_mode");
  for (int64_t r = 0; r < a.q.B * a.q.H * a.q.S; r++) {
    int64_t b = r / (a.q.H * a.q.S), h = r / a.q.S % a.q.H, i = r % a.q.S;
    attn_row(e, &a, b, h, i, p, zn_ev_wants(e, 3) ? e->out[3].u.f + r * a.S : NULL, mode);
    int64_t at = Q->rank == 4 ? r * a.Dv : (b * a.q.S + i) * a.q.H * a.Dv + h * a.Dv;
    const double *vh = a.v + (b * a.Hk + h / (a.q.H / a.Hk)) * a.S * a.Dv;
    for (int64_t d = 0; d < a.Dv; d++)
      y[at + d] = zn_ev_dot(e, p, 1, vh + d, (uint64_t)a.Dv, (uint64_t)a.S);
  }
  if (zn_ev_wants(e, 1)) e->out[1] = K;
  else zn_ev_release(e->run, &K);
  if (zn_ev_wants(e, 2)) e->out[2] = V;
  else zn_ev_release(e->run, &V);
  return ZN_OK;
}

/* Calls the modifier body on x [B,H,L,S], which it replaces. */
static zn_status modify(zn_ev *e, const char *name, zn_eval_val *x) {
  const zn_attr *at = zn_node_attr(e->n, name);
  if (!at) return ZN_OK;
  uint32_t nc = e->n->num_captures;
  zn_eval_val *in = ZN_ARRAY(e->tmp, zn_eval_val, nc + 1), out;
  in[0] = *x;
  for (uint32_t i = 0; i < nc; i++)
    if (e->in[e->num_in - nc + i]) in[1 + i] = *e->in[e->num_in - nc + i];
  zn_evframe *f = zn_ev_frame(e->run, at->u.g);
  zn_status st = at->u.g->num_outputs == 1 ? zn_ev_call(f, in, nc + 1, &out)
                                           : zn_ev_fail(e, "%s must have one output", name);
  zn_ev_frame_free(f);
  if (st != ZN_OK) return st;
  if (out.count != x->count) return zn_ev_fail(e, "%s changes the shape", name);
  zn_ev_release(e->run, x);
  *x = out;
  return ZN_OK;
}

zn_status zn_eval_pv_flexattention(zn_ev *e) {
  heads q = {0}, k = {0}, v = {0};
  ZN_TRY(heads_of(e, e->in[0], 0, &q));
  ZN_TRY(heads_of(e, e->in[1], 0, &k));
  ZN_TRY(heads_of(e, e->in[2], 0, &v));
  if (k.H == 0 || q.H % k.H || k.D != q.D || v.S != k.S)
    return zn_ev_fail(e, "Q, K and V do not fit together");
  const zn_attr *sc = zn_node_attr(e->n, "scale"), *pr = zn_node_attr(e->n, "softmax_precision");
  double scale = sc ? sc->u.f : 1 / sqrt((double)q.D);
  zn_dtype st = pr ? zn_dtype_from_onnx((int)pr->u.i) : e->in[0]->dtype == ZN_F64 ? ZN_F64 : ZN_F32;
  int64_t dims[4] = {q.B, q.H, q.S, k.S}, od[4] = {q.B, q.H, q.S, v.D};
  zn_eval_val s;
  ZN_TRY(zn_ev_new(e, st, 4, dims, &s));
  for (int64_t r = 0; r < q.B * q.H * q.S; r++)
    for (int64_t j = 0; j < k.S; j++)
      s.u.f[r * k.S + j] = zn_ev_r(
          e,
          scale * zn_ev_dot(
                      e, q.p + r * q.D, 1,
                      k.p + ((r / (q.H * q.S) * k.H + r / q.S % q.H / (q.H / k.H)) * k.S + j) * k.D,
                      1, (uint64_t)q.D));
  ZN_TRY(modify(e, "score_mod", &s));
  zn_eval_val p;
  ZN_TRY(zn_ev_new(e, st, 4, dims, &p));
  memcpy(p.u.f, s.u.f, s.count * sizeof(double));
  zn_ev_release(e->run, &s);
  for (int64_t r = 0; r < q.B * q.H * q.S; r++)
    zn_ev_softmax(e, p.u.f + r * k.S, (uint64_t)k.S, false);
  ZN_TRY(modify(e, "prob_mod", &p));
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)e->in[0]->dtype, 4, od));
  for (int64_t r = 0; r < q.B * q.H * q.S; r++) {
    const double *vh = v.p + (r / (q.H * q.S) * k.H + r / q.S % q.H / (q.H / k.H)) * v.sh;
    for (int64_t d = 0; d < v.D; d++)
      e->out[0].u.f[r * v.D + d] = zn_ev_dot(e, p.u.f + r * k.S, 1, vh + d, (uint64_t)v.D,
                                             (uint64_t)k.S);
  }
  zn_ev_release(e->run, &p);
  return ZN_OK;
}

zn_status zn_eval_rotaryembedding(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *cs = e->in[1], *sn = e->in[2], *pos = zn_ev_in(e, 3);
  const zn_attr *nh = zn_node_attr(e->n, "num_heads");
  bool inter = zn_node_int(e->n, "interleaved") != 0;
  int64_t rot = zn_node_int(e->n, "rotary_embedding_dim");
  heads h = {0};
  ZN_TRY(heads_of(e, x, nh ? nh->u.i : 0, &h));
  if (rot == 0) rot = h.D;
  int64_t half = rot / 2;
  if (rot > h.D || rot % 2 || cs->rank != (pos ? 2U : 3U) || cs->dims[cs->rank - 1] != half ||
      sn->count != cs->count)
    return zn_ev_fail(e, "the caches do not fit a rotary dimension of %lld", (long long)rot);
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, x->rank, x->dims));
  memcpy(e->out[0].u.f, x->u.f, x->count * sizeof(double));
  for (int64_t b = 0; b < h.B; b++)
    for (int64_t s = 0; s < h.S; s++) {
      int64_t row = pos ? pos->u.i[pos->count == 1 ? 0 : b * h.S + s] : b * h.S + s;
      if (row < 0 || (uint64_t)((row + 1) * half) > cs->count)
        return zn_ev_fail(e, "position %lld is outside the cache", (long long)row);
      const double *c = cs->u.f + row * half, *si = sn->u.f + row * half;
      for (int64_t n = 0; n < h.H; n++) {
        const double *in = h.p + b * h.sb + n * h.sh + s * h.ss;
        double *o = e->out[0].u.f + (in - h.p);
        for (int64_t i = 0; i < half; i++) {
          int64_t p = inter ? 2 * i : i, q = inter ? 2 * i + 1 : half + i;
          o[p] = zn_ev_r(e, zn_ev_r(e, c[i] * in[p]) - zn_ev_r(e, si[i] * in[q]));
          o[q] = zn_ev_r(e, zn_ev_r(e, si[i] * in[p]) + zn_ev_r(e, c[i] * in[q]));
        }
      }
    }
  return ZN_OK;
}

/* One token for one key/value head: the state S [dk, dv] is updated in place. */
static void linear_step(const zn_ev *e, double *S, const double *k, const double *v,
                        const double *g, bool g_vec, double beta, bool delta, int64_t dk,
                        int64_t dv, double *tmp) {
  for (int64_t i = 0; g && i < dk; i++) {
    double d = zn_ev_r(e, exp(g[g_vec ? i : 0]));
    for (int64_t j = 0; j < dv; j++) S[i * dv + j] = zn_ev_r(e, S[i * dv + j] * d);
  }
  for (int64_t j = 0; j < dv; j++) {
    tmp[j] = v[j];
    if (delta)
      tmp[j] = zn_ev_r(
          e, beta * zn_ev_r(e, v[j] - zn_ev_dot(e, k, 1, S + j, (uint64_t)dv, (uint64_t)dk)));
  }
  for (int64_t i = 0; i < dk; i++)
    for (int64_t j = 0; j < dv; j++)
      S[i * dv + j] = zn_ev_r(e, S[i * dv + j] + zn_ev_r(e, k[i] * tmp[j]));
}

zn_status zn_eval_linearattention(zn_ev *e) {
  const zn_eval_val *past = zn_ev_in(e, 3), *decay = zn_ev_in(e, 4), *beta = zn_ev_in(e, 5);
  heads q = {0}, k = {0}, v = {0};
  int64_t nk = zn_node_int(e->n, "kv_num_heads");
  ZN_TRY(heads_of(e, e->in[0], zn_node_int(e->n, "q_num_heads"), &q));
  ZN_TRY(heads_of(e, e->in[1], nk, &k));
  ZN_TRY(heads_of(e, e->in[2], nk, &v));
  const char *rule = zn_node_str(e->n, "update_rule");
  bool gated = strncmp(rule, "gated", 5) == 0, delta = strstr(rule, "delta") != NULL;
  if (q.H % k.H || q.D != k.D || v.H != k.H || (gated && !decay) || (delta && !beta))
    return zn_ev_fail(e, "the operands do not fit the update rule");
  double scale = zn_node_float(e->n, "scale");
  if (scale == 0) scale = 1 / sqrt((double)q.D);
  int64_t sd[4] = {q.B, k.H, k.D, v.D}, od[3] = {q.B, q.S, q.H * v.D};
  zn_dtype st = past ? (zn_dtype)past->dtype : (zn_dtype)e->in[0]->dtype;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)e->in[0]->dtype, 3, od));
  zn_eval_val S;
  ZN_TRY(zn_ev_new(e, st, 4, sd, &S));
  if (past && past->count == S.count) memcpy(S.u.f, past->u.f, S.count * sizeof(double));
  double *tmp = ZN_ARRAY(e->tmp, double, v.D + 1);
  int64_t gw = decay ? decay->dims[2] / k.H : 0, bw = beta ? beta->dims[2] : 0;
  for (int64_t b = 0; b < q.B; b++)
    for (int64_t t = 0; t < q.S; t++)
      for (int64_t h = 0; h < k.H; h++) {
        double *s = S.u.f + (b * k.H + h) * k.D * v.D;
        const double *g = gated ? decay->u.f + (b * q.S + t) * decay->dims[2] + h * gw : NULL;
        double bt = delta ? beta->u.f[(b * q.S + t) * bw + (bw == 1 ? 0 : h)] : 1;
        linear_step(e, s, k.p + b * k.sb + t * k.ss + h * k.D, v.p + b * v.sb + t * v.ss + h * v.D,
                    g, gw > 1, bt, delta, k.D, v.D, tmp);
        for (int64_t n = h * (q.H / k.H); n < (h + 1) * (q.H / k.H); n++)
          for (int64_t j = 0; j < v.D; j++)
            e->out[0].u.f[((b * q.S + t) * q.H + n) * v.D + j] = zn_ev_r(
                e, scale * zn_ev_dot(e, q.p + b * q.sb + t * q.ss + n * q.D, 1, s + j,
                                     (uint64_t)v.D, (uint64_t)k.D));
      }
  if (e->num_out > 1 && zn_ev_wants(e, 1)) e->out[1] = S;
  else zn_ev_release(e->run, &S);
  return ZN_OK;
}

zn_status zn_eval_causalconvwithstate(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *w = e->in[1], *bias = zn_ev_in(e, 2), *past = zn_ev_in(e, 3);
  if (x->rank != 3 || w->rank != 3 || w->dims[0] != x->dims[1])
    return zn_ev_fail(e, "input and weight must be [batch, channels, length] and [channels, 1, k]");
  int64_t B = x->dims[0], C = x->dims[1], L = x->dims[2], K = w->dims[2], sd[3] = {B, C, K - 1};
  bool silu = strcmp(zn_node_str(e->n, "activation"), "none") != 0;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, 3, x->dims));
  if (zn_ev_wants(e, 1)) ZN_TRY(zn_ev_out(e, 1, (zn_dtype)x->dtype, 3, sd));
  double *line = ZN_ARRAY(e->tmp, double, L + K);
  for (int64_t bc = 0; bc < B * C; bc++) {
    for (int64_t i = 0; i < K - 1; i++) line[i] = past ? past->u.f[bc * (K - 1) + i] : 0;
    memcpy(line + K - 1, x->u.f + bc * L, (size_t)L * sizeof *line);
    for (int64_t i = 0; i < L; i++) {
      double s = zn_ev_dot(e, line + i, 1, w->u.f + bc % C * K, 1, (uint64_t)K);
      if (bias) s = zn_ev_r(e, s + bias->u.f[bc % C]);
      e->out[0].u.f[bc * L + i] = silu ? zn_ev_r(e, s * zn_ev_r(e, 1 / (1 + exp(-s)))) : s;
    }
    if (zn_ev_wants(e, 1) && K > 1)
      memcpy(e->out[1].u.f + bc * (K - 1), line + L, (size_t)(K - 1) * sizeof *line);
  }
  return ZN_OK;
}

zn_status zn_eval_swiglu(zn_ev *e) {
  const zn_eval_val *a = e->in[0], *b = e->in[1];
  double alpha = zn_node_float(e->n, "alpha");
  if (a->count != b->count) return zn_ev_fail(e, "A and B differ in shape");
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)a->dtype, a->rank, a->dims));
  for (uint64_t i = 0; i < a->count; i++) {
    double x = a->u.f[i], s = zn_ev_r(e, 1 / (1 + zn_ev_r(e, exp(-zn_ev_r(e, alpha * x)))));
    e->out[0].u.f[i] = zn_ev_r(e, zn_ev_r(e, x * s) * b->u.f[i]);
  }
  return ZN_OK;
}
