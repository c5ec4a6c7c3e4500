/* Inside the kernel IR interpreter: decoded instructions and the machine state. A function is
 * decoded once into an array of zn_idec; every value has a slot of natural elements (f32 as 4
 * bytes, ...) in one block, padded to 8 lanes, so lane loops run in blocks of 8 without tails.
 * Padding lanes hold garbage that nothing reads. */
#ifndef ZN_INTERP_H
#define ZN_INTERP_H
#include "codegen/kir/kir.h"

typedef struct zn_idec zn_idec;
typedef struct zn_imach zn_imach;
typedef void (*zn_ifn)(const zn_idec *d, zn_imach *m);

typedef enum zn_ikind {
  ZN_IK_PURE, /* fn */
  ZN_IK_MEM,  /* fn, may fail */
  ZN_IK_FOR,
  ZN_IK_GRID,
  ZN_IK_NEXT, /* NEXT is the End of a for */
  ZN_IK_IF,
  ZN_IK_JUMP,
  ZN_IK_BREAK,
  ZN_IK_TEAM,    /* a thread loop with barriers inside: its iterations run side by side */
  ZN_IK_BARRIER,
  ZN_IK_WARP,    /* what every warp does together */
  ZN_IK_WAIT,    /* for a signal */
  ZN_IK_RET,
  ZN_IK_CALL
} zn_ikind;

struct zn_idec {
  zn_ifn fn;
  uint32_t n;          /* lanes of the result; for reductions and Extract of the operand */
  uint32_t r, a, b, c; /* slots: byte offsets */
  uint32_t target;     /* decoded instruction to jump to */
  uint32_t inst;       /* index in the function, for messages */
  uint8_t kind, op, dtype, elem; /* elem: bytes per lane of the result (Store: of the value) */
  uint8_t from;                  /* operand a's type; for NEXT: closes a grid loop */
  uint8_t vector_ctl; /* Select: the condition is a vector; Load and Store: the index is */
  int64_t imm;
  uint32_t *hint;  /* Load and Store: the region that held the last access */
  const void *ptr; /* Shuffle mask, Call arguments */
};

typedef struct zn_iregion { /* memory that may be accessed: [lo, lo + bytes) */
  const char *lo;
  uint64_t bytes;
} zn_iregion;

typedef struct zn_ifunc {
  const zn_kfunc *f;
  zn_idec *code;
  uint32_t num_code;
  char *slots;
  uint32_t slot_bytes;
  uint32_t *slot_of; /* byte offset per instruction */
} zn_ifunc;

struct zn_imach {
  char *slots; /* of the running function */
  zn_ctx *c;
  const zn_kmod *mod;
  const void *const *consts; /* elements of each constant */
  zn_arena arena;
  zn_interp_opts opts;
  zn_ifunc **funcs; /* per function number, NULL until first use */
  zn_iregion *regions;
  uint32_t num_regions, cap_regions;
  char *team; /* slots of the iterations of a TEAM loop, one after another */
  uint64_t team_bytes;
  uint64_t steps;
  bool failed;
};

/* Makes memory accessible. */
void zn_interp_region(zn_imach *m, const void *p, uint64_t bytes);
/* May [p, p + bytes) be accessed? */
bool zn_interp_reachable(const zn_imach *m, const char *p, uint64_t bytes);
/* SignalWait by the running thread: *over, whether it may go on. false: it failed. */
bool zn_interp_signal_over(const zn_idec *d, zn_imach *m, bool *over);
/* Handler of a class A, M or P operation on operand type t, or NULL. */
zn_ifn zn_interp_arith(zn_kop op, zn_dtype t);
/* x * y + sum in f32, of the bits of two bf16, with one rounding and subnormal numbers as zeros. */
float zn_interp_bf16_step(uint32_t x, uint32_t y, float sum);
/* Handler of Cvt to t. */
zn_ifn zn_interp_cvt(zn_dtype t);
/* Handler of a class V, L (Load, Store, PtrAdd), Select, Bitcast, Var, Get or Set instruction. */
zn_ifn zn_interp_move(const zn_idec *d);

/* One lane loop: `i` counts lanes; with more than one lane whole blocks of 8. */
#define ZN_LANES(d, ...)                          \
  do {                                            \
    if ((d)->n == 1) {                            \
      const uint32_t i = 0;                       \
      __VA_ARGS__;                                \
    } else {                                      \
      for (uint32_t i8 = 0; i8 < (d)->n; i8 += 8) \
        for (uint32_t i = i8; i < i8 + 8; i++) {  \
          __VA_ARGS__;                            \
        }                                         \
    }                                             \
  } while (0)
#define ZN_SLOT(T, m, off) ((T *)(void *)((m)->slots + (off)))
#endif
