/* Matrix products on matrix units (the IR's Mma): f16 or bf16 operands and f32 rounded to tf32 with sums in f32, bytes with
 * sums in i32. A block's tiles of A and B lie in shared memory with the depth innermost, in words of 2, 1 or 4 elements; a warp
 * computes tm x tn of the block in pieces of 16 x 8 x 8 words. The padding of a row makes the words that a warp reads together
 * lie in different banks. */
#include "codegen/lower/gemm_simt.h"
#include "codegen/lower/index.h"

enum { PAD = 4, WIDE = 4, PIECE = 8 }; /* words; WIDE: read at once where memory allows */

typedef zn_gs_tile tile;

/* Depths are those of f16: twice the words. */
static const zn_gs_shape shapes[] = {{128, 128, 32, 64, 32}, {128, 64, 32, 32, 32}, {64, 128, 32, 32, 32},
                                     {64, 64, 32, 32, 32},   {64, 32, 32, 32, 16},  {32, 64, 32, 16, 32},
                                     {32, 32, 32, 16, 16},   {128, 64, 64, 32, 32}, {64, 128, 64, 32, 32},
                                     {64, 64, 64, 32, 32},   {64, 32, 64, 32, 16},  {32, 64, 64, 16, 32},
                                     {32, 32, 64, 16, 16},   {64, 64, 128, 32, 32}, {64, 32, 128, 32, 16},
                                     {32, 64, 128, 16, 32},  {32, 32, 128, 16, 16}};

static bool divides(zn_lw *lw, zn_expr e, int64_t d) {
  int64_t c;
  return zn_ex_is_const(lw->ex, e, &c) && c % d == 0;
}

bool zn_gs_mma_fits(zn_lw *lw, const zn_gemm *g) {
  if (!lw->caps->mma || g->narrow == ZN_NONE || g->t != ZN_F32) return false;
  return zn_gs_extent(lw, g->m) >= 16 && zn_gs_extent(lw, g->n) >= 16 && zn_gs_extent(lw, g->k) >= 16;
}

bool zn_gs_units_fit(zn_lw *lw, const zn_gemm *g) {
  bool tf32 = lw->opts->tf32 && g->t == ZN_F32 && g->narrow == ZN_NONE, bytes = g->bytes != ZN_NONE && g->t == ZN_I32;
  if (!lw->caps->mma || (!tf32 && !bytes)) return zn_gs_mma_fits(lw, g);
  bool few = bytes && g->a_plain && divides(lw, g->k, 16); /* rows of a tile may be empty where whole runs are copied */
  return (few || zn_gs_extent(lw, g->m) >= 16) && zn_gs_extent(lw, g->n) >= 16 && zn_gs_extent(lw, g->k) >= 16;
}

zn_mma_format zn_gs_format(const zn_gemm *g) {
  if (g->t == ZN_I32) return g->bytes == ZN_U8 ? ZN_MMA_U8S8 : ZN_MMA_S8;
  return g->narrow == ZN_F16 ? ZN_MMA_F16 : g->narrow == ZN_BF16 ? ZN_MMA_BF16 : ZN_MMA_TF32;
}

/* Words of a line of a shared tile. */
static int64_t pitch(const tile *t) { return t->s.bk / t->per + PAD; }

/* May the operand be read WIDE words of the depth at once? */
static bool is_wide(zn_lw *lw, const tile *t, bool is_a) {
  if (!divides(lw, t->g->k, WIDE * t->per)) return false;
  return is_a ? t->g->a_plain : t->g->packed && t->g->b_depth_inner;
}

static bool lines_inner(const tile *t, bool is_a) { return is_a ? t->g->rows_inner || t->g->a_rows_inner : !t->g->b_depth_inner; }

/* Elements that one place takes: bytes always travel as words. */
static unsigned chunk(const tile *t, bool wide) { return wide ? WIDE * t->per : t->per == 4 ? 4 : 1; }

