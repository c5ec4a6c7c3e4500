/* StringConcat, StringSplit, StringNormalizer. What has to be counted is counted first; then the bytes have a place. */
#include "codegen/lower/labels.h"
#include "codegen/lower/sortkeys.h"
#include "codegen/lower/strvalue.h"

static void store_cell(zn_lw *lw, zn_loc cell, zn_kref v) {
  zn_kb *b = &lw->kb;
  zn_kref p = zn_lw_ptr_loc(lw, cell, ZN_KP_OUT, ZN_I64), zero = zn_kb_idx(b, 0);
  zn_kb_store(b, p, zero, zn_kb_cvt(b, v, ZN_I64));
}

static void add_to(zn_lw *lw, zn_kref var, zn_kref v) {
  zn_kref old = zn_kb_get(&lw->kb, var);
  zn_kb_set(&lw->kb, var, zn_s_add(lw, old, v));
}

static void open_loops(zn_lw *lw, const zn_type *t, zn_expr *idx) {
  for (int d = 0; d < t->rank; d++) idx[d] = zn_lw_for(lw, t->dims[d], ZN_FOR_SERIAL, 0);
}

static void close_loops(zn_lw *lw, const zn_type *t) {
  for (int d = 0; d < t->rank; d++) zn_lw_end(lw);
}

/* ---------------------------------------------------------------- StringConcat */

static zn_status concat(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid x[2] = {node->in[0], node->in[1]}, y = node->out[0];
  const zn_type t = *zn_lw_type(lw, y);
  zn_loc cell = zn_lw_scratch(lw, zn_ex_const(lw->ex, 8)), bytes = cell;
  zn_expr total = zn_ex_var(lw->ex, "bytes", ZN_EX_NONE), idx[ZN_MAX_RANK];
  for (int pass = 0; pass < 2; pass++) {
    if (pass) bytes = zn_lw_keep(lw, total);
    zn_lw_kernel(lw, n, pass ? "concat" : "concat_size");
    zn_kb *b = &lw->kb;
    zn_kref used = zn_kb_var(b, zn_kb_idx(b, 0)), pool = pass ? zn_lw_ptr_loc(lw, bytes, ZN_KP_OUT, ZN_U8) : 0;
    open_loops(lw, &t, idx);
    zn_kref start = zn_kb_get(b, used);
    for (int k = 0; k < 2; k++) {
      zn_kref s = zn_lw_load_bcast(lw, x[k], t.rank, t.dims, idx), len = zn_sv_len(lw, s);
      if (pass) {
        zn_kref from = zn_sv_data(lw, s);
        zn_sv_move(lw, zn_kb_ptradd(b, pool, zn_kb_get(b, used)), from, len);
      }
      add_to(lw, used, len);
    }
    if (pass) {
      zn_expr at = zn_lw_offset(lw, y, idx);
      zn_kref to = zn_lw_load_at(lw, zn_lw_ptr(lw, y, ZN_KP_OUT), ZN_STR, at);
      zn_kref len = zn_kb_bin(b, ZN_K_Sub, zn_kb_get(b, used), start);
      zn_sv_set(lw, to, zn_kb_ptradd(b, pool, start), len);
    }
    close_loops(lw, &t);
    if (!pass) store_cell(lw, cell, zn_kb_get(b, used));
    zn_lw_kernel_end(lw);
    if (!pass) zn_lw_define_sym(lw, total, cell);
  }
  return ZN_OK;
}

/* ---------------------------------------------------------------- StringSplit */

typedef struct splitter {
  zn_str delim;  /* empty: runs of white space */
  int64_t max;   /* -1: no limit */
  zn_loc bytes;  /* of the delimiter */
  zn_kref count; /* variable: pieces so far */
  zn_kref table; /* descriptors of the pieces of this element, 0: count only */
} splitter;

static zn_kref byte_at(zn_lw *lw, zn_kref data, zn_kref i) {
  return zn_kb_cvt(&lw->kb, zn_kb_load(&lw->kb, ZN_U8, 1, data, i), ZN_IDX);
}

static zn_kref is_space(zn_lw *lw, zn_kref c) { /* blank, \t \n \v \f \r */
  zn_kb *b = &lw->kb;
  zn_kref blank = zn_kb_cmp(b, ZN_K_Eq, c, zn_kb_idx(b, ' '));
  zn_kref low = zn_kb_cmp(b, ZN_K_Ge, c, zn_kb_idx(b, '\t')), high = zn_kb_cmp(b, ZN_K_Le, c, zn_kb_idx(b, '\r'));
  zn_kref ctl = zn_kb_bin(b, ZN_K_And, low, high);
  return zn_kb_bin(b, ZN_K_Or, blank, ctl);
}

