/* The kernels of an artifact in shares of about equal size, which LLVM compiles side by side. The division depends on the
 * kernels alone: the same bytes from every machine. */
#include "codegen/llvm/llvm_emit.h"

enum { PART_INSTS = 6000 }; /* a context and a target machine cost as much as some hundreds */

static const zn_kmod *module_of(const zn_kmod *mod, const zn_llvm_opts *o, uint32_t i) { return i ? o->more[i - 1].mod : mod; }

uint32_t zn_llvm_parts(const zn_kmod *mod, const zn_llvm_opts *o) {
  uint64_t insts = 0, kernels = 0;
  for (uint32_t v = 0; v <= o->num_more; v++) {
    const zn_kmod *m = module_of(mod, o, v);
    for (uint32_t i = 0; i < m->num_funcs; i++)
      if (!m->funcs[i]->is_entry) insts += m->funcs[i]->num_insts, kernels++;
  }
  uint64_t n = insts / PART_INSTS;
  if (n > kernels) n = kernels;
  return n < 1 ? 1 : n > ZN_LLVM_MAX_PARTS ? ZN_LLVM_MAX_PARTS : (uint32_t)n;
}

typedef struct item {
  uint32_t size, at; /* at: position in the result */
} item;

static int larger_first(const void *a, const void *b) {
  const item *x = a, *y = b;
  if (x->size != y->size) return x->size > y->size ? -1 : 1;
  return x->at < y->at ? -1 : x->at > y->at;
}

const uint32_t *zn_llvm_shares(zn_arena *a, const zn_kmod *mod, const zn_llvm_opts *o) {
  uint32_t total = 0, n = 0, at = 0;
  uint64_t load[ZN_LLVM_MAX_PARTS] = {0};
  for (uint32_t v = 0; v <= o->num_more; v++) total += module_of(mod, o, v)->num_funcs;
  uint32_t *share = ZN_ARRAY(a, uint32_t, total + 1);
  item *items = ZN_ARRAY(a, item, total + 1);
  for (uint32_t v = 0; v <= o->num_more; v++) {
    const zn_kmod *m = module_of(mod, o, v);
    for (uint32_t i = 0; i < m->num_funcs; i++, at++) {
      if (m->funcs[i]->is_entry) load[0] += m->funcs[i]->num_insts;
      else items[n++] = (item){m->funcs[i]->num_insts, at};
    }
  }
  qsort(items, n, sizeof *items, larger_first);
  for (uint32_t i = 0; i < n; i++) {
    uint32_t least = 0;
    for (uint32_t p = 1; p < o->parts; p++)
      if (load[p] < load[least]) least = p;
    share[items[i].at] = least;
    load[least] += items[i].size;
  }
  return share;
}
