/* Running graphs: frames hold the values of one graph while it is evaluated, and free each after
 * its last use. */
#include "zenithc/eval/eval_impl.h"

enum { MAX_DEPTH = 64 };

struct zn_evframe {
  zn_evrun *run;
  const zn_graph *g;
  zn_eval_val *vals; /* by value id */
  uint32_t *uses;    /* uses by live nodes and outputs */
  uint32_t *left;    /* uses still to come in this call */
  bool keep_consts;  /* a body: its constants serve the next call too */
  zn_arena mem, tmp;
};

zn_status zn_ev_fail(zn_ev *e, const char *fmt, ...) {
  if (e->run->quiet) return ZN_ERR_MODEL;
  char msg[1024];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(msg, sizeof msg, fmt, ap);
  va_end(ap);
  return zn_error(e->c, zn_node_where(e->c, e->n), "%s", msg);
}

static uint32_t *count_uses(const zn_graph *g, zn_arena *a) {
  uint32_t *u = ZN_ARRAY(a, uint32_t, g->num_vals);
  for (uint32_t k = 0; k < g->num_order; k++) {
    const zn_node *n = &g->nodes[g->order[k]];
    if (n->dead) continue;
    for (uint32_t i = 0; i < n->num_in; i++) u[n->in[i]]++;
  }
  for (uint32_t i = 0; i < g->num_outputs; i++) u[g->outputs[i]]++;
  return u;
}

static void frame_init(zn_evframe *f, zn_evrun *r, const zn_graph *g) {
  memset(f, 0, sizeof *f);
  f->run = r;
  f->g = g;
  zn_arena_init(&f->mem, "eval");
  zn_arena_init(&f->tmp, "eval-tmp");
  f->vals = ZN_ARRAY(&f->mem, zn_eval_val, g->num_vals);
  f->uses = count_uses(g, &f->mem);
  f->left = ZN_ARRAY(&f->mem, uint32_t, g->num_vals);
}

zn_evframe *zn_ev_frame(zn_evrun *r, const zn_graph *g) {
  zn_evframe *f = ZN_NEW(r->keep, zn_evframe);
  frame_init(f, r, g);
  f->keep_consts = true;
  return f;
}

void zn_ev_frame_free(zn_evframe *f) {
  for (uint32_t v = 0; v < f->g->num_vals; v++) zn_ev_release(f->run, &f->vals[v]);
  zn_arena_reset(&f->mem);
  zn_arena_reset(&f->tmp);
}

static bool is_const(const zn_graph *g, zn_vid v) { return g->vals[v].cst && !g->vals[v].is_input; }

/* A value whose elements are known constants, though no tensor holds them. */
static zn_status load_elems(zn_ev *e, zn_vid v, zn_eval_val *out) {
  const zn_value *x = &e->g->vals[v];
  int64_t dims[ZN_MAX_RANK];
  if (!zn_type_is_static(e->g->ex, &x->type, dims)) return ZN_ERR_MODEL;
  zn_status st = zn_ev_new(e, (zn_dtype)x->type.dtype, (uint32_t)x->type.rank, dims, out);
  for (uint32_t k = 0; st == ZN_OK && k < x->num_elems && k < out->count; k++)
    if (!zn_ex_is_const(e->g->ex, x->elems[k], &out->u.i[k])) return ZN_ERR_MODEL;
  return st;
}

static zn_status load_const(zn_ev *e, zn_evframe *f, zn_vid v) {
  const zn_htensor *t = f->g->vals[v].cst;
  zn_eval_val tmp = {0};
  zn_status st;
  if (t) {
    st = zn_ev_new(e, t->dtype, t->rank, t->dims, &tmp);
    if (st == ZN_OK) zn_ev_load(&tmp, t);
  } else {
    st = f->g->vals[v].elems ? load_elems(e, v, &tmp) : ZN_ERR_MODEL;
  }
  f->vals[v] = tmp;
  return st == ZN_OK ? st : zn_ev_fail(e, "input '%s' has no value", f->g->vals[v].name);
}

static bool drop_last_use(zn_evframe *f, zn_vid v) {
  if (!v || --f->left[v]) return false;
  return !(f->keep_consts && is_const(f->g, v));
}

