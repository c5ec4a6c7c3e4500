/* Scalar operations as C expressions. Simple ones are written in place; those with cases
 * (saturation, x/0, shift counts, rounding) are calls of small helpers, which are emitted when
 * first used and depend on nothing outside the file. */
#include "codegen/cstyle/cs_priv.h"

static void helper(cs_state *s, const char *key, const char *text) {
  if (!cs_once(s, key)) return;
  zn_text_printf(&s->helpers, "%s ", s->dia->helper_qual);
  zn_text_puts(&s->helpers, text);
  zn_text_puts(&s->helpers, "\n");
}

static bool narrow(zn_dtype t) { return t != ZN_IDX && zn_dtype_bytes(t) < 4; }
static const char *scalar_name(cs_state *s, zn_dtype t) { return s->dia->scalar[cs_canon(t)]; }

/* ---- reinterpretation ---- */

static const char *need_bits(cs_state *s, bool single) {
  helper(s, single ? "bits32" : "bits64",
         single ? "uint32_t zn_f32_bits(float a) { union { float f; uint32_t u; } x; x.f = a; "
                  "return x.u; }"
                : "uint64_t zn_f64_bits(double a) { union { double f; uint64_t u; } x; x.f = a; "
                  "return x.u; }");
  return single ? "zn_f32_bits" : "zn_f64_bits";
}

static const char *need_of(cs_state *s, bool single) {
  helper(
      s, single ? "of32" : "of64",
      single
          ? "float zn_f32_of(uint32_t a) { union { float f; uint32_t u; } x; x.u = a; return x.f; }"
          : "double zn_f64_of(uint64_t a) { union { double f; uint64_t u; } x; x.u = a; return "
            "x.f; }");
  return single ? "zn_f32_of" : "zn_f64_of";
}

const char *cs_scalar_bitcast(cs_state *s, zn_dtype from, zn_dtype to, const char *a) {
  zn_dtype f = cs_canon(from), t = cs_canon(to);
  if (f == t) return a;
  bool single = zn_dtype_bytes(t) == 4;
  if (zn_is_float(f)) return cs_fmt(s, "(%s)%s(%s)", scalar_name(s, t), need_bits(s, single), a);
  if (zn_is_float(t))
    return cs_fmt(s, "%s((%s)%s)", need_of(s, single), single ? "uint32_t" : "uint64_t", a);
  return cs_fmt(s, "(%s)%s", scalar_name(s, t), a);
}

/* ---- rounding ---- */

static const char *const native_round =
    "#if defined(__GNUC__) && (defined(__SSE4_1__) || defined(__aarch64__))\n";

static void need_trunc(cs_state *s, bool single) {
  need_bits(s, single);
  need_of(s, single);
  if (!cs_once(s, single ? "trunc32" : "trunc64")) return;
  const char *f = single ? "float" : "double", *n = single ? "f32" : "f64",
             *u = single ? "uint32_t" : "uint64_t";
  int mant = single ? 23 : 52, bias = single ? 127 : 1023;
  zn_text_printf(&s->helpers,
                 "%s %s zn_trunc_%s(%s a) {\n%s  return __builtin_trunc%s(a);\n#else\n"
                 "  %s u = zn_%s_bits(a);\n"
                 "  int32_t e = (int32_t)(u >> %d & %s) - %d;\n"
                 "  if (e >= %d) return a;\n"
                 "  if (e < 0) return zn_%s_of(u >> %d << %d);\n"
                 "  return zn_%s_of(u >> (%d - e) << (%d - e));\n#endif\n}\n",
                 s->dia->helper_qual, f, n, f, native_round, single ? "f" : "", u, n, mant,
                 single ? "255" : "2047", bias, mant, n, single ? 31 : 63, single ? 31 : 63, n,
                 mant, mant);
}

