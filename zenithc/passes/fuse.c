/* Fusion: decides which values are never stored. Moves, in this order:
 *   attention  where the target has a kernel for it, scores and probabilities stay inside the last product's kernel;
 *   alias      a reshape of a stored, plain tensor shares its storage;
 *   prologue   a map or view with one reader that reads each element about once is computed inside that reader;
 *   epilogue   a map over the whole result of a kernel operator, and its only reader, runs in that kernel's store loop.
 * Result: zn_value.inlined, zn_value.alias and zn_node.group (the root of the kernel a node runs in). */
#include "zenithc/ops/attention_form.h"
#include "zenithc/passes/pass.h"

enum { MAX_COST = 48, MAX_LOADS = 8 };

typedef struct fuser {
  zn_ctx *c;
  zn_graph *g;
  zn_pass_opts *o;
  uint32_t *uses;
  zn_nid *reader;   /* the only reading node, when uses == 1 and it is not a graph output */
  uint16_t *cost;   /* operations to compute one element from stored values, when inlined */
  uint8_t *loads;   /* stored operands behind a point value */
  bool *pinned;     /* must be stored, for a reader that wants it in memory */
} fuser;

/* Numbers from text and text from numbers are kernels of their own. */
static bool converts_text(const zn_graph *g, const zn_node *n) {
  return (n->op == ZN_OP_Cast || n->op == ZN_OP_CastLike) &&
         (g->vals[n->in[0]].type.dtype == ZN_STR || g->vals[n->out[0]].type.dtype == ZN_STR);
}

static bool is_point(const zn_graph *g, const zn_node *n) {
  return (zn_ops[n->op].flags & (ZN_OPF_EW | ZN_OPF_POINT)) != 0 && !converts_text(g, n);
}

static bool is_free(const zn_node *n) { /* costs no arithmetic worth naming and needs no operand in memory */
  switch (n->op) {
  case ZN_OP_Shape: case ZN_OP_Size: case ZN_OP_ConstantOfShape: case ZN_OP_Range: case ZN_OP_EyeLike:
    return true;
  default: return false;
  }
}

static bool is_view(const zn_node *n) {
  return (zn_ops[n->op].flags & ZN_OPF_VIEW) || n->op == ZN_OP_Split;
}

/* Operators that read operand i many times, or through raw pointers. */
static bool reads_densely(const zn_graph *g, const zn_node *n, uint32_t i) {
  switch (n->op) {
  case ZN_OP_MatMul: case ZN_OP_Gemm: case ZN_OP_Conv: case ZN_OP_ConvTranspose: case ZN_OP_Einsum:
  case ZN_OP_MatMulInteger: case ZN_OP_ConvInteger: case ZN_OP_QLinearConv: case ZN_OP_QLinearMatMul:
  case ZN_OP_MaxPool: case ZN_OP_AveragePool: case ZN_OP_LpPool: case ZN_OP_Attention: case ZN_OP_LRN:
  case ZN_OP_Resize: case ZN_OP_GridSample: case ZN_OP_DeformConv: case ZN_OP_Softmax:
  case ZN_OP_LogSoftmax: case ZN_OP_LayerNormalization: case ZN_OP_InstanceNormalization:
    (void)i;
    return true;
  case ZN_OP_ReduceSum: case ZN_OP_ReduceMean: case ZN_OP_ReduceMax: case ZN_OP_ReduceMin:
  case ZN_OP_ReduceProd: case ZN_OP_Concat: case ZN_OP_ArgMax: case ZN_OP_ArgMin: return false;
  default: return !is_point(g, n);
  }
}

static bool same_dims(const zn_type *a, const zn_type *b) {
  if (a->rank != b->rank) return false;
  for (int d = 0; d < a->rank; d++)
    if (a->dims[d] != b->dims[d]) return false;
  return true;
}

static bool known(const zn_value *v) { return zn_value_known(v); }

static bool plain(const zn_value *v) { return zn_layout_is_plain(&v->layout); }

/* ---------------------------------------------------------------- alias */

static bool is_reshape(const zn_node *n) {
  return n->op == ZN_OP_Reshape || n->op == ZN_OP_Squeeze || n->op == ZN_OP_Unsqueeze ||
         n->op == ZN_OP_Flatten || n->op == ZN_OP_Identity;
}

static zn_vid storage_root(const zn_graph *g, zn_vid v) {
  while (g->vals[v].alias) v = g->vals[v].alias;
  return v;
}

