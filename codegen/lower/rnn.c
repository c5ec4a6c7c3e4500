/* RNN, GRU and LSTM. The products of all inputs with W and the biases are one matrix product per direction; then kernels
 * walk the time steps of every direction and group of batch items (which share what is loaded of R) with the state in
 * scratch memory. R is read transposed, so that lanes run over the gates' columns: when it is constant in panels of the
 * columns that are computed at once, so that it is one stream. */
#include <string.h>

#include "codegen/lower/gemm.h"
#include "codegen/lower/rnn.h"

enum { MAX_JAM = 4, MAX_VECTORS = 8 };

typedef struct rnn {
  zn_nid node;
  zn_op op;
  zn_vid X, W, R, B, len, h0, c0, P, Y, Yh, Yc;
  zn_dtype dt, ct;
  int gates, dirs;
  zn_expr T, N, I, H, GH; /* steps, batch, input, hidden, gates * hidden */
  bool layout, reverse_only, reset_after, input_forget;
  double clip;
  zn_rnn_act act[2][3];
  zn_loc xw_dir;              /* input products of one direction */
  zn_loc xw, rt, state, work; /* input products; R transposed; h and c; gates and reset h */
  bool packed; /* rt is in panels */
  zn_dtype rt_type;
  /* of the kernel being written */
  int d;
  uint32_t jam; /* batch items that go side by side */
  zn_expr first; /* of them */
  zn_expr item, lane; /* one of them; d * N + item */
} rnn;

static rnn of_item(zn_lw *lw, const rnn *r, uint32_t i) {
  rnn one = *r;
  one.item = zn_ex_addi(lw->ex, r->first, i);
  one.lane = zn_ex_add(lw->ex, zn_ex_muli(lw->ex, r->N, r->d), one.item);
  return one;
}

static zn_vid out_of(const zn_node *n, uint32_t i) { return i < n->num_out ? n->out[i] : 0; }

static zn_status read_node(zn_lw *lw, zn_nid id, rnn *r) {
  const zn_node *n = zn_lw_node(lw, id);
  zn_exprs *ex = lw->ex;
  bool lstm = n->op == ZN_OP_LSTM;
  *r = (rnn){.node = id, .op = n->op, .X = n->in[0], .W = n->in[1], .R = n->in[2], .B = zn_node_in(n, 3),
             .len = zn_node_in(n, 4), .h0 = zn_node_in(n, 5)};
  r->c0 = lstm ? zn_node_in(n, 6) : 0;
  r->P = lstm ? zn_node_in(n, 7) : 0;
  r->Y = out_of(n, 0);
  r->Yh = out_of(n, 1);
  r->Yc = lstm ? out_of(n, 2) : 0;
  r->dt = (zn_dtype)zn_lw_type(lw, r->X)->dtype;
  r->ct = zn_lw_ctype(r->dt);
  r->gates = lstm ? 4 : n->op == ZN_OP_GRU ? 3 : 1;
  r->layout = zn_node_int(n, "layout") != 0;
  r->T = zn_lw_dim(lw, r->X, r->layout);
  r->N = zn_lw_dim(lw, r->X, !r->layout);
  r->I = zn_lw_dim(lw, r->X, 2);
  r->H = zn_lw_dim(lw, r->R, 2);
  r->GH = zn_ex_muli(ex, r->H, r->gates);
  const char *dir = zn_node_str(n, "direction");
  r->reverse_only = !strcmp(dir, "reverse");
  r->dirs = !strcmp(dir, "bidirectional") ? 2 : 1;
  const zn_attr *clip = zn_node_attr(n, "clip");
  r->clip = clip ? clip->u.f : 0;
  r->reset_after = n->op == ZN_OP_GRU && zn_node_int(n, "linear_before_reset") != 0;
  r->input_forget = lstm && zn_node_int(n, "input_forget") != 0;
  return zn_rnn_read_acts(lw, n, r->dirs, lstm ? 3 : n->op == ZN_OP_GRU ? 2 : 1, r->act);
}

/* ---------------------------------------------------------------- input products */

static zn_expr k_of(zn_lw *lw, int64_t v) { return zn_ex_const(lw->ex, v); }

static zn_kref elem_x(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr k) {
  (void)batch;
  rnn *r = user;
  zn_expr t = zn_ex_div(lw->ex, m, r->N), b = zn_ex_mod(lw->ex, m, r->N);
  zn_expr idx[3] = {r->layout ? b : t, r->layout ? t : b, k};
  return zn_lw_load(lw, r->X, idx);
}

