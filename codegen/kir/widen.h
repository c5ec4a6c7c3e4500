/* Private to widen*.c: what one marked loop's values look like across its replicas (lanes or
 * unrolled copies). */
#ifndef ZN_WIDEN_H
#define ZN_WIDEN_H
#include "codegen/kir/kir.h"

typedef struct zn_wplan {
  const zn_kfunc *f;
  const uint32_t *match; /* zn_kf_match of f */
  const zn_caps *caps;
  uint32_t loop, end; /* the For and its End */
  bool vector;        /* lanes of one instruction, else separate replicas */
  bool ok;            /* may be widened; everything below only holds then */
  bool changed;       /* the fixpoint moved */
  unsigned widest;    /* bytes of the widest varying element, 1 at least */
  unsigned widest_var; /* the same of varying variables alone; 0 without any */
  uint32_t num_varying;
  /* Indexed by instruction of f; meaningful inside the loop. A value is base + replica * stride,
   * stride 0 when uniform, unless it varies freely. */
  uint8_t *varying;
  int64_t *stride;    /* integers: value, pointers: bytes */
  uint8_t *divergent; /* For, If, Loop: replicas may go different ways */
  uint8_t *splat;     /* not varying but used as a vector (also set for values before the loop) */
} zn_wplan;

/* Classifies the body of the loop at `loop` for replicas `stride` apart; the arrays come from a. */
void zn_wplan_make(zn_wplan *p, const zn_kfunc *f, const uint32_t *match, uint32_t loop,
                   bool vector, int64_t stride, const zn_caps *caps, zn_arena *a);
/* Element distance between replicas of a Load's or Store's address; false when it is no constant.
 */
bool zn_wplan_address(const zn_wplan *p, const zn_kinst *in, int64_t *out_stride);
/* The part of it that the pointer contributes; false when that is no constant number of elements.
 */
bool zn_wplan_pointer(const zn_wplan *p, const zn_kinst *in, int64_t *out_stride);
/* Number of iterations of the For at i when it is a known constant; *out_multiple: a known divisor
 * of it. */
bool zn_wplan_trips(const zn_kfunc *f, uint32_t i, int64_t *out_trips, int64_t *out_multiple);
/* Is slot k (0 1 2) of an instruction a value reference? Call's arguments are not covered. */
static inline bool zn_kinst_has(const zn_kinst *in, unsigned k) {
  return zn_kops[in->op].sig[k] != '-';
}
static inline zn_kref zn_kinst_ref(const zn_kinst *in, unsigned k) {
  return k == 0 ? in->a : k == 1 ? in->b : in->c;
}
#endif
