/* Copies between the plain and the blocked form of an image: squares of lanes x lanes elements (that many pixels of a
 * row, the channels of one block) are loaded as vectors along one axis, transposed in registers, and stored along the
 * other. The last square of a row starts earlier where the row is no multiple: it writes the same values again, in the
 * same grid iteration. */
#include "codegen/lower/lower.h"

enum { MAX_LANES = ZN_LW_MAX_SQUARE };

/* Exchanges the off-diagonal halves of blocks of size 2, 4, ... (each is one shuffle of two vectors per vector). */
void zn_lw_transpose_square(zn_lw *lw, zn_kref *v, unsigned n) {
  for (unsigned d = 1; d < n; d *= 2)
    for (unsigned i = 0; i < n; i++) {
      if (i & d) continue;
      uint32_t low[MAX_LANES], high[MAX_LANES];
      for (unsigned j = 0; j < n; j++) {
        low[j] = j & d ? n + j - d : j;
        high[j] = j & d ? n + j : j + d;
      }
      zn_kref a = v[i], b = v[i + d];
      v[i] = zn_kb_shuffle(&lw->kb, a, b, n, low);
      v[i + d] = zn_kb_shuffle(&lw->kb, a, b, n, high);
    }
}

/* Offset of channel `c` (a whole block of them when blocked) at pixel idx, plus k steps of the axis that the form keeps
 * apart: channels when plain, pixels when blocked. */
static zn_kref vector_at(zn_lw *lw, zn_vid v, const zn_expr *idx, unsigned k) {
  int axis = lw->g->vals[v].layout.block ? zn_lw_type(lw, v)->rank - 1 : 1;
  zn_expr at[ZN_MAX_RANK];
  for (int d = 0; d < zn_lw_type(lw, v)->rank; d++) at[d] = idx[d];
  at[axis] = zn_ex_addi(lw->ex, at[axis], k);
  return zn_lw_ix(lw, zn_lw_offset(lw, v, at));
}

bool zn_lower_reorder(zn_lw *lw, zn_nid n) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_vid in = zn_lw_node(lw, n)->in[0], out = zn_lw_node(lw, n)->out[0];
  const zn_type t = *zn_lw_type(lw, out);
  const zn_layout *li = &lw->g->vals[in].layout, *lo = &lw->g->vals[out].layout;
  unsigned lanes = li->block ? li->block : lo->block;
  int64_t width, c;
  int last = t.rank - 1;
  if (!li->block == !lo->block || !zn_lw_is_stored(lw, in) || t.dtype != ZN_F32 || lanes > MAX_LANES) return false;
  if (lanes > zn_lw_lanes(lw, ZN_F32) || (li->block ? li->axis : lo->axis) != 1 || last < 2) return false;
  if (!zn_ex_is_const(ex, t.dims[last], &width) || width < lanes || !zn_ex_is_const(ex, t.dims[1], &c)) return false;
  zn_lw_kernel(lw, n, "reorder");
  zn_expr ext[ZN_MAX_RANK], var[ZN_MAX_RANK], idx[ZN_MAX_RANK];
  for (int d = 0; d < last; d++) ext[d] = d == 1 ? zn_ex_const(ex, c / lanes) : t.dims[d];
  zn_lw_grid(lw, (uint32_t)last, ext, var);
  for (int d = 0; d < last; d++) idx[d] = d == 1 ? zn_ex_muli(ex, var[1], lanes) : var[d];
  zn_expr w = zn_ex_muli(ex, zn_lw_for(lw, zn_ex_const(ex, (width + lanes - 1) / lanes), ZN_FOR_SERIAL, 0), lanes);
  if (width % lanes) {
    zn_expr most = zn_ex_const(ex, width - lanes);
    w = zn_lw_as_expr(lw, zn_lw_ix(lw, zn_ex_min(ex, w, most)), zn_ex_addi(ex, most, 1));
  }
  idx[last] = w;
  zn_kref v[MAX_LANES];
  for (unsigned k = 0; k < lanes; k++) {
    zn_kref at = vector_at(lw, in, idx, k);
    v[k] = zn_kb_load(b, ZN_F32, lanes, zn_lw_ptr(lw, in, ZN_KP_IN), at);
  }
  zn_lw_transpose_square(lw, v, lanes);
  for (unsigned k = 0; k < lanes; k++) {
    zn_kref at = vector_at(lw, out, idx, k);
    zn_kb_store(b, zn_lw_ptr(lw, out, ZN_KP_OUT), at, v[k]);
  }
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return true;
}
