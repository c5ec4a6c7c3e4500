/* Concat and Split without copies. An operand of a Concat that fills a contiguous piece of the result is computed there;
 * a piece that a Split cuts out of a tensor is read there. A Concat keeps its copies where sharing would raise the peak
 * of memory: its whole result would be alive from the first operand on. Static shapes only. */
#include <assert.h>

#include "codegen/lower/inplace.h"
#include "zenithc/ops/slice.h"

zn_vid zn_sharing_alias_root(const zn_graph *g, zn_vid v) {
  while (g->vals[v].alias) v = g->vals[v].alias;
  return v;
}

zn_vid zn_sharing_root(const zn_sharing *s, zn_vid v) {
  v = zn_sharing_alias_root(s->g, v);
  while (s->part_of[v]) v = zn_sharing_alias_root(s->g, s->part_of[v]);
  return v;
}

static uint32_t *run_positions(const zn_graph *g, zn_arena *a) {
  uint32_t *at = ZN_ARRAY(a, uint32_t, g->num_nodes + 1), *group_end = ZN_ARRAY(a, uint32_t, g->num_nodes + 1);
  uint32_t *reader = ZN_ARRAY(a, uint32_t, g->num_vals + 1); /* last position at which something reads the value */
  for (uint32_t i = 0; i < g->num_order; i++)
    if (g->nodes[g->order[i]].group) group_end[g->nodes[g->order[i]].group] = i;
  for (uint32_t i = g->num_order; i-- > 0;) {
    const zn_node *n = &g->nodes[g->order[i]];
    uint32_t pos = n->group ? group_end[n->group] : i;
    for (uint32_t k = 0; k < n->num_out; k++)
      if (n->out[k] && g->vals[n->out[k]].inlined && reader[n->out[k]] > pos) pos = reader[n->out[k]];
    at[g->order[i]] = pos;
    for (uint32_t k = 0; k < n->num_in; k++)
      if (n->in[k] && reader[n->in[k]] < pos) reader[n->in[k]] = pos;
  }
  return at;
}

static bool is_list(const zn_graph *g, zn_vid v) {
  return v && (g->vals[v].type.kind != ZN_V_TENSOR || g->vals[v].type.dtype == ZN_STR);
}

static bool touches_lists(const zn_graph *g, const zn_node *n) {
  bool any = false;
  for (uint32_t k = 0; k < n->num_in; k++) any |= is_list(g, n->in[k]);
  for (uint32_t k = 0; k < n->num_out; k++) any |= is_list(g, n->out[k]);
  return any;
}

static void keep_all(zn_sharing *s, const zn_node *n) {
  for (uint32_t k = 0; k < n->num_in; k++)
    if (n->in[k]) s->last_use[zn_sharing_root(s, n->in[k])] = UINT32_MAX;
  for (uint32_t k = 0; k < n->num_out; k++)
    if (n->out[k]) s->last_use[zn_sharing_root(s, n->out[k])] = UINT32_MAX;
}

static void find_last_uses(zn_sharing *s) {
  const zn_graph *g = s->g;
  memset(s->last_use, 0, (g->num_vals + 1) * sizeof *s->last_use);
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    for (uint32_t k = 0; k < n->num_in; k++) {
      zn_vid root = n->in[k] ? zn_sharing_root(s, n->in[k]) : 0;
      if (s->last_use[root] < s->run_at[g->order[i]]) s->last_use[root] = s->run_at[g->order[i]];
    }
  }
  for (uint32_t i = 0; i < g->num_order; i++) /* lists and strings point into what they were made of */
    if (touches_lists(g, &g->nodes[g->order[i]])) keep_all(s, &g->nodes[g->order[i]]);
  for (zn_vid v = 1; v < g->num_vals; v++)
    if (g->vals[v].is_output || g->vals[v].content) s->last_use[zn_sharing_root(s, v)] = UINT32_MAX;
}

/* ---- the peak of memory that a choice of parts leads to ---- */

static bool stored_bytes(zn_lw *lw, const zn_graph *g, zn_vid v, uint64_t *out) {
  const zn_value *val = &g->vals[v];
  uint64_t n = zn_dtype_bytes((zn_dtype)val->type.dtype);
  if (val->type.kind != ZN_V_TENSOR || val->type.rank < 0) return false;
  for (int d = 0; d < val->type.rank; d++) {
    int64_t e;
    if (!zn_ex_is_const(lw->ex, val->type.dims[d], &e)) return false;
    uint64_t x = (uint64_t)e + val->layout.lo[d] + val->layout.hi[d] + (d == val->type.rank - 2 ? val->layout.gap : 0);
    if (val->layout.block && val->layout.axis == d) x = (x + val->layout.block - 1) / val->layout.block * val->layout.block;
    n *= x;
  }
  *out = n;
  return true;
}

