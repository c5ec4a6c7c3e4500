/* Control flow: bodies are evaluated in frames of their own; captured values are the trailing
 * inputs. */
#include "zenithc/eval/eval_impl.h"

static bool truth(const zn_eval_val *v) { return v->count > 0 && zn_ev_get(v, 0) != 0; }

/* Body inputs: `own` values, then the node's captures. */
static zn_eval_val *body_inputs(zn_ev *e, uint32_t own) {
  uint32_t nc = e->n->num_captures;
  zn_eval_val *in = ZN_ARRAY(e->tmp, zn_eval_val, own + nc + 1);
  for (uint32_t i = 0; i < nc; i++) {
    const zn_eval_val *v = e->in[e->num_in - nc + i];
    if (v) in[own + i] = *v;
  }
  return in;
}

zn_status zn_eval_if_(zn_ev *e) {
  const zn_graph *g = zn_node_graph(e->n, truth(e->in[0]) ? "then_branch" : "else_branch");
  if (!g || g->num_outputs != e->num_out)
    return zn_ev_fail(e, "the branch has %u outputs, expected %u", g ? g->num_outputs : 0,
                      e->num_out);
  zn_evframe *f = zn_ev_frame(e->run, g);
  zn_status st = zn_ev_call(f, body_inputs(e, 0), e->n->num_captures, e->out);
  zn_ev_frame_free(f);
  return st;
}

/* A growing list of equally shaped slices that becomes one tensor with a new axis. */
typedef struct stack {
  zn_eval_val *v;
  uint32_t n, cap;
} stack;

static zn_status stack_join(zn_ev *e, stack *s, int64_t axis, const zn_graph *g, uint32_t body_out,
                            zn_eval_val *out) {
  zn_type unknown = {.dtype = ZN_F32};
  const zn_type *t = g->outputs[body_out] ? &g->vals[g->outputs[body_out]].type : &unknown;
  zn_eval_val first = {.dtype = t->dtype ? t->dtype : ZN_F32,
                       .rank = t->rank > 0 ? (uint32_t)t->rank : 0};
  for (uint32_t d = 0; s->n == 0 && d < first.rank; d++) {
    int64_t k;
    first.dims[d] = zn_ex_is_const(g->ex, t->dims[d], &k) ? k : 0;
  }
  if (s->n) first = s->v[0];
  uint32_t a, rank = first.rank + 1;
  if (rank > ZN_MAX_RANK) return zn_ev_fail(e, "rank exceeds %d", ZN_MAX_RANK);
  ZN_TRY(zn_ev_axis(e, axis, rank, &a));
  int64_t dims[ZN_MAX_RANK];
  for (uint32_t d = 0; d < rank; d++)
    dims[d] = d == a ? (int64_t)s->n : first.dims[d < a ? d : d - 1];
  ZN_TRY(zn_ev_new(e, (zn_dtype)first.dtype, rank, dims, out));
  uint64_t outer, n, inner;
  zn_ev_split(out, a, &outer, &n, &inner);
  size_t es = zn_ev_esize((zn_dtype)first.dtype);
  for (uint32_t k = 0; k < s->n; k++) {
    if (s->v[k].kind != ZN_V_TENSOR || s->v[k].count != outer * inner)
      return zn_ev_fail(e, "a scan output changes its shape between iterations");
    for (uint64_t o = 0; o < outer; o++)
      memcpy((char *)out->u.p + (o * n + k) * inner * es,
             (const char *)s->v[k].u.p + o * inner * es, inner * es);
    zn_ev_release(e->run, &s->v[k]);
  }
  return ZN_OK;
}

/* A value of its own for every iteration: the body's results may share it. */
static zn_status put_scalar(zn_ev *e, zn_eval_val *v, zn_dtype t, int64_t x) {
  ZN_TRY(zn_ev_new(e, t, 0, NULL, v));
  v->u.i[0] = x;
  return ZN_OK;
}

