/* Sequence operators. A new sequence is a new array of zn_tensors; items are shared, never copied. */
#include "codegen/lower/lists.h"
#include "runtime/zenith.h"

static zn_expr list_bytes(zn_lw *lw, zn_expr n) { return zn_ex_muli(lw->ex, n, ZN_TENSOR_BYTES); }

static zn_expr atleast0(zn_lw *lw, zn_expr n) { return zn_ex_max(lw->ex, n, zn_ex_const(lw->ex, 0)); }

static uint32_t code_of(const zn_lw *lw, zn_vid v) { return zn_lw_code(zn_lw_type(lw, v)); }

static zn_kref item_array(zn_lw *lw, zn_loc items) { return zn_lw_ptr_loc(lw, items, ZN_KP_OUT, ZN_U64); }

static zn_status construct(zn_lw *lw, zn_nid n) {
  uint32_t num = zn_lw_node(lw, n)->num_in;
  zn_held *held = ZN_ARRAY(lw->arena, zn_held, num + 1);
  for (uint32_t i = 0; i < num; i++) held[i] = zn_ls_hold(lw, n, zn_lw_node(lw, n)->in[i]);
  zn_vid y = zn_lw_node(lw, n)->out[0];
  zn_expr len = zn_ex_const(lw->ex, num);
  zn_loc items = zn_lw_keep(lw, list_bytes(lw, zn_ex_const(lw->ex, num ? num : 1)));
  zn_lw_kernel(lw, n, "sequence");
  zn_kref to = item_array(lw, items);
  for (uint32_t i = 0; i < num; i++) {
    zn_kref k = zn_kb_idx(&lw->kb, i);
    zn_ls_put(lw, zn_ls_at(lw, to, k), &held[i]);
  }
  zn_kref count = zn_kb_idx(&lw->kb, num);
  zn_ls_write_list(lw, zn_ls_ptr(lw, y, ZN_KP_OUT), to, count, code_of(lw, y));
  zn_lw_kernel_end(lw);
  zn_ls_know_len(lw, y, len);
  return ZN_OK;
}

/* Copies the n items of `from` to `to`, leaving a gap in front of item `gap` (insert) or leaving item `gap` out. */
static void copy_items(zn_lw *lw, zn_kref to, zn_kref from, zn_kref n, zn_kref gap, bool insert) {
  zn_kb *b = &lw->kb;
  zn_kref k = zn_s_for(lw, n), later = zn_kb_cmp(b, ZN_K_Ge, k, gap), next = zn_s_inc(lw, k);
  zn_kref other = zn_kb_select(b, later, next, k);
  zn_kref item = zn_ls_item(lw, from, insert ? k : other);
  zn_ls_copy(lw, zn_ls_at(lw, to, insert ? other : k), item);
  zn_kb_end(b);
}

static zn_status insert(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid s = node->in[0], x = node->in[1], pos = zn_node_in(node, 2), y = node->out[0];
  zn_expr len = zn_ls_len(lw, n, s), more = zn_ex_addi(lw->ex, len, 1);
  zn_held held = zn_ls_hold(lw, n, x);
  zn_loc items = zn_lw_keep(lw, list_bytes(lw, more));
  zn_lw_kernel(lw, n, "sequence_insert");
  zn_kb *b = &lw->kb;
  zn_kref from = zn_ls_ptr(lw, s, ZN_KP_IN), to = item_array(lw, items), ok;
  zn_kref count = zn_lw_ix(lw, len), room = zn_lw_ix(lw, more), zero = zn_kb_idx(b, 0);
  zn_kref raw = zn_ls_position(lw, pos, count, count, &ok); /* the end is a position too */
  zn_kref at_end = zn_kb_cmp(b, ZN_K_Eq, raw, count);
  ok = zn_kb_bin(b, ZN_K_Or, ok, at_end);
  zn_lw_fail_if(lw, zn_kb_un(b, ZN_K_Not, ok), ZN_RUN_INDEX);
  zn_kref at = zn_kb_select(b, ok, raw, zero);
  copy_items(lw, to, from, count, at, true);
  zn_ls_put(lw, zn_ls_at(lw, to, at), &held);
  zn_ls_write_list(lw, zn_ls_ptr(lw, y, ZN_KP_OUT), to, room, code_of(lw, y));
  zn_lw_kernel_end(lw);
  zn_lw_check(lw);
  zn_ls_know_len(lw, y, more);
  return ZN_OK;
}