/* Outputs have storage of their own: at most one alias chain may end in each, and not in an input or constant. */
static bool output_alias_ok(const fuser *f, zn_vid out, zn_vid root) {
  const zn_graph *g = f->g;
  const zn_value *r = &g->vals[root];
  if (!g->vals[out].is_output) return true;
  if (r->is_input || r->is_output || r->cst) return false;
  for (uint32_t v = 1; v < g->num_vals; v++)
    if (v != out && g->vals[v].is_output && storage_root(g, v) == root) return false;
  return true;
}

static void alias_reshapes(fuser *f) {
  zn_graph *g = f->g;
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    if (!is_reshape(n)) continue;
    zn_vid in = n->in[0], out = n->out[0];
    const zn_value *vi = &g->vals[in], *vo = &g->vals[out];
    if (vi->inlined || vo->inlined || !plain(vi) || !plain(vo) || vi->type.kind != ZN_V_TENSOR) continue;
    if (known(vo) || (known(vi) && !vi->cst)) continue;
    zn_vid root = storage_root(g, in);
    if (!output_alias_ok(f, out, root) || !zn_pass_may_rewrite(f->o)) continue;
    g->vals[out].alias = in;
  }
}

/* ---------------------------------------------------------------- prologue */

static unsigned node_cost(const zn_node *n) {
  if (is_view(n) || is_free(n)) return 0;
  switch (n->op) {
  case ZN_OP_Exp: case ZN_OP_Log: case ZN_OP_Tanh: case ZN_OP_Erf: case ZN_OP_Sigmoid: case ZN_OP_Gelu:
  case ZN_OP_Softplus: case ZN_OP_Mish: case ZN_OP_Swish: case ZN_OP_Elu: case ZN_OP_Selu: case ZN_OP_Celu:
    return 16;
  case ZN_OP_Pow: case ZN_OP_Sin: case ZN_OP_Cos: case ZN_OP_Tan: case ZN_OP_Div: case ZN_OP_Sqrt: return 8;
  default: return zn_ops[n->op].flags & ZN_OPF_EW ? 2 : 3;
  }
}

static void sum_operands(fuser *f, const zn_node *n, unsigned *cost, unsigned *loads) {
  *cost = node_cost(n);
  *loads = 0;
  for (uint32_t i = 0; i < n->num_in; i++) {
    if (!n->in[i]) continue;
    const zn_value *v = &f->g->vals[n->in[i]];
    if (known(v)) continue;
    *cost += v->inlined ? f->cost[n->in[i]] : 0;
    *loads += v->inlined ? f->loads[n->in[i]] : 1u;
  }
}

/* Does reader r read each element of v (about) once? */
static bool reads_once(const fuser *f, const zn_node *r, zn_vid v) {
  const zn_type *t = &f->g->vals[v].type;
  if (zn_ops[r->op].flags & ZN_OPF_EW) {
    if (same_dims(t, &f->g->vals[r->out[0]].type)) return true;
    return false;
  }
  if (r->op == ZN_OP_Expand || r->op == ZN_OP_Tile) return false;
  if (is_point(f->g, r)) return r->in[0] == v || !is_view(r);
  for (uint32_t i = 0; i < r->num_in; i++)
    if (r->in[i] == v && reads_densely(f->g, r, i)) return false;
  return true;
}

static bool readers_take_views(const fuser *f, zn_vid v) {
  for (uint32_t i = 0; i < f->g->num_order; i++) {
    const zn_node *r = &f->g->nodes[f->g->order[i]];
    for (uint32_t k = 0; k < r->num_in; k++)
      if (r->in[k] == v && reads_densely(f->g, r, k)) return false;
  }
  return true;
}

/* Kernel operators whose schedules hand finished elements to the epilogue, each element once. */
static bool has_epilogue(const zn_node *n) {
  switch (n->op) {
  case ZN_OP_MatMul: case ZN_OP_Gemm: case ZN_OP_Conv: case ZN_OP_ConvTranspose: case ZN_OP_AveragePool:
  case ZN_OP_ReduceSum: case ZN_OP_ReduceMean: case ZN_OP_ReduceMax: case ZN_OP_ReduceMin:
  case ZN_OP_ReduceProd: case ZN_OP_MatMulInteger: case ZN_OP_ConvInteger: case ZN_OP_LayerNormalization:
  case ZN_OP_InstanceNormalization: return true;
  case ZN_OP_MaxPool: return n->num_out == 1 || !n->out[1];
  default: return false;
  }
}

