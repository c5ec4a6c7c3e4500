/* Dinic's maximum flow; the vertices that the source still reaches in the residual graph are its side of the cut. */
#include "zenithc/passes/mincut.h"

typedef struct edge {
  uint32_t to, next; /* next: index + 1 of the next edge of the same vertex, 0 = last */
  int64_t room;
} edge;

struct zn_mincut {
  zn_arena *a;
  edge *edges; /* i and i ^ 1 are each other's reverse */
  uint32_t num_edges, cap_edges;
  uint32_t *first; /* per vertex: index + 1 of its first edge */
  uint32_t num, cap;
  uint32_t *level, *at, *queue;
};

zn_mincut *zn_mincut_new(zn_arena *a) {
  zn_mincut *m = ZN_NEW(a, zn_mincut);
  m->a = a;
  zn_mincut_vertex(m);
  zn_mincut_vertex(m);
  return m;
}

uint32_t zn_mincut_vertex(zn_mincut *m) {
  ZN_PUSH(m->a, m->first, m->num, m->cap, 0);
  return m->num - 1;
}

static void half_edge(zn_mincut *m, uint32_t u, uint32_t v, int64_t room) {
  edge e = {v, m->first[u], room};
  ZN_PUSH(m->a, m->edges, m->num_edges, m->cap_edges, e);
  m->first[u] = m->num_edges;
}

void zn_mincut_edge(zn_mincut *m, uint32_t u, uint32_t v, int64_t cost) {
  if (u == v || cost <= 0) return;
  half_edge(m, u, v, cost < ZN_CUT_FORBIDDEN ? cost : ZN_CUT_FORBIDDEN);
  half_edge(m, v, u, 0);
}

/* Breadth-first levels from the source along edges with room; is the sink reached? */
static bool find_levels(zn_mincut *m) {
  uint32_t head = 0, tail = 0;
  for (uint32_t i = 0; i < m->num; i++) m->level[i] = 0;
  m->level[ZN_CUT_SOURCE] = 1;
  m->queue[tail++] = ZN_CUT_SOURCE;
  while (head < tail) {
    uint32_t u = m->queue[head++];
    for (uint32_t e = m->first[u]; e; e = m->edges[e - 1].next) {
      const edge *x = &m->edges[e - 1];
      if (x->room == 0 || m->level[x->to]) continue;
      m->level[x->to] = m->level[u] + 1;
      m->queue[tail++] = x->to;
    }
  }
  return m->level[ZN_CUT_SINK] != 0;
}

/* One augmenting path along rising levels, iteratively (networks are deep): path holds its edges. */
static bool augment(zn_mincut *m, uint32_t *path) {
  uint32_t n = 0, u = ZN_CUT_SOURCE;
  while (u != ZN_CUT_SINK) {
    uint32_t e = m->at[u];
    while (e && (m->edges[e - 1].room == 0 || m->level[m->edges[e - 1].to] != m->level[u] + 1))
      e = m->edges[e - 1].next;
    m->at[u] = e;
    if (e) {
      path[n++] = e - 1;
      u = m->edges[e - 1].to;
      continue;
    }
    if (n == 0) return false;
    uint32_t back = path[--n];
    u = m->edges[back ^ 1].to;
    m->at[u] = m->edges[back].next;
  }
  int64_t flow = INT64_MAX;
  for (uint32_t i = 0; i < n; i++)
    if (m->edges[path[i]].room < flow) flow = m->edges[path[i]].room;
  for (uint32_t i = 0; i < n; i++) {
    m->edges[path[i]].room -= flow;
    m->edges[path[i] ^ 1].room += flow;
  }
  return true;
}

bool *zn_mincut_solve(zn_mincut *m) {
  uint32_t *path = ZN_ARRAY(m->a, uint32_t, m->num + 1);
  m->level = ZN_ARRAY(m->a, uint32_t, m->num);
  m->at = ZN_ARRAY(m->a, uint32_t, m->num);
  m->queue = ZN_ARRAY(m->a, uint32_t, m->num);
  while (find_levels(m)) {
    for (uint32_t i = 0; i < m->num; i++) m->at[i] = m->first[i];
    while (augment(m, path)) {}
  }
  bool *side = ZN_ARRAY(m->a, bool, m->num);
  for (uint32_t i = 0; i < m->num; i++) side[i] = m->level[i] != 0;
  return side;
}