/* f16, bf16 and f32 results of the F32 modes are stored in their type. */
static void round_output(zn_eval_mode mode, zn_eval_val *v) {
  if (v->kind != ZN_V_TENSOR || !zn_is_float((zn_dtype)v->dtype) || v->dtype == ZN_F64) return;
  if (v->buf && v->buf->refs > 1) return; /* shares a value that was rounded when it was made */
  zn_dtype t = (zn_dtype)v->dtype;
  bool random = mode >= ZN_EVAL_F32_RANDOM && zn_dtype_bytes(t) > 1;
  for (uint64_t k = 0; k < v->count; k++)
    v->u.f[k] = random ? zn_ev_jitter(mode, t, v->u.f[k]) : zn_eval_round(t, v->u.f[k]);
}

/* Does type name `type` of schema s contain the word `kind` (seq, opt, map)? */
static bool type_has(const zn_schema *s, const char *type, const char *kind) {
  size_t n = strlen(type), k = strlen(kind);
  for (const char *p = s->types; p && *p; p += strcspn(p, " "), p += strspn(p, " ")) {
    if (strncmp(p, type, n) != 0 || p[n] != '=') continue;
    for (const char *q = p + n + 1; *q && *q != ' '; q += strcspn(q, ", "), q += *q == ',')
      if (strncmp(q, kind, k) == 0 && (q[k] == 0 || q[k] == ',' || q[k] == ' ')) return true;
  }
  return strcmp(type, kind) == 0;
}

/* Operator functions read their inputs as the schema types them: anything else stops here. */
static zn_status check_input(zn_ev *e, const zn_schema *s, uint32_t i, const char **seen,
                             zn_dtype *type) {
  static const char *const kinds[] = {"", "seq", "opt", "map"};
  const zn_schema_io *io = &s->in[i < s->num_in ? i : s->num_in - 1];
  const zn_eval_val *v = e->in[i];
  if (!v) return io->optional ? ZN_OK : zn_ev_fail(e, "input %u is missing", i + 1);
  bool fits = v->kind == ZN_V_TENSOR ? zn_schema_allows(s, io->type, (zn_dtype)v->dtype)
                                     : type_has(s, io->type, kinds[v->kind]);
  if (!fits)
    return zn_ev_fail(e, "input %u '%s' cannot be %s %s", i + 1, io->name, kinds[v->kind],
                      zn_dtypes[v->dtype].name);
  if (io->hetero || v->kind != ZN_V_TENSOR) return ZN_OK;
  uint32_t k = 0; /* inputs of one type name agree */
  while (seen[k] && strcmp(seen[k], io->type) != 0) k++;
  if (seen[k] && type[k] != (zn_dtype)v->dtype)
    return zn_ev_fail(e, "input %u '%s' is %s, another input of type %s is %s", i + 1, io->name,
                      zn_dtypes[v->dtype].name, io->type, zn_dtypes[type[k]].name);
  seen[k] = io->type;
  type[k] = (zn_dtype)v->dtype;
  return ZN_OK;
}

static zn_status check_inputs(zn_ev *e) {
  const zn_schema *s = zn_op_schema(e->op);
  uint32_t own = e->num_in - e->n->num_captures;
  if (e->op == ZN_OP_NONE || e->n->num_captures > e->num_in || own < s->min_in || own > s->max_in)
    return zn_ev_fail(e, "%u inputs given, %u to %u expected", own, s->min_in, s->max_in);
  if (e->num_out < s->min_out || e->num_out > s->max_out)
    return zn_ev_fail(e, "%u outputs named, %u to %u expected", e->num_out, s->min_out, s->max_out);
  const char **seen = ZN_ARRAY(e->tmp, const char *, own + 1);
  zn_dtype *type = ZN_ARRAY(e->tmp, zn_dtype, own + 1);
  for (uint32_t i = 0; i < own; i++) ZN_TRY(check_input(e, s, i, seen, type));
  return ZN_OK;
}

static zn_status run_op(zn_ev *e) {
  ZN_TRY(check_inputs(e));
  e->single = e->run->mode != ZN_EVAL_F64;
  for (uint32_t i = 0; i < e->num_in; i++)
    if (e->in[i] && e->in[i]->kind == ZN_V_TENSOR && e->in[i]->dtype == ZN_F64) e->single = false;
  e->mode = e->single ? e->run->mode : ZN_EVAL_F64;
  ZN_TRY(zn_eval_table[e->op](e));
  for (uint32_t i = 0; e->single && i < e->num_out; i++)
    if (e->out[i].set) round_output(e->mode, &e->out[i]);
  return ZN_OK;
}