static zn_kref elem_w(zn_lw *lw, void *user, const zn_expr *batch, zn_expr k, zn_expr n) {
  (void)batch;
  rnn *r = user;
  zn_expr idx[3] = {k_of(lw, r->d), n, k};
  return zn_lw_load(lw, r->W, idx);
}

/* Bias of column n: of the input part, and of the recurrent part unless that stays inside the reset gate. */
static zn_kref elem_bias(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n) {
  (void)batch;
  (void)m;
  rnn *r = user;
  zn_kb *b = &lw->kb;
  zn_expr idx[2] = {k_of(lw, r->d), n};
  zn_kref w = zn_lw_load(lw, r->B, idx);
  idx[1] = zn_ex_add(lw->ex, n, r->GH);
  zn_kref u = zn_lw_load(lw, r->B, idx);
  if (r->reset_after) {
    zn_kref col = zn_lw_ix(lw, n), first = zn_lw_ix(lw, zn_ex_muli(lw->ex, r->H, 2));
    zn_kref gate = zn_kb_cmp(b, ZN_K_Lt, col, first), zero = zn_kb_float(b, r->ct, 0);
    u = zn_kb_select(b, gate, u, zero);
  }
  return zn_kb_bin(b, ZN_K_Add, w, u);
}

static void emit_xw(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n, zn_kref acc) {
  (void)batch;
  rnn *r = user;
  zn_exprs *ex = lw->ex;
  zn_kref p = zn_lw_ptr_loc(lw, r->xw_dir, ZN_KP_OUT, r->ct);
  zn_expr row = m, rows = zn_ex_mul(ex, r->T, r->N);
  if (r->xw_dir.kind == r->xw.kind) row = zn_ex_add(ex, zn_ex_muli(ex, rows, r->d), m);
  zn_lw_store_at(lw, p, r->ct, zn_ex_add(ex, zn_ex_mul(ex, row, r->GH), n), acc);
}

/* Where the products of the present direction go: a place of their own, where its size is known. */
static zn_loc place_of_direction(zn_lw *lw, const rnn *r) {
  int64_t cells;
  zn_expr rows = zn_ex_mul(lw->ex, r->T, r->N);
  if (r->dirs == 1 || !zn_ex_is_const(lw->ex, zn_ex_mul(lw->ex, rows, r->GH), &cells)) return r->xw;
  uint64_t bytes = (uint64_t)cells * zn_dtype_bytes(r->ct);
  return bytes % 16 ? r->xw : zn_lw_inside(lw, r->xw, (uint64_t)r->d * bytes, bytes);
}

typedef struct weights { /* of one direction, [n][k] */
  const char *data;
  int64_t k;
  unsigned size;
} weights;

static void copy_weight(void *user, uint64_t k, uint64_t n, void *dst) {
  const weights *w = user;
  memcpy(dst, w->data + (n * (uint64_t)w->k + k) * w->size, w->size);
}

static void input_products(zn_lw *lw, rnn *r) {
  zn_exprs *ex = lw->ex;
  zn_expr cells = zn_ex_mul(ex, zn_ex_mul(ex, r->T, r->N), zn_ex_muli(ex, r->GH, r->dirs));
  r->xw = zn_lw_scratch(lw, zn_ex_muli(ex, cells, zn_dtype_bytes(r->ct)));
  const zn_htensor *w = zn_lw_cst(lw, r->W);
  int64_t rows = 0, k = 0;
  bool fixed = w && zn_ex_is_const(ex, r->GH, &rows) && zn_ex_is_const(ex, r->I, &k);
  for (r->d = 0; r->d < r->dirs; r->d++) {
    r->xw_dir = place_of_direction(lw, r);
    zn_gemm g = {.node = r->node, .hint = "rnn_input", .m = zn_ex_mul(ex, r->T, r->N), .n = r->GH, .k = r->I,
                 .t = r->ct, .a = elem_x, .b = elem_w, .init = r->B ? elem_bias : NULL, .emit = emit_xw, .user = r};
    unsigned size = zn_dtype_bytes(r->dt);
    weights ws = {fixed ? (const char *)w->data + (uint64_t)r->d * (uint64_t)(rows * k) * size : NULL, k, size};
    if (fixed) zn_gemm_pack(lw, &g, lw->g->vals[r->W].name, (uint64_t)k, (uint64_t)rows, r->dt, copy_weight, &ws);
    zn_gemm_emit(lw, &g);
  }
}

