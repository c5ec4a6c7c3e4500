/* ai.onnx.ml operators that compute one element from one or few: Binarizer, Scaler, Imputer, ArrayFeatureExtractor,
 * FeatureVectorizer. */
#include <math.h>

#include "codegen/lower/lower.h"

static zn_kref binarizer_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  zn_kb *b = &lw->kb;
  zn_kref x = zn_lw_load(lw, zn_lw_node(lw, n)->in[0], idx);
  zn_dtype t = zn_lw_kdtype(lw, x);
  zn_kref limit = zn_kb_float(b, ZN_F64, zn_node_float(zn_lw_node(lw, n), "threshold"));
  zn_kref above = zn_kb_cmp(b, ZN_K_Gt, zn_kb_cvt(b, x, ZN_F64), limit);
  return zn_kb_cvt(b, above, t);
}
const zn_lower zn_lower_ml_binarizer = {binarizer_point, NULL};

/* v[column % n] of a constant list as f64: one value, or a table. */
static zn_kref per_column(zn_lw *lw, const char *name, const double *v, uint32_t n, zn_expr column) {
  if (n == 1) return zn_kb_float(&lw->kb, ZN_F64, v[0]);
  double *copy = ZN_ARRAY(&lw->ctx->graph, double, n);
  for (uint32_t i = 0; i < n; i++) copy[i] = v[i];
  zn_loc c = zn_lw_const(lw, name, ZN_F64, n, copy);
  zn_kref p = zn_lw_ptr_loc(lw, c, ZN_KP_IN, ZN_F64);
  return zn_lw_load_at(lw, p, ZN_F64, zn_ex_modi(lw->ex, column, n));
}

static zn_expr column_of(zn_lw *lw, zn_vid v, const zn_expr *idx) {
  int rank = zn_lw_type(lw, v)->rank;
  return rank ? idx[rank - 1] : zn_ex_const(lw->ex, 0);
}

/* (x - offset) * scale */
static zn_kref scaler_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  zn_kb *b = &lw->kb;
  const zn_node *node = zn_lw_node(lw, n);
  uint32_t no, ns;
  const double *offset = zn_node_floats(node, "offset", &no), *scale = zn_node_floats(node, "scale", &ns);
  zn_expr column = column_of(lw, node->in[0], idx);
  zn_kref x = zn_kb_cvt(b, zn_lw_load(lw, node->in[0], idx), ZN_F64);
  if (no) x = zn_kb_bin(b, ZN_K_Sub, x, per_column(lw, "offset", offset, no, column));
  if (ns) x = zn_kb_bin(b, ZN_K_Mul, x, per_column(lw, "scale", scale, ns, column));
  return zn_kb_cvt(b, x, ZN_F32);
}
const zn_lower zn_lower_ml_scaler = {scaler_point, NULL};

static zn_kref imputer_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  (void)out;
  zn_kb *b = &lw->kb;
  const zn_node *node = zn_lw_node(lw, n);
  zn_kref x = zn_lw_load(lw, node->in[0], idx);
  zn_dtype t = zn_lw_kdtype(lw, x);
  zn_expr column = column_of(lw, node->in[0], idx);
  uint32_t count;
  if (zn_is_float(t)) {
    const double *v = zn_node_floats(node, "imputed_value_floats", &count);
    double old = zn_node_float(node, "replaced_value_float");
    zn_kref hit = isnan(old) ? zn_kb_cmp(b, ZN_K_Ne, x, x) : zn_kb_cmp(b, ZN_K_Eq, x, zn_kb_float(b, t, old));
    if (!count) return x;
    zn_kref y = zn_kb_cvt(b, per_column(lw, "imputed", v, count, column), t);
    return zn_kb_select(b, hit, y, x);
  }
  const int64_t *v = zn_node_ints(node, "imputed_value_int64s", &count);
  if (!count) return x;
  zn_kref hit = zn_kb_cmp(b, ZN_K_Eq, x, zn_kb_int(b, t, zn_node_int(node, "replaced_value_int64")));
  zn_kref y;
  if (count == 1) {
    y = zn_kb_int(b, t, v[0]);
  } else {
    zn_loc c = zn_lw_const(lw, "imputed", ZN_I64, count, v);
    zn_kref p = zn_lw_ptr_loc(lw, c, ZN_KP_IN, ZN_I64);
    y = zn_kb_cvt(b, zn_lw_load_at(lw, p, ZN_I64, zn_ex_modi(lw->ex, column, count)), t);
  }
  return zn_kb_select(b, hit, y, x);
}
const zn_lower zn_lower_ml_imputer = {imputer_point, NULL};

