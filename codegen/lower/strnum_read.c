/* Numbers from text. The digits before the point make an integer (times 10 plus digit), those behind it a binary fraction,
 * from the last to the first: (digit + fraction) / 10, rounded down. Rounding down step by step is rounding down once,
 * because floor((m + x) / n) = floor((m + floor(x)) / n) for whole m and n; a remainder anywhere means that something was
 * cut off. So the leading bits, the next one and "anything behind" are exact, for any number of digits. */
#include "codegen/lower/strnum.h"

enum { MAX_LENGTH = 1 << 24, MAX_EXPONENT = 1 << 27 }; /* of a string that is a number; larger exponents act like this */
enum { BASE_MASK = (1 << ZN_SN_WORD) - 1 };

static int whole_digits(const zn_sn_format *f) { return f->kernel == ZN_F64 ? 309 : 39; } /* more are infinite */
static int whole_words(const zn_sn_format *f) { return f->kernel == ZN_F64 ? 37 : 5; }    /* 10^whole_digits fits */
static int part_words(const zn_sn_format *f) { return (1 - f->lowest) / ZN_SN_WORD + 1; } /* one bit below the lowest */

zn_sn_format zn_sn_format_of(zn_dtype t) {
  switch (t) {
  case ZN_F64: return (zn_sn_format){ZN_F64, 53, -1074};
  case ZN_F16: return (zn_sn_format){ZN_F32, 11, -24};
  case ZN_BF16: return (zn_sn_format){ZN_F32, 8, -133};
  case ZN_F8E4M3FN: return (zn_sn_format){ZN_F32, 4, -9};
  case ZN_F8E4M3FNUZ: return (zn_sn_format){ZN_F32, 4, -10};
  case ZN_F8E5M2: return (zn_sn_format){ZN_F32, 3, -16};
  case ZN_F8E5M2FNUZ: return (zn_sn_format){ZN_F32, 3, -17};
  case ZN_F4E2M1: return (zn_sn_format){ZN_F32, 2, -1};
  case ZN_F6E2M3: return (zn_sn_format){ZN_F32, 4, -3};
  case ZN_F6E3M2: return (zn_sn_format){ZN_F32, 3, -4};
  default: return (zn_sn_format){ZN_F32, 24, -149};
  }
}

/* What is read first: the binary32 or binary64 that the kernel holds. Narrower types round a second time, from a number
 * that was rounded to odd: with two more bits than they have, that gives what rounding once gives. */
static zn_sn_format read_format(zn_dtype t) { return zn_sn_format_of(t == ZN_F64 ? ZN_F64 : ZN_F32); }

zn_sn zn_sn_reader(zn_lw *lw, zn_dtype to) {
  zn_sn s = {.lw = lw, .t = to};
  zn_sn_format f = read_format(to);
  if (zn_is_float(to)) s.big[0] = zn_kb_alloc(&lw->kb, ZN_U32, (uint64_t)part_words(&f) + (uint64_t)whole_words(&f));
  return s;
}

typedef struct text {
  zn_kb *b;
  zn_kref data, len, at; /* at: variable */
} text;

typedef struct number { /* 0.D * 10^point, D the digits in [first, end) of the text, a point among them skipped */
  zn_kref minus, nonzero, bad; /* bool */
  zn_kref inf, nan;
  zn_kref first, end, point;   /* idx */
} number;

static zn_kref peek(const text *t) { /* byte at the position as idx value, 0 at the end */
  zn_kb *b = t->b;
  zn_kref c = zn_n_var(b, ZN_IDX, 0), i = zn_kb_get(b, t->at);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, i, t->len));
  zn_kb_set(b, c, zn_kb_cvt(b, zn_kb_load(b, ZN_U8, 1, t->data, i), ZN_IDX));
  zn_kb_end(b);
  return zn_kb_get(b, c);
}

static zn_kref is_digit(zn_kb *b, zn_kref c) {
  zn_kref low = zn_n_is(b, ZN_K_Ge, c, '0'), high = zn_n_is(b, ZN_K_Le, c, '9');
  return zn_n_and(b, low, high);
}