/* Place e of the thread in a tile of `width` lines: its line and first step. */
static void share(zn_lw *lw, const tile *t, bool is_a, bool wide, unsigned e, zn_kref *line, zn_kref *step) {
  zn_kb *b = &lw->kb;
  int64_t width = is_a ? t->s.bm : t->s.bn, steps = t->s.bk / chunk(t, wide);
  zn_kref i = zn_i_addi(b, t->thread, (int64_t)e * t->threads);
  bool inner = !wide && lines_inner(t, is_a);
  *line = inner ? zn_i_remi(b, i, width) : zn_i_divi(b, i, steps);
  *step = inner ? zn_i_divi(b, i, width) : zn_i_remi(b, i, steps);
  *step = zn_i_muli(b, *step, chunk(t, wide));
}

static unsigned count(const tile *t, bool is_a, bool wide) {
  return (unsigned)(is_a ? t->s.bm : t->s.bn) * t->s.bk / chunk(t, wide) / t->threads;
}

/* To the nearest tf32, as bits; NaN stays one. */
static zn_kref tf32_bits(zn_kb *b, zn_kref x) {
  zn_kref u = zn_kb_bitcast(b, x, ZN_U32), mask = zn_kb_int(b, ZN_U32, 0x7fffffff), inf = zn_kb_int(b, ZN_U32, 0x7f800000);
  zn_kref half = zn_kb_int(b, ZN_U32, 0x1000), magnitude = zn_kb_bin(b, ZN_K_And, u, mask);
  zn_kref nan = zn_kb_cmp(b, ZN_K_Gt, magnitude, inf), near = zn_kb_bin(b, ZN_K_Add, u, half);
  return zn_kb_select(b, nan, zn_kb_int(b, ZN_U32, 0x7fc00000), near);
}

/* The load behind element x, as one of WIDE words. */
static zn_kref widened(zn_kb *b, const tile *t, zn_kref x) {
  const zn_kinst *in = &b->f->insts[x];
  while (in->op != ZN_K_Load) in = &b->f->insts[in->a]; /* below the conversion to f32 */
  zn_kref p = in->a, at = zn_i_divi(b, in->b, t->per);
  zn_kref v = zn_kb_load(b, ZN_U32, WIDE, p, at);
  b->f->insts[v].imm.i = 16;
  for (unsigned i = 0; i < WIDE && t->format == ZN_MMA_TF32; i++) {
    zn_kref one = zn_kb_bitcast(b, zn_kb_extract(b, v, i), ZN_F32);
    v = zn_kb_insert(b, v, tf32_bits(b, one), i);
  }
  return v;
}

/* Element of A or B at depth k (an idx value) of line `at`. */
static zn_kref element(zn_lw *lw, const tile *t, bool is_a, zn_expr at, zn_kref k) {
  const zn_gemm *g = t->g;
  zn_expr ke = zn_lw_as_expr(lw, k, g->k);
  return is_a ? g->a(lw, g->user, t->batch, at, ke) : zn_gs_load_b(lw, g, t->batch, ke, at);
}

/* Four bytes from depth k on as a word; those behind the end are zeros. */
static zn_kref word_of_bytes(zn_lw *lw, const tile *t, bool is_a, zn_expr at, zn_kref k, zn_kref end, bool whole) {
  zn_kb *b = &lw->kb;
  zn_kref word = 0;
  for (unsigned j = 0; j < 4; j++) {
    zn_kref kj = zn_i_addi(b, k, j), inside = zn_kb_cmp(b, ZN_K_Lt, kj, end);
    zn_kref x = element(lw, t, is_a, at, whole ? kj : zn_kb_select(b, inside, kj, zn_kb_idx(b, 0)));
    zn_kref byte = zn_kb_int(b, ZN_U32, 255);
    x = zn_kb_bin(b, ZN_K_And, zn_kb_cvt(b, x, ZN_U32), byte);
    if (!whole) x = zn_kb_select(b, inside, x, zn_kb_int(b, ZN_U32, 0));
    if (j) x = zn_kb_bin(b, ZN_K_Shl, x, zn_kb_int(b, ZN_U32, 8 * j));
    word = j ? zn_kb_bin(b, ZN_K_Or, word, x) : x;
  }
  return word;
}

