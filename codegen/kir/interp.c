/* The kernel IR interpreter, the definition of what the IR means: decodes functions on first use
 * (interp.h) and runs their structured control flow; the lane loops are in interp_arith.c and
 * interp_move.c. */
#include "codegen/kir/interp.h"

#include "codegen/kir/kfold.h"
#include "runtime/zenith.h"

static unsigned elem_bytes(zn_dtype t) {
  return t == ZN_IDX || t == ZN_PTR ? 8 : zn_dtype_bytes(t);
}

void zn_interp_region(zn_imach *m, const void *p, uint64_t bytes) {
  if (!p || !bytes) return;
  zn_iregion r = {p, bytes};
  ZN_PUSH(&m->arena, m->regions, m->num_regions, m->cap_regions, r);
}

/* ---- decoding ---- */

typedef struct decoder {
  zn_imach *m;
  const zn_kfunc *f;
  zn_ifunc *out;
  uint32_t *first; /* per instruction: first decoded instruction at or after it */
  uint32_t *match;
} decoder;

static uint32_t layout(decoder *d) {
  uint64_t bytes = 0;
  for (uint32_t i = 1; i < d->f->num_insts; i++) {
    const zn_kinst *in = &d->f->insts[i];
    uint32_t lanes = in->lanes;
    if (in->op >= ZN_K_ReduceAdd && in->op <= ZN_K_ReduceMax) lanes = d->f->insts[in->a].lanes;
    uint64_t n = lanes > 1 ? (lanes + 7u) & ~7u : 1;
    d->out->slot_of[i] = (uint32_t)bytes;
    if (zn_kop_has_value((zn_kop)in->op))
      bytes += (n * elem_bytes(zn_kf_dtype(d->f, i)) + 15) & ~15ull;
    if (bytes > INT32_MAX) return UINT32_MAX;
  }
  return (uint32_t)bytes;
}

/* Values that are the same in every run: computed while decoding. */
static bool decode_constant(decoder *d, uint32_t i) {
  const zn_kinst *in = &d->f->insts[i];
  char *slot = d->out->slots + d->out->slot_of[i];
  zn_dtype t = (zn_dtype)in->dtype;
  switch (in->op) {
    case ZN_K_Const:
      if (zn_is_float(t))
        zn_store_f64(t, slot, 0, in->imm.f);
      else if (t == ZN_IDX)
        memcpy(slot, &in->imm.i, 8);
      else
        zn_store_i64(t, slot, 0, in->imm.i);
      return true;
    case ZN_K_ConstAddr:
      memcpy(slot, &d->m->consts[in->imm.i], sizeof(void *));
      return true;
    case ZN_K_Features: memset(slot, 0xff, 8); return true;
    case ZN_K_Alloc: {
      size_t bytes = (size_t)in->imm.i * elem_bytes(t);
      char *p = zn_arena_alloc(&d->m->arena, bytes + 64);
      p += -(uintptr_t)p & 63;
      zn_interp_region(d->m, p, bytes);
      memcpy(slot, &p, sizeof p);
      return true;
    }
    case ZN_K_Splat:
      if (d->f->insts[in->a].op != ZN_K_Const) return false;
      for (unsigned k = 0, e = elem_bytes(t); k < in->lanes; k++)
        memcpy(slot + k * e, d->out->slots + d->out->slot_of[in->a], e);
      return true;
    default: return in->op == ZN_K_Nop || in->op == ZN_K_Param;
  }
}

static bool has_barrier(const decoder *d, uint32_t i) {
  for (uint32_t k = i + 1; k < d->match[i]; k++)
    if (zn_kop_joins(d->f->insts[k].op)) return true;
  return false;
}

