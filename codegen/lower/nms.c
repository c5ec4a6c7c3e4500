/* NonMaxSuppression: every (batch, class) sorts its boxes by score and keeps those that overlap no kept one, in parallel;
 * then the counts are summed and the triples written in order. Decisions are taken in f32, the declared type. */
#include "codegen/lower/sortkeys.h"

typedef struct nms {
  zn_vid boxes, scores, max, iou, score, y;
  zn_expr N, B, C;
  bool center;
  zn_expr batch, cls; /* of the current grid step */
} nms;

typedef struct box {
  zn_kref y0, x0, y1, x1;
} box;

static box box_at(zn_lw *lw, const nms *s, zn_kref which) {
  zn_kb *b = &lw->kb;
  zn_expr idx[3] = {s->batch, zn_lw_as_expr(lw, which, s->B), ZN_EX_NONE};
  zn_kref v[4];
  for (int i = 0; i < 4; i++) {
    idx[2] = zn_ex_const(lw->ex, i);
    v[i] = zn_lw_load(lw, s->boxes, idx);
  }
  box r;
  if (s->center) {
    zn_kref half = zn_kb_float(b, ZN_F32, 0.5);
    zn_kref w = zn_kb_bin(b, ZN_K_Mul, v[2], half), h = zn_kb_bin(b, ZN_K_Mul, v[3], half);
    r.y0 = zn_kb_bin(b, ZN_K_Sub, v[1], h);
    r.x0 = zn_kb_bin(b, ZN_K_Sub, v[0], w);
    r.y1 = zn_kb_bin(b, ZN_K_Add, v[1], h);
    r.x1 = zn_kb_bin(b, ZN_K_Add, v[0], w);
  } else {
    r.y0 = zn_kb_bin(b, ZN_K_Min, v[0], v[2]);
    r.x0 = zn_kb_bin(b, ZN_K_Min, v[1], v[3]);
    r.y1 = zn_kb_bin(b, ZN_K_Max, v[0], v[2]);
    r.x1 = zn_kb_bin(b, ZN_K_Max, v[1], v[3]);
  }
  return r;
}

static zn_kref area(zn_lw *lw, const box *a) {
  zn_kb *b = &lw->kb;
  zn_kref h = zn_kb_bin(b, ZN_K_Sub, a->y1, a->y0), w = zn_kb_bin(b, ZN_K_Sub, a->x1, a->x0);
  return zn_kb_bin(b, ZN_K_Mul, h, w);
}

static zn_kref overlaps(zn_lw *lw, const box *a, const box *c, zn_kref threshold) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_float(b, ZN_F32, 0);
  box i = {zn_kb_bin(b, ZN_K_Max, a->y0, c->y0), 0, 0, 0};
  i.x0 = zn_kb_bin(b, ZN_K_Max, a->x0, c->x0);
  i.y1 = zn_kb_bin(b, ZN_K_Min, a->y1, c->y1);
  i.x1 = zn_kb_bin(b, ZN_K_Min, a->x1, c->x1);
  zn_kref h = zn_kb_bin(b, ZN_K_Sub, i.y1, i.y0), w = zn_kb_bin(b, ZN_K_Sub, i.x1, i.x0);
  zn_kref both = zn_kb_bin(b, ZN_K_Mul, h, w), sa = area(lw, a), sc = area(lw, c);
  zn_kref sum = zn_kb_bin(b, ZN_K_Add, sa, sc), all = zn_kb_bin(b, ZN_K_Sub, sum, both);
  zn_kref ratio = zn_kb_bin(b, ZN_K_Div, both, all);
  zn_kref r = zn_kb_cmp(b, ZN_K_Gt, ratio, threshold);
  const zn_kref positive[] = {h, w, sa, sc};
  for (int k = 0; k < 4; k++) {
    zn_kref p = zn_kb_cmp(b, ZN_K_Gt, positive[k], zero);
    r = zn_kb_bin(b, ZN_K_And, r, p);
  }
  return r;
}

static zn_kref score_at(zn_lw *lw, const nms *s, zn_kref k) {
  zn_expr idx[3] = {s->batch, s->cls, zn_lw_as_expr(lw, k, s->B)};
  return zn_lw_load(lw, s->scores, idx);
}

