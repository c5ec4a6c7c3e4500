/* Einsum, any equation. Two operands that share summed labels go through the matrix-product schedule (labels grouped into
 * batch, rows, columns and the contracted ones); anything else is a kernel over the output labels with one serial loop per
 * summed label. */
#include <assert.h>
#include <string.h>

#include "codegen/lower/gemm.h"

enum { LETTERS = 52, LABELS = LETTERS + ZN_MAX_RANK, MAX_IN = 16 };
typedef enum group { G_BATCH, G_M, G_N, G_K, G_COUNT } group;

typedef struct term {
  uint8_t label[2 * ZN_MAX_RANK];
  int n;
} term;

typedef struct einsum {
  zn_vid in[MAX_IN], y;
  uint32_t num;
  term t[MAX_IN], out;
  zn_expr dim[LABELS]; /* extent, 0 while the label is unused */
  bool in_term[MAX_IN][LABELS], kept[LABELS];
  int count[LABELS];
  zn_dtype ct;
  /* matrix product: operand numbers and the labels of each group, outermost first */
  uint32_t a, b;
  uint8_t g[G_COUNT][LABELS];
  int gn[G_COUNT];
} einsum;

static int label_of(char ch) {
  return ch >= 'a' && ch <= 'z' ? 26 + ch - 'a' : ch >= 'A' && ch <= 'Z' ? ch - 'A' : -1;
}

/* One term up to ',', '-' or the end; `dots` axes stand for its ellipsis. Shape inference has checked the equation. */
static const char *parse_term(const char *p, int dots, term *t) {
  for (; *p && *p != ',' && *p != '-'; p++) {
    if (*p == ' ') continue;
    if (*p == '.') {
      p += 2;
      for (int d = 0; d < dots; d++) t->label[t->n++] = (uint8_t)(LABELS - dots + d);
    } else {
      t->label[t->n++] = (uint8_t)label_of(*p);
    }
  }
  return p;
}

static int letters_of(const char *p) {
  int n = 0;
  for (; *p && *p != ',' && *p != '-'; p++) n += label_of(*p) >= 0;
  return n;
}

static void read_equation(zn_lw *lw, zn_nid n, einsum *s) {
  const zn_node *node = zn_lw_node(lw, n);
  const char *p = zn_node_str(node, "equation");
  int dots = 0;
  for (uint32_t i = 0; i < node->num_in; i++) {
    const zn_type *t = zn_lw_type(lw, node->in[i]);
    const int span = t->rank - letters_of(p);
    if (span > dots) dots = span;
    p = parse_term(p, span, &s->t[i]);
    if (*p == ',') p++;
    s->in[s->num++] = node->in[i];
    for (int d = 0; d < t->rank; d++) {
      const uint8_t l = s->t[i].label[d];
      if (!s->dim[l] || zn_ex_is(lw->ex, s->dim[l], 1)) s->dim[l] = t->dims[d];
      s->in_term[i][l] = true;
      s->count[l]++;
    }
  }
  if (*p == '-') {
    parse_term(p + 2, dots, &s->out);
  } else { /* implicit: the ellipsis, then labels that occur once, in alphabetical order */
    for (int d = 0; d < dots; d++) s->out.label[s->out.n++] = (uint8_t)(LABELS - dots + d);
    for (int l = 0; l < LETTERS; l++)
      if (s->count[l] == 1) s->out.label[s->out.n++] = (uint8_t)l;
  }
  s->y = node->out[0];
  const zn_type *ty = zn_lw_type(lw, s->y);
  for (int d = 0; d < s->out.n; d++) {
    s->kept[s->out.label[d]] = true;
    s->dim[s->out.label[d]] = ty->dims[d];
  }
}

/* Element of operand i at the label positions `at`. */
static zn_kref load_term(zn_lw *lw, const einsum *s, uint32_t i, const zn_expr *at) {
  const zn_type t = *zn_lw_type(lw, s->in[i]);
  zn_expr idx[ZN_MAX_RANK], dims[ZN_MAX_RANK];
  for (int d = 0; d < t.rank; d++) {
    idx[d] = at[s->t[i].label[d]];
    dims[d] = s->dim[s->t[i].label[d]];
  }
  return zn_lw_load_bcast(lw, s->in[i], t.rank, dims, idx);
}

static void output_index(const einsum *s, const zn_expr *at, zn_expr *out) {
  for (int d = 0; d < s->out.n; d++) out[d] = at[s->out.label[d]];
}

