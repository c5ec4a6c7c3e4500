/* A thread pool with a fixed first partition and stealing. The iterations of a job are cut into at
 * most GRAINS grains a thread; each thread has a run of them, as long as the others', and takes
 * half of what is left of it again and again, from the front. Whoever has nothing left takes half of
 * what another one has left, from the back: a core that is slow, late or taken away for a while
 * loses its part grain by grain, and otherwise data stays in the cache of the core that touched it.
 *
 * The caller publishes a job by one word, the ticket: a number and the count of grains. What was
 * taken of a thread's run is one word too, with the number of its job, so nothing is reset between
 * jobs: a word of another job means that nothing was taken. Workers spin on the ticket for a short
 * while, then sleep on a condition variable. The job's other fields are read only by those who
 * took grains, and the caller waits until all grains are done, so they are stable. Atomics are the
 * GCC/Clang builtins, so that the file is C99. */
#define _POSIX_C_SOURCE 200809L
#include "zenith_pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum {
  SPIN_ROUNDS = 4000,
  PATIENCE = 64,
  GRAINS = 32,
  GRAIN_BITS = 20, /* hold the grains of 4096 threads */
  TAKEN_BITS = 6,  /* hold GRAINS */
  LINES = 128      /* bytes: two cache lines, which are fetched as a pair */
};

typedef struct worker {
  struct zn_pool *pool;
  pthread_t id;
  unsigned index;
  uint64_t taken; /* atomic: job number, grains taken from the front, from the back */
  char apart[LINES];
} worker;

