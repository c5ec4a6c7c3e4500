/* The expression algebra: canonical equality, the identities of expr.h, index round trips with
 * constant and symbolic extents, random expressions against brute-force evaluation, sticky
 * overflow, text round trips, speed at scale. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "zenithc/base/expr.h"

typedef struct world {
  zn_ctx ctx;
  zn_exprs *p;
} world;

static int setup(void **state) {
  static world w; /* one test at a time */
  zn_ctx_init(&w.ctx);
  w.p = zn_exprs_new(&w.ctx.graph);
  *state = &w;
  return 0;
}

static int teardown(void **state) {
  zn_ctx_fini(&((world *)*state)->ctx);
  return 0;
}

static zn_expr parse(world *w, const char *s) {
  zn_lexer l;
  zn_expr e = 0;
  zn_lex_init(&l, &w->ctx, &w->ctx.tmp, s, strlen(s));
  assert_int_equal(zn_ex_parse(w->p, &l, &e), ZN_OK);
  assert_int_equal(l.tok, ZN_TOK_EOF);
  return e;
}

static const char *text(world *w, zn_expr e) {
  zn_text t;
  zn_text_init(&t, &w->ctx.tmp);
  zn_ex_print(w->p, e, &t);
  return t.s;
}

static void expect(world *w, const char *a, const char *b) {
  zn_expr x = parse(w, a), y = parse(w, b);
  if (x != y) print_message("%s -> %s but %s -> %s\n", a, text(w, x), b, text(w, y));
  assert_int_equal(x, y);
}

static void test_identities(void **state) {
  world *w = *state;
  zn_ex_var(w->p, "unused", zn_ex_const(w->p, 3));
  zn_ex_sym(w->p, "s", 0, 7);
  expect(w, "(a + b)*c", "a*c + b*c");
  expect(w, "(a + b)*(a - b)", "a*a - b*b");
  expect(w, "(8*i + s)//8", "i");
  expect(w, "(8*i + s) % 8", "s");
  expect(w, "a*(x//a) + x % a", "x");
  expect(w, "4*(x//4) + x % 4", "x");
  expect(w, "x - 4*(x//4)", "x % 4");
  expect(w, "3*x - 12*(x//4)", "3*(x % 4)");
  expect(w, "x - a*(x//a)", "x % a");
  expect(w, "(n - 3)//2 + 1", "(n + 1)//2 - 1");
  expect(w, "(2*n + 6)//4", "(n + 3)//2");
  expect(w, "(2*n + 7)//4", "(n + 3)//2");
  expect(w, "(x//3)//5", "x//15");
  expect(w, "(x//3 + 2)//5", "(x + 6)//15");
  expect(w, "(x % 12)//4", "(x//4) % 3");
  expect(w, "(x % 12) % 4", "x % 4");
  expect(w, "(5*y + 3*(x % 12)) % 4", "(5*y + 3*x) % 4");
  expect(w, "(x*a + y)//a", "x + y//a");
  expect(w, "(x*a*b)//(a*b)", "x");
  expect(w, "(4*n + 4)//(2*n + 2)", "2");
  expect(w, "(n*n + 2*n + 1)//(n + 1)", "n + 1");
  expect(w, "(n*m + m)//(n + 1)", "m");
  expect(w, "x//-3", "-x//3");
  expect(w, "min(a, min(b, a))", "min(a, b)");
  expect(w, "min(a, a + 1)", "a");
  expect(w, "max(min(a, 3), 3)", "3");
  expect(w, "min(min(a, b), c)", "min(b, min(c, a))");
  expect(w, "bcast(1, n)", "n");
  expect(w, "bcast(n, 1)", "n");
  expect(w, "bcast(n, n)", "n");
  expect(w, "bcast(bcast(n, m), m)", "bcast(n, m)");
  expect(w, "-7//2", "-4");
  expect(w, "-7 % 4", "1");
  assert_int_equal(zn_ex_div(w->p, parse(w, "n"), zn_ex_const(w->p, 0)), ZN_EX_NONE);
  assert_int_equal(zn_ex_ceildiv(w->p, parse(w, "n"), zn_ex_const(w->p, 8)),
                   parse(w, "(n + 7)//8"));
}