static zn_status run_node(zn_evframe *f, zn_nid id) {
  const zn_graph *g = f->g;
  const zn_node *n = &g->nodes[id];
  zn_ev e = {.run = f->run,
             .c = f->run->c,
             .g = g,
             .n = n,
             .id = id,
             .op = n->op,
             .num_in = n->num_in,
             .num_out = n->num_out,
             .tmp = &f->tmp};
  const zn_eval_val **in = ZN_ARRAY(&f->tmp, const zn_eval_val *, n->num_in);
  e.in = in;
  e.out = ZN_ARRAY(&f->tmp, zn_eval_val, n->num_out);
  for (uint32_t i = 0; i < n->num_in; i++) {
    if (!n->in[i]) continue;
    if (!f->vals[n->in[i]].set) ZN_TRY(load_const(&e, f, n->in[i]));
    in[i] = &f->vals[n->in[i]];
  }
  ZN_TRY(run_op(&e));
  for (uint32_t i = 0; i < n->num_out; i++)
    if (n->out[i] && !e.out[i].set && f->uses[n->out[i]])
      return zn_ev_fail(&e, "the evaluator gave no value for output %u", i + 1);
  zn_eval_tap *tap = f->run->tap;
  if (tap && tap->node) tap->node(tap->user, g, id, e.out, n->num_out);
  for (uint32_t i = 0; i < n->num_out; i++) {
    if (n->out[i] && f->left[n->out[i]]) f->vals[n->out[i]] = e.out[i];
    else zn_ev_release(f->run, &e.out[i]);
  }
  for (uint32_t i = 0; i < n->num_in; i++)
    if (drop_last_use(f, n->in[i])) zn_ev_release(f->run, &f->vals[n->in[i]]);
  zn_arena_reset(&f->tmp);
  return ZN_OK;
}

/* Outputs of a graph that are inputs or constants were never computed: load them. */
static zn_status take_outputs(zn_evframe *f, zn_eval_val *out) {
  for (uint32_t i = 0; i < f->g->num_outputs; i++) {
    zn_vid v = f->g->outputs[i];
    zn_node none = {.name = "graph output"};
    zn_ev e = {.run = f->run, .c = f->run->c, .g = f->g, .n = &none, .tmp = &f->tmp};
    if (v && !f->vals[v].set) ZN_TRY(load_const(&e, f, v));
    if (v) out[i] = zn_ev_share(&f->vals[v]);
  }
  return ZN_OK;
}

static void clear(zn_evframe *f) {
  for (uint32_t v = 1; v < f->g->num_vals; v++)
    if (!is_const(f->g, v) || !f->keep_consts) zn_ev_release(f->run, &f->vals[v]);
}

zn_status zn_ev_call(zn_evframe *f, const zn_eval_val *in, uint32_t num_in, zn_eval_val *out) {
  const zn_graph *g = f->g;
  if (num_in != g->num_inputs || f->run->depth >= MAX_DEPTH) {
    if (f->run->quiet) return ZN_ERR_MODEL;
    return zn_error(f->run->c, NULL, "body '%s' takes %u inputs, %u given (nesting depth %u)",
                    g->name, g->num_inputs, num_in, f->run->depth);
  }
  f->run->depth++;
  memcpy(f->left, f->uses, g->num_vals * sizeof *f->left);
  for (uint32_t i = 0; i < num_in; i++) f->vals[g->inputs[i]] = zn_ev_share(&in[i]);
  zn_status st = ZN_OK;
  for (uint32_t k = 0; st == ZN_OK && k < g->num_order; k++)
    if (!g->nodes[g->order[k]].dead) st = run_node(f, g->order[k]);
  memset(out, 0, g->num_outputs * sizeof *out);
  if (st == ZN_OK) st = take_outputs(f, out);
  clear(f);
  f->run->depth--;
  return st;
}

/* ---- entry points ---- */
static void run_init(zn_evrun *r, zn_ctx *c, zn_eval_mode mode, zn_arena *keep, zn_eval_tap *tap) {
  memset(r, 0, sizeof *r);
  r->c = c;
  r->mode = mode;
  r->keep = keep;
  r->tap = tap;
  r->list.prev = r->list.next = &r->list;
}

