/* Constant lists of keys that elements are looked up in. */
#ifndef ZN_LABELS_H
#define ZN_LABELS_H
#include "codegen/lower/strvalue.h"

typedef struct zn_keys { /* as given: one of the three lists */
  const zn_str *s;
  const int64_t *i;
  const double *f;
  uint32_t n;
} zn_keys;
typedef struct zn_lookup zn_lookup;

/* memo: the same address gives the same lookup again. last: of equal keys the last counts, else the first. */
const zn_lookup *zn_lookup_make(zn_lw *lw, const void *memo, const zn_keys *k, bool last);
/* Number of the first key that equals key i. */
uint32_t zn_lookup_first(const zn_keys *k, uint32_t i);
uint32_t zn_lookup_count(const zn_lookup *l); /* keys given */
/* Number of the key that equals x (a kernel value; idx value), zn_lookup_count when there is none. */
zn_kref zn_lookup_find(zn_lw *lw, const zn_lookup *l, zn_kref x);
#endif
