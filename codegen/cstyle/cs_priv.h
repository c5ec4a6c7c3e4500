/* Shared by the files of the C printer. Type names are zn_f32x8 for vectors; vectors of bool are
 * masks, zn_m32x8: signed integers 0 or -1, as wide as the operands of the comparison that made
 * them. */
#ifndef ZN_CS_PRIV_H
#define ZN_CS_PRIV_H
#include "codegen/cstyle/cstyle.h"

enum { CS_MASK_IDX = 16 }; /* mask width of idx lanes: pointer-sized */

typedef struct cs_type {
  uint8_t dtype;  /* canonical: storage-only types are their u8/i8/u16 twins */
  uint8_t mask;   /* bytes per lane of a bool vector (1 2 4 8 CS_MASK_IDX); 0 for everything else */
  uint16_t lanes; /* 1: scalar */
} cs_type;

typedef struct cs_state {
  zn_ctx *ctx;
  zn_arena arena; /* names and keys; lives as long as the print */
  const zn_kmod *mod;
  const zn_cprint_opts *opts;
  const zn_cdialect *dia;
  zn_text helpers, body;
  const char **keys; /* open addressing: what has been emitted */
  uint32_t num_keys, cap_keys;
  uint32_t num_shuffles;
  const char **const_names;  /* per module constant */
  const char **kernel_names; /* per function: its C identifier */
  const uint32_t *kernel_no; /* per function: number among the kernels */
} cs_state;

/* True the first time a key is seen. */
bool cs_once(cs_state *s, const char *key);
const char *cs_fmt(cs_state *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- types ---- */
zn_dtype cs_canon(zn_dtype t);
cs_type cs_scalar(zn_dtype t);
cs_type cs_vector(zn_dtype t, unsigned lanes, unsigned mask); /* mask is ignored unless t is bool */
bool cs_is_pow2(unsigned lanes);
unsigned cs_mask_of(zn_dtype t); /* mask width that comparisons of t give */
/* "f32", "m16": the part of helper names that tells the element. */
const char *cs_tag(cs_state *s, cs_type t);
/* "float", "zn_f32x8"; emits the typedef on first use. */
const char *cs_name(cs_state *s, cs_type t);
/* Element type of a vector or the scalar itself, as C text. */
const char *cs_elem(cs_state *s, cs_type t);
/* The unsigned type in which integers of t are added: at least 32 bits wide for scalars. */
const char *cs_unsigned(cs_state *s, zn_dtype t);
zn_dtype cs_unsigned_dtype(zn_dtype t); /* same width; IDX stays IDX */
const char *cs_int_literal(cs_state *s, zn_dtype t, int64_t v);
const char *cs_float_literal(cs_state *s, zn_dtype t, double v);

/* ---- scalar expressions: operands are atoms or parenthesised; results are too ---- */
const char *cs_scalar_un(cs_state *s, zn_kop op, zn_dtype t, const char *a);
const char *cs_scalar_bin(cs_state *s, zn_kop op, zn_dtype t, const char *a, const char *b);
const char *cs_scalar_fma(cs_state *s, zn_dtype t, const char *a, const char *b, const char *c);
const char *cs_scalar_cvt(cs_state *s, zn_kop op, zn_dtype from, zn_dtype to, const char *a);
const char *cs_scalar_bitcast(cs_state *s, zn_dtype from, zn_dtype to, const char *a);
const char *cs_features(cs_state *s);

/* ---- vector operations: names of helper functions, emitted on first use ---- */
const char *cs_vec_un(cs_state *s, zn_kop op, cs_type t);
const char *cs_vec_bin(cs_state *s, zn_kop op, cs_type t);
const char *cs_vec_fma(cs_state *s, cs_type t);
/* cs_dot.c: Dot4 and Dot2; also of one lane. */
const char *cs_dot(cs_state *s, zn_kop op, unsigned lanes, unsigned flags);
const char *cs_vec_cmp(cs_state *s, zn_kop op, cs_type t); /* t: of the operands */
const char *cs_vec_select(cs_state *s, cs_type t);         /* mask as wide as t's lanes */
const char *cs_vec_cvt(cs_state *s, zn_kop op, cs_type from, cs_type to, zn_dtype from_dt,
                       zn_dtype to_dt);
const char *cs_vec_bitcast(cs_state *s, cs_type from, cs_type to);
const char *cs_vec_mask(cs_state *s, cs_type from, unsigned mask); /* between mask widths */
const char *cs_vec_splat(cs_state *s, cs_type t);
const char *cs_vec_iota(cs_state *s, cs_type t);
const char *cs_vec_insert(cs_state *s, cs_type t);
const char *cs_vec_shuffle(cs_state *s, cs_type from, cs_type to, const uint32_t *mask);
const char *cs_vec_reduce(cs_state *s, zn_kop op, cs_type t);
const char *cs_vec_load(cs_state *s, cs_type t, int64_t align);
const char *cs_vec_store(cs_state *s, cs_type t, int64_t align);
const char *cs_vec_gather(cs_state *s, cs_type t, cs_type index);
const char *cs_vec_scatter(cs_state *s, cs_type t, cs_type index);

/* GroupMma with sums of so many lanes. */
const char *cs_vec_groupmma(cs_state *s, unsigned lanes, zn_mma_format format, unsigned under_way);
const char *cs_vec_groupwait(cs_state *s, zn_dtype sum, unsigned lanes);
/* Loads 8 x 8 squares for a warp (LdMatrix). */
const char *cs_vec_ldmatrix(cs_state *s, unsigned squares, bool transposed);
const char *cs_vec_mma(cs_state *s, zn_mma_format format);

/* ---- functions ---- */
void cs_print_kernel(cs_state *s, uint32_t fn);
void cs_print_entry(cs_state *s, uint32_t fn, const char *symbol);
/* The launch side: threads of a block at most. */
void cs_print_simt_kernel(cs_state *s, uint32_t fn);
/* cuda_dialect.c: "__restrict__ " when no thread reads from buffer parameter `param` what another one stores there, else "".
 * A compiler may take it that nothing, not even a barrier, changes what a restrict pointer points to behind its back. */
const char *cs_restrict(const zn_kfunc *f, uint32_t param);
/* zenith.h as text. */
void cs_put_abi(zn_text *out);
/* A C identifier made from any name. */
const char *cs_ident(cs_state *s, const char *name);
#endif
