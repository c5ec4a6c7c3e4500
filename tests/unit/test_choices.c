/* Every choice that a schedule offers for its knobs (zenithc/graph/knob.h), alone and drawn together: the interpreter runs the
 * kernels of several instruction sets, and results stay what they are without a database. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <math.h>

#include "targets/target.h"
#include "zenithc/driver/compile.h"

enum { MAX_ASKED = 64, MIXES = 6 };

typedef struct question {
  char signature[512], knob[16];
  int64_t usual, choices[ZN_KNOB_MAX_CHOICES], value;
  uint32_t n;
} question;

typedef struct table {
  question q[MAX_ASKED];
  uint32_t n;
} table;

static void asked(void *user, const char *signature, const char *knob, int64_t usual, const int64_t *choices, uint32_t n) {
  table *t = user;
  bool known = false, listed = false;
  for (uint32_t i = 0; i < t->n; i++) known |= !strcmp(t->q[i].signature, signature) && !strcmp(t->q[i].knob, knob);
  for (uint32_t i = 0; i < n; i++) listed |= choices[i] == usual;
  assert_true(listed);
  if (known) return;
  assert_true(t->n < MAX_ASKED && n <= ZN_KNOB_MAX_CHOICES && strlen(signature) < 512 && strlen(knob) < 16);
  question *q = &t->q[t->n++];
  strcpy(q->signature, signature);
  strcpy(q->knob, knob);
  q->usual = q->value = usual;
  q->n = n;
  memcpy(q->choices, choices, n * sizeof *choices);
}

/* As a database answers: only what differs from the model's choice. */
static bool answer(void *user, const char *signature, const char *knob, int64_t *out) {
  const table *t = user;
  for (uint32_t i = 0; i < t->n; i++) {
    const question *q = &t->q[i];
    if (q->value == q->usual || strcmp(q->signature, signature) || strcmp(q->knob, knob)) continue;
    *out = q->value;
    return true;
  }
  return false;
}

typedef struct result {
  zn_ctx c;
  zn_htensor y;
  const char *kernels;
} result;

typedef struct model {
  const char *name, *knobs, *text; /* knobs that must be asked on x86-64-v3 */
  const char *arch;                /* of those, when it is another */
  int dims[4];                     /* of x */
  zn_dtype type;
} model;

static void run(const model *m, const char *arch, const zn_knobs *knobs, result *out) {
  zn_graph *g;
  memset(out, 0, sizeof *out);
  zn_ctx_init(&out->c);
  assert_int_equal(zn_graph_parse(&out->c, &out->c.graph, m->text, strlen(m->text), NULL, &g), ZN_OK);
  zn_compile_opts o = {.model = "m.zg", .target = zn_target_find("cpu"), .arch = arch, .opt_level = 2, .knobs = knobs};
  o.pass.rewrite_limit = -1;
  zn_compiled k;
  assert_int_equal(zn_compile_graph(&out->c, g, &o, &k), ZN_OK);
  zn_text t;
  zn_text_init(&t, &out->c.perm);
  zn_kmod_print(k.mod, &t);
  out->kernels = t.s;
  zn_htensor x = {.dtype = (uint8_t)m->type, .name = "x"};
  uint64_t n = 1;
  for (; x.rank < 4 && m->dims[x.rank]; x.rank++) n *= (uint64_t)(x.dims[x.rank] = m->dims[x.rank]);
  x.data = zn_arena_array(&out->c.perm, n, 4);
  for (uint64_t i = 0; i < n; i++) {
    const uint64_t v = i * 2654435761u % 65521;
    if (m->type == ZN_F32) ((float *)x.data)[i] = (float)v / 8192.f - 4.f;
    else ((uint8_t *)x.data)[i] = (uint8_t)v;
  }
  const zn_target *interp = zn_target_find("interp");
  zn_exec *e;
  assert_int_equal(interp->load(&out->c, k.mod, "", &e), ZN_OK);
  assert_int_equal(interp->run(&out->c, e, &out->c.perm, &x, &out->y), ZN_OK);
  interp->unload(e);
}

