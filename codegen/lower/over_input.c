/* Outputs that may lie over an input: a cache that a run updates (present over past). The caller decides, by giving one
 * address for both; what would be copied then stays where it is. An output qualifies when it begins as a copy of the input
 * (ScatterElements, ScatterND, TensorScatter; a Concat whose first operand it is; the input itself), and nothing that runs
 * with that operator or behind it reads the input. Every other pair at one address is refused by the entries. */
#include "codegen/lower/inplace.h"
#include "codegen/lower/scope.h"

static bool starts_as_copy(const zn_lw *lw, const zn_node *n) {
  const zn_graph *g = lw->g;
  switch (n->op) {
  case ZN_OP_ScatterElements: case ZN_OP_ScatterND: case ZN_OP_TensorScatter: return true;
  case ZN_OP_Concat: {
    const zn_value *y = &g->vals[n->out[0]], *x = &g->vals[n->in[0]];
    return zn_layout_is_plain(&y->layout) && zn_layout_is_plain(&x->layout);
  }
  default: return false;
  }
}

/* Is the input x read by n's first operand alone, and by nothing that runs later? */
static bool read_last_by(const zn_lw *lw, zn_vid x, zn_nid id) {
  const zn_graph *g = lw->g;
  const uint32_t *at = lw->sharing->run_at;
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    for (uint32_t k = 0; k < n->num_in; k++) {
      if (!n->in[k] || zn_sharing_alias_root(g, n->in[k]) != x || (g->order[i] == id && k == 0)) continue;
      bool view = n->num_out == 1 && n->out[0] && g->vals[n->out[0]].alias; /* its readers count, not itself */
      if (!view && at[g->order[i]] >= at[id]) return false;
    }
  }
  for (uint32_t i = 0; i < g->num_outputs; i++)
    if (zn_sharing_alias_root(g, g->outputs[i]) == x) return false;
  return true;
}

/* The number of the input that output o may lie over, plus one; 0: none. */
static uint32_t find(const zn_lw *lw, uint32_t o) {
  const zn_graph *g = lw->g;
  zn_vid root = zn_sharing_alias_root(g, g->outputs[o]), x = root;
  const zn_value *y = &g->vals[root];
  if (y->type.kind != ZN_V_TENSOR || y->type.dtype == ZN_STR) return 0;
  if (!y->is_input) {
    zn_loc at = lw->loc[root];
    if (!y->def || y->def_out != 0 || y->inlined || at.kind != ZN_LOC_OUTPUT || at.index != o) return 0;
    const zn_node *n = &g->nodes[y->def];
    if (!starts_as_copy(lw, n) || g->vals[n->in[0]].inlined || g->vals[n->in[0]].elems) return 0;
    x = zn_sharing_alias_root(g, n->in[0]);
    if (!g->vals[x].is_input || g->vals[x].cst || g->vals[x].content || g->vals[x].num_scaled) return 0;
    if (g->vals[x].type.dtype != y->type.dtype || !read_last_by(lw, x, y->def)) return 0;
  }
  for (uint32_t i = 0; i < g->num_inputs; i++)
    if (g->inputs[i] == x) return i + 1;
  return 0;
}

void zn_over_input_find(zn_lw *lw) {
  const zn_graph *g = lw->g;
  lw->over_input = ZN_ARRAY(lw->arena, uint32_t, g->num_outputs);
  if (lw->caps->simt) return;
  for (uint32_t o = 0; o < g->num_outputs; o++) {
    lw->over_input[o] = find(lw, o);
    for (uint32_t before = 0; before < o; before++)
      if (lw->over_input[before] == lw->over_input[o]) lw->over_input[o] = 0;
  }
}

bool zn_over_input(const zn_lw *lw, zn_loc from, zn_loc to) {
  return lw->over_input && from.kind == ZN_LOC_INPUT && to.kind == ZN_LOC_OUTPUT &&
         lw->over_input[to.index] == from.index + 1;
}

void zn_over_input_if(zn_lw *lw, zn_loc to) {
  zn_lw_push(lw, (zn_step){.kind = ZN_STEP_IF_OVER, .loc = to, .elem = lw->over_input[to.index] - 1});
}

void zn_over_input_else(zn_lw *lw) { zn_lw_push(lw, (zn_step){.kind = ZN_STEP_ELSE}); }

void zn_over_input_end(zn_lw *lw) { zn_lw_push(lw, (zn_step){.kind = ZN_STEP_ENDIF}); }
