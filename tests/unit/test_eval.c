/* The reference evaluator on graphs built here: values, rounding, control flow, memory, metric,
 * generated inputs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "zenithc/eval/gen.h"
#include "zenithc/eval/metric.h"
#include "zenithc/ops/op.h"

typedef struct fix {
  zn_ctx c;
  zn_exprs *ex;
  zn_graph *g;
} fix;

static void open_fix(fix *f) {
  zn_ctx_init(&f->c);
  f->ex = zn_exprs_new(&f->c.graph);
  f->g = zn_graph_new(&f->c.graph, f->ex, "t");
}

static zn_vid input(fix *f, const char *name, zn_dtype t, int rank, const int64_t *dims) {
  return zn_graph_input(f->g, name, zn_type_static(f->g, t, rank, dims));
}

static zn_vid node(fix *f, zn_op op, const zn_vid *in, uint32_t n) {
  return zn_node_out(f->g, zn_graph_node(f->g, op, NULL, in, n, 1), 0);
}

static zn_eval_val floats(fix *f, zn_dtype t, uint32_t rank, const int64_t *dims, const double *x) {
  zn_htensor h = zn_htensor_new(&f->c.graph, t, rank, dims);
  for (uint64_t k = 0; k < zn_htensor_count(&h); k++) zn_store_f64(t, h.data, k, x[k]);
  return zn_eval_from_htensor(&f->c.graph, &h);
}

static void scalar_and_broadcast(void **state) {
  (void)state;
  fix f;
  open_fix(&f);
  zn_vid a = input(&f, "a", ZN_F32, 2, (int64_t[]){2, 2}),
         b = input(&f, "b", ZN_F32, 1, (int64_t[]){2});
  zn_vid s = node(&f, ZN_OP_Add, (zn_vid[]){a, b}, 2);
  zn_graph_output(f.g, node(&f, ZN_OP_Relu, &s, 1));
  zn_eval_val in[2] = {floats(&f, ZN_F32, 2, (int64_t[]){2, 2}, (double[]){1, -5, 3, 4}),
                       floats(&f, ZN_F32, 1, (int64_t[]){2}, (double[]){0.5, 1})};
  zn_eval_val out;
  assert_int_equal(zn_eval_graph(&f.c, f.g, ZN_EVAL_F64, &f.c.graph, in, &out, NULL), ZN_OK);
  const double want[] = {1.5, 0, 3.5, 5};
  for (int k = 0; k < 4; k++) assert_true(out.u.f[k] == want[k]);
  zn_ctx_fini(&f.c);
}

static void integers_wrap(void **state) {
  (void)state;
  fix f;
  open_fix(&f);
  zn_vid a = input(&f, "a", ZN_I8, 1, (int64_t[]){2});
  zn_graph_output(f.g, node(&f, ZN_OP_Mul, (zn_vid[]){a, a}, 2));
  zn_eval_val in = floats(&f, ZN_I8, 1, (int64_t[]){2}, (double[]){16, -11}), out;
  assert_int_equal(zn_eval_graph(&f.c, f.g, ZN_EVAL_F64, &f.c.graph, &in, &out, NULL), ZN_OK);
  assert_int_equal(out.u.i[0], 0);
  assert_int_equal(out.u.i[1], 121);
  zn_ctx_fini(&f.c);
}

/* 10 * 0.7f is 7 in float, less in double: Floor decides in the declared type. */
static void decisions_in_declared_type(void **state) {
  (void)state;
  fix f;
  open_fix(&f);
  zn_vid a = input(&f, "a", ZN_F32, 0, NULL), b = input(&f, "b", ZN_F32, 0, NULL);
  zn_vid p = node(&f, ZN_OP_Mul, (zn_vid[]){a, b}, 2);
  zn_graph_output(f.g, node(&f, ZN_OP_Floor, &p, 1));
  zn_eval_val in[2] = {floats(&f, ZN_F32, 0, NULL, (double[]){10}),
                       floats(&f, ZN_F32, 0, NULL, (double[]){0.7})},
              out;
  assert_int_equal(zn_eval_graph(&f.c, f.g, ZN_EVAL_F64, &f.c.graph, in, &out, NULL), ZN_OK);
  assert_true(out.u.f[0] == 7);
  zn_ctx_fini(&f.c);
}

