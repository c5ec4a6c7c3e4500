/* Integer dot products in C: a portable form, and behind it the compiler's own instruction where the file is compiled
 * for one: pmaddwd and pmaddubsw on x86, smlad on Arm cores with the DSP extension, sdot, udot, usdot or products of 16
 * bits on AArch64. All forms give the same bits. */
#include <assert.h>

#include "codegen/cstyle/cs_priv.h"

/* Part j of the 32-bit word `x`. */
static const char *part(cs_state *s, const char *x, unsigned j, unsigned bits, bool is_signed) {
  return cs_fmt(s, "(int32_t)(%s)((uint32_t)%s >> %u)",
                bits == 8 ? (is_signed ? "int8_t" : "uint8_t") : (is_signed ? "int16_t" : "uint16_t"), x, j * bits);
}

/* The sum as an expression over words a, b, c. */
static const char *plain(cs_state *s, zn_kop op, unsigned flags, const char *a, const char *b, const char *c) {
  const unsigned n = op == ZN_K_Dot4 ? 4 : 2, bits = 32 / n;
  const char *sum = cs_fmt(s, "(uint32_t)%s", c);
  for (unsigned j = 0; j < n; j++) {
    const char *x = part(s, a, j, bits, n == 2 || flags & ZN_DOT_A_SIGNED);
    const char *y = part(s, b, j, bits, n == 2 || flags & ZN_DOT_B_SIGNED);
    sum = cs_fmt(s, "%s\n      + (uint32_t)(%s * %s)", sum, x, y);
  }
  return cs_fmt(s, "(int32_t)(%s)", sum);
}

/* The two sums of Pair4 and their word. */
static const char *plain_pair(cs_state *s, unsigned flags) {
  const char *sum[2];
  for (unsigned h = 0; h < 2; h++) {
    sum[h] = part(s, "c", h, 16, true);
    for (unsigned j = 2 * h; j < 2 * h + 2; j++)
      sum[h] = cs_fmt(s, "%s + %s * %s", sum[h], part(s, "a", j, 8, flags & ZN_DOT_A_SIGNED),
                      part(s, "b", j, 8, flags & ZN_DOT_B_SIGNED));
  }
  return cs_fmt(s, "(int32_t)(((uint32_t)(%s) & 65535u) |\n      (uint32_t)(%s) << 16)", sum[0], sum[1]);
}

static const char *arm_form(cs_state *s, zn_kop op, unsigned flags) {
  if (op == ZN_K_Dot2) return "  return __builtin_arm_smlad(a, b, c);\n";
  const char *xa = flags & ZN_DOT_A_SIGNED ? "s" : "u", *xb = flags & ZN_DOT_B_SIGNED ? "s" : "u";
  return cs_fmt(s,
                "  const int32_t p = __builtin_arm_smlad((int32_t)__builtin_arm_%sxtb16(a),\n"
                "                                        (int32_t)__builtin_arm_%sxtb16(b), c);\n"
                "  a = (int32_t)((uint32_t)a >> 8 | (uint32_t)a << 24);\n"
                "  b = (int32_t)((uint32_t)b >> 8 | (uint32_t)b << 24);\n"
                "  return __builtin_arm_smlad((int32_t)__builtin_arm_%sxtb16(a), (int32_t)__builtin_arm_%sxtb16(b), p);\n",
                xa, xb, xa, xb);
}

static void scalar(cs_state *s, const char *name, zn_kop op, unsigned flags) {
  if (op == ZN_K_Pair4) {
    zn_text_printf(&s->helpers, "%s int32_t %s(int32_t a, int32_t b, int32_t c) {\n  return %s;\n}\n", s->dia->helper_qual,
                   name, plain_pair(s, flags));
    return;
  }
  zn_text_printf(&s->helpers,
                 "%s int32_t %s(int32_t a, int32_t b, int32_t c) {\n"
                 "#if defined(__ARM_FEATURE_SIMD32) && defined(__GNUC__)\n%s#else\n  return %s;\n#endif\n}\n",
                 s->dia->helper_qual, name, arm_form(s, op, flags), plain(s, op, flags, "a", "b", "c"));
}

/* Vectors of 16 and 32 bytes on x86; NULL where there is no such instruction. */
static const char *x86_form(cs_state *s, zn_kop op, unsigned lanes, unsigned flags, const char **guard) {
  const char *n = lanes == 8 ? "256" : "128";
  if (lanes != 4 && lanes != 8) return NULL;
  if (op != ZN_K_Dot2 && flags != (ZN_DOT_B_SIGNED | ZN_DOT_PAIRS)) return NULL;
  const char *v16 = cs_name(s, cs_vector(ZN_I16, lanes * 2, 0)), *v32 = cs_name(s, cs_vector(ZN_I32, lanes, 0));
  *guard = lanes == 8 ? "__AVX2__" : op != ZN_K_Dot2 ? "__SSSE3__" : "__SSE2__";
  const char *u32 = cs_name(s, cs_vector(ZN_U32, lanes, 0));
  if (op == ZN_K_Dot2)
    return cs_fmt(s, "  return (%s)((%s)c + (%s)__builtin_ia32_pmaddwd%s((%s)a, (%s)b));", v32, u32, u32, n, v16, v16);
  if (cs_once(s, cs_fmt(s, "zn_bytes%u", lanes * 4)))
    zn_text_printf(&s->helpers, "#if defined(%s)\ntypedef char %s __attribute__((vector_size(%u)));\n#endif\n", *guard,
                 cs_fmt(s, "zn_bytes%u", lanes * 4), lanes * 4);
  if (op == ZN_K_Pair4)
    return cs_fmt(s, "  return (%s)((%s)c + (%s)__builtin_ia32_pmaddubsw%s((zn_bytes%u)a, (zn_bytes%u)b));", v32, v16, v16,
                  n, lanes * 4, lanes * 4);
  return cs_fmt(s,
                "  const %s p = (%s)__builtin_ia32_pmaddubsw%s((zn_bytes%u)a, (zn_bytes%u)b), one = p - p + 1;\n"
                "  return (%s)((%s)c + (%s)__builtin_ia32_pmaddwd%s(p, one));",
                v16, v16, n, lanes * 4, lanes * 4, v32, u32, u32, n);
}

