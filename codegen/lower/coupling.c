/* PairwiseCoupling: the probabilities of k classes that explain those of the pairs best, by the second method of Wu, Lin and
 * Weng, "Probability estimates for multi-class classification by pairwise coupling" (JMLR 5, 2004), as LIBSVM writes it: at
 * most max(100, k) rounds over the classes, fewer when the residual is below 0.005 / k. One grid iteration per row. */
#include "codegen/lower/real.h"
#include "codegen/lower/sortkeys.h"

typedef struct couple {
  zn_lw *lw;
  zn_kb *b;
  zn_dtype t;
  zn_kref k;        /* classes, idx value */
  zn_kref q, p, qp; /* k x k, k, k */
} couple;

static zn_kref at(const couple *c, zn_kref ptr, zn_kref i) { return zn_kb_load(c->b, c->t, 1, ptr, i); }

static zn_kref cell(const couple *c, zn_kref row, zn_kref col) {
  zn_kref first = zn_s_mul(c->lw, row, c->k);
  return zn_s_add(c->lw, first, col);
}

static void add_at(const couple *c, zn_kref ptr, zn_kref i, zn_kref v) {
  zn_kref old = at(c, ptr, i);
  zn_kb_store(c->b, ptr, i, zn_r_add(c->b, old, v));
}

/* Q from the pairs, and equal probabilities to begin with. */
static void set_up(const couple *c, zn_vid r, zn_expr row, int64_t k) {
  zn_kb *b = c->b;
  zn_lw *lw = c->lw;
  zn_kref zero = zn_kb_float(b, c->t, 0), equal = zn_kb_float(b, c->t, 1.0 / (double)k), none = zn_kb_idx(b, 0);
  zn_kref t = zn_s_for(lw, c->k), diagonal = cell(c, t, t);
  zn_kb_store(b, c->p, t, equal);
  zn_kb_store(b, c->q, diagonal, zero);
  zn_kb_end(b);
  zn_kref pair = zn_kb_var(b, none), i = zn_s_for(lw, c->k);
  zn_kref j = zn_kb_for(b, zn_s_inc(lw, i), c->k, 1, ZN_FOR_SERIAL, 0);
  zn_expr idx[2] = {row, zn_lw_as_expr(lw, zn_kb_get(b, pair), zn_lw_dim(lw, r, 1))};
  zn_kref wins = zn_lw_load(lw, r, idx), loses = zn_r_cop(b, ZN_K_Sub, 1, wins);
  zn_kref product = zn_r_mul(b, wins, loses), both = zn_kb_un(b, ZN_K_Neg, product);
  zn_kref ij = cell(c, i, j), ji = cell(c, j, i), ii = cell(c, i, i), jj = cell(c, j, j);
  zn_kb_store(b, c->q, ij, both);
  zn_kb_store(b, c->q, ji, both);
  add_at(c, c->q, ii, zn_r_mul(b, loses, loses));
  add_at(c, c->q, jj, zn_r_mul(b, wins, wins));
  zn_s_bump(lw, pair);
  zn_kb_end(b);
  zn_kb_end(b);
}

/* qp = Q p; returns p' Q p. */
static zn_kref multiply(const couple *c) {
  zn_kb *b = c->b;
  zn_kref zero = zn_kb_float(b, c->t, 0), pqp = zn_kb_var(b, zero), t = zn_s_for(c->lw, c->k);
  zn_kref sum = zn_kb_var(b, zero), j = zn_s_for(c->lw, c->k);
  zn_kref qtj = at(c, c->q, cell(c, t, j)), pj = at(c, c->p, j), so_far = zn_kb_get(b, sum);
  zn_kb_set(b, sum, zn_r_add(b, so_far, zn_r_mul(b, qtj, pj)));
  zn_kb_end(b);
  zn_kref v = zn_kb_get(b, sum), pt = at(c, c->p, t), old = zn_kb_get(b, pqp);
  zn_kb_store(b, c->qp, t, v);
  zn_kb_set(b, pqp, zn_r_add(b, old, zn_r_mul(b, pt, v)));
  zn_kb_end(b);
  return zn_kb_get(b, pqp);
}

