/* SIMT mapping. A grid iteration is run by a team of threads (one thread, part of a warp, or a block). Code outside thread
 * loops is run by all threads of the team alike, except that the first thread alone stores; a thread loop is spread over
 * them. Run serially, as the interpreter does, this is the plain program; in parallel it is the same as long as a barrier
 * stands between accesses of different threads to one place, one of them a write. The walk below keeps, per buffer, what was
 * read and written since the last barrier and puts a barrier where that condition would break. */
#include <assert.h>

#include "codegen/kir/kir.h"

/* ---- marks become thread loops ---- */

typedef struct dependence { /* which values of a loop's body depend on its variable */
  const zn_kfunc *f;
  uint32_t loop, end;
  bool *varies;
} dependence;

static bool varies(const dependence *d, zn_kref r) { return r >= d->loop && r < d->end && d->varies[r]; }

static bool is_var_state(uint8_t op) { return op == ZN_K_Var || op == ZN_K_Get; }

/* Loads and variables count as varying: only addresses matter here, and those rarely come from either. */
static void find_varying(dependence *d) {
  for (uint32_t i = d->loop; i < d->end; i++) {
    const zn_kinst *in = &d->f->insts[i];
    const char *sig = zn_kops[in->op].sig;
    bool v = i == d->loop || in->op == ZN_K_Load || is_var_state(in->op);
    if (sig[0] != '-') v |= varies(d, in->a);
    if (sig[1] != '-') v |= varies(d, in->b);
    if (sig[2] != '-') v |= varies(d, in->c);
    d->varies[i] = v;
  }
}

/* Does every iteration that stores here store the same constant, which none reads (an error code)? */
static bool is_flag(const zn_kfunc *f, uint32_t loop, uint32_t end, uint32_t store) {
  const zn_kinst *s = &f->insts[store];
  if (f->insts[s->c].op != ZN_K_Const) return false;
  for (uint32_t i = loop + 1; i < end; i++) {
    const zn_kinst *in = &f->insts[i];
    if (in->op == ZN_K_Load && in->a == s->a) return false;
    if (in->op == ZN_K_Store && in->a == s->a && in->c != s->c) return false;
  }
  return true;
}

/* The mark promises independent iterations; what threads can run must also leave outer variables alone and never store
 * different things to one fixed place. */
static bool fits_threads(const zn_kfunc *f, uint32_t loop, uint32_t end, bool *scratch) {
  dependence d = {f, loop, end, scratch};
  find_varying(&d);
  for (uint32_t i = loop + 1; i < end; i++) {
    const zn_kinst *in = &f->insts[i];
    if (in->op == ZN_K_Alloc || zn_kop_joins(in->op) || in->op == ZN_K_AsyncCopy || in->op == ZN_K_Await) return false;
    if (in->op == ZN_K_BulkCopy || in->op == ZN_K_SignalSet) return false;
    if (in->op == ZN_K_SignalArrive || in->op == ZN_K_AsyncArrive) return false;
    if (in->op == ZN_K_Set && in->a < loop) return false;
    bool fixed = in->op == ZN_K_Store && !varies(&d, in->a) && !varies(&d, in->b);
    if (fixed && !is_flag(f, loop, end, i)) return false;
  }
  return true;
}

static void set_kind(zn_kinst *in, zn_for_kind kind) { in->c = (uint32_t)kind; } /* factors are for vectors */

static void mark_threads(zn_kfunc *f, zn_arena *tmp) {
  uint32_t *match = zn_kf_match(f, tmp), thread_end = 0;
  bool *scratch = ZN_ARRAY(tmp, bool, f->num_insts);
  for (uint32_t i = 1; i < f->num_insts; i++) {
    zn_kinst *in = &f->insts[i];
    if (in->op != ZN_K_For) continue;
    bool inner = i < thread_end;
    if ((in->c & 255) == ZN_FOR_VECTOR) {
      if (inner && in->c >> 8 > 1) continue; /* elements that one thread moves at once */
      bool threads = !inner && fits_threads(f, i, match[i], scratch);
      set_kind(in, threads ? ZN_FOR_THREAD : ZN_FOR_SERIAL);
    }
    if ((in->c & 255) == ZN_FOR_THREAD && !inner) thread_end = match[i];
  }
}

zn_status zn_kpass_threads(zn_ctx *c, zn_kmod *m) {
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    if (!zn_kfunc_on_device(m->funcs[i])) continue;
    zn_arena tmp;
    zn_arena_init(&tmp, "threads");
    mark_threads(m->funcs[i], &tmp);
    zn_arena_reset(&tmp);
  }
  return zn_kmod_verify(c, m);
}

/* ---- barriers ---- */

