/* Slices of channels: a convolution whose only reader, behind maps, is a depthwise convolution is cut together with it into
 * groups of channels, one group after the other, joined by a Concat that needs no copy. Then a slice of the wide image in
 * between is alive at a time, and no number is computed twice or differently. Done where memory is limited (--max-ram), and
 * where the image does not fit the cache in front of memory. */
#include "zenithc/ops/expand_util.h"
#include "zenithc/passes/pass.h"

enum { MAX_CHAIN = 12, UNIT = 16, SMALL_UNIT = 8 };

typedef struct chain {
  zn_nid nodes[MAX_CHAIN]; /* the convolution first */
  uint32_t num, deep;      /* deep: which one is the depthwise convolution */
  int64_t channels;
} chain;

static const zn_htensor *constant(const zn_graph *g, zn_vid v) {
  return v && !g->vals[v].is_input && g->vals[v].cst && g->vals[v].cst->data ? g->vals[v].cst : NULL;
}

static int64_t bytes_of(const zn_graph *g, zn_vid v) {
  const zn_type *t = &g->vals[v].type;
  int64_t n = zn_dtype_bytes((zn_dtype)t->dtype), d;
  for (int i = 0; i < t->rank; i++) {
    if (!zn_ex_is_const(g->ex, t->dims[i], &d)) return -1;
    n *= d;
  }
  return t->rank < 3 ? -1 : n;
}

static bool is_conv(const zn_graph *g, const zn_node *n, int64_t *channels, bool *depthwise) {
  const zn_htensor *w = n->op == ZN_OP_Conv ? constant(g, n->in[1]) : NULL;
  if (!w || (zn_node_in(n, 2) && !constant(g, n->in[2]))) return false;
  const int64_t group = zn_node_int(n, "group");
  *channels = w->dims[0];
  *depthwise = group == w->dims[0] && group > 1 && w->dims[1] == 1 && zn_ex_is(g->ex, g->vals[n->in[0]].type.dims[1], group);
  return *depthwise || group == 1;
}

/* The number of the one operand that is no constant scalar, of an elementwise map. */
static bool is_map(const zn_graph *g, const zn_node *n, uint32_t *data) {
  uint32_t others = 0;
  if (!(zn_ops[n->op].flags & ZN_OPF_EW) || n->num_out != 1) return false;
  for (uint32_t i = 0; i < n->num_in; i++) {
    const zn_htensor *c = constant(g, n->in[i]);
    if (!n->in[i] || (c && zn_htensor_count(c) == 1)) continue;
    *data = i;
    others++;
  }
  return others == 1;
}

static zn_nid only_reader(const zn_graph *g, const uint32_t *uses, const zn_nid *reader, zn_vid v) {
  return uses[v] == 1 && !g->vals[v].is_output && !g->vals[v].content ? reader[v] : 0;
}

/* From convolution n on; maps behind the depthwise one belong to it. */
static bool read_chain(const zn_graph *g, const uint32_t *uses, const zn_nid *reader, zn_nid n, chain *c) {
  bool deep;
  int64_t channels;
  *c = (chain){.nodes = {n}, .num = 1};
  if (!is_conv(g, &g->nodes[n], &c->channels, &deep) || deep) return false;
  for (;;) {
    const zn_node *last = &g->nodes[c->nodes[c->num - 1]];
    zn_nid next = only_reader(g, uses, reader, last->out[0]);
    uint32_t data = 0;
    if (!next || c->num == MAX_CHAIN) break;
    const zn_node *r = &g->nodes[next];
    if (!c->deep && is_conv(g, r, &channels, &deep) && deep && channels == c->channels && r->in[0] == last->out[0])
      c->deep = c->num;
    else if (!is_map(g, r, &data) || r->in[data] != last->out[0])
      break;
    c->nodes[c->num++] = next;
  }
  return c->deep > 0;
}

/* Into how many slices? 1: it stays whole. */
static int64_t choose(const zn_graph *g, const zn_pass_opts *o, const chain *c) {
  const zn_node *first = &g->nodes[c->nodes[0]];
  int64_t wide = bytes_of(g, first->out[0]), out = bytes_of(g, g->nodes[c->nodes[c->deep]].out[0]);
  int64_t in = g->vals[first->in[0]].is_input ? 0 : bytes_of(g, first->in[0]);
  int64_t unit = c->channels % UNIT == 0 ? UNIT : SMALL_UNIT, most = c->channels / unit, k = 1;
  if (wide < 0 || out < 0 || in < 0 || c->channels % unit) return 1;
  const int64_t cache = o->caps && o->caps->vector_bytes && !o->caps->simt ? (int64_t)o->caps->l2_bytes : 0;
  if (cache && wide > 2 * cache)
    while (k < most && (most % k || wide / k > cache)) k++;
  if (o->ram_bytes)
    while (k < most && (most % k || in + wide / k + out > o->ram_bytes)) k++;
  return k;
}