/* ---------------------------------------------------------------- R transposed: [direction][part][k][column of the part] */

typedef struct section { /* gates that are multiplied in one go: panels of the columns computed at once, then the rest */
  int64_t first, gates;
} section;

/* Of GRU the hidden gate is a product of its own. */
static uint32_t parts_of(const rnn *r, section out[2]) {
  const bool gru = r->op == ZN_OP_GRU;
  out[0] = (section){0, gru ? 2 : r->gates};
  out[1] = (section){2, 1};
  return gru ? 2 : 1;
}

static uint32_t jam_of(zn_lw *lw, const rnn *r) {
  int64_t lo, hi;
  zn_ex_range(lw->ex, r->N, &lo, &hi);
  if (lw->caps->simt || r->len || lw->opts->opt_level < 1) return 1;
  if (hi >= MAX_JAM) return MAX_JAM;
  return lo == hi && hi > 0 ? (uint32_t)hi : 1;
}

/* Vectors of a panel: as many as there are registers for, rather fewer if no column is left over then. */
static unsigned vectors_of(zn_lw *lw, const rnn *r, int64_t columns) {
  const unsigned lanes = zn_lw_lanes(lw, r->ct), jam = jam_of(lw, r);
  unsigned most = (lw->caps->vector_regs - 1) / (jam + (jam > 1));
  if (most > MAX_VECTORS) most = MAX_VECTORS;
  for (unsigned v = most; v > most / 2; v--)
    if (columns % (v * lanes) == 0) return v;
  return most;
}

/* From R of a direction, [column][k], h of each gate. */
static char *write_part(const char *from, const section *q, int64_t h, unsigned wide, unsigned size, char *to) {
  const int64_t columns = q->gates * h;
  for (int64_t at = 0; at < columns; at += wide) {
    const int64_t n = columns - at < wide ? columns - at : wide;
    for (int64_t k = 0; k < h; k++)
      for (int64_t j = 0; j < n; j++, to += size) memcpy(to, from + ((q->first * h + at + j) * h + k) * size, size);
  }
  return to;
}

/* In panels (where lanes are threads: one), at compile time; false when R or its sizes are not known. */
static bool pack_r(zn_lw *lw, rnn *r) {
  const zn_htensor *c = zn_lw_cst(lw, r->R);
  int64_t h = 0;
  section q[2];
  if (!c || !zn_ex_is_const(lw->ex, r->H, &h)) return false;
  const unsigned size = zn_dtype_bytes(r->dt), lanes = zn_lw_lanes(lw, r->ct);
  const int64_t each = r->gates * h * h;
  const uint32_t n = parts_of(r, q);
  char *all = zn_arena_array(&lw->ctx->graph, (size_t)(r->dirs * each) + 1, size), *to = all;
  for (int d = 0; d < r->dirs; d++)
    for (uint32_t i = 0; i < n; i++) {
      const int64_t columns = q[i].gates * h;
      const unsigned wide = lw->caps->simt ? (unsigned)columns : vectors_of(lw, r, columns) * lanes;
      to = write_part((const char *)c->data + d * each * size, &q[i], h, wide, size, to);
    }
  const char *name = zn_arena_printf(lw->arena, "%s_t", lw->g->vals[r->R].name);
  r->rt = zn_lw_const(lw, name, r->dt, (uint64_t)(r->dirs * each), all);
  r->rt_type = r->dt;
  r->packed = true;
  return true;
}

