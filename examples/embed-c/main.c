/* Embedding a compiled model in a C program: plan once, run on one thread and on a pool, compare
 * bit for bit. Works with any model of numeric tensors; symbolic dimensions are taken as 1. See
 * build.sh. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include MODEL_HEADER
#include "zenith_pool.h"

#define PASTE2(a, b) a##b
#define PASTE(a, b)  PASTE2(a, b)
#define MODEL        PASTE(MODEL_NAME, _model)

static size_t element_bytes(uint32_t dtype) {
  switch (dtype) { /* ONNX codes */
  case 7:
  case 11:
  case 13:
    return 8;
  case 1:
  case 6:
  case 12:
    return 4;
  case 4:
  case 5:
  case 10:
  case 16:
    return 2;
  default:
    return 1;
  }
}

static void *aligned(size_t bytes) {
  void *p = NULL;
  if (posix_memalign(&p, 64, bytes ? bytes : 64) != 0) exit(1);
  memset(p, 0, bytes ? bytes : 64);
  return p;
}

/* The same numbers on every machine: a small ramp. */
static void fill(zn_tensor *t, size_t count) {
  for (size_t i = 0; i < count; i++) {
    float x = (float)(i % 17) * 0.0625f - 0.5f;
    if (t->dtype == 1)
      ((float *)t->u.data)[i] = x;
    else if (t->dtype == 11)
      ((double *)t->u.data)[i] = x;
    else if (element_bytes(t->dtype) == 1)
      ((uint8_t *)t->u.data)[i] = (uint8_t)(i % 2);
  }
}

static void make_inputs(zn_tensor *in) {
  for (uint32_t i = 0; i < MODEL.num_inputs; i++) {
    const zn_io_desc *d = &MODEL.inputs[i];
    size_t count = 1;
    memset(&in[i], 0, sizeof in[i]);
    in[i].dtype = d->dtype;
    in[i].rank = d->rank;
    for (uint32_t k = 0; k < d->rank; k++) {
      in[i].shape[k] = d->shape[k] < 0 ? 1 : d->shape[k];
      count *= (size_t)in[i].shape[k];
    }
    in[i].bytes = count * element_bytes(d->dtype);
    in[i].u.data = aligned((size_t)in[i].bytes);
    fill(&in[i], count);
  }
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static double run(zn_tensor *in, zn_tensor *out, void *ws, uint64_t bytes, const zn_host *host) {
  double best = 1e30;
  for (int i = 0; i < 5; i++) {
    double start = now();
    int32_t rc = MODEL.run(in, out, ws, (size_t)bytes, host);
    double ms = now() - start;
    if (rc != ZN_RUN_OK) {
      fprintf(stderr, "%s: run returned %" PRId32 "\n", MODEL.name, rc);
      exit(1);
    }
    if (ms < best) best = ms;
  }
  return best;
}

static void print(const zn_tensor *t, uint32_t number) {
  size_t n = (size_t)t->bytes / element_bytes(t->dtype);
  printf("output %" PRIu32 ":\n", number);
  for (size_t i = 0; i < n && i < 16; i++) {
    if (t->dtype == 1) {
      uint32_t bits;
      memcpy(&bits, (float *)t->u.data + i, 4);
      printf("  [%u] %08" PRIx32 " %.6f\n", (unsigned)i, bits, (double)((float *)t->u.data)[i]);
    } else if (t->dtype == 7) {
      printf("  [%u] %" PRId64 "\n", (unsigned)i, ((int64_t *)t->u.data)[i]);
    }
  }
}

int main(int argc, char **argv) {
  unsigned threads = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
  zn_tensor *in = aligned(sizeof *in * MODEL.num_inputs),
            *out = aligned(sizeof *out * MODEL.num_outputs);
  uint64_t bytes = 0;
  make_inputs(in);
  int32_t rc = MODEL.plan(in, out, &bytes, 0, NULL);
  if (rc != ZN_RUN_OK) {
    fprintf(stderr, "%s: plan returned %" PRId32 "\n", MODEL.name, rc);
    return 1;
  }
  for (uint32_t i = 0; i < MODEL.num_outputs; i++) out[i].u.data = aligned((size_t)out[i].bytes);
  void *ws = aligned((size_t)bytes);
  fprintf(stderr,
          "%s: workspace %" PRIu64 " bytes, weights %" PRIu64 " bytes, %" PRIu32 " kernels\n",
          MODEL.name, bytes, MODEL.weights_bytes, MODEL.num_kernels);

  double one = run(in, out, ws, bytes, NULL);
  void *first = aligned((size_t)out[0].bytes);
  memcpy(first, out[0].u.data, (size_t)out[0].bytes);

  zn_pool *pool = zn_pool_create(threads);
  if (!pool) return 1;
  zn_host host = {0};
  host.user = pool;
  host.parallel_for = zn_pool_parallel_for;
  double many = run(in, out, ws, bytes, &host);
  fprintf(stderr, "1 thread %.3f ms, %u threads %.3f ms\n", one, zn_pool_threads(pool), many);
  if (memcmp(first, out[0].u.data, (size_t)out[0].bytes) != 0) {
    fprintf(stderr, "the thread count changed the result\n");
    return 1;
  }
  zn_pool_destroy(pool);
  for (uint32_t i = 0; i < MODEL.num_outputs; i++) print(&out[i], i);
  return 0;
}
