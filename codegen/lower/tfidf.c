/* TfIdfVectorizer: one row per grid step; every window of every gram length is looked up in the pool of that length (the first
 * equal entry counts), then the counts become frequencies or weights. Strings are replaced by their number in the pool. */
#include <string.h>

#include "codegen/lower/labels.h"

typedef struct tfidf {
  zn_vid x, y;
  int rank;
  zn_expr row, rows, items, width;
  zn_loc counts, pool, index;
  uint32_t num_pool, num_index, num_counts;
  const int64_t *starts; /* ngram_counts: first pool item of each length */
  const zn_lookup *words; /* of strings, else NULL */
} tfidf;

static zn_expr count_at(zn_lw *lw, const tfidf *s, zn_expr col) {
  return zn_ex_add(lw->ex, zn_ex_mul(lw->ex, s->row, s->width), col);
}

static zn_kref item(zn_lw *lw, const tfidf *s, zn_expr pos) {
  zn_expr at[2] = {s->row, pos};
  zn_kref k = zn_lw_load(lw, s->x, s->rank == 2 ? at : &pos);
  if (s->words) k = zn_lookup_find(lw, s->words, k);
  return zn_lw_kdtype(lw, k) == ZN_I64 ? k : zn_kb_cvt(&lw->kb, k, ZN_I64);
}

static int64_t length_end(const tfidf *s, int64_t n) {
  return n < (int64_t)s->num_counts ? s->starts[n] : (int64_t)s->num_pool;
}

/* Counts the grams of n items taken every `skip` items. */
static void count_grams(zn_lw *lw, const tfidf *s, int64_t n, int64_t skip) {
  zn_kb *b = &lw->kb;
  zn_exprs *ex = lw->ex;
  const int64_t lo = s->starts[n - 1], num = (length_end(s, n) - lo) / n;
  int64_t first = 0; /* number of the length's first gram */
  for (int64_t m = 1; m < n; m++) first += (length_end(s, m) - s->starts[m - 1]) / m;
  const int64_t known = (int64_t)s->num_index - first < num ? (int64_t)s->num_index - first : num;
  if (known <= 0) return;
  zn_expr windows = zn_ex_max(ex, zn_ex_addi(ex, s->items, -(n - 1) * skip), zn_ex_const(ex, 0));
  zn_expr at = zn_lw_for(lw, windows, ZN_FOR_SERIAL, 0);
  zn_kref found = zn_kb_var(b, zn_kb_idx(b, num));
  zn_expr j = zn_lw_for(lw, zn_ex_const(ex, num), ZN_FOR_SERIAL, 0);
  zn_kref same = zn_kb_int(b, ZN_BOOL, 1);
  for (int64_t k = 0; k < n; k++) {
    zn_kref have = item(lw, s, zn_ex_addi(ex, at, k * skip));
    zn_kref p = zn_lw_ptr_loc(lw, s->pool, ZN_KP_IN, ZN_I64);
    zn_kref want = zn_lw_load_at(lw, p, ZN_I64, zn_ex_addi(ex, zn_ex_muli(ex, j, n), lo + k));
    zn_kref eq = zn_kb_cmp(b, ZN_K_Eq, have, want);
    same = zn_kb_bin(b, ZN_K_And, same, eq);
  }
  zn_kref jk = zn_lw_ix(lw, j), old = zn_kb_get(b, found);
  zn_kref earlier = zn_kb_bin(b, ZN_K_Min, old, jk);
  zn_kb_set(b, found, zn_kb_select(b, same, earlier, old));
  zn_lw_end(lw);
  zn_kref hit = zn_kb_get(b, found);
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, hit, zn_kb_idx(b, known)));
  zn_kref table = zn_lw_ptr_loc(lw, s->index, ZN_KP_IN, ZN_I64);
  zn_expr gram = zn_lw_as_expr(lw, hit, zn_ex_const(ex, known));
  zn_kref col = zn_kb_cvt(b, zn_lw_load_at(lw, table, ZN_I64, zn_ex_addi(ex, gram, first)), ZN_IDX);
  zn_expr to = count_at(lw, s, zn_lw_as_expr(lw, col, s->width));
  zn_kref p = zn_lw_ptr_loc(lw, s->counts, ZN_KP_INOUT, ZN_F32);
  zn_kref c = zn_lw_load_at(lw, p, ZN_F32, to), one = zn_kb_float(b, ZN_F32, 1);
  zn_lw_store_at(lw, p, ZN_F32, to, zn_kb_bin(b, ZN_K_Add, c, one));
  zn_kb_end(b);
  zn_lw_end(lw);
}

/* Weight of every column: IDF takes the last gram's that maps there, TFIDF the product. */
static zn_loc column_weights(zn_lw *lw, const zn_node *node, int64_t width, bool product) {
  uint32_t ni, nw;
  const int64_t *index = zn_node_ints(node, "ngram_indexes", &ni);
  const double *w = zn_node_floats(node, "weights", &nw);
  float *out = ZN_ARRAY(&lw->ctx->graph, float, width + 1);
  for (int64_t i = 0; i < width; i++) out[i] = 1;
  for (uint32_t k = 0; k < ni; k++) {
    const float v = (float)(k < nw ? w[k] : 1);
    out[index[k]] = product ? out[index[k]] * v : v;
  }
  return zn_lw_const(lw, "tfidf_weights", ZN_F32, (uint64_t)width, out);
}

