/* Type and shape inference: binds the schema's type variables and checks arity and element types in
 * one place, calls the operator's inference function, and checks what it made. zn_infer_graph
 * visits every node in order and goes on after a failure, so that all problems of a model are
 * reported at once; nodes fed by a failed node are skipped. */
#include "zenithc/ops/infer_util.h"
#include "zenithc/passes/pass.h"

enum { MAX_VARS = 16 };
typedef struct binding {
  const char *name[MAX_VARS];
  zn_dtype dtype[MAX_VARS];
  uint32_t n;
} binding;

static zn_dtype *bound(binding *b, const char *name) {
  for (uint32_t i = 0; i < b->n; i++) {
    if (strcmp(b->name[i], name) == 0) return &b->dtype[i];
  }
  if (b->n == MAX_VARS) return NULL;
  b->name[b->n] = name;
  b->dtype[b->n] = ZN_NONE;
  return &b->dtype[b->n++];
}

static const zn_schema_io *io_at(const zn_schema_io *io, uint32_t n, uint32_t i) {
  if (i < n) return &io[i];
  return n && io[n - 1].variadic ? &io[n - 1] : NULL;
}

static zn_status check_arity(zn_ctx *c, const zn_node *nd, const zn_schema *s, const char *where) {
  const uint32_t ni = nd->num_in - nd->num_captures;
  if (ni < s->min_in || ni > s->max_in) {
    return zn_error(c, where, "%u inputs, expected %s%u", ni,
                    ni < s->min_in ? "at least " : "at most ",
                    ni < s->min_in ? s->min_in : s->max_in);
  }
  if (nd->num_out > s->max_out) {
    return zn_error(c, where, "%u outputs, expected at most %u", nd->num_out, s->max_out);
  }
  for (uint32_t i = 0; i < ni; i++) {
    const zn_schema_io *io = io_at(s->in, s->num_in, i);
    if (io && !io->optional && !io->variadic && !nd->in[i]) {
      return zn_error(c, where, "required input %u '%s' is absent", i + 1, io->name);
    }
  }
  return ZN_OK;
}

/* Does the set hold no tensors, only lists of them ("S=seq")? */
static bool only_lists(const zn_schema *s, const char *type) {
  const size_t n = strlen(type);
  for (const char *p = s->types; p && *p; p += strcspn(p, " "), p += *p == ' ') {
    if (strncmp(p, type, n) || p[n] != '=') continue;
    const char *set = p + n + 1;
    const size_t len = strcspn(set, " ");
    return len == 3 && (!strncmp(set, "seq", 3) || !strncmp(set, "opt", 3) || !strncmp(set, "map", 3));
  }
  return false;
}

static zn_status check_inputs(zn_ctx *c, const zn_graph *g, const zn_node *nd, const zn_schema *s,
                              const char *where, binding *b) {
  for (uint32_t i = 0; i < nd->num_in - nd->num_captures; i++) {
    const zn_schema_io *io = io_at(s->in, s->num_in, i);
    const zn_type *t = zn_in_type(g, nd, i);
    if (!io || !t || t->kind != ZN_V_TENSOR) continue;
    if (t->rank >= 0 && only_lists(s, io->type)) {
      return zn_error(c, where, "input %u '%s' is a tensor, which %s does not take", i + 1, io->name, zn_op_name(nd->op));
    }
    const zn_dtype d = (zn_dtype)t->dtype;
    if (d == ZN_NONE) continue;
    if (!zn_schema_allows(s, io->type, d)) {
      return zn_error(c, where, "input %u '%s' has element type %s, which %s does not take", i + 1,
                      io->name, zn_dtypes[d].name, zn_op_name(nd->op));
    }
    if (io->hetero) continue;
    zn_dtype *v = bound(b, io->type);
    if (v && *v != ZN_NONE && *v != d && zn_dtype_from_name(io->type) == ZN_NONE) {
      return zn_error(c, where,
                      "input %u '%s' has element type %s, but %s before it: both are '%s'", i + 1,
                      io->name, zn_dtypes[d].name, zn_dtypes[*v].name, io->type);
    }
    if (v) *v = d;
  }
  return ZN_OK;
}