/* QuantizeLinear and DequantizeLinear of v by constants: per element, as cheap as a map. */
static bool is_quantizer(const zn_graph *g, const zn_node *n) {
  if (n->op != ZN_OP_QuantizeLinear && n->op != ZN_OP_DequantizeLinear) return false;
  for (uint32_t i = 1; i < n->num_in; i++)
    if (n->in[i] && !g->vals[n->in[i]].cst) return false;
  return true;
}

/* Does a kernel's epilogue end here? Quantised results are a fourth of what went before. */
static bool ends_epilogue(const fuser *f, const zn_node *n) {
  if (n->op != ZN_OP_QuantizeLinear || !is_quantizer(f->g, n)) return false;
  zn_vid v = n->in[0];
  while (f->g->vals[v].inlined) v = f->g->nodes[f->g->vals[v].def].in[0];
  return f->g->vals[v].def && has_epilogue(&f->g->nodes[f->g->vals[v].def]);
}

/* A Concat along the first axis that is longer than 1: its operands can be computed in their place in the result, so
 * they are better the end of their producer's kernel than part of a copy. */
static bool joins_in_place(const fuser *f, const zn_node *r) {
  if (r->op != ZN_OP_Concat) return false;
  const zn_type *t = &f->g->vals[r->out[0]].type;
  int64_t axis = zn_node_int(r, "axis");
  for (int d = 0; d < (axis < 0 ? axis + t->rank : axis); d++)
    if (!zn_ex_is(f->g->ex, t->dims[d], 1)) return false;
  return true;
}

static bool should_inline(fuser *f, zn_nid id, zn_vid v) {
  const zn_node *n = &f->g->nodes[id];
  const zn_value *val = &f->g->vals[v];
  if (!is_point(f->g, n) || f->pinned[v] || val->is_output || f->uses[v] == 0) return false;
  if (val->content || val->num_scaled) return false;
  if (val->type.kind != ZN_V_TENSOR || ends_epilogue(f, n)) return false;
  if (val->type.dtype == ZN_STR || val->type.dtype == ZN_C128) return false;
  unsigned cost, loads;
  sum_operands(f, n, &cost, &loads);
  if (cost > MAX_COST || loads > MAX_LOADS) return false;
  bool cheap_view = is_view(n) && cost <= 4;
  if (is_free(n) || cheap_view) {
    if (f->uses[v] > 4 && !is_free(n) && loads > 1) return false;
    /* a reshape of a stored tensor is an alias: better than an index map */
    if (is_reshape(n) && !f->g->vals[n->in[0]].inlined) return false;
    return readers_take_views(f, v);
  }
  if (f->uses[v] != 1 || !f->reader[v] || joins_in_place(f, &f->g->nodes[f->reader[v]])) return false;
  return reads_once(f, &f->g->nodes[f->reader[v]], v);
}

static void inline_prologues(fuser *f) {
  zn_graph *g = f->g;
  for (uint32_t i = 0; i < g->num_order; i++) {
    zn_nid id = g->order[i];
    for (uint32_t k = 0; k < g->nodes[id].num_out; k++) {
      zn_vid v = g->nodes[id].out[k];
      if (!v || g->vals[v].inlined || known(&g->vals[v]) || !should_inline(f, id, v) || !zn_pass_may_rewrite(f->o)) continue;
      unsigned cost, loads;
      sum_operands(f, &g->nodes[id], &cost, &loads);
      g->vals[v].inlined = true;
      f->cost[v] = (uint16_t)cost;
      f->loads[v] = (uint8_t)loads;
    }
  }
}

/* ---------------------------------------------------------------- attention */

static bool depends(const fuser *f, zn_vid v, zn_vid on) {
  if (v == on) return true;
  const zn_node *n = f->g->vals[v].def ? &f->g->nodes[f->g->vals[v].def] : NULL;
  if (!n || (!(zn_ops[n->op].flags & ZN_OPF_EW) && n->op != ZN_OP_Cast)) return false;
  for (uint32_t i = 0; i < n->num_in; i++)
    if (n->in[i] && same_dims(&f->g->vals[n->in[i]].type, &f->g->vals[v].type) && depends(f, n->in[i], on)) return true;
  return false;
}

static void stay_inside(fuser *f, zn_vid v) {
  f->g->vals[v].inlined = true;
  f->loads[v] = 1;
}

