/* What zenith.h promises about strings, sequences and the allocator, seen by a program that opens
 *     values_check strings.so loop_grow.so numbers.so ranks.so images.so         (tests/embed/values)
 * Prints ok and FAIL lines. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zenith.h"
#include "zenith_image.h"

typedef struct pool { /* the caller's allocator: refuses number `fail`, or gives odd addresses */
  void *block[4096];
  int n, fail;
  int odd;
} pool;

static void *take(void *user, size_t bytes) {
  pool *p = user;
  if (p->n == p->fail || p->n == 4096) return NULL;
  char *q = aligned_alloc(64, (bytes + 127) / 64 * 64);
  memset(q, 0xa5, bytes);
  p->block[p->n++] = q;
  return p->odd ? q + 8 : q;
}

static void drop(pool *p) {
  while (p->n) free(p->block[--p->n]);
}

static void check(int fine, const char *what) { printf("%s %s\n", fine ? "ok" : "FAIL", what); }

static const zn_model *open_model(const char *path) {
  void *h = dlopen(path, RTLD_NOW);
  const zn_model *m = h ? dlsym(h, "zn_model_main") : NULL;
  if (!m || m->magic != ZN_MODEL_MAGIC || m->abi != ZN_ABI_VERSION) {
    printf("FAIL %s: no model of ABI %d\n", path, ZN_ABI_VERSION);
    exit(1);
  }
  return m;
}

enum { MAX_IO = 16 };
typedef struct job {
  const zn_model *m;
  zn_tensor in[MAX_IO], out[MAX_IO];
  void *ws;
  uint64_t ws_bytes;
  pool p;
} job;

static void prepare(job *j) {
  zn_host none = {0};
  int32_t rc = j->m->plan(j->in, j->out, &j->ws_bytes, 0, &none);
  check(rc == ZN_RUN_OK, "plan needs no allocator");
  j->ws = aligned_alloc(64, (j->ws_bytes + 127) / 64 * 64);
  for (uint32_t i = 0; i < j->m->num_outputs; i++)
    if (j->out[i].bytes) j->out[i].u.data = calloc(1, j->out[i].bytes);
}

static int32_t run(job *j, int fail, int odd) {
  zn_host host = {.alloc_user = &j->p, .alloc = take};
  drop(&j->p);
  j->p.fail = fail;
  j->p.odd = odd;
  return j->m->run(j->in, j->out, j->ws, j->ws_bytes, &host);
}

/* The rules that hold for every model that allocates. */
static void check_allocator(job *j) {
  check(j->m->run(j->in, j->out, j->ws, j->ws_bytes, NULL) == ZN_RUN_ALLOC, "no host: ZN_RUN_ALLOC");
  zn_host empty = {0};
  check(j->m->run(j->in, j->out, j->ws, j->ws_bytes, &empty) == ZN_RUN_ALLOC, "no allocator: ZN_RUN_ALLOC");
  check(run(j, -1, 1) == ZN_RUN_ALLOC, "unaligned memory: ZN_RUN_ALLOC");
  check(run(j, -1, 0) == ZN_RUN_OK, "with an allocator: ZN_RUN_OK");
  int n = j->p.n, good = n > 0;
  for (int k = 0; k < n; k++) good &= run(j, k, 0) == ZN_RUN_ALLOC;
  check(good, "every refusal ends the run with ZN_RUN_ALLOC");
}

static zn_string str(const char *s) {
  zn_string z = {{0}, strlen(s)};
  z.u.ptr = s;
  return z;
}

static int is(const zn_tensor *t, uint64_t i, const char *want) {
  const zn_string *s = (const zn_string *)t->u.data + i;
  return s->len == strlen(want) && memcmp(s->u.ptr, want, s->len) == 0;
}

static void strings(const char *path) {
  job j = {.m = open_model(path)};
  zn_string s[2] = {str("a"), str("\xc3\xa9")}, t[2] = {str("b"), str("\xc3\xa9")};
  unsigned char flag = 1;
  check(j.m->num_inputs == 3 && j.m->inputs[0].dtype == 8, "the descriptor names strings by ONNX's code");
  j.in[0] = (zn_tensor){.u.data = s, .bytes = sizeof s, .dtype = 8, .rank = 1, .shape = {2}};
  j.in[1] = (zn_tensor){.u.data = t, .bytes = sizeof t, .dtype = 8, .rank = 1, .shape = {2}};
  j.in[2] = (zn_tensor){.u.data = &flag, .bytes = 1, .dtype = 9};
  prepare(&j);
  check_allocator(&j);
  check(run(&j, -1, 0) == ZN_RUN_OK && is(&j.out[0], 0, "abaaa") && is(&j.out[0], 5, "\xc3\xa9"), "concatenation in a loop");
  check(is(&j.out[1], 0, "aba") && is(&j.out[1], 4, "abaaa"), "strings of earlier iterations stay");
  check(is(&j.out[2], 0, "abaaa") && is(&j.out[2], 1, "\xc3\xa9"), "comparison and choice");
  flag = 0;
  check(run(&j, -1, 0) == ZN_RUN_OK && is(&j.out[0], 0, "baaa"), "the other branch");
  j.in[0].dtype = 7;
  check(run(&j, -1, 0) == ZN_RUN_DTYPE, "numbers for strings: ZN_RUN_DTYPE");
}

