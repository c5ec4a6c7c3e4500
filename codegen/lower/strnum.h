/* Decimal text and numbers inside kernels, exactly, without a library: big integers of a fixed number of 28-bit words
 * (a word times 10 fits 32 bits), so that no result depends on how a host rounds.
 *
 * What a number looks like, where ONNX's Cast leaves it open:
 *   reading   blanks, sign, digits with at most one point, exponent, blanks; or inf, nan in any case. Floats are rounded once,
 *             to nearest even; integers and bool take what stands before the point. Anything else, and an integer that does
 *             not fit its type, is not a number (the specification calls them undefined; they are errors here).
 *   writing   integers in full, bool as 1 and 0 (the values Cast gives them as numbers). Floats as the shortest text that
 *             reads back as the same value of their type, among those the nearest, as NumPy and so the reference evaluator
 *             writes doubles: "0.1", "1.0", "100000.0", from 1e16 and below 1e-4 with an exponent of at least two digits.
 *             "NaN", "INF" and "-INF" are the literals that the specification names. */
#ifndef ZN_STRNUM_H
#define ZN_STRNUM_H
#include "codegen/lower/lower.h"

enum { ZN_SN_ROOM = 32, ZN_SN_BIGS = 5 }; /* ROOM: bytes that hold every written number */

typedef struct zn_sn { /* one conversion; opened at the start of a kernel, before its loops */
  zn_lw *lw;
  zn_dtype t;              /* of the number */
  zn_kref big[ZN_SN_BIGS]; /* words on the stack */
  zn_kref digits;          /* u8 */
} zn_sn;

zn_sn zn_sn_reader(zn_lw *lw, zn_dtype to);
zn_sn zn_sn_writer(zn_lw *lw, zn_dtype from);
/* The number that the len bytes at data say, in the kernel type of s->t; out_bad: they say none. */
zn_kref zn_sn_read(const zn_sn *s, zn_kref data, zn_kref len, zn_kref *out_bad);
/* Writes x (kernel type of s->t) to `to`; the result is the number of bytes, at most ZN_SN_ROOM. */
zn_kref zn_sn_write(const zn_sn *s, zn_kref to, zn_kref x);

/* A binary float as text handling sees it: value = mantissa * 2^exponent. */
typedef struct zn_sn_format {
  zn_dtype kernel; /* F32 or F64: what kernels hold it in */
  int bits;        /* of the mantissa, the leading one included */
  int lowest;      /* exponent of the smallest subnormal */
} zn_sn_format;
zn_sn_format zn_sn_format_of(zn_dtype t);

enum { ZN_SN_WORD = 28 };

/* ---- short names: idx values, u32 words, variables ---- */
static inline zn_kref zn_n_op(zn_kb *b, zn_kop op, zn_kref x, int64_t c) { /* x op c, c of x's type */
  zn_kref k = zn_kb_int(b, zn_kf_dtype(b->f, x), c);
  return zn_kb_bin(b, op, x, k);
}
static inline zn_kref zn_n_add(zn_kb *b, zn_kref x, int64_t c) { return zn_n_op(b, ZN_K_Add, x, c); }
static inline zn_kref zn_n_is(zn_kb *b, zn_kop op, zn_kref x, int64_t c) { /* x op c as bool */
  zn_kref k = zn_kb_int(b, zn_kf_dtype(b->f, x), c);
  return zn_kb_cmp(b, op, x, k);
}
static inline zn_kref zn_n_and(zn_kb *b, zn_kref x, zn_kref y) { return zn_kb_bin(b, ZN_K_And, x, y); }
static inline zn_kref zn_n_or(zn_kb *b, zn_kref x, zn_kref y) { return zn_kb_bin(b, ZN_K_Or, x, y); }
static inline zn_kref zn_n_not(zn_kb *b, zn_kref x) { return zn_kb_un(b, ZN_K_Not, x); }
static inline zn_kref zn_n_var(zn_kb *b, zn_dtype t, int64_t c) { return zn_kb_var(b, zn_kb_int(b, t, c)); }
static inline void zn_n_bump(zn_kb *b, zn_kref var, int64_t by) { zn_kb_set(b, var, zn_n_add(b, zn_kb_get(b, var), by)); }
static inline zn_kref zn_n_for(zn_kb *b, zn_kref n) { /* serial, over [0, n) */
  zn_kref zero = zn_kb_idx(b, 0);
  return zn_kb_for(b, zero, n, 1, ZN_FOR_SERIAL, 0);
}
static inline zn_kref zn_n_word(zn_kb *b, zn_kref big, zn_kref i) { return zn_kb_load(b, ZN_U32, 1, big, i); }
#endif