static zn_status loop_run(zn_ev *e, const zn_graph *g, zn_evframe *f, uint32_t nv, stack *scans) {
  const zn_eval_val *mv = zn_ev_in(e, 0), *cv = zn_ev_in(e, 1);
  int64_t max = mv && mv->count ? mv->u.i[0] : INT64_MAX, iter = 0, cond = cv ? truth(cv) : 1;
  uint32_t ns = g->num_outputs - 1 - nv;
  zn_eval_val *in = body_inputs(e, 2 + nv), *out = ZN_ARRAY(e->tmp, zn_eval_val, g->num_outputs);
  for (uint32_t i = 0; i < nv; i++)
    if (e->in[2 + i]) in[2 + i] = zn_ev_share(e->in[2 + i]);
  for (; iter < max && cond; iter++) {
    ZN_TRY(put_scalar(e, &in[0], ZN_I64, iter));
    ZN_TRY(put_scalar(e, &in[1], ZN_BOOL, cond));
    ZN_TRY(zn_ev_call(f, in, 2 + nv + e->n->num_captures, out));
    cond = truth(&out[0]);
    for (int i = 0; i < 2; i++) zn_ev_release(e->run, &in[i]);
    zn_ev_release(e->run, &out[0]);
    for (uint32_t i = 0; i < nv; i++) {
      zn_ev_release(e->run, &in[2 + i]);
      in[2 + i] = out[1 + i];
    }
    for (uint32_t i = 0; i < ns; i++)
      ZN_PUSH(e->tmp, scans[i].v, scans[i].n, scans[i].cap, out[1 + nv + i]);
    if (!cv && !mv && iter == INT64_MAX - 1) break;
  }
  for (uint32_t i = 0; i < nv; i++) e->out[i] = in[2 + i];
  return ZN_OK;
}

/* in: M, cond, v_initial..., captures. Body: (i, cond, v...) -> (cond, v..., scans...). */
zn_status zn_eval_loop(zn_ev *e) {
  const zn_graph *g = zn_node_graph(e->n, "body");
  uint32_t fixed = 2 + e->n->num_captures;
  if (!g || e->num_in < fixed || g->num_outputs < e->num_in - fixed + 1 ||
      e->num_out != g->num_outputs - 1)
    return zn_ev_fail(e, "the body does not fit the loop");
  uint32_t nv = e->num_in - fixed, ns = e->num_out - nv;
  stack *scans = ZN_ARRAY(e->tmp, stack, ns + 1);
  zn_evframe *f = zn_ev_frame(e->run, g);
  zn_status st = loop_run(e, g, f, nv, scans);
  for (uint32_t i = 0; st == ZN_OK && i < ns; i++)
    st = stack_join(e, &scans[i], 0, g, 1 + nv + i, &e->out[nv + i]);
  zn_ev_frame_free(f);
  return st;
}

/* Slice k of v along axis a (a fresh tensor without that axis). */
static zn_status slice_at(zn_ev *e, const zn_eval_val *v, uint32_t a, uint64_t k,
                          zn_eval_val *out) {
  int64_t dims[ZN_MAX_RANK];
  uint64_t outer, n, inner;
  for (uint32_t d = 0; d + 1 < v->rank; d++) dims[d] = v->dims[d < a ? d : d + 1];
  zn_ev_split(v, a, &outer, &n, &inner);
  ZN_TRY(zn_ev_new(e, (zn_dtype)v->dtype, v->rank - 1, dims, out));
  size_t es = zn_ev_esize((zn_dtype)v->dtype);
  for (uint64_t o = 0; o < outer; o++)
    memcpy((char *)out->u.p + o * inner * es, (const char *)v->u.p + (o * n + k) * inner * es,
           inner * es);
  return ZN_OK;
}

typedef struct scan {
  const zn_graph *g;
  uint32_t nstate, nscan, nout; /* states, scan inputs, scan outputs */
  int64_t len, in_axis[64], in_dir[64], out_axis[64], out_dir[64];
} scan;

