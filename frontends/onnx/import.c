/* Nodes of an ONNX model become nodes of the graph: names resolve through scopes (captures become inputs of bodies), calls
 * of model-local functions are inlined, and every other node is upgraded, checked against its schema and emitted. */
#include <ctype.h>

#include "frontends/onnx/import.h"

static void import_nodes(zn_scope *s, Pb__NodeProto **nodes, size_t n);

/* ---- names and values ---- */

/* Gives v the name, or name.N when another value of the file has it. Automatic names ("12") give way. */
void zn_imp_name_value(zn_scope *s, zn_vid v, const char *name) {
  zn_imp *I = s->I;
  zn_graph *g = s->g;
  uint32_t k;
  const char *wanted = zn_arena_printf(I->ga, "%s%s", s->call ? s->call->prefix : "", name);
  zn_graph_rename(g, v, wanted);
  const char *got = g->vals[v].name;
  if (strcmp(got, wanted) != 0 && !zn_nmap_get(s->used, wanted, &k)) {
    char *end;
    unsigned long id = strtoul(wanted, &end, 10);
    if (!*end && id < g->num_vals && id != v && g->vals[id].name && !strcmp(g->vals[id].name, wanted)) {
      g->vals[id].name = got;
      zn_nmap_set(s->used, got, (uint32_t)id);
    }
    g->vals[v].name = wanted;
  }
  zn_nmap_set(s->used, g->vals[v].name, v);
}

static zn_vid capture(zn_scope *s, zn_vid outer) {
  const zn_value *v = &s->parent->g->vals[outer];
  zn_vid inner;
  if (v->cst) {
    inner = zn_graph_const(s->g, v->name, v->cst);
  } else {
    inner = zn_graph_input(s->g, v->name, v->type);
    ZN_PUSH(s->I->pa, s->caps, s->num_caps, s->cap_caps, ((struct zn_capture){outer, inner}));
  }
  zn_nmap_set(s->used, s->g->vals[inner].name, 0);
  return inner;
}

zn_vid zn_imp_resolve(zn_scope *s, const char *name, bool *found) {
  zn_vid v = 0;
  *found = true;
  if (!*name || zn_nmap_get(&s->names, name, &v)) return v;
  *found = false;
  if (!s->parent) return 0;
  v = zn_imp_resolve(s->parent, name, found);
  if (!*found || !v || s->parent->g == s->g) return v;
  v = capture(s, v);
  (void)zn_nmap_put(&s->names, zn_arena_strdup(s->I->pa, name), v);
  return v;
}

static void bind(zn_scope *s, const char *name, zn_vid v, const char *where) {
  if (!zn_nmap_put(&s->names, name, v))
    zn_imp_problem(s->I, where, false, NULL, "the name '%s' is defined twice", name);
}

void zn_unode_bind(zn_unode *u, uint32_t i, zn_vid v) {
  if (i >= u->num_out || !*u->out[i] || !v) return;
  const zn_value *val = &u->s->g->vals[v];
  if (val->def && !val->is_output) zn_imp_name_value(u->s, v, u->out[i]);
  bind(u->s, u->out[i], v, zn_unode_where(u));
}

/* ---- emission ---- */

static bool kind_fits(uint8_t given, uint8_t wanted) {
  return given == wanted || (given == ZN_A_TENSOR && wanted == ZN_A_TENSORS);
}

static void check_attrs(zn_unode *u, const zn_schema *sc) {
  zn_imp *I = u->s->I;
  for (uint32_t i = 0; i < u->num_attrs;) {
    const zn_schema_attr *sa = zn_schema_find_attr(sc, u->attrs[i].name);
    /* an empty list carries no type */
    bool empty = u->attrs[i].kind == ZN_A_INTS && u->attrs[i].n == 0;
    if (!sa) {
      zn_imp_problem(I, zn_unode_where(u), false, "check the exporter; attributes are those of the ONNX specification",
                     "unknown attribute '%s' of %s", u->attrs[i].name, u->op);
    } else if (!kind_fits(u->attrs[i].kind, sa->kind) && !empty) {
      zn_imp_problem(I, zn_unode_where(u), false, NULL, "attribute '%s' of %s has the wrong type", u->attrs[i].name,
                     u->op);
    } else if (!empty || sa->kind == ZN_A_INTS) {
      i++;
      continue;
    }
    zn_u_del(u, u->attrs[i].name);
  }
  for (uint32_t i = 0; i < sc->num_attrs; i++)
    if (sc->attrs[i].required && !zn_u_attr(u, sc->attrs[i].name))
      zn_imp_problem(I, zn_unode_where(u), false, NULL, "%s lacks the attribute '%s'", u->op, sc->attrs[i].name);
}

