/* Regular expressions in RE2's syntax as finite automata over the bytes of UTF-8. */
#ifndef ZN_REGEX_H
#define ZN_REGEX_H
#include "zenithc/base/arena.h"

typedef struct zn_dfa { /* state 0 is the start, state 1 never matches */
  uint32_t num_states, num_classes;
  uint8_t cls[256];   /* class of each byte */
  uint16_t *next;     /* [state][class] */
  uint8_t *accept;    /* per state: does a text that ends here match as a whole? */
} zn_dfa;

/* NULL: *out_why says why not (syntax, or what is not supported: \p, \C, flags other than i and s, more than 4096 states). */
const zn_dfa *zn_dfa_compile(zn_arena *a, const char *pattern, size_t n, const char **out_why);
#endif
