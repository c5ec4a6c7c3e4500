/* Horizontal fusion, for targets where starting a kernel costs (caps->launch): calls that do not depend on each other and
 * leave most of the machine idle become one call, whose grid is theirs one after the other. What depends on what is read from
 * the buffers that steps read and write, so every lowering takes part: branches of a network, heads of a detector, directions
 * of a recurrent layer, reductions of one value. Steps keep their order but for those that join an earlier one, and what these
 * need. Before that, neighbours of one team each that are soon done (a turn of a small Scan) follow each other in one kernel:
 * simt.c puts barriers between them as between any parts of a kernel. */
#include "codegen/lower/program.h"

/* Calls of a group; of a chain; steps of a run that is looked at; threads of a multiprocessor that a small call leaves to
 * others. */
enum { MOST = 8, CHAIN = 16, LONGEST = 4096, THREADS = 1024 };

typedef struct access {
  zn_loc loc, root;
  uint64_t from, until; /* bytes of it */
  uint8_t dtype;        /* of its elements */
  bool writes;
} access;

typedef struct call { /* a step of the run at hand */
  zn_step *s;
  access *access;
  uint32_t num_access, level, group; /* group: number + 1, 0: alone */
  unsigned team;       /* threads */
  bool fixed, joins;   /* fixed: the schedule counts on just that team; joins: at all */
  uint64_t shared;
  int64_t grid;
  bool done;
} call;

typedef struct run {
  zn_lw *lw;
  call *calls;
  uint32_t num;
  uint64_t *depends; /* bit i of row j: call j must stay behind call i */
  uint32_t words;
  zn_step *out;
  uint32_t num_out;
  bool *dead;        /* functions that nobody calls any more */
} run;

/* ---- who touches what ---- */

/* The buffer behind a place; an output that may lie over an input counts as that. */
static zn_loc root_of(const zn_lw *lw, zn_loc l) {
  if (l.kind == ZN_LOC_PART) l = lw->parts[l.index].whole;
  if (l.kind == ZN_LOC_CELL) l.kind = ZN_LOC_WS;
  if (l.kind == ZN_LOC_OUTPUT && lw->over_input && lw->over_input[l.index])
    return (zn_loc){ZN_LOC_INPUT, lw->over_input[l.index] - 1};
  return l;
}

static void read_accesses(zn_lw *lw, call *c) {
  c->access = ZN_ARRAY(&lw->ctx->tmp, access, c->s->num_args + 1);
  for (uint32_t i = 0; i < c->s->num_args; i++) {
    const zn_arg *a = &c->s->args[i];
    zn_loc root = a->is_int ? (zn_loc){ZN_LOC_NONE, 0} : root_of(lw, a->loc);
    if (a->is_int || root.kind == ZN_LOC_CONST) continue;
    if (root.kind == ZN_LOC_WS && root.index == lw->err_buf) continue; /* all store the same there, or nothing */
    uint8_t t = lw->mod->funcs[c->s->fn]->params[i].dtype;
    access x = {a->loc, root, 0, UINT64_MAX, t, a->access != ZN_KP_IN};
    if (a->loc.kind == ZN_LOC_PART) {
      const zn_part *p = &lw->parts[a->loc.index];
      x.from = p->at;
      if (p->bytes < UINT64_MAX - p->at) x.until = p->at + p->bytes;
    }
    c->access[c->num_access++] = x;
  }
}

static bool same_place(zn_loc a, zn_loc b) { return a.kind == b.kind && a.index == b.index; }

/* Does one of them write what the other one touches? but_named: what both know by one name does not count. */
static bool clash(const call *x, const call *y, bool but_named) {
  for (uint32_t i = 0; i < x->num_access; i++)
    for (uint32_t k = 0; k < y->num_access; k++) {
      const access *a = &x->access[i], *b = &y->access[k];
      if (!same_place(a->root, b->root) || (but_named && same_place(a->loc, b->loc))) continue;
      if ((a->writes || b->writes) && a->from < b->until && b->from < a->until) return true;
    }
  return false;
}

static bool behind(const run *r, uint32_t j, uint32_t i) { return r->depends[(uint64_t)j * r->words + i / 64] >> i % 64 & 1; }

