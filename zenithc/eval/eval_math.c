/* Sums in the mode's order, index arithmetic, two-thread loops and random numbers: what operator
 * families share. */
#include <pthread.h>

#include "zenithc/eval/eval_impl.h"
#include "zenithc/ops/random.h"

static double pairwise(const double *x, uint64_t n, uint64_t stride) {
  if (n <= 16) {
    double s = 0;
    for (uint64_t k = 0; k < n; k++) s += x[k * stride];
    return s;
  }
  uint64_t h = n / 2;
  return pairwise(x, h, stride) + pairwise(x + h * stride, n - h, stride);
}

double zn_ev_jitter(zn_eval_mode mode, zn_dtype t, double x) {
  double near = zn_eval_round(t, x);
  int digits = t == ZN_F16 ? 10 : t == ZN_BF16 ? 7 : 23, least = t == ZN_F16 ? -14 : -126, e;
  uint64_t h;
  if (near == x || !isfinite(near) || near == 0) return near;
  memcpy(&h, &x, sizeof h);
  h = (h ^ ((uint64_t)mode << 32)) * UINT64_C(0x9E3779B97F4A7C15);
  h = (h ^ h >> 29) * UINT64_C(0xBF58476D1CE4E5B9);
  if (h >> 63) return near;
  e = ilogb(near);
  double unit = ldexp(1, (e < least ? least : e) - digits);
  return near > x ? near - unit : near + unit;
}

double zn_ev_sum(const zn_ev *e, const double *x, uint64_t n, uint64_t stride) {
  if (e->mode == ZN_EVAL_F64) return pairwise(x, n, stride);
  float s[8] = {0};
  for (uint64_t i = 0; i < n; i++) {
    uint64_t k = zn_ev_turn(e->mode, i, n);
    s[e->mode == ZN_EVAL_F32_BLOCK8 ? k % 8 : 0] += (float)x[k * stride];
  }
  for (int i = 1; i < 8; i++) s[0] += s[i];
  return (double)s[0];
}

