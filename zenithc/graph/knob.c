/* Signatures of kernels, and questions to the table of measured choices. */
#include "zenithc/graph/knob.h"

#include <inttypes.h>

#include "zenithc/ops/op.h"

static void put_dims(zn_text *t, const zn_graph *g, const zn_type *ty) {
  zn_text_puts(t, "[");
  for (int d = 0; d < ty->rank; d++) {
    if (d) zn_text_puts(t, ",");
    zn_ex_print(g->ex, ty->dims[d], t);
  }
  zn_text_puts(t, "]");
}

/* "f32[64,64,1,1]", a constant with '=', blocks of channels and borders behind '/'. */
static void put_value(zn_text *t, const zn_graph *g, zn_vid v) {
  const zn_value *x = &g->vals[v];
  if (!v) {
    zn_text_puts(t, "-");
    return;
  }
  zn_text_printf(t, "%s%s", x->cst ? "=" : "", zn_dtypes[x->type.dtype].name);
  put_dims(t, g, &x->type);
  if (x->layout.block || x->layout.has_halo) zn_text_printf(t, "/%u", x->layout.block);
  for (int d = 0; x->layout.has_halo && d < x->type.rank; d++)
    if (x->layout.lo[d] + x->layout.hi[d]) zn_text_printf(t, "+%u+%u", x->layout.lo[d], x->layout.hi[d]);
}

static void put_attr(zn_text *t, const zn_attr *a) {
  zn_text_printf(t, " %s=", a->name);
  if (a->kind == ZN_A_INT) zn_text_printf(t, "%" PRId64, a->u.i);
  if (a->kind == ZN_A_FLOAT) zn_text_printf(t, "%.9g", a->u.f);
  if (a->kind == ZN_A_STRING) zn_text_put(t, a->u.s.ptr, a->u.s.len);
  for (uint32_t i = 0; a->kind == ZN_A_INTS && i < a->n; i++) zn_text_printf(t, "%s%" PRId64, i ? "," : "", a->u.is[i]);
}

const char *zn_knob_signature(zn_arena *a, const zn_graph *g, zn_nid id, const char *arch, bool math_fast) {
  const zn_node *n = &g->nodes[id];
  zn_text t;
  zn_text_init(&t, a);
  zn_text_printf(&t, "%s%s %s(", arch ? arch : "", math_fast ? " fast" : "", zn_op_name(n->op));
  for (uint32_t i = 0; i < n->num_in; i++) {
    if (i) zn_text_puts(&t, ", ");
    put_value(&t, g, n->in[i]);
  }
  zn_text_puts(&t, ")");
  for (uint32_t i = 0; i < n->num_out; i++) {
    zn_text_puts(&t, " ");
    put_value(&t, g, n->out[i]);
  }
  for (uint32_t i = 0; i < n->num_attrs; i++) put_attr(&t, &n->attrs[i]);
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *m = &g->nodes[g->order[i]];
    if (g->order[i] != id && m->group == id) zn_text_printf(&t, " + %s", zn_op_name(m->op));
  }
  return t.s;
}

int64_t zn_knob_ask(const zn_knobs *k, const char *signature, const char *knob, int64_t usual, const int64_t *choices,
                    uint32_t n) {
  int64_t v;
  if (!k) return usual;
  if (k->asked) k->asked(k->user, signature, knob, usual, choices, n);
  if (!k->find || !k->find(k->user, signature, knob, &v)) return usual;
  for (uint32_t i = 0; i < n; i++)
    if (choices[i] == v) return v;
  return usual;
}
