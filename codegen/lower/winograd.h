/* Winograd's minimal filtering F(m, 3): m outputs of a row of three taps from m + 2 inputs with m + 2 multiplications,
 *     y = at * ((g * w) . (bt * x)),   and nested, m x m outputs: Y = at * ((g W gt) . (bt X b)) * a.
 * Toom-Cook's construction over m + 1 points and infinity (Lavin and Gray 2015, section 4; the points' effect on rounding:
 * Barabasz, Anderson, Soodhalter and Gregg 2020). */
#ifndef ZN_WINOGRAD_H
#define ZN_WINOGRAD_H
#include "codegen/lower/lower.h"

enum { ZN_WINO_MIN = 2, ZN_WINO_MAX = 4, ZN_WINO_TAPS = 3, ZN_WINO_SIDE = ZN_WINO_MAX + ZN_WINO_TAPS - 1 };

typedef struct zn_winograd {
  int m, side;                              /* outputs and inputs of a row: side = m + 2 */
  double at[ZN_WINO_MAX][ZN_WINO_SIDE];     /* [m][side] */
  double g[ZN_WINO_SIDE][ZN_WINO_TAPS];     /* [side][3] */
  double bt[ZN_WINO_SIDE][ZN_WINO_SIDE];    /* [side][side] */
} zn_winograd;

/* ZN_WINO_MIN <= m <= ZN_WINO_MAX. at and bt are exact in f32. */
zn_winograd zn_winograd_of(int m);
/* u[side][side] = g W gt of one filter w[3 * 3]. */
void zn_winograd_filter(const zn_winograd *f, const double *w, double out_u[ZN_WINO_SIDE][ZN_WINO_SIDE]);
/* Kernel code for y[i] = sum of c[i][k] * x[k]; rows of c are ZN_WINO_SIDE apart. What two rows or two columns have in
 * common but for signs is computed once. */
void zn_winograd_apply(zn_lw *lw, const double c[][ZN_WINO_SIDE], int rows, int cols, const zn_kref *x, zn_kref *out_y);
#endif