static void need_round(cs_state *s, zn_kop op, bool single) {
  const char *f = single ? "float" : "double", *n = single ? "f32" : "f64";
  need_trunc(s, single);
  if (op == ZN_K_Trunc || !cs_once(s, cs_fmt(s, "%s_%s", zn_kops[op].text, n))) return;
  zn_text_printf(&s->helpers, "%s %s zn_%s_%s(%s a) {\n%s  return __builtin_%s%s(a);\n#else\n",
                 s->dia->helper_qual, f, zn_kops[op].text, n, f, native_round, zn_kops[op].text,
                 single ? "f" : "");
  if (op == ZN_K_Rint) {
    const char *big = single ? "8388608.0f" : "4503599627370496.0", *zero = single ? "0.0f" : "0.0";
    const char *sign = single ? "0x80000000u" : "UINT64_C(0x8000000000000000)";
    zn_text_printf(&s->helpers,
                   "  %s m = a < %s ? -a : a, r;\n"
                   "  if (!(m < %s)) return a;\n"
                   "  r = m + %s;\n"
                   "  r = r - %s;\n"
                   "  return zn_%s_of(zn_%s_bits(r) | (zn_%s_bits(a) & %s));\n",
                   f, zero, big, big, big, n, n, n, sign);
  } else {
    zn_text_printf(&s->helpers, "  %s t = zn_trunc_%s(a);\n  return t %s a ? t %s 1 : t;\n", f, n,
                   op == ZN_K_Floor ? ">" : "<", op == ZN_K_Floor ? "-" : "+");
  }
  zn_text_puts(&s->helpers, "#endif\n}\n");
}

/* ---- square root: an instruction where there is one (a builtin would call sqrtf for errno), else
 * digit by digit ---- */

static void need_sqrt(cs_state *s, bool single) {
  need_bits(s, single);
  need_of(s, single);
  if (!cs_once(s, single ? "sqrt32" : "sqrt64")) return;
  const char *f = single ? "float" : "double", *n = single ? "f32" : "f64",
             *q = s->dia->helper_qual;
  const char *ss = single ? "ss" : "sd", *u = single ? "uint32_t" : "uint64_t";
  zn_text_printf(
      &s->helpers,
      "%s %s zn_sqrt_%s(%s a) {\n"
      "#if defined(__GNUC__) && defined(__AVX__)\n"
      "  %s r;\n  __asm__(\"vsqrt%s {%%1, %%1, %%0|%%0, %%1, %%1}\" : \"=x\"(r) : \"x\"(a));\n  "
      "return r;\n"
      "#elif defined(__GNUC__) && defined(__SSE2__)\n"
      "  %s r;\n  __asm__(\"sqrt%s {%%1, %%0|%%0, %%1}\" : \"=x\"(r) : \"x\"(a));\n  return r;\n",
      q, f, n, f, f, ss, f, ss);
  zn_text_printf(
      &s->helpers,
      "#elif defined(__GNUC__) && defined(__aarch64__)\n"
      "  %s r;\n  __asm__(\"fsqrt %%%s0, %%%s1\" : \"=w\"(r) : \"w\"(a));\n  return r;\n"
      "#elif defined(__GNUC__) && defined(__arm__) && defined(__ARM_FP) && (__ARM_FP & %d)\n"
      "  %s r;\n  __asm__(\"vsqrt.%s %%%s0, %%%s1\" : \"=%s\"(r) : \"%s\"(a));\n  return r;\n",
      f, single ? "s" : "d", single ? "s" : "d", single ? 4 : 8, f, n, single ? "" : "P",
      single ? "" : "P", single ? "t" : "w", single ? "t" : "w");
  zn_text_printf(
      &s->helpers,
      "#else\n  %s u = zn_%s_bits(a), m, q = 0, rem = 0;\n  int32_t e = (int32_t)(u >> %d & %d), "
      "i;\n"
      "  if (u << 1 == 0 || (u >> %d == 0 && e == %d)) return a; /* zeros, +Inf, NaN */\n"
      "  if (u >> %d) return zn_%s_of(%s);\n",
      u, n, single ? 23 : 52, single ? 255 : 2047, single ? 31 : 63, single ? 255 : 2047,
      single ? 31 : 63, n, single ? "0x7fc00000u" : "UINT64_C(0x7ff8000000000000)");
  const char *one = single ? "(uint32_t)1 << 23" : "(uint64_t)1 << 52";
  zn_text_printf(&s->helpers,
                 "  m = u & ((%s) - 1);\n"
                 "  if (e == 0) { e = 1; while (!(m & %s)) { m <<= 1; e--; } }\n"
                 "  m |= %s;\n  e -= %d; /* a = m * 2^(e + %d) */\n"
                 "  if (e & 1) { m <<= 1; e--; }\n"
                 "  for (i = 0; i < %d; i++) { /* two bits of m << %d a turn */\n"
                 "    int32_t sh = %d - 2 * i;\n"
                 "    rem = (rem << 2) | ((sh >= 0 ? m >> sh : sh == -1 ? m << 1 : 0) & 3);\n"
                 "    q <<= 1;\n"
                 "    if (rem >= ((q << 1) | 1)) { rem -= (q << 1) | 1; q |= 1; }\n  }\n",
                 one, one, one, single ? 175 : 1129, single ? 25 : 54, single ? 25 : 54,
                 single ? 25 : 54, single ? 23 : 52);
  zn_text_printf(&s->helpers,
                 "  q = (q + 1) >> 1;\n  e = e / 2 + 1 + %d;\n"
                 "  return zn_%s_of(((%s)e << %d) + (q - (%s)));\n#endif\n}\n",
                 single ? 150 : 1075, n, u, single ? 23 : 52, one);
}