static bool check_arity(zn_unode *u, const zn_schema *sc) {
  zn_imp *I = u->s->I;
  bool ok = true;
  if (u->num_in < sc->min_in || u->num_in > sc->max_in) {
    zn_imp_problem(I, zn_unode_where(u), false, NULL, "%s has %u inputs, expected %u%s", u->op, u->num_in, sc->min_in,
                   sc->max_in > sc->min_in ? " or more" : "");
    ok = false;
  }
  if (u->num_out < sc->min_out || u->num_out > sc->max_out) {
    zn_imp_problem(I, zn_unode_where(u), false, NULL, "%s has %u outputs, expected %u%s", u->op, u->num_out, sc->min_out,
                   sc->max_out > sc->min_out ? " or more" : "");
    ok = false;
  }
  for (uint32_t i = 0; ok && i < sc->num_in && i < u->num_in; i++)
    if (!u->in[i] && !sc->in[i].optional && !sc->in[i].variadic) {
      zn_imp_problem(I, zn_unode_where(u), false, NULL, "%s lacks its input '%s'", u->op, sc->in[i].name);
      ok = false;
    }
  return ok;
}

/* Outputs of a node that cannot be emitted: values of unknown type, so that the import can go on and find more. */
static void emit_unknown(zn_unode *u) {
  for (uint32_t i = 0; i < u->num_out; i++) {
    if (!*u->out[i]) continue;
    zn_vid v = zn_graph_value(u->s->g, NULL);
    u->s->g->vals[v].type.rank = -1;
    zn_imp_name_value(u->s, v, u->out[i]);
    bind(u->s, u->out[i], v, zn_unode_where(u));
  }
}

void zn_unode_emit(zn_unode *u) {
  zn_graph *g = u->s->g;
  zn_op op = zn_op_find(u->domain, u->op);
  u->done = true;
  if (op == ZN_OP_NONE) {
    zn_imp_unknown_op(u);
    emit_unknown(u);
    return;
  }
  const zn_schema *sc = zn_op_schema(op);
  while (u->num_in && !u->in[u->num_in - 1]) u->num_in--;
  while (u->num_out > 1 && !*u->out[u->num_out - 1]) u->num_out--;
  check_attrs(u, sc);
  if (!check_arity(u, sc)) {
    emit_unknown(u);
    return;
  }
  zn_vid *in = ZN_ARRAY(u->s->I->pa, zn_vid, u->num_in + u->num_caps);
  if (u->num_in) memcpy(in, u->in, u->num_in * sizeof *in);
  if (u->num_caps) memcpy(in + u->num_in, u->caps, u->num_caps * sizeof *in);
  zn_nid n = zn_graph_node(g, op, u->name, in, u->num_in + u->num_caps, u->num_out);
  g->nodes[n].source = u->source;
  g->nodes[n].num_captures = u->num_caps;
  for (uint32_t i = 0; i < u->num_attrs; i++) zn_node_set_attr(g, n, u->attrs[i]);
  for (uint32_t i = 0; i < u->num_out; i++) {
    if (*u->out[i]) zn_unode_bind(u, i, zn_node_out(g, n, i));
    else g->nodes[n].out[i] = 0;
  }
}

/* ---- one node ---- */

