/* Dense products: the one matrix multiplication and the one convolution behind every contraction of
 * the evaluator. Each output element is summed in an order fixed by the mode, so results do not
 * depend on the number of threads. */
#include "zenithc/eval/eval_impl.h"

typedef struct gemm {
  zn_eval_mode mode;
  uint64_t M, N, K;
  const double *A, *B;
  double *C;
  uint64_t lda, ldb, ldc;
} gemm;

enum { KB = 64, NB = 256, FB = 64, RB = 8 };

/* Compiled once for each instruction set below. */
#define INLINE static inline __attribute__((always_inline))

/* Two rows of C by nb columns, four steps of k at a time. */
INLINE void rows2_f64(const double *a0, const double *a1, const double *b, uint64_t ldb,
                      uint64_t kb, uint64_t nb, double *restrict c0, double *restrict c1) {
  uint64_t k = 0;
  for (; k + 4 <= kb; k += 4) {
    const double *b0 = b + k * ldb, *b1 = b0 + ldb, *b2 = b1 + ldb, *b3 = b2 + ldb;
    double p0 = a0[k], p1 = a0[k + 1], p2 = a0[k + 2], p3 = a0[k + 3];
    double q0 = a1[k], q1 = a1[k + 1], q2 = a1[k + 2], q3 = a1[k + 3];
    for (uint64_t j = 0; j < nb; j++) {
      c0[j] = c0[j] + p0 * b0[j] + p1 * b1[j] + p2 * b2[j] + p3 * b3[j];
      c1[j] = c1[j] + q0 * b0[j] + q1 * b1[j] + q2 * b2[j] + q3 * b3[j];
    }
  }
  for (; k < kb; k++)
    for (uint64_t j = 0; j < nb; j++) {
      c0[j] += a0[k] * b[k * ldb + j];
      c1[j] += a1[k] * b[k * ldb + j];
    }
}

INLINE void row_f64(const double *a, const double *b, uint64_t ldb, uint64_t kb, uint64_t nb,
                    double *restrict c) {
  uint64_t k = 0;
  for (; k + 4 <= kb; k += 4) {
    const double *b0 = b + k * ldb, *b1 = b0 + ldb, *b2 = b1 + ldb, *b3 = b2 + ldb;
    double p0 = a[k], p1 = a[k + 1], p2 = a[k + 2], p3 = a[k + 3];
    for (uint64_t j = 0; j < nb; j++)
      c[j] = c[j] + p0 * b0[j] + p1 * b1[j] + p2 * b2[j] + p3 * b3[j];
  }
  for (; k < kb; k++)
    for (uint64_t j = 0; j < nb; j++) c[j] += a[k] * b[k * ldb + j];
}

INLINE void block_f64(const gemm *g, uint64_t m0, uint64_t m1, uint64_t n0, uint64_t n1) {
  for (uint64_t m = m0; m < m1; m++) memset(g->C + m * g->ldc + n0, 0, (n1 - n0) * sizeof(double));
  for (uint64_t j = n0; j < n1; j += NB) {
    uint64_t nb = n1 - j < NB ? n1 - j : NB;
    for (uint64_t k = 0; k < g->K; k += KB) {
      uint64_t kb = g->K - k < KB ? g->K - k : KB, m = m0;
      const double *b = g->B + k * g->ldb + j;
      for (; m + 2 <= m1; m += 2)
        rows2_f64(g->A + m * g->lda + k, g->A + (m + 1) * g->lda + k, b, g->ldb, kb, nb,
                  g->C + m * g->ldc + j, g->C + (m + 1) * g->ldc + j);
      if (m < m1) row_f64(g->A + m * g->lda + k, b, g->ldb, kb, nb, g->C + m * g->ldc + j);
    }
  }
}

/* Up to RB rows of A times nb columns of B: each output is its own sum in the mode's order. */
INLINE void rows_f32(const gemm *g, zn_eval_mode mode, uint64_t m, uint64_t rows, uint64_t j,
                     uint64_t nb) {
  float acc[RB][8][FB], b[FB];
  memset(acc, 0, sizeof acc);
  for (uint64_t i = 0; i < g->K; i++) {
    uint64_t k = zn_ev_turn(mode, i, g->K), lane = mode == ZN_EVAL_F32_BLOCK8 ? k % 8 : 0;
    for (uint64_t c = 0; c < nb; c++) b[c] = (float)g->B[k * g->ldb + j + c];
    for (uint64_t r = 0; r < rows; r++) {
      float a = (float)g->A[(m + r) * g->lda + k], *s = acc[r][lane];
      for (uint64_t c = 0; c < nb; c++) s[c] = zn_ev_madd(mode, a, b[c], s[c]);
    }
  }
  for (uint64_t r = 0; r < rows; r++)
    for (uint64_t c = 0; c < nb; c++) {
      float s = acc[r][0][c];
      for (int p = 1; p < 8; p++) s += acc[r][p][c];
      g->C[(m + r) * g->ldc + j + c] = (double)s;
    }
}