/* ((i*H + j)*W + k) is taken apart again. */
static void round_trip(zn_exprs *p, zn_expr H, zn_expr W, zn_expr B) {
  zn_expr i = zn_ex_var(p, "i", B), j = zn_ex_var(p, "j", H), k = zn_ex_var(p, "k", W);
  zn_expr row = zn_ex_add(p, zn_ex_mul(p, i, H), j), flat = zn_ex_add(p, zn_ex_mul(p, row, W), k);
  zn_expr HW = zn_ex_mul(p, H, W);
  assert_int_equal(zn_ex_mod(p, flat, W), k);
  assert_int_equal(zn_ex_div(p, flat, W), row);
  assert_int_equal(zn_ex_mod(p, zn_ex_div(p, flat, W), H), j);
  assert_int_equal(zn_ex_div(p, zn_ex_div(p, flat, W), H), i);
  assert_int_equal(zn_ex_div(p, flat, HW), i);
  assert_int_equal(zn_ex_div(p, zn_ex_mod(p, flat, HW), W), j);
  assert_true(zn_ex_lt(p, flat, zn_ex_mul(p, B, HW)));
  assert_false(zn_ex_lt(p, flat, HW));
}

static void test_round_trips(void **state) {
  zn_exprs *p = ((world *)*state)->p;
  round_trip(p, zn_ex_const(p, 6), zn_ex_const(p, 10), zn_ex_const(p, 4));
  round_trip(p, zn_ex_const(p, 7), zn_ex_const(p, 13), zn_ex_sym(p, "B", 1, INT64_MAX));
  zn_expr N = zn_ex_sym(p, "N", 1, INT64_MAX), M = zn_ex_sym(p, "M", 1, INT64_MAX),
          B = zn_ex_sym(p, "B", 1, INT64_MAX);
  round_trip(p, zn_ex_const(p, 7), N, B);
  round_trip(p, N, zn_ex_const(p, 12), B);
  round_trip(p, M, N, B);
  round_trip(p, zn_ex_muli(p, N, 2), zn_ex_muli(p, M, 3), B);
  /* tiles: i < ceil(N/8), j < 8; the last tile is cut by min */
  zn_expr tiles = zn_ex_ceildiv(p, N, zn_ex_const(p, 8)), t = zn_ex_var(p, "t", tiles);
  zn_expr left = zn_ex_sub(p, N, zn_ex_muli(p, t, 8));
  zn_expr u = zn_ex_var(p, "u", zn_ex_min(p, zn_ex_const(p, 8), left));
  zn_expr x = zn_ex_add(p, zn_ex_muli(p, t, 8), u);
  assert_true(zn_ex_lt(p, x, N));
  assert_int_equal(zn_ex_div(p, x, zn_ex_const(p, 8)), t);
  assert_int_equal(zn_ex_mod(p, x, N), x);
  assert_true(zn_ex_le(p, N, zn_ex_muli(p, tiles, 8)));
  /* a convolution's window stays inside the padded row */
  zn_expr out = zn_ex_addi(p, zn_ex_divi(p, zn_ex_addi(p, N, -1), 2), 1);
  zn_expr o = zn_ex_var(p, "o", out), k = zn_ex_var(p, "k", zn_ex_const(p, 3));
  assert_true(zn_ex_lt(p, zn_ex_add(p, zn_ex_muli(p, o, 2), k), zn_ex_addi(p, N, 2)));
}

static void test_questions(void **state) {
  world *w = *state;
  zn_exprs *p = w->p;
  zn_expr n = zn_ex_sym(p, "n", 1, 100), v = zn_ex_var(p, "v", n), c, r;
  int64_t lo, hi;
  zn_ex_range(p, zn_ex_addi(p, zn_ex_muli(p, n, -2), 5), &lo, &hi);
  assert_true(lo == -195 && hi == 3);
  zn_ex_range(p, v, &lo, &hi);
  assert_true(lo == 0 && hi == 99);
  zn_expr twice = zn_ex_muli(p, n, 2);
  zn_ex_set_range(p, n, 2, 50);
  zn_ex_range(p, twice, &lo, &hi);
  assert_true(lo == 4 && hi == 100);
  assert_true(zn_ex_linear(p, zn_ex_add(p, zn_ex_mul(p, v, n), twice), v, &c, &r));
  assert_true(c == n && r == twice);
  assert_false(zn_ex_linear(p, zn_ex_mul(p, v, v), v, &c, &r));
  assert_false(zn_ex_linear(p, zn_ex_add(p, v, zn_ex_divi(p, v, 3)), v, &c, &r));
  assert_true(zn_ex_depends(p, zn_ex_divi(p, v, 3), v));
  assert_false(zn_ex_depends(p, zn_ex_divi(p, v, 3), n));
  zn_expr from[2] = {n, v}, to[2] = {v, n};
  assert_int_equal(zn_ex_subst(p, zn_ex_sub(p, n, zn_ex_muli(p, v, 3)), from, to, 2),
                   zn_ex_sub(p, v, zn_ex_muli(p, n, 3)));
  zn_ex_set_tag(p, v, 42);
  assert_int_equal(zn_ex_tag(p, v), 42);
  assert_int_equal(zn_ex_sym(p, "n", 7, 7), n);
  assert_int_not_equal(zn_ex_var(p, "v", n), v);
}

