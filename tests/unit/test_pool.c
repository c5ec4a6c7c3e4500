/* The thread pool: every iteration of every job once, whatever the sizes; a slow thread's part goes to the others; calls
 * that find the pool busy run by themselves. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <time.h>

#include "runtime/zenith_pool.h"

enum { MOST = 5000, JOBS = 3000 };

typedef struct job {
  uint32_t runs[MOST]; /* of each iteration */
  uint32_t done, slow; /* iterations finished; those to wait for, by iteration 0 */
  zn_pool *pool;
} job;

static void count(void *const *bufs, const intptr_t *ints, intptr_t begin, intptr_t end) {
  job *j = bufs[0];
  (void)ints;
  for (intptr_t i = begin; i < end; i++) __atomic_add_fetch(&j->runs[i], 1, __ATOMIC_RELAXED);
  __atomic_add_fetch(&j->done, (uint32_t)(end - begin), __ATOMIC_RELAXED);
}

static void check_once(job *j, zn_pool *pool, intptr_t n) {
  void *bufs[] = {j};
  memset(j->runs, 0, sizeof j->runs);
  zn_pool_parallel_for(pool, count, bufs, NULL, n);
  for (intptr_t i = 0; i < MOST; i++) assert_int_equal(j->runs[i], i < n);
}

static void each_iteration_once(void **state) {
  static job j;
  (void)state;
  for (unsigned threads = 1; threads <= 5; threads++) {
    zn_pool *pool = zn_pool_create(threads);
    assert_int_equal(zn_pool_threads(pool), threads);
    for (intptr_t n = 0; n < 20; n++) check_once(&j, pool, n);
    uint32_t seed = threads;
    for (int i = 0; i < 50; i++) {
      seed = seed * 1664525u + 1013904223u;
      check_once(&j, pool, (seed >> 8) % (MOST + 1));
    }
    zn_pool_destroy(pool);
  }
}

/* Small jobs behind each other, so that threads come late for one and meet the next. */
static void jobs_in_a_row(void **state) {
  static job j;
  void *bufs[] = {&j};
  (void)state;
  for (unsigned threads = 2; threads <= 4; threads++) {
    zn_pool *pool = zn_pool_create(threads);
    memset(&j, 0, sizeof j);
    uint32_t want = 0;
    for (intptr_t i = 0; i < JOBS; i++) {
      zn_pool_parallel_for(pool, count, bufs, NULL, 1 + i % 7);
      want += (uint32_t)(1 + i % 7);
      assert_int_equal(j.done, want);
    }
    zn_pool_destroy(pool);
  }
}

static void wait_in_first(void *const *bufs, const intptr_t *ints, intptr_t begin, intptr_t end) {
  job *j = bufs[0];
  struct timespec moment = {0, 100000};
  for (int i = 0; begin == 0 && i < 20000 && __atomic_load_n(&j->done, __ATOMIC_RELAXED) < j->slow; i++)
    nanosleep(&moment, NULL);
  if (begin == 0) assert_true(__atomic_load_n(&j->done, __ATOMIC_RELAXED) >= j->slow);
  count(bufs, ints, begin, end);
}

/* Iteration 0 ends when three quarters of all are done, more than the other thread's half. */
static void slow_thread_loses_its_part(void **state) {
  static job j;
  void *bufs[] = {&j};
  (void)state;
  zn_pool *pool = zn_pool_create(2);
  j.slow = 48;
  zn_pool_parallel_for(pool, wait_in_first, bufs, NULL, 64);
  assert_int_equal(j.done, 64);
  zn_pool_destroy(pool);
}

static void again(void *const *bufs, const intptr_t *ints, intptr_t begin, intptr_t end) {
  job *j = bufs[0];
  for (intptr_t i = begin; i < end; i++) zn_pool_parallel_for(j->pool, count, bufs, ints, 10);
}

static void busy_pool(void **state) {
  static job j;
  void *bufs[] = {&j};
  (void)state;
  j.pool = zn_pool_create(3);
  zn_pool_parallel_for(j.pool, again, bufs, NULL, 20);
  for (int i = 0; i < 10; i++) assert_int_equal(j.runs[i], 20);
  zn_pool_destroy(j.pool);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(each_iteration_once), cmocka_unit_test(jobs_in_a_row),
                                     cmocka_unit_test(slow_thread_loses_its_part), cmocka_unit_test(busy_pool)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