/* By the run: each part [k][column]. */
static void transpose_r(zn_lw *lw, rnn *r) {
  zn_exprs *ex = lw->ex;
  section q[2];
  const uint32_t n = parts_of(r, q);
  zn_expr cells = zn_ex_mul(ex, r->H, zn_ex_muli(ex, r->GH, r->dirs));
  r->rt = zn_lw_scratch(lw, zn_ex_muli(ex, cells, zn_dtype_bytes(r->ct)));
  r->rt_type = r->ct;
  for (uint32_t i = 0; i < n; i++) {
    zn_lw_kernel(lw, r->node, "rnn_transpose");
    zn_expr ext[2] = {zn_ex_const(ex, r->dirs), r->H}, v[2], columns = zn_ex_muli(ex, r->H, q[i].gates);
    zn_lw_grid(lw, 2, ext, v);
    zn_expr first = zn_ex_muli(ex, r->H, q[i].first);
    zn_expr j = zn_lw_for(lw, columns, lw->caps->simt ? ZN_FOR_VECTOR : ZN_FOR_SERIAL, 0);
    zn_expr idx[3] = {v[0], zn_ex_add(ex, first, j), v[1]};
    zn_kref x = zn_lw_load(lw, r->R, idx), p = zn_lw_ptr_loc(lw, r->rt, ZN_KP_OUT, r->ct);
    zn_expr base = zn_ex_mul(ex, r->H, zn_ex_add(ex, zn_ex_mul(ex, r->GH, v[0]), first));
    zn_lw_store_at(lw, p, r->ct, zn_ex_add(ex, base, zn_ex_add(ex, zn_ex_mul(ex, v[1], columns), j)), x);
    zn_lw_end(lw);
    zn_lw_end(lw);
    zn_lw_kernel_end(lw);
  }
}

/* ---------------------------------------------------------------- scratch of the walk */

enum { S_H, S_C };          /* state arrays of H per lane */
enum { W_GATES, W_RESET };  /* work arrays: GH gates, then H */

static zn_expr state_at(zn_lw *lw, const rnn *r, int array, zn_expr j) {
  zn_exprs *ex = lw->ex;
  zn_expr row = zn_ex_addi(ex, zn_ex_muli(ex, r->lane, 2), array);
  return zn_ex_add(ex, zn_ex_mul(ex, row, r->H), j);
}

static zn_expr work_at(zn_lw *lw, const rnn *r, int array, zn_expr j) {
  zn_exprs *ex = lw->ex;
  zn_expr base = zn_ex_mul(ex, r->lane, zn_ex_add(ex, r->GH, r->H));
  if (array == W_RESET) base = zn_ex_add(ex, base, r->GH);
  return zn_ex_add(ex, base, j);
}

static zn_kref get_state(zn_lw *lw, const rnn *r, int array, zn_expr j) {
  zn_kref p = zn_lw_ptr_loc(lw, r->state, ZN_KP_INOUT, r->ct);
  return zn_lw_load_at(lw, p, r->ct, state_at(lw, r, array, j));
}

static void set_state(zn_lw *lw, const rnn *r, int array, zn_expr j, zn_kref x) {
  zn_kref p = zn_lw_ptr_loc(lw, r->state, ZN_KP_INOUT, r->ct);
  zn_lw_store_at(lw, p, r->ct, state_at(lw, r, array, j), x);
}

static zn_kref get_work(zn_lw *lw, const rnn *r, int array, zn_expr j) {
  zn_kref p = zn_lw_ptr_loc(lw, r->work, ZN_KP_INOUT, r->ct);
  return zn_lw_load_at(lw, p, r->ct, work_at(lw, r, array, j));
}

static void set_work(zn_lw *lw, const rnn *r, int array, zn_expr j, zn_kref x) {
  zn_kref p = zn_lw_ptr_loc(lw, r->work, ZN_KP_INOUT, r->ct);
  zn_lw_store_at(lw, p, r->ct, work_at(lw, r, array, j), x);
}

static zn_expr gate(zn_lw *lw, const rnn *r, int g, zn_expr j) {
  return zn_ex_add(lw->ex, zn_ex_muli(lw->ex, r->H, g), j);
}

static zn_kref input_part(zn_lw *lw, const rnn *r, zn_expr t, zn_expr col) {
  zn_exprs *ex = lw->ex;
  zn_expr steps = zn_ex_addi(ex, r->T, 0);
  zn_expr row = zn_ex_add(ex, zn_ex_muli(ex, steps, r->d), t);
  row = zn_ex_add(ex, zn_ex_mul(ex, row, r->N), r->item);
  zn_kref p = zn_lw_ptr_loc(lw, r->xw, ZN_KP_IN, r->ct);
  return zn_lw_load_at(lw, p, r->ct, zn_ex_add(ex, zn_ex_mul(ex, row, r->GH), col));
}

/* ---------------------------------------------------------------- one time step */

typedef struct product { /* gates[first + j] = init + sum_k from[k] * R[column first + j, k] over the columns of a part */
  const section *part;
  int from; /* S_H of the state, or -1: the reset h of the work area */
  zn_expr t;
  bool bias_only; /* start from the recurrent bias instead of the input products */
} product;