static zn_status erase(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid s = node->in[0], pos = zn_node_in(node, 1), y = node->out[0];
  zn_expr len = zn_ls_len(lw, n, s), less = atleast0(lw, zn_ex_addi(lw->ex, len, -1));
  zn_loc items = zn_lw_keep(lw, list_bytes(lw, zn_ex_addi(lw->ex, less, 1)));
  zn_lw_kernel(lw, n, "sequence_erase");
  zn_kb *b = &lw->kb;
  zn_kref from = zn_ls_ptr(lw, s, ZN_KP_IN), to = item_array(lw, items), ok;
  zn_kref count = zn_lw_ix(lw, len), left = zn_lw_ix(lw, less), minus = zn_kb_idx(b, -1);
  zn_kref at = zn_ls_position(lw, pos, count, minus, &ok);
  zn_lw_fail_if(lw, zn_kb_un(b, ZN_K_Not, ok), ZN_RUN_INDEX);
  zn_kb_if(b, ok);
  copy_items(lw, to, from, left, at, false);
  zn_kb_end(b);
  zn_ls_write_list(lw, zn_ls_ptr(lw, y, ZN_KP_OUT), to, left, code_of(lw, y));
  zn_lw_kernel_end(lw);
  zn_lw_check(lw);
  zn_ls_know_len(lw, y, less);
  return ZN_OK;
}

static zn_status unknown_rank(zn_lw *lw, zn_nid n) {
  return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, zn_lw_node(lw, n)),
                 "the rank of the sequence's tensors is not known before the run");
}

static zn_status at(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid s = node->in[0], pos = node->in[1], y = node->out[0];
  const zn_type list = *zn_lw_type(lw, s);
  bool is_map = zn_lw_type(lw, y)->kind != ZN_V_TENSOR;
  if (!is_map && zn_lw_type(lw, y)->rank < 0) return unknown_rank(lw, n);
  zn_taken t = {0};
  if (!is_map) t = zn_ls_prepare(lw, y, &list);
  zn_lw_kernel(lw, n, "sequence_at");
  zn_kb *b = &lw->kb;
  zn_kref from = zn_ls_ptr(lw, s, ZN_KP_IN), count = zn_ls_count(lw, from), ok;
  zn_kref i = zn_ls_position(lw, pos, count, 0, &ok);
  zn_lw_fail_if(lw, zn_kb_un(b, ZN_K_Not, ok), ZN_RUN_INDEX);
  zn_kref to = is_map ? zn_ls_ptr(lw, y, ZN_KP_OUT) : 0;
  zn_kb_if(b, ok);
  zn_kref item = zn_ls_item(lw, from, i);
  if (is_map) zn_ls_copy(lw, to, item);
  else zn_ls_take(lw, &t, item);
  zn_kb_end(b);
  zn_lw_kernel_end(lw);
  if (is_map) zn_lw_check(lw);
  else zn_ls_finish(lw, n, &t);
  return ZN_OK;
}

