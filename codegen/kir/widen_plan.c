/* Classification for widening: which values of a marked loop's body are the same in all replicas,
 * which differ by a constant stride, and which differ freely; found by iterating over the body
 * until nothing changes, because a variable may be set to a varying value after it was read in an
 * inner loop. Also the arithmetic on trip counts. */
#include "codegen/kir/widen.h"

enum { MAX_STRIDE = 1 << 30 };

static bool inside(const zn_wplan *p, zn_kref r) { return r >= p->loop && r < p->end; }
static bool is_varying(const zn_wplan *p, zn_kref r) { return inside(p, r) && p->varying[r]; }
static int64_t stride_of(const zn_wplan *p, zn_kref r) { return inside(p, r) ? p->stride[r] : 0; }
static bool is_uniform(const zn_wplan *p, zn_kref r) {
  return !is_varying(p, r) && stride_of(p, r) == 0;
}

static unsigned elem_bytes(const zn_wplan *p, unsigned dtype) {
  unsigned n = zn_dtype_bytes((zn_dtype)dtype);
  return n ? n : p->caps->idx_bytes;
}

static void make_varying(zn_wplan *p, zn_kref r) {
  if (p->varying[r]) return;
  p->varying[r] = 1;
  p->stride[r] = 0;
  p->changed = true;
}

static void make_divergent(zn_wplan *p, uint32_t i) {
  if (p->divergent[i]) return;
  p->divergent[i] = 1;
  p->changed = true;
}

bool zn_wplan_pointer(const zn_wplan *p, const zn_kinst *in, int64_t *out_stride) {
  int64_t bytes = elem_bytes(p, in->dtype), s = stride_of(p, in->a);
  if (is_varying(p, in->a) || s % bytes != 0) return false;
  *out_stride = s / bytes;
  return true;
}

bool zn_wplan_address(const zn_wplan *p, const zn_kinst *in, int64_t *out_stride) {
  if (is_varying(p, in->b) || !zn_wplan_pointer(p, in, out_stride)) return false;
  *out_stride += stride_of(p, in->b);
  return true;
}

/* Conversions that keep base + lane * stride exact (idx never overflows; narrowing is modular). */
static bool cvt_is_linear(const zn_wplan *p, const zn_kinst *in) {
  zn_dtype from = (zn_dtype)p->f->insts[in->a].dtype, to = (zn_dtype)in->dtype;
  if (!zn_is_int(from) || !zn_is_int(to)) return false;
  if (from == ZN_IDX) return true;
  return elem_bytes(p, from) >= elem_bytes(p, to);
}

static bool linear_stride(const zn_wplan *p, const zn_kinst *in, int64_t *out) {
  int64_t k, sa = stride_of(p, in->a);
  if (in->op == ZN_K_PtrAdd) {
    *out = sa + stride_of(p, in->b);
    return true;
  }
  if (in->lanes != 1 || !zn_is_int((zn_dtype)in->dtype)) return false;
  switch (in->op) {
  case ZN_K_Add: *out = sa + stride_of(p, in->b); return true;
  case ZN_K_Sub: *out = sa - stride_of(p, in->b); return true;
  case ZN_K_Neg: *out = -sa; return true;
  case ZN_K_Mul:
    if (zn_kf_const_int(p->f, in->b, &k) && k > -MAX_STRIDE && k < MAX_STRIDE)
      *out = sa * k;
    else if (zn_kf_const_int(p->f, in->a, &k) && k > -MAX_STRIDE && k < MAX_STRIDE)
      *out = stride_of(p, in->b) * k;
    else
      return false;
    return true;
  case ZN_K_Shl:
    if (!zn_kf_const_int(p->f, in->b, &k) || k < 0 || k > 30) return false;
    *out = sa * ((int64_t)1 << k);
    return true;
  case ZN_K_Cvt: *out = sa; return cvt_is_linear(p, in);
  default: return false;
  }
}

static void classify_value(zn_wplan *p, uint32_t i) {
  const zn_kinst *in = &p->f->insts[i];
  bool uniform = true;
  int64_t s;
  for (unsigned k = 0; k < 3; k++) {
    if (!zn_kinst_has(in, k)) continue;
    if (is_varying(p, zn_kinst_ref(in, k))) {
      make_varying(p, i);
      return;
    }
    uniform = uniform && is_uniform(p, zn_kinst_ref(in, k));
  }
  if (uniform || p->varying[i]) return;
  if (!linear_stride(p, in, &s) || s <= -MAX_STRIDE || s >= MAX_STRIDE)
    make_varying(p, i);
  else if (p->stride[i] != s) {
    p->stride[i] = s;
    p->changed = true;
  }
}

typedef struct region {
  uint32_t open;
  bool is_loop;
  bool diverges; /* this region or one around it */
} region;

static void classify_break(zn_wplan *p, const zn_kinst *in, const region *st, uint32_t depth) {
  uint32_t d = depth;
  while (d > 0 && !st[d - 1].is_loop) d--;
  if (d == 0) { /* leaves the marked loop itself */
    p->ok = false;
    return;
  }
  bool outer = d > 1 && st[d - 2].diverges;
  if (!is_uniform(p, in->a) || (st[depth - 1].diverges && !outer))
    make_divergent(p, st[d - 1].open);
}

