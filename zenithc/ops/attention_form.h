/* Attention as algebra: softmax(f(Q K'))V, where f is any elementwise map of the scores (scale, mask, soft cap, selection).
 * Shared by fusion, which decides whether it becomes one kernel, and by the lowerings of that kernel: on matrix units
 * (codegen/lower/attend.c) and with vectors (attend_strip.c). */
#ifndef ZN_ATTENTION_FORM_H
#define ZN_ATTENTION_FORM_H
#include "zenithc/base/caps.h"
#include "zenithc/ops/op.h"

enum { ZN_AT_FMA_ROWS = 64, ZN_AT_FMA_KEYS = 64 }; /* most rows of a block, keys of a tile (codegen/lower/attend_fma.c) */

typedef struct zn_attend {
  zn_nid scores, softmax;
  zn_vid q, kt, v;    /* [..., Sq, D], [..., D, Sk], [..., Sk, Dv], leading axes equal */
  zn_vid s, x, p;     /* scores, their map, probabilities: [..., Sq, Sk] */
  zn_nid guard[3];    /* p = Where(Equal(ReduceMax(x), -inf), 0, softmax): rows without any key are zero; or zeros */
  int64_t sq, sk, d, dv; /* sq, sk: -1 where only the run knows */
} zn_attend;

/* Is MatMul n the last product of an attention whose intermediate values nobody else reads, of sizes and types that the
 * fused kernel takes on a target of these capabilities (may be NULL: no)? uses: zn_graph_uses. */
bool zn_attend_find(const zn_graph *g, const uint32_t *uses, const zn_caps *caps, zn_nid n, zn_attend *out);
#endif