static zn_ikind control_kind(const decoder *d, uint32_t i) {
  const zn_kinst *in = &d->f->insts[i];
  switch (in->op) {
    case ZN_K_For:
      if ((in->c & 255) == ZN_FOR_THREAD && has_barrier(d, i)) return ZN_IK_TEAM;
      return (in->c & 255) == ZN_FOR_GRID ? ZN_IK_GRID : ZN_IK_FOR;
    case ZN_K_If: return ZN_IK_IF;
    case ZN_K_Else:
    case ZN_K_End: return ZN_IK_JUMP; /* the End of a for becomes NEXT when linked */
    case ZN_K_Break: return ZN_IK_BREAK;
    case ZN_K_Barrier: return ZN_IK_BARRIER;
    case ZN_K_Mma:
    case ZN_K_LdMatrix:
    case ZN_K_GroupMma:
    case ZN_K_Meet:
    case ZN_K_LaneXor: return ZN_IK_WARP;
    case ZN_K_SignalWait: return ZN_IK_WAIT;
    case ZN_K_TileDot:
    case ZN_K_SignalSet:
    case ZN_K_SignalArrive:
    case ZN_K_AsyncArrive:
    case ZN_K_BulkCopy:
    case ZN_K_AsyncCopy: return ZN_IK_MEM;
    case ZN_K_Ret: return ZN_IK_RET;
    case ZN_K_Call: return ZN_IK_CALL;
    case ZN_K_HostAlloc:
    case ZN_K_HostImage:
    case ZN_K_Flow:
    case ZN_K_Load:
    case ZN_K_Store:
    case ZN_K_Fetch:
    case ZN_K_Poke: return ZN_IK_MEM;
    default: return ZN_IK_PURE;
  }
}

static void decode_inst(decoder *d, uint32_t i, zn_idec *o) {
  const zn_kinst *in = &d->f->insts[i], *ins = d->f->insts;
  zn_kinst host; /* here device memory is memory */
  if (in->op == ZN_K_Fetch || in->op == ZN_K_Poke) {
    host = *in;
    host.op = in->op == ZN_K_Fetch ? ZN_K_Load : ZN_K_Store;
    host.imm.i = 0;
    in = &host;
  }
  const uint32_t *slot = d->out->slot_of;
  zn_dtype from = in->a < d->f->num_insts ? zn_kf_dtype(d->f, in->a) : ZN_NONE;
  char cls = zn_kops[in->op].cls;
  bool reduce = in->op >= ZN_K_ReduceAdd && in->op <= ZN_K_ReduceMax;
  const char *sig = zn_kops[in->op].sig;
  *o = (zn_idec){.op = in->op,
                 .dtype = in->dtype,
                 .from = (uint8_t)from,
                 .inst = i,
                 .n = in->lanes,
                 .imm = in->imm.i,
                 .r = slot[i],
                 .elem = (uint8_t)elem_bytes((zn_dtype)in->dtype)};
  if (sig[0] != '-') o->a = slot[in->a];
  if (sig[1] != '-') o->b = slot[in->b];
  if (sig[2] != '-') o->c = slot[in->c];
  if (reduce) o->n = ins[in->a].lanes;
  if (cls == 'A' || cls == 'M' || cls == 'P' || reduce) {
    o->fn = zn_interp_arith((zn_kop)in->op, from);
    return;
  }
  switch (in->op) {
    case ZN_K_Cvt:
    case ZN_K_CvtFast: o->fn = zn_interp_cvt((zn_dtype)in->dtype); return;
    case ZN_K_Select: o->vector_ctl = ins[in->a].lanes > 1; break;
    case ZN_K_Load:
    case ZN_K_Store:
      o->vector_ctl = ins[in->b].lanes > 1;
      o->hint = ZN_NEW(&d->m->arena, uint32_t);
      break;
    case ZN_K_Shuffle:
      o->ptr = &d->f->extra[in->imm.i];
      o->imm = ins[in->a].lanes;
      break;
    case ZN_K_Set:
      o->r = slot[in->a];
      o->a = slot[in->b];
      break;
    case ZN_K_Call:
      o->ptr = &d->f->extra[in->a];
      o->c = slot[in->c];
      break;
    default: break;
  }
  o->fn = zn_interp_move(o);
}

