/* Running a compiled model on a Cortex-M4 without an operating system or a C library: static
 * buffers, one call of run, results written through semihosting. Works with any model of static
 * shape that fits the buffers. */
#include <stddef.h>
#include <stdint.h>

#include MODEL_HEADER

#define PASTE2(a, b) a##b
#define PASTE(a, b)  PASTE2(a, b)
#define MODEL        PASTE(MODEL_NAME, _model)

#ifndef BUFFER_BYTES
#define BUFFER_BYTES (256 * 1024) /* for all inputs and outputs together */
#endif
enum { MAX_TENSORS = 8 };

static unsigned char workspace[PASTE(MODEL_NAME, _WORKSPACE_BYTES) + 64]
    __attribute__((aligned(64)));
static unsigned char buffers[BUFFER_BYTES] __attribute__((aligned(64)));
static size_t used;

int main(void);
void semihost_exit(int code);

static int semihost(int op, const void *arg) {
  register int r0 __asm__("r0") = op;
  register const void *r1 __asm__("r1") = arg;
  __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static void write_text(const char *s) { semihost(0x04, s); } /* SYS_WRITE0 */

void semihost_exit(int code) {
  const uint32_t block[2] = {0x20026, (uint32_t)code}; /* ADP_Stopped_ApplicationExit */
  semihost(0x20, block);                               /* SYS_EXIT_EXTENDED */
}

static void write_unsigned(uint32_t x) {
  char s[12];
  int i = 11;
  s[i] = 0;
  do s[--i] = (char)('0' + x % 10);
  while ((x /= 10) != 0);
  write_text(s + i);
}

static void write_float(float x) { /* bits, then six decimals */
  union {
    float f;
    uint32_t u;
  } v = {x};
  char s[10];
  for (int i = 0; i < 8; i++) s[i] = "0123456789abcdef"[v.u >> (28 - 4 * i) & 15];
  s[8] = ' ';
  s[9] = 0;
  write_text(s);
  if (x < 0) {
    write_text("-");
    x = -x;
  }
  if (!(x < 4e9f)) {
    write_text("large");
    return;
  }
  uint32_t whole = (uint32_t)x, part = (uint32_t)((x - (float)whole) * 1e6f + 0.5f);
  if (part >= 1000000) {
    part -= 1000000;
    whole++;
  }
  char d[8] = ".000000";
  for (int i = 6; i > 0; i--, part /= 10) d[i] = (char)('0' + part % 10);
  write_unsigned(whole);
  write_text(d);
}

static uint32_t element_bytes(uint32_t dtype) {
  if (dtype == 7 || dtype == 11 || dtype == 13) return 8;
  if (dtype == 1 || dtype == 6 || dtype == 12) return 4;
  return dtype == 4 || dtype == 5 || dtype == 10 || dtype == 16 ? 2 : 1;
}

/* A tensor of the described shape over static memory. */
static int place(zn_tensor *t, const zn_io_desc *d) {
  uint32_t count = 1;
  t->dtype = d->dtype;
  t->rank = d->rank;
  for (uint32_t i = 0; i < d->rank; i++) {
    t->shape[i] = d->shape[i];
    count *= (uint32_t)d->shape[i];
  }
  t->bytes = (uint64_t)count * element_bytes(d->dtype);
  if (t->bytes > sizeof buffers - used) return 0;
  t->u.data_bits = 0;
  t->u.data = buffers + used;
  used += ((size_t)t->bytes + 63) / 64 * 64;
  return 1;
}

int main(void) {
  static zn_tensor in[MAX_TENSORS], out[MAX_TENSORS];
  if (MODEL.num_inputs > MAX_TENSORS || MODEL.num_outputs > MAX_TENSORS) return 1;
  for (uint32_t i = 0; i < MODEL.num_inputs; i++) {
    if (!place(&in[i], &MODEL.inputs[i])) return 2;
    for (uint32_t k = 0; in[i].dtype == 1 && k < in[i].bytes / 4; k++)
      ((float *)in[i].u.data)[k] = (float)(k % 17) * 0.0625f - 0.5f;
  }
  for (uint32_t i = 0; i < MODEL.num_outputs; i++)
    if (!place(&out[i], &MODEL.outputs[i])) return 2;
  int32_t rc = MODEL.run(in, out, workspace, PASTE(MODEL_NAME, _WORKSPACE_BYTES), NULL);
  if (rc != ZN_RUN_OK) {
    write_text("run failed: ");
    write_unsigned((uint32_t)rc);
    write_text("\n");
    return 3;
  }
  for (uint32_t i = 0; i < MODEL.num_outputs; i++) {
    write_text("output ");
    write_unsigned(i);
    write_text(":\n");
    for (uint32_t k = 0; out[i].dtype == 1 && k < out[i].bytes / 4 && k < 16; k++) {
      write_text("  [");
      write_unsigned(k);
      write_text("] ");
      write_float(((float *)out[i].u.data)[k]);
      write_text("\n");
    }
  }
  return 0;
}
