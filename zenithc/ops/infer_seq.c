/* Inference of sequences, optionals and strings. The type of a sequence holds what all its tensors
 * share: rank -1 while it is empty or they differ, and ZN_EX_NONE for a dimension in which they
 * differ. */
#include "zenithc/ops/infer_util.h"

#include <inttypes.h>

static void set_kind(const zn_inf *f, uint32_t o, zn_vkind k) {
  zn_type *t = zn_inf_out(f, o);
  if (t) t->kind = (uint8_t)k;
}

/* What tensors of type a and of type b share, into *a. */
static void share(zn_type *a, const zn_type *b, bool a_empty) {
  if (a_empty) {
    a->rank = b->rank;
    memcpy(a->dims, b->dims, sizeof a->dims);
  } else if (a->rank != b->rank) {
    a->rank = -1;
  }
  for (int d = 0; d < a->rank; d++) {
    if (a->dims[d] != b->dims[d]) a->dims[d] = ZN_EX_NONE;
  }
}

static void tensor_of(const zn_inf *f, uint32_t o, const zn_type *seq) {
  zn_type *t = zn_inf_out(f, o);
  if (!t) return;
  *t = *seq;
  t->kind = seq->of && seq->kind == ZN_V_SEQ ? ZN_V_MAP : ZN_V_TENSOR;
  t->of = 0;
  for (int d = 0; d < t->rank; d++) {
    if (!t->dims[d]) t->dims[d] = zn_inf_fresh(f, o, (uint32_t)d, 0, ZN_EX_NONE);
  }
}

static void seq_of(const zn_inf *f, const zn_type *elem) {
  zn_type *o = zn_inf_out(f, 0);
  if (!o) return;
  *o = *elem;
  o->kind = ZN_V_SEQ;
}

static zn_status split_to_sequence(const zn_inf *f) {
  zn_type t = *zn_inf_in(f, 0);
  int axis;
  uint32_t n = 0;
  if (t.rank < 0) {
    seq_of(f, &t);
    return ZN_OK;
  }
  ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), t.rank, &axis));
  if (!zn_node_in(f->nd, 1)) {
    if (zn_node_int(f->nd, "keepdims")) {
      t.dims[axis] = zn_inf_k(f, 1);
    } else {
      for (int d = axis; d + 1 < t.rank; d++) t.dims[d] = t.dims[d + 1];
      t.rank--;
    }
  } else {
    const zn_expr *e = zn_inf_elems(f, 1, &n);
    bool equal = e && n > 0;
    for (uint32_t k = 1; equal && k < n; k++) equal = e[k] == e[0];
    if (equal && zn_inf_in(f, 1)->rank == 0) { /* pieces of one size, if no rest is left */
      equal = !zn_ex_is(f->ex, e[0], 0) && zn_ex_is(f->ex, zn_ex_mod(f->ex, t.dims[axis], e[0]), 0);
    }
    t.dims[axis] = equal ? e[0] : ZN_EX_NONE;
  }
  seq_of(f, &t);
  return ZN_OK;
}

static zn_status concat_from_sequence(const zn_inf *f) {
  const zn_type *s = zn_inf_in(f, 0);
  zn_type *o = zn_inf_out(f, 0);
  const bool fresh_axis = zn_node_int(f->nd, "new_axis") != 0;
  int axis;
  tensor_of(f, 0, s);
  if (!o || o->rank < 0) return ZN_OK;
  const int rank = o->rank + (fresh_axis ? 1 : 0);
  if (rank > ZN_MAX_RANK)
    return zn_inf_err(f, "rank %d is more than the supported %d", rank, ZN_MAX_RANK);
  ZN_TRY(zn_inf_axis(f, zn_node_int(f->nd, "axis"), rank, &axis));
  if (fresh_axis) {
    for (int d = o->rank; d > axis; d--) o->dims[d] = o->dims[d - 1];
    o->rank = (int8_t)rank;
  }
  o->dims[axis] = zn_inf_fresh(f, 0, ZN_MAX_RANK, 0, ZN_EX_NONE);
  return ZN_OK;
}

