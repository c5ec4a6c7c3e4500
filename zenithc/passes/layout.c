/* Layouts. Every image is stored plain (NCHW) or blocked (channels in blocks of one vector register, innermost), and
 * with borders of zeros where a convolution reads it with padding. Operators prefer one form or do not care, and a change
 * of form between a producer and its readers is a copy: which operators work on which form so that the estimated time is
 * least is a minimum cut (mincut.h), since there are two forms. It is exact on any graph, where dynamic programming along
 * chains is not once residual connections join.
 * On targets with threads the other form is channels last: one block of all channels, and no borders (copies put zeros
 * there).
 * Every lowering reads and writes every layout correctly; this pass decides only what is fast. One rewrite is one value:
 * its layout and the copies of it that its readers want. */
#include "zenithc/passes/mincut.h"
#include "zenithc/passes/pass.h"

typedef struct reader {
  zn_nid n;      /* 0: the graph's results */
  uint32_t in;   /* number of the operand or result */
  uint32_t side; /* vertex whose side says which form the reader wants; ZN_CUT_SINK: plain */
} reader;

typedef struct readers {
  reader *list;
  uint32_t num, cap;
} readers;

typedef struct planner {
  zn_ctx *c;
  zn_graph *g;
  zn_pass_opts *o;
  int64_t lanes;
  bool simt;
  bool bytes; /* simt, and there are convolutions of integers */
  zn_mincut *cut;
  uint32_t *in_side, *out_side; /* per node: vertex of its image operands and of its result */
  readers *of;                  /* per value below known */
  uint32_t known;
  bool *blocked;                /* per vertex, solved */
} planner;

/* ---------------------------------------------------------------- what operators can do */

static const zn_type *type_of(const planner *p, zn_vid v) { return &p->g->vals[v].type; }

/* Channels of one block when c channels are blocked: a vector register, or half a wide one; 0: c does not fill blocks. */
static int64_t block_of(const planner *p, int64_t c) {
  if (p->simt) return c % p->lanes || c > UINT16_MAX ? 0 : c;
  if (c > 0 && c % p->lanes == 0) return p->lanes;
  return c > 0 && p->lanes > 8 && c % (p->lanes / 2) == 0 ? p->lanes / 2 : 0;
}

/* Integers: bytes, and what stands between a product of bytes and its codes. */
static bool fits_type(const planner *p, unsigned t) {
  if (t == ZN_F32 || !p->simt) return t == ZN_F32;
  return t == ZN_F16 || t == ZN_BF16 || t == ZN_U8 || t == ZN_I8 || t == ZN_I32 || t == ZN_F64;
}

/* Is there a reason to store image v blocked (others only follow)? The schedule of tf32 reads plain images. */
static bool gains(const planner *p, zn_vid v) { return !p->simt || !p->o->tf32 || type_of(p, v)->dtype != ZN_F32; }

/* An image of full channel blocks and known size: may be stored blocked. */
static bool is_image(const planner *p, zn_vid v, int64_t *out_pixels) {
  const zn_value *x = &p->g->vals[v];
  const zn_type *t = &x->type;
  int64_t d, pixels = 1;
  if (!v || x->cst || t->kind != ZN_V_TENSOR || !fits_type(p, t->dtype) || t->rank < 3 || t->rank > 4) return false;
  if (!zn_ex_is_const(p->g->ex, t->dims[1], &d) || !block_of(p, d)) return false;
  for (int i = 2; i < t->rank; i++) {
    if (!zn_ex_is_const(p->g->ex, t->dims[i], &d) || d < 1) return false;
    pixels *= d;
  }
  if (out_pixels) *out_pixels = pixels;
  return pixels > 1; /* one pixel: both forms are the same bytes */
}

static int64_t channels(const planner *p, zn_vid v) {
  int64_t c = 0;
  zn_ex_is_const(p->g->ex, type_of(p, v)->dims[1], &c);
  return c;
}

