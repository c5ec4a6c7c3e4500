/* What the harnesses share: a context that says nothing, bounded memory, and a way out when it is used up. */
#ifndef ZN_HARNESS_H
#define ZN_HARNESS_H
#include <setjmp.h>
#include <stdint.h>

#include "zenithc/ops/op.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

typedef struct harness {
  zn_ctx c;
  jmp_buf out_of_memory;
} harness;

static inline void harness_quiet(void *user, zn_severity sev, const char *line) {
  (void)user, (void)sev, (void)line;
}

static inline void harness_oom(void *user, size_t want) {
  (void)want;
  longjmp(((harness *)user)->out_of_memory, 1);
}

static inline void harness_open(harness *h) {
  zn_ctx_init(&h->c);
  h->c.sink = harness_quiet;
  h->c.verbosity = -1;
  zn_arena *const arenas[] = {&h->c.perm, &h->c.graph, &h->c.tmp};
  for (int i = 0; i < 3; i++) {
    arenas[i]->limit = (size_t)64 << 20; /* contents drawn by rand() take seconds for more */
    arenas[i]->oom = harness_oom;
    arenas[i]->oom_user = h;
  }
}

/* What was refused has been explained; what was accepted has not been complained about. */
static inline void harness_expect(const harness *h, zn_status st, const void *result) {
  if ((st == ZN_OK) != (result != NULL) || (st != ZN_OK && h->c.errors == 0)) abort();
}
#endif