INLINE void block_f32(const gemm *g, zn_eval_mode mode, uint64_t m0, uint64_t m1, uint64_t n0,
                      uint64_t n1) {
  for (uint64_t j = n0; j < n1; j += FB)
    for (uint64_t m = m0; m < m1; m += RB)
      rows_f32(g, mode, m, m1 - m < RB ? m1 - m : RB, j, n1 - j < FB ? n1 - j : FB);
}

/* The mode's block; the compiler sees the two kinds of float sums apart. */
INLINE void block(const gemm *g, uint64_t m0, uint64_t m1, uint64_t n0, uint64_t n1) {
  if (g->mode == ZN_EVAL_F64) block_f64(g, m0, m1, n0, n1);
  else if (g->mode >= ZN_EVAL_F32_RANDOM) block_f32(g, g->mode, m0, m1, n0, n1);
  else block_f32(g, g->mode, m0, m1, n0, n1);
}

static void part_base(const gemm *g, uint64_t m0, uint64_t m1, uint64_t n0, uint64_t n1) {
  block(g, m0, m1, n0, n1);
}

/* The same operations in the same order at every width (no contraction): wider vectors only take more columns at once. */
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void part_avx2(const gemm *g, uint64_t m0, uint64_t m1,
                                                          uint64_t n0, uint64_t n1) {
  block(g, m0, m1, n0, n1);
}
static bool has_avx2(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#else
static bool has_avx2(void) { return false; }
#define part_avx2 part_base
#endif

static void part(const gemm *g, uint64_t m0, uint64_t m1, uint64_t n0, uint64_t n1) {
  if (has_avx2()) part_avx2(g, m0, m1, n0, n1);
  else part_base(g, m0, m1, n0, n1);
}

static void by_rows(void *p, uint64_t lo, uint64_t hi) { part(p, lo, hi, 0, ((gemm *)p)->N); }
static void by_cols(void *p, uint64_t lo, uint64_t hi) { part(p, 0, ((gemm *)p)->M, lo, hi); }

void zn_ev_gemm(const zn_ev *e, uint64_t M, uint64_t N, uint64_t K, const double *A, uint64_t lda,
                const double *B, uint64_t ldb, double *C, uint64_t ldc) {
  gemm g = {e->mode, M, N, K, A, B, C, lda, ldb, ldc};
  double work = (double)M * (double)N * (double)K;
  if (M >= 4) zn_ev_parallel(M, work, by_rows, &g);
  else zn_ev_parallel(N, work, by_cols, &g);
}

/* ---- convolution: columns of a panel are output positions, rows are (channel, kernel position)
 * ---- */
typedef struct conv {
  zn_eval_mode mode;
  const double *x, *w, *bias;
  double *y;
  uint64_t C, M, group, kk, in_n, out_n, tile, tiles, N;
  const zn_ev_win *win;
} conv;

/* n elements of x at i, i + step, ...; zeros where that is outside [0, size) or x is NULL. */
static void window_line(const double *x, int64_t i, int64_t step, int64_t size, int64_t n, double *out) {
  int64_t first = i < 0 ? (-i + step - 1) / step : 0, end = i < size ? (size - 1 - i) / step + 1 : 0;
  if (end > n) end = n;
  if (!x || first > end) first = end = n;
  for (int64_t t = 0; t < first; t++) out[t] = 0;
  for (int64_t t = first; t < end; t++) out[t] = x[i + t * step];
  for (int64_t t = end; t < n; t++) out[t] = 0;
}

/* One row of the panel: channel plane xc, kernel position kp, output positions [j0, j0 + nt). */
static void panel_row(const zn_ev_win *w, const double *xc, const int64_t *kp, uint64_t j0,
                      uint64_t nt, double *row) {
  uint32_t last = w->n - 1;
  int64_t o[ZN_MAX_RANK];
  uint64_t r = j0;
  for (uint32_t d = w->n; d-- > 0;) {
    o[d] = (int64_t)(r % (uint64_t)w->out[d]);
    r /= (uint64_t)w->out[d];
  }
  for (uint64_t j = 0; j < nt;) {
    int64_t off = 0;
    bool inside = true;
    for (uint32_t d = 0; d < last; d++) {
      int64_t i = o[d] * w->s[d] - w->lo[d] + kp[d] * w->d[d];
      if (i < 0 || i >= w->in[d]) inside = false;
      off = off * w->in[d] + i;
    }
    int64_t run = w->out[last] - o[last];
    if (run > (int64_t)(nt - j)) run = (int64_t)(nt - j);
    window_line(inside ? xc + off * w->in[last] : NULL, o[last] * w->s[last] - w->lo[last] + kp[last] * w->d[last],
                w->s[last], w->in[last], run, row + j);
    j += (uint64_t)run;
    o[last] = 0;
    for (uint32_t d = last; d-- > 0;) {
      if (++o[d] < w->out[d]) break;
      o[d] = 0;
    }
  }
}

static void conv_tile(const conv *c, uint64_t job, double *panel) {
  uint64_t t = job % c->tiles, ng = job / c->tiles, gr = ng % c->group, n = ng / c->group;
  uint64_t Cg = c->C / c->group, Mg = c->M / c->group, K = Cg * c->kk, j0 = t * c->tile;
  uint64_t nt = c->out_n - j0 < c->tile ? c->out_n - j0 : c->tile;
  for (uint64_t ch = 0; ch < Cg; ch++) {
    int64_t kp[ZN_MAX_RANK] = {0};
    for (uint64_t k = 0; k < c->kk; k++) {
      panel_row(c->win, c->x + (n * c->C + gr * Cg + ch) * c->in_n, kp, j0, nt,
                panel + (ch * c->kk + k) * nt);
      zn_ev_next(c->win->n, c->win->k, kp);
    }
  }
  gemm g = {c->mode,
            Mg,
            nt,
            K,
            c->w + gr * Mg * K,
            panel,
            c->y + (n * c->M + gr * Mg) * c->out_n + j0,
            K,
            nt,
            c->out_n};
  part(&g, 0, Mg, 0, nt);
  for (uint64_t m = 0; c->bias && m < Mg; m++)
    for (uint64_t j = 0; j < nt; j++) {
      double *y = &g.C[m * g.ldc + j], s = *y + c->bias[gr * Mg + m];
      *y = c->mode == ZN_EVAL_F64 ? s : (double)(float)s;
    }
}

static void conv_part(void *p, uint64_t lo, uint64_t hi) {
  const conv *c = p;
  double *panel = malloc((size_t)(c->C / c->group * c->kk * c->tile + 1) * sizeof(double));
  for (uint64_t j = lo; panel && j < hi; j++) conv_tile(c, j, panel);
  if (!panel) abort(); /* the tile is bounded: a few megabytes */
  free(panel);
}

zn_status zn_ev_conv(zn_ev *e, const double *x, const double *w, const double *bias, uint64_t N,
                     uint64_t C, uint64_t M, uint64_t group, const zn_ev_win *win, double *y) {
  if (group == 0 || C % group || M % group)
    return zn_ev_fail(e, "%llu input and %llu output channels do not divide into %llu groups",
                      (unsigned long long)C, (unsigned long long)M, (unsigned long long)group);
  conv c = {.mode = e->mode,
            .x = x,
            .w = w,
            .bias = bias,
            .y = y,
            .C = C,
            .M = M,
            .group = group,
            .win = win,
            .N = N};
  c.kk = zn_ev_count(win->n, win->k);
  c.in_n = zn_ev_count(win->n, win->in);
  c.out_n = zn_ev_count(win->n, win->out);
  uint64_t K = C / group * c.kk;
  c.tile = K ? (UINT64_C(1) << 18) / K : 1024;
  c.tile = c.tile < 32 ? 32 : c.tile > 1024 ? 1024 : c.tile;
  if (c.tile > c.out_n) c.tile = c.out_n;
  if (c.out_n == 0 || M == 0 || N == 0) return ZN_OK;
  c.tiles = (c.out_n + c.tile - 1) / c.tile;
  zn_ev_parallel(N * group * c.tiles, (double)N * (double)M * (double)K * (double)c.out_n,
                 conv_part, &c);
  return ZN_OK;
}
