/* Derivatives of interpolation and of matrices: determinant and inverse. An interpolating Resize is linear in its image and goes
 * along one axis after the other, so along each its matrix is what it makes of the unit matrix. */
#include <string.h>

#include "zenithc/ops/grad.h"

static zn_dtype type_of(const zn_grad *a, zn_vid v) { return (zn_dtype)zn_grad_type(a, v)->dtype; }

/* ---------------------------------------------------------------- Resize */

/* Entry i of operand k of the node, a list; 0 when it is absent or empty. */
static zn_vid entry_of(zn_grad *a, uint32_t k, int64_t i) {
  const zn_vid v = zn_grad_in(a, k);
  const zn_type *t = v ? zn_grad_type(a, v) : NULL;
  if (!t || (t->rank == 1 && zn_ex_is(a->w.g->ex, t->dims[0], 0))) return 0;
  return zn_rw_slice(&a->w, v, 0, i, i + 1);
}

/* The unit matrix of as many rows as x has along axis d. */
static zn_vid unit_matrix(zn_grad *a, zn_vid x, int d) {
  zn_rw *w = &a->w;
  const zn_vid n = zn_rw_extent1(w, x, d), side[2] = {n, n};
  const zn_vid zero = zn_rw_num(w, type_of(a, x), 0);
  return zn_rw1(w, ZN_OP_EyeLike, zn_rw2(w, ZN_OP_Expand, zero, zn_rw_attr_int(w, ZN_OP_Concat, side, 2, "axis", 0)));
}

/* What entry i of the node's axes, axis d, does: [size there, size here]. */
static zn_vid matrix_along(zn_grad *a, int d, int64_t i, int64_t num_axes) {
  zn_rw *w = &a->w;
  zn_graph *g = w->g;
  const zn_vid x = zn_grad_in(a, 0), scale = entry_of(a, 2, i), size = entry_of(a, 3, i);
  const zn_vid from = entry_of(a, 1, i), to = entry_of(a, 1, num_axes + i), both[2] = {from, to};
  const zn_vid roi = from ? zn_rw_attr_int(w, ZN_OP_Concat, both, 2, "axis", 0) : 0;
  const zn_vid in[4] = {unit_matrix(a, x, d), roi, scale, scale ? 0 : size};
  const zn_nid n = zn_rw_raw(w, ZN_OP_Resize, in, scale ? 3 : 4, 1);
  if (!n) return 0;
  const zn_node m = *zn_grad_node(a);
  for (uint32_t k = 0; k < m.num_attrs; k++) zn_node_set_attr(g, n, m.attrs[k]);
  const int64_t rows = 0;
  zn_node_set_ints(g, n, "axes", &rows, 1);
  zn_node_set_float(g, n, "extrapolation_value", 0); /* a constant has no derivative */
  return zn_rw_infer(w, n);
}

/* v along axis d times the matrix. */
static zn_vid times_along(zn_grad *a, zn_vid v, int d, zn_vid matrix) {
  zn_rw *w = &a->w;
  const int rank = zn_grad_type(a, v)->rank, last = rank - 1;
  int64_t perm[ZN_MAX_RANK];
  for (int k = 0; k < rank; k++) perm[k] = k == d ? last : k == last ? d : k; /* its own inverse */
  if (d == last) return zn_rw2(w, ZN_OP_MatMul, v, matrix);
  const zn_vid turned = zn_rw_transpose(w, v, perm, (uint32_t)rank);
  return zn_rw_transpose(w, zn_rw2(w, ZN_OP_MatMul, turned, matrix), perm, (uint32_t)rank);
}

void zn_grad_resize(zn_grad *a) {
  const zn_node *m = zn_grad_node(a);
  const int rank = zn_grad_type(a, zn_grad_in(a, 0))->rank;
  uint32_t n;
  if (!strcmp(zn_node_str(m, "mode"), "nearest")) {
    zn_grad_moved(a);
    return;
  }
  for (uint32_t i = 1; i < m->num_in; i++)
    if (zn_grad_wants(a, i)) {
      zn_grad_refuse(a, "Resize has no derivative in its input %u here", i + 1);
      return;
    }
  if (strcmp(zn_node_str(m, "keep_aspect_ratio_policy"), "stretch") != 0) {
    zn_grad_refuse(a, "Resize that keeps the aspect ratio has a derivative in mode nearest only");
    return;
  }
  const int64_t *axes = zn_node_ints(m, "axes", &n);
  if (!axes) n = (uint32_t)rank;
  zn_vid v = zn_grad_of(a, 0);
  for (uint32_t i = 0; i < n; i++) {
    const int d = axes ? (int)(axes[i] < 0 ? axes[i] + rank : axes[i]) : (int)i;
    v = times_along(a, v, d, matrix_along(a, d, i, n));
  }
  zn_grad_give(a, 0, v);
}

/* ---------------------------------------------------------------- Det, Inverse */

static zn_vid swapped(zn_grad *a, zn_vid v) {
  int64_t perm[ZN_MAX_RANK];
  const int rank = zn_grad_type(a, v)->rank;
  for (int d = 0; d < rank; d++) perm[d] = d < rank - 2 ? d : 2 * rank - 3 - d;
  return zn_rw_transpose(&a->w, v, perm, (uint32_t)rank);
}

/* det(X) times the transposed inverse; a singular matrix has no finite result here. */
void zn_grad_det(zn_grad *a) {
  zn_rw *w = &a->w;
  const int64_t ends[2] = {-2, -1};
  const zn_vid x = zn_grad_in(a, 0), by = zn_rw2(w, ZN_OP_Mul, zn_grad_of(a, 0), zn_grad_out(a, 0));
  const zn_dtype t = type_of(a, x);
  const zn_vid inverse = zn_rw1(w, ZN_OP_Inverse, zn_rw_cast(w, x, t == ZN_BF16 ? ZN_F32 : t));
  const zn_vid turned = zn_rw_cast(w, swapped(a, inverse), t);
  zn_grad_give(a, 0, zn_rw2(w, ZN_OP_Mul, zn_rw_unsqueeze(w, by, ends, 2), turned));
}

/* Y = X^-1: dX = -Y^T dY Y^T */
void zn_grad_inverse(zn_grad *a) {
  zn_rw *w = &a->w;
  const zn_vid y = swapped(a, zn_grad_out(a, 0)), left = zn_rw2(w, ZN_OP_MatMul, y, zn_grad_of(a, 0));
  zn_grad_give(a, 0, zn_rw1(w, ZN_OP_Neg, zn_rw2(w, ZN_OP_MatMul, left, y)));
}
