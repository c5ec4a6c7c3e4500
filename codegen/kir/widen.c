/* Widening: loops marked VECTOR become vector code, loops marked UNROLL become jammed replicas,
 * each with a tail loop for the remainder. A vector factor above the register width gives several
 * vectors per step. The function is rewritten once per nesting level of marks, outermost first: the
 * marks inside a widened body stay and are met in the next round. What cannot be widened becomes a
 * serial loop, never wrong code. Known remainders are widened again with a smaller factor (7 lanes:
 * 4, 2, 1). */
#include "codegen/kir/widen.h"

#include <assert.h>

/* Replication stops at MAX_INSTS; a vector loop may pass it, since what it would become otherwise is a hundred times slower. */
enum { MAX_INSTS = 6000, MAX_VECTOR_INSTS = 4 * MAX_INSTS, MAX_LANES = 64, MAX_UNROLL = 64 };

typedef struct rewriter {
  zn_kb b;           /* writes the new function */
  const zn_kfunc *f; /* reads the old one */
  const uint32_t *match;
  const zn_caps *caps;
  zn_arena *tmp;
  zn_kref *map;    /* old -> new, outside the loop being widened */
  uint32_t growth; /* instructions added by replication so far */
  bool again;      /* marks are left */
} rewriter;

/* One marked loop under way. */
typedef struct replicas {
  rewriter *w;
  zn_wplan p;
  unsigned n;   /* lanes or replicas */
  zn_kref *rep; /* UNROLL: [(i - loop) * n + u]; VECTOR: [i - loop], the scalar of lane 0 */
  zn_kref *vec; /* VECTOR: [i], the vector */
  zn_kref mask; /* VECTOR: lanes that are active, 0 = all */
} replicas;

static void walk(rewriter *w, uint32_t from, uint32_t to);

/* ---- plain copies ---- */

static zn_kref ref_of(const rewriter *w, const replicas *x, zn_kref r, unsigned u) {
  if (!x || r < x->p.loop || r >= x->p.end) return w->map[r];
  return x->p.vector ? x->rep[r - x->p.loop] : x->rep[(r - x->p.loop) * x->n + u];
}

static zn_kref copy_call(rewriter *w, const replicas *x, zn_kinst in, unsigned u) {
  uint32_t at = w->b.f->num_extra, n = in.b;
  for (uint32_t i = 0; i < n; i++) {
    uint32_t r = ref_of(w, x, w->f->extra[in.a + i], u);
    ZN_PUSH(w->b.mod->arena, w->b.f->extra, w->b.f->num_extra, w->b.f->cap_extra, r);
  }
  in.a = at;
  in.c = in.c ? ref_of(w, x, in.c, u) : 0;
  return zn_kb_raw(&w->b, in);
}

/* Copies instruction i with the operands of replica u. Regions go through the builder, which counts
 * them. */
static zn_kref copy_inst(rewriter *w, const replicas *x, uint32_t i, unsigned u) {
  zn_kinst in = w->f->insts[i];
  if (in.op == ZN_K_Call) return copy_call(w, x, in, u);
  if (zn_kinst_has(&in, 0)) in.a = ref_of(w, x, in.a, u);
  if (zn_kinst_has(&in, 1)) in.b = ref_of(w, x, in.b, u);
  if (zn_kinst_has(&in, 2)) in.c = ref_of(w, x, in.c, u);
  switch (in.op) {
  case ZN_K_For:
    if ((in.c & 255) == ZN_FOR_VECTOR || (in.c & 255) == ZN_FOR_UNROLL) w->again = true;
    return zn_kb_for(&w->b, in.a, in.b, in.imm.i, (zn_for_kind)(in.c & 255), in.c >> 8);
  case ZN_K_If: zn_kb_if(&w->b, in.a); return 0;
  case ZN_K_Else: zn_kb_else(&w->b); return 0;
  case ZN_K_Loop: zn_kb_loop(&w->b); return 0;
  case ZN_K_End: zn_kb_end(&w->b); return 0;
  case ZN_K_Nop: return 0;
  default: return zn_kb_raw(&w->b, in);
  }
}

/* ---- vector bodies ---- */

