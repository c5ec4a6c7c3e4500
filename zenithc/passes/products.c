/* Products in the shape that schedules like. Three rewrites, the second one for GPUs, the third one for CPUs:
 *   rows      Reshape to rows, Gemm, Reshape back (how exporters write a linear layer over a sequence) becomes MatMul and Add
 *             on the tensor as it is, so that elementwise operators behind it can join the product's kernel;
 *   siblings  MatMuls of one operand with constant matrices, whose results are taken apart into heads, become one MatMul
 *             with a wider matrix, then Split;
 *   one row   MatMul of one row with a transposed matrix that a run computes (the scores of one query) becomes a sum along the
 *             rows of the matrix as it lies in memory, which is then not transposed first. */
#include "zenithc/ops/expand_util.h"
#include "zenithc/passes/pass.h"

enum { MAX_SIBLINGS = 8 };

static bool constant(const zn_graph *g, zn_vid v) { return v && g->vals[v].cst && g->vals[v].cst->data && !g->vals[v].is_input; }

/* A constant that varies along the last axis only, n elements long. */
static bool per_column(const zn_graph *g, zn_vid v, int64_t n) {
  if (!constant(g, v)) return false;
  const zn_htensor *h = g->vals[v].cst;
  return h->rank >= 1 && h->dims[h->rank - 1] == n && zn_htensor_count(h) == (uint64_t)n;
}

static zn_nid only_reader(const zn_graph *g, const uint32_t *uses, zn_vid v) {
  if (uses[v] != 1 || g->vals[v].is_output) return 0;
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    for (uint32_t k = 0; k < n->num_in && !n->dead; k++)
      if (n->in[k] == v) return g->order[i];
  }
  return 0;
}

/* ---- rows ---- */

static zn_vid transposed(zn_graph *g, zn_vid w) {
  const zn_htensor *h = g->vals[w].cst;
  const int64_t dims[2] = {h->dims[1], h->dims[0]};
  const unsigned size = zn_dtype_bytes(h->dtype);
  zn_htensor *t = ZN_NEW(g->arena, zn_htensor);
  *t = zn_htensor_new(g->arena, h->dtype, 2, dims);
  for (int64_t i = 0; i < dims[0]; i++)
    for (int64_t j = 0; j < dims[1]; j++)
      memcpy((char *)t->data + (size_t)(i * dims[1] + j) * size, (const char *)h->data + (size_t)(j * dims[0] + i) * size, size);
  return zn_graph_const(g, NULL, t);
}

/* Does Gemm n multiply the rows of in[0], reshaped, by a constant matrix and add one number a column? */
static bool is_linear(const zn_graph *g, const zn_node *n, int64_t *columns) {
  zn_vid c = zn_node_in(n, 2);
  if (n->op != ZN_OP_Gemm || !constant(g, n->in[1]) || zn_node_int(n, "transA") || zn_node_float(n, "alpha") != 1) return false;
  if (c && zn_node_float(n, "beta") != 1) return false;
  *columns = g->vals[n->in[1]].cst->dims[zn_node_int(n, "transB") ? 0 : 1];
  return !c || per_column(g, c, *columns);
}

static bool goes_back(const zn_graph *g, const zn_type *x, zn_vid out, int64_t columns) {
  const zn_type *y = &g->vals[out].type;
  if (y->rank != x->rank || !zn_ex_is(g->ex, y->dims[y->rank - 1], columns)) return false;
  for (int d = 0; d + 1 < x->rank; d++)
    if (x->dims[d] != y->dims[d]) return false;
  return true;
}

/* The dims of `out`, all of them constants, with the depth of Gemm n as the last one. */
static bool rows_of(const zn_graph *g, zn_nid n, zn_vid out, int64_t columns, int64_t *dims) {
  const zn_type *y = &g->vals[out].type;
  if (!zn_ex_is(g->ex, y->dims[y->rank - 1], columns)) return false;
  for (int d = 0; d + 1 < y->rank; d++)
    if (!zn_ex_is_const(g->ex, y->dims[d], &dims[d])) return false;
  return zn_ex_is_const(g->ex, g->vals[g->nodes[n].in[0]].type.dims[1], &dims[y->rank - 1]);
}

/* CPU schedules pack a transposed matrix as it is, and share out the rows of one product only. */
static bool suits_cpu(const zn_graph *g, zn_nid n, const zn_type *y) {
  for (int d = 0; d + 2 < y->rank; d++)
    if (!zn_ex_is(g->ex, y->dims[d], 1)) return false;
  return !zn_node_int(&g->nodes[n], "transB");
}

