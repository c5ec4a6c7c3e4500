/* LinearAttention: the recurrence over tokens, one key/value head per grid step, lanes along the value features. The state
 * [keys][values] and one row of corrections live in scratch. */
#include <math.h>
#include <string.h>

#include "codegen/lower/gemm.h"

typedef struct linattn {
  zn_vid q, k, v, past, decay, beta, y, present;
  zn_expr heads, group, dk, dv, tokens; /* key/value heads, query heads of each */
  zn_dtype ct;
  bool gated, delta;
  double scale;
  zn_loc state, row;
  zn_expr b, h, t; /* where the kernel is */
} linattn;

static zn_kref state_ptr(zn_lw *lw, const linattn *s) {
  return zn_lw_ptr_loc(lw, s->state, ZN_KP_INOUT, s->ct);
}

static zn_expr state_at(zn_lw *lw, const linattn *s, zn_expr i, zn_expr j) {
  zn_exprs *ex = lw->ex;
  zn_expr cell = zn_ex_add(ex, zn_ex_mul(ex, s->b, s->heads), s->h);
  cell = zn_ex_add(ex, zn_ex_mul(ex, cell, s->dk), i);
  return zn_ex_add(ex, zn_ex_mul(ex, cell, s->dv), j);
}

static zn_kref load_state(zn_lw *lw, const linattn *s, zn_expr i, zn_expr j) {
  const zn_expr at = state_at(lw, s, i, j);
  return zn_lw_load_at(lw, state_ptr(lw, s), s->ct, at);
}

static void store_state(zn_lw *lw, const linattn *s, zn_expr i, zn_expr j, zn_kref k) {
  const zn_expr at = state_at(lw, s, i, j);
  zn_lw_store_at(lw, state_ptr(lw, s), s->ct, at, k);
}

static zn_expr row_at(zn_lw *lw, const linattn *s, zn_expr j) {
  zn_exprs *ex = lw->ex;
  zn_expr cell = zn_ex_add(ex, zn_ex_mul(ex, s->b, s->heads), s->h);
  return zn_ex_add(ex, zn_ex_mul(ex, cell, s->dv), j);
}

/* Feature i of head h of x[batch, token, heads * size]. */
static zn_kref feature(zn_lw *lw, const linattn *s, zn_vid x, zn_expr head, zn_expr size, zn_expr i) {
  zn_expr at[3] = {s->b, s->t, zn_ex_add(lw->ex, zn_ex_mul(lw->ex, head, size), i)};
  return zn_lw_load(lw, x, at);
}

static void begin_state(zn_lw *lw, const linattn *s) {
  zn_expr i = zn_lw_for(lw, s->dk, ZN_FOR_SERIAL, 0), j = zn_lw_for(lw, s->dv, ZN_FOR_VECTOR, 0);
  zn_expr at[4] = {s->b, s->h, i, j};
  store_state(lw, s, i, j, s->past ? zn_lw_load(lw, s->past, at) : zn_kb_float(&lw->kb, s->ct, 0));
  zn_lw_end(lw);
  zn_lw_end(lw);
}

static void forget(zn_lw *lw, const linattn *s) {
  zn_exprs *ex = lw->ex;
  zn_expr width = zn_ex_div(ex, zn_lw_dim(lw, s->decay, 2), s->heads);
  zn_expr i = zn_lw_for(lw, s->dk, ZN_FOR_SERIAL, 0);
  zn_expr pos = zn_ex_is(ex, width, 1) ? zn_ex_const(ex, 0) : i;
  zn_kref g = zn_kb_un(&lw->kb, ZN_K_Exp, feature(lw, s, s->decay, s->h, width, pos));
  zn_expr j = zn_lw_for(lw, s->dv, ZN_FOR_VECTOR, 0);
  zn_kref old = load_state(lw, s, i, j);
  store_state(lw, s, i, j, zn_kb_bin(&lw->kb, ZN_K_Mul, old, g));
  zn_lw_end(lw);
  zn_lw_end(lw);
}

/* sum over i of x_i * state[i][j], x_i feature i of head `head` */
static zn_kref through_state(zn_lw *lw, const linattn *s, zn_vid x, zn_expr head, zn_expr j) {
  zn_kb *b = &lw->kb;
  zn_kref acc = zn_kb_var(b, zn_kb_float(b, s->ct, 0));
  zn_expr i = zn_lw_for(lw, s->dk, ZN_FOR_SERIAL, 0);
  zn_kref xi = feature(lw, s, x, head, s->dk, i), si = load_state(lw, s, i, j), old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, zn_mul_add(lw, xi, si, old));
  zn_lw_end(lw);
  return zn_kb_get(b, acc);
}

