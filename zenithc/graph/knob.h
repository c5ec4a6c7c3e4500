/* Knobs: decisions of schedules that the analytic model makes, unless measurements on a machine say otherwise. A schedule
 * asks with the choice it would make and the others that are right as well; whatever comes back is one of them, so a wrong
 * answer can only be slow. The table behind the questions is the caller's (zenithc/tune): lowering stays a function of
 * graph, caps and answers. */
#ifndef ZN_KNOB_H
#define ZN_KNOB_H
#include "zenithc/graph/graph.h"

typedef struct zn_knobs {
  /* The value for a knob of kernels with this signature; false: none is known. */
  bool (*find)(void *user, const char *signature, const char *knob, int64_t *out);
  /* Told of every question, or NULL; choices[] holds the model's choice too. All strings live as long as the graph. */
  void (*asked)(void *user, const char *signature, const char *knob, int64_t usual, const int64_t *choices, uint32_t n);
  void *user;
} zn_knobs;

enum { ZN_KNOB_MAX_CHOICES = 16 };

/* What makes kernels of node n equal: operator, types, shapes, layouts and attributes, and the operators fused behind it,
 * for one architecture and mathematics, in a:
 *   "x86-64-v3 Conv(f32[1,64,56,56]/8, =f32[64,64,1,1]) f32[1,64,56,56]/8 kernel_shape=1,1 ... + Relu" */
const char *zn_knob_signature(zn_arena *a, const zn_graph *g, zn_nid n, const char *arch, bool math_fast);
/* usual, or what the table says when that is one of the n choices. */
int64_t zn_knob_ask(const zn_knobs *k, const char *signature, const char *knob, int64_t usual, const int64_t *choices,
                    uint32_t n);
#endif
