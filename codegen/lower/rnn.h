/* Recurrent operators: activation functions (rnn_act.c), used by rnn.c. */
#ifndef ZN_LOWER_RNN_H
#define ZN_LOWER_RNN_H
#include "codegen/lower/lower.h"

typedef struct zn_rnn_act {
  int fn;
  double alpha, beta;
} zn_rnn_act;

/* Activations of `dirs` directions, `per` each, with their parameters. Unknown names are errors. */
zn_status zn_rnn_read_acts(zn_lw *lw, const zn_node *n, int dirs, int per, zn_rnn_act out[2][3]);
/* f(x), x clipped to [-clip, clip] first when clip > 0. */
zn_kref zn_rnn_activate(zn_lw *lw, const zn_rnn_act *f, double clip, zn_kref x);
#endif
