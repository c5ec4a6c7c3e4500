/* Inference of contractions: matrix products, einsum, attention and recurrent networks. */
#include "zenithc/ops/infer_util.h"

#include <inttypes.h>

static zn_status matmul_at(const zn_inf *f, uint32_t ia, uint32_t ib) {
  const zn_type *a = zn_inf_in(f, ia), *b = zn_inf_in(f, ib);
  zn_expr ad[ZN_MAX_RANK], bd[ZN_MAX_RANK], dims[ZN_MAX_RANK + 1];
  if (!zn_inf_known(f, ia) || !zn_inf_known(f, ib)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, ia, 1));
  ZN_TRY(zn_inf_min_rank(f, ib, 1));
  int ra = a->rank, rb = b->rank;
  memcpy(ad, a->dims, sizeof ad);
  memcpy(bd, b->dims, sizeof bd);
  const bool va = ra == 1, vb = rb == 1;
  if (va) ad[1] = ad[0], ad[0] = zn_inf_k(f, 1), ra = 2;
  if (vb) bd[1] = zn_inf_k(f, 1), rb = 2;
  ZN_TRY(zn_inf_same_dim(f, ad[ra - 1], bd[rb - 2], "the contracted extents"));
  int rank = ra - 2;
  for (int d = 0; d < rank; d++) dims[d] = ad[d];
  ZN_TRY(zn_inf_bcast_shape(f, &rank, dims, rb - 2, bd));
  if (!va) dims[rank++] = ad[ra - 2];
  if (!vb) dims[rank++] = bd[rb - 1];
  zn_inf_shape(f, 0, rank, dims);
  return ZN_OK;
}

ZN_INFER(matmul) { return matmul_at(f, 0, 1); }
ZN_INFER(qlinearmatmul) { return matmul_at(f, 0, 3); }
ZN_INFER(matmulinteger) { return matmul_at(f, 0, 1); }

ZN_INFER(gemm) {
  const zn_type *a = zn_inf_in(f, 0), *b = zn_inf_in(f, 1), *cc = zn_inf_in(f, 2);
  ZN_TRY(zn_inf_want_rank(f, 0, 2));
  ZN_TRY(zn_inf_want_rank(f, 1, 2));
  if (!zn_inf_known(f, 0) || !zn_inf_known(f, 1)) return ZN_OK;
  const int ta = zn_node_int(f->nd, "transA") != 0, tb = zn_node_int(f->nd, "transB") != 0;
  ZN_TRY(zn_inf_same_dim(f, a->dims[1 - ta], b->dims[tb], "the contracted extents"));
  const zn_expr dims[2] = {a->dims[ta], b->dims[1 - tb]};
  if (cc && cc->rank >= 0) {
    zn_expr t[ZN_MAX_RANK];
    int r = 2;
    memcpy(t, dims, sizeof dims);
    ZN_TRY(zn_inf_bcast_shape(f, &r, t, cc->rank, cc->dims));
    if (r != 2)
      return zn_inf_err(f, "input 3 'C' has rank %d, which does not broadcast to 2", cc->rank);
  }
  zn_inf_shape(f, 0, 2, dims);
  return ZN_OK;
}

/* ---- Einsum ---- */

typedef struct einsum {
  const zn_inf *f;
  zn_expr letter[128]; /* extent by label */
  bool on_left[128];
  int count[128];
  zn_expr dots[ZN_MAX_RANK];
  int dots_rank;
} einsum;

