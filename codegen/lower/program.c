/* The module side of lowering: which nodes become kernels, in which order, with which buffers; then the memory plan
 * (plan.c) and the two entry functions (entry.c). */
#include <assert.h>

#include "codegen/lower/deferred.h"
#include "codegen/lower/inplace.h"
#include "codegen/lower/program.h"
#include "codegen/lower/strvalue.h"
#include "runtime/zenith.h"

static const zn_lower *const table[ZN_OP_COUNT] = {
    &zn_lower_none,
#define OP(name, domain, since, schema, infer, eval, expand, lower, flags) &zn_lower_##lower,
#include "zenithc/ops/ops.def"
#undef OP
};

const zn_lower *zn_lower_of(zn_op op) { return table[op]; }

/* Nothing of this node needs code: every output is dead, inlined, an alias or known shape arithmetic. */
static bool is_silent(const zn_graph *g, const zn_node *n) {
  for (uint32_t i = 0; i < n->num_out; i++) {
    const zn_value *v = &g->vals[n->out[i]];
    if (!n->out[i] || v->alias || v->inlined) continue;
    if (zn_value_known(v) && !v->is_output) continue;
    return false;
  }
  return true;
}

typedef struct missing {
  const char *op, *node;
  uint32_t count;
} missing;

static void check_supported(zn_lw *lw) {
  const zn_graph *g = lw->g;
  missing *list = NULL;
  uint32_t num = 0, cap = 0;
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    const zn_lower *l = zn_lower_of(n->op);
    if (l->point || l->kernel || is_silent(g, n)) continue;
    uint32_t k = 0;
    while (k < num && strcmp(list[k].op, zn_op_name(n->op)) != 0) k++;
    if (k < num) {
      list[k].count++;
      continue;
    }
    missing m = {zn_op_name(n->op), n->name, 1};
    ZN_PUSH(lw->arena, list, num, cap, m);
  }
  for (uint32_t k = 0; k < num; k++)
    zn_error(lw->ctx, NULL, "operator %s (%u node%s, first '%s') cannot be compiled yet", list[k].op,
             list[k].count, list[k].count == 1 ? "" : "s", list[k].node);
  if (num) {
    zn_help(lw->ctx, "`zenithc ops` lists what each target can do");
    lw->failed = true;
  }
}

static zn_status lower_group(zn_lw *lw, zn_nid n) {
  zn_nid root = lw->g->nodes[n].group ? lw->g->nodes[n].group : n;
  const zn_node *node = zn_lw_node(lw, root);
  bool takes = node->op == ZN_OP_LayerNormalization || node->op == ZN_OP_RMSNormalization;
  if (lw->deferred && !(takes && node->in[0] == lw->deferred->result)) zn_deferred_flush(lw);
  zn_lw_side(lw, zn_side_of_group(lw, root));
  const zn_lower *l = zn_lower_of(node->op);
  if (l->kernel) return l->kernel(lw, root);
  for (uint32_t i = 0; i < zn_lw_node(lw, root)->num_out; i++) {
    zn_vid v = zn_lw_node(lw, root)->out[i];
    if (!v) continue;
    const zn_value *val = &lw->g->vals[v];
    if (node->op == ZN_OP_Split && zn_lw_lies_in(lw, v, node->in[0])) continue;
    if (node->op == ZN_OP_Slice && zn_lw_is_window(lw, root)) continue;
    if (val->inlined || val->alias || (zn_value_known(val) && !val->is_output)) continue;
    ZN_TRY(zn_lower_value_map(lw, root, v));
  }
  return ZN_OK;
}

