/* Strings: concatenation, splitting, normalising, regular expressions, n-gram counts. */
#include <ctype.h>
#include <regex.h>

#include "zenithc/eval/eval_impl.h"

static zn_status concat(zn_ev *e) {
  const zn_eval_val *two[2] = {e->in[0], e->in[1]};
  int64_t dims[ZN_MAX_RANK], st[2][ZN_MAX_RANK], ix[ZN_MAX_RANK] = {0};
  uint32_t rank;
  ZN_TRY(zn_ev_bcast(e, two, 2, &rank, dims));
  ZN_TRY(zn_ev_out(e, 0, ZN_STR, rank, dims));
  for (int i = 0; i < 2; i++) zn_ev_bstrides(two[i], rank, st[i]);
  for (uint64_t k = 0; k < e->out[0].count; k++, zn_ev_next(rank, dims, ix)) {
    int64_t at[2] = {0};
    for (int i = 0; i < 2; i++)
      for (uint32_t d = 0; d < rank; d++) at[i] += ix[d] * st[i][d];
    const zn_str *a = &two[0]->u.s[at[0]], *b = &two[1]->u.s[at[1]];
    char *s = zn_arena_alloc(e->run->keep, a->len + b->len + 1);
    if (a->len) memcpy(s, a->ptr, a->len);
    if (b->len) memcpy(s + a->len, b->ptr, b->len);
    e->out[0].u.s[k] = (zn_str){s, a->len + b->len};
  }
  return ZN_OK;
}

/* Pieces of s: around each delimiter, or (none) the runs of non-white characters. Returns their
 * number; out may be NULL. */
static uint64_t pieces(const zn_str *s, const char *delim, size_t dn, int64_t max, zn_str *out) {
  uint64_t n = 0, p = 0;
  if (dn == 0) {
    for (;;) {
      while (p < s->len && isspace((unsigned char)s->ptr[p])) p++;
      if (p == s->len) return n;
      uint64_t q = p;
      bool rest = max >= 0 && (int64_t)n >= max;
      while (q < s->len && (rest || !isspace((unsigned char)s->ptr[q]))) q++;
      if (out) out[n] = (zn_str){s->ptr + p, q - p};
      n++;
      p = q;
    }
  }
  for (uint64_t q = 0;; q++) {
    bool hit = q + dn <= s->len && memcmp(s->ptr + q, delim, dn) == 0 &&
               (max < 0 || (int64_t)n < max);
    if (!hit && q < s->len) continue;
    if (out) out[n] = (zn_str){s->ptr + p, (hit ? q : s->len) - p};
    n++;
    if (!hit) return n;
    p = q + dn;
    q = p - 1;
  }
}

static zn_status split(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  const zn_attr *da = zn_node_attr(e->n, "delimiter"), *ma = zn_node_attr(e->n, "maxsplit");
  zn_str d = da ? da->u.s : (zn_str){"", 0};
  int64_t max = ma ? ma->u.i : -1, most = 0, dims[ZN_MAX_RANK];
  ZN_TRY(zn_ev_out(e, 1, ZN_I64, x->rank, x->dims));
  for (uint64_t k = 0; k < x->count; k++) {
    int64_t n = (int64_t)pieces(&x->u.s[k], d.ptr, d.len, max, NULL);
    e->out[1].u.i[k] = n;
    most = n > most ? n : most;
  }
  if (x->rank >= ZN_MAX_RANK) return zn_ev_fail(e, "rank exceeds %d", ZN_MAX_RANK);
  memcpy(dims, x->dims, sizeof dims);
  dims[x->rank] = most;
  ZN_TRY(zn_ev_out(e, 0, ZN_STR, x->rank + 1, dims));
  for (uint64_t k = 0; k < e->out[0].count; k++) e->out[0].u.s[k] = (zn_str){"", 0};
  for (uint64_t k = 0; k < x->count; k++)
    pieces(&x->u.s[k], d.ptr, d.len, max, e->out[0].u.s + k * (uint64_t)most);
  return ZN_OK;
}

