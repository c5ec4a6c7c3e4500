/* Helpers of the inference functions: access, diagnostics, symbols for what only the run time
 * knows, broadcasting. */
#include "zenithc/ops/infer_util.h"

#include <inttypes.h>

const zn_type *zn_in_type(const zn_graph *g, const zn_node *n, uint32_t i) {
  const zn_vid v = zn_node_in(n, i);
  return v ? &g->vals[v].type : NULL;
}

zn_type *zn_out_type(zn_graph *g, zn_nid n, uint32_t i) {
  const zn_node *nd = &g->nodes[n];
  return i < nd->num_out && nd->out[i] ? &g->vals[nd->out[i]].type : NULL;
}

const zn_type *zn_inf_in(const zn_inf *f, uint32_t i) { return zn_in_type(f->g, f->nd, i); }
zn_type *zn_inf_out(const zn_inf *f, uint32_t i) { return zn_out_type(f->g, f->n, i); }

bool zn_inf_known(const zn_inf *f, uint32_t i) {
  const zn_type *t = zn_inf_in(f, i);
  return t && t->rank >= 0;
}

zn_status zn_inf_err(const zn_inf *f, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  char buf[512];
  vsnprintf(buf, sizeof buf, fmt, ap);
  va_end(ap);
  return zn_error(f->c, zn_node_where(f->c, f->nd), "%s", buf);
}

static const char *in_name(const zn_inf *f, uint32_t i) {
  const zn_schema *s = zn_op_schema(f->nd->op);
  if (s->num_in == 0) return "?";
  return s->in[i < s->num_in ? i : s->num_in - 1].name;
}

zn_status zn_inf_want_rank(const zn_inf *f, uint32_t i, int rank) {
  const zn_type *t = zn_inf_in(f, i);
  if (!t || t->rank < 0 || t->rank == rank) return ZN_OK;
  return zn_inf_err(f, "input %u '%s' has rank %d, expected %d", i + 1, in_name(f, i), t->rank,
                    rank);
}

zn_status zn_inf_min_rank(const zn_inf *f, uint32_t i, int rank) {
  const zn_type *t = zn_inf_in(f, i);
  if (!t || t->rank < 0 || t->rank >= rank) return ZN_OK;
  return zn_inf_err(f, "input %u '%s' has rank %d, expected at least %d", i + 1, in_name(f, i),
                    t->rank, rank);
}

enum { MAX_DIM_SIZE = 9 };

void zn_inf_shape(const zn_inf *f, uint32_t o, int rank, const zn_expr *dims) {
  zn_type *t = zn_inf_out(f, o);
  if (!t) return;
  if (rank > ZN_MAX_RANK) rank = -1;
  t->rank = (int8_t)rank;
  for (int d = 0; d < rank; d++) {
    t->dims[d] = dims[d];
    /* formulas of shape arithmetic get a name before they multiply through index maps */
    if (dims[d] > ZN_EX_OVERFLOW && zn_ex_size(f->ex, dims[d]) > MAX_DIM_SIZE) {
      t->dims[d] = zn_ex_named(f->ex, dims[d], 0);
    }
  }
}

void zn_inf_same(const zn_inf *f, uint32_t o, uint32_t i) {
  const zn_type *t = zn_inf_in(f, i);
  if (t) zn_inf_shape(f, o, t->rank, t->dims);
}

void zn_inf_dtype(const zn_inf *f, uint32_t o, zn_dtype d) {
  zn_type *t = zn_inf_out(f, o);
  if (t) t->dtype = (uint8_t)d;
}

static const char *first_result(const zn_graph *g, const zn_node *n) {
  for (uint32_t i = 0; i < n->num_out; i++)
    if (n->out[i]) return g->vals[n->out[i]].name;
  return "";
}

/* A name for things of value v that no other graph of the model uses: bodies put the path to them in front. Its steps are
 * names of results, which the text keeps: numbers of nodes change, and a symbol would find the bounds of another. */
static void put_path(zn_text *t, const zn_graph *g) {
  if (!g->parent) return;
  const zn_graph *p = g->parent;
  put_path(t, p);
  for (zn_nid n = 1; n < p->num_nodes; n++) {
    for (uint32_t k = 0; k < p->nodes[n].num_attrs && !p->nodes[n].dead; k++) {
      if (p->nodes[n].attrs[k].kind == ZN_A_GRAPH && p->nodes[n].attrs[k].u.g == g) {
        zn_text_printf(t, "@%s.%u/", first_result(p, &p->nodes[n]), k);
        return;
      }
    }
  }
}