static zn_kref residual(const couple *c, zn_kref pqp) {
  zn_kb *b = c->b;
  zn_kref worst = zn_kb_var(b, zn_kb_float(b, c->t, 0)), t = zn_s_for(c->lw, c->k);
  zn_kref off = zn_r_abs(b, zn_r_sub(b, at(c, c->qp, t), pqp)), old = zn_kb_get(b, worst);
  zn_kb_set(b, worst, zn_kb_bin(b, ZN_K_Max, old, off));
  zn_kb_end(b);
  return zn_kb_get(b, worst);
}

/* The probability of each class in turn is set to what the others ask for. */
static void improve(const couple *c, zn_kref start) {
  zn_kb *b = c->b;
  zn_kref pqp = zn_kb_var(b, start), t = zn_s_for(c->lw, c->k), qtt = at(c, c->q, cell(c, t, t)), qpt = at(c, c->qp, t);
  zn_kref now = zn_kb_get(b, pqp), miss = zn_r_sub(b, now, qpt), d = zn_r_div(b, miss, qtt), scale = zn_r_addc(b, d, 1);
  add_at(c, c->p, t, d);
  zn_kref first = zn_r_mul(b, d, qtt), more = zn_r_add(b, first, zn_r_mulc(b, qpt, 2));
  zn_kref sum = zn_r_add(b, now, zn_r_mul(b, d, more)), once = zn_r_div(b, sum, scale);
  zn_kb_set(b, pqp, zn_r_div(b, once, scale));
  zn_kref j = zn_s_for(c->lw, c->k), qtj = at(c, c->q, cell(c, t, j)), qpj = at(c, c->qp, j), pj = at(c, c->p, j);
  zn_kref next = zn_r_add(b, qpj, zn_r_mul(b, d, qtj));
  zn_kb_store(b, c->qp, j, zn_r_div(b, next, scale));
  zn_kb_store(b, c->p, j, zn_r_div(b, pj, scale));
  zn_kb_end(b);
  zn_kb_end(b);
}

static zn_status pairwisecoupling_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid r = node->in[0], y = node->out[0];
  const int64_t k = zn_node_int(node, "classes"), rounds = k > 100 ? k : 100;
  zn_expr rows = zn_lw_dim(lw, y, 0), row;
  couple c = {.lw = lw, .b = &lw->kb, .t = (zn_dtype)zn_lw_type(lw, y)->dtype};
  zn_loc room = zn_lw_scratch(lw, zn_ex_muli(lw->ex, rows, k * (k + 2) * (int64_t)zn_dtype_bytes(c.t)));
  zn_lw_kernel(lw, n, "coupling");
  zn_lw_grid(lw, 1, &rows, &row);
  zn_kref base = zn_lw_ptr_loc(lw, room, ZN_KP_INOUT, c.t), size = zn_kb_idx(c.b, (int64_t)zn_dtype_bytes(c.t));
  zn_kref from = zn_lw_ix(lw, zn_ex_muli(lw->ex, row, k * (k + 2)));
  c.q = zn_kb_ptradd(c.b, base, zn_s_mul(lw, from, size));
  c.p = zn_kb_ptradd(c.b, c.q, zn_kb_idx(c.b, k * k * (int64_t)zn_dtype_bytes(c.t)));
  c.qp = zn_kb_ptradd(c.b, c.p, zn_kb_idx(c.b, k * (int64_t)zn_dtype_bytes(c.t)));
  c.k = zn_kb_idx(c.b, k);
  set_up(&c, r, row, k);
  zn_s_for(lw, zn_kb_idx(c.b, rounds));
  zn_kref pqp = multiply(&c), off = residual(&c, pqp);
  zn_kb_break(c.b, zn_r_cmpc(c.b, ZN_K_Lt, off, 0.005 / (double)k));
  improve(&c, pqp);
  zn_kb_end(c.b);
  zn_expr idx[2] = {row, zn_lw_for(lw, zn_lw_dim(lw, y, 1), ZN_FOR_SERIAL, 0)};
  zn_lw_store(lw, y, idx, at(&c, c.p, zn_lw_ix(lw, idx[1])));
  zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_pairwisecoupling = {NULL, pairwisecoupling_kernel};