static zn_status sequence_map(const zn_inf *f) {
  zn_graph *body = zn_node_graph(f->nd, "body");
  const uint32_t nc = f->nd->num_captures;
  if (body->num_inputs != f->nd->num_in || body->num_outputs != f->nd->num_out) {
    return zn_inf_err(f, "the body has %u inputs and %u outputs, the node %u and %u",
                      body->num_inputs - nc, body->num_outputs, f->nd->num_in - nc, f->nd->num_out);
  }
  for (uint32_t i = 0; i < f->nd->num_in; i++) {
    const zn_type *t = zn_inf_in(f, i);
    const zn_vid bv = body->inputs[i];
    zn_value *v = &body->vals[bv];
    v->type = *t;
    v->elems = NULL;
    if (i >= f->nd->num_in - nc) {
      v->elems = f->g->vals[f->nd->in[i]].elems;
      v->num_elems = f->g->vals[f->nd->in[i]].num_elems;
    } else if (t->kind == ZN_V_SEQ) {
      v->type.kind = ZN_V_TENSOR;
      for (int d = 0; d < v->type.rank; d++) {
        if (!v->type.dims[d])
          v->type.dims[d] = zn_inf_fresh_of(body, bv, (uint32_t)d, 0, INT64_MAX);
      }
    }
  }
  ZN_TRY(zn_infer_graph(f->c, body));
  for (uint32_t o = 0; o < f->nd->num_out; o++) {
    zn_type *t = zn_inf_out(f, o);
    if (!t) continue;
    *t = body->vals[body->outputs[o]].type;
    t->kind = ZN_V_SEQ;
    for (int d = 0; d < t->rank; d++) {
      if (zn_inf_is_local(body, t->dims[d])) t->dims[d] = ZN_EX_NONE;
    }
  }
  return ZN_OK;
}

ZN_INFER(sequence) {
  zn_type t;
  switch ((unsigned)f->nd->op) {
    case ZN_OP_SequenceEmpty:
      t = zn_type_tensor(zn_node_has(f->nd, "dtype")
                             ? zn_dtype_from_onnx((int)zn_node_int(f->nd, "dtype"))
                             : ZN_F32,
                         0, NULL);
      t.rank = -1;
      seq_of(f, &t);
      return ZN_OK;
    case ZN_OP_SequenceConstruct:
      t = *zn_inf_in(f, 0);
      for (uint32_t i = 1; i < f->nd->num_in; i++) share(&t, zn_inf_in(f, i), false);
      seq_of(f, &t);
      return ZN_OK;
    case ZN_OP_SequenceInsert:
      t = *zn_inf_in(f, 0);
      share(&t, zn_inf_in(f, 1), t.rank < 0);
      t.dtype = zn_inf_in(f, 1)->dtype;
      seq_of(f, &t);
      return ZN_OK;
    case ZN_OP_SequenceErase: seq_of(f, zn_inf_in(f, 0)); return ZN_OK;
    case ZN_OP_SequenceAt: tensor_of(f, 0, zn_inf_in(f, 0)); return ZN_OK;
    case ZN_OP_SequenceLength:
      zn_inf_dtype(f, 0, ZN_I64);
      set_kind(f, 0, ZN_V_TENSOR);
      zn_inf_shape(f, 0, 0, NULL);
      return ZN_OK;
    case ZN_OP_SplitToSequence: return split_to_sequence(f);
    case ZN_OP_ConcatFromSequence: return concat_from_sequence(f);
    default: return sequence_map(f);
  }
}

