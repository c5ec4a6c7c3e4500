/* The memory plan. Buffers of constant size: each at the lowest offset where nothing alive at the same time lies, largest
 * first (which meets the liveness bound on most networks), else in better orders found by a fixed number of tries.
 * Buffers of symbolic size share slots whose size is the maximum of their tenants, behind the constant part. */
#include <assert.h>
#include <stdlib.h>

#include "codegen/lower/program.h"

enum { ALIGN = 64 };

static uint64_t align_up(uint64_t n) { return (n + ALIGN - 1) & ~(uint64_t)(ALIGN - 1); }

static void touch(zn_lw *lw, zn_loc loc, uint32_t step) {
  if (loc.kind == ZN_LOC_PART) loc = lw->parts[loc.index].whole;
  if (loc.kind != ZN_LOC_WS && loc.kind != ZN_LOC_CELL) return;
  zn_wsbuf *b = &lw->bufs[loc.index];
  if (b->first == UINT32_MAX) {
    b->first = b->last = step;
    return;
  }
  if (step < b->first) b->first = step;
  if (step > b->last) b->last = step;
}

/* A buffer used inside a loop and written before it must survive every iteration. */
static void extend_over_loops(zn_lw *lw) {
  uint32_t *open = ZN_ARRAY(&lw->ctx->tmp, uint32_t, lw->num_steps), depth = 0;
  for (uint32_t i = 0; i < lw->num_steps; i++) {
    if (lw->steps[i].kind == ZN_STEP_LOOP) open[depth++] = i;
    if (lw->steps[i].kind != ZN_STEP_ENDLOOP) continue;
    uint32_t start = open[--depth];
    for (uint32_t k = 0; k < lw->num_bufs; k++) {
      zn_wsbuf *b = &lw->bufs[k];
      if (b->first == UINT32_MAX || b->last < start || b->first > i) continue;
      if (b->first <= start && b->last < i) b->last = i;
      if (b->first > start && b->last > i) b->first = start; /* filled piece by piece, read behind the loop */
    }
  }
}

static void touch_all(zn_lw *lw) {
  for (uint32_t i = 0; i < lw->num_steps; i++) {
    touch(lw, lw->steps[i].loc, i);
    touch(lw, lw->steps[i].count, i);
    for (uint32_t k = 0; k < lw->steps[i].num_args; k++)
      if (!lw->steps[i].args[k].is_int) touch(lw, lw->steps[i].args[k].loc, i);
  }
}

static void lifetimes(zn_lw *lw) {
  touch_all(lw);
  extend_over_loops(lw);
  for (uint32_t k = 0; k < lw->num_bufs; k++)
    if (lw->bufs[k].keep && lw->bufs[k].first != UINT32_MAX) lw->bufs[k].last = lw->num_steps;
  for (uint32_t k = 0; k < lw->num_bufs; k++)
    if (lw->bufs[k].heap) {
      lw->bufs[lw->bufs[k].cell].first = 0;
      lw->bufs[lw->bufs[k].cell].last = lw->num_steps;
    }
  if (lw->err_buf != UINT32_MAX) {
    lw->bufs[lw->err_buf].first = 0;
    lw->bufs[lw->err_buf].last = lw->num_steps;
  }
}

static bool overlap(const zn_wsbuf *a, const zn_wsbuf *b) {
  return a->first <= b->last && b->first <= a->last;
}

typedef struct item {
  uint32_t buf;
  uint64_t size, offset;
} item;

static int larger_first(const void *x, const void *y) {
  const item *a = x, *b = y;
  if (a->size != b->size) return a->size > b->size ? -1 : 1;
  return a->buf < b->buf ? -1 : 1;
}

/* For every item, the items alive at the same time as it. */
typedef struct conflicts {
  uint32_t **with, *num;
} conflicts;

static conflicts find_conflicts(zn_lw *lw, const item *items, uint32_t n) {
  conflicts c = {ZN_ARRAY(&lw->ctx->tmp, uint32_t *, n + 1), ZN_ARRAY(&lw->ctx->tmp, uint32_t, n + 1)};
  for (uint32_t i = 0; i < n; i++) {
    uint32_t cap = 0;
    for (uint32_t k = 0; k < n; k++)
      if (k != i && overlap(&lw->bufs[items[i].buf], &lw->bufs[items[k].buf]))
        ZN_PUSH(&lw->ctx->tmp, c.with[i], c.num[i], cap, k);
  }
  return c;
}

/* The lowest offset where item i meets no placed neighbour: near[] are those, sorted by offset. */
static uint64_t lowest_gap(const item *items, uint32_t i, const uint32_t *near, uint32_t n) {
  uint64_t at = 0;
  for (uint32_t k = 0; k < n; k++) {
    const item *p = &items[near[k]];
    if (at + items[i].size <= p->offset) break;
    if (p->offset + p->size > at) at = p->offset + p->size;
  }
  return at;
}

/* Places the items in this order, each as low as possible; returns the height. near: scratch for n numbers. */
static uint64_t first_fit(item *items, const uint32_t *order, uint32_t n, const conflicts *c, uint32_t *near) {
  uint64_t total = 0;
  for (uint32_t i = 0; i < n; i++) items[i].offset = UINT64_MAX;
  for (uint32_t o = 0; o < n; o++) {
    uint32_t i = order[o], num = 0;
    for (uint32_t k = 0; k < c->num[i]; k++) {
      uint32_t other = c->with[i][k], at = num;
      if (items[other].offset == UINT64_MAX) continue;
      for (num++; at && items[near[at - 1]].offset > items[other].offset; at--) near[at] = near[at - 1];
      near[at] = other;
    }
    items[i].offset = lowest_gap(items, i, near, num);
    if (items[i].offset + items[i].size > total) total = items[i].offset + items[i].size;
  }
  return total;
}