static void skip_blanks(const text *t) {
  zn_kb *b = t->b;
  zn_kb_loop(b);
  zn_kref c = peek(t), blank = zn_n_is(b, ZN_K_Eq, c, ' ');
  zn_kref low = zn_n_is(b, ZN_K_Ge, c, '\t'), high = zn_n_is(b, ZN_K_Le, c, '\r');
  zn_kb_break(b, zn_n_not(b, zn_n_or(b, blank, zn_n_and(b, low, high))));
  zn_n_bump(b, t->at, 1);
  zn_kb_end(b);
}

static zn_kref take_sign(const text *t) { /* bool: minus */
  zn_kb *b = t->b;
  zn_kref c = peek(t), minus = zn_n_is(b, ZN_K_Eq, c, '-'), plus = zn_n_is(b, ZN_K_Eq, c, '+');
  zn_kb_if(b, zn_n_or(b, minus, plus));
  zn_n_bump(b, t->at, 1);
  zn_kb_end(b);
  return minus;
}

/* digits and at most one point; seen: variable, set when there is a digit */
static void take_digits(const text *t, number *n, zn_kref seen) {
  zn_kb *b = t->b;
  zn_kref dotted = zn_n_var(b, ZN_IDX, 0), some = zn_n_var(b, ZN_IDX, 0), first = zn_n_var(b, ZN_IDX, 0);
  zn_kref point = zn_n_var(b, ZN_IDX, 0);
  zn_kb_loop(b);
  zn_kref c = peek(t), digit = is_digit(b, c), behind = zn_n_is(b, ZN_K_Ne, zn_kb_get(b, dotted), 0);
  zn_kref first_one = zn_n_not(b, behind), dot = zn_n_and(b, first_one, zn_n_is(b, ZN_K_Eq, c, '.'));
  zn_kb_break(b, zn_n_not(b, zn_n_or(b, digit, dot)));
  zn_kb_if(b, digit);
  zn_kref zero = zn_kb_idx(b, 0), one = zn_kb_idx(b, 1), at = zn_kb_get(b, t->at), from = zn_kb_get(b, first);
  zn_kref before = zn_n_is(b, ZN_K_Ne, zn_kb_get(b, some), 0);
  zn_kref counts = zn_n_or(b, before, zn_n_is(b, ZN_K_Ne, c, '0'));
  zn_kb_set(b, first, zn_kb_select(b, before, from, at));
  zn_kref whole = zn_kb_select(b, counts, one, zero), part = zn_n_add(b, whole, -1);
  zn_kref step = zn_kb_select(b, behind, part, whole), old = zn_kb_get(b, point);
  zn_kb_set(b, point, zn_kb_bin(b, ZN_K_Add, old, step));
  zn_kb_set(b, some, whole);
  zn_kb_set(b, seen, one);
  zn_kb_else(b);
  zn_kb_set(b, dotted, zn_kb_idx(b, 1));
  zn_kb_end(b);
  zn_n_bump(b, t->at, 1);
  zn_kb_end(b);
  n->nonzero = zn_n_is(b, ZN_K_Ne, zn_kb_get(b, some), 0);
  n->first = zn_kb_get(b, first);
  n->end = zn_kb_get(b, t->at);
  n->point = point; /* a variable: the exponent is added */
}

