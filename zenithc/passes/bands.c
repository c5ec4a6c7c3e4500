/* Bands of rows: where the plan needs more memory than there is, a run of kernels over images (convolutions, pools, maps,
 * residuals between them) is computed a band of rows at a time, so that the images between its input and its result never
 * exist as a whole. bands_choose.c says which run and which rows.
 *
 * A band is ordinary nodes: the run's nodes once more for some rows, with the padding that these rows see. What makes it cheap
 * is where its values lie (zn_value.within): the window of rows that a kernel reads of a whole image is that image's memory,
 * the rows it adds to the result are the result's, and a strip keeps the rows that the next band needs. Bands that are not at
 * an edge have the same shapes, so their kernels are the same functions. No number is computed twice or differently. */
#include "zenithc/passes/bands.h"

typedef struct node_copy { /* for rows [lo, hi) */
  zn_nid from, to;
  int64_t lo, hi;
} node_copy;

typedef struct builder {
  zn_ctx *c;
  zn_graph *g;
  const zn_bands *b;
  zn_nid at;                     /* new nodes come before it */
  uint32_t band, unit;
  zn_vid now[ZN_BAND_UNITS];     /* each result's rows [start, end), as the current band has them */
  zn_vid home[ZN_BAND_UNITS];    /* strips: the first one, whose memory they all use */
  node_copy *copies;             /* nodes of the kernel being copied */
  uint32_t num_copies, cap_copies;
} builder;

typedef struct rows { /* of an image, and the value that holds some of them */
  zn_vid image, at;
  int64_t first;   /* row 0 of `at` */
  int64_t lo, hi;  /* those wanted */
} rows;

static zn_vid copy_rows(builder *m, zn_vid v, int64_t lo, int64_t hi);

static int64_t stored_rows(const zn_graph *g, zn_vid v) {
  const zn_layout *l = &g->vals[v].layout;
  return zn_band_height(g, v) + l->lo[ZN_BAND_ROWS] + l->hi[ZN_BAND_ROWS] + l->gap;
}

/* The type and layout of some rows of image v. */
static void describe(zn_graph *g, zn_vid to, zn_vid v, int64_t lo, int64_t hi) {
  const int64_t height = zn_band_height(g, v);
  g->vals[to].type = g->vals[v].type;
  g->vals[to].type.dims[ZN_BAND_ROWS] = zn_ex_const(g->ex, hi - lo);
  g->vals[to].layout = g->vals[v].layout;
  g->vals[to].layout.gap = g->vals[to].layout.shares_halo = 0;
  if (lo > 0) g->vals[to].layout.lo[ZN_BAND_ROWS] = 0;
  if (hi < height) g->vals[to].layout.hi[ZN_BAND_ROWS] = 0;
}

/* Value v, which is described, lies in the rows of `whole` from stored row `row` on. */
static void place(zn_graph *g, zn_vid v, zn_vid whole, int64_t row, bool shares_halo) {
  g->vals[v].within = whole;
  g->vals[v].row = (uint32_t)row;
  g->vals[v].layout.shares_halo = shares_halo;
  g->vals[v].layout.gap = (uint32_t)(stored_rows(g, whole) - stored_rows(g, v));
}

static zn_vid result(const builder *m, zn_nid n) { return m->g->nodes[n].out[0]; }

static zn_nid slice_rows(builder *m, const rows *r) {
  zn_graph *g = m->g;
  const int64_t lo = r->lo - r->first, hi = r->hi - r->first, axis = ZN_BAND_ROWS, one = 1;
  const char *image = g->vals[r->image].name;
  const char *name = zn_arena_printf(g->arena, "%s/rows %lld to %lld", image, (long long)r->lo, (long long)r->hi);
  zn_vid in[5] = {r->at};
  in[1] = zn_graph_const_i64s(g, &lo, 1);
  in[2] = zn_graph_const_i64s(g, &hi, 1);
  in[3] = zn_graph_const_i64s(g, &axis, 1);
  in[4] = zn_graph_const_i64s(g, &one, 1);
  return zn_graph_node_before(g, m->at, ZN_OP_Slice, name, in, 5, 1);
}

/* Those rows where they lie. */
static zn_vid window(builder *m, const rows *r) {
  zn_graph *g = m->g;
  if (r->lo == r->first && r->hi - r->lo == zn_band_height(g, r->at)) return r->at;
  const zn_vid v = result(m, slice_rows(m, r));
  describe(g, v, r->image, r->lo, r->hi);
  if (r->at == m->b->over && m->unit + 1 == m->b->n) /* exactly where the result's rows go: one pointer of the kernel */
    g->vals[v].layout.lo[ZN_BAND_ROWS] = g->vals[v].layout.hi[ZN_BAND_ROWS] = 0;
  const int64_t above = g->vals[r->at].layout.lo[ZN_BAND_ROWS] - g->vals[v].layout.lo[ZN_BAND_ROWS];
  place(g, v, r->at, above + r->lo - r->first, true);
  return v;
}

