/* Rewrites composite operators into simpler ones until none applies. BatchNormalization whose scale
 * and shift can move into the weights before it is left for foldbn, which rounds once. */
#include "zenithc/passes/pass.h"

enum { MAX_ROUNDS = 16 };

zn_status zn_pass_expand(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  for (int round = 0; round < MAX_ROUNDS; round++) {
    bool changed = false;
    for (uint32_t i = 0; i < g->num_order; i++) {
      const zn_nid n = g->order[i];
      const zn_op op = g->nodes[n].op;
      if (g->nodes[n].dead || !zn_ops[op].expand) continue;
      if (op == ZN_OP_BatchNormalization && o->opt_level >= 1 && zn_foldbn_applies(c, g, n))
        continue;
      const uint32_t before = g->num_order;
      ZN_TRY(zn_ops[op].expand(c, g, n));
      i +=
          g->num_order - before; /* the new nodes stand before this one: the next round sees them */
      if (!g->nodes[n].dead) continue;
      o->rewrites++;
      changed = true;
    }
    zn_graph_compact(g);
    if (!changed) break;
  }
  return zn_pass_bodies(c, g, o, zn_pass_expand);
}