/* ---- fma ---- */

static void need_fma(cs_state *s, bool single) {
  if (!cs_once(s, single ? "fma32" : "fma64")) return;
  const char *f = single ? "float" : "double", *n = single ? "f32" : "f64";
  zn_text_printf(&s->helpers,
                 "#if !defined(__FMA__) && !defined(__aarch64__) && !(defined(__ARM_FEATURE_FMA) "
                 "&& (__ARM_FP & %d)) "
                 "&& !defined(__riscv_flen)\n"
                 "#error \"this file was generated for a processor with fused multiply-add: "
                 "compile with -mfma, or "
                 "generate it for another --arch\"\n#endif\n"
                 "%s %s zn_fma_%s(%s a, %s b, %s c) { return __builtin_fma%s(a, b, c); }\n",
                 single ? 4 : 8, s->dia->helper_qual, f, n, f, f, f, single ? "f" : "");
}

static const char *native(const cs_state *s, zn_kop op, zn_dtype t) {
  return zn_is_float(t) ? s->dia->native[op][t == ZN_F64] : NULL;
}

const char *cs_scalar_fma(cs_state *s, zn_dtype t, const char *a, const char *b, const char *c) {
  if (native(s, ZN_K_Fma, t)) return cs_fmt(s, "%s(%s, %s, %s)", native(s, ZN_K_Fma, t), a, b, c);
  need_fma(s, t == ZN_F32);
  return cs_fmt(s, "zn_fma_%s(%s, %s, %s)", zn_dtypes[t].name, a, b, c);
}

/* ---- integers with cases ---- */

static const char *width(zn_dtype t) {
  static const char *const w[] = {[1] = "8", [2] = "16", [4] = "32", [8] = "64"};
  return t == ZN_IDX ? "sizeof(zi) * 8" : w[zn_dtype_bytes(t)];
}