/* Second walk: jump targets, as positions in the decoded array. */
static void link_jumps(decoder *d) {
  uint32_t depth = 0, *open = ZN_ARRAY(&d->m->arena, uint32_t, d->f->num_insts);
  for (uint32_t i = 1; i < d->f->num_insts; i++) {
    uint8_t op = d->f->insts[i].op;
    zn_idec *o = &d->out->code[d->first[i]];
    if (op == ZN_K_End || op == ZN_K_Else) {
      uint32_t region = open[--depth];
      uint8_t ro = d->f->insts[region].op;
      if (op == ZN_K_Else)
        o->target = d->first[d->match[i]];
      else if (ro == ZN_K_For || ro == ZN_K_Loop)
        o->target = d->first[region + 1];
      else
        o->target = d->first[i + 1];
      if (ro == ZN_K_For && op == ZN_K_End) {
        const zn_idec *head = &d->out->code[d->first[region]];
        o->r = head->r;
        o->b = head->b;
        o->imm = head->imm;
        o->kind = ZN_IK_NEXT;
        o->from = head->kind == ZN_IK_GRID;
      }
    } else if (op == ZN_K_For || op == ZN_K_If) {
      uint32_t close = d->match[i];
      o->target = d->first[close + 1];
    } else if (op == ZN_K_Break) {
      uint32_t k = depth;
      while (d->f->insts[open[k - 1]].op != ZN_K_Loop && d->f->insts[open[k - 1]].op != ZN_K_For)
        k--;
      o->target = d->first[d->match[open[k - 1]] + 1];
    }
    if (op == ZN_K_For || op == ZN_K_If || op == ZN_K_Loop || op == ZN_K_Else) open[depth++] = i;
  }
}

static zn_ifunc *decode(zn_imach *m, uint32_t fn) {
  if (m->funcs[fn]) return m->funcs[fn];
  const zn_kfunc *f = m->mod->funcs[fn];
  if (zn_kfunc_verify(m->c, m->mod, f) != ZN_OK) return NULL;
  zn_ifunc *out = ZN_NEW(&m->arena, zn_ifunc);
  decoder d = {.m = m, .f = f, .out = out};
  out->f = f;
  out->slot_of = ZN_ARRAY(&m->arena, uint32_t, f->num_insts);
  uint32_t bytes = layout(&d);
  if (bytes == UINT32_MAX) {
    zn_error(m->c, f->name, "interp: the function needs more than 2 GiB of values");
    return NULL;
  }
  out->slots = zn_arena_alloc(&m->arena, (size_t)bytes + 192);
  out->slots += -(uintptr_t)out->slots & 63;
  out->slot_bytes = (bytes + 127u) & ~63u;
  out->code = ZN_ARRAY(&m->arena, zn_idec, f->num_insts + 1);
  d.first = ZN_ARRAY(&m->arena, uint32_t, f->num_insts + 1);
  d.match = zn_kf_match(f, &m->arena);
  for (uint32_t i = 0; i < f->num_insts; i++) {
    d.first[i] = out->num_code;
    if (decode_constant(&d, i) || f->insts[i].op == ZN_K_Loop) continue;
    zn_idec *o = &out->code[out->num_code++];
    decode_inst(&d, i, o);
    o->kind = (uint8_t)control_kind(&d, i);
  }
  d.first[f->num_insts] = out->num_code;
  link_jumps(&d);
  m->funcs[fn] = out;
  return out;
}

/* ---- running ---- */

typedef struct part { /* of a kernel's grid */
  int64_t begin, end;
} part;

static int32_t run(zn_imach *m, zn_ifunc *f, part grid);

static bool launch(zn_imach *m, const zn_ifunc *caller, const zn_idec *d) {
  zn_ifunc *k = decode(m, (uint32_t)d->imm);
  if (!k) return false;
  const uint32_t *args = d->ptr;
  for (uint32_t i = 1; i < k->f->num_insts; i++) {
    const zn_kinst *in = &k->f->insts[i];
    if (in->op == ZN_K_Param)
      memcpy(k->slots + k->slot_of[i], caller->slots + caller->slot_of[args[in->imm.i]], 8);
  }
  int64_t grid;
  memcpy(&grid, caller->slots + d->c, 8);
  if (grid <= 0) return true;
  m->slots = k->slots;
  int32_t rc = run(m, k, (part){0, grid});
  m->slots = caller->slots;
  return rc == 0;
}

static bool out_of_steps(zn_imach *m, const zn_ifunc *f) {
  zn_error(m->c, f->f->name, "interp: stopped after %llu steps",
           (unsigned long long)m->opts.max_steps);
  return false;
}

enum { RAN_TO_END = 0, AT_BARRIER = INT32_MIN }; /* between them: the code of a Ret, or -1 */

static int32_t run_team(zn_imach *m, zn_ifunc *f, char *slots, const zn_idec *loop, uint32_t first);

