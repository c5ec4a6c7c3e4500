/* Which run of kernels is computed in bands, and in how many: the peak of memory is found on the lifetimes of stored values,
 * then every run around it is priced. Rows that two bands need are kept, not computed twice: a strip moves them to its
 * beginning, which costs a copy and no arithmetic. The last result of a run whose input dies in it may be stored over that
 * input, rows behind the bands that still read them. */
#include "zenithc/passes/bands.h"

typedef struct unit { /* a stored value and the kernel that computes it */
  zn_vid v;
  zn_vid *reads; /* stored values */
  uint32_t num_reads, cap_reads, last; /* last: unit that reads it last */
  int64_t bytes;
  bool ok; /* can be computed in bands */
} unit;

typedef struct finder {
  zn_ctx *c;
  const zn_graph *g;
  uint32_t known;
  unit *units;
  uint32_t num;
  uint32_t *unit_of; /* value -> unit + 1 */
} finder;

static int64_t extent(const zn_graph *g, zn_vid v, int d) {
  int64_t n;
  return zn_ex_is_const(g->ex, g->vals[v].type.dims[d], &n) ? n : -1;
}

int64_t zn_band_height(const zn_graph *g, zn_vid v) { return extent(g, v, ZN_BAND_ROWS); }

/* ---------------------------------------------------------------- rows of operators */

static int64_t nth(const zn_node *n, const char *name, uint32_t i, int64_t otherwise) {
  uint32_t num;
  const int64_t *p = zn_node_ints(n, name, &num);
  return p && i < num ? p[i] : otherwise;
}

static bool has_window(const zn_node *n) {
  switch (n->op) {
  case ZN_OP_Conv: case ZN_OP_ConvInteger: case ZN_OP_QLinearConv: return true;
  case ZN_OP_MaxPool: case ZN_OP_AveragePool: case ZN_OP_LpPool:
    return n->num_out == 1 && zn_node_int(n, "ceil_mode") == 0;
  default: return false;
  }
}

static bool is_map(const zn_node *n) {
  return zn_ops[n->op].flags & ZN_OPF_EW || n->op == ZN_OP_Cast || n->op == ZN_OP_Identity || n->op == ZN_OP_QuantizeLinear ||
         n->op == ZN_OP_DequantizeLinear;
}

bool zn_band_flow_of(const zn_graph *g, const zn_node *n, zn_band_flow *f) {
  *f = (zn_band_flow){.kernel = 1, .stride = 1, .dilation = 1};
  if (n->num_out != 1 || g->vals[n->out[0]].type.rank != 4) return false;
  if (!has_window(n)) return is_map(n);
  const char *mode = zn_node_str(n, "auto_pad");
  f->window = true;
  f->kernel = nth(n, "kernel_shape", 0, 0);
  f->stride = nth(n, "strides", 0, 1);
  f->dilation = nth(n, "dilations", 0, 1);
  f->pad = nth(n, "pads", 0, 0);
  return f->kernel > 0 && f->pad >= 0 && nth(n, "pads", 2, 0) >= 0 && (!mode || !*mode || !strcmp(mode, "NOTSET"));
}

/* 1: operand i has the rows of the image, 0: it is the same for all of them, -1: neither. */
static int varies(const zn_graph *g, const zn_node *n, uint32_t i) {
  if (!n->in[i]) return 0;
  const zn_value *x = &g->vals[n->in[i]];
  const bool first_only = has_window(n) || n->op == ZN_OP_QuantizeLinear || n->op == ZN_OP_DequantizeLinear;
  if (first_only && i > 0) return x->type.rank <= 1 || has_window(n) ? 0 : -1;
  if (x->cst || zn_value_known(x)) {
    const int at = ZN_BAND_ROWS - (4 - x->type.rank);
    return at < 0 || zn_ex_is(g->ex, x->type.dims[at], 1) ? 0 : -1;
  }
  if (x->type.kind != ZN_V_TENSOR) return -1;
  if (x->type.rank == 4 && (has_window(n) || x->type.dims[2] == g->vals[n->out[0]].type.dims[2])) return 1;
  const int at = ZN_BAND_ROWS - (4 - x->type.rank);
  return x->type.rank <= 4 && (at < 0 || zn_ex_is(g->ex, x->type.dims[at], 1)) ? 0 : -1;
}

