/* Text from numbers. Floats: the shortest digits, after Steele and White, "How to print floating-point numbers accurately"
 * (PLDI 1990), with integers: the value is r / s, the values that read back as it lie between (r - below) / s and
 * (r + above) / s, the ends included when its mantissa is even. Digits are taken until what is left lies in there. */
#include "codegen/lower/strnum.h"

enum { R, S, ABOVE, BELOW, SUM };
enum { MAX_DIGITS = 20, BASE_MASK = (1 << ZN_SN_WORD) - 1 };

/* Words for a float of exponent e: 53 bits of mantissa, 2 in front of them, one decimal digit above s. */
static int words_for(int e) { return (e + 100) / ZN_SN_WORD + 1; }

zn_sn zn_sn_writer(zn_lw *lw, zn_dtype from) {
  zn_sn s = {.lw = lw, .t = from};
  s.digits = zn_kb_alloc(&lw->kb, ZN_U8, MAX_DIGITS);
  if (!zn_is_float(from)) return s;
  const int e = from == ZN_F64 ? 1074 : 149;
  for (int i = 0; i < ZN_SN_BIGS; i++) s.big[i] = zn_kb_alloc(&lw->kb, ZN_U32, (uint64_t)words_for(e) + 4);
  return s;
}

/* ---------------------------------------------------------------- text */

typedef struct out {
  zn_kb *b;
  zn_kref to, at; /* at: variable */
} out;

static void put(const out *o, zn_kref c) { /* u8 value */
  zn_kref i = zn_kb_get(o->b, o->at);
  zn_kb_store(o->b, o->to, i, c);
  zn_n_bump(o->b, o->at, 1);
}

static void put_char(const out *o, char c) { put(o, zn_kb_int(o->b, ZN_U8, c)); }

static void put_word(const out *o, const char *s) {
  for (; *s; s++) put_char(o, *s);
}

static void put_digit(const out *o, zn_kref d) { put(o, zn_kb_cvt(o->b, zn_n_add(o->b, d, '0'), ZN_U8)); } /* idx value */

static void put_minus(const out *o, zn_kref minus) {
  zn_kb_if(o->b, minus);
  put_char(o, '-');
  zn_kb_end(o->b);
}

/* ---------------------------------------------------------------- integers */

static void write_int(const zn_sn *s, const out *o, zn_kref x) {
  zn_kb *b = o->b;
  zn_dtype wide = zn_int_bits(s->t) > 32 ? ZN_U64 : ZN_U32, with_sign = wide == ZN_U64 ? ZN_I64 : ZN_I32;
  zn_kref v = zn_kb_cvt(b, x, zn_is_signed(s->t) ? with_sign : wide);
  if (zn_is_signed(s->t)) {
    zn_kref minus = zn_n_is(b, ZN_K_Lt, v, 0), zero = zn_kb_int(b, with_sign, 0);
    put_minus(o, minus);
    zn_kref back = zn_kb_bin(b, ZN_K_Sub, zero, v);
    v = zn_kb_cvt(b, zn_kb_select(b, minus, back, v), wide);
  }
  zn_kref left = zn_kb_var(b, v), count = zn_n_var(b, ZN_IDX, 0);
  zn_kb_loop(b);
  zn_kref m = zn_kb_get(b, left), q = zn_n_op(b, ZN_K_Div, m, 10);
  zn_kref d = zn_kb_bin(b, ZN_K_Sub, m, zn_n_op(b, ZN_K_Mul, q, 10)), at = zn_kb_get(b, count);
  zn_kb_store(b, s->digits, at, zn_kb_cvt(b, d, ZN_U8));
  zn_n_bump(b, count, 1);
  zn_kb_set(b, left, q);
  zn_kb_break(b, zn_n_is(b, ZN_K_Eq, q, 0));
  zn_kb_end(b);
  zn_kref n = zn_kb_get(b, count), last = zn_n_add(b, n, -1), k = zn_n_for(b, n);
  zn_kref from = zn_kb_bin(b, ZN_K_Sub, last, k);
  put_digit(o, zn_kb_cvt(b, zn_kb_load(b, ZN_U8, 1, s->digits, from), ZN_IDX));
  zn_kb_end(b);
}