static void find_order(run *r) {
  r->words = (r->num + 63) / 64;
  r->depends = ZN_ARRAY(&r->lw->ctx->tmp, uint64_t, (uint64_t)r->num * r->words + 1);
  for (uint32_t j = 0; j < r->num; j++)
    for (uint32_t i = 0; i < j; i++) {
      if (!clash(&r->calls[i], &r->calls[j], false)) continue;
      r->depends[(uint64_t)j * r->words + i / 64] |= UINT64_C(1) << i % 64;
      if (r->calls[i].level >= r->calls[j].level) r->calls[j].level = r->calls[i].level + 1;
    }
}

/* ---- what may join ---- */

/* The team that simt.c will choose: a schedule's, or by the extents of its loops. Larger ones are as good, unless the kernel
 * meets again and again, in a serial loop. false: it counts on how it is launched. */
static bool read_team(zn_lw *lw, const zn_kfunc *f, call *c) {
  int64_t most = 1, lo, hi;
  uint32_t serial_end = 0, *match = zn_kf_match(f, &lw->ctx->tmp);
  for (uint32_t i = 1; i < f->num_insts; i++)
    if (f->blocks || f->insts[i].op == ZN_K_Registers || f->insts[i].op == ZN_K_SignalSet) return false;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    const zn_kinst *in = &f->insts[i];
    bool serial = in->op == ZN_K_Loop || (in->op == ZN_K_For && (in->c & 255) == ZN_FOR_SERIAL);
    if (serial && i > serial_end) serial_end = match[i];
    if (in->op != ZN_K_For || ((in->c & 255) != ZN_FOR_THREAD && (in->c & 255) != ZN_FOR_VECTOR)) continue;
    c->fixed |= i < serial_end;
    if ((in->c & 255) == ZN_FOR_THREAD && in->c >> 8) {
      c->team = in->c >> 8;
      c->fixed = true;
      return true;
    }
    int64_t n = zn_kf_const_int(f, in->a, &lo) && zn_kf_const_int(f, in->b, &hi) ? hi - lo : 128;
    if (n > most) most = n;
    i = match[i];
  }
  unsigned warp = lw->caps->warp;
  for (c->team = 1; c->team < most && c->team < 4 * warp;) c->team *= 2;
  return true;
}

static int64_t cores_of(const run *r) { return r->lw->caps->cores ? r->lw->caps->cores : 64; }

/* Small calls: several of them run side by side. */
static void judge(const run *r, call *c) {
  zn_lw *lw = r->lw;
  const zn_kfunc *f = lw->mod->funcs[c->s->fn];
  if (!zn_ex_is_const(lw->ex, c->s->grid, &c->grid) || c->grid < 1 || !read_team(lw, f, c)) return;
  c->shared = zn_kfunc_alloc_bytes(f);
  c->joins = c->grid * c->team <= cores_of(r) * THREADS;
}

/* Are the members' teams and the one of `more` one and the same, and do they find room at the same time? */
static bool fits(const run *r, const call *const *members, uint32_t n, const call *more) {
  int64_t cores = cores_of(r), grid = 0;
  uint64_t shared = 0;
  unsigned team = 0, fixed = 0;
  for (uint32_t i = 0; i <= n; i++) {
    const call *c = i < n ? members[i] : more;
    if (c->fixed && fixed && fixed != c->team) return false;
    if (c->fixed) fixed = c->team;
    grid += c->grid;
    if (c->shared > shared) shared = c->shared;
    if (c->team > team) team = c->team;
  }
  if ((fixed && team > fixed) || grid * team > 2 * cores * THREADS) return false;
  uint64_t each = (uint64_t)((grid + cores - 1) / cores); /* teams of a multiprocessor */
  return shared * each <= r->lw->caps->shared_bytes;
}

static uint32_t find_groups(run *r) {
  uint32_t groups = 0;
  for (uint32_t i = 0; i < r->num; i++) {
    const call *members[MOST] = {&r->calls[i]};
    uint32_t n = 1;
    if (r->calls[i].group || !r->calls[i].joins) continue;
    for (uint32_t j = i + 1; j < r->num && n < MOST; j++) {
      call *c = &r->calls[j];
      if (c->group || !c->joins || c->level != members[0]->level || !fits(r, members, n, c)) continue;
      members[n++] = c;
      c->group = groups + 1;
    }
    if (n > 1) r->calls[i].group = ++groups;
  }
  return groups;
}

