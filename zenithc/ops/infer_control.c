/* Inference of If, Loop and Scan: their bodies are inferred from the types of the node's inputs,
 * and a Loop's carried types are widened until the body maps them to themselves. Symbols made
 * inside a body never leave it. */
#include "zenithc/ops/infer_util.h"

#include <inttypes.h>

/* The body's input takes the type and, when `same_value`, the contents of an outer value. */
static void bind(const zn_inf *f, zn_graph *body, uint32_t bi, const zn_type *t, zn_vid from) {
  zn_value *v = &body->vals[body->inputs[bi]];
  v->type = *t;
  v->elems = from ? f->g->vals[from].elems : NULL;
  v->num_elems = v->elems ? f->g->vals[from].num_elems : 0;
  v->content = NULL;
}

static zn_status bind_captures(const zn_inf *f, zn_graph *body, uint32_t own) {
  const uint32_t nc = f->nd->num_captures, first = f->nd->num_in - nc;
  if (body->num_inputs != own + nc) {
    return zn_inf_err(f, "body '%s' has %u inputs, expected %u", body->name, body->num_inputs - nc,
                      own);
  }
  for (uint32_t i = 0; i < nc; i++) {
    const zn_vid v = f->nd->in[first + i];
    bind(f, body, own + i, &f->g->vals[v].type, v);
  }
  return ZN_OK;
}

static const zn_type *body_out(const zn_graph *b, uint32_t i) {
  return &b->vals[b->outputs[i]].type;
}

/* Widens *t so that it covers u as well: differing dims become symbols of value v in graph g
 * (ZN_EX_NONE inside sequences). Returns whether *t changed. */
static bool widen(zn_type *t, const zn_type *u, zn_graph *g, zn_vid v) {
  bool changed = false;
  if (t->kind != ZN_V_TENSOR && t->rank < 0 && u->rank >= 0) { /* an empty sequence so far */
    t->rank = u->rank;
    memcpy(t->dims, u->dims, sizeof t->dims);
    if (t->dtype == ZN_NONE) t->dtype = u->dtype;
    return true;
  }
  if (t->kind != ZN_V_TENSOR && u->rank < 0) return false;
  if (t->rank != u->rank) {
    changed = t->rank >= 0;
    t->rank = -1;
    return changed;
  }
  for (int d = 0; d < t->rank; d++) {
    if (t->dims[d] == u->dims[d]) continue;
    const zn_expr e =
        t->kind == ZN_V_TENSOR ? zn_inf_fresh_of(g, v, (uint32_t)d, 0, INT64_MAX) : ZN_EX_NONE;
    changed |= e != t->dims[d];
    t->dims[d] = e;
  }
  return changed;
}

/* Items of a list come from many iterations: what one iteration calls a size says nothing about the others. */
static void forget_local(const zn_graph *body, zn_type *t) {
  for (int d = 0; d < t->rank; d++)
    if (t->dims[d] && zn_inf_is_local(body, t->dims[d])) t->dims[d] = ZN_EX_NONE;
}

/* A symbol of the body that e uses, or ZN_EX_NONE. */
static zn_expr local_symbol(const zn_graph *body, zn_expr e) {
  if (e <= ZN_EX_OVERFLOW || zn_ex_kind(body->ex, e) == ZN_EX_CONST) return ZN_EX_NONE;
  if (zn_ex_kind(body->ex, e) == ZN_EX_SYM) return zn_inf_is_local(body, e) ? e : ZN_EX_NONE;
  for (uint32_t i = 0; i < zn_ex_arity(body->ex, e); i++) {
    const zn_expr s = local_symbol(body, zn_ex_operand(body->ex, e, i));
    if (s) return s;
  }
  return ZN_EX_NONE;
}

/* What a size inside the body never exceeds, in outer symbols; ZN_EX_NONE when unbounded. */
static zn_expr outer_bound(const zn_graph *body, zn_expr e) {
  int64_t lo, hi;
  zn_ex_range(body->ex, e, &lo, &hi);
  for (int round = 0; round < 32; round++) {
    const zn_expr s = local_symbol(body, e);
    if (!s) return e;
    const zn_expr extent = zn_ex_extent(body->ex, s);
    if (!extent) break;
    const zn_expr top = zn_ex_addi(body->ex, extent, -1);
    e = zn_ex_subst(body->ex, e, &s, &top, 1);
  }
  return hi < INT64_C(1) << 31 ? zn_ex_const(body->ex, hi) : ZN_EX_NONE;
}