/* ---------------------------------------------------------------- big integers of `n` words, lowest first */

typedef struct bigs {
  zn_kb *b;
  const zn_kref *w;
  zn_kref n;
} bigs;

static void times_ten(const bigs *g, int which) {
  zn_kb *b = g->b;
  zn_kref carry = zn_n_var(b, ZN_U32, 0), i = zn_n_for(b, g->n);
  zn_kref up = zn_n_op(b, ZN_K_Mul, zn_n_word(b, g->w[which], i), 10), old = zn_kb_get(b, carry);
  zn_kref v = zn_kb_bin(b, ZN_K_Add, up, old);
  zn_kb_store(b, g->w[which], i, zn_n_op(b, ZN_K_And, v, BASE_MASK));
  zn_kb_set(b, carry, zn_n_op(b, ZN_K_Shr, v, ZN_SN_WORD));
  zn_kb_end(b);
}

/* SUM = factor * (r + other) */
static void add_up(const bigs *g, int other, int factor) {
  zn_kb *b = g->b;
  zn_kref carry = zn_n_var(b, ZN_U32, 0), i = zn_n_for(b, g->n);
  zn_kref x = zn_n_word(b, g->w[R], i), y = zn_n_word(b, g->w[other], i), both = zn_kb_bin(b, ZN_K_Add, x, y);
  zn_kref wide = zn_n_op(b, ZN_K_Mul, zn_kb_cvt(b, both, ZN_U64), factor), old = zn_kb_cvt(b, zn_kb_get(b, carry), ZN_U64);
  zn_kref v = zn_kb_bin(b, ZN_K_Add, wide, old);
  zn_kb_store(b, g->w[SUM], i, zn_kb_cvt(b, zn_n_op(b, ZN_K_And, v, BASE_MASK), ZN_U32));
  zn_kb_set(b, carry, zn_kb_cvt(b, zn_n_op(b, ZN_K_Shr, v, ZN_SN_WORD), ZN_U32));
  zn_kb_end(b);
}

static void subtract(const bigs *g) { /* r -= s */
  zn_kb *b = g->b;
  zn_kref borrow = zn_n_var(b, ZN_U32, 0), i = zn_n_for(b, g->n);
  zn_kref x = zn_n_word(b, g->w[R], i), y = zn_n_word(b, g->w[S], i), old = zn_kb_get(b, borrow);
  zn_kref v = zn_kb_bin(b, ZN_K_Sub, zn_kb_bin(b, ZN_K_Sub, x, y), old);
  zn_kb_store(b, g->w[R], i, zn_n_op(b, ZN_K_And, v, BASE_MASK));
  zn_kb_set(b, borrow, zn_n_op(b, ZN_K_Shr, v, 31)); /* below zero the upper bits are ones */
  zn_kb_end(b);
}

static zn_kref compare(const bigs *g, int p, int q) { /* idx value of the sign of p - q */
  zn_kb *b = g->b;
  zn_kref r = zn_n_var(b, ZN_IDX, 0), i = zn_n_for(b, g->n);
  zn_kref x = zn_n_word(b, g->w[p], i), y = zn_n_word(b, g->w[q], i), old = zn_kb_get(b, r);
  zn_kref more = zn_kb_cmp(b, ZN_K_Gt, x, y), less = zn_kb_cmp(b, ZN_K_Lt, x, y);
  zn_kref up = zn_kb_idx(b, 1), down = zn_kb_idx(b, -1), other = zn_kb_select(b, less, down, old);
  zn_kb_set(b, r, zn_kb_select(b, more, up, other));
  zn_kb_end(b);
  return zn_kb_get(b, r);
}

