/* Inference of the ai.onnx.ml operators. */
#include "zenithc/ops/infer_util.h"

#include <inttypes.h>

static uint32_t list_len(const zn_inf *f, const char *name) {
  const zn_attr *a = zn_node_attr(f->nd, name);
  return a ? a->n : 0;
}

/* [N, width] where a rank-1 input [C] is one row. */
static zn_status rows(const zn_inf *f, uint32_t o, zn_expr width) {
  const zn_type *in = zn_inf_in(f, 0);
  if (!zn_inf_known(f, 0)) {
    zn_inf_unknown(f, o, 2);
    return ZN_OK;
  }
  const zn_expr dims[2] = {in->rank >= 2 ? in->dims[0] : zn_inf_k(f, 1), width};
  zn_inf_shape(f, o, 2, dims);
  return ZN_OK;
}

static void labels(const zn_inf *f, uint32_t o) {
  const zn_type *in = zn_inf_in(f, 0);
  zn_inf_dtype(f, o, list_len(f, "classlabels_strings") ? ZN_STR : ZN_I64);
  const zn_expr n = !zn_inf_known(f, 0) ? zn_inf_fresh(f, o, 0, 0, ZN_EX_NONE)
                    : in->rank >= 2     ? in->dims[0]
                                        : zn_inf_k(f, 1);
  zn_inf_shape(f, o, 1, &n);
}

static uint32_t num_labels(const zn_inf *f) {
  const uint32_t s = list_len(f, "classlabels_strings");
  return s ? s : list_len(f, "classlabels_ints");
}

ZN_INFER(ml_arrayfeatureextractor) {
  const zn_type *x = zn_inf_in(f, 0), *y = zn_inf_in(f, 1);
  zn_expr dims[ZN_MAX_RANK];
  if (!zn_inf_known(f, 0) || !zn_inf_known(f, 1)) return ZN_OK;
  ZN_TRY(zn_inf_min_rank(f, 0, 1));
  const int r = x->rank == 1 ? 2 : x->rank;
  dims[0] = zn_inf_k(f, 1);
  for (int d = 0; d < x->rank; d++) dims[d + (x->rank == 1)] = x->dims[d];
  dims[r - 1] = zn_type_count(f->ex, y);
  zn_inf_shape(f, 0, r, dims);
  return ZN_OK;
}

