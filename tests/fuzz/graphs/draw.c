/* The drawing of one graph: choosing operators, making nodes, choosing outputs. */
#include "tests/fuzz/graphs/fuzz.h"

#include "codegen/lower/lower.h"

/* ---- nodes ---- */

void fz_set_i(fz_attrs *at, const char *name, int64_t v) {
  at->v[at->n++] = (zn_attr){.name = name, .kind = ZN_A_INT, .u.i = v};
}
void fz_set_f(fz_attrs *at, const char *name, double v) {
  at->v[at->n++] = (zn_attr){.name = name, .kind = ZN_A_FLOAT, .u.f = (double)(float)v};
}
void fz_set_s(fz *f, fz_attrs *at, const char *name, const char *v) {
  const char *s = zn_arena_strdup(f->a, v);
  at->v[at->n++] = (zn_attr){.name = name, .kind = ZN_A_STRING, .u.s = {s, strlen(s)}};
}
void fz_set_is(fz *f, fz_attrs *at, const char *name, const int64_t *v, uint32_t n) {
  int64_t *p = ZN_ARRAY(f->a, int64_t, n + 1);
  if (n) memcpy(p, v, n * sizeof *v);
  at->v[at->n++] = (zn_attr){.name = name, .kind = ZN_A_INTS, .n = n, .u.is = p};
}

static bool seven(void *user, zn_expr s, int64_t *out) {
  (void)user, (void)s;
  *out = 7;
  return true;
}

static bool small(const zn_graph *g, const zn_type *t) {
  double count = 1;
  if (t->kind != ZN_V_TENSOR) return true; /* its items were tensors before */
  for (int d = 0; d < t->rank; d++) {
    int64_t v;
    if (!zn_ex_eval(g->ex, t->dims[d], seven, NULL, &v)) return false;
    count *= (double)(v < 1 ? 1 : v);
  }
  return t->rank >= 0 && count <= (double)FZ_MAX_ELEMS;
}

zn_vid fz_node(fz *f, zn_op op, const zn_vid *in, uint32_t num_in, uint32_t num_out,
               const fz_attrs *at) {
  f->tried[op]++;
  zn_nid n = zn_graph_node(f->g, op, NULL, in, num_in, num_out);
  for (uint32_t i = 0; at && i < at->n; i++) zn_node_set_attr(f->g, n, at->v[i]);
  bool fine = zn_infer_node(f->c, f->g, n) == ZN_OK;
  for (uint32_t i = 0; fine && i < num_out; i++)
    fine = small(f->g, fz_type(f, zn_node_out(f->g, n, i)));
  if (!fine) {
    zn_graph_kill(f->g, n);
    zn_graph_compact(f->g);
    return 0;
  }
  for (uint32_t i = 0; i < num_out; i++) {
    const zn_type *t = fz_type(f, zn_node_out(f->g, n, i));
    if (t->kind == ZN_V_TENSOR && t->rank >= 0) fz_add(f, zn_node_out(f->g, n, i));
  }
  f->made[op]++;
  f->nodes++;
  return zn_node_out(f->g, n, 0);
}

zn_vid fz_node1(fz *f, zn_op op, zn_vid a, zn_vid b) {
  zn_vid in[2] = {a, b};
  return a ? fz_node(f, op, in, b ? 2 : 1, 1, NULL) : 0;
}

/* ---- operators ---- */

static bool compiled(zn_op op) {
  const zn_lower *l = zn_lower_of(op);
  return (l && (l->kernel || l->point)) || zn_ops[op].expand;
}

static bool drawable(zn_op op) {
  return compiled(op) && !(zn_ops[op].flags & ZN_OPF_RANDOM) && op != ZN_OP_Constant;
}

bool fz_draw_op(fz *f, zn_op op) {
  bool has = false;
  if (zn_ops[op].flags & ZN_OPF_CONTROL) return f->depth < 2 && fz_draw_control(f, op);
  for (int k = 0; k < 6; k++) {
    if (fz_draw_special(f, op, &has)) return true;
    if (!has && fz_draw_row(f, op, &has)) return true;
    if (!has && fz_draw_schema(f, op)) return true;
  }
  return false;
}