static zn_kref fetch(zn_lw *lw, const tile *t, bool is_a, bool wide, unsigned e, zn_kref k0) {
  zn_kb *b = &lw->kb;
  const zn_gemm *g = t->g;
  zn_kref line, step;
  share(lw, t, is_a, wide, e, &line, &step);
  zn_kref k = zn_i_add(b, k0, step), end = zn_lw_ix(lw, t->k_end);
  bool whole = t->parts == 1 && divides(lw, g->k, t->s.bk);
  zn_kref inside = zn_kb_cmp(b, ZN_K_Lt, k, end);
  zn_kref first = zn_lw_ix(lw, is_a ? t->row0 : t->col0);
  zn_expr at = zn_gs_clamped(lw, zn_i_add(b, first, line), is_a ? g->m : g->n, is_a ? t->s.bm : t->s.bn);
  if (!wide && t->per == 4) return word_of_bytes(lw, t, is_a, at, k, end, whole);
  zn_kref x = element(lw, t, is_a, at, whole ? k : zn_kb_select(b, inside, k, zn_kb_idx(b, 0)));
  if (wide) {
    x = widened(b, t, x);
    return whole ? x : zn_kb_select(b, inside, x, zn_kb_splat(b, zn_kb_int(b, ZN_U32, 0), WIDE));
  }
  if (!whole) x = zn_kb_select(b, inside, x, zn_kb_float(b, ZN_F32, 0));
  return t->format == ZN_MMA_TF32 ? tf32_bits(b, x) : zn_kb_cvt(b, x, g->narrow);
}

static void stage(zn_lw *lw, tile *t, zn_kref k0, bool first) {
  zn_kb *b = &lw->kb;
  for (int side = 0; side < 2; side++) {
    bool is_a = side == 0, wide = is_wide(lw, t, is_a);
    for (unsigned e = 0; e < count(t, is_a, wide); e++) {
      zn_kref x = fetch(lw, t, is_a, wide, e, k0), *var = is_a ? &t->stage_a[e] : &t->stage_b[e];
      if (first) *var = zn_kb_var(b, x);
      else zn_kb_set(b, *var, x);
    }
  }
}

static void put_stage(zn_lw *lw, const tile *t) {
  zn_kb *b = &lw->kb;
  for (int side = 0; side < 2; side++) {
    bool is_a = side == 0, wide = is_wide(lw, t, is_a), words = wide || t->per != 2;
    for (unsigned e = 0; e < count(t, is_a, wide); e++) {
      zn_kref line, step, x = zn_kb_get(b, is_a ? t->stage_a[e] : t->stage_b[e]);
      share(lw, t, is_a, wide, e, &line, &step);
      zn_kref at = zn_i_add(b, zn_i_muli(b, line, pitch(t) * t->per), step);
      zn_kb_store(b, is_a ? t->sa : t->sb, words ? zn_i_divi(b, at, t->per) : at, x);
      if (wide) b->f->insts[b->f->num_insts - 1].imm.i = 16;
    }
  }
}

/* `words` words of a fragment: word w is at line + 8 * (w % 2 when lines), column pair + 4 * the other half. */
static zn_kref fragment(zn_lw *lw, const tile *t, bool is_a, zn_kref line, zn_kref k, zn_kref pair) {
  zn_kb *b = &lw->kb;
  unsigned words = is_a ? 4 : 2;
  zn_kref v = zn_kb_splat(b, zn_kb_int(b, ZN_U32, 0), words), base = zn_i_muli(b, line, pitch(t));
  base = zn_i_add(b, base, zn_i_add(b, k, pair));
  for (unsigned w = 0; w < words; w++) {
    int64_t down = is_a ? w % 2 * 8 : 0, along = is_a ? w / 2 * 4 : w * 4; /* words */
    zn_kref at = zn_i_addi(b, base, down * pitch(t) + along);
    v = zn_kb_insert(b, v, zn_kb_load(b, ZN_U32, 1, is_a ? t->sa : t->sb, at), w);
  }
  return v;
}