/* ---- one kernel of several ---- */

typedef struct joiner {
  zn_lw *lw;
  zn_kb b;
  zn_step *to;      /* the joint call */
  zn_kref *params;  /* its parameters */
  uint32_t cap_params;
  zn_kref memory;   /* shared by the parts: one of them runs in a team, or one after the other */
  bool chain;       /* one after the other: a buffer has one name */
} joiner;

static bool same_arg(const zn_arg *a, const zn_arg *b) {
  if (a->is_int || b->is_int) return a->is_int && b->is_int && a->e == b->e;
  return a->loc.kind == b->loc.kind && a->loc.index == b->loc.index && a->access == b->access;
}

/* The joint kernel's parameter for parameter p of f, whose argument is a. */
static zn_kref join_param(joiner *t, const zn_kfunc *f, uint32_t p, const zn_arg *a) {
  for (uint32_t i = 0; i < t->to->num_args; i++) {
    zn_arg *known = &t->to->args[i];
    zn_kparam *param = &t->b.f->params[i];
    if (t->chain && !a->is_int && !known->is_int && same_place(known->loc, a->loc)) {
      if (known->access != a->access) known->access = ZN_KP_INOUT, param->kind = ZN_KP_INOUT;
      if (f->params[p].align < param->align) param->align = f->params[p].align;
      return t->params[i];
    }
    if (same_arg(known, a) && param->dtype == f->params[p].dtype) return t->params[i];
  }
  zn_kref k = zn_kb_param(&t->b, f->params[p].name, (zn_kparam_kind)f->params[p].kind, (zn_dtype)f->params[p].dtype);
  zn_kparam *made = &t->b.f->params[t->b.f->num_params - 1];
  const char *name = made->name;
  *made = f->params[p];
  made->name = name;
  uint32_t num = t->to->num_args;
  ZN_PUSH(t->lw->arena, t->to->args, t->to->num_args, t->to->cap_args, *a);
  ZN_PUSH(&t->lw->ctx->tmp, t->params, num, t->cap_params, k);
  return k;
}

static zn_kinst copied(joiner *t, const zn_kfunc *f, uint32_t i, const zn_kref *map) {
  zn_kinst in = f->insts[i];
  const char *sig = zn_kops[in.op].sig;
  if (sig[0] != '-') in.a = map[in.a];
  if (sig[1] != '-') in.b = map[in.b];
  if (sig[2] != '-') in.c = map[in.c];
  if (in.op == ZN_K_Shuffle) {
    uint32_t first = t->b.f->num_extra;
    for (unsigned k = 0; k < in.lanes; k++)
      ZN_PUSH(t->lw->arena, t->b.f->extra, t->b.f->num_extra, t->b.f->cap_extra, f->extra[(uint32_t)in.imm.i + k]);
    in.imm.i = first;
  }
  return in;
}

/* Constants, parameters and memory of s's kernel, before the grid loop. */
static void join_leaves(joiner *t, const zn_step *s, zn_kref *map) {
  const zn_kfunc *f = t->lw->mod->funcs[s->fn];
  int64_t at = 0;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    const zn_kinst *in = &f->insts[i];
    if (in->op == ZN_K_Alloc) {
      map[i] = zn_kb_ptradd(&t->b, t->memory, zn_kb_idx(&t->b, at));
      at += (in->imm.i * (in->dtype == ZN_IDX ? 8 : (int64_t)zn_dtype_bytes((zn_dtype)in->dtype)) + 15) / 16 * 16;
    } else if (in->op == ZN_K_Param) {
      map[i] = join_param(t, f, (uint32_t)in->imm.i, &s->args[in->imm.i]);
    } else if (zn_kops[in->op].cls == 'C') {
      map[i] = zn_kb_raw(&t->b, *in);
    }
  }
}