/* Elements, with 1 for symbolic sizes. */
static int64_t elements(const planner *p, zn_vid v) {
  const zn_type *t = type_of(p, v);
  int64_t n = 1, d;
  for (int i = 0; i < t->rank; i++)
    if (zn_ex_is_const(p->g->ex, t->dims[i], &d)) n *= d;
  return n;
}

typedef struct window {
  int rank;
  int64_t kernel[2], stride[2], dilation[2], pad[2], taps;
} window;

/* Attributes as canon spells them; pads before each axis. */
static bool read_window(const planner *p, const zn_node *n, window *w) {
  uint32_t nk, ns, nd = 0, np;
  const int64_t *k = zn_node_ints(n, "kernel_shape", &nk), *s = zn_node_ints(n, "strides", &ns);
  const int64_t *d = zn_node_ints(n, "dilations", &nd), *pads = zn_node_ints(n, "pads", &np);
  const char *mode = zn_node_str(n, "auto_pad");
  w->rank = type_of(p, n->in[0])->rank - 2;
  if (mode && *mode && strcmp(mode, "NOTSET") != 0) return false;
  if (w->rank < 1 || w->rank > 2 || (int)nk != w->rank) return false;
  w->taps = 1;
  for (int i = 0; i < w->rank; i++) {
    w->kernel[i] = k[i];
    w->stride[i] = s && ns ? s[i] : 1;
    w->dilation[i] = d && nd ? d[i] : 1;
    w->pad[i] = pads && np ? pads[i] : 0;
    if (w->pad[i] < 0) return false;
    w->taps *= k[i];
  }
  return true;
}

static bool same_dims(const zn_type *a, const zn_type *b) {
  if (a->rank != b->rank) return false;
  for (int d = 0; d < a->rank; d++)
    if (a->dims[d] != b->dims[d]) return false;
  return true;
}

/* Operand of a map that every element of a channel shares, or all: read plain. */
static bool is_shared(const planner *p, zn_vid v, const zn_type *like) {
  const zn_type *t = type_of(p, v);
  for (int d = 2; d < like->rank; d++) {
    int at = d - (like->rank - t->rank);
    if (at >= 0 && !zn_ex_is(p->g->ex, t->dims[at], 1)) return false;
  }
  return t->rank <= like->rank;
}

/* QuantizeLinear and DequantizeLinear by constants, per tensor or channel. */
static bool is_quantizer(const planner *p, const zn_node *n) {
  if (n->op != ZN_OP_QuantizeLinear && n->op != ZN_OP_DequantizeLinear) return false;
  if (!p->simt || zn_node_int(n, "block_size")) return false;
  for (uint32_t i = 1; i < n->num_in; i++)
    if (n->in[i] && !p->g->vals[n->in[i]].cst) return false;
  return true;
}

static bool is_map(const planner *p, const zn_node *n) {
  const zn_type *t = type_of(p, n->out[0]);
  bool cast = p->simt && n->op == ZN_OP_Cast;
  if (n->num_out != 1 || !is_image(p, n->out[0], NULL)) return false;
  if (is_quantizer(p, n)) return is_image(p, n->in[0], NULL);
  if (!cast && !(zn_ops[n->op].flags & ZN_OPF_EW)) return false;
  bool any = false;
  for (uint32_t i = 0; i < n->num_in; i++) {
    if (!n->in[i]) continue;
    bool image = is_image(p, n->in[i], NULL) && same_dims(type_of(p, n->in[i]), t);
    if (!image && !is_shared(p, n->in[i], t)) return false;
    any |= image;
  }
  return any;
}

static bool is_channel_concat(const planner *p, const zn_node *n) {
  if (n->op != ZN_OP_Concat) return false;
  const int64_t axis = zn_node_int(n, "axis"), rank = type_of(p, n->out[0])->rank;
  if ((axis < 0 ? axis + rank : axis) != 1 || !is_image(p, n->out[0], NULL)) return false;
  for (uint32_t i = 0; i < n->num_in; i++)
    if (!is_image(p, n->in[i], NULL)) return false;
  return true;
}

