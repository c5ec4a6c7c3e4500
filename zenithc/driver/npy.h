/* NumPy files: .npy (one array) and .npz (a zip of them). */
#ifndef ZN_NPY_H
#define ZN_NPY_H
#include "zenithc/base/tensor.h"

/* Reads an array: bool, integers, floats (f16, f32, f64), complex, fixed-length bytes and unicode strings (as UTF-8);
 * either byte order, C or Fortran order; format versions 1 to 3. Copies into a. Pickled objects are refused. */
zn_status zn_npy_read(zn_ctx *c, zn_arena *a, const char *path, zn_htensor *out);
zn_status zn_npy_parse(zn_ctx *c, zn_arena *a, const uint8_t *data, size_t n, const char *what, zn_htensor *out);
/* Version 1, C order, little-endian. Types that NumPy lacks are written as: bf16 and float8 as unsigned integers of their
 * bits, sub-byte integers as int8/uint8; strings as unicode. */
zn_status zn_npy_write(zn_ctx *c, const char *path, const zn_htensor *t);

/* All arrays of an archive, in its order; out[i].name is the member's name without ".npy". */
zn_status zn_npz_read(zn_ctx *c, zn_arena *a, const char *path, zn_htensor **out, uint32_t *out_n);
/* Stored uncompressed under t[i].name (or arr_<i>), with a fixed time stamp. */
zn_status zn_npz_write(zn_ctx *c, const char *path, const zn_htensor *t, uint32_t n);
#endif