/* Rows [lo, hi) of the first axis. */
static zn_vid part_of(zn_graph *g, zn_vid v, int64_t lo, int64_t hi) {
  if (!v) return 0;
  const zn_htensor *h = g->vals[v].cst;
  int64_t dims[ZN_MAX_RANK];
  const size_t row = (size_t)(zn_htensor_bytes(h) / (uint64_t)h->dims[0]);
  memcpy(dims, h->dims, h->rank * sizeof *dims);
  dims[0] = hi - lo;
  zn_htensor *t = ZN_NEW(g->arena, zn_htensor);
  *t = zn_htensor_new(g->arena, h->dtype, h->rank, dims);
  memcpy(t->data, (const char *)h->data + (size_t)lo * row, (size_t)(hi - lo) * row);
  return zn_graph_const(g, NULL, t);
}

/* Channels [lo, hi) of the chain, before node `at`; their value. */
static zn_status slice(zn_ctx *ctx, zn_graph *g, const chain *c, zn_nid at, int64_t lo, int64_t hi, zn_vid *out) {
  zn_vid v = 0;
  for (uint32_t i = 0; i < c->num; i++) {
    const zn_nid id = c->nodes[i];
    zn_vid in[ZN_MAX_RANK] = {0};
    const uint32_t num = g->nodes[id].num_in;
    const bool conv = g->nodes[id].op == ZN_OP_Conv;
    uint32_t data = 0;
    if (!conv) is_map(g, &g->nodes[id], &data);
    for (uint32_t k = 0; k < num; k++) {
      const zn_vid from = g->nodes[id].in[k];
      in[k] = i && k == data ? v : conv && k ? part_of(g, from, lo, hi) : from;
    }
    const char *name = zn_arena_printf(g->arena, "%s/channels %lld", g->nodes[id].name, (long long)lo);
    zn_nid n = zn_graph_node_before(g, at, g->nodes[id].op, name, in, num, 1);
    for (uint32_t k = 0; k < g->nodes[id].num_attrs; k++) zn_node_set_attr(g, n, g->nodes[id].attrs[k]);
    if (i == c->deep) zn_node_set_int(g, n, "group", hi - lo);
    ZN_TRY(zn_infer_node(ctx, g, n));
    v = g->nodes[n].out[0];
  }
  *out = v;
  return ZN_OK;
}

static zn_status cut(zn_ctx *ctx, zn_graph *g, const chain *c, int64_t k) {
  const zn_nid last = c->nodes[c->num - 1];
  const int64_t each = c->channels / k;
  zn_vid *parts = ZN_ARRAY(&ctx->tmp, zn_vid, (uint64_t)k);
  for (int64_t i = 0; i < k; i++) ZN_TRY(slice(ctx, g, c, last, i * each, (i + 1) * each, &parts[i]));
  const zn_nid join = zn_graph_node_before(g, last, ZN_OP_Concat, g->nodes[last].name, parts, (uint32_t)k, 1);
  zn_node_set_int(g, join, "axis", 1);
  ZN_TRY(zn_infer_node(ctx, g, join));
  zn_graph_replace(g, g->nodes[last].out[0], g->nodes[join].out[0]);
  for (uint32_t i = c->num; i-- > 0;) zn_graph_kill(g, c->nodes[i]);
  return ZN_OK;
}

zn_status zn_pass_slices(zn_ctx *ctx, zn_graph *g, zn_pass_opts *o) {
  if (o->bands) return ZN_OK;
  const uint32_t *uses = zn_graph_uses(g, &ctx->tmp), known = g->num_vals;
  zn_nid *reader = ZN_ARRAY(&ctx->tmp, zn_nid, known);
  for (uint32_t i = 0; i < g->num_order; i++)
    for (uint32_t k = 0; k < g->nodes[g->order[i]].num_in; k++) reader[g->nodes[g->order[i]].in[k]] = g->order[i];
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_nid n = g->order[i];
    const uint32_t before = g->num_order;
    chain c;
    if (g->nodes[n].dead || g->nodes[n].op != ZN_OP_Conv || g->nodes[n].out[0] >= known) continue;
    if (!read_chain(g, uses, reader, n, &c)) continue;
    const int64_t k = choose(g, o, &c);
    if (k > 1 && zn_pass_may_rewrite(o)) ZN_TRY(cut(ctx, g, &c, k));
    i += g->num_order - before;
  }
  zn_graph_compact(g);
  return ZN_OK;
}