static const char *source_of(zn_imp *I, const Pb__NodeProto *p) {
  const char *s = NULL;
  for (size_t i = 0; i < p->n_metadata_props; i++) {
    const Pb__StringStringEntryProto *e = p->metadata_props[i];
    if (e->key && e->value && !strcmp(e->key, "pkg.torch.onnx.stack_trace")) s = e->value;
  }
  if (s) { /* Python's traceback: the last 'File "x.py", line 12, in f' */
    const char *last = NULL, *q, *line;
    for (const char *f = strstr(s, "File \""); f; f = strstr(f + 6, "File \"")) last = f + 6;
    if (last && (q = strchr(last, '"')) && (line = strstr(q, "line ")))
      return zn_arena_printf(I->ga, "%.*s:%ld", (int)(q - last < 400 ? q - last : 400), last,
                             strtol(line + 5, NULL, 10));
  }
  if (!s) s = p->doc_string;
  if (!s || !*s) return NULL;
  size_t n = strcspn(s, "\n");
  return n ? zn_arena_strndup(I->ga, s, n < 160 ? n : 160) : NULL;
}

static const char *domain_of(const Pb__NodeProto *p) {
  if (!p->domain || !strcmp(p->domain, "ai.onnx")) return "";
  return p->domain;
}

/* 0: not imported. */
static int opset_of(const zn_scope *s, const char *domain) {
  for (size_t i = 0; i < s->num_opsets; i++) {
    const char *d = s->opsets[i]->domain ? s->opsets[i]->domain : "";
    if (!strcmp(d, "ai.onnx")) d = "";
    if (strcmp(d, domain) != 0) continue;
    int64_t v = s->opsets[i]->version;
    return v < 1 ? 1 : v > 1000 ? 1000 : (int)v;
  }
  return 0;
}

static bool start_node(zn_scope *s, const Pb__NodeProto *p, zn_unode *u) {
  zn_imp *I = s->I;
  uint32_t serial = ++I->num_nodes;
  *u = (zn_unode){.s = s, .op = zn_arena_strdup(I->ga, p->op_type ? p->op_type : ""), .domain = domain_of(p)};
  const char *prefix = s->call ? s->call->prefix : "";
  u->name = p->name && *p->name ? zn_arena_printf(I->ga, "%s%s", prefix, p->name)
                                : zn_arena_printf(I->ga, "%s%s_%u", prefix, u->op, serial);
  u->source = source_of(I, p);
  u->num_in = u->cap_in = (uint32_t)p->n_input;
  u->in = ZN_ARRAY(I->pa, zn_vid, u->num_in);
  u->num_out = (uint32_t)p->n_output;
  u->out = (const char **)p->output;
  bool ok = true;
  for (uint32_t i = 0; i < u->num_in; i++) {
    bool found;
    u->in[i] = zn_imp_resolve(s, p->input[i], &found);
    if (found) continue;
    zn_imp_problem(I, zn_unode_where(u), false, NULL, "input '%s' is not produced by any node, input or initializer",
                   p->input[i]);
    ok = false;
  }
  return ok;
}

/* Of several constants with one name the last holds everywhere, as in ONNX Runtime. */
static void bind_constant(zn_scope *s, const char *name, zn_htensor *t) {
  zn_vid v = zn_graph_const(s->g, NULL, t);
  uint32_t old;
  if (zn_nmap_get(&s->names, name, &old)) {
    if (!s->g->vals[old].cst) zn_imp_problem(s->I, NULL, false, NULL, "the name '%s' is defined twice", name);
    if (s->I->doubles++ == 0)
      zn_warn(s->I->c, NULL, "the constant '%s' is defined twice: the last definition is used", name);
  }
  zn_imp_name_value(s, v, name);
  t->name = s->g->vals[v].name;
  zn_nmap_set(&s->names, name, v);
}

static void import_constant(zn_scope *s, zn_unode *u, const Pb__NodeProto *p) {
  zn_htensor *t = ZN_NEW(s->I->ga, zn_htensor);
  if (p->n_output != 1 || !zn_imp_constant(s, p, zn_unode_where(u), t)) {
    if (p->n_output != 1) zn_imp_problem(s->I, zn_unode_where(u), false, NULL, "a Constant has one output");
    emit_unknown(u);
    return;
  }
  bind_constant(s, p->output[0], t);
}

static bool is_constant(const Pb__NodeProto *p) {
  return p->op_type && !strcmp(p->op_type, "Constant") && !*domain_of(p);
}

/* ---- functions ---- */