/* Runs from *at with the values in slots until `end`, or until a barrier when `side_by_side`, which *at is then behind. */
static int32_t run_range(zn_imach *m, zn_ifunc *f, char *const slots, uint32_t *at, uint32_t end, part grid,
                         bool side_by_side) {
  const zn_idec *code = f->code;
  uint64_t steps = m->steps, limit = m->opts.max_steps ? m->opts.max_steps : UINT64_MAX;
#define IDX(off) (*(int64_t *)(void *)(slots + (off)))
  for (uint32_t pc = *at; pc < end;) {
    const zn_idec *d = &code[pc++];
    if (++steps > limit && !out_of_steps(m, f)) return -1;
    switch ((zn_ikind)d->kind) {
      case ZN_IK_PURE: d->fn(d, m); break;
      case ZN_IK_MEM:
        d->fn(d, m);
        if (m->failed) return -1;
        break;
      case ZN_IK_FOR:
        IDX(d->r) = IDX(d->a);
        if (IDX(d->a) >= IDX(d->b)) pc = d->target;
        break;
      case ZN_IK_GRID:
        IDX(d->r) = grid.begin;
        if (grid.begin >= IDX(d->b) || grid.begin >= grid.end) pc = d->target;
        break;
      case ZN_IK_NEXT: {
        int64_t hi = IDX(d->b);
        if (d->from && grid.end < hi) hi = grid.end;
        if (hi - IDX(d->r) > d->imm) {
          IDX(d->r) += d->imm;
          pc = d->target;
        }
        break;
      }
      case ZN_IK_IF:
        if (!*(slots + d->a)) pc = d->target;
        break;
      case ZN_IK_JUMP: pc = d->target; break;
      case ZN_IK_BREAK:
        if (*(slots + d->a)) pc = d->target;
        break;
      case ZN_IK_TEAM:
        m->steps = steps;
        if (run_team(m, f, slots, d, pc)) return -1;
        steps = m->steps;
        pc = d->target;
        break;
      case ZN_IK_WAIT:
      case ZN_IK_WARP:
        if (!side_by_side) {
          zn_error(m->c, f->f->name, "interp: a warp's operation outside a thread loop");
          return -1;
        }
        m->steps = steps;
        *at = pc;
        return AT_BARRIER;
      case ZN_IK_BARRIER:
        if (!side_by_side) break;
        m->steps = steps;
        *at = pc;
        return AT_BARRIER;
      case ZN_IK_RET: return *(int32_t *)(void *)(slots + d->a);
      case ZN_IK_CALL:
        m->steps = steps;
        if (!launch(m, f, d)) return -1;
        steps = m->steps;
        break;
    }
  }
#undef IDX
  m->steps = steps;
  return RAN_TO_END;
}

static int32_t run(zn_imach *m, zn_ifunc *f, part grid) {
  uint32_t at = 0;
  return run_range(m, f, f->slots, &at, f->num_code, grid, false);
}

static double half_of(const uint32_t *words, unsigned e, bool brain) {
  uint16_t h = (uint16_t)(words[e / 2] >> (16 * (e % 2)));
  return zn_load_f64(brain ? ZN_BF16 : ZN_F16, &h, 0);
}

static void *operand(const zn_imach *m, const zn_ifunc *f, int64_t thread, uint32_t slot) {
  return m->team + (uint64_t)thread * f->slot_bytes + slot;
}

/* Element e of the words at x. */
static double mma_element(const uint32_t *x, unsigned e, zn_mma_format format, bool is_a) {
  uint32_t bits, byte = x[e / 4] >> e % 4 * 8 & 255;
  float f;
  switch (format) {
  case ZN_MMA_F16:
  case ZN_MMA_BF16: return half_of(x, e, format == ZN_MMA_BF16);
  case ZN_MMA_TF32: bits = x[e] & ~UINT32_C(0x1fff), memcpy(&f, &bits, sizeof f); return (double)f;
  default: return format == ZN_MMA_U8S8 && is_a ? (double)byte : (double)(int8_t)byte;
  }
}

