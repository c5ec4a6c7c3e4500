/* Text buffers and the tokenizer of the IR texts. Numbers print as the shortest decimal that reads
 * back; the tokenizer takes a '-' directly before a number as its sign unless it directly follows a
 * value ("a - 1", "(n)-1" are operators). */
#include "zenithc/base/text.h"

#include <assert.h>
#include <math.h>

void zn_text_init(zn_text *t, zn_arena *a) {
  memset(t, 0, sizeof *t);
  t->arena = a;
}

static char *reserve(zn_text *t, size_t n) {
  if (t->len + n + 1 > t->cap) {
    size_t cap = t->cap ? t->cap * 2 : 64;
    while (cap < t->len + n + 1) cap *= 2;
    t->s = zn_arena_grow(t->arena, t->s, t->len, cap);
    t->cap = cap;
  }
  return t->s + t->len;
}

void zn_text_put(zn_text *t, const char *s, size_t n) {
  char *p = reserve(t, n);
  if (n) memcpy(p, s, n);
  p[n] = 0;
  t->len += n;
}

void zn_text_puts(zn_text *t, const char *s) { zn_text_put(t, s, strlen(s)); }

void zn_text_printf(zn_text *t, const char *fmt, ...) {
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  char small[256];
  int n = vsnprintf(small, sizeof small, fmt, ap);
  va_end(ap);
  assert(n >= 0);
  if ((size_t)n < sizeof small) {
    zn_text_put(t, small, (size_t)n);
  } else {
    vsnprintf(reserve(t, (size_t)n), (size_t)n + 1, fmt, again);
    t->len += (size_t)n;
  }
  va_end(again);
}

void zn_text_double(zn_text *t, double x) {
  if (isnan(x)) {
    zn_text_puts(t, "nan");
    return;
  }
  if (isinf(x)) {
    zn_text_puts(t, x < 0 ? "-inf" : "inf");
    return;
  }
  char buf[40];
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(buf, sizeof buf, "%.*g", digits, x);
    if (strtod(buf, NULL) == x) break;
  }
  zn_text_puts(t, buf);
}

void zn_text_quote(zn_text *t, const char *s, size_t n) {
  zn_text_put(t, "\"", 1);
  for (size_t i = 0; i < n; i++) {
    unsigned char ch = (unsigned char)s[i];
    if (ch == '"' || ch == '\\')
      zn_text_printf(t, "\\%c", ch);
    else if (ch == '\n')
      zn_text_puts(t, "\\n");
    else if (ch < 32 || ch == 127)
      zn_text_printf(t, "\\x%02x", ch);
    else
      zn_text_put(t, s + i, 1);
  }
  zn_text_put(t, "\"", 1);
}

/* ---- tokenizer ---- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static bool is_word(char c) { return is_start(c) || is_digit(c); }

/* End of the identifier that starts at p (sigil already consumed); joiners count only before a word
 * character, so "n//2" is n, '/', '/', 2 and "x:" is x, ':'; "::" joins. */
static const char *ident_end(const char *p, const char *end) {
  for (; p < end; p++) {
    if (is_word(*p)) continue;
    if (p + 1 < end && (*p == '.' || *p == ':' || *p == '/' || *p == '-') && is_word(p[1]))
      continue;
    if (p + 2 < end && *p == ':' && p[1] == ':' && is_word(p[2])) continue;
    break;
  }
  return p;
}

/* Start of an identifier behind a sigil: also digits, and one '/' (node names of exporters). */
static bool sigil_start(const char *p, const char *end) {
  if (p < end && is_word(*p)) return true;
  return p + 1 < end && *p == '/' && is_word(p[1]);
}

static bool is_sigil(char c) { return c == '%' || c == '$' || c == '@' || c == '!'; }

