/* Control flow that a device can run by itself: If and Loop whose condition it computes, recorded as conditional parts of the
 * run's graph. A region qualifies when the host has nothing to do in it that the data could change: no kernel of the host's, no
 * size that a kernel finds, and nothing the host computes from the number of the turn (kernels read that from memory). The
 * entry keeps the other way beside it, for runs that are not recorded. Inside another region, a loop that tells its turns would
 * have the host wait in the middle: `fits` refuses it. */
#include "codegen/lower/program.h"

enum { UNROLLED = 512 }; /* turns that a recorded run may as well have one by one: faster than asking after each */

bool zn_flow_counts(zn_lw *lw, zn_graph *g, zn_expr n, bool data) {
  int64_t turns;
  if (!lw->device_caps->simt || lw->on_host) return false;
  if (!data && n && zn_ex_is_const(lw->ex, n, &turns) && turns <= UNROLLED) return false;
  zn_graph *outer = lw->g;
  lw->g = g;
  const bool host = zn_side_values(lw) != NULL; /* strings or lists */
  lw->g = outer;
  return !host;
}

static bool is_counter(const zn_lw *lw, zn_expr sym) {
  for (uint32_t i = 0; i < lw->num_counters; i++)
    if (lw->counters[i].sym == sym) return true;
  return false;
}

static bool grows(const zn_lw *lw, const zn_step *s) { return s->loc.kind == ZN_LOC_WS && lw->bufs[s->loc.index].heap; }

typedef struct region {
  uint32_t first, end; /* the steps that open and close it */
  zn_expr sym;         /* turns of a loop; NONE */
} region;

static bool depends(const zn_lw *lw, zn_expr e, zn_expr sym) { return e && sym && zn_ex_depends(lw->ex, e, sym); }

/* Does the host compute something of step s from sym, but another name of it that kernels find in memory too? */
static bool host_needs(const zn_lw *lw, const zn_step *s, zn_expr sym) {
  if ((s->kind == ZN_STEP_SYM && is_counter(lw, s->sym)) || (s->kind == ZN_STEP_GROW && !grows(lw, s))) return false;
  bool needs = depends(lw, s->grid, sym) || depends(lw, s->a, sym) || depends(lw, s->b, sym);
  for (uint32_t i = 0; i < s->num_args; i++) needs |= s->args[i].is_int && depends(lw, s->args[i].e, sym);
  return needs;
}

static bool fits(const zn_lw *lw, const zn_step *s) {
  switch (s->kind) {
  case ZN_STEP_CALL: return !lw->mod->funcs[s->fn]->on_host;
  case ZN_STEP_IF: return s->flow;
  case ZN_STEP_LOOP: return (s->flow && !s->tells) || (s->loc.kind == ZN_LOC_NONE && s->count.kind == ZN_LOC_NONE);
  case ZN_STEP_CHECK: return lw->err_buf == UINT32_MAX;
  case ZN_STEP_GROW: return !grows(lw, s);
  case ZN_STEP_SYM: return is_counter(lw, s->sym);
  case ZN_STEP_IMAGE: return false;
  default: return true;
  }
}

/* Does the host use sym from step `first` on, before step `end`? */
static bool used(const zn_lw *lw, zn_expr sym, uint32_t first, uint32_t end) {
  for (uint32_t i = first; sym && i < end; i++)
    if (host_needs(lw, &lw->steps[i], sym)) return true;
  return false;
}

static bool decides(const zn_lw *lw, region r) {
  if (used(lw, r.sym, r.first + 1, r.end)) return false;
  for (uint32_t i = r.first + 1; i < r.end; i++) {
    const zn_step *s = &lw->steps[i];
    if (!fits(lw, s) || (s->kind == ZN_STEP_SYM && used(lw, s->sym, i, lw->num_steps))) return false;
  }
  return true;
}

bool zn_flow_find(zn_lw *lw, bool mixed) {
  region *open = ZN_ARRAY(lw->arena, region, lw->num_steps + 1);
  uint32_t depth = 0;
  bool any = false;
  if (!lw->device_caps->simt || mixed) return false;
  for (uint32_t i = 0; i < lw->num_steps; i++) {
    zn_step *s = &lw->steps[i];
    if (s->kind == ZN_STEP_IF || s->kind == ZN_STEP_IF_OVER || s->kind == ZN_STEP_LOOP)
      open[depth++] = (region){.first = i, .sym = s->kind == ZN_STEP_LOOP ? s->sym : ZN_EX_NONE};
    if (s->kind != ZN_STEP_ENDIF && s->kind != ZN_STEP_ENDLOOP) continue;
    region r = open[--depth];
    zn_step *first = &lw->steps[r.first];
    r.end = i;
    if (first->kind == ZN_STEP_IF || (first->kind == ZN_STEP_LOOP && first->count.kind != ZN_LOC_NONE))
      first->flow = decides(lw, r);
    first->tells = first->flow && used(lw, r.sym, i, lw->num_steps);
    any |= first->flow;
  }
  return any;
}