/* The Mma of threads first .. first + 31. Sums of bytes are exact in doubles as long as they fit i32. */
static void warp_product(zn_imach *m, const zn_ifunc *f, const zn_idec *d, int64_t first) {
  const zn_mma_format format = (zn_mma_format)d->imm;
  const unsigned per = zn_mma_per_word(format);
  const bool ints = zn_mma_sum(format) == ZN_I32;
  double a[16][32], b[32][8], c[16][8];
  unsigned r, k;
  for (unsigned l = 0; l < 32; l++) {
    const uint32_t *x = operand(m, f, first + l, d->a), *y = operand(m, f, first + l, d->b);
    const void *z = operand(m, f, first + l, d->c);
    for (unsigned e = 0; e < 4 * per; e++) zn_mma_spot('A', per, l, e, &r, &k), a[r][k] = mma_element(x, e, format, true);
    for (unsigned e = 0; e < 2 * per; e++) zn_mma_spot('B', per, l, e, &r, &k), b[r][k] = mma_element(y, e, format, false);
    for (unsigned e = 0; e < 4; e++) {
      zn_mma_spot('C', per, l, e, &r, &k);
      c[r][k] = ints ? (double)((const int32_t *)z)[e] : (double)((const float *)z)[e];
    }
  }
  for (unsigned i = 0; i < 16; i++)
    for (unsigned j = 0; j < 8; j++)
      for (unsigned q = 0; q < 8 * per; q++) c[i][j] += a[i][q] * b[q][j];
  for (unsigned l = 0; l < 32; l++) {
    void *to = operand(m, f, first + l, d->r);
    for (unsigned e = 0; e < 4; e++) {
      zn_mma_spot('C', per, l, e, &r, &k);
      if (ints) ((int32_t *)to)[e] = (int32_t)(uint32_t)(int64_t)c[r][k];
      else ((float *)to)[e] = (float)c[r][k];
    }
  }
}

enum { GROUP_ROW = 128 }; /* bytes of a row of a GroupMma's tile */

static bool warp_squares(zn_imach *m, const zn_ifunc *f, const zn_idec *d, int64_t first) {
  uint16_t x[4][8][8];
  for (unsigned l = 0; l < 8 * d->n; l++) {
    const char *base;
    int64_t word;
    memcpy(&base, operand(m, f, first + l, d->a), sizeof base);
    memcpy(&word, operand(m, f, first + l, d->b), sizeof word);
    if (((uintptr_t)base + (uintptr_t)word * 4) % 16 != 0 || !zn_interp_reachable(m, base + word * 4, 16)) {
      zn_error(m->c, f->f->name, "interp: a row of a square at a bad place");
      return false;
    }
    memcpy(x[l / 8][l % 8], base + word * 4, 16);
  }
  for (unsigned l = 0; l < 32; l++)
    for (unsigned q = 0; q < d->n; q++) {
      uint32_t *to = operand(m, f, first + l, d->r);
      unsigned r = l / 4, c = l % 4 * 2;
      to[q] = d->imm ? x[q][c][r] | (uint32_t)x[q][c + 1][r] << 16 : x[q][r][c] | (uint32_t)x[q][r][c + 1] << 16;
    }
  return true;
}

static void warp_exchange(zn_imach *m, const zn_ifunc *f, const zn_idec *d, int64_t first) {
  uint32_t x[32];
  for (unsigned l = 0; l < 32; l++) memcpy(&x[l], operand(m, f, first + l, d->a), 4);
  for (unsigned l = 0; l < 32; l++) memcpy(operand(m, f, first + l, d->r), &x[l ^ (unsigned)d->imm], 4);
}

/* `rows` rows of a GroupMma's tile, as numbers. */
static bool read_tile(zn_imach *m, const zn_ifunc *f, int64_t thread, uint32_t slot, unsigned rows, zn_dtype t, double *to) {
  const char *base;
  const unsigned depth = GROUP_ROW / zn_dtype_bytes(t), run = depth / 8; /* elements of a row and of a piece */
  memcpy(&base, operand(m, f, thread, slot), sizeof base);
  if ((uintptr_t)base % 16 || !zn_interp_reachable(m, base, (uint64_t)rows * GROUP_ROW)) {
    zn_error(m->c, f->f->name, "interp: a tile at a bad place");
    return false;
  }
  for (unsigned r = 0; r < rows; r++)
    for (unsigned k = 0; k < depth; k++) {
      unsigned piece = (k / run) ^ (r % 8);
      to[r * depth + k] = zn_load_f64(t, base, (uint64_t)r * depth + piece * run + k % run);
    }
  return true;
}