bool zn_text_is_ident(const char *s, size_t n) {
  if (n == 0 || !is_start(*s)) return false;
  if (n == 3 && (!memcmp(s, "inf", 3) || !memcmp(s, "nan", 3))) return false;
  return ident_end(s, s + n) == s + n;
}

bool zn_text_is_sigil_ident(const char *s, size_t n) {
  return sigil_start(s, s + n) && ident_end(s + 1, s + n) == s + n;
}

static void set_text(zn_lexer *l, const char *from, const char *to) {
  l->text_len = (size_t)(to - from);
  l->text = zn_arena_strndup(l->arena, from, l->text_len);
}

zn_status zn_lex_error(zn_lexer *l, const char *fmt, ...) {
  if (l->tok == ZN_TOK_ERROR) return ZN_ERR_MODEL; /* reported already */
  char msg[1024], where[32];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(msg, sizeof msg, fmt, ap);
  va_end(ap);
  snprintf(where, sizeof where, "line %d", l->line);
  zn_error(l->ctx, where, "%s", msg);
  l->tok = ZN_TOK_ERROR;
  l->p = l->end;
  return ZN_ERR_MODEL;
}

static int hex(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

static void lex_string(zn_lexer *l) {
  const char *start = ++l->p, *q = start;
  while (q < l->end && *q != '"') q += *q == '\\' ? 2 : 1;
  if (q >= l->end) {
    (void)zn_lex_error(l, "string without closing quote");
    return;
  }
  char *out = zn_arena_alloc(l->arena, (size_t)(q - start) + 1);
  size_t n = 0;
  for (const char *p = start; p < q; p++) {
    if (*p == '\n') l->line++;
    if (*p != '\\') {
      out[n++] = *p;
      continue;
    }
    p++;
    if (*p == 'n') {
      out[n++] = '\n';
    } else if (*p == '"' || *p == '\\') {
      out[n++] = *p;
    } else if (*p == 'x' && q - p > 2 && hex(p[1]) >= 0 && hex(p[2]) >= 0) {
      out[n++] = (char)(hex(p[1]) * 16 + hex(p[2]));
      p += 2;
    } else {
      (void)zn_lex_error(l, "unknown escape '\\%c' in a string; known: \\\" \\\\ \\n \\xHH", *p);
      return;
    }
  }
  l->tok = ZN_TOK_STRING;
  l->text = out;
  l->text_len = n;
  l->p = q + 1;
}

/* p is at the first digit or '.', the token starts at from (which may be a '-'). */
static void lex_number(zn_lexer *l, const char *from) {
  const char *p = l->p;
  bool is_float = false;
  if (p + 2 < l->end && *p == '0' && (p[1] == 'x' || p[1] == 'X') && hex(p[2]) >= 0) {
    for (p += 2; p < l->end && (hex(*p) >= 0);) p++;
  } else {
    while (p < l->end && is_digit(*p)) p++;
    if (p + 1 < l->end && *p == '.' && is_digit(p[1])) {
      is_float = true;
      for (p++; p < l->end && is_digit(*p);) p++;
    }
    const char *e = p;
    if (e < l->end && (*e == 'e' || *e == 'E')) {
      e++;
      if (e < l->end && (*e == '+' || *e == '-')) e++;
      if (e < l->end && is_digit(*e)) {
        is_float = true;
        for (p = e; p < l->end && is_digit(*p);) p++;
      }
    }
  }
  set_text(l, from, p);
  l->p = p;
  l->f = strtod(l->text, NULL);
  if (is_float) {
    l->tok = ZN_TOK_FLOAT;
    return;
  }
  bool neg = *l->text == '-';
  uint64_t limit = (uint64_t)INT64_MAX + neg, v = 0;
  const char *d = l->text + neg;
  unsigned base = d[0] == '0' && (d[1] == 'x' || d[1] == 'X') ? 16 : 10;
  for (d += base == 16 ? 2 : 0; *d; d++) {
    uint64_t digit = (uint64_t)hex(*d);
    if (v > (limit - digit) / base) {
      (void)zn_lex_error(l, "integer %s does not fit 64 bits", l->text);
      return;
    }
    v = v * base + digit;
  }
  l->i = neg ? (int64_t)(~v + 1) : (int64_t)v;
  l->tok = ZN_TOK_INT;
}

static void lex_ident(zn_lexer *l) {
  const char *from = l->p;
  l->p = ident_end(from + 1, l->end);
  set_text(l, from, l->p);
  l->tok = ZN_TOK_IDENT;
  if (!strcmp(l->text, "inf") || !strcmp(l->text, "nan")) {
    l->tok = ZN_TOK_FLOAT;
    l->f = strtod(l->text, NULL);
  }
}

static bool is_value(int tok) {
  return tok == ZN_TOK_IDENT || tok == ZN_TOK_INT || tok == ZN_TOK_FLOAT || tok == ')' ||
         tok == ']';
}

static const char *skip_space(zn_lexer *l) {
  const char *start = l->p;
  while (l->p < l->end) {
    char c = *l->p;
    if (c == '#') {
      while (l->p < l->end && *l->p != '\n') l->p++;
    } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
      l->line += c == '\n';
      l->p++;
    } else {
      break;
    }
  }
  return start;
}

