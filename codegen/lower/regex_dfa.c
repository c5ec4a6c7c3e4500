/* Pattern -> syntax tree -> nondeterministic automaton over bytes -> deterministic one. Code points are cut into byte
 * sequences, so the automaton needs no decoder. Assertions (^ $ \b) are edges that are open or shut depending on the bytes
 * on both sides: a deterministic state is a set of places before its assertions are decided, with the kind of the last byte;
 * they are decided when the next byte is known. */
#include "codegen/lower/regex.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 200, MAX_REPEAT = 1000, MAX_PLACES = 20000, MAX_STATES = 4096, TOP = 0x10ffff };

typedef enum kind { EMPTY, SET, CAT, ALT, REP, ASSERT } kind;
typedef enum assertion { AT_START, AT_END, WORD_EDGE, NO_WORD_EDGE } assertion;

typedef struct range {
  uint32_t lo, hi;
} range;

typedef struct tree {
  kind k;
  struct tree *a, *b;
  range *r; /* SET: sorted, disjoint */
  uint32_t n;
  int min, max; /* REP; max -1: any number */
  assertion at;
} tree;

typedef struct parser {
  zn_arena *a;
  const char *p, *end, *why;
  bool fold, dotall; /* flags i and s */
  int depth;
} parser;

/* ---------------------------------------------------------------- sets of code points */

typedef struct set {
  range *r;
  uint32_t n, cap;
} set;

static void add(parser *p, set *s, uint32_t lo, uint32_t hi) {
  range r = {lo, hi};
  ZN_PUSH(p->a, s->r, s->n, s->cap, r);
}

static int by_lo(const void *x, const void *y) {
  const range *a = x, *b = y;
  return (a->lo > b->lo) - (a->lo < b->lo);
}

static void settle(set *s) {
  if (!s->n) return;
  qsort(s->r, s->n, sizeof *s->r, by_lo);
  uint32_t k = 0;
  for (uint32_t i = 1; i < s->n; i++) {
    if (s->r[i].lo <= s->r[k].hi + 1) {
      if (s->r[i].hi > s->r[k].hi) s->r[k].hi = s->r[i].hi;
    } else {
      s->r[++k] = s->r[i];
    }
  }
  s->n = k + 1;
}

static void negate(parser *p, set *s) {
  set o = {0};
  uint32_t from = 0;
  settle(s);
  for (uint32_t i = 0; i < s->n; i++) {
    if (s->r[i].lo > from) add(p, &o, from, s->r[i].lo - 1);
    from = s->r[i].hi + 1;
  }
  if (from <= TOP) add(p, &o, from, TOP);
  *s = o;
}

static void fold_case(parser *p, set *s) {
  uint32_t n = s->n;
  for (uint32_t i = 0; i < n && p->fold; i++)
    for (uint32_t c = 'a'; c <= 'z'; c++) {
      if (s->r[i].lo <= c && c <= s->r[i].hi) add(p, s, c - 32, c - 32);
      if (s->r[i].lo <= c - 32 && c - 32 <= s->r[i].hi) add(p, s, c, c);
    }
}

/* \d \w \s and their complements. */
static bool add_named(parser *p, set *s, char c) {
  set t = {0};
  char low = (char)(c | 32);
  if (low == 'd') {
    add(p, &t, '0', '9');
  } else if (low == 'w') {
    add(p, &t, '0', '9');
    add(p, &t, 'A', 'Z');
    add(p, &t, '_', '_');
    add(p, &t, 'a', 'z');
  } else if (low == 's') {
    add(p, &t, '\t', '\n');
    add(p, &t, '\f', '\r');
    add(p, &t, ' ', ' ');
  } else {
    return false;
  }
  if (c != low) negate(p, &t);
  for (uint32_t i = 0; i < t.n; i++) add(p, s, t.r[i].lo, t.r[i].hi);
  return true;
}