/* The GroupMma of threads first .. first + 127. */
static bool group_product(zn_imach *m, const zn_ifunc *f, const zn_idec *d, int64_t first) {
  const zn_mma_format format = zn_group_format(d->imm);
  const bool ints = zn_mma_sum(format) == ZN_I32;
  const zn_dtype t = ints ? ZN_I8 : format == ZN_MMA_BF16 ? ZN_BF16 : ZN_F16;
  double *a = zn_arena_alloc(&m->arena, 64 * GROUP_ROW * sizeof *a), *b = zn_arena_alloc(&m->arena, 256 * GROUP_ROW * sizeof *b);
  const unsigned n = 2u * d->n, depth = GROUP_ROW / zn_dtype_bytes(t);
  unsigned row, col;
  if (!read_tile(m, f, first, d->a, 64, format == ZN_MMA_U8S8 ? ZN_U8 : t, a)) return false;
  if (!read_tile(m, f, first, d->b, n, t, b)) return false;
  for (unsigned l = 0; l < 128; l++) {
    const void *c = operand(m, f, first + l, d->c);
    void *to = operand(m, f, first + l, d->r);
    for (unsigned e = 0; e < d->n; e++) {
      zn_group_place(l, e, &row, &col);
      double sum = ints ? (double)((const int32_t *)c)[e] : (double)((const float *)c)[e];
      for (unsigned k = 0; k < depth; k++) sum += a[row * depth + k] * b[col * depth + k];
      if (ints) ((int32_t *)to)[e] = (int32_t)(uint32_t)(int64_t)sum;
      else ((float *)to)[e] = (float)sum;
    }
  }
  return true;
}

static unsigned threads_together(const zn_idec *d) { return d->op == ZN_K_GroupMma ? 128 : 32; }

/* What threads from `first` on do together. */
static bool warp_operation(zn_imach *m, const zn_ifunc *f, const zn_idec *d, int64_t first, int64_t n) {
  if (first + threads_together(d) > n) {
    zn_error(m->c, f->f->name, "interp: a warp's operation by less than a warp");
    return false;
  }
  if (d->op == ZN_K_GroupMma) return group_product(m, f, d, first);
  if (d->op == ZN_K_LdMatrix) return warp_squares(m, f, d, first);
  if (d->op == ZN_K_Mma) warp_product(m, f, d, first);
  if (d->op == ZN_K_LaneXor) warp_exchange(m, f, d, first);
  return true;
}

typedef struct strand { /* an iteration of a thread loop */
  uint32_t at;
  bool stopped, ended; /* stopped: at the operation before `at` */
} strand;

/* Do threads first .. first + n - 1 stand where the first one does? */
static bool together(const strand *s, int64_t first, int64_t n) {
  for (int64_t t = first; t < first + n; t++)
    if (s[t].ended || !s[t].stopped || s[t].at != s[first].at) return false;
  return true;
}

static bool go_on(strand *s, int64_t first, int64_t n) {
  for (int64_t t = first; t < first + n; t++) s[t].stopped = false;
  return true;
}

/* Lets threads pass what they wait at, as far as those are there who must be. *progress: some may go on. */
static bool release(zn_imach *m, const zn_ifunc *f, strand *s, int64_t n, bool *progress) {
  for (int64_t t = 0; t < n; t++) {
    if (s[t].ended || !s[t].stopped) continue;
    const zn_idec *d = &f->code[s[t].at - 1];
    int64_t many = d->kind == ZN_IK_BARRIER ? n : d->kind == ZN_IK_WARP ? threads_together(d) : 1;
    if (t % many) continue; /* the first of them asks */
    if (d->kind == ZN_IK_WAIT) {
      bool over = false;
      m->slots = m->team + (uint64_t)t * f->slot_bytes;
      if (!zn_interp_signal_over(d, m, &over)) return false;
      if (over) *progress = go_on(s, t, 1);
      continue;
    }
    if (t + many > n && !warp_operation(m, f, d, t, n)) return false; /* says why not */
    if (!together(s, t, many)) continue;
    if (d->kind == ZN_IK_WARP && !warp_operation(m, f, d, t, n)) return false;
    *progress = go_on(s, t, many);
  }
  return true;
}