/* Number `which` = v (u64, at most 55 bits) * 2^shift */
static void set_shifted(const bigs *g, int which, zn_kref v, zn_kref shift) {
  zn_kb *b = g->b;
  zn_kref zero = zn_kb_int(b, ZN_U32, 0), i = zn_n_for(b, zn_n_add(b, g->n, 4));
  zn_kb_store(b, g->w[which], i, zero);
  zn_kb_end(b);
  zn_kref at = zn_n_op(b, ZN_K_Div, shift, ZN_SN_WORD), in = zn_kb_bin(b, ZN_K_Sub, shift, zn_n_op(b, ZN_K_Mul, at, ZN_SN_WORD));
  zn_kref up = zn_kb_cvt(b, in, ZN_U64), word = zn_kb_int(b, ZN_U64, ZN_SN_WORD);
  zn_kref low = zn_n_op(b, ZN_K_And, zn_kb_bin(b, ZN_K_Shl, v, up), BASE_MASK), down = zn_kb_bin(b, ZN_K_Sub, word, up);
  zn_kref rest = zn_kb_bin(b, ZN_K_Shr, v, down);
  zn_kb_store(b, g->w[which], at, zn_kb_cvt(b, low, ZN_U32));
  for (int k = 1; k < 4; k++) {
    zn_kref place = zn_n_add(b, at, k), bits = zn_n_op(b, ZN_K_And, rest, BASE_MASK);
    zn_kb_store(b, g->w[which], place, zn_kb_cvt(b, bits, ZN_U32));
    rest = zn_n_op(b, ZN_K_Shr, rest, ZN_SN_WORD);
  }
}

/* ---------------------------------------------------------------- floats */

typedef struct parts { /* |x| = mantissa * 2^exponent, in the steps of its type */
  zn_kref minus, infinite, nan, zero; /* bool */
  zn_kref mantissa;                   /* u64 */
  zn_kref exponent;                   /* idx */
  zn_kref narrow;                     /* bool: the values below it lie twice as close */
} parts;

static parts take_apart(zn_kb *b, zn_kref x, const zn_sn_format *f) {
  const bool wide = f->kernel == ZN_F64;
  const int field = wide ? 52 : 23, bias = wide ? 1074 : 149;
  const int64_t top = wide ? 0x7ff : 0xff;
  parts p;
  zn_kref bits = zn_kb_cvt(b, zn_kb_bitcast(b, x, wide ? ZN_U64 : ZN_U32), ZN_U64);
  zn_kref all = zn_n_op(b, ZN_K_And, bits, top << field | ((INT64_C(1) << field) - 1));
  p.minus = zn_kb_cmp(b, ZN_K_Ne, bits, all);
  p.zero = zn_n_is(b, ZN_K_Eq, all, 0);
  p.infinite = zn_n_is(b, ZN_K_Eq, all, top << field);
  p.nan = zn_n_is(b, ZN_K_Gt, all, top << field);
  zn_kref e = zn_n_op(b, ZN_K_Shr, all, field), normal = zn_n_is(b, ZN_K_Ne, e, 0);
  zn_kref m = zn_n_op(b, ZN_K_And, all, (INT64_C(1) << field) - 1), lead = zn_n_op(b, ZN_K_Or, m, INT64_C(1) << field);
  m = zn_kb_select(b, normal, lead, m);
  zn_kref unit = zn_n_add(b, zn_kb_cvt(b, zn_n_op(b, ZN_K_Max, e, 1), ZN_IDX), -1 - bias);
  /* a narrower type has fewer steps: its values have zeros at the end here */
  zn_kref step = zn_n_op(b, ZN_K_Max, zn_n_add(b, unit, field + 1 - f->bits), f->lowest);
  zn_kref drop = zn_n_op(b, ZN_K_Max, zn_kb_bin(b, ZN_K_Sub, step, unit), 0);
  p.mantissa = zn_kb_bin(b, ZN_K_Shr, m, zn_kb_cvt(b, drop, ZN_U64));
  p.exponent = zn_kb_bin(b, ZN_K_Add, unit, drop);
  zn_kref power = zn_n_is(b, ZN_K_Eq, p.mantissa, INT64_C(1) << (f->bits - 1));
  p.narrow = zn_n_and(b, power, zn_n_is(b, ZN_K_Gt, p.exponent, f->lowest));
  return p;
}

/* Does a sum of sign `c` against s reach an end of the interval? bool; even: bool */
static zn_kref reaches(zn_kb *b, zn_kref c, zn_kref even) {
  zn_kref past = zn_n_is(b, ZN_K_Gt, c, 0), on = zn_n_is(b, ZN_K_Eq, c, 0);
  return zn_n_or(b, past, zn_n_and(b, on, even));
}