static void classify_memory(zn_wplan *p, uint32_t i, bool diverges) {
  const zn_kinst *in = &p->f->insts[i];
  int64_t s = 0;
  if (p->vector && (diverges || !zn_wplan_pointer(p, in, &s))) p->ok = false;
  bool linear = zn_wplan_address(p, in, &s);
  bool uniform = is_uniform(p, in->a) && is_uniform(p, in->b);
  if (linear && s == 0 && p->vector) uniform = true;
  if (in->op == ZN_K_Load) {
    if (!uniform) make_varying(p, i);
  } else {
    if (uniform && !is_uniform(p, in->c)) p->ok = false;
    if (!uniform) make_varying(p, i);
  }
}

/* A statement or value; regions are kept by the caller. */
static void classify(zn_wplan *p, uint32_t i, bool diverges) {
  const zn_kinst *in = &p->f->insts[i];
  switch (in->op) {
  case ZN_K_Nop:
  case ZN_K_Const:
  case ZN_K_Param:
  case ZN_K_ConstAddr:
  case ZN_K_Features:
  case ZN_K_Prefetch: break; /* one replica's will do */
  case ZN_K_Alloc:
  case ZN_K_HostAlloc:
  case ZN_K_HostImage:
  case ZN_K_Flow:
  case ZN_K_TileDot:
  case ZN_K_Call:
  case ZN_K_Ret: p->ok = false; break;
  case ZN_K_Load:
  case ZN_K_Store: classify_memory(p, i, diverges); break;
  case ZN_K_Var:
    if (!is_uniform(p, in->a)) make_varying(p, i);
    break;
  case ZN_K_Get:
    if (is_varying(p, in->a)) make_varying(p, i);
    break;
  case ZN_K_Set:
    if (!inside(p, in->a))
      p->ok = false;
    else if (diverges || !is_uniform(p, in->b))
      make_varying(p, in->a);
    break;
  default: classify_value(p, i);
  }
}

static void scan(zn_wplan *p, region *st) {
  uint32_t depth = 0;
  for (uint32_t i = p->loop + 1; i < p->end && p->ok; i++) {
    const zn_kinst *in = &p->f->insts[i];
    bool outer = depth > 0 && st[depth - 1].diverges;
    switch (in->op) {
    case ZN_K_For:
      if (!is_uniform(p, in->a) || !is_uniform(p, in->b)) make_divergent(p, i);
      if (p->divergent[i] || outer) make_varying(p, i);
      st[depth++] = (region){i, true, outer || p->divergent[i]};
      break;
    case ZN_K_Loop: st[depth++] = (region){i, true, outer || p->divergent[i]}; break;
    case ZN_K_If:
      if (!is_uniform(p, in->a)) make_divergent(p, i);
      st[depth++] = (region){i, false, outer || p->divergent[i]};
      break;
    case ZN_K_Else: break;
    case ZN_K_End: depth--; break;
    case ZN_K_Break: classify_break(p, in, st, depth); break;
    default: classify(p, i, outer);
    }
    if (p->vector && (p->divergent[i] || outer) && (in->op == ZN_K_For || in->op == ZN_K_Loop))
      p->ok = false;
  }
}

static void want_vector(zn_wplan *p, zn_kref r) {
  if (p->f->insts[r].dtype == ZN_PTR) p->ok = false;
  if (!is_varying(p, r)) p->splat[r] = 1;
}

/* Which operands a vector body needs as vectors; refuses what has no vector form. */
static void check_vector(zn_wplan *p, uint32_t i) {
  const zn_kinst *in = &p->f->insts[i];
  int64_t s;
  if (in->lanes > 1 || zn_kops[in->op].cls == 'V') {
    p->ok = false;
    return;
  }
  if (in->op == ZN_K_If && p->divergent[i]) want_vector(p, in->a);
  if (in->op == ZN_K_Set && inside(p, in->a) && p->varying[in->a]) want_vector(p, in->b);
  if (!p->varying[i]) return;
  if (in->dtype == ZN_PTR) p->ok = false;
  p->num_varying++;
  unsigned bytes = zn_dtype_bytes((zn_dtype)in->dtype);
  if (in->dtype != ZN_BOOL && bytes > p->widest) p->widest = bytes;
  if (in->op == ZN_K_Var && in->dtype != ZN_BOOL && bytes > p->widest_var) p->widest_var = bytes;
  switch (in->op) {
  case ZN_K_Load:
  case ZN_K_Store:
    if (!zn_wplan_address(p, in, &s)) want_vector(p, in->b);
    if (in->op == ZN_K_Store) want_vector(p, in->c);
    break;
  case ZN_K_Get: break;
  case ZN_K_Select:
    if (!is_uniform(p, in->a)) want_vector(p, in->a);
    want_vector(p, in->b);
    want_vector(p, in->c);
    break;
  default:
    for (unsigned k = 0; k < 3; k++)
      if (zn_kinst_has(in, k)) want_vector(p, zn_kinst_ref(in, k));
  }
}

