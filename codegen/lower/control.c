/* If, Loop and Scan. Bodies are lowered in place, between IF/ELSE and LOOP steps of the program; values that they capture
 * are the outer ones' storage. Carried values live in buffers of their own: copied in before the loop, replaced at the end
 * of every iteration, copied out behind it. Sizes that differ between branches or iterations are symbols, set here. */
#include <assert.h>
#include <string.h>

#include "codegen/lower/lists.h"
#include "codegen/lower/scope.h"

zn_lscope zn_scope_enter(zn_lw *lw, zn_lscope s) {
  zn_lscope old = {lw->g, lw->loc};
  lw->g = s.g;
  lw->loc = s.loc;
  return old;
}

zn_lscope zn_scope_new(zn_lw *lw, zn_graph *body) {
  return (zn_lscope){body, ZN_ARRAY(lw->arena, zn_loc, body->num_vals)};
}

static bool has_storage(const zn_type *t) {
  return t->kind != ZN_V_TENSOR || (t->dtype != ZN_NONE && t->rank >= 0);
}

zn_status zn_scope_check(zn_lw *lw, zn_nid n, const zn_graph *body) {
  const zn_node *node = zn_lw_node(lw, n);
  bool ok = true;
  for (uint32_t i = 0; i < node->num_in; i++) ok &= !node->in[i] || has_storage(zn_lw_type(lw, node->in[i]));
  for (uint32_t i = 0; i < node->num_out; i++) ok &= !node->out[i] || has_storage(zn_lw_type(lw, node->out[i]));
  for (uint32_t i = 0; i < body->num_outputs; i++) ok &= has_storage(&body->vals[body->outputs[i]].type);
  if (ok) return ZN_OK;
  return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, node),
                 "carries tensors of unknown rank or type; that cannot be compiled yet");
}

/* Body value v (current when its steps run) to storage `to` of a value of that type. */
static void give(zn_lw *lw, zn_nid n, zn_lscope body, zn_vid v, const zn_type *type, zn_loc to) {
  zn_lscope old = zn_scope_enter(lw, body);
  zn_loc from = zn_lw_source(lw, 0, v);
  zn_scope_enter(lw, old);
  zn_ls_convert(lw, n, &body.g->vals[v].type, from, type, to);
}

/* The same to element `first` on. */
static void put(zn_lw *lw, zn_nid n, zn_lscope body, zn_vid v, zn_loc to, zn_expr first) {
  zn_lscope old = zn_scope_enter(lw, body);
  zn_loc from = zn_lw_source(lw, 0, v);
  zn_scope_enter(lw, old);
  zn_lw_copy_at(lw, n, &body.g->vals[v].type, from, to, first);
}

void zn_scope_captures(zn_lw *lw, zn_nid n, zn_lscope body, uint32_t own) {
  const zn_node *node = zn_lw_node(lw, n);
  uint32_t nc = node->num_captures;
  for (uint32_t i = 0; i < nc; i++) {
    zn_vid v = zn_lw_node(lw, n)->in[node->num_in - nc + i];
    if (v) body.loc[body.g->inputs[own + i]] = zn_lw_source(lw, n, v);
    node = zn_lw_node(lw, n);
  }
}

zn_status zn_scope_lower(zn_lw *lw, zn_lscope body) {
  zn_lscope old = zn_scope_enter(lw, body);
  for (uint32_t i = 0; i < body.g->num_inputs; i++) zn_lw_define_content(lw, body.g->inputs[i]);
  zn_status st = zn_lower_nodes(lw);
  zn_scope_enter(lw, old);
  return st;
}

/* Dimensions of `out` from axis `at` on that are symbols of their own take the sizes of t. */
static void set_dims(zn_lw *lw, const zn_type *out, int at, const zn_type *t) {
  if (t->kind != ZN_V_TENSOR || out->kind != ZN_V_TENSOR) return;
  for (int d = 0; d < t->rank; d++) {
    int o = at < 0 || d < at ? d : d + 1;
    if (out->dims[o] != t->dims[d] && zn_ex_kind(lw->ex, out->dims[o]) == ZN_EX_SYM)
      zn_lw_set_sym(lw, out->dims[o], t->dims[d]);
  }
}