ZN_INFER(optional) {
  const zn_type *in = zn_inf_in(f, 0);
  zn_type *o = zn_inf_out(f, 0);
  const zn_attr *a;
  if (!o) return ZN_OK;
  switch ((unsigned)f->nd->op) {
    case ZN_OP_OptionalHasElement:
      o->dtype = ZN_BOOL;
      o->kind = ZN_V_TENSOR;
      o->rank = 0;
      return ZN_OK;
    case ZN_OP_OptionalGetElement:
      if (in->kind != ZN_V_OPT) {
        *o = *in;
        return ZN_OK;
      }
      *o = *in;
      o->kind = in->of ? ZN_V_SEQ : ZN_V_TENSOR;
      o->of = 0;
      for (int d = 0; o->kind == ZN_V_TENSOR && d < o->rank; d++) {
        if (!o->dims[d]) o->dims[d] = zn_inf_fresh(f, 0, (uint32_t)d, 0, ZN_EX_NONE);
      }
      return ZN_OK;
    default:
      a = zn_node_attr(f->nd, "type");
      if (!in && !a) return zn_inf_err(f, "an empty optional needs the attribute 'type'");
      *o = in ? *in : *a->u.type;
      o->of = o->kind == ZN_V_SEQ;
      o->kind = ZN_V_OPT;
      return ZN_OK;
  }
}

ZN_INFER(string) {
  const zn_type *in = zn_inf_in(f, 0);
  zn_expr dims[ZN_MAX_RANK];
  switch ((unsigned)f->nd->op) {
    case ZN_OP_RegexFullMatch:
      zn_inf_dtype(f, 0, ZN_BOOL);
      zn_inf_same(f, 0, 0);
      return ZN_OK;
    case ZN_OP_StringConcat: {
      int rank = in->rank;
      if (!zn_inf_known(f, 0) || !zn_inf_known(f, 1)) return ZN_OK;
      memcpy(dims, in->dims, sizeof dims);
      ZN_TRY(zn_inf_bcast_shape(f, &rank, dims, zn_inf_in(f, 1)->rank, zn_inf_in(f, 1)->dims));
      zn_inf_shape(f, 0, rank, dims);
      return ZN_OK;
    }
    case ZN_OP_StringSplit:
      zn_inf_same(f, 1, 0);
      if (!zn_inf_known(f, 0)) return ZN_OK;
      if (in->rank >= ZN_MAX_RANK) return zn_inf_err(f, "rank %d is too large", in->rank + 1);
      memcpy(dims, in->dims, sizeof dims);
      dims[in->rank] = zn_inf_fresh(f, 0, (uint32_t)in->rank, 0, ZN_EX_NONE);
      zn_inf_shape(f, 0, in->rank + 1, dims);
      return ZN_OK;
    default: { /* StringNormalizer: [C] or [1, C]; stop words shrink C */
      const zn_attr *stop = zn_node_attr(f->nd, "stopwords");
      zn_inf_same(f, 0, 0);
      if (!zn_inf_known(f, 0)) return ZN_OK;
      if (in->rank < 1 || in->rank > 2)
        return zn_inf_err(f, "input has rank %d, expected 1 or 2", in->rank);
      zn_type *o = zn_inf_out(f, 0);
      if (o && stop && stop->n) o->dims[o->rank - 1] = zn_inf_fresh(f, 0, 0, 0, ZN_EX_NONE);
      return ZN_OK;
    }
  }
}

ZN_INFER(tfidfvectorizer) {
  const zn_type *in = zn_inf_in(f, 0);
  uint32_t n;
  const int64_t *idx = zn_node_ints(f->nd, "ngram_indexes", &n);
  int64_t top = -1;
  for (uint32_t i = 0; idx && i < n; i++) top = idx[i] > top ? idx[i] : top;
  if (!zn_inf_known(f, 0)) return ZN_OK;
  if (in->rank > 2) return zn_inf_err(f, "input has rank %d, expected 1 or 2", in->rank);
  const zn_expr width = zn_inf_k(f, top + 1);
  const zn_expr dims[2] = {in->rank == 2 ? in->dims[0] : width, width};
  zn_inf_shape(f, 0, in->rank == 2 ? 2 : 1, dims);
  return ZN_OK;
}