/* All iterations side by side, each with values of its own: one after the other, as far as it gets without the others. */
static int32_t run_threads(zn_imach *m, zn_ifunc *f, const zn_idec *loop, uint32_t first, int64_t n) {
  uint32_t last = loop->target - 1; /* the End */
  strand s[1024];
  int64_t ended = 0;
  for (int64_t t = 0; t < n; t++) s[t] = (strand){.at = first};
  for (;;) {
    for (int64_t t = 0; t < n; t++) {
      if (s[t].stopped || s[t].ended) continue;
      m->slots = m->team + (uint64_t)t * f->slot_bytes;
      int32_t rc = run_range(m, f, m->slots, &s[t].at, last, (part){0, 0}, true);
      if (rc != AT_BARRIER && rc != RAN_TO_END) return -1;
      s[t].stopped = rc == AT_BARRIER;
      s[t].ended = rc == RAN_TO_END;
      ended += s[t].ended;
    }
    if (ended == n) return 0;
    bool progress = false;
    if (!release(m, f, s, n, &progress)) return -1;
    if (!progress) {
      zn_error(m->c, f->f->name, "interp: threads wait for others that never come (a barrier, a warp's operation, a signal)");
      return -1;
    }
  }
}

static int32_t run_team(zn_imach *m, zn_ifunc *f, char *slots, const zn_idec *loop, uint32_t first) {
  int64_t lo, hi;
  memcpy(&lo, slots + loop->a, 8);
  memcpy(&hi, slots + loop->b, 8);
  if (lo >= hi) return 0;
  int64_t n = (hi - lo + loop->imm - 1) / loop->imm;
  if (n > 1024) {
    zn_error(m->c, f->f->name, "interp: a team of more than 1024 threads");
    return -1;
  }
  if (m->team_bytes < (uint64_t)n * f->slot_bytes) {
    m->team_bytes = (uint64_t)n * f->slot_bytes;
    m->team = zn_arena_alloc(&m->arena, (size_t)m->team_bytes + 64);
    m->team += -(uintptr_t)m->team & 63;
  }
  for (int64_t t = 0; t < n; t++) {
    char *own = m->team + (uint64_t)t * f->slot_bytes;
    int64_t i = lo + t * loop->imm;
    memcpy(own, slots, f->slot_bytes - 64);
    memcpy(own + loop->r, &i, 8);
  }
  int32_t rc = run_threads(m, f, loop, first, n);
  m->slots = slots;
  return rc;
}

/* As artifacts hold it: kernels rely on the alignment. */
static const void *aligned_data(const zn_kconst *k, zn_arena *a) {
  const void *p = zn_kconst_data(k, a);
  if (!p || (uintptr_t)p % ZN_KCONST_ALIGN == 0) return p;
  char *copy = zn_arena_array(a, zn_kconst_bytes(k) + ZN_KCONST_ALIGN, 1);
  copy += -(uintptr_t)copy & (ZN_KCONST_ALIGN - 1);
  return memcpy(copy, p, zn_kconst_bytes(k));
}

const void *const *zn_interp_consts(const zn_kmod *mod, zn_arena *a) {
  const void **all = ZN_ARRAY(a, const void *, mod->num_consts + 1);
  for (uint32_t i = 0; i < mod->num_consts; i++) all[i] = aligned_data(&mod->consts[i], a);
  return all;
}

static void init_machine(zn_imach *m, zn_ctx *c, const zn_kmod *mod, const zn_interp_opts *opts) {
  memset(m, 0, sizeof *m);
  m->c = c;
  m->mod = mod;
  if (opts) m->opts = *opts;
  zn_arena_init(&m->arena, "interp");
  m->funcs = ZN_ARRAY(&m->arena, zn_ifunc *, mod->num_funcs);
  m->consts = m->opts.consts ? m->opts.consts : zn_interp_consts(mod, &m->arena);
  for (uint32_t i = 0; i < mod->num_consts; i++)
    zn_interp_region(m, m->consts[i], mod->consts[i].count * elem_bytes(mod->consts[i].dtype));
}

enum { DTYPE_STRING = 8 };