ZN_INFER(ml_binarizer) {
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(ml_imputer) {
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(ml_scaler) {
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(ml_normalizer) {
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(ml_castmap) {
  const char *to = zn_node_str(f->nd, "cast_to");
  zn_inf_dtype(f, 0,
               strcmp(to, "TO_FLOAT") == 0   ? ZN_F32
               : strcmp(to, "TO_INT64") == 0 ? ZN_I64
                                             : ZN_STR);
  const bool sparse = strcmp(zn_node_str(f->nd, "map_form"), "SPARSE") == 0;
  const zn_expr dims[2] = {zn_inf_k(f, 1), sparse ? zn_inf_k(f, zn_node_int(f->nd, "max_map"))
                                                  : zn_inf_fresh(f, 0, 1, 0, ZN_EX_NONE)};
  zn_inf_shape(f, 0, 2, dims);
  return ZN_OK;
}

ZN_INFER(ml_categorymapper) {
  zn_inf_dtype(f, 0, zn_inf_in(f, 0)->dtype == ZN_STR ? ZN_I64 : ZN_STR);
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

ZN_INFER(ml_dictvectorizer) {
  const uint32_t s = list_len(f, "string_vocabulary"), i = list_len(f, "int64_vocabulary");
  const zn_type *in = zn_inf_in(f, 0);
  if (in->kind == ZN_V_MAP) zn_inf_dtype(f, 0, (zn_dtype)in->dtype);
  const zn_expr dims[2] = {zn_inf_k(f, 1), zn_inf_k(f, s ? s : i)};
  zn_inf_shape(f, 0, 2, dims);
  return ZN_OK;
}

ZN_INFER(ml_featurevectorizer) {
  uint32_t n;
  const int64_t *w = zn_node_ints(f->nd, "inputdimensions", &n);
  zn_expr width = zn_inf_k(f, 0);
  for (uint32_t i = 0; i < f->nd->num_in; i++) {
    const zn_type *t = zn_inf_in(f, i);
    if (t && t->rank > 2) return zn_inf_err(f, "input %u has rank %d, expected rows of features", i + 1, t->rank);
    if (w && i < n) {
      width = zn_ex_addi(f->ex, width, w[i]);
    } else if (t && t->rank >= 1) {
      width = zn_ex_add(f->ex, width, t->dims[t->rank - 1]);
    } else {
      return ZN_OK;
    }
  }
  return rows(f, 0, width);
}

ZN_INFER(ml_labelencoder) {
  static const struct {
    const char *name;
    zn_dtype t;
  } kinds[] = {{"values_strings", ZN_STR}, {"values_int64s", ZN_I64}, {"values_floats", ZN_F32}};
  const zn_attr *t = zn_node_attr(f->nd, "values_tensor");
  if (t) zn_inf_dtype(f, 0, t->u.t->dtype);
  for (unsigned k = 0; !t && k < 3; k++) {
    if (zn_node_has(f->nd, kinds[k].name)) zn_inf_dtype(f, 0, kinds[k].t);
  }
  zn_inf_same(f, 0, 0);
  return ZN_OK;
}

/* One score column per class; a binary model that holds one row of coefficients still gives two. */
ZN_INFER(ml_linearclassifier) {
  const uint32_t n = num_labels(f), b = list_len(f, "intercepts");
  labels(f, 0);
  return rows(f, 1, zn_inf_k(f, n == 2 || (n == 0 && b == 1) ? 2 : n ? n : b));
}

ZN_INFER(ml_linearregressor) { return rows(f, 0, zn_inf_k(f, zn_node_int(f->nd, "targets"))); }

ZN_INFER(ml_onehotencoder) {
  const zn_type *in = zn_inf_in(f, 0);
  const uint32_t s = list_len(f, "cats_strings"), i = list_len(f, "cats_int64s");
  zn_expr dims[ZN_MAX_RANK];
  if (!zn_inf_known(f, 0)) return ZN_OK;
  if (in->rank >= ZN_MAX_RANK) return zn_inf_err(f, "rank %d is too large", in->rank + 1);
  memcpy(dims, in->dims, sizeof dims);
  dims[in->rank] = zn_inf_k(f, s ? s : i);
  zn_inf_shape(f, 0, in->rank + 1, dims);
  return ZN_OK;
}

ZN_INFER(ml_svmclassifier) {
  const uint32_t n = num_labels(f) ? num_labels(f) : 1;
  const bool prob = list_len(f, "prob_a") > 0, vectors = list_len(f, "vectors_per_class") > 0;
  labels(f, 0);
  /* raw scores are one per pair of classes; with probabilities, or linear, one per class; a single one becomes two */
  const uint32_t scores = vectors && !prob ? n * (n - 1) / 2 : n;
  const bool alone = list_len(f, "rho") != 1 || strcmp(zn_node_str(f->nd, "post_transform"), "PROBIT") == 0;
  return rows(f, 1, zn_inf_k(f, scores == 1 && !alone ? 2 : scores));
}

ZN_INFER(pairwisecoupling) {
  const zn_type *r = zn_inf_in(f, 0);
  if (!zn_inf_known(f, 0)) return ZN_OK;
  if (r->rank != 2) return zn_inf_err(f, "input 'R' has rank %d, expected 2", r->rank);
  const zn_expr dims[2] = {r->dims[0], zn_inf_k(f, zn_node_int(f->nd, "classes"))};
  zn_inf_shape(f, 0, 2, dims);
  return ZN_OK;
}

ZN_INFER(ml_svmregressor) { return rows(f, 0, zn_inf_k(f, 1)); }

ZN_INFER(ml_treeensemble) { return rows(f, 0, zn_inf_k(f, zn_node_int(f->nd, "n_targets"))); }

/* A sequence of maps, one per row: held as sequence with the keys' type beside. */
ZN_INFER(ml_zipmap) {
  zn_type *o = zn_inf_out(f, 0);
  if (!o) return ZN_OK;
  o->kind = ZN_V_SEQ;
  o->of = 1;
  o->key = list_len(f, "classlabels_strings") ? ZN_STR : ZN_I64;
  o->dtype = ZN_F32;
  o->rank = -1;
  return ZN_OK;
}