/* ---------------------------------------------------------------- If */

static zn_status branch(zn_lw *lw, zn_nid n, zn_lscope body) {
  ZN_TRY(zn_scope_lower(lw, body));
  for (uint32_t i = 0; i < zn_lw_node(lw, n)->num_out; i++) {
    zn_vid out = zn_lw_node(lw, n)->out[i], from = body.g->outputs[i];
    if (!out) continue;
    const zn_type t = *zn_lw_type(lw, out);
    set_dims(lw, &t, -1, &body.g->vals[from].type);
    zn_lw_grow(lw, zn_lw_loc(lw, out), zn_lw_bytes(lw, &body.g->vals[from].type), ZN_EX_NONE);
    give(lw, n, body, from, &t, zn_lw_loc(lw, out));
  }
  return ZN_OK;
}

/* Decided after the pass that inlines such branches: the other branch has no types (infer_control.c). */
static zn_status only_branch(zn_lw *lw, zn_nid n, zn_graph *body) {
  zn_lscope s = zn_scope_new(lw, body);
  ZN_TRY(zn_scope_check(lw, n, s.g));
  zn_scope_captures(lw, n, s, 0);
  return branch(lw, n, s);
}

static zn_status if_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  int64_t decided;
  uint32_t m;
  if (zn_value_i64s(lw->g, node->in[0], &decided, 1, &m) && m == 1)
    return only_branch(lw, n, zn_node_graph(node, decided ? "then_branch" : "else_branch"));
  zn_lscope then = zn_scope_new(lw, zn_node_graph(node, "then_branch"));
  zn_lscope other = zn_scope_new(lw, zn_node_graph(node, "else_branch"));
  ZN_TRY(zn_scope_check(lw, n, then.g));
  ZN_TRY(zn_scope_check(lw, n, other.g));
  zn_loc cond = zn_lw_source(lw, n, node->in[0]);
  zn_scope_captures(lw, n, then, 0);
  zn_scope_captures(lw, n, other, 0);
  zn_lw_push(lw, (zn_step){.kind = ZN_STEP_IF, .loc = cond});
  ZN_TRY(branch(lw, n, then));
  zn_lw_push(lw, (zn_step){.kind = ZN_STEP_ELSE});
  ZN_TRY(branch(lw, n, other));
  zn_lw_push(lw, (zn_step){.kind = ZN_STEP_ENDIF});
  return ZN_OK;
}
const zn_lower zn_lower_if_ = {NULL, if_kernel};

/* ---------------------------------------------------------------- carried values */

static zn_vid storage_root(const zn_graph *g, zn_vid v) {
  while (g->vals[v].alias) v = g->vals[v].alias;
  return v;
}

typedef struct carried { /* states first_in .. of the body's inputs, first_out .. of its outputs */
  zn_lscope body;
  uint32_t num, first_in, first_out;
  zn_loc *at, *spare;
} carried;

static const zn_type *state_type(const carried *c, uint32_t i) {
  return &c->body.g->vals[c->body.g->inputs[c->first_in + i]].type;
}

static void start_states(zn_lw *lw, zn_nid n, carried *c, uint32_t first_value) {
  c->at = ZN_ARRAY(lw->arena, zn_loc, c->num + 1);
  c->spare = ZN_ARRAY(lw->arena, zn_loc, c->num + 1);
  for (uint32_t i = 0; i < c->num; i++) {
    zn_vid v = zn_lw_node(lw, n)->in[first_value + i];
    const zn_type init = *zn_lw_type(lw, v);
    zn_loc from = zn_lw_source(lw, n, v);
    c->at[i] = zn_lw_scratch(lw, zn_lw_bytes(lw, state_type(c, i)));
    set_dims(lw, state_type(c, i), -1, &init);
    zn_lw_grow(lw, c->at[i], zn_lw_bytes(lw, &init), ZN_EX_NONE);
    zn_ls_convert(lw, n, &init, from, state_type(c, i), c->at[i]);
    c->body.loc[c->body.g->inputs[c->first_in + i]] = c->at[i];
  }
}