/* splat(base) + iota * stride */
static zn_kref ramp(replicas *x, zn_kref base, int64_t stride) {
  zn_kb *b = &x->w->b;
  zn_kref v = zn_kb_splat(b, base, x->n);
  if (stride == 0) return v;
  zn_dtype t = (zn_dtype)b->f->insts[base].dtype;
  zn_kref lane = zn_kb_iota(b, t, x->n);
  if (stride != 1) {
    zn_kref s = zn_kb_int(b, t, zn_int_wrap(t == ZN_IDX ? ZN_I64 : t, stride));
    s = zn_kb_splat(b, s, x->n);
    lane = zn_kb_bin(b, ZN_K_Mul, lane, s);
  }
  return zn_kb_bin(b, ZN_K_Add, v, lane);
}

/* Elements base, base + s, ... by whole loads inside their span, and shuffles: 2 <= s <= 4, or s =
 * -1. */
static zn_kref strided_load(replicas *x, zn_dtype t, zn_kref ptr, zn_kref base, int64_t s) {
  zn_kb *b = &x->w->b;
  uint32_t mask[MAX_LANES];
  unsigned n = x->n;
  if (s < 0) {
    zn_kref k = zn_kb_idx(b, 1 - (int64_t)n);
    zn_kref at = zn_kb_bin(b, ZN_K_Add, base, k);
    zn_kref v = zn_kb_load(b, t, n, ptr, at);
    for (unsigned j = 0; j < n; j++) mask[j] = n - 1 - j;
    return zn_kb_shuffle(b, v, v, n, mask);
  }
  int64_t span = s * ((int64_t)n - 1) + 1;
  zn_kref acc = zn_kb_load(b, t, n, ptr, base);
  for (unsigned j = 0; j < n; j++) mask[j] = (uint32_t)(s * j < n ? s * j : 0);
  for (int64_t off = n; off < span; off += n) {
    int64_t from = off + n > span ? span - n : off;
    zn_kref k = zn_kb_idx(b, from);
    zn_kref at = zn_kb_bin(b, ZN_K_Add, base, k);
    zn_kref v = zn_kb_load(b, t, n, ptr, at);
    for (unsigned j = 0; j < n; j++) {
      int64_t e = s * j;
      if (off > n) mask[j] = j;
      if (e >= off && e < off + n) mask[j] = (uint32_t)(n + e - from);
    }
    acc = zn_kb_shuffle(b, acc, v, n, mask);
  }
  return acc;
}

/* The varying index of a gather or scatter, relative to lane 0's pointer. */
static zn_kref varying_index(replicas *x, const zn_kinst *in) {
  zn_kb *b = &x->w->b;
  int64_t s = 0;
  bool ok = zn_wplan_pointer(&x->p, in, &s);
  assert(ok);
  (void)ok;
  if (s == 0) return x->vec[in->b];
  zn_kref zero = zn_kb_idx(b, 0), d = ramp(x, zero, s);
  return zn_kb_bin(b, ZN_K_Add, x->vec[in->b], d);
}

static zn_kref vector_load(replicas *x, uint32_t i) {
  zn_kb *b = &x->w->b;
  const zn_kinst *in = &x->w->f->insts[i];
  zn_dtype t = (zn_dtype)in->dtype;
  zn_kref ptr = ref_of(x->w, x, in->a, 0), at;
  int64_t s;
  if (!zn_wplan_address(&x->p, in, &s)) {
    at = varying_index(x, in);
    return zn_kb_load(b, t, x->n, ptr, at);
  }
  at = ref_of(x->w, x, in->b, 0);
  if (s == 1) return zn_kb_load(b, t, x->n, ptr, at);
  if (s == -1 || (s >= 2 && s <= 4)) return strided_load(x, t, ptr, at, s);
  at = ramp(x, at, s);
  return zn_kb_load(b, t, x->n, ptr, at);
}

static void vector_store(replicas *x, uint32_t i) {
  const zn_kinst *in = &x->w->f->insts[i];
  zn_kref ptr = ref_of(x->w, x, in->a, 0), at;
  int64_t s;
  if (!zn_wplan_address(&x->p, in, &s))
    at = varying_index(x, in);
  else {
    at = ref_of(x->w, x, in->b, 0);
    if (s != 1) at = ramp(x, at, s);
  }
  zn_kb_store(&x->w->b, ptr, at, x->vec[in->c]);
}

