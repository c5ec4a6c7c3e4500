/* Operators that are linear in their numbers (interpolation, sums of columns), of complex ones: the operator of the real
 * parts and the operator of the imaginary ones. */
#include <string.h>

#include "zenithc/ops/expand_util.h"

static bool is_complex(zn_dtype t) { return t == ZN_C64 || t == ZN_C128; }

/* Elements are only moved: complex ones as any others. */
static bool only_moves(const zn_node *n) {
  if (n->op == ZN_OP_Col2Im) return false;
  if (n->op == ZN_OP_Resize && !strcmp(zn_node_str(n, "coordinate_transformation_mode"), "tf_crop_and_resize")) return false;
  return !strcmp(zn_node_str(n, "mode"), "nearest");
}

/* The node, of one part of each of its complex inputs. */
static zn_vid of_parts(zn_rw *w, bool imaginary) {
  const zn_node was = *zn_rw_node(w);
  zn_vid *in = ZN_ARRAY(w->g->arena, zn_vid, was.num_in + 1);
  for (uint32_t i = 0; i < was.num_in; i++) {
    in[i] = was.in[i];
    if (in[i] && is_complex((zn_dtype)zn_rw_type(w, in[i])->dtype))
      in[i] = zn_rw_attr_int(w, ZN_OP_ComplexPart, &in[i], 1, "imaginary", imaginary);
  }
  const zn_nid id = zn_rw_raw(w, was.op, in, was.num_in, 1);
  if (!id) return 0;
  for (uint32_t a = 0; a < was.num_attrs; a++) zn_node_set_attr(w->g, id, was.attrs[a]);
  if (was.op == ZN_OP_Resize && imaginary) zn_node_set_float(w->g, id, "extrapolation_value", 0); /* it is a real number */
  return zn_rw_infer(w, id);
}

ZN_EXPAND(complexparts) {
  const zn_node *n = zn_rw_node(w);
  if (!is_complex((zn_dtype)zn_rw_type(w, n->in[0])->dtype) || only_moves(n)) return ZN_OK;
  const zn_vid re = of_parts(w, false), im = of_parts(w, true);
  zn_rw_output(w, 0, zn_rw2(w, ZN_OP_ComplexOf, re, im));
  return zn_rw_done(w);
}
