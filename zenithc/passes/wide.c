/* Half precision on processors that compute in f32: around convolutions and products, tensors of f16 and bf16 are kept as
 * f32 twins that hold the same numbers. A result is rounded where the model would store it (RoundTo, part of the kernel that
 * computes it), so the numbers are those of the narrow tensors, and every schedule, blocked layouts and borders included, is
 * that of f32, without conversions in inner loops. Constants become f32 as they are. The interface keeps its types, and so
 * does what the operators not listed here read: they get a cast of the twin, which is exact.
 * Softmax stays narrow: it rounds its exponentials where it stores them, as the ONNX vectors do. Not where memory counts:
 * Helium, --max-ram. */
#include "zenithc/passes/pass.h"

typedef enum kind {
  KEEP,   /* narrow operands and results */
  MOVE,   /* results hold elements of the operands */
  SAME,   /* a map that takes numbers of the narrow type to such numbers, and rounding before it is rounding behind it */
  COMPUTE /* results are rounded */
} kind;

enum { MIN_DEPTH = 16, MIN_COLUMNS = 16 };

typedef struct widener {
  zn_ctx *c;
  zn_graph *g;
  bool dot_bf16;     /* of caps */
  uint32_t known;    /* values of the model: ids below */
  uint8_t *narrow;   /* per value: the narrow type it has in the model, or ZN_NONE */
  zn_vid *twin;      /* per narrow value: its f32 twin, per cast of one to f32: the same, 0: none yet */
  zn_vid *thin;      /* per value that became f32: the same in its narrow type, 0: none yet */
  bool *unrounded;   /* per value: its only reader rounds */
  uint32_t *uses;
  zn_nid *reader;    /* one of the readers */
} widener;

static bool is_narrow(unsigned t) { return t == ZN_F16 || t == ZN_BF16; }

/* A product that the processor computes from bf16 as they are (Dot2Bf16, TileDot of kops.def). */
static bool stays_narrow(const widener *w, const zn_node *n) {
  const zn_graph *g = w->g;
  if (!w->dot_bf16 || (n->op != ZN_OP_MatMul && n->op != ZN_OP_Gemm)) return false;
  const zn_type *a = &g->vals[n->in[0]].type, *b = &g->vals[n->in[1]].type;
  const zn_htensor *h = g->vals[n->in[1]].cst;
  if (w->narrow[n->in[0]] != ZN_BF16 || w->narrow[n->in[1]] != ZN_BF16) return false;
  if (a->rank < 2 || b->rank != 2 || !h || !h->data) return false;
  const bool gemm = n->op == ZN_OP_Gemm, trans_b = gemm && zn_node_int(n, "transB") != 0;
  return !(gemm && zn_node_int(n, "transA")) && h->dims[trans_b] >= MIN_DEPTH && h->dims[!trans_b] >= MIN_COLUMNS;
}

static kind kind_of(const widener *w, const zn_node *n) {
  const zn_graph *g = w->g;
  if (stays_narrow(w, n)) return KEEP;
  switch ((unsigned)n->op) {
  case ZN_OP_Reshape: case ZN_OP_Transpose: case ZN_OP_Slice: case ZN_OP_Concat: case ZN_OP_Split: case ZN_OP_Squeeze:
  case ZN_OP_Unsqueeze: case ZN_OP_Expand: case ZN_OP_Flatten: case ZN_OP_Identity: case ZN_OP_Pad: case ZN_OP_Tile:
  case ZN_OP_Where: case ZN_OP_MaxPool: return MOVE;
  case ZN_OP_Relu: case ZN_OP_Neg: case ZN_OP_Abs: case ZN_OP_Clip: return SAME;
  case ZN_OP_MatMul: case ZN_OP_Gemm: case ZN_OP_Conv: case ZN_OP_ConvTranspose: case ZN_OP_AveragePool:
  case ZN_OP_LayerNormalization: case ZN_OP_InstanceNormalization: case ZN_OP_ReduceSum: case ZN_OP_ReduceMean:
  case ZN_OP_ReduceMax: case ZN_OP_ReduceMin: return COMPUTE;
  case ZN_OP_Cast: return g->vals[n->in[0]].type.dtype == ZN_F32 ? COMPUTE : KEEP;
  default: return zn_ops[n->op].flags & ZN_OPF_EW ? COMPUTE : KEEP;
  }
}