static void vector_set(replicas *x, const zn_kinst *in) {
  zn_kb *b = &x->w->b;
  zn_kref var = x->vec[in->a], v = x->vec[in->b];
  if (x->mask) {
    zn_kref old = zn_kb_get(b, var);
    v = zn_kb_select(b, x->mask, v, old);
  }
  zn_kb_set(b, var, v);
}

static zn_kref vector_op(replicas *x, uint32_t i) {
  zn_kinst in = x->w->f->insts[i];
  in.lanes = (uint16_t)x->n;
  if (in.op == ZN_K_Select && !x->vec[in.a])
    in.a = ref_of(x->w, x, in.a, 0);
  else if (zn_kinst_has(&in, 0))
    in.a = x->vec[in.a];
  if (zn_kinst_has(&in, 1)) in.b = x->vec[in.b];
  if (zn_kinst_has(&in, 2)) in.c = x->vec[in.c];
  return zn_kb_raw(&x->w->b, in);
}

static void vector_range(replicas *x, uint32_t from, uint32_t to);

/* A varying If: both arms run, Sets are masked. */
static void vector_if(replicas *x, uint32_t i) {
  zn_kb *b = &x->w->b;
  const zn_kinst *in = &x->w->f->insts[i];
  uint32_t mid = x->p.match[i], end = mid;
  zn_kref outer = x->mask, cond = x->vec[in->a], c = cond;
  if (outer) c = zn_kb_bin(b, ZN_K_And, outer, cond);
  x->mask = c;
  vector_range(x, i + 1, mid);
  if (x->w->f->insts[mid].op == ZN_K_Else) {
    end = x->p.match[mid];
    c = zn_kb_un(b, ZN_K_Not, cond);
    if (outer) c = zn_kb_bin(b, ZN_K_And, outer, c);
    x->mask = c;
    vector_range(x, mid + 1, end);
  }
  x->mask = outer;
}

static void vector_range(replicas *x, uint32_t from, uint32_t to) {
  const zn_kfunc *f = x->w->f;
  for (uint32_t i = from; i < to; i++) {
    const zn_kinst *in = &f->insts[i];
    if (in->op == ZN_K_If && x->p.divergent[i]) {
      vector_if(x, i);
      i = x->p.match[i];
      if (f->insts[i].op == ZN_K_Else) i = x->p.match[i];
      continue;
    }
    if (in->op == ZN_K_Set && x->p.varying[in->a]) {
      vector_set(x, in);
      continue;
    }
    if (in->op == ZN_K_Prefetch && x->p.varying[in->b]) continue; /* of no use, lane by lane */
    if (!x->p.varying[i]) {
      zn_kref r = copy_inst(x->w, x, i, 0);
      x->rep[i - x->p.loop] = r;
      if (x->p.splat[i]) x->vec[i] = ramp(x, r, x->p.stride[i]);
      continue;
    }
    switch (in->op) {
    case ZN_K_Load: x->vec[i] = vector_load(x, i); break;
    case ZN_K_Store: vector_store(x, i); break;
    case ZN_K_Var: x->vec[i] = zn_kb_var(&x->w->b, x->vec[in->a]); break;
    case ZN_K_Get: x->vec[i] = zn_kb_get(&x->w->b, x->vec[in->a]); break;
    default: x->vec[i] = vector_op(x, i);
    }
  }
}

/* ---- replicated bodies ---- */

/* One replica's copy of everything in [from, to): arms and loops that replicas take differently. */
static void replica_range(replicas *x, uint32_t from, uint32_t to, unsigned u) {
  for (uint32_t i = from; i < to; i++) {
    zn_kref r = copy_inst(x->w, x, i, u);
    x->rep[(i - x->p.loop) * x->n + u] = r;
  }
}