/* Replaces dims that only the body knows by symbols of the node's output. */
static void export_type(const zn_inf *f, const zn_graph *body, uint32_t o, const zn_type *t) {
  zn_type *out = zn_inf_out(f, o);
  if (!out) return;
  *out = *t;
  for (int d = 0; d < t->rank; d++) {
    if (!zn_inf_is_local(body, t->dims[d])) continue;
    out->dims[d] = t->kind == ZN_V_TENSOR
                       ? zn_inf_fresh(f, o, (uint32_t)d, 0, outer_bound(body, t->dims[d]))
                       : ZN_EX_NONE;
  }
}

/* ---- If ---- */

static zn_status infer_branch(const zn_inf *f, zn_graph *body) {
  ZN_TRY(bind_captures(f, body, 0));
  return zn_infer_graph(f->c, body);
}

zn_status zn_infer_branch(zn_ctx *c, zn_graph *g, zn_nid n, bool then) {
  const zn_inf f = {.c = c, .g = g, .ex = g->ex, .n = n, .nd = &g->nodes[n]};
  return infer_branch(&f, zn_node_graph(f.nd, then ? "then_branch" : "else_branch"));
}

ZN_INFER(if_) {
  static const char *const names[2] = {"else_branch", "then_branch"};
  zn_graph *b[2];
  int64_t cond = 0;
  uint32_t n;
  const bool known = zn_inf_i64s(f, 0, &cond, 1, &n) && n == 1;
  for (int k = 0; k < 2; k++) {
    b[k] = zn_node_graph(f->nd, names[k]);
    if (b[k]->num_outputs != f->nd->num_out) {
      return zn_inf_err(f, "%s has %u outputs, the node %u", names[k], b[k]->num_outputs,
                        f->nd->num_out);
    }
    if (known && k != (cond != 0)) continue; /* never runs */
    ZN_TRY(infer_branch(f, b[k]));
  }
  for (uint32_t o = 0; o < f->nd->num_out; o++) {
    if (known) {
      export_type(f, b[cond != 0], o, body_out(b[cond != 0], o));
      continue;
    }
    zn_type t = *body_out(b[1], o);
    const zn_type *e = body_out(b[0], o);
    if (t.kind != e->kind || (t.dtype != e->dtype && t.kind == ZN_V_TENSOR)) {
      return zn_inf_err(f, "the branches give different types for output %u", o + 1);
    }
    const zn_type then = t;
    if (f->nd->out[o]) widen(&t, e, f->g, f->nd->out[o]);
    export_type(f, b[1], o, &t);
    zn_type *out = zn_inf_out(f, o);
    for (int d = 0; out && d < t.rank && t.kind == ZN_V_TENSOR; d++) {
      const zn_expr x = outer_bound(b[1], then.dims[d]), y = outer_bound(b[0], e->dims[d]);
      if (x && y && t.dims[d] != then.dims[d])
        zn_inf_limit(f->ex, out->dims[d], zn_ex_max(f->ex, x, y));
    }
    for (int d = 0; out && d < out->rank; d++) {
      if (!out->dims[d] || !zn_inf_is_local(b[0], out->dims[d])) continue;
      if (out->kind != ZN_V_TENSOR) {
        out->dims[d] = ZN_EX_NONE;
        continue;
      }
      out->dims[d] = zn_inf_fresh(f, o, (uint32_t)d, 0, outer_bound(b[0], out->dims[d]));
    }
  }
  return ZN_OK;
}

/* ---- Loop ---- */

/* The value behind Identity nodes. */
static zn_vid origin(const zn_graph *g, zn_vid v) {
  while (g->vals[v].def && g->nodes[g->vals[v].def].op == ZN_OP_Identity) {
    v = g->nodes[g->vals[v].def].in[0];
  }
  return v;
}

/* Iterations, when the trip count alone ends the loop; else ZN_EX_NONE and the upper bound in
 * *bound. */
static zn_expr trip_count(const zn_inf *f, zn_graph *body, zn_expr *bound) {
  uint32_t n;
  int64_t v;
  const zn_expr *m = zn_node_in(f->nd, 0) ? zn_inf_need(f, 0, &n) : NULL;
  const zn_expr count = m && n == 1 ? zn_ex_max(f->ex, m[0], zn_inf_k(f, 0)) : ZN_EX_NONE;
  *bound = count;
  if (zn_node_in(f->nd, 1) && !(zn_inf_i64s(f, 1, &v, 1, &n) && n == 1 && v)) return ZN_EX_NONE;
  const zn_vid keep = origin(body, body->outputs[0]);
  if (keep == body->inputs[1]) return count;
  return zn_value_i64s(body, keep, &v, 1, &n) && n == 1 && v ? count : ZN_EX_NONE;
}

