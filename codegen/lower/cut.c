#include "codegen/lower/cut.h"

#include "codegen/lower/lower.h"

enum { MAX_ITERATIONS = 256 }; /* beyond those nothing is cut finer for balance */

static const double bytes_a_cycle = 32; /* from the second-level cache, of which half hides behind arithmetic */
static const double start_cycles = 400; /* of an iteration: handing it out, its first misses */

/* Numbers of threads, and how much each counts. */
static const struct {
  int64_t threads;
  double weight;
} machines[] = {{1, 0.25}, {2, 0.25}, {4, 0.2}, {8, 0.15}, {16, 0.15}};

/* Mean of time times threads, in cycles. Iterations at the ends of axes are smaller: the slowest thread has at most its
 * share of all and one iteration more. */
static double price(const zn_cut *c, int64_t a_per, int64_t b_per) {
  int64_t as = zn_ceil_div(c->a, a_per), bs = zn_ceil_div(c->b, b_per), n = c->outer * as * bs;
  double whole = (double)(a_per * b_per) * c->cycles + start_cycles;
  whole += ((double)a_per * c->a_bytes + (double)b_per * c->b_bytes) / bytes_a_cycle;
  double all = (double)(c->outer * c->a * c->b) * c->cycles + (double)n * start_cycles;
  all += (double)c->outer * ((double)(bs * c->a) * c->a_bytes + (double)(as * c->b) * c->b_bytes) / bytes_a_cycle;
  double sum = 0;
  for (unsigned i = 0; i < sizeof machines / sizeof *machines; i++) {
    int64_t t = machines[i].threads;
    double rounds = (double)zn_ceil_div(n, t) * whole, share = all / (double)t + whole * (double)(t - 1) / (double)t;
    sum += machines[i].weight * (double)t * (rounds < share ? rounds : share);
  }
  return sum;
}

/* The next smaller number of units that needs more pieces, the fewest for that number of pieces; 0: there is none. */
static int64_t smaller(int64_t units, int64_t per) {
  return per < 2 ? 0 : zn_ceil_div(units, zn_ceil_div(units, per - 1));
}

double zn_cut_work(const zn_cut *c, int64_t *a_per, int64_t *b_per) {
  double best = 0, least = (double)(c->outer * c->a * c->b) * c->cycles;
  int64_t most = c->b_most > 0 && c->b_most < c->b ? c->b_most : c->b;
  most = zn_ceil_div(c->b, zn_ceil_div(c->b, most));
  for (int64_t pa = c->a; pa > 0; pa = smaller(c->a, pa))
    for (int64_t pb = most; pb > 0; pb = smaller(c->b, pb)) {
      bool least_cut = pa == c->a || pb == most;
      if (!least_cut && c->outer * zn_ceil_div(c->a, pa) * zn_ceil_div(c->b, pb) > MAX_ITERATIONS) break;
      double p = price(c, pa, pb);
      if (best > 0 && p >= best) continue;
      best = p;
      *a_per = pa, *b_per = pb;
    }
  return best / least;
}