/* New states that are other body inputs (an exchange) are set aside before anything is overwritten. */
static void set_aside(zn_lw *lw, zn_nid n, carried *c) {
  zn_graph *g = c->body.g;
  for (uint32_t i = 0; i < c->num; i++) {
    zn_vid o = g->outputs[c->first_out + i];
    c->spare[i] = (zn_loc){ZN_LOC_NONE, 0};
    if (!g->vals[storage_root(g, o)].is_input || o == g->inputs[c->first_in + i]) continue;
    c->spare[i] = zn_lw_scratch(lw, zn_lw_bytes(lw, &g->vals[o].type));
    put(lw, n, c->body, o, c->spare[i], zn_ex_const(lw->ex, 0));
  }
}

static void next_states(zn_lw *lw, zn_nid n, carried *c) {
  zn_graph *g = c->body.g;
  zn_exprs *ex = lw->ex;
  for (uint32_t i = 0; i < c->num; i++) {
    zn_vid o = g->outputs[c->first_out + i];
    if (o == g->inputs[c->first_in + i]) continue;
    zn_lw_grow(lw, c->at[i], zn_lw_bytes(lw, &g->vals[o].type), ZN_EX_NONE);
    if (c->spare[i].kind != ZN_LOC_NONE)
      zn_ls_convert(lw, n, &g->vals[o].type, c->spare[i], state_type(c, i), c->at[i]);
    else
      give(lw, n, c->body, o, state_type(c, i), c->at[i]);
  }
  zn_expr *sym = NULL, *tmp = NULL; /* sizes change all at once */
  uint32_t num = 0, cap = 0, num_tmp = 0, cap_tmp = 0;
  for (uint32_t i = 0; i < c->num; i++) {
    const zn_type *in = state_type(c, i), *out = &g->vals[g->outputs[c->first_out + i]].type;
    for (int d = 0; in->kind == ZN_V_TENSOR && d < in->rank; d++) {
      if (in->dims[d] == out->dims[d] || zn_ex_kind(ex, in->dims[d]) != ZN_EX_SYM) continue;
      zn_expr t = zn_ex_var(ex, "next", ZN_EX_NONE);
      zn_lw_set_sym(lw, t, out->dims[d]);
      ZN_PUSH(lw->arena, sym, num, cap, in->dims[d]);
      ZN_PUSH(lw->arena, tmp, num_tmp, cap_tmp, t);
    }
  }
  for (uint32_t k = 0; k < num; k++) zn_lw_set_sym(lw, sym[k], tmp[k]);
}

static void finish_states(zn_lw *lw, zn_nid n, const carried *c) {
  for (uint32_t i = 0; i < c->num; i++) {
    zn_vid out = zn_lw_node(lw, n)->out[i];
    if (!out) continue;
    const zn_type t = *zn_lw_type(lw, out);
    set_dims(lw, &t, -1, state_type(c, i));
    zn_ls_convert(lw, n, state_type(c, i), c->at[i], &t, zn_lw_loc(lw, out));
  }
}

/* Sizes of stacked outputs before the first iteration; axis is where the iterations go. */
static void clear_dims(zn_lw *lw, const zn_type *out, const zn_type *slice, int axis) {
  for (int d = 0; d < slice->rank; d++) {
    zn_expr o = out->dims[d < axis ? d : d + 1];
    if (o != slice->dims[d] && zn_ex_kind(lw->ex, o) == ZN_EX_SYM)
      zn_lw_set_sym(lw, o, zn_ex_const(lw->ex, 0));
  }
}

/* ---------------------------------------------------------------- Loop */