static bool is_product(const zn_node *n) {
  return n->op == ZN_OP_Conv || n->op == ZN_OP_ConvTranspose || n->op == ZN_OP_MatMul || n->op == ZN_OP_Gemm;
}

static void set_type(widener *w, zn_vid v, zn_vid like, zn_dtype t) {
  w->g->vals[v].type = w->g->vals[like].type;
  w->g->vals[v].type.dtype = (uint8_t)t;
}

/* v by one more node before node `before` (0: at the end), of element type `type`; `to`: its attribute. */
static zn_vid converted(widener *w, zn_op op, zn_vid v, zn_dtype to, zn_dtype type, zn_nid before) {
  zn_graph *g = w->g;
  const char *name = g->vals[v].name;
  zn_nid n = before ? zn_graph_node_before(g, before, op, name, &v, 1, 1) : zn_graph_node(g, op, name, &v, 1, 1);
  zn_node_set_int(g, n, "to", zn_dtypes[to].onnx);
  zn_vid out = zn_node_out(g, n, 0);
  set_type(w, out, v, type);
  return out;
}

static zn_vid wide_constant(widener *w, zn_vid v) {
  const zn_htensor *h = w->g->vals[v].cst;
  const uint64_t n = zn_htensor_count(h);
  zn_htensor *r = ZN_NEW(&w->c->graph, zn_htensor);
  float *to = zn_arena_array(&w->c->graph, n ? n : 1, sizeof *to);
  for (uint64_t i = 0; i < n; i++) to[i] = (float)zn_load_f64(h->dtype, h->data, i);
  *r = *h;
  r->dtype = ZN_F32;
  r->data = to;
  return zn_graph_const(w->g, w->g->vals[v].name, r);
}

static zn_vid twin_of(widener *w, zn_vid v, zn_nid before) {
  if (w->twin[v]) return w->twin[v];
  const zn_htensor *h = w->g->vals[v].cst;
  return w->twin[v] = h && h->data ? wide_constant(w, v) : converted(w, ZN_OP_Cast, v, ZN_F32, ZN_F32, before);
}

static zn_vid thin_of(widener *w, zn_vid v, zn_nid before) {
  const zn_dtype t = (zn_dtype)w->narrow[v];
  if (!w->thin[v]) w->thin[v] = converted(w, ZN_OP_Cast, w->twin[v], t, t, before);
  return w->thin[v];
}

static bool became_wide(const widener *w, zn_vid v) {
  return v && v < w->known && w->narrow[v] && w->g->vals[v].type.dtype == ZN_F32;
}

/* Is the rounding of v left to its only reader? */
static bool rounds_later(const widener *w, zn_vid v) {
  const zn_graph *g = w->g;
  if (w->uses[v] != 1 || g->vals[v].is_output) return false;
  const zn_node *r = &g->nodes[w->reader[v]];
  return kind_of(w, r) == SAME && r->in[0] == v && g->vals[r->out[0]].type.dtype == w->narrow[v];
}