void zn_lex_next(zn_lexer *l) {
  if (l->tok == ZN_TOK_ERROR) return;
  bool touches_value = skip_space(l) == l->p && is_value(l->tok);
  l->text = "";
  l->text_len = 0;
  if (l->p >= l->end) {
    l->tok = ZN_TOK_EOF;
    return;
  }
  const char *p = l->p;
  if (is_start(*p) || (is_sigil(*p) && sigil_start(p + 1, l->end))) {
    lex_ident(l);
  } else if (is_digit(*p)) {
    lex_number(l, p);
  } else if (*p == '"') {
    lex_string(l);
  } else if (*p == '-' && p + 1 < l->end && p[1] == '>') {
    l->tok = ZN_TOK_ARROW;
    l->text = "->";
    l->text_len = 2;
    l->p += 2;
  } else if (*p == '-' && !touches_value && p + 1 < l->end && is_digit(p[1])) {
    l->p++;
    lex_number(l, p);
  } else if (*p == '-' && !touches_value && l->end - p >= 4 && !memcmp(p, "-inf", 4) &&
             ident_end(p + 1, l->end) == p + 4) {
    l->p += 4;
    l->tok = ZN_TOK_FLOAT;
    l->f = -INFINITY;
    l->text = "-inf";
    l->text_len = 4;
  } else if ((unsigned char)*p < 32 || (unsigned char)*p >= 127) {
    (void)zn_lex_error(l, "unexpected byte 0x%02x", (unsigned char)*p);
  } else {
    set_text(l, p, p + 1);
    l->tok = *p;
    l->p++;
  }
}

void zn_lex_init(zn_lexer *l, zn_ctx *ctx, zn_arena *a, const char *src, size_t n) {
  memset(l, 0, sizeof *l);
  l->ctx = ctx;
  l->arena = a;
  l->p = src;
  l->end = src + n;
  l->line = 1;
  l->text = "";
  zn_lex_next(l);
}

bool zn_lex_accept(zn_lexer *l, int tok) {
  if (l->tok != tok) return false;
  zn_lex_next(l);
  return true;
}

bool zn_lex_is(const zn_lexer *l, const char *ident) {
  return l->tok == ZN_TOK_IDENT && !strcmp(l->text, ident);
}

zn_status zn_lex_expect(zn_lexer *l, int tok, const char *what) {
  if (l->tok == tok) {
    zn_lex_next(l);
    return ZN_OK;
  }
  if (l->tok == ZN_TOK_EOF) return zn_lex_error(l, "expected %s, found the end of the text", what);
  return zn_lex_error(l, "expected %s, found '%s'", what, l->text);
}