static void found(zn_lw *lw, const splitter *s, zn_kref data, zn_kref from, zn_kref to) {
  zn_kb *b = &lw->kb;
  if (s->table) {
    zn_kref size = zn_kb_idx(b, ZN_STR_BYTES), at = zn_s_mul(lw, zn_kb_get(b, s->count), size);
    zn_kref len = zn_kb_bin(b, ZN_K_Sub, to, from);
    zn_kref text = zn_kb_ptradd(b, data, from);
    zn_sv_set(lw, zn_kb_ptradd(b, s->table, at), text, len);
  }
  zn_s_bump(lw, s->count);
}

/* May one more cut be made? */
static zn_kref may_cut(zn_lw *lw, const splitter *s) {
  zn_kb *b = &lw->kb;
  if (s->max < 0) return zn_kb_int(b, ZN_BOOL, 1);
  zn_kref n = zn_kb_get(b, s->count);
  return zn_kb_cmp(b, ZN_K_Lt, n, zn_kb_idx(b, s->max));
}

static void split_by_space(zn_lw *lw, const splitter *s, zn_kref data, zn_kref len) {
  zn_kb *b = &lw->kb;
  zn_kref from = zn_kb_var(b, zn_kb_idx(b, 0)), to = zn_kb_var(b, zn_kb_idx(b, 0));
  zn_kb_loop(b);
  zn_kb_loop(b);
  zn_kref i = zn_kb_get(b, from);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, i, len));
  zn_kb_break(b, zn_kb_un(b, ZN_K_Not, is_space(lw, byte_at(lw, data, i))));
  zn_kb_set(b, from, zn_s_inc(lw, i));
  zn_kb_end(b);
  zn_kref first = zn_kb_get(b, from);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, first, len));
  zn_kref cut = may_cut(lw, s);
  zn_kb_set(b, to, first);
  zn_kb_loop(b);
  zn_kref j = zn_kb_get(b, to);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, j, len));
  zn_kb_break(b, zn_kb_bin(b, ZN_K_And, cut, is_space(lw, byte_at(lw, data, j))));
  zn_kb_set(b, to, zn_s_inc(lw, j));
  zn_kb_end(b);
  zn_kref end = zn_kb_get(b, to);
  found(lw, s, data, first, end);
  zn_kb_set(b, from, end);
  zn_kb_end(b);
}

static void split_by_delim(zn_lw *lw, const splitter *s, zn_kref data, zn_kref len) {
  zn_kb *b = &lw->kb;
  zn_kref zero = zn_kb_idx(b, 0), from = zn_kb_var(b, zero), at = zn_kb_var(b, zero);
  zn_kref delim = zn_lw_ptr_loc(lw, s->bytes, ZN_KP_IN, ZN_U8), n = zn_kb_idx(b, (int64_t)s->delim.len);
  zn_kb_loop(b);
  zn_kref i = zn_kb_get(b, at), first = zn_kb_get(b, from);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Gt, i, len));
  zn_kref left = zn_kb_bin(b, ZN_K_Sub, len, i), part = zn_kb_bin(b, ZN_K_Min, left, n);
  zn_kref diff = zn_sv_compare_bytes(lw, zn_kb_ptradd(b, data, i), part, delim, n);
  zn_kref may = may_cut(lw, s), hit = zn_kb_bin(b, ZN_K_And, zn_kb_cmp(b, ZN_K_Eq, diff, zero), may);
  zn_kref end = zn_kb_cmp(b, ZN_K_Eq, i, len);
  zn_kb_if(b, zn_kb_bin(b, ZN_K_Or, hit, end));
  found(lw, s, data, first, i);
  zn_kb_end(b);
  zn_kref behind = zn_s_add(lw, i, n), next = zn_s_inc(lw, i);
  zn_kb_set(b, from, zn_kb_select(b, hit, behind, first));
  zn_kb_set(b, at, zn_kb_select(b, hit, behind, next));
  zn_kb_end(b);
}

