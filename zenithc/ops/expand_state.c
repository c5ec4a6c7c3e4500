/* Composite operators with state: the causal convolution of state-space models, FlexAttention with its modifier bodies, and
 * one step of the optimisers. */
#include <math.h>

#include "zenithc/ops/expand_util.h"

static zn_dtype dtype_of(const zn_rw *w, zn_vid v) { return (zn_dtype)zn_rw_type(w, v)->dtype; }

static bool const_dim(const zn_rw *w, zn_vid v, int d, int64_t *out) {
  return zn_ex_is_const(w->g->ex, zn_rw_type(w, v)->dims[d], out);
}

static zn_vid num(zn_rw *w, zn_vid like, double v) { return zn_rw_num(w, dtype_of(w, like), v); }
static zn_vid add(zn_rw *w, zn_vid a, zn_vid b) { return zn_rw2(w, ZN_OP_Add, a, b); }
static zn_vid sub(zn_rw *w, zn_vid a, zn_vid b) { return zn_rw2(w, ZN_OP_Sub, a, b); }
static zn_vid mul(zn_rw *w, zn_vid a, zn_vid b) { return zn_rw2(w, ZN_OP_Mul, a, b); }
static zn_vid quot(zn_rw *w, zn_vid a, zn_vid b) { return zn_rw2(w, ZN_OP_Div, a, b); }
static zn_vid scaled(zn_rw *w, zn_vid a, double k) { return mul(w, a, num(w, a, k)); }

/* ---- CausalConvWithState: a depthwise Conv over the past k - 1 elements and the input ---- */

ZN_EXPAND(causalconvwithstate) {
  const zn_vid x = zn_rw_in(w, 0), weight = zn_rw_in(w, 1), bias = zn_rw_in(w, 2), past = zn_rw_in(w, 3);
  const bool silu = strcmp(zn_node_str(zn_rw_node(w), "activation"), "none") != 0;
  int64_t channels, k;
  if (zn_rw_type(w, x)->rank != 3 || zn_rw_type(w, weight)->rank != 3) return ZN_OK;
  if (!const_dim(w, weight, 0, &channels) || !const_dim(w, weight, 2, &k) || k < 1) return ZN_OK;
  zn_vid line = x;
  if (past) {
    const zn_vid both[2] = {past, x};
    line = zn_rw_attr_int(w, ZN_OP_Concat, both, 2, "axis", 2);
  } else if (k > 1) {
    const int64_t pads[6] = {0, 0, k - 1, 0, 0, 0};
    line = zn_rw2(w, ZN_OP_Pad, x, zn_rw_ints(w, pads, 6));
  }
  const zn_vid in[3] = {line, weight, bias};
  zn_vid y = zn_rw_attr_int(w, ZN_OP_Conv, in, bias ? 3 : 2, "group", channels);
  if (silu) y = mul(w, y, zn_rw1(w, ZN_OP_Sigmoid, y));
  zn_rw_output(w, 0, y);
  if (zn_rw_wants(w, 1)) {
    const int64_t from = k > 1 ? 1 - k : INT64_MAX;
    zn_rw_output(w, 1, zn_rw_slice(w, line, 2, from, INT64_MAX));
  }
  return zn_rw_done(w);
}

/* ---- FlexAttention ---- */

