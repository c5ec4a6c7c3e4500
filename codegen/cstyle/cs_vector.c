/* Vector operations: one inline helper per operation and type. Each has a form for the GCC/Clang
 * vector extension and one by lanes; the lanes form takes the scalar expression of cs_scalar.c, so
 * both mean the same by construction. */
#include "codegen/cstyle/cs_priv.h"

/* Expands $x to lane `lane` of vector x: x[3] or x.v[k]; `$#` is the lane number. */
static void put_lane(cs_state *s, const char *tmpl, int lane) {
  for (const char *p = tmpl; *p; p++) {
    if (*p != '$') {
      zn_text_put(&s->helpers, p, 1);
    } else if (*++p == '#') {
      if (lane >= 0)
        zn_text_printf(&s->helpers, "%d", lane);
      else
        zn_text_puts(&s->helpers, "k");
    } else if (lane >= 0) {
      zn_text_printf(&s->helpers, "%c[%d]", *p, lane);
    } else {
      zn_text_printf(&s->helpers, "%c.v[k]", *p);
    }
  }
}

static void put_lane_loop(cs_state *s, cs_type ret, const char *lane) {
  zn_text_printf(&s->helpers, "  %s r;\n  int k;\n  for (k = 0; k < %u; k++) r.v[k] = (%s)(",
                 cs_name(s, ret), ret.lanes, cs_elem(s, ret));
  put_lane(s, lane, -1);
  zn_text_puts(&s->helpers, ");\n  return r;\n");
}

/* One helper. vec: statements for the vector extension that return the result; NULL: lane by lane.
 */
static const char *emit(cs_state *s, const char *name, cs_type ret, const char *params,
                        const char *vec, const char *lane) {
  zn_text *h = &s->helpers;
  zn_text_printf(h, "%s %s %s(%s) {\n", s->dia->helper_qual, cs_name(s, ret), name, params);
  if (cs_is_pow2(ret.lanes)) {
    zn_text_puts(h, "#if ZN_VEC\n  ");
    if (vec) {
      zn_text_puts(h, vec);
    } else {
      zn_text_printf(h, "return (%s){", cs_name(s, ret));
      for (int i = 0; i < ret.lanes; i++) {
        zn_text_printf(h, "%s(%s)(", i ? ", " : "", cs_elem(s, ret));
        put_lane(s, lane, i);
        zn_text_puts(h, ")");
      }
      zn_text_puts(h, "};");
    }
    zn_text_puts(h, "\n#else\n");
    put_lane_loop(s, ret, lane);
    zn_text_puts(h, "#endif\n}\n");
  } else {
    put_lane_loop(s, ret, lane);
    zn_text_puts(h, "}\n");
  }
  return name;
}

static cs_type mask_type(cs_type t) {
  return t.mask ? t : cs_vector(ZN_BOOL, t.lanes, cs_mask_of((zn_dtype)t.dtype));
}

static cs_type unsigned_type(cs_type t) {
  t.dtype = (uint8_t)cs_unsigned_dtype((zn_dtype)t.dtype);
  return t;
}

/* Unsigned vectors of idx lanes: idx has no unsigned dtype, so the typedef is made here. */
static const char *unsigned_name(cs_state *s, cs_type t) {
  if (t.dtype != ZN_IDX) return cs_name(s, unsigned_type(t));
  const char *name = cs_fmt(s, "zn_uidxx%u", t.lanes);
  if (cs_is_pow2(t.lanes) && cs_once(s, name))
    zn_text_printf(&s->helpers, "ZN_VECTOR(%s, %u, %s);\n", s->dia->unsigned_idx, t.lanes, name);
  return name;
}

static const char *helper_name(cs_state *s, const char *what, cs_type t) {
  return cs_fmt(s, "zn_%s_%sx%u", what, cs_tag(s, t), t.lanes);
}

/* ---- unary ---- */

static const char *abs_vec(cs_state *s, cs_type t) {
  const char *n = cs_name(s, t), *u = unsigned_name(s, t);
  if (zn_is_float((zn_dtype)t.dtype))
    return cs_fmt(s, "return (%s)((%s)a & %s);", n, u,
                  t.dtype == ZN_F32 ? "0x7fffffffu" : "UINT64_C(0x7fffffffffffffff)");
  return cs_fmt(s, "const %s m = (%s)(a < 0);\n  return (%s)(((%s)a ^ m) - m);", u, u, n, u);
}

