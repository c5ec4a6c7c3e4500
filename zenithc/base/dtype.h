/* Element types and exact scalar conversions between them (ONNX IR spec, TensorProto.DataType). */
#ifndef ZN_DTYPE_H
#define ZN_DTYPE_H
#include <stdbool.h>
#include <stdint.h>

typedef enum zn_dtype {
  ZN_NONE = 0,
#define DTYPE(n, text, onnx, bytes, cls, c) ZN_##n,
#include "zenithc/base/dtype.def"
#undef DTYPE
  ZN_DTYPE_COUNT
} zn_dtype;

typedef struct zn_dtype_info {
  const char *name;  /* canonical text, "f32" */
  const char *cname; /* C99 spelling of the storage type */
  uint8_t onnx;      /* TensorProto.DataType code, 0 for kernel-IR-only types */
  uint8_t bytes;     /* per element in memory; 0 for idx and ptr */
  char cls;          /* B I U F C S */
} zn_dtype_info;

extern const zn_dtype_info zn_dtypes[ZN_DTYPE_COUNT];

zn_dtype zn_dtype_from_onnx(int code);          /* ZN_NONE when unknown */
zn_dtype zn_dtype_from_name(const char *name);  /* ZN_NONE when unknown */
static inline unsigned zn_dtype_bytes(zn_dtype t) { return zn_dtypes[t].bytes; }
static inline bool zn_is_float(zn_dtype t) { return zn_dtypes[t].cls == 'F'; }
static inline bool zn_is_int(zn_dtype t) { return zn_dtypes[t].cls == 'I' || zn_dtypes[t].cls == 'U'; }
static inline bool zn_is_signed(zn_dtype t) { return zn_dtypes[t].cls == 'I'; }
/* Significant bits of an integer type (4 for I4, 2 for U2, 64 for I64), 0 for others. */
unsigned zn_int_bits(zn_dtype t);
/* Bits of an element where elements are packed (files): 2, 4 and 6 for the types below a byte; first elements in low bits. */
unsigned zn_dtype_bits(zn_dtype t);

/* Float formats of at most 16 bits <-> double. Encoding rounds to nearest even; `saturate` decides what a
 * finite overflow becomes in the float8/4 kinds (largest finite, or Inf/NaN as the format has). */
double zn_float_decode(zn_dtype t, uint32_t bits);
uint32_t zn_float_encode(zn_dtype t, double x, bool saturate);

/* Element i of a buffer of type t as double / int64 (u64 keeps its bits), and back. Integers wrap on store. */
double zn_load_f64(zn_dtype t, const void *data, uint64_t i);
int64_t zn_load_i64(zn_dtype t, const void *data, uint64_t i);
void zn_store_f64(zn_dtype t, void *data, uint64_t i, double x); /* float->int: truncates, saturates, NaN=0 */
void zn_store_i64(zn_dtype t, void *data, uint64_t i, int64_t x);
/* Wraps x to the range of integer type t (sign- or zero-extended back to int64). */
int64_t zn_int_wrap(zn_dtype t, int64_t x);
#endif