static void learn(zn_lw *lw, const linattn *s) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  zn_kref row = zn_lw_ptr_loc(lw, s->row, ZN_KP_INOUT, s->ct), rate = 0;
  if (s->delta) {
    bool shared = zn_ex_is(ex, zn_lw_dim(lw, s->beta, 2), 1);
    zn_expr at[3] = {s->b, s->t, shared ? zn_ex_const(ex, 0) : s->h};
    rate = zn_lw_load(lw, s->beta, at);
  }
  zn_expr j = zn_lw_for(lw, s->dv, ZN_FOR_VECTOR, 0);
  zn_kref v = feature(lw, s, s->v, s->h, s->dv, j);
  if (s->delta) {
    zn_kref have = through_state(lw, s, s->k, s->h, j);
    v = zn_kb_bin(b, ZN_K_Mul, zn_kb_bin(b, ZN_K_Sub, v, have), rate);
  }
  zn_lw_store_at(lw, row, s->ct, row_at(lw, s, j), v);
  zn_lw_end(lw);
  zn_expr i = zn_lw_for(lw, s->dk, ZN_FOR_SERIAL, 0);
  zn_kref k = feature(lw, s, s->k, s->h, s->dk, i);
  j = zn_lw_for(lw, s->dv, ZN_FOR_VECTOR, 0);
  row = zn_lw_ptr_loc(lw, s->row, ZN_KP_INOUT, s->ct);
  v = zn_lw_load_at(lw, row, s->ct, row_at(lw, s, j));
  zn_kref old = load_state(lw, s, i, j);
  store_state(lw, s, i, j, zn_mul_add(lw, k, v, old));
  zn_lw_end(lw);
  zn_lw_end(lw);
}

static void answer(zn_lw *lw, const linattn *s) {
  zn_exprs *ex = lw->ex;
  zn_expr r = zn_lw_for(lw, s->group, ZN_FOR_SERIAL, 0);
  zn_expr head = zn_ex_add(ex, zn_ex_mul(ex, s->h, s->group), r);
  zn_expr j = zn_lw_for(lw, s->dv, ZN_FOR_VECTOR, 0);
  zn_kref sum = through_state(lw, s, s->q, head, j);
  zn_kref y = zn_kb_bin(&lw->kb, ZN_K_Mul, sum, zn_kb_float(&lw->kb, s->ct, s->scale));
  zn_expr at[3] = {s->b, s->t, zn_ex_add(ex, zn_ex_mul(ex, head, s->dv), j)};
  zn_lw_emit(lw, s->y, at, y);
  zn_lw_end(lw);
  zn_lw_end(lw);
}

static void end_state(zn_lw *lw, const linattn *s) {
  if (!s->present) return;
  zn_expr i = zn_lw_for(lw, s->dk, ZN_FOR_SERIAL, 0), j = zn_lw_for(lw, s->dv, ZN_FOR_VECTOR, 0);
  zn_expr at[4] = {s->b, s->h, i, j};
  zn_lw_store(lw, s->present, at, load_state(lw, s, i, j));
  zn_lw_end(lw);
  zn_lw_end(lw);
}

static zn_status linattn_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  const int64_t qh = zn_node_int(node, "q_num_heads"), kh = zn_node_int(node, "kv_num_heads");
  const char *rule = zn_node_str(node, "update_rule");
  linattn s = {.q = node->in[0], .k = node->in[1], .v = node->in[2], .past = zn_node_in(node, 3),
               .decay = zn_node_in(node, 4), .beta = zn_node_in(node, 5), .y = node->out[0],
               .present = node->num_out > 1 ? node->out[1] : 0};
  s.gated = strncmp(rule, "gated", 5) == 0;
  s.delta = strstr(rule, "delta") != NULL;
  if ((s.gated && !s.decay) || (s.delta && !s.beta))
    return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, node),
                   "update_rule '%s' needs the input '%s'", rule, s.gated && !s.decay ? "decay" : "beta");
  s.ct = zn_lw_ctype((zn_dtype)zn_lw_type(lw, s.q)->dtype);
  s.heads = zn_ex_const(ex, kh);
  s.group = zn_ex_const(ex, qh / kh);
  s.dk = zn_ex_div(ex, zn_lw_dim(lw, s.k, 2), s.heads);
  s.dv = zn_ex_div(ex, zn_lw_dim(lw, s.v, 2), s.heads);
  s.tokens = zn_lw_dim(lw, s.q, 1);
  s.scale = zn_node_float(node, "scale");
  int64_t dk;
  if (s.scale == 0) {
    if (!zn_ex_is_const(ex, s.dk, &dk))
      return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, node),
                     "the head size must be known, or the attribute 'scale' given");
    s.scale = 1 / sqrt((double)dk);
  }
  zn_expr cells = zn_ex_mul(ex, zn_ex_mul(ex, zn_lw_dim(lw, s.q, 0), s.heads), s.dv);
  zn_expr bytes = zn_ex_muli(ex, cells, zn_dtype_bytes(s.ct));
  s.row = zn_lw_scratch(lw, bytes);
  s.state = zn_lw_scratch(lw, zn_ex_mul(ex, bytes, s.dk));
  zn_lw_kernel(lw, n, "linear_attention");
  zn_expr extents[2] = {zn_lw_dim(lw, s.q, 0), s.heads}, vars[2];
  zn_lw_grid(lw, 2, extents, vars);
  s.b = vars[0];
  s.h = vars[1];
  begin_state(lw, &s);
  s.t = zn_lw_for(lw, s.tokens, ZN_FOR_SERIAL, 0);
  if (s.gated) forget(lw, &s);
  learn(lw, &s);
  answer(lw, &s);
  zn_lw_end(lw);
  end_state(lw, &s);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_linearattention = {NULL, linattn_kernel};