/* "e", sign, digits behind digits; bad: variable */
static void take_exponent(const text *t, const number *n, zn_kref seen, zn_kref bad) {
  zn_kb *b = t->b;
  zn_kref letter = zn_n_is(b, ZN_K_Eq, zn_n_op(b, ZN_K_Or, peek(t), 0x20), 'e');
  zn_kb_if(b, zn_n_and(b, letter, zn_n_is(b, ZN_K_Ne, zn_kb_get(b, seen), 0)));
  zn_n_bump(b, t->at, 1);
  zn_kref minus = take_sign(t), e = zn_n_var(b, ZN_IDX, 0), from = zn_kb_get(b, t->at);
  zn_kb_loop(b);
  zn_kref c = peek(t);
  zn_kb_break(b, zn_n_not(b, is_digit(b, c)));
  zn_kref shifted = zn_n_op(b, ZN_K_Mul, zn_kb_get(b, e), 10), digit = zn_n_add(b, c, -'0');
  zn_kb_set(b, e, zn_n_op(b, ZN_K_Min, zn_kb_bin(b, ZN_K_Add, shifted, digit), MAX_EXPONENT));
  zn_n_bump(b, t->at, 1);
  zn_kb_end(b);
  zn_kref none = zn_kb_cmp(b, ZN_K_Eq, zn_kb_get(b, t->at), from), was = zn_kb_get(b, bad);
  zn_kref one = zn_kb_idx(b, 1);
  zn_kb_set(b, bad, zn_kb_select(b, none, one, was));
  zn_kref value = zn_kb_get(b, e), back = zn_kb_un(b, ZN_K_Neg, value), old = zn_kb_get(b, n->point);
  zn_kb_set(b, n->point, zn_kb_bin(b, ZN_K_Add, old, zn_kb_select(b, minus, back, value)));
  zn_kb_end(b);
}

/* inf or nan, where no digit was seen: word (variable) becomes 1 or 2, else bad is set */
static void take_word(const text *t, zn_kref seen, zn_kref word, zn_kref bad) {
  zn_kb *b = t->b;
  zn_kb_if(b, zn_n_is(b, ZN_K_Eq, zn_kb_get(b, seen), 0));
  zn_kref letters = zn_n_var(b, ZN_IDX, 0);
  zn_kref k = zn_n_for(b, zn_kb_idx(b, 3)); /* at most 24 bits */
  (void)k;
  zn_kref c = zn_n_op(b, ZN_K_Or, peek(t), 0x20), so_far = zn_n_op(b, ZN_K_Mul, zn_kb_get(b, letters), 256);
  zn_kb_set(b, letters, zn_kb_bin(b, ZN_K_Add, so_far, c));
  zn_n_bump(b, t->at, 1);
  zn_kb_end(b);
  zn_kref is = zn_kb_get(b, letters), zero = zn_kb_idx(b, 0), one = zn_kb_idx(b, 1), two = zn_kb_idx(b, 2);
  zn_kref inf = zn_n_is(b, ZN_K_Eq, is, 'i' << 16 | 'n' << 8 | 'f'), nan = zn_n_is(b, ZN_K_Eq, is, 'n' << 16 | 'a' << 8 | 'n');
  zn_kref kind = zn_kb_select(b, inf, one, zn_kb_select(b, nan, two, zero));
  zn_kb_set(b, word, kind);
  zn_kref none = zn_n_is(b, ZN_K_Eq, kind, 0), was = zn_kb_get(b, bad);
  zn_kb_set(b, bad, zn_kb_select(b, none, one, was));
  zn_kb_end(b);
}

static number scan(zn_kb *b, zn_kref data, zn_kref len) {
  text t = {b, data, len, zn_n_var(b, ZN_IDX, 0)};
  number n = {0};
  zn_kref seen = zn_n_var(b, ZN_IDX, 0), bad = zn_n_var(b, ZN_IDX, 0), word = zn_n_var(b, ZN_IDX, 0);
  skip_blanks(&t);
  n.minus = take_sign(&t);
  take_digits(&t, &n, seen);
  take_exponent(&t, &n, seen, bad);
  take_word(&t, seen, word, bad);
  skip_blanks(&t);
  zn_kref rest = zn_kb_cmp(b, ZN_K_Ne, zn_kb_get(b, t.at), len), wrong = zn_n_is(b, ZN_K_Ne, zn_kb_get(b, bad), 0);
  zn_kref too_long = zn_n_is(b, ZN_K_Gt, len, MAX_LENGTH), kind = zn_kb_get(b, word);
  n.bad = zn_n_or(b, too_long, zn_n_or(b, rest, wrong));
  n.inf = zn_n_is(b, ZN_K_Eq, kind, 1);
  n.nan = zn_n_is(b, ZN_K_Eq, kind, 2);
  n.point = zn_kb_get(b, n.point);
  return n;
}