bool zn_band_operand(const zn_graph *g, const zn_node *n, uint32_t i, int64_t *lo, int64_t *hi) {
  zn_band_flow f;
  if (varies(g, n, i) != 1 || !zn_band_flow_of(g, n, &f)) return false;
  if (!f.window) return true;
  const int64_t height = zn_band_height(g, n->in[i]);
  *lo = *lo * f.stride - f.pad;
  *hi = (*hi - 1) * f.stride - f.pad + (f.kernel - 1) * f.dilation + 1;
  if (*lo < 0) *lo = 0;
  if (*hi > height) *hi = height;
  return true;
}

typedef bool (*leaf_fn)(void *user, zn_vid leaf, int64_t lo, int64_t hi, bool same);

/* Calls fn for every stored image that rows [lo, hi) of v are computed from; same: row for row. false: v has no bands. */
static bool leaves(const finder *f, zn_vid v, int64_t lo, int64_t hi, bool same, leaf_fn fn, void *user) {
  const zn_graph *g = f->g;
  zn_band_flow w;
  if (!g->vals[v].def) return false;
  const zn_node *n = &g->nodes[g->vals[v].def];
  if (!zn_band_flow_of(g, n, &w) || zn_band_height(g, v) < 1) return false;
  for (uint32_t i = 0; i < n->num_in; i++) {
    const int kind = varies(g, n, i);
    int64_t a = lo, b = hi;
    if (kind < 0) return false;
    if (!kind || !zn_band_operand(g, n, i, &a, &b)) continue;
    if (a >= b) return false; /* rows that see nothing but the border */
    const bool stays = same && !w.window;
    const bool fine = g->vals[n->in[i]].inlined ? leaves(f, n->in[i], a, b, stays, fn, user) : fn(user, n->in[i], a, b, stays);
    if (!fine) return false;
  }
  return true;
}

static bool is_stored_image(void *user, zn_vid v, int64_t lo, int64_t hi, bool same) {
  const zn_value *x = &((const finder *)user)->g->vals[v];
  (void)lo, (void)hi, (void)same;
  return x->type.rank == 4 && x->type.kind == ZN_V_TENSOR && !x->alias && !x->cst && !zn_value_known(x) &&
         (!x->layout.block || x->layout.axis == 1);
}

/* ---------------------------------------------------------------- units and lifetimes */

static zn_vid root_of(const zn_graph *g, zn_vid v) {
  while (g->vals[v].alias) v = g->vals[v].alias;
  while (g->vals[v].within) v = g->vals[v].within;
  return v;
}

static void collect_reads(finder *f, unit *u, const zn_node *n) {
  for (uint32_t i = 0; i < n->num_in; i++) {
    const zn_vid v = n->in[i];
    const zn_value *x = &f->g->vals[v];
    if (!v || x->cst || zn_value_known(x)) continue;
    if (x->inlined && x->def) collect_reads(f, u, &f->g->nodes[x->def]);
    else ZN_PUSH(&f->c->tmp, u->reads, u->num_reads, u->cap_reads, root_of(f->g, v));
  }
}

static int64_t stored_bytes(const zn_graph *g, zn_vid v) {
  const zn_value *x = &g->vals[v];
  int64_t n = zn_dtype_bytes((zn_dtype)x->type.dtype), d;
  if (x->type.kind != ZN_V_TENSOR || x->type.rank < 0) return 0;
  for (int i = 0; i < x->type.rank; i++) {
    if (!zn_ex_is_const(g->ex, x->type.dims[i], &d)) return 0;
    n *= d + x->layout.lo[i] + x->layout.hi[i] + (i == x->type.rank - 2 ? (int64_t)x->layout.gap : 0);
  }
  return n;
}

/* Is v the only stored result of its kernel? */
static bool alone(const finder *f, zn_vid v) {
  const zn_graph *g = f->g;
  const uint32_t group = g->nodes[g->vals[v].def].group;
  for (uint32_t i = 0; group && i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    for (uint32_t k = 0; n->group == group && k < n->num_out; k++)
      if (n->out[k] != v && n->out[k] && !g->vals[n->out[k]].inlined) return false;
  }
  return true;
}

