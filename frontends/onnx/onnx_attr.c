/* Attributes of nodes, among them bodies, whose captured values become explicit; and Constant nodes. */
#include "frontends/onnx/import.h"

enum { /* AttributeProto.AttributeType */
  AT_FLOAT = 1, AT_INT, AT_STRING, AT_TENSOR, AT_GRAPH, AT_FLOATS, AT_INTS, AT_STRINGS, AT_TENSORS, AT_GRAPHS,
  AT_SPARSE, AT_SPARSES, AT_TYPE, AT_TYPES
};

/* Old files leave the type out. */
static int attr_type(const Pb__AttributeProto *a) {
  if (a->type) return a->type;
  if (a->t) return AT_TENSOR;
  if (a->g) return AT_GRAPH;
  if (a->has_s) return AT_STRING;
  if (a->has_i) return AT_INT;
  if (a->has_f) return AT_FLOAT;
  if (a->n_floats) return AT_FLOATS;
  if (a->n_strings) return AT_STRINGS;
  if (a->n_tensors) return AT_TENSORS;
  if (a->sparse_tensor) return AT_SPARSE;
  if (a->tp) return AT_TYPE;
  return AT_INTS;
}

const Pb__AttributeProto *zn_imp_attr_ref(zn_scope *s, const Pb__AttributeProto *a, zn_scope **out_scope) {
  *out_scope = s;
  if (!a->ref_attr_name || !*a->ref_attr_name) return a;
  const zn_call *call = s->call;
  for (uint32_t i = 0; call && i < call->num_attrs; i++) {
    if (strcmp(call->attr_names[i], a->ref_attr_name) != 0) continue;
    *out_scope = call->attr_scopes[i];
    return call->attrs[i];
  }
  return NULL;
}

static zn_str copy_bytes(zn_arena *a, ProtobufCBinaryData b) {
  return (zn_str){zn_arena_strndup(a, b.len ? (const char *)b.data : "", b.len), b.len};
}

/* A body takes part: remember it for the captures. */
typedef struct bodies {
  zn_scope **s;
  uint32_t n, cap;
} bodies;

static void list_attr(zn_arena *ga, const Pb__AttributeProto *p, int type, zn_attr *out) {
  if (type == AT_FLOATS) {
    double *v = ZN_ARRAY(ga, double, p->n_floats);
    for (size_t i = 0; i < p->n_floats; i++) v[i] = p->floats[i];
    out->kind = ZN_A_FLOATS;
    out->n = (uint32_t)p->n_floats;
    out->u.fs = v;
  } else if (type == AT_INTS) {
    int64_t *v = ZN_ARRAY(ga, int64_t, p->n_ints);
    if (p->n_ints) memcpy(v, p->ints, p->n_ints * sizeof *v);
    out->kind = ZN_A_INTS;
    out->n = (uint32_t)p->n_ints;
    out->u.is = v;
  } else {
    zn_str *v = ZN_ARRAY(ga, zn_str, p->n_strings);
    for (size_t i = 0; i < p->n_strings; i++) v[i] = copy_bytes(ga, p->strings[i]);
    out->kind = ZN_A_STRINGS;
    out->n = (uint32_t)p->n_strings;
    out->u.ss = v;
  }
}

static bool tensor_attr(zn_unode *u, const Pb__AttributeProto *p, int type, zn_attr *out) {
  zn_imp *I = u->s->I;
  size_t n = type == AT_TENSORS ? p->n_tensors : 1;
  zn_htensor *t = ZN_ARRAY(I->ga, zn_htensor, n);
  char *where = zn_arena_printf(I->pa, "%s, attribute '%s'", zn_unode_where(u), out->name);
  out->kind = type == AT_TENSORS ? ZN_A_TENSORS : ZN_A_TENSOR;
  out->n = (uint32_t)n;
  out->u.t = t;
  for (size_t i = 0; i < n; i++) {
    const Pb__TensorProto *pt = type == AT_TENSORS ? p->tensors[i] : p->t;
    zn_status st = type == AT_SPARSE ? zn_payload_sparse(&I->payload, p->sparse_tensor, where, &t[i])
                                     : zn_payload_tensor(&I->payload, pt, where, &t[i]);
    if (st != ZN_OK) {
      zn_imp_hard(I, st);
      return false;
    }
  }
  return true;
}

