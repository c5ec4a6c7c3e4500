/* Buffers that the workspace cannot hold: those whose size has no upper bound before the run, and those made in a loop that
 * must stay. The run takes them from the caller's allocator; their addresses are in cells of the workspace. */
#include <string.h>

#include "codegen/lower/program.h"

static bool unbounded(zn_lw *lw, const zn_type *t) {
  for (int d = 0; d < t->rank; d++)
    if (!zn_lw_bound(lw, t->dims[d])) return true;
  return false;
}

static void redirect(zn_loc *loc, uint32_t output, uint32_t buf) {
  if (loc->kind == ZN_LOC_OUTPUT && loc->index == output) *loc = (zn_loc){ZN_LOC_WS, buf};
}

/* An output without a bound: a buffer of its own, whose address run puts into the caller's zn_tensor. */
static void own_output(zn_lw *lw, uint32_t i) {
  const zn_type *t = zn_lw_type(lw, lw->g->outputs[i]);
  zn_loc at = zn_lw_keep(lw, zn_lw_bytes(lw, t));
  lw->out_heap[i] = at.index;
  for (uint32_t k = 0; k < lw->num_steps; k++) {
    redirect(&lw->steps[k].loc, i, at.index);
    for (uint32_t a = 0; a < lw->steps[k].num_args; a++) redirect(&lw->steps[k].args[a].loc, i, at.index);
  }
}

static void note_birth(zn_lw *lw, zn_loc loc, uint32_t step, bool in_loop) {
  if (loc.kind != ZN_LOC_WS || lw->bufs[loc.index].born != UINT32_MAX) return;
  lw->bufs[loc.index].born = step;
  lw->bufs[loc.index].in_loop = in_loop;
}

static void find_births(zn_lw *lw) {
  uint32_t loops = 0;
  for (uint32_t k = 0; k < lw->num_bufs; k++) lw->bufs[k].born = UINT32_MAX;
  for (uint32_t i = 0; i < lw->num_steps; i++) {
    zn_step *s = &lw->steps[i];
    if (s->kind == ZN_STEP_GROW && s->loc.kind == ZN_LOC_WS) lw->bufs[s->loc.index].grows = true;
    if (s->kind == ZN_STEP_ENDLOOP) loops--;
    note_birth(lw, s->loc, i, loops > 0);
    for (uint32_t a = 0; a < s->num_args; a++)
      if (!s->args[a].is_int) note_birth(lw, s->args[a].loc, i, loops > 0);
    if (s->kind == ZN_STEP_LOOP) loops++;
  }
}

/* Notes of kernels say which node they compute. */
static void refuse(zn_lw *lw, const zn_wsbuf *w) {
  const char *note = NULL;
  for (uint32_t i = w->born; i < lw->num_steps && !note; i++)
    if (lw->steps[i].kind == ZN_STEP_CALL) note = lw->mod->funcs[lw->steps[i].fn]->note;
  zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, note, "needs memory whose size only the run knows, and --no-alloc forbids an allocator");
  lw->failed = true;
}

void zn_plan_heap(zn_lw *lw) {
  for (uint32_t i = 0; i < lw->g->num_outputs; i++) {
    const zn_type *t = zn_lw_type(lw, lw->g->outputs[i]);
    lw->out_heap[i] = UINT32_MAX;
    if (t->kind == ZN_V_TENSOR && unbounded(lw, t)) own_output(lw, i);
  }
  find_births(lw);
  uint32_t n = lw->num_bufs;
  for (uint32_t k = 0; k < n; k++) {
    zn_wsbuf *w = &lw->bufs[k];
    if (w->born == UINT32_MAX || (zn_lw_bound(lw, w->bytes) && !(w->keep && w->in_loop))) continue;
    uint32_t cell = zn_lw_scratch(lw, zn_ex_const(lw->ex, 8)).index;
    lw->bufs[k].heap = true;
    lw->bufs[k].cell = cell;
    if (lw->opts->no_alloc && !lw->failed) refuse(lw, &lw->bufs[k]);
  }
}