/* The rest, for grid position `at`. The wait for earlier kernels is the joint kernel's, at its start. */
static void join_body(joiner *t, const zn_kfunc *f, zn_kref at, zn_kref *map) {
  uint32_t *match = zn_kf_match(f, &t->lw->ctx->tmp), grid_end = 0;
  for (uint32_t i = 1; i < f->num_insts; i++) {
    const zn_kinst *in = &f->insts[i];
    if (map[i] || in->op == ZN_K_Await || i == grid_end) continue;
    if (in->op == ZN_K_For && (in->c & 255) == ZN_FOR_GRID) {
      map[i] = at;
      grid_end = match[i];
      continue;
    }
    zn_kinst c = copied(t, f, i, map);
    map[i] = zn_kb_raw(&t->b, c);
  }
}

/* The first one's name, what the others do, each thing once, how (`how`: "and", "then"), and how many more there are. */
static const char *joint_name(const zn_lw *lw, const zn_kfunc *const *f, uint32_t n, const char *how) {
  const char *name = f[0]->name;
  for (uint32_t i = 1; i < n; i++) {
    const char *does = strchr(f[i]->name, '_');
    if (does && !strstr(name, does)) name = zn_arena_printf(lw->arena, "%s%s", name, does);
  }
  return zn_arena_printf(lw->arena, "%s_%s_%u", name, how, n - 1);
}

/* Begins the kernel of calls members[0 .. n-1] and their step t->to, with what they say of themselves and the most memory
 * that one of them takes. */
static void begin_joint(joiner *t, const call *const *members, uint32_t n, const char *how, const char *between) {
  zn_lw *lw = t->lw;
  zn_step *s = t->to;
  const zn_kfunc *all_of[CHAIN] = {0};
  uint64_t shared = 0;
  const char *note = lw->mod->funcs[s->fn]->note;
  s->args = NULL;
  s->num_args = s->cap_args = 0;
  s->counted = true;
  s->flops = s->bytes = 0;
  for (uint32_t i = 0; i < n; i++) {
    const zn_kfunc *f = all_of[i] = lw->mod->funcs[members[i]->s->fn];
    if (members[i]->shared > shared) shared = members[i]->shared;
    if (i) note = zn_arena_printf(lw->arena, "%s%s %s", note ? note : "", between, f->note ? f->note : "");
    s->inexact |= !zn_lower_call_cost(lw, members[i]->s, &s->flops, &s->bytes);
  }
  s->fn = zn_kb_begin(&t->b, lw->ctx, lw->mod, joint_name(lw, all_of, n, how), false);
  t->b.f->note = note;
  if (shared) t->memory = zn_kb_alloc(&t->b, ZN_U8, shared);
}

/* Calls members[0 .. n-1] as one; returns the step. */
static zn_step join_calls(zn_lw *lw, const call *const *members, uint32_t n) {
  zn_step s = *members[0]->s;
  joiner t = {.lw = lw, .to = &s};
  zn_kref *map[MOST];
  int64_t total = 0, until = 0;
  for (uint32_t i = 0; i < n; i++) {
    map[i] = ZN_ARRAY(&lw->ctx->tmp, zn_kref, lw->mod->funcs[members[i]->s->fn]->num_insts);
    total += members[i]->grid;
  }
  begin_joint(&t, members, n, "and", " |");
  for (uint32_t i = 0; i < n; i++) join_leaves(&t, members[i]->s, map[i]);
  zn_kref none = zn_kb_idx(&t.b, 0), all = zn_kb_idx(&t.b, total), at = zn_kb_for(&t.b, none, all, 1, ZN_FOR_GRID, 0);
  for (uint32_t i = 0; i < n; i++) {
    zn_kref own = zn_kb_bin(&t.b, ZN_K_Sub, at, zn_kb_idx(&t.b, until));
    until += members[i]->grid;
    if (i < n - 1) zn_kb_if(&t.b, zn_kb_cmp(&t.b, ZN_K_Lt, at, zn_kb_idx(&t.b, until)));
    join_body(&t, lw->mod->funcs[members[i]->s->fn], own, map[i]);
    if (i < n - 1) zn_kb_else(&t.b);
  }
  for (uint32_t i = 0; i < n; i++) zn_kb_end(&t.b);
  zn_kb_finish(&t.b);
  s.grid = zn_ex_const(lw->ex, total);
  return s;
}

/* ---- one after the other ---- */

enum { INSTS = 4000 }; /* instructions of a chain */