static void test_overflow(void **state) {
  world *w = *state;
  zn_exprs *p = w->p;
  zn_expr big = zn_ex_const(p, INT64_MAX), n = zn_ex_sym(p, "n", 0, INT64_MAX);
  zn_expr o = zn_ex_addi(p, big, 1);
  assert_int_equal(o, ZN_EX_OVERFLOW);
  assert_int_equal(zn_ex_mul(p, zn_ex_mul(p, big, n), zn_ex_const(p, 2)), ZN_EX_OVERFLOW);
  assert_int_equal(zn_ex_sub(p, o, o), ZN_EX_OVERFLOW);
  assert_int_equal(zn_ex_div(p, n, o), ZN_EX_OVERFLOW);
  assert_int_equal(zn_ex_min(p, n, o), ZN_EX_OVERFLOW);
  assert_int_equal(zn_ex_add(p, ZN_EX_NONE, n), ZN_EX_NONE);
  assert_int_equal(zn_ex_mul(p, ZN_EX_NONE, o), ZN_EX_OVERFLOW);
  assert_int_equal(zn_ex_divi(p, zn_ex_const(p, INT64_MIN), -1), ZN_EX_OVERFLOW);
  assert_int_equal(zn_ex_muli(p, zn_ex_const(p, INT64_MIN), -1), ZN_EX_OVERFLOW);
  zn_expr x = n; /* the number of terms is bounded */
  for (int i = 0; i < 40 && x != ZN_EX_OVERFLOW; i++) {
    char name[16];
    snprintf(name, sizeof name, "s%d", i);
    x = zn_ex_mul(p, x, zn_ex_addi(p, zn_ex_sym(p, name, 0, 9), 1));
  }
  assert_int_equal(x, ZN_EX_OVERFLOW);
}

/* ---- random expressions: the simplified node against direct evaluation ---- */

enum { SYMS = 6, POOL = 24 };
typedef struct sample {
  zn_expr sym[SYMS];
  int64_t val[SYMS];
} sample;

static bool lookup(void *user, zn_expr s, int64_t *out) {
  const sample *x = user;
  for (int i = 0; i < SYMS; i++) {
    if (x->sym[i] == s) {
      *out = x->val[i];
      return true;
    }
  }
  return false;
}

static uint64_t rng_state;
static int64_t rnd(int64_t lo, int64_t hi) {
  rng_state = rng_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return lo + (int64_t)((rng_state >> 33) % (uint64_t)(hi - lo + 1));
}

static int64_t floordiv(int64_t a, int64_t b) {
  int64_t q = a / b;
  return q - (a % b != 0 && (a < 0) != (b < 0));
}

typedef struct item {
  zn_expr e;
  int64_t v[8]; /* per sample; valid[i] false: division by zero inside */
  bool valid[8];
} item;

/* Bounds per symbol: two plain ones with negative values, two dimensions, two loop variables below
 * the dimensions. */
static void draw(sample *x) {
  x->val[0] = rnd(-20, 20);
  x->val[1] = rnd(-3, 9);
  x->val[2] = rnd(1, 9);
  x->val[3] = rnd(1, 5);
  x->val[4] = rnd(0, x->val[2] - 1);
  x->val[5] = rnd(0, x->val[3] - 1);
}

