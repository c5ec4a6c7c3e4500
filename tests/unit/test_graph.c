/* Graph construction and editing, attributes, .zg text round trips, errors of the parser, the
 * verifier. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "zenithc/ops/op.h"

typedef struct world {
  zn_ctx c;
  char said[4096];
} world;

static void listen(void *user, zn_severity sev, const char *line) {
  world *w = user;
  (void)sev;
  snprintf(w->said + strlen(w->said), sizeof w->said - strlen(w->said), "%s\n", line);
}

static int setup(void **state) {
  static world w;
  zn_ctx_init(&w.c);
  w.c.sink = listen;
  w.c.sink_user = &w;
  w.said[0] = 0;
  *state = &w;
  return 0;
}

static int teardown(void **state) {
  zn_ctx_fini(&((world *)*state)->c);
  return 0;
}

static zn_graph *parse(world *w, const char *s) {
  zn_graph *g = NULL;
  zn_status st = zn_graph_parse(&w->c, &w->c.graph, s, strlen(s), NULL, &g);
  if (st == ZN_OK) st = zn_graph_verify(&w->c, g);
  if (st != ZN_OK) print_message("%s", w->said);
  assert_int_equal(st, ZN_OK);
  return g;
}

static const char *text(world *w, const zn_graph *g) {
  zn_text t;
  zn_text_init(&t, &w->c.tmp);
  zn_graph_print(g, &t);
  return t.s;
}

static const char *const samples[] = {
    "zg 1\n"
    "const $w f32[8,1,5,5] = rand(1)\n"
    "graph @main(%x: f32[N,1,28,28]) -> (%y) {\n"
    "  %0: f32[N,8,24,24] = Conv(%x, $w) {group=1} @conv1\n"
    "  %y: f32[N,8,24,24] = Relu(%0)\n"
    "}\n",
    "zg 1\n"
    "producer \"pytorch 2.1\"\n"
    "sym N 1..512\n"
    "sym k 0..511 below N\n"
    "sym !\"a b\" -3..inf\n"
    "const $shape i64[3] = [0, -1, 4]\n"
    "const $\"odd name\" f32[2,2] = [0.1, -1e-07, inf, nan]\n"
    "const $h f16[3] = [0.333, 65504, -0]\n"
    "const $big i32[10,10] = iota\n"
    "const $z f64[4,5] = zeros\n"
    "const $o u8[99] = fill(255)\n"
    "const $s str[2] = [\"a\\\"b\", \"\"]\n"
    "const $c c64[1] = [1.5, -2]\n"
    "const $r i8[40] = rand(7, -3, 4)\n"
    "graph @main(%x: f32[N,2*N - 1,k,!\"a b\" + 4], %u: ?[*], %q: seq(f32[*]), %o2: "
    "opt(seq(f32[?,1])), "
    "%m: map(i64, f32[])) -> (%y, %x, $h, %parts.1, $shape) {\n"
    "  %sh: i64[4] elems [N, 2*N - 1, k, !\"a b\" + 4] inlined = Shape(%x) {start=0} @\"node 1\" "
    "source \"m.py:3\"\n"
    "  %parts.0: f32[*], _, %parts.1: f32[*] = Split(%x) {axis=1, num_outputs=3}\n"
    "  %cl: f32[*] = Clip(%u, _, $\"odd name\") kernel 3\n"
    "  %al: f32[N] alias %v = Relu(%x)\n"
    "  %nz: i64[2] content [k, ?] = Relu(%x)\n"
    "  %v: f32[N,16,4,4] block 8 axis 1 halo [0,0,1,1] [0,0,2,1] = Conv(%x, $z) "
    "{auto_pad=\"VALID\", pads=[0, 1, 0, 1]}\n"
    "  %cst: f32[2] = Constant() {value=const f32[2] [1, 2]}\n"
    "  %e: f32[*] = Elu(%u) {alpha=1.0} @/layer1/elu\n"
    "  %y: f32[*] = RNN(%x, $s, $c, $o, $r, $big) {activations=[\"Tanh\"], activation_alpha=[0.5, "
    "1.0]}\n"
    "}\n",
    "zg 1\n"
    "graph @main(%c: bool[], %x: f32[4]) -> (%y) {\n"
    "  %y: f32[4] = If(%c, %x) {else_branch=graph @no(%x: f32[4]) -> (%z) {\n"
    "    const $one f32[] = [1]\n"
    "    %z: f32[4] = Add(%x, $one)\n"
    "  }, then_branch=graph @yes(%x: f32[4]) -> (%x) {\n"
    "  }} captures 1\n"
    "}\n",
};

static void test_round_trip(void **state) {
  world *w = *state;
  for (size_t i = 0; i < sizeof samples / sizeof *samples; i++)
    assert_string_equal(text(w, parse(w, samples[i])), samples[i]);
}

/* Any prefix and any damaged byte is an error or a graph, never a crash. */
static void test_damage(void **state) {
  world *w = *state;
  for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
    size_t n = strlen(samples[i]);
    for (size_t k = 0; k < n; k += 3) {
      zn_graph *g;
      zn_arena_reset(&w->c.graph);
      w->said[0] = 0;
      (void)zn_graph_parse(&w->c, &w->c.graph, samples[i], k, NULL, &g);
      char *copy = zn_arena_strndup(&w->c.tmp, samples[i], n);
      copy[k] = "%$@!{}[](),=0x9\"?*-"[k % 19];
      if (zn_graph_parse(&w->c, &w->c.graph, copy, n, NULL, &g) == ZN_OK)
        (void)zn_graph_verify(&w->c, g);
      zn_arena_reset(&w->c.tmp);
    }
  }
}

