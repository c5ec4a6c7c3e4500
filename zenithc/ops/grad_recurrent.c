/* The derivative of RNN, GRU and LSTM: through the Scan that they are. Steps behind the end of a sequence keep the state and give
 * zeros; a direction that goes back sees every sequence reversed. */
#include <math.h>
#include <strings.h>

#include "zenithc/ops/grad.h"

typedef struct act { /* f(alpha, beta) */
  char name[24];
  double alpha, beta;
} act;

typedef struct cell {
  zn_rw *w;
  zn_node m;
  zn_op op;
  zn_dtype t;
  int gates, dirs, per; /* activations per direction */
  bool layout, before_reset, input_forget;
  double clip; /* 0: none */
  act f[2][3];
  zn_vid x, len; /* [steps, batch, input]; i64 [batch] or 0 */
  zn_graph *g;   /* the body */
} cell;

/* ---------------------------------------------------------------- attributes */

static bool takes(const char *name, bool beta, double *out_default) {
  static const struct {
    const char *name;
    double alpha, beta; /* NAN: none */
  } t[] = {{"Affine", 1, 0},     {"LeakyRelu", 0.01, NAN}, {"ThresholdedRelu", 1, NAN},
           {"ScaledTanh", 1, 1}, {"HardSigmoid", 0.2, 0.5}, {"Elu", 1, NAN}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++)
    if (!strcasecmp(name, t[i].name)) *out_default = beta ? t[i].beta : t[i].alpha;
  return !isnan(*out_default);
}

static void read_activations(cell *k) {
  const zn_attr *names = zn_node_attr(&k->m, "activations");
  uint32_t na, nb, ia = 0, ib = 0;
  const double *alpha = zn_node_floats(&k->m, "activation_alpha", &na), *beta = zn_node_floats(&k->m, "activation_beta", &nb);
  for (int d = 0; d < k->dirs; d++)
    for (int i = 0; i < k->per; i++) {
      act *f = &k->f[d][i];
      const uint32_t at = (uint32_t)(d * k->per + i);
      *f = (act){.alpha = NAN, .beta = NAN};
      const bool given = names && names->n > at && names->u.ss[at].len < sizeof f->name;
      snprintf(f->name, sizeof f->name, "%s", given ? names->u.ss[at].ptr : i == 0 && k->per > 1 ? "Sigmoid" : "Tanh");
      if (takes(f->name, false, &f->alpha) && ia < na) f->alpha = alpha[ia++];
      if (takes(f->name, true, &f->beta) && ib < nb) f->beta = beta[ib++];
    }
}

/* ---------------------------------------------------------------- the body */

static zn_vid op_of(cell *k, zn_op op, const zn_vid *in, uint32_t n) {
  return zn_node_out(k->g, zn_graph_node(k->g, op, k->m.name, in, n, 1), 0);
}
static zn_vid op1(cell *k, zn_op op, zn_vid x) { return op_of(k, op, &x, 1); }
static zn_vid op2(cell *k, zn_op op, zn_vid x, zn_vid y) {
  const zn_vid in[2] = {x, y};
  return op_of(k, op, in, 2);
}
static zn_vid number(cell *k, double v) { return zn_graph_const_scalar(k->g, k->t, v); }

static zn_vid with_alpha(cell *k, zn_op op, zn_vid x, const act *f) {
  const zn_nid n = zn_graph_node(k->g, op, k->m.name, &x, 1, 1);
  zn_node_set_float(k->g, n, "alpha", f->alpha);
  if (op == ZN_OP_HardSigmoid) zn_node_set_float(k->g, n, "beta", f->beta);
  return zn_node_out(k->g, n, 0);
}

static zn_vid times(cell *k, zn_vid x, double by) { return op2(k, ZN_OP_Mul, x, number(k, by)); }

static zn_vid activate(cell *k, const act *f, zn_vid x, bool clipped) {
  static const zn_op plain[] = {ZN_OP_Sigmoid, ZN_OP_Tanh, ZN_OP_Relu, ZN_OP_Softsign, ZN_OP_Softplus};
  static const zn_op more[] = {ZN_OP_LeakyRelu, ZN_OP_ThresholdedRelu, ZN_OP_HardSigmoid, ZN_OP_Elu};
  if (clipped && k->clip > 0) {
    const zn_vid lo = number(k, -k->clip), in[3] = {x, lo, number(k, k->clip)};
    x = op_of(k, ZN_OP_Clip, in, 3);
  }
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
    if (!strcasecmp(f->name, zn_op_name(plain[i]))) return op1(k, plain[i], x);
  for (size_t i = 0; i < sizeof more / sizeof *more; i++)
    if (!strcasecmp(f->name, zn_op_name(more[i]))) return with_alpha(k, more[i], x, f);
  if (!strcasecmp(f->name, "ScaledTanh")) return times(k, op1(k, ZN_OP_Tanh, times(k, x, f->beta)), f->alpha);
  const zn_vid scaled = times(k, x, f->alpha); /* Affine */
  return op2(k, ZN_OP_Add, scaled, number(k, f->beta));
}

