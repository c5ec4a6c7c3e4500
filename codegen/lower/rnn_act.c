/* Activation functions of recurrent operators: reading the attributes, and the functions in kernel IR. */
#include <string.h>
#include <strings.h>

#include "codegen/lower/rnn.h"

static const struct {
  const char *name;
  bool alpha, beta;
  double a, b;
} known[] = {
    {"Sigmoid", 0, 0, 0, 0},     {"Tanh", 0, 0, 0, 0},         {"Relu", 0, 0, 0, 0},
    {"Affine", 1, 1, 1, 0},      {"LeakyRelu", 1, 0, 0.01, 0}, {"ThresholdedRelu", 1, 0, 1, 0},
    {"ScaledTanh", 1, 1, 1, 1},  {"HardSigmoid", 1, 1, 0.2, 0.5}, {"Elu", 1, 0, 1, 0},
    {"Softsign", 0, 0, 0, 0},    {"Softplus", 0, 0, 0, 0},
};
enum { SIGMOID, TANH, RELU, AFFINE, LEAKY, THRESHOLDED, SCALEDTANH, HARDSIGMOID, ELU, SOFTSIGN, SOFTPLUS, NUM };

static int find(zn_str s) {
  for (int i = 0; i < NUM; i++)
    if (strlen(known[i].name) == s.len && !strncasecmp(known[i].name, s.ptr, s.len)) return i;
  return -1;
}

zn_status zn_rnn_read_acts(zn_lw *lw, const zn_node *n, int dirs, int per, zn_rnn_act out[2][3]) {
  const zn_attr *names = zn_node_attr(n, "activations");
  uint32_t na, nb, ia = 0, ib = 0;
  const double *al = zn_node_floats(n, "activation_alpha", &na);
  const double *be = zn_node_floats(n, "activation_beta", &nb);
  for (int d = 0; d < dirs; d++) {
    for (int k = 0; k < per; k++) {
      int f = k == 0 && per > 1 ? SIGMOID : TANH;
      if (names && names->n > (uint32_t)(d * per + k)) f = find(names->u.ss[d * per + k]);
      if (f < 0)
        return zn_error(lw->ctx, zn_node_where(lw->ctx, n), "unknown activation '%.*s'",
                        (int)names->u.ss[d * per + k].len, names->u.ss[d * per + k].ptr);
      out[d][k] = (zn_rnn_act){f, known[f].a, known[f].b};
      if (known[f].alpha && ia < na) out[d][k].alpha = al[ia++];
      if (known[f].beta && ib < nb) out[d][k].beta = be[ib++];
    }
  }
  return ZN_OK;
}

zn_kref zn_rnn_activate(zn_lw *lw, const zn_rnn_act *f, double clip, zn_kref x) {
  zn_kb *b = &lw->kb;
  zn_dtype t = zn_lw_kdtype(lw, x);
  if (clip > 0) {
    zn_kref top = zn_kb_float(b, t, clip), low = zn_kb_float(b, t, -clip);
    x = zn_kb_bin(b, ZN_K_Min, top, x);
    x = zn_kb_bin(b, ZN_K_Max, low, x);
  }
  zn_kref zero = zn_kb_float(b, t, 0), one = zn_kb_float(b, t, 1);
  zn_kref al = zn_kb_float(b, t, f->alpha), be = zn_kb_float(b, t, f->beta), y;
  switch (f->fn) {
  case SIGMOID: return zn_kb_un(b, ZN_K_Sigmoid, x);
  case TANH: return zn_kb_un(b, ZN_K_Tanh, x);
  case RELU: return zn_kb_bin(b, ZN_K_Max, x, zero);
  case AFFINE:
    y = zn_kb_bin(b, ZN_K_Mul, al, x);
    return zn_kb_bin(b, ZN_K_Add, y, be);
  case LEAKY:
  case ELU:
    y = f->fn == ELU ? zn_kb_un(b, ZN_K_Expm1, x) : x;
    y = zn_kb_bin(b, ZN_K_Mul, al, y);
    return zn_kb_select(b, zn_kb_cmp(b, ZN_K_Ge, x, zero), x, y);
  case THRESHOLDED: return zn_kb_select(b, zn_kb_cmp(b, ZN_K_Ge, x, al), x, zero);
  case SCALEDTANH:
    y = zn_kb_un(b, ZN_K_Tanh, zn_kb_bin(b, ZN_K_Mul, be, x));
    return zn_kb_bin(b, ZN_K_Mul, al, y);
  case HARDSIGMOID:
    y = zn_kb_bin(b, ZN_K_Mul, al, x);
    y = zn_kb_bin(b, ZN_K_Add, y, be);
    y = zn_kb_bin(b, ZN_K_Max, zero, y);
    return zn_kb_bin(b, ZN_K_Min, one, y);
  case SOFTSIGN:
    y = zn_kb_bin(b, ZN_K_Add, one, zn_kb_un(b, ZN_K_Abs, x));
    return zn_kb_bin(b, ZN_K_Div, x, y);
  default: /* Softplus */
    y = zn_kb_un(b, ZN_K_Neg, zn_kb_un(b, ZN_K_Abs, x));
    y = zn_kb_un(b, ZN_K_Log1p, zn_kb_un(b, ZN_K_Exp, y));
    return zn_kb_bin(b, ZN_K_Add, y, zn_kb_bin(b, ZN_K_Max, x, zero));
  }
}
