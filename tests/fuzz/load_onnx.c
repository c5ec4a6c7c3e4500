/* Loads models and prints what is in them: one line each. Exit code as zenithc's: the worst of the files. */
#include <stdio.h>

#include "frontends/onnx/onnx.h"
#include "zenithc/ops/op.h"

static uint32_t count_live(const zn_graph *g) {
  uint32_t n = g->num_order;
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *x = &g->nodes[g->order[i]];
    for (uint32_t k = 0; k < x->num_attrs; k++)
      if (x->attrs[k].kind == ZN_A_GRAPH) n += count_live(x->attrs[k].u.g);
  }
  return n;
}

int main(int argc, char **argv) {
  int worst = 0;
  for (int i = 1; i < argc; i++) {
    zn_ctx c;
    zn_graph *g;
    zn_onnx_maps maps = {NULL, 0, 0};
    zn_ctx_init(&c);
    zn_status st = zn_onnx_load(&c, argv[i], NULL, &maps, &g);
    if (st == ZN_OK)
      printf("%s: %u nodes, %u values, %u inputs, %u outputs, %zu KiB\n", argv[i], count_live(g), g->num_vals,
             g->num_inputs, g->num_outputs, c.graph.used >> 10);
    if (zn_exit_code(st) > worst) worst = zn_exit_code(st);
    zn_onnx_unmap(&maps);
    zn_ctx_fini(&c);
  }
  return worst;
}
