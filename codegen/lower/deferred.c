/* See deferred.h. */
#include "codegen/lower/deferred.h"

#include "codegen/lower/gemm_simt.h"

static bool last_axis(const zn_lw *lw, const zn_node *n) {
  int64_t axis = zn_node_int(n, "axis");
  return axis == -1 || axis == zn_lw_type(lw, n->in[0])->rank - 1;
}

zn_vid zn_deferred_reader(const zn_lw *lw, const zn_gemm *g) {
  const zn_graph *gr = lw->g;
  if (!g->rows_of || g->rows_inner || g->t != ZN_F32 || lw->opts->opt_level == 0) return 0;
  zn_vid v = g->rows_of;
  int64_t columns;
  for (uint32_t i = 0; i < gr->num_order; i++) { /* the end of the group */
    const zn_node *n = &gr->nodes[gr->order[i]];
    if (n->group == g->node && gr->order[i] != g->node && !gr->vals[n->out[0]].inlined) {
      if (n->op == ZN_OP_Transpose) return 0;
      v = n->out[0];
    }
  }
  if (!zn_ex_is_const(lw->ex, g->n, &columns) || gr->vals[v].inlined) return 0;
  for (uint32_t i = 0; i < gr->num_order; i++) {
    const zn_node *n = &gr->nodes[gr->order[i]];
    bool norm = n->op == ZN_OP_LayerNormalization || n->op == ZN_OP_RMSNormalization;
    if (norm && n->in[0] == v && last_axis(lw, n)) return v;
  }
  return 0;
}

void zn_defer(zn_lw *lw, const zn_gemm *g, zn_loc partial, unsigned parts, zn_vid result) {
  lw->deferred = ZN_NEW(lw->arena, zn_deferred);
  *lw->deferred = (zn_deferred){*g, partial, parts, result};
}

zn_kref zn_deferred_element(zn_lw *lw, const zn_deferred *d, const zn_expr *at) {
  zn_nid node = lw->node, *epilogue = lw->epilogue;
  uint32_t num = lw->num_epilogue, nb = d->g.num_batch;
  lw->node = d->g.node;
  zn_lw_find_epilogue(lw);
  zn_gs_add_parts(lw, &d->g, d->partial, d->parts, at, at[nb], at[nb + 1]);
  lw->node = node;
  lw->epilogue = epilogue;
  lw->num_epilogue = num;
  return lw->emitted;
}

void zn_deferred_flush(zn_lw *lw) {
  zn_deferred *d = lw->deferred;
  lw->deferred = NULL;
  if (d) zn_gs_sum_kernel(lw, &d->g, d->partial, d->parts);
}