static zn_status trip_count(zn_lw *lw, zn_nid n, zn_expr *out) {
  zn_vid m = zn_node_in(zn_lw_node(lw, n), 0);
  *out = ZN_EX_NONE;
  if (!m) return ZN_OK;
  const zn_value *v = &lw->g->vals[m];
  int64_t c;
  uint32_t k;
  if (zn_value_i64s(lw->g, m, &c, 1, &k) && k == 1)
    *out = zn_ex_const(lw->ex, c);
  else if (v->elems)
    *out = v->elems[0];
  else if (v->content)
    *out = v->content[0];
  if (*out) return ZN_OK;
  return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, zn_lw_node(lw, n)),
                 "the trip count is not a scalar known to shape inference");
}

/* Kernels of a device count the turns in memory: a recorded run has one launch for all of them. */
static void count_from_zero(zn_lw *lw, zn_loc count) {
  zn_kref p = zn_lw_ptr_loc(lw, count, ZN_KP_OUT, ZN_I64), at = zn_kb_idx(&lw->kb, 0), zero = zn_kb_int(&lw->kb, ZN_I64, 0);
  zn_kb_store(&lw->kb, p, at, zero);
}

static void count_turn(zn_lw *lw, zn_nid n, zn_loc count) {
  zn_lw_kernel(lw, n, "loop_next");
  zn_kb *b = &lw->kb;
  zn_kref p = zn_lw_ptr_loc(lw, count, ZN_KP_INOUT, ZN_I64), at = zn_kb_idx(b, 0), one = zn_kb_int(b, ZN_I64, 1);
  zn_kref k = zn_kb_load(b, ZN_I64, 1, p, at);
  zn_kb_store(b, p, at, zn_kb_bin(b, ZN_K_Add, k, one));
  zn_lw_kernel_end(lw);
}

/* Symbol i counts in memory from here on, if a device may have to. */
static zn_loc counter(zn_lw *lw, zn_graph *g, zn_expr i, zn_expr most, bool data) {
  if (!zn_flow_counts(lw, g, most, data)) return (zn_loc){ZN_LOC_NONE, 0};
  const zn_counter c = {i, zn_lw_scratch(lw, zn_ex_const(lw->ex, 8))};
  ZN_PUSH(lw->arena, lw->counters, lw->num_counters, lw->cap_counters, c);
  return c.at;
}

static void write_cond(zn_lw *lw, zn_nid n, zn_loc to, zn_loc count) {
  zn_lw_kernel(lw, n, "loop_begin");
  zn_kb *b = &lw->kb;
  zn_expr zero = zn_ex_const(lw->ex, 0);
  zn_vid v = zn_node_in(zn_lw_node(lw, n), 1);
  zn_kref c = v ? zn_lw_load(lw, v, &zero) : zn_kb_int(b, ZN_BOOL, 1);
  zn_kref p = zn_lw_ptr_loc(lw, to, ZN_KP_OUT, ZN_BOOL), at = zn_kb_idx(b, 0);
  zn_kb_store(b, p, at, c);
  if (count.kind != ZN_LOC_NONE) count_from_zero(lw, count);
  zn_lw_kernel_end(lw);
}

static bool known_true(const zn_graph *g, zn_vid v) {
  int64_t c;
  uint32_t m;
  return zn_value_i64s(g, v, &c, 1, &m) && m == 1 && c;
}

/* Does no turn end the loop? */
static bool goes_on(const zn_lw *lw, zn_nid n, const zn_graph *body) {
  zn_vid first = zn_node_in(zn_lw_node(lw, n), 1), next = body->outputs[0];
  while (body->vals[next].def && body->nodes[body->vals[next].def].op == ZN_OP_Identity)
    next = body->nodes[body->vals[next].def].in[0];
  return (!first || known_true(lw->g, first)) &&
         (known_true(body, next) || storage_root(body, next) == body->inputs[1]);
}

static void write_iteration(zn_lw *lw, zn_nid n, zn_expr i, zn_loc to) {
  zn_lw_kernel(lw, n, "loop_index");
  zn_kb *b = &lw->kb;
  zn_kref k = zn_kb_cvt(b, zn_lw_ix(lw, i), ZN_I64);
  zn_kref p = zn_lw_ptr_loc(lw, to, ZN_KP_OUT, ZN_I64), at = zn_kb_idx(b, 0);
  zn_kb_store(b, p, at, k);
  zn_lw_kernel_end(lw);
}

