/* Rows of passes.def whose file does not exist yet: they change nothing. A line goes when its file
 * arrives. */
#include "zenithc/passes/pass.h"

#define TODO(name)                                                                                 \
  zn_status zn_pass_##name(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {                              \
    (void)c, (void)g, (void)o;                                                                     \
    return ZN_OK;                                                                                  \
  }
TODO(layout)