static bool is_buffer(const zn_graph *g, zn_vid v) {
  const zn_value *x = &g->vals[v];
  return x->def && !x->inlined && !x->cst && !zn_value_known(x) && !x->is_input;
}

static uint64_t peak(zn_lw *lw, zn_sharing *s) {
  const zn_graph *g = s->g;
  zn_arena *a = &lw->ctx->tmp;
  find_last_uses(s);
  uint32_t *first = ZN_ARRAY(a, uint32_t, g->num_vals + 1), n = g->num_order;
  int64_t *delta = ZN_ARRAY(a, int64_t, n + 2), live = 0, most = 0;
  for (zn_vid v = 1; v < g->num_vals; v++) first[v] = UINT32_MAX;
  for (zn_vid v = 1; v < g->num_vals; v++) {
    if (!is_buffer(g, v)) continue;
    zn_vid r = zn_sharing_root(s, v);
    if (s->run_at[g->vals[v].def] < first[r]) first[r] = s->run_at[g->vals[v].def];
  }
  for (zn_vid v = 1; v < g->num_vals; v++) {
    uint64_t bytes;
    if (first[v] == UINT32_MAX || s->last_use[v] == UINT32_MAX || !stored_bytes(lw, g, v, &bytes)) continue;
    uint32_t end = s->last_use[v] > first[v] ? s->last_use[v] : first[v];
    delta[first[v]] += (int64_t)bytes;
    delta[end + 1] -= (int64_t)bytes;
  }
  for (uint32_t i = 0; i < n; i++) {
    live += delta[i];
    if (live > most) most = live;
  }
  return (uint64_t)most;
}

/* ---- bands: where the pass of that name says ---- */

static uint64_t row_bytes(zn_lw *lw, const zn_value *x) {
  const int last = x->type.rank - 1;
  int64_t width = 0;
  zn_ex_is_const(lw->ex, x->type.dims[last], &width);
  uint64_t n = (uint64_t)width + x->layout.lo[last] + x->layout.hi[last];
  return n * (x->layout.block ? x->layout.block : 1) * zn_dtype_bytes((zn_dtype)x->type.dtype);
}

static void place_bands(zn_lw *lw, zn_sharing *s) {
  const zn_graph *g = s->g;
  for (zn_vid v = 1; v < g->num_vals; v++) {
    const zn_value *x = &g->vals[v];
    if (!x->within || x->inlined) continue;
    s->part_of[v] = x->within;
    s->part_at[v] = x->row * row_bytes(lw, x);
  }
}

/* The stored row of the outermost image at which row 0 of v lies. */
static int64_t first_row(const zn_graph *g, zn_vid v) {
  int64_t at = g->vals[v].layout.lo[g->vals[v].type.rank - 2];
  for (; g->vals[v].within; v = g->vals[v].within) at += g->vals[v].row;
  return at;
}

bool zn_lw_rows_lie_in(const zn_lw *lw, zn_vid part, zn_vid whole, int64_t first) {
  const zn_graph *g = lw->g;
  if (g->vals[part].inlined || g->vals[whole].inlined || !(g->vals[part].within || g->vals[whole].within)) return false;
  return zn_sharing_root(lw->sharing, part) == zn_sharing_root(lw->sharing, whole) &&
         first_row(g, part) == first_row(g, whole) + first;
}

bool zn_lw_is_window(const zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_expr start[ZN_MAX_RANK], step[ZN_MAX_RANK], count[ZN_MAX_RANK];
  const int rows = zn_lw_type(lw, node->out[0])->rank - 2;
  int64_t first;
  if (!lw->g->vals[node->out[0]].within || !zn_slice_resolve(lw->g, node, start, step, count)) return false;
  return zn_ex_is_const(lw->ex, start[rows], &first) && zn_lw_rows_lie_in(lw, node->out[0], node->in[0], first);
}

/* ---- parts ---- */

/* Is index `first` on `axis` of whole, to the length of part, one run of memory? Where does it start? */
static bool contiguous(zn_lw *lw, const zn_graph *g, zn_vid whole, zn_vid part, int axis, int64_t first, uint64_t *out_at) {
  const zn_value *w = &g->vals[whole], *p = &g->vals[part];
  uint64_t bytes, total;
  int64_t extent, len;
  if (w->type.dtype != p->type.dtype || memcmp(&w->layout, &p->layout, sizeof w->layout)) return false;
  if (!stored_bytes(lw, g, whole, &total) || !stored_bytes(lw, g, part, &bytes) || total == 0) return false;
  for (int d = 0; d < axis; d++)
    if (!zn_ex_is(lw->ex, w->type.dims[d], 1) || w->layout.lo[d] || w->layout.hi[d]) return false;
  if (w->layout.lo[axis] || w->layout.hi[axis] || (w->layout.block && w->layout.axis < axis)) return false;
  if (!zn_ex_is_const(lw->ex, w->type.dims[axis], &extent) || !zn_ex_is_const(lw->ex, p->type.dims[axis], &len)) return false;
  int64_t block = w->layout.block && w->layout.axis == axis ? w->layout.block : 1;
  if (first % block || len % block || extent % block || extent == 0) return false;
  *out_at = total / (uint64_t)extent * (uint64_t)first;
  return true;
}

