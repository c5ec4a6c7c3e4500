/* RegexFullMatch: the pattern is an automaton made at compile time; a kernel walks its table over the bytes. */
#include "codegen/lower/regex.h"

#include "codegen/lower/sortkeys.h"
#include "codegen/lower/strvalue.h"

typedef struct matcher {
  const zn_dfa *d;
  zn_loc cls, next, accept;
} matcher;

static matcher *make(zn_lw *lw, zn_nid n) {
  const zn_attr *a = zn_node_attr(zn_lw_node(lw, n), "pattern");
  const char *why = "it has no pattern";
  matcher *m = ZN_NEW(lw->arena, matcher);
  m->d = a ? zn_dfa_compile(lw->arena, a->u.s.ptr, a->u.s.len, &why) : NULL;
  if (!m->d) {
    zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, zn_lw_node(lw, n)), "the pattern cannot be compiled: %s", why);
    return NULL;
  }
  m->cls = zn_lw_const(lw, "regex_classes", ZN_U8, 256, m->d->cls);
  m->next = zn_lw_const(lw, "regex_next", ZN_U16, (uint64_t)m->d->num_states * m->d->num_classes, m->d->next);
  m->accept = zn_lw_const(lw, "regex_accept", ZN_U8, m->d->num_states, m->d->accept);
  return m;
}

static zn_kref matches(zn_lw *lw, const matcher *m, zn_kref text) {
  zn_kb *b = &lw->kb;
  zn_kref cls = zn_lw_ptr_loc(lw, m->cls, ZN_KP_IN, ZN_U8), next = zn_lw_ptr_loc(lw, m->next, ZN_KP_IN, ZN_U16);
  zn_kref accept = zn_lw_ptr_loc(lw, m->accept, ZN_KP_IN, ZN_U8), data = zn_sv_data(lw, text);
  zn_kref state = zn_kb_var(b, zn_kb_idx(b, 0)), width = zn_kb_idx(b, m->d->num_classes);
  zn_kref i = zn_s_for(lw, zn_sv_len(lw, text));
  zn_kref byte = zn_kb_cvt(b, zn_kb_load(b, ZN_U8, 1, data, i), ZN_IDX);
  zn_kref c = zn_kb_cvt(b, zn_kb_load(b, ZN_U8, 1, cls, byte), ZN_IDX), row = zn_s_mul(lw, zn_kb_get(b, state), width);
  zn_kb_set(b, state, zn_kb_cvt(b, zn_kb_load(b, ZN_U16, 1, next, zn_s_add(lw, row, c)), ZN_IDX));
  zn_kb_end(b);
  zn_kref yes = zn_kb_load(b, ZN_U8, 1, accept, zn_kb_get(b, state));
  return zn_kb_cmp(b, ZN_K_Ne, yes, zn_kb_int(b, ZN_U8, 0));
}

static zn_status regex_kernel(zn_lw *lw, zn_nid n) {
  zn_vid x = zn_lw_node(lw, n)->in[0], y = zn_lw_node(lw, n)->out[0];
  const zn_type t = *zn_lw_type(lw, y);
  matcher *m = make(lw, n);
  if (!m) return ZN_ERR_UNSUPPORTED;
  zn_expr idx[ZN_MAX_RANK];
  zn_lw_kernel(lw, n, "regex");
  zn_lw_grid(lw, (uint32_t)t.rank, t.dims, idx);
  zn_lw_store(lw, y, idx, matches(lw, m, zn_lw_load(lw, x, idx)));
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_regex = {NULL, regex_kernel};