/* The body's nodes in place, with its first input being x and the others the node's captures; its output. */
static zn_vid apply_body(zn_rw *w, const char *name, zn_vid x) {
  zn_graph *g = w->g;
  const zn_attr *at = zn_node_attr(zn_rw_node(w), name);
  if (!at || w->st != ZN_OK) return x;
  zn_graph *body = at->u.g;
  zn_vid *map = ZN_ARRAY(&w->c->tmp, zn_vid, body->num_vals);
  const uint32_t nc = zn_rw_node(w)->num_captures, first = zn_rw_node(w)->num_in - nc;
  for (uint32_t i = 0; i < body->num_inputs; i++)
    map[body->inputs[i]] = i == 0 ? x : zn_rw_in(w, first + i - 1);
  for (zn_vid v = 1; v < body->num_vals; v++)
    if (body->vals[v].cst && !body->vals[v].is_input && !map[v])
      map[v] = zn_graph_const(g, NULL, body->vals[v].cst);
  for (uint32_t i = 0; i < body->num_order && w->st == ZN_OK; i++) {
    const zn_node *b = &body->nodes[body->order[i]];
    zn_vid *in = ZN_ARRAY(&w->c->tmp, zn_vid, b->num_in + 1);
    for (uint32_t j = 0; j < b->num_in; j++) in[j] = b->in[j] ? map[b->in[j]] : 0;
    const zn_nid id = zn_rw_raw(w, b->op, in, b->num_in, b->num_out);
    g->nodes[id].attrs = b->attrs;
    g->nodes[id].num_attrs = b->num_attrs;
    g->nodes[id].num_captures = b->num_captures;
    for (uint32_t j = 0; j < b->num_out; j++) {
      if (b->out[j])
        map[b->out[j]] = g->nodes[id].out[j];
      else
        g->nodes[id].out[j] = 0;
    }
    zn_rw_infer(w, id);
  }
  return w->st == ZN_OK ? map[body->outputs[0]] : 0;
}

ZN_EXPAND(pv_flexattention) {
  const zn_node *n = zn_rw_node(w);
  zn_vid q = n->in[0], k = n->in[1], v = n->in[2];
  const zn_dtype t = dtype_of(w, q);
  const int64_t perm[4] = {0, 1, 3, 2};
  int64_t d;
  if (zn_rw_type(w, n->out[0])->rank != 4 || !zn_rw_heads_divide(w, q, k)) return ZN_OK;
  const bool known = zn_node_has(n, "scale") || const_dim(w, q, 3, &d);
  const double scale = zn_node_has(n, "scale") ? zn_node_float(n, "scale") : known ? 1 / sqrt((double)d) : 1;
  const zn_dtype soft = zn_node_has(n, "softmax_precision")
                            ? zn_dtype_from_onnx((int)zn_node_int(n, "softmax_precision"))
                        : t == ZN_F64 ? ZN_F64
                                      : ZN_F32;
  if (soft == ZN_NONE) return ZN_OK;
  q = zn_rw_cast(w, q, soft);
  k = zn_rw_repeat_heads(w, zn_rw_cast(w, k, soft), q);
  v = zn_rw_repeat_heads(w, zn_rw_cast(w, v, soft), q);
  zn_vid s = zn_rw2(w, ZN_OP_MatMul, q, zn_rw_transpose(w, k, perm, 4));
  if (w->st != ZN_OK) return w->st;
  if (known) s = scaled(w, s, scale);
  else s = zn_rw2(w, ZN_OP_Div, s, zn_rw1(w, ZN_OP_Sqrt, zn_rw_cast(w, zn_rw_extent(w, q, 3), soft)));
  s = apply_body(w, "score_mod", s);
  const zn_vid p = zn_rw_attr_int(w, ZN_OP_Softmax, &s, 1, "axis", -1);
  const zn_vid y = zn_rw2(w, ZN_OP_MatMul, apply_body(w, "prob_mod", p), v);
  zn_rw_output(w, 0, zn_rw_cast(w, y, t));
  return zn_rw_done(w);
}

/* ---- optimisers ---- */

typedef struct step { /* one parameter: value, gradient with regularisation, states; rate and count in the value's type */
  zn_vid x, g, s, h, r, t;
} step;

static zn_vid positive(zn_rw *w, const step *p, zn_vid then, zn_vid other) { /* t > 0 ? then : other */
  return zn_rw3(w, ZN_OP_Where, zn_rw2(w, ZN_OP_Greater, p->t, num(w, p->t, 0)), then, other);
}

static zn_vid moved(zn_rw *w, zn_vid x, zn_vid rate, zn_vid dir) { return sub(w, x, mul(w, rate, dir)); }