/* The operand of a cheap map of two operands, one of which is a constant number; 0: n is something else. */
static zn_vid scaled_by_number(const zn_graph *g, const zn_node *n) {
  if (!(zn_ops[n->op].flags & ZN_OPF_EW) || n->num_in != 2 || node_cost(n) > 2) return 0;
  for (int i = 0; i < 2; i++) {
    const zn_htensor *h = g->vals[n->in[i]].cst;
    const zn_vid other = n->in[1 - i];
    if (h && zn_htensor_count(h) == 1 && same_dims(&g->vals[other].type, &g->vals[n->out[0]].type)) return other;
  }
  return 0;
}

/* Operand v is read through its views, and, where each element is read about once, through scales; what lies behind them is
 * stored. */
static void read_through_views(fuser *f, zn_vid v, bool once) {
  zn_graph *g = f->g;
  for (;;) {
    const zn_value *val = &g->vals[v];
    const zn_node *n = val->def ? &g->nodes[val->def] : NULL;
    if (!n || !is_point(g, n) || f->uses[v] != 1 || val->is_output || val->content || known(val)) break;
    zn_vid behind = once ? scaled_by_number(g, n) : 0;
    if (behind) {
      stay_inside(f, v);
      v = behind;
      continue;
    }
    if (!is_view(n)) break;
    if (n->op == ZN_OP_Tile || n->op == ZN_OP_Pad || n->op == ZN_OP_Concat) break;
    if (n->op == ZN_OP_Expand && f->o->caps->simt) break; /* copies of whole runs are fast only from what is stored */
    stay_inside(f, v);
    v = n->in[0];
  }
  f->pinned[v] = true;
}

/* The map's values, from its last one down to the scores. */
static void keep_map_inside(fuser *f, zn_vid v, zn_vid scores) {
  const zn_node *n = &f->g->nodes[f->g->vals[v].def];
  stay_inside(f, v);
  if (v == scores) return;
  for (uint32_t i = 0; i < n->num_in; i++) {
    if (!n->in[i] || f->g->vals[n->in[i]].cst || !same_dims(&f->g->vals[n->in[i]].type, &f->g->vals[v].type)) continue;
    if (f->uses[n->in[i]] == 1 && f->g->vals[n->in[i]].def && depends(f, n->in[i], scores)) keep_map_inside(f, n->in[i], scores);
  }
}

static void fuse_attention(fuser *f) {
  zn_graph *g = f->g;
  for (uint32_t i = 0; i < g->num_order; i++) {
    zn_attend a;
    zn_nid id = g->order[i];
    if (!zn_attend_find(g, f->uses, f->o->caps, id, &a) || !zn_pass_may_rewrite(f->o)) continue;
    stay_inside(f, a.p);
    stay_inside(f, g->nodes[a.softmax].out[0]);
    keep_map_inside(f, a.x, a.s);
    g->nodes[a.scores].group = g->nodes[a.softmax].group = id;
    for (uint32_t k = 0; k < 3 && a.guard[0]; k++) {
      stay_inside(f, g->nodes[a.guard[k]].out[0]);
      g->nodes[a.guard[k]].group = id;
    }
    bool packs = !f->o->caps->simt; /* K and V, once for a block of rows */
    read_through_views(f, a.q, false);
    read_through_views(f, a.kt, packs);
    read_through_views(f, a.v, packs);
    zn_vid y = g->nodes[id].out[0];
    zn_nid reader = f->uses[y] == 1 && !g->vals[y].is_output ? f->reader[y] : 0;
    if (reader && g->nodes[reader].op == ZN_OP_Transpose) f->pinned[g->nodes[reader].out[0]] = true;
  }
}

/* Heads are put side by side again where the result is stored. */
static void store_transposed(fuser *f, zn_nid root, zn_vid v) {
  zn_graph *g = f->g;
  zn_nid reader = f->uses[v] == 1 && !g->vals[v].is_output ? f->reader[v] : 0;
  if (!reader || g->nodes[reader].op != ZN_OP_Transpose || !f->pinned[g->nodes[reader].out[0]]) return;
  if (!g->vals[g->nodes[root].in[0]].inlined || !zn_pass_may_rewrite(f->o)) return;
  g->vals[v].inlined = true;
  g->nodes[reader].group = root;
}

/* ---------------------------------------------------------------- epilogue */