static const struct {
  const char *name, *ranges; /* pairs of bounds */
} posix[] = {{"alnum", "09AZaz"}, {"alpha", "AZaz"}, {"ascii", "\1\177"}, {"blank", "\t\t  "}, {"cntrl", "\1\037\177\177"},
             {"digit", "09"}, {"graph", "!~"}, {"lower", "az"}, {"print", " ~"}, {"punct", "!/:@[`{~"},
             {"space", "\t\r  "}, {"upper", "AZ"}, {"word", "09AZaz__"}, {"xdigit", "09AFaf"}};

/* ---------------------------------------------------------------- the tree */

static tree *node(parser *p, kind k, tree *a, tree *b) {
  tree *t = ZN_NEW(p->a, tree);
  t->k = k;
  t->a = a;
  t->b = b;
  return t;
}

static tree *fail(parser *p, const char *why) {
  if (!p->why) p->why = why;
  p->p = p->end;
  return node(p, EMPTY, NULL, NULL);
}

static tree *set_node(parser *p, set *s) {
  fold_case(p, s);
  settle(s);
  tree *t = node(p, SET, NULL, NULL);
  t->r = s->r;
  t->n = s->n;
  return t;
}

static bool more(const parser *p) { return p->p < p->end; }
static bool eat(parser *p, const char *s) {
  size_t n = strlen(s);
  if ((size_t)(p->end - p->p) < n || memcmp(p->p, s, n) != 0) return false;
  p->p += n;
  return true;
}

static uint32_t code_point(parser *p) {
  const unsigned char *s = (const unsigned char *)p->p;
  size_t left = (size_t)(p->end - p->p);
  unsigned n = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
  if (n > left || (s[0] >= 0x80 && s[0] < 0xc2)) {
    fail(p, "it is not valid UTF-8");
    return 0;
  }
  uint32_t c = n == 1 ? s[0] : s[0] & (0xffu >> (n + 1));
  for (unsigned i = 1; i < n; i++) c = c << 6 | (s[i] & 63);
  p->p += n;
  return c;
}

static uint32_t hex(parser *p) { /* behind \x: two digits, or {digits} */
  bool braces = eat(p, "{");
  uint32_t v = 0;
  int digits = 0;
  while (more(p) && (braces ? digits < 7 : digits < 2)) {
    char c = *p->p;
    int low = c | 32, d = c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
    if (d < 0) break;
    v = v * 16 + (uint32_t)d;
    p->p++;
    digits++;
  }
  if (!digits || (braces && !eat(p, "}")) || v > TOP) fail(p, "an escape \\x is not complete");
  return v;
}

/* One character behind a backslash, as code point. */
static uint32_t escaped(parser *p) {
  static const char from[] = "aftnrv", to[] = "\a\f\t\n\r\v";
  char c = *p->p;
  const char *k = strchr(from, c);
  if (k && c) {
    p->p++;
    return (uint32_t)to[k - from];
  }
  if (c == 'x') {
    p->p++;
    return hex(p);
  }
  if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z')) {
    fail(p, "an escape is not supported");
    return 0;
  }
  return code_point(p);
}

static void posix_class(parser *p, set *s) { /* behind "[:" */
  bool no = eat(p, "^");
  for (size_t i = 0; i < sizeof posix / sizeof *posix; i++) {
    size_t n = strlen(posix[i].name);
    if ((size_t)(p->end - p->p) < n + 2 || memcmp(p->p, posix[i].name, n) || memcmp(p->p + n, ":]", 2)) continue;
    p->p += n + 2;
    set t = {0};
    for (const char *r = posix[i].ranges; *r; r += 2) add(p, &t, (uint32_t)r[0], (uint32_t)r[1]);
    if (no) negate(p, &t);
    for (uint32_t k = 0; k < t.n; k++) add(p, s, t.r[k].lo, t.r[k].hi);
    return;
  }
  fail(p, "a class [:name:] is unknown");
}

