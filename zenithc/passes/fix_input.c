/* Inputs whose content decides shapes, turned into constants: what an exporter would have written as an initializer. */
#include <inttypes.h>

#include "zenithc/passes/pass.h"

/* Operand i of op gives ranks, axes or extents. */
static bool shapes(zn_op op, uint32_t i) {
  switch ((unsigned)op) {
    case ZN_OP_Reshape:
    case ZN_OP_Expand:
    case ZN_OP_Tile:
    case ZN_OP_Squeeze:
    case ZN_OP_Unsqueeze:
    case ZN_OP_TopK:
    case ZN_OP_OneHot:
    case ZN_OP_Split:
    case ZN_OP_SplitToSequence:
    case ZN_OP_CenterCropPad:
    case ZN_OP_AffineGrid:
    case ZN_OP_CumSum:
    case ZN_OP_CumProd: return i == 1;
    case ZN_OP_Slice: return i >= 1;
    case ZN_OP_Pad: return i == 1 || i == 3;
    case ZN_OP_Resize: return i >= 1;
    case ZN_OP_DFT: return i >= 1;
    case ZN_OP_STFT: return i == 1 || i == 3;
    case ZN_OP_Col2Im: return i >= 1;
    case ZN_OP_MaxUnpool: return i == 2;
    case ZN_OP_Range:
    case ZN_OP_ConstantOfShape:
    case ZN_OP_BlackmanWindow:
    case ZN_OP_HannWindow:
    case ZN_OP_HammingWindow:
    case ZN_OP_MelWeightMatrix: return true;
    default: return i == 1 && zn_ops[op].infer == zn_ops[ZN_OP_ReduceSum].infer;
  }
}

/* Shape arithmetic that hands contents on. */
static bool hands_on(zn_op op) {
  if (zn_ops[op].flags & ZN_OPF_EW) return true;
  switch ((unsigned)op) {
    case ZN_OP_Identity:
    case ZN_OP_Cast:
    case ZN_OP_CastLike:
    case ZN_OP_Concat:
    case ZN_OP_Split:
    case ZN_OP_If:
    case ZN_OP_Gather:
    case ZN_OP_Slice:
    case ZN_OP_Reshape:
    case ZN_OP_Squeeze:
    case ZN_OP_Unsqueeze: return true;
    default: return false;
  }
}

enum { MAX_COUNT = 64 };

/* Few elements, and small enough to be an operand of this kind. */
static bool small(const zn_graph *g, const zn_type *t) {
  int64_t dims[ZN_MAX_RANK];
  uint64_t n;
  if (t->kind != ZN_V_TENSOR || t->rank < 0 || t->rank > 1 || !zn_type_is_static(g->ex, t, dims)) return false;
  return zn_dims_count((uint32_t)t->rank, dims, 1, &n) && n <= MAX_COUNT;
}

bool zn_input_decides_shape(zn_ctx *c, const zn_graph *g, zn_vid v) {
  if (!small(g, &g->vals[v].type)) return false;
  bool *tainted = ZN_ARRAY(&c->tmp, bool, g->num_vals);
  tainted[v] = true;
  for (uint32_t k = 0; k < g->num_order; k++) {
    const zn_node *n = &g->nodes[g->order[k]];
    bool any = false;
    for (uint32_t i = 0; i < n->num_in && !n->dead; i++) {
      if (!tainted[n->in[i]] || !n->in[i]) continue;
      if (shapes(n->op, i)) return true;
      any = true;
    }
    for (uint32_t o = 0; any && hands_on(n->op) && o < n->num_out; o++) tainted[n->out[o]] = true;
  }
  return false;
}

zn_status zn_fix_input(zn_ctx *c, zn_graph *g, zn_vid v, const zn_htensor *t) {
  zn_value *x = &g->vals[v];
  uint32_t at = 0;
  while (at < g->num_inputs && g->inputs[at] != v) at++;
  if (at == g->num_inputs) return zn_fail(c, ZN_ERR_USAGE, NULL, "'%s' is not an input of the model", x->name);
  if (t->dtype != x->type.dtype || (x->type.rank >= 0 && (int)t->rank != x->type.rank)) {
    return zn_fail(c, ZN_ERR_USAGE, NULL, "the value for input '%s' is %s of rank %u, expected %s of rank %d",
                   x->name, zn_dtypes[t->dtype].name, t->rank, zn_dtypes[x->type.dtype].name, x->type.rank);
  }
  for (uint32_t d = 0; x->type.rank >= 0 && d < t->rank; d++) {
    int64_t want;
    if (zn_ex_is_const(g->ex, x->type.dims[d], &want) && want != t->dims[d]) {
      return zn_fail(c, ZN_ERR_USAGE, NULL, "the value for input '%s' has extent %" PRId64 ", expected %" PRId64,
                     x->name, t->dims[d], want);
    }
  }
  const zn_vid k = zn_graph_const(g, NULL, t);
  zn_graph_replace(g, v, k);
  g->vals[v].is_input = false;
  memmove(g->inputs + at, g->inputs + at + 1, (g->num_inputs - 1 - at) * sizeof *g->inputs);
  g->num_inputs--;
  return ZN_OK;
}
