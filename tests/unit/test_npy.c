/* .npy and .npz: every element type, byte order, Fortran order, strings, archives, and refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

#include "zenithc/driver/npy.h"

static void no_sink(void *user, zn_severity sev, const char *line) {
  (void)sev;
  snprintf(user, 512, "%s", line);
}
static char last[512];

static zn_ctx new_ctx(void) {
  zn_ctx c;
  zn_ctx_init(&c);
  c.sink = no_sink;
  c.sink_user = last;
  return c;
}

/* A file with the given header dictionary and contents. */
static zn_status parse(zn_ctx *c, const char *dict, const void *data, size_t n, zn_htensor *out) {
  uint8_t *p = zn_arena_alloc(&c->tmp, 10 + strlen(dict) + n);
  memcpy(p, "\x93NUMPY\x01\x00", 8);
  p[8] = (uint8_t)strlen(dict);
  memcpy(p + 10, dict, strlen(dict));
  if (n) memcpy(p + 10 + strlen(dict), data, n);
  return zn_npy_parse(c, &c->graph, p, 10 + strlen(dict) + n, "t.npy", out);
}

static void test_orders(void **state) {
  (void)state;
  zn_ctx c = new_ctx();
  zn_htensor t;
  const uint8_t be[] = {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6}; /* columns of [[1,3,5],[2,4,6]] */
  assert_int_equal(parse(&c, "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }", be, sizeof be, &t), ZN_OK);
  assert_int_equal(t.dtype, ZN_I16);
  const int64_t want[] = {1, 3, 5, 2, 4, 6};
  for (uint64_t i = 0; i < 6; i++) assert_int_equal(zn_load_i64(t.dtype, t.data, i), want[i]);
  const uint8_t bools[] = {0, 1, 7};
  assert_int_equal(parse(&c, "{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }", bools, 3, &t), ZN_OK);
  assert_int_equal(((uint8_t *)t.data)[2], 1);
  const uint8_t half[] = {0x00, 0x3c};
  assert_int_equal(parse(&c, "{'descr': '<f2', 'fortran_order': False, 'shape': (), }", half, 2, &t), ZN_OK);
  assert_true(t.rank == 0 && zn_load_f64(t.dtype, t.data, 0) == 1.0);
  zn_ctx_fini(&c);
}

static void test_refusals(void **state) {
  (void)state;
  zn_ctx c = new_ctx();
  zn_htensor t;
  static const char *const bad[] = {
      "{'descr': '|O8', 'fortran_order': False, 'shape': (1,), }",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000,), }",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }",
      "{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }",
      "{'descr': '<", "{}", "{'descr': '<f4', 'fortran_order': False, 'shape': (1"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_not_equal(parse(&c, bad[i], "abcd", 4, &t), ZN_OK);
  assert_int_not_equal(zn_npy_parse(&c, &c.graph, (const uint8_t *)"PK", 2, "x", &t), ZN_OK);
  assert_int_equal(zn_npy_read(&c, &c.graph, "/nonexistent.npy", &t), ZN_ERR_IO);
  zn_ctx_fini(&c);
}

static zn_htensor sample(zn_ctx *c, zn_dtype d, const char *name) {
  int64_t dims[2] = {2, 3};
  zn_htensor t = zn_htensor_new(&c->graph, d, 2, dims);
  t.name = name;
  for (uint64_t i = 0; i < 6; i++) zn_store_i64(d, t.data, i, (int64_t)i % 2);
  return t;
}

static void test_roundtrip(void **state) {
  (void)state;
  zn_ctx c = new_ctx();
  static const zn_dtype types[] = {ZN_BOOL, ZN_I8, ZN_U8, ZN_I16, ZN_U16, ZN_I32, ZN_U32, ZN_I64, ZN_U64, ZN_F16, ZN_F32, ZN_F64};
  enum { N = sizeof types / sizeof *types };
  zn_htensor t[N + 1], back, *all;
  uint32_t n;
  char path[64];
  snprintf(path, sizeof path, "/tmp/zn_test_npy_%d.npz", (int)getpid());
  for (int i = 0; i < N; i++) {
    t[i] = sample(&c, types[i], zn_dtypes[types[i]].name);
    assert_int_equal(zn_npy_write(&c, path, &t[i]), ZN_OK);
    assert_int_equal(zn_npy_read(&c, &c.graph, path, &back), ZN_OK);
    assert_int_equal(back.dtype, types[i]);
    assert_true(back.rank == 2 && back.dims[0] == 2 && back.dims[1] == 3);
    assert_memory_equal(back.data, t[i].data, zn_htensor_bytes(&t[i]));
  }
  int64_t two[1] = {2};
  t[N] = zn_htensor_new(&c.graph, ZN_STR, 1, two);
  ((zn_str *)t[N].data)[0] = (zn_str){"gr\xc3\xbc\xc3\x9f", 6};
  ((zn_str *)t[N].data)[1] = (zn_str){"", 0};
  assert_int_equal(zn_npz_write(&c, path, t, N + 1), ZN_OK);
  assert_int_equal(zn_npz_read(&c, &c.graph, path, &all, &n), ZN_OK);
  assert_int_equal(n, N + 1);
  for (int i = 0; i < N; i++) {
    assert_string_equal(all[i].name, t[i].name);
    assert_memory_equal(all[i].data, t[i].data, zn_htensor_bytes(&t[i]));
  }
  assert_string_equal(((zn_str *)all[N].data)[0].ptr, "gr\xc3\xbc\xc3\x9f");
  assert_int_equal(((zn_str *)all[N].data)[1].len, 0);
  assert_string_equal(all[N].name, "arr_12");
  unlink(path);
  zn_ctx_fini(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_orders), cmocka_unit_test(test_refusals),
                                     cmocka_unit_test(test_roundtrip)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