static item combine(zn_exprs *p, const item *a, const item *b, int op) {
  item r = {0};
  switch (op) {
    case 0: r.e = zn_ex_add(p, a->e, b->e); break;
    case 1: r.e = zn_ex_sub(p, a->e, b->e); break;
    case 2: r.e = zn_ex_mul(p, a->e, b->e); break;
    case 3: r.e = zn_ex_div(p, a->e, b->e); break;
    case 4: r.e = zn_ex_mod(p, a->e, b->e); break;
    case 5: r.e = zn_ex_min(p, a->e, b->e); break;
    case 6: r.e = zn_ex_max(p, a->e, b->e); break;
    default: r.e = zn_ex_bcast(p, a->e, b->e); break;
  }
  for (int i = 0; i < 8; i++) {
    int64_t x = a->v[i], y = b->v[i], v = 0;
    bool ok = a->valid[i] && b->valid[i];
    switch (op) {
      case 0: v = x + y; break;
      case 1: v = x - y; break;
      case 2: v = x * y; break;
      case 3:
      case 4:
        if (y == 0) ok = false;
        else v = op == 3 ? floordiv(x, y) : x - y * floordiv(x, y);
        break;
      case 5: v = x < y ? x : y; break;
      case 6: v = x > y ? x : y; break;
      default: v = x == 1 ? y : x; break;
    }
    if (v > 1000000000 || v < -1000000000) ok = false;
    r.v[i] = v;
    r.valid[i] = ok;
  }
  return r;
}

static void check_item(world *w, const item *it, const sample *s) {
  int64_t lo, hi, v;
  if (it->e <= ZN_EX_OVERFLOW) return;
  zn_ex_range(w->p, it->e, &lo, &hi);
  for (int i = 0; i < 8; i++) {
    if (!it->valid[i]) continue;
    sample x = s[i];
    bool ok = zn_ex_eval(w->p, it->e, lookup, &x, &v);
    if (!ok || v != it->v[i] || v < lo || v > hi)
      print_message(
          "%s: got %lld, want %lld, range %lld..%lld at a=%lld b=%lld N=%lld M=%lld i=%lld "
          "j=%lld\n",
          text(w, it->e), (long long)v, (long long)it->v[i], (long long)lo, (long long)hi,
          (long long)x.val[0], (long long)x.val[1], (long long)x.val[2], (long long)x.val[3],
          (long long)x.val[4], (long long)x.val[5]);
    assert_true(ok && v == it->v[i] && v >= lo && v <= hi);
  }
}

static void check_order(world *w, const item *a, const item *b) {
  if (a->e <= ZN_EX_OVERFLOW || b->e <= ZN_EX_OVERFLOW) return;
  bool lt = zn_ex_lt(w->p, a->e, b->e), le = zn_ex_le(w->p, a->e, b->e);
  for (int i = 0; i < 8; i++) {
    if (!a->valid[i] || !b->valid[i]) continue;
    assert_true(!lt || a->v[i] < b->v[i]);
    assert_true(!le || a->v[i] <= b->v[i]);
  }
  if (a->e == b->e)
    for (int i = 0; i < 8; i++) assert_true(!a->valid[i] || !b->valid[i] || a->v[i] == b->v[i]);
}

static void one_round(world *w, unsigned seed) {
  zn_arena_reset(&w->ctx.graph);
  zn_arena_reset(&w->ctx.tmp);
  zn_exprs *p = w->p = zn_exprs_new(&w->ctx.graph);
  rng_state = seed;
  sample s[8];
  zn_expr N = zn_ex_sym(p, "N", 1, seed % 3 ? INT64_MAX : 9), M = zn_ex_sym(p, "M", 1, 5);
  zn_expr sym[SYMS] = {zn_ex_sym(p, "a", INT64_MIN, INT64_MAX), zn_ex_sym(p, "b", -3, 9), N, M,
                       zn_ex_var(p, "i", N), zn_ex_var(p, "j", M)};
  for (int i = 0; i < 8; i++) {
    memcpy(s[i].sym, sym, sizeof sym);
    draw(&s[i]);
  }
  item pool[POOL];
  int n = 0;
  for (; n < SYMS; n++) {
    pool[n].e = sym[n];
    for (int i = 0; i < 8; i++) {
      pool[n].v[i] = s[i].val[n];
      pool[n].valid[i] = true;
    }
  }
  while (n < POOL) {
    item c = {0};
    int64_t k = rnd(-6, 12);
    c.e = zn_ex_const(p, k);
    for (int i = 0; i < 8; i++) {
      c.v[i] = k;
      c.valid[i] = true;
    }
    const item *a = &pool[rnd(0, n - 1)], *b = rnd(0, 2) ? &pool[rnd(0, n - 1)] : &c;
    pool[n] = combine(p, a, b, (int)rnd(0, 8) % 8);
    check_item(w, &pool[n], s);
    check_order(w, a, &pool[n]);
    check_order(w, &pool[n], a);
    if (pool[n].e > ZN_EX_OVERFLOW) n++;
    else if (!rnd(0, 20)) break;
  }
}