static zn_kref start_of(zn_lw *lw, const rnn *r, const product *p, zn_expr col) {
  if (!p->bias_only) return input_part(lw, r, p->t, col);
  if (!r->B) return zn_kb_float(&lw->kb, r->ct, 0);
  zn_expr idx[2] = {k_of(lw, r->d), zn_ex_add(lw->ex, r->GH, col)};
  return zn_lw_load(lw, r->B, idx);
}

/* Column `at` + j of the part for all items; at: where its panel of `wide` columns begins. */
static void column(zn_lw *lw, const rnn *r, const product *p, zn_expr at, zn_expr wide, zn_expr j) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  zn_expr first = zn_ex_muli(ex, r->H, p->part->first), col = zn_ex_add(ex, first, zn_ex_add(ex, at, j));
  zn_expr base = zn_ex_mul(ex, r->H, zn_ex_add(ex, zn_ex_muli(ex, r->GH, r->d), zn_ex_add(ex, first, at)));
  zn_kref acc[MAX_JAM];
  rnn one[MAX_JAM];
  for (uint32_t i = 0; i < r->jam; i++) {
    one[i] = of_item(lw, r, i);
    acc[i] = zn_kb_var(b, start_of(lw, &one[i], p, col));
  }
  zn_expr k = zn_lw_for(lw, r->H, ZN_FOR_SERIAL, 0);
  zn_kref m = zn_lw_ptr_loc(lw, r->rt, ZN_KP_IN, r->rt_type);
  zn_kref w = zn_lw_load_at(lw, m, r->rt_type, zn_ex_add(ex, base, zn_ex_add(ex, zn_ex_mul(ex, k, wide), j)));
  for (uint32_t i = 0; i < r->jam; i++) {
    zn_kref x = p->from < 0 ? get_work(lw, &one[i], W_RESET, k) : get_state(lw, &one[i], p->from, k);
    zn_kref old = zn_kb_get(b, acc[i]);
    zn_kb_set(b, acc[i], zn_mul_add(lw, x, w, old));
  }
  zn_lw_end(lw);
  for (uint32_t i = 0; i < r->jam; i++) {
    zn_kref sum = zn_kb_get(b, acc[i]);
    set_work(lw, &one[i], W_GATES, col, sum);
  }
}

/* Where lanes are threads: a column each. */
static void multiply_threads(zn_lw *lw, const rnn *r, const product *p) {
  enum { LEAST = 128, MOST = 512 };
  zn_exprs *ex = lw->ex;
  zn_expr gates = zn_ex_muli(ex, r->H, p->part->gates), zero = zn_ex_const(ex, 0);
  int64_t columns = LEAST;
  unsigned team = LEAST;
  zn_ex_is_const(ex, r->GH, &columns); /* of all parts: a kernel has one team */
  while (team < MOST && (int64_t)team < columns) team *= 2;
  zn_expr j = zn_lw_for(lw, gates, ZN_FOR_THREAD, team);
  column(lw, r, p, zero, gates, j);
  zn_lw_end(lw);
}

static void multiply(zn_lw *lw, const rnn *r, const product *p) {
  if (lw->caps->simt) {
    multiply_threads(lw, r, p);
    return;
  }
  zn_exprs *ex = lw->ex;
  const unsigned lanes = zn_lw_lanes(lw, r->ct);
  zn_expr count = zn_ex_muli(ex, r->H, p->part->gates);
  int64_t columns = 0;
  const bool known = zn_ex_is_const(ex, count, &columns);
  const unsigned vectors = known ? vectors_of(lw, r, columns) : MAX_JAM, step = vectors * lanes;
  zn_expr blocks = zn_ex_divi(ex, count, step), done = zn_ex_muli(ex, blocks, step), rest = zn_ex_sub(ex, count, done);
  zn_expr zero = zn_ex_const(ex, 0);
  if (!zn_ex_is(ex, blocks, 0)) {
    zn_expr i = zn_lw_for(lw, blocks, ZN_FOR_SERIAL, 0), at = zn_ex_muli(ex, i, step);
    zn_expr u = zn_lw_for(lw, zn_ex_const(ex, vectors), ZN_FOR_UNROLL, vectors);
    zn_expr v = zn_lw_for(lw, zn_ex_const(ex, lanes), ZN_FOR_VECTOR, lanes);
    zn_expr j = zn_ex_add(ex, zn_ex_muli(ex, u, lanes), v);
    if (r->packed) column(lw, r, p, at, zn_ex_const(ex, step), j);
    else column(lw, r, p, zero, count, zn_ex_add(ex, at, j));
    zn_lw_end(lw);
    zn_lw_end(lw);
    zn_lw_end(lw);
  }
  if (zn_ex_is(ex, rest, 0)) return;
  zn_expr v = zn_lw_for(lw, rest, ZN_FOR_VECTOR, 0);
  if (r->packed) column(lw, r, p, done, rest, v);
  else column(lw, r, p, zero, count, zn_ex_add(ex, done, v));
  zn_lw_end(lw);
}

