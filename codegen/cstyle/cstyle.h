/* The C-family printer: a whole kernel module as one source file. What differs between languages of
 * the family is data in a zn_cdialect; the printing of expressions, vectors and control flow is
 * shared. */
#ifndef ZN_CSTYLE_H
#define ZN_CSTYLE_H
#include "codegen/kir/kir.h"

typedef struct zn_cdialect {
  const char *name;
  /* Text after the ABI declarations: includes, pragmas, ZN_INLINE, ZN_VEC, ZN_ALIAS, ZN_ALIGN64. */
  const char *const *prologue; /* lines, NULL-terminated */
  const char *kernel_qual;     /* in front of a kernel's `void` */
  const char *exported_qual;   /* the same for one that is visible outside */
  const char *helper_qual;     /* in front of a helper function */
  /* Spelling of each element type; NULL: another's (f16 is a u16). */
  const char *scalar[ZN_DTYPE_COUNT];
  const char *unsigned_idx; /* spelling of the unsigned twin of idx */
  bool host_entries;        /* print entry functions and the descriptor */
  bool simt;                /* kernels run as teams of threads; see cuda_dialect.c for the names they rely on */
  /* Functions that compute an operation exactly, for f32 and f64; NULL: a helper is written. */
  const char *native[ZN_K_COUNT][2];
  const char *f16_to_f32, *f32_to_f16; /* on the u16 that holds an f16; NULL: helpers */
} zn_cdialect;

extern const zn_cdialect zn_cdialect_c99, zn_cdialect_cuda;

typedef struct zn_cprint_opts {
  const zn_cdialect *dialect; /* NULL: C99 */
  const zn_caps *caps;        /* feature bits for the descriptor; may be NULL */
  /* Constants are written as literals into the text when NULL, else they are taken from a file of
   * this name that zn_cprint_weights wrote (assembled in with .incbin). */
  const char *weights_file;
  const char *cflags; /* beyond -O2, told in the file's first comment; may be NULL */
  bool kernels_only;  /* no entries and no descriptor */
} zn_cprint_opts;

/* Bytes of all constants, each rounded up to 64: the size of the weights file. */
uint64_t zn_cprint_weights_bytes(const zn_kmod *m);
/* The module must be expanded (no class M operation) and widened; vectors of any lane count are
 * fine. */
void zn_cprint_module(zn_ctx *c, const zn_kmod *m, const zn_cprint_opts *o, zn_text *out);
zn_status zn_cprint_weights(zn_ctx *c, const zn_kmod *m, const char *path) ZN_NODISCARD;

/* CUDA C++ text of kernels first .. first + n-1 (counted among the kernels) and what they need. idx32: indexes are 32 bits
 * wide, which the caller has made sure suffices. Every kernel is
 *   extern "C" __global__ void NAME(buffers ..., integers ..., const unsigned char *zn_weights, zi zn_grid)
 * in the order of its parameters, for blocks of k teams (k * team threads) and k * zn_kfunc_alloc_bytes of shared memory;
 * zn_weights is a device copy of the constants as zn_cprint_weights lays them out. */
void zn_cprint_cuda(zn_ctx *c, const zn_kmod *m, uint32_t first, uint32_t n, bool idx32, zn_text *out);

/* NAME.h: NAME_model, NAME_run and NAME_plan and, when all shapes are static, NAME_WORKSPACE_BYTES
 * and static inline int NAME_infer(const float x[1][28][28], float y[10], void *workspace); The
 * ABI's declarations are included, so the header needs no other file; zenith.h may come before or
 * after. */
void zn_cprint_header(zn_ctx *c, const zn_kmod *m, zn_text *out);
zn_status zn_write_typed_header(zn_ctx *c, const zn_kmod *m, const char *path) ZN_NODISCARD;
#endif