static bool graph_attr(zn_unode *u, const Pb__AttributeProto *p, zn_scope *written_in, bodies *b, zn_attr *out) {
  zn_imp *I = u->s->I;
  if (written_in->g != u->s->g) {
    zn_imp_problem(I, zn_unode_where(u), true, NULL, "a body passed as attribute '%s' into another body", out->name);
    return false;
  }
  zn_scope *s;
  out->kind = ZN_A_GRAPH;
  out->u.g = zn_imp_body(written_in, p->g, zn_arena_printf(I->ga, "%s.%s", u->name, out->name), &s);
  if (!out->u.g) return false;
  ZN_PUSH(I->pa, b->s, b->n, b->cap, s);
  return true;
}

/* One attribute; false when it was reported or is to be left out. */
static bool convert(zn_unode *u, const Pb__AttributeProto *p, zn_scope *from, bodies *b, zn_attr *out) {
  zn_imp *I = u->s->I;
  int type = attr_type(p);
  bool whole = !((type == AT_TENSOR && !p->t) || (type == AT_GRAPH && !p->g) || (type == AT_TYPE && !p->tp) ||
                 (type == AT_SPARSE && !p->sparse_tensor));
  if (!whole) {
    zn_imp_problem(I, zn_unode_where(u), false, NULL, "attribute '%s' has no value", out->name);
    return false;
  }
  switch (type) {
    case AT_FLOAT:
      out->kind = ZN_A_FLOAT;
      out->u.f = p->f;
      return true;
    case AT_INT:
      out->kind = ZN_A_INT;
      out->u.i = p->i;
      return true;
    case AT_STRING:
      out->kind = ZN_A_STRING;
      out->u.s = copy_bytes(I->ga, p->s);
      return true;
    case AT_FLOATS:
    case AT_INTS:
    case AT_STRINGS: list_attr(I->ga, p, type, out); return true;
    case AT_TENSOR:
    case AT_TENSORS:
    case AT_SPARSE: return tensor_attr(u, p, type, out);
    case AT_GRAPH: return graph_attr(u, p, from, b, out);
    case AT_TYPE: {
      zn_type *t = ZN_NEW(I->ga, zn_type);
      out->kind = ZN_A_TYPE;
      out->u.type = t;
      return zn_imp_type(I, p->tp, u->name, t);
    }
    default:
      zn_imp_problem(I, zn_unode_where(u), true, NULL, "attribute '%s' has type %d", out->name, type);
      return false;
  }
}

/* All bodies of a node take the same trailing inputs: the union of what they capture. */
static void join_captures(zn_unode *u, const bodies *b) {
  zn_imp *I = u->s->I;
  uint32_t total = 0, k;
  for (uint32_t i = 0; i < b->n; i++) total += b->s[i]->num_caps;
  if (!total) return;
  u->caps = ZN_ARRAY(I->pa, zn_vid, total);
  zn_nmap seen = {.a = I->pa};
  for (uint32_t i = 0; i < b->n; i++)
    for (uint32_t j = 0; j < b->s[i]->num_caps; j++) {
      zn_vid v = b->s[i]->caps[j].outer;
      if (zn_nmap_put(&seen, zn_arena_printf(I->pa, "%u", v), u->num_caps)) u->caps[u->num_caps++] = v;
    }
  for (uint32_t i = 0; i < b->n; i++) {
    zn_scope *s = b->s[i];
    zn_vid *inner = ZN_ARRAY(I->pa, zn_vid, u->num_caps);
    uint32_t formal = s->g->num_inputs - s->num_caps;
    for (uint32_t j = 0; j < s->num_caps; j++)
      if (zn_nmap_get(&seen, zn_arena_printf(I->pa, "%u", s->caps[j].outer), &k)) inner[k] = s->caps[j].inner;
    for (k = 0; k < u->num_caps; k++)
      if (!inner[k]) {
        const zn_value *v = &u->s->g->vals[u->caps[k]];
        inner[k] = zn_graph_input(s->g, v->name, v->type);
      }
    memcpy(s->g->inputs + formal, inner, u->num_caps * sizeof *inner);
  }
}