static void put_y(zn_lw *lw, const rnn *r, zn_expr t, zn_expr j, zn_kref h) {
  if (!r->Y) return;
  zn_expr d = k_of(lw, r->d);
  zn_expr time_major[4] = {t, d, r->item, j}, batch_major[4] = {r->item, t, d, j};
  zn_lw_store(lw, r->Y, r->layout ? batch_major : time_major, h);
}

static void step_plain(zn_lw *lw, const rnn *r, zn_expr t) {
  zn_expr j = zn_lw_for(lw, r->H, ZN_FOR_VECTOR, 0);
  zn_kref h = zn_rnn_activate(lw, &r->act[r->d][0], r->clip, get_work(lw, r, W_GATES, j));
  set_state(lw, r, S_H, j, h);
  put_y(lw, r, t, j, h);
  zn_lw_end(lw);
}

static void reset_gru(zn_lw *lw, const rnn *r) {
  zn_expr j = zn_lw_for(lw, r->H, ZN_FOR_VECTOR, 0);
  zn_kref reset = zn_rnn_activate(lw, &r->act[r->d][0], r->clip, get_work(lw, r, W_GATES, gate(lw, r, 1, j)));
  zn_kref h = get_state(lw, r, S_H, j);
  set_work(lw, r, W_RESET, j, zn_kb_bin(&lw->kb, ZN_K_Mul, reset, h));
  zn_lw_end(lw);
}

static void step_gru(zn_lw *lw, const rnn *r, zn_expr t) {
  zn_kb *b = &lw->kb;
  const zn_rnn_act *f = r->act[r->d];
  zn_expr j = zn_lw_for(lw, r->H, ZN_FOR_VECTOR, 0);
  zn_kref z = zn_rnn_activate(lw, &f[0], r->clip, get_work(lw, r, W_GATES, gate(lw, r, 0, j)));
  zn_kref s = get_work(lw, r, W_GATES, gate(lw, r, 2, j));
  if (r->reset_after) {
    zn_kref reset = zn_rnn_activate(lw, &f[0], r->clip, get_work(lw, r, W_GATES, gate(lw, r, 1, j)));
    zn_kref in = input_part(lw, r, t, gate(lw, r, 2, j)), part = zn_kb_bin(b, ZN_K_Mul, reset, s);
    s = zn_kb_bin(b, ZN_K_Add, in, part);
  }
  zn_kref n = zn_rnn_activate(lw, &f[1], r->clip, s), h = get_state(lw, r, S_H, j);
  zn_kref one = zn_kb_float(b, r->ct, 1), keep = zn_kb_bin(b, ZN_K_Mul, z, h);
  zn_kref take = zn_kb_bin(b, ZN_K_Mul, zn_kb_bin(b, ZN_K_Sub, one, z), n);
  h = zn_kb_bin(b, ZN_K_Add, take, keep);
  set_state(lw, r, S_H, j, h);
  put_y(lw, r, t, j, h);
  zn_lw_end(lw);
}

/* x + P[part] * c */
static zn_kref peep(zn_lw *lw, const rnn *r, int part, zn_expr j, zn_kref c, zn_kref x) {
  if (!r->P) return x;
  zn_expr idx[2] = {k_of(lw, r->d), gate(lw, r, part, j)};
  return zn_mul_add(lw, zn_lw_load(lw, r->P, idx), c, x);
}