static void run_fini(zn_evrun *r) {
  for (zn_eval_buf *b = r->list.next, *next; b != &r->list; b = next) {
    next = b->next;
    free(b);
  }
}

static zn_eval_val keep_value(zn_arena *a, const zn_eval_val *v) {
  zn_eval_val k = *v;
  k.buf = NULL;
  if (!v->set) return k;
  if (v->kind == ZN_V_TENSOR) {
    k.u.p = zn_arena_array(a, v->count, zn_ev_esize((zn_dtype)v->dtype));
    memcpy(k.u.p, v->u.p, v->count * zn_ev_esize((zn_dtype)v->dtype));
  } else {
    k.u.items = ZN_ARRAY(a, zn_eval_val, v->count);
    for (uint64_t i = 0; i < v->count; i++) k.u.items[i] = keep_value(a, &v->u.items[i]);
  }
  return k;
}

zn_status zn_eval_graph(zn_ctx *c, const zn_graph *g, zn_eval_mode mode, zn_arena *a,
                        const zn_eval_val *in, zn_eval_val *out, zn_eval_tap *tap) {
  zn_evrun run;
  run_init(&run, c, mode, a, tap);
  zn_evframe f;
  frame_init(&f, &run, g);
  zn_eval_val *mine = ZN_ARRAY(&f.mem, zn_eval_val, g->num_outputs);
  zn_eval_val *given = ZN_ARRAY(&f.mem, zn_eval_val, g->num_inputs);
  for (uint32_t i = 0; i < g->num_inputs; i++) {
    given[i] = in[i];
    given[i].buf = NULL;
  }
  zn_status st = zn_ev_call(&f, given, g->num_inputs, mine);
  for (uint32_t i = 0; i < g->num_outputs; i++)
    out[i] = st == ZN_OK ? keep_value(a, &mine[i]) : (zn_eval_val){0};
  if (tap) tap->peak_bytes = run.peak;
  zn_arena_reset(&f.mem);
  zn_arena_reset(&f.tmp);
  run_fini(&run);
  return st;
}

static bool any_body(const zn_node *n) {
  for (uint32_t i = 0; i < n->num_attrs; i++)
    if (n->attrs[i].kind == ZN_A_GRAPH) return true;
  return false;
}

zn_status zn_eval_node(zn_ctx *c, zn_graph *g, zn_nid id, const zn_htensor **in, zn_htensor *out) {
  const zn_node *n = &g->nodes[id];
  if ((zn_ops[n->op].flags & ZN_OPF_RANDOM) || any_body(n)) return ZN_ERR_UNSUPPORTED;
  zn_evrun run;
  run_init(&run, c, ZN_EVAL_F64, g->arena, NULL);
  run.quiet = true;
  zn_arena tmp;
  zn_arena_init(&tmp, "eval-tmp");
  zn_eval_val *vals = ZN_ARRAY(&tmp, zn_eval_val, n->num_in);
  const zn_eval_val **ptrs = ZN_ARRAY(&tmp, const zn_eval_val *, n->num_in);
  for (uint32_t i = 0; i < n->num_in; i++) {
    if (!in[i]) continue;
    vals[i] = zn_eval_from_htensor(&tmp, in[i]);
    ptrs[i] = &vals[i];
  }
  zn_ev e = {.run = &run,
             .c = c,
             .g = g,
             .n = n,
             .id = id,
             .op = n->op,
             .num_in = n->num_in,
             .num_out = n->num_out,
             .tmp = &tmp,
             .in = ptrs};
  e.out = ZN_ARRAY(&tmp, zn_eval_val, n->num_out);
  zn_status st = run_op(&e);
  for (uint32_t i = 0; i < n->num_out; i++) {
    memset(&out[i], 0, sizeof out[i]);
    if (st != ZN_OK || !e.out[i].set) continue;
    if (e.out[i].kind != ZN_V_TENSOR) st = ZN_ERR_UNSUPPORTED;
    else out[i] = zn_eval_to_htensor(g->arena, &e.out[i]);
  }
  run_fini(&run);
  zn_arena_reset(&tmp);
  return st;
}