/* The most iterations that the node's trip count allows, before anything is known of the body. */
static zn_expr most_trips(const zn_inf *f) {
  uint32_t n;
  const zn_expr *m = zn_node_in(f->nd, 0) ? zn_inf_need(f, 0, &n) : NULL;
  return m && n == 1 ? zn_ex_max(f->ex, m[0], zn_inf_k(f, 0)) : ZN_EX_NONE;
}

/* A constant that a carried size never exceeds, found by trying: sizes up to it must stay up to it. */
static bool settles(const zn_inf *f, zn_expr sym, zn_expr init, zn_expr next) {
  int64_t lo, hi, top;
  zn_ex_range(f->ex, init, &lo, &hi);
  for (int round = 0; round < 4 && hi < INT64_C(1) << 31; round++) {
    zn_ex_set_range(f->ex, sym, 0, hi);
    zn_ex_range(f->ex, next, &lo, &top);
    if (top <= hi) return true;
    hi = top;
  }
  zn_ex_set_range(f->ex, sym, 0, INT64_MAX);
  return false;
}

static void bound_state(const zn_inf *f, zn_graph *body, zn_expr s, zn_expr init, zn_expr next,
                        zn_expr trips) {
  zn_expr coef, rest, b;
  if (s == init || s == next || zn_ex_kind(f->ex, s) != ZN_EX_SYM) return;
  if (settles(f, s, init, next)) {
    int64_t lo, hi;
    zn_ex_range(f->ex, s, &lo, &hi);
    zn_inf_limit(f->ex, s, zn_inf_k(f, hi));
  } else if (!zn_ex_depends(f->ex, next, s)) {
    b = outer_bound(body, next);
    if (b) zn_inf_limit(f->ex, s, zn_ex_max(f->ex, b, init));
  } else if (trips && zn_ex_linear(f->ex, next, s, &coef, &rest) && zn_ex_is(f->ex, coef, 1)) {
    b = outer_bound(body, rest);
    if (!b) return;
    const zn_expr grow = zn_ex_mul(f->ex, trips, zn_ex_max(f->ex, b, zn_inf_k(f, 0)));
    zn_inf_limit(f->ex, s, zn_ex_add(f->ex, init, grow));
  }
}

/* Sizes of carried values that change in the body are bounded when they settle, or grow by a bounded amount. */
static void bound_states(const zn_inf *f, zn_graph *body, uint32_t nv, const zn_type *carried) {
  const zn_expr trips = most_trips(f);
  for (uint32_t i = 0; i < nv; i++) {
    const zn_type *init = zn_inf_in(f, 2 + i), *next = body_out(body, 1 + i);
    if (carried[i].kind != ZN_V_TENSOR || init->rank != carried[i].rank) continue;
    for (int d = 0; d < carried[i].rank; d++)
      bound_state(f, body, carried[i].dims[d], init->dims[d], next->dims[d], trips);
  }
}

static zn_status loop_body(const zn_inf *f, zn_graph *body, uint32_t nv, zn_type *carried) {
  const zn_expr most = most_trips(f);
  const zn_type i64 = zn_type_tensor(ZN_I64, 0, NULL), cond = zn_type_tensor(ZN_BOOL, 0, NULL);
  for (int round = 0; round < 2 + 2 * ZN_MAX_RANK; round++) {
    bool changed = false;
    bind(f, body, 0, &i64, 0);
    const zn_expr at = zn_inf_name_scalar(body, body->inputs[0], 0);
    if (most) zn_inf_limit(f->ex, at, zn_ex_addi(f->ex, most, -1));
    bind(f, body, 1, &cond, 0);
    for (uint32_t i = 0; i < nv; i++) bind(f, body, 2 + i, &carried[i], 0);
    ZN_TRY(bind_captures(f, body, 2 + nv));
    ZN_TRY(zn_infer_graph(f->c, body));
    for (uint32_t i = 0; i < nv; i++) {
      const zn_type *o = body_out(body, 1 + i);
      if (carried[i].kind == ZN_V_OPT && o->kind == (carried[i].of ? ZN_V_SEQ : ZN_V_TENSOR)) {
        continue; /* an optional takes what it may hold: the later iterations find it present */
      }
      if (o->kind != carried[i].kind || (o->dtype != carried[i].dtype && o->kind == ZN_V_TENSOR)) {
        return zn_inf_err(f, "carried value %u changes its type in the body", i + 1);
      }
      changed |= widen(&carried[i], o, body, body->inputs[2 + i]);
      if (carried[i].kind != ZN_V_TENSOR) forget_local(body, &carried[i]);
    }
    if (!changed) return ZN_OK;
  }
  return zn_inf_err(f, "the types of the carried values do not settle");
}

