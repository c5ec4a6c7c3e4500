/* Canonical convolutions and pools: kernel_shape, strides, dilations and pads are explicit and
 * auto_pad is NOTSET wherever the padding does not depend on a run-time size, and a Pad with zeros
 * on spatial axes joins the Conv after it. */
#include "zenithc/passes/canon.h"

static bool is_conv(zn_op op) {
  return op == ZN_OP_Conv || op == ZN_OP_ConvInteger || op == ZN_OP_QLinearConv ||
         op == ZN_OP_ConvTranspose;
}

static bool is_window(zn_op op) {
  return is_conv(op) || op == ZN_OP_MaxPool || op == ZN_OP_AveragePool || op == ZN_OP_LpPool;
}

static const zn_type *weight_type(const zn_graph *g, const zn_node *n) {
  return &g->vals[n->in[n->op == ZN_OP_QLinearConv ? 3 : 1]].type;
}

typedef struct window {
  int n;
  int64_t k[ZN_MAX_RANK], s[ZN_MAX_RANK], d[ZN_MAX_RANK], pads[2 * ZN_MAX_RANK];
} window;

static bool list(const zn_node *n, const char *name, int m, int64_t def, int64_t *out) {
  uint32_t c;
  const int64_t *v = zn_node_ints(n, name, &c);
  if (v && (int)c != m) return false;
  for (int i = 0; i < m; i++) out[i] = v ? v[i] : def;
  return true;
}

static bool read_window(const zn_graph *g, const zn_node *n, window *w) {
  const zn_type *x = &g->vals[n->in[0]].type;
  w->n = x->rank - 2;
  if (w->n < 1) return false;
  if (!list(n, "strides", w->n, 1, w->s) || !list(n, "dilations", w->n, 1, w->d) ||
      !list(n, "pads", 2 * w->n, 0, w->pads)) {
    return false;
  }
  if (!is_conv(n->op)) return list(n, "kernel_shape", w->n, 1, w->k);
  const zn_type *wt = weight_type(g, n);
  for (int i = 0; i < w->n; i++) {
    if (wt->rank != x->rank || !zn_ex_is_const(g->ex, wt->dims[2 + i], &w->k[i])) return false;
  }
  return true;
}

/* Total padding of spatial axis i under SAME, when it is known. */
static bool same_total(const zn_graph *g, const zn_node *n, const window *w, int i,
                       int64_t *total) {
  const zn_expr in = g->vals[n->in[0]].type.dims[2 + i], out = g->vals[n->out[0]].type.dims[2 + i];
  const int64_t ek = (w->k[i] - 1) * w->d[i] + 1;
  int64_t a, b;
  if (w->s[i] == 1) {
    *total = ek - 1;
    return true;
  }
  if (!zn_ex_is_const(g->ex, in, &a) || !zn_ex_is_const(g->ex, out, &b)) return false;
  *total = (b - 1) * w->s[i] + ek - a;
  if (*total < 0) *total = 0;
  return true;
}

/* ConvTranspose: what output_shape or SAME leave over. */
static bool transposed_total(const zn_graph *g, const zn_node *n, const window *w, int i,
                             int64_t *total) {
  int64_t a, b, extra[ZN_MAX_RANK];
  if (!list(n, "output_padding", w->n, 0, extra)) return false;
  if (!zn_ex_is_const(g->ex, g->vals[n->in[0]].type.dims[2 + i], &a) ||
      !zn_ex_is_const(g->ex, g->vals[n->out[0]].type.dims[2 + i], &b)) {
    return false;
  }
  *total = w->s[i] * (a - 1) + extra[i] + (w->k[i] - 1) * w->d[i] + 1 - b;
  return true;
}

static bool explicit_pads(const zn_graph *g, const zn_node *n, window *w) {
  const char *ap = zn_node_str(n, "auto_pad");
  const bool upper = ap && strcmp(ap, "SAME_UPPER") == 0,
             lower = ap && strcmp(ap, "SAME_LOWER") == 0;
  const bool shaped = n->op == ZN_OP_ConvTranspose && zn_node_has(n, "output_shape");
  if (ap && strcmp(ap, "VALID") == 0 && !shaped) {
    for (int i = 0; i < 2 * w->n; i++) w->pads[i] = 0;
    return true;
  }
  if (!upper && !lower && !shaped) return true;
  for (int i = 0; i < w->n; i++) {
    int64_t t;
    const bool ok = n->op == ZN_OP_ConvTranspose ? transposed_total(g, n, w, i, &t)
                                                 : same_total(g, n, w, i, &t);
    if (!ok || (shaped && t < 0)) return false; /* grown by output_shape: stays with the operator */
    const int64_t small = t / 2, large = t - small;
    w->pads[i] = upper ? small : large;
    w->pads[w->n + i] = upper ? large : small;
  }
  return true;
}