static void same(const model *m, const char *arch, const table *t, const result *want, const result *have) {
  const uint64_t n = zn_htensor_count(&want->y);
  bool fine = n == zn_htensor_count(&have->y) && want->y.dtype == have->y.dtype;
  if (want->y.dtype != ZN_F32) fine = fine && !memcmp(want->y.data, have->y.data, n * zn_dtype_bytes(want->y.dtype));
  float largest = 0;
  for (uint64_t i = 0; i < n && fine && want->y.dtype == ZN_F32; i++)
    largest = fmaxf(largest, fabsf(((const float *)want->y.data)[i]));
  for (uint64_t i = 0; i < n && fine && want->y.dtype == ZN_F32; i++) {
    const float a = ((const float *)want->y.data)[i], b = ((const float *)have->y.data)[i];
    fine = fabsf(a - b) <= 1e-6f * largest;
  }
  if (fine) return;
  for (uint32_t i = 0; i < t->n; i++)
    if (t->q[i].value != t->q[i].usual) print_error("%s=%lld ", t->q[i].knob, (long long)t->q[i].value);
  fail_msg("%s, %s: other results", m->name, arch);
}

/* Is `knob` asked, and does one of its choices change something? */
static bool turns(const table *t, const bool *changes, const char *knob, size_t len) {
  for (uint32_t i = 0; i < t->n; i++)
    if (strlen(t->q[i].knob) == len && !strncmp(t->q[i].knob, knob, len) && changes[i]) return true;
  return false;
}

static void every_choice(const model *m, const char *arch) {
  static table t; /* large */
  bool changes[MAX_ASKED] = {false};
  uint32_t draw = 1;
  result want, have;
  t.n = 0;
  run(m, arch, &(zn_knobs){.asked = asked, .user = &t}, &want);
  zn_knobs answers = {.find = answer, .user = &t};
  for (uint32_t i = 0; i < t.n; i++)
    for (uint32_t k = 0; k < t.q[i].n; k++) {
      if (t.q[i].choices[k] == t.q[i].usual) continue;
      t.q[i].value = t.q[i].choices[k];
      run(m, arch, &answers, &have);
      changes[i] |= strcmp(want.kernels, have.kernels) != 0;
      same(m, arch, &t, &want, &have);
      t.q[i].value = t.q[i].usual;
      zn_ctx_fini(&have.c);
    }
  for (int mix = 0; mix < MIXES && t.n > 1; mix++) {
    for (uint32_t i = 0; i < t.n; i++) {
      draw = draw * 1103515245u + 12345u;
      t.q[i].value = t.q[i].choices[(draw >> 16) % t.q[i].n];
    }
    run(m, arch, &answers, &have);
    same(m, arch, &t, &want, &have);
    zn_ctx_fini(&have.c);
  }
  for (const char *p = m->knobs; !strcmp(arch, m->arch ? m->arch : "x86-64-v3") && *p;) {
    const size_t len = strcspn(p, " ");
    if (!turns(&t, changes, p, len)) fail_msg("%s, %s: no choice of %.*s changes the kernels", m->name, arch, (int)len, p);
    p += len + (p[len] == ' ');
  }
  zn_ctx_fini(&want.c);
}