/* A stacked output that only the model's declaration bounds: no iteration may write behind it. */
static void within_declared(zn_lw *lw, zn_expr rows, zn_expr now, zn_expr trips) {
  int64_t lo, hi;
  zn_ex_range(lw->ex, rows, &lo, &hi);
  if (rows != trips && hi < INT32_MAX && zn_ex_kind(lw->ex, rows) == ZN_EX_SYM && !zn_ex_extent(lw->ex, rows))
    zn_lw_require_le(lw, now, zn_ex_const(lw->ex, hi));
}

static zn_status loop_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  zn_graph *g = zn_node_graph(node, "body");
  uint32_t ins = node->num_in - node->num_captures, outs = node->num_out;
  carried c = {.body = zn_scope_new(lw, g), .num = ins > 2 ? ins - 2 : 0, .first_in = 2, .first_out = 1};
  ZN_TRY(zn_scope_check(lw, n, g));
  zn_expr trips, zero = zn_ex_const(ex, 0);
  ZN_TRY(trip_count(lw, n, &trips));
  zn_expr i = zn_ex_sym(ex, zn_arena_printf(lw->arena, "%s#%u", g->name, lw->num_steps), 0, INT64_MAX);
  const bool data = !goes_on(lw, n, g);
  zn_loc cond = zn_lw_scratch(lw, zn_ex_const(ex, 1)), count = counter(lw, g, i, trips, data);
  const bool counts = count.kind != ZN_LOC_NONE;
  zn_loc iter = counts ? count : zn_lw_scratch(lw, zn_ex_const(ex, 8)), none = {ZN_LOC_NONE, 0};
  write_cond(lw, n, cond, count);
  zn_scope_captures(lw, n, c.body, 2 + c.num);
  start_states(lw, n, &c, 2);
  c.body.loc[g->inputs[0]] = iter;
  c.body.loc[g->inputs[1]] = cond;
  for (uint32_t k = c.num; k < outs; k++) {
    zn_vid out = zn_lw_node(lw, n)->out[k];
    if (!out) continue;
    clear_dims(lw, zn_lw_type(lw, out), &g->vals[g->outputs[1 + k]].type, 0);
    zn_lw_grow(lw, zn_lw_loc(lw, out), zero, ZN_EX_NONE);
  }
  zn_lw_push(lw, (zn_step){.kind = ZN_STEP_LOOP, .a = trips, .loc = data ? cond : none, .count = count, .sym = i});
  if (!counts) write_iteration(lw, n, i, iter);
  ZN_TRY(zn_scope_lower(lw, c.body));
  set_aside(lw, n, &c);
  for (uint32_t k = c.num; k < outs; k++) {
    zn_vid out = zn_lw_node(lw, n)->out[k], from = g->outputs[1 + k];
    if (!out) continue;
    const zn_type *slice = &g->vals[from].type;
    within_declared(lw, zn_lw_dim(lw, out, 0), zn_ex_addi(ex, i, 1), trips);
    set_dims(lw, zn_lw_type(lw, out), 0, slice);
    zn_expr first = zn_ex_mul(ex, i, zn_type_count(ex, slice)), bytes = zn_lw_bytes(lw, slice);
    zn_expr used = zn_ex_mul(ex, i, bytes);
    zn_lw_grow(lw, zn_lw_loc(lw, out), zn_ex_add(ex, used, bytes), used);
    put(lw, n, c.body, from, zn_lw_loc(lw, out), first);
  }
  if (g->outputs[0] != g->inputs[1]) put(lw, n, c.body, g->outputs[0], cond, zero);
  next_states(lw, n, &c);
  if (counts) count_turn(lw, n, count);
  zn_lw_push(lw, (zn_step){.kind = ZN_STEP_ENDLOOP, .sym = i});
  for (uint32_t k = c.num; k < outs; k++) {
    zn_vid out = zn_lw_node(lw, n)->out[k];
    if (!out) continue;
    zn_expr rows = zn_lw_dim(lw, out, 0);
    if (zn_ex_kind(ex, rows) == ZN_EX_SYM && rows != trips) zn_lw_set_sym(lw, rows, i);
  }
  finish_states(lw, n, &c);
  return ZN_OK;
}
const zn_lower zn_lower_loop = {NULL, loop_kernel};