static double dot_f64(const double *x, uint64_t sx, const double *y, uint64_t sy, uint64_t n) {
  double s[8] = {0};
  uint64_t k = 0;
  for (; sx == 1 && sy == 1 && k + 8 <= n; k += 8)
    for (int i = 0; i < 8; i++) s[i] += x[k + (uint64_t)i] * y[k + (uint64_t)i];
  for (; k < n; k++) s[k % 8] += x[k * sx] * y[k * sy];
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

double zn_ev_dot(const zn_ev *e, const double *x, uint64_t sx, const double *y, uint64_t sy,
                 uint64_t n) {
  if (e->mode == ZN_EVAL_F64) return dot_f64(x, sx, y, sy, n);
  float s[8] = {0};
  for (uint64_t j = 0; j < n; j++) {
    uint64_t k = zn_ev_turn(e->mode, j, n);
    float *p = &s[e->mode == ZN_EVAL_F32_BLOCK8 ? k % 8 : 0];
    *p = zn_ev_madd(e->mode, (float)x[k * sx], (float)y[k * sy], *p);
  }
  for (int i = 1; i < 8; i++) s[0] += s[i];
  return (double)s[0];
}

/* ---- threads ---- */
typedef struct job {
  void (*fn)(void *, uint64_t, uint64_t);
  void *user;
  uint64_t lo, hi;
} job;

static void *work_main(void *p) {
  job *j = p;
  j->fn(j->user, j->lo, j->hi);
  return NULL;
}

void zn_ev_parallel(uint64_t n, double work, void (*fn)(void *, uint64_t, uint64_t), void *user) {
  pthread_t t;
  job half = {fn, user, n / 2, n};
  if (n < 2 || work < 2e6 || pthread_create(&t, NULL, work_main, &half) != 0) {
    fn(user, 0, n);
    return;
  }
  fn(user, 0, n / 2);
  pthread_join(t, NULL);
}

/* ---- shapes ---- */
uint64_t zn_ev_count(uint32_t rank, const int64_t *dims) {
  uint64_t n = 1;
  for (uint32_t d = 0; d < rank; d++) n *= (uint64_t)dims[d];
  return n;
}

zn_status zn_ev_axis(zn_ev *e, int64_t axis, uint32_t rank, uint32_t *out) {
  if (axis < -(int64_t)rank || axis >= (int64_t)rank)
    return zn_ev_fail(e, "axis %lld is outside [-%u, %u)", (long long)axis, rank, rank);
  *out = (uint32_t)(axis < 0 ? axis + (int64_t)rank : axis);
  return ZN_OK;
}

void zn_ev_split(const zn_eval_val *v, uint32_t axis, uint64_t *outer, uint64_t *n,
                 uint64_t *inner) {
  *outer = zn_ev_count(axis, v->dims);
  *n = (uint64_t)v->dims[axis];
  *inner = zn_ev_count(v->rank - axis - 1, v->dims + axis + 1);
}

zn_status zn_ev_bcast(zn_ev *e, const zn_eval_val *const *v, uint32_t n, uint32_t *out_rank,
                      int64_t *out_dims) {
  uint32_t rank = 0;
  for (uint32_t i = 0; i < n; i++)
    if (v[i] && v[i]->rank > rank) rank = v[i]->rank;
  for (uint32_t d = 0; d < rank; d++) {
    int64_t x = 1;
    for (uint32_t i = 0; i < n; i++) {
      if (!v[i] || v[i]->rank + d < rank) continue;
      int64_t y = v[i]->dims[v[i]->rank + d - rank];
      if (x == 1) x = y;
      else if (y != 1 && y != x)
        return zn_ev_fail(e, "dimensions %lld and %lld do not broadcast", (long long)x,
                          (long long)y);
    }
    out_dims[d] = x;
  }
  *out_rank = rank;
  return ZN_OK;
}

void zn_ev_strides(uint32_t rank, const int64_t *dims, int64_t *strides) {
  int64_t s = 1;
  for (uint32_t d = rank; d-- > 0;) {
    strides[d] = s;
    s *= dims[d];
  }
}

void zn_ev_bstrides(const zn_eval_val *v, uint32_t rank, int64_t *strides) {
  int64_t s = 1;
  for (uint32_t d = rank; d-- > 0;) {
    strides[d] = 0;
    if (v->rank + d < rank) continue;
    int64_t n = v->dims[v->rank + d - rank];
    if (n != 1) strides[d] = s;
    s *= n;
  }
}

void zn_ev_gather(void *dst, const void *src, size_t esize, uint32_t rank, const int64_t *dims,
                  const int64_t *strides, int64_t base) {
  int64_t ix[ZN_MAX_RANK + 1] = {0};
  uint64_t total = zn_ev_count(rank, dims);
  if (total == 0) return;
  int64_t inner = rank ? dims[rank - 1] : 1, step = rank ? strides[rank - 1] : 0;
  const char *s = src;
  char *d = dst;
  for (uint64_t done = 0; done < total; done += (uint64_t)inner) {
    int64_t off = base;
    for (uint32_t a = 0; a + 1 < rank; a++) off += ix[a] * strides[a];
    if (step == 1) {
      memcpy(d, s + off * (int64_t)esize, (size_t)inner * esize);
    } else {
      for (int64_t k = 0; k < inner; k++)
        memcpy(d + (size_t)k * esize, s + (off + k * step) * (int64_t)esize, esize);
    }
    d += (size_t)inner * esize;
    if (rank > 1) zn_ev_next(rank - 1, dims, ix);
  }
}

/* ---- random numbers ---- */
uint64_t zn_ev_rand(uint64_t *state) {
  uint64_t z = (*state += ZN_RANDOM_GAMMA);
  z = (z ^ (z >> 30)) * ZN_RANDOM_MIX1;
  z = (z ^ (z >> 27)) * ZN_RANDOM_MIX2;
  return z ^ (z >> 31);
}

double zn_ev_uniform(uint64_t *state) { return (double)(zn_ev_rand(state) >> 11) * 0x1p-53; }

double zn_ev_normal(uint64_t *state) { /* Box-Muller */
  double u = 1 - zn_ev_uniform(state), v = zn_ev_uniform(state);
  return sqrt(-2 * log(u)) * cos(6.283185307179586476925 * v);
}

uint64_t zn_ev_seed(const zn_ev *e) { return zn_random_seed(e->n); }