static void add_strings(zn_imach *m, const char *s, uint64_t bytes) {
  for (uint64_t k = 0; s && k + sizeof(zn_string) <= bytes; k += sizeof(zn_string)) {
    zn_string text;
    memcpy(&text, s + k, sizeof text);
    zn_interp_region(m, text.u.ptr, text.len);
  }
}

/* filled: the contents are given, not to be written. */
static void add_tensors(zn_imach *m, const char *tensors, uint64_t count, bool filled) {
  zn_interp_region(m, tensors, count * sizeof(zn_tensor));
  for (uint64_t i = 0; tensors && i < count; i++) {
    zn_tensor t;
    memcpy(&t, tensors + i * sizeof t, sizeof t);
    zn_interp_region(m, t.u.data, t.bytes);
    if (filled && t.dtype == DTYPE_STRING) add_strings(m, t.u.data, t.bytes);
    if (filled && ZN_KIND(t.dtype)) add_tensors(m, t.u.data, t.bytes / sizeof t, true);
  }
}

static bool is_function(zn_ctx *c, const zn_kmod *mod, uint32_t fn, bool entry) {
  if (fn < mod->num_funcs && mod->funcs[fn]->is_entry == entry) return true;
  zn_error(c, mod->name, "interp: function %u is not %s", fn, entry ? "an entry" : "a kernel");
  return false;
}

int32_t zn_interp_entry(zn_ctx *c, const zn_kmod *mod, uint32_t fn, void *in, void *out, void *ws,
                        uint64_t ws_bytes, const void *host, const zn_interp_opts *opts) {
  if (!is_function(c, mod, fn, true)) return -1;
  zn_imach m;
  init_machine(&m, c, mod, opts);
  add_tensors(&m, in, mod->num_inputs, true);
  add_tensors(&m, out, mod->num_outputs, false);
  zn_interp_region(&m, host, sizeof(zn_host));
  bool plan = fn == mod->plan_fn && fn != mod->run_fn; /* there ws points at the 8-byte size */
  zn_interp_region(&m, ws, plan ? 8 : ws_bytes);
  zn_ifunc *f = decode(&m, fn);
  int32_t rc = -1;
  if (f) {
    const uint64_t args[5] = {(uintptr_t)in, (uintptr_t)out, (uintptr_t)ws, ws_bytes,
                              (uintptr_t)host};
    for (uint32_t i = 1; i < f->f->num_insts; i++)
      if (f->f->insts[i].op == ZN_K_Param)
        memcpy(f->slots + f->slot_of[i], &args[f->f->insts[i].imm.i], 8);
    m.slots = f->slots;
    rc = run(&m, f, (part){0, 1});
  }
  zn_arena_reset(&m.arena);
  return rc;
}

int32_t zn_interp_kernel(zn_ctx *c, const zn_kmod *mod, uint32_t fn, void *const *bufs,
                         const uint64_t *buf_bytes, const int64_t *ints,
                         const zn_interp_opts *opts) {
  if (!is_function(c, mod, fn, false)) return -1;
  zn_imach m;
  init_machine(&m, c, mod, opts);
  zn_ifunc *f = decode(&m, fn);
  int32_t rc = -1;
  if (f) {
    uint64_t *args = ZN_ARRAY(&m.arena, uint64_t, f->f->num_params);
    uint32_t nb = 0, ni = 0;
    for (uint32_t i = 0; i < f->f->num_params; i++) {
      if (f->f->params[i].kind == ZN_KP_INT) {
        args[i] = (uint64_t)ints[ni++];
      } else {
        if (buf_bytes) zn_interp_region(&m, bufs[nb], buf_bytes[nb]);
        args[i] = (uintptr_t)bufs[nb++];
      }
    }
    int64_t grid = 1;
    for (uint32_t i = 1; i < f->f->num_insts; i++)
      if (f->f->insts[i].op == ZN_K_For && (f->f->insts[i].c & 255) == ZN_FOR_GRID)
        grid = INT64_MAX;
    for (uint32_t i = 1; i < f->f->num_insts; i++)
      if (f->f->insts[i].op == ZN_K_Param)
        memcpy(f->slots + f->slot_of[i], &args[f->f->insts[i].imm.i], 8);
    m.slots = f->slots;
    rc = run(&m, f, (part){0, grid});
  }
  zn_arena_reset(&m.arena);
  return rc;
}