static zn_status length(zn_lw *lw, zn_nid n) {
  zn_vid y = zn_lw_node(lw, n)->out[0];
  zn_expr len = zn_ls_len(lw, n, zn_lw_node(lw, n)->in[0]);
  zn_lw_kernel(lw, n, "sequence_length");
  zn_lw_store(lw, y, &len, zn_kb_cvt(&lw->kb, zn_lw_ix(lw, len), ZN_I64));
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

/* ---------------------------------------------------------------- SplitToSequence */

typedef struct cut {
  zn_vid x, split, y;
  zn_type t;
  int axis;
  zn_expr len;      /* pieces */
  zn_expr inner;    /* elements behind the axis */
  bool list, drop;  /* sizes are a list; the axis goes */
  zn_expr chunk;    /* !list */
} cut;

/* An integer element of v as expression: known to inference, or read by the run. */
static zn_expr scalar_expr(zn_lw *lw, zn_nid n, zn_vid v) {
  const zn_value *val = &lw->g->vals[v];
  int64_t c;
  uint32_t k;
  if (zn_value_i64s(lw->g, v, &c, 1, &k) && k == 1) return zn_ex_const(lw->ex, c);
  if (val->elems) return val->elems[0];
  zn_expr s = zn_ex_var(lw->ex, "chunk", ZN_EX_NONE), zeros[ZN_MAX_RANK];
  zn_loc cell = zn_lw_scratch(lw, zn_ex_const(lw->ex, 8));
  for (int d = 0; d < ZN_MAX_RANK; d++) zeros[d] = zn_ex_const(lw->ex, 0);
  zn_lw_kernel(lw, n, "scalar");
  zn_kref x = zn_kb_cvt(&lw->kb, zn_lw_load(lw, v, zeros), ZN_I64);
  zn_lw_fail_if(lw, zn_kb_cmp(&lw->kb, ZN_K_Lt, x, zn_kb_int(&lw->kb, ZN_I64, 1)), ZN_RUN_DOMAIN);
  zn_kref p = zn_lw_ptr_loc(lw, cell, ZN_KP_OUT, ZN_I64);
  zn_kb_store(&lw->kb, p, zn_kb_idx(&lw->kb, 0), x);
  zn_lw_kernel_end(lw);
  zn_lw_check(lw);
  zn_lw_define_sym(lw, s, cell);
  return s;
}

/* Piece number k: start of it along the axis, its size (idx values), within [0, dim]. */
static void piece(zn_lw *lw, const cut *c, zn_kref k, zn_kref start, zn_kref *out_size) {
  zn_kb *b = &lw->kb;
  zn_kref dim = zn_lw_ix(lw, c->t.dims[c->axis]), left = zn_kb_bin(b, ZN_K_Sub, dim, start), zero = zn_kb_idx(b, 0);
  zn_kref want;
  if (c->list) {
    zn_expr i = zn_lw_as_expr(lw, k, c->len);
    want = zn_kb_cvt(b, zn_lw_load(lw, c->split, &i), ZN_IDX);
    zn_kref low = zn_kb_cmp(b, ZN_K_Lt, want, zero), high = zn_kb_cmp(b, ZN_K_Gt, want, left);
    zn_kref bad = zn_kb_bin(b, ZN_K_Or, low, high);
    zn_lw_fail_if(lw, bad, ZN_RUN_SHAPE);
    want = zn_kb_select(b, bad, zero, want);
  } else {
    want = zn_kb_bin(b, ZN_K_Min, zn_lw_ix(lw, c->chunk), left);
  }
  *out_size = want;
}

/* Elements [start, start + size) of the axis, one piece after the other; first: element offset of the piece. */
static void copy_piece(zn_lw *lw, const cut *c, zn_kref data, zn_kref first, zn_kref start, zn_kref size) {
  zn_exprs *ex = lw->ex;
  zn_dtype t = (zn_dtype)c->t.dtype;
  zn_expr idx[ZN_MAX_RANK], big = zn_ex_const(ex, INT32_MAX), flat = zn_ex_const(ex, 0);
  zn_expr n = zn_lw_as_expr(lw, size, big), from = zn_lw_as_expr(lw, start, big);
  for (int d = 0; d < c->t.rank; d++) {
    zn_expr extent = d == c->axis ? n : c->t.dims[d];
    idx[d] = zn_lw_for(lw, extent, ZN_FOR_SERIAL, 0);
    flat = zn_ex_add(ex, zn_ex_mul(ex, flat, extent), idx[d]);
  }
  idx[c->axis] = zn_ex_add(ex, idx[c->axis], from);
  zn_kref x = zn_lw_load(lw, c->x, idx);
  zn_expr base = zn_lw_as_expr(lw, first, big);
  zn_lw_store_at(lw, data, t, zn_ex_add(ex, base, flat), x);
  for (int d = 0; d < c->t.rank; d++) zn_lw_end(lw);
}

static void write_pieces(zn_lw *lw, const cut *c, zn_loc elements, zn_loc items) {
  zn_kb *b = &lw->kb;
  zn_dtype t = (zn_dtype)c->t.dtype;
  zn_kref data = zn_lw_ptr_loc(lw, elements, ZN_KP_OUT, ZN_U8), to = item_array(lw, items), zero = zn_kb_idx(b, 0);
  zn_kref esize = zn_kb_idx(b, zn_dtype_bytes(t)), outer = zn_kb_idx(b, 1);
  for (int d = 0; d < c->t.rank; d++)
    if (d != c->axis) outer = zn_s_mul(lw, outer, zn_lw_ix(lw, c->t.dims[d]));
  zn_kref at_var = zn_kb_var(b, zero), len = zn_lw_ix(lw, c->len);
  zn_kref k = zn_s_for(lw, len), start = zn_kb_get(b, at_var), size, dims[ZN_MAX_RANK];
  piece(lw, c, k, start, &size);
  zn_kref first = zn_s_mul(lw, start, outer), count = zn_s_mul(lw, size, outer);
  copy_piece(lw, c, data, first, start, size);
  uint32_t rank = 0;
  for (int d = 0; d < c->t.rank; d++)
    if (d != c->axis || !c->drop) dims[rank++] = d == c->axis ? size : zn_lw_ix(lw, c->t.dims[d]);
  zn_kref where = zn_kb_ptradd(b, data, zn_s_mul(lw, first, esize));
  zn_kref bytes = zn_s_mul(lw, count, esize);
  zn_ls_write(lw, zn_ls_at(lw, to, k), where, bytes, zn_lw_code(&c->t), rank, dims);
  zn_kb_set(b, at_var, zn_s_add(lw, start, size));
  zn_kb_end(b);
  zn_ls_write_list(lw, zn_ls_ptr(lw, c->y, ZN_KP_OUT), to, len, code_of(lw, c->y));
}

static zn_status split(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  cut c = {.x = node->in[0], .split = zn_node_in(node, 1), .y = node->out[0], .t = *zn_lw_type(lw, node->in[0])};
  int64_t a = zn_node_int(node, "axis");
  if (c.t.rank < 1) return unknown_rank(lw, n);
  c.axis = (int)(a < 0 ? a + c.t.rank : a);
  c.drop = !c.split && !zn_node_int(node, "keepdims");
  c.list = c.split && zn_lw_type(lw, c.split)->rank == 1;
  c.chunk = zn_ex_const(lw->ex, 1);
  if (c.split && !c.list) c.chunk = scalar_expr(lw, n, c.split);
  c.len = c.list ? zn_lw_dim(lw, c.split, 0) : zn_ex_ceildiv(lw->ex, c.t.dims[c.axis], c.chunk);
  zn_loc elements = zn_lw_keep(lw, zn_lw_bytes(lw, &c.t));
  zn_loc items = zn_lw_keep(lw, list_bytes(lw, c.len));
  zn_lw_kernel(lw, n, "split");
  write_pieces(lw, &c, elements, items);
  zn_lw_kernel_end(lw);
  zn_lw_check(lw);
  zn_ls_know_len(lw, c.y, c.len);
  return ZN_OK;
}

/* ---------------------------------------------------------------- ConcatFromSequence */

typedef struct joint {
  zn_vid s, y;
  zn_type list, t; /* of the sequence; of the result */
  int axis;        /* of the result */
  bool fresh;      /* a new axis */
  zn_expr len;
  bool own[ZN_MAX_RANK]; /* sizes that the items decide */
} joint;

/* Dimension of an item that becomes dimension d of the result; -1: none (the new axis). */
static int item_dim(const joint *j, int d) { return !j->fresh || d < j->axis ? d : d == j->axis ? -1 : d - 1; }

/* All items fit together; sizes that they decide go to cells. */
static void measure(zn_lw *lw, const joint *j, zn_loc cells) {
  zn_kb *b = &lw->kb;
  zn_kref from = zn_ls_ptr(lw, j->s, ZN_KP_IN), n = zn_ls_count(lw, from), zero = zn_kb_idx(b, 0);
  zn_kref out = zn_lw_ptr_loc(lw, cells, ZN_KP_OUT, ZN_I64), total = zn_kb_var(b, zero);
  int rank = j->fresh ? j->t.rank - 1 : j->t.rank;
  zn_type item = {.kind = ZN_V_TENSOR, .dtype = j->t.dtype, .rank = (int8_t)rank};
  zn_kref some = zn_kb_cmp(b, ZN_K_Gt, n, zero);
  zn_lw_fail_if(lw, zn_kb_un(b, ZN_K_Not, some), ZN_RUN_DOMAIN);
  zn_kref k = zn_s_for(lw, n), x = zn_ls_item(lw, from, k), first = zn_ls_item(lw, from, zero);
  zn_kref code = zn_ls_field(lw, x, ZN_T_DTYPE, ZN_U32), r = zn_ls_field(lw, x, ZN_T_RANK, ZN_U32);
  zn_lw_fail_if(lw, zn_kb_cmp(b, ZN_K_Ne, code, zn_kb_int(b, ZN_U32, zn_lw_code(&item))), ZN_RUN_DTYPE);
  zn_lw_fail_if(lw, zn_kb_cmp(b, ZN_K_Ne, r, zn_kb_int(b, ZN_U32, rank)), ZN_RUN_RANK);
  for (int d = 0; d < j->t.rank; d++) {
    int e = item_dim(j, d);
    if (e < 0) continue;
    zn_kref have = zn_ls_dim(lw, x, e);
    if (d == j->axis) {
      zn_kref sum = zn_kb_get(b, total);
      zn_kb_set(b, total, zn_s_add(lw, sum, have));
      continue;
    }
    zn_kref want = j->own[d] ? zn_ls_dim(lw, first, e) : zn_lw_ix(lw, j->t.dims[d]);
    zn_lw_fail_if(lw, zn_kb_cmp(b, ZN_K_Ne, have, want), ZN_RUN_SHAPE);
    if (!j->own[d]) continue;
    zn_kref size = zn_kb_cvt(b, have, ZN_I64);
    zn_kb_store(b, out, zn_kb_idx(b, d), size);
  }
  zn_kb_end(b);
  zn_kref all = j->fresh ? n : zn_kb_get(b, total);
  zn_kref whole = zn_kb_cvt(b, all, ZN_I64);
  zn_kb_store(b, out, zn_kb_idx(b, j->axis), whole);
}

static void join(zn_lw *lw, const joint *j) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  zn_dtype t = (zn_dtype)j->t.dtype;
  zn_expr outer = zn_ex_const(ex, 1), inner = outer, big = zn_ex_const(ex, INT32_MAX);
  for (int d = 0; d < j->t.rank; d++) {
    if (d < j->axis) outer = zn_ex_mul(ex, outer, j->t.dims[d]);
    if (d > j->axis) inner = zn_ex_mul(ex, inner, j->t.dims[d]);
  }
  zn_kref from = zn_ls_ptr(lw, j->s, ZN_KP_IN), n = zn_ls_count(lw, from);
  zn_kref y = zn_lw_ptr(lw, j->y, ZN_KP_OUT), filled = zn_kb_var(b, zn_kb_idx(b, 0));
  zn_kref k = zn_s_for(lw, n), x = zn_ls_item(lw, from, k), start = zn_kb_get(b, filled);
  zn_kref size = j->fresh ? zn_kb_idx(b, 1) : zn_ls_dim(lw, x, j->axis);
  zn_kref data = zn_ls_field(lw, x, ZN_T_DATA, ZN_PTR);
  zn_expr part = zn_lw_as_expr(lw, zn_s_mul(lw, size, zn_lw_ix(lw, inner)), big);
  zn_expr base = zn_lw_as_expr(lw, zn_s_mul(lw, start, zn_lw_ix(lw, inner)), big);
  zn_expr row = zn_ex_mul(ex, j->t.dims[j->axis], inner);
  zn_expr o = zn_lw_for(lw, outer, ZN_FOR_SERIAL, 0), i = zn_lw_for(lw, part, ZN_FOR_SERIAL, 0);
  zn_kref v = zn_lw_load_at(lw, data, t, zn_ex_add(ex, zn_ex_mul(ex, o, part), i));
  zn_lw_store_at(lw, y, t, zn_ex_add(ex, zn_ex_mul(ex, o, row), zn_ex_add(ex, base, i)), v);
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_kb_set(b, filled, zn_s_add(lw, start, size));
  zn_kb_end(b);
}

