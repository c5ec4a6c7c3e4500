/* The evaluator's function table, one entry per row of ops.def. */
#include "zenithc/eval/eval_impl.h"

const zn_eval_fn zn_eval_table[ZN_OP_COUNT] = {
#define OP(name, domain, since, schema, infer, eval, expand, lower, flags)                         \
  [ZN_OP_##name] = zn_eval_##eval,
#include "zenithc/ops/ops.def"
#undef OP
};