static zn_vid adagrad(zn_rw *w, step *p, double eps, double decay) {
  const zn_vid slower = scaled(w, p->t, decay), rate = quot(w, p->r, add(w, num(w, p->t, 1), slower));
  p->s = add(w, p->s, mul(w, p->g, p->g));
  const zn_vid tiny = num(w, p->s, eps), root = add(w, zn_rw1(w, ZN_OP_Sqrt, p->s), tiny);
  return moved(w, p->x, rate, quot(w, p->g, root));
}

static zn_vid adam(zn_rw *w, step *p, double alpha, double beta, double eps, double post) {
  const zn_vid g = scaled(w, p->g, 1 - alpha);
  p->s = add(w, scaled(w, p->s, alpha), g);
  const zn_vid g2 = scaled(w, mul(w, p->g, p->g), 1 - beta);
  p->h = add(w, scaled(w, p->h, beta), g2);
  const zn_vid one = num(w, p->t, 1);
  const zn_vid bt = sub(w, one, zn_rw2(w, ZN_OP_Pow, num(w, p->t, beta), p->t));
  const zn_vid at = sub(w, one, zn_rw2(w, ZN_OP_Pow, num(w, p->t, alpha), p->t));
  const zn_vid bias = quot(w, mul(w, p->r, zn_rw1(w, ZN_OP_Sqrt, bt)), at);
  const zn_vid tiny = num(w, p->h, eps), root = add(w, zn_rw1(w, ZN_OP_Sqrt, p->h), tiny), way = quot(w, p->s, root);
  const zn_vid x = moved(w, p->x, positive(w, p, bias, p->r), way);
  return scaled(w, x, 1 - post);
}

static zn_vid momentum(zn_rw *w, step *p, double alpha, double beta, bool nesterov) {
  const zn_vid one = num(w, p->t, 1), b = positive(w, p, num(w, p->t, beta), one), by = mul(w, b, p->g);
  p->s = add(w, scaled(w, p->s, alpha), by);
  return moved(w, p->x, p->r, nesterov ? add(w, p->g, scaled(w, p->s, alpha)) : p->s);
}

/* Inputs R, T, then n parameters, n gradients, n states (Adam: 2n); outputs: parameters, states. */
ZN_EXPAND(train) {
  const zn_node *nd = zn_rw_node(w);
  const zn_op op = nd->op;
  const uint32_t groups = op == ZN_OP_Adam ? 4 : 3, n = (nd->num_in - 2) / groups;
  const double norm = zn_node_float(nd, "norm_coefficient");
  for (uint32_t i = 0; i < n && w->st == ZN_OK; i++) {
    nd = zn_rw_node(w);
    step p = {.x = nd->in[2 + i], .s = nd->in[2 + 2 * n + i], .h = zn_node_in(nd, 2 + 3 * n + i)};
    const zn_vid grad = nd->in[2 + n + i], rate = nd->in[0], count = nd->in[1];
    const zn_dtype t = dtype_of(w, p.x);
    p.r = zn_rw_cast(w, rate, t);
    p.t = zn_rw_cast(w, count, t);
    p.g = add(w, scaled(w, p.x, norm), grad);
    zn_vid x;
    nd = zn_rw_node(w);
    if (op == ZN_OP_Adagrad) {
      x = adagrad(w, &p, zn_node_float(nd, "epsilon"), zn_node_float(nd, "decay_factor"));
    } else if (op == ZN_OP_Adam) {
      const double alpha = zn_node_float(nd, "alpha"), beta = zn_node_float(nd, "beta");
      const double eps = zn_node_float(nd, "epsilon"), post = zn_node_float(nd, "norm_coefficient_post");
      x = adam(w, &p, alpha, beta, eps, post);
    } else {
      const bool nesterov = strcmp(zn_node_str(nd, "mode"), "nesterov") == 0;
      x = momentum(w, &p, zn_node_float(nd, "alpha"), zn_node_float(nd, "beta"), nesterov);
    }
    zn_rw_output(w, i, x);
    zn_rw_output(w, n + i, p.s);
    if (op == ZN_OP_Adam) zn_rw_output(w, 2 * n + i, p.h);
  }
  return zn_rw_done(w);
}
