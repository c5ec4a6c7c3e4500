/* --precision=fp16|bf16: f32 tensors are stored narrow, arithmetic stays in f32 (kernels compute narrow types in f32 and
 * round once when they store), products accumulate in f32. Operators whose results leave the narrow range easily (powers,
 * exponentials, sums) keep f32 operands and results, between casts; so do constants that do not fit. The interface keeps its
 * types. */
#include <math.h>

#include "zenithc/passes/pass.h"

typedef struct narrower {
  zn_ctx *c;
  zn_graph *g;
  zn_dtype t;
  zn_vid *other; /* per value: its copy in the other width, made by a cast; 0 = none yet */
  uint32_t cap_other;
  uint64_t clipped; /* elements of masks brought into range */
} narrower;

static bool is_f32(const narrower *p, zn_vid v) {
  const zn_type *t = &p->g->vals[v].type;
  return v && t->kind == ZN_V_TENSOR && t->dtype == ZN_F32;
}

static double largest(const narrower *p) { return p->t == ZN_F16 ? 65504.0 : 3.3895313892515355e38; }

/* Every finite element is finite in the narrow type too. */
static bool fits(const narrower *p, const zn_htensor *h) {
  const double most = largest(p);
  for (uint64_t i = 0, n = zn_htensor_count(h); i < n; i++) {
    double x = zn_load_f64(ZN_F32, h->data, i);
    if (isfinite(x) && fabs(x) > most) return false;
  }
  return true;
}

static bool narrow_op(zn_op op) {
  switch ((unsigned)op) {
  case ZN_OP_MatMul: case ZN_OP_Gemm: case ZN_OP_Conv: case ZN_OP_ConvTranspose: case ZN_OP_MaxPool: case ZN_OP_AveragePool:
  case ZN_OP_Softmax: case ZN_OP_LayerNormalization: case ZN_OP_InstanceNormalization: case ZN_OP_Reshape:
  case ZN_OP_Transpose: case ZN_OP_Slice: case ZN_OP_Concat: case ZN_OP_Split: case ZN_OP_Squeeze: case ZN_OP_Unsqueeze:
  case ZN_OP_Expand: case ZN_OP_Flatten: case ZN_OP_Identity: case ZN_OP_Pad: case ZN_OP_Gather: case ZN_OP_Where:
  case ZN_OP_Tile: return true;
  case ZN_OP_Pow: case ZN_OP_Exp: case ZN_OP_Log: case ZN_OP_Sum: case ZN_OP_Mean: case ZN_OP_Rescale: return false;
  default: return (zn_ops[op].flags & ZN_OPF_EW) != 0;
  }
}

/* May node n read and write the narrow type? */
static bool may_narrow(const narrower *p, const zn_node *n) {
  if (!narrow_op(n->op)) return false;
  if (n->op == ZN_OP_Where) return true; /* selects and never computes: masks may be brought into range */
  for (uint32_t i = 0; i < n->num_in; i++) {
    if (!is_f32(p, n->in[i])) continue;
    const zn_htensor *h = p->g->vals[n->in[i]].cst;
    if (h && !fits(p, h)) return false;
  }
  return true;
}

static void remember(narrower *p, zn_vid v, zn_vid copy) {
  while (v >= p->cap_other) {
    uint32_t cap = p->cap_other * 2;
    p->other = zn_arena_grow(&p->c->graph, p->other, p->cap_other * sizeof *p->other, cap * sizeof *p->other);
    memset(p->other + p->cap_other, 0, (cap - p->cap_other) * sizeof *p->other);
    p->cap_other = cap;
  }
  p->other[v] = copy;
}

static zn_vid known_copy(const narrower *p, zn_vid v) { return v < p->cap_other ? p->other[v] : 0; }

static zn_vid narrow_constant(narrower *p, zn_vid v) {
  const zn_htensor *h = p->g->vals[v].cst;
  uint64_t n = zn_htensor_count(h);
  zn_htensor *r = ZN_NEW(&p->c->graph, zn_htensor);
  uint16_t *to = zn_arena_array(&p->c->graph, n ? n : 1, sizeof *to);
  const double most = largest(p);
  for (uint64_t i = 0; i < n; i++) {
    double x = zn_load_f64(ZN_F32, h->data, i);
    if (isfinite(x) && fabs(x) > most) x = copysign(most, x), p->clipped++;
    to[i] = (uint16_t)zn_float_encode(p->t, x, false);
  }
  *r = *h;
  r->dtype = p->t;
  r->data = to;
  return zn_graph_const(p->g, p->g->vals[v].name, r);
}