/* Four and eight floats at a time have instructions that no portable expression reaches. */
static const char *x86_form(cs_state *s, cs_type t, const char *op, int round_mode) {
  if (!cs_is_pow2(t.lanes)) return NULL;
  unsigned bytes = t.lanes * zn_dtype_bytes((zn_dtype)t.dtype);
  const char *p = t.dtype == ZN_F32 ? "ps" : "pd";
  if ((bytes != 16 && bytes != 32)) return NULL;
  const char *guard = bytes == 32 ? "__AVX__" : round_mode >= 0 ? "__SSE4_1__" : "__AVX__";
  const char *wide = bytes == 32 ? "256" : "";
  const char *n = cs_name(s, t);
  if (round_mode >= 0)
    return cs_fmt(s, "#if defined(%s)\n  return (%s)__builtin_ia32_round%s%s(a, %d);\n#else", guard,
                  n, p, wide, round_mode);
  return cs_fmt(
      s,
      "#if defined(%s)\n  %s r;\n  __asm__(\"v%s%s {%%1, %%0|%%0, %%1}\" : \"=x\"(r) : \"x\"(a));\n"
      "  return r;\n#else",
      guard, n, op, p);
}

const char *cs_vec_un(cs_state *s, zn_kop op, cs_type t) {
  const char *name = helper_name(s, zn_kops[op].text, t), *n = cs_name(s, t), *vec = NULL,
             *x86 = NULL;
  if (!cs_once(s, name)) return name;
  const char *lane = t.mask ? "~$a" : cs_scalar_un(s, op, (zn_dtype)t.dtype, "$a");
  bool is_float = zn_is_float((zn_dtype)t.dtype), u = zn_dtypes[t.dtype].cls == 'U';
  switch ((int)op) {
  case ZN_K_Neg:
    vec = is_float ? "return -a;" : cs_fmt(s, "return (%s)-(%s)a;", n, unsigned_name(s, t));
    break;
  case ZN_K_Not:
    vec = "return ~a;";
    break;
  case ZN_K_Abs:
    vec = u ? "return a;" : abs_vec(s, t);
    break;
  case ZN_K_Sqrt:
    x86 = x86_form(s, t, "sqrt", -1);
    break;
  case ZN_K_Rint:
    x86 = x86_form(s, t, NULL, 4);
    break; /* current direction = nearest, no exception */
  case ZN_K_Floor:
    x86 = x86_form(s, t, NULL, 9);
    break;
  case ZN_K_Ceil:
    x86 = x86_form(s, t, NULL, 10);
    break;
  case ZN_K_Trunc:
    x86 = x86_form(s, t, NULL, 11);
    break;
  default:
    break;
  }
  if (!x86) return emit(s, name, t, cs_fmt(s, "%s a", n), vec, lane);
  const char *scalar = cs_fmt(s, "%s_lanes", name);
  emit(s, scalar, t, cs_fmt(s, "%s a", n), NULL, lane);
  zn_text_printf(&s->helpers,
                 "%s %s %s(%s a) {\n#if ZN_VEC\n%s\n  return %s(a);\n#endif\n#else\n  return "
                 "%s(a);\n#endif\n}\n",
                 s->dia->helper_qual, n, name, n, x86, scalar, scalar);
  return name;
}

/* ---- binary ---- */

static const char *shift_vec(cs_state *s, zn_kop op, cs_type t) {
  const char *n = cs_name(s, t), *u = unsigned_name(s, t);
  unsigned bits = zn_dtype_bytes((zn_dtype)t.dtype) * 8;
  const char *last =
      t.dtype == ZN_IDX ? "(sizeof(zi) * 8 - 1)" : cs_fmt(s, bits == 64 ? "%uu" : "%u", bits - 1);
  if (t.dtype == ZN_U32 || t.dtype == ZN_I32) last = "31u";
  const char *in = cs_fmt(s, "const %s c = (%s)b, in = (%s)(c <= %s);\n  ", u, u, u, last);
  if (op == ZN_K_Shl) return cs_fmt(s, "%sreturn (%s)(((%s)a << (c & %s)) & in);", in, n, u, last);
  if (!zn_is_signed((zn_dtype)t.dtype))
    return cs_fmt(s, "%sreturn (a >> (c & %s)) & in;", in, last);
  return cs_fmt(s, "%sreturn a >> (%s)((c & in) | (~in & %s));", in, n, last);
}

