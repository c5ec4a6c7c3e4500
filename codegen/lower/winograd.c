/* The matrices of F(m, 3), and code that multiplies by them. */
#include "codegen/lower/winograd.h"

#include <assert.h>
#include <math.h>

/* Powers and products of these that at and bt consist of have at most 24 bits. For m = 4 they are the pairs whose rounding
 * errors are least among short fractions: half of those of 0, +-1, +-2. */
static const double points[ZN_WINO_MAX + 1][ZN_WINO_MAX + 1] = {
    [2] = {0, 1, -1}, [3] = {0, 0.75, -0.75, 1.5}, [4] = {0, 0.625, -0.625, 1.5, -1.5}};

/* Coefficients of the product of (x - a[j]) over all j < n but `skip`, lowest first. */
static void polynomial(const double *a, int n, int skip, double *out) {
  int degree = 0;
  out[0] = 1;
  for (int j = 0; j < n; j++) {
    if (j == skip) continue;
    out[++degree] = 0;
    for (int k = degree; k > 0; k--) out[k] = out[k - 1] - a[j] * out[k];
    out[0] *= -a[j];
  }
}

zn_winograd zn_winograd_of(int m) {
  assert(m >= ZN_WINO_MIN && m <= ZN_WINO_MAX);
  zn_winograd f = {.m = m, .side = m + ZN_WINO_TAPS - 1};
  const double *a = points[m];
  int n = f.side - 1;
  for (int i = 0; i < n; i++) {
    double scale = 1, power = 1;
    for (int j = 0; j < n; j++)
      if (j != i) scale *= a[i] - a[j];
    for (int k = 0; k < m || k < ZN_WINO_TAPS; k++, power *= a[i]) {
      if (k < m) f.at[k][i] = power;
      if (k < ZN_WINO_TAPS) f.g[i][k] = power / scale;
    }
    polynomial(a, n, i, f.bt[i]);
  }
  f.at[m - 1][n] = 1;
  f.g[n][ZN_WINO_TAPS - 1] = 1;
  polynomial(a, n, -1, f.bt[n]);
  return f;
}

void zn_winograd_filter(const zn_winograd *f, const double *w, double out_u[ZN_WINO_SIDE][ZN_WINO_SIDE]) {
  for (int i = 0; i < f->side; i++) {
    double row[ZN_WINO_TAPS] = {0};
    for (int k = 0; k < ZN_WINO_TAPS; k++)
      for (int j = 0; j < ZN_WINO_TAPS; j++) row[j] += f->g[i][k] * w[k * ZN_WINO_TAPS + j];
    for (int j = 0; j < f->side; j++) {
      out_u[i][j] = 0;
      for (int k = 0; k < ZN_WINO_TAPS; k++) out_u[i][j] += row[k] * f->g[j][k];
    }
  }
}

/* ---------------------------------------------------------------- code */

typedef struct terms { /* sum of c[i] * x[i] */
  double c[ZN_WINO_SIDE];
  zn_kref x[ZN_WINO_SIDE];
  int n;
} terms;

static void add_term(terms *t, double c, zn_kref x) {
  if (c == 0) return;
  t->c[t->n] = c;
  t->x[t->n++] = x;
}

static zn_kref sum_of(zn_lw *lw, const terms *t) {
  zn_kb *b = &lw->kb;
  int first = 0;
  while (first < t->n - 1 && t->c[first] != 1) first++;
  if (t->c[first] != 1) first = 0;
  zn_dtype type = zn_lw_kdtype(lw, t->x[first]);
  zn_kref y = t->x[first];
  if (t->c[first] != 1) y = zn_kb_bin(b, ZN_K_Mul, y, zn_kb_float(b, type, t->c[first]));
  for (int i = 0; i < t->n; i++) {
    if (i == first) continue;
    if (t->c[i] == 1 || t->c[i] == -1) {
      y = zn_kb_bin(b, t->c[i] == 1 ? ZN_K_Add : ZN_K_Sub, y, t->x[i]);
      continue;
    }
    zn_kref c = zn_kb_float(b, type, t->c[i]);
    y = zn_kb_fma(b, t->x[i], c, y);
  }
  return y;
}

/* Do columns k and k + 1 hold the same numbers but for signs, some with equal and some with opposite signs? */
static bool twin_columns(const double c[][ZN_WINO_SIDE], int rows, int k) {
  bool same = false, opposite = false;
  for (int i = 0; i < rows; i++) {
    if (fabs(c[i][k]) != fabs(c[i][k + 1])) return false;
    if (c[i][k] == 0) continue;
    same |= c[i][k] == c[i][k + 1];
    opposite |= c[i][k] != c[i][k + 1];
  }
  return same && opposite;
}

/* Rows as sums of the same operands, with equal (even) and opposite (odd) signs. */
static bool twin_rows(const terms *p, const terms *q, terms *even, terms *odd) {
  if (p->n != q->n) return false;
  for (int i = 0; i < p->n; i++) {
    if (p->x[i] != q->x[i] || fabs(p->c[i]) != fabs(q->c[i])) return false;
    add_term(p->c[i] == q->c[i] ? even : odd, p->c[i], p->x[i]);
  }
  return even->n && odd->n;
}

void zn_winograd_apply(zn_lw *lw, const double c[][ZN_WINO_SIDE], int rows, int cols, const zn_kref *x, zn_kref *out_y) {
  zn_kb *b = &lw->kb;
  terms t[ZN_WINO_SIDE] = {0};
  for (int k = 0; k < cols; k++) {
    bool twin = k + 1 < cols && twin_columns(c, rows, k);
    zn_kref sum = twin ? zn_kb_bin(b, ZN_K_Add, x[k], x[k + 1]) : x[k];
    zn_kref difference = twin ? zn_kb_bin(b, ZN_K_Sub, x[k], x[k + 1]) : x[k];
    for (int i = 0; i < rows; i++) add_term(&t[i], c[i][k], twin && c[i][k] != c[i][k + 1] ? difference : sum);
    k += twin;
  }
  for (int i = 0; i < rows; i++) {
    terms even = {0}, odd = {0};
    if (i + 1 == rows || !twin_rows(&t[i], &t[i + 1], &even, &odd)) {
      out_y[i] = sum_of(lw, &t[i]);
      continue;
    }
    zn_kref e = sum_of(lw, &even), o = sum_of(lw, &odd);
    out_y[i] = zn_kb_bin(b, ZN_K_Add, e, o);
    out_y[++i] = zn_kb_bin(b, ZN_K_Sub, e, o);
  }
}