/* Axes that are reduced: exactly the image's. */
static bool is_global_reduction(const planner *p, const zn_node *n) {
  int64_t axes[ZN_MAX_RANK];
  uint32_t num = 0;
  if (n->op != ZN_OP_ReduceMean && n->op != ZN_OP_ReduceSum && n->op != ZN_OP_ReduceMax && n->op != ZN_OP_ReduceMin)
    return false;
  const int rank = type_of(p, n->in[0])->rank;
  if (!is_image(p, n->in[0], NULL) || !zn_node_in(n, 1)) return false;
  if (!zn_value_i64s(p->g, n->in[1], axes, ZN_MAX_RANK, &num) || (int)num != rank - 2) return false;
  unsigned seen = 0;
  for (uint32_t i = 0; i < num; i++) seen |= 1u << (axes[i] < 0 ? axes[i] + rank : axes[i]);
  return seen == (rank == 4 ? 12u : 4u);
}

static bool is_resize(const planner *p, const zn_node *n) {
  if (n->op != ZN_OP_Resize || !is_image(p, n->in[0], NULL) || !is_image(p, n->out[0], NULL)) return false;
  const zn_type *x = type_of(p, n->in[0]), *y = type_of(p, n->out[0]);
  return x->dims[0] == y->dims[0] && x->dims[1] == y->dims[1];
}

static bool is_pool(const planner *p, const zn_node *n) {
  if (n->op != ZN_OP_MaxPool && n->op != ZN_OP_AveragePool && n->op != ZN_OP_LpPool) return false;
  return (n->num_out == 1 || !n->out[1]) && is_image(p, n->in[0], NULL) && is_image(p, n->out[0], NULL);
}

/* ---------------------------------------------------------------- costs, in cycles */

static void prefer(planner *p, uint32_t side, double plain, double blocked) {
  zn_mincut_edge(p->cut, ZN_CUT_SOURCE, side, (int64_t)plain);
  zn_mincut_edge(p->cut, side, ZN_CUT_SINK, (int64_t)blocked);
}

/* 1: measurements say blocked, 0: plain; -1: none, the cut decides. */
static int64_t measured_form(const planner *p, zn_nid id) {
  static const int64_t forms[] = {-1, 0, 1};
  if (!p->o->knobs) return -1;
  const char *arch = zn_arena_printf(&p->c->tmp, "%s layout", p->o->caps && p->o->caps->arch ? p->o->caps->arch : "");
  const char *signature = zn_knob_signature(p->g->arena, p->g, id, arch, p->o->math_fast);
  return zn_knob_ask(p->o->knobs, signature, "blocked", -1, forms, 3);
}

/* Channels of bytes that are copied at once; of an image that is copied first. LAUNCH: a kernel more, at the units' pace */
enum { COPY = 16, FEW = 8, LAUNCH = 30000 };

static bool is_conv(const zn_node *n) {
  return n->op == ZN_OP_Conv || n->op == ZN_OP_ConvInteger || n->op == ZN_OP_QLinearConv;
}

static zn_vid weights_of(const zn_node *n) { return n->in[n->op == ZN_OP_QLinearConv ? 3 : 1]; }

/* Integers: do the schedules for channels-last images take the convolution of ci channels? One takes a channel at a time, one
 * copies sixteen at once, or makes a copy of its own of an image of few channels; a border of zero points must be known. */
static bool takes_bytes(const planner *p, const zn_node *n, const window *w, int64_t ci, bool depthwise) {
  const zn_vid z = zn_node_in(n, 2);
  bool padded = false;
  for (int i = 0; i < w->rank; i++) padded |= w->pad[i] > 0;
  if (!p->simt || depthwise || zn_node_int(n, "group") != 1) return p->simt && depthwise;
  return ci <= FEW ? w->rank == 2 : ci % COPY == 0 && (!padded || !z || p->g->vals[z].cst);
}