static const char *bin_vec(cs_state *s, zn_kop op, cs_type t) {
  const char *n = cs_name(s, t), *m = cs_name(s, mask_type(t));
  bool is_float = zn_is_float((zn_dtype)t.dtype) && !t.mask;
  const char *sym = op == ZN_K_Add ? "+" : op == ZN_K_Sub ? "-" : op == ZN_K_Mul ? "*" : NULL;
  if (sym && !is_float && zn_is_signed((zn_dtype)t.dtype)) {
    const char *u = unsigned_name(s, t);
    return cs_fmt(s, "return (%s)((%s)a %s (%s)b);", n, u, sym, u);
  }
  if (sym) return cs_fmt(s, "return a %s b;", sym);
  switch ((int)op) {
  case ZN_K_Div:
    return is_float ? "return a / b;" : NULL;
  case ZN_K_And:
    return "return a & b;";
  case ZN_K_Or:
    return "return a | b;";
  case ZN_K_Xor:
    return "return a ^ b;";
  case ZN_K_Min:
  case ZN_K_Max:
    return cs_fmt(s, "const %s m = (%s)(a %s b);\n  return (%s)(((%s)a & m) | ((%s)b & ~m));", m, m,
                  op == ZN_K_Min ? "<" : ">", n, m, m);
  case ZN_K_Shl:
  case ZN_K_Shr:
    return shift_vec(s, op, t);
  case ZN_K_CopySign: {
    const char *u = unsigned_name(s, t);
    const char *sign = t.dtype == ZN_F32 ? "0x80000000u" : "UINT64_C(0x8000000000000000)";
    return cs_fmt(s, "return (%s)(((%s)a & ~%s) | ((%s)b & %s));", n, u, sign, u, sign);
  }
  default:
    return NULL;
  }
}

const char *cs_vec_bin(cs_state *s, zn_kop op, cs_type t) {
  const char *name = helper_name(s, zn_kops[op].text, t), *n = cs_name(s, t), *lane;
  if (!cs_once(s, name)) return name;
  if (t.mask)
    lane = op == ZN_K_And ? "$a & $b" : op == ZN_K_Or ? "$a | $b" : "$a ^ $b";
  else
    lane = cs_scalar_bin(s, op, (zn_dtype)t.dtype, "$a", "$b");
  const char *vec = cs_is_pow2(t.lanes) ? bin_vec(s, op, t) : NULL;
  return emit(s, name, t, cs_fmt(s, "%s a, %s b", n, n), vec, lane);
}

const char *cs_vec_fma(cs_state *s, cs_type t) {
  const char *name = helper_name(s, "fma", t), *n = cs_name(s, t);
  if (!cs_once(s, name)) return name;
  const char *lane = cs_scalar_fma(s, (zn_dtype)t.dtype, "$a", "$b", "$c");
  return emit(s, name, t, cs_fmt(s, "%s a, %s b, %s c", n, n, n), NULL,
              lane); /* compilers fuse the lanes */
}

const char *cs_vec_cmp(cs_state *s, zn_kop op, cs_type t) {
  const char *name = helper_name(s, zn_kops[op].text, t), *n = cs_name(s, t);
  if (!cs_once(s, name)) return name;
  cs_type r = mask_type(t);
  const char *sym = op == ZN_K_Eq   ? "=="
                    : op == ZN_K_Ne ? "!="
                    : op == ZN_K_Lt ? "<"
                    : op == ZN_K_Le ? "<="
                    : op == ZN_K_Gt ? ">"
                                    : ">=";
  if (t.mask) /* true is -1: the order turns round */
    sym = op == ZN_K_Lt   ? ">"
          : op == ZN_K_Le ? ">="
          : op == ZN_K_Gt ? "<"
          : op == ZN_K_Ge ? "<="
                          : sym;
  return emit(s, name, r, cs_fmt(s, "%s a, %s b", n, n),
              cs_fmt(s, "return (%s)(a %s b);", cs_name(s, r), sym), cs_fmt(s, "-($a %s $b)", sym));
}

const char *cs_vec_select(cs_state *s, cs_type t) {
  const char *name = helper_name(s, "select", t), *n = cs_name(s, t), *m = cs_name(s, mask_type(t));
  if (!cs_once(s, name)) return name;
  return emit(s, name, t, cs_fmt(s, "%s m, %s a, %s b", m, n, n),
              cs_fmt(s, "return (%s)(((%s)a & m) | ((%s)b & ~m));", n, m, m), "$m ? $a : $b");
}

/* ---- conversions ---- */

const char *cs_vec_mask(cs_state *s, cs_type from, unsigned mask) {
  cs_type to = cs_vector(ZN_BOOL, from.lanes, mask);
  const char *name = cs_fmt(s, "zn_%s_%sx%u", cs_tag(s, from), cs_tag(s, to), from.lanes);
  if (!cs_once(s, name)) return name;
  return emit(s, name, to, cs_fmt(s, "%s a", cs_name(s, from)),
              cs_fmt(s, "return __builtin_convertvector(a, %s);", cs_name(s, to)), "$a");
}

/* float -> int by clamping in the integer type as wide as the float; NULL when the target does not
 * fit that. */
