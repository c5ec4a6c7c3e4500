/* A small classifier written as ONNX bytes: y = Softmax(Relu(x W + b)), x f32[batch,4], y f32[batch,3]. For tests that
 * need a model and no other tool. */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct pb {
  uint8_t b[4096];
  size_t n;
} pb;

static void pb_varint(pb *p, uint64_t v) {
  for (; v > 127; v >>= 7) p->b[p->n++] = (uint8_t)(v | 128);
  p->b[p->n++] = (uint8_t)v;
}

static void pb_int(pb *p, unsigned field, uint64_t v) {
  pb_varint(p, field << 3);
  pb_varint(p, v);
}

static void pb_bytes(pb *p, unsigned field, const void *data, size_t n) {
  pb_varint(p, field << 3 | 2);
  pb_varint(p, n);
  memcpy(p->b + p->n, data, n);
  p->n += n;
}

static void pb_str(pb *p, unsigned field, const char *s) { pb_bytes(p, field, s, strlen(s)); }
static void pb_sub(pb *p, unsigned field, const pb *s) { pb_bytes(p, field, s->b, s->n); }

static const float tiny_w[12] = {0.5f, -1.f, 2.f, 0.25f, 1.5f, -0.75f, -2.f, 1.f, 0.125f, 1.f, -0.5f, 3.f};
static const float tiny_b[3] = {0.1f, -0.2f, 0.3f};

/* TensorProto of floats */
static pb tiny_tensor(const char *name, int rank, const int64_t *dims, const float *x) {
  pb t = {.n = 0};
  size_t n = 1;
  for (int i = 0; i < rank; i++) pb_int(&t, 1, (uint64_t)dims[i]), n *= (size_t)dims[i];
  pb_int(&t, 2, 1);
  pb_str(&t, 8, name);
  pb_bytes(&t, 9, x, n * sizeof *x);
  return t;
}

/* ValueInfoProto: f32[batch, n]; batch > 0 is fixed */
static pb tiny_value(const char *name, int batch, int n) {
  pb dim0 = {.n = 0}, dim1 = {.n = 0}, shape = {.n = 0}, tensor = {.n = 0}, type = {.n = 0}, v = {.n = 0};
  if (batch > 0) pb_int(&dim0, 1, (uint64_t)batch);
  else pb_str(&dim0, 2, "batch");
  pb_int(&dim1, 1, (uint64_t)n);
  pb_sub(&shape, 1, &dim0);
  pb_sub(&shape, 1, &dim1);
  pb_int(&tensor, 1, 1);
  pb_sub(&tensor, 2, &shape);
  pb_sub(&type, 1, &tensor);
  pb_str(&v, 1, name);
  pb_sub(&v, 2, &type);
  return v;
}

static pb tiny_node(const char *op, const char *name, const char *a, const char *b, const char *c, const char *out) {
  pb n = {.n = 0};
  pb_str(&n, 1, a);
  if (b) pb_str(&n, 1, b);
  if (c) pb_str(&n, 1, c);
  pb_str(&n, 2, out);
  pb_str(&n, 3, name);
  pb_str(&n, 4, op);
  return n;
}

static const int64_t tiny_w_dims[2] = {4, 3};

/* The whole ModelProto; op2 is the second operator ("Relu"), w the TensorProto of the weights. */
static pb tiny_model_with(int batch, const char *op2, const pb *w) {
  pb g = {.n = 0}, m = {.n = 0}, opset = {.n = 0}, t;
  const int64_t bd[1] = {3};
  t = tiny_node("Gemm", "dense", "x", "w", "b", "h");
  pb_sub(&g, 1, &t);
  t = tiny_node(op2, "act", "h", NULL, NULL, "r");
  pb_sub(&g, 1, &t);
  t = tiny_node("Softmax", "prob", "r", NULL, NULL, "y");
  pb_sub(&g, 1, &t);
  pb_str(&g, 2, "tiny");
  pb_sub(&g, 5, w);
  t = tiny_tensor("b", 1, bd, tiny_b);
  pb_sub(&g, 5, &t);
  t = tiny_value("x", batch, 4);
  pb_sub(&g, 11, &t);
  t = tiny_value("y", batch, 3);
  pb_sub(&g, 12, &t);
  pb_int(&m, 1, 8);
  pb_str(&m, 2, "tiny_model.h");
  pb_sub(&m, 7, &g);
  pb_int(&opset, 2, 17);
  pb_sub(&m, 8, &opset);
  return m;
}

static pb tiny_model(int batch, const char *op2) {
  const pb w = tiny_tensor("w", 2, tiny_w_dims, tiny_w);
  return tiny_model_with(batch, op2, &w);
}

static int tiny_write(const char *path, const pb *p) {
  FILE *f = fopen(path, "wb");
  int bad = !f || fwrite(p->b, 1, p->n, f) != p->n;
  if (f && fclose(f)) bad = 1;
  return bad;
}
#endif
