/* Unique: a stable sort of the slices' numbers, groups of equal neighbours, then the outputs. Slices are compared
 * element by element, NaN after all numbers and equal to itself. */
#include "codegen/lower/sortkeys.h"

typedef struct uniq {
  zn_vid x;
  zn_type t;
  bool flat;
  int axis;
  zn_expr n;     /* slices */
  zn_expr inner; /* elements of a slice */
} uniq;

/* Element e (idx value) of slice k (idx value). */
static zn_kref at(zn_lw *lw, const uniq *u, zn_kref k, zn_kref e) {
  zn_exprs *ex = lw->ex;
  zn_expr idx[ZN_MAX_RANK];
  zn_expr rest = u->flat ? zn_lw_as_expr(lw, k, u->n) : zn_lw_as_expr(lw, e, u->inner);
  for (int d = u->t.rank - 1; d >= 0; d--) {
    if (!u->flat && d == u->axis) {
      idx[d] = zn_lw_as_expr(lw, k, u->n);
      continue;
    }
    idx[d] = zn_ex_mod(ex, rest, u->t.dims[d]);
    rest = zn_ex_div(ex, rest, u->t.dims[d]);
  }
  return zn_lw_load(lw, u->x, idx);
}

/* Complex numbers are in order by their real parts, equal ones by the imaginary ones. */
static zn_kref value_before(zn_lw *lw, const uniq *u, zn_kref x, zn_kref y) {
  const zn_dtype t = (zn_dtype)u->t.dtype;
  if (t != ZN_C64 && t != ZN_C128) return zn_value_before(lw, x, y, false);
  zn_kref less[2], more;
  for (int p = 0; p < 2; p++) {
    zn_kref xp = zn_lw_part(lw, x, t, p), yp = zn_lw_part(lw, y, t, p);
    less[p] = zn_value_before(lw, xp, yp, false);
    if (p == 0) more = zn_value_before(lw, yp, xp, false);
  }
  zn_kref second = zn_kb_bin(&lw->kb, ZN_K_And, less[1], zn_kb_un(&lw->kb, ZN_K_Not, more));
  return zn_kb_bin(&lw->kb, ZN_K_Or, less[0], second);
}

static zn_kref before(zn_lw *lw, void *user, zn_kref a, zn_kref c) {
  uniq *u = user;
  zn_kb *b = &lw->kb;
  if (u->flat) {
    zn_kref none = zn_kb_idx(b, 0), x = at(lw, u, a, none), y = at(lw, u, c, none);
    return value_before(lw, u, x, y);
  }
  zn_kref result = zn_kb_var(b, zn_kb_int(b, ZN_BOOL, 0)), e = zn_kb_var(b, zn_kb_idx(b, 0));
  zn_kref count = zn_lw_ix(lw, u->inner);
  zn_kb_loop(b);
  zn_kref i = zn_kb_get(b, e);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, i, count));
  zn_kref x = at(lw, u, a, i), y = at(lw, u, c, i);
  zn_kref less = value_before(lw, u, x, y), more = value_before(lw, u, y, x);
  zn_kb_set(b, result, less);
  zn_kb_break(b, zn_kb_bin(b, ZN_K_Or, less, more));
  zn_kb_set(b, e, zn_s_inc(lw, i));
  zn_kb_end(b);
  return zn_kb_get(b, result);
}

typedef struct cells { /* i32 arrays of n, behind the 2n of the sort */
  zn_kref p, n;
} cells;

static zn_kref cell(zn_lw *lw, const cells *c, int array, zn_kref i) {
  zn_kref k = zn_kb_idx(&lw->kb, array + 2), first = zn_s_mul(lw, k, c->n);
  return zn_s_add(lw, first, i);
}
enum { OWNER, FIRST, RANK, PLACE, COUNT, NUM_ARRAYS };
/* owner[slice] = group in sorted order, first[group] = its lowest slice, rank[group] = output position,
 * place[position] = first slice, count[position] */