static const char *saturate_vec(cs_state *s, cs_type from, cs_type to) {
  unsigned fb = zn_dtype_bytes((zn_dtype)from.dtype), tb = zn_dtype_bytes((zn_dtype)to.dtype);
  bool sign = zn_is_signed((zn_dtype)to.dtype);
  if (to.dtype == ZN_IDX || tb > fb || (tb == fb && !sign)) return NULL;
  const char *m = cs_name(s, mask_type(from)), *f = cs_name(s, from), *suffix = fb == 4 ? "f" : "";
  unsigned bits = tb * 8 - (sign ? 1 : 0);
  const char *lo = sign ? cs_fmt(s, "-0x1p%u%s", bits, suffix) : cs_fmt(s, "0.0%s", suffix);
  const char *min = sign ? cs_fmt(s, "INT%u_MIN", tb * 8) : "0";
  const char *max = cs_fmt(s, sign ? "INT%u_MAX" : "UINT%u_MAX", tb * 8);
  const char *elem = fb == 4 ? "int32_t" : "int64_t";
  return cs_fmt(s,
                "const %s over = (%s)(a >= 0x1p%u%s), under = (%s)(a < %s);\n"
                "  const %s in = (%s)(a == a) & ~(over | under);\n"
                "  const %s r = __builtin_convertvector((%s)((%s)a & in), %s);\n"
                "  return __builtin_convertvector(r | (over & (%s)%s) | (under & (%s)%s), %s);",
                m, m, bits, suffix, m, lo, m, m, m, f, m, m, elem, max, elem, min, cs_name(s, to));
}

static const char *cvt_vec(cs_state *s, zn_kop op, cs_type from, cs_type to, zn_dtype from_dt,
                           zn_dtype to_dt) {
  const char *t = cs_name(s, to);
  bool half_from = from_dt == ZN_F16 || from_dt == ZN_BF16,
       half_to = to_dt == ZN_F16 || to_dt == ZN_BF16;
  if (half_from && to.mask) return cs_fmt(s, "return (%s)((a & 0x7fff) != 0);", t);
  if (from_dt == ZN_BF16 && to_dt == ZN_F32)
    return cs_fmt(s, "return (%s)(__builtin_convertvector(a, %s) << 16);", t, unsigned_name(s, to));
  if (half_from || half_to) return NULL;
  if (to.mask) return cs_fmt(s, "return (%s)(a != (%s){0});", t, cs_name(s, from));
  if (from.mask) { /* of to's width */
    const char *m = cs_name(s, from);
    if (to.dtype == ZN_F32) return cs_fmt(s, "return (%s)(a & 0x3f800000);", t);
    if (to.dtype == ZN_F64) return cs_fmt(s, "return (%s)(a & INT64_C(0x3ff0000000000000));", t);
    return cs_fmt(s, "return (%s)(%s)-a;", t, m);
  }
  if (op == ZN_K_Cvt && zn_is_float(from_dt) && !zn_is_float(to_dt))
    return saturate_vec(s, from, to);
  return cs_fmt(s, "return __builtin_convertvector(a, %s);", t);
}

const char *cs_vec_cvt(cs_state *s, zn_kop op, cs_type from, cs_type to, zn_dtype from_dt,
                       zn_dtype to_dt) {
  const char *name = cs_fmt(s, "zn_%s_%s_%sx%u", zn_kops[op].text,
                            from.mask ? cs_tag(s, from) : zn_dtypes[from_dt].name,
                            to.mask ? cs_tag(s, to) : zn_dtypes[to_dt].name, to.lanes);
  if (!cs_once(s, name)) return name;
  const char *vec = cs_is_pow2(to.lanes) ? cvt_vec(s, op, from, to, from_dt, to_dt) : NULL;
  const char *a = from.mask ? "($a & 1)" : "$a";
  const char *lane = cs_scalar_cvt(s, op, from.mask ? ZN_U8 : from_dt, to_dt, a);
  if (to.mask) lane = cs_fmt(s, "-%s", lane);
  return emit(s, name, to, cs_fmt(s, "%s a", cs_name(s, from)), vec, lane);
}

const char *cs_vec_bitcast(cs_state *s, cs_type from, cs_type to) {
  const char *name = cs_fmt(s, "zn_bitcast_%s_%sx%u", cs_tag(s, from), cs_tag(s, to), to.lanes);
  if (!cs_once(s, name)) return name;
  return emit(s, name, to, cs_fmt(s, "%s a", cs_name(s, from)),
              cs_fmt(s, "return (%s)a;", cs_name(s, to)),
              cs_scalar_bitcast(s, (zn_dtype)from.dtype, (zn_dtype)to.dtype, "$a"));
}

/* ---- making and taking apart ---- */

const char *cs_vec_splat(cs_state *s, cs_type t) {
  const char *name = helper_name(s, "splat", t);
  if (!cs_once(s, name)) return name;
  const char *elem = t.mask ? "int" : cs_elem(s, t);
  return emit(s, name, t, cs_fmt(s, "%s a", elem), NULL, t.mask ? "-(a != 0)" : "a");
}

