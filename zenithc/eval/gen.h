/* Generated inputs: seeded, the same on every host, and fit for the graph: integers that index a
 * table stay inside it, masks are 0 or 1, lengths fit their axis, images lie in [0, 1], symbolic
 * dimensions take small values in their range. */
#ifndef ZN_GEN_H
#define ZN_GEN_H
#include "zenithc/graph/graph.h"

typedef enum zn_gen_kind {
  ZN_GEN_NORMAL,
  ZN_GEN_UNIFORM,
  ZN_GEN_ZEROS,
  ZN_GEN_ONES,
  ZN_GEN_IMPULSE,
  ZN_GEN_SPARSE,
  ZN_GEN_KINDS
} zn_gen_kind;

typedef struct zn_gen_dim { /* a symbol's value */
  const char *name;
  int64_t value;
} zn_gen_dim;

/* Values of the symbols in the dims of g's inputs: those given, the rest chosen (batch-like 2,
 * spatial 32 * grow, others 8 * grow, within the symbol's bounds). Array of *out_n from a. */
zn_gen_dim *zn_gen_dims(const zn_graph *g, zn_arena *a, const zn_gen_dim *given, uint32_t num_given,
                        int64_t grow, uint32_t *out_n);
/* out: g->num_inputs values from a. given/num_given as above. Strings are often words that the model looks for, bytes
 * for an ImageDecoder an image file; the
 * items of a sequence have one shape. */
zn_status zn_gen_inputs(zn_ctx *c, const zn_graph *g, zn_arena *a, zn_gen_kind kind, uint64_t seed,
                        const zn_gen_dim *given, uint32_t num_given, zn_htensor *out);
const char *zn_gen_kind_name(zn_gen_kind k);
#endif