/* The next digit of the mantissa as idx value, 0 behind its end. */
static zn_kref next_digit(zn_kb *b, const text *t, const number *n) {
  text within = {b, t->data, n->end, t->at};
  zn_kb_if(b, zn_n_is(b, ZN_K_Eq, peek(&within), '.'));
  zn_n_bump(b, t->at, 1);
  zn_kb_end(b);
  zn_kref c = peek(&within), inside = zn_n_is(b, ZN_K_Ne, c, 0), zero = zn_kb_idx(b, 0), digit = zn_n_add(b, c, -'0');
  zn_kb_if(b, inside);
  zn_n_bump(b, t->at, 1);
  zn_kb_end(b);
  return zn_kb_select(b, inside, digit, zero);
}

/* ---------------------------------------------------------------- integers */

static zn_kref read_int(const zn_sn *s, const text *t, number *n) {
  zn_kb *b = &s->lw->kb;
  zn_dtype ct = zn_lw_ctype(s->t);
  bool sign = zn_is_signed(s->t);
  const uint64_t most = UINT64_MAX >> (64 - zn_int_bits(s->t) + (sign ? 1 : 0));
  zn_kref sum = zn_n_var(b, ZN_U64, 0), over = zn_n_var(b, ZN_IDX, 0);
  zn_kref count = zn_n_op(b, ZN_K_Max, n->point, 0), zero = zn_kb_idx(b, 0);
  count = zn_kb_select(b, n->nonzero, zn_n_op(b, ZN_K_Min, count, 21), zero);
  zn_n_for(b, count);
  zn_kref d = zn_kb_cvt(b, next_digit(b, t, n), ZN_U64), old = zn_kb_get(b, sum), one = zn_kb_idx(b, 1);
  zn_kref far = zn_n_is(b, ZN_K_Gt, old, (int64_t)(UINT64_MAX / 10)), edge = zn_n_is(b, ZN_K_Eq, old, (int64_t)(UINT64_MAX / 10));
  zn_kref past = zn_n_or(b, far, zn_n_and(b, edge, zn_n_is(b, ZN_K_Gt, d, 5))), was = zn_kb_get(b, over);
  zn_kb_set(b, over, zn_kb_select(b, past, one, was));
  zn_kref up = zn_n_op(b, ZN_K_Mul, old, 10);
  zn_kb_set(b, sum, zn_kb_bin(b, ZN_K_Add, up, d));
  zn_kb_end(b);
  zn_kref v = zn_kb_get(b, sum), limit = zn_kb_int(b, ZN_U64, (int64_t)most);
  zn_kref down = zn_kb_int(b, ZN_U64, sign ? (int64_t)(most + 1) : 0);
  zn_kref big = zn_kb_cmp(b, ZN_K_Gt, v, zn_kb_select(b, n->minus, down, limit));
  zn_kref wrapped = zn_n_is(b, ZN_K_Ne, zn_kb_get(b, over), 0), word = zn_n_or(b, n->inf, n->nan);
  n->bad = zn_n_or(b, n->bad, zn_n_or(b, word, zn_n_or(b, big, wrapped)));
  zn_kref zero64 = zn_kb_int(b, ZN_U64, 0), back = zn_kb_bin(b, ZN_K_Sub, zero64, v);
  return zn_kb_cvt(b, zn_kb_select(b, n->minus, back, v), ct);
}

/* ---------------------------------------------------------------- floats */

typedef struct fixed { /* words [0, part) are the fraction, [part, part + whole) the integer, lowest word first */
  zn_kref w;
  int part, whole;
  zn_kref cut; /* u32 variable: not 0 when something below the fraction was cut off */
} fixed;

