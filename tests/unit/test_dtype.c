/* Element types: encodings against values computed by ml_dtypes 0.6 (as the ONNX reference uses
 * them; saturating ones after clipping, as its Cast does), every code decoded and encoded again,
 * integers wrapping and saturating. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "zenithc/base/tensor.h"

static const struct {
  zn_dtype t;
  double x;
  uint32_t code, saturated;
} rows[] = {
    {ZN_F16, 0x0.0p+0, 0x00, 0x00},
    {ZN_F16, -0x0.0p+0, 0x8000, 0x8000},
    {ZN_F16, 0x1.0000000000000p+0, 0x3c00, 0x3c00},
    {ZN_F16, -0x1.8000000000000p+0, 0xbe00, 0xbe00},
    {ZN_F16, 0x1.99999a0000000p-4, 0x2e66, 0x2e66},
    {ZN_F16, 0x1.ffc0000000000p+15, 0x7bff, 0x7bff},
    {ZN_F16, -0x1.ffc0000000000p+15, 0xfbff, 0xfbff},
    {ZN_F16, 0x1.026f0a0000000p+16, 0x7c00, 0x7c00},
    {ZN_F16, -0x1.330ccc0000000p+16, 0xfc00, 0xfc00},
    {ZN_F16, 0x1.5555560000000p-16, 0x155, 0x155},
    {ZN_F16, 0x1.8000000000000p-15, 0x300, 0x300},
    {ZN_F16, INFINITY, 0x7c00, 0x7c00},
    {ZN_F16, -INFINITY, 0xfc00, 0xfc00},
    {ZN_F16, 0x1.921fb60000000p+1, 0x4248, 0x4248},
    {ZN_F16, -0x1.009e380000000p+3, 0xc802, 0xc802},
    {ZN_F16, -0x1.a7cb7e0000000p+3, 0xca9f, 0xca9f},
    {ZN_F16, -0x1.3de7220000000p+1, 0xc0f8, 0xc0f8},
    {ZN_F16, 0x1.0d15c00000000p+2, 0x4434, 0x4434},
    {ZN_BF16, 0x0.0p+0, 0x00, 0x00},
    {ZN_BF16, -0x0.0p+0, 0x8000, 0x8000},
    {ZN_BF16, 0x1.0000000000000p+0, 0x3f80, 0x3f80},
    {ZN_BF16, -0x1.8000000000000p+0, 0xbfc0, 0xbfc0},
    {ZN_BF16, 0x1.99999a0000000p-4, 0x3dcd, 0x3dcd},
    {ZN_BF16, 0x1.fe00000000000p+127, 0x7f7f, 0x7f7f},
    {ZN_BF16, -0x1.fe00000000000p+127, 0xff7f, 0xff7f},
    {ZN_BF16, INFINITY, 0x7f80, 0x7f80},
    {ZN_BF16, -0x1.c363cc0000000p+127, 0xff62, 0xff62},
    {ZN_BF16, 0x1.5555580000000p-128, 0x2b, 0x2b},
    {ZN_BF16, 0x1.8000000000000p-127, 0x60, 0x60},
    {ZN_BF16, INFINITY, 0x7f80, 0x7f80},
    {ZN_BF16, -INFINITY, 0xff80, 0xff80},
    {ZN_BF16, 0x1.921fb60000000p+1, 0x4049, 0x4049},
    {ZN_BF16, 0x1.6b88ee0000000p+3, 0x4136, 0x4136},
    {ZN_BF16, 0x1.18d9300000000p+0, 0x3f8c, 0x3f8c},
    {ZN_BF16, -0x1.61b1bc0000000p+2, 0xc0b1, 0xc0b1},
    {ZN_BF16, -0x1.f6426a0000000p+2, 0xc0fb, 0xc0fb},
    {ZN_F8E4M3FN, 0x0.0p+0, 0x00, 0x00},
    {ZN_F8E4M3FN, -0x0.0p+0, 0x80, 0x80},
    {ZN_F8E4M3FN, 0x1.0000000000000p+0, 0x38, 0x38},
    {ZN_F8E4M3FN, -0x1.8000000000000p+0, 0xbc, 0xbc},
    {ZN_F8E4M3FN, 0x1.99999a0000000p-4, 0x1d, 0x1d},
    {ZN_F8E4M3FN, 0x1.c000000000000p+8, 0x7e, 0x7e},
    {ZN_F8E4M3FN, -0x1.c000000000000p+8, 0xfe, 0xfe},
    {ZN_F8E4M3FN, 0x1.c47ae00000000p+8, 0x7e, 0x7e},
    {ZN_F8E4M3FN, -0x1.0ccccc0000000p+9, 0xff, 0xfe},
    {ZN_F8E4M3FN, 0x1.5555560000000p-8, 0x03, 0x03},
    {ZN_F8E4M3FN, 0x1.8000000000000p-7, 0x06, 0x06},
    {ZN_F8E4M3FN, INFINITY, 0x7f, 0x7e},
    {ZN_F8E4M3FN, -INFINITY, 0xff, 0xfe},
    {ZN_F8E4M3FN, 0x1.921fb60000000p+1, 0x45, 0x45},
    {ZN_F8E4M3FN, 0x1.df32820000000p+2, 0x4f, 0x4f},
    {ZN_F8E4M3FN, 0x1.0590b60000000p+4, 0x58, 0x58},
    {ZN_F8E4M3FN, 0x1.5d24e00000000p+1, 0x43, 0x43},
    {ZN_F8E4M3FN, -0x1.8aaa480000000p+3, 0xd4, 0xd4},
    {ZN_F8E4M3FNUZ, 0x0.0p+0, 0x00, 0x00},
    {ZN_F8E4M3FNUZ, -0x0.0p+0, 0x00, 0x00},
    {ZN_F8E4M3FNUZ, 0x1.0000000000000p+0, 0x40, 0x40},
    {ZN_F8E4M3FNUZ, -0x1.8000000000000p+0, 0xc4, 0xc4},
    {ZN_F8E4M3FNUZ, 0x1.99999a0000000p-4, 0x25, 0x25},
    {ZN_F8E4M3FNUZ, 0x1.e000000000000p+7, 0x7f, 0x7f},
    {ZN_F8E4M3FNUZ, -0x1.e000000000000p+7, 0xff, 0xff},
    {ZN_F8E4M3FNUZ, 0x1.e4cccc0000000p+7, 0x7f, 0x7f},
    {ZN_F8E4M3FNUZ, -0x1.2000000000000p+8, 0x80, 0xff},
    {ZN_F8E4M3FNUZ, 0x1.5555560000000p-9, 0x03, 0x03},
    {ZN_F8E4M3FNUZ, 0x1.8000000000000p-8, 0x06, 0x06},
    {ZN_F8E4M3FNUZ, INFINITY, 0x80, 0x7f},
    {ZN_F8E4M3FNUZ, -INFINITY, 0x80, 0xff},
    {ZN_F8E4M3FNUZ, 0x1.921fb60000000p+1, 0x4d, 0x4d},
    {ZN_F8E4M3FNUZ, -0x1.32a5160000000p+3, 0xda, 0xda},
    {ZN_F8E4M3FNUZ, 0x1.0000c80000000p+4, 0x60, 0x60},
    {ZN_F8E4M3FNUZ, 0x1.03b0840000000p+1, 0x48, 0x48},
    {ZN_F8E4M3FNUZ, -0x1.15243e0000000p+4, 0xe1, 0xe1},
    {ZN_F8E5M2, 0x0.0p+0, 0x00, 0x00},
    {ZN_F8E5M2, -0x0.0p+0, 0x80, 0x80},
    {ZN_F8E5M2, 0x1.0000000000000p+0, 0x3c, 0x3c},
    {ZN_F8E5M2, -0x1.8000000000000p+0, 0xbe, 0xbe},
    {ZN_F8E5M2, 0x1.99999a0000000p-4, 0x2e, 0x2e},
    {ZN_F8E5M2, 0x1.c000000000000p+15, 0x7b, 0x7b},
    {ZN_F8E5M2, -0x1.c000000000000p+15, 0xfb, 0xfb},
    {ZN_F8E5M2, 0x1.c47ae00000000p+15, 0x7b, 0x7b},
    {ZN_F8E5M2, -0x1.0ccccc0000000p+16, 0xfc, 0xfb},
    {ZN_F8E5M2, 0x1.5555560000000p-16, 0x01, 0x01},
    {ZN_F8E5M2, 0x1.8000000000000p-15, 0x03, 0x03},
    {ZN_F8E5M2, INFINITY, 0x7c, 0x7b},
    {ZN_F8E5M2, -INFINITY, 0xfc, 0xfb},
    {ZN_F8E5M2, 0x1.921fb60000000p+1, 0x42, 0x42},
    {ZN_F8E5M2, -0x1.ac86460000000p-1, 0xbb, 0xbb},
    {ZN_F8E5M2, -0x1.743b780000000p+3, 0xca, 0xca},
    {ZN_F8E5M2, -0x1.92be900000000p+2, 0xc6, 0xc6},
    {ZN_F8E5M2, -0x1.3852e00000000p+2, 0xc5, 0xc5},
    {ZN_F8E5M2FNUZ, 0x0.0p+0, 0x00, 0x00},
    {ZN_F8E5M2FNUZ, -0x0.0p+0, 0x00, 0x00},
    {ZN_F8E5M2FNUZ, 0x1.0000000000000p+0, 0x40, 0x40},
    {ZN_F8E5M2FNUZ, -0x1.8000000000000p+0, 0xc2, 0xc2},
    {ZN_F8E5M2FNUZ, 0x1.99999a0000000p-4, 0x32, 0x32},
    {ZN_F8E5M2FNUZ, 0x1.c000000000000p+15, 0x7f, 0x7f},
    {ZN_F8E5M2FNUZ, -0x1.c000000000000p+15, 0xff, 0xff},
    {ZN_F8E5M2FNUZ, 0x1.c47ae00000000p+15, 0x7f, 0x7f},
    {ZN_F8E5M2FNUZ, -0x1.0ccccc0000000p+16, 0x80, 0xff},
    {ZN_F8E5M2FNUZ, 0x1.5555560000000p-17, 0x01, 0x01},
    {ZN_F8E5M2FNUZ, 0x1.8000000000000p-16, 0x03, 0x03},
    {ZN_F8E5M2FNUZ, INFINITY, 0x80, 0x7f},
    {ZN_F8E5M2FNUZ, -INFINITY, 0x80, 0xff},
    {ZN_F8E5M2FNUZ, 0x1.921fb60000000p+1, 0x46, 0x46},
    {ZN_F8E5M2FNUZ, -0x1.c885440000000p+2, 0xcb, 0xcb},
    {ZN_F8E5M2FNUZ, 0x1.6229880000000p+2, 0x4a, 0x4a},
    {ZN_F8E5M2FNUZ, -0x1.43000c0000000p-1, 0xbd, 0xbd},
    {ZN_F8E5M2FNUZ, -0x1.793c6a0000000p+2, 0xca, 0xca},
    {ZN_F4E2M1, 0x0.0p+0, 0x00, 0x00},
    {ZN_F4E2M1, -0x0.0p+0, 0x08, 0x08},
    {ZN_F4E2M1, 0x1.0000000000000p+0, 0x02, 0x02},
    {ZN_F4E2M1, -0x1.8000000000000p+0, 0x0b, 0x0b},
    {ZN_F4E2M1, 0x1.99999a0000000p-4, 0x00, 0x00},
    {ZN_F4E2M1, 0x1.8000000000000p+2, 0x07, 0x07},
    {ZN_F4E2M1, -0x1.8000000000000p+2, 0x0f, 0x0f},
    {ZN_F4E2M1, 0x1.83d70a0000000p+2, 0x07, 0x07},
    {ZN_F4E2M1, -0x1.cccccc0000000p+2, 0x0f, 0x0f},
    {ZN_F4E2M1, 0x1.5555560000000p-2, 0x01, 0x01},
    {ZN_F4E2M1, 0x1.8000000000000p-1, 0x02, 0x02},
    {ZN_F4E2M1, INFINITY, 0x07, 0x07},
    {ZN_F4E2M1, -INFINITY, 0x0f, 0x0f},
    {ZN_F4E2M1, 0x1.921fb60000000p+1, 0x05, 0x05},
    {ZN_F4E2M1, 0x1.062b100000000p+2, 0x06, 0x06},
    {ZN_F4E2M1, 0x1.098dc00000000p+3, 0x07, 0x07},
    {ZN_F4E2M1, -0x1.06e23c0000000p+4, 0x0f, 0x0f},
    {ZN_F4E2M1, -0x1.489d540000000p+1, 0x0d, 0x0d},
    {ZN_F6E2M3, 0x0.0p+0, 0x00, 0x00},
    {ZN_F6E2M3, -0x0.0p+0, 0x20, 0x20},
    {ZN_F6E2M3, 0x1.0000000000000p+0, 0x08, 0x08},
    {ZN_F6E2M3, -0x1.8000000000000p+0, 0x2c, 0x2c},
    {ZN_F6E2M3, 0x1.999999999999ap-4, 0x01, 0x01},
    {ZN_F6E2M3, 0x1.e000000000000p+2, 0x1f, 0x1f},
    {ZN_F6E2M3, -0x1.e000000000000p+2, 0x3f, 0x3f},
    {ZN_F6E2M3, 0x1.f99999999999ap+2, 0x1f, 0x1f},
    {ZN_F6E2M3, 0x1.c000000000000p+4, 0x1f, 0x1f},
    {ZN_F6E2M3, -0x1.c000000000000p+4, 0x3f, 0x3f},
    {ZN_F6E2M3, 0x1.e000000000000p+4, 0x1f, 0x1f},
    {ZN_F6E2M3, 0x1.5555555555555p-2, 0x03, 0x03},
    {ZN_F6E2M3, 0x1.8000000000000p-1, 0x06, 0x06},
    {ZN_F6E2M3, 0x1.0000000000000p-4, 0x00, 0x00},
    {ZN_F6E2M3, INFINITY, 0x1f, 0x1f},
    {ZN_F6E2M3, -INFINITY, 0x3f, 0x3f},
    {ZN_F6E2M3, 0x1.921fb54442d18p+1, 0x15, 0x15},
    {ZN_F6E2M3, -0x1.5333333333333p+2, 0x3b, 0x3b},
    {ZN_F6E2M3, 0x1.2000000000000p+1, 0x11, 0x11},
    {ZN_F6E3M2, 0x0.0p+0, 0x00, 0x00},
    {ZN_F6E3M2, -0x0.0p+0, 0x20, 0x20},
    {ZN_F6E3M2, 0x1.0000000000000p+0, 0x0c, 0x0c},
    {ZN_F6E3M2, -0x1.8000000000000p+0, 0x2e, 0x2e},
    {ZN_F6E3M2, 0x1.999999999999ap-4, 0x02, 0x02},
    {ZN_F6E3M2, 0x1.e000000000000p+2, 0x18, 0x18},
    {ZN_F6E3M2, -0x1.e000000000000p+2, 0x38, 0x38},
    {ZN_F6E3M2, 0x1.f99999999999ap+2, 0x18, 0x18},
    {ZN_F6E3M2, 0x1.c000000000000p+4, 0x1f, 0x1f},
    {ZN_F6E3M2, -0x1.c000000000000p+4, 0x3f, 0x3f},
    {ZN_F6E3M2, 0x1.e000000000000p+4, 0x1f, 0x1f},
    {ZN_F6E3M2, 0x1.5555555555555p-2, 0x05, 0x05},
    {ZN_F6E3M2, 0x1.8000000000000p-1, 0x0a, 0x0a},
    {ZN_F6E3M2, 0x1.0000000000000p-4, 0x01, 0x01},
    {ZN_F6E3M2, INFINITY, 0x1f, 0x1f},
    {ZN_F6E3M2, -INFINITY, 0x3f, 0x3f},
    {ZN_F6E3M2, 0x1.921fb54442d18p+1, 0x12, 0x12},
    {ZN_F6E3M2, -0x1.5333333333333p+2, 0x35, 0x35},
    {ZN_F6E3M2, 0x1.2000000000000p+1, 0x10, 0x10},
    {ZN_F8E8M0, 0x1.0000000000000p+0, 0x7f, 0x7f},
    {ZN_F8E8M0, 0x1.8000000000000p+0, 0x80, 0x80},
    {ZN_F8E8M0, 0x1.7d70a40000000p+0, 0x7f, 0x7f},
    {ZN_F8E8M0, 0x1.99999a0000000p-4, 0x7c, 0x7c},
    {ZN_F8E8M0, 0x1.8000000000000p+1, 0x81, 0x81},
    {ZN_F8E8M0, 0x1.0000000000000p-126, 0x01, 0x01},
    {ZN_F8E8M0, 0x1.0000000000000p+127, 0xfe, 0xfe},
    {ZN_F8E8M0, NAN, 0xff, 0xff},
    {ZN_F8E8M0, INFINITY, 0xff, 0xfe},
    {ZN_F8E8M0, 0x1.8000000000000p+2, 0x82, 0x82},
    {ZN_F8E8M0, 0x1.79999a0000000p+2, 0x81, 0x81},
};

/* NaN has several codes; any of them will do. */
static bool same(zn_dtype t, uint32_t a, uint32_t b) {
  return a == b || (isnan(zn_float_decode(t, a)) && isnan(zn_float_decode(t, b)));
}