/* Families: a graph is drawn mostly from one of them, so that what fuses meets. */
static const zn_op convs[] = {ZN_OP_Conv,
                              ZN_OP_Conv,
                              ZN_OP_Conv,
                              ZN_OP_ConvTranspose,
                              ZN_OP_MaxPool,
                              ZN_OP_AveragePool,
                              ZN_OP_GlobalAveragePool,
                              ZN_OP_BatchNormalization,
                              ZN_OP_Relu,
                              ZN_OP_Clip,
                              ZN_OP_HardSwish,
                              ZN_OP_Sigmoid,
                              ZN_OP_Add,
                              ZN_OP_Mul,
                              ZN_OP_Concat,
                              ZN_OP_Pad,
                              ZN_OP_Resize,
                              ZN_OP_LeakyRelu,
                              ZN_OP_PRelu,
                              ZN_OP_Slice,
                              ZN_OP_Transpose,
                              ZN_OP_Split,
                              ZN_OP_DepthToSpace,
                              ZN_OP_InstanceNormalization,
                              ZN_OP_ReduceMean,
                              ZN_OP_LRN};
static const zn_op mats[] = {ZN_OP_MatMul,
                             ZN_OP_MatMul,
                             ZN_OP_Gemm,
                             ZN_OP_LayerNormalization,
                             ZN_OP_Softmax,
                             ZN_OP_Gelu,
                             ZN_OP_Erf,
                             ZN_OP_Add,
                             ZN_OP_Mul,
                             ZN_OP_Transpose,
                             ZN_OP_Reshape,
                             ZN_OP_Split,
                             ZN_OP_Concat,
                             ZN_OP_Slice,
                             ZN_OP_RMSNormalization,
                             ZN_OP_Tanh,
                             ZN_OP_Attention,
                             ZN_OP_Where,
                             ZN_OP_Gather,
                             ZN_OP_ReduceMean,
                             ZN_OP_Div,
                             ZN_OP_Sqrt,
                             ZN_OP_Pow,
                             ZN_OP_Einsum,
                             ZN_OP_RotaryEmbedding,
                             ZN_OP_Squeeze,
                             ZN_OP_Unsqueeze,
                             ZN_OP_Cast};
static const zn_op views[] = {ZN_OP_Reshape,
                              ZN_OP_Transpose,
                              ZN_OP_Slice,
                              ZN_OP_Expand,
                              ZN_OP_Concat,
                              ZN_OP_Split,
                              ZN_OP_Pad,
                              ZN_OP_Tile,
                              ZN_OP_Flatten,
                              ZN_OP_Squeeze,
                              ZN_OP_Unsqueeze,
                              ZN_OP_Gather,
                              ZN_OP_GatherElements,
                              ZN_OP_GatherND,
                              ZN_OP_ScatterND,
                              ZN_OP_ScatterElements,
                              ZN_OP_Shape,
                              ZN_OP_Identity,
                              ZN_OP_Add,
                              ZN_OP_Mul,
                              ZN_OP_Relu,
                              ZN_OP_Cast,
                              ZN_OP_ReverseSequence,
                              ZN_OP_DepthToSpace,
                              ZN_OP_SpaceToDepth,
                              ZN_OP_Trilu,
                              ZN_OP_Where,
                              ZN_OP_ConstantOfShape,
                              ZN_OP_Size,
                              ZN_OP_CenterCropPad};
static const zn_op sums[] = {ZN_OP_ReduceSum,
                             ZN_OP_ReduceMean,
                             ZN_OP_ReduceMax,
                             ZN_OP_ReduceMin,
                             ZN_OP_ReduceProd,
                             ZN_OP_ReduceL1,
                             ZN_OP_ReduceL2,
                             ZN_OP_ReduceLogSumExp,
                             ZN_OP_ReduceSumSquare,
                             ZN_OP_ArgMax,
                             ZN_OP_ArgMin,
                             ZN_OP_Softmax,
                             ZN_OP_LogSoftmax,
                             ZN_OP_CumSum,
                             ZN_OP_CumProd,
                             ZN_OP_TopK,
                             ZN_OP_Add,
                             ZN_OP_Sub,
                             ZN_OP_Mul,
                             ZN_OP_Exp,
                             ZN_OP_Max,
                             ZN_OP_Min,
                             ZN_OP_Sum,
                             ZN_OP_Mean,
                             ZN_OP_Greater,
                             ZN_OP_Less,
                             ZN_OP_Equal,
                             ZN_OP_Not,
                             ZN_OP_And,
                             ZN_OP_Or,
                             ZN_OP_LpNormalization,
                             ZN_OP_NonZero,
                             ZN_OP_Compress,
                             ZN_OP_Unique};
static const zn_op quants[] = {ZN_OP_QuantizeLinear,
                               ZN_OP_DequantizeLinear,
                               ZN_OP_DequantizeLinear,
                               ZN_OP_QLinearConv,
                               ZN_OP_QLinearMatMul,
                               ZN_OP_ConvInteger,
                               ZN_OP_MatMulInteger,
                               ZN_OP_DynamicQuantizeLinear,
                               ZN_OP_Cast,
                               ZN_OP_Mul,
                               ZN_OP_Add,
                               ZN_OP_Conv,
                               ZN_OP_MatMul,
                               ZN_OP_Relu,
                               ZN_OP_Reshape,
                               ZN_OP_Transpose,
                               ZN_OP_MaxPool};
