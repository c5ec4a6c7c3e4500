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

/* ---- one list for several modules ---- */

typedef struct united {
  zn_kconst *list;
  uint64_t *hash; /* of the bytes, by constant */
  uint32_t num, cap;
} united;

static uint64_t hash_bytes(const char *p, uint64_t n) {
  uint64_t h = n * 0x9e3779b97f4a7c15u, w;
  for (; n; p += n < 8 ? n : 8, n -= n < 8 ? n : 8) {
    w = 0;
    memcpy(&w, p, n < 8 ? n : 8);
    h = (h ^ w) * 0xff51afd7ed558ccdu;
    h ^= h >> 32;
  }
  return h;
}

static bool same_bytes(const zn_kconst *x, const zn_kconst *y, zn_arena *tmp) {
  uint64_t n = zn_kconst_bytes(x);
  return n == 0 || (x->data && x->data == y->data) || !memcmp(zn_kconst_data(x, tmp), zn_kconst_data(y, tmp), n);
}

/* Number of k in the list, which grows when it is new. */
static uint32_t unite_one(united *u, zn_kconst k, zn_arena *a, zn_arena *tmp) {
  uint64_t n = zn_kconst_bytes(&k), h = n ? hash_bytes(zn_kconst_data(&k, tmp), n) : 0;
  for (uint32_t i = 0; i < u->num; i++)
    if (u->hash[i] == h && zn_kconst_bytes(&u->list[i]) == n && u->list[i].dtype == k.dtype &&
        same_bytes(&u->list[i], &k, tmp))
      return i;
  u->hash[u->num] = h;
  ZN_PUSH(a, u->list, u->num, u->cap, k);
  return u->num - 1;
}

static void renumber(zn_kmod *m, const uint32_t *to) {
  for (uint32_t i = 0; i < m->num_funcs; i++)
    for (uint32_t k = 1; k < m->funcs[i]->num_insts; k++) {
      zn_kinst *in = &m->funcs[i]->insts[k];
      if (in->op == ZN_K_ConstAddr) in->imm.i = to[in->imm.i];
    }
}

void zn_kmod_drop_consts(zn_kmod *m) {
  uint32_t *to = ZN_ARRAY(m->arena, uint32_t, m->num_consts + 1), n = 0;
  for (uint32_t i = 0; i < m->num_funcs; i++)
    for (uint32_t k = 1; k < m->funcs[i]->num_insts; k++)
      if (m->funcs[i]->insts[k].op == ZN_K_ConstAddr) to[m->funcs[i]->insts[k].imm.i] = 1;
  for (uint32_t i = 0; i < m->num_consts; i++) {
    if (!to[i]) continue;
    m->consts[n] = m->consts[i];
    to[i] = n++;
  }
  m->num_consts = n;
  renumber(m, to);
}

void zn_kmod_unite(zn_kmod *const *mods, uint32_t n, zn_arena *a) {
  united u = {0};
  uint64_t workspace = 0;
  uint32_t most = 0;
  zn_arena tmp;
  zn_arena_init(&tmp, "constants");
  for (uint32_t i = 0; i < n; i++) most += mods[i]->num_consts;
  u.hash = ZN_ARRAY(a, uint64_t, most + 1);
  for (uint32_t i = 0; i < n; i++) {
    uint32_t *to = ZN_ARRAY(a, uint32_t, mods[i]->num_consts + 1);
    for (uint32_t k = 0; k < mods[i]->num_consts; k++) {
      to[k] = unite_one(&u, mods[i]->consts[k], a, &tmp);
      zn_arena_reset(&tmp);
    }
    renumber(mods[i], to);
    if (mods[i]->workspace_bytes > workspace) workspace = mods[i]->workspace_bytes;
  }
  for (uint32_t i = 0; i < n; i++) {
    mods[i]->consts = u.list;
    mods[i]->num_consts = mods[i]->cap_consts = u.num;
    mods[i]->workspace_bytes = workspace;
  }
}