/* The three float orders differ from each other and stay near F64. */
static void noise_floor(void **state) {
  (void)state;
  fix f;
  open_fix(&f);
  enum { K = 301 };
  zn_vid a = input(&f, "a", ZN_F32, 2, (int64_t[]){3, K}),
         b = input(&f, "b", ZN_F32, 2, (int64_t[]){K, 5});
  zn_graph_output(f.g, node(&f, ZN_OP_MatMul, (zn_vid[]){a, b}, 2));
  zn_htensor h[2];
  assert_int_equal(zn_gen_inputs(&f.c, f.g, &f.c.graph, ZN_GEN_NORMAL, 7, NULL, 0, h), ZN_OK);
  zn_eval_val in[2] = {zn_eval_from_htensor(&f.c.graph, &h[0]),
                       zn_eval_from_htensor(&f.c.graph, &h[1])},
              out[4];
  for (zn_eval_mode m = ZN_EVAL_F64; m <= ZN_EVAL_F32_BLOCK8; m++)
    assert_int_equal(zn_eval_graph(&f.c, f.g, m, &f.c.graph, in, &out[m], NULL), ZN_OK);
  double naive = 0, floor_of;
  for (int k = 0; k < K; k++) naive += in[0].u.f[k] * in[1].u.f[k * 5];
  assert_true(fabs(naive - out[0].u.f[0]) < 1e-12);
  assert_int_not_equal(memcmp(out[1].u.f, out[2].u.f, 15 * sizeof(double)), 0);
  assert_int_not_equal(memcmp(out[1].u.f, out[3].u.f, 15 * sizeof(double)), 0);
  assert_int_equal(zn_metric_floor(&f.c, f.g, &f.c.graph, in, &floor_of, NULL), ZN_OK);
  assert_true(floor_of > 1e-9 && floor_of < 1e-5);
  zn_ctx_fini(&f.c);
}

/* Loop with a carried sum, a scan output and a captured value. */
static void loop_body(void **state) {
  (void)state;
  fix f;
  open_fix(&f);
  zn_graph *b = zn_graph_new(&f.c.graph, f.ex, "body");
  zn_type i64 = zn_type_static(f.g, ZN_I64, 0, NULL), bl = zn_type_static(f.g, ZN_BOOL, 0, NULL);
  zn_type f32 = zn_type_static(f.g, ZN_F32, 0, NULL);
  zn_graph_input(b, "i", i64);
  zn_vid cond = zn_graph_input(b, "cond", bl), v = zn_graph_input(b, "v", f32),
         step = zn_graph_input(b, "step", f32);
  zn_vid s = zn_node_out(b, zn_graph_node(b, ZN_OP_Add, "add", (zn_vid[]){v, step}, 2, 1), 0);
  zn_graph_output(b, cond);
  zn_graph_output(b, s);
  zn_graph_output(b, zn_node_out(b, zn_graph_node(b, ZN_OP_Identity, "id", &s, 1, 1), 0));
  zn_vid v0 = input(&f, "v0", ZN_F32, 0, NULL), st = input(&f, "step", ZN_F32, 0, NULL);
  zn_htensor *m = ZN_NEW(&f.c.graph, zn_htensor);
  *m = zn_htensor_new(&f.c.graph, ZN_I64, 0, NULL);
  zn_store_i64(ZN_I64, m->data, 0, 4);
  zn_vid trips = zn_graph_const(f.g, "m", m);
  zn_nid n = zn_graph_node(f.g, ZN_OP_Loop, "loop", (zn_vid[]){trips, 0, v0, st}, 4, 2);
  zn_node_set_attr(f.g, n, (zn_attr){.name = "body", .kind = ZN_A_GRAPH, .n = 1, .u.g = b});
  f.g->nodes[n].num_captures = 1;
  zn_graph_output(f.g, zn_node_out(f.g, n, 0));
  zn_graph_output(f.g, zn_node_out(f.g, n, 1));
  zn_eval_val in[2] = {floats(&f, ZN_F32, 0, NULL, (double[]){1}),
                       floats(&f, ZN_F32, 0, NULL, (double[]){0.25})},
              out[2];
  assert_int_equal(zn_eval_graph(&f.c, f.g, ZN_EVAL_F64, &f.c.graph, in, out, NULL), ZN_OK);
  assert_true(out[0].u.f[0] == 2);
  assert_int_equal(out[1].dims[0], 4);
  assert_true(out[1].u.f[0] == 1.25 && out[1].u.f[3] == 2);
  zn_ctx_fini(&f.c);
}

