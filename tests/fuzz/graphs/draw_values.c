/* Leaves and values of a graph being drawn: element types, dimensions, inputs, constants, captured values. */
#include <stdio.h>

#include "tests/fuzz/graphs/fuzz.h"
#include "zenithc/graph/text_impl.h"

int64_t fz_size(fz *f) {
  uint32_t r = fz_below(f, 100);
  if (r < 2) return 0;
  if (r < 18) return 1;
  if (r < 75) return fz_range(f, 2, 5);
  if (r < 95) return fz_range(f, 6, 12);
  return fz_range(f, 13, 40);
}

zn_expr fz_dim(fz *f) {
  if (f->dynamic && fz_chance(f, 30)) return f->sym[fz_below(f, FZ_SYMS)];
  return zn_ex_const(f->g->ex, fz_size(f));
}

zn_dtype fz_dtype_of(fz *f, const zn_schema *s, const char *type) {
  static const zn_dtype common[] = {ZN_F32, ZN_F32,  ZN_F32, ZN_I64, ZN_F64,
                                    ZN_I32, ZN_BOOL, ZN_F16, ZN_U8,  ZN_I8};
  zn_dtype fixed = zn_dtype_from_name(type);
  if (fixed != ZN_NONE) return fixed;
  if (fz_chance(f, 70) && zn_schema_allows(s, type, f->main)) return f->main;
  for (int k = 0; k < 3; k++) {
    zn_dtype t = common[fz_below(f, 10)];
    if (zn_schema_allows(s, type, t)) return t;
  }
  for (int k = 0; k < 40; k++) {
    zn_dtype t = (zn_dtype)fz_range(f, 1, ZN_DTYPE_COUNT - 1);
    if (t != ZN_C64 && t != ZN_C128 && t != ZN_STR && t != ZN_IDX && t != ZN_PTR &&
        zn_schema_allows(s, type, t))
      return t;
  }
  return ZN_NONE;
}

void fz_add(fz *f, zn_vid v) { ZN_PUSH(f->a, f->pool, f->n, f->cap, v); }

bool fz_static(const fz *f, zn_vid v, int64_t *out_dims) {
  return zn_type_is_static(f->g->ex, fz_type(f, v), out_dims);
}

static zn_vid from_text(fz *f, zn_dtype t, int rank, const int64_t *dims, const char *text) {
  zn_htensor *h = ZN_NEW(f->a, zn_htensor);
  zn_lexer l;
  *h = zn_htensor_new(f->a, t, (uint32_t)rank, dims);
  zn_lex_init(&l, f->c, f->a, text, strlen(text));
  if (zn_zg_parse_data(&l, f->a, NULL, h) != ZN_OK) return 0;
  return zn_graph_const(f->g, NULL, h);
}

zn_vid fz_const(fz *f, zn_dtype t, int rank, const int64_t *dims, double lo, double hi) {
  char text[96];
  snprintf(text, sizeof text, "rand(%u, %.9g, %.9g)", fz_below(f, 1000000), lo, hi);
  return from_text(f, t, rank, dims, text);
}

zn_vid fz_i64s(fz *f, zn_dtype t, const int64_t *v, uint32_t n) {
  zn_htensor *h = ZN_NEW(f->a, zn_htensor);
  int64_t dims = n;
  *h = zn_htensor_new(f->a, t, 1, &dims);
  for (uint32_t i = 0; i < n; i++) zn_store_i64(t, h->data, i, v[i]);
  return zn_graph_const(f->g, NULL, h);
}

zn_vid fz_scalar(fz *f, zn_dtype t, double x) { return zn_graph_const_scalar(f->g, t, x); }

/* A value of the outer graph becomes a trailing input of the body; draw_control.c passes it. */
static zn_vid new_input(fz *f, zn_dtype t, int rank, const zn_expr *dims) {
  static const char *const names[] = {"x", "y", "z", "data", "u", "v"};
  return zn_graph_input(f->g, names[fz_below(f, 6)], zn_type_tensor(t, rank, dims));
}