static void test_encode(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    uint32_t a = zn_float_encode(rows[i].t, rows[i].x, false),
             b = zn_float_encode(rows[i].t, rows[i].x, true);
    if (!same(rows[i].t, a, rows[i].code) || !same(rows[i].t, b, rows[i].saturated))
      print_message("%s(%a): 0x%x 0x%x\n", zn_dtypes[rows[i].t].name, rows[i].x, a, b);
    assert_true(same(rows[i].t, a, rows[i].code));
    assert_true(same(rows[i].t, b, rows[i].saturated));
  }
}

static void test_every_code(void **state) {
  (void)state;
  for (int i = 1; i < ZN_DTYPE_COUNT; i++) {
    zn_dtype t = (zn_dtype)i;
    if (!zn_is_float(t) || t == ZN_F32 || t == ZN_F64) continue;
    uint32_t n = 1u << zn_dtype_bits(t);
    double before = -INFINITY;
    for (uint32_t code = 0; code < n; code++) {
      double x = zn_float_decode(t, code);
      assert_true(same(t, zn_float_encode(t, x, isinf(x) ? false : true), code));
      if (code >= n / 2 || isnan(x)) continue;
      assert_true(x > before); /* codes of positive numbers are ordered */
      if (code && !isinf(x) &&
          t != ZN_F8E8M0) { /* ties go to the even code, anything above goes up */
        double mid = before + (x - before) / 2;
        assert_int_equal(zn_float_encode(t, mid, true), code & 1 ? code - 1 : code);
        assert_int_equal(zn_float_encode(t, nextafter(mid, INFINITY), true), code);
        assert_int_equal(zn_float_encode(t, nextafter(mid, 0), true), code - 1);
      }
      before = x;
    }
  }
}