/* The one node whose kernel computes every use of v, looking through maps that are computed inside it; 0 if several. */
static zn_nid unique_host(const fuser *f, zn_vid v) {
  const zn_graph *g = f->g;
  zn_nid host = 0;
  for (uint32_t i = 0; i < g->num_order; i++) {
    zn_nid id = g->order[i];
    const zn_node *r = &g->nodes[id];
    bool reads = false;
    for (uint32_t k = 0; k < r->num_in; k++) reads |= r->in[k] == v;
    if (!reads) continue;
    zn_nid h = id;
    if (g->vals[r->out[0]].inlined) {
      bool map = (zn_ops[r->op].flags & ZN_OPF_EW) || (r->op == ZN_OP_Cast && !converts_text(g, r)) || is_quantizer(g, r);
      if (!map || !same_dims(&g->vals[r->out[0]].type, &g->vals[v].type)) return 0;
      h = unique_host(f, r->out[0]);
    }
    if (!h || (host && host != h)) return 0;
    host = h;
  }
  return host;
}

/* Extends the chain behind kernel root `root` whose current last value is v; returns the new last value or 0. */
static zn_vid extend(fuser *f, zn_nid root, zn_vid v) {
  zn_graph *g = f->g;
  zn_value *val = &g->vals[v];
  uint32_t most = f->o->caps && f->o->caps->simt ? 8 : 4; /* there a value costs a kernel, here registers of a long loop */
  zn_nid host = val->is_output || f->uses[v] > most ? 0 : unique_host(f, v);
  if (!host || val->content || val->num_scaled) return 0;
  const zn_node *r = &g->nodes[host];
  bool ew = (zn_ops[r->op].flags & ZN_OPF_EW) || (r->op == ZN_OP_Cast && !converts_text(g, r)) || is_quantizer(g, r);
  if (!ew || r->group) return 0;
  zn_vid out = r->out[0];
  if (!same_dims(&val->type, &g->vals[out].type) || g->vals[out].inlined) return 0;
  for (uint32_t i = 0; i < r->num_in; i++)
    if (r->in[i] && g->vals[r->in[i]].type.kind != ZN_V_TENSOR) return 0;
  if (!zn_pass_may_rewrite(f->o)) return 0;
  val->inlined = true;
  g->nodes[host].group = root;
  return out;
}

static void attach_epilogues(fuser *f) {
  zn_graph *g = f->g;
  for (uint32_t i = 0; i < g->num_order; i++) {
    zn_nid id = g->order[i];
    if (!has_epilogue(&g->nodes[id]) || g->nodes[id].group) continue;
    g->nodes[id].group = id;
    zn_vid v = g->nodes[id].out[0], last = v;
    for (int len = 0; len < 12 && v; len++) last = v, v = extend(f, id, v);
    if (!v) store_transposed(f, id, last);
  }
}

/* Graph text may hold the decisions of an earlier build, for another target. */
static void forget(zn_graph *g) {
  for (uint32_t i = 0; i < g->num_order; i++) {
    zn_node *n = &g->nodes[g->order[i]];
    n->group = 0;
    for (uint32_t k = 0; k < n->num_out; k++) {
      g->vals[n->out[k]].inlined = false;
      g->vals[n->out[k]].alias = 0;
    }
  }
}

zn_status zn_pass_fuse(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  fuser f = {.c = c, .g = g, .o = o};
  forget(g);
  if (o->opt_level == 0) { /* every value is stored */
    alias_reshapes(&f);
    return zn_pass_bodies(c, g, o, zn_pass_fuse);
  }
  f.uses = zn_graph_uses(g, &c->tmp);
  f.reader = ZN_ARRAY(&c->tmp, zn_nid, g->num_vals);
  f.cost = ZN_ARRAY(&c->tmp, uint16_t, g->num_vals);
  f.loads = ZN_ARRAY(&c->tmp, uint8_t, g->num_vals);
  f.pinned = ZN_ARRAY(&c->tmp, bool, g->num_vals);
  for (uint32_t i = 0; i < g->num_order; i++)
    for (uint32_t k = 0; k < g->nodes[g->order[i]].num_in; k++)
      f.reader[g->nodes[g->order[i]].in[k]] = g->order[i];
  fuse_attention(&f);
  inline_prologues(&f);
  attach_epilogues(&f);
  alias_reshapes(&f);
  return zn_pass_bodies(c, g, o, zn_pass_fuse);
}