static void test_errors(void **state) {
  world *w = *state;
  const char *cases[][2] = {
      {"zk 1", "this is no .zg text"},
      {"zg 2", "version 2"},
      {"zg 1 graph @m() -> (%y) {}", "output 'y' of graph @m is not defined"},
      {"zg 1 graph @m(%x: f32[]) -> (%x) { %x: f32[] = Relu(%x) }",
       "line 1: value %x is defined twice"},
      {"zg 1 graph @m(%x: f32[]) -> (%x) { %y: f32[] = Relux(%x) }", "'Relux' is no operator"},
      {"zg 1 graph @m(%x: f32[]) -> (%x) { %y: f32[] = Relu(%z) }",
       "value 'z' is not defined above"},
      {"zg 1 graph @m(%x: f32[]) -> (%x) { %y: f32[] = Elu(%x) {beta=1.0} }",
       "Elu has no attribute 'beta'"},
      {"zg 1 graph @m(%x: f33[]) -> (%x) { }", "'f33' is no element type"},
      {"zg 1 const $w i8[2] = [1, 200]", "200 is no i8"},
      {"zg 1 const $w i8[3] = [1, 2]", "2 elements, expected 3"},
      {"zg 1 const $w i8[1000000,1000000] = zeros", "more than"},
      {"zg 1 const $w i8[N] = zeros", "static shape"},
      {"zg 1 const $w i8[4] = file \"../x\"", "cannot read contents"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    zn_graph *g;
    w->said[0] = 0;
    assert_int_equal(zn_graph_parse(&w->c, &w->c.graph, cases[i][0], strlen(cases[i][0]), NULL, &g),
                     ZN_ERR_MODEL);
    if (!strstr(w->said, cases[i][1])) print_message("%s gives %s", cases[i][0], w->said);
    assert_non_null(strstr(w->said, cases[i][1]));
  }
}

static void test_edit(void **state) {
  world *w = *state;
  zn_graph *g = zn_graph_new(&w->c.graph, zn_exprs_new(&w->c.graph), "main");
  int64_t dims[2] = {2, 3}, got[8], shape[2] = {3, 2};
  uint32_t n;
  double f;
  zn_vid x = zn_graph_input(g, "x", zn_type_static(g, ZN_F32, 2, dims));
  zn_vid a = zn_node_out(g, zn_graph_node(g, ZN_OP_Relu, "r", &x, 1, 1), 0);
  zn_nid second = zn_graph_node(g, ZN_OP_Neg, NULL, &a, 1, 1);
  zn_vid b = zn_node_out(g, second, 0);
  zn_graph_rename(g, b, "y");
  zn_graph_rename(g, a, "y");
  assert_string_equal(g->vals[a].name, "y.1");
  zn_graph_output(g, b);
  zn_vid c = zn_graph_const_i64s(g, shape, 2), half = zn_graph_const_scalar(g, ZN_F16, 0.5);
  assert_true(zn_value_i64s(g, c, got, 8, &n) && n == 2 && got[0] == 3 && got[1] == 2);
  assert_true(zn_value_f64(g, half, &f) && f == 0.5);
  assert_false(zn_value_f64(g, x, &f));
  zn_nid mid = zn_graph_node_before(g, second, ZN_OP_Elu, "e", &a, 1, 1);
  assert_int_equal(g->order[1], mid);
  zn_node_set_float(g, mid, "alpha", 2);
  zn_node_set_float(g, mid, "alpha", 3);
  assert_int_equal(g->nodes[mid].num_attrs, 1);
  assert_true(zn_node_float(&g->nodes[mid], "alpha") == 3);
  assert_true(zn_node_int(&(zn_node){.op = ZN_OP_Conv, .name = "c"}, "group") == 1);
  zn_vid e = zn_node_out(g, mid, 0);
  zn_graph_replace(g, b, e); /* the output moves to Elu, Neg has no use left */
  assert_string_equal(g->vals[e].name, "y");
  assert_int_equal(g->outputs[0], e);
  uint32_t *uses = zn_graph_uses(g, &w->c.tmp);
  assert_true(uses[b] == 0 && uses[e] == 1 && uses[a] == 2);
  zn_graph_kill(g, second);
  zn_graph_compact(g);
  assert_int_equal(g->num_order, 2);
  assert_int_equal(zn_graph_verify(&w->c, g), ZN_OK);
  zn_graph_replace(g, e, x); /* an input cannot take the output's name: Identity */
  assert_int_equal(g->nodes[g->order[2]].op, ZN_OP_Identity);
  assert_string_equal(g->vals[g->outputs[0]].name, "y");
  assert_int_equal(zn_graph_verify(&w->c, g), ZN_OK);
  zn_nid first = g->order[0]; /* reversed order is sorted again */
  g->order[0] = g->order[1];
  g->order[1] = first;
  assert_int_equal(zn_graph_verify(&w->c, g), ZN_ERR_MODEL);
  assert_true(zn_graph_toposort(g));
  assert_int_equal(zn_graph_verify(&w->c, g), ZN_OK);
  assert_int_equal(g->order[0], first);
  g->nodes[first].in[0] = e; /* a cycle */
  assert_false(zn_graph_toposort(g));
}

static void test_verify(void **state) {
  world *w = *state;
  zn_graph *g = parse(w, samples[0]);
  g->nodes[1].num_in = 1;
  assert_int_equal(zn_graph_verify(&w->c, g), ZN_ERR_MODEL);
  assert_non_null(
      strstr(w->said, "node 'conv1' (Conv): malformed graph: 1 inputs, expected 2 to 3"));
  g = parse(w, samples[0]);
  zn_node_set_int(g, 1, "grooup", 1);
  assert_int_equal(zn_graph_verify(&w->c, g), ZN_ERR_MODEL);
  g = parse(w, samples[0]);
  g->vals[g->nodes[1].out[0]].name = "y";
  assert_int_equal(zn_graph_verify(&w->c, g), ZN_ERR_MODEL);
  assert_non_null(strstr(w->said, "two values are named 'y'"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
      cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
      cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
      cmocka_unit_test_setup_teardown(test_edit, setup, teardown),
      cmocka_unit_test_setup_teardown(test_verify, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
