/* Expansion: mathematical functions, and what the target lacks (fma, rounding, f16 conversion),
 * become arithmetic that every printer has. Works on scalars and vectors alike; runs after
 * widening. */
#include "codegen/kir/math.h"

/* Does instruction i need arithmetic in its place? */
static bool wanted(const zn_kfunc *f, const zn_kinst *in, const zn_caps *caps) {
  switch (in->op) {
  case ZN_K_Rem: return zn_is_float((zn_dtype)in->dtype);
  case ZN_K_Dot4: return !zn_dot4_native(caps, in->lanes, (unsigned)in->imm.i);
  case ZN_K_Pair4: return !zn_pair4_native(caps, in->lanes, (unsigned)in->imm.i);
  case ZN_K_Dot2: return !zn_dot2_native(caps, in->lanes);
  case ZN_K_Dot2Bf16: return !zn_dot2_bf16_native(caps, in->lanes);
  case ZN_K_Fma: return !caps->fma || (in->dtype == ZN_F64 && !caps->f64_native);
  case ZN_K_Floor:
  case ZN_K_Ceil:
  case ZN_K_Trunc:
  case ZN_K_Rint: return !caps->round_native;
  case ZN_K_Cvt:
  case ZN_K_CvtFast: {
    zn_dtype from = zn_kf_dtype(f, in->a);
    return from == ZN_F16 || from == ZN_BF16 || in->dtype == ZN_F16 || in->dtype == ZN_BF16;
  }
  default: return zn_kops[in->op].cls == 'M';
  }
}

/* Per instruction: how many operands name it, and how many of those are sums with a constant of magnitude 1 or more. */
typedef struct users {
  uint32_t all, sums;
} users;

static users *count_users(const zn_kfunc *f, zn_arena *a) {
  users *u = ZN_ARRAY(a, users, f->num_insts);
  for (uint32_t i = 1; i < f->num_insts; i++) {
    const zn_kinst *in = &f->insts[i];
    const char *sig = zn_kops[in->op].sig;
    zn_kref r[3] = {in->a, in->b, in->c};
    for (unsigned k = 0; k < 3; k++)
      if (sig[k] != '-') u[r[k]].all++;
    double c;
    if (in->op != ZN_K_Add) continue;
    for (unsigned k = 0; k < 2; k++)
      if (zn_kf_const_float(f, r[1 - k], &c) && (c >= 1 || c <= -1)) u[r[k]].sums++;
  }
  return u;
}

/* 1 + erf(x), 1 + tanh(x): what the sum rounds to depends on the function's absolute error only. */
static R expand_summand(const zn_mx *m, const zn_kinst *in) {
  const zn_kfunc *f = m->b->f;
  R x = in->a;
  double c;
  if (f->insts[x].op == ZN_K_Div && zn_kf_const_float(f, f->insts[x].b, &c) && c > 0x1p-60 && c < 0x1p60)
    x = zn_mx_bink(m, ZN_K_Mul, f->insts[x].a, 1 / c);
  return in->op == ZN_K_Erf ? zn_math_erf_absolute(m, x) : zn_math_tanh_absolute(m, x);
}

static R expand_inst(zn_kb *b, const zn_caps *caps, const zn_kinst *in, users u, uint32_t *pi_const) {
  if (in->op == ZN_K_Cvt || in->op == ZN_K_CvtFast) return zn_expand_cvt(caps, b, in, in->a);
  if (in->op == ZN_K_Fma) {
    R p = zn_kb_bin(b, ZN_K_Mul, in->a, in->b);
    return zn_kb_bin(b, ZN_K_Add, p, in->c);
  }
  if (zn_kop_is_dot(in->op)) return zn_expand_dot(b, in);
  zn_mx m = {.b = b, .caps = caps, .lanes = in->lanes, .pi_const = pi_const};
  m.k = in->dtype == ZN_F32 ? &zn_math_f32 : &zn_math_f64;
  bool summand = in->dtype == ZN_F32 && u.all > 0 && u.all == u.sums;
  if (summand && (in->op == ZN_K_Erf || in->op == ZN_K_Tanh)) return expand_summand(&m, in);
  return zn_math_expand(&m, (zn_kop)in->op, in->a, in->b);
}

/* Expansions of the same function that follow each other, strands, are independent chains of dependent steps. Written one after
 * the other they fill a processor's window with steps that wait; step by step, side by side, they do not. */
enum { STRANDS = 4 };
typedef struct strands {
  zn_kinst like;
  uint32_t count, begin[STRANDS + 1], inst[STRANDS];
} strands;

/* May instruction `in` of the source become the next strand? */
static bool joins(const strands *s, const zn_kfunc *out, const zn_kinst *in, const zn_kref *map) {
  return s->count > 0 && s->count < STRANDS && s->begin[s->count] == out->num_insts && in->op == s->like.op &&
         in->dtype == s->like.dtype && in->lanes == s->like.lanes && map[in->a] < s->begin[0] && map[in->b] < s->begin[0];
}

