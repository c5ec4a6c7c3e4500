/* Seeds of random operators. */
#include "zenithc/ops/random.h"

uint64_t zn_random_seed(const zn_node *n) {
  const zn_attr *a = zn_node_attr(n, "seed");
  uint64_t s = UINT64_C(1469598103934665603); /* FNV-1a of the name */
  if (a && a->kind == ZN_A_INT) return (uint64_t)a->u.i;
  if (a && a->kind == ZN_A_FLOAT) {
    memcpy(&s, &a->u.f, sizeof s);
    return s;
  }
  for (const char *p = n->name; p && *p; p++) s = (s ^ (unsigned char)*p) * UINT64_C(1099511628211);
  return s;
}