static const char *symbol_name(const zn_graph *g, zn_vid v, const char *open, uint32_t i,
                               const char *close) {
  zn_text t;
  zn_text_init(&t, g->arena);
  put_path(&t, g);
  zn_text_printf(&t, "%s%s%" PRIu32 "%s", g->vals[v].name, open, i, close);
  return t.s;
}

void zn_inf_limit(zn_exprs *ex, zn_expr sym, zn_expr bound) {
  if (bound <= ZN_EX_OVERFLOW || zn_ex_kind(ex, sym) != ZN_EX_SYM || zn_ex_depends(ex, bound, sym)) return;
  zn_expr extent = zn_ex_addi(ex, bound, 1);
  const zn_expr old = zn_ex_extent(ex, sym);
  if (old && old != extent) extent = zn_ex_min(ex, old, extent);
  if (extent > ZN_EX_OVERFLOW && !zn_ex_depends(ex, extent, sym)) zn_ex_set_extent(ex, sym, extent);
}

zn_expr zn_infer_fresh(zn_graph *g, const char *stem, zn_expr bound) {
  int64_t lo = 0, hi = INT64_MAX;
  if (bound > ZN_EX_OVERFLOW) zn_ex_range(g->ex, bound, &lo, &hi);
  const zn_expr s = zn_ex_sym(g->ex, stem, 0, hi < 0 ? 0 : hi);
  zn_inf_limit(g->ex, s, bound);
  return s;
}

zn_expr zn_inf_fresh(const zn_inf *f, uint32_t o, uint32_t d, int64_t lo, zn_expr bound) {
  int64_t l = 0, hi = INT64_MAX;
  if (bound > ZN_EX_OVERFLOW) zn_ex_range(f->ex, bound, &l, &hi);
  if (hi == lo) return zn_inf_k(f, lo);
  const zn_expr s = zn_ex_sym(f->ex, symbol_name(f->g, f->nd->out[o], ".d", d, ""), lo, hi < lo ? lo : hi);
  zn_inf_limit(f->ex, s, bound);
  return s;
}

zn_expr zn_inf_scaled(const zn_inf *f, uint32_t o, uint32_t d, uint32_t i, uint32_t elem, zn_expr by) {
  zn_value *v = &f->g->vals[f->nd->in[i]];
  const zn_scaled s = {zn_inf_fresh(f, o, d, 0, ZN_EX_NONE), by, elem};
  uint32_t k = 0;
  while (k < v->num_scaled && v->scaled[k].sym != s.sym) k++;
  if (k < v->num_scaled) v->scaled[k] = s;
  else ZN_PUSH(f->g->arena, v->scaled, v->num_scaled, v->cap_scaled, s);
  return s.sym;
}

zn_expr zn_inf_fresh_of(zn_graph *g, zn_vid v, uint32_t d, int64_t lo, int64_t hi) {
  return zn_ex_sym(g->ex, symbol_name(g, v, ".d", d, ""), lo, hi);
}

zn_expr zn_inf_name_scalar(zn_graph *g, zn_vid v, int64_t lo) {
  zn_value *val = &g->vals[v];
  const zn_expr s = zn_ex_sym(g->ex, symbol_name(g, v, "[", 0, "]"), lo, INT64_MAX);
  val->elems = ZN_ARRAY(g->arena, zn_expr, 1);
  val->content = ZN_ARRAY(g->arena, zn_expr, 1);
  val->elems[0] = val->content[0] = s;
  val->num_elems = 1;
  return s;
}

static bool uses_prefix(const zn_exprs *ex, zn_expr e, const char *prefix, size_t n) {
  if (e <= ZN_EX_OVERFLOW) return false;
  const zn_ex_op k = zn_ex_kind(ex, e);
  if (k == ZN_EX_CONST) return false;
  if (k == ZN_EX_SYM) return strncmp(zn_ex_name(ex, e), prefix, n) == 0;
  for (uint32_t i = 0; i < zn_ex_arity(ex, e); i++) {
    if (uses_prefix(ex, zn_ex_operand(ex, e, i), prefix, n)) return true;
  }
  return false;
}

bool zn_inf_is_local(const zn_graph *body, zn_expr e) {
  zn_text t;
  zn_text_init(&t, body->arena);
  put_path(&t, body);
  return t.s && uses_prefix(body->ex, e, t.s, t.len);
}