/* Shares of the multiply-add peak measured on convolutions of real networks. */
static void plan_conv(planner *p, zn_nid id) {
  const zn_node *n = &p->g->nodes[id];
  window w;
  int64_t pixels, group = zn_node_int(n, "group");
  if (!is_image(p, n->out[0], &pixels) || !gains(p, n->out[0])) return;
  if (!p->g->vals[weights_of(n)].cst || !read_window(p, n, &w)) return;
  int64_t ci, co = channels(p, n->out[0]), sd;
  if (!zn_ex_is_const(p->g->ex, type_of(p, n->in[0])->dims[1], &ci)) return;
  for (int i = 0; i < w.rank; i++)
    if (!zn_ex_is_const(p->g->ex, type_of(p, n->in[0])->dims[i + 2], &sd)) return;
  bool image = is_image(p, n->in[0], NULL), depthwise = group > 1 && group == ci && co == ci, bytes = n->op != ZN_OP_Conv;
  if ((depthwise && !image) || (bytes && !takes_bytes(p, n, &w, ci, depthwise))) return;
  const int64_t block = block_of(p, co);
  if (!depthwise && co / group % block) return;
  double macs = (double)elements(p, n->out[0]) * (double)(ci / group * w.taps);
  double cycles = macs / (double)(2 * block), fast = depthwise ? 0.6 : pixels < 4 ? 0.3 : 0.88;
  p->out_side[id] = zn_mincut_vertex(p->cut);
  double plain = macs / (double)(2 * p->lanes) / (depthwise ? 0.3 : 0.6), blocked = cycles / fast;
  int64_t form = measured_form(p, id);
  if (form >= 0) *(form ? &plain : &blocked) = (plain + blocked) * 1e3;
  prefer(p, p->out_side[id], plain, blocked);
  if (bytes && !depthwise && ci <= FEW) prefer(p, p->out_side[id], 0, LAUNCH);
  if (!image || (!depthwise && (ci / group % block_of(p, ci) || (bytes && ci % COPY)))) return; /* reads plain */
  p->in_side[id] = zn_mincut_vertex(p->cut);
  zn_mincut_edge(p->cut, p->in_side[id], p->out_side[id], ZN_CUT_FORBIDDEN);
  /* a plain operand needs bordering, and its channels are far apart */
  double plain_in = depthwise ? (double)ZN_CUT_FORBIDDEN : (double)elements(p, n->in[0]) + cycles * 0.1;
  if (bytes && !depthwise) plain_in = 4 * (double)elements(p, n->in[0]) + macs / 16; /* gathered one by one */
  zn_mincut_edge(p->cut, p->out_side[id], p->in_side[id], (int64_t)plain_in);
}

static void plan_node(planner *p, zn_nid id) {
  const zn_node *n = &p->g->nodes[id];
  if (n->num_out == 0 || !n->out[0] || n->num_in == 0 || !n->in[0]) return;
  if (is_conv(n)) {
    plan_conv(p, id);
    return;
  }
  if (is_global_reduction(p, n)) {
    p->in_side[id] = zn_mincut_vertex(p->cut);
    return;
  }
  bool pool = is_pool(p, n), resize = is_resize(p, n);
  if (!pool && !resize && !is_map(p, n) && !is_channel_concat(p, n)) return;
  p->in_side[id] = p->out_side[id] = zn_mincut_vertex(p->cut);
  window w;
  double count = (double)elements(p, n->out[0]);
  if (pool && gains(p, n->out[0]) && read_window(p, n, &w))
    prefer(p, p->in_side[id], count * (double)w.taps * 0.4, count * (double)w.taps / (double)p->lanes);
  if (resize && gains(p, n->out[0])) prefer(p, p->in_side[id], count, count / 4);
}

/* ---------------------------------------------------------------- the cut */

/* Does operand k of n take part (or is it a shape, a weight, a broadcast: always plain)? */
static bool takes_part(const planner *p, const zn_node *n, uint32_t k) {
  if (!n->in[k] || p->g->vals[n->in[k]].cst) return false;
  if (zn_ops[n->op].flags & ZN_OPF_EW) return same_dims(type_of(p, n->in[k]), type_of(p, n->out[0]));
  return k == 0 || n->op == ZN_OP_Concat;
}