/* Rows [lo, hi) of stored image v, as it reads in this band. */
static zn_vid stored_window(builder *m, zn_vid v, int64_t lo, int64_t hi) {
  const zn_bands *b = m->b;
  rows r = {.image = v, .at = v, .lo = lo, .hi = hi};
  uint32_t u = 0;
  while (u < b->n && b->v[u] != v) u++;
  if (u < b->n) {
    r.at = m->now[u];
    r.first = b->strip[u] ? b->start[u][m->band] : b->first[u][m->band];
  }
  return window(m, &r);
}

static void set_pads(zn_graph *g, zn_nid to, const zn_node *from, int64_t lo, int64_t hi) {
  zn_band_flow f;
  uint32_t n;
  if (!zn_band_flow_of(g, from, &f) || !f.window) return;
  const int64_t *old = zn_node_ints(from, "pads", &n), height = zn_band_height(g, from->in[0]);
  int64_t pads[4] = {0, old && n > 1 ? old[1] : 0, 0, old && n > 3 ? old[3] : 0};
  const int64_t above = f.pad - lo * f.stride, end = (hi - 1) * f.stride - f.pad + (f.kernel - 1) * f.dilation + 1;
  if (above > 0) pads[0] = above;
  if (end > height) pads[2] = end - height;
  zn_node_set_ints(g, to, "pads", pads, 4);
}

/* The node that computes v once more, for rows [lo, hi). */
static zn_nid copy_node(builder *m, zn_vid v, int64_t lo, int64_t hi) {
  zn_graph *g = m->g;
  const zn_nid from = g->vals[v].def;
  const uint32_t num = g->nodes[from].num_in;
  zn_vid *in = ZN_ARRAY(&m->c->tmp, zn_vid, num + 1);
  for (uint32_t i = 0; i < num; i++) {
    int64_t a = lo, b = hi;
    in[i] = g->nodes[from].in[i];
    if (!zn_band_operand(g, &g->nodes[from], i, &a, &b)) continue;
    in[i] = g->vals[in[i]].inlined ? copy_rows(m, in[i], a, b) : stored_window(m, in[i], a, b);
  }
  const char *name = zn_arena_printf(g->arena, "%s/rows %lld", g->nodes[from].name, (long long)lo);
  const zn_nid to = zn_graph_node_before(g, m->at, g->nodes[from].op, name, in, num, 1);
  for (uint32_t k = 0; k < g->nodes[from].num_attrs; k++) zn_node_set_attr(g, to, g->nodes[from].attrs[k]);
  set_pads(g, to, &g->nodes[from], lo, hi);
  const zn_vid out = g->nodes[to].out[0];
  describe(g, out, v, lo, hi);
  g->vals[out].inlined = g->vals[v].inlined;
  ZN_PUSH(&m->c->tmp, m->copies, m->num_copies, m->cap_copies, ((node_copy){from, to, lo, hi}));
  return to;
}

static zn_vid copy_rows(builder *m, zn_vid v, int64_t lo, int64_t hi) {
  for (uint32_t i = 0; i < m->num_copies; i++) { /* read twice in this kernel */
    const node_copy *c = &m->copies[i];
    if (c->from == m->g->vals[v].def && c->lo == lo && c->hi == hi) return result(m, c->to);
  }
  return result(m, copy_node(m, v, lo, hi));
}

/* The kernel that computes stored value v, for rows [lo, hi). */
static zn_vid copy_kernel(builder *m, zn_vid v, int64_t lo, int64_t hi) {
  zn_graph *g = m->g;
  m->num_copies = 0;
  const zn_vid out = copy_rows(m, v, lo, hi);
  for (uint32_t i = 0; i < m->num_copies; i++) {
    const uint32_t group = g->nodes[m->copies[i].from].group;
    for (uint32_t k = 0; group && k < m->num_copies; k++)
      if (m->copies[k].from == group) g->nodes[m->copies[i].to].group = m->copies[k].to;
  }
  return out;
}

static zn_nid join_rows(builder *m, const zn_vid *parts, uint32_t n, const char *name) {
  const zn_nid join = zn_graph_node_before(m->g, m->at, ZN_OP_Concat, name, parts, n, 1);
  zn_node_set_int(m->g, join, "axis", ZN_BAND_ROWS);
  return join;
}

/* The first strip: whatever rows a later one has lie in its memory. */
static void open_strip(builder *m, uint32_t u) {
  zn_graph *g = m->g;
  const zn_vid v = m->home[u] = m->now[u];
  g->vals[v].layout.gap = (uint32_t)(zn_band_capacity(g, m->b, u) - stored_rows(g, v));
}