static void multiply(zn_lw *lw, const tile *t, zn_kref row, zn_kref col, zn_kref pair) {
  zn_kb *b = &lw->kb;
  unsigned mf = t->s.tm / 16u, nf = t->s.tn / 8u;
  zn_kref fa[ZN_GS_REG], fb[ZN_GS_REG];
  zn_dtype sum = zn_mma_sum(t->format);
  for (int64_t k = 0; k < (int64_t)(t->s.bk / t->per); k += PIECE) {
    zn_kref depth = zn_kb_idx(b, k);
    for (unsigned i = 0; i < mf; i++) fa[i] = fragment(lw, t, true, zn_i_addi(b, row, i * 16), depth, pair);
    for (unsigned j = 0; j < nf; j++) fb[j] = fragment(lw, t, false, zn_i_addi(b, col, j * 8), depth, pair);
    for (unsigned i = 0; i < mf; i++)
      for (unsigned j = 0; j < nf; j++) {
        zn_kref acc = t->acc[i * nf + j];
        zn_kref d = zn_kb_raw(b, (zn_kinst){.op = ZN_K_Mma, .dtype = (uint8_t)sum, .lanes = 4, .a = fa[i], .b = fb[j],
                                            .c = zn_kb_get(b, acc), .imm.i = t->format});
        zn_kb_set(b, acc, d);
      }
  }
}

static void barrier(zn_lw *lw) { zn_kb_raw(&lw->kb, (zn_kinst){.op = ZN_K_Barrier, .lanes = 1}); }

/* Accumulators to shared memory, in the order in which they are handed out. */
static void put_block(zn_lw *lw, const tile *t, zn_kref shared, zn_kref row, zn_kref col, zn_kref pair) {
  zn_kb *b = &lw->kb;
  unsigned mf = t->s.tm / 16u, nf = t->s.tn / 8u;
  for (unsigned i = 0; i < mf; i++)
    for (unsigned j = 0; j < nf; j++) {
      zn_kref v = zn_kb_get(b, t->acc[i * nf + j]);
      for (unsigned e = 0; e < 4; e++) {
        zn_kref r = zn_i_addi(b, row, i * 16 + e / 2 * 8),
                c = zn_i_addi(b, zn_i_add(b, col, zn_i_muli(b, pair, 2)), j * 8 + e % 2);
        zn_kref at = t->g->rows_inner ? zn_i_add(b, zn_i_muli(b, c, t->s.bm), r) : zn_i_add(b, zn_i_muli(b, r, t->s.bn), c);
        zn_kb_store(b, shared, at, zn_kb_extract(b, v, e));
      }
    }
}

static void team_body(zn_lw *lw, tile *t, zn_kref shared) {
  zn_kb *b = &lw->kb;
  int64_t across = t->s.bn / t->s.tn; /* warps along a row of the block */
  zn_kref warp = zn_i_divi(b, t->thread, 32), lane = zn_i_remi(b, t->thread, 32), group = zn_i_divi(b, lane, 4),
          pair = zn_i_remi(b, lane, 4);
  zn_kref row = zn_i_add(b, zn_i_muli(b, zn_i_divi(b, warp, across), t->s.tm), group);
  zn_kref col0 = zn_i_muli(b, zn_i_remi(b, warp, across), t->s.tn), col = zn_i_add(b, col0, group);
  zn_kref zero = zn_mma_sum(t->format) == ZN_I32 ? zn_kb_int(b, ZN_I32, 0) : zn_kb_float(b, ZN_F32, 0);
  zero = zn_kb_splat(b, zero, 4);
  for (unsigned i = 0; i < t->s.tm / 16u * (t->s.tn / 8u); i++) t->acc[i] = zn_kb_var(b, zero);
  zn_kref begin = zn_lw_ix(lw, t->k_begin), end = zn_lw_ix(lw, t->k_end);
  stage(lw, t, begin, true);
  zn_kref k0 = zn_kb_for(b, begin, end, t->s.bk, ZN_FOR_SERIAL, 0);
  put_stage(lw, t);
  barrier(lw);
  zn_kref next = zn_i_addi(b, k0, t->s.bk), more = zn_kb_cmp(b, ZN_K_Lt, next, end);
  stage(lw, t, zn_kb_select(b, more, next, begin), false);
  multiply(lw, t, row, col, pair);
  barrier(lw);
  zn_kb_end(b);
  put_block(lw, t, shared, row, col0, pair);
  barrier(lw);
  zn_gs_hand_out(lw, t, shared);
}

/* Words of shared memory: the two tiles, or the block of C. */
static uint64_t shared_words(const tile *t) {
  uint64_t tiles = ((uint64_t)t->s.bm + t->s.bn) * (uint64_t)pitch(t), block = (uint64_t)t->s.bm * t->s.bn;
  return tiles > block ? tiles : block;
}

static unsigned threads_of(const zn_gs_shape *s) { return 32u * (s->bm / s->tm) * (s->bn / s->tn); }