static zn_status scan_init(zn_ev *e, scan *s) {
  memset(s, 0, sizeof *s);
  s->g = zn_node_graph(e->n, "body");
  int64_t ns = zn_node_int(e->n, "num_scan_inputs"), own = (int64_t)e->num_in - e->n->num_captures;
  if (!s->g || ns < 1 || ns > own || ns > 64)
    return zn_ev_fail(e, "num_scan_inputs is %lld", (long long)ns);
  s->nscan = (uint32_t)ns;
  s->nstate = (uint32_t)(own - ns);
  if (s->g->num_outputs != e->num_out || e->num_out < s->nstate || e->num_out - s->nstate > 64)
    return zn_ev_fail(e, "the body does not fit the scan");
  s->nout = e->num_out - s->nstate;
  ZN_TRY(zn_ev_attr_ints(e, "scan_input_axes", s->nscan, 0, s->in_axis));
  ZN_TRY(zn_ev_attr_ints(e, "scan_input_directions", s->nscan, 0, s->in_dir));
  ZN_TRY(zn_ev_attr_ints(e, "scan_output_axes", s->nout, 0, s->out_axis));
  ZN_TRY(zn_ev_attr_ints(e, "scan_output_directions", s->nout, 0, s->out_dir));
  for (uint32_t i = 0; i < s->nscan; i++) {
    const zn_eval_val *v = e->in[s->nstate + i];
    uint32_t a;
    ZN_TRY(zn_ev_axis(e, s->in_axis[i], v->rank, &a));
    s->in_axis[i] = a;
    if (i && v->dims[a] != s->len) return zn_ev_fail(e, "scan inputs differ in length");
    s->len = v->dims[a];
  }
  return ZN_OK;
}

static zn_status scan_run(zn_ev *e, const scan *s, zn_evframe *f, stack *outs) {
  uint32_t own = s->nstate + s->nscan;
  zn_eval_val *in = body_inputs(e, own),
              *out = ZN_ARRAY(e->tmp, zn_eval_val, s->g->num_outputs + 1);
  for (uint32_t i = 0; i < s->nstate; i++) in[i] = zn_ev_share(e->in[i]);
  for (int64_t t = 0; t < s->len; t++) {
    for (uint32_t i = 0; i < s->nscan; i++)
      ZN_TRY(slice_at(e, e->in[s->nstate + i], (uint32_t)s->in_axis[i],
                      (uint64_t)(s->in_dir[i] ? s->len - 1 - t : t), &in[s->nstate + i]));
    ZN_TRY(zn_ev_call(f, in, own + e->n->num_captures, out));
    for (uint32_t i = 0; i < own; i++) zn_ev_release(e->run, &in[i]);
    for (uint32_t i = 0; i < s->nstate; i++) in[i] = out[i];
    for (uint32_t i = 0; i < s->nout; i++)
      ZN_PUSH(e->tmp, outs[i].v, outs[i].n, outs[i].cap, out[s->nstate + i]);
  }
  for (uint32_t i = 0; i < s->nstate; i++) e->out[i] = in[i];
  return ZN_OK;
}

zn_status zn_eval_scan(zn_ev *e) {
  scan s;
  ZN_TRY(scan_init(e, &s));
  stack *outs = ZN_ARRAY(e->tmp, stack, s.nout + 1);
  zn_evframe *f = zn_ev_frame(e->run, s.g);
  zn_status st = scan_run(e, &s, f, outs);
  for (uint32_t i = 0; st == ZN_OK && i < s.nout; i++) {
    stack *o = &outs[i];
    for (uint32_t k = 0; s.out_dir[i] && k < o->n / 2; k++) {
      zn_eval_val t = o->v[k];
      o->v[k] = o->v[o->n - 1 - k];
      o->v[o->n - 1 - k] = t;
    }
    st = stack_join(e, o, s.out_axis[i], s.g, s.nstate + i, &e->out[s.nstate + i]);
  }
  zn_ev_frame_free(f);
  return st;
}
