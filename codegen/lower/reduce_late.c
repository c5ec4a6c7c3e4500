/* Reductions whose axes only the run knows. Every axis has two loops, one over its extent in the output and one over what is
 * reduced of it; the list's factors of 0 and 1 make one of the two a single step. */
#include "codegen/lower/reduce.h"
#include "zenithc/ops/axes.h"

typedef struct late {
  zn_vid x, y;
  zn_type tx, ty;
  zn_axes axes;
  zn_red op;
  zn_dtype t; /* accumulator: double for floats, because the order of the terms is the plainest one */
} late;

/* Where output position idx starts in x: along kept axes its own index, along reduced ones 0. */
static void start_of(zn_lw *lw, const late *r, const zn_expr *idx, zn_expr *at) {
  zn_exprs *ex = lw->ex;
  bool keep = r->ty.rank == r->tx.rank;
  for (int d = 0; d < r->tx.rank; d++) {
    if (keep) {
      at[d] = idx[d]; /* 0 where the extent is 1 */
      continue;
    }
    zn_expr sum = zn_ex_const(ex, 0), kept = zn_ex_sub(ex, zn_ex_const(ex, 1), r->axes.mask[d]);
    for (int j = 0; j < r->ty.rank && j <= d; j++) {
      zn_expr here = zn_ex_mul(ex, kept, zn_axes_equal(ex, r->axes.before[d], zn_ex_const(ex, j)));
      sum = zn_ex_add(ex, sum, zn_ex_mul(ex, zn_ex_named(ex, here, 0), idx[j]));
    }
    at[d] = sum;
  }
}

static zn_expr reduced_extent(zn_lw *lw, const late *r, int d) {
  zn_exprs *ex = lw->ex;
  zn_expr more = zn_ex_mul(ex, r->axes.mask[d], zn_ex_addi(ex, r->tx.dims[d], -1));
  return zn_ex_named(ex, zn_ex_addi(ex, more, 1), 0);
}

zn_status zn_lower_reduce_late(zn_lw *lw, zn_nid n) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  const zn_node *node = zn_lw_node(lw, n);
  late r = {.x = node->in[0], .y = node->out[0], .tx = *zn_lw_type(lw, node->in[0]),
            .ty = *zn_lw_type(lw, node->out[0]), .op = zn_red_of(node->op)};
  zn_dtype ct = zn_lw_ctype((zn_dtype)r.tx.dtype);
  r.t = zn_is_float(ct) && r.op < ZN_RED_MAX ? ZN_F64 : ct;
  if (!zn_axes_resolve(lw->g, node->in[1], r.tx.rank, &r.axes))
    return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, node),
                   "the number of axes is only known at run time; give their shape with --shape");
  bool mean = node->op == ZN_OP_ReduceMean;
  zn_expr idx[ZN_MAX_RANK], at[ZN_MAX_RANK], start[ZN_MAX_RANK], count = zn_ex_const(ex, 1);
  zn_lw_kernel(lw, n, "reduce_late");
  zn_lw_grid(lw, (uint32_t)r.ty.rank, r.ty.dims, idx);
  start_of(lw, &r, idx, start);
  zn_kref acc = zn_kb_var(b, zn_red_init(lw, r.op, r.t));
  for (int d = 0; d < r.tx.rank; d++) {
    zn_expr extent = reduced_extent(lw, &r, d);
    count = zn_ex_mul(ex, count, extent);
    at[d] = zn_ex_add(ex, start[d], zn_lw_for(lw, extent, ZN_FOR_SERIAL, 0));
  }
  zn_kref x = zn_lw_load(lw, r.x, at), old = zn_kb_get(b, acc);
  if (zn_lw_kdtype(lw, x) != r.t) x = zn_kb_cvt(b, x, r.t);
  zn_kb_set(b, acc, zn_red_step(lw, r.op, old, x));
  for (int d = 0; d < r.tx.rank; d++) zn_lw_end(lw);
  zn_kref y = zn_kb_get(b, acc);
  if (mean) y = zn_kb_bin(b, ZN_K_Div, y, zn_kb_cvt(b, zn_lw_ix(lw, count), r.t));
  zn_lw_emit(lw, r.y, idx, y);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