static uint32_t next_random(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

/* Moves what reaches highest to an earlier place in the order (any, by a fixed generator). */
static void promote_top(const item *items, uint32_t *order, uint32_t n, uint64_t total, uint32_t *state) {
  uint32_t at = n - 1;
  while (at && items[order[at]].offset + items[order[at]].size != total) at--;
  uint32_t to = at ? (next_random(state) >> 8) % at : 0, i = order[at];
  memmove(&order[to + 1], &order[to], (at - to) * sizeof *order);
  order[to] = i;
}

enum { MAX_TRIES = 4000, MAX_WORK = 40000000 };

/* Largest first; where that misses the bound, other orders: a walk that promotes the top, started anew from the best. */
static uint64_t place_static(zn_lw *lw, item *items, uint32_t n, uint64_t bound) {
  if (!n) return 0;
  qsort(items, n, sizeof *items, larger_first);
  zn_arena *tmp = &lw->ctx->tmp;
  conflicts c = find_conflicts(lw, items, n);
  uint32_t *order = ZN_ARRAY(tmp, uint32_t, n), *best = ZN_ARRAY(tmp, uint32_t, n), *near = ZN_ARRAY(tmp, uint32_t, n);
  uint64_t work = 1, total, least;
  for (uint32_t i = 0; i < n; i++) order[i] = best[i] = i, work += c.num[i];
  uint32_t tries = MAX_WORK / work < MAX_TRIES ? (uint32_t)(MAX_WORK / work) : MAX_TRIES, state = 1;
  total = least = first_fit(items, order, n, &c, near);
  for (uint32_t t = 1; t < tries && least > bound; t++) {
    promote_top(items, order, n, total, &state);
    total = first_fit(items, order, n, &c, near);
    if (total < least) least = total, memcpy(best, order, n * sizeof *order);
    if (total > least + least / 8 || t % 64 == 0) memcpy(order, best, n * sizeof *order);
    if (!memcmp(order, best, n * sizeof *order)) total = first_fit(items, order, n, &c, near);
  }
  least = first_fit(items, best, n, &c, near);
  for (uint32_t i = 0; i < n; i++) lw->bufs[items[i].buf].offset = items[i].offset;
  return least;
}

static uint64_t liveness_bound(const zn_lw *lw, const item *items, uint32_t n) {
  uint64_t best = 0;
  for (uint32_t s = 0; s < lw->num_steps; s++) {
    uint64_t live = 0;
    for (uint32_t i = 0; i < n; i++)
      if (lw->bufs[items[i].buf].first <= s && s <= lw->bufs[items[i].buf].last) live += items[i].size;
    if (live > best) best = live;
  }
  return best;
}

static bool has_size(const zn_slot *s, zn_expr bytes) {
  for (uint32_t i = 0; i < s->num_sizes; i++)
    if (s->sizes[i] == bytes) return true;
  return false;
}

static void place_dynamic(zn_lw *lw, zn_plan *plan, const uint32_t *list, uint32_t n) {
  plan->slots = ZN_ARRAY(lw->arena, zn_slot, n);
  for (uint32_t i = 0; i < n; i++) { /* in order of first use */
    zn_wsbuf *b = &lw->bufs[list[i]];
    uint32_t best = UINT32_MAX;
    for (uint32_t s = 0; s < plan->num_slots; s++) {
      if (plan->slots[s].busy_until >= b->first) continue;
      if (best == UINT32_MAX) best = s;
      if (has_size(&plan->slots[s], b->bytes)) {
        best = s;
        break;
      }
    }
    if (best == UINT32_MAX) best = plan->num_slots++;
    zn_slot *slot = &plan->slots[best];
    if (!has_size(slot, b->bytes))
      ZN_PUSH(lw->arena, slot->sizes, slot->num_sizes, slot->cap_sizes, b->bytes);
    slot->busy_until = b->last;
    b->slot = best;
  }
}

zn_plan zn_plan_memory(zn_lw *lw, zn_plan_stats *out_stats) {
  zn_plan plan = {0};
  lifetimes(lw);
  item *items = ZN_ARRAY(&lw->ctx->tmp, item, lw->num_bufs);
  uint32_t *dynamic = ZN_ARRAY(&lw->ctx->tmp, uint32_t, lw->num_bufs), num_dynamic = 0, n = 0;
  for (uint32_t step = 0; step <= lw->num_steps; step++) {
    for (uint32_t i = 0; i < lw->num_bufs; i++) {
      zn_wsbuf *b = &lw->bufs[i];
      int64_t bytes;
      if (b->first != step || b->heap) continue;
      if (!zn_ex_is_const(lw->ex, b->bytes, &bytes)) {
        dynamic[num_dynamic++] = i;
        continue;
      }
      b->slot = UINT32_MAX;
      items[n++] = (item){i, align_up((uint64_t)bytes), 0};
      out_stats->sum_of_buffers += align_up((uint64_t)bytes);
    }
  }
  uint64_t bound = liveness_bound(lw, items, n);
  plan.static_bytes = place_static(lw, items, n, bound);
  place_dynamic(lw, &plan, dynamic, num_dynamic);
  out_stats->num_buffers = n + num_dynamic;
  out_stats->workspace = num_dynamic ? 0 : plan.static_bytes;
  out_stats->lower_bound = num_dynamic ? 0 : bound;
  return plan;
}