void zn_inf_unknown(const zn_inf *f, uint32_t o, int rank) {
  if (!zn_inf_out(f, o)) return;
  zn_expr dims[ZN_MAX_RANK];
  for (int d = 0; d < rank && d < ZN_MAX_RANK; d++) {
    dims[d] = zn_inf_fresh(f, o, (uint32_t)d, 0, ZN_EX_NONE);
  }
  zn_inf_shape(f, o, rank, dims);
}

static const char *show(const zn_inf *f, zn_expr e) {
  zn_text t;
  zn_text_init(&t, &f->c->tmp);
  zn_ex_print(f->ex, e, &t);
  return t.s ? t.s : "?";
}

zn_status zn_inf_same_dim(const zn_inf *f, zn_expr a, zn_expr b, const char *what) {
  int64_t x, y;
  if (a == b || !zn_ex_is_const(f->ex, a, &x) || !zn_ex_is_const(f->ex, b, &y) || x == y) {
    return ZN_OK;
  }
  return zn_inf_err(f, "%s: %" PRId64 " and %" PRId64 " must be equal", what, x, y);
}

zn_status zn_infer_axis(zn_ctx *c, const zn_graph *g, zn_nid n, int64_t axis, int rank, int *out) {
  if (axis < -rank || axis >= rank) {
    return zn_error(c, zn_node_where(c, &g->nodes[n]),
                    "axis %" PRId64 " is outside [%d, %d), the range for rank %d", axis, -rank,
                    rank, rank);
  }
  *out = (int)(axis < 0 ? axis + rank : axis);
  return ZN_OK;
}

zn_status zn_inf_axis(const zn_inf *f, int64_t axis, int rank, int *out) {
  return zn_infer_axis(f->c, f->g, f->n, axis, rank, out);
}

zn_status zn_inf_axes(const zn_inf *f, const int64_t *axes, uint32_t n, int rank, bool *mask) {
  for (int d = 0; d < rank; d++) mask[d] = false;
  for (uint32_t i = 0; i < n; i++) {
    int ax = 0;
    ZN_TRY(zn_inf_axis(f, axes[i], rank, &ax));
    if (mask[ax]) return zn_inf_err(f, "axis %d is listed twice", ax);
    mask[ax] = true;
  }
  return ZN_OK;
}

zn_status zn_infer_bcast_dim(zn_ctx *c, zn_graph *g, zn_nid n, zn_expr a, zn_expr b, zn_expr *out) {
  zn_inf f = {c, g, g->ex, n, &g->nodes[n]};
  return zn_inf_bcast(&f, a, b, out);
}

zn_status zn_inf_bcast(const zn_inf *f, zn_expr a, zn_expr b, zn_expr *out) {
  int64_t x, y, lo, hi;
  const bool ca = zn_ex_is_const(f->ex, a, &x), cb = zn_ex_is_const(f->ex, b, &y);
  *out = a;
  if (a == b || (cb && y == 1)) return ZN_OK;
  *out = b;
  if (ca && x == 1) return ZN_OK;
  if (ca && cb) {
    return zn_inf_err(f, "dimensions %s and %s do not broadcast: they differ and neither is 1",
                      show(f, a), show(f, b));
  }
  if (cb) return ZN_OK;
  *out = a;
  if (ca) return ZN_OK;
  /* A dim that is certainly not 1 decides. */
  zn_ex_range(f->ex, a, &lo, &hi);
  if (lo > 1) return ZN_OK;
  *out = b;
  zn_ex_range(f->ex, b, &lo, &hi);
  if (lo > 1) return ZN_OK;
  *out = zn_ex_bcast(f->ex, a, b);
  return ZN_OK;
}

zn_status zn_inf_bcast_shape(const zn_inf *f, int *rank, zn_expr *dims, int rb, const zn_expr *b) {
  const int ra = *rank, r = ra > rb ? ra : rb;
  zn_expr o[ZN_MAX_RANK];
  for (int d = 0; d < r; d++) {
    const int ia = d - (r - ra), ib = d - (r - rb);
    if (ia < 0) {
      o[d] = b[ib];
    } else if (ib < 0) {
      o[d] = dims[ia];
    } else {
      ZN_TRY(zn_inf_bcast(f, dims[ia], b[ib], &o[d]));
    }
  }
  for (int d = 0; d < r; d++) dims[d] = o[d];
  *rank = r;
  return ZN_OK;
}

