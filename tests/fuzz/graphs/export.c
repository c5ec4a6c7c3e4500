/* Writes a graph as a folder of the ONNX test convention, for a second opinion by another runtime: model.onnx of an older opset,
 * inputs, and the reference's outputs with the tolerance that rounding alone asks for. */
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frontends/onnx/onnx.h"
#include "tests/fuzz/graphs/fuzz.h"

enum { OPSET = 23, IR = 10 };

/* ---- protobuf ---- */
static void varint(zn_text *t, uint64_t v) {
  for (; v > 127; v >>= 7) zn_text_put(t, (char[]){(char)(v | 128)}, 1);
  zn_text_put(t, (char[]){(char)v}, 1);
}
static void put_int(zn_text *t, unsigned field, int64_t v) {
  varint(t, (uint64_t)field << 3);
  varint(t, (uint64_t)v);
}
static void put_bytes(zn_text *t, unsigned field, const char *s, size_t n) {
  varint(t, (uint64_t)field << 3 | 2);
  varint(t, n);
  zn_text_put(t, s, n);
}
static void put_str(zn_text *t, unsigned field, const char *s) {
  put_bytes(t, field, s, strlen(s));
}
static void put_msg(zn_text *t, unsigned field, const zn_text *m) {
  put_bytes(t, field, m->s ? m->s : "", m->len);
}
static void put_float(zn_text *t, unsigned field, double x) {
  float v = (float)x;
  char b[4];
  memcpy(b, &v, 4);
  varint(t, (uint64_t)field << 3 | 5);
  zn_text_put(t, b, 4);
}

typedef struct writer {
  zn_ctx *c;
  zn_arena *a;
  const char *dir;
  bool ok;
} writer;

static zn_text fresh(writer *w) {
  zn_text t;
  zn_text_init(&t, w->a);
  return t;
}

/* The TensorProto that the library writes, read back. */
static zn_text tensor(writer *w, const zn_htensor *h, const char *name) {
  zn_htensor named = *h;
  zn_text t = fresh(w);
  char buf[4096];
  named.name = name;
  const char *path = zn_arena_printf(w->a, "%s/t.pb", w->dir);
  if (zn_pb_write(w->c, path, &named) != ZN_OK) w->ok = false;
  FILE *f = fopen(path, "rb");
  for (size_t n; f && (n = fread(buf, 1, sizeof buf, f)) > 0;) zn_text_put(&t, buf, n);
  if (f) fclose(f);
  unlink(path);
  return t;
}

static zn_text type(writer *w, const zn_graph *g, const zn_type *y, bool dims) {
  zn_text t = fresh(w), inner = fresh(w), shape = fresh(w);
  if (y->kind != ZN_V_TENSOR) w->ok = false;
  put_int(&inner, 1, zn_dtypes[y->dtype].onnx);
  for (int d = 0; d < y->rank && dims; d++) {
    zn_text dim = fresh(w);
    int64_t v;
    if (zn_ex_is_const(g->ex, y->dims[d], &v)) put_int(&dim, 1, v);
    else if (zn_ex_kind(g->ex, y->dims[d]) == ZN_EX_SYM)
      put_str(&dim, 2, zn_ex_name(g->ex, y->dims[d]));
    put_msg(&shape, 1, &dim);
  }
  if (dims) put_msg(&inner, 2, &shape);
  put_msg(&t, 1, &inner);
  return t;
}

static zn_text graph(writer *w, const zn_graph *g, const char *prefix);

static bool is_default(const zn_node *n, const zn_attr *a) {
  const zn_schema_attr *s = zn_schema_find_attr(zn_op_schema(n->op), a->name);
  if (!s || !s->has_default || s->kind != a->kind) return false;
  if (a->kind == ZN_A_INT) return a->u.i == s->def.u.i;
  if (a->kind == ZN_A_FLOAT) return a->u.f == s->def.u.f;
  if (a->kind == ZN_A_STRING)
    return a->u.s.len == s->def.u.s.len && !memcmp(a->u.s.ptr, s->def.u.s.ptr, a->u.s.len);
  return false;
}

static zn_text attribute(writer *w, const zn_attr *a, const char *prefix) {
  zn_text t = fresh(w), m;
  put_str(&t, 1, a->name);
  switch (a->kind) {
    case ZN_A_FLOAT: put_int(&t, 20, 1), put_float(&t, 2, a->u.f); break;
    case ZN_A_INT: put_int(&t, 20, 2), put_int(&t, 3, a->u.i); break;
    case ZN_A_STRING: put_int(&t, 20, 3), put_bytes(&t, 4, a->u.s.ptr, a->u.s.len); break;
    case ZN_A_TENSOR: put_int(&t, 20, 4), m = tensor(w, a->u.t, ""), put_msg(&t, 5, &m); break;
    case ZN_A_GRAPH: put_int(&t, 20, 5), m = graph(w, a->u.g, prefix), put_msg(&t, 6, &m); break;
    case ZN_A_FLOATS:
      put_int(&t, 20, 6);
      for (uint32_t i = 0; i < a->n; i++) put_float(&t, 7, a->u.fs[i]);
      break;
    case ZN_A_INTS:
      put_int(&t, 20, 7);
      for (uint32_t i = 0; i < a->n; i++) put_int(&t, 8, a->u.is[i]);
      break;
    case ZN_A_STRINGS:
      put_int(&t, 20, 8);
      for (uint32_t i = 0; i < a->n; i++) put_bytes(&t, 9, a->u.ss[i].ptr, a->u.ss[i].len);
      break;
    default: w->ok = false;
  }
  return t;
}

static const char *value_name(writer *w, const zn_graph *g, zn_vid v, const char *prefix) {
  return v ? zn_arena_printf(w->a, "%s%s", prefix, g->vals[v].name) : "";
}