static void unroll_range(replicas *x, uint32_t from, uint32_t to) {
  zn_kb *b = &x->w->b;
  const zn_kfunc *f = x->w->f;
  for (uint32_t i = from; i < to; i++) {
    const zn_kinst *in = &f->insts[i];
    zn_kref *rep = x->rep + (size_t)(i - x->p.loop) * x->n;
    if (x->p.divergent[i]) {
      uint32_t end = x->p.match[i];
      if (f->insts[end].op == ZN_K_Else) end = x->p.match[end];
      for (unsigned u = 0; u < x->n; u++) replica_range(x, i, end + 1, u);
      i = end;
    } else if (x->p.varying[i] || (in->op == ZN_K_Set && x->p.varying[in->a])) {
      for (unsigned u = 0; u < x->n; u++) rep[u] = copy_inst(x->w, x, i, u);
    } else {
      rep[0] = copy_inst(x->w, x, i, 0);
      for (unsigned u = 1; u < x->n; u++) {
        rep[u] = rep[0];
        if (x->p.stride[i] == 0) continue;
        zn_dtype t = in->dtype == ZN_PTR ? ZN_IDX : (zn_dtype)in->dtype;
        int64_t d = x->p.stride[i] * (int64_t)u;
        zn_kref k = zn_kb_int(b, t, t == ZN_IDX ? d : zn_int_wrap(t, d));
        rep[u] =
            in->dtype == ZN_PTR ? zn_kb_ptradd(b, rep[0], k) : zn_kb_bin(b, ZN_K_Add, rep[0], k);
      }
    }
  }
}

/* ---- loops ---- */

static void body(replicas *x, zn_kref iv) {
  uint32_t loop = x->p.loop, end = x->p.end;
  zn_kb *b = &x->w->b;
  if (x->p.vector) {
    x->rep[0] = iv;
    if (x->p.splat[loop]) x->vec[loop] = ramp(x, iv, x->p.stride[loop]);
    vector_range(x, loop + 1, end);
    return;
  }
  for (unsigned u = 0; u < x->n; u++) {
    zn_kref k = zn_kb_idx(b, x->p.stride[loop] * (int64_t)u);
    x->rep[u] = u ? zn_kb_bin(b, ZN_K_Add, iv, k) : iv;
  }
  unroll_range(x, loop + 1, end);
}

/* Vectors of values from before the loop. */
static void splat_outer(replicas *x) {
  for (uint32_t i = 1; i < x->p.loop; i++)
    if (x->p.splat[i]) x->vec[i] = zn_kb_splat(&x->w->b, x->w->map[i], x->n);
}

/* The first iteration the main loop leaves: lo + (trips / n) * n * step. */
static zn_kref main_end(replicas *x, zn_kref lo, zn_kref hi, unsigned n) {
  zn_kb *b = &x->w->b;
  int64_t step = x->w->f->insts[x->p.loop].imm.i;
  zn_kref d = zn_kb_bin(b, ZN_K_Sub, hi, lo);
  if (step != 1) {
    zn_kref up = zn_kb_idx(b, step - 1);
    d = zn_kb_bin(b, ZN_K_Add, d, up);
  }
  zn_kref by = zn_kb_idx(b, step * (int64_t)n);
  d = zn_kb_bin(b, ZN_K_Div, d, by);
  d = zn_kb_bin(b, ZN_K_Mul, d, by);
  return zn_kb_bin(b, ZN_K_Add, lo, d);
}

/* Factor for the iterations a main loop of factor n leaves, 1 = serial: as much as fits when their
 * number is known (rest >= 0), else one register, then halves. */
static unsigned tail_factor(bool vector, unsigned n, unsigned lanes, int64_t rest) {
  unsigned f = 1;
  if (rest >= 0 && !vector) return (unsigned)rest;
  if (rest >= 0)
    while (f * 2 <= (unsigned)rest) f *= 2;
  else if (vector)
    f = n > lanes ? lanes : n >= 8 ? n / 2 : 1;
  else
    f = n >= 4 ? n / 2 : 1;
  return f;
}