/* A chain of 32 nodes needs two tensors at a time, not 32. */
static void frees_after_last_use(void **state) {
  (void)state;
  fix f;
  open_fix(&f);
  zn_vid v = input(&f, "x", ZN_F32, 1, (int64_t[]){1000});
  for (int k = 0; k < 32; k++) v = node(&f, ZN_OP_Neg, &v, 1);
  zn_graph_output(f.g, v);
  zn_htensor h;
  assert_int_equal(zn_gen_inputs(&f.c, f.g, &f.c.graph, ZN_GEN_UNIFORM, 1, NULL, 0, &h), ZN_OK);
  zn_eval_val in = zn_eval_from_htensor(&f.c.graph, &h), out;
  zn_eval_tap tap = {0};
  assert_int_equal(zn_eval_graph(&f.c, f.g, ZN_EVAL_F64, &f.c.graph, &in, &out, &tap), ZN_OK);
  assert_true(tap.peak_bytes <= 2 * 8000);
  assert_memory_equal(in.u.f, out.u.f, 8000);
  zn_ctx_fini(&f.c);
}

static void folds_one_node(void **state) {
  (void)state;
  fix f;
  open_fix(&f);
  zn_vid a = input(&f, "a", ZN_F32, 1, (int64_t[]){1}),
         b = input(&f, "b", ZN_F32, 1, (int64_t[]){1});
  zn_nid n = zn_graph_node(f.g, ZN_OP_Div, "d", (zn_vid[]){a, b}, 2, 1);
  zn_htensor x = zn_htensor_new(&f.c.graph, ZN_F32, 1, (int64_t[]){1}), y = x, out;
  y.data = zn_arena_alloc(&f.c.graph, 4);
  zn_store_f64(ZN_F32, x.data, 0, 1);
  zn_store_f64(ZN_F32, y.data, 0, 3);
  assert_int_equal(zn_eval_node(&f.c, f.g, n, (const zn_htensor *[]){&x, &y}, &out), ZN_OK);
  assert_true(zn_load_f64(out.dtype, out.data, 0) == (double)(1.0f / 3.0f));
  zn_ctx_fini(&f.c);
}

static void swallow(void *user, zn_severity sev, const char *line) {
  (void)user;
  (void)sev;
  assert_non_null(strstr(line, "Gather"));
}

static void errors_name_the_node(void **state) {
  (void)state;
  fix f;
  open_fix(&f);
  f.c.sink = swallow;
  zn_vid x = input(&f, "x", ZN_F32, 1, (int64_t[]){3}),
         i = input(&f, "i", ZN_I64, 1, (int64_t[]){1});
  zn_graph_output(f.g, node(&f, ZN_OP_Gather, (zn_vid[]){x, i}, 2));
  zn_eval_val in[2] = {floats(&f, ZN_F32, 1, (int64_t[]){3}, (double[]){1, 2, 3}),
                       floats(&f, ZN_I64, 1, (int64_t[]){1}, (double[]){3})},
              out;
  assert_int_equal(zn_eval_graph(&f.c, f.g, ZN_EVAL_F64, &f.c.graph, in, &out, NULL), ZN_ERR_MODEL);
  assert_int_equal(f.c.errors, 1);
  zn_ctx_fini(&f.c);
}