static const model models[] = {
    {.name = "conv", .knobs = "tile pixels grid", .type = ZN_U8, .dims = {1, 12, 9, 11},
     .text = "zg 1\nconst $w i8[20,12,3,3] = rand(1, -128, 128)\nconst $z u8[] = [7]\ngraph @main(%x: u8[1,12,9,11]) -> (%y) {\n"
             "  %y: ?[*] = ConvInteger(%x, $w, $z) {pads=[1,1,1,1]}\n}\n"},
    {.name = "conv of many channels", .knobs = "tile pixels shared grid", .type = ZN_U8, .dims = {1, 8, 6, 6},
     .text = "zg 1\nconst $w i8[130,8,1,1] = rand(1)\nconst $z u8[] = [7]\ngraph @main(%x: u8[1,8,6,6]) -> (%y) {\n"
             "  %y: ?[*] = ConvInteger(%x, $w, $z)\n}\n"},
    {.name = "conv with a stride, in groups", .knobs = "tile", .type = ZN_I8, .dims = {2, 16, 8, 7},
     .text = "zg 1\nconst $w i8[16,8,3,3] = rand(1)\ngraph @main(%x: i8[2,16,8,7]) -> (%y) {\n"
             "  %y: ?[*] = ConvInteger(%x, $w) {pads=[1,0,1,0], strides=[2,2], group=2}\n}\n"},
    {.name = "conv for tiles", .knobs = "form tile pixels", .arch = "sapphirerapids", .type = ZN_U8, .dims = {1, 12, 8, 9},
     .text = "zg 1\nconst $w i8[36,12,3,3] = rand(1, -128, 128)\nconst $z u8[] = [130]\ngraph @main(%x: u8[1,12,8,9]) -> (%y) {\n"
             "  %y: ?[*] = ConvInteger(%x, $w, $z) {pads=[1,1,1,1]}\n}\n"},
    {.name = "depthwise conv", .knobs = "band vectors", .type = ZN_U8, .dims = {1, 3, 60, 75},
     .text = "zg 1\nconst $w i8[3,1,3,3] = rand(1)\nconst $z u8[] = [7]\ngraph @main(%x: u8[1,3,60,75]) -> (%y) {\n"
             "  %y: ?[*] = ConvInteger(%x, $w, $z) {pads=[1,1,1,1], group=3}\n}\n"},
    {.name = "depthwise conv with a stride", .knobs = "vectors", .type = ZN_I8, .dims = {2, 5, 25, 13},
     .text = "zg 1\nconst $w i8[10,1,3,5] = rand(1)\ngraph @main(%x: i8[2,5,25,13]) -> (%y) {\n"
             "  %y: ?[*] = ConvInteger(%x, $w) {pads=[1,2,0,2], strides=[2,1], group=5}\n}\n"},
    {.name = "product", .knobs = "tile grid", .type = ZN_U8, .dims = {2, 13, 50},
     .text = "zg 1\nconst $w i8[50,41] = rand(1, -128, 128)\nconst $z u8[] = [7]\ngraph @main(%x: u8[2,13,50]) -> (%y) {\n"
             "  %y: ?[*] = MatMulInteger(%x, $w, $z)\n}\n"},
    {.name = "product for tiles", .knobs = "form tile", .arch = "sapphirerapids", .type = ZN_I8, .dims = {37, 40},
     .text = "zg 1\nconst $w i8[40,36] = rand(1)\ngraph @main(%x: i8[37,40]) -> (%y) {\n"
             "  %y: ?[*] = MatMulInteger(%x, $w)\n}\n"},
    {.name = "product of floats", .knobs = "tile grid", .type = ZN_F32, .dims = {90, 30},
     .text = "zg 1\nconst $w f32[30,33] = rand(1)\ngraph @main(%x: f32[90,30]) -> (%y) {\n  %y: ?[*] = MatMul(%x, $w)\n}\n"},
    {.name = "products of two floats", .knobs = "tile grid", .type = ZN_F32, .dims = {2, 36, 36},
     .text = "zg 1\ngraph @main(%x: f32[2,36,36]) -> (%y) {\n  %y: ?[*] = MatMul(%x, %x)\n}\n"},
    {.name = "conv of floats", .knobs = "tile", .type = ZN_F32, .dims = {1, 16, 9, 9},
     .text = "zg 1\nconst $w f32[32,16,3,3] = rand(1)\nconst $v f32[32,32,1,1] = rand(2)\n"
             "graph @main(%x: f32[1,16,9,9]) -> (%y) {\n  %0: ?[*] = Conv(%x, $w) {pads=[1,1,1,1]}\n"
             "  %y: ?[*] = Conv(%0, $v)\n}\n"},
    {.name = "softmax", .knobs = "rows", .type = ZN_F32, .dims = {3, 8, 70},
     .text = "zg 1\ngraph @main(%x: f32[3,8,70]) -> (%y) {\n  %y: ?[*] = Softmax(%x)\n}\n"},
    {.name = "logsoftmax", .knobs = "rows", .type = ZN_F32, .dims = {4, 150},
     .text = "zg 1\ngraph @main(%x: f32[4,150]) -> (%y) {\n  %y: ?[*] = LogSoftmax(%x)\n}\n"},
    {.name = "layernorm", .knobs = "rows", .type = ZN_F32, .dims = {2, 4, 37},
     .text = "zg 1\nconst $s f32[37] = rand(1)\nconst $b f32[37] = rand(2)\ngraph @main(%x: f32[2,4,37]) -> (%y) {\n"
             "  %y: ?[*] = LayerNormalization(%x, $s, $b)\n}\n"},
};

static void all_models(const char *arch) {
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) every_choice(&models[i], arch);
}

static void pairs_of_products(void **state) { (void)state, all_models("x86-64-v3"); }
static void short_vectors(void **state) { (void)state, all_models("x86-64-v2"); }
static void long_vectors(void **state) { (void)state, all_models("x86-64-v4"); }
static void matrix_units(void **state) { (void)state, all_models("sapphirerapids"); }
static void pairs_of_rows(void **state) { (void)state, all_models("armv8.6-a"); }
static void microcontrollers(void **state) { (void)state, all_models("cortex-m55"), all_models("cortex-m4"); }

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pairs_of_products), cmocka_unit_test(short_vectors),    cmocka_unit_test(long_vectors),
      cmocka_unit_test(matrix_units),      cmocka_unit_test(pairs_of_rows),    cmocka_unit_test(microcontrollers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