struct zn_pool {
  unsigned threads, spin;
  worker *workers; /* [0]: the caller */
  pthread_mutex_t busy; /* held for the length of one parallel_for */
  pthread_mutex_t lock; /* guards the two conditions */
  pthread_cond_t wake, done;
  uint32_t sleepers; /* atomic: workers inside wake */
  uint32_t waiting;  /* atomic: the caller is inside done */
  char before[LINES];
  uint64_t ticket; /* atomic: job number, number of grains */
  int stop;
  zn_kernel kernel;
  void *const *bufs;
  const intptr_t *ints;
  intptr_t n;
  char behind[LINES];
  uint32_t pending; /* atomic: grains that are not done */
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __asm__ volatile("pause");
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* First of n items that part t of `parts` has. */
static intptr_t part_start(intptr_t n, uint32_t t, uint32_t parts) {
  intptr_t q = n / (intptr_t)parts, r = n % (intptr_t)parts;
  return q * (intptr_t)t + r * (intptr_t)t / (intptr_t)parts;
}

static uint64_t job_of(uint64_t ticket) { return ticket >> GRAIN_BITS; }

static uint32_t grains_of(uint64_t ticket) { return (uint32_t)ticket & ((1u << GRAIN_BITS) - 1); }

/* Takes grains of w's run, the first ones left or (theft) the last; false: none is left. Who comes
 * late, when the job is over and another one may be under way, finds its own job's run used up, or
 * another ticket. */
static int take(worker *w, uint64_t ticket, int theft, uint32_t *first, uint32_t *end) {
  zn_pool *p = w->pool;
  const uint32_t most = (1u << TAKEN_BITS) - 1;
  uint32_t start = (uint32_t)part_start((intptr_t)grains_of(ticket), w->index, p->threads);
  uint32_t stop = (uint32_t)part_start((intptr_t)grains_of(ticket), w->index + 1, p->threads);
  uint64_t old = __atomic_load_n(&w->taken, __ATOMIC_SEQ_CST);
  for (;;) {
    uint32_t front = 0, back = 0;
    if (old >> 2 * TAKEN_BITS == job_of(ticket))
      front = (uint32_t)(old >> TAKEN_BITS) & most, back = (uint32_t)old & most;
    else if (__atomic_load_n(&p->ticket, __ATOMIC_SEQ_CST) != ticket) return 0;
    uint32_t left = stop - start - front - back, some = left - left / 2;
    if (left == 0) return 0;
    *first = theft ? stop - back - some : start + front;
    *end = *first + some;
    if (theft) back += some;
    else front += some;
    uint64_t now = (job_of(ticket) << TAKEN_BITS | front) << TAKEN_BITS | back;
    if (__atomic_compare_exchange_n(&w->taken, &old, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
      return 1;
  }
}

static uint32_t run_grains(zn_pool *p, uint64_t ticket, uint32_t first, uint32_t end) {
  uint32_t grains = grains_of(ticket);
  p->kernel(p->bufs, p->ints, part_start(p->n, first, grains), part_start(p->n, end, grains));
  return end - first;
}

/* Thread `self` works on its own run. Returns how many grains it did. */
static uint32_t work(zn_pool *p, unsigned self, uint64_t ticket) {
  uint32_t first, end, done = 0;
  while (take(&p->workers[self], ticket, 0, &first, &end))
    done += run_grains(p, ticket, first, end);
  return done;
}

/* Takes grains of another thread's run, once. Returns how many it did. */
static uint32_t steal(zn_pool *p, unsigned self, uint64_t ticket) {
  uint32_t first, end;
  for (unsigned i = 1; i < p->threads; i++)
    if (take(&p->workers[(self + i) % p->threads], ticket, 1, &first, &end))
      return run_grains(p, ticket, first, end);
  return 0;
}

/* Returns the ticket that follows `seen`. */
static uint64_t await_job(zn_pool *p, uint64_t seen) {
  uint64_t t = seen;
  for (unsigned i = 0; i < p->spin; i++) {
    t = __atomic_load_n(&p->ticket, __ATOMIC_ACQUIRE);
    if (t != seen) return t;
    relax();
  }
  pthread_mutex_lock(&p->lock);
  __atomic_add_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
  while ((t = __atomic_load_n(&p->ticket, __ATOMIC_SEQ_CST)) == seen)
    pthread_cond_wait(&p->wake, &p->lock);
  __atomic_sub_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
  pthread_mutex_unlock(&p->lock);
  return t;
}

/* Returns whether the job may still have grains left. */
static int finish(zn_pool *p, uint32_t done) {
  if (!done) return 1;
  if (__atomic_sub_fetch(&p->pending, done, __ATOMIC_SEQ_CST) != 0) return 1;
  if (!__atomic_load_n(&p->waiting, __ATOMIC_SEQ_CST)) return 0;
  pthread_mutex_lock(&p->lock);
  pthread_cond_signal(&p->done);
  pthread_mutex_unlock(&p->lock);
  return 0;
}

/* The others are nearly done as a rule: who is done first waits for a moment before it takes what
 * lies in their caches. */
static int patience(zn_pool *p, uint64_t ticket) {
  for (int i = 0; i < PATIENCE; i++) {
    if (__atomic_load_n(&p->ticket, __ATOMIC_ACQUIRE) != ticket ||
        __atomic_load_n(&p->pending, __ATOMIC_ACQUIRE) == 0)
      return 0;
    relax();
  }
  return 1;
}

static void take_part(zn_pool *p, unsigned self, uint64_t ticket) {
  if (!finish(p, work(p, self, ticket)) || !patience(p, ticket)) return;
  for (uint32_t done = 1; done; finish(p, done)) done = steal(p, self, ticket);
}

static void *worker_main(void *arg) {
  worker *w = (worker *)arg;
  zn_pool *p = w->pool;
  uint64_t seen = 0;
  for (;;) {
    seen = await_job(p, seen);
    if (__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE)) return NULL;
    take_part(p, w->index, seen);
  }
}

/* Returns the new ticket. */
static uint64_t publish(zn_pool *p, uint32_t grains) {
  uint64_t ticket =
      (job_of(__atomic_load_n(&p->ticket, __ATOMIC_RELAXED)) + 1) << GRAIN_BITS | grains;
  __atomic_store_n(&p->ticket, ticket, __ATOMIC_SEQ_CST);
  if (!__atomic_load_n(&p->sleepers, __ATOMIC_SEQ_CST)) return ticket;
  pthread_mutex_lock(&p->lock);
  pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->lock);
  return ticket;
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

void zn_pool_parallel_for(void *user, zn_kernel kernel, void *const *bufs, const intptr_t *ints,
                          intptr_t n) {
  zn_pool *p = (zn_pool *)user;
  if (n <= 0) return;
  if (n == 1 || p->threads == 1 || pthread_mutex_trylock(&p->busy) != 0) {
    kernel(bufs, ints, 0, n);
    return;
  }
  intptr_t most = (intptr_t)p->threads * GRAINS;
  uint32_t grains = (uint32_t)(n < most ? n : most);
  p->kernel = kernel;
  p->bufs = bufs;
  p->ints = ints;
  p->n = n;
  __atomic_store_n(&p->pending, grains, __ATOMIC_SEQ_CST);
  take_part(p, 0, publish(p, grains));
  await_done(p);
  pthread_mutex_unlock(&p->busy);
}

static void stop_workers(zn_pool *p, unsigned started) {
  __atomic_store_n(&p->stop, 1, __ATOMIC_RELEASE);
  publish(p, 0);
  for (unsigned i = 1; i <= started; i++) pthread_join(p->workers[i].id, NULL);
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
  if (threads > ZN_POOL_MOST) return NULL;
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
  for (unsigned i = 0; i < threads; i++) p->workers[i].pool = p, p->workers[i].index = i;
  for (unsigned i = 1; i < threads; i++) {
    if (pthread_create(&p->workers[i].id, NULL, worker_main, &p->workers[i]) != 0) {
      stop_workers(p, i - 1);
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
