/* Sequences, optionals and SequenceMap. Items are shared, not copied. */
#include "zenithc/eval/eval_impl.h"

static zn_status position(zn_ev *e, const zn_eval_val *seq, uint32_t input, int64_t def,
                          bool insert, uint64_t *out) {
  const zn_eval_val *p = zn_ev_in(e, input);
  int64_t n = (int64_t)seq->count, i = p && p->count ? p->u.i[0] : def;
  if (i < 0) i += n;
  if (i < 0 || i >= n + insert)
    return zn_ev_fail(e, "position is outside a sequence of %lld", (long long)n);
  *out = (uint64_t)i;
  return ZN_OK;
}

static zn_status construct(zn_ev *e) {
  ZN_TRY(zn_ev_list(e, ZN_V_SEQ, e->num_in ? (zn_dtype)e->in[0]->dtype : ZN_NONE, e->num_in,
                    &e->out[0]));
  for (uint32_t i = 0; i < e->num_in; i++) e->out[0].u.items[i] = zn_ev_share(e->in[i]);
  return ZN_OK;
}

static zn_status insert(zn_ev *e) {
  const zn_eval_val *s = e->in[0];
  uint64_t at;
  ZN_TRY(position(e, s, 2, (int64_t)s->count, true, &at));
  ZN_TRY(zn_ev_list(e, ZN_V_SEQ, (zn_dtype)e->in[1]->dtype, s->count + 1, &e->out[0]));
  for (uint64_t i = 0; i <= s->count; i++)
    e->out[0].u.items[i] = zn_ev_share(i == at ? e->in[1] : &s->u.items[i < at ? i : i - 1]);
  return ZN_OK;
}

static zn_status erase(zn_ev *e) {
  const zn_eval_val *s = e->in[0];
  uint64_t at;
  ZN_TRY(position(e, s, 1, (int64_t)s->count - 1, false, &at));
  ZN_TRY(zn_ev_list(e, ZN_V_SEQ, (zn_dtype)s->dtype, s->count - 1, &e->out[0]));
  for (uint64_t i = 0; i + 1 < s->count; i++)
    e->out[0].u.items[i] = zn_ev_share(&s->u.items[i < at ? i : i + 1]);
  return ZN_OK;
}

static zn_status concat(zn_ev *e) {
  const zn_eval_val *s = e->in[0];
  if (s->count == 0) return zn_ev_fail(e, "the sequence is empty");
  const zn_eval_val *x = &s->u.items[0];
  bool fresh = zn_node_int(e->n, "new_axis") != 0;
  uint32_t a, rank = x->rank + fresh;
  if (rank > ZN_MAX_RANK) return zn_ev_fail(e, "rank exceeds %d", ZN_MAX_RANK);
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), rank, &a));
  int64_t dims[ZN_MAX_RANK], total = 0;
  for (uint32_t d = 0; d < rank; d++)
    dims[d] = fresh ? (d == a ? 1 : x->dims[d < a ? d : d - 1]) : x->dims[d];
  for (uint64_t i = 0; i < s->count; i++) {
    const zn_eval_val *y = &s->u.items[i];
    if (y->rank != x->rank) return zn_ev_fail(e, "the items' ranks differ");
    for (uint32_t d = 0; d < x->rank; d++)
      if ((fresh || d != a) && y->dims[d] != x->dims[d])
        return zn_ev_fail(e, "the items' shapes differ");
    total += fresh ? 1 : y->dims[a];
  }
  dims[a] = total;
  ZN_TRY(zn_ev_out(e, 0, (zn_dtype)x->dtype, rank, dims));
  uint64_t outer, n, inner, at = 0;
  zn_ev_split(&e->out[0], a, &outer, &n, &inner);
  size_t es = zn_ev_esize((zn_dtype)x->dtype);
  for (uint64_t i = 0; i < s->count; i++) {
    uint64_t part = fresh ? inner : (uint64_t)s->u.items[i].dims[a] * inner;
    for (uint64_t o = 0; o < outer; o++)
      memcpy((char *)e->out[0].u.p + (o * n * inner + at) * es,
             (const char *)s->u.items[i].u.p + o * part * es, part * es);
    at += part;
  }
  return ZN_OK;
}