static zn_kref before(zn_lw *lw, void *user, zn_kref a, zn_kref c) {
  zn_kref x = score_at(lw, user, a), y = score_at(lw, user, c);
  return zn_value_before(lw, x, y, true);
}

static zn_kref scalar(zn_lw *lw, zn_vid v) {
  zn_expr zero = zn_ex_const(lw->ex, 0);
  return zn_lw_load(lw, v, &zero);
}

/* Candidates above the score threshold, best first: keys at the returned offset, their number in *out_n. */
static zn_kref candidates(zn_lw *lw, nms *s, zn_kref keys, zn_kref base, zn_kref *out_n) {
  zn_kb *b = &lw->kb;
  zn_kref count = zn_kb_var(b, zn_kb_idx(b, 0)), least = s->score ? scalar(lw, s->score) : 0;
  zn_kref i = zn_s_for(lw, zn_lw_ix(lw, s->B));
  zn_kref x = score_at(lw, s, i), at = zn_kb_get(b, count);
  zn_kref ok = least ? zn_kb_cmp(b, ZN_K_Gt, x, least) : zn_kb_int(b, ZN_BOOL, 1);
  zn_kb_if(b, ok);
  zn_s_store(lw, keys, zn_s_add(lw, base, at), i);
  zn_kb_set(b, count, zn_s_inc(lw, at));
  zn_kb_end(b);
  zn_kb_end(b);
  *out_n = zn_kb_get(b, count);
  return zn_sort_keys(lw, keys, base, *out_n, before, s);
}

/* Per (batch, class) i32 cells: count, B kept, 2B for the sort. */
static zn_expr region(zn_lw *lw, const nms *s) {
  return zn_ex_addi(lw->ex, zn_ex_muli(lw->ex, s->B, 3), 1);
}

static void keep_boxes(zn_lw *lw, nms *s, zn_kref keys, zn_kref base) {
  zn_kb *b = &lw->kb;
  zn_kref size = zn_lw_ix(lw, s->B), zero = zn_kb_idx(b, 0), n;
  zn_kref kept = zn_s_inc(lw, base), room = zn_s_add(lw, kept, size);
  zn_kref sorted = candidates(lw, s, keys, room, &n);
  zn_kref threshold = s->iou ? scalar(lw, s->iou) : zn_kb_float(b, ZN_F32, 0);
  zn_kref most = s->max ? zn_kb_cvt(b, scalar(lw, s->max), ZN_IDX) : zero;
  zn_kref got = zn_kb_var(b, zero), k = zn_kb_var(b, zero);
  zn_kb_loop(b);
  zn_kref kv = zn_kb_get(b, k), gv = zn_kb_get(b, got);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, kv, n));
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, gv, most));
  zn_kref which = zn_s_load(lw, keys, zn_s_add(lw, sorted, kv));
  box mine = box_at(lw, s, which);
  zn_kref drop = zn_kb_var(b, zn_kb_int(b, ZN_BOOL, 0)), j = zn_kb_var(b, zero);
  zn_kb_loop(b);
  zn_kref jv = zn_kb_get(b, j);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, jv, gv));
  box other = box_at(lw, s, zn_s_load(lw, keys, zn_s_add(lw, kept, jv)));
  zn_kref hit = overlaps(lw, &other, &mine, threshold);
  zn_kb_set(b, drop, hit);
  zn_kb_break(b, hit);
  zn_kb_set(b, j, zn_s_inc(lw, jv));
  zn_kb_end(b);
  zn_kref keep = zn_kb_un(b, ZN_K_Not, zn_kb_get(b, drop));
  zn_kb_if(b, keep);
  zn_s_store(lw, keys, zn_s_add(lw, kept, gv), which);
  zn_kb_set(b, got, zn_s_inc(lw, gv));
  zn_kb_end(b);
  zn_kb_set(b, k, zn_s_inc(lw, kv));
  zn_kb_end(b);
  zn_s_store(lw, keys, base, zn_kb_get(b, got));
}