/* The point: the value is 0.D * 10^point. r / s becomes 0.D. */
static zn_kref scale(const bigs *g, zn_kref even) {
  zn_kb *b = g->b;
  zn_kref point = zn_n_var(b, ZN_IDX, 0);
  zn_kb_loop(b);
  add_up(g, ABOVE, 1);
  zn_kref c = compare(g, SUM, S);
  zn_kb_break(b, zn_n_not(b, reaches(b, c, even)));
  times_ten(g, S);
  zn_n_bump(b, point, 1);
  zn_kb_end(b);
  zn_kb_loop(b);
  add_up(g, ABOVE, 10);
  zn_kref d = compare(g, SUM, S);
  zn_kb_break(b, reaches(b, d, even));
  for (int k = 0; k < 3; k++) times_ten(g, (int[]){R, ABOVE, BELOW}[k]);
  zn_n_bump(b, point, -1);
  zn_kb_end(b);
  return zn_kb_get(b, point);
}

static zn_kref take_digits(const zn_sn *s, const bigs *g, zn_kref even) { /* how many */
  zn_kb *b = g->b;
  zn_kref count = zn_n_var(b, ZN_IDX, 0), digit = zn_n_var(b, ZN_IDX, 0), zero = zn_kb_idx(b, 0);
  zn_kb_loop(b);
  for (int k = 0; k < 3; k++) times_ten(g, (int[]){R, ABOVE, BELOW}[k]);
  zn_kb_set(b, digit, zero);
  zn_kb_loop(b);
  zn_kref c = compare(g, R, S);
  zn_kb_break(b, zn_n_is(b, ZN_K_Lt, c, 0));
  subtract(g);
  zn_n_bump(b, digit, 1);
  zn_kb_end(b);
  zn_kref low = reaches(b, compare(g, BELOW, R), even);
  add_up(g, ABOVE, 1);
  zn_kref high = reaches(b, compare(g, SUM, S), even);
  add_up(g, R, 1);
  zn_kref half = compare(g, SUM, S), d = zn_kb_get(b, digit), odd = zn_n_is(b, ZN_K_Ne, zn_n_op(b, ZN_K_And, d, 1), 0);
  zn_kref nearer = reaches(b, half, odd), only_high = zn_n_not(b, low), up = zn_n_and(b, high, zn_n_or(b, only_high, nearer));
  zn_kref stored = zn_kb_select(b, up, zn_n_add(b, d, 1), d), at = zn_kb_get(b, count);
  zn_kb_store(b, s->digits, at, zn_kb_cvt(b, stored, ZN_U8));
  zn_n_bump(b, count, 1);
  zn_kb_break(b, zn_n_or(b, low, high));
  zn_kb_end(b);
  return zn_kb_get(b, count);
}

static void put_plain(const zn_sn *s, const out *o, zn_kref count, zn_kref point) {
  zn_kb *b = o->b;
  zn_kref zero = zn_kb_idx(b, 0), first = zn_n_op(b, ZN_K_Min, zn_n_add(b, point, -1), 0);
  zn_kref last = zn_kb_bin(b, ZN_K_Max, count, zn_n_add(b, point, 1)), total = zn_kb_bin(b, ZN_K_Sub, last, first);
  zn_kref k = zn_kb_bin(b, ZN_K_Add, zn_n_for(b, total), first);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, k, point));
  put_char(o, '.');
  zn_kb_end(b);
  zn_kref digit = zn_kb_var(b, zero), from = zn_n_is(b, ZN_K_Ge, k, 0);
  zn_kb_if(b, zn_n_and(b, from, zn_kb_cmp(b, ZN_K_Lt, k, count)));
  zn_kb_set(b, digit, zn_kb_cvt(b, zn_kb_load(b, ZN_U8, 1, s->digits, k), ZN_IDX));
  zn_kb_end(b);
  put_digit(o, zn_kb_get(b, digit));
  zn_kb_end(b);
}

