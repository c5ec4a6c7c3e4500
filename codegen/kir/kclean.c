/* Cleans a kernel function in three steps. Hoisting: a pure value whose operands lie outside a loop
 * moves before the outermost such loop (all pure operations are total, so running them early is
 * safe; costly ones do not leave an if). CSE: one forward walk with a hash table whose entries live
 * as long as their region; loads and variable reads join while no store, call, Set or region
 * boundary comes between. DCE: everything that no store, prefetch, call, return or break needs, including
 * variables that are only written and regions left empty. */
#include "codegen/kir/kir.h"

typedef struct cleaner {
  zn_kmod *m;
  zn_kfunc *f;
  zn_arena tmp;
  uint32_t *region; /* per instruction: innermost region around it (index of For If Else Loop), 0 =
                       top level */
  uint32_t *match;
} cleaner;

static bool opens(uint8_t op) { return op == ZN_K_For || op == ZN_K_If || op == ZN_K_Loop; }

static bool is_pure(const zn_kinst *in) {
  switch (zn_kops[in->op].cls) {
    case 'C':
    case 'A':
    case 'M':
    case 'P':
    case 'X':
    case 'V': return true;
    default: return in->op == ZN_K_PtrAdd;
  }
}

static void find_regions(cleaner *k) {
  const zn_kfunc *f = k->f;
  k->region = ZN_ARRAY(&k->tmp, uint32_t, f->num_insts);
  k->match = zn_kf_match(f, &k->tmp);
  uint32_t *open = ZN_ARRAY(&k->tmp, uint32_t, f->num_insts), depth = 0;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    uint8_t op = f->insts[i].op;
    if (op == ZN_K_End) {
      if (f->insts[open[depth - 1]].op == ZN_K_Else) depth--; /* the Else and its If */
      depth--;
    }
    k->region[i] = depth ? open[depth - 1] : 0;
    if (opens(op) || op == ZN_K_Else) open[depth++] = i;
  }
}

/* ---- operands ---- */

typedef void (*visit)(void *user, zn_kref *r);

static void each_operand(zn_kfunc *f, zn_kinst *in, visit fn, void *user) {
  const char *sig = zn_kops[in->op].sig;
  if (sig[0] != '-') fn(user, &in->a);
  if (sig[1] != '-') fn(user, &in->b);
  if (sig[2] != '-') fn(user, &in->c);
  if (in->op == ZN_K_Call) {
    fn(user, &in->c);
    for (uint32_t i = 0; i < in->b; i++) fn(user, &f->extra[in->a + i]);
  }
}

/* ---- hoisting ---- */

typedef struct hoister {
  uint32_t *home; /* loop before which the instruction goes, 0 = stays */
  uint64_t latest;
} hoister;

/* Positions doubled, so that "just before loop h" is 2h - 1. */
static void note_position(void *user, zn_kref *r) {
  hoister *h = user;
  uint64_t at = h->home[*r] ? 2 * (uint64_t)h->home[*r] - 1 : 2 * (uint64_t)*r;
  if (at > h->latest) h->latest = at;
}

static bool costly(const zn_kinst *in) {
  return zn_kops[in->op].cls == 'M' || in->op == ZN_K_Div || in->op == ZN_K_Rem ||
         in->op == ZN_K_Sqrt;
}

static void find_home(cleaner *k, hoister *h, uint32_t i) {
  zn_kinst *in = &k->f->insts[i];
  if (!is_pure(in)) return;
  h->latest = 0;
  each_operand(k->f, in, note_position, h);
  for (uint32_t r = k->region[i]; r; r = k->region[r]) {
    uint8_t op = k->f->insts[r].op;
    if (op == ZN_K_If || op == ZN_K_Else) {
      if (costly(in)) return;
      continue;
    }
    if (h->latest >= 2 * (uint64_t)r) return;
    h->home[i] = r;
  }
}

/* The instructions' new order: each loop is preceded by what moves before it, in the old order. */
static uint32_t *hoisted_order(cleaner *k) {
  uint32_t n = k->f->num_insts, count = 0;
  hoister h = {.home = ZN_ARRAY(&k->tmp, uint32_t, n)};
  uint32_t *first = ZN_ARRAY(&k->tmp, uint32_t, n), *last = ZN_ARRAY(&k->tmp, uint32_t, n);
  uint32_t *next = ZN_ARRAY(&k->tmp, uint32_t, n), *order = ZN_ARRAY(&k->tmp, uint32_t, n);
  for (uint32_t i = 1; i < n; i++) {
    find_home(k, &h, i);
    uint32_t loop = h.home[i];
    if (!loop) continue;
    if (last[loop])
      next[last[loop]] = i;
    else
      first[loop] = i;
    last[loop] = i;
  }
  for (uint32_t i = 0; i < n; i++) {
    for (uint32_t j = first[i]; j; j = next[j]) order[count++] = j;
    if (!h.home[i]) order[count++] = i;
  }
  return order;
}