const char *cs_vec_iota(cs_state *s, cs_type t) {
  const char *name = helper_name(s, "iota", t);
  if (!cs_once(s, name)) return name;
  return emit(s, name, t, "void", NULL, "$#");
}

const char *cs_vec_insert(cs_state *s, cs_type t) {
  const char *name = helper_name(s, "insert", t), *n = cs_name(s, t);
  if (!cs_once(s, name)) return name;
  const char *at = cs_is_pow2(t.lanes) ? "ZN_LANE(a, k)" : "a.v[k]";
  zn_text_printf(&s->helpers, "%s %s %s(%s a, int k, %s b) { %s = %s; return a; }\n",
                 s->dia->helper_qual, n, name, n, t.mask ? "int" : cs_elem(s, t), at,
                 t.mask ? cs_fmt(s, "(%s)-(b != 0)", cs_elem(s, t)) : "b");
  return name;
}

static const char *lane_of(cs_state *s, cs_type t, char which, uint32_t lane) {
  return cs_fmt(s, cs_is_pow2(t.lanes) ? "ZN_LANE(%c, %u)" : "%c.v[%u]", which, lane);
}

const char *cs_vec_shuffle(cs_state *s, cs_type from, cs_type to, const uint32_t *mask) {
  zn_text key;
  zn_text_init(&key, &s->arena);
  zn_text_printf(&key, "zn_shuffle_%sx%u", cs_tag(s, from), from.lanes);
  for (unsigned i = 0; i < to.lanes; i++) zn_text_printf(&key, "_%u", mask[i]);
  const char *name = key.len < 80 ? key.s : NULL;
  if (!name) { /* long masks get a number, looked up by the full mask */
    uint64_t h = 1469598103934665603u;
    for (const char *p = key.s; *p; p++) h = (h ^ (unsigned char)*p) * 1099511628211u;
    name =
        cs_fmt(s, "zn_shuffle_%sx%u_%016llx", cs_tag(s, from), from.lanes, (unsigned long long)h);
  }
  if (!cs_once(s, name)) return name;
  const char *f = cs_name(s, from), *t = cs_name(s, to);
  zn_text *h = &s->helpers;
  zn_text_printf(h, "%s %s %s(%s a, %s b) {\n", s->dia->helper_qual, t, name, f, f);
  bool vec = cs_is_pow2(from.lanes) && cs_is_pow2(to.lanes) && to.lanes > 1;
  if (vec) {
    zn_text_puts(h, "#if ZN_VEC && ZN_SHUFFLE\n  return __builtin_shufflevector(a, b");
    for (unsigned i = 0; i < to.lanes; i++) zn_text_printf(h, ", %u", mask[i]);
    zn_text_puts(h, ");\n#else\n");
  }
  zn_text_printf(h, "  %s r;\n", t);
  for (unsigned i = 0; i < to.lanes; i++) {
    bool second = mask[i] >= from.lanes;
    const char *src = lane_of(s, from, second ? 'b' : 'a', second ? mask[i] - from.lanes : mask[i]);
    zn_text_printf(h, "  %s = %s;\n", to.lanes == 1 ? "r" : lane_of(s, to, 'r', i), src);
  }
  zn_text_puts(h, "  (void)a;\n  (void)b;\n  return r;\n");
  zn_text_puts(h, vec ? "#endif\n}\n" : "}\n");
  return name;
}

static zn_kop reduce_op(zn_kop op) {
  switch ((int)op) {
  case ZN_K_ReduceAdd:
    return ZN_K_Add;
  case ZN_K_ReduceMul:
    return ZN_K_Mul;
  case ZN_K_ReduceMin:
    return ZN_K_Min;
  default:
    return ZN_K_Max;
  }
}

const char *cs_vec_reduce(cs_state *s, zn_kop op, cs_type t) {
  const char *name = helper_name(s, zn_kops[op].text, t);
  if (!cs_once(s, name)) return name;
  zn_kop each = reduce_op(op);
  zn_text body;
  zn_text_init(&body, &s->arena);
  const char *x = "a";
  for (unsigned n = t.lanes / 2; n > 1; n /= 2) {
    cs_type wide = cs_vector((zn_dtype)t.dtype, n * 2, 0),
            half = cs_vector((zn_dtype)t.dtype, n, 0);
    uint32_t *pick = ZN_ARRAY(&s->arena, uint32_t, n * 2);
    for (unsigned i = 0; i < n * 2; i++) pick[i] = i;
    const char *lo = cs_vec_shuffle(s, wide, half, pick),
               *hi = cs_vec_shuffle(s, wide, half, pick + n);
    const char *add = cs_vec_bin(s, each, half);
    zn_text_printf(&body, "  const %s r%u = %s(%s(%s, %s), %s(%s, %s));\n", cs_name(s, half), n,
                   add, lo, x, x, hi, x, x);
    x = cs_fmt(s, "r%u", n);
  }
  const char *a = cs_fmt(s, "ZN_LANE(%s, 0)", x), *b = cs_fmt(s, "ZN_LANE(%s, 1)", x);
  const char *last = t.lanes == 1 ? "a" : cs_scalar_bin(s, each, (zn_dtype)t.dtype, a, b);
  zn_text_printf(&s->helpers, "%s %s %s(%s a) {\n%s  return %s;\n}\n", s->dia->helper_qual,
                 cs_elem(s, t), name, cs_name(s, t), body.s ? body.s : "", last);
  return name;
}