bool zn_inf_count(const zn_inf *f, const zn_type *t, uint32_t max, uint32_t *out) {
  if (!t || t->rank < 0 || t->kind != ZN_V_TENSOR) return false;
  int64_t n = 1;
  for (int d = 0; d < t->rank; d++) {
    int64_t x;
    if (!zn_ex_is_const(f->ex, t->dims[d], &x) || x < 0) return false;
    if (x == 0) {
      *out = 0;
      return true;
    }
    if (n > (int64_t)max || x > (int64_t)max) return false;
    n *= x;
  }
  *out = (uint32_t)n;
  return n <= (int64_t)max;
}

const zn_expr *zn_inf_elems(const zn_inf *f, uint32_t i, uint32_t *out_n) {
  const zn_vid v = zn_node_in(f->nd, i);
  *out_n = 0;
  if (!v || !f->g->vals[v].elems) return NULL;
  *out_n = f->g->vals[v].num_elems;
  return f->g->vals[v].elems;
}

static bool integral(zn_dtype t) { return zn_is_int(t) || t == ZN_BOOL; }

const zn_expr *zn_inf_need(const zn_inf *f, uint32_t i, uint32_t *out_n) {
  const zn_vid v = zn_node_in(f->nd, i);
  uint32_t n;
  *out_n = 0;
  if (!v) return NULL;
  zn_value *val = &f->g->vals[v];
  if (!val->elems) {
    if (!zn_inf_count(f, &val->type, ZN_MAX_ELEMS, &n) || !integral(val->type.dtype)) return NULL;
    val->elems = ZN_ARRAY(f->g->arena, zn_expr, n ? n : 1);
    val->num_elems = n;
  }
  for (uint32_t k = 0; k < val->num_elems; k++) {
    if (val->elems[k]) continue;
    val->elems[k] = zn_ex_sym(f->ex, symbol_name(f->g, v, "[", k, "]"), INT64_MIN, INT64_MAX);
    if (!val->content) val->content = ZN_ARRAY(f->g->arena, zn_expr, val->num_elems);
    val->content[k] = val->elems[k];
  }
  *out_n = val->num_elems;
  return val->elems;
}

bool zn_inf_i64s(const zn_inf *f, uint32_t i, int64_t *out, uint32_t max, uint32_t *out_n) {
  const zn_vid v = zn_node_in(f->nd, i);
  *out_n = 0;
  return v && zn_value_i64s(f->g, v, out, max, out_n);
}

zn_expr *zn_inf_set_elems(const zn_inf *f, uint32_t o, uint32_t n) {
  const zn_vid v = o < f->nd->num_out ? f->nd->out[o] : 0;
  if (!v || n > ZN_MAX_ELEMS || !integral(f->g->vals[v].type.dtype)) return NULL;
  f->g->vals[v].elems = ZN_ARRAY(f->g->arena, zn_expr, n ? n : 1);
  f->g->vals[v].num_elems = n;
  return f->g->vals[v].elems;
}

void zn_inf_take(const zn_inf *f, uint32_t o, uint32_t i, const uint32_t *src, uint32_t n) {
  uint32_t m;
  const zn_expr *in = zn_inf_elems(f, i, &m);
  if (!in) return;
  zn_expr *out = zn_inf_set_elems(f, o, n);
  for (uint32_t k = 0; out && k < n; k++) out[k] = src[k] < m ? in[src[k]] : ZN_EX_NONE;
}

void zn_inf_copy_elems(const zn_inf *f, uint32_t o, uint32_t i) {
  uint32_t n;
  const zn_expr *in = zn_inf_elems(f, i, &n);
  if (!in) return;
  zn_expr *out = zn_inf_set_elems(f, o, n);
  for (uint32_t k = 0; out && k < n; k++) out[k] = in[k];
}

bool zn_inf_ge(const zn_inf *f, zn_expr e, int64_t v) {
  int64_t lo, hi;
  if (e <= ZN_EX_OVERFLOW) return false;
  zn_ex_range(f->ex, e, &lo, &hi);
  return lo >= v;
}

zn_status zn_inf_numbers(const zn_inf *f, const char *what) {
  if (zn_inf_in(f, 0)->dtype != ZN_STR) return ZN_OK;
  return zn_inf_err(f, "%s needs numbers: strings have no sums, products or order; they can only be moved", what);
}