/* The dtype of a type set that has just one (Shape's T1 = i64), else ZN_NONE. */
static zn_dtype only_member(const zn_schema *s, const char *type) {
  zn_dtype found = ZN_NONE;
  for (int t = ZN_NONE + 1; t < ZN_DTYPE_COUNT; t++) {
    if (!zn_schema_allows(s, type, (zn_dtype)t)) continue;
    if (found != ZN_NONE) return ZN_NONE;
    found = (zn_dtype)t;
  }
  return found;
}

static void start_outputs(zn_graph *g, const zn_node *nd, const zn_schema *s, binding *b) {
  for (uint32_t i = 0; i < nd->num_out; i++) {
    if (!nd->out[i]) continue;
    zn_value *v = &g->vals[nd->out[i]];
    const zn_schema_io *io = io_at(s->out, s->num_out, i);
    v->elems = NULL;
    v->content = NULL;
    v->num_elems = v->num_scaled = 0;
    v->type.rank = -1;
    if (!io || io->hetero) continue;
    const zn_dtype fixed = zn_dtype_from_name(io->type);
    const zn_dtype *d = bound(b, io->type);
    if (fixed != ZN_NONE) {
      v->type.dtype = (uint8_t)fixed;
    } else if (d && *d != ZN_NONE) {
      v->type.dtype = (uint8_t)*d;
    } else if (only_member(s, io->type) != ZN_NONE) {
      v->type.dtype = (uint8_t)only_member(s, io->type);
    }
  }
}

/* Is s the size of an axis of a graph input? Exporters declare results for the batch that they traced with. */
static bool is_input_size(const zn_graph *g, zn_expr s) {
  while (g->parent) g = g->parent;
  for (uint32_t i = 0; i < g->num_inputs; i++) {
    const zn_type *t = &g->vals[g->inputs[i]].type;
    for (int d = 0; d < t->rank; d++)
      if (t->dims[d] && zn_ex_depends(g->ex, t->dims[d], s)) return true;
  }
  return false;
}

/* A size that only data decides and nothing bounds is what the model declares: a run that finds another one is refused. */
static void fix_declared(zn_graph *g, zn_value *v) {
  zn_type *t = &v->type;
  int64_t lo, hi, want;
  for (int d = 0; v->declared && t->rank == v->declared->rank && d < t->rank; d++) {
    const zn_expr s = t->dims[d];
    if (!s || zn_ex_kind(g->ex, s) != ZN_EX_SYM || zn_ex_def(g->ex, s) || zn_ex_extent(g->ex, s)) continue;
    zn_ex_range(g->ex, s, &lo, &hi);
    if (hi < INT32_MAX || !zn_ex_is_const(g->ex, v->declared->dims[d], &want) || want < lo) continue;
    if (is_input_size(g, s)) continue;
    zn_ex_set_range(g->ex, s, want, want);
  }
}

static zn_status check_outputs(zn_ctx *c, zn_graph *g, const zn_node *nd, const zn_schema *s,
                               const char *where, const zn_type *before) {
  for (uint32_t i = 0; i < nd->num_out; i++) {
    if (!nd->out[i]) continue;
    zn_type *t = &g->vals[nd->out[i]].type;
    const zn_schema_io *io = io_at(s->out, s->num_out, i);
    if (t->kind != ZN_V_TENSOR) continue;
    if (t->rank < 0 && before[i].kind == ZN_V_TENSOR && before[i].rank >= 0) {
      t->rank = before[i].rank; /* the model's own declaration, when nothing better is known */
      memcpy(t->dims, before[i].dims, sizeof t->dims);
    }
    fix_declared(g, &g->vals[nd->out[i]]);
    if (t->dtype == ZN_NONE) {
      return zn_error(c, where, "the element type of output %u cannot be inferred", i + 1);
    }
    if (io && !zn_schema_allows(s, io->type, (zn_dtype)t->dtype)) {
      return zn_error(c, where, "output %u '%s' has element type %s, which %s does not give", i + 1,
                      io->name, zn_dtypes[t->dtype].name, zn_op_name(nd->op));
    }
    for (int d = 0; d < t->rank; d++) {
      int64_t x;
      if (t->dims[d] == ZN_EX_OVERFLOW || (zn_ex_is_const(g->ex, t->dims[d], &x) && x < 0)) {
        return zn_error(c, where, "dimension %d of output %u is %s", d, i + 1,
                        t->dims[d] == ZN_EX_OVERFLOW ? "too large" : "negative");
      }
      /* a text may leave a size open (`?`): it is a symbol that nothing sets */
      if (t->dims[d] == ZN_EX_NONE) t->dims[d] = zn_inf_fresh_of(g, nd->out[i], (uint32_t)d, 0, INT64_MAX);
    }
  }
  return ZN_OK;
}