typedef struct pending { /* since the last barrier; one bit a buffer, bit 0: any buffer */
  uint64_t read, written; /* by several threads */
  uint64_t first;         /* written by the first thread alone */
} pending;

typedef struct walker {
  const zn_kfunc *f;
  const uint32_t *match;
  uint64_t *bit;   /* per pointer value */
  bool *barrier;   /* one stands before the instruction */
} walker;

static bool clash(uint64_t x, uint64_t y) { return (x & y) || ((x & 1) && y) || ((y & 1) && x); }

/* Buffers of a kernel do not overlap, except where the kernel is told one buffer twice, which lowering never does. */
static void name_buffers(walker *w) {
  unsigned next = 1;
  uint64_t *of_param = NULL;
  zn_arena tmp;
  zn_arena_init(&tmp, "simt");
  of_param = ZN_ARRAY(&tmp, uint64_t, w->f->num_params + 1);
  for (uint32_t i = 1; i < w->f->num_insts; i++) {
    const zn_kinst *in = &w->f->insts[i];
    uint64_t own = next < 64 ? UINT64_C(1) << next : 1;
    if (in->op == ZN_K_PtrAdd) {
      w->bit[i] = w->bit[in->a];
    } else if (in->op == ZN_K_Param && in->dtype == ZN_PTR) {
      if (!of_param[in->imm.i]) of_param[in->imm.i] = own, next += next < 64;
      w->bit[i] = of_param[in->imm.i];
    } else if (in->op == ZN_K_Alloc) {
      w->bit[i] = own;
      next += next < 64;
    } else if (zn_kf_dtype(w->f, i) == ZN_PTR && in->op != ZN_K_ConstAddr) {
      w->bit[i] = 1;
    }
  }
  zn_arena_reset(&tmp);
}

static void put_barrier(walker *w, uint32_t at, pending *s) {
  w->barrier[at] = true;
  *s = (pending){0};
}

static void join(pending *s, const pending *o) {
  s->read |= o->read;
  s->written |= o->written;
  s->first |= o->first;
}

/* A thread loop is one phase: its iterations do not touch each other. One with barriers inside is fenced as a whole. */
static void thread_loop(walker *w, uint32_t i, pending *s) {
  uint64_t reads = 0, writes = 0;
  bool fenced = false;
  for (uint32_t k = i + 1; k < w->match[i]; k++) {
    const zn_kinst *in = &w->f->insts[k];
    if (in->op == ZN_K_Load || in->op == ZN_K_LdMatrix || in->op == ZN_K_GroupMma) reads |= w->bit[in->a];
    if (in->op == ZN_K_GroupMma) reads |= w->bit[in->b];
    bool copies = in->op == ZN_K_AsyncCopy || in->op == ZN_K_BulkCopy;
    if (in->op == ZN_K_Store || copies) writes |= w->bit[in->a];
    if (copies) reads |= w->bit[in->b];
    fenced |= zn_kop_joins(in->op);
  }
  uint64_t before = s->written | s->first;
  if (w->barrier[i] || fenced || clash(reads, before) || clash(writes, before | s->read)) put_barrier(w, i, s);
  s->read |= reads;
  s->written |= writes;
}

static void walk(walker *w, uint32_t from, uint32_t to, pending *s);

static void serial_loop(walker *w, uint32_t i, pending *s) {
  for (;;) {
    pending was = *s, body = *s;
    walk(w, i + 1, w->match[i], &body);
    join(s, &body);
    if (!memcmp(&was, s, sizeof was)) return;
  }
}

static uint32_t branches(walker *w, uint32_t i, pending *s) {
  pending then = *s, other = *s;
  uint32_t end = w->match[i];
  walk(w, i + 1, end, &then);
  if (w->f->insts[end].op == ZN_K_Else) {
    walk(w, end + 1, w->match[end], &other);
    end = w->match[end];
  }
  *s = then;
  join(s, &other);
  return end;
}

static void walk(walker *w, uint32_t from, uint32_t to, pending *s) {
  for (uint32_t i = from; i < to; i++) {
    const zn_kinst *in = &w->f->insts[i];
    switch (in->op) {
    case ZN_K_For:
      if ((in->c & 255) == ZN_FOR_THREAD) thread_loop(w, i, s);
      else if ((in->c & 255) == ZN_FOR_GRID) walk(w, i + 1, w->match[i], s); /* a team runs one iteration */
      else serial_loop(w, i, s);
      i = w->match[i];
      break;
    case ZN_K_Loop:
      serial_loop(w, i, s);
      i = w->match[i];
      break;
    case ZN_K_If: i = branches(w, i, s); break;
    case ZN_K_Load:
      if (w->barrier[i] || clash(w->bit[in->a], s->written | s->first)) put_barrier(w, i, s);
      s->read |= w->bit[in->a];
      break;
    case ZN_K_Store:
      if (w->barrier[i] || clash(w->bit[in->a], s->written | s->read)) put_barrier(w, i, s);
      s->first |= w->bit[in->a];
      break;
    case ZN_K_Barrier: *s = (pending){0}; break;
    default: break;
    }
  }
}