static void split_one(zn_lw *lw, splitter *s, zn_kref text) {
  zn_kref data = zn_sv_data(lw, text), len = zn_sv_len(lw, text);
  s->count = zn_kb_var(&lw->kb, zn_kb_idx(&lw->kb, 0));
  if (s->delim.len) split_by_delim(lw, s, data, len);
  else split_by_space(lw, s, data, len);
}

static void count_pieces(zn_lw *lw, splitter *s, zn_vid x, zn_vid z, zn_loc cell) {
  const zn_type t = *zn_lw_type(lw, x);
  zn_kb *b = &lw->kb;
  zn_expr idx[ZN_MAX_RANK];
  zn_kref most = zn_kb_var(b, zn_kb_idx(b, 0));
  open_loops(lw, &t, idx);
  split_one(lw, s, zn_lw_load(lw, x, idx));
  zn_kref n = zn_kb_get(b, s->count), old = zn_kb_get(b, most);
  zn_kb_set(b, most, zn_kb_bin(b, ZN_K_Max, old, n));
  if (z) zn_lw_store(lw, z, idx, zn_kb_cvt(b, n, ZN_I64));
  close_loops(lw, &t);
  store_cell(lw, cell, zn_kb_get(b, most));
}

static void write_pieces(zn_lw *lw, splitter *s, zn_vid x, zn_vid y, zn_loc empty) {
  const zn_type t = *zn_lw_type(lw, x);
  zn_kb *b = &lw->kb;
  zn_expr idx[ZN_MAX_RANK];
  open_loops(lw, &t, idx);
  zn_kref nothing = zn_lw_ptr_loc(lw, empty, ZN_KP_IN, ZN_U64), width = zn_lw_ix(lw, zn_lw_dim(lw, y, t.rank));
  idx[t.rank] = zn_ex_const(lw->ex, 0);
  zn_expr row = zn_lw_offset(lw, y, idx);
  s->table = zn_lw_load_at(lw, zn_lw_ptr(lw, y, ZN_KP_OUT), ZN_STR, row);
  zn_kref k = zn_s_for(lw, width), at = zn_s_mul(lw, k, zn_kb_idx(b, ZN_STR_BYTES));
  zn_sv_copy(lw, zn_kb_ptradd(b, s->table, at), nothing);
  zn_kb_end(b);
  split_one(lw, s, zn_lw_load(lw, x, idx));
  close_loops(lw, &t);
}

static zn_str *empty_string(zn_lw *lw) {
  zn_str *s = ZN_NEW(lw->arena, zn_str);
  s->ptr = "";
  return s;
}