static zn_status keep_rows(zn_ctx *c, zn_graph *g, zn_pass_opts *o, const uint32_t *uses, zn_nid n) {
  int64_t columns;
  if (!is_linear(g, &g->nodes[n], &columns)) return ZN_OK;
  zn_nid before = g->vals[g->nodes[n].in[0]].def, after = only_reader(g, uses, g->nodes[n].out[0]);
  if (!before || !after || g->nodes[before].op != ZN_OP_Reshape || g->nodes[after].op != ZN_OP_Reshape) return ZN_OK;
  zn_vid x = g->nodes[before].in[0], w = g->nodes[n].in[1], bias = zn_node_in(&g->nodes[n], 2);
  bool as_is = g->vals[x].type.dims[g->vals[x].type.rank - 1] == g->vals[g->nodes[n].in[0]].type.dims[1] &&
               goes_back(g, &g->vals[x].type, g->nodes[after].out[0], columns);
  int64_t dims[ZN_MAX_RANK];
  int rank = g->vals[g->nodes[after].out[0]].type.rank;
  if (!o->caps->simt && !suits_cpu(g, n, &g->vals[g->nodes[after].out[0]].type)) return ZN_OK;
  if (rank < 3 || (!as_is && !rows_of(g, n, g->nodes[after].out[0], columns, dims)) || !zn_pass_may_rewrite(o)) return ZN_OK;
  if (!as_is) {
    const zn_vid in[2] = {g->nodes[n].in[0], zn_graph_const_i64s(g, dims, (uint32_t)rank)};
    zn_nid apart = zn_graph_node_before(g, n, ZN_OP_Reshape, g->nodes[n].name, in, 2, 1);
    ZN_TRY(zn_infer_node(c, g, apart));
    x = g->nodes[apart].out[0];
  }
  if (zn_node_int(&g->nodes[n], "transB")) w = transposed(g, w);
  const zn_vid factors[2] = {x, w};
  zn_nid product = zn_graph_node_before(g, n, ZN_OP_MatMul, g->nodes[n].name, factors, 2, 1), last = product;
  ZN_TRY(zn_infer_node(c, g, product));
  if (bias) {
    const zn_vid terms[2] = {g->nodes[product].out[0], bias};
    last = zn_graph_node_before(g, n, ZN_OP_Add, g->nodes[n].name, terms, 2, 1);
    ZN_TRY(zn_infer_node(c, g, last));
  }
  zn_graph_replace(g, g->nodes[after].out[0], g->nodes[last].out[0]);
  zn_graph_kill(g, after);
  zn_graph_kill(g, n);
  return ZN_OK;
}

/* ---- siblings ---- */

typedef struct sibling {
  zn_nid product, add; /* add: 0 = no bias */
  zn_vid w, bias, result;
  int64_t columns;
} sibling;

static bool is_split_up(const zn_graph *g, const uint32_t *uses, zn_vid v) {
  zn_nid reader = only_reader(g, uses, v);
  return reader && (g->nodes[reader].op == ZN_OP_Reshape || g->nodes[reader].op == ZN_OP_Transpose);
}

static bool is_sibling(const zn_graph *g, const uint32_t *uses, zn_nid n, zn_vid x, sibling *s) {
  const zn_node *nd = &g->nodes[n];
  if (nd->dead || nd->op != ZN_OP_MatMul || nd->in[0] != x || !constant(g, nd->in[1])) return false;
  const zn_htensor *w = g->vals[nd->in[1]].cst;
  if (w->rank != 2 || w->dims[1] % 8 != 0) return false;
  *s = (sibling){.product = n, .w = nd->in[1], .result = nd->out[0], .columns = w->dims[1]};
  zn_nid add = only_reader(g, uses, nd->out[0]);
  if (add && g->nodes[add].op == ZN_OP_Add) {
    const zn_node *a = &g->nodes[add];
    zn_vid bias = a->in[0] == s->result ? a->in[1] : a->in[0];
    if (per_column(g, bias, s->columns)) s->add = add, s->bias = bias, s->result = a->out[0];
  }
  return is_split_up(g, uses, s->result);
}

/* The siblings' matrices (or, rows 1, biases) side by side. */
static zn_vid joined(zn_graph *g, const sibling *s, uint32_t n, bool bias) {
  const zn_htensor *first = g->vals[bias ? s[0].bias : s[0].w].cst;
  const unsigned size = zn_dtype_bytes(first->dtype);
  int64_t dims[2] = {bias ? 1 : first->dims[0], 0}, at = 0;
  for (uint32_t i = 0; i < n; i++) dims[1] += s[i].columns;
  zn_htensor *t = ZN_NEW(g->arena, zn_htensor);
  *t = zn_htensor_new(g->arena, first->dtype, bias ? 1 : 2, bias ? dims + 1 : dims);
  for (uint32_t i = 0; i < n; at += s[i].columns, i++) {
    const char *from = g->vals[bias ? s[i].bias : s[i].w].cst->data;
    const size_t bytes = (size_t)s[i].columns * size;
    for (int64_t r = 0; r < dims[0]; r++)
      memcpy((char *)t->data + (size_t)(r * dims[1] + at) * size, from + (size_t)r * bytes, bytes);
  }
  return zn_graph_const(g, NULL, t);
}