static void need_int_helper(cs_state *s, zn_kop op, zn_dtype t, const char *name) {
  if (!cs_once(s, name)) return;
  const char *c = scalar_name(s, t), *u = cs_unsigned(s, t);
  const char *same = t == ZN_IDX ? u : scalar_name(s, cs_unsigned_dtype(t));
  bool neg = zn_is_signed(t);
  zn_text_printf(&s->helpers, "%s %s %s(%s a, %s b) { return ", s->dia->helper_qual, c, name, c, c);
  switch ((int)op) {
  case ZN_K_Div:
    if (neg)
      zn_text_printf(&s->helpers, "(%s)(b == 0 ? 0 : b == -1 ? (%s)(0u - (%s)a) : a / b)", c, c, u);
    else
      zn_text_printf(&s->helpers, "(%s)(b == 0 ? 0 : a / b)", c);
    break;
  case ZN_K_Rem:
    if (neg)
      zn_text_printf(&s->helpers, "(%s)(b == 0 ? a : b == -1 ? 0 : a %% b)", c);
    else
      zn_text_printf(&s->helpers, "(%s)(b == 0 ? a : a %% b)", c);
    break;
  case ZN_K_Shl:
    zn_text_printf(&s->helpers, "(%s)b < %s ? (%s)((%s)a << b) : 0", same, width(t), c, u);
    break;
  default: /* Shr */
    if (neg)
      zn_text_printf(&s->helpers, "(%s)(a >> ((%s)b < %s ? (int)b : (int)(%s - 1)))", c, same,
                     width(t), width(t));
    else
      zn_text_printf(&s->helpers, "(%s)((%s)b < %s ? a >> b : 0)", c, same, width(t));
  }
  zn_text_puts(&s->helpers, "; }\n");
}

static void need_minmax(cs_state *s, zn_kop op, zn_dtype t) {
  const char *c = scalar_name(s, t);
  helper(s, cs_fmt(s, "%s_%s", zn_kops[op].text, zn_dtypes[t].name),
         cs_fmt(s, "%s zn_%s_%s(%s a, %s b) { return a %s b ? a : b; }", c, zn_kops[op].text,
                zn_dtypes[t].name, c, c, op == ZN_K_Min ? "<" : ">"));
}

static void need_copysign(cs_state *s, bool single) {
  need_bits(s, single);
  need_of(s, single);
  helper(s, single ? "copysign32" : "copysign64",
         single ? "float zn_copysign_f32(float a, float b) {\n"
                  "  return zn_f32_of((zn_f32_bits(a) & 0x7fffffffu) | (zn_f32_bits(b) & "
                  "0x80000000u));\n}"
                : "double zn_copysign_f64(double a, double b) {\n"
                  "  return zn_f64_of((zn_f64_bits(a) & UINT64_C(0x7fffffffffffffff)) |\n"
                  "                   (zn_f64_bits(b) & UINT64_C(0x8000000000000000)));\n}");
}

static void need_abs(cs_state *s, zn_dtype t) {
  const char *key = cs_fmt(s, "abs_%s", zn_dtypes[t].name), *c = scalar_name(s, t);
  if (zn_is_float(t)) {
    bool single = t == ZN_F32;
    need_bits(s, single);
    need_of(s, single);
    helper(s, key,
           single ? "float zn_abs_f32(float a) { return zn_f32_of(zn_f32_bits(a) & 0x7fffffffu); }"
                  : "double zn_abs_f64(double a) { return zn_f64_of(zn_f64_bits(a) & "
                    "UINT64_C(0x7fffffffffffffff)); }");
    return;
  }
  helper(s, key,
         cs_fmt(s, "%s zn_abs_%s(%s a) { return a < 0 ? (%s)(0u - (%s)a) : a; }", c,
                zn_dtypes[t].name, c, c, cs_unsigned(s, t)));
}

/* ---- conversions ---- */

static void need_decode16(cs_state *s, zn_dtype t) {
  need_of(s, true);
  if (t == ZN_BF16) {
    helper(s, "bf16_f32",
           "float zn_bf16_to_f32(uint16_t a) { return zn_f32_of((uint32_t)a << 16); }");
    return;
  }
  helper(s, "f16_f32",
         "float zn_f16_to_f32(uint16_t a) {\n"
         "  uint32_t s = (a & 0x8000u) << 16, e = a >> 10 & 31u, m = a & 0x3ffu;\n"
         "  float r;\n"
         "  if (e == 31) return zn_f32_of(s | 0x7f800000u | m << 13);\n"
         "  if (e) return zn_f32_of(s | (e + 112) << 23 | m << 13);\n"
         "  r = (float)m * 0x1p-24f;\n"
         "  return s ? -r : r;\n}");
}