static void find_groups(zn_lw *lw, uniq *u, bool sorted, const cells *c, zn_kref out_count) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_idx(b, 0), one = zn_kb_idx(b, 1);
  zn_kref i = zn_s_for(lw, c->n);
  zn_s_store(lw, c->p, i, i);
  zn_s_store(lw, c->p, cell(lw, c, COUNT, i), zero);
  zn_kb_end(b);
  zn_kref base = zn_sort_keys(lw, c->p, zero, c->n, before, u);
  zn_kref groups = zn_kb_var(b, zero);
  i = zn_s_for(lw, c->n);
  zn_kref k = zn_s_load(lw, c->p, zn_s_add(lw, base, i));
  zn_kref prev = zn_kb_bin(b, ZN_K_Max, zn_kb_bin(b, ZN_K_Sub, i, one), zero);
  zn_kref pk = zn_s_load(lw, c->p, zn_s_add(lw, base, prev));
  zn_kref differs = before(lw, u, pk, k), start = zn_kb_cmp(b, ZN_K_Eq, i, zero);
  zn_kb_if(b, zn_kb_bin(b, ZN_K_Or, differs, start));
  zn_kref g = zn_kb_get(b, groups);
  zn_s_store(lw, c->p, cell(lw, c, FIRST, g), k);
  zn_s_store(lw, c->p, cell(lw, c, RANK, g), g);
  zn_kb_set(b, groups, zn_s_inc(lw, g));
  zn_kb_end(b);
  zn_kref mine = zn_kb_bin(b, ZN_K_Sub, zn_kb_get(b, groups), one);
  zn_s_store(lw, c->p, cell(lw, c, OWNER, k), mine);
  zn_kb_end(b);
  zn_kref num = zn_kb_get(b, groups);
  if (!sorted) { /* in order of first appearance */
    zn_kref seen = zn_kb_var(b, zero);
    i = zn_s_for(lw, c->n);
    g = zn_s_load(lw, c->p, cell(lw, c, OWNER, i));
    zn_kref f = zn_s_load(lw, c->p, cell(lw, c, FIRST, g));
    zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, f, i));
    zn_kref s = zn_kb_get(b, seen);
    zn_s_store(lw, c->p, cell(lw, c, RANK, g), s);
    zn_kb_set(b, seen, zn_s_inc(lw, s));
    zn_kb_end(b);
    zn_kb_end(b);
  }
  i = zn_s_for(lw, c->n);
  g = zn_s_load(lw, c->p, cell(lw, c, OWNER, i));
  zn_kref r = zn_s_load(lw, c->p, cell(lw, c, RANK, g));
  zn_kref f = zn_s_load(lw, c->p, cell(lw, c, FIRST, g));
  zn_s_store(lw, c->p, cell(lw, c, PLACE, r), f);
  zn_kref many = zn_s_load(lw, c->p, cell(lw, c, COUNT, r));
  zn_kref more = zn_s_inc(lw, many);
  zn_s_store(lw, c->p, cell(lw, c, COUNT, r), more);
  zn_kb_end(b);
  zn_kb_store(b, out_count, zero, zn_kb_cvt(b, num, ZN_I64));
}

static void write_values(zn_lw *lw, const uniq *u, zn_vid y, const cells *c) {
  zn_kb *b = &lw->kb;
  const zn_type ty = *zn_lw_type(lw, y);
  zn_expr idx[ZN_MAX_RANK], e = zn_ex_const(lw->ex, 0);
  for (int d = 0; d < ty.rank; d++) {
    idx[d] = zn_lw_for(lw, ty.dims[d], ZN_FOR_SERIAL, 0);
    if (d != u->axis) e = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, e, ty.dims[d]), idx[d]);
  }
  zn_kref k = zn_s_load(lw, c->p, cell(lw, c, PLACE, zn_lw_ix(lw, idx[u->axis])));
  zn_kref in = u->flat ? zn_kb_idx(b, 0) : zn_lw_ix(lw, e);
  zn_lw_store(lw, y, idx, at(lw, u, k, in));
  for (int d = 0; d < ty.rank; d++) zn_lw_end(lw);
}