/* ---- memory ---- */

static cs_type memory_type(cs_type t) { return t.mask ? cs_vector(ZN_U8, t.lanes, 0) : t; }

/* Typedef through which a vector is read and written in place: any alignment (or a full one), any
 * aliasing. */
static const char *access_type(cs_state *s, cs_type t, bool aligned) {
  const char *name = cs_fmt(s, "zn_%sx%u_%s", cs_tag(s, t), t.lanes, aligned ? "al" : "un");
  const char *elem = cs_elem(s, t);
  if (cs_is_pow2(t.lanes) && cs_once(s, name)) {
    cs_name(s, t);
    zn_text_printf(&s->helpers, "ZN_VECTOR_%s(%s, %u, %s);\n", aligned ? "AL" : "UN", elem, t.lanes,
                   name);
  }
  return name;
}

/* SIMT: to 16 bytes, the widest access of a thread. */
static bool full_alignment(const cs_state *s, cs_type t, int64_t align) {
  int64_t bytes = (int64_t)zn_dtype_bytes((zn_dtype)t.dtype) * t.lanes;
  if (s->dia->simt && bytes > 16) bytes = 16;
  return t.dtype != ZN_IDX && !t.mask && align >= bytes;
}

/* The suffix of the ZN_LD and ZN_ST macros. */
static const char *mem_tag(cs_state *s, cs_type t) {
  return t.dtype == ZN_BOOL ? "bool" : cs_tag(s, t);
}

const char *cs_vec_load(cs_state *s, cs_type t, int64_t align) {
  cs_type m = memory_type(t);
  bool al = full_alignment(s, t, align);
  const char *name = helper_name(s, al ? "loada" : "load", t);
  if (!cs_once(s, name)) return name;
  if (s->dia->simt && al && !t.mask) { /* vector types are as aligned as an access may be wide */
    const char *n = cs_name(s, t);
    zn_text_printf(&s->helpers, "%s %s %s(const unsigned char *p, zi i) { return *(const %s *)(p + i * (zi)sizeof(%s)); }\n",
                   s->dia->helper_qual, n, name, n, cs_elem(s, m));
    return name;
  }
  const char *vec = NULL, *lane = cs_fmt(s, "ZN_LD(%s, p, i + $#)", mem_tag(s, t));
  if (cs_is_pow2(t.lanes)) {
    const char *acc = access_type(s, m, al);
    const char *at =
        cs_fmt(s, "*(const %s *)(const void *)(p + i * (zi)sizeof(%s))", acc, cs_elem(s, m));
    vec = t.mask ? cs_fmt(s, "return (%s)(%s != 0);", cs_name(s, t), at)
                 : cs_fmt(s, "return %s;", at);
  }
  if (t.mask) lane = cs_fmt(s, "-(%s != 0)", lane);
  return emit(s, name, t, "const unsigned char *p, zi i", vec, lane);
}

const char *cs_vec_store(cs_state *s, cs_type t, int64_t align) {
  cs_type m = memory_type(t);
  bool al = full_alignment(s, t, align);
  const char *name = helper_name(s, al ? "storea" : "store", t), *n = cs_name(s, t);
  if (!cs_once(s, name)) return name;
  zn_text *h = &s->helpers;
  if (s->dia->simt && al) {
    zn_text_printf(h, "%s void %s(unsigned char *p, zi i, %s a) { *(%s *)(p + i * (zi)sizeof(%s)) = a; }\n",
                   s->dia->helper_qual, name, n, n, cs_elem(s, m));
    return name;
  }
  bool vec = cs_is_pow2(t.lanes);
  const char *acc = vec ? access_type(s, m, al) : "";
  zn_text_printf(h, "%s void %s(unsigned char *p, zi i, %s a) {\n", s->dia->helper_qual, name, n);
  if (vec)
    zn_text_printf(h, "#if ZN_VEC\n  *(%s *)(void *)(p + i * (zi)sizeof(%s)) = %s;\n#else\n", acc,
                   cs_elem(s, m), t.mask ? cs_fmt(s, "(%s)-a", cs_name(s, m)) : "a");
  zn_text_printf(h, "  int k;\n  for (k = 0; k < %u; k++) ZN_ST(%s, p, i + k, %s);\n", t.lanes,
                 mem_tag(s, t), t.mask ? "(uint8_t)(a.v[k] & 1)" : "a.v[k]");
  zn_text_puts(h, vec ? "#endif\n}\n" : "}\n");
  return name;
}