static void collect_readers(planner *p) {
  for (uint32_t i = 0; i < p->g->num_order; i++) {
    const zn_nid id = p->g->order[i];
    const zn_node *n = &p->g->nodes[id];
    for (uint32_t k = 0; k < n->num_in; k++) {
      readers *r = &p->of[n->in[k]];
      reader x = {id, k, takes_part(p, n, k) ? p->in_side[id] : ZN_CUT_SINK};
      if (n->in[k]) ZN_PUSH(&p->c->tmp, r->list, r->num, r->cap, x);
    }
  }
  for (uint32_t i = 0; i < p->g->num_outputs; i++) {
    readers *r = &p->of[p->g->outputs[i]];
    reader x = {0, i, ZN_CUT_SINK};
    ZN_PUSH(&p->c->tmp, r->list, r->num, r->cap, x);
  }
}

static uint32_t producer_side(const planner *p, zn_vid v) {
  const zn_nid def = p->g->vals[v].def;
  return def && p->g->vals[v].def_out == 0 ? p->out_side[def] : ZN_CUT_SINK;
}

/* A copy of v is made once for all readers of the other form. */
static void price_copies(planner *p, zn_vid v) {
  const uint32_t from = producer_side(p, v);
  const int64_t cost = 2 * elements(p, v) + (p->bytes ? LAUNCH : 2000);
  uint32_t to_plain = 0, to_blocked = 0;
  for (uint32_t i = 0; i < p->of[v].num; i++) {
    const uint32_t to = p->of[v].list[i].side;
    if (to == from) continue;
    if (from != ZN_CUT_SINK) { /* blocked here, plain there */
      if (!to_plain) zn_mincut_edge(p->cut, from, to_plain = zn_mincut_vertex(p->cut), cost);
      zn_mincut_edge(p->cut, to_plain, to, ZN_CUT_FORBIDDEN);
    }
    if (to != ZN_CUT_SINK) { /* the other way round */
      if (!to_blocked) zn_mincut_edge(p->cut, to_blocked = zn_mincut_vertex(p->cut), from, cost);
      zn_mincut_edge(p->cut, to, to_blocked, ZN_CUT_FORBIDDEN);
    }
  }
}

/* A map behind a kernel runs in its store loop, unless a copy comes between. */
static void price_fusion(planner *p, zn_nid id) {
  const zn_node *n = &p->g->nodes[id];
  bool map = (zn_ops[n->op].flags & ZN_OPF_EW) || (p->bytes && (n->op == ZN_OP_Cast || is_quantizer(p, n)));
  if (p->in_side[id] == ZN_CUT_SINK || !map) return;
  for (uint32_t k = 0; k < n->num_in; k++) {
    if (!takes_part(p, n, k)) continue;
    const uint32_t from = producer_side(p, n->in[k]);
    zn_mincut_edge(p->cut, from, p->in_side[id], elements(p, n->in[k]) / 2);
    if (from != ZN_CUT_SINK) zn_mincut_edge(p->cut, p->in_side[id], from, elements(p, n->in[k]) / 2);
  }
}

static void solve(planner *p) {
  for (uint32_t i = 0; i < p->g->num_order; i++) {
    const zn_node *n = &p->g->nodes[p->g->order[i]];
    p->bytes |= p->simt && is_conv(n) && n->op != ZN_OP_Conv;
  }
  for (uint32_t i = 0; i < p->g->num_order; i++) {
    const zn_nid id = p->g->order[i];
    p->in_side[id] = p->out_side[id] = ZN_CUT_SINK;
    plan_node(p, id);
  }
  for (uint32_t i = 0; i < p->g->num_order; i++) price_fusion(p, p->g->order[i]);
  collect_readers(p);
  for (zn_vid v = 1; v < p->g->num_vals; v++)
    if (p->of[v].num) price_copies(p, v);
  p->blocked = zn_mincut_solve(p->cut);
}