static void add_whole_digit(zn_kb *b, const fixed *x, zn_kref digit) {
  zn_kref carry = zn_kb_var(b, zn_kb_cvt(b, digit, ZN_U32));
  zn_kref i = zn_n_add(b, zn_n_for(b, zn_kb_idx(b, x->whole)), x->part);
  zn_kref up = zn_n_op(b, ZN_K_Mul, zn_n_word(b, x->w, i), 10), old = zn_kb_get(b, carry);
  zn_kref v = zn_kb_bin(b, ZN_K_Add, up, old);
  zn_kb_store(b, x->w, i, zn_n_op(b, ZN_K_And, v, BASE_MASK));
  zn_kb_set(b, carry, zn_n_op(b, ZN_K_Shr, v, ZN_SN_WORD));
  zn_kb_end(b);
}

static void add_part_digit(zn_kb *b, const fixed *x, zn_kref digit) {
  zn_kref rest = zn_kb_var(b, zn_kb_cvt(b, digit, ZN_U32)), last = zn_kb_idx(b, x->part - 1);
  zn_kref k = zn_n_for(b, zn_kb_idx(b, x->part)), i = zn_kb_bin(b, ZN_K_Sub, last, k);
  zn_kref high = zn_n_op(b, ZN_K_Shl, zn_kb_get(b, rest), ZN_SN_WORD), v = zn_kb_bin(b, ZN_K_Or, high, zn_n_word(b, x->w, i));
  zn_kref q = zn_n_op(b, ZN_K_Div, v, 10), product = zn_n_op(b, ZN_K_Mul, q, 10);
  zn_kb_store(b, x->w, i, q);
  zn_kb_set(b, rest, zn_kb_bin(b, ZN_K_Sub, v, product));
  zn_kb_end(b);
  zn_kref old = zn_kb_get(b, x->cut), r = zn_kb_get(b, rest);
  zn_kb_set(b, x->cut, zn_n_or(b, old, r));
}

/* Digits from the last back to the position of t, then as many zeros as stand between them and the point. */
static void add_part(zn_kb *b, const fixed *x, const text *t, const number *n) {
  zn_kref i = zn_kb_var(b, n->end), zero = zn_kb_idx(b, 0), back = zn_kb_bin(b, ZN_K_Sub, zero, n->point);
  zn_kref zeros = zn_kb_var(b, back), stop = zn_kb_get(b, t->at);
  zn_kb_loop(b);
  zn_kref at = zn_kb_get(b, i), more = zn_kb_cmp(b, ZN_K_Gt, at, stop), left = zn_kb_get(b, zeros);
  zn_kb_break(b, zn_n_not(b, zn_n_or(b, more, zn_n_is(b, ZN_K_Gt, left, 0))));
  zn_kref digit = zn_kb_var(b, zero);
  zn_kb_if(b, more);
  zn_kref c = zn_kb_cvt(b, zn_kb_load(b, ZN_U8, 1, t->data, zn_n_add(b, at, -1)), ZN_IDX);
  zn_kb_set(b, digit, zn_n_add(b, c, -'0')); /* the point: negative */
  zn_kb_set(b, i, zn_n_add(b, at, -1));
  zn_kb_else(b);
  zn_kb_set(b, zeros, zn_n_add(b, left, -1));
  zn_kb_end(b);
  zn_kref d = zn_kb_get(b, digit);
  zn_kb_if(b, zn_n_is(b, ZN_K_Ge, d, 0));
  add_part_digit(b, x, d);
  zn_kb_end(b);
  zn_kb_end(b);
}

static zn_kref word_of(zn_kb *b, zn_kref bit) { return zn_n_op(b, ZN_K_Div, bit, ZN_SN_WORD); }

static zn_kref bit_at(zn_kb *b, const fixed *x, zn_kref bit) { /* u32: 0 or 1 */
  zn_kref w = word_of(b, bit), in = zn_kb_bin(b, ZN_K_Sub, bit, zn_n_op(b, ZN_K_Mul, w, ZN_SN_WORD));
  zn_kref word = zn_n_word(b, x->w, w), shift = zn_kb_cvt(b, in, ZN_U32);
  return zn_n_op(b, ZN_K_And, zn_kb_bin(b, ZN_K_Shr, word, shift), 1);
}