/* ---- common subexpressions, while copying to the new order ---- */

typedef struct entry {
  uint32_t inst, epoch, next; /* next entry of the bucket + 1 */
  uint32_t bucket;
} entry;

typedef struct copier {
  cleaner *k;
  zn_kinst *out;
  uint32_t num_out;
  uint32_t *map; /* old index -> new index */
  uint32_t *bucket, mask;
  entry *entries;
  uint32_t num_entries, cap_entries, epoch;
} copier;

static uint64_t mix(uint64_t h, uint64_t v) {
  h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
  return h ^ h >> 29;
}

static uint64_t hash(const zn_kfunc *f, const zn_kinst *in, uint32_t epoch) {
  uint64_t h = mix(in->op, (uint64_t)in->dtype << 16 | in->lanes);
  h = mix(mix(mix(mix(h, in->a), in->b), in->c), epoch);
  if (in->op != ZN_K_Shuffle) return mix(h, (uint64_t)in->imm.i);
  for (unsigned j = 0; j < in->lanes; j++) h = mix(h, f->extra[in->imm.i + j]);
  return h;
}

static bool equal(const zn_kfunc *f, const zn_kinst *x, const zn_kinst *y) {
  if (x->op != y->op || x->dtype != y->dtype || x->lanes != y->lanes || x->a != y->a ||
      x->b != y->b || x->c != y->c)
    return false;
  if (x->op == ZN_K_Shuffle)
    return !memcmp(&f->extra[x->imm.i], &f->extra[y->imm.i], x->lanes * sizeof *f->extra);
  return x->imm.i == y->imm.i;
}

static bool commutes(const zn_kinst *in) {
  switch (in->op) {
    case ZN_K_Add:
    case ZN_K_Mul:
    case ZN_K_And:
    case ZN_K_Or:
    case ZN_K_Xor:
    case ZN_K_Eq:
    case ZN_K_Ne:
    case ZN_K_Fma: return true;
    default: return false;
  }
}

static void map_operand(void *user, zn_kref *r) { *r = ((copier *)user)->map[*r]; }

static bool shareable(const zn_kinst *in) {
  return is_pure(in) || in->op == ZN_K_Load || in->op == ZN_K_Get;
}

/* Appends, or finds the equal instruction that is still in scope; returns the new index. */
static uint32_t intern(copier *p, zn_kinst in) {
  if (commutes(&in) && in.a > in.b) {
    uint32_t swap = in.a;
    in.a = in.b;
    in.b = swap;
  }
  uint32_t epoch = is_pure(&in) ? 0 : p->epoch;
  uint32_t b = (uint32_t)hash(p->k->f, &in, epoch) & p->mask;
  for (uint32_t e = p->bucket[b]; e; e = p->entries[e - 1].next) {
    const entry *x = &p->entries[e - 1];
    if (x->epoch == epoch && equal(p->k->f, &p->out[x->inst], &in)) return x->inst;
  }
  entry fresh = {.inst = p->num_out, .epoch = epoch, .next = p->bucket[b], .bucket = b};
  ZN_PUSH(&p->k->tmp, p->entries, p->num_entries, p->cap_entries, fresh);
  p->bucket[b] = p->num_entries;
  p->out[p->num_out] = in;
  return p->num_out++;
}

static void forget(copier *p, uint32_t keep) {
  while (p->num_entries > keep) {
    const entry *e = &p->entries[--p->num_entries];
    p->bucket[e->bucket] = e->next;
  }
}

static void copy_in_order(cleaner *k, const uint32_t *order) {
  zn_kfunc *f = k->f;
  uint32_t n = f->num_insts, depth = 0, *marks = ZN_ARRAY(&k->tmp, uint32_t, n);
  copier p = {.k = k, .epoch = 1};
  p.out = ZN_ARRAY(k->m->arena, zn_kinst, n);
  p.map = ZN_ARRAY(&k->tmp, uint32_t, n);
  for (p.mask = 63; p.mask < n; p.mask = p.mask * 2 + 1) {
  }
  p.bucket = ZN_ARRAY(&k->tmp, uint32_t, p.mask + 1);
  for (uint32_t q = 0; q < n; q++) {
    uint32_t i = order[q];
    zn_kinst in = f->insts[i];
    if (in.op == ZN_K_Nop && i) continue;
    each_operand(f, &in, map_operand, &p);
    if (shareable(&in)) {
      p.map[i] = intern(&p, in);
      continue;
    }
    if (in.op == ZN_K_End || in.op == ZN_K_Else) forget(&p, marks[--depth]);
    if (opens(in.op) || in.op == ZN_K_Else) marks[depth++] = p.num_entries;
    bool changes = zn_kops[in.op].cls == 'S' && in.op != ZN_K_Prefetch;
    if (changes || in.op == ZN_K_Store || in.op == ZN_K_Poke || in.op == ZN_K_HostImage || in.op == ZN_K_Flow) p.epoch++;
    p.map[i] = p.num_out;
    p.out[p.num_out++] = in;
  }
  f->insts = p.out;
  f->num_insts = p.num_out;
  f->cap_insts = n;
}