static void sequence(const char *path) {
  job j = {.m = open_model(path)};
  float x[3] = {1, 2, 3}, d = 0.6f;
  j.in[0] = (zn_tensor){.u.data = x, .bytes = sizeof x, .dtype = 1, .rank = 1, .shape = {3}};
  j.in[1] = (zn_tensor){.u.data = &d, .bytes = sizeof d, .dtype = 1};
  prepare(&j);
  check(j.out[0].shape[0] == -1 && j.out[0].bytes == 0, "plan says -1 for a size without bound");
  check(ZN_KIND(j.out[2].dtype) == ZN_SEQUENCE && j.out[2].rank == 1, "plan says what is a sequence");
  check_allocator(&j);
  check(run(&j, -1, 0) == ZN_RUN_OK, "a sequence grows until the data ends the loop");
  const zn_tensor *items = j.out[2].u.data;
  check(j.out[2].shape[0] == 3 && ((int64_t *)j.out[1].u.data)[0] == 3, "its length");
  check(items[2].dtype == 1 && items[2].rank == 1 && items[2].shape[0] == 3 && items[2].bytes == 12, "its items");
  check(((float *)items[2].u.data)[2] == 9, "their elements");
  check(j.out[0].shape[0] == 6 && j.out[0].bytes == 24 && ((float *)j.out[0].u.data)[5] == 9, "an output without bound");
}

/* Output 0 is Cast of the strings to double, 1 to float, 2 to uint8; 7 the doubles as strings. */
static int32_t convert(job *j, const char *s, double x) {
  static zn_string text[1];
  static double real[1];
  static float rows[3];
  static uint16_t half[5];
  static int64_t whole[1];
  static unsigned char flags[3];
  text[0] = str(s);
  real[0] = x;
  j->in[0] = (zn_tensor){.u.data = text, .bytes = sizeof text, .dtype = 8, .rank = 1, .shape = {1}};
  j->in[1] = (zn_tensor){.u.data = real, .bytes = sizeof real, .dtype = 11, .rank = 1, .shape = {1}};
  j->in[2] = (zn_tensor){.u.data = rows, .bytes = sizeof rows, .dtype = 1, .rank = 2, .shape = {1, 3}};
  j->in[3] = (zn_tensor){.u.data = half, .bytes = sizeof half, .dtype = 10, .rank = 1, .shape = {5}};
  j->in[4] = (zn_tensor){.u.data = whole, .bytes = sizeof whole, .dtype = 7, .rank = 1, .shape = {1}};
  j->in[5] = (zn_tensor){.u.data = flags, .bytes = sizeof flags, .dtype = 9, .rank = 1, .shape = {3}};
  j->in[6] = (zn_tensor){.u.data = flags, .bytes = 1, .dtype = 2, .rank = 1, .shape = {1}};
  if (!j->ws) prepare(j);
  return j->m->run(j->in, j->out, j->ws, j->ws_bytes, NULL);
}

static void numbers(const char *path) {
  static const char *const wrong[] = {"", "one", "1.5x", "--1", "1e", "0x10", "1_0", ".", "1.2.3", "256", "-1", "1e3", "nan"};
  static const double values[] = {0.1, 1.0 / 3, 1e15, 1e16, 123456.789, 1e-4, 9.9e-5, 5e-324,
                                  9007199254740992.0, 0x1p-44, 0x1p1023};
  static const char *const written[] = {"0.1", "0.3333333333333333", "1000000000000000.0", "1e+16", "123456.789", "0.0001",
                                        "9.9e-05", "5e-324", "9007199254740992.0", "5.684341886080802e-14",
                                        "8.98846567431158e+307"};
  job j = {.m = open_model(path)};
  int good = 1;
  for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) good &= convert(&j, wrong[k], 0) == ZN_RUN_DOMAIN;
  check(good, "text that is no number of the type: ZN_RUN_DOMAIN");
  check(convert(&j, " +99.75e0\n", 0) == ZN_RUN_OK && ((unsigned char *)j.out[2].u.data)[0] == 99, "blanks, sign, exponent");
  check(convert(&j, "16777217", 0) == ZN_RUN_DOMAIN && ((float *)j.out[1].u.data)[0] == 16777216, "a tie goes to even");
  check(convert(&j, "16777217.00000000000000000000000000000000000000000000000000000000001", 0) == ZN_RUN_DOMAIN &&
            ((float *)j.out[1].u.data)[0] == 16777218, "every digit counts");
  good = 1;
  for (size_t k = 0; k < sizeof values / sizeof *values; k++)
    good &= convert(&j, "0", values[k]) == ZN_RUN_OK && is(&j.out[7], 0, written[k]);
  check(good, "doubles are written as the shortest text that reads back");
}