static zn_status split(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  const zn_attr *d = zn_node_attr(node, "delimiter"), *m = zn_node_attr(node, "maxsplit");
  splitter s = {.max = m ? m->u.i : -1};
  if (d) s.delim = d->u.s;
  if (s.delim.len) s.bytes = zn_lw_const(lw, "delimiter", ZN_U8, s.delim.len, s.delim.ptr);
  zn_vid x = node->in[0], y = node->out[0], z = node->num_out > 1 ? node->out[1] : 0;
  zn_loc cell = zn_lw_scratch(lw, zn_ex_const(lw->ex, 8)), empty = zn_lw_strings(lw, empty_string(lw), 1);
  zn_lw_kernel(lw, n, "split_count");
  count_pieces(lw, &s, x, z, cell);
  zn_lw_kernel_end(lw);
  if (!y) return ZN_OK;
  zn_expr most = zn_lw_dim(lw, y, zn_lw_type(lw, x)->rank);
  if (zn_ex_kind(lw->ex, most) == ZN_EX_SYM) zn_lw_define_sym(lw, most, cell);
  zn_lw_kernel(lw, n, "split");
  write_pieces(lw, &s, x, y, empty);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

/* ---------------------------------------------------------------- StringNormalizer */

enum { TWO_BYTES = 0x800 }; /* code points below it have at most two bytes, and so has their other case */

/* Letters that have another case: from..to, every step-th; upper = lower + up. */
static const struct {
  uint16_t from, to, step;
  int16_t up;
} letters[] = {{'a', 'z', 1, -32},       {0xe0, 0xf6, 1, -32},    {0xf8, 0xfe, 1, -32},    {0x101, 0x12f, 2, -1},
               {0x133, 0x137, 2, -1},    {0x13a, 0x148, 2, -1},   {0x14b, 0x177, 2, -1},   {0x17a, 0x17e, 2, -1},
               {0x3b1, 0x3c1, 1, -32},   {0x3c3, 0x3cb, 1, -32},  {0x430, 0x44f, 1, -32},  {0x450, 0x45f, 1, -80},
               {0x461, 0x481, 2, -1},    {0x561, 0x586, 1, -48}};

static uint16_t *case_table(zn_arena *a, bool upper) {
  uint16_t *t = ZN_ARRAY(a, uint16_t, TWO_BYTES);
  for (uint16_t c = 0; c < TWO_BYTES; c++) t[c] = c;
  for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
    for (uint16_t c = letters[i].from; c <= letters[i].to; c = (uint16_t)(c + letters[i].step)) {
      uint16_t other = (uint16_t)(c + letters[i].up);
      if (upper) t[c] = other;
      else t[other] = c;
    }
  return t;
}

/* n bytes at src, in the case of the table, to dst; the length stays. */
static void change_case(zn_lw *lw, zn_loc table, zn_kref dst, zn_kref src, zn_kref n) {
  zn_kb *b = &lw->kb;
  zn_kref map = zn_lw_ptr_loc(lw, table, ZN_KP_IN, ZN_U16), at = zn_kb_var(b, zn_kb_idx(b, 0));
  zn_kref six = zn_kb_idx(b, 6), low6 = zn_kb_idx(b, 63);
  zn_kb_loop(b);
  zn_kref i = zn_kb_get(b, at), next = zn_s_inc(lw, i);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, i, n));
  zn_kref c = byte_at(lw, src, i), one = zn_kb_cmp(b, ZN_K_Lt, c, zn_kb_idx(b, 0x80));
  zn_kref lead = zn_kb_cmp(b, ZN_K_Ge, c, zn_kb_idx(b, 0xc2)), short2 = zn_kb_cmp(b, ZN_K_Lt, c, zn_kb_idx(b, 0xe0));
  zn_kref whole = zn_kb_cmp(b, ZN_K_Lt, next, n), two = zn_kb_bin(b, ZN_K_And, zn_kb_bin(b, ZN_K_And, lead, short2), whole);
  zn_kref last = zn_kb_bin(b, ZN_K_Sub, n, zn_kb_idx(b, 1)), safe = zn_kb_bin(b, ZN_K_Min, next, last);
  zn_kref tail = zn_kb_bin(b, ZN_K_And, byte_at(lw, src, safe), low6);
  zn_kref wide = zn_kb_bin(b, ZN_K_Or, zn_kb_bin(b, ZN_K_Shl, zn_kb_bin(b, ZN_K_And, c, zn_kb_idx(b, 31)), six), tail);
  zn_kref code = zn_kb_select(b, two, wide, zn_kb_select(b, one, c, zn_kb_idx(b, 0)));
  zn_kref to = zn_kb_cvt(b, zn_kb_load(b, ZN_U16, 1, map, code), ZN_IDX);
  zn_kref lead2 = zn_kb_idx(b, 0xc0), head = zn_kb_bin(b, ZN_K_Or, zn_kb_bin(b, ZN_K_Shr, to, six), lead2);
  zn_kref plain = zn_kb_select(b, one, to, c), first = zn_kb_select(b, two, head, plain);
  zn_kb_store(b, dst, i, zn_kb_cvt(b, first, ZN_U8));
  zn_kb_if(b, two);
  zn_kref mark = zn_kb_idx(b, 0x80), second = zn_kb_bin(b, ZN_K_Or, zn_kb_bin(b, ZN_K_And, to, low6), mark);
  zn_kb_store(b, dst, next, zn_kb_cvt(b, second, ZN_U8));
  zn_kb_end(b);
  zn_kref behind = zn_s_inc(lw, next);
  zn_kb_set(b, at, zn_kb_select(b, two, behind, next));
  zn_kb_end(b);
}

typedef struct normalizer {
  zn_vid x, y;
  int rank;
  zn_expr count, total; /* elements; bytes of all of them */
  char action;          /* N L U */
  bool exact;
  const zn_lookup *stop; /* NULL: no stop words */
  zn_loc lower, to_case; /* tables */
  zn_loc room;           /* lowered bytes for the comparison */
  zn_loc word;           /* descriptor of those */
  zn_loc kept;           /* i32 numbers of the elements that stay */
} normalizer;

static zn_kref element(zn_lw *lw, const normalizer *s, zn_expr i) {
  zn_expr idx[2] = {zn_ex_const(lw->ex, 0), i};
  return zn_lw_load(lw, s->x, s->rank == 2 ? idx : &i);
}