/* ---------------------------------------------------------------- Scan */

typedef struct scan {
  carried c;
  uint32_t num_in, num_out; /* scan inputs and outputs */
  zn_expr len, i;
  zn_loc *slices;
} scan;

static int64_t list_at(const zn_node *n, const char *name, uint32_t i) {
  uint32_t count;
  const int64_t *v = zn_node_ints(n, name, &count);
  return v && i < count ? v[i] : 0;
}

static int scan_axis(const zn_node *n, const char *name, uint32_t i, int rank) {
  int64_t a = list_at(n, name, i);
  return (int)(a < 0 ? a + rank : a);
}

static zn_expr scan_pos(zn_lw *lw, const scan *s, const zn_node *n, const char *directions, uint32_t k) {
  if (!list_at(n, directions, k)) return s->i;
  return zn_ex_sub(lw->ex, zn_ex_addi(lw->ex, s->len, -1), s->i);
}

/* Body input k of the scan inputs := slice number i of the node's. */
static void take_slice(zn_lw *lw, zn_nid n, scan *s, uint32_t k) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid x = node->in[s->c.num + k];
  const zn_type t = *zn_lw_type(lw, x);
  zn_dtype dt = (zn_dtype)t.dtype;
  int axis = scan_axis(node, "scan_input_axes", k, t.rank);
  zn_expr idx[ZN_MAX_RANK], flat = zn_ex_const(lw->ex, 0);
  zn_expr pos = scan_pos(lw, s, node, "scan_input_directions", k);
  zn_lw_kernel(lw, n, "scan_slice");
  int last = axis == t.rank - 1 ? t.rank - 2 : t.rank - 1;
  for (int d = 0; d < t.rank; d++) {
    if (d == axis) continue;
    idx[d] = zn_lw_for(lw, t.dims[d], d == last ? ZN_FOR_VECTOR : ZN_FOR_SERIAL, 0);
    flat = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, flat, t.dims[d]), idx[d]);
  }
  idx[axis] = pos;
  zn_kref v = zn_lw_load(lw, x, idx), p = zn_lw_ptr_loc(lw, s->slices[k], ZN_KP_OUT, dt);
  zn_lw_store_at(lw, p, dt, flat, v);
  for (int d = 0; d < t.rank - 1; d++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

/* Slice number i of scan output k := the body's output. */
static void give_slice(zn_lw *lw, zn_nid n, scan *s, uint32_t k) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid y = node->out[s->c.num + k], from = s->c.body.g->outputs[s->c.num + k];
  if (!y) return;
  const zn_type t = *zn_lw_type(lw, y), slice = s->c.body.g->vals[from].type;
  zn_dtype dt = (zn_dtype)t.dtype;
  int axis = scan_axis(node, "scan_output_axes", k, t.rank);
  zn_expr pos = scan_pos(lw, s, node, "scan_output_directions", k);
  set_dims(lw, &t, axis, &slice);
  zn_lw_grow(lw, zn_lw_loc(lw, y), zn_lw_bytes(lw, &t), ZN_EX_NONE);
  if (axis == 0) {
    const zn_expr each = zn_type_count(lw->ex, &slice), first = zn_ex_mul(lw->ex, pos, each);
    put(lw, n, s->c.body, from, zn_lw_loc(lw, y), first);
    return;
  }
  zn_lscope old = zn_scope_enter(lw, s->c.body);
  zn_loc at = zn_lw_source(lw, 0, from);
  zn_scope_enter(lw, old);
  zn_expr idx[ZN_MAX_RANK], flat = zn_ex_const(lw->ex, 0);
  zn_lw_kernel(lw, n, "scan_stack");
  for (int d = 0, e = 0; d < t.rank; d++) {
    if (d == axis) continue;
    idx[d] = zn_lw_for(lw, slice.dims[e], ZN_FOR_SERIAL, 0);
    flat = zn_ex_add(lw->ex, zn_ex_mul(lw->ex, flat, slice.dims[e++]), idx[d]);
  }
  idx[axis] = pos;
  zn_kref x = zn_lw_load_at(lw, zn_lw_ptr_loc(lw, at, ZN_KP_IN, dt), dt, flat);
  zn_lw_store(lw, y, idx, x);
  for (int d = 0; d < t.rank - 1; d++) zn_lw_end(lw);
  zn_lw_kernel_end(lw);
}

