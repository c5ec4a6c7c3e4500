/* Minimum cuts: against all partitions of small random networks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "zenithc/passes/mincut.h"

enum { VERTICES = 9, EDGES = 24 };

typedef struct network {
  uint32_t from[EDGES], to[EDGES];
  int64_t cost[EDGES];
} network;

static uint32_t rnd(uint32_t *s, uint32_t below) {
  *s = *s * 1664525u + 1013904223u;
  return (*s >> 16) % below;
}

static int64_t cost_of(const network *n, uint32_t set) {
  int64_t sum = 0;
  for (int i = 0; i < EDGES; i++)
    if ((set >> n->from[i] & 1) && !(set >> n->to[i] & 1)) sum += n->cost[i];
  return sum;
}

static void test_random(void **state) {
  (void)state;
  uint32_t seed = 1;
  for (int round = 0; round < 300; round++) {
    zn_arena a;
    zn_arena_init(&a, "test");
    zn_mincut *m = zn_mincut_new(&a);
    network n;
    while (zn_mincut_vertex(m) < VERTICES - 1) {}
    for (int i = 0; i < EDGES; i++) {
      n.from[i] = rnd(&seed, VERTICES);
      n.to[i] = rnd(&seed, VERTICES);
      n.cost[i] = rnd(&seed, 10);
      zn_mincut_edge(m, n.from[i], n.to[i], n.cost[i]);
    }
    const bool *side = zn_mincut_solve(m);
    uint32_t mine = 0;
    for (uint32_t v = 0; v < VERTICES; v++) mine |= (uint32_t)side[v] << v;
    assert_true(side[ZN_CUT_SOURCE] && !side[ZN_CUT_SINK]);
    int64_t best = INT64_MAX;
    for (uint32_t set = 0; set < 1u << VERTICES; set++) {
      if (!(set & 1) || (set & 2)) continue;
      int64_t c = cost_of(&n, set);
      if (c < best) best = c;
    }
    assert_int_equal(cost_of(&n, mine), best);
    zn_arena_reset(&a);
  }
}

static void test_ties_go_to_the_sink(void **state) {
  (void)state;
  zn_arena a;
  zn_arena_init(&a, "test");
  zn_mincut *m = zn_mincut_new(&a);
  uint32_t v = zn_mincut_vertex(m), lone = zn_mincut_vertex(m);
  zn_mincut_edge(m, ZN_CUT_SOURCE, v, 5);
  zn_mincut_edge(m, v, ZN_CUT_SINK, 5);
  const bool *side = zn_mincut_solve(m);
  assert_false(side[v]);
  assert_false(side[lone]);
  zn_arena_reset(&a);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_random), cmocka_unit_test(test_ties_go_to_the_sink)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