static tree *bracket(parser *p) {
  set s = {0};
  bool no = eat(p, "^");
  for (bool first = true; more(p) && (first || *p->p != ']'); first = false) {
    if (eat(p, "[:")) {
      posix_class(p, &s);
      continue;
    }
    uint32_t lo, hi;
    if (eat(p, "\\")) {
      if (!more(p)) break;
      if (add_named(p, &s, *p->p)) {
        p->p++;
        continue;
      }
      lo = escaped(p);
    } else {
      lo = code_point(p);
    }
    hi = lo;
    if (p->end - p->p >= 2 && *p->p == '-' && p->p[1] != ']') {
      p->p++;
      hi = eat(p, "\\") && more(p) ? escaped(p) : more(p) ? code_point(p) : 0;
      if (hi < lo) return fail(p, "a range in [...] is the wrong way round");
    }
    add(p, &s, lo, hi);
  }
  if (!eat(p, "]")) return fail(p, "a [ is not closed");
  fold_case(p, &s);
  if (no) negate(p, &s);
  return set_node(p, &s);
}

static tree *alternatives(parser *p);

static tree *group(parser *p) { /* behind "(" */
  bool fold = p->fold, dotall = p->dotall;
  if (eat(p, "?")) {
    if (eat(p, "P<") || eat(p, "<")) {
      while (more(p) && *p->p != '>') p->p++;
      if (!eat(p, ">")) return fail(p, "the name of a group is not closed");
    } else {
      bool on = true;
      while (more(p) && *p->p != ':' && *p->p != ')') {
        char c = *p->p++;
        if (c == '-') on = false;
        else if (c == 'i') p->fold = on;
        else if (c == 's') p->dotall = on;
        else if (c != 'U') return fail(p, "a flag in (?...) is not supported");
      }
      if (eat(p, ")")) return node(p, EMPTY, NULL, NULL); /* holds for the rest of the group around it */
      if (!eat(p, ":")) return fail(p, "a ( is not closed");
    }
  }
  if (++p->depth > MAX_DEPTH) return fail(p, "it is nested too deeply");
  tree *t = alternatives(p);
  p->depth--;
  if (!eat(p, ")")) return fail(p, "a ( is not closed");
  p->fold = fold;
  p->dotall = dotall;
  return t;
}

static tree *assert_node(parser *p, assertion at) {
  tree *t = node(p, ASSERT, NULL, NULL);
  t->at = at;
  return t;
}

static tree *atom(parser *p) {
  set s = {0};
  if (eat(p, "(")) return group(p);
  if (eat(p, "[")) return bracket(p);
  if (eat(p, "^")) return assert_node(p, AT_START);
  if (eat(p, "$")) return assert_node(p, AT_END);
  if (eat(p, ".")) {
    if (!p->dotall) {
      add(p, &s, '\n', '\n');
      negate(p, &s);
    } else {
      add(p, &s, 0, TOP);
    }
    tree *t = node(p, SET, NULL, NULL);
    t->r = s.r;
    t->n = s.n;
    return t;
  }
  if (eat(p, "\\")) {
    if (!more(p)) return fail(p, "it ends in a backslash");
    if (eat(p, "A")) return assert_node(p, AT_START);
    if (eat(p, "z")) return assert_node(p, AT_END);
    if (eat(p, "b")) return assert_node(p, WORD_EDGE);
    if (eat(p, "B")) return assert_node(p, NO_WORD_EDGE);
    if (add_named(p, &s, *p->p)) p->p++;
    else {
      uint32_t c = escaped(p);
      add(p, &s, c, c);
    }
    return set_node(p, &s);
  }
  if (strchr("*+?", *p->p)) return fail(p, "a repetition has nothing to repeat");
  uint32_t c = code_point(p);
  add(p, &s, c, c);
  return set_node(p, &s);
}

static int number(parser *p) {
  int v = -1;
  while (more(p) && *p->p >= '0' && *p->p <= '9' && v <= MAX_REPEAT) v = (v < 0 ? 0 : v) * 10 + (*p->p++ - '0');
  return v;
}

