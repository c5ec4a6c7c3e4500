/* Operators that the evaluator does not know yet: each reports itself when it is reached. */
#include "zenithc/eval/eval_impl.h"

#define TODO(name) \
  zn_status zn_eval_##name(zn_ev *e) { return zn_ev_todo(e); }

TODO(dropout)
TODO(gradient)
TODO(imagedecoder)
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
TODO(multinomial)
TODO(negativeloglikelihoodloss)
TODO(random)
TODO(softmaxcrossentropyloss)
TODO(string)
TODO(tfidfvectorizer)
TODO(train)