const char *cs_vec_gather(cs_state *s, cs_type t, cs_type index) {
  const char *name = cs_fmt(s, "zn_gather_%sx%u", cs_tag(s, t), t.lanes);
  if (!cs_once(s, name)) return name;
  const char *lane = cs_fmt(s, "ZN_LD(%s, p, $i)", mem_tag(s, t));
  if (t.mask) lane = cs_fmt(s, "-(%s != 0)", lane);
  return emit(s, name, t, cs_fmt(s, "const unsigned char *p, %s i", cs_name(s, index)), NULL, lane);
}

const char *cs_vec_scatter(cs_state *s, cs_type t, cs_type index) {
  const char *name = cs_fmt(s, "zn_scatter_%sx%u", cs_tag(s, t), t.lanes);
  if (!cs_once(s, name)) return name;
  const char *in = cs_name(s, index), *n = cs_name(s, t);
  zn_text_printf(&s->helpers, "%s void %s(unsigned char *p, %s i, %s a) {\n", s->dia->helper_qual,
                 name, in, n);
  for (unsigned k = 0; k < t.lanes; k++) {
    const char *v = lane_of(s, t, 'a', k);
    zn_text_printf(&s->helpers, "  ZN_ST(%s, p, %s, %s);\n", mem_tag(s, t),
                   lane_of(s, index, 'i', k), t.mask ? cs_fmt(s, "(uint8_t)(%s & 1)", v) : v);
  }
  zn_text_puts(&s->helpers, "}\n");
  return name;
}

const char *cs_vec_mma(cs_state *s, zn_mma_format format) {
  static const struct { const char *name, *shape, *a, *b; } forms[ZN_MMA_FORMATS] = {{"zn_mma_f16", "m16n8k16", "f16", "f16"},
      {"zn_mma_bf16", "m16n8k16", "bf16", "bf16"}, {"zn_mma_tf32", "m16n8k8", "tf32", "tf32"},
      {"zn_mma_s8", "m16n8k32", "s8", "s8"}, {"zn_mma_u8s8", "m16n8k32", "u8", "s8"}};
  const bool ints = zn_mma_sum(format) == ZN_I32;
  const char *name = forms[format].name, *sum = ints ? "s32" : "f32", *reg = ints ? "r" : "f";
  const char *acc = cs_name(s, cs_vector(zn_mma_sum(format), 4, 0)), *a = cs_name(s, cs_vector(ZN_U32, 4, 0));
  const char *b = cs_name(s, cs_vector(ZN_U32, 2, 0));
  if (!cs_once(s, name)) return name;
  zn_text_printf(&s->helpers,
                 "%s %s %s(%s a, %s b, %s c) {\n  %s d;\n"
                 "  asm(\"mma.sync.aligned.%s.row.col.%s.%s.%s.%s {%%0, %%1, %%2, %%3}, {%%4, %%5, %%6, %%7}, "
                 "{%%8, %%9}, {%%10, %%11, %%12, %%13};\"\n",
                 s->dia->helper_qual, acc, name, a, b, acc, acc, forms[format].shape, sum, forms[format].a, forms[format].b, sum);
  zn_text_printf(&s->helpers,
                 "      : \"=%s\"(d.v[0]), \"=%s\"(d.v[1]), \"=%s\"(d.v[2]), \"=%s\"(d.v[3])\n"
                 "      : \"r\"(a.v[0]), \"r\"(a.v[1]), \"r\"(a.v[2]), \"r\"(a.v[3]), \"r\"(b.v[0]), \"r\"(b.v[1]),\n"
                 "        \"%s\"(c.v[0]), \"%s\"(c.v[1]), \"%s\"(c.v[2]), \"%s\"(c.v[3]));\n  return d;\n}\n",
                 reg, reg, reg, reg, reg, reg, reg, reg);
  return name;
}

static void put_sums(zn_text *h, zn_dtype sum, unsigned lanes) {
  for (unsigned i = 0; i < lanes; i++) zn_text_printf(h, "%s\"+%s\"(c.v[%u])", i ? ", " : "", sum == ZN_I32 ? "r" : "f", i);
}