/* Stop words in the form they are compared in. */
static const zn_lookup *stop_words(zn_lw *lw, const zn_attr *stop, bool exact) {
  const uint16_t *low = case_table(lw->arena, false);
  zn_str *w = ZN_ARRAY(lw->arena, zn_str, stop->n);
  for (uint32_t k = 0; k < stop->n; k++) {
    const zn_str *given = &stop->u.ss[k];
    unsigned char *c = (unsigned char *)zn_arena_strndup(lw->arena, given->len ? given->ptr : "", given->len);
    w[k] = (zn_str){(char *)c, given->len};
    for (uint64_t i = 0; i < w[k].len && !exact; i++) {
      bool two = c[i] >= 0xc2 && c[i] < 0xe0 && i + 1 < w[k].len;
      uint16_t to = two ? low[(c[i] & 31) << 6 | (c[i + 1] & 63)] : c[i] < 0x80 ? low[c[i]] : c[i];
      if (two) {
        c[i] = (unsigned char)(0xc0 | to >> 6);
        c[++i] = (unsigned char)(0x80 | (to & 63));
      } else {
        c[i] = (unsigned char)to;
      }
    }
  }
  zn_keys k = {.s = w, .n = stop->n};
  return zn_lookup_make(lw, w, &k, false);
}

static void sum_bytes(zn_lw *lw, const normalizer *s, zn_loc cell) {
  zn_kb *b = &lw->kb;
  zn_kref sum = zn_kb_var(b, zn_kb_idx(b, 0));
  zn_expr i = zn_lw_for(lw, s->count, ZN_FOR_SERIAL, 0);
  add_to(lw, sum, zn_sv_len(lw, element(lw, s, i)));
  zn_lw_end(lw);
  store_cell(lw, cell, zn_kb_get(b, sum));
}

static void choose(zn_lw *lw, const normalizer *s, zn_loc cell) {
  zn_kb *b = &lw->kb;
  zn_kref kept = zn_lw_ptr_loc(lw, s->kept, ZN_KP_OUT, ZN_I32), n = zn_kb_var(b, zn_kb_idx(b, 0));
  zn_kref used = zn_kb_var(b, zn_kb_idx(b, 0)), room = 0, word = 0;
  if (s->stop && !s->exact) {
    room = zn_lw_ptr_loc(lw, s->room, ZN_KP_INOUT, ZN_U8);
    word = zn_lw_ptr_loc(lw, s->word, ZN_KP_INOUT, ZN_U64);
  }
  zn_expr i = zn_lw_for(lw, s->count, ZN_FOR_SERIAL, 0);
  zn_kref text = element(lw, s, i), stays = zn_kb_int(b, ZN_BOOL, 1);
  if (room) {
    zn_kref len = zn_sv_len(lw, text), to = zn_kb_ptradd(b, room, zn_kb_get(b, used));
    change_case(lw, s->lower, to, zn_sv_data(lw, text), len);
    zn_sv_set(lw, word, to, len);
    add_to(lw, used, len);
    text = word;
  }
  if (s->stop) {
    zn_kref hit = zn_lookup_find(lw, s->stop, text);
    stays = zn_kb_cmp(b, ZN_K_Eq, hit, zn_kb_idx(b, zn_lookup_count(s->stop)));
  }
  zn_kb_if(b, stays);
  zn_kref which = zn_lw_ix(lw, i);
  zn_s_store(lw, kept, zn_kb_get(b, n), which);
  zn_s_bump(lw, n);
  zn_kb_end(b);
  zn_lw_end(lw);
  zn_kref one = zn_kb_idx(b, 1), some = zn_kb_get(b, n), zero = zn_kb_idx(b, 0);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Eq, some, zero));
  zn_s_store(lw, kept, zero, zn_kb_idx(b, -1)); /* stands for one empty string */
  zn_kb_end(b);
  store_cell(lw, cell, zn_kb_bin(b, ZN_K_Max, zn_kb_get(b, n), one));
}