static zn_status concat(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  joint j = {.s = node->in[0], .y = node->out[0], .list = *zn_lw_type(lw, node->in[0]), .t = *zn_lw_type(lw, node->out[0])};
  if (j.t.rank < 0) return unknown_rank(lw, n);
  int64_t a = zn_node_int(node, "axis");
  j.fresh = zn_node_int(node, "new_axis") != 0;
  j.axis = (int)(a < 0 ? a + j.t.rank : a);
  for (int d = 0; d < j.t.rank; d++) {
    int e = item_dim(&j, d);
    j.own[d] = d == j.axis || j.list.rank < 0 || j.list.dims[e] == ZN_EX_NONE;
  }
  zn_loc cells = zn_lw_scratch(lw, zn_ex_const(lw->ex, 8 * ZN_MAX_RANK));
  zn_lw_kernel(lw, n, "concat_sizes");
  measure(lw, &j, cells);
  zn_lw_kernel_end(lw);
  zn_lw_check(lw);
  for (int d = 0; d < j.t.rank; d++)
    if (j.own[d] && zn_ex_kind(lw->ex, j.t.dims[d]) == ZN_EX_SYM)
      zn_lw_define_sym_at(lw, j.t.dims[d], cells, (uint32_t)d);
  zn_lw_kernel(lw, n, "concat");
  join(lw, &j);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

zn_status zn_lower_sequence_map(zn_lw *lw, zn_nid n);

static zn_status sequence_kernel(zn_lw *lw, zn_nid n) {
  switch (zn_lw_node(lw, n)->op) {
  case ZN_OP_SequenceEmpty:
  case ZN_OP_SequenceConstruct: return construct(lw, n);
  case ZN_OP_SequenceInsert: return insert(lw, n);
  case ZN_OP_SequenceErase: return erase(lw, n);
  case ZN_OP_SequenceAt: return at(lw, n);
  case ZN_OP_SequenceLength: return length(lw, n);
  case ZN_OP_SplitToSequence: return split(lw, n);
  case ZN_OP_ConcatFromSequence: return concat(lw, n);
  default: return zn_lower_sequence_map(lw, n);
  }
}
const zn_lower zn_lower_sequence = {NULL, sequence_kernel};

/* ---------------------------------------------------------------- optionals */

static zn_status optional_new(zn_lw *lw, zn_nid n) {
  zn_vid x = zn_node_in(zn_lw_node(lw, n), 0), y = zn_lw_node(lw, n)->out[0];
  zn_held held = {0};
  if (x) held = zn_ls_hold(lw, n, x);
  zn_loc item = zn_lw_keep(lw, list_bytes(lw, zn_ex_const(lw->ex, 1)));
  zn_lw_kernel(lw, n, "optional");
  zn_kref to = item_array(lw, item);
  if (x) zn_ls_put(lw, to, &held);
  zn_kref count = zn_kb_idx(&lw->kb, x != 0);
  zn_ls_write_list(lw, zn_ls_ptr(lw, y, ZN_KP_OUT), to, count, code_of(lw, y));
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

static void wrap(zn_lw *lw, zn_nid n, zn_loc src, const zn_type *to, zn_loc dst) {
  zn_loc item = zn_lw_keep(lw, list_bytes(lw, zn_ex_const(lw->ex, 1)));
  zn_lw_kernel(lw, n, "wrap");
  zn_kref one = item_array(lw, item), out = zn_lw_ptr_loc(lw, dst, ZN_KP_OUT, ZN_U64);
  zn_ls_copy(lw, one, zn_lw_ptr_loc(lw, src, ZN_KP_IN, ZN_U64));
  zn_ls_write_list(lw, out, one, zn_kb_idx(&lw->kb, 1), zn_lw_code(to));
  zn_lw_kernel_end(lw);
}

static void unwrap(zn_lw *lw, zn_nid n, zn_loc src, zn_loc dst) {
  zn_lw_kernel(lw, n, "unwrap");
  zn_kb *b = &lw->kb;
  zn_kref opt = zn_lw_ptr_loc(lw, src, ZN_KP_IN, ZN_U64), zero = zn_kb_idx(b, 0);
  zn_kref out = zn_lw_ptr_loc(lw, dst, ZN_KP_OUT, ZN_U64);
  zn_kref has = zn_kb_cmp(b, ZN_K_Gt, zn_ls_count(lw, opt), zero);
  zn_lw_fail_if(lw, zn_kb_un(b, ZN_K_Not, has), ZN_RUN_DOMAIN);
  zn_kb_if(b, has);
  zn_ls_copy(lw, out, zn_ls_item(lw, opt, zero));
  zn_kb_end(b);
  zn_lw_kernel_end(lw);
  zn_lw_check(lw);
}

void zn_ls_convert(zn_lw *lw, zn_nid n, const zn_type *from, zn_loc src, const zn_type *to, zn_loc dst) {
  if (to->kind == ZN_V_OPT && from->kind == ZN_V_SEQ) wrap(lw, n, src, to, dst);
  else if (to->kind == ZN_V_SEQ && from->kind == ZN_V_OPT) unwrap(lw, n, src, dst);
  else zn_lw_copy(lw, n, from, src, dst);
}

static zn_status has_element(zn_lw *lw, zn_nid n) {
  zn_vid x = zn_node_in(zn_lw_node(lw, n), 0), y = zn_lw_node(lw, n)->out[0];
  bool list = x && zn_lw_type(lw, x)->kind == ZN_V_OPT;
  zn_expr zero = zn_ex_const(lw->ex, 0);
  zn_lw_kernel(lw, n, "has_element");
  zn_kb *b = &lw->kb;
  zn_kref has = zn_kb_int(b, ZN_BOOL, x != 0);
  if (list) {
    zn_kref none = zn_kb_idx(b, 0);
    has = zn_kb_cmp(b, ZN_K_Gt, zn_ls_count(lw, zn_ls_ptr(lw, x, ZN_KP_IN)), none);
  }
  zn_lw_store(lw, y, &zero, has);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

static zn_status get_element(zn_lw *lw, zn_nid n) {
  zn_vid x = zn_lw_node(lw, n)->in[0], y = zn_lw_node(lw, n)->out[0];
  const zn_type from = *zn_lw_type(lw, x), to = *zn_lw_type(lw, y);
  if (from.kind != ZN_V_OPT) { /* the value itself */
    zn_loc at = zn_lw_loc(lw, y);
    zn_lw_copy(lw, n, &to, zn_lw_source(lw, n, x), at);
    return ZN_OK;
  }
  bool list = to.kind != ZN_V_TENSOR;
  if (!list && to.rank < 0) return unknown_rank(lw, n);
  zn_taken t = {0};
  if (!list) t = zn_ls_prepare(lw, y, &from);
  zn_lw_kernel(lw, n, "get_element");
  zn_kb *b = &lw->kb;
  zn_kref opt = zn_ls_ptr(lw, x, ZN_KP_IN), zero = zn_kb_idx(b, 0);
  zn_kref out = list ? zn_ls_ptr(lw, y, ZN_KP_OUT) : 0;
  zn_kref has = zn_kb_cmp(b, ZN_K_Gt, zn_ls_count(lw, opt), zero);
  zn_lw_fail_if(lw, zn_kb_un(b, ZN_K_Not, has), ZN_RUN_DOMAIN);
  zn_kb_if(b, has);
  zn_kref item = zn_ls_item(lw, opt, zero);
  if (list) zn_ls_copy(lw, out, item);
  else zn_ls_take(lw, &t, item);
  zn_kb_end(b);
  zn_lw_kernel_end(lw);
  if (list) zn_lw_check(lw);
  else zn_ls_finish(lw, n, &t);
  return ZN_OK;
}

static zn_status optional_kernel(zn_lw *lw, zn_nid n) {
  switch (zn_lw_node(lw, n)->op) {
  case ZN_OP_OptionalHasElement: return has_element(lw, n);
  case ZN_OP_OptionalGetElement: return get_element(lw, n);
  default: return optional_new(lw, n);
  }
}
const zn_lower zn_lower_optional = {NULL, optional_kernel};