/* Columns of gate i of [.., gates * hidden]. */
static void gates_of(cell *k, zn_vid v, zn_vid *out) {
  if (k->gates == 1) {
    out[0] = v;
    return;
  }
  const zn_nid n = zn_graph_node(k->g, ZN_OP_Split, k->m.name, &v, 1, (uint32_t)k->gates);
  zn_node_set_int(k->g, n, "axis", -1);
  zn_node_set_int(k->g, n, "num_outputs", k->gates);
  for (int i = 0; i < k->gates; i++) out[i] = k->g->nodes[n].out[i];
}

static zn_vid one_minus(cell *k, zn_vid x) { return op2(k, ZN_OP_Sub, number(k, 1), x); }
static zn_vid mix(cell *k, zn_vid a, zn_vid x, zn_vid b, zn_vid y) { /* a x + b y */
  const zn_vid ax = op2(k, ZN_OP_Mul, a, x);
  return op2(k, ZN_OP_Add, ax, op2(k, ZN_OP_Mul, b, y));
}

typedef struct inner { /* what a step sees, in the body */
  zn_vid h, c, x, t, w, r, wb, rb, p, len; /* w: [input, gates * hidden], r: [hidden, ...]; biases, peepholes: 0 none */
} inner;

/* The last gate of a GRU, whose state is reset before or after its product. */
static zn_vid gru_step(cell *k, const act *f, const inner *v, const zn_vid *in, const zn_vid *state) {
  const zn_vid px = op2(k, ZN_OP_Add, in[0], state[0]), pr = op2(k, ZN_OP_Add, in[1], state[1]);
  const zn_vid z = activate(k, &f[0], px, true), r = activate(k, &f[0], pr, true);
  zn_vid last;
  if (k->before_reset) {
    last = op2(k, ZN_OP_Mul, r, state[2]);
  } else {
    zn_vid part[3], bias[3];
    gates_of(k, v->r, part);
    last = op2(k, ZN_OP_MatMul, op2(k, ZN_OP_Mul, r, v->h), part[2]);
    if (v->rb) gates_of(k, v->rb, bias), last = op2(k, ZN_OP_Add, last, bias[2]);
  }
  const zn_vid s = activate(k, &f[1], op2(k, ZN_OP_Add, in[2], last), true), rest = one_minus(k, z);
  return mix(k, rest, s, z, v->h);
}

static zn_vid lstm_step(cell *k, const act *f, const inner *v, const zn_vid *in, const zn_vid *state, zn_vid *out_c) {
  zn_vid pre[4], p[3] = {0};
  for (int i = 0; i < 4; i++) pre[i] = op2(k, ZN_OP_Add, in[i], state[i]);
  if (v->p) {
    const zn_nid n = zn_graph_node(k->g, ZN_OP_Split, k->m.name, &v->p, 1, 3);
    zn_node_set_int(k->g, n, "axis", -1);
    zn_node_set_int(k->g, n, "num_outputs", 3);
    for (int i = 0; i < 3; i++) p[i] = k->g->nodes[n].out[i];
    pre[0] = op2(k, ZN_OP_Add, pre[0], op2(k, ZN_OP_Mul, p[0], v->c));
    pre[2] = op2(k, ZN_OP_Add, pre[2], op2(k, ZN_OP_Mul, p[2], v->c));
  }
  const zn_vid i = activate(k, &f[0], pre[0], true);
  const zn_vid keep = k->input_forget ? one_minus(k, i) : activate(k, &f[0], pre[2], true);
  const zn_vid c = mix(k, keep, v->c, i, activate(k, &f[1], pre[3], true));
  if (v->p) pre[1] = op2(k, ZN_OP_Add, pre[1], op2(k, ZN_OP_Mul, p[1], c));
  *out_c = c;
  const zn_vid o = activate(k, &f[0], pre[1], true);
  return op2(k, ZN_OP_Mul, o, activate(k, &f[2], c, false));
}

