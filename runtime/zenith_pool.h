/* zenith_pool.h: a small optional thread pool for zn_host.parallel_for. POSIX threads; C99 and C++.
 *
 *     zn_pool *pool = zn_pool_create(4);
 *     zn_host host = {0};
 *     host.user = pool;
 *     host.parallel_for = zn_pool_parallel_for;
 *     NAME_run(in, out, ws, ws_bytes, &host);
 *     zn_pool_destroy(pool);
 *
 * Of n iterations thread t begins with [n*t/T, n*(t+1)/T), the same in every run, so data stays in
 * the cache of the core that touched it; threads that are done take over what slower ones have not
 * begun. Idle threads spin for some microseconds, then sleep. The results never depend on the
 * number of threads. One pool may be shared: a call that finds it busy runs on the calling thread
 * alone. */
#ifndef ZENITH_POOL_H
#define ZENITH_POOL_H
#include "zenith.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct zn_pool zn_pool;

/* threads counts the caller: threads - 1 are started. 0 = one per online CPU. NULL when none could
 * be had, and for more than ZN_POOL_MOST. */
#define ZN_POOL_MOST 4096
zn_pool *zn_pool_create(unsigned threads);
/* No run may be in progress. NULL is fine. */
void zn_pool_destroy(zn_pool *pool);
unsigned zn_pool_threads(const zn_pool *pool);
/* zn_host.parallel_for; user is the zn_pool. */
void zn_pool_parallel_for(void *user, zn_kernel kernel, void *const *bufs, const intptr_t *ints,
                          intptr_t n);

#ifdef __cplusplus
}
#endif
#endif