static int axis_of(const zn_graph *g, const zn_node *n, zn_vid like) {
  int64_t a = zn_node_int(n, "axis");
  return (int)(a < 0 ? a + g->vals[like].type.rank : a);
}

/* May root be computed inside another value's buffer? */
static bool can_move(const zn_lw *lw, const zn_sharing *s, zn_vid root) {
  return is_buffer(s->g, root) && !s->part_of[root] && s->last_use[root] != UINT32_MAX &&
         lw->loc[root].kind == ZN_LOC_NONE && zn_ops[s->g->nodes[s->g->vals[root].def].op].flags != ZN_OPF_CONTROL;
}

/* A value that stands twice in a Concat has two places there. */
static bool occurs_twice(const zn_graph *g, const zn_node *n, zn_vid root) {
  uint32_t times = 0;
  for (uint32_t i = 0; i < n->num_in; i++) times += n->in[i] && zn_sharing_alias_root(g, n->in[i]) == root;
  return times > 1;
}

static void join(zn_lw *lw, zn_sharing *s, const zn_node *n) {
  const zn_graph *g = s->g;
  zn_vid whole = n->out[0], *moved = ZN_ARRAY(&lw->ctx->tmp, zn_vid, n->num_in);
  if (!is_buffer(g, whole) || g->vals[whole].alias) return;
  int axis = axis_of(g, n, whole);
  int64_t first = 0, len;
  uint64_t before = peak(lw, s), at;
  uint32_t num = 0;
  for (uint32_t i = 0; i < n->num_in; i++, first += len) {
    if (!zn_ex_is_const(lw->ex, g->vals[n->in[i]].type.dims[axis], &len)) break;
    zn_vid root = zn_sharing_alias_root(g, n->in[i]);
    uint64_t bytes, own;
    if (g->vals[n->in[i]].inlined || !can_move(lw, s, root) || root == zn_sharing_root(s, whole)) continue;
    if (occurs_twice(g, n, root) || !contiguous(lw, g, whole, n->in[i], axis, first, &at)) continue;
    if (!stored_bytes(lw, g, n->in[i], &bytes) || !stored_bytes(lw, g, root, &own) || bytes != own) continue;
    s->part_of[root] = whole;
    s->part_at[root] = at;
    moved[num++] = root;
  }
  if (num && peak(lw, s) > before)
    while (num) s->part_of[moved[--num]] = 0;
}

static void cut(zn_lw *lw, zn_sharing *s, const zn_node *n) {
  const zn_graph *g = s->g;
  zn_vid whole = n->in[0];
  const zn_value *w = &g->vals[whole];
  if (w->inlined || w->cst || zn_value_known(w)) return;
  int axis = axis_of(g, n, whole);
  int64_t first = 0, len;
  uint64_t at;
  for (uint32_t i = 0; i < n->num_out; i++, first += len) {
    zn_vid v = n->out[i];
    if (!v || !zn_ex_is_const(lw->ex, g->vals[v].type.dims[axis], &len)) return;
    if (!is_buffer(g, v) || g->vals[v].alias || g->vals[v].is_output || !can_move(lw, s, v)) continue;
    if (!contiguous(lw, g, whole, v, axis, first, &at)) continue;
    s->part_of[v] = whole;
    s->part_at[v] = at;
  }
}

zn_sharing *zn_sharing_find(zn_lw *lw, const zn_graph *g) {
  zn_arena *a = lw->arena;
  zn_sharing *s = ZN_NEW(a, zn_sharing);
  s->g = g;
  s->run_at = run_positions(g, a);
  s->part_of = ZN_ARRAY(a, zn_vid, g->num_vals + 1);
  s->part_at = ZN_ARRAY(a, uint64_t, g->num_vals + 1);
  s->took_over = ZN_ARRAY(a, bool, g->num_vals + 1);
  s->last_use = ZN_ARRAY(a, uint32_t, g->num_vals + 1);
  place_bands(lw, s);
  find_last_uses(s);
  for (uint32_t i = 0; i < g->num_order && lw->opts->opt_level > 0; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    if (n->op == ZN_OP_Concat) join(lw, s, n);
    if (n->op == ZN_OP_Split) cut(lw, s, n);
  }
  find_last_uses(s);
  return s;
}
