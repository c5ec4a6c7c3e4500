/* Families of ops.def whose lowering is not written yet: the compiler reports them by name. A line goes when its family
 * arrives in a file of its own. */
#include "codegen/lower/lower.h"

#define TODO(family) const zn_lower zn_lower_##family = {NULL, NULL};
TODO(attention)
TODO(batchnormalization)
TODO(causalconvwithstate)
TODO(constant)
TODO(depthtospace)
TODO(dynamicquantizelinear)
TODO(gradient)
TODO(ml_linearclassifier)
TODO(ml_linearregressor)
TODO(ml_normalizer)
TODO(ml_onehotencoder)
TODO(ml_svmclassifier)
TODO(ml_svmregressor)
TODO(negativeloglikelihoodloss)
TODO(norm)
TODO(pv_flexattention)
TODO(rotaryembedding)
TODO(softmaxcrossentropyloss)
TODO(spacetodepth)
TODO(swiglu)
TODO(train)