/* A Gemm of rows that are one vector when there is one of them. */
static void ranks(const char *path) {
  float x[8] = {1}, z[4] = {1, 2, 3, 4};
  unsigned char flag = 1;
  job j = {.m = open_model(path)};
  j.in[0] = (zn_tensor){.u.data = x, .bytes = sizeof x, .dtype = 1, .rank = 2, .shape = {2, 4}};
  j.in[1] = (zn_tensor){.u.data = &flag, .bytes = 1, .dtype = 9};
  j.in[2] = (zn_tensor){.u.data = z, .bytes = sizeof z, .dtype = 1, .rank = 2, .shape = {1, 4}};
  prepare(&j);
  check(run(&j, -1, 0) == ZN_RUN_OK && ((float *)j.out[0].u.data)[3] == 4, "a branch of its own rank");
  flag = 0;
  check(run(&j, -1, 0) == ZN_RUN_OK && ((float *)j.out[0].u.data)[3] == 12, "the other branch and rank");
  j.in[0].shape[0] = 1;
  check(run(&j, -1, 0) == ZN_RUN_SHAPE, "a rank that the model cannot use: ZN_RUN_SHAPE");
}

/* A decoder that misbehaves as it is told. */
typedef struct decoder {
  int calls, fail, grow;
} decoder;

static int32_t decode(void *user, const zn_tensor *file, uint32_t pixels, zn_tensor *image) {
  decoder *d = user;
  if (d->calls++ == d->fail) return 1;
  int32_t code = zn_image_decode(NULL, file, pixels, image);
  if (!image->u.data) image->shape[0] += d->grow;
  return code;
}

static int32_t run_images(job *j, decoder *d) {
  zn_host host = {.alloc_user = &j->p, .alloc = take, .image_user = d, .decode_image = decode};
  drop(&j->p);
  d->calls = 0;
  return j->m->run(j->in, j->out, j->ws, j->ws_bytes, &host);
}

static void images(const char *path) {
  static unsigned char file[512] = "P6\n2 1\n255\n\1\2\3\4\5\6", flag = 1;
  job j = {.m = open_model(path), .p = {.fail = -1}};
  j.in[0] = (zn_tensor){.u.data = file, .bytes = sizeof file, .dtype = 2, .rank = 1, .shape = {sizeof file}};
  j.in[1] = (zn_tensor){.u.data = &flag, .bytes = 1, .dtype = 9};
  prepare(&j);
  decoder d = {0, -1, 0};
  check(j.out[0].shape[0] == -1 && j.out[0].shape[2] == 3, "the size of an image is unknown before the run");
  check(j.m->run(j.in, j.out, j.ws, j.ws_bytes, NULL) == ZN_RUN_HOOK, "no host: ZN_RUN_HOOK");
  check(run(&j, -1, 0) == ZN_RUN_HOOK, "no decoder: ZN_RUN_HOOK");
  check(run_images(&j, &d) == ZN_RUN_OK && d.calls == 10, "each image is asked about twice");
  const unsigned char *rgb = j.out[0].u.data, *bgr = j.out[2].u.data, *gray = j.out[3].u.data;
  check(j.out[0].shape[0] == 1 && j.out[0].shape[1] == 2 && !memcmp(rgb, "\1\2\3\4\5\6", 6), "RGB");
  check(!memcmp(bgr, "\3\2\1\6\5\4", 6) && gray[0] == 2 && gray[1] == 5, "BGR and gray");
  int calls = d.calls, good = 1;
  for (d.fail = 0; d.fail < calls; d.fail++) good &= run_images(&j, &d) == ZN_RUN_IMAGE;
  check(good, "every refusal ends the run with ZN_RUN_IMAGE");
  d = (decoder){0, -1, 1};
  check(run_images(&j, &d) == ZN_RUN_IMAGE, "two sizes for one image: ZN_RUN_IMAGE");
  d.grow = -100;
  check(run_images(&j, &d) == ZN_RUN_SHAPE, "a negative size: ZN_RUN_SHAPE");
  d.grow = 0;
  memcpy(file, "P7", 2);
  check(run_images(&j, &d) == ZN_RUN_IMAGE, "bytes that are no image: ZN_RUN_IMAGE");
}

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  strings(argv[1]);
  sequence(argv[2]);
  numbers(argv[3]);
  ranks(argv[4]);
  images(argv[5]);
  return 0;
}
