/* Threads take the next number from one counter until there is none left. */
#include "zenithc/base/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

typedef struct batch {
  void (*task)(void *user, uint32_t i);
  void *user;
  uint32_t n;
  _Atomic uint32_t next;
} batch;

static void *work(void *user) {
  batch *b = user;
  for (uint32_t i; (i = atomic_fetch_add(&b->next, 1)) < b->n;) b->task(b->user, i);
  return NULL;
}

void zn_parallel(uint32_t n, void (*task)(void *user, uint32_t i), void *user) {
  enum { MOST = 64 };
  pthread_t t[MOST];
  batch b = {.task = task, .user = user, .n = n};
  const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  uint32_t want = cpus < 1 ? 1 : cpus > MOST ? MOST : (uint32_t)cpus, started = 0;
  if (want > n) want = n;
  for (; started + 1 < want; started++)
    if (pthread_create(&t[started], NULL, work, &b)) break;
  work(&b);
  for (uint32_t i = 0; i < started; i++) pthread_join(t[i], NULL);
}
