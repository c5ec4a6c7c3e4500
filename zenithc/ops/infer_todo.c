/* Inference functions that ops.def names and that do not exist yet: each reports so. A line goes when its function
 * arrives in its family's file. */
#include "zenithc/ops/op.h"

static zn_status todo(zn_ctx *c, const zn_graph *g, zn_nid n) {
  const zn_node *nd = &g->nodes[n];
  return zn_fail(c, ZN_ERR_UNSUPPORTED, zn_node_where(c, nd),
                 "operator %s: shape inference is not implemented yet", zn_op_name(nd->op));
}

#define TODO(name)                                                                                 \
  zn_status zn_infer_##name(zn_ctx *c, zn_graph *g, zn_nid n);                                     \
  zn_status zn_infer_##name(zn_ctx *c, zn_graph *g, zn_nid n) { return todo(c, g, n); }
TODO(if_)
TODO(loop)
TODO(ml_arrayfeatureextractor)
TODO(ml_binarizer)
TODO(ml_castmap)
TODO(ml_categorymapper)
TODO(ml_dictvectorizer)
TODO(ml_featurevectorizer)
TODO(ml_imputer)
TODO(ml_labelencoder)
TODO(ml_linearclassifier)
TODO(ml_linearregressor)
TODO(ml_normalizer)
TODO(ml_onehotencoder)
TODO(ml_scaler)
TODO(ml_svmclassifier)
TODO(ml_svmregressor)
TODO(ml_treeensemble)
TODO(ml_zipmap)
TODO(optional)
TODO(scan)
TODO(sequence)
TODO(string)
TODO(tfidfvectorizer)
