/* Minimum s-t cut: which of two sides each variable takes so that the sum of the costs of the cut edges is least. */
#ifndef ZN_MINCUT_H
#define ZN_MINCUT_H
#include <stdbool.h>

#include "zenithc/base/arena.h"

typedef struct zn_mincut zn_mincut;
enum { ZN_CUT_SOURCE = 0, ZN_CUT_SINK = 1 };
#define ZN_CUT_FORBIDDEN ((int64_t)1 << 50)

zn_mincut *zn_mincut_new(zn_arena *a);
/* A further vertex; 0 and 1 are the source and the sink. */
uint32_t zn_mincut_vertex(zn_mincut *m);
/* `cost` is paid when u is on the source's side and v on the sink's. */
void zn_mincut_edge(zn_mincut *m, uint32_t u, uint32_t v, int64_t cost);
/* Side of each vertex (true: the source's) in a cut of least cost, the one with the fewest vertices beside the source;
 * array from the arena. Dinic's algorithm (Soviet Math. Doklady 11, 1970). */
bool *zn_mincut_solve(zn_mincut *m);
#endif