/* ---- case mapping of UTF-8: Latin, Greek and Cyrillic letters that pair by a constant offset ----
 */
static uint32_t map_case(uint32_t c, bool upper) {
  if (c < 0x80) return (uint32_t)(upper ? toupper((int)c) : tolower((int)c));
  static const struct {
    uint32_t lo, hi;
    int32_t up;
  } pair[] = {/* lower-case range, offset to upper */
              {0xE0, 0xF6, -32},   {0xF8, 0xFE, -32},   {0x3B1, 0x3C1, -32}, {0x3C3, 0x3CB, -32},
              {0x430, 0x44F, -32}, {0x450, 0x45F, -80}, {0x561, 0x586, -48}};
  for (size_t i = 0; i < sizeof pair / sizeof *pair; i++) {
    uint32_t lo = pair[i].lo, hi = pair[i].hi, shift = (uint32_t)-pair[i].up;
    if (upper && c >= lo && c <= hi) return c - shift;
    if (!upper && c >= lo - shift && c <= hi - shift) return c + shift;
  }
  bool even = (c >= 0x100 && c <= 0x137) || (c >= 0x14A && c <= 0x177) ||
              (c >= 0x1E00 && c <= 0x1EFF) || (c >= 0x460 && c <= 0x481);
  bool odd = (c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17E);
  if (even && c != 0x130 && c != 0x131) return upper ? c & ~1U : c | 1;
  if (odd) return upper ? c - (c % 2 == 0) : c + (c % 2);
  return c;
}

static zn_str change_case(zn_ev *e, const zn_str *s, char how) {
  if (how == 'N') return *s;
  unsigned char *o = zn_arena_alloc(e->run->keep, 2 * s->len + 4);
  uint64_t n = 0;
  for (uint64_t p = 0; p < s->len;) {
    unsigned char b = (unsigned char)s->ptr[p];
    if (b >= 0xC2 && b < 0xE0 && p + 1 < s->len) {
      uint32_t c = map_case((uint32_t)(b & 31) << 6 | ((unsigned char)s->ptr[p + 1] & 63),
                            how == 'U');
      o[n++] = (unsigned char)(0xC0 | c >> 6);
      o[n++] = (unsigned char)(0x80 | (c & 63));
      p += 2;
    } else {
      o[n++] = b < 0x80 ? (unsigned char)map_case(b, how == 'U') : b;
      p++;
    }
  }
  return (zn_str){(char *)o, n};
}

static zn_status normalize(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  const zn_attr *stop = zn_node_attr(e->n, "stopwords");
  char how = zn_node_str(e->n, "case_change_action")[0];
  bool exact = zn_node_int(e->n, "is_case_sensitive") != 0;
  if (x->rank < 1 || x->rank > 2 || (x->rank == 2 && x->dims[0] != 1))
    return zn_ev_fail(e, "input must be [C] or [1, C]");
  zn_str *kept = ZN_ARRAY(e->tmp, zn_str, x->count + 1);
  int64_t n = 0, dims[2] = {1, 1};
  for (uint64_t k = 0; k < x->count; k++) {
    bool drop = false;
    zn_str low = exact ? x->u.s[k] : change_case(e, &x->u.s[k], 'L');
    for (uint32_t j = 0; stop && j < stop->n && !drop; j++) {
      zn_str w = exact ? stop->u.ss[j] : change_case(e, &stop->u.ss[j], 'L');
      drop = zn_ev_strcmp(&low, &w) == 0;
    }
    if (!drop) kept[n++] = change_case(e, &x->u.s[k], how);
  }
  if (n == 0) kept[n++] = (zn_str){"", 0};
  dims[x->rank - 1] = n;
  ZN_TRY(zn_ev_out(e, 0, ZN_STR, x->rank, dims));
  memcpy(e->out[0].u.s, kept, (size_t)n * sizeof *kept);
  return ZN_OK;
}

