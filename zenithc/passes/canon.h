/* Shared by the files of the canon pass: rules return whether they changed the graph; an error goes
 * to st. */
#ifndef ZN_CANON_H
#define ZN_CANON_H
#include "zenithc/ops/expand_util.h"
#include "zenithc/passes/pass.h"

typedef struct zn_canon {
  zn_ctx *c;
  zn_graph *g;
  zn_pass_opts *o;
  zn_status st;
} zn_canon;

/* Output 0 of n becomes v, n dies; false when a graph output needs the node. */
bool zn_canon_forward(zn_canon *k, zn_nid n, zn_vid v);
/* Explicit kernel_shape, strides, dilations and pads of convolutions and pools; zero Pads move into
 * Conv. */
bool zn_canon_window(zn_canon *k, zn_nid n);
/* An If whose condition is known becomes its branch; constants captured by bodies move into them.
 */
bool zn_canon_control(zn_canon *k, zn_nid n);
#endif