/* Calls of one team that are soon done. */
static bool is_link(zn_lw *lw, zn_step *s, call *c) {
  const double FLOPS = 1e5, BYTES = 5e4;
  double flops = 0, bytes = 0;
  const zn_kfunc *f = lw->mod->funcs[s->fn];
  *c = (call){.s = s};
  if (!zn_ex_is_const(lw->ex, s->grid, &c->grid) || c->grid != 1 || !read_team(lw, f, c)) return false;
  if (f->num_insts > INSTS / 4 || !zn_lower_call_cost(lw, s, &flops, &bytes) || flops > FLOPS || bytes > BYTES) return false;
  c->shared = zn_kfunc_alloc_bytes(f);
  read_accesses(lw, c);
  return true;
}

/* Does one of them read as another type what the other one wrote? Only barriers keep compilers from exchanging the two. */
static bool retypes(const call *x, const call *y) {
  for (uint32_t i = 0; i < x->num_access; i++)
    for (uint32_t k = 0; k < y->num_access; k++) {
      const access *a = &x->access[i], *b = &y->access[k];
      if (same_place(a->loc, b->loc) && (a->writes || b->writes) && a->dtype != b->dtype) return true;
    }
  return false;
}

/* May c follow members[0 .. n-1] in their kernel? */
static bool links(const zn_lw *lw, const call *members, uint32_t n, const call *c) {
  unsigned team = c->team, fixed = c->fixed ? c->team : 0;
  uint32_t insts = lw->mod->funcs[c->s->fn]->num_insts;
  bool retyped = false;
  for (uint32_t i = 0; i < n; i++) {
    const call *m = &members[i];
    retyped |= retypes(m, c);
    if (clash(m, c, true) || (m->fixed && fixed && m->team != fixed)) return false;
    if (m->fixed) fixed = m->team;
    if (m->team > team) team = m->team;
    insts += lw->mod->funcs[m->s->fn]->num_insts;
  }
  return insts <= INSTS && (!fixed || team <= fixed) && !(retyped && team == 1);
}

static zn_step link_calls(zn_lw *lw, const call *links_of, uint32_t n) {
  zn_step s = *links_of[0].s;
  joiner t = {.lw = lw, .to = &s, .chain = true};
  const call *members[CHAIN];
  for (uint32_t i = 0; i < n; i++) members[i] = &links_of[i];
  begin_joint(&t, members, n, "then", ";");
  zn_kref none = zn_kb_idx(&t.b, 0);
  for (uint32_t i = 0; i < n; i++) {
    zn_kref *map = ZN_ARRAY(&lw->ctx->tmp, zn_kref, lw->mod->funcs[members[i]->s->fn]->num_insts);
    join_leaves(&t, members[i]->s, map);
    join_body(&t, lw->mod->funcs[members[i]->s->fn], none, map);
  }
  zn_kb_finish(&t.b);
  return s;
}

/* Neighbours among steps first .. first + num - 1 that are links become one call; returns how many steps are left. */
static uint32_t link_run(zn_lw *lw, zn_step *first, uint32_t num, bool *dead) {
  zn_step *out = ZN_ARRAY(&lw->ctx->tmp, zn_step, num + 1);
  uint32_t kept = 0;
  for (uint32_t i = 0; i < num;) {
    call members[CHAIN];
    uint32_t n = 0;
    while (i + n < num && n < CHAIN && is_link(lw, &first[i + n], &members[n]) && links(lw, members, n, &members[n])) n++;
    for (uint32_t m = 0; m < n && n > 1; m++) dead[members[m].s->fn] = true;
    out[kept++] = n > 1 ? link_calls(lw, members, n) : first[i];
    i += n > 1 ? n : 1;
  }
  memcpy(first, out, kept * sizeof *first);
  return kept;
}

/* ---- the new order ---- */

static void put_call(run *r, uint32_t i) {
  call *members[MOST];
  uint32_t n = 0;
  if (r->calls[i].done) return;
  for (uint32_t j = 0; j < r->num; j++)
    if (j == i || (r->calls[i].group && r->calls[j].group == r->calls[i].group)) members[n++] = &r->calls[j];
  for (uint32_t m = 0; m < n; m++) members[m]->done = true;
  for (uint32_t m = 0; m < n; m++) {
    uint32_t j = (uint32_t)(members[m] - r->calls);
    for (uint32_t k = 0; k < j; k++)
      if (behind(r, j, k)) put_call(r, k);
  }
  for (uint32_t m = 0; m < n && n > 1; m++) r->dead[members[m]->s->fn] = true;
  r->out[r->num_out++] = n > 1 ? join_calls(r->lw, (const call *const *)members, n) : *members[0]->s;
}

