/* Hash table from names to numbers: open addressing, at most half full. */
#include "frontends/onnx/import.h"

static uint32_t hash(const char *s) {
  uint64_t h = 0xcbf29ce484222325u;
  for (; *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001b3u;
  h ^= h >> 29;
  h *= 0xbf58476d1ce4e5b9u;
  return (uint32_t)(h >> 32);
}

static struct zn_name_slot *find(const zn_names *m, const char *key, uint32_t h) {
  for (uint32_t i = h & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
    struct zn_name_slot *s = &m->slots[i];
    if (!s->key || (s->hash == h && !strcmp(s->key, key))) return s;
  }
}

static void grow(zn_names *m) {
  zn_names old = *m;
  m->cap = old.cap ? old.cap * 2 : 16;
  m->slots = ZN_ARRAY(m->a, struct zn_name_slot, m->cap);
  for (uint32_t i = 0; i < old.cap; i++)
    if (old.slots[i].key) *find(m, old.slots[i].key, old.slots[i].hash) = old.slots[i];
}

bool zn_names_put(zn_names *m, const char *key, uint32_t val) {
  if (m->n * 2 >= m->cap) grow(m);
  uint32_t h = hash(key);
  struct zn_name_slot *s = find(m, key, h);
  if (s->key) return false;
  *s = (struct zn_name_slot){key, h, val};
  m->n++;
  return true;
}

bool zn_names_get(const zn_names *m, const char *key, uint32_t *out) {
  if (!m->cap) return false;
  const struct zn_name_slot *s = find(m, key, hash(key));
  if (s->key) *out = s->val;
  return s->key != NULL;
}

void zn_names_set(zn_names *m, const char *key, uint32_t val) {
  if (!zn_names_put(m, key, val)) find(m, key, hash(key))->val = val;
}
