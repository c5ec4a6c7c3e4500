/* Lists of axes as factors of 0 or 1. */
#include "zenithc/ops/axes.h"

zn_expr zn_axes_equal(zn_exprs *ex, zn_expr a, zn_expr b) {
  const zn_expr off = zn_ex_sub(ex, a, b), one = zn_ex_const(ex, 1);
  const zn_expr dist = zn_ex_max(ex, off, zn_ex_muli(ex, off, -1));
  return zn_ex_sub(ex, one, zn_ex_min(ex, dist, one));
}

zn_expr zn_axes_is(zn_exprs *ex, zn_expr a, int d, int rank) {
  return zn_axes_equal(ex, zn_ex_modi(ex, a, rank), zn_ex_const(ex, d));
}

static zn_expr entry_of(const zn_graph *g, zn_vid v, uint32_t k) {
  const zn_value *val = &g->vals[v];
  if (val->cst) return zn_ex_const(g->ex, zn_load_i64(val->cst->dtype, val->cst->data, k));
  return val->elems && k < val->num_elems ? val->elems[k] : ZN_EX_NONE;
}

static bool count_of(const zn_graph *g, zn_vid v, uint32_t *out) {
  const zn_type *t = &g->vals[v].type;
  int64_t n = 1;
  if (t->rank < 0 || t->rank > 1 || (t->rank == 1 && !zn_ex_is_const(g->ex, t->dims[0], &n))) return false;
  *out = (uint32_t)n;
  return n <= ZN_MAX_RANK;
}

bool zn_axes_resolve(const zn_graph *g, zn_vid axes, int rank, zn_axes *out) {
  zn_exprs *ex = g->ex;
  *out = (zn_axes){.known = true};
  if (axes && !count_of(g, axes, &out->count)) return false;
  if ((int)out->count > rank) return false;
  for (uint32_t k = 0; k < out->count; k++) {
    out->entry[k] = entry_of(g, axes, k);
    if (!out->entry[k]) return false;
    out->known &= zn_ex_is_const(ex, out->entry[k], NULL);
  }
  zn_expr before = zn_ex_const(ex, 0), one = zn_ex_const(ex, 1);
  for (int d = 0; d < rank; d++) {
    zn_expr hits = zn_ex_const(ex, 0);
    for (uint32_t k = 0; k < out->count; k++) hits = zn_ex_add(ex, hits, zn_axes_is(ex, out->entry[k], d, rank));
    out->mask[d] = zn_ex_named(ex, zn_ex_min(ex, hits, one), 0);
    out->before[d] = before;
    before = zn_ex_add(ex, before, zn_ex_sub(ex, one, out->mask[d]));
  }
  return true;
}

void zn_axes_drop(zn_exprs *ex, const zn_axes *a, int rank, const zn_expr *dims, zn_expr *out) {
  const zn_expr one = zn_ex_const(ex, 1);
  for (int j = 0; j < rank - (int)a->count; j++) {
    zn_expr sum = zn_ex_const(ex, 0);
    for (int d = j; d < rank; d++) {
      const zn_expr kept = zn_ex_sub(ex, one, a->mask[d]);
      const zn_expr here = zn_ex_mul(ex, kept, zn_axes_equal(ex, a->before[d], zn_ex_const(ex, j)));
      sum = zn_ex_add(ex, sum, zn_ex_mul(ex, here, dims[d]));
    }
    out[j] = zn_ex_named(ex, sum, 0);
  }
}

void zn_axes_insert(zn_exprs *ex, const zn_axes *a, int rank, const zn_expr *in, zn_expr *out) {
  const zn_expr one = zn_ex_const(ex, 1);
  for (int d = 0; d < rank; d++) {
    zn_expr sum = zn_ex_const(ex, 0);
    for (int j = 0; j < rank - (int)a->count && j <= d; j++)
      sum = zn_ex_add(ex, sum, zn_ex_mul(ex, in[j], zn_axes_equal(ex, a->before[d], zn_ex_const(ex, j))));
    const zn_expr kept = zn_ex_sub(ex, one, a->mask[d]);
    out[d] = zn_ex_named(ex, zn_ex_add(ex, a->mask[d], zn_ex_mul(ex, kept, sum)), 0);
  }
}