static zn_status merge(zn_ctx *c, zn_graph *g, const sibling *s, uint32_t n, zn_vid x) {
  const zn_nid at = s[0].product;
  const zn_vid factors[2] = {x, joined(g, s, n, false)};
  int64_t sizes[MAX_SIBLINGS];
  zn_nid last = zn_graph_node_before(g, at, ZN_OP_MatMul, g->nodes[at].name, factors, 2, 1);
  ZN_TRY(zn_infer_node(c, g, last));
  if (s[0].add) {
    const zn_vid terms[2] = {g->nodes[last].out[0], joined(g, s, n, true)};
    last = zn_graph_node_before(g, at, ZN_OP_Add, g->nodes[s[0].add].name, terms, 2, 1);
    ZN_TRY(zn_infer_node(c, g, last));
  }
  for (uint32_t i = 0; i < n; i++) sizes[i] = s[i].columns;
  const zn_vid parts[2] = {g->nodes[last].out[0], zn_graph_const_i64s(g, sizes, n)};
  const zn_nid split = zn_graph_node_before(g, at, ZN_OP_Split, g->nodes[at].name, parts, 2, n);
  zn_node_set_int(g, split, "axis", g->vals[parts[0]].type.rank - 1);
  ZN_TRY(zn_infer_node(c, g, split));
  for (uint32_t i = 0; i < n; i++) {
    zn_graph_replace(g, s[i].result, g->nodes[split].out[i]);
    zn_graph_kill(g, s[i].product);
    if (s[i].add) zn_graph_kill(g, s[i].add);
  }
  return ZN_OK;
}

static zn_status join_siblings(zn_ctx *c, zn_graph *g, zn_pass_opts *o, const uint32_t *uses, uint32_t from) {
  sibling s[MAX_SIBLINGS], next;
  uint32_t n = 0;
  zn_vid x = g->nodes[g->order[from]].in[0];
  if (!is_sibling(g, uses, g->order[from], x, &s[0])) return ZN_OK;
  for (uint32_t i = from; i < g->num_order && n < MAX_SIBLINGS; i++) {
    if (!is_sibling(g, uses, g->order[i], x, &next)) continue;
    if (!next.add != !s[0].add || g->vals[next.w].cst->dtype != g->vals[s[0].w].cst->dtype) continue;
    s[n++] = next;
  }
  return n > 1 && zn_pass_may_rewrite(o) ? merge(c, g, s, n, x) : ZN_OK;
}

/* ---- one row ---- */

static bool exchanges_last_two(const zn_node *n, int rank) {
  uint32_t count = 0;
  const int64_t *perm = n->op == ZN_OP_Transpose ? zn_node_ints(n, "perm", &count) : NULL;
  if (!perm || (int)count != rank || rank < 2) return false;
  for (int d = 0; d < rank - 2; d++)
    if (perm[d] != d) return false;
  return perm[rank - 2] == rank - 1;
}

static zn_status sum_rows(zn_ctx *c, zn_graph *g, zn_pass_opts *o, const uint32_t *uses, zn_nid n) {
  const zn_vid a = g->nodes[n].in[0], b = g->nodes[n].in[1];
  const zn_type *ta = &g->vals[a].type, *tb = &g->vals[b].type;
  const zn_nid turn = g->vals[b].def;
  if (!turn || uses[b] != 1 || g->vals[b].is_output || ta->rank != tb->rank || ta->dtype != ZN_F32) return ZN_OK;
  const int rank = tb->rank;
  if (rank >= ZN_MAX_RANK || !exchanges_last_two(&g->nodes[turn], rank) || !zn_ex_is(g->ex, ta->dims[rank - 2], 1)) return ZN_OK;
  if (g->vals[g->nodes[turn].in[0]].cst || !zn_pass_may_rewrite(o)) return ZN_OK;
  const int64_t rows_at = rank - 2, row_at = rank - 1, along = rank;
  zn_rw w = {c, g, n, ZN_OK};
  zn_vid rows = zn_rw_unsqueeze(&w, g->nodes[turn].in[0], &rows_at, 1);
  zn_vid row = zn_rw_unsqueeze(&w, a, &row_at, 1);
  zn_rw_output(&w, 0, zn_rw_reduce(&w, ZN_OP_ReduceSum, zn_rw2(&w, ZN_OP_Mul, rows, row), &along, 1, false));
  ZN_TRY(zn_rw_done(&w));
  zn_graph_kill(g, turn);
  return ZN_OK;
}

static zn_status each_product(zn_ctx *c, zn_graph *g, zn_pass_opts *o, bool rows) {
  const uint32_t *uses = zn_graph_uses(g, &c->tmp);
  const uint32_t known = g->num_vals;
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    const uint32_t before = g->num_order;
    if (n->dead || (n->op != ZN_OP_MatMul && n->op != ZN_OP_Gemm) || n->out[0] >= known) continue;
    const zn_nid id = g->order[i];
    if (rows) ZN_TRY(keep_rows(c, g, o, uses, id));
    else if (n->op == ZN_OP_MatMul) ZN_TRY(o->caps->simt ? join_siblings(c, g, o, uses, i) : sum_rows(c, g, o, uses, id));
    i += g->num_order - before;
  }
  zn_graph_compact(g);
  return ZN_OK;
}

zn_status zn_pass_products(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  if (!o->caps) return ZN_OK;
  ZN_TRY(each_product(c, g, o, true));
  ZN_TRY(each_product(c, g, o, false));
  return zn_pass_bodies(c, g, o, zn_pass_products);
}