static bool bind_attr(zn_scope *s, zn_call *call, const char *name, const Pb__AttributeProto *a) {
  zn_scope *from;
  const Pb__AttributeProto *val = zn_imp_attr_ref(s, a, &from);
  if (!val) return false;
  call->attr_names[call->num_attrs] = name;
  call->attrs[call->num_attrs] = val;
  call->attr_scopes[call->num_attrs++] = from;
  return true;
}

static void bind_attrs(zn_scope *s, zn_call *call, const Pb__NodeProto *p) {
  zn_arena *pa = s->I->pa;
  const Pb__FunctionProto *f = call->f;
  size_t n = f->n_attribute_proto + p->n_attribute;
  zn_nmap given = {.a = pa};
  call->attr_names = ZN_ARRAY(pa, const char *, n);
  call->attrs = ZN_ARRAY(pa, const Pb__AttributeProto *, n);
  call->attr_scopes = ZN_ARRAY(pa, zn_scope *, n);
  for (size_t i = 0; i < p->n_attribute; i++) {
    const char *name = p->attribute[i]->name ? p->attribute[i]->name : "";
    if (zn_nmap_put(&given, name, 0)) (void)bind_attr(s, call, name, p->attribute[i]);
  }
  for (size_t i = 0; i < f->n_attribute_proto; i++) {
    const char *name = f->attribute_proto[i]->name ? f->attribute_proto[i]->name : "";
    if (zn_nmap_put(&given, name, 0)) (void)bind_attr(s, call, name, f->attribute_proto[i]);
  }
}

static void inline_call(zn_unode *u, const Pb__NodeProto *p, const Pb__FunctionProto *f) {
  zn_imp *I = u->s->I;
  zn_call *call = ZN_NEW(I->pa, zn_call);
  zn_scope *s = ZN_NEW(I->pa, zn_scope);
  call->f = f;
  call->depth = u->s->call ? u->s->call->depth + 1 : 1;
  call->prefix = zn_arena_printf(I->pa, "%.400s/", u->name);
  if (call->depth > ZN_MAX_CALL_DEPTH) {
    zn_imp_problem(I, zn_unode_where(u), false, "a function must not call itself", "functions nested deeper than %d calls",
                   ZN_MAX_CALL_DEPTH);
    I->stop = true;
    return;
  }
  if (u->num_in > f->n_input || u->num_out > f->n_output) {
    zn_imp_problem(I, zn_unode_where(u), false, NULL, "a call with %u inputs and %u outputs of a function with %zu and %zu",
                   u->num_in, u->num_out, f->n_input, f->n_output);
    emit_unknown(u);
    return;
  }
  bind_attrs(u->s, call, p);
  *s = (zn_scope){.I = I, .g = u->s->g, .call = call, .names = {.a = I->pa}, .used = u->s->used,
                  .infer_at = u->s->infer_at, .depth = u->s->depth};
  bool own = f->n_opset_import > 0;
  s->opsets = own ? (const Pb__OperatorSetIdProto *const *)f->opset_import : u->s->opsets;
  s->num_opsets = own ? f->n_opset_import : u->s->num_opsets;
  for (uint32_t i = 0; i < f->n_input; i++) bind(s, f->input[i], zn_u_in(u, i), zn_unode_where(u));
  uint32_t first = u->s->g->num_nodes;
  import_nodes(s, f->node, f->n_node);
  if (I->stop) return;
  for (uint32_t i = 0; i < u->num_out; i++) {
    bool found;
    zn_vid v = zn_imp_resolve(s, f->output[i], &found);
    if (!found || !v) {
      zn_imp_problem(I, zn_unode_where(u), false, NULL, "output '%s' of the function is not produced", f->output[i]);
      v = zn_graph_value(u->s->g, NULL);
    }
    const zn_value *val = &u->s->g->vals[v];
    if (val->def >= first) zn_unode_bind(u, i, v);
    else if (*u->out[i]) bind(u->s, u->out[i], v, zn_unode_where(u));
  }
}

static const Pb__FunctionProto *find_function(zn_imp *I, const Pb__NodeProto *p) {
  uint32_t k;
  if (!I->functions.n) return NULL;
  char *key = zn_arena_printf(I->pa, "%s:%s:%s", domain_of(p), p->op_type ? p->op_type : "", p->overload ? p->overload : "");
  return zn_nmap_get(&I->functions, key, &k) ? I->m->functions[k] : NULL;
}