static void scan_inputs(zn_lw *lw, zn_nid n, scan *s) {
  zn_graph *g = s->c.body.g;
  s->slices = ZN_ARRAY(lw->arena, zn_loc, s->num_in + 1);
  for (uint32_t k = 0; k < s->num_in; k++) {
    const zn_node *node = zn_lw_node(lw, n);
    const zn_type *t = zn_lw_type(lw, node->in[s->c.num + k]);
    zn_expr len = t->dims[scan_axis(node, "scan_input_axes", k, t->rank)];
    if (!s->len) s->len = len;
    if (len != s->len)
      zn_lw_push(lw, (zn_step){.kind = ZN_STEP_REQUIRE, .a = len, .b = s->len, .code = 3 /* ZN_RUN_SHAPE */});
    zn_vid in = g->inputs[s->c.num + k];
    s->slices[k] = zn_lw_scratch(lw, zn_lw_bytes(lw, &g->vals[in].type));
    s->c.body.loc[in] = s->slices[k];
  }
}

static zn_status scan_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_graph *g = zn_node_graph(node, "body");
  scan s = {.num_in = (uint32_t)zn_node_int(node, "num_scan_inputs")};
  uint32_t ins = node->num_in - node->num_captures;
  s.c = (carried){.body = zn_scope_new(lw, g), .num = ins - s.num_in};
  s.num_out = node->num_out - s.c.num;
  ZN_TRY(zn_scope_check(lw, n, g));
  scan_inputs(lw, n, &s);
  s.i = zn_ex_var(lw->ex, g->name, s.len);
  zn_scope_captures(lw, n, s.c.body, ins);
  start_states(lw, n, &s.c, 0);
  for (uint32_t k = 0; k < s.num_out; k++) {
    zn_vid y = zn_lw_node(lw, n)->out[s.c.num + k];
    if (!y) continue;
    const zn_type *t = zn_lw_type(lw, y);
    int axis = scan_axis(zn_lw_node(lw, n), "scan_output_axes", k, t->rank);
    clear_dims(lw, t, &g->vals[g->outputs[s.c.num + k]].type, axis);
  }
  zn_loc count = counter(lw, g, s.i, s.len, false);
  const bool counts = count.kind != ZN_LOC_NONE;
  if (counts) {
    zn_lw_kernel(lw, n, "loop_begin");
    count_from_zero(lw, count);
    zn_lw_kernel_end(lw);
  }
  zn_lw_push(lw, (zn_step){.kind = ZN_STEP_LOOP, .a = s.len, .count = count, .sym = s.i});
  for (uint32_t k = 0; k < s.num_in; k++) take_slice(lw, n, &s, k);
  ZN_TRY(zn_scope_lower(lw, s.c.body));
  set_aside(lw, n, &s.c);
  for (uint32_t k = 0; k < s.num_out; k++) give_slice(lw, n, &s, k);
  next_states(lw, n, &s.c);
  if (counts) count_turn(lw, n, count);
  zn_lw_push(lw, (zn_step){.kind = ZN_STEP_ENDLOOP, .sym = s.i});
  finish_states(lw, n, &s.c);
  return ZN_OK;
}
const zn_lower zn_lower_scan = {NULL, scan_kernel};