/* Do the strands consist of the same steps, none of which touches memory or control? */
static bool are_alike(const strands *s, const zn_kfunc *out) {
  const uint32_t len = s->begin[1] - s->begin[0];
  for (uint32_t k = 0; k < s->count; k++)
    if (s->begin[k + 1] - s->begin[k] != len) return false;
  for (uint32_t i = 0; i < len; i++)
    for (uint32_t k = 0; k < s->count; k++) {
      const uint8_t op = out->insts[s->begin[k] + i].op;
      if (op != out->insts[s->begin[0] + i].op || !strchr("CAPXV", zn_kops[op].cls)) return false;
    }
  return true;
}

static zn_kref moved(const strands *s, zn_kref r) {
  const uint32_t len = s->begin[1] - s->begin[0], from = s->begin[0];
  return r < from || r >= s->begin[s->count] ? r : from + (r - from) % len * s->count + (r - from) / len;
}

/* Writes them side by side; map: what instructions of the source became. */
static void interleave(strands *s, zn_kfunc *out, zn_kref *map, zn_arena *a) {
  if (s->count > 1 && are_alike(s, out)) {
    const uint32_t from = s->begin[0], all = s->begin[s->count] - from;
    zn_kinst *old = ZN_ARRAY(a, zn_kinst, all);
    memcpy(old, out->insts + from, all * sizeof *old);
    for (uint32_t i = 0; i < all; i++) {
      zn_kinst in = old[i];
      const char *sig = zn_kops[in.op].sig;
      if (sig[0] != '-') in.a = moved(s, in.a);
      if (sig[1] != '-') in.b = moved(s, in.b);
      if (sig[2] != '-') in.c = moved(s, in.c);
      out->insts[moved(s, from + i)] = in;
    }
    for (uint32_t k = 0; k < s->count; k++) map[s->inst[k]] = moved(s, map[s->inst[k]]);
  }
  s->count = 0;
}

static void expand_func(zn_ctx *c, zn_kmod *m, zn_kfunc *f, const zn_caps *caps,
                        uint32_t *pi_const) {
  zn_kfunc out = *f;
  zn_arena tmp;
  zn_arena_init(&tmp, "expand");
  zn_kref *map = ZN_ARRAY(&tmp, zn_kref, f->num_insts);
  users *use = count_users(f, &tmp);
  zn_kb b = {.ctx = c, .mod = m, .f = &out};
  strands side = {.count = 0};
  out.insts = NULL;
  out.num_insts = out.cap_insts = 0;
  for (uint32_t i = 0; i < f->num_insts; i++) {
    zn_kinst in = f->insts[i];
    bool expand = i > 0 && wanted(f, &in, caps);
    const char *sig = zn_kops[in.op].sig;
    if (!expand || !joins(&side, &out, &in, map)) interleave(&side, &out, map, &tmp);
    if (in.op == ZN_K_Call) {
      for (uint32_t k = 0; k < in.b; k++) out.extra[in.a + k] = map[f->extra[in.a + k]];
      in.c = map[in.c];
    }
    if (sig[0] != '-') in.a = map[in.a];
    if (sig[1] != '-') in.b = map[in.b];
    if (sig[2] != '-' && in.op != ZN_K_Call) in.c = map[in.c];
    if (expand && zn_kops[in.op].cls == 'M' && !caps->simt) {
      if (side.count == 0) side.like = in, side.begin[0] = out.num_insts;
      side.inst[side.count++] = i;
    }
    if (expand) map[i] = expand_inst(&b, caps, &in, use[i], pi_const);
    if (side.count) side.begin[side.count] = out.num_insts;
    if (!map[i]) map[i] = zn_kb_raw(&b, in);
  }
  interleave(&side, &out, map, &tmp);
  if (b.error) ZN_BUG(c, "expanding %s: %s", f->name, b.error);
  *f = out;
  zn_arena_reset(&tmp);
}

zn_status zn_kpass_expand(zn_ctx *c, zn_kmod *m, const zn_caps *caps) {
  uint32_t pi_const = UINT32_MAX;
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    zn_kfunc *f = m->funcs[i];
    bool any = false;
    /* Entries run before anyone has asked what the processor has: nothing beyond its base in them, and no library. */
    zn_caps own = *zn_kfunc_caps(f, caps);
    if (f->is_entry) own.fma = own.round_native = own.f16_convert = false;
    for (uint32_t k = 1; k < f->num_insts && !any; k++) any = wanted(f, &f->insts[k], &own);
    if (any) expand_func(c, m, f, &own, &pi_const);
  }
  return ZN_OK;
}