static const zn_op controls[] = {ZN_OP_If,  ZN_OP_Loop, ZN_OP_Scan,  ZN_OP_Add,
                                 ZN_OP_Mul, ZN_OP_Relu, ZN_OP_MatMul};

typedef struct family {
  const zn_op *op;
  uint32_t n, weight;
} family;
#define FAMILY(x, w) {x, sizeof x / sizeof x[0], w}
static const family families[] = {FAMILY(convs, 23), FAMILY(mats, 22),   FAMILY(views, 13),
                                  FAMILY(sums, 10),  FAMILY(quants, 10), FAMILY(controls, 8),
                                  {NULL, 0, 14}};

static zn_op any_op(fz *f) {
  for (;;) {
    zn_op op = (zn_op)fz_range(f, 1, ZN_OP_COUNT - 1);
    if (drawable(op)) return op;
  }
}

static void draw_from(fz *f, const family *fam, uint32_t count) {
  uint32_t tries = 0;
  for (uint32_t goal = f->nodes + count; f->nodes < goal && tries < 12 * count; tries++) {
    if (fam->op && fz_chance(f, 12) && fz_draw_block(f)) continue;
    if (fz_chance(f, fam->op == controls ? 25 : 2) && fz_draw_lists(f)) continue;
    zn_op op = fam->op && !fz_chance(f, 15) ? fam->op[fz_below(f, fam->n)] : any_op(f);
    if (fz_chance(f, 12))
      op = (zn_op[]){ZN_OP_Relu, ZN_OP_Add, ZN_OP_Mul, ZN_OP_Sub}[fz_below(f, 4)];
    if (drawable(op)) fz_draw_op(f, op);
  }
}

static const family *some_family(fz *f) {
  uint32_t r = fz_below(f, 100), k = 0;
  while (k + 1 < sizeof families / sizeof families[0] && r >= families[k].weight)
    r -= families[k++].weight;
  return &families[k];
}

void fz_draw_nodes(fz *f, uint32_t count) { draw_from(f, some_family(f), count); }

/* Sinks are outputs; now and then something in the middle of a chain is one too. */
static void choose_outputs(fz *f) {
  uint32_t *uses = zn_graph_uses(f->g, f->a);
  for (uint32_t k = 0; k < f->g->num_order; k++) {
    zn_nid n = f->g->order[k];
    for (uint32_t i = 0; i < f->g->nodes[n].num_out; i++) {
      zn_vid v = f->g->nodes[n].out[i];
      const zn_type *t = fz_type(f, v);
      if (!v || t->kind != ZN_V_TENSOR || t->rank < 0) continue;
      if (!uses[v] ? i == 0 || fz_chance(f, 60) : fz_chance(f, 6)) zn_graph_output(f->g, v);
    }
  }
}

zn_graph *fz_draw(zn_ctx *c, uint64_t seed, fz *f) {
  static const zn_dtype mains[] = {ZN_F32, ZN_F32, ZN_F32,  ZN_F32,  ZN_F32, ZN_F32, ZN_F32, ZN_F64, ZN_F16, ZN_F16,
                                   ZN_BF16, ZN_BF16, ZN_I32, ZN_I64, ZN_I8,  ZN_U8,  ZN_I16, ZN_U16};
  static const char *const names[FZ_SYMS] = {"N", "S", "T"};
  memset(f, 0, sizeof *f);
  f->c = c;
  f->a = &c->graph;
  f->rng = seed * UINT64_C(0xD1342543DE82EF95) + 77;
  zn_exprs *ex = zn_exprs_new(f->a);
  f->g = zn_graph_new(f->a, ex, "main");
  f->dynamic = fz_chance(f, 40);
  f->main = mains[fz_below(f, sizeof mains / sizeof mains[0])];
  for (int i = 0; i < FZ_SYMS; i++)
    f->sym[i] = zn_ex_sym(ex, names[i], fz_chance(f, 70), i == 2 ? 64 : INT64_MAX);
  fz_draw_nodes(f, (uint32_t)fz_range(f, 1, 14));
  if (!f->g->num_order) return NULL;
  choose_outputs(f);
  return f->g->num_outputs ? f->g : NULL;
}

const char *fz_print(const zn_graph *g, zn_arena *a, size_t *out_n) {
  zn_text t;
  zn_text_init(&t, a);
  zn_graph_print(g, &t);
  *out_n = t.len;
  return t.s;
}
