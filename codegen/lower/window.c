/* Resolves kernel_shape, strides, dilations, pads and auto_pad (ONNX Conv-22, MaxPool-22). */
#include "codegen/lower/window.h"

#include <string.h>

zn_status zn_window_read(zn_lw *lw, zn_nid n, zn_vid x, zn_vid w, zn_vid y, zn_window *out) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  const zn_type *tx = zn_lw_type(lw, x), *ty = zn_lw_type(lw, y);
  uint32_t nk, ns, nd = 0, np;
  const int64_t *k = zn_node_ints(node, "kernel_shape", &nk), *s = zn_node_ints(node, "strides", &ns);
  const int64_t *p = zn_node_ints(node, "pads", &np), *d = NULL;
  if (zn_schema_find_attr(zn_op_schema(node->op), "dilations")) d = zn_node_ints(node, "dilations", &nd);
  const char *mode = NULL;
  if (zn_schema_find_attr(zn_op_schema(node->op), "auto_pad")) mode = zn_node_str(node, "auto_pad");
  memset(out, 0, sizeof *out);
  out->rank = tx->rank - 2;
  for (int i = 0; i < out->rank; i++) {
    if (nk)
      out->kernel[i] = k[i];
    else if (!w || !zn_ex_is_const(ex, zn_lw_dim(lw, w, i + 2), &out->kernel[i]))
      return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, node),
                     "the kernel's size is not known at compile time");
    out->stride[i] = ns ? s[i] : 1;
    out->dilation[i] = nd ? d[i] : 1;
    out->pad_lo[i] = zn_ex_const(ex, np ? p[i] : 0);
    out->pad_hi[i] = zn_ex_const(ex, np ? p[i + out->rank] : 0);
    if (!mode || !strcmp(mode, "NOTSET") || !strcmp(mode, "VALID")) {
      if (mode && mode[0] == 'V') out->pad_lo[i] = out->pad_hi[i] = zn_ex_const(ex, 0);
      continue;
    }
    /* SAME: total padding from the output size, the odd one behind (UPPER) or before (LOWER) */
    int64_t span = (out->kernel[i] - 1) * out->dilation[i] + 1;
    zn_expr need = zn_ex_muli(ex, zn_ex_addi(ex, ty->dims[i + 2], -1), out->stride[i]);
    need = zn_ex_sub(ex, zn_ex_addi(ex, need, span), tx->dims[i + 2]);
    need = zn_ex_max(ex, need, zn_ex_const(ex, 0));
    zn_expr half = zn_ex_divi(ex, need, 2), other = zn_ex_sub(ex, need, half);
    bool upper = !strcmp(mode, "SAME_UPPER");
    out->pad_lo[i] = upper ? half : other;
    out->pad_hi[i] = upper ? other : half;
  }
  return ZN_OK;
}
