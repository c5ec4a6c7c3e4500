/* The list of targets, from targets.def. */
#include "targets/target.h"

const zn_target *const zn_targets[] = {
#define TARGET(n) &zn_target_##n,
#include "targets/targets.def"
#undef TARGET
    NULL,
};

const zn_target *zn_target_find(const char *name) {
  for (const zn_target *const *t = zn_targets; *t; t++)
    if (!strcmp((*t)->name, name)) return *t;
  return NULL;
}