const char *cs_vec_groupwait(cs_state *s, zn_dtype sum, unsigned lanes) {
  const char *type = cs_name(s, cs_vector(sum, lanes, 0));
  const char *name = zn_arena_printf(&s->arena, "zn_groupwait_%s%u", sum == ZN_I32 ? "i" : "", lanes);
  if (!cs_once(s, name)) return name;
  zn_text_printf(&s->helpers, "%s %s %s(%s c) {\n", s->dia->helper_qual, type, name, type);
  zn_text_puts(&s->helpers, "  asm volatile(\"wgmma.wait_group.sync.aligned 0;\" : ");
  put_sums(&s->helpers, sum, lanes);
  zn_text_puts(&s->helpers, " :: \"memory\");\n  return c;\n}\n");
  return name;
}

/* Four steps of 32 bytes along the depth, which the swizzle lets advance as they are. The descriptor of a tile: its address in
 * shared memory, 1024 bytes from eight rows to the next eight, pieces of 16 bytes exchanged within 128. */
const char *cs_vec_groupmma(cs_state *s, unsigned lanes, zn_mma_format format, unsigned under_way) {
  static const char *const forms[] = {"k16.f32.f16.f16", "k16.f32.bf16.bf16", "", "k32.s32.s8.s8", "k32.s32.u8.s8"};
  const zn_dtype sum = zn_mma_sum(format);
  const char *type = cs_name(s, cs_vector(sum, lanes, 0)), *signs = sum == ZN_I32 ? "" : ", 1, 1, 0, 0"; /* and orders */
  const char *name = zn_arena_printf(&s->arena, "zn_groupmma_%u_%u_%u", (unsigned)format, lanes, under_way);
  zn_text *h = &s->helpers;
  if (!cs_once(s, name)) return name;
  if (cs_once(s, "zn_tile_place"))
    zn_text_printf(h, "%s uint64_t zn_tile_place(const unsigned char *p) {\n"
                   "  return ((uint64_t)((unsigned)__cvta_generic_to_shared(p) & 0x3ffffu) >> 4) | (UINT64_C(1) << 16) |\n"
                   "         (UINT64_C(64) << 32) | (UINT64_C(1) << 62);\n}\n", s->dia->helper_qual);
  zn_text_printf(h, "%s %s %s(const unsigned char *a, const unsigned char *b, %s c) {\n", s->dia->helper_qual, type, name, type);
  zn_text_printf(h, "  asm volatile(\"{\\n.reg .pred p;\\n.reg .b64 x, y;\\nsetp.ne.b32 p, %%%u, 0;\\n\"\n", lanes + 2);
  zn_text_printf(h, "      \"mov.b64 x, %%%u;\\nmov.b64 y, %%%u;\\nwgmma.fence.sync.aligned;\\n\"\n", lanes, lanes + 1);
  for (unsigned step = 0; step < 4; step++) {
    zn_text_printf(h, "      \"wgmma.mma_async.sync.aligned.m64n%u%s {", 2 * lanes, forms[format]);
    for (unsigned i = 0; i < lanes; i++) zn_text_printf(h, "%s%%%u", i ? ", " : "", i);
    zn_text_printf(h, "}, x, y, p%s;\\n\"\n", signs);
    if (step < 3) zn_text_puts(h, "      \"add.s64 x, x, 2;\\nadd.s64 y, y, 2;\\n\"\n");
  }
  zn_text_printf(h, "      \"wgmma.commit_group.sync.aligned;\\nwgmma.wait_group.sync.aligned %u;\\n}\" : ", under_way);
  put_sums(h, sum, lanes);
  zn_text_puts(h, "\n      : \"l\"(zn_tile_place(a)), \"l\"(zn_tile_place(b)), \"r\"(1) : \"memory\");\n  return c;\n}\n");
  return name;
}

const char *cs_vec_ldmatrix(cs_state *s, unsigned squares, bool transposed) {
  static const char *const outs[] = {"%0", "%0, %1", "%0, %1, %2, %3"};
  const char *name = zn_arena_printf(&s->arena, "zn_ldmatrix%u%s", squares, transposed ? "t" : "");
  const char *type = cs_name(s, cs_vector(ZN_U32, squares, 0)), *pick = outs[squares / 2];
  if (!cs_once(s, name)) return name;
  zn_text_printf(&s->helpers, "%s %s %s(const unsigned char *p, zi at) {\n  %s d;\n", s->dia->helper_qual, type, name, type);
  zn_text_printf(&s->helpers, "  asm volatile(\"ldmatrix.sync.aligned.m8n8.x%u%s.shared.b16 {%s}, [%%%u];\" : ", squares,
                 transposed ? ".trans" : "", pick, squares);
  for (unsigned i = 0; i < squares; i++)
    zn_text_printf(&s->helpers, squares > 1 ? "%s\"=r\"(d.v[%u])" : "%s\"=r\"(d)", i ? ", " : "", i);
  zn_text_puts(&s->helpers, " : \"r\"((unsigned)__cvta_generic_to_shared(p + at * 4)) : \"memory\");\n  return d;\n}\n");
  return name;
}