static zn_text node(writer *w, const zn_graph *g, const zn_node *n, const char *prefix,
                    const char *inner) {
  zn_text t = fresh(w);
  if (n->num_captures)
    w->ok = false; /* bodies are closed here and open there: not worth the renaming */
  for (uint32_t i = 0; i < n->num_in; i++) put_str(&t, 1, value_name(w, g, n->in[i], prefix));
  for (uint32_t i = 0; i < n->num_out; i++) put_str(&t, 2, value_name(w, g, n->out[i], prefix));
  put_str(&t, 3, n->name);
  put_str(&t, 4, zn_op_name(n->op));
  for (uint32_t i = 0; i < n->num_attrs; i++) {
    if (is_default(n, &n->attrs[i])) continue;
    zn_text a = attribute(w, &n->attrs[i], inner);
    put_msg(&t, 5, &a);
  }
  put_str(&t, 7, zn_ops[n->op].domain);
  return t;
}

static zn_text graph(writer *w, const zn_graph *g, const char *prefix) {
  zn_text t = fresh(w);
  for (uint32_t k = 0; k < g->num_order; k++) {
    const zn_node *n = &g->nodes[g->order[k]];
    zn_text m = node(w, g, n, prefix, zn_arena_printf(w->a, "%s%u_", prefix, k));
    put_msg(&t, 1, &m);
  }
  put_str(&t, 2, "g");
  for (zn_vid v = 1; v < g->num_vals; v++) {
    if (!g->vals[v].cst) continue;
    zn_text m = tensor(w, g->vals[v].cst, value_name(w, g, v, prefix));
    put_msg(&t, 5, &m);
  }
  for (uint32_t i = 0; i < g->num_inputs + g->num_outputs; i++) {
    bool out = i >= g->num_inputs;
    zn_vid v = out ? g->outputs[i - g->num_inputs] : g->inputs[i];
    zn_text info = fresh(w), y = type(w, g, &g->vals[v].type, !out && !g->parent);
    put_str(&info, 1, value_name(w, g, v, prefix));
    put_msg(&info, 2, &y);
    put_msg(&t, out ? 12 : 11, &info);
  }
  return t;
}

static bool write_model(writer *w, const zn_graph *g, const char *path) {
  zn_text t = fresh(w), m = graph(w, g, ""), set = fresh(w), ml = fresh(w);
  put_int(&t, 1, IR);
  put_str(&t, 2, "fuzz");
  put_msg(&t, 7, &m);
  put_str(&set, 1, "");
  put_int(&set, 2, OPSET);
  put_msg(&t, 8, &set);
  put_str(&ml, 1, "ai.onnx.ml");
  put_int(&ml, 2, 3);
  put_msg(&t, 8, &ml);
  if (!w->ok) return false;
  FILE *f = fopen(path, "wb");
  bool ok = f && fwrite(t.s, 1, t.len, f) == t.len;
  if (f) ok = fclose(f) == 0 && ok;
  return ok;
}

static void quiet(void *user, zn_severity sev, const char *line) {
  (void)user, (void)sev, (void)line;
}

void fz_export(const char *zg, size_t n, uint64_t seed, const char *dir) {
  zn_ctx c;
  zn_graph *g;
  zn_ctx_init(&c);
  c.sink = quiet;
  zn_gen_dim dims[3] = {{"N", 3}, {"S", 5}, {"T", 2}};
  const char *to = zn_arena_printf(&c.perm, "%s/%llu", dir, (unsigned long long)seed);
  const char *data = zn_arena_printf(&c.perm, "%s/test_data_set_0", to);
  mkdir(to, 0777);
  mkdir(data, 0777);
  writer w = {&c, &c.graph, to, true};
  bool ok = zn_graph_parse(&c, &c.graph, zg, n, NULL, &g) == ZN_OK &&
            write_model(&w, g, zn_arena_printf(&c.perm, "%s/model.onnx", to));
  if (ok) {
    zn_htensor *in = ZN_ARRAY(&c.graph, zn_htensor, g->num_inputs + 1);
    zn_eval_val *x = ZN_ARRAY(&c.graph, zn_eval_val, g->num_inputs + 1),
                *y = ZN_ARRAY(&c.graph, zn_eval_val, g->num_outputs);
    double *floor = ZN_ARRAY(&c.graph, double, g->num_outputs);
    ok = zn_gen_inputs(&c, g, &c.graph, ZN_GEN_NORMAL, seed, dims, 3, in) == ZN_OK;
    for (uint32_t i = 0; ok && i < g->num_inputs; i++)
      x[i] = zn_eval_from_htensor(&c.graph, &in[i]);
    ok = ok && zn_metric_floor(&c, g, &c.graph, x, floor, y) == ZN_OK;
    FILE *f = ok ? fopen(zn_arena_printf(&c.perm, "%s/floor.txt", to), "w") : NULL;
    for (uint32_t i = 0; ok && i < g->num_inputs; i++)
      ok = zn_pb_write(&c, zn_arena_printf(&c.perm, "%s/input_%u.pb", data, i), &in[i]) ==
           ZN_OK;
    for (uint32_t i = 0; ok && i < g->num_outputs; i++) {
      zn_htensor h = zn_eval_to_htensor(&c.graph, &y[i]);
      ok =
          zn_pb_write(&c, zn_arena_printf(&c.perm, "%s/output_%u.pb", data, i), &h) == ZN_OK;
      if (f) fprintf(f, "%.3g\n", floor[i]);
    }
    if (f) fclose(f);
  }
  if (!ok) unlink(zn_arena_printf(&c.perm, "%s/model.onnx", to));
  zn_ctx_fini(&c);
}
