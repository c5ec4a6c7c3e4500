/* make_model DIR: writes what the examples of docs/CLI.md use into DIR: model.onnx, x.pb, tests/affine, tests/dynamic,
 * tests/wrong, unsupported.onnx, zenith.yaml; and external.onnx, whose weights are in weights.bin. */
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cli/tiny_model.h"

static void tiny_reference(int batch, const float *x, float *y) {
  for (int i = 0; i < batch; i++) {
    double h[3], sum = 0;
    for (int j = 0; j < 3; j++) {
      h[j] = tiny_b[j];
      for (int k = 0; k < 4; k++) h[j] += (double)x[4 * i + k] * tiny_w[3 * k + j];
      h[j] = exp(h[j] > 0 ? h[j] : 0);
      sum += h[j];
    }
    for (int j = 0; j < 3; j++) y[3 * i + j] = (float)(h[j] / sum);
  }
}

static int put_test(const char *dir, int fixed, int batch, float off) {
  char path[300];
  float x[8], y[6];
  const int64_t xd[2] = {batch, 4}, yd[2] = {batch, 3};
  for (int i = 0; i < 8; i++) x[i] = (float)(i * 5 % 7) * 0.25f - 0.5f;
  tiny_reference(batch, x, y);
  y[1] += off;
  mkdir(dir, 0777);
  snprintf(path, sizeof path, "%s/model.onnx", dir);
  pb p = tiny_model(fixed, "Relu");
  int bad = tiny_write(path, &p);
  snprintf(path, sizeof path, "%s/test_data_set_0", dir);
  mkdir(path, 0777);
  snprintf(path, sizeof path, "%s/test_data_set_0/input_0.pb", dir);
  p = tiny_tensor("x", 2, xd, x);
  bad |= tiny_write(path, &p);
  snprintf(path, sizeof path, "%s/test_data_set_0/output_0.pb", dir);
  p = tiny_tensor("y", 2, yd, y);
  return bad | tiny_write(path, &p);
}

static int put_external(void) {
  pb w = {.n = 0}, entry = {.n = 0}, bytes = {.n = 0};
  for (int i = 0; i < 2; i++) pb_int(&w, 1, (uint64_t)tiny_w_dims[i]);
  pb_int(&w, 2, 1);
  pb_str(&w, 8, "w");
  pb_str(&entry, 1, "location");
  pb_str(&entry, 2, "weights.bin");
  pb_sub(&w, 13, &entry);
  pb_int(&w, 14, 1);
  memcpy(bytes.b, tiny_w, sizeof tiny_w);
  bytes.n = sizeof tiny_w;
  pb m = tiny_model_with(1, "Relu", &w);
  return tiny_write("external.onnx", &m) | tiny_write("weights.bin", &bytes);
}

int main(int argc, char **argv) {
  if (argc != 2 || chdir(argv[1])) return 2;
  pb p = tiny_model(0, "Relu");
  int bad = tiny_write("model.onnx", &p);
  p = tiny_model(0, "Frobnicate");
  bad |= tiny_write("unsupported.onnx", &p);
  const float x[4] = {1, 2, 3, 4};
  const int64_t dims[2] = {1, 4};
  p = tiny_tensor("x", 2, dims, x);
  bad |= tiny_write("x.pb", &p) | put_external();
  mkdir("tests", 0777);
  mkdir("bad", 0777);
  bad |= put_test("tests/affine", 1, 1, 0) | put_test("tests/dynamic", 0, 2, 0) | put_test("bad/wrong", 1, 1, 0.01f);
  FILE *f = fopen("zenith.yaml", "w");
  if (!f) return 1;
  fputs("model: model.onnx\no: yaml.so\nO: 3\ndim: {batch: 4}\ntarget: cpu\n", f);
  return bad | fclose(f);
}