/* ---- dead code ---- */

typedef struct sweeper {
  cleaner *k;
  bool *live;
  uint32_t *work, num_work;
  uint32_t *first_set, *next_set; /* Sets per Var; Breaks per loop */
} sweeper;

static void mark(void *user, zn_kref *r) {
  sweeper *s = user;
  if (*r == 0 || s->live[*r]) return;
  s->live[*r] = true;
  s->work[s->num_work++] = *r;
}

/* The loop that a Break leaves. */
static uint32_t loop_of(const cleaner *k, uint32_t i) {
  uint32_t r = k->region[i];
  while (k->f->insts[r].op != ZN_K_Loop && k->f->insts[r].op != ZN_K_For) r = k->region[r];
  return r;
}

static void mark_all(sweeper *s) {
  zn_kfunc *f = s->k->f;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    uint8_t op = f->insts[i].op;
    bool memory = op == ZN_K_Store || op == ZN_K_Poke || op == ZN_K_Prefetch || op == ZN_K_HostImage || op == ZN_K_Share ||
                  op == ZN_K_Flow || op == ZN_K_TileDot;
    bool async = op == ZN_K_AsyncCopy || op == ZN_K_AsyncGroup || op == ZN_K_AsyncWait || op == ZN_K_AsyncShare ||
                 op == ZN_K_Await || op == ZN_K_BulkCopy;
    bool meets = op == ZN_K_Barrier || op == ZN_K_Meet || op == ZN_K_SignalSet || op == ZN_K_SignalArrive ||
                 op == ZN_K_AsyncArrive || op == ZN_K_SignalWait || op == ZN_K_Registers;
    bool leaves = op == ZN_K_Ret || op == ZN_K_Call;
    if (memory || async || leaves || meets) mark(s, &i);
    if (op == ZN_K_Set || op == ZN_K_Break) {
      uint32_t owner = op == ZN_K_Set ? f->insts[i].a : loop_of(s->k, i);
      s->next_set[i] = s->first_set[owner];
      s->first_set[owner] = i;
    }
  }
  while (s->num_work) {
    uint32_t i = s->work[--s->num_work], around = s->k->region[i];
    each_operand(f, &f->insts[i], mark, s);
    mark(s, &around);
    for (uint32_t q = s->first_set[i]; q; q = s->next_set[q]) mark(s, &q);
  }
}

/* An If's End closes its Else when there is one: an End lives with the If, For or Loop. */
static void mark_ends(sweeper *s) {
  const zn_kfunc *f = s->k->f;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    if (!s->live[i] || !opens(f->insts[i].op)) continue;
    uint32_t end = s->k->match[i];
    if (f->insts[end].op == ZN_K_Else) end = s->k->match[end];
    s->live[end] = true;
  }
}

static void remove_dead(cleaner *k) {
  zn_kfunc *f = k->f;
  find_regions(k);
  sweeper s = {.k = k, .live = ZN_ARRAY(&k->tmp, bool, f->num_insts)};
  s.work = ZN_ARRAY(&k->tmp, uint32_t, f->num_insts);
  s.first_set = ZN_ARRAY(&k->tmp, uint32_t, f->num_insts);
  s.next_set = ZN_ARRAY(&k->tmp, uint32_t, f->num_insts);
  mark_all(&s);
  mark_ends(&s);
  copier p = {.k = k, .map = ZN_ARRAY(&k->tmp, uint32_t, f->num_insts)};
  uint32_t count = 1;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    if (!s.live[i]) continue;
    zn_kinst in = f->insts[i];
    each_operand(f, &in, map_operand, &p);
    p.map[i] = count;
    f->insts[count++] = in;
  }
  f->num_insts = count;
}

/* Gives every Call its own argument list, since lists are renumbered in place. */
static void own_call_lists(cleaner *k) {
  zn_kfunc *f = k->f;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    zn_kinst *in = &f->insts[i];
    if (in->op != ZN_K_Call) continue;
    uint32_t first = f->num_extra;
    for (uint32_t j = 0; j < in->b; j++) {
      uint32_t arg = f->extra[in->a + j];
      ZN_PUSH(k->m->arena, f->extra, f->num_extra, f->cap_extra, arg);
    }
    in->a = first;
  }
}

zn_status zn_kpass_clean(zn_ctx *c, zn_kmod *m) {
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    cleaner k = {.m = m, .f = m->funcs[i]};
    zn_arena_init(&k.tmp, "clean");
    own_call_lists(&k);
    find_regions(&k);
    copy_in_order(&k, hoisted_order(&k));
    remove_dead(&k);
    zn_arena_reset(&k.tmp);
    ZN_TRY(zn_kfunc_verify(c, m, m->funcs[i]));
  }
  return ZN_OK;
}