/* {n} {n,} {n,m}; anything else is a plain brace. */
static bool braces(parser *p, int *min, int *max) {
  const char *start = p->p;
  if (!eat(p, "{")) return false;
  *min = number(p);
  *max = *min;
  if (*min >= 0 && eat(p, ",")) *max = more(p) && *p->p == '}' ? -1 : number(p);
  if (*min >= 0 && eat(p, "}") && (*max < 0 || *max >= *min)) {
    if (*min > MAX_REPEAT || *max > MAX_REPEAT) fail(p, "a repetition is too large");
    return true;
  }
  p->p = start;
  return false;
}

static tree *repeated(parser *p) {
  tree *t = atom(p);
  for (;;) {
    int min = 0, max = -1;
    if (eat(p, "*")) {
    } else if (eat(p, "+")) {
      min = 1;
    } else if (eat(p, "?")) {
      max = 1;
    } else if (!more(p) || !braces(p, &min, &max)) {
      return t;
    }
    (void)eat(p, "?"); /* lazy: the same set of whole texts */
    t = node(p, REP, t, NULL);
    t->min = min;
    t->max = max;
  }
}

static tree *alternatives(parser *p) {
  tree *all = NULL, *seq = node(p, EMPTY, NULL, NULL);
  while (more(p) && *p->p != ')') {
    if (eat(p, "|")) {
      all = all ? node(p, ALT, all, seq) : seq;
      seq = node(p, EMPTY, NULL, NULL);
    } else {
      seq = node(p, CAT, seq, repeated(p));
    }
  }
  return all ? node(p, ALT, all, seq) : seq;
}

/* ---------------------------------------------------------------- the nondeterministic automaton */

typedef enum place_kind { P_BYTES, P_SPLIT, P_ASSERT, P_MATCH } place_kind;
typedef struct place {
  place_kind k;
  uint32_t a, b;
  assertion at;
  uint8_t lo, hi; /* P_BYTES */
} place;

typedef struct nfa {
  parser *p;
  place *v;
  uint32_t n, cap;
} nfa;

static uint32_t put(nfa *m, place x) {
  if (m->n >= MAX_PLACES) {
    fail(m->p, "it is too large");
    return 0;
  }
  ZN_PUSH(m->p->a, m->v, m->n, m->cap, x);
  return m->n - 1;
}

static uint32_t split(nfa *m, uint32_t a, uint32_t b) { return put(m, (place){.k = P_SPLIT, .a = a, .b = b}); }

static unsigned encode(uint32_t c, uint8_t *out) {
  if (c < 0x80) {
    out[0] = (uint8_t)c;
    return 1;
  }
  unsigned n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (unsigned i = n; i-- > 1; c >>= 6) out[i] = (uint8_t)(0x80 | (c & 63));
  out[0] = (uint8_t)((0xf00u >> n) | c);
  return n;
}

/* Alternatives of byte sequences for the code points lo..hi, all leading to `to`; rest: the alternatives so far, or 0. */
static uint32_t put_range(nfa *m, uint32_t lo, uint32_t hi, uint32_t to, uint32_t rest) {
  static const uint32_t ends[] = {0x7f, 0x7ff, 0xffff};
  for (int i = 0; i < 3; i++)
    if (lo <= ends[i] && ends[i] < hi) return put_range(m, lo, ends[i], to, put_range(m, ends[i] + 1, hi, to, rest));
  for (int i = 1; i < 4 && hi >= 0x80; i++) {
    uint32_t low = (1u << (6 * i)) - 1;
    if ((lo & ~low) == (hi & ~low)) continue;
    if (lo & low) return put_range(m, lo, lo | low, to, put_range(m, (lo | low) + 1, hi, to, rest));
    if ((hi & low) != low) return put_range(m, lo, (hi & ~low) - 1, to, put_range(m, hi & ~low, hi, to, rest));
  }
  uint8_t x[4], y[4];
  unsigned n = encode(lo, x);
  encode(hi, y);
  for (unsigned i = n; i-- > 0;) to = put(m, (place){.k = P_BYTES, .lo = x[i], .hi = y[i], .a = to});
  return rest ? split(m, to, rest) : to;
}