static void need_encode16(cs_state *s) {
  need_bits(s, false);
  helper(
      s, "encode16",
      "uint16_t zn_encode16(double a, int32_t mant, int32_t bias) { /* to nearest even */\n"
      "  uint64_t u = zn_f64_bits(a), m = u & UINT64_C(0xfffffffffffff), q, rem, inf;\n"
      "  uint16_t s = (uint16_t)(u >> 48 & 0x8000u);\n"
      "  int32_t e = (int32_t)(u >> 52 & 2047u), sh = 52 - mant;\n"
      "  inf = (uint64_t)(2 * bias + 1) << mant;\n"
      "  if (e == 2047) return (uint16_t)(s | inf | (m ? (uint64_t)1 << (mant - 1) : 0));\n"
      "  if (e == 0) return s;\n"
      "  m |= (uint64_t)1 << 52;\n"
      "  e += bias - 1023;\n"
      "  if (e < 1) { sh += 1 - e; e = 1; }\n"
      "  if (sh > 54) return s;\n"
      "  q = m >> sh;\n"
      "  rem = m & (((uint64_t)1 << sh) - 1);\n"
      "  if (rem > (uint64_t)1 << (sh - 1) || (rem == (uint64_t)1 << (sh - 1) && (q & 1))) q++;\n"
      "  q += (uint64_t)(e - 1) << mant;\n"
      "  return (uint16_t)(s | (q < inf ? q : inf));\n}");
}

static const char *need_saturate(cs_state *s, zn_dtype from, zn_dtype to) {
  const char *name = cs_fmt(s, "zn_cvt_%s_%s", zn_dtypes[from].name, zn_dtypes[to].name);
  if (!cs_once(s, name)) return name;
  const char *f = scalar_name(s, from), *c = scalar_name(s, to),
             *suffix = from == ZN_F32 ? "f" : "";
  int bits = to == ZN_IDX ? 0 : (int)zn_dtype_bytes(to) * 8 - (zn_is_signed(to) ? 1 : 0);
  zn_text_printf(&s->helpers, "%s %s %s(%s a) { return a != a ? 0 : ", s->dia->helper_qual, c, name,
                 f);
  if (to == ZN_IDX)
    zn_text_printf(
        &s->helpers,
        "a < (%s)INTPTR_MIN ? INTPTR_MIN : a >= -(%s)INTPTR_MIN ? INTPTR_MAX : (zi)a; }\n", f, f);
  else if (zn_is_signed(to))
    zn_text_printf(&s->helpers,
                   "a < -0x1p%d%s ? INT%d_MIN : a >= 0x1p%d%s ? INT%d_MAX : (%s)a; }\n", bits,
                   suffix, bits + 1, bits, suffix, bits + 1, c);
  else
    zn_text_printf(&s->helpers, "a < 0 ? 0 : a >= 0x1p%d%s ? UINT%d_MAX : (%s)a; }\n", bits, suffix,
                   bits, c);
  return name;
}

static bool is_half(zn_dtype t) { return t == ZN_F16 || t == ZN_BF16; }