/* One term from *p to the next ',' or '-' or the end, against type t. */
static zn_status einsum_term(einsum *e, const char **p, const zn_type *t, uint32_t i) {
  int letters = 0, d = 0;
  bool dots = false;
  for (const char *q = *p; *q && *q != ',' && *q != '-'; q++) {
    if (*q == '.') {
      dots = true;
      if (q[1] != '.' || q[2] != '.') return zn_inf_err(e->f, "the equation has a stray '.'");
      q += 2;
    } else if (*q != ' ') {
      letters++;
    }
  }
  if (letters > t->rank || (!dots && letters != t->rank)) {
    return zn_inf_err(e->f, "term %u of the equation has %d labels, the input has rank %d", i + 1,
                      letters, t->rank);
  }
  const int span = t->rank - letters;
  for (; **p && **p != ',' && **p != '-'; (*p)++) {
    const unsigned char ch = (unsigned char)**p;
    if (ch == ' ') continue;
    if (ch == '.') {
      *p += 2;
      ZN_TRY(zn_inf_bcast_shape(e->f, &e->dots_rank, e->dots, span, t->dims + d));
      d += span;
      continue;
    }
    if (ch >= 128 || !((ch | 32) >= 'a' && (ch | 32) <= 'z')) {
      return zn_inf_err(e->f, "the equation has the character '%c'", ch);
    }
    if (e->on_left[ch]) {
      ZN_TRY(zn_inf_bcast(e->f, e->letter[ch], t->dims[d], &e->letter[ch]));
    } else {
      e->letter[ch] = t->dims[d];
    }
    e->on_left[ch] = true;
    e->count[ch]++;
    d++;
  }
  return ZN_OK;
}

static zn_status einsum_out(einsum *e, const char *p) {
  zn_expr dims[3 * ZN_MAX_RANK];
  int r = 0;
  if (*p == '-') {
    if (p[1] != '>') return zn_inf_err(e->f, "the equation has a stray '-'");
    for (p += 2; *p && r < 2 * ZN_MAX_RANK; p++) {
      const unsigned char ch = (unsigned char)*p;
      if (ch == ' ') continue;
      if (ch == '.') {
        if (p[1] != '.' || p[2] != '.') return zn_inf_err(e->f, "the equation has a stray '.'");
        p += 2;
        for (int d = 0; d < e->dots_rank; d++) dims[r++] = e->dots[d];
      } else if (ch >= 128 || !e->on_left[ch]) {
        return zn_inf_err(e->f, "output label '%c' is on no input", ch);
      } else {
        dims[r++] = e->letter[ch];
      }
    }
  } else { /* implicit: labels that occur once, in alphabetical order */
    for (int d = 0; d < e->dots_rank; d++) dims[r++] = e->dots[d];
    for (int ch = 'A'; ch <= 'z' && r < 2 * ZN_MAX_RANK; ch++) {
      if (e->count[ch] == 1) dims[r++] = e->letter[ch];
    }
  }
  if (r > ZN_MAX_RANK)
    return zn_inf_err(e->f, "rank %d is more than the supported %d", r, ZN_MAX_RANK);
  zn_inf_shape(e->f, 0, r, dims);
  return ZN_OK;
}

ZN_INFER(einsum) {
  einsum e = {.f = f};
  const char *p = zn_node_str(f->nd, "equation");
  for (uint32_t i = 0; i < f->nd->num_in; i++) {
    if (!zn_inf_known(f, i)) return ZN_OK;
    ZN_TRY(einsum_term(&e, &p, zn_inf_in(f, i), i));
    if (i + 1 < f->nd->num_in && *p++ != ',') {
      return zn_inf_err(f, "the equation has fewer terms than the %u inputs", f->nd->num_in);
    }
  }
  if (*p == ',')
    return zn_inf_err(f, "the equation has more terms than the %u inputs", f->nd->num_in);
  return einsum_out(&e, p);
}

/* ---- attention ---- */

static zn_expr split_heads(const zn_inf *f, zn_expr hidden, int64_t heads) {
  return zn_ex_divi(f->ex, hidden, heads);
}