static void find_units(finder *f) {
  const zn_graph *g = f->g;
  uint32_t cap = 0;
  f->unit_of = ZN_ARRAY(&f->c->tmp, uint32_t, g->num_vals);
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    for (uint32_t k = 0; k < n->num_out; k++) {
      const zn_value *x = &g->vals[n->out[k]];
      if (!n->out[k] || x->inlined || zn_value_known(x)) continue;
      unit u = {.v = n->out[k], .last = f->num};
      collect_reads(f, &u, n);
      u.bytes = x->alias || x->within || x->is_output ? 0 : stored_bytes(g, u.v);
      u.ok = u.v < f->known && !x->alias && !x->within && !x->content && is_stored_image(f, u.v, 0, 0, false) &&
             leaves(f, u.v, 0, zn_band_height(g, u.v), true, is_stored_image, f) && alone(f, u.v);
      ZN_PUSH(&f->c->tmp, f->units, f->num, cap, u);
      f->unit_of[u.v] = f->num;
    }
  }
  for (uint32_t i = 0; i < f->num; i++) {
    for (uint32_t k = 0; k < f->units[i].num_reads; k++) {
      const uint32_t r = f->unit_of[f->units[i].reads[k]];
      if (r) f->units[r - 1].last = i;
    }
    const zn_vid whole = root_of(g, f->units[i].v);
    if (whole != f->units[i].v && f->unit_of[whole]) f->units[f->unit_of[whole] - 1].last = i;
  }
  for (uint32_t i = 0; i < g->num_outputs; i++) {
    const uint32_t r = f->unit_of[root_of(g, g->outputs[i])];
    if (r) f->units[r - 1].last = f->num;
  }
}

typedef struct dying { /* an operand whose memory the result takes over */
  const finder *f;
  uint32_t at;
  zn_vid found;
} dying;

static bool same_image(const zn_graph *g, zn_vid a, zn_vid b) {
  const zn_value *x = &g->vals[a], *y = &g->vals[b];
  return x->type.dtype == y->type.dtype && x->type.rank == y->type.rank &&
         !memcmp(x->type.dims, y->type.dims, (size_t)x->type.rank * sizeof *x->type.dims);
}

static bool dies_here(void *user, zn_vid leaf, int64_t lo, int64_t hi, bool same) {
  dying *d = user;
  const uint32_t u = d->f->unit_of[leaf];
  (void)lo, (void)hi;
  if (same && u && d->f->units[u - 1].last == d->at && same_image(d->f->g, leaf, d->f->units[d->at].v)) d->found = leaf;
  return true;
}

static int64_t live_at(const finder *f, uint32_t t) {
  int64_t sum = 0;
  for (uint32_t i = 0; i <= t; i++)
    if (f->units[i].last >= t) sum += f->units[i].bytes;
  dying d = {f, t, 0};
  if (f->units[t].ok) leaves(f, f->units[t].v, 0, zn_band_height(f->g, f->units[t].v), true, dies_here, &d);
  return d.found ? sum - f->units[t].bytes : sum;
}

/* ---------------------------------------------------------------- rows of a run */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

int64_t zn_band_above(const zn_graph *g, const zn_bands *b, uint32_t u, uint32_t k) {
  return b->start[u][k] == 0 ? g->vals[b->v[u]].layout.lo[ZN_BAND_ROWS] : 0;
}

int64_t zn_band_below(const zn_graph *g, const zn_bands *b, uint32_t u, uint32_t k) {
  return b->end[u][k] == zn_band_height(g, b->v[u]) ? g->vals[b->v[u]].layout.hi[ZN_BAND_ROWS] : 0;
}

int64_t zn_band_capacity(const zn_graph *g, const zn_bands *b, uint32_t u) {
  int64_t most = 0;
  for (uint32_t k = 0; k < b->num; k++) {
    int64_t rows = zn_band_above(g, b, u, k) + b->end[u][k] - b->start[u][k] + zn_band_below(g, b, u, k);
    if (rows > most) most = rows;
  }
  return most;
}

static uint32_t number_in(const zn_bands *b, zn_vid v) {
  uint32_t i = 0;
  while (i < b->n && b->v[i] != v) i++;
  return i;
}