static void write_kept(zn_lw *lw, const normalizer *s, zn_loc bytes, zn_loc empty) {
  zn_kb *b = &lw->kb;
  zn_kref kept = zn_lw_ptr_loc(lw, s->kept, ZN_KP_IN, ZN_I32), used = zn_kb_var(b, zn_kb_idx(b, 0));
  zn_kref nothing = zn_lw_ptr_loc(lw, empty, ZN_KP_IN, ZN_U64), zero = zn_kb_idx(b, 0);
  zn_kref pool = s->action == 'N' ? 0 : zn_lw_ptr_loc(lw, bytes, ZN_KP_OUT, ZN_U8);
  zn_expr i = zn_lw_for(lw, zn_lw_dim(lw, s->y, s->rank - 1), ZN_FOR_SERIAL, 0);
  zn_expr at[2] = {zn_ex_const(lw->ex, 0), i};
  zn_expr place = zn_lw_offset(lw, s->y, s->rank == 2 ? at : &i);
  zn_kref to = zn_lw_load_at(lw, zn_lw_ptr(lw, s->y, ZN_KP_OUT), ZN_STR, place);
  zn_kref k = zn_s_load(lw, kept, zn_lw_ix(lw, i));
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, k, zero));
  zn_sv_copy(lw, to, nothing);
  zn_kb_else(b);
  zn_kref text = element(lw, s, zn_lw_as_expr(lw, k, s->count));
  if (pool) {
    zn_kref len = zn_sv_len(lw, text), dst = zn_kb_ptradd(b, pool, zn_kb_get(b, used));
    change_case(lw, s->to_case, dst, zn_sv_data(lw, text), len);
    zn_sv_set(lw, to, dst, len);
    add_to(lw, used, len);
  } else {
    zn_sv_copy(lw, to, text);
  }
  zn_kb_end(b);
  zn_lw_end(lw);
}

static zn_status normalize(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  const zn_attr *stop = zn_node_attr(node, "stopwords");
  normalizer s = {.x = node->in[0], .y = node->out[0], .rank = zn_lw_type(lw, node->in[0])->rank};
  zn_exprs *ex = lw->ex;
  s.action = zn_node_str(node, "case_change_action")[0];
  s.exact = zn_node_int(node, "is_case_sensitive") != 0;
  s.count = zn_lw_dim(lw, s.x, s.rank - 1);
  s.total = zn_ex_var(ex, "bytes", ZN_EX_NONE);
  s.lower = zn_lw_const(lw, "lower_case", ZN_U16, TWO_BYTES, case_table(lw->arena, false));
  s.to_case = s.action == 'U' ? zn_lw_const(lw, "upper_case", ZN_U16, TWO_BYTES, case_table(lw->arena, true)) : s.lower;
  if (stop && stop->n) s.stop = stop_words(lw, stop, s.exact);
  if (s.rank == 2) {
    zn_expr one = zn_ex_const(ex, 1);
    zn_lw_require_le(lw, zn_lw_dim(lw, s.x, 0), one);
    zn_lw_require_le(lw, one, zn_lw_dim(lw, s.x, 0));
  }
  zn_loc cell = zn_lw_scratch(lw, zn_ex_const(ex, 8)), num = zn_lw_scratch(lw, zn_ex_const(ex, 8));
  zn_loc empty = zn_lw_strings(lw, empty_string(lw), 1), bytes = cell;
  zn_lw_kernel(lw, n, "normalize_size");
  sum_bytes(lw, &s, cell);
  zn_lw_kernel_end(lw);
  zn_lw_define_sym(lw, s.total, cell);
  s.kept = zn_s_cells(lw, zn_ex_addi(ex, s.count, 1));
  s.room = zn_lw_scratch(lw, s.total);
  s.word = zn_lw_scratch(lw, zn_ex_const(ex, ZN_STR_BYTES));
  zn_lw_kernel(lw, n, "normalize_choose");
  choose(lw, &s, num);
  zn_lw_kernel_end(lw);
  zn_expr rows = zn_lw_dim(lw, s.y, s.rank - 1);
  if (rows != s.count && zn_ex_kind(ex, rows) == ZN_EX_SYM) zn_lw_define_sym(lw, rows, num);
  if (s.action != 'N') bytes = zn_lw_keep(lw, s.total);
  zn_lw_kernel(lw, n, "normalize");
  write_kept(lw, &s, bytes, empty);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

static zn_status string_kernel(zn_lw *lw, zn_nid n) {
  switch (zn_lw_node(lw, n)->op) {
  case ZN_OP_StringConcat: return concat(lw, n);
  case ZN_OP_StringSplit: return split(lw, n);
  default: return normalize(lw, n);
  }
}
const zn_lower zn_lower_string = {NULL, string_kernel};
