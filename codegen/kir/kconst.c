/* Constants of a module: where artifacts hold them, and their bytes, which may be produced only when they are written. */
#include "codegen/kir/kir.h"

const void *zn_kconst_data(const zn_kconst *k, zn_arena *a) {
  if (k->data || !k->fill) return k->data;
  char *p = zn_arena_array(a, zn_kconst_bytes(k) + ZN_KCONST_ALIGN, 1);
  p += -(uintptr_t)p & (ZN_KCONST_ALIGN - 1);
  k->fill(k->user, p);
  return p;
}

static uint64_t round_up(uint64_t n) { return (n + ZN_KCONST_ALIGN - 1) / ZN_KCONST_ALIGN * ZN_KCONST_ALIGN; }

uint64_t *zn_kmod_const_places(const zn_kmod *m, zn_arena *a) {
  uint64_t *at = ZN_ARRAY(a, uint64_t, m->num_consts + 1);
  for (uint32_t i = 0; i < m->num_consts; i++) at[i + 1] = round_up(at[i] + zn_kconst_bytes(&m->consts[i]));
  return at;
}

uint64_t zn_kmod_consts_bytes(const zn_kmod *m) {
  uint64_t total = 0;
  for (uint32_t i = 0; i < m->num_consts; i++) total += round_up(zn_kconst_bytes(&m->consts[i]));
  return total || !m->num_consts ? total : ZN_KCONST_ALIGN; /* the address of an empty constant is some address */
}

bool zn_kmod_write_consts(const zn_kmod *m, FILE *f) {
  static const char zeros[ZN_KCONST_ALIGN];
  zn_arena a;
  zn_arena_init(&a, "constants");
  uint64_t at = 0;
  bool ok = true;
  for (uint32_t i = 0; i < m->num_consts && ok; i++) {
    uint64_t n = zn_kconst_bytes(&m->consts[i]), pad = round_up(n) - n;
    ok = (n == 0 || fwrite(zn_kconst_data(&m->consts[i], &a), 1, n, f) == n) && fwrite(zeros, 1, pad, f) == pad;
    at += n + pad;
    zn_arena_reset(&a);
  }
  for (; ok && at < zn_kmod_consts_bytes(m); at += sizeof zeros) ok = fwrite(zeros, 1, sizeof zeros, f) == sizeof zeros;
  return ok;
}