/* Number of the highest bit that is set, -1 for zero. */
static zn_kref highest_bit(zn_kb *b, const fixed *x) {
  zn_kref at = zn_n_var(b, ZN_IDX, -1), top = zn_n_var(b, ZN_U32, 0);
  zn_kref i = zn_n_for(b, zn_kb_idx(b, x->part + x->whole)), w = zn_n_word(b, x->w, i);
  zn_kb_if(b, zn_n_is(b, ZN_K_Ne, w, 0));
  zn_kb_set(b, top, w);
  zn_kb_set(b, at, zn_n_add(b, zn_n_op(b, ZN_K_Mul, i, ZN_SN_WORD), -1));
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_loop(b);
  zn_kref left = zn_kb_get(b, top);
  zn_kb_break(b, zn_n_is(b, ZN_K_Eq, left, 0));
  zn_kb_set(b, top, zn_n_op(b, ZN_K_Shr, left, 1));
  zn_n_bump(b, at, 1);
  zn_kb_end(b);
  return zn_kb_get(b, at);
}

/* u64: not 0 when a bit below number `bit` is set, or something was cut off */
static zn_kref any_below(zn_kb *b, const fixed *x, zn_kref bit) {
  zn_kref any = zn_kb_var(b, zn_kb_get(b, x->cut)), last = word_of(b, bit);
  zn_kref in = zn_kb_bin(b, ZN_K_Sub, bit, zn_n_op(b, ZN_K_Mul, last, ZN_SN_WORD)), one = zn_kb_int(b, ZN_U32, 1);
  zn_kref mask = zn_n_add(b, zn_kb_bin(b, ZN_K_Shl, one, zn_kb_cvt(b, in, ZN_U32)), -1), partial = zn_n_word(b, x->w, last);
  zn_kref i = zn_n_for(b, last), w = zn_n_word(b, x->w, i), old = zn_kb_get(b, any);
  zn_kb_set(b, any, zn_n_or(b, old, w));
  zn_kb_end(b);
  zn_kref low = zn_n_and(b, partial, mask), rest = zn_kb_get(b, any);
  return zn_kb_cvt(b, zn_n_or(b, low, rest), ZN_U64);
}

/* The bits of the float nearest to x, ties to even; odd: x with the last bit set when it is not exact. */
static zn_kref round_bits(zn_kb *b, const fixed *x, const zn_sn_format *f, bool odd) {
  const int origin = x->part * ZN_SN_WORD; /* bit of value 1 */
  zn_kref top = highest_bit(b, x), bits = zn_n_var(b, ZN_U64, 0);
  zn_kb_if(b, zn_n_is(b, ZN_K_Ge, top, 0));
  zn_kref low = zn_n_op(b, ZN_K_Max, zn_n_add(b, top, 1 - f->bits), f->lowest + origin);
  zn_kref count = zn_kb_bin(b, ZN_K_Sub, zn_n_add(b, top, 1), low), m = zn_n_var(b, ZN_U64, 0);
  count = zn_n_op(b, ZN_K_Max, count, 0); /* below half of the lowest: no bit at all */
  zn_kref k = zn_n_for(b, count), bit = zn_kb_cvt(b, bit_at(b, x, zn_kb_bin(b, ZN_K_Sub, top, k)), ZN_U64);
  zn_kref doubled = zn_n_op(b, ZN_K_Shl, zn_kb_get(b, m), 1);
  zn_kb_set(b, m, zn_n_or(b, doubled, bit));
  zn_kb_end(b);
  zn_kref next = zn_n_add(b, low, -1), half = zn_kb_cvt(b, bit_at(b, x, next), ZN_U64), below = any_below(b, x, next);
  zn_kref mantissa = zn_kb_get(b, m), one = zn_kb_int(b, ZN_U64, 1), zero = zn_kb_int(b, ZN_U64, 0);
  zn_kref e = zn_kb_cvt(b, zn_n_add(b, low, -(f->lowest + origin)), ZN_U64);
  zn_kref all = zn_kb_bin(b, ZN_K_Add, zn_n_op(b, ZN_K_Shl, e, f->bits - 1), mantissa);
  const int64_t infinite = f->kernel == ZN_F64 ? INT64_C(0x7ff) << 52 : INT64_C(0xff) << 23;
  if (odd) {
    zn_kref inexact = zn_n_is(b, ZN_K_Ne, zn_n_or(b, half, below), 0), set = zn_n_or(b, all, one);
    all = zn_n_op(b, ZN_K_Min, zn_kb_select(b, inexact, set, all), infinite - 1);
  } else {
    zn_kref more = zn_n_or(b, below, zn_n_op(b, ZN_K_And, mantissa, 1));
    zn_kref at_half = zn_n_is(b, ZN_K_Ne, half, 0), up = zn_n_and(b, at_half, zn_n_is(b, ZN_K_Ne, more, 0));
    all = zn_n_op(b, ZN_K_Min, zn_kb_bin(b, ZN_K_Add, all, zn_kb_select(b, up, one, zero)), infinite);
  }
  zn_kb_set(b, bits, all);
  zn_kb_end(b);
  return zn_kb_get(b, bits);
}