void zn_wplan_make(zn_wplan *p, const zn_kfunc *f, const uint32_t *match, uint32_t loop,
                   bool vector, int64_t stride, const zn_caps *caps, zn_arena *a) {
  *p = (zn_wplan){.f = f, .match = match, .caps = caps, .loop = loop, .end = match[loop]};
  p->vector = vector;
  p->ok = true;
  p->widest = 1;
  p->varying = ZN_ARRAY(a, uint8_t, f->num_insts);
  p->divergent = ZN_ARRAY(a, uint8_t, f->num_insts);
  p->splat = ZN_ARRAY(a, uint8_t, f->num_insts);
  p->stride = ZN_ARRAY(a, int64_t, f->num_insts);
  p->stride[loop] = stride;
  region *st = ZN_ARRAY(a, region, p->end - loop + 1);
  if (stride >= MAX_STRIDE) p->ok = false;
  do {
    p->changed = false;
    scan(p, st);
  } while (p->changed && p->ok);
  for (uint32_t i = loop + 1; i < p->end && p->ok && p->vector; i++) check_vector(p, i);
  for (uint32_t i = loop + 1; i < p->end && !p->vector; i++)
    p->num_varying += p->varying[i] || p->stride[i] != 0;
}

/* ---- trip counts ---- */

static int64_t gcd(int64_t x, int64_t y) {
  if (x < 0) x = -x;
  if (y < 0) y = -y;
  while (y) {
    int64_t t = x % y;
    x = y;
    y = t;
  }
  return x;
}

/* A known divisor of r; 0 for the constant zero. */
static int64_t divisor(const zn_kfunc *f, zn_kref r, int depth) {
  const zn_kinst *in = &f->insts[r];
  int64_t k, x, y;
  if (zn_kf_const_int(f, r, &k)) return k < 0 ? (k == INT64_MIN ? 1 : -k) : k;
  if (depth == 0) return 1;
  switch (in->op) {
  case ZN_K_Add:
  case ZN_K_Sub:
  case ZN_K_Min:
  case ZN_K_Max: return gcd(divisor(f, in->a, depth - 1), divisor(f, in->b, depth - 1));
  case ZN_K_For: return gcd(divisor(f, in->a, depth - 1), in->imm.i);
  case ZN_K_Mul:
    x = divisor(f, in->a, depth - 1);
    y = divisor(f, in->b, depth - 1);
    return x && y > INT32_MAX / x ? (x > y ? x : y) : x * y;
  default: return 1;
  }
}

/* r = base + constant */
static zn_kref split(const zn_kfunc *f, zn_kref r, int64_t *out_k) {
  int64_t k;
  *out_k = 0;
  for (int depth = 0; depth < 8; depth++) {
    const zn_kinst *in = &f->insts[r];
    if (in->op == ZN_K_Add && zn_kf_const_int(f, in->b, &k))
      *out_k += k, r = in->a;
    else if (in->op == ZN_K_Add && zn_kf_const_int(f, in->a, &k))
      *out_k += k, r = in->b;
    else if (in->op == ZN_K_Sub && zn_kf_const_int(f, in->b, &k))
      *out_k -= k, r = in->a;
    else
      break;
  }
  return r;
}

static bool same(const zn_kfunc *f, zn_kref x, zn_kref y, int depth) {
  if (x == y) return true;
  const zn_kinst *p = &f->insts[x], *q = &f->insts[y];
  int64_t k, l;
  if (zn_kf_const_int(f, x, &k)) return zn_kf_const_int(f, y, &l) && k == l;
  if (depth == 0 || p->op != q->op || p->dtype != q->dtype || p->lanes != q->lanes) return false;
  if (p->op == ZN_K_Param) return p->imm.i == q->imm.i;
  if (zn_kops[p->op].cls != 'A') return false;
  for (unsigned i = 0; i < 3; i++)
    if (zn_kinst_has(p, i) && !same(f, zn_kinst_ref(p, i), zn_kinst_ref(q, i), depth - 1))
      return false;
  return true;
}

bool zn_wplan_trips(const zn_kfunc *f, uint32_t i, int64_t *out_trips, int64_t *out_multiple) {
  const zn_kinst *in = &f->insts[i];
  int64_t lo, hi, step = in->imm.i;
  *out_multiple = 1;
  if (!(zn_kf_const_int(f, in->a, &lo) && zn_kf_const_int(f, in->b, &hi))) {
    zn_kref x = split(f, in->a, &lo), y = split(f, in->b, &hi);
    if (!same(f, x, y, 6)) {
      int64_t d = gcd(divisor(f, in->a, 6), divisor(f, in->b, 6));
      if (d % step == 0) *out_multiple = d / step;
      return false;
    }
  }
  *out_trips = hi <= lo ? 0 : (hi - lo - 1) / step + 1;
  *out_multiple = *out_trips;
  return true;
}