/* Remaining iterations: a serial loop, or the same mark again with a smaller factor. */
static void tail(replicas *x, zn_kref from, zn_kref hi, int64_t rest, unsigned factor) {
  rewriter *w = x->w;
  uint32_t loop = x->p.loop, end = x->p.end;
  const zn_kinst *in = &w->f->insts[loop];
  if (rest == 1) {
    w->map[loop] = from;
    walk(w, loop + 1, end);
    return;
  }
  zn_for_kind kind = factor > 1 ? (zn_for_kind)(in->c & 255) : ZN_FOR_SERIAL;
  if (factor > 1)
    w->again = true;
  else
    factor = 0;
  w->map[loop] = zn_kb_for(&w->b, from, hi, in->imm.i, kind, factor);
  walk(w, loop + 1, end);
  zn_kb_end(&w->b);
}

/* Lanes or replicas of one main-loop step; *out_lanes: those of one register. */
static unsigned choose_factor(const replicas *x, bool known, int64_t trips, unsigned *out_lanes) {
  unsigned n = x->w->f->insts[x->p.loop].c >> 8, widest = x->p.widest;
  /* A tile that asks for its lanes has them sized by its accumulators: wider temporaries of an epilogue take two registers. */
  if (n && x->p.widest_var) widest = x->p.widest_var;
  unsigned regs = x->w->caps->vector_bytes / widest;
  *out_lanes = 1;
  if (!x->p.vector) {
    if (n == 0) n = 4;
    if (n > MAX_UNROLL) n = MAX_UNROLL;
    return known && trips < (int64_t)n ? (unsigned)trips : n;
  }
  if (x->w->caps->simt) { /* a thread's own elements: no registers to fill */
    if (n > MAX_LANES || (known && trips % (int64_t)n)) return 1;
    return *out_lanes = n;
  }
  while (regs & (regs - 1)) regs &= regs - 1;
  if (regs > MAX_LANES) regs = MAX_LANES;
  if (regs < 2) return 1;
  if (n == 0) n = regs;
  if (known && trips < (int64_t)n) n = (unsigned)trips;
  if (n >= regs)
    n -= n % regs;
  else
    while (n & (n - 1)) n &= n - 1;
  *out_lanes = n < regs ? n : regs;
  return n / *out_lanes > MAX_UNROLL ? regs : n;
}

/* Room for n replicas of the body, and for a second body where iterations remain; may the function grow so much? */
static bool reserve(replicas *x, bool vector, bool even, zn_arena *a) {
  rewriter *w = x->w;
  uint32_t size = x->p.end - x->p.loop, scalars = x->p.vector ? 1 : x->n;
  uint32_t grow = (even ? 0 : size) + (x->p.vector ? 0 : x->p.num_varying * (x->n - 1));
  if (!x->p.ok || w->f->num_insts + w->growth + grow > (vector ? MAX_VECTOR_INSTS : MAX_INSTS)) return false;
  w->growth += grow;
  x->rep = ZN_ARRAY(a, zn_kref, (size + 1) * scalars);
  x->vec = ZN_ARRAY(a, zn_kref, w->f->num_insts);
  return true;
}

/* One step of the main loop at iv. Several registers: replicas of a loop over the lanes of one,
 * widened next round. */
static void step_body(replicas *x, zn_kref iv, unsigned lanes, int64_t step) {
  rewriter *w = x->w;
  if (lanes == 1 || x->p.vector) {
    body(x, iv);
    return;
  }
  zn_kref lo = zn_kb_idx(&w->b, 0), hi = zn_kb_idx(&w->b, step * (int64_t)lanes);
  zn_kref l = zn_kb_for(&w->b, lo, hi, step, ZN_FOR_VECTOR, lanes);
  iv = zn_kb_bin(&w->b, ZN_K_Add, iv, l);
  body(x, iv);
  zn_kb_end(&w->b);
  w->again = true;
}