static void step_lstm(zn_lw *lw, const rnn *r, zn_expr t) {
  zn_kb *b = &lw->kb;
  const zn_rnn_act *f = r->act[r->d];
  zn_expr j = zn_lw_for(lw, r->H, ZN_FOR_VECTOR, 0);
  zn_kref c = get_state(lw, r, S_C, j);
  zn_kref i = peep(lw, r, 0, j, c, get_work(lw, r, W_GATES, gate(lw, r, 0, j)));
  i = zn_rnn_activate(lw, &f[0], r->clip, i);
  zn_kref forget, n;
  if (r->input_forget) {
    zn_kref one = zn_kb_float(b, r->ct, 1);
    forget = zn_kb_bin(b, ZN_K_Sub, one, i);
  } else {
    forget = peep(lw, r, 2, j, c, get_work(lw, r, W_GATES, gate(lw, r, 2, j)));
    forget = zn_rnn_activate(lw, &f[0], r->clip, forget);
  }
  n = zn_rnn_activate(lw, &f[1], r->clip, get_work(lw, r, W_GATES, gate(lw, r, 3, j)));
  zn_kref keep = zn_kb_bin(b, ZN_K_Mul, forget, c), take = zn_kb_bin(b, ZN_K_Mul, i, n);
  c = zn_kb_bin(b, ZN_K_Add, keep, take);
  zn_kref o = peep(lw, r, 1, j, c, get_work(lw, r, W_GATES, gate(lw, r, 1, j)));
  o = zn_rnn_activate(lw, &f[0], r->clip, o);
  zn_kref h = zn_kb_bin(b, ZN_K_Mul, o, zn_rnn_activate(lw, &f[2], 0, c));
  set_state(lw, r, S_C, j, c);
  set_state(lw, r, S_H, j, h);
  put_y(lw, r, t, j, h);
  zn_lw_end(lw);
}

static void time_step(zn_lw *lw, const rnn *r, zn_expr t) {
  section q[2];
  parts_of(r, q);
  const product gates = {.part = &q[0], .from = S_H, .t = t};
  multiply(lw, r, &gates);
  if (r->op == ZN_OP_GRU) {
    for (uint32_t i = 0; i < r->jam && !r->reset_after; i++) {
      const rnn one = of_item(lw, r, i);
      reset_gru(lw, &one);
    }
    const product hidden = {.part = &q[1], .from = r->reset_after ? S_H : -1, .t = t, .bias_only = r->reset_after};
    multiply(lw, r, &hidden);
  }
  for (uint32_t i = 0; i < r->jam; i++) {
    const rnn one = of_item(lw, r, i);
    if (r->op == ZN_OP_RNN) step_plain(lw, &one, t);
    else if (r->op == ZN_OP_GRU) step_gru(lw, &one, t);
    else step_lstm(lw, &one, t);
  }
}

/* ---------------------------------------------------------------- the walk over time */

static void state_index(zn_lw *lw, const rnn *r, zn_expr j, zn_expr *idx) {
  zn_expr d = k_of(lw, r->d);
  idx[0] = r->layout ? r->item : d;
  idx[1] = r->layout ? d : r->item;
  idx[2] = j;
}

static void start_state(zn_lw *lw, const rnn *r) {
  zn_expr j = zn_lw_for(lw, r->H, ZN_FOR_VECTOR, 0), idx[3];
  state_index(lw, r, j, idx);
  set_state(lw, r, S_H, j, r->h0 ? zn_lw_load(lw, r->h0, idx) : zn_kb_float(&lw->kb, r->ct, 0));
  if (r->op == ZN_OP_LSTM)
    set_state(lw, r, S_C, j, r->c0 ? zn_lw_load(lw, r->c0, idx) : zn_kb_float(&lw->kb, r->ct, 0));
  zn_lw_end(lw);
}

static void final_state(zn_lw *lw, const rnn *r) {
  if (!r->Yh && !r->Yc) return;
  zn_expr j = zn_lw_for(lw, r->H, ZN_FOR_VECTOR, 0), idx[3];
  state_index(lw, r, j, idx);
  if (r->Yh) zn_lw_store(lw, r->Yh, idx, get_state(lw, r, S_H, j));
  if (r->Yc) zn_lw_store(lw, r->Yc, idx, get_state(lw, r, S_C, j));
  zn_lw_end(lw);
}

static zn_kref length(zn_lw *lw, const rnn *r) {
  zn_kb *b = &lw->kb;
  zn_kref n = zn_kb_cvt(b, zn_lw_load(lw, r->len, &r->first), ZN_IDX), zero = zn_kb_idx(b, 0);
  n = zn_kb_bin(b, ZN_K_Max, n, zero);
  zn_kref all = zn_lw_ix(lw, r->T);
  return zn_kb_bin(b, ZN_K_Min, n, all);
}