/* v in the other width, by a cast before node `before` (0: at the end). */
static zn_vid cast(narrower *p, zn_vid v, zn_nid before) {
  zn_dtype to = p->g->vals[v].type.dtype == ZN_F32 ? p->t : ZN_F32;
  zn_nid n = before ? zn_graph_node_before(p->g, before, ZN_OP_Cast, p->g->vals[v].name, &v, 1, 1)
                    : zn_graph_node(p->g, ZN_OP_Cast, p->g->vals[v].name, &v, 1, 1);
  zn_vid out = zn_node_out(p->g, n, 0);
  zn_node_set_int(p->g, n, "to", zn_dtypes[to].onnx);
  p->g->vals[out].type = p->g->vals[v].type;
  p->g->vals[out].type.dtype = (uint8_t)to;
  return out;
}

static zn_vid in_width(narrower *p, zn_vid v, zn_dtype t, zn_nid before) {
  const zn_type *vt = &p->g->vals[v].type;
  if (vt->kind != ZN_V_TENSOR || (vt->dtype != ZN_F32 && vt->dtype != p->t) || vt->dtype == t) return v;
  zn_vid copy = known_copy(p, v);
  if (copy) return copy;
  copy = p->g->vals[v].cst ? narrow_constant(p, v) : cast(p, v, before);
  remember(p, v, copy);
  return copy;
}

static void rewrite(narrower *p, zn_nid n, const uint8_t *was_f32) {
  bool narrow = may_narrow(p, &p->g->nodes[n]);
  for (uint32_t i = 0; i < p->g->nodes[n].num_in; i++) {
    zn_vid v = p->g->nodes[n].in[i];
    if (!v || !(v < p->cap_other && was_f32[v])) continue; /* tensors that the model itself keeps narrow stay */
    zn_vid w = in_width(p, v, narrow ? p->t : ZN_F32, n);
    p->g->nodes[n].in[i] = w;
  }
  for (uint32_t i = 0; i < p->g->nodes[n].num_out && narrow; i++) {
    zn_vid v = p->g->nodes[n].out[i];
    if (v && is_f32(p, v)) p->g->vals[v].type.dtype = (uint8_t)p->t;
  }
}

/* Outputs keep their names and types. */
static void widen_outputs(narrower *p) {
  zn_graph *g = p->g;
  for (uint32_t i = 0; i < g->num_outputs; i++) {
    zn_vid v = g->outputs[i];
    if (g->vals[v].type.dtype != p->t) continue;
    zn_graph_take_output(g, i, cast(p, v, 0), "narrow");
  }
}

zn_status zn_pass_precision(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  if (o->precision != ZN_F16 && o->precision != ZN_BF16) return ZN_OK;
  narrower p = {.c = c, .g = g, .t = o->precision, .cap_other = g->num_vals + 1};
  p.other = ZN_ARRAY(&c->graph, zn_vid, p.cap_other);
  uint32_t count = g->num_order, first = g->num_vals;
  uint8_t *was_f32 = ZN_ARRAY(&c->graph, uint8_t, p.cap_other);
  zn_nid *order = ZN_ARRAY(&c->graph, zn_nid, count + 1);
  memcpy(order, g->order, count * sizeof *order);
  for (zn_vid v = 1; v < first; v++) was_f32[v] = is_f32(&p, v);
  for (uint32_t i = 0; i < g->num_outputs; i++)
    if (g->vals[g->outputs[i]].type.dtype == p.t)
      return zn_fail(c, ZN_ERR_USAGE, "--precision", "the model stores tensors as %s itself", zn_dtypes[p.t].name);
  for (uint32_t i = 0; i < count; i++) {
    if (zn_ops[g->nodes[order[i]].op].flags & ZN_OPF_CONTROL)
      return zn_fail(c, ZN_ERR_UNSUPPORTED, zn_node_where(c, &g->nodes[order[i]]),
                     "a reduced --precision is not available for models with control flow");
    rewrite(&p, order[i], was_f32);
  }
  widen_outputs(&p);
  if (p.clipped)
    zn_note(c, "--precision: %llu elements of constants that only Where reads were brought into the range of %s",
            (unsigned long long)p.clipped, zn_dtypes[p.t].name);
  return ZN_OK;
}