static void test_random(void **state) {
  world *w = *state;
  for (unsigned seed = 1; seed <= 4000; seed++) one_round(w, seed);
}

/* Reads back as the same expression, and prints the same from a new pool. */
static void check_text(world *w, zn_expr e) {
  const char *t = text(w, e);
  zn_expr back = parse(w, t);
  if (back != e) print_message("%s reads as %s\n", t, text(w, back));
  assert_int_equal(back, e);
  zn_exprs *keep = w->p;
  w->p = zn_exprs_new(&w->ctx.graph);
  assert_string_equal(t, text(w, parse(w, t)));
  w->p = keep;
}

static void test_text(void **state) {
  world *w = *state;
  const char *same[] = {"8*batch + 1",
                        "(n + 3)//2",
                        "n % 4",
                        "min(a, b)",
                        "max(a, b)",
                        "bcast(b, a)",
                        "?",
                        "-n + 3",
                        "-2*n*m",
                        "a*b + a - 7",
                        "2*(n//3)",
                        "(2*n)//3 + (n//3)*m",
                        "(a//b) % c",
                        "!\"unk 12\" + 1",
                        "overflow()",
                        "-9223372036854775808",
                        "n + -9223372036854775808",
                        "!\"7\"",
                        "a//(b + 1)",
                        "(min(a, b) + 1)//2",
                        "batch-size + x.y"};
  for (size_t i = 0; i < sizeof same / sizeof *same; i++) check_text(w, parse(w, same[i]));
  assert_string_equal(text(w, parse(w, "1 + 8*batch")), "8*batch + 1");
  assert_string_equal(text(w, parse(w, "(3 + n)//2")), "(n + 1)//2 + 1");
  for (unsigned seed = 1; seed < 300; seed++) { /* random ones, in a fresh pool too */
    rng_state = seed;
    zn_expr e = parse(w, "z");
    const char *names[] = {"z", "y", "x", "m n", "k"};
    for (int i = 0; i < 8; i++) {
      zn_expr b = rnd(0, 1) ? zn_ex_const(w->p, rnd(-9, 9))
                            : zn_ex_sym(w->p, names[rnd(0, 4)], 0, INT64_MAX);
      item x = {.e = e}, y = {.e = b};
      zn_expr r = rnd(0, 1) ? combine(w->p, &x, &y, (int)rnd(0, 7)).e
                            : combine(w->p, &y, &x, (int)rnd(0, 7)).e;
      if (r > ZN_EX_OVERFLOW) e = r;
    }
    check_text(w, e);
  }
}

/* 1e5 index maps: flatten, take apart, substitute. */
static void test_many(void **state) {
  zn_exprs *p = ((world *)*state)->p;
  zn_expr N = zn_ex_sym(p, "N", 1, INT64_MAX);
  for (int c = 1; c <= 5000; c++) {
    zn_expr W = zn_ex_addi(p, zn_ex_muli(p, N, 2), c), i = zn_ex_var(p, "i", N),
            j = zn_ex_var(p, "j", W);
    zn_expr flat = zn_ex_add(p, zn_ex_mul(p, i, W), j);
    assert_int_equal(zn_ex_mod(p, flat, W), j);
    assert_int_equal(zn_ex_div(p, flat, W), i);
    for (int k = 1; k < 8; k++)
      (void)zn_ex_mod(p, zn_ex_divi(p, zn_ex_addi(p, flat, k), k + 1), zn_ex_const(p, c + k));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_identities, setup, teardown),
      cmocka_unit_test_setup_teardown(test_round_trips, setup, teardown),
      cmocka_unit_test_setup_teardown(test_questions, setup, teardown),
      cmocka_unit_test_setup_teardown(test_overflow, setup, teardown),
      cmocka_unit_test_setup_teardown(test_random, setup, teardown),
      cmocka_unit_test_setup_teardown(test_text, setup, teardown),
      cmocka_unit_test_setup_teardown(test_many, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
