/* Operators that the evaluator does not know yet: each reports itself when it is reached. */
#include "zenithc/eval/eval_impl.h"

#define TODO(name) \
  zn_status zn_eval_##name(zn_ev *e) { return zn_ev_todo(e); }

TODO(imagedecoder)