/* RE2 syntax to POSIX extended: classes \d \w \s, groups (?:...), lazy quantifiers (the same for a
 * full match). */
static char *to_posix(zn_ev *e, const char *p) {
  zn_text t;
  zn_text_init(&t, e->tmp);
  zn_text_puts(&t, "^(");
  bool set = false, dash = false;
  for (; *p; p++) {
    if (p[0] == '\\' && p[1]) {
      p++;
      const char *in = *p == 'd'   ? "0-9"
                       : *p == 'w' ? "a-zA-Z0-9_"
                       : *p == 's' ? " \t\n\r\f\v"
                                   : NULL;
      const char *neg = *p == 'D'   ? "0-9"
                        : *p == 'W' ? "a-zA-Z0-9_"
                        : *p == 'S' ? " \t\n\r\f\v"
                                    : NULL;
      const char *ctl = strchr("nntttrr", *p) ? (*p == 'n' ? "\n" : *p == 't' ? "\t" : "\r") : NULL;
      if (in) zn_text_printf(&t, set ? "%s" : "[%s]", in);
      else if (neg) zn_text_printf(&t, "[^%s]", neg);
      else if (ctl) zn_text_puts(&t, ctl);
      else if (!set && (*p == 'b' || *p == 'B')) zn_text_printf(&t, "\\%c", *p);
      else if (set && *p == '-') dash = true;
      else if (set || isalnum((unsigned char)*p)) zn_text_put(&t, p, 1);
      else zn_text_printf(&t, "\\%c", *p);
    } else if (set && *p == ']') {
      zn_text_puts(&t, dash ? "-]" : "]");
      set = dash = false;
    } else if (!set && *p == '[') {
      set = true;
      zn_text_put(&t, p, 1);
      if (p[1] == '^') zn_text_put(&t, ++p, 1);
      if (p[1] == ']') zn_text_put(&t, ++p, 1);
    } else if (!set && *p == '(' && p[1] == '?' && p[2] == ':') {
      zn_text_puts(&t, "(");
      p += 2;
    } else {
      zn_text_put(&t, p, 1);
      if (!set && strchr("*+?}", *p) && p[1] == '?') p++;
    }
  }
  zn_text_puts(&t, ")$");
  return t.s;
}

static zn_status full_match(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  const zn_attr *a = zn_node_attr(e->n, "pattern");
  regex_t re;
  if (!a || regcomp(&re, to_posix(e, a->u.s.ptr), REG_EXTENDED | REG_NOSUB) != 0)
    return zn_ev_fail(e, "the pattern is not valid");
  zn_status st = zn_ev_out(e, 0, ZN_BOOL, x->rank, x->dims);
  for (uint64_t k = 0; st == ZN_OK && k < x->count; k++)
    e->out[0].u.i[k] =
        regexec(&re, zn_arena_strndup(e->tmp, x->u.s[k].len ? x->u.s[k].ptr : "", x->u.s[k].len), 0,
                NULL, 0) == 0;
  regfree(&re);
  return st;
}

zn_status zn_eval_string(zn_ev *e) {
  if (e->op == ZN_OP_StringConcat) return concat(e);
  if (e->op == ZN_OP_StringSplit) return split(e);
  if (e->op == ZN_OP_StringNormalizer) return normalize(e);
  return full_match(e);
}

/* ---- TfIdfVectorizer ---- */
typedef struct grams {
  const zn_attr *ints, *strs;
  const int64_t *counts, *index;
  uint32_t num_counts, num_index, pool;
} grams;

/* Does pool entry j (n items from `from`) equal items x[at], x[at+step], ...? */
static bool gram_is(const grams *g, uint64_t from, uint32_t n, const zn_eval_val *x, uint64_t at,
                    uint64_t step) {
  for (uint32_t k = 0; k < n; k++) {
    if (x->dtype == ZN_STR ? zn_ev_strcmp(&x->u.s[at + k * step], &g->strs->u.ss[from + k]) != 0
                           : x->u.i[at + k * step] != g->ints->u.is[from + k])
      return false;
  }
  return true;
}

