/* The ONNX reader: a model is refused with a message, or becomes a graph that can be inferred, printed and read again. */
#include "frontends/onnx/onnx.h"
#include "tests/fuzz/text/harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  harness h;
  zn_graph *g = NULL;
  harness_open(&h);
  if (!setjmp(h.out_of_memory)) {
    zn_onnx_opts o = {.infer_node = zn_infer_node};
    zn_status st = zn_onnx_load_bytes(&h.c, data, n, NULL, &o, NULL, &g);
    harness_expect(&h, st, g);
    if (st == ZN_OK && zn_graph_verify(&h.c, g) != ZN_OK) abort();
    if (st == ZN_OK && zn_infer_graph(&h.c, g) == ZN_OK) {
      zn_text t;
      zn_text_init(&t, &h.c.graph);
      zn_graph_print(g, &t);
    }
  }
  zn_ctx_fini(&h.c);
  return 0;
}