static uint32_t build(nfa *m, const tree *t, uint32_t to) {
  uint32_t r = 0;
  if (m->p->why) return 0;
  switch (t->k) {
  case EMPTY: return to;
  case SET:
    for (uint32_t i = 0; i < t->n; i++) r = put_range(m, t->r[i].lo, t->r[i].hi, to, r);
    return r ? r : put(m, (place){.k = P_BYTES, .lo = 1, .hi = 0}); /* nothing */
  case CAT: return build(m, t->a, build(m, t->b, to));
  case ALT: r = build(m, t->a, to); return split(m, r, build(m, t->b, to));
  case ASSERT: return put(m, (place){.k = P_ASSERT, .at = t->at, .a = to});
  case REP:
    r = to;
    if (t->max < 0) {
      r = split(m, 0, to);
      uint32_t body = build(m, t->a, r);
      m->v[r].a = body;
    }
    for (int i = t->min; i < t->max; i++) r = split(m, build(m, t->a, r), to);
    for (int i = 0; i < t->min; i++) r = build(m, t->a, r);
    return r;
  }
  return to;
}

/* ---------------------------------------------------------------- the deterministic automaton */

enum { BEFORE_TEXT, WORD, OTHER, AFTER_TEXT }; /* what is on a side of a position */

typedef struct state {
  uint32_t *at; /* sorted places, assertions undecided */
  uint32_t n;
  uint8_t last;
} state;

typedef struct maker {
  nfa *m;
  zn_arena *a;
  state *s;
  uint32_t n, cap;
  uint32_t *stamp, epoch, *list, num; /* the closure being made */
  uint32_t *hash; /* of states: number + 1 */
} maker;
enum { HASH = 1 << 14 };