static void usual_range(fz *f, zn_dtype t, double *lo, double *hi) {
  *lo = zn_is_float(t) ? -1 : zn_is_signed(t) ? (zn_int_bits(t) < 4 ? -2 : -8) : 0;
  *hi = zn_is_float(t) ? 1 : t == ZN_BOOL ? 2 : zn_int_bits(t) < 4 ? 2 : 8;
  if (zn_is_float(t) && fz_chance(f, 20)) *lo = 0.25, *hi = 2;
}

/* Over the graph's own symbols? A size that data decides is no size of an input: no exporter can write it. */
static bool of_inputs(const fz *f, zn_expr e) {
  const zn_exprs *ex = f->g->ex;
  if (e <= ZN_EX_OVERFLOW) return false;
  if (zn_ex_kind(ex, e) == ZN_EX_CONST) return true;
  for (int i = 0; i < FZ_SYMS; i++)
    if (e == f->sym[i]) return true;
  uint32_t n = zn_ex_kind(ex, e) == ZN_EX_SYM ? 0 : zn_ex_arity(ex, e);
  for (uint32_t i = 0; i < n; i++)
    if (!of_inputs(f, zn_ex_operand(ex, e, i))) return false;
  return n > 0;
}

zn_vid fz_leaf(fz *f, zn_dtype t, int rank, const zn_expr *dims) {
  int64_t d[ZN_MAX_RANK];
  zn_type y = zn_type_tensor(t, rank, dims);
  bool fixed = zn_type_is_static(f->g->ex, &y, d);
  if (f->g->parent && !fixed) return 0; /* bodies have constants and what they captured */
  for (int k = 0; k < rank; k++)
    if (!of_inputs(f, dims[k])) return 0;
  zn_vid v;
  if (fixed && (f->g->parent || fz_chance(f, 40))) {
    double lo, hi;
    usual_range(f, t, &lo, &hi);
    v = fz_const(f, t, rank, d, lo, hi);
  } else {
    v = new_input(f, t, rank, dims);
  }
  if (v) fz_add(f, v);
  return v;
}

zn_vid fz_pick(fz *f, zn_dtype t, int rank) {
  zn_vid found[64];
  uint32_t n = 0;
  for (uint32_t i = f->n; i-- > 0 && n < 64;) {
    const zn_type *y = fz_type(f, f->pool[i]);
    if (y->kind == ZN_V_TENSOR && (t == ZN_NONE || y->dtype == t) && (rank < 0 || y->rank == rank))
      found[n++] = f->pool[i];
  }
  if (!n) return 0;
  if (fz_chance(f, 60) && n > 3) n = 3; /* chains: most nodes read what was made last */
  return found[fz_below(f, n)];
}

zn_vid fz_some(fz *f, zn_dtype t, int rank) {
  zn_vid v = fz_chance(f, 85) ? fz_pick(f, t, rank) : 0;
  if (v) return v;
  zn_expr dims[ZN_MAX_RANK];
  if (rank < 0) rank = (int)(fz_chance(f, 80) ? fz_range(f, 1, 4) : fz_range(f, 0, 5));
  for (int d = 0; d < rank; d++)
    dims[d] = f->g->parent ? zn_ex_const(f->g->ex, fz_size(f)) : fz_dim(f);
  return fz_leaf(f, t, rank, dims);
}

int fz_broadcast_shape(fz *f, const zn_type *like, zn_expr *out_dims) {
  int drop = fz_chance(f, 30) ? (int)fz_range(f, 0, like->rank) : 0, n = 0;
  bool ones = fz_chance(f, 40);
  for (int d = drop; d < like->rank; d++) {
    out_dims[n++] = ones && fz_chance(f, 50) ? zn_ex_const(f->g->ex, 1) : like->dims[d];
  }
  return n;
}

zn_vid fz_exact(fz *f, zn_dtype t, int rank, const zn_expr *dims) {
  for (uint32_t i = f->n; i-- > 0;) {
    const zn_type *y = fz_type(f, f->pool[i]);
    if (y->kind != ZN_V_TENSOR || y->dtype != t || y->rank != rank || fz_chance(f, 25)) continue;
    if (!memcmp(y->dims, dims, (size_t)rank * sizeof dims[0])) return f->pool[i];
  }
  return fz_leaf(f, t, rank, dims);
}
