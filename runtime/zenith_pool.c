/* A static-partition thread pool. The caller publishes a job by raising the generation; workers
 * spin on it for a short while, then sleep on a condition variable. A slice is claimed once per
 * generation, by its own worker or, when that one is late (not scheduled, still waking), by the
 * caller after its own slice: a busy machine costs little. Job fields are read only under a claim,
 * and the caller waits for all claims, so they are stable. Atomics are the GCC/Clang builtins, so
 * that the file is C99. */
#define _POSIX_C_SOURCE 200809L
#include "zenith_pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { SPIN_ROUNDS = 4000 };

typedef struct worker {
  struct zn_pool *pool;
  pthread_t id;
  unsigned index;
  uint32_t claimed; /* atomic: the last generation whose slice of this worker was claimed */
} worker;

struct zn_pool {
  unsigned threads, spin;
  worker *workers;
  pthread_mutex_t busy; /* held for the length of one parallel_for */
  pthread_mutex_t lock; /* guards the two conditions */
  pthread_cond_t wake, done;
  uint32_t generation; /* atomic: raised for each job */
  uint32_t pending;    /* atomic: slices beside the caller's that are not finished */
  uint32_t sleepers;   /* atomic: workers inside wake */
  uint32_t waiting;    /* atomic: the caller is inside done */
  int stop;
  zn_kernel kernel;
  void *const *bufs;
  const intptr_t *ints;
  intptr_t n;
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __asm__ volatile("pause");
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static intptr_t slice_start(intptr_t n, unsigned t, unsigned threads) {
  intptr_t q = n / (intptr_t)threads, r = n % (intptr_t)threads;
  return q * (intptr_t)t + r * (intptr_t)t / (intptr_t)threads;
}

static void run_slice(zn_pool *p, unsigned t) {
  intptr_t lo = slice_start(p->n, t, p->threads), hi = slice_start(p->n, t + 1, p->threads);
  if (lo < hi) p->kernel(p->bufs, p->ints, lo, hi);
}

/* Returns the generation that follows `seen`. */
static uint32_t await_job(zn_pool *p, uint32_t seen) {
  uint32_t g = seen;
  for (unsigned i = 0; i < p->spin; i++) {
    g = __atomic_load_n(&p->generation, __ATOMIC_ACQUIRE);
    if (g != seen) return g;
    relax();
  }
  pthread_mutex_lock(&p->lock);
  __atomic_add_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
  while ((g = __atomic_load_n(&p->generation, __ATOMIC_SEQ_CST)) == seen)
    pthread_cond_wait(&p->wake, &p->lock);
  __atomic_sub_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
  pthread_mutex_unlock(&p->lock);
  return g;
}

static int claim(worker *w, uint32_t generation) {
  uint32_t expected = generation - 1;
  return __atomic_compare_exchange_n(&w->claimed, &expected, generation, 0, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST);
}

static void finish_slice(zn_pool *p) {
  if (__atomic_sub_fetch(&p->pending, 1, __ATOMIC_SEQ_CST) != 0) return;
  if (!__atomic_load_n(&p->waiting, __ATOMIC_SEQ_CST)) return;
  pthread_mutex_lock(&p->lock);
  pthread_cond_signal(&p->done);
  pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *arg) {
  worker *w = (worker *)arg;
  zn_pool *p = w->pool;
  uint32_t seen = 0;
  for (;;) {
    seen = await_job(p, seen);
    if (__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE)) return NULL;
    if (!claim(w, seen)) continue;
    run_slice(p, w->index);
    finish_slice(p);
  }
}

static void publish(zn_pool *p) {
  __atomic_add_fetch(&p->generation, 1, __ATOMIC_SEQ_CST);
  if (!__atomic_load_n(&p->sleepers, __ATOMIC_SEQ_CST)) return;
  pthread_mutex_lock(&p->lock);
  pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->lock);
}

static void await_done(zn_pool *p) {
  for (unsigned i = 0; i < p->spin; i++) {
    if (__atomic_load_n(&p->pending, __ATOMIC_ACQUIRE) == 0) return;
    relax();
  }
  pthread_mutex_lock(&p->lock);
  __atomic_store_n(&p->waiting, 1u, __ATOMIC_SEQ_CST);
  while (__atomic_load_n(&p->pending, __ATOMIC_SEQ_CST) != 0) pthread_cond_wait(&p->done, &p->lock);
  __atomic_store_n(&p->waiting, 0u, __ATOMIC_SEQ_CST);
  pthread_mutex_unlock(&p->lock);
}

static void take_late_slices(zn_pool *p) {
  uint32_t generation = __atomic_load_n(&p->generation, __ATOMIC_RELAXED);
  for (unsigned i = 0; i + 1 < p->threads; i++) {
    if (!claim(&p->workers[i], generation)) continue;
    run_slice(p, i + 1);
    __atomic_sub_fetch(&p->pending, 1, __ATOMIC_SEQ_CST);
  }
}

void zn_pool_parallel_for(void *user, zn_kernel kernel, void *const *bufs, const intptr_t *ints,
                          intptr_t n) {
  zn_pool *p = (zn_pool *)user;
  if (n <= 0) return;
  if (n == 1 || p->threads == 1 || pthread_mutex_trylock(&p->busy) != 0) {
    kernel(bufs, ints, 0, n);
    return;
  }
  p->kernel = kernel;
  p->bufs = bufs;
  p->ints = ints;
  p->n = n;
  __atomic_store_n(&p->pending, p->threads - 1, __ATOMIC_SEQ_CST);
  publish(p);
  run_slice(p, 0);
  take_late_slices(p);
  await_done(p);
  pthread_mutex_unlock(&p->busy);
}

static void stop_workers(zn_pool *p, unsigned started) {
  __atomic_store_n(&p->stop, 1, __ATOMIC_RELEASE);
  publish(p);
  for (unsigned i = 0; i < started; i++) pthread_join(p->workers[i].id, NULL);
}

static void free_pool(zn_pool *p) {
  pthread_cond_destroy(&p->wake);
  pthread_cond_destroy(&p->done);
  pthread_mutex_destroy(&p->lock);
  pthread_mutex_destroy(&p->busy);
  free(p->workers);
  free(p);
}

zn_pool *zn_pool_create(unsigned threads) {
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  if (cpus < 1) cpus = 1;
  if (threads == 0) threads = (unsigned)cpus;
  if (threads > 4096) return NULL;
  zn_pool *p = (zn_pool *)calloc(1, sizeof *p);
  if (!p) return NULL;
  p->workers = (worker *)calloc(threads, sizeof *p->workers);
  if (!p->workers) {
    free(p);
    return NULL;
  }
  p->threads = threads;
  p->spin =
      threads > (unsigned)cpus ? 1 : SPIN_ROUNDS; /* spinning starves an oversubscribed core */
  pthread_mutex_init(&p->busy, NULL);
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->wake, NULL);
  pthread_cond_init(&p->done, NULL);
  for (unsigned i = 0; i + 1 < threads; i++) {
    worker *w = &p->workers[i];
    w->pool = p;
    w->index = i + 1;
    if (pthread_create(&w->id, NULL, worker_main, w) != 0) {
      stop_workers(p, i);
      free_pool(p);
      return NULL;
    }
  }
  return p;
}

void zn_pool_destroy(zn_pool *p) {
  if (!p) return;
  stop_workers(p, p->threads - 1);
  free_pool(p);
}

unsigned zn_pool_threads(const zn_pool *p) { return p->threads; }