static void insert_barriers(zn_kmod *m, zn_kfunc *f, const bool *at, zn_arena *tmp) {
  uint32_t extra = 0;
  for (uint32_t i = 0; i < f->num_insts; i++) extra += at[i];
  if (!extra) return;
  zn_kinst *out = ZN_ARRAY(m->arena, zn_kinst, f->num_insts + extra);
  zn_kref *map = ZN_ARRAY(tmp, zn_kref, f->num_insts);
  uint32_t n = 0;
  for (uint32_t i = 0; i < f->num_insts; i++) {
    zn_kinst in = f->insts[i];
    const char *sig = zn_kops[in.op].sig;
    if (at[i]) out[n++] = (zn_kinst){.op = ZN_K_Barrier, .lanes = 1};
    if (sig[0] != '-') in.a = map[in.a];
    if (sig[1] != '-') in.b = map[in.b];
    if (sig[2] != '-') in.c = map[in.c];
    map[i] = n;
    out[n++] = in;
  }
  f->insts = out;
  f->num_insts = f->cap_insts = n;
}

/* A kernel that does not say where it waits for those before it waits first. */
static void insert_await(zn_kmod *m, zn_kfunc *f) {
  for (uint32_t i = 1; i < f->num_insts; i++)
    if (f->insts[i].op == ZN_K_Await) return;
  zn_kinst *out = ZN_ARRAY(m->arena, zn_kinst, f->num_insts + 1);
  out[0] = f->insts[0];
  out[1] = (zn_kinst){.op = ZN_K_Await, .lanes = 1};
  for (uint32_t i = 1; i < f->num_insts; i++) {
    zn_kinst in = f->insts[i];
    const char *sig = zn_kops[in.op].sig;
    if (sig[0] != '-') in.a++;
    if (sig[1] != '-') in.b++;
    if (sig[2] != '-') in.c++;
    out[i + 1] = in;
  }
  f->insts = out;
  f->num_insts++;
  f->cap_insts = f->num_insts;
}

/* ---- teams ---- */

static unsigned team_for(const zn_kfunc *f, const uint32_t *match, const zn_caps *caps) {
  int64_t most = 0;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    const zn_kinst *in = &f->insts[i];
    int64_t lo, hi, n = 128;
    if (in->op != ZN_K_For || (in->c & 255) != ZN_FOR_THREAD) continue;
    unsigned known = in->c >> 8; /* by a schedule */
    if (known) return known;
    if (zn_kf_const_int(f, in->a, &lo) && zn_kf_const_int(f, in->b, &hi)) n = (hi - lo + in->imm.i - 1) / in->imm.i;
    if (n > most) most = n;
    i = match[i];
  }
  if (most > (int64_t)caps->warp) return most > 2 * (int64_t)caps->warp ? 4 * caps->warp : 2 * caps->warp;
  unsigned team = 1;
  while (team < most) team *= 2;
  return team;
}

uint64_t zn_kfunc_alloc_bytes(const zn_kfunc *f) {
  uint64_t n = 0;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    const zn_kinst *in = &f->insts[i];
    unsigned size = in->dtype == ZN_IDX ? 8 : zn_dtype_bytes((zn_dtype)in->dtype);
    if (in->op == ZN_K_Alloc) n += ((uint64_t)in->imm.i * size + 15) & ~UINT64_C(15);
  }
  return n;
}

zn_status zn_kpass_simt(zn_ctx *c, zn_kmod *m, const zn_caps *caps) {
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    zn_kfunc *f = m->funcs[i];
    if (!zn_kfunc_on_device(f)) continue;
    insert_await(m, f);
    zn_arena tmp;
    zn_arena_init(&tmp, "simt");
    walker w = {.f = f, .match = zn_kf_match(f, &tmp)};
    f->team = (uint16_t)team_for(f, w.match, caps);
    if (f->team > 1) {
      pending s = {0};
      w.bit = ZN_ARRAY(&tmp, uint64_t, f->num_insts);
      w.barrier = ZN_ARRAY(&tmp, bool, f->num_insts);
      name_buffers(&w);
      walk(&w, 1, f->num_insts, &s);
      insert_barriers(m, f, w.barrier, &tmp);
    }
    bool fits = f->team == 1 || zn_kfunc_alloc_bytes(f) <= caps->shared_bytes;
    if (!fits) ZN_BUG(c, "kernel %s needs more shared memory than a team can have", f->name);
    zn_arena_reset(&tmp);
  }
  return zn_kmod_verify(c, m);
}