/* Steps first .. first + num - 1 are calls; returns how many are left. */
static uint32_t join_run(zn_lw *lw, zn_step *first, uint32_t num, bool *dead) {
  if (num < 2 || num > LONGEST) return num;
  num = link_run(lw, first, num, dead);
  run r = {.lw = lw, .num = num, .dead = dead};
  r.calls = ZN_ARRAY(&lw->ctx->tmp, call, num);
  for (uint32_t i = 0; i < num; i++) {
    r.calls[i].s = &first[i];
    read_accesses(lw, &r.calls[i]);
    judge(&r, &r.calls[i]);
  }
  find_order(&r);
  if (!find_groups(&r)) return num;
  r.out = ZN_ARRAY(&lw->ctx->tmp, zn_step, num);
  for (uint32_t i = 0; i < num; i++) put_call(&r, i);
  memcpy(first, r.out, r.num_out * sizeof *first);
  return r.num_out;
}

static void drop_functions(zn_lw *lw, const bool *dead) {
  zn_kmod *m = lw->mod;
  uint32_t *to = ZN_ARRAY(&lw->ctx->tmp, uint32_t, m->num_funcs + 1), kept = 0;
  bool *used = ZN_ARRAY(&lw->ctx->tmp, bool, m->num_funcs + 1);
  for (uint32_t i = 0; i < lw->num_steps; i++)
    if (lw->steps[i].kind == ZN_STEP_CALL) used[lw->steps[i].fn] = true;
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    to[i] = kept;
    if (!dead[i] || used[i]) m->funcs[kept++] = m->funcs[i];
  }
  m->num_funcs = kept;
  for (uint32_t i = 0; i < lw->num_steps; i++)
    if (lw->steps[i].kind == ZN_STEP_CALL) lw->steps[i].fn = to[lw->steps[i].fn];
}

static bool joins(const zn_lw *lw, const zn_step *s) {
  return s->kind == ZN_STEP_CALL && zn_kfunc_on_device(lw->mod->funcs[s->fn]) && !lw->mod->funcs[s->fn]->exported;
}

/* A GROW of what has its full size from the start, which would only part the calls beside it. */
static bool idles(const zn_lw *lw, const zn_step *s) {
  if (s->kind != ZN_STEP_GROW || !zn_ex_is_const(lw->ex, s->a, NULL)) return false;
  if (s->loc.kind == ZN_LOC_OUTPUT) {
    zn_expr count = zn_type_count(lw->ex, zn_lw_type(lw, lw->g->outputs[s->loc.index]));
    return zn_ex_is_const(lw->ex, count, NULL);
  }
  if (s->loc.kind != ZN_LOC_WS) return false;
  const zn_wsbuf *b = &lw->bufs[s->loc.index];
  return !b->keep && zn_ex_is_const(lw->ex, b->bytes, NULL);
}

static void drop_idle(zn_lw *lw) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < lw->num_steps; i++)
    if (!idles(lw, &lw->steps[i])) lw->steps[kept++] = lw->steps[i];
  lw->num_steps = kept;
}

void zn_lower_together(zn_lw *lw) {
  bool *dead = ZN_ARRAY(&lw->ctx->tmp, bool, 2 * lw->mod->num_funcs + 1); /* each joint one is made of two at least */
  uint32_t kept = 0;
  if (!lw->device_caps->launch) return;
  drop_idle(lw);
  for (uint32_t i = 0; i < lw->num_steps;) {
    uint32_t last = i;
    while (last < lw->num_steps && joins(lw, &lw->steps[last])) last++;
    uint32_t n = last > i ? join_run(lw, &lw->steps[i], last - i, dead) : 1;
    memmove(&lw->steps[kept], &lw->steps[i], n * sizeof *lw->steps);
    kept += n;
    i = last > i ? last : i + 1;
  }
  lw->num_steps = kept;
  drop_functions(lw, dead);
}
