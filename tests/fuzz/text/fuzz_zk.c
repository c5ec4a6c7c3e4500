/* The parser of .zk: what it accepts prints, and the print reads back and prints the same; the verifier bears all of it. */
#include <string.h>

#include "codegen/kir/kir.h"
#include "codegen/kir/ktext.h"
#include "tests/fuzz/text/harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  harness h;
  zn_kmod *m = NULL, *again = NULL;
  harness_open(&h);
  if (!setjmp(h.out_of_memory)) {
    zn_status st = zn_kmod_parse(&h.c, &h.c.graph, (const char *)data, n, NULL, &m);
    harness_expect(&h, st, st == ZN_OK ? m : NULL);
    if (st == ZN_OK) {
      zn_text t, u;
      zn_text_init(&t, &h.c.graph);
      zn_text_init(&u, &h.c.graph);
      zn_kmod_print(m, &t);
      if (zn_kmod_parse(&h.c, &h.c.graph, t.s, t.len, NULL, &again) != ZN_OK) abort();
      zn_kmod_print(again, &u);
      if (t.len != u.len || memcmp(t.s, u.s, t.len)) abort();
      (void)zn_kmod_verify(&h.c, again);
    }
  }
  zn_ctx_fini(&h.c);
  return 0;
}