static void count_grams(const grams *g, const zn_eval_val *x, uint64_t row, uint64_t C, uint32_t n,
                        int64_t skips, double *freq) {
  uint64_t lo = (uint64_t)g->counts[n - 1],
           hi = n < g->num_counts ? (uint64_t)g->counts[n] : g->pool;
  uint64_t first = 0; /* position of the first n-gram of this length among all */
  for (uint32_t m = 1; m < n; m++)
    first += ((uint64_t)(m < g->num_counts ? g->counts[m] : (int64_t)g->pool) -
              (uint64_t)g->counts[m - 1]) /
             m;
  for (int64_t s = 1; s <= (n == 1 ? 1 : skips + 1); s++)
    for (uint64_t at = 0; at + (n - 1) * (uint64_t)s < C; at++)
      for (uint64_t j = 0; lo + (j + 1) * n <= hi; j++)
        if (gram_is(g, lo + j * n, n, x, row * C + at, (uint64_t)s)) {
          if (first + j < g->num_index) freq[g->index[first + j]]++;
          break;
        }
}

zn_status zn_eval_tfidfvectorizer(zn_ev *e) {
  const zn_eval_val *x = e->in[0];
  grams g = {.ints = zn_node_attr(e->n, "pool_int64s"), .strs = zn_node_attr(e->n, "pool_strings")};
  g.counts = zn_node_ints(e->n, "ngram_counts", &g.num_counts);
  g.index = zn_node_ints(e->n, "ngram_indexes", &g.num_index);
  const zn_attr *pool = x->dtype == ZN_STR ? g.strs : g.ints;
  uint32_t nw;
  const double *w = zn_node_floats(e->n, "weights", &nw);
  const char *mode = zn_node_str(e->n, "mode");
  int64_t width = 0, lo = zn_node_int(e->n, "min_gram_length"),
          hi = zn_node_int(e->n, "max_gram_length"), skips = zn_node_int(e->n, "max_skip_count");
  if (!pool || x->rank > 2 || lo < 1 || hi < lo || skips < 0 || skips > 1 << 20)
    return zn_ev_fail(e, "the pool or the n-gram lengths are not valid");
  g.pool = pool->n;
  for (uint32_t k = 0; k < g.num_index; k++) {
    if (g.index[k] < 0) return zn_ev_fail(e, "an n-gram index is negative");
    width = g.index[k] >= width ? g.index[k] + 1 : width;
  }
  for (uint32_t k = 0; k < g.num_counts; k++)
    if (g.counts[k] < 0 || g.counts[k] > (int64_t)g.pool)
      return zn_ev_fail(e, "ngram_counts point outside the pool");
  uint64_t rows = x->rank == 2 ? (uint64_t)x->dims[0] : 1, C = rows ? x->count / rows : 0;
  int64_t dims[2] = {(int64_t)rows, width};
  ZN_TRY(zn_ev_out(e, 0, ZN_F32, x->rank == 2 ? 2 : 1, x->rank == 2 ? dims : dims + 1));
  for (uint64_t r = 0; r < rows; r++) {
    double *f = e->out[0].u.f + r * (uint64_t)width;
    for (int64_t n = lo; n <= hi && n <= (int64_t)g.num_counts; n++)
      count_grams(&g, x, r, C, (uint32_t)n, skips, f);
    for (uint32_t k = 0; k < g.num_index && mode[0] != 'T'; k++) { /* IDF, TFIDF */
      double *y = &f[g.index[k]], wk = k < nw ? w[k] : 1;
      if (*y != 0 && mode[0] == 'I') *y = wk;
    }
    for (uint32_t k = 0; k < g.num_index && strcmp(mode, "TFIDF") == 0; k++)
      f[g.index[k]] = zn_ev_r(e, f[g.index[k]] * (k < nw ? w[k] : 1));
  }
  return ZN_OK;
}