zn_status zn_lower_nodes(zn_lw *lw) {
  check_supported(lw);
  if (lw->failed) return ZN_ERR_UNSUPPORTED;
  zn_sharing *outer = lw->sharing;
  const bool *outer_host = lw->host_values, was_host = zn_lw_side(lw, false);
  lw->sharing = zn_sharing_find(lw, lw->g);
  lw->host_values = zn_side_values(lw);
  if (!outer) zn_over_input_find(lw);
  for (uint32_t i = 0; i < lw->g->num_order; i++) {
    zn_nid n = lw->g->order[i];
    lw->sharing->position = i;
    zn_lower_require(lw, n);
    if (!is_silent(lw->g, zn_lw_node(lw, n))) {
      ZN_TRY(lower_group(lw, n));
      for (uint32_t k = 0; k < zn_lw_node(lw, n)->num_out; k++) /* an operand's halo is clear already */
        if (!lw->sharing->took_over[zn_lw_node(lw, n)->out[k]]) zn_lw_clear_halo(lw, n, zn_lw_node(lw, n)->out[k]);
      zn_lw_side(lw, false);
    }
    for (uint32_t k = 0; k < zn_lw_node(lw, n)->num_out; k++)
      if (zn_lw_node(lw, n)->out[k]) zn_lw_define_content(lw, zn_lw_node(lw, n)->out[k]);
  }
  zn_deferred_flush(lw);
  lw->sharing = outer;
  lw->host_values = outer_host;
  zn_lw_side(lw, was_host);
  return ZN_OK;
}

/* Graph outputs that are inputs, constants, or the same value twice get a copy kernel; the others are written in place. */
static void copy_to_output(zn_lw *lw, zn_vid v, uint32_t out) {
  zn_lw_copy(lw, lw->g->vals[v].def, zn_lw_type(lw, v), zn_lw_loc(lw, v), (zn_loc){ZN_LOC_OUTPUT, out});
}

static zn_vid alias_root(const zn_graph *g, zn_vid v) {
  while (g->vals[v].alias) v = g->vals[v].alias;
  return v;
}

static void assign_outputs(zn_lw *lw, bool *needs_copy) {
  zn_graph *g = lw->g;
  for (uint32_t i = 0; i < g->num_outputs; i++) {
    zn_vid v = g->outputs[i], root = alias_root(g, v);
    const zn_value *r = &g->vals[root];
    if (lw->loc[root].kind != ZN_LOC_NONE || r->cst || !zn_layout_is_plain(&r->layout)) {
      needs_copy[i] = true;
      continue;
    }
    lw->loc[root] = (zn_loc){ZN_LOC_OUTPUT, i};
  }
}

static const char *dim_text(zn_lw *lw, zn_expr e) {
  if (zn_ex_is_const(lw->ex, e, NULL)) return "";
  zn_text t;
  zn_text_init(&t, lw->arena);
  if (zn_ex_kind(lw->ex, e) == ZN_EX_SYM && zn_ex_def(lw->ex, e)) e = zn_ex_def(lw->ex, e);
  zn_ex_print(lw->ex, e, &t);
  return t.s;
}

static uint32_t list_kind(const zn_type *t) {
  switch (t->kind) {
  case ZN_V_SEQ: return t->of ? ZN_SEQUENCE_OF_MAPS | (uint32_t)zn_dtypes[t->key].onnx << 16 : ZN_SEQUENCE;
  case ZN_V_OPT: return t->of ? ZN_OPTIONAL_SEQUENCE : ZN_OPTIONAL;
  case ZN_V_MAP: return ZN_MAP | (uint32_t)zn_dtypes[t->key].onnx << 16;
  default: return 0;
  }
}

uint32_t zn_lw_code(const zn_type *t) { return list_kind(t) | (uint32_t)zn_dtypes[t->dtype].onnx; }

static zn_kio describe(zn_lw *lw, zn_vid v) {
  const zn_value *val = &lw->g->vals[v];
  if (val->type.kind != ZN_V_TENSOR)
    return (zn_kio){val->name, (zn_dtype)val->type.dtype, 1, {-1}, {""}, list_kind(&val->type), 0};
  zn_kio io = {val->name, (zn_dtype)val->type.dtype, (uint32_t)val->type.rank, {0}, {0}, 0, 0};
  for (int d = 0; d < val->type.rank; d++) {
    if (!zn_ex_is_const(lw->ex, val->type.dims[d], &io.dims[d])) io.dims[d] = -1;
    io.dim_text[d] = dim_text(lw, val->type.dims[d]);
  }
  return io;
}

