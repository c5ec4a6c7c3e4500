/* How the work of a kernel is cut into grid iterations. The number of threads is not known when a model is compiled, so a cut
 * is judged by the times of 1 to 16 threads together: that each gets as much as the others, that iterations which read
 * the same data again are few, and that none is too short to hand out. */
#ifndef ZN_CUT_H
#define ZN_CUT_H
#include <stdint.h>

/* `outer` independent planes of `a` times `b` units of work; an iteration takes a_per x b_per of them. */
typedef struct zn_cut {
  int64_t outer, a, b;
  int64_t b_most;          /* units along b that an iteration may have at most; 0: any number */
  double cycles;           /* of one unit */
  double a_bytes, b_bytes; /* what each unit along an axis reads: once in an iteration */
} zn_cut;

/* Sets the units of an iteration along each axis. Returns the mean over numbers of threads of time times threads, over the
 * cycles of all units alone: 1 is the best there can be. The ends of axes may get fewer units. */
double zn_cut_work(const zn_cut *c, int64_t *a_per, int64_t *b_per);
#endif