typedef struct needs {
  zn_bands *b;
  uint32_t band;
} needs;

static bool note_need(void *user, zn_vid leaf, int64_t lo, int64_t hi, bool same) {
  needs *n = user;
  zn_bands *b = n->b;
  const uint32_t u = number_in(b, leaf);
  (void)same;
  if (u == b->n) return true;
  if (hi > b->end[u][n->band]) b->end[u][n->band] = hi;
  b->start[u][n->band] = least(b->start[u][n->band], lo);
  return true;
}

/* Rows of one result in all bands, once what its readers need is noted; false: bands are too low to keep rows in place. */
static bool settle(const finder *f, zn_bands *b, uint32_t u) {
  const int64_t above = f->g->vals[b->v[u]].layout.lo[ZN_BAND_ROWS];
  b->strip[u] = false;
  for (uint32_t k = 0; k < b->num; k++) {
    const int64_t before = k ? b->end[u][k - 1] : 0, needed = least(b->start[u][k], before);
    b->first[u][k] = before;
    b->start[u][k] = needed;
    if (b->end[u][k] < before) b->end[u][k] = before;
    if (!k) continue;
    if (needed < b->start[u][k - 1]) return false;
    b->strip[u] |= needed < before;
    if (b->end[u][k] == before) b->start[u][k] = b->start[u][k - 1]; /* nothing new: the strip stays as it is */
    if (b->end[u][k] == before || needed == before) continue;
    const int64_t kept = before - b->start[u][k], to = b->start[u][k] ? 0 : above;
    const int64_t from = b->start[u][k] - b->start[u][k - 1] + (b->start[u][k - 1] ? 0 : above);
    if (from != to && from < to + kept) return false;
  }
  return true;
}

static bool lay_rows(const finder *f, zn_bands *b, int64_t rows) {
  const uint32_t last = b->n - 1;
  const int64_t height = zn_band_height(f->g, b->v[last]);
  b->num = (uint32_t)((height + rows - 1) / rows);
  if (b->num < 2 || b->num > ZN_BAND_MOST) return false;
  for (uint32_t u = 0; u < b->n; u++)
    for (uint32_t k = 0; k < b->num; k++) {
      b->end[u][k] = u == last ? least(height, rows * (int64_t)(k + 1)) : 0;
      b->start[u][k] = INT64_MAX;
    }
  for (uint32_t u = last + 1; u-- > 0;) {
    if (!settle(f, b, u)) return false;
    for (uint32_t k = 0; k < b->num; k++) {
      needs n = {b, k};
      if (b->first[u][k] < b->end[u][k]) leaves(f, b->v[u], b->first[u][k], b->end[u][k], true, note_need, &n);
    }
  }
  return true;
}

/* ---------------------------------------------------------------- the last result over an input */

typedef struct overlay {
  const zn_bands *b;
  zn_vid x;
  uint32_t unit, band;
  bool fine;
} overlay;

/* Rows before those of the band are overwritten; the last unit reads the rows it writes, element for element. */
static bool check_overlay(void *user, zn_vid leaf, int64_t lo, int64_t hi, bool same) {
  overlay *o = user;
  const uint32_t last = o->b->n - 1;
  (void)hi;
  if (leaf != o->x) return true;
  if (lo < o->b->first[last][o->band] || (o->unit == last && !same)) o->fine = false;
  return true;
}

static bool is_over(const finder *f, const zn_bands *b, zn_vid x) {
  const zn_graph *g = f->g;
  const uint32_t r = f->unit_of[x], last = b->n - 1;
  const zn_vid y = b->v[last];
  const zn_layout *lx = &g->vals[x].layout, *ly = &g->vals[y].layout;
  if (!r || !same_image(g, x, y) || f->units[r - 1].last > f->unit_of[y] - 1) return false;
  if (g->vals[x].is_output || g->vals[x].is_input || g->vals[x].within || g->vals[y].is_output) return false;
  if (!lx->block || lx->block != ly->block) return false;
  overlay o = {.b = b, .x = x, .fine = true};
  for (o.unit = 0; o.unit < b->n; o.unit++)
    for (o.band = 0; o.band < b->num; o.band++)
      if (b->first[o.unit][o.band] < b->end[o.unit][o.band])
        leaves(f, b->v[o.unit], b->first[o.unit][o.band], b->end[o.unit][o.band], true, check_overlay, &o);
  return o.fine;
}

