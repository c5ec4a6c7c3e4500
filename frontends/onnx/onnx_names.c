/* Hash table from names to numbers: open addressing, at most half full. */
#include "frontends/onnx/import.h"

static uint32_t hash(const char *s) {
  uint64_t h = 0xcbf29ce484222325u;
  for (; *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001b3u;
  h ^= h >> 29;
  h *= 0xbf58476d1ce4e5b9u;
  return (uint32_t)(h >> 32);
}

static struct zn_nmap_slot *find(const zn_nmap *m, const char *key, uint32_t h) {
  for (uint32_t i = h & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
    struct zn_nmap_slot *s = &m->slots[i];
    if (!s->key || (s->hash == h && !strcmp(s->key, key))) return s;
  }
}

static void grow(zn_nmap *m) {
  zn_nmap old = *m;
  m->cap = old.cap ? old.cap * 2 : 16;
  m->slots = ZN_ARRAY(m->a, struct zn_nmap_slot, m->cap);
  for (uint32_t i = 0; i < old.cap; i++)
    if (old.slots[i].key) *find(m, old.slots[i].key, old.slots[i].hash) = old.slots[i];
}

bool zn_nmap_put(zn_nmap *m, const char *key, uint32_t val) {
  if (m->n * 2 >= m->cap) grow(m);
  uint32_t h = hash(key);
  struct zn_nmap_slot *s = find(m, key, h);
  if (s->key) return false;
  *s = (struct zn_nmap_slot){key, h, val};
  m->n++;
  return true;
}

bool zn_nmap_get(const zn_nmap *m, const char *key, uint32_t *out) {
  if (!m->cap) return false;
  const struct zn_nmap_slot *s = find(m, key, hash(key));
  if (s->key) *out = s->val;
  return s->key != NULL;
}

void zn_nmap_set(zn_nmap *m, const char *key, uint32_t val) {
  if (!zn_nmap_put(m, key, val)) find(m, key, hash(key))->val = val;
}