static bool spell_out(zn_canon *k, zn_nid n) {
  zn_graph *g = k->g;
  const zn_node *nd = &g->nodes[n];
  const char *ap = zn_node_str(nd, "auto_pad");
  const bool shaped = nd->op == ZN_OP_ConvTranspose && zn_node_has(nd, "output_shape");
  window w;
  const bool automatic = (ap && *ap && strcmp(ap, "NOTSET") != 0) || shaped;
  if (!automatic && zn_node_has(nd, "pads") && zn_node_has(nd, "strides") &&
      zn_node_has(nd, "dilations") && zn_node_has(nd, "kernel_shape")) {
    return false;
  }
  if (!read_window(g, nd, &w) || !explicit_pads(g, nd, &w) || !zn_pass_may_rewrite(k->o))
    return false;
  zn_node_set_ints(g, n, "kernel_shape", w.k, (uint32_t)w.n);
  zn_node_set_ints(g, n, "strides", w.s, (uint32_t)w.n);
  zn_node_set_ints(g, n, "dilations", w.d, (uint32_t)w.n);
  zn_node_set_ints(g, n, "pads", w.pads, 2 * (uint32_t)w.n);
  if (ap && *ap && strcmp(ap, "NOTSET") != 0) zn_node_set_str(g, n, "auto_pad", "NOTSET");
  if (shaped) { /* pads now say the same */
    zn_node *m = &g->nodes[n];
    for (uint32_t i = 0; i < m->num_attrs; i++) {
      if (strcmp(m->attrs[i].name, "output_shape") != 0) continue;
      memmove(m->attrs + i, m->attrs + i + 1, (m->num_attrs - 1 - i) * sizeof *m->attrs);
      m->num_attrs--;
      break;
    }
  }
  return true;
}

/* Conv(Pad(x, zeros)): the padding becomes Conv's own. */
static bool absorb_pad(zn_canon *k, zn_nid n) {
  zn_graph *g = k->g;
  zn_node *nd = &g->nodes[n];
  int64_t pads[2 * ZN_MAX_RANK], axes[ZN_MAX_RANK];
  uint32_t np, na;
  double fill = 0;
  window w;
  if (nd->op != ZN_OP_Conv || !g->vals[nd->in[0]].def || !zn_node_has(nd, "pads")) return false;
  const zn_node *p = &g->nodes[g->vals[nd->in[0]].def];
  if (p->op != ZN_OP_Pad || strcmp(zn_node_str(p, "mode"), "constant") != 0) return false;
  if (zn_node_in(p, 2) && (!zn_value_f64(g, p->in[2], &fill) || fill != 0)) return false;
  if (!zn_value_i64s(g, p->in[1], pads, 2 * ZN_MAX_RANK, &np) || !read_window(g, nd, &w))
    return false;
  const int rank = w.n + 2;
  for (int d = 0; d < rank; d++) axes[d] = d;
  na = (uint32_t)rank;
  if (zn_node_in(p, 3) && !zn_value_i64s(g, p->in[3], axes, ZN_MAX_RANK, &na)) return false;
  if (np != 2 * na) return false;
  for (uint32_t i = 0; i < na; i++) {
    const int64_t ax = axes[i] < 0 ? axes[i] + rank : axes[i];
    if (pads[i] < 0 || pads[na + i] < 0 || (ax < 2 && (pads[i] || pads[na + i]))) return false;
    if (ax < 2) continue;
    w.pads[ax - 2] += pads[i];
    w.pads[w.n + ax - 2] += pads[na + i];
  }
  if (!zn_pass_may_rewrite(k->o)) return false;
  nd->in[0] = p->in[0];
  zn_node_set_ints(g, n, "pads", w.pads, 2 * (uint32_t)w.n);
  return true;
}

/* AveragePool whose only window is the whole image: a mean. */
static bool pool_to_mean(zn_canon *k, zn_nid n) {
  zn_graph *g = k->g;
  const zn_node *nd = &g->nodes[n];
  const zn_type *x = &g->vals[nd->in[0]].type, *y = &g->vals[nd->out[0]].type;
  int64_t axes[ZN_MAX_RANK];
  window w;
  const char *ap = zn_node_str(nd, "auto_pad");
  if (nd->op != ZN_OP_AveragePool || (ap && *ap && strcmp(ap, "NOTSET") != 0) || !read_window(g, nd, &w)) return false;
  for (int i = 0; i < w.n; i++) {
    if (!zn_ex_is(g->ex, x->dims[i + 2], w.k[i]) || w.d[i] != 1 || w.pads[i] || w.pads[w.n + i]) return false;
    if (!zn_ex_is(g->ex, y->dims[i + 2], 1)) return false;
    axes[i] = i + 2;
  }
  if (!zn_pass_may_rewrite(k->o)) return false;
  zn_rw rw = {k->c, g, n, ZN_OK};
  zn_rw_output(&rw, 0, zn_rw_reduce(&rw, ZN_OP_ReduceMean, nd->in[0], axes, (uint32_t)w.n, true));
  k->st = zn_rw_done(&rw);
  return k->st == ZN_OK;
}

bool zn_canon_window(zn_canon *k, zn_nid n) {
  return is_window(k->g->nodes[n].op) && (spell_out(k, n) || absorb_pad(k, n) || pool_to_mean(k, n));
}
