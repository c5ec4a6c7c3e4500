/* Expansions that ops.def names and that do not exist yet: they leave the node alone. */
#include "zenithc/ops/op.h"

#define TODO(name)                                                                                 \
  zn_status zn_expand_##name(zn_ctx *c, zn_graph *g, zn_nid n);                                    \
  zn_status zn_expand_##name(zn_ctx *c, zn_graph *g, zn_nid n) {                                   \
    (void)c, (void)g, (void)n;                                                                     \
    return ZN_OK;                                                                                  \
  }