static void metric_rules(void **state) {
  (void)state;
  fix f;
  open_fix(&f);
  const double y[] = {1, -1, NAN, INFINITY}, z[] = {1, -1.1, NAN, INFINITY},
               w[] = {1, -1, 0, INFINITY};
  zn_eval_val a = floats(&f, ZN_F64, 1, (int64_t[]){4}, y),
              b = floats(&f, ZN_F64, 1, (int64_t[]){4}, z),
              c = floats(&f, ZN_F64, 1, (int64_t[]){4}, w);
  zn_metric m;
  zn_metric_compare(&f.c.graph, &a, &b, &m);
  assert_true(m.same_type && m.nonfinite_bad == 0 && fabs(m.eta_max - 0.05) < 1e-12 &&
              fabs(m.rel_max - 0.1) < 1e-12);
  assert_true(zn_metric_pass(&m, 0.06) && !zn_metric_pass(&m, 0.04));
  zn_metric_compare(&f.c.graph, &a, &c, &m);
  assert_int_equal(m.nonfinite_bad, 1);
  assert_false(zn_metric_pass(&m, 1e9));
  assert_true(zn_metric_allclose(&a, &a, 0, 0));
  assert_false(zn_metric_allclose(&a, &b, 1e-3, 1e-7));
  zn_ctx_fini(&f.c);
}

static void generated_indices_fit(void **state) {
  (void)state;
  fix f;
  open_fix(&f);
  zn_vid table = input(&f, "table", ZN_F32, 2, (int64_t[]){5, 2});
  zn_expr n = zn_ex_sym(f.ex, "batch", 1, INT64_MAX);
  zn_vid ids = zn_graph_input(f.g, "ids", zn_type_tensor(ZN_I64, 1, &n));
  zn_graph_output(f.g, node(&f, ZN_OP_Gather, (zn_vid[]){table, ids}, 2));
  for (zn_gen_kind k = 0; k < ZN_GEN_KINDS; k++) {
    zn_htensor h[2];
    zn_gen_dim d = {"batch", 100};
    assert_int_equal(zn_gen_inputs(&f.c, f.g, &f.c.graph, k, 3, &d, 1, h), ZN_OK);
    assert_int_equal(h[1].dims[0], 100);
    for (uint64_t j = 0; j < 100; j++) {
      int64_t v = zn_load_i64(ZN_I64, h[1].data, j);
      assert_true(v >= 0 && v < 5);
    }
  }
  zn_ctx_fini(&f.c);
}

/* Lists keep their items, of strings and in lists, on the way to host values and back. */
static void lists_become_host_values(void **state) {
  (void)state;
  fix f;
  open_fix(&f);
  zn_str words[] = {{"a", 1}, {"bc", 2}};
  zn_htensor text = {.dtype = ZN_STR, .rank = 1, .dims = {2}, .data = words};
  zn_eval_val items[2] = {zn_eval_from_htensor(&f.c.graph, &text), floats(&f, ZN_F32, 0, NULL, (double[]){0.5})};
  zn_eval_val list = {.set = true, .kind = ZN_V_SEQ, .dtype = ZN_STR, .count = 2, .u.items = items};
  zn_eval_val given = {.set = true, .kind = ZN_V_OPT, .dtype = ZN_STR, .count = 1, .u.items = &list};
  zn_htensor h = zn_eval_to_htensor(&f.c.graph, &given);
  const zn_htensor *inner = h.data, *got = inner->data;
  assert_true(h.kind == ZN_V_OPT && h.of && h.dims[0] == 1 && inner->kind == ZN_V_SEQ && inner->dims[0] == 2);
  assert_true(got[0].dtype == ZN_STR && got[0].dims[0] == 2 && ((const zn_str *)got[0].data)[1].len == 2);
  assert_true(zn_load_f64(ZN_F32, got[1].data, 0) == 0.5);
  zn_eval_val back = zn_eval_from_htensor(&f.c.graph, &h);
  assert_true(back.count == 1 && back.u.items[0].u.items[0].u.s[0].len == 1);
  zn_ctx_fini(&f.c);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(scalar_and_broadcast),
                                     cmocka_unit_test(integers_wrap),
                                     cmocka_unit_test(decisions_in_declared_type),
                                     cmocka_unit_test(noise_floor),
                                     cmocka_unit_test(loop_body),
                                     cmocka_unit_test(frees_after_last_use),
                                     cmocka_unit_test(folds_one_node),
                                     cmocka_unit_test(errors_name_the_node),
                                     cmocka_unit_test(metric_rules),
                                     cmocka_unit_test(generated_indices_fit),
                                     cmocka_unit_test(lists_become_host_values)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
