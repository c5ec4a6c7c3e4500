/* The memory plan. Buffers of constant size: largest first, each at the lowest offset where nothing alive at the same
 * time lies (first-fit decreasing; meets the liveness bound on all networks measured). Buffers of symbolic size share
 * slots whose size is the maximum of their tenants, behind the constant part. */
#include <assert.h>
#include <stdlib.h>

#include "codegen/lower/program.h"

enum { ALIGN = 64 };

static uint64_t align_up(uint64_t n) { return (n + ALIGN - 1) & ~(uint64_t)(ALIGN - 1); }

static void touch(zn_lw *lw, zn_loc loc, uint32_t step) {
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
  uint64_t size;
} item;

static int larger_first(const void *x, const void *y) {
  const item *a = x, *b = y;
  if (a->size != b->size) return a->size > b->size ? -1 : 1;
  return a->buf < b->buf ? -1 : 1;
}

static int by_offset(const void *x, const void *y) {
  const zn_wsbuf *a = *(zn_wsbuf *const *)x, *b = *(zn_wsbuf *const *)y;
  if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
  return a < b ? -1 : a > b;
}

static uint64_t place_static(zn_lw *lw, item *items, uint32_t n) {
  qsort(items, n, sizeof *items, larger_first);
  zn_wsbuf **placed = ZN_ARRAY(&lw->ctx->tmp, zn_wsbuf *, n);
  uint64_t *size_of = ZN_ARRAY(&lw->ctx->tmp, uint64_t, lw->num_bufs);
  uint64_t total = 0;
  for (uint32_t i = 0; i < n; i++) {
    zn_wsbuf *b = &lw->bufs[items[i].buf];
    uint64_t at = 0;
    qsort(placed, i, sizeof *placed, by_offset);
    for (uint32_t k = 0; k < i; k++) {
      if (!overlap(b, placed[k])) continue;
      uint64_t size = size_of[placed[k] - lw->bufs];
      if (at + items[i].size <= placed[k]->offset) break;
      if (placed[k]->offset + size > at) at = placed[k]->offset + size;
    }
    b->offset = at;
    size_of[items[i].buf] = items[i].size;
    placed[i] = b;
    if (at + items[i].size > total) total = at + items[i].size;
  }
  return total;
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
      items[n++] = (item){i, align_up((uint64_t)bytes)};
      out_stats->sum_of_buffers += align_up((uint64_t)bytes);
    }
  }
  plan.static_bytes = place_static(lw, items, n);
  place_dynamic(lw, &plan, dynamic, num_dynamic);
  out_stats->num_buffers = n + num_dynamic;
  out_stats->workspace = num_dynamic ? 0 : plan.static_bytes;
  out_stats->lower_bound = num_dynamic ? 0 : liveness_bound(lw, items, n);
  return plan;
}