static void test_elements(void **state) {
  (void)state;
  uint64_t buf[4] = {0};
  const struct {
    zn_dtype t;
    double x;
    int64_t stored;
  } f[] = {{ZN_I8, -1.9, -1},
           {ZN_I8, 200, 127},
           {ZN_I8, -1e9, -128},
           {ZN_U8, -3, 0},
           {ZN_U8, 255.9, 255},
           {ZN_I4, 9, 7},
           {ZN_I4, -9, -8},
           {ZN_U4, 16, 15},
           {ZN_I2, 5, 1},
           {ZN_U2, 5, 3},
           {ZN_I64, 1e30, INT64_MAX},
           {ZN_I64, -1e30, INT64_MIN},
           {ZN_U64, 1e30, -1},
           {ZN_U64, 18446744073709549568.0, -2048},
           {ZN_I32, NAN, 0},
           {ZN_BOOL, 0.5, 1},
           {ZN_BOOL, -0.0, 0},
           {ZN_BOOL, NAN, 1},
           {ZN_U16, 70000, 65535}};
  for (size_t i = 0; i < sizeof f / sizeof *f; i++) {
    zn_store_f64(f[i].t, buf, 1, f[i].x);
    assert_int_equal(zn_load_i64(f[i].t, buf, 1), f[i].stored);
  }
  zn_store_i64(ZN_I8, buf, 0, 300);
  assert_int_equal(zn_load_i64(ZN_I8, buf, 0), 44);
  zn_store_i64(ZN_I4, buf, 0, 9);
  assert_int_equal(zn_load_i64(ZN_I4, buf, 0), -7);
  zn_store_i64(ZN_U64, buf, 0, -1);
  assert_true(zn_load_f64(ZN_U64, buf, 0) == 18446744073709551616.0);
  assert_int_equal(zn_int_wrap(ZN_U16, -1), 65535);
  assert_int_equal(zn_int_wrap(ZN_I16, 40000), -25536);
  zn_store_f64(ZN_F16, buf, 3, 0.333);
  assert_true(zn_load_f64(ZN_F16, buf, 3) == 0x1.55p-2);
  zn_store_i64(ZN_F32, buf, 0, 16777217);
  assert_true(zn_load_f64(ZN_F32, buf, 0) == 16777216);
}