/* ---- nodes, bodies, graphs ---- */

static bool check_version(zn_unode *u) {
  int first = zn_op_first_version(u->domain, u->op);
  u->ver = opset_of(u->s, u->domain);
  if (u->ver == 0) {
    u->ver = u->s->num_opsets && *u->domain == 0 ? 0 : 1; /* IR versions 1 and 2 know no opsets */
    if (u->ver == 0 || first == 0) {
      if (first) zn_imp_problem(u->s->I, zn_unode_where(u), false, NULL, "the model imports no opset for domain 'ai.onnx'");
      u->ver = 1;
      return true;
    }
    if (strcmp(u->domain, "ai.onnx.ml") == 0) u->ver = 5;
  }
  if (first > u->ver && !(first == 17 && !strcmp(u->op, "LayerNormalization"))) { /* ONNX Runtime writes it anywhere */
    zn_imp_problem(u->s->I, zn_unode_where(u), false, "raise the opset with the exporter's option or ONNX's version converter",
                   "%s exists since opset %d, the model imports opset %d", u->op, first, u->ver);
    return false;
  }
  return true;
}

static void import_node(zn_scope *s, const Pb__NodeProto *p) {
  zn_imp *I = s->I;
  zn_unode u;
  if (I->nodes_left-- == 0) {
    zn_imp_problem(I, NULL, true, NULL, "more than %u nodes after inlining functions", I->num_nodes);
    I->stop = true;
    return;
  }
  bool ok = start_node(s, p, &u);
  const Pb__FunctionProto *f = find_function(I, p);
  if (f) {
    inline_call(&u, p, f);
    return;
  }
  if (is_constant(p)) {
    import_constant(s, &u, p);
    return;
  }
  zn_imp_attrs(&u, p);
  if (I->stop) return;
  if (!check_version(&u) || !ok) {
    if (zn_op_first_version(u.domain, u.op) == 0 && zn_op_find(u.domain, u.op) == ZN_OP_NONE) zn_imp_unknown_op(&u);
    emit_unknown(&u);
    return;
  }
  zn_upgrade(&u);
  if (!u.done) zn_unode_emit(&u);
}

static void import_nodes(zn_scope *s, Pb__NodeProto **nodes, size_t n) {
  const uint32_t *order = zn_imp_order(s->I, nodes, n);
  for (size_t i = 0; i < n && !s->I->stop; i++)
    if (is_constant(nodes[i])) import_node(s, nodes[i]);
  for (size_t i = 0; i < n && !s->I->stop; i++) {
    const Pb__NodeProto *p = nodes[order ? order[i] : i];
    if (!is_constant(p)) import_node(s, p);
  }
}

static void import_initializers(zn_scope *s, const Pb__GraphProto *p) {
  zn_imp *I = s->I;
  for (size_t i = 0; i < p->n_initializer + p->n_sparse_initializer && !I->stop; i++) {
    bool sparse = i >= p->n_initializer;
    const Pb__SparseTensorProto *sp = sparse ? p->sparse_initializer[i - p->n_initializer] : NULL;
    const Pb__TensorProto *t = sparse ? sp->values : p->initializer[i];
    const char *name = t && t->name ? t->name : "";
    char *where = zn_arena_printf(I->pa, "initializer '%s'", name);
    zn_htensor *h = ZN_NEW(I->ga, zn_htensor);
    zn_status st = sparse ? zn_payload_sparse(&I->payload, sp, where, h) : zn_payload_tensor(&I->payload, t, where, h);
    if (st != ZN_OK) {
      zn_imp_hard(I, st);
      if (*name) bind(s, name, zn_graph_value(s->g, NULL), where);
      continue;
    }
    bind_constant(s, name, h);
  }
}