/* ---------------------------------------------------------------- carrying it out */

static void widen(zn_layout *l, const zn_layout *by) {
  for (int d = 0; d < ZN_MAX_RANK; d++) {
    if (by->lo[d] > l->lo[d]) l->lo[d] = by->lo[d];
    if (by->hi[d] > l->hi[d]) l->hi[d] = by->hi[d];
  }
  l->has_halo |= by->has_halo;
}

/* The borders that reader r (a convolution with a blocked result) needs around its operand. */
static zn_layout borders(const planner *p, const reader *r) {
  const zn_node *n = &p->g->nodes[r->n];
  zn_layout l = {0};
  window w;
  if (p->simt || !r->n || n->op != ZN_OP_Conv || r->in != 0 || !p->blocked[p->out_side[r->n]] || !read_window(p, n, &w)) return l;
  for (int i = 0; i < w.rank; i++) {
    int64_t in = 0, out = 0;
    zn_ex_is_const(p->g->ex, type_of(p, n->in[0])->dims[i + 2], &in);
    zn_ex_is_const(p->g->ex, type_of(p, n->out[0])->dims[i + 2], &out);
    int64_t end = (out - 1) * w.stride[i] + (w.kernel[i] - 1) * w.dilation[i] + 1 - w.pad[i] - in;
    if (end < 0) end = 0;
    if (w.pad[i] > UINT16_MAX || end > UINT16_MAX) return (zn_layout){0};
    l.lo[i + 2] = (uint16_t)w.pad[i];
    l.hi[i + 2] = (uint16_t)end;
    l.has_halo |= w.pad[i] > 0 || end > 0;
  }
  return l;
}

static void copy_for(planner *p, zn_vid v, zn_layout l, const bool *wants, const char *suffix) {
  zn_graph *g = p->g;
  const readers *r = &p->of[v];
  uint32_t first = 0;
  while (!wants[first]) first++;
  const char *name = zn_arena_printf(&p->c->tmp, "%s_%s", g->vals[v].name, suffix);
  const zn_nid before = r->list[first].n; /* results come last among readers */
  zn_nid n = before ? zn_graph_node_before(g, before, ZN_OP_Identity, name, &v, 1, 1)
                    : zn_graph_node(g, ZN_OP_Identity, name, &v, 1, 1);
  zn_vid copy = g->nodes[n].out[0];
  g->vals[copy].type = g->vals[v].type;
  g->vals[copy].layout = l;
  zn_graph_rename(g, copy, name);
  for (uint32_t i = 0; i < r->num; i++) {
    if (!wants[i]) continue;
    if (r->list[i].n)
      g->nodes[r->list[i].n].in[r->list[i].in] = copy;
    else
      zn_graph_take_output(g, r->list[i].in, copy, "blocked");
  }
}

/* Is plain v written element by element, whatever its layout, and read by nobody who wants it dense? */
static bool may_border(const planner *p, zn_vid v, const bool *border) {
  const zn_nid def = p->g->vals[v].def;
  bool all = def && p->g->nodes[def].op == ZN_OP_Concat && !p->g->vals[v].is_output;
  for (uint32_t i = 0; i < p->of[v].num; i++) all = all && border[i];
  return all;
}

