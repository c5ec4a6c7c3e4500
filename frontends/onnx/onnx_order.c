/* Execution order of nodes. Files should be sorted; when one is not, a depth-first walk in file order sorts it. Nodes
 * depend on the producers of their inputs and of every name used inside their bodies. */
#include "frontends/onnx/import.h"

typedef struct order {
  zn_nmap producers;
  uint32_t *deps, num_deps, cap_deps; /* of the node being looked at */
  zn_arena *a;
} order;

static void add_names(order *o, char *const *names, size_t n) {
  uint32_t j;
  for (size_t k = 0; k < n; k++)
    if (*names[k] && zn_nmap_get(&o->producers, names[k], &j)) ZN_PUSH(o->a, o->deps, o->num_deps, o->cap_deps, j);
}

static void add_node(order *o, const Pb__NodeProto *p);
static void add_graph(order *o, const Pb__GraphProto *g) {
  for (size_t i = 0; i < g->n_node; i++) add_node(o, g->node[i]);
  for (size_t i = 0; i < g->n_output; i++)
    if (g->output[i]->name) add_names(o, &g->output[i]->name, 1);
}

static void add_node(order *o, const Pb__NodeProto *p) {
  add_names(o, p->input, p->n_input);
  for (size_t i = 0; i < p->n_attribute; i++) {
    const Pb__AttributeProto *a = p->attribute[i];
    if (a->g) add_graph(o, a->g);
    for (size_t k = 0; k < a->n_graphs; k++) add_graph(o, a->graphs[k]);
  }
}

/* Iterative depth-first search; false on a cycle. first[i]..first[i+1] are the dependencies of node i in deps. */
static bool sort(zn_arena *a, size_t n, const uint32_t *deps, const uint32_t *first, uint32_t *out) {
  uint8_t *state = ZN_ARRAY(a, uint8_t, n);
  uint32_t *stack = ZN_ARRAY(a, uint32_t, n), *next = ZN_ARRAY(a, uint32_t, n), done = 0;
  for (uint32_t root = 0; root < n; root++) {
    uint32_t top = 0;
    if (state[root]) continue;
    stack[top++] = root;
    state[root] = 1;
    next[root] = first[root];
    while (top) {
      uint32_t i = stack[top - 1];
      if (next[i] == first[i + 1]) {
        state[i] = 2;
        out[done++] = i;
        top--;
        continue;
      }
      uint32_t j = deps[next[i]++];
      if (state[j] == 1) return false;
      if (state[j] == 2) continue;
      state[j] = 1;
      next[j] = first[j];
      stack[top++] = j;
    }
  }
  return true;
}

uint32_t *zn_imp_order(zn_imp *I, Pb__NodeProto **nodes, size_t n) {
  order o = {.producers = {.a = I->pa}, .a = I->pa};
  bool sorted = true;
  for (uint32_t i = 0; i < n; i++) /* constants come first anyway */
    for (size_t k = 0; k < nodes[i]->n_output && strcmp(nodes[i]->op_type ? nodes[i]->op_type : "", "Constant"); k++)
      if (*nodes[i]->output[k]) (void)zn_nmap_put(&o.producers, nodes[i]->output[k], i);
  uint32_t *first = ZN_ARRAY(I->pa, uint32_t, n + 1);
  for (uint32_t i = 0; i < n; i++) {
    first[i] = o.num_deps;
    add_node(&o, nodes[i]);
    for (uint32_t k = first[i]; k < o.num_deps; k++) sorted = sorted && o.deps[k] < i;
  }
  first[n] = o.num_deps;
  if (sorted) return NULL;
  uint32_t *out = ZN_ARRAY(I->pa, uint32_t, n);
  return sort(I->pa, n, o.deps, first, out) ? out : NULL;
}
