/* The parser of .zg: what it accepts prints, and the print reads back and prints the same. */
#include <string.h>

#include "tests/fuzz/text/harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  harness h;
  zn_graph *g = NULL, *again = NULL;
  harness_open(&h);
  if (!setjmp(h.out_of_memory)) {
    zn_status st = zn_graph_parse(&h.c, &h.c.graph, (const char *)data, n, NULL, &g);
    harness_expect(&h, st, st == ZN_OK ? g : NULL);
    if (st == ZN_OK) {
      zn_text t, u;
      zn_text_init(&t, &h.c.graph);
      zn_text_init(&u, &h.c.graph);
      zn_graph_print(g, &t);
      if (zn_graph_parse(&h.c, &h.c.graph, t.s, t.len, NULL, &again) != ZN_OK) abort();
      zn_graph_print(again, &u);
      if (t.len != u.len || memcmp(t.s, u.s, t.len)) abort();
      if (zn_graph_verify(&h.c, again) == ZN_OK) (void)zn_infer_graph(&h.c, again);
    }
  }
  zn_ctx_fini(&h.c);
  return 0;
}
