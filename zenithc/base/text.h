/* Growing text buffers, and the tokenizer that both IR texts share. */
#ifndef ZN_TEXT_H
#define ZN_TEXT_H
#include "zenithc/base/diag.h"

typedef struct zn_text {
  zn_arena *arena;
  char *s; /* NUL-terminated, NULL while empty */
  size_t len, cap;
} zn_text;

void zn_text_init(zn_text *t, zn_arena *a);
void zn_text_put(zn_text *t, const char *s, size_t n);
void zn_text_puts(zn_text *t, const char *s);
void zn_text_printf(zn_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Shortest decimal that reads back as the same double: "1", "0.1", "1e-05", "nan", "inf", "-inf".
 */
void zn_text_double(zn_text *t, double x);
/* "..." with \" \\ \n \xHH escapes. */
void zn_text_quote(zn_text *t, const char *s, size_t n);
/* Does s read back as one identifier token? Without a sigil, or directly behind one (there digits
 * and '/' may lead). Printers quote every other name. */
bool zn_text_is_ident(const char *s, size_t n);
bool zn_text_is_sigil_ident(const char *s, size_t n);

typedef enum zn_tok { /* single characters are their own token */
                      ZN_TOK_EOF = 256,
                      ZN_TOK_IDENT,
                      ZN_TOK_INT,
                      ZN_TOK_FLOAT,
                      ZN_TOK_STRING,
                      ZN_TOK_ARROW,
                      ZN_TOK_ERROR
} zn_tok;

/* Identifiers: [A-Za-z_][A-Za-z0-9_.:/-]* with an optional sigil % $ @ or ! in front (part of the
 * text). '#' starts a comment. The joiners . : / - (and ::) belong to an identifier only when a
 * letter, digit or _ follows: "n//2" is four tokens. '-' directly before digits is a sign unless it
 * directly follows a value; inf, -inf and nan are FLOAT. A sigil that no identifier follows is its
 * own token, so %"odd name" is '%' STRING. INT sets f as well. */
typedef struct zn_lexer {
  zn_ctx *ctx;
  zn_arena *arena;
  const char *p, *end;
  int line;
  int tok;          /* current token */
  const char *text; /* IDENT (with sigil), STRING (unescaped) */
  size_t text_len;
  int64_t i;
  double f;
} zn_lexer;

void zn_lex_init(zn_lexer *l, zn_ctx *ctx, zn_arena *a, const char *src,
                 size_t n); /* reads the first token */
void zn_lex_next(zn_lexer *l);
bool zn_lex_accept(zn_lexer *l, int tok);             /* consumes when it matches */
bool zn_lex_is(const zn_lexer *l, const char *ident); /* current token is exactly this identifier */
zn_status zn_lex_expect(zn_lexer *l, int tok, const char *what) ZN_NODISCARD;
zn_status zn_lex_error(zn_lexer *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#endif
