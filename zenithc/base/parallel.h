/* Independent tasks on the machine's processors. */
#ifndef ZN_BASE_PARALLEL_H
#define ZN_BASE_PARALLEL_H
#include <stdint.h>

/* Calls task(user, i) once for each i below n, as many at a time as there are processors (64 at most), and returns when
 * all are done. The caller's thread takes part; without other threads it does everything. Tasks share nothing but what they
 * guard themselves. */
void zn_parallel(uint32_t n, void (*task)(void *user, uint32_t i), void *user);
#endif