static void write_row(zn_lw *lw, const tfidf *s, bool product, zn_loc weights) {
  zn_kb *b = &lw->kb;
  zn_expr col = zn_lw_for(lw, s->width, ZN_FOR_VECTOR, 0);
  zn_kref p = zn_lw_ptr_loc(lw, s->counts, ZN_KP_INOUT, ZN_F32);
  zn_kref c = zn_lw_load_at(lw, p, ZN_F32, count_at(lw, s, col));
  if (weights.kind != ZN_LOC_NONE) {
    zn_kref wp = zn_lw_ptr_loc(lw, weights, ZN_KP_IN, ZN_F32);
    zn_kref w = zn_lw_load_at(lw, wp, ZN_F32, col);
    if (product) {
      c = zn_kb_bin(b, ZN_K_Mul, c, w);
    } else {
      zn_kref some = zn_kb_cmp(b, ZN_K_Ne, c, zn_kb_float(b, ZN_F32, 0));
      c = zn_kb_select(b, some, w, c);
    }
  }
  zn_expr at[2] = {s->row, col};
  zn_lw_emit(lw, s->y, s->rank == 2 ? at : &col, c);
  zn_lw_end(lw);
}

/* The pool as integers: a string is the number of its first appearance. */
static const int64_t *number_words(zn_lw *lw, tfidf *s, const zn_attr *pool) {
  int64_t *number = ZN_ARRAY(lw->arena, int64_t, pool->n + 1);
  zn_keys k = {.s = pool->u.ss, .n = pool->n};
  s->num_pool = pool->n;
  s->words = zn_lookup_make(lw, pool, &k, false);
  for (uint32_t i = 0; i < pool->n; i++) number[i] = zn_lookup_first(&k, i);
  return number;
}

static zn_status tfidf_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_exprs *ex = lw->ex;
  tfidf s = {.x = node->in[0], .y = node->out[0], .rank = zn_lw_type(lw, node->in[0])->rank};
  const int64_t *pool = zn_node_ints(node, "pool_int64s", &s.num_pool);
  const zn_attr *words = zn_node_attr(node, "pool_strings");
  if (words && zn_lw_type(lw, s.x)->dtype == ZN_STR) pool = number_words(lw, &s, words);
  const int64_t *index = zn_node_ints(node, "ngram_indexes", &s.num_index);
  const char *mode = zn_node_str(node, "mode");
  const bool product = strcmp(mode, "TFIDF") == 0;
  int64_t lo = zn_node_int(node, "min_gram_length"), hi = zn_node_int(node, "max_gram_length");
  const int64_t skips = zn_node_int(node, "max_skip_count");
  s.starts = zn_node_ints(node, "ngram_counts", &s.num_counts);
  if (!s.num_pool || s.rank < 1)
    return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, node),
                   "the pool of integer n-grams is empty, or the input a scalar");
  int64_t width = 0;
  for (uint32_t k = 0; k < s.num_index; k++) width = index[k] >= width ? index[k] + 1 : width;
  s.width = zn_ex_const(ex, width);
  s.items = zn_lw_dim(lw, s.x, s.rank - 1);
  s.rows = s.rank == 2 ? zn_lw_dim(lw, s.x, 0) : zn_ex_const(ex, 1);
  s.pool = zn_lw_const(lw, "tfidf_pool", ZN_I64, s.num_pool, pool);
  s.index = zn_lw_const(lw, "tfidf_index", ZN_I64, s.num_index, index);
  s.counts = zn_lw_scratch(lw, zn_ex_muli(ex, zn_ex_mul(ex, s.rows, s.width), 4));
  zn_loc weights = {ZN_LOC_NONE, 0}; /* counts as they are need none */
  if (mode[0] != 'T' || product) weights = column_weights(lw, node, width, product);
  zn_lw_kernel(lw, n, "tfidf");
  zn_lw_grid(lw, 1, &s.rows, &s.row);
  zn_kref p = zn_lw_ptr_loc(lw, s.counts, ZN_KP_INOUT, ZN_F32), zero = zn_kb_float(&lw->kb, ZN_F32, 0);
  zn_expr col = zn_lw_for(lw, s.width, ZN_FOR_VECTOR, 0);
  zn_lw_store_at(lw, p, ZN_F32, count_at(lw, &s, col), zero);
  zn_lw_end(lw);
  for (int64_t k = lo; k <= hi && k <= (int64_t)s.num_counts; k++)
    for (int64_t step = 1; step <= (k == 1 ? 1 : skips + 1); step++) count_grams(lw, &s, k, step);
  write_row(lw, &s, product, weights);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_tfidfvectorizer = {NULL, tfidf_kernel};
