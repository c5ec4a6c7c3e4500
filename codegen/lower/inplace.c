/* Results that take over the buffer of an operand. A kernel that emits each element exactly once may write it where it has
 * just read the same element of an operand for the last time: Relu(x) over x, conv + x over x. Then both are one pointer
 * parameter of the kernel, so nothing behind the lowering needs to know.
 *
 * An operand qualifies when everything between it and the result is elementwise and of the result's shape (so its element
 * i is needed for element i of the result only), its storage is an intermediate's, and no kernel behind this one reads it. */
#include "codegen/lower/inplace.h"

bool zn_lw_lies_in(const zn_lw *lw, zn_vid v, zn_vid whole) {
  return !lw->g->vals[v].inlined && lw->sharing->part_of[zn_sharing_alias_root(lw->g, v)] == whole;
}

typedef struct search {
  zn_lw *lw;
  zn_vid result, found;
  zn_vid *elsewhere; /* storage that the kernel reads at other elements too */
  uint32_t num_elsewhere, cap_elsewhere;
} search;

static bool same_shape(const zn_graph *g, zn_vid a, zn_vid b) {
  const zn_type *x = &g->vals[a].type, *y = &g->vals[b].type;
  return x->rank == y->rank && !memcmp(x->dims, y->dims, (size_t)x->rank * sizeof *x->dims);
}

/* The value of each element depends on that element of the inputs of its shape only. */
static bool elementwise(const zn_node *n) {
  return zn_ops[n->op].flags & ZN_OPF_EW || n->op == ZN_OP_Cast || n->op == ZN_OP_Identity;
}

static bool is_candidate(const search *s, zn_vid v) {
  const zn_graph *g = s->lw->g;
  const zn_value *from = &g->vals[v], *to = &g->vals[s->result];
  const zn_sharing *sh = s->lw->sharing;
  zn_vid root = zn_sharing_alias_root(g, v);
  const zn_value *r = &g->vals[root];
  return from->type.dtype == to->type.dtype && !r->cst && !r->is_input && r->def &&
         !memcmp(&from->layout, &to->layout, sizeof to->layout) && !memcmp(&r->layout, &to->layout, sizeof to->layout) &&
         s->lw->loc[root].kind == ZN_LOC_WS && sh->last_use[root] <= sh->position && !sh->part_of[root];
}

/* same: v is needed at the result's own element only. */
static void visit(search *s, zn_vid v, bool same) {
  const zn_graph *g = s->lw->g;
  const zn_value *val = &g->vals[v];
  if (!v || val->cst || zn_value_known(val)) return;
  for (uint32_t i = 0; i < s->lw->num_epilogue; i++) /* finished by this kernel, never loaded */
    if (g->nodes[s->lw->epilogue[i]].out[0] == v) return;
  if (val->def == s->lw->node && val->inlined) return;
  same = same && same_shape(g, v, s->result);
  if (val->inlined) {
    const zn_node *n = &g->nodes[val->def];
    for (uint32_t i = 0; i < n->num_in; i++) visit(s, n->in[i], same && elementwise(n));
    return;
  }
  if (!same) ZN_PUSH(&s->lw->ctx->tmp, s->elsewhere, s->num_elsewhere, s->cap_elsewhere,
                     zn_sharing_root(s->lw->sharing, v));
  else if (!s->found && is_candidate(s, v)) s->found = zn_sharing_alias_root(g, v);
}

void zn_lw_in_place(zn_lw *lw, uint32_t own) {
  const zn_graph *g = lw->g;
  lw->once = true;
  const zn_node *root = zn_lw_node(lw, lw->node);
  zn_vid result = lw->num_epilogue ? g->nodes[lw->epilogue[lw->num_epilogue - 1]].out[0] : root->out[0];
  if (lw->opts->opt_level == 0 || lw->num_epilogue > 1 || (!lw->num_epilogue && root->num_out != 1)) return;
  if (g->vals[result].alias || g->vals[result].inlined || lw->loc[result].kind != ZN_LOC_NONE) return;
  if (lw->sharing->part_of[result]) return;
  if (lw->num_epilogue && !g->vals[root->out[0]].inlined) return;
  search s = {.lw = lw, .result = result};
  for (uint32_t i = 0; i < lw->num_epilogue; i++) {
    const zn_node *n = &g->nodes[lw->epilogue[i]];
    for (uint32_t k = 0; k < n->num_in; k++) visit(&s, n->in[k], true);
  }
  for (uint32_t k = 0; k < root->num_in; k++) visit(&s, root->in[k], own >> (k < 31 ? k : 31) & 1);
  for (uint32_t i = 0; i < s.num_elsewhere && s.found; i++)
    if (s.elsewhere[i] == s.found) s.found = 0;
  if (!s.found) return;
  lw->loc[result] = lw->loc[s.found];
  lw->sharing->took_over[result] = true;
}