static zn_kref extractor_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid x = node->in[0], y = node->in[1];
  int rank = zn_lw_type(lw, x)->rank, rz = zn_lw_type(lw, node->out[out])->rank;
  zn_expr at[ZN_MAX_RANK], where[ZN_MAX_RANK];
  const zn_type ty = *zn_lw_type(lw, y);
  zn_expr rest = idx[rz - 1];
  for (int d = ty.rank - 1; d >= 0; d--) {
    where[d] = zn_ex_mod(lw->ex, rest, ty.dims[d]);
    rest = zn_ex_div(lw->ex, rest, ty.dims[d]);
  }
  for (int d = 0; d < rank - 1; d++) at[d] = idx[d];
  at[rank - 1] = zn_lw_checked_index(lw, zn_lw_load(lw, y, where), zn_lw_dim(lw, x, rank - 1));
  return zn_lw_load(lw, x, at);
}
const zn_lower zn_lower_ml_arrayfeatureextractor = {extractor_point, NULL};

/* Columns of the inputs side by side, one kernel per input; surplus columns are zero. */
static zn_status vectorizer_kernel(zn_lw *lw, zn_nid n) {
  uint32_t nd, num = zn_lw_node(lw, n)->num_in;
  const int64_t *want = zn_node_ints(zn_lw_node(lw, n), "inputdimensions", &nd);
  zn_vid y = zn_lw_node(lw, n)->out[0];
  zn_expr first = zn_ex_const(lw->ex, 0), rows = zn_lw_dim(lw, y, 0);
  for (uint32_t i = 0; i < num; i++) {
    zn_vid x = zn_lw_node(lw, n)->in[i];
    const zn_type t = *zn_lw_type(lw, x);
    zn_expr cols = t.rank ? t.dims[t.rank - 1] : zn_ex_const(lw->ex, 1), row;
    zn_expr width = i < nd ? zn_ex_const(lw->ex, want[i]) : cols, top = zn_ex_addi(lw->ex, cols, -1);
    zn_lw_kernel(lw, n, "feature_vector");
    zn_kb *b = &lw->kb;
    zn_lw_grid(lw, 1, &rows, &row);
    zn_expr j = zn_lw_for(lw, width, ZN_FOR_SERIAL, 0), idx[2] = {row, zn_ex_add(lw->ex, first, j)};
    zn_expr rest = row, at[ZN_MAX_RANK];
    for (int d = t.rank - 2; d >= 0; d--) {
      at[d] = zn_ex_mod(lw->ex, rest, t.dims[d]);
      rest = zn_ex_div(lw->ex, rest, t.dims[d]);
    }
    if (t.rank) at[t.rank - 1] = zn_ex_min(lw->ex, j, top);
    zn_kref inside = zn_lw_in_range(lw, j, cols), zero = zn_kb_float(b, ZN_F32, 0);
    zn_kref v = zn_kb_cvt(b, zn_lw_load(lw, x, at), ZN_F32);
    zn_lw_store(lw, y, idx, zn_kb_select(b, inside, v, zero));
    zn_lw_end(lw);
    zn_lw_end(lw);
    zn_lw_kernel_end(lw);
    first = zn_ex_add(lw->ex, first, width);
  }
  return ZN_OK;
}
const zn_lower zn_lower_ml_featurevectorizer = {NULL, vectorizer_kernel};