const char *cs_scalar_cvt(cs_state *s, zn_kop op, zn_dtype from, zn_dtype to, const char *a) {
  if (from == to) return a;
  if (s->dia->f16_to_f32 && from == ZN_F16 && to == ZN_F32) return cs_fmt(s, "%s(%s)", s->dia->f16_to_f32, a);
  if (s->dia->f32_to_f16 && from == ZN_F32 && to == ZN_F16) return cs_fmt(s, "%s(%s)", s->dia->f32_to_f16, a);
  if (is_half(from)) {
    if (to == ZN_BOOL) return cs_fmt(s, "((%s & 0x7fff) != 0)", a);
    need_decode16(s, from);
    return cs_scalar_cvt(s, op, ZN_F32, to, cs_fmt(s, "zn_%s_to_f32(%s)", zn_dtypes[from].name, a));
  }
  if (is_half(to)) {
    need_encode16(s);
    return cs_fmt(
        s, to == ZN_F16 ? "zn_encode16((double)%s, 10, 15)" : "zn_encode16((double)%s, 7, 127)", a);
  }
  if (to == ZN_BOOL) return cs_fmt(s, "(%s != 0)", a);
  if (zn_is_float(from) && !zn_is_float(to) && op == ZN_K_Cvt)
    return cs_fmt(s, "%s(%s)", need_saturate(s, from, to), a);
  return cs_fmt(s, "(%s)%s", scalar_name(s, to), a);
}

/* ---- the table of operations ---- */

const char *cs_scalar_un(cs_state *s, zn_kop op, zn_dtype t, const char *a) {
  bool single = t == ZN_F32;
  if (native(s, op, t)) return cs_fmt(s, "%s(%s)", native(s, op, t), a);
  switch ((int)op) {
  case ZN_K_Neg:
    if (zn_is_float(t)) return cs_fmt(s, "(-%s)", a);
    return cs_fmt(s, "(%s)(0u - (%s)%s)", scalar_name(s, t), cs_unsigned(s, t), a);
  case ZN_K_Not:
    return t == ZN_BOOL ? cs_fmt(s, "(!%s)", a) : cs_fmt(s, "(%s)~%s", scalar_name(s, t), a);
  case ZN_K_Abs:
    if (zn_dtypes[t].cls == 'U') return a;
    need_abs(s, t);
    break;
  case ZN_K_Sqrt:
    need_sqrt(s, single);
    break;
  case ZN_K_Floor:
  case ZN_K_Ceil:
  case ZN_K_Trunc:
  case ZN_K_Rint:
    need_round(s, op, single);
    break;
  default:
    ZN_BUG(s->ctx, "operation '%s' reached the C printer unexpanded", zn_kops[op].text);
  }
  return cs_fmt(s, "zn_%s_%s(%s)", zn_kops[op].text, zn_dtypes[t].name, a);
}

static const char *symbol(zn_kop op) {
  switch ((int)op) {
  case ZN_K_Add:
    return "+";
  case ZN_K_Sub:
    return "-";
  case ZN_K_Mul:
    return "*";
  case ZN_K_Div:
    return "/";
  case ZN_K_And:
    return "&";
  case ZN_K_Or:
    return "|";
  case ZN_K_Xor:
    return "^";
  case ZN_K_Eq:
    return "==";
  case ZN_K_Ne:
    return "!=";
  case ZN_K_Lt:
    return "<";
  case ZN_K_Le:
    return "<=";
  case ZN_K_Gt:
    return ">";
  case ZN_K_Ge:
    return ">=";
  default:
    return NULL;
  }
}

