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
} zn_cdialect;

extern const zn_cdialect zn_cdialect_c99;

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

/* NAME.h: NAME_model, NAME_run and NAME_plan and, when all shapes are static, NAME_WORKSPACE_BYTES
 * and static inline int NAME_infer(const float x[1][28][28], float y[10], void *workspace); The
 * ABI's declarations are included, so the header needs no other file; zenith.h may come before or
 * after. */
void zn_cprint_header(zn_ctx *c, const zn_kmod *m, zn_text *out);
zn_status zn_write_typed_header(zn_ctx *c, const zn_kmod *m, const char *path) ZN_NODISCARD;
#endif