/* --shape INPUT=1x3x?xwidth */
static zn_status apply_shape(zn_imp *I, const char *text, zn_type *t) {
  const char *p = strrchr(text, '=') + 1;
  int rank = 0;
  zn_expr dims[ZN_MAX_RANK];
  for (bool more = *p != 0; more; rank++) {
    if (rank == ZN_MAX_RANK) return zn_fail(I->c, ZN_ERR_USAGE, NULL, "--shape %s: more than %d dimensions", text, ZN_MAX_RANK);
    char *end = (char *)(uintptr_t)p;
    if (*p == '?') {
      end++;
      dims[rank] = rank < t->rank ? t->dims[rank] : 0;
    } else if (isalpha((unsigned char)*p) || *p == '_') { /* a name ends at the next x */
      while (*end != 'x' && (isalnum((unsigned char)*end) || *end == '_')) end++;
      dims[rank] = end == p ? ZN_EX_NONE : zn_imp_symbol(I, zn_arena_strndup(I->ga, p, (size_t)(end - p)));
    } else {
      long long v = strtoll(p, &end, 10);
      if (end == p || v < 0) return zn_fail(I->c, ZN_ERR_USAGE, NULL, "--shape %s: expected numbers like 1x3x224x224", text);
      dims[rank] = zn_ex_const(I->ex, v);
    }
    more = *end == 'x' || *end == ',';
    if (!dims[rank] || (!more && *end))
      return zn_fail(I->c, ZN_ERR_USAGE, NULL, "--shape %s: expected numbers like 1x3x224x224", text);
    p = end + 1;
  }
  if (t->rank >= 0 && t->rank != rank)
    return zn_fail(I->c, ZN_ERR_USAGE, NULL, "--shape %s: the model declares rank %d", text, t->rank);
  t->rank = (int8_t)rank;
  memcpy(t->dims, dims, sizeof *dims * (size_t)rank);
  return ZN_OK;
}

static const char *shape_for(zn_imp *I, const char *name) {
  for (uint32_t i = 0; i < I->o->num_shapes; i++) {
    const char *eq = strrchr(I->o->shapes[i], '=');
    if (eq && strlen(name) == (size_t)(eq - I->o->shapes[i]) && !strncmp(name, I->o->shapes[i], strlen(name)))
      return I->o->shapes[i];
  }
  return NULL;
}

static void import_inputs(zn_scope *s, const Pb__GraphProto *p, bool main) {
  zn_imp *I = s->I;
  zn_nmap init = {.a = I->pa};
  uint32_t k;
  for (size_t i = 0; i < p->n_initializer; i++)
    if (p->initializer[i]->name) (void)zn_nmap_put(&init, p->initializer[i]->name, 1);
  for (size_t i = 0; i < p->n_sparse_initializer; i++)
    if (p->sparse_initializer[i]->values && p->sparse_initializer[i]->values->name)
      (void)zn_nmap_put(&init, p->sparse_initializer[i]->values->name, 1);
  for (size_t i = 0; i < p->n_input; i++) {
    const char *name = p->input[i]->name ? p->input[i]->name : "";
    if (zn_nmap_get(&init, name, &k)) continue; /* a default value: constant here */
    zn_type t;
    char *where = zn_arena_printf(I->pa, "input '%s'", name);
    if (!zn_imp_type(I, p->input[i]->type, name, &t)) memset(&t, 0, sizeof t);
    const char *shape = main ? shape_for(I, name) : NULL;
    zn_status st = shape ? apply_shape(I, shape, &t) : ZN_OK;
    if (st != ZN_OK) zn_imp_hard(I, st);
    if (main && t.kind == ZN_V_TENSOR && t.rank < 0)
      zn_imp_problem(I, where, false, zn_arena_printf(I->pa, "give it one: --shape %s=1x3x224x224", name),
                     "input '%s' has no shape", name);
    if (!main && t.kind == ZN_V_TENSOR && !zn_type_is_static(I->ex, &t, (int64_t[ZN_MAX_RANK]){0})) t.rank = -1;
    zn_vid v = zn_graph_input(s->g, zn_arena_strdup(I->ga, name), t);
    zn_nmap_set(s->used, s->g->vals[v].name, 0);
    bind(s, name, v, where);
  }
}