const char *cs_scalar_bin(cs_state *s, zn_kop op, zn_dtype t, const char *a, const char *b) {
  const char *sym = symbol(op), *c = scalar_name(s, t);
  bool is_float = zn_is_float(t);
  if (zn_kops[op].cls == 'P') return cs_fmt(s, "(%s %s %s)", a, sym, b);
  if (native(s, op, t)) return cs_fmt(s, "%s(%s, %s)", native(s, op, t), a, b);
  switch ((int)op) {
  case ZN_K_Add:
  case ZN_K_Sub:
  case ZN_K_Mul:
    if (is_float || t == ZN_U32 || t == ZN_U64) return cs_fmt(s, "(%s %s %s)", a, sym, b);
    return cs_fmt(s, "(%s)((%s)%s %s (%s)%s)", c, cs_unsigned(s, t), a, sym, cs_unsigned(s, t), b);
  case ZN_K_Div:
    if (is_float) return cs_fmt(s, "(%s / %s)", a, b);
    break;
  case ZN_K_And:
  case ZN_K_Or:
  case ZN_K_Xor:
    if (narrow(t) && t != ZN_BOOL) return cs_fmt(s, "(%s)(%s %s %s)", c, a, sym, b);
    return cs_fmt(s, "(%s %s %s)", a, sym, b);
  case ZN_K_Min:
  case ZN_K_Max:
    need_minmax(s, op, t);
    return cs_fmt(s, "zn_%s_%s(%s, %s)", zn_kops[op].text, zn_dtypes[t].name, a, b);
  case ZN_K_CopySign:
    need_copysign(s, t == ZN_F32);
    return cs_fmt(s, "zn_copysign_%s(%s, %s)", zn_dtypes[t].name, a, b);
  default:
    break;
  }
  if (is_float || (op != ZN_K_Div && op != ZN_K_Rem && op != ZN_K_Shl && op != ZN_K_Shr))
    ZN_BUG(s->ctx, "operation '%s' reached the C printer unexpanded", zn_kops[op].text);
  const char *name = cs_fmt(s, "zn_%s_%s", zn_kops[op].text, zn_dtypes[t].name);
  need_int_helper(s, op, t, name);
  return cs_fmt(s, "%s(%s, %s)", name, a, b);
}

const char *cs_features(cs_state *s) {
  helper(s, "detect",
         "uint64_t zn_detect(void) {\n"
         "#if defined(__GNUC__) && defined(__x86_64__)\n"
         "  uint32_t a = 0, b = 0, c = 0, d = 0, lo, hi, c1;\n"
         "  uint64_t f = 0;\n"
         "  __asm__ volatile(\"cpuid\" : \"+a\"(a), \"=b\"(b), \"+c\"(c), \"=d\"(d));\n"
         "  if (a < 7) return 0;\n"
         "  a = 1; c = 0;\n"
         "  __asm__ volatile(\"cpuid\" : \"+a\"(a), \"=b\"(b), \"+c\"(c), \"=d\"(d));\n"
         "  c1 = c;\n"
         "  a = 7; c = 0;\n"
         "  __asm__ volatile(\"cpuid\" : \"+a\"(a), \"=b\"(b), \"+c\"(c), \"=d\"(d));\n"
         "  if (c1 >> 20 & 1) f |= 16u; /* SSE4.2 */\n"
         "  if (b >> 8 & 1) f |= 32u;   /* BMI2 */\n"
         "  if (!(c1 >> 27 & 1)) return f;\n"
         "  __asm__ volatile(\"xgetbv\" : \"=a\"(lo), \"=d\"(hi) : \"c\"(0));\n"
         "  if ((lo & 6) != 6) return f;\n"
         "  if (b >> 5 & 1) f |= 1u;    /* AVX2 */\n"
         "  if (c1 >> 12 & 1) f |= 2u;  /* FMA */\n"
         "  if (c1 >> 29 & 1) f |= 4u;  /* F16C */\n"
         "  if ((lo & 0xe6) == 0xe6 && (b & 0xd0030000u) == 0xd0030000u) f |= 8u; /* AVX-512 F BW "
         "CD DQ VL */\n"
         "  return f;\n"
         "#else\n  return ~(uint64_t)0;\n#endif\n}");
  helper(s, "features",
         "uint64_t zn_features(void) { /* ZN_FEAT_* bits of this processor; all ones where it "
         "cannot be asked */\n"
         "#if defined(__GNUC__) && defined(__x86_64__)\n"
         "  static uint64_t kept; /* whoever asks at the same time writes the same */\n"
         "  uint64_t have = __atomic_load_n(&kept, __ATOMIC_RELAXED);\n"
         "  if (!have) {\n"
         "    have = zn_detect() | (uint64_t)1 << 63;\n"
         "    __atomic_store_n(&kept, have, __ATOMIC_RELAXED);\n"
         "  }\n"
         "  return have;\n"
         "#else\n  return zn_detect();\n#endif\n}");
  return "zn_features()";
}