/* The results of the body: the states, and what this step gives. */
static void write_step(cell *k, const act *f, const inner *v) {
  zn_vid in[4], state[4], c = v->c, h;
  zn_vid px = op2(k, ZN_OP_MatMul, v->x, v->w), ph = op2(k, ZN_OP_MatMul, v->h, v->r);
  if (v->wb) px = op2(k, ZN_OP_Add, px, v->wb);
  if (v->rb) ph = op2(k, ZN_OP_Add, ph, v->rb);
  gates_of(k, px, in);
  gates_of(k, ph, state);
  if (k->op == ZN_OP_LSTM) h = lstm_step(k, f, v, in, state, &c);
  else if (k->op == ZN_OP_GRU) h = gru_step(k, f, v, in, state);
  else h = activate(k, &f[0], op2(k, ZN_OP_Add, px, ph), true);
  zn_vid y = h;
  if (v->len) {
    const int64_t last = -1;
    const zn_vid axis = zn_graph_const_i64s(k->g, &last, 1), inside = op2(k, ZN_OP_Less, v->t, v->len);
    const zn_vid keep = op2(k, ZN_OP_Unsqueeze, inside, axis), to_h[3] = {keep, h, v->h}, to_c[3] = {keep, c, v->c};
    const zn_vid to_y[3] = {keep, h, number(k, 0)};
    y = op_of(k, ZN_OP_Where, to_y, 3);
    h = op_of(k, ZN_OP_Where, to_h, 3);
    if (v->c) c = op_of(k, ZN_OP_Where, to_c, 3);
  }
  zn_graph_output(k->g, h);
  if (v->c) zn_graph_output(k->g, c);
  if (y == h) y = op1(k, ZN_OP_Identity, y);
  zn_graph_output(k->g, y);
}

/* ---------------------------------------------------------------- around it */

typedef struct outer { /* inputs of the Scan and the body's own, as they are added */
  zn_vid in[12];
  uint32_t n;
} outer;

/* Outer value v as an input of the body, without its first axis when it is scanned; 0 for 0. */
static zn_vid take(cell *k, outer *o, zn_vid v, bool scanned) {
  if (!v) return 0;
  zn_type t = *zn_rw_type(k->w, v);
  if (scanned) memmove(t.dims, t.dims + 1, sizeof *t.dims * (size_t)(t.rank - 1)), t.rank--;
  o->in[o->n++] = v;
  return zn_graph_input(k->g, NULL, t);
}

/* Entry d of the first axis of operand i; 0 when it is absent. */
static zn_vid of_direction(cell *k, uint32_t i, int d, bool batch_first) {
  const zn_vid v = zn_node_in(&k->m, i);
  const int64_t axis = batch_first ? 1 : 0;
  if (!v) return 0;
  return zn_rw_squeeze(k->w, zn_rw_slice(k->w, v, axis, d, d + 1), &axis, 1);
}

static zn_vid zero_state(cell *k) {
  const zn_vid dims[2] = {zn_rw_extent1(k->w, k->x, 1), zn_rw_extent1(k->w, zn_node_in(&k->m, 2), 2)};
  const zn_vid shape = zn_rw_attr_int(k->w, ZN_OP_Concat, dims, 2, "axis", 0);
  return zn_rw2(k->w, ZN_OP_Expand, zn_rw_num(k->w, k->t, 0), shape);
}

static zn_vid reversed(cell *k, zn_vid v) {
  const zn_vid in[2] = {v, k->len};
  const zn_nid n = zn_rw_raw(k->w, ZN_OP_ReverseSequence, in, 2, 1);
  if (!n) return 0;
  zn_node_set_int(k->w->g, n, "time_axis", 0);
  zn_node_set_int(k->w->g, n, "batch_axis", 1);
  return zn_rw_infer(k->w, n);
}

