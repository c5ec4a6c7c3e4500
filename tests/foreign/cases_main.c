/* cases_main IN OUT [RUNS [names]]: runs the models of table.inc (MODEL(name) lines) one after another, for processors that the
 * machine that builds them cannot run. For each, IN holds u32 count and then per input u32 dtype, u32 rank, i64 shape[rank],
 * u64 bytes and the data; OUT gets i32 result, u32 count and the outputs in the same form. All little-endian. On a Cortex-M
 * board files and arguments come through semihosting. RUNS: how often each model is run (for counting instructions).
 * names: says whose kernels ran, of a model that has some for several instruction sets. */
#include <stdio.h>
#include <stdlib.h>

#include "zenith.h"

#define MODEL(name) extern const zn_model name##_model;
#include "table.inc"
#undef MODEL
#define MODEL(name) &name##_model,
static const zn_model *const models[] = {
#include "table.inc"
};
enum { MAX_TENSORS = 16 };

static void *room(size_t bytes) {
  char *p = malloc(bytes + 64);
  if (!p) {
    puts("out of memory");
    exit(3);
  }
  return p + 64 - (uintptr_t)p % 64;
}

static void get(void *to, size_t bytes, FILE *f) {
  if (fread(to, 1, bytes, f) != bytes) exit(4);
}

static void read_tensor(zn_tensor *t, FILE *f) {
  get(&t->dtype, 4, f);
  get(&t->rank, 4, f);
  get(t->shape, 8 * t->rank, f);
  get(&t->bytes, 8, f);
  t->u.data_bits = 0;
  t->u.data = room((size_t)t->bytes);
  get(t->u.data, (size_t)t->bytes, f);
}

static void write_tensor(const zn_tensor *t, FILE *f) {
  fwrite(&t->dtype, 4, 1, f);
  fwrite(&t->rank, 4, 1, f);
  fwrite(t->shape, 8, t->rank, f);
  fwrite(&t->bytes, 8, 1, f);
  fwrite(t->u.data, 1, (size_t)t->bytes, f);
}

static void note(void *last, uint32_t kernel, int32_t begin) {
  if (begin) *(uint32_t *)last = kernel;
}

static int32_t run(const zn_model *m, zn_tensor *in, zn_tensor *out, int runs, const zn_host *host) {
  uint64_t need = 0;
  int32_t rc = m->plan(in, out, &need, 0, NULL);
  if (rc) return rc;
  void *ws = room((size_t)need);
  for (uint32_t i = 0; i < m->num_outputs; i++) {
    out[i].u.data_bits = 0;
    out[i].u.data = room((size_t)out[i].bytes);
  }
  while (runs-- > 0 && !rc) rc = m->run(in, out, ws, (size_t)need, host);
  return rc;
}

int main(int argc, char **argv) {
  FILE *from = argc > 2 ? fopen(argv[1], "rb") : NULL, *to = argc > 2 ? fopen(argv[2], "wb") : NULL;
  if (!from || !to) {
    puts("usage: cases_main IN OUT [RUNS]");
    return 2;
  }
  for (size_t k = 0; k < sizeof models / sizeof *models; k++) {
    static zn_tensor in[MAX_TENSORS], out[MAX_TENSORS];
    const zn_model *m = models[k];
    uint32_t n;
    get(&n, 4, from);
    if (n != m->num_inputs || n > MAX_TENSORS || m->num_outputs > MAX_TENSORS) return 5;
    for (uint32_t i = 0; i < n; i++) read_tensor(&in[i], from);
    uint32_t last = 0;
    const zn_host host = {.user = &last, .profile = note};
    int32_t rc = run(m, in, out, argc > 3 ? atoi(argv[3]) : 1, argc > 4 ? &host : NULL);
    if (argc > 4) printf("kernels %s\n", m->kernel_names[last]);
    n = rc ? 0 : m->num_outputs;
    fwrite(&rc, 4, 1, to);
    fwrite(&n, 4, 1, to);
    for (uint32_t i = 0; i < n; i++) write_tensor(&out[i], to);
  }
  return fclose(to) != 0;
}

#ifdef __arm__ /* a bare board: the vector table, and the floating-point unit switched on before the C library starts */
#ifdef __ARM_FEATURE_MVE
#define STACK 0x80000
enum { HEAP = 32 << 20 };
#else
#define STACK 0x20400000
enum { HEAP = 3 << 20 };
#endif
/* The C library's own heap ends at the stack, which on some boards lies in another memory, below it. */
void *_sbrk(ptrdiff_t more);
void *_sbrk(ptrdiff_t more) {
  static char heap[HEAP];
  static size_t used;
  if ((size_t)more > HEAP - used) return (void *)-1;
  used += (size_t)more;
  return heap + used - more;
}
extern void _start(void);
void reset(void);
__attribute__((naked)) void reset(void) {
  __asm__ volatile("ldr r0, =0xE000ED88\n ldr r1, [r0]\n orr r1, r1, #0xF00000\n str r1, [r0]\n dsb\n isb\n b _start\n");
}
void fault(void);
void fault(void) {
  puts("fault");
  _Exit(99);
}
__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    (void *)STACK, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault};
#endif
