/* TopK: stable, ties by the lower index. Few wanted: insertion into a short sorted list while reading the line once. Many
 * or an unknown number: a merge sort of the line's positions. */
#include <string.h>

#include "codegen/lower/sortkeys.h"

enum { SHORT_LIST = 32 };

typedef struct topk {
  zn_vid x, values, indices;
  zn_type t;
  int axis;
  zn_expr k, n;
  bool largest;
  zn_expr idx[ZN_MAX_RANK];
} topk;

static zn_kref at(zn_lw *lw, topk *s, zn_kref pos) {
  zn_expr idx[ZN_MAX_RANK];
  memcpy(idx, s->idx, sizeof idx);
  idx[s->axis] = zn_lw_as_expr(lw, pos, s->n);
  return zn_lw_load(lw, s->x, idx);
}

static zn_kref before(zn_lw *lw, void *user, zn_kref a, zn_kref b) {
  topk *s = user;
  zn_kref x = at(lw, s, a), y = at(lw, s, b);
  return zn_value_before(lw, x, y, s->largest);
}

/* keys[0 .. k) become the best positions: each element walks up from the end of the list. */
static void select_short(zn_lw *lw, topk *s, zn_kref keys) {
  zn_kb *b = &lw->kb;
  zn_kref n = zn_lw_ix(lw, s->n), k = zn_lw_ix(lw, s->k), zero = zn_kb_idx(b, 0), one = zn_kb_idx(b, 1);
  zn_kref have = zn_kb_var(b, zero);
  zn_kref i = zn_s_for(lw, n);
  zn_kref h = zn_kb_get(b, have);
  zn_kref x = at(lw, s, i);
  zn_kref pos = zn_kb_var(b, h);
  zn_kb_loop(b); /* pos: where i goes; elements behind it move down */
  zn_kref p = zn_kb_get(b, pos);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Le, p, zero));
  zn_kref up = zn_kb_bin(b, ZN_K_Sub, p, one);
  zn_kref other = zn_s_load(lw, keys, up);
  zn_kref y = at(lw, s, other);
  zn_kref first = zn_value_before(lw, x, y, s->largest);
  zn_kb_break(b, zn_kb_un(b, ZN_K_Not, first));
  zn_kref fits = zn_kb_cmp(b, ZN_K_Lt, p, k);
  zn_kb_if(b, fits);
  zn_s_store(lw, keys, p, other);
  zn_kb_end(b);
  zn_kb_set(b, pos, up);
  zn_kb_end(b);
  zn_kref place = zn_kb_get(b, pos);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, place, k));
  zn_s_store(lw, keys, place, i);
  zn_kb_end(b);
  zn_kref more = zn_s_inc(lw, h);
  zn_kb_set(b, have, zn_kb_bin(b, ZN_K_Min, more, k));
  zn_kb_end(b);
}

static void write_results(zn_lw *lw, topk *s, zn_kref keys, zn_kref base) {
  zn_kb *b = &lw->kb;
  zn_expr j = zn_lw_for(lw, s->k, ZN_FOR_SERIAL, 0);
  zn_kref from = zn_s_load(lw, keys, zn_s_add(lw, base, zn_lw_ix(lw, j)));
  zn_kref x = at(lw, s, from);
  zn_expr idx[ZN_MAX_RANK];
  memcpy(idx, s->idx, sizeof idx);
  idx[s->axis] = j;
  if (s->values) zn_lw_store(lw, s->values, idx, x);
  if (s->indices) zn_lw_store(lw, s->indices, idx, zn_kb_cvt(b, from, ZN_I64));
  zn_lw_end(lw);
}

static zn_status topk_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  topk s = {.x = node->in[0], .values = node->out[0], .t = *zn_lw_type(lw, node->in[0])};
  s.indices = node->num_out > 1 ? node->out[1] : 0;
  int64_t a = zn_node_int(node, "axis"), lo, hi;
  s.axis = (int)(a < 0 ? a + s.t.rank : a);
  s.largest = zn_node_int(node, "largest") != 0;
  s.k = zn_lw_dim(lw, s.values ? s.values : s.indices, s.axis);
  s.n = s.t.dims[s.axis];
  zn_ex_range(ex, s.k, &lo, &hi);
  bool few = hi <= SHORT_LIST;
  zn_expr extents[ZN_MAX_RANK], vars[ZN_MAX_RANK], lanes = zn_ex_const(ex, 1);
  uint32_t g = 0;
  for (int d = 0; d < s.t.rank; d++) {
    if (d == s.axis) continue;
    extents[g++] = s.t.dims[d];
    lanes = zn_ex_mul(ex, lanes, s.t.dims[d]);
  }
  zn_lw_require_le(lw, s.k, s.n);
  zn_loc cells = {0};
  if (!few) cells = zn_s_cells(lw, zn_ex_muli(ex, zn_ex_mul(ex, lanes, s.n), 2));
  zn_lw_kernel(lw, n, "topk");
  zn_kb *b = &lw->kb;
  zn_kref keys = few ? zn_kb_alloc(b, ZN_I32, SHORT_LIST) : 0;
  zn_lw_grid(lw, g, extents, vars);
  zn_expr lane = zn_ex_const(ex, 0);
  for (int d = 0, k = 0; d < s.t.rank; d++) {
    if (d == s.axis) continue;
    s.idx[d] = vars[k++];
    lane = zn_ex_add(ex, zn_ex_mul(ex, lane, s.t.dims[d]), s.idx[d]);
  }
  zn_kref base = zn_kb_idx(b, 0);
  if (few) {
    select_short(lw, &s, keys);
  } else {
    keys = zn_lw_ptr_loc(lw, cells, ZN_KP_INOUT, ZN_I32);
    base = zn_lw_ix(lw, zn_ex_muli(ex, zn_ex_mul(ex, lane, s.n), 2));
    zn_kref count = zn_lw_ix(lw, s.n);
    zn_kref i = zn_s_for(lw, count);
    zn_s_store(lw, keys, zn_s_add(lw, base, i), i);
    zn_kb_end(b);
    base = zn_sort_keys(lw, keys, base, count, before, &s);
  }
  write_results(lw, &s, keys, base);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_topk = {NULL, topk_kernel};
