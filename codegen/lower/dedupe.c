/* Kernels with equal bodies become one: repeated layers differ only in their arguments. Comparison is exact (the hash
 * only finds candidates); the first of equals stays, so that the order of functions follows the program. */
#include "codegen/lower/program.h"

static uint64_t mix(uint64_t h, uint64_t v) {
  h = (h ^ v) * 0x9e3779b97f4a7c15u;
  return h ^ (h >> 29);
}

static uint64_t hash_of(const zn_kfunc *f) {
  uint64_t h = mix(f->num_insts, f->num_params);
  for (uint32_t i = 0; i < f->num_insts; i++) {
    const zn_kinst *in = &f->insts[i];
    h = mix(h, in->op | (uint64_t)in->dtype << 8 | (uint64_t)in->lanes << 16 | (uint64_t)in->a << 32);
    h = mix(h, in->b | (uint64_t)in->c << 32);
    h = mix(h, (uint64_t)in->imm.i);
  }
  return h;
}

static bool equal(const zn_kfunc *a, const zn_kfunc *b) {
  if (a->num_insts != b->num_insts || a->num_params != b->num_params || a->num_extra != b->num_extra)
    return false;
  if (a->is_entry || b->is_entry || a->exported || b->exported || a->on_host != b->on_host) return false;
  for (uint32_t i = 0; i < a->num_params; i++)
    if (a->params[i].kind != b->params[i].kind || a->params[i].dtype != b->params[i].dtype ||
        a->params[i].align != b->params[i].align)
      return false;
  for (uint32_t i = 0; i < a->num_insts; i++) {
    const zn_kinst *p = &a->insts[i], *q = &b->insts[i];
    if (p->op != q->op || p->dtype != q->dtype || p->lanes != q->lanes || p->a != q->a || p->b != q->b ||
        p->c != q->c || p->imm.i != q->imm.i)
      return false;
  }
  for (uint32_t i = 0; i < a->num_extra; i++)
    if (a->extra[i] != b->extra[i]) return false;
  return true;
}

/* Before any entry calls them: steps name kernels by number. */
void zn_lower_dedupe(zn_lw *lw) {
  zn_kmod *m = lw->mod;
  uint32_t n = m->num_funcs, kept = 0, size = 16;
  while (size < 2 * n) size *= 2;
  uint64_t *hash = ZN_ARRAY(&lw->ctx->tmp, uint64_t, n + 1);
  uint32_t *to = ZN_ARRAY(&lw->ctx->tmp, uint32_t, n + 1);
  uint32_t *users = ZN_ARRAY(&lw->ctx->tmp, uint32_t, n + 1);
  uint32_t *slot = ZN_ARRAY(&lw->ctx->tmp, uint32_t, size); /* kept function + 1 */
  for (uint32_t i = 0; i < n; i++) {
    zn_kfunc *f = m->funcs[i];
    uint64_t h = hash_of(f);
    uint32_t s = (uint32_t)h & (size - 1);
    while (slot[s] && !(hash[slot[s] - 1] == h && equal(m->funcs[slot[s] - 1], f))) s = (s + 1) & (size - 1);
    if (!slot[s]) {
      m->funcs[kept] = f;
      hash[kept++] = h;
      slot[s] = kept;
    }
    to[i] = slot[s] - 1;
    users[to[i]]++;
  }
  for (uint32_t i = 0; i < kept; i++)
    if (users[i] > 1 && m->funcs[i]->note)
      m->funcs[i]->note = zn_arena_printf(lw->arena, "%s and %u alike", m->funcs[i]->note, users[i] - 1);
  m->num_funcs = kept;
  for (uint32_t i = 0; i < lw->num_steps; i++)
    if (lw->steps[i].kind == ZN_STEP_CALL) lw->steps[i].fn = to[lw->steps[i].fn];
}