static void sum_counts(zn_lw *lw, const nms *s, zn_loc cells, zn_loc total) {
  zn_kb *b = &lw->kb;
  zn_kref keys = zn_lw_ptr_loc(lw, cells, ZN_KP_IN, ZN_I32), sum = zn_kb_var(b, zn_kb_idx(b, 0));
  zn_expr i = zn_lw_for(lw, zn_ex_mul(lw->ex, s->N, s->C), ZN_FOR_SERIAL, 0);
  zn_kref n = zn_s_load(lw, keys, zn_lw_ix(lw, zn_ex_mul(lw->ex, i, region(lw, s)))), old = zn_kb_get(b, sum);
  zn_kb_set(b, sum, zn_s_add(lw, old, n));
  zn_lw_end(lw);
  zn_kref p = zn_lw_ptr_loc(lw, total, ZN_KP_OUT, ZN_I64), zero = zn_kb_idx(b, 0);
  zn_kb_store(b, p, zero, zn_kb_cvt(b, zn_kb_get(b, sum), ZN_I64));
}

static void write_triples(zn_lw *lw, const nms *s, zn_loc cells) {
  zn_kb *b = &lw->kb;
  zn_kref keys = zn_lw_ptr_loc(lw, cells, ZN_KP_IN, ZN_I32), row = zn_kb_var(b, zn_kb_idx(b, 0));
  zn_expr n = zn_lw_for(lw, s->N, ZN_FOR_SERIAL, 0), c = zn_lw_for(lw, s->C, ZN_FOR_SERIAL, 0);
  zn_expr flat = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, n, s->C), c);
  zn_kref base = zn_lw_ix(lw, zn_ex_mul(lw->ex, flat, region(lw, s))), first = zn_s_inc(lw, base);
  zn_kref i = zn_s_for(lw, zn_s_load(lw, keys, base));
  zn_kref at = zn_kb_get(b, row);
  zn_kref v[3] = {zn_lw_ix(lw, n), 0, 0};
  v[1] = zn_lw_ix(lw, c);
  v[2] = zn_s_load(lw, keys, zn_s_add(lw, first, i));
  zn_expr idx[2] = {zn_lw_as_expr(lw, at, zn_lw_dim(lw, s->y, 0)), ZN_EX_NONE};
  for (int k = 0; k < 3; k++) {
    idx[1] = zn_ex_const(lw->ex, k);
    zn_lw_store(lw, s->y, idx, zn_kb_cvt(b, v[k], ZN_I64));
  }
  zn_kb_set(b, row, zn_s_inc(lw, at));
  zn_kb_end(b);
  zn_lw_end(lw);
  zn_lw_end(lw);
}

static zn_status nms_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  nms s = {.boxes = node->in[0], .scores = node->in[1], .max = zn_node_in(node, 2), .iou = zn_node_in(node, 3),
           .score = zn_node_in(node, 4), .y = node->out[0], .center = zn_node_int(node, "center_point_box") != 0};
  s.N = zn_lw_dim(lw, s.scores, 0);
  s.C = zn_lw_dim(lw, s.scores, 1);
  s.B = zn_lw_dim(lw, s.boxes, 1);
  zn_loc cells = zn_s_cells(lw, zn_ex_mul(ex, region(lw, &s), zn_ex_mul(ex, s.N, s.C)));
  zn_loc total = zn_lw_scratch(lw, zn_ex_const(ex, 8));
  zn_lw_kernel(lw, n, "nms_keep");
  zn_expr extents[2] = {s.N, s.C}, vars[2];
  zn_lw_grid(lw, 2, extents, vars);
  s.batch = vars[0];
  s.cls = vars[1];
  zn_expr flat = zn_ex_add(ex, zn_ex_mul(ex, vars[0], s.C), vars[1]);
  zn_kref base = zn_lw_ix(lw, zn_ex_mul(ex, flat, region(lw, &s)));
  keep_boxes(lw, &s, zn_lw_ptr_loc(lw, cells, ZN_KP_INOUT, ZN_I32), base);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  zn_lw_kernel(lw, n, "nms_count");
  sum_counts(lw, &s, cells, total);
  zn_lw_kernel_end(lw);
  zn_expr rows = zn_lw_dim(lw, s.y, 0);
  if (zn_ex_kind(ex, rows) == ZN_EX_SYM) zn_lw_define_sym(lw, rows, total);
  zn_lw_kernel(lw, n, "nms_write");
  write_triples(lw, &s, cells);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_nonmaxsuppression = {NULL, nms_kernel};
