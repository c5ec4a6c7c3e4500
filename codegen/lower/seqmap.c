/* SequenceMap: a loop over the items; the body is lowered in place, its results become items of the new sequences. */
#include "codegen/lower/lists.h"
#include "codegen/lower/scope.h"
#include "runtime/zenith.h"

typedef struct seqmap {
  zn_nid n;
  zn_lscope body;
  uint32_t own;   /* inputs that are not captured */
  zn_expr len, i;
  zn_loc *items;  /* per output */
} seqmap;

static bool is_list(const zn_lw *lw, zn_vid v) { return zn_lw_type(lw, v)->kind == ZN_V_SEQ; }

static zn_vid input(const zn_lw *lw, const seqmap *m, uint32_t k) { return zn_lw_node(lw, m->n)->in[k]; }

/* Body input k := item i of the sequence, or the whole value. */
static void bind_input(zn_lw *lw, seqmap *m, uint32_t k) {
  zn_vid v = input(lw, m, k), in = m->body.g->inputs[k];
  if (!is_list(lw, v)) {
    m->body.loc[in] = zn_lw_source(lw, m->n, v);
    return;
  }
  const zn_type list = *zn_lw_type(lw, v);
  zn_loc from = zn_lw_loc(lw, v);
  zn_lscope old = zn_scope_enter(lw, m->body);
  zn_taken t = zn_ls_prepare(lw, in, &list);
  zn_lw_kernel(lw, 0, "item");
  zn_kref p = zn_lw_ptr_loc(lw, from, ZN_KP_IN, ZN_U64), i = zn_lw_ix(lw, m->i);
  zn_ls_take(lw, &t, zn_ls_item(lw, p, i));
  zn_lw_kernel_end(lw);
  zn_ls_finish(lw, 0, &t);
  zn_scope_enter(lw, old);
}

static void put_result(zn_lw *lw, seqmap *m, uint32_t k) {
  zn_vid from = m->body.g->outputs[k];
  if (!zn_lw_node(lw, m->n)->out[k]) return;
  zn_lscope old = zn_scope_enter(lw, m->body);
  zn_held held = zn_ls_hold(lw, 0, from);
  zn_scope_enter(lw, old);
  zn_lw_kernel(lw, m->n, "put");
  zn_kref to = zn_lw_ptr_loc(lw, m->items[k], ZN_KP_OUT, ZN_U64), i = zn_lw_ix(lw, m->i);
  zn_ls_put(lw, zn_ls_at(lw, to, i), &held);
  zn_lw_kernel_end(lw);
}

/* The sequences are as long as the first. */
static void check_lengths(zn_lw *lw, seqmap *m) {
  m->len = zn_ls_len(lw, m->n, input(lw, m, 0));
  for (uint32_t k = 1; k < m->own; k++) {
    zn_vid v = input(lw, m, k);
    if (!v || !is_list(lw, v)) continue;
    zn_expr other = zn_ls_len(lw, m->n, v);
    if (other != m->len)
      zn_lw_push(lw, (zn_step){.kind = ZN_STEP_REQUIRE, .a = other, .b = m->len, .code = ZN_RUN_SHAPE});
  }
}

zn_status zn_lower_sequence_map(zn_lw *lw, zn_nid n);
zn_status zn_lower_sequence_map(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_graph *g = zn_node_graph(node, "body");
  uint32_t outs = node->num_out;
  seqmap m = {.n = n, .body = zn_scope_new(lw, g), .own = node->num_in - node->num_captures};
  ZN_TRY(zn_scope_check(lw, n, g));
  check_lengths(lw, &m);
  m.items = ZN_ARRAY(lw->arena, zn_loc, outs + 1);
  for (uint32_t k = 0; k < outs; k++) {
    zn_vid y = zn_lw_node(lw, n)->out[k];
    if (!y) continue;
    m.items[k] = zn_lw_keep(lw, zn_ex_muli(lw->ex, m.len, ZN_TENSOR_BYTES));
    zn_lw_kernel(lw, n, "sequence");
    zn_kref to = zn_lw_ptr_loc(lw, m.items[k], ZN_KP_OUT, ZN_U64), len = zn_lw_ix(lw, m.len);
    zn_ls_write_list(lw, zn_ls_ptr(lw, y, ZN_KP_OUT), to, len, zn_lw_code(zn_lw_type(lw, y)));
    zn_lw_kernel_end(lw);
    zn_ls_know_len(lw, y, m.len);
  }
  zn_scope_captures(lw, n, m.body, m.own);
  m.i = zn_ex_sym(lw->ex, zn_arena_printf(lw->arena, "%s#%u", g->name, lw->num_steps), 0, INT64_MAX);
  zn_lw_push(lw, (zn_step){.kind = ZN_STEP_LOOP, .a = m.len, .sym = m.i});
  for (uint32_t k = 0; k < m.own; k++)
    if (input(lw, &m, k)) bind_input(lw, &m, k);
  ZN_TRY(zn_scope_lower(lw, m.body));
  for (uint32_t k = 0; k < outs; k++) put_result(lw, &m, k);
  zn_lw_push(lw, (zn_step){.kind = ZN_STEP_ENDLOOP, .sym = m.i});
  return ZN_OK;
}