static void test_tables(void **state) {
  (void)state;
  uint64_t n;
  for (int t = 1; t < ZN_DTYPE_COUNT; t++) {
    assert_int_equal(zn_dtype_from_name(zn_dtypes[t].name), t);
    if (zn_dtypes[t].onnx) assert_int_equal(zn_dtype_from_onnx(zn_dtypes[t].onnx), t);
  }
  assert_int_equal(zn_dtype_from_onnx(0), ZN_NONE);
  assert_int_equal(zn_int_bits(ZN_I4), 4);
  assert_int_equal(zn_int_bits(ZN_F32), 0);
  assert_true(zn_dims_count(3, (const int64_t[]){2, 3, 4}, 4, &n) && n == 24);
  assert_true(zn_dims_count(2, (const int64_t[]){INT64_MAX, 0}, 4, &n) && n == 0);
  assert_true(zn_dims_count(0, NULL, 4, &n) && n == 1);
  assert_false(zn_dims_count(2, (const int64_t[]){INT64_MAX, 2}, 1, &n));
  assert_false(zn_dims_count(1, (const int64_t[]){INT64_C(1) << 61}, 4, &n));
  assert_false(zn_dims_count(1, (const int64_t[]){-1}, 1, &n));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_encode), cmocka_unit_test(test_every_code),
      cmocka_unit_test(test_elements), cmocka_unit_test(test_tables)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