static zn_status split(zn_ev *e) {
  const zn_eval_val *x = e->in[0], *sv = zn_ev_in(e, 1);
  uint32_t a;
  ZN_TRY(zn_ev_axis(e, zn_node_int(e->n, "axis"), x->rank, &a));
  int64_t len = x->dims[a], at = 0, st[ZN_MAX_RANK];
  bool squeeze = !sv && zn_node_int(e->n, "keepdims") == 0, list = sv && sv->rank == 1;
  int64_t chunk = sv && !list ? sv->u.i[0] : 1;
  if (chunk < 1) return zn_ev_fail(e, "split is %lld", (long long)chunk);
  uint64_t n = list ? sv->count : (uint64_t)((len + chunk - 1) / chunk);
  ZN_TRY(zn_ev_list(e, ZN_V_SEQ, (zn_dtype)x->dtype, n, &e->out[0]));
  zn_ev_strides(x->rank, x->dims, st);
  for (uint64_t i = 0; i < n; i++) {
    int64_t dims[ZN_MAX_RANK];
    memcpy(dims, x->dims, sizeof dims);
    dims[a] = list ? sv->u.i[i] : len - at < chunk ? len - at : chunk;
    if (dims[a] < 0 || at + dims[a] > len) return zn_ev_fail(e, "split sizes exceed the axis");
    zn_eval_val *y = &e->out[0].u.items[i];
    ZN_TRY(zn_ev_new(e, (zn_dtype)x->dtype, x->rank, dims, y));
    zn_ev_gather(y->u.p, x->u.p, zn_ev_esize((zn_dtype)x->dtype), x->rank, dims, st, at * st[a]);
    at += dims[a];
    if (!squeeze) continue;
    for (uint32_t d = a; d + 1 < x->rank; d++) y->dims[d] = y->dims[d + 1];
    y->rank--;
  }
  return ZN_OK;
}

static zn_status map(zn_ev *e) {
  const zn_graph *g = zn_node_graph(e->n, "body");
  const zn_eval_val *s = e->in[0];
  uint32_t own = e->num_in - e->n->num_captures;
  if (!g || g->num_outputs != e->num_out) return zn_ev_fail(e, "the body does not fit SequenceMap");
  for (uint32_t i = 0; i < e->num_out; i++)
    ZN_TRY(zn_ev_list(e, ZN_V_SEQ, ZN_NONE, s->count, &e->out[i]));
  zn_eval_val *in = ZN_ARRAY(e->tmp, zn_eval_val, e->num_in + 1),
              *out = ZN_ARRAY(e->tmp, zn_eval_val, e->num_out + 1);
  zn_evframe *f = zn_ev_frame(e->run, g);
  zn_status st = ZN_OK;
  for (uint64_t k = 0; st == ZN_OK && k < s->count; k++) {
    for (uint32_t i = 0; i < e->num_in; i++) {
      const zn_eval_val *v = e->in[i];
      bool item = v && i < own && v->kind == ZN_V_SEQ;
      if (item && v->count != s->count) st = zn_ev_fail(e, "the sequences differ in length");
      memset(&in[i], 0, sizeof in[i]);
      if (v && st == ZN_OK) in[i] = item ? v->u.items[k] : *v;
    }
    if (st == ZN_OK) st = zn_ev_call(f, in, e->num_in, out);
    for (uint32_t i = 0; st == ZN_OK && i < e->num_out; i++) {
      e->out[i].dtype = out[i].dtype;
      e->out[i].u.items[k] = out[i];
    }
  }
  zn_ev_frame_free(f);
  return st;
}

zn_status zn_eval_sequence(zn_ev *e) {
  uint64_t at;
  switch (e->op) {
  case ZN_OP_SequenceConstruct: return construct(e);
  case ZN_OP_SequenceInsert: return insert(e);
  case ZN_OP_SequenceErase: return erase(e);
  case ZN_OP_ConcatFromSequence: return concat(e);
  case ZN_OP_SplitToSequence: return split(e);
  case ZN_OP_SequenceMap: return map(e);
  case ZN_OP_SequenceEmpty: {
    const zn_attr *d = zn_node_attr(e->n, "dtype");
    return zn_ev_list(e, ZN_V_SEQ, d ? zn_dtype_from_onnx((int)d->u.i) : ZN_F32, 0, &e->out[0]);
  }
  case ZN_OP_SequenceLength:
    ZN_TRY(zn_ev_out(e, 0, ZN_I64, 0, NULL));
    e->out[0].u.i[0] = (int64_t)e->in[0]->count;
    return ZN_OK;
  default: /* SequenceAt */
    ZN_TRY(position(e, e->in[0], 1, 0, false, &at));
    e->out[0] = zn_ev_share(&e->in[0]->u.items[at]);
    return ZN_OK;
  }
}

zn_status zn_eval_optional(zn_ev *e) {
  const zn_eval_val *x = zn_ev_in(e, 0);
  bool has = x && x->set && (x->kind != ZN_V_OPT || x->count > 0);
  if (e->op == ZN_OP_OptionalHasElement) {
    ZN_TRY(zn_ev_out(e, 0, ZN_BOOL, 0, NULL));
    e->out[0].u.i[0] = has;
    return ZN_OK;
  }
  if (e->op == ZN_OP_OptionalGetElement) {
    if (!has) return zn_ev_fail(e, "the optional is empty");
    e->out[0] = zn_ev_share(x->kind == ZN_V_OPT ? &x->u.items[0] : x);
    return ZN_OK;
  }
  ZN_TRY(zn_ev_list(e, ZN_V_OPT, x ? (zn_dtype)x->dtype : ZN_NONE, x != NULL, &e->out[0]));
  if (x) e->out[0].u.items[0] = zn_ev_share(x);
  return ZN_OK;
}