zn_status zn_infer_node(zn_ctx *c, zn_graph *g, zn_nid n) {
  const zn_node *nd = &g->nodes[n];
  const zn_schema *s = zn_op_schema(nd->op);
  const char *where = zn_node_where(c, nd);
  binding b = {.n = 0};
  zn_type *before = ZN_ARRAY(&c->tmp, zn_type, nd->num_out + 1);
  ZN_TRY(check_arity(c, nd, s, where));
  ZN_TRY(check_inputs(c, g, nd, s, where, &b));
  for (uint32_t i = 0; i < nd->num_out; i++) {
    if (nd->out[i]) before[i] = g->vals[nd->out[i]].type;
  }
  start_outputs(g, nd, s, &b);
  ZN_TRY(zn_ops[nd->op].infer(c, g, n));
  return check_outputs(c, g, &g->nodes[n], s, where, before);
}

/* A scalar integer input, or a short list of those that decide shapes, may become sizes (a length to Range over, positions
 * to Slice at): its contents get their symbols at once, so that every use of them in arithmetic knows them. */
static void name_input_contents(zn_ctx *c, zn_graph *g) {
  for (uint32_t i = 0; i < g->num_inputs; i++) {
    zn_value *v = &g->vals[g->inputs[i]];
    if (v->elems || v->type.kind != ZN_V_TENSOR ||
        (v->type.dtype != ZN_I64 && v->type.dtype != ZN_I32)) {
      continue;
    }
    int64_t n = 1;
    if (v->type.rank > 1 || (v->type.rank == 1 && !zn_ex_is_const(g->ex, v->type.dims[0], &n))) continue;
    if (n != 1 && (n < 1 || n > ZN_MAX_RANK || !zn_input_decides_shape(c, g, g->inputs[i]))) continue;
    v->elems = ZN_ARRAY(g->arena, zn_expr, n);
    v->content = ZN_ARRAY(g->arena, zn_expr, n);
    v->num_elems = (uint32_t)n;
    for (int64_t k = 0; k < n; k++) {
      const char *name = zn_arena_printf(g->arena, "%s[%d]", v->name, (int)k);
      v->elems[k] = v->content[k] = zn_ex_sym(g->ex, name, INT64_MIN, INT64_MAX);
    }
  }
}

zn_status zn_infer_graph(zn_ctx *c, zn_graph *g) {
  zn_status first = ZN_OK;
  if (!g->parent) name_input_contents(c, g);
  bool *bad = ZN_ARRAY(&c->tmp, bool, g->num_vals);
  for (uint32_t k = 0; k < g->num_order; k++) {
    const zn_nid n = g->order[k];
    const zn_node *nd = &g->nodes[n];
    if (nd->dead) continue;
    bool skip = false;
    for (uint32_t i = 0; i < nd->num_in; i++) skip |= nd->in[i] && bad[nd->in[i]];
    const zn_status st = skip ? first : zn_infer_node(c, g, n);
    if (st == ZN_OK) continue;
    if (first == ZN_OK) first = st;
    for (uint32_t i = 0; i < nd->num_out; i++) {
      if (nd->out[i]) bad[nd->out[i]] = true;
    }
  }
  return first;
}

zn_status zn_pass_infer(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  (void)o;
  return zn_infer_graph(c, g);
}