ZN_INFER(attention) {
  const zn_type *q = zn_inf_in(f, 0), *k = zn_inf_in(f, 1), *v = zn_inf_in(f, 2),
                *pk = zn_inf_in(f, 4);
  const int64_t qh = zn_node_has(f->nd, "q_num_heads") ? zn_node_int(f->nd, "q_num_heads") : 0;
  const int64_t kh = zn_node_has(f->nd, "kv_num_heads") ? zn_node_int(f->nd, "kv_num_heads") : 0;
  zn_expr nq, nk, lq, lk, hk, hv;
  if (!zn_inf_known(f, 0) || !zn_inf_known(f, 1) || !zn_inf_known(f, 2)) return ZN_OK;
  if (q->rank != k->rank || q->rank != v->rank || (q->rank != 3 && q->rank != 4)) {
    return zn_inf_err(f, "Q, K and V have ranks %d, %d and %d, expected all 3 or all 4", q->rank,
                      k->rank, v->rank);
  }
  const bool packed = q->rank == 3;
  if (packed && (qh < 1 || kh < 1)) {
    return zn_inf_err(f, "inputs of rank 3 need the attributes q_num_heads and kv_num_heads");
  }
  nq = packed ? zn_inf_k(f, qh) : q->dims[1];
  nk = packed ? zn_inf_k(f, kh) : k->dims[1];
  lq = q->dims[q->rank - 2];
  lk = k->dims[k->rank - 2];
  hk = packed ? split_heads(f, k->dims[2], kh) : k->dims[3];
  hv = packed ? split_heads(f, v->dims[2], kh) : v->dims[3];
  if (pk && pk->rank == 4) lk = zn_ex_add(f->ex, lk, pk->dims[2]);
  if (packed) {
    const zn_expr y[3] = {q->dims[0], lq, zn_ex_mul(f->ex, nq, hv)};
    zn_inf_shape(f, 0, 3, y);
  } else {
    const zn_expr y[4] = {q->dims[0], nq, lq, hv};
    zn_inf_shape(f, 0, 4, y);
  }
  const zn_expr kd[4] = {k->dims[0], nk, lk, hk}, vd[4] = {k->dims[0], nk, lk, hv};
  const zn_expr s[4] = {q->dims[0], nq, lq, lk};
  zn_inf_shape(f, 1, 4, kd);
  zn_inf_shape(f, 2, 4, vd);
  zn_inf_shape(f, 3, 4, s);
  return ZN_OK;
}

/* A modifier of scores or probabilities: one tensor in, the same type out. */
static zn_status modifier(const zn_inf *f, const char *name, const zn_type *t) {
  if (!zn_node_has(f->nd, name)) return ZN_OK;
  zn_graph *body = zn_node_graph(f->nd, name);
  if (body->num_inputs != 1 + f->nd->num_captures || body->num_outputs != 1) {
    return zn_inf_err(f, "%s must have one input and one output", name);
  }
  body->vals[body->inputs[0]].type = *t;
  for (uint32_t i = 0; i < f->nd->num_captures; i++) {
    const zn_value *v = &f->g->vals[f->nd->in[f->nd->num_in - f->nd->num_captures + i]];
    zn_value *b = &body->vals[body->inputs[1 + i]];
    b->type = v->type;
    b->elems = v->elems;
    b->num_elems = v->num_elems;
  }
  return zn_infer_graph(f->c, body);
}

ZN_INFER(pv_flexattention) {
  const zn_type *q = zn_inf_in(f, 0), *k = zn_inf_in(f, 1), *v = zn_inf_in(f, 2);
  for (uint32_t i = 0; i < 3; i++) ZN_TRY(zn_inf_want_rank(f, i, 4));
  if (!zn_inf_known(f, 0) || !zn_inf_known(f, 1) || !zn_inf_known(f, 2)) return ZN_OK;
  const zn_expr s[4] = {q->dims[0], q->dims[1], q->dims[2], k->dims[2]};
  const zn_dtype p = zn_node_has(f->nd, "softmax_precision")
                         ? zn_dtype_from_onnx((int)zn_node_int(f->nd, "softmax_precision"))
                     : q->dtype == ZN_F64 ? ZN_F64
                                          : ZN_F32;
  const zn_type scores = zn_type_tensor(p, 4, s);
  ZN_TRY(modifier(f, "score_mod", &scores));
  ZN_TRY(modifier(f, "prob_mod", &scores));
  const zn_expr y[4] = {q->dims[0], q->dims[1], q->dims[2], v->dims[3]};
  zn_inf_shape(f, 0, 4, y);
  return ZN_OK;
}