static bool word_byte(unsigned c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool holds(assertion at, int left, int right) {
  bool edge = (left == WORD) != (right == WORD);
  switch (at) {
  case AT_START: return left == BEFORE_TEXT;
  case AT_END: return right == AFTER_TEXT;
  case WORD_EDGE: return edge;
  default: return !edge;
  }
}

static void visit(maker *k, uint32_t first, int left, int right) {
  uint32_t *todo = k->list + k->m->n + 1, n = 0; /* behind the list: room for as many */
  todo[n++] = first;
  while (n) {
    uint32_t i = todo[--n];
    if (k->stamp[i] == k->epoch) continue;
    k->stamp[i] = k->epoch;
    const place *x = &k->m->v[i];
    if (x->k == P_SPLIT) {
      todo[n++] = x->b;
      todo[n++] = x->a;
    } else if (x->k == P_ASSERT) {
      if (holds(x->at, left, right)) todo[n++] = x->a;
    } else {
      k->list[k->num++] = i;
    }
  }
}

static void close_set(maker *k, const state *s, int right) {
  k->epoch++;
  k->num = 0;
  for (uint32_t i = 0; i < s->n; i++) visit(k, s->at[i], s->last, right);
}

static int by_number(const void *x, const void *y) {
  uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
  return (a > b) - (a < b);
}

static uint32_t intern(maker *k, uint32_t *at, uint32_t n, uint8_t last) {
  if (n == 0) last = OTHER; /* the dead state */
  if (n) qsort(at, n, sizeof *at, by_number);
  uint32_t w = 0;
  for (uint32_t i = 0; i < n; i++)
    if (i == 0 || at[i] != at[i - 1]) at[w++] = at[i];
  uint64_t h = last;
  for (uint32_t i = 0; i < w; i++) h = (h ^ at[i]) * UINT64_C(0x9e3779b97f4a7c15);
  uint32_t slot = (uint32_t)(h >> 40) & (HASH - 1);
  for (; k->hash[slot]; slot = (slot + 1) & (HASH - 1)) {
    const state *s = &k->s[k->hash[slot] - 1];
    if (s->n == w && s->last == last && !memcmp(s->at, at, w * sizeof *at)) return k->hash[slot] - 1;
  }
  if (k->n == MAX_STATES) {
    fail(k->m->p, "its automaton has more than 4096 states");
    return 1;
  }
  state s = {ZN_ARRAY(k->a, uint32_t, w + 1), w, last};
  memcpy(s.at, at, w * sizeof *at);
  ZN_PUSH(k->a, k->s, k->n, k->cap, s);
  k->hash[slot] = k->n;
  return k->n - 1;
}

/* Bytes that no place tells apart share a class. */
static void classes(const nfa *m, zn_dfa *d) {
  bool cut[257] = {[0] = true, ['0'] = true, ['9' + 1] = true, ['A'] = true, ['Z' + 1] = true,
                   ['_'] = true, ['_' + 1] = true, ['a'] = true, ['z' + 1] = true};
  for (uint32_t i = 0; i < m->n; i++)
    if (m->v[i].k == P_BYTES) cut[m->v[i].lo] = cut[m->v[i].hi + 1] = true;
  uint32_t c = 0;
  for (unsigned b = 0; b < 256; b++) {
    c += cut[b] && b;
    d->cls[b] = (uint8_t)c;
  }
  d->num_classes = c + 1;
}

static uint32_t step(maker *k, uint32_t from, unsigned byte, uint32_t *room) {
  int right = word_byte(byte) ? WORD : OTHER;
  uint32_t n = 0;
  close_set(k, &k->s[from], right);
  for (uint32_t i = 0; i < k->num; i++) {
    const place *x = &k->m->v[k->list[i]];
    if (x->k == P_BYTES && x->lo <= byte && byte <= x->hi) room[n++] = x->a;
  }
  return intern(k, room, n, (uint8_t)right);
}

static bool accepts(maker *k, uint32_t from) {
  close_set(k, &k->s[from], AFTER_TEXT);
  for (uint32_t i = 0; i < k->num; i++)
    if (k->m->v[k->list[i]].k == P_MATCH) return true;
  return false;
}

static void determinize(nfa *m, uint32_t start, zn_dfa *d) {
  zn_arena *a = m->p->a;
  maker k = {.m = m, .a = a, .stamp = ZN_ARRAY(a, uint32_t, m->n), .list = ZN_ARRAY(a, uint32_t, 4 * m->n + 8),
             .hash = ZN_ARRAY(a, uint32_t, HASH)};
  uint32_t *room = ZN_ARRAY(a, uint32_t, m->n + 1), cap = 64;
  classes(m, d);
  room[0] = start;
  intern(&k, room, 1, BEFORE_TEXT);
  intern(&k, room, 0, OTHER);
  d->next = ZN_ARRAY(a, uint16_t, cap * d->num_classes);
  for (uint32_t s = 0; s < k.n && !m->p->why; s++) {
    if (s == cap) {
      d->next = zn_arena_grow(a, d->next, cap * d->num_classes * sizeof *d->next, 2 * cap * d->num_classes * sizeof *d->next);
      cap *= 2;
    }
    for (unsigned b = 0; b < 256; b++)
      if (b == 0 || d->cls[b] != d->cls[b - 1])
        d->next[s * d->num_classes + d->cls[b]] = (uint16_t)step(&k, s, b, room);
  }
  d->num_states = k.n;
  d->accept = ZN_ARRAY(a, uint8_t, k.n);
  for (uint32_t s = 0; s < k.n; s++) d->accept[s] = accepts(&k, s);
}

const zn_dfa *zn_dfa_compile(zn_arena *a, const char *pattern, size_t n, const char **out_why) {
  parser p = {.a = a, .p = pattern, .end = pattern + n};
  tree *t = alternatives(&p);
  if (more(&p)) fail(&p, "a ) is not opened");
  nfa m = {.p = &p};
  put(&m, (place){.k = P_MATCH});  /* place 0 means "none" to put_range */
  uint32_t match = put(&m, (place){.k = P_MATCH}), start = build(&m, t, match);
  zn_dfa *d = ZN_NEW(a, zn_dfa);
  if (!p.why) determinize(&m, start, d);
  *out_why = p.why;
  return p.why ? NULL : d;
}