/* The rows that the last strip leaves move up, new ones follow. */
static void next_strip(builder *m, uint32_t u) {
  zn_graph *g = m->g;
  const zn_bands *b = m->b;
  const uint32_t k = m->band;
  const zn_vid v = b->v[u];
  const int64_t start = b->start[u][k], first = b->first[u][k], above = zn_band_above(g, b, u, k);
  zn_vid part[2] = {0};
  uint32_t n = 0;
  if (start < first) {
    rows r = {v, m->now[u], b->start[u][k - 1], start, first};
    part[n] = result(m, slice_rows(m, &r));
    describe(g, part[n], v, start, first);
    g->vals[part[n]].layout.lo[ZN_BAND_ROWS] = g->vals[part[n]].layout.hi[ZN_BAND_ROWS] = 0;
    place(g, part[n++], m->home[u], above, true);
  }
  part[n] = copy_kernel(m, v, first, b->end[u][k]);
  zn_layout *l = &g->vals[part[n]].layout;
  l->lo[ZN_BAND_ROWS] = l->hi[ZN_BAND_ROWS] = 0;
  place(g, part[n++], m->home[u], above + first - start, true);
  const char *name = zn_arena_printf(g->arena, "%s/strip %lld", g->vals[v].name, (long long)start);
  m->now[u] = result(m, join_rows(m, part, n, name));
  describe(g, m->now[u], v, start, b->end[u][k]);
  place(g, m->now[u], m->home[u], 0, false);
}

static void compute(builder *m, uint32_t u, zn_vid *parts) {
  zn_graph *g = m->g;
  const zn_bands *b = m->b;
  const uint32_t k = m->band;
  const zn_vid v = b->v[u];
  if (b->first[u][k] == b->end[u][k]) return;
  if (b->strip[u] && k) {
    next_strip(m, u);
    return;
  }
  m->now[u] = copy_kernel(m, v, b->first[u][k], b->end[u][k]);
  if (b->strip[u]) open_strip(m, u);
  if (u + 1 < b->n) return;
  zn_layout *l = &g->vals[m->now[u]].layout;
  l->lo[ZN_BAND_ROWS] = l->hi[ZN_BAND_ROWS] = 0;
  place(g, m->now[u], v, g->vals[v].layout.lo[ZN_BAND_ROWS] + b->first[u][k], true);
  parts[k] = m->now[u];
}

/* What is left of the nodes that computed whole images. */
static void remove_old(builder *m, zn_nid last) {
  zn_graph *g = m->g;
  for (uint32_t u = 0; u + 1 < m->b->n; u++) zn_graph_kill(g, g->vals[m->b->v[u]].def);
  zn_graph_kill(g, last);
  for (bool more = true; more;) {
    const uint32_t *uses = zn_graph_uses(g, &m->c->tmp);
    more = false;
    for (uint32_t i = 0; i < g->num_order; i++) {
      const zn_node *n = &g->nodes[g->order[i]];
      if (n->dead || n->num_out != 1 || !g->vals[n->out[0]].inlined || uses[n->out[0]]) continue;
      zn_graph_kill(g, g->order[i]);
      more = true;
    }
  }
  zn_graph_compact(g);
}

/* Both get the wider borders, so that one lies over the other. */
static void match_borders(zn_graph *g, zn_vid a, zn_vid b) {
  zn_layout *x = &g->vals[a].layout, *y = &g->vals[b].layout;
  for (int d = ZN_BAND_ROWS; d < 4; d++) {
    x->lo[d] = y->lo[d] = x->lo[d] > y->lo[d] ? x->lo[d] : y->lo[d];
    x->hi[d] = y->hi[d] = x->hi[d] > y->hi[d] ? x->hi[d] : y->hi[d];
  }
  x->has_halo = y->has_halo = x->has_halo || y->has_halo;
}

static void carry_out(zn_ctx *c, zn_graph *g, const zn_bands *b) {
  const zn_vid whole = b->v[b->n - 1];
  const zn_nid last = g->vals[whole].def;
  builder m = {.c = c, .g = g, .b = b, .at = last};
  zn_vid *parts = ZN_ARRAY(&c->tmp, zn_vid, b->num);
  if (b->over) match_borders(g, b->over, whole);
  for (m.band = 0; m.band < b->num; m.band++)
    for (m.unit = 0; m.unit < b->n; m.unit++) compute(&m, m.unit, parts);
  const zn_nid join = join_rows(&m, parts, b->num, zn_arena_printf(g->arena, "%s/bands", g->vals[whole].name));
  const zn_vid spare = g->nodes[join].out[0]; /* the join computes the result under its own number */
  g->nodes[join].out[0] = whole;
  g->vals[whole].def = join;
  g->nodes[last].out[0] = spare;
  g->vals[spare].def = last;
  g->vals[spare].type = g->vals[whole].type;
  if (b->over) place(g, whole, b->over, 0, true);
  remove_old(&m, last);
}

zn_status zn_pass_bands(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  enum { RUNS = 8 };
  const uint32_t known = g->num_vals;
  if (!o->bands || !o->ram_bytes || (o->caps && o->caps->simt)) return ZN_OK;
  zn_bands *b = ZN_NEW(&c->tmp, zn_bands);
  for (int i = 0; i < RUNS && zn_bands_choose(c, g, known, o->ram_bytes, b) && zn_pass_may_rewrite(o); i++) carry_out(c, g, b);
  return ZN_OK;
}