/* Widens the marked loop at `loop`, or says no. */
static bool widen_loop(rewriter *w, uint32_t loop) {
  const zn_kinst *in = &w->f->insts[loop];
  int64_t trips = 0, multiple = 1, step = in->imm.i;
  bool known = zn_wplan_trips(w->f, loop, &trips, &multiple),
       vector = (in->c & 255) == ZN_FOR_VECTOR;
  if (known && trips == 0) return true;
  if (vector && w->caps->vector_bytes == 0 && !(w->caps->simt && in->c >> 8 > 1)) return false;
  replicas x = {.w = w};
  zn_arena mine;
  unsigned lanes;
  zn_arena_init(&mine, "widen");
  zn_wplan_make(&x.p, w->f, w->match, loop, vector, step, w->caps, &mine);
  unsigned n = choose_factor(&x, known, trips, &lanes);
  bool ok = x.p.ok && n > 1;
  if (ok && n > lanes && vector) /* replicas of vectors */
    zn_wplan_make(&x.p, w->f, w->match, loop, false, step * (int64_t)lanes, w->caps, &mine);
  x.n = n > lanes && vector ? n / lanes : n;
  bool even = n > 0 && multiple % (int64_t)n == 0;
  ok = ok && reserve(&x, vector, even, &mine);
  if (ok) {
    zn_kref lo = w->map[in->a], hi = w->map[in->b];
    zn_kref stop = even ? hi : main_end(&x, lo, hi, n);
    if (x.p.vector) splat_outer(&x);
    if (known && trips / (int64_t)n == 1)
      step_body(&x, lo, lanes, step);
    else {
      zn_kref iv = zn_kb_for(&w->b, lo, stop, step * (int64_t)n, ZN_FOR_SERIAL, 0);
      step_body(&x, iv, lanes, step);
      zn_kb_end(&w->b);
    }
    int64_t rest = known ? trips % (int64_t)n : -1;
    if (!even) tail(&x, stop, hi, rest, tail_factor(vector, n, lanes, rest));
  }
  zn_arena_reset(&mine);
  return ok;
}

static void walk(rewriter *w, uint32_t from, uint32_t to) {
  for (uint32_t i = from; i < to; i++) {
    const zn_kinst *in = &w->f->insts[i];
    bool marked =
        in->op == ZN_K_For && ((in->c & 255) == ZN_FOR_VECTOR || (in->c & 255) == ZN_FOR_UNROLL);
    if (!marked)
      w->map[i] = copy_inst(w, NULL, i, 0);
    else if (widen_loop(w, i))
      i = w->match[i];
    else
      w->map[i] = zn_kb_for(&w->b, w->map[in->a], w->map[in->b], in->imm.i, ZN_FOR_SERIAL, 0);
  }
}

static bool has_marks(const zn_kfunc *f) {
  for (uint32_t i = 1; i < f->num_insts; i++) {
    const zn_kinst *in = &f->insts[i];
    if (in->op == ZN_K_For && ((in->c & 255) == ZN_FOR_VECTOR || (in->c & 255) == ZN_FOR_UNROLL))
      return true;
  }
  return false;
}

static void widen_round(zn_ctx *c, zn_kmod *m, zn_kfunc *f, const zn_caps *caps) {
  zn_arena tmp;
  zn_kfunc out = *f;
  zn_arena_init(&tmp, "widen");
  out.insts = NULL;
  out.num_insts = out.cap_insts = 0;
  out.cap_extra = f->num_extra;
  out.extra = zn_arena_grow(m->arena, f->extra, f->num_extra * sizeof *f->extra,
                            f->num_extra * sizeof *f->extra);
  rewriter w = {.f = f, .caps = caps, .tmp = &tmp};
  w.b = (zn_kb){.ctx = c, .mod = m, .f = &out};
  w.match = zn_kf_match(f, &tmp);
  w.map = ZN_ARRAY(&tmp, zn_kref, f->num_insts);
  zn_kinst nop = {.op = ZN_K_Nop};
  ZN_PUSH(m->arena, out.insts, out.num_insts, out.cap_insts, nop);
  walk(&w, 1, f->num_insts);
  if (w.b.error) ZN_BUG(c, "widening %s: %s", f->name, w.b.error);
  *f = out;
  zn_arena_reset(&tmp);
}

zn_status zn_kpass_widen(zn_ctx *c, zn_kmod *m, const zn_caps *caps) {
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    for (int round = 0; has_marks(m->funcs[i]); round++) {
      if (round == 64) ZN_BUG(c, "widening %s does not end", m->funcs[i]->name);
      widen_round(c, m, m->funcs[i], zn_kfunc_caps(m->funcs[i], caps));
    }
  }
  return ZN_OK;
}