/* ---------------------------------------------------------------- the general kernel */

static zn_status general(zn_lw *lw, zn_nid n, const einsum *s) {
  zn_kb *b = &lw->kb;
  zn_expr at[LABELS] = {0}, extents[ZN_MAX_RANK], vars[ZN_MAX_RANK], out[ZN_MAX_RANK];
  zn_lw_kernel(lw, n, "einsum");
  const int grid = s->out.n > 0 ? s->out.n - 1 : 0;
  for (int d = 0; d < grid; d++) extents[d] = s->dim[s->out.label[d]];
  zn_lw_grid(lw, (uint32_t)grid, extents, vars);
  for (int d = 0; d < grid; d++) at[s->out.label[d]] = vars[d];
  if (s->out.n) {
    const uint8_t last = s->out.label[grid];
    at[last] = zn_lw_for(lw, s->dim[last], ZN_FOR_VECTOR, 0);
  }
  zn_kref zero = zn_is_float(s->ct) ? zn_kb_float(b, s->ct, 0) : zn_kb_int(b, s->ct, 0);
  zn_kref acc = zn_kb_var(b, zero);
  int loops = 0;
  for (int l = 0; l < LABELS; l++) {
    if (!s->dim[l] || s->kept[l]) continue;
    at[l] = zn_lw_for(lw, s->dim[l], ZN_FOR_SERIAL, 0);
    loops++;
  }
  zn_kref p = load_term(lw, s, 0, at);
  for (uint32_t i = 1; i + 1 < s->num; i++) {
    zn_kref x = load_term(lw, s, i, at);
    p = zn_kb_bin(b, ZN_K_Mul, p, x);
  }
  zn_kref last = s->num > 1 ? load_term(lw, s, s->num - 1, at) : 0;
  zn_kref old = zn_kb_get(b, acc);
  zn_kb_set(b, acc, last ? zn_mul_add(lw, p, last, old) : zn_kb_bin(b, ZN_K_Add, old, p));
  while (loops-- > 0) zn_lw_end(lw);
  output_index(s, at, out);
  zn_lw_emit(lw, s->y, out, zn_kb_get(b, acc));
  if (s->out.n) zn_lw_end(lw);
  zn_lw_end(lw);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}

/* ---------------------------------------------------------------- as a matrix product */

static bool repeats(const term *t) {
  for (int i = 0; i < t->n; i++)
    for (int j = 0; j < i; j++)
      if (t->label[i] == t->label[j]) return true;
  return false;
}

static void add_label(einsum *s, group g, int l) { s->g[g][s->gn[g]++] = (uint8_t)l; }

static bool as_product(einsum *s) {
  if (s->num != 2 || s->out.n == 0) return false;
  if (repeats(&s->t[0]) || repeats(&s->t[1]) || repeats(&s->out)) return false;
  const uint8_t last = s->out.label[s->out.n - 1];
  if (s->in_term[0][last] && s->in_term[1][last]) return false;
  s->b = s->in_term[1][last] ? 1 : 0;
  s->a = 1 - s->b;
  for (int d = 0; d < s->out.n; d++) {
    const uint8_t l = s->out.label[d];
    const bool in_a = s->in_term[s->a][l], in_b = s->in_term[s->b][l];
    add_label(s, in_a && in_b ? G_BATCH : in_a ? G_M : G_N, l);
  }
  for (int l = 0; l < LABELS; l++) {
    if (!s->dim[l] || s->kept[l]) continue;
    if (!s->in_term[0][l] || !s->in_term[1][l]) return false; /* summed over one operand only */
    add_label(s, G_K, l);
  }
  return s->gn[G_K] > 0 && s->gn[G_BATCH] <= ZN_MAX_RANK;
}

static zn_expr extent_of(zn_lw *lw, const einsum *s, group g) {
  zn_expr n = zn_ex_const(lw->ex, 1);
  for (int i = 0; i < s->gn[g]; i++) n = zn_ex_mul(lw->ex, n, s->dim[s->g[g][i]]);
  return n;
}

/* Positions of the labels of a group from the flat position in it. */
static void split(zn_lw *lw, const einsum *s, group g, zn_expr flat, zn_expr *at) {
  for (int i = s->gn[g] - 1; i > 0; i--) {
    const uint8_t l = s->g[g][i];
    at[l] = zn_ex_mod(lw->ex, flat, s->dim[l]);
    flat = zn_ex_div(lw->ex, flat, s->dim[l]);
  }
  if (s->gn[g]) at[s->g[g][0]] = flat;
}