ZN_INFER(linearattention) {
  const zn_type *q = zn_inf_in(f, 0), *k = zn_inf_in(f, 1), *v = zn_inf_in(f, 2);
  const int64_t qh = zn_node_int(f->nd, "q_num_heads"), kh = zn_node_int(f->nd, "kv_num_heads");
  for (uint32_t i = 0; i < 3; i++) ZN_TRY(zn_inf_want_rank(f, i, 3));
  if (qh < 1 || kh < 1 || qh % kh)
    return zn_inf_err(f, "q_num_heads must be a multiple of kv_num_heads");
  if (!zn_inf_known(f, 0) || !zn_inf_known(f, 1) || !zn_inf_known(f, 2)) return ZN_OK;
  const zn_expr dk = split_heads(f, k->dims[2], kh), dv = split_heads(f, v->dims[2], kh);
  const zn_expr y[3] = {q->dims[0], q->dims[1], zn_ex_muli(f->ex, dv, qh)};
  const zn_expr s[4] = {q->dims[0], zn_inf_k(f, kh), dk, dv};
  zn_inf_shape(f, 0, 3, y);
  zn_inf_shape(f, 1, 4, s);
  const zn_type *past = zn_inf_in(f, 3);
  if (past) {
    zn_inf_dtype(f, 1, (zn_dtype)past->dtype);
  } else if (zn_inf_out(f, 1) && zn_inf_out(f, 1)->dtype == ZN_NONE) {
    zn_inf_dtype(f, 1, (zn_dtype)q->dtype);
  }
  return ZN_OK;
}

ZN_INFER(rotaryembedding) {
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

/* ---- RNN, GRU, LSTM ---- */

ZN_INFER(rnn) {
  const zn_type *x = zn_inf_in(f, 0), *r = zn_inf_in(f, 2);
  const char *dir = zn_node_str(f->nd, "direction");
  const bool batch_first = zn_node_int(f->nd, "layout") != 0;
  for (uint32_t i = 0; i < 3; i++) ZN_TRY(zn_inf_want_rank(f, i, 3));
  if (!zn_inf_known(f, 0)) return ZN_OK;
  zn_expr hidden;
  if (zn_node_has(f->nd, "hidden_size")) {
    hidden = zn_inf_k(f, zn_node_int(f->nd, "hidden_size"));
    if (zn_inf_known(f, 2))
      ZN_TRY(zn_inf_same_dim(f, hidden, r->dims[2], "hidden_size and R's extent"));
  } else if (zn_inf_known(f, 2)) {
    hidden = r->dims[2];
  } else {
    return ZN_OK;
  }
  const zn_expr dirs = zn_inf_k(f, dir && strcmp(dir, "bidirectional") == 0 ? 2 : 1);
  const zn_expr seq = x->dims[batch_first ? 1 : 0], bat = x->dims[batch_first ? 0 : 1];
  const zn_expr y[4] = {seq, dirs, bat, hidden}, yb[4] = {bat, seq, dirs, hidden};
  const zn_expr h[3] = {dirs, bat, hidden}, hb[3] = {bat, dirs, hidden};
  zn_inf_shape(f, 0, 4, batch_first ? yb : y);
  zn_inf_shape(f, 1, 3, batch_first ? hb : h);
  if (f->nd->op == ZN_OP_LSTM) zn_inf_shape(f, 2, 3, batch_first ? hb : h);
  return ZN_OK;
}