static zn_kref read_float(const zn_sn *s, const text *t, const number *n) {
  zn_kb *b = &s->lw->kb;
  const zn_sn_format f = read_format(s->t);
  const bool narrow = s->t != ZN_F64 && s->t != ZN_F32, wide = f.kernel == ZN_F64;
  fixed x = {s->big[0], part_words(&f), whole_words(&f), zn_n_var(b, ZN_U32, 0)};
  const int64_t infinite = wide ? INT64_C(0x7ff) << 52 : INT64_C(0xff) << 23;
  zn_kref bits = zn_n_var(b, ZN_U64, 0), inf = zn_kb_int(b, ZN_U64, infinite);
  zn_kref far = zn_n_is(b, ZN_K_Gt, n->point, whole_digits(&f)), tiny = zn_n_is(b, ZN_K_Lt, n->point, f.lowest / 3);
  zn_kref huge = zn_n_or(b, n->inf, zn_n_and(b, n->nonzero, far));
  zn_kb_if(b, zn_n_and(b, n->nonzero, zn_n_not(b, zn_n_or(b, far, tiny))));
  zn_kref i = zn_n_for(b, zn_kb_idx(b, x.part + x.whole));
  zn_kb_store(b, x.w, i, zn_kb_int(b, ZN_U32, 0));
  zn_kb_end(b);
  zn_n_for(b, zn_n_op(b, ZN_K_Max, n->point, 0));
  add_whole_digit(b, &x, next_digit(b, t, n));
  zn_kb_end(b);
  add_part(b, &x, t, n);
  zn_kb_set(b, bits, round_bits(b, &x, &f, narrow));
  zn_kb_end(b);
  zn_kref value = zn_kb_select(b, huge, inf, zn_kb_get(b, bits));
  value = zn_kb_select(b, n->nan, zn_kb_int(b, ZN_U64, infinite | infinite >> 1), value);
  zn_kref zero = zn_kb_int(b, ZN_U64, 0), sign = zn_kb_int(b, ZN_U64, wide ? INT64_MIN : INT64_C(1) << 31);
  value = zn_n_or(b, value, zn_kb_select(b, n->minus, sign, zero));
  return zn_kb_bitcast(b, wide ? value : zn_kb_cvt(b, value, ZN_U32), f.kernel);
}

zn_kref zn_sn_read(const zn_sn *s, zn_kref data, zn_kref len, zn_kref *out_bad) {
  zn_kb *b = &s->lw->kb;
  number n = scan(b, data, len);
  text t = {b, data, n.end, zn_kb_var(b, n.first)};
  zn_kref v;
  if (s->t == ZN_BOOL) v = zn_n_or(b, n.nonzero, zn_n_or(b, n.inf, n.nan));
  else if (zn_is_float(s->t)) v = read_float(s, &t, &n);
  else v = read_int(s, &t, &n);
  *out_bad = n.bad;
  return v;
}