static void widen_node(widener *w, zn_nid n, zn_nid next) {
  zn_graph *g = w->g;
  kind k = kind_of(w, &g->nodes[n]);
  bool wide = k == COMPUTE, some = false, pending = false;
  for (uint32_t i = 0; i < g->nodes[n].num_in; i++) wide |= k != KEEP && became_wide(w, g->nodes[n].in[i]);
  for (uint32_t i = 0; i < g->nodes[n].num_in; i++) {
    zn_vid v = g->nodes[n].in[i];
    if (v && !w->narrow[v] && w->twin[v]) g->nodes[n].in[i] = w->twin[v];
    if (!v || !w->narrow[v]) continue;
    some = true;
    pending |= w->unrounded[v];
    const zn_vid y = g->nodes[n].out[0];
    if (g->nodes[n].op == ZN_OP_Cast && g->vals[y].type.dtype == ZN_F32 && became_wide(w, v)) {
      g->nodes[n].in[0] = w->twin[y] = twin_of(w, v, n);
      return;
    }
    zn_vid other = wide ? twin_of(w, v, n) : became_wide(w, v) ? thin_of(w, v, n) : v;
    g->nodes[n].in[i] = other;
  }
  for (uint32_t i = 0; i < g->nodes[n].num_out && wide && (some || g->nodes[n].op == ZN_OP_Cast); i++) {
    zn_vid v = g->nodes[n].out[i];
    if (!v || !w->narrow[v]) continue;
    const zn_dtype t = (zn_dtype)w->narrow[v];
    w->unrounded[v] = (k == COMPUTE || pending) && rounds_later(w, v);
    g->vals[v].type.dtype = ZN_F32;
    if (g->nodes[n].op == ZN_OP_Cast) { /* of f32 */
      w->twin[v] = converted(w, ZN_OP_RoundTo, g->nodes[n].in[0], t, ZN_F32, n);
      g->vals[v].type.dtype = (uint8_t)t;
      continue;
    }
    const bool round = (k == COMPUTE || pending) && !w->unrounded[v];
    w->twin[v] = round ? converted(w, ZN_OP_RoundTo, v, t, ZN_F32, next) : v;
  }
}

/* The interface keeps its names and types. */
static void narrow_outputs(widener *w) {
  zn_graph *g = w->g;
  for (uint32_t i = 0; i < g->num_outputs; i++) {
    zn_vid v = g->outputs[i];
    if (became_wide(w, v)) zn_graph_take_output(g, i, thin_of(w, v, 0), "wide");
  }
}

/* Is there a product of narrow tensors to be faster for? */
static bool worthwhile(const widener *w) {
  const zn_graph *g = w->g;
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    if (is_product(n) && is_narrow(g->vals[n->in[0]].type.dtype) && !stays_narrow(w, n)) return true;
  }
  return false;
}

static zn_status widen(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  widener w = {.c = c, .g = g, .dot_bf16 = o->caps->dot_bf16, .known = g->num_vals};
  w.narrow = ZN_ARRAY(&c->tmp, uint8_t, w.known);
  for (zn_vid v = 1; v < w.known; v++) {
    const zn_type *t = &g->vals[v].type;
    if (t->kind == ZN_V_TENSOR && is_narrow(t->dtype)) w.narrow[v] = t->dtype;
  }
  if (!worthwhile(&w) || !zn_pass_may_rewrite(o)) return ZN_OK;
  w.twin = ZN_ARRAY(&c->tmp, zn_vid, w.known);
  w.thin = ZN_ARRAY(&c->tmp, zn_vid, w.known);
  w.unrounded = ZN_ARRAY(&c->tmp, bool, w.known);
  w.uses = zn_graph_uses(g, &c->tmp);
  w.reader = ZN_ARRAY(&c->tmp, zn_nid, w.known);
  const uint32_t count = g->num_order;
  zn_nid *order = ZN_ARRAY(&c->tmp, zn_nid, count + 1);
  memcpy(order, g->order, count * sizeof *order);
  for (uint32_t i = 0; i < count; i++)
    for (uint32_t k = 0; k < g->nodes[order[i]].num_in; k++) w.reader[g->nodes[order[i]].in[k]] = order[i];
  for (uint32_t i = 0; i < count; i++) widen_node(&w, order[i], i + 1 < count ? order[i + 1] : 0);
  narrow_outputs(&w);
  return zn_pass_dce(c, g, o);
}

zn_status zn_pass_wide(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  const zn_caps *caps = o->caps;
  if (!caps || caps->simt || !caps->vector_bytes || !caps->l2_bytes || o->frugal || o->ram_bytes) return ZN_OK;
  ZN_TRY(widen(c, g, o));
  return zn_pass_bodies(c, g, o, zn_pass_wide);
}