/* Cycles, as in gemm_simt.c: matrix units do a piece of 16 x 8 x 16 in about 3 cycles a multiprocessor; moving the tiles
 * costs instructions, fewer where they move WIDE. */
static double cost(zn_lw *lw, tile *t, const zn_gs_shape *s, unsigned parts) {
  const double LANES = 128, LATENCY = 1000, LAUNCH = 4000, THREADS = 1024;
  const zn_gemm *g = t->g;
  t->s = *s;
  double blocks = parts * zn_gs_extent(lw, g->m) / s->bm * zn_gs_extent(lw, g->n) / s->bn;
  double rows = zn_gs_extent(lw, g->m) / s->bm, cols = zn_gs_extent(lw, g->n) / s->bn;
  blocks = parts * (double)(int64_t)(rows + 0.999) * (double)(int64_t)(cols + 0.999);
  for (uint32_t i = 0; i < g->num_batch; i++) blocks *= zn_gs_extent(lw, g->batch[i]);
  double cores = lw->caps->cores ? lw->caps->cores : 64, threads = threads_of(s);
  double steps = (double)(int64_t)(zn_gs_extent(lw, g->k) / s->bk / parts + 0.999);
  double words = (double)s->bk / t->per, pieces = (double)s->bm * s->bn * words / 1024;
  double loads = (s->tm / 4.0 + s->tn / 4.0) * words / 8 * threads;
  double moved = s->bm * (is_wide(lw, t, true) ? 2.0 : 14.0) + s->bn * (is_wide(lw, t, false) ? 2.0 : 14.0);
  double step = pieces * 3 + (moved * 2 * words + loads) / LANES;
  double room = THREADS / threads < 1 ? 1 : THREADS / threads, queue = (double)(int64_t)(blocks / cores + 0.999);
  if (queue < 1) queue = 1;
  double together = queue < room ? queue : room, turn = step * together > LATENCY ? step * together : LATENCY;
  double time = steps * turn * (queue / together) + (double)s->bm * s->bn * 20 / LANES * queue + LAUNCH;
  if (parts > 1) time += LAUNCH + zn_gs_extent(lw, g->m) * zn_gs_extent(lw, g->n) * parts / cores / 8;
  return time;
}

static bool room_to_stage(zn_lw *lw, tile *t, const zn_gs_shape *s) {
  t->s = *s;
  t->threads = threads_of(s);
  return count(t, true, is_wide(lw, t, true)) <= ZN_GS_STAGE && count(t, false, is_wide(lw, t, false)) <= ZN_GS_STAGE &&
         count(t, true, is_wide(lw, t, true)) > 0 && count(t, false, is_wide(lw, t, false)) > 0;
}

static bool choose(zn_lw *lw, tile *t) {
  double best = 0;
  zn_gs_shape found = {0};
  unsigned parts = 1;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (unsigned p = 1; p <= 16; p *= 2) {
      zn_gs_shape s = shapes[i];
      s.bk = (uint16_t)(s.bk / 2 * t->per);
      if (!room_to_stage(lw, t, &s) || (p > 1 && zn_gs_extent(lw, t->g->k) / p < 128)) continue;
      double time = cost(lw, t, &s, p);
      if (best != 0 && time >= best) continue;
      best = time;
      found = s;
      parts = p;
    }
  t->s = found;
  t->parts = parts;
  t->threads = best != 0 ? threads_of(&found) : 0;
  return best != 0;
}

bool zn_gs_mma(zn_lw *lw, tile *t) {
  zn_kb *b = &lw->kb;
  t->format = zn_gs_format(t->g);
  t->per = zn_mma_per_word(t->format);
  if (!choose(lw, t)) return false;
  if (t->parts > 1) t->partial = zn_gs_scratch(lw, t->g, t->parts);
  zn_lw_kernel(lw, t->g->node, t->g->hint);
  zn_kref shared = zn_kb_alloc(b, t->g->t, shared_words(t));
  t->sa = shared;
  t->sb = zn_kb_ptradd(b, shared, zn_kb_idx(b, (int64_t)t->s.bm * pitch(t) * 4));
  zn_gs_open(lw, t);
  team_body(lw, t, shared);
  zn_kb_end(b);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return true;
}