/* Of r->jam items from r->first on; with lengths of one. */
static void walk(zn_lw *lw, const rnn *r) {
  zn_kb *b = &lw->kb;
  bool reverse = r->d == 1 || r->reverse_only;
  rnn its = of_item(lw, r, 0);
  for (uint32_t i = 0; i < r->jam; i++) {
    its = of_item(lw, r, i);
    start_state(lw, &its);
  }
  zn_kref len = r->len ? length(lw, r) : 0;
  zn_expr s = zn_lw_for(lw, r->T, ZN_FOR_SERIAL, 0);
  if (!len) {
    zn_expr last = zn_ex_addi(lw->ex, r->T, -1);
    time_step(lw, r, reverse ? zn_ex_sub(lw->ex, last, s) : s);
  } else {
    zn_kref k = zn_lw_ix(lw, s);
    zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, k, len));
    zn_kref one = zn_kb_idx(b, 1), last = zn_kb_bin(b, ZN_K_Sub, len, one);
    zn_kref back = zn_kb_bin(b, ZN_K_Sub, last, k);
    time_step(lw, r, reverse ? zn_lw_as_expr(lw, back, r->T) : s);
    zn_kb_else(b); /* beyond the item's length Y is zero */
    zn_expr j = zn_lw_for(lw, r->H, ZN_FOR_VECTOR, 0);
    put_y(lw, &its, s, j, zn_kb_float(b, r->ct, 0));
    zn_lw_end(lw);
    zn_kb_end(b);
  }
  zn_lw_end(lw);
  for (uint32_t i = 0; i < r->jam; i++) {
    its = of_item(lw, r, i);
    final_state(lw, &its);
  }
}

/* groups of jam items, from item `from` on */
static void walks(zn_lw *lw, rnn *r, uint32_t jam, zn_expr from, zn_expr groups) {
  zn_exprs *ex = lw->ex;
  zn_kb *b = &lw->kb;
  const char *const names[] = {"rnn", "gru", "lstm"};
  if (zn_ex_is(ex, groups, 0)) return;
  zn_lw_kernel(lw, r->node, names[r->gates == 4 ? 2 : r->gates == 3]);
  zn_expr ext[2] = {zn_ex_const(ex, r->dirs), groups}, v[2];
  zn_lw_grid(lw, 2, ext, v);
  r->jam = jam;
  r->first = zn_ex_add(ex, from, zn_ex_muli(ex, v[1], jam));
  zn_kref dir = zn_lw_ix(lw, v[0]);
  if (r->dirs == 2) zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, dir, zn_kb_idx(b, 0)));
  for (r->d = 0; r->d < r->dirs; r->d++) {
    if (r->d == 1) zn_kb_else(b);
    walk(lw, r);
  }
  if (r->dirs == 2) zn_kb_end(b);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

static void recurrence(zn_lw *lw, rnn *r) {
  zn_exprs *ex = lw->ex;
  const unsigned size = zn_dtype_bytes(r->ct);
  const uint32_t jam = jam_of(lw, r);
  zn_expr lanes = zn_ex_muli(ex, r->N, r->dirs), zero = zn_ex_const(ex, 0);
  r->state = zn_lw_scratch(lw, zn_ex_muli(ex, zn_ex_mul(ex, lanes, r->H), 2 * (int64_t)size));
  r->work = zn_lw_scratch(lw, zn_ex_muli(ex, zn_ex_mul(ex, lanes, zn_ex_add(ex, r->GH, r->H)), size));
  zn_expr groups = zn_ex_divi(ex, r->N, jam), done = zn_ex_muli(ex, groups, jam);
  walks(lw, r, jam, zero, groups);
  if (jam > 1) walks(lw, r, 1, done, zn_ex_sub(ex, r->N, done));
}

static zn_status rnn_kernel(zn_lw *lw, zn_nid n) {
  rnn r;
  ZN_TRY(read_node(lw, n, &r));
  input_products(lw, &r);
  if (!pack_r(lw, &r)) transpose_r(lw, &r);
  recurrence(lw, &r);
  return ZN_OK;
}
const zn_lower zn_lower_rnn = {NULL, rnn_kernel};