static zn_vid out_of(const zn_lw *lw, zn_nid n, uint32_t i) {
  const zn_node *node = zn_lw_node(lw, n);
  return i < node->num_out ? node->out[i] : 0;
}

static void write_lists(zn_lw *lw, zn_nid n, const cells *c, zn_expr groups, zn_expr slices) {
  zn_kb *b = &lw->kb;
  zn_vid indices = out_of(lw, n, 1), inverse = out_of(lw, n, 2), counts = out_of(lw, n, 3);
  zn_expr i = zn_lw_for(lw, groups, ZN_FOR_SERIAL, 0);
  zn_kref k = zn_lw_ix(lw, i);
  zn_kref first = zn_s_load(lw, c->p, cell(lw, c, PLACE, k)), many = zn_s_load(lw, c->p, cell(lw, c, COUNT, k));
  if (indices) zn_lw_store(lw, indices, &i, zn_kb_cvt(b, first, ZN_I64));
  if (counts) zn_lw_store(lw, counts, &i, zn_kb_cvt(b, many, ZN_I64));
  zn_lw_end(lw);
  if (!inverse) return;
  i = zn_lw_for(lw, slices, ZN_FOR_SERIAL, 0);
  zn_kref g = zn_s_load(lw, c->p, cell(lw, c, OWNER, zn_lw_ix(lw, i)));
  zn_kref r = zn_s_load(lw, c->p, cell(lw, c, RANK, g));
  zn_lw_store(lw, inverse, &i, zn_kb_cvt(b, r, ZN_I64));
  zn_lw_end(lw);
}

static zn_status unique_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  uniq u = {.x = node->in[0], .t = *zn_lw_type(lw, node->in[0]), .flat = !zn_node_has(node, "axis")};
  int64_t a = zn_node_int(node, "axis");
  bool sorted = zn_node_int(node, "sorted") != 0;
  u.axis = u.flat ? 0 : (int)(a < 0 ? a + u.t.rank : a);
  u.n = u.flat ? zn_type_count(ex, &u.t) : u.t.dims[u.axis];
  u.inner = zn_ex_const(ex, 1);
  for (int d = 0; d < u.t.rank && !u.flat; d++)
    if (d != u.axis) u.inner = zn_ex_mul(ex, u.inner, u.t.dims[d]);
  zn_vid y = node->out[0];
  zn_expr groups = zn_lw_dim(lw, y, u.axis);
  zn_loc count = zn_lw_scratch(lw, zn_ex_const(ex, 8));
  zn_loc keys = zn_s_cells(lw, zn_ex_muli(ex, u.n, NUM_ARRAYS + 2));
  zn_lw_kernel(lw, n, "unique_groups");
  cells c = {.p = zn_lw_ptr_loc(lw, keys, ZN_KP_INOUT, ZN_I32)};
  c.n = zn_lw_ix(lw, u.n);
  find_groups(lw, &u, sorted, &c, zn_lw_ptr_loc(lw, count, ZN_KP_OUT, ZN_I64));
  zn_lw_kernel_end(lw);
  if (zn_ex_kind(ex, groups) == ZN_EX_SYM) zn_lw_define_sym(lw, groups, count);
  zn_lw_kernel(lw, n, "unique");
  c.p = zn_lw_ptr_loc(lw, keys, ZN_KP_IN, ZN_I32);
  c.n = zn_lw_ix(lw, u.n);
  write_values(lw, &u, y, &c);
  write_lists(lw, n, &c, groups, u.n);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_unique = {NULL, unique_kernel};