static void put_exponent(const out *o, zn_kref e) { /* idx value: sign and two or three digits */
  zn_kb *b = o->b;
  zn_kref minus = zn_n_is(b, ZN_K_Lt, e, 0), m = zn_kb_un(b, ZN_K_Abs, e);
  zn_kref hundreds = zn_n_op(b, ZN_K_Div, m, 100), tens = zn_n_op(b, ZN_K_Rem, zn_n_op(b, ZN_K_Div, m, 10), 10);
  zn_kref dash = zn_kb_int(b, ZN_U8, '-'), plus = zn_kb_int(b, ZN_U8, '+');
  put_char(o, 'e');
  put(o, zn_kb_select(b, minus, dash, plus));
  zn_kb_if(b, zn_n_is(b, ZN_K_Gt, hundreds, 0));
  put_digit(o, hundreds);
  zn_kb_end(b);
  put_digit(o, tens);
  put_digit(o, zn_n_op(b, ZN_K_Rem, m, 10));
}

static void put_scientific(const zn_sn *s, const out *o, zn_kref count, zn_kref point) {
  zn_kb *b = o->b;
  zn_kref k = zn_n_for(b, count);
  zn_kb_if(b, zn_n_is(b, ZN_K_Eq, k, 1));
  put_char(o, '.');
  zn_kb_end(b);
  put_digit(o, zn_kb_cvt(b, zn_kb_load(b, ZN_U8, 1, s->digits, k), ZN_IDX));
  zn_kb_end(b);
  put_exponent(o, zn_n_add(b, point, -1));
}

/* Finite and not zero: r, s and the ends of the interval, each 4 times what they mean so that halves are whole. */
static void write_finite(const zn_sn *s, const out *o, const parts *p) {
  zn_kb *b = o->b;
  zn_kref e = zn_kb_un(b, ZN_K_Abs, p->exponent);
  bigs g = {b, s->big, zn_n_add(b, zn_n_op(b, ZN_K_Div, zn_n_add(b, e, 100), ZN_SN_WORD), 1)};
  zn_kref up = zn_n_op(b, ZN_K_Max, p->exponent, 0), down = zn_kb_bin(b, ZN_K_Sub, up, p->exponent);
  zn_kref one = zn_kb_int(b, ZN_U64, 1), two = zn_kb_int(b, ZN_U64, 2), four = zn_kb_int(b, ZN_U64, 4);
  set_shifted(&g, R, zn_n_op(b, ZN_K_Shl, p->mantissa, 2), up);
  set_shifted(&g, S, four, down);
  set_shifted(&g, ABOVE, two, up);
  set_shifted(&g, BELOW, zn_kb_select(b, p->narrow, one, two), up);
  zn_kref even = zn_n_is(b, ZN_K_Eq, zn_n_op(b, ZN_K_And, p->mantissa, 1), 0);
  zn_kref point = scale(&g, even), count = take_digits(s, &g, even);
  zn_kref small = zn_n_is(b, ZN_K_Gt, point, -4), large = zn_n_is(b, ZN_K_Le, point, 16);
  zn_kb_if(b, zn_n_and(b, small, large));
  put_plain(s, o, count, point);
  zn_kb_else(b);
  put_scientific(s, o, count, point);
  zn_kb_end(b);
}

static void write_float(const zn_sn *s, const out *o, zn_kref x) {
  zn_kb *b = o->b;
  const zn_sn_format f = zn_sn_format_of(s->t);
  const parts p = take_apart(b, x, &f);
  zn_kb_if(b, p.nan);
  put_word(o, "NaN");
  zn_kb_else(b);
  put_minus(o, p.minus);
  zn_kb_if(b, p.infinite);
  put_word(o, "INF");
  zn_kb_else(b);
  zn_kb_if(b, p.zero);
  put_word(o, "0.0");
  zn_kb_else(b);
  write_finite(s, o, &p);
  zn_kb_end(b);
  zn_kb_end(b);
  zn_kb_end(b);
}

zn_kref zn_sn_write(const zn_sn *s, zn_kref to, zn_kref x) {
  zn_kb *b = &s->lw->kb;
  out o = {b, to, zn_n_var(b, ZN_IDX, 0)};
  if (zn_is_float(s->t)) write_float(s, &o, x);
  else if (s->t == ZN_BOOL) put_digit(&o, zn_kb_cvt(b, x, ZN_IDX));
  else write_int(s, &o, x);
  return zn_kb_get(b, o.at);
}