/* Direction d: out[0] all steps [steps, batch, hidden], out[1] and out[2] the last states. */
static void run_direction(cell *k, int d, bool back, zn_vid *out) {
  zn_rw *w = k->w;
  const bool lstm = k->op == ZN_OP_LSTM;
  const int64_t swap[2] = {1, 0}, turned = back && !k->len;
  const int64_t rows = 0;
  zn_vid bias = of_direction(k, 3, d, false), half[2] = {0, 0};
  if (bias) {
    const zn_nid n = zn_rw_raw(w, ZN_OP_Split, &bias, 1, 2);
    if (!n) return;
    zn_node_set_int(w->g, n, "num_outputs", 2);
    zn_rw_infer(w, n);
    half[0] = w->g->nodes[n].out[0], half[1] = w->g->nodes[n].out[1];
  }
  zn_vid h0 = of_direction(k, 5, d, k->layout), c0 = lstm ? of_direction(k, 6, d, k->layout) : 0;
  if (!h0) h0 = zero_state(k);
  if (lstm && !c0) c0 = zero_state(k);
  const zn_vid x = back && k->len ? reversed(k, k->x) : k->x;
  zn_vid t = 0;
  if (k->len) {
    const zn_vid zero = zn_rw_num(w, ZN_I64, 0), one = zn_rw_num(w, ZN_I64, 1);
    t = zn_rw3(w, ZN_OP_Range, zero, zn_rw_squeeze(w, zn_rw_extent1(w, x, 0), &rows, 1), one);
  }
  const zn_vid wt = zn_rw_transpose(w, of_direction(k, 1, d, false), swap, 2);
  const zn_vid rt = zn_rw_transpose(w, of_direction(k, 2, d, false), swap, 2);
  const zn_vid p = lstm ? of_direction(k, 7, d, false) : 0;
  if (w->st != ZN_OK) return;
  outer o = {.n = 0};
  k->g = zn_graph_new(w->g->arena, w->g->ex, "step");
  inner v = {.h = take(k, &o, h0, false)};
  v.c = take(k, &o, c0, false);
  v.x = take(k, &o, x, true);
  v.t = take(k, &o, t, true);
  const uint32_t own = o.n;
  v.w = take(k, &o, wt, false), v.r = take(k, &o, rt, false);
  v.wb = take(k, &o, half[0], false), v.rb = take(k, &o, half[1], false);
  v.p = take(k, &o, p, false), v.len = take(k, &o, k->len, false);
  write_step(k, k->f[d], &v);
  const uint32_t states = lstm ? 2 : 1;
  const zn_nid n = zn_rw_raw(w, ZN_OP_Scan, o.in, o.n, states + 1);
  if (!n) return;
  const int64_t both[2] = {turned, turned};
  k->g->parent = w->g;
  zn_node_set_attr(w->g, n, (zn_attr){.name = "body", .kind = ZN_A_GRAPH, .u.g = k->g});
  zn_node_set_int(w->g, n, "num_scan_inputs", own - states);
  zn_node_set_ints(w->g, n, "scan_input_directions", both, own - states);
  zn_node_set_ints(w->g, n, "scan_output_directions", both, 1);
  w->g->nodes[n].num_captures = o.n - own;
  zn_rw_infer(w, n);
  for (uint32_t i = 0; i < states; i++) out[1 + i] = w->g->nodes[n].out[i];
  out[0] = w->g->nodes[n].out[states];
  if (back && k->len) out[0] = reversed(k, out[0]);
}

/* Result o of all directions: side by side along `axis`, the batch in front when layout says so. */
static void give_result(cell *k, uint32_t o, const zn_vid *part, int64_t axis, const int64_t *perm, uint32_t rank) {
  zn_vid wide[2] = {0};
  if (!zn_rw_wants(k->w, o)) return;
  for (int d = 0; d < k->dirs; d++) wide[d] = zn_rw_unsqueeze(k->w, part[d], &axis, 1);
  const zn_vid all = zn_rw_attr_int(k->w, ZN_OP_Concat, wide, (uint32_t)k->dirs, "axis", axis);
  zn_rw_output(k->w, o, k->layout ? zn_rw_transpose(k->w, all, perm, rank) : all);
}

ZN_EXPAND(recurrent_steps) {
  const zn_node m = *zn_rw_node(w);
  cell k = {.w = w, .m = m, .op = m.op, .t = (zn_dtype)zn_rw_type(w, m.in[0])->dtype};
  const char *direction = zn_node_str(&m, "direction");
  const int64_t time_first[3] = {1, 0, 2}, batch_first[4] = {2, 0, 1, 3};
  k.gates = m.op == ZN_OP_LSTM ? 4 : m.op == ZN_OP_GRU ? 3 : 1;
  k.per = m.op == ZN_OP_LSTM ? 3 : m.op == ZN_OP_GRU ? 2 : 1;
  k.dirs = strcmp(direction, "bidirectional") ? 1 : 2;
  k.layout = zn_node_int(&m, "layout") != 0;
  k.clip = zn_node_attr(&m, "clip") ? zn_node_attr(&m, "clip")->u.f : 0;
  k.before_reset = m.op == ZN_OP_GRU && zn_node_int(&m, "linear_before_reset") != 0;
  k.input_forget = m.op == ZN_OP_LSTM && zn_node_int(&m, "input_forget") != 0;
  read_activations(&k);
  k.x = k.layout ? zn_rw_transpose(w, m.in[0], time_first, 3) : m.in[0];
  k.len = zn_node_in(&m, 4) ? zn_rw_cast(w, zn_node_in(&m, 4), ZN_I64) : 0;
  zn_vid out[2][3] = {{0}};
  for (int d = 0; d < k.dirs && w->st == ZN_OK; d++) run_direction(&k, d, d == 1 || !strcmp(direction, "reverse"), out[d]);
  if (w->st != ZN_OK) return w->st;
  const zn_vid y[2] = {out[0][0], out[1][0]}, h[2] = {out[0][1], out[1][1]}, c[2] = {out[0][2], out[1][2]};
  give_result(&k, 0, y, 1, batch_first, 4);
  give_result(&k, 1, h, 0, time_first, 3);
  if (m.op == ZN_OP_LSTM) give_result(&k, 2, c, 0, time_first, 3);
  return zn_rw_done(w);
}

void zn_grad_recurrent(zn_grad *a) { zn_grad_through(a, zn_expand_recurrent_steps); }