static void describe_all(zn_lw *lw) {
  zn_graph *g = lw->g;
  zn_kmod *m = lw->mod;
  m->num_inputs = g->num_inputs;
  m->num_outputs = g->num_outputs;
  m->inputs = ZN_ARRAY(lw->arena, zn_kio, g->num_inputs);
  m->outputs = ZN_ARRAY(lw->arena, zn_kio, g->num_outputs);
  for (uint32_t i = 0; i < g->num_inputs; i++) m->inputs[i] = describe(lw, g->inputs[i]);
  for (uint32_t i = 0; i < g->num_outputs; i++) m->outputs[i] = describe(lw, g->outputs[i]);
}

static zn_status check_interface(zn_lw *lw) {
  zn_graph *g = lw->g;
  for (uint32_t k = 0; k < g->num_inputs + g->num_outputs; k++) {
    const zn_value *v = &g->vals[k < g->num_inputs ? g->inputs[k] : g->outputs[k - g->num_inputs]];
    const char *what = k < g->num_inputs ? "input" : "output";
    if (v->type.kind != ZN_V_TENSOR) continue;
    if (v->type.dtype == ZN_NONE) return zn_error(lw->ctx, NULL, "%s '%s' has an unknown type", what, v->name);
    if (v->type.rank >= 0) continue;
    return zn_error(lw->ctx, NULL, k < g->num_inputs ? "%s '%s' has an unknown rank: give it with --shape"
                                                     : "%s '%s' has a rank that the run decides: declare its shape in the model, "
                                                       "and a run that gives another rank is refused", what, v->name);
  }
  return ZN_OK;
}

static bool has_bands(const zn_graph *g) {
  for (zn_vid v = 1; v < g->num_vals; v++)
    if (g->vals[v].within) return true;
  return false;
}

zn_status zn_lower_graph(zn_ctx *c, zn_graph *g, const zn_caps *caps, const zn_lower_opts *o,
                         const char *name, zn_kmod **out, zn_plan_stats *out_stats) {
  zn_lw *lw = ZN_NEW(&c->graph, zn_lw);
  lw->ctx = c;
  lw->arena = &c->graph;
  lw->g = g;
  lw->ex = g->ex;
  zn_ex_divide_totally(lw->ex);
  lw->caps = lw->device_caps = caps;
  lw->opts = o;
  lw->err_buf = UINT32_MAX;
  lw->mod = zn_kmod_new(lw->arena, name);
  lw->mod->provenance = o->provenance;
  ZN_TRY(check_interface(lw));
  lw->loc = ZN_ARRAY(lw->arena, zn_loc, g->num_vals);
  for (uint32_t i = 0; i < g->num_inputs; i++) lw->loc[g->inputs[i]] = (zn_loc){ZN_LOC_INPUT, i};
  lw->out_heap = ZN_ARRAY(lw->arena, uint32_t, g->num_outputs);
  bool *needs_copy = ZN_ARRAY(lw->arena, bool, g->num_outputs);
  assign_outputs(lw, needs_copy);
  ZN_TRY(zn_lower_nodes(lw));
  for (uint32_t i = 0; i < g->num_outputs; i++)
    if (needs_copy[i]) copy_to_output(lw, g->outputs[i], i);
  zn_lw_side(lw, true);
  zn_lw_make_tables(lw);
  zn_lw_side(lw, false);
  describe_all(lw);
  if (o->opt_level > 1) zn_lower_together(lw);
  if (o->opt_level > 0) zn_lower_dedupe(lw);
  zn_plan_heap(lw);
  for (uint32_t i = 0; i < g->num_outputs; i++)
    if (lw->out_heap[i] == UINT32_MAX) lw->mod->outputs[i].over = lw->over_input[i];
  zn_lower_costs(lw);
  zn_plan_stats stats = {0};
  zn_plan plan = zn_plan_memory(lw, &stats);
  zn_entry_build(lw, &plan);
  if (has_bands(g)) zn_kmod_unite(&lw->mod, 1, lw->arena); /* every band packed its weights */
  zn_sides_report(lw);
  if (lw->failed) return ZN_ERR_UNSUPPORTED;
  if (out_stats) *out_stats = stats;
  *out = lw->mod;
  return ZN_OK;
}