/* Outputs are distinct values that nodes define: an Identity makes them so. */
static void import_outputs(zn_scope *s, const Pb__GraphProto *p) {
  zn_imp *I = s->I;
  for (size_t i = 0; i < p->n_output; i++) {
    const char *name = p->output[i]->name ? p->output[i]->name : "";
    bool found;
    zn_vid v = zn_imp_resolve(s, name, &found);
    if (!v) {
      zn_imp_problem(I, NULL, false, NULL, "output '%s' is not produced by any node", name);
      continue;
    }
    const zn_value *val = &s->g->vals[v];
    if (!val->def || val->is_output) {
      zn_nid n = zn_graph_node(s->g, ZN_OP_Identity, name, &v, 1, 1);
      zn_vid out = zn_node_out(s->g, n, 0);
      zn_imp_name_value(s, out, name);
      if (s->g->vals[v].cst) { /* the output keeps the name */
        const char *suffixed = s->g->vals[out].name;
        s->g->vals[out].name = s->g->vals[v].name;
        s->g->vals[v].name = suffixed;
      }
      v = out;
    } else if (strcmp(val->name, name) != 0) {
      zn_imp_name_value(s, v, name);
    }
    zn_graph_output(s->g, v);
  }
}

/* Shapes that the model states for values of its nodes. */
static void import_declared(zn_scope *s, Pb__ValueInfoProto **infos, size_t n) {
  zn_imp *I = s->I;
  for (size_t i = 0; i < n; i++) {
    const Pb__TypeProto *p = infos[i]->type;
    uint32_t v;
    zn_type *t = ZN_NEW(I->ga, zn_type);
    if (!infos[i]->name || !p || !p->tensor_type || !p->tensor_type->shape) continue;
    if (!zn_nmap_get(&s->names, infos[i]->name, &v) || !v || !s->g->vals[v].def) continue;
    if (zn_imp_type(I, p, infos[i]->name, t)) s->g->vals[v].declared = t;
  }
}

static void import_graph(zn_scope *s, const Pb__GraphProto *p, bool main) {
  import_inputs(s, p, main);
  import_initializers(s, p);
  import_nodes(s, p->node, p->n_node);
  if (s->I->stop) return;
  import_declared(s, p->value_info, p->n_value_info);
  import_declared(s, p->output, p->n_output);
  import_outputs(s, p);
}

zn_graph *zn_imp_body(zn_scope *parent, const Pb__GraphProto *p, const char *name, zn_scope **out_scope) {
  zn_imp *I = parent->I;
  if (parent->depth + 1 > ZN_MAX_BODY_DEPTH) {
    zn_imp_problem(I, NULL, true, NULL, "bodies nested deeper than %d levels", ZN_MAX_BODY_DEPTH);
    return NULL;
  }
  zn_scope *s = ZN_NEW(I->pa, zn_scope);
  zn_nmap *used = ZN_NEW(I->pa, zn_nmap);
  used->a = I->pa;
  zn_graph *g = zn_graph_new(I->ga, I->ex, name);
  g->parent = parent->g;
  *s = (zn_scope){.I = I, .g = g, .parent = parent, .call = parent->call, .names = {.a = I->pa}, .used = used,
                  .opsets = parent->opsets, .num_opsets = parent->num_opsets, .depth = parent->depth + 1,
                  .infer_at = ZN_NEW(I->pa, uint32_t)};
  import_graph(s, p, false);
  *out_scope = s;
  return I->stop ? NULL : g;
}

/* ---- the model ---- */

static uint64_t count_nodes(const Pb__ModelProto *m) {
  uint64_t n = m->graph->n_node;
  for (size_t i = 0; i < m->n_functions; i++) n += m->functions[i]->n_node;
  return n;
}

