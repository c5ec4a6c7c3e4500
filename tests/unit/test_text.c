/* Text buffers and the tokenizer: number round trips, escapes, signs and joiners. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "zenithc/base/text.h"

static void quiet(void *user, zn_severity sev, const char *line) {
  (void)sev;
  snprintf(user, 256, "%s", line);
}

static void test_doubles(void **state) {
  (void)state;
  zn_arena a;
  zn_arena_init(&a, "t");
  const double xs[] = {0,           1, -1, 0.1, 1e-5, 1.0 / 3, 1e300, 5e-324, 123456789012345678.0,
                       (double)0.1f};
  for (size_t i = 0; i < sizeof xs / sizeof *xs; i++) {
    zn_text t;
    zn_text_init(&t, &a);
    zn_text_double(&t, xs[i]);
    assert_true(strtod(t.s, NULL) == xs[i]);
  }
  zn_text t;
  zn_text_init(&t, &a);
  zn_text_double(&t, 0.1);
  zn_text_puts(&t, " ");
  zn_text_double(&t, 1e-5);
  zn_text_puts(&t, " ");
  zn_text_double(&t, -INFINITY);
  zn_text_printf(&t, " %0300d", 7);
  assert_int_equal(t.len, 3 + 1 + 5 + 1 + 4 + 301);
  assert_memory_equal(t.s, "0.1 1e-05 -inf 0000", 19);
  zn_arena_reset(&a);
}

static void test_tokens(void **state) {
  (void)state;
  zn_ctx c;
  zn_ctx_init(&c);
  const char *src =
      "%12 = add.f32 @w onnx::Conv_1 -> [-1, n//2] a - 3 (b)-4 x: # note\n"
      "-1e-05 -inf nan 0x1F 1.5 %\"odd\" \"a\\n\\x41\\\"\" /";
  const int want[] = {ZN_TOK_IDENT,  '=',           ZN_TOK_IDENT, ZN_TOK_IDENT, ZN_TOK_IDENT,
                      ZN_TOK_ARROW,  '[',           ZN_TOK_INT,   ',',          ZN_TOK_IDENT,
                      '/',           '/',           ZN_TOK_INT,   ']',          ZN_TOK_IDENT,
                      '-',           ZN_TOK_INT,    '(',          ZN_TOK_IDENT, ')',
                      '-',           ZN_TOK_INT,    ZN_TOK_IDENT, ':',          ZN_TOK_FLOAT,
                      ZN_TOK_FLOAT,  ZN_TOK_FLOAT,  ZN_TOK_INT,   ZN_TOK_FLOAT, '%',
                      ZN_TOK_STRING, ZN_TOK_STRING, '/',          ZN_TOK_EOF};
  zn_lexer l;
  zn_lex_init(&l, &c, &c.tmp, src, strlen(src));
  for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
    assert_int_equal(l.tok, want[i]);
    if (i == 0) assert_string_equal(l.text, "%12");
    if (i == 4) assert_string_equal(l.text, "onnx::Conv_1");
    if (i == 7) assert_int_equal(l.i, -1);
    if (i == 24) assert_true(l.f == -1e-05);
    if (i == 27) assert_int_equal(l.i, 31);
    if (i == 31) assert_string_equal(l.text, "a\nA\"");
    zn_lex_next(&l);
  }
  assert_int_equal(l.line, 2);
  zn_ctx_fini(&c);
}

static void test_errors(void **state) {
  (void)state;
  const char *const bad[] = {"\"abc", "99999999999999999999", "\"\\q\"", "\x01", "\"abc\\"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    zn_ctx c;
    char msg[256] = "";
    zn_ctx_init(&c);
    c.sink = quiet;
    c.sink_user = msg;
    zn_lexer l;
    zn_lex_init(&l, &c, &c.tmp, bad[i], strlen(bad[i]));
    assert_int_equal(l.tok, ZN_TOK_ERROR);
    assert_int_equal(zn_lex_expect(&l, ')', "')'"), ZN_ERR_MODEL);
    assert_int_equal(c.errors, 1);
    zn_ctx_fini(&c);
  }
  zn_ctx c;
  char msg[256] = "";
  zn_ctx_init(&c);
  c.sink = quiet;
  c.sink_user = msg;
  zn_lexer l;
  zn_lex_init(&l, &c, &c.tmp, "x\ny", 3);
  zn_lex_next(&l);
  assert_int_equal(zn_lex_expect(&l, ')', "')'"), ZN_ERR_MODEL);
  assert_string_equal(msg, "zenithc: line 2: expected ')', found 'y'");
  zn_ctx_fini(&c);
}

static void test_quote(void **state) {
  (void)state;
  zn_ctx c;
  zn_ctx_init(&c);
  zn_text t;
  zn_text_init(&t, &c.tmp);
  const char raw[] = "a\"b\\c\nd\x01\0e";
  zn_text_quote(&t, raw, sizeof raw - 1);
  zn_lexer l;
  zn_lex_init(&l, &c, &c.tmp, t.s, t.len);
  assert_int_equal(l.tok, ZN_TOK_STRING);
  assert_int_equal(l.text_len, sizeof raw - 1);
  assert_memory_equal(l.text, raw, sizeof raw - 1);
  assert_true(zn_text_is_ident("a.b/c", 5));
  assert_false(zn_text_is_ident("a//b", 4));
  assert_false(zn_text_is_ident("inf", 3));
  assert_true(zn_text_is_sigil_ident("/conv/Conv_0", 12));
  assert_true(zn_text_is_sigil_ident("12", 2));
  zn_ctx_fini(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_doubles),
      cmocka_unit_test(test_tokens),
      cmocka_unit_test(test_errors),
      cmocka_unit_test(test_quote),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