static void batch_at(const einsum *s, const zn_expr *batch, zn_expr *at) {
  for (int i = 0; i < s->gn[G_BATCH]; i++) at[s->g[G_BATCH][i]] = batch[i];
}

static zn_kref product_a(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr k) {
  const einsum *s = user;
  zn_expr at[LABELS] = {0};
  batch_at(s, batch, at);
  split(lw, s, G_M, m, at);
  split(lw, s, G_K, k, at);
  return load_term(lw, s, s->a, at);
}

static zn_kref product_b(zn_lw *lw, void *user, const zn_expr *batch, zn_expr k, zn_expr n) {
  const einsum *s = user;
  zn_expr at[LABELS] = {0};
  batch_at(s, batch, at);
  split(lw, s, G_K, k, at);
  split(lw, s, G_N, n, at);
  return load_term(lw, s, s->b, at);
}

static void product_out(zn_lw *lw, void *user, const zn_expr *batch, zn_expr m, zn_expr n, zn_kref acc) {
  const einsum *s = user;
  zn_expr at[LABELS] = {0}, out[ZN_MAX_RANK];
  batch_at(s, batch, at);
  split(lw, s, G_M, m, at);
  split(lw, s, G_N, n, at);
  output_index(s, at, out);
  zn_lw_emit(lw, s->y, out, acc);
}

typedef struct packing {
  const einsum *s;
  const zn_htensor *w;
  int64_t dim[LABELS], stride[LABELS];
} packing;

static uint64_t walk(const packing *p, group g, uint64_t flat) {
  uint64_t off = 0;
  for (int i = p->s->gn[g] - 1; i >= 0; i--) {
    const uint8_t l = p->s->g[g][i];
    off += flat % (uint64_t)p->dim[l] * (uint64_t)p->stride[l];
    flat /= (uint64_t)p->dim[l];
  }
  return off;
}

static void copy_elem(void *user, uint64_t k, uint64_t n, void *dst) {
  const packing *p = user;
  const unsigned size = zn_dtype_bytes(p->w->dtype);
  memcpy(dst, (const char *)p->w->data + (walk(p, G_K, k) + walk(p, G_N, n)) * size, size);
}

static void pack(zn_lw *lw, zn_gemm *g, const einsum *s) {
  packing p = {.s = s, .w = zn_lw_cst(lw, s->in[s->b])};
  int64_t stride = 1, k, n;
  if (!p.w || s->gn[G_BATCH] || !zn_ex_is_const(lw->ex, g->k, &k) || !zn_ex_is_const(lw->ex, g->n, &n)) return;
  for (int d = s->t[s->b].n - 1; d >= 0; d--) {
    const uint8_t l = s->t[s->b].label[d];
    if (!zn_ex_is_const(lw->ex, s->dim[l], &p.dim[l])) return;
    p.stride[l] = p.w->dims[d] == 1 ? 0 : stride;
    stride *= p.w->dims[d];
  }
  zn_gemm_pack(lw, g, lw->g->vals[s->in[s->b]].name, (uint64_t)k, (uint64_t)n, p.w->dtype, copy_elem, &p);
}

static zn_status einsum_kernel(zn_lw *lw, zn_nid n) {
  einsum *s = ZN_NEW(lw->arena, einsum);
  const zn_node *node = zn_lw_node(lw, n);
  if (node->num_in > MAX_IN)
    return zn_fail(lw->ctx, ZN_ERR_UNSUPPORTED, zn_node_where(lw->ctx, node), "more than %d operands", MAX_IN);
  read_equation(lw, n, s);
  s->ct = zn_lw_ctype((zn_dtype)zn_lw_type(lw, s->in[0])->dtype);
  if (!as_product(s)) return general(lw, n, s);
  zn_gemm g = {.node = n, .hint = "einsum", .num_batch = (uint32_t)s->gn[G_BATCH], .t = s->ct,
               .a = product_a, .b = product_b, .emit = product_out, .user = s};
  for (int i = 0; i < s->gn[G_BATCH]; i++) g.batch[i] = s->dim[s->g[G_BATCH][i]];
  g.m = extent_of(lw, s, G_M);
  g.n = extent_of(lw, s, G_N);
  g.k = extent_of(lw, s, G_K);
  pack(lw, &g, s);
  zn_gemm_emit(lw, &g);
  return ZN_OK;
}
const zn_lower zn_lower_einsum = {NULL, einsum_kernel};