static zn_status check_header(zn_imp *I) {
  const Pb__ModelProto *m = I->m;
  if (!m->graph) return zn_error(I->c, NULL, "the file holds no graph: not an ONNX model");
  if (m->ir_version > 14)
    zn_warn(I->c, NULL, "IR version %lld is newer than this compiler knows (14)", (long long)m->ir_version);
  for (size_t i = 0; i < m->n_opset_import; i++) {
    const char *d = m->opset_import[i]->domain ? m->opset_import[i]->domain : "";
    long long v = (long long)m->opset_import[i]->version, known = !*d || !strcmp(d, "ai.onnx") ? 28 : 5;
    bool standard = !*d || !strcmp(d, "ai.onnx") || !strcmp(d, "ai.onnx.ml");
    if (!standard || v <= known) continue;
    zn_fail(I->c, ZN_ERR_UNSUPPORTED, NULL, "opset %lld of domain '%s' is newer than this compiler knows (%lld)", v,
            *d ? d : "ai.onnx", known);
    zn_help(I->c, "export with opset %lld or less", known);
    return ZN_ERR_UNSUPPORTED;
  }
  for (uint32_t i = 0; i < I->o->num_shapes; i++) {
    const char *text = I->o->shapes[i], *eq = strrchr(text, '=');
    bool known = false;
    for (size_t k = 0; eq && k < m->graph->n_input; k++) {
      const char *name = m->graph->input[k]->name ? m->graph->input[k]->name : "";
      known = known || (strlen(name) == (size_t)(eq - text) && !strncmp(name, text, strlen(name)));
    }
    if (!eq) return zn_fail(I->c, ZN_ERR_USAGE, NULL, "--shape %s: expected INPUT=1x3x224x224", text);
    if (!known) {
      const char *names = "none";
      for (size_t k = m->graph->n_input; k-- > 0;)
        names = zn_arena_printf(I->pa, "%s%s%s", m->graph->input[k]->name ? m->graph->input[k]->name : "",
                                k + 1 < m->graph->n_input ? ", " : "", k + 1 < m->graph->n_input ? names : "");
      zn_fail(I->c, ZN_ERR_USAGE, NULL, "--shape %s: the model has no such input", text);
      zn_help(I->c, "its inputs: %s", names);
      return ZN_ERR_USAGE;
    }
  }
  return ZN_OK;
}

static void index_functions(zn_imp *I) {
  for (size_t i = 0; i < I->m->n_functions; i++) {
    const Pb__FunctionProto *f = I->m->functions[i];
    const char *d = f->domain ? f->domain : "";
    char *key = zn_arena_printf(I->pa, "%s:%s:%s", strcmp(d, "ai.onnx") ? d : "", f->name ? f->name : "",
                                f->overload ? f->overload : "");
    if (!zn_nmap_put(&I->functions, key, (uint32_t)i))
      zn_imp_problem(I, NULL, false, NULL, "function '%s' is defined twice", f->name ? f->name : "");
  }
}

static zn_status import_model(zn_imp *I, zn_graph **out) {
  const Pb__ModelProto *m = I->m;
  ZN_TRY(check_header(I));
  ZN_TRY(zn_imp_dims_init(I));
  index_functions(I);
  zn_upgrade_init(I);
  I->nodes_left = 200000 + 8 * count_nodes(m);
  zn_nmap used = {.a = I->pa};
  const char *name = m->graph->name && *m->graph->name ? m->graph->name : "main";
  zn_graph *g = zn_graph_new(I->ga, I->ex, zn_arena_strdup(I->ga, name));
  if (m->producer_name && *m->producer_name)
    g->producer = zn_arena_printf(I->ga, "%s %s", m->producer_name, m->producer_version ? m->producer_version : "");
  zn_scope s = {.I = I, .g = g, .names = {.a = I->pa}, .used = &used, .num_opsets = m->n_opset_import,
                .infer_at = ZN_NEW(I->pa, uint32_t),
                .opsets = (const Pb__OperatorSetIdProto *const *)m->opset_import};
  import_graph(&s, m->graph, true);
  zn_imp_report(I);
  if (I->status == ZN_OK) I->status = zn_imp_dims_check(I);
  *out = I->status == ZN_OK ? g : NULL;
  return I->status;
}

zn_status zn_imp_run(zn_ctx *c, const Pb__ModelProto *m, zn_arena *pa, const zn_payload *payload,
                     const zn_onnx_opts *o, zn_graph **out) {
  static const zn_onnx_opts none;
  zn_imp I = {.c = c, .ga = &c->graph, .pa = pa, .payload = *payload, .m = m, .o = o ? o : &none};
  I.functions.a = I.upgrades.a = I.problem_keys.a = pa;
  I.ex = zn_exprs_new(&c->graph);
  return import_model(&I, out);
}