static void lay_out(planner *p, zn_vid v) {
  const readers *r = &p->of[v];
  const bool own = p->blocked[producer_side(p, v)];
  bool *other = ZN_ARRAY(&p->c->tmp, bool, r->num + 1), *border = ZN_ARRAY(&p->c->tmp, bool, r->num + 1);
  bool any_other = false, any_border = false;
  zn_layout block = {.axis = 1}, bordered = {0};
  if (is_image(p, v, NULL)) block.block = (uint16_t)block_of(p, channels(p, v));
  for (uint32_t i = 0; i < r->num; i++) {
    const bool wants = p->blocked[r->list[i].side];
    const zn_layout need = borders(p, &r->list[i]);
    other[i] = wants != own;
    any_other |= other[i];
    border[i] = !wants && need.has_halo;
    any_border |= border[i];
    widen(wants ? &block : &bordered, &need);
    if (border[i]) other[i] = false;
  }
  any_other = false;
  for (uint32_t i = 0; i < r->num; i++) any_other |= other[i];
  if ((!own && !any_other && !any_border) || !zn_pass_may_rewrite(p->o)) return;
  if (own) p->g->vals[v].layout = block;
  else if (may_border(p, v, border)) p->g->vals[v].layout = bordered, any_border = false;
  if (any_other) copy_for(p, v, own ? (zn_layout){0} : block, other, own ? "plain" : "blocked");
  if (any_border) copy_for(p, v, bordered, border, "bordered");
}

/* ---------------------------------------------------------------- equal borders */

/* What v becomes behind elementwise operators that alone read it. */
static zn_vid behind_maps(const planner *p, zn_vid v) {
  for (;;) {
    if (v >= p->known || p->of[v].num != 1 || !p->of[v].list[0].n) return v;
    const zn_node *n = &p->g->nodes[p->of[v].list[0].n];
    if (!(zn_ops[n->op].flags & ZN_OPF_EW) || !takes_part(p, n, p->of[v].list[0].in)) return v;
    v = n->out[0];
  }
}

static bool read_last_by(const planner *p, zn_vid v, uint32_t position) {
  for (uint32_t i = position + 1; i < p->g->num_order; i++)
    for (uint32_t k = 0; k < p->g->nodes[p->g->order[i]].num_in; k++)
      if (p->g->nodes[p->g->order[i]].in[k] == v) return false;
  return !p->g->vals[v].is_output;
}

/* A residual whose last reader is this sum, and what the sum becomes, get the same borders: then it takes over the
 * residual's memory. */
static void match_borders(planner *p, uint32_t position) {
  zn_graph *g = p->g;
  const zn_node *n = &g->nodes[g->order[position]];
  if (!(zn_ops[n->op].flags & ZN_OPF_EW) || n->num_in != 2 || !is_map(p, n)) return;
  const zn_vid v = behind_maps(p, n->out[0]);
  zn_layout *to = &g->vals[v].layout;
  for (uint32_t k = 0; k < 2; k++) {
    const zn_vid u = n->in[k];
    zn_layout *from = &g->vals[u].layout;
    if (u >= p->known || !takes_part(p, n, k) || g->vals[v].is_output) continue;
    if (p->of[u].num < 2 || !read_last_by(p, u, position)) continue;
    if (from->block != to->block || from->axis != to->axis || !from->block) continue;
    if (!(from->has_halo && to->has_halo) && !p->o->ram_bytes) continue; /* without borders a 1x1 layer is one long row */
    if (!memcmp(from, to, sizeof *to) || !zn_pass_may_rewrite(p->o)) continue;
    widen(to, from);
    widen(from, to);
  }
}

zn_status zn_pass_layout(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  planner p = {.c = c, .g = g, .o = o};
  p.simt = o->caps && o->caps->mma;
  p.lanes = p.simt ? 8 : o->caps && !o->frugal ? o->caps->vector_bytes / 4 : 0;
  if (p.lanes < 2 || p.lanes > 16 || (p.lanes & (p.lanes - 1))) return ZN_OK;
  p.cut = zn_mincut_new(&c->tmp);
  p.in_side = ZN_ARRAY(&c->tmp, uint32_t, g->num_nodes);
  p.out_side = ZN_ARRAY(&c->tmp, uint32_t, g->num_nodes);
  p.of = ZN_ARRAY(&c->tmp, readers, g->num_vals);
  p.known = g->num_vals;
  solve(&p);
  for (zn_vid v = 1; v < p.known; v++)
    if (p.of[v].num && !g->vals[v].cst) lay_out(&p, v);
  for (uint32_t i = g->num_order; i-- > 0;) match_borders(&p, i);
  return zn_pass_bodies(c, g, o, zn_pass_layout);
}