void zn_imp_attrs(zn_unode *u, const Pb__NodeProto *p) {
  zn_imp *I = u->s->I;
  bodies b = {NULL, 0, 0};
  for (size_t i = 0; i < p->n_attribute && !I->stop; i++) {
    zn_scope *from;
    const Pb__AttributeProto *a = p->attribute[i], *val = zn_imp_attr_ref(u->s, a, &from);
    zn_attr at = {.name = zn_arena_strdup(I->ga, a->name ? a->name : "")};
    if (!val) {
      if (!u->s->call)
        zn_imp_problem(I, zn_unode_where(u), false, NULL, "attribute '%s' refers to '%s' outside a function", at.name,
                       a->ref_attr_name);
      continue;
    }
    if (zn_u_attr(u, at.name)) {
      zn_imp_problem(I, zn_unode_where(u), false, NULL, "attribute '%s' is given twice", at.name);
      continue;
    }
    if (u->num_attrs >= 64) {
      zn_imp_problem(I, zn_unode_where(u), false, NULL, "more than 64 attributes");
      break;
    }
    if (convert(u, val, from, &b, &at)) ZN_PUSH(I->pa, u->attrs, u->num_attrs, u->cap_attrs, at);
  }
  join_captures(u, &b);
}

/* ---- Constant ---- */

static zn_htensor vector(zn_arena *a, zn_dtype t, bool scalar, size_t n) {
  int64_t dims[1] = {(int64_t)n};
  return zn_htensor_new(a, t, scalar ? 0 : 1, dims);
}

bool zn_imp_constant(zn_scope *s, const Pb__NodeProto *p, const char *where, zn_htensor *out) {
  zn_imp *I = s->I;
  if (p->n_attribute != 1 || !p->attribute[0]->name) {
    zn_imp_problem(I, where, false, NULL, "a Constant needs exactly one attribute");
    return false;
  }
  zn_scope *from;
  const char *name = p->attribute[0]->name;
  const Pb__AttributeProto *a = zn_imp_attr_ref(s, p->attribute[0], &from);
  zn_status st = ZN_OK;
  if (a && !strcmp(name, "value") && a->t) {
    st = zn_payload_tensor(&I->payload, a->t, where, out);
  } else if (a && !strcmp(name, "sparse_value") && a->sparse_tensor) {
    st = zn_payload_sparse(&I->payload, a->sparse_tensor, where, out);
  } else if (a && !strcmp(name, "value_float")) {
    *out = vector(I->ga, ZN_F32, true, 1);
    memcpy(out->data, &a->f, 4);
  } else if (a && !strcmp(name, "value_int")) {
    *out = vector(I->ga, ZN_I64, true, 1);
    memcpy(out->data, &a->i, 8);
  } else if (a && !strcmp(name, "value_floats")) {
    *out = vector(I->ga, ZN_F32, false, a->n_floats);
    if (a->n_floats) memcpy(out->data, a->floats, 4 * a->n_floats);
  } else if (a && !strcmp(name, "value_ints")) {
    *out = vector(I->ga, ZN_I64, false, a->n_ints);
    if (a->n_ints) memcpy(out->data, a->ints, 8 * a->n_ints);
  } else if (a && !strcmp(name, "value_string")) {
    *out = vector(I->ga, ZN_STR, true, 1);
    *(zn_str *)out->data = copy_bytes(I->ga, a->s);
  } else if (a && !strcmp(name, "value_strings")) {
    *out = vector(I->ga, ZN_STR, false, a->n_strings);
    for (size_t i = 0; i < a->n_strings; i++) ((zn_str *)out->data)[i] = copy_bytes(I->ga, a->strings[i]);
  } else {
    zn_imp_problem(I, where, false, NULL, "a Constant without a usable '%s'", name);
    return false;
  }
  if (st != ZN_OK) zn_imp_hard(I, st);
  return st == ZN_OK;
}