/* ---------------------------------------------------------------- prices */

typedef struct price {
  int64_t bytes;
  double cycles;
} price;

static const double call_cycles = 1500, copied_bytes = 8; /* a kernel's start; bytes a cycle */

static price price_of(const finder *f, const zn_bands *b, uint32_t from, uint32_t to) {
  const zn_graph *g = f->g;
  price p = {0};
  for (uint32_t i = 0; i < from; i++)
    if (f->units[i].last >= from) p.bytes += f->units[i].bytes;
  if (!b->over) p.bytes += f->units[to].bytes;
  for (uint32_t u = 0; u + 1 < b->n; u++) {
    const zn_value *x = &g->vals[b->v[u]];
    const int64_t all = zn_band_height(g, b->v[u]) + x->layout.lo[ZN_BAND_ROWS] + x->layout.hi[ZN_BAND_ROWS];
    const int64_t row = stored_bytes(g, b->v[u]) / all;
    p.bytes += row * zn_band_capacity(g, b, u);
    for (uint32_t k = 1; k < b->num; k++)
      p.cycles += (double)(row * (b->first[u][k] - b->start[u][k])) / copied_bytes;
  }
  p.cycles += (double)b->n * b->num * call_cycles;
  return p;
}

static bool is_run(const finder *f, uint32_t from, uint32_t to) {
  for (uint32_t i = from; i <= to; i++) {
    const unit *u = &f->units[i];
    if (!u->ok || (i < to && (u->last > to || f->g->vals[u->v].is_output))) return false;
    for (uint32_t k = 0; i < to && k < f->g->num_vals; k++) /* a Reshape of it is no band */
      if (f->g->vals[k].alias == u->v) return false;
  }
  return true;
}

typedef struct best {
  zn_bands b;
  price p;
  bool any;
} best;

static void try_run(const finder *f, uint32_t from, uint32_t to, int64_t room, zn_bands *b, best *out) {
  const zn_graph *g = f->g;
  b->n = to - from + 1;
  for (uint32_t i = 0; i < b->n; i++) b->v[i] = f->units[from + i].v;
  const int64_t height = zn_band_height(g, b->v[b->n - 1]);
  for (int64_t parts = 2, seen = 0; parts <= height && parts <= ZN_BAND_MOST; parts++) {
    const int64_t rows = (height + parts - 1) / parts;
    if (rows == seen) continue;
    seen = rows;
    if (!lay_rows(f, b, rows)) continue;
    b->over = 0;
    for (uint32_t i = 0; i < from && !b->over; i++)
      if (f->units[i].last >= from && is_over(f, b, f->units[i].v)) b->over = f->units[i].v;
    const price p = price_of(f, b, from, to);
    const bool fits = p.bytes <= room, had = out->any && out->p.bytes <= room;
    if (out->any && (fits != had ? had : fits ? p.cycles >= out->p.cycles : p.bytes >= out->p.bytes)) continue;
    out->b = *b;
    out->p = p;
    out->any = true;
  }
}

bool zn_bands_choose(zn_ctx *c, const zn_graph *g, uint32_t known, int64_t room, zn_bands *out) {
  finder f = {.c = c, .g = g, .known = known};
  find_units(&f);
  uint32_t at = 0;
  for (uint32_t i = 1; i < f.num; i++)
    if (live_at(&f, i) > live_at(&f, at)) at = i;
  if (!f.num || live_at(&f, at) <= room) return false;
  best *b = ZN_NEW(&c->tmp, best);
  zn_bands *trial = ZN_NEW(&c->tmp, zn_bands);
  for (uint32_t from = at + 1; from-- > 0 && at - from < ZN_BAND_UNITS && f.units[from].ok;)
    for (uint32_t to = at; to < f.num && to - from < ZN_BAND_UNITS && f.units[to].ok; to++)
      if (to > from && is_run(&f, from, to)) try_run(&f, from, to, room, trial, b);
  if (!b->any || b->p.bytes >= live_at(&f, at)) return false;
  *out = b->b;
  return true;
}