/* Four lanes on AArch64; NULL where there is no such instruction. */
static const char *neon_form(cs_state *s, zn_kop op, unsigned lanes, unsigned flags, const char **guard) {
  const unsigned signs = flags & (ZN_DOT_A_SIGNED | ZN_DOT_B_SIGNED), both = ZN_DOT_A_SIGNED | ZN_DOT_B_SIGNED;
  if (lanes != 4 || op == ZN_K_Pair4 || signs == ZN_DOT_A_SIGNED) return NULL;
  *guard = "__aarch64__) && defined(__ARM_NEON";
  const char *t = cs_name(s, cs_vector(ZN_I32, 4, 0));
  if (cs_once(s, "arm_neon.h"))
    zn_text_puts(&s->helpers, "#if ZN_VEC && defined(__aarch64__) && defined(__ARM_NEON)\n#include <arm_neon.h>\n#endif\n");
  if (op == ZN_K_Dot2)
    return cs_fmt(s,
                  "  const int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;\n"
                  "  const int32x4_t p = vmull_s16(vget_low_s16(x), vget_low_s16(y));\n"
                  "  return (%s)vaddq_s32((int32x4_t)c, vpaddq_s32(p, vmull_high_s16(x, y)));", t);
  if (signs == 0) {
    *guard = "__ARM_FEATURE_DOTPROD";
    return cs_fmt(s, "  return (%s)vdotq_u32((uint32x4_t)c, (uint8x16_t)a, (uint8x16_t)b);", t);
  }
  if (signs == ZN_DOT_B_SIGNED) {
    *guard = "__ARM_FEATURE_MATMUL_INT8";
    return cs_fmt(s, "  return (%s)vusdotq_s32((int32x4_t)c, (uint8x16_t)a, (int8x16_t)b);", t);
  }
  assert(signs == both);
  const char *sum = flags & ZN_DOT_PAIRS ? "vpadalq_s16((int32x4_t)c, vpaddq_s16(p, q))"
                                         : "vaddq_s32((int32x4_t)c, vpaddq_s32(vpaddlq_s16(p), vpaddlq_s16(q)))";
  return cs_fmt(s,
                "#ifdef __ARM_FEATURE_DOTPROD\n"
                "  return (%s)vdotq_s32((int32x4_t)c, (int8x16_t)a, (int8x16_t)b);\n"
                "#else\n"
                "  const int8x16_t x = (int8x16_t)a, y = (int8x16_t)b;\n"
                "  const int16x8_t p = vmull_s8(vget_low_s8(x), vget_low_s8(y)), q = vmull_high_s8(x, y);\n"
                "  return (%s)%s;\n"
                "#endif", t, t, sum);
}

static const char *lane(cs_state *s, const char *x, unsigned lanes) {
  return cs_is_pow2(lanes) ? cs_fmt(s, "ZN_LANE(%s, k)", x) : cs_fmt(s, "%s.v[k]", x);
}

const char *cs_dot(cs_state *s, zn_kop op, unsigned lanes, unsigned flags) {
  assert(op != ZN_K_Dot2Bf16); /* no target of C grants it: it is expanded */
  const char *word = cs_fmt(s, "zn_%s_%u", zn_kops[op].text, flags);
  if (lanes == 1) {
    if (cs_once(s, word)) scalar(s, word, op, flags);
    return word;
  }
  const char *name = cs_fmt(s, "%s_x%u", word, lanes), *t = cs_name(s, cs_vector(ZN_I32, lanes, 0));
  if (!cs_once(s, name)) return name;
  const char *one = cs_dot(s, op, 1, flags), *form[2], *guards[2] = {NULL, NULL};
  form[0] = x86_form(s, op, lanes, flags, &guards[0]);
  form[1] = neon_form(s, op, lanes, flags, &guards[1]);
  zn_text_printf(&s->helpers, "%s %s %s(%s a, %s b, %s c) {\n", s->dia->helper_qual, t, name, t, t, t);
  const char *branch = "#if";
  for (int i = 0; i < 2; i++) {
    if (!form[i]) continue;
    zn_text_printf(&s->helpers, "%s ZN_VEC && defined(%s)\n%s\n", branch, guards[i], form[i]);
    branch = "#elif";
  }
  const bool any = form[0] || form[1];
  if (any) zn_text_puts(&s->helpers, "#else\n");
  zn_text_printf(&s->helpers, "  int k;\n  for (k = 0; k < %u; k++) %s = %s(%s, %s, %s);\n  return c;\n", lanes,
                 lane(s, "c", lanes), one, lane(s, "a", lanes), lane(s, "b", lanes), lane(s, "c", lanes));
  if (any) zn_text_puts(&s->helpers, "#endif\n");
  zn_text_puts(&s->helpers, "}\n");
  return name;
}