ZN_INFER(loop) {
  zn_graph *body = zn_node_graph(f->nd, "body");
  const uint32_t ins = f->nd->num_in - f->nd->num_captures, nv = ins > 2 ? ins - 2 : 0;
  zn_type *carried = ZN_ARRAY(&f->c->tmp, zn_type, nv + 1);
  if (f->nd->num_out < nv || body->num_outputs != f->nd->num_out + 1) {
    return zn_inf_err(f, "the body has %u outputs, expected %u", body->num_outputs,
                      f->nd->num_out + 1);
  }
  for (uint32_t i = 0; i < nv; i++) {
    if (!zn_inf_in(f, 2 + i)) return zn_inf_err(f, "initial value %u is absent", i + 1);
    carried[i] = *zn_inf_in(f, 2 + i);
  }
  ZN_TRY(loop_body(f, body, nv, carried));
  bound_states(f, body, nv, carried);
  for (uint32_t i = 0; i < nv; i++) {
    const bool opened = carried[i].kind == ZN_V_OPT && body_out(body, 1 + i)->kind != ZN_V_OPT;
    export_type(f, body, i, opened ? body_out(body, 1 + i) : &carried[i]);
  }
  zn_expr bound;
  zn_expr trips = trip_count(f, body, &bound);
  for (uint32_t o = nv; o < f->nd->num_out; o++) {
    zn_type t = *body_out(body, 1 + o);
    if (t.rank >= ZN_MAX_RANK) return zn_inf_err(f, "scan output %u has too large a rank", o + 1);
    export_type(f, body, o, &t);
    zn_type *out = zn_inf_out(f, o);
    if (!out || out->rank < 0) continue;
    /* names of export_type are by the body's axis; the count of iterations is shared by all scan
     * outputs */
    memmove(out->dims + 1, out->dims, (size_t)out->rank * sizeof *out->dims);
    if (!trips) trips = zn_inf_fresh(f, o, ZN_MAX_RANK, 0, bound);
    out->dims[0] = trips;
    out->rank++;
  }
  return ZN_OK;
}

/* ---- Scan ---- */

static zn_status scan_axis(const zn_inf *f, const char *attr, uint32_t i, int rank, int *out) {
  uint32_t n;
  const int64_t *a = zn_node_ints(f->nd, attr, &n);
  return zn_inf_axis(f, a && i < n ? a[i] : 0, rank, out);
}

ZN_INFER(scan) {
  zn_graph *body = zn_node_graph(f->nd, "body");
  const uint32_t ins = f->nd->num_in - f->nd->num_captures;
  const int64_t ns = zn_node_int(f->nd, "num_scan_inputs");
  zn_expr len = ZN_EX_NONE;
  int axis;
  if (ns < 1 || ns > (int64_t)ins) return zn_inf_err(f, "num_scan_inputs is %" PRId64, ns);
  const uint32_t states = ins - (uint32_t)ns;
  if (f->nd->num_out < states || body->num_outputs != f->nd->num_out) {
    return zn_inf_err(f, "the body has %u outputs, the node %u", body->num_outputs, f->nd->num_out);
  }
  for (uint32_t i = 0; i < ins; i++) {
    if (!zn_inf_in(f, i)) return zn_inf_err(f, "input %u is absent", i + 1);
    zn_type t = *zn_inf_in(f, i);
    if (i >= states) {
      if (t.rank < 0) return ZN_OK;
      ZN_TRY(scan_axis(f, "scan_input_axes", i - states, t.rank, &axis));
      if (len) ZN_TRY(zn_inf_same_dim(f, len, t.dims[axis], "lengths of the scan inputs"));
      if (!len || zn_ex_is_const(f->ex, t.dims[axis], NULL)) len = t.dims[axis];
      for (int d = axis; d + 1 < t.rank; d++) t.dims[d] = t.dims[d + 1];
      t.rank--;
    }
    bind(f, body, i, &t, 0);
  }
  ZN_TRY(bind_captures(f, body, ins));
  ZN_TRY(zn_infer_graph(f->c, body));
  for (uint32_t o = 0; o < f->nd->num_out; o++) {
    zn_type t = *body_out(body, o);
    if (o < states) { /* a state keeps its shape */
      export_type(f, body, o, zn_inf_in(f, o));
      continue;
    }
    export_type(f, body, o, &t);
    zn_type *out = zn_inf_out(f, o);
    if (!out || out->rank < 0) continue;
    if (out->rank >= ZN_MAX_RANK)
      return zn_inf_err(f, "scan output %u has too large a rank", o + 1);
    ZN_TRY(scan_axis(f, "scan_output_axes", o - states, out->rank + 1, &axis));
    for (int d = out->rank; d > axis; d--) out->dims[d] = out->dims[d - 1];
    out->dims[axis] = len;
    out->rank++;
  }
  return ZN_OK;
}
